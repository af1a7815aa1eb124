//! The listings that llvm-objdump 22 made of every fixture.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{hex, none_wrong};
use bpfsim_isa::{CallKind, Insn, Op, Style, assemble, decode};

/// One line of a listing: its slots, and its text without what stands in `<>`.
struct Line {
    slots: Vec<Insn>,
    text: String,
}

#[test]
fn listings_of_fixtures_are_ours_and_assemble_to_the_same_bytes() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in listings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")) {
        let listing = fs::read_to_string(&path).unwrap();
        if !listing.contains("file format elf64-bpf\n") || is_big_endian(&path) {
            continue;
        }
        for line in listing.lines().filter_map(parse) {
            checked += 1;
            if let Some(problem) = differs(&line) {
                wrong.push(format!(
                    "{}: {problem}",
                    path.file_name().unwrap().display()
                ));
            }
        }
    }
    none_wrong(checked, &wrong);
}

fn differs(line: &Line) -> Option<String> {
    let (slots, text) = (&line.slots, &line.text);
    let (op, _) = match decode(slots, 0) {
        Ok(decoded) => decoded,
        Err(error) => return Some(format!("{}: {error}", hex(slots))),
    };
    let ours = op.display(Style::OBJDUMP).to_string();
    if ours.split_whitespace().ne(text.split_whitespace()) {
        return Some(format!("{}: LLVM {text:?}, we {ours:?}", hex(slots)));
    }
    let mut back = match assemble(text) {
        Ok(back) => back,
        Err(error) => return Some(format!("{text:?}: {error}")),
    };
    // Of a call, LLVM's text leaves out the kind: it is in the column of bytes alone.
    if let Op::Call(CallKind::Bpf(_) | CallKind::Kfunc { .. }) = op {
        back[0].set_src(slots[0].src());
    }
    (back != *slots).then(|| format!("{text:?}: {}, not {}", hex(&back), hex(slots)))
}

/// `  3:<tab>db 12 00 00 00 00 00 00<tab>lock *(u64 *)(r2 + 0x0) += r1 <f+0x60>`
fn parse(line: &str) -> Option<Line> {
    let mut columns = line.splitn(3, '\t');
    let number = columns.next()?.trim().strip_suffix(':')?;
    number.parse::<u32>().ok()?;
    let bytes = columns
        .next()?
        .split(' ')
        .map(|b| u8::from_str_radix(b, 16).unwrap());
    let slots = Insn::slots_from_le_bytes(&bytes.collect::<Vec<_>>())?;
    let text = columns.next()?;
    let text = text
        .rsplit_once(" <")
        .filter(|(_, b)| b.ends_with('>'))
        .map_or(text, |(a, _)| a);
    Some(Line {
        slots,
        text: text.into(),
    })
}

fn listings(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listings(&path));
        } else if path.extension().is_some_and(|e| e == "objdump") {
            found.push(path);
        }
    }
    found
}

/// LLVM calls both byte orders `elf64-bpf`.
fn is_big_endian(listing: &Path) -> bool {
    const EI_DATA: usize = 5;
    fs::read(listing.with_extension("o")).is_ok_and(|object| object.get(EI_DATA) == Some(&2))
}
