//! bpfsim's engines beside their peers: the same bytecode in one process, checked against a
//! reference before anything is measured.
//!
//! `cargo xtask bench` prints the table that `docs/performance.md` keeps; `cargo bench -p
//! bpfsim-benches` measures the same with criterion.

pub mod capture;
pub mod engines;
pub mod measure;
pub mod orders;
pub mod programs;
pub mod reference;
pub mod testrun;
pub mod world;
