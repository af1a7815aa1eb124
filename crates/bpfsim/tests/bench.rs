//! A bench runs what a test run runs, for as long as it likes.

use bpfsim::{Bench, Ebpf, ProgramInput, Sim};

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");

fn count(bpf: &Ebpf) -> u64 {
    let value = bpf.map("counters").unwrap().lookup(&[0; 4]).unwrap();
    u64::from_le_bytes(value.unwrap()[..8].try_into().unwrap())
}

#[test]
fn each_run_is_a_run_and_none_is_kept_for_ever() {
    for (program, input, at_once) in [
        ("inc", ProgramInput::empty(), 1),
        ("inc_tc", ProgramInput::packet(&[0; 64]).repeat(10), 10),
    ] {
        let sim = Sim::new().unwrap();
        let mut bpf = Ebpf::load(&sim, COUNTER).unwrap();
        let reader = bpf.clone();
        let runner = bpf.program_mut(program).unwrap();
        assert_eq!(runner.repeats(), at_once > 1);
        let mut bench = runner.bench(input).unwrap();
        assert_eq!(bench.runs_at_once(), at_once);
        let insns = bench.first().insns;
        assert!(insns > 5, "{insns}");
        // What the first run left is gone.
        assert_eq!(count(&reader), 0);
        let (mut runs, mut most) = (0, 0);
        while runs < 3 * Bench::FRESH_AFTER {
            assert_eq!(bench.run().unwrap(), insns);
            runs += at_once;
            most = most.max(count(&reader));
        }
        let limit = u64::from(Bench::FRESH_AFTER + at_once);
        assert!(
            most >= u64::from(Bench::FRESH_AFTER) && most < limit,
            "{most}"
        );
        assert!(sim.trace().events().len() as u64 <= 2 * limit);
    }
}

#[test]
fn what_cannot_be_run_is_said() {
    let sim = Sim::new().unwrap();
    let mut bpf = Ebpf::load(&sim, COUNTER).unwrap();
    let program = bpf.program_mut("inc_tc").unwrap();
    let refused = program.bench(ProgramInput::packet(&[0; 3])).err();
    assert!(refused.is_some_and(|e| e.to_string().contains("EINVAL")));
}
