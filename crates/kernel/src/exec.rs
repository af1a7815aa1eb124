//! Making things happen: executions begin and go on.

use crate::asynch::{Callback, Slot};
use crate::chance::Chance;
use crate::choose::{Next, Starts};
use crate::failure::{Failure, FailureKind};
use crate::ids::{Cpu, CtxId, ProgId, TaskId};
use crate::kernel::Kernel;
use crate::race::NO_LANE;
use crate::run::{Entered, Phase, Run, Running, What as Do};
use crate::shared::Shared;
use crate::state::{Cur, Softirq};
use crate::syscall::SysOp;
use crate::task::TaskState;
use crate::touch::Touch;
use crate::trace::{AsyncKind, Element, Level, What};
use crate::turn::ends::Ends;
use crate::turn::{
    Others, SEATS, Seat, Seats, Stopped, Turns, is_of_program, object_of, seat, set_access,
};
use crate::view::View;
use bpfsim_vm::{Activation, Area, Fault, FaultKind, MemError, Mode, STACK_SIZE, Stop};
use std::rc::Rc;

/// Passes of the timer soft interrupt before the rest is left to ksoftirqd
/// (`MAX_SOFTIRQ_RESTART`).
const MAX_PASSES: u32 = 10;
/// How long ksoftirqd leaves the CPU to the task that it competes with: a tick at `HZ=250`, in ns.
const TICK: u64 = 4_000_000;
/// Stacks that a simulation begins with.
const FIRST_STACKS: u32 = 4;
/// Bytes beside a stack: the key that callbacks of array elements are given.
const STACK_EXTRA: u64 = 64;

impl Kernel {
    pub(crate) fn perform(&mut self, cpu: Cpu, what: Do, budget: u64) -> Result<(), Failure> {
        match what {
            Do::Continue => {}
            Do::GiveUp(at) => self.st.reach(cpu, at),
            Do::Timers(at) => {
                let state = &mut self.st.cpus[cpu.at()];
                state.clock = state.clock.max(at);
                state.softirq = Some(Softirq {
                    now: state.clock,
                    passes: 1,
                });
                self.next_timer(cpu)?;
            }
            Do::Interrupt(i, at) => {
                self.st.reach(cpu, at);
                self.st.touch(Touch::Deadline);
                if let Some(irq) = self.cpus[cpu.at()].interrupts.remove(i) {
                    self.begin_fire(cpu, irq.fire)?;
                }
            }
            Do::Syscall => self.syscall(cpu)?,
            Do::Enter(i) => {
                let queue = &mut self.cpus[cpu.at()].queue;
                if i >= queue.len() {
                    return Ok(());
                }
                let call = queue.remove(i);
                self.vacate(cpu);
                self.cpus[cpu.at()].thread.syscall = Some(Entered::new(call));
                self.syscall(cpu)?;
            }
            Do::Work => {
                if let Some(b) = self.st.wq_begin(cpu) {
                    self.vacate(cpu);
                    let (task, level) = (self.idle_kworker(cpu)?, Level::Task);
                    self.callback(cpu, level, task, b.id, b.callback, b.slot, |e| {
                        Running::Work(b.work, e)
                    })?;
                }
            }
            Do::Kick(task) => {
                if self.cpus[cpu.at()].thread.sweeping != Some(task) {
                    self.vacate(cpu);
                    self.cpus[cpu.at()].thread.sweeping = Some(task);
                }
                self.next_task_work(cpu, task)?;
            }
            Do::Resume(i, at) => {
                self.st.reach(cpu, at);
                let parked = self.cpus[cpu.at()].parked.remove(i);
                self.vacate(cpu);
                let runs = &mut self.cpus[cpu.at()];
                runs.thread = parked.thread;
                match (parked.run, runs.thread.sweeping) {
                    (Some(run), _) => runs.stack.push(run),
                    (None, Some(task)) if runs.thread.syscall.is_none() => {
                        self.next_task_work(cpu, task)?;
                    }
                    (None, _) => self.syscall(cpu)?,
                }
            }
        }
        match self.cpus[cpu.at()].stack.last() {
            Some(&run) => self.go(cpu, run, budget, what),
            None => Ok(()),
        }
    }

    /// A kworker of a CPU that executes nothing; another one is made when all do.
    fn idle_kworker(&mut self, cpu: Cpu) -> Result<TaskId, Failure> {
        let busy = |k: &Kernel, task: TaskId| {
            let parked = k.cpus[cpu.at()].parked.iter().filter_map(|p| p.run);
            parked
                .into_iter()
                .any(|r| k.runs[r].as_ref().is_some_and(|r| r.cur.task == task))
        };
        let first = self.kworker(cpu);
        if !busy(self, first) {
            return Ok(first);
        }
        for nth in 2.. {
            let name = format!("kworker/{}:{nth}", cpu.0);
            let found = self
                .st
                .tasks
                .iter()
                .position(|t| t.comm == name && t.kthread);
            match found.map(|i| TaskId(i as u32)) {
                Some(task) if busy(self, task) => {}
                Some(task) => return Ok(task),
                None => {
                    // Whatever other CPUs have made meanwhile.
                    let pid = 100_000 + nth * 64 + cpu.0;
                    let made = self.add_task(pid, &name, cpu, true);
                    return made.map_err(|e| self.out_of_memory(e));
                }
            }
        }
        Ok(first)
    }

    /// Lets a run execute until it stops, and draws the consequences. `step` is what brought this about.
    fn go(&mut self, mut cpu: Cpu, first: usize, budget: u64, step: Do) -> Result<(), Failure> {
        let mut index = first;
        let Some(mut run) = self.runs[first].take() else {
            return Ok(());
        };
        run.take_memory(|| self.spare_runs.pop());
        let Run {
            act,
            cur,
            what,
            next: doing,
            stack,
        } = &mut *run;
        let next = *doing;
        let mode = if self.st.explores {
            Mode::Explore
        } else {
            Mode::Plain
        };
        self.st.goes_on(cpu, cur);
        act.grant = !matches!(next, Next::Start(_));
        let fuel = self.config.fuel.saturating_sub(act.insns);
        let base = self.st.cpus[cpu.at()].clock - act.insns;
        let coming = std::mem::take(&mut self.st.coming);
        if coming != Chance::Usual {
            self.st.take_chance(coming, next);
        }
        self.mem.set_site(self.st.cur.id.0, cpu.0);
        self.st.interrupted = !self.cpus[cpu.at()].interrupts.is_empty();
        if matches!(*what, Running::Syscall) {
            if self.st.records {
                self.st.touch_next(&self.mem, next, act.args());
            }
            if let Next::Access(access) = next {
                // A piece of a value on its way into an element.
                self.st.watch_access(&self.mem.site(), access, false);
            }
            let thread = &self.cpus[cpu.at()].thread;
            if thread
                .syscall
                .as_ref()
                .is_some_and(|s| matches!(s.op, SysOp::Scx(_)))
            {
                self.free_runs.push(index);
                self.scx_resume(cpu, run)?;
                return self.settle();
            }
            match self.syscall_step(cpu, run) {
                Some(run) => self.put_back(cpu, index, run)?,
                None => self.free_runs.push(index),
            }
            return self.settle();
        }
        let image = &*self.code[self.st.cur.prog.at()].image;
        let (at, args) = (Stopped::of(act), act.args());
        let clock = self.st.cpus[cpu.at()].clock;
        self.st.begins(&self.mem, &next, at, &args, image, clock);
        let here = self.inside.is_none() && self.recorder.is_none();
        let stops = self.prefix.as_ref().is_some_and(|p| !p.is_alone()) || self.offer.waits();
        let (mut seats, mut others) = (Seats::default(), Others::new());
        let mine = cpu.at();
        let calm = is_calm(step, what) && is_of_program(&next);
        let alone = step == Do::Continue || !self.st.records && self.offer.is_lone();
        let stays = calm && alone && here && self.offer.steady && mine < SEATS;
        let turns = stays.then(|| {
            let code = (&self.code[..], image);
            let (runs, cpus) = ((&mut self.runs[..], &mut self.spare_runs), &self.cpus);
            let all = seat(&mut seats, &mut others, runs, cpus, code, self.st.records);
            seats[mine] = Some(Seat {
                index,
                cur,
                what,
                stack: *stack,
                next: doing,
                place: usize::MAX,
                at,
                args,
            });
            Turns {
                quick: !(stops || self.offer.follows || self.st.records),
                stops,
                all,
                chooser: &mut *self.chooser,
                offer: &mut self.offer,
                window: &mut self.window,
                image,
                seats: &mut seats,
                mine,
                fuel: self.config.fuel,
                ends: Ends {
                    cpus: &mut self.cpus,
                    results: &mut self.results,
                    spare_results: &mut self.spare_results,
                    free_runs: &mut self.free_runs,
                    free_stacks: &mut self.free_stacks,
                    buffers: &mut self.buffers,
                    ended: Default::default(),
                },
            }
        });
        let mut view = View {
            st: &mut self.st,
            overrides: &self.overrides,
            base,
            loud: false,
            turns,
        };
        let budget = budget.min(fuel);
        let mem = &mut self.mem;
        let stop = match (&mut self.inside, &mut self.recorder) {
            (None, None) => {
                bpfsim_vm::run_among(image, act, &mut others, mem, &mut view, budget, mode)
            }
            (Some(i), _) => i.run(image, act, mem, &mut view, budget, mode),
            (None, Some(r)) => r.run(image, act, mem, &mut view, budget, mode, next),
        };
        let (loud, base) = (view.loud, view.base);
        let (mut ended, mut over) = (Default::default(), false);
        if let Some(turns) = &mut view.turns {
            // It may be another one by now.
            (index, cpu) = turns.end(index);
            over = turns.is_over();
            ended = std::mem::take(&mut turns.ends.ended);
        }
        drop(others);
        if let Some(last) = self.runs[index].take() {
            self.runs[first] = Some(std::mem::replace(&mut run, last));
        }
        if over {
            self.runs[first] = Some(run);
            self.spare_ended(ended);
            return Ok(());
        }
        self.spare_ended(ended);
        if self.offer.chosen {
            std::mem::swap(&mut self.st.cur, &mut run.cur);
            self.runs[index] = Some(run);
            return Ok(());
        }
        let calm = is_calm(step, &run.what) && is_of_program(&run.next);
        let quiet = calm && (!loud || self.offer.stays_offered(&self.st, &self.mem));
        self.st.cpus[cpu.at()].clock = base + run.act.insns;
        if mode == Mode::Explore {
            self.st.trace_done(&run.next, &self.mem);
        }
        if !matches!(stop, Stop::Fault(_)) {
            self.settle()?;
        }
        match stop {
            Stop::Exit(r0) => {
                self.offer.again = quiet && matches!(run.what, Running::Program(_));
                return self.ended(cpu, index, run, r0);
            }
            Stop::Fault(fault) => {
                return Err(self.failure(FailureKind::Fault(fault), Some(fault.pc)));
            }
            Stop::Budget if run.act.insns >= self.config.fuel => {
                let kind = FailureKind::Fuel {
                    insns: self.config.fuel,
                };
                return Err(self.failure(kind, Some(run.act.pc)));
            }
            Stop::Budget => run.next = Next::Start(Starts::Program),
            Stop::Yield => {
                self.offer.again = quiet;
                run.next = Next::Start(Starts::Program);
            }
            // A tail call, or the return from one.
            Stop::Switch => {
                self.st.cur.prog = ProgId(run.act.prog);
                run.next = Next::Start(Starts::Program);
            }
            Stop::Access(access) => {
                self.offer.again = quiet;
                set_access(&mut run.next, access.addr, access.size, access.kind);
            }
            Stop::Call(call) => {
                self.offer.again = quiet;
                run.next = Next::Call {
                    call,
                    object: object_of(call, run.act.args_ref()),
                }
            }
            // It makes the same call again.
            Stop::Suspend => {
                run.next = self.next_of_op(run.next);
            }
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        self.put_back(cpu, index, run)
    }

    /// What an operation that is not over does next.
    pub(crate) fn next_of_op(&mut self, next: Next) -> Next {
        match (self.st.cur.visible.take(), next) {
            (Some(access), _) => Next::Access(access),
            (None, next @ (Next::Call { .. } | Next::Syscall { .. })) => next,
            (None, _) => Next::Start(Starts::Program),
        }
    }

    /// A run stays where it is, or leaves the CPU to others if it sleeps.
    fn put_back(&mut self, cpu: Cpu, index: usize, run: Shared<Run>) -> Result<(), Failure> {
        let wait = run.cur.wait;
        if wait.is_some_and(|w| w.until().is_some()) {
            self.st.touch(Touch::Deadline);
        }
        let sleeps = wait.is_some_and(|w| w.sleeps());
        self.runs[index] = Some(run);
        if sleeps && self.cpus[cpu.at()].stack.len() == 1 {
            self.vacate(cpu);
        }
        match wait.is_some_and(|w| !w.sleeps()) {
            true => self.check_circle(index),
            false => Ok(()),
        }
    }

    /// Puts a system call that runs no program on top of a CPU's stack.
    pub(crate) fn push_syscall(&mut self, cpu: Cpu, mut cur: Cur) -> Result<(), Failure> {
        cur.lane = self.lane(cpu, Some(cur.task));
        let stack = self.take_stack()?;
        self.push(cpu, cur, 0, [0; 5], stack, Running::Syscall);
        Ok(())
    }

    /// A failure of what executes now.
    pub(crate) fn failure(&self, kind: FailureKind, insn: Option<u32>) -> Failure {
        let cur = &self.st.cur;
        let other = match &kind {
            FailureKind::Fault(fault) => match fault.kind {
                FaultKind::UseAfterFree { .. } | FaultKind::StaleWrite { .. } => self.mem.blamed(),
                _ => None,
            },
            FailureKind::LeftOver(_) if self.mem.is_checked() => cur.held.first().map(|h| h.site),
            _ => None,
        };
        Failure {
            other: other.map(|site| Box::new(self.party(site))),
            kind,
            at: self.st.cpus[cur.cpu.at()].clock,
            who: Some((cur.cpu, cur.id)),
            place: insn.map(|insn| Box::new(self.place(cur.prog, insn))),
            spot: None,
        }
    }

    /// Callbacks do not end: where this one begins, and who armed it.
    fn livelock(&self, callback: Callback, value: u64, what: &Running) -> Failure {
        let (kind, element) = async_kind(what);
        let armed = self.st.watch.armed(kind, value);
        let callbacks = self.callbacks - 1;
        Failure {
            place: Some(Box::new(self.place(callback.prog, callback.entry))),
            other: armed.map(|site| Box::new(self.party(site))),
            spot: Some(Box::new(self.spot_in(element))),
            ..self.failure(FailureKind::Livelock { callbacks }, None)
        }
    }

    pub(crate) fn out_of_memory(&self, _: MemError) -> Failure {
        let fault = Fault {
            pc: 0,
            kind: FaultKind::MemoryLimit,
        };
        self.failure(FailureKind::Fault(fault), None)
    }

    /// Puts a new run on top of a CPU's stack.
    pub(crate) fn push(
        &mut self,
        cpu: Cpu,
        cur: Cur,
        entry: u32,
        args: [u64; 5],
        stack: u32,
        what: Running,
    ) {
        let at = self.stacks[stack as usize];
        let next = Next::Start(Starts::Program);
        let mut spare = self.spare_runs.pop();
        let run = match spare.as_mut().and_then(Shared::own) {
            Some(own) => {
                own.act.begin(entry, args, at);
                own.act.prog = cur.prog.0;
                own.cur.set(cur);
                (own.what, own.next, own.stack) = (what, next, stack);
                spare
            }
            None => {
                let mut act = Activation::new(entry, args, at);
                act.prog = cur.prog.0;
                Some(Shared::new(Run {
                    act,
                    cur: Shared::new(cur),
                    what,
                    next,
                    stack,
                }))
            }
        };
        let index = match self.free_runs.pop() {
            Some(index) => {
                self.runs[index] = run;
                index
            }
            None => {
                self.runs.push(run);
                self.runs.len() - 1
            }
        };
        self.cpus[cpu.at()].stack.push(index);
    }

    pub(crate) fn take_stack(&mut self) -> Result<u32, Failure> {
        if let Some(stack) = self.free_stacks.pop() {
            return Ok(stack);
        }
        let at = self.make_stack().map_err(|e| self.out_of_memory(e))?;
        self.stacks.push(at);
        Ok(self.stacks.len() as u32 - 1)
    }

    fn make_stack(&mut self) -> Result<u64, MemError> {
        let at = self.mem.alloc(Area::Stack, STACK_SIZE + STACK_EXTRA, 64)?;
        self.mem.hold_stack(at);
        Ok(at)
    }

    /// The stacks that almost every execution of a test needs, for it to find them made.
    pub(crate) fn make_first_stacks(&mut self) -> Result<(), MemError> {
        for _ in 0..FIRST_STACKS {
            let at = self.make_stack()?;
            self.stacks.push(at);
        }
        self.free_stacks.extend((0..FIRST_STACKS).rev());
        Ok(())
    }

    /// Begins a callback on a CPU.
    #[allow(
        clippy::too_many_arguments,
        reason = "one place begins callbacks of all kinds"
    )]
    fn callback(
        &mut self,
        cpu: Cpu,
        level: Level,
        task: TaskId,
        id: CtxId,
        callback: Callback,
        slot: Slot,
        what: impl FnOnce(Element) -> Running,
    ) -> Result<(), Failure> {
        self.callbacks += 1;
        if self.callbacks > self.config.max_callbacks {
            let what = what(self.st.element(&self.mem, slot.map, slot.value));
            return Err(self.livelock(callback, slot.value, &what));
        }
        let stack = self.take_stack()?;
        let map = &self.st.maps[slot.map.at()];
        let element = self.st.element(&self.mem, slot.map, slot.value);
        let key = match map.key_addr(slot.value) {
            Some(addr) => addr,
            None => {
                let at = self.stacks[stack as usize] + STACK_SIZE;
                if let Some(to) = self.mem.slice_mut(at, element.key.len() as u64) {
                    to.copy_from_slice(&element.key);
                }
                at
            }
        };
        let args = [map.addr, key, slot.value, 0, 0];
        let prog = callback.prog;
        let cur = Cur {
            id,
            cpu,
            level,
            task,
            prog,
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            lane: self.lane(cpu, (level == Level::Task).then_some(task)),
            slot: slot.addr,
            ..Cur::user(task)
        };
        self.st.watch.findings.acquire(cur.lane, slot.addr);
        let what = what(element);
        let (kind, element) = async_kind(&what);
        self.st.watch_disarmed(kind, slot.value);
        self.event(
            &cur,
            What::CallbackStart {
                kind,
                name: self.st.function(callback),
                element,
            },
        );
        self.push(cpu, cur, callback.entry, args, stack, what);
        Ok(())
    }

    /// A lane for an execution that begins, where somebody wants to know of races.
    pub(crate) fn lane(&mut self, cpu: Cpu, task: Option<TaskId>) -> u16 {
        match self.st.watch.races_on {
            true => self.st.watch.findings.begin(cpu, task),
            false => NO_LANE,
        }
    }

    pub(crate) fn event(&mut self, cur: &Cur, what: What) {
        let at = self.st.cpus[cur.cpu.at()].clock;
        let (cpu, ctx, level) = (cur.cpu, cur.id, cur.level);
        self.st.trace.push(crate::trace::Event {
            at,
            cpu,
            ctx,
            level,
            what,
        });
    }

    /// Goes on with a timer soft interrupt: the next timer of the pass, another pass, or its end.
    pub(crate) fn next_timer(&mut self, cpu: Cpu) -> Result<(), Failure> {
        loop {
            let state = &mut self.st.cpus[cpu.at()];
            let Some(softirq) = &mut state.softirq else {
                return Ok(());
            };
            let (now, clock) = (softirq.now, state.clock);
            if let Some(e) = self.st.timer_expire(cpu, now) {
                let task = self.current_task(cpu);
                return self.callback(cpu, Level::Softirq, task, e.id, e.callback, e.slot, |el| {
                    Running::Timer(e.timer, el)
                });
            }
            let due = self.st.timer_next(cpu).is_some_and(|d| d <= clock);
            let state = &mut self.st.cpus[cpu.at()];
            match &mut state.softirq {
                Some(s) if due && s.passes < MAX_PASSES => {
                    *s = Softirq {
                        now: clock,
                        passes: s.passes + 1,
                    };
                }
                _ => {
                    if due {
                        state.ksoftirqd_until = clock + TICK;
                    }
                    state.softirq = None;
                    return Ok(());
                }
            }
        }
    }

    /// `current` on a CPU, as an interrupt sees it.
    pub(crate) fn current_task(&self, cpu: Cpu) -> TaskId {
        let runs = &self.cpus[cpu.at()];
        let bottom = runs.stack.first().and_then(|&i| self.runs[i].as_ref());
        match (bottom, &runs.thread.syscall, runs.thread.sweeping) {
            (Some(run), ..) => run.cur.task,
            (None, Some(s), _) => s.task,
            (None, None, Some(task)) => task,
            (None, None, None) => self.in_user_mode(cpu),
        }
    }

    /// The task that a CPU runs in user mode, or its idle task.
    fn in_user_mode(&self, cpu: Cpu) -> TaskId {
        let runs = |t: &crate::shared::Shared<crate::task::Task>| {
            t.cpu == cpu && !t.kthread && t.state == TaskState::Running && t.burns
        };
        let found = self.st.tasks.iter().position(runs);
        found.map_or_else(|| self.swapper(cpu), |i| TaskId(i as u32))
    }

    /// Goes on with the system call of a CPU.
    #[inline]
    fn syscall(&mut self, cpu: Cpu) -> Result<(), Failure> {
        match &self.cpus[cpu.at()].thread.syscall {
            Some(s) if s.phase == Phase::Return => {
                let task = s.task;
                if self.has_task_work(cpu, task) {
                    self.next_task_work(cpu, task)?;
                } else {
                    self.leave_kernel(cpu, task);
                }
                self.offer.again = self.cpus[cpu.at()].stack.is_empty();
                Ok(())
            }
            _ => self.run_in_syscall(cpu),
        }
    }

    /// The system call of a CPU runs what it is to run.
    fn run_in_syscall(&mut self, cpu: Cpu) -> Result<(), Failure> {
        let Some(s) = &mut self.cpus[cpu.at()].thread.syscall else {
            return Ok(());
        };
        let task = s.task;
        s.phase = Phase::Running;
        let (id, bh_off) = (s.id.child(s.left), s.bh_off);
        let call = Rc::clone(&s.call);
        let SysOp::TestRun { prog, input } = &call.op else {
            match &call.op {
                SysOp::Fire { hook, input } => {
                    return self.fire_in_syscall(cpu, id, hook.clone(), input.clone());
                }
                SysOp::IterRead { file, len } => {
                    return self.begin_iter_read(cpu, id, *file, *len);
                }
                SysOp::Scx(op) => return self.begin_scx(cpu, id, op),
                _ => {}
            }
            let id = call.id;
            let cur = Cur {
                id,
                cpu,
                ..Cur::user(task)
            };
            return self.push_syscall(cpu, cur);
        };
        let (prog, retval) = (*prog, input.retval);
        let between = s.between.take();
        self.maybe_grace_period();
        let stack = self.take_stack()?;
        let (r1, ctx, storage) = match between {
            Some(mut between) => {
                self.renew_ctx(&mut between.ctx, input);
                (between.r1, between.ctx, between.storage)
            }
            None => {
                let made = self.make_ctx(prog, input, cpu);
                let (r1, ctx) = made.map_err(|e| self.out_of_memory(e))?;
                (r1, ctx, Default::default())
            }
        };
        let cur = Cur {
            id,
            cpu,
            prog,
            bh_off,
            retval,
            ctx,
            storage,
            lane: self.lane(cpu, Some(task)),
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            ..Cur::user(task)
        };
        let name = self.st.progs[prog.at()].name.clone();
        self.event(&cur, What::ProgramStart { name });
        self.push(cpu, cur, 0, [r1, 0, 0, 0, 0], stack, Running::Program(r1));
        Ok(())
    }

    /// Nothing executes: whoever waits for readers of RCU need not any more.
    pub(crate) fn maybe_grace_period(&mut self) {
        if !self.st.objects.are_waiting() {
            return;
        }
        // Whether others execute is looked at.
        self.st.touch(Touch::Idle { ahead: true });
        let idle = |c: &Shared<crate::run::CpuRuns>| c.stack.is_empty() && c.parked.is_empty();
        if self.cpus.iter().all(idle) {
            self.st.objects.grace_period();
        }
    }

    /// There is task work to run before a task is in user mode.
    #[inline]
    fn has_task_work(&self, cpu: Cpu, task: TaskId) -> bool {
        let t = &self.st.tasks[task.at()];
        !self.cpus[cpu.at()].thread.sweep.is_empty() || !t.work.is_empty() || t.notify
    }

    /// Runs a task's next item of task work, in sweeps, last scheduled first; without any left
    /// the task is in user mode, or gone.
    fn next_task_work(&mut self, cpu: Cpu, task: TaskId) -> Result<(), Failure> {
        while self.has_task_work(cpu, task) {
            let thread = &mut self.cpus[cpu.at()].thread;
            if thread.sweep.is_empty() {
                *thread.sweep = self.st.task_take_work(task);
                thread.sweeping = (!thread.sweep.is_empty()).then_some(task);
            }
            let Some(work) = thread.sweep.pop() else {
                continue;
            };
            if let Some(b) = self.st.task_work_begin(work) {
                return self.callback(cpu, Level::Task, task, b.id, b.callback, b.slot, |e| {
                    Running::TaskWork(work, e)
                });
            }
        }
        self.leave_kernel(cpu, task);
        Ok(())
    }

    /// A task is in user mode, or gone.
    #[inline]
    pub(crate) fn leave_kernel(&mut self, cpu: Cpu, task: TaskId) {
        let t = &self.st.tasks[task.at()];
        let user_code = t.user_code;
        if t.state == TaskState::Exiting {
            self.st.tasks[task.at()].state = TaskState::Dead;
        }
        let thread = &mut self.cpus[cpu.at()].thread;
        thread.sweeping = None;
        let Some(s) = &mut thread.syscall else {
            return;
        };
        if (s.task, s.phase) != (task, Phase::Return) {
            return;
        }
        let (job, out) = (s.job, s.out.take());
        thread.syscall = None;
        self.results[job] = out;
        if self.window.job == Some(job) {
            // User space of the test goes on, and may look at anything.
            self.st.touch(Touch::All);
        }
        if user_code {
            self.st.touch(Touch::UserSpace);
            self.user_turns.push_back(task);
        }
    }
}

/// True for a step that has an execution go on, or a program of a system call begin, and does nothing else.
fn is_calm(step: Do, what: &Running) -> bool {
    match step {
        Do::Continue => true,
        Do::Enter(_) | Do::Syscall => matches!(what, Running::Program(_)),
        _ => false,
    }
}

pub(crate) fn async_kind(what: &Running) -> (AsyncKind, Element) {
    match what {
        Running::Timer(_, e) => (AsyncKind::Timer, e.clone()),
        Running::Work(_, e) => (AsyncKind::Wq, e.clone()),
        Running::TaskWork(_, e) => (AsyncKind::TaskWork, e.clone()),
        Running::Program(_)
        | Running::Hook(_)
        | Running::Iter(_)
        | Running::Scx(_)
        | Running::Syscall => {
            unreachable!("no callback")
        }
    }
}
