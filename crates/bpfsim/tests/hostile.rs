//! Objects that are damaged: loading and running one gives an error or a result, never a panic,
//! a hang or the host's memory.

use bpfsim::{Config, Ebpf, EbpfLoader, ProgramInput, Seed, Sim, millis};
use proptest::prelude::*;

const OBJECTS: [&[u8]; 3] = [
    include_bytes!("../../../fixtures/three_kinds.bpf.o"),
    include_bytes!("../../../fixtures/async_basic.bpf.o"),
    include_bytes!("../../../fixtures/counter_race.bpf.o"),
];

/// Loads an object, verified or not, and, when that works, runs all its programs in some order.
fn try_all(bytes: &[u8], loader: &EbpfLoader, seed: u64) -> Result<(), bpfsim::Error> {
    let config = Config {
        fuel: 10_000,
        max_callbacks: 1_000,
        ..Config::default()
    };
    let sim = Sim::with(config, Seed(seed))?;
    let mut bpf = loader.load(&sim, bytes)?;
    let names: Vec<_> = bpf.programs().map(|p| p.name().to_string()).collect();
    for name in names {
        let mut program = bpf.program_mut(&name)?;
        let input = match program.takes_packet() {
            true => ProgramInput::packet(&[0; 64]),
            false => ProgramInput::empty(),
        };
        program.test_run(input)?;
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
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

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
