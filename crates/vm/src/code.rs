//! The engine's own form of an instruction: sixteen bytes, operands ready to use.

use bpfsim_isa::AtomicOp;

/// Calls `$m` with every ALU operation and comparison:
/// `alu { function: 64-bit immediate, 64-bit register, 32-bit immediate, 32-bit register; }`,
/// likewise `jmp`, and `others`.
macro_rules! operand_ops {
    ($m:ident $($before:tt)*) => {
        $m! {
            $($before)*
            alu {
                add: Add64I, Add64R, Add32I, Add32R;
                sub: Sub64I, Sub64R, Sub32I, Sub32R;
                mul: Mul64I, Mul64R, Mul32I, Mul32R;
                div: Div64I, Div64R, Div32I, Div32R;
                sdiv: Sdiv64I, Sdiv64R, Sdiv32I, Sdiv32R;
                or: Or64I, Or64R, Or32I, Or32R;
                and: And64I, And64R, And32I, And32R;
                lsh: Lsh64I, Lsh64R, Lsh32I, Lsh32R;
                rsh: Rsh64I, Rsh64R, Rsh32I, Rsh32R;
                rem: Mod64I, Mod64R, Mod32I, Mod32R;
                srem: Smod64I, Smod64R, Smod32I, Smod32R;
                xor: Xor64I, Xor64R, Xor32I, Xor32R;
                mov: Mov64I, Mov64R, Mov32I, Mov32R;
                arsh: Arsh64I, Arsh64R, Arsh32I, Arsh32R;
            }
            jmp {
                eq: Jeq64I, Jeq64R, Jeq32I, Jeq32R;
                ne: Jne64I, Jne64R, Jne32I, Jne32R;
                gt: Jgt64I, Jgt64R, Jgt32I, Jgt32R;
                ge: Jge64I, Jge64R, Jge32I, Jge32R;
                lt: Jlt64I, Jlt64R, Jlt32I, Jlt32R;
                le: Jle64I, Jle64R, Jle32I, Jle32R;
                sgt: Jsgt64I, Jsgt64R, Jsgt32I, Jsgt32R;
                sge: Jsge64I, Jsge64R, Jsge32I, Jsge32R;
                slt: Jslt64I, Jslt64R, Jslt32I, Jslt32R;
                sle: Jsle64I, Jsle64R, Jsle32I, Jsle32R;
                set: Jset64I, Jset64R, Jset32I, Jset32R;
            }
            others {
                Neg64, Neg32,
                Sx8To64, Sx16To64, Sx32To64, Sx8To32, Sx16To32,
                Zx16, Zx32, Swap16, Swap32, Swap64,
                /// The whole 64-bit immediate; takes two slots.
                LdImm64,
                Ld8, Ld16, Ld32, Ld64, LdS8, LdS16, LdS32,
                St8I, St16I, St32I, St64I, St8R, St16R, St32R, St64R,
                /// `t` is an [`AtomicOp`] plus fetch; on 32 or 64 bits.
                Atomic32, Atomic64,
                /// A load of [`Code::t`] bytes that gives 0 where there is no memory.
                Probe,
                LdPkt8, LdPkt16, LdPkt32,
                Ja, MayGoto,
                /// Between the address space of an arena's user (1) and the program's own (0).
                CastKern, CastUser,
                CallHelper, CallKfunc, CallBpf, Exit,
                /// To the helper whose number a register holds.
                CallX,
                /// No instruction: the second slot of a wide one, and what follows the last.
                Bad,
            }
        }
    };
}
pub(crate) use operand_ops;

macro_rules! define_k {
    (alu { $($af:ident: $a:ident, $b:ident, $c:ident, $d:ident;)* }
     jmp { $($jf:ident: $e:ident, $f:ident, $g:ident, $h:ident;)* }
     others { $($(#[$doc:meta])* $o:ident,)* }) => {
        /// What a [`Code`] does. Names: width in bits, `I` immediate, `R` register operand.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are the documentation")]
        pub enum K {
            $($a, $b, $c, $d,)*
            $($e, $f, $g, $h,)*
            $($(#[$doc])* $o,)*
        }
    };
}
operand_ops!(define_k);

/// One instruction slot, pre-decoded. The index of a slot is the index of the instruction that
/// it was made from.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Code {
    /// What to do.
    pub k: K,
    /// Destination register.
    pub d: u8,
    /// Source register.
    pub s: u8,
    /// Index of an atomic's operation in [`AtomicOp::ALL`]; bit 7: it fetches. Of a probing load
    /// its bytes; bit 7: they are sign-extended. Of another load or store 1 where it acquires or
    /// releases.
    pub t: u8,
    /// Memory offset, or the distance of a jump from the next instruction.
    pub off: i32,
    /// Immediate, sign-extended; the call's number.
    pub imm: i64,
}

/// In [`Code::t`] of an atomic: the old value goes to a register.
pub(crate) const FETCH: u8 = 0x80;

/// In [`Code::t`] of a probing load: what it loads is sign-extended.
pub(crate) const SIGNED: u8 = 0x80;

/// In [`Code::t`] of a load or store: it acquires or releases.
pub(crate) const ORDERS: u8 = 1;

/// The operation in [`Code::t`] of an atomic.
pub(crate) fn atomic_op(t: u8) -> AtomicOp {
    AtomicOp::ALL[(t & !FETCH) as usize % AtomicOp::ALL.len()]
}

impl K {
    /// Writes memory and no register.
    pub(crate) fn stores(self) -> bool {
        (K::St8I as u8..=K::St64R as u8).contains(&(self as u8))
    }
}

impl Code {
    /// Whether it orders other accesses with its own: an atomic, an acquiring load, a releasing
    /// store.
    pub fn orders(&self) -> bool {
        match self.k {
            K::Atomic32 | K::Atomic64 => true,
            K::Probe => false,
            _ => self.t == ORDERS,
        }
    }

    /// Slots that the instruction takes.
    pub(crate) fn slots(&self) -> usize {
        1 + (self.k == K::LdImm64) as usize
    }
}
