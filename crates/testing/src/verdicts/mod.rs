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
mod generate;
pub mod shrink;

use std::fmt;

use bpfsim_abi::{AttachType, MapType, ProgType};
use bpfsim_btf::{Btf, BtfBuilder, Linkage, Member, TypeId};
use bpfsim_isa::Insn;

pub use dice::Dice;
pub use generate::random;

/// `BPF_F_STRICT_ALIGNMENT`
pub const STRICT_ALIGNMENT: u32 = 1;
/// `BPF_F_TEST_STATE_FREQ`
pub const STATE_FREQ: u32 = 1 << 3;
/// `BPF_F_SLEEPABLE`
pub const SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_TEST_REG_INVARIANTS`
pub const REG_INVARIANTS: u32 = 1 << 7;

/// A map that every program may use.
#[derive(Clone, Copy, Debug)]
pub struct MapRow {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many.
    pub max_entries: u32,
    /// Struct of [`types`] that its values are.
    pub value: Option<&'static str>,
    /// What it holds, where it is frozen and read-only for programs.
    pub frozen: Option<&'static [u8]>,
}

/// An array of plain values.
pub const ARRAY: usize = 0;
/// A hash table of plain values.
pub const HASH: usize = 1;
/// An array whose values have a timer.
pub const TIMERS: usize = 2;
/// A ring buffer.
pub const RING: usize = 3;
/// Constants.
pub const RODATA: usize = 4;

/// The maps, by the number that an instruction of `BPF_PSEUDO_MAP_FD` has.
pub const MAPS: [MapRow; 5] = [
    row("arr", MapType::Array, 4, 48, 4),
    row("hash", MapType::Hash, 8, 40, 8),
    MapRow {
        value: Some("timed"),
        ..row("timers", MapType::Array, 4, 32, 2)
    },
    row("ring", MapType::Ringbuf, 0, 0, 4096),
    MapRow {
        frozen: Some(&[
            7, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0x80, 0, 0, 16, 0, 0, 0, 0, 0, 0,
            0x80,
        ]),
        ..row("consts", MapType::Array, 4, 24, 1)
    },
];

const fn row(
    name: &'static str,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> MapRow {
    MapRow {
        name,
        map_type,
        key_size,
        value_size,
        max_entries,
        value: None,
        frozen: None,
    }
}

/// Most functions of a program.
pub const MAX_FUNCS: usize = 6;

/// The programs' types: `FUNC`s named `f0` to `f5`, of which the first alone is global, and the
/// struct of [`TIMERS`]'s values.
pub fn types() -> BtfBuilder {
    let mut b = BtfBuilder::new();
    let int = b.add_int("int", 4, 1);
    let long = b.add_int("long", 8, 1);
    let opaque = b.add_array(long, int, 2);
    let member = |name, ty, bit_offset| Member {
        name,
        ty,
        bit_offset,
        bitfield_size: 0,
    };
    let timer = b.add_struct("bpf_timer", 16, &[member("__opaque", opaque, 0)]);
    b.add_struct(
        "timed",
        32,
        &[
            member("a", long, 0),
            member("timer", timer, 64),
            member("b", long, 192),
        ],
    );
    let proto = b.add_func_proto(int, &[]);
    for i in 0..MAX_FUNCS {
        let linkage = if i == 0 {
            Linkage::Global
        } else {
            Linkage::Static
        };
        b.add_func(&format!("f{i}"), linkage, proto);
    }
    b
}

/// The `FUNC` of a function in [`types`].
pub fn func_type(btf: &Btf, func: usize) -> Option<TypeId> {
    btf.find(&format!("f{func}"), bpfsim_btf::Kind::Func)
}

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

/// A program as it is loaded; maps by their number in [`MAPS`].
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
                let mut insn = line.insn;
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

    /// Whether it needs types: it takes a function's address.
    pub fn has_types(&self) -> bool {
        let func = bpfsim_isa::uapi::BPF_PSEUDO_FUNC;
        self.insns
            .iter()
            .any(|i| i.is_ld_imm64() && i.src() == func)
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

/// Helpers by name; there are no kernel functions.
struct Names;

impl bpfsim_isa::LinuxNames for Names {
    fn helper(&self, id: i32) -> Option<std::borrow::Cow<'_, str>> {
        let func = bpfsim_abi::Func::from_u32(u32::try_from(id).ok()?)?;
        Some(func.name().into())
    }
    fn kfunc(&self, _btf_id: i32, _off: i16) -> Option<std::borrow::Cow<'_, str>> {
        None
    }
}
