//! Generators and oracles shared by bpfsim's tests

pub mod fuzz_isa;
pub mod linux;
pub mod programs;
pub mod recording;
