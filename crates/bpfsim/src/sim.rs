//! A simulation.

use crate::setup::{Setup, Spawn, Step, Syscall};
use crate::task::{Task, TaskBuilder};
use crate::user::{User, Users};
use crate::{Cache, Error, Map, Program, Result};
use bpfsim_explore::{Coverage, Seed, timeline::Timeline};
use bpfsim_kernel::{
    Chooser, Config, Cpu, Goal, Job, Kernel, KernelSnapshot, MapId, MapSpec, Paused, ProgId,
    ProgramInput, ProgramOutput, Record, SysOp, SysResult, Trace, Warning, What, mix,
};
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

/// One emulated machine: its CPUs, clock, tasks and all that was loaded into it. Clones are the
/// same machine.
///
/// The code of a test is the machine's user space: a task on CPU 0, as far as programs can tell.
#[derive(Clone)]
pub struct Sim(Rc<Parts>);

/// What a simulation consists of.
struct Parts {
    kernel: RefCell<Kernel>,
    users: RefCell<Users>,
    setup: RefCell<Setup>,
    cache: RefCell<Cache>,
    /// Hash of all objects loaded so far.
    objects: Cell<u64>,
}

impl Sim {
    /// A machine with two CPUs that takes the usual order.
    pub fn new() -> Result<Sim> {
        Sim::with(Config::default(), Seed::USUAL)
    }

    /// A machine of that configuration that takes the order that `seed` names.
    pub fn with(config: Config, seed: Seed) -> Result<Sim> {
        Sim::with_chooser(config, seed.chooser())
    }

    /// A machine of that configuration whose order `chooser` decides.
    pub fn with_chooser(config: Config, chooser: Box<dyn Chooser>) -> Result<Sim> {
        let mut kernel = Kernel::new(config)?;
        kernel.set_chooser(chooser);
        Ok(Sim(Rc::new(Parts {
            kernel: RefCell::new(kernel),
            users: RefCell::default(),
            setup: RefCell::default(),
            cache: RefCell::default(),
            objects: Cell::default(),
        })))
    }

    /// An object of this hash was loaded.
    pub(crate) fn note_object(&self, hash: u64) {
        self.0.objects.set(mix(self.0.objects.get(), hash));
    }

    /// Nothing was loaded.
    pub(crate) fn forget_objects(&self) {
        self.0.objects.set(0);
    }

    /// Hash of the objects that were loaded.
    pub fn objects(&self) -> u32 {
        (self.0.objects.get() >> 32) as u32
    }

    /// From here on objects are taken from this cache, and put there, where they are loaded.
    pub fn use_cache(&self, cache: &Cache) {
        self.0.cache.replace(cache.clone());
    }

    pub(crate) fn cache(&self) -> Cache {
        self.0.cache.borrow().clone()
    }

    pub(crate) fn kernel(&self) -> Ref<'_, Kernel> {
        if self.0.setup.borrow_mut().leave() {
            drop(self.kernel_mut());
        }
        self.0.kernel.borrow()
    }

    pub(crate) fn kernel_mut(&self) -> RefMut<'_, Kernel> {
        let mut kernel = self.0.kernel.borrow_mut();
        self.0.setup.borrow_mut().settle(&mut kernel);
        kernel
    }

    /// The kernel as it is, be it as the last execution left it.
    pub(crate) fn at_once(&self) -> RefMut<'_, Kernel> {
        self.0.kernel.borrow_mut()
    }

    pub(crate) fn setup(&self) -> &RefCell<Setup> {
        &self.0.setup
    }

    /// Looks at what no step of a test changes, without the machine having to be what it is taken for.
    fn look<R>(
        &self,
        then: impl FnOnce(&KernelSnapshot) -> R,
        now: impl FnOnce(&Kernel) -> R,
    ) -> R {
        match self.0.setup.borrow().pending() {
            Some(snapshot) => then(snapshot),
            None => now(&self.0.kernel.borrow()),
        }
    }

    pub(crate) fn map_spec(&self, map: MapId) -> MapSpec {
        self.look(
            |then| then.map_spec(map).clone(),
            |now| now.map_spec(map).clone(),
        )
    }

    pub(crate) fn takes_packet(&self, prog: ProgId) -> bool {
        self.look(|then| then.takes_packet(prog), |now| now.takes_packet(prog))
    }

    /// Makes a step that tests begin with, by `make` unless what comes of it is known already.
    #[inline]
    pub(crate) fn step<S: Step>(
        &self,
        step: &S,
        make: impl FnOnce(&mut Kernel) -> Result<S::Came>,
    ) -> Result<S::Came> {
        let known = self.0.setup.borrow_mut().known(step);
        match known {
            Some(came) => Ok(came),
            None => self.make_step(step, make),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_step<S: Step>(
        &self,
        step: &S,
        make: impl FnOnce(&mut Kernel) -> Result<S::Came>,
    ) -> Result<S::Came> {
        let kernel = &mut *self.0.kernel.borrow_mut();
        let mut setup = self.0.setup.borrow_mut();
        setup.make_ready(kernel);
        let came = make(kernel);
        match &came {
            Ok(came) => setup.note(kernel, step, came),
            Err(_) => setup.settle(kernel),
        }
        came
    }

    pub(crate) fn users(&self) -> RefMut<'_, Users> {
        self.0.users.borrow_mut()
    }

    /// Lets the simulation go on, user code having its turns, until the goal is reached.
    pub(crate) fn run(&self, goal: Goal) -> Result<()> {
        loop {
            let paused = self.kernel_mut().run(goal)?;
            match paused {
                Paused::Reached => return Ok(()),
                Paused::User(task) => Users::turn(self, task).unwrap_or(Ok(()))?,
            }
        }
    }

    /// A system call of the test's task, made at once; where it must wait, the simulation goes
    /// on meanwhile.
    pub(crate) fn syscall(&self, op: &SysOp) -> Result<SysResult> {
        match self.step(&Syscall(op), |kernel| Ok(kernel.begin_now(op)?))? {
            Ok(result) => Ok(result),
            Err(job) => self.finish_job(job),
        }
    }

    pub(crate) fn finish_job(&self, job: Job) -> Result<SysResult> {
        self.run(Goal::Job(job))?;
        let result = self.kernel_mut().take_result(job);
        Ok(result.unwrap_or(SysResult::Done))
    }

    /// Virtual time since boot, as `bpf_ktime_get_ns` gives it. A machine is made one second after.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.kernel().now())
    }

    /// Moves the clock without running anything: what has become due runs when the simulation
    /// next goes on, late.
    pub fn advance(&self, by: Duration) {
        self.kernel_mut().advance(nanos(by));
    }

    /// Runs what is due, and what that makes due, until nothing is. The clock does not move to
    /// later deadlines.
    pub fn run_until_idle(&self) -> Result<()> {
        // What is gone back to anyway need not be brought to its beginning first.
        let from = match self.0.setup.borrow_mut().take_pending() {
            Some((from, known, seed)) => {
                let kernel = &mut *self.0.kernel.borrow_mut();
                Some(kernel.run_from(from, known, seed)?)
            }
            None => None,
        };
        match from {
            Some(Paused::Reached) => return Ok(()),
            Some(Paused::User(task)) => Users::turn(self, task).unwrap_or(Ok(()))?,
            None => self.kernel_mut().count_callbacks_anew(),
        }
        self.run(Goal::Idle)
    }

    /// Lets virtual time pass, and everything run when it is due.
    pub fn run_for(&self, time: Duration) -> Result<()> {
        self.kernel_mut().count_callbacks_anew();
        let until = self.kernel().now().saturating_add(nanos(time));
        self.run(Goal::Until(until))
    }

    /// Has a new task on `cpu` run a program (`BPF_PROG_TEST_RUN`), side by side with whatever
    /// else the simulation runs. It begins when the simulation goes on.
    pub fn spawn_on(&self, cpu: Cpu, program: Program<'_>, input: ProgramInput) -> Result<Job> {
        let id = program.id;
        self.step(&Spawn(cpu, id, &input), |kernel| {
            Ok(kernel.spawn_on(cpu, id, input.clone())?)
        })
    }

    /// Adds a task on `cpu` whose user mode is this code: every awaited method of [`User`] is a
    /// system call. It begins when the simulation goes on, and an error that it returns ends the
    /// run of the simulation.
    pub fn spawn_user<F>(&self, cpu: Cpu, code: F) -> Result<Task>
    where
        F: AsyncFnOnce(User) -> Result<()> + 'static,
    {
        let task = self.kernel_mut().spawn_user(cpu)?;
        Users::spawn(self, task, code);
        Ok(Task(task))
    }

    /// A task to be made, of this name.
    pub fn task(&self, name: &str) -> TaskBuilder<'_> {
        TaskBuilder::new(self, name)
    }

    /// What a spawned run returned; `None` as long as it has not ended.
    pub fn result(&self, job: Job) -> Option<ProgramOutput> {
        self.kernel().result(job).cloned()
    }

    /// The task that the test is.
    pub fn main_task(&self) -> Task {
        Task(self.kernel().main_task())
    }

    /// The map that an object pinned by its name (`LIBBPF_PIN_BY_NAME`): objects that are loaded
    /// into one simulation share it.
    ///
    /// ```
    /// let sim = bpfsim::Sim::new()?;
    /// let object = include_bytes!("../../../fixtures/matrix/clang-22-v3/maps.bpf.o");
    /// let first = bpfsim::Ebpf::load(&sim, object)?;
    /// let second = bpfsim::Ebpf::load(&sim, object)?;
    /// assert_eq!(first.map("pinned")?.id(), second.map("pinned")?.id());
    /// sim.pinned("pinned")?.set(&[1u32, 2], &7u64)?;
    /// assert_eq!(second.map("pinned")?.get::<_, u64>(&[1u32, 2])?, Some(7));
    /// sim.unpin("pinned")?; // the next one that is loaded makes a map of its own
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn pinned(&self, name: &str) -> Result<Map> {
        let found = self.kernel().pinned(name);
        let id = found.ok_or_else(|| Error::not_found("pin", name, self.kernel().pins()))?;
        Ok(Map::new(self.clone(), id))
    }

    /// Removes the pin of a map.
    pub fn unpin(&self, name: &str) -> Result<()> {
        let taken = self.kernel_mut().take_pin(name);
        let id = taken.ok_or_else(|| Error::not_found("pin", name, self.kernel().pins()))?;
        Map::new(self.clone(), id).unpin()
    }

    /// Writes to a task's user memory, mapping what is not mapped yet.
    pub fn write_user(&self, task: Task, addr: u64, bytes: &[u8]) {
        self.kernel_mut().write_user(task.0, addr, bytes);
    }

    /// From here on the run is recorded, for [`Sim::timeline`] and [`Sim::coverage`]. It takes no
    /// other course, but more time.
    pub fn record(&self, record: Record) {
        self.kernel_mut().record(record);
    }

    /// From here on what runs is counted: of the object that is loaded next too, for which the
    /// machine need not be brought to its beginning first.
    pub(crate) fn count(&self) {
        self.0.kernel.borrow_mut().record(Record {
            counts: true,
            ..Record::default()
        });
    }

    /// What the machine was made with.
    pub fn config(&self) -> Config {
        self.kernel().config().clone()
    }

    /// What happened, for people; with all that [`Sim::record`] kept, where that was asked for.
    pub fn timeline(&self, title: &str, failure: Option<&str>) -> Timeline {
        Timeline::new(&self.kernel(), title, failure)
    }

    /// Adds which C lines and branches ran since [`Sim::record`] with `counts`: at the end of a
    /// test, to what a `Mutex` shares between executions, or to that of one run.
    ///
    /// ```no_run
    /// use bpfsim::{Coverage, Record, Runner};
    /// let all = std::sync::Mutex::new(Coverage::default());
    /// Runner::new().run(|sim| {
    ///     sim.record(Record { counts: true, ..Record::default() });
    ///     // ... load, run, expect ...
    ///     sim.finish()?;
    ///     sim.coverage(&mut all.lock().unwrap());
    ///     Ok(())
    /// });
    /// std::fs::write("target/bpf.info", all.into_inner().unwrap().lcov(str::to_string)).unwrap();
    /// ```
    pub fn coverage(&self, into: &mut Coverage) {
        into.add(&self.kernel());
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.kernel().trace().clone()
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.kernel().trace().hash()
    }

    /// Equal for runs of a test that did the same: as [`Sim::trace_hash`], of what the test did too, and where
    /// programs drew random values of the seed.
    pub fn run_hash(&self) -> u64 {
        self.kernel().run_hash()
    }

    /// The lines that programs printed with `bpf_printk`.
    pub fn printk(&self) -> Vec<String> {
        let kernel = self.kernel();
        let lines = kernel
            .trace()
            .events()
            .iter()
            .filter_map(|e| match &e.what {
                What::Printk { text } => Some(text.clone()),
                _ => None,
            });
        lines.collect()
    }

    /// What was found that Linux lets happen and that is likely a mistake: see [`Warning`].
    pub fn warnings(&self) -> Vec<Warning> {
        self.kernel().warnings()
    }

    /// Ends a test: runs what is due, and fails if anything is stuck, or a callback whose arming
    /// returned 0 has not run though its time has come.
    pub fn finish(&self) -> Result<()> {
        self.run_until_idle()?;
        Ok(self.kernel_mut().finish()?)
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
