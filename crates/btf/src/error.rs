//! What is wrong with a blob, and where.

use std::fmt;

use crate::types::TypeId;

/// A blob that is no BTF, or lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BtfError {
    /// The type it concerns; none for the header and the section layout.
    pub type_id: Option<TypeId>,
    /// Byte from the start of the blob.
    pub offset: u32,
    /// What is wrong there.
    pub what: BtfErrorKind,
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.type_id {
            Some(id) => write!(f, "BTF type {id} at byte {}: {}", self.offset, self.what),
            None => write!(f, "BTF at byte {}: {}", self.offset, self.what),
        }
    }
}

impl std::error::Error for BtfError {}

/// What can be wrong with a BTF. Where Linux logs a text for it, that is the text shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BtfErrorKind {
    // Header and section layout (btf_parse_hdr, btf_check_sec_info, btf_parse_str_sec).
    #[error("btf_header not found")]
    HeaderNotFound,
    #[error("Invalid magic {0:#06x}")]
    InvalidMagic(u16),
    #[error("BTF of a big-endian machine (magic {0:#06x} byte-swapped) is not supported")]
    BigEndian(u16),
    #[error("Unsupported version {0}")]
    UnsupportedVersion(u8),
    #[error("Unsupported flags {0:#x}")]
    UnsupportedFlags(u8),
    #[error("Unsupported btf_header of {0} bytes")]
    UnsupportedHeader(u32),
    #[error("{0} bytes are more than a BTF may have ({max})", max = crate::raw::MAX_SIZE)]
    TooLarge(usize),
    #[error("No data")]
    NoData,
    #[error("Unaligned type_off")]
    UnalignedTypeOff,
    #[error("No type found")]
    NoTypeFound,
    #[error("String section is not at the end")]
    StringsNotAtEnd,
    #[error("Invalid section offset")]
    InvalidSectionOffset,
    #[error("Unsupported section found")]
    UnsupportedSection,
    #[error("Section overlap found")]
    SectionOverlap,
    #[error("Total section length too long")]
    SectionTooLong,
    #[error("Invalid string section")]
    InvalidStrings,
    #[error("Exceeded max num of types")]
    TooManyTypes,
    #[error("not gzip")]
    NotGzip,
    #[error("the base of a split BTF must not be split more than {0} deep")]
    BaseTooDeep(u32),
    // One type by itself (btf_check_meta).
    #[error("meta_left:{left} meta_needed:{needed}")]
    TruncatedType { left: u32, needed: u32 },
    #[error("Invalid btf_info:{0:x}")]
    InvalidInfo(u32),
    #[error("Invalid kind:{0}")]
    InvalidKind(u8),
    #[error("Invalid name_offset:{0}")]
    InvalidNameOffset(u32),
    #[error("Invalid member name_offset:{0}")]
    InvalidMemberNameOffset(u32),
    #[error("Invalid name")]
    InvalidName,
    #[error("name is not UTF-8")]
    NameNotUtf8,
    #[error("name is longer than {0} bytes")]
    NameTooLong(usize),
    #[error("Invalid btf_info kind_flag")]
    InvalidKindFlag,
    #[error("vlen != 0")]
    VlenNotZero,
    #[error("vlen == 0")]
    VlenZero,
    #[error("type != 0")]
    TypeNotZero,
    #[error("size != 0")]
    SizeNotZero,
    #[error("size == 0")]
    SizeZero,
    #[error("Invalid int_data:{0:x}")]
    InvalidIntData(u32),
    #[error("nr_bits exceeds 128")]
    IntBitsTooMany,
    #[error("nr_bits exceeds type_size")]
    IntBitsExceedSize,
    #[error("Unsupported encoding")]
    UnsupportedEncoding,
    #[error("Unexpected size")]
    UnexpectedSize,
    #[error("Invalid type_size")]
    InvalidTypeSize,
    #[error("Invalid type_id")]
    InvalidTypeId,
    #[error("Invalid elem")]
    InvalidElem,
    #[error("Invalid index")]
    InvalidIndex,
    #[error("Invalid func linkage")]
    InvalidFuncLinkage,
    #[error("Linkage not supported")]
    UnsupportedLinkage,
    #[error("Invalid component_idx")]
    InvalidComponentIdx,
    #[error("Invalid value")]
    InvalidValue,
    #[error("Invalid btf_info size")]
    InvalidInfoSize,
    #[error("Type tags don't precede modifiers")]
    TypeTagsOrder,
    // Members (btf_struct_check_meta and the check_member functions).
    #[error("member {0}: Invalid member bits_offset")]
    InvalidMemberBitsOffset(u32),
    #[error("member {0}: Member bits_offset exceeds its struct size")]
    MemberOffsetExceedsStruct(u32),
    #[error("member {0}: Member exceeds struct_size")]
    MemberExceedsStruct(u32),
    #[error("member {0}: Member is not byte aligned")]
    MemberNotByteAligned(u32),
    #[error("member {0}: Member is not properly aligned")]
    MemberNotAligned(u32),
    #[error("member {0}: Invalid member offset")]
    InvalidMemberOffset(u32),
    #[error("member {0}: Invalid member bitfield_size")]
    InvalidMemberBitfieldSize(u32),
    #[error("member {0}: Invalid member base type")]
    InvalidMemberBaseType(u32),
    #[error("member {0}: Invalid member")]
    InvalidMember(u32),
    #[error("member {0}: Invalid type_id")]
    InvalidMemberTypeId(u32),
    #[error("member {0}: Invalid name")]
    InvalidMemberName(u32),
    #[error("member {0}: bits_offset exceeds U32_MAX")]
    MemberBitsOverflow(u32),
    #[error("member {0}: nr_copy_bits exceeds 128")]
    MemberCopyBits(u32),
    #[error("member {0}: Unsupported check_member")]
    UnsupportedMember(u32),
    // Variables of a section (btf_datasec_check_meta, btf_datasec_resolve).
    #[error("variable {0}: Invalid type_id")]
    InvalidVarTypeId(u32),
    #[error("variable {0}: Invalid offset")]
    InvalidVarOffset(u32),
    #[error("variable {0}: Invalid size")]
    InvalidVarSize(u32),
    #[error("variable {0}: Invalid offset+size")]
    InvalidVarEnd(u32),
    #[error("variable {0}: Not a VAR kind member")]
    NotAVar(u32),
    #[error("variable {0}: Invalid type")]
    InvalidVarType(u32),
    // Functions (btf_func_proto_check, btf_func_check).
    #[error("Invalid return type")]
    InvalidReturnType,
    #[error("Invalid arg#{0}")]
    InvalidArg(u32),
    // Resolution (btf_resolve).
    #[error("Loop detected")]
    Loop,
    #[error("Exceeded max resolving depth:{0}")]
    TooDeep(u32),
    #[error("Unsupported resolve")]
    UnsupportedResolve,
    #[error("Invalid array of int")]
    InvalidArrayOfInt,
    #[error("Array size overflows U32_MAX")]
    ArrayTooLarge,
    #[error("Invalid resolve state")]
    InvalidResolveState,
    /// A chain of modifiers longer than the limit, or one that bites its tail.
    #[error("Max chain length or cycle detected")]
    ChainTooLong,
    /// Size asked of a type that has none.
    #[error("{0} type has no size")]
    NoSize(crate::types::Kind),
    /// A type id that this BTF does not have.
    #[error("no type [{0}]")]
    NoSuchType(u32),
    /// A struct that a program may allocate has contradictory special fields.
    #[error("special fields: {0}")]
    SpecialFields(Box<crate::fields::FieldsError>),
    #[error("a struct with a lock, list, tree or kptr has no special field that can be used")]
    NoSpecialFields,
    // .BTF.ext.
    #[error("{0}: record size {1} is not supported")]
    ExtRecordSize(&'static str, u32),
    #[error("{0}: {1}")]
    Ext(&'static str, &'static str),
    #[error("unknown CO-RE relocation kind {0}")]
    CoreKind(u32),
    // Printing.
    #[error("a value takes {needed} bytes, there are {len}")]
    ValueTooShort { needed: u32, len: usize },
    #[error("more than {0} values in one")]
    TooManyValues(u32),
    #[error("the type's text is longer than {0} bytes")]
    TextTooLong(usize),
    #[error("{0} type has no C declaration")]
    NoDeclaration(crate::types::Kind),
    // Writing.
    #[error("a list of {0} entries is longer than 65535")]
    ListTooLong(usize),
}

/// Shorthand of this crate.
pub type Result<T, E = BtfError> = std::result::Result<T, E>;
