//! References: what a program holds and has to give back, and what no longer counts once it did.

use crate::reg::{Reg, ty};
use crate::state::{Ref, reftype};
use crate::verifier::{R, Verifier, field};

impl Verifier<'_> {
    /// `acquire_reference`
    pub(crate) fn acquire_ref(&mut self, insn: i32) -> u32 {
        let id = self.new_id();
        self.cur.refs.push(Ref {
            kind: reftype::PTR,
            id,
            insn,
            ptr: 0,
        });
        id
    }

    /// `release_reference`
    pub(crate) fn release_ref(&mut self, id: u32) -> R<bool> {
        if !self.cur.drop_ref(id) {
            return Ok(false);
        }
        self.cur.each_reg(|reg| {
            if reg.ref_obj_id == id {
                *reg = Reg::UNKNOWN;
            }
        });
        Ok(true)
    }

    /// `invalidate_non_owning_refs`
    pub(crate) fn drop_non_owning(&mut self) {
        self.cur.each_reg(|reg| {
            if ty::is_non_own(reg.ty) {
                *reg = Reg::UNKNOWN;
            }
        });
    }

    /// `ref_set_non_owning`
    pub(crate) fn set_non_owning(&mut self, reg: &mut Reg) -> R {
        let record = self.struct_record(reg.a, reg.b);
        if self.cur.active_locks == 0 {
            return self.bug(format_args!(
                "{}w/o active lock",
                "bpf_list_pop_front_or_similar "
            ));
        }
        if reg.ty & ty::NON_OWN != 0 {
            return self.bug(format_args!("NON_OWN_REF already set"));
        }
        reg.ty |= ty::NON_OWN;
        if record.is_some_and(|r| r.has(field::REFCOUNT)) {
            reg.ty |= ty::RCU;
        }
        Ok(())
    }

    /// `ref_convert_owning_non_owning`
    pub(crate) fn convert_non_owning(&mut self, id: u32) -> R {
        if !self.cur.refs.iter().any(|r| r.id == id) {
            return self.bug(format_args!("ref state missing for ref_obj_id"));
        }
        let mut cur = std::mem::take(&mut self.cur);
        let locks = cur.active_locks;
        let mut result = Ok(());
        for frame in &mut cur.frames {
            let spills = frame.stack.iter_mut().filter(|s| s.is_spill());
            for reg in frame.regs.iter_mut().chain(spills.map(|s| &mut s.reg)) {
                if reg.ref_obj_id == id {
                    reg.ref_obj_id = 0;
                    self.cur.active_locks = locks;
                    result = result.and(self.set_non_owning(reg));
                }
            }
        }
        self.cur = cur;
        result
    }

    /// `clear_all_pkt_pointers`
    pub(crate) fn clear_packet(&mut self) {
        let slice = ty::DYN_SKB | ty::DYN_XDP | ty::DYN_SKB_META;
        self.cur.each_reg(|reg| {
            if ty::is_pkt_any(reg.ty) || reg.base() == ty::MEM && reg.ty & slice != 0 {
                *reg = Reg::UNKNOWN;
            }
        });
    }
}
