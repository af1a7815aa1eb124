//! What Linux left in the fixtures' maps, beside what bpfsim leaves there in the usual order.

use bpfsim::{Ebpf, ProgramInput, Sim, millis};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Every program of an object whose answers were recorded: where Linux was seen to give several,
/// the usual order is the one that it gave most often.
fn compare(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let object = fs::read(dir.join(format!("{name}.bpf.o"))).unwrap();
    let record = fs::read_to_string(dir.join(format!("{name}.linux.json"))).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let settle = millis(record["settle_ms"].as_u64().unwrap());
    let mut wrong = Vec::new();
    for (program, answer) in record["programs"].as_object().unwrap() {
        let outcomes = answer["outcomes"].as_array().unwrap();
        let usual = outcomes.iter().max_by_key(|o| o["times"].as_u64()).unwrap();
        let input = match answer["data_in"].as_str() {
            Some(hex) => ProgramInput::packet(&unhex(hex)),
            None => ProgramInput::empty(),
        };
        let sim = Sim::new().unwrap();
        let mut bpf = Ebpf::load(&sim, &object).unwrap();
        let out = bpf.program_mut(program).unwrap().test_run(input).unwrap();
        sim.run_for(settle).unwrap();
        if u64::from(out.return_value) != usual["return_value"].as_u64().unwrap() {
            wrong.push(format!("{program}: returns {}, not {}", out.return_value, usual["return_value"]));
        }
        for (map, want) in usual["maps"].as_object().unwrap() {
            let got = bpf.map(map).unwrap().entries().unwrap();
            let mut got: Vec<_> = got.iter().map(|(k, v)| (hex(k), hex(v))).collect();
            let mut want: Vec<(String, String)> = serde_json::from_value(want.clone()).unwrap();
            got.sort();
            want.sort();
            if got != want {
                wrong.push(format!("{program}: map {map}\n   is {got:?}\n  not {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "unlike Linux:\n{}", wrong.join("\n"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

#[test]
fn three_kinds() {
    compare("three_kinds");
}

#[test]
fn async_basic() {
    compare("async_basic");
}

#[test]
fn counter_race() {
    compare("counter_race");
}
