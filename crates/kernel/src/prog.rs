//! Programs, what they are given, and what R1 means to them.

use crate::ids::ProgId;
use bpfsim_abi::ProgType;
use bpfsim_vm::{BASE, GuestMem, Image};
use std::sync::Arc;

/// What the rest of the kernel knows of a loaded program.
pub(crate) struct ProgMeta {
    pub name: String,
    pub prog_type: ProgType,
    /// Entry and name of each function, by entry.
    pub funcs: Vec<(u32, String)>,
}

impl ProgMeta {
    /// Name of the function that holds an instruction.
    pub fn function(&self, insn: u32) -> &str {
        let found = self.funcs.iter().rev().find(|(entry, _)| *entry <= insn);
        found.map_or(self.name.as_str(), |(_, name)| name)
    }
}

/// A program's code and where its instructions came from.
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
pub(crate) enum ProgCtx {
    /// Nothing, or guest memory.
    None,
    /// `struct __sk_buff` or `struct xdp_md`.
    Packet(Box<PacketCtx>),
}

/// A packet and the view of it that programs have.
pub(crate) struct PacketCtx {
    /// Fields as user space sees them.
    pub raw: [u8; 192],
    pub kind: PacketKind,
    /// Guest address of the first byte, and of the end.
    pub data: u64,
    pub data_end: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    Skb,
    Xdp,
}

/// Address of the window that a packet context is seen in: outside of guest memory, so that
/// every access comes to [`ProgCtx::load`].
pub(crate) const CTX_WINDOW: u64 = BASE + (1 << 40);

impl ProgCtx {
    /// Offsets of `data` and `data_end`, 32 bits wide in C and pointers in registers.
    fn pointers(kind: PacketKind) -> (u64, u64) {
        match kind {
            PacketKind::Skb => (76, 80),
            PacketKind::Xdp => (0, 4),
        }
    }

    /// Loads a field, or part of one.
    pub fn load(&self, addr: u64, size: u32) -> Option<u64> {
        let ProgCtx::Packet(ctx) = self else {
            return None;
        };
        let off = addr.checked_sub(CTX_WINDOW)?;
        let (data, end) = Self::pointers(ctx.kind);
        match (off, size) {
            (o, 4) if o == data => return Some(ctx.data),
            (o, 4) if o == end => return Some(ctx.data_end),
            _ => {}
        }
        let at = usize::try_from(off).ok()?;
        let bytes = ctx.raw.get(at..at.checked_add(size as usize)?)?;
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// Stores to a field; pointers cannot be written.
    pub fn store(&mut self, addr: u64, size: u32, value: u64) -> Option<()> {
        let ProgCtx::Packet(ctx) = self else {
            return None;
        };
        let off = addr.checked_sub(CTX_WINDOW)?;
        let (data, end) = Self::pointers(ctx.kind);
        let at = usize::try_from(off).ok()?;
        let bytes = ctx.raw.get_mut(at..at.checked_add(size as usize)?)?;
        if (off..off + size as u64).any(|o| (data..end + 4).contains(&o)) {
            return None;
        }
        bytes.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        Some(())
    }

    /// `LD_ABS`: bytes of the packet, converted from network order.
    pub fn load_packet(&self, mem: &GuestMem, offset: i32, size: u32) -> Option<u64> {
        let ProgCtx::Packet(ctx) = self else {
            return None;
        };
        let off = u64::try_from(offset).ok()?;
        if off + size as u64 > ctx.data_end - ctx.data {
            return None;
        }
        let bytes = mem.slice(ctx.data + off, size as u64)?;
        Some(bytes.iter().fold(0, |w, &b| w << 8 | b as u64))
    }
}
