//! Control flow: what is reachable, where to prune, loops, live registers, fastcall patterns.

use bpfsim_abi::Func;
use bpfsim_abi::helper::{ProtoFlags, RetBase};
use bpfsim_abi::kfunc::KfuncFlags;
use bpfsim_isa::{Insn, uapi::*};
use smallvec::{SmallVec, smallvec};

use crate::log::verbose;
use crate::refusal::{quiet, reject};
use crate::verifier::{R, Verifier};

const DISCOVERED: u8 = 0x10;
const EXPLORED: u8 = 0x20;
const FALLTHROUGH: u8 = 1;
const BRANCH: u8 = 2;

/// R0 to R5, which a call does not keep.
const CALLER_SAVED: u16 = 0x3f;

/// `struct call_summary`
struct Call {
    params: u32,
    is_void: bool,
    fastcall: bool,
}

/// A call of a helper.
pub(crate) fn is_helper_call(insn: Insn) -> bool {
    insn.code == BPF_JMP | BPF_CALL && insn.src() == 0
}
/// A call of a subprogram.
pub(crate) fn is_pseudo_call(insn: Insn) -> bool {
    insn.code == BPF_JMP | BPF_CALL && insn.src() == BPF_PSEUDO_CALL
}
/// A call of a kernel function.
pub(crate) fn is_kfunc_call(insn: Insn) -> bool {
    insn.code == BPF_JMP | BPF_CALL && insn.src() == BPF_PSEUDO_KFUNC_CALL
}
fn is_pseudo_func(insn: Insn) -> bool {
    insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC
}
/// `may_goto`
pub(crate) fn is_may_goto(insn: Insn) -> bool {
    insn.code == BPF_JMP | BPF_JCOND && insn.src() == 0
}
/// Whether this helper calls a function of the program before it returns.
pub(crate) fn calls_sync(imm: i32) -> bool {
    [
        Func::ForEachMapElem,
        Func::FindVma,
        Func::Loop,
        Func::UserRingbufDrain,
    ]
    .iter()
    .any(|f| f.number() as i32 == imm)
}

impl Verifier<'_> {
    /// `is_sync_callback_calling_insn`
    pub(crate) fn calls_sync_at(&self, insn: Insn) -> bool {
        is_helper_call(insn) && calls_sync(insn.imm)
            || is_kfunc_call(insn) && self.kfunc_name(insn.imm) == "bpf_rbtree_add_impl"
    }

    fn calls_async_at(&self, insn: Insn) -> bool {
        is_helper_call(insn) && insn.imm == Func::TimerSetCallback.number() as i32
            || is_kfunc_call(insn) && crate::kfunc::is_async(self.kfunc_name(insn.imm))
    }

    /// `bpf_insn_successors`: the next one first, then the jump's target.
    pub(crate) fn successors(&self, at: usize) -> SmallVec<[usize; 2]> {
        let insn = self.insns[at];
        let next = at + if insn.is_ld_imm64() { 2 } else { 1 };
        if !matches!(insn.class(), BPF_JMP | BPF_JMP32) {
            return smallvec![next];
        }
        let to = (at as i64 + 1 + self.jump_off(at)) as usize;
        match insn.code & 0xf0 {
            BPF_EXIT => smallvec![],
            BPF_CALL => smallvec![next],
            BPF_JA => smallvec![to],
            _ => smallvec![next, to],
        }
    }

    fn mark_prune(&mut self, at: i64) {
        if let Some(aux) = usize::try_from(at).ok().and_then(|i| self.aux.get_mut(i)) {
            aux.prune_point = true;
        }
    }
    fn mark_jump(&mut self, at: i64) {
        if let Some(aux) = usize::try_from(at).ok().and_then(|i| self.aux.get_mut(i)) {
            aux.jmp_point = true;
        }
    }

    /// `push_insn`; whether there is more to do at `t`.
    fn push_edge(
        &mut self,
        t: usize,
        to: i64,
        edge: u8,
        state: &mut [u8],
        stack: &mut Vec<usize>,
    ) -> R<bool> {
        if state[t] >= DISCOVERED | edge {
            return Ok(false);
        }
        let Some(w) = usize::try_from(to).ok().filter(|w| *w < self.insns.len()) else {
            self.print_line(t, format_args!("{t}: "));
            reject!(self, EINVAL, "jump out of range from insn {t} to {to}\n");
        };
        if edge == BRANCH {
            self.mark_prune(to);
            self.mark_jump(to);
        }
        if state[w] == 0 {
            state[t] = DISCOVERED | edge;
            state[w] = DISCOVERED;
            if stack.len() >= self.insns.len() {
                return Err(quiet!(
                    self,
                    E2BIG,
                    "a walk through the program's jumps that holds more instructions than there are"
                ));
            }
            stack.push(w);
            return Ok(true);
        }
        if state[w] == EXPLORED {
            state[t] = DISCOVERED | edge;
        }
        Ok(false)
    }

    fn visit_call(
        &mut self,
        t: usize,
        callee: bool,
        state: &mut [u8],
        stack: &mut Vec<usize>,
    ) -> R<bool> {
        let insn = self.insns[t];
        let next = t as i64 + if insn.is_ld_imm64() { 2 } else { 1 };
        if self.push_edge(t, next, FALLTHROUGH, state, stack)? {
            return Ok(true);
        }
        self.mark_prune(next);
        self.mark_jump(next);
        if !callee {
            return Ok(false);
        }
        let to = t as i64 + i64::from(insn.imm) + 1;
        self.mark_prune(t as i64);
        if let Ok(w) = usize::try_from(to) {
            let (from, w) = (self.containing_subprog(t), self.containing_subprog(w));
            let (pkt, sleep) = (self.subprogs[w].changes_pkt, self.subprogs[w].might_sleep);
            self.subprogs[from].changes_pkt |= pkt;
            self.subprogs[from].might_sleep |= sleep;
        }
        self.push_edge(t, to, BRANCH, state, stack)
    }

    /// What a call does that is known before the walk.
    fn mark_call(&mut self, t: usize) {
        let insn = self.insns[t];
        if self.calls_async_at(insn) {
            self.aux[t].prune_point = true;
        }
        if self.calls_sync_at(insn) {
            let aux = &mut self.aux[t];
            aux.calls_callback = true;
            aux.force_checkpoint = true;
            aux.prune_point = true;
            aux.jmp_point = true;
        }
        let sub = self.containing_subprog(t);
        if is_helper_call(insn) {
            if let Some(p) = self.helper_proto(insn.imm) {
                self.subprogs[sub].might_sleep |= p.is(ProtoFlags::MIGHT_SLEEP);
            }
            let changes = u32::try_from(insn.imm)
                .ok()
                .and_then(crate::verifier::func)
                .is_some_and(crate::helper::changes_pkt);
            self.subprogs[sub].changes_pkt |= changes;
        } else if is_kfunc_call(insn)
            && let Some(k) = self.kfunc_allowed(insn.imm)
        {
            if k.flags.contains(KfuncFlags::ITER_NEXT) {
                self.aux[t].prune_point = true;
                self.aux[t].force_checkpoint = true;
            }
            self.subprogs[sub].might_sleep |= k.flags.contains(KfuncFlags::SLEEPABLE);
            self.subprogs[sub].changes_pkt |= k.name == "bpf_xdp_pull_data";
        }
    }

    /// `visit_insn`
    fn visit_insn(&mut self, t: usize, state: &mut [u8], stack: &mut Vec<usize>) -> R<bool> {
        let insn = self.insns[t];
        if is_pseudo_func(insn) {
            return self.visit_call(t, true, state, stack);
        }
        if !matches!(insn.class(), BPF_JMP | BPF_JMP32) {
            let next = t as i64 + if insn.is_ld_imm64() { 2 } else { 1 };
            return self.push_edge(t, next, FALLTHROUGH, state, stack);
        }
        match insn.code & 0xf0 {
            BPF_EXIT => Ok(false),
            BPF_CALL => {
                self.mark_call(t);
                self.visit_call(t, insn.src() == BPF_PSEUDO_CALL, state, stack)
            }
            BPF_JA => {
                if insn.code & 8 != 0 {
                    return Err(quiet!(
                        self,
                        EINVAL,
                        "an unconditional jump with a register"
                    ));
                }
                let to = t as i64 + self.jump_off(t) + 1;
                if self.push_edge(t, to, FALLTHROUGH, state, stack)? {
                    return Ok(true);
                }
                self.mark_prune(to);
                self.mark_jump(to);
                Ok(false)
            }
            _ => {
                self.aux[t].prune_point = true;
                if is_may_goto(insn) {
                    self.aux[t].force_checkpoint = true;
                }
                if self.push_edge(t, t as i64 + 1, FALLTHROUGH, state, stack)? {
                    return Ok(true);
                }
                let to = t as i64 + i64::from(insn.off) + 1;
                self.push_edge(t, to, BRANCH, state, stack)
            }
        }
    }

    /// `check_cfg`
    pub(crate) fn check_cfg(&mut self) -> R {
        let len = self.insns.len();
        let mut state = vec![0u8; len];
        let mut roots = vec![0];
        if self.exception_cb != 0 {
            roots.push(self.subprogs[self.exception_cb].start);
        }
        for root in roots {
            if state[root] == EXPLORED {
                continue;
            }
            state[root] = DISCOVERED;
            let mut stack = vec![root];
            while let Some(t) = stack.last().copied() {
                if !self.visit_insn(t, &mut state, &mut stack)? {
                    state[t] = EXPLORED;
                    stack.pop();
                }
            }
        }
        let mut i = 0;
        while i < len {
            if state[i] != EXPLORED {
                reject!(self, EINVAL, "unreachable insn {i}\n");
            }
            if self.insns[i].is_ld_imm64() {
                if state.get(i + 1).is_some_and(|s| *s != 0) {
                    reject!(self, EINVAL, "jump into the middle of ldimm64 insn {i}\n");
                }
                i += 1;
            }
            i += 1;
        }
        Ok(())
    }

    /// `compute_postorder`: instructions of each subprogram, successors first.
    pub(crate) fn compute_postorder(&mut self) {
        let mut state = vec![0u8; self.insns.len()];
        let mut order = Vec::with_capacity(self.insns.len());
        for s in 0..self.subprog_cnt {
            self.subprogs[s].postorder_start = order.len();
            let mut stack = vec![self.subprogs[s].start];
            while let Some(top) = stack.last().copied() {
                state[top] |= DISCOVERED;
                if state[top] & EXPLORED != 0 {
                    order.push(top as u32);
                    stack.pop();
                    continue;
                }
                for w in self.successors(top) {
                    if state[w] == 0 {
                        stack.push(w);
                        state[w] |= DISCOVERED;
                    }
                }
                state[top] |= EXPLORED;
            }
        }
        self.subprogs[self.subprog_cnt].postorder_start = order.len();
        self.postorder = order;
    }

    /// `compute_scc`: numbers loops.
    pub(crate) fn compute_scc(&mut self) {
        const OFF: u32 = u32::MAX;
        let len = self.insns.len();
        let (mut pre, mut low) = (vec![0u32; len], vec![0u32; len]);
        let mut stack = Vec::new();
        let mut next_pre = 1;
        let mut next_scc = 1;
        for i in 0..len {
            if pre[i] != 0 {
                continue;
            }
            let mut dfs = vec![i];
            'dfs: while let Some(w) = dfs.last().copied() {
                if pre[w] == 0 {
                    low[w] = next_pre;
                    pre[w] = next_pre;
                    next_pre += 1;
                    stack.push(w);
                }
                // Behind a call or a jump nothing may lie: the second half of an ldimm64.
                let succ = self.successors(w);
                for s in succ.iter().copied().filter(|s| *s < len) {
                    if pre[s] == 0 {
                        dfs.push(s);
                        continue 'dfs;
                    }
                    low[w] = low[w].min(low[s]);
                }
                if low[w] < pre[w] {
                    dfs.pop();
                    continue;
                }
                let assign = stack.last() != Some(&w) || succ.contains(&w);
                while let Some(t) = stack.pop() {
                    low[t] = OFF;
                    if assign {
                        self.aux[t].scc = next_scc;
                    }
                    if t == w {
                        break;
                    }
                }
                next_scc += u32::from(assign);
                dfs.pop();
            }
        }
    }

    /// `get_call_summary`
    fn call_summary(&mut self, insn: Insn) -> Option<Call> {
        if is_helper_call(insn) {
            let p = self.helper_proto(insn.imm)?;
            return Some(Call {
                params: p.args.len() as u32,
                is_void: p.ret.base == RetBase::Void,
                fastcall: p.is(ProtoFlags::FASTCALL)
                    && [
                        Func::GetSmpProcessorId,
                        Func::GetCurrentTask,
                        Func::GetCurrentTaskBtf,
                    ]
                    .contains(&p.func),
            });
        }
        if is_kfunc_call(insn) {
            let k = self.kfunc_allowed(insn.imm)?;
            return Some(Call {
                params: k.params.len() as u32,
                is_void: k.ret.0 == 0,
                fastcall: k.flags.contains(KfuncFlags::FASTCALL),
            });
        }
        None
    }

    /// `compute_insn_live_regs`: what it reads, what it writes.
    fn use_def(&mut self, insn: Insn) -> (u16, u16) {
        let (src, dst) = (1u16 << insn.src(), 1u16 << insn.dst());
        let op = insn.code & 0xf0;
        let mode = insn.code & 0xe0;
        let by_reg = insn.code & 8 != 0;
        match insn.class() {
            BPF_LD if mode == BPF_IMM && insn.code & 0x18 == BPF_DW => (0, dst),
            BPF_LDX if matches!(mode, BPF_MEM | BPF_MEMSX) => (src, dst),
            BPF_ST if mode == BPF_MEM => (dst, 0),
            BPF_STX if mode == BPF_MEM => (dst | src, 0),
            BPF_STX if mode == BPF_ATOMIC => match insn.imm {
                BPF_CMPXCHG => (1 | dst | src, 1),
                BPF_LOAD_ACQ => (src, dst),
                BPF_STORE_REL => (dst | src, 0),
                imm => (dst | src, if imm & BPF_FETCH != 0 { src } else { 0 }),
            },
            BPF_ALU | BPF_ALU64 => match op {
                BPF_END => (dst, dst),
                BPF_MOV => (if by_reg { src } else { 0 }, dst),
                _ => (if by_reg { dst | src } else { dst }, dst),
            },
            BPF_JMP | BPF_JMP32 => match op {
                BPF_JA | BPF_JCOND => (0, 0),
                BPF_EXIT => (1, 0),
                BPF_CALL => {
                    let uses = match self.call_summary(insn) {
                        Some(c) => (1u16 << (c.params + 1)) - 2,
                        None => CALLER_SAVED & !1,
                    };
                    (uses, CALLER_SAVED)
                }
                _ => (if by_reg { dst | src } else { dst }, 0),
            },
            _ => (0xffff, 0),
        }
    }

    /// `compute_live_registers`
    pub(crate) fn compute_live_registers(&mut self) {
        let len = self.insns.len();
        let mut use_def = Vec::with_capacity(len);
        for i in 0..len {
            use_def.push(self.use_def(self.insns[i]));
        }
        loop {
            let mut changed = false;
            for i in 0..self.postorder.len() {
                let at = self.postorder[i] as usize;
                let out = self
                    .successors(at)
                    .iter()
                    .fold(0, |m, s| m | self.aux[*s].live_before);
                let (uses, defs) = use_def[at];
                let live = out & !defs | uses;
                changed |= self.aux[at].live_before != live;
                self.aux[at].live_before = live;
            }
            if !changed {
                break;
            }
        }
        if self.log.level2() {
            self.print_live();
        }
    }

    fn print_live(&mut self) {
        verbose!(self, "Live regs before insn:\n");
        let mut i = 0;
        while i < self.insns.len() {
            match self.aux[i].scc {
                0 => verbose!(self, "    "),
                n => verbose!(self, "{n:3} "),
            }
            let regs: String = (0..10)
                .map(|r| match self.aux[i].live_before & 1 << r {
                    0 => '.',
                    _ => char::from(b'0' + r),
                })
                .collect();
            verbose!(self, "{i:3}: {regs} ");
            self.print_insn(i);
            i += if self.insns[i].is_ld_imm64() { 2 } else { 1 };
        }
    }

    /// `mark_fastcall_patterns`
    pub(crate) fn mark_fastcall_patterns(&mut self) {
        for s in 0..self.subprog_cnt {
            let (start, end) = (self.subprogs[s].start, self.subprogs[s + 1].start);
            let spills = self.insns[start..end].iter();
            let lowest = spills
                .filter(|i| i.code == BPF_STX | BPF_MEM | BPF_DW && i.dst() == 10)
                .map(|i| i.off)
                .min()
                .unwrap_or(0)
                .min(0);
            for i in start..end {
                if self.insns[i].code == BPF_JMP | BPF_CALL {
                    self.mark_fastcall(s, i, lowest);
                }
            }
        }
    }

    /// `mark_fastcall_pattern_for_call`
    fn mark_fastcall(&mut self, sub: usize, at: usize, lowest: i16) {
        let Some(call) = self.call_summary(self.insns[at]) else {
            return;
        };
        let clobbered = ((1u16 << (call.params + 1)) - 1) & !u16::from(call.is_void);
        let mut expected = !clobbered & CALLER_SAVED;
        let mut off = lowest;
        let mut i = 1;
        while i <= 6 && at >= i && at + i < self.insns.len() {
            let (stx, ldx) = (self.insns[at - i], self.insns[at + i]);
            let pair = stx.code == BPF_STX | BPF_MEM | BPF_DW
                && ldx.code == BPF_LDX | BPF_MEM | BPF_DW
                && stx.dst() == 10
                && ldx.src() == 10
                && stx.src() == ldx.dst();
            if !pair || expected & 1 << stx.src() == 0 || stx.off != off || ldx.off != off {
                break;
            }
            expected &= !(1 << stx.src());
            self.aux[at - i].fastcall_pattern = true;
            self.aux[at + i].fastcall_pattern = true;
            i += 1;
            off = off.wrapping_add(8);
        }
        if i == 1 {
            return;
        }
        if call.fastcall {
            self.aux[at].fastcall_spills = i as u8 - 1;
        } else {
            self.subprogs[sub].keep_fastcall = true;
        }
        let sub = &mut self.subprogs[sub];
        sub.fastcall_off = sub.fastcall_off.min(off.into());
    }

    /// `remove_fastcall_spills_fills`: the stack that subprograms then no longer take.
    pub(crate) fn apply_fastcall_depths(&mut self) {
        for s in 0..self.subprog_cnt {
            let (start, end) = (self.subprogs[s].start, self.subprogs[s + 1].start);
            let removed = self.aux[start..end].iter().any(|a| a.fastcall_spills > 0);
            let sub = &mut self.subprogs[s];
            if removed && !sub.keep_fastcall {
                sub.stack_depth = -sub.fastcall_off;
            }
        }
    }

    /// `check_fastcall_stack_contract`
    pub(crate) fn check_fastcall(&mut self, sub: u32, insn: usize, off: i32) {
        let sub = sub as usize;
        if self.subprogs[sub].fastcall_off <= off || self.aux[insn].fastcall_pattern {
            return;
        }
        self.subprogs[sub].fastcall_off = i16::MIN.into();
        let (start, end) = (self.subprogs[sub].start, self.subprogs[sub + 1].start);
        for aux in &mut self.aux[start..end] {
            aux.fastcall_spills = 0;
            aux.fastcall_pattern = false;
        }
    }
}
