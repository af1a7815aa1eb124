//! From instructions to an [`Image`].

use crate::code::{Code, FETCH, K, ORDERS, SIGNED};
use crate::host::{Access, AccessKind};
use crate::op::Ops;
use bpfsim_isa::{
    AluOp, CallKind, Cond, DecodeError, EndKind, Imm64, Insn, Op, Operand, Reg, Size, Width,
    decode_any,
};
use bpfsim_verifier::{Rewrite, Verified};

/// A program in the engine's form. It holds no addresses of the host and nothing that running
/// changes, so simulations share it.
#[derive(Debug, Clone)]
pub struct Image {
    code: Box<[Code]>,
    ops: Ops,
    /// Some instruction orders accesses.
    ordered: bool,
}

/// Slots that an [`Image`] can have: about four times what Linux takes
/// (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const MAX_SLOTS: usize = 4 << 20;

/// Why a program has no [`Image`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// More than [`MAX_SLOTS`].
    #[error("a program of {0} instruction slots is too long for the engine")]
    TooLong(usize),
    /// Not an instruction.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A jump or call that leaves the program or lands in the middle of an instruction.
    #[error("insn {at}: jump to {to}, which is no instruction of the program")]
    Jump {
        /// Index of the jump.
        at: usize,
        /// Where it goes.
        to: i64,
    },
    /// What the verifier said is of another program.
    #[error("{slots} slots, of which the verifier saw {verified}")]
    OtherProgram {
        /// Slots of the program.
        slots: usize,
        /// Slots of the program that was verified.
        verified: usize,
    },
    /// A two-slot immediate that names an object rather than a value.
    #[error("insn {at}: {what:?} was not replaced by its address")]
    Unresolved {
        /// Index of the instruction.
        at: usize,
        /// What it names.
        what: Imm64,
    },
    /// An instruction that the engine does not have yet.
    #[error("insn {at}: {op:?} is not supported by the engine")]
    Unsupported {
        /// Index of the instruction.
        at: usize,
        /// The instruction.
        op: Op,
    },
}

impl Image {
    /// Pre-decodes a program that was verified, whose `ld_imm64`s hold final values and whose kfunc
    /// calls hold, in place of the BTF id, the number that [`Call::Kfunc`](crate::Call) shall carry.
    pub fn new(insns: &[Insn], verified: &Verified) -> Result<Image, LowerError> {
        let (slots, verified_slots) = (insns.len(), verified.slots());
        if slots != verified_slots {
            let verified = verified_slots;
            return Err(LowerError::OtherProgram { slots, verified });
        }
        Image::lower(insns, |at| verified.rewrite(at))
    }

    /// As [`Image::new`], of a program that nobody verified: it faults where Linux would have
    /// refused it.
    pub fn unverified(insns: &[Insn]) -> Result<Image, LowerError> {
        Image::lower(insns, |_| Rewrite::None)
    }

    fn lower(insns: &[Insn], rewrite: impl Fn(usize) -> Rewrite) -> Result<Image, LowerError> {
        if insns.len() > MAX_SLOTS {
            return Err(LowerError::TooLong(insns.len()));
        }
        let bad = Code {
            k: K::Bad,
            d: 0,
            s: 0,
            t: 0,
            off: 0,
            imm: 0,
        };
        let mut code = vec![bad; insns.len() + 1];
        let mut starts = vec![false; insns.len()];
        let mut at = 0;
        while at < insns.len() {
            starts[at] = true;
            let rewrite = rewrite(at);
            if rewrite == Rewrite::Dead {
                // Linux does not look at what no way reaches either: it need not be an instruction.
                at += insns[at].len_in_slots();
                continue;
            }
            let (op, slots) = decode_any(insns, at)?;
            let op = lower(at, op)?;
            code[at] = match rewrite {
                Rewrite::ProbeMem => probe(op),
                Rewrite::None | Rewrite::Dead => op,
            };
            at += slots;
        }
        for (at, c) in code.iter().enumerate() {
            if let Some(off) = c.jump() {
                let to = at as i64 + 1 + off as i64;
                let lands = usize::try_from(to).is_ok_and(|to| starts.get(to) == Some(&true));
                if !lands {
                    return Err(LowerError::Jump { at, to });
                }
            }
        }
        let ops = Ops::new(&code);
        Ok(Image {
            ordered: code.iter().any(|c| c.orders()),
            code: code.into_boxed_slice(),
            ops,
        })
    }

    pub(crate) fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Whether an access that instruction `pc` makes orders other accesses with its own.
    #[inline(always)]
    pub fn orders(&self, pc: u32, access: &Access) -> bool {
        let read = || self.code.get(pc as usize).is_some_and(Code::orders);
        access.kind == AccessKind::Rmw || self.ordered && read()
    }

    /// One op per instruction slot and a last [`K::Bad`].
    pub fn code(&self) -> &[Code] {
        &self.code
    }
}

impl Code {
    /// True for a conditional jump.
    pub fn is_branch(&self) -> bool {
        (K::Jeq64I as u8..=K::Jset32R as u8).contains(&(self.k as u8))
    }

    /// The distance that this op may jump, from the next instruction.
    pub(crate) fn jump(&self) -> Option<i32> {
        let jumps = self.is_branch() || matches!(self.k, K::Ja | K::MayGoto | K::CallBpf);
        jumps.then_some(self.off)
    }
}

/// Picks from a row of a table: `[64-bit immediate, 64-bit register, 32-bit ..., ...]`.
fn pick(row: [K; 4], w: Width, src: Operand) -> K {
    let reg = matches!(src, Operand::Reg(_)) as usize;
    row[2 * matches!(w, Width::W32) as usize + reg]
}

fn alu(op: AluOp) -> [K; 4] {
    match op {
        AluOp::Add => [K::Add64I, K::Add64R, K::Add32I, K::Add32R],
        AluOp::Sub => [K::Sub64I, K::Sub64R, K::Sub32I, K::Sub32R],
        AluOp::Mul => [K::Mul64I, K::Mul64R, K::Mul32I, K::Mul32R],
        AluOp::Div => [K::Div64I, K::Div64R, K::Div32I, K::Div32R],
        AluOp::Sdiv => [K::Sdiv64I, K::Sdiv64R, K::Sdiv32I, K::Sdiv32R],
        AluOp::Or => [K::Or64I, K::Or64R, K::Or32I, K::Or32R],
        AluOp::And => [K::And64I, K::And64R, K::And32I, K::And32R],
        AluOp::Lsh => [K::Lsh64I, K::Lsh64R, K::Lsh32I, K::Lsh32R],
        AluOp::Rsh => [K::Rsh64I, K::Rsh64R, K::Rsh32I, K::Rsh32R],
        AluOp::Mod => [K::Mod64I, K::Mod64R, K::Mod32I, K::Mod32R],
        AluOp::Smod => [K::Smod64I, K::Smod64R, K::Smod32I, K::Smod32R],
        AluOp::Xor => [K::Xor64I, K::Xor64R, K::Xor32I, K::Xor32R],
        AluOp::Mov => [K::Mov64I, K::Mov64R, K::Mov32I, K::Mov32R],
        AluOp::Arsh => [K::Arsh64I, K::Arsh64R, K::Arsh32I, K::Arsh32R],
    }
}

fn jmp(cond: Cond) -> [K; 4] {
    match cond {
        Cond::Eq => [K::Jeq64I, K::Jeq64R, K::Jeq32I, K::Jeq32R],
        Cond::Ne => [K::Jne64I, K::Jne64R, K::Jne32I, K::Jne32R],
        Cond::Gt => [K::Jgt64I, K::Jgt64R, K::Jgt32I, K::Jgt32R],
        Cond::Ge => [K::Jge64I, K::Jge64R, K::Jge32I, K::Jge32R],
        Cond::Lt => [K::Jlt64I, K::Jlt64R, K::Jlt32I, K::Jlt32R],
        Cond::Le => [K::Jle64I, K::Jle64R, K::Jle32I, K::Jle32R],
        Cond::Sgt => [K::Jsgt64I, K::Jsgt64R, K::Jsgt32I, K::Jsgt32R],
        Cond::Sge => [K::Jsge64I, K::Jsge64R, K::Jsge32I, K::Jsge32R],
        Cond::Slt => [K::Jslt64I, K::Jslt64R, K::Jslt32I, K::Jslt32R],
        Cond::Sle => [K::Jsle64I, K::Jsle64R, K::Jsle32I, K::Jsle32R],
        Cond::Set => [K::Jset64I, K::Jset64R, K::Jset32I, K::Jset32R],
    }
}

/// Picks by access size.
fn sized(size: Size, row: [K; 4]) -> K {
    match size {
        Size::B => row[0],
        Size::H => row[1],
        Size::W => row[2],
        Size::Dw => row[3],
    }
}

fn lower(at: usize, op: Op) -> Result<Code, LowerError> {
    const LD: [K; 4] = [K::Ld8, K::Ld16, K::Ld32, K::Ld64];
    const ST_R: [K; 4] = [K::St8R, K::St16R, K::St32R, K::St64R];
    const ST_I: [K; 4] = [K::St8I, K::St16I, K::St32I, K::St64I];
    let unsupported = || LowerError::Unsupported { at, op };
    let code = |k: K, d: Reg, src: Operand, off: i32| {
        let (s, imm) = match src {
            Operand::Reg(r) => (r.number(), 0),
            Operand::Imm(i) => (0, i as i64),
        };
        Code {
            k,
            d: d.number(),
            s,
            t: 0,
            off,
            imm,
        }
    };
    let plain = |k: K, d: Reg, s: Reg, off: i16| code(k, d, Operand::Reg(s), off as i32);
    let goto = |k: K, off: i32, imm: i32| code(k, Reg::R0, Operand::Imm(imm), off);
    Ok(match op {
        Op::Alu { w, op, dst, src } => code(pick(alu(op), w, src), dst, src, 0),
        Op::Jmp {
            w,
            cond,
            dst,
            src,
            off,
        } => code(pick(jmp(cond), w, src), dst, src, off as i32),
        Op::Neg { w: Width::W64, dst } => plain(K::Neg64, dst, dst, 0),
        Op::Neg { w: Width::W32, dst } => plain(K::Neg32, dst, dst, 0),
        Op::Movsx { w, bits, dst, src } => {
            let k = match (w, bits) {
                (Width::W64, 8) => K::Sx8To64,
                (Width::W64, 16) => K::Sx16To64,
                (Width::W64, 32) => K::Sx32To64,
                (Width::W32, 8) => K::Sx8To32,
                (Width::W32, 16) => K::Sx16To32,
                _ => return Err(unsupported()),
            };
            plain(k, dst, src, 0)
        }
        Op::End { kind, bits, dst } => {
            let k = match (kind, bits) {
                (EndKind::Le, 16) => K::Zx16,
                (EndKind::Le, 32) => K::Zx32,
                (EndKind::Le, 64) => K::Mov64R,
                (EndKind::Be | EndKind::Bswap, 16) => K::Swap16,
                (EndKind::Be | EndKind::Bswap, 32) => K::Swap32,
                (EndKind::Be | EndKind::Bswap, 64) => K::Swap64,
                _ => return Err(unsupported()),
            };
            plain(k, dst, dst, 0)
        }
        Op::Load {
            size,
            signed: false,
            dst,
            src,
            off,
        } => plain(sized(size, LD), dst, src, off),
        Op::Load {
            size,
            signed: true,
            dst,
            src,
            off,
        } => plain(
            sized(size, [K::LdS8, K::LdS16, K::LdS32, K::Ld64]),
            dst,
            src,
            off,
        ),
        Op::Store {
            size,
            dst,
            off,
            src: Operand::Reg(r),
        } => plain(sized(size, ST_R), dst, r, off),
        Op::Store {
            size,
            dst,
            off,
            src,
        } => code(sized(size, ST_I), dst, src, off as i32),
        // One instruction at a time executes, so every load acquires and every store releases.
        Op::LoadAcquire {
            size,
            dst,
            src,
            off,
        } => Code {
            t: ORDERS,
            ..plain(sized(size, LD), dst, src, off)
        },
        Op::StoreRelease {
            size,
            dst,
            src,
            off,
        } => Code {
            t: ORDERS,
            ..plain(sized(size, ST_R), dst, src, off)
        },
        Op::Atomic {
            size,
            op: what,
            fetch,
            dst,
            off,
            src,
        } => {
            let k = match size {
                Size::W => K::Atomic32,
                Size::Dw => K::Atomic64,
                Size::B | Size::H => return Err(unsupported()),
            };
            Code {
                t: what as u8 | if fetch { FETCH } else { 0 },
                ..plain(k, dst, src, off)
            }
        }
        Op::LdAbs { size, imm } => packet(at, op, size, None, imm)?,
        Op::LdInd { size, src, imm } => packet(at, op, size, Some(src), imm)?,
        Op::LdImm64 {
            dst,
            kind: Imm64::Plain(value),
        } => Code {
            imm: value as i64,
            ..plain(K::LdImm64, dst, Reg::R0, 0)
        },
        Op::LdImm64 { kind, .. } => return Err(LowerError::Unresolved { at, what: kind }),
        Op::Ja { off, .. } => goto(K::Ja, off, 0),
        Op::MayGoto { off } => goto(K::MayGoto, off as i32, 0),
        Op::Call(CallKind::Helper(id)) => goto(K::CallHelper, 0, id),
        Op::Call(CallKind::Kfunc { btf_id, .. }) => goto(K::CallKfunc, 0, btf_id),
        Op::Call(CallKind::Bpf(rel)) => goto(K::CallBpf, rel, 0),
        Op::CallX { target } => plain(K::CallX, Reg::R0, target, 0),
        Op::Exit => goto(K::Exit, 0, 0),
        Op::AddrSpaceCast {
            dst,
            src,
            dst_as,
            src_as,
        } => match (dst_as, src_as) {
            (0, 1) => plain(K::CastKern, dst, src, 0),
            (1, 0) => plain(K::CastUser, dst, src, 0),
            _ => return Err(unsupported()),
        },
    })
}

/// The load that gives 0 where there is no memory; what is no load stays what it is.
fn probe(code: Code) -> Code {
    let (size, signed) = match code.k {
        K::Ld8 => (1, 0),
        K::Ld16 => (2, 0),
        K::Ld32 => (4, 0),
        K::Ld64 => (8, 0),
        K::LdS8 => (1, SIGNED),
        K::LdS16 => (2, SIGNED),
        K::LdS32 => (4, SIGNED),
        _ => return code,
    };
    Code {
        k: K::Probe,
        t: size | signed,
        ..code
    }
}

/// `off` is 1 where the index register counts, so that the engine needs one op for both kinds.
fn packet(at: usize, op: Op, size: Size, index: Option<Reg>, imm: i32) -> Result<Code, LowerError> {
    let k = match size {
        Size::B => K::LdPkt8,
        Size::H => K::LdPkt16,
        Size::W => K::LdPkt32,
        Size::Dw => return Err(LowerError::Unsupported { at, op }),
    };
    let s = index.map_or(0, Reg::number);
    Ok(Code {
        k,
        d: 0,
        s,
        t: 0,
        off: index.is_some() as i32,
        imm: imm as i64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Area, Call, Flow, GuestMem, Host, Mode, STACK_SIZE, Stop, run};
    use bpfsim_isa::assemble;

    /// A kernel whose only call frees what its first argument points to.
    struct Frees;

    impl Host for Frees {
        fn call(&mut self, _: Call, args: &[u64; 5], _: u64, mem: &mut GuestMem) -> Flow {
            mem.retire(args[0]);
            Flow::Done(0)
        }
        fn resume(&mut self, r0: u64, _: &mut GuestMem) -> Flow {
            Flow::Done(r0)
        }
        fn is_visible(&self, _: Call, _: &[u64; 5]) -> bool {
            false
        }
        fn load(&mut self, _: u64, _: u32, _: &GuestMem) -> Option<u64> {
            None
        }
        fn store(&mut self, _: u64, _: u32, _: u64, _: &mut GuestMem) -> Option<()> {
            None
        }
        fn load_packet(&mut self, _: i32, _: u32, _: &GuestMem) -> Option<u64> {
            None
        }
    }

    /// Runs a program whose loads all are `probe`s, with an object of 64 bytes, all 1, in r1: r0, and
    /// the loads of what is gone, by instruction.
    fn probing(text: &str, checked: bool) -> (u64, Vec<(u32, u64)>) {
        let insns = assemble(text).unwrap();
        let image = Image::lower(&insns, |_| Rewrite::ProbeMem).unwrap();
        let mut mem = GuestMem::new().unwrap();
        if checked {
            mem.check();
        }
        let stack = mem.alloc(Area::Stack, STACK_SIZE, 64).unwrap();
        let object = mem.alloc(Area::Shared, 64, 8).unwrap();
        mem.slice_mut(object, 64).unwrap().fill(1);
        let mut act = Activation::new(0, [object, 0, 0, 0, 0], stack);
        let stop = run(&image, &mut act, &mut mem, &mut Frees, 100, Mode::Plain);
        let Stop::Exit(r0) = stop else {
            panic!("{text}: {stop:?}");
        };
        let stale = mem.take_stale();
        (
            r0,
            stale.iter().map(|s| (s.by.pc, s.addr - object)).collect(),
        )
    }

    #[test]
    fn loads_that_give_0_never_fail() {
        type Row<'a> = (&'a str, u64, &'a [(u32, u64)]);
        let rows: [Row<'_>; 5] = [
            ("r0 = *(u16 *)(r1 + 8); exit", 0x101, &[]),
            // Nowhere, and beside the object.
            ("r2 = 4096; r0 = *(u64 *)(r2 + 8); exit", 0, &[]),
            ("r0 = *(u64 *)(r1 + 4096); exit", 0, &[]),
            // Linux's memory still holds what it held.
            ("r6 = r1; call 1; r0 = *(u8 *)(r6 + 5); exit", 1, &[(2, 5)]),
            (
                "r6 = r1; r6 += 8; call 1; r0 = *(s8 *)(r6 + 0); r0 += 1; r0 = *(u8 *)(r6 + 1); exit",
                1,
                &[(3, 8), (5, 9)],
            ),
        ];
        for (text, r0, stale) in rows {
            assert_eq!(probing(text, false), (r0, vec![]), "{text}");
            assert_eq!(probing(text, true), (r0, stale.to_vec()), "{text}");
        }
    }
}
