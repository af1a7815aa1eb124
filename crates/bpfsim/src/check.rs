//! Running a test in one order or in many.

use crate::panics::{panicked, quiet_workers, quietly};
use crate::regressions::{FOLDER, Kept};
use crate::settings::Settings;
use crate::{Cache, Chances, Config, Error, Machine, Result, Sim};
use bpfsim_explore::{
    Begin, Failed, Found, Model, Outcome, Progress, Record, ReplayError, ReplayString, Run, Seed,
    Strategy, Worker, unlike,
};
use bpfsim_kernel::{Chooser, Usual};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

/// A test failed in some order.
pub struct TestFailure {
    /// What went wrong.
    pub failed: Failed,
    /// What was explored until then, and the order in which it failed; `None` when nothing was.
    pub outcome: Option<Box<Outcome>>,
}

/// What the functions of this module return, and what a `#[test]` can.
pub type TestResult = std::result::Result<(), TestFailure>;

// A test that returns an error is reported through Debug.
impl fmt::Debug for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failed.message)?;
        let Some(outcome) = &self.outcome else {
            return Ok(());
        };
        let Some(found) = &outcome.failure else {
            return Ok(());
        };
        let Some(replay) = outcome.replay().filter(|r| r.schedule.is_some()) else {
            return write!(f, "\n  in the usual order");
        };
        write!(
            f,
            "\n  in execution {} ({}), with {} of {} steps",
            found.execution,
            outcome.strategy,
            plural(found.preemptions, "preemption"),
            found.steps
        )?;
        if found.shrunk > 0 {
            write!(f, " (shrunk in {})", plural(found.shrunk, "execution"))?;
        }
        write!(f, "\n  again: bpfsim::replay(test, \"{replay}\")")
    }
}

impl std::error::Error for TestFailure {}

fn plural(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

impl TestFailure {
    /// Nothing could be run.
    fn unable(kind: &str, message: impl ToString) -> TestFailure {
        let failed = Failed {
            kind: kind.to_string(),
            place: None,
            object: None,
            message: message.to_string(),
        };
        TestFailure {
            failed,
            outcome: None,
        }
    }
}

/// Runs a test in the usual order.
pub fn check(test: impl Fn(&Sim) -> Result<()>) -> TestResult {
    alone(&test, &Config::default(), Strategy::Usual)
}

/// Runs a test in the order that a seed names.
pub fn check_seed(test: impl Fn(&Sim) -> Result<()>, seed: u64) -> TestResult {
    let config = Config {
        seed,
        ..Config::default()
    };
    let (run, record) = one(&test, &config, &|| Seed(seed).chooser());
    let strategy = match Seed(seed) {
        Seed::USUAL => Strategy::Usual,
        _ => Strategy::Replay(record.schedule()),
    };
    judge(run, record, config, strategy)
}

/// Runs a test in `n` random orders.
pub fn check_random(test: impl Fn(&Sim) -> Result<()> + Sync, n: u64) -> TestResult {
    Runner::new()
        .strategy(Strategy::Random)
        .executions(n)
        .check(test)
}

/// Runs a test in `n` orders of probabilistic concurrency testing, which finds bugs of up to
/// `depth` ordering constraints with a known probability.
pub fn check_pct(test: impl Fn(&Sim) -> Result<()> + Sync, n: u64, depth: u32) -> TestResult {
    Runner::new()
        .strategy(Strategy::Pct { depth })
        .executions(n)
        .check(test)
}

/// Runs a test in every order, but for those that differ in nothing that matters. Fails when there
/// are more than [a million](EXHAUSTIVE_LIMIT).
pub fn check_exhaustive(test: impl Fn(&Sim) -> Result<()> + Sync) -> TestResult {
    Runner::new()
        .strategy(Strategy::Exhaustive)
        .executions(EXHAUSTIVE_LIMIT)
        .check(test)
}

/// Most executions of [`check_exhaustive`].
pub const EXHAUSTIVE_LIMIT: u64 = 1_000_000;

/// Runs a test in the order that a failure printed: on the machine and with the objects that it
/// was printed for.
pub fn replay(test: impl Fn(&Sim) -> Result<()>, order: &str) -> TestResult {
    replay_on(&test, order, None)
}

/// Explores a test: how, on which machine, and within which bounds.
///
/// ```no_run
/// # fn test(sim: &bpfsim::Sim) -> bpfsim::Result<()> { sim.finish() }
/// use bpfsim::{Runner, Strategy};
/// let outcome = Runner::new()
///     .strategy(Strategy::Bounded { preemptions: 2 })
///     .executions(10_000)
///     .run(test);
/// println!("{outcome}");
/// ```
#[derive(Debug, Clone)]
pub struct Runner {
    inner: bpfsim_explore::Runner,
    /// Where failing orders are kept.
    regressions: Option<PathBuf>,
    settings: std::result::Result<Settings, String>,
}

impl Default for Runner {
    fn default() -> Runner {
        Runner::new()
    }
}

impl Runner {
    /// A thousand random orders, on as many threads as the machine has. What `BPFSIM_*` variables
    /// say goes before what the methods below say.
    pub fn new() -> Runner {
        Runner {
            inner: bpfsim_explore::Runner {
                strategy: Strategy::Random,
                ..Default::default()
            },
            regressions: Some(PathBuf::from(FOLDER)),
            settings: Settings::of_environment(),
        }
    }

    /// The machine.
    #[must_use]
    pub fn config(mut self, config: Config) -> Runner {
        self.inner.config = config;
        self
    }

    /// How orders are picked.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Runner {
        self.inner.strategy = strategy;
        self
    }

    /// Most executions; of strategies that draw, how many.
    #[must_use]
    pub fn executions(mut self, n: u64) -> Runner {
        self.inner.executions = n;
        self
    }

    /// What joins the order as a choice: random values, failed allocations, faults.
    #[must_use]
    pub fn chances(mut self, chances: Chances) -> Runner {
        self.inner.config.chances = chances;
        self
    }

    /// Seed of the first execution, for strategies that draw.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Runner {
        self.inner.seed = seed;
        self
    }

    /// Threads. Results do not depend on it.
    #[must_use]
    pub fn threads(mut self, n: usize) -> Runner {
        self.inner.threads = n.max(1);
        self
    }

    /// Time after which no execution begins any more.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Runner {
        self.inner.time_limit = Some(limit);
        self
    }

    /// Does part `part` (from 0) of `parts` of the work.
    #[must_use]
    pub fn shard(mut self, part: u64, parts: u64) -> Runner {
        self.inner.shard = (part, parts.max(1));
        self
    }

    /// Most executions for making a failing order small; 0 leaves it as it was found.
    #[must_use]
    pub fn shrink(mut self, executions: u64) -> Runner {
        self.inner.shrink = executions;
        self
    }

    /// The folder in which failing orders are kept, or none. It is `bpfsim-regressions` in the
    /// current one, which of tests is the package's.
    #[must_use]
    pub fn regressions(mut self, folder: Option<PathBuf>) -> Runner {
        self.regressions = folder;
        self
    }

    /// The runner below, to set what has no method here.
    pub fn inner_mut(&mut self) -> &mut bpfsim_explore::Runner {
        &mut self.inner
    }

    /// Explores a test, and says what came of it. Keeps no failing orders and runs no kept ones.
    pub fn run(&self, test: impl Fn(&Sim) -> Result<()> + Sync) -> Outcome {
        self.explore(|sim| test(sim).map_err(|e| e.failed()), &mut |_| {})
    }

    /// The runner below, with what the environment says.
    pub(crate) fn settled(&self) -> bpfsim_explore::Runner {
        let mut runner = self.inner.clone();
        if let Ok(settings) = &self.settings {
            settings.apply(&mut runner);
        }
        runner
    }

    /// [`Runner::run`] for tests that say themselves how they failed, with word of the progress.
    pub fn explore(
        &self,
        test: impl Fn(&Sim) -> std::result::Result<(), Failed> + Sync,
        progress: &mut dyn FnMut(Progress),
    ) -> Outcome {
        quiet_workers();
        self.settled().explore_with(&Tested::new(test), progress)
    }

    /// Explores a test: kept failing orders first. Fails when the test does in any order, and when
    /// a strategy that promises every order did not come to the end.
    pub fn check<F: Fn(&Sim) -> Result<()> + Sync>(&self, test: F) -> TestResult {
        let settings = self.settings.as_ref();
        let settings = settings.map_err(|wrong| TestFailure::unable("usage", wrong))?;
        let folder = settings
            .regressions
            .clone()
            .unwrap_or_else(|| self.regressions.clone());
        let kept = folder.map(|f| Kept::new(&f, std::any::type_name::<F>()));
        for order in kept.iter().flat_map(Kept::read) {
            self.check_kept(&test, &order)?;
        }
        let outcome = self.run(&test);
        if let Some(found) = &outcome.failure {
            if let (Some(kept), Some(replay)) = (&kept, outcome.replay()) {
                kept.add(&replay.to_string(), &found.failed.message);
            }
            return Err(TestFailure {
                failed: found.failed.clone(),
                outcome: Some(Box::new(outcome)),
            });
        }
        if outcome.strategy.is_exhaustive() && !outcome.complete {
            return Err(TestFailure {
                outcome: None,
                ..TestFailure::unable("limit", &outcome)
            });
        }
        Ok(())
    }

    /// What is wrong with the `BPFSIM_*` variables, if something is. [`Runner::check`] says so
    /// itself; the others take none of them up then.
    pub fn check_settings(&self) -> std::result::Result<(), String> {
        self.settings.as_ref().map(|_| ()).map_err(String::clone)
    }

    /// Runs a test in a known order on this runner's machine.
    pub fn replay(&self, test: impl Fn(&Sim) -> Result<()>, order: &str) -> TestResult {
        replay_on(&test, order, Some(&self.inner.config))
    }

    /// A kept order that cannot be taken any more says nothing; one that fails fails the test,
    /// whatever it was kept for.
    fn check_kept(&self, test: &impl Fn(&Sim) -> Result<()>, order: &str) -> TestResult {
        let Ok(mut replay) = order.parse::<ReplayString>() else {
            return Ok(());
        };
        replay.config.btf.clone_from(&self.inner.config.btf);
        let strategy = Strategy::Replay(replay.schedule.clone().unwrap_or_default());
        let (run, record) = one(test, &replay.config, &|| replay.chooser());
        match record.strayed {
            true => Ok(()),
            false => judge(run, record, replay.config, strategy),
        }
    }
}

fn replay_on(
    test: &impl Fn(&Sim) -> Result<()>,
    order: &str,
    config: Option<&Config>,
) -> TestResult {
    let unable = |e: ReplayError| TestFailure::unable("replay", e);
    let mut replay: ReplayString = order.parse().map_err(unable)?;
    if let Some(config) = config {
        // Known by the hash that they are a part of.
        replay.config.btf.clone_from(&config.btf);
        replay.check_config(config).map_err(unable)?;
    }
    let strategy = Strategy::Replay(replay.schedule.clone().unwrap_or_default());
    let (run, record) = one(test, &replay.config, &|| replay.chooser());
    replay
        .check_run(run.objects, record.strayed)
        .map_err(unable)?;
    judge(run, record, replay.config, strategy)
}

/// Runs once, on this thread.
fn alone(test: &impl Fn(&Sim) -> Result<()>, config: &Config, strategy: Strategy) -> TestResult {
    let (run, record) = one(test, config, &|| Box::new(Usual));
    judge(run, record, config.clone(), strategy)
}

/// Runs once, and where that fails once more: a failure that does not come again is another one.
fn one(
    test: &impl Fn(&Sim) -> Result<()>,
    config: &Config,
    chooser: &dyn Fn() -> Box<dyn Chooser>,
) -> (Run, Record) {
    let (mut run, record) = once(test, config, chooser());
    if run.result.is_err() {
        let (is, again) = quietly(|| once(test, config, chooser()));
        if let Some(failed) = unlike(&run, &is, &again) {
            run.result = Err(failed);
        }
    }
    (run, record)
}

fn once(
    test: &impl Fn(&Sim) -> Result<()>,
    config: &Config,
    chooser: Box<dyn Chooser>,
) -> (Run, Record) {
    let (recorder, record) = bpfsim_explore::Recorder::new(chooser);
    let run = match Sim::with_chooser(config.clone(), Box::new(recorder)) {
        Ok(sim) => run(&|sim: &Sim| test(sim).map_err(|e| e.failed()), &sim),
        Err(error) => unable(&error),
    };
    let record = record.borrow().clone();
    (run, record)
}

fn judge(run: Run, record: Record, config: Config, strategy: Strategy) -> TestResult {
    let Err(failed) = run.result else {
        return Ok(());
    };
    let found = Found {
        failed: failed.clone(),
        execution: 1,
        schedule: (strategy != Strategy::Usual).then(|| record.schedule()),
        seed: config.seed,
        preemptions: record.preemptions(),
        steps: record.steps,
        objects: run.objects,
        trace: run.trace,
        shrunk: 0,
    };
    let outcome = Outcome {
        strategy,
        config,
        counts: Default::default(),
        complete: false,
        failure: Some(found),
    };
    Err(TestFailure {
        failed,
        outcome: Some(Box::new(outcome)),
    })
}

/// A test, as the explorer sees it.
pub(crate) struct Tested<F> {
    test: F,
    /// What its workers load, read and verified once.
    cache: Cache,
}

impl<F> Tested<F> {
    pub fn new(test: F) -> Tested<F> {
        let cache = Cache::default();
        Tested { test, cache }
    }
}

impl<F: Fn(&Sim) -> std::result::Result<(), Failed> + Sync> Model for Tested<F> {
    fn worker(&self) -> Worker<'_> {
        executor(&self.test, self.cache.clone())
    }
}

/// Runs a test on a machine that begins anew each time.
pub(crate) fn executor<'a>(
    test: impl Fn(&Sim) -> std::result::Result<(), Failed> + 'a,
    cache: Cache,
) -> Worker<'a> {
    // A machine, and what it was made for.
    let mut own: Option<(Config, Machine)> = None;
    Box::new(move |config, begin, chooser| {
        if let Some((kind, _)) = &mut own {
            kind.seed = config.seed;
        }
        // A search goes on with the configuration that it began with.
        let goes_on = matches!(begin, Begin::Again(_));
        debug_assert!(!goes_on || own.as_ref().is_none_or(|own| own.0 == *config));
        let (_, machine) = match &mut own {
            Some(own) if goes_on || own.0 == *config => own,
            own => match Machine::new(config.clone()) {
                Ok(machine) => {
                    machine.use_cache(&cache);
                    own.insert((config.clone(), machine))
                }
                Err(error) => return unable(&error),
            },
        };
        let sim = match begin {
            Begin::Alone => machine.begin(config.seed, chooser),
            Begin::First => {
                machine.remember();
                machine.again(config.seed, 0, chooser)
            }
            Begin::Again(keep) => machine.again(config.seed, keep, chooser),
        };
        let run = run(&test, sim);
        // What a panic left undone is not built upon.
        if run.result.is_err() {
            own = None;
        }
        run
    })
}

/// Runs a test once in the order that a chooser takes.
pub(crate) fn one_order(
    test: &impl Fn(&Sim) -> Result<()>,
    config: &Config,
    chooser: &dyn Fn() -> Box<dyn Chooser>,
) -> TestResult {
    let (run, record) = one(test, config, chooser);
    let strategy = Strategy::Replay(record.schedule());
    judge(run, record, config.clone(), strategy)
}

/// There is no machine to run on.
fn unable(error: &Error) -> Run {
    Run {
        result: Err(error.failed()),
        trace: 0,
        objects: 0,
    }
}

/// Runs a test once. The user's assertions may panic: that too is a failure of this order.
fn run(test: &impl Fn(&Sim) -> std::result::Result<(), Failed>, sim: &Sim) -> Run {
    let result = match catch_unwind(AssertUnwindSafe(|| test(sim))) {
        Ok(result) => result,
        Err(payload) => Err(panicked(payload.as_ref())),
    };
    Run {
        result,
        trace: sim.trace_hash(),
        objects: sim.objects(),
    }
}

impl Error {
    /// What kind of failure it is, and where: as explorations tell failures apart.
    pub fn failed(&self) -> Failed {
        let (kind, place, object) = match self {
            Error::Failure(f) => {
                let place = f.place.as_ref().map(|p| match &p.line {
                    Some((file, line, _)) => format!("{file}:{line}"),
                    None => format!("{}, insn {}", p.function, p.insn),
                });
                (f.kind.name().to_string(), place, f.object())
            }
            Error::Expectation { file, line, .. } => {
                let place = Some(format!("{file}:{line}"));
                ("expectation".to_string(), place, None)
            }
            // What it says beside has times in it, which differ by the order.
            Error::Scheduler { name, exit } => {
                let reason = format!("{name}: {}", exit.kind.reason());
                ("scheduler".to_string(), None, Some(reason))
            }
            other => ("error".to_string(), None, Some(other.to_string())),
        };
        Failed {
            kind,
            place,
            object,
            message: self.to_string(),
        }
    }
}
