//! Failing orders made small: fewest preemptions, then fewest departures from the default order,
//! then fewest steps; with the same failure.

use crate::back::Back;
use crate::bounded::Bounded;
use crate::chance::WithLots;
use crate::error::NONDETERMINISM;
use crate::outcome::Found;
use crate::runner::{Run, Runner, Worker, observed};
use crate::{Departure, Lot, Record, Replay, Schedule};
use bpfsim_kernel::Chooser;

struct Shrink<'a, 'w> {
    runner: &'a Runner,
    worker: &'a mut Worker<'w>,
    best: Found,
    /// Departures of the best that are of chance.
    lots: Vec<(u32, Lot)>,
    left: u64,
}

/// The smallest order that fails like `found` that is found within the runner's bound of
/// executions. Deterministic.
pub(crate) fn shrink(runner: &Runner, worker: &mut Worker<'_>, found: &Found) -> Found {
    let mut shrink = Shrink {
        runner,
        worker,
        best: found.clone(),
        lots: Vec::new(),
        left: runner.shrink,
    };
    if found.schedule.is_some() && found.failed.kind != NONDETERMINISM {
        shrink.find_lots();
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

/// This execution, if it fails alike and is smaller.
fn smaller(best: &Found, run: Run, record: &Record) -> Option<Found> {
    let failed = run.result.err()?;
    let found = Found {
        schedule: Some(record.schedule()),
        preemptions: record.preemptions(),
        steps: record.steps,
        trace: run.trace,
        failed,
        ..best.clone()
    };
    (found.failed.like(&best.failed) && size(&found) < size(best)).then_some(found)
}

fn size(found: &Found) -> (u64, usize, u64) {
    let departures = found.schedule.iter().map(|s| s.departures().len()).sum();
    (found.preemptions, departures, found.steps)
}

impl Shrink<'_, '_> {
    /// Takes an order over if it fails alike and is smaller.
    fn judge(&mut self, run: Run, record: &Record) -> bool {
        let found = smaller(&self.best, run, record);
        if found.is_some() {
            self.lots.clone_from(&record.lots);
        }
        found.map(|found| self.best = found).is_some()
    }

    /// Which of the departures are of chance.
    fn find_lots(&mut self) {
        if !self.runner.config.chances.is_none() {
            let order = self.best.schedule.clone().unwrap_or_default();
            let (_, record) = self.runner.replay(self.worker, order);
            self.lots = record.lots;
        }
    }

    /// What takes these departures. Those of chance stay with their calls where others are left
    /// out, and choices before them with those.
    fn with_lots(&self, mut departures: Vec<Departure>) -> Box<dyn Chooser> {
        let number = |at: u32| self.lots.binary_search_by_key(&at, |l| l.0);
        let lots = departures.iter().filter_map(|d| number(d.at).ok());
        let lots: Vec<Lot> = lots.map(|i| self.lots[i].1).collect();
        departures.retain(|d| number(d.at).is_err());
        let order = Replay::new(Schedule::new(departures));
        match lots.is_empty() {
            true => Box::new(order),
            false => Box::new(WithLots::new(order, lots)),
        }
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
                let chooser = self.with_lots(departures);
                let (run, record) = observed(&self.runner.config, self.worker, chooser);
                if !self.judge(run, &record) {
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
            let mut back = Back::new(&self.runner.config, self.worker, self.runner.restarts);
            let record = back.record();
            while let Some((keep, chooser)) = orders.next_order().filter(|_| share > 0) {
                (share, self.left) = (share - 1, self.left - 1);
                let run = back.run(keep, chooser);
                let record = &*record.borrow();
                if orders.strayed() {
                    return;
                }
                if let Some(found) = smaller(&self.best, run, record) {
                    self.best = found;
                    self.lots.clone_from(&record.lots);
                    return;
                }
            }
        }
    }
}
