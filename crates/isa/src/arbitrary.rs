//! Strategies that make any instruction, for property tests.

use proptest::prelude::*;

use crate::codec::encode;
use crate::insn::{Insn, Reg};
use crate::parts::{AluOp, AtomicOp, CallKind, Cond, EndKind, Imm64, Operand, Size, Width};
use crate::table::Op;

/// Any instruction that has an encoding.
pub fn any_op() -> impl Strategy<Value = Op> {
    Op::any_fields().prop_filter("has an encoding", |op| encode(op).is_ok())
}

/// Any slot, those that are nearly instructions more often than chance has it.
pub fn any_insn() -> impl Strategy<Value = Insn> {
    let noise = any::<(u8, u8, i16, i32)>().prop_map(|(code, regs, off, imm)| Insn {
        code,
        regs,
        off,
        imm,
    });
    let near = (any_op(), 0_u32..64).prop_map(|(op, bit)| {
        let first = encode(&op).map_or(Insn::default(), |slots| slots.first());
        let bits = u64::from_le_bytes(first.to_le_bytes()) ^ 1 << bit;
        Insn::from_le_bytes(bits.to_le_bytes())
    });
    prop_oneof![noise, near]
}

impl Arbitrary for Op {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        any_op().boxed()
    }
}

impl Arbitrary for Insn {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        any_insn().boxed()
    }
}

/// Any value of a field's type.
pub(crate) trait Part: std::fmt::Debug + Sized + 'static {
    fn any() -> BoxedStrategy<Self>;
}

pub(crate) fn any_part<T: Part>() -> BoxedStrategy<T> {
    T::any()
}

macro_rules! parts {
    ($($ty:ty => $strategy:expr),* $(,)?) => {
        $(impl Part for $ty {
            fn any() -> BoxedStrategy<Self> { $strategy.boxed() }
        })*
    };
}

parts! {
    Width => proptest::sample::select(Width::ALL),
    Size => proptest::sample::select(Size::ALL),
    AluOp => proptest::sample::select(AluOp::ALL),
    Cond => proptest::sample::select(Cond::ALL),
    AtomicOp => proptest::sample::select(AtomicOp::ALL),
    EndKind => proptest::sample::select(EndKind::ALL),
    Reg => proptest::sample::select(Reg::ALL.to_vec()),
    bool => any::<bool>(),
    u8 => prop_oneof![Just(8_u8), Just(16), Just(32), Just(64), any::<u8>()],
    u16 => prop_oneof![0_u16..2, any::<u16>()],
    i16 => prop_oneof![-8_i16..8, Just(i16::MIN), Just(i16::MAX), any::<i16>()],
    i32 => prop_oneof![-8_i32..70, Just(i32::MIN), Just(i32::MAX), any::<i32>()],
    Operand => prop_oneof![
        <Reg as Part>::any().prop_map(Operand::Reg),
        <i32 as Part>::any().prop_map(Operand::Imm),
    ],
    Imm64 => {
        let i = <i32 as Part>::any;
        prop_oneof![
            any::<u64>().prop_map(Imm64::Plain),
            i().prop_map(|v| Imm64::Plain(i64::from(v).cast_unsigned())),
            i().prop_map(Imm64::MapFd),
            (i(), any::<u32>()).prop_map(|(fd, off)| Imm64::MapValue { fd, off }),
            (i(), i()).prop_map(|(btf_id, btf_fd)| Imm64::BtfId { btf_id, btf_fd }),
            (i(), i()).prop_map(|(rel, hi)| Imm64::Func { rel, hi }),
            i().prop_map(Imm64::MapIdx),
            (i(), any::<u32>()).prop_map(|(idx, off)| Imm64::MapIdxValue { idx, off }),
        ]
    },
    CallKind => {
        let i = <i32 as Part>::any;
        prop_oneof![
            i().prop_map(CallKind::Helper),
            i().prop_map(CallKind::Bpf),
            (i(), <i16 as Part>::any()).prop_map(|(btf_id, off)| CallKind::Kfunc { btf_id, off }),
        ]
    },
}
