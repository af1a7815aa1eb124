//! References, locks, dynptrs, iterators, graph nodes: what is more than a pointer.

use crate::log::dynptr_str;
use crate::refusal::{also, quiet, reject};
use crate::reg::{BTF_PROG, ITER_ACTIVE, ITER_DRAINED, Reg, ty};
use crate::setup::RField;
use crate::state::{Ref, kind, reftype};
use crate::verifier::{R, Verifier, field};

/// `mark_reg_graph_node`: the object that holds a node.
pub(crate) fn graph_node(f: &RField) -> Reg {
    let mut reg = Reg::pointer(ty::BTF_ID | ty::ALLOC);
    (reg.a, reg.b) = (BTF_PROG, f.target.1);
    reg.off = f.node_offset as i32;
    reg
}

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

/// Where an object lies on the stack, or why it does not.
pub(crate) enum Spi {
    At(usize),
    /// Below what was used of the stack.
    Below,
    Bad,
}

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
        if lock {
            if self.cur.active_locks != 0 {
                if !res
                    && self
                        .cur
                        .refs
                        .iter()
                        .any(|r| r.kind == reftype::LOCK && r.id == 0 && r.ptr == 0)
                {
                    reject!(self, EINVAL, "Locking two bpf_spin_locks are not allowed\n");
                }
                let both = reftype::RES_LOCK | reftype::RES_LOCK_IRQ;
                if res && self.cur.find_lock(both, reg.id, ptr) {
                    reject!(
                        self,
                        EINVAL,
                        "Acquiring the same lock again, AA deadlock detected\n"
                    );
                }
            }
            let insn = self.insn_idx;
            self.cur.refs.push(Ref {
                kind: t,
                id: reg.id,
                insn,
                ptr,
            });
            self.cur.active_locks += 1;
            (self.cur.active_lock_id, self.cur.active_lock_ptr) = (reg.id, ptr);
            return Ok(());
        }
        if self.cur.active_locks == 0 {
            reject!(self, EINVAL, "{name}_unlock without taking a lock\n");
        }
        if !self.cur.find_lock(t, reg.id, ptr) {
            reject!(self, EINVAL, "{name}_unlock of different lock\n");
        }
        if reg.id != self.cur.active_lock_id || ptr != self.cur.active_lock_ptr {
            reject!(self, EINVAL, "{name}_unlock cannot be out of order\n");
        }
        if !self.cur.drop_lock(t, reg.id, ptr) {
            reject!(self, EINVAL, "{name}_unlock of different lock\n");
        }
        self.drop_non_owning();
        Ok(())
    }

    /// `check_map_field_pointer`
    pub(crate) fn check_map_field(&mut self, n: usize, bit: u32, name: &str) -> R {
        let reg = self.reg(n);
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. {name} has to be at the constant offset\n"
            );
        }
        let Some(map) = reg.map().filter(|m| *m < self.maps.len()) else {
            return self.bug(format_args!("map"));
        };
        let map_name = self.maps[map].name.as_str();
        if !self.maps[map].has_btf {
            reject!(
                self,
                EINVAL,
                "map '{map_name}' has to have BTF in order to use {name}\n"
            );
        }
        let record = self.map_records[map].clone().filter(|r| r.has(bit));
        let Some(record) = record else {
            reject!(self, EINVAL, "map '{map_name}' has no valid {name}\n");
        };
        let at = record.offset_of(bit);
        let off = (reg.var_off.value as i64).wrapping_add(reg.off.into());
        if i64::from(at) != off {
            reject!(
                self,
                EINVAL,
                "off {off} doesn't point to 'struct {name}' that is at {at}\n"
            );
        }
        Ok(())
    }

    /// `stack_slot_obj_get_spi`
    pub(crate) fn object_at(&mut self, reg: &Reg, what: &str, slots: usize) -> Spi {
        if !reg.var_off.is_const() {
            also!(self, "{what} has to be at a constant offset\n");
            return Spi::Bad;
        }
        let off = reg.fixed_off();
        let spi = (-off - 1) / 8;
        if off % 8 != 0 || i64::from(spi) + 1 < slots as i64 {
            also!(self, "cannot pass in {what} at an offset={off}\n");
            return Spi::Bad;
        }
        let Ok(spi) = usize::try_from(spi) else {
            return Spi::Bad;
        };
        let len = self.frame_of(reg).stack.len();
        match spi + 1 >= slots && spi < len {
            true => Spi::At(spi),
            false => Spi::Below,
        }
    }

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

    /// `mark_stack_obj_read`
    fn read_object(&mut self, reg: &Reg, spi: usize, slots: usize) {
        for s in (0..slots).map(|i| spi - i) {
            self.live_read(usize::from(reg.frameno), self.insn_idx as usize, 1 << s);
            self.log.scratch_slot(s);
        }
    }

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

    /// `process_irq_flag`: class 1 is native, 2 is of a lock.
    pub(crate) fn process_irq(&mut self, n: usize, save: bool, class: u32) -> R {
        let reg = self.reg(n);
        let frame = usize::from(reg.frameno);
        if save {
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
            return Ok(());
        }
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
