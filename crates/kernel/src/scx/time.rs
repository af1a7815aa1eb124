//! What comes by itself: CPUs that were kicked or are to schedule, ticks, the watchdog, a scheduler that
//! is to go.

use super::{On, Rq, Scx, ScxOp, Stage};
use crate::ids::{Cpu, TaskId};
use crate::kernel::Kernel;
use bpfsim_vm::GuestMem;

impl Kernel {
    /// CPUs that were kicked or told to schedule do, and a scheduler that is to go goes.
    pub(crate) fn scx_attend(&mut self) {
        let Some(scx) = &self.st.scx else {
            return;
        };
        let idle = scx.kicks.is_empty()
            && scx.exit.is_none()
            && !scx.rqs.iter().any(|r| r.need_resched && !r.scheduled);
        if idle || scx.stage == Stage::Disabled {
            return;
        }
        self.scx_kick();
        for cpu in 0..self.cpus.len() {
            let Some(scx) = &mut self.st.scx else {
                return;
            };
            let rq = &mut scx.rqs[cpu];
            if rq.need_resched && !rq.scheduled {
                rq.scheduled = true;
                let task = self.swapper(Cpu(cpu as u32));
                self.enqueue_quietly(task, crate::syscall::SysOp::Scx(ScxOp::Schedule));
            }
        }
        let Some(scx) = &mut self.st.scx else {
            return;
        };
        if scx.exit.is_some() && scx.stage == Stage::Enabled && !scx.disables {
            scx.disables = true;
            let task = scx.doers.first().copied().unwrap_or(TaskId(0));
            self.enqueue_quietly(task, crate::syscall::SysOp::Scx(ScxOp::Disable));
        }
    }

    /// `kick_cpus_irq_workfn`, of CPUs that have interrupts on.
    fn scx_kick(&mut self) {
        let Some(scx) = &mut self.st.scx else {
            return;
        };
        if scx.kicks.is_empty() {
            return;
        }
        let masked = |cpu: Cpu| {
            let mut stack = self.cpus[cpu.at()].stack.iter();
            stack.any(|&i| self.runs[i].as_ref().is_some_and(|r| r.cur.irq_off > 0))
        };
        for (from, to, flags) in scx.kicks.take() {
            if masked(from) || scx.rqs[to.at()].locked {
                scx.kicks.add(from, to, flags);
                continue;
            }
            scx.kicked(&mut self.mem, to.0, flags);
        }
    }

    /// How far time may pass before the next tick of a CPU that executes a task of the scheduler's,
    /// or before the watchdog looks.
    pub(crate) fn scx_bound(&self, until: u64) -> u64 {
        let Some(scx) = self.st.scx.as_ref().filter(|s| s.stage == Stage::Enabled) else {
            return until;
        };
        let ticks = |r: &&Rq| r.retries || matches!(r.on, On::Task(_));
        let busy = scx.rqs.iter().filter(ticks);
        let ticks = busy.map(|r| r.tick_at).min().unwrap_or(u64::MAX);
        until.min(ticks).min(scx.watch_at)
    }

    /// Ticks come that are due, and the watchdog looks. True when something is to be done.
    pub(crate) fn scx_time(&mut self, now: u64) -> bool {
        let Some(scx) = &mut self.st.scx else {
            return false;
        };
        if scx.stage != Stage::Enabled {
            return false;
        }
        let mut due = Vec::new();
        let Scx { rqs, doers, .. } = &mut **scx;
        for (rq, doer) in rqs.iter_mut().zip(doers.iter()) {
            let executes = matches!(rq.on, On::Task(_));
            if (executes || rq.retries) && rq.tick_at <= now {
                rq.tick_at = now + super::pick::TICK;
                rq.need_resched |= rq.retries;
                due.extend(executes.then_some(*doer));
            }
        }
        if scx.watch_at <= now {
            scx.watch_at = now + scx.ops.timeout / 2;
        }
        let stalled = scx.exit.is_none() && scx.look_for_stalls(now);
        let any = stalled || !due.is_empty() || scx.rqs.iter().any(|r| r.need_resched);
        for task in due {
            self.enqueue_quietly(task, crate::syscall::SysOp::Scx(ScxOp::Tick));
        }
        any
    }
}

impl Scx {
    /// `check_rq_for_timeouts`
    fn look_for_stalls(&mut self, now: u64) -> bool {
        let late =
            |e: &super::Entity| e.waits && now.saturating_sub(e.runnable_at) > self.ops.timeout;
        let found = self.tasks.values().find(|e| late(e));
        let Some(text) = found.map(|e| {
            let ms = (now - e.runnable_at) / 1_000_000;
            format!(
                "{} failed to run for {}.{:03}s",
                e.name,
                ms / 1000,
                ms % 1000
            )
        }) else {
            return false;
        };
        self.exits(super::ScxExitKind::ErrorStall, 0, text);
        true
    }

    /// `kick_one_cpu`, `kick_one_cpu_if_idle`
    fn kicked(&mut self, mem: &mut GuestMem, cpu: u32, flags: u64) {
        use super::consts::kick;
        let on = self.rqs[cpu as usize].on;
        match on {
            On::Idle => self.resched(cpu),
            _ if flags & kick::IDLE != 0 => {}
            On::Task(task) => {
                if flags & kick::PREEMPT != 0 {
                    self.set_slice(mem, task, 0);
                }
                self.resched(cpu);
            }
            On::Higher => {}
        }
    }
}
