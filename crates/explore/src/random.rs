//! Random choices.

use crate::rng::Rng;
use bpfsim_kernel::{Choice, Chooser, CtxId, Next, Offer, Starts, Step};

/// Picks each choice with equal probability, but for timers whose time has not come.
///
/// A deadline anywhere within the horizon is offered at every step. Were each as likely as the
/// next operation of a program, most timers would fire within two operations of being armed, and
/// what happens when one fires late would hardly be seen. So each gets a weight of its own, drawn
/// anew for each expiry: from as likely as everything else to once in 64 steps.
#[derive(Debug, Clone)]
pub struct Random {
    rng: Rng,
    /// Weights of timers that are offered early, by the CPU's identity.
    early: Vec<(CtxId, u32)>,
}

/// Weight of what is due.
const DUE: u32 = 64;

impl Random {
    /// Equal seeds give equal orders.
    pub fn new(seed: u64) -> Random {
        Random {
            rng: Rng::new(seed),
            early: Vec::new(),
        }
    }

    fn weight(&mut self, choice: &Choice) -> u32 {
        if let Some((_, weight)) = self.early.iter().find(|(id, _)| *id == choice.id) {
            return *weight;
        }
        let weight = DUE >> (2 * self.rng.below(4));
        self.early.push((choice.id, weight));
        weight
    }
}

/// True for what comes by itself at its time.
fn is_timed(c: &Choice) -> bool {
    matches!(c.next, Next::Start(Starts::Timers | Starts::Interrupt))
}

/// True for timers and interrupts that are not due by any clock of those that execute.
pub(crate) fn is_early(choice: &Choice, choices: &[Choice]) -> bool {
    let timers = is_timed;
    let now = choices.iter().filter(|c| !timers(c)).map(|c| c.at).max();
    timers(choice) && now.is_some_and(|now| choice.at > now)
}

impl Chooser for Random {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        if !offer.choices.iter().any(is_timed) {
            return self.rng.below(offer.choices.len() as u32) as usize;
        }
        let mut weights = smallvec::SmallVec::<[u32; 8]>::new();
        for choice in offer.choices {
            weights.push(match is_early(choice, offer.choices) {
                true => self.weight(choice),
                false => DUE,
            });
        }
        self.rng.weighted(weights.iter().copied())
    }

    fn choose_among(&mut self, choices: usize, _: usize, _: usize) -> Option<usize> {
        Some(self.rng.below(choices as u32) as usize)
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
        if !self.early.is_empty() {
            let picked = step.choices[step.picked].id;
            self.early.retain(|(id, _)| *id != picked);
        }
    }
}
