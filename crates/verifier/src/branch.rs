//! Conditional jumps: which way they go, and what either way tells of the operands.

use bpfsim_isa::uapi::*;

use crate::planted;
use crate::reg::{AT_PKT_END, BEYOND_PKT_END, Reg, ty};
use crate::tnum::Tnum;

/// The negation of `JSET`, which no instruction has.
const NOT_JSET: u8 = BPF_JSET | BPF_X;

/// `flip_opcode`: `a op b` as `b op a`.
fn flip(op: u8) -> u8 {
    match op {
        BPF_JGE => BPF_JLE,
        BPF_JGT => BPF_JLT,
        BPF_JLE => BPF_JGE,
        BPF_JLT => BPF_JGT,
        BPF_JSGE => BPF_JSLE,
        BPF_JSGT => BPF_JSLT,
        BPF_JSLE => BPF_JSGE,
        BPF_JSLT => BPF_JSGT,
        same => same,
    }
}

/// `rev_opcode`: what holds where `op` does not.
fn negate(op: u8) -> u8 {
    match op {
        BPF_JEQ => BPF_JNE,
        BPF_JNE => BPF_JEQ,
        BPF_JSET => NOT_JSET,
        NOT_JSET => BPF_JSET,
        BPF_JGE => BPF_JLT,
        BPF_JGT if planted::is(5) => BPF_JLT,
        BPF_JGT => BPF_JLE,
        BPF_JLE => BPF_JGT,
        BPF_JLT => BPF_JGE,
        BPF_JSGE => BPF_JSLT,
        BPF_JSGT => BPF_JSLE,
        BPF_JSLE => BPF_JSGT,
        BPF_JSLT => BPF_JSGE,
        other => other,
    }
}

/// Bounds of one width.
struct Span {
    bits: Tnum,
    umin: u64,
    umax: u64,
    smin: i64,
    smax: i64,
}

impl Span {
    fn of(reg: &Reg, is32: bool) -> Span {
        match is32 {
            true => Span {
                bits: reg.var_off.subreg(),
                umin: reg.u32min.into(),
                umax: reg.u32max.into(),
                smin: reg.s32min.into(),
                smax: reg.s32max.into(),
            },
            false => Span {
                bits: reg.var_off,
                umin: reg.umin,
                umax: reg.umax,
                smin: reg.smin,
                smax: reg.smax,
            },
        }
    }
}

/// Whether two registers may be equal, as far as ranges tell; `Some` where bits tell for sure.
fn equal(x: &Reg, y: &Reg, is32: bool) -> Option<bool> {
    let (a, b) = (Span::of(x, is32), Span::of(y, is32));
    if a.bits.is_const() && b.bits.is_const() {
        return Some(a.bits.value == b.bits.value);
    }
    let apart = !a.bits.overlaps(b.bits)
        || a.umin > b.umax
        || a.umax < b.umin
        || a.smin > b.smax
        || a.smax < b.smin;
    let apart32 =
        || x.u32min > y.u32max || x.u32max < y.u32min || x.s32min > y.s32max || x.s32max < y.s32min;
    (apart || !is32 && apart32()).then_some(false)
}

/// `is_scalar_branch_taken`
fn scalar_taken(x: &Reg, y: &Reg, op: u8, is32: bool) -> Option<bool> {
    let order = |yes: bool, no: bool| match (yes, no) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let (a, b) = (Span::of(x, is32), Span::of(y, is32));
    match op {
        BPF_JEQ => equal(x, y, is32),
        BPF_JNE => equal(x, y, is32).map(|e| !e),
        BPF_JSET => {
            let (var, known) = match (y.is_const(is32), x.is_const(is32)) {
                (true, _) => (a.bits, b.bits),
                (_, true) => (b.bits, a.bits),
                _ => return None,
            };
            order(
                !var.mask & var.value & known.value != 0,
                (var.mask | var.value) & known.value == 0,
            )
        }
        BPF_JGT => order(a.umin > b.umax, a.umax <= b.umin),
        BPF_JSGT => order(a.smin > b.smax, a.smax <= b.smin),
        BPF_JLT => order(a.umax < b.umin, a.umin >= b.umax),
        BPF_JSLT => order(a.smax < b.smin, a.smin >= b.smax),
        BPF_JGE => order(a.umin >= b.umax, a.umax < b.umin),
        BPF_JSGE => order(a.smin >= b.smax, a.smax < b.smin),
        BPF_JLE => order(a.umax <= b.umin, a.umin > b.umax),
        BPF_JSLE => order(a.smax <= b.smin, a.smin > b.smax),
        _ => None,
    }
}

/// `is_pkt_ptr_branch_taken`
fn packet_taken(dst: &Reg, src: &Reg, op: u8) -> Option<bool> {
    let (pkt, op) = match (src.ty, dst.ty) {
        (ty::PACKET_END, _) => (dst, op),
        (_, ty::PACKET_END) => (src, flip(op)),
        _ => return None,
    };
    match (op, pkt.range()) {
        (BPF_JLE | BPF_JGT, BEYOND_PKT_END) => Some(op == BPF_JGT),
        (BPF_JLT | BPF_JGE, BEYOND_PKT_END | AT_PKT_END) => Some(op == BPF_JGE),
        _ => None,
    }
}

/// `is_branch_taken`. `not_null` says whether a pointer cannot be null.
pub(crate) fn taken(
    x: &Reg,
    y: &Reg,
    op: u8,
    is32: bool,
    not_null: impl Fn(&Reg) -> bool,
) -> Option<bool> {
    if ty::is_pkt_any(x.ty) && ty::is_pkt_any(y.ty) && !is32 {
        return packet_taken(x, y, op);
    }
    if !x.is_scalar() || !y.is_scalar() {
        let (pointer, number) = match y.is_const(is32) {
            true => (x, y),
            false => (y, x),
        };
        if !number.is_const(is32) || !not_null(pointer) || number.const_value(is32) != 0 {
            return None;
        }
        return match op {
            BPF_JEQ => Some(false),
            BPF_JNE => Some(true),
            _ => None,
        };
    }
    scalar_taken(x, y, op, is32)
}

/// `regs_refine_cond_op`: what both registers are known to be where `x op y` holds.
fn refine(x: &mut Reg, y: &mut Reg, op: u8, is32: bool) {
    let (x, y, op) = match op {
        BPF_JGE | BPF_JGT | BPF_JSGE | BPF_JSGT => (y, x, flip(op)),
        _ => (x, y, op),
    };
    match op {
        BPF_JEQ => refine_eq(x, y, is32),
        BPF_JNE | BPF_JSET | NOT_JSET => {
            let (var, known) = match y.is_const(is32) {
                true => (x, y),
                false => (y, x),
            };
            if known.is_const(is32) {
                refine_by_const(var, known.const_value(is32), op, is32);
            }
        }
        BPF_JLE if is32 => {
            x.u32max = x.u32max.min(y.u32max);
            y.u32min = x.u32min.max(y.u32min);
        }
        BPF_JLE => {
            x.umax = x.umax.min(y.umax);
            y.umin = x.umin.max(y.umin);
        }
        BPF_JLT if is32 => {
            x.u32max = x.u32max.min(y.u32max.wrapping_sub(1));
            y.u32min = x.u32min.wrapping_add(1).max(y.u32min);
        }
        BPF_JLT => {
            let end = u64::from(!planted::is(4));
            x.umax = x.umax.min(y.umax.wrapping_sub(end));
            y.umin = x.umin.wrapping_add(1).max(y.umin);
        }
        BPF_JSLE if is32 => {
            x.s32max = x.s32max.min(y.s32max);
            y.s32min = x.s32min.max(y.s32min);
        }
        BPF_JSLE => {
            x.smax = x.smax.min(y.smax);
            y.smin = x.smin.max(y.smin);
        }
        BPF_JSLT if is32 => {
            let end = i32::from(!planted::is(6));
            x.s32max = x.s32max.min(y.s32max.wrapping_sub(end));
            y.s32min = x.s32min.wrapping_add(1).max(y.s32min);
        }
        BPF_JSLT => {
            x.smax = x.smax.min(y.smax.wrapping_sub(1));
            y.smin = x.smin.wrapping_add(1).max(y.smin);
        }
        _ => {}
    }
}

fn refine_eq(x: &mut Reg, y: &mut Reg, is32: bool) {
    if is32 {
        x.u32min = x.u32min.max(y.u32min);
        x.u32max = x.u32max.min(y.u32max);
        x.s32min = x.s32min.max(y.s32min);
        x.s32max = x.s32max.min(y.s32max);
        (y.u32min, y.u32max, y.s32min, y.s32max) = (x.u32min, x.u32max, x.s32min, x.s32max);
        let bits = x.var_off.subreg().intersect(y.var_off.subreg());
        x.var_off = x.var_off.with_subreg(bits);
        y.var_off = y.var_off.with_subreg(bits);
    } else {
        x.umin = x.umin.max(y.umin);
        x.umax = x.umax.min(y.umax);
        x.smin = x.smin.max(y.smin);
        x.smax = x.smax.min(y.smax);
        (y.umin, y.umax, y.smin, y.smax) = (x.umin, x.umax, x.smin, x.smax);
        x.var_off = x.var_off.intersect(y.var_off);
        y.var_off = x.var_off;
    }
}

fn refine_by_const(reg: &mut Reg, value: u64, op: u8, is32: bool) {
    match (op, is32) {
        (BPF_JNE, true) => {
            reg.u32min = reg.u32min.wrapping_add((reg.u32min == value as u32).into());
            reg.u32max = reg.u32max.wrapping_sub((reg.u32max == value as u32).into());
            reg.s32min = reg.s32min.wrapping_add((reg.s32min == value as i32).into());
            reg.s32max = reg.s32max.wrapping_sub((reg.s32max == value as i32).into());
        }
        (BPF_JNE, false) => {
            reg.umin = reg.umin.wrapping_add((reg.umin == value).into());
            reg.umax = reg.umax.wrapping_sub((reg.umax == value).into());
            reg.smin = reg.smin.wrapping_add((reg.smin == value as i64).into());
            reg.smax = reg.smax.wrapping_sub((reg.smax == value as i64).into());
        }
        (BPF_JSET, _) => {
            if !value.is_power_of_two() {
                return;
            }
            let bit = Tnum::constant(value);
            reg.var_off = match is32 {
                true => reg.var_off.with_subreg(reg.var_off.subreg().or(bit)),
                false => reg.var_off.or(bit),
            };
        }
        _ => {
            reg.unbound();
            let clear = Tnum::constant(!value);
            reg.var_off = match is32 {
                true => reg.var_off.with_subreg(reg.var_off.subreg().and(clear)),
                false => reg.var_off.and(clear),
            };
        }
    }
}

/// `reg_set_min_max` without its sanity checks: what is known on the way where `x op y` holds
/// (`yes`) and on the other (`no`).
pub(crate) fn set_min_max(yes: (&mut Reg, &mut Reg), no: (&mut Reg, &mut Reg), op: u8, is32: bool) {
    if !no.0.is_scalar() || !no.1.is_scalar() {
        return;
    }
    refine(no.0, no.1, negate(op), is32);
    no.0.sync();
    no.1.sync();
    refine(yes.0, yes.1, op, is32);
    yes.0.sync();
    yes.1.sync();
}

/// The same where both operands are one register, which is narrowed through both names.
pub(crate) fn set_min_max_same(yes: &mut Reg, no: &mut Reg, op: u8, is32: bool) {
    for (reg, op) in [(no, negate(op)), (yes, op)] {
        let mut other = *reg;
        refine(reg, &mut other, op, is32);
        reg.umin = reg.umin.max(other.umin);
        reg.umax = reg.umax.min(other.umax);
        reg.smin = reg.smin.max(other.smin);
        reg.smax = reg.smax.min(other.smax);
        reg.u32min = reg.u32min.max(other.u32min);
        reg.u32max = reg.u32max.min(other.u32max);
        reg.s32min = reg.s32min.max(other.s32min);
        reg.s32max = reg.s32max.min(other.s32max);
        reg.sync();
    }
}
