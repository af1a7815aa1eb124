//! `bpf_spin_lock` and `bpf_res_spin_lock`: taken in order, given back in reverse.

use crate::refusal::reject;
use crate::reg::ty;
use crate::state::{Ref, reftype};
use crate::verifier::{R, Verifier, field};

impl Verifier<'_> {
    /// `process_spin_lock`: `res` for resilient locks.
    pub(crate) fn process_lock(&mut self, n: usize, lock: bool, res: bool, irq: bool) -> R {
        let reg = self.reg(n);
        let name = if res { "bpf_res_spin" } else { "bpf_spin" };
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. {name}_lock has to be at the constant offset\n"
            );
        }
        let in_map = reg.ty == ty::MAP_VALUE;
        let map = reg.map().and_then(|m| self.maps.get(m));
        let map_name = map.map_or("", |m| m.name.as_str());
        if in_map && map.is_some_and(|m| !m.has_btf) {
            reject!(
                self,
                EINVAL,
                "map '{map_name}' has to have BTF in order to use {name}_lock\n"
            );
        }
        let bit = if res {
            field::RES_SPIN_LOCK
        } else {
            field::SPIN_LOCK
        };
        let record = self.reg_record(&reg).filter(|r| r.has(bit));
        let Some(record) = record else {
            let (what, of) = match in_map {
                true => ("map", map_name),
                false => ("local", "kptr"),
            };
            reject!(self, EINVAL, "{what} '{of}' has no valid {name}_lock\n");
        };
        let at = record.offset_of(bit);
        let off = (reg.var_off.value as i64).wrapping_add(reg.off.into());
        if i64::from(at) != off {
            reject!(
                self,
                EINVAL,
                "off {off} doesn't point to 'struct {name}_lock' that is at {at}\n"
            );
        }
        // A map, or the program's types.
        let ptr = if in_map { reg.a } else { 1 << 31 };
        let t = match (res, irq) {
            (true, true) => reftype::RES_LOCK_IRQ,
            (true, false) => reftype::RES_LOCK,
            _ => reftype::LOCK,
        };
        match lock {
            true => self.take_lock(t, reg.id, ptr),
            false => self.give_back_lock(t, reg.id, ptr, name),
        }
    }

    fn take_lock(&mut self, t: u8, id: u32, ptr: u32) -> R {
        let held = self.cur.active_locks != 0;
        if held && t == reftype::LOCK && self.cur.find_lock(reftype::LOCK, 0, 0) {
            reject!(self, EINVAL, "Locking two bpf_spin_locks are not allowed\n");
        }
        let res = reftype::RES_LOCK | reftype::RES_LOCK_IRQ;
        if held && t != reftype::LOCK && self.cur.find_lock(res, id, ptr) {
            reject!(
                self,
                EINVAL,
                "Acquiring the same lock again, AA deadlock detected\n"
            );
        }
        let insn = self.insn_idx;
        self.cur.refs.push(Ref {
            kind: t,
            id,
            insn,
            ptr,
        });
        self.cur.active_locks += 1;
        (self.cur.active_lock_id, self.cur.active_lock_ptr) = (id, ptr);
        Ok(())
    }

    fn give_back_lock(&mut self, t: u8, id: u32, ptr: u32, name: &str) -> R {
        if self.cur.active_locks == 0 {
            reject!(self, EINVAL, "{name}_unlock without taking a lock\n");
        }
        if !self.cur.find_lock(t, id, ptr) {
            reject!(self, EINVAL, "{name}_unlock of different lock\n");
        }
        if id != self.cur.active_lock_id || ptr != self.cur.active_lock_ptr {
            reject!(self, EINVAL, "{name}_unlock cannot be out of order\n");
        }
        if !self.cur.drop_lock(t, id, ptr) {
            reject!(self, EINVAL, "{name}_unlock of different lock\n");
        }
        self.drop_non_owning();
        Ok(())
    }
}
