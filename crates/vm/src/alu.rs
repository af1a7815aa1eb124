//! Arithmetic and comparisons of BPF, for 64-bit and 32-bit operands.

/// What [`divided`] wants of a divisor, which is not 0.
pub(crate) fn reciprocal(d: u32) -> u64 {
    u64::MAX / d as u64
}

/// Quotient and remainder by a divisor whose [`reciprocal`] is known, without the processor's
/// divider, which takes several times as long.
///
/// With `m` the reciprocal, `2^64 = m * d + e` where `1 <= e <= d`, so that `a * m / 2^64` is less
/// than 1 below `a / d`: what is cut off it is the quotient or one less.
#[inline(always)]
pub(crate) fn divided(a: u64, d: u32, m: u64) -> (u64, u64) {
    let (d, q) = (d as u64, ((a as u128 * m as u128) >> 64) as u64);
    let rest = a.wrapping_sub(q.wrapping_mul(d));
    match rest >= d {
        true => (q + 1, rest - d),
        false => (q, rest),
    }
}

macro_rules! word {
    ($name:ident, $u:ty, $s:ty) => {
        pub(crate) mod $name {
            const MASK: $u = <$u>::BITS as $u - 1;
            pub fn add(a: $u, b: $u) -> $u {
                a.wrapping_add(b)
            }
            pub fn sub(a: $u, b: $u) -> $u {
                a.wrapping_sub(b)
            }
            pub fn mul(a: $u, b: $u) -> $u {
                a.wrapping_mul(b)
            }
            /// Division by zero gives 0.
            pub fn div(a: $u, b: $u) -> $u {
                a.checked_div(b).unwrap_or(0)
            }
            /// Division by zero gives 0; the smallest number by -1 gives itself.
            pub fn sdiv(a: $u, b: $u) -> $u {
                if b == 0 {
                    0
                } else {
                    (a as $s).wrapping_div(b as $s) as $u
                }
            }
            pub fn or(a: $u, b: $u) -> $u {
                a | b
            }
            pub fn and(a: $u, b: $u) -> $u {
                a & b
            }
            pub fn lsh(a: $u, b: $u) -> $u {
                a << (b & MASK)
            }
            pub fn rsh(a: $u, b: $u) -> $u {
                a >> (b & MASK)
            }
            /// Modulo zero leaves the dividend.
            pub fn rem(a: $u, b: $u) -> $u {
                a.checked_rem(b).unwrap_or(a)
            }
            /// Modulo zero leaves the dividend; modulo -1 is 0.
            pub fn srem(a: $u, b: $u) -> $u {
                if b == 0 {
                    a
                } else {
                    (a as $s).wrapping_rem(b as $s) as $u
                }
            }
            pub fn xor(a: $u, b: $u) -> $u {
                a ^ b
            }
            pub fn mov(_: $u, b: $u) -> $u {
                b
            }
            pub fn arsh(a: $u, b: $u) -> $u {
                ((a as $s) >> (b & MASK)) as $u
            }

            pub fn eq(a: $u, b: $u) -> bool {
                a == b
            }
            pub fn ne(a: $u, b: $u) -> bool {
                a != b
            }
            pub fn gt(a: $u, b: $u) -> bool {
                a > b
            }
            pub fn ge(a: $u, b: $u) -> bool {
                a >= b
            }
            pub fn lt(a: $u, b: $u) -> bool {
                a < b
            }
            pub fn le(a: $u, b: $u) -> bool {
                a <= b
            }
            pub fn sgt(a: $u, b: $u) -> bool {
                a as $s > b as $s
            }
            pub fn sge(a: $u, b: $u) -> bool {
                a as $s >= b as $s
            }
            pub fn slt(a: $u, b: $u) -> bool {
                (a as $s) < b as $s
            }
            pub fn sle(a: $u, b: $u) -> bool {
                a as $s <= b as $s
            }
            pub fn set(a: $u, b: $u) -> bool {
                a & b != 0
            }
        }
    };
}

word!(w64, u64, i64);
word!(w32, u32, i32);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn divisions_by_reciprocals_are_divisions(
            a in any::<u64>(), small in 0_u64..1 << 33, d in 1_u32.., of_few in 1_u32..1 << 10,
        ) {
            for d in [d, of_few, 1, 1 << 31, u32::MAX] {
                let m = reciprocal(d);
                let edge = a / d as u64 * d as u64;
                let some = [a, small, edge, edge.wrapping_sub(1), 0, 1, d as u64, u64::MAX];
                for a in some {
                    prop_assert_eq!(divided(a, d, m), (a / d as u64, a % d as u64), "{} {}", a, d);
                }
            }
        }
    }
}
