//! What libFuzzer is told beside what it knows of compiled code: 8-bit counters in the section that
//! it looks for (`__libfuzzer_extra_counters`), which it clears before each input.

use std::sync::atomic::{AtomicU8, Ordering};

const COUNTERS: usize = 1 << 16;

// SAFETY: nothing else is in a section of this name, and whoever reads it reads bytes, as atomics
// are.
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static EXTRA: [AtomicU8; COUNTERS] = [const { AtomicU8::new(0) }; COUNTERS];

/// Counts features, by their numbers and how often each came.
pub fn feed(features: impl IntoIterator<Item = (u16, u64)>) {
    for (feature, n) in features {
        let counter = &EXTRA[feature as usize];
        let n = u8::try_from(n).unwrap_or(u8::MAX);
        let sum = counter.load(Ordering::Relaxed).saturating_add(n);
        counter.store(sum, Ordering::Relaxed);
    }
}

/// Features counted since they were cleared.
pub fn counted() -> usize {
    let counted = EXTRA.iter().filter(|c| c.load(Ordering::Relaxed) != 0);
    counted.count()
}
