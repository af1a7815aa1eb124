//! Choosers and the exploration of orders.
//!
//! An order of execution is a list of choices: a seed, a replay string, what an exhaustive search
//! is at, and a shrunk failure are all that. [`Strategy`] says how orders are picked, [`Runner`]
//! takes many of them on a pool of threads and gives an [`Outcome`], which is the same for any
//! number of threads, and a failing order is made small.
//!
//! - `random`, `pct`, `walk`: strategies that draw, with `chance` for what comes out otherwise than
//!   usual; `bounded`, `dpor`: those that enumerate, and go `back` to choices;
//! - `hb`: which steps may change places, in one table;
//! - `schedule`: orders as data and as `bs1-...`; `shrink`: small ones;
//! - `fuzz`: search led by coverage;
//! - `timeline`, `coverage`: what happened in one run, and what ran in all of them;
//! - `runner`, `pool`, `outcome`: many executions, and what came of them; `again`: whether they are
//!   what they were when they are made twice.
//!
//! Invariant: results depend on the model, the configuration and the bounds, never on the number
//! of threads or on timing; but for a time limit, which is said so.

mod again;
mod back;
mod bounded;
mod chance;
mod coverage;
mod dpor;
mod error;
pub mod fuzz;
mod hb;
mod outcome;
mod pct;
mod pool;
mod random;
mod rng;
mod runner;
mod schedule;
mod shrink;
mod strategy;
pub mod timeline;
mod walk;

pub use again::unlike;
pub use bpfsim_kernel::Last;
pub use chance::Lot;
pub use coverage::{Coverage, Share};
pub use error::{Failed, ReplayError};
pub use hb::{Relation, Rule};
pub use outcome::{Counts, Found, Outcome, Traces};
pub use pct::Pct;
pub use pool::{WORKER, in_rounds};
pub use random::Random;
pub use runner::{Begin, Model, Progress, Run, Runner, Worker};
pub use schedule::{Departure, Record, Recorder, Replay, ReplayString, Schedule, default_pick};
pub use strategy::Strategy;
pub use walk::{Walk, Work};

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
            Seed(seed) => Box::new(chance::Luck::new(Random::new(seed), seed)),
        }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
