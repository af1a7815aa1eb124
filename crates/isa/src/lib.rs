//! The BPF instruction set as one table: decode, encode, assemble, disassemble
mod asm;
mod codec;
mod insn;
mod lexer;
mod linux;
mod parts;
mod places;
mod query;
mod refusal;
mod syntax;
mod table;

pub use asm::{AsmError, AsmErrorKind, Line, assemble, disassemble, to_assembly};
pub use codec::{DecodeError, EncodeError, Encoded, decode, decode_all, encode};
pub use insn::{Insn, Reg, uapi};
pub use linux::{LinuxInsn, LinuxNames, NoNames, linux_insn};
pub use parts::{AluOp, AtomicOp, CallKind, Cond, Cpu, EndKind, Imm64, Operand, Size, Width};
pub use query::{Flow, RegSet};
pub use refusal::Refusal;
pub use syntax::Style;
pub use table::Op;

#[cfg(feature = "proptest")]
mod arbitrary;
#[cfg(feature = "proptest")]
pub use arbitrary::{any_insn, any_op};
