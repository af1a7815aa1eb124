//! Executions in flight, and the system calls that some of them belong to.

use crate::asynch::Handle;
use crate::choose::Next;
use crate::hook::{Fire, Interrupt, Reading};
use crate::ids::{Cpu, CtxId, MapId, TaskId};
use crate::prog::ProgCtx;
use crate::scx::Machine;
use crate::shared::{Few, Shared};
use crate::state::{Cur, State};
use crate::syscall::{SysOp, SysResult};
use crate::task::TaskState;
use crate::trace::Element;
use bpfsim_vm::Activation;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Deref;
use std::rc::Rc;

/// A program, callback or system call that has begun and not ended.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Run {
    pub act: Activation,
    /// What helpers see of it; in [`State::cur`](crate::state::State) while it executes.
    pub cur: Shared<Cur>,
    pub what: Running,
    /// What it does when it goes on.
    pub next: Next,
    /// Stack slot, to be given back.
    pub stack: u32,
}

/// What a run is.
#[derive(Clone)]
pub(crate) enum Running {
    /// The program of the CPU's system call, with the context that it was given.
    Program(u64),
    /// The CPU's system call, which runs no program.
    Syscall,
    /// A program of a hook that happens.
    Hook(Box<Fire>),
    /// A program of an iterator that is read.
    Iter(Box<Reading>),
    /// A member of the scheduler, for an operation of the core around it.
    Scx(Box<Machine>),
    /// A callback, of the object in the element.
    Timer(Handle, Element),
    Work(Handle, Element),
    TaskWork(Handle, Element),
}

/// A system call that a task makes, or will make.
pub(crate) struct Syscall {
    pub id: CtxId,
    pub task: TaskId,
    pub op: SysOp,
    /// Where its result goes.
    pub job: usize,
    /// How often its program is run.
    pub runs: u32,
    /// The program runs with soft interrupts off.
    pub bh_off: bool,
    /// What it fails with before it begins.
    pub refused: Option<Shared<SysResult>>,
}

/// A system call, from its first instruction in the kernel to its return to user mode.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Entered {
    pub call: Rc<Syscall>,
    pub phase: Phase,
    /// Runs of its program that are left.
    pub left: u32,
    pub between: Option<Box<Between>>,
    pub out: Option<Shared<SysResult>>,
}

/// What a program is run with again.
#[derive(Clone)]
pub(crate) struct Between {
    /// The context that it is given.
    pub r1: u64,
    pub ctx: ProgCtx,
    /// What it has instead of storage of cgroups.
    pub storage: Few<Vec<(MapId, u64)>>,
}

impl Entered {
    pub fn new(call: Rc<Syscall>) -> Entered {
        Entered {
            phase: match call.refused {
                Some(_) => Phase::Return,
                None => Phase::Enter,
            },
            left: call.runs,
            between: None,
            out: call.refused.clone(),
            call,
        }
    }
}

impl Deref for Entered {
    type Target = Syscall;

    fn deref(&self) -> &Syscall {
        &self.call
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The program is to run (again).
    Enter,
    /// It runs.
    Running,
    /// On the way to user mode.
    Return,
}

/// The way of a CPU's system call to user mode is no step of its own: there is nothing that could come before it
/// is over, and nobody for whom it matters when it is.
#[inline]
pub(crate) fn returns_at_once(
    st: &State,
    cpu: Cpu,
    runs: &CpuRuns,
    awaited: Option<usize>,
) -> bool {
    let Some(s) = &runs.thread.syscall else {
        return false;
    };
    let task = &st.tasks[s.task.at()];
    s.phase == Phase::Return
        && st.explores
        && !st.schedules_task_work
        && st.scx.is_none()
        && st.cpus[cpu.at()].is_free()
        && runs.stack.is_empty()
        && runs.parked.is_empty()
        && runs.interrupts.is_empty()
        && task.state == TaskState::Running
        && !task.user_code
        && !task.notify
        && awaited != Some(s.job)
}

/// What one CPU executes, apart from [`CpuState`](crate::state::CpuState).
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct CpuRuns {
    /// Indices of runs; the last one executes, the others are interrupted by it.
    pub stack: Few<SmallVec<[usize; 4]>>,
    /// The task that has the CPU.
    pub thread: Thread,
    /// Tasks that left the CPU inside of the kernel: asleep or preempted.
    pub parked: Few<Vec<Parked>>,
    /// System calls that tasks of this CPU will make.
    pub queue: Few<SmallVec<[Rc<Syscall>; 2]>>,
    /// Hooks that will happen in interrupts.
    pub interrupts: Shared<VecDeque<Interrupt>>,
}

impl CpuRuns {
    /// Nothing executes, and no task is in the kernel or makes a call.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.stack.is_empty()
            && self.thread.is_empty()
            && self.parked.is_empty()
            && self.queue.is_empty()
    }
}

/// A task inside of the kernel; empty for a kworker and for a CPU in user mode.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Thread {
    /// The system call that it is in.
    pub syscall: Option<Entered>,
    /// Task work taken off its task's list and not run yet, last to run first, and the task.
    pub sweep: Few<Vec<Handle>>,
    pub sweeping: Option<TaskId>,
}

impl Thread {
    pub fn is_empty(&self) -> bool {
        self.syscall.is_none() && self.sweeping.is_none()
    }
}

/// A task that left its CPU inside of the kernel.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Parked {
    /// What it executes, unless it was between two executions.
    pub run: Option<usize>,
    pub thread: Thread,
}

/// Where the result of a system call is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job(pub(crate) usize);

/// A pair of CPU and what begins there.
pub(crate) type At = (Cpu, What);

/// What a choice stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// The topmost run goes on.
    Continue,
    /// The topmost run goes on at this time, when it gives up waiting.
    GiveUp(u64),
    /// Timers expire, at this time.
    Timers(u64),
    /// The interrupt at this place of the queue comes, at this time.
    Interrupt(usize, u64),
    /// The system call goes on.
    Syscall,
    /// The system call at this place of the queue begins.
    Enter(usize),
    /// A kworker takes its next item.
    Work,
    /// A task is made to run its task work.
    Kick(TaskId),
    /// The parked task at this place has the CPU again, at this time.
    Resume(usize, u64),
}
