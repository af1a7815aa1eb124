//! What `sk_msg` programs do to the data of their messages. `BPF_PROG_TEST_RUN` does not run them on
//! Linux: these are our own expectations.

use bpfsim::{Ebpf, ProgramInput, ProgramOutput, Result, Sim, ensure_eq};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/messages.bpf.o");

const PULL: u32 = 1;
const PUSH: u32 = 2;
const POP: u32 = 3;
const APPLY: u32 = 4;
const CORK: u32 = 5;
const EINVAL: i64 = -22;

/// Answer, size, length of what is seen, its first byte.
type Saw = (i64, u32, u32, u32);

/// Runs edits (what, start, length or end) on a message of bytes 0 to 99.
fn edit(steps: &[(u32, u32, u32)]) -> Result<(Vec<Saw>, ProgramOutput)> {
    let sim = Sim::new()?;
    let mut bpf = Ebpf::load(&sim, OBJECT)?;
    let words = steps.iter().flat_map(|s| [s.0, s.1, s.2, 0]);
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.resize(24 * 16, 0);
    bpf.set_global_bytes("steps", &bytes)?;
    let message: Vec<u8> = (0..100).collect();
    let out = bpf
        .program_mut("edit")?
        .test_run(ProgramInput::packet(&message))?;
    let saws = bpf.global_bytes("saws")?;
    let saws = saws.chunks(24).take(steps.len()).map(|s| {
        let word = |at: usize| u32::from_le_bytes(s[at..at + 4].try_into().unwrap());
        let answer = i64::from_le_bytes(s[..8].try_into().unwrap());
        (answer, word(8), word(12), word(16))
    });
    Ok((saws.collect(), out))
}

#[test]
fn a_program_sees_what_it_pulls() -> Result<()> {
    let steps = [
        (PULL, 10, 20),
        (PULL, 20, 20),
        (PULL, 0, 101),
        (PULL, 100, 101),
        (PULL, 0, 100),
    ];
    let (saws, out) = edit(&steps)?;
    let want = [
        (0, 100, 10, 10),
        // What is refused changes nothing.
        (EINVAL, 100, 10, 10 | 0x80),
        (EINVAL, 100, 10, 10 | 0x80),
        (EINVAL, 100, 10, 10 | 0x80),
        (0, 100, 100, 0),
    ];
    ensure_eq!(saws, want);
    ensure_eq!(
        (out.data_out[0], out.data_out[10], out.data_out[11]),
        (0x80, 0x8a, 11)
    );
    Ok(())
}

#[test]
fn what_is_pushed_is_an_element_of_its_own() -> Result<()> {
    let steps = [
        (PUSH, 4, 8),
        (PULL, 4, 12),
        (PULL, 2, 20),
        (PUSH, 0, 3),
        (PUSH, 111, 1),
        (PUSH, 113, 1),
        (PUSH, 1, 0),
    ];
    let (saws, out) = edit(&steps)?;
    let want = [
        (0, 108, 4, 0),
        (0, 108, 8, 0),
        (0, 108, 18, 2),
        (0, 111, 3, 0),
        (0, 112, 3, 0x80),
        (EINVAL, 112, 3, 0x80),
        (0, 112, 3, 0x80),
    ];
    ensure_eq!(saws, want);
    ensure_eq!(out.data_out.len(), 112);
    // The three in front, four, the eight, the rest, the one at the end.
    ensure_eq!(out.data_out[3..9], [0x80, 1, 0x82, 3, 0x80, 0]);
    ensure_eq!(out.data_out[15..17], [4, 5]);
    ensure_eq!(out.data_out[110..], [99, 0]);
    Ok(())
}

#[test]
fn what_is_popped_is_gone_from_all_elements() -> Result<()> {
    let steps = [
        (POP, 10, 5),
        (POP, 4, 20),
        (POP, 0, 4),
        (POP, 0, 72),
        (POP, 70, 1),
        (POP, 0, 0),
        (POP, 71, 1),
    ];
    let (saws, out) = edit(&steps)?;
    let want = [
        (0, 95, 10, 0),
        (0, 75, 4, 0x80),
        (0, 71, 71, 29),
        (EINVAL, 71, 71, 29 | 0x80),
        (0, 70, 70, 29 | 0x80),
        (0, 70, 70, 29 | 0x80),
        (EINVAL, 70, 70, 29 | 0x80),
    ];
    ensure_eq!(saws, want);
    ensure_eq!(out.data_out.len(), 70);
    ensure_eq!((out.data_out[0], out.data_out[69]), (29 | 0x80, 98));
    Ok(())
}

#[test]
fn a_message_has_at_most_17_elements() -> Result<()> {
    // Each of these splits an element in three until there is no room: then one grows.
    let mut steps: Vec<_> = (0..10).map(|i| (PUSH, 5 + 8 * i, 2)).collect();
    steps.push((PULL, 0, 120));
    let (saws, out) = edit(&steps)?;
    ensure_eq!(saws.iter().all(|saw| saw.0 == 0), true);
    ensure_eq!((saws[9].1, saws[9].2, saws[10].2), (120, 5, 120));
    ensure_eq!(out.data_out.len(), 120);
    Ok(())
}

#[test]
fn how_many_bytes_a_verdict_is_for_and_waits_for_is_told() -> Result<()> {
    let (saws, out) = edit(&[(APPLY, 30, 0), (CORK, 4096, 0)])?;
    ensure_eq!(saws, [(0, 100, 100, 0), (0, 100, 100, 0x80)]);
    ensure_eq!((out.apply_bytes, out.cork_bytes), (30, 4096));
    Ok(())
}
