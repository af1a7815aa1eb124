//! Looking for special fields, members of members included (`btf_find_field`).

use super::kind::{ROWS, Row};
use super::{FieldKind, FieldMask, FieldsError};
use crate::btf::Btf;
use crate::types::{Kind, Type, TypeId};
use crate::walk::MAX_RESOLVE_DEPTH;

/// A field that was found (`struct btf_field_info`).
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) kind: FieldKind,
    pub(super) offset: u32,
    /// Of a pointer, the struct; of a list or tree, its element.
    pub(super) to: TypeId,
    pub(super) node: String,
}

/// Where a member or variable is.
pub(super) struct Place {
    /// The struct or the variable, which may carry `contains:` tags.
    pub(super) owner: TypeId,
    /// The member's index; -1 for a variable.
    pub(super) component: i32,
    pub(super) offset: u32,
    /// Size that the section gives the variable; 0 for a member.
    pub(super) expected: u32,
}

pub(super) struct Search<'a> {
    pub(super) btf: &'a Btf,
    pub(super) mask: FieldMask,
    /// Unique kinds that were met, even if they were then ignored.
    pub(super) seen: u32,
    pub(super) work: &'a mut u32,
}

impl Search<'_> {
    fn spend(&mut self, work: u32) -> Result<(), FieldsError> {
        *self.work = self
            .work
            .checked_sub(work)
            .ok_or(FieldsError::TooMuchWork)?;
        Ok(())
    }

    /// `btf_find_struct_field`; pushes no more than `room`.
    pub(super) fn members(
        &mut self,
        id: TypeId,
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let Some(composite) = self.btf.ty(id).and_then(|t| t.composite()) else {
            return Ok(());
        };
        let start = out.len();
        for (i, member) in composite.members.iter().enumerate() {
            self.spend(1)?;
            if member.bit_offset % 8 != 0 {
                let member = i as u32;
                return Err(FieldsError::UnalignedMember { ty: id, member });
            }
            let place = Place {
                owner: id,
                component: i as i32,
                offset: member.bit_offset / 8,
                expected: 0,
            };
            let left = room - (out.len() - start);
            self.one(&place, member.ty, level, left, out)?;
        }
        Ok(())
    }

    /// `btf_find_field_one`: a member, a variable, or an array of them.
    pub(super) fn one(
        &mut self,
        place: &Place,
        ty: TypeId,
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let (elem, nelems) = self.flatten(ty)?;
        if nelems == 0 {
            return Ok(());
        }
        let ty = self.btf.get(elem)?;
        let Some(row) = self.kind_of(&ty)? else {
            let Type::Struct(c) = ty else {
                return Ok(());
            };
            if place.expected != 0 && place.expected != c.size.wrapping_mul(nelems) {
                return Ok(());
            }
            return self.nested(place.offset, elem, (nelems, c.size), level, room, out);
        };
        let fits = place.expected == 0 || place.expected == row.size.wrapping_mul(nelems);
        if !fits || !place.offset.is_multiple_of(row.align) {
            return Ok(());
        }
        let hit = match row.kind {
            kind if kind.is_pointer() => self.pointer(place, &ty)?,
            _ if ty.composite().map(|c| c.size) != Some(row.size) => None,
            _ if ty.kind() != Kind::Struct => None,
            FieldKind::ListHead | FieldKind::RbRoot => Some(self.graph_root(place, row.kind)?),
            kind => Some(Hit {
                kind,
                offset: place.offset,
                to: TypeId::VOID,
                node: String::new(),
            }),
        };
        let Some(hit) = hit else {
            return Ok(());
        };
        if room == 0 {
            return Err(FieldsError::TooMany);
        }
        out.push(hit);
        repeat(out, 1, nelems, row.size, room)
    }

    /// Element type and number of elements of nested arrays; the type itself and 1 for others.
    fn flatten(&self, ty: TypeId) -> Result<(TypeId, u32), FieldsError> {
        let (mut at, mut nelems) = (ty, 1u32);
        for _ in 0..MAX_RESOLVE_DEPTH {
            match self.btf.get(at)? {
                Type::Array(array) => {
                    nelems = nelems.wrapping_mul(array.nelems);
                    at = array.elem;
                }
                _ => return Ok((at, nelems)),
            }
        }
        Err(FieldsError::TooDeep)
    }

    /// `btf_get_field_type`: by name, and any pointer for a kptr to be.
    fn kind_of(&mut self, ty: &Type<'_>) -> Result<Option<&'static Row>, FieldsError> {
        let name = ty.name();
        for row in &ROWS {
            if row.name == Some(name) && self.mask.has(row.kind) {
                if row.unique && self.seen & row.bit != 0 {
                    return Err(FieldsError::Duplicate(row.kind.name()));
                }
                self.seen |= row.bit;
                return Ok(Some(row));
            }
        }
        let may_be_pointer = self.mask.has_pointers() && ty.kind() != Kind::Struct;
        Ok(may_be_pointer.then(|| FieldKind::KptrRef.row()))
    }

    /// `btf_find_nested_struct`.
    fn nested(
        &mut self,
        offset: u32,
        id: TypeId,
        (nelems, size): (u32, u32),
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let level = level + 1;
        if level >= MAX_RESOLVE_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        let start = out.len();
        self.members(id, level, room, out)?;
        let count = out.len() - start;
        // Until here offsets count from the nested struct: so does the test of their alignment.
        for hit in &mut out[start..] {
            hit.offset = hit.offset.wrapping_add(offset);
        }
        match count {
            0 => Ok(()),
            _ => repeat(out, count, nelems, size, room),
        }
    }

    /// `btf_find_kptr`.
    fn pointer(&self, place: &Place, ty: &Type<'_>) -> Result<Option<Hit>, FieldsError> {
        pointer(self.btf, self.mask, place.offset, ty)
    }

    /// `btf_find_graph_root`: `contains:TYPE:NODE` on the member.
    fn graph_root(&mut self, place: &Place, kind: FieldKind) -> Result<Hit, FieldsError> {
        let bad = || FieldsError::Contains(place.offset);
        self.spend(self.btf.type_count())?;
        let mut tags = (1..self.btf.type_count()).filter_map(|id| {
            match self.btf.reference(TypeId(id))? {
                (crate::raw::kind::DECL_TAG, ty) if ty == place.owner => {}
                _ => return None,
            }
            match self.btf.ty(TypeId(id))? {
                Type::DeclTag {
                    name,
                    component_idx,
                    ..
                } if component_idx == place.component => name.strip_prefix("contains:"),
                _ => None,
            }
        });
        let (Some(tag), None) = (tags.next(), tags.next()) else {
            return Err(bad());
        };
        let (value, node) = tag.split_once(':').ok_or_else(bad)?;
        let to = self.btf.find(value, Kind::Struct);
        let to = to.ok_or(FieldsError::ContainsNothing(place.offset))?;
        match node {
            "" => Err(bad()),
            node => Ok(Hit {
                kind,
                offset: place.offset,
                to,
                node: node.to_owned(),
            }),
        }
    }
}

/// `btf_find_kptr`: a pointer whose target carries one of the tags.
fn pointer(
    btf: &Btf,
    mask: FieldMask,
    offset: u32,
    ty: &Type<'_>,
) -> Result<Option<Hit>, FieldsError> {
    let ty = match *ty {
        Type::Volatile { to } => btf.get(to)?,
        ty => ty,
    };
    let Type::Ptr { to } = ty else {
        return Ok(None);
    };
    let Type::TypeTag {
        name,
        to,
        is_attr: false,
    } = btf.get(to)?
    else {
        return Ok(None);
    };
    let row = ROWS.iter().find(|r| r.tag == Some(name));
    let several = matches!(btf.get(to)?, Type::TypeTag { .. });
    let Some(row) = row.filter(|_| !several) else {
        return Err(FieldsError::PointerTag(offset));
    };
    if !mask.has(row.kind) {
        return Ok(None);
    }
    let (to, ty) = btf.resolve(to)?;
    match ty {
        Type::Struct(_) => Ok(Some(Hit {
            kind: row.kind,
            offset,
            to,
            node: String::new(),
        })),
        _ => Err(FieldsError::PointerTarget(offset)),
    }
}

/// Whether a member of this type is a kptr.
pub(crate) fn is_kptr(btf: &Btf, id: TypeId) -> bool {
    let kptrs = FieldMask(4 | 8 | 16);
    let found = btf.get(id).map_err(FieldsError::from);
    let found = found.and_then(|ty| pointer(btf, kptrs, 0, &ty));
    matches!(found, Ok(Some(_)))
}

/// `btf_repeat_fields`: the last `count` hits once per element of an array.
fn repeat(
    out: &mut Vec<Hit>,
    count: usize,
    nelems: u32,
    size: u32,
    room: usize,
) -> Result<(), FieldsError> {
    if nelems <= 1 {
        return Ok(());
    }
    let start = out.len() - count;
    for hit in &out[start..] {
        let graph = matches!(hit.kind, FieldKind::ListHead | FieldKind::RbRoot);
        if !graph && !hit.kind.is_pointer() {
            return Err(FieldsError::Array(hit.kind.name()));
        }
    }
    if count.saturating_mul(nelems as usize) > room {
        return Err(FieldsError::TooMany);
    }
    for i in 1..nelems {
        for j in 0..count {
            let mut hit = out[start + j].clone();
            hit.offset = hit.offset.wrapping_add(i.wrapping_mul(size));
            out.push(hit);
        }
    }
    Ok(())
}
