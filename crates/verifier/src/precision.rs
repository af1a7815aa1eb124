//! Which numbers must be known exactly: walking back over how they came about
//! (`__mark_chain_precision`).

use std::fmt::Write;

use bpfsim_isa::uapi::*;

use crate::cfg::is_pseudo_call;
use crate::log::verbose;
use crate::planted;
use crate::reg::Reg;
use crate::state::{
    F_DST_STACK, F_SRC_STACK, F_STACK, Frame, Hist, MAIN, MAX_FRAMES, State, StateId,
};
use crate::verifier::{R, Verifier};

/// R1 to R5.
const ARGS: u32 = 0x3e;

/// `struct backtrack_state`
#[derive(Clone, Default)]
pub(crate) struct Backtrack {
    frame: usize,
    regs: [u32; MAX_FRAMES],
    stack: [u64; MAX_FRAMES],
}

impl Backtrack {
    fn is_empty(&self) -> bool {
        let regs = self.regs[..=self.frame].iter().all(|m| *m == 0);
        regs && self.stack[..=self.frame].iter().all(|m| *m == 0)
    }
    pub fn set_reg(&mut self, frame: usize, reg: usize) {
        self.regs[frame] |= 1 << reg;
    }
    pub fn set_slot(&mut self, frame: usize, slot: usize) {
        self.stack[frame] |= 1 << (slot & 63);
    }
    fn has(&self, reg: usize) -> bool {
        self.regs[self.frame] & 1 << reg != 0
    }
    fn set(&mut self, reg: usize) {
        self.set_reg(self.frame, reg);
    }
    fn clear(&mut self, reg: usize) {
        self.regs[self.frame] &= !(1 << reg);
    }

    /// `bt_sync_linked_regs`
    fn sync_linked(&mut self, hist: Option<&Hist>) {
        let Some(packed) = hist.map(|h| h.linked).filter(|l| *l != 0) else {
            return;
        };
        let all = unpack_linked(packed);
        if planted::is(11) {
            return;
        }
        let precise = all.iter().any(|l| match l.is_reg {
            true => self.regs[l.frame] & 1 << l.at != 0,
            false => self.stack[l.frame] & 1 << l.at != 0,
        });
        if !precise {
            return;
        }
        for l in all {
            match l.is_reg {
                true => self.set_reg(l.frame, l.at),
                false => self.set_slot(l.frame, l.at),
            }
        }
    }
}

/// A register or slot that shares an id with others (`struct linked_reg`).
#[derive(Clone, Copy)]
pub(crate) struct Linked {
    pub frame: usize,
    pub at: usize,
    pub is_reg: bool,
}

/// `linked_regs_pack`
pub(crate) fn pack_linked(all: &[Linked]) -> u64 {
    let packed = all.iter().fold(0u64, |v, l| {
        v << 10 | l.frame as u64 | (l.at as u64) << 3 | u64::from(l.is_reg) << 9
    });
    packed << 4 | all.len() as u64
}

fn unpack_linked(packed: u64) -> smallvec::SmallVec<[Linked; 6]> {
    let mut rest = packed >> 4;
    let mut out = smallvec::SmallVec::new();
    for _ in 0..packed & 15 {
        out.push(Linked {
            frame: (rest & 7) as usize,
            at: (rest >> 3 & 63) as usize,
            is_reg: rest >> 9 & 1 != 0,
        });
        rest >>= 10;
    }
    out
}

/// `r0,r2,r4`
fn reg_mask(mask: u32) -> String {
    let names = (0..32)
        .filter(|r| mask & 1 << r != 0)
        .map(|r| format!("r{r}"));
    names.collect::<Vec<_>>().join(",")
}
/// `-8,-24`
fn slot_mask(mask: u64) -> String {
    let names = (0..64)
        .filter(|s| mask & 1 << s != 0)
        .map(|s: i32| (-(s + 1) * 8).to_string());
    names.collect::<Vec<_>>().join(",")
}

/// The walk back cannot tell: everything is to be exact.
struct GiveUp;

/// `get_prev_insn_idx`
fn previous(st: &State, at: i32, history: &mut usize) -> Option<i32> {
    if at == st.first_insn_idx && (*history == 0 || *history == 1 && st.jmp_history[0].idx == at) {
        return None;
    }
    match history.checked_sub(1).map(|h| st.jmp_history[h]) {
        Some(h) if h.idx == at => {
            *history -= 1;
            Some(h.prev)
        }
        _ => Some(at - 1),
    }
}

/// Where a walk back stands: the state that it started in, or one that was explored.
#[derive(Clone, Copy)]
enum At {
    Start,
    Explored(StateId),
}

impl Verifier<'_> {
    /// `push_jmp_history`
    pub(crate) fn push_history(&mut self, flags: u32, linked: u64) {
        if self.has_hist_ent
            && let Some(last) = self.cur.jmp_history.last_mut()
        {
            last.flags |= flags;
            last.linked = linked;
            return;
        }
        self.cur.jmp_history.push(Hist {
            idx: self.insn_idx,
            prev: self.prev_insn_idx,
            flags,
            linked,
        });
        self.has_hist_ent = true;
    }

    /// `mark_chain_precision`
    pub(crate) fn mark_precise(&mut self, reg: usize) -> R {
        if planted::is(12) {
            return Ok(());
        }
        let mut bt = Backtrack::default();
        let frame = self.cur.curframe();
        if !self.cur.frames[frame].regs[reg].is_scalar() {
            return self.bug(format_args!("backtracking misuse"));
        }
        bt.set_reg(frame, reg);
        let mut cur = std::mem::take(&mut self.cur);
        let result = self.mark_precise_batch(&mut cur, bt, &mut false);
        self.cur = cur;
        result
    }

    /// `__mark_chain_precision` of all that is set in `bt`.
    pub(crate) fn mark_precise_batch(
        &mut self,
        start: &mut State,
        mut bt: Backtrack,
        changed: &mut bool,
    ) -> R {
        bt.frame = start.curframe();
        if bt.is_empty() {
            return Ok(());
        }
        let mut at = At::Start;
        let mut first = start.first_insn_idx;
        let mut last = start.insn_idx;
        let mut subseq = -1;
        let mut skip = true;
        loop {
            // The explored states are taken out for the walk: nothing there touches them.
            let explored = std::mem::take(&mut self.explored.arena);
            let st = match at {
                At::Start => &*start,
                At::Explored(id) => &explored[id as usize].state,
            };
            let parent = st.parent;
            let done = self.walk_state(st, &mut bt, (first, last), &mut subseq, &mut skip);
            self.explored.arena = explored;
            match done? {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(GiveUp) => {
                    if last < 0 {
                        return self.precise_at_entry(start, at, &bt, changed);
                    }
                    self.all_precise(start);
                    return Ok(());
                }
            }
            let Some(id) = parent else {
                self.all_precise(start);
                return Ok(());
            };
            self.mark_in_parent(id, &mut bt, changed)?;
            if bt.is_empty() {
                return Ok(());
            }
            at = At::Explored(id);
            let st = &self.explored.get_mut(id);
            subseq = first;
            last = st.last_insn_idx;
            first = st.first_insn_idx;
        }
    }

    /// Walks back over one state; `Ok(true)` where nothing is left to look for.
    fn walk_state(
        &mut self,
        st: &State,
        bt: &mut Backtrack,
        (first, last): (i32, i32),
        subseq: &mut i32,
        skip: &mut bool,
    ) -> R<Result<bool, GiveUp>> {
        let mut history = st.jmp_history.len();
        if self.log.level2() {
            verbose!(
                self,
                "mark_precise: frame{}: last_idx {last} first_idx {first} subseq_idx {} \n",
                bt.frame,
                *subseq
            );
        }
        if last < 0 {
            return Ok(Err(GiveUp));
        }
        let mut i = last;
        loop {
            if !std::mem::take(skip) {
                let hist = history
                    .checked_sub(1)
                    .map(|h| st.jmp_history[h])
                    .filter(|h| h.idx == i);
                if let Err(e) = self.backtrack(i, *subseq, hist.as_ref(), bt)? {
                    return Ok(Err(e));
                }
            }
            if bt.is_empty() {
                return Ok(Ok(true));
            }
            *subseq = i;
            match previous(st, i, &mut history) {
                None => return Ok(Ok(false)),
                Some(prev) => i = prev,
            }
            if i < 0 || i as usize >= self.insns.len() {
                return self.bug(format_args!("backtracking idx {i}"));
            }
        }
    }

    /// The walk came to a global function's entry: its arguments are all that may be left.
    fn precise_at_entry(
        &mut self,
        start: &mut State,
        at: At,
        bt: &Backtrack,
        changed: &mut bool,
    ) -> R {
        let st = match at {
            At::Start => start,
            At::Explored(id) => self.explored.get_mut(id),
        };
        let frame = &mut st.frames;
        let fine = frame.len() == 1
            && frame[0].subprog > 0
            && frame[0].callsite == MAIN
            && bt.stack[bt.frame] == 0
            && bt.regs[bt.frame] & !ARGS == 0;
        if !fine {
            let subprog = start_subprog(frame);
            return self.bug(format_args!(
                "backtracking func entry subprog {subprog} reg_mask {:x} stack_mask {:x}",
                bt.regs[bt.frame], bt.stack[bt.frame]
            ));
        }
        for i in 1..=5 {
            let reg = &mut frame[0].regs[i];
            if bt.has(i) && reg.is_scalar() {
                reg.precise = true;
                *changed = true;
            }
        }
        Ok(())
    }

    fn mark_in_parent(&mut self, id: StateId, bt: &mut Backtrack, changed: &mut bool) -> R {
        for fr in (0..=bt.frame).rev() {
            let st = self.explored.get_mut(id);
            let Some(frame) = st.frames.get_mut(fr) else {
                return self.bug(format_args!("backtracking frame {fr}"));
            };
            let mut mark = |reg: &mut Reg, scalar: bool| {
                let new = scalar && !reg.precise;
                if new {
                    reg.precise = true;
                    *changed = true;
                }
                new
            };
            for i in (0..11)
                .filter(|i| bt.regs[fr] & 1 << i != 0)
                .collect::<smallvec::SmallVec<[usize; 11]>>()
            {
                let scalar = frame.regs[i].is_scalar();
                if !mark(&mut frame.regs[i], scalar) {
                    bt.regs[fr] &= !(1 << i);
                }
            }
            let mut rest = bt.stack[fr];
            while rest != 0 {
                let i = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let total = frame.stack.len();
                let Some(slot) = frame.stack.get_mut(i) else {
                    return self.bug(format_args!("stack slot {i}, total slots {total}"));
                };
                let scalar = slot.is_scalar_spill();
                if !mark(&mut slot.reg, scalar) {
                    bt.stack[fr] &= !(1 << i);
                }
            }
            if self.log.level2() {
                let mut text = String::new();
                let _ = write!(
                    text,
                    "mark_precise: frame{fr}: parent state regs={} stack={}: ",
                    reg_mask(bt.regs[fr]),
                    slot_mask(bt.stack[fr])
                );
                let st = &self.explored.arena[id as usize].state;
                text += &self.fmt_state(st, fr, true);
                self.log.text.push_str(&text);
            }
        }
        Ok(())
    }

    /// `mark_all_scalars_precise`
    pub(crate) fn all_precise(&mut self, start: &State) {
        if self.log.level2() {
            verbose!(
                self,
                "mark_precise: frame{}: falling back to forcing all scalars precise\n",
                start.curframe()
            );
        }
        let mut next = start.parent;
        while let Some(id) = next {
            let level2 = self.log.level2();
            let st = self.explored.get_mut(id);
            next = st.parent;
            let mut text = String::new();
            for (i, frame) in st.frames.iter_mut().enumerate() {
                for (j, reg) in frame.regs[..10].iter_mut().enumerate() {
                    if reg.is_scalar() && !reg.precise {
                        reg.precise = true;
                        let _ =
                            writeln!(text, "force_precise: frame{i}: forcing r{j} to be precise");
                    }
                }
                for (j, slot) in frame.stack.iter_mut().enumerate() {
                    if slot.is_scalar_spill() && !slot.reg.precise {
                        slot.reg.precise = true;
                        let off = -8 * (j as i64 + 1);
                        let _ = writeln!(
                            text,
                            "force_precise: frame{i}: forcing fp{off} to be precise"
                        );
                    }
                }
            }
            if level2 {
                self.log.text.push_str(&text);
            }
        }
    }

    /// `backtrack_insn`
    fn backtrack(
        &mut self,
        at: i32,
        subseq: i32,
        hist: Option<&Hist>,
        bt: &mut Backtrack,
    ) -> R<Result<(), GiveUp>> {
        let idx = at as usize;
        let insn = self.insns[idx];
        let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
        let op = insn.code & 0xf0;
        let by_reg = insn.code & 8 != 0;
        if insn.code == 0 {
            return Ok(Ok(()));
        }
        if self.log.level2() {
            verbose!(
                self,
                "mark_precise: frame{}: regs={} stack={} before {at}: ",
                bt.frame,
                reg_mask(bt.regs[bt.frame]),
                slot_mask(bt.stack[bt.frame])
            );
            self.print_insn(idx);
        }
        bt.sync_linked(hist);
        let spill = hist.filter(|h| h.flags & F_STACK != 0).map(|h| h.flags);
        let slot = |flags: u32| ((flags & 7) as usize, (flags >> 3 & 63) as usize);
        let load_acq =
            insn.class() == BPF_STX && insn.code & 0xe0 == BPF_ATOMIC && insn.imm == BPF_LOAD_ACQ;
        match insn.class() {
            BPF_ALU | BPF_ALU64 => {
                if !bt.has(dst) || matches!(op, BPF_END | BPF_NEG) {
                    return Ok(Ok(()));
                }
                if op == BPF_MOV {
                    bt.clear(dst);
                }
                if by_reg && src != 10 {
                    bt.set(src);
                }
            }
            _ if insn.class() == BPF_LDX || load_acq => {
                if !bt.has(dst) {
                    return Ok(Ok(()));
                }
                bt.clear(dst);
                let Some(flags) = spill else {
                    return Ok(Ok(()));
                };
                let (fr, spi) = slot(flags);
                bt.set_slot(fr, spi);
            }
            BPF_STX | BPF_ST => {
                if bt.has(dst) {
                    return Ok(Err(GiveUp));
                }
                let Some(flags) = spill else {
                    return Ok(Ok(()));
                };
                let (fr, spi) = slot(flags);
                if bt.stack[fr] & 1 << spi == 0 {
                    return Ok(Ok(()));
                }
                bt.stack[fr] &= !(1 << spi);
                if insn.class() == BPF_STX {
                    bt.set(src);
                }
            }
            BPF_JMP | BPF_JMP32 => return self.backtrack_jump(at, subseq, hist, bt),
            BPF_LD => {
                let early = matches!(insn.code & 0xe0, BPF_IND | BPF_ABS) && subseq - at != 1;
                if early && subseq >= 0 && bt.frame < MAX_FRAMES - 1 {
                    bt.frame += 1;
                }
                if !bt.has(dst) {
                    return Ok(Ok(()));
                }
                bt.clear(dst);
                if matches!(insn.code & 0xe0, BPF_IND | BPF_ABS) {
                    return Ok(Err(GiveUp));
                }
            }
            _ => {}
        }
        bt.sync_linked(hist);
        Ok(Ok(()))
    }

    fn backtrack_jump(
        &mut self,
        at: i32,
        subseq: i32,
        hist: Option<&Hist>,
        bt: &mut Backtrack,
    ) -> R<Result<(), GiveUp>> {
        let insn = self.insns[at as usize];
        let op = insn.code & 0xf0;
        let regs = bt.regs[bt.frame];
        if is_pseudo_call(insn) {
            let Some(callee) = self.find_subprog(i64::from(at) + i64::from(insn.imm) + 1) else {
                return self.bug(format_args!("backtracking call"));
            };
            if self.subprogs[callee].global {
                if regs & ARGS != 0 {
                    return self.bug(format_args!("global subprog unexpected regs {regs:x}"));
                }
                bt.clear(0);
                return Ok(Ok(()));
            }
            if regs & !ARGS != 0 {
                return self.bug(format_args!("static subprog unexpected regs {regs:x}"));
            }
            let slots = bt.stack[bt.frame];
            if slots != 0 {
                return self.bug(format_args!(
                    "static subprog leftover stack slots {slots:x}"
                ));
            }
            bt.regs[bt.frame] &= !ARGS;
            let Some(outer) = bt.frame.checked_sub(1) else {
                return self.bug(format_args!("subprog exit from frame 0"));
            };
            bt.regs[outer] |= regs & ARGS;
            bt.frame = outer;
            return Ok(Ok(()));
        }
        if at != subseq - 1 && self.calls_sync_at(insn) {
            if regs & !ARGS != 0 {
                return self.bug(format_args!("callback unexpected regs {regs:x}"));
            }
            let slots = bt.stack[bt.frame];
            if slots != 0 {
                return self.bug(format_args!("callback leftover stack slots {slots:x}"));
            }
            bt.regs[bt.frame] &= !ARGS;
            let Some(outer) = bt.frame.checked_sub(1) else {
                return self.bug(format_args!("subprog exit from frame 0"));
            };
            bt.frame = outer;
            return Ok(Ok(()));
        }
        if op == BPF_CALL {
            if insn.src() == BPF_PSEUDO_KFUNC_CALL && insn.imm == 0 {
                return Ok(Err(GiveUp));
            }
            let tail = insn.src() == 0 && insn.imm == bpfsim_abi::Func::TailCall.number() as i32;
            if tail && subseq - at != 1 && bt.frame < MAX_FRAMES - 1 {
                bt.frame += 1;
            }
            bt.clear(0);
            let regs = bt.regs[bt.frame];
            if regs & ARGS != 0 {
                return self.bug(format_args!("backtracking call unexpected regs {regs:x}"));
            }
        } else if op == BPF_EXIT {
            let next = usize::try_from(subseq).ok();
            if next.is_some_and(|n| self.aux[n].calls_callback) {
                bt.regs[bt.frame] &= !ARGS;
            }
            let regs = bt.regs[bt.frame];
            if regs & ARGS != 0 {
                return self.bug(format_args!("backtracking exit unexpected regs {regs:x}"));
            }
            let called = next
                .and_then(|n| n.checked_sub(1))
                .is_some_and(|n| is_pseudo_call(self.insns[n]));
            let r0 = called && bt.has(0);
            bt.clear(0);
            if bt.frame == MAX_FRAMES - 1 {
                return self.bug(format_args!("subprog enter from frame {}", bt.frame));
            }
            bt.frame += 1;
            if r0 {
                bt.set(0);
            }
            return Ok(Ok(()));
        } else if insn.code & 8 != 0 {
            let (dst, src) = (usize::from(insn.dst()), usize::from(insn.src()));
            if !bt.has(dst) && !bt.has(src) {
                return Ok(Ok(()));
            }
            let flags = hist.map_or(0, |h| h.flags);
            if flags & F_SRC_STACK == 0 {
                bt.set(src);
            }
            if flags & F_DST_STACK == 0 {
                bt.set(dst);
            }
        }
        bt.sync_linked(hist);
        Ok(Ok(()))
    }

    /// `propagate_precision`: what was exact in `old` is to be in how `cur` came about.
    pub(crate) fn propagate_precision(
        &mut self,
        old: StateId,
        cur: &mut State,
        changed: &mut bool,
    ) -> R {
        let mut bt = Backtrack::default();
        let mut text = String::new();
        let level2 = self.log.level2();
        let st = self.explored.get_mut(old);
        for (fr, frame) in st.frames.iter().enumerate().rev() {
            let mut first = true;
            let mut note = |name: std::fmt::Arguments<'_>| {
                if level2 {
                    let _ = match first {
                        true => write!(text, "frame {fr}: propagating {name}"),
                        false => write!(text, ",{name}"),
                    };
                }
                first = false;
            };
            for (i, reg) in frame.regs[..10].iter().enumerate() {
                if reg.is_scalar() && reg.precise {
                    note(format_args!("r{i}"));
                    bt.set_reg(fr, i);
                }
            }
            for (i, slot) in frame.stack.iter().enumerate() {
                if slot.is_scalar_spill() && slot.reg.precise {
                    note(format_args!("fp{}", -8 * (i as i64 + 1)));
                    bt.set_slot(fr, i);
                }
            }
            if !first && level2 {
                text.push('\n');
            }
        }
        self.log.text.push_str(&text);
        self.mark_precise_batch(cur, bt, changed)
    }
}

fn start_subprog(frames: &[Frame]) -> u32 {
    frames.first().map_or(0, |f| f.subprog)
}

/// `mark_all_scalars_imprecise`
pub(crate) fn forget_precision(st: &mut State) {
    for frame in &mut st.frames {
        for reg in &mut frame.regs[..10] {
            if reg.is_scalar() {
                reg.precise = false;
            }
        }
        for slot in &mut frame.stack {
            if slot.is_scalar_spill() {
                slot.reg.precise = false;
            }
        }
    }
}
