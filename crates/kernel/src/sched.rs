//! The scheduler: what can happen next.

use crate::beginnings::Growing;
use crate::chance::Chance;
use crate::choose::{Choice, Chooser, Last, Next, Offer, Starts, Step, Usual, Wait, Waiting};
use crate::failure::{Failure, Report};
use crate::ids::{Cpu, CtxId, TaskId};
use crate::kernel::{Kernel, LATEST, Preemption, Window};
use crate::lock::LockKind;
use crate::run::{At, Parked, Phase, Run, Running, What as Do};
use crate::shared::Shared;
use crate::syscall::SysOp;
use crate::task::TaskState;
use crate::touch::Touch;
use crate::trace::Level;
use crate::turn::{lock_of, set_access};

/// Virtual time that a CPU runs ahead of others before they get their turn, in ns.
const QUANTUM: u64 = 1_000;

/// The choices of the current step, kept to reuse their memory.
#[derive(Default)]
pub(crate) struct Offered {
    pub choices: Vec<Choice>,
    pub what: Vec<At>,
    pub waiting: Vec<Waiting>,
    /// The wait that would be given up first, where all else waits too: when, and by whom.
    give_up: Option<Box<(u64, Choice, At)>>,
    /// What was picked last.
    pub picked: usize,
    /// That took the last step too, and goes on.
    pub stays: bool,
    /// It is to come next: the step before it is over, and what there is to choose from known.
    pub chosen: bool,
    /// And it is to be gone back to.
    pub kept: bool,
    /// The step that was picked last is over, and the chooser was told of it.
    pub told: bool,
    /// Choices made without leaving the engine that [`Prefix`](crate::prefix::Prefix) has not counted.
    pub asked: usize,
    /// What was picked has done nothing that lets other CPUs do what they could not do before, but for taking
    /// and giving back `bpf_spin_lock`s: their choices are what they were, if they are `steady`.
    pub again: bool,
    /// No choice comes, goes or changes because time passes or memory is written.
    pub steady: bool,
    /// Some of the choices are of chance.
    pub chances: bool,
    /// The chooser follows each step.
    pub follows: bool,
    /// It is known already what is offered.
    pub known: bool,
    /// And what is to be picked of it.
    pub decided: Option<usize>,
    /// What this execution adds to [`Beginnings`](crate::beginnings::Beginnings).
    pub growing: Option<Box<Growing>>,
    /// What there was to choose from before.
    before: (Vec<Choice>, Vec<At>),
}

/// What there was to choose from at a moment that is come back to.
#[derive(Default)]
pub(crate) struct Given {
    pub choices: Vec<Choice>,
    pub what: Vec<At>,
    pub waiting: Vec<Waiting>,
    pub steady: bool,
    pub chances: bool,
}

impl Offered {
    /// What is offered, in the memory of what was before.
    pub fn keep_in(&self, old: &mut Given) {
        old.choices.clone_from(&self.choices);
        old.what.clone_from(&self.what);
        old.waiting.clone_from(&self.waiting);
        (old.steady, old.chances) = (self.steady, self.chances);
    }

    /// Offers what was offered then, for the step that comes next.
    pub fn offer_again(&mut self, given: &Given) {
        self.choices.clone_from(&given.choices);
        self.what.clone_from(&given.what);
        self.waiting.clone_from(&given.waiting);
        (self.steady, self.chances) = (given.steady, given.chances);
        self.known = true;
    }

    /// Offers what is usual.
    pub fn add(&mut self, id: CtxId, cpu: Cpu, next: Next, at: u64, what: Do) {
        let chance = Chance::Usual;
        self.choices.push(Choice {
            id,
            cpu,
            next,
            at,
            chance,
        });
        self.what.push((cpu, what));
    }

    /// Empties itself, for what there is to choose from now.
    pub fn begin_again(&mut self) {
        std::mem::swap(&mut self.choices, &mut self.before.0);
        std::mem::swap(&mut self.what, &mut self.before.1);
        self.choices.clear();
        self.what.clear();
        self.waiting.clear();
    }

    /// Offers what a CPU that executes nothing did before.
    pub fn add_idle(&mut self, cpu: Cpu) {
        let was = self.before.0.iter().zip(&self.before.1);
        for (choice, what) in was.filter(|(c, _)| c.cpu == cpu) {
            self.choices.push(*choice);
            self.what.push(*what);
        }
    }

    /// What was picked is all that its CPU could do.
    pub fn is_lone(&self) -> bool {
        let of = |i: usize| self.what.get(i).map(|what| what.0);
        let cpu = of(self.picked);
        cpu != of(self.picked + 1) && (self.picked == 0 || cpu != of(self.picked - 1))
    }

    /// The next choice is to be remembered.
    pub fn waits(&self) -> bool {
        self.growing.as_ref().is_some_and(|g| g.waits())
    }

    /// Offers an execution that goes on, among those of other CPUs. Says at which place.
    pub fn insert(&mut self, id: CtxId, cpu: Cpu, next: Next, at: u64) -> usize {
        let after = self.choices.iter().position(|c| c.cpu > cpu);
        let chance = Chance::Usual;
        let choice = Choice {
            id,
            cpu,
            next,
            at,
            chance,
        };
        let to = after.unwrap_or(self.choices.len());
        put_in(&mut self.choices, to, choice);
        put_in(&mut self.what, to, (cpu, Do::Continue));
        to
    }

    /// Offers that no more.
    pub fn remove(&mut self, at: usize) {
        take(&mut self.choices, at);
        take(&mut self.what, at);
    }

    /// Picks what comes next.
    #[inline(always)]
    pub fn pick(&mut self, chooser: &mut dyn Chooser, window: &Window) {
        let n = self.choices.len();
        if n == 1 {
            self.picked = 0;
            return;
        }
        let among = self.stays && self.steady;
        let waits = self.waits();
        if among
            && !waits
            && let Some(picked) = chooser.choose_among(n, self.picked, window.steps)
        {
            self.picked = picked.min(n - 1);
            return;
        }
        let last = window.taken;
        let goes_on = |last: Last| self.choices.iter().position(|c| last.goes_on(c));
        let offer = Offer {
            choices: &self.choices,
            waiting: &self.waiting,
            window: window.nth,
            chances: self.chances,
            last,
            goes_on: match self.stays {
                true => Some(self.picked),
                false => last.and_then(goes_on),
            },
            steps: window.steps,
        };
        self.picked = match &mut self.growing {
            Some(growing) if waits => {
                growing.ask(&offer, (&self.what, self.steady), among, chooser)
            }
            _ => chooser.choose(&offer).min(n - 1),
        };
    }

    /// The step that was picked is taken; `ends` where it may be the last.
    #[inline]
    pub fn tell(
        &mut self,
        chooser: &mut dyn Chooser,
        window: &mut Window,
        touched: &[Touch],
        ends: bool,
    ) {
        let choice = &self.choices[self.picked];
        (window.last, window.taken) = (choice.cpu, Some(Last::by(choice)));
        window.steps += 1;
        if let Some(growing) = self.growing.as_mut().filter(|g| g.waits())
            && !growing.note(&self.choices, self.picked, window)
        {
            self.growing = None;
        }
        if self.follows || choice.next.begins() || ends && self.choices.len() == 1 {
            chooser.stepped(&Step {
                choices: &self.choices,
                picked: self.picked,
                window: window.nth,
                touched,
                steps: window.steps,
            });
        }
    }
}

/// `Vec::insert`, mostly at the end: moving nothing costs a call.
#[inline]
pub(crate) fn put_in<T>(list: &mut Vec<T>, at: usize, item: T) {
    match at == list.len() {
        true => list.push(item),
        false => list.insert(at, item),
    }
}

/// `Vec::remove`, mostly at the end.
#[inline]
pub(crate) fn take<T>(list: &mut Vec<T>, at: usize) -> T {
    if at + 1 == list.len()
        && let Some(last) = list.pop()
    {
        return last;
    }
    list.remove(at)
}

/// Identity of what a CPU does of its own accord.
fn cpu_ctx(cpu: Cpu, nth: u32) -> CtxId {
    CtxId::USER.child(1 << 24 | cpu.0 << 4 | nth)
}

impl Kernel {
    /// Takes one step. With `until`, the clock may move as far as that. False when there is
    /// nothing to do.
    pub(crate) fn step(&mut self, until: Option<u64>) -> Result<bool, Failure> {
        let again = std::mem::take(&mut self.offer.again) && self.offer.steady;
        let known = std::mem::take(&mut self.offer.known) && self.st.scx.is_none();
        match again && !known {
            true => self.collect_again(),
            false if known => {}
            false => self.collect(until),
        }
        let known = again || known;
        debug_assert!(!known || self.is_collected(until), "as it would be now");
        let n = self.offer.choices.len();
        if n == 0 {
            return Ok(false);
        }
        if !self.st.explores {
            self.offer.picked = match n {
                1 => 0,
                _ => Usual::pick(&self.offer.choices),
            };
            let (cpu, what) = self.offer.what[self.offer.picked];
            let performed = self.perform(cpu, what, self.slice(self.offer.picked));
            self.window.last = cpu;
            self.record_rest();
            return performed.map(|()| true);
        }
        self.offer.stays = false;
        match self.offer.decided.take() {
            Some(picked) => self.offer.picked = picked.min(n - 1),
            None => self.offer.pick(&mut *self.chooser, &self.window),
        }
        self.offer.kept = n > 1;
        loop {
            if std::mem::take(&mut self.offer.kept) {
                if self.prefix.is_some() {
                    self.note_choice(until);
                }
                if self.offer.growing.is_some() {
                    self.grow(until);
                }
                self.st.trace.pick(self.offer.picked);
            }
            self.take_step()?;
            if !std::mem::take(&mut self.offer.chosen) {
                return Ok(true);
            }
        }
    }

    /// Takes the step that was picked, and others that are picked without leaving the engine.
    fn take_step(&mut self) -> Result<(), Failure> {
        let picked = self.offer.picked;
        let (cpu, what) = self.offer.what[picked];
        self.st.touched.clear();
        self.st.coming = self.offer.choices[picked].chance;
        let idle_at = self.st.records.then(|| self.idle_at(cpu));
        let performed = self.perform(cpu, what, self.config.fuel);
        if self.offer.chosen || std::mem::take(&mut self.offer.told) {
            return performed;
        }
        self.record_rest();
        // By now that may be another one.
        if let Some(idle_at) = idle_at {
            let (cpu, _) = self.offer.what[self.offer.picked];
            self.touch_idle(cpu, idle_at);
        }
        let (window, touched) = (&mut self.window, &self.st.touched);
        self.offer.tell(&mut *self.chooser, window, touched, true);
        performed
    }

    /// As [`Kernel::collect`], where executions alone have changed, and the CPU that took the last step.
    fn collect_again(&mut self) {
        if self.offer.waiting.is_empty() && self.goes_on_alone() {
            return;
        }
        let mut offer = self.offer.take();
        offer.begin_again();
        let last = self.window.last;
        let changed = self.st.cpus[last.at()].clock;
        for c in 0..self.cpus.len() {
            let cpu = Cpu(c as u32);
            match cpu == last || !self.cpus[c].stack.is_empty() {
                true => self.offer_cpu(&mut offer, cpu, u64::MAX, changed),
                false => offer.add_idle(cpu),
            }
        }
        self.offer.give_back(offer);
    }

    /// What is offered is what [`Kernel::collect`] finds.
    fn is_collected(&mut self, until: Option<u64>) -> bool {
        let now = |o: &Offered| {
            (
                o.choices.clone(),
                o.what.clone(),
                o.waiting.clone(),
                o.steady,
            )
        };
        let offered = now(&self.offer);
        self.collect(until);
        now(&self.offer) == offered
    }

    /// Offers what was offered before, but for what the CPU of what was picked does next, where that is
    /// one thing or none.
    fn goes_on_alone(&mut self) -> bool {
        let picked = self.offer.picked;
        let Some(choice) = self.offer.choices.get_mut(picked) else {
            return false;
        };
        let (runs, state) = (&self.cpus[choice.cpu.at()], &self.st.cpus[choice.cpu.at()]);
        let run = runs.stack.last().and_then(|&top| self.runs[top].as_ref());
        // After anything else a lock that it gave back may be another's.
        if !matches!(choice.next, Next::Access(_) | Next::Start(_)) {
            return false;
        }
        if let Some(run) = run
            && let (Next::Access(access), Next::Access(_)) = (&run.next, &choice.next)
        {
            set_access(&mut choice.next, access.addr, access.size, access.kind);
            choice.at = state.clock;
            return true;
        }
        if !self.offer.is_lone() {
            return false;
        }
        let others = !runs.parked.is_empty() || !state.work.is_empty();
        let (id, next, does) = match (run, &runs.thread.syscall) {
            (Some(run), _) if run.cur.wait.is_none() && lock_of(&run.next).is_none() => {
                (run.cur.id, run.next, Do::Continue)
            }
            (None, Some(s)) if s.phase == Phase::Return && !others => {
                (s.id, Next::Start(Starts::TaskWork), Do::Syscall)
            }
            (None, None) if runs.is_free() && !others && self.st.tasks_with_work == 0 => {
                self.offer.remove(picked);
                return true;
            }
            _ => return false,
        };
        let offer = &mut *self.offer;
        let choice = &mut offer.choices[picked];
        (choice.id, choice.next, choice.at) = (id, next, state.clock);
        offer.what[picked].1 = does;
        true
    }

    /// Nothing that could happen depends on time, where that is so of all CPUs. What waited for other than
    /// a `bpf_spin_lock` may wait for it again, although it need not now.
    fn is_steady(&self) -> bool {
        let locks = |run: &Shared<Run>| matches!(run.cur.wait, None | Some(Wait::SpinLock(_)));
        self.st.explores
            && !self.st.chances_on
            && !self.st.unverified
            && self.st.scx.is_none()
            && self.config.preemption == Preemption::None
            && self.runs.iter().flatten().all(locks)
    }

    /// Asks the chooser what it wants to know, before the simulation goes on.
    pub(crate) fn attend(&mut self) {
        self.st.explores = self.chooser.explores();
        self.st.records = self.st.explores && self.chooser.records();
        self.offer.follows = self.chooser.follows();
        self.st.chances_on = self.st.explores && !self.config.chances.is_none();
        let d = &self.config.detectors;
        let races = d.lost_update != Report::Off || d.data_race != Report::Off;
        self.st.watch.races_on = self.st.explores && races;
    }

    /// Fills `self.offer` with all that can happen next.
    fn collect(&mut self, until: Option<u64>) {
        if self.st.scx.is_some() {
            self.scx_attend();
        }
        let mut offer = self.offer.take();
        offer.choices.clear();
        offer.what.clear();
        offer.waiting.clear();
        offer.give_up = None;
        offer.chances = false;
        let (mut now, mut running, mut timeless) = (0, false, true);
        for (runs, state) in self.cpus.iter().zip(self.st.cpus.iter()) {
            now = state.clock.max(now);
            running |= !runs.stack.is_empty();
            let alone = runs.interrupts.is_empty() && state.timers.iter().all(|t| t.is_empty());
            timeless &= alone && runs.parked.is_empty() && state.irq_work.is_empty();
        }
        let ahead = match running && self.st.explores {
            true => self.window.began.saturating_add(self.config.horizon),
            false => now,
        };
        let limit = ahead.max(until.unwrap_or(0)).min(LATEST);
        let changed = self.st.cpus[self.window.last.at()].clock;
        for cpu in (0..self.cpus.len() as u32).map(Cpu) {
            if !timeless {
                self.offer_timed(&mut offer, cpu, limit);
            }
            self.offer_cpu(&mut offer, cpu, limit, changed);
        }
        // A spinning CPU lets time pass, whatever the limit.
        if offer.choices.is_empty()
            && let Some(give_up) = offer.give_up.take()
        {
            offer.choices.push(give_up.1);
            offer.what.push(give_up.2);
        }
        offer.steady = timeless && self.is_steady();
        self.offer.give_back(offer);
    }

    /// A `bpf_spin_lock` that is held and wanted next: when exploring, it is not even tried until
    /// it is free, which leads nowhere else than spinning for it.
    fn lock_awaited(&self, run: &Run) -> Option<Wait> {
        let wait = lock_of(&run.next).map(Wait::SpinLock)?;
        (self.st.explores && self.still_waits(&wait)).then_some(wait)
    }

    /// What an execution still waits for. Notes when the wait came to be over: it was the last step that
    /// did it, which was over then.
    #[inline(never)]
    fn note_wait(&mut self, top: usize, changed: u64) -> Option<Wait> {
        let run = self.runs[top].as_ref()?;
        let wait = run.cur.wait.or_else(|| self.lock_awaited(run))?;
        let waits = self.still_waits(&wait);
        if !wait.sleeps()
            && let Some(run) = &mut self.runs[top]
        {
            let over = match (waits, wait) {
                (true, _) => None,
                (false, Wait::SpinLock(_)) => run.cur.over.or(Some(self.st.freed_at)),
                (false, _) => run.cur.over.or(Some(changed)),
            };
            if (run.cur.wait, run.cur.over) != (Some(wait), over) {
                (run.cur.wait, run.cur.over) = (Some(wait), over);
            }
        }
        waits.then_some(wait)
    }

    /// Offers what comes over what a CPU executes. It may always come to what is due by its own clock.
    #[inline(never)]
    fn offer_timed(&self, offer: &mut Offered, cpu: Cpu, limit: u64) {
        let limit = limit.max(self.st.cpus[cpu.at()].clock);
        if let Some(at) = self.timers_at(cpu).filter(|&at| at <= limit) {
            let next = Next::Start(Starts::Timers);
            offer.add(cpu_ctx(cpu, 0), cpu, next, at, Do::Timers(at));
        }
        self.offer_interrupts(offer, cpu, limit);
    }

    /// Offers what a CPU executes, or can begin.
    #[inline]
    fn offer_cpu(&mut self, offer: &mut Offered, cpu: Cpu, limit: u64, changed: u64) {
        let (runs, state) = (&self.cpus[cpu.at()], &self.st.cpus[cpu.at()]);
        let clock = state.clock;
        let limit = limit.max(clock);
        let Some(&top) = runs.stack.last() else {
            if !(runs.is_free() && state.work.is_empty() && self.st.tasks_with_work == 0) {
                self.offer_tasks(offer, cpu, clock, limit);
            }
            return;
        };
        let Some(run) = &self.runs[top] else {
            return;
        };
        let wait = match run.cur.wait.is_none() && lock_of(&run.next).is_none() {
            true => None,
            false => self.note_wait(top, changed),
        };
        let Some(run) = &self.runs[top] else {
            return;
        };
        match wait {
            Some(wait) => Self::offer_waiting(offer, cpu, run, wait, (clock, limit)),
            None => {
                offer.add(run.cur.id, cpu, run.next, clock, Do::Continue);
                if self.st.chances_on {
                    Self::offer_chances(offer, self.st.chances(&self.config.chances, run));
                }
            }
        }
        if self.config.preemption == Preemption::Full && run.cur.is_preemptible() {
            self.offer_tasks(offer, cpu, clock, limit);
        }
    }

    /// An execution waits: offers that it gives up, if ever it does.
    #[inline(never)]
    fn offer_waiting(
        offer: &mut Offered,
        cpu: Cpu,
        run: &Run,
        wait: Wait,
        (clock, limit): (u64, u64),
    ) {
        let (id, next) = (run.cur.id, run.next);
        offer.waiting.push(Waiting { id, cpu, wait });
        let Some(until) = wait.until() else {
            return;
        };
        let at = until.max(clock);
        if at <= limit {
            offer.add(id, cpu, next, at, Do::GiveUp(at));
        } else if offer.give_up.as_ref().is_none_or(|g| at < g.0) {
            let chance = Chance::Usual;
            let choice = Choice {
                id,
                cpu,
                next,
                at,
                chance,
            };
            offer.give_up = Some(Box::new((at, choice, (cpu, Do::GiveUp(at)))));
        }
    }

    /// Offers the unusual ways in which what was offered last can come out, after the usual one.
    fn offer_chances(offer: &mut Offered, ways: impl IntoIterator<Item = Chance>) {
        let (Some(usual), Some(&what)) = (offer.choices.last().copied(), offer.what.last()) else {
            return;
        };
        for chance in ways {
            offer.chances = true;
            offer.choices.push(Choice { chance, ..usual });
            offer.what.push(what);
        }
    }

    /// Offers what tasks can do on a CPU that nothing executes on, or that can be preempted.
    fn offer_tasks(&self, offer: &mut Offered, cpu: Cpu, clock: u64, limit: u64) {
        let runs = &self.cpus[cpu.at()];
        let idle = runs.stack.is_empty();
        if idle {
            match (&runs.thread.syscall, runs.thread.sweeping) {
                (Some(s), _) => {
                    let starts = match s.phase {
                        Phase::Return => Starts::TaskWork,
                        _ => Starts::Program,
                    };
                    offer.add(s.id, cpu, Next::Start(starts), clock, Do::Syscall);
                }
                (None, Some(task)) => {
                    let (id, next) = (self.st.tasks[task.at()].id, Next::Start(Starts::TaskWork));
                    offer.add(id, cpu, next, clock, Do::Kick(task));
                }
                (None, None) => {}
            }
        }
        if !self.st.cpus[cpu.at()].work.is_empty() {
            let next = Next::Start(Starts::Work);
            offer.add(cpu_ctx(cpu, 1), cpu, next, clock, Do::Work);
        }
        for (i, parked) in runs.parked.iter().enumerate() {
            self.offer_parked(offer, cpu, i, parked, limit);
        }
        if idle && !runs.thread.is_empty() {
            return;
        }
        if runs.queue.is_empty() && self.st.tasks_with_work == 0 {
            return;
        }
        let first = if self.st.explores {
            runs.queue.len()
        } else {
            1
        };
        for (i, s) in runs.queue.iter().enumerate().take(first) {
            // A task makes one call after another.
            let busy = runs.queue.iter().take(i).any(|q| q.task == s.task);
            let inside = !idle || !runs.parked.is_empty();
            if busy || inside && self.in_kernel(cpu, s.task) {
                continue;
            }
            let next = match s.op.map() {
                Some(map) => Next::Syscall {
                    object: self.st.maps[map.at()].addr,
                },
                None => Next::Start(Starts::Program),
            };
            offer.add(s.id, cpu, next, clock, Do::Enter(i));
            // The test's own system calls do as it says.
            if self.st.chances_on && s.task != self.main_task() {
                let way = self.st.chance_of_syscall(&self.config.chances, &s.op);
                Self::offer_chances(offer, way);
            }
        }
        if self.st.tasks_with_work > 0 {
            for (i, t) in self.st.tasks.iter().enumerate() {
                let task = TaskId(i as u32);
                if t.cpu == cpu && !t.work.is_empty() && self.kicked(task) {
                    offer.add(
                        t.id,
                        cpu,
                        Next::Start(Starts::TaskWork),
                        clock,
                        Do::Kick(task),
                    );
                }
            }
        }
    }

    fn offer_parked(&self, offer: &mut Offered, cpu: Cpu, i: usize, parked: &Parked, limit: u64) {
        let clock = self.st.cpus[cpu.at()].clock;
        let run = parked.run.and_then(|r| self.runs[r].as_ref());
        let syscall = parked.thread.syscall.as_ref();
        let id = match (run, syscall, parked.thread.sweeping) {
            (Some(run), ..) => run.cur.id,
            (None, Some(s), _) => s.id,
            (None, None, Some(task)) => self.st.tasks[task.at()].id,
            (None, None, None) => return,
        };
        let mut at = clock;
        if let Some(wait) = run.and_then(|r| r.cur.wait) {
            let until = wait.until().unwrap_or(0);
            at = at.max(until);
            if at > limit {
                offer.waiting.push(Waiting { id, cpu, wait });
                return;
            }
        }
        let next = match (run, syscall) {
            (None, Some(s)) if s.phase == Phase::Return => Next::Start(Starts::TaskWork),
            (None, None) => Next::Start(Starts::TaskWork),
            _ => Next::Start(Starts::Resume),
        };
        offer.add(id, cpu, next, at, Do::Resume(i, at));
    }

    /// True when a task is inside of the kernel, executing or parked.
    fn in_kernel(&self, cpu: Cpu, task: TaskId) -> bool {
        let runs = &self.cpus[cpu.at()];
        let threads = std::iter::once(&runs.thread).chain(runs.parked.iter().map(|p| &p.thread));
        let mut of = threads.map(|t| t.syscall.as_ref().map(|s| s.task).or(t.sweeping));
        of.any(|t| t == Some(task))
    }

    /// True when a task's work makes it leave user mode, or its sleep.
    fn kicked(&self, task: TaskId) -> bool {
        let t = &self.st.tasks[task.at()];
        match t.state {
            TaskState::Exiting => !self.sweeps(t.cpu, task),
            TaskState::Sleeping => t.notify && !self.sweeps(t.cpu, task),
            TaskState::Stopped | TaskState::Dead | TaskState::Reaped => false,
            TaskState::Running if t.kthread => false,
            TaskState::Running if !self.in_kernel(t.cpu, task) => true,
            TaskState::Running => t.notify && self.asleep(t.cpu, task).is_some(),
        }
    }

    fn sweeps(&self, cpu: Cpu, task: TaskId) -> bool {
        let runs = &self.cpus[cpu.at()];
        let mut threads =
            std::iter::once(&runs.thread).chain(runs.parked.iter().map(|p| &p.thread));
        threads.any(|t| t.sweeping == Some(task))
    }

    /// The place among the parked of a task that sleeps in a system call.
    pub(crate) fn asleep(&self, cpu: Cpu, task: TaskId) -> Option<usize> {
        self.cpus[cpu.at()].parked.iter().position(|p| {
            let own =
                p.thread.syscall.as_ref().is_some_and(|s| {
                    s.task == task && matches!(s.op, SysOp::Sleep(_) | SysOp::Pause)
                });
            own && p.run.is_some()
        })
    }

    /// Interrupts that nothing on a CPU holds off: their places in the queue, and when they come.
    /// Those of one hook come in order.
    pub(crate) fn interrupts_at(&self, cpu: Cpu) -> impl Iterator<Item = (usize, u64)> {
        let runs = &self.cpus[cpu.at()];
        let clock = self.st.cpus[cpu.at()].clock;
        let top = runs.stack.last().and_then(|&i| self.runs[i].as_ref());
        let (level, irq_off, bh_off) = top.map_or((Level::Task, false, false), |r| {
            (r.cur.level, r.cur.irq_off > 0, r.cur.bh_off)
        });
        let comes = move |to: Level| match to {
            Level::Nmi => level < Level::Nmi,
            Level::Hardirq => level < Level::Hardirq && !irq_off,
            Level::Softirq => level == Level::Task && !irq_off && !bh_off,
            Level::Task => false,
        };
        let all = runs.interrupts.iter().enumerate();
        all.filter(move |(i, irq)| {
            let mut before = runs.interrupts.iter().take(*i);
            comes(irq.fire.level) && !before.any(|b| b.fire.hook == irq.fire.hook)
        })
        .map(move |(i, irq)| (i, irq.at.max(clock)))
    }

    fn offer_interrupts(&self, offer: &mut Offered, cpu: Cpu, limit: u64) {
        for (i, at) in self.interrupts_at(cpu).filter(|(_, at)| *at <= limit) {
            let (id, next) = (
                self.cpus[cpu.at()].interrupts[i].fire.id,
                Next::Start(Starts::Interrupt),
            );
            offer.add(id, cpu, next, at, Do::Interrupt(i, at));
        }
    }

    /// When timers would next expire on a CPU; `None` where nothing is armed or they are held off.
    pub(crate) fn timers_at(&self, cpu: Cpu) -> Option<u64> {
        let deadline = self.st.timer_next(cpu)?;
        let state = &self.st.cpus[cpu.at()];
        let mut at = deadline.max(state.clock);
        if let Some(top) = self.cpus[cpu.at()].stack.last() {
            let cur = &self.runs[*top].as_ref()?.cur;
            if cur.level > Level::Task || cur.bh_off || cur.irq_off > 0 {
                return None;
            }
            at = at.max(state.ksoftirqd_until);
        }
        Some(at)
    }

    #[inline]
    pub(crate) fn still_waits(&self, wait: &Wait) -> bool {
        match *wait {
            Wait::SpinLock(addr) => self.mem.read_u32(addr) != Some(0),
            _ => self.waits_for_more(wait),
        }
    }

    /// [`Kernel::still_waits`], but for the waits that there are most of.
    #[inline(never)]
    fn waits_for_more(&self, wait: &Wait) -> bool {
        match *wait {
            Wait::TimerCallback(ctx) => self
                .runs
                .iter()
                .flatten()
                .any(|r| r.cur.id == ctx && matches!(r.what, Running::Timer(..))),
            Wait::SpinLock(addr) | Wait::ResSpinLock { addr, .. } => {
                self.mem.read_u32(addr) != Some(0)
            }
            Wait::BucketLock { map, bucket, .. } => {
                let kind = LockKind::Bucket(bucket);
                self.st
                    .map_locks
                    .iter()
                    .any(|l| l.map == map && l.kind == kind)
            }
            Wait::LruLock(map) => {
                let of = |l: &crate::lock::MapLock| l.map == map && l.kind == LockKind::Lru;
                self.st.map_locks.iter().any(of)
            }
            Wait::RunQueue(cpu) => {
                let scx = self.st.scx.as_ref();
                scx.is_some_and(|s| s.rqs[cpu.at()].locked)
            }
            Wait::Enqueue(task) => {
                let scx = self.st.scx.as_ref();
                scx.is_some_and(|s| s.is_enqueueing(task))
            }
            Wait::Sleep(_) => true,
        }
    }

    /// Instructions until something else would come before the picked choice goes on.
    fn slice(&self, picked: usize) -> u64 {
        let cpu = self.offer.choices[picked].cpu;
        let start = self.offer.choices[picked].at;
        let others = self.offer.choices.iter().filter(|c| c.cpu != cpu);
        let mut bound = others
            .map(|c| c.at.saturating_add(QUANTUM))
            .min()
            .unwrap_or(u64::MAX);
        let interrupts = self.interrupts_at(cpu).map(|(_, at)| at).min();
        for at in self.timers_at(cpu).into_iter().chain(interrupts) {
            bound = bound.min(at);
        }
        let most = self.config.fuel.max(1);
        bound.saturating_sub(start).clamp(1, most)
    }

    /// The task that has a CPU leaves it where it is, inside of the kernel.
    pub(crate) fn vacate(&mut self, cpu: Cpu) {
        let runs = &mut self.cpus[cpu.at()];
        let thread = std::mem::take(&mut runs.thread);
        let run = runs.stack.pop();
        if run.is_some() || !thread.is_empty() {
            runs.parked.push(Parked { run, thread });
        }
    }

    /// When the next sleeper wakes up, if one ever does.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        let until = |run: &Run| run.cur.wait.filter(Wait::sleeps).and_then(|w| w.until());
        let parked = self.cpus.iter().flat_map(|c| c.parked.iter());
        let first = parked.filter_map(|p| until(self.runs[p.run?].as_ref()?));
        let interrupts = self.cpus.iter().flat_map(|c| c.interrupts.iter());
        first
            .chain(interrupts.map(|irq| irq.at))
            .min()
            .filter(|&at| at <= LATEST)
    }
}
