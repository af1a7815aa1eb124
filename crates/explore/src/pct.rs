//! Probabilistic concurrency testing.
//!
//! Burckhardt, Kothari, Musuvathi, Nagarakatte, "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs", ASPLOS 2010. Every execution has a random priority, and the one
//! with the highest goes on; at `depth - 1` random steps the one that would go on is put behind
//! all others. A bug that needs `depth` ordering constraints is found with a probability of at
//! least `1 / (n * k^(depth - 1))`, of `n` executions with `k` steps in all.

use crate::rng::Rng;
use bpfsim_kernel::{Choice, Chooser, CtxId, Next, Offer, Step};

/// Random priorities with a few random changes.
#[derive(Debug, Clone)]
pub struct Pct {
    rng: Rng,
    /// Steps at which a priority changes, ascending.
    changes: Vec<u64>,
    /// Highest first to go; those changed are below all drawn ones.
    priorities: Vec<(CtxId, u64)>,
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
            priorities: Vec::new(),
        }
    }

    /// The place of a priority.
    fn priority(&mut self, choice: &Choice) -> usize {
        let known = self.priorities.iter().position(|p| p.0 == choice.id);
        known.unwrap_or_else(|| {
            // Drawn ones are above all that are put behind.
            let drawn = 1 << 33 | self.rng.word() >> 31;
            self.priorities.push((choice.id, drawn));
            self.priorities.len() - 1
        })
    }

    fn first(&mut self, choices: &[Choice]) -> usize {
        let mut best = (0, 0);
        for (i, choice) in choices.iter().enumerate() {
            let at = self.priority(choice);
            let priority = self.priorities[at].1;
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
        let steps = offer.steps as u64;
        if self.changes.first().is_none_or(|&at| at > steps) {
            return first;
        }
        self.changes.remove(0);
        self.behind -= 1;
        let at = self.priority(&offer.choices[first]);
        self.priorities[at].1 = self.behind;
        self.first(offer.choices)
    }

    fn explores(&self) -> bool {
        true
    }

    fn begins_alike(&self) -> bool {
        true
    }

    fn follows(&self) -> bool {
        false
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let choice = &step.choices[step.picked];
        // A CPU's timers and works have one identity; each expiry and each work its own priority.
        if matches!(choice.next, Next::Start(_)) {
            self.priorities.retain(|p| p.0 != choice.id);
        }
    }
}
