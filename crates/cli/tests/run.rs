//! What `bpfsim run` prints.

use std::process::{Command, Output};

fn bpfsim(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfsim"));
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(args);
    command.output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let out = bpfsim(args);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

const OBJECT: &str = "fixtures/three_kinds.bpf.o";
const SCENARIO: &str = "fixtures/zoo/lost_update.scenario.toml";

#[test]
fn for_people() {
    insta::assert_snapshot!(stdout(&["run", OBJECT]));
}

#[test]
fn for_programs() {
    insta::assert_snapshot!(stdout(&["run", "--json", "--prog", "arm_all_tc", OBJECT]));
}

#[test]
fn a_seed_is_an_order() {
    let hash = |seed: &str| {
        let out = stdout(&["run", "--json", "--seed", seed, OBJECT]);
        let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "end");
        last["trace_hash"].as_str().unwrap().to_string()
    };
    assert_eq!(hash("7"), hash("7"));
    assert_ne!(hash("7"), hash("8"));
    assert_ne!(hash("7"), hash("0"));
}

#[test]
fn exit_status_says_what_is_wrong() {
    for (args, status, text) in [
        (&["run", "Cargo.toml"][..], 2, "Cargo.toml: "),
        (&["run", "no/such/file"], 2, "no/such/file: "),
        (
            &["run", OBJECT, "--prog", "arm_al"],
            2,
            "no program `arm_al`; there is arm_all, arm_all_tc",
        ),
        (&["run", OBJECT, "--for", "3 days"], 2, "--for"),
        (&["walk", OBJECT], 2, "walk"),
        (
            &["run", "fixtures/verdicts.bpf.o"],
            1,
            "program `forgets_null`: -EACCES",
        ),
        // With the explanation.
        (
            &["run", "fixtures/verdicts.bpf.o", "--scenario", SCENARIO],
            1,
            "required: ",
        ),
        (
            &["explore", "fixtures/verdicts.bpf.o", "--scenario", SCENARIO],
            1,
            "required: ",
        ),
        (
            &["cov", "fixtures/verdicts.bpf.o", "--scenario", SCENARIO],
            1,
            "required: ",
        ),
    ] {
        let out = bpfsim(args);
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(status), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    }
}
