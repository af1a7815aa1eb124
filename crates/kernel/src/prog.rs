//! Programs, what they are given, and what R1 means to them.

use crate::ids::{MapId, ProgId};
use crate::packet::{FieldsCtx, Packet};
use crate::trace::Name;
use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_vm::Image;
use std::sync::Arc;

/// What the rest of the kernel knows of a loaded program.
#[derive(Clone)]
pub(crate) struct ProgMeta {
    pub name: Name,
    pub prog_type: ProgType,
    pub attach_type: AttachType,
    /// The types of its object.
    pub btf: Option<Arc<Btf>>,
    /// Of a struct_ops program the kernel's struct, and the number of the member.
    pub struct_ops: Option<(TypeId, u32)>,
    /// The arena that it uses.
    pub arena: Option<MapId>,
    /// Entry of the function that a thrown exception goes to.
    pub exception: Option<u32>,
    /// Entry and name of each function, by entry.
    pub funcs: Vec<(u32, Name)>,
}

impl ProgMeta {
    /// Name of the function that holds an instruction.
    pub fn function(&self, insn: u32) -> &Name {
        let found = self.funcs.iter().rev().find(|(entry, _)| *entry <= insn);
        found.map_or(&self.name, |(_, name)| name)
    }
}

/// A program's code and where its instructions came from.
#[derive(Clone)]
pub(crate) struct ProgCode {
    pub image: Arc<Image>,
    /// C lines.
    pub lines: bpfsim_loader::Lines,
}

/// Addresses of functions, as `ld_imm64` of a callback puts them into registers: the program in
/// the upper bits, the instruction in the lower 20.
const CODE: u64 = 0xffff_ffff_a000_0000;

/// The address of an instruction of a program.
pub(crate) fn code_address(prog: ProgId, insn: u32) -> Option<u64> {
    (prog.0 < 1 << 9 && insn < 1 << 20).then(|| CODE + ((prog.0 as u64) << 20) + insn as u64)
}

/// The program and instruction of an address that [`code_address`] gave.
pub(crate) fn code_of(addr: u64) -> Option<(ProgId, u32)> {
    let off = addr.wrapping_sub(CODE);
    (off < 1 << 29).then_some((ProgId((off >> 20) as u32), off as u32 & 0xf_ffff))
}

/// What a program is run with (`BPF_PROG_TEST_RUN`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInput {
    /// Packet bytes, for programs that take packets.
    pub data: Vec<u8>,
    /// Context bytes, for programs whose context user space can give.
    pub ctx: Vec<u8>,
    /// How often, at least once.
    pub repeat: u32,
}

impl ProgramInput {
    /// No packet and no context.
    pub fn empty() -> ProgramInput {
        ProgramInput {
            data: Vec::new(),
            ctx: Vec::new(),
            repeat: 1,
        }
    }

    /// A packet, from its Ethernet header on.
    pub fn packet(data: &[u8]) -> ProgramInput {
        ProgramInput {
            data: data.to_vec(),
            ..Self::empty()
        }
    }

    /// A context, such as the argument of a syscall program.
    pub fn context(ctx: &[u8]) -> ProgramInput {
        ProgramInput {
            ctx: ctx.to_vec(),
            ..Self::empty()
        }
    }

    /// Runs `n` times.
    #[must_use]
    pub fn repeat(self, n: u32) -> ProgramInput {
        ProgramInput { repeat: n, ..self }
    }
}

/// What a program left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramOutput {
    /// R0 of the last run.
    pub return_value: u32,
    /// The packet as the program left it.
    pub data_out: Vec<u8>,
    /// The context as the program left it.
    pub ctx_out: Vec<u8>,
    /// Instructions executed, callbacks not counted.
    pub insns: u64,
}

/// What R1 of an execution means.
#[derive(Clone)]
pub(crate) enum ProgCtx {
    /// Nothing, or guest memory.
    Memory,
    /// Fields that are not where the program sees them, and perhaps a packet.
    Fields(Box<FieldsCtx>),
}

impl ProgCtx {
    /// Loads from outside of guest memory.
    pub fn load(&self, addr: u64, size: u32) -> Option<u64> {
        match self {
            ProgCtx::Fields(ctx) => ctx.load(addr, size),
            ProgCtx::Memory => None,
        }
    }

    /// Stores to outside of guest memory.
    pub fn store(&mut self, addr: u64, size: u32, value: u64) -> Option<()> {
        match self {
            ProgCtx::Fields(ctx) => ctx.store(addr, size, value),
            ProgCtx::Memory => None,
        }
    }

    /// The packet, for contexts that have one.
    pub fn packet(&self) -> Option<Packet> {
        match self {
            ProgCtx::Fields(ctx) => ctx.packet,
            ProgCtx::Memory => None,
        }
    }
}
