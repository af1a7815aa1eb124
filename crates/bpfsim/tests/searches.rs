//! Searches: those that go back to choices find what those find that restart, on any number of
//! threads; the parts of a search are the whole of it.

mod small;

use bpfsim::{
    Cpu, Ebpf, Outcome, ProgramInput, Record, Runner, Sim, Strategy, ensure, explore::ReplayString,
    millis,
};

use small::{Mixture, Program, number, random_program};

const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");

type Test = fn(&Sim) -> bpfsim::Result<()>;

/// Four increments; what is left of them.
fn increments(sim: &Sim) -> bpfsim::Result<u64> {
    let bpf = Ebpf::load(sim, MODELS)?;
    sim.spawn_on(Cpu(0), bpf.program("small")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    bpf.global("counter")
}

/// Passes in every order, of which there are some hundreds.
fn passes(sim: &Sim) -> bpfsim::Result<()> {
    let left = increments(sim)?;
    ensure!((2..=4).contains(&left));
    Ok(())
}

/// Fails in few orders.
fn fails(sim: &Sim) -> bpfsim::Result<()> {
    let left = increments(sim)?;
    ensure!(left > 2);
    Ok(())
}

/// Several stretches, timers, more orders than are looked at.
fn timers(sim: &Sim) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, MODELS)?;
    sim.spawn_on(Cpu(0), bpf.program("arm")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
    sim.run_until_idle()?;
    sim.spawn_on(Cpu(1), bpf.program("arm")?, ProgramInput::empty())?;
    sim.run_for(millis(1))
}

const TESTS: &[Test] = &[passes, fails, timers];

fn strategies() -> [Strategy; 4] {
    let bounded = |preemptions| Strategy::Bounded { preemptions };
    [
        bounded(1),
        bounded(3),
        bounded(u64::MAX),
        Strategy::Exhaustive,
    ]
}

fn runner(strategy: &Strategy, threads: usize) -> Runner {
    let runner = Runner::new().strategy(strategy.clone());
    runner.executions(3_000).threads(threads).shrink(100)
}

fn same(a: &Outcome, b: &Outcome, what: &str) {
    assert_eq!(a.counts, b.counts, "{what}");
    assert_eq!(a.failure, b.failure, "{what}");
    assert_eq!(a.complete, b.complete, "{what}");
}

#[test]
fn going_back_finds_what_restarting_finds_on_any_number_of_threads() {
    for (i, test) in TESTS.iter().enumerate() {
        for strategy in strategies() {
            let what = format!("test {i}, {strategy:?}");
            let mut restarts = runner(&strategy, 1);
            restarts.inner_mut().restarts = true;
            let anew = restarts.run(test);
            same(&anew, &runner(&strategy, 1).run(test), &what);
            same(&anew, &runner(&strategy, 4).run(test), &what);
            assert!(anew.counts.executions > 1, "{what}: {anew}");
        }
    }
}

/// Of random programs too, failures among them, by any strategy.
#[test]
fn searches_of_random_programs_are_the_same_however_they_are_made() {
    let random = [Strategy::Random, Strategy::Walk, Strategy::Pct { depth: 3 }];
    let strategies: Vec<_> = strategies().into_iter().chain(random).collect();
    let mut failures = 0;
    for round in 0..number("SMALL_SEARCHES", 28) {
        let (program, config): (Box<dyn Program>, _) = match round % 2 {
            0 => random_program(round / 2),
            _ => (Box::new(Mixture::new(round)), Mixture::new(round).config()),
        };
        let strategy = &strategies[round as usize / 2 % strategies.len()];
        let found = |restarts, threads| {
            let runner = runner(strategy, threads).config(config.clone());
            let mut runner = runner.executions(60).regressions(None);
            runner.inner_mut().restarts = restarts;
            runner.run(|sim| program.run(sim).map(drop))
        };
        let (anew, what) = (
            found(true, 1),
            format!("round {round}, {strategy:?}: {program:?}"),
        );
        same(&anew, &found(false, 1), &what);
        same(&anew, &found(false, 3), &what);
        let (Some(order), Some(failure)) = (anew.replay(), &anew.failure) else {
            continue;
        };
        // From its text, recorded: outside of the engine.
        let order: ReplayString = order.to_string().parse().unwrap();
        let sim = Sim::with_chooser(order.config.clone(), order.chooser()).unwrap();
        sim.record(Record {
            moments: true,
            ..Record::default()
        });
        let again = program.run(&sim).map(drop).map_err(|e| e.failed());
        assert_eq!(again, Err(failure.failed.clone()), "{what}");
        assert_eq!(sim.trace_hash(), failure.trace, "{what}");
        failures += 1;
    }
    assert!(failures > 0);
}

#[test]
fn shards_are_the_whole() {
    for strategy in strategies() {
        let whole = runner(&strategy, 2).run(passes);
        assert!(whole.complete, "{strategy:?}: {whole}");
        let shards = (0..3).map(|i| runner(&strategy, 2).shard(i, 3).run(passes).counts);
        let shards: Vec<_> = shards.collect();
        let executions: u64 = shards.iter().map(|s| s.executions).sum();
        let traces: bpfsim::explore::Traces =
            shards.iter().flat_map(|s| s.traces.clone()).collect();
        assert_eq!(executions, whole.counts.executions, "{strategy:?}");
        assert_eq!(traces, whole.counts.traces, "{strategy:?}");
        let most = shards.iter().map(|s| s.executions).max();
        if whole.counts.executions > 512 {
            assert!(most < Some(executions * 2 / 3), "{strategy:?}: {shards:?}");
        }
    }
}
