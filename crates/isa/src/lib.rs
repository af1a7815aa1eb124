//! The BPF instruction set as one table: decode, encode, assemble, disassemble
mod codec;
mod insn;
mod parts;
mod places;
mod refusal;
mod table;

pub use codec::{DecodeError, EncodeError, Encoded, decode, decode_all, encode};
pub use insn::{Insn, Reg, uapi};
pub use parts::{AluOp, AtomicOp, CallKind, Cond, Cpu, EndKind, Imm64, Operand, Size, Width};
pub use refusal::{MayGotoFields, Refusal};
pub use table::Op;
