//! `bpfsim explore`: a scenario in many orders.

pub mod fuzz;
mod merge;

use crate::files::{Files, Types};
use crate::run;
use crate::scenario::{Ended, Scenario};
use crate::show::Warnings;
use crate::{Outcome, Stop, show};
use bpfsim::explore::Found;
use bpfsim::{Chances, Config, Progress, Runner, Seed, Sim, Strategy};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The object, as clang made it.
    #[arg(required = true)]
    object: Option<PathBuf>,
    /// Steps and expectations: a TOML file (docs/scenarios.md).
    #[arg(long, required = true)]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Most executions of a search through all orders, or of --fuzz.
    #[arg(long, default_value_t = bpfsim::EXHAUSTIVE_LIMIT)]
    executions: u64,
    /// Seed of the first random order.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; results do not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    /// With --fuzz: where cases that show something new are kept, and read first.
    #[arg(long, value_name = "FOLDER", requires = "fuzz", requires = "object")]
    corpus: Option<PathBuf>,
    /// One part of the work, such as 2/8: of a search that many machines share.
    #[arg(long, value_parser = bpfsim::parse_shard)]
    shard: Option<(u64, u64)>,
    /// Time after which no execution begins any more, such as 60s.
    #[arg(long, value_parser = run::duration)]
    time_limit: Option<Duration>,
    /// What is a choice beside the order: `random`, `failures`, `faults`, alone or each with a bound
    /// such as `failures=2`, and `values=0/1/7`.
    #[arg(long, value_name = "WHAT")]
    chances: Option<Chances>,
    /// Which detectors look: `lost-update=fail`, `data-race=off`, several with commas; `fail` alone
    /// makes failures of all warnings.
    #[arg(long, value_name = "WHAT")]
    detectors: Option<String>,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    #[command(flatten)]
    types: Types,
    /// One JSON object, which `merge` reads.
    #[arg(long)]
    json: bool,
    /// Of the failure that is found.
    #[command(flatten)]
    files: Files,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct How {
    /// So many random orders: 1000 when nothing is said.
    #[arg(long, value_name = "N")]
    random: Option<u64>,
    /// A thousand orders with random priorities, for bugs of this depth.
    #[arg(long, value_name = "DEPTH")]
    pct: Option<u32>,
    /// So many random orders in which long executions overlap more often.
    #[arg(long, value_name = "N")]
    walk: Option<u64>,
    /// Every order with at most so many preemptions.
    #[arg(long, value_name = "PREEMPTIONS")]
    bounded: Option<u64>,
    /// Every order, but for those that differ in nothing that matters.
    #[arg(long)]
    exhaustive: bool,
    /// Orders and inputs (of steps with `fuzz = true`) that are changed a little, again and again,
    /// where that shows something new.
    #[arg(long)]
    fuzz: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// What the shards of one exploration found together, from what each printed with --json.
    Merge(merge::Args),
}

/// Orders that strategies draw when nothing is said.
const DRAWN: u64 = 1_000;

impl How {
    fn strategy(&self, limit: u64) -> (Strategy, u64) {
        if let Some(depth) = self.pct {
            return (Strategy::Pct { depth }, DRAWN);
        }
        if let Some(n) = self.walk {
            return (Strategy::Walk, n);
        }
        if let Some(preemptions) = self.bounded {
            return (Strategy::Bounded { preemptions }, limit);
        }
        if self.fuzz {
            return (Strategy::Random, limit);
        }
        match self.exhaustive {
            true => (Strategy::Exhaustive, limit),
            false => (Strategy::Random, self.random.unwrap_or(DRAWN)),
        }
    }
}

impl Args {
    /// The command that runs the scenario on this machine.
    fn again(&self, object: &Path, scenario: &Path) -> String {
        let (object, scenario) = (object.display(), scenario.display());
        let mut command = format!("bpfsim run {object} --scenario {scenario}");
        if self.cpus != Config::default().cpus {
            command += &format!(" --cpus {}", self.cpus);
        }
        command + &self.types.again()
    }
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    match (&args.command, &args.object, &args.scenario) {
        (Some(Command::Merge(args)), ..) => merge::run(args),
        (None, Some(object), Some(scenario)) => explore(args, object, scenario),
        _ => Err(Stop::unusable("an object and a scenario are needed")),
    }
}

fn explore(args: &Args, object: &PathBuf, path: &Path) -> Result<Outcome, Stop> {
    let bytes = run::read(object)?;
    let scenario = Scenario::read(path).map_err(Stop::unusable)?;
    let base = Config {
        cpus: args.cpus,
        btf: args.types.read()?,
        ..Config::default()
    };
    let mut config = scenario.config(base).map_err(Stop::unusable)?;
    if let Some(chances) = &args.chances {
        config.chances = chances.clone();
    }
    if let Some(told) = &args.detectors {
        config.detectors.tell(told).map_err(Stop::unusable)?;
    }
    // What does not load does not in any order: it is said at once, and why.
    let sim = Sim::with(config.clone(), Seed::USUAL).map_err(Stop::unusable)?;
    match scenario.load(&sim, &bytes) {
        Err(Ended::NotLoaded(error)) => return Err(Stop::not_loaded(object, &error)),
        Err(Ended::Wrong(message)) => return Err(Stop::unusable(message)),
        Ok(_) | Err(Ended::Failed(..)) => {}
    }
    let loader = scenario.loader(&bytes).map_err(Stop::unusable)?;
    let (strategy, executions) = args.how.strategy(args.executions);
    let mut runner = Runner::new()
        .strategy(strategy)
        .executions(executions)
        .config(config);
    if let Some(seed) = args.seed {
        runner = runner.seed(seed);
    }
    if let Some(threads) = args.threads {
        runner = runner.threads(threads);
    }
    if let Some((part, parts)) = args.shard {
        runner = runner.shard(part, parts);
    }
    if let Some(limit) = args.time_limit {
        runner = runner.time_limit(limit);
    }
    runner.check_settings().map_err(Stop::unusable)?;
    if args.how.fuzz {
        return fuzz::run(args, &runner, object, path, (&bytes, &loader));
    }
    let bar = bar(args.json);
    let warnings = Mutex::new(Warnings::default());
    let known = Mutex::new(HashSet::new());
    let test = |sim: &Sim| {
        let result = scenario.explore(sim, &bytes, &loader);
        if result.is_ok() && known.lock().insert(sim.run_hash()) {
            warnings.lock().merge(Warnings::of(sim));
        }
        result
    };
    let outcome = runner.explore(test, &mut |progress| step(&bar, progress));
    bar.finish_and_clear();
    if let Some(found) = outcome
        .failure
        .as_ref()
        .filter(|f| f.failed.kind == "scenario")
    {
        return Err(Stop::unusable(&found.failed));
    }
    let mut warnings = warnings.into_inner();
    if let Some(order) = outcome.replay() {
        let sim = Sim::with_chooser(order.config.clone(), order.chooser());
        let sim = sim.map_err(Stop::unusable)?;
        sim.record(args.files.record());
        // Of orders that pass, those beside a failure depend on the threads.
        warnings = Warnings::default();
        if let Err(Ended::Failed(message, sim, _)) = scenario.run_on(sim, &bytes) {
            warnings = Warnings::of(&sim);
            let name = object.file_name().unwrap_or_default().to_string_lossy();
            let title = format!("{name}, the smallest failing order");
            args.files.write(&sim.timeline(&title, Some(&message)))?;
        }
    }
    let command = |found: &Found| {
        let order = found.replay(&outcome.config);
        format!("{} --replay {order}", args.again(object, path))
    };
    if args.json {
        let mut told = result(&outcome, args.shard, &command);
        told["warnings"] = json!(warnings);
        show::json(&told);
    } else {
        text(&outcome, &command);
        let hint = outcome.failure.is_none() && !warnings.is_empty();
        show::warnings(&warnings);
        if hint {
            show::line("  one of them made small, with a timeline: --detectors KIND=fail");
        }
    }
    Ok(match &outcome.failure {
        Some(_) => Outcome::Failed,
        None => Outcome::Fine,
    })
}

/// A bar with the rate, distinct traces, and what is left where that is known.
fn bar(json: bool) -> ProgressBar {
    let target = match json {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr_with_hz(4),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} executions, {per_sec}, {msg}")
    {
        bar.set_style(style);
    }
    bar
}

fn step(bar: &ProgressBar, progress: Progress) {
    if let (Some(of), None) = (progress.of, bar.length()) {
        bar.set_length(of);
        let style = "{spinner} {bar:24} {pos}/{len} executions, {per_sec}, {msg}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
    }
    bar.set_position(progress.executions);
    bar.set_message(format!("{} distinct traces", progress.traces));
}

fn text(outcome: &bpfsim::Outcome, command: &dyn Fn(&Found) -> String) {
    show::line(&outcome.to_string());
    let Some(found) = &outcome.failure else {
        return;
    };
    show::heading(&format!("FAILED: {}", found.failed.message));
    show::line(&format!(
        "  {}: execution {}, made small to {} of {} steps in {} executions",
        found.failed.kind,
        found.execution,
        count(found.preemptions, "preemption"),
        found.steps,
        found.shrunk
    ));
    show::line(&format!("  again, with a timeline: {}", command(found)));
}

fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// The result of an exploration, or of one shard.
fn result(
    outcome: &bpfsim::Outcome,
    shard: Option<(u64, u64)>,
    command: &dyn Fn(&Found) -> String,
) -> Value {
    let (part, parts) = shard.unwrap_or((0, 1));
    let mut traces: Vec<u64> = outcome.counts.traces.iter().copied().collect();
    traces.sort_unstable();
    let traces: Vec<String> = traces.iter().map(|t| format!("{t:016x}")).collect();
    let failure = outcome.failure.as_ref().map(|found| {
        json!({
            "kind": found.failed.kind,
            "message": found.failed.message,
            "execution": found.execution,
            "preemptions": found.preemptions,
            "steps": found.steps,
            "replay": found.replay(&outcome.config).to_string(),
            "command": command(found),
        })
    });
    json!({
        "event": "explored",
        "strategy": format!("{:?}", outcome.strategy),
        "shard": [part + 1, parts],
        "executions": outcome.counts.executions,
        "redundant": outcome.counts.redundant,
        "choices": outcome.counts.choices,
        "traces": traces,
        "complete": outcome.complete,
        "covered": outcome.to_string(),
        "failure": failure,
    })
}
