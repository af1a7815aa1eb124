//! What is changed of tasks, queued or not, and how they go.

use super::consts::{deq, enq, kf};
use super::machine::{Act, Cx, Did};
use super::{Custody, On};
use crate::ids::TaskId;
use bpfsim_abi::Errno;

impl Cx<'_> {
    pub(super) fn changing(&mut self, act: Act) -> Did {
        match act {
            Act::Dequeue(task, flags) => return self.dequeue(task, flags),
            Act::Quiesce(task, flags) => self.quiesce(task, flags),
            Act::Dequeued(task) => {
                if let Some(e) = self.scx.tasks.get_mut(&task) {
                    e.runnable = false;
                }
                self.scx.remove(task);
                self.scx.show(self.mem, task);
            }
            Act::SetWeight(task, weight) => {
                self.change(task, [Act::Weigh(task, weight), Act::Restore(task)]);
            }
            Act::Weigh(task, weight) => {
                self.scx.set_weight(self.mem, task, weight);
                return Did::Calls(self.about("set_weight", task, weight.into(), kf::REST));
            }
            Act::SetCpus(task, mask) => {
                self.change(task, [Act::Allow(task, mask), Act::Move(task)]);
            }
            Act::Allow(task, mask) => {
                let all = self.scx.all();
                if let Some(e) = self.scx.tasks.get_mut(&task) {
                    e.allowed = mask & all;
                }
                self.scx.show(self.mem, task);
                let at = self.scx.mask_of(task);
                return Did::Calls(self.about("set_cpumask", task, at, kf::REST));
            }
            Act::Restore(task) if self.m.was.0 => {
                let flags = enq::RESTORE | enq::NOCLOCK;
                self.m.then([Act::Activate(task, flags), Act::Rerun(task)]);
            }
            Act::Rerun(task) => return self.rerun(task),
            Act::Leave(task) => self.leave(task),
            Act::Move(task) => self.move_away(task),
            Act::Dead(task) => self.m.then([Act::ExitTask(task)]),
            _ => {}
        }
        Did::Over
    }

    /// `dequeue_task_scx`
    fn dequeue(&mut self, task: TaskId, flags: u64) -> Did {
        let Some(e) = self.scx.tasks.get_mut(&task) else {
            return Did::Over;
        };
        let cpu = e.cpu;
        self.m.was = (e.runnable, false);
        if !e.runnable {
            return Did::Over;
        }
        e.waits = false;
        let queued = matches!(e.custody, Custody::Queued(_));
        self.m.was.1 = self.scx.curr(cpu) == Some(task);
        self.m.then([Act::Quiesce(task, flags)]);
        match queued {
            true => Did::Calls(self.about("dequeue", task, flags, kf::REST)),
            false => Did::Over,
        }
    }

    fn quiesce(&mut self, task: TaskId, flags: u64) {
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            e.custody = Custody::None;
        }
        self.m.then([
            Act::Tell(self.about("quiescent", task, flags, kf::REST)),
            Act::Dequeued(task),
        ]);
        if self.m.was.1 {
            self.update_curr();
            let stopping = self.about("stopping", task, 0, kf::REST);
            self.m.then([Act::Tell(stopping)]);
        }
    }

    /// `sched_change_begin` before what is changed.
    fn change(&mut self, task: TaskId, what: [Act; 2]) {
        let Some(e) = self.scx.tasks.get(&task) else {
            self.m.failed = Some(Errno::ESRCH);
            return;
        };
        let cpu = e.cpu;
        self.m.then([Act::Unlock, Act::IrqsOn]);
        self.m.then(what);
        self.m
            .then([Act::Lock(cpu), Act::Dequeue(task, deq::SAVE | deq::NOCLOCK)]);
    }

    /// It goes on running where it did.
    fn rerun(&mut self, task: TaskId) -> Did {
        if !self.m.was.1 {
            return Did::Over;
        }
        let now = self.now();
        self.scx.remove(task);
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            (e.exec_start, e.waits, e.reset_runnable_at) = (now, false, true);
        }
        Did::Calls(self.about("running", task, 0, kf::REST))
    }

    /// A task that may not run where it is any more is enqueued elsewhere.
    fn move_away(&mut self, task: TaskId) {
        let Some(e) = self.scx.tasks.get_mut(&task) else {
            return;
        };
        let (cpu, allowed) = (e.cpu, e.allowed);
        let (was, ran) = self.m.was;
        if allowed & 1 << cpu != 0 || !was {
            return self.m.then([Act::Restore(task)]);
        }
        let to = allowed.trailing_zeros();
        if ran {
            // The stopper has the CPU, and then it looks for something else.
            self.scx.rqs[cpu as usize].on = On::Higher;
            self.scx.resched(cpu);
        }
        self.m
            .then([Act::Unlock, Act::Land(task, to, enq::NOCLOCK)]);
    }

    /// It exits: the task that this CPU executes, or one that sleeps.
    fn leave(&mut self, task: TaskId) {
        let here = self.scx.curr(self.m.cpu) == Some(task);
        let Some(e) = self.scx.tasks.get_mut(&task) else {
            self.m.failed = Some(Errno::ESRCH);
            return;
        };
        if e.runnable && !here {
            self.m.failed = Some(Errno::EBUSY);
            return;
        }
        e.exiting = true;
        self.m.then([Act::Dead(task)]);
        if here {
            self.m.then([Act::Lock(self.m.cpu), Act::Block]);
        }
    }
}
