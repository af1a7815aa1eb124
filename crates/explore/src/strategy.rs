//! How orders are picked.

use crate::chance::Luck;
use crate::{Pct, Random, Replay, Schedule, Walk, Work};
use bpfsim_kernel::{Chooser, Usual};
use std::fmt;
use std::sync::Arc;

/// How orders are picked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Linux's own order: one execution.
    #[default]
    Usual,
    /// Uniformly random choices.
    Random,
    /// Random priorities with `depth - 1` changes.
    Pct {
        /// Ordering constraints that a bug may need.
        depth: u32,
    },
    /// Random choices weighted by remaining work.
    Walk,
    /// Every order with at most so many preemptions.
    Bounded {
        /// How many.
        preemptions: u64,
    },
    /// Every order, but only one of those that differ in nothing that matters.
    Exhaustive,
    /// One known order.
    Replay(Schedule),
}

/// What sampling strategies learn from one execution in the default order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    pub steps: u64,
    pub work: Arc<Work>,
}

impl Strategy {
    /// True when all orders within a bound are meant.
    pub fn is_exhaustive(&self) -> bool {
        matches!(self, Strategy::Bounded { .. } | Strategy::Exhaustive)
    }

    /// True when executions differ by their seeds.
    pub fn is_seeded(&self) -> bool {
        matches!(
            self,
            Strategy::Random | Strategy::Pct { .. } | Strategy::Walk
        )
    }

    pub(crate) fn wants_probe(&self) -> bool {
        matches!(self, Strategy::Pct { .. } | Strategy::Walk)
    }

    /// The chooser of an execution; strategies that enumerate have others.
    pub(crate) fn chooser(&self, seed: u64, probe: &Probe) -> Box<dyn Chooser> {
        let steps = probe.steps;
        match self {
            Strategy::Usual => Box::new(Usual),
            Strategy::Random => Box::new(Luck::new(Random::new(seed), seed)),
            Strategy::Pct { depth } => Box::new(Luck::new(Pct::new(seed, *depth, steps), seed)),
            Strategy::Walk => {
                let walk = Walk::new(seed, Arc::clone(&probe.work));
                Box::new(Luck::new(walk, seed))
            }
            Strategy::Replay(schedule) => Box::new(Replay::new(schedule.clone())),
            Strategy::Bounded { .. } | Strategy::Exhaustive => {
                Box::new(Replay::new(Schedule::default()))
            }
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Usual => f.write_str("the usual one"),
            Strategy::Random => f.write_str("random"),
            Strategy::Pct { depth } => write!(f, "PCT of depth {depth}"),
            Strategy::Walk => f.write_str("a random walk weighted by remaining work"),
            Strategy::Bounded { preemptions } => write!(f, "at most {preemptions} preemptions"),
            Strategy::Exhaustive => f.write_str("exhaustive"),
            Strategy::Replay(_) => f.write_str("a known one"),
        }
    }
}
