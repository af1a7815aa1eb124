//! A task wakes up: a CPU is chosen for it, and it is enqueued there.

use super::consts::{Counter, dsq, enq, kf, ops};
use super::machine::{Act, Cx, Did, Told};
use super::{Custody, Direct, On, Q, TaskStage};
use crate::ids::TaskId;
use bpfsim_abi::Errno;

/// Flags that a wakeup on its way has and members do not see: a new task (`WF_FORK`).
const FORK: u64 = 4;

impl Cx<'_> {
    pub(super) fn waking(&mut self, act: Act) -> Did {
        match act {
            Act::Wake(task, flags) => self.wake(task, flags),
            Act::Select(task, flags) => return self.select(task, flags),
            Act::Selected(task, flags) => self.selected(task, flags),
            Act::Land(task, cpu, flags) => self.land(task, cpu, flags),
            Act::Activate(task, flags) => return self.activate(task, flags),
            Act::Enqueue(task, flags) => return self.enqueue(task, flags),
            Act::Enqueued(task) => self.enqueued(task),
            Act::Woken(cpu) => {
                if self.scx.rqs[cpu as usize].on == On::Idle {
                    self.scx.resched(cpu);
                }
                self.scx.run_deferred(self.mem, cpu);
            }
            _ => {
                let cpu = self.m.cpu;
                self.scx.run_deferred(self.mem, cpu);
            }
        }
        Did::Over
    }

    fn wake(&mut self, task: TaskId, flags: u64) {
        match self.scx.tasks.get(&task) {
            Some(e) if e.stage != TaskStage::Enabled => self.m.failed = Some(Errno::EINVAL),
            Some(e) if !e.runnable => {
                // `p->pi_lock`
                self.m.irqs_off = true;
                self.m.then([Act::Select(task, flags), Act::IrqsOn]);
            }
            // It is awake.
            _ => {}
        }
    }

    /// `select_task_rq`
    fn select(&mut self, task: TaskId, flags: u64) -> Did {
        let Some(e) = self.scx.tasks.get(&task) else {
            return Did::Over;
        };
        let (prev, allowed) = (e.cpu, e.allowed);
        let mut enqueues = if flags & FORK == 0 { enq::WAKEUP } else { 0 } | enq::NOCLOCK;
        if allowed.count_ones() == 1 {
            self.m
                .then([Act::Land(task, allowed.trailing_zeros(), enqueues)]);
            return Did::Over;
        }
        enqueues |= self.scx.layout.enq_cpu_selected;
        self.m.then([Act::Selected(task, enqueues)]);
        if self.scx.bypass || !self.scx.ops.has("select_cpu") {
            let here = self.m.cpu;
            let state = &mut self.cpus[here as usize];
            let found = self
                .scx
                .select_dfl(self.mem, here, state, task, prev, flags, None);
            if found.is_ok() {
                self.scx.refill(self.mem, task);
                if let Some(e) = self.scx.tasks.get_mut(&task) {
                    e.direct = Some((dsq::LOCAL, 0));
                }
            }
            self.m.ret = found.unwrap_or(prev) as i32;
            return Did::Over;
        }
        self.scx.rqs[self.m.cpu as usize].direct = Direct::Task(task);
        let addr = self.scx.tasks[&task].addr;
        Did::Calls(Told {
            member: "select_cpu",
            args: [addr, prev.into(), flags],
            mask: kf::ENQUEUE | kf::SELECT_CPU,
            task: Some(task),
        })
    }

    fn selected(&mut self, task: TaskId, flags: u64) {
        self.scx.rqs[self.m.cpu as usize].direct = Direct::None;
        let Some(e) = self.scx.tasks.get(&task) else {
            return;
        };
        let (prev, allowed) = (e.cpu, e.allowed);
        let ret = self.m.ret;
        let chosen = match self.scx.cpu_valid(ret, "from ops.select_cpu()") {
            true => ret as u32,
            false => prev,
        };
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            e.selected = ret as u32;
        }
        let cpu = match allowed & 1 << chosen {
            0 => allowed.trailing_zeros(),
            _ => chosen,
        };
        if cpu as i32 != ret {
            self.scx.count(Counter::SelectCpuFallback);
        }
        self.m.then([Act::Land(task, cpu, flags)]);
    }

    fn land(&mut self, task: TaskId, cpu: u32, flags: u64) {
        self.scx.migrate(self.mem, task, cpu);
        self.m.then([
            Act::Lock(cpu),
            Act::Activate(task, flags),
            Act::Woken(cpu),
            Act::Unlock,
        ]);
    }

    /// `enqueue_task_scx`
    fn activate(&mut self, task: TaskId, flags: u64) -> Did {
        let now = self.now();
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            e.runnable = true;
            set_waiting(e, now);
        }
        self.scx.show(self.mem, task);
        self.m.then([Act::Enqueue(task, flags)]);
        Did::Calls(self.about("runnable", task, flags, kf::REST))
    }

    /// `do_enqueue_task`
    pub(super) fn enqueue(&mut self, task: TaskId, flags: u64) -> Did {
        let Some(e) = self.scx.tasks.get(&task) else {
            return Did::Over;
        };
        let (cpu, exiting) = (e.cpu, e.exiting);
        let restored = flags & enq::RESTORE != 0 && self.scx.curr(cpu) == Some(task);
        let q = if restored {
            self.scx.insert(self.mem, Q::Local(cpu), task, flags);
            return Did::Over;
        } else if self.scx.bypass {
            self.scx.count(Counter::BypassDispatch);
            Q::Bypass(cpu)
        } else if e.direct.is_some() {
            self.scx.dispatch_directly(self.mem, task, flags);
            return Did::Over;
        } else if exiting && self.scx.ops.flags & ops::ENQ_EXITING == 0 {
            self.scx.count(Counter::EnqSkipExiting);
            Q::Local(cpu)
        } else if !self.scx.ops.has("enqueue") {
            Q::Global
        } else {
            let rq = &mut self.scx.rqs[cpu as usize];
            let qseq = rq.qseq;
            rq.qseq += 1;
            if let Some(e) = self.scx.tasks.get_mut(&task) {
                e.custody = Custody::Queueing(qseq);
            }
            self.scx.rqs[self.m.cpu as usize].direct = Direct::Task(task);
            (self.m.flags, self.m.enqueues) = (flags, Some(task));
            self.m.then([Act::Enqueued(task)]);
            return Did::Calls(self.about("enqueue", task, flags, kf::ENQUEUE));
        };
        self.scx.refill(self.mem, task);
        self.scx.insert(self.mem, q, task, flags);
        Did::Over
    }

    fn enqueued(&mut self, task: TaskId) {
        self.scx.rqs[self.m.cpu as usize].direct = Direct::None;
        let flags = self.m.flags;
        self.m.enqueues = None;
        let Some(e) = self.scx.tasks.get_mut(&task) else {
            return;
        };
        if e.direct.is_some() {
            return self.scx.dispatch_directly(self.mem, task, flags);
        }
        if let Custody::Queueing(qseq) = e.custody {
            e.custody = Custody::Queued(qseq);
        }
    }
}

/// `set_task_runnable`
pub(super) fn set_waiting(e: &mut super::Entity, now: u64) {
    e.waits = true;
    if std::mem::take(&mut e.reset_runnable_at) {
        e.runnable_at = now;
    }
}
