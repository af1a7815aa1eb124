//! Open-coded iterators on the stack: made, asked for the next, destroyed.

use super::Spi;
use crate::refusal::{quiet, reject};
use crate::reg::{ITER_ACTIVE, ITER_DRAINED, Reg, ty};
use crate::state::kind;
use crate::verifier::{R, Verifier};

impl Verifier<'_> {
    /// `mark_stack_slots_iter`, checks included; `protected` where RCU guards the iterator.
    pub(crate) fn make_iter(&mut self, n: usize, id: u32, slots: usize, protected: bool) -> R {
        let reg = self.reg(n);
        let name = self.iter_name(id).to_owned();
        let fine = match self.object_at(&reg, "iter", slots) {
            Spi::Below => true,
            Spi::Bad => false,
            Spi::At(spi) => (0..slots).all(|i| {
                let s = &self.frame_of(&reg).stack[spi - i];
                s.kinds.iter().all(|k| *k != kind::ITER)
            }),
        };
        if !fine {
            reject!(
                self,
                EINVAL,
                "expected uninitialized iter_{name} as arg #{}\n",
                n - 1
            );
        }
        for i in 0..slots {
            self.check_mem(n, 8 * i as i32, 8, true, None, false, false)?;
        }
        let Spi::At(spi) = self.object_at(&reg, "iter", slots) else {
            return Err(quiet!(self, EINVAL, "an iterator where none can be"));
        };
        let ref_id = self.acquire_ref(self.cur.insn_idx);
        let mut t = ty::STACK;
        if protected {
            t |= if self.in_rcu() {
                ty::RCU
            } else {
                ty::UNTRUSTED
            };
        }
        let frame = usize::from(reg.frameno);
        for i in 0..slots {
            let slot = &mut self.cur.frames[frame].stack[spi - i];
            slot.reg = Reg::pointer(t);
            slot.reg.a = id;
            slot.reg.ref_obj_id = if i == 0 { ref_id } else { 0 };
            slot.reg.set_iter(ITER_ACTIVE, 0);
            slot.kinds = [kind::ITER; 8];
            self.live_write(frame, 1 << (spi - i));
            self.log.scratch_slot(spi - i);
        }
        Ok(())
    }

    /// An iterator that was made: frame, slot and reference.
    pub(crate) fn use_iter(
        &mut self,
        n: usize,
        id: u32,
        slots: usize,
        func: &str,
    ) -> R<(usize, usize, u32)> {
        let reg = self.reg(n);
        let name = self.iter_name(id).to_owned();
        let frame = usize::from(reg.frameno);
        let mut valid = false;
        let mut found = 0;
        if let Spi::At(spi) = self.object_at(&reg, "iter", slots) {
            found = spi;
            valid = true;
            for i in 0..slots {
                let s = self.cur.frames[frame].stack[spi - i];
                if s.reg.ty & ty::UNTRUSTED != 0 {
                    reject!(self, EPROTO, "expected an RCU CS when using {func}\n");
                }
                let first = i == 0;
                if first != (s.reg.ref_obj_id != 0) || s.reg.a != id || s.kinds != [kind::ITER; 8] {
                    valid = false;
                    break;
                }
            }
        }
        if !valid {
            reject!(
                self,
                EINVAL,
                "expected an initialized iter_{name} as arg #{}\n",
                n - 1
            );
        }
        self.read_object(&reg, found, slots);
        let ref_id = self.cur.frames[frame].stack[found].reg.ref_obj_id;
        Ok((frame, found, ref_id))
    }

    /// `unmark_stack_slots_iter`
    pub(crate) fn unmake_iter(&mut self, frame: usize, spi: usize, slots: usize) -> R {
        let id = self.cur.frames[frame].stack[spi].reg.ref_obj_id;
        self.release_ref(id)?;
        for s in (0..slots).map(|i| spi - i) {
            self.cur.frames[frame].stack[s].invalidate();
            self.live_write(frame, 1 << s);
            self.log.scratch_slot(s);
        }
        Ok(())
    }

    /// `process_iter_next_call`
    pub(crate) fn next_iter(&mut self, frame: usize, spi: usize) -> R {
        let insn = self.cur.insn_idx;
        let state = self.cur.frames[frame].stack[spi].reg.iter_state();
        if state == ITER_ACTIVE {
            let parent = self.cur.parent;
            let fine = parent.is_some_and(|id| {
                let st = &self.explored.arena[id as usize].state;
                st.insn_idx == insn && st.same_callsites(&self.cur)
            });
            if !fine {
                return self.bug(format_args!("bad parent state for iter next call"));
            }
            let prev = self.find_prev_entry(parent, insn);
            let at = self.push_stack_or(insn + 1, insn, bpfsim_abi::Errno::ENOMEM)?;
            let mut queued = std::mem::take(&mut self.stack[at].state);
            let iter = &mut queued.frames[frame].stack[spi].reg;
            let depth = iter.iter_depth() + 1;
            iter.set_iter(ITER_ACTIVE, depth);
            if let Some(prev) = prev {
                self.widen(prev, &mut queued);
            }
            let mut r0 = queued.top().regs[0];
            self.mark_not_null(&mut r0);
            queued.top_mut().regs[0] = r0;
            self.stack[at].state = queued;
        }
        let iter = &mut self.cur.frames[frame].stack[spi].reg;
        let depth = iter.iter_depth();
        iter.set_iter(ITER_DRAINED, depth);
        self.regs_mut()[0] = Reg::constant(0);
        Ok(())
    }
}
