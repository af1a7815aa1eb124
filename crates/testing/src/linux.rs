//! The running kernel ([`bpfsim_linux`]), asked for what tests record and compare.

#[cfg(feature = "objects")]
pub mod loads;
#[cfg(feature = "objects")]
pub mod observe;
#[cfg(feature = "objects")]
pub mod sequences;

pub use bpfsim_linux::*;

/// The running kernel, for a test that is to be passed over where none answers: says so.
pub fn or_skip(test: &str) -> Option<Linux> {
    Linux::detect()
        .inspect_err(|why| skip_loudly(test, why))
        .ok()
}

/// Says that a test was passed over, and why. For tests that need what a machine may not have.
#[allow(clippy::print_stderr)] // the reader of the test's output is the one to be told
pub fn skip_loudly(test: &str, why: impl std::fmt::Display) {
    eprintln!("SKIPPED {test}: {why}");
}
