//! Bugs that tests plant, to see whether what looks for bugs finds them.
//!
//! Without the feature `planted`, which nothing but tests has, [`is`] is false and all of it is
//! compiled away.

#[cfg(feature = "planted")]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What each bug is, by number.
#[cfg(feature = "planted")]
pub const BUGS: [&str; 20] = [
    "tnum: a sum has no carries",
    "tnum: an arithmetic shift brings in zeros",
    "range: a sum that wraps keeps its ends",
    "range: a difference takes the least from the least",
    "jump: below is at most",
    "jump: what is not above is below",
    "jump: signed below in 32 bits is at most",
    "range: bits learn nothing from bounds",
    "arithmetic of 32 bits leaves the upper half",
    "stack: a number is spilled whole into a part of a slot",
    "stack: a fill of any part takes the low one",
    "precision: linked registers are not followed",
    "precision: nothing is marked",
    "ids: one may stand for two",
    "states: signed bounds are not compared",
    "packet: a byte more is there",
    "map value: a byte more is there",
    "ids: a register that was changed stays linked",
    "stack: a write at an unknown place leaves spills",
    "liveness: what a callee reads of its caller is not seen",
];

/// The bug that is planted, plus one.
#[cfg(feature = "planted")]
static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a bug for the whole process, or none.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<usize>) {
    PLANTED.store(bug.map_or(0, |b| b + 1), Relaxed);
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: usize) -> bool {
    PLANTED.load(Relaxed) == bug + 1
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_bug: usize) -> bool {
    false
}
