//! The running kernel ([`bpfsim_linux`]), asked for what tests record and compare.

#[cfg(feature = "objects")]
pub mod loads;
#[cfg(feature = "objects")]
pub mod observe;
#[cfg(feature = "objects")]
pub mod sequences;

pub use bpfsim_linux::*;
