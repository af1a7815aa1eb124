//! Tests of the instruction set against what LLVM and Linux said, recorded in
//! tests/data and fixtures/.

mod asm;
mod common;
mod fixtures;
mod jumps;
mod linux;
mod llvm;
mod query;
mod round_trip;
