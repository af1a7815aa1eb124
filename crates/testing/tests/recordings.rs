//! What is recorded beside the fixtures is what the running kernel does, where there is one to ask.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::time::Duration;

use bpfsim_loader::{LoadOptions, load_with};
use bpfsim_testing::linux::loads::{self, Loads, ObjectLoad};
use bpfsim_testing::linux::object::KernelFacts;
use bpfsim_testing::linux::observe::observe;
use bpfsim_testing::linux::{or_skip, skip_loudly, stay_on_cpu};
use bpfsim_testing::recording::Recording;

/// Every recording below `fixtures/`, by the object that it is of.
fn recorded() -> Vec<(PathBuf, Recording)> {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(stem) = path.to_str().unwrap().strip_suffix(".linux.json") {
                let json = std::fs::read_to_string(&path).unwrap();
                let recording = Recording::parse(&json).unwrap_or_else(|e| panic!("{stem}: {e}"));
                found.push((PathBuf::from(format!("{stem}.bpf.o")), recording));
            }
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
    assert!(
        all.iter()
            .any(|(object, _)| object.ends_with("three_kinds.bpf.o"))
    );
    let test = "linux_still_answers_as_recorded";
    let Some(linux) = or_skip(test) else {
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
    for (path, recording) in all {
        let stem = path.display();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.trim_end_matches(".bpf.o").to_string();
        let options = LoadOptions {
            name,
            ..LoadOptions::default()
        };
        let object = load_with(&std::fs::read(&path).unwrap(), &options).unwrap();
        let settle = Duration::from_millis(recording.settle_ms);
        for (name, program) in &recording.programs {
            // A busy machine can turn what is usual into something else, but not every time.
            let mut last = String::new();
            let held = (0..TRIES).any(|_| {
                match observe(
                    &linux,
                    &facts,
                    &object,
                    name,
                    program,
                    &recording.maps,
                    settle,
                ) {
                    Ok(seen) if program.allows(&seen) => true,
                    Ok(seen) => {
                        last = format!("{stem} {name}: {seen:?}");
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

/// Folders whose `loads.json` says which programs Linux takes.
const LOADS: [&str; 2] = ["zoo", "zoo/fixed"];

#[test]
fn linux_takes_the_bug_zoo() {
    let linux = or_skip("linux_takes_the_bug_zoo").filter(|l| l.is_series("6.18"));
    let asked = linux.map(|l| (KernelFacts::of_this_machine(&l).unwrap(), l));
    for folder in LOADS {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures")
            .join(folder);
        let json = std::fs::read_to_string(folder.join("loads.json")).unwrap();
        let recorded: Loads = serde_json::from_str(&json).unwrap();
        let objects = loads::objects(&folder).unwrap();
        assert!(objects.len() >= 12);
        assert!(
            recorded.objects.keys().eq(objects.keys()),
            "cargo xtask record loads.json"
        );
        for (name, bytes) in objects {
            let row = &recorded.objects[&name];
            assert_eq!(
                row.hash,
                loads::hash(&bytes),
                "{name}: cargo xtask record loads.json"
            );
            let all = bpfsim_loader::load(&bytes)
                .unwrap()
                .programs
                .into_iter()
                .map(|p| p.name);
            assert_eq!(row.accepted, all.collect::<Vec<_>>(), "{name}");
            if let Some((facts, linux)) = &asked {
                let now = ObjectLoad::ask(linux, facts, &bytes).unwrap();
                assert_eq!(now, *row, "{name}");
            }
        }
    }
}
