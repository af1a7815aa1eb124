//! Executions of small models under random orders, beside the same models in shuttle and loom.
//!
//! M1: two contexts increment a counter ten times each, a load and a store. M2: each increment under
//! a lock. M3: an element is inserted, looked up and deleted, while a callback looks it up, updates
//! and looks up again, with computation in between. Every load, store, lock and map operation is a
//! visible one. BPF's are in fixtures/order_models.bpf.c.
//!
//! M3 has a few dozen orders. In searches two contexts do it side by side, each with an element of its
//! own, so that a search does not end before it has begun.

use crate::measure::median;
use bpfsim::explore::{Pct, Random, Recorder};
use bpfsim::{
    Chooser, Config, Cpu, Detectors, Ebpf, Machine, Program, ProgramInput, Record, Report, Runner,
    Sim, Strategy,
};
use bpfsim_kernel::{Next, Offer, Step};
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const OBJECT: &[u8] = include_bytes!("../../fixtures/order_models.bpf.o");
const ROUNDS: usize = 10;

/// A model, in BPF and in Rust.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// As in docs/performance.md.
    pub name: &'static str,
    /// Both contexts run this program; of `arm` the other one is its timer's.
    program: &'static str,
    /// And this in searches.
    searched: &'static str,
    shuttle: fn(),
    /// As `shuttle`, and counts its [`OPERATIONS`].
    counted: fn(),
    loom: fn(),
}

/// All of them.
pub const MODELS: &[Model] = &[
    Model {
        name: "M1",
        program: "unlocked",
        searched: "unlocked",
        shuttle: in_shuttle::unlocked::<false>,
        counted: in_shuttle::unlocked::<true>,
        loom: in_loom::unlocked::<false>,
    },
    Model {
        name: "M2",
        program: "locked",
        searched: "locked",
        shuttle: in_shuttle::locked::<false>,
        counted: in_shuttle::locked::<true>,
        loom: in_loom::locked::<false>,
    },
    Model {
        name: "M3",
        program: "arm",
        searched: "arm_own",
        shuttle: in_shuttle::arm::<false>,
        counted: in_shuttle::arm::<true>,
        loom: in_loom::arm::<false>,
    },
];

/// What runs models: so many executions, and the time that they took by the thread's clock.
pub type Tool = fn(&Model, u64) -> Duration;

/// Tools by name. The first is bpfsim as explorations use it, the sixth what it is compared with.
pub const TOOLS: &[(&str, Tool)] = &[
    ("bpfsim", |m, n| {
        ours(m, n, &Config::default(), Order::Random)
    }),
    ("bpfsim, not recorded", |m, n| {
        ours(m, n, &Config::default(), Order::Unrecorded)
    }),
    ("bpfsim, no detectors of races", |m, n| {
        ours(m, n, &config(true, false), Order::Random)
    }),
    ("bpfsim, not checked", |m, n| {
        ours(m, n, &config(false, true), Order::Random)
    }),
    ("bpfsim, neither", |m, n| {
        ours(m, n, &config(false, false), Order::Random)
    }),
    ("shuttle", |m, n| {
        timed(|| shuttle::check_random(m.shuttle, n as usize))
    }),
    ("loom", loom),
    ("bpfsim, PCT", |m, n| {
        ours(m, n, &Config::default(), Order::Pct)
    }),
    ("shuttle, PCT", |m, n| {
        timed(|| shuttle::check_pct(m.shuttle, n as usize, 3))
    }),
    ("bpfsim, with a timeline", |m, n| {
        ours(m, n, &Config::default(), Order::Timeline)
    }),
    ("bpfsim, all orders, going back", |m, n| {
        search(m, n, &ALL, false)
    }),
    ("bpfsim, all orders, restarting", |m, n| {
        search(m, n, &ALL, true)
    }),
    ("bpfsim, each trace, going back", |m, n| {
        search(m, n, &Strategy::Exhaustive, false)
    }),
    ("bpfsim, each trace, restarting", |m, n| {
        search(m, n, &Strategy::Exhaustive, true)
    }),
];

/// All orders, depth first.
const ALL: Strategy = Strategy::Bounded {
    preemptions: u64::MAX,
};

/// The place of shuttle's random search in [`TOOLS`].
pub const PEER: usize = 5;

fn timed(f: impl FnOnce()) -> Duration {
    timed_by(ClockId::ThreadCPUTime, f)
}

fn timed_by(clock: ClockId, f: impl FnOnce()) -> Duration {
    let now = || {
        let t = clock_gettime(clock);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    };
    let start = now();
    f();
    now() - start
}

fn config(checked: bool, races: bool) -> Config {
    let mut config = Config {
        checked,
        ..Config::default()
    };
    if !races {
        config.detectors = Detectors {
            lost_update: Report::Off,
            data_race: Report::Off,
            ..config.detectors
        };
    }
    config
}

/// How bpfsim picks orders, and what it writes down.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// As `Runner` does: the choices, from which a failing order is told.
    Random,
    Unrecorded,
    Pct,
    /// All that a timeline shows.
    Timeline,
}

fn ours(model: &Model, times: u64, config: &Config, order: Order) -> Duration {
    let machine = Machine::new(config.clone()).expect("a machine");
    let steps = 42;
    timed(|| {
        for seed in 1..=times {
            let random = Random::new(seed);
            let sim = machine.begin(
                seed,
                match order {
                    Order::Unrecorded => Box::new(random),
                    Order::Pct => Box::new(Recorder::new(Pct::new(seed, 3, steps)).0),
                    Order::Random | Order::Timeline => Box::new(Recorder::new(random).0),
                },
            );
            if order == Order::Timeline {
                sim.record(Record {
                    moments: true,
                    ..Record::default()
                });
            }
            scene(sim, model.program).expect("it passes");
        }
    })
}

/// A search, whose one thread is the only one that works meanwhile: with executions that go back to
/// the choice in which they differ from the one before, or that begin anew.
fn search(model: &Model, times: u64, strategy: &Strategy, restarts: bool) -> Duration {
    timed_by(ClockId::ProcessCPUTime, || {
        let mut done = 0;
        // It may have fewer orders than are asked for.
        while done < times {
            let runner = Runner::new().strategy(strategy.clone()).threads(1);
            let mut runner = runner.executions(times - done);
            runner.inner_mut().restarts = restarts;
            let outcome = runner.run(|sim| scene(sim, model.searched));
            assert_eq!(outcome.failure, None);
            done += outcome.counts.executions.max(1);
        }
    })
}

fn scene(sim: &Sim, program: &str) -> bpfsim::Result<()> {
    let bpf = Ebpf::load_static(sim, OBJECT)?;
    let program: Program<'_> = bpf.program(program)?;
    sim.spawn_on(Cpu(0), program, ProgramInput::empty())?;
    if program.name() != "arm" {
        sim.spawn_on(Cpu(1), program, ProgramInput::empty())?;
    }
    sim.run_until_idle()
}

/// Visible operations of a mean execution under random orders, here and in shuttle.
pub fn operations(model: &Model, times: u64) -> [f64; 2] {
    let machine = Machine::new(Config::default()).expect("a machine");
    let ours = Rc::new(Cell::new(0));
    for seed in 1..=times {
        let counting = Counting {
            inner: Random::new(seed),
            operations: Rc::clone(&ours),
        };
        scene(machine.begin(seed, Box::new(counting)), model.program).expect("it passes");
    }
    let before = OPERATIONS.load(Ordering::Relaxed);
    shuttle::check_random(model.counted, times as usize);
    let theirs = OPERATIONS.load(Ordering::Relaxed) - before;
    [ours.get(), theirs].map(|operations| operations as f64 / times as f64)
}

/// Counts the steps that begin with something visible.
struct Counting {
    inner: Random,
    operations: Rc<Cell<u64>>,
}

impl Chooser for Counting {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.inner.choose(offer)
    }

    fn explores(&self) -> bool {
        self.inner.explores()
    }

    fn follows(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let did = &step.choices[step.picked].next;
        let visible = matches!(did, Next::Access(_) | Next::Call { .. });
        self.operations.update(|n| n + u64::from(visible));
        self.inner.stepped(step);
    }
}

/// What shuttle's models counted that are to count.
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// A visible operation of a peer's model.
fn visible<const COUNTED: bool>() {
    if COUNTED {
        OPERATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

/// loom tries every order; it may have fewer than are asked for, and looks at the limit now and then
/// only, so that the time is what as many executions take as it made.
fn loom(model: &Model, times: u64) -> Duration {
    let (mut done, mut spent) = (0, Duration::ZERO);
    let in_loom = model.loom;
    while done < times {
        let ran = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&ran);
        let mut builder = loom::model::Builder::new();
        builder.checkpoint_interval = 100;
        builder.max_permutations = Some((times - done) as usize);
        spent += timed(|| {
            builder.check(move || {
                counts.fetch_add(1, Ordering::Relaxed);
                in_loom();
            });
        });
        done += ran.load(Ordering::Relaxed).max(1);
    }
    spent.mul_f64(times as f64 / done as f64)
}

/// Executions a second of each of [`TOOLS`], the median of so many rounds in which they take turns,
/// each for about `share` ns.
pub fn rates(model: &Model, rounds: usize, share: f64) -> Vec<f64> {
    let each = |tool: Tool, times: u64| tool(model, times).as_nanos() as f64 / times as f64;
    let times: Vec<u64> = TOOLS
        .iter()
        .map(|(_, tool)| (share / each(*tool, 200)).max(50.0) as u64)
        .collect();
    let mut samples = vec![Vec::with_capacity(rounds); TOOLS.len()];
    for _ in 0..rounds {
        for (i, (_, tool)) in TOOLS.iter().enumerate() {
            samples[i].push(1e9 / each(*tool, times[i]));
        }
    }
    samples.into_iter().map(median).collect()
}

macro_rules! models {
    ($name:ident, $lib:ident) => {
        mod $name {
            use super::{ROUNDS, visible};
            use $lib::sync::atomic::{AtomicUsize, Ordering::SeqCst};
            use $lib::sync::{Arc, Mutex};
            use $lib::thread;

            pub fn unlocked<const COUNTED: bool>() {
                let counter = Arc::new(AtomicUsize::new(0));
                let task = |counter: Arc<AtomicUsize>| {
                    move || {
                        for _ in 0..ROUNDS {
                            visible::<COUNTED>();
                            let old = counter.load(SeqCst);
                            visible::<COUNTED>();
                            counter.store(old + 1, SeqCst);
                        }
                    }
                };
                let tasks = [counter.clone(), counter].map(|c| thread::spawn(task(c)));
                tasks.into_iter().for_each(|t| t.join().unwrap());
            }

            pub fn locked<const COUNTED: bool>() {
                let counter = Arc::new((Mutex::new(()), AtomicUsize::new(0)));
                let task = |counter: Arc<(Mutex<()>, AtomicUsize)>| {
                    move || {
                        let (lock, count) = &*counter;
                        for _ in 0..ROUNDS {
                            visible::<COUNTED>();
                            let held = lock.lock().unwrap();
                            visible::<COUNTED>();
                            let old = count.load(SeqCst);
                            visible::<COUNTED>();
                            count.store(old + 1, SeqCst);
                            visible::<COUNTED>();
                            drop(held);
                        }
                    }
                };
                let tasks = [counter.clone(), counter].map(|c| thread::spawn(task(c)));
                tasks.into_iter().for_each(|t| t.join().unwrap());
            }

            fn units(mut x: usize) -> usize {
                for _ in 0..50 {
                    x = std::hint::black_box(x.wrapping_mul(3).wrapping_add(1));
                }
                x
            }

            pub fn arm<const COUNTED: bool>() {
                let map = Arc::new(Mutex::new([None::<usize>; 2]));
                let other = map.clone();
                visible::<COUNTED>();
                map.lock().unwrap()[0] = Some(0);
                units(1);
                let timer = thread::spawn(move || {
                    visible::<COUNTED>();
                    let found = other.lock().unwrap()[0];
                    let x = units(1);
                    visible::<COUNTED>();
                    match found {
                        Some(_) => other.lock().unwrap()[1] = Some(x),
                        None => drop(other.lock().unwrap()),
                    }
                    units(x);
                    visible::<COUNTED>();
                    drop(other.lock().unwrap());
                });
                visible::<COUNTED>();
                drop(map.lock().unwrap());
                units(1);
                visible::<COUNTED>();
                map.lock().unwrap()[0] = None;
                timer.join().unwrap();
            }
        }
    };
}

models!(in_shuttle, shuttle);
models!(in_loom, loom);
