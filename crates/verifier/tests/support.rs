//! What the verifier says that it judges, held against what it judges.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bpfsim_abi::{AttachType, Func, MapType, ProgType, Status, kfunc};
use bpfsim_btf::{Btf, Kind};
use bpfsim_isa::Insn;
use bpfsim_isa::uapi::*;
use bpfsim_verifier::{AttachTo, Env, MapDesc, Options, ProgramToVerify, Verdict, support, verify};

const EXIT: Insn = Insn::new(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

fn mov(dst: u8, imm: i32) -> Insn {
    Insn::new(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
}

/// What R1 to R5 may be before a call: nothing, numbers, the stack.
fn arguments() -> [Vec<Insn>; 3] {
    let stack = |r: u8| {
        [
            Insn::new(BPF_ALU64 | BPF_MOV | BPF_X, r, 10, 0, 0),
            Insn::new(BPF_ALU64 | BPF_ADD | BPF_K, r, 0, 0, -64),
        ]
    };
    [
        Vec::new(),
        (1..=5).map(|r| mov(r, 0)).collect(),
        (1..=5).flat_map(stack).collect(),
    ]
}

fn judged(kernel: &Btf, maps: &[MapDesc], of: (ProgType, AttachTo<'_>), insns: &[Insn]) -> bool {
    let prog = ProgramToVerify {
        insns,
        prog_type: of.0,
        attach_type: match of.0 {
            ProgType::Tracing => AttachType::TraceFentry,
            _ => AttachType::CgroupInetIngress,
        },
        attach_to: of.1,
        funcs: &[],
        lines: &[],
        btf: None,
        gpl_compatible: true,
        sleepable: of.0 == ProgType::Syscall,
    };
    let env = Env {
        kernel,
        maps,
        cpus: 2,
        kallsyms_all: true,
        refused_helpers: &[],
    };
    let outcome = verify(&prog, &env, &Options::default());
    !matches!(outcome.verdict, Verdict::Unsupported { .. })
}

/// What programs of a type attach to.
fn target(kernel: &Btf, prog_type: ProgType) -> AttachTo<'static> {
    let func = |name| {
        kernel
            .find(name, Kind::Func)
            .map_or(AttachTo::Nothing, AttachTo::Kernel)
    };
    match prog_type {
        ProgType::Tracing => func("bpf_fentry_test1"),
        ProgType::Lsm => func("bpf_lsm_file_open"),
        ProgType::StructOps => AttachTo::StructOps {
            name: "tcp_congestion_ops",
            member: 0,
        },
        ProgType::Ext => AttachTo::Program,
        _ => AttachTo::Nothing,
    }
}

fn with_call(before: &[Insn], call: Insn) -> Vec<Insn> {
    let mut insns = before.to_vec();
    insns.extend([call, mov(0, 0), EXIT]);
    insns
}

#[test]
fn calls_of_helpers_are_judged() {
    let kernel = bpfsim_btf::vmlinux().unwrap();
    for func in &Func::ALL[1..] {
        assert_eq!(support::helper(*func), Status::Done, "{}", func.name());
        let call = Insn::new(BPF_JMP | BPF_CALL, 0, 0, 0, func.number() as i32);
        for prog_type in [
            ProgType::SchedCls,
            ProgType::Kprobe,
            ProgType::CgroupSockAddr,
            ProgType::Syscall,
        ] {
            for before in arguments() {
                let of = (prog_type, target(&kernel, prog_type));
                assert!(
                    judged(&kernel, &[], of, &with_call(&before, call)),
                    "{}",
                    func.name()
                );
            }
        }
    }
}

#[test]
fn calls_of_kfuncs_are_judged_as_said() {
    let kernel = bpfsim_btf::vmlinux().unwrap();
    let mut of_modules = 0;
    for row in kfunc::all() {
        let says = support::kfunc(&kernel, row) != Status::No;
        // Calls name a function of the kernel by its type: of a module's there is none.
        let Some(id) = kernel.find(row.name, Kind::Func) else {
            assert!(!says, "{}", row.name);
            of_modules += 1;
            continue;
        };
        let call = Insn::new(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, id.0 as i32);
        for prog_type in [
            ProgType::SchedCls,
            ProgType::Tracing,
            ProgType::Syscall,
            ProgType::Xdp,
        ] {
            for before in arguments() {
                let of = (prog_type, target(&kernel, prog_type));
                let judges = judged(&kernel, &[], of, &with_call(&before, call));
                assert_eq!(says, judges, "{} in {}", row.name, prog_type.name());
            }
        }
    }
    assert!(of_modules > 0, "none is a module's");
}

#[test]
fn programs_are_judged_as_said() {
    let kernel = bpfsim_btf::vmlinux().unwrap();
    for prog_type in &ProgType::ALL[1..] {
        let of = (*prog_type, target(&kernel, *prog_type));
        let judges = judged(&kernel, &[], of, &[mov(0, 0), EXIT]);
        let says = support::prog_type(*prog_type);
        assert_eq!(says != Status::No, judges, "{}", prog_type.name());
        // What is judged in part, is not in another.
        let other = (*prog_type, AttachTo::Program);
        if *prog_type == ProgType::Tracing {
            assert!(matches!(says, Status::Partial(_)));
            assert!(!judged(&kernel, &[], other, &[mov(0, 0), EXIT]));
        }
    }
}

#[test]
fn maps_are_judged() {
    let kernel = bpfsim_btf::vmlinux().unwrap();
    for map_type in &MapType::ALL[1..] {
        assert_eq!(support::map_type(*map_type), Status::Done);
        let map = MapDesc {
            name: "m".to_string(),
            map_type: *map_type,
            key_size: 4,
            value_size: 8,
            max_entries: 1,
            flags: 0,
            has_btf: false,
            fields: Vec::new(),
            frozen: None,
            inner: None,
        };
        let insns = [
            Insn::new(BPF_ST | BPF_MEM | BPF_DW, 10, 0, -8, 0),
            Insn::new(BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_IDX, 0, 0),
            Insn::new(0, 0, 0, 0, 0),
            Insn::new(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
            Insn::new(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -8),
            Insn::new(
                BPF_JMP | BPF_CALL,
                0,
                0,
                0,
                Func::MapLookupElem.number() as i32,
            ),
            mov(0, 0),
            EXIT,
        ];
        let of = (ProgType::SchedCls, AttachTo::Nothing);
        assert!(judged(&kernel, &[map], of, &insns), "{}", map_type.name());
    }
}
