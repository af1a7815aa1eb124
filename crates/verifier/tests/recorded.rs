//! Small programs, what Linux 6.18 says of them (`tests/data`), and what this verifier says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_testing::linux::{ProgSpec, or_skip};
use bpfsim_verifier::{AttachTo, Env, Options, ProgramToVerify, Verdict, verify};

#[derive(serde::Deserialize)]
struct File {
    case: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    r#type: String,
    asm: String,
    /// Symbol of what `bpf(2)` returns; empty where it loads.
    errno: String,
    /// Last line of the log of what is refused.
    line: String,
    insns: u32,
}

fn cases() -> Vec<Case> {
    let text = include_str!("data/basic.toml");
    toml::from_str::<File>(text).expect("basic.toml").case
}

/// Errno, last line and count as a log ends.
fn ends(errno: String, log: &str) -> (String, String, u32) {
    let mut insns = 0;
    let mut line = "";
    for l in log.lines() {
        if let Some(rest) = l.strip_prefix("processed ") {
            insns = rest.split(' ').next().unwrap().parse().unwrap();
        } else if !l.starts_with("stack depth") && !l.starts_with("verification time") {
            line = l;
        }
    }
    let line = if errno.is_empty() { "" } else { line };
    (errno, line.trim().to_owned(), insns)
}

#[test]
fn the_verifier_says_what_linux_said() {
    let kernel = bpfsim_btf::vmlinux().expect("kernel types");
    for case in cases() {
        let insns = bpfsim_isa::assemble(&case.asm).expect(&case.name);
        let prog_type = ProgType::from_name(&case.r#type).expect("program type");
        let prog = ProgramToVerify {
            insns: &insns,
            prog_type,
            attach_type: bpfsim_abi::prog::fixup_attach_type(
                prog_type,
                AttachType::CgroupInetIngress,
            ),
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
        let options = Options {
            log_level: 4,
            ..Options::default()
        };
        let outcome = verify(&prog, &env, &options);
        let errno = match &outcome.verdict {
            Verdict::Accept(_) => String::new(),
            Verdict::Reject { errno, .. } => errno.name().unwrap_or("?").to_owned(),
            Verdict::Unsupported { what, .. } => panic!("{}: {what}", case.name),
        };
        let said = ends(errno, &outcome.log);
        assert_eq!(said, (case.errno, case.line, case.insns), "{}", case.name);
    }
}

#[test]
fn linux_says_it_still() {
    let Some(linux) = or_skip("linux_says_it_still") else {
        return;
    };
    if !linux.is_series("6.18") {
        return bpfsim_testing::linux::skip_loudly("linux_says_it_still", "not Linux 6.18");
    }
    for case in cases() {
        let insns = bpfsim_isa::assemble(&case.asm).expect(&case.name);
        let prog_type = ProgType::from_name(&case.r#type).expect("program type");
        let mut spec = ProgSpec::new(prog_type, &insns);
        spec.log_level = 4;
        let loaded = linux.load(&spec);
        let errno = match &loaded.result {
            Ok(_) => String::new(),
            Err(e) => e.name().unwrap_or("?").to_owned(),
        };
        let said = ends(errno, &loaded.log);
        if std::env::var_os("BPFSIM_RECORD").is_some() {
            println!("{}\t{}\t{}\t{}", case.name, said.0, said.1, said.2);
            continue;
        }
        assert_eq!(said, (case.errno, case.line, case.insns), "{}", case.name);
    }
}
