//! Dynptrs on the stack: two slots, the first of which has the type and the reference.

use super::Spi;
use crate::log::dynptr_str;
use crate::refusal::{quiet, reject};
use crate::reg::{Reg, ty};
use crate::state::kind;
use crate::verifier::{R, Verifier};

/// Type of a dynptr that an argument is to be: `arg_to_dynptr_type`.
pub(crate) fn dynptr_kind(flags: u32) -> u32 {
    match flags & ty::DYN_MASK {
        ty::DYN_LOCAL => 1,
        ty::DYN_RINGBUF => 2,
        ty::DYN_SKB => 3,
        ty::DYN_XDP => 4,
        ty::DYN_SKB_META => 5,
        _ => 0,
    }
}

impl Verifier<'_> {
    /// `destroy_if_dynptr_stack_slot`
    pub(crate) fn destroy_dynptr(&mut self, frame: usize, spi: usize) -> R {
        let stack = &self.cur.frames[frame].stack;
        let Some(slot) = stack.get(spi).filter(|s| s.kinds[0] == kind::DYNPTR) else {
            return Ok(());
        };
        let spi = if slot.reg.b == 0 { spi + 1 } else { spi };
        let Some(slot) = stack.get(spi).filter(|_| spi > 0) else {
            return self.bug(format_args!("dynptr slot"));
        };
        if slot.reg.a == 2 {
            reject!(self, EINVAL, "cannot overwrite referenced dynptr\n");
        }
        let id = slot.reg.id;
        self.log.scratch_slot(spi);
        self.log.scratch_slot(spi - 1);
        let stack = &mut self.cur.frames[frame].stack;
        for s in [spi, spi - 1] {
            stack[s].kinds = [kind::INVALID; 8];
        }
        self.cur.each_reg(|reg| {
            let mem = reg.ty == ty::MEM || reg.ty == ty::MEM | ty::MAYBE_NULL;
            if mem && reg.dynptr_id() == id {
                *reg = Reg::UNKNOWN;
            }
        });
        self.invalidate_dynptr(frame, spi);
        Ok(())
    }

    fn invalidate_dynptr(&mut self, frame: usize, spi: usize) {
        let stack = &mut self.cur.frames[frame].stack;
        for s in [spi, spi - 1] {
            stack[s].invalidate();
        }
        self.live_write(frame, 3 << (spi - 1));
    }

    /// `mark_stack_slots_dynptr`
    fn make_dynptr(&mut self, reg: &Reg, flags: u32, insn: i32, clone_ref: u32) -> R {
        let spi = match self.object_at(reg, "dynptr", 2) {
            Spi::At(spi) => spi,
            Spi::Below => return Err(quiet!(self, ERANGE, "a dynptr below what the stack holds")),
            Spi::Bad => return Err(quiet!(self, EINVAL, "a dynptr where none can be")),
        };
        let frame = usize::from(reg.frameno);
        self.destroy_dynptr(frame, spi)?;
        self.destroy_dynptr(frame, spi - 1)?;
        let t = dynptr_kind(flags);
        if t == 0 {
            return Err(quiet!(self, EINVAL, "a dynptr of no kind"));
        }
        let id = self.new_id();
        let ref_id = match (t, clone_ref) {
            (2, 0) => self.acquire_ref(insn),
            (2, id) => id,
            _ => 0,
        };
        for (s, first) in [(spi, 1), (spi - 1, 0)] {
            let slot = &mut self.cur.frames[frame].stack[s];
            slot.kinds = [kind::DYNPTR; 8];
            slot.reg = Reg {
                a: t,
                b: first,
                id,
                ref_obj_id: ref_id,
                ..Reg::pointer(ty::DYNPTR)
            };
        }
        self.live_write(frame, 3 << (spi - 1));
        Ok(())
    }

    /// `unmark_stack_slots_dynptr`
    pub(crate) fn unmake_dynptr(&mut self, n: usize) -> R {
        let reg = self.reg(n);
        let Spi::At(spi) = self.object_at(&reg, "dynptr", 2) else {
            return Err(quiet!(self, EINVAL, "a dynptr where none can be"));
        };
        let frame = usize::from(reg.frameno);
        let slot = self.cur.frames[frame].stack[spi].reg;
        if slot.a != 2 {
            self.invalidate_dynptr(frame, spi);
            return Ok(());
        }
        self.release_ref(slot.ref_obj_id)?;
        for i in 1..self.cur.frames[frame].stack.len() {
            let s = &self.cur.frames[frame].stack[i];
            if s.reg.ref_obj_id != slot.ref_obj_id {
                continue;
            }
            if s.kinds[0] != kind::DYNPTR {
                return self.bug(format_args!("misconfigured ref_obj_id"));
            }
            if s.reg.b != 0 {
                self.invalidate_dynptr(frame, i);
            }
        }
        Ok(())
    }

    /// The dynptr that a register points to: its own state, or that of its first slot.
    pub(crate) fn dynptr_of(&mut self, reg: &Reg) -> Option<Reg> {
        if reg.ty == ty::DYNPTR {
            return Some(*reg);
        }
        match self.object_at(reg, "dynptr", 2) {
            Spi::At(spi) => Some(self.frame_of(reg).stack[spi].reg),
            _ => None,
        }
    }

    fn dynptr_valid(&mut self, reg: &Reg) -> bool {
        if reg.ty == ty::DYNPTR {
            return true;
        }
        let Spi::At(spi) = self.object_at(reg, "dynptr", 2) else {
            return false;
        };
        let stack = &self.frame_of(reg).stack;
        let all = [kind::DYNPTR; 8];
        stack[spi].reg.b != 0 && stack[spi].kinds == all && stack[spi - 1].kinds == all
    }

    /// `process_dynptr_func`
    pub(crate) fn process_dynptr(&mut self, n: usize, insn: i32, flags: u32, clone_ref: u32) -> R {
        let reg = self.reg(n);
        if reg.ty != ty::STACK && reg.ty != ty::DYNPTR {
            reject!(
                self,
                EINVAL,
                "arg#{} expected pointer to stack or const struct bpf_dynptr\n",
                n - 1
            );
        }
        if flags & ty::UNINIT != 0 {
            let fine =
                reg.ty != ty::DYNPTR && !matches!(self.object_at(&reg, "dynptr", 2), Spi::Bad);
            if !fine {
                reject!(self, EINVAL, "Dynptr has to be an uninitialized dynptr\n");
            }
            for off in [0, 8] {
                self.check_mem(n, off, 8, true, None, false, false)?;
            }
            return self.make_dynptr(&reg, flags, insn, clone_ref);
        }
        if reg.ty == ty::DYNPTR && flags & ty::RDONLY == 0 {
            reject!(
                self,
                EINVAL,
                "cannot pass pointer to const bpf_dynptr, the helper mutates it\n"
            );
        }
        if !self.dynptr_valid(&reg) {
            reject!(
                self,
                EINVAL,
                "Expected an initialized dynptr as arg #{}\n",
                n - 1
            );
        }
        let want = dynptr_kind(flags);
        let plain = flags & !ty::RDONLY & !ty::RELEASE == 0;
        let is = self.dynptr_of(&reg).map_or(0, |d| d.a);
        if !plain && is != want {
            reject!(
                self,
                EINVAL,
                "Expected a dynptr of type {} as arg #{}\n",
                dynptr_str(want),
                n - 1
            );
        }
        if reg.ty == ty::STACK
            && let Spi::At(spi) = self.object_at(&reg, "dynptr", 2)
        {
            self.read_object(&reg, spi, 2);
        }
        Ok(())
    }
}
