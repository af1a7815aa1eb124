//! What Linux left in the fixtures' maps, beside what bpfsim leaves there in the usual order.

use bpfsim::{Ebpf, ProgramInput, ProgramOutput, Sim, millis};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Every program of an object whose answers were recorded. Where Linux was seen to give several,
/// since its scheduler had several orders to choose from, the usual order gives one of them.
fn compare(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let object = fs::read(dir.join(format!("{name}.bpf.o"))).unwrap();
    let record = fs::read_to_string(dir.join(format!("{name}.linux.json"))).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let settle = millis(record["settle_ms"].as_u64().unwrap());
    let mut wrong = Vec::new();
    for (program, answer) in record["programs"].as_object().unwrap() {
        let input = match answer["data_in"].as_str() {
            Some(hex) => ProgramInput::packet(&unhex(hex)),
            None => ProgramInput::empty(),
        };
        let sim = Sim::new().unwrap();
        let mut bpf = Ebpf::load(&sim, &object).unwrap();
        if let Some(before) = answer["before"].as_str() {
            let mut before = bpf.program_mut(before).unwrap();
            before.test_run(ProgramInput::empty()).unwrap();
        }
        let out = bpf.program_mut(program).unwrap().test_run(input).unwrap();
        sim.run_for(settle).unwrap();
        let outcomes = answer["outcomes"].as_array().unwrap();
        let differences: Vec<_> = outcomes.iter().map(|o| difference(o, &out, &bpf)).collect();
        if differences.iter().all(|d| d.is_some()) {
            wrong.push(format!("{program}: {}", differences[0].as_deref().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "unlike Linux:\n{}", wrong.join("\n"));
}

/// How what bpfsim left differs from one of Linux's outcomes, if it does.
fn difference(outcome: &Value, out: &ProgramOutput, bpf: &Ebpf) -> Option<String> {
    let returned = out.return_value;
    if outcome["return_value"] != returned {
        return Some(format!(
            "returns {returned}, not {}",
            outcome["return_value"]
        ));
    }
    let data = outcome["data_out"].as_str().unwrap_or("");
    if !data.is_empty() && data != hex(&out.data_out) {
        return Some(format!(
            "packet: {}",
            first_word("it", &hex(&out.data_out), data)
        ));
    }
    outcome["maps"]
        .as_object()
        .unwrap()
        .iter()
        .find_map(|(map, want)| {
            let got = bpf.map(map).unwrap().entries().unwrap();
            let mut got: Vec<_> = got.iter().map(|(k, v)| (hex(k), hex(v))).collect();
            let mut want: Vec<(String, String)> = serde_json::from_value(want.clone()).unwrap();
            got.sort();
            want.sort();
            let at = got.iter().zip(&want).find(|(got, want)| got != want);
            let at = at.map(|((_, got), (key, want))| first_word(key, got, want));
            (got != want).then(|| format!("map {map}: {}", at.unwrap_or("other keys".into())))
        })
}

/// The first word in which two values differ.
fn first_word(key: &str, got: &str, want: &str) -> String {
    let words = got.as_bytes().chunks(16).zip(want.as_bytes().chunks(16));
    let Some((i, (got, want))) = words.enumerate().find(|(_, (x, y))| x != y) else {
        return format!("{} bytes of {key}, not {}", got.len() / 2, want.len() / 2);
    };
    let text = |word| std::str::from_utf8(word).unwrap();
    format!(
        "at {:#x} of {key}: {}, not {}",
        i * 8,
        text(got),
        text(want)
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
        .collect()
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

#[test]
fn map_helpers() {
    compare("map_helpers");
}

/// The same sources through every compiler and cpu version.
#[test]
fn compiler_matrix() {
    let matrix = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/matrix");
    let mut compared = 0;
    for entry in fs::read_dir(&matrix).unwrap() {
        let folder = entry.unwrap().file_name().into_string().unwrap();
        for stem in [
            "alu", "globals", "jumps", "maps", "packet", "plain", "subprogs",
        ] {
            let record = format!("{folder}/{stem}.linux.json");
            if matrix.join(record).exists() {
                compare(&format!("matrix/{folder}/{stem}"));
                compared += 1;
            }
        }
    }
    assert!(compared >= 90, "only {compared} recordings");
}

#[test]
fn objects() {
    compare("objects");
}

#[test]
fn dynptrs() {
    compare("dynptrs");
}

#[test]
fn kfuncs() {
    compare("kfuncs");
}

#[test]
fn texts() {
    compare("texts");
}

#[test]
fn arenas() {
    compare("arenas");
    compare("gone");
}

#[test]
fn packets() {
    compare("packets");
}

#[test]
fn btf_texts() {
    compare("btf_texts");
}

#[test]
fn tunnels() {
    compare("tunnels");
}

#[test]
fn lwt() {
    compare("lwt");
}

#[test]
fn crypto() {
    compare("crypto");
}

#[test]
fn conntrack() {
    compare("conntrack");
}
