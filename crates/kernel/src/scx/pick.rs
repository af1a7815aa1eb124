//! A CPU comes to `schedule()`: what it executes goes, or stays, and what comes next is looked for.

use super::consts::{Counter, MAX_LOOPS, SLICE_INF, deq, enq, kf, ops};
use super::machine::{Act, Cx, Did, Told};
use super::wake::set_waiting;
use super::{On, Q};
use crate::ids::TaskId;
use bpfsim_abi::Errno;

/// Between two ticks (`HZ=250`), in ns.
pub(super) const TICK: u64 = 4_000_000;

impl Cx<'_> {
    pub(super) fn picking(&mut self, act: Act) -> Did {
        let cpu = self.m.cpu;
        match act {
            Act::Schedule => self.schedule(),
            Act::Block => self.block(),
            Act::Yield => return self.yields(),
            Act::Yielded => self.schedule(),
            Act::Tick => return self.tick(),
            Act::Ticked => {
                let curr = self.scx.curr(cpu);
                if curr.is_some_and(|t| self.scx.slice(self.mem, t) == 0) {
                    self.scx.resched(cpu);
                }
            }
            Act::Balance => self.balance(),
            Act::Dispatch => return self.dispatch(),
            Act::Dispatched => self.dispatched(),
            Act::NoTasks => self.no_tasks(),
            Act::Pick => self.pick(),
            Act::PutPrev(prev, next) => return self.put_prev(prev, next),
            Act::Stopped(task, next) => self.stopped(task, next),
            Act::SetNext(next) => return self.set_next(next),
            Act::Release => return self.release(),
            Act::Reenqueue => self.reenqueue(),
            Act::Switched(next) => self.switched(next),
            _ => {}
        }
        Did::Over
    }

    /// `update_curr_scx`
    pub(super) fn update_curr(&mut self) {
        let Some(locked) = self.m.locked else {
            return;
        };
        let Some(task) = self.scx.curr(locked) else {
            return;
        };
        let now = self.now().max(self.cpus[locked as usize].clock);
        let Some(e) = self.scx.tasks.get_mut(&task) else {
            return;
        };
        let ran = now.saturating_sub(e.exec_start);
        e.exec_start = now;
        let slice = self.scx.slice(self.mem, task);
        if slice != SLICE_INF {
            let left = slice.saturating_sub(ran);
            self.scx.set_slice(self.mem, task, left);
        }
    }

    fn runs_on(&self, task: Option<TaskId>) -> bool {
        task.is_some_and(|t| self.scx.tasks.get(&t).is_some_and(|e| e.runnable))
    }

    /// `__schedule`
    fn schedule(&mut self) {
        let cpu = self.m.cpu;
        let rq = &mut self.scx.rqs[cpu as usize];
        (rq.scheduled, rq.retries) = (false, false);
        let (on, higher) = (rq.on, rq.higher.is_some());
        match (on, higher) {
            (On::Idle | On::Higher, true) => self.m.then([Act::Pick]),
            _ => self.m.then([Act::Balance]),
        }
    }

    /// The task that is executed goes to sleep.
    fn block(&mut self) {
        let cpu = self.m.cpu;
        let Some(task) = self.scx.curr(cpu) else {
            self.m.failed = Some(Errno::ESRCH);
            return self.m.then([Act::Unlock, Act::IrqsOn]);
        };
        let flags = deq::SLEEP | deq::NOCLOCK;
        self.m.then([Act::Dequeue(task, flags), Act::Schedule]);
    }

    /// `yield_task_scx`
    fn yields(&mut self) -> Did {
        let cpu = self.m.cpu;
        let Some(task) = self.scx.curr(cpu) else {
            self.m.failed = Some(Errno::ESRCH);
            self.m.then([Act::Unlock, Act::IrqsOn]);
            return Did::Over;
        };
        self.update_curr();
        self.m.then([Act::Yielded]);
        if self.scx.ops.has("yield") {
            return Did::Calls(self.about("yield", task, 0, kf::REST));
        }
        self.scx.set_slice(self.mem, task, 0);
        Did::Over
    }

    /// `task_tick_scx`
    fn tick(&mut self) -> Did {
        let Some(task) = self.scx.curr(self.m.cpu) else {
            return Did::Over;
        };
        self.update_curr();
        if self.scx.bypass {
            self.scx.set_slice(self.mem, task, 0);
            return Did::Over;
        }
        Did::Calls(self.about("tick", task, 0, kf::REST))
    }

    /// `balance_one`, to the first call of `dispatch`.
    fn balance(&mut self) {
        let cpu = self.m.cpu;
        let prev = self.scx.curr(cpu);
        let preempts = self.scx.ops.has("cpu_acquire") || self.scx.ops.has("cpu_release");
        let rq = &mut self.scx.rqs[cpu as usize];
        (rq.in_balance, rq.keep) = (true, false);
        if preempts && std::mem::take(&mut rq.released) {
            let told = Told {
                member: "cpu_acquire",
                args: [cpu.into(), 0, 0],
                mask: kf::REST,
                task: None,
            };
            self.m.then([Act::Tell(told), Act::Balance]);
            return;
        }
        self.update_curr();
        let slice = prev.map_or(0, |t| self.scx.slice(self.mem, t));
        if self.runs_on(prev) && slice > 0 && !self.scx.bypass {
            self.scx.rqs[cpu as usize].keep = true;
            return self.m.then([Act::Pick]);
        }
        if self.scx.nr(Q::Local(cpu)) > 0 || self.scx.consume(self.mem, cpu, Q::Global) {
            return self.m.then([Act::Pick]);
        }
        if self.scx.bypass {
            let found = self.scx.consume(self.mem, cpu, Q::Bypass(cpu));
            return self.m.then([if found { Act::Pick } else { Act::NoTasks }]);
        }
        if !self.scx.ops.has("dispatch") {
            return self.m.then([Act::NoTasks]);
        }
        self.scx.rqs[cpu as usize].loops = MAX_LOOPS;
        self.m.then([Act::Dispatch]);
    }

    fn dispatch(&mut self) -> Did {
        let cpu = self.m.cpu;
        self.scx.rqs[cpu as usize].given = 0;
        let prev = self.scx.curr(cpu);
        let prev = prev.and_then(|t| self.scx.tasks.get(&t)).map(|e| e.addr);
        self.m.then([Act::Flush, Act::Dispatched]);
        Did::Calls(Told {
            member: "dispatch",
            args: [cpu.into(), prev.unwrap_or(0), 0],
            mask: kf::DISPATCH,
            task: None,
        })
    }

    fn dispatched(&mut self) {
        let cpu = self.m.cpu;
        let prev = self.scx.curr(cpu);
        let slice = prev.map_or(0, |t| self.scx.slice(self.mem, t));
        if self.runs_on(prev) && slice > 0 {
            self.scx.rqs[cpu as usize].keep = true;
            return self.m.then([Act::Pick]);
        }
        if self.scx.nr(Q::Local(cpu)) > 0 || self.scx.consume(self.mem, cpu, Q::Global) {
            return self.m.then([Act::Pick]);
        }
        let rq = &mut self.scx.rqs[cpu as usize];
        rq.loops -= 1;
        if rq.loops == 0 {
            // Linux kicks the CPU, which goes round until something has changed.
            let at = self.now() + TICK;
            let rq = &mut self.scx.rqs[cpu as usize];
            (rq.retries, rq.tick_at) = (true, at);
            return self.m.then([Act::NoTasks]);
        }
        let again = rq.given > 0;
        self.m
            .then([if again { Act::Dispatch } else { Act::NoTasks }]);
    }

    fn no_tasks(&mut self) {
        let cpu = self.m.cpu;
        let last = self.scx.ops.flags & ops::ENQ_LAST != 0;
        if self.runs_on(self.scx.curr(cpu)) && (!last || self.scx.bypass) {
            self.scx.rqs[cpu as usize].keep = true;
            self.scx.count(Counter::DispatchKeepLast);
        }
        self.m.then([Act::Pick]);
    }

    /// `pick_task_scx`, and whoever comes before or behind it.
    fn pick(&mut self) {
        let cpu = self.m.cpu;
        let rq = &mut self.scx.rqs[cpu as usize];
        rq.in_balance = false;
        let (prev, keep, higher) = (rq.on, rq.keep, rq.higher.is_some());
        let first = self.scx.dsqs.get(&Q::Local(cpu));
        let first = first.and_then(|d| d.tasks().next());
        let next = match (prev, first) {
            _ if higher => On::Higher,
            (On::Task(_), _) if keep => prev,
            (_, Some(task)) => On::Task(task),
            (_, None) => On::Idle,
        };
        if let On::Task(task) = next
            && self.scx.slice(self.mem, task) == 0
        {
            self.scx.refill(self.mem, task);
        }
        match (prev, next) {
            (On::Idle, On::Idle) => {
                if self.scx.tracks_idle() {
                    self.scx.set_idle(self.mem, cpu, true);
                }
                self.m.then([Act::Switched(next)]);
            }
            _ if prev == next => self.m.then([Act::Switched(next)]),
            _ => self.m.then([
                Act::PutPrev(prev, next),
                Act::SetNext(next),
                Act::Switched(next),
            ]),
        }
    }

    /// `scx_update_idle`, of a CPU that begins or ends to idle.
    fn update_idle(&mut self, idle: bool) -> Did {
        let cpu = self.m.cpu;
        if self.scx.tracks_idle() {
            self.scx.set_idle(self.mem, cpu, idle);
        }
        if self.scx.bypass {
            return Did::Over;
        }
        Did::Calls(Told {
            member: "update_idle",
            args: [cpu.into(), idle.into(), 0],
            mask: kf::REST,
            task: None,
        })
    }

    /// `put_prev_task`
    fn put_prev(&mut self, prev: On, next: On) -> Did {
        match prev {
            On::Idle => self.update_idle(false),
            On::Higher => Did::Over,
            On::Task(task) => {
                if next == On::Higher {
                    self.m.then([Act::Release]);
                }
                self.update_curr();
                if !self.runs_on(Some(task)) {
                    return Did::Over;
                }
                self.m.then([Act::Stopped(task, next)]);
                Did::Calls(self.about("stopping", task, 1, kf::REST))
            }
        }
    }

    fn stopped(&mut self, task: TaskId, next: On) {
        let now = self.now();
        let cpu = self.m.cpu;
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            set_waiting(e, now);
        }
        if self.scx.slice(self.mem, task) > 0 && !self.scx.bypass {
            let head = self.scx.layout.enq_head;
            return self.scx.insert(self.mem, Q::Local(cpu), task, head);
        }
        let flags = if next == On::Idle { enq::LAST } else { 0 };
        self.m.then([Act::Enqueue(task, flags)]);
    }

    /// `set_next_task`
    fn set_next(&mut self, next: On) -> Did {
        let On::Task(task) = next else {
            return match next {
                On::Idle => self.update_idle(true),
                _ => Did::Over,
            };
        };
        let now = self.now();
        self.scx.remove(task);
        self.scx.rqs[self.m.cpu as usize].tick_at = now + TICK;
        if let Some(e) = self.scx.tasks.get_mut(&task) {
            e.exec_start = now;
        }
        Did::Calls(self.about("running", task, 0, kf::REST))
    }

    /// `switch_class`, to a higher one.
    fn release(&mut self) -> Did {
        let cpu = self.m.cpu;
        let has = self.scx.ops.has("cpu_acquire") || self.scx.ops.has("cpu_release");
        let rq = &mut self.scx.rqs[cpu as usize];
        if !has || std::mem::replace(&mut rq.released, true) {
            return Did::Over;
        }
        let reason = rq.higher.unwrap_or(0);
        let at = self.scx.args[cpu as usize];
        let l = &self.scx.layout;
        self.mem.write_u32(at + l.release_reason, reason);
        if let Some(task) = l.release_task {
            self.mem.write_u64(at + task, 0);
        }
        self.m.then([Act::Reenqueue]);
        Did::Calls(Told {
            member: "cpu_release",
            args: [cpu.into(), at, 0],
            mask: kf::CPU_RELEASE,
            task: None,
        })
    }

    /// What `scx_bpf_reenqueue_local` took goes to `enqueue`.
    fn reenqueue(&mut self) {
        let cpu = self.m.cpu;
        let tasks = std::mem::take(&mut self.scx.rqs[cpu as usize].reenqueued);
        for task in tasks.into_iter().rev() {
            self.m.then([Act::Enqueue(task, enq::REENQ)]);
        }
    }

    fn switched(&mut self, next: On) {
        let cpu = self.m.cpu;
        let rq = &mut self.scx.rqs[cpu as usize];
        (rq.on, rq.need_resched) = (next, false);
        let mut addr = None;
        if let On::Task(task) = next
            && let Some(e) = self.scx.tasks.get_mut(&task)
        {
            (e.waits, e.reset_runnable_at) = (false, true);
            addr = Some(e.addr);
        }
        let idle = self.scx.idle_tasks.get(cpu as usize).copied();
        let addr = addr.or(idle).unwrap_or(0);
        self.scx.show_curr(self.mem, cpu, addr);
        self.m.then([Act::Deferred, Act::Unlock, Act::IrqsOn]);
    }
}
