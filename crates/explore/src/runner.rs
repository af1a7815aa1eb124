//! Explorations: many executions of one test, on as many threads as there are.

use crate::bounded::Bounded;
use crate::outcome::{Counts, Found, Outcome};
use crate::pool::in_order;
use crate::strategy::Probe;
use crate::{Failed, Record, Recorder, Relation, Replay, Schedule, Strategy, Work, dpor, shrink};
use bpfsim_kernel::{Chooser, Config, Offer, Step};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is explored.
pub trait Model: Sync {
    /// Runs it once on a machine of this configuration, in the order that the chooser decides.
    fn run(&self, config: &Config, chooser: Box<dyn Chooser>) -> Run;
}

impl<F: Fn(&Config, Box<dyn Chooser>) -> Run + Sync> Model for F {
    fn run(&self, config: &Config, chooser: Box<dyn Chooser>) -> Run {
        self(config, chooser)
    }
}

/// One execution that is over.
#[derive(Debug, Clone)]
pub struct Run {
    /// How it ended.
    pub result: Result<(), Failed>,
    /// Hash of its trace.
    pub trace: u64,
    /// Hash of the objects that it loaded.
    pub objects: u32,
}

/// Explores models.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The machine.
    pub config: Config,
    /// How orders are picked.
    pub strategy: Strategy,
    /// Most executions; of strategies that draw, how many there are.
    pub executions: u64,
    /// Seed of the first execution, of strategies that draw; the next has the next.
    pub seed: u64,
    /// Time after which no execution is begun any more. What is found then depends on the
    /// machine, and so is never said to be complete.
    pub time_limit: Option<Duration>,
    /// Threads.
    pub threads: usize,
    /// Part `.0` of `.1` parts of the work, from 0.
    pub shard: (u64, u64),
    /// Most executions for making a failing order small.
    pub shrink: u64,
    /// Which steps may change places, for [`Strategy::Exhaustive`].
    pub relation: Relation,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner {
            config: Config::default(),
            strategy: Strategy::Usual,
            executions: 1_000,
            seed: 1,
            time_limit: None,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            shard: (0, 1),
            shrink: 2_000,
            relation: Relation::default(),
        }
    }
}

/// Where an exploration has come to.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Executions so far.
    pub executions: u64,
    /// Distinct traces so far.
    pub traces: u64,
    /// Executions there will be, where that is known.
    pub of: Option<u64>,
}

/// Executions of one seed after another that make a unit of work.
const SEEDS: u64 = 16;

/// Part of an exploration that one thread does.
pub(crate) struct Unit {
    pub counts: Counts,
    pub failure: Option<Found>,
    pub complete: bool,
}

impl Runner {
    /// Explores `model`.
    pub fn explore(&self, model: &dyn Model) -> Outcome {
        self.explore_with(model, &mut |_| {})
    }

    /// Explores `model`, and says now and then where it has come to.
    pub fn explore_with(&self, model: &dyn Model, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let clock = Clock::new(self.time_limit);
        let probe = match self.strategy.wants_probe() {
            true => self.probe(model),
            false => Probe::default(),
        };
        let cut = self.cut(model, &clock);
        let units = cut.units();
        let of = self.strategy.is_seeded().then_some(self.executions);
        let mut outcome = Outcome {
            strategy: self.strategy.clone(),
            config: self.config.clone(),
            counts: Counts::default(),
            complete: true,
            failure: None,
        };
        in_order(
            units,
            self.threads,
            |i| self.unit(model, &cut, i, &probe, &clock),
            |unit| unit.failure.is_some(),
            |unit| {
                let before = outcome.counts.executions;
                outcome.counts.add(unit.counts);
                outcome.complete &= unit.complete;
                outcome.failure = unit.failure.map(|found| Found {
                    execution: found.execution + before,
                    ..found
                });
                progress(Progress {
                    executions: outcome.counts.executions,
                    traces: outcome.counts.traces.len() as u64,
                    of,
                });
            },
        );
        outcome.complete &= !clock.is_over();
        if let Some(found) = outcome.failure.take() {
            outcome.failure = Some(self.shrink(model, found));
        }
        outcome
    }

    /// Makes a failing order small, on a thread like those that executions run on.
    fn shrink(&self, model: &dyn Model, found: Found) -> Found {
        let mut small = None;
        let runner = Runner {
            config: Config {
                seed: found.seed,
                ..self.config.clone()
            },
            ..self.clone()
        };
        let unit = |_| shrink::shrink(&runner, model, &found);
        in_order(1, 1, unit, |_| true, |shrunk| small = Some(shrunk));
        small.unwrap_or(found)
    }

    fn probe(&self, model: &dyn Model) -> Probe {
        let mut probe = Probe::default();
        let unit = |_| {
            let (counter, work) = Counter::new();
            model.run(&self.config, Box::new(counter));
            work.take()
        };
        in_order(1, 1, unit, |_| true, |work| probe.work = Arc::new(work));
        probe.steps = probe.work.values().map(|&n| u64::from(n)).sum();
        probe
    }

    /// The units of work: a rule that knows neither the number of threads nor time.
    fn cut(&self, model: &dyn Model, clock: &Clock) -> Cut {
        match &self.strategy {
            Strategy::Usual | Strategy::Replay(_) => Cut::Once,
            Strategy::Random | Strategy::Pct { .. } | Strategy::Walk => Cut::Seeds {
                first: self.shard.0,
                stride: self.shard.1.max(1),
                all: self.executions.div_ceil(SEEDS),
            },
            Strategy::Bounded { .. } => Cut::Once,
            Strategy::Exhaustive => {
                let _ = (model, clock);
                Cut::Once
            }
        }
    }

    fn unit(&self, model: &dyn Model, cut: &Cut, i: u64, probe: &Probe, clock: &Clock) -> Unit {
        let mut unit = Unit {
            counts: Counts::default(),
            failure: None,
            complete: true,
        };
        match (&self.strategy, cut) {
            (Strategy::Bounded { preemptions }, _) => {
                self.bounded(model, *preemptions, clock, &mut unit);
            }
            (Strategy::Exhaustive, _) => dpor::explore(self, model, clock, &mut unit),
            (_, Cut::Seeds { first, stride, .. }) => {
                let from = (first + i * stride) * SEEDS;
                for n in from..(from + SEEDS).min(self.executions) {
                    let seed = self.seed.wrapping_add(n);
                    let config = Config {
                        seed,
                        ..self.config.clone()
                    };
                    let chooser = self.strategy.chooser(seed, probe);
                    if clock.is_over() || !unit.run(&config, model, chooser) {
                        break;
                    }
                }
            }
            _ => {
                unit.run(&self.config, model, self.strategy.chooser(self.seed, probe));
            }
        }
        unit
    }

    fn bounded(&self, model: &dyn Model, preemptions: u64, clock: &Clock, unit: &mut Unit) {
        let mut orders = Bounded::new(preemptions);
        while let Some(chooser) = orders.next_order() {
            if unit.counts.executions >= self.executions || clock.is_over() {
                unit.complete = false;
                break;
            }
            let goes_on = unit.run(&self.config, model, chooser);
            if orders.strayed() {
                unit.stray();
            }
            if !goes_on || unit.failure.is_some() {
                break;
            }
        }
        unit.counts.cut = orders.cut();
    }

    /// Runs one known order.
    pub(crate) fn replay(&self, model: &dyn Model, schedule: Schedule) -> (Run, Record) {
        observed(&self.config, model, Box::new(Replay::new(schedule)))
    }
}

/// Runs once, and tells the order that was taken.
pub(crate) fn observed(
    config: &Config,
    model: &dyn Model,
    chooser: Box<dyn Chooser>,
) -> (Run, Record) {
    let (recorder, record) = Recorder::new(chooser);
    let run = model.run(config, Box::new(recorder));
    let record = record.borrow().clone();
    (run, record)
}

impl Unit {
    /// Runs once more. False after a failure.
    fn run(&mut self, config: &Config, model: &dyn Model, chooser: Box<dyn Chooser>) -> bool {
        let explores = chooser.explores();
        let (run, record) = observed(config, model, chooser);
        self.count(&run, &record, explores, Some(run.trace));
        if let Some(found) = &mut self.failure {
            found.seed = config.seed;
        }
        self.failure.is_none()
    }

    /// Counts an execution; `trace` is what makes it distinct, if it can be that.
    pub(crate) fn count(&mut self, run: &Run, record: &Record, explores: bool, trace: Option<u64>) {
        self.counts.executions += 1;
        self.counts.choices += record.choices;
        self.counts.steps += record.steps;
        self.counts.traces.extend(trace);
        if let Err(failed) = &run.result {
            self.failure = Some(Found {
                failed: failed.clone(),
                execution: self.counts.executions,
                schedule: explores.then(|| record.schedule.clone()),
                seed: 0,
                preemptions: record.preemptions,
                steps: record.steps,
                objects: run.objects,
                trace: run.trace,
                shrunk: 0,
            });
        }
    }

    /// The test is not deterministic.
    pub(crate) fn stray(&mut self) {
        let found = self.failure.take();
        self.failure = Some(Found {
            failed: Failed::nondeterminism(),
            execution: self.counts.executions,
            schedule: Some(Schedule::default()),
            seed: 0,
            preemptions: 0,
            steps: 0,
            objects: found.map_or(0, |f| f.objects),
            trace: 0,
            shrunk: 0,
        });
    }
}

/// How work is cut.
enum Cut {
    Once,
    /// Units of `SEEDS` seeds each: every `stride`th of `all`.
    Seeds {
        first: u64,
        stride: u64,
        all: u64,
    },
}

impl Cut {
    fn units(&self) -> u64 {
        match *self {
            Cut::Once => 1,
            Cut::Seeds { first, stride, all } => all.saturating_sub(first).div_ceil(stride),
        }
    }
}

/// The time limit.
pub(crate) struct Clock {
    until: Option<Instant>,
}

impl Clock {
    fn new(limit: Option<Duration>) -> Clock {
        Clock {
            until: limit.and_then(|l| Instant::now().checked_add(l)),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Takes the default order and counts each execution's steps.
struct Counter {
    order: Replay,
    work: Rc<RefCell<Work>>,
}

impl Counter {
    fn new() -> (Counter, Rc<RefCell<Work>>) {
        let work = Rc::default();
        let counter = Counter {
            order: Replay::new(Schedule::default()),
            work: Rc::clone(&work),
        };
        (counter, work)
    }
}

impl Chooser for Counter {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.order.choose(offer)
    }

    fn explores(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let id = step.choices[step.picked].id;
        *self.work.borrow_mut().entry(id).or_default() += 1;
        self.order.stepped(step);
    }
}
