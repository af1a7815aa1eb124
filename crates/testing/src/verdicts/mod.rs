//! Random programs for the verifier, judged by Linux and by bpfsim.
//!
//! [`random`] makes a program out of a stream of choices ([`Dice`]), weighted to what verifiers get
//! wrong; [`Linux`](ask::LinuxWithMaps) and [`bpfsim`](ask::Sim) say what each makes of it, as an
//! [`Answer`](ask::Answer); [`shrink`] makes a program on which they differ small.
//!
//! Programs are only ever loaded. They use plain maps and one with a timer, and never what
//! a kernel is not to be asked: workqueue calls on maps without one.

pub mod ask;
mod dice;
mod gen_calls;
mod gen_data;
mod gen_kfuncs;
mod generate;
pub mod shrink;
pub mod world;

use std::fmt;

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_isa::Insn;
use bpfsim_isa::uapi::BPF_PSEUDO_KFUNC_CALL;

pub use dice::Dice;
pub use generate::random;
pub use world::MAX_FUNCS;

/// `BPF_F_STRICT_ALIGNMENT`
pub const STRICT_ALIGNMENT: u32 = 1;
/// `BPF_F_TEST_STATE_FREQ`
pub const STATE_FREQ: u32 = 1 << 3;
/// `BPF_F_SLEEPABLE`
pub const SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_TEST_REG_INVARIANTS`
pub const REG_INVARIANTS: u32 = 1 << 7;

/// Where an instruction goes, or what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Nothing.
    Nothing,
    /// A line of the same function.
    Line(usize),
    /// A function that is called, or whose address is taken.
    Func(usize),
}

/// An instruction; one of `BPF_LD_IMM64` has its second slot's value in `hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// First slot, its distance still to be filled in.
    pub insn: Insn,
    /// The second slot's immediate.
    pub hi: i32,
    /// Where it goes.
    pub to: To,
}

/// A program by functions and lines, so that lines can be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Type.
    pub prog_type: ProgType,
    /// `BPF_F_*`
    pub flags: u32,
    /// Functions, the main one first.
    pub funcs: Vec<Vec<Line>>,
}

/// A program as it is loaded; maps by their number in [`world::MAPS`], kernel functions by theirs in
/// [`world::KFUNCS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Type.
    pub prog_type: ProgType,
    /// `BPF_F_*`
    pub flags: u32,
    /// Slots.
    pub insns: Vec<Insn>,
    /// First slot of each function.
    pub starts: Vec<usize>,
    /// A bit for each function that is global: it is verified by its prototype alone. The first one is
    /// in any case.
    pub globals: u32,
    /// Whether its licence is compatible with the GPL.
    pub gpl: bool,
    /// Whether it is given types where it needs them.
    pub typed: bool,
}

/// The instruction; a constant in place of a call that no kernel is to be asked about in a random program,
/// however it came to be.
fn asked(insn: Insn) -> Insn {
    let kfunc = insn.code == 0x85 && insn.src() == BPF_PSEUDO_KFUNC_CALL;
    match kfunc && (0..world::UNASKED_KFUNCS as i32).contains(&insn.imm) {
        true => Insn::new(0xb7, 0, 0, 0, 0),
        false => insn,
    }
}

impl Line {
    fn slots(&self) -> usize {
        1 + usize::from(self.insn.is_ld_imm64())
    }
}

impl Program {
    /// Puts distances in.
    pub fn flat(&self) -> Flat {
        let mut places = Vec::new();
        let mut starts = Vec::new();
        let mut at = 0;
        for func in &self.funcs {
            starts.push(at);
            let mut lines = Vec::new();
            for line in func {
                lines.push(at);
                at += line.slots();
            }
            places.push(lines);
        }
        let mut insns = Vec::new();
        for (f, func) in self.funcs.iter().enumerate() {
            for line in func {
                let mut insn = asked(line.insn);
                let next = insns.len() as i64 + 1;
                let target = match line.to {
                    To::Nothing => None,
                    To::Line(n) => {
                        let last = places[f].last().copied().unwrap_or(0);
                        Some(places[f].get(n).copied().unwrap_or(last))
                    }
                    To::Func(n) => Some(starts.get(n).copied().unwrap_or(0)),
                };
                if let Some(target) = target {
                    let rel = target as i64 - next;
                    match line.to {
                        To::Line(_) => insn.off = rel as i16,
                        _ => insn.imm = rel as i32,
                    }
                }
                insns.push(insn);
                if insn.is_ld_imm64() {
                    insns.push(Insn::new(0, 0, 0, 0, line.hi));
                }
            }
        }
        Flat {
            prog_type: self.prog_type,
            flags: self.flags,
            insns,
            starts,
            globals: 1,
            gpl: true,
            typed: true,
        }
    }

    /// Without these lines of a function; what went to one of them goes to the line behind.
    #[must_use]
    pub fn without(&self, func: usize, lines: std::ops::Range<usize>) -> Program {
        let mut less = self.clone();
        less.funcs[func].drain(lines.clone());
        for line in &mut less.funcs[func] {
            if let To::Line(to) = &mut line.to {
                if *to >= lines.end {
                    *to -= lines.len();
                } else if *to > lines.start {
                    *to = lines.start;
                }
            }
        }
        less
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.funcs.iter().map(Vec::len).sum()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Flat {
    /// What it is made for, as `BPF_PROG_LOAD` is told.
    pub fn attach_type(&self) -> AttachType {
        bpfsim_abi::prog::fixup_attach_type(self.prog_type, AttachType::CgroupInetIngress)
    }

    /// Whether it needs types: it takes a function's address, or has global functions.
    pub fn has_types(&self) -> bool {
        let func = bpfsim_isa::uapi::BPF_PSEUDO_FUNC;
        let takes = |i: &Insn| i.is_ld_imm64() && i.src() == func;
        self.typed && (self.globals > 1 || self.insns.iter().any(takes))
    }

    /// Whether a function is global.
    pub fn is_global(&self, func: usize) -> bool {
        func == 0 || self.globals >> func & 1 != 0
    }

    /// Slots in hexadecimal.
    pub fn hex(&self) -> String {
        let bytes = self.insns.iter().flat_map(|i| i.to_le_bytes());
        crate::recording::to_hex(&bytes.collect::<Vec<u8>>())
    }

    /// What [`Flat::hex`] gave.
    ///
    /// # Errors
    /// The text, where it is not that.
    pub fn from_hex(
        prog_type: ProgType,
        flags: u32,
        starts: Vec<usize>,
        hex: &str,
    ) -> Result<Flat, String> {
        let bytes = crate::recording::from_hex(hex)?;
        let slots = bytes.chunks_exact(8).map(|c| {
            let mut slot = [0; 8];
            slot.copy_from_slice(c);
            Insn::from_le_bytes(slot)
        });
        Ok(Flat {
            prog_type,
            flags,
            insns: slots.collect(),
            starts,
            globals: 1,
            gpl: true,
            typed: true,
        })
    }
}

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?}, flags {}, functions at {:?}",
            self.prog_type, self.flags, self.starts
        )?;
        let mut at = 0;
        while at < self.insns.len() {
            match bpfsim_isa::linux_insn(&self.insns, at, &Names) {
                Some(text) => writeln!(f, "{at:4}: {text}")?,
                None => writeln!(f, "{at:4}: {:?}", self.insns[at])?,
            }
            at += 1 + usize::from(self.insns[at].is_ld_imm64());
        }
        Ok(())
    }
}

/// Helpers and kernel functions by name.
struct Names;

impl bpfsim_isa::LinuxNames for Names {
    fn helper(&self, id: i32) -> Option<std::borrow::Cow<'_, str>> {
        let func = bpfsim_abi::Func::from_u32(u32::try_from(id).ok()?)?;
        Some(func.name().into())
    }
    fn kfunc(&self, number: i32, _off: i16) -> Option<std::borrow::Cow<'_, str>> {
        let name = world::KFUNCS.get(usize::try_from(number).ok()?)?;
        Some((*name).into())
    }
}
