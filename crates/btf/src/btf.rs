//! A parsed blob: where each type lies, and the strings.

use std::sync::{Arc, OnceLock};

use crate::error::{BtfError, BtfErrorKind, Result};
use crate::header::Header;
use crate::index::NameIndex;
use crate::list::List;
use crate::raw::{self, Info, kind};
use crate::types::{
    Array, Composite, Datasec, Enumeration, FuncProto, Int, Kind, Linkage, Type, TypeId,
};

/// Longest name of a type, member or parameter: twice what Linux takes.
/// A limit is needed, since a million types may share one string of megabytes.
pub const MAX_NAME_LEN: usize = 2 * raw::KSYM_NAME_LEN;
/// How many split BTFs may stand on one another.
const MAX_BASE_DEPTH: u32 = 8;

/// Types and strings as `libbpf` reads them: every id, name offset and length has been looked at, so
/// that walking needs no checks, but sizes, offsets and cycles may still lie.
/// [`Btf::check_as_kernel`] holds it to the rules of `BPF_BTF_LOAD`.
#[derive(Debug)]
pub struct Btf {
    base: Option<Arc<Btf>>,
    base_depth: u32,
    /// Id of the first type here; 1 without a base.
    start_id: u32,
    /// String offset of the first byte here; 0 without a base.
    start_str: u32,
    types: Vec<u8>,
    /// Start of each type within `types`.
    offsets: Vec<u32>,
    /// As `raw_strings`, with every byte that is not UTF-8 replaced by `?`.
    strings: String,
    /// Kept where it differs from `strings`: C lines may be in any encoding.
    raw_strings: Option<Vec<u8>>,
    /// No string is too long for a name, and all are UTF-8: names need no further look.
    plain_names: bool,
    /// Header as read; offsets are relative to its end.
    header: Header,
    names: OnceLock<NameIndex>,
}

pub(crate) fn at(offset: u32, what: BtfErrorKind) -> BtfError {
    BtfError {
        type_id: None,
        offset,
        what,
    }
}

impl Btf {
    /// Reads a BTF that stands alone.
    ///
    /// # Errors
    /// Whatever libbpf refuses in `btf__new`, and names that are not UTF-8 or longer than [`MAX_NAME_LEN`].
    pub fn parse(bytes: &[u8]) -> Result<Btf> {
        Btf::parse_with(bytes, None)
    }

    /// Reads a split BTF (`btf__new_split`), whose ids and strings go on where those of `base` end.
    ///
    /// # Errors
    /// As [`Btf::parse`].
    pub fn parse_split(bytes: &[u8], base: Arc<Btf>) -> Result<Btf> {
        Btf::parse_with(bytes, Some(base))
    }

    fn parse_with(bytes: &[u8], base: Option<Arc<Btf>>) -> Result<Btf> {
        let header = Header::parse(bytes)?;
        let (btf, broken) = Btf::assemble(bytes, header, base)?;
        match broken {
            Some(error) => Err(error),
            None => btf.check_references().map(|()| btf),
        }
    }

    /// Reads a BTF as `BPF_BTF_LOAD` does: as [`Btf::parse`] and then [`Btf::check_as_kernel`], but of
    /// several lies it names the one that Linux meets first. `kernel` is needed to hold kptrs to the
    /// kernel's types.
    ///
    /// # Errors
    /// What Linux refuses, with the text that it logs; [`BtfError::errno`] is what it returns. Names in
    /// Latin-1, which Linux takes, are refused too.
    pub fn load_as_kernel(bytes: &[u8], kernel: Option<&Btf>) -> Result<Btf> {
        let header = Header::parse(bytes)?;
        header.check_as_kernel(true)?;
        let (btf, broken) = Btf::assemble(bytes, header, None)?;
        btf.check_metas()?;
        if let Some(error) = broken {
            return Err(error);
        }
        btf.check_types_as_kernel(kernel)?;
        btf.check_references()?;
        Ok(btf)
    }

    /// Cuts the blob up, without following references. Types end where the error is, if there is one.
    fn assemble(
        bytes: &[u8],
        header: Header,
        base: Option<Arc<Btf>>,
    ) -> Result<(Btf, Option<BtfError>)> {
        use BtfErrorKind as E;
        let (types, strings) = header.sections(bytes)?;
        let str_at = header.hdr_len + header.str_off;
        let starts_well = base.is_some() || strings.first() == Some(&0);
        if !starts_well || (!strings.is_empty() && strings.last() != Some(&0)) {
            return Err(at(str_at, E::InvalidStrings));
        }
        let base_depth = base.as_ref().map_or(0, |b| b.base_depth + 1);
        if base_depth > MAX_BASE_DEPTH {
            return Err(at(0, E::BaseTooDeep(MAX_BASE_DEPTH)));
        }
        let short = |text: &[u8]| text.len() <= MAX_NAME_LEN;
        let all_short = strings.split(|&b| b == 0).all(short);
        let (strings, raw_strings) = text_of(strings);
        let mut btf = Btf {
            start_id: base.as_ref().map_or(1, |b| b.type_count()),
            start_str: base.as_ref().map_or(0, |b| b.str_end()),
            base,
            base_depth,
            types: types.to_vec(),
            offsets: Vec::new(),
            plain_names: all_short && raw_strings.is_none(),
            strings,
            raw_strings,
            header,
            names: OnceLock::new(),
        };
        let broken = btf.cut_types().err();
        Ok((btf, broken))
    }

    /// Finds where each type starts.
    fn cut_types(&mut self) -> Result<()> {
        use BtfErrorKind as E;
        self.offsets = Vec::with_capacity(self.types.len() / 24);
        let mut pos = 0usize;
        while pos < self.types.len() {
            let left = self.types.len() - pos;
            let id = self.start_id as usize + self.offsets.len();
            let err = |what| BtfError {
                type_id: Some(TypeId(id as u32)),
                offset: self.types_start() + pos as u32,
                what,
            };
            if id > raw::MAX_TYPE as usize {
                return Err(err(E::TooManyTypes));
            }
            let truncated = |left: usize, needed: usize| E::TruncatedType {
                left: left as u32,
                needed: needed as u32,
            };
            let fixed = raw::TYPE_LEN as usize;
            if left < fixed {
                return Err(err(truncated(left, fixed)));
            }
            let info = Info(self.word(pos + 4));
            let tail = raw::tail_len(info).filter(|_| info.kind() != kind::VOID);
            let tail = match tail {
                Some(tail) if tail <= left - fixed => tail,
                _ if info.has_unknown_bits() => return Err(err(E::InvalidInfo(info.0))),
                None => return Err(err(E::InvalidKind(info.kind()))),
                Some(tail) => return Err(err(truncated(left - fixed, tail))),
            };
            self.offsets.push(pos as u32);
            pos += fixed + tail;
        }
        Ok(())
    }

    /// Every id and every name offset leads somewhere (`btf_validate_type` of libbpf).
    fn check_references(&self) -> Result<()> {
        use BtfErrorKind as E;
        let count = self.type_count();
        for (index, &pos) in self.offsets.iter().enumerate() {
            let id = TypeId(self.start_id + index as u32);
            let pos = pos as usize;
            let err = |at: usize, what| BtfError {
                type_id: Some(id),
                offset: self.types_start() + at as u32,
                what,
            };
            let known = |at: usize, what| match self.word(at) < count {
                true => Ok(()),
                false => Err(err(at, what)),
            };
            let named = |at: usize| self.check_name(self.word(at)).map_err(|what| err(at, what));
            let info = Info(self.word(pos + 4));
            named(pos)?;
            let tail = pos + raw::TYPE_LEN as usize;
            let records = |stride: usize| (0..info.vlen()).map(move |i| tail + i * stride);
            match info.kind() {
                kind::PTR
                | kind::TYPEDEF
                | kind::VOLATILE
                | kind::CONST
                | kind::RESTRICT
                | kind::VAR
                | kind::DECL_TAG
                | kind::TYPE_TAG
                | kind::FUNC => {
                    known(pos + 8, E::InvalidTypeId)?;
                }
                kind::ARRAY => {
                    known(tail, E::InvalidElem)?;
                    known(tail + 4, E::InvalidIndex)?;
                }
                kind::STRUCT | kind::UNION => {
                    for (i, at) in records(12).enumerate() {
                        named(at)?;
                        known(at + 4, E::InvalidMemberTypeId(i as u32))?;
                    }
                }
                kind::ENUM => records(8).try_for_each(named)?,
                kind::ENUM64 => records(12).try_for_each(named)?,
                kind::FUNC_PROTO => {
                    known(pos + 8, E::InvalidReturnType)?;
                    for (i, at) in records(8).enumerate() {
                        named(at)?;
                        known(at + 4, E::InvalidArg(i as u32))?;
                    }
                }
                kind::DATASEC => {
                    for (i, at) in records(12).enumerate() {
                        known(at, E::InvalidVarTypeId(i as u32))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_name(&self, off: u32) -> Result<(), BtfErrorKind> {
        let Some((owner, local)) = self.string_owner(off) else {
            return Err(BtfErrorKind::InvalidNameOffset(off));
        };
        if owner.plain_names && owner.strings.is_char_boundary(local) {
            return Ok(());
        }
        let bytes = &owner.string_bytes()[local..];
        let window = &bytes[..bytes.len().min(MAX_NAME_LEN + 1)];
        let Some(len) = window.iter().position(|&b| b == 0) else {
            return Err(BtfErrorKind::NameTooLong(MAX_NAME_LEN));
        };
        match owner.raw_strings.is_some() && std::str::from_utf8(&bytes[..len]).is_err()
            || !owner.strings.is_char_boundary(local)
        {
            true => Err(BtfErrorKind::NameNotUtf8),
            false => Ok(()),
        }
    }

    /// The blob: what was parsed, with sections side by side as Linux wants them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let strings = self.string_bytes();
        let mut out = Vec::with_capacity(24 + self.types.len() + strings.len());
        out.extend(raw::MAGIC.to_le_bytes());
        out.extend([raw::VERSION, self.header.flags]);
        let types = self.types.len() as u32;
        for word in [raw::HEADER_LEN, 0, types, types, strings.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.types);
        out.extend(strings);
        out
    }

    /// The base of a split BTF.
    pub fn base(&self) -> Option<&Arc<Btf>> {
        self.base.as_ref()
    }

    /// Number of types, `void` and those of the base included: one more than the largest id.
    pub fn type_count(&self) -> u32 {
        self.start_id + self.offsets.len() as u32
    }

    /// First id that is not the base's; 1 if there is no base.
    pub fn start_id(&self) -> TypeId {
        TypeId(self.start_id)
    }

    /// One type, of this BTF or of its base.
    pub fn ty(&self, id: TypeId) -> Option<Type<'_>> {
        let mut owner = self;
        while id.0 < owner.start_id {
            match &owner.base {
                Some(base) => owner = base,
                None => return Some(Type::Void),
            }
        }
        let pos = *owner.offsets.get((id.0 - owner.start_id) as usize)?;
        Some(owner.decode(pos as usize))
    }

    /// All types of this BTF itself, without `void` and without those of a base.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (TypeId, Type<'_>)> + ExactSizeIterator {
        self.offsets.iter().enumerate().map(|(i, &pos)| {
            let id = TypeId(self.start_id + i as u32);
            (id, self.decode(pos as usize))
        })
    }

    /// Names of the types of this BTF itself, in order.
    pub(crate) fn own_names(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        let offsets = self.offsets.iter();
        offsets.map(|&pos| match Info(self.word(pos as usize + 4)).kind() {
            // What may stand in place of their names is none.
            kind::PTR
            | kind::ARRAY
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC_PROTO => "",
            _ => self.str_at(self.word(pos as usize)),
        })
    }

    /// Name of a type; empty if it has none or does not exist.
    pub fn name_of(&self, id: TypeId) -> &str {
        self.ty(id).map_or("", |t| t.name())
    }

    /// First type of this name and kind, the base's first (`btf__find_by_name_kind`).
    pub fn find(&self, name: &str, kind: Kind) -> Option<TypeId> {
        let inherited = self.base.as_ref().and_then(|b| b.find(name, kind));
        inherited.or_else(|| {
            let mut found = self.names().find(self, name);
            found.find(|&id| self.ty(id).is_some_and(|t| t.kind() == kind))
        })
    }

    /// All types of this name, in order of id.
    pub fn find_all(&self, name: &str) -> Vec<TypeId> {
        let mut all = self.base.as_ref().map_or(Vec::new(), |b| b.find_all(name));
        all.extend(self.names().find(self, name));
        all
    }

    /// Types of this BTF itself whose name is `essential`, a `___flavour` apart.
    pub(crate) fn with_essential_name<'a>(
        &'a self,
        essential: &'a str,
    ) -> impl Iterator<Item = TypeId> + 'a {
        self.names().find_essential(self, essential)
    }

    fn names(&self) -> &NameIndex {
        self.names.get_or_init(|| NameIndex::build(self))
    }

    /// The string at this offset, up to its NUL; none beyond the end.
    /// Bytes that are not UTF-8 are shown as `?` (C source lines may have them).
    pub fn string(&self, off: u32) -> Option<&str> {
        let (owner, local) = self.string_owner(off)?;
        let rest = owner.strings.get(local..)?;
        Some(rest.split('\0').next().unwrap_or(rest))
    }

    /// As [`Btf::string`], for offsets that `check_references` has seen.
    pub(crate) fn str_at(&self, off: u32) -> &str {
        self.string(off).unwrap_or("")
    }

    fn string_owner(&self, off: u32) -> Option<(&Btf, usize)> {
        let mut owner = self;
        while off < owner.start_str {
            owner = owner.base.as_ref()?;
        }
        let local = (off - owner.start_str) as usize;
        (local < owner.strings.len()).then_some((owner, local))
    }

    fn string_bytes(&self) -> &[u8] {
        match &self.raw_strings {
            Some(raw) => raw,
            None => self.strings.as_bytes(),
        }
    }

    /// Whether a string starts (or goes on) at this offset.
    pub(crate) fn has_string(&self, off: u32) -> bool {
        self.string_owner(off).is_some()
    }

    pub(crate) fn str_end(&self) -> u32 {
        self.start_str + self.strings.len() as u32
    }

    fn types_start(&self) -> u32 {
        self.header.hdr_len + self.header.type_off
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// A word of the type section; `cut_types` has seen that it is there.
    fn word(&self, at: usize) -> u32 {
        raw::u32_at(&self.types, at).unwrap_or(0)
    }

    /// Raw words of a type of this BTF itself: (name_off, info, size or type), what follows it, and
    /// where it starts in the blob.
    pub(crate) fn raw_type(&self, id: TypeId) -> Option<RawType<'_>> {
        let mut owner = self;
        while id.0 < owner.start_id {
            owner = owner.base.as_ref()?;
        }
        let pos = *owner.offsets.get((id.0 - owner.start_id) as usize)? as usize;
        let info = Info(owner.word(pos + 4));
        let tail = pos + raw::TYPE_LEN as usize;
        Some(RawType {
            name_off: owner.word(pos),
            info,
            size_or_type: owner.word(pos + 8),
            tail: owner.tail(tail, raw::tail_len(info).unwrap_or(0)),
            blob_offset: owner.types_start() + pos as u32,
        })
    }

    /// Kind and third word of a type.
    pub(crate) fn reference(&self, id: TypeId) -> Option<(u8, TypeId)> {
        let mut owner = self;
        while id.0 < owner.start_id {
            owner = owner.base.as_ref()?;
        }
        let pos = *owner.offsets.get((id.0 - owner.start_id) as usize)? as usize;
        let kind = Info(owner.word(pos + 4)).kind();
        Some((kind, TypeId(owner.word(pos + 8))))
    }

    fn tail(&self, at: usize, len: usize) -> &[u8] {
        self.types.get(at..at + len).unwrap_or(&[])
    }

    fn decode(&self, pos: usize) -> Type<'_> {
        let info = Info(self.word(pos + 4));
        let name = self.str_at(self.word(pos));
        let size = self.word(pos + 8);
        let to = TypeId(size);
        let tail = pos + raw::TYPE_LEN as usize;
        let flag = info.kflag();
        match info.kind() {
            kind::INT => {
                let data = self.word(tail);
                Type::Int(Int {
                    name,
                    size,
                    bits: data as u8,
                    encoding: (data >> 24 & 0xf) as u8,
                    offset: (data >> 16) as u8,
                })
            }
            kind::PTR => Type::Ptr { to },
            kind::ARRAY => Type::Array(Array {
                elem: TypeId(self.word(tail)),
                index: TypeId(self.word(tail + 4)),
                nelems: self.word(tail + 8),
            }),
            kind::FWD => Type::Fwd {
                name,
                is_union: flag,
            },
            kind::TYPEDEF => Type::Typedef { name, to },
            kind::VOLATILE => Type::Volatile { to },
            kind::CONST => Type::Const { to },
            kind::RESTRICT => Type::Restrict { to },
            kind::FUNC => Type::Func {
                name,
                proto: to,
                linkage: Linkage::from_raw(info.vlen() as u32),
            },
            kind::VAR => Type::Var {
                name,
                ty: to,
                linkage: Linkage::from_raw(self.word(tail)),
            },
            kind::FLOAT => Type::Float { name, size },
            kind::DECL_TAG => Type::DeclTag {
                name,
                ty: to,
                component_idx: self.word(tail) as i32,
                is_attr: flag,
            },
            kind::TYPE_TAG => Type::TypeTag {
                name,
                to,
                is_attr: flag,
            },
            _ => self.decode_list(info, name, size, tail),
        }
    }

    /// A type with a list after it.
    fn decode_list<'a>(&'a self, info: Info, name: &'a str, size: u32, tail: usize) -> Type<'a> {
        let flag = info.kflag();
        macro_rules! list {
            ($stride:literal) => {
                List::new(self, self.tail(tail, info.vlen() * $stride), $stride, flag)
            };
        }
        let composite = || Composite {
            name,
            size,
            members: list!(12),
            kflag: flag,
        };
        let enumeration = |values| Enumeration {
            name,
            size,
            signed: flag,
            values,
        };
        match info.kind() {
            kind::STRUCT => Type::Struct(composite()),
            kind::UNION => Type::Union(composite()),
            kind::ENUM => Type::Enum(enumeration(list!(8))),
            kind::ENUM64 => Type::Enum64(enumeration(list!(12))),
            kind::FUNC_PROTO => Type::FuncProto(FuncProto {
                ret: TypeId(size),
                params: list!(8),
            }),
            kind::DATASEC => Type::Datasec(Datasec {
                name,
                size,
                vars: list!(12),
            }),
            // `cut_types` lets no other kind in.
            _ => Type::Void,
        }
    }
}

/// A type as it lies in the blob.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawType<'a> {
    pub(crate) name_off: u32,
    pub(crate) info: Info,
    pub(crate) size_or_type: u32,
    pub(crate) tail: &'a [u8],
    pub(crate) blob_offset: u32,
}

/// Text of the same length, and the bytes themselves where they are not all UTF-8.
fn text_of(bytes: &[u8]) -> (String, Option<Vec<u8>>) {
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => (text, None),
        Err(e) => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| '?'));
            }
            (text, Some(e.into_bytes()))
        }
    }
}
