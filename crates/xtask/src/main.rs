//! Chores: `cargo xtask <chore>`.
fn main() {}
