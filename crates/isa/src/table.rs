//! The instruction set: one table. A row names an instruction, its fields, where in
//! the slot each field lives, the cpu version that has it and how LLVM writes it.
//! The enum, decoder, encoder, disassembler, assembler and generator expand from it.
//!
//! Templates: `{f}` is field f; `{f/w}` a register or operand whose letter (`r` or
//! `w`) field w tells; `{f/size}` one whose letter depends on the access size;
//! `{f:mem}` an offset behind a base register, `{f:rel}` a jump's distance (16 bits of
//! it: `:rel16`), `{f:extra}` what LLVM leaves out. A row may have several templates, each with
//! the values of fields that it stands for; the first that can write a value does.

use crate::insn::{Insn, Reg};
use crate::parts::{AluOp, AtomicOp, CallKind, Cond, Cpu, EndKind, Imm64, Operand, Size, Width};
use crate::places::{self, Place, Slots};

/// A value of some field, whatever its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Val {
    Width(Width),
    AluOp(AluOp),
    Cond(Cond),
    Size(Size),
    AtomicOp(AtomicOp),
    ByteOrder(EndKind),
    Reg(Reg),
    Operand(Operand),
    Bool(bool),
    U8(u8),
    U16(u16),
    I16(i16),
    I32(i32),
    Imm64(Imm64),
    Call(CallKind),
}

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Width,
    AluOp,
    Cond,
    Size,
    AtomicOp,
    ByteOrder,
    Reg,
    Operand,
    Bool,
    U8,
    U16,
    I16,
    I32,
    Imm64,
    Call,
}

/// A type that fields have.
pub(crate) trait FieldType {
    const KIND: Kind;
}

macro_rules! val_conversions {
    ($($var:ident: $ty:ty),* $(,)?) => {
        $(impl FieldType for $ty {
            const KIND: Kind = Kind::$var;
        }
        impl From<$ty> for Val {
            fn from(v: $ty) -> Self { Self::$var(v) }
        }
        impl TryFrom<Val> for $ty {
            type Error = ();
            fn try_from(v: Val) -> Result<Self, ()> {
                match v { Val::$var(v) => Ok(v), _ => Err(()) }
            }
        })*
    };
}

val_conversions! {
    Width: Width, AluOp: AluOp, Cond: Cond, Size: Size, AtomicOp: AtomicOp, ByteOrder: EndKind,
    Reg: Reg, Operand: Operand, Bool: bool, U8: u8, U16: u16, I16: i16, I32: i32,
    Imm64: Imm64, Call: CallKind,
}

/// The named fields of one instruction; no row has more than six.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Fields([Option<(&'static str, Val)>; 6]);

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<Val> {
        self.0
            .iter()
            .flatten()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| *v)
    }

    /// Sets a field; false where it has another value already.
    #[must_use]
    pub(crate) fn set(&mut self, name: &'static str, val: Val) -> bool {
        for place in &mut self.0 {
            match place {
                Some((n, v)) if *n == name => return *v == val,
                Some(_) => {}
                None => {
                    *place = Some((name, val));
                    return true;
                }
            }
        }
        false
    }
}

/// One way to write a row, for the values of fields in `when`.
pub(crate) struct Syntax {
    pub(crate) when: &'static [(&'static str, Val)],
    pub(crate) text: &'static str,
}

/// A row without its types.
pub(crate) struct Row {
    pub(crate) fields: &'static [(&'static str, Kind)],
    pub(crate) syntax: &'static [Syntax],
    pub(crate) read: fn(&Slots) -> Option<Op>,
    pub(crate) build: fn(&Fields) -> Option<Op>,
}

macro_rules! instructions {
    ($(
        $(#[$meta:meta])*
        $name:ident
            $({ $($(#[$fmeta:meta])* $f:ident: $ty:ty as $place:ident),+ $(,)? })?
            $(( $g:ident: $gty:ty as $gplace:ident ))?
            = $code:literal $(off $base_off:literal)? $(imm $base_imm:literal)?, $cpu:ident
            $(, $([$($wf:ident = $wv:expr),*])? $text:literal)+ ;
    )*) => {
        /// One decoded instruction of cpu v1 to v4.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Op {
            $($(#[$meta])* $name $({ $($(#[$fmeta])* $f: $ty),+ })? $(( $gty ))?),*
        }

        /// The rows, in the order that decoding and assembling try them.
        pub(crate) static ROWS: &[Row] = &[$(Row {
            fields: &[
                $($((stringify!($f), <$ty as FieldType>::KIND)),+)?
                $((stringify!($g), <$gty as FieldType>::KIND))?
            ],
            syntax: &[$(Syntax {
                when: &[$($((stringify!($wf), $wv)),*)?],
                text: $text,
            }),+],
            read: |slots| {
                let op = Op::$name
                    $({ $($f: <places::$place as Place<$ty>>::get(slots)?),+ })?
                    $((<places::$gplace as Place<$gty>>::get(slots)?))?;
                (op.write() == slots.without_unread()).then_some(op)
            },
            build: |_fields| Some(Op::$name
                $({ $($f: _fields.get(stringify!($f))?.try_into().ok()?),+ })?
                $((_fields.get(stringify!($g))?.try_into().ok()?))?),
        }),*];

        impl Op {
            /// The row's name, which is the variant's.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name)),* }
            }

            /// Index of this instruction's row.
            pub(crate) fn row(&self) -> &'static Row {
                #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
                enum Index { $($name),* }
                let index = match self { $(Self::$name { .. } => Index::$name as usize),* };
                &ROWS[index]
            }

            /// Cpu version that brought the row; see [`Op::cpu`] for the whole rule.
            pub(crate) const fn row_cpu(&self) -> Cpu {
                match self { $(Self::$name { .. } => Cpu::$cpu),* }
            }

            pub(crate) fn fields(&self) -> Fields {
                let mut fields = Fields::default();
                match *self {
                    $(Self::$name $({ $($f),+ })? $(( $g ))? => {
                        $($(let _ = fields.set(stringify!($f), $f.into());)+)?
                        $(let _ = fields.set(stringify!($g), $g.into());)?
                    })*
                }
                fields
            }

            /// The slots that hold this instruction, whether or not they decode again.
            pub(crate) fn write(&self) -> Slots {
                match *self {
                    $(Self::$name $({ $($f),+ })? $(( $g ))? => {
                        #[allow(unused_mut)]
                        let mut slots = Slots::of(
                            Insn::new($code, 0, 0, 0 $(+ $base_off)?, 0 $(+ $base_imm)?));
                        $($(<places::$place as Place<$ty>>::put($f, &mut slots);)+)?
                        $(<places::$gplace as Place<$gty>>::put($g, &mut slots);)?
                        slots
                    })*
                }
            }
        }

        #[cfg(feature = "proptest")]
        #[allow(unused_parens)]
        impl Op {
            /// Any field values, whether or not an encoding has them.
            pub(crate) fn any_fields() -> impl proptest::strategy::Strategy<Value = Self> {
                use proptest::strategy::Strategy;
                #[allow(unused_imports)]
                use crate::arbitrary::any_part;
                proptest::prop_oneof![$(
                    ($($(any_part::<$ty>(),)+)? $(any_part::<$gty>(),)? proptest::strategy::Just(()))
                        .prop_map(|($($($f,)+)? $($g,)? ())| {
                            Self::$name $({ $($f),+ })? $(( $g ))?
                        }).boxed()
                ),*]
            }
        }
    };
}

instructions! {
    /// `dst op= src`.
    Alu {
        /// Class ALU64 or ALU.
        w: Width as AluClass,
        /// Operation; selects `off` too.
        op: AluOp as AluOpOff,
        /// Destination and first operand.
        dst: Reg as Dst,
        /// Second operand.
        src: Operand as SrcOrImm,
    } = 0x00, V1, "{dst/w} {op} {src/w}";

    /// `dst = *(size *)(src + off)`.
    Load {
        /// Bytes read.
        size: Size as MemSize,
        /// Sign-extends (`BPF_MEMSX`) instead of zero-extending.
        signed: bool as MemSx,
        /// Destination.
        dst: Reg as Dst,
        /// Base.
        src: Reg as Src,
        /// Bytes from the base.
        off: i16 as Off,
    } = 0x01, V1,
        [signed = Val::Bool(false)] "{dst/size} = *({size} *)({src} {off:mem})",
        [signed = Val::Bool(true), size = Val::Size(Size::B)] "{dst} = *(s8 *)({src} {off:mem})",
        [signed = Val::Bool(true), size = Val::Size(Size::H)] "{dst} = *(s16 *)({src} {off:mem})",
        [signed = Val::Bool(true), size = Val::Size(Size::W)] "{dst} = *(s32 *)({src} {off:mem})";

    /// `*(size *)(dst + off) = src`, class STX or ST.
    Store {
        /// Bytes written.
        size: Size as MemSize,
        /// Base.
        dst: Reg as Dst,
        /// Bytes from the base.
        off: i16 as Off,
        /// What is written.
        src: Operand as StoreSrc,
    } = 0x60, V1, "*({size} *)({dst} {off:mem}) = {src/size}";

    /// `if dst cond src goto +off`.
    Jmp {
        /// Class JMP or JMP32.
        w: Width as JmpClass,
        /// Condition.
        cond: Cond as JmpOp,
        /// First operand.
        dst: Reg as Dst,
        /// Second operand.
        src: Operand as SrcOrImm,
        /// Slots from the one after this.
        off: i16 as Off,
    } = 0x00, V1, "if {dst/w} {cond} {src/w} goto {off:rel}";

    /// `goto +off`, or `gotol +off` with a 32-bit distance.
    Ja {
        /// In `imm` of class JMP32 instead of `off` of class JMP.
        long: bool as JaLong,
        /// Slots from the one after this.
        off: i32 as JaOff,
    } = 0x00, V1,
        [long = Val::Bool(false)] "goto {off:rel16}",
        [long = Val::Bool(true)] "gotol {off:rel}";

    /// `call`.
    Call(kind: CallKind as CallTarget) = 0x85, V1, "call {kind}";

    /// `callx`: a call to what a register holds. LLVM makes it of calls through pointers; Linux
    /// has none, and [`decode`](crate::decode) refuses it.
    CallX {
        /// Whom to call.
        target: Reg as Dst,
    } = 0x8d, V1, "callx {target}";

    /// `exit`.
    Exit = 0x95, V1, "exit";

    /// Two slots: `dst = value ll`.
    LdImm64 {
        /// Destination.
        dst: Reg as Dst,
        /// Value, or what Linux puts there.
        kind: Imm64 as WideImm,
    } = 0x18, V1, "{dst} = {kind:plain} ll", "ld_pseudo {dst}, {kind:pseudo}";

    /// `dst = -dst`.
    Neg {
        /// Class ALU64 or ALU.
        w: Width as AluClass,
        /// Operand and destination.
        dst: Reg as Dst,
    } = 0x80, V1, "{dst/w} = -{dst/w}";

    /// `dst = le16 dst` and so on.
    End {
        /// Direction.
        kind: EndKind as EndCode,
        /// 16, 32 or 64.
        bits: u8 as EndBits,
        /// Operand and destination.
        dst: Reg as Dst,
    } = 0x00, V1, "{dst} = {kind}{bits} {dst}";

    /// `dst = (s8)src`: sign extension to the operation's width.
    Movsx {
        /// Class ALU64 or ALU.
        w: Width as AluClass,
        /// 8, 16, or (64-bit only) 32: how much of the source counts.
        bits: u8 as SxBits,
        /// Destination.
        dst: Reg as Dst,
        /// Source.
        src: Reg as Src,
    } = 0xb8, V4, "{dst/w} = (s{bits}){src/w}";

    /// `dst = addr_space_cast(src, dst_as, src_as)`: 0, 1 is to the kernel's view of an
    /// arena pointer, 1, 0 to the user's.
    AddrSpaceCast {
        /// Destination.
        dst: Reg as Dst,
        /// Source.
        src: Reg as Src,
        /// Address space of the result.
        dst_as: u16 as CastDst,
        /// Address space of the source.
        src_as: u16 as CastSrc,
    } = 0xbf off 1, V4, "{dst} = addr_space_cast({src}, {dst_as}, {src_as})";

    /// Atomic read-modify-write of `*(size *)(dst + off)` with `src`.
    Atomic {
        /// Word or double word.
        size: Size as RmwSize,
        /// Operation.
        op: AtomicOp as RmwOp,
        /// The old value comes back in `src` (compare-exchange: in r0).
        fetch: bool as RmwFetch,
        /// Base.
        dst: Reg as Dst,
        /// Bytes from the base.
        off: i16 as Off,
        /// Operand, and where the old value goes.
        src: Reg as Src,
    } = 0xc3, V1,
        [fetch = Val::Bool(false)]
            "lock *({size} *)({dst} {off:mem}) {op} {src/size}",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::Add)]
            "{src/size} = atomic_fetch_add(({size} *)({dst} {off:mem}), {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::Or)]
            "{src/size} = atomic_fetch_or(({size} *)({dst} {off:mem}), {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::And)]
            "{src/size} = atomic_fetch_and(({size} *)({dst} {off:mem}), {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::Xor)]
            "{src/size} = atomic_fetch_xor(({size} *)({dst} {off:mem}), {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::Xchg), size = Val::Size(Size::W)]
            "{src/size} = xchg32_32({dst} {off:mem}, {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::Xchg), size = Val::Size(Size::Dw)]
            "{src/size} = xchg_64({dst} {off:mem}, {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::CmpXchg), size = Val::Size(Size::W)]
            "w0 = cmpxchg32_32({dst} {off:mem}, w0, {src/size})",
        [fetch = Val::Bool(true), op = Val::AtomicOp(AtomicOp::CmpXchg), size = Val::Size(Size::Dw)]
            "r0 = cmpxchg_64({dst} {off:mem}, r0, {src/size})";

    /// `dst = load_acquire((size *)(src + off))`.
    LoadAcquire {
        /// Bytes read.
        size: Size as MemSize,
        /// Destination.
        dst: Reg as Dst,
        /// Base.
        src: Reg as Src,
        /// Bytes from the base.
        off: i16 as Off,
    } = 0xc3 imm 0x100, V4, "{dst/size} = load_acquire(({size} *)({src} {off:mem}))";

    /// `store_release((size *)(dst + off), src)`.
    StoreRelease {
        /// Bytes written.
        size: Size as MemSize,
        /// Base.
        dst: Reg as Dst,
        /// Bytes from the base.
        off: i16 as Off,
        /// What is written.
        src: Reg as Src,
    } = 0xc3 imm 0x110, V4, "store_release(({size} *)({dst} {off:mem}), {src/size})";

    /// `r0 = *(size *)skb[imm]`, in network order; ends the program where it cannot.
    LdAbs {
        /// Byte, half word or word.
        size: Size as SkbSize,
        /// Offset in the packet.
        imm: i32 as Imm,
    } = 0x20, V1, "r0 = *({size} *)skb[{imm}]";

    /// `r0 = *(size *)skb[src + imm]`, in network order; ends the program where it cannot.
    LdInd {
        /// Byte, half word or word.
        size: Size as SkbSize,
        /// Offset in the packet.
        src: Reg as Src,
        /// Added to the offset.
        imm: i32 as Imm,
    } = 0x40, V1, "r0 = *({size} *)skb[{src}{imm:extra}]";

    /// `may_goto +off`: jumps once the program's budget of loops is used up.
    MayGoto {
        /// Slots from the one after this.
        off: i16 as Off,
    } = 0xe5, V4, "may_goto {off:rel}";
}
