//! Orders and inputs together: for proptest, for fuzzers, and a search of our own.
//!
//! An [`Order`] is a list of departures from the default order, as a value that can be drawn, mutated
//! and shrunk. With the feature `proptest`, `orders` is a strategy of such orders, to be
//! combined with those of inputs; with the feature `libfuzzer`, orders are `Arbitrary`, and a
//! `Target` tells libFuzzer which branches of BPF ran. [`Runner::fuzz`] needs neither.

#[cfg(feature = "libfuzzer")]
use crate::Machine;
use crate::check::{Tested, one_order};
use crate::panics::quietly;
use crate::{Cache, Config, Result, Runner, Sim, TestResult};
use bpfsim_explore::fuzz::{Corpus, Features, Loose, Meetings, constants, features};
use bpfsim_explore::{
    Begin, Departure, Failed, Found, Model, Recorder, ReplayString, Schedule, Strategy, Worker,
};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

pub use bpfsim_explore::fuzz::Case;

/// An order of execution: any list of departures is one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Order(Schedule);

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.departures().iter().map(|d| (d.at, d.pick));
        f.debug_map().entries(each).finish()
    }
}

impl Order {
    /// The order that at each of these choices, by their numbers, picks this one of what is offered.
    pub fn new(picks: impl IntoIterator<Item = (u32, u32)>) -> Order {
        let departures = picks.into_iter().map(|(at, pick)| Departure { at, pick });
        Order(Schedule::new(departures.collect()))
    }

    /// Runs a test in this order. The failure says how to see it again without it.
    pub fn check(&self, test: impl Fn(&Sim) -> Result<()>) -> TestResult {
        self.check_on(&Config::default(), test)
    }

    /// [`Order::check`] on a machine of this configuration.
    pub fn check_on(&self, config: &Config, test: impl Fn(&Sim) -> Result<()>) -> TestResult {
        one_order(&test, config, &|| Box::new(Loose::new(self.0.clone())))
    }
}

/// Choices that orders depart at, and departures, at most, where nothing is said.
#[cfg(any(feature = "proptest", feature = "libfuzzer"))]
const CHOICES: u32 = 128;
#[cfg(any(feature = "proptest", feature = "libfuzzer"))]
const DEPARTURES: usize = 12;

/// Orders with departures among so many first choices: they shrink to fewer and earlier ones.
///
/// ```
/// use bpfsim::{Cpu, Ebpf, ProgramInput, Sim, ensure_eq, fuzz::orders};
/// use proptest::prelude::*;
///
/// const OBJECT: &[u8] = include_bytes!("../../../fixtures/fuzzed.bpf.o");
///
/// fn counts(sim: &Sim, n: u32) -> bpfsim::Result<()> {
///     let bpf = Ebpf::load_static(sim, OBJECT)?;
///     let mut packet = [0; 64];
///     packet[..3].copy_from_slice(b"bpf");
///     for cpu in 0..n {
///         let input = ProgramInput::packet(&packet);
///         sim.spawn_on(Cpu(cpu % 2), bpf.program("guarded_right")?, input)?;
///     }
///     sim.run_until_idle()?;
///     ensure_eq!(bpf.global::<u64>("count")?, u64::from(n));
///     sim.finish()
/// }
///
/// proptest!(|(order in orders(50), n in 1..4u32)| {
///     order.check(|sim| counts(sim, n))?;
/// });
/// ```
#[cfg(feature = "proptest")]
pub fn orders(choices: u32) -> impl proptest::strategy::Strategy<Value = Order> {
    use proptest::prelude::*;
    let departure = (0..choices.max(1), 0..4_u32);
    proptest::collection::vec(departure, 0..=DEPARTURES).prop_map(Order::new)
}

#[cfg(feature = "proptest")]
impl proptest::arbitrary::Arbitrary for Order {
    type Parameters = ();
    type Strategy = proptest::strategy::BoxedStrategy<Order>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        proptest::strategy::Strategy::boxed(orders(CHOICES))
    }
}

#[cfg(feature = "libfuzzer")]
impl<'a> arbitrary::Arbitrary<'a> for Order {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Order> {
        let n = u.int_in_range(0..=DEPARTURES)?;
        let mut picks = Vec::with_capacity(n);
        for _ in 0..n {
            picks.push((u.int_in_range(0..=CHOICES - 1)?, u.int_in_range(0..=3)?));
        }
        Ok(Order::new(picks))
    }
}

/// What a fuzzer runs: one machine, again and again.
///
/// libFuzzer is told of each branch of BPF that ran, taken or not, and of each pair of operations of
/// two executions that met, beside what it knows of Rust.
#[cfg(feature = "libfuzzer")]
pub struct Target {
    machine: Machine,
}

#[cfg(feature = "libfuzzer")]
impl Target {
    /// On a machine of this configuration.
    pub fn new(config: Config) -> Result<Target> {
        let machine = Machine::new(config)?;
        Ok(Target { machine })
    }

    /// Runs a test in an order.
    ///
    /// # Errors
    /// The failure and the order, as [`Order::check`] has them: what a fuzz target panics with.
    pub fn run(&self, order: &Order, test: impl Fn(&Sim) -> Result<()>) -> TestResult {
        let (chooser, met) = Meetings::new(Loose::new(order.0.clone()));
        let sim = self.machine.begin(0, Box::new(chooser));
        sim.count();
        let result = test(sim);
        let mut seen = met.take();
        features(&sim.kernel(), &mut seen);
        bpfsim_vm::counters::feed(seen);
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                // Once more, on a machine of its own, for what is to be told.
                order.check_on(&sim.config(), &test)?;
                Err(crate::TestFailure {
                    failed: error.failed(),
                    outcome: None,
                })
            }
        }
    }
}

/// Where fuzzing has come to.
#[derive(Debug, Clone, Copy)]
pub struct Fuzzing {
    /// Executions so far.
    pub executions: u64,
    /// Cases that are kept.
    pub cases: usize,
    /// Features seen: branches and meetings.
    pub features: usize,
}

/// What came of fuzzing.
#[derive(Debug, Clone)]
pub struct Fuzzed {
    /// Executions, without those that made a failure small.
    pub executions: u64,
    /// Features seen.
    pub features: usize,
    /// Cases that each showed something new.
    pub cases: Vec<Case>,
    /// The first failure, made small, and its inputs.
    pub failure: Option<(Found, Vec<Vec<u8>>)>,
    /// The machine, but for the seed.
    pub config: Config,
    /// Hash of the objects.
    pub objects: u32,
}

impl Fuzzed {
    /// A case as text that [`parse_case`] reads.
    pub fn case_text(&self, case: &Case) -> String {
        let replay = ReplayString {
            objects: self.objects,
            config: self.config.clone(),
            schedule: Some(case.order.clone()),
        };
        text(&replay, &case.inputs)
    }

    /// The failing case as text.
    pub fn failure_text(&self) -> Option<String> {
        let (found, inputs) = self.failure.as_ref()?;
        Some(text(&found.replay(&self.config), inputs))
    }
}

/// The order, and a line of hexadecimal for each input.
fn text(replay: &ReplayString, inputs: &[Vec<u8>]) -> String {
    let mut text = format!("{replay}\n");
    for input in inputs {
        let line: String = input.iter().map(|b| format!("{b:02x}")).collect();
        text += &format!("{line}\n");
    }
    text
}

/// Reads a case back; `None` for what is none.
pub fn parse_case(text: &str) -> Option<(ReplayString, Vec<Vec<u8>>)> {
    let mut lines = text.lines();
    let replay = lines.next()?.parse().ok()?;
    let bytes = |line: &str| -> Option<Vec<u8>> {
        let line = line.as_bytes();
        let digit = |b: u8| (b as char).to_digit(16);
        let byte = |pair: &[u8]| match *pair {
            [a, b] => Some((digit(a)? << 4 | digit(b)?) as u8),
            _ => None,
        };
        line.chunks(2).map(byte).collect()
    };
    let inputs: Option<Vec<_>> = lines.map(bytes).collect();
    Some((replay, inputs?))
}

/// A test of inputs.
type Test<'a> = dyn Fn(&Sim, &[Vec<u8>]) -> std::result::Result<(), Failed> + Sync + 'a;

/// Runs cases of one test.
struct Cases<'a> {
    worker: Worker<'a>,
    inputs: Rc<RefCell<Vec<Vec<u8>>>>,
    seen: Rc<RefCell<Features>>,
    /// What the programs compare with, once they are loaded.
    words: Rc<RefCell<Option<Vec<i64>>>>,
}

impl<'a> Cases<'a> {
    fn new(test: &'a Test<'a>) -> Self {
        let inputs = Rc::<RefCell<Vec<Vec<u8>>>>::default();
        let seen = Rc::<RefCell<Features>>::default();
        let words = Rc::<RefCell<Option<Vec<i64>>>>::default();
        let (own, into) = (Rc::clone(&inputs), Rc::clone(&seen));
        let known = Rc::clone(&words);
        let counted = move |sim: &Sim| {
            sim.count();
            let result = test(sim, &own.borrow());
            features(&sim.kernel(), &mut into.borrow_mut());
            known
                .borrow_mut()
                .get_or_insert_with(|| constants(&sim.kernel()));
            result
        };
        let worker = crate::check::executor(counted, Cache::default());
        Cases {
            worker,
            inputs,
            seen,
            words,
        }
    }
}

/// What came of a case.
struct Came {
    objects: u32,
    failed: bool,
    /// The order that was taken.
    case: Case,
    choices: u64,
    seen: Features,
    /// What the programs compare with.
    words: Vec<i64>,
}

impl Cases<'_> {
    fn run(&mut self, config: &Config, case: Case) -> Came {
        self.inputs.replace(case.inputs.clone());
        let (chooser, met) = Meetings::new(Loose::new(case.order.clone()));
        let (recorder, record) = Recorder::new(Box::new(chooser));
        let run = quietly(|| (self.worker)(config, Begin::Alone, Box::new(recorder)));
        let record = record.take();
        let mut seen = self.seen.take();
        seen.append(&mut met.borrow_mut());
        Came {
            objects: run.objects,
            failed: run.result.is_err(),
            case: Case {
                order: record.schedule(),
                ..case
            },
            choices: record.choices,
            seen,
            words: self.words.borrow().clone().unwrap_or_default(),
        }
    }
}

/// Cases that are made before what they show is looked at, at most: the same for any number of
/// threads, so that these find the same.
const ROUND: u64 = 64;

impl Runner {
    /// Searches for a failure by changing orders and inputs, led by what shows something new:
    /// branches of BPF, and operations of two executions that meet. Begins with `seeds`, runs on
    /// the runner's threads, and ends with the first failure or when the executions or the time are
    /// used up. Without a time limit equal runners find the same, on any number of threads.
    pub fn fuzz(
        &self,
        seeds: Vec<Case>,
        test: impl Fn(&Sim, &[Vec<u8>]) -> std::result::Result<(), Failed> + Sync,
        progress: &mut dyn FnMut(Fuzzing),
    ) -> Fuzzed {
        let runner = self.settled();
        let until = runner.time_limit.map(|t| std::time::Instant::now() + t);
        let mut config = runner.config.clone();
        config.seed = runner.seed;
        let mut corpus = Corpus::new(runner.seed, seeds);
        let mut done = Fuzzed {
            executions: 0,
            features: 0,
            cases: Vec::new(),
            failure: None,
            config: config.clone(),
            objects: 0,
        };
        let mut failed = None;
        bpfsim_explore::in_rounds(
            runner.threads,
            || Cases::new(&test),
            |cases, case| cases.run(&config, case),
            |round| {
                for came in round {
                    done.executions += 1;
                    done.objects = came.objects;
                    if done.executions == 1 {
                        corpus.learn(came.words);
                    }
                    if came.failed {
                        failed = Some(came.case);
                        return Vec::new();
                    }
                    corpus.judge(came.case, came.choices, &came.seen);
                }
                progress(Fuzzing {
                    executions: done.executions,
                    cases: corpus.cases().len(),
                    features: corpus.features(),
                });
                if until.is_some_and(|until| std::time::Instant::now() >= until) {
                    return Vec::new();
                }
                // Few at first: what they show leads the rest.
                let n = done.executions.clamp(1, ROUND);
                let n = n.min(runner.executions - done.executions);
                (0..n).map(|_| corpus.next_case()).collect()
            },
        );
        if let Some(Case { order, inputs }) = failed {
            done.failure = smallest(&runner, &config, &test, order, inputs, done.executions);
        }
        (done.features, done.cases) = (corpus.features(), corpus.cases().to_vec());
        done
    }
}

/// A failing order and its inputs, both made small: inputs shorter and of more zeros, as long as
/// that fails alike.
fn smallest(
    runner: &bpfsim_explore::Runner,
    config: &Config,
    test: &Test<'_>,
    order: Schedule,
    mut inputs: Vec<Vec<u8>>,
    execution: u64,
) -> Option<(Found, Vec<Vec<u8>>)> {
    let again = |inputs: &[Vec<u8>], order: &Schedule, shrink: u64| {
        let runner = bpfsim_explore::Runner {
            config: config.clone(),
            strategy: Strategy::Replay(order.clone()),
            shard: (0, 1),
            shrink,
            ..runner.clone()
        };
        let model = Tested::new(|sim: &Sim| test(sim, inputs));
        runner.explore(&model as &dyn Model).failure
    };
    let mut found = again(&inputs, &order, runner.shrink)?;
    let mut left = runner.shrink;
    for which in 0..inputs.len() {
        for change in [shorter as fn(&[u8], usize) -> Option<Vec<u8>>, zeroed] {
            let mut len = inputs[which].len();
            while len > 0 && left > 0 {
                let mut at = 0;
                while at < inputs[which].len() && left > 0 {
                    let whole = inputs[which].clone();
                    let changed = change(&whole[at..], len).map(|mut rest| {
                        let mut bytes = whole[..at].to_vec();
                        bytes.append(&mut rest);
                        bytes
                    });
                    let Some(changed) = changed else {
                        at += len;
                        continue;
                    };
                    inputs[which] = changed;
                    left -= 1;
                    let schedule = found.schedule.clone().unwrap_or_default();
                    match again(&inputs, &schedule, 0) {
                        Some(now) if now.failed.like(&found.failed) => found = now,
                        _ => {
                            inputs[which] = whole;
                            at += len;
                        }
                    }
                }
                len /= 2;
            }
        }
    }
    let order = found.schedule.clone().unwrap_or_default();
    let mut found = again(&inputs, &order, left).unwrap_or(found);
    found.execution = execution;
    Some((found, inputs))
}

/// Without the first `n` bytes.
fn shorter(bytes: &[u8], n: usize) -> Option<Vec<u8>> {
    bytes.get(n..).map(<[u8]>::to_vec)
}

/// With zeros in the first `n` bytes.
fn zeroed(bytes: &[u8], n: usize) -> Option<Vec<u8>> {
    let n = n.min(bytes.len());
    let mut changed = bytes.to_vec();
    changed[..n].fill(0);
    (changed != bytes).then_some(changed)
}
