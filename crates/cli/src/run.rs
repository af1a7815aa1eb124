//! `bpfsim run`: one program, what it left, and what happened.

use crate::files::{Files, Types};
use crate::scenario::{Ended, Scenario};
use crate::show::{self, Shown, Warnings};
use crate::{Outcome, Stop};
use bpfsim::explore;
use bpfsim::timeline::{Detail, Timeline};
use bpfsim::{Chances, Config, Ebpf, Event, ProgramInput, ReplayString, Seed, Sim, What};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// The object, as clang made it.
    object: PathBuf,
    /// The program to run, by the name of its function; without it the first.
    #[arg(long)]
    prog: Option<String>,
    /// The order of execution: 0 is the usual one, any other number a random one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Virtual time to let pass after the program returned, such as `10s`, `5ms`, `100us`.
    #[arg(long = "for", default_value = "1s", value_parser = duration)]
    time: Duration,
    /// The packet: a file with its bytes. Without it 64 zero bytes.
    #[arg(long)]
    data_in: Option<PathBuf>,
    /// Steps and expectations, instead of one run: a TOML file (docs/scenarios.md).
    #[arg(long, conflicts_with_all = ["prog", "data_in", "time"])]
    scenario: Option<PathBuf>,
    /// The order of a failure, as `bpfsim explore` printed it.
    #[arg(
        long,
        value_name = "bs1-...",
        requires = "scenario",
        conflicts_with = "seed"
    )]
    replay: Option<String>,
    /// A case that `bpfsim explore --fuzz` kept: an order and inputs.
    #[arg(
        long,
        value_name = "FILE",
        requires = "scenario",
        conflicts_with_all = ["seed", "replay"]
    )]
    case: Option<PathBuf>,
    /// What is a choice beside the order: `random`, `failures`, `faults`, alone or each with a bound
    /// such as `failures=2`, and `values=0/1/7`.
    #[arg(long, value_name = "WHAT", requires = "scenario")]
    chances: Option<Chances>,
    /// Which detectors look: `lost-update=fail`, `data-race=off`, several with commas; `fail` alone
    /// makes failures of all warnings.
    #[arg(long, value_name = "WHAT", requires = "scenario")]
    detectors: Option<String>,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    #[command(flatten)]
    types: Types,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    files: Files,
}

/// `10s`, `5ms`, `100us`, `7ns`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "a number and a unit, such as 10s".to_string())?;
    let nanos = match unit {
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => return Err(format!("unit `{unit}` is none of s, ms, us, ns")),
    };
    number
        .checked_mul(nanos)
        .map(Duration::from_nanos)
        .ok_or_else(|| "too long".to_string())
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let bytes = read(&args.object)?;
    let config = Config {
        cpus: args.cpus,
        seed: args.seed,
        btf: args.types.read()?,
        ..Config::default()
    };
    if let Some(path) = &args.scenario {
        return scenario(args, path, &bytes, config);
    }
    let data = match &args.data_in {
        Some(path) => read(path)?,
        None => vec![0; 64],
    };
    let sim = Sim::with(config, Seed(args.seed)).map_err(Stop::unusable)?;
    sim.record(args.files.record());
    let mut bpf = Ebpf::load(&sim, &bytes).map_err(|e| Stop::not_loaded(&args.object, &e))?;
    let name = match &args.prog {
        Some(name) => name.clone(),
        None => {
            let first = bpf.programs().next().map(|p| p.name().to_string());
            first.ok_or_else(|| Stop::unusable("the object has no program"))?
        }
    };
    let program = bpf.program_mut(&name).map_err(Stop::unusable)?;
    let input = match program.takes_packet() {
        true => ProgramInput::packet(&data),
        false => ProgramInput::empty(),
    };
    let maps: Vec<_> = bpf.maps().collect();
    let before: Vec<Shown> = maps.iter().map(show::map).collect();
    let mut program = bpf.program_mut(&name).map_err(Stop::unusable)?;
    let ran = program.test_run(input).and_then(|out| {
        sim.run_for(args.time)?;
        Ok(out)
    });
    let after: Vec<Shown> = maps.iter().map(show::map).collect();
    let report = Report {
        sim: &sim,
        seed: args.seed,
        replayed: args.replay.is_some() || args.case.is_some(),
        maps: map_names(&bpf),
        before,
        after,
        failure: ran.err().map(|e| e.to_string()),
    };
    report.files(args)?;
    if args.json {
        report.json();
    } else {
        report.text(&args.object.display().to_string(), bpf.programs().count());
    }
    Ok(if report.failure.is_none() {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

/// An order that is taken, and what is written down of it meanwhile.
type Taken = (ReplayString, Rc<RefCell<explore::Record>>);

/// A machine that takes the order of a failure, if that was one of a machine like this.
fn replaying(order: &str, config: Config) -> Result<(Sim, Option<Taken>), Stop> {
    let order: ReplayString = order.parse().map_err(Stop::unusable)?;
    let config = Config {
        seed: order.config.seed,
        // These are the order's own, whether they are said again or not.
        chances: order.config.chances.clone(),
        detectors: order.config.detectors,
        ..config
    };
    order.check_config(&config).map_err(Stop::unusable)?;
    let (recorder, record) = explore::Recorder::new(order.chooser());
    let sim = Sim::with_chooser(config, Box::new(recorder)).map_err(Stop::unusable)?;
    Ok((sim, Some((order, record))))
}

/// The machine that a scenario ran on.
fn ran_on(ran: &Result<(Sim, Ebpf), Ended>) -> Option<&Sim> {
    match ran {
        Ok((sim, _)) => Some(sim),
        Err(Ended::Failed(_, sim, _)) => Some(sim),
        Err(Ended::Wrong(_) | Ended::NotLoaded(_)) => None,
    }
}

/// Runs a scenario in one order.
fn scenario(args: &Args, path: &Path, object: &[u8], config: Config) -> Result<Outcome, Stop> {
    let mut scenario = Scenario::read(path).map_err(Stop::unusable)?;
    let mut config = scenario.config(config).map_err(Stop::unusable)?;
    if let Some(chances) = &args.chances {
        config.chances = chances.clone();
    }
    if let Some(told) = &args.detectors {
        config.detectors.tell(told).map_err(Stop::unusable)?;
    }
    let mut order = args.replay.clone();
    if let Some(file) = &args.case {
        let (replay, inputs) = crate::explore::fuzz::case(file)?;
        scenario.set_inputs(&inputs);
        order = Some(replay.to_string());
    }
    let (sim, strays) = match &order {
        Some(order) => replaying(order, config)?,
        None => {
            let sim = Sim::with(config, Seed(args.seed)).map_err(Stop::unusable)?;
            (sim, None)
        }
    };
    sim.record(args.files.record());
    let ran = scenario.run_on(sim, object);
    if let (Some((order, record)), Some(sim)) = (strays, ran_on(&ran)) {
        let strayed = record.borrow().strayed;
        let is_it = order.check_run(sim.objects(), strayed);
        is_it.map_err(Stop::unusable)?;
    }
    let (sim, bpf, problem) = match ran {
        Ok((sim, bpf)) => (sim, bpf, None),
        Err(Ended::Wrong(message)) => return Err(Stop::unusable(message)),
        Err(Ended::NotLoaded(error)) => return Err(Stop::not_loaded(&args.object, &error)),
        Err(Ended::Failed(message, sim, bpf)) => (*sim, bpf, Some(message)),
    };
    let after = bpf.maps().map(|m| show::map(&m)).collect();
    let report = Report {
        sim: &sim,
        seed: args.seed,
        replayed: args.replay.is_some() || args.case.is_some(),
        maps: map_names(&bpf),
        before: Vec::new(),
        after,
        failure: problem,
    };
    report.files(args)?;
    if args.json {
        report.json();
    } else {
        report.text(&args.object.display().to_string(), bpf.programs().count());
    }
    Ok(match report.failure {
        None => Outcome::Fine,
        Some(_) => Outcome::Failed,
    })
}

/// A file's bytes.
pub fn read(path: &PathBuf) -> Result<Vec<u8>, Stop> {
    std::fs::read(path).map_err(|e| Stop::unusable(format!("{}: {e}", path.display())))
}

fn map_names(bpf: &Ebpf) -> HashMap<bpfsim::MapId, Shown> {
    bpf.maps().map(|m| (m.id(), show::map(&m))).collect()
}

/// A run that is over.
struct Report<'a> {
    sim: &'a Sim,
    seed: u64,
    /// The order is that of `--replay`.
    replayed: bool,
    maps: HashMap<bpfsim::MapId, Shown>,
    before: Vec<Shown>,
    after: Vec<Shown>,
    failure: Option<String>,
}

impl Report<'_> {
    fn json(&self) {
        for map in &self.before {
            show::json(&self.map_json(map, "before"));
        }
        for event in self.sim.trace().events() {
            if let Some(value) = self.event_json(event) {
                show::json(&value);
            }
        }
        for map in &self.after {
            show::json(&self.map_json(map, "after"));
        }
        for found in self.sim.warnings() {
            let spot = found.spot.as_ref();
            show::json(&json!({
                "event": "warning", "kind": found.kind.name(), "text": found.to_string(),
                "map": spot.map(|s| &s.map), "about": found.object(),
                "key": spot.map(|s| self.key(s.element.map, &s.element.key)),
            }));
        }
        let failure = self
            .failure
            .as_ref()
            .map(|message| json!({ "message": message }));
        let hash = format!("{:016x}", self.sim.trace_hash());
        show::json(
            &json!({ "event": "end", "seed": self.seed, "trace_hash": hash, "failure": failure }),
        );
    }

    fn map_json(&self, map: &Shown, when: &str) -> Value {
        let entries: Vec<_> = map
            .entries
            .iter()
            .map(|(k, v)| json!({ "key": k, "value": v }))
            .collect();
        json!({ "event": "map", "when": when, "name": map.name, "type": map.kind, "entries": entries })
    }

    fn event_json(&self, event: &Event) -> Option<Value> {
        Some(match &event.what {
            What::ProgramEnd { name, return_value } => json!({
                "event": "return", "program": **name, "cpu": event.cpu.0, "at_ns": event.at,
                "return_value": return_value,
            }),
            What::CallbackEnd {
                kind,
                name,
                element,
                return_value,
            } => json!({
                "event": "callback", "kind": kind.name(), "function": **name,
                "map": self.map_name(element.map), "key": self.key(element.map, &element.key),
                "cpu": event.cpu.0, "context": event.level.name(), "at_ns": event.at,
                "return_value": return_value,
            }),
            What::Chance { call, chance } => json!({
                "event": "chance", "call": call, "how": chance.to_string(), "cpu": event.cpu.0,
                "at_ns": event.at,
            }),
            What::Printk { text } => json!({
                "event": "printk", "text": text, "cpu": event.cpu.0, "at_ns": event.at,
            }),
            _ => return None,
        })
    }

    fn map_name(&self, map: bpfsim::MapId) -> &str {
        self.maps.get(&map).map_or("?", |m| &m.name)
    }

    fn key(&self, map: bpfsim::MapId, key: &[u8]) -> Value {
        self.maps.get(&map).map_or(Value::Null, |m| m.key(key))
    }

    fn text(&self, object: &str, programs: usize) {
        let order = self.order();
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        show::line(&format!(
            "{object}: {}, {}; {order}",
            count(programs, "program"),
            count(self.maps.len(), "map")
        ));
        let trace = self.sim.trace();
        self.maps_text("maps before", &self.before);
        show::heading("timeline");
        for line in self.timeline(object).text(Detail::Events).lines() {
            show::line(line);
        }
        let printed = self.sim.printk();
        if !printed.is_empty() {
            show::heading("printk");
            for line in printed {
                show::line(&format!("  {line}"));
            }
        }
        self.maps_text("maps after", &self.after);
        show::warnings(&Warnings::of(self.sim));
        show::heading("result");
        for event in trace.events() {
            if let What::ProgramEnd { name, return_value } = &event.what {
                show::line(&format!("  {name} returned {return_value}"));
            }
        }
        let callbacks = trace
            .events()
            .iter()
            .filter(|e| matches!(e.what, What::CallbackEnd { .. }));
        show::line(&format!(
            "  {}, trace {:016x}",
            count(callbacks.count(), "callback"),
            trace.hash()
        ));
        if let Some(failure) = &self.failure {
            show::line(&format!("  FAILED: {failure}"));
        }
    }

    fn maps_text(&self, title: &str, maps: &[Shown]) {
        if maps.is_empty() {
            return;
        }
        show::heading(title);
        for map in maps.iter().filter(|m| !m.is_literals()) {
            for line in map.lines() {
                show::line(&format!("  {line}"));
            }
        }
    }

    fn timeline(&self, object: &str) -> Timeline {
        let title = format!("{object}, {}", self.order());
        self.sim.timeline(&title, self.failure.as_deref())
    }

    fn order(&self) -> String {
        match self.seed {
            _ if self.replayed => "the order of a replay".to_string(),
            0 => "the usual order".to_string(),
            seed => format!("the order of seed {seed}"),
        }
    }

    /// Writes the files that were asked for.
    fn files(&self, args: &Args) -> Result<(), Stop> {
        let name = args.object.file_name().unwrap_or_default();
        match args.files.wanted() {
            true => args.files.write(&self.timeline(&name.to_string_lossy())),
            false => Ok(()),
        }
    }
}
