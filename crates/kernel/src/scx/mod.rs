//! sched_ext: a scheduler of programs, and as much of Linux's core around it as calls it.
//!
//! What there is of a scheduler is one value, [`Scx`], which is not there before one is enabled. Tasks
//! execute nothing here: a test says that one wakes up, sleeps, exits or had a tick, and what Linux
//! does then is done step by step, its members being programs like all others:
//!
//! - `queue`: dispatch queues, and what goes from one to another;
//! - `idle`: CPUs that have nothing to do, and which of them is chosen;
//! - `machine`: an operation of the core, which calls one member after another and waits for locks;
//! - `prepare`: which acts an operation begins with; `wake`, `pick`, `change`, `enable`: what acts do;
//! - `time`: what comes by itself, ticks and the watchdog; `ask`: what there is to ask;
//! - `ops`: what a scheduler is made of, and what is refused;
//! - kfuncs are with all others, in `kfunc/scx.rs`.

mod ask;
mod change;
pub(crate) mod consts;
mod enable;
mod idle;
mod kicks;
mod machine;
mod ops;
mod pick;
mod prepare;
mod queue;
mod show;
mod time;
mod wake;

pub(crate) use machine::Machine;
pub(crate) use ops::Ops;
pub(crate) use queue::{Dsq, Node, Q, before32};
pub(crate) use show::Layout;

use crate::ids::{Cpu, MapId, TaskId};
use consts::{COUNTERS, Counter, SLICE_DFL};
use kicks::Kicks;
use std::collections::BTreeMap;

/// Something that tasks do, or that is done to them, while a scheduler is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScxOp {
    /// The scheduler of a struct_ops map takes over.
    Enable(MapId),
    /// It goes, because of [`ScxExit`].
    Disable,
    /// A task wakes up: the first time, it is a new one.
    Wake {
        /// Which.
        task: TaskId,
        /// `SCX_WAKE_*`
        flags: u64,
    },
    /// The CPU comes to `schedule()`, since it was told so.
    Schedule,
    /// The tick comes over the CPU.
    Tick,
    /// The task that the CPU executes goes to sleep.
    Sleep,
    /// It gives up its turn (`sched_yield(2)`).
    Yield,
    /// The task exits: it is the one that the CPU executes, or one that sleeps.
    Exit(TaskId),
    /// The task's weight changes, 1 to 10000.
    SetWeight(TaskId, u32),
    /// The CPUs that the task may run on change (`sched_setaffinity(2)`).
    SetCpus(TaskId, u64),
    /// A task of a higher class wants the CPU: `SCX_CPU_PREEMPT_*`.
    Take(u32),
    /// That goes.
    GiveBack,
}

/// Why a scheduler is gone, or on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScxExit {
    /// `enum scx_exit_kind`
    pub kind: ScxExitKind,
    /// What `scx_bpf_exit` gave.
    pub code: i64,
    /// `scx_exit_info.msg`
    pub msg: String,
}

/// `enum scx_exit_kind`, those of them that come about here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScxExitKind {
    /// User space detached it.
    Unreg = 64,
    /// `scx_bpf_exit`
    UnregBpf = 65,
    /// It did what Linux aborts schedulers for.
    Error = 1024,
    /// `scx_bpf_error`
    ErrorBpf = 1025,
    /// A task that could run did not for too long.
    ErrorStall = 1026,
}

impl ScxExitKind {
    /// `scx_exit_info.reason`
    pub fn reason(self) -> &'static str {
        match self {
            ScxExitKind::Unreg => "unregistered from user space",
            ScxExitKind::UnregBpf => "unregistered from BPF",
            ScxExitKind::Error => "runtime error",
            ScxExitKind::ErrorBpf => "scx_bpf_error",
            ScxExitKind::ErrorStall => "runnable task stall",
        }
    }

    /// It is an error, not somebody's wish.
    pub fn is_error(self) -> bool {
        self as u32 >= ScxExitKind::Error as u32
    }
}

/// Where a task is, as the core sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScxPlace {
    /// It sleeps, or is not the scheduler's.
    Asleep,
    /// A CPU executes it.
    Running(Cpu),
    /// In the local queue of a CPU.
    Local(Cpu),
    /// In the global queue.
    Global,
    /// In a queue that the scheduler made, of this number.
    Dsq(u64),
    /// With the scheduler: `enqueue` took it and inserted it nowhere.
    Bpf,
}

/// How far a scheduler has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Enabling,
    Enabled,
    Disabling,
    Disabled,
}

/// A scheduler, and what it schedules.
#[derive(Clone)]
pub(crate) struct Scx {
    pub map: MapId,
    pub ops: Ops,
    pub stage: Stage,
    pub exit: Option<ScxExit>,
    /// `init` returned 0.
    pub initialized: bool,
    pub tasks: BTreeMap<TaskId, Entity>,
    pub rqs: Vec<Rq>,
    pub dsqs: BTreeMap<Q, Dsq>,
    /// The cgroups that `cgroup_init` was called for, by their addresses.
    pub cgroups: Vec<u64>,
    /// Idle CPUs, as the built-in tracking knows them.
    pub idle: u64,
    /// All CPUs are as if they had no scheduler but the kernel's simplest.
    pub bypass: bool,
    pub counters: [u64; COUNTERS],
    pub kicks: Kicks,
    /// Operations that wait, by their CPU.
    pub paused: BTreeMap<u32, Box<Machine>>,
    pub layout: Layout,
    /// The idle tasks of CPUs, by their addresses.
    pub idle_tasks: Vec<u64>,
    /// Guest addresses of masks: none, CPUs that there are, idle ones.
    pub none_mask: u64,
    pub all_mask: u64,
    pub idle_mask: u64,
    /// Guest address of what members are given beside tasks, for each CPU.
    pub args: Vec<u64>,
    /// When the watchdog looks next.
    pub watch_at: u64,
    /// Who does on a CPU what a test asks for.
    pub doers: Vec<TaskId>,
    /// `disable` is on its way.
    pub disables: bool,
}

/// What a CPU executes, as classes of schedulers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    Idle,
    Task(TaskId),
    /// A task of a higher class.
    Higher,
}

/// `direct_dispatch_task`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direct {
    None,
    Task(TaskId),
    /// It was dispatched.
    Spoilt,
}

/// A CPU's `struct rq`, and what sched_ext keeps for each CPU.
#[derive(Clone)]
pub(crate) struct Rq {
    pub on: On,
    /// A higher class wants the CPU, for this reason.
    pub higher: Option<u32>,
    pub locked: bool,
    pub need_resched: bool,
    /// [`ScxOp::Schedule`] is on its way.
    pub scheduled: bool,
    pub released: bool,
    pub in_balance: bool,
    pub keep: bool,
    /// Calls of `dispatch` that are left, and tasks that the last one gave.
    pub loops: u32,
    pub given: u32,
    pub batch: Vec<Insert>,
    pub qseq: u64,
    pub direct: Direct,
    /// Tasks on their way to local queues of other CPUs (`ddsp_deferred_locals`).
    pub deferred: Vec<TaskId>,
    /// Tasks that `scx_bpf_reenqueue_local` took.
    pub reenqueued: Vec<TaskId>,
    pub cpuperf: u32,
    /// Guest address of its `struct rq`.
    pub addr: u64,
    /// When the next tick comes.
    pub tick_at: u64,
    /// `dispatch` gave nothing that could be executed, too often: it is asked again with the tick.
    pub retries: bool,
}

/// An insertion that `dispatch` asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insert {
    pub task: TaskId,
    pub qseq: u64,
    pub dsq: u64,
    pub flags: u64,
}

/// `ops_state`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Custody {
    None,
    /// `enqueue` is running.
    Queueing(u64),
    /// The scheduler has it.
    Queued(u64),
}

/// `SCX_TASK_*` of a task's state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TaskStage {
    None,
    Init,
    Ready,
    Enabled,
}

/// `struct sched_ext_entity`, but for what programs read and write of it.
#[derive(Clone)]
pub(crate) struct Entity {
    pub addr: u64,
    /// `comm[pid]`, as messages have it.
    pub name: String,
    pub stage: TaskStage,
    pub cpu: u32,
    pub allowed: u64,
    /// `SCX_TASK_QUEUED`: it could run, or does.
    pub runnable: bool,
    /// It waits for a CPU, since then.
    pub waits: bool,
    pub runnable_at: u64,
    pub reset_runnable_at: bool,
    pub custody: Custody,
    pub on: Option<Q>,
    pub on_priq: bool,
    pub seq: u32,
    /// The direct dispatch that was asked for: queue and flags.
    pub direct: Option<(u64, u64)>,
    pub deferred: bool,
    pub exec_start: u64,
    pub exiting: bool,
    pub selected: u32,
    /// Guest address of its cgroup.
    pub cgroup: u64,
}

impl Scx {
    /// `scx_exit`: the first reason counts.
    pub fn exits(&mut self, kind: ScxExitKind, code: i64, msg: String) {
        if self.exit.is_none() && self.stage != Stage::Disabled {
            self.exit = Some(ScxExit { kind, code, msg });
        }
    }

    /// `scx_error`
    pub fn error(&mut self, msg: String) {
        self.exits(ScxExitKind::Error, 0, msg);
    }

    pub fn count(&mut self, counter: Counter) {
        self.counters[counter as usize] += 1;
    }

    pub fn cpus(&self) -> u32 {
        self.rqs.len() as u32
    }

    /// CPUs that there are, as a mask.
    pub fn all(&self) -> u64 {
        u64::MAX >> (64 - self.rqs.len().clamp(1, 64))
    }

    /// `ops_cpu_valid`
    pub fn cpu_valid(&mut self, cpu: i32, place: &str) -> bool {
        let valid = (0..self.cpus() as i32).contains(&cpu);
        if !valid {
            let place = match place {
                "" => String::new(),
                place => format!(" {place}"),
            };
            self.error(format!("invalid CPU {cpu}{place}"));
        }
        valid
    }

    pub fn name(&self, task: TaskId) -> &str {
        self.tasks.get(&task).map_or("?", |e| &e.name)
    }

    /// The task that a CPU executes, if it is one of the scheduler's.
    pub fn curr(&self, cpu: u32) -> Option<TaskId> {
        match self.rqs[cpu as usize].on {
            On::Task(task) => Some(task),
            On::Idle | On::Higher => None,
        }
    }

    /// `resched_curr`
    pub fn resched(&mut self, cpu: u32) {
        self.rqs[cpu as usize].need_resched = true;
    }

    /// Where a task is.
    pub fn place(&self, task: TaskId) -> ScxPlace {
        let Some(e) = self.tasks.get(&task).filter(|e| e.runnable) else {
            return ScxPlace::Asleep;
        };
        if self.curr(e.cpu) == Some(task) {
            return ScxPlace::Running(Cpu(e.cpu));
        }
        match e.on {
            Some(Q::Local(cpu) | Q::Bypass(cpu)) => ScxPlace::Local(Cpu(cpu)),
            Some(Q::Global) => ScxPlace::Global,
            Some(Q::User(id)) => ScxPlace::Dsq(id),
            None => ScxPlace::Bpf,
        }
    }
}

impl Rq {
    fn new(addr: u64) -> Rq {
        Rq {
            on: On::Idle,
            higher: None,
            locked: false,
            need_resched: false,
            scheduled: false,
            released: false,
            in_balance: false,
            keep: false,
            loops: 0,
            given: 0,
            batch: Vec::new(),
            qseq: 0,
            direct: Direct::None,
            deferred: Vec::new(),
            reenqueued: Vec::new(),
            cpuperf: consts::CPUPERF_ONE,
            addr,
            tick_at: 0,
            retries: false,
        }
    }
}

/// What a member that runs was called for, as kfuncs see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    /// `SCX_KF_*`
    pub mask: u32,
    /// The CPU whose run queue is locked.
    pub rq: Option<u32>,
    /// The task that it is about (`kf_tasks`).
    pub task: Option<TaskId>,
}

/// The slice that a task begins with.
pub(crate) const FIRST_SLICE: u64 = SLICE_DFL;
