//! An operation of the core: acts, one after another, some of which call a member or wait for a lock.
//!
//! While a member runs, the operation is with its run ([`Running::Scx`]); while it waits, with the
//! scheduler ([`Scx::paused`]), and a run without a program stands for it on the CPU.

use super::{Called, On, Scx, ScxOp, Stage};
use crate::choose::Wait;
use crate::failure::{Failure, FailureKind};
use crate::ids::{Cpu, CtxId, ProgId, TaskId};
use crate::kernel::Kernel;
use crate::prog::{Arg, ProgCtx};
use crate::run::{Phase, Run, Running};
use crate::shared::Shared;
use crate::state::{AtHook, CpuState, Cur};
use crate::syscall::SysResult;
use crate::testrun::Refused;
use crate::touch::Touch;
use crate::trace::{Level, What};
use bpfsim_abi::Errno;
use bpfsim_vm::{GuestMem, STACK_SIZE};

/// One thing that an operation does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// The run queue of a CPU is locked, and unlocked.
    Lock(u32),
    Unlock,
    /// Interrupts are on again.
    IrqsOn,
    /// A member whose result does not count, about a task.
    Tell(Told),
    // `enable`
    Init,
    Inited,
    CgroupInit(u64),
    CgroupInited,
    CgroupExit(u64),
    InitTask(TaskId, bool),
    TaskInited(TaskId, bool),
    EnableTask(TaskId, bool),
    TaskEnabled(TaskId),
    Ready,
    Bypass,
    ExitTask(TaskId),
    TaskExited(TaskId),
    Exit,
    Gone,
    // `wake`
    Wake(TaskId, u64),
    Select(TaskId, u64),
    Selected(TaskId, u64),
    Land(TaskId, u32, u64),
    Activate(TaskId, u64),
    Enqueue(TaskId, u64),
    Enqueued(TaskId),
    Woken(u32),
    Deferred,
    // `pick`
    Schedule,
    Block,
    Yield,
    Yielded,
    Tick,
    Ticked,
    Balance,
    Dispatch,
    Flush,
    Dispatched,
    NoTasks,
    Pick,
    PutPrev(On, On),
    Stopped(TaskId, On),
    SetNext(On),
    Switched(On),
    // `change`
    Dequeue(TaskId, u64),
    Quiesce(TaskId, u64),
    Dequeued(TaskId),
    SetWeight(TaskId, u32),
    Weigh(TaskId, u32),
    SetCpus(TaskId, u64),
    Allow(TaskId, u64),
    Restore(TaskId),
    Rerun(TaskId),
    Leave(TaskId),
    Move(TaskId),
    Dead(TaskId),
    Reenqueue,
    Release,
}

/// A call of a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub member: &'static str,
    pub args: [u64; 3],
    pub mask: u32,
    pub task: Option<TaskId>,
}

/// What an act came to.
pub(crate) enum Did {
    Over,
    /// A member is called next.
    Calls(Told),
    /// It is to be done once this is over.
    Waits(Wait),
}

/// An operation that is not over.
#[derive(Clone)]
pub(crate) struct Machine {
    id: CtxId,
    pub cpu: u32,
    /// Who does it.
    pub task: TaskId,
    made: u32,
    /// What is left, the next one last.
    acts: Vec<Act>,
    /// What the last member returned.
    pub ret: i32,
    /// The run queue that it has locked.
    pub locked: Option<u32>,
    pub irqs_off: bool,
    /// The context of the member that runs.
    ctx: u64,
    pub failed: Option<Errno>,
    /// With which flags a task is being enqueued.
    pub flags: u64,
    /// The task whose `enqueue` runs.
    pub enqueues: Option<TaskId>,
    /// The task that changes could run, and did, before.
    pub was: (bool, bool),
    /// The `struct scx_exit_info` that `exit` gets.
    pub info: u64,
}

impl Machine {
    /// Has these come next, in order.
    pub fn then<const N: usize>(&mut self, acts: [Act; N]) {
        self.acts.extend(acts.into_iter().rev());
    }

    /// Has nothing of what was to come happen.
    pub fn drop_rest(&mut self) {
        self.acts.clear();
    }

    /// Its member's program runs with interrupts off.
    pub fn held_off(&self) -> u32 {
        u32::from(self.irqs_off)
    }
}

/// What acts work on.
pub(super) struct Cx<'a> {
    pub scx: &'a mut Scx,
    pub mem: &'a mut GuestMem,
    pub cpus: &'a mut [CpuState],
    pub m: &'a mut Machine,
}

impl Cx<'_> {
    pub fn now(&self) -> u64 {
        self.cpus[self.m.cpu as usize].clock
    }

    /// A call of a member about a task.
    pub fn about(&self, member: &'static str, task: TaskId, more: u64, mask: u32) -> Told {
        let addr = self.scx.tasks.get(&task).map_or(0, |e| e.addr);
        Told {
            member,
            args: [addr, more, 0],
            mask,
            task: Some(task),
        }
    }

    fn act(&mut self, act: Act) -> Did {
        match act {
            Act::Lock(cpu) => {
                if self.scx.rqs[cpu as usize].locked {
                    return Did::Waits(Wait::RunQueue(Cpu(cpu)));
                }
                self.scx.rqs[cpu as usize].locked = true;
                (self.m.locked, self.m.irqs_off) = (Some(cpu), true);
                Did::Over
            }
            Act::Unlock => {
                if let Some(cpu) = self.m.locked.take() {
                    self.scx.rqs[cpu as usize].locked = false;
                }
                Did::Over
            }
            Act::IrqsOn => {
                self.m.irqs_off = false;
                Did::Over
            }
            Act::Tell(told) => Did::Calls(told),
            Act::Flush => match self.scx.awaited(self.m.cpu) {
                Some(task) => Did::Waits(Wait::Enqueue(task)),
                None => {
                    self.scx.flush(self.mem, self.m.cpu);
                    Did::Over
                }
            },
            Act::Init
            | Act::Inited
            | Act::CgroupInit(_)
            | Act::CgroupInited
            | Act::CgroupExit(_)
            | Act::InitTask(..)
            | Act::TaskInited(..)
            | Act::EnableTask(..)
            | Act::TaskEnabled(_)
            | Act::Ready
            | Act::Bypass
            | Act::ExitTask(_)
            | Act::TaskExited(_)
            | Act::Exit
            | Act::Gone => self.enabling(act),
            Act::Wake(..)
            | Act::Select(..)
            | Act::Selected(..)
            | Act::Land(..)
            | Act::Activate(..)
            | Act::Enqueue(..)
            | Act::Enqueued(_)
            | Act::Woken(_)
            | Act::Deferred => self.waking(act),
            Act::Schedule
            | Act::Block
            | Act::Yield
            | Act::Yielded
            | Act::Tick
            | Act::Ticked
            | Act::Balance
            | Act::Dispatch
            | Act::Dispatched
            | Act::NoTasks
            | Act::Pick
            | Act::PutPrev(..)
            | Act::Stopped(..)
            | Act::SetNext(_)
            | Act::Release
            | Act::Reenqueue
            | Act::Switched(_) => self.picking(act),
            _ => self.changing(act),
        }
    }
}

impl Kernel {
    /// Has a CPU do something. `EINVAL` for what cannot be: a task that is none of the scheduler's,
    /// no scheduler at all.
    pub fn scx_do(&mut self, cpu: Cpu, op: ScxOp) -> crate::run::Job {
        let cpu = self.clamp(cpu);
        let doers = self.st.scx.as_ref().map(|scx| &scx.doers);
        let doer = doers.and_then(|d| d.get(cpu.at()).copied());
        let task = doer.unwrap_or(self.main_task());
        self.enqueue(task, crate::syscall::SysOp::Scx(op))
    }

    /// What keeps an operation from beginning.
    pub(crate) fn check_scx(&self, op: &ScxOp) -> Result<(), Refused> {
        let scx = self.st.scx.as_ref().filter(|s| s.stage != Stage::Disabled);
        if let ScxOp::Enable(map) = *op {
            if scx.is_some() {
                return Err(Errno::EBUSY.into());
            }
            if super::Layout::new(&self.layouts).is_none() {
                return Err(Refused::Unsupported(
                    "sched_ext: the kernel's types have none of it (take another's: --btf, Config::btf)",
                ));
            }
            self.read_scx(map)?;
            return self.check_scx_ops(map);
        }
        let scx = scx.ok_or(Errno::ENODEV)?;
        let known = |task: TaskId| {
            let t = self.st.tasks.get(task.at());
            t.is_some_and(super::prepare::is_scheduled)
        };
        let fine = match *op {
            ScxOp::Wake { task, .. } => known(task),
            ScxOp::Exit(task) => scx.tasks.contains_key(&task),
            ScxOp::SetWeight(task, weight) => {
                scx.tasks.contains_key(&task) && (1..=10_000).contains(&weight)
            }
            ScxOp::SetCpus(task, mask) => scx.tasks.contains_key(&task) && mask & scx.all() != 0,
            _ => true,
        };
        if fine {
            Ok(())
        } else {
            Err(Errno::EINVAL.into())
        }
    }

    /// An operation begins, as the system call of a CPU.
    pub(crate) fn begin_scx(&mut self, cpu: Cpu, id: CtxId, op: &ScxOp) -> Result<(), Failure> {
        self.maybe_grace_period();
        if *op == ScxOp::Schedule {
            self.callbacks += 1;
            if self.callbacks > self.config.max_callbacks {
                // CPUs are told to schedule again and again.
                let callbacks = self.callbacks - 1;
                return Err(self.failure(FailureKind::Livelock { callbacks }, None));
            }
        }
        let mut m = Box::new(Machine {
            id,
            cpu: cpu.0,
            task: self.current_task(cpu),
            made: 0,
            acts: Vec::new(),
            ret: 0,
            locked: None,
            irqs_off: false,
            ctx: 0,
            failed: None,
            flags: 0,
            enqueues: None,
            was: (false, false),
            info: 0,
        });
        if let Err(refused) = self.prepare_scx(&mut m, op) {
            return self.scx_over(cpu, refused.into());
        }
        self.scx_go(cpu, m)
    }

    /// Does what comes next, up to a member or a wait.
    fn scx_go(&mut self, cpu: Cpu, mut m: Box<Machine>) -> Result<(), Failure> {
        self.st.touch(Touch::All);
        while let Some(act) = m.acts.pop() {
            let Some(scx) = &mut self.st.scx else {
                break;
            };
            let mut cx = Cx {
                scx,
                mem: &mut self.mem,
                cpus: &mut self.st.cpus,
                m: &mut m,
            };
            match cx.act(act) {
                Did::Over => {}
                Did::Calls(told) => match cx.scx.ops.prog(told.member) {
                    Some(prog) => return self.scx_call(cpu, m, told, prog),
                    None => m.ret = 0,
                },
                Did::Waits(wait) => {
                    m.acts.push(act);
                    return self.scx_pause(cpu, m, wait);
                }
            }
        }
        let result = m.failed.map_or(SysResult::Done, SysResult::Failed);
        self.scx_over(cpu, result)
    }

    fn scx_over(&mut self, cpu: Cpu, result: SysResult) -> Result<(), Failure> {
        if let Some(s) = &mut self.cpus[cpu.at()].thread.syscall {
            (s.out, s.phase) = (Some(Shared::new(result)), Phase::Return);
        }
        Ok(())
    }

    /// It waits, on top of its CPU.
    fn scx_pause(&mut self, cpu: Cpu, mut m: Box<Machine>, wait: Wait) -> Result<(), Failure> {
        m.made += 1;
        let cur = Cur {
            id: m.id.child(m.made),
            cpu,
            irq_off: u32::from(m.irqs_off),
            wait: Some(wait),
            ..Cur::user(m.task)
        };
        if let Some(scx) = &mut self.st.scx {
            scx.paused.insert(cpu.0, m);
        }
        self.push_syscall(cpu, cur)
    }

    /// What it waited for came about; `run` stood for it.
    pub(crate) fn scx_resume(&mut self, cpu: Cpu, mut run: Shared<Run>) -> Result<(), Failure> {
        if self.st.cur.lane != crate::race::NO_LANE {
            self.end_lane();
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        self.cpus[cpu.at()].stack.pop();
        self.free_stacks.push(run.stack);
        self.spare(run);
        let paused = self.st.scx.as_mut().and_then(|s| s.paused.remove(&cpu.0));
        match paused {
            Some(m) => self.scx_go(cpu, m),
            None => self.scx_over(cpu, SysResult::Failed(Errno::ENODEV)),
        }
    }

    fn scx_call(
        &mut self,
        cpu: Cpu,
        mut m: Box<Machine>,
        told: Told,
        prog: ProgId,
    ) -> Result<(), Failure> {
        let made = self.args_ctx(&told.args.map(Arg::Value));
        let (r1, ctx) = made.map_err(|e| self.out_of_memory(e))?;
        m.made += 1;
        m.ctx = r1;
        let stack = self.take_stack()?;
        let called = Called {
            mask: told.mask,
            rq: m.locked,
            task: told.task,
        };
        let cur = Cur {
            id: m.id.child(m.made),
            cpu,
            level: Level::Task,
            prog,
            irq_off: m.held_off(),
            ctx,
            hook: Some(Box::new(AtHook {
                scx: Some(called),
                ..AtHook::default()
            })),
            lane: self.lane(cpu, Some(m.task)),
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            ..Cur::user(m.task)
        };
        let name = self.st.progs[prog.at()].name.clone();
        self.event(&cur, What::ProgramStart { name });
        let regs = [r1, 0, 0, 0, 0];
        self.push(cpu, cur, 0, regs, stack, Running::Scx(m));
        Ok(())
    }

    /// A member returned.
    pub(crate) fn scx_ended(&mut self, cpu: Cpu, run: &mut Run, r0: u32) -> Result<(), Failure> {
        let Running::Scx(mut m) = std::mem::replace(&mut run.what, Running::Syscall) else {
            return Ok(());
        };
        self.drop_kept(run);
        let ctx = std::mem::replace(&mut run.cur.ctx, ProgCtx::Memory);
        let prog_type = self.st.progs[run.cur.prog.at()].prog_type;
        self.give_ctx_back(prog_type, 0, m.ctx, ctx);
        m.ret = r0 as i32;
        self.scx_go(cpu, m)
    }
}
