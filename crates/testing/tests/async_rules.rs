//! What the verifier holds asynchronous callbacks to: each rule with a program that it takes and one
//! that it refuses, and Linux 6.18's answers (`data/async_rules.toml`). A kernel that runs is asked again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use bpfsim_abi::ProgType;
use bpfsim_isa::uapi::{BPF_PSEUDO_FUNC, BPF_PSEUDO_MAP_FD};
use bpfsim_testing::linux::{Linux, skip_loudly};
use bpfsim_testing::verdicts::ask::{Answer, LinuxWithMaps, Sim};
use bpfsim_testing::verdicts::{Flat, SLEEPABLE};
use serde::Deserialize;

/// Rows of the semantics' section on the verifier that no program here is about: they want kernel
/// functions, maps within maps, locks or callbacks that call.
const LEFT: [&str; 7] = ["5.4", "5.5", "5.14", "5.15", "5.17", "5.18", "5.19"];
/// Immediates that stand for maps and for the callback.
const MAP: i32 = 0x4d41_5000;
const CALLBACK: i32 = 0x4655_4e01;

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    row: String,
    name: String,
    r#type: String,
    main: String,
    callback: String,
    errno: String,
    line: String,
    insns: u32,
}

impl Case {
    fn flat(&self) -> Flat {
        let mut insns = bpfsim_isa::assemble(&self.main).expect(&self.name);
        let mut starts = vec![0];
        if !self.callback.is_empty() {
            starts.push(insns.len());
            insns.extend(bpfsim_isa::assemble(&self.callback).expect(&self.name));
        }
        for (at, insn) in insns.iter_mut().enumerate() {
            if !insn.is_ld_imm64() {
                continue;
            }
            if insn.imm == CALLBACK {
                insn.set_src(BPF_PSEUDO_FUNC);
                insn.imm = starts[1] as i32 - at as i32 - 1;
            } else if insn.imm & !0xf == MAP {
                insn.set_src(BPF_PSEUDO_MAP_FD);
                insn.imm &= 0xf;
            }
        }
        let prog_type = ProgType::from_name(&self.r#type).unwrap();
        let flags = if prog_type == ProgType::Syscall {
            SLEEPABLE
        } else {
            0
        };
        Flat {
            prog_type,
            flags,
            insns,
            starts,
        }
    }

    fn check(&self, said: &Answer) {
        let ours = (said.errno.as_str(), said.line.as_str(), said.insns);
        assert_eq!(
            ours,
            (&*self.errno, &*self.line, self.insns),
            "{}",
            self.name
        );
    }
}

fn cases() -> Vec<Case> {
    let text = include_str!("data/async_rules.toml");
    toml::from_str::<File>(text).unwrap().case
}

#[test]
fn the_verifier_says_what_linux_said() {
    let sim = Sim::new(2).unwrap();
    for case in cases() {
        case.check(&sim.ask(&case.flat(), 4));
    }
}

#[test]
fn linux_says_it_still() {
    let test = "linux_says_it_still";
    let Some(linux) = Linux::or_skip(test) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(test, "not Linux 6.18");
    }
    let linux = LinuxWithMaps::new(linux).unwrap();
    for case in cases() {
        let said = linux.ask(&case.flat(), 4);
        if std::env::var_os("BPFSIM_RECORD").is_some() {
            println!(
                "{}\t{}\t{}\t{}",
                case.name, said.errno, said.line, said.insns
            );
            continue;
        }
        case.check(&said);
    }
}

#[test]
fn every_rule_is_kept_and_broken() {
    let mut rows: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for case in cases() {
        let (kept, broken) = rows.entry(case.row).or_default();
        *kept |= case.errno.is_empty();
        *broken |= !case.errno.is_empty();
    }
    for n in 1..=19 {
        let row = format!("5.{n}");
        let there = rows.get(&row) == Some(&(true, true));
        assert_eq!(there, !LEFT.contains(&row.as_str()), "{row}");
    }
}
