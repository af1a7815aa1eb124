//! `bpf_task_work`: SEMANTICS 3.1 to 3.11.

use super::{Callback, Handle, Slot, Slotted, put_in_slot};
use crate::ids::{Cpu, CtxId, ProgId, TaskId};
use crate::state::State;
use crate::task::TaskState;
use crate::trace::AsyncKind;
use bpfsim_abi::Errno;
use bpfsim_vm::{AccessKind, Flow, GuestMem};

/// `struct bpf_task_work_ctx`. SCHEDULING is never seen: the hop through irq_work is one step.
#[derive(Clone, Copy)]
pub(crate) struct TaskWork {
    slot: Slot,
    state: WorkState,
    freed: bool,
}

/// What was scheduled.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Scheduled {
    task: TaskId,
    callback: Callback,
    id: CtxId,
    /// It interrupts a sleep (`TWA_SIGNAL`).
    signal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkState {
    Standby,
    /// The hop waits for interrupts, on this CPU.
    Pending(Scheduled, Cpu),
    Scheduled(Scheduled),
    Running(ProgId, TaskId),
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
        signal: bool,
    ) -> Flow {
        if !self.refs.get_prog(callback.prog) {
            return done(Err(Errno::EBADF));
        }
        if self.tasks[task.at()].state == TaskState::Reaped {
            self.refs.put_prog(callback.prog);
            return done(Err(Errno::EBADF));
        }
        match self.task_work_take(mem, slot) {
            Ok(handle) => {
                self.tasks[task.at()].refs += 1;
                let id = self.cur.child();
                let what = Scheduled {
                    task,
                    callback,
                    id,
                    signal,
                };
                let cpu = self.cur.cpu;
                if let Some(work) = self.task_works.get_mut(handle) {
                    work.state = WorkState::Pending(what, cpu);
                }
                let now = self.cpu().clock;
                self.armed(mem, AsyncKind::TaskWork, slot.map, slot.value, now);
                if self.irqs_off() {
                    self.cpus[cpu.at()].irq_work.push_back(handle);
                } else {
                    self.task_work_hop(handle);
                }
                Flow::Yield(0)
            }
            Err(errno) => {
                self.refs.put_prog(callback.prog);
                done(Err(errno))
            }
        }
    }

    /// A slot's context, if nothing is scheduled in it; the first use makes it.
    fn task_work_take(&mut self, mem: &mut GuestMem, slot: Slot) -> Result<Handle, Errno> {
        let handle = match self.task_works.in_slot(mem, slot.addr) {
            Some(handle) => handle,
            None if self.fails() => return Err(Errno::ENOMEM),
            None => {
                let new = TaskWork {
                    slot,
                    state: WorkState::Standby,
                    freed: false,
                };
                let handle = self.task_works.insert(new);
                if put_in_slot(mem, slot.addr, Some(handle)).is_none() {
                    self.task_works.remove(handle);
                    return Err(Errno::ENOMEM);
                }
                handle
            }
        };
        let free = |w: &TaskWork| w.state == WorkState::Standby;
        if !self.task_works.get(handle).is_some_and(free) {
            return Err(Errno::EBUSY);
        }
        if self.maps[slot.map.at()].uref == 0 {
            self.task_work_free(mem, slot.addr);
            return Err(Errno::EBUSY);
        }
        Ok(handle)
    }

    /// `bpf_task_work_irq`: hands the work to its task, unless that is past its exit.
    pub fn task_work_hop(&mut self, handle: Handle) {
        let state = self.task_works.get(handle).map(|work| work.state);
        let Some(WorkState::Pending(what, _)) = state else {
            return;
        };
        // Whether it is there yet is its CPU's to say.
        self.touch_cpu(self.tasks[what.task.at()].cpu);
        let Some(work) = self.task_works.get_mut(handle) else {
            return;
        };
        let state = self.tasks[what.task.at()].state;
        if matches!(state, TaskState::Dead | TaskState::Reaped) {
            work.state = WorkState::Standby;
            self.put_refs(what.callback.prog, what.task);
            return;
        }
        work.state = WorkState::Scheduled(what);
        self.task_add_work(what.task, handle);
        self.tasks[what.task.at()].notify |= what.signal;
    }

    fn put_refs(&mut self, prog: ProgId, task: TaskId) {
        self.refs.put_prog(prog);
        self.task_release(task);
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
        let dropped = match work.state {
            WorkState::Running(..) => return,
            WorkState::Standby => None,
            WorkState::Pending(what, cpu) => {
                self.cpus[cpu.at()].irq_work.retain(|&h| h != handle);
                Some(what)
            }
            WorkState::Scheduled(what) => {
                self.touch_cpu(self.tasks[what.task.at()].cpu);
                self.task_cancel_work(what.task, handle);
                Some(what)
            }
        };
        if let Some(what) = dropped {
            self.put_refs(what.callback.prog, what.task);
            self.disarmed(mem, AsyncKind::TaskWork, slot.map, slot.value);
        }
        self.task_works.remove(handle);
    }

    /// The work is about to run, in its task.
    pub fn task_work_begin(&mut self, handle: Handle) -> Option<Begun> {
        let work = self.task_works.get_mut(handle)?;
        let WorkState::Scheduled(what) = work.state else {
            return None;
        };
        work.state = WorkState::Running(what.callback.prog, what.task);
        let slot = work.slot;
        self.touch_memory(slot.addr, 8, AccessKind::Rmw);
        Some(Begun {
            callback: what.callback,
            slot,
            id: what.id,
        })
    }

    /// The callback returned.
    pub fn task_work_ended(&mut self, handle: Handle) {
        let Some(work) = self.task_works.get_mut(handle) else {
            return;
        };
        let state = std::mem::replace(&mut work.state, WorkState::Standby);
        let (addr, freed) = (work.slot.addr, work.freed);
        self.touch_memory(addr, 8, AccessKind::Rmw);
        if freed {
            self.task_works.remove(handle);
        }
        if let WorkState::Running(prog, task) = state {
            self.put_refs(prog, task);
        }
    }
}
