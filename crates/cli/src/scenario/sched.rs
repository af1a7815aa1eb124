//! Steps of a scheduler (sched_ext), and what is expected of it.

use super::expect::unmet;
use super::world::Scene;
use super::{Problem, failed, wrong};
use bpfsim::{Cpu, Ebpf, Scheduler, ScxPlace, Sim, Task};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

/// What is done: one of these.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sched {
    /// The struct_ops map takes over.
    enable: Option<Spanned<String>>,
    /// With `enable`: numbers of its struct.
    #[serde(default)]
    set: BTreeMap<String, u64>,
    wake: Option<Spanned<String>>,
    exit: Option<Spanned<String>>,
    sleep: Option<u32>,
    tick: Option<u32>,
    r#yield: Option<u32>,
    take: Option<u32>,
    give_back: Option<u32>,
    /// Of `task`.
    weight: Option<u32>,
    cpus: Option<u64>,
    task: Option<Spanned<String>>,
    disable: Option<bool>,
    /// With `wake`: the CPU that does it, side by side.
    cpu: Option<u32>,
    /// With `sleep` and `tick`: side by side.
    #[serde(default)]
    beside: bool,
}

/// What is so after a step.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedState {
    /// The task that each CPU executes, "" for none.
    running: Option<Spanned<Vec<String>>>,
    /// Where tasks are.
    #[serde(default)]
    at: BTreeMap<String, Spanned<String>>,
    /// Tasks in queues, by the queue's number.
    #[serde(default)]
    queued: BTreeMap<String, Spanned<Vec<String>>>,
    /// What the message contains that the scheduler ended with.
    exit: Option<Spanned<String>>,
}

impl Sched {
    pub fn perform(
        &self,
        span: Range<usize>,
        sim: &Sim,
        bpf: &Ebpf,
        scene: &mut Scene,
    ) -> Result<(), Problem> {
        self.check_shape(span.clone())?;
        if let Some(name) = &self.enable {
            let map = bpf.map(name.get_ref()).map_err(failed(name.span()))?;
            for (member, value) in &self.set {
                let set = map.set_struct_ops(member, *value);
                set.map_err(failed(name.span()))?;
            }
            let scheduler = map.enable_scheduler().map_err(failed(name.span()))?;
            scene.scheduler = Some(scheduler);
            return Ok(());
        }
        let Some(scheduler) = scene.scheduler.clone() else {
            return wrong(
                span,
                "no scheduler is enabled: sched = { enable = \"MAP\" } first",
            );
        };
        let task = |name: &Spanned<String>| scene.task(sim, name);
        let about = self.task.as_ref().map(task).transpose()?;
        let s = &scheduler;
        let done = if let Some(name) = &self.wake {
            let woken = task(name)?;
            match self.cpu {
                Some(cpu) => {
                    s.wake_on(Cpu(cpu), woken);
                    Ok(())
                }
                None => s.wake(woken),
            }
        } else if let Some(name) = &self.exit {
            s.exit_task(task(name)?)
        } else if let (Some(task), Some(weight)) = (about, self.weight) {
            s.set_weight(task, weight)
        } else if let (Some(task), Some(cpus)) = (about, self.cpus) {
            s.set_cpus(task, cpus)
        } else {
            self.of_cpu(s)
        };
        done.map_err(failed(span))
    }

    fn of_cpu(&self, s: &Scheduler) -> Result<(), bpfsim::Error> {
        match (
            self.sleep,
            self.tick,
            self.r#yield,
            self.take,
            self.give_back,
        ) {
            (Some(cpu), ..) if self.beside => {
                s.sleep_on(Cpu(cpu));
                Ok(())
            }
            (_, Some(cpu), ..) if self.beside => {
                s.tick_on(Cpu(cpu));
                Ok(())
            }
            (Some(cpu), ..) => s.sleep(Cpu(cpu)),
            (_, Some(cpu), ..) => s.tick(Cpu(cpu)),
            (_, _, Some(cpu), ..) => s.yield_now(Cpu(cpu)),
            (_, _, _, Some(cpu), _) => s.take_cpu(Cpu(cpu), 0),
            (_, _, _, _, Some(cpu)) => s.give_cpu_back(Cpu(cpu)),
            _ => s.disable(),
        }
    }

    fn check_shape(&self, span: Range<usize>) -> Result<(), Problem> {
        let actions = [
            self.enable.is_some(),
            self.wake.is_some(),
            self.exit.is_some(),
            self.sleep.is_some(),
            self.tick.is_some(),
            self.r#yield.is_some(),
            self.take.is_some(),
            self.give_back.is_some(),
            self.weight.is_some(),
            self.cpus.is_some(),
            self.disable == Some(true),
        ];
        let of_task = self.weight.is_some() || self.cpus.is_some();
        let rules = [
            (
                self.task.is_some() != of_task,
                "task goes with weight and cpus",
            ),
            (
                self.cpu.is_some() && self.wake.is_none(),
                "cpu goes with wake",
            ),
            (
                self.beside && self.sleep.is_none() && self.tick.is_none(),
                "beside goes with sleep and tick",
            ),
            (
                !self.set.is_empty() && self.enable.is_none(),
                "set goes with enable",
            ),
        ];
        if actions.iter().filter(|&&a| a).count() != 1 {
            return wrong(
                span,
                "sched is one of enable, wake, sleep, tick, yield, exit, take, give_back, weight, cpus and disable",
            );
        }
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => wrong(span, rule),
            None => Ok(()),
        }
    }
}

/// A scheduler that the kernel aborted fails the step after which it is, if nobody expects that.
pub fn check(span: Range<usize>, expected: bool, scene: &mut Scene) -> Result<(), Problem> {
    scene.exit_expected |= expected;
    match &scene.scheduler {
        Some(scheduler) if !scene.exit_expected => scheduler.check().map_err(failed(span)),
        _ => Ok(()),
    }
}

impl SchedState {
    /// It says how the scheduler ends.
    pub fn expects_exit(&self) -> bool {
        self.exit.is_some()
    }

    pub fn check(&self, span: Range<usize>, sim: &Sim, scene: &Scene) -> Result<(), Problem> {
        let Some(s) = &scene.scheduler else {
            return wrong(
                span,
                "no scheduler is enabled: sched = { enable = \"MAP\" } first",
            );
        };
        let name = |task: Option<Task>| task.and_then(|t| scene.name_of(t)).unwrap_or_default();
        if let Some(want) = &self.running {
            let cpus = 0..sim.config().cpus;
            let got: Vec<String> = cpus.map(|c| name(s.running(Cpu(c)))).collect();
            if got != *want.get_ref() {
                let text = format!("CPUs execute {got:?}, expected {:?}", want.get_ref());
                return unmet(want.span(), text);
            }
        }
        for (task, want) in &self.at {
            let key = Spanned::new(want.span(), task.clone());
            let got = place(s.place(scene.task(sim, &key)?));
            if got != *want.get_ref() {
                let text = format!("{task} is {got}, expected {}", want.get_ref());
                return unmet(want.span(), text);
            }
        }
        for (queue, want) in &self.queued {
            let number = match queue.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => queue.parse(),
            };
            let Ok(number) = number else {
                return wrong(want.span(), format!("{queue} is no number of a queue"));
            };
            let Some(tasks) = s.queued(number) else {
                return unmet(want.span(), format!("there is no queue {queue}"));
            };
            let got: Vec<String> = tasks.into_iter().map(|t| name(Some(t))).collect();
            if got != *want.get_ref() {
                let text = format!("in {queue} are {got:?}, expected {:?}", want.get_ref());
                return unmet(want.span(), text);
            }
        }
        if let Some(want) = &self.exit {
            let exit = s.exit();
            let got = exit.map(|e| format!("{}: {}", e.kind.reason(), e.msg));
            if !got.as_ref().is_some_and(|g| g.contains(want.get_ref())) {
                let got = got.unwrap_or("it schedules".to_string());
                return unmet(want.span(), format!("{got}, expected {:?}", want.get_ref()));
            }
        }
        Ok(())
    }
}

/// As a scenario writes it.
fn place(place: ScxPlace) -> String {
    match place {
        ScxPlace::Asleep => "asleep".to_string(),
        ScxPlace::Running(cpu) => format!("running {}", cpu.0),
        ScxPlace::Local(cpu) => format!("local {}", cpu.0),
        ScxPlace::Global => "global".to_string(),
        ScxPlace::Dsq(id) => format!("dsq {id}"),
        ScxPlace::Bpf => "bpf".to_string(),
    }
}
