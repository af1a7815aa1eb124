//! Orders and inputs together: drawn by proptest, mutated by fuzzers, led by coverage.

use arbitrary::{Arbitrary, Unstructured};
use bpfsim::fuzz::{Case, Order, Target, orders, parse_case};
use bpfsim::{Config, Cpu, Ebpf, Error, Failed, ProgramInput, Runner, Sim, ensure_eq, replay};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config as Proptest, RngAlgorithm, TestError, TestRng, TestRunner};

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");
const FUZZED: &[u8] = include_bytes!("../../../fixtures/fuzzed.bpf.o");

/// So many increments on two CPUs, of which none may be lost.
fn increments(sim: &Sim, n: u32) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, COUNTER)?;
    for i in 0..n {
        sim.spawn_on(Cpu(i % 2), bpf.program("inc")?, ProgramInput::empty())?;
    }
    sim.finish()?;
    let counter: [u64; 3] = bpf.map("counters")?.get(&0u32)?.unwrap_or_default();
    ensure_eq!(counter[0], u64::from(n));
    Ok(())
}

#[test]
fn proptest_shrinks_the_order_and_the_input() {
    let config = Proptest {
        failure_persistence: None,
        ..Proptest::with_cases(2_000)
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let failed = runner.run(&(orders(60), 1..7u32), |(order, n)| {
        Ok(order.check(|sim| increments(sim, n))?)
    });
    let Err(TestError::Fail(reason, (order, n))) = failed else {
        panic!("an increment is lost in some order: {failed:?}");
    };
    assert!(n <= 3, "{n}, {order:?}");
    let departures = format!("{order:?}").matches(':').count();
    assert!(departures <= 2, "{order:?}");
    // It says how to see it without proptest.
    let text = reason.message();
    let at = text.find("bs1-").expect("a replay string");
    let replay_string = text[at..].split('"').next().unwrap();
    let again = replay(|sim| increments(sim, n), replay_string).unwrap_err();
    assert_eq!(again.failed.kind, "expectation");
    // What orders there are is a strategy of its own, too.
    let any = proptest::arbitrary::any::<Order>();
    any.new_tree(&mut runner).unwrap();
}

#[test]
fn libfuzzer_is_told_what_ran_of_bpf() {
    let target = Target::new(Config::default()).unwrap();
    let guarded = |order: &Order, data: &[u8]| {
        target.run(order, |sim| {
            let bpf = Ebpf::load(sim, FUZZED)?;
            for (cpu, data) in [(Cpu(0), data), (Cpu(1), b"bpf............")] {
                sim.spawn_on(cpu, bpf.program("guarded")?, ProgramInput::packet(data))?;
            }
            sim.finish()?;
            ensure_eq!(bpf.global::<u64>("count")?, bpf.global::<u64>("passed")?);
            Ok(())
        })
    };
    let counted = bpfsim_vm::counters::counted;
    assert_eq!(counted(), 0);
    let mut before = 0;
    for data in [
        &b"..............."[..],
        b"b..............",
        b"bp.............",
    ] {
        guarded(&Order::default(), data).unwrap();
        assert!(counted() > before, "{data:?} shows something new");
        before = counted();
        guarded(&Order::default(), data).unwrap();
        assert_eq!(counted(), before, "{data:?} again does not");
    }
    // Some bytes of a fuzzer are the order in which it fails.
    let mut state = 1_u64;
    let failed = (0..5_000).find_map(|_| {
        let bytes: Vec<u8> = (0..64)
            .map(|i| {
                state = bpfsim::mix(state, i);
                state as u8
            })
            .collect();
        let order = Order::arbitrary(&mut Unstructured::new(&bytes)).unwrap();
        guarded(&order, b"bpf............").err()
    });
    let failed = failed.expect("a count is lost in some order").to_string();
    assert!(failed.contains("bpfsim::replay(test, \"bs1-"), "{failed}");
}

/// Fails for one input in one kind of order.
fn fuzzed(sim: &Sim, inputs: &[Vec<u8>]) -> Result<(), Failed> {
    let run = || {
        let bpf = Ebpf::load(sim, FUZZED)?;
        for (cpu, data) in [(Cpu(0), &inputs[0][..]), (Cpu(1), b"bpf...........")] {
            sim.spawn_on(cpu, bpf.program("guarded")?, ProgramInput::packet(data))?;
        }
        sim.finish()?;
        ensure_eq!(bpf.global::<u64>("count")?, bpf.global::<u64>("passed")?);
        Ok(())
    };
    run().map_err(|e: Error| e.failed())
}

#[test]
fn coverage_leads_to_the_input_and_the_order() {
    let seed = || Case {
        inputs: vec![vec![7; 20]],
        ..Case::default()
    };
    let fuzz = |threads| {
        let runner = Runner::new().executions(60_000).threads(threads);
        runner.fuzz(vec![seed()], fuzzed, &mut |_| {})
    };
    let done = fuzz(1);
    let (found, inputs) = done.failure.as_ref().expect("three bytes and an order");
    assert_eq!(found.failed.kind, "expectation");
    assert_eq!(found.preemptions, 1);
    // Nothing of the input is left but what it takes.
    let mut small = b"bpf".to_vec();
    small.resize(14, 0);
    assert_eq!(inputs[..], [small]);
    assert!(
        done.cases.len() >= 4,
        "each byte is a step: {:?}",
        done.cases
    );
    // The same again, on any number of threads, and what was written is what is read.
    let again = fuzz(3);
    assert_eq!(
        (again.executions, &again.failure, &again.cases),
        (done.executions, &done.failure, &done.cases)
    );
    let text = done.failure_text().unwrap();
    let (order, read) = parse_case(&text).unwrap();
    assert_eq!((order, &read), (found.replay(&done.config), inputs));
    for case in &done.cases {
        let (order, inputs) = parse_case(&done.case_text(case)).unwrap();
        assert_eq!(
            (order.schedule.as_ref(), &inputs),
            (Some(&case.order), &case.inputs)
        );
    }
}
