//! Tasks of the emulated machine.

use crate::{Cgroup, Error, File, Fired, Hook, Namespace, ProgramInput, ProgramMut, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_kernel::{Arg, Cpu, Protection, SysOp, SysResult, TaskId, TaskKind, TaskSpec};
use std::time::Duration;

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task(pub(crate) TaskId);

/// A task to be made: [`Sim::task`].
pub struct TaskBuilder<'a> {
    sim: &'a Sim,
    spec: TaskSpec,
}

impl<'a> TaskBuilder<'a> {
    pub(crate) fn new(sim: &'a Sim, name: &str) -> TaskBuilder<'a> {
        let spec = TaskSpec::new(name, Cpu(0), TaskKind::User);
        TaskBuilder { sim, spec }
    }

    /// Where it runs; CPU 0 unless said.
    #[must_use]
    pub fn on(mut self, cpu: Cpu) -> Self {
        self.spec.cpu = cpu;
        self
    }

    /// Its `pid`; the next free one unless said.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.spec.pid = Some(pid);
        self
    }

    /// The thread group that it is a thread of; its own unless said.
    #[must_use]
    pub fn tgid(mut self, tgid: u32) -> Self {
        self.spec.tgid = Some(tgid);
        self
    }

    /// Its user; root unless said.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.spec.uid = uid;
        self
    }

    /// Its group; root's unless said.
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.spec.gid = gid;
        self
    }

    /// Who made it; the test's own task unless said.
    #[must_use]
    pub fn parent(mut self, parent: Task) -> Self {
        self.spec.parent = Some(parent.0);
        self
    }

    /// Its cgroup; its parent's unless said.
    #[must_use]
    pub fn cgroup(mut self, cgroup: Cgroup) -> Self {
        self.spec.cgroup = Some(cgroup.0);
        self
    }

    /// A namespace that it is in; of other kinds its parent's.
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.spec.namespaces.push(namespace.0);
        self
    }

    /// One that runs in user mode.
    pub fn user(self) -> Result<Task> {
        self.make(TaskKind::User)
    }

    /// One that sleeps in a system call that signals interrupt.
    pub fn sleeping(self) -> Result<Task> {
        self.make(TaskKind::Sleeping)
    }

    /// One that was sent `SIGSTOP`.
    pub fn stopped(self) -> Result<Task> {
        self.make(TaskKind::Stopped)
    }

    /// A kernel thread.
    pub fn kthread(self) -> Result<Task> {
        self.make(TaskKind::Kthread)
    }

    fn make(mut self, kind: TaskKind) -> Result<Task> {
        self.spec.kind = kind;
        let made = self.sim.kernel_mut().make_task(&self.spec);
        made.map(Task).map_err(|errno| Error::World {
            what: "task",
            name: self.spec.name,
            errno,
        })
    }
}

impl Task {
    /// Its `struct task_struct`, for a program's arguments.
    pub fn arg(self) -> Arg {
        Arg::Task(self.0)
    }

    /// It executes a file from now on (`/proc/PID/exe`). `EINVAL` for a kernel thread.
    pub fn execute(self, sim: &Sim, file: File) -> Result<(), Errno> {
        sim.kernel_mut().set_exe(self.0, file.0)
    }

    /// Sets registers of its user mode, by their names in `struct pt_regs`: what
    /// `bpf_task_pt_regs` shows. `EINVAL` for a name that there is not.
    pub fn set_registers(self, sim: &Sim, registers: &[(&str, u64)]) -> Result<(), Errno> {
        sim.kernel_mut().set_user_regs(self.0, registers)
    }

    /// References to it that programs and kptrs hold.
    pub fn references(self, sim: &Sim) -> u32 {
        sim.kernel().task_refs(self.0)
    }

    /// Its pid.
    pub fn pid(self, sim: &Sim) -> u32 {
        sim.kernel().task_pid(self.0)
    }

    /// Moves it to another cgroup. `ENODEV` for one that was removed.
    pub fn move_to(self, sim: &Sim, cgroup: Cgroup) -> Result<(), Errno> {
        sim.kernel_mut().move_task(self.0, cgroup.0)
    }

    /// Its number in a namespace of pids; 0 where it has none.
    pub fn pid_in(self, sim: &Sim, namespace: Namespace) -> u32 {
        sim.kernel().pid_in(self.0, namespace.0)
    }

    /// It opens a file, with the lowest free descriptor; threads share them. `ESRCH` for a task that
    /// exits.
    pub fn open(self, sim: &Sim, file: File) -> Result<u32, Errno> {
        sim.kernel_mut().task_open(self.0, file.0)
    }

    /// It closes a descriptor. `EBADF` for one that is not open.
    pub fn close(self, sim: &Sim, fd: u32) -> Result<(), Errno> {
        sim.kernel_mut().task_close(self.0, fd)
    }

    /// It goes into a namespace (`setns(2)`); into one of pids its children go. `ESRCH` for a task
    /// that exits.
    pub fn enter(self, sim: &Sim, namespace: Namespace) -> Result<(), Errno> {
        sim.kernel_mut().enter_ns(self.0, namespace.0)
    }

    /// [`Sim::fire`] of something that this task does, which is in user mode: in its namespaces and
    /// cgroups.
    pub fn fire(self, sim: &Sim, hook: &Hook, input: ProgramInput) -> Result<Fired> {
        let op = SysOp::Fire {
            hook: hook.clone(),
            input,
        };
        match self.call(sim, op)? {
            SysResult::Fired(fired) => Ok(*fired),
            other => Err(Error::Fire {
                hook: hook.to_string(),
                errno: other.done().err().unwrap_or(Errno::EINVAL),
            }),
        }
    }

    /// [`ProgramMut::test_run`] by this task, which is in user mode.
    pub fn test_run(
        self,
        sim: &Sim,
        program: &ProgramMut<'_>,
        input: ProgramInput,
    ) -> Result<crate::ProgramOutput> {
        let prog = program.prog_id();
        match self.call(sim, SysOp::TestRun { prog, input })? {
            SysResult::Output(out) => Ok(out),
            SysResult::Unsupported(what) => Err(Error::Unsupported { what }),
            other => Err(Error::TestRun {
                errno: other.done().err().unwrap_or(Errno::EINVAL),
            }),
        }
    }

    fn call(self, sim: &Sim, op: SysOp) -> Result<SysResult> {
        let job = sim.kernel_mut().start_by(self.0, op);
        let job = job.map_err(|errno| Error::World {
            what: "task",
            name: self.pid(sim).to_string(),
            errno,
        })?;
        sim.finish_job(job)
    }

    /// It exits, wherever it is: its memory is gone at once; work that it has runs when the
    /// simulation goes on, and then it is a zombie. `ESRCH` if it does so already.
    pub fn exit(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().task_exit(self.0)
    }

    /// Its parent has waited for the zombie: only programs refer to it any more. `EBUSY` before.
    pub fn reap(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().task_reap(self.0)
    }

    /// `SIGSTOP`
    pub fn stop(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().task_stop(self.0)
    }

    /// It goes on in user mode: by `SIGCONT`, or since what it slept for has come.
    pub fn resume(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().task_continue(self.0)
    }

    /// It goes to sleep in a system call that signals interrupt and restart.
    pub fn sleep(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().task_sleep(self.0)
    }

    /// `munmap(2)` of the pages that a range of its memory touches.
    ///
    /// ```
    /// use bpfsim::{Protection, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let task = sim.main_task();
    /// sim.write_user(task, 0x5000, b"secret");
    /// task.protect(&sim, 0x5000, 6, Protection::Read).unwrap(); // bpf_probe_write_user: -EFAULT
    /// assert_eq!(task.read_memory(&sim, 0x5000, 6), Some(b"secret".to_vec()));
    /// task.unmap(&sim, 0x5000, 6); // bpf_probe_read_user: -EFAULT
    /// assert_eq!(task.read_memory(&sim, 0x5000, 6), None);
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn unmap(self, sim: &Sim, addr: u64, len: u64) {
        sim.kernel_mut().unmap_user(self.0, addr, len);
    }

    /// `mprotect(2)` of the pages that a range of its memory touches. `ENOMEM` where some are not
    /// mapped; those before them are changed.
    pub fn protect(self, sim: &Sim, addr: u64, len: u64, to: Protection) -> Result<(), Errno> {
        sim.kernel_mut().protect_user(self.0, addr, len, to)
    }

    /// What is in its memory; none where some of it is not mapped.
    pub fn read_memory(self, sim: &Sim, addr: u64, len: u64) -> Option<Vec<u8>> {
        sim.kernel().read_user(self.0, addr, len)
    }

    /// Takes the page of an address out of memory: who touches it where sleeping is allowed
    /// sleeps for `time` until it is there.
    pub fn page_out(self, sim: &Sim, addr: u64, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        sim.kernel_mut().page_out(self.0, addr, ns);
    }
}
