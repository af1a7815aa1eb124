//! Whether control stays within subprograms: Linux's `check_subprogs`, and what
//! `check_cfg` says of the insides of two-slot instructions.

use crate::insn::{Insn, uapi::*};

/// A program whose jumps or ends Linux refuses; the text is its verifier's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JumpError {
    /// A jump that leaves its subprogram.
    #[error("jump out of range from insn {from} to {to}")]
    OutOfRange {
        /// Slot of the jump.
        from: usize,
        /// Slot that it goes to, in Linux's 32-bit arithmetic.
        to: i32,
    },
    /// A subprogram that runs into the next one, or past the end.
    #[error("last insn is not an exit or jmp")]
    LastInsn {
        /// Slot of the last instruction.
        at: usize,
    },
    /// A jump to the second slot of a 64-bit load.
    #[error("jump into the middle of ldimm64 insn {to}")]
    IntoLdImm64 {
        /// Slot of the jump.
        from: usize,
        /// First slot of the load.
        to: usize,
    },
}

/// Checks that the jumps of `slots` stay within their subprograms and that each of these
/// ends in `exit` or a jump. `starts` are the subprograms' first slots but for the main
/// program's, ascending. Linux does this before it looks at opcodes, and so does this.
///
/// # Errors
/// The first slot that breaks a rule, in Linux's order; jumps into the middle of
/// instructions, which Linux finds later, after those.
pub fn check_jumps(slots: &[Insn], starts: &[usize]) -> Result<(), JumpError> {
    let ends = starts.iter().copied().chain([slots.len()]);
    let mut start = 0;
    for end in ends {
        let Some(subprog) = slots.get(start..end) else {
            continue;
        };
        for (at, slot) in (start..).zip(subprog) {
            if let Some(to) = target(*slot, at)
                && !usize::try_from(to).is_ok_and(|to| (start..end).contains(&to))
            {
                return Err(JumpError::OutOfRange { from: at, to });
            }
        }
        let last = subprog.last().map_or(0, |slot| slot.code);
        if !matches!(last, 0x05 | 0x06 | 0x95) {
            return Err(JumpError::LastInsn {
                at: end.saturating_sub(1),
            });
        }
        start = end;
    }
    into_the_middle(slots)
}

/// Where Linux takes the slot to jump to, whatever its other fields hold.
fn target(slot: Insn, at: usize) -> Option<i32> {
    let is_jump = matches!(slot.class(), BPF_JMP | BPF_JMP32)
        && !matches!(slot.code & 0xf0, BPF_EXIT | BPF_CALL);
    let distance = match slot.code {
        0x06 => slot.imm,
        _ => slot.off.into(),
    };
    // Linux counts in ints, which wrap.
    is_jump.then_some((at as i32).wrapping_add(distance).wrapping_add(1))
}

fn into_the_middle(slots: &[Insn]) -> Result<(), JumpError> {
    let mut is_second = vec![false; slots.len()];
    let mut at = 0;
    while let Some(slot) = slots.get(at) {
        at += slot.len_in_slots();
        if slot.is_ld_imm64()
            && let Some(second) = is_second.get_mut(at - 1)
        {
            *second = true;
        }
    }
    for (from, slot) in slots.iter().enumerate().filter(|(at, _)| !is_second[*at]) {
        let to = target(*slot, from).and_then(|to| usize::try_from(to).ok());
        if let Some(to) = to.filter(|to| is_second.get(*to) == Some(&true)) {
            return Err(JumpError::IntoLdImm64 { from, to: to - 1 });
        }
    }
    Ok(())
}
