//! Orders, explored: what each strategy finds, what it says, and how it is seen again.

use bpfsim::{
    Cpu, Ebpf, ProgramInput, ReplayError, ReplayString, Runner, Sim, Strategy, check_exhaustive,
    ensure_eq, replay,
};
use std::sync::atomic::{AtomicU64, Ordering};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");

/// Fails when an update is lost.
fn two_increments(sim: &Sim) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, OBJECT)?;
    sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    let counter: [u64; 3] = bpf.map("counters")?.get(&0u32)?.unwrap_or_default();
    ensure_eq!(counter[0], 2);
    Ok(())
}

/// The same, where soft interrupts are off: nothing can come between.
fn timer_waits(sim: &Sim) -> bpfsim::Result<()> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    let packet = ProgramInput::packet(&[0; 64]);
    bpf.program_mut("arm_then_inc_tc")?.test_run(packet)?;
    sim.finish()?;
    let counter: [u64; 3] = bpf.map("counters")?.get(&0u32)?.unwrap_or_default();
    ensure_eq!(counter[0], 2);
    Ok(())
}

fn runner(strategy: Strategy) -> Runner {
    Runner::new().strategy(strategy).executions(200)
}

fn strategies() -> Vec<Strategy> {
    vec![
        Strategy::Random,
        Strategy::Pct { depth: 2 },
        Strategy::Walk,
        Strategy::Bounded { preemptions: 1 },
        Strategy::Exhaustive,
    ]
}

#[test]
fn each_strategy_finds_the_lost_update_and_makes_it_small() {
    for strategy in strategies() {
        let outcome = runner(strategy.clone()).run(two_increments);
        let found = outcome.failure.as_ref().expect("an update is lost");
        assert_eq!(found.failed.kind, "expectation", "{strategy:?}");
        assert_eq!(found.preemptions, 1, "{strategy:?}: {found:?}");
        let order = outcome.replay().unwrap().to_string();
        let again = replay(two_increments, &order).unwrap_err();
        assert!(again.failed.like(&found.failed), "{strategy:?}: {again}");
        let again = again.outcome.and_then(|o| o.failure).unwrap();
        assert_eq!((again.trace, again.preemptions), (found.trace, 1));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for strategy in strategies() {
        for test in [two_increments, timer_waits] {
            let [one, four] = [1, 4].map(|n| runner(strategy.clone()).threads(n).run(test));
            assert_eq!(one.counts, four.counts, "{strategy:?}");
            assert_eq!(one.failure, four.failure, "{strategy:?}");
            assert_eq!(one.complete, four.complete, "{strategy:?}");
        }
    }
}

#[test]
fn an_exhaustive_search_says_what_it_covered() {
    let outcome = runner(Strategy::Exhaustive).run(timer_waits);
    assert!(outcome.complete && outcome.failure.is_none());
    let text = outcome.to_string();
    assert!(
        text.contains("every order, given sequential consistency"),
        "{text}"
    );
    check_exhaustive(timer_waits).unwrap();
}

#[test]
fn a_replay_of_something_else_is_an_error() {
    let outcome = runner(Strategy::Random).run(two_increments);
    let order = outcome.replay().unwrap();
    let kind = |e: bpfsim::TestFailure| (e.failed.kind, e.failed.message);
    let object = replay(
        |sim| Ebpf::load(sim, include_bytes!("../../../fixtures/three_kinds.bpf.o")).map(drop),
        &order.to_string(),
    );
    let (name, message) = kind(object.unwrap_err());
    assert_eq!(name, "replay");
    assert!(message.contains("other objects"), "{message}");
    let machine = Runner::new().config(bpfsim::Config {
        cpus: 4,
        ..Default::default()
    });
    let (_, message) = kind(
        machine
            .replay(two_increments, &order.to_string())
            .unwrap_err(),
    );
    assert!(message.contains("another machine"), "{message}");
    // Departures that the test does not offer.
    let departures = (0..200).map(|at| bpfsim::explore::Departure { at, pick: 9 });
    let stray = ReplayString {
        schedule: Some(bpfsim::explore::Schedule::new(departures.collect())),
        ..order
    };
    let (_, message) = kind(replay(two_increments, &stray.to_string()).unwrap_err());
    assert_eq!(message, ReplayError::Strayed.to_string());
}

#[test]
fn failing_orders_are_kept_and_run_first() {
    let folder = tempfile::tempdir().unwrap();
    let kept = |n: u64| {
        let runner = runner(Strategy::Random).executions(n);
        runner
            .regressions(Some(folder.path().to_path_buf()))
            .check(two_increments)
    };
    kept(0).unwrap();
    kept(200).unwrap_err();
    // No order is drawn: it is the one that was kept.
    kept(0).unwrap_err();
}

#[test]
fn a_panic_is_a_failure_with_its_place() {
    let outcome = runner(Strategy::Random).run(|_| panic!("no"));
    let found = outcome.failure.unwrap();
    assert_eq!(found.failed.kind, "panic");
    assert!(found.failed.place.unwrap().contains("explore.rs:"));
    assert_eq!(outcome.counts.executions, 1);
}

#[test]
fn a_test_that_differs_from_run_to_run_is_found_out() {
    let runs = AtomicU64::new(0);
    let outcome = runner(Strategy::Exhaustive).threads(1).run(|sim| {
        let bpf = Ebpf::load(sim, OBJECT)?;
        let program = bpf.program("inc")?;
        sim.spawn_on(Cpu(0), program, ProgramInput::empty())?;
        if runs.fetch_add(1, Ordering::Relaxed) < 2 {
            sim.spawn_on(Cpu(1), program, ProgramInput::empty())?;
        }
        sim.run_until_idle()
    });
    let found = outcome
        .failure
        .as_ref()
        .unwrap_or_else(|| panic!("{outcome}"));
    assert_eq!(found.failed.kind, "nondeterminism");
}

#[bpfsim::test(usual, random = 20, pct = 2, exhaustive)]
fn soft_interrupts_wait(sim: &Sim) -> bpfsim::Result<()> {
    timer_waits(sim)
}

/// Counts its own executions, which nothing of the simulation does.
fn counts(sim: &Sim, executions: &AtomicU64) -> bpfsim::Result<u64> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    let n = executions.fetch_add(1, Ordering::Relaxed);
    bpf.program_mut("inc")?.test_run(ProgramInput::empty())?;
    Ok(n)
}

#[test]
fn a_failure_that_does_not_come_again_is_nondeterminism() {
    let executions = AtomicU64::new(0);
    let seldom = |sim: &Sim| {
        bpfsim::ensure!(counts(sim, &executions)? % 10 != 9);
        Ok(())
    };
    let runner = Runner::new().executions(100).threads(1).regressions(None);
    let failed = runner.check(seldom).unwrap_err().failed;
    assert_eq!(failed.kind, "nondeterminism");
    assert!(failed.message.contains("at first it failed"), "{failed}");
    // In the usual order too, before it is told.
    executions.store(9, Ordering::Relaxed);
    let failed = bpfsim::check(seldom).unwrap_err().failed;
    assert_eq!(failed.kind, "nondeterminism");
}

#[test]
fn now_and_then_an_execution_is_made_twice() {
    let executions = AtomicU64::new(0);
    let other_values = |sim: &Sim| {
        let n = counts(sim, &executions)?;
        let bpf = Ebpf::load(sim, OBJECT)?;
        bpf.map("counters")?.set(&0u32, &[n, 0, 0])?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.finish()
    };
    for strategy in strategies() {
        let mut runner = Runner::new().strategy(strategy.clone()).threads(1);
        runner = runner.executions(200);
        runner.inner_mut().recheck = 1;
        let failed = runner.run(other_values).failure.unwrap().failed;
        assert_eq!(failed.kind, "nondeterminism", "{strategy:?}");
        assert!(failed.message.contains("gave the traces"), "{failed}");
        runner.inner_mut().recheck = 0;
        assert_eq!(runner.run(other_values).failure, None, "{strategy:?}");
    }
    let found = Runner::new().executions(200).run(other_values).failure;
    assert_eq!(found.unwrap().execution, 64);
}
