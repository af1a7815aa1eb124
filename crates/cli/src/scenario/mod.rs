//! Scenarios: steps and expectations in a TOML file, for people who write no Rust.
//! docs/scenarios.md is the schema.

mod expect;
mod hook;
mod sched;
mod step;
mod text;
mod value;
mod world;

use crate::files::types;
use bpfsim::{Config, Ebpf, EbpfLoader, Error, Failed, NoChances, Seed, Sim};
use bpfsim_loader::MapKind;
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use step::Step;
use text::{time, unhex};
use toml::{Spanned, Value};
use world::Scene;

/// A scenario, read and not yet run.
#[derive(Clone)]
pub struct Scenario {
    name: String,
    text: String,
    file: File,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    config: FileConfig,
    #[serde(default)]
    step: Vec<Spanned<Step>>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    cpus: Option<u32>,
    /// Virtual time by which a callback may be early or late, such as `10ms`.
    horizon: Option<Spanned<String>>,
    /// What is a choice beside the order, when orders are explored.
    chances: Option<Spanned<String>>,
    /// Which detectors look, such as `lost-update=fail`.
    detectors: Option<Spanned<String>>,
    /// A kernel's own types: a file, seen from the scenario's folder.
    btf: Option<Spanned<String>>,
}

/// Why a scenario ended before its end.
pub enum Ended {
    /// The scenario itself is wrong.
    Wrong(String),
    /// The object does not load.
    NotLoaded(bpfsim::Error),
    /// An expectation did not hold, or the simulation failed: as it was then.
    Failed(String, Box<Sim>, Ebpf),
}

/// A problem, the place in the file that it is about, and whether it is the file's own.
struct Problem {
    span: Range<usize>,
    message: String,
    wrong: bool,
    /// What the simulation says of it.
    failed: Option<Box<Failed>>,
}

/// Something in the file that cannot be meant.
fn wrong<T>(span: Range<usize>, message: impl ToString) -> Result<T, Problem> {
    Err(Problem {
        span,
        message: message.to_string(),
        wrong: true,
        failed: None,
    })
}

/// What the facade says of a step: names and sizes are the file's fault, the rest a failure.
fn failed(span: Range<usize>) -> impl FnOnce(Error) -> Problem {
    move |error| {
        let wrong = matches!(error, Error::NotFound { .. } | Error::Size { .. });
        Problem {
            span,
            message: error.to_string(),
            wrong,
            failed: Some(error.failed())
                .filter(|f| f.kind != "error")
                .map(Box::new),
        }
    }
}

impl Scenario {
    /// Reads a scenario; `name` is its file's, for messages.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, String> {
        let file: File = toml::from_str(text).map_err(|e| {
            let span = e.span().unwrap_or_default();
            let message = text::explained(e.message());
            format!("{name}:{}: {message}", line_of(text, span.start))
        })?;
        let scenario = Scenario {
            name: name.to_string(),
            text: text.to_string(),
            file,
        };
        let mut steps = scenario.file.step.iter();
        match steps.try_for_each(|step| step.get_ref().check_shape(step.span())) {
            Ok(()) => Ok(scenario),
            Err(problem) => Err(scenario.message(&problem)),
        }
    }

    /// The machine that the scenario wants.
    pub fn config(&self, base: Config) -> Result<Config, String> {
        let file = &self.file.config;
        let mut config = Config {
            cpus: file.cpus.unwrap_or(base.cpus),
            ..base
        };
        if let Some(horizon) = &file.horizon {
            let time = time(horizon).map_err(|p| self.message(&p))?;
            config.horizon = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        }
        if let (Some(btf), None) = (&file.btf, &config.btf) {
            let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
            let types = types(&folder.join(btf.get_ref()));
            let types = types.or_else(|e| wrong(btf.span(), e));
            config.btf = Some(types.map_err(|p| self.message(&p))?);
        }
        if let Some(chances) = &file.chances {
            let parsed = chances.get_ref().parse();
            let parsed = parsed.or_else(|e: NoChances| wrong(chances.span(), e));
            config.chances = parsed.map_err(|p| self.message(&p))?;
        }
        if let Some(detectors) = &file.detectors {
            let told = config.detectors.tell(detectors.get_ref());
            let told = told.or_else(|e| wrong(detectors.span(), e));
            told.map_err(|p| self.message(&p))?;
        }
        Ok(config)
    }

    /// What `explore --fuzz` changes: `data` and `ctx` of the steps that say so, in their order.
    fn fuzzed(&mut self) -> impl Iterator<Item = &mut Spanned<String>> {
        let steps = self.file.step.iter_mut().map(Spanned::get_mut);
        let steps = steps.filter(|s| s.fuzz == Some(true));
        steps.flat_map(|s| [&mut s.data, &mut s.ctx].into_iter().flatten())
    }

    /// The bytes that may be changed.
    pub fn inputs(&mut self) -> Result<Vec<Vec<u8>>, String> {
        let bytes: Result<Vec<_>, Problem> = self.fuzzed().map(|text| unhex(text)).collect();
        bytes.map_err(|p| self.message(&p))
    }

    /// Changes them.
    pub fn set_inputs(&mut self, inputs: &[Vec<u8>]) {
        for (text, bytes) in self.fuzzed().zip(inputs) {
            *text.get_mut() = bytes.iter().map(|b| format!("{b:02x}")).collect();
        }
    }

    /// Reads a scenario from its file.
    pub fn read(path: &Path) -> Result<Scenario, String> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|e| format!("{}: {e}", path.display()))?;
        Scenario::parse(&path.display().to_string(), &text)
    }

    /// Runs the scenario on an object in one order.
    pub fn run(&self, object: &[u8], config: Config, seed: Seed) -> Result<(Sim, Ebpf), Ended> {
        let sim = Sim::with(config, seed).map_err(|e| Ended::Wrong(e.to_string()))?;
        self.run_on(sim, object)
    }

    /// Runs the scenario on an object, loaded by [`Scenario::loader`], as a test of an exploration. Failures
    /// of the kind `scenario` are the scenario's own.
    pub fn explore(&self, sim: &Sim, object: &[u8], loader: &EbpfLoader) -> Result<(), Failed> {
        let failed = |kind: &str, place, message| Failed {
            kind: kind.to_string(),
            place,
            object: None,
            message,
        };
        let not_loaded = |error: Error| failed("scenario", None, error.to_string());
        let mut bpf = loader.load(sim, object).map_err(not_loaded)?;
        self.steps(sim, &mut bpf).map_err(|problem| {
            let message = self.message(&problem);
            let line = line_of(&self.text, problem.span.start);
            let place = Some(format!("{}:{line}", self.name));
            match problem.failed {
                _ if problem.wrong => failed("scenario", place, message),
                Some(own) => Failed { message, ..*own },
                None => failed("expectation", place, message),
            }
        })
    }

    /// Runs the scenario on an object and a machine.
    pub fn run_on(&self, sim: Sim, object: &[u8]) -> Result<(Sim, Ebpf), Ended> {
        let mut bpf = self.load(&sim, object)?;
        match self.steps(&sim, &mut bpf) {
            Ok(()) => Ok((sim, bpf)),
            Err(problem) if problem.wrong => Err(Ended::Wrong(self.message(&problem))),
            Err(problem) => Err(Ended::Failed(self.message(&problem), sim.into(), bpf)),
        }
    }

    /// Loads the object, with constants as steps set them.
    pub fn load(&self, sim: &Sim, object: &[u8]) -> Result<Ebpf, Ended> {
        let loader = self.loader(object).map_err(Ended::Wrong)?;
        loader.load(sim, object).map_err(Ended::NotLoaded)
    }

    /// What loads an object with constants as steps set them.
    pub fn loader(&self, object: &[u8]) -> Result<EbpfLoader, String> {
        let mut loader = EbpfLoader::new();
        let read = bpfsim_loader::load(object);
        let globals = read.iter().flat_map(|o| o.globals().map(move |g| (o, g)));
        for (object, global) in globals {
            let constant = object.maps[global.map].kind == MapKind::Rodata;
            for (name, value) in self.sets().filter(|(n, _)| constant && *n == global.name) {
                let ty = object.btf.as_deref().map(|btf| (btf, global.ty));
                let bytes = value::bytes(ty, global.size as usize, value)
                    .map_err(|problem| self.message(&problem))?;
                loader = loader.set_global(name, &bytes[..]);
            }
        }
        Ok(loader)
    }

    /// What steps set before anything runs: the only time for constants.
    fn sets(&self) -> impl Iterator<Item = (&str, &Spanned<Value>)> {
        let steps = self.file.step.iter().map(Spanned::get_ref);
        let first = steps.take_while(|s| !s.runs());
        first.flat_map(|s| s.set.iter().flatten().map(|(n, v)| (n.as_str(), v)))
    }

    fn message(&self, problem: &Problem) -> String {
        let line = line_of(&self.text, problem.span.start);
        format!("{}:{line}: {}", self.name, problem.message)
    }

    fn steps(&self, sim: &Sim, bpf: &mut Ebpf) -> Result<(), Problem> {
        let mut scene = Scene::default();
        for step in &self.file.step {
            let done = step.get_ref().perform(step.span(), sim, bpf, &mut scene)?;
            let state = step
                .get_ref()
                .expect
                .as_ref()
                .and_then(|e| e.sched.as_ref());
            let expected = state.is_some_and(|s| s.get_ref().expects_exit());
            sched::check(step.span(), expected, &mut scene)?;
            if let Some(expect) = &step.get_ref().expect {
                expect.check(sim, bpf, &done, &scene)?;
            }
        }
        let end = self.text.len()..self.text.len();
        sim.finish().map_err(failed(end))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
        + 1
}
