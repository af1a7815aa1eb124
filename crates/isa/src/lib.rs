//! The BPF instruction set, cpu v1 to v4, as one table: decode, encode, assemble,
//! disassemble.
//!
//! [`Insn`] is a slot of 8 raw bytes (`struct bpf_insn`), [`Op`] an instruction.
//! [`decode`] refuses whatever Linux 6.18's verifier refuses of an instruction's form,
//! with the same text; what it accepts, [`encode`] turns back into the same bytes (but
//! for the offset of `exit`, which Linux does not look at).
//!
//! Text is LLVM's: [`disassemble`] writes what `llvm-objdump -d` writes, [`assemble`]
//! reads that and what LLVM's assembler takes. [`linux_insn`] writes what Linux's
//! verifier writes into its log.
//!
//! ```
//! use bpfsim_isa::{Op, assemble, decode};
//!
//! let slots = assemble("r0 = 0x1; if r1 s> 5 goto out; r0 <<= 3; out: exit")?;
//! let (op, len) = decode(&slots, 1).unwrap();
//! assert_eq!((op.to_string().as_str(), len), ("if r1 s> 0x5 goto +0x1", 1));
//! assert_eq!(op.jump_target(1), Some(3));
//!
//! let reserved = bpfsim_isa::Insn { off: 3, ..slots[0] };
//! let error = decode(&[reserved], 0).unwrap_err();
//! assert_eq!(error.to_string(), "BPF_MOV uses reserved fields");
//! # Ok::<(), bpfsim_isa::AsmError>(())
//! ```
//!
//! Modules: `table` is the table, `places` where in a slot each field lives, `parts` what
//! fields hold, `refusal` Linux's rules and texts, `syntax` and `lexer` LLVM's text.
//!
//! Invariant: nothing here knows a helper, a kernel function or a program type.

mod asm;
mod codec;
mod insn;
mod jumps;
mod lexer;
mod linux;
mod parts;
mod places;
mod query;
mod refusal;
mod syntax;
mod table;

#[cfg(feature = "proptest")]
mod arbitrary;

#[cfg(feature = "proptest")]
pub use arbitrary::{any_insn, any_op};
pub use asm::{AsmError, AsmErrorKind, Line, assemble, disassemble, to_assembly};
pub use codec::{
    DecodeError, EncodeError, Encoded, decode, decode_all, decode_any, decode_where, encode,
};
pub use insn::{Insn, Reg, uapi};
pub use jumps::{JumpError, check_jumps};
pub use linux::{LinuxInsn, LinuxNames, NoNames, linux_insn};
pub use parts::{AluOp, AtomicOp, CallKind, Cond, Cpu, EndKind, Imm64, Operand, Size, Width};
pub use query::{Flow, RegSet};
pub use refusal::Refusal;
pub use syntax::Style;
pub use table::Op;
