//! Which rule of Linux's verifier refuses a slot, and the rule's text.

use crate::insn::{Insn, Reg, uapi::*};
use crate::parts::AtomicOp;

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
    /// From `check_cond_jmp_op`.
    MayGoto(imm: i32) = "invalid may_goto imm {0}",
    /// From `check_reg_arg`.
    Register(number: u8) = "R{0} is invalid",
}

/// The registers of a slot, to be named when none of them is the fault of a field.
const DST: fn(Insn) -> u8 = Insn::dst;
const SRC: fn(Insn) -> u8 = Insn::src;

impl Refusal {
    /// The rule that refuses `insn`, which does not decode, in the order that Linux
    /// applies them: first those of a pass over all slots, then those of the walk, which
    /// for each instruction looks at reserved fields before registers (jumps excepted).
    pub(crate) fn of(insn: Insn, second: Option<Insn>) -> Self {
        if let Some(refusal) = before_the_walk(insn, second) {
            return refusal;
        }
        match insn.class() {
            BPF_ALU | BPF_ALU64 => alu(insn),
            BPF_JMP | BPF_JMP32 => jmp(insn),
            BPF_STX => stx(insn),
            BPF_ST => first_bad(insn, &[DST])
                .filter(|_| insn.src() == 0)
                .unwrap_or(Self::St),
            BPF_LD => ld(insn),
            _ => first_bad(insn, &[SRC, DST]).unwrap_or(Self::Ldx),
        }
    }
}

/// The first of these registers that there is not.
fn first_bad(insn: Insn, registers: &[fn(Insn) -> u8]) -> Option<Refusal> {
    let mut numbers = registers.iter().map(|number| number(insn));
    numbers
        .find(|n| Reg::new(*n).is_none())
        .map(Refusal::Register)
}

/// `resolve_pseudo_ldimm64`.
fn before_the_walk(insn: Insn, second: Option<Insn>) -> Option<Refusal> {
    if insn.class() == BPF_LDX && (!matches!(mode(insn), BPF_MEM | BPF_MEMSX) || insn.imm != 0) {
        return Some(Refusal::Ldx);
    }
    if !insn.is_ld_imm64() {
        return (!is_known(insn.code)).then_some(Refusal::UnknownOpcode(insn.code));
    }
    let Some(second) = second.filter(|s| (s.code, s.regs, s.off) == (0, 0, 0)) else {
        return Some(Refusal::LdImm64Second);
    };
    let is_map = matches!(insn.src(), BPF_PSEUDO_MAP_FD | BPF_PSEUDO_MAP_IDX);
    (insn.src() > BPF_PSEUDO_MAP_IDX_VALUE || is_map && second.imm != 0)
        .then_some(Refusal::LdImm64Kind)
}

const fn mode(insn: Insn) -> u8 {
    insn.code & 0xe0
}

/// Whether Linux has an instruction of this code, `bpf_opcode_in_insntable`.
pub(crate) const fn is_known(code: u8) -> bool {
    let (op, size, is_reg) = (code & 0xf0, code & 0x18, code & BPF_X != 0);
    match code & 0x07 {
        BPF_ALU => op <= BPF_END && !(op == BPF_NEG && is_reg),
        BPF_ALU64 => op <= BPF_END && !(matches!(op, BPF_NEG | BPF_END) && is_reg),
        BPF_JMP if is_reg => !matches!(op, BPF_JA | BPF_CALL | BPF_EXIT) && op <= BPF_JSLE,
        BPF_JMP => op <= BPF_JCOND,
        BPF_JMP32 => {
            !matches!(op, BPF_CALL | BPF_EXIT) && op <= BPF_JSLE && !(op == BPF_JA && is_reg)
        }
        BPF_STX => matches!(code & 0xe0, BPF_MEM | BPF_ATOMIC),
        BPF_ST => code & 0xe0 == BPF_MEM,
        BPF_LDX => code & 0xe0 == BPF_MEM || code & 0xe0 == BPF_MEMSX && size != BPF_DW,
        _ => match code & 0xe0 {
            BPF_IMM => size == BPF_DW,
            BPF_ABS | BPF_IND => size != BPF_DW,
            _ => false,
        },
    }
}

/// `check_ld_imm`, `check_ld_abs`.
fn ld(insn: Insn) -> Refusal {
    if insn.is_ld_imm64() {
        let bad = first_bad(insn, &[DST]);
        return bad.filter(|_| insn.off == 0).unwrap_or(Refusal::LdImm64);
    }
    let clean = insn.dst() == 0 && insn.off == 0 && (mode(insn) == BPF_IND || insn.src() == 0);
    first_bad(insn, &[SRC])
        .filter(|_| clean)
        .unwrap_or(Refusal::LdAbsInd)
}

/// `check_alu_op`.
fn alu(insn: Insn) -> Refusal {
    let (op, is_reg) = (insn.code & 0xf0, insn.code & BPF_X != 0);
    let no_src = insn.src() == 0;
    match op {
        BPF_NEG => {
            let clean = no_src && insn.off == 0 && insn.imm == 0;
            first_bad(insn, &[DST])
                .filter(|_| clean)
                .unwrap_or(Refusal::Neg)
        }
        BPF_END => {
            let clean = no_src && insn.off == 0 && matches!(insn.imm, 16 | 32 | 64);
            first_bad(insn, &[DST])
                .filter(|_| clean)
                .unwrap_or(Refusal::End)
        }
        BPF_MOV if is_reg => {
            let is_cast = insn.class() == BPF_ALU64 && insn.off == BPF_ADDR_SPACE_CAST;
            let (clean, refusal) = if is_cast {
                (matches!(insn.imm, 1 | 0x1_0000), Refusal::AddrSpaceCast)
            } else {
                let most = if insn.class() == BPF_ALU { 16 } else { 32 };
                let off_ok = matches!(insn.off, 0 | 8 | 16 | 32) && insn.off <= most;
                (off_ok && insn.imm == 0, Refusal::Mov)
            };
            first_bad(insn, &[SRC, DST])
                .filter(|_| clean)
                .unwrap_or(refusal)
        }
        BPF_MOV => {
            let clean = no_src && insn.off == 0;
            first_bad(insn, &[DST])
                .filter(|_| clean)
                .unwrap_or(Refusal::Mov)
        }
        _ => {
            let signed = insn.off == 1 && matches!(op, BPF_DIV | BPF_MOD);
            let clean = (insn.off == 0 || signed) && if is_reg { insn.imm == 0 } else { no_src };
            let registers: &[_] = if is_reg { &[SRC, DST] } else { &[DST] };
            first_bad(insn, registers)
                .filter(|_| clean)
                .unwrap_or(Refusal::Alu)
        }
    }
}

/// The jumps and calls of `do_check`, and `check_cond_jmp_op`.
fn jmp(insn: Insn) -> Refusal {
    match insn.code & 0xf0 {
        BPF_CALL => Refusal::Call,
        BPF_JA => Refusal::Ja,
        BPF_EXIT => Refusal::Exit,
        BPF_JCOND => Refusal::MayGoto(insn.imm),
        _ if Reg::new(insn.dst()).is_none() => Refusal::Register(insn.dst()),
        _ if insn.code & BPF_X == 0 || insn.imm != 0 => Refusal::Jmp,
        _ => first_bad(insn, &[SRC]).unwrap_or(Refusal::Jmp),
    }
}

/// The stores of `do_check`, and `check_atomic`.
fn stx(insn: Insn) -> Refusal {
    if mode(insn) != BPF_ATOMIC {
        let bad = first_bad(insn, &[SRC, DST]);
        return bad.filter(|_| insn.imm == 0).unwrap_or(Refusal::Stx);
    }
    let any_size = matches!(insn.imm, BPF_LOAD_ACQ | BPF_STORE_REL);
    let is_rmw = AtomicOp::ALL.iter().any(|op| {
        insn.imm == op.code() || !op.always_fetches() && insn.imm == op.code() | BPF_FETCH
    });
    if !any_size && !is_rmw {
        return Refusal::AtomicOpcode(insn.imm);
    }
    let size_ok = any_size || matches!(insn.code & 0x18, BPF_W | BPF_DW);
    first_bad(insn, &[SRC, DST])
        .filter(|_| size_ok)
        .unwrap_or(Refusal::AtomicSize)
}
