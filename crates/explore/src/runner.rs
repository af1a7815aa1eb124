//! Explorations: many executions of one test, on as many threads as there are.

use crate::again;
use crate::bounded::{self, Picks};
use crate::error::NONDETERMINISM;
use crate::hb::Observer;
use crate::outcome::{Counts, Found, Outcome};
use crate::pool::in_order;
use crate::strategy::Probe;
use crate::{Failed, Record, Recorder, Relation, Replay, Schedule, Strategy, dpor, shrink, walk};
use bpfsim_kernel::{Chooser, Config, Offer, Step, mix};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is explored.
pub trait Model: Sync {
    /// What runs it on one thread.
    fn worker(&self) -> Worker<'_>;
}

/// Runs a model once on a machine of this configuration, in the order that the chooser decides.
pub type Worker<'a> = Box<dyn FnMut(&Config, Begin, Box<dyn Chooser>) -> Run + 'a>;

/// How an execution begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Anew.
    Alone,
    /// Anew, and what happens is remembered: the next one may begin with choices of this one.
    First,
    /// As the last one, with so many choices of it. They need not be made again: then the chooser
    /// is [told](Chooser::passed) instead of asked.
    Again(usize),
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
    /// Every so manyth execution is made twice, to see that the test is deterministic; 0 for none.
    /// One that failed always is. Where searches go back, an execution counts for the part of its
    /// steps that it took itself.
    pub recheck: u64,
    /// Which steps may change places, for [`Strategy::Exhaustive`].
    pub relation: Relation,
    /// Orders that differ only in the places of independent steps count as one trace, whatever the
    /// strategy.
    pub classes: bool,
    /// Searches begin every execution anew rather than going back to the choice in which it differs
    /// from the one before. They find the same, later.
    pub restarts: bool,
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
            recheck: 64,
            relation: Relation::default(),
            classes: false,
            restarts: false,
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
/// Distinct traces that there is room for at once.
const FEW: u64 = 1 << 10;
/// Executions after which a search is cut.
const TRIAL: u64 = 512;

/// Part of an exploration that one thread does.
pub(crate) struct Unit {
    /// Executions of units before.
    before: u64,
    pub counts: Counts,
    pub failure: Option<Found>,
    pub complete: bool,
    /// Steps taken since an execution was made twice.
    steps: u64,
}

impl Runner {
    /// Explores `model`.
    pub fn explore(&self, model: &dyn Model) -> Outcome {
        self.explore_with(model, &mut |_| {})
    }

    /// Explores `model`, and says now and then where it has come to.
    pub fn explore_with(&self, model: &dyn Model, progress: &mut dyn FnMut(Progress)) -> Outcome {
        let clock = Clock::new(self.time_limit);
        let mut outcome = Outcome {
            strategy: self.strategy.clone(),
            config: self.config.clone(),
            counts: Counts::default(),
            complete: true,
            failure: None,
        };
        let of = self.strategy.is_seeded().then_some(self.executions);
        let mut merge = |outcome: &mut Outcome, unit: Unit| {
            let before = match self.strategy.is_seeded() {
                true => 0,
                false => outcome.counts.executions,
            };
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
        };
        let Plan { work, begun } = self.plan(model, &clock);
        if let Some(unit) = begun {
            merge(&mut outcome, unit);
        }
        in_order(
            work.units(),
            self.threads,
            || model.worker(),
            |worker, i| self.unit(worker, &work, i, &clock),
            |unit| unit.failure.is_some(),
            |unit| merge(&mut outcome, unit),
        );
        outcome.complete &= !clock.is_over();
        if let Some(found) = outcome.failure.take() {
            outcome.failure = Some(self.shrink(model, found));
        }
        outcome
    }

    /// Makes a failing order small, on a thread like those that executions run on.
    fn shrink(&self, model: &dyn Model, found: Found) -> Found {
        let runner = Runner {
            config: Config {
                seed: found.seed,
                ..self.config.clone()
            },
            ..self.clone()
        };
        let shrunk = self.on_worker(model, |worker| {
            let was = Run {
                result: Err(found.failed.clone()),
                trace: found.trace,
                objects: found.objects,
            };
            let known = found.failed.kind == NONDETERMINISM;
            let order = found.schedule.as_ref();
            let differs = || again::differs(&runner.config, worker, &was, order);
            match (!known).then(differs).flatten() {
                Some(failed) => Found {
                    failed,
                    ..found.clone()
                },
                None => shrink::shrink(&runner, worker, &found),
            }
        });
        shrunk.unwrap_or(found)
    }

    /// Does something on a thread like those that executions run on.
    fn on_worker<T: Send>(
        &self,
        model: &dyn Model,
        f: impl Fn(&mut Worker<'_>) -> T + Sync,
    ) -> Option<T> {
        let mut result = None;
        let unit = |worker: &mut Worker<'_>, _| f(worker);
        in_order(
            1,
            1,
            || model.worker(),
            unit,
            |_| true,
            |r| result = Some(r),
        );
        result
    }

    fn probe(&self, model: &dyn Model) -> Probe {
        let work = self.on_worker(model, |worker| {
            let (counter, work) = Counter::new();
            worker(&self.config, Begin::Alone, Box::new(counter));
            work.take()
        });
        let work = Arc::new(work.unwrap_or_default());
        Probe {
            steps: work.values().map(|&n| u64::from(n)).sum(),
            work,
        }
    }

    /// The units of work: a rule that knows neither the number of threads nor time. A search that
    /// is small is done at once; a larger one is cut at states near its beginning.
    fn plan(&self, model: &dyn Model, clock: &Clock) -> Plan {
        match &self.strategy {
            Strategy::Usual | Strategy::Replay(_) => Plan::of(Work::Once),
            strategy if strategy.is_seeded() => Plan::of(Work::Seeds {
                first: self.shard.0,
                stride: self.shard.1.max(1),
                all: self.executions.div_ceil(SEEDS),
                probe: match strategy.wants_probe() {
                    true => self.probe(model),
                    false => Probe::default(),
                },
            }),
            _ => self
                .on_worker(model, |worker| self.plan_search(worker, clock))
                .unwrap_or(Plan::of(Work::None)),
        }
    }

    fn plan_search(&self, worker: &mut Worker<'_>, clock: &Clock) -> Plan {
        let limit = self.executions.min(TRIAL);
        let mut trial = Unit::new();
        match self.strategy {
            Strategy::Bounded { preemptions } => {
                let all = (preemptions, &Picks::new());
                bounded::explore(self, worker, all, limit, clock, &mut trial);
            }
            _ => dpor::explore(
                self,
                worker,
                &dpor::Prefix::default(),
                limit,
                clock,
                &mut trial,
            ),
        }
        let over = trial.complete || trial.failure.is_some() || limit == self.executions;
        if over || clock.is_over() {
            // All shards know that there is nothing to share; the first one counts it.
            if self.shard.0 > 0 && trial.failure.is_none() {
                trial.counts = Counts::default();
            }
            return Plan {
                work: Work::None,
                begun: Some(trial),
            };
        }
        let mut begun = Unit::new();
        let parts = match self.strategy {
            Strategy::Bounded { preemptions } => {
                let (parts, cut) = bounded::cut(self, worker, preemptions, clock);
                begun.counts.cut = cut;
                let part = |picks| Part::Bounded(preemptions, picks);
                parts.into_iter().map(part).collect::<Vec<_>>()
            }
            _ => {
                let (parts, executions) = dpor::cut(self, worker, clock);
                begun.counts.executions = executions;
                parts.into_iter().map(Part::Exhaustive).collect()
            }
        };
        let (shard, shards) = (self.shard.0 as usize, self.shard.1.max(1) as usize);
        if shard > 0 {
            begun.counts = Counts::default();
        }
        let left = self.executions - limit;
        Plan {
            work: Work::Parts {
                each: (left / (parts.len() as u64).max(1)).max(1),
                own: parts.into_iter().skip(shard).step_by(shards).collect(),
            },
            begun: Some(begun),
        }
    }

    fn unit(&self, worker: &mut Worker<'_>, work: &Work, i: u64, clock: &Clock) -> Unit {
        let mut unit = Unit::new();
        match (work, &self.strategy) {
            (Work::Parts { own, each }, _) => match &own[i as usize] {
                Part::Bounded(bound, picks) => {
                    bounded::explore(self, worker, (*bound, picks), *each, clock, &mut unit);
                }
                Part::Exhaustive(prefix) => {
                    dpor::explore(self, worker, prefix, *each, clock, &mut unit);
                }
            },
            (
                Work::Seeds {
                    first,
                    stride,
                    probe,
                    ..
                },
                _,
            ) => {
                let from = (first + i * stride) * SEEDS;
                unit.before = from;
                for n in from..(from + SEEDS).min(self.executions) {
                    let config = Config {
                        seed: self.seed.wrapping_add(n),
                        ..self.config.clone()
                    };
                    let chooser = self.strategy.chooser(config.seed, probe);
                    if clock.is_over() || !unit.run(self, &config, worker, chooser) {
                        break;
                    }
                }
                if let Some(found) = &mut unit.failure {
                    found.execution += from;
                }
            }
            _ => {
                let chooser = self.strategy.chooser(self.seed, &Probe::default());
                unit.run(self, &self.config, worker, chooser);
            }
        }
        unit
    }

    /// Runs one known order.
    pub(crate) fn replay(&self, worker: &mut Worker<'_>, schedule: Schedule) -> (Run, Record) {
        observed(&self.config, worker, Box::new(Replay::new(schedule)))
    }
}

/// Runs once, and tells the order that was taken.
pub(crate) fn observed(
    config: &Config,
    worker: &mut Worker<'_>,
    chooser: Box<dyn Chooser>,
) -> (Run, Record) {
    let (recorder, record) = Recorder::new(chooser);
    let run = worker(config, Begin::Alone, Box::new(recorder));
    let record = record.take();
    (run, record)
}

impl Unit {
    fn new() -> Unit {
        Unit {
            before: 0,
            counts: Counts::default(),
            failure: None,
            complete: true,
            steps: 0,
        }
    }

    /// Runs once more. False after a failure.
    fn run(
        &mut self,
        runner: &Runner,
        config: &Config,
        worker: &mut Worker<'_>,
        chooser: Box<dyn Chooser>,
    ) -> bool {
        let explores = chooser.explores();
        let (run, record, class) = match runner.classes && explores {
            true => {
                let path = Rc::default();
                let observer = Observer::new(runner.relation, chooser, &path);
                let (run, record) = observed(config, worker, Box::new(observer));
                let class = path.borrow_mut().end(&runner.relation);
                (run, record, class)
            }
            false => {
                let (run, record) = observed(config, worker, chooser);
                let trace = run.trace;
                (run, record, trace)
            }
        };
        self.count(&run, &record, explores, Some(class));
        self.check_again(runner, config, worker, (&run, &record, explores));
        if let Some(found) = &mut self.failure {
            found.seed = config.seed;
        }
        self.failure.is_none()
    }

    /// At most so many executions are going to be counted.
    pub(crate) fn expect(&mut self, executions: u64) {
        self.counts.traces.reserve(executions.min(FEW) as usize);
    }

    /// Counts an execution; `trace` is what makes it distinct, if it can be that.
    pub(crate) fn count(&mut self, run: &Run, record: &Record, explores: bool, trace: Option<u64>) {
        self.counts.executions += 1;
        self.counts.choices += record.choices;
        self.counts.steps += record.steps;
        self.counts.traces.extend(trace);
        self.counts.sequence = mix(self.counts.sequence, run.trace);
        if let Err(failed) = &run.result {
            self.failure = Some(Found {
                failed: failed.clone(),
                execution: self.counts.executions,
                schedule: explores.then(|| record.schedule()),
                seed: 0,
                preemptions: record.preemptions(),
                steps: record.steps,
                objects: run.objects,
                trace: run.trace,
                shrunk: 0,
            });
        }
    }

    /// Makes the execution that was counted last again, if it is its turn. One that failed is made
    /// again before it is reported.
    pub(crate) fn check_again(
        &mut self,
        runner: &Runner,
        config: &Config,
        worker: &mut Worker<'_>,
        (run, record, explores): (&Run, &Record, bool),
    ) {
        if self.failure.is_some() || runner.recheck == 0 || !self.is_turn(runner, record) {
            return;
        }
        let order = explores.then(|| record.schedule());
        if let Some(failed) = again::differs(config, worker, run, order.as_ref()) {
            self.stray();
            if let Some(found) = &mut self.failure {
                (found.failed, found.trace) = (failed, run.trace);
                found.schedule = order;
                (found.preemptions, found.steps) = (record.preemptions(), record.steps);
                found.objects = run.objects;
            }
        }
    }

    /// An execution is to be made twice.
    fn is_turn(&mut self, runner: &Runner, record: &Record) -> bool {
        if runner.strategy.is_seeded() {
            let nth = self.before + self.counts.executions;
            return nth.is_multiple_of(runner.recheck);
        }
        self.steps += record.steps - record.passed;
        let turn = self.steps >= record.steps.saturating_mul(runner.recheck);
        if turn {
            self.steps = 0;
        }
        turn
    }

    /// The test is not deterministic.
    pub(crate) fn stray(&mut self) {
        let found = self.failure.take();
        self.failure = Some(Found {
            failed: Failed::nondeterminism(None, None),
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

/// What there is to do, beside what was done already to find it out.
struct Plan {
    work: Work,
    begun: Option<Unit>,
}

impl Plan {
    fn of(work: Work) -> Plan {
        Plan { work, begun: None }
    }
}

/// How work is cut.
enum Work {
    None,
    Once,
    /// Units of `SEEDS` seeds each: every `stride`th of `all`.
    Seeds {
        first: u64,
        stride: u64,
        all: u64,
        probe: Probe,
    },
    /// Parts of a search, with at most so many executions each.
    Parts {
        own: Vec<Part>,
        each: u64,
    },
}

/// What lies behind one beginning.
enum Part {
    /// With a bound on preemptions.
    Bounded(u64, Picks),
    Exhaustive(dpor::Prefix),
}

impl Work {
    fn units(&self) -> u64 {
        match self {
            Work::None => 0,
            Work::Once => 1,
            Work::Seeds {
                first, stride, all, ..
            } => all.saturating_sub(*first).div_ceil(*stride),
            Work::Parts { own, .. } => own.len() as u64,
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
    work: Rc<RefCell<walk::Work>>,
}

impl Counter {
    fn new() -> (Counter, Rc<RefCell<walk::Work>>) {
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
