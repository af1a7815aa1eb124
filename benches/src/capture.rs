//! A run of a program in the emulated kernel, taken down so that engines can run it which know of no
//! kernel: the instructions, the memory that they touch, the context's fields, and what every call
//! returned and wrote.

use crate::programs::{HELPER, Program};
use crate::reference::Outcome;
use crate::world::{Bytes, FRAME, Replies, Reply, Value, World};
use bpfsim_isa::Insn;
use bpfsim_kernel::{Config, Goal, Kernel, Prepared, ProgramInput, SysResult};
use bpfsim_vm::{Activation, Area, BASE, Code, GuestMem, Image, K, STACK_SIZE};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Instructions of a run at most.
const MOST_INSNS: u64 = 1_000_000;
/// Bytes of one area that are copied before and after each call, at most.
const MOST_BYTES: u64 = 1 << 18;
/// As far beside memory that a program touches as its addresses go.
const BESIDE: u64 = 4096;
/// How far a context's fields go; those that are wider than in C lie behind.
const FIELDS: u64 = 512;

/// Why a run cannot be given to other engines.
pub type Why = &'static str;

/// Runs the program that was loaded first, and takes it down; with the value that it returned.
///
/// # Errors
/// Why it cannot be.
pub fn capture(name: &str, prepared: &Prepared, program: &str) -> Result<(Program, Outcome), Why> {
    let first = watch(prepared, program, [None; 4])?;
    first.refused.map_or(Ok(()), Err)?;
    let ranges = first.touched;
    if ranges.iter().flatten().any(|(a, b)| b - a > MOST_BYTES) {
        return Err("touches much memory");
    }
    watch(prepared, program, ranges)?.finish(name)
}

/// From the first byte to behind the last.
type Range = Option<(u64, u64)>;

/// What was seen of a run.
#[derive(Default)]
struct Seen {
    ranges: [Range; 4],
    begun: bool,
    ended: bool,
    refused: Option<Why>,
    code: Vec<Code>,
    args: [u64; 5],
    /// Where the outermost frame ends.
    top: u64,
    /// Of the ranges, as they were at first.
    memory: Vec<Vec<u8>>,
    touched: [Range; 4],
    /// Loads of the context: instruction, offset, bytes and what came.
    fields: BTreeMap<usize, (u64, u64, u64)>,
    replies: Replies,
    pending: Option<Pending>,
    r0: u64,
    insns: u64,
}

/// What the next instruction will show.
enum Pending {
    Field { at: usize, off: u64, size: u64 },
    Call { at: usize, before: Vec<Vec<u8>> },
}

/// Runs a program once, looking at each instruction.
fn watch(prepared: &Prepared, program: &str, ranges: [Range; 4]) -> Result<Seen, Why> {
    let config = Config {
        checked: false,
        fuel: MOST_INSNS,
        ..Config::default()
    };
    let mut kernel = Kernel::new(config).map_err(|_| "no kernel")?;
    let loaded = kernel.load(prepared).map_err(|_| "not loaded")?;
    let mut programs = loaded.programs.iter();
    let id = programs.find(|(name, _)| name == program);
    let id = id.ok_or("not loaded")?.1;
    let input = match kernel.takes_packet(id) {
        true => ProgramInput::packet(&[0; 64]),
        false => ProgramInput::empty(),
    };
    let seen = Rc::new(RefCell::new(Seen {
        ranges,
        ..Seen::default()
    }));
    let mine = Rc::clone(&seen);
    kernel.show_each(Box::new(move |image, act, mem| {
        let mut seen = mine.borrow_mut();
        if seen.refused.is_none() && !seen.ended {
            seen.refused = seen.look(image, act, mem).err();
        }
    }));
    let job = kernel.start_test_run(id, input);
    kernel.run(Goal::Job(job)).map_err(|_| "fails")?;
    let result = kernel.take_result(job);
    drop(kernel);
    let seen = Rc::into_inner(seen).ok_or("still watched")?.into_inner();
    match result {
        Some(SysResult::Output(out)) if !seen.ended || out.insns == seen.insns => Ok(seen),
        Some(SysResult::Output(_)) => Err("runs other programs"),
        _ => Err("is not run"),
    }
}

impl Seen {
    fn look(&mut self, image: &Image, act: &Activation, mem: &GuestMem) -> Result<(), Why> {
        let r = &act.regs;
        if !self.begun {
            self.begun = true;
            self.code = image.code().to_vec();
            self.args = act.args();
            self.top = r[10];
            self.memory = self.copies(mem);
        }
        let (at, depth) = (act.pc as usize, act.callers().count() as u64);
        if r[10] != self.top - FRAME * depth || image.code().len() != self.code.len() {
            return Err("runs other programs");
        }
        match self.pending.take() {
            Some(Pending::Field { at, off, size }) => {
                let value = r[self.code[at].d as usize];
                let field = (off, size, value);
                if *self.fields.entry(at).or_insert(field) != field {
                    return Err("reads several fields at one place");
                }
            }
            Some(Pending::Call { at: call, before }) if call == at => {
                // It waits, and is made again.
                self.pending = Some(Pending::Call { at: call, before });
                return Ok(());
            }
            Some(Pending::Call { at: call, .. }) if call + 1 != at => {
                return Err("is called back");
            }
            Some(Pending::Call { before, .. }) => {
                let writes = self.changes(mem, &before);
                self.replies.push((r[0], writes));
            }
            None => {}
        }
        let code = self.code[at];
        let addr = |reg: u8| r[reg as usize].wrapping_add(code.off as u64);
        match (code.k, access(&code)) {
            (_, Some((size, true))) => self.touch(addr(code.s), size)?,
            (_, Some((size, false))) => self.touch(addr(code.d), size)?,
            (K::CallHelper | K::CallKfunc, _) => {
                let before = self.copies_with_stack(mem);
                self.pending = Some(Pending::Call { at, before });
            }
            (K::Exit, _) if depth == 0 => {
                (self.ended, self.r0, self.insns) = (true, r[0], act.insns + 1);
            }
            _ => {}
        }
        let window = self.window(addr(code.s));
        if let (Some((size, true)), Some(off)) = (access(&code), window) {
            self.pending = Some(Pending::Field { at, off, size });
        }
        Ok(())
    }

    /// How far in the context an address is, where that is no memory.
    fn window(&self, addr: u64) -> Option<u64> {
        let outside = Area::of(self.args[0]).is_none();
        let off = addr.wrapping_sub(self.args[0]);
        (outside && self.args[0] > BASE && off < FIELDS).then_some(off)
    }

    fn touch(&mut self, addr: u64, size: u64) -> Result<(), Why> {
        if self.window(addr).is_some() {
            return Ok(());
        }
        let area = Area::of(addr).ok_or("touches what is no memory")?;
        if area != Area::Stack {
            let range = &mut self.touched[area as usize];
            let (from, to) = range.unwrap_or((addr, addr));
            *range = Some((from.min(addr), to.max(addr + size)));
        }
        Ok(())
    }

    fn copies(&self, mem: &GuestMem) -> Vec<Vec<u8>> {
        let ranges = self.ranges.iter().flatten();
        let copy = |(from, to): &(u64, u64)| mem.slice(*from, to - from).unwrap_or(&[]).to_vec();
        ranges.map(copy).collect()
    }

    fn copies_with_stack(&self, mem: &GuestMem) -> Vec<Vec<u8>> {
        let mut copies = self.copies(mem);
        let stack = mem.slice(self.top - STACK_SIZE, STACK_SIZE);
        copies.push(stack.unwrap_or(&[]).to_vec());
        copies
    }

    /// Words that are not as they were.
    fn changes(&self, mem: &GuestMem, before: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
        let after = self.copies_with_stack(mem);
        let starts = self.ranges.iter().flatten().map(|(from, _)| *from);
        let starts = starts.chain([self.top - STACK_SIZE]);
        let mut changes: Vec<(u64, Vec<u8>)> = Vec::new();
        for ((start, old), new) in starts.zip(before).zip(&after) {
            let words = old.chunks(8).zip(new.chunks(8)).enumerate();
            for (i, (_, new)) in words.filter(|(_, (old, new))| old != new) {
                let at = start + 8 * i as u64;
                match changes.last_mut() {
                    Some((from, bytes)) if *from + bytes.len() as u64 == at => bytes.extend(new),
                    _ => changes.push((at, new.to_vec())),
                }
            }
        }
        changes
    }

    /// What a number is in other engines. The context is the first piece of memory.
    fn value(&self, number: u64) -> Value {
        if let Some(off) = self.window(number) {
            return Value::In(0, off as i64);
        }
        let below = self.top.wrapping_sub(1).wrapping_sub(number);
        if below < STACK_SIZE || number == self.top {
            let frame = below.checked_div(FRAME).filter(|_| number != self.top);
            let frame = frame.unwrap_or(0);
            let begins = self.top - FRAME * (frame + 1);
            return Value::Stack(frame, number - begins);
        }
        for (i, (from, to)) in self.ranges.iter().flatten().enumerate() {
            if (from - BESIDE..to + BESIDE).contains(&number) {
                return Value::In(1 + i, number.wrapping_sub(*from) as i64);
            }
        }
        Value::Number(number)
    }

    fn bytes(&self, data: &[u8]) -> Bytes {
        let mut bytes = Bytes {
            data: data.to_vec(),
            places: Vec::new(),
        };
        for (i, word) in data.chunks_exact(8).enumerate() {
            let number = u64::from_le_bytes(word.try_into().unwrap_or_default());
            match self.value(number) {
                Value::Number(_) => {}
                place => bytes.places.push((8 * i, place)),
            }
        }
        bytes
    }

    fn finish(self, name: &str) -> Result<(Program, Outcome), Why> {
        self.refused.map_or(Ok(()), Err)?;
        if !self.ended {
            return Err("ends in another program");
        }
        if !matches!(self.value(self.r0), Value::Number(_)) || self.r0 > u32::MAX as u64 {
            return Err("returns an address");
        }
        let mut code = self.code.clone();
        let mut fields = Bytes {
            data: vec![0; 16 * FIELDS as usize],
            places: Vec::new(),
        };
        for (at, (off, size, value)) in &self.fields {
            let (from, wide) = (*off as usize, 8 * (*off + FIELDS));
            if *size == 8
                || value >> (8 * size) == 0 && matches!(self.value(*value), Value::Number(_))
            {
                let bytes = &value.to_le_bytes()[..*size as usize];
                fields.data[from..from + bytes.len()].copy_from_slice(bytes);
                match self.value(*value) {
                    Value::Number(_) => {}
                    place => fields.places.push((from, place)),
                }
            } else {
                // A pointer that C sees half of.
                let to = wide as usize;
                fields.data[to..to + 8].copy_from_slice(&value.to_le_bytes());
                fields.places.push((to, self.value(*value)));
                code[*at].k = K::Ld64;
                code[*at].off += (wide - off) as i32;
            }
        }
        let mut memory = vec![fields];
        memory.extend(self.memory.iter().map(|bytes| self.bytes(bytes)));
        let write = |(at, bytes): &(u64, Vec<u8>)| (self.value(*at), self.bytes(bytes));
        let reply = |(r0, writes): &(u64, Vec<(u64, Vec<u8>)>)| Reply {
            r0: self.value(*r0),
            writes: writes.iter().map(write).collect(),
        };
        let wide = code.iter().enumerate().filter(|(_, c)| c.k == K::LdImm64);
        let world = World {
            memory,
            args: self.args.map(|a| self.value(a)).to_vec(),
            immediates: wide.map(|(at, c)| (at, self.value(c.imm as u64))).collect(),
            replies: self.replies.iter().map(reply).collect(),
        };
        let program = Program {
            name: name.to_string(),
            slots: slots(&code)?,
            world,
            per_run: true,
        };
        let (r0, insns) = (self.r0, self.insns);
        Ok((program, Outcome { r0, insns }))
    }
}

/// The bytes of a load (true) or store.
fn access(code: &Code) -> Option<(u64, bool)> {
    Some(match code.k {
        K::Ld8 | K::LdS8 => (1, true),
        K::Ld16 | K::LdS16 => (2, true),
        K::Ld32 | K::LdS32 => (4, true),
        K::Ld64 => (8, true),
        K::Probe => (u64::from(code.t & 15), true),
        K::St8I | K::St8R => (1, false),
        K::St16I | K::St16R => (2, false),
        K::St32I | K::St32R => (4, false),
        K::St64I | K::St64R => (8, false),
        K::Atomic32 => (4, false),
        K::Atomic64 => (8, false),
        _ => return None,
    })
}

/// Instructions as every engine takes them; all calls out are to the one helper.
fn slots(code: &[Code]) -> Result<Vec<Insn>, Why> {
    // Behind the program is what is no instruction.
    let code = &code[..code.len() - 1];
    let mut slots = Vec::with_capacity(code.len());
    while let Some(c) = code.get(slots.len()) {
        let number = |from: K| (c.k as u8).checked_sub(from as u8);
        let off = i16::try_from(c.off).unwrap_or(0);
        let insn = |op: u8, imm: i64| Insn::new(op, c.d, c.s, off, imm as i32);
        let alone = |op: u8, imm: i32| Insn::new(op, c.d, 0, 0, imm);
        let slot = match c.k {
            k if k as u8 <= K::Arsh32R as u8 => {
                let (row, column) = (c.k as usize / 4, c.k as usize % 4);
                let op = ALU[row].ok_or("divides signed numbers")?;
                insn(op | CLASSES[column], c.imm)
            }
            k if k as u8 <= K::Jset32R as u8 => {
                let n = number(K::Jeq64I).unwrap_or(0) as usize;
                insn(JMP[n / 4] | CLASSES_JMP[n % 4], c.imm)
            }
            K::Neg64 => alone(0x87, 0),
            K::Neg32 => alone(0x84, 0),
            K::Zx16 => alone(0xd4, 16),
            K::Zx32 => alone(0xd4, 32),
            K::Swap16 => alone(0xdc, 16),
            K::Swap32 => alone(0xdc, 32),
            K::Swap64 => alone(0xdc, 64),
            K::LdImm64 => {
                slots.push(insn(0x18, c.imm));
                Insn::new(0, 0, 0, 0, (c.imm >> 32) as i32)
            }
            K::St8I | K::St16I | K::St32I | K::St64I => insn(0x62 | size(c), c.imm),
            K::St8R | K::St16R | K::St32R | K::St64R => insn(0x63 | size(c), 0),
            K::Ld8 | K::Ld16 | K::Ld32 | K::Ld64 => insn(0x61 | size(c), 0),
            K::Probe if c.t < 16 => insn(0x61 | size(c), 0),
            K::Ja if i32::from(off) == c.off => insn(0x05, 0),
            K::CallBpf => Insn::new(0x85, 0, 1, 0, c.off),
            K::CallHelper | K::CallKfunc => Insn::new(0x85, 0, 0, 0, HELPER as i32),
            // What no way leads to is not looked at.
            K::Exit | K::Bad => Insn::new(0x95, 0, 0, 0, 0),
            K::LdS8 | K::LdS16 | K::LdS32 | K::Probe => return Err("loads signed numbers"),
            K::Atomic32 | K::Atomic64 => return Err("has atomics"),
            K::LdPkt8 | K::LdPkt16 | K::LdPkt32 => return Err("has LD_ABS or LD_IND"),
            K::MayGoto | K::CastKern | K::CastUser | K::CallX | K::Ja => {
                return Err("has may_goto, casts or far jumps");
            }
            _ => return Err("extends signs"),
        };
        slots.push(slot);
    }
    Ok(slots)
}

/// The size of an access, as codes have it.
fn size(code: &Code) -> u8 {
    match access(code) {
        Some((1, _)) => 0x10,
        Some((2, _)) => 0x08,
        Some((8, _)) => 0x18,
        _ => 0,
    }
}

/// Operations, in the order of [`K`].
#[rustfmt::skip]
const ALU: [Option<u8>; 14] = [
    Some(0x00), Some(0x10), Some(0x20), Some(0x30), None, Some(0x40), Some(0x50), Some(0x60),
    Some(0x70), Some(0x90), None, Some(0xa0), Some(0xb0), Some(0xc0),
];
/// Classes and sources, in the order of [`K`].
const CLASSES: [u8; 4] = [0x07, 0x0f, 0x04, 0x0c];
const JMP: [u8; 11] = [
    0x10, 0x50, 0x20, 0x30, 0xa0, 0xb0, 0x60, 0x70, 0xc0, 0xd0, 0x40,
];
const CLASSES_JMP: [u8; 4] = [0x05, 0x0d, 0x06, 0x0e];
