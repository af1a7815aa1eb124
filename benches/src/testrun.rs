//! Programs that were not written to be measured: those of Linux's selftests that
//! `BPF_PROG_TEST_RUN` runs, taken down from the emulated kernel ([`crate::capture`]) and given to
//! every engine that can run them.

use crate::capture::capture;
use crate::engines::{WITH_SOME_WORLDS, WITH_WORLDS};
use crate::measure::measure_with;
use crate::programs::Program;
use crate::reference::Outcome;
use bpfsim_kernel::{OnUnsupported, Policy, Prepared, Profile};
use std::collections::BTreeMap;
use std::path::Path;

/// A program and what a run of it took.
#[derive(Debug, Clone)]
pub struct Row {
    /// The object's file and the program.
    pub name: String,
    /// Instructions of one run.
    pub insns: u64,
    /// Calls out of one run.
    pub calls: usize,
    /// ns of a run, of each of [`WITH_WORLDS`], and of each of [`WITH_SOME_WORLDS`] that runs it.
    pub ns: Vec<Option<f64>>,
}

/// What was measured, and how many programs were not, by why.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// The programs that were.
    pub rows: Vec<Row>,
    /// Those that could not be.
    pub left: BTreeMap<String, usize>,
}

/// Measures the programs of a record (`file,program,...,returned,..,status` with status ok at the
/// seventh place) whose objects are in `dir`.
///
/// # Errors
/// If the record cannot be read, or there are no types of the kernel's.
pub fn measure(dir: &Path, record: &Path, rounds: usize, share: f64) -> Result<Measured, String> {
    let text = std::fs::read_to_string(record);
    let text = text.map_err(|e| format!("{}: {e}", record.display()))?;
    let mut measured = Measured::default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [file, program, _, _, returned, _, "ok", ..] = fields[..] else {
            continue;
        };
        let name = format!("{file} {program}");
        let Ok(object) = std::fs::read(dir.join(file)) else {
            *measured.left.entry("no object".into()).or_default() += 1;
            continue;
        };
        match take_down(&object, program, &name, returned) {
            Ok((program, expected)) => match time(&program, expected, rounds, share) {
                Ok(row) => measured.rows.push(row),
                Err(why) => {
                    // Names and numbers aside.
                    let why = why.replace(&program.name, "it");
                    let why = why.split([':', '{']).next().unwrap_or(&why).to_string();
                    *measured.left.entry(why).or_default() += 1;
                }
            },
            Err(why) => *measured.left.entry(why).or_default() += 1,
        }
    }
    Ok(measured)
}

/// Loads a program alone and runs it in the kernel.
fn take_down(
    bytes: &[u8],
    program: &str,
    name: &str,
    returned: &str,
) -> Result<(Program, Outcome), String> {
    let (program, outcome) = alone(bytes, program, name)?;
    let returned: i64 = returned.parse().map_err(|_| "no recorded value")?;
    match outcome.r0 as u32 == returned as u32 {
        true => Ok((program, outcome)),
        false => Err("wants what the selftests' runner prepares".into()),
    }
}

/// Loads a program of an object, without the others, and takes a run of it down.
///
/// # Errors
/// If it is refused, or why its run cannot be given to other engines.
pub fn alone(object: &[u8], program: &str, name: &str) -> Result<(Program, Outcome), String> {
    let mut object = bpfsim_loader::load(object).map_err(|_| "no object")?;
    for p in &mut object.programs {
        p.autoload = p.name == program;
    }
    let mut profile = Profile::reference().map_err(|e| e.to_string())?;
    profile.own_types = true;
    let policy = Policy::Verify(OnUnsupported::Refuse);
    let prepared = Prepared::new(object, &profile, policy).map_err(|_| "is refused alone")?;
    Ok(capture(name, &prepared, program)?)
}

fn time(program: &Program, expected: Outcome, rounds: usize, share: f64) -> Result<Row, String> {
    let row = measure_with(WITH_WORLDS, program, expected, rounds, share)?;
    let mut ns: Vec<Option<f64>> = row.ns.into_iter().map(Some).collect();
    for engine in WITH_SOME_WORLDS {
        let engine = std::slice::from_ref(engine);
        let row = measure_with(engine, program, expected, rounds, share);
        ns.push(row.ok().map(|row| row.ns[0]));
    }
    Ok(Row {
        name: row.name,
        insns: row.insns,
        calls: program.world.replies.len(),
        ns,
    })
}
