//! Objects that are damaged: loading and running one gives an error or a result, never a panic,
//! a hang or the host's memory.

use bpfsim::{Config, Cpu, Ebpf, EbpfLoader, ProgramInput, Record, Seed, Sim, millis};
use bpfsim_kernel::BOOTED;
use proptest::prelude::*;
use std::time::Duration;

const OBJECTS: [&[u8]; 4] = [
    include_bytes!("../../../fixtures/order_models.bpf.o"),
    include_bytes!("../../../fixtures/three_kinds.bpf.o"),
    include_bytes!("../../../fixtures/async_basic.bpf.o"),
    include_bytes!("../../../fixtures/counter_race.bpf.o"),
];

/// Loads an object, verified or not, and, when that works, runs all its programs in some order.
fn try_all(bytes: &[u8], loader: &EbpfLoader, seed: u64) -> Result<(), bpfsim::Error> {
    let config = Config {
        fuel: 10_000,
        max_callbacks: 1_000,
        cpus: 3,
        ..Config::default()
    };
    let sim = Sim::with(config, Seed(seed))?;
    let mut bpf = loader.load(&sim, bytes)?;
    let names: Vec<_> = bpf.programs().map(|p| p.name().to_string()).collect();
    let input = |packet: bool| match packet {
        true => ProgramInput::packet(&[0; 64]),
        false => ProgramInput::empty(),
    };
    // Side by side, and one after another.
    for (name, cpu) in names.iter().chain(&names).zip([0, 1, 2, 1, 0, 2]) {
        let packet = bpf.program_mut(name)?.takes_packet();
        sim.spawn_on(Cpu(cpu), bpf.program(name)?, input(packet))?;
    }
    sim.run_until_idle()?;
    for name in names {
        let mut program = bpf.program_mut(&name)?;
        program.test_run(input(program.takes_packet()))?;
        sim.run_for(millis(5))?;
    }
    for map in bpf.maps() {
        map.first_entries(1_000)?;
    }
    Ok(())
}

#[test]
fn truncated_anywhere() {
    for object in OBJECTS {
        assert!(try_all(object, &EbpfLoader::new(), 0).is_ok());
        let step = object.len() / 200;
        for len in (0..object.len()).step_by(step) {
            let error = Ebpf::load(&Sim::new().unwrap(), &object[..len]).err();
            let error = error.unwrap_or_else(|| panic!("{len} of {} bytes load", object.len()));
            assert!(!error.to_string().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bits_flipped(
        which in 0..OBJECTS.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
        seed in 0u64..3,
    ) {
        let mut bytes = OBJECTS[which].to_vec();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Err(error) = try_all(&bytes, &EbpfLoader::new(), seed) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// Damage where it hurts most: in the instructions and relocations of a program. Nobody
    /// verifies them.
    #[test]
    fn words_replaced(
        which in 0..OBJECTS.len(),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..6),
        seed in 0u64..3,
    ) {
        let mut bytes = OBJECTS[which].to_vec();
        for (at, word) in words {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let _ = try_all(&bytes, &EbpfLoader::new().unverified(), seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// Instructions put in the place of others, and with other offsets: programs of which the verifier knows
    /// nothing, that do all the same whether or not turns are taken in the engine.
    #[test]
    fn instructions_replaced(
        changes in prop::collection::vec((0usize..0x180, 0usize..0x180, -2i16..4, 0u8..4), 1..6),
        programs in prop::collection::vec((0usize..6, 0u32..3), 2..5),
        seed in 1u64..100,
    ) {
        /// Where the sections with code begin.
        const CODE: usize = 0x40;
        let mut bytes = OBJECTS[0].to_vec();
        for (at, from, off, what) in changes {
            let (at, from) = (CODE + 8 * at, CODE + 8 * from);
            match what {
                0 => bytes[at + 2..at + 4].copy_from_slice(&(4 * off).to_le_bytes()),
                1 => bytes[at + 4..at + 8].copy_from_slice(&i32::from(off).to_le_bytes()),
                2 => bytes[at] = bytes[from],
                _ => bytes.copy_within(from..from + 8, at),
            }
        }
        let run = |moments: bool| {
            let config = Config { fuel: 2_000, max_callbacks: 100, cpus: 3, ..Config::default() };
            let sim = Sim::with(config, Seed(seed)).expect("a machine");
            sim.record(Record { moments, ..Record::default() });
            let load = EbpfLoader::new().unverified().load(&sim, &bytes);
            let result = load.and_then(|bpf| {
                let names: Vec<_> = bpf.programs().map(|p| p.name().to_string()).collect();
                for (nth, cpu) in &programs {
                    let program = bpf.program(&names[nth % names.len()])?;
                    sim.spawn_on(Cpu(*cpu), program, ProgramInput::empty())?;
                }
                sim.run_for(millis(1))
            });
            (result.map_err(|e| e.to_string()), sim.trace_hash(), sim.now(), sim.warnings().len())
        };
        prop_assert_eq!(run(false), run(true));
    }
}

/// A program that nobody verified stores to a lock's word as to any other, while another wants the lock.
#[test]
fn locks_are_overwritten() {
    let mut bytes = OBJECTS[0].to_vec();
    /// Where `locked` is, and its `r1 = r6`.
    const LOCKED: usize = 0x1c0;
    let insn = |i: usize| LOCKED + 8 * i;
    let nop = insn(54);
    // Not the first lock and unlock, nor the second; the first store is of the count, to the lock.
    for (call, helper) in [(55, 0x5d), (60, 0x5e), (62, 0x5d), (67, 0x5e)] {
        assert_eq!(bytes[insn(call)..][..5], [0x85, 0, 0, 0, helper]);
        bytes.copy_within(nop..nop + 8, insn(call));
    }
    bytes[insn(57) + 4..insn(57) + 8].fill(0);
    bytes[insn(58) + 2..insn(58) + 4].fill(0);
    let mut ends = [0, 0];
    for seed in 1..60 {
        let run = |moments: bool| {
            let sim = Sim::with(Config::default(), Seed(seed)).expect("a machine");
            sim.record(Record {
                moments,
                ..Record::default()
            });
            let loader = EbpfLoader::new().unverified();
            let bpf = loader.load(&sim, &bytes).expect("an object");
            for cpu in [Cpu(0), Cpu(1)] {
                let program = bpf.program("locked").expect("a program");
                let spawned = sim.spawn_on(cpu, program, ProgramInput::empty());
                spawned.expect("a task");
            }
            let result = sim.run_until_idle().map_err(|e| e.to_string());
            (result, sim.trace_hash(), sim.now())
        };
        let inside = run(false);
        assert_eq!(inside, run(true), "seed {seed}");
        ends[usize::from(inside.0.is_ok())] += 1;
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

/// What a replay string or a scenario can say of a machine, and times as long as there are: whatever comes of
/// it, it ends.
#[test]
fn machines_and_times_at_their_limits() {
    let (usual, short, max) = (Config::default(), millis(3), Duration::MAX);
    let almost = Duration::from_nanos(u64::MAX) - 2 * Duration::from_nanos(BOOTED);
    let of = |change: fn(&mut Config)| {
        let mut config = usual.clone();
        change(&mut config);
        config
    };
    let machines = [
        of(|c| c.cpus = 0),
        of(|c| c.cpus = u32::MAX),
        of(|c| c.horizon = u64::MAX),
        of(|c| c.fuel = 0),
        of(|c| c.fuel = u64::MAX),
        of(|c| c.max_callbacks = 0),
        of(|_| {}),
    ];
    let mut ended = 0;
    for (config, seed) in machines.iter().flat_map(|c| [(c, 0), (c, 1)]) {
        for (advance, run) in [(short, short), (max, short), (short, max), (almost, almost)] {
            let run = || {
                let sim = Sim::with(config.clone(), Seed(seed))?;
                let models = Ebpf::load(&sim, OBJECTS[0])?;
                let mut kinds = Ebpf::load(&sim, OBJECTS[1])?;
                sim.advance(advance);
                for (cpu, name) in (0..3).zip(["arm_own", "locked", "arm"]) {
                    sim.spawn_on(Cpu(cpu), models.program(name)?, ProgramInput::empty())?;
                }
                sim.spawn_user(Cpu(1), async |user| {
                    user.sleep(Duration::MAX).await;
                    user.pause().await;
                    Ok(())
                })?;
                sim.run_for(run)?;
                let mut arm = kinds.program_mut("arm_all")?;
                arm.test_run(ProgramInput::empty())?;
                sim.run_for(run)?;
                sim.advance(advance);
                arm.test_run(ProgramInput::empty())?;
                sim.run_until_idle()
            };
            ended += u32::from(run().is_ok());
        }
    }
    assert_eq!(ended, 4 * 2 * 5, "but for no instructions and no callbacks");
}
