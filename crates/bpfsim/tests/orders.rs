//! Two increments of one counter, each a load, an add and a store; and what of orders is the same however
//! they are taken.

mod small;

use bpfsim::explore::{Pct, Random, Walk, Work};
use bpfsim::{Cache, Config, Cpu, Ebpf, ProgramInput, Record, Seed, Sim};
use bpfsim_kernel::Chooser;
use small::{Mixture, Program, number, random_program};
use std::collections::BTreeSet;
use std::sync::Arc;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");

/// What the counter is after `scene` in each of a hundred orders; every order is run twice and
/// must be the same both times.
fn outcomes(scene: fn(&Sim, &mut Ebpf) -> bpfsim::Result<()>) -> BTreeSet<u64> {
    let loaded = Cache::default();
    let run = |seed: u64| {
        let sim = Sim::with(Default::default(), Seed(seed)).unwrap();
        sim.use_cache(&loaded);
        let mut bpf = Ebpf::load(&sim, OBJECT).unwrap();
        scene(&sim, &mut bpf).unwrap();
        sim.finish().unwrap();
        let counter: [u64; 3] = bpf.map("counters").unwrap().get(&0u32).unwrap().unwrap();
        (counter[0], sim.trace_hash())
    };
    let mut hashes = BTreeSet::new();
    let counts = (0..100).map(|seed| {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed} is not one order");
        hashes.insert(first.1);
        first.0
    });
    let counts = counts.collect();
    assert!(hashes.len() > 1, "all orders have one hash");
    counts
}

#[test]
fn two_cpus_lose_an_update() {
    let seen = outcomes(|sim, bpf| {
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()
    });
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn two_cpus_lose_an_update_with_soft_interrupts_off_too() {
    let seen = outcomes(|sim, bpf| {
        let packet = ProgramInput::packet(&[0; 64]);
        sim.spawn_on(Cpu(0), bpf.program("inc_tc")?, packet.clone())?;
        sim.spawn_on(Cpu(1), bpf.program("inc_tc")?, packet)?;
        sim.run_until_idle()
    });
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_timer_over_a_syscall_program_loses_an_update() {
    let seen = outcomes(|_, bpf| {
        bpf.program_mut("arm_then_inc")?
            .test_run(ProgramInput::empty())
            .map(drop)
    });
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_timer_waits_for_a_program_with_soft_interrupts_off() {
    let seen = outcomes(|_, bpf| {
        let packet = ProgramInput::packet(&[0; 64]);
        bpf.program_mut("arm_then_inc_tc")?
            .test_run(packet)
            .map(drop)
    });
    assert_eq!(seen, BTreeSet::from([2]));
}

/// Turns are taken inside the engine, and programs and system calls end there, unless a recording is made:
/// what programs return, the order and where instructions run out are the same. Some CPUs have one program,
/// some two.
#[test]
fn turns_inside_the_engine_are_turns() {
    const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");
    let loaded = Cache::default();
    let run = |program: &str, fuel: u64, seed: u64, record: bool| {
        let config = Config {
            fuel,
            ..Config::default()
        };
        let sim = Sim::with(config, Seed(seed)).unwrap();
        sim.use_cache(&loaded);
        let bpf = Ebpf::load(&sim, MODELS).unwrap();
        sim.record(Record {
            moments: record,
            ..Record::default()
        });
        let cpus = [Cpu(0), Cpu(1), Cpu(0)];
        let spawn = |&cpu: &Cpu| {
            let program = bpf.program(program).unwrap();
            sim.spawn_on(cpu, program, ProgramInput::empty()).unwrap()
        };
        let jobs: Vec<_> = cpus[..2 + (seed % 2) as usize].iter().map(spawn).collect();
        let result = sim.run_until_idle().map_err(|e| e.to_string());
        let warnings = sim.warnings().len();
        let returned: Vec<_> = jobs.into_iter().map(|job| sim.result(job)).collect();
        (result, sim.trace_hash(), sim.now(), warnings, returned)
    };
    let mut ends = BTreeSet::new();
    for program in ["unlocked", "locked", "arm_own"] {
        for fuel in (1..130).step_by(4).chain([100_000]) {
            for seed in 0..3 {
                let inside = run(program, fuel, seed, false);
                let case = (program, fuel, seed);
                assert_eq!(inside, run(program, fuel, seed, true), "{case:?}");
                ends.insert((program, inside.0.is_ok()));
            }
        }
    }
    assert_eq!(ends.len(), 6, "some end and some run out: {ends:?}");
}

/// Random programs, in several orders each: turns in the engine are those outside of it.
#[test]
fn random_programs_take_turns_inside_the_engine_as_outside() {
    let mut ends = BTreeSet::new();
    for round in 0..number("SMALL_TURNS", 40) {
        let (program, config): (Box<dyn Program>, _) = match round % 2 {
            0 => random_program(round / 2),
            _ => (Box::new(Mixture::new(round)), Mixture::new(round).config()),
        };
        let loaded = Cache::default();
        let run = |seed: u64, record: bool| {
            let chooser: Box<dyn Chooser> = match seed {
                0 => Box::new(Pct::new(round, 3, 60)),
                1 => Box::new(Walk::new(round, Arc::new(Work::default()))),
                _ => Box::new(Random::new(seed)),
            };
            let sim = Sim::with_chooser(config.clone(), chooser).unwrap();
            sim.use_cache(&loaded);
            sim.record(Record {
                moments: record,
                ..Record::default()
            });
            let result = program.run(&sim).map_err(|e| e.to_string());
            let warnings: Vec<_> = sim.warnings().iter().map(ToString::to_string).collect();
            (result, sim.trace_hash(), sim.now(), warnings, sim.printk())
        };
        for seed in 0..5 {
            let inside = run(seed, false);
            assert_eq!(
                inside,
                run(seed, true),
                "round {round}, {seed}: {program:?}"
            );
            ends.insert(inside.0.is_ok());
        }
    }
    assert_eq!(ends.len(), 2, "some end and some fail");
}
