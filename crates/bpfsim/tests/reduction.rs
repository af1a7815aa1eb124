//! Partial-order reduction loses nothing: on small random programs its traces and final states are
//! those of all orders, enumerated one by one.

#![allow(clippy::print_stdout)] // figures, for who asks for many

use bpfsim::explore::{Relation, Rule};
use bpfsim::{Config, Cpu, EbpfLoader, Outcome, ProgramInput, Runner, Sim, Strategy};
use bpfsim_testing::small_orders::{SmallOrders, small_orders};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/small_orders.bpf.o");

/// Programs that are looked at; `SMALL_ORDERS` is another number.
const PROGRAMS: u64 = 60;
/// Orders of one program; those with more are passed over.
const ORDERS: u64 = 1_000;

/// Every rule of the dependency relation.
const RULES: [Rule; 7] = [
    Rule::Memory,
    Rule::Map,
    Rule::Element,
    Rule::Cpu,
    Rule::Idle,
    Rule::Deadline,
    Rule::All,
];

type States = BTreeSet<Vec<u8>>;

/// Runs a program, and notes in which state it ends.
fn run(program: &SmallOrders, sim: &Sim, states: &Mutex<States>) -> bpfsim::Result<()> {
    let scripts = program.bytes();
    let loader = EbpfLoader::new().set_global("scripts", scripts.as_slice());
    let mut bpf = loader.load(sim, OBJECT)?;
    bpf.program_mut("prepare")?
        .test_run(ProgramInput::empty())?;
    for &(cpu, script) in &program.begun {
        let input = ProgramInput::context(&script.to_le_bytes());
        sim.spawn_on(Cpu(cpu), bpf.program("run")?, input)?;
    }
    sim.run_until_idle()?;
    if program.passes > 0 {
        sim.run_for(Duration::from_nanos(program.passes))?;
    }
    let mut state = bpf.global_bytes("words")?;
    state.extend(bpf.global_bytes("out")?);
    let elements = bpf.map("elements")?;
    for key in 0..8_u32 {
        let element = elements.lookup(&key.to_le_bytes())?.unwrap_or_default();
        state.extend(&element[8..16]);
    }
    let table = bpf.map("table")?;
    for key in 0..2_u32 {
        state.extend(table.lookup(&key.to_le_bytes())?.unwrap_or_default());
        state.push(0xff);
    }
    states.lock().unwrap().insert(state);
    Ok(())
}

fn explore(
    program: &SmallOrders,
    strategy: Strategy,
    executions: u64,
    without: Option<Rule>,
) -> (Outcome, States) {
    let states = Mutex::new(States::new());
    let config = Config {
        horizon: program.horizon,
        ..Config::default()
    };
    let runner = Runner::new()
        .strategy(strategy)
        .executions(executions)
        .config(config);
    let mut runner = runner.threads(1);
    runner.inner_mut().relation = Relation { without };
    runner.inner_mut().classes = true;
    let outcome = runner.run(|sim| run(program, sim, &states));
    assert_eq!(outcome.failure, None, "{program:?}");
    (outcome, states.into_inner().unwrap())
}

/// What is compared.
#[derive(Default)]
struct Sums {
    orders: u64,
    executions: u64,
    traces: u64,
}

#[test]
fn traces_and_states_are_those_of_all_orders_and_no_rule_can_be_left_out() {
    let programs = std::env::var("SMALL_ORDERS")
        .ok()
        .and_then(|n| n.parse().ok());
    let every = Strategy::Bounded {
        preemptions: u64::MAX,
    };
    let mut needless = RULES.to_vec();
    let (mut sums, mut seen, mut seed) = (Sums::default(), 0, 0);
    while seen < programs.unwrap_or(PROGRAMS) {
        let program = small_orders(seed);
        seed += 1;
        let (all, states) = explore(&program, every.clone(), ORDERS, None);
        if !all.complete {
            continue;
        }
        seen += 1;
        let reduced = |without| explore(&program, Strategy::Exhaustive, ORDERS * 2, without);
        let (few, reached) = reduced(None);
        let (all_traces, traces) = (&all.counts.traces, &few.counts.traces);
        assert!(few.complete, "seed {}: {program:?}", seed - 1);
        assert!(
            reached == states && traces == all_traces,
            "seed {}: {} of {} states, {} of {} traces, {} that are none: {program:?}",
            seed - 1,
            reached.intersection(&states).count(),
            states.len(),
            traces.intersection(all_traces).count(),
            all_traces.len(),
            traces.difference(all_traces).count(),
        );
        sums.orders += all.counts.executions;
        sums.executions += few.counts.executions;
        sums.traces += traces.len() as u64;
        needless.retain(|&rule| {
            let (fewer, reached) = reduced(Some(rule));
            reached == states && fewer.counts.traces == *all_traces
        });
    }
    let Sums {
        orders,
        executions,
        traces,
    } = sums;
    println!("{seen} programs, {orders} orders, {executions} executions, {traces} traces");
    assert_eq!(needless, [], "rules that can be left out");
    assert!(executions * 2 <= traces * 3, "1.5 executions for a trace");
    assert!(traces * 2 < orders, "nothing is reduced");
}
