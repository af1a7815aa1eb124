//! The emulated kernel.
//!
//! [`Kernel`] is one simulation: guest memory, maps, programs, tasks, virtual CPUs with clocks,
//! and the asynchronous callbacks that programs leave behind. It runs nothing on threads of its
//! own: [`Kernel::run`], [`Kernel::run_until_idle`] and [`Kernel::run_for`] take one step
//! after another, each picked by a [`Chooser`] among all that Linux could do next.
//!
//! Where things are:
//!
//! - `kernel`: what user space does; `verify`, `prepare`: objects for the
//!   verifier, and what it says; `load`: to maps and programs;
//! - `sched`: what can happen next; `exec`: making it happen; `run`: executions in flight;
//! - `syscall`, `task`: what user space does; `refs`: who keeps maps and programs;
//! - `wait`: who waits for whom; `mapop`, `lock`: map operations in the pieces, and under the locks, that others see;
//! - `hook`: what programs attach to, and what happens there;
//! - `testrun`: what `BPF_PROG_TEST_RUN` takes and gives; `world`: devices, sockets, cgroups;
//! - `state`: all that helpers may touch; `helper`, `kfunc`: one row each in a table;
//! - `asynch`: timers, work queues and task work; `map`: the map types;
//! - `choose`, `touch`, `trace`, `failure`: orders, what steps touch, what happened, how it can end;
//!   `record`: all of it, on request; `checked`, `race`: what checked mode and the detectors of races
//!   know, and what they found.
//!
//! Invariants: nothing here reads the wall clock, the environment or thread ids, nor depends on
//! the order of a hash table with a random seed. Whatever is read back from guest memory is
//! checked, since programs may have written it.

mod asynch;
mod beginnings;
mod btf_text;
mod chance;
mod checked;
mod choose;
mod detectors;
mod dynptr;
mod ended;
mod exec;
mod failure;
mod field;
mod finding;
mod frags;
mod helper;
mod hook;
mod ids;
mod inject;
mod inside;
mod kernel;
mod kfunc;
mod ksym;
mod load;
mod lock;
mod log;
mod map;
mod mapop;
mod object;
mod packet;
mod pin;
mod prefix;
mod prepare;
mod printk;
mod prog;
mod race;
mod reach;
mod record;
mod refs;
mod run;
mod sched;
mod scx;
mod shared;
mod since;
mod snapshot;
mod spot;
mod stamped;
mod state;
mod syscall;
mod task;
mod testrun;
mod touch;
mod trace;
mod turn;
mod types;
mod user_mem;
mod verify;
mod view;
mod wait;
mod world;

pub use beginnings::Beginnings;
pub use chance::{Chance, Chances, NoChances};
pub use choose::{Choice, Chooser, Last, Next, Offer, Starts, Step, Usual, Wait, Waiting};
pub use detectors::NoDetectors;
pub use failure::{
    Blocked, Detectors, Failure, FailureKind, LeftOver, Party, Place, Report, Warning,
};
pub use helper::runs as runs_helper;
pub use hook::{
    AttachError, AttachOpts, CgroupOrder, Fired, FiredRun, Hook, IterFd, IterInfo, LinkId, LwtHook,
    Relative, flags as attach_flags,
};
pub use ids::{CgroupId, Cpu, CtxId, FileId, MapId, NsId, ProgId, SockId, TaskId, hash_bytes, mix};
/// Refusals of the verifier, told to people.
pub mod explanation {
    pub use bpfsim_verifier::{Cause, Explanation, Place};
}
pub use inject::{Override, UnknownCall};
pub use inside::Look;
pub use kernel::{BOOTED, Config, Kernel, NewError, Preemption};
pub use load::{LoadError, Loaded};
pub use map::{BatchCmd, BatchOut, MapBtf, MapSpec, PerfRecord, StructOpsMember, update};
pub use packet::{Redirect, RedirectKind};
pub use prepare::{OnUnsupported, Policy, Prepared, Rejection, Standing};
pub use prog::{Arg, ProgramInput, ProgramOutput, Sysctl, descriptor_of};
pub use record::{Did, Moment, ProgCounts, ProgLines, Record};
pub use refs::MapFd;
pub use run::Job;
pub use scx::{ScxExit, ScxExitKind, ScxOp, ScxPlace};
pub use since::Newer;
pub use snapshot::{ForeignSnapshot, KernelSnapshot};
pub use spot::Spot;
pub use syscall::{Goal, Paused, SysOp, SysResult};
pub use task::{TaskKind, TaskSpec};
pub use touch::Touch;
pub use trace::{AsyncKind, Element, Event, Level, Name, Trace, What};
pub use types::KernelBtf;
pub use user_mem::Protection;
pub use verify::{Profile, Resolved, veristat_fixup, veristat_freplace};
pub use world::{Connection, NetdevSpec, NsKind, Route, RouteKind, SockSpec, SockState};

/// True when bpfsim runs the kfunc of this name.
pub fn runs_kfunc(name: &str) -> bool {
    kfunc::index(name).is_some()
}

/// Names of the kfuncs that bpfsim runs.
pub fn runs_kfuncs() -> impl Iterator<Item = &'static str> {
    kfunc::names()
}
