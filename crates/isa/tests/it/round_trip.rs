//! Any instruction, through bytes and text and back.

use bpfsim_isa::{
    Insn, Op, Style, any_insn, any_op, assemble, decode, decode_any, disassemble, encode,
    to_assembly,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn an_op_survives_bytes_and_text(op in any_op(), alu32: bool) {
        let slots = encode(&op).unwrap();
        prop_assert_eq!(decode_any(&slots, 0).unwrap(), (op, slots.len()));
        match op {
            Op::CallX { .. } => {
                prop_assert_eq!(decode(&slots, 0).unwrap_err().to_string(), "unknown opcode 8d");
            }
            _ => prop_assert_eq!(decode(&slots, 0).unwrap(), (op, slots.len())),
        }
        prop_assert_eq!(slots.len(), op.len_in_slots());

        let text = op.display(Style { alu32, exact: true }).to_string();
        prop_assert_eq!(text.parse::<Op>(), Ok(op), "{}", &text);
        prop_assert_eq!(assemble(&text), Ok(slots.to_vec()), "{}", &text);
        prop_assert!(!op.display(Style::OBJDUMP).to_string().is_empty());
    }

    #[test]
    fn any_slots_survive_text(slots in prop::collection::vec(any_insn(), 0..12)) {
        let text = to_assembly(&slots);
        prop_assert_eq!(assemble(&text), Ok(slots.to_vec()), "{}", &text);
        let lines: usize = disassemble(&slots, Style::OBJDUMP).map(|line| line.len).sum();
        prop_assert_eq!(lines, slots.len());
    }

    #[test]
    fn slots_that_decode_encode_to_themselves(a in any_insn(), b in any_insn()) {
        let slots = [a, b];
        if let Ok((op, len)) = decode(&slots, 0) {
            let mut read = slots;
            // The one field that Linux does not look at.
            if op == Op::Exit { read[0].off = 0 }
            prop_assert_eq!(&encode(&op).unwrap()[..], &read[..len]);
        }
    }

    #[test]
    fn bytes_survive_slots(bytes: [u8; 8]) {
        prop_assert_eq!(Insn::from_le_bytes(bytes).to_le_bytes(), bytes);
    }

    #[test]
    fn no_text_is_too_bad(text in "[rw0-9+*/=<>s&|^() .:;#'\\-a-z\n\"]{0,60}") {
        let _ = assemble(&text);
    }
}
