//! Generators and oracles shared by bpfsim's tests

pub mod async_ops;
#[cfg(feature = "objects")]
pub mod fuzz_btf;
#[cfg(feature = "objects")]
pub mod fuzz_elf;
pub mod fuzz_isa;
#[cfg(feature = "inside")]
pub mod inside;
#[cfg(all(feature = "objects", feature = "verdicts"))]
pub mod judged;
pub mod linux;
#[cfg(feature = "objects")]
pub mod map_ops;
pub mod programs;
pub mod recording;
pub mod small_orders;
pub mod small_worlds;
pub mod test_runs;
#[cfg(feature = "verdicts")]
pub mod verdicts;
