//! What detectors say of the bug zoo: of the fixed versions nothing at all.

use bpfsim::{Config, Detectors, Report, Seed};
use bpfsim_cli::scenario::{Ended, Scenario};

const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/zoo");

/// Every finding ends the run.
const ALL: Detectors = Detectors {
    stale: Report::Fail,
    unwritten_argument: Report::Fail,
    lost_update: Report::Fail,
    data_race: Report::Fail,
    dropped: Report::Fail,
};

/// The first thing that is wrong with an animal's object in the usual order and sixty random ones.
fn first_wrong(name: &str, object: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("{ZOO}/{name}.scenario.toml")).unwrap();
    let scenario = Scenario::parse(name, &text).unwrap();
    let object = std::fs::read(format!("{ZOO}/{object}.bpf.o")).unwrap();
    (0..=60).find_map(|seed| {
        let config = Config {
            seed,
            detectors: ALL,
            ..Config::default()
        };
        let config = scenario.config(config).unwrap();
        match scenario.run(&object, config, Seed(seed)) {
            Err(Ended::Failed(message, ..)) => Some(message),
            _ => None,
        }
    })
}

#[test]
fn fixed_versions_raise_no_warning() {
    let files = std::fs::read_dir(ZOO)
        .unwrap()
        .map(|f| f.unwrap().file_name());
    for file in files.filter_map(|f| f.into_string().ok()) {
        if let Some(name) = file.strip_suffix(".bpf.c") {
            assert_eq!(first_wrong(name, &format!("fixed/{name}")), None, "{name}");
        }
    }
}

#[test]
fn writes_into_another_lease_are_named() {
    for name in ["rearm_freed", "stale_slot"] {
        let wrong = first_wrong(name, name).unwrap_or_default();
        assert!(wrong.contains("stale pointer"), "{name}: {wrong}");
    }
}
