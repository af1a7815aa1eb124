//! Body of the fuzz target for the instruction set.

use bpfsim_isa::{
    Insn, NoNames, Op, Style, assemble, decode_any, disassemble, encode, linux_insn, to_assembly,
};

/// Takes `data` as slots and as assembler text. Panics where a property does not hold:
///
/// - what decodes encodes to the same bytes, and its text to the same instruction;
/// - what a program disassembles to assembles to the same bytes, whatever the bytes;
/// - text that assembles survives the same.
pub fn decode_and_assemble(data: &[u8]) {
    let whole = data.len() - data.len() % Insn::SIZE;
    let slots = Insn::slots_from_le_bytes(&data[..whole]).expect("whole slots");
    for at in 0..slots.len() {
        one(&slots, at);
    }
    program(&slots);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(slots) = assemble(text)
    {
        program(&slots);
    }
}

fn one(slots: &[Insn], at: usize) {
    let shown = linux_insn(slots, at, &NoNames).expect("a slot there is");
    assert!(!shown.to_string().is_empty());
    match decode_any(slots, at) {
        Ok((op, len)) => {
            let mut read = slots[at..at + len].to_vec();
            if op == Op::Exit {
                // The one field that Linux does not look at.
                read[0].off = 0;
            }
            assert_eq!(encode(&op).as_deref(), Ok(&read[..]), "{op:?}");
            assert_eq!(op.to_string().parse(), Ok(op));
            let _ = (op.reads(), op.writes(), op.jump_target(at), op.cpu());
        }
        Err(error) => {
            assert_eq!(error.at, at);
            assert!(!error.to_string().is_empty());
        }
    }
}

fn program(slots: &[Insn]) {
    let text = to_assembly(slots);
    assert_eq!(assemble(&text).as_deref(), Ok(slots), "{text}");
    let lines: usize = disassemble(slots, Style::OBJDUMP)
        .map(|line| line.len)
        .sum();
    assert_eq!(lines, slots.len());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes(data: Vec<u8>) {
            super::decode_and_assemble(&data);
        }

        #[test]
        fn text(data in "([rw][0-9] (=|\\+=|s>>=) -?[0-9]{1,9}|exit|goto \\+1|call -1|[ -~])(\n|;)") {
            super::decode_and_assemble(data.as_bytes());
        }
    }
}
