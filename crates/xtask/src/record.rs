//! `cargo xtask record`: asks the running Linux again what the fixtures' recordings say.
//!
//! A recording names its own programs, packets and maps, so a new one starts as a `.linux.json`
//! whose programs have no runs and no outcomes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpfsim_loader::{LoadOptions, Object, load_with};
use bpfsim_testing::async_ops::{Kind, RECORDED, Recorded};
use bpfsim_testing::judged::Judged;
use bpfsim_testing::linux::loads::{self, Loads, ObjectLoad};
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::observe::{observe, test_run_case};
use bpfsim_testing::linux::sequences::LinuxMachine;
use bpfsim_testing::linux::{Linux, stay_on_cpu};
use bpfsim_testing::recording::{RecordedProgram, Recording};
use bpfsim_testing::test_runs::{self, Case, PROGRAMS};

/// Runs of each program where the arguments do not say.
const RUNS: u32 = 20;

/// Runs the chore: `[--runs N] [PART_OF_PATH...]`.
pub fn main(args: &[String]) -> Result<(), String> {
    let mut runs = RUNS;
    let mut wanted = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => {
                let number = args.next().and_then(|n| n.parse().ok());
                runs = number.ok_or("record: --runs takes a number")?;
            }
            flag if flag.starts_with('-') => return Err(format!("record: unknown option {flag}")),
            name => wanted.push(name),
        }
    }
    let linux = Linux::detect().map_err(|why| format!("record: {why}"))?;
    let facts = KernelFacts::of_this_machine(&linux).map_err(|e| format!("record: {e}"))?;
    if !stay_on_cpu(0) {
        return Err("record: CPU 0 is not to be had".into());
    }
    for path in with_end(".linux.json")? {
        let stem = stem(&path);
        let text = path.to_string_lossy();
        if wanted.is_empty() || wanted.iter().any(|w| text.contains(w)) {
            record(&linux, &facts, &path, &stem, runs)?;
        }
    }
    for folder in ["zoo", "zoo/fixed"] {
        let path = crate::fixtures::fixtures_dir()
            .join(folder)
            .join("loads.json");
        let text = path.to_string_lossy();
        if wanted.is_empty() || wanted.iter().any(|w| text.contains(w)) {
            record_loads(&linux, &facts, &path)?;
        }
    }
    for path in with_end(".judged.json")? {
        let text = path.to_string_lossy();
        if wanted.is_empty() || wanted.iter().any(|w| text.contains(w)) {
            record_judged(&linux, &facts, &path)?;
        }
    }
    if wanted.is_empty() || wanted.iter().any(|w| "async_sequences.json".contains(w)) {
        record_sequences(&linux)?;
    }
    if wanted.is_empty() || wanted.iter().any(|w| "test_run.cases.json".contains(w)) {
        record_test_runs(&linux, &facts)?;
    }
    Ok(())
}

/// Which programs of a folder Linux takes; none of them is run.
fn record_loads(linux: &Linux, facts: &KernelFacts, path: &Path) -> Result<(), String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let objects = loads::objects(path.parent().unwrap_or(path)).map_err(|e| at(&e))?;
    let mut rows = BTreeMap::new();
    for (name, bytes) in objects {
        let row = ObjectLoad::ask(linux, facts, &bytes).map_err(|e| at(&format!("{name}: {e}")))?;
        println!("{name}: {}", row.accepted.join(", "));
        rows.insert(name, row);
    }
    let kernel = linux.release().split('-').next().unwrap_or_default();
    let all = Loads {
        kernel: kernel.to_string(),
        objects: rows,
    };
    let json = serde_json::to_string_pretty(&all).map_err(|e| at(&e))?;
    std::fs::write(path, json + "\n").map_err(|e| at(&e))
}

/// What Linux's verifier says of an object's programs; none of them is run. A new one starts as an empty
/// file.
fn record_judged(linux: &Linux, facts: &KernelFacts, path: &Path) -> Result<(), String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let object = path.to_string_lossy().replace(".judged.json", ".bpf.o");
    let bytes = std::fs::read(&object).map_err(|e| at(&e))?;
    let judged = Judged::ask(linux, facts, &bytes)?;
    for (name, answer) in &judged.programs {
        println!("{object} {name}: {answer}");
    }
    let json = serde_json::to_string_pretty(&judged).map_err(|e| at(&e))?;
    std::fs::write(path, json + "\n").map_err(|e| at(&e))
}

/// What Linux answers to inputs of `BPF_PROG_TEST_RUN`, right and wrong ones.
fn record_test_runs(linux: &Linux, facts: &KernelFacts) -> Result<(), String> {
    let folder = crate::fixtures::fixtures_dir();
    let object = object(&folder.join("test_run.bpf.o"), "test_run")?;
    let mut cases: Vec<Case> = Vec::new();
    for program in PROGRAMS {
        for nth in 0..test_runs::RECORDED {
            let mut case = test_runs::case(program, nth);
            case.answer = test_run_case(linux, facts, &object, &case)?;
            cases.push(case);
        }
    }
    let lines: Result<Vec<_>, _> = cases.iter().map(serde_json::to_string).collect();
    let lines = lines.map_err(|e| e.to_string())?;
    println!("test_run: {} cases", cases.len());
    let path = folder.join("test_run.cases.json");
    std::fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n")))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// What Linux answers to the first random sequences of asynchronous calls.
fn record_sequences(linux: &Linux) -> Result<(), String> {
    let folder = crate::fixtures::fixtures_dir();
    let object = std::fs::read(folder.join("async_ops.bpf.o"));
    let object = object.map_err(|e| format!("async_ops.bpf.o: {e}"))?;
    let mut recorded: Recorded = Vec::new();
    for kind in Kind::ALL {
        let outcomes = LinuxMachine::run_all(linux, &object, kind, RECORDED)?;
        println!("async_sequences {kind:?}: {} sequences", outcomes.len());
        recorded.push((kind, outcomes));
    }
    let mut json = serde_json::to_string(&recorded).map_err(|e| e.to_string())?;
    // A sequence a line.
    json = json.replace("]}],[{", "]}],\n[{");
    json.push('\n');
    let path = folder.join("async_sequences.json");
    std::fs::write(&path, json).map_err(|e| format!("{}: {e}", path.display()))
}

fn with_end(end: &str) -> Result<Vec<PathBuf>, String> {
    let mut folders = vec![crate::fixtures::fixtures_dir()];
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        let listing =
            std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in listing.filter_map(|entry| Some(entry.ok()?.path())) {
            match path.is_dir() {
                true => folders.push(path),
                false => paths.push(path),
            }
        }
    }
    paths.retain(|path| path.to_string_lossy().ends_with(end));
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".linux.json").to_string()
}

fn record(
    linux: &Linux,
    facts: &KernelFacts,
    path: &Path,
    stem: &str,
    runs: u32,
) -> Result<(), String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let json = std::fs::read_to_string(path).map_err(|e| at(&e))?;
    let old = Recording::parse(&json).map_err(|e| at(&e))?;
    let object = object(&path.with_file_name(format!("{stem}.bpf.o")), stem)?;

    let mut new = old.clone();
    new.kernel = linux
        .release()
        .split('-')
        .next()
        .unwrap_or_default()
        .to_string();
    let settle = Duration::from_millis(old.settle_ms);
    for (name, program) in &mut new.programs {
        let (data_in, before) = (program.data_in.take(), program.before.take());
        *program = RecordedProgram {
            data_in,
            before,
            runs: 0,
            outcomes: Vec::new(),
        };
        for _ in 0..runs {
            let seen = observe(linux, facts, &object, name, program, &old.maps, settle);
            program.add(seen.map_err(|e| at(&e))?);
        }
        println!(
            "{stem} {name}: {} outcomes in {runs} runs",
            program.outcomes.len()
        );
    }
    std::fs::write(path, new.to_json()).map_err(|e| at(&e))
}

fn object(path: &Path, name: &str) -> Result<Object, String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| at(&e))?;
    let options = LoadOptions {
        name: name.to_string(),
        ..LoadOptions::default()
    };
    load_with(&bytes, &options).map_err(|e| at(&e))
}
