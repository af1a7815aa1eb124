//! What `bpfsim verify` prints.

use std::path::Path;
use std::process::{Command, Output};

const OBJECT: &str = "fixtures/verdicts.bpf.o";

fn bpfsim(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfsim"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    command.current_dir(root).arg("verify").args(args);
    command.output().unwrap()
}

/// Standard output, and the exit status; times, which differ, are hidden.
fn said(args: &[&str]) -> String {
    let out = bpfsim(args);
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().map(|line| {
        let line = match line.rfind("\"duration_us\":") {
            Some(at) => {
                let end = line[at..].find(',').unwrap();
                format!("{}\"duration_us\":0{}", &line[..at], &line[at + end..])
            }
            None => line.to_owned(),
        };
        match line.strip_suffix(" us") {
            Some(line) => format!(
                "{} T us",
                line.trim_end_matches(|c: char| c.is_ascii_digit())
                    .trim_end()
            ),
            None => match line.ends_with("  time") {
                true => line.trim_end_matches("time").trim_end().to_owned() + " time",
                false => line,
            },
        }
    });
    let lines: Vec<String> = lines.collect();
    format!(
        "{}\nexit status {}",
        lines.join("\n"),
        out.status.code().unwrap()
    )
}

#[test]
fn for_people() {
    insta::assert_snapshot!(said(&[OBJECT]));
}

#[test]
fn for_programs() {
    insta::assert_snapshot!(said(&[OBJECT, "--json"]));
}

#[test]
fn the_log_has_c_lines() {
    insta::assert_snapshot!(said(&[OBJECT, "--prog", "forgets_null", "--log"]));
}

#[test]
fn a_matrix_of_kernels() {
    insta::assert_snapshot!(said(&[OBJECT, "--kernel", "5.15,6.1,6.18"]));
    insta::assert_snapshot!(said(&[
        OBJECT, "--kernel", "5.15", "--prog", "loops", "--json"
    ]));
}

/// Why each kernel does not take a program: of every kind of reason one.
#[test]
fn a_matrix_of_kernels_over_many_programs() {
    insta::assert_snapshot!(said(&[
        OBJECT,
        "fixtures/three_kinds.bpf.o",
        "fixtures/dynptrs.bpf.o",
        "fixtures/arenas.bpf.o",
        "fixtures/task_reads.bpf.o",
        "fixtures/matrix/clang-22-v4/alu.bpf.o",
        "fixtures/matrix/clang-22-v4/struct_ops.bpf.o",
        "--kernel",
        "5.15,6.1,6.6,6.12,6.18",
    ]));
}

/// A kernel with types of its own: members elsewhere, functions that it lacks.
#[test]
fn a_kernels_own_types() {
    insta::assert_snapshot!(said(&[
        OBJECT,
        "fixtures/matrix/clang-22-v3/core.bpf.o",
        "--kernel",
        "5.15,6.1",
        "--btf",
        "5.15=fixtures/kernels/small-5.15.btf",
    ]));
    let bad = ["--kernel", "5.15", "--btf", "5.15=fixtures/build.toml"];
    let out = bpfsim(&[&[OBJECT], &bad[..]].concat());
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("fixtures/build.toml: "), "{said}");
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let coloured = |args: &[&str]| bpfsim(args).stdout.contains(&0x1b);
    assert!(!coloured(&[OBJECT]));
    assert!(coloured(&[OBJECT, "--color", "always"]));
    assert!(!coloured(&[OBJECT, "--color", "never"]));
}

#[test]
fn exit_status_says_what_is_wrong() {
    let status = |args: &[&str]| bpfsim(args).status.code();
    assert_eq!(status(&[OBJECT, "--prog", "counts"]), Some(0));
    assert_eq!(status(&[OBJECT]), Some(1));
    assert_eq!(status(&[OBJECT, "--prog", "wants_other"]), Some(2));
    assert_eq!(status(&[OBJECT, "--prog", "nobody"]), Some(2));
    assert_eq!(status(&["Cargo.toml"]), Some(2));
    assert_eq!(status(&[OBJECT, "--kernel", "4.4"]), Some(2));
    assert_eq!(
        status(&[OBJECT, "--kernel", "6.1", "--btf", "5.15=x"]),
        Some(2)
    );
}
