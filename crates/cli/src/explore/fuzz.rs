//! `bpfsim explore --fuzz`: orders and inputs, led by coverage.

use super::{Args, bar, count};
use crate::scenario::Scenario;
use crate::{Outcome, Stop, show};
use bpfsim::fuzz::{Case, Fuzzed, parse_case};
use bpfsim::{EbpfLoader, Runner};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Where failing cases are written without `--corpus`.
const FOLDER: &str = "bpfsim-fuzz";

pub fn run(
    args: &Args,
    runner: &Runner,
    object: &Path,
    path: &Path,
    (bytes, loader): (&[u8], &EbpfLoader),
) -> Result<Outcome, Stop> {
    let mut own = Scenario::read(path).map_err(Stop::unusable)?;
    let first = Case {
        inputs: own.inputs().map_err(Stop::unusable)?,
        ..Case::default()
    };
    // Executions beside each other have inputs of their own.
    let free = parking_lot::Mutex::new(Vec::new());
    let inputs = first.inputs.len();
    let mut seeds = vec![first];
    if let Some(folder) = &args.corpus {
        seeds.extend(
            read(folder)?
                .into_iter()
                .filter(|c| c.inputs.len() == inputs),
        );
    }
    let bar = bar(args.json);
    let fuzzed = runner.fuzz(
        seeds,
        |sim, inputs| {
            let spare = free.lock().pop();
            let mut scenario = spare.unwrap_or_else(|| own.clone());
            scenario.set_inputs(inputs);
            let result = scenario.explore(sim, bytes, loader);
            free.lock().push(scenario);
            result
        },
        &mut |at| {
            bar.set_position(at.executions);
            bar.set_message(format!("{} cases, {} features", at.cases, at.features));
        },
    );
    bar.finish_and_clear();
    if let Some((found, _)) = fuzzed
        .failure
        .as_ref()
        .filter(|(f, _)| f.failed.kind == "scenario")
    {
        return Err(Stop::unusable(&found.failed));
    }
    if let Some(folder) = &args.corpus {
        for case in &fuzzed.cases {
            write(folder, "case", &fuzzed.case_text(case))?;
        }
    }
    let kept = match fuzzed.failure_text() {
        Some(text) => {
            let folder = args.corpus.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
            Some(write(&folder, "failed", &text)?)
        }
        None => None,
    };
    let command = kept
        .as_ref()
        .map(|file| format!("{} --case {}", args.again(object, path), file.display()));
    tell(args, &fuzzed, command);
    Ok(match fuzzed.failure {
        Some(_) => Outcome::Failed,
        None => Outcome::Fine,
    })
}

fn tell(args: &Args, fuzzed: &Fuzzed, command: Option<String>) {
    let failure = fuzzed.failure.as_ref();
    if args.json {
        let failure = failure.map(|(found, _)| {
            json!({
                "kind": found.failed.kind, "message": found.failed.message,
                "execution": found.execution, "preemptions": found.preemptions,
                "steps": found.steps, "command": command,
            })
        });
        return show::json(&json!({
            "event": "fuzzed", "executions": fuzzed.executions, "cases": fuzzed.cases.len(),
            "features": fuzzed.features, "failure": failure,
        }));
    }
    show::line(&format!(
        "{}, {}, {}: a sample of the orders and inputs",
        count(fuzzed.executions, "execution"),
        count(fuzzed.cases.len() as u64, "case"),
        count(fuzzed.features as u64, "feature"),
    ));
    if let (Some((found, _)), Some(command)) = (failure, command) {
        show::heading(&format!("FAILED: {}", found.failed.message));
        show::line(&format!(
            "  {}: execution {}, made small to {} of {} steps",
            found.failed.kind,
            found.execution,
            count(found.preemptions, "preemption"),
            found.steps
        ));
        show::line(&format!("  again, with a timeline: {command}"));
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Stop {
    move |e| Stop::unusable(format!("{}: {e}", path.display()))
}

/// The cases of a folder, by name; what is none is passed over.
fn read(folder: &Path) -> Result<Vec<Case>, Stop> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        files.push(entry.map_err(at(folder))?.path());
    }
    files.sort();
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let cases = texts.filter_map(|text| parse_case(&text));
    let cases = cases.map(|(replay, inputs)| Case {
        order: replay.schedule.unwrap_or_default(),
        inputs,
    });
    Ok(cases.collect())
}

/// Writes a case to a file whose name is its hash.
fn write(folder: &Path, kind: &str, text: &str) -> Result<PathBuf, Stop> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let hash = text.bytes().fold(1, |h, b| bpfsim::mix(h, b.into()));
    let file = folder.join(format!("{kind}-{hash:016x}.txt"));
    fs::write(&file, text).map_err(at(&file))?;
    Ok(file)
}

/// Reads one case, for `bpfsim run --case`.
pub fn case(file: &Path) -> Result<(bpfsim::ReplayString, Vec<Vec<u8>>), Stop> {
    let text = fs::read_to_string(file).map_err(at(file))?;
    let case = parse_case(&text);
    case.ok_or_else(|| Stop::unusable(format!("{}: no case of --fuzz", file.display())))
}
