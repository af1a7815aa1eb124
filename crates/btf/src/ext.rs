//! `.BTF.ext`: which instruction belongs to which function type, C line and CO-RE relocation.

use crate::btf::{Btf, at};
use crate::error::{BtfError, BtfErrorKind, Result};
use crate::raw;
use crate::types::TypeId;

/// The three lists of `.BTF.ext`, each by ELF section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BtfExt {
    /// Function types.
    pub func_info: Vec<ExtSection<FuncInfo>>,
    /// C lines.
    pub line_info: Vec<ExtSection<LineInfo>>,
    /// CO-RE relocations.
    pub core_relos: Vec<ExtSection<CoreRelo>>,
}

/// Records of one ELF section (`struct btf_ext_info_sec`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtSection<T> {
    /// Name of the ELF section.
    pub section: String,
    /// In the order of the file.
    pub records: Vec<T>,
}

/// `struct bpf_func_info`, with the offset as ELF has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuncInfo {
    /// Bytes from the start of the ELF section.
    pub insn_off: u32,
    /// A `Func`.
    pub type_id: TypeId,
}

/// `struct bpf_line_info`, with the offset as ELF has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineInfo {
    /// Bytes from the start of the ELF section.
    pub insn_off: u32,
    /// String offset of the file's name.
    pub file_name_off: u32,
    /// String offset of the line's text.
    pub line_off: u32,
    /// Line number, from 1.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub col: u32,
}

impl LineInfo {
    /// The file's name; empty if the offset leads nowhere.
    pub fn file<'a>(&self, btf: &'a Btf) -> &'a str {
        btf.str_at(self.file_name_off)
    }

    /// The line's text; empty if the compiler left it out.
    pub fn text<'a>(&self, btf: &'a Btf) -> &'a str {
        btf.str_at(self.line_off)
    }
}

/// `enum bpf_core_relo_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum CoreReloKind {
    FieldByteOffset = 0,
    FieldByteSize = 1,
    FieldExists = 2,
    FieldSigned = 3,
    FieldLshiftU64 = 4,
    FieldRshiftU64 = 5,
    TypeIdLocal = 6,
    TypeIdTarget = 7,
    TypeExists = 8,
    TypeSize = 9,
    EnumvalExists = 10,
    EnumvalValue = 11,
    TypeMatches = 12,
}

/// What libbpf and bpftool call each kind (`core_relo_kind_str`).
const CORE_KINDS: [(CoreReloKind, &str); 13] = [
    (CoreReloKind::FieldByteOffset, "byte_off"),
    (CoreReloKind::FieldByteSize, "byte_sz"),
    (CoreReloKind::FieldExists, "field_exists"),
    (CoreReloKind::FieldSigned, "signed"),
    (CoreReloKind::FieldLshiftU64, "lshift_u64"),
    (CoreReloKind::FieldRshiftU64, "rshift_u64"),
    (CoreReloKind::TypeIdLocal, "local_type_id"),
    (CoreReloKind::TypeIdTarget, "target_type_id"),
    (CoreReloKind::TypeExists, "type_exists"),
    (CoreReloKind::TypeSize, "type_size"),
    (CoreReloKind::EnumvalExists, "enumval_exists"),
    (CoreReloKind::EnumvalValue, "enumval_value"),
    (CoreReloKind::TypeMatches, "type_matches"),
];

impl CoreReloKind {
    /// The kind of this number, if there is one.
    pub fn from_u32(number: u32) -> Option<CoreReloKind> {
        let row = CORE_KINDS.get(usize::try_from(number).ok()?);
        row.map(|&(kind, _)| kind)
    }

    /// libbpf's word for it.
    pub fn as_str(self) -> &'static str {
        CORE_KINDS[self as usize].1
    }
}

/// `struct bpf_core_relo`, with the offset as ELF has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreRelo {
    /// Bytes from the start of the ELF section.
    pub insn_off: u32,
    /// Root type, in the object's own BTF.
    pub type_id: TypeId,
    /// String offset of the access string (`"0:1:2"`).
    pub access_str_off: u32,
    /// What is asked.
    pub kind: CoreReloKind,
}

/// What tells the lists apart.
struct Shape<T> {
    name: &'static str,
    /// Where the header says offset and length.
    header: usize,
    min_record: u32,
    read: fn(&[u8], &Btf) -> Result<T, BtfErrorKind>,
}

fn word(record: &[u8], i: usize) -> u32 {
    raw::u32_at(record, 4 * i).unwrap_or(0)
}

const FUNC_INFO: Shape<FuncInfo> = Shape {
    name: "func_info",
    header: 8,
    min_record: 8,
    read: |r, btf| {
        let type_id = TypeId(word(r, 1));
        match btf.ty(type_id) {
            Some(_) => Ok(FuncInfo {
                insn_off: word(r, 0),
                type_id,
            }),
            None => Err(BtfErrorKind::NoSuchType(type_id.0)),
        }
    },
};

const LINE_INFO: Shape<LineInfo> = Shape {
    name: "line_info",
    header: 16,
    min_record: 16,
    read: |r, btf| {
        let col = word(r, 3);
        let info = LineInfo {
            insn_off: word(r, 0),
            file_name_off: word(r, 1),
            line_off: word(r, 2),
            line: col >> 10,
            col: col & 0x3ff,
        };
        let strings = [info.file_name_off, info.line_off];
        match strings.iter().find(|&&off| !btf.has_string(off)) {
            None => Ok(info),
            Some(&off) => Err(BtfErrorKind::InvalidNameOffset(off)),
        }
    },
};

const CORE_RELO: Shape<CoreRelo> = Shape {
    name: "core_relo",
    header: 24,
    min_record: 16,
    read: |r, btf| {
        let (type_id, access, kind) = (TypeId(word(r, 1)), word(r, 2), word(r, 3));
        if btf.ty(type_id).is_none() {
            return Err(BtfErrorKind::NoSuchType(type_id.0));
        }
        if !btf.has_string(access) {
            return Err(BtfErrorKind::InvalidNameOffset(access));
        }
        let kind = CoreReloKind::from_u32(kind).ok_or(BtfErrorKind::CoreKind(kind))?;
        Ok(CoreRelo {
            insn_off: word(r, 0),
            type_id,
            access_str_off: access,
            kind,
        })
    },
};

impl<T> Shape<T> {
    fn error(&self, at: u32, what: &'static str) -> BtfError {
        crate::btf::at(at, BtfErrorKind::Ext(self.name, what))
    }

    /// All sections of this list (`btf_ext_setup_info`).
    fn parse(&self, bytes: &[u8], hdr_len: u32, btf: &Btf) -> Result<Vec<ExtSection<T>>> {
        let (off, len) = match (
            raw::u32_at(bytes, self.header),
            raw::u32_at(bytes, self.header + 4),
        ) {
            (Some(off), Some(len)) if self.header as u32 + 8 <= hdr_len => (off, len),
            // An older header knows of no CO-RE relocations.
            _ => return Ok(Vec::new()),
        };
        if len == 0 {
            return Ok(Vec::new());
        }
        let header = self.header as u32;
        if off % 4 != 0 {
            return Err(self.error(header, "section is not aligned to 4 bytes"));
        }
        let start = hdr_len as usize + off as usize;
        let end = start.saturating_add(len as usize);
        let Some(all) = bytes.get(..end) else {
            return Err(self.error(header, "section is beyond the end of .BTF.ext"));
        };
        if len < 4 {
            return Err(self.error(start as u32, "record size not found"));
        }
        let size = raw::u32_at(all, start).unwrap_or(0);
        if size < self.min_record || !size.is_multiple_of(4) {
            let what = BtfErrorKind::ExtRecordSize(self.name, size);
            return Err(crate::btf::at(start as u32, what));
        }
        if len == 4 {
            return Err(self.error(start as u32, "section has no records"));
        }
        let mut sections = Vec::new();
        let mut pos = start + 4;
        while pos < all.len() {
            let section;
            (section, pos) = self.section(all, pos, size, btf)?;
            sections.push(section);
        }
        Ok(sections)
    }

    fn section(
        &self,
        all: &[u8],
        pos: usize,
        size: u32,
        btf: &Btf,
    ) -> Result<(ExtSection<T>, usize)> {
        let (Some(name), Some(count)) = (raw::u32_at(all, pos), raw::u32_at(all, pos + 4)) else {
            return Err(self.error(pos as u32, "section header is not found"));
        };
        let left = all.len() - pos - 8;
        let needed = u64::from(count) * u64::from(size);
        if count == 0 || needed > left as u64 {
            return Err(self.error(pos as u32 + 4, "section has incorrect num_records"));
        }
        if !btf.has_string(name) {
            return Err(at(pos as u32, BtfErrorKind::InvalidNameOffset(name)));
        }
        let mut records = Vec::with_capacity(count as usize);
        let end = pos + 8 + needed as usize;
        for (i, record) in all[pos + 8..end].chunks_exact(size as usize).enumerate() {
            let place = (pos + 8 + i * size as usize) as u32;
            let record = (self.read)(record, btf);
            records.push(record.map_err(|what| at(place, what))?);
        }
        let section = ExtSection {
            section: btf.str_at(name).to_owned(),
            records,
        };
        Ok((section, end))
    }
}

impl BtfExt {
    /// Reads `.BTF.ext`; ids and strings are those of `btf`.
    ///
    /// # Errors
    /// What libbpf refuses in `btf_ext__new`, and records that name a type, a string or a relocation
    /// kind that is not there. Offsets in errors count from the start of `.BTF.ext`.
    pub fn parse(bytes: &[u8], btf: &Btf) -> Result<BtfExt> {
        use BtfErrorKind as E;
        let header = |what| crate::btf::at(0, E::Ext("header", what));
        if bytes.len() > raw::MAX_SIZE {
            return Err(at(0, E::TooLarge(bytes.len())));
        }
        let (Some(magic), Some(hdr_len), Some(&version), Some(&flags)) = (
            raw::u16_at(bytes, 0),
            raw::u32_at(bytes, 4),
            bytes.get(2),
            bytes.get(3),
        ) else {
            return Err(header("BTF.ext header not found"));
        };
        if magic == raw::MAGIC.swap_bytes() {
            return Err(at(0, E::BigEndian(magic)));
        }
        if hdr_len as usize > bytes.len() {
            return Err(header("BTF.ext header not found"));
        }
        if magic != raw::MAGIC {
            return Err(at(0, E::InvalidMagic(magic)));
        }
        if version != raw::VERSION {
            return Err(at(2, E::UnsupportedVersion(version)));
        }
        if flags != 0 {
            return Err(at(3, E::UnsupportedFlags(flags)));
        }
        if hdr_len as usize == bytes.len() {
            return Err(header("BTF.ext has no data"));
        }
        if hdr_len < 24 {
            return Err(at(4, E::UnsupportedHeader(hdr_len)));
        }
        Ok(BtfExt {
            func_info: FUNC_INFO.parse(bytes, hdr_len, btf)?,
            line_info: LINE_INFO.parse(bytes, hdr_len, btf)?,
            core_relos: CORE_RELO.parse(bytes, hdr_len, btf)?,
        })
    }

    /// The blob, for `btf` to be its strings: names of sections are looked up or added.
    ///
    /// Offsets of other strings are written as they are.
    pub fn to_bytes(&self, mut string: impl FnMut(&str) -> u32) -> Vec<u8> {
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        write_list(&mut lists[0], &self.func_info, 8, &mut string, |r| {
            vec![r.insn_off, r.type_id.0]
        });
        write_list(&mut lists[1], &self.line_info, 16, &mut string, |r| {
            let line_col = r.line << 10 | r.col & 0x3ff;
            vec![r.insn_off, r.file_name_off, r.line_off, line_col]
        });
        write_list(&mut lists[2], &self.core_relos, 16, &mut string, |r| {
            vec![r.insn_off, r.type_id.0, r.access_str_off, r.kind as u32]
        });
        let mut out = Vec::new();
        out.extend(raw::MAGIC.to_le_bytes());
        out.extend([raw::VERSION, 0]);
        out.extend(32u32.to_le_bytes());
        let mut off = 0u32;
        for list in &lists {
            let len = 4 * list.len() as u32;
            out.extend(off.to_le_bytes());
            out.extend(len.to_le_bytes());
            off += len;
        }
        out.extend(lists.iter().flatten().flat_map(|w| w.to_le_bytes()));
        out
    }
}

fn write_list<T>(
    out: &mut Vec<u32>,
    sections: &[ExtSection<T>],
    record_size: u32,
    string: &mut impl FnMut(&str) -> u32,
    words: impl Fn(&T) -> Vec<u32>,
) {
    let filled = sections.iter().filter(|s| !s.records.is_empty());
    for (i, section) in filled.enumerate() {
        if i == 0 {
            out.push(record_size);
        }
        out.extend([string(&section.section), section.records.len() as u32]);
        out.extend(section.records.iter().flat_map(&words));
    }
}
