//! Programs, what they are given, and what R1 means to them.

use crate::ids::{CgroupId, FileId, MapId, ProgId, SockId, TaskId};
use crate::packet::{FieldsCtx, Packet, Redirect};
use crate::trace::{Level, Name};
use bpfsim_abi::ctx::PT_REGS_NAMES;
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
    /// Name of its section.
    pub section: Name,
    /// It may sleep.
    pub sleepable: bool,
    /// It takes XDP packets with fragments (`BPF_F_XDP_HAS_FRAGS`).
    pub xdp_frags: bool,
    /// How much of its context it accesses, as far as the verifier was asked.
    pub max_ctx_offset: u32,
    /// Its instructions.
    pub len: u32,
    /// The address of the first of them.
    pub code: u64,
    /// How much it accesses of an iterator's buffers, as far as the verifier was asked.
    pub buffers: bpfsim_verifier::Buffers,
    /// It attaches to what it was loaded for only.
    pub enforces_attach_type: bool,
    /// It calls `bpf_override_return` (`prog->kprobe_override`).
    pub overrides: bool,
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

/// A program's descriptor, as values of maps name it, and its id: from 1 on.
pub fn descriptor_of(prog: ProgId) -> u32 {
    prog.0 + 1
}

/// The program of a descriptor, if there is one.
pub(crate) fn program_of(fd: u32) -> Option<ProgId> {
    fd.checked_sub(1).map(ProgId)
}

/// Where programs' code lies (`MODULES_VADDR` to `MODULES_END`), as `ld_imm64` of a callback puts
/// addresses of functions into registers: one address an instruction, program after program.
const CODE: std::ops::Range<u64> = 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000;
/// What the first instructions of programs are aligned to.
const CODE_ALIGN: u64 = 64;

/// Where the code of a program of `len` instructions goes, after that of the others.
pub(crate) fn place_code(progs: &[ProgMeta], len: usize) -> Option<u64> {
    let at = progs.last().map_or(CODE.start, |last| {
        (last.code + last.len as u64 + 1).next_multiple_of(CODE_ALIGN)
    });
    (CODE.end - at > len as u64).then_some(at)
}

/// The program and instruction of an address in a program's code.
pub(crate) fn code_of(progs: &[ProgMeta], addr: u64) -> Option<(ProgId, u32)> {
    let at = progs.partition_point(|p| p.code <= addr).checked_sub(1)?;
    let insn = addr - progs[at].code;
    (insn < progs[at].len as u64).then_some((ProgId(at as u32), insn as u32))
}

/// What a program is run with: what `BPF_PROG_TEST_RUN` takes, and for programs of types that it
/// does not run what their hook would give them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProgramInput {
    /// Packet bytes, for programs that take packets; of a socket option its value.
    pub data: Vec<u8>,
    /// Context bytes (`ctx_in`): the structure that programs of the type see, `struct pt_regs`, a
    /// tracepoint's record. Empty is none.
    pub ctx: Vec<u8>,
    /// How often; 0 and 1 are once.
    pub repeat: u32,
    /// `BPF_F_TEST_RUN_ON_CPU` (1), `BPF_F_TEST_XDP_LIVE_FRAMES` (2),
    /// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (4).
    pub flags: u32,
    /// For `BPF_F_TEST_RUN_ON_CPU`.
    pub cpu: u32,
    /// For live frames.
    pub batch_size: u32,
    /// Most bytes of the packet to give back (`data_size_out`): `ENOSPC` if there are more.
    pub data_size_out: Option<u32>,
    /// Most bytes of the context to give back (`ctx_size_out`).
    pub ctx_size_out: Option<u32>,
    /// Arguments of a function, tracepoint or operation (fentry, lsm, tp_btf, struct_ops).
    pub args: Vec<Arg>,
    /// The socket that a hook of sockets is about.
    pub sock: Option<SockId>,
    /// The parameter of the kernel that a `cgroup/sysctl` program is asked about.
    pub sysctl: Option<Sysctl>,
    /// What a cgroup's hook would give without this program, as `bpf_get_retval` sees it; of
    /// `cgroup/getsockopt` the context says it.
    pub retval: i32,
    /// What a function that is a hook returns, if no program says otherwise.
    pub returns: u64,
    /// What kind of context it runs in, where that is not what its hook says.
    pub level: Option<Level>,
}

/// A parameter of the kernel, below `/proc/sys`, that a task reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sysctl {
    /// Its path, such as `net/ipv4/tcp_mem`.
    pub name: String,
    /// Its value, as a file of it shows it.
    pub current: Vec<u8>,
    /// What is to be written; none where it is read.
    pub new: Option<Vec<u8>>,
}

/// An argument of a program that takes those of a kernel function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// A number, or a pointer as a number.
    Value(u64),
    /// A task's `struct task_struct`.
    Task(TaskId),
    /// A socket's `struct sock`.
    Sock(SockId),
    /// A cgroup's `struct cgroup`.
    Cgroup(CgroupId),
    /// A file's `struct file`.
    File(FileId),
    /// The `struct path` of a file (`&file->f_path`).
    Path(FileId),
    /// A map's `struct bpf_map`.
    Map(MapId),
    /// A pointer to kernel memory that holds these bytes.
    Bytes(Vec<u8>),
}

impl ProgramInput {
    /// No packet and no context.
    pub fn empty() -> ProgramInput {
        ProgramInput::default()
    }

    /// As `==`, and at once where both are empty: to compare no bytes with no bytes takes some
    /// processors a hundred cycles, where they lie at addresses that are none.
    #[inline]
    pub fn is_like(&self, other: &ProgramInput) -> bool {
        let some = |i: &ProgramInput| {
            let bytes = i.data.len() | i.ctx.len() | i.args.len();
            bytes > 0 || i.sysctl.is_some()
        };
        if some(self) || some(other) {
            return self == other;
        }
        self.repeat == other.repeat
            && self.flags == other.flags
            && self.cpu == other.cpu
            && self.batch_size == other.batch_size
            && self.data_size_out == other.data_size_out
            && self.ctx_size_out == other.ctx_size_out
            && self.sock == other.sock
            && self.level == other.level
            && self.retval == other.retval
            && self.returns == other.returns
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

    /// Arguments of a kernel function, tracepoint, LSM hook or operation.
    pub fn args(args: impl IntoIterator<Item = Arg>) -> ProgramInput {
        ProgramInput {
            args: args.into_iter().collect(),
            ..Self::empty()
        }
    }

    /// The registers at the entry of a function with these arguments (`struct pt_regs` of x86-64),
    /// for kprobes and uprobes.
    pub fn call(args: &[u64]) -> ProgramInput {
        const ORDER: [&str; 6] = ["di", "si", "dx", "cx", "r8", "r9"];
        let regs = ORDER.iter().zip(args).map(|(&reg, &value)| (reg, value));
        ProgramInput::context(&pt_regs(regs))
    }

    /// The registers when a function returns this, for kretprobes and uretprobes.
    pub fn returned(value: u64) -> ProgramInput {
        ProgramInput::context(&pt_regs([("ax", value)].into_iter()))
    }

    /// What the function that is called returns.
    #[must_use]
    pub fn returning(self, value: u64) -> ProgramInput {
        ProgramInput {
            returns: value,
            ..self
        }
    }

    /// In this kind of context.
    #[must_use]
    pub fn at_level(self, level: Level) -> ProgramInput {
        ProgramInput {
            level: Some(level),
            ..self
        }
    }

    /// With a context beside the packet (`ctx_in`).
    #[must_use]
    pub fn with_ctx(self, ctx: &[u8]) -> ProgramInput {
        ProgramInput {
            ctx: ctx.to_vec(),
            ..self
        }
    }

    /// With the socket that the hook is about.
    #[must_use]
    pub fn with_sock(self, sock: SockId) -> ProgramInput {
        ProgramInput {
            sock: Some(sock),
            ..self
        }
    }

    /// A task reads a parameter of the kernel, or writes `new` to it, for `cgroup/sysctl`.
    pub fn sysctl(name: &str, current: &[u8], new: Option<&[u8]>) -> ProgramInput {
        let mut ctx = [0; 8];
        ctx[0] = new.is_some().into();
        ProgramInput {
            sysctl: Some(Sysctl {
                name: name.to_string(),
                current: current.to_vec(),
                new: new.map(<[u8]>::to_vec),
            }),
            ..Self::context(&ctx)
        }
    }

    /// Runs `n` times.
    #[must_use]
    pub fn repeat(self, n: u32) -> ProgramInput {
        ProgramInput { repeat: n, ..self }
    }
}

/// `struct pt_regs` of x86-64 with these registers set, in C's names.
pub(crate) fn pt_regs<'a>(set: impl Iterator<Item = (&'a str, u64)>) -> Vec<u8> {
    let mut words = [0u64; PT_REGS_NAMES.len()];
    for (reg, value) in set {
        if let Some(at) = PT_REGS_NAMES.iter().position(|&n| n == reg) {
            words[at] = value;
        }
    }
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Has `struct pt_regs` show what a function returns.
pub(crate) fn set_ax(regs: &mut Vec<u8>, value: u64) {
    let at = PT_REGS_NAMES.iter().position(|&n| n == "ax").unwrap_or(0) * 8;
    regs.resize(regs.len().max(at + 8), 0);
    regs[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// What a program left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramOutput {
    /// R0 of the last run.
    pub return_value: u32,
    /// The packet as the program left it, as `BPF_PROG_TEST_RUN` gives it back; of a flow
    /// dissector its `struct bpf_flow_keys`, of an iterator what it wrote, of a parameter that a
    /// task writes to what is written.
    pub data_out: Vec<u8>,
    /// The context as the program left it.
    pub ctx_out: Vec<u8>,
    /// Where packets were sent, in order.
    pub redirects: Vec<Redirect>,
    /// What the hook of a cgroup's program gives: what `bpf_set_retval` left there, else `-EPERM`
    /// if the program returned that it refuses. 0 of other programs.
    pub retval: i32,
    /// Of a message how many bytes the verdict is for (`bpf_msg_apply_bytes`); 0 is all.
    pub apply_bytes: u32,
    /// Of a message how many bytes are to have come before the program is asked again
    /// (`bpf_msg_cork_bytes`).
    pub cork_bytes: u32,
    /// Instructions executed, callbacks not counted.
    pub insns: u64,
}

impl ProgramOutput {
    /// Becomes that of a program that left nothing, in its memory.
    pub(crate) fn clear(&mut self) {
        let ProgramOutput {
            return_value,
            data_out,
            ctx_out,
            redirects,
            retval,
            apply_bytes,
            cork_bytes,
            insns,
        } = self;
        (*return_value, *retval, *insns) = (0, 0, 0);
        (*apply_bytes, *cork_bytes) = (0, 0);
        data_out.clear();
        ctx_out.clear();
        redirects.clear();
    }
}

/// What R1 of an execution means.
#[derive(Clone)]
pub(crate) enum ProgCtx {
    /// Nothing, or guest memory.
    Memory,
    /// Fields that are not where the program sees them, and perhaps a packet.
    Fields(Box<FieldsCtx>),
    /// Arguments of 8 bytes each in guest memory.
    Args,
}

impl ProgCtx {
    /// Loads from outside of guest memory.
    pub fn load(&self, addr: u64, size: u32) -> Option<u64> {
        match self {
            ProgCtx::Fields(ctx) => ctx.load(addr, size),
            ProgCtx::Memory | ProgCtx::Args => None,
        }
    }

    /// Stores to outside of guest memory.
    pub fn store(&mut self, addr: u64, size: u32, value: u64) -> Option<()> {
        match self {
            ProgCtx::Fields(ctx) => ctx.store(addr, size, value),
            ProgCtx::Memory | ProgCtx::Args => None,
        }
    }

    /// True for `struct xdp_md`.
    pub fn is_xdp(&self) -> bool {
        match self {
            ProgCtx::Fields(ctx) => ctx.is_xdp(),
            _ => false,
        }
    }

    /// The fields, for contexts that are not in memory.
    pub fn fields(&self) -> Option<&FieldsCtx> {
        match self {
            ProgCtx::Fields(ctx) => Some(ctx),
            ProgCtx::Memory | ProgCtx::Args => None,
        }
    }

    /// The packet, for contexts that have one.
    pub fn packet(&self) -> Option<Packet> {
        match self {
            ProgCtx::Fields(ctx) => ctx.packet,
            ProgCtx::Memory | ProgCtx::Args => None,
        }
    }
}
