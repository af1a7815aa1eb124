//! `bpf_spin_lock`s that are taken, given back and waited for, without the engine being left.

use crate::choose::{Choice, Next, Wait, Waiting};
use crate::sched::{Offered, put_in, take};
use crate::state::{Cur, State};
use crate::turn::{Turns, put};
use bpfsim_abi::Func;
use bpfsim_vm::{Call, GuestMem};

impl Turns<'_, '_> {
    /// After a step in which something was called, or after which a lock is wanted: who waited for what is
    /// free now can go on, and who wants what is held waits, as the scheduler would have it.
    #[inline(always)]
    pub fn sort(&mut self, st: &mut State, mem: &GuestMem) {
        let mut i = 0;
        while let Some(waiting) = self.offer.waiting.get(i) {
            match still_waits(waiting, mem) {
                false if self.wake(st, i) => {}
                _ => i += 1,
            }
        }
        let mut i = 0;
        while let Some(choice) = self.offer.choices.get(i) {
            let wanted = lock_of(&choice.next).filter(|&at| is_held(mem, at));
            match wanted {
                Some(at) if self.park(st, i, at) => {}
                _ => i += 1,
            }
        }
    }

    /// What the `i`th waited for is free.
    #[inline(never)]
    fn wake(&mut self, st: &State, i: usize) -> bool {
        let offer = &mut *self.offer;
        let Waiting { id, cpu, .. } = offer.waiting[i];
        let Some(Some(seat)) = self.seats.get_mut(cpu.at()) else {
            return false;
        };
        take(&mut offer.waiting, i);
        seat.cur.over.get_or_insert(st.freed_at);
        let at = offer.insert(id, cpu, *seat.next, st.cpus[cpu.at()].clock);
        offer.picked += usize::from(at <= offer.picked);
        true
    }

    /// The `i`th choice is to take a lock that is held.
    #[inline(never)]
    fn park(&mut self, st: &mut State, i: usize, lock: u64) -> bool {
        let offer = &mut *self.offer;
        let Choice { id, cpu, next, .. } = &offer.choices[i];
        let (id, cpu) = (*id, *cpu);
        let Some(Some(seat)) = self.seats.get_mut(cpu.at()) else {
            return false;
        };
        put(next, seat.next);
        let cur: &mut Cur = match self.mine == cpu.at() {
            true => &mut st.cur,
            false => seat.cur,
        };
        let wait = cur.wait.unwrap_or(Wait::SpinLock(lock));
        (cur.wait, cur.over) = (Some(wait), None);
        offer.remove(i);
        offer.picked -= usize::from(i < offer.picked);
        let after = offer.waiting.iter().position(|w| w.cpu > cpu);
        let at = after.unwrap_or(offer.waiting.len());
        put_in(&mut offer.waiting, at, Waiting { id, cpu, wait });
        true
    }
}

/// `bpf_spin_lock`
pub(super) fn is_lock(call: Call) -> bool {
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

/// Whether a choice is to take a `bpf_spin_lock` that is held.
fn wants_held(mem: &GuestMem) -> impl Fn(&Choice) -> bool {
    |choice| lock_of(&choice.next).is_some_and(|at| is_held(mem, at))
}

/// It waits for a `bpf_spin_lock` that is held.
fn still_waits(waiting: &Waiting, mem: &GuestMem) -> bool {
    matches!(waiting.wait, Wait::SpinLock(at) if is_held(mem, at))
}

/// A `bpf_spin_lock` is held.
#[inline]
pub(super) fn is_held(mem: &GuestMem, addr: u64) -> bool {
    mem.read_u32(addr) != Some(0)
}

impl Offered {
    /// True when after a call others can do what they could not do before, or no more what they could.
    #[inline(never)]
    pub fn changes(&self, mem: &GuestMem) -> bool {
        self.waiting.iter().any(|w| !still_waits(w, mem)) || self.others().any(wants_held(mem))
    }

    /// True when others than what took the step can go on.
    pub fn is_left(&self, mem: &GuestMem) -> bool {
        !self.others().all(wants_held(mem))
    }

    /// All choices but the one that was picked.
    fn others(&self) -> impl Iterator<Item = &Choice> {
        let others = self.choices.iter().enumerate();
        others.filter(|(i, _)| *i != self.picked).map(|(_, c)| c)
    }
}
