//! Tristate numbers: of each bit, whether it is 0, 1 or unknown (`struct tnum`).

use std::fmt;

/// Bits that are known (`value`) and bits that are not (`mask`); no bit is set in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tnum {
    /// Known bits; 0 where unknown.
    pub value: u64,
    /// 1 where unknown.
    pub mask: u64,
}

/// A tnum of these bits.
pub(crate) const fn tnum(value: u64, mask: u64) -> Tnum {
    Tnum { value, mask }
}

impl Tnum {
    /// Nothing known.
    pub const UNKNOWN: Tnum = tnum(0, u64::MAX);
    /// Zero.
    pub const ZERO: Tnum = tnum(0, 0);

    /// One value.
    pub const fn constant(value: u64) -> Tnum {
        tnum(value, 0)
    }

    /// The smallest tnum that holds every value of `min..=max`.
    pub const fn range(min: u64, max: u64) -> Tnum {
        let differing = min ^ max;
        let bits = 64 - differing.leading_zeros();
        if bits > 63 {
            return Tnum::UNKNOWN;
        }
        let delta = (1u64 << bits) - 1;
        tnum(min & !delta, delta)
    }

    /// The least number above `z` that this may be; the greatest of all where none is (`tnum_step`).
    pub const fn above(self, z: u64) -> u64 {
        let Tnum { value, mask } = self;
        let max = value | mask;
        if z >= max {
            return max;
        }
        if z < value {
            return value;
        }
        // The highest bit in which `z` is none of these numbers, and those below.
        let off = z & !mask ^ value;
        let low = match off {
            0 => 0,
            off => u64::MAX >> off.leading_zeros(),
        };
        let free = mask & !low;
        if z & off & (low ^ low >> 1) < off & (low ^ low >> 1) {
            // It has a 0 there: what is free below is least.
            return z & free | value;
        }
        ((z | !free).wrapping_add(1) & free) | value
    }

    /// Whether every bit is known.
    pub const fn is_const(self) -> bool {
        self.mask == 0
    }

    /// Whether it is this value and no other.
    pub const fn equals(self, value: u64) -> bool {
        self.mask == 0 && self.value == value
    }

    /// Whether no bit is known.
    pub const fn is_unknown(self) -> bool {
        self.mask == u64::MAX
    }

    /// Whether the lower half's bits are all known.
    pub const fn subreg_is_const(self) -> bool {
        self.mask as u32 == 0
    }

    /// Shifted left.
    #[must_use]
    pub const fn lshift(self, shift: u8) -> Tnum {
        tnum(self.value << (shift & 63), self.mask << (shift & 63))
    }

    /// Shifted right, zeros coming in.
    #[must_use]
    pub const fn rshift(self, shift: u8) -> Tnum {
        tnum(self.value >> (shift & 63), self.mask >> (shift & 63))
    }

    /// Shifted right, the sign coming in; `bits` is 32 or 64.
    #[must_use]
    pub const fn arshift(self, shift: u8, bits: u8) -> Tnum {
        if bits == 32 {
            let shift = shift & 31;
            let value = (self.value as i32 >> shift) as u32;
            let mask = (self.mask as i32 >> shift) as u32;
            tnum(value as u64, mask as u64)
        } else {
            let shift = shift & 63;
            tnum(
                (self.value as i64 >> shift) as u64,
                (self.mask as i64 >> shift) as u64,
            )
        }
    }

    /// Sum.
    #[must_use]
    pub const fn add(self, other: Tnum) -> Tnum {
        let masks = self.mask.wrapping_add(other.mask);
        let values = self.value.wrapping_add(other.value);
        let carries = masks.wrapping_add(values) ^ values;
        let mask = carries | self.mask | other.mask;
        tnum(values & !mask, mask)
    }

    /// Difference.
    #[must_use]
    pub const fn sub(self, other: Tnum) -> Tnum {
        let diff = self.value.wrapping_sub(other.value);
        let most = diff.wrapping_add(self.mask);
        let least = diff.wrapping_sub(other.mask);
        let mask = (most ^ least) | self.mask | other.mask;
        tnum(diff & !mask, mask)
    }

    /// Negation.
    #[must_use]
    pub const fn neg(self) -> Tnum {
        Tnum::ZERO.sub(self)
    }

    /// Bits of both.
    #[must_use]
    pub const fn and(self, other: Tnum) -> Tnum {
        let maybe = (self.value | self.mask) & (other.value | other.mask);
        let sure = self.value & other.value;
        tnum(sure, maybe & !sure)
    }

    /// Bits of either.
    #[must_use]
    pub const fn or(self, other: Tnum) -> Tnum {
        let sure = self.value | other.value;
        tnum(sure, (self.mask | other.mask) & !sure)
    }

    /// Bits of one but not of both.
    #[must_use]
    pub const fn xor(self, other: Tnum) -> Tnum {
        let mask = self.mask | other.mask;
        tnum((self.value ^ other.value) & !mask, mask)
    }

    /// What either may be.
    #[must_use]
    pub const fn union(self, other: Tnum) -> Tnum {
        let mask = self.mask | other.mask | (self.value ^ other.value);
        tnum(self.value & !mask, mask)
    }

    /// Product: long multiplication bit by bit of `self`; where a bit of it is unknown, the
    /// sums with and without the addend are joined.
    #[must_use]
    pub const fn mul(self, other: Tnum) -> Tnum {
        let (mut a, mut b) = (self, other);
        let mut acc = Tnum::ZERO;
        while a.value != 0 || a.mask != 0 {
            if a.value & 1 != 0 {
                acc = acc.add(b);
            } else if a.mask & 1 != 0 {
                acc = acc.union(acc.add(b));
            }
            a = a.rshift(1);
            b = b.lshift(1);
        }
        acc
    }

    /// What both say; where they contradict each other the result says either.
    #[must_use]
    pub const fn intersect(self, other: Tnum) -> Tnum {
        let mask = self.mask & other.mask;
        tnum((self.value | other.value) & !mask, mask)
    }

    /// Whether some value is in both.
    pub const fn overlaps(self, other: Tnum) -> bool {
        (self.value ^ other.value) & !(self.mask | other.mask) == 0
    }

    /// The lowest `size` bytes; others zero.
    #[must_use]
    pub const fn cast(self, size: u32) -> Tnum {
        if size >= 8 {
            return self;
        }
        let keep = (1u64 << (size * 8)) - 1;
        tnum(self.value & keep, self.mask & keep)
    }

    /// Whether every value is a multiple of `size`, a power of two.
    pub const fn is_aligned(self, size: u64) -> bool {
        size == 0 || (self.value | self.mask) & (size - 1) == 0
    }

    /// Whether every value of `other` is one of this.
    pub const fn contains(self, other: Tnum) -> bool {
        if other.mask & !self.mask != 0 {
            return false;
        }
        self.value == other.value & !self.mask
    }

    /// The lower half; the upper zero.
    #[must_use]
    pub const fn subreg(self) -> Tnum {
        self.cast(4)
    }

    /// The upper half; the lower zero.
    #[must_use]
    pub const fn clear_subreg(self) -> Tnum {
        self.rshift(32).lshift(32)
    }

    /// The upper half of this and the lower half of `subreg`.
    #[must_use]
    pub const fn with_subreg(self, subreg: Tnum) -> Tnum {
        self.clear_subreg().or(subreg.subreg())
    }

    /// The upper half of this and the lower half of a number.
    #[must_use]
    pub const fn const_subreg(self, value: u32) -> Tnum {
        self.with_subreg(Tnum::constant(value as u64))
    }
}

impl fmt::Display for Tnum {
    /// As the verifier's log has it: `(0x0; 0xff)`, or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mask, self.value) {
            (0, value) if value <= u64::from(u16::MAX) => write!(f, "{value}"),
            (0, value) => write!(f, "{value:#x}"),
            (mask, value) => write!(f, "({value:#x}; {mask:#x})"),
        }
    }
}
