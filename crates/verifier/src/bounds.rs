//! Ranges: how unsigned and signed, 64 and 32 bits and known bits tell of one another.

use crate::planted;
use crate::reg::Reg;
use crate::tnum::Tnum;

const LOW: u64 = 0xffff_ffff;

impl Reg {
    /// `__mark_reg_unbounded`
    pub const fn unbound(&mut self) {
        self.unbound64();
        self.unbound32();
    }

    /// `__mark_reg64_unbounded`
    pub const fn unbound64(&mut self) {
        self.smin = i64::MIN;
        self.smax = i64::MAX;
        self.umin = 0;
        self.umax = u64::MAX;
    }

    /// `__mark_reg32_unbounded`
    pub const fn unbound32(&mut self) {
        self.s32min = i32::MIN;
        self.s32max = i32::MAX;
        self.u32min = 0;
        self.u32max = u32::MAX;
    }

    /// Both halves of [`Reg::bounds_from_bits`] for 32 bits: `__update_reg32_bounds`.
    pub fn bounds32_from_bits(&mut self) {
        let (value, mask) = (self.var_off.value as u32, self.var_off.mask as u32);
        let sign = 1u32 << 31;
        self.s32min = self.s32min.max((value | mask & sign) as i32);
        self.s32max = self.s32max.min((value | mask & !sign) as i32);
        self.u32min = self.u32min.max(value);
        self.u32max = self.u32max.min(value | mask);
    }

    fn bounds64_from_bits(&mut self) {
        let Tnum { value, mask } = self.var_off;
        let sign = 1u64 << 63;
        self.smin = self.smin.max((value | mask & sign) as i64);
        self.smax = self.smax.min((value | mask & !sign) as i64);
        self.umin = self.umin.max(value);
        self.umax = self.umax.min(value | mask);
        self.only_value();
    }

    /// Where range and bits have a single number in common, it is that.
    fn only_value(&mut self) {
        let bits = self.var_off;
        let max = bits.value | bits.mask;
        let next = bits.above(self.umin);
        if self.umin & !bits.mask == bits.value {
            if next > self.umax {
                self.set_value(self.umin);
            }
        } else if next == max {
            self.set_value(max);
        } else if next <= self.umax && bits.above(next) > self.umax {
            self.set_value(next);
        }
    }

    /// `__update_reg_bounds`
    pub fn bounds_from_bits(&mut self) {
        self.bounds32_from_bits();
        self.bounds64_from_bits();
    }

    fn meet_s32(&mut self, min: i32, max: i32) {
        self.s32min = self.s32min.max(min);
        self.s32max = self.s32max.min(max);
    }

    fn meet_u32(&mut self, min: u32, max: u32) {
        self.u32min = self.u32min.max(min);
        self.u32max = self.u32max.min(max);
    }

    /// `__reg32_deduce_bounds`
    fn deduce32(&mut self) {
        let (umin, umax) = (self.umin, self.umax);
        let (smin, smax) = (self.smin as u64, self.smax as u64);
        if umin >> 32 == umax >> 32 {
            self.meet_u32(umin as u32, umax as u32);
            if umin as i32 <= umax as i32 {
                self.meet_s32(umin as i32, umax as i32);
            }
        }
        if smin >> 32 == smax >> 32 {
            if smin as u32 <= smax as u32 {
                self.meet_u32(smin as u32, smax as u32);
            }
            if smin as i32 <= smax as i32 {
                self.meet_s32(smin as i32, smax as i32);
            }
        }
        for (min, max) in [(umin, umax), (smin, smax)] {
            let adjacent = ((min >> 32) as u32).wrapping_add(1) == (max >> 32) as u32;
            if adjacent && (min as i32) < 0 && max as i32 >= 0 {
                self.meet_s32(min as i32, max as i32);
            }
        }
        if self.u32min as i32 <= self.u32max as i32 {
            self.meet_s32(self.u32min as i32, self.u32max as i32);
        }
        if self.s32min as u32 <= self.s32max as u32 {
            self.meet_u32(self.s32min as u32, self.s32max as u32);
        } else if self.u32max < self.s32min as u32 {
            self.s32min = self.u32min as i32;
            self.u32max = self.u32max.min(self.s32max as u32);
        } else if (self.s32max as u32) < self.u32min {
            self.s32max = self.u32max as i32;
            self.u32min = self.u32min.max(self.s32min as u32);
        }
    }

    /// `__reg64_deduce_bounds`
    fn deduce64(&mut self) {
        if self.umin as i64 <= self.umax as i64 {
            self.smin = self.smin.max(self.umin as i64);
            self.smax = self.smax.min(self.umax as i64);
        }
        if self.smin as u64 <= self.smax as u64 {
            self.umin = self.umin.max(self.smin as u64);
            self.umax = self.umax.min(self.smax as u64);
        } else if self.umax < self.smin as u64 {
            self.smin = self.umin as i64;
            self.umax = self.umax.min(self.smax as u64);
        } else if (self.smax as u64) < self.umin {
            self.smax = self.umax as i64;
            self.umin = self.umin.max(self.smin as u64);
        }
    }

    /// `__reg_deduce_mixed_bounds`
    fn deduce_mixed(&mut self) {
        let (min, max) = (u64::from(self.u32min), u64::from(self.u32max));
        self.umin = self.umin.max(self.umin & !LOW | min);
        self.umax = self.umax.min(self.umax & !LOW | max);
        self.smin = self.smin.max((self.smin as u64 & !LOW | min) as i64);
        self.smax = self.smax.min((self.smax as u64 & !LOW | max) as i64);
        let fits = self.smin >= i64::from(i32::MIN) && self.smax <= i64::from(i32::MAX);
        if self.s32min >= 0 && fits {
            self.smin = i64::from(self.s32min);
            self.smax = i64::from(self.s32max);
            self.umin = self.s32min as u64;
            self.umax = i64::from(self.s32max) as u64;
            let range = Tnum::range(self.smin as u64, self.smax as u64);
            self.var_off = self.var_off.intersect(range);
        }
    }

    fn deduce(&mut self) {
        self.deduce32();
        self.deduce64();
        self.deduce_mixed();
    }

    /// `__reg_bound_offset`
    fn bits_from_bounds(&mut self) {
        let bits = self.var_off.intersect(Tnum::range(self.umin, self.umax));
        let range32 = Tnum::range(u64::from(self.u32min), u64::from(self.u32max));
        let low = bits.subreg().intersect(range32);
        self.var_off = bits.clear_subreg().or(low);
    }

    /// `reg_bounds_sync`
    pub fn sync(&mut self) {
        self.bounds_from_bits();
        self.deduce();
        self.deduce();
        self.deduce();
        if !planted::is(7) {
            self.bits_from_bounds();
        }
        self.bounds_from_bits();
    }

    /// What `reg_bounds_sanity_check` complains of.
    pub fn insane(&self) -> Option<&'static str> {
        if self.umin > self.umax
            || self.smin > self.smax
            || self.u32min > self.u32max
            || self.s32min > self.s32max
        {
            return Some("range bounds violation");
        }
        if self.var_off.is_const() {
            let value = self.var_off.value;
            let same = self.umin == value
                && self.umax == value
                && self.smin == value as i64
                && self.smax == value as i64;
            if !same {
                return Some("const tnum out of sync with range bounds");
            }
        }
        if self.var_off.subreg_is_const() {
            let value = self.var_off.value as u32;
            let same = self.u32min == value
                && self.u32max == value
                && self.s32min == value as i32
                && self.s32max == value as i32;
            if !same {
                return Some("const subreg tnum out of sync with range bounds");
            }
        }
        None
    }

    /// `zext_32_to_64`
    pub fn zext32(&mut self) {
        self.var_off = self.var_off.subreg();
        self.umin = u64::from(self.u32min);
        self.umax = u64::from(self.u32max);
        if self.s32min >= 0 && self.s32max >= 0 {
            self.smin = i64::from(self.s32min);
            self.smax = i64::from(self.s32max);
        } else {
            self.smin = 0;
            self.smax = i64::from(u32::MAX);
        }
    }

    /// `coerce_reg_to_size`: a load of `size` bytes, fewer than 8, zero-extended.
    pub fn truncate(&mut self, size: u32) {
        self.var_off = self.var_off.cast(size);
        let mask = (1u64 << (size * 8)) - 1;
        if self.umin & !mask == self.umax & !mask {
            self.umin &= mask;
            self.umax &= mask;
        } else {
            self.umin = 0;
            self.umax = mask;
        }
        self.smin = self.umin as i64;
        self.smax = self.umax as i64;
        if size < 4 {
            self.unbound32();
        }
        self.sync();
    }

    /// `coerce_reg_to_size_sx`
    pub fn sign_extend64(&mut self, size: u32) {
        let sext = |v: u64| match size {
            1 => i64::from(v as i8),
            2 => i64::from(v as i16),
            _ => i64::from(v as i32),
        };
        if self.var_off.is_const() {
            let value = sext(self.var_off.value) as u64;
            self.set_value(value);
            return;
        }
        let bits = size * 8;
        let top = |v: i64| v as u64 >> bits << bits;
        if top(self.smax) == top(self.smin) {
            let (x, y) = (sext(self.smax as u64), sext(self.smin as u64));
            let (min, max) = (x.min(y), x.max(y));
            if (max >= 0) == (min >= 0) {
                (self.smin, self.smax) = (min, max);
                (self.umin, self.umax) = (min as u64, max as u64);
                (self.s32min, self.s32max) = (min as i32, max as i32);
                (self.u32min, self.u32max) = (min as u32, max as u32);
                self.var_off = Tnum::range(min as u64, max as u64);
                return;
            }
        }
        let (min, max) = match size {
            1 => (i32::from(i8::MIN), i32::from(i8::MAX)),
            2 => (i32::from(i16::MIN), i32::from(i16::MAX)),
            _ => (i32::MIN, i32::MAX),
        };
        (self.s32min, self.s32max) = (min, max);
        (self.smin, self.smax) = (i64::from(min), i64::from(max));
        (self.umin, self.umax) = (0, u64::MAX);
        (self.u32min, self.u32max) = (0, u32::MAX);
        self.var_off = Tnum::UNKNOWN;
    }

    /// `coerce_subreg_to_size_sx`
    pub fn sign_extend32(&mut self, size: u32) {
        let sext = |v: u32| match size {
            1 => i32::from(v as i8),
            _ => i32::from(v as i16),
        };
        if self.var_off.is_const() {
            // The kernel keeps the sign-extended 64 bits here and cuts them off afterwards.
            let value = sext(self.var_off.value as u32);
            self.var_off = Tnum::constant(i64::from(value) as u64);
            (self.s32min, self.s32max) = (value, value);
            (self.u32min, self.u32max) = (value as u32, value as u32);
            return;
        }
        let bits = size * 8;
        let top = |v: i32| v as u32 >> bits << bits;
        if top(self.s32max) == top(self.s32min) {
            let (x, y) = (sext(self.s32max as u32), sext(self.s32min as u32));
            let (min, max) = (x.min(y), x.max(y));
            if (min >= 0) == (max >= 0) {
                (self.s32min, self.s32max) = (min, max);
                (self.u32min, self.u32max) = (min as u32, max as u32);
                self.var_off = Tnum::range(i64::from(min) as u64, i64::from(max) as u64).subreg();
                return;
            }
        }
        (self.s32min, self.s32max) = match size {
            1 => (i32::from(i8::MIN), i32::from(i8::MAX)),
            _ => (i32::from(i16::MIN), i32::from(i16::MAX)),
        };
        (self.u32min, self.u32max) = (0, u32::MAX);
        self.var_off = Tnum::UNKNOWN.subreg();
    }

    /// `__mark_reg_s32_range` without its sanity check.
    pub fn narrow_s32(&mut self, min: i32, max: i32) {
        self.meet_s32(min, max);
        self.smin = self.smin.max(i64::from(min));
        self.smax = self.smax.min(i64::from(max));
        self.sync();
    }

    /// `range_within`: every value of `cur` was allowed by `self`.
    pub fn range_covers(&self, cur: &Reg) -> bool {
        self.umin <= cur.umin
            && self.umax >= cur.umax
            && (self.smin <= cur.smin && self.smax >= cur.smax || planted::is(14))
            && self.u32min <= cur.u32min
            && self.u32max >= cur.u32max
            && self.s32min <= cur.s32min
            && self.s32max >= cur.s32max
    }
}
