//! Slots to instructions and back.

use crate::insn::{Insn, uapi::*};
use crate::places::Slots;
use crate::refusal::Refusal;
use crate::table::{Op, ROWS};

/// Why slots are no instruction; the text is what Linux's verifier says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{refusal}")]
pub struct DecodeError {
    /// Index of the slot.
    pub at: usize,
    /// The slot.
    pub insn: Insn,
    /// Which rule refuses it.
    pub refusal: Refusal,
}

/// The operation has no encoding: a field holds what no slot can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} has no encoding")]
pub struct EncodeError(pub Op);

/// The one or two slots of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Encoded {
    slots: [Insn; 2],
    len: u8,
}

impl Encoded {
    /// The first slot.
    pub const fn first(&self) -> Insn {
        self.slots[0]
    }
}

impl std::ops::Deref for Encoded {
    type Target = [Insn];

    fn deref(&self) -> &[Insn] {
        &self.slots[..usize::from(self.len)]
    }
}

/// The instruction at slot `at`, and how many slots it takes (1 or 2).
///
/// Looks at that instruction alone: where its jumps lead, and whether registers and
/// memory may be used so, is for a verifier. Linux does not look at reserved fields of
/// instructions that its verifier never reaches; decode those lazily to agree with it.
///
/// # Errors
/// A code that is none, a non-zero reserved field, a register above r10, an `at` past
/// the end.
pub fn decode(slots: &[Insn], at: usize) -> Result<(Op, usize), DecodeError> {
    match decode_any(slots, at)? {
        (Op::CallX { .. }, _) => {
            let insn = slots[at];
            let refusal = Refusal::UnknownOpcode(insn.code);
            Err(DecodeError { at, insn, refusal })
        }
        known => Ok(known),
    }
}

/// As [`decode`], with what LLVM makes and Linux refuses: `callx`.
///
/// # Errors
/// As of [`decode`].
pub fn decode_any(slots: &[Insn], at: usize) -> Result<(Op, usize), DecodeError> {
    let refuse = |insn, refusal| Err(DecodeError { at, insn, refusal });
    let Some(&first) = slots.get(at) else {
        return refuse(Insn::default(), Refusal::PastEnd);
    };
    let second = at.checked_add(1).and_then(|next| slots.get(next)).copied();
    let here = Slots {
        first,
        second: second.filter(|_| first.is_ld_imm64()),
    };
    match read(&here) {
        Some(op) => Ok((op, here.len())),
        None => refuse(first, Refusal::of(first, second)),
    }
}

/// The slots of `op`.
///
/// # Errors
/// A field that no slot can hold: a short jump further than 15 bits, an exchange that
/// does not fetch, an atomic byte, and such.
pub fn encode(op: &Op) -> Result<Encoded, EncodeError> {
    let slots = op.write();
    if read(&slots) != Some(*op) {
        return Err(EncodeError(*op));
    }
    let second = slots.second.unwrap_or_default();
    Ok(Encoded {
        slots: [slots.first, second],
        len: slots.len() as u8,
    })
}

/// Decodes a whole program: each instruction with the index of its first slot.
///
/// # Errors
/// The first instruction that [`decode`] refuses.
pub fn decode_all(slots: &[Insn]) -> Result<Vec<(usize, Op)>, DecodeError> {
    decode_where(slots, |_| true)
}

/// Decodes the instructions that are asked for; what lies between need not be any.
///
/// # Errors
/// The first of them that [`decode`] refuses.
pub fn decode_where(
    slots: &[Insn],
    wanted: impl Fn(usize) -> bool,
) -> Result<Vec<(usize, Op)>, DecodeError> {
    let mut ops = Vec::with_capacity(slots.len());
    let mut at = 0;
    while at < slots.len() {
        if wanted(at) {
            ops.push((at, decode(slots, at)?.0));
        }
        at += slots[at].len_in_slots();
    }
    Ok(ops)
}

fn read(slots: &Slots) -> Option<Op> {
    ROWS.iter().find_map(|row| (row.read)(slots))
}

impl Slots {
    fn len(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }
}

impl Insn {
    /// Slots that an instruction opened by this slot takes, whether or not it decodes.
    pub const fn len_in_slots(self) -> usize {
        if self.code == BPF_LD | BPF_IMM | BPF_DW {
            2
        } else {
            1
        }
    }
}
