//! Which rule of Linux's verifier refuses a slot, and the rule's text.

use crate::insn::{Insn, Reg, uapi::*};

macro_rules! refusals {
    ($($(#[$meta:meta])* $name:ident $(($field:ident: $ty:ty))? = $text:literal),* $(,)?) => {
        /// A rule of Linux's verifier about the form of instructions. Displays as the
        /// line in its log.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
        pub enum Refusal {
            $($(#[$meta])* #[doc = concat!("`", $text, "`")] #[error($text)] $name $(($ty))?),*
        }
    };
}

refusals! {
    /// Not one of Linux's: there is no such slot.
    PastEnd = "instruction past the end of the program",
    /// From `resolve_pseudo_ldimm64`.
    UnknownOpcode(code: u8) = "unknown opcode {0:02x}",
    /// From `resolve_pseudo_ldimm64`.
    Ldx = "BPF_LDX uses reserved fields",
    /// From `resolve_pseudo_ldimm64`: no second slot, or one with more than an immediate.
    LdImm64Second = "invalid bpf_ld_imm64 insn",
    /// From `resolve_pseudo_ldimm64`: the pseudo kind.
    LdImm64Kind = "unrecognized bpf_ld_imm64 insn",
    /// From `check_ld_imm`.
    LdImm64 = "BPF_LD_IMM64 uses reserved fields",
    /// From `check_ld_abs`.
    LdAbsInd = "BPF_LD_[ABS|IND] uses reserved fields",
    /// From `check_alu_op`.
    Neg = "BPF_NEG uses reserved fields",
    /// From `check_alu_op`.
    End = "BPF_END uses reserved fields",
    /// From `check_alu_op`.
    Mov = "BPF_MOV uses reserved fields",
    /// From `check_alu_op`.
    AddrSpaceCast =
        "addr_space_cast insn can only convert between address space 1 and 0",
    /// From `check_alu_op`.
    Alu = "BPF_ALU uses reserved fields",
    /// From `do_check`.
    Stx = "BPF_STX uses reserved fields",
    /// From `do_check`.
    St = "BPF_ST uses reserved fields",
    /// From `check_atomic`.
    AtomicOpcode(imm: i32) = "BPF_ATOMIC uses invalid atomic opcode {0:02x}",
    /// From `check_atomic_rmw`.
    AtomicSize = "invalid atomic operand size",
    /// From `do_check`.
    Call = "BPF_CALL uses reserved fields",
    /// From `do_check`.
    Ja = "BPF_JA uses reserved fields",
    /// From `do_check`.
    Exit = "BPF_EXIT uses reserved fields",
    /// From `check_cond_jmp_op`.
    Jmp = "BPF_JMP/JMP32 uses reserved fields",
    /// From `check_cond_jmp_op`; `off`, `imm`.
    MayGoto(fields: MayGotoFields) = "invalid may_goto {0}",
    /// From `check_reg_arg`.
    Register(number: u8) = "R{0} is invalid",
}

/// What a refused `may_goto` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("off {off} imm {imm}")]
pub struct MayGotoFields {
    /// Its `off`.
    pub off: i16,
    /// Its `imm`.
    pub imm: i32,
}

impl Refusal {
    /// The rule that refuses `insn`, which does not decode, in the order that Linux
    /// applies them.
    pub(crate) fn of(insn: Insn, second: Option<Insn>) -> Self {
        before_walking(insn, second).unwrap_or_else(|| match insn.class() {
            BPF_ALU | BPF_ALU64 => alu(insn),
            BPF_JMP | BPF_JMP32 => jmp(insn),
            BPF_STX => stx(insn),
            BPF_ST => registers_or(insn, insn.src() == 0, Self::St),
            BPF_LD if insn.is_ld_imm64() => registers_or(insn, insn.off == 0, Self::LdImm64),
            BPF_LD => {
                let abs = insn.code & 0xe0 == BPF_ABS;
                let clean = insn.dst() == 0 && insn.off == 0 && !(abs && insn.src() != 0);
                registers_or(insn, clean, Self::LdAbsInd)
            }
            _ => registers_or(insn, insn.imm == 0, Self::Ldx),
        })
    }
}

fn registers_or(_insn: Insn, _clean: bool, rule: Refusal) -> Refusal {
    rule
}
fn before_walking(_: Insn, _: Option<Insn>) -> Option<Refusal> {
    None
}
fn alu(_: Insn) -> Refusal {
    Refusal::Alu
}
fn jmp(_: Insn) -> Refusal {
    Refusal::Alu
}
fn stx(_: Insn) -> Refusal {
    Refusal::Alu
}
