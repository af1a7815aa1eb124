#![no_main]
use std::sync::OnceLock;

use bpfsim_testing::{inside::Inside, verdicts::Dice};

static INSIDE: OnceLock<Inside> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let inside = INSIDE.get_or_init(|| Inside::new().unwrap());
    if let Err(why) = inside.try_random(&mut Dice::bytes(bytes)) {
        panic!("{why}");
    }
});
