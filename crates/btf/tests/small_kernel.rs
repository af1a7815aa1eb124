//! The committed types of a small kernel are what its example writes.
#![allow(clippy::unwrap_used)]

#[path = "../examples/small_kernel.rs"]
mod small_kernel;

use bpfsim_btf::{Btf, Kind};

#[test]
fn the_small_kernels_types_are_as_made() {
    let committed = include_bytes!("../../../fixtures/kernels/small-5.15.btf");
    assert!(
        small_kernel::small_kernel() == committed,
        "cargo run -p bpfsim-btf --example small_kernel > fixtures/kernels/small-5.15.btf"
    );
    let btf = Btf::parse(committed).unwrap();
    assert!(btf.find("task_struct", Kind::Struct).is_some());
    assert!(btf.find("bpf_rcu_read_lock", Kind::Func).is_none());
}
