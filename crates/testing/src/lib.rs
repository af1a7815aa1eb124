//! Generators and oracles shared by bpfsim's tests

pub mod linux;
pub mod programs;
pub mod recording;
