//! Who took which step of an execution: kept from one execution of a search to the next, which
//! begins with the same steps.

use bpfsim_kernel::{Last, Step};

/// The steps of an execution so far, and those of the execution before that it may have in common
/// with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// Who took each, and preemptions up to it.
    each: Vec<(Last, u64)>,
    /// So many of them are this execution's.
    at: usize,
}

impl Taken {
    /// Another execution begins.
    pub fn begin(&mut self) {
        self.at = 0;
    }

    /// The first `steps` steps are those of the execution before.
    pub fn passed(&mut self, steps: usize) {
        self.at = steps.min(self.each.len());
    }

    /// A step was taken.
    pub fn stepped(&mut self, step: &Step<'_>) {
        let preempted = self.last().is_some_and(|last| last.is_preempted(step));
        let preemptions = self.preemptions() + u64::from(preempted);
        self.each.truncate(self.at);
        self.each.push((Last::of(step), preemptions));
        self.at += 1;
    }

    /// Who took the last one.
    pub fn last(&self) -> Option<Last> {
        self.each[..self.at].last().map(|t| t.0)
    }

    /// Steps of another execution while the one before could have gone on.
    pub fn preemptions(&self) -> u64 {
        self.each[..self.at].last().map_or(0, |t| t.1)
    }

    /// How many.
    pub fn steps(&self) -> usize {
        self.at
    }
}
