//! What Linux 6.18 said of instructions, and what the decoder says.

mod common;

use bpfsim_isa::decode;
use common::{hex, none_wrong, rows};

/// Rows of bytes and text: the line with which Linux refused the form of an instruction,
/// or `-` where it accepted the form, whatever it said of the rest.
#[test]
fn decode_refuses_what_linux_refuses_and_says_the_same() {
    let rows = rows(include_str!("data/linux-6.18-forms.tsv"));
    let mut wrong = Vec::new();
    for (slots, linux) in &rows {
        let ours = decode(slots, 0).map_or_else(|error| error.to_string(), |_| "-".into());
        if ours != *linux {
            wrong.push(format!("{}: Linux {linux:?}, decode {ours:?}", hex(slots)));
        }
    }
    none_wrong(rows.len(), &wrong);
}
