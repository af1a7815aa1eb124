//! Following references: modifiers, typedefs, sizes and alignments, with a bound on every chain.

use std::collections::HashMap;

use crate::btf::Btf;
use crate::error::{BtfError, BtfErrorKind, Result};
use crate::raw::kind;
use crate::types::{Type, TypeId};

/// `MAX_RESOLVE_DEPTH` of libbpf and of the kernel: longest chain of references that is followed.
pub const MAX_RESOLVE_DEPTH: usize = 32;
/// Longest chain of modifiers and typedefs that is skipped; the kernel takes no more than 32.
const MAX_CHAIN: u32 = 256;
/// Deepest nesting of structs and arrays that [`Btf::align_of`] and the printers follow.
pub(crate) const MAX_NESTING: usize = 64;
/// `sizeof(void *)` in BPF.
pub(crate) const PTR_SIZE: u32 = 8;

fn is_modifier(kind: u8) -> bool {
    matches!(
        kind,
        kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG
    )
}

impl Btf {
    /// An error about this type, placed at its first byte.
    pub(crate) fn error(&self, id: TypeId, what: BtfErrorKind) -> BtfError {
        BtfError {
            type_id: Some(id),
            offset: self.raw_type(id).map_or(0, |raw| raw.blob_offset),
            what,
        }
    }

    /// The type, or the error that there is none.
    pub fn get(&self, id: TypeId) -> Result<Type<'_>> {
        let missing = || self.error(id, BtfErrorKind::NoSuchType(id.0));
        self.ty(id).ok_or_else(missing)
    }

    /// Follows references while `skip` says so; gives the steps too.
    fn skip_while(&self, id: TypeId, skip: impl Fn(u8) -> bool) -> Result<(TypeId, u32)> {
        let mut at = id;
        for step in 0..MAX_CHAIN {
            if at == TypeId::VOID {
                return Ok((at, step));
            }
            let (kind, next) = self
                .reference(at)
                .ok_or_else(|| self.error(at, BtfErrorKind::NoSuchType(at.0)))?;
            if !skip(kind) {
                return Ok((at, step));
            }
            at = next;
        }
        Err(self.error(id, BtfErrorKind::ChainTooLong))
    }

    /// Past modifiers and typedefs, with the number of them.
    pub(crate) fn skip_counted(&self, id: TypeId) -> Result<(TypeId, u32)> {
        self.skip_while(id, |k| is_modifier(k) || k == kind::TYPEDEF)
    }

    /// Past `const`, `volatile`, `restrict` and type tags (`skip_mods`).
    ///
    /// # Errors
    /// A chain of more than 256, or one that bites its tail.
    pub fn skip_mods(&self, id: TypeId) -> Result<TypeId> {
        Ok(self.skip_while(id, is_modifier)?.0)
    }

    /// Past modifiers and typedefs (`skip_mods_and_typedefs`; the kernel's `btf_type_skip_modifiers`).
    ///
    /// # Errors
    /// A chain of more than 256, or one that bites its tail.
    pub fn skip_mods_and_typedefs(&self, id: TypeId) -> Result<TypeId> {
        Ok(self.skip_counted(id)?.0)
    }

    /// The type behind modifiers and typedefs, with its id.
    ///
    /// # Errors
    /// A chain of more than 256, or one that bites its tail.
    pub fn resolve(&self, id: TypeId) -> Result<(TypeId, Type<'_>)> {
        let id = self.skip_mods_and_typedefs(id)?;
        Ok((id, self.get(id)?))
    }

    /// Bytes that a value takes (`btf__resolve_size`).
    ///
    /// # Errors
    /// Types without a size, chains of more than [`MAX_RESOLVE_DEPTH`], sizes beyond 32 bits.
    pub fn size_of(&self, id: TypeId) -> Result<u32> {
        let (mut at, mut nelems) = (id, 1u32);
        for _ in 0..MAX_RESOLVE_DEPTH {
            let size = match self.get(at)? {
                Type::Int(int) => int.size,
                Type::Struct(c) | Type::Union(c) => c.size,
                Type::Enum(e) | Type::Enum64(e) => e.size,
                Type::Datasec(d) => d.size,
                Type::Float { size, .. } => size,
                Type::Ptr { .. } => PTR_SIZE,
                Type::Typedef { to, .. }
                | Type::Volatile { to }
                | Type::Const { to }
                | Type::Restrict { to }
                | Type::TypeTag { to, .. }
                | Type::Var { ty: to, .. }
                | Type::DeclTag { ty: to, .. } => {
                    at = to;
                    continue;
                }
                Type::Array(array) => {
                    let more = nelems.checked_mul(array.nelems);
                    nelems = more.ok_or_else(|| self.error(at, BtfErrorKind::ArrayTooLarge))?;
                    at = array.elem;
                    continue;
                }
                other => return Err(self.error(at, BtfErrorKind::NoSize(other.kind()))),
            };
            let total = size.checked_mul(nelems);
            return total.ok_or_else(|| self.error(id, BtfErrorKind::ArrayTooLarge));
        }
        Err(self.error(id, BtfErrorKind::ChainTooLong))
    }

    /// Alignment in bytes (`btf__align_of`); 1 for a packed struct.
    ///
    /// # Errors
    /// Types without an alignment, and nesting that is too deep or bites its tail.
    pub fn align_of(&self, id: TypeId) -> Result<u32> {
        self.align_in(id, &mut HashMap::new())
    }

    /// As [`Btf::align_of`], remembering what it has worked out in `known`.
    pub(crate) fn align_in(&self, id: TypeId, known: &mut HashMap<TypeId, u32>) -> Result<u32> {
        self.align_at(id, MAX_NESTING, known)
    }

    /// `known` keeps shared members from being looked at once per path to them.
    fn align_at(&self, id: TypeId, depth: usize, known: &mut HashMap<TypeId, u32>) -> Result<u32> {
        let id = self.skip_mods_and_typedefs(id)?;
        if let Some(&align) = known.get(&id) {
            return Ok(align);
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.error(id, BtfErrorKind::TooDeep(MAX_NESTING as u32)));
        };
        let align = match self.get(id)? {
            Type::Int(crate::Int { size, .. }) | Type::Float { size, .. } => size.min(PTR_SIZE),
            Type::Enum(e) | Type::Enum64(e) => e.size.min(PTR_SIZE),
            Type::Ptr { .. } => PTR_SIZE,
            Type::Array(array) => self.align_at(array.elem, depth, known)?,
            Type::Struct(c) | Type::Union(c) => {
                let mut max = 1;
                let mut packed = false;
                for m in c.members {
                    let align = self.align_at(m.ty, depth, known)?.max(1);
                    max = max.max(align);
                    packed |= m.bitfield_size == 0 && m.bit_offset % (8 * align) != 0;
                }
                match packed || c.size % max != 0 {
                    true => 1,
                    false => max,
                }
            }
            other => return Err(self.error(id, BtfErrorKind::NoSize(other.kind()))),
        };
        known.insert(id, align);
        Ok(align)
    }
}
