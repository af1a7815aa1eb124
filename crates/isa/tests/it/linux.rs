//! What Linux 6.18 said of instructions, and what the decoder says.

use std::borrow::Cow;

use bpfsim_isa::{LinuxNames, decode, linux_insn};

use crate::common::{hex, none_wrong, rows};

/// Rows of bytes and text: the line with which Linux refused the form of an instruction,
/// or `-` where it accepted the form, whatever it said of the rest.
#[test]
fn decode_refuses_what_linux_refuses_and_says_the_same() {
    let rows = rows(include_str!("../data/linux-6.18-forms.tsv"));
    let mut wrong = Vec::new();
    for (slots, linux) in &rows {
        let ours = decode(slots, 0).map_or_else(|error| error.to_string(), |_| "-".into());
        if ours != *linux {
            wrong.push(format!("{}: Linux {linux:?}, decode {ours:?}", hex(slots)));
        }
    }
    none_wrong(rows.len(), &wrong);
}

/// Rows of bytes and the line that Linux's verifier printed for them, well-formed or not.
#[test]
fn prints_instructions_as_the_verifier_does() {
    let rows = rows(include_str!("../data/linux-6.18-log.tsv"));
    let mut wrong = Vec::new();
    for (slots, linux) in &rows {
        let ours = linux_insn(slots, 0, &HelpersOf(linux)).unwrap().to_string();
        if ours != *linux {
            wrong.push(format!("{}: Linux {linux:?}, we {ours:?}", hex(slots)));
        }
    }
    none_wrong(rows.len(), &wrong);
}

/// Knows the name of the helper that a line names.
struct HelpersOf<'a>(&'a str);

impl LinuxNames for HelpersOf<'_> {
    fn helper(&self, _: i32) -> Option<Cow<'_, str>> {
        let (_, call) = self.0.split_once("call bpf_")?;
        Some(format!("bpf_{}", call.split_once('#')?.0).into())
    }
}
