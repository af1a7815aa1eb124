//! What is known of a register (`struct bpf_reg_state`).

use crate::tnum::Tnum;

/// Register types: `enum bpf_reg_type`, a base in the low byte, flags of `enum bpf_type_flag` above.
#[allow(missing_docs)]
pub(crate) mod ty {
    pub const NOT_INIT: u32 = 0;
    pub const SCALAR: u32 = 1;
    pub const CTX: u32 = 2;
    pub const MAP_PTR: u32 = 3;
    pub const MAP_VALUE: u32 = 4;
    pub const MAP_KEY: u32 = 5;
    pub const STACK: u32 = 6;
    pub const PACKET_META: u32 = 7;
    pub const PACKET: u32 = 8;
    pub const PACKET_END: u32 = 9;
    pub const FLOW_KEYS: u32 = 10;
    pub const SOCKET: u32 = 11;
    pub const SOCK_COMMON: u32 = 12;
    pub const TCP_SOCK: u32 = 13;
    pub const TP_BUFFER: u32 = 14;
    pub const XDP_SOCK: u32 = 15;
    pub const BTF_ID: u32 = 16;
    pub const MEM: u32 = 17;
    pub const ARENA: u32 = 18;
    pub const BUF: u32 = 19;
    pub const FUNC: u32 = 20;
    pub const DYNPTR: u32 = 21;

    pub const BASE: u32 = 0xff;
    pub const MAYBE_NULL: u32 = 1 << 8;
    pub const RDONLY: u32 = 1 << 9;
    pub const RINGBUF: u32 = 1 << 10;
    pub const USER: u32 = 1 << 11;
    pub const PERCPU: u32 = 1 << 12;
    pub const RELEASE: u32 = 1 << 13;
    pub const UNTRUSTED: u32 = 1 << 14;
    pub const UNINIT: u32 = 1 << 15;
    pub const DYN_LOCAL: u32 = 1 << 16;
    pub const DYN_RINGBUF: u32 = 1 << 17;
    pub const ALLOC: u32 = 1 << 19;
    pub const TRUSTED: u32 = 1 << 20;
    pub const RCU: u32 = 1 << 21;
    pub const NON_OWN: u32 = 1 << 22;
    pub const DYN_SKB: u32 = 1 << 23;
    pub const DYN_XDP: u32 = 1 << 24;
    pub const DYN_SKB_META: u32 = 1 << 27;
    pub const DYN_MASK: u32 = DYN_LOCAL | DYN_RINGBUF | DYN_SKB | DYN_XDP | DYN_SKB_META;
    /// `BPF_REG_TRUSTED_MODIFIERS`
    pub const TRUST_MASK: u32 = ALLOC | TRUSTED | NON_OWN;

    pub const fn base(t: u32) -> u32 {
        t & BASE
    }
    /// A pointer that may lead nowhere, and that loads go through all the same
    /// (`convert_ctx_accesses`).
    pub const fn is_probed(t: u32) -> bool {
        t == BTF_ID
            || t == BTF_ID | UNTRUSTED
            || t == BTF_ID | ALLOC | UNTRUSTED
            || t == MEM | RDONLY | UNTRUSTED
    }
    pub const fn maybe_null(t: u32) -> bool {
        t & MAYBE_NULL != 0
    }
    pub const fn is_pkt(t: u32) -> bool {
        t == PACKET || t == PACKET_META
    }
    pub const fn is_pkt_any(t: u32) -> bool {
        is_pkt(t) || t == PACKET_END
    }
    pub const fn is_sk(t: u32) -> bool {
        matches!(t, SOCKET | SOCK_COMMON | TCP_SOCK | XDP_SOCK)
    }
    pub const fn is_alloc(t: u32) -> bool {
        t & ALLOC != 0
    }
    /// `type_is_ptr_alloc_obj`
    pub const fn is_alloc_obj(t: u32) -> bool {
        base(t) == BTF_ID && is_alloc(t)
    }
    pub const fn is_non_own(t: u32) -> bool {
        is_alloc_obj(t) && t & NON_OWN != 0
    }
    /// `bpf_type_has_unsafe_modifiers`
    pub const fn unsafe_flags(t: u32) -> bool {
        (t & !BASE) & !TRUST_MASK != 0
    }
    pub const fn is_map_ptr(t: u32) -> bool {
        matches!(base(t), MAP_PTR | MAP_KEY | MAP_VALUE)
    }
    /// `is_spillable_regtype`
    pub const fn spillable(t: u32) -> bool {
        !matches!(base(t), NOT_INIT | SCALAR | TP_BUFFER | DYNPTR)
    }
}

/// `BPF_ADD_CONST64`: the id is that of a register that this one lies a constant above.
pub(crate) const ADD_CONST64: u32 = 1 << 31;
/// `BPF_ADD_CONST32`: the same by arithmetic of 32 bits.
pub(crate) const ADD_CONST32: u32 = 1 << 30;
/// `BPF_ADD_CONST`: either.
pub(crate) const ADD_CONST: u32 = ADD_CONST32 | ADD_CONST64;

/// Which BTF a [`ty::BTF_ID`] register's type is in.
pub(crate) const BTF_KERNEL: u32 = 1;
/// The program's own.
pub(crate) const BTF_PROG: u32 = 2;

/// A packet pointer that is at the packet's end, `AT_PKT_END`.
pub(crate) const AT_PKT_END: i32 = -1;
/// A packet pointer that is beyond the packet's end, `BEYOND_PKT_END`.
pub(crate) const BEYOND_PKT_END: i32 = -2;

/// State of an iterator on the stack.
pub(crate) const ITER_ACTIVE: u32 = 1;
/// It has given its last element.
pub(crate) const ITER_DRAINED: u32 = 2;

/// What is known of a register, or of an eight-byte slot of the stack.
///
/// `a` and `b` depend on the type, as the kernel's union does:
///
/// | type | a | b |
/// |---|---|---|
/// | packet | range | |
/// | map pointer, value, key | map's number plus one | map uid |
/// | `PTR_TO_BTF_ID` | [`BTF_KERNEL`] or [`BTF_PROG`] | type id |
/// | memory | size | dynptr id |
/// | function | subprogram | |
/// | dynptr | kind | whether first slot |
/// | iterator slot | type id | state and depth |
/// | irq flag slot | class | |
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Reg {
    pub ty: u32,
    pub off: i32,
    pub a: u32,
    pub b: u32,
    pub var_off: Tnum,
    pub smin: i64,
    pub smax: i64,
    pub umin: u64,
    pub umax: u64,
    pub s32min: i32,
    pub s32max: i32,
    pub u32min: u32,
    pub u32max: u32,
    pub id: u32,
    pub ref_obj_id: u32,
    pub frameno: u8,
    pub precise: bool,
}

impl Default for Reg {
    fn default() -> Self {
        Reg::NOT_INIT
    }
}

impl Reg {
    /// Nothing known of a number.
    pub const UNKNOWN: Reg = Reg {
        ty: ty::SCALAR,
        off: 0,
        a: 0,
        b: 0,
        var_off: Tnum::UNKNOWN,
        smin: i64::MIN,
        smax: i64::MAX,
        umin: 0,
        umax: u64::MAX,
        s32min: i32::MIN,
        s32max: i32::MAX,
        u32min: 0,
        u32max: u32::MAX,
        id: 0,
        ref_obj_id: 0,
        frameno: 0,
        precise: false,
    };
    /// Never written.
    pub const NOT_INIT: Reg = Reg {
        ty: ty::NOT_INIT,
        ..Reg::UNKNOWN
    };

    /// A number that is known.
    pub const fn constant(value: u64) -> Reg {
        let mut reg = Reg::UNKNOWN;
        reg.set_value(value);
        reg
    }

    /// A pointer of this type, unmoved.
    pub const fn pointer(ty: u32) -> Reg {
        let mut reg = Reg::constant(0);
        reg.ty = ty;
        reg
    }

    /// `___mark_reg_known`: bounds and bits say `value`.
    pub const fn set_value(&mut self, value: u64) {
        self.var_off = Tnum::constant(value);
        self.smin = value as i64;
        self.smax = value as i64;
        self.umin = value;
        self.umax = value;
        self.s32min = value as i32;
        self.s32max = value as i32;
        self.u32min = value as u32;
        self.u32max = value as u32;
    }

    /// `__mark_reg32_known`
    pub const fn set_value32(&mut self, value: u32) {
        self.var_off = self.var_off.const_subreg(value);
        self.s32min = value as i32;
        self.s32max = value as i32;
        self.u32min = value;
        self.u32max = value;
    }

    /// `__mark_reg_known`: forgets what else was known, but for type, frame and precision.
    pub const fn mark_known(&mut self, value: u64) {
        self.off = 0;
        self.a = 0;
        self.b = 0;
        self.id = 0;
        self.ref_obj_id = 0;
        self.set_value(value);
    }

    pub const fn base(&self) -> u32 {
        ty::base(self.ty)
    }
    pub const fn is_scalar(&self) -> bool {
        self.ty == ty::SCALAR
    }
    /// `register_is_null`
    pub const fn is_null(&self) -> bool {
        self.is_scalar() && self.var_off.equals(0)
    }
    /// `is_reg_const`
    pub const fn is_const(&self, subreg: bool) -> bool {
        self.is_scalar()
            && if subreg {
                self.var_off.subreg_is_const()
            } else {
                self.var_off.is_const()
            }
    }
    /// `reg_const_value`
    pub const fn const_value(&self, subreg: bool) -> u64 {
        if subreg {
            self.var_off.value as u32 as u64
        } else {
            self.var_off.value
        }
    }
    pub const fn range(&self) -> i32 {
        self.a as i32
    }
    /// Number of its map.
    pub const fn map(&self) -> Option<usize> {
        match self.a {
            0 => None,
            n => Some(n as usize - 1),
        }
    }
    pub const fn mem_size(&self) -> u32 {
        self.a
    }
    pub const fn dynptr_id(&self) -> u32 {
        self.b
    }
    pub const fn iter_state(&self) -> u32 {
        self.b & 3
    }
    pub const fn iter_depth(&self) -> u32 {
        self.b >> 2
    }
    pub const fn set_iter(&mut self, state: u32, depth: u32) {
        self.b = depth << 2 | state & 3;
    }
    /// `reg->off + reg->var_off.value`, as the kernel's `int`.
    pub const fn fixed_off(&self) -> i32 {
        self.off.wrapping_add(self.var_off.value as i32)
    }
    /// `get_reg_width`
    pub const fn width(&self) -> u32 {
        64 - self.umax.leading_zeros()
    }
    /// The part up to `id`, which pruning compares byte by byte.
    pub fn same_up_to_id(&self, other: &Reg) -> bool {
        self.same_up_to_var_off(other)
            && self.var_off == other.var_off
            && self.smin == other.smin
            && self.smax == other.smax
            && self.umin == other.umin
            && self.umax == other.umax
            && self.s32min == other.s32min
            && self.s32max == other.s32max
            && self.u32min == other.u32min
            && self.u32max == other.u32max
    }
    /// The part up to `var_off`.
    pub fn same_up_to_var_off(&self, other: &Reg) -> bool {
        self.ty == other.ty && self.off == other.off && self.a == other.a && self.b == other.b
    }
    /// The part up to `frameno`.
    pub fn same_up_to_frameno(&self, other: &Reg) -> bool {
        self.same_up_to_id(other) && self.id == other.id && self.ref_obj_id == other.ref_obj_id
    }
}
