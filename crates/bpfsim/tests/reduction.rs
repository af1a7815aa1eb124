//! Partial-order reduction loses nothing: on small random programs its traces and final states are
//! those of all orders, enumerated one by one.

use bpfsim::explore::{Relation, Rule};
use bpfsim::{Config, Cpu, Ebpf, Outcome, ProgramInput, Runner, Sim, Strategy};
use bpfsim_testing::small_orders::{SmallOrders, small_orders};
use std::collections::BTreeSet;
use std::sync::Mutex;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/small_orders.bpf.o");

/// Programs.
const PROGRAMS: usize = 300;
/// Orders of one program; those with more are passed over.
const ORDERS: u64 = 400;

type States = BTreeSet<Vec<u8>>;

/// Runs a program, and notes in which state it ends.
fn run(program: &SmallOrders, sim: &Sim, states: &Mutex<States>) -> bpfsim::Result<()> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    bpf.set_global_bytes("scripts", &program.bytes())?;
    bpf.program_mut("prepare")?
        .test_run(ProgramInput::empty())?;
    for &(cpu, script) in &program.begun {
        let input = ProgramInput::context(&script.to_le_bytes());
        sim.spawn_on(Cpu(cpu), bpf.program("run")?, input)?;
    }
    sim.run_until_idle()?;
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
        horizon: 2_000_000,
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

#[test]
fn traces_and_states_are_those_of_all_orders() {
    let every = Strategy::Bounded {
        preemptions: u64::MAX,
    };
    let (mut seen, mut orders, mut executions, mut traces) = (0, 0, 0, 0);
    for seed in 0.. {
        let program = small_orders(seed);
        let (all, states) = explore(&program, every.clone(), ORDERS, None);
        if !all.complete {
            continue;
        }
        let (reduced, reached) = explore(&program, Strategy::Exhaustive, ORDERS * 2, None);
        assert!(reduced.complete, "seed {seed}: {program:?}");
        assert_eq!(reached, states, "seed {seed}: {program:?}");
        let (a, b) = (&reduced.counts.traces, &all.counts.traces);
        assert_eq!(
            a.symmetric_difference(b).count(),
            0,
            "seed {seed}: {} of {} traces: {program:?}",
            a.len(),
            b.len()
        );
        orders += all.counts.executions;
        executions += reduced.counts.executions;
        traces += a.len() as u64;
        seen += 1;
        if seen == PROGRAMS {
            break;
        }
    }
    eprintln!("{orders} orders, {executions} executions, {traces} traces");
    assert!(
        executions * 2 <= traces * 3,
        "{executions} executions, {traces} traces"
    );
    assert!(traces * 2 < orders, "nothing is reduced");
}

#[test]
fn leaving_out_a_dependency_loses_something() {
    let every = Strategy::Bounded {
        preemptions: u64::MAX,
    };
    let mut missing = vec![Rule::Memory, Rule::Map, Rule::Cpu, Rule::Idle, Rule::Offer];
    for seed in 0..PROGRAMS as u64 * 2 {
        let program = small_orders(seed);
        let (all, states) = explore(&program, every.clone(), ORDERS, None);
        if !all.complete {
            continue;
        }
        missing.retain(|&rule| {
            let (_, reached) = explore(&program, Strategy::Exhaustive, ORDERS * 2, Some(rule));
            reached == states
        });
        if missing.is_empty() {
            return;
        }
    }
    panic!("{missing:?} could be left out");
}
