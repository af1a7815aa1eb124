//! Arithmetic and comparisons of BPF, for 64-bit and 32-bit operands.

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
