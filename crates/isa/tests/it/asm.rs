//! What the assembler accepts beyond what the disassembler writes, and what it refuses.

use bpfsim_isa::{assemble, to_assembly};

/// Text, and what it disassembles to. All of the left column but kinds of calls, second
/// immediates of `ld_pseudo` and offsets behind `skb[r1]` was assembled by llvm-mc 22 to the same bytes.
const ACCEPTED: &[(&str, &str)] = &[
    ("r1=5", "r1 = 0x5"),
    ("R1 = 5; W2 = 6", "r1 = 0x5\nw2 = 0x6"),
    ("r1 = 0xffffffff", "r1 = -0x1"),
    ("r1 = -2147483648", "r1 = -0x80000000"),
    ("r1 = 0b11 + 1", "r1 = 0x4"),
    ("r1 = 010", "r1 = 0x8"),
    ("r1 = 'a'", "r1 = 0x61"),
    ("r1 = 2 * 3 - 1", "r1 = 0x5"),
    ("r1 = - r1", "r1 = -r1"),
    ("r1 >> = 5", "r1 >>= 0x5"),
    ("r1  s >>= 5", "r1 s>>= 0x5"),
    ("r1 = *(u32*)(r2+4)", "w1 = *(u32 *)(r2 + 0x4)"),
    ("r1 = * (u32 *) (r2 - 4 + 8)", "w1 = *(u32 *)(r2 + 0x4)"),
    ("w1 = *(u8 *)(r2 +0)", "w1 = *(u8 *)(r2 + 0x0)"),
    ("*(u32 *)(r1 + 0) = r2", "*(u32 *)(r1 + 0x0) = w2"),
    (
        "lock *(u32 *)(r1 + 0) += r2",
        "lock *(u32 *)(r1 + 0x0) += w2",
    ),
    ("r1 = 0xffffffffffffffff ll", "r1 = -0x1 ll"),
    (
        "r1 = 5 ll # one\nr2 = 6 // two\nr3 = /* 3 */ 7",
        "r1 = 0x5 ll\nr2 = 0x6\nr3 = 0x7",
    ),
    ("r1 = '#' # a comment\nexit", "r1 = 0x23\nexit"),
    ("goto 3", "goto +0x3"),
    ("if r1 ==5 goto+1", "if r1 == 0x5 goto +0x1"),
    (
        "if r1 & 5 goto out; r1 = 1 ll; out: exit",
        "if r1 & 0x5 goto +0x2\nr1 = 0x1 ll\nexit",
    ),
    (
        "again: r1 += 1\nif r1 < 9 goto again",
        "r1 += 0x1\nif r1 < 0x9 goto -0x2",
    ),
    ("1: goto 1b\ngoto 1f\n1: exit", "goto -0x1\ngoto +0x0\nexit"),
    ("l: gotol l", "gotol -0x1"),
    ("may_goto l; l: exit", "may_goto +0x0\nexit"),
    ("call f; exit\nf: exit", "call pc+0x1\nexit\nexit"),
    (
        "call helper 5; call pc-1; call kfunc 7, 1",
        "call 0x5\ncall pc-0x1\ncall kfunc 0x7, 0x1",
    ),
    ("goto +0x1 <f+0x60>", "goto +0x1"),
    (".text\n.globl f\n.type f,@function\nf:\n exit", "exit"),
    (
        ".8byte 0x95, 0xffffffffffffffff",
        "exit\n.8byte 0xffffffffffffffff",
    ),
    ("", ""),
];

#[test]
fn accepts() {
    for (text, meaning) in ACCEPTED {
        let slots = assemble(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(to_assembly(&slots).trim_end(), *meaning, "{text:?}");
    }
}

/// Text and the error.
const REFUSED: &[(&str, &str)] = &[
    ("nop", "1:1: no instruction is written so"),
    ("exit\n  r1 += w2", "2:9: no instruction is written so"),
    ("r11 = 5", "1:1: no instruction is written so"),
    ("r01 = 5", "1:1: no instruction is written so"),
    ("r1 = -r2", "1:7: no instruction is written so"),
    ("r1 = be16 r2", "1:11: no instruction is written so"),
    (
        "w1 = *(u64 *)(r2 + 4)",
        "1:22: no instruction is written so",
    ),
    (
        "w1 = (s32)w2",
        "1:1: Movsx { w: W32, bits: 32, dst: R1, src: R2 } has no encoding",
    ),
    ("r1 = *(u32 *)(r2)", "1:17: no instruction is written so"),
    ("r1 = *(u32 *)(r2 + 0x8000)", "1:18: number out of range"),
    ("r1 = 0x1ffffffff", "1:6: number out of range"),
    ("r1 = 0x1ffffffffffffffff ll", "1:6: number out of range"),
    ("goto 40000", "1:6: number out of range"),
    ("goto nowhere", "1:6: symbol `nowhere` is not defined here"),
    (
        "exit; 1: exit; goto 1f",
        "1:21: symbol `1f` is not defined here",
    ),
    ("r1 = map ll", "1:6: symbol `map` is not defined here"),
    ("a: exit\na: exit", "2:1: label `a` is defined twice"),
    (
        ".section x\nexit",
        "1:1: directive `.section` is not supported",
    ),
    ("exit /* for ever", "1:6: comment is not closed"),
    ("ld_pseudo r1, 0, 5", "1:15: number out of range"),
    ("ld_pseudo r1, 1, 0x100000000", "1:15: number out of range"),
    (
        "r1 = addr_space_cast(r2, 5, 7)",
        "1:1: AddrSpaceCast { dst: R1, src: R2, dst_as: 5, src_as: 7 } has no encoding",
    ),
];

#[test]
fn refuses_and_says_where() {
    for (text, error) in REFUSED {
        let found = assemble(text).map_or_else(|e| e.to_string(), |slots| to_assembly(&slots));
        assert_eq!(found, *error, "{text:?}");
    }
}

#[test]
fn hostile_text_ends_soon() {
    let deep = format!("r1 = {}1", "(".repeat(100_000));
    assert!(assemble(&deep).is_err());
    let signs = format!("r1 = {}1", "-".repeat(100_000));
    assert!(assemble(&signs).is_err());
    let long = format!("r1 = 1{}", " + 1".repeat(100_000));
    assert_eq!(
        to_assembly(&assemble(&long).unwrap()).trim_end(),
        "r1 = 0x186a1"
    );
    let many = "x: exit;".repeat(2) + &"l".repeat(1_000_000);
    assert!(assemble(&many).is_err());
    let far = format!("goto l\n{}l: exit", "exit\n".repeat(40_000));
    assert_eq!(
        assemble(&far).unwrap_err().to_string(),
        "1:6: number out of range"
    );
}
