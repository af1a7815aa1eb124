//! The generator of all strategies that draw.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng as _;

/// Draws numbers, from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Rng(Pcg64Mcg);

impl Rng {
    /// Equal seeds draw equal numbers.
    pub fn new(seed: u64) -> Rng {
        // Neighbouring seeds must not start alike, which the generator's first numbers would.
        let mut rng = Pcg64Mcg::new((bpfsim_kernel::mix(seed, 1) as u128) << 64 | seed as u128);
        rng.next_u64();
        Rng(rng)
    }

    /// A number below `n`, which is not 0. The bias is below `n / 2^32`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((self.0.next_u32() as u64 * n as u64) >> 32) as u32
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// An index, each with a probability in proportion to its weight.
    pub fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> usize {
        let sum: u32 = weights.clone().fold(0, u32::saturating_add);
        let mut at = self.below(sum.max(1));
        for (i, weight) in weights.enumerate() {
            if at < weight {
                return i;
            }
            at -= weight;
        }
        0
    }
}
