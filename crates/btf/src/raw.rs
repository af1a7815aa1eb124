//! The wire format: numbers of `include/uapi/linux/btf.h` and little-endian reads that cannot run off the end.

/// `BTF_MAGIC`, as it reads on a little-endian machine.
pub const MAGIC: u16 = 0xeb9f;
/// `BTF_VERSION`.
pub const VERSION: u8 = 1;
/// Size of `struct btf_header`.
pub const HEADER_LEN: u32 = 24;
/// Size of `struct btf_type` without what follows it.
pub const TYPE_LEN: u32 = 12;
/// `BTF_MAX_SIZE`: the kernel refuses a larger blob, and so do we.
pub const MAX_SIZE: usize = 16 << 20;
/// `BTF_MAX_NAME_OFFSET`.
pub const MAX_NAME_OFFSET: u32 = 0x00ff_ffff;
/// `BTF_MAX_TYPE`: the largest type id.
pub const MAX_TYPE: u32 = 0x000f_ffff;
/// `KSYM_NAME_LEN`: the longest name that the kernel takes.
pub const KSYM_NAME_LEN: usize = 512;

/// Numbers of the kinds (`BTF_KIND_*`).
#[allow(missing_docs)]
pub mod kind {
    pub const VOID: u8 = 0;
    pub const INT: u8 = 1;
    pub const PTR: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FWD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNC: u8 = 12;
    pub const FUNC_PROTO: u8 = 13;
    pub const VAR: u8 = 14;
    pub const DATASEC: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECL_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;
}

/// `BTF_INT_SIGNED`.
pub const INT_SIGNED: u8 = 1;
/// `BTF_INT_CHAR`.
pub const INT_CHAR: u8 = 2;
/// `BTF_INT_BOOL`.
pub const INT_BOOL: u8 = 4;

/// Reads a `u32` at `at`, if it is all there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

/// Reads a `u16` at `at`, if it is all there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(word.try_into().ok()?))
}

/// The `info` word of `struct btf_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info(pub u32);

impl Info {
    pub(crate) fn new(kind: u8, vlen: u16, kflag: bool) -> Info {
        Info(u32::from(kind) << 24 | u32::from(vlen) | u32::from(kflag) << 31)
    }

    pub(crate) fn kind(self) -> u8 {
        (self.0 >> 24 & 0x1f) as u8
    }

    pub(crate) fn vlen(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    pub(crate) fn kflag(self) -> bool {
        self.0 >> 31 != 0
    }

    /// `BTF_INFO_MASK`: everything else must be zero.
    pub(crate) fn has_unknown_bits(self) -> bool {
        self.0 & !0x9f00_ffff != 0
    }
}

/// Bytes that follow `struct btf_type` for this kind; none for a kind nobody knows.
pub(crate) fn tail_len(info: Info) -> Option<usize> {
    let n = info.vlen();
    Some(match info.kind() {
        kind::VOID
        | kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::ENUM | kind::FUNC_PROTO => n * 8,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => n * 12,
        _ => return None,
    })
}
