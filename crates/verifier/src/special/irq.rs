//! Flags of interrupts on the stack: saved, and restored in reverse order.

use super::Spi;
use crate::refusal::{quiet, reject};
use crate::reg::{Reg, ty};
use crate::state::{Ref, kind, reftype};
use crate::verifier::{R, Verifier};

impl Verifier<'_> {
    /// `process_irq_flag`: class 1 is native, 2 is of a lock.
    pub(crate) fn process_irq(&mut self, n: usize, save: bool, class: u32) -> R {
        match save {
            true => self.save_irq(n, class),
            false => self.restore_irq(n, class),
        }
    }

    fn save_irq(&mut self, n: usize, class: u32) -> R {
        let reg = self.reg(n);
        let frame = usize::from(reg.frameno);
        let fine = match self.object_at(&reg, "irq_flag", 1) {
            Spi::Below => true,
            Spi::Bad => false,
            Spi::At(spi) => self.frame_of(&reg).stack[spi]
                .kinds
                .iter()
                .all(|k| *k != kind::IRQ_FLAG),
        };
        if !fine {
            reject!(
                self,
                EINVAL,
                "expected uninitialized irq flag as arg#{}\n",
                n - 1
            );
        }
        self.check_mem(n, 0, 8, true, None, false, false)?;
        let Spi::At(spi) = self.object_at(&reg, "irq_flag", 1) else {
            return Err(quiet!(self, EINVAL, "an interrupt flag where none can be"));
        };
        let id = self.new_id();
        let insn = self.cur.insn_idx;
        self.cur.refs.push(Ref {
            kind: reftype::IRQ,
            id,
            insn,
            ptr: 0,
        });
        self.cur.active_irq_id = id;
        let slot = &mut self.cur.frames[frame].stack[spi];
        slot.reg = Reg::pointer(ty::STACK);
        slot.reg.ref_obj_id = id;
        slot.reg.a = class;
        slot.kinds = [kind::IRQ_FLAG; 8];
        self.live_write(frame, 1 << spi);
        self.log.scratch_slot(spi);
        Ok(())
    }

    fn restore_irq(&mut self, n: usize, class: u32) -> R {
        let reg = self.reg(n);
        let frame = usize::from(reg.frameno);
        let mut at = None;
        if let Spi::At(spi) = self.object_at(&reg, "irq_flag", 1) {
            let s = self.frame_of(&reg).stack[spi];
            if s.reg.ref_obj_id != 0 && s.kinds == [kind::IRQ_FLAG; 8] {
                at = Some((spi, s.reg));
            }
        }
        let Some((spi, flag)) = at else {
            reject!(
                self,
                EINVAL,
                "expected an initialized irq flag as arg#{}\n",
                n - 1
            );
        };
        self.read_object(&reg, spi, 1);
        if flag.a != class {
            let name = |c| if c == 1 { "native" } else { "lock" };
            reject!(
                self,
                EINVAL,
                "irq flag acquired by {} kfuncs cannot be restored with {} kfuncs\n",
                name(flag.a),
                name(class)
            );
        }
        let id = flag.ref_obj_id;
        if id != self.cur.active_irq_id {
            let active = self.cur.active_irq_id;
            let insn = self
                .cur
                .refs
                .iter()
                .find(|r| r.id == active)
                .map_or(0, |r| r.insn);
            reject!(
                self,
                EACCES,
                "cannot restore irq state out of order, expected id={active} acquired at insn_idx={insn}\n"
            );
        }
        let mut prev = 0;
        for i in 0..self.cur.refs.len() {
            let r = self.cur.refs[i];
            if r.kind != reftype::IRQ {
                continue;
            }
            if r.id == id {
                self.cur.refs.remove(i);
                break;
            }
            prev = r.id;
        }
        self.cur.active_irq_id = prev;
        self.cur.frames[frame].stack[spi].invalidate();
        self.live_write(frame, 1 << spi);
        self.log.scratch_slot(spi);
        Ok(())
    }
}
