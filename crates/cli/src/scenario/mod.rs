//! Scenarios: steps and expectations in a TOML file, for people who write no Rust.
//! docs/scenarios.md is the schema.

mod expect;
mod value;

use bpfsim::{
    Config, Cpu, Ebpf, Error, Failed, Job, Map, NoChances, ProgramInput, Seed, Sim,
    User as UserTask, update,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use toml::{Spanned, Value};

/// A scenario, read and not yet run.
pub struct Scenario {
    name: String,
    text: String,
    file: File,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    config: FileConfig,
    #[serde(default)]
    step: Vec<Spanned<Step>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    cpus: Option<u32>,
    /// Virtual time by which a callback may be early or late, such as `10ms`.
    horizon: Option<Spanned<String>>,
    /// What is a choice beside the order, when orders are explored.
    chances: Option<Spanned<String>>,
}

/// One step: one of the things to do, and then what to expect.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    run: Option<Spanned<String>>,
    spawn: Option<Spanned<String>>,
    cpu: Option<u32>,
    data: Option<Spanned<String>>,
    ctx: Option<Spanned<String>>,
    repeat: Option<u32>,
    set: Option<BTreeMap<String, Spanned<Value>>>,
    update: Option<Element>,
    delete: Option<Element>,
    user: Option<User>,
    advance: Option<Spanned<String>>,
    run_for: Option<Spanned<String>>,
    run_until_idle: Option<bool>,
    close: Option<Spanned<String>>,
    /// With `cpu`: how long the new task sleeps first.
    after: Option<Spanned<String>>,
    /// `explore --fuzz` changes its `data` and `ctx`.
    fuzz: Option<bool>,
    expect: Option<expect::Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    map: Spanned<String>,
    key: Spanned<Value>,
    value: Option<Spanned<Value>>,
    flags: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    addr: u64,
    text: Option<String>,
    hex: Option<Spanned<String>>,
    /// How long it takes until the page is there, after which the first access waits.
    page_out: Option<Spanned<String>>,
}

/// A system call that is a step.
enum Call {
    Update(Map, Vec<u8>, Vec<u8>, u64),
    Delete(Map, Vec<u8>),
    Close(Map),
}

impl Call {
    fn now(&self) -> Result<(), Error> {
        match self {
            Call::Update(map, key, value, flags) => map.update(key, value, *flags),
            Call::Delete(map, key) => map.delete(key),
            Call::Close(map) => map.close(),
        }
    }

    async fn by(&self, user: &UserTask) -> Result<(), Error> {
        let (map, op, answer) = match self {
            Call::Update(map, key, value, flags) => {
                let answer = user.update(map, key, value, *flags).await;
                (map, "BPF_MAP_UPDATE_ELEM", answer)
            }
            Call::Delete(map, key) => (map, "BPF_MAP_DELETE_ELEM", user.delete(map, key).await),
            Call::Close(map) => (map, "close", user.close(map).await),
        };
        answer.map_err(|errno| Error::Map {
            map: map.spec().name.clone(),
            op,
            errno,
        })
    }
}

/// Why a scenario ended before its end.
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Ended {
    /// The scenario itself is wrong.
    Wrong(String),
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
            format!("{name}:{}: {}", line_of(text, span.start), e.message())
        })?;
        Ok(Scenario {
            name: name.to_string(),
            text: text.to_string(),
            file,
        })
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
        if let Some(chances) = &file.chances {
            let parsed = chances.get_ref().parse();
            let parsed = parsed.or_else(|e: NoChances| wrong(chances.span(), e));
            config.chances = parsed.map_err(|p| self.message(&p))?;
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

    /// Runs the scenario on an object as a test of an exploration. Failures of the kind
    /// `scenario` are the scenario's own.
    pub fn explore(&self, sim: &Sim, object: &[u8]) -> Result<(), Failed> {
        let failed = |kind: &str, place, message| Failed {
            kind: kind.to_string(),
            place,
            object: None,
            message,
        };
        let loaded = Ebpf::load(sim, object);
        let mut bpf = loaded.map_err(|e| failed("scenario", None, e.to_string()))?;
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
        let mut bpf = Ebpf::load(&sim, object).map_err(|e| Ended::Wrong(e.to_string()))?;
        match self.steps(&sim, &mut bpf) {
            Ok(()) => Ok((sim, bpf)),
            Err(problem) if problem.wrong => Err(Ended::Wrong(self.message(&problem))),
            Err(problem) => Err(Ended::Failed(self.message(&problem), sim.into(), bpf)),
        }
    }

    fn message(&self, problem: &Problem) -> String {
        let line = line_of(&self.text, problem.span.start);
        format!("{}:{line}: {}", self.name, problem.message)
    }

    fn steps(&self, sim: &Sim, bpf: &mut Ebpf) -> Result<(), Problem> {
        let mut jobs = Vec::new();
        for step in &self.file.step {
            let returned = step.get_ref().perform(step.span(), sim, bpf, &mut jobs)?;
            if let Some(expect) = &step.get_ref().expect {
                expect.check(sim, bpf, returned, &jobs)?;
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

impl Step {
    /// Does it; of a program that ran, what it returned.
    fn perform(
        &self,
        span: Range<usize>,
        sim: &Sim,
        bpf: &mut Ebpf,
        jobs: &mut Vec<(String, Job)>,
    ) -> Result<Option<u32>, Problem> {
        self.check_shape(span.clone())?;
        if let Some(name) = &self.run {
            let input = self.input(bpf, name)?;
            let mut program = bpf
                .program_mut(name.get_ref())
                .map_err(failed(name.span()))?;
            let out = program.test_run(input).map_err(failed(span))?;
            return Ok(Some(out.return_value));
        }
        if let Some(name) = &self.spawn {
            let input = self.input(bpf, name)?;
            let program = bpf.program(name.get_ref()).map_err(failed(name.span()))?;
            let cpu = Cpu(self.cpu.unwrap_or(0));
            let job = sim.spawn_on(cpu, program, input).map_err(failed(span))?;
            jobs.push((name.get_ref().clone(), job));
            return Ok(None);
        }
        for (name, value) in self.set.iter().flatten() {
            value::set_global(bpf, name, value)?;
        }
        if let Some(e) = &self.update {
            let Some(value) = &e.value else {
                return wrong(span, "update needs a value");
            };
            let flags = match e.flags.as_ref().map(|f| f.get_ref().as_str()) {
                None | Some("any") => update::ANY,
                Some("noexist") => update::NOEXIST,
                Some("exist") => update::EXIST,
                Some("lock") => update::LOCK,
                Some(other) => {
                    return wrong(
                        span,
                        format!("flags `{other}`: any, noexist, exist or lock"),
                    );
                }
            };
            let map = bpf.map(e.map.get_ref()).map_err(failed(e.map.span()))?;
            let (key, value) = (value::key(&map, &e.key)?, value::value(&map, value)?);
            self.call(span.clone(), sim, Call::Update(map, key, value, flags))?;
        }
        if let Some(e) = &self.delete {
            let map = bpf.map(e.map.get_ref()).map_err(failed(e.map.span()))?;
            let key = value::key(&map, &e.key)?;
            self.call(span.clone(), sim, Call::Delete(map, key))?;
        }
        if let Some(user) = &self.user {
            let bytes = match (&user.text, &user.hex) {
                (Some(text), None) => [text.as_bytes(), b"\0"].concat(),
                (None, Some(hex)) => unhex(hex)?,
                _ => return wrong(span, "user takes either text or hex"),
            };
            sim.write_user(sim.main_task(), user.addr, &bytes);
            if let Some(text) = &user.page_out {
                sim.main_task().page_out(sim, user.addr, time(text)?);
            }
        }
        if let Some(by) = &self.advance {
            sim.advance(time(by)?);
        }
        if let Some(by) = &self.run_for {
            sim.run_for(time(by)?).map_err(failed(span.clone()))?;
        }
        if self.run_until_idle == Some(true) {
            sim.run_until_idle().map_err(failed(span.clone()))?;
        }
        if let Some(name) = &self.close {
            let map = bpf.map(name.get_ref()).map_err(failed(name.span()))?;
            self.call(name.span(), sim, Call::Close(map))?;
        }
        Ok(None)
    }

    /// Makes a system call: at once, or with `cpu` by a new task, side by side.
    fn call(&self, span: Range<usize>, sim: &Sim, call: Call) -> Result<(), Problem> {
        let Some(cpu) = self.cpu else {
            return call.now().map_err(failed(span));
        };
        let sleep = self.after.as_ref().map(time).transpose()?;
        let spawned = sim.spawn_user(Cpu(cpu), async move |user| {
            if let Some(sleep) = sleep {
                user.sleep(sleep).await;
            }
            call.by(&user).await
        });
        spawned.map(drop).map_err(failed(span))
    }

    /// At most one thing to do, and inputs only where something runs.
    fn check_shape(&self, span: Range<usize>) -> Result<(), Problem> {
        let actions = [
            self.run.is_some(),
            self.spawn.is_some(),
            self.set.is_some(),
            self.update.is_some(),
            self.delete.is_some(),
            self.user.is_some(),
            self.advance.is_some(),
            self.run_for.is_some(),
            self.run_until_idle.is_some(),
            self.close.is_some(),
        ];
        let runs = self.run.is_some() || self.spawn.is_some();
        let calls = self.update.is_some() || self.delete.is_some() || self.close.is_some();
        let inputs = self.data.is_some() || self.ctx.is_some() || self.repeat.is_some();
        match actions.iter().filter(|&&a| a).count() {
            2.. => wrong(span, "a step does one thing; begin another [[step]]"),
            0 if self.expect.is_none() => {
                wrong(span, "a step with nothing to do and nothing to expect")
            }
            _ if inputs && !runs => wrong(span, "data, ctx and repeat go with run or spawn"),
            _ if self.cpu.is_some() && !(self.spawn.is_some() || calls) => {
                wrong(span, "cpu goes with spawn, update, delete and close")
            }
            _ if self.after.is_some() && !(calls && self.cpu.is_some()) => wrong(
                span,
                "after goes with update, delete or close that have a cpu",
            ),
            _ => Ok(()),
        }
    }

    fn input(&self, bpf: &mut Ebpf, name: &Spanned<String>) -> Result<ProgramInput, Problem> {
        let program = bpf
            .program_mut(name.get_ref())
            .map_err(failed(name.span()))?;
        let data = match &self.data {
            Some(hex) => unhex(hex)?,
            None if program.takes_packet() => vec![0; 64],
            None => Vec::new(),
        };
        let ctx = self.ctx.as_ref().map_or(Ok(Vec::new()), unhex)?;
        Ok(ProgramInput {
            data,
            ctx,
            repeat: self.repeat.unwrap_or(0),
            ..ProgramInput::empty()
        })
    }
}

/// Bytes written in hexadecimal, spaces ignored.
fn unhex(text: &Spanned<String>) -> Result<Vec<u8>, Problem> {
    let digits: Vec<u32> = text
        .get_ref()
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or(c))
        .collect::<Result<_, char>>()
        .or_else(|c| wrong(text.span(), format!("`{c}` is no hexadecimal digit")))?;
    if !digits.len().is_multiple_of(2) {
        return wrong(text.span(), "an odd number of hexadecimal digits");
    }
    Ok(digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

fn time(text: &Spanned<String>) -> Result<Duration, Problem> {
    crate::run::duration(text.get_ref()).or_else(|e| wrong(text.span(), e))
}
