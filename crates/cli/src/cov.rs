//! `bpfsim cov`: which C lines and branches a scenario runs, over several orders.

use crate::scenario::{Ended, Scenario};
use crate::{Outcome, Stop, show};
use bpfsim::{Config, Coverage, Record, Seed, Sim};
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
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Write a tracefile of lcov, for genhtml and others.
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let at =
        |path: &Path, e: &dyn std::fmt::Display| Stop::unusable(format!("{}: {e}", path.display()));
    let object = std::fs::read(&args.object).map_err(|e| at(&args.object, &e))?;
    let text = std::fs::read_to_string(&args.scenario).map_err(|e| at(&args.scenario, &e))?;
    let name = args.scenario.display().to_string();
    let scenario = Scenario::parse(&name, &text).map_err(Stop::unusable)?;

    let (mut coverage, mut failed) = (Coverage::default(), None);
    for seed in 0..=args.random {
        let base = Config {
            cpus: args.cpus,
            seed,
            ..Config::default()
        };
        let config = scenario.config(base).map_err(Stop::unusable)?;
        let sim = Sim::with(config, Seed(seed)).map_err(Stop::unusable)?;
        sim.record(Record {
            counts: true,
            ..Record::default()
        });
        let sim = match scenario.run_on(sim, &object) {
            Ok((sim, _)) => sim,
            Err(Ended::Wrong(message)) => return Err(Stop::unusable(message)),
            Err(Ended::Failed(message, sim, _)) => {
                failed.get_or_insert((seed, message));
                *sim
            }
        };
        sim.coverage(&mut coverage);
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
                "event": "coverage", "file": path(file), "executions": args.random + 1,
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
            show::error(&format!("seed {seed}: {message}"));
            Outcome::Failed
        }
    })
}
