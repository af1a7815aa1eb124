//! What an instruction does to registers and control, for verifiers, loaders and
//! engines.

use crate::insn::Reg;
use crate::parts::{AluOp, AtomicOp, CallKind, Cond, Cpu, EndKind, Imm64, Operand, Width};
use crate::table::Op;

/// A set of registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RegSet(u16);

impl RegSet {
    /// No register.
    pub const EMPTY: Self = Self(0);
    /// r1 to r5: what a call may take.
    pub const ARGS: Self = Self(0b11_1110);
    /// r0 to r5: what a call leaves undefined, but for its result in r0.
    pub const CALLER_SAVED: Self = Self(0b11_1111);

    /// This set and `reg`.
    pub const fn with(self, reg: Reg) -> Self {
        Self(self.0 | 1 << reg.number())
    }

    /// Whether `reg` is in it.
    pub const fn contains(self, reg: Reg) -> bool {
        self.0 & 1 << reg.number() != 0
    }

    /// Whether it holds none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One bit per register, r0 the lowest.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The registers in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Reg> {
        Reg::ALL.into_iter().filter(move |reg| self.contains(*reg))
    }
}

impl FromIterator<Reg> for RegSet {
    fn from_iter<I: IntoIterator<Item = Reg>>(regs: I) -> Self {
        regs.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl std::fmt::Debug for RegSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.iter().map(|reg| reg.number()))
            .finish()
    }
}

impl Operand {
    /// The register, where it is one.
    pub const fn reg(self) -> Option<Reg> {
        match self {
            Self::Reg(reg) => Some(reg),
            Self::Imm(_) => None,
        }
    }

    /// The immediate, where it is one.
    pub const fn imm(self) -> Option<i32> {
        match self {
            Self::Reg(_) => None,
            Self::Imm(imm) => Some(imm),
        }
    }
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To the target and nowhere else. Distance in slots from the slot after this one.
    Jump(i32),
    /// To the next instruction or to the target.
    Branch(i32),
    /// Into a subprogram, then to the next instruction.
    Call(i32),
    /// Out of the (sub)program.
    Exit,
}

impl Op {
    /// Registers whose value this instruction reads. A call reads no register here: what
    /// it reads is its callee's prototype to say. `exit` reads r0.
    pub fn reads(&self) -> RegSet {
        let regs: [Option<Reg>; 3] = match *self {
            Self::Alu {
                op: AluOp::Mov,
                src,
                ..
            } => [src.reg(), None, None],
            Self::Alu { dst, src, .. } | Self::Jmp { dst, src, .. } => [Some(dst), src.reg(), None],
            Self::Store { dst, src, .. } => [Some(dst), src.reg(), None],
            Self::StoreRelease { dst, src, .. } => [Some(dst), Some(src), None],
            Self::Neg { dst, .. } | Self::End { dst, .. } => [Some(dst), None, None],
            Self::Movsx { src, .. }
            | Self::AddrSpaceCast { src, .. }
            | Self::Load { src, .. }
            | Self::LoadAcquire { src, .. } => [Some(src), None, None],
            Self::Atomic { op, dst, src, .. } => [
                Some(dst),
                Some(src),
                (op == AtomicOp::CmpXchg).then_some(Reg::R0),
            ],
            Self::CallX { target } => [Some(target), None, None],
            Self::LdAbs { .. } => [Some(Reg::R6), None, None],
            Self::LdInd { src, .. } => [Some(Reg::R6), Some(src), None],
            Self::Exit => [Some(Reg::R0), None, None],
            Self::Call(_) | Self::LdImm64 { .. } | Self::Ja { .. } | Self::MayGoto { .. } => {
                [None; 3]
            }
        };
        regs.into_iter().flatten().collect()
    }

    /// Registers that this instruction gives a value or leaves undefined.
    pub fn writes(&self) -> RegSet {
        match *self {
            Self::Alu { dst, .. }
            | Self::Load { dst, .. }
            | Self::LoadAcquire { dst, .. }
            | Self::LdImm64 { dst, .. }
            | Self::Neg { dst, .. }
            | Self::End { dst, .. }
            | Self::Movsx { dst, .. }
            | Self::AddrSpaceCast { dst, .. } => RegSet::EMPTY.with(dst),
            Self::Atomic {
                op: AtomicOp::CmpXchg,
                ..
            } => RegSet::EMPTY.with(Reg::R0),
            Self::Atomic {
                fetch: true, src, ..
            } => RegSet::EMPTY.with(src),
            Self::Call(_) | Self::CallX { .. } | Self::LdAbs { .. } | Self::LdInd { .. } => {
                RegSet::CALLER_SAVED
            }
            Self::Atomic { .. }
            | Self::Store { .. }
            | Self::StoreRelease { .. }
            | Self::Jmp { .. }
            | Self::Ja { .. }
            | Self::MayGoto { .. }
            | Self::Exit => RegSet::EMPTY,
        }
    }

    /// Where control goes from here.
    pub const fn flow(&self) -> Flow {
        match *self {
            Self::Ja { off, .. } => Flow::Jump(off),
            Self::Jmp { off, .. } | Self::MayGoto { off } => Flow::Branch(off as i32),
            Self::Call(CallKind::Bpf(rel)) => Flow::Call(rel),
            Self::Exit => Flow::Exit,
            Self::Call(CallKind::Helper(_) | CallKind::Kfunc { .. })
            | Self::CallX { .. }
            | Self::Alu { .. }
            | Self::Neg { .. }
            | Self::End { .. }
            | Self::Movsx { .. }
            | Self::AddrSpaceCast { .. }
            | Self::Load { .. }
            | Self::Store { .. }
            | Self::Atomic { .. }
            | Self::LoadAcquire { .. }
            | Self::StoreRelease { .. }
            | Self::LdAbs { .. }
            | Self::LdInd { .. }
            | Self::LdImm64 { .. } => Flow::Next,
        }
    }

    /// Whether it is a jump, conditional or not; calls and `exit` are none.
    pub const fn is_jump(&self) -> bool {
        matches!(self.flow(), Flow::Jump(_) | Flow::Branch(_))
    }

    /// The slot that a jump here at slot `at` may go to, besides the next one. It may
    /// lie outside of the program.
    pub fn jump_target(&self, at: usize) -> Option<i64> {
        match self.flow() {
            Flow::Jump(off) | Flow::Branch(off) => Some(relative(at, off)),
            _ => None,
        }
    }

    /// The slot where the subprogram starts that this instruction at slot `at` calls or
    /// takes the address of. It may lie outside of the program.
    pub fn subprog_target(&self, at: usize) -> Option<i64> {
        match *self {
            Self::Call(CallKind::Bpf(rel)) => Some(relative(at, rel)),
            Self::LdImm64 {
                kind: Imm64::Func { rel, .. },
                ..
            } => Some(relative(at, rel)),
            _ => None,
        }
    }

    /// Slots that it takes, 1 or 2.
    pub const fn len_in_slots(&self) -> usize {
        if matches!(self, Self::LdImm64 { .. }) {
            2
        } else {
            1
        }
    }

    /// The least cpu version (`-mcpu=`) that has this instruction.
    pub const fn cpu(&self) -> Cpu {
        match self {
            Self::Alu {
                op: AluOp::Sdiv | AluOp::Smod,
                ..
            } => Cpu::V4,
            Self::Load { signed: true, .. } => Cpu::V4,
            Self::Ja { long: true, .. } => Cpu::V4,
            Self::End {
                kind: EndKind::Bswap,
                ..
            } => Cpu::V4,
            Self::Jmp { w: Width::W32, .. } => Cpu::V3,
            Self::Jmp {
                cond: Cond::Lt | Cond::Le | Cond::Slt | Cond::Sle,
                ..
            } => Cpu::V2,
            Self::Atomic {
                op: AtomicOp::Add,
                fetch: false,
                ..
            } => Cpu::V1,
            Self::Atomic { .. } => Cpu::V3,
            _ => self.row_cpu(),
        }
    }
}

fn relative(at: usize, off: i32) -> i64 {
    i64::try_from(at)
        .unwrap_or(i64::MAX)
        .saturating_add(1)
        .saturating_add(off.into())
}
