//! The Linux BPF surface as data.
//!
//! Program types, attach types, map types, helpers, kfuncs, context layouts and errnos of
//! Linux 6.18, each with the kernel version that brought it. Nothing here executes or decides:
//! the verifier, the emulated kernel and the command line read these tables.
//!
//! Names are the kernel's and libbpf's own. `since` is [`KernelVersion::V5_15`] for whatever
//! 5.15 or any kernel before it has: older history is not recorded.
//!
//! Whether bpfsim itself verifies and runs a row lies in [`status`] alone.
mod enums;
mod errno;
mod version;

pub mod ctx;
pub mod features;
pub mod helper;
pub mod inject;
pub mod kfunc;
pub mod limits;
pub mod map;
pub mod prog;
pub mod sections;
pub mod status;
pub mod text;

pub use errno::Errno;
pub use helper::Func;
pub use map::MapType;
pub use prog::{AttachType, ProgType, ProgTypes};
pub use status::Status;
pub use version::{KernelVersion, ParseVersionError};
