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

/// A scheduler is enabled, tasks are woken, and the one that a racy counter loses is found.
#[test]
fn a_task_that_a_scheduler_loses_is_found() {
    let scenario = "fixtures/scx/counted.scenario.toml";
    let (buggy, fixed) = (
        "fixtures/scx/counted.bpf.o",
        "fixtures/scx/fixed/counted.bpf.o",
    );
    let (status, said) = bpfsim(&["run", buggy, "--scenario", scenario]);
    assert_eq!(status, 0, "{said}");
    let explored = |object| bpfsim(&["explore", object, "--scenario", scenario]);
    let (status, said) = explored(buggy);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("scheduler `counted`: runnable task stall: "),
        "{said}"
    );
    let (status, said) = explored(fixed);
    assert_eq!(status, 0, "{said}");
}

/// What is expected of a scheduler, and is not so.
#[test]
fn expectations_of_schedulers_are_held() {
    let text = std::fs::read_to_string(format!("{DIR}/fixtures/scx/counted.scenario.toml"));
    let text = text
        .unwrap()
        .replace("../kernels", &format!("{DIR}/fixtures/kernels"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml").display().to_string();
    let says = |from: &str, to: &str, status: i32, message: &str| {
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let object = "fixtures/scx/fixed/counted.bpf.o";
        let (got, said) = bpfsim(&["run", object, "--scenario", &file]);
        assert_eq!(got, status, "{said}");
        assert!(said.contains(message), "{said}");
    };
    says(
        "running = [\"a\", \"b\"]",
        "running = [\"b\", \"a\"]",
        1,
        "expected [\"b\", \"a\"]",
    );
    says(
        "c = \"asleep\"",
        "c = \"bpf\"",
        1,
        "c is asleep, expected bpf",
    );
    says(
        "at = { c = \"asleep\" }",
        "exit = \"stall\"",
        1,
        "it schedules, expected",
    );
    says(
        "at = { c = \"asleep\" }",
        "queued = { 7 = [] }",
        1,
        "there is no queue 7",
    );
    says("wake = \"a\"", "wake = \"e\"", 2, "no task `e`");
    says(
        "{ wake = \"a\" }",
        "{ wake = \"a\", sleep = 0 }",
        2,
        "sched is one of enable,",
    );
    says("enable = \"counted\"", "enable = \"pids\"", 1, "EINVAL");
    says(
        "enable = \"counted\"",
        "enable = \"counted\", set = { flags = 4096 }",
        1,
        "EINVAL",
    );
    says(
        "{ sleep = 1, beside = true }",
        "{ disable = true }",
        1,
        "ENODEV",
    );
}
