//! Who has the next turn, decided without leaving the engine.
//!
//! While executions do nothing but access memory and make quiet calls, what there is to choose from
//! stays as it is, but for what the one that took the last step does next. So it is chosen from at
//! once, and if the same execution goes on, the engine need not stop for it.

use crate::choose::{Choice, Chooser, Next, Starts, Wait};
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

/// What the scheduler lends to the engine for it.
pub(crate) struct Turns<'a> {
    pub chooser: &'a mut dyn Chooser,
    pub offer: &'a mut Offered,
    pub window: &'a mut Window,
    pub cpus: &'a [Shared<CpuRuns>],
    /// All but the one that executes, whose activation the engine has.
    pub runs: &'a mut [Option<Shared<Run>>],
    pub code: &'a [ProgCode],
    pub image: &'a Image,
    /// Of what executes: where it is among the runs, and the rest of it.
    pub index: usize,
    pub what: &'a mut Running,
    pub stack: &'a mut u32,
    /// What it did when the engine was entered; what it does by now is in the offer.
    pub next: &'a mut Next,
    /// Most instructions of one execution.
    pub fuel: u64,
    /// Where there is more than one choice the engine stops: it may be gone back to.
    pub one: bool,
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

    /// What the current execution does next, the program that `act` is of, begins.
    #[inline(always)]
    pub fn begins(&mut self, mem: &GuestMem, next: &Next, act: &Activation, image: &Image) {
        if self.records {
            self.touch_next(mem, *next, act.args());
        }
        if self.watch.races_on
            && let Next::Access(Access { addr, size, kind }) = *next
        {
            let access = Access { addr, size, kind };
            let by = Site {
                ctx: self.cur.id.0,
                cpu: self.cur.cpu.0,
                prog: act.prog,
                pc: act.pc,
            };
            self.watch_access(&by, access, image.orders(act.pc, &access));
        }
    }
}

impl Turns<'_> {
    /// Puts the run that is to come in the place of the one that executes, if it is of the same
    /// image and comes to a visible operation.
    fn exchange(&mut self, st: &mut State, act: &mut Activation, mine: usize) -> bool {
        let (cpu, what) = self.offer.what[self.offer.picked];
        let Some(&index) = self.cpus[cpu.at()].stack.last() else {
            return false;
        };
        let Some(there) = &mut self.runs[index] else {
            return false;
        };
        let same = |code: &ProgCode| std::ptr::eq(&*code.image, self.image);
        if what != Do::Continue
            || matches!(there.next, Next::Start(_) | Next::Syscall { .. })
            || matches!(there.what, Running::Syscall)
            || !self.code.get(there.act.prog as usize).is_some_and(same)
        {
            return false;
        }
        let other = &mut **there;
        std::mem::swap(act, &mut other.act);
        other.next = self.offer.choices[mine].next;
        std::mem::swap(self.what, &mut other.what);
        std::mem::swap(self.stack, &mut other.stack);
        st.goes_on(cpu, &mut other.cur);
        self.runs.swap(index, self.index);
        self.index = index;
        true
    }
}

/// The `bpf_spin_lock` that is taken.
fn lock_of(next: &Next) -> Option<u64> {
    match *next {
        Next::Call {
            call: Call::Helper(id),
            object,
        } if id == Func::SpinLock as u32 => Some(object),
        _ => None,
    }
}

/// A `bpf_spin_lock` is held.
fn is_held(mem: &GuestMem, addr: u64) -> bool {
    mem.read_u32(addr) != Some(0)
}

impl Offered {
    /// True when after a step that did this, and comes to taking the lock `wants`, the others can do
    /// what they could do before, and so can the one that took it.
    #[inline]
    fn stay(&self, did: &Next, wants: Option<u64>, mem: &GuestMem) -> bool {
        let waits = |wait: &Wait| matches!(*wait, Wait::SpinLock(at) if is_held(mem, at));
        if wants.is_some_and(|at| is_held(mem, at)) || !self.waiting.iter().all(|w| waits(&w.wait))
        {
            return false;
        }
        let wants = |c: &Choice| lock_of(&c.next).is_some_and(|at| is_held(mem, at));
        let others = || self.choices.iter().enumerate();
        lock_of(did).is_none() || !others().any(|(i, c)| i != self.picked && wants(c))
    }
}

impl View<'_> {
    /// Ends the step that is being taken, where `stop` comes next, and picks another. Says who
    /// takes it, if that can be without leaving the engine.
    pub fn take_turn(&mut self, stop: &Stop, act: &mut Activation, mem: &GuestMem) -> Turn {
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let call = match *stop {
            Stop::Access(_) => None,
            Stop::Call(call) => Some(Next::Call {
                call,
                object: object_of(call, act.args()),
            }),
            _ => return Turn::Nobody,
        };
        let offer = &mut *turns.offer;
        let mine = offer.picked;
        let did = &offer.choices[mine].next;
        let wants = call.as_ref().and_then(lock_of);
        if self.loud
            || turns.one && offer.choices.len() > 1
            || self.st.watch.findings.fatal().is_some()
            || !is_quiet_step(did)
            || !offer.stay(did, wants, mem)
        {
            return Turn::Nobody;
        }
        // What was done is over.
        let cpu = self.st.cur.cpu;
        let clock = self.base + act.insns;
        self.st.cpus[cpu.at()].clock = clock;
        self.st.trace_done(did, mem);
        offer.tell(turns.chooser, turns.window, &self.st.touched);
        let choice = &mut offer.choices[mine];
        choice.at = clock;
        match (*stop, call) {
            (Stop::Access(a), _) => set_access(&mut choice.next, a.addr, a.size, a.kind),
            (_, Some(call)) => choice.next = call,
            (_, None) => {}
        }
        offer.stays = true;
        offer.pick(turns.chooser, turns.window);
        if offer.choices.len() > 1 {
            self.st.trace.word(offer.picked as u64);
        }
        self.st.touched.clear();
        let same = offer.picked == mine;
        if !same && !turns.exchange(self.st, act, mine) {
            turns.offer.chosen = true;
            *turns.next = turns.offer.choices[mine].next;
            return Turn::Nobody;
        }
        let next = &turns.offer.choices[turns.offer.picked].next;
        self.st.begins(mem, next, act, turns.image);
        if same {
            return Turn::Same;
        }
        let (ctx, cpu) = (self.st.cur.id.0, self.st.cur.cpu);
        self.base = self.st.cpus[cpu.at()].clock - act.insns;
        Turn::Other {
            budget: turns.fuel.saturating_sub(act.insns),
            ctx,
            cpu: cpu.0,
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
