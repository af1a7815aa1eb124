//! Linux 6.18's BPF verifier: the same verdict, errno, log and counts, without Linux.
//!
//! [`verify`] walks a program as `bpf_check` does: it follows every way through it with what is
//! known of each register and stack slot, and prunes where a state that was found safe covers the
//! one at hand. What it does not know how to judge is [`Verdict::Unsupported`], never a guess.
//!
//! Modules, from the ground up:
//!
//! | module | what it is about |
//! |---|---|
//! | `tnum`, `bounds`, `arith`, `branch` | numbers: known bits, ranges, arithmetic, comparisons |
//! | `reg`, `state` | registers, stack slots, frames, states |
//! | `log` | the log's text |
//! | `attach`, `record`, `setup`, `cfg` | what it attaches to, special fields, subprograms, BTF, maps, control flow, live registers |
//! | `after` | stack that calls take together, what rewriting would refuse |
//! | `liveness`, `precision`, `equal`, `prune` | which parts of a state matter, and when to stop |
//! | `refusal`, `explain` | refusals by their rows in abi, told to people |
//! | `step`, `alu`, `jump`, `mem`, `stack`, `btf_access` | instructions |
//! | `helper`, `helper_args`, `kfunc`, `kfunc_args`, `subprog`, `special` | calls |
//! | `observe` | what the walk knew, to hold runs against |
//!
//! Invariant: nothing here runs a program, makes a map or asks the machine it runs on.

mod after;
mod alu;
mod arith;
mod attach;
mod bounds;
mod branch;
mod btf_access;
mod btf_ctx;
mod cfg;
mod equal;
mod explain;
mod func_args;
mod helper;
mod helper_args;
mod jump;
mod kfunc;
mod kfunc_args;
mod liveness;
mod log;
mod mem;
mod observe;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod precision;
mod prune;
mod raw_tp;
mod record;
mod refusal;
mod reg;
mod setup;
mod special;
mod stack;
mod state;
mod step;
mod subprog;
pub mod support;
#[cfg(test)]
mod tests;
mod tnum;
mod verifier;

use std::sync::Arc;

use bpfsim_abi::text::Row;
use bpfsim_abi::{AttachType, Errno, Func, MapType, ProgType};
use bpfsim_btf::{Btf, TypeId, fields::Field};
use bpfsim_isa::Insn;
pub use explain::{Cause, Explanation, Place, explain};
pub use observe::{Concrete, ConcreteFrame, Keep, Miss, Observed, Places, verify_observed};
pub use tnum::Tnum;

/// A program as `BPF_PROG_LOAD` gets it.
#[derive(Clone, Copy, Debug)]
pub struct ProgramToVerify<'a> {
    /// Slots. A `BPF_PSEUDO_MAP_IDX` or `BPF_PSEUDO_MAP_IDX_VALUE` names a map by its index in
    /// [`Env::maps`]. A descriptor (`BPF_PSEUDO_MAP_FD`) is one that the source has as a number: there is
    /// no map behind it.
    pub insns: &'a [Insn],
    /// `prog_type`
    pub prog_type: ProgType,
    /// `expected_attach_type`, after `bpf_prog_load_fixup_attach_type`.
    pub attach_type: AttachType,
    /// What it attaches to.
    pub attach_to: AttachTo<'a>,
    /// `func_info`, by instruction; empty where there is none.
    pub funcs: &'a [FuncInfo],
    /// `line_info`, by instruction.
    pub lines: &'a [LineInfo<'a>],
    /// The program's BTF.
    pub btf: Option<&'a Btf>,
    /// Whether its licence is compatible with the GPL.
    pub gpl_compatible: bool,
    /// `BPF_F_SLEEPABLE`
    pub sleepable: bool,
}

/// What a program attaches to.
#[derive(Clone, Copy, Debug, Default)]
pub enum AttachTo<'a> {
    /// Nothing that the verifier looks at.
    #[default]
    Nothing,
    /// `attach_btf_id` in the kernel's BTF: a function, or the typedef of a raw tracepoint.
    Kernel(TypeId),
    /// A member of a struct_ops structure of the kernel.
    StructOps {
        /// The structure, such as `tcp_congestion_ops`.
        name: &'a str,
        /// The member's index.
        member: u32,
    },
    /// A function of another program.
    Program,
}

/// A subprogram's record in `func_info`.
#[derive(Clone, Copy, Debug)]
pub struct FuncInfo {
    /// First instruction.
    pub insn: usize,
    /// Its `FUNC` in the program's BTF.
    pub type_id: TypeId,
    /// `BTF_FUNC_GLOBAL`: it is verified by its prototype alone.
    pub global: bool,
}

/// A record in `line_info`.
#[derive(Clone, Copy, Debug)]
pub struct LineInfo<'a> {
    /// First instruction.
    pub insn: usize,
    /// Path of the file.
    pub file: &'a str,
    /// The line's text.
    pub text: &'a str,
    /// Its number.
    pub line: u32,
    /// The column, from 1; 0 if unknown.
    pub column: u32,
}

/// A map as the verifier sees it (`struct bpf_map`).
#[derive(Clone, Debug)]
pub struct MapDesc {
    /// Name, at most 15 bytes.
    pub name: String,
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// `max_entries`
    pub max_entries: u32,
    /// `BPF_F_*`
    pub flags: u32,
    /// Whether it was made with BTF.
    pub has_btf: bool,
    /// Special fields of its value.
    pub fields: Vec<Field>,
    /// The value of a frozen, read-only array of one element: its loads are constants.
    pub frozen: Option<Arc<[u8]>>,
    /// Index in [`Env::maps`] of the template of maps within it.
    pub inner: Option<usize>,
}

/// What surrounds a program.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// The kernel's types.
    pub kernel: &'a Btf,
    /// Maps that the program refers to.
    pub maps: &'a [MapDesc],
    /// Possible CPUs: `nr_cpu_ids`.
    pub cpus: u32,
    /// Whether addresses of variables can be looked up (`CONFIG_KALLSYMS_ALL`).
    pub kallsyms_all: bool,
    /// Helpers that the kernel's configuration or lockdown takes away, such as
    /// `bpf_override_return`.
    pub refused_helpers: &'a [Func],
}

/// Flags and log level of a load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `log_level`: 1, 2 and 4 as in `BPF_PROG_LOAD`.
    pub log_level: u32,
    /// `BPF_F_STRICT_ALIGNMENT`
    pub strict_alignment: bool,
    /// `BPF_F_TEST_STATE_FREQ`
    pub test_state_freq: bool,
    /// `BPF_F_TEST_REG_INVARIANTS`
    pub test_reg_invariants: bool,
    /// Loaded without `CAP_BPF` and `CAP_PERFMON`.
    pub unprivileged: bool,
}

/// What Linux would say.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It loads.
    Accept(Verified),
    /// It does not.
    Reject {
        /// What `bpf(2)` returns.
        errno: Errno,
        /// The last line of the log that says something.
        message: String,
        /// The instruction at hand, where there is one.
        insn: Option<usize>,
        /// The rule that the program breaks.
        row: Row,
    },
    /// This verifier cannot tell.
    Unsupported {
        /// What it lacks.
        what: String,
        /// The instruction at hand.
        insn: Option<usize>,
    },
}

/// What an engine does otherwise than the instruction says (`do_misc_fixups` and its like). Linux
/// puts other instructions in its place; here each keeps its place, so that engines count those
/// of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing.
    None,
    /// A load that gives 0 where there is no memory (`BPF_PROBE_MEM`).
    ProbeMem,
    /// No way through the program reaches it (`bpf_opt_remove_dead_code`).
    Dead,
}

/// What was learnt of an accepted program, for engines. Only [`verify`] makes one.
#[derive(Clone, Debug)]
pub struct Verified {
    /// By instruction: the type of the pointer that it accesses memory through, 0 for none.
    pub(crate) ptr_types: Vec<u32>,
    /// By instruction: whether some way through the program reaches it.
    pub(crate) seen: Vec<bool>,
    /// Deepest stack of each subprogram, bytes.
    pub(crate) stack_depths: Vec<u32>,
    /// How much of the context is accessed.
    pub(crate) max_ctx_offset: u32,
    /// How much of buffers is accessed.
    pub(crate) buffers: Buffers,
    /// It attaches to what it was loaded for only.
    pub(crate) enforce_attach: bool,
}

/// How many bytes of an iterator's buffers a program accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Of those that it may only read (`aux->max_rdonly_access`).
    pub rdonly: u32,
    /// Of those that it may write (`aux->max_rdwr_access`).
    pub rdwr: u32,
}

impl Verified {
    /// How many bytes of its context the program accesses (`aux->max_ctx_offset`): of a shorter one
    /// some types of programs are not run.
    pub fn max_ctx_offset(&self) -> u32 {
        self.max_ctx_offset
    }

    /// How much it accesses of buffers, such as keys and values that an iterator passes.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// `prog->enforce_expected_attach_type`: some of what it returns is known where it was loaded
    /// for only.
    pub fn enforces_attach_type(&self) -> bool {
        self.enforce_attach
    }

    /// Whether some way through the program reaches this instruction.
    pub fn is_reached(&self, insn: usize) -> bool {
        self.seen.get(insn).copied().unwrap_or(false)
    }

    /// What an engine does otherwise at this instruction.
    pub fn rewrite(&self, insn: usize) -> Rewrite {
        if !self.is_reached(insn) {
            return Rewrite::Dead;
        }
        match self.ptr_types.get(insn) {
            Some(&t) if reg::ty::is_probed(t) => Rewrite::ProbeMem,
            _ => Rewrite::None,
        }
    }

    /// Number of instruction slots of the program that this is about.
    pub fn slots(&self) -> usize {
        self.seen.len()
    }

    /// Deepest stack of each subprogram, bytes.
    pub fn stack_depths(&self) -> &[u32] {
        &self.stack_depths
    }
}

/// Counts, as in the log's last line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// `processed N insns`
    pub insns_processed: u32,
    /// `max_states_per_insn`
    pub max_states_per_insn: u32,
    /// `total_states`
    pub total_states: u32,
    /// `peak_states`
    pub peak_states: u32,
}

/// Verdict, counts and log.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What Linux would say.
    pub verdict: Verdict,
    /// Counts.
    pub stats: Stats,
    /// The log at the level asked for; a refusal's reason in any case.
    pub log: String,
}

/// Judges a program as Linux 6.18 would.
pub fn verify(prog: &ProgramToVerify<'_>, env: &Env<'_>, options: &Options) -> Outcome {
    verifier::Verifier::new(prog, env, options).run()
}
