//! Objects resolved against the types of another kernel.
#![allow(clippy::unwrap_used)]

use bpfsim_abi::{Errno, KernelVersion};
use bpfsim_btf::{Btf, BtfBuilder, Linkage, Member, TypeId};
use bpfsim_isa::{Op, decode_all};
use bpfsim_kernel::{Profile, Resolved};
use bpfsim_verifier::{Options, Verdict};
use std::sync::Arc;

const OBJECT: &[u8] = include_bytes!("../../../fixtures/verdicts.bpf.o");
const TYPES: &[u8] = include_bytes!("../../../fixtures/kernels/small-5.15.btf");

/// Offsets of members are the other kernel's, and the verifier knows its structures by them.
#[test]
fn members_are_where_the_other_kernel_has_them() {
    let profile = Profile {
        version: KernelVersion::V5_15,
        btf: Arc::new(Btf::parse(TYPES).unwrap()),
        own_types: true,
        ..Profile::reference().unwrap()
    };
    let resolved = Resolved::new(bpfsim_loader::load(OBJECT).unwrap(), &profile).unwrap();
    let programs = &resolved.object().programs;
    let index = programs.iter().position(|p| p.name == "probes").unwrap();
    let ops = decode_all(&programs[index].insns).unwrap();
    let offsets = ops.iter().filter_map(|op| match op {
        (_, Op::Load { off, .. }) => Some(*off),
        _ => None,
    });
    // last_wakee twice, then pid: fixtures/kernels/small-5.15.btf is crates/btf/examples.
    assert_eq!(offsets.collect::<Vec<_>>(), [56, 56, 100]);
    let outcome = resolved
        .judge(index, &profile, &Options::default())
        .unwrap();
    assert!(matches!(outcome.verdict, Verdict::Accept(_)), "{outcome:?}");
}

const SCHEDULER: &[u8] = include_bytes!("../../../fixtures/scheduler.bpf.o");

/// Types of a kernel with sched_ext, which the one that is built in has not, and with a kfunc of a
/// later one.
fn with_sched_ext() -> Btf {
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
    let task = [member("pid", int, 0), member("scx", entity, 64)];
    let task = b.add_struct("task_struct", 4096, &task);
    let task = b.add_ptr(task);
    let void = TypeId(0);
    let protos = [
        b.add_func_proto(void, &[("p", task), ("enq_flags", u64)]),
        b.add_func_proto(void, &[("p", task)]),
        b.add_func_proto(void, &[("p", task), ("runnable", bool)]),
        b.add_func_proto(void, &[("p", task)]),
    ];
    let names = ["enqueue", "running", "stopping", "enable"];
    let mut members = Vec::new();
    for (i, (name, proto)) in names.into_iter().zip(protos).enumerate() {
        members.push(member(name, b.add_ptr(proto), 8 * i as u32));
    }
    members.push(member("name", text, 32));
    let ops = b.add_struct("sched_ext_ops", 160, &members);
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
    Btf::parse(&b.to_bytes()).unwrap()
}

/// Schedulers are judged against the types of a kernel with sched_ext: they write a task's slice
/// and vtime and nothing else of it. Of a kfunc that a later kernel has nothing is guessed.
#[test]
fn schedulers_are_judged_by_the_types_of_a_kernel_that_has_them() {
    let profile = Profile {
        btf: Arc::new(with_sched_ext()),
        own_types: true,
        ..Profile::reference().unwrap()
    };
    let resolved = Resolved::new(bpfsim_loader::load(SCHEDULER).unwrap(), &profile).unwrap();
    let judged = |name: &str| {
        let programs = &resolved.object().programs;
        let index = programs.iter().position(|p| p.name == name).unwrap();
        let outcome = resolved.judge(index, &profile, &Options::default());
        outcome.unwrap().verdict
    };
    assert!(
        matches!(judged("enqueue"), Verdict::Accept(_)),
        "{:?}",
        judged("enqueue")
    );
    for refused in ["weighs", "crosses"] {
        let verdict = judged(refused);
        assert!(
            matches!(&verdict, Verdict::Reject { errno, .. } if *errno == Errno::EACCES),
            "{refused}: {verdict:?}"
        );
    }
    let later = judged("later");
    assert!(
        matches!(&later, Verdict::Unsupported { what, .. } if what == "kfunc scx_bpf_task_set_mood"),
        "{later:?}"
    );
}
