//! Why a relocation cannot be resolved or written.

use crate::core::CoreResult;
use crate::error::BtfError;
use crate::ext::CoreReloKind;
use crate::types::{Kind, TypeId};

/// A relocation that libbpf refuses, and with it the object. Texts follow libbpf's warnings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// The access string, or what it leads through, makes no sense for the type.
    #[error("parsing {id} {kind} {name} + {access} failed: {why}")]
    BadSpec {
        /// Root type.
        id: TypeId,
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The access string.
        access: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Candidates are found by name.
    #[error("<{}> ({}) relocation of {id} doesn't support anonymous types", .kind.as_str(), *.kind as u32)]
    AnonymousType {
        /// Root type.
        id: TypeId,
        /// What is asked.
        kind: CoreReloKind,
    },
    /// More than 64 levels.
    #[error("too deep struct/union/array nesting")]
    SpecTooDeep,
    /// Types that are compared go deeper than 32 levels.
    #[error("types to compare are nested more than 32 deep")]
    TypesTooDeep,
    /// Types made so that comparing them would take for ever.
    #[error("comparing the types takes too long")]
    TooMuchWork,
    /// Several candidates have the field, at different places.
    #[error("field offset ambiguity: {0} != {1}")]
    OffsetAmbiguity(u32, u32),
    /// Several candidates give different values.
    #[error("relocation decision ambiguity: {} != {}", decision(&.0.0), decision(&.0.1))]
    DecisionAmbiguity(Box<(CoreResult, CoreResult)>),
    /// Only offset and size can be asked of an array's element.
    #[error("relo {0} can't be applied to array access")]
    ArrayAccess(u32),
    /// No load of up to 8 bytes covers it.
    #[error("relo {0} can't be satisfied for bitfield")]
    Bitfield(u32),
    /// An offset beyond 32 bits, or a type without a size.
    #[error("offset or size of the field is out of range")]
    OutOfRange,
    /// The BTF itself.
    #[error(transparent)]
    Btf(#[from] BtfError),

    /// The instruction is not there, or its second half is not.
    #[error("insn (LDIMM64) is truncated")]
    TruncatedInsn,
    /// The instruction does not hold what the compiler must have put there.
    #[error("unexpected insn ({class}) value: got {got}, exp {expected} -> {new}")]
    UnexpectedValue {
        /// `ALU/ALU64`, `LDX/ST/STX` or `LDIMM64`.
        class: &'static str,
        /// In the instruction.
        got: i64,
        /// By the object's own types.
        expected: u64,
        /// By the kernel's.
        new: u64,
    },
    /// An offset of more than 15 bits.
    #[error("insn (LDX/ST/STX) value too big: {0}")]
    OffsetTooBig(u64),
    /// The access is not as wide as the field.
    #[error("insn (LDX/ST/STX) unexpected mem size: got {got}, exp {expected}")]
    UnexpectedMemSize {
        /// Bytes that the instruction accesses.
        got: u32,
        /// Bytes of the field by the object's own types.
        expected: u32,
    },
    /// The kernel's field has a width that no instruction has.
    #[error("insn (LDX/ST/STX) invalid new mem size: {0}")]
    InvalidMemSize(u32),
    /// Pseudo loads cannot be relocated.
    #[error("insn (LDIMM64) has unexpected form")]
    Ldimm64Form,
    /// No instruction that carries a value or an offset.
    #[error(
        "trying to relocate unrecognized insn, code:{code:#x}, src:{src:#x}, dst:{dst:#x}, off:{off:#x}, imm:{imm:#x}"
    )]
    #[allow(missing_docs)]
    UnrecognizedInsn {
        code: u8,
        src: u8,
        dst: u8,
        off: i16,
        imm: i32,
    },
}

fn decision(result: &CoreResult) -> String {
    let word = match result.poison {
        true => "failure",
        false => "success",
    };
    format!("{word} {}", result.new_val)
}

impl CoreError {
    /// What libbpf's load returns for it.
    pub fn errno(&self) -> i32 {
        const ERANGE: i32 = 34;
        const E2BIG: i32 = 7;
        const EINVAL: i32 = 22;
        const EOPNOTSUPP: i32 = 95;
        match self {
            CoreError::OffsetTooBig(_) => ERANGE,
            CoreError::Bitfield(_) | CoreError::SpecTooDeep => E2BIG,
            CoreError::AnonymousType { .. } => EOPNOTSUPP,
            _ => EINVAL,
        }
    }
}
