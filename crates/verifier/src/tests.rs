//! Ranges and bits held against numbers themselves: no value may fall out of what is known.

use bpfsim_isa::uapi::*;
use proptest::prelude::*;

use crate::Tnum;
use crate::arith::{byte_swap, compute};
use crate::branch::{set_min_max, taken};
use crate::reg::Reg;

/// A register that is known to lie around `value`, and that value.
fn around() -> impl Strategy<Value = (Reg, u64)> {
    let interesting = prop_oneof![
        any::<u64>(),
        0..300_u64,
        any::<i32>().prop_map(|v| i64::from(v) as u64),
        any::<u32>().prop_map(u64::from),
        Just(i64::MAX as u64),
        Just(i64::MIN as u64),
    ];
    let width = prop_oneof![0..4_u64, 0..1000_u64, any::<u64>()];
    (interesting, any::<u64>(), width, any::<bool>()).prop_map(|(value, mask, width, bits)| {
        let mut reg = Reg::UNKNOWN;
        if bits {
            reg.var_off = Tnum {
                value: value & !mask,
                mask,
            };
        } else {
            reg.umin = value.saturating_sub(width);
            reg.umax = value.saturating_add(width / 2);
        }
        reg.sync();
        (reg, value)
    })
}

fn holds(reg: &Reg, value: u64) -> bool {
    let low = value as u32;
    reg.var_off.contains(Tnum::constant(value))
        && (reg.umin..=reg.umax).contains(&value)
        && (reg.smin..=reg.smax).contains(&(value as i64))
        && (reg.u32min..=reg.u32max).contains(&low)
        && (reg.s32min..=reg.s32max).contains(&(low as i32))
}

fn run(op: u8, is32: bool, x: u64, y: u64) -> u64 {
    let bits = if is32 { 31 } else { 63 };
    let shift = (y & bits) as u32;
    let value = match op {
        BPF_ADD => x.wrapping_add(y),
        BPF_SUB => x.wrapping_sub(y),
        BPF_MUL => x.wrapping_mul(y),
        BPF_AND => x & y,
        BPF_OR => x | y,
        BPF_XOR => x ^ y,
        BPF_LSH => x << shift,
        BPF_RSH if is32 => u64::from(x as u32 >> shift),
        BPF_RSH => x >> shift,
        BPF_ARSH if is32 => (x as i32 >> shift) as u64,
        BPF_ARSH => (x as i64 >> shift) as u64,
        _ => x.wrapping_neg(),
    };
    if is32 { u64::from(value as u32) } else { value }
}

fn jumps(op: u8, is32: bool, x: u64, y: u64) -> bool {
    let (x, y) = match is32 {
        true => (x as u32 as u64, y as u32 as u64),
        false => (x, y),
    };
    let (sx, sy) = match is32 {
        true => (i64::from(x as i32), i64::from(y as i32)),
        false => (x as i64, y as i64),
    };
    match op {
        BPF_JEQ => x == y,
        BPF_JNE => x != y,
        BPF_JGT => x > y,
        BPF_JGE => x >= y,
        BPF_JLT => x < y,
        BPF_JLE => x <= y,
        BPF_JSGT => sx > sy,
        BPF_JSGE => sx >= sy,
        BPF_JSLT => sx < sy,
        BPF_JSLE => sx <= sy,
        _ => x & y != 0,
    }
}

const OPS: [u8; 10] = [
    BPF_ADD, BPF_SUB, BPF_MUL, BPF_AND, BPF_OR, BPF_XOR, BPF_LSH, BPF_RSH, BPF_ARSH, BPF_NEG,
];
const JUMPS: [u8; 11] = [
    BPF_JEQ, BPF_JNE, BPF_JGT, BPF_JGE, BPF_JLT, BPF_JLE, BPF_JSGT, BPF_JSGE, BPF_JSLT, BPF_JSLE,
    BPF_JSET,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_is_known_of_a_value_holds((reg, value) in around()) {
        prop_assert!(holds(&reg, value), "{reg:?} {value:#x}");
    }

    #[test]
    fn arithmetic_keeps_every_value(
        (x, a) in around(),
        (y, b) in around(),
        op in proptest::sample::select(&OPS[..]),
        is32 in any::<bool>(),
    ) {
        let mut reg = x;
        if compute(&mut reg, &y, op, is32) {
            let value = run(op, is32, a, b);
            prop_assert!(holds(&reg, value), "{op:#x} {x:?} {y:?}: {reg:?} {value:#x}");
        }
    }

    #[test]
    fn extension_and_truncation_keep_every_value(
        (x, a) in around(),
        size in proptest::sample::select(&[1_u32, 2, 4][..]),
    ) {
        let shift = 64 - 8 * size;
        let mut reg = x;
        reg.truncate(size);
        prop_assert!(holds(&reg, a << shift >> shift), "{x:?} {reg:?}");
        let mut reg = x;
        reg.sign_extend64(size);
        prop_assert!(holds(&reg, ((a << shift) as i64 >> shift) as u64), "{x:?} {reg:?}");
        let mut reg = x;
        byte_swap(&mut reg, 8 * size.max(2) as i32, true);
        let value = match size {
            4 => u64::from((a as u32).swap_bytes()),
            _ => u64::from((a as u16).swap_bytes()),
        };
        prop_assert!(holds(&reg, value), "{x:?} {reg:?}");
    }

    #[test]
    fn branches_go_where_values_go(
        (x, a) in around(),
        (y, b) in around(),
        op in proptest::sample::select(&JUMPS[..]),
        is32 in any::<bool>(),
    ) {
        let goes = jumps(op, is32, a, b);
        match taken(&x, &y, op, is32, |_| false) {
            Some(known) => prop_assert_eq!(known, goes),
            None => {
                let (mut yx, mut yy, mut nx, mut ny) = (x, y, x, y);
                set_min_max((&mut yx, &mut yy), (&mut nx, &mut ny), op, is32);
                let (rx, ry) = if goes { (yx, yy) } else { (nx, ny) };
                prop_assert!(holds(&rx, a), "{op:#x} {goes} {x:?} {y:?}: {rx:?} {a:#x}");
                prop_assert!(holds(&ry, b), "{op:#x} {goes} {x:?} {y:?}: {ry:?} {b:#x}");
            }
        }
    }
}

proptest! {
    #[test]
    fn the_next_number_of_a_tnum(mask in 0..256_u64, value: u8, z in 0..300_u64) {
        let bits = Tnum { value: u64::from(value) & !mask, mask };
        let is = |n: &u64| n & !mask == bits.value;
        let next = (z + 1..=255).find(is).unwrap_or(bits.value | mask);
        prop_assert_eq!(bits.above(z), next);
    }
}
