//! The bug zoo: small programs with real ordering bugs, each beside its fixed version. What the
//! usual order hides, other orders show; what is fixed, none breaks.

use bpfsim::{Config, Seed};
use bpfsim_cli::scenario::{Ended, Scenario};
use serde::Deserialize;

const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/zoo");

/// Random orders that each bug must show itself in.
const ORDERS: u64 = 1_000;

/// What is known of a bug: the `.zoo.toml` beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// How it shows.
    kind: String,
    /// Fewest preemptions that it takes.
    #[allow(
        dead_code,
        reason = "held against what is found once schedules are shrunk"
    )]
    preemptions: u32,
    /// Fails in fewer than one of fifty random orders.
    rare: bool,
}

struct Animal {
    name: String,
    known: Known,
    scenario: Scenario,
    bug: Vec<u8>,
    fixed: Vec<u8>,
}

fn zoo() -> Vec<Animal> {
    let files = std::fs::read_dir(ZOO)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let names = files.filter_map(|f| f.to_str()?.strip_suffix(".bpf.c").map(str::to_string));
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert!(names.len() >= 12, "{names:?}");
    let read = |name: String| {
        let text = |end: &str| std::fs::read_to_string(format!("{ZOO}/{name}{end}")).unwrap();
        let object = |dir: &str| std::fs::read(format!("{ZOO}/{dir}{name}.bpf.o")).unwrap();
        Animal {
            known: toml::from_str(&text(".zoo.toml")).unwrap(),
            scenario: Scenario::parse(&name, &text(".scenario.toml")).unwrap(),
            bug: object(""),
            fixed: object("fixed/"),
            name,
        }
    };
    names.into_iter().map(read).collect()
}

impl Animal {
    /// What went wrong in the order of a seed, and how that is called.
    fn failure(&self, object: &[u8], seed: u64) -> Option<(&'static str, String)> {
        let config = Config {
            seed,
            ..Config::default()
        };
        let config = self.scenario.config(config).unwrap();
        match self.scenario.run(object, config, Seed(seed)) {
            Ok(_) => None,
            Err(Ended::Wrong(message)) => panic!("{message}"),
            Err(Ended::NotLoaded(error)) => panic!("{error}"),
            Err(Ended::Failed(message, ..)) => Some(("expectation", message)),
        }
    }
}

#[test]
fn the_usual_order_shows_no_bug() {
    for animal in zoo() {
        for object in [&animal.bug, &animal.fixed] {
            assert_eq!(animal.failure(object, 0), None, "{}", animal.name);
        }
    }
}

#[test]
fn a_thousand_random_orders_show_each_bug() {
    for animal in zoo() {
        let found = (1..=ORDERS).find_map(|seed| animal.failure(&animal.bug, seed));
        let (kind, message) = found.unwrap_or_else(|| panic!("{} is not found", animal.name));
        assert_eq!(kind, animal.known.kind, "{}: {message}", animal.name);
    }
}

#[test]
fn four_bugs_are_rare() {
    const TRIED: u64 = 500;
    let rare: Vec<Animal> = zoo().into_iter().filter(|a| a.known.rare).collect();
    assert!(rare.len() >= 4);
    for animal in rare {
        let fails = (1..=TRIED).filter(|&seed| animal.failure(&animal.bug, seed).is_some());
        let fails = fails.count() as u64;
        assert!(fails * 50 < TRIED, "{}: {fails} of {TRIED}", animal.name);
    }
}

#[test]
fn no_random_order_breaks_what_is_fixed() {
    for animal in zoo() {
        for seed in 1..=ORDERS / 2 {
            let failure = animal.failure(&animal.fixed, seed);
            assert_eq!(failure, None, "{}, seed {seed}", animal.name);
        }
    }
}
