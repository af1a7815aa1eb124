//! Where in the slots a field lives. `get` after `put` gives the value back; a
//! decoder accepts slots only if `put` of everything it got makes the same slots, so
//! each bit that no field owns is reserved and must be zero.

use crate::insn::{Insn, Reg, uapi::*};
use crate::parts::{AluOp, AtomicOp, CallKind, Cond, EndKind, Imm64, Operand, Size, Width};

/// One instruction's slots: the first and, of two-slot instructions, the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slots {
    pub(crate) first: Insn,
    pub(crate) second: Option<Insn>,
}

impl Slots {
    pub(crate) const fn of(first: Insn) -> Self {
        Self {
            first,
            second: None,
        }
    }

    /// These slots without what no rule of Linux looks at: the offset of `exit`.
    pub(crate) const fn without_unread(mut self) -> Self {
        if self.first.code == BPF_JMP | BPF_EXIT {
            self.first.off = 0;
        }
        self
    }
}

/// How a field of type `T` is read from slots and written to slots that are zero there.
pub(crate) trait Place<T> {
    fn get(slots: &Slots) -> Option<T>;
    fn put(value: T, slots: &mut Slots);
}

macro_rules! places {
    ($($(#[$meta:meta])* $name:ident: $ty:ty {
        get |$s:ident| $get:expr,
        put |$v:ident, $o:ident| $put:expr $(,)?
    })*) => {
        $($(#[$meta])* pub(crate) struct $name;
        impl Place<$ty> for $name {
            fn get(slots: &Slots) -> Option<$ty> { let $s = &slots.first; $get }
            fn put($v: $ty, slots: &mut Slots) { let $o = &mut slots.first; $put }
        })*
    };
}

/// The value of an enum's table that `matches`.
fn find<T: Copy>(all: &[T], matches: impl Fn(T) -> bool) -> Option<T> {
    all.iter().copied().find(|v| matches(*v))
}

fn operand(slot: &Insn, is_reg: bool) -> Option<Operand> {
    if is_reg {
        Reg::new(slot.src()).map(Operand::Reg)
    } else {
        Some(Operand::Imm(slot.imm))
    }
}

fn put_operand(value: Operand, slot: &mut Insn, reg_bits: u8, imm_bits: u8) {
    match value {
        Operand::Reg(reg) => {
            slot.code |= reg_bits;
            slot.set_src(reg.number());
        }
        Operand::Imm(imm) => {
            slot.code |= imm_bits;
            slot.imm = imm;
        }
    }
}

places! {
    Dst: Reg { get |s| Reg::new(s.dst()), put |v, o| o.set_dst(v.number()) }
    Src: Reg { get |s| Reg::new(s.src()), put |v, o| o.set_src(v.number()) }
    Off: i16 { get |s| Some(s.off), put |v, o| o.off = v }
    Imm: i32 { get |s| Some(s.imm), put |v, o| o.imm = v }

    AluClass: Width {
        get |s| match s.class() {
            BPF_ALU => Some(Width::W32),
            BPF_ALU64 => Some(Width::W64),
            _ => None,
        },
        put |v, o| o.code |= match v { Width::W32 => BPF_ALU, Width::W64 => BPF_ALU64 },
    }
    JmpClass: Width {
        get |s| match s.class() {
            BPF_JMP32 => Some(Width::W32),
            BPF_JMP => Some(Width::W64),
            _ => None,
        },
        put |v, o| o.code |= match v { Width::W32 => BPF_JMP32, Width::W64 => BPF_JMP },
    }
    AluOpOff: AluOp {
        get |s| find(AluOp::ALL, |op| (op.code(), op.off()) == (s.code & 0xf0, s.off)),
        put |v, o| { o.code |= v.code(); o.off = v.off() },
    }
    JmpOp: Cond {
        get |s| find(Cond::ALL, |cond| cond.code() == s.code & 0xf0),
        put |v, o| o.code |= v.code(),
    }
    SrcOrImm: Operand {
        get |s| operand(s, s.code & BPF_X != 0),
        put |v, o| put_operand(v, o, BPF_X, BPF_K),
    }
    StoreSrc: Operand {
        get |s| operand(s, s.class() == BPF_STX),
        put |v, o| put_operand(v, o, BPF_STX, BPF_ST),
    }
    MemSize: Size {
        get |s| find(Size::ALL, |size| size.code() == s.code & 0x18),
        put |v, o| o.code |= v.code(),
    }
    /// The mode of a load. There is nothing above 64 bits to extend a double word to.
    MemSx: bool {
        get |s| match s.code & 0xe0 {
            BPF_MEM => Some(false),
            BPF_MEMSX if s.code & 0x18 != BPF_DW => Some(true),
            _ => None,
        },
        put |v, o| o.code |= if v { BPF_MEMSX } else { BPF_MEM },
    }
    SkbSize: Size {
        get |s| find(&[Size::B, Size::H, Size::W], |size| size.code() == s.code & 0x18),
        put |v, o| o.code |= v.code(),
    }
    RmwSize: Size {
        get |s| find(&[Size::W, Size::Dw], |size| size.code() == s.code & 0x18),
        put |v, o| o.code |= v.code(),
    }
    RmwOp: AtomicOp {
        get |s| find(AtomicOp::ALL, |op| {
            s.imm == op.code() || !op.always_fetches() && s.imm == op.code() | BPF_FETCH
        }),
        put |v, o| o.imm |= v.code(),
    }
    RmwFetch: bool {
        get |s| Some(s.imm & BPF_FETCH != 0),
        put |v, o| o.imm |= if v { BPF_FETCH } else { 0 },
    }
    EndCode: EndKind {
        get |s| find(EndKind::ALL, |kind| kind.code() == s.code),
        put |v, o| o.code |= v.code(),
    }
    EndBits: u8 {
        get |s| find(&[16, 32, 64], |bits: u8| i32::from(bits) == s.imm),
        put |v, o| o.imm = v.into(),
    }
    /// A 32-bit move has 32 bits to begin with.
    SxBits: u8 {
        get |s| {
            let most = if s.class() == BPF_ALU { 16 } else { 32 };
            find(&[8, 16, 32], |bits: u8| i16::from(bits) == s.off && bits <= most)
        },
        put |v, o| o.off = v.into(),
    }
    /// Upper half of `imm`. Linux casts between address spaces 0 and 1 only.
    CastDst: u16 {
        get |s| match s.imm { 1 => Some(0), 0x1_0000 => Some(1), _ => None },
        put |v, o| o.imm |= i32::from(v.cast_signed()) << 16,
    }
    CastSrc: u16 {
        get |s| Some((s.imm & 0xffff) as u16),
        put |v, o| o.imm |= i32::from(v),
    }
    JaLong: bool {
        get |s| match s.class() { BPF_JMP => Some(false), BPF_JMP32 => Some(true), _ => None },
        put |v, o| o.code |= if v { BPF_JMP32 } else { BPF_JMP },
    }
    /// Put after [`JaLong`]. A short distance that does not fit is cut, which shows
    /// when it is read back.
    JaOff: i32 {
        get |s| Some(if s.class() == BPF_JMP32 { s.imm } else { s.off.into() }),
        put |v, o| if o.class() == BPF_JMP32 { o.imm = v } else { o.off = v as i16 },
    }
    CallTarget: CallKind {
        get |s| match s.src() {
            0 => Some(CallKind::Helper(s.imm)),
            BPF_PSEUDO_CALL => Some(CallKind::Bpf(s.imm)),
            BPF_PSEUDO_KFUNC_CALL => Some(CallKind::Kfunc { btf_id: s.imm, off: s.off }),
            _ => None,
        },
        put |v, o| match v {
            CallKind::Helper(id) => o.imm = id,
            CallKind::Bpf(rel) => {
                o.set_src(BPF_PSEUDO_CALL);
                o.imm = rel;
            }
            CallKind::Kfunc { btf_id, off } => {
                o.set_src(BPF_PSEUDO_KFUNC_CALL);
                o.imm = btf_id;
                o.off = off;
            }
        },
    }
}

/// Both immediates and the pseudo kind of a two-slot load.
pub(crate) struct WideImm;

impl Imm64 {
    /// What these two slots load; `None` where the kind is none.
    pub(crate) fn of([first, second]: [Insn; 2]) -> Option<Self> {
        Self::from_parts(first.src(), first.imm, second.imm)
    }

    /// The pseudo kind and both immediates.
    pub(crate) const fn parts(self) -> (u8, i32, i32) {
        match self {
            Self::Plain(v) => (0, v as u32 as i32, (v >> 32) as i32),
            Self::MapFd(fd) => (BPF_PSEUDO_MAP_FD, fd, 0),
            Self::MapValue { fd, off } => (BPF_PSEUDO_MAP_VALUE, fd, off.cast_signed()),
            Self::BtfId { btf_id, btf_fd } => (BPF_PSEUDO_BTF_ID, btf_id, btf_fd),
            Self::Func { rel, hi } => (BPF_PSEUDO_FUNC, rel, hi),
            Self::MapIdx(idx) => (BPF_PSEUDO_MAP_IDX, idx, 0),
            Self::MapIdxValue { idx, off } => (BPF_PSEUDO_MAP_IDX_VALUE, idx, off.cast_signed()),
        }
    }

    pub(crate) fn from_parts(src: u8, lo: i32, hi: i32) -> Option<Self> {
        let [low, high] = [lo, hi].map(|half| u64::from(half.cast_unsigned()));
        Some(match src {
            0 => Self::Plain(high << 32 | low),
            BPF_PSEUDO_MAP_FD => Self::MapFd(lo),
            BPF_PSEUDO_MAP_VALUE => Self::MapValue {
                fd: lo,
                off: hi.cast_unsigned(),
            },
            BPF_PSEUDO_BTF_ID => Self::BtfId {
                btf_id: lo,
                btf_fd: hi,
            },
            BPF_PSEUDO_FUNC => Self::Func { rel: lo, hi },
            BPF_PSEUDO_MAP_IDX => Self::MapIdx(lo),
            BPF_PSEUDO_MAP_IDX_VALUE => Self::MapIdxValue {
                idx: lo,
                off: hi.cast_unsigned(),
            },
            _ => return None,
        })
    }
}

impl Place<Imm64> for WideImm {
    fn get(slots: &Slots) -> Option<Imm64> {
        Imm64::of([slots.first, slots.second?])
    }

    fn put(value: Imm64, slots: &mut Slots) {
        let (src, lo, hi) = value.parts();
        slots.first.set_src(src);
        slots.first.imm = lo;
        slots.second = Some(Insn::new(0, 0, 0, 0, hi));
    }
}
