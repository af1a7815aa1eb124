//! Each type by itself (`btf_check_all_metas`).

use crate::btf::{Btf, RawType};
use crate::error::{BtfErrorKind as E, Result};
use crate::raw::{self, KSYM_NAME_LEN, kind};
use crate::types::{Composite, Datasec, Enumeration, Int, Linkage, Type, TypeId};

/// Bits of an integer that the kernel prints.
const MAX_INT_BITS: u32 = 128;

/// Every type of this BTF, in order of id.
pub(super) fn check_all(btf: &Btf) -> Result<()> {
    for (id, ty) in btf.iter() {
        let Some(raw) = btf.raw_type(id) else {
            continue;
        };
        Meta { btf, id, raw }.check(&ty)?;
    }
    Ok(())
}

struct Meta<'a> {
    btf: &'a Btf,
    id: TypeId,
    raw: RawType<'a>,
}

/// What a kind demands of the words that all kinds have.
struct Rules {
    kflag: bool,
    vlen: bool,
    name: Name,
}

enum Name {
    /// Not looked at.
    Any,
    None,
    Identifier,
    IdentifierOrNone,
}

/// `BTF_KIND_*` to what it may carry.
fn rules(kind: u8) -> Rules {
    let (kflag, vlen, name) = match kind {
        kind::INT | kind::FLOAT => (false, false, Name::Any),
        kind::PTR | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::ARRAY => {
            (false, false, Name::None)
        }
        kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
            (true, true, Name::IdentifierOrNone)
        }
        kind::FWD => (true, false, Name::Identifier),
        kind::TYPEDEF | kind::VAR => (false, false, Name::Identifier),
        kind::FUNC => (false, true, Name::Identifier),
        kind::FUNC_PROTO => (false, true, Name::None),
        // Sections and tags have rules of their own for names.
        kind::DATASEC => (false, true, Name::Any),
        _ => (true, false, Name::Any),
    };
    Rules { kflag, vlen, name }
}

/// `BTF_TYPE_ID_VALID`, and not `void`.
fn is_reference(id: TypeId) -> bool {
    id != TypeId::VOID && id.0 <= raw::MAX_TYPE
}

/// `btf_name_valid_identifier`.
pub(super) fn is_identifier(name: &str) -> bool {
    let ok = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'.';
    let first = name.as_bytes().first();
    first.is_some_and(|&c| ok(c) && !c.is_ascii_digit())
        && name.len() <= KSYM_NAME_LEN
        && name.bytes().all(ok)
}

/// `btf_name_valid_section`; the kernel's `isprint` knows Latin-1.
fn is_section(name: &str) -> bool {
    let printable = |c: u8| (0x20..0x7f).contains(&c) || c >= 0xa0;
    !name.is_empty() && name.len() < KSYM_NAME_LEN && name.bytes().all(printable)
}

impl Meta<'_> {
    fn err(&self, what: E) -> Result<()> {
        Err(self.btf.error(self.id, what))
    }

    fn name(&self) -> &str {
        self.btf.str_at(self.raw.name_off)
    }

    /// `btf_name_offset_valid`.
    fn may_name(&self, off: u32) -> bool {
        off <= raw::MAX_NAME_OFFSET && self.btf.has_string(off)
    }

    fn check(&self, ty: &Type<'_>) -> Result<()> {
        let info = self.raw.info;
        if info.has_unknown_bits() {
            return self.err(E::InvalidInfo(info.0));
        }
        if !self.may_name(self.raw.name_off) {
            return self.err(E::InvalidNameOffset(self.raw.name_off));
        }
        let rules = rules(info.kind());
        if !rules.vlen && info.vlen() != 0 {
            return self.err(E::VlenNotZero);
        }
        if !rules.kflag && info.kflag() {
            return self.err(E::InvalidKindFlag);
        }
        let named = self.raw.name_off != 0;
        let fits = match rules.name {
            Name::Any => true,
            Name::None => !named,
            Name::Identifier => named && is_identifier(self.name()),
            Name::IdentifierOrNone => !named || is_identifier(self.name()),
        };
        if !fits {
            return self.err(E::InvalidName);
        }
        match *ty {
            Type::Ptr { to }
            | Type::Typedef { to, .. }
            | Type::Volatile { to }
            | Type::Const { to }
            | Type::Restrict { to }
            | Type::TypeTag { to, .. }
            | Type::Var { ty: to, .. }
                if to.0 > raw::MAX_TYPE =>
            {
                self.err(E::InvalidTypeId)
            }
            Type::Int(int) => self.int(int),
            Type::Float { size, .. } if ![2, 4, 8, 12, 16].contains(&size) => {
                self.err(E::InvalidTypeSize)
            }
            Type::Array(array) => self.array(array),
            Type::Struct(c) => self.composite(c, false),
            Type::Union(c) => self.composite(c, true),
            Type::Enum(e) | Type::Enum64(e) => self.enumeration(e),
            Type::Fwd { .. } if self.raw.size_or_type != 0 => self.err(E::TypeNotZero),
            Type::Func {
                linkage: Linkage::Extern | Linkage::Other(_),
                ..
            } => self.err(E::InvalidFuncLinkage),
            Type::Var {
                ty: TypeId::VOID, ..
            } => self.err(E::InvalidTypeId),
            Type::Var {
                linkage: Linkage::Extern | Linkage::Other(_),
                ..
            } => self.err(E::UnsupportedLinkage),
            Type::Datasec(d) => self.datasec(d),
            Type::DeclTag { name: "", .. } => self.err(E::InvalidValue),
            Type::DeclTag { component_idx, .. } if component_idx < -1 => {
                self.err(E::InvalidComponentIdx)
            }
            Type::TypeTag { name: "", .. } => self.err(E::InvalidName),
            _ => Ok(()),
        }
    }

    fn int(&self, int: Int<'_>) -> Result<()> {
        let data = raw::u32_at(self.raw.tail, 0).unwrap_or(0);
        if data & !0x0fff_ffff != 0 {
            return self.err(E::InvalidIntData(data));
        }
        let bits = u32::from(int.bits) + u32::from(int.offset);
        if bits > MAX_INT_BITS {
            return self.err(E::IntBitsTooMany);
        }
        if bits.div_ceil(8) > int.size {
            return self.err(E::IntBitsExceedSize);
        }
        match int.encoding {
            0 | raw::INT_SIGNED | raw::INT_CHAR | raw::INT_BOOL => Ok(()),
            _ => self.err(E::UnsupportedEncoding),
        }
    }

    fn array(&self, array: crate::Array) -> Result<()> {
        if self.raw.size_or_type != 0 {
            return self.err(E::SizeNotZero);
        }
        if !is_reference(array.elem) {
            return self.err(E::InvalidElem);
        }
        match is_reference(array.index) {
            true => Ok(()),
            false => self.err(E::InvalidIndex),
        }
    }

    fn composite(&self, c: Composite<'_>, is_union: bool) -> Result<()> {
        let mut last = 0;
        for (i, m) in c.members.iter().enumerate() {
            let index = i as u32;
            let name_off = raw::u32_at(self.raw.tail, 12 * i).unwrap_or(0);
            if !self.may_name(name_off) {
                return self.err(E::InvalidMemberNameOffset(name_off));
            }
            if name_off != 0 && !is_identifier(m.name) {
                return self.err(E::InvalidMemberName(index));
            }
            if !is_reference(m.ty) {
                return self.err(E::InvalidMemberTypeId(index));
            }
            if is_union && m.bit_offset != 0 || last > m.bit_offset {
                return self.err(E::InvalidMemberBitsOffset(index));
            }
            if m.bit_offset.div_ceil(8) > c.size {
                return self.err(E::MemberOffsetExceedsStruct(index));
            }
            last = m.bit_offset;
        }
        Ok(())
    }

    fn enumeration(&self, e: Enumeration<'_>) -> Result<()> {
        if e.size > 8 || !e.size.is_power_of_two() {
            return self.err(E::UnexpectedSize);
        }
        let stride = self.raw.tail.len() / e.values.len().max(1);
        for (i, value) in e.values.iter().enumerate() {
            let name_off = raw::u32_at(self.raw.tail, stride * i).unwrap_or(0);
            if !self.may_name(name_off) {
                return self.err(E::InvalidNameOffset(name_off));
            }
            if !is_identifier(value.name) {
                return self.err(E::InvalidName);
            }
        }
        Ok(())
    }

    fn datasec(&self, d: Datasec<'_>) -> Result<()> {
        if d.size == 0 {
            return self.err(E::SizeZero);
        }
        if !is_section(d.name) {
            return self.err(E::InvalidName);
        }
        let mut end = 0u64;
        for (i, var) in d.vars.iter().enumerate() {
            let i = i as u32;
            if !is_reference(var.ty) {
                return self.err(E::InvalidVarTypeId(i));
            }
            if u64::from(var.offset) < end || var.offset >= d.size {
                return self.err(E::InvalidVarOffset(i));
            }
            if var.size == 0 || var.size > d.size {
                return self.err(E::InvalidVarSize(i));
            }
            // Sums of two 32-bit numbers wrap in the kernel; a wrapped end is caught by what follows
            // only if there is a next variable, so it is refused here.
            end = u64::from(var.offset) + u64::from(var.size);
            if end > u64::from(d.size) {
                return self.err(E::InvalidVarEnd(i));
            }
        }
        Ok(())
    }
}
