//! Writes `fixtures/kernels/small-5.15.btf`: types of a kernel that never was, small enough to be
//! read, with some members elsewhere than in 6.18 and some not at all.
//!
//! ```sh
//! cargo run -q -p bpfsim-btf --example small_kernel > fixtures/kernels/small-5.15.btf
//! ```
#![allow(missing_docs, dead_code)]

use bpfsim_btf::{BtfBuilder, Linkage, Member, TypeId};
use std::io::Write;

/// `BTF_INT_SIGNED`
const SIGNED: u8 = 1;

pub fn small_kernel() -> Vec<u8> {
    let mut b = BtfBuilder::new();
    let int = b.add_int("int", 4, SIGNED);
    let u32 = b.add_int("unsigned int", 4, 0);
    let u64 = b.add_int("long long unsigned int", 8, 0);
    let member = |name, ty: TypeId, bytes: u32| Member {
        name,
        ty,
        bit_offset: 8 * bytes,
        bitfield_size: 0,
    };
    let mm = b.add_struct("mm_struct", 8, &[member("flags", u64, 0)]);
    let mm = b.add_ptr(mm);
    // A structure that points to itself: its id is the one behind the pointer's.
    let task = TypeId(b.next_id().0 + 1);
    let to_task = b.add_ptr(task);
    b.add_struct(
        "task_struct",
        4096,
        &[
            member("mm", mm, 40),
            member("last_wakee", to_task, 56),
            member("pid", int, 100),
            member("tgid", int, 104),
        ],
    );
    let map = b.add_struct("bpf_map", 256, &[member("max_entries", u32, 36)]);
    let map = b.add_ptr(map);
    b.add_struct("__sk_buff", 192, &[member("len", u32, 0)]);
    let skb = b.add_struct("sk_buff", 232, &[member("len", u32, 112)]);
    b.add_ptr(skb);
    // A kernel function that it has.
    let proto = b.add_func_proto(int, &[("map", map)]);
    b.add_func("bpf_map_sum_elem_count", Linkage::Static, proto);
    b.to_bytes()
}

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(&small_kernel())
}
