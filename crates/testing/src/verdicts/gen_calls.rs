//! Statements that call: functions, callbacks, helpers that take memory or give it.

use bpfsim_abi::ProgType;

use super::To;
use super::generate::{Gen, Kind, Role};
use super::world::{ARRAY, HASH, RING, TIMERS};

impl Gen<'_> {
    /// Something for an argument: a number, memory of the stack, the context, a value.
    fn argument(&mut self, reg: u8) -> Kind {
        let any = self.find(|k| matches!(k, Kind::Ctx | Kind::Value(_) | Kind::Number));
        match (any, self.dice.below(4)) {
            (Some(r), 0 | 1) => {
                self.mov(reg, r);
                self.regs[usize::from(r)]
            }
            (_, 2) => {
                self.pointer_to_words(reg);
                Kind::Stack(0)
            }
            _ => {
                let value = self.dice.within(0, 9);
                self.constant(reg, value.into());
                Kind::Number
            }
        }
    }

    /// `reg` points to two words of the stack, written.
    fn pointer_to_words(&mut self, reg: u8) {
        for slot in [2, 3] {
            if self.stack & 1 << slot == 0 && !self.dice.one_in(20) {
                self.emit(0x7a, 10, 0, -8 * (slot + 1), 0);
            }
        }
        self.stack |= 12;
        self.mov(reg, 10);
        self.alu(0x00, reg, -32);
    }

    pub fn call_sub(&mut self) {
        let known =
            (self.func + 1..self.roles.len()).find(|f| matches!(self.roles[*f], Role::Sub(_)));
        let func = match known {
            Some(func) if self.dice.one_in(2) => {
                let Role::Sub(args) = self.roles[func] else {
                    return;
                };
                for (i, kind) in args.into_iter().enumerate() {
                    self.argument_of(i as u8 + 1, kind);
                }
                func
            }
            _ => {
                let args = [1, 2, 3].map(|r| self.argument(r));
                match self.promise(Role::Sub(args)) {
                    Some(func) => func,
                    None => return,
                }
            }
        };
        let at = self.emit(0x85, 0, 1, 0, 0);
        self.lines[at].to = To::Func(func);
        self.regs[..6].fill(Kind::Empty);
        self.regs[0] = Kind::Number;
    }

    fn argument_of(&mut self, reg: u8, kind: Kind) {
        match kind {
            Kind::Stack(_) | Kind::Far => self.pointer_to_words(reg),
            Kind::Number => {
                let value = self.dice.within(0, 9);
                self.constant(reg, value.into());
            }
            kind => match self.find(|k| k == kind) {
                Some(r) => self.mov(reg, r),
                None => self.constant(reg, 0),
            },
        }
    }

    /// Memory of the stack, or nothing, for a callback.
    fn callback_context(&mut self, reg: u8) -> Kind {
        match self.dice.one_in(3) {
            true => {
                self.constant(reg, 0);
                Kind::Number
            }
            false => {
                self.pointer_to_words(reg);
                Kind::Far
            }
        }
    }

    pub fn call_loop(&mut self) {
        let ctx = self.callback_context(3);
        let Some(func) = self.promise(Role::Loop(ctx)) else {
            return;
        };
        match self.find(|k| k == Kind::Number) {
            Some(r) if r != 3 && self.dice.one_in(3) => self.mov(1, r),
            _ => {
                let times = self.dice.pick(&[0, 1, 2, 10, 100]);
                self.constant(1, times);
            }
        }
        self.func_address(2, func);
        self.constant(4, 0);
        self.call(181);
    }

    pub fn call_each(&mut self) {
        let map = self.dice.pick(&[ARRAY, HASH, HASH]);
        let ctx = self.callback_context(3);
        let Some(func) = self.promise(Role::Each(map, ctx)) else {
            return;
        };
        self.map(1, map, None);
        self.func_address(2, func);
        self.constant(4, 0);
        self.call(164);
    }

    /// A timer is made, given a callback and started.
    pub fn arm_timer(&mut self) {
        let Some(r) = self.value_of(TIMERS) else {
            return;
        };
        let Some(func) = self.promise(Role::Timer) else {
            return;
        };
        let field = if self.dice.one_in(15) { 0 } else { 8 };
        self.mov(1, r);
        self.alu(0x00, 1, field);
        self.map(2, TIMERS, None);
        self.constant(3, 1);
        self.call(169);
        self.mov(1, r);
        self.alu(0x00, 1, 8);
        self.func_address(2, func);
        self.call(170);
        self.mov(1, r);
        self.alu(0x00, 1, 8);
        self.constant(2, 100);
        self.constant(3, 0);
        self.call(171);
        self.regs[usize::from(r)] = Kind::Value(TIMERS);
    }

    /// Memory of the ring buffer, used and given back.
    pub fn ring_record(&mut self) {
        let Some(r) = self.keeper() else { return };
        let size = self.dice.pick(&[8, 16, 40]);
        self.map(1, RING, None);
        self.constant(2, size.into());
        self.constant(3, 0);
        self.call(131);
        self.regs[0] = Kind::Empty;
        let out = self.jump(0x15, 0, 0, 0);
        let before = (self.regs, self.stack);
        self.regs[0] = Kind::Record(size);
        self.mov(r, 0);
        let kept = self.kept;
        self.kept |= 1 << r;
        self.block(2);
        self.kept = kept;
        if !self.dice.one_in(15) {
            self.mov(1, r);
            self.constant(2, 0);
            let give = self.dice.pick(&[132, 133]);
            self.call(give);
        }
        self.land(out);
        (self.regs, self.stack) = before;
        self.regs[..6].fill(Kind::Empty);
    }

    /// A helper that reads or writes memory of a size that is narrowed.
    pub fn helper_memory(&mut self) {
        match self.dice.below(3) {
            // bpf_map_update_elem
            0 => {
                let map = self.dice.pick(&[ARRAY, HASH]);
                self.key(map);
                match self.find(|k| matches!(k, Kind::Value(_))) {
                    Some(r) if self.dice.one_in(2) => self.mov(3, r),
                    _ => {
                        for slot in 0..8 {
                            if !self.dice.one_in(60) {
                                self.emit(0x7a, 10, 0, -8 * (slot + 1), 0);
                            }
                        }
                        self.stack = 0xff;
                        self.mov(3, 10);
                        self.alu(0x00, 3, -64);
                    }
                }
                self.map(1, map, None);
                self.constant(4, 0);
                self.call(2);
            }
            // bpf_skb_load_bytes and bpf_probe_read_kernel
            how => {
                let ctx = self.find(|k| k == Kind::Ctx);
                let n = self.number();
                let room = self.dice.pick(&[8, 16, 48]);
                self.mov(4, n);
                let mask = self.dice.pick(&[room - 1, room, 7, 2 * room - 1]);
                self.alu(0x50, 4, mask);
                let zero = self.dice.one_in(3);
                if zero {
                    let some = self.jump(0x55, 4, 0, 0);
                    self.constant(4, 1);
                    self.land(some);
                }
                self.mov(3, 10);
                self.alu(0x00, 3, -room);
                match (how, ctx) {
                    (1, Some(ctx)) if self.prog_type != ProgType::Kprobe => {
                        self.mov(1, ctx);
                        self.constant(2, 0);
                        let call = if self.prog_type == ProgType::Xdp {
                            189
                        } else {
                            26
                        };
                        self.call(call);
                    }
                    _ => {
                        self.mov(1, 3);
                        self.mov(2, 4);
                        self.constant(3, 0);
                        self.call(113);
                    }
                }
            }
        }
    }
}
