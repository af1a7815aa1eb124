//! Where jumps lead, as Linux 6.18 says it.

use bpfsim_isa::{assemble, check_jumps};

/// Text, starts of subprograms, and what Linux said of the same program.
const CASES: &[(&str, &[usize], &str)] = &[
    ("r0 = 0; exit", &[], ""),
    (
        "r0 = 0; goto +1; exit",
        &[],
        "jump out of range from insn 1 to 3",
    ),
    ("goto -2; exit", &[], "jump out of range from insn 0 to -1"),
    (
        "r0 = 0; if r0 == 0 goto +5; exit",
        &[],
        "jump out of range from insn 1 to 7",
    ),
    (
        "gotol 0x7fffffff; exit",
        &[],
        "jump out of range from insn 0 to -2147483648",
    ),
    (
        "gotol -0x80000000; exit",
        &[],
        "jump out of range from insn 0 to -2147483647",
    ),
    (
        "r0 = 0; may_goto +9; exit",
        &[],
        "jump out of range from insn 1 to 11",
    ),
    // No instruction, but of a jump's class.
    (
        "r0 = 0; .8byte 0x900f5; exit",
        &[],
        "jump out of range from insn 1 to 11",
    ),
    ("exit; r0 = 0", &[], "last insn is not an exit or jmp"),
    (
        "r0 = 0; if r0 == 0 goto -2",
        &[],
        "last insn is not an exit or jmp",
    ),
    ("exit; .8byte 0x18", &[], "last insn is not an exit or jmp"),
    ("r0 = 0; goto -1", &[], ""),
    (
        "r0 = 0; call pc+1; goto +1; r0 = 0; exit",
        &[3],
        "jump out of range from insn 2 to 4",
    ),
    (
        "call pc+1; r0 = 0; r0 = 0; exit",
        &[2],
        "last insn is not an exit or jmp",
    ),
    (
        "r0 = 0; if r0 == 0 goto +1; r0 = 0 ll; exit",
        &[],
        "jump into the middle of ldimm64 insn 2",
    ),
    ("", &[], "last insn is not an exit or jmp"),
];

#[test]
fn jumps_stay_where_linux_wants_them() {
    for (text, starts, linux) in CASES {
        let slots = assemble(text).unwrap();
        let ours = check_jumps(&slots, starts).map_or_else(|e| e.to_string(), |()| String::new());
        assert_eq!(ours, *linux, "{text}");
    }
}

#[test]
fn odd_starts_are_no_reason_to_panic() {
    let slots = assemble("r0 = 0; exit; r0 = 0; exit").unwrap();
    for starts in [&[9, 2][..], &[2, 1], &[usize::MAX], &[0, 0, 0], &[4]] {
        let _ = check_jumps(&slots, starts);
    }
}
