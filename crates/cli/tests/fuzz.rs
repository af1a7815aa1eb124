//! `bpfsim explore --fuzz`, and what it writes.

use std::path::Path;
use std::process::{Command, Output};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");

fn bpfsim(command: &str, more: &[&str]) -> Output {
    let (object, scenario) = ["bpf.o", "scenario.toml"]
        .map(|e| format!("{FIXTURES}/fuzzed.{e}"))
        .into();
    let mut args = vec![command, &object, "--scenario", &scenario];
    args.extend(more);
    Command::new(env!("CARGO_BIN_EXE_bpfsim"))
        .args(args)
        .output()
        .unwrap()
}

fn files(folder: &Path, kind: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path());
    let files = files.map(|f| f.display().to_string());
    files.filter(|f| f.contains(kind)).collect()
}

#[test]
fn an_input_and_an_order_are_found_kept_and_seen_again() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().to_str().unwrap();
    let fuzz = |seed: &str, n: &str| {
        let more = [
            "--fuzz",
            "--corpus",
            corpus,
            "--seed",
            seed,
            "--executions",
            n,
            "--json",
        ];
        let out = bpfsim("explore", &more);
        let text = String::from_utf8(out.stdout).unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        (out.status.code(), told)
    };
    let (code, told) = fuzz("1", "60000");
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(told["failure"]["kind"], "expectation");
    assert_eq!(told["failure"]["preemptions"], 1);
    let failed = files(folder.path(), "failed-");
    assert_eq!(failed.len(), 1);
    assert!(
        told["failure"]["command"]
            .as_str()
            .unwrap()
            .ends_with(&format!("--case {}", failed[0]))
    );
    let again = bpfsim("run", &["--case", &failed[0]]);
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains("returned 1"), "{text}");
    // What was kept passes, and is where the next search begins.
    for case in files(folder.path(), "case-") {
        let out = bpfsim("run", &["--case", &case]);
        assert_eq!(out.status.code(), Some(0), "{case}");
    }
    let (code, next) = fuzz("2", "60000");
    assert_eq!(code, Some(1));
    assert!(
        next["executions"].as_u64() < told["executions"].as_u64(),
        "{next} {told}"
    );
    // No input, no order: the file is wrong.
    let wrong = format!("{FIXTURES}/build.toml");
    let out = bpfsim("run", &["--case", &wrong]);
    assert_eq!(out.status.code(), Some(2));
}
