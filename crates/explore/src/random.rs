//! Uniformly random choices.

use bpfsim_kernel::{Chooser, Offer};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// Picks each choice with equal probability, from a seed.
#[derive(Debug, Clone)]
pub struct Random {
    rng: Pcg64Mcg,
}

impl Random {
    /// Equal seeds give equal orders.
    pub fn new(seed: u64) -> Random {
        // Neighbouring seeds must not start alike, which the generator's first numbers would.
        let mut rng = Pcg64Mcg::new((bpfsim_kernel::mix(seed, 1) as u128) << 64 | seed as u128);
        rng.next_u64();
        Random { rng }
    }
}

impl Chooser for Random {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        // The bias of a 32-bit product is below 2^-20 for the few choices that there ever are.
        ((self.rng.next_u32() as u64 * offer.choices.len() as u64) >> 32) as usize
    }

    fn explores(&self) -> bool {
        true
    }
}
