//! The kernel's own types, packed inside.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use crate::btf::Btf;
use crate::error::{BtfErrorKind, Result};
use crate::raw;

/// BTF of a 6.18 x86-64 kernel; data/README.md says how it was made.
const PACKED: &[u8] = include_bytes!("../data/vmlinux-6.18-x86_64.btf.gz");

/// The types of a Linux 6.18 x86-64 kernel.
///
/// Unpacked by whoever asks first and shared from then on: immutable facts, like a `const`, that only
/// take too long to unpack to be one. Nothing can be observed through it but those facts.
///
/// # Errors
/// Never with the data that is built in; the error is there since unpacking is code like any other.
pub fn vmlinux() -> Result<Arc<Btf>> {
    static OPENED: OnceLock<Result<Arc<Btf>>> = OnceLock::new();
    OPENED
        .get_or_init(|| {
            let bytes = unpack(PACKED)?;
            Ok(Arc::new(Btf::parse(&bytes)?))
        })
        .clone()
}

/// Unpacks gzip, up to the size that a BTF may have.
fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let limit = raw::MAX_SIZE as u64 + 1;
    let mut bytes = Vec::new();
    let mut bounded = flate2::read::GzDecoder::new(packed).take(limit);
    match bounded.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(crate::btf::at(0, BtfErrorKind::NotGzip)),
    }
}
