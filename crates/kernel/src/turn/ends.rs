//! Programs of system calls that end without the engine being left.
//!
//! This is what [`Kernel::ended`](crate::kernel::Kernel) does, where there is nothing to do but the usual: a
//! run of `BPF_PROG_TEST_RUN` without a context of its own. Anything else is left to it.

use crate::choose::{Next, Starts};
use crate::ended::{left_over, new_output};
use crate::helper::hook_retval;
use crate::ids::Cpu;
use crate::kernel::Kernel;
use crate::prog::ProgCtx;
use crate::race::NO_LANE;
use crate::run::{CpuRuns, Phase, Running, What as Do, returns_at_once};
use crate::shared::Shared;
use crate::state::{Cur, State};
use crate::syscall::{SysOp, SysResult};
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
            && cpu.queue.is_empty()
            && is_plain(&st.cur)
            && st.cpus.iter().all(|cpu| cpu.is_free())
            && !st.refs.has_gone_maps()
            && (offer.waiting.is_empty() || self.all)
            && offer.is_lone()
            && !(called && !self.all && offer.changes(mem));
        ends.then_some(called)
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
        if returns_at_once(st, Cpu(mine as u32), runs, turns.window.job)
            && let Some(mut s) = runs.thread.syscall.take()
        {
            runs.thread.sweeping = None;
            ends.results[s.job] = s.out.take();
            offer.remove(offer.picked);
        }
        if called && turns.all {
            turns.sort(st, mem);
        }
        match turns.pick_again(st) {
            true => self.turn_from_ended(mem, other),
            false => Turn::Nobody,
        }
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
