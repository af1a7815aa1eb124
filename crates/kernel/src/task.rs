//! Tasks: who `current` is, what they do in user mode, and the memory that user pointers mean.

use crate::asynch::Handle;
use crate::ids::{CgroupId, Cpu, CtxId, FileId, NsId, TaskId};
use crate::kernel::Kernel;
use crate::run::Running;
use crate::state::State;
use crate::types::Shown;
use crate::user_mem::{Protection, UserMem};
use crate::world::{NsKind, NsSet};
use bpfsim_abi::Errno;
use bpfsim_abi::ctx::PT_REGS_NAMES;
use std::collections::BTreeMap;

/// A task as `bpf_get_current_task_btf` shows it.
#[derive(Clone)]
pub(crate) struct Task {
    pub pid: u32,
    pub tgid: u32,
    pub comm: String,
    pub uid: u32,
    pub gid: u32,
    /// Who made it; none for the first ones.
    pub parent: Option<TaskId>,
    pub cgroup: CgroupId,
    /// Its namespaces; of pids, that of its children.
    pub namespaces: NsSet,
    /// The namespace that gave it its last number, and its numbers below the initial one, from the
    /// outermost in.
    pub pid_ns: NsId,
    pub pids: Vec<u32>,
    pub cpu: Cpu,
    /// Guest address of its `struct task_struct`.
    pub addr: u64,
    /// It never returns to user mode.
    pub kthread: bool,
    pub state: TaskState,
    /// Its user mode is the caller's code, which has its turn after each system call.
    pub user_code: bool,
    /// In user mode it uses its CPU.
    pub burns: bool,
    /// Task work to run on the way to user mode, first scheduled first.
    pub work: Vec<Handle>,
    /// Some of that work is to interrupt its sleep (`TIF_NOTIFY_SIGNAL`).
    pub notify: bool,
    /// Signals that programs sent to it.
    pub signals: Vec<u32>,
    /// References that programs hold.
    pub refs: u32,
    pub user: UserMem,
    /// Its open files, by their descriptors; of a thread they are its leader's.
    pub fds: BTreeMap<u32, FileId>,
    /// What it executes.
    pub exe: Option<FileId>,
    /// Guest address of its `struct pt_regs`: the registers that it entered the kernel with.
    pub regs: u64,
    /// Identity for what it does outside of programs, and how much it has made.
    pub id: CtxId,
    pub made: u32,
}

/// What a task does when it makes no system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TaskState {
    /// It runs in user mode; a kernel thread, in the kernel.
    Running,
    /// It sleeps in a system call that a signal would interrupt and restart.
    Sleeping,
    /// `SIGSTOP`
    Stopped,
    /// On its way out (`exit_task_work`): its memory is gone, its work still runs.
    Exiting,
    /// A zombie: work is refused.
    Dead,
    /// Its last reference is gone.
    Reaped,
}

/// What kind of task to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskKind {
    /// It runs in user mode.
    User,
    /// It sleeps in a system call, such as `pause(2)` or `read(2)` of an empty pipe.
    Sleeping,
    /// It was sent `SIGSTOP`.
    Stopped,
    /// A kernel thread.
    Kthread,
}

/// What task to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskSpec {
    /// `comm`, cut to 15 bytes.
    pub name: String,
    /// Where it runs.
    pub cpu: Cpu,
    /// What it does.
    pub kind: TaskKind,
    /// `pid`; the next free one where there is none.
    pub pid: Option<u32>,
    /// `tgid`, for a thread of another task; its own pid where there is none.
    pub tgid: Option<u32>,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Who made it; the test's own task where there is none.
    pub parent: Option<TaskId>,
    /// Its cgroup; the parent's where there is none.
    pub cgroup: Option<CgroupId>,
    /// Its namespaces; of kinds that are not there the parent's.
    pub namespaces: Vec<NsId>,
}

impl TaskSpec {
    /// A task of root's in the test's cgroup.
    pub fn new(name: &str, cpu: Cpu, kind: TaskKind) -> TaskSpec {
        TaskSpec {
            name: name.to_string(),
            cpu,
            kind,
            pid: None,
            tgid: None,
            uid: 0,
            gid: 0,
            parent: None,
            cgroup: None,
            namespaces: Vec::new(),
        }
    }
}

impl Task {
    /// It has user memory (`task->mm`).
    pub fn has_mm(&self) -> bool {
        let gone = matches!(
            self.state,
            TaskState::Exiting | TaskState::Dead | TaskState::Reaped
        );
        !self.kthread && !gone
    }
}

impl State {
    /// `bpf_task_from_pid`: the address of a task with a reference, or 0.
    pub fn task_from_pid(&mut self, pid: u32) -> u64 {
        let dead = |t: &Task| matches!(t.state, TaskState::Reaped);
        let found = self.tasks.iter_mut().find(|t| t.pid == pid && !dead(t));
        found.map_or(0, |t| {
            t.refs += 1;
            t.addr
        })
    }

    /// The leader of a task's thread group.
    pub fn leader(&self, task: TaskId) -> TaskId {
        let tgid = self.tasks[task.at()].tgid;
        let at = self.tasks.iter().position(|l| l.pid == tgid);
        at.map_or(task, |at| TaskId(at as u32))
    }

    pub fn task_acquire(&mut self, task: TaskId) -> u64 {
        let t = &mut self.tasks[task.at()];
        t.refs += 1;
        t.addr
    }

    pub fn task_release(&mut self, task: TaskId) {
        let t = &mut self.tasks[task.at()];
        t.refs = t.refs.saturating_sub(1);
    }

    /// A helper is about to read a task's memory from a context that may sleep: when a page must
    /// be brought in first, the execution sleeps and the call is made again.
    pub fn user_fault(&mut self, task: TaskId, addr: u64, len: u64) -> bool {
        let Some(ns) = self.tasks[task.at()].user.fault(addr, len) else {
            return false;
        };
        let until = self.cpu().clock.saturating_add(ns);
        self.cur.wait = Some(crate::choose::Wait::Sleep(until));
        true
    }

    /// As [`State::user_fault`], of a string with its NUL.
    pub fn user_fault_str(&mut self, task: TaskId, addr: u64, most: u64) -> bool {
        let user = &self.tasks[task.at()].user;
        let byte = |i: &u64| matches!(user.byte(addr.wrapping_add(*i)), None | Some(0));
        let len = (0..most).find(byte).map_or(most, |i| i + 1);
        self.user_fault(task, addr, len)
    }

    /// A task has work to run.
    pub fn task_add_work(&mut self, task: TaskId, work: Handle) {
        let t = &mut self.tasks[task.at()];
        self.tasks_with_work += t.work.is_empty() as u32;
        t.work.push(work);
    }

    pub fn task_cancel_work(&mut self, task: TaskId, work: Handle) {
        let t = &mut self.tasks[task.at()];
        let had = !t.work.is_empty();
        t.work.retain(|&h| h != work);
        self.tasks_with_work -= (had && t.work.is_empty()) as u32;
    }

    pub fn task_take_work(&mut self, task: TaskId) -> Vec<Handle> {
        let t = &mut self.tasks[task.at()];
        self.tasks_with_work -= !t.work.is_empty() as u32;
        t.notify = false;
        std::mem::take(&mut t.work)
    }
}

impl Kernel {
    /// Makes a task. `EEXIST` for a pid that is taken, `ESRCH` for a `tgid` that no task has,
    /// `ENODEV` for a cgroup that was removed, `EINVAL` for two namespaces of a kind, or for a thread
    /// that is not in its group's namespace of pids.
    pub fn make_task(&mut self, spec: &TaskSpec) -> Result<TaskId, Errno> {
        let next = 1000 + self.st.tasks.len() as u32;
        let pid = spec.pid.unwrap_or(next);
        let taken = |pid: u32| {
            let mut tasks = self.st.tasks.iter();
            tasks.any(|t| t.pid == pid && t.state != TaskState::Reaped)
        };
        if pid == 0 || taken(pid) {
            return Err(Errno::EEXIST);
        }
        if spec.tgid.is_some_and(|tgid| tgid != pid && !taken(tgid)) {
            return Err(Errno::ESRCH);
        }
        let parent = spec.parent.unwrap_or(self.main_task());
        let above = self.st.tasks.get(parent.at()).ok_or(Errno::ESRCH)?;
        let cgroup = spec.cgroup.unwrap_or(above.cgroup);
        if !self
            .st
            .world
            .cgroups
            .get(cgroup.at())
            .is_some_and(|c| c.online)
        {
            return Err(Errno::ENODEV);
        }
        let namespaces = self.namespaces_of(spec, parent)?;
        let pid_ns = namespaces[NsKind::Pid as usize];
        let cpu = self.clamp(spec.cpu);
        let kthread = spec.kind == TaskKind::Kthread;
        // Until it executes another file, it executes what its parent does.
        let exe = if kthread { None } else { above.exe };
        let task = self.add_task(pid, &spec.name, cpu, kthread);
        let task = task.map_err(|_| Errno::ENOMEM)?;
        let pids = self.new_pids(pid_ns);
        let t = &mut *self.st.tasks[task.at()];
        (t.namespaces, t.pid_ns, t.pids) = (namespaces, pid_ns, pids);
        t.burns = spec.kind == TaskKind::User;
        t.state = match spec.kind {
            TaskKind::User | TaskKind::Kthread => TaskState::Running,
            TaskKind::Sleeping => TaskState::Sleeping,
            TaskKind::Stopped => TaskState::Stopped,
        };
        t.tgid = spec.tgid.unwrap_or(pid);
        (t.uid, t.gid) = (spec.uid, spec.gid);
        (t.parent, t.cgroup) = (Some(parent), cgroup);
        t.exe = exe;
        self.fill_task(task);
        Ok(task)
    }

    /// The namespaces of a task to be made.
    fn namespaces_of(&self, spec: &TaskSpec, parent: TaskId) -> Result<NsSet, Errno> {
        let mut set = self.st.tasks[parent.at()].namespaces;
        let mut given = Vec::new();
        for ns in &spec.namespaces {
            let known = self.st.world.namespaces.get(ns.at());
            let kind = known.ok_or(Errno::ENOENT)?.kind;
            if given.contains(&kind) {
                return Err(Errno::EINVAL);
            }
            given.push(kind);
            set[kind as usize] = *ns;
        }
        let leader = spec.tgid.filter(|&tgid| spec.pid != Some(tgid));
        let leader = leader.and_then(|tgid| self.st.tasks.iter().find(|t| t.pid == tgid));
        match leader {
            Some(leader) if leader.pid_ns != set[NsKind::Pid as usize] => Err(Errno::EINVAL),
            _ => Ok(set),
        }
    }

    /// Writes what programs read of a `struct task_struct` and of what it points to.
    pub(crate) fn fill_task(&mut self, task: TaskId) {
        let t = &self.st.tasks[task.at()];
        let address = |task: Option<TaskId>| {
            let t = task.and_then(|t| self.st.tasks.get(t.at()));
            t.map(|t| t.addr)
        };
        let mut tasks = self.st.tasks.iter();
        let leader = tasks.find(|l| l.pid == t.tgid).map_or(t.addr, |l| l.addr);
        let parent = address(t.parent).unwrap_or(t.addr);
        let cgroup = self.st.world.cgroups.get(t.cgroup.at());
        let shown = Shown {
            leader,
            parent,
            cgroup: cgroup.map_or(0, |c| c.addr),
        };
        self.layouts.fill_task(&mut self.mem, t, &shown);
        self.show_namespaces(task);
    }

    fn set_state(&mut self, task: TaskId, state: TaskState) -> Result<(), Errno> {
        let t = &mut self.st.tasks[task.at()];
        match t.state {
            TaskState::Exiting | TaskState::Dead | TaskState::Reaped => Err(Errno::ESRCH),
            _ => {
                t.state = state;
                Ok(())
            }
        }
    }

    /// A task opens a file, with the lowest free descriptor. Threads share them. `ESRCH` for a task
    /// that exits.
    pub fn task_open(&mut self, task: TaskId, file: FileId) -> Result<u32, Errno> {
        let leader = self.st.leader(task);
        let t = &mut self.st.tasks[leader.at()];
        if matches!(
            t.state,
            TaskState::Exiting | TaskState::Dead | TaskState::Reaped
        ) {
            return Err(Errno::ESRCH);
        }
        let free = (0..).find(|fd| !t.fds.contains_key(fd)).unwrap_or(0);
        t.fds.insert(free, file);
        Ok(free)
    }

    /// A task closes a descriptor. `EBADF` for one that is not open.
    pub fn task_close(&mut self, task: TaskId, fd: u32) -> Result<(), Errno> {
        let leader = self.st.leader(task);
        let closed = self.st.tasks[leader.at()].fds.remove(&fd);
        closed.map(|_| ()).ok_or(Errno::EBADF)
    }

    /// The task is stopped by `SIGSTOP`. `ESRCH` once it exits.
    pub fn task_stop(&mut self, task: TaskId) -> Result<(), Errno> {
        self.set_state(task, TaskState::Stopped)
    }

    /// The task goes on in user mode: after `SIGCONT`, or since its sleep is over.
    pub fn task_continue(&mut self, task: TaskId) -> Result<(), Errno> {
        self.set_state(task, TaskState::Running)
    }

    /// The task goes to sleep in a system call that signals interrupt and restart.
    pub fn task_sleep(&mut self, task: TaskId) -> Result<(), Errno> {
        self.set_state(task, TaskState::Sleeping)
    }

    /// The task exits, wherever it is: its memory is gone at once, the work that it has still
    /// runs when the simulation goes on, and then it is a zombie.
    pub fn task_exit(&mut self, task: TaskId) -> Result<(), Errno> {
        self.set_state(task, TaskState::Exiting)?;
        self.drop_sleeper(task);
        let t = &mut self.st.tasks[task.at()];
        t.user = UserMem::default();
        t.fds.clear();
        if t.work.is_empty() {
            t.state = TaskState::Dead;
        }
        self.show_namespaces(task);
        Ok(())
    }

    /// A task that sleeps in a system call does not return from it any more.
    fn drop_sleeper(&mut self, task: TaskId) {
        let cpu = self.st.tasks[task.at()].cpu;
        if let Some(i) = self.asleep(cpu, task) {
            let parked = self.cpus[cpu.at()].parked.remove(i);
            if let Some(run) = parked.run.and_then(|r| self.runs[r].take()) {
                self.free_stacks.push(run.stack);
                if let Running::Iter(reading) = &run.what {
                    self.iter_dropped(reading);
                }
            }
            self.free_runs.extend(parked.run);
        }
    }

    /// The last reference to a dead task but for those of programs is gone. `EBUSY` before it is
    /// dead.
    pub fn task_reap(&mut self, task: TaskId) -> Result<(), Errno> {
        let t = &mut self.st.tasks[task.at()];
        if t.state != TaskState::Dead {
            return Err(Errno::EBUSY);
        }
        t.state = TaskState::Reaped;
        self.show_namespaces(task);
        Ok(())
    }

    /// Takes a page of a task's memory out, so that who reads it where sleeping is allowed sleeps
    /// for so long, in ns.
    pub fn page_out(&mut self, task: TaskId, addr: u64, ns: u64) {
        self.note_call(&(task, addr, ns));
        self.st.tasks[task.at()].user.page_out(addr, ns);
    }

    /// Sets registers of a task's user mode, by their names in `struct pt_regs`. `EINVAL` for one
    /// that there is not.
    pub fn set_user_regs(&mut self, task: TaskId, regs: &[(&str, u64)]) -> Result<(), Errno> {
        self.note_call(&(task, regs));
        let at = self.st.tasks.get(task.at()).ok_or(Errno::ESRCH)?.regs;
        for (name, value) in regs {
            let reg = PT_REGS_NAMES.iter().position(|n| n == name);
            let reg = reg.ok_or(Errno::EINVAL)?;
            self.mem.write_u64(at + 8 * reg as u64, *value);
        }
        Ok(())
    }

    /// `munmap(2)` of the pages that a range touches: reading and writing there faults.
    pub fn unmap_user(&mut self, task: TaskId, addr: u64, len: u64) {
        self.note_call(&(task, addr, len, ()));
        self.st.tasks[task.at()].user.unmap(addr, len);
    }

    /// `mprotect(2)` of the pages that a range touches. `ENOMEM` where some are not mapped.
    pub fn protect_user(
        &mut self,
        task: TaskId,
        addr: u64,
        len: u64,
        to: Protection,
    ) -> Result<(), Errno> {
        self.note_call(&(task, addr, len, to as u8));
        self.st.tasks[task.at()].user.protect(addr, len, to)
    }

    /// What is at a place of a task's memory; none where it is not mapped.
    pub fn read_user(&self, task: TaskId, addr: u64, len: u64) -> Option<Vec<u8>> {
        let user = &self.st.tasks[task.at()].user;
        (0..len).map(|i| user.raw(addr.wrapping_add(i))).collect()
    }

    /// References that programs and kptrs hold of a task.
    pub fn task_refs(&self, task: TaskId) -> u32 {
        self.st.tasks[task.at()].refs
    }

    /// A task's pid.
    pub fn task_pid(&self, task: TaskId) -> u32 {
        self.st.tasks[task.at()].pid
    }

    pub(crate) fn clamp(&self, cpu: Cpu) -> Cpu {
        Cpu(cpu.0.min(self.cpus.len() as u32 - 1))
    }
}
