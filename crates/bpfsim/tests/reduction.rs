//! Partial-order reduction loses nothing: on small random programs its traces and final states are
//! those of all orders, enumerated one by one.

#![allow(clippy::print_stdout)] // figures, for who asks for many

mod small;

use bpfsim::explore::{Relation, Rule};
use bpfsim::{Config, Cpu, EbpfLoader, Outcome, Runner, Sim, Strategy};
use bpfsim_testing::small_orders::{bytes, small_orders, small_printing};
use bpfsim_testing::small_worlds::{SmallWorld, THEMES, Theme, small_world};
use small::{Log, ORDERS_OBJECT, Program, finish, number, script};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Mutex;

/// Programs that are looked at; `SMALL_ORDERS` is another number.
const PROGRAMS: u64 = 60;
/// Orders of one program; those with more are passed over.
const ORDERS: u64 = 1_000;
/// Programs of each theme, and their orders; `SMALL_WORLDS` and `SMALL_LIMIT` are other numbers.
const OF_THEME: u64 = 3;
const WORLD_ORDERS: u64 = 300;

/// Rules of the dependency relation that programs of the first kind show to be needed, and those
/// that worlds do; [`Rule::Queue`] has a test of its own.
const RULES: [Rule; 6] = [
    Rule::Memory,
    Rule::Map,
    Rule::Element,
    Rule::Cpu,
    Rule::Idle,
    Rule::Deadline,
];
const OF_WORLDS: [Rule; 2] = [Rule::UserSpace, Rule::All];

type States = BTreeSet<Vec<u8>>;

fn explore(
    program: &dyn Program,
    strategy: Strategy,
    executions: u64,
    without: Option<Rule>,
) -> (Outcome, States) {
    let states = Mutex::new(States::new());
    let runner = Runner::new()
        .strategy(strategy)
        .executions(executions)
        .config(program.config());
    let mut runner = runner.threads(1).regressions(None);
    runner.inner_mut().relation = Relation { without };
    runner.inner_mut().classes = true;
    let outcome = runner.run(|sim| {
        let state = program.run(sim)?;
        states.lock().unwrap().insert(state);
        Ok(())
    });
    assert_eq!(outcome.failure, None, "{program:?}");
    (outcome, states.into_inner().unwrap())
}

/// What is compared.
#[derive(Default)]
struct Sums {
    programs: u64,
    orders: u64,
    executions: u64,
    traces: u64,
}

impl Sums {
    /// Holds the reduction against all orders, unless there are too many. Rules without which
    /// something is lost are taken out of `needless`.
    fn compare(&mut self, program: &dyn Program, orders: u64, needless: &mut Vec<Rule>) -> bool {
        let every = Strategy::Bounded {
            preemptions: u64::MAX,
        };
        let (all, states) = explore(program, every, orders, None);
        if !all.complete {
            return false;
        }
        let reduced = |without| explore(program, Strategy::Exhaustive, orders * 2, without);
        let (few, reached) = reduced(None);
        let (all_traces, traces) = (&all.counts.traces, &few.counts.traces);
        assert!(few.complete, "{program:?}");
        assert!(
            reached == states && traces == all_traces,
            "{} of {} states, {} of {} traces, {} that are none: {program:?}",
            reached.intersection(&states).count(),
            states.len(),
            traces.intersection(all_traces).count(),
            all_traces.len(),
            traces.difference(all_traces).count(),
        );
        self.programs += 1;
        self.orders += all.counts.executions;
        self.executions += few.counts.executions;
        self.traces += traces.len() as u64;
        needless.retain(|&rule| {
            let (fewer, reached) = reduced(Some(rule));
            reached == states && fewer.counts.traces == *all_traces
        });
        true
    }

    fn check(&self) {
        let Sums {
            programs,
            orders,
            executions,
            traces,
        } = self;
        println!("{programs} programs, {orders} orders, {executions} executions, {traces} traces");
        assert!(executions * 2 <= traces * 3, "1.5 executions for a trace");
        assert!(traces * 2 < *orders, "nothing is reduced");
    }
}

#[test]
fn traces_and_states_are_those_of_all_orders_and_no_rule_can_be_left_out() {
    let mut needless = RULES.to_vec();
    let (mut sums, mut seed) = (Sums::default(), 0);
    while sums.programs < number("SMALL_ORDERS", PROGRAMS) {
        sums.compare(&small_orders(seed), ORDERS, &mut needless);
        seed += 1;
    }
    sums.check();
    assert_eq!(needless, [], "rules that can be left out");
}

/// The same for what more than one kind of execution has a part in, of each theme as many.
#[test]
fn nothing_is_lost_of_sleepers_interrupts_users_and_objects() {
    let mut needless = OF_WORLDS.to_vec();
    let mut all = Sums::default();
    let mut seen = [0; THEMES.len()];
    let (wanted, limit) = (
        number("SMALL_WORLDS", OF_THEME),
        number("SMALL_LIMIT", WORLD_ORDERS),
    );
    for seed in number("SMALL_WORLDS_FROM", 0).. {
        let program = small_world(seed);
        let theme = (seed % THEMES.len() as u64) as usize;
        // Two that want two locks have more to wait for.
        let limit = match program.theme {
            Theme::Locks => 8 * limit,
            _ => limit,
        };
        if seen[theme] < wanted && all.compare(&program, limit, &mut needless) {
            seen[theme] += 1;
        }
        if seen.iter().all(|n| *n >= wanted) {
            break;
        }
    }
    all.check();
    assert_eq!(needless, [], "rules that can be left out");
}

/// The order in which executions print is one that tests see.
#[test]
fn lines_come_in_every_order() {
    let mut needless = vec![Rule::Printk];
    let mut sums = Sums::default();
    for seed in 0.. {
        sums.compare(&small_printing(seed), WORLD_ORDERS, &mut needless);
        if sums.programs == number("SMALL_PRINTING", 4 * OF_THEME) {
            break;
        }
    }
    sums.check();
    assert_eq!(needless, [], "rules that can be left out");
}

/// Code of a task that waited sees its own CPU's time, whatever others have done meanwhile, and all
/// lines that were printed before.
#[test]
fn what_tasks_see_of_time_and_lines_is_not_lost() {
    /// A task that looks while another one does this twice.
    #[derive(Debug)]
    struct Looks(u8);
    impl Program for Looks {
        fn run(&self, sim: &Sim) -> bpfsim::Result<Vec<u8>> {
            let mut scripts: bpfsim_testing::small_orders::Scripts = Default::default();
            scripts[1][..2].copy_from_slice(&[(self.0, 0), (self.0, 0)]);
            let loader = EbpfLoader::new().set_global("scripts", bytes(&scripts).as_slice());
            let bpf = loader.load(sim, ORDERS_OBJECT)?;
            sim.spawn_on(Cpu(1), bpf.program("run")?, script(1))?;
            let (table, log, looks) = (bpf.map("table")?, Log::default(), sim.clone());
            let seen = Rc::clone(&log);
            sim.spawn_user(Cpu(0), async move |user| {
                for key in 0..2_u32 {
                    let _ = user.lookup(&table, &key.to_le_bytes()).await;
                    let seen = &mut *seen.borrow_mut();
                    seen.push(looks.printk().len() as u8);
                    seen.extend(user.now().as_nanos().to_le_bytes());
                }
                Ok(())
            })?;
            finish(sim, 0)?;
            Ok(log.take())
        }

        fn config(&self) -> Config {
            Config::default()
        }
    }
    let mut needless = vec![Rule::Printk];
    let mut sums = Sums::default();
    let (prints, adds) = (14, 2);
    assert!(sums.compare(&Looks(adds), ORDERS, &mut needless));
    assert!(sums.compare(&Looks(prints), ORDERS, &mut needless));
    assert_eq!(needless, []);
}

/// Two CPUs give a task of a third work to do: that comes in either order. All orders of it are too
/// many to enumerate.
#[test]
fn queues_are_in_the_order_of_their_making() {
    let mut world = SmallWorld {
        cpus: 3,
        begun: vec![(1, 0), (2, 1)],
        users: Vec::new(),
        page_in: 0,
        passes: 0,
        ..small_world(1)
    };
    assert_eq!(world.theme, Theme::TaskWork);
    world.scripts = Default::default();
    for (script, op) in [(0, (15, 4)), (1, (15, 5)), (4, (4, 0)), (5, (4, 0))] {
        world.scripts[script][0] = op;
    }
    let reduced = |without| explore(&world, Strategy::Exhaustive, 20_000, without).0;
    let (whole, without) = (reduced(None), reduced(Some(Rule::Queue)));
    assert!(whole.complete && without.complete);
    let both = |o: &Outcome| o.counts.traces.len();
    assert!(both(&without) < both(&whole), "{} traces", both(&whole));
}

/// Tasks that give way at any time: a search that goes back to choices meets those that it met before.
#[test]
fn what_gives_way_is_gone_back_to() {
    let mut world = SmallWorld {
        theme: Theme::Preemption,
        cpus: 2,
        begun: vec![(0, 0), (0, 1)],
        users: Vec::new(),
        interrupts: Vec::new(),
        full: true,
        page_in: 0,
        horizon: 2_000_000,
        passes: 1_000_000,
        ..small_world(3)
    };
    world.scripts = Default::default();
    let each = [(0, 0), (0, 1), (1, 0), (4, 0), (5, 0)];
    for (script, at) in each {
        world.scripts[script][at] = (5, 5);
    }
    for script in [6, 7] {
        world.scripts[script][0] = (3, 1);
    }
    let every = Strategy::Bounded {
        preemptions: u64::MAX,
    };
    for strategy in [Strategy::Exhaustive, every] {
        let found = |restarts| {
            let runner = Runner::new().strategy(strategy.clone()).executions(4_000);
            let runner = runner.config(world.config()).threads(1);
            let mut runner = runner.regressions(None);
            runner.inner_mut().restarts = restarts;
            runner.run(|sim| world.run(sim).map(|_| ()))
        };
        let (back, anew) = (found(false), found(true));
        assert_eq!(back.failure, None);
        assert!(back.complete && back.counts == anew.counts, "{back} {anew}");
    }
}
