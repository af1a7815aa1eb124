//! What the interpreter's loop executes: [`Code`] in the form that is quickest to take apart, and
//! sequences of ops that one dispatch covers.
//!
//! An [`Op`] that begins a sequence differs from a plain one in [`Op::f`] alone: its operands are
//! its own, those of the rest of the sequence stand in the ops that follow, which are all there.
//! So a jump may land anywhere, a run may stop and go on in the middle of a sequence, and every
//! instruction is counted, without a second set of operands to keep right.

use crate::alu::reciprocal;
use crate::code::{Code, K, operand_ops};

/// A register number; sixteen, so that an index is in range by its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum R { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, U11, U12, U13, U14, U15 }

impl R {
    #[rustfmt::skip]
    const ALL: [R; 16] = [
        R::R0, R::R1, R::R2, R::R3, R::R4, R::R5, R::R6, R::R7, R::R8, R::R9, R::R10,
        R::U11, R::U12, R::U13, R::U14, R::U15,
    ];
}

/// One op of the loop.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Op {
    /// What to do here, and in the ops that follow where it is a sequence.
    pub f: F,
    /// Destination register.
    pub d: R,
    /// Source register.
    pub s: R,
    /// As in [`Code`]; of a jump in bytes, of a division by a number above 0 that number, else 0.
    pub off: i32,
    /// As in [`Code`]; of an atomic and of a probing load, its [`Code::t`]; of a division by a
    /// number above 0 that number's [`reciprocal`].
    pub imm: i64,
}

/// Calls `$m` with every sequence: its name, and for each of its ops the [`K`], the shape of what
/// it does (see `elem!` of the interpreter), and the operand that is the value which the sequence
/// wrote last: `d` or `s`, or `x` where it is neither or does not matter.
///
/// What stands here is what compilers make often, by the pairs counted in objects of all kinds:
/// three-address arithmetic as two ops, widening by two shifts, comparing what was just loaded,
/// indexing, bounds checks of packets, and the ends of loops.
macro_rules! sequences {
    ($m:ident $($before:tt)*) => {
        $m! { $($before)* sequences {
            // Bounds checks, up to the first access.
            MovAddJgtLd8 = [Mov64R ar mov x] [Add64I ai add d] [Jgt64R jr gt d] [Ld8 ld u8 x];
            MovAddJgtLd16 = [Mov64R ar mov x] [Add64I ai add d] [Jgt64R jr gt d] [Ld16 ld u16 x];
            MovAddJgtLd32 = [Mov64R ar mov x] [Add64I ai add d] [Jgt64R jr gt d] [Ld32 ld u32 x];
            MovAddJgt = [Mov64R ar mov x] [Add64I ai add d] [Jgt64R jr gt d];
            // Indexing.
            MovLshAddLd64 = [Mov64R ar mov x] [Lsh64I ai lsh d] [Add64R ar add d] [Ld64 ld u64 s];
            Ld32LshArshAdd = [Ld32 ld u32 x] [Lsh64I ai lsh d] [Arsh64I ai arsh d] [Add64R ar add s];
            LshArshAddLd64 = [Lsh64I ai lsh x] [Arsh64I ai arsh d] [Add64R ar add s] [Ld64 ld u64 s];
            Ld32LshArsh = [Ld32 ld u32 x] [Lsh64I ai lsh d] [Arsh64I ai arsh d];
            Ld32LshRsh = [Ld32 ld u32 x] [Lsh64I ai lsh d] [Rsh64I ai rsh d];
            LshArshAdd = [Lsh64I ai lsh x] [Arsh64I ai arsh d] [Add64R ar add s];
            MovAddLd8 = [Mov64R ar mov x] [Add64R ar add d] [Ld8 ld u8 s];
            MovAddLd64 = [Mov64R ar mov x] [Add64R ar add d] [Ld64 ld u64 s];
            MovAddSt8 = [Mov64R ar mov x] [Add64R ar add d] [St8R sr u8 d];
            MovAddSt64 = [Mov64R ar mov x] [Add64R ar add d] [St64R sr u64 d];
            LshArsh = [Lsh64I ai lsh x] [Arsh64I ai arsh d];
            LshRsh = [Lsh64I ai lsh x] [Rsh64I ai rsh d];
            LshAdd = [Lsh64I ai lsh x] [Add64R ar add d];
            LshOr = [Lsh64I ai lsh x] [Or64R ar or d];
            LshOr32 = [Lsh32I wi lsh x] [Or32R wr or d];
            // Mixing, and other arithmetic of three operands.
            MovLshXor = [Mov64R ar mov x] [Lsh64I ai lsh d] [Xor64R ar xor s];
            MovRshXor = [Mov64R ar mov x] [Rsh64I ai rsh d] [Xor64R ar xor s];
            MovAndJeq = [Mov64R ar mov x] [And64I ai and d] [Jeq64I ji eq d];
            MovAndJne = [Mov64R ar mov x] [And64I ai and d] [Jne64I ji ne d];
            MovLshAdd = [Mov64R ar mov x] [Lsh64I ai lsh d] [Add64R ar add s];
            MovAddRsh = [Mov64R ar mov x] [Add64R ar add d] [Rsh64I ai rsh d];
            MovMulAdd = [Mov64R ar mov x] [Mul64I ai mul d] [Add64I ai add d];
            MulAdd = [Mul64I ai mul x] [Add64I ai add d];
            MovMul = [Mov64R ar mov x] [Mul64I ai mul d];
            MovDiv = [Mov64R ar mov x] [Div64I ai div d];
            MovMod = [Mov64R ar mov x] [Mod64I ai rem d];
            MovLsh = [Mov64R ar mov x] [Lsh64I ai lsh d];
            MovRsh = [Mov64R ar mov x] [Rsh64I ai rsh d];
            MovAnd = [Mov64R ar mov x] [And64I ai and d];
            MovAddI = [Mov64R ar mov x] [Add64I ai add d];
            MovAddR = [Mov64R ar mov x] [Add64R ar add d];
            MovSubR = [Mov64R ar mov x] [Sub64R ar sub d];
            MovXorR = [Mov64R ar mov x] [Xor64R ar xor d];
            MovOrR = [Mov64R ar mov x] [Or64R ar or d];
            Mov32Lsh = [Mov32R wr mov x] [Lsh32I wi lsh d];
            Mov32Rsh = [Mov32R wr mov x] [Rsh32I wi rsh d];
            Mov32And = [Mov32R wr mov x] [And32I wi and d];
            Mov32AddR = [Mov32R wr mov x] [Add32R wr add d];
            Mov32XorR = [Mov32R wr mov x] [Xor32R wr xor d];
            // Ends of loops.
            AddAddJne = [Add64R ar add x] [Add64I ai add x] [Jne64I ji ne d];
            AddJne = [Add64I ai add x] [Jne64I ji ne d];
            AddJneR = [Add64I ai add x] [Jne64R jr ne d];
            AddJlt = [Add64I ai add x] [Jlt64I ji lt d];
            AddJltR = [Add64I ai add x] [Jlt64R jr lt d];
            AddJgtR = [Add64I ai add x] [Jgt64R jr gt d];
            AddJgt = [Add64I ai add x] [Jgt64I ji gt d];
            AddJleR = [Add64I ai add x] [Jle64R jr le d];
            AddJslt = [Add64I ai add x] [Jslt64I ji slt d];
            AddJsgt = [Add64I ai add x] [Jsgt64I ji sgt d];
            Add32Jne = [Add32I wi add x] [Jne32I wji ne d];
            Add32Jlt = [Add32I wi add x] [Jlt32I wji lt d];
            MovIJa = [Mov64I ai mov x] [Ja ja];
            Mov32Ja = [Mov32I wi mov x] [Ja ja];
            JeqJa = [Jeq64I ji eq x] [Ja ja];
            Jeq32Ja = [Jeq32I wji eq x] [Ja ja];
            Jeq32Jeq32 = [Jeq32I wji eq x] [Jeq32I wji eq x];
            AddJa = [Add64I ai add x] [Ja ja];
            AddRJa = [Add64R ar add x] [Ja ja];
            MovJa = [Mov64R ar mov x] [Ja ja];
            RshJa = [Rsh64I ai rsh x] [Ja ja];
            MovJeq = [Mov64R ar mov x] [Jeq64I ji eq d];
            Rsh64Jeq = [Rsh64I ai rsh x] [Jeq64I ji eq d];
            And64Jeq = [And64I ai and x] [Jeq64I ji eq d];
            And64Jne = [And64I ai and x] [Jne64I ji ne d];
            And32Jeq = [And32I wi and x] [Jeq32I wji eq d];
            And32Jne = [And32I wi and x] [Jne32I wji ne d];
            // What was loaded.
            Ld64Jeq = [Ld64 ld u64 x] [Jeq64I ji eq d];
            Ld64Jne = [Ld64 ld u64 x] [Jne64I ji ne d];
            Ld32Jeq = [Ld32 ld u32 x] [Jeq64I ji eq d];
            Ld32Jne = [Ld32 ld u32 x] [Jne64I ji ne d];
            Ld16Jne = [Ld16 ld u16 x] [Jne64I ji ne d];
            Ld8Jeq = [Ld8 ld u8 x] [Jeq64I ji eq d];
            Ld8Jne = [Ld8 ld u8 x] [Jne64I ji ne d];
            Ld64JeqR = [Ld64 ld u64 x] [Jeq64R jr eq d];
            Ld32Jeq32 = [Ld32 ld u32 x] [Jeq32I wji eq d];
            Ld32Jne32 = [Ld32 ld u32 x] [Jne32I wji ne d];
            Ld32Jne32R = [Ld32 ld u32 x] [Jne32R wjr ne s];
            Ld16SwapJne = [Ld16 ld u16 x] [Swap16 swap u16 d] [Jne64I ji ne d];
            Ld16SwapJeq = [Ld16 ld u16 x] [Swap16 swap u16 d] [Jeq64I ji eq d];
            SwapJne = [Swap16 swap u16 x] [Jne64I ji ne d];
            MovRshJne = [Mov64R ar mov x] [Rsh64I ai rsh d] [Jne64I ji ne d];
            MovRshJeq = [Mov64R ar mov x] [Rsh64I ai rsh d] [Jeq64I ji eq d];
            Ld16Swap = [Ld16 ld u16 x] [Swap16 swap u16 d];
            Ld32Ld32 = [Ld32 ld u32 x] [Ld32 ld u32 x];
            Ld8St8 = [Ld8 ld u8 x] [St8R sr u8 s];
            Ld32St32 = [Ld32 ld u32 x] [St32R sr u32 s];
            Ld8Lsh32 = [Ld8 ld u8 x] [Lsh32I wi lsh d];
            Ld64Ld32 = [Ld64 ld u64 x] [Ld32 ld u32 s];
            Ld64Ld64S = [Ld64 ld u64 x] [Ld64 ld u64 s];
            Ld64Ld64 = [Ld64 ld u64 x] [Ld64 ld u64 x];
            Ld64St64 = [Ld64 ld u64 x] [St64R sr u64 x];
            Ld64AddI = [Ld64 ld u64 x] [Add64I ai add d];
            Ld64AddR = [Ld64 ld u64 x] [Add64R ar add x];
            Ld32AddR = [Ld32 ld u32 x] [Add64R ar add s];
            Ld16AddR = [Ld16 ld u16 x] [Add64R ar add s];
            Ld8AddR = [Ld8 ld u8 x] [Add64R ar add s];
            Ld32Add32R = [Ld32 ld u32 x] [Add32R wr add x];
            Ld32Add32St = [Ld32 ld u32 x] [Add32I wi add d] [St32R sr u32 s];
            Ld64AddSt = [Ld64 ld u64 x] [Add64I ai add d] [St64R sr u64 s];
            Ld32Lsh = [Ld32 ld u32 x] [Lsh64I ai lsh d];
            Ld32Mov = [Ld32 ld u32 x] [Mov64R ar mov x];
            Ld64Mov32 = [Ld64 ld u64 x] [Mov32I wi mov x];
            Add64Ld64 = [Add64R ar add x] [Ld64 ld u64 s];
            Add64Ld8 = [Add64R ar add x] [Ld8 ld u8 s];
            Add64Ld64X = [Add64R ar add x] [Ld64 ld u64 x];
            // What is stored.
            St64St64St64St64 = [St64R sr u64 x] [St64R sr u64 x] [St64R sr u64 x] [St64R sr u64 x];
            St8St8 = [St8R sr u8 x] [St8R sr u8 x];
            Mov32St8 = [Mov32I wi mov x] [St8R sr u8 s];
            Mov64St32 = [Mov64I ai mov x] [St32R sr u32 s];
            St64St64 = [St64R sr u64 x] [St64R sr u64 x];
            St32St32 = [St32R sr u32 x] [St32R sr u32 x];
            Mov32St16 = [Mov32I wi mov x] [St16R sr u16 s];
            Mov32St32 = [Mov32I wi mov x] [St32R sr u32 s];
            Mov64St64 = [Mov64I ai mov x] [St64R sr u64 s];
            // Arguments and results of calls.
            MovAddLdImmCallJeq = [Mov64R ar mov x] [Add64I ai add d] [LdImm64 ldimm] [CallHelper call]
                [Jeq64I ji eq x];
            MovAddLdImmCallJne = [Mov64R ar mov x] [Add64I ai add d] [LdImm64 ldimm] [CallHelper call]
                [Jne64I ji ne x];
            MovAddLdImmCall = [Mov64R ar mov x] [Add64I ai add d] [LdImm64 ldimm] [CallHelper call];
            MovAddMov32Call = [Mov64R ar mov x] [Add64I ai add d] [Mov32I wi mov x] [CallHelper call];
            MovAddMovAdd = [Mov64R ar mov x] [Add64I ai add d] [Mov64R ar mov x] [Add64I ai add d];
            MovAddMov32 = [Mov64R ar mov x] [Add64I ai add d] [Mov32I wi mov x];
            MovMovCall = [Mov64R ar mov x] [Mov64R ar mov x] [CallHelper call];
            MovMovBpf = [Mov64R ar mov x] [Mov64R ar mov x] [CallBpf bpf];
            MovBpf = [Mov64R ar mov x] [CallBpf bpf];
            MovIBpf = [Mov64I ai mov x] [CallBpf bpf];
            XorRBpf = [Xor64R ar xor x] [CallBpf bpf];
            AddRExit = [Add64R ar add x] [Exit exit];
            MovRExit = [Mov64R ar mov x] [Exit exit];
            MovAddLdImm = [Mov64R ar mov x] [Add64I ai add d] [LdImm64 ldimm];
            Mov64RCall = [Mov64R ar mov x] [CallHelper call];
            Mov64ICall = [Mov64I ai mov x] [CallHelper call];
            Mov32ICall = [Mov32I wi mov x] [CallHelper call];
            LdImmCall = [LdImm64 ldimm] [CallHelper call];
            CallJeq = [CallHelper call] [Jeq64I ji eq x];
            CallJne = [CallHelper call] [Jne64I ji ne x];
            CallMov = [CallHelper call] [Mov64R ar mov x];
            CallLd64 = [CallHelper call] [Ld64 ld u64 x];
            Mov32Exit = [Mov32I wi mov x] [Exit exit];
            Mov64Exit = [Mov64I ai mov x] [Exit exit];
            AddIExit = [Add64I ai add x] [Exit exit];
            // Others that often follow each other.
            XorAddID = [Xor64R ar xor x] [Add64I ai add d];
            XorAddRD = [Xor64R ar xor x] [Add64R ar add d];
            AddRAddID = [Add64R ar add x] [Add64I ai add d];
            AddRXorRD = [Add64R ar add x] [Xor64R ar xor d];
            AddRXorRS = [Add64R ar add x] [Xor64R ar xor s];
            AddRRshD = [Add64R ar add x] [Rsh64I ai rsh d];
            AddIRshD = [Add64I ai add x] [Rsh64I ai rsh d];
            AndAddRD = [And64I ai and x] [Add64R ar add d];
            RshAndD = [Rsh64I ai rsh x] [And64I ai and d];
            LshRshXor = [Lsh64I ai lsh x] [Rsh64I ai rsh d] [Xor64R ar xor s];
            AddRAddI = [Add64R ar add x] [Add64I ai add x];
            AddIAddI = [Add64I ai add x] [Add64I ai add x];
            XorAddR = [Xor64R ar xor x] [Add64R ar add x];
            XorAddI = [Xor64R ar xor x] [Add64I ai add x];
            AddIMov = [Add64I ai add x] [Mov64R ar mov x];
            AddRMov = [Add64R ar add x] [Mov64R ar mov x];
            MovMov = [Mov64R ar mov x] [Mov64R ar mov x];
            MovIMovI = [Mov64I ai mov x] [Mov64I ai mov x];
            Mov32Mov32 = [Mov32I wi mov x] [Mov32I wi mov x];
            MovIAddR = [Mov64I ai mov x] [Add64R ar add s];
            MovRMovI = [Mov64R ar mov x] [Mov64I ai mov x];
            LdImmMov = [LdImm64 ldimm] [Mov64R ar mov x];
        } }
    };
}
pub(crate) use sequences;

macro_rules! define_f {
    (alu { $($af:ident: $a:ident, $b:ident, $c:ident, $d:ident;)* }
     jmp { $($jf:ident: $e:ident, $f:ident, $g:ident, $h:ident;)* }
     others { $($(#[$doc:meta])* $o:ident,)* }
     sequences { $($name:ident = $([$k:ident $($shape:tt)*])*;)* }) => {
        /// What an [`Op`] does: each [`K`], then each sequence.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub(crate) enum F {
            $($a, $b, $c, $d,)*
            $($e, $f, $g, $h,)*
            $($o,)*
            $($name,)*
        }

        impl From<K> for F {
            fn from(k: K) -> F {
                match k {
                    $(K::$a => F::$a, K::$b => F::$b, K::$c => F::$c, K::$d => F::$d,)*
                    $(K::$e => F::$e, K::$f => F::$f, K::$g => F::$g, K::$h => F::$h,)*
                    $(K::$o => F::$o,)*
                }
            }
        }

        /// All sequences.
        const SEQUENCES: &[Sequence] = &[
            $((&[$((K::$k, define_f!(@rel $($shape)*))),*], F::$name),)*
        ];
    };
    (@rel $shape:ident $f:ident d) => { Rel::Dst };
    (@rel $shape:ident $f:ident s) => { Rel::Src };
    (@rel $($shape:tt)*) => { Rel::Any };
}
operand_ops!(sequences define_f);

/// Ops in a row, each with what ties it to those before, and what they are together.
type Sequence = (&'static [(K, Rel)], F);

/// Which operand of an op in a sequence is the register written last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rel {
    Any,
    Dst,
    Src,
}

/// Both forms of a program that loops execute: op by op, and in sequences.
#[derive(Debug, Clone)]
pub(crate) struct Ops {
    pub plain: Box<[Op]>,
    pub fast: Box<[Op]>,
    /// Most instructions in a row without a jump taken, a call or a return.
    pub straight: usize,
}

impl Ops {
    /// From code that ends in [`K::Bad`] and whose jumps land inside of it.
    pub fn new(code: &[Code]) -> Ops {
        let plain: Box<[Op]> = code.iter().map(Op::new).collect();
        let mut starting: Vec<Vec<&Sequence>> = vec![Vec::new(); K::Bad as usize + 1];
        for row in SEQUENCES {
            starting[row.0[0].0 as usize].push(row);
        }
        let mut fast = plain.clone();
        // What it costs from each op on to the end of its straight line, at best.
        let mut costs = vec![0_u32; code.len() + 2];
        for at in (0..code.len()).rev() {
            let then = |next: usize, last: K| match last {
                K::Ja | K::Exit | K::Bad => 0,
                _ => costs[next],
            };
            let alone = at + code[at].slots();
            let mut best = DISPATCH.saturating_add(then(alone, code[at].k));
            for (sequence, f) in &starting[code[at].k as usize] {
                let Some((next, ties)) = matched(code, at, sequence) else {
                    continue;
                };
                let last = sequence[sequence.len() - 1].0;
                let cost = (DISPATCH - ties).saturating_add(then(next, last));
                if cost < best {
                    (best, fast[at].f) = (cost, *f);
                }
            }
            costs[at] = best;
        }
        let (mut straight, mut line, mut at) = (0, 0, 0);
        while let Some(c) = code.get(at) {
            line += 1;
            straight = straight.max(line);
            if matches!(c.k, K::Ja | K::Exit) {
                line = 0;
            }
            at += c.slots();
        }
        Ops {
            plain,
            fast,
            straight,
        }
    }
}

impl Op {
    fn new(c: &Code) -> Op {
        let reg = |n: u8| R::ALL[n as usize & 15];
        let (off, imm) = match (c.k, c.jump()) {
            (_, Some(off)) => (off * size_of::<Op>() as i32, c.imm),
            (K::Atomic32 | K::Atomic64 | K::Probe, _) => (c.off, c.t as i64),
            (K::Div64I | K::Mod64I | K::Div32I | K::Mod32I, _) => match i32::try_from(c.imm) {
                Ok(d) if d > 0 => (d, reciprocal(d as u32) as i64),
                _ => (0, c.imm),
            },
            _ => (c.off, c.imm),
        };
        Op {
            f: c.k.into(),
            d: reg(c.d),
            s: reg(c.s),
            off,
            imm,
        }
    }
}

/// What a dispatch costs, in units of what is saved by a value that does not go through a register.
const DISPATCH: u32 = 6;

/// Whether these ops, tied so, stand at `at`: then the place after them, and how many ties.
fn matched(code: &[Code], at: usize, sequence: &[(K, Rel)]) -> Option<(usize, u32)> {
    let (mut at, mut wrote, mut ties) = (at, None, 0);
    for (k, rel) in sequence {
        let c = code.get(at).filter(|c| c.k == *k)?;
        let tied = match rel {
            Rel::Any => true,
            Rel::Dst => wrote == Some(c.d),
            Rel::Src => wrote == Some(c.s),
        };
        if !tied {
            return None;
        }
        ties += (*rel != Rel::Any) as u32;
        match k {
            K::LdImm64 | K::CallHelper => wrote = None,
            k if c.jump().is_some() || k.stores() => {}
            _ => wrote = Some(c.d),
        }
        at += c.slots();
    }
    Some((at, ties))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;
    use bpfsim_isa::assemble;

    fn first(text: &str) -> F {
        let image = Image::unverified(&assemble(text).unwrap()).unwrap();
        image.ops().fast[0].f
    }

    #[test]
    fn a_sequence_needs_its_ties() {
        assert_eq!(first("r1 = r2; r1 <<= 3; r0 = 0; exit"), F::MovLsh);
        assert_eq!(
            first("r1 = r2; r1 <<= 3; r4 += r1; r0 = 0; exit"),
            F::MovLshAdd
        );
        assert_eq!(first("r1 = r2; r3 <<= 3; r0 = 0; exit"), F::Mov64R);
        assert_eq!(first("r1 = 5 ll; r2 = r3; r0 = 0; exit"), F::LdImmMov);
        assert_eq!(first("r1 = r2; *(u64 *)(r10 - 8) = r1; exit"), F::Mov64R);
    }

    #[test]
    fn fewest_dispatches_win_over_the_longest_beginning() {
        // The second op could go with the first, but the third needs it more.
        assert_eq!(first("r2 += 5; r3 = r2; r3 <<= 4; r0 = 0; exit"), F::Add64I);

        let text = "r1 = r2; r1 += 4; if r1 > r3 goto +1; r0 = *(u8 *)(r2 + 3); exit";
        assert_eq!(first(text), F::MovAddJgtLd8);
    }
}
