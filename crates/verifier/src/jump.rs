//! Conditional jumps: which ways there are, and what each of them says (`check_cond_jmp_op`).

use bpfsim_abi::{Errno, MapType};
use bpfsim_isa::{Insn, uapi::*};
use smallvec::SmallVec;

use crate::branch::{set_min_max, set_min_max_same, taken};
use crate::planted;
use crate::precision::{Linked, pack_linked};
use crate::reg::{ADD_CONST, ADD_CONST32, AT_PKT_END, BEYOND_PKT_END, Reg, ty};
use crate::state::{F_DST_STACK, F_SRC_STACK, State};
use crate::verifier::{Aux, R, Verifier, field};

type LinkedRegs = SmallVec<[Linked; 6]>;

/// `reg_not_null`
fn not_null(reg: &Reg) -> bool {
    if ty::maybe_null(reg.ty) {
        return false;
    }
    match reg.base() {
        ty::SOCKET | ty::TCP_SOCK | ty::MAP_VALUE | ty::MAP_KEY | ty::SOCK_COMMON | ty::MAP_PTR => {
            true
        }
        ty::BTF_ID => Verifier::is_trusted(reg),
        ty::MEM => reg.ty & ty::UNTRUSTED == 0,
        _ => false,
    }
}

/// `collect_linked_regs`: registers that are read no more are left as they are.
fn collect(state: &mut State, id: u32, aux: &[Aux], all: &mut LinkedRegs) {
    let id = id & !ADD_CONST;
    let mut add = |reg: &mut Reg, frame, at, is_reg| {
        if !reg.is_scalar() || reg.id & !ADD_CONST != id {
            return;
        }
        if all.len() < 6 {
            all.push(Linked { frame, at, is_reg });
        } else {
            reg.id = 0;
        }
    };
    for i in (0..state.frames.len()).rev() {
        let at = usize::try_from(state.frame_insn(i)).ok();
        let live = at.and_then(|at| aux.get(at)).map_or(0, |a| a.live_before);
        let frame = &mut state.frames[i];
        for (j, reg) in frame.regs[..10].iter_mut().enumerate() {
            if live & 1 << j != 0 {
                add(reg, i, j, true);
            }
        }
        for (j, slot) in frame.stack.iter_mut().enumerate() {
            if slot.is_spill() {
                add(&mut slot.reg, i, j, false);
            }
        }
    }
}

/// `sync_linked_regs`
fn sync_linked(state: &mut State, known_frame: usize, known_no: usize, all: &[Linked]) {
    let known = state.frames[known_frame].regs[known_no];
    for l in all {
        if l.is_reg && l.frame == known_frame && l.at == known_no {
            continue;
        }
        let frame = &mut state.frames[l.frame];
        let reg = match l.is_reg {
            true => &mut frame.regs[l.at],
            false => &mut frame.stack[l.at].reg,
        };
        if !reg.is_scalar() || reg.id & !ADD_CONST != known.id & !ADD_CONST {
            continue;
        }
        // A distance of 32 bits says nothing of one of 64.
        if (reg.id ^ known.id) & ADD_CONST == ADD_CONST {
            continue;
        }
        if reg.id & ADD_CONST == 0 && known.id & ADD_CONST == 0 || reg.off == known.off {
            *reg = known;
            continue;
        }
        let delta = Reg::constant(i64::from(reg.off.wrapping_sub(known.off)) as u64);
        let (off, id) = (reg.off, reg.id);
        *reg = Reg { off, id, ..known };
        crate::arith::add(reg, &delta);
        reg.var_off = reg.var_off.add(delta.var_off);
        if (id | known.id) & ADD_CONST32 != 0 {
            reg.zext32();
        }
        reg.sync();
    }
}

/// `find_good_pkt_pointers`
fn good_packet(state: &mut State, dst: &Reg, right_open: bool) {
    if dst.off < 0
        || dst.off == 0 && right_open
        || dst.umax > 0xffff
        || dst.umax.wrapping_add(dst.off as u64) > 0xffff
    {
        return;
    }
    let range = dst.off + i32::from(right_open) + i32::from(planted::is(15));
    state.each_reg(|reg| {
        if reg.ty == dst.ty && reg.id == dst.id {
            reg.a = reg.range().max(range) as u32;
        }
    });
}

/// `mark_pkt_end`
fn packet_end(state: &mut State, n: usize, open: bool) {
    let reg = &mut state.top_mut().regs[n];
    if reg.ty == ty::PACKET {
        reg.a = if open { BEYOND_PKT_END } else { AT_PKT_END } as u32;
    }
}

/// `try_match_pkt_pointers`
fn match_packet(insn: Insn, dst: &Reg, src: &Reg, this: &mut State, other: &mut State) -> bool {
    if insn.code & 8 == 0 || insn.class() == BPF_JMP32 {
        return false;
    }
    // A packet's begin, as the end of its metadata.
    let begin = |r: &Reg| r.ty == ty::PACKET && r.id == 0 && r.off == 0 && r.var_off.equals(0);
    let dst_is_data =
        dst.ty == ty::PACKET && src.ty == ty::PACKET_END || dst.ty == ty::PACKET_META && begin(src);
    let src_is_data =
        dst.ty == ty::PACKET_END && src.ty == ty::PACKET || begin(dst) && src.ty == ty::PACKET_META;
    if !dst_is_data && !src_is_data {
        return false;
    }
    let (data, n) = match dst_is_data {
        true => (dst, insn.dst()),
        false => (src, insn.src()),
    };
    // Whether the packet reaches `data` on the way that does not jump, and whether beyond it.
    let (here, open) = match (insn.code & 0xf0, dst_is_data) {
        (BPF_JGT, true) | (BPF_JLT, false) => (true, false),
        (BPF_JGT, false) | (BPF_JLT, true) => (false, true),
        (BPF_JGE, true) | (BPF_JLE, false) => (true, true),
        (BPF_JGE, false) | (BPF_JLE, true) => (false, false),
        _ => return false,
    };
    let (good, bad) = match here {
        true => (this, other),
        false => (other, this),
    };
    good_packet(good, data, open);
    packet_end(bad, n.into(), !open);
    true
}

impl Verifier<'_> {
    /// `mark_ptr_not_null_reg`
    pub(crate) fn mark_not_null(&self, reg: &mut Reg) {
        if reg.base() != ty::MAP_VALUE {
            reg.ty &= !ty::MAYBE_NULL;
            return;
        }
        let Some(map) = reg.map().and_then(|m| self.maps.get(m)) else {
            reg.ty &= !ty::MAYBE_NULL;
            return;
        };
        if let Some(inner) = map.inner {
            reg.ty = ty::MAP_PTR;
            reg.a = inner as u32 + 1;
            let record = self.map_records.get(inner).and_then(|r| r.as_ref());
            if record.is_some_and(|r| r.has(field::TIMER | field::WORKQUEUE | field::TASK_WORK)) {
                reg.b = reg.id;
            }
            return;
        }
        reg.ty = match map.map_type {
            MapType::Xskmap => ty::XDP_SOCK,
            MapType::Sockmap | MapType::Sockhash => ty::SOCKET,
            _ => ty::MAP_VALUE,
        };
    }

    /// `mark_ptr_or_null_regs`
    fn mark_null_regs(&mut self, state: &mut State, n: usize, is_null: bool) {
        let reg = state.top().regs[n];
        let id = reg.id;
        if reg.ref_obj_id != 0 && reg.ref_obj_id == id && is_null {
            state.drop_ref(id);
        }
        for f in 0..state.frames.len() {
            for i in 0..11 + state.frames[f].stack.len() {
                let frame = &mut state.frames[f];
                let reg = match i {
                    0..11 => &mut frame.regs[i],
                    _ if frame.stack[i - 11].is_spill() => &mut frame.stack[i - 11].reg,
                    _ => continue,
                };
                if !ty::maybe_null(reg.ty)
                    || reg.id != id
                    || reg.ty & ty::RCU == 0 && reg.id == 0
                    || reg.smin != 0
                    || reg.smax != 0
                    || !reg.var_off.equals(0)
                    || reg.off != 0 && !ty::is_alloc_obj(reg.ty)
                {
                    continue;
                }
                if is_null {
                    reg.ty = ty::SCALAR;
                    reg.id = 0;
                    reg.ref_obj_id = 0;
                    continue;
                }
                let mut new = *reg;
                self.mark_not_null(&mut new);
                if !self.has_lock(&new) {
                    new.id = 0;
                }
                let frame = &mut state.frames[f];
                match i {
                    0..11 => frame.regs[i] = new,
                    _ => frame.stack[i - 11].reg = new,
                }
            }
        }
    }

    /// `may_goto`
    fn check_may_goto(&mut self, insn: Insn) -> R {
        let idx = self.insn_idx;
        let prev = self.find_prev_entry(self.cur.parent, idx);
        let at = self.push_stack_or(idx + 1, idx, Errno::ENOMEM)?;
        self.stack[at].state.may_goto_depth += 1;
        if let Some(prev) = prev {
            let mut queued = std::mem::take(&mut self.stack[at].state);
            self.widen(prev, &mut queued);
            self.stack[at].state = queued;
        }
        self.insn_idx += i32::from(insn.off);
        Ok(())
    }

    /// `check_cond_jmp_op`
    pub(crate) fn check_cond_jump(&mut self, insn: Insn) -> R {
        let op = insn.code & 0xf0;
        if op == BPF_JCOND {
            return self.check_may_goto(insn);
        }
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let by_reg = insn.code & 8 != 0;
        let is32 = insn.class() == BPF_JMP32;
        self.read_reg(dst)?;
        let mut flags = 0;
        let mut s = Reg::constant(i64::from(insn.imm) as u64);
        if by_reg {
            self.read_reg(src)?;
            s = self.reg(src);
            if s.ty == ty::STACK {
                flags |= F_SRC_STACK;
            }
        }
        let mut d = self.reg(dst);
        if d.ty == ty::STACK {
            flags |= F_DST_STACK;
        }
        if flags != 0 {
            self.push_history(flags, 0);
        }
        if let Some(jumps) = taken(&d, &s, op, is32, not_null) {
            if d.is_scalar() {
                self.mark_precise(dst)?;
            }
            if by_reg && s.is_scalar() {
                self.mark_precise(src)?;
            }
            if self.log.insns() {
                self.print_insn_state();
            }
            if jumps {
                self.insn_idx += i32::from(insn.off);
            }
            return Ok(());
        }
        let mut linked = LinkedRegs::new();
        if by_reg && s.is_scalar() && s.id != 0 {
            collect(&mut self.cur, s.id, &self.aux, &mut linked);
        }
        d = self.reg(dst);
        if d.is_scalar() && d.id != 0 {
            collect(&mut self.cur, d.id, &self.aux, &mut linked);
        }
        if linked.len() > 1 {
            self.push_history(0, pack_linked(&linked));
        }
        let idx = self.insn_idx;
        let at = self.push_stack(idx + i32::from(insn.off) + 1, idx)?;
        let mut other = std::mem::take(&mut self.stack[at].state);
        let result = self.split(insn, &mut other, &linked);
        self.stack[at].state = other;
        result?;
        if self.log.insns() {
            self.print_insn_state();
        }
        Ok(())
    }

    /// What is known on either way: `other` is where the jump leads.
    fn split(&mut self, insn: Insn, other: &mut State, linked: &[Linked]) -> R {
        let op = insn.code & 0xf0;
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let by_reg = insn.code & 8 != 0;
        let is32 = insn.class() == BPF_JMP32;
        let imm = Reg::constant(i64::from(insn.imm) as u64);
        let top = self.cur.curframe();
        let (mut nd, mut ns) = (self.reg(dst), if by_reg { self.reg(src) } else { imm });
        let (mut yd, mut ys) = (nd, ns);
        let numbers = nd.is_scalar() && ns.is_scalar();
        if numbers && by_reg && dst == src {
            set_min_max_same(&mut yd, &mut nd, op, is32);
            (ys, ns) = (yd, nd);
        } else {
            set_min_max((&mut yd, &mut ys), (&mut nd, &mut ns), op, is32);
        }
        if numbers {
            for (reg, name) in [
                (&mut yd, "true_reg1"),
                (&mut ys, "true_reg2"),
                (&mut nd, "false_reg1"),
                (&mut ns, "false_reg2"),
            ] {
                if let Some(new) = self.sane(reg, name)? {
                    *reg = new;
                }
            }
            self.regs_mut()[dst] = nd;
            other.top_mut().regs[dst] = yd;
            if by_reg {
                self.regs_mut()[src] = ns;
                other.top_mut().regs[src] = ys;
            }
        }
        let known = [(by_reg, src), (true, dst)];
        for (used, n) in known {
            let reg = self.reg(n);
            if used && reg.is_scalar() && reg.id != 0 && reg.id == other.top().regs[n].id {
                sync_linked(&mut self.cur, top, n, linked);
                sync_linked(other, top, n, linked);
            }
        }
        self.split_pointers(insn, other)
    }

    fn split_pointers(&mut self, insn: Insn, other: &mut State) -> R {
        let op = insn.code & 0xf0;
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let by_reg = insn.code & 8 != 0;
        let is32 = insn.class() == BPF_JMP32;
        let (d, s) = (self.reg(dst), self.reg(src));
        if !is32
            && by_reg
            && !d.is_scalar()
            && !s.is_scalar()
            && ty::maybe_null(s.ty) != ty::maybe_null(d.ty)
            && s.base() != ty::BTF_ID
            && d.base() != ty::BTF_ID
        {
            let n = if ty::maybe_null(s.ty) { src } else { dst };
            let reg = match op {
                BPF_JEQ => Some(&mut other.top_mut().regs[n]),
                _ => None,
            };
            if let Some(reg) = reg {
                let mut new = *reg;
                self.mark_not_null(&mut new);
                *reg = new;
            } else if op == BPF_JNE {
                let mut new = self.reg(n);
                self.mark_not_null(&mut new);
                self.regs_mut()[n] = new;
            }
        }
        if !is32
            && !by_reg
            && insn.imm == 0
            && matches!(op, BPF_JEQ | BPF_JNE)
            && ty::maybe_null(d.ty)
        {
            let mut this = std::mem::take(&mut self.cur);
            self.mark_null_regs(&mut this, dst, op == BPF_JNE);
            self.cur = this;
            self.mark_null_regs(other, dst, op == BPF_JEQ);
        } else {
            let (d, s) = (self.reg(dst), self.reg(src));
            match_packet(insn, &d, &s, &mut self.cur, other);
        }
        Ok(())
    }
}
