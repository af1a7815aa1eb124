//! Random programs: what Linux says of each, bpfsim says.
//!
//! `data/verdicts.jsonl` has programs with Linux 6.18's answers. Where a 6.18 kernel runs it is asked of
//! 200 programs, or of as many as `BPFSIM_VERDICTS` says, from the seed `BPFSIM_VERDICTS_FROM` on; with
//! `BPFSIM_VERDICT_LOGS` whole logs of level 2 are compared. `BPFSIM_RECORD_VERDICTS` writes the file anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;

use bpfsim_abi::ProgType;
use bpfsim_isa::Insn;
use bpfsim_testing::linux::{or_skip, skip_loudly};
use bpfsim_testing::verdicts::ask::{Answer, LinuxWithMaps, Sim};
use bpfsim_testing::verdicts::world::KFUNCS;
use bpfsim_testing::verdicts::{Dice, Flat, Program, random, shrink::shrink};
use serde::{Deserialize, Serialize};

/// Programs in the file.
const RECORDED: u64 = 240;
/// Differences that are made small and shown.
const SHOWN: usize = 5;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/verdicts.jsonl");

/// A line of the file.
#[derive(Deserialize, Serialize)]
struct Row {
    prog_type: String,
    flags: u32,
    starts: Vec<usize>,
    insns: String,
    answer: Answer,
}

fn program(seed: u64) -> Program {
    random(&mut Dice::seeded(seed))
}

fn number(name: &str, default: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(default, |n| n.parse().expect(name))
}

#[test]
fn as_recorded() {
    let text = std::fs::read_to_string(FILE).unwrap();
    let sim = Sim::new(2).unwrap();
    let (mut count, mut accepted, mut wrong) = (0, 0, String::new());
    for line in text.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let prog_type = ProgType::from_name(&row.prog_type).unwrap();
        let flat = Flat::from_hex(prog_type, row.flags, row.starts, &row.insns).unwrap();
        let said = sim.ask(&flat, 4);
        count += 1;
        accepted += u64::from(row.answer.accepts());
        if !said.same(&row.answer) {
            writeln!(wrong, "{flat}Linux  {}\nbpfsim {said}", row.answer).unwrap();
        }
    }
    assert_eq!(count, RECORDED);
    assert!(
        (count / 5..=count / 5 * 4).contains(&accepted),
        "{accepted}"
    );
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn as_the_running_kernel() {
    let test = "as_the_running_kernel";
    let Some(linux) = or_skip(test) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(test, "not Linux 6.18");
    }
    let sim = Sim::new(linux.possible_cpus() as u32).unwrap();
    let linux = LinuxWithMaps::new(linux).unwrap();
    if std::env::var_os("BPFSIM_RECORD_VERDICTS").is_some() {
        return record(&linux);
    }
    let logs = std::env::var_os("BPFSIM_VERDICT_LOGS").is_some();
    let level = if logs { 6 } else { 4 };
    let differs = |p: &Program| {
        let flat = p.flat();
        let (a, b) = (linux.ask(&flat, level), sim.ask(&flat, level));
        (!a.same(&b) || logs && a.log != b.log).then_some((a, b))
    };
    let (from, count) = (
        number("BPFSIM_VERDICTS_FROM", 0),
        number("BPFSIM_VERDICTS", 200),
    );
    let (mut wrong, mut text) = (0, String::new());
    for seed in from..from + count {
        let program = program(seed);
        if differs(&program).is_none() {
            continue;
        }
        wrong += 1;
        if wrong <= SHOWN {
            let small = shrink(&program, &mut |p| differs(p).is_some()).flat();
            let (a, b) = (linux.ask(&small, 6), sim.ask(&small, 6));
            let (left, right) = a.first_difference(&b);
            writeln!(
                text,
                "seed {seed}: {small}Linux  {a}\n{left}\nbpfsim {b}\n{right}"
            )
            .unwrap();
        }
    }
    assert_eq!(wrong, 0, "of {count} programs:\n{text}");
}

/// It names a function that no way reaches, and throws: Linux loses the function's place (seed 11,960).
#[test]
fn a_throw_past_a_function_that_is_gone() {
    let throw = KFUNCS
        .iter()
        .position(|kfunc| *kfunc == "bpf_throw")
        .unwrap();
    let insns = [
        Insn::new(0x85, 0, 0, 0, 7),
        Insn::new(0x35, 0, 0, 2, 1),
        Insn::new(0xb7, 1, 0, 0, 0),
        Insn::new(0x85, 0, 2, 0, throw as i32),
        Insn::new(0x18, 2, 4, 0, 2),
        Insn::new(0, 0, 0, 0, 0),
        Insn::new(0x95, 0, 0, 0, 0),
        Insn::new(0x95, 0, 0, 0, 0),
    ];
    let flat = Flat {
        prog_type: ProgType::SchedCls,
        flags: 0,
        insns: insns.to_vec(),
        starts: vec![0, 7],
        globals: 1,
        gpl: true,
        typed: true,
    };
    let said = Sim::new(2).unwrap().ask(&flat, 4);
    let ours = (said.errno.as_str(), said.line.as_str(), said.insns);
    assert_eq!(ours, ("EFAULT", "No program to jit", 6));
    let linux = or_skip("a_throw_past_a_function_that_is_gone");
    if let Some(linux) = linux.filter(|linux| linux.is_series("6.18")) {
        assert!(LinuxWithMaps::new(linux).unwrap().ask(&flat, 4).same(&said));
    }
}

fn record(linux: &LinuxWithMaps) {
    let rows = (0..RECORDED).map(|seed| {
        let flat = program(seed).flat();
        let row = Row {
            prog_type: flat.prog_type.name().to_owned(),
            flags: flat.flags,
            starts: flat.starts.clone(),
            insns: flat.hex(),
            answer: linux.ask(&flat, 4),
        };
        serde_json::to_string(&row).unwrap() + "\n"
    });
    std::fs::write(FILE, rows.collect::<String>()).unwrap();
}
