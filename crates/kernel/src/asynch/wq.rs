//! `bpf_wq`: SEMANTICS 2.1 to 2.9.

use super::callback::Async;
use super::{Callback, Handle, Pool, Slot, Slotted, put_in_slot};
use crate::ids::{Cpu, CtxId};
use crate::shared::Shared;
use crate::state::State;
use crate::trace::{AsyncKind, Level};
use bpfsim_abi::Errno;
use bpfsim_vm::{AccessKind, Flow, GuestMem};

/// `struct bpf_work`
#[derive(Clone, Copy)]
pub(crate) struct Work {
    slot: Slot,
    callback: Option<Callback>,
    /// The queue that it is in, and the execution that it will be.
    pending: Option<(Cpu, CtxId)>,
    running: Option<Cpu>,
    freed: bool,
}

impl Slotted for Work {
    fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Async for Work {
    fn callback(&mut self) -> &mut Option<Callback> {
        &mut self.callback
    }

    fn pool(st: &mut State) -> &mut Shared<Pool<Work>> {
        &mut st.works
    }
}

/// A work item whose callback is about to run.
pub(crate) struct Begun {
    pub work: Handle,
    pub callback: Callback,
    pub slot: Slot,
    pub id: CtxId,
}

fn done(result: Result<u64, Errno>) -> Flow {
    Flow::Done(crate::helper::ret(result))
}

impl State {
    /// `bpf_wq_init`
    pub fn wq_init(&mut self, mem: &mut GuestMem, slot: Slot, flags: u32) -> Flow {
        if flags != 0 {
            return done(Err(Errno::EINVAL));
        }
        let work = Work {
            slot,
            callback: None,
            pending: None,
            running: None,
            freed: false,
        };
        done(self.async_init(mem, work))
    }

    /// `bpf_wq_set_callback_impl`
    pub fn wq_set_callback(
        &mut self,
        mem: &GuestMem,
        addr: u64,
        callback: Callback,
        flags: u32,
    ) -> Flow {
        if flags != 0 {
            return done(Err(Errno::EINVAL));
        }
        done(self.async_set_callback::<Work>(mem, addr, callback))
    }

    /// `bpf_wq_start`
    pub fn wq_start(&mut self, mem: &GuestMem, addr: u64, flags: u32) -> Flow {
        if self.cur.level == Level::Nmi {
            return done(Err(Errno::EOPNOTSUPP));
        }
        if flags != 0 {
            return done(Err(Errno::EINVAL));
        }
        let handle = self.works.in_slot(mem, addr);
        let Some(handle) =
            handle.filter(|&h| self.works.get(h).is_some_and(|w| w.callback.is_some()))
        else {
            return done(Err(Errno::EINVAL));
        };
        let (here, id) = (self.cur.cpu, self.cur.child());
        let Some(w) = self.works.get_mut(handle) else {
            return done(Err(Errno::EINVAL));
        };
        if w.pending.is_some() {
            return done(Ok(0));
        }
        let cpu = w.running.unwrap_or(here);
        w.pending = Some((cpu, id));
        let slot = w.slot;
        let now = self.cpu().clock;
        let queue = &mut self.cpus[cpu.at()];
        queue.clock = queue.clock.max(if queue.work.is_empty() { now } else { 0 });
        queue.work.push_back(handle);
        self.touch_cpu(cpu);
        self.armed(mem, AsyncKind::Wq, slot.map, slot.value, now);
        Flow::Yield(0)
    }

    /// `bpf_wq_cancel_and_free`: never waits.
    pub fn wq_free(&mut self, mem: &mut GuestMem, addr: u64) {
        let Some(handle) = self.works.in_slot(mem, addr) else {
            return;
        };
        put_in_slot(mem, addr, None);
        let Some(w) = self.works.get_mut(handle) else {
            return;
        };
        self.refs.drop_callback(w.callback.take());
        w.freed = true;
        let (slot, pending, running) = (w.slot, w.pending.take(), w.running);
        if let Some((cpu, _)) = pending {
            self.cpus[cpu.at()].work.retain(|&h| h != handle);
            self.touch_cpu(cpu);
            self.disarmed(mem, AsyncKind::Wq, slot.map, slot.value);
        }
        if running.is_none() {
            self.works.remove(handle);
        }
    }

    /// Takes the first item off a CPU's queue.
    pub fn wq_begin(&mut self, cpu: Cpu) -> Option<Begun> {
        loop {
            let work = self.cpus[cpu.at()].work.pop_front()?;
            let Some(w) = self.works.get_mut(work) else {
                continue;
            };
            let pending = w.pending.take();
            let (Some(callback), Some((_, id))) = (w.callback, pending) else {
                continue;
            };
            w.running = Some(cpu);
            let slot = w.slot;
            self.touch_memory(slot.addr, 16, AccessKind::Rmw);
            return Some(Begun {
                work,
                callback,
                slot,
                id,
            });
        }
    }

    /// The callback returned.
    pub fn wq_ended(&mut self, handle: Handle) {
        let Some(w) = self.works.get_mut(handle) else {
            return;
        };
        w.running = None;
        let (addr, freed) = (w.slot.addr, w.freed);
        self.touch_memory(addr, 16, AccessKind::Rmw);
        if freed {
            self.works.remove(handle);
        }
    }
}
