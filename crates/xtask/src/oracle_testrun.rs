//! `cargo xtask oracle testrun`: what programs of Linux's selftests return here, beside what they
//! returned on Linux.

use bpfsim::{EbpfLoader, Error, ProgramInput, Sim};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A row of the record with status ok.
struct Row<'a> {
    file: &'a str,
    program: &'a str,
    returned: i64,
}

/// Takes the folder of the objects and the record (`file,prog,section,expected,kernel_retval,
/// run_err,status,...`).
pub fn main(args: &[String]) -> Result<(), String> {
    let (dir, record) = match args {
        [dir] => (dir, "../shared/oracle/testrun.csv"),
        [dir, record] => (dir, record.as_str()),
        _ => return Err("oracle testrun DIR [RECORD.csv]".into()),
    };
    let record = fs::read_to_string(record).map_err(|e| format!("{record}: {e}"))?;
    let rows: Vec<Row> = record.lines().filter_map(row).collect();
    let mut why: BTreeMap<String, usize> = BTreeMap::new();
    let (mut same, mut same_nonzero, mut nonzero) = (0, 0, 0);
    for row in &rows {
        nonzero += usize::from(row.returned != 0);
        match run(Path::new(dir), row) {
            Ok(got) if i64::from(got as i32) == row.returned || i64::from(got) == row.returned => {
                same += 1;
                same_nonzero += usize::from(row.returned != 0);
            }
            Ok(got) => {
                println!("{} {}: {got}, not {}", row.file, row.program, row.returned);
                *why.entry("another value".into()).or_default() += 1;
            }
            Err(what) => {
                println!("{} {}: {what}", row.file, row.program);
                // Addresses and sizes aside, faults of one kind are one reason.
                let kind = what.split(" of ").next().unwrap_or(&what);
                *why.entry(
                    if what.starts_with("fault") {
                        kind
                    } else {
                        &what
                    }
                    .to_string(),
                )
                .or_default() += 1;
            }
        }
    }
    let mut why: Vec<_> = why.into_iter().collect();
    why.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    println!(
        "\n{same} of {} programs return what Linux returned; of {nonzero} that return nonzero {same_nonzero}",
        rows.len()
    );
    for (what, n) in why {
        println!("{n:5}  {what}");
    }
    Ok(())
}

fn row(line: &str) -> Option<Row<'_>> {
    let fields: Vec<_> = line.split(',').collect();
    let returned = fields.get(4)?.parse().ok()?;
    (*fields.get(6)? == "ok").then_some(Row {
        file: fields[0],
        program: fields[1],
        returned,
    })
}

/// What the selftests' runner puts into some maps first: a bound, and a mark behind it.
fn test_value() -> [u8; 48] {
    let mut value = [0; 48];
    value[..4].copy_from_slice(&28u32.to_le_bytes());
    value[28..32].copy_from_slice(&0xabcd_ef12u32.to_le_bytes());
    value
}

/// Runs one program alone, on 64 zero bytes or without a context.
fn run(dir: &Path, row: &Row) -> Result<u32, String> {
    let bytes = fs::read(dir.join(row.file)).map_err(|e| format!("{}: {e}", row.file))?;
    let run = || -> Result<u32, Error> {
        let sim = Sim::new()?;
        let mut bpf = EbpfLoader::new().only(row.program).load(&sim, &bytes)?;
        for name in ["map_array_48b", "map_array_ro"] {
            if let Ok(map) = bpf.map(name) {
                map.update(&[0; 4], &test_value(), bpfsim::update::ANY)?;
            }
        }
        let mut program = bpf.program_mut(row.program)?;
        let input = match program.takes_packet() {
            true => ProgramInput::packet(&[0; 64]),
            false => ProgramInput::empty(),
        };
        Ok(program.test_run(input)?.return_value)
    };
    run().map_err(|e| {
        let text = e.to_string();
        let short = text
            .split(" (program")
            .next()
            .and_then(|t| t.split(" in ").next());
        short.unwrap_or(&text).to_string()
    })
}
