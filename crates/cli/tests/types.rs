//! A kernel's own types: programs of schedulers run and are explored by them.

use std::process::Command;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Status and what was said.
fn bpfsim(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfsim"));
    let out = command.args(args).current_dir(DIR).output().unwrap();
    let all = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    (out.status.code().unwrap(), all)
}

const OBJECT: &str = "fixtures/ticks.bpf.o";
const SCENARIO: &str = "fixtures/ticks.scenario.toml";
const TYPES: &str = "fixtures/kernels/sched_ext.btf";

/// Members of a task are where those types have them, both for the program and in the task.
#[test]
fn a_scheduler_runs_by_the_types_that_its_scenario_names() {
    let (status, said) = bpfsim(&["run", OBJECT, "--scenario", SCENARIO]);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("last_pid = 77"), "{said}");
}

/// The types are asked for again where an order is replayed, and are a part of what it is held to.
#[test]
fn an_order_is_found_and_replayed_by_the_types_that_are_given() {
    let text = std::fs::read_to_string(format!("{DIR}/{SCENARIO}")).unwrap();
    let own = "btf = \"kernels/sched_ext.btf\"\n";
    assert!(text.contains(own));
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.toml").display().to_string();
    std::fs::write(&plain, text.replace(own, "")).unwrap();

    let (status, said) = bpfsim(&["run", OBJECT, "--scenario", &plain]);
    assert_ne!(status, 0, "types without sched_ext: {said}");

    let (status, said) = bpfsim(&["explore", OBJECT, "--scenario", &plain, "--btf", TYPES]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("ticks is 2, expected 3"), "{said}");
    let again = said.lines().find_map(|l| l.split_once("bpfsim run "));
    let again: Vec<&str> = again.unwrap().1.split(' ').collect();
    let (status, said) = bpfsim(&[&["run"], &again[..]].concat());
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("ticks is 2, expected 3"), "{said}");

    // Types that say the same in other bytes are others.
    let mut bytes = std::fs::read(format!("{DIR}/{TYPES}")).unwrap();
    let mood = bytes.windows(4).position(|w| w == b"mood").unwrap();
    bytes[mood] = b'f';
    let other = folder.path().join("other.btf").display().to_string();
    std::fs::write(&other, bytes).unwrap();
    let again: Vec<&str> = again
        .iter()
        .map(|&a| if a == TYPES { &other } else { a })
        .collect();
    let (status, said) = bpfsim(&[&["run"], &again[..]].concat());
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("other types of the kernel"), "{said}");
}

#[test]
fn types_that_cannot_be_read_are_said_with_their_file() {
    let not = |args: &[&str], message: &str| {
        let (status, said) = bpfsim(args);
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(message), "{said}");
    };
    not(
        &["run", OBJECT, "--btf", "fixtures/none.btf"],
        "fixtures/none.btf: No such file",
    );
    not(&["run", OBJECT, "--btf", OBJECT], "fixtures/ticks.bpf.o: ");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml").display().to_string();
    std::fs::write(&file, "[config]\nbtf = \"none.btf\"\n").unwrap();
    not(&["run", OBJECT, "--scenario", &file], "s.toml:2: ");
}
