//! `bpf_task_work`: SEMANTICS 3.1 to 3.11.

use super::{Callback, Handle, Slot, Slotted, put_in_slot};
use crate::ids::{CtxId, TaskId};
use crate::state::State;
use crate::trace::AsyncKind;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// `struct bpf_task_work_ctx`. PENDING and SCHEDULING are never seen: with interrupts on, the
/// hop through irq_work ends before the kfunc returns.
pub(crate) struct TaskWork {
    slot: Slot,
    state: WorkState,
    freed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkState {
    Standby,
    Scheduled {
        task: TaskId,
        callback: Callback,
        id: CtxId,
    },
    Running,
}

impl Slotted for TaskWork {
    fn slot(&self) -> &Slot {
        &self.slot
    }
}

/// Task work whose callback is about to run.
pub(crate) struct Begun {
    pub callback: Callback,
    pub slot: Slot,
    pub id: CtxId,
}

fn done(result: Result<u64, Errno>) -> Flow {
    Flow::Done(crate::helper::ret(result))
}

impl State {
    /// `bpf_task_work_schedule_signal_impl` and `..._resume_impl`.
    pub fn task_work_schedule(
        &mut self,
        mem: &mut GuestMem,
        task: TaskId,
        slot: Slot,
        callback: Callback,
    ) -> Flow {
        let handle = match self.task_works.in_slot(mem, slot.addr) {
            Some(handle) => handle,
            None => {
                let new = TaskWork {
                    slot,
                    state: WorkState::Standby,
                    freed: false,
                };
                let handle = self.task_works.insert(new);
                if put_in_slot(mem, slot.addr, Some(handle)).is_none() {
                    self.task_works.remove(handle);
                    return done(Err(Errno::ENOMEM));
                }
                handle
            }
        };
        let Some(work) = self.task_works.get_mut(handle) else {
            return done(Err(Errno::EBUSY));
        };
        if work.state != WorkState::Standby {
            return done(Err(Errno::EBUSY));
        }
        if self.maps[slot.map.at()].uref == 0 {
            self.task_work_free(mem, slot.addr);
            return done(Err(Errno::EBUSY));
        }
        let id = self.cur.child();
        work.state = WorkState::Scheduled { task, callback, id };
        self.tasks[task.at()].work.push(handle);
        let now = self.cpu().clock;
        self.armed(mem, AsyncKind::TaskWork, slot.map, slot.value, now);
        Flow::Yield(0)
    }

    /// `bpf_task_work_cancel_and_free`: never waits.
    pub fn task_work_free(&mut self, mem: &mut GuestMem, addr: u64) {
        let Some(handle) = self.task_works.in_slot(mem, addr) else {
            return;
        };
        put_in_slot(mem, addr, None);
        let Some(work) = self.task_works.get_mut(handle) else {
            return;
        };
        work.freed = true;
        let slot = work.slot;
        match work.state {
            WorkState::Running => return,
            WorkState::Standby => {}
            WorkState::Scheduled { task, .. } => {
                self.tasks[task.at()].work.retain(|&h| h != handle);
                self.disarmed(mem, AsyncKind::TaskWork, slot.map, slot.value);
            }
        }
        self.task_works.remove(handle);
    }

    /// The work is about to run, in its task.
    pub fn task_work_begin(&mut self, handle: Handle) -> Option<Begun> {
        let work = self.task_works.get_mut(handle)?;
        let WorkState::Scheduled { callback, id, .. } = work.state else {
            return None;
        };
        work.state = WorkState::Running;
        Some(Begun {
            callback,
            slot: work.slot,
            id,
        })
    }

    /// The callback returned.
    pub fn task_work_ended(&mut self, handle: Handle) {
        let Some(work) = self.task_works.get_mut(handle) else {
            return;
        };
        work.state = WorkState::Standby;
        if work.freed {
            self.task_works.remove(handle);
        }
    }
}
