//! Writing BTF, type by type, under libbpf's names (`btf__add_*`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::btf::{Btf, at};
use crate::error::{BtfErrorKind, Result};
use crate::raw::{self, Info, kind};
use crate::types::{Linkage, Member, TypeId, VarSecinfo};

/// A BTF in the making. Ids are given in order, so a forward reference is [`BtfBuilder::next_id`] plus
/// what is still to come. Nothing is checked but list lengths: it also writes the lies of tests.
#[derive(Debug, Default)]
pub struct BtfBuilder {
    base: Option<Arc<Btf>>,
    types: Vec<u8>,
    strings: Vec<u8>,
    offsets: HashMap<String, u32>,
    count: u32,
    too_long: Option<usize>,
}

impl BtfBuilder {
    /// An empty BTF.
    pub fn new() -> BtfBuilder {
        BtfBuilder {
            strings: vec![0],
            ..BtfBuilder::default()
        }
    }

    /// An empty split BTF on top of `base`.
    pub fn split(base: Arc<Btf>) -> BtfBuilder {
        BtfBuilder {
            base: Some(base),
            ..BtfBuilder::default()
        }
    }

    /// Id of the next type.
    pub fn next_id(&self) -> TypeId {
        let start = self.base.as_ref().map_or(1, |b| b.type_count());
        TypeId(start + self.count)
    }

    /// Offset of a string, added if it is new.
    pub fn add_str(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&off) = self.offsets.get(text) {
            return off;
        }
        let start = self.base.as_ref().map_or(0, |b| b.str_end());
        let off = start + self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        self.offsets.insert(text.to_owned(), off);
        off
    }

    /// Any type, word by word; what the other methods stand on.
    pub fn add_raw(&mut self, name_off: u32, info: u32, size: u32, tail: &[u32]) -> TypeId {
        let id = self.next_id();
        for word in [name_off, info, size].iter().chain(tail) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        id
    }

    fn add(&mut self, kind: u8, name: &str, kflag: bool, size: u32, tail: &[u32]) -> TypeId {
        let name = self.add_str(name);
        self.add_raw(name, Info::new(kind, 0, kflag).0, size, tail)
    }

    fn add_list(
        &mut self,
        kind: u8,
        name: &str,
        kflag: bool,
        size: u32,
        (vlen, tail): (usize, &[u32]),
    ) -> TypeId {
        if vlen > usize::from(u16::MAX) {
            self.too_long = Some(vlen);
        }
        let name = self.add_str(name);
        self.add_raw(name, Info::new(kind, vlen as u16, kflag).0, size, tail)
    }

    /// `INT` of `size` bytes, all of them counting.
    pub fn add_int(&mut self, name: &str, size: u32, encoding: u8) -> TypeId {
        self.add_int_bits(name, size, encoding, 0, size.saturating_mul(8) as u8)
    }

    /// `INT` with its bits spelt out.
    pub fn add_int_bits(
        &mut self,
        name: &str,
        size: u32,
        encoding: u8,
        offset: u8,
        bits: u8,
    ) -> TypeId {
        let data = u32::from(encoding) << 24 | u32::from(offset) << 16 | u32::from(bits);
        self.add(kind::INT, name, false, size, &[data])
    }

    /// `FLOAT`.
    pub fn add_float(&mut self, name: &str, size: u32) -> TypeId {
        self.add(kind::FLOAT, name, false, size, &[])
    }

    /// `PTR`.
    pub fn add_ptr(&mut self, to: TypeId) -> TypeId {
        self.add(kind::PTR, "", false, to.0, &[])
    }

    /// `ARRAY`.
    pub fn add_array(&mut self, elem: TypeId, index: TypeId, nelems: u32) -> TypeId {
        self.add(kind::ARRAY, "", false, 0, &[elem.0, index.0, nelems])
    }

    /// `STRUCT`; with `kind_flag` if a member is a bit-field.
    pub fn add_struct(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> TypeId {
        self.add_composite(kind::STRUCT, name, size, members)
    }

    /// `UNION`; with `kind_flag` if a member is a bit-field.
    pub fn add_union(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> TypeId {
        self.add_composite(kind::UNION, name, size, members)
    }

    fn add_composite(&mut self, kind: u8, name: &str, size: u32, members: &[Member<'_>]) -> TypeId {
        let kflag = members.iter().any(|m| m.bitfield_size != 0);
        let mut tail = Vec::with_capacity(members.len() * 3);
        for m in members {
            let offset = m.bit_offset | u32::from(m.bitfield_size) << 24;
            tail.extend([self.add_str(m.name), m.ty.0, offset]);
        }
        self.add_list(kind, name, kflag, size, (members.len(), &tail))
    }

    /// `ENUM`.
    pub fn add_enum(
        &mut self,
        name: &str,
        size: u32,
        signed: bool,
        values: &[(&str, i64)],
    ) -> TypeId {
        let mut tail = Vec::with_capacity(values.len() * 2);
        for &(name, value) in values {
            tail.extend([self.add_str(name), value as u32]);
        }
        self.add_list(kind::ENUM, name, signed, size, (values.len(), &tail))
    }

    /// `ENUM64`.
    pub fn add_enum64(
        &mut self,
        name: &str,
        size: u32,
        signed: bool,
        values: &[(&str, i64)],
    ) -> TypeId {
        let mut tail = Vec::with_capacity(values.len() * 3);
        for &(name, value) in values {
            tail.extend([
                self.add_str(name),
                value as u32,
                (value as u64 >> 32) as u32,
            ]);
        }
        self.add_list(kind::ENUM64, name, signed, size, (values.len(), &tail))
    }

    /// `FWD` of a struct or a union.
    pub fn add_fwd(&mut self, name: &str, is_union: bool) -> TypeId {
        self.add(kind::FWD, name, is_union, 0, &[])
    }

    /// `TYPEDEF`.
    pub fn add_typedef(&mut self, name: &str, to: TypeId) -> TypeId {
        self.add(kind::TYPEDEF, name, false, to.0, &[])
    }

    /// `VOLATILE`.
    pub fn add_volatile(&mut self, to: TypeId) -> TypeId {
        self.add(kind::VOLATILE, "", false, to.0, &[])
    }

    /// `CONST`.
    pub fn add_const(&mut self, to: TypeId) -> TypeId {
        self.add(kind::CONST, "", false, to.0, &[])
    }

    /// `RESTRICT`.
    pub fn add_restrict(&mut self, to: TypeId) -> TypeId {
        self.add(kind::RESTRICT, "", false, to.0, &[])
    }

    /// `TYPE_TAG`.
    pub fn add_type_tag(&mut self, tag: &str, to: TypeId) -> TypeId {
        self.add(kind::TYPE_TAG, tag, false, to.0, &[])
    }

    /// `DECL_TAG`; `component_idx` -1 for the type itself.
    pub fn add_decl_tag(&mut self, tag: &str, ty: TypeId, component_idx: i32) -> TypeId {
        self.add(kind::DECL_TAG, tag, false, ty.0, &[component_idx as u32])
    }

    /// `FUNC`.
    pub fn add_func(&mut self, name: &str, linkage: Linkage, proto: TypeId) -> TypeId {
        let name = self.add_str(name);
        let info = Info::new(kind::FUNC, linkage.to_raw() as u16, false);
        self.add_raw(name, info.0, proto.0, &[])
    }

    /// `FUNC_PROTO`.
    pub fn add_func_proto(&mut self, ret: TypeId, params: &[(&str, TypeId)]) -> TypeId {
        let mut tail = Vec::with_capacity(params.len() * 2);
        for &(name, ty) in params {
            tail.extend([self.add_str(name), ty.0]);
        }
        let list = (params.len(), tail.as_slice());
        self.add_list(kind::FUNC_PROTO, "", false, ret.0, list)
    }

    /// `VAR`.
    pub fn add_var(&mut self, name: &str, linkage: Linkage, ty: TypeId) -> TypeId {
        self.add(kind::VAR, name, false, ty.0, &[linkage.to_raw()])
    }

    /// `DATASEC`.
    pub fn add_datasec(&mut self, name: &str, size: u32, vars: &[VarSecinfo]) -> TypeId {
        let words = vars.iter().flat_map(|v| [v.ty.0, v.offset, v.size]);
        let tail: Vec<u32> = words.collect();
        self.add_list(kind::DATASEC, name, false, size, (vars.len(), &tail))
    }

    /// The blob.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.types.len() + self.strings.len());
        out.extend(raw::MAGIC.to_le_bytes());
        out.extend([raw::VERSION, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [raw::HEADER_LEN, 0, types, types, strings] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }

    /// The blob, parsed.
    ///
    /// # Errors
    /// Lists of more than 65535 entries, and whatever [`Btf::parse`] refuses.
    pub fn build(self) -> Result<Btf> {
        if let Some(n) = self.too_long {
            return Err(at(0, BtfErrorKind::ListTooLong(n)));
        }
        let bytes = self.to_bytes();
        match self.base {
            Some(base) => Btf::parse_split(&bytes, base),
            None => Btf::parse(&bytes),
        }
    }
}
