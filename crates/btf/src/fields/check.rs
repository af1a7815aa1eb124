//! The rules between fields, and what they lead to.

use super::search::Hit;
use super::{Field, FieldKind, FieldMask, FieldTarget, FieldsError, parse_fields_in};
use crate::btf::Btf;
use crate::types::{Kind, Type};

/// Destructors that 6.18 registers for kptrs (`register_btf_id_dtor_kfuncs`).
const DESTRUCTORS: [(&str, &str); 6] = [
    ("task_struct", "bpf_task_release_dtor"),
    ("cgroup", "bpf_cgroup_release_dtor"),
    ("bpf_cpumask", "bpf_cpumask_release_dtor"),
    ("bpf_crypto_ctx", "bpf_crypto_ctx_release_dtor"),
    ("prog_test_ref_kfunc", "bpf_kfunc_call_test_release_dtor"),
    ("prog_test_member", "bpf_kfunc_call_memb_release_dtor"),
];

/// What a uptr may point to at most.
pub(super) const PAGE_SIZE: u32 = 4096;

/// `btf_check_and_fixup_fields`: what a value with these fields may own. Unlike the errors of
/// [`super::parse_fields`], these refuse the map.
///
/// # Errors
/// Ownership that may form a cycle, and user pointers to what is no part of a page.
pub fn check_ownership(btf: &Btf, fields: &[Field]) -> Result<(), FieldsError> {
    let is_node = |f: &Field| matches!(f.kind, FieldKind::ListNode | FieldKind::RbNode);
    let is_root = |f: &Field| matches!(f.kind, FieldKind::ListHead | FieldKind::RbRoot);
    let owned = fields.iter().any(is_node);
    for field in fields {
        match field.to {
            FieldTarget::Struct(to) if field.kind == FieldKind::Uptr => {
                let size = btf.size_of(to)?;
                if size == 0 || size > PAGE_SIZE {
                    let offset = field.offset;
                    return Err(FieldsError::UptrSize { offset, size });
                }
            }
            FieldTarget::Graph { value, .. } if owned => {
                let inner = parse_fields_in(btf, value, FieldMask::ALLOCATED, None)?;
                if inner.iter().any(is_root) {
                    return Err(FieldsError::OwnershipCycle(field.offset));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The rules between fields, in the kernel's order.
pub(super) fn check(
    btf: &Btf,
    found: &[Hit],
    value_size: u32,
    kernel: Option<&Btf>,
) -> Result<(), FieldsError> {
    let mut next = 0u64;
    for hit in found {
        let end = u64::from(hit.offset) + u64::from(hit.kind.size());
        if end > u64::from(value_size) || u64::from(hit.offset) < next {
            return Err(FieldsError::Overlap(hit.kind.name()));
        }
        next = end;
        if let (FieldKind::KptrRef, Some(kernel)) = (hit.kind, kernel) {
            check_destructor(btf, hit, kernel)?;
        }
        target(btf, hit)?;
    }
    let has = |kinds: &[FieldKind]| found.iter().any(|h| kinds.contains(&h.kind));
    if has(&[FieldKind::SpinLock]) && has(&[FieldKind::ResSpinLock]) {
        return Err(FieldsError::TwoLocks);
    }
    let graph = has(&[FieldKind::ListHead, FieldKind::RbRoot]);
    if graph && !has(&[FieldKind::SpinLock, FieldKind::ResSpinLock]) {
        return Err(FieldsError::NoSpinLock);
    }
    let both = has(&[FieldKind::ListNode]) && has(&[FieldKind::RbNode]);
    if both && !has(&[FieldKind::Refcount]) {
        return Err(FieldsError::NoRefcount);
    }
    Ok(())
}

/// `btf_parse_kptr`: a struct that the kernel does not have is one that the program allocates.
fn check_destructor(btf: &Btf, hit: &Hit, kernel: &Btf) -> Result<(), FieldsError> {
    let name = btf.name_of(hit.to);
    if kernel.find(name, Kind::Struct).is_none() {
        return Ok(());
    }
    let row = DESTRUCTORS.iter().find(|(of, _)| *of == name);
    match row.and_then(|(_, dtor)| kernel.find(dtor, Kind::Func)) {
        Some(_) => Ok(()),
        None => Err(FieldsError::NoDestructor {
            offset: hit.offset,
            name: name.to_owned(),
        }),
    }
}

/// `btf_parse_graph_root`: the node in the element.
pub(super) fn target(btf: &Btf, hit: &Hit) -> Result<FieldTarget, FieldsError> {
    let node_kind = match hit.kind {
        FieldKind::ListHead => FieldKind::ListNode,
        FieldKind::RbRoot => FieldKind::RbNode,
        kind if kind.is_pointer() => return Ok(FieldTarget::Struct(hit.to)),
        _ => return Ok(FieldTarget::None),
    };
    let bad = || FieldsError::Contains(hit.offset);
    let value = btf.ty(hit.to).and_then(|t| t.composite()).ok_or_else(bad)?;
    let mut nodes = value.members.iter().filter(|m| m.name == hit.node);
    let node = match (nodes.next(), nodes.next()) {
        (Some(node), None) => node,
        (None, _) => return Err(FieldsError::ContainsNothing(hit.offset)),
        _ => return Err(bad()),
    };
    let is_node = match btf.get(node.ty)? {
        Type::Struct(c) => c.name == node_kind.name(),
        _ => false,
    };
    let align = node_kind.row().align;
    if !is_node || node.bit_offset % 8 != 0 || node.bit_offset / 8 % align != 0 {
        return Err(bad());
    }
    Ok(FieldTarget::Graph {
        value: hit.to,
        node_offset: node.bit_offset / 8,
    })
}
