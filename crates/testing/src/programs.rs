//! Random valid programs of arithmetic, jumps and memory.
//!
//! A program takes a pointer to its area in r1, as a Linux `syscall` program takes its
//! context and rbpf's raw machine its memory. It terminates, touches nothing but its area
//! and its stack, and leaves all that it computed in the area: first what its body
//! stored, then r0 to r9 but for r6, then the stack. So two engines agree on a program exactly if
//! they agree on r0 and the bytes of the area.
//!
//! Linux's verifier accepts these programs: accesses are aligned, offsets constant,
//! atomics on the stack only, shifts and divisors in range, no code unreachable, and the
//! paths through branches on values that it does not know few.

use bpfsim_isa::{
    AluOp, AtomicOp, Cond, Cpu, EndKind, Imm64, Insn, Op, Operand, Reg, Size, Width, encode,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What programs may be made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// No instruction is newer than this.
    pub cpu: Cpu,
    /// Bytes of the area that the body reads and writes, a multiple of 8.
    pub area: u16,
    /// Bytes of the stack that are used, a multiple of 8, at most 512.
    pub stack: u16,
    /// Most statements in a row.
    pub statements: usize,
    /// Whether an instruction may occur, for engines that lack or miscompute some.
    pub allow: fn(&Op) -> bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cpu: Cpu::V4,
            area: 64,
            stack: 64,
            statements: 16,
            allow: |_| true,
        }
    }
}

impl Config {
    fn has(&self, op: &Op) -> bool {
        op.cpu() <= self.cpu && (self.allow)(op)
    }

    /// Bytes of the whole area: the body's, nine registers, the stack.
    pub const fn area_len(&self) -> usize {
        self.area as usize + 8 * SAVED.len() + self.stack as usize
    }
}

/// A random program and the size of its area.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// The program; r1 is to point to its area.
    pub slots: Vec<Insn>,
    /// Bytes of the area, which are its input and its output.
    pub area_len: usize,
    /// Most slots that a run of it passes.
    pub most_steps: u64,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = bpfsim_isa::to_assembly(&self.slots);
        write!(f, "area of {} bytes\n{text}", self.area_len)
    }
}

/// Registers that hold numbers; r6 is the area, r10 the stack.
const NUMBERS: [Reg; 9] = [
    Reg::R0,
    Reg::R1,
    Reg::R2,
    Reg::R3,
    Reg::R4,
    Reg::R5,
    Reg::R7,
    Reg::R8,
    Reg::R9,
];
const AREA: Reg = Reg::R6;
/// Registers as they are left in the area.
const SAVED: [Reg; 9] = NUMBERS;
/// Counters of loops, outer first. Nothing else is written to one while it counts.
const COUNTERS: [Reg; 2] = [Reg::R8, Reg::R9];

/// A program, before jumps have distances.
#[derive(Clone, Debug)]
enum Stmt {
    Op(Op),
    /// Jumps over `then` if the condition holds, else over `or`.
    If {
        jump: Op,
        long: bool,
        then: Vec<Stmt>,
        or: Vec<Stmt>,
    },
    Loop {
        times: i32,
        body: Vec<Stmt>,
    },
}

/// Random programs, with an area for each to start from.
pub fn programs(config: Config) -> impl Strategy<Value = (Program, Vec<u8>)> {
    let start = vec(number(), NUMBERS.len() + usize::from(config.stack / 8));
    let body = vec(statement(config), 1..=config.statements);
    let area = vec(any::<u8>(), config.area_len());
    (start, body, area)
        .prop_map(move |(start, body, area)| (Program::new(&config, &start, &body), area))
}

/// 64 bits, with those that arithmetic goes wrong on more often than chance has it.
fn number() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        0x7f,
        0x80,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
    ];
    let edge = (select(edges.to_vec()), 0_u32..64, any::<bool>())
        .prop_map(|(n, by, not): (u64, u32, bool)| if not { !n.rotate_left(by) } else { n });
    prop_oneof![edge, any::<u64>(), (0_u64..256)]
}

fn immediate() -> impl Strategy<Value = i32> {
    number().prop_map(|n| n as u32 as i32)
}

fn register() -> impl Strategy<Value = Reg> {
    select(NUMBERS.to_vec())
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        register().prop_map(Operand::Reg),
        immediate().prop_map(Operand::Imm)
    ]
}

fn width() -> impl Strategy<Value = Width> {
    select(Width::ALL)
}

fn statement(config: Config) -> BoxedStrategy<Stmt> {
    let op = simple(config).prop_map(Stmt::Op).boxed();
    let block = vec(op.clone(), 0..6);
    let jump = (width(), select(Cond::ALL), register(), operand())
        .prop_map(|(w, cond, dst, src)| Op::Jmp {
            w,
            cond,
            dst,
            src,
            off: 0,
        })
        .prop_filter("not in this machine", move |jump| config.has(jump));
    let long = any::<bool>().prop_map(move |long| long && config.has(&ja(0, true)));
    let branch = (jump, long, block.clone(), block)
        .prop_map(|(jump, long, then, or)| Stmt::If {
            jump,
            long,
            then,
            or,
        })
        .boxed();
    let looped = |body: BoxedStrategy<Stmt>| {
        (1_i32..4, vec(body, 1..4))
            .prop_map(|(times, body)| Stmt::Loop { times, body })
            .boxed()
    };
    let in_loop = prop_oneof![8 => op.clone(), 1 => branch.clone(), 1 => looped(op.clone())];
    prop_oneof![16 => op, 3 => branch, 1 => looped(in_loop.boxed())].boxed()
}

/// An instruction that does not jump.
fn simple(config: Config) -> impl Strategy<Value = Op> {
    let unary = (
        width(),
        register(),
        select(EndKind::ALL),
        select(vec![16_u8, 32, 64]),
        any::<bool>(),
    )
        .prop_map(|(w, dst, kind, bits, neg)| match neg {
            true => Op::Neg { w, dst },
            false => Op::End { kind, bits, dst },
        });
    let movsx = (width(), select(vec![8_u8, 16, 32]), register(), register())
        .prop_map(|(w, bits, dst, src)| Op::Movsx { w, bits, dst, src });
    let wide = (register(), number()).prop_map(|(dst, value)| Op::LdImm64 {
        dst,
        kind: Imm64::Plain(value),
    });
    prop_oneof![
        8 => arithmetic(),
        1 => unary,
        1 => movsx,
        1 => wide,
        4 => memory(config),
        1 => atomic(config),
    ]
    .prop_filter("not in this machine", move |op| {
        config.has(op) && encode(op).is_ok()
    })
}

/// Shifts by less than the width and no division by the number zero: Linux refuses others.
fn arithmetic() -> impl Strategy<Value = Op> {
    (width(), select(AluOp::ALL), register(), operand()).prop_map(|(w, op, dst, src)| {
        let src = match (op, src) {
            (AluOp::Lsh | AluOp::Rsh | AluOp::Arsh, Operand::Imm(imm)) => {
                Operand::Imm(imm & (w.bits() as i32 - 1))
            }
            (AluOp::Div | AluOp::Sdiv | AluOp::Mod | AluOp::Smod, Operand::Imm(0)) => {
                Operand::Imm(1)
            }
            (_, src) => src,
        };
        Op::Alu { w, op, dst, src }
    })
}

/// Base and offset of an aligned access of `size` in the area (or the stack).
fn place(config: &Config, size: Size, at: u16, on_stack: bool) -> (Reg, i16) {
    let len = if on_stack { config.stack } else { config.area };
    let within = (at % len / size.bytes() as u16 * size.bytes() as u16) as i16;
    if on_stack {
        (Reg::FP, within - len as i16)
    } else {
        (AREA, within)
    }
}

fn memory(config: Config) -> impl Strategy<Value = Op> {
    let parts = (
        select(Size::ALL),
        any::<bool>(),
        any::<u16>(),
        any::<bool>(),
    );
    (parts, register(), operand(), any::<bool>()).prop_map(
        move |((size, signed, at, on_stack), reg, operand, is_load)| {
            let (base, off) = place(&config, size, at, on_stack);
            if is_load {
                let signed = signed && size != Size::Dw && config.cpu >= Cpu::V4;
                Op::Load {
                    size,
                    signed,
                    dst: reg,
                    src: base,
                    off,
                }
            } else {
                Op::Store {
                    size,
                    dst: base,
                    off,
                    src: operand,
                }
            }
        },
    )
}

/// On the stack: Linux lets nobody do atomics on a context.
fn atomic(config: Config) -> impl Strategy<Value = Op> {
    (
        select(Size::ALL),
        select(AtomicOp::ALL),
        any::<bool>(),
        any::<u16>(),
        register(),
        0..4,
    )
        .prop_map(move |(size, op, fetch, at, reg, kind)| {
            let (base, off) = place(&config, size, at, true);
            match kind {
                0 => Op::LoadAcquire {
                    size,
                    dst: reg,
                    src: base,
                    off,
                },
                1 => Op::StoreRelease {
                    size,
                    dst: base,
                    off,
                    src: reg,
                },
                _ => {
                    let size = if size == Size::Dw { size } else { Size::W };
                    let (base, off) = place(&config, size, at, true);
                    let fetch = fetch || op.always_fetches();
                    Op::Atomic {
                        size,
                        op,
                        fetch,
                        dst: base,
                        off,
                        src: reg,
                    }
                }
            }
        })
}

const fn ja(off: i32, long: bool) -> Op {
    Op::Ja { long, off }
}

impl Program {
    fn new(config: &Config, start: &[u64], body: &[Stmt]) -> Self {
        let mut code = Code {
            slots: Vec::new(),
            counting: 0,
        };
        code.put(Op::Alu {
            w: Width::W64,
            op: AluOp::Mov,
            dst: AREA,
            src: Operand::Reg(Reg::R1),
        });
        let (stack, numbers) = start.split_at(usize::from(config.stack / 8));
        for (word, value) in stack.iter().enumerate() {
            code.put(load_number(Reg::R0, *value));
            code.put(store(Reg::FP, stack_word(config, word), Reg::R0));
        }
        for (reg, value) in NUMBERS.iter().zip(numbers) {
            code.put(load_number(*reg, *value));
        }
        let mut steps = code.block(body);
        let before = code.slots.len();
        let mut at = config.area as i16;
        for reg in SAVED {
            code.put(store(AREA, at, reg));
            at += 8;
        }
        for word in 0..stack.len() {
            let off = stack_word(config, word);
            code.put(Op::Load {
                size: Size::Dw,
                signed: false,
                dst: Reg::R1,
                src: Reg::FP,
                off,
            });
            code.put(store(AREA, at, Reg::R1));
            at += 8;
        }
        code.put(Op::Exit);
        steps += (code.slots.len() - before) as u64 + code.slots.len() as u64;
        Self {
            slots: code.slots,
            area_len: config.area_len(),
            most_steps: steps,
        }
    }
}

fn stack_word(config: &Config, word: usize) -> i16 {
    8 * word as i16 - config.stack as i16
}

fn load_number(dst: Reg, value: u64) -> Op {
    Op::LdImm64 {
        dst,
        kind: Imm64::Plain(value),
    }
}

fn store(base: Reg, off: i16, reg: Reg) -> Op {
    Op::Store {
        size: Size::Dw,
        dst: base,
        off,
        src: Operand::Reg(reg),
    }
}

/// A program as it grows.
struct Code {
    slots: Vec<Insn>,
    /// Loops that the next statement is in.
    counting: usize,
}

impl Code {
    fn put(&mut self, op: Op) {
        let encoded = encode(&op).expect("generated operations have encodings");
        self.slots.extend_from_slice(&encoded);
    }

    /// Puts a block down; the most steps that it takes.
    fn block(&mut self, block: &[Stmt]) -> u64 {
        block.iter().map(|stmt| self.statement(stmt)).sum()
    }

    fn statement(&mut self, stmt: &Stmt) -> u64 {
        match stmt {
            Stmt::Op(op) => self.unless_it_counts(*op),
            Stmt::If {
                jump,
                long,
                then,
                or,
            } => self.branch(*jump, *long, then, or),
            Stmt::Loop { times, body } => self.repeat(*times, body),
        }
    }

    fn unless_it_counts(&mut self, op: Op) -> u64 {
        let counters = &COUNTERS[..self.counting];
        if counters
            .iter()
            .any(|counter| op.writes().contains(*counter))
        {
            return 0;
        }
        self.put(op);
        1
    }

    fn branch(&mut self, jump: Op, long: bool, then: &[Stmt], or: &[Stmt]) -> u64 {
        let at = self.slots.len();
        self.put(jump);
        let then_steps = self.block(then);
        let over = self.slots.len();
        self.put(ja(0, long));
        let to = self.slots.len();
        let or_steps = self.block(or);
        let end = self.slots.len();
        self.slots[at].off = (to - at - 1) as i16;
        let skip = encode(&ja((end - over - 1) as i32, long));
        self.slots[over] = skip.expect("blocks are short").first();
        2 + then_steps.max(or_steps)
    }

    /// `counter = times; do { body } while (--counter)`. Loops inside of as many as there
    /// are counters run once.
    fn repeat(&mut self, times: i32, body: &[Stmt]) -> u64 {
        let Some(&counter) = COUNTERS.get(self.counting) else {
            return self.block(body);
        };
        let count = |op, imm| Op::Alu {
            w: Width::W64,
            op,
            dst: counter,
            src: Operand::Imm(imm),
        };
        self.put(count(AluOp::Mov, times));
        let start = self.slots.len();
        self.counting += 1;
        let steps = self.block(body);
        self.counting -= 1;
        self.put(count(AluOp::Add, -1));
        let back = start as i32 - self.slots.len() as i32 - 1;
        let (cond, src) = (Cond::Ne, Operand::Imm(0));
        self.put(Op::Jmp {
            w: Width::W64,
            cond,
            dst: counter,
            src,
            off: back as i16,
        });
        1 + (steps + 2) * times.unsigned_abs() as u64
    }
}
