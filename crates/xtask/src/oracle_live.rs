//! Rows of `cargo xtask oracle verdicts DIR --live`: the running kernel is asked of every program of the
//! objects, in place of a record. Programs are loaded, never attached.

use std::collections::BTreeMap;
use std::path::Path;

use bpfsim_kernel::{veristat_fixup, veristat_freplace};
use bpfsim_testing::linux::Linux;
use bpfsim_testing::linux::object::KernelFacts;

use crate::oracle_verdicts::{Row, cpu_time};

/// `BPF_LOG_STATS`
const STATS: u32 = 4;
/// The kernel's time is that of the clock, while others may have the CPU: the shortest of so many loads is
/// taken, and no more than this thread ran for. As many are made here then.
pub const LOADS: u32 = 3;

/// What the kernel says of each program that it verifies, by file; and how many it does not verify.
pub fn rows(
    linux: &Linux,
    facts: &KernelFacts,
    dir: &Path,
    only: Option<&str>,
) -> Result<(BTreeMap<String, Vec<Row>>, usize), String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", dir.display());
    let mut files = BTreeMap::new();
    let mut unverified = 0;
    for entry in std::fs::read_dir(dir).map_err(|e| at(&e))? {
        let path = entry.map_err(|e| at(&e))?.path();
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !file.ends_with(".bpf.o") {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|e| at(&e))?;
        let Ok(mut object) = bpfsim_loader::load(&bytes) else {
            continue;
        };
        veristat_fixup(&mut object);
        veristat_freplace(&mut object);
        let mut rows = Vec::new();
        for program in &object.programs {
            let name = format!("{file} {}", program.name);
            if only.is_some_and(|o| !name.contains(o)) {
                continue;
            }
            let mut row: Option<Row> = None;
            for _ in 0..LOADS {
                let start = cpu_time();
                let Ok(loaded) = linux.judge_object(facts, &object, &program.name, STATS) else {
                    break;
                };
                let micros = (cpu_time() - start).as_micros() as u64;
                let errno = loaded.result.err().map_or(0, |e| -i32::from(e.0));
                let Some(mut new) = Row::of_log(&file, &program.name, errno, &loaded.log) else {
                    break;
                };
                new.micros = new.micros.min(micros);
                row = Some(match row {
                    Some(old) if old.micros <= new.micros => old,
                    _ => new,
                });
            }
            match row {
                Some(row) => rows.push(row),
                None => unverified += 1,
            }
        }
        files.insert(file, rows);
    }
    Ok((files, unverified))
}
