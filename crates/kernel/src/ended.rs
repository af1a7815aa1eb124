//! Making things end: what an execution leaves, gives back and hands on when it returns.

use crate::exec::async_kind;
use crate::failure::{Failure, FailureKind, LeftOver};
use crate::helper::hook_retval;
use crate::ids::Cpu;
use crate::kernel::Kernel;
use crate::prog::{ProgCtx, ProgramOutput};
use crate::race::NO_LANE;
use crate::run::{Between, Phase, Run, Running, returns_at_once};
use crate::shared::Shared;
use crate::state::{Cur, Softirq};
use crate::syscall::{SysOp, SysResult};
use crate::trace::What;
use std::rc::Rc;

/// Ended runs whose memory is kept.
const MOST_SPARE: usize = 16;

impl Kernel {
    /// The current execution ends.
    pub(crate) fn end_lane(&mut self) {
        let cur = &self.st.cur;
        let races = &mut self.st.watch.findings;
        if cur.slot != 0 {
            races.release(cur.lane, cur.slot);
        }
        races.end(cur.lane, cur.task);
    }

    /// A run returned `r0`. `self.st.cur` is still its own.
    pub(crate) fn ended(
        &mut self,
        cpu: Cpu,
        index: usize,
        mut run: Shared<Run>,
        r0: u64,
    ) -> Result<(), Failure> {
        self.cpus[cpu.at()].stack.pop();
        self.free_runs.push(index);
        self.free_stacks.push(run.stack);
        if let Running::Hook(fire) = &run.what {
            // What the hook itself held off.
            self.st.cur.preempt_off -= fire.holds_preemption_off();
        }
        if let Running::Scx(m) = &run.what {
            self.st.cur.irq_off -= m.held_off();
        }
        if let Some(what) = left_over(&self.st.cur) {
            return Err(self.failure(FailureKind::LeftOver(what), Some(run.act.pc)));
        }
        if self.st.cur.lane != NO_LANE {
            self.end_lane();
        }
        let return_value = r0 as u32;
        let meta = &self.st.progs[self.st.cur.prog.at()];
        match &run.what {
            Running::Program(_) | Running::Hook(_) | Running::Iter(_) | Running::Scx(_) => {
                let name = meta.name.clone();
                self.st.event(What::ProgramEnd { name, return_value });
            }
            what => {
                let (kind, element) = async_kind(what);
                let name = meta.function(run.act.pc.saturating_sub(1)).clone();
                self.st.event(What::CallbackEnd {
                    kind,
                    name,
                    element,
                    return_value,
                });
            }
        }
        std::mem::swap(&mut self.st.cur, &mut run.cur);
        let result = match &run.what {
            Running::Timer(timer, _) => {
                self.st.timer_ended(cpu, *timer);
                self.next_timer(cpu)
            }
            Running::Work(work, _) => {
                self.st.wq_ended(*work);
                Ok(())
            }
            Running::TaskWork(work, _) => {
                self.st.task_work_ended(*work);
                Ok(())
            }
            Running::Program(r1) => {
                let r1 = *r1;
                self.program_ended(cpu, &mut run, r1, return_value)
            }
            Running::Hook(_) => self.hooked_ended(cpu, &mut run, return_value),
            Running::Scx(_) => self.scx_ended(cpu, &mut run, return_value),
            Running::Iter(_) => self.iter_ended(cpu, &mut run, return_value),
            Running::Syscall => Ok(()),
        };
        self.spare(run);
        self.st.free_gone_maps(&mut self.mem);
        result
    }

    /// Its memory is for later runs, if nobody goes back to it.
    pub(crate) fn spare(&mut self, mut run: Shared<Run>) {
        if self.spare_runs.len() < MOST_SPARE && run.own().is_some() {
            self.spare_runs.push(run);
        }
    }

    /// The results are going to be others: their memory is for later ones, as that of runs.
    pub(crate) fn spare_results(&mut self) {
        let results = self.results.own().into_iter().flatten();
        for result in results.filter_map(|r| r.take_if(|r| r.own().is_some())) {
            if self.spare_results.len() < MOST_SPARE {
                self.spare_results.push(result);
            }
        }
    }

    /// One run of a system call's program is over: soft interrupts are let in, then it runs again
    /// or returns.
    fn program_ended(
        &mut self,
        cpu: Cpu,
        run: &mut Run,
        r1: u64,
        return_value: u32,
    ) -> Result<(), Failure> {
        let Some(s) = &mut self.cpus[cpu.at()].thread.syscall else {
            return Ok(());
        };
        s.left -= 1;
        let (again, call) = (s.left > 0, Rc::clone(&s.call));
        let storage = match again {
            true => std::mem::take(&mut run.cur.storage),
            false => Default::default(),
        };
        self.drop_kept(run);
        if !run.cur.seq.is_empty() {
            self.st.seq_out.extend_from_slice(&run.cur.seq);
        }
        let meta = &self.st.progs[run.cur.prog.at()];
        // Of some that is in their context.
        let retval = hook_retval(meta, &run.cur, return_value);
        let mut ctx = match run.cur.own() {
            Some(cur) => std::mem::replace(&mut cur.ctx, ProgCtx::Memory),
            // A copy where somebody goes back to the run.
            None => run.cur.ctx.clone(),
        };
        if let ProgCtx::Fields(fields) = &mut ctx {
            self.note_redirect(fields, return_value);
        }
        let (phase, between, out) = match &call.op {
            _ if again => {
                let between = Box::new(Between { r1, ctx, storage });
                (Phase::Enter, Some(between), None)
            }
            SysOp::TestRun { prog, input } => {
                let returned = (return_value, retval);
                let out = self.finish_ctx(*prog, input, r1, ctx, run, returned);
                (Phase::Return, None, Some(out))
            }
            _ => (Phase::Running, None, None),
        };
        if let Some(s) = &mut self.cpus[cpu.at()].thread.syscall {
            (s.phase, s.between, s.out) = (phase, between, out);
        }
        if call.bh_off {
            self.let_bottom_halves_in(cpu)?;
        }
        if returns_at_once(&self.st, cpu, &self.cpus[cpu.at()], self.window.job) {
            self.leave_kernel(cpu, call.task);
        }
        Ok(())
    }

    /// What helpers made for a program as long as it runs is given back.
    #[inline]
    pub(crate) fn drop_kept(&mut self, run: &Run) {
        for (_, at) in run.cur.storage.iter() {
            self.st.obj_drop(&mut self.mem, *at);
        }
        if run.cur.kern_ctx != 0 {
            self.st.obj_drop(&mut self.mem, run.cur.kern_ctx);
        }
    }

    /// Bottom halves are on again: timers that are due expire at once.
    pub(crate) fn let_bottom_halves_in(&mut self, cpu: Cpu) -> Result<(), Failure> {
        let state = &mut self.st.cpus[cpu.at()];
        let now = state.clock;
        if self.st.timer_next(cpu).is_none_or(|due| due > now) {
            return Ok(());
        }
        self.st.cpus[cpu.at()].softirq = Some(Softirq { now, passes: 1 });
        self.next_timer(cpu)
    }
}

/// What a program left, of which nothing is known yet, in memory of an older result.
pub(crate) fn new_output(spare: &mut Vec<Shared<SysResult>>) -> Shared<SysResult> {
    if let Some(mut spare) = spare.pop()
        && let Some(SysResult::Output(old)) = spare.own()
    {
        old.clear();
        return spare;
    }
    Shared::new(SysResult::Output(ProgramOutput::default()))
}

/// What an execution that returns must not have any more.
pub(crate) fn left_over(cur: &Cur) -> Option<LeftOver> {
    if let Some(lock) = cur.held.iter().find(|h| h.is_lock()) {
        return Some(LeftOver::SpinLock(lock.addr));
    }
    if cur.irq_off > 0 {
        return Some(LeftOver::IrqsOff);
    }
    if cur.preempt_off > 0 {
        return Some(LeftOver::PreemptionOff);
    }
    cur.held.first().map(|h| LeftOver::Reference {
        from: h.from,
        addr: h.addr,
    })
}
