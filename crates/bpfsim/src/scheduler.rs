//! Schedulers (sched_ext): a struct_ops map of `sched_ext_ops` that takes over, and what tasks do
//! then. docs/sched_ext.md is the guide.

use crate::{Error, Map, Result, Sim, Task};
use bpfsim_abi::Errno;
use bpfsim_kernel::{Cpu, Job, ScxOp, SysResult};
pub use bpfsim_kernel::{ScxExit, ScxExitKind, ScxPlace};

/// A scheduler that was enabled.
///
/// Tasks execute nothing here: the test says what they do. What a method asks for is over when it
/// returns, but for CPUs that were told to schedule: these do when the simulation goes on
/// ([`Sim::run_until_idle`]), or next to what the test asks for then. Methods with `_on` in their
/// name have it done side by side with whatever else the simulation runs.
#[derive(Clone)]
pub struct Scheduler {
    sim: Sim,
    map: Map,
}

impl Map {
    /// Sets a member of an object's struct_ops struct that is a number, before it is attached, as user
    /// space does (`skel->struct_ops.my_ops->flags |= SCX_OPS_ENQ_LAST`).
    ///
    /// # Errors
    /// `ENOENT` for a member that there is not or that is no number, `EBUSY` once it is attached.
    pub fn set_struct_ops(&self, member: &str, value: u64) -> Result<()> {
        let done = self
            .sim()
            .kernel_mut()
            .struct_ops_set(self.id(), member, value);
        done.map_err(self.refused("bpf_map__initial_value"))
    }

    /// Attaches a struct_ops map of `sched_ext_ops`, and has it schedule all tasks that the test
    /// made and makes (`scx_enable`): `init`, then for each task `init_task`, then for each `enable`,
    /// `set_weight` and `set_cpumask`. All tasks sleep until they are [woken](Scheduler::wake).
    ///
    /// As in Linux, a scheduler that does not come up is no error: why is what
    /// [`Scheduler::exit`] says.
    ///
    /// # Errors
    /// `EBUSY` while another scheduler is there, `EINVAL` for another struct, for unknown flags or a
    /// name that is empty, `E2BIG` for a `timeout_ms` of more than 30 s; unsupported is a machine
    /// whose [kernel types](crate::Config::btf) have no sched_ext.
    pub fn enable_scheduler(&self) -> Result<Scheduler> {
        let sim = self.sim().clone();
        let attached = sim.kernel().struct_ops_attached(self.id());
        if !attached.map_err(self.refused("BPF_LINK_CREATE"))? {
            self.attach_struct_ops()?;
        }
        let scheduler = Scheduler {
            sim,
            map: self.clone(),
        };
        scheduler.do_now(Cpu(0), ScxOp::Enable(self.id()))?;
        Ok(scheduler)
    }
}

impl Scheduler {
    /// A task wakes up, by something on CPU 0: `select_cpu`, `runnable`, `enqueue`. The first time,
    /// one that was made since the scheduler came is new: `init_task` and `enable` come before.
    /// Nothing happens to one that is awake.
    pub fn wake(&self, task: Task) -> Result<()> {
        self.wake_with(task, 0)
    }

    /// [`Scheduler::wake`], with `SCX_WAKE_*` flags.
    pub fn wake_with(&self, task: Task, flags: u64) -> Result<()> {
        let task = task.0;
        self.do_now(Cpu(0), ScxOp::Wake { task, flags })
    }

    /// A task wakes up by something on this CPU, side by side with whatever else runs.
    pub fn wake_on(&self, cpu: Cpu, task: Task) -> Job {
        let task = task.0;
        self.do_on(cpu, ScxOp::Wake { task, flags: 0 })
    }

    /// The task that a CPU executes goes to sleep. `ESRCH` where it executes none.
    pub fn sleep(&self, cpu: Cpu) -> Result<()> {
        self.do_now(cpu, ScxOp::Sleep)
    }

    /// [`Scheduler::sleep`], side by side with whatever else runs.
    pub fn sleep_on(&self, cpu: Cpu) -> Job {
        self.do_on(cpu, ScxOp::Sleep)
    }

    /// The task that a CPU executes gives up its turn. `ESRCH` where it executes none.
    pub fn yield_now(&self, cpu: Cpu) -> Result<()> {
        self.do_now(cpu, ScxOp::Yield)
    }

    /// A tick comes over a CPU. [`Sim::run_for`] has them come by themselves.
    pub fn tick(&self, cpu: Cpu) -> Result<()> {
        self.do_now(cpu, ScxOp::Tick)
    }

    /// [`Scheduler::tick`], side by side with whatever else runs.
    pub fn tick_on(&self, cpu: Cpu) -> Job {
        self.do_on(cpu, ScxOp::Tick)
    }

    /// A task exits: one that a CPU executes, or one that sleeps. `EBUSY` for one that waits.
    pub fn exit_task(&self, task: Task) -> Result<()> {
        let cpu = match self.place(task) {
            ScxPlace::Running(cpu) => cpu,
            _ => Cpu(0),
        };
        self.do_now(cpu, ScxOp::Exit(task.0))
    }

    /// A task's weight changes, 1 to 10000.
    pub fn set_weight(&self, task: Task, weight: u32) -> Result<()> {
        self.do_now(Cpu(0), ScxOp::SetWeight(task.0, weight))
    }

    /// The CPUs change that a task may run on, as a mask.
    pub fn set_cpus(&self, task: Task, mask: u64) -> Result<()> {
        self.do_now(Cpu(0), ScxOp::SetCpus(task.0, mask))
    }

    /// A task of a higher class takes a CPU (`cpu_release`): `SCX_CPU_PREEMPT_RT` (0), `_DL` (1),
    /// `_STOP` (2).
    pub fn take_cpu(&self, cpu: Cpu, reason: u32) -> Result<()> {
        self.do_now(cpu, ScxOp::Take(reason))
    }

    /// It does not want it any more (`cpu_acquire`).
    pub fn give_cpu_back(&self, cpu: Cpu) -> Result<()> {
        self.do_now(cpu, ScxOp::GiveBack)
    }

    /// User space detaches the scheduler (`bpf_link__destroy`): all tasks leave it, then `exit`.
    pub fn disable(&self) -> Result<()> {
        self.do_now(Cpu(0), ScxOp::Disable)
    }

    /// Where a task is.
    pub fn place(&self, task: Task) -> ScxPlace {
        self.sim.kernel().scx_place(task.0)
    }

    /// The task that a CPU executes.
    pub fn running(&self, cpu: Cpu) -> Option<Task> {
        self.sim.kernel().scx_running(cpu).map(Task)
    }

    /// The tasks in a queue that the scheduler made, the next one first; `None` where there is no
    /// such queue.
    pub fn queued(&self, dsq: u64) -> Option<Vec<Task>> {
        let tasks = self.sim.kernel().scx_dsq(dsq)?;
        Some(tasks.into_iter().map(Task).collect())
    }

    /// What is left of a task's slice, in ns, as of when the kernel looked last.
    pub fn slice(&self, task: Task) -> Option<u64> {
        self.sim.kernel().scx_slice(task.0)
    }

    /// Why the scheduler goes, or has gone; `None` while it schedules.
    pub fn exit(&self) -> Option<ScxExit> {
        let kernel = self.sim.kernel();
        let own = kernel.scx_map() == Some(self.map.id());
        kernel.scx_exit().filter(|_| own).cloned()
    }

    /// An error if the kernel aborted the scheduler.
    ///
    /// # Errors
    /// [`Error::Scheduler`]
    pub fn check(&self) -> Result<()> {
        match self.exit().filter(|e| e.kind.is_error()) {
            Some(exit) => Err(Error::Scheduler {
                name: self.map.spec().name,
                exit: Box::new(exit),
            }),
            None => Ok(()),
        }
    }

    fn do_on(&self, cpu: Cpu, op: ScxOp) -> Job {
        self.sim.kernel_mut().scx_do(cpu, op)
    }

    fn do_now(&self, cpu: Cpu, op: ScxOp) -> Result<()> {
        self.sim.kernel_mut().count_callbacks_anew();
        let job = self.do_on(cpu, op);
        match self.sim.finish_job(job)? {
            SysResult::Unsupported(what) => Err(Error::Unsupported { what }),
            other => other.done().map_err(|errno: Errno| Error::World {
                what: "scheduler",
                name: self.map.spec().name,
                errno,
            }),
        }
    }
}
