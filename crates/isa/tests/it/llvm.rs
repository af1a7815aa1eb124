//! What llvm-objdump 22 prints of instructions, and what we print and assemble.

use crate::common::{hex, none_wrong, rows};
use bpfsim_isa::{CallKind, Imm64, Insn, Op, Style, assemble, decode};

const OBJDUMP: &str = include_str!("../data/llvm-objdump-22.tsv");
const NO_ALU32: &str = include_str!("../data/llvm-objdump-22-no-alu32.tsv");

#[test]
fn disassembles_as_llvm_does() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    let no_alu32 = Style {
        alu32: false,
        exact: false,
    };
    for (table, style) in [(OBJDUMP, Style::OBJDUMP), (NO_ALU32, no_alu32)] {
        for (slots, llvm) in rows(table) {
            let ours = decode(&slots, 0).map(|(op, _)| op.display(style).to_string());
            let seen = ours.as_deref().unwrap_or("<unknown>");
            if seen != llvm {
                wrong.push(format!("{}: LLVM {llvm:?}, we {seen:?}", hex(&slots)));
            }
            checked += 1;
        }
    }
    none_wrong(checked, &wrong);
}

#[test]
fn assembles_what_llvm_prints() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (slots, llvm) in rows(OBJDUMP).into_iter().chain(rows(NO_ALU32)) {
        let ours = assemble(llvm);
        if ours.as_deref() != Ok(&slots[..]) && !llvm_leaves_out(&slots) {
            wrong.push(format!(
                "{llvm:?} of {}: {:?}",
                hex(&slots),
                ours.map(|o| hex(&o))
            ));
        }
        checked += 1;
    }
    none_wrong(checked, &wrong);
}

/// Whether these slots hold something that LLVM's text does not say.
fn llvm_leaves_out(slots: &[Insn]) -> bool {
    match decode(slots, 0) {
        Ok((Op::Call(CallKind::Helper(id)), _)) => id < 0,
        Ok((Op::Call(_), _)) => true,
        Ok((Op::LdInd { imm, .. }, _)) => imm != 0,
        Ok((Op::LdImm64 { kind, .. }, _)) => match kind {
            Imm64::Plain(_) | Imm64::MapFd(_) | Imm64::MapIdx(_) => false,
            Imm64::MapValue { off, .. } | Imm64::MapIdxValue { off, .. } => off != 0,
            Imm64::BtfId { btf_fd: hi, .. } | Imm64::Func { hi, .. } => hi != 0,
        },
        Ok((Op::Exit, _)) => slots[0].off != 0,
        _ => false,
    }
}
