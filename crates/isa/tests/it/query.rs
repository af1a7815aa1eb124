//! What instructions say of themselves.

use bpfsim_isa::{Cpu, Flow, Op, any_op, encode, uapi};
use proptest::prelude::*;

/// Text, registers read, registers written, cpu.
const CASES: &[(&str, &[u8], &[u8], Cpu)] = &[
    ("r1 = 0x5", &[], &[1], Cpu::V1),
    ("w1 = w2", &[2], &[1], Cpu::V1),
    ("r1 += r2", &[1, 2], &[1], Cpu::V1),
    ("r1 s/= 0x2", &[1], &[1], Cpu::V4),
    ("w3 s%= w4", &[3, 4], &[3], Cpu::V4),
    ("r1 = -r1", &[1], &[1], Cpu::V1),
    ("r1 = be32 r1", &[1], &[1], Cpu::V1),
    ("r1 = bswap32 r1", &[1], &[1], Cpu::V4),
    ("r1 = (s8)r2", &[2], &[1], Cpu::V4),
    ("r1 = addr_space_cast(r2, 0x0, 0x1)", &[2], &[1], Cpu::V4),
    ("r1 = *(u64 *)(r2 + 0x8)", &[2], &[1], Cpu::V1),
    ("r1 = *(s16 *)(r2 + 0x8)", &[2], &[1], Cpu::V4),
    ("*(u64 *)(r1 + 0x8) = r2", &[1, 2], &[], Cpu::V1),
    ("*(u64 *)(r1 + 0x8) = 0x2", &[1], &[], Cpu::V1),
    ("lock *(u64 *)(r1 + 0x8) += r2", &[1, 2], &[], Cpu::V1),
    ("lock *(u64 *)(r1 + 0x8) |= r2", &[1, 2], &[], Cpu::V3),
    (
        "r2 = atomic_fetch_add((u64 *)(r1 + 0x8), r2)",
        &[1, 2],
        &[2],
        Cpu::V3,
    ),
    ("r2 = xchg_64(r1 + 0x8, r2)", &[1, 2], &[2], Cpu::V3),
    (
        "r0 = cmpxchg_64(r1 + 0x8, r0, r2)",
        &[0, 1, 2],
        &[0],
        Cpu::V3,
    ),
    ("w2 = load_acquire((u8 *)(r1 + 0x8))", &[1], &[2], Cpu::V4),
    ("store_release((u8 *)(r1 + 0x8), w2)", &[1, 2], &[], Cpu::V4),
    ("r0 = *(u8 *)skb[0x4]", &[6], &[0, 1, 2, 3, 4, 5], Cpu::V1),
    ("r0 = *(u8 *)skb[r7]", &[6, 7], &[0, 1, 2, 3, 4, 5], Cpu::V1),
    ("r1 = 0x5 ll", &[], &[1], Cpu::V1),
    ("ld_pseudo r1, 0x1, 0x5", &[], &[1], Cpu::V1),
    ("if r1 > r2 goto +0x1", &[1, 2], &[], Cpu::V1),
    ("if r1 < 0x2 goto +0x1", &[1], &[], Cpu::V2),
    ("if w1 > 0x2 goto +0x1", &[1], &[], Cpu::V3),
    ("goto +0x1", &[], &[], Cpu::V1),
    ("gotol +0x1", &[], &[], Cpu::V4),
    ("may_goto +0x1", &[], &[], Cpu::V4),
    ("call 0x5", &[], &[0, 1, 2, 3, 4, 5], Cpu::V1),
    ("exit", &[0], &[], Cpu::V1),
];

#[test]
fn operands_and_cpu() {
    for (text, reads, writes, cpu) in CASES {
        let op: Op = text.parse().unwrap();
        let numbers = |set: bpfsim_isa::RegSet| set.iter().map(|r| r.number()).collect::<Vec<_>>();
        let found = (numbers(op.reads()), numbers(op.writes()), op.cpu());
        assert_eq!(found, (reads.to_vec(), writes.to_vec(), *cpu), "{text}");
    }
}

#[test]
fn targets_are_in_slots() {
    let target = |text: &str, at| text.parse::<Op>().unwrap().jump_target(at);
    assert_eq!(target("if r1 > r2 goto -0x3", 10), Some(8));
    assert_eq!(target("gotol +0x7fffffff", 0), Some(0x8000_0000));
    assert_eq!(target("goto -0x1", 0), Some(0));
    assert_eq!(target("goto -0x2", 0), Some(-1));
    assert_eq!(target("exit", 0), None);
    let subprog = |text: &str, at| text.parse::<Op>().unwrap().subprog_target(at);
    assert_eq!(subprog("call pc+0x2", 10), Some(13));
    assert_eq!(subprog("ld_pseudo r1, 0x4, 0x3", 10), Some(14));
    assert_eq!(subprog("call 0x2", 10), None);
}

proptest! {
    #[test]
    fn flow_agrees_with_class(op in any_op()) {
        let first = encode(&op).unwrap().first();
        let is_jmp = matches!(first.class(), uapi::BPF_JMP | uapi::BPF_JMP32);
        let calls = matches!(op, Op::Call(_) | Op::CallX { .. });
        let is_helper = calls && op.flow() == Flow::Next;
        prop_assert_eq!(is_jmp && !is_helper, op.flow() != Flow::Next);
        prop_assert!(op.cpu() >= Cpu::V1);
        prop_assert_eq!(first.len_in_slots(), op.len_in_slots());
    }
}
