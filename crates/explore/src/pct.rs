//! Probabilistic concurrency testing.
//!
//! Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs", ASPLOS 2010. Every execution has a random priority, and the one
//! with the highest goes on; at `depth - 1` random steps the one that would go on is put behind
//! all others. A bug that needs `depth` ordering constraints is found with a probability of at
//! least `1 / (n * k^(depth - 1))`, of `n` executions with `k` steps in all.

use crate::rng::Rng;
use bpfsim_kernel::{Choice, Chooser, CtxId, Next, Offer, Step};
use std::collections::HashMap;

/// Random priorities with a few random changes.
#[derive(Debug, Clone)]
pub struct Pct {
    rng: Rng,
    /// Steps at which a priority changes, ascending.
    changes: Vec<u64>,
    /// Steps so far.
    steps: u64,
    /// Highest first to go; those changed are below all drawn ones.
    priorities: HashMap<CtxId, u64>,
    /// The next priority of one that is put behind.
    behind: u64,
}

impl Pct {
    /// `depth` ordering constraints, in an execution of about `steps` steps.
    pub fn new(seed: u64, depth: u32, steps: u64) -> Pct {
        let mut rng = Rng::new(seed);
        let steps = u32::try_from(steps.max(1)).unwrap_or(u32::MAX);
        let changes = (1..depth).map(|_| rng.below(steps).into());
        let mut changes: Vec<u64> = changes.collect();
        changes.sort_unstable();
        Pct {
            rng,
            behind: 1 << 32,
            changes,
            steps: 0,
            priorities: HashMap::new(),
        }
    }

    fn priority(&mut self, choice: &Choice) -> u64 {
        let rng = &mut self.rng;
        // Drawn ones are above all that are put behind.
        let draw = || 1 << 33 | rng.word() >> 31;
        *self.priorities.entry(choice.id).or_insert_with(draw)
    }

    fn first(&mut self, choices: &[Choice]) -> usize {
        let mut best = (0, 0);
        for (i, choice) in choices.iter().enumerate() {
            let priority = self.priority(choice);
            if i == 0 || priority > best.1 {
                best = (i, priority);
            }
        }
        best.0
    }
}

impl Chooser for Pct {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let first = self.first(offer.choices);
        if self.changes.first().is_none_or(|&at| at > self.steps) {
            return first;
        }
        self.changes.remove(0);
        self.behind -= 1;
        self.priorities.insert(offer.choices[first].id, self.behind);
        self.first(offer.choices)
    }

    fn explores(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        self.steps += 1;
        let choice = &step.choices[step.picked];
        // A CPU's timers and works have one identity; each expiry and each work its own priority.
        if matches!(choice.next, Next::Start(_)) {
            self.priorities.remove(&choice.id);
        }
    }
}
