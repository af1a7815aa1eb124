//! `bpfsim cov`: which C lines and branches a scenario runs, over several orders.

use crate::files::Types;
use crate::scenario::{Ended, Scenario};
use crate::{Outcome, Stop, show};
use bpfsim::{Config, Coverage, EXHAUSTIVE_LIMIT, Record, Runner, Seed, Sim, Strategy};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The object, as clang made it with `-g`.
    object: PathBuf,
    /// Steps and expectations: a TOML file (docs/scenarios.md).
    #[arg(long)]
    scenario: PathBuf,
    /// Random orders to take beside the usual one.
    #[arg(long, default_value_t = 0, value_name = "N")]
    random: u64,
    /// A thousand orders with random priorities, for bugs of this depth.
    #[arg(long, value_name = "DEPTH", conflicts_with = "random")]
    pct: Option<u32>,
    /// Every order with at most so many preemptions.
    #[arg(long, value_name = "PREEMPTIONS", conflicts_with_all = ["random", "pct"])]
    bounded: Option<u64>,
    /// Every order, but for those that differ in nothing that matters.
    #[arg(long, conflicts_with_all = ["random", "pct", "bounded"])]
    exhaustive: bool,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    #[command(flatten)]
    types: Types,
    /// Write a tracefile of lcov, for genhtml and others.
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// The strategy beside the usual order and random ones, and its most executions.
fn strategy(args: &Args) -> Option<(Strategy, u64)> {
    let pct = args.pct.map(|depth| (Strategy::Pct { depth }, 1_000));
    let bounded = args.bounded;
    let bounded = bounded.map(|preemptions| (Strategy::Bounded { preemptions }, EXHAUSTIVE_LIMIT));
    let all = (Strategy::Exhaustive, EXHAUSTIVE_LIMIT);
    pct.or(bounded).or(args.exhaustive.then_some(all))
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let at =
        |path: &Path, e: &dyn std::fmt::Display| Stop::unusable(format!("{}: {e}", path.display()));
    let object = std::fs::read(&args.object).map_err(|e| at(&args.object, &e))?;
    let text = std::fs::read_to_string(&args.scenario).map_err(|e| at(&args.scenario, &e))?;
    let name = args.scenario.display().to_string();
    let scenario = Scenario::parse(&name, &text).map_err(Stop::unusable)?;

    let (mut coverage, mut failed) = (Coverage::default(), None);
    let base = Config {
        cpus: args.cpus,
        btf: args.types.read()?,
        ..Config::default()
    };
    let base = scenario.config(base).map_err(Stop::unusable)?;
    for seed in 0..=args.random {
        let config = Config {
            seed,
            ..base.clone()
        };
        let sim = Sim::with(config, Seed(seed)).map_err(Stop::unusable)?;
        sim.record(Record {
            counts: true,
            ..Record::default()
        });
        let sim = match scenario.run_on(sim, &object) {
            Ok((sim, _)) => sim,
            Err(Ended::Wrong(message)) => return Err(Stop::unusable(message)),
            Err(Ended::NotLoaded(error)) => return Err(Stop::not_loaded(&args.object, &error)),
            Err(Ended::Failed(message, sim, _)) => {
                failed.get_or_insert((format!("seed {seed}"), message));
                *sim
            }
        };
        sim.coverage(&mut coverage);
    }

    let mut executions = args.random + 1;
    if let Some((strategy, limit)) = strategy(args) {
        let all = Mutex::new(std::mem::take(&mut coverage));
        let loader = scenario.loader(&object).map_err(Stop::unusable)?;
        let test = |sim: &Sim| {
            sim.record(Record {
                counts: true,
                ..Record::default()
            });
            let result = scenario.explore(sim, &object, &loader);
            sim.coverage(&mut all.lock());
            result
        };
        let runner = Runner::new().strategy(strategy).executions(limit).shrink(0);
        let outcome = runner.config(base).explore(test, &mut |_| {});
        executions += outcome.counts.executions;
        coverage = all.into_inner();
        if let (Some(found), None) = (&outcome.failure, &failed) {
            let replay = outcome.replay().map(|r| r.to_string()).unwrap_or_default();
            failed = Some((replay, found.failed.message.clone()));
        }
    }
    let folder = args.object.parent().unwrap_or(Path::new(""));
    // Names are relative to where the compiler ran: most often beside the object.
    let path = |file: &str| match Path::new(file).is_absolute() {
        true => file.to_string(),
        false => folder
            .join(file.trim_start_matches("./"))
            .display()
            .to_string(),
    };
    if let Some(to) = &args.lcov {
        std::fs::write(to, coverage.lcov(path)).map_err(|e| at(to, &e))?;
    }
    for file in coverage.files() {
        let (lines, branches) = (coverage.lines(file), coverage.branches(file));
        if args.json {
            show::json(&serde_json::json!({
                "event": "coverage", "file": path(file), "executions": executions,
                "lines": { "hit": lines.hit, "all": lines.all },
                "branches": { "hit": branches.hit, "all": branches.all },
            }));
        } else {
            show::line(&format!(
                "{}: lines {lines}, branch outcomes {branches}",
                path(file)
            ));
        }
    }
    Ok(match failed {
        None => Outcome::Fine,
        Some((seed, message)) => {
            show::error(&format!("{seed}: {message}"));
            Outcome::Failed
        }
    })
}
