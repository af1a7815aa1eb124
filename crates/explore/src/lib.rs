//! Choosers and the exploration of orders.
//!
//! An order is a seed: [`Seed::chooser`] gives for seed 0 the usual order, Linux's own, and for
//! any other a uniformly random one that interleaves executions at every visible operation.

mod random;

pub use random::Random;

use bpfsim_kernel::{Chooser, Usual};
use std::fmt;

/// Names an order of execution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seed(pub u64);

impl Seed {
    /// The usual order.
    pub const USUAL: Seed = Seed(0);

    /// What makes a simulation take this order.
    pub fn chooser(self) -> Box<dyn Chooser> {
        match self {
            Seed::USUAL => Box::new(Usual),
            Seed(seed) => Box::new(Random::new(seed)),
        }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
