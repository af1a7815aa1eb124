//! The scheduler: what can happen next, and making it happen.

use crate::asynch::{Callback, Slot};
use crate::choose::{Choice, Next, Offer, Starts, Usual, Wait, Waiting};
use crate::failure::{Failure, FailureKind};
use crate::ids::{Cpu, CtxId, TaskId};
use crate::kernel::{Kernel, buffer_of};
use crate::prog::{ProgCtx, ProgramOutput};
use crate::run::{At, Phase, Run, Running, What as Do};
use crate::state::{Cur, Softirq};
use crate::trace::{AsyncKind, Element, Level, What};
use crate::view::View;
use bpfsim_vm::{Activation, Area, Call, Fault, FaultKind, MemError, Mode, STACK_SIZE, Stop};

/// Virtual time that a CPU runs ahead of others before they get their turn, in ns.
const QUANTUM: u64 = 1_000;
/// Passes of the timer soft interrupt before the rest is left to ksoftirqd
/// (`MAX_SOFTIRQ_RESTART`).
const MAX_PASSES: u32 = 10;
/// How long ksoftirqd leaves the CPU to the task that it competes with: a tick at `HZ=250`, in ns.
const TICK: u64 = 4_000_000;
/// Bytes beside a stack: the key that callbacks of array elements are given.
const STACK_EXTRA: u64 = 64;

/// The choices of the current step, kept to reuse their memory.
#[derive(Default)]
pub(crate) struct Offered {
    pub choices: Vec<Choice>,
    pub what: Vec<At>,
    pub waiting: Vec<Waiting>,
}

impl Offered {
    fn add(&mut self, id: CtxId, cpu: Cpu, next: Next, at: u64, what: Do) {
        self.choices.push(Choice { id, cpu, next, at });
        self.what.push((cpu, what));
    }
}

/// Identity of what a CPU does of its own accord.
fn cpu_ctx(cpu: Cpu, nth: u32) -> CtxId {
    CtxId::USER.child(1 << 24 | cpu.0 << 4 | nth)
}

impl Kernel {
    /// Takes one step. With `until`, the clock may move as far as that. False when there is
    /// nothing to do.
    pub(crate) fn step(&mut self, until: Option<u64>) -> Result<bool, Failure> {
        self.collect(until);
        let n = self.offer.choices.len();
        if n == 0 {
            return Ok(false);
        }
        let explores = self.chooser.explores();
        let picked = match n {
            1 => 0,
            _ if explores => {
                let offer = Offer {
                    choices: &self.offer.choices,
                    waiting: &self.offer.waiting,
                };
                let picked = self.chooser.choose(&offer).min(n - 1);
                self.st.trace.word(picked as u64);
                picked
            }
            _ => Usual::pick(&self.offer.choices),
        };
        let budget = if explores {
            self.config.fuel
        } else {
            self.slice(picked)
        };
        let (cpu, what) = self.offer.what[picked];
        self.perform(cpu, what, budget)?;
        Ok(true)
    }

    /// Fills `self.offer` with all that can happen next.
    fn collect(&mut self, until: Option<u64>) {
        let mut offer = std::mem::take(&mut self.offer);
        offer.choices.clear();
        offer.what.clear();
        offer.waiting.clear();
        let now = self.st.now();
        let running = self.cpus.iter().any(|c| !c.stack.is_empty());
        let ahead = match running && self.chooser.explores() {
            true => self.config.horizon,
            false => 0,
        };
        let limit = now.saturating_add(ahead).max(until.unwrap_or(0));
        for c in 0..self.cpus.len() {
            self.offer_cpu(&mut offer, Cpu(c as u32), limit);
        }
        self.offer = offer;
    }

    fn offer_cpu(&mut self, offer: &mut Offered, cpu: Cpu, limit: u64) {
        let clock = self.st.cpus[cpu.at()].clock;
        if let Some(at) = self.timers_at(cpu).filter(|&at| at <= limit) {
            let next = Next::Start(Starts::Timers);
            offer.add(cpu_ctx(cpu, 0), cpu, next, at, Do::Timers(at));
        }
        let top = self.cpus[cpu.at()].stack.last().copied();
        if let Some(run) = top.and_then(|i| self.runs[i].as_ref()) {
            let (id, next) = (run.cur.id, run.next);
            match run.cur.wait.filter(|w| self.still_waits(w)) {
                Some(wait) => offer.waiting.push(Waiting { id, cpu, wait }),
                None => offer.add(id, cpu, next, clock, Do::Continue),
            }
            return;
        }
        let runs = &mut self.cpus[cpu.at()];
        if runs.syscall.is_none() {
            runs.syscall = runs.queue.pop_front();
        }
        let in_syscall = runs.syscall.as_ref().map(|s| s.task);
        if let Some(s) = &runs.syscall {
            let starts = if s.phase == Phase::Return {
                Starts::TaskWork
            } else {
                Starts::Program
            };
            offer.add(s.id, cpu, Next::Start(starts), clock, Do::Syscall);
        }
        if !self.st.cpus[cpu.at()].work.is_empty() {
            offer.add(
                cpu_ctx(cpu, 1),
                cpu,
                Next::Start(Starts::Work),
                clock,
                Do::Work,
            );
        }
        for (i, t) in self.st.tasks.iter().enumerate() {
            let (task, more) = (TaskId(i as u32), self.cpus[cpu.at()].sweeping);
            let work = !t.work.is_empty() || more == Some(task);
            if t.cpu == cpu && work && !t.kthread && in_syscall != Some(task) {
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

    /// When timers would next expire on a CPU; `None` where nothing is armed or they are held off.
    fn timers_at(&self, cpu: Cpu) -> Option<u64> {
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

    fn still_waits(&self, wait: &Wait) -> bool {
        match *wait {
            Wait::TimerCallback(ctx) => self
                .runs
                .iter()
                .flatten()
                .any(|r| r.cur.id == ctx && matches!(r.what, Running::Timer(..))),
            Wait::SpinLock(addr) => self.mem.read_u32(addr) != Some(0),
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
        if let Some(at) = self.timers_at(cpu) {
            bound = bound.min(at);
        }
        bound.saturating_sub(start).clamp(1, self.config.fuel)
    }

    fn perform(&mut self, cpu: Cpu, what: Do, budget: u64) -> Result<(), Failure> {
        match what {
            Do::Continue => {}
            Do::Timers(at) => {
                let state = &mut self.st.cpus[cpu.at()];
                state.clock = state.clock.max(at);
                state.softirq = Some(Softirq {
                    now: state.clock,
                    passes: 1,
                });
                self.next_timer(cpu)?;
            }
            Do::Syscall => self.syscall(cpu)?,
            Do::Work => {
                if let Some(b) = self.st.wq_begin(cpu) {
                    let (task, level) = (self.kworker(cpu), Level::Task);
                    self.callback(cpu, level, task, b.id, b.callback, b.slot, |e| {
                        Running::Work(b.work, e)
                    })?;
                }
            }
            Do::Kick(task) => self.next_task_work(cpu, task)?,
        }
        match self.cpus[cpu.at()].stack.last() {
            Some(&run) => self.go(cpu, run, budget),
            None => Ok(()),
        }
    }

    /// Lets a run execute until it stops, and draws the consequences.
    fn go(&mut self, cpu: Cpu, index: usize, budget: u64) -> Result<(), Failure> {
        let Some(mut run) = self.runs[index].take() else {
            return Ok(());
        };
        let mode = if self.chooser.explores() {
            Mode::Explore
        } else {
            Mode::Plain
        };
        run.cur.wait = None;
        run.act.grant = !matches!(run.next, Next::Start(_));
        let fuel = self.config.fuel.saturating_sub(run.act.insns);
        let base = self.st.cpus[cpu.at()].clock - run.act.insns;
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        let image = &self.code[self.st.cur.prog.at()].image;
        let mut view = View {
            st: &mut self.st,
            base,
        };
        let stop = bpfsim_vm::run(
            image,
            &mut run.act,
            &mut self.mem,
            &mut view,
            budget.min(fuel),
            mode,
        );
        self.st.cpus[cpu.at()].clock = base + run.act.insns;
        if let (Next::Access(access), Mode::Explore) = (run.next, mode) {
            let value = self.mem.read_u64(access.addr).unwrap_or(0);
            self.st.trace.access(self.st.cur.id, access, value);
        }
        match stop {
            Stop::Exit(r0) => return self.ended(cpu, index, run, r0),
            Stop::Fault(fault) => {
                return Err(self.failure(FailureKind::Fault(fault), Some(fault.pc)));
            }
            Stop::Budget if run.act.insns >= self.config.fuel => {
                let kind = FailureKind::Fuel {
                    insns: self.config.fuel,
                };
                return Err(self.failure(kind, Some(run.act.pc)));
            }
            Stop::Budget | Stop::Yield => run.next = Next::Start(Starts::Program),
            Stop::Access(access) => run.next = Next::Access(access),
            Stop::Call(call) => {
                run.next = Next::Call {
                    call,
                    object: object_of(call, run.act.args()),
                }
            }
            // It makes the same call again.
            Stop::Suspend => {
                run.next = match run.next {
                    next @ Next::Call { .. } => next,
                    _ => Next::Start(Starts::Program),
                }
            }
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        self.runs[index] = Some(run);
        Ok(())
    }

    /// A failure of what executes now.
    fn failure(&self, kind: FailureKind, insn: Option<u32>) -> Failure {
        let cur = &self.st.cur;
        Failure {
            kind,
            at: self.st.cpus[cur.cpu.at()].clock,
            who: Some((cur.cpu, cur.id)),
            place: insn.map(|insn| self.place(cur.prog, insn)),
        }
    }

    fn out_of_memory(&self, _: MemError) -> Failure {
        let fault = Fault {
            pc: 0,
            kind: FaultKind::MemoryLimit,
        };
        self.failure(FailureKind::Fault(fault), None)
    }

    /// Puts a new run on top of a CPU's stack.
    fn push(&mut self, cpu: Cpu, cur: Cur, entry: u32, args: [u64; 5], stack: u32, what: Running) {
        let act = Activation::new(entry, args, self.stacks[stack as usize]);
        let next = Next::Start(Starts::Program);
        let run = Some(Run {
            act,
            cur,
            what,
            next,
            stack,
        });
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

    fn take_stack(&mut self) -> Result<u32, Failure> {
        if let Some(stack) = self.free_stacks.pop() {
            return Ok(stack);
        }
        let at = self.mem.alloc(Area::Stack, STACK_SIZE + STACK_EXTRA, 64);
        self.stacks.push(at.map_err(|e| self.out_of_memory(e))?);
        Ok(self.stacks.len() as u32 - 1)
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
            return Err(self.failure(
                FailureKind::Livelock {
                    callbacks: self.callbacks - 1,
                },
                None,
            ));
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
            ..Cur::user(task)
        };
        let what = what(element);
        let (kind, element) = async_kind(&what);
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

    fn event(&mut self, cur: &Cur, what: What) {
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
    fn next_timer(&mut self, cpu: Cpu) -> Result<(), Failure> {
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
    fn current_task(&self, cpu: Cpu) -> TaskId {
        let runs = &self.cpus[cpu.at()];
        let bottom = runs.stack.first().and_then(|&i| self.runs[i].as_ref());
        match (bottom, &runs.syscall) {
            (Some(run), _) => run.cur.task,
            (None, Some(s)) => s.task,
            (None, None) => self.kworker(cpu),
        }
    }

    /// Goes on with the system call of a CPU.
    fn syscall(&mut self, cpu: Cpu) -> Result<(), Failure> {
        let Some(s) = &mut self.cpus[cpu.at()].syscall else {
            return Ok(());
        };
        if s.phase == Phase::Return {
            let task = s.task;
            return self.next_task_work(cpu, task);
        }
        s.phase = Phase::Running;
        let (id, task, prog, bh_off, left) = (s.id, s.task, s.prog, s.bh_off, s.left);
        let input = s.input.clone();
        let stack = self.take_stack()?;
        let made = self.make_ctx(prog, &input);
        let (r1, ctx) = made.map_err(|e| self.out_of_memory(e))?;
        if let Some(s) = &mut self.cpus[cpu.at()].syscall {
            s.r1 = r1;
        }
        let id = id.child(left);
        let cur = Cur {
            id,
            cpu,
            prog,
            bh_off,
            ctx,
            scratch: self.stacks[stack as usize] + STACK_SIZE,
            ..Cur::user(task)
        };
        let name = self.st.progs[prog.at()].name.clone();
        self.event(&cur, What::ProgramStart { name });
        self.push(cpu, cur, 0, [r1, 0, 0, 0, 0], stack, Running::Program);
        Ok(())
    }

    /// Runs a task's next item of task work, in sweeps, last scheduled first; without any left
    /// the task is in user mode.
    fn next_task_work(&mut self, cpu: Cpu, task: TaskId) -> Result<(), Failure> {
        loop {
            let runs = &mut self.cpus[cpu.at()];
            if runs.sweep.is_empty() {
                runs.sweep = std::mem::take(&mut self.st.tasks[task.at()].work);
                runs.sweeping = (!runs.sweep.is_empty()).then_some(task);
            }
            let Some(work) = runs.sweep.pop() else { break };
            if let Some(b) = self.st.task_work_begin(work) {
                return self.callback(cpu, Level::Task, task, b.id, b.callback, b.slot, |e| {
                    Running::TaskWork(work, e)
                });
            }
        }
        let runs = &mut self.cpus[cpu.at()];
        if let Some(s) = runs
            .syscall
            .take_if(|s| s.task == task && s.phase == Phase::Return)
        {
            self.results[s.job] = s.out;
        }
        Ok(())
    }

    /// A run returned `r0`. `self.st.cur` is still its own.
    fn ended(&mut self, cpu: Cpu, index: usize, mut run: Run, r0: u64) -> Result<(), Failure> {
        self.cpus[cpu.at()].stack.pop();
        self.free_runs.push(index);
        self.free_stacks.push(run.stack);
        let return_value = r0 as u32;
        let meta = &self.st.progs[self.st.cur.prog.at()];
        match &run.what {
            Running::Program => {
                let name = meta.name.clone();
                self.st.event(What::ProgramEnd { name, return_value });
            }
            what => {
                let (kind, element) = async_kind(what);
                let name = meta.function(run.act.pc.saturating_sub(1)).to_string();
                self.st.event(What::CallbackEnd {
                    kind,
                    name,
                    element,
                    return_value,
                });
            }
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        match run.what {
            Running::Timer(timer, _) => {
                self.st.timer_ended(cpu, timer);
                self.next_timer(cpu)
            }
            Running::Work(work, _) => {
                self.st.wq_ended(work);
                Ok(())
            }
            Running::TaskWork(work, _) => {
                self.st.task_work_ended(work);
                Ok(())
            }
            Running::Program => self.program_ended(cpu, run, return_value),
        }
    }

    /// One run of a system call's program is over: soft interrupts are let in, then it runs again
    /// or returns.
    fn program_ended(&mut self, cpu: Cpu, run: Run, return_value: u32) -> Result<(), Failure> {
        let Some(s) = &mut self.cpus[cpu.at()].syscall else {
            return Ok(());
        };
        let r1 = s.r1;
        let packet = run.cur.ctx.packet();
        let data = packet.and_then(|p| self.mem.slice(p.data, p.len()));
        let data_out = data.unwrap_or(&[]).to_vec();
        let ctx_out = match &run.cur.ctx {
            ProgCtx::Fields(ctx) => ctx.raw.clone(),
            ProgCtx::Memory => self
                .mem
                .slice(r1, s.input.ctx.len() as u64)
                .unwrap_or(&[])
                .to_vec(),
        };
        let insns = run.act.insns;
        s.out = Some(ProgramOutput {
            return_value,
            data_out,
            ctx_out,
            insns,
        });
        s.left -= 1;
        s.phase = if s.left > 0 {
            Phase::Enter
        } else {
            Phase::Return
        };
        if let Some((at, len)) = buffer_of(r1, &run.cur.ctx, &s.input) {
            self.buffers.give(at, len);
        }
        if s.bh_off
            && self
                .st
                .timer_next(cpu)
                .is_some_and(|d| d <= self.st.cpus[cpu.at()].clock)
        {
            let state = &mut self.st.cpus[cpu.at()];
            state.softirq = Some(Softirq {
                now: state.clock,
                passes: 1,
            });
            return self.next_timer(cpu);
        }
        Ok(())
    }
}

fn async_kind(what: &Running) -> (AsyncKind, Element) {
    match what {
        Running::Timer(_, e) => (AsyncKind::Timer, e.clone()),
        Running::Work(_, e) => (AsyncKind::Wq, e.clone()),
        Running::TaskWork(_, e) => (AsyncKind::TaskWork, e.clone()),
        Running::Program => unreachable!("a program is no callback"),
    }
}

/// The shared object that a visible call is about: its first argument is the map, the slot or
/// the lock, but for task work, whose first is the task.
fn object_of(call: Call, args: [u64; 5]) -> u64 {
    match call {
        Call::Kfunc(k) if crate::kfunc::name(k).is_some_and(|n| n.starts_with("bpf_task_work")) => {
            args[1]
        }
        _ => args[0],
    }
}
