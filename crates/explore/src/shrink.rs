//! Failing orders made small: fewest preemptions, then fewest departures from the default order,
//! then fewest steps; with the same failure.

use crate::bounded::Bounded;
use crate::outcome::Found;
use crate::runner::{Run, Runner, Worker, observed};
use crate::{Record, Schedule};

struct Shrink<'a, 'w> {
    runner: &'a Runner,
    worker: &'a mut Worker<'w>,
    best: Found,
    left: u64,
}

/// The smallest order that fails like `found` that is found within the runner's bound of
/// executions. Deterministic.
pub(crate) fn shrink(runner: &Runner, worker: &mut Worker<'_>, found: &Found) -> Found {
    let mut shrink = Shrink {
        runner,
        worker,
        best: found.clone(),
        left: runner.shrink,
    };
    if found.schedule.is_some() && found.failed.kind != "nondeterminism" {
        shrink.drop_departures();
        shrink.fewer_preemptions();
        shrink.drop_departures();
    }
    let used = runner.shrink - shrink.left;
    Found {
        shrunk: used,
        ..shrink.best
    }
}

fn size(found: &Found) -> (u64, usize, u64) {
    let departures = found.schedule.iter().map(|s| s.departures().len()).sum();
    (found.preemptions, departures, found.steps)
}

impl Shrink<'_, '_> {
    /// Takes an order over if it fails alike and is smaller.
    fn judge(&mut self, run: Run, record: Record) -> bool {
        let Err(failed) = run.result else {
            return false;
        };
        let found = Found {
            schedule: Some(record.schedule),
            preemptions: record.preemptions,
            steps: record.steps,
            trace: run.trace,
            failed,
            ..self.best.clone()
        };
        let better = found.failed.like(&self.best.failed) && size(&found) < size(&self.best);
        if better {
            self.best = found;
        }
        better
    }

    /// Leaves out departures, many at once first.
    fn drop_departures(&mut self) {
        let count = |best: &Found| best.schedule.as_ref().map_or(0, |s| s.departures().len());
        let mut len = count(&self.best);
        while len > 0 {
            let mut at = 0;
            while at < count(&self.best) && self.left > 0 {
                let schedule = self.best.schedule.clone().unwrap_or_default();
                let mut departures = schedule.departures().to_vec();
                departures.drain(at..(at + len).min(departures.len()));
                self.left -= 1;
                let (run, record) = self.runner.replay(self.worker, Schedule::new(departures));
                if !self.judge(run, record) {
                    at += len;
                }
            }
            len /= 2;
        }
    }

    /// Looks through all orders with fewer preemptions, fewest first.
    fn fewer_preemptions(&mut self) {
        for bound in 0..self.best.preemptions {
            // What later bounds get must not be used up by the first.
            let mut share = self.left / (self.best.preemptions - bound).max(1);
            let mut orders = Bounded::new(bound);
            while let Some(chooser) = orders.next_order().filter(|_| share > 0) {
                (share, self.left) = (share - 1, self.left - 1);
                let (run, record) = observed(&self.runner.config, self.worker, chooser);
                if orders.strayed() {
                    return;
                }
                if self.judge(run, record) {
                    return;
                }
            }
        }
    }
}
