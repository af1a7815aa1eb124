//! Objects resolved against the types of another kernel.
#![allow(clippy::unwrap_used)]

use bpfsim_abi::{Errno, KernelVersion};
use bpfsim_btf::Btf;
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
const SCHED_EXT: &[u8] = include_bytes!("../../../fixtures/kernels/sched_ext.btf");

/// Schedulers are judged against the types of a kernel with sched_ext: they write a task's slice
/// and vtime and nothing else of it. Of a kfunc that a later kernel has nothing is guessed.
#[test]
fn schedulers_are_judged_by_the_types_of_a_kernel_that_has_them() {
    let profile = Profile {
        btf: Arc::new(Btf::parse(SCHED_EXT).unwrap()),
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
