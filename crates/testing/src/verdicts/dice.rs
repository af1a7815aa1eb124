//! Where choices come from: a seed, or a fuzzer's bytes.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A stream of choices.
#[derive(Clone, Debug)]
pub struct Dice(Source);

#[derive(Clone, Debug)]
enum Source {
    Seed(Pcg64Mcg),
    Bytes(Vec<u8>, usize),
}

impl Dice {
    /// Those of a seed.
    pub fn seeded(seed: u64) -> Dice {
        Dice(Source::Seed(Pcg64Mcg::seed_from_u64(seed)))
    }

    /// A fuzzer's bytes, then zeros.
    pub fn bytes(bytes: &[u8]) -> Dice {
        Dice(Source::Bytes(bytes.to_vec(), 0))
    }

    fn next(&mut self) -> u32 {
        match &mut self.0 {
            Source::Seed(rng) => rng.next_u32(),
            Source::Bytes(bytes, at) => {
                let value = bytes
                    .get(*at..*at + 2)
                    .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
                *at += 2;
                value.into()
            }
        }
    }

    /// Less than `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n.max(1)
    }

    /// In this range.
    pub fn within(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1).max(1) as usize) as i32
    }

    /// Once in `n` times; never for bytes that ran out.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) + 1 == n
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// 64 bits, with those that ranges end at more often than chance has it.
    pub fn number(&mut self) -> i64 {
        let near = i64::from(self.within(-3, 3));
        match self.below(12) {
            0..=3 => i64::from(self.within(0, 16)),
            4 => near,
            5 => i64::from(self.within(0, 300)),
            6 => i64::from(i32::MAX) + near,
            7 => i64::from(i32::MIN) + near,
            8 => i64::from(u32::MAX) + near,
            9 => i64::MAX.wrapping_add(near),
            10 => (1i64 << self.below(64)).wrapping_add(near),
            _ => (i64::from(self.next()) << 32 | i64::from(self.next())) >> self.below(64),
        }
    }

    /// As many bits as an immediate has.
    pub fn imm(&mut self) -> i32 {
        let wide = self.number();
        i32::try_from(wide).unwrap_or(wide as i32 ^ (wide >> 32) as i32)
    }
}
