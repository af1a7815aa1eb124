//! Guest memory and BPF engines.
//!
//! This crate executes instructions and nothing else: it knows no maps, no helpers and no
//! scheduler. What a program asks of the kernel goes out through [`Host`]; what stops a run
//! comes back as a [`Stop`]. The parts:
//!
//! - [`GuestMem`]: one simulation's memory, a 4 GiB reservation behind kernel-looking addresses;
//! - [`Image`]: a program pre-decoded to one [`Code`] per instruction slot;
//! - [`Activation`]: a running program as a plain value (registers, frames, pc), so that it can
//!   be put aside at any instruction and continued later, in any order;
//! - [`run`]: the interpreter.
//!
//! Invariant: code that was never verified can read and write guest memory only.

mod activation;
mod alu;
mod code;
#[cfg(feature = "libfuzzer")]
pub mod counters;
mod cursor;
mod host;
mod interp;
mod kept;
mod lower;
mod mem;
mod op;
mod shadow;

pub use activation::{Activation, FRAME_SIZE, MAX_FRAMES, STACK_SIZE};
pub use code::{Code, K};
pub use host::{Access, AccessKind, Call, Fault, FaultKind, Flow, Host, Other, Stop, Turn};
pub use interp::{Mode, run, run_among};
pub use lower::{Image, LowerError, MAX_SLOTS};
pub use mem::{Area, BASE, GuestMem, MemError, Moment, Snapshot};
pub use shadow::{ByWord, Elements, Site, Stale};
