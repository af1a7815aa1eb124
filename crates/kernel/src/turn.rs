//! Who has the next turn, decided without leaving the engine.
//!
//! While executions do nothing but access memory and make quiet calls, what there is to choose from
//! stays as it is, but for what the one that took the last step does next. So it is chosen from at
//! once, and if the same execution goes on, the engine need not stop for it.

pub(crate) mod ends;
mod locks;

use crate::choose::{Choice, Chooser, Next, Starts};
use crate::ids::Cpu;
use crate::kernel::Window;
use crate::prog::ProgCode;
use crate::race::NO_LANE;
use crate::run::{At, CpuRuns, Run, Running, What as Do};
use crate::sched::Offered;
use crate::shared::Shared;
use crate::state::{Cur, State};
use crate::touch::Touch;
use crate::view::View;
use bpfsim_abi::Func;
use bpfsim_vm::{Access, AccessKind, Activation, Call, GuestMem, Image, Other, Site, Stop, Turn};
use ends::Ends;
pub(crate) use locks::lock_of;
use locks::{is_held, is_lock};
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
    /// Nobody wants to know what steps do, and nothing is gone back to.
    pub quick: bool,
    /// Where a choice is to be gone back to the engine stops.
    pub stops: bool,
    /// What changes where something ends.
    pub ends: Ends<'a>,
}

/// An execution that the engine has.
pub(crate) struct Seat<'a> {
    /// Where it is among the runs.
    pub index: usize,
    pub cur: &'a mut Shared<Cur>,
    pub what: &'a Running,
    pub stack: u32,
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

/// The executions on two CPUs, if the engine has both.
#[inline(always)]
fn both<'a, 's>(seats: &'a mut Seats<'s>, cpus: [usize; 2]) -> Option<[&'a mut Seat<'s>; 2]> {
    match seats.get_disjoint_mut(cpus) {
        Ok([Some(a), Some(b)]) => Some([a, b]),
        _ => None,
    }
}

/// What executes on CPUs, and may go on in the engine beside what was picked, which is not among the
/// runs: of the same image, and begun. True when that is all that executes.
pub(crate) fn seat<'a>(
    seats: &mut Seats<'a>,
    others: &mut Others<'a>,
    (runs, spare): (&'a mut [Option<Shared<Run>>], &mut Vec<Shared<Run>>),
    cpus: &[Shared<CpuRuns>],
    (code, image): (&[ProgCode], &Image),
    records: bool,
) -> bool {
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
        run.take_memory(|| spare.pop());
        let Run {
            act,
            cur,
            what,
            next,
            stack,
        } = &mut **run;
        *seat = Some(Seat {
            index,
            cur,
            what,
            stack: *stack,
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
    let executes = cpus.iter().filter(|cpu| !cpu.stack.is_empty());
    executes.count() == others.len() + 1
}

impl State {
    /// A CPU's clock comes to a time that others have come to.
    pub fn reach(&mut self, cpu: Cpu, at: u64) {
        let clock = &mut self.cpus[cpu.at()].clock;
        *clock = (*clock).max(at);
    }

    /// An execution goes on, and is the current one.
    #[inline(always)]
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

    /// What the current execution does next, where it stopped, begins; its CPU's clock is given.
    #[inline(always)]
    pub fn begins(
        &mut self,
        mem: &GuestMem,
        next: &Next,
        at: Stopped,
        args: &[u64; 5],
        image: &Image,
        clock: u64,
    ) {
        if self.records {
            self.touch_next(mem, *next, *args);
        }
        if let Next::Access(Access { addr, size, kind }) = *next {
            self.watch_step(Access { addr, size, kind }, at, image, clock);
        }
    }

    /// The detectors see the access of a step.
    #[inline(always)]
    fn watch_step(&mut self, access: Access, at: Stopped, image: &Image, clock: u64) {
        let cur = &*self.cur;
        if self.watch.races_on && cur.lane != NO_LANE {
            let by = Site {
                ctx: cur.id.0,
                cpu: cur.cpu.0,
                prog: at.prog,
                pc: at.pc,
            };
            let orders = image.orders(at.pc, &access);
            let found = &mut self.watch.findings;
            found.access(cur.lane, &by, access, orders, clock);
        }
    }
}

impl Turns<'_, '_> {
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

impl Offered {
    /// True when others can do what they could do before although something was called that is not
    /// [quiet](is_quiet): nothing is armed or queued, and none waits for another lock than before.
    #[inline(never)]
    pub fn stays_offered(&self, st: &State, mem: &GuestMem) -> bool {
        let comes = |what: &At| matches!(what.1, Do::Work | Do::Kick(_));
        !st.records
            && st.watch.findings.fatal().is_none()
            && st.scx.is_none()
            && st.tasks_with_work == 0
            && st.cpus.iter().all(|cpu| cpu.is_free())
            && !mem.has_stale()
            && !self.what.iter().any(comes)
            && !self.changes(mem)
    }

    /// The choice that was just made is to be remembered. `stops` where some are.
    fn stops(&self, stops: bool, chooser: &dyn Chooser) -> bool {
        stops && (self.waits() || chooser.comes_back())
    }

    /// What was picked is an access.
    #[inline(always)]
    fn accesses(&self) -> bool {
        let picked = self.choices.get(self.picked);
        picked.is_some_and(|choice| matches!(choice.next, Next::Access(_)))
    }
}

impl View<'_, '_> {
    /// Ends the step that is being taken, where `stop` comes next, and picks another. Says who
    /// takes it, if that can be without leaving the engine.
    #[inline(always)]
    pub fn take_turn(
        &mut self,
        stop: &Stop,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        let Some(turns) = &self.turns else {
            return Turn::Nobody;
        };
        if self.loud || self.st.watch.findings.fatal().is_some() {
            return self.turn_after_all(stop, act, mem, other);
        }
        match turns.quick {
            // Most steps are one access, after which comes another.
            true if matches!(stop, Stop::Access(_)) && turns.offer.accesses() => {
                self.turn_as::<true, true>(stop, act, mem, other)
            }
            true => self.turn_of_any::<true>(stop, act, mem, other),
            false => self.turn_of_any::<false>(stop, act, mem, other),
        }
    }

    /// Something was called that may let others do what they could not do before.
    #[inline(never)]
    fn turn_after_all(
        &mut self,
        stop: &Stop,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        match &self.turns {
            Some(turns) if turns.offer.stays_offered(self.st, mem) => {
                self.loud = false;
                self.turn_of_any::<false>(stop, act, mem, other)
            }
            _ => Turn::Nobody,
        }
    }

    /// Any step is over, or the program.
    #[inline(never)]
    fn turn_of_any<const QUICK: bool>(
        &mut self,
        stop: &Stop,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        match *stop {
            Stop::Exit(r0) => self.end_in_turn(r0, act, mem, other),
            _ => self.turn_as::<QUICK, false>(stop, act, mem, other),
        }
    }

    /// A step is over. Where it is `QUICK` nobody wants to know more of it than he must: this happens so
    /// often that it is as short as it can be. With `PLAIN` it was an access, and another one comes.
    #[inline(always)]
    fn turn_as<const QUICK: bool, const PLAIN: bool>(
        &mut self,
        stop: &Stop,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let (st, offer) = (&mut *self.st, &mut *turns.offer);
        let mine = offer.picked;
        let Some(choice) = offer.choices.get(mine) else {
            return Turn::Nobody;
        };
        let (object, waits) = match *stop {
            Stop::Access(_) | Stop::Yield => (0, false),
            Stop::Call(call) if !PLAIN => {
                let object = object_of(call, act.args_ref());
                (object, is_lock(call) && is_held(mem, object))
            }
            _ => return Turn::Nobody,
        };
        // Calls alone take locks and give them back.
        let called = match choice.next {
            Next::Access(_) => false,
            Next::Start(Starts::Program) if !PLAIN => false,
            Next::Call { .. } if !PLAIN => true,
            _ => return Turn::Nobody,
        };
        let sorts = called || waits;
        if sorts {
            // Where nobody can go on the scheduler says why.
            let ends = match turns.all {
                true => waits && !offer.is_left(mem),
                false => waits || offer.changes(mem),
            };
            if ends {
                return Turn::Nobody;
            }
        }
        let clock = self.base + act.insns;
        if let Some(cpu) = st.cpus.get_mut(turns.mine) {
            cpu.clock = clock;
        }
        let begun = !PLAIN && choice.next.begins();
        if let Next::Access(did) = choice.next {
            let value = mem.read_u64(did.addr).unwrap_or(0);
            st.trace.access(choice.id, did, value);
        }
        match QUICK && !begun {
            true => turns.window.steps += 1,
            false => offer.tell(turns.chooser, turns.window, &st.touched, false),
        }
        let choice = &mut offer.choices[mine];
        choice.at = clock;
        match (*stop, &mut choice.next) {
            (Stop::Access(a), Next::Access(next)) if PLAIN => {
                (next.addr, next.size, next.kind) = (a.addr, a.size, a.kind);
            }
            (Stop::Access(a), next) => set_access(next, a.addr, a.size, a.kind),
            (Stop::Call(call), next) => set_call(next, call, object),
            (_, next) => *next = Next::Start(Starts::Program),
        }
        if begun {
            (choice.id, offer.what[mine].1) = (st.cur.id, Do::Continue);
        }
        if !QUICK && st.records {
            st.touched.clear();
        }
        if sorts && turns.all {
            turns.sort(st, mem);
        }
        let offer = &mut *turns.offer;
        let choices = offer.choices.len();
        let among = match QUICK && !waits && choices > 1 {
            true => {
                let steps = turns.window.steps;
                turns.chooser.choose_among(choices, offer.picked, steps)
            }
            false => None,
        };
        let picked = match among {
            Some(picked) => picked.min(choices - 1),
            None if QUICK && choices == 1 => 0,
            None => {
                if QUICK {
                    turns.window.took(st.cur.cpu, st.cur.id);
                }
                offer.stays = !waits;
                offer.pick(turns.chooser, turns.window);
                offer.picked
            }
        };
        offer.picked = picked;
        if choices > 1 {
            if !QUICK && offer.stops(turns.stops, turns.chooser) {
                (offer.chosen, offer.kept) = (true, true);
                return Turn::Nobody;
            }
            offer.asked += usize::from(!QUICK && turns.stops);
            st.trace.pick(picked);
        }
        if PLAIN && picked == mine {
            if let Stop::Access(access) = *stop {
                st.watch_step(access, Stopped::of(act), turns.image, clock);
            }
            return Turn::Same;
        }
        let choice = &offer.choices[picked];
        if PLAIN || choice.cpu.at() != turns.mine {
            return self.turn_to_other(act, mem, other);
        }
        let (at, args) = (Stopped::of(act), act.args_ref());
        match (QUICK, choice.next) {
            (true, Next::Access(access)) => st.watch_step(access, at, turns.image, clock),
            (true, _) => {}
            (false, _) => st.begins(mem, &choice.next, at, args, turns.image, clock),
        }
        Turn::Same
    }

    /// What was picked is another execution.
    #[inline(never)]
    pub fn turn_to_other(&mut self, act: &Activation, mem: &GuestMem, other: &mut Other) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let (st, picked) = (&mut *self.st, turns.offer.picked);
        let choice = &turns.offer.choices[picked];
        let cpu = choice.cpu;
        if turns.offer.what[picked].1 != Do::Continue {
            return self.turn_from_ended(mem, other);
        }
        let Some([mine, theirs]) = both(turns.seats, [turns.mine, cpu.at()]) else {
            return self.turn_from_ended(mem, other);
        };
        (mine.place, mine.at) = (theirs.place, Stopped::of(act));
        if st.records {
            mine.args = act.args();
        }
        std::mem::swap(&mut st.cur, mine.cur);
        turns.mine = cpu.at();
        let own = (turns.image, turns.fuel);
        *other = goes_on(st, &mut self.base, own, choice, theirs, mem);
        Turn::Other
    }

    /// What was picked is an execution that the engine has, or not, and what executed may have ended.
    #[inline(never)]
    fn turn_from_ended(&mut self, mem: &GuestMem, other: &mut Other) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let picked = turns.offer.picked;
        let (choice, ended) = (&turns.offer.choices[picked], turns.is_over());
        let (at, goes) = (choice.cpu.at(), turns.offer.what[picked].1 == Do::Continue);
        let Some(Some(theirs)) = turns.seats.get_mut(at).filter(|_| ended && goes) else {
            if !ended {
                turns.window.took(self.st.cur.cpu, self.st.cur.id);
            }
            turns.offer.chosen = true;
            return Turn::Nobody;
        };
        turns.mine = at;
        let own = (turns.image, turns.fuel);
        *other = goes_on(self.st, &mut self.base, own, choice, theirs, mem);
        Turn::Other
    }
}

/// An execution that the engine has goes on; no other is the current one any more.
#[inline(always)]
fn goes_on(
    st: &mut State,
    base: &mut u64,
    (image, fuel): (&Image, u64),
    choice: &Choice,
    seat: &mut Seat<'_>,
    mem: &GuestMem,
) -> Other {
    let (cpu, place, at) = (choice.cpu, seat.place, seat.at);
    st.goes_on(cpu, seat.cur);
    let clock = st.cpus[cpu.at()].clock;
    *base = clock - at.insns;
    st.begins(mem, &choice.next, at, &seat.args, image, clock);
    Other {
        place,
        grant: !choice.next.begins(),
        budget: fuel.saturating_sub(at.insns),
        ctx: choice.id.0,
        cpu: cpu.0,
    }
}

/// The shared object that a visible call is about: its first argument is the map, the slot or
/// the lock, but for task work, whose first is the task.
#[inline]
pub(crate) fn object_of(call: Call, args: &[u64; 5]) -> u64 {
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
const QUIET: [u64; 2] = bits(&[
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

const fn bits(funcs: &[Func]) -> [u64; 2] {
    let (mut bits, mut i) = ([0; 2], 0);
    while i < funcs.len() {
        bits[funcs[i] as usize / 64] |= 1 << (funcs[i] as u32 % 64);
        i += 1;
    }
    bits
}

/// See [`QUIET`].
#[inline]
pub(crate) fn is_quiet(call: Call) -> bool {
    let Call::Helper(id) = call else {
        return false;
    };
    let bits = QUIET.get(id as usize / 64);
    bits.is_some_and(|bits| bits >> (id % 64) & 1 != 0)
}

/// A step of a program, that begins with this.
pub(crate) fn is_of_program(next: &Next) -> bool {
    !next.begins() || *next == Next::Start(Starts::Program)
}
