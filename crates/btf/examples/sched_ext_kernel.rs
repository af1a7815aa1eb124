//! Writes `fixtures/kernels/sched_ext.btf`: types of a kernel that never was, with sched_ext, with a
//! `task_struct` of its own, and with a kfunc that no kernel has yet.
//!
//! ```sh
//! cargo run -q -p bpfsim-btf --example sched_ext_kernel > fixtures/kernels/sched_ext.btf
//! ```
#![allow(missing_docs, dead_code)]

use bpfsim_btf::{BtfBuilder, Linkage, Member, TypeId};
use std::io::Write;

pub fn sched_ext() -> Vec<u8> {
    let mut b = BtfBuilder::new();
    let member = |name, ty: TypeId, bytes: u32| Member {
        name,
        ty,
        bit_offset: 8 * bytes,
        bitfield_size: 0,
    };
    let int = b.add_int("int", 4, 1);
    let u32 = b.add_int("unsigned int", 4, 0);
    let u64 = b.add_int("long long unsigned int", 8, 0);
    let bool = b.add_int("_Bool", 1, 4);
    let char = b.add_int("char", 1, 1);
    let text = b.add_array(char, u32, 128);
    let entity = [
        member("weight", u32, 0),
        member("slice", u64, 8),
        member("dsq_vtime", u64, 16),
        member("disallow", bool, 24),
    ];
    let entity = b.add_struct("sched_ext_entity", 32, &entity);
    let task = [
        member("pid", int, 0),
        member("tgid", int, 8),
        member("scx", entity, 64),
    ];
    let task = b.add_struct("task_struct", 4096, &task);
    let task = b.add_ptr(task);
    let void = TypeId(0);
    let protos = [
        b.add_func_proto(void, &[("p", task), ("enq_flags", u64)]),
        b.add_func_proto(void, &[("p", task)]),
        b.add_func_proto(void, &[("p", task), ("runnable", bool)]),
        b.add_func_proto(void, &[("p", task)]),
        b.add_func_proto(void, &[("p", task)]),
    ];
    let names = ["enqueue", "running", "stopping", "enable", "tick"];
    let mut members = Vec::new();
    for (i, (name, proto)) in names.into_iter().zip(protos).enumerate() {
        members.push(member(name, b.add_ptr(proto), 8 * i as u32));
    }
    members.push(member("name", text, 40));
    let ops = b.add_struct("sched_ext_ops", 168, &members);
    let common = b.add_struct("bpf_struct_ops_common_value", 8, &[member("state", u32, 0)]);
    let value = [member("common", common, 0), member("data", ops, 64)];
    b.add_struct("bpf_struct_ops_sched_ext_ops", 256, &value);
    let insert = [
        ("p", task),
        ("dsq_id", u64),
        ("slice", u64),
        ("enq_flags", u64),
    ];
    let insert = b.add_func_proto(void, &insert);
    b.add_func("scx_bpf_dsq_insert", Linkage::Static, insert);
    let mood = b.add_func_proto(int, &[("p", task), ("mood", u64)]);
    let mood = b.add_func("scx_bpf_task_set_mood", Linkage::Static, mood);
    b.add_decl_tag("bpf_kfunc", mood, -1);
    b.to_bytes()
}

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(&sched_ext())
}
