//! Statements of kernel functions, dynptrs, iterators and sections.

use bpfsim_abi::ProgType;

use super::To;
use super::generate::{Gen, Kind};
use super::world::{ARRAY, KFUNCS, LOCKS, RING};

/// Where the things of these statements lie, below the stack that others use: an iterator, a dynptr, a
/// clone of it, flags of interrupts.
const ITER: i32 = -80;
const DYNPTR: i32 = -96;
const CLONE: i32 = -112;
const FLAGS: i32 = -120;

impl Gen<'_> {
    /// A kernel function by its name; it takes R1 to R5.
    fn kfunc(&mut self, name: &str) {
        let at = KFUNCS
            .iter()
            .position(|k| *k == name)
            .unwrap_or(KFUNCS.len());
        self.emit(0x85, 0, 2, 0, at as i32);
        self.regs[..6].fill(Kind::Empty);
        self.regs[0] = Kind::Number;
    }

    /// `reg` points below the frame's start.
    fn place(&mut self, reg: u8, off: i32) {
        self.mov(reg, 10);
        self.alu(0x00, reg, off);
    }

    /// A block between two calls; seldom only one of them.
    pub fn section(&mut self) {
        let (on, off) = self.dice.pick(&[
            ("bpf_rcu_read_lock", "bpf_rcu_read_unlock"),
            ("bpf_preempt_disable", "bpf_preempt_enable"),
            ("bpf_local_irq_save", "bpf_local_irq_restore"),
        ]);
        let flags = on == "bpf_local_irq_save";
        if flags {
            self.place(1, FLAGS);
        }
        self.kfunc(on);
        self.regs[0] = Kind::Empty;
        self.block(2);
        if !self.dice.one_in(12) {
            if flags {
                self.place(1, FLAGS);
            }
            self.kfunc(off);
            self.regs[0] = Kind::Empty;
        }
    }

    /// A value's lock held for a few instructions that call nothing.
    pub fn locked(&mut self) {
        let Some(r) = self.value_of(LOCKS) else {
            return;
        };
        let Some(keep) = self.keeper() else { return };
        self.mov(keep, r);
        let kept = self.kept;
        self.kept |= 1 << keep;
        self.mov(1, keep);
        self.call(93);
        self.regs[0] = Kind::Empty;
        match self.dice.below(3) {
            0 => self.set_number(),
            1 => {
                self.emit(0x7a, keep, 0, 8, 1);
            }
            _ => {
                let n = self.number();
                self.emit(0x63, keep, n, 4, 0);
            }
        }
        if !self.dice.one_in(15) {
            self.mov(1, keep);
            self.call(94);
            self.regs[0] = Kind::Empty;
        }
        self.kept = kept;
    }

    /// A task that is looked for, used and given back.
    pub fn task(&mut self) {
        let Some(r) = self.keeper() else { return };
        let n = self.number();
        self.mov(1, n);
        self.kfunc("bpf_task_from_pid");
        self.regs[0] = Kind::Empty;
        let out = self.jump(0x15, 0, 0, 0);
        let before = (self.regs, self.stack);
        self.mov(r, 0);
        self.regs[usize::from(r)] = Kind::Empty;
        let kept = self.kept;
        self.kept |= 1 << r;
        match self.dice.below(4) {
            0 => {
                let dst = self.dst();
                self.emit(0x79, dst, r, 0, 0);
                self.regs[usize::from(dst)] = Kind::Number;
            }
            1 => {
                self.mov(1, r);
                self.kfunc("bpf_task_acquire");
                self.regs[0] = Kind::Empty;
                let none = self.jump(0x15, 0, 0, 0);
                self.mov(1, 0);
                self.kfunc("bpf_task_release");
                self.regs[0] = Kind::Empty;
                self.land(none);
            }
            _ => self.block(2),
        }
        self.kept = kept;
        if !self.dice.one_in(12) {
            self.mov(1, r);
            self.kfunc("bpf_task_release");
        }
        self.land(out);
        (self.regs, self.stack) = before;
        self.regs[..6].fill(Kind::Empty);
    }

    /// A loop over numbers.
    pub fn iterate(&mut self) {
        let (low, high) = (self.dice.within(-2, 3), self.dice.pick(&[0, 3, 10, 1000]));
        self.place(1, ITER);
        self.constant(2, low.into());
        match self.find(|k| k == Kind::Number) {
            Some(r) if r > 2 && self.dice.one_in(3) => self.mov(3, r),
            _ => self.constant(3, high),
        }
        self.kfunc("bpf_iter_num_new");
        self.regs[0] = Kind::Empty;
        let before = (self.regs, self.stack);
        let start = self.lines.len();
        self.place(1, ITER);
        self.kfunc("bpf_iter_num_next");
        self.regs[0] = Kind::Empty;
        let out = self.jump(0x15, 0, 0, 0);
        let dst = self.dst();
        if !self.dice.one_in(8) {
            self.emit(0x61, dst, 0, 0, 0);
            self.regs[usize::from(dst)] = Kind::Number;
        }
        self.regs[0] = Kind::Empty;
        self.block(3);
        let back = self.jump(0x05, 0, 0, 0);
        self.lines[back].to = To::Line(start);
        self.land(out);
        (self.regs, self.stack) = before;
        if !self.dice.one_in(15) {
            self.place(1, ITER);
            self.kfunc("bpf_iter_num_destroy");
            self.regs[0] = Kind::Empty;
        }
        self.regs[..6].fill(Kind::Empty);
    }

    /// A dynptr of a value, of a ring buffer or of a packet, and what is done with it.
    pub fn dynptr(&mut self) {
        let ctx = self.find(|k| k == Kind::Ctx);
        let packet = match self.prog_type {
            ProgType::SchedCls | ProgType::CgroupSkb => Some("bpf_dynptr_from_skb"),
            ProgType::Xdp => Some("bpf_dynptr_from_xdp"),
            _ => None,
        };
        let ring = self.dice.one_in(3);
        match (packet, ctx) {
            _ if ring => {
                self.map(1, RING, None);
                let size = self.dice.pick(&[8, 16, 64]);
                self.constant(2, size);
                self.constant(3, 0);
                self.place(4, DYNPTR);
                self.call(198);
            }
            (Some(from), Some(ctx)) if self.dice.one_in(2) => {
                self.mov(1, ctx);
                self.constant(2, 0);
                self.place(3, DYNPTR);
                self.kfunc(from);
            }
            _ => {
                let Some(r) = self.value_of(ARRAY) else {
                    return;
                };
                self.mov(1, r);
                let size = self.dice.pick(&[8, 16, 48, 48, 49]);
                self.constant(2, size);
                self.constant(3, 0);
                self.place(4, DYNPTR);
                self.call(197);
            }
        }
        for _ in 0..self.dice.below(3) {
            self.use_dynptr();
        }
        if ring && !self.dice.one_in(12) {
            self.place(1, DYNPTR);
            self.constant(2, 0);
            let give = self.dice.pick(&[199, 200]);
            self.call(give);
            self.regs[0] = Kind::Empty;
        }
    }

    fn use_dynptr(&mut self) {
        let off = self.dice.pick(&[0, 0, 4, 8, 40]);
        match self.dice.below(7) {
            // bpf_dynptr_read and bpf_dynptr_write, by way of words of the stack.
            how @ 0..2 => {
                for slot in 0..2 {
                    self.emit(0x7a, 10, 0, -8 * (slot + 1), 0);
                }
                self.stack |= 3;
                let (memory, dynptr) = if how == 0 { (1, 3) } else { (3, 1) };
                self.place(memory, -16);
                self.place(dynptr, DYNPTR);
                let size = self.dice.pick(&[1, 8, 16, 17]);
                let (length, start) = if how == 0 { (2, 4) } else { (4, 2) };
                self.constant(length, size);
                self.constant(start, off);
                self.constant(5, 0);
                self.call(if how == 0 { 201 } else { 202 });
            }
            // bpf_dynptr_data and bpf_dynptr_slice give memory.
            how @ 2..4 => {
                self.place(1, DYNPTR);
                self.constant(2, off);
                let size = self.dice.pick(&[4, 8, 16]);
                match how {
                    2 => {
                        self.constant(3, size);
                        self.call(203);
                    }
                    _ => {
                        self.place(3, -48);
                        self.constant(4, size);
                        self.kfunc("bpf_dynptr_slice");
                    }
                }
                self.regs[0] = Kind::Empty;
                let none = self.jump(0x15, 0, 0, 0);
                let at = self.dice.below(size as usize) as i16;
                let dst = self.dst();
                self.emit(0x71, dst, 0, at, 0);
                if self.dice.one_in(4) {
                    self.emit(0x72, 0, 0, 0, 7);
                }
                self.land(none);
                self.regs[usize::from(dst)] = Kind::Empty;
            }
            4 => {
                self.place(1, DYNPTR);
                let name = self.dice.pick(&["bpf_dynptr_size", "bpf_dynptr_is_null"]);
                self.kfunc(name);
            }
            5 => {
                self.place(1, DYNPTR);
                self.constant(2, off);
                self.constant(3, 8);
                self.kfunc("bpf_dynptr_adjust");
            }
            _ => {
                self.place(1, DYNPTR);
                self.place(2, CLONE);
                self.kfunc("bpf_dynptr_clone");
            }
        }
    }

    /// Everything ends here, on one way.
    pub fn throw(&mut self) {
        let n = self.number();
        let (code, imm) = (self.condition(false), self.dice.imm());
        let on = self.jump(code, n, 0, imm);
        self.constant(1, 0);
        self.kfunc("bpf_throw");
        self.land(on);
        self.regs[..6].fill(Kind::Empty);
    }
}
