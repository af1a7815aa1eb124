//! Who has the next turn, decided without leaving the engine.
//!
//! While executions do nothing but access memory and make quiet calls, what there is to choose from
//! stays as it is, but for what the one that took the last step does next. So it is chosen from at
//! once, and if the same execution goes on, the engine need not stop for it.

use crate::choose::{Choice, Chooser, Next, Wait};
use crate::exec::{is_quiet_step, object_of, set_access};
use crate::kernel::Window;
use crate::sched::Offered;
use crate::view::View;
use bpfsim_abi::Func;
use bpfsim_vm::{Activation, Call, GuestMem, Image, Site, Stop};

/// What the scheduler lends to the engine for it.
pub(crate) struct Turns<'a> {
    pub chooser: &'a mut dyn Chooser,
    pub offer: &'a mut Offered,
    pub window: &'a mut Window,
    pub image: &'a Image,
    /// What the step that is being taken does.
    pub next: &'a mut Next,
    /// Where there is more than one choice the engine stops: it may be gone back to.
    pub one: bool,
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
    /// Ends the step that is being taken, where `stop` comes next, and picks another. True when that
    /// is what comes next.
    pub fn take_turn(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem) -> bool {
        let Some(turns) = &mut self.turns else {
            return false;
        };
        let call = match *stop {
            Stop::Access(_) => None,
            Stop::Call(call) => Some(Next::Call {
                call,
                object: object_of(call, act.args()),
            }),
            _ => return false,
        };
        let offer = &mut *turns.offer;
        let wants = call.as_ref().and_then(lock_of);
        if self.loud
            || turns.one && offer.choices.len() > 1
            || self.st.watch.findings.fatal().is_some()
            || !is_quiet_step(turns.next)
            || !offer.stay(turns.next, wants, mem)
        {
            return false;
        }
        // What was done is over.
        let cpu = self.st.cur.cpu;
        let clock = self.base + act.insns;
        self.st.cpus[cpu.at()].clock = clock;
        self.st.trace_done(turns.next, mem);
        offer.tell(turns.chooser, turns.window, &self.st.touched);
        let mine = offer.picked;
        let choice = &mut offer.choices[mine];
        choice.at = clock;
        for to in [&mut choice.next, &mut *turns.next] {
            match (*stop, call) {
                (Stop::Access(a), _) => set_access(to, a.addr, a.size, a.kind),
                (_, Some(call)) => *to = call,
                (_, None) => {}
            }
        }
        offer.stays = true;
        offer.pick(turns.chooser, turns.window);
        if offer.choices.len() > 1 {
            self.st.trace.word(offer.picked as u64);
        }
        self.st.touched.clear();
        if offer.picked != mine {
            offer.chosen = true;
            return false;
        }
        // What comes begins.
        if self.st.records {
            self.st.touch_next(mem, *turns.next, act.args());
        }
        if let Stop::Access(access) = *stop {
            let by = Site {
                ctx: self.st.cur.id.0,
                cpu: cpu.0,
                prog: act.prog,
                pc: act.pc,
            };
            let orders = turns.image.orders(act.pc, &access);
            self.st.watch_access(&by, access, orders);
        }
        true
    }
}
