//! The slowest and plainest engine: what the others are checked against.
//!
//! It reads the instructions as the tables of `bpfsim-isa` give them, keeps memory as a list of
//! ranges and looks at nothing that the engines have in common.

use crate::programs::{HELPER, Program, helper};
use bpfsim_isa::{AluOp, CallKind, Cond, EndKind, Imm64, Op, Operand, Size, Width, decode};

/// What a run of a program gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// r0 at the end.
    pub r0: u64,
    /// Instructions executed.
    pub insns: u64,
}

const INPUT: u64 = 0x1_0000;
const STACK: u64 = 0x2_0000;
const FRAME: u64 = 512;
const FRAMES: u64 = 8;

struct Machine {
    r: [u64; 11],
    input: Vec<u8>,
    stack: Vec<u8>,
    frames: Vec<(i64, [u64; 4])>,
}

/// Runs a program to its end.
///
/// # Panics
/// If the program does what none of [`crate::programs`] does.
pub fn run(program: &Program) -> Outcome {
    let mut m = Machine {
        r: [0; 11],
        input: program.world.memory[0].data.clone(),
        stack: vec![0; (FRAME * FRAMES) as usize],
        frames: Vec::new(),
    };
    m.r[1] = INPUT;
    m.r[10] = STACK + FRAME * FRAMES;
    let mut pc = 0_i64;
    let mut insns = 0;
    loop {
        let (op, len) = decode(&program.slots, pc as usize).expect("an instruction");
        insns += 1;
        pc += len as i64;
        match m.step(op, &mut pc) {
            None => {}
            Some(r0) => return Outcome { r0, insns },
        }
    }
}

impl Machine {
    /// Executes one instruction; gives r0 when the outermost frame returned.
    fn step(&mut self, op: Op, pc: &mut i64) -> Option<u64> {
        match op {
            Op::Alu { w, op, dst, src } => {
                let d = dst.number() as usize;
                let value = alu(w, op, self.r[d], self.operand(src));
                self.r[d] = value;
            }
            Op::End {
                kind: EndKind::Be,
                bits: 16,
                dst,
            } => {
                let d = dst.number() as usize;
                self.r[d] = u64::from((self.r[d] as u16).swap_bytes());
            }
            Op::LdImm64 {
                dst,
                kind: Imm64::Plain(value),
            } => {
                self.r[dst.number() as usize] = value;
            }
            Op::Load {
                size,
                signed: false,
                dst,
                src,
                off,
            } => {
                let addr = self.r[src.number() as usize].wrapping_add(off as u64);
                let bytes = self.at(addr, size);
                let mut wide = [0; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                self.r[dst.number() as usize] = u64::from_le_bytes(wide);
            }
            Op::Store {
                size,
                dst,
                off,
                src,
            } => {
                let value = self.operand(src).to_le_bytes();
                let addr = self.r[dst.number() as usize].wrapping_add(off as u64);
                let to = self.at(addr, size);
                let len = to.len();
                to.copy_from_slice(&value[..len]);
            }
            Op::Jmp {
                w: Width::W64,
                cond,
                dst,
                src,
                off,
            } => {
                if holds(cond, self.r[dst.number() as usize], self.operand(src)) {
                    *pc += i64::from(off);
                }
            }
            Op::Ja { off, .. } => *pc += i64::from(off),
            Op::Call(CallKind::Helper(id)) if id as u32 == HELPER => {
                let r = &self.r;
                self.r[0] = helper(r[1], r[2], r[3], r[4], r[5]);
            }
            Op::Call(CallKind::Bpf(off)) => {
                let saved = [self.r[6], self.r[7], self.r[8], self.r[9]];
                self.frames.push((*pc, saved));
                self.r[10] -= FRAME;
                *pc += i64::from(off);
            }
            Op::Exit => {
                let Some((ret, saved)) = self.frames.pop() else {
                    return Some(self.r[0]);
                };
                self.r[6..10].copy_from_slice(&saved);
                self.r[10] += FRAME;
                *pc = ret;
            }
            other => panic!("{other}: not in these programs"),
        }
        None
    }

    fn operand(&self, src: Operand) -> u64 {
        match src {
            Operand::Reg(r) => self.r[r.number() as usize],
            Operand::Imm(i) => i as u64,
        }
    }

    fn at(&mut self, addr: u64, size: Size) -> &mut [u8] {
        let (base, bytes) = match addr {
            STACK.. => (STACK, &mut self.stack),
            _ => (INPUT, &mut self.input),
        };
        let from = (addr - base) as usize;
        &mut bytes[from..from + size.bytes() as usize]
    }
}

fn alu(w: Width, op: AluOp, a: u64, b: u64) -> u64 {
    assert_eq!(w, Width::W64, "these programs compute in 64 bits");
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a / b,
        AluOp::Mod => a % b,
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Xor => a ^ b,
        AluOp::Lsh => a << b,
        AluOp::Rsh => a >> b,
        AluOp::Mov => b,
        other => panic!("{other:?}: not in these programs"),
    }
}

fn holds(cond: Cond, a: u64, b: u64) -> bool {
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Gt => a > b,
        Cond::Ge => a >= b,
        Cond::Lt => a < b,
        Cond::Le => a <= b,
        other => panic!("{other:?}: not in these programs"),
    }
}
