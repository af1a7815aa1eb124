//! One step of a scenario.

use super::hook::{self, HookKey, LevelKey, With};
use super::sched::Sched;
use super::text::{time, unhex};
use super::world::{
    self, Enter, Fails, Happens, Move, NewNamespace, NewNetdev, NewTask, Open, Scene,
};
use super::{Problem, expect, failed, value, wrong};
use bpfsim::{
    Cpu, Ebpf, Error, Fired, Map, ProgramInput, ProgramOutput, Redirect, Sim, User as UserTask,
    update,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use toml::{Spanned, Value};

/// One step: one of the things to do, and then what to expect.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    run: Option<Spanned<String>>,
    spawn: Option<Spanned<String>>,
    cpu: Option<u32>,
    pub data: Option<Spanned<String>>,
    pub ctx: Option<Spanned<String>>,
    repeat: Option<u32>,
    pub set: Option<BTreeMap<String, Spanned<Value>>>,
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
    pub fuzz: Option<bool>,
    pub expect: Option<expect::Expect>,
    task: Option<NewTask>,
    happens: Option<Happens>,
    r#move: Option<Move>,
    cgroup: Option<Spanned<String>>,
    remove_cgroup: Option<Spanned<String>>,
    netdev: Option<NewNetdev>,
    namespace: Option<NewNamespace>,
    enter: Option<Enter>,
    open: Option<Open>,
    fail: Option<Fails>,
    attach: Option<Spanned<String>>,
    /// With `attach`: to what, and how.
    to: Option<HookKey>,
    with: Option<With>,
    detach: Option<Spanned<String>>,
    /// An iterator that is attached.
    read: Option<Spanned<String>>,
    fire: Option<HookKey>,
    /// Something that a scheduler is called for.
    sched: Option<Sched>,
    /// With `run` or `fire`: the task that does it.
    by: Option<Spanned<String>>,
    /// With `fire`: arguments, what the function returns, where it happens, and with `cpu` under
    /// which name.
    args: Option<Vec<Spanned<Value>>>,
    returns: Option<i64>,
    level: Option<LevelKey>,
    name: Option<Spanned<String>>,
}

/// What came of a step.
#[derive(Default)]
pub struct Done {
    pub output: Option<ProgramOutput>,
    pub fired: Option<Fired>,
    /// What an iterator said.
    pub text: Option<String>,
}

impl Done {
    /// Where packets were sent.
    pub fn redirects(&self) -> impl Iterator<Item = &Redirect> {
        let runs = self.fired.iter().flat_map(|f| &f.runs);
        let outputs = runs.filter_map(|r| r.output.as_ref());
        let outputs = outputs.chain(&self.output);
        outputs.flat_map(|o| &o.redirects)
    }

    /// The packet as the last program left it.
    pub fn packet(&self) -> Option<&[u8]> {
        let runs = self.fired.iter().flat_map(|f| &f.runs);
        let outputs = runs.filter_map(|r| r.output.as_ref());
        outputs.chain(&self.output).last().map(|o| &o.data_out[..])
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    map: Spanned<String>,
    key: Spanned<Value>,
    value: Option<Spanned<Value>>,
    flags: Option<Spanned<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    task: Option<Spanned<String>>,
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

impl Step {
    /// True when programs run: constants cannot be set any more.
    pub fn runs(&self) -> bool {
        let reads = self.read.is_some();
        let schedules = self.sched.is_some();
        self.run.is_some() || self.spawn.is_some() || self.fire.is_some() || schedules || reads
    }

    /// Does it.
    pub fn perform(
        &self,
        span: Range<usize>,
        sim: &Sim,
        bpf: &mut Ebpf,
        scene: &mut Scene,
    ) -> Result<Done, Problem> {
        scene.ran |= self.runs();
        if let Some(name) = &self.run {
            let input = self.program_input(bpf, name)?;
            let mut program = bpf
                .program_mut(name.get_ref())
                .map_err(failed(name.span()))?;
            let out = match &self.by {
                Some(task) => scene.task(sim, task)?.test_run(sim, &program, input),
                None => program.test_run(input),
            };
            let out = out.map_err(failed(span))?;
            return Ok(Done {
                output: Some(out),
                ..Done::default()
            });
        }
        if let Some(name) = &self.spawn {
            let input = self.program_input(bpf, name)?;
            let program = bpf.program(name.get_ref()).map_err(failed(name.span()))?;
            let cpu = Cpu(self.cpu.unwrap_or(0));
            let job = sim.spawn_on(cpu, program, input).map_err(failed(span))?;
            scene.jobs.push((name.get_ref().clone(), job));
            return Ok(Done::default());
        }
        if let Some(name) = &self.read {
            return Ok(Done {
                text: Some(hook::read(name, sim, scene)?),
                ..Done::default()
            });
        }
        if let Some(hook) = &self.fire {
            return self.perform_fire(span, hook, sim, bpf, scene);
        }
        if let Some(sched) = &self.sched {
            sched.perform(span, sim, bpf, scene)?;
            return Ok(Done::default());
        }
        self.perform_world(sim, bpf, scene)?;
        self.perform_memory(span.clone(), sim, bpf, scene)?;
        self.perform_time(span, sim, bpf)?;
        Ok(Done::default())
    }

    fn perform_fire(
        &self,
        span: Range<usize>,
        key: &HookKey,
        sim: &Sim,
        bpf: &Ebpf,
        scene: &mut Scene,
    ) -> Result<Done, Problem> {
        let hook = key.hook(sim, bpf, scene)?;
        let mut input = hook::packet(key, self.input(Vec::new())?);
        input.args = hook::args(self.args.as_deref().unwrap_or(&[]), sim, bpf, scene)?;
        input.returns = self.returns.unwrap_or(0) as u64;
        input.retval = self.returns.unwrap_or(0) as i32;
        input.level = self.level.map(Into::into);
        let Some(cpu) = self.cpu else {
            let fired = match &self.by {
                Some(task) => scene.task(sim, task)?.fire(sim, &hook, input),
                None => sim.fire(&hook, input),
            };
            let fired = fired.map_err(failed(span))?;
            return Ok(Done {
                fired: Some(fired),
                ..Done::default()
            });
        };
        let after = self.after.as_ref().map(time).transpose()?;
        let after = after.unwrap_or(Duration::ZERO);
        let job = sim.fire_after(after, Cpu(cpu), &hook, input);
        let job = job.map_err(failed(span))?;
        if let Some(name) = &self.name {
            scene.fired.insert(name.get_ref().clone(), job);
        }
        Ok(Done::default())
    }

    /// What programs find around them, and what is attached.
    fn perform_world(&self, sim: &Sim, bpf: &mut Ebpf, scene: &mut Scene) -> Result<(), Problem> {
        if let Some(new) = &self.task {
            scene.make_task(sim, new)?;
        }
        if let Some(what) = &self.happens {
            scene.happens(sim, what)?;
        }
        if let Some(to) = &self.r#move {
            scene.move_task(sim, to)?;
        }
        if let Some(path) = &self.cgroup {
            scene.make_cgroup(sim, path)?;
        }
        if let Some(path) = &self.remove_cgroup {
            scene.remove_cgroup(sim, path)?;
        }
        if let Some(new) = &self.netdev {
            scene.make_netdev(sim, new)?;
        }
        if let Some(new) = &self.namespace {
            scene.make_namespace(sim, new)?;
        }
        if let Some(to) = &self.enter {
            scene.enter(sim, to)?;
        }
        if let Some(what) = &self.open {
            scene.open(sim, what)?;
        }
        if let Some(fails) = &self.fail {
            world::fail(sim, fails)?;
        }
        if let Some(name) = &self.attach {
            hook::attach(name, self.to.as_ref(), self.with.as_ref(), sim, bpf, scene)?;
        }
        match &self.detach {
            Some(name) => hook::detach(name, scene),
            None => Ok(()),
        }
    }

    fn perform_memory(
        &self,
        span: Range<usize>,
        sim: &Sim,
        bpf: &mut Ebpf,
        scene: &Scene,
    ) -> Result<(), Problem> {
        for (name, value) in self.set.iter().flatten() {
            if !value::is_constant(bpf, name) {
                value::set_global(bpf, name, value)?;
            } else if scene.ran {
                return wrong(
                    value.span(),
                    format!("{name} is a constant: set it before anything runs"),
                );
            }
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
            let task = scene.task_or_own(sim, user.task.as_ref())?;
            sim.write_user(task, user.addr, &bytes);
            if let Some(text) = &user.page_out {
                task.page_out(sim, user.addr, time(text)?);
            }
        }
        Ok(())
    }

    fn perform_time(&self, span: Range<usize>, sim: &Sim, bpf: &Ebpf) -> Result<(), Problem> {
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
        Ok(())
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

    /// At most one thing to do, and what goes with it only there.
    pub fn check_shape(&self, span: Range<usize>) -> Result<(), Problem> {
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
            self.task.is_some(),
            self.happens.is_some(),
            self.r#move.is_some(),
            self.cgroup.is_some(),
            self.remove_cgroup.is_some(),
            self.netdev.is_some(),
            self.fail.is_some(),
            self.attach.is_some(),
            self.detach.is_some(),
            self.fire.is_some(),
            self.sched.is_some(),
            self.read.is_some(),
            self.namespace.is_some(),
            self.enter.is_some(),
            self.open.is_some(),
        ];
        let calls = self.update.is_some() || self.delete.is_some() || self.close.is_some();
        let fires = self.fire.is_some();
        let (runs, attaches) = (
            self.run.is_some() || self.spawn.is_some(),
            self.attach.is_some(),
        );
        let inputs = self.data.is_some() || self.ctx.is_some();
        let calls_a_function = self.args.is_some() || self.returns.is_some();
        let side_by_side = self.cpu.is_some();
        // What is there, where it goes, and how that is said.
        let rules = [
            (
                inputs,
                runs || fires,
                "data and ctx go with run, spawn or fire",
            ),
            (self.repeat.is_some(), runs, "repeat goes with run or spawn"),
            (
                side_by_side,
                self.spawn.is_some() || calls || fires,
                "cpu goes with spawn, update, delete, close and fire",
            ),
            (
                self.after.is_some(),
                (calls || fires) && side_by_side,
                "after goes with update, delete, close or fire that have a cpu",
            ),
            (
                calls_a_function || self.level.is_some(),
                fires,
                "args, returns and level go with fire",
            ),
            (
                self.name.is_some(),
                fires && side_by_side,
                "name goes with a fire that has a cpu",
            ),
            (
                self.by.is_some(),
                (self.run.is_some() || fires) && !side_by_side,
                "by goes with run, or with a fire without a cpu",
            ),
            (
                self.to.is_some() || self.with.is_some(),
                attaches,
                "to and with go with attach",
            ),
        ];
        match actions.iter().filter(|&&a| a).count() {
            2.. => return wrong(span, "a step does one thing; begin another [[step]]"),
            0 if self.expect.is_none() => {
                return wrong(span, "a step with nothing to do and nothing to expect");
            }
            _ => {}
        }
        match rules.iter().find(|(there, goes, _)| *there && !goes) {
            Some((.., rule)) => wrong(span, rule),
            None => Ok(()),
        }
    }

    fn program_input(
        &self,
        bpf: &mut Ebpf,
        name: &Spanned<String>,
    ) -> Result<ProgramInput, Problem> {
        let program = bpf
            .program_mut(name.get_ref())
            .map_err(failed(name.span()))?;
        let data = match program.takes_packet() {
            true => vec![0; 64],
            false => Vec::new(),
        };
        self.input(data)
    }

    /// The input of a step, with this packet where it says none.
    fn input(&self, data: Vec<u8>) -> Result<ProgramInput, Problem> {
        Ok(ProgramInput {
            data: self.data.as_ref().map_or(Ok(data), unhex)?,
            ctx: self.ctx.as_ref().map_or(Ok(Vec::new()), unhex)?,
            repeat: self.repeat.unwrap_or(0),
            ..ProgramInput::empty()
        })
    }
}
