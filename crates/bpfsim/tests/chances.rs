//! Random values, failed allocations and faults as choices beside the order.

use bpfsim::{
    Chances, Config, Cpu, Ebpf, PerfBuffer, ProgramInput, ReplayError, ReplayString, Runner, Sim,
    Strategy, check_exhaustive, check_random, ensure_eq, replay,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/chances.bpf.o");

fn runner(strategy: Strategy, chances: &str) -> Runner {
    let runner = Runner::new().strategy(strategy).executions(1_000);
    runner.chances(chances.parse().unwrap())
}

fn strategies() -> [Strategy; 5] {
    [
        Strategy::Random,
        Strategy::Pct { depth: 2 },
        Strategy::Walk,
        Strategy::Bounded { preemptions: 1 },
        Strategy::Exhaustive,
    ]
}

/// What each call of a program gave where it did not give 0, over all executions with one failure
/// or fault at most.
fn came(program: &str, input: &ProgramInput, chances: &str) -> BTreeMap<Vec<(usize, i64)>, u64> {
    let seen = Mutex::new(BTreeMap::new());
    let outcome = runner(Strategy::Exhaustive, chances).run(|sim| {
        let mut bpf = Ebpf::load(sim, OBJECT)?;
        sim.write_user(sim.main_task(), 0x1_0000, b"texts\0\0\0");
        bpf.set_global("user", &0x1_0000_u64)?;
        let _read = PerfBuffer::<u64>::open(bpf.map("events")?)?;
        bpf.program_mut(program)?.test_run(input.clone())?;
        sim.finish()?;
        let came: [i64; 16] = bpf.global("came")?;
        let unusual = came.into_iter().enumerate().filter(|(_, word)| *word != 0);
        *seen.lock().unwrap().entry(unusual.collect()).or_default() += 1;
        Ok(())
    });
    assert!(outcome.complete && outcome.failure.is_none(), "{outcome}");
    seen.into_inner().unwrap()
}

/// Calls that fail, each alone, and what each gives then.
fn one_each(came: BTreeMap<Vec<(usize, i64)>, u64>) -> Vec<(usize, i64)> {
    assert!(came.contains_key(&vec![]), "nothing need fail");
    let failed = came.into_keys().flatten();
    let failed: BTreeSet<(usize, i64)> = failed.collect();
    failed.into_iter().collect()
}

const ENOMEM: i64 = -12;

#[test]
fn each_allocation_fails_alone_as_linux_has_it_fail() {
    let came = came("allocate_each", &ProgramInput::empty(), "failures");
    let expected = [
        (0, ENOMEM), // a hash without preallocation; one with it does not allocate
        (2, ENOMEM), // an LRU hash
        (3, ENOMEM), // bpf_timer_init
        (4, ENOMEM), // bpf_wq_init
        (5, ENOMEM), // bpf_task_work_schedule_resume
        (6, 1),      // bpf_ringbuf_reserve
        (7, -11),    // bpf_ringbuf_output
        (8, -22),    // bpf_ringbuf_reserve_dynptr
        (9, 1),      // bpf_obj_new
        (10, 1),     // bpf_task_storage_get, and so the next, which makes none
        (11, 1),
    ];
    assert_eq!(one_each(came), expected);
    let packet = ProgramInput::packet(&[0; 64]);
    let trie = self::came("allocate_trie", &packet, "failures");
    assert_eq!(one_each(trie), [(0, ENOMEM)]);
}

#[test]
fn packets_records_and_iterators_find_no_memory_each_alone() {
    let packet = ProgramInput::packet(&[0; 64]);
    let grown = came("grow_packet", &packet, "failures");
    let (efault, enospc) = (-14, -28);
    let mut expected: Vec<_> = (0..4).map(|at| (at, ENOMEM)).collect();
    expected.extend([(4, efault), (5, ENOMEM), (6, enospc)]);
    assert_eq!(one_each(grown), expected);
    let iterated = came("iterate", &ProgramInput::empty(), "failures");
    // Of the first one's two words nothing is allocated; the second then has nothing to give.
    assert_eq!(one_each(iterated), [(1, ENOMEM), (2, 1), (3, ENOMEM)]);
}

/// An update is a system call of a task beside the test's: where its map allocates it may find no
/// memory, and another task sees nothing then.
#[test]
fn system_calls_of_tasks_find_no_memory() {
    let updates = |map: &'static str, chances: &str| {
        let seen = Mutex::new(BTreeSet::new());
        let outcome = runner(Strategy::Exhaustive, chances).run(|sim| {
            let bpf = Ebpf::load(sim, OBJECT)?;
            let map = bpf.map(map)?;
            let (to, key) = (map.clone(), 1_u32.to_le_bytes());
            let came = std::rc::Rc::new(std::cell::Cell::new(None));
            let told = came.clone();
            sim.spawn_user(Cpu(1), async move |user| {
                told.set(Some(user.update(&to, &key, &[1; 8], 0).await.is_ok()));
                Ok(())
            })?;
            sim.finish()?;
            let there = map.lookup(&key)?.is_some();
            seen.lock().unwrap().insert((came.get(), there));
            Ok(())
        });
        assert!(outcome.complete && outcome.failure.is_none(), "{outcome}");
        seen.into_inner().unwrap()
    };
    let (done, none) = ((Some(true), true), (Some(false), false));
    assert_eq!(updates("grown", "failures"), [none, done].into());
    assert_eq!(updates("grown", "faults"), [done].into());
    assert_eq!(
        updates("made", "failures"),
        [done].into(),
        "it has its memory"
    );
}

#[test]
fn user_memory_is_absent_for_each_read_alone() {
    let came = came("read_each", &ProgramInput::empty(), "faults");
    let efault = -14;
    let all: Vec<Vec<(usize, i64)>> = came.into_keys().collect();
    let text = i64::from(b't');
    let expected = [
        vec![(0, efault), (1, 6), (3, text)],
        vec![(1, efault), (3, text)],
        // What was not read is zero.
        vec![(1, 6), (2, efault)],
        vec![(1, 6), (3, text)],
        vec![(1, 6), (3, text), (4, efault)],
    ];
    let length = |mut row: Vec<(usize, i64)>| {
        // The string's length, where it is read, is 6 with its NUL, of both.
        if row.iter().all(|(at, _)| *at != 4) {
            row.push((4, 6));
        }
        row
    };
    let expected: BTreeSet<_> = expected.into_iter().map(length).collect();
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
}

/// Fails when 0 is drawn, which the drawn values are not.
fn draws(sim: &Sim) -> bpfsim::Result<()> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    bpf.program_mut("draw")?.test_run(ProgramInput::empty())?;
    sim.finish()?;
    ensure_eq!(bpf.global::<u64>("met")?, 0);
    Ok(())
}

/// Fails where an allocation does, and another CPU looks afterwards.
fn adds(sim: &Sim) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, OBJECT)?;
    sim.spawn_on(Cpu(0), bpf.program("add")?, ProgramInput::empty())?;
    sim.spawn_on(Cpu(1), bpf.program("look")?, ProgramInput::empty())?;
    sim.finish()?;
    // A look between the two stores finds the same without any failure.
    ensure_eq!(bpf.global::<u32>("open")?, 0);
    Ok(())
}

#[test]
fn each_strategy_finds_what_chance_brings_and_makes_it_small() {
    type Test = fn(&Sim) -> bpfsim::Result<()>;
    let tests: [(Test, &str); 2] = [(draws, "random"), (adds, "failures,random,faults")];
    for (test, chances) in tests {
        check_exhaustive(test).unwrap();
        check_random(test, 50).unwrap();
        for strategy in strategies() {
            let [one, four] =
                [1, 4].map(|n| runner(strategy.clone(), chances).threads(n).run(test));
            assert_eq!(one.failure, four.failure, "{strategy:?}");
            let found = one.failure.as_ref().expect("chance brings it");
            assert_eq!(found.preemptions, 0, "{strategy:?}: {found:?}");
            let order = one.replay().unwrap();
            let departures = order.schedule.as_ref().unwrap().departures().len();
            assert_eq!(departures, 1, "{strategy:?}: no more than that one call");
            let again = replay(test, &order.to_string()).unwrap_err();
            assert!(again.failed.like(&found.failed), "{again}");
        }
    }
}

#[test]
fn a_search_says_how_much_chance_it_had() {
    let outcome = runner(Strategy::Exhaustive, "failures=2,values=3/4").run(draws);
    assert!(outcome.complete && outcome.failure.is_none());
    let text = outcome.to_string();
    let bounds = "every order with at most 1 random values (3/4), at most 2 failed allocations in";
    assert!(text.contains(bounds), "{text}");
    // Three draws, of which at most one is 3 or 4 rather than what is drawn.
    assert_eq!(outcome.counts.executions, 7, "{text}");
}

#[test]
fn a_replay_on_another_machine_is_an_error_that_says_what_differs() {
    let outcome = runner(Strategy::Exhaustive, "random").run(draws);
    let order = outcome.replay().unwrap();
    let base = outcome.config.clone();
    let configs = [
        (
            "chances.random",
            Config {
                chances: Chances::default(),
                ..base.clone()
            },
        ),
        (
            "chances.values",
            Config {
                chances: "values=0".parse().unwrap(),
                ..base.clone()
            },
        ),
        (
            "checked",
            Config {
                checked: false,
                ..base.clone()
            },
        ),
        (
            "detectors",
            Config {
                detectors: bpfsim::Detectors::OFF,
                ..base.clone()
            },
        ),
    ];
    for (what, config) in configs {
        match order.check_config(&config) {
            Err(ReplayError::Config { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    let read: ReplayString = order.to_string().parse().unwrap();
    assert_eq!(read.check_config(&base), Ok(()));
}
