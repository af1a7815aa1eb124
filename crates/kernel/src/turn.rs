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
    pub next: Next,
}

/// The lock that is taken or given back.
fn lock_of(next: &Next) -> Option<(Func, u64)> {
    match *next {
        Next::Call {
            call: Call::Helper(id),
            object,
        } if id == Func::SpinLock as u32 => Some((Func::SpinLock, object)),
        _ => None,
    }
}

/// A `bpf_spin_lock` is held.
fn is_held(mem: &GuestMem, addr: u64) -> bool {
    mem.read_u32(addr) != Some(0)
}

impl Offered {
    /// True when after a step that did this, and goes on with `next`, the others can do what they
    /// could do before, and so can the one that took it.
    fn stays(&self, did: &Next, next: &Next, mem: &GuestMem) -> bool {
        let awaited = |c: &Choice| lock_of(&c.next).is_some_and(|(_, at)| is_held(mem, at));
        let waits = |wait: &Wait| matches!(*wait, Wait::SpinLock(at) if is_held(mem, at));
        if let Next::Call { .. } = next
            && lock_of(next).is_some_and(|(_, at)| is_held(mem, at))
        {
            return false;
        }
        if let Next::Call { .. } = did
            && lock_of(did).is_some()
            && (self.choices.iter().enumerate()).any(|(i, c)| i != self.picked && awaited(c))
        {
            return false;
        }
        self.waiting.iter().all(|w| waits(&w.wait))
    }
}

impl View<'_> {
    /// Ends the step that is being taken, where `stop` comes next, and picks another. True when that
    /// is what comes next.
    pub fn take_turn(&mut self, stop: &Stop, act: &Activation, mem: &GuestMem) -> bool {
        let Some(turns) = &mut self.turns else {
            return false;
        };
        if self.loud || self.st.watch.findings.fatal().is_some() {
            return false;
        }
        let mut next = turns.next;
        match *stop {
            Stop::Access(access) => set_access(&mut next, access.addr, access.size, access.kind),
            Stop::Call(call) => {
                next = Next::Call {
                    call,
                    object: object_of(call, act.args()),
                }
            }
            _ => return false,
        }
        let offer = &mut *turns.offer;
        if !is_quiet_step(&turns.next) || !offer.stays(&turns.next, &next, mem) {
            return false;
        }
        // What was done is over.
        let cpu = self.st.cur.cpu;
        let clock = self.base + act.insns;
        self.st.cpus[cpu.at()].clock = clock;
        self.st.trace_done(&turns.next, mem);
        offer.tell(turns.chooser, turns.window, &self.st.touched);
        let mine = offer.picked;
        let choice = &mut offer.choices[mine];
        (choice.next, choice.at) = (next, clock);
        turns.next = next;
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
            self.st.touch_next(mem, next, act.args());
        }
        if let Next::Access(access) = next {
            let by = Site {
                ctx: self.st.cur.id.0,
                cpu: cpu.0,
                prog: act.prog,
                pc: act.pc,
            };
            self.st
                .watch_access(&by, access, turns.image.orders(act.pc, &access));
        }
        true
    }
}
