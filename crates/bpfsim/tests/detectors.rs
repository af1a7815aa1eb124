//! What detectors find in small programs, and that they find nothing else.

use bpfsim::{
    Config, Cpu, Detectors, Ebpf, Error, FailureKind, ProgramInput, Report, Seed, Sim, Warning,
    millis,
};
use std::collections::BTreeSet;

const COUNTER: &[u8] = include_bytes!("../../../fixtures/counter_race.bpf.o");
const THREE_KINDS: &[u8] = include_bytes!("../../../fixtures/three_kinds.bpf.o");
const LRU_TIMER: &[u8] = include_bytes!("../../../fixtures/zoo/lru_timer.bpf.o");

type Scene = fn(&Sim, &mut Ebpf) -> bpfsim::Result<()>;

fn run(object: &[u8], config: Config, seed: u64, scene: Scene) -> (bpfsim::Result<()>, Sim) {
    let sim = Sim::with(config, Seed(seed)).unwrap();
    let mut bpf = Ebpf::load(&sim, object).unwrap();
    let result = scene(&sim, &mut bpf).and_then(|()| sim.finish());
    (result, sim)
}

/// The C line of a side of a finding.
fn line(place: Option<&bpfsim::Place>) -> String {
    let line = place.and_then(|p| p.line.as_ref());
    line.map_or("nowhere".into(), |(_, _, text)| text.trim().to_string())
}

fn told(w: &Warning) -> String {
    let other = w.other.as_ref().and_then(|o| o.place.as_ref());
    format!(
        "{}: `{}`, `{}`",
        w.kind.name(),
        line(w.place.as_deref()),
        line(other)
    )
}

/// All warnings of forty orders; none of them may fail.
fn warnings(object: &[u8], scene: Scene) -> BTreeSet<String> {
    let of = |seed| {
        let (result, sim) = run(object, Config::default(), seed, scene);
        result.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        sim.warnings().iter().map(told).collect::<Vec<_>>()
    };
    (0..40).flat_map(of).collect()
}

fn two_cpus(sim: &Sim, bpf: &mut Ebpf) -> bpfsim::Result<()> {
    sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("inc")?, ProgramInput::empty())?;
    sim.run_until_idle()
}

const LOAD: &str = "__u64 old = *count;";
const STORE: &str = "*count = old + 1;";

#[test]
fn a_racy_counter_is_warned_of_with_both_lines() {
    let expected = [
        format!("data-race: `{LOAD}`, `{STORE}`"),
        format!("data-race: `{STORE}`, `{LOAD}`"),
        format!("data-race: `{STORE}`, `{STORE}`"),
        format!("lost-update: `{STORE}`, `{STORE}`"),
    ];
    assert_eq!(warnings(COUNTER, two_cpus), BTreeSet::from(expected));
}

#[test]
fn a_lost_update_fails_where_that_is_asked_for() {
    let config = Config {
        detectors: Detectors {
            lost_update: Report::Fail,
            ..Detectors::OFF
        },
        ..Config::default()
    };
    let failures = (1..40).filter_map(|seed| run(COUNTER, config.clone(), seed, two_cpus).0.err());
    let mut n = 0;
    for e in failures {
        let Error::Failure(f) = e else { panic!("{e}") };
        assert!(matches!(f.kind, FailureKind::LostUpdate(_)), "{f}");
        let sides = [f.who.map(|w| w.0), f.other.map(|o| o.who.0)];
        assert!(sides.contains(&Some(Cpu(0))) && sides.contains(&Some(Cpu(1))));
        n += 1;
    }
    assert!(n > 0, "no order lost an update");
}

#[test]
fn nothing_is_looked_for_in_the_usual_order_or_when_off() {
    let (_, sim) = run(COUNTER, Config::default(), 0, two_cpus);
    assert_eq!(sim.warnings(), []);
    let config = Config {
        detectors: Detectors::OFF,
        ..Config::default()
    };
    for seed in 1..40 {
        let (_, sim) = run(COUNTER, config.clone(), seed, two_cpus);
        assert_eq!(sim.warnings(), []);
    }
}

#[test]
fn a_timer_that_is_held_off_races_with_nothing() {
    let found = warnings(COUNTER, |_, bpf| {
        let packet = ProgramInput::packet(&[0; 64]);
        bpf.program_mut("arm_then_inc_tc")?
            .test_run(packet)
            .map(drop)
    });
    assert_eq!(found, BTreeSet::new());
}

#[test]
fn a_timer_over_its_arming_program_loses_an_update() {
    let found = warnings(COUNTER, |_, bpf| {
        let mut program = bpf.program_mut("arm_then_inc")?;
        program.test_run(ProgramInput::empty()).map(drop)
    });
    assert!(
        found.contains(&format!("lost-update: `{STORE}`, `{STORE}`")),
        "{found:?}"
    );
}

#[test]
fn callbacks_of_three_kinds_are_clean() {
    let found = warnings(THREE_KINDS, |sim, bpf| {
        bpf.program_mut("arm_all")?
            .test_run(ProgramInput::empty())?;
        sim.run_for(millis(5))
    });
    assert_eq!(found, BTreeSet::new());
}

#[test]
fn an_evicted_timer_never_ran() {
    // Flows enough for one with an armed timer to be evicted.
    let (result, sim) = run(LRU_TIMER, Config::default(), 0, |_, bpf| {
        for id in 1_u32..9 {
            bpf.set_global("id", &id)?;
            bpf.program_mut("packet")?
                .test_run(ProgramInput::packet(&[0; 64]))?;
        }
        Ok(())
    });
    result.unwrap();
    let found = sim.warnings();
    let dropped = |w: &Warning| matches!(w.kind, FailureKind::NeverRan { dropped: true, .. });
    assert!(!found.is_empty() && found.iter().all(dropped), "{found:?}");
    assert!(
        found[0].other.as_ref().is_some_and(|o| o.place.is_some()),
        "who armed it"
    );
}
