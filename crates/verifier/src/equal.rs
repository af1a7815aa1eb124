//! Whether a state that was explored covers another (`states_equal`).

use crate::planted;
use crate::reg::{ADD_CONST, Reg, ty};
use crate::state::{Frame, Slot, State, kind};
use crate::verifier::Aux;

/// `enum exact_level`
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Exact {
    Not,
    Same,
    Within,
}

/// `struct bpf_idmap`: which id here stands for which id there.
#[derive(Default)]
pub(crate) struct IdMap {
    pairs: Vec<(u32, u32)>,
    next: u32,
}

impl IdMap {
    fn check(&mut self, old: u32, cur: u32) -> bool {
        if (old != 0) != (cur != 0) {
            return false;
        }
        if old == 0 {
            return true;
        }
        for (o, c) in &self.pairs {
            if *o == old {
                return *c == cur;
            }
            if *c == cur && !planted::is(13) {
                return false;
            }
        }
        self.pairs.push((old, cur));
        true
    }
    fn fresh(&mut self, id: u32) -> u32 {
        if id != 0 {
            return id;
        }
        self.next = self.next.wrapping_add(1);
        self.next
    }
    fn check_scalar(&mut self, old: u32, cur: u32) -> bool {
        let old = self.fresh(old);
        let cur = self.fresh(cur);
        self.check(old, cur)
    }
}

fn regs_exact(old: &Reg, cur: &Reg, ids: &mut IdMap) -> bool {
    old.same_up_to_id(cur) && ids.check(old.id, cur.id) && ids.check(old.ref_obj_id, cur.ref_obj_id)
}

/// `regsafe`
fn reg_safe(old: &Reg, cur: &Reg, ids: &mut IdMap, exact: Exact) -> bool {
    if exact == Exact::Same {
        return regs_exact(old, cur, ids);
    }
    if old.ty == ty::NOT_INIT && (exact == Exact::Not || cur.ty == ty::NOT_INIT) {
        return true;
    }
    if old.ty != cur.ty {
        return false;
    }
    let within = |old: &Reg| old.range_covers(cur) && old.var_off.contains(cur.var_off);
    match old.base() {
        ty::SCALAR => {
            if !old.precise && exact == Exact::Not {
                return true;
            }
            if old.id == 0 {
                // Being linked now only says more.
                return within(old);
            }
            if old.id & ADD_CONST != cur.id & ADD_CONST
                || old.id & ADD_CONST != 0 && old.off != cur.off
            {
                return false;
            }
            within(old) && ids.check_scalar(old.id, cur.id)
        }
        ty::MAP_KEY | ty::MAP_VALUE | ty::MEM | ty::BUF | ty::TP_BUFFER => {
            old.same_up_to_var_off(cur)
                && within(old)
                && ids.check(old.id, cur.id)
                && ids.check(old.ref_obj_id, cur.ref_obj_id)
        }
        ty::PACKET_META | ty::PACKET => {
            old.range() <= cur.range()
                && old.off == cur.off
                && ids.check(old.id, cur.id)
                && within(old)
        }
        ty::STACK => regs_exact(old, cur, ids) && old.frameno == cur.frameno,
        ty::ARENA => true,
        _ => regs_exact(old, cur, ids),
    }
}

/// `scalar_reg_for_stack`
fn scalar_of(slot: &Slot) -> Option<&Reg> {
    if slot.is_scalar_spill64() {
        return Some(&slot.reg);
    }
    let misc = slot
        .kinds
        .iter()
        .all(|k| matches!(*k, kind::MISC | kind::INVALID));
    misc.then_some(&Reg::UNKNOWN)
}

fn slot_safe(old: &Slot, cur: Option<&Slot>, ids: &mut IdMap, exact: Exact) -> bool {
    for i in 0..8 {
        let k = old.kinds[i];
        if exact != Exact::Not && cur.is_none_or(|c| c.kinds[i] != k) {
            return false;
        }
        if matches!(k, kind::INVALID | kind::MISC) {
            continue;
        }
        let Some(cur) = cur else {
            return false;
        };
        if let (Some(o), Some(c)) = (scalar_of(old), scalar_of(cur)) {
            return reg_safe(o, c, ids, exact);
        }
        if k != cur.kinds[i] {
            return false;
        }
        if i != 7 {
            continue;
        }
        let (o, c) = (&old.reg, &cur.reg);
        let fine = match k {
            kind::SPILL => reg_safe(o, c, ids, exact),
            kind::DYNPTR => o.a == c.a && o.b == c.b && ids.check(o.ref_obj_id, c.ref_obj_id),
            kind::ITER => {
                o.a == c.a
                    && o.iter_state() == c.iter_state()
                    && ids.check(o.ref_obj_id, c.ref_obj_id)
            }
            kind::IRQ_FLAG => ids.check(o.ref_obj_id, c.ref_obj_id) && o.a == c.a,
            _ => true,
        };
        if !fine {
            return false;
        }
    }
    true
}

/// `stacksafe`
fn stack_safe(old: &Frame, cur: &Frame, ids: &mut IdMap, exact: Exact) -> bool {
    let invalid = [kind::INVALID; 8];
    old.stack.iter().enumerate().all(|(i, slot)| {
        exact == Exact::Not && slot.kinds == invalid
            || slot_safe(slot, cur.stack.get(i), ids, exact)
    })
}

/// `refsafe`
fn refs_safe(old: &State, cur: &State, ids: &mut IdMap) -> bool {
    old.refs.len() == cur.refs.len()
        && old.active_locks == cur.active_locks
        && old.active_preempt == cur.active_preempt
        && old.active_rcu == cur.active_rcu
        && ids.check(old.active_irq_id, cur.active_irq_id)
        && ids.check(old.active_lock_id, cur.active_lock_id)
        && old.active_lock_ptr == cur.active_lock_ptr
        && old
            .refs
            .iter()
            .zip(&cur.refs)
            .all(|(o, c)| ids.check(o.id, c.id) && o.kind == c.kind && o.ptr == c.ptr)
}

/// `states_equal`
pub(crate) fn states_equal(
    old: &State,
    cur: &State,
    exact: Exact,
    ids: &mut IdMap,
    id_gen: u32,
    aux: &[Aux],
) -> bool {
    if old.frames.len() != cur.frames.len() {
        return false;
    }
    ids.pairs.clear();
    ids.next = id_gen;
    if old.in_sleepable != cur.in_sleepable || !refs_safe(old, cur, ids) {
        return false;
    }
    for (i, (o, c)) in old.frames.iter().zip(&cur.frames).enumerate() {
        if o.callsite != c.callsite || o.callback_depth > c.callback_depth {
            return false;
        }
        let live = usize::try_from(old.frame_insn(i))
            .ok()
            .and_then(|at| aux.get(at))
            .map_or(0, |a| a.live_before);
        for r in 0..11 {
            if live & 1 << r != 0 && !reg_safe(&o.regs[r], &c.regs[r], ids, exact) {
                return false;
            }
        }
        if !stack_safe(o, c, ids, exact) {
            return false;
        }
    }
    true
}

/// `states_maybe_looping`
pub(crate) fn maybe_looping(old: &State, cur: &State) -> bool {
    old.frames.len() == cur.frames.len()
        && old
            .top()
            .regs
            .iter()
            .zip(&cur.top().regs)
            .all(|(o, c)| o.same_up_to_frameno(c))
}

/// `iter_active_depths_differ`
pub(crate) fn iter_depths_differ(old: &State, cur: &State) -> bool {
    old.frames.iter().zip(&cur.frames).any(|(o, c)| {
        o.stack.iter().zip(&c.stack).any(|(o, c)| {
            o.kinds[0] == kind::ITER
                && o.reg.iter_state() == crate::reg::ITER_ACTIVE
                && o.reg.iter_depth() != c.reg.iter_depth()
        })
    })
}

/// `widen_imprecise_scalars`
pub(crate) fn widen(old: &State, cur: &mut State, id_gen: u32) {
    let mut ids = IdMap {
        next: id_gen,
        ..IdMap::default()
    };
    let mut reg = |o: &Reg, c: &mut Reg| {
        if o.is_scalar() && c.is_scalar() && !o.precise && !c.precise && !regs_exact(o, c, &mut ids)
        {
            *c = Reg::UNKNOWN;
        }
    };
    for (o, c) in old.frames.iter().zip(&mut cur.frames).rev() {
        for (o, c) in o.regs.iter().zip(&mut c.regs) {
            reg(o, c);
        }
        for (o, c) in o.stack.iter().zip(&mut c.stack) {
            if o.is_spill() && c.is_spill() {
                reg(&o.reg, &mut c.reg);
            }
        }
    }
}
