//! What `bpfsim inspect` and `bpfsim disasm` print.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn bpfsim(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpfsim"));
    command.current_dir(root()).args(args);
    command.output().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
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

/// All objects below fixtures/, by path from the root.
fn fixtures() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "o") {
                let path = path.strip_prefix(root()).unwrap();
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root().join("fixtures"), &mut found);
    assert!(found.len() > 100);
    found
}

#[test]
fn inspect_for_people() {
    for name in ["maps", "externs", "struct_ops"] {
        let object = format!("fixtures/matrix/clang-22-v3/{name}.bpf.o");
        insta::assert_snapshot!(format!("inspect_{name}"), stdout(&["inspect", &object]));
    }
}

#[test]
fn inspect_for_programs() {
    let object = "fixtures/matrix/clang-22-v3/globals.bpf.o";
    insta::assert_snapshot!(stdout(&["inspect", "--json", object]));
}

#[test]
fn linked_programs_name_what_they_refer_to() {
    let object = "fixtures/matrix/clang-22-v3/subprogs.bpf.o";
    insta::assert_snapshot!(stdout(&["disasm", "--linked", object]));
}

/// An object, or the reason why it is none: a line of JSON with the same keys, whatever the file.
#[test]
fn every_fixture_is_inspected() {
    let fixtures = fixtures();
    let mut args = vec!["inspect", "--json", "--types"];
    args.extend(fixtures.iter().map(String::as_str));
    let out = bpfsim(&args);
    assert_eq!(
        out.status.code(),
        Some(2),
        "some fixtures are to be refused"
    );
    let mut seen = BTreeSet::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let what = row["what"].as_str().unwrap();
        if what == "object" || what == "error" {
            seen.insert(row["file"].as_str().unwrap().to_owned());
        }
        if what == "error" {
            assert!(
                row["errno"].is_number() && row["message"].is_string(),
                "{line}"
            );
        }
    }
    assert_eq!(seen, fixtures);
}

/// But for lines that start with a semicolon, the output is llvm-objdump's.
#[test]
fn disassembles_every_fixture_as_llvm_does() {
    let mut checked = 0;
    for object in fixtures() {
        let Ok(want) = std::fs::read_to_string(root().join(&object).with_extension("objdump"))
        else {
            continue;
        };
        let out = bpfsim(&["disasm", "--raw", &object]);
        if !out.status.success() {
            let message = String::from_utf8(out.stderr).unwrap();
            assert!(message.contains("big-endian"), "{object}: {message}");
            continue;
        }
        let text = String::from_utf8(out.stdout).unwrap();
        let ours: Vec<_> = text.lines().filter(|line| !line.starts_with(';')).collect();
        let want: Vec<_> = want.lines().collect();
        for (ours, want) in ours.iter().zip(&want) {
            assert_eq!(ours, want, "{object}");
        }
        assert_eq!(ours.len(), want.len(), "{object}");
        checked += 1;
    }
    assert!(checked > 100);
}

/// Each C line stands once before what it became, and JSON has it at its instruction.
#[test]
fn c_lines_stand_before_their_instructions() {
    let object = "fixtures/matrix/clang-22-v3/plain.bpf.o";
    let text = stdout(&["disasm", object]);
    let source = std::fs::read_to_string(root().join("fixtures/matrix/plain.bpf.c")).unwrap();
    let mut count = 0;
    for line in text
        .lines()
        .filter(|line| line.starts_with("; ") && !line.starts_with("; ->"))
    {
        let code = line.splitn(3, ": ").last().unwrap();
        assert!(source.lines().any(|l| l.trim() == code.trim()), "{line}");
        count += 1;
    }
    let rows = stdout(&["disasm", "--json", object]);
    let rows: Vec<serde_json::Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        rows.iter().filter(|row| row["line"].is_object()).count(),
        count
    );
    assert!(
        count > 5
            && rows
                .iter()
                .all(|row| row["text"].is_string() && row["bytes"].is_string())
    );
}

#[test]
fn what_is_no_object_is_said_to_be_none() {
    for command in ["inspect", "disasm"] {
        for (file, why) in [
            ("Cargo.toml", "not an ELF object"),
            ("nowhere.o", "No such file"),
        ] {
            let out = bpfsim(&[command, file]);
            let message = String::from_utf8(out.stderr).unwrap();
            assert!(
                out.status.code() == Some(2) && message.contains(why),
                "{command} {file}: {message}"
            );
        }
    }
    let out = bpfsim(&[
        "disasm",
        "--only",
        "nobody",
        "fixtures/matrix/clang-22-v3/plain.bpf.o",
    ]);
    assert_eq!(out.status.code(), Some(2));
}
