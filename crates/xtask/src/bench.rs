//! `cargo xtask bench`: the tables of `docs/performance.md`.
//!
//! The engines and their peers are linked into `bpfsim-benches` alone, so that nothing else has to
//! build them; this builds it optimised and runs it.

use std::process::Command;

/// Builds and runs the tables of `bpfsim-benches`; `args` are its own (`--rounds N`, `--ms N` ...).
pub fn main(args: &[String]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "bpfsim-benches"])
        .args(["--bin", "table", "--"])
        .args(args)
        .status()
        .map_err(|e| format!("cargo does not start: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("the benches ended with {status}")),
    }
}
