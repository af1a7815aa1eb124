//! A point in the verifier's walk: frames, references, locks (`struct bpf_verifier_state`).

use crate::reg::{Reg, ty};

/// What a byte of the stack holds: `enum bpf_stack_slot_type`.
pub(crate) mod kind {
    pub const INVALID: u8 = 0;
    pub const SPILL: u8 = 1;
    pub const MISC: u8 = 2;
    pub const ZERO: u8 = 3;
    pub const DYNPTR: u8 = 4;
    pub const ITER: u8 = 5;
    pub const IRQ_FLAG: u8 = 6;
}

/// Eight bytes of the stack.
#[derive(Clone, Copy, Default)]
pub(crate) struct Slot {
    pub reg: Reg,
    pub kinds: [u8; 8],
}

impl Slot {
    /// `is_spilled_reg`
    pub fn is_spill(&self) -> bool {
        self.kinds[7] == kind::SPILL
    }
    /// `is_spilled_scalar_reg`
    pub fn is_scalar_spill(&self) -> bool {
        self.is_spill() && self.reg.is_scalar()
    }
    /// `is_spilled_scalar_reg64`
    pub fn is_scalar_spill64(&self) -> bool {
        self.kinds[0] == kind::SPILL && self.reg.is_scalar()
    }
    /// `is_stack_slot_special`
    pub fn is_special(&self) -> bool {
        matches!(
            self.kinds[7],
            kind::SPILL | kind::DYNPTR | kind::ITER | kind::IRQ_FLAG
        )
    }
    /// `save_register_state`
    pub fn save(&mut self, reg: &Reg, size: usize) {
        self.reg = *reg;
        self.kinds[8 - size..].fill(kind::SPILL);
        for k in &mut self.kinds[..8 - size] {
            if !matches!(*k, kind::ZERO | kind::INVALID) {
                *k = kind::MISC;
            }
        }
    }
    /// Bytes that held something hold anything: `scrub_spilled_slot`.
    pub fn scrub(&mut self) {
        for k in &mut self.kinds {
            if *k != kind::INVALID {
                *k = kind::MISC;
            }
        }
    }
    /// Forgets register and bytes.
    pub fn invalidate(&mut self) {
        *self = Slot::default();
    }
}

/// Where the main program was called from, `BPF_MAIN_FUNC`.
pub(crate) const MAIN: i32 = -1;
/// `MAX_CALL_FRAMES`
pub(crate) const MAX_FRAMES: usize = 8;

/// A subprogram's registers and stack (`struct bpf_func_state`).
#[derive(Default)]
pub(crate) struct Frame {
    pub regs: [Reg; 11],
    pub stack: Vec<Slot>,
    pub callsite: i32,
    pub frameno: u8,
    pub subprog: u32,
    pub async_entry_cnt: u32,
    pub callback_ret: (i32, i32),
    pub in_callback: bool,
    pub in_async: bool,
    pub in_exception: bool,
    pub callback_depth: u32,
}

impl Clone for Frame {
    fn clone(&self) -> Self {
        Frame {
            stack: self.stack.clone(),
            ..*self
        }
    }
    fn clone_from(&mut self, from: &Self) {
        let mut stack = std::mem::take(&mut self.stack);
        stack.clone_from(&from.stack);
        *self = Frame { stack, ..*from };
    }
}

impl Frame {
    pub fn new(callsite: i32, frameno: u8, subprog: u32) -> Frame {
        let mut frame = Frame {
            callsite,
            frameno,
            subprog,
            ..Frame::default()
        };
        frame.regs[10] = Reg {
            frameno,
            ..Reg::pointer(ty::STACK)
        };
        frame
    }
    /// Registers and spilled registers; others in slots whose last byte is of a kind in `mask`.
    fn each_reg(&mut self, mask: u32, f: &mut impl FnMut(&mut Reg)) {
        self.regs.iter_mut().for_each(&mut *f);
        for slot in &mut self.stack {
            if mask & 1 << slot.kinds[7] != 0 {
                f(&mut slot.reg);
            }
        }
    }
}

/// What a [`Ref`] is: `enum ref_state_type`.
pub(crate) mod reftype {
    pub const PTR: u8 = 1 << 1;
    pub const IRQ: u8 = 1 << 2;
    pub const LOCK: u8 = 1 << 3;
    pub const RES_LOCK: u8 = 1 << 4;
    pub const RES_LOCK_IRQ: u8 = 1 << 5;
    pub const LOCK_MASK: u8 = LOCK | RES_LOCK | RES_LOCK_IRQ;
}

/// Something to be given back (`struct bpf_reference_state`).
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Ref {
    pub kind: u8,
    pub id: u32,
    pub insn: i32,
    /// A lock's map or BTF.
    pub ptr: u32,
}

/// How control came to an instruction (`struct bpf_jmp_history_entry`).
#[derive(Clone, Copy)]
pub(crate) struct Hist {
    pub idx: i32,
    pub prev: i32,
    pub flags: u32,
    pub linked: u64,
}

/// `INSN_F_*`: the low nine bits say which frame and slot.
pub(crate) const F_STACK: u32 = 1 << 9;
pub(crate) const F_DST_STACK: u32 = 1 << 10;
pub(crate) const F_SRC_STACK: u32 = 1 << 11;

/// Number of a state that was explored.
pub(crate) type StateId = u32;

#[derive(Default)]
pub(crate) struct State {
    pub frames: Vec<Frame>,
    pub refs: Vec<Ref>,
    pub jmp_history: Vec<Hist>,
    pub active_locks: u32,
    pub active_preempt: u32,
    pub active_rcu: bool,
    pub active_irq_id: u32,
    pub active_lock_id: u32,
    pub active_lock_ptr: u32,
    pub in_sleepable: bool,
    pub cleaned: bool,
    pub branches: u32,
    pub parent: Option<StateId>,
    pub insn_idx: i32,
    pub first_insn_idx: i32,
    pub last_insn_idx: i32,
    pub dfs_depth: u32,
    pub callback_unroll_depth: u32,
    pub may_goto_depth: u32,
}

impl State {
    pub fn copy_from(&mut self, from: &State) {
        self.frames.clone_from(&from.frames);
        self.refs.clone_from(&from.refs);
        self.jmp_history.clone_from(&from.jmp_history);
        let (frames, refs, jmp_history) = (
            std::mem::take(&mut self.frames),
            std::mem::take(&mut self.refs),
            std::mem::take(&mut self.jmp_history),
        );
        *self = State {
            frames,
            refs,
            jmp_history,
            ..*from
        };
    }
    pub fn curframe(&self) -> usize {
        self.frames.len().saturating_sub(1)
    }
    pub fn top(&self) -> &Frame {
        &self.frames[self.frames.len() - 1]
    }
    pub fn top_mut(&mut self) -> &mut Frame {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }
    /// `frame_insn_idx`
    pub fn frame_insn(&self, frame: usize) -> i32 {
        match self.frames.get(frame + 1) {
            Some(callee) => callee.callsite,
            None => self.insn_idx,
        }
    }
    /// `same_callsites`
    pub fn same_callsites(&self, other: &State) -> bool {
        self.frames.len() == other.frames.len()
            && self
                .frames
                .iter()
                .zip(&other.frames)
                .rev()
                .all(|(a, b)| a.callsite == b.callsite)
    }
    /// `bpf_for_each_reg_in_vstate`
    pub fn each_reg(&mut self, mut f: impl FnMut(&mut Reg)) {
        self.each_reg_in(1 << kind::SPILL, &mut f);
    }
    /// `bpf_for_each_reg_in_vstate_mask`
    pub fn each_reg_in(&mut self, mask: u32, mut f: impl FnMut(&mut Reg)) {
        for frame in &mut self.frames {
            frame.each_reg(mask, &mut f);
        }
    }
    /// `find_lock_state`
    pub fn find_lock(&self, kinds: u8, id: u32, ptr: u32) -> bool {
        self.refs
            .iter()
            .any(|r| r.kind & kinds != 0 && r.id == id && r.ptr == ptr)
    }
    /// `release_reference_nomark`
    pub fn drop_ref(&mut self, id: u32) -> bool {
        let found = self
            .refs
            .iter()
            .position(|r| r.kind == reftype::PTR && r.id == id);
        if let Some(at) = found {
            self.refs.remove(at);
        }
        found.is_some()
    }
    /// `release_lock_state`
    pub fn drop_lock(&mut self, kind: u8, id: u32, ptr: u32) -> bool {
        let (mut prev_id, mut prev_ptr) = (0, 0);
        for at in 0..self.refs.len() {
            let r = self.refs[at];
            if r.kind == kind && r.id == id && r.ptr == ptr {
                self.refs.remove(at);
                self.active_locks -= 1;
                (self.active_lock_id, self.active_lock_ptr) = (prev_id, prev_ptr);
                return true;
            }
            if r.kind & reftype::LOCK_MASK != 0 {
                (prev_id, prev_ptr) = (r.id, r.ptr);
            }
        }
        false
    }
}
