//! Programs that were not written to be measured: those of Linux's selftests that
//! `BPF_PROG_TEST_RUN` runs, call nothing outside of themselves, and execute enough instructions for
//! the time that they take to be the interpreter's.

use crate::measure::median;
use bpfsim::{Config, Detectors, Ebpf, EbpfLoader, ProgramInput, Seed, Sim};
use bpfsim_isa::Insn;
use bpfsim_loader::Program;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;

/// Instructions that a run must execute at least.
const LEAST: u64 = 1000;
/// And at most, for the measurement to come to an end.
const MOST: u64 = 20_000_000;

/// A program and what its instructions took, in ns each: plain, and checked.
#[derive(Debug, Clone)]
pub struct Row {
    /// The object's file and the program.
    pub name: String,
    /// Instructions of one run.
    pub insns: u64,
    /// ns per instruction of the plain interpreter.
    pub plain: f64,
    /// ns per instruction in checked mode.
    pub checked: f64,
}

/// Measures the programs of a record (`file,program,...,status` with status ok at the seventh place)
/// whose objects are in `dir`.
///
/// # Errors
/// If the record cannot be read.
pub fn measure(dir: &Path, record: &Path) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(record);
    let text = text.map_err(|e| format!("{}: {e}", record.display()))?;
    let ok = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        (*fields.get(6)? == "ok").then(|| (fields[0].to_string(), fields[1].to_string()))
    });
    let mut rows = Vec::new();
    for (file, program) in ok {
        let Ok(object) = std::fs::read(dir.join(&file)) else {
            continue;
        };
        if !stays_within(&object, &program) {
            continue;
        }
        let Some((insns, plain)) = run(&object, &program, false) else {
            continue;
        };
        if let Some((_, checked)) = run(&object, &program, true) {
            rows.push(Row {
                name: format!("{file} {program}"),
                insns,
                plain,
                checked,
            });
        }
    }
    Ok(rows)
}

/// True for a program that calls neither helpers nor kfuncs.
fn stays_within(object: &[u8], program: &str) -> bool {
    /// `BPF_JMP | BPF_CALL`, and the source registers of helpers and kfuncs.
    const CALL: u8 = 0x85;
    const OUTSIDE: [u8; 2] = [0, 2];
    let calls = |insn: &Insn| insn.code == CALL && OUTSIDE.contains(&insn.src());
    let Ok(object) = bpfsim_loader::load(object) else {
        return false;
    };
    let found = object.programs.iter().find(|p| p.name == program);
    found.is_some_and(|p: &Program| !p.insns.iter().any(calls))
}

/// Instructions of a run, and ns for each; none if it cannot be run, or is too short or too long.
fn run(object: &[u8], program: &str, checked: bool) -> Option<(u64, f64)> {
    let config = Config {
        checked,
        detectors: Detectors::OFF,
        ..Config::default()
    };
    let sim = Sim::with(config, Seed::USUAL).ok()?;
    let mut bpf: Ebpf = EbpfLoader::new().only(program).load(&sim, object).ok()?;
    let program = bpf.program_mut(program).ok()?;
    let input = match program.takes_packet() {
        true => ProgramInput::packet(&[0; 64]),
        false => ProgramInput::empty(),
    };
    let mut bench = program.bench(input).ok()?;
    let insns = bench.first().insns;
    if !(LEAST..=MOST).contains(&insns) {
        return None;
    }
    let times = (4_000_000 / insns).clamp(1, 2000);
    let mut samples = Vec::new();
    for _ in 0..7 {
        let start = thread_ns();
        for _ in 0..times {
            bench.run().ok()?;
        }
        samples.push((thread_ns() - start) / (times * insns) as f64);
    }
    Some((insns, median(samples)))
}

fn thread_ns() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}
