//! Whatever the instructions, there is a verdict.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_isa::Insn;
use bpfsim_verifier::{AttachTo, Env, Options, ProgramToVerify, verify};
use proptest::prelude::*;

/// Mostly instructions that mean something, with operands of all sorts.
fn insn() -> impl Strategy<Value = Insn> {
    let code = prop_oneof![
        4 => proptest::sample::select(&[
            0xb7_u8, 0xbf, 0x07, 0x0f, 0x17, 0x1f, 0x57, 0x67, 0x77, 0xc7, 0xb4, 0xbc, 0x04, 0x87,
            0xdc, 0xd4, 0x61, 0x69, 0x71, 0x79, 0x62, 0x6a, 0x72, 0x7a, 0x63, 0x6b, 0x73, 0x7b,
            0xdb, 0xc3, 0x85, 0x15, 0x1d, 0x25, 0x2d, 0x55, 0x5d, 0xa5, 0xad, 0x05, 0x95, 0xc5,
        ][..]),
        1 => any::<u8>(),
    ];
    let off = prop_oneof![-6..6_i16, (-8..0_i16).prop_map(|o| o * 8), any::<i16>()];
    let imm = prop_oneof![0..16_i32, -16..220_i32, any::<i32>()];
    (code, 0..11_u8, 0..11_u8, off, imm)
        .prop_map(|(code, dst, src, off, imm)| Insn::new(code, dst, src, off, imm))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn there_is_a_verdict(
        mut insns in proptest::collection::vec(insn(), 1..24),
        t in proptest::sample::select(&[
            ProgType::SocketFilter, ProgType::Xdp, ProgType::SchedCls, ProgType::Kprobe,
        ][..]),
        level in proptest::sample::select(&[0_u32, 2, 4][..]),
    ) {
        let kernel = bpfsim_btf::vmlinux().expect("kernel types");
        insns.push(Insn::new(0xb7, 0, 0, 0, 0));
        insns.push(Insn::new(0x95, 0, 0, 0, 0));
        let prog = ProgramToVerify {
            insns: &insns,
            prog_type: t,
            attach_type: AttachType::CgroupInetIngress,
            attach_to: AttachTo::Nothing,
            funcs: &[],
            lines: &[],
            btf: None,
            gpl_compatible: true,
            sleepable: false,
        };
        let env = Env {
            kernel: &kernel,
            maps: &[],
            cpus: 2,
            kallsyms_all: false,
            refused_helpers: &[],
        };
        let options = Options { log_level: level, ..Options::default() };
        verify(&prog, &env, &options);
    }
}
