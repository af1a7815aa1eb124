//! `cargo xtask oracle testrun`: what programs of Linux's selftests return here, beside what they
//! returned on Linux.

use bpfsim::{Config, EbpfLoader, Error, ProgramInput, Seed, Sim};
use bpfsim_btf::{Kind, Type};
use bpfsim_loader::{RelocKind, SlotValue};
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
    let address = |row: &&Row| {
        let is =
            |&(file, program): &(&str, &str)| row.program == program && row.file.starts_with(file);
        ADDRESSES.iter().any(is)
    };
    let (addresses, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|r| address(&r));
    println!("{} programs return addresses: left out", addresses.len());
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

/// Programs that return where something was in Linux's memory, which is nobody else's to return.
const ADDRESSES: [(&str, &str); 6] = [
    ("verifier_search_pruning", "state_equality_check_way_1"),
    ("verifier_search_pruning", "state_equality_check_way_2"),
    ("verifier_spill_fill", "check_valid_spill_fill"),
    ("verifier_spill_fill", "check_corrupted_spill_fill_lsb"),
    ("verifier_spill_fill", "check_corrupted_spill_fill_msb"),
    ("verifier_unpriv", "unpriv_return_pointer"),
];

/// Programs that lie in the maps of programs that a program uses: the selftests' runner loads them
/// too.
fn called(object: &[u8], program: &str) -> Vec<String> {
    let Ok(object) = bpfsim_loader::load(object) else {
        return Vec::new();
    };
    let program = object.programs.iter().find(|p| p.name == program);
    let relocs = program.map_or(&[][..], |p| &p.relocs);
    let maps = relocs.iter().filter_map(|r| match r.kind {
        RelocKind::MapFd { map } => object.maps.get(map),
        _ => None,
    });
    maps.flat_map(|map| &map.values)
        .filter_map(|slot| match slot.value {
            SlotValue::Program(p) => Some(object.programs.get(p)?.name.clone()),
            SlotValue::Map(_) => None,
        })
        .collect()
}

/// The file whose types the selftests' runner resolves a program's relocations against
/// (`__btf_path`), where it names one.
fn types(object: &[u8], program: &str) -> Option<String> {
    let object = bpfsim_loader::load(object).ok()?;
    let btf = object.btf?;
    let func = btf.find(program, Kind::Func)?;
    let tags = btf.iter().filter_map(|(_, t)| match t {
        Type::DeclTag { name, ty, .. } if ty == func => Some(name),
        _ => None,
    });
    let mut paths = tags.filter_map(|tag| tag.strip_prefix("comment:test_btf_path="));
    paths.next().map(str::to_string)
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
        // Linux does not mind what checked mode is for, such as a stack that was never written.
        let config = Config {
            checked: false,
            ..Config::default()
        };
        let sim = Sim::with(config, Seed::USUAL)?;
        let mut loader = EbpfLoader::new().only(row.program);
        for name in called(&bytes, row.program) {
            loader = loader.only(&name);
        }
        if let Some(btf) = types(&bytes, row.program)
            .and_then(|file| fs::read(dir.join(file)).ok())
            .and_then(|bytes| bpfsim_loader::load(&bytes).ok()?.btf)
        {
            loader = loader.btf(btf);
        }
        let mut bpf = loader.load(&sim, &bytes)?;
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
