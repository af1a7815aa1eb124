//! `bpf_timer`: SEMANTICS 1.1 to 1.18.
//!
//! The checks of each call are made in Linux's order. What Linux does by spinning is done by
//! suspending the caller until the callback has ended.

use super::callback::Async;
use super::{Callback, Handle, Pool, Slot, Slotted, put_in_slot};
use crate::choose::Wait;
use crate::ids::{Cpu, CtxId};
use crate::shared::Shared;
use crate::state::{Pending, State};
use crate::touch::Touch;
use crate::trace::{AsyncKind, Level};
use bpfsim_abi::Errno;
use bpfsim_vm::{AccessKind, Flow, GuestMem};

/// `BPF_F_TIMER_ABS`
const F_ABS: u64 = 1;
/// `BPF_F_TIMER_CPU_PIN`
const F_CPU_PIN: u64 = 2;

/// `struct bpf_hrtimer`
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    slot: Slot,
    /// 0 `CLOCK_MONOTONIC` (and `CLOCK_REALTIME`, which is placed there), 1 `CLOCK_BOOTTIME`.
    base: usize,
    callback: Option<Callback>,
    armed: Option<Armed>,
    /// CPU and execution of the callback.
    running: Option<(Cpu, CtxId)>,
    /// Its slot is empty; it lives on only until its callback returns.
    freed: bool,
    /// Callbacks of other timers that are cancelling it.
    cancelling: u32,
}

#[derive(Clone, Copy)]
struct Armed {
    cpu: Cpu,
    deadline: u64,
    seq: u64,
    ctx: CtxId,
}

impl Slotted for Timer {
    fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Async for Timer {
    fn callback(&mut self) -> &mut Option<Callback> {
        &mut self.callback
    }

    fn pool(st: &mut State) -> &mut Shared<Pool<Timer>> {
        &mut st.timers
    }
}

/// A timer callback that is about to run.
pub(crate) struct Expired {
    pub timer: Handle,
    pub callback: Callback,
    pub slot: Slot,
    pub id: CtxId,
}

fn done(result: Result<u64, Errno>) -> Flow {
    Flow::Done(crate::helper::ret(result))
}

impl State {
    /// `bpf_timer_init`
    pub fn timer_init(&mut self, mem: &mut GuestMem, slot: Slot, flags: u64) -> Flow {
        let base = match flags {
            0 | 1 => 0,
            7 => 1,
            _ => return done(Err(Errno::EINVAL)),
        };
        let timer = Timer {
            slot,
            base,
            callback: None,
            armed: None,
            running: None,
            freed: false,
            cancelling: 0,
        };
        done(self.async_init(mem, timer))
    }

    /// `bpf_timer_set_callback`
    pub fn timer_set_callback(&mut self, mem: &GuestMem, addr: u64, callback: Callback) -> Flow {
        done(self.async_set_callback::<Timer>(mem, addr, callback))
    }

    /// `bpf_timer_start`
    pub fn timer_start(&mut self, mem: &GuestMem, addr: u64, nsecs: u64, flags: u64) -> Flow {
        if self.cur.level == Level::Nmi {
            return done(Err(Errno::EOPNOTSUPP));
        }
        if flags & !(F_ABS | F_CPU_PIN) != 0 {
            return done(Err(Errno::EINVAL));
        }
        let handle = self.timers.in_slot(mem, addr);
        let Some(handle) =
            handle.filter(|&h| self.timers.get(h).is_some_and(|t| t.callback.is_some()))
        else {
            return done(Err(Errno::EINVAL));
        };
        self.timer_dequeue(handle);
        let now = self.cpu().clock;
        let deadline = match flags & F_ABS {
            0 => now.saturating_add(nsecs),
            _ => nsecs,
        };
        self.seq += 1;
        let (seq, ctx, here) = (self.seq, self.cur.child(), self.cur.cpu);
        let Some(t) = self.timers.get_mut(handle) else {
            return done(Err(Errno::EINVAL));
        };
        let cpu = t.running.map_or(here, |(cpu, _)| cpu);
        t.armed = Some(Armed {
            cpu,
            deadline,
            seq,
            ctx,
        });
        let (slot, base) = (t.slot, t.base);
        // ktime_t is signed: what does not fit never comes.
        if nsecs < 1 << 63 {
            self.cpus[cpu.at()].timers[base].insert((deadline, seq, handle));
        }
        self.touch(Touch::Deadline);
        self.touch_cpu(cpu);
        self.armed(mem, AsyncKind::Timer, slot.map, slot.value, deadline);
        Flow::Yield(0)
    }

    /// `bpf_timer_cancel`
    pub fn timer_cancel(&mut self, mem: &GuestMem, addr: u64) -> Flow {
        if let Some(Pending::Cancel { timer, counted }) = self.cur.op {
            return self.timer_cancel_sync(mem, timer, counted);
        }
        if self.cur.level == Level::Nmi {
            return done(Err(Errno::EOPNOTSUPP));
        }
        let Some(handle) = self.timers.in_slot(mem, addr) else {
            return done(Err(Errno::EINVAL));
        };
        let here = self.cpu().running_timer;
        if here == Some(handle) {
            return done(Err(Errno::EDEADLK));
        }
        if let Some(t) = here.and_then(|h| self.timers.get(h)) {
            let (own, cancelled) = (t.slot.addr, t.cancelling > 0);
            self.touch_memory(own, 16, AccessKind::Read);
            if cancelled {
                return done(Err(Errno::EDEADLK));
            }
        }
        let counted = here.is_some();
        if let Some(t) = self.timers.get_mut(handle) {
            t.cancelling += counted as u32;
            self.refs.drop_callback(t.callback.take());
        }
        self.timer_cancel_sync(mem, handle, counted)
    }

    /// `hrtimer_cancel`: 1 when the timer was queued once its callback was out of the way.
    fn timer_cancel_sync(&mut self, mem: &GuestMem, handle: Handle, counted: bool) -> Flow {
        if let Some(wait) = self.timer_wait(handle) {
            self.cur.op = Some(Pending::Cancel {
                timer: handle,
                counted,
            });
            self.cur.wait = Some(wait);
            return Flow::Suspend;
        }
        self.cur.op = None;
        let queued = self.timer_dequeue(handle);
        if let Some(t) = self.timers.get_mut(handle) {
            t.cancelling = t.cancelling.saturating_sub(counted as u32);
            let slot = t.slot;
            if queued {
                self.disarmed(mem, AsyncKind::Timer, slot.map, slot.value);
            }
        }
        done(Ok(queued as u64))
    }

    /// What a synchronous cancel must wait for, if anything.
    pub fn timer_wait(&self, handle: Handle) -> Option<Wait> {
        let (cpu, ctx) = self.timers.get(handle)?.running?;
        (cpu != self.cur.cpu).then_some(Wait::TimerCallback(ctx))
    }

    fn timer_dequeue(&mut self, handle: Handle) -> bool {
        let Some(t) = self.timers.get_mut(handle) else {
            return false;
        };
        let Some(armed) = t.armed.take() else {
            return false;
        };
        let base = t.base;
        self.touch(Touch::Deadline);
        self.touch_cpu(armed.cpu);
        self.cpus[armed.cpu.at()].timers[base].remove(&(armed.deadline, armed.seq, handle));
        true
    }

    /// `bpf_timer_cancel_and_free`: the timer will not start again. Returns it when its callback
    /// runs on another CPU and the caller, outside of any timer callback, must wait.
    pub fn timer_free(&mut self, mem: &mut GuestMem, addr: u64) -> Option<Handle> {
        let handle = self.timers.in_slot(mem, addr)?;
        put_in_slot(mem, addr, None);
        if self.timer_dequeue(handle) {
            let slot = *self.timers.get(handle)?.slot();
            self.disarmed(mem, AsyncKind::Timer, slot.map, slot.value);
        }
        let in_callback = self.cpu().running_timer.is_some();
        let t = self.timers.get_mut(handle)?;
        self.refs.drop_callback(t.callback.take());
        t.freed = true;
        if t.running.is_none() {
            self.timers.remove(handle);
            return None;
        }
        (!in_callback).then_some(handle)
    }

    /// Earliest deadline on a CPU.
    pub fn timer_next(&self, cpu: Cpu) -> Option<u64> {
        let bases = &self.cpus[cpu.at()].timers;
        bases
            .iter()
            .filter_map(|b| b.first().map(|&(deadline, ..)| deadline))
            .min()
    }

    /// Takes the first timer due at `now` off its queue: of the first base, then of the second.
    /// One whose callback is gone is passed over (`bpf_timer_cb`).
    pub fn timer_expire(&mut self, cpu: Cpu, now: u64) -> Option<Expired> {
        loop {
            let bases = &mut self.cpus[cpu.at()].timers;
            let base = bases
                .iter()
                .position(|b| b.first().is_some_and(|&(d, ..)| d <= now))?;
            let (_, _, timer) = bases[base].pop_first()?;
            self.touch(Touch::Deadline);
            let Some(t) = self.timers.get_mut(timer) else {
                continue;
            };
            let (armed, slot) = (t.armed.take(), t.slot);
            let callback = t.callback;
            self.touch_memory(slot.addr, 16, AccessKind::Rmw);
            let (Some(callback), Some(armed)) = (callback, armed) else {
                continue;
            };
            if let Some(t) = self.timers.get_mut(timer) {
                t.running = Some((cpu, armed.ctx));
            }
            self.cpus[cpu.at()].running_timer = Some(timer);
            return Some(Expired {
                timer,
                callback,
                slot,
                id: armed.ctx,
            });
        }
    }

    /// The callback returned.
    pub fn timer_ended(&mut self, cpu: Cpu, handle: Handle) {
        self.cpus[cpu.at()].running_timer = None;
        let Some(t) = self.timers.get_mut(handle) else {
            return;
        };
        t.running = None;
        let (addr, freed) = (t.slot.addr, t.freed);
        self.touch_memory(addr, 16, AccessKind::Rmw);
        if freed {
            self.timers.remove(handle);
        }
    }
}
