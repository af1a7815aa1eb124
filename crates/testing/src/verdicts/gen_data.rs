//! Statements about numbers, the stack, map values and packets.

use bpfsim_abi::ProgType;

use super::generate::{Gen, Kind, STACK};
use super::world::{ARRAY, HASH, MAPS, RODATA};

/// Sizes of accesses: code and bytes.
pub(super) const SIZES: [(u8, i32); 4] = [(0x10, 1), (0x08, 2), (0x00, 4), (0x18, 8)];

impl Gen<'_> {
    pub fn set_number(&mut self) {
        let (dst, value) = (self.dst(), self.dice.number());
        match self.dice.one_in(3) {
            true => {
                let imm = self.dice.imm();
                self.emit(0xb4, dst, 0, 0, imm);
                self.regs[usize::from(dst)] = Kind::Number;
            }
            false => self.constant(dst, value),
        }
    }

    /// A number of which only the width is known.
    pub fn unknown_number(&mut self) {
        let value = self.find(|k| matches!(k, Kind::Value(_) | Kind::Far | Kind::Record(_)));
        let ctx = self.find(|k| k == Kind::Ctx);
        let dst = self.dst();
        match (value, ctx) {
            (Some(src), _) if self.dice.one_in(2) => self.load(dst, src, 0),
            (_, Some(src)) if self.dice.one_in(3) && self.prog_type != ProgType::Kprobe => {
                self.emit(0x61, dst, src, 0, 0);
                self.regs[usize::from(dst)] = Kind::Number;
                return;
            }
            _ => {
                self.call(7);
                if dst != 0 && self.dice.one_in(2) {
                    self.mov(dst, 0);
                }
                return;
            }
        }
        self.regs[usize::from(dst)] = Kind::Number;
    }

    /// Loads a number of any size, sign extended or not.
    fn load(&mut self, dst: u8, src: u8, off: i16) {
        let (size, bytes) = self.dice.pick(&SIZES);
        let mode = if bytes < 8 && self.dice.one_in(4) {
            0x81
        } else {
            0x61
        };
        self.emit(mode | size, dst, src, off, 0);
        self.regs[usize::from(dst)] = Kind::Number;
    }

    pub fn arithmetic(&mut self) {
        let dst = self.number();
        if self.kept & 1 << dst != 0 && !self.dice.one_in(40) {
            return;
        }
        let class = self.dice.pick(&[7, 7, 4]);
        let bits = if class == 7 { 64 } else { 32 };
        match self.dice.below(12) {
            0 => {
                self.emit(0x80 | class, dst, 0, 0, 0);
            }
            1 => {
                let code = self.dice.pick(&[0xd4, 0xdc, 0xd7]);
                let width = self.dice.pick(&[16, 32, 64]);
                self.emit(code, dst, 0, 0, width);
            }
            2 => {
                // Sign extension, within a register and into another.
                let from = self.number();
                let width = self.dice.pick(&[8, 16, 32]);
                let width = if class == 4 { width & 24 } else { width };
                self.emit(0xb8 | class, dst, from, width, 0);
            }
            3..=5 => {
                let op = self.dice.pick(&[0x60, 0x70, 0xc0]);
                match self.dice.one_in(4) {
                    true => {
                        let by = self.number();
                        self.emit(op | 8 | class, dst, by, 0, 0);
                    }
                    false => {
                        let by = match self.dice.one_in(5) && bits == 64 {
                            true => 32,
                            false => self.dice.below(bits) as i32,
                        };
                        self.emit(op | class, dst, 0, 0, by);
                    }
                }
            }
            6 => {
                let op = self.dice.pick(&[0x30, 0x90]);
                let signed = self.dice.pick(&[0, 1]);
                let by = self.dice.imm();
                let by = if by == 0 { 3 } else { by };
                self.emit(op | class, dst, 0, signed, by);
            }
            7 | 8 => {
                let op = self.dice.pick(&[0x00, 0x10, 0x20, 0x40, 0x50, 0xa0]);
                let by = self.number();
                self.emit(op | 8 | class, dst, by, 0, 0);
            }
            _ => {
                let op = self
                    .dice
                    .pick(&[0x00, 0x10, 0x20, 0x40, 0x50, 0xa0, 0x00, 0x50]);
                let by = self.dice.imm();
                self.emit(op | class, dst, 0, 0, by);
            }
        }
    }

    /// Makes a number small, in one of the ways that programs do.
    pub fn narrow(&mut self) {
        let r = self.number();
        if self.kept & 1 << r == 0 {
            let most = self.dice.pick(&[7, 8, 15, 16, 31, 40]);
            self.narrow_to(r, most);
        }
    }

    /// At most `most`, perhaps; what is larger is made a constant.
    fn narrow_to(&mut self, r: u8, most: i32) {
        match self.dice.below(8) {
            0 | 1 => {
                let mask = most.unsigned_abs().next_power_of_two() as i32 - 1;
                let class = self.dice.pick(&[7, 7, 4]);
                self.emit(0x50 | class, r, 0, 0, mask);
            }
            2 => {
                self.alu(0x90, r, most + 1);
            }
            3 => {
                let by = 64 - (32 - most.leading_zeros() as i32 - 1).max(1);
                self.alu(0x70, r, by);
            }
            how => {
                // Jumps over a constant where it is small enough.
                let unsigned = [
                    (0xb5, most),
                    (0xa5, most + 1),
                    (0xb6, most),
                    (0xa6, most + 1),
                ];
                let (code, imm) = match how {
                    4 => {
                        // Signed, from both sides.
                        let low = self.jump(0x75, r, 0, 0);
                        self.emit(0xb7, r, 0, 0, 0);
                        self.land(low);
                        (0xd5, most)
                    }
                    _ => self.dice.pick(&unsigned),
                };
                let fits = self.jump(code, r, 0, imm);
                let value = self.dice.within(0, most);
                self.emit(0xb7, r, 0, 0, value);
                self.land(fits);
            }
        }
    }

    /// Two registers of one value, or a constant apart, and a look at one of them.
    pub fn link(&mut self) {
        let (from, to) = (self.number(), self.dst());
        if from == to {
            return;
        }
        let code = self.dice.pick(&[0xbf, 0xbf, 0xbf, 0xbc]);
        self.emit(code, to, from, 0, 0);
        self.regs[usize::from(to)] = Kind::Number;
        if self.dice.one_in(2) {
            let by = self.dice.within(-20, 20);
            let class = self.dice.pick(&[7, 7, 7, 4]);
            self.emit(class, to, 0, 0, by);
        }
        let (r, other) = match self.dice.one_in(2) {
            true => (from, to),
            false => (to, from),
        };
        let most = self.dice.within(1, 40);
        let code = self.dice.pick(&[0x25, 0x35, 0x65, 0x26, 0x66, 0x55, 0xa5]);
        let jump = self.jump(code, r, 0, most);
        let (before, stack) = (self.regs, self.stack);
        // The other one is as small as this one.
        match self.find(|k| matches!(k, Kind::Value(_))) {
            Some(value) if self.dice.one_in(2) => self.move_and_access(value, other, 40, 0),
            _ => self.block(2),
        }
        self.land(jump);
        self.regs = before;
        self.stack &= stack;
    }

    pub fn spill(&mut self) {
        let any = self.find(|k| !matches!(k, Kind::Empty | Kind::Number));
        let r = match any {
            Some(r) if self.dice.one_in(2) => r,
            _ => self.number(),
        };
        self.spill_of(r);
    }

    pub fn spill_of(&mut self, r: u8) {
        let pointer = !matches!(self.regs[usize::from(r)], Kind::Number);
        let (size, bytes) = match pointer && !self.dice.one_in(20) {
            true => (0x18, 8),
            false => self.dice.pick(&SIZES),
        };
        let slot = self.dice.below(STACK as usize / 8);
        let within = self.dice.below((8 / bytes) as usize) as i32 * bytes;
        let off = within - 8 * (slot as i32 + 1);
        self.emit(0x63 | size, 10, r, off as i16, 0);
        self.wrote(slot, bytes);
    }

    fn wrote(&mut self, slot: usize, bytes: i32) {
        if bytes == 8 {
            self.stack |= 1 << slot;
        }
    }

    pub fn fill(&mut self) {
        let (size, bytes) = self
            .dice
            .pick(&[SIZES[3], SIZES[3], SIZES[2], SIZES[1], SIZES[0]]);
        let mut slot = self.dice.below(STACK as usize / 8);
        if self.stack & 1 << slot == 0 && !self.dice.one_in(12) {
            if self.stack == 0 {
                return self.store_number();
            }
            slot = self.stack.trailing_zeros() as usize;
        }
        let within = self.dice.below((8 / bytes) as usize) as i32 * bytes;
        let off = within - 8 * (slot as i32 + 1);
        let mode = if bytes < 8 && self.dice.one_in(4) {
            0x81
        } else {
            0x61
        };
        let dst = self.dst();
        self.emit(mode | size, dst, 10, off as i16, 0);
        self.regs[usize::from(dst)] = Kind::Number;
    }

    /// A number through a slot that may be too small for it, and a look at what came back.
    pub fn spill_and_fill(&mut self) {
        let r = self.number();
        let (size, bytes) = self.dice.pick(&SIZES);
        let slot = self.dice.below(STACK as usize / 8);
        let off = -8 * (slot as i16 + 1);
        self.emit(0x63 | size, 10, r, off, 0);
        self.wrote(slot, bytes);
        let dst = self.dst();
        self.load_sized(dst, 10, off, size);
        let most = match bytes {
            8 => -1,
            bytes => ((1i64 << (8 * bytes)) - 1) as i32,
        };
        let (code, nearly) = (
            self.dice.pick(&[0x25, 0x26, 0x35, 0xb5]),
            self.dice.within(-1, 0),
        );
        let jump = self.jump(code, dst, 0, most.wrapping_add(nearly));
        let (before, stack) = (self.regs, self.stack);
        self.block(1);
        self.land(jump);
        self.regs = before;
        self.stack &= stack;
    }

    pub fn store_number(&mut self) {
        let (size, bytes) = self.dice.pick(&[SIZES[3], SIZES[3], SIZES[2], SIZES[0]]);
        let slot = self.dice.below(STACK as usize / 8);
        let within = self.dice.below((8 / bytes) as usize) as i32 * bytes;
        let off = within - 8 * (slot as i32 + 1);
        let imm = self.dice.pick(&[0, 0, 1, 5, -1]);
        self.emit(0x62 | size, 10, 0, off as i16, imm);
        self.wrote(slot, bytes);
    }

    /// `fp-8` is given a key below `max_entries`, perhaps, and `r2` is made to point to it.
    pub fn key(&mut self, map: usize) {
        let size = if MAPS[map].key_size == 4 { 0x00 } else { 0x18 };
        match self.find(|k| k == Kind::Number) {
            Some(r) if self.dice.one_in(3) => {
                self.emit(0x63 | size, 10, r, -8, 0);
            }
            _ => {
                let key = self.dice.pick(&[0, 0, 1, 3, 4]);
                self.emit(0x62 | size, 10, 0, -8, key);
            }
        }
        self.stack |= u16::from(size == 0x18);
        self.mov(2, 10);
        self.alu(0x00, 2, -8);
    }

    /// A map's value in a register that outlives calls.
    pub fn look_up(&mut self) {
        let map = self.dice.pick(&[ARRAY, ARRAY, HASH]);
        if let Some(r) = self.value_of(map) {
            let offset = self.dice.within(0, 8) * i32::from(self.dice.one_in(3));
            self.alu(0x00, r, offset);
        }
    }

    pub fn value_of(&mut self, map: usize) -> Option<u8> {
        let r = self.keeper()?;
        self.key(map);
        self.map(1, map, None);
        self.call(1);
        self.regs[0] = Kind::Empty;
        if !self.dice.one_in(25) {
            let there = self.jump(0x55, 0, 0, 0);
            self.constant(0, 0);
            self.emit(0x95, 0, 0, 0, 0);
            self.land(there);
        }
        self.regs[0] = Kind::Value(map);
        self.mov(r, 0);
        Some(r)
    }

    /// A value's bytes at an offset that is not known, but narrowed.
    pub fn value_access(&mut self) {
        let found = self.find(|k| matches!(k, Kind::Value(_) | Kind::Record(_)));
        let (base, room) = match found.map(|r| (r, self.regs[usize::from(r)])) {
            Some((r, Kind::Value(map))) => (r, MAPS[map].value_size as i32),
            Some((r, Kind::Record(size))) => (r, size as i32),
            _ => {
                let map = self.dice.pick(&[ARRAY, ARRAY, HASH]);
                match self.value_of(map) {
                    Some(r) => (r, MAPS[map].value_size as i32),
                    None => return,
                }
            }
        };
        let index = self.number();
        if index == base {
            return;
        }
        self.move_and_access(base, index, room, 0);
    }

    /// `*(base + index + constant)`, with a guard that mostly fits what is accessed.
    pub fn move_and_access(&mut self, base: u8, index: u8, room: i32, least: i32) {
        let (size, bytes) = self.dice.pick(&SIZES);
        let fixed = self.dice.pick(&[0, 0, 0, 1, 4, 8]);
        let slack = self.dice.pick(&[0, 0, 0, 0, 0, 0, 0, 1, -1, -4]);
        let most = room - bytes - fixed + slack;
        let kept = self.kept;
        let (base_kind, index_kind) = (self.regs[usize::from(base)], self.regs[usize::from(index)]);
        // A copy, so that what was linked to the index stays so.
        let (work, moved) = match (self.dst(), self.dst()) {
            (w, m) if w != m && w != base && m != base && w != index && m != index => (w, m),
            _ => return,
        };
        self.mov(work, index);
        if least == 0 && !self.dice.one_in(20) {
            self.narrow_to(work, most.max(1));
        }
        self.mov(moved, base);
        match self.dice.one_in(6) {
            true => self.emit(0x1f, moved, work, 0, 0),
            false => self.emit(0x0f, moved, work, 0, 0),
        };
        self.regs[usize::from(moved)] = Kind::Empty;
        let value = self.find(|k| k == Kind::Number).unwrap_or(index);
        match self.dice.below(3) {
            0 => {
                self.emit(0x63 | size, moved, value, fixed as i16, 0);
            }
            1 => {
                self.emit(0x62 | size, moved, 0, fixed as i16, 5);
            }
            _ => {
                let dst = self.dst();
                self.load_sized(dst, moved, fixed as i16, size);
            }
        }
        self.kept = kept;
        if self.regs[usize::from(base)] == base_kind && self.regs[usize::from(index)] == Kind::Empty
        {
            self.regs[usize::from(index)] = index_kind;
        }
    }

    fn load_sized(&mut self, dst: u8, src: u8, off: i16, size: u8) {
        self.emit(0x61 | size, dst, src, off, 0);
        self.regs[usize::from(dst)] = Kind::Number;
    }

    /// Packet bytes, behind a comparison with the packet's end.
    pub fn packet_access(&mut self) {
        let Some(ctx) = self.find(|k| k == Kind::Ctx) else {
            return;
        };
        let (start, end) = match self.prog_type {
            ProgType::Xdp => (0, 4),
            _ => (76, 80),
        };
        let (Some(data), room) = (self.keeper(), self.dice.pick(&[8, 14, 32, 40])) else {
            return;
        };
        self.emit(0x61, data, ctx, start, 0);
        self.emit(0x61, 5, ctx, end, 0);
        let reach = self.dice.pick(&[2, 3, 4]);
        let moved = self.dice.one_in(2);
        if moved {
            let n = self.number();
            if [data, 5, reach].contains(&n) {
                return;
            }
            let most = self.dice.pick(&[15, 255, 1000, 65535, 70000]);
            self.mov(reach, n);
            self.narrow_to(reach, most);
            self.emit(0x0f, data, reach, 0, 0);
        }
        self.mov(reach, data);
        self.alu(0x00, reach, room);
        // reach > end, end < reach and the rest of them.
        let (code, a, b) = self.dice.pick(&[
            (0x2d, reach, 5),
            (0xad, 5, reach),
            (0x3d, reach, 5),
            (0xbd, 5, reach),
            (0x2d, reach, 5),
        ]);
        let out = self.jump(code, a, b, 0);
        self.regs[usize::from(reach)] = Kind::Empty;
        self.regs[5] = Kind::Empty;
        let (before, stack) = (self.regs, self.stack);
        self.regs[usize::from(data)] = Kind::Packet(room as u32);
        let (size, bytes) = self.dice.pick(&SIZES);
        let slack = self.dice.pick(&[0, 0, 0, 0, 0, 0, 1]);
        let off = (room - bytes + slack).max(0);
        let off = if self.dice.one_in(2) {
            off
        } else {
            self.dice.below(off as usize + 1) as i32
        };
        match self.dice.one_in(3) {
            true if self.prog_type != ProgType::CgroupSkb => {
                self.emit(0x62 | size, data, 0, off as i16, 1);
            }
            _ => {
                let dst = self.dst();
                if dst != data {
                    self.load_sized(dst, data, off as i16, size);
                }
            }
        }
        self.block(2);
        self.land(out);
        self.regs = before;
        self.stack &= stack;
    }

    /// The stack at an offset that is not known.
    pub fn stack_access(&mut self) {
        if self.dice.one_in(4) {
            for slot in 0..4 {
                self.emit(0x7a, 10, 0, -8 * (slot + 1), 0);
            }
            self.stack |= 15;
        }
        let n = self.number();
        let (work, moved) = (self.dst(), self.dst());
        if work == moved || n == work || n == moved {
            return;
        }
        let room = self.dice.pick(&[8, 16, 32]);
        self.mov(work, n);
        let (size, bytes) = self.dice.pick(&SIZES);
        if !self.dice.one_in(20) {
            self.narrow_to(work, room - bytes.min(room - 1));
        }
        if self.dice.one_in(2) {
            self.alu(0x50, work, -bytes);
        }
        self.mov(moved, 10);
        self.alu(0x00, moved, -room);
        self.emit(0x0f, moved, work, 0, 0);
        self.regs[usize::from(moved)] = Kind::Empty;
        match self.dice.below(3) {
            0 => {
                self.emit(0x63 | size, moved, n, 0, 0);
            }
            1 => {
                self.emit(0x62 | size, moved, 0, 0, 0);
            }
            _ => {
                let dst = self.dst();
                self.load_sized(dst, moved, 0, size);
            }
        }
    }

    pub fn atomic(&mut self) {
        let src = self.number();
        let op = self
            .dice
            .pick(&[0x00, 0x01, 0x40, 0x50, 0xa0, 0xe1, 0xf1, 0x41]);
        let size = self.dice.pick(&[0xc3, 0xdb]);
        let value = self.find(|k| matches!(k, Kind::Value(_) | Kind::Far));
        match value {
            Some(base) if self.dice.one_in(2) => {
                self.emit(size, base, src, 0, op);
            }
            _ => {
                let slot = self.dice.below(4) as i16;
                if self.stack & 1 << slot == 0 {
                    self.emit(0x7a, 10, 0, -8 * (slot + 1), 3);
                    self.stack |= 1 << slot;
                }
                self.emit(size, 10, src, -8 * (slot + 1), op);
            }
        }
    }

    /// A constant out of a frozen map.
    pub fn constant_value(&mut self) {
        let (at, dst) = (self.dst(), self.dst());
        let (size, bytes) = self.dice.pick(&SIZES);
        let room = MAPS[RODATA].value_size as i32;
        let off = self.dice.below((room / bytes) as usize) as i32 * bytes;
        self.map(at, RODATA, Some(off));
        let signed = bytes < 8 && self.dice.one_in(3);
        self.emit(size | if signed { 0x81 } else { 0x61 }, dst, at, 0, 0);
        self.regs[usize::from(dst)] = Kind::Number;
    }
}
