//! A program out of choices: what its registers hold as it grows, and its flow of control.

use bpfsim_abi::ProgType;
use bpfsim_isa::Insn;

use super::{
    Dice, Line, MAX_FUNCS, Program, REG_INVARIANTS, SLEEPABLE, STATE_FREQ, STRICT_ALIGNMENT, To,
};

/// What a register holds where the generator stands; a guess that only weights what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Number,
    Ctx,
    /// Above the frame's start, which is 0.
    Stack(i32),
    /// A caller's 16 bytes.
    Far,
    /// A map's value, at its start.
    Value(usize),
    /// Bytes of a ring buffer that were reserved.
    Record(u32),
    /// A packet's start, of which so many bytes are known to be there.
    Packet(u32),
}

/// How a function is entered, and what calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    /// By `call`, with these in R1 to R3.
    Sub([Kind; 3]),
    /// By `bpf_loop`, with R2.
    Loop(Kind),
    /// By `bpf_for_each_map_elem` of this map, with R4.
    Each(usize, Kind),
    /// By a timer.
    Timer,
}

pub(super) struct Gen<'d> {
    pub dice: &'d mut Dice,
    pub prog_type: ProgType,
    /// Functions that were promised, by number.
    pub roles: Vec<Role>,
    pub func: usize,
    pub lines: Vec<Line>,
    pub regs: [Kind; 10],
    /// Registers that nothing is written to: counters, and where things are kept.
    pub kept: u16,
    /// Slots of the stack, from the top, that were written.
    pub stack: u16,
    pub depth: u32,
    /// Statements that are still to be had.
    pub fuel: u32,
}

/// Bytes of the stack that statements use at random, from the top.
pub(super) const STACK: i32 = 64;

type Statement<'d> = fn(&mut Gen<'d>);

impl<'d> Gen<'d> {
    /// What a program is made of, and how often.
    const STATEMENTS: [(u32, Statement<'d>); 33] = [
        (5, Gen::set_number),
        (7, Gen::unknown_number),
        (10, Gen::arithmetic),
        (5, Gen::narrow),
        (4, Gen::link),
        (6, Gen::spill),
        (6, Gen::fill),
        (3, Gen::store_number),
        (8, Gen::branch),
        (5, Gen::choose),
        (4, Gen::repeat),
        (2, Gen::repeat_unknown),
        (2, Gen::may_goto),
        (8, Gen::value_access),
        (6, Gen::packet_access),
        (5, Gen::stack_access),
        (2, Gen::look_up),
        (2, Gen::atomic),
        (2, Gen::helper_memory),
        (5, Gen::call_sub),
        (2, Gen::call_loop),
        (2, Gen::call_each),
        (1, Gen::arm_timer),
        (2, Gen::ring_record),
        (2, Gen::constant_value),
        (3, Gen::spill_and_fill),
        (4, Gen::linked_one_way),
        (2, Gen::section),
        (1, Gen::locked),
        (2, Gen::task),
        (3, Gen::iterate),
        (4, Gen::dynptr),
        (1, Gen::throw),
    ];
}

/// A program.
pub fn random(dice: &mut Dice) -> Program {
    let prog_type = dice.pick(&[
        ProgType::SchedCls,
        ProgType::SchedCls,
        ProgType::Xdp,
        ProgType::SocketFilter,
        ProgType::CgroupSkb,
        ProgType::Kprobe,
        ProgType::Syscall,
    ]);
    let mut flags = if prog_type == ProgType::Syscall {
        SLEEPABLE
    } else {
        0
    };
    for (flag, n) in [(STATE_FREQ, 3), (REG_INVARIANTS, 4), (STRICT_ALIGNMENT, 12)] {
        flags |= if dice.one_in(n) { flag } else { 0 };
    }
    let mut roles = vec![Role::Main];
    let mut funcs = Vec::new();
    while funcs.len() < roles.len() {
        let fuel = match funcs.len() {
            0 => dice.within(2, 16) as u32,
            _ => dice.within(1, 6) as u32,
        };
        let func = funcs.len();
        let mut g = Gen {
            prog_type,
            roles,
            func,
            lines: Vec::new(),
            regs: [Kind::Empty; 10],
            kept: 0,
            stack: 0,
            depth: 0,
            fuel,
            dice,
        };
        g.enter();
        while g.fuel > 0 {
            g.statement();
        }
        g.leave();
        funcs.push(g.lines);
        roles = g.roles;
    }
    let mut program = Program {
        prog_type,
        flags,
        funcs,
    };
    if dice.one_in(4) {
        break_something(&mut program, dice);
    }
    program
}

/// Takes a line away, or changes a register, a size or a number in it.
fn break_something(program: &mut Program, dice: &mut Dice) {
    for _ in 0..dice.within(1, 2) {
        let func = dice.below(program.funcs.len());
        let lines = program.funcs[func].len();
        if lines < 2 {
            return;
        }
        let at = dice.below(lines - 1);
        if dice.one_in(3) {
            *program = program.without(func, at..at + 1);
            continue;
        }
        let insn = &mut program.funcs[func][at].insn;
        if insn.is_ld_imm64() {
            continue;
        }
        match dice.below(5) {
            0 => insn.set_dst(dice.below(11) as u8),
            1 => insn.set_src(dice.below(11) as u8),
            2 => insn.imm = insn.imm.wrapping_add(dice.within(-1, 1)),
            3 => insn.off = insn.off.wrapping_add(dice.within(-8, 8) as i16),
            _ => insn.code ^= dice.pick(&[0x08, 0x10, 0x04, 0x03, 0x40]),
        }
    }
}

impl Gen<'_> {
    /// One more statement.
    pub fn statement(&mut self) {
        self.fuel = self.fuel.saturating_sub(1);
        let all: u32 = Self::STATEMENTS.iter().map(|(w, _)| w).sum();
        let mut at = self.dice.below(all as usize) as u32;
        for (weight, statement) in Self::STATEMENTS {
            if at < weight {
                return statement(self);
            }
            at -= weight;
        }
    }

    /// A few statements within another.
    pub fn block(&mut self, most: usize) {
        self.depth += 1;
        for _ in 0..self.dice.below(most + 1) {
            if self.fuel == 0 || self.depth > 3 {
                break;
            }
            self.statement();
        }
        self.depth -= 1;
    }

    pub fn emit(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) -> usize {
        self.lines.push(Line {
            insn: Insn::new(code, dst, src, off, imm),
            hi: 0,
            to: To::Nothing,
        });
        self.lines.len() - 1
    }

    pub fn mov(&mut self, dst: u8, src: u8) {
        self.emit(0xbf, dst, src, 0, 0);
        self.regs[usize::from(dst)] = match src {
            10 => Kind::Stack(0),
            _ => self.regs[usize::from(src)],
        };
    }

    /// `dst = value`, in the shortest way.
    pub fn constant(&mut self, dst: u8, value: i64) {
        match i32::try_from(value) {
            Ok(imm) => {
                self.emit(0xb7, dst, 0, 0, imm);
            }
            Err(_) => {
                let at = self.emit(0x18, dst, 0, 0, value as i32);
                self.lines[at].hi = (value >> 32) as i32;
            }
        }
        self.regs[usize::from(dst)] = Kind::Number;
    }

    /// `dst = map`, or the address of its value's byte `off`.
    pub fn map(&mut self, dst: u8, map: usize, value: Option<i32>) {
        let src = if value.is_some() { 2 } else { 1 };
        let at = self.emit(0x18, dst, src, 0, map as i32);
        self.lines[at].hi = value.unwrap_or(0);
        self.regs[usize::from(dst)] = Kind::Empty;
    }

    /// The address of a function that is made when its turn comes.
    pub fn func_address(&mut self, dst: u8, func: usize) {
        let at = self.emit(0x18, dst, 4, 0, 0);
        self.lines[at].to = To::Func(func);
        self.regs[usize::from(dst)] = Kind::Empty;
    }

    /// `dst = dst op imm`, 64 bits.
    pub fn alu(&mut self, op: u8, dst: u8, imm: i32) {
        self.emit(op | 0x07, dst, 0, 0, imm);
    }

    /// A jump that [`Gen::land`] gives its target.
    pub fn jump(&mut self, code: u8, dst: u8, src: u8, imm: i32) -> usize {
        self.emit(code, dst, src, 0, imm)
    }

    /// A jump goes to what comes next.
    pub fn land(&mut self, jump: usize) {
        self.lines[jump].to = To::Line(self.lines.len());
    }

    /// A helper by its number; it takes R1 to R5.
    pub fn call(&mut self, helper: i32) {
        self.emit(0x85, 0, 0, 0, helper);
        self.regs[..6].fill(Kind::Empty);
        self.regs[0] = Kind::Number;
    }

    /// A register to write to; seldom one of a pointer.
    pub fn dst(&mut self) -> u8 {
        for _ in 0..8 {
            let r = self.dice.below(10);
            let plain = matches!(self.regs[r], Kind::Empty | Kind::Number);
            if self.kept & 1 << r == 0 && (plain || self.dice.one_in(8)) {
                return r as u8;
            }
        }
        self.dice.pick(&[0, 1, 2, 3])
    }

    /// A register that keeps its value over calls, out of use.
    pub fn keeper(&mut self) -> Option<u8> {
        (6..10u8).find(|r| {
            self.kept & 1 << r == 0
                && matches!(self.regs[usize::from(*r)], Kind::Empty | Kind::Number)
        })
    }

    /// A register with a number, which is made where there is none.
    pub fn number(&mut self) -> u8 {
        let start = self.dice.below(10);
        let has = (0..10)
            .map(|i| (start + i) % 10)
            .find(|r| self.regs[*r] == Kind::Number);
        if let (Some(r), false) = (has, self.dice.one_in(6)) {
            return r as u8;
        }
        match self.dice.one_in(3) {
            true => self.set_number(),
            false => self.unknown_number(),
        }
        let last = self.lines.last().map_or(0, |l| l.insn.dst());
        let r = match self.regs[usize::from(last)] {
            Kind::Number => last,
            _ => 0,
        };
        if self.regs[usize::from(r)] != Kind::Number {
            self.constant(r, 1);
        }
        r
    }

    /// A register of a kind, other than those that are known to hold something else.
    pub fn find(&mut self, is: impl Fn(Kind) -> bool) -> Option<u8> {
        let start = self.dice.below(10);
        (0..10)
            .map(|i| (start + i) % 10)
            .find(|r| is(self.regs[*r]))
            .map(|r| r as u8)
    }

    /// The code of a conditional jump: on an immediate, or on a register with `reg`.
    pub fn condition(&mut self, reg: bool) -> u8 {
        let op = self.dice.pick(&[
            0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0,
        ]);
        let class = self.dice.pick(&[5, 5, 6]);
        op | class | if reg { 8 } else { 0 }
    }

    /// What two ways that meet have in common.
    fn meet(&mut self, other: [Kind; 10], stack: u16) {
        for (mine, theirs) in self.regs.iter_mut().zip(other) {
            if *mine != theirs {
                *mine = Kind::Empty;
            }
        }
        self.stack &= stack;
    }

    /// `if (condition) { ... } else { ... }` over numbers.
    fn branch(&mut self) {
        let a = self.number();
        let jump = match self.dice.one_in(3) {
            true => {
                let b = self.number();
                let code = self.condition(true);
                self.jump(code, a, b, 0)
            }
            false => {
                let (code, imm) = (self.condition(false), self.dice.imm());
                self.jump(code, a, 0, imm)
            }
        };
        let (before, stack) = (self.regs, self.stack);
        self.block(3);
        if self.dice.one_in(3) {
            let (then, then_stack) = (self.regs, self.stack);
            let over = self.jump(0x05, 0, 0, 0);
            self.land(jump);
            (self.regs, self.stack) = (before, stack);
            self.block(3);
            self.land(over);
            self.meet(then, then_stack);
        } else {
            self.land(jump);
            self.meet(before, stack);
        }
    }

    /// One of two constants, or of two slots' worth, by a condition: states that differ where ways
    /// meet.
    fn choose(&mut self) {
        let a = self.number();
        let dst = self.dst();
        if dst == a {
            return;
        }
        let (x, y) = (self.dice.number(), self.dice.within(0, 48));
        self.constant(dst, x);
        let (code, imm) = (self.condition(false), self.dice.imm());
        let jump = self.jump(code, a, 0, imm);
        self.constant(dst, y.into());
        self.land(jump);
        match self.dice.below(4) {
            0 => self.spill_of(dst),
            1 => {
                // Where callees are let read.
                let slot = self.dice.pick(&[3, 4]);
                self.emit(0x7b, 10, dst, -8 * slot, 0);
                self.stack |= 1 << (slot - 1);
            }
            _ => {}
        }
    }

    /// Two numbers that are linked on one way to a place and not, or otherwise, on another; then one is
    /// looked at and the other used.
    fn linked_one_way(&mut self) {
        let numbers = [self.number(), self.number()];
        let copies = [self.dst(), self.dst()];
        let all = [numbers[0], numbers[1], copies[0], copies[1]];
        let twice = (0..4).any(|i| (0..i).any(|j| i != 1 && all[i] == all[j]));
        let free = copies.iter().all(|r| self.kept & 1 << r == 0);
        let third = self.find(|k| k == Kind::Number);
        let (Some(by), false, true) = (third, twice, free) else {
            return;
        };
        let (code, imm) = (self.condition(false), self.dice.imm());
        let jump = self.jump(code, by, 0, imm);
        for copy in copies {
            let from = numbers[self.dice.below(2)];
            self.mov(copy, from);
        }
        let over = self.jump(0x05, 0, 0, 0);
        self.land(jump);
        for copy in copies {
            let from = numbers[self.dice.below(2)];
            self.mov(copy, from);
        }
        self.land(over);
        for copy in copies {
            self.regs[usize::from(copy)] = Kind::Number;
        }
        let looked = self.dice.pick(&all);
        let most = self.dice.within(1, 40);
        let code = self.dice.pick(&[0x25, 0x35, 0x26, 0x25]);
        let out = self.jump(code, looked, 0, most);
        let (before, stack) = (self.regs, self.stack);
        let used = self.dice.pick(&copies);
        match self.find(|k| matches!(k, Kind::Value(_))) {
            Some(value) => self.move_and_access(value, used, 40, 1),
            None => self.block(2),
        }
        self.land(out);
        self.regs = before;
        self.stack &= stack;
    }

    /// A loop that counts.
    fn repeat(&mut self) {
        let Some(counter) = self.keeper() else { return };
        self.constant(counter, 0);
        let times = self.dice.within(1, 6);
        self.around(counter, |g, start| {
            g.alu(0x00, counter, 1);
            let code = g.dice.pick(&[0xa5, 0x55, 0xc5, 0xa6, 0xb5]);
            let back = g.jump(code, counter, 0, times);
            g.lines[back].to = To::Line(start);
        });
    }

    /// A loop up to a number that is not known.
    fn repeat_unknown(&mut self) {
        let Some(counter) = self.keeper() else { return };
        self.kept |= 1 << counter;
        let Some(end) = self.keeper() else {
            self.kept &= !(1 << counter);
            return;
        };
        self.kept |= 1 << end;
        let n = self.number();
        self.mov(end, n);
        let most = self.dice.pick(&[3, 7, 1, 5]);
        self.alu(0x50, end, most);
        self.constant(counter, 0);
        self.around(counter, |g, start| {
            g.alu(0x00, counter, 1);
            let code = g.dice.pick(&[0xad, 0xae, 0xcd]);
            let back = g.jump(code, counter, end, 0);
            g.lines[back].to = To::Line(start);
        });
        self.kept &= !(1 << end);
    }

    /// The body of a loop, with what counts and turns back behind it.
    fn around(&mut self, counter: u8, turn: impl FnOnce(&mut Self, usize)) {
        let had = self.kept;
        self.kept |= 1 << counter;
        // What the body leaves is what it finds the next time.
        let before = (self.regs, self.stack);
        let start = self.lines.len();
        self.block(3);
        turn(self, start);
        self.meet(before.0, before.1);
        self.kept = had;
    }

    /// A loop that ends when the kernel has had enough of it.
    fn may_goto(&mut self) {
        let before = (self.regs, self.stack);
        let start = self.lines.len();
        let out = self.jump(0xe5, 0, 0, 0);
        self.block(2);
        let back = self.jump(0x05, 0, 0, 0);
        self.lines[back].to = To::Line(start);
        self.land(out);
        self.meet(before.0, before.1);
    }

    fn enter(&mut self) {
        let map_key_value = |regs: &mut [Kind; 10], map| regs[3] = Kind::Value(map);
        match self.roles[self.func] {
            Role::Main => {
                self.regs[1] = Kind::Ctx;
                self.mov(6, 1);
                self.kept |= 1 << 6;
                self.regs[1] = Kind::Ctx;
            }
            Role::Sub(args) => {
                for (reg, kind) in self.regs[1..4].iter_mut().zip(args) {
                    *reg = match kind {
                        Kind::Stack(_) => Kind::Far,
                        kind => kind,
                    };
                }
            }
            Role::Loop(ctx) => {
                self.regs[1] = Kind::Number;
                self.regs[2] = ctx;
            }
            Role::Each(map, ctx) => {
                map_key_value(&mut self.regs, map);
                self.regs[4] = ctx;
            }
            Role::Timer => map_key_value(&mut self.regs, super::world::TIMERS),
        }
        let far = (1..6u8).find(|r| self.regs[usize::from(*r)] == Kind::Far);
        if let (Some(far), true) = (far, self.dice.one_in(2)) {
            // What the caller left there decides something.
            let off = self.dice.pick(&[0, 8]);
            self.emit(0x79, 0, far, off, 0);
            let (code, imm) = (self.condition(false), self.dice.within(0, 48));
            let jump = self.jump(code, 0, 0, imm);
            self.constant(0, 1);
            self.land(jump);
        }
        if self.func != 0 && self.dice.one_in(2) {
            // What came in outlives calls.
            for (to, from) in [(7, 1), (8, 2), (9, 3)] {
                if !matches!(self.regs[from], Kind::Empty) {
                    self.mov(to, from as u8);
                }
            }
        }
    }

    fn leave(&mut self) {
        let number = self.find(|k| k == Kind::Number);
        match (self.roles[self.func], number) {
            (Role::Main | Role::Sub(_), Some(r)) if self.dice.one_in(3) => self.mov(0, r),
            (Role::Loop(_) | Role::Each(..), Some(r)) if self.dice.one_in(2) => {
                self.mov(0, r);
                self.alu(0x50, 0, 1);
            }
            (Role::Timer, _) => self.constant(0, 0),
            _ => {
                let value = self.dice.pick(&[0, 0, 0, 1]);
                self.constant(0, value);
            }
        }
        if self.func == 0 && self.prog_type == ProgType::CgroupSkb {
            self.alu(0x50, 0, 1);
        }
        self.emit(0x95, 0, 0, 0, 0);
    }

    /// A function yet to be made.
    pub fn promise(&mut self, role: Role) -> Option<usize> {
        (self.roles.len() < MAX_FUNCS).then(|| {
            self.roles.push(role);
            self.roles.len() - 1
        })
    }
}
