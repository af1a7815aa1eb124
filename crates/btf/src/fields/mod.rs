//! Special fields of map values and of allocated objects: timers, locks, kptrs, lists, trees
//! (`btf_parse_fields` of 6.18, quirks included).
//!
//! The kernel goes by the member's type as it stands: a `bpf_timer` behind a typedef or `const`, in a
//! union, at an odd offset or of another size is plain bytes. Whatever is an error here is none when a
//! map is created: the map just has no special fields, and programs that want one are refused.

mod check;
mod error;
mod kind;
mod search;

pub use check::check_ownership;
pub use error::FieldsError;
pub use kind::{FieldKind, FieldMask};
pub(crate) use search::is_kptr;

use check::{check, target};
use search::{Place, Search};

use crate::btf::Btf;
use crate::types::{Type, TypeId};

/// `BTF_FIELDS_MAX`.
const MAX_FIELDS: usize = 11;
/// Members that are looked at; structs of size 0 can be nested without end.
pub(crate) const WORK_LIMIT: u32 = 1 << 24;

/// A special field (`struct btf_field`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Bytes from the start of the value.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// What it leads to.
    pub to: FieldTarget,
}

/// What a pointer, a list or a tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldTarget {
    /// Nothing: a lock, a timer, a node, ...
    None,
    /// A pointer to a struct of the program's own BTF, modifiers skipped.
    Struct(TypeId),
    /// A list or tree of these structs, linked through the node at this offset.
    Graph {
        /// Struct of the program's own BTF.
        value: TypeId,
        /// Bytes from the start of that struct to the node.
        node_offset: u32,
    },
}

/// Special fields of a map's value, in order of offset; none if there are none.
///
/// # Errors
/// As [`parse_fields_in`].
pub fn parse_fields(btf: &Btf, value_type: TypeId) -> Result<Vec<Field>, FieldsError> {
    parse_fields_in(btf, value_type, FieldMask::MAP_VALUE, None)
}

/// Special fields of a struct (or of the section of global variables), in order of offset.
///
/// With a `kernel`, kptrs to structs of the kernel are held to its destructors.
///
/// # Errors
/// Where `btf_parse_fields` gives one. `map_create` takes that for "no special fields".
pub fn parse_fields_in(
    btf: &Btf,
    value_type: TypeId,
    mask: FieldMask,
    kernel: Option<&Btf>,
) -> Result<Vec<Field>, FieldsError> {
    search(btf, value_type, mask, kernel, &mut { WORK_LIMIT })
}

/// As [`parse_fields_in`], with a bound on the work that several calls share.
pub(crate) fn search(
    btf: &Btf,
    value_type: TypeId,
    mask: FieldMask,
    kernel: Option<&Btf>,
    work: &mut u32,
) -> Result<Vec<Field>, FieldsError> {
    let (id, ty) = btf.resolve(value_type)?;
    let mut search = Search {
        btf,
        mask,
        seen: 0,
        work,
    };
    let mut found = Vec::new();
    let value_size = match ty {
        Type::Struct(c) => {
            search.members(id, 0, MAX_FIELDS, &mut found)?;
            c.size
        }
        Type::Datasec(d) => {
            for var in d.vars {
                let Some(Type::Var { ty, .. }) = btf.ty(var.ty) else {
                    continue;
                };
                let place = Place {
                    owner: var.ty,
                    component: -1,
                    offset: var.offset,
                    expected: var.size,
                };
                search.one(&place, ty, 0, MAX_FIELDS, &mut found)?;
            }
            d.size
        }
        _ => return Err(FieldsError::NotAStruct(value_type)),
    };
    check(btf, &found, value_size, kernel)?;
    let mut fields: Vec<Field> = Vec::with_capacity(found.len());
    for hit in found {
        fields.push(Field {
            kind: hit.kind,
            offset: hit.offset,
            size: hit.kind.size(),
            to: target(btf, &hit)?,
        });
    }
    fields.sort_by_key(|f| f.offset);
    Ok(fields)
}
