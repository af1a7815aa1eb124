//! The registers' side of checked mode: what a running program's pointers came from.

use super::{OWN, Shadow, StackShadow, Tag, near};
use crate::Activation;
use crate::activation::MAX_FRAMES;
use crate::host::FaultKind;
use crate::kept::Kept;
use crate::mem::GuestMem;

/// What a loop in checked mode has at hand, taken out of the memory that it runs on.
pub(crate) struct Checker {
    shadow: Option<Box<Shadow>>,
    /// Of the stack at `at`.
    own: Option<Kept<StackShadow>>,
    at: usize,
}

impl Checker {
    /// Nothing to check.
    pub fn none() -> Checker {
        Checker {
            shadow: None,
            own: None,
            at: 0,
        }
    }

    /// Takes out what is known; a run that begins finds its arguments' allocations.
    pub fn begin(mem: &mut GuestMem, act: &mut Activation) -> Checker {
        let mut shadow = mem.shadow.take();
        let Some(s) = &mut shadow else {
            return Checker::none();
        };
        let at = s.stack_from(act.stack, act.shadow as usize);
        act.shadow = at as u32;
        let own = None;
        let mut checker = Checker { shadow, own, at };
        checker.exchange_own();
        if !act.entered {
            act.entered = true;
            checker.enter(act);
        }
        checker
    }

    /// Another run goes on, of this execution on this CPU.
    #[inline(always)]
    pub fn exchange(&mut self, act: &mut Activation, ctx: u64, cpu: u32) {
        self.exchange_own();
        if let Some(s) = &mut self.shadow {
            s.set_site(ctx, cpu);
            self.at = s.stack_from(act.stack, act.shadow as usize);
            act.shadow = self.at as u32;
            self.exchange_own();
        }
    }

    /// Takes out what is known of the stack, or puts it back.
    #[inline(always)]
    fn exchange_own(&mut self) {
        if let Some(s) = &mut self.shadow
            && let Some((_, own)) = s.stacks.get_mut(self.at)
        {
            std::mem::swap(&mut self.own, own);
            self.own.iter_mut().for_each(Kept::open);
        }
    }

    fn enter(&mut self, act: &Activation) {
        let Some((shadow, own)) = self.both() else {
            return;
        };
        own.live = true;
        // What pointed to frames of the run before points to nothing.
        if std::mem::replace(&mut own.used, true) {
            for frame in own.first..=own.first + own.reached {
                shadow.age(frame);
            }
        }
        own.forget_all();
        for r in 1..6 {
            if near(act.regs[r]) {
                own.tags[r] = shadow.find(act.regs[r]).unwrap_or_default();
                own.points(own.tags[r]);
            }
        }
        own.tags[10] = shadow.tag(own.first);
    }

    #[inline(always)]
    fn both(&mut self) -> Option<(&mut Shadow, &mut StackShadow)> {
        Some((self.shadow.as_deref_mut()?, self.own.as_mut()?.opened()))
    }

    /// Puts all back, for whoever else has the memory next.
    pub fn put_back(&mut self, mem: &mut GuestMem, act: &Activation, pc: usize) {
        if let Some((shadow, own)) = self.both() {
            let rest = &mut shadow.rest;
            (rest.site.prog, rest.site.pc) = (act.prog, pc.saturating_sub(1) as u32);
            rest.args.copy_from_slice(&own.tags[1..6]);
            self.exchange_own();
            std::mem::swap(&mut mem.shadow, &mut self.shadow);
        }
    }

    /// Takes all out again.
    pub fn take_again(&mut self, mem: &mut GuestMem, act: &Activation) {
        std::mem::swap(&mut mem.shadow, &mut self.shadow);
        if let Some(s) = &mut self.shadow {
            // Others may have made stacks meanwhile.
            self.at = s.stack_from(act.stack, self.at);
            self.exchange_own();
        }
    }

    /// Nothing was noted that somebody is to take out.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        let noted = |s: &Shadow| !s.rest.stale.is_empty();
        !self.shadow.as_deref().is_some_and(noted)
    }

    /// The run is over.
    pub fn ended(&mut self) {
        if let Some(own) = &mut self.own {
            own.opened().live = false;
        }
    }

    /// `dst = src`
    #[inline(always)]
    pub fn moved(&mut self, d: usize, s: usize) {
        if let Some(own) = &mut self.own {
            let own = own.opened();
            own.tags[d] = own.tags[s];
        }
    }

    /// A register now holds this, which came from outside of the program.
    #[cold]
    #[inline(never)]
    pub fn given(&mut self, d: usize, value: u64) {
        if let Some((shadow, own)) = self.both() {
            own.tags[d] = shadow.find(value).unwrap_or_default();
            own.points(own.tags[d]);
        }
    }

    /// A register was loaded from memory, and what it holds may be a pointer.
    #[cold]
    #[inline(never)]
    pub fn loaded(&mut self, d: usize, addr: u64, value: u64) {
        if let Some((shadow, own)) = self.both() {
            let off = addr.wrapping_sub(own.base);
            let slot = (off < OWN && off & 7 == 0).then_some((off / 8) as u16);
            let spilled = slot.and_then(|slot| own.spills.iter().find(|s| s.0 == slot));
            own.tags[d] = match spilled {
                Some(&(_, tag)) => tag,
                None => shadow.find(value).unwrap_or_default(),
            };
            own.points(own.tags[d]);
        }
    }

    /// Checks a load of `N` bytes at `addr` by the pointer in register `r`.
    #[inline(always)]
    pub fn load<const N: usize>(
        &mut self,
        r: usize,
        addr: u64,
        act: &Activation,
        pc: impl FnOnce() -> usize,
    ) -> Result<(), FaultKind> {
        let Some((shadow, own)) = self.both() else {
            return Ok(());
        };
        if !fits(shadow, own.tags[r], addr, N as u64) {
            misfit(shadow, (own, r), (act, pc()), (addr, N as u64, false))?;
        }
        let off = addr.wrapping_sub(own.base);
        if off < OWN {
            let mask = StackShadow::mask(off, N);
            let word = own.init[off as usize / 8] as u16;
            if word & mask != mask {
                unwritten(own, addr, N as u64)?;
            }
        }
        Ok(())
    }

    /// A load through register `r` that gives 0 where there is nothing: no fault, whatever it reads.
    #[cold]
    #[inline(never)]
    pub fn probed(&mut self, r: usize, addr: u64, size: u64, act: &Activation, pc: usize) {
        if let Some((shadow, own)) = self.both() {
            let place = (act.prog, pc.saturating_sub(1) as u32);
            shadow.probed(&mut own.tags[r], place, (addr, size as u32));
            own.points(own.tags[r]);
        }
    }

    /// As [`Checker::load`], for a store; then these bytes are written.
    #[inline(always)]
    pub fn store<const N: usize>(
        &mut self,
        r: usize,
        addr: u64,
        act: &Activation,
        pc: impl FnOnce() -> usize,
    ) -> Result<(), FaultKind> {
        let Some((shadow, own)) = self.both() else {
            return Ok(());
        };
        if !fits(shadow, own.tags[r], addr, N as u64) {
            misfit(shadow, (own, r), (act, pc()), (addr, N as u64, true))?;
        }
        let off = addr.wrapping_sub(own.base);
        if off < OWN {
            let mask = StackShadow::mask(off, N);
            own.init[off as usize / 8] |= mask as u8;
            if mask > 0xff {
                own.init[off as usize / 8 + 1] |= (mask >> 8) as u8;
            }
        }
        Ok(())
    }

    /// The pointer in register `s` was stored at `addr`.
    #[inline(always)]
    pub fn kept(&mut self, s: usize, addr: u64, value: u64) {
        if near(value)
            && let Some(own) = &mut self.own
        {
            let own = own.opened();
            let off = addr.wrapping_sub(own.base);
            if off < OWN {
                let tag = own.tags[s];
                own.spill(off, tag);
            }
        }
    }

    /// A function of the program was called, and there are `depth` callers now.
    #[inline(always)]
    pub fn pushed(&mut self, depth: usize) {
        if let Some((shadow, own)) = self.both()
            && depth < MAX_FRAMES
        {
            own.saved[depth].copy_from_slice(&own.tags[6..10]);
            own.reached = own.reached.max(depth as u32);
            own.forget(depth);
            own.tags[10] = shadow.tag(own.first + depth as u32);
        }
    }

    /// It returned, and there are `depth` callers again.
    #[inline(always)]
    pub fn popped(&mut self, depth: usize) {
        if let Some((shadow, own)) = self.both()
            && depth + 1 < MAX_FRAMES
        {
            own.tags[6..10].copy_from_slice(&own.saved[depth + 1]);
            // What it had on its stack is gone.
            shadow.age(own.first + depth as u32 + 1);
            own.tags[10] = shadow.tag(own.first + depth as u32);
        }
    }

    /// Another program, or another function, goes on in the frame with `depth` callers.
    #[cold]
    pub fn replaced(&mut self, depth: usize) {
        if let Some((shadow, own)) = self.both()
            && depth < MAX_FRAMES
        {
            own.forget(depth);
            own.tags[10] = shadow.tag(own.first + depth as u32);
        }
    }
}

#[inline(always)]
pub(super) fn fits(shadow: &Shadow, tag: Tag, addr: u64, size: u64) -> bool {
    let Some(a) = shadow.tables.allocs.all().get(tag.index as usize) else {
        return false;
    };
    addr.wrapping_sub(a.base).saturating_add(size) <= a.size as u64
        && a.generation == tag.generation
}

#[cold]
#[inline(never)]
fn misfit(
    shadow: &mut Shadow,
    (own, r): (&mut StackShadow, usize),
    (act, pc): (&Activation, usize),
    access: (u64, u64, bool),
) -> Result<(), FaultKind> {
    let index = pc.saturating_sub(1) as u32;
    let judged = shadow.judge(&mut own.tags[r], (act.prog, index), access);
    own.points(own.tags[r]);
    judged
}

/// A load of bytes that were not all written: padding is read with what is around it, and only
/// bytes none of which were ever written are a fault.
#[cold]
#[inline(never)]
fn unwritten(own: &StackShadow, addr: u64, size: u64) -> Result<(), FaultKind> {
    match own.initialised(addr, size) {
        0 => Err(own.uninitialised(addr, size)),
        _ => Ok(()),
    }
}
