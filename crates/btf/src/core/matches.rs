//! `bpf_core_type_matches`: does the kernel's type have all that the local one says?

use super::compat::MAX_DEPTH;
use super::{Budget, CoreError, skip};
use crate::btf::Btf;
use crate::index::essential_name;
use crate::types::{Composite, Enumeration, Kind, Type, TypeId};

/// `bpf_core_types_match`; root types' own names were compared by the caller, but are compared again
/// once typedefs are skipped.
pub(super) fn types_match(
    local: &Btf,
    local_id: TypeId,
    target: &Btf,
    target_id: TypeId,
    budget: &mut Budget,
) -> Result<bool, CoreError> {
    let mut pair = Pair {
        local,
        target,
        budget,
    };
    pair.types(local_id, target_id, false, MAX_DEPTH)
}

struct Pair<'a, 'b> {
    local: &'a Btf,
    target: &'a Btf,
    budget: &'b mut Budget,
}

/// `bpf_core_names_match`: the same but for flavours.
fn names_match(local: &str, target: &str) -> bool {
    match target {
        "" => local.is_empty(),
        _ => essential_name(local) == essential_name(target),
    }
}

impl Pair<'_, '_> {
    fn types(
        &mut self,
        mut local_id: TypeId,
        mut target_id: TypeId,
        mut behind_ptr: bool,
        level: u32,
    ) -> Result<bool, CoreError> {
        if level == 0 {
            return Err(CoreError::TypesTooDeep);
        }
        for _ in 0..MAX_DEPTH {
            self.budget.spend(1)?;
            let (_, local) = skip(self.local, local_id, self.budget)?;
            let (_, target) = skip(self.target, target_id, self.budget)?;
            if !names_match(local.name(), target.name()) {
                return Ok(false);
            }
            match (local, target) {
                (Type::Void, Type::Void) => return Ok(true),
                (Type::Fwd { is_union, .. }, _) => {
                    return Ok(declares(is_union, &target, behind_ptr));
                }
                (Type::Enum(l) | Type::Enum64(l), Type::Enum(t) | Type::Enum64(t)) => {
                    return self.enums(l, t);
                }
                (Type::Struct(_) | Type::Union(_), _) if behind_ptr => {
                    let is_union = local.kind() == Kind::Union;
                    let same = local.kind() == target.kind();
                    let fwd = matches!(target, Type::Fwd { is_union: u, .. } if u == is_union);
                    return Ok(same || fwd);
                }
                (Type::Struct(l), Type::Struct(t)) | (Type::Union(l), Type::Union(t)) => {
                    return self.composites(l, t, behind_ptr, level);
                }
                (Type::Int(l), Type::Int(t)) => {
                    return Ok(l.size == t.size && l.is_signed() == t.is_signed());
                }
                (Type::Ptr { to: l }, Type::Ptr { to: t }) => {
                    behind_ptr = true;
                    (local_id, target_id) = (l, t);
                }
                (Type::Array(l), Type::Array(t)) if l.nelems == t.nelems => {
                    (local_id, target_id) = (l.elem, t.elem);
                }
                (Type::FuncProto(l), Type::FuncProto(t)) => {
                    if l.params.len() != t.params.len() {
                        return Ok(false);
                    }
                    for (l, t) in l.params.iter().zip(t.params) {
                        if !self.types(l.ty, t.ty, behind_ptr, level - 1)? {
                            return Ok(false);
                        }
                    }
                    (local_id, target_id) = (l.ret, t.ret);
                }
                _ => return Ok(false),
            }
        }
        Err(CoreError::TypesTooDeep)
    }

    /// `bpf_core_enums_match`: every local name is there; values may differ.
    fn enums(
        &mut self,
        local: Enumeration<'_>,
        target: Enumeration<'_>,
    ) -> Result<bool, CoreError> {
        if local.size != target.size || local.values.len() > target.values.len() {
            return Ok(false);
        }
        for l in local.values {
            self.budget.spend(target.values.len() as u64)?;
            if !target.values.iter().any(|t| names_match(l.name, t.name)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `bpf_core_composites_match`: every local member is there, and matches.
    fn composites(
        &mut self,
        local: Composite<'_>,
        target: Composite<'_>,
        behind_ptr: bool,
        level: u32,
    ) -> Result<bool, CoreError> {
        if local.members.len() > target.members.len() {
            return Ok(false);
        }
        for l in local.members {
            let mut matched = false;
            for t in target.members {
                self.budget.spend(1)?;
                if names_match(l.name, t.name) && self.types(l.ty, t.ty, behind_ptr, level - 1)? {
                    matched = true;
                    break;
                }
            }
            if !matched {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a forward declaration may stand for the target.
fn declares(is_union: bool, target: &Type<'_>, behind_ptr: bool) -> bool {
    match *target {
        Type::Fwd { is_union: u, .. } => u == is_union,
        Type::Struct(_) => behind_ptr && !is_union,
        Type::Union(_) => behind_ptr && is_union,
        _ => false,
    }
}
