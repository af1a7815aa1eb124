//! Test BPF programs for Linux in your own process.
//!
//! bpfsim loads the `.bpf.o` that Linux loads, runs its programs, and then runs what they left
//! behind - `bpf_timer`, `bpf_wq` and `bpf_task_work` callbacks - in the usual order or in any
//! other that Linux could have chosen. The same order gives the same result every time.
//!
//! ```
//! use bpfsim::{Ebpf, ProgramInput, Sim, ensure_eq, millis};
//!
//! fn flows_close(sim: &Sim) -> bpfsim::Result<()> {
//!     let mut bpf = Ebpf::load(sim, include_bytes!("../../../fixtures/three_kinds.bpf.o"))?;
//!     let out = bpf.program_mut("arm_all")?.test_run(ProgramInput::empty())?;
//!     ensure_eq!(out.return_value, 0);
//!     sim.run_for(millis(5))?;
//!     ensure_eq!(bpf.global::<u32>("nr_closed")?, 2);
//!     Ok(())
//! }
//!
//! # fn main() -> bpfsim::TestResult {
//! bpfsim::check(flows_close)?; // in the usual order
//! bpfsim::check_random(flows_close, 100) // in a hundred others
//! # }
//! ```

mod bench;
mod cache;
mod check;
mod ebpf;
mod error;
pub mod fuzz;
mod hook;
mod iter;
mod machine;
mod map;
mod panics;
mod readers;
mod regressions;
mod scheduler;
mod settings;
mod setup;
mod sim;
mod task;
mod user;
mod world;

pub use bench::Bench;
pub use bpfsim_abi::{AttachType, Errno, KernelVersion, ProgType};
pub use bpfsim_btf::Btf;
pub use bpfsim_explore as explore;
pub use bpfsim_explore::timeline;
pub use bpfsim_explore::{
    Coverage, Failed, Found, Outcome, Progress, ReplayError, ReplayString, Seed, Strategy,
};
pub use bpfsim_kernel::explanation;
pub use bpfsim_kernel::mix;
pub use bpfsim_kernel::{
    Arg, AsyncKind, BOOTED, Blocked, Chance, Chances, Chooser, Config, Connection, Cpu, CtxId,
    Detectors, Element, Event, Failure, FailureKind, Job, KernelBtf, LeftOver, Level, LoadError,
    MapBtf, MapFd, MapId, MapSpec, NoChances, NoDetectors, NsId, NsKind, OnUnsupported, Party,
    Place, Preemption, Prepared, ProgramInput, ProgramOutput, Protection, Record, Redirect,
    RedirectKind, Rejection, Report, Route, RouteKind, SockId, SockSpec, SockState, Standing,
    SysOp, SysResult, Sysctl, Trace, Wait, Warning, What, update,
};
/// Makes a test of a function: `#[bpfsim::test(random = 1000, pct = 3, exhaustive)]` on
/// `fn name(sim: &Sim) -> Result<()>` makes the tests `name::random` (so many random orders),
/// `name::pct` (a thousand orders of that depth) and `name::exhaustive` (every order);
/// `#[bpfsim::test]` alone, `name::usual`.
pub use bpfsim_macros::test;
pub use cache::Cache;
pub use check::{
    EXHAUSTIVE_LIMIT, Runner, TestFailure, TestResult, check, check_exhaustive, check_pct,
    check_random, check_seed, replay,
};
pub use ebpf::{Ebpf, EbpfLoader, Program, ProgramMut};
pub use error::{Error, Result};
pub use hook::{
    AttachError, AttachOpts, CgroupOrder, Fired, FiredRun, Hook, IterInfo, Link, LinkId, LwtHook,
    ProgId, Relative, StructOps, attach_flags,
};
pub use iter::IterFile;
pub use machine::Machine;
pub use map::Map;
pub use readers::{PerfBuffer, PerfEvent, RingBuf, UserRingBuf};
pub use scheduler::{Scheduler, ScxExit, ScxExitKind, ScxPlace};
pub use settings::shard as parse_shard;
pub use sim::Sim;
pub use task::{Task, TaskBuilder};
pub use user::{Answer, User};
pub use world::{Cgroup, File, Namespace, Netdev, Sock};

use std::time::Duration;

/// `n` seconds.
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `n` milliseconds.
pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// `n` microseconds.
pub fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}
