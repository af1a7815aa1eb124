//! Programs of system calls that end, and tasks that return to user mode, without the engine being left.
//!
//! This is what [`Kernel::ended`](crate::kernel::Kernel) and what follows it do, where there is nothing
//! to do but the usual: a run of `BPF_PROG_TEST_RUN` without a context of its own, a task without task
//! work. Anything else is left to them.

use crate::choose::{Next, Starts};
use crate::ended::{left_over, new_output};
use crate::helper::hook_retval;
use crate::kernel::Kernel;
use crate::prog::ProgCtx;
use crate::race::NO_LANE;
use crate::run::{CpuRuns, Phase, Running, What as Do};
use crate::shared::Shared;
use crate::state::{Cur, State};
use crate::syscall::{SysOp, SysResult};
use crate::task::TaskState;
use crate::testrun::Buffers;
use crate::trace::What;
use crate::turn::{SEATS, Turns};
use crate::view::View;
use bpfsim_vm::{Activation, GuestMem, Other, Turn};
use smallvec::SmallVec;

/// What the kernel lends for it.
pub(crate) struct Ends<'a> {
    pub cpus: &'a mut [Shared<CpuRuns>],
    pub results: &'a mut Shared<Vec<Option<Shared<SysResult>>>>,
    pub spare_results: &'a mut Vec<Shared<SysResult>>,
    pub free_runs: &'a mut Vec<usize>,
    pub free_stacks: &'a mut Vec<u32>,
    pub buffers: &'a mut Buffers,
    pub ended: Ended,
}

/// Runs that ended, which the engine may still have.
pub(crate) type Ended = SmallVec<[usize; SEATS]>;

/// What is in a run's context is all in guest memory, and nothing was made for it that is to be given back.
fn is_plain(cur: &Cur) -> bool {
    matches!(cur.ctx, ProgCtx::Memory)
        && cur.slot == 0
        && cur.kern_ctx == 0
        && cur.storage.is_empty()
        && cur.seq.is_empty()
        && left_over(cur).is_none()
}

impl Turns<'_, '_> {
    /// What executed last has ended.
    pub fn is_over(&self) -> bool {
        self.seats.get(self.mine).is_some_and(Option::is_none)
    }

    /// The program that executes may end here. Says whether its last step called something, so that others
    /// may begin or end to wait.
    #[inline(always)]
    fn ends_here(&self, st: &State, mem: &GuestMem) -> Option<bool> {
        let (offer, cpu) = (&*self.offer, &self.ends.cpus[self.mine]);
        let s = cpu.thread.syscall.as_ref()?;
        let input = match &s.op {
            SysOp::TestRun { input, .. } => input,
            _ => return None,
        };
        let called = match offer.choices[offer.picked].next {
            Next::Access(_) | Next::Start(Starts::Program) => false,
            Next::Call { .. } => true,
            _ => return None,
        };
        let ends = s.left == 1
            && input.ctx.is_empty()
            && cpu.stack.len() == 1
            && cpu.parked.is_empty()
            && is_plain(&st.cur)
            && st.cpus.iter().all(|cpu| cpu.is_free())
            && !st.refs.has_gone_maps()
            && (offer.waiting.is_empty() || self.all)
            && offer.is_lone()
            && !(called && !self.all && offer.changes(mem));
        ends.then_some(called)
    }

    /// A task may return to user mode here.
    #[inline(always)]
    fn returns_here(&self, st: &State, cpu: usize) -> bool {
        let runs = &self.ends.cpus[cpu];
        let Some(s) = &runs.thread.syscall else {
            return false;
        };
        let task = &st.tasks[s.task.at()];
        let is_idle = runs.stack.is_empty() && runs.parked.is_empty() && runs.queue.is_empty();
        let has_work = !runs.thread.sweep.is_empty() || !task.work.is_empty() || task.notify;
        s.phase == Phase::Return
            && is_idle
            && !has_work
            && st.tasks_with_work == 0
            && task.state == TaskState::Running
            && !task.user_code
            && self.window.job != Some(s.job)
            && self.offer.waiting.is_empty()
            && st.cpus[cpu].work.is_empty()
            && !st.records
    }

    /// A step is over that was none of an execution that goes on: what comes next is picked. False where
    /// the engine is to stop.
    #[inline(always)]
    fn pick_again(&mut self, st: &mut State) -> bool {
        let offer = &mut *self.offer;
        offer.stays = false;
        let choices = offer.choices.len();
        if choices == 0 {
            (offer.told, offer.again) = (true, true);
            return false;
        }
        offer.pick(self.chooser, self.window);
        if choices > 1 {
            if offer.stops(self.stops, self.chooser) {
                (offer.chosen, offer.kept) = (true, true);
                return false;
            }
            offer.asked += usize::from(self.stops);
            st.trace.pick(offer.picked);
        }
        true
    }
}

impl View<'_, '_> {
    /// A program returned `r0`: it ends, and what comes next does, if that can be without leaving the
    /// engine.
    #[inline(never)]
    pub fn end_in_turn(
        &mut self,
        r0: u64,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        let clock = self.base + act.insns;
        let Some(turns) = &mut self.turns else {
            return Turn::Nobody;
        };
        let (st, mine) = (&mut *self.st, turns.mine);
        let what = turns.seats.get(mine).and_then(Option::as_ref);
        let Some(&Running::Program(r1)) = what.map(|seat| seat.what) else {
            return Turn::Nobody;
        };
        let is_quiet = !st.records && st.watch.findings.fatal().is_none();
        let Some(called) = turns.ends_here(st, mem).filter(|_| is_quiet) else {
            return Turn::Nobody;
        };
        if self.loud && !turns.offer.stays_offered(st, mem) {
            return Turn::Nobody;
        }
        self.loud = false;
        let Some(seat) = turns.seats.get_mut(mine).and_then(Option::take) else {
            return Turn::Nobody;
        };
        let (offer, ends) = (&mut *turns.offer, &mut turns.ends);
        st.cpus[mine].clock = clock;
        st.trace_done(&offer.choices[offer.picked].next, mem);
        let runs = &mut *ends.cpus[mine];
        runs.stack.pop();
        ends.free_runs.push(seat.index);
        ends.free_stacks.push(seat.stack);
        ends.ended.push(seat.index);
        if st.cur.lane != NO_LANE {
            st.watch.findings.end(st.cur.lane, st.cur.task);
        }
        let meta = &st.progs[st.cur.prog.at()];
        let return_value = r0 as u32;
        let retval = hook_retval(meta, &st.cur, return_value);
        let name = meta.name.clone();
        st.event(What::ProgramEnd { name, return_value });
        std::mem::swap(&mut st.cur, seat.cur);
        let mut out = new_output(ends.spare_results);
        if let Some(SysResult::Output(out)) = out.own() {
            (out.return_value, out.retval, out.insns) = (return_value, retval, act.insns);
        }
        ends.buffers.give_ctx(r1, 0);
        offer.tell(turns.chooser, turns.window, &st.touched, true);
        if let Some(s) = &mut runs.thread.syscall {
            (s.left, s.phase, s.out) = (0, Phase::Return, Some(out));
            let choice = &mut offer.choices[offer.picked];
            choice.next = Next::Start(Starts::TaskWork);
            (choice.id, choice.at) = (s.id, clock);
            offer.what[offer.picked].1 = Do::Syscall;
        }
        if called && turns.all {
            turns.sort(st, mem);
        }
        match turns.pick_again(st) {
            true => self.turn_past_returns(act, mem, other),
            false => Turn::Nobody,
        }
    }

    /// What was picked is none of the executions that the engine has, or what executed has ended: tasks
    /// that are to return to user mode do so, until something else is picked.
    #[inline(never)]
    pub fn turn_past_returns(
        &mut self,
        act: &Activation,
        mem: &GuestMem,
        other: &mut Other,
    ) -> Turn {
        while let Some(turns) = &mut self.turns {
            let (st, picked) = (&mut *self.st, turns.offer.picked);
            let (cpu, what) = turns.offer.what[picked];
            match what {
                Do::Continue if cpu.at() == turns.mine => return self.turn_to_same(act, mem),
                Do::Continue => {
                    return self.turn_to_other(act, mem, other);
                }
                Do::Syscall if turns.returns_here(st, cpu.at()) => {}
                _ => {
                    turns.offer.chosen = true;
                    return Turn::Nobody;
                }
            }
            let thread = &mut turns.ends.cpus[cpu.at()].thread;
            thread.sweeping = None;
            if let Some(mut s) = thread.syscall.take() {
                turns.ends.results[s.job] = s.out.take();
            }
            turns
                .offer
                .tell(turns.chooser, turns.window, &st.touched, true);
            turns.offer.remove(picked);
            if !turns.pick_again(st) {
                return Turn::Nobody;
            }
        }
        Turn::Nobody
    }
}

impl Kernel {
    /// The memory of runs that ended while the engine had them is for later ones.
    #[inline]
    pub(crate) fn spare_ended(&mut self, ended: Ended) {
        for index in ended {
            if let Some(run) = self.runs[index].take() {
                self.spare(run);
            }
        }
    }
}
