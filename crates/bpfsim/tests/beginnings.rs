//! Executions that go on from beginnings which others had are those that run from the start.

mod small;

use bpfsim::explore::{Pct, Random, Recorder, Walk, Work};
use bpfsim::{Chances, Config, Cpu, Ebpf, Machine, ProgramInput, Sim, millis, mix};
use bpfsim_kernel::{Chooser, Offer, Step};
use small::{Mixture, Program, number};
use std::sync::Arc;

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");
const MODELS: &[u8] = include_bytes!("../../../fixtures/order_models.bpf.o");
const CHANCES: &[u8] = include_bytes!("../../../fixtures/chances.bpf.o");
const WORLDS: &[u8] = include_bytes!("../../../fixtures/three_kinds.bpf.o");

/// Chooses as another one does, and says nothing about how executions begin.
struct Silent(Box<dyn Chooser>);

impl Chooser for Silent {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.0.choose(offer)
    }

    fn choose_among(&mut self, choices: usize, goes_on: usize, steps: usize) -> Option<usize> {
        self.0.choose_among(choices, goes_on, steps)
    }

    fn explores(&self) -> bool {
        self.0.explores()
    }

    fn follows(&self) -> bool {
        self.0.follows()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        self.0.stepped(step);
    }
}

/// Chooses at random, and says of few choices that they are worth coming back to.
struct Seldom(Random, u64);

impl Chooser for Seldom {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.1 += 1;
        self.0.choose(offer)
    }

    fn choose_among(&mut self, choices: usize, goes_on: usize, steps: usize) -> Option<usize> {
        self.1 += 1;
        self.0.choose_among(choices, goes_on, steps)
    }

    fn explores(&self) -> bool {
        true
    }

    fn follows(&self) -> bool {
        false
    }

    fn stepped(&mut self, step: &Step<'_>) {
        self.0.stepped(step);
    }

    fn comes_back(&self) -> bool {
        mix(self.1, 7).is_multiple_of(5)
    }

    fn begins_alike(&self) -> bool {
        true
    }
}

type Test = fn(&Sim) -> bpfsim::Result<String>;

fn pair(sim: &Sim, object: &'static [u8], programs: [&str; 2]) -> bpfsim::Result<Ebpf> {
    let bpf = Ebpf::load_static(sim, object)?;
    for (cpu, name) in (0..).zip(programs) {
        sim.spawn_on(Cpu(cpu), bpf.program(name)?, ProgramInput::empty())?;
    }
    Ok(bpf)
}

fn counted(sim: &Sim, programs: [&str; 2]) -> bpfsim::Result<String> {
    let bpf = pair(sim, MODELS, programs)?;
    sim.run_until_idle()?;
    Ok(format!("{}", bpf.global::<u64>("counter")?))
}

const TESTS: &[Test] = &[
    |sim| counted(sim, ["unlocked", "unlocked"]),
    |sim| counted(sim, ["locked", "unlocked"]),
    |sim| counted(sim, ["arm", "small"]),
    |sim| counted(sim, ["arm_own", "arm_own"]),
    // What is drawn differs with the seed.
    |sim| counted(sim, ["drawn", "drawn"]),
    // Few orders, and more stretches behind the first.
    |sim| {
        let bpf = pair(sim, MODELS, ["small", "drawn"])?;
        sim.run_until_idle()?;
        sim.spawn_on(Cpu(1), bpf.program("small")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(0), bpf.program("arm")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        sim.run_for(millis(1))?;
        Ok(format!("{:?}", bpf.map("flows")?.entries()?))
    },
    // Allocations that fail, and values that are drawn otherwise, are choices too.
    |sim| {
        let bpf = pair(sim, CHANCES, ["draw", "add"])?;
        sim.run_until_idle()?;
        Ok(format!("{:?}", bpf.map("grown")?.entries()?))
    },
    |sim| {
        let mut bpf = Ebpf::load_static(sim, WORLDS)?;
        sim.spawn_on(Cpu(1), bpf.program("arm_all")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        bpf.program_mut("arm_all")?
            .test_run(ProgramInput::empty())?;
        sim.run_for(millis(4))?;
        Ok(format!("{:?}", sim.printk()))
    },
    // Nothing to choose from.
    |sim| {
        let bpf = Ebpf::load(sim, COUNTER)?;
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        Ok(format!("{:?}", bpf.map("counters")?.entries()?))
    },
];

fn chooser(kind: u64, seed: u64) -> Box<dyn Chooser> {
    match kind {
        0 => Box::new(Random::new(seed)),
        1 => Box::new(Pct::new(seed, 3, 20)),
        2 => Box::new(Seldom(Random::new(seed), 0)),
        _ => Box::new(Walk::new(seed, Arc::new(Work::default()))),
    }
}

/// What a test sees of an order, and what is recorded of it.
fn seen(
    machine: &Machine,
    test: impl Fn(&Sim) -> bpfsim::Result<String>,
    seed: u64,
    chooser: Box<dyn Chooser>,
) -> impl PartialEq + std::fmt::Debug {
    let (recorder, record) = Recorder::new(chooser);
    let sim = machine.begin(seed, Box::new(recorder));
    let saw = test(sim).map_err(|e| e.to_string());
    let warnings: Vec<_> = sim.warnings().iter().map(ToString::to_string).collect();
    let record = record.take();
    (
        (saw, sim.trace_hash(), sim.now(), warnings),
        (record.schedule(), record.steps, record.preemptions()),
    )
}

/// By each strategy, on one machine after the other and now and then with another one between.
#[test]
fn what_is_known_of_beginnings_changes_nothing() {
    for (nth, test) in TESTS.iter().enumerate() {
        let config = Config {
            chances: Chances {
                random: u32::from(nth == 6),
                failures: u32::from(nth == 6),
                ..Chances::default()
            },
            ..Config::default()
        };
        let machines = [(); 2].map(|()| Machine::new(config.clone()).expect("a machine"));
        for round in 0..900 {
            let kind = mix(round, 1) % 11 / 3;
            // Some come again.
            let seed = mix(round, 2) % 600;
            let chooser = || chooser(kind, seed);
            let test = match mix(round, 3) % 50 {
                0 => &TESTS[mix(round, 4) as usize % TESTS.len()],
                _ => test,
            };
            let known = seen(&machines[0], test, seed, chooser());
            let want = seen(&machines[1], test, seed, Box::new(Silent(chooser())));
            assert_eq!(known, want, "test {nth}, round {round}, strategy {kind}");
        }
    }
}

/// Several objects, more CPUs, detectors that end a run, little fuel.
#[test]
fn random_mixtures_begin_as_they_would_anew() {
    for mixture in 0..number("SMALL_MIXTURES", 16) {
        let program = Mixture::new(mixture);
        let machines = [(); 2].map(|()| Machine::new(program.config()).expect("a machine"));
        let test = |sim: &Sim| Ok(format!("{:?}", program.run(sim)?));
        for round in 0..40 {
            let kind = mix(round, 1) % 11 / 3;
            let seed = mix(round, 2) % 30;
            let known = seen(&machines[0], test, seed, chooser(kind, seed));
            let silent = Box::new(Silent(chooser(kind, seed)));
            let want = seen(&machines[1], test, seed, silent);
            assert_eq!(known, want, "{program:?}, round {round}, strategy {kind}");
        }
    }
}
