//! What the tests share: tables of bytes and text.

use bpfsim_isa::Insn;

/// Rows of a table in tests/data: slots, from hexadecimal, and a text.
pub fn rows(table: &str) -> Vec<(Vec<Insn>, &str)> {
    let rows = table.lines().map(|row| {
        let (bytes, text) = row.split_once('\t').expect("two columns");
        (
            Insn::slots_from_le_bytes(&unhex(bytes)).expect("whole slots"),
            text,
        )
    });
    rows.collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
        .collect()
}

pub fn hex(slots: &[Insn]) -> String {
    slots
        .iter()
        .flat_map(|s| s.to_le_bytes())
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Fails with the first few of `wrong`, if any.
pub fn none_wrong(checked: usize, wrong: &[String]) {
    assert!(checked > 100, "only {checked} rows");
    let shown = wrong[..wrong.len().min(30)].join("\n");
    assert!(
        wrong.is_empty(),
        "{} of {checked} wrong:\n{shown}",
        wrong.len()
    );
}
