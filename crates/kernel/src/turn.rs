//! Who has the next turn, decided without leaving the engine.
//!
//! While executions do nothing but access memory and make quiet calls, what there is to choose from
//! stays as it is, but for what the one that took the last step does next. So it is chosen from at
//! once, and if the same execution goes on, the engine need not stop for it.

use crate::choose::{Choice, Chooser, Last, Next, Starts, Wait, Waiting};
use crate::ids::Cpu;
use crate::kernel::Window;
use crate::prog::ProgCode;
use crate::run::{CpuRuns, Run, Running, What as Do};
use crate::sched::Offered;
use crate::shared::Shared;
use crate::state::{Cur, State};
use crate::touch::Touch;
use crate::view::View;
use bpfsim_abi::Func;
use bpfsim_vm::{Access, AccessKind, Activation, Call, GuestMem, Image, Site, Stop, Turn};
use smallvec::SmallVec;

/// What the scheduler lends to the engine for it.
pub(crate) struct Turns<'a, 's> {
    pub chooser: &'a mut dyn Chooser,
    pub offer: &'a mut Offered,
    pub window: &'a mut Window,
    pub image: &'a Image,
    /// Executions that can go on without the engine stopping, by CPU.
    pub seats: &'a mut Seats<'s>,
    /// The CPU that executes.
    pub mine: usize,
    /// There are no others, and what there is to choose from may be made anew.
    pub all: bool,
    /// Most instructions of one execution.
    pub fuel: u64,
    /// There is more than one choice, nobody waits, nobody wants to know what steps do, and nothing is
    /// gone back to.
    pub quick: bool,
    /// Where a choice is to be gone back to the engine stops.
    pub stops: bool,
}

/// An execution that the engine has.
pub(crate) struct Seat<'a> {
    /// Where it is among the runs.
    pub index: usize,
    pub cur: &'a mut Shared<Cur>,
    /// What it did when the engine was entered; what it does by now is in the offer.
    pub next: &'a mut Next,
    /// While another one executes: the place of its activation, and where it stopped.
    pub place: usize,
    pub at: Stopped,
    /// Its arguments, where somebody wants to know what calls touch.
    pub args: [u64; 5],
}

/// Where an execution stopped.
#[derive(Clone, Copy)]
pub(crate) struct Stopped {
    prog: u32,
    pc: u32,
    insns: u64,
}

impl Stopped {
    #[inline(always)]
    pub fn of(act: &Activation) -> Stopped {
        Stopped {
            prog: act.prog,
            pc: act.pc,
            insns: act.insns,
        }
    }
}

/// CPUs whose executions the engine may have: those of others leave it.
pub(crate) const SEATS: usize = 4;

/// Executions by CPU.
pub(crate) type Seats<'a> = [Option<Seat<'a>>; SEATS];

/// The activations of all but the one that executes.
pub(crate) type Others<'a> = SmallVec<[&'a mut Activation; SEATS]>;

/// What executes on CPUs, and may go on in the engine beside what was picked, which is not among the
/// runs: of the same image, and begun.
pub(crate) fn seat<'a>(
    seats: &mut Seats<'a>,
    others: &mut Others<'a>,
    runs: &'a mut [Option<Shared<Run>>],
    cpus: &[Shared<CpuRuns>],
    (code, image): (&[ProgCode], &Image),
    records: bool,
) {
    for (index, run) in runs.iter_mut().enumerate() {
        let Some(run) = run else {
            continue;
        };
        let cpu = run.cur.cpu.at();
        let same = |code: &ProgCode| std::ptr::eq(&*code.image, image);
        let Some(seat) = seats.get_mut(cpu) else {
            continue;
        };
        if cpus[cpu].stack.last() != Some(&index)
            || run.next.begins() && !(run.next == Next::Start(Starts::Program) && run.act.insns > 0)
            || matches!(run.what, Running::Syscall)
            || !code.get(run.act.prog as usize).is_some_and(same)
        {
            continue;
        }
        let Run { act, cur, next, .. } = &mut **run;
        *seat = Some(Seat {
            index,
            cur,
            next,
            place: others.len(),
            at: Stopped::of(act),
            args: match records {
                true => act.args(),
                false => [0; 5],
            },
        });
        others.push(act);
    }
}

impl State {
    /// A CPU's clock comes to a time that others have come to.
    pub fn reach(&mut self, cpu: Cpu, at: u64) {
        let clock = &mut self.cpus[cpu.at()].clock;
        *clock = (*clock).max(at);
    }

    /// An execution goes on, and is the current one.
    #[inline]
    pub fn goes_on(&mut self, cpu: Cpu, cur: &mut Shared<Cur>) {
        if cur.wait.is_some() {
            self.waited(cpu, cur);
        }
        std::mem::swap(&mut self.cur, cur);
    }

    /// What it waited for happened elsewhere.
    #[inline(never)]
    fn waited(&mut self, cpu: Cpu, cur: &mut Cur) {
        let Some(wait) = cur.wait.take() else {
            return;
        };
        if wait.until().is_some() {
            self.touch(Touch::Deadline);
        }
        if !wait.sleeps() {
            let now = match cur.over.take() {
                Some(over) => over,
                None => self.now(),
            };
            self.reach(cpu, now.min(wait.until().unwrap_or(u64::MAX)));
        }
    }

    /// What the current execution does next, where it stopped, begins.
    #[inline(always)]
    pub fn begins(
        &mut self,
        mem: &GuestMem,
        next: &Next,
        at: Stopped,
        args: &[u64; 5],
        image: &Image,
    ) {
        if self.records {
            self.touch_next(mem, *next, *args);
        }
        if let Next::Access(Access { addr, size, kind }) = *next {
            self.watch_step(Access { addr, size, kind }, at, image);
        }
    }

    /// The detectors see the access of a step.
    #[inline(always)]
    fn watch_step(&mut self, access: Access, at: Stopped, image: &Image) {
        if self.watch.races_on {
            let by = Site {
                ctx: self.cur.id.0,
                cpu: self.cur.cpu.0,
                prog: at.prog,
                pc: at.pc,
            };
            self.watch_access(&by, access, image.orders(at.pc, &access));
        }
    }
}

impl Turns<'_, '_> {
    /// Has the execution that was picked go on in the place of the one that executes, if the engine
    /// has it. Gives the place of its activation, and where it stopped.
    #[inline(always)]
    fn exchange(&mut self, st: &mut State, act: &Activation) -> Option<(usize, Stopped)> {
        let (cpu, what) = *self.offer.what.get(self.offer.picked)?;
        if what != Do::Continue {
            return None;
        }
        let other = self.seats.get(cpu.at())?.as_ref()?;
        let (place, at) = (other.place, other.at);
        if let Some(Some(mine)) = self.seats.get_mut(self.mine) {
            mine.place = place;
            mine.at = Stopped::of(act);
            if st.records {
                mine.args = act.args();
            }
            std::mem::swap(&mut st.cur, mine.cur);
        }
        self.mine = cpu.at();
        let other = self.seats.get_mut(self.mine)?.as_mut()?;
        st.goes_on(cpu, other.cur);
        Some((place, at))
    }

    /// What there is to choose from after a step in which a lock was taken or given back, or after
    /// which one is wanted: as the scheduler would collect it.
    fn collect(&mut self, st: &mut State, mem: &GuestMem) {
        let clock = st.cpus[self.mine].clock;
        for (choice, (cpu, what)) in self.offer.choices.iter().zip(&self.offer.what) {
            if let (Some(Some(seat)), Do::Continue) = (self.seats.get_mut(cpu.at()), what) {
                put(&choice.next, seat.next);
            }
        }
        self.offer.begin_again();
        for cpu in 0..st.cpus.len() as u32 {
            if let Some(Some(seat)) = self.seats.get_mut(cpu as usize) {
                let cur = match self.mine == cpu as usize {
                    true => &mut st.cur,
                    false => &mut *seat.cur,
                };
                let wanted = lock_of(seat.next).filter(|&at| is_held(mem, at));
                let wait = cur.wait.or(wanted.map(Wait::SpinLock));
                let held = wanted.is_some();
                if let Some(wait) = wait {
                    let over = match held {
                        true => None,
                        false => cur.over.or(Some(clock)),
                    };
                    if (cur.wait, cur.over) != (Some(wait), over) {
                        (cur.wait, cur.over) = (Some(wait), over);
                    }
                }
                let (id, cpu) = (cur.id, Cpu(cpu));
                match wait {
                    Some(wait) if held => self.offer.waiting.push(Waiting { id, cpu, wait }),
                    _ => {
                        let at = st.cpus[cpu.at()].clock;
                        self.offer.add(id, cpu, *seat.next, at, Do::Continue);
                    }
                }
                continue;
            }
            self.offer.add_idle(Cpu(cpu));
        }
    }

    /// The engine has stopped: tells the executions what they do next. Gives the index and the CPU of the
    /// one that executed.
    pub fn end(&mut self, index: usize) -> (usize, Cpu) {
        for (choice, (cpu, what)) in self.offer.choices.iter().zip(&self.offer.what) {
            if let (Some(Some(seat)), Do::Continue) = (self.seats.get_mut(cpu.at()), what) {
                put(&choice.next, seat.next);
            }
        }
        let mine = self.seats.get(self.mine).and_then(Option::as_ref);
        (mine.map_or(index, |seat| seat.index), Cpu(self.mine as u32))
    }
}

/// `bpf_spin_lock`
fn is_lock(call: Call) -> bool {
    matches!(call, Call::Helper(id) if id == Func::SpinLock as u32)
}

/// The `bpf_spin_lock` that is taken.
#[inline]
pub(crate) fn lock_of(next: &Next) -> Option<u64> {
    match *next {
        Next::Call { call, object } if is_lock(call) => Some(object),
        _ => None,
    }
}

/// True when it is to take a `bpf_spin_lock` that is held.
fn wants_held(next: &Next, mem: &GuestMem) -> bool {
    lock_of(next).is_some_and(|at| is_held(mem, at))
}

/// A `bpf_spin_lock` is held.
fn is_held(mem: &GuestMem, addr: u64) -> bool {
    mem.read_u32(addr) != Some(0)
}

impl Offered {
    /// True when after a step that did this there is to choose from what there was before, if what
    /// took it can go on.
    fn stays_after(&self, did: &Next, mem: &GuestMem) -> bool {
        let waits = |w: &Waiting| matches!(w.wait, Wait::SpinLock(at) if is_held(mem, at));
        self.waiting.iter().all(waits)
            && (lock_of(did).is_none() || !self.others().any(|c| wants_held(&c.next, mem)))
    }

    /// True when others than what took the step can go on.
    fn is_left(&self, mem: &GuestMem) -> bool {
        self.others().any(|c| !wants_held(&c.next, mem))
    }

    /// All choices but the one that was picked.
    fn others(&self) -> impl Iterator<Item = &Choice> {
        let others = self.choices.iter().enumerate();
        others.filter(|(i, _)| *i != self.picked).map(|(_, c)| c)
    }
}

impl View<'_, '_> {
    /// Ends the step that is being taken, where `stop` comes next, and picks another. Says who
    /// takes it, if that can be without leaving the engine.
    ///
    /// Most steps are one access, after which comes another: this is as short as it can be.
    #[inline(always)]
    pub fn take_turn(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let st = &mut *self.st;
        if self.loud || st.watch.findings.fatal().is_some() {
            return Turn::Nobody;
        }
        let offer = &mut *turns.offer;
        let (choices, mine) = (offer.choices.len(), offer.picked);
        let steps = turns.window.steps + 1;
        if !turns.quick {
            return self.turn_at(stop, act, mem);
        }
        let (Stop::Access(access), Some(choice)) = (stop, offer.choices.get_mut(mine)) else {
            return self.turn_at(stop, act, mem);
        };
        let Next::Access(did) = &mut choice.next else {
            return self.turn_at(stop, act, mem);
        };
        let Some(picked) = turns.chooser.choose_among(choices, mine, steps) else {
            return self.turn_at(stop, act, mem);
        };
        // What was done is over.
        let clock = self.base + act.insns;
        if let Some(cpu) = st.cpus.get_mut(turns.mine) {
            cpu.clock = clock;
        }
        let value = mem.read_u64(did.addr).unwrap_or(0);
        st.trace.access(choice.id, *did, value);
        (did.addr, did.size, did.kind) = (access.addr, access.size, access.kind);
        choice.at = clock;
        turns.window.taken = Some(Last::by(choice));
        turns.window.last = choice.cpu;
        turns.window.steps = steps;
        let picked = picked.min(choices - 1);
        (offer.stays, offer.picked) = (true, picked);
        st.trace.word(picked as u64);
        if picked != mine {
            return self.turn_to_other(act, mem);
        }
        st.watch_step(*access, Stopped::of(act), turns.image);
        Turn::Same
    }

    /// Any step is over.
    #[inline(never)]
    fn turn_at(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let object = match *stop {
            Stop::Call(call) => object_of(call, act.args()),
            Stop::Access(_) | Stop::Yield => 0,
            _ => return Turn::Nobody,
        };
        let lock = matches!(*stop, Stop::Call(call) if is_lock(call)).then_some(object);
        let waits = lock.is_some_and(|at| is_held(mem, at));
        let offer = &mut *turns.offer;
        let did = &offer.choices[offer.picked].next;
        if !is_quiet_step(did) {
            return Turn::Nobody;
        }
        let stays = !waits && offer.stays_after(did, mem);
        // Where nobody can go on the scheduler says why.
        if !stays && !(turns.all && (!waits || offer.is_left(mem))) {
            return Turn::Nobody;
        }
        let clock = self.base + act.insns;
        self.st.cpus[turns.mine].clock = clock;
        self.st.trace_done(did, mem);
        offer.tell(turns.chooser, turns.window, &self.st.touched);
        let (choice, what) = (
            &mut offer.choices[offer.picked],
            &mut offer.what[offer.picked],
        );
        // It has begun.
        (choice.id, what.1) = (self.st.cur.id, Do::Continue);
        choice.at = clock;
        match *stop {
            Stop::Access(a) => set_access(&mut choice.next, a.addr, a.size, a.kind),
            Stop::Call(call) => set_call(&mut choice.next, call, object),
            _ => choice.next = Next::Start(Starts::Program),
        }
        offer.stays = stays;
        if !stays {
            turns.collect(self.st, mem);
            let alone = turns.offer.choices.len() == 1 || !turns.offer.waiting.is_empty();
            turns.quick = !(alone || turns.stops || turns.offer.follows || self.st.records);
        }
        let offer = &mut *turns.offer;
        offer.pick(turns.chooser, turns.window);
        self.st.touched.clear();
        if offer.choices.len() > 1 {
            if turns.stops && turns.chooser.comes_back() {
                (offer.chosen, offer.kept) = (true, true);
                return Turn::Nobody;
            }
            offer.asked += usize::from(turns.stops);
            self.st.trace.word(offer.picked as u64);
        }
        if offer.what[offer.picked].0.at() != turns.mine {
            return self.turn_to_other(act, mem);
        }
        let next = &offer.choices[offer.picked].next;
        let (at, args) = (Stopped::of(act), act.args());
        self.st.begins(mem, next, at, &args, turns.image);
        Turn::Same
    }

    /// What was picked is another execution.
    #[inline(always)]
    fn turn_to_other(&mut self, act: &Activation, mem: &GuestMem) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let Some((place, at)) = turns.exchange(self.st, act) else {
            turns.offer.chosen = true;
            return Turn::Nobody;
        };
        let args = match turns.seats.get(turns.mine) {
            Some(Some(seat)) => &seat.args,
            _ => &[0; 5],
        };
        let choice = &turns.offer.choices[turns.offer.picked];
        self.st.begins(mem, &choice.next, at, args, turns.image);
        self.base = self.st.cpus[turns.mine].clock - at.insns;
        Turn::Other {
            place,
            grant: !choice.next.begins(),
            budget: turns.fuel.saturating_sub(at.insns),
            ctx: choice.id.0,
            cpu: choice.cpu.0,
        }
    }
}

/// The shared object that a visible call is about: its first argument is the map, the slot or
/// the lock, but for task work, whose first is the task.
pub(crate) fn object_of(call: Call, args: [u64; 5]) -> u64 {
    match call {
        Call::Kfunc(k) if crate::kfunc::name(k).is_some_and(|n| n.starts_with("bpf_task_work")) => {
            args[1]
        }
        _ => args[0],
    }
}

/// An access comes next. By its parts: they were written one by one a moment ago, and copied as a
/// whole they would have to reach the cache first.
#[inline(never)]
pub(crate) fn set_access(next: &mut Next, addr: u64, size: u8, kind: AccessKind) {
    *next = Next::Access(Access { addr, size, kind });
}

/// As [`set_access`], of a call.
#[inline(never)]
fn set_call(next: &mut Next, call: Call, object: u64) {
    *next = Next::Call { call, object };
}

/// Copies as [`set_access`] does.
fn put(next: &Next, to: &mut Next) {
    match *next {
        Next::Access(a) => set_access(to, a.addr, a.size, a.kind),
        Next::Call { call, object } => set_call(to, call, object),
        next => *to = next,
    }
}

/// Calls after which others can do what they could do before, but for those that wait for a
/// `bpf_spin_lock`.
const QUIET: u128 = bits(&[
    Func::MapLookupElem,
    Func::KtimeGetNs,
    Func::TracePrintk,
    Func::GetPrandomU32,
    Func::GetSmpProcessorId,
    Func::GetCurrentPidTgid,
    Func::GetCurrentComm,
    Func::SpinLock,
    Func::SpinUnlock,
]);

const fn bits(funcs: &[Func]) -> u128 {
    let (mut bits, mut i) = (0, 0);
    while i < funcs.len() {
        bits |= 1 << funcs[i] as u32;
        i += 1;
    }
    bits
}

/// See [`QUIET`].
pub(crate) fn is_quiet(call: Call) -> bool {
    matches!(call, Call::Helper(id) if id < 128 && QUIET >> id & 1 != 0)
}

/// A run that went on with this has done nothing that is not quiet.
pub(crate) fn is_quiet_step(next: &Next) -> bool {
    match *next {
        Next::Access(_) | Next::Start(Starts::Program) => true,
        Next::Call { call, .. } => is_quiet(call),
        Next::Start(_) | Next::Syscall { .. } => false,
    }
}
