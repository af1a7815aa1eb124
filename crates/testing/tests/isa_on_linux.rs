//! Asks the running Linux again what crates/isa/tests/data records of it.

use std::collections::HashSet;

use bpfsim_abi::ProgType;
use bpfsim_isa::{Insn, assemble};
use bpfsim_testing::linux::{Linux, ProgSpec, or_skip};

const FORMS: &str = include_str!("../../isa/tests/data/linux-6.18-forms.tsv");
const LOG: &str = include_str!("../../isa/tests/data/linux-6.18-log.tsv");

/// Every register holds a number but r1 and r10, which point to the stack, and r6, which
/// is the context; eight words of the stack hold numbers. The last jump keeps what is
/// behind the instruction in question reachable.
const BEFORE: &str = "r6 = r1
    r0 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0; r7 = 0; r8 = 0; r9 = 0
    *(u64 *)(r10 - 8) = r0; *(u64 *)(r10 - 16) = r0; *(u64 *)(r10 - 24) = r0
    *(u64 *)(r10 - 32) = r0; *(u64 *)(r10 - 40) = r0; *(u64 *)(r10 - 48) = r0
    *(u64 *)(r10 - 56) = r0; *(u64 *)(r10 - 64) = r0
    r1 = r10; r1 += -32";
/// Room for jumps.
const BEHIND: usize = 80;

/// The verifier's log of a program around these slots, and the slot that they are at.
fn log_of(linux: &Linux, slots: &[Insn]) -> (usize, String) {
    let mut program = assemble(BEFORE).unwrap();
    program.extend(assemble(&format!("if r7 == 1 goto +{}", slots.len())).unwrap());
    let at = program.len();
    program.extend_from_slice(slots);
    program.extend(assemble(&"r0 = 0\n".repeat(BEHIND)).unwrap());
    program.extend(assemble("exit").unwrap());
    let loaded = linux.load(&ProgSpec::new(ProgType::SocketFilter, &program).log());
    (at, loaded.log)
}

fn rows(table: &str) -> impl Iterator<Item = (Vec<Insn>, &str)> {
    table.lines().map(|row| {
        let (hex, text) = row.split_once('\t').expect("two columns");
        let digits = hex
            .as_bytes()
            .chunks(2)
            .map(|d| std::str::from_utf8(d).unwrap());
        let bytes: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
        (
            Insn::slots_from_le_bytes(&bytes).expect("whole slots"),
            text,
        )
    })
}

fn recorded_kernel(test: &str) -> Option<Linux> {
    or_skip(test).filter(|linux| linux.is_series("6.18"))
}

#[test]
fn refuses_the_recorded_forms() {
    let Some(linux) = recorded_kernel("refuses_the_recorded_forms") else {
        return;
    };
    let refusals: HashSet<&str> = rows(FORMS).map(|(_, text)| text).collect();
    for (slots, recorded) in rows(FORMS) {
        let (_, log) = log_of(&linux, &slots);
        let last = log.lines().rfind(|line| !is_count(line)).unwrap_or("");
        match recorded {
            "-" => assert!(!refusals.contains(last), "{slots:?}: {last}"),
            _ => assert_eq!(last, recorded, "{slots:?}"),
        }
    }
}

/// Whether a line counts what the verifier did.
fn is_count(line: &str) -> bool {
    let counts = ["processed ", "stack depth ", "verification time "];
    counts.iter().any(|count| line.starts_with(count))
}

#[test]
fn prints_the_recorded_lines() {
    let Some(linux) = recorded_kernel("prints_the_recorded_lines") else {
        return;
    };
    for (slots, recorded) in rows(LOG) {
        let (at, log) = log_of(&linux, &slots);
        let prefix = format!("{at}: {recorded}");
        // Behind it are spaces and the state, or of some jumps a line's worth of it.
        let found = log.lines().any(|line| {
            line.strip_prefix(&prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        assert!(found, "{slots:?}: {recorded}\n{log}");
    }
}
