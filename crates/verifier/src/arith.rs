//! What arithmetic does to ranges and bits (`adjust_scalar_min_max_vals`).

use bpfsim_isa::uapi::*;

use crate::planted;
use crate::reg::Reg;

/// `min..=max` of a sum of ranges; all there is where it may wrap.
macro_rules! signed_sum {
    ($op:ident, $min:expr, $max:expr, $smin:expr, $smax:expr, $ty:ty) => {
        match ($min.$op($smin), $max.$op($smax)) {
            (Some(min), Some(max)) => (min, max),
            _ => (<$ty>::MIN, <$ty>::MAX),
        }
    };
}

/// `scalar32_min_max_add` and `scalar_min_max_add`.
pub(crate) fn add(dst: &mut Reg, src: &Reg) {
    (dst.s32min, dst.s32max) = signed_sum!(
        checked_add,
        dst.s32min,
        dst.s32max,
        src.s32min,
        src.s32max,
        i32
    );
    let (min, min_wraps) = dst.u32min.overflowing_add(src.u32min);
    let (max, max_wraps) = dst.u32max.overflowing_add(src.u32max);
    (dst.u32min, dst.u32max) = match !min_wraps && max_wraps {
        true => (0, u32::MAX),
        false => (min, max),
    };
    (dst.smin, dst.smax) = signed_sum!(checked_add, dst.smin, dst.smax, src.smin, src.smax, i64);
    let (min, min_wraps) = dst.umin.overflowing_add(src.umin);
    let (max, max_wraps) = dst.umax.overflowing_add(src.umax);
    (dst.umin, dst.umax) = match !min_wraps && max_wraps && !planted::is(2) {
        true => (0, u64::MAX),
        false => (min, max),
    };
}

/// `scalar32_min_max_sub` and `scalar_min_max_sub`.
pub(crate) fn sub(dst: &mut Reg, src: &Reg) {
    (dst.s32min, dst.s32max) = signed_sum!(
        checked_sub,
        dst.s32min,
        dst.s32max,
        src.s32max,
        src.s32min,
        i32
    );
    let (min, min_wraps) = dst.u32min.overflowing_sub(src.u32max);
    let (max, max_wraps) = dst.u32max.overflowing_sub(src.u32min);
    (dst.u32min, dst.u32max) = match min_wraps && !max_wraps {
        true => (0, u32::MAX),
        false => (min, max),
    };
    (dst.smin, dst.smax) = signed_sum!(checked_sub, dst.smin, dst.smax, src.smax, src.smin, i64);
    let most = if planted::is(3) { src.umin } else { src.umax };
    let (min, min_wraps) = dst.umin.overflowing_sub(most);
    let (max, max_wraps) = dst.umax.overflowing_sub(src.umin);
    (dst.umin, dst.umax) = match min_wraps && !max_wraps {
        true => (0, u64::MAX),
        false => (min, max),
    };
}

fn neg(dst: &mut Reg) {
    let old = *dst;
    dst.mark_known(0);
    sub(dst, &old);
    dst.var_off = old.var_off.neg();
}

macro_rules! product {
    ($dst:expr, $src:expr, $umin:ident, $umax:ident, $smin:ident, $smax:ident, $u:ty, $s:ty) => {
        let umax = $dst.$umax.checked_mul($src.$umax);
        let umin = $dst.$umin.checked_mul($src.$umin);
        ($dst.$umin, $dst.$umax) = match (umin, umax) {
            (Some(min), Some(max)) => (min, max),
            _ => (0, <$u>::MAX),
        };
        let corners = [
            $dst.$smin.checked_mul($src.$smin),
            $dst.$smin.checked_mul($src.$smax),
            $dst.$smax.checked_mul($src.$smin),
            $dst.$smax.checked_mul($src.$smax),
        ];
        ($dst.$smin, $dst.$smax) = match corners {
            [Some(a), Some(b), Some(c), Some(d)] => {
                (a.min(b).min(c).min(d), a.max(b).max(c).max(d))
            }
            _ => (<$s>::MIN, <$s>::MAX),
        };
    };
}

fn mul(dst: &mut Reg, src: &Reg) {
    dst.var_off = dst.var_off.mul(src.var_off);
    product!(dst, src, u32min, u32max, s32min, s32max, u32, i32);
    product!(dst, src, umin, umax, smin, smax, u64, i64);
}

/// Signed bounds where the unsigned ones do not cross the sign, else none.
fn signed_from_unsigned32(reg: &mut Reg) {
    let (min, max) = (reg.u32min as i32, reg.u32max as i32);
    (reg.s32min, reg.s32max) = match min <= max {
        true => (min, max),
        false => (i32::MIN, i32::MAX),
    };
}

fn signed_from_unsigned64(reg: &mut Reg) {
    let (min, max) = (reg.umin as i64, reg.umax as i64);
    (reg.smin, reg.smax) = match min <= max {
        true => (min, max),
        false => (i64::MIN, i64::MAX),
    };
}

/// `and`, `or`, `xor`: bits first, then bounds from them.
fn bitwise(dst: &mut Reg, src: &Reg, op: u8) {
    let bits = match op {
        BPF_AND => dst.var_off.and(src.var_off),
        BPF_OR => dst.var_off.or(src.var_off),
        _ => dst.var_off.xor(src.var_off),
    };
    // The kernel looks at the new bits of the destination to tell whether it is known.
    dst.var_off = bits;
    if src.var_off.subreg_is_const() && bits.subreg_is_const() {
        let value = bits.value as u32;
        (dst.s32min, dst.s32max) = (value as i32, value as i32);
        (dst.u32min, dst.u32max) = (value, value);
    } else {
        let (least, most) = (bits.value as u32, (bits.value | bits.mask) as u32);
        (dst.u32min, dst.u32max) = match op {
            BPF_AND => (least, dst.u32max.min(src.u32max)),
            BPF_OR => (dst.u32min.max(src.u32min), most),
            _ => (least, most),
        };
        signed_from_unsigned32(dst);
    }
    if src.var_off.is_const() && bits.is_const() {
        let (off, a, b) = (0, 0, 0);
        (dst.off, dst.a, dst.b, dst.id, dst.ref_obj_id) = (off, a, b, 0, 0);
        dst.set_value(bits.value);
        return;
    }
    (dst.umin, dst.umax) = match op {
        BPF_AND => (bits.value, dst.umax.min(src.umax)),
        BPF_OR => (dst.umin.max(src.umin), bits.value | bits.mask),
        _ => (bits.value, bits.value | bits.mask),
    };
    signed_from_unsigned64(dst);
    dst.bounds_from_bits();
}

fn lsh32_bounds(dst: &mut Reg, min: u64, max: u64) {
    (dst.s32min, dst.s32max) = (i32::MIN, i32::MAX);
    if max > 31 || u64::from(dst.u32max) > 1u64 << (31 - max) {
        (dst.u32min, dst.u32max) = (0, u32::MAX);
    } else {
        dst.u32min = dst.u32min.wrapping_shl(min as u32);
        dst.u32max = dst.u32max.wrapping_shl(max as u32);
    }
}

/// Shifts are by a known number below the width; anything else has been given up before.
fn lsh(dst: &mut Reg, src: &Reg, is32: bool) {
    if is32 {
        let shift = u64::from(src.u32min);
        let low = dst.var_off.subreg();
        lsh32_bounds(dst, shift, u64::from(src.u32max));
        dst.var_off = low.lshift(shift as u8).subreg();
        dst.unbound64();
        dst.bounds32_from_bits();
        return;
    }
    let (min, max) = (src.umin, src.umax);
    let by32 = min == 32 && max == 32;
    dst.smax = match by32 {
        true => i64::from(dst.s32max) << 32,
        false => i64::MAX,
    };
    dst.smin = match by32 {
        true => i64::from(dst.s32min) << 32,
        false => i64::MIN,
    };
    if dst.umax > 1u64 << (63 - (max & 63)) {
        (dst.umin, dst.umax) = (0, u64::MAX);
    } else {
        dst.umin <<= min & 63;
        dst.umax <<= max & 63;
    }
    lsh32_bounds(dst, min, max);
    dst.var_off = dst.var_off.lshift(min as u8);
    dst.bounds_from_bits();
}

fn rsh(dst: &mut Reg, src: &Reg, is32: bool) {
    if is32 {
        (dst.s32min, dst.s32max) = (i32::MIN, i32::MAX);
        dst.var_off = dst.var_off.subreg().rshift(src.u32min as u8);
        dst.u32min = dst.u32min.wrapping_shr(src.u32max);
        dst.u32max = dst.u32max.wrapping_shr(src.u32min);
        dst.unbound64();
        dst.bounds32_from_bits();
        return;
    }
    (dst.smin, dst.smax) = (i64::MIN, i64::MAX);
    dst.var_off = dst.var_off.rshift(src.umin as u8);
    dst.umin = dst.umin.wrapping_shr(src.umax as u32);
    dst.umax = dst.umax.wrapping_shr(src.umin as u32);
    dst.unbound32();
    dst.bounds_from_bits();
}

fn arsh(dst: &mut Reg, src: &Reg, is32: bool) {
    if is32 {
        let shift = src.u32min;
        dst.s32min = dst.s32min.wrapping_shr(shift);
        dst.s32max = dst.s32max.wrapping_shr(shift);
        dst.var_off = dst.var_off.subreg().arshift(shift as u8, 32);
        (dst.u32min, dst.u32max) = (0, u32::MAX);
        dst.unbound64();
        dst.bounds32_from_bits();
        return;
    }
    let shift = src.umin;
    dst.smin = dst.smin.wrapping_shr(shift as u32);
    dst.smax = dst.smax.wrapping_shr(shift as u32);
    dst.var_off = match planted::is(1) {
        true => dst.var_off.rshift(shift as u8),
        false => dst.var_off.arshift(shift as u8, 64),
    };
    (dst.umin, dst.umax) = (0, u64::MAX);
    dst.unbound32();
    dst.bounds_from_bits();
}

/// `is_safe_to_compute_dst_reg_range`
fn computable(op: u8, is32: bool, src: &Reg) -> bool {
    match op {
        BPF_ADD | BPF_SUB | BPF_NEG | BPF_AND | BPF_XOR | BPF_OR | BPF_MUL => true,
        BPF_LSH | BPF_RSH | BPF_ARSH => {
            let known = match is32 {
                true => {
                    src.var_off.subreg_is_const()
                        && src.s32min == src.s32max
                        && src.u32min == src.u32max
                }
                false => src.var_off.is_const() && src.smin == src.smax && src.umin == src.umax,
            };
            known && src.umax < if is32 { 32 } else { 64 }
        }
        _ => false,
    }
}

/// `adjust_scalar_min_max_vals`: `dst = dst op src`; false where nothing is known of the result
/// and `dst` is to be marked unknown.
#[must_use]
pub(crate) fn compute(dst: &mut Reg, src: &Reg, op: u8, is32: bool) -> bool {
    if !computable(op, is32, src) {
        return false;
    }
    match op {
        BPF_ADD if planted::is(0) => {
            add(dst, src);
            dst.var_off = dst.var_off.xor(src.var_off);
        }
        BPF_ADD => {
            add(dst, src);
            dst.var_off = dst.var_off.add(src.var_off);
        }
        BPF_SUB => {
            sub(dst, src);
            dst.var_off = dst.var_off.sub(src.var_off);
        }
        BPF_NEG => neg(dst),
        BPF_MUL => mul(dst, src),
        BPF_AND | BPF_OR | BPF_XOR => bitwise(dst, src, op),
        BPF_LSH => lsh(dst, src, is32),
        BPF_RSH => rsh(dst, src, is32),
        _ => arsh(dst, src, is32),
    }
    if is32 && !planted::is(8) {
        dst.zext32();
    }
    dst.sync();
    true
}

/// `scalar_byte_swap`: `dst` with its low `bits` bits, swapped or not.
pub(crate) fn byte_swap(dst: &mut Reg, bits: i32, swap: bool) {
    if swap {
        let f = |v: u64| match bits {
            16 => u64::from((v as u16).swap_bytes()),
            32 => u64::from((v as u32).swap_bytes()),
            _ => v.swap_bytes(),
        };
        dst.var_off = crate::Tnum {
            value: f(dst.var_off.value),
            mask: f(dst.var_off.mask),
        };
        dst.unbound();
    }
    if bits != 64 {
        dst.truncate(bits as u32 / 8);
    }
    dst.sync();
    if swap || bits != 64 {
        dst.id = 0;
        dst.off = 0;
    }
}
