//! Tests of bpfsim-btf, one module a subject.

mod core;
mod display;
mod ext;
mod fields;
mod hostile;
mod kernel;
mod parse;
mod vmlinux;

use std::path::PathBuf;

/// Path of a file under tests/data.
fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn read_text(name: &str) -> String {
    String::from_utf8(read(name)).expect(name)
}
