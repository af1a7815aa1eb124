//! The zoo, explored: each strategy finds each bug and makes it as small as it is known to be, what
//! is fixed passes in every order, and results do not depend on the number of threads.

#![allow(clippy::print_stdout)] // figures, for who asks for many

use bpfsim::{Config, Outcome, Runner, Strategy};
use bpfsim_cli::scenario::Scenario;
use std::path::Path;
use std::time::Duration;

const ZOO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/zoo");

struct Animal {
    name: String,
    scenario: Scenario,
    bug: Vec<u8>,
    fixed: Vec<u8>,
    /// Fewest preemptions that the bug takes.
    preemptions: u64,
}

fn zoo() -> Vec<Animal> {
    let files = std::fs::read_dir(ZOO)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let names = files.filter_map(|f| f.to_str()?.strip_suffix(".zoo.toml").map(str::to_string));
    let mut names: Vec<String> = names.collect();
    names.sort();
    let animal = |name: String| {
        let known = std::fs::read_to_string(format!("{ZOO}/{name}.zoo.toml")).unwrap();
        let known: toml::Table = known.parse().unwrap();
        let object = |dir: &str| std::fs::read(format!("{ZOO}/{dir}{name}.bpf.o")).unwrap();
        Animal {
            scenario: Scenario::read(Path::new(&format!("{ZOO}/{name}.scenario.toml"))).unwrap(),
            bug: object(""),
            fixed: object("fixed/"),
            preemptions: known["preemptions"].as_integer().unwrap() as u64,
            name,
        }
    };
    names.into_iter().map(animal).collect()
}

impl Animal {
    fn runner(&self, strategy: Strategy, n: u64, threads: usize) -> Runner {
        let config = self.scenario.config(Config::default()).unwrap();
        let runner = Runner::new().strategy(strategy).executions(n);
        runner.config(config).threads(threads)
    }

    fn explore(&self, object: &[u8], strategy: Strategy, n: u64, threads: usize) -> Outcome {
        let loader = self.scenario.loader(object).unwrap();
        let explored = |sim: &_| self.scenario.explore(sim, object, &loader);
        let runner = self.runner(strategy, n, threads);
        runner.explore(explored, &mut |_| {})
    }

    /// All `n` executions, those too that fail.
    fn explore_all(&self, object: &[u8], strategy: Strategy, n: u64, threads: usize) -> Outcome {
        let loader = self.scenario.loader(object).unwrap();
        let explored = |sim: &_| {
            // What comes of it is in the trace.
            let _ = self.scenario.explore(sim, object, &loader);
            Ok(())
        };
        let runner = self.runner(strategy, n, threads);
        runner.explore(explored, &mut |_| {})
    }
}

#[test]
fn bugs_are_found_and_made_as_small_as_they_can_be() {
    for animal in zoo() {
        for (strategy, n) in [
            (Strategy::Random, 1_000),
            (Strategy::Pct { depth: 3 }, 500),
            (Strategy::Exhaustive, 1_000),
        ] {
            let outcome = animal.explore(&animal.bug, strategy.clone(), n, 2);
            let found = outcome
                .failure
                .unwrap_or_else(|| panic!("{}: {strategy:?}", animal.name));
            assert_eq!(
                found.preemptions, animal.preemptions,
                "{}: {strategy:?}: {found:?}",
                animal.name
            );
        }
    }
}

/// On one core, in a minute.
#[test]
fn what_is_fixed_passes_in_every_order() {
    for animal in zoo() {
        let runner = animal.runner(Strategy::Exhaustive, 10_000, 1);
        let runner = runner.time_limit(Duration::from_secs(60));
        let loader = animal.scenario.loader(&animal.fixed).unwrap();
        let explored = |sim: &_| animal.scenario.explore(sim, &animal.fixed, &loader);
        let outcome = runner.explore(explored, &mut |_| {});
        assert_eq!(outcome.failure, None, "{}", animal.name);
        assert!(outcome.complete, "{}: {outcome}", animal.name);
        let (executions, traces) = (
            outcome.counts.executions,
            outcome.counts.traces.len() as u64,
        );
        assert!(executions * 2 <= traces * 3, "{}: {outcome}", animal.name);
    }
}

/// `ZOO_EXECUTIONS` is another number of them.
#[test]
fn one_thread_or_four_the_same_traces() {
    let executions = std::env::var("ZOO_EXECUTIONS").ok();
    let executions = executions.map_or(100, |n| n.parse().unwrap());
    let drawn = [Strategy::Random, Strategy::Walk, Strategy::Pct { depth: 3 }];
    let searched = [Strategy::Bounded { preemptions: 2 }, Strategy::Exhaustive];
    let (mut all, mut traces) = (0, 0);
    for animal in zoo() {
        for strategy in drawn.iter().chain(&searched) {
            for object in [&animal.bug, &animal.fixed] {
                let explore = |n| animal.explore_all(object, strategy.clone(), executions, n);
                let [one, again, four] = [1, 1, 4].map(explore);
                assert_eq!(one.counts, again.counts, "{}: {strategy:?}", animal.name);
                assert_eq!(one.counts, four.counts, "{}: {strategy:?}", animal.name);
                assert_eq!(one.failure, None, "{}: {strategy:?}", animal.name);
                all += one.counts.executions;
                traces += one.counts.traces.len();
            }
        }
    }
    println!("{all} executions three times, {traces} traces");
}

#[test]
fn warnings_are_printed() {
    let bpfsim = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bpfsim"));
        let object = format!("{ZOO}/racy_refcount.bpf.o");
        let scenario = format!("{ZOO}/racy_refcount.scenario.toml");
        command.args([args[0], &object, "--scenario", &scenario]);
        let out = command.args(&args[1..]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let text = bpfsim(&["explore"]);
    let (_, warnings) = text.split_once("warnings").expect("a heading");
    assert!(
        warnings.contains("lost-update in ") && warnings.contains("data-race in "),
        "{text}"
    );
    let told: serde_json::Value = serde_json::from_str(&bpfsim(&["explore", "--json"])).unwrap();
    let order = told["failure"]["replay"].as_str().unwrap();
    assert!(told["warnings"].as_object().unwrap().len() >= 2);
    let run = bpfsim(&["run", "--replay", order]);
    let (_, warnings) = run.split_once("warnings").expect("a heading");
    assert!(
        warnings.contains("lost-update in ") && warnings.contains("racy_refcount.bpf.c:"),
        "{run}"
    );
    assert!(bpfsim(&["run", "--json", "--replay", order]).contains(r#""event":"warning""#));
}

/// What is a warning can be made a failure, which is made small and replayed, or not looked for.
#[test]
fn detectors_do_what_they_are_told() {
    let explore = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bpfsim"));
        let object = format!("{ZOO}/racy_refcount.bpf.o");
        let scenario = format!("{ZOO}/racy_refcount.scenario.toml");
        command.args(["explore", &object, "--scenario", &scenario, "--json"]);
        command.args(more).output().unwrap()
    };
    let told = |more: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&explore(more).stdout).unwrap()
    };
    let failed = told(&["--detectors", "data-race=off,lost-update=fail"]);
    assert_eq!(failed["failure"]["kind"], "lost-update");
    assert_eq!(failed["failure"]["preemptions"], 1);
    let order = failed["failure"]["replay"].as_str().unwrap();
    let mut again = std::process::Command::new(env!("CARGO_BIN_EXE_bpfsim"));
    again.arg("run").arg(format!("{ZOO}/racy_refcount.bpf.o"));
    again.args(["--scenario", &format!("{ZOO}/racy_refcount.scenario.toml")]);
    let again = again.args(["--replay", order]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(text.contains("lost-update"), "{text}");

    let quiet = told(&["--detectors", "off"]);
    assert!(quiet["warnings"].as_object().is_some_and(|w| w.is_empty()));
    let wrong = explore(&["--detectors", "lost-update"]);
    assert_eq!(wrong.status.code(), Some(2));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("`lost-update`: detectors are"), "{error}");
}
