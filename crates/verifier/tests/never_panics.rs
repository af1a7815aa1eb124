//! Whatever the instructions, there is a verdict.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, BtfBuilder, Linkage};
use bpfsim_isa::Insn;
use bpfsim_verifier::{AttachTo, Env, FuncInfo, Options, ProgramToVerify, Verdict, verify};
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
        insns.push(Insn::new(0xb7, 0, 0, 0, 0));
        insns.push(Insn::new(0x95, 0, 0, 0, 0));
        judge(&insns, None, t, level);
    }
}

/// Seven functions, each of which calls the next one hundred times, in code that the walk does not come to: ways
/// through them are far too many to go one after another.
#[test]
fn ways_through_calls_are_not_counted_out() {
    const CALLS: i16 = 100;
    let mut insns = Vec::new();
    for level in 0..8_i32 {
        insns.push(Insn::new(0xb7, 0, 0, 0, 0));
        if level < 7 {
            insns.push(Insn::new(0x15, 0, 0, CALLS, 0));
            for call in 0..i32::from(CALLS) {
                insns.push(Insn::new(0x85, 0, 1, 0, i32::from(CALLS) - call));
            }
        }
        insns.push(Insn::new(0x95, 0, 0, 0, 0));
    }
    let verdict = judge(&insns, None, ProgType::SocketFilter, 0);
    assert!(matches!(verdict, Verdict::Accept(_)), "{verdict:?}");
}

/// A function whose address is taken a hundred thousand times.
#[test]
fn addresses_are_looked_up_each_in_no_time() {
    const LOADS: i32 = 100_000;
    let mut insns = vec![Insn::new(0x85, 0, 1, 0, 2 * LOADS + 2)];
    for load in 0..LOADS {
        insns.push(Insn::new(0x18, 1, 4, 0, 2 * (LOADS - load) + 1));
        insns.push(Insn::new(0, 0, 0, 0, 0));
    }
    for _ in 0..2 {
        insns.push(Insn::new(0xb7, 0, 0, 0, 0));
        insns.push(Insn::new(0x95, 0, 0, 0, 0));
    }
    let mut btf = BtfBuilder::new();
    let int = btf.add_int("int", 4, 1);
    let proto = btf.add_func_proto(int, &[]);
    let type_id = btf.add_func("f", Linkage::Static, proto);
    let btf = btf.build().expect("types of the program");
    let funcs = [0, insns.len() - 2].map(|insn| FuncInfo {
        insn,
        type_id,
        global: false,
    });
    let verdict = judge(&insns, Some((&btf, &funcs)), ProgType::SocketFilter, 0);
    assert!(matches!(verdict, Verdict::Accept(_)), "{verdict:?}");
}

fn judge(
    insns: &[Insn],
    types: Option<(&Btf, &[FuncInfo])>,
    prog_type: ProgType,
    log_level: u32,
) -> Verdict {
    let kernel = bpfsim_btf::vmlinux().expect("kernel types");
    let prog = ProgramToVerify {
        insns,
        prog_type,
        attach_type: AttachType::CgroupInetIngress,
        attach_to: AttachTo::Nothing,
        funcs: types.map_or(&[], |t| t.1),
        lines: &[],
        btf: types.map(|t| t.0),
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
    let options = Options {
        log_level,
        ..Options::default()
    };
    verify(&prog, &env, &options).verdict
}
