//! Who steps next: the one place where an order is decided.

use crate::chance::Chance;
use crate::ids::{Cpu, CtxId, MapId, TaskId};
use crate::touch::Touch;
use bpfsim_vm::{Access, Call};
use std::fmt;

/// What an execution does next that others could notice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Next {
    /// It begins (or goes on) with nothing visible pending.
    Start(Starts),
    /// It accesses shared memory.
    Access(Access),
    /// It calls a helper or kfunc that touches a shared object: the object's guest address, or
    /// 0 where the call has none.
    Call {
        /// The helper or kfunc.
        call: Call,
        /// Its object.
        object: u64,
    },
    /// User space makes a system call about the map (or 0) at this guest address.
    Syscall {
        /// The map.
        object: u64,
    },
}

impl Next {
    /// What does it has no execution yet, or had none that could be told from others.
    #[inline]
    pub fn begins(&self) -> bool {
        matches!(self, Next::Start(_) | Next::Syscall { .. })
    }
}

/// What can begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Starts {
    /// A program, or what remains of one that was only stopped by its time slice.
    Program,
    /// The soft interrupt in which timers expire.
    Timers,
    /// An interrupt in which a hook happens.
    Interrupt,
    /// A kworker, with the first work item in its queue.
    Work,
    /// The task work of a task on its way to user mode.
    TaskWork,
    /// What slept or was preempted, and goes on.
    Resume,
}

/// One way in which a simulation can go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Which execution; stable over all orders.
    pub id: CtxId,
    /// Where.
    pub cpu: Cpu,
    /// What it does next.
    pub next: Next,
    /// Virtual time at which that would be, in ns.
    pub at: u64,
    /// How it comes out.
    pub chance: Chance,
}

/// Why an execution cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// The callback of a timer must end first, in this execution.
    TimerCallback(CtxId),
    /// A `bpf_spin_lock` at this address must be released.
    SpinLock(u64),
    /// The lock of a hash bucket must be released; with this time the wait is given up.
    BucketLock {
        /// The map.
        map: MapId,
        /// Number of the bucket.
        bucket: u32,
        /// Virtual time in ns at which the operation fails with `ETIMEDOUT`.
        until: u64,
    },
    /// The `bpf_res_spin_lock` at this address must be released; the wait is given up then.
    ResSpinLock {
        /// Its address.
        addr: u64,
        /// Virtual time in ns at which locking fails with `ETIMEDOUT`.
        until: u64,
    },
    /// The list lock of an LRU map must be released.
    LruLock(MapId),
    /// The run queue of a CPU must be unlocked, by an operation of the scheduler's core.
    RunQueue(Cpu),
    /// The scheduler's `enqueue` must be over, for this task.
    Enqueue(TaskId),
    /// It sleeps until this virtual time, in ns; others have the CPU meanwhile.
    Sleep(u64),
}

impl Wait {
    /// When the wait ends by itself.
    pub fn until(&self) -> Option<u64> {
        match *self {
            Wait::BucketLock { until, .. }
            | Wait::ResSpinLock { until, .. }
            | Wait::Sleep(until) => Some(until),
            Wait::TimerCallback(_)
            | Wait::SpinLock(_)
            | Wait::LruLock(_)
            | Wait::RunQueue(_)
            | Wait::Enqueue(_) => None,
        }
    }

    /// True when the CPU is left to others meanwhile.
    pub fn sleeps(&self) -> bool {
        matches!(self, Wait::Sleep(_))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::TimerCallback(ctx) => write!(f, "the timer callback {ctx}"),
            Wait::SpinLock(addr) => write!(f, "the bpf_spin_lock at {addr:#x}"),
            Wait::BucketLock { map, bucket, .. } => {
                write!(f, "the lock of bucket {bucket} of {map}")
            }
            Wait::ResSpinLock { addr, .. } => write!(f, "the bpf_res_spin_lock at {addr:#x}"),
            Wait::LruLock(map) => write!(f, "the LRU lock of {map}"),
            Wait::RunQueue(cpu) => write!(f, "the run queue of {cpu}"),
            Wait::Enqueue(task) => write!(f, "the enqueueing of {task}"),
            Wait::Sleep(until) => write!(f, "{until} ns to come"),
        }
    }
}

/// An execution that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Which execution.
    pub id: CtxId,
    /// Where.
    pub cpu: Cpu,
    /// For what.
    pub wait: Wait,
}

/// What a [`Chooser`] chooses from.
#[derive(Debug)]
pub struct Offer<'a> {
    /// At least two ways to go on.
    pub choices: &'a [Choice],
    /// Executions that cannot go on now.
    pub waiting: &'a [Waiting],
    /// As in [`Step::window`].
    pub window: u64,
    /// Some of the choices are not [`Chance::Usual`].
    pub chances: bool,
    /// Who took the last step.
    pub last: Option<Last>,
    /// The first of the choices with which that [goes on](Last::goes_on).
    pub goes_on: Option<usize>,
    /// As in [`Step::steps`]: steps so far.
    pub steps: usize,
}

impl Offer<'_> {
    /// What is chosen where nothing else is said: what executed last goes on if it can, otherwise
    /// what would usually come first.
    #[inline]
    pub fn default_pick(&self) -> usize {
        self.goes_on.unwrap_or_else(|| Usual::pick(self.choices))
    }

    /// True when this choice is another's, although what executed last could go on.
    #[inline]
    pub fn preempts(&self, pick: usize) -> bool {
        let goes_on = |last: Last| last.goes_on(&self.choices[pick]);
        self.goes_on.is_some_and(|i| i != pick) && !self.last.is_some_and(goes_on)
    }
}

/// Who took the last step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    cpu: Cpu,
    id: CtxId,
    /// The step began something, whose identity is its own.
    began: bool,
}

impl Last {
    /// Of this step.
    pub fn of(step: &Step<'_>) -> Last {
        Last::by(&step.choices[step.picked])
    }

    /// Of a step that began nothing.
    pub(crate) fn new(cpu: Cpu, id: CtxId) -> Last {
        let began = false;
        Last { cpu, id, began }
    }

    /// Of the step that this choice was.
    #[inline]
    pub(crate) fn by(choice: &Choice) -> Last {
        Last {
            cpu: choice.cpu,
            id: choice.id,
            began: choice.next.begins(),
        }
    }

    /// True when this choice is what took the last step, going on.
    #[inline]
    pub fn goes_on(&self, choice: &Choice) -> bool {
        let begins = matches!(
            choice.next,
            Next::Start(Starts::Timers | Starts::Interrupt | Starts::Work | Starts::TaskWork)
        );
        let began = self.began && choice.cpu == self.cpu;
        !begins && (began || choice.id == self.id)
    }

    /// True when this step is another's, although the last one could have gone on.
    pub fn is_preempted(&self, step: &Step<'_>) -> bool {
        let could = step.choices.iter().any(|c| self.goes_on(c));
        could && !self.goes_on(&step.choices[step.picked])
    }
}

/// A step that was taken.
#[derive(Debug)]
pub struct Step<'a> {
    /// What there was to choose from; where there was no choice, the only one.
    pub choices: &'a [Choice],
    /// Which of them it was.
    pub picked: usize,
    /// Counts the stretches for which user space of the test let the simulation go on: what one
    /// leaves undone may be done in the next.
    pub window: u64,
    /// What it touched, if the chooser [records](Chooser::records).
    pub touched: &'a [Touch],
    /// Steps so far, this one too.
    pub steps: usize,
}

/// Decides orders. Given the same answers, a simulation does the same.
pub trait Chooser {
    /// The index of one of `offer.choices`. A larger number is taken as the last.
    fn choose(&mut self, offer: &Offer<'_>) -> usize;

    /// As [`Chooser::choose`], where each of so many choices is an execution or a task that goes on or
    /// begins when it likes: none waits for its time, none is of chance. What took the last step is
    /// the `goes_on`th; `steps` as in [`Offer`]. `None` by whoever wants to know more, who is then
    /// asked in full.
    fn choose_among(&mut self, choices: usize, goes_on: usize, steps: usize) -> Option<usize> {
        let _ = (choices, goes_on, steps);
        None
    }

    /// True when executions shall stop before each visible operation. Otherwise they run as far
    /// as virtual time lets them, in the order that Linux would most likely take.
    fn explores(&self) -> bool;

    /// Told of each step once it is taken, of those too that were the only ones. Only when
    /// exploring; see [`Chooser::follows`].
    fn stepped(&mut self, step: &Step<'_>) {
        let _ = step;
    }

    /// True when [`Chooser::stepped`] wants to be told of every step. Otherwise it is told of those
    /// that begin something, maybe of others, and of the last before user space goes on if nobody was asked for
    /// that.
    fn follows(&self) -> bool {
        true
    }

    /// The first `choices` choices and `steps` steps of this execution are those of the execution
    /// before: they are neither asked for nor told; see [`Kernel::again`](crate::Kernel::again).
    fn passed(&mut self, choices: usize, steps: usize) {
        let _ = (choices, steps);
    }

    /// True when a later execution may differ in the choice that was just made: then it is worth
    /// the memory to remember what was before.
    fn comes_back(&self) -> bool {
        true
    }

    /// True when executions of other seeds are likely to make the same first choices: then those need not
    /// be run again. The chooser is asked and told all the same.
    fn begins_alike(&self) -> bool {
        false
    }

    /// True when [`Step::touched`] is wanted.
    fn records(&self) -> bool {
        false
    }
}

impl<C: Chooser + ?Sized> Chooser for Box<C> {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        (**self).choose(offer)
    }

    fn choose_among(&mut self, choices: usize, goes_on: usize, steps: usize) -> Option<usize> {
        (**self).choose_among(choices, goes_on, steps)
    }

    fn explores(&self) -> bool {
        (**self).explores()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        (**self).stepped(step);
    }

    fn follows(&self) -> bool {
        (**self).follows()
    }

    fn passed(&mut self, choices: usize, steps: usize) {
        (**self).passed(choices, steps);
    }

    fn comes_back(&self) -> bool {
        (**self).comes_back()
    }

    fn begins_alike(&self) -> bool {
        (**self).begins_alike()
    }

    fn records(&self) -> bool {
        (**self).records()
    }
}

/// The usual order: Linux's own, on CPUs that are equally fast and never delayed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usual;

impl Usual {
    /// The earliest choice; of equal ones an interrupt, then what executes, then a kworker (it
    /// preempts a task that returns to user mode), then task work; then the lower CPU.
    pub fn pick(choices: &[Choice]) -> usize {
        let rank = |next: Next| match next {
            Next::Start(Starts::Timers | Starts::Interrupt) => 0,
            Next::Start(Starts::Work | Starts::Resume) => 2,
            Next::Start(Starts::TaskWork) => 3,
            _ => 1,
        };
        let key = |c: &Choice| (c.at, rank(c.next), c.cpu);
        (0..choices.len())
            .min_by_key(|&i| key(&choices[i]))
            .unwrap_or(0)
    }
}

impl Chooser for Usual {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        Usual::pick(offer.choices)
    }

    fn explores(&self) -> bool {
        false
    }
}
