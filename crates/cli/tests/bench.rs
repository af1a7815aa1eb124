//! `bpfsim bench`: a row for each program and engine, and a reason where there is none.
#![allow(clippy::print_stderr)] // the reader of the tests is to be told

use serde_json::Value;
use std::process::Command;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn bench(args: &[&str]) -> (Vec<Value>, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_bpfsim"))
        .current_dir(DIR)
        .args(["bench", "fixtures/counter_race.bpf.o", "--ms", "2"])
        .args(["--json", "--against", "linux"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let rows = text.lines().map(|l| serde_json::from_str(l).unwrap());
    (rows.collect(), out.status.code().unwrap())
}

#[test]
fn every_engine_has_its_row() {
    let (rows, status) = bench(&["--prog", "inc", "--prog", "inc_tc"]);
    assert_eq!((rows.len(), status), (6, 0));
    for (program, rows) in ["inc", "inc_tc"].iter().zip(rows.chunks(3)) {
        for (engine, row) in ["interpreter", "checked", "linux"].iter().zip(rows) {
            assert_eq!(
                (&row["program"], &row["engine"]),
                (&(*program).into(), &(*engine).into())
            );
            if *engine == "linux" && row.get("error").is_some() {
                eprintln!("SKIPPED: {}", row["error"]);
                continue;
            }
            assert_eq!(row["return_value"], 0, "{row}");
            assert_eq!(row["insns"], rows[0]["insns"]);
            assert_eq!(row["with_syscall"], *program == "inc");
            assert!(
                row["ns_per_run"].as_f64().is_some_and(|ns| ns > 0.0),
                "{row}"
            );
        }
    }
}

#[test]
fn what_cannot_be_run_is_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0; 3]).unwrap();
    let data = file.path().display().to_string();
    let (rows, status) = bench(&["--prog", "inc_tc", "--data-in", &data]);
    assert_eq!(status, 2);
    assert!(rows.iter().all(|row| row["error"].is_string()), "{rows:?}");
    let (rows, status) = bench(&["--prog", "ink"]);
    assert_eq!((rows.len(), status), (0, 2));
}
