//! One simulation: its making and what user space does with it.

use crate::chance::Chances;
use crate::checked::Watch;
use crate::choose::{Chooser, Last, Usual};
use crate::failure::{Detectors, Failure, Place};
use crate::hook::Fired;
use crate::ids::{Cpu, CtxId, MapId, ProgId, TaskId, mix};
use crate::inject::Override;
use crate::map::{Map, MapSpec};
use crate::prog::{ProgCode, ProgramInput, ProgramOutput};
use crate::refs::MapFd;
use crate::run::{CpuRuns, Job, Run, Syscall};
use crate::shared::{Few, Lent, Shared};
use crate::state::{CpuState, Cur, State};
use crate::syscall::{Goal, Paused, SysOp, SysResult};
use crate::task::{Task, TaskState};
use crate::testrun::{Buffers, repeats, runs_bh_off};
use crate::trace::Trace;
use crate::types::{KernelBtf, Layouts};
use crate::user_mem::UserMem;
use crate::world::{NsKind, World, initial_set};
use bpfsim_abi::Errno;
use bpfsim_btf::Btf;
use bpfsim_vm::{Area, Call, GuestMem, MemError};
use std::rc::Rc;
use std::sync::Arc;

/// What a simulation is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Virtual CPUs, 1 to 64.
    pub cpus: u32,
    /// Seed of `bpf_get_prandom_u32`.
    pub seed: u64,
    /// How far ahead of now a deadline may be and still be offered as a choice while programs
    /// run, in ns: as if the CPU that runs them had been held up for so long.
    pub horizon: u64,
    /// Most instructions of one program or callback.
    pub fuel: u64,
    /// Most callbacks at one instant before it is a livelock.
    pub max_callbacks: u64,
    /// Who may have the CPU of a task that executes in the kernel.
    pub preemption: Preemption,
    /// Accesses of programs are held against the allocations that their pointers came from, so
    /// that what hardware would hide is a failure or a warning. Costs half as much time again.
    pub checked: bool,
    /// What else is looked for.
    pub detectors: Detectors,
    /// What joins the order as a choice when orders are explored.
    pub chances: Chances,
    /// The kernel's types, by which its objects are laid out and programs are resolved and verified;
    /// without any, those of a 6.18 that bpfsim has in it.
    pub btf: Option<KernelBtf>,
}

/// `CONFIG_PREEMPT_*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preemption {
    /// `PREEMPT_NONE`: other tasks come only when it sleeps or returns to user mode.
    #[default]
    None,
    /// `PREEMPT`: other tasks come whenever interrupts, soft interrupts and preemption are on.
    Full,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cpus: 2,
            seed: 0,
            horizon: 10_000_000,
            fuel: 100_000_000,
            max_callbacks: 100_000,
            preemption: Preemption::None,
            checked: true,
            detectors: Detectors::default(),
            chances: Chances::default(),
            btf: None,
        }
    }
}

/// Why a simulation could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewError {
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// The kernel's types cannot be read.
    #[error(transparent)]
    Btf(#[from] bpfsim_btf::BtfError),
}

/// An emulated kernel with its CPUs, maps, programs and tasks.
pub struct Kernel {
    pub(crate) config: Config,
    pub(crate) layouts: Layouts,
    pub(crate) mem: GuestMem,
    pub(crate) st: State,
    /// The maps at the last snapshot or restore, those that were not changed since.
    pub(crate) kept_maps: Shared<Vec<Shared<Map>>>,
    pub(crate) code: Shared<Vec<ProgCode>>,
    pub(crate) runs: Few<Vec<Option<Shared<Run>>>>,
    pub(crate) free_runs: Few<Vec<usize>>,
    /// Memory of executions that ended, for later ones.
    pub(crate) spare_runs: Vec<Shared<Run>>,
    pub(crate) cpus: Vec<Shared<CpuRuns>>,
    pub(crate) stacks: Shared<Vec<u64>>,
    pub(crate) free_stacks: Few<Vec<u32>>,
    pub(crate) results: Shared<Vec<Option<Shared<SysResult>>>>,
    /// Memory of results that nobody needs any more, for later ones.
    pub(crate) spare_results: Vec<Shared<SysResult>>,
    /// Tasks whose user mode is the caller's and that wait for their turn there.
    pub(crate) user_turns: Few<std::collections::VecDeque<TaskId>>,
    pub(crate) chooser: Box<dyn Chooser>,
    pub(crate) window: Window,
    pub(crate) callbacks: u64,
    pub(crate) offer: Lent<crate::sched::Offered>,
    /// What searches go back to.
    pub(crate) prefix: Option<Box<crate::prefix::Prefix>>,
    pub(crate) buffers: Buffers,
    /// Calls that the test does itself.
    pub(crate) overrides: Vec<(Call, Override)>,
    /// No part of snapshots.
    pub(crate) recorder: Option<Box<crate::record::Recorder>>,
    /// No part of snapshots.
    pub(crate) inside: Option<Box<crate::inside::Inside>>,
}

/// A stretch for which user space of the test lets the simulation go on.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Window {
    /// How many there have been.
    pub nth: u64,
    /// It is not over: a task's user code had its turn.
    pub open: bool,
    /// When it began: deadlines within the horizon of this are offered ahead of their time, which
    /// so does not depend on how far CPUs came meanwhile.
    pub began: u64,
    /// The CPU that took the last step.
    pub last: Cpu,
    /// Who took that, if orders are explored.
    pub taken: Option<Last>,
    /// Steps so far, of all windows, that choosers were told of.
    pub steps: usize,
    /// The system call that ends it.
    pub job: Option<usize>,
    /// Hash of the calls that user space has made, where somebody wants to know.
    pub calls: u64,
}

impl Window {
    /// An execution took the last step.
    pub fn took(&mut self, cpu: Cpu, id: CtxId) {
        (self.last, self.taken) = (cpu, Some(Last::new(cpu, id)));
    }
}

/// Virtual time at which a simulation begins, in ns since boot: never 0, which programs take for
/// "not set".
pub const BOOTED: u64 = 1_000_000_000;

/// Virtual time at which nothing happens any more (`KTIME_MAX`): what executes then has room to go on.
pub(crate) const LATEST: u64 = i64::MAX as u64;

impl Kernel {
    /// A kernel with nothing loaded, on the usual order.
    pub fn new(config: Config) -> Result<Kernel, NewError> {
        let cpus = config.cpus.clamp(1, 64);
        let mut mem = GuestMem::new()?;
        if config.checked {
            mem.check();
        }
        let st = State {
            maps: Default::default(),
            progs: Shared::default(),
            unverified: false,
            tasks: Shared::default(),
            cpus: (0..cpus)
                .map(|_| CpuState {
                    clock: BOOTED,
                    ..Default::default()
                })
                .collect::<Vec<_>>()
                .into(),
            timers: Default::default(),
            works: Default::default(),
            task_works: Default::default(),
            refs: Default::default(),
            pins: Default::default(),
            map_locks: Default::default(),
            tasks_with_work: 0,
            explores: false,
            schedules_task_work: false,
            interrupted: false,
            freed_at: 0,
            trace: Default::default(),
            ksyms: Default::default(),
            kernel_btf: Default::default(),
            streams: Default::default(),
            iters: Shared::default(),
            iter_sessions: 0,
            seq_out: Default::default(),
            objects: Default::default(),
            seq: 0,
            records: false,
            touched: Default::default(),
            seed: crate::state::Seed::new(config.seed),
            injected: Default::default(),
            chances_on: false,
            taken: Default::default(),
            coming: Default::default(),
            world: Shared::new(World::default()),
            links: Shared::default(),
            scx: None,
            cur: Shared::new(Cur::user(TaskId(0))),
            watch: Watch::new(config.detectors),
        };
        let btf = match &config.btf {
            Some(own) => Arc::clone(&own.btf),
            None => bpfsim_btf::vmlinux()?,
        };
        let layouts = Layouts::new(btf);
        let mut kernel = Kernel {
            config,
            layouts,
            mem,
            st,
            kept_maps: Default::default(),
            code: Shared::default(),
            runs: Default::default(),
            free_runs: Default::default(),
            spare_runs: Vec::new(),
            cpus: (0..cpus).map(|_| Shared::default()).collect(),
            stacks: Default::default(),
            free_stacks: Default::default(),
            results: Shared::default(),
            spare_results: Vec::new(),
            user_turns: Default::default(),
            chooser: Box::new(Usual),
            window: Window::default(),
            callbacks: 0,
            offer: Default::default(),
            prefix: None,
            buffers: Buffers::default(),
            overrides: Vec::new(),
            recorder: None,
            inside: None,
        };
        *kernel.st.kernel_btf = Some(std::sync::Arc::clone(&kernel.layouts.btf));
        kernel.lay_out_objects();
        kernel.make_world()?;
        for c in 0..cpus {
            kernel.add_task(10 + c, &format!("kworker/{c}:1"), Cpu(c), true)?;
        }
        kernel.add_task(1000, "test", Cpu(0), false)?;
        for c in 0..cpus {
            kernel.add_task(0, &format!("swapper/{c}"), Cpu(c), true)?;
        }
        kernel.st.cur.task = kernel.main_task();
        kernel.make_first_stacks()?;
        kernel.buffers = Buffers::first(&mut kernel.mem)?;
        Ok(kernel)
    }

    /// The types by which kernel objects are laid out in its memory.
    pub fn types(&self) -> &Arc<Btf> {
        &self.layouts.btf
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From here on `chooser` decides.
    pub fn set_chooser(&mut self, chooser: Box<dyn Chooser>) {
        self.chooser = chooser;
    }

    pub(crate) fn add_task(
        &mut self,
        pid: u32,
        comm: &str,
        cpu: Cpu,
        kthread: bool,
    ) -> Result<TaskId, MemError> {
        let addr = self.mem.alloc(Area::Object, self.layouts.task_room(), 64)?;
        let id = TaskId(self.st.tasks.len() as u32);
        self.st.tasks.push(Shared::new(Task {
            pid,
            tgid: pid,
            comm: comm.to_string(),
            uid: 0,
            gid: 0,
            parent: None,
            cgroup: World::ROOT,
            namespaces: initial_set(),
            pid_ns: NsKind::Pid.initial(),
            pids: Vec::new(),
            cpu,
            addr,
            kthread,
            state: TaskState::Running,
            user_code: false,
            burns: false,
            work: Vec::new(),
            notify: false,
            signals: Vec::new(),
            refs: 0,
            user: UserMem::default(),
            fds: Default::default(),
            exe: None,
            regs: addr + self.layouts.regs_at(),
            id: CtxId::USER.child(1 << 20 | id.0),
            made: 0,
        }));
        self.fill_task(id);
        Ok(id)
    }

    /// The task that the test itself is: on CPU 0.
    pub fn main_task(&self) -> TaskId {
        TaskId(self.cpus.len() as u32)
    }

    /// The kworker of a CPU.
    pub(crate) fn kworker(&self, cpu: Cpu) -> TaskId {
        TaskId(cpu.0)
    }

    /// The idle task of a CPU.
    pub(crate) fn swapper(&self, cpu: Cpu) -> TaskId {
        TaskId(self.cpus.len() as u32 + 1 + cpu.0)
    }

    /// Virtual time in ns since boot (`CLOCK_MONOTONIC`): the furthest that any CPU has come. A
    /// simulation begins at [`BOOTED`].
    pub fn now(&self) -> u64 {
        self.st.now()
    }

    /// Virtual time as the CPU of a task has it.
    pub fn now_of(&self, task: TaskId) -> u64 {
        self.st.cpus[self.st.tasks[task.at()].cpu.at()].clock
    }

    /// Everything that happened so far.
    pub fn trace(&self) -> &Trace {
        &self.st.trace
    }

    /// The maps, in order of creation.
    pub fn maps(&self) -> impl Iterator<Item = (MapId, &MapSpec)> {
        self.st
            .maps
            .iter()
            .enumerate()
            .map(|(i, m)| (MapId(i as u32), &*m.spec))
    }

    /// A map's shape.
    pub fn map_spec(&self, map: MapId) -> &MapSpec {
        &self.st.maps[map.at()].spec
    }

    /// Number of elements of a map; of an array all of them.
    pub fn map_len(&self, map: MapId) -> u32 {
        self.st.maps[map.at()].len()
    }

    /// Overwrites bytes of a global data map through its mapping (`mmap`). Frozen ones are what the
    /// verifier took them for: they are set before the load.
    pub fn write_data(&mut self, map: MapId, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        let m = &mut self.st.maps[map.at()];
        if m.frozen {
            return Err(Errno::EPERM);
        }
        m.write_mapped(&mut self.mem, at as u64, bytes)?;
        self.note_call(&(map, at as u64, bytes));
        Ok(())
    }

    /// Reads an arena through its mapping in user space, from an offset on; pages that nobody
    /// allocated are zero.
    ///
    /// # Errors
    /// `EFAULT` beyond its end, `EINVAL` for another kind of map.
    pub fn arena_read(&self, map: MapId, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let arena = self.st.maps[map.at()].arena().ok_or(Errno::EINVAL)?;
        arena.read(&self.mem, at, len)
    }

    /// Equal for runs that did the same: a hash of all that happened, of what user space did, and where random
    /// values were drawn, of the seed.
    pub fn run_hash(&self) -> u64 {
        let seed = match self.st.seed.is_drawn() {
            true => self.st.seed.value(),
            false => 0,
        };
        mix(mix(self.st.trace.hash(), self.window.calls), seed)
    }

    /// What iterators wrote to their sequence files since the last call: what `read(2)` of one gives.
    pub fn take_seq_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.st.seq_out)
    }

    /// What a program wrote to one of its streams since the last call (`BPF_PROG_STREAM_READ_BY_FD`):
    /// 1 is its standard output, 2 its standard error.
    pub fn take_stream(&mut self, prog: ProgId, stream: u32) -> Vec<u8> {
        self.st.streams.remove(&(prog, stream)).unwrap_or_default()
    }

    /// Signals that programs sent to a task, oldest first.
    pub fn task_signals(&self, task: TaskId) -> &[u32] {
        &self.st.tasks[task.at()].signals
    }

    /// The descriptor that loading a map's object left open.
    pub fn map_fd(&self, map: MapId) -> MapFd {
        self.st.refs.first_fd(map)
    }

    /// True until nothing refers to a map any more.
    pub fn map_exists(&self, map: MapId) -> bool {
        self.st.refs.map_exists(map)
    }

    /// A program's name.
    pub fn prog_name(&self, prog: ProgId) -> &str {
        &self.st.progs[prog.at()].name
    }

    /// True until nothing refers to a program any more.
    pub fn prog_exists(&self, prog: ProgId) -> bool {
        self.st.refs.prog_exists(prog)
    }

    /// Address of a task's `struct task_struct`, by which programs name it.
    pub fn task_address(&self, task: TaskId) -> u64 {
        self.st.tasks[task.at()].addr
    }

    /// Writes to a task's user memory, mapping pages that are not mapped yet.
    pub fn write_user(&mut self, task: TaskId, addr: u64, bytes: &[u8]) {
        self.note_call(&(task, addr, bytes));
        self.st.tasks[task.at()].user.write(addr, bytes);
    }

    /// Has the main task run a program by `BPF_PROG_TEST_RUN`. It begins when the simulation goes
    /// on, and returns when that system call would: after the soft interrupts that enabling
    /// bottom halves lets in, and after the task's own task work.
    pub fn start_test_run(&mut self, prog: ProgId, input: ProgramInput) -> Job {
        self.callbacks = 0;
        self.enqueue(self.main_task(), SysOp::TestRun { prog, input })
    }

    /// Has a new task on `cpu` run a program; it begins when the simulation goes on.
    pub fn spawn_on(
        &mut self,
        cpu: Cpu,
        prog: ProgId,
        input: ProgramInput,
    ) -> Result<Job, MemError> {
        let task = self.new_task(cpu)?;
        Ok(self.enqueue(task, SysOp::TestRun { prog, input }))
    }

    /// A task that makes one system call.
    pub(crate) fn new_task(&mut self, cpu: Cpu) -> Result<TaskId, MemError> {
        let n = self.st.tasks.len() as u32;
        self.add_task(1000 + n, &format!("task-{n}"), self.clamp(cpu), false)
    }

    /// Has the main task make a system call, when the simulation goes on.
    pub fn start_syscall(&mut self, op: SysOp) -> Job {
        self.callbacks = 0;
        self.enqueue(self.main_task(), op)
    }

    /// Has a task make a system call in its user mode. `ESRCH` for one that is not there: that
    /// sleeps, is stopped, exits, is a kernel thread, or executes code of the test.
    pub fn start_by(&mut self, task: TaskId, op: SysOp) -> Result<Job, Errno> {
        let t = self.st.tasks.get(task.at()).ok_or(Errno::ESRCH)?;
        if t.state != TaskState::Running || t.kthread || t.user_code {
            return Err(Errno::ESRCH);
        }
        Ok(self.enqueue(task, op))
    }

    /// What came of a hook that was made to happen, once it has.
    pub fn fired(&self, job: Job) -> Option<&Fired> {
        match self.results[job.0].as_deref() {
            Some(SysResult::Fired(fired)) => Some(fired),
            _ => None,
        }
    }

    /// The result of a spawned run, once it has ended.
    pub fn result(&self, job: Job) -> Option<&ProgramOutput> {
        match self.results[job.0].as_deref() {
            Some(SysResult::Output(out)) => Some(out),
            _ => None,
        }
    }

    pub(crate) fn enqueue(&mut self, task: TaskId, op: SysOp) -> Job {
        self.note_call(&op);
        self.enqueue_quietly(task, op)
    }

    /// [`Kernel::enqueue`], of what no user space asked for.
    pub(crate) fn enqueue_quietly(&mut self, task: TaskId, op: SysOp) -> Job {
        self.results.push(None);
        let job = self.results.len() - 1;
        let t = &mut self.st.tasks[task.at()];
        t.made += 1;
        let (bh_off, runs) = match &op {
            SysOp::TestRun { prog, input } => {
                let prog_type = self.st.progs[prog.at()].prog_type;
                let runs = if repeats(prog_type) {
                    input.repeat.max(1)
                } else {
                    1
                };
                (runs_bh_off(prog_type), runs)
            }
            _ => (false, 1),
        };
        let (id, cpu) = (t.id.child(t.made), t.cpu);
        // The code of a task that has its turn meanwhile knows the clock of its own CPU alone.
        if !self.window.open {
            let now = self.st.now();
            let clock = &mut self.st.cpus[cpu.at()].clock;
            *clock = (*clock).max(now);
        }
        let refused = self.check_op(&op).err();
        self.cpus[cpu.at()].queue.push(Rc::new(Syscall {
            id,
            task,
            op,
            job,
            runs,
            bh_off,
            refused: refused.map(|why| Shared::new(why.into())),
        }));
        Job(job)
    }

    /// Begins to count callbacks for [`Config::max_callbacks`] from 0.
    pub fn count_callbacks_anew(&mut self) {
        self.callbacks = 0;
    }

    /// Runs all that is due, in the chooser's order, until nothing is; does not move the clock to
    /// later deadlines.
    pub fn run_until_idle(&mut self) -> Result<(), Failure> {
        self.callbacks = 0;
        while self.run(Goal::Idle)? != Paused::Reached {}
        Ok(())
    }

    /// Runs all that is due within the next `ns` nanoseconds of virtual time, each when it is.
    pub fn run_for(&mut self, ns: u64) -> Result<(), Failure> {
        self.callbacks = 0;
        let until = self.now().saturating_add(ns);
        while self.run(Goal::Until(until))? != Paused::Reached {}
        Ok(())
    }

    /// Moves the clock of all CPUs `ns` nanoseconds beyond now without running anything; not beyond the 292
    /// years that Linux's clocks have.
    pub fn advance(&mut self, ns: u64) {
        self.advance_to(self.now().saturating_add(ns));
    }

    pub(crate) fn advance_to(&mut self, to: u64) {
        for cpu in self.st.cpus.iter_mut() {
            cpu.clock = cpu.clock.max(to.min(LATEST));
        }
    }

    /// An instruction of a program, for people.
    pub fn place(&self, prog: ProgId, insn: u32) -> Place {
        let meta = &self.st.progs[prog.at()];
        let line = self.code[prog.at()].lines.at(insn as usize);
        Place {
            program: meta.name.to_string(),
            function: meta.function(insn).to_string(),
            insn,
            line: line.map(|l| (l.file.to_string(), l.line, l.text.to_string())),
        }
    }
}
