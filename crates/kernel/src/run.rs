//! Executions in flight, and the system calls that some of them belong to.

use crate::asynch::Handle;
use crate::choose::Next;
use crate::ids::{Cpu, CtxId, ProgId, TaskId};
use crate::prog::{ProgramInput, ProgramOutput};
use crate::state::Cur;
use crate::trace::Element;
use bpfsim_vm::Activation;

/// A program or callback that has begun and not ended.
pub(crate) struct Run {
    pub act: Activation,
    /// What helpers see of it; in [`State::cur`](crate::state::State) while it executes.
    pub cur: Cur,
    pub what: Running,
    /// What it does when it goes on.
    pub next: Next,
    /// Stack slot, to be given back.
    pub stack: u32,
}

/// What a run is.
pub(crate) enum Running {
    /// The program of the CPU's system call.
    Program,
    /// A callback, of the object in the element.
    Timer(Handle, Element),
    Work(Handle, Element),
    TaskWork(Handle, Element),
}

/// `BPF_PROG_TEST_RUN`, from its first instruction in the kernel to its return to user mode.
pub(crate) struct Syscall {
    pub id: CtxId,
    pub task: TaskId,
    pub prog: ProgId,
    pub input: ProgramInput,
    pub phase: Phase,
    /// Where its result goes.
    pub job: usize,
    pub left: u32,
    /// The context that the program is given.
    pub r1: u64,
    /// The program runs with soft interrupts off.
    pub bh_off: bool,
    pub out: Option<ProgramOutput>,
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

/// What one CPU executes, apart from [`CpuState`](crate::state::CpuState).
#[derive(Default)]
pub(crate) struct CpuRuns {
    /// Indices of runs; the last one executes, the others are interrupted by it.
    pub stack: Vec<usize>,
    /// The system call that a task is in.
    pub syscall: Option<Syscall>,
    /// System calls that tasks of this CPU will make.
    pub queue: std::collections::VecDeque<Syscall>,
    /// Task work taken off its task's list and not run yet, last to run first, and the task.
    pub sweep: Vec<Handle>,
    pub sweeping: Option<TaskId>,
}

/// Where a finished test run's result is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job(pub(crate) usize);

/// A pair of CPU and what begins there.
pub(crate) type At = (Cpu, What);

/// What a choice stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// The topmost run goes on.
    Continue,
    /// Timers expire, at this time.
    Timers(u64),
    /// The system call goes on.
    Syscall,
    /// A kworker takes its next item.
    Work,
    /// A task in user mode is made to run its task work.
    Kick(TaskId),
}
