//! What detectors find in small programs, and that they find nothing else.

use bpfsim::{
    Config, Cpu, Detectors, Ebpf, EbpfLoader, Error, FailureKind, ProgramInput, Report, Seed, Sim,
    Warning, ensure_eq, millis,
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
        assert_eq!(f.object().as_deref(), Some("counters[0].count"), "{f}");
        assert!(
            f.to_string()
                .starts_with("lost update of counters[0].count: "),
            "{f}"
        );
        let sides = [f.who.map(|w| w.0), f.other.map(|o| o.who.0)];
        assert!(sides.contains(&Some(Cpu(0))) && sides.contains(&Some(Cpu(1))));
        n += 1;
    }
    assert!(n > 0, "no order lost an update");
}

/// A warning names the element by its key as long as the memory has been only that one's.
#[test]
fn what_a_warning_is_about_is_named_by_its_key() {
    let object = include_bytes!("../../../fixtures/zoo/racy_refcount.bpf.o");
    fn le(key: u32) -> [u8; 4] {
        key.to_le_bytes()
    }
    let both: Scene = |sim, bpf| {
        bpf.map("objects")?.update(&le(1), &le(9), 0)?;
        sim.spawn_on(Cpu(0), bpf.program("use")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("use")?, ProgramInput::empty())?;
        sim.run_until_idle()
    };
    let then_another: Scene = |sim, bpf| {
        bpf.map("objects")?.update(&le(1), &le(9), 0)?;
        sim.spawn_on(Cpu(0), bpf.program("use")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("use")?, ProgramInput::empty())?;
        sim.run_until_idle()?;
        let objects = bpf.map("objects")?;
        objects.delete(&le(1))?;
        (2..6_u32).try_for_each(|key| objects.update(&le(key), &le(9), 0))
    };
    for (scene, named) in [(both, "objects[1].refs"), (then_another, "objects[?].refs")] {
        let about = |seed| -> Vec<String> {
            let (result, sim) = run(object, Config::default(), seed, scene);
            result.unwrap();
            sim.warnings().iter().filter_map(Warning::object).collect()
        };
        let about: BTreeSet<String> = (0..40).flat_map(about).collect();
        assert_eq!(about, [named.to_string()].into());
    }
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

const DETECTED: &[u8] = include_bytes!("../../../fixtures/detected.bpf.o");

/// A program of the fixture that Linux refuses, run in one order: how that fails.
fn refused(seed: u64, config: Config, scene: Scene) -> Option<bpfsim::Failure> {
    let sim = Sim::with(config, Seed(seed)).unwrap();
    let loader = EbpfLoader::new().unverified();
    let mut bpf = loader.load(&sim, DETECTED).unwrap();
    match scene(&sim, &mut bpf).and_then(|()| sim.finish()) {
        Ok(()) => None,
        Err(Error::Failure(f)) => Some(f),
        Err(other) => panic!("{other}"),
    }
}

fn run_one(name: &'static str) -> impl Fn(&Sim, &mut Ebpf) -> bpfsim::Result<()> {
    move |_, bpf| {
        let out = bpf.program_mut(name)?.test_run(ProgramInput::empty())?;
        ensure_eq!(out.return_value, 0);
        Ok(())
    }
}

#[test]
fn two_callbacks_that_lock_both_ways_wait_for_each_other() {
    let both: Scene = |sim, bpf| {
        sim.spawn_on(Cpu(0), bpf.program("arm_ab")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(1), bpf.program("arm_ba")?, ProgramInput::empty())?;
        sim.run_for(millis(1))
    };
    let one: Scene = |sim, bpf| {
        sim.spawn_on(Cpu(0), bpf.program("arm_ab")?, ProgramInput::empty())?;
        sim.run_for(millis(1))
    };
    let failures = |scene| (1..200).filter_map(move |seed| refused(seed, Config::default(), scene));
    assert_eq!(failures(one).count(), 0);
    let f = failures(both).next().expect("a circle of waits");
    let FailureKind::Deadlock(blocked) = &f.kind else {
        panic!("{f}");
    };
    let told: BTreeSet<(String, String)> = blocked
        .iter()
        .map(|b| (line(b.place.as_ref()), line(b.taken.as_ref())))
        .collect();
    let (first, second) = ("bpf_spin_lock(&a->lock);", "bpf_spin_lock(&b->lock);");
    assert_eq!(
        told,
        [(second.to_string(), first.to_string())].into(),
        "{f}"
    );
    assert_eq!(blocked.len(), 2);
    let cpus: BTreeSet<Cpu> = blocked.iter().map(|b| b.waiting.cpu).collect();
    assert_eq!(cpus.len(), 2);
}

/// What the executions of a circle wait for, and where each took what another wants: both lines.
fn circle(f: &bpfsim::Failure) -> Vec<(String, String)> {
    let FailureKind::Deadlock(blocked) = &f.kind else {
        panic!("{f}");
    };
    let lines = blocked.iter();
    let lines = lines.map(|b| (line(b.place.as_ref()), line(b.taken.as_ref())));
    lines.collect()
}

#[test]
fn a_callback_that_takes_its_lock_again_waits_for_itself() {
    let f = refused(0, Config::default(), |sim, bpf| {
        run_one("arm_twice")(sim, bpf)
    });
    let f = f.expect("it waits for itself");
    let told = circle(&f);
    assert_eq!(told.len(), 1, "{f}");
    assert!(told[0].0.ends_with("/* again */"), "{f}");
    assert_eq!(told[0].1, "bpf_spin_lock(&a->lock);");
}

#[test]
fn a_cancel_that_waits_for_a_callback_that_waits_for_its_caller_is_a_circle() {
    let both: Scene = |sim, bpf| {
        sim.spawn_on(Cpu(1), bpf.program("arm_locker")?, ProgramInput::empty())?;
        sim.spawn_on(Cpu(0), bpf.program("cancel_locked")?, ProgramInput::empty())?;
        sim.run_for(millis(1))
    };
    let mut failures = (1..200).filter_map(|seed| refused(seed, Config::default(), both));
    let f = failures.next().expect("a circle of waits");
    let told: BTreeSet<(String, String)> = circle(&f).into_iter().collect();
    let lock = "bpf_spin_lock(&a->lock); /* in the callback */";
    let taken = "bpf_spin_lock(&a->lock); /* before the cancel */";
    let cancel = "bpf_timer_cancel(&a->timer);";
    let wants = [(cancel, "nowhere"), (lock, taken)].map(|(a, b)| (a.to_string(), b.to_string()));
    assert_eq!(told, wants.into(), "{f}");
}

#[test]
fn a_callback_that_arms_itself_at_once_for_ever_is_a_livelock() {
    let config = Config {
        max_callbacks: 50,
        ..Config::default()
    };
    let f = refused(0, config, |sim, bpf| run_one("arm_again")(sim, bpf));
    let f = f.expect("no end");
    assert_eq!(f.kind, FailureKind::Livelock { callbacks: 50 }, "{f}");
    let armed = f.other.as_ref().and_then(|o| o.place.as_ref());
    assert_eq!(
        [line(f.place.as_deref()), line(armed)],
        [
            "static int arm_itself(void *map, __u32 *key, struct account *a)",
            "bpf_timer_start(&a->timer, 0, 0);"
        ],
        "{f}"
    );
    assert_eq!(f.object().as_deref(), Some("accounts[0]"), "{f}");
}

#[test]
fn what_is_left_at_exit_is_named_with_where_it_was_taken() {
    for (name, what, taken) in [
        ("leave_lock", "bpf_spin_lock", "bpf_spin_lock(&a->lock);"),
        (
            "leave_sample",
            "bpf_ringbuf_reserve",
            "return !bpf_ringbuf_reserve(&ring, 8, 0);",
        ),
    ] {
        let sim = Sim::new().unwrap();
        let loader = EbpfLoader::new().unverified();
        let mut bpf = loader.load(&sim, DETECTED).unwrap();
        let Err(Error::Failure(f)) = run_one(name)(&sim, &mut bpf) else {
            panic!("{name} leaves something");
        };
        assert_eq!(f.kind.name(), "left-over", "{f}");
        assert!(f.to_string().contains(what), "{f}");
        let other = f.other.as_ref().and_then(|o| o.place.as_ref());
        if name == "leave_sample" {
            assert_eq!(line(other), taken, "{f}");
        }
    }
}

#[test]
fn a_callback_of_a_task_that_is_stopped_never_ran() {
    let never: Scene = |sim, bpf| {
        let task = sim.task("reporter").on(Cpu(1)).stopped()?;
        bpf.set_global("reporter", &(task.pid(sim) as i32))?;
        run_one("for_another")(sim, bpf)
    };
    let f = refused(0, Config::default(), never).expect("it was armed, and did not run");
    let FailureKind::NeverRan { kind, dropped, .. } = &f.kind else {
        panic!("{f}");
    };
    assert_eq!((kind.name(), *dropped), ("task_work", false));
    let armed = f.other.as_ref().and_then(|o| o.place.as_ref());
    assert!(line(armed).contains("bpf_task_work_schedule_resume"), "{f}");
    // One that runs does.
    let runs: Scene = |sim, bpf| {
        let task = sim.task("reporter").on(Cpu(1)).user()?;
        bpf.set_global("reporter", &(task.pid(sim) as i32))?;
        run_one("for_another")(sim, bpf)
    };
    assert_eq!(refused(0, Config::default(), runs), None);
}

#[test]
fn tail_calls_exceptions_and_fuel_in_checked_mode() {
    let fuel = || Config {
        fuel: 10_000,
        ..Config::default()
    };
    for seed in [0, 1] {
        let f = refused(seed, fuel(), |sim, bpf| run_one("chain")(sim, bpf)).expect("a fault");
        assert_eq!(f.kind.name(), "out-of-bounds", "{f}");
        assert_eq!(
            f.place.as_ref().map(|p| p.function.as_str()),
            Some("beyond"),
            "{f}"
        );
        let f = refused(seed, fuel(), |sim, bpf| run_one("for_ever")(sim, bpf)).expect("no end");
        assert_eq!(f.kind.name(), "fuel", "{f}");
        assert_eq!(line(f.place.as_deref()), "while (!zero)", "{f}");
        let thrown: Scene = |_, bpf| {
            for _ in 0..3 {
                let mut program = bpf.program_mut("throw_out")?;
                let out = program.test_run(ProgramInput::empty())?;
                ensure_eq!(out.return_value, 7);
            }
            ensure_eq!(bpf.global::<u64>("caught")?, 3);
            Ok(())
        };
        assert_eq!(refused(seed, fuel(), thrown), None);
    }
}

#[test]
fn stores_of_user_space_race_too() {
    let scene: Scene = |sim, bpf| {
        let (map, key) = (bpf.map("counters")?, 0u32.to_le_bytes());
        sim.spawn_on(Cpu(0), bpf.program("inc")?, ProgramInput::empty())?;
        sim.spawn_user(Cpu(1), async move |user| {
            // The count, and the piece before the timer: two stores.
            let _ = user.update(&map, &key, &[1; 24], 0).await;
            Ok(())
        })?;
        sim.run_until_idle()
    };
    let found = warnings(COUNTER, scene);
    assert!(
        found.contains(&format!("data-race: `{LOAD}`, `nowhere`")),
        "{found:?}"
    );
    assert!(
        found.contains(&format!("data-race: `nowhere`, `{STORE}`")),
        "{found:?}"
    );
    assert!(
        found.contains(&format!("lost-update: `{STORE}`, `nowhere`")),
        "{found:?}"
    );
}

const GONE: &[u8] = include_bytes!("../../../fixtures/gone.bpf.o");

/// What Linux lets happen to what is gone is warned of, with who freed it, and does not fail.
#[test]
fn accesses_to_what_is_gone_are_warned_of_where_linux_permits_them() {
    let told = |program: &'static str| {
        let sim = Sim::with(Config::default(), Seed::USUAL).unwrap();
        let mut bpf = Ebpf::load(&sim, GONE).unwrap();
        let mut program = bpf.program_mut(program).unwrap();
        let input = match program.takes_packet() {
            true => ProgramInput::packet(&[0; 64]),
            false => ProgramInput::empty(),
        };
        program.test_run(input).unwrap();
        sim.finish().unwrap();
        sim.warnings().iter().map(told).collect::<Vec<_>>()
    };
    let (read, drop) = ("say(seen->read & 0);", "obj_drop(old);");
    for program in ["object_under_rcu", "object_at_any_time"] {
        assert_eq!(told(program), [format!("stale-access: `{read}`, `{drop}`")]);
    }
    let free = "bpf_arena_free_pages(&arena, (void __arena *)a, 1);";
    let expected = [
        ("say(*(volatile __u64 __arena *)none);", "nowhere"),
        ("*(volatile __u64 __arena *)none = 4;", "nowhere"),
        ("say(*(volatile __u64 __arena *)none);", "nowhere"),
        ("say(__sync_fetch_and_add(none, 5));", "nowhere"),
        ("say(__sync_val_compare_and_swap(none, 6, 7));", "nowhere"),
        ("say(__sync_lock_test_and_set(none, 8));", "nowhere"),
        ("say(__sync_fetch_and_add(half, 9));", "nowhere"),
        ("__sync_fetch_and_add(none, 10);", "nowhere"),
        ("*edge = 0x11223344;", "nowhere"),
        ("say(*edge);", "nowhere"),
        ("say(a[8]);", free),
        ("a[8] = 2;", free),
        ("say(a[8]);", free),
    ];
    let expected = expected.map(|(at, freed)| format!("no-page: `{at}`, `{freed}`"));
    assert_eq!(told("pages"), expected);
}
