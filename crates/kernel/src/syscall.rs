//! System calls of tasks: what user space can do beside running programs, as executions that
//! others can come between and that block where Linux's do.

use crate::beginnings::Beginnings;
use crate::failure::Failure;
use crate::hook::{Fired, Hook, IterFd, LinkId};
use crate::ids::{Cpu, MapId, ProgId, TaskId};
use crate::kernel::Kernel;
use crate::map::update;
use crate::prefix::Begin;
use crate::prog::{ProgramInput, ProgramOutput};
use crate::refs::MapFd;
use crate::run::{Entered, Job, Phase, Run};
use crate::scx::ScxOp;
use crate::shared::Shared;
use crate::snapshot::KernelSnapshot;
use crate::state::State;
use crate::testrun::Refused;
use crate::trace::Level;
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use std::rc::Rc;

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SysOp {
    /// `BPF_PROG_TEST_RUN`
    TestRun {
        /// The program.
        prog: ProgId,
        /// What it is run with.
        input: ProgramInput,
    },
    /// Something that the task does comes to a hook.
    Fire {
        /// The hook.
        hook: Hook,
        /// What its programs are run with.
        input: ProgramInput,
    },
    /// `read(2)` of an iterator.
    IterRead {
        /// Which.
        file: IterFd,
        /// At most so many bytes.
        len: u64,
    },
    /// Something that tasks do while a scheduler (sched_ext) is there.
    Scx(ScxOp),
    /// `BPF_LINK_DETACH`
    LinkDetach(LinkId),
    /// `BPF_MAP_LOOKUP_ELEM`
    MapLookup {
        /// The map.
        map: MapId,
        /// The key.
        key: Vec<u8>,
    },
    /// `BPF_MAP_UPDATE_ELEM`
    MapUpdate {
        /// The map.
        map: MapId,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// `BPF_ANY` and so on.
        flags: u64,
    },
    /// `BPF_MAP_DELETE_ELEM`
    MapDelete {
        /// The map.
        map: MapId,
        /// The key.
        key: Vec<u8>,
    },
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    MapLookupDelete {
        /// The map.
        map: MapId,
        /// The key.
        key: Vec<u8>,
    },
    /// `BPF_MAP_GET_FD_BY_ID`
    MapOpen(MapId),
    /// `dup(2)` of a map's descriptor.
    MapDup(MapFd),
    /// `close(2)` of a map's descriptor.
    MapClose(MapFd),
    /// `BPF_OBJ_PIN` of a map.
    MapPin(MapId),
    /// `unlink(2)` of a map's pin.
    MapUnpin(MapId),
    /// `close(2)` of a program's descriptor.
    ProgClose(ProgId),
    /// `clock_nanosleep(2)`, in ns.
    Sleep(u64),
    /// `pause(2)`: sleeps until the task is killed.
    Pause,
}

impl SysOp {
    /// The map that it is about.
    pub(crate) fn map(&self) -> Option<MapId> {
        match self {
            SysOp::MapLookup { map, .. }
            | SysOp::MapUpdate { map, .. }
            | SysOp::MapDelete { map, .. }
            | SysOp::MapLookupDelete { map, .. }
            | SysOp::MapOpen(map)
            | SysOp::MapPin(map)
            | SysOp::MapUnpin(map) => Some(*map),
            _ => None,
        }
    }
}

/// What a system call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SysResult {
    /// A program ran.
    Output(ProgramOutput),
    /// A hook happened.
    Fired(Box<Fired>),
    /// A value was looked up.
    Value(Vec<u8>),
    /// A descriptor was made.
    Fd(MapFd),
    /// 0.
    Done,
    /// It failed.
    Failed(Errno),
    /// bpfsim cannot do this.
    Unsupported(&'static str),
}

impl From<Refused> for SysResult {
    fn from(refused: Refused) -> SysResult {
        match refused {
            Refused::Errno(errno) => SysResult::Failed(errno),
            Refused::Unsupported(what) => SysResult::Unsupported(what),
        }
    }
}

impl SysResult {
    fn of(result: Result<(), Errno>) -> SysResult {
        result.map_or_else(SysResult::Failed, |()| SysResult::Done)
    }

    /// The result of a call that returns nothing else.
    pub fn done(self) -> Result<(), Errno> {
        match self {
            SysResult::Failed(errno) => Err(errno),
            SysResult::Unsupported(_) => Err(Errno::EOPNOTSUPP),
            _ => Ok(()),
        }
    }
}

/// An operation's result, or `None` while it waits or has more to do: what for is in the
/// execution's `wait`, and the operation is to be called again.
pub(crate) type Step<T> = Option<T>;

impl State {
    /// Begins a system call, or goes on with it.
    pub(crate) fn sys_step(&mut self, mem: &mut GuestMem, op: &SysOp) -> Step<SysResult> {
        let result = self.sys_op(mem, op)?;
        self.free_gone_maps(mem);
        Some(result)
    }

    fn sys_op(&mut self, mem: &mut GuestMem, op: &SysOp) -> Step<SysResult> {
        Some(match op {
            SysOp::TestRun { .. } | SysOp::Fire { .. } | SysOp::IterRead { .. } | SysOp::Scx(_) => {
                SysResult::Failed(Errno::EINVAL)
            }
            SysOp::LinkDetach(link) => SysResult::of(self.detach(*link)),
            SysOp::MapLookup { map, key } => match self.sys_lookup(mem, *map, key, 0) {
                Ok(value) => SysResult::Value(value),
                Err(errno) => SysResult::Failed(errno),
            },
            SysOp::MapUpdate {
                map,
                key,
                value,
                flags,
            } => SysResult::of(self.map_update_step(mem, *map, key, value, *flags, true)?),
            SysOp::MapDelete { map, key } => {
                SysResult::of(self.map_delete_step(mem, *map, key, true)?)
            }
            SysOp::MapLookupDelete { map, key } => {
                match self.map_lookup_delete_step(mem, *map, key)? {
                    Ok(value) => SysResult::Value(value),
                    Err(errno) => SysResult::Failed(errno),
                }
            }
            SysOp::MapOpen(map) => self
                .map_open(*map)
                .map_or_else(SysResult::Failed, SysResult::Fd),
            SysOp::MapDup(fd) => self
                .map_dup(*fd)
                .map_or_else(SysResult::Failed, SysResult::Fd),
            SysOp::MapClose(fd) => {
                if self.cur.op.is_none() {
                    match self.map_fd_close(*fd) {
                        Ok(last) => self.free_all_begin(last),
                        Err(errno) => return Some(SysResult::Failed(errno)),
                    }
                }
                self.free_all_step(mem)?;
                SysResult::Done
            }
            SysOp::MapPin(map) => SysResult::of(self.map_pin(*map)),
            SysOp::MapUnpin(map) => {
                if self.cur.op.is_none() {
                    let last = self.map_unpin(*map);
                    self.free_all_begin(last);
                }
                self.free_all_step(mem)?;
                SysResult::Done
            }
            SysOp::ProgClose(prog) => SysResult::of(self.prog_close(*prog)),
            SysOp::Sleep(ns) => {
                self.sleep_step(*ns)?;
                SysResult::Done
            }
            SysOp::Pause => {
                self.sleep_step(u64::MAX)?;
                SysResult::Done
            }
        })
    }
}

/// Where a run of the simulation is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Nothing is due now.
    Idle,
    /// Nothing is due up to this virtual time, in ns, which the clocks have then come to.
    Until(u64),
    /// This system call has returned.
    Job(Job),
}

/// Why a run of the simulation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paused {
    /// The goal is reached.
    Reached,
    /// A task made by [`Kernel::spawn_user`] is in user mode and wants to go on: hand it what
    /// [`Kernel::take_result`] has for it, and its next system call to [`Kernel::user_syscall`],
    /// or let it exit.
    User(TaskId),
}

impl Kernel {
    /// Lets the simulation go on until the goal is reached or user space has its turn.
    pub fn run(&mut self, goal: Goal) -> Result<Paused, Failure> {
        let begin = self.begin_stretch(goal);
        self.run_stretch(goal, begin)
    }

    /// Goes back to a snapshot, with this seed, and lets the simulation go on from there until nothing
    /// is due. Where that is [remembered](Kernel::again), or its beginning is known of the snapshot, not
    /// even the snapshot is gone back to.
    pub fn run_from(
        &mut self,
        from: &KernelSnapshot,
        known: &mut Beginnings,
        seed: u64,
    ) -> Result<Paused, Failure> {
        let mut begin = self.begin_stretch_at(Goal::Idle, from.moment());
        if let Begin::Anew = begin {
            begin = self.begin_from(from, seed, known);
        }
        let result = self.run_stretch(Goal::Idle, begin);
        self.end_from(known, &result);
        result
    }

    fn run_stretch(&mut self, goal: Goal, begin: Begin) -> Result<Paused, Failure> {
        self.offer.again = false;
        let until = match begin {
            Begin::Over(result) => return result,
            Begin::Middle(until) => until,
            Begin::Anew => {
                if !std::mem::take(&mut self.window.open) {
                    self.begin_window();
                }
                match goal {
                    Goal::Until(t) => Some(t),
                    _ => None,
                }
            }
        };
        let result = self.go_on(goal, until);
        self.end_stretch(&result);
        result
    }

    fn go_on(&mut self, goal: Goal, mut until: Option<u64>) -> Result<Paused, Failure> {
        self.window.job = match goal {
            Goal::Job(job) => Some(job.0),
            Goal::Idle | Goal::Until(_) => None,
        };
        self.attend();
        if let Goal::Until(t) = goal {
            until = Some(t);
        }
        loop {
            if let Some(task) = self.user_turns.pop_front() {
                self.window.open = true;
                return Ok(Paused::User(task));
            }
            if let Goal::Job(job) = goal
                && self.results[job.0].is_some()
            {
                self.st.watch.findings.paused();
                return Ok(Paused::Reached);
            }
            let bound = match self.st.scx {
                Some(_) => until.map(|t| self.scx_bound(t)),
                None => until,
            };
            if self.step(bound)? {
                continue;
            }
            if let Goal::Job(job) = goal {
                // It may sleep: then time passes until it wakes up.
                until = self.next_wake().filter(|_| self.results[job.0].is_none());
                if until.is_none() {
                    return Err(self.deadlock());
                }
                continue;
            }
            self.check_stuck()?;
            if let Some(bound) = bound {
                self.advance_to(bound);
                if self.st.scx.is_some() && self.scx_time(bound) | (until != Some(bound)) {
                    continue;
                }
            }
            self.st.watch.findings.paused();
            return Ok(Paused::Reached);
        }
    }

    /// A task whose user mode the caller is: it has its first turn when the simulation goes on.
    pub fn spawn_user(&mut self, cpu: Cpu) -> Result<TaskId, bpfsim_vm::MemError> {
        let n = self.st.tasks.len() as u32;
        let task = self.add_task(1000 + n, &format!("user-{n}"), self.clamp(cpu), false)?;
        self.st.tasks[task.at()].user_code = true;
        self.user_turns.push_back(task);
        Ok(task)
    }

    /// Has a task make a system call. One that fires a hook that happens in interrupts raises that
    /// on the task's CPU and is over when it is.
    pub fn user_syscall(&mut self, task: TaskId, op: SysOp) -> Job {
        match op {
            SysOp::Fire { hook, input } if input.level.unwrap_or(hook.level()) > Level::Task => {
                self.fire_by(task, hook, input)
            }
            op => self.enqueue(task, op),
        }
    }

    /// What a system call returned, once it has; later calls find nothing.
    pub fn take_result(&mut self, job: Job) -> Option<SysResult> {
        let result = self.results.get_mut(job.0)?.take()?;
        Some((*result).clone())
    }

    /// Makes a system call of the main task at once, before anything else that is due. `Err` is
    /// a call that has begun and must wait: let the simulation go on until it has returned.
    pub fn begin_now(&mut self, op: &SysOp) -> Result<Result<SysResult, Job>, Failure> {
        if let Err(refused) = self.check_op(op) {
            return Ok(Ok(refused.into()));
        }
        self.note_call(op);
        self.begin_window();
        self.offer.again = false;
        self.attend();
        // The task's CPU must be its own.
        while !self.cpus[0].stack.is_empty() {
            if !self.step(None)? {
                return Err(self.deadlock());
            }
        }
        // Nobody can come between: it need not be done in pieces.
        self.st.explores = false;
        self.mem.set_site(crate::ids::CtxId::USER.0, 0);
        let done = self.st.sys_step(&mut self.mem, op);
        self.record_rest();
        if let Some(result) = done {
            return Ok(Ok(result));
        }
        self.enqueue_front(op.clone()).map(Err)
    }

    /// [`Kernel::begin_now`], and lets the simulation go on as long as the call must wait.
    pub fn syscall_now(&mut self, op: &SysOp) -> Result<SysResult, Failure> {
        let job = match self.begin_now(op)? {
            Ok(result) => return Ok(result),
            Err(job) => job,
        };
        while self.run(Goal::Job(job))? != Paused::Reached {}
        Ok(self.take_result(job).unwrap_or(SysResult::Done))
    }

    fn begin_window(&mut self) {
        self.window.nth += 1;
        self.window.began = self.st.now();
    }

    /// Puts a call of the main task that has begun already (its state is in `st.cur`) on top of
    /// CPU 0.
    fn enqueue_front(&mut self, op: SysOp) -> Result<Job, Failure> {
        let task = self.main_task();
        let job = self.enqueue(task, op);
        let queue = &mut self.cpus[0].queue;
        let call = queue.pop();
        self.vacate(Cpu(0));
        let mut cur = crate::state::Cur::user(task);
        std::mem::swap(&mut cur, &mut *self.st.cur);
        if let Some(call) = call {
            cur.id = call.id;
            cur.task = task;
            self.cpus[0].thread.syscall = Some(Entered {
                phase: Phase::Running,
                ..Entered::new(call)
            });
        }
        self.push_syscall(Cpu(0), cur)?;
        Ok(job)
    }

    /// The system call of a CPU has more to do, or is done.
    pub(crate) fn syscall_step(&mut self, cpu: Cpu, mut run: Shared<Run>) -> Option<Shared<Run>> {
        let thread = &mut self.cpus[cpu.at()].thread;
        let call = thread.syscall.as_ref().map(|s| Rc::clone(&s.call));
        let op = call.as_ref().map_or(&SysOp::Pause, |call| &call.op);
        if self.st.records {
            self.touch_syscall(op);
        }
        let result = self.st.sys_step(&mut self.mem, op);
        let Some(result) = result else {
            run.next = self.next_of_op(run.next);
            std::mem::swap(&mut self.st.cur, &mut run.cur);
            return Some(run);
        };
        if self.st.cur.lane != crate::race::NO_LANE {
            self.end_lane();
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        if let Some(s) = &mut self.cpus[cpu.at()].thread.syscall {
            s.out = Some(Shared::new(result));
            s.phase = Phase::Return;
        }
        self.cpus[cpu.at()].stack.pop();
        self.free_stacks.push(run.stack);
        self.spare(run);
        None
    }

    /// Checks what makes a call fail before it begins.
    pub(crate) fn check_op(&self, op: &SysOp) -> Result<(), Refused> {
        match op {
            SysOp::TestRun { prog, input } => self.check_test_run(*prog, input),
            SysOp::Fire { hook, input } => self.check_fire(hook, input),
            SysOp::IterRead { file, .. } => Ok(self.check_iter_read(*file)?),
            SysOp::Scx(op) => self.check_scx(op),
            _ => Ok(()),
        }
    }
}

/// `BPF_F_LOCK`
pub(crate) const F_LOCK: u64 = update::LOCK;
