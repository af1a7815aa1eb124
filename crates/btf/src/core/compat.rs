//! Compatibility: which types may stand for one another when a field or a type is looked up.

use super::{Budget, CoreError, kinds_are_compat, skip};
use crate::btf::Btf;
use crate::index::essential_name;
use crate::types::{Type, TypeId};

/// Chains of pointers and arrays, and nested function types, that are followed.
pub(super) const MAX_DEPTH: u32 = 32;

fn plain_ints(local: &Type<'_>, target: &Type<'_>) -> bool {
    match (local, target) {
        // Integers of all sizes stand for one another, but for the old kind of bit-field.
        (Type::Int(l), Type::Int(t)) => l.offset == 0 && t.offset == 0,
        _ => false,
    }
}

/// `bpf_core_fields_are_compat`: may a field of the one type be read as the other?
pub(super) fn fields_are_compat(
    local_btf: &Btf,
    mut local_id: TypeId,
    target_btf: &Btf,
    mut target_id: TypeId,
    budget: &mut Budget,
) -> Result<bool, CoreError> {
    // Arrays of arrays are a chain that may bite its tail.
    for _ in 0..crate::MAX_RESOLVE_DEPTH {
        let (_, local) = skip(local_btf, local_id, budget)?;
        let (_, target) = skip(target_btf, target_id, budget)?;
        if local.composite().is_some() && target.composite().is_some() {
            return Ok(true);
        }
        if !kinds_are_compat(local.kind(), target.kind()) {
            return Ok(false);
        }
        return Ok(match (local, target) {
            (Type::Ptr { .. } | Type::Float { .. }, _) => true,
            (Type::Fwd { .. } | Type::Enum(_) | Type::Enum64(_), _) => {
                let (l, t) = (essential_name(local.name()), essential_name(target.name()));
                l.is_empty() || t.is_empty() || l == t
            }
            (Type::Int(_), _) => plain_ints(&local, &target),
            (Type::Array(l), Type::Array(t)) => {
                (local_id, target_id) = (l.elem, t.elem);
                continue;
            }
            _ => false,
        });
    }
    Err(CoreError::TypesTooDeep)
}

/// `bpf_core_types_are_compat`: does the target type count as the local one for existence and size?
pub(super) fn types_are_compat(
    local_btf: &Btf,
    local_id: TypeId,
    target_btf: &Btf,
    target_id: TypeId,
    budget: &mut Budget,
) -> Result<bool, CoreError> {
    // Names were compared by the caller; kinds are compared before and after typedefs are skipped.
    let (local, target) = (local_btf.get(local_id)?, target_btf.get(target_id)?);
    if !kinds_are_compat(local.kind(), target.kind()) {
        return Ok(false);
    }
    let mut pair = Pair {
        local: local_btf,
        target: target_btf,
        budget,
    };
    pair.are_compat(local_id, target_id, MAX_DEPTH)
}

struct Pair<'a, 'b> {
    local: &'a Btf,
    target: &'a Btf,
    budget: &'b mut Budget,
}

impl Pair<'_, '_> {
    fn are_compat(
        &mut self,
        mut local_id: TypeId,
        mut target_id: TypeId,
        level: u32,
    ) -> Result<bool, CoreError> {
        for _ in 0..MAX_DEPTH {
            self.budget.spend(1)?;
            let (_, local) = skip(self.local, local_id, self.budget)?;
            let (_, target) = skip(self.target, target_id, self.budget)?;
            if !kinds_are_compat(local.kind(), target.kind()) {
                return Ok(false);
            }
            match (local, target) {
                (
                    Type::Void
                    | Type::Struct(_)
                    | Type::Union(_)
                    | Type::Enum(_)
                    | Type::Enum64(_)
                    | Type::Fwd { .. },
                    _,
                ) => return Ok(true),
                (Type::Int(_), _) => return Ok(plain_ints(&local, &target)),
                (Type::Ptr { to: l }, Type::Ptr { to: t }) => (local_id, target_id) = (l, t),
                (Type::Array(l), Type::Array(t)) => (local_id, target_id) = (l.elem, t.elem),
                (Type::FuncProto(l), Type::FuncProto(t)) => {
                    if l.params.len() != t.params.len() {
                        return Ok(false);
                    }
                    for (l, t) in l.params.iter().zip(t.params) {
                        let level = level.checked_sub(1).ok_or(CoreError::TypesTooDeep)?;
                        if !self.are_compat(l.ty, t.ty, level)? {
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
}
