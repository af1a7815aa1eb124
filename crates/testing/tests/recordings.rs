//! What is recorded beside the fixtures is what the running kernel does, where there is one to ask.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::time::Duration;

use bpfsim_loader::{LoadOptions, load_with};
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::{Linux, skip_loudly, stay_on_cpu};
use bpfsim_testing::recording::Recording;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn recorded() -> Vec<(String, Recording)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(stem) = name.strip_suffix(".linux.json") {
            let json = std::fs::read_to_string(fixtures().join(&name)).unwrap();
            let recording = Recording::parse(&json).unwrap_or_else(|e| panic!("{name}: {e}"));
            found.push((stem.to_string(), recording));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Runs before an outcome counts as one that Linux does not have.
const TRIES: usize = 20;

#[test]
fn linux_still_answers_as_recorded() {
    let all = recorded();
    assert!(all.iter().any(|(stem, _)| stem == "three_kinds"));
    let test = "linux_still_answers_as_recorded";
    let Some(linux) = Linux::or_skip(test) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(
            test,
            format!("this kernel is {}, not 6.18", linux.release()),
        );
    }
    let facts = KernelFacts::of_this_machine(&linux).unwrap();
    assert!(stay_on_cpu(0), "CPU 0 is not to be had");
    let mut wrong = Vec::new();
    for (stem, recording) in all {
        let bytes = std::fs::read(fixtures().join(format!("{stem}.bpf.o"))).unwrap();
        let options = LoadOptions {
            name: stem.clone(),
            ..LoadOptions::default()
        };
        let object = load_with(&bytes, &options).unwrap();
        let settle = Duration::from_millis(recording.settle_ms);
        for (name, program) in &recording.programs {
            // A busy machine can turn what is usual into something else, but not every time.
            let mut last = String::new();
            let held = (0..TRIES).any(|_| {
                match linux.observe(&facts, &object, name, program, &recording.maps, settle) {
                    Ok((value, maps)) if program.allows(value, &maps) => true,
                    Ok((value, maps)) => {
                        last = format!("{stem} {name}: {value} {maps:?}");
                        false
                    }
                    Err(e) => {
                        last = format!("{stem} {name}: {e}");
                        false
                    }
                }
            });
            if !held {
                wrong.push(last);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
