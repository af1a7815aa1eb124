//! Random walk weighted by remaining work.
//!
//! With equal weights, what has the most steps to go tends to run last and alone, so that orders
//! in which long executions overlap are rare. Weighing each by the steps that it has left makes
//! interleavings of independent executions equally likely (Zhao, Wolff, Mathur, Roychoudhury,
//! "Selectively Uniform Concurrency Testing", ASPLOS 2025).

use crate::rng::Rng;
use bpfsim_kernel::{Chooser, CtxId, Offer, Step};
use std::collections::HashMap;
use std::sync::Arc;

/// Steps that each execution took, in one order.
pub type Work = HashMap<CtxId, u32>;

/// Picks in proportion to the steps that are left.
#[derive(Debug, Clone)]
pub struct Walk {
    rng: Rng,
    work: Arc<Work>,
    /// Steps taken.
    done: Work,
}

impl Walk {
    /// Equal seeds and equal work give equal orders.
    pub fn new(seed: u64, work: Arc<Work>) -> Walk {
        Walk {
            rng: Rng::new(seed),
            work,
            done: HashMap::new(),
        }
    }
}

impl Chooser for Walk {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let left = |id: &CtxId| {
            let all = self.work.get(id).copied().unwrap_or(1);
            let done = self.done.get(id).copied().unwrap_or(0);
            all.saturating_sub(done).clamp(1, 1 << 20)
        };
        let weights = offer.choices.iter().map(|c| left(&c.id));
        self.rng.weighted(weights)
    }

    fn explores(&self) -> bool {
        true
    }

    fn begins_alike(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        *self.done.entry(step.choices[step.picked].id).or_default() += 1;
    }
}
