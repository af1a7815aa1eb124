//! Accesses that are no plain load or store of guest memory: atomics, packets, and what the host is asked for.
//!
//! What is seldom asked of the host is asked out of line: its functions' addresses would be looked
//! up whenever a run begins, which the short ones feel.

use super::Around;
use crate::code::{FETCH, SIGNED, atomic_op};
use crate::mem::{GuestMem, Refused};
use crate::op::Op;
use bpfsim_isa::AtomicOp;

#[inline(never)]
pub(super) fn load_packet(
    around: &mut Around<'_, '_>,
    offset: i32,
    size: u32,
    mem: &GuestMem,
) -> Option<u64> {
    around.host.load_packet(offset, size, mem)
}

#[inline(never)]
pub(super) fn arena_user_start(around: &Around<'_, '_>) -> u64 {
    around.host.arena_user_start()
}

#[cold]
#[inline(never)]
pub(super) fn translate(
    around: &mut Around<'_, '_>,
    mem: &mut GuestMem,
    addr: u64,
    size: usize,
    write: bool,
) -> Option<u64> {
    around.host.translate(addr, size as u32, write, mem)
}

/// A load from what `to` says is behind `addr`, or from a window.
#[cold]
#[inline(never)]
pub(super) fn load_window(
    around: &mut Around<'_, '_>,
    mem: &GuestMem,
    addr: u64,
    size: usize,
    to: Option<u64>,
) -> Option<u64> {
    match to {
        Some(to) => mem.slice(to, size as u64).map(|from| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(from);
            u64::from_le_bytes(wide)
        }),
        None => around.host.load(addr, size as u32, mem),
    }
}

/// As [`load_window`], 0 where there is nothing. `what` is the op's [`Code::t`](crate::Code::t).
#[cold]
#[inline(never)]
pub(super) fn probe(
    around: &mut Around<'_, '_>,
    mem: &GuestMem,
    addr: u64,
    what: u8,
    to: Option<u64>,
) -> u64 {
    let size = usize::from(what & !SIGNED);
    let value = load_window(around, mem, addr, size, to).unwrap_or(0);
    match what {
        SIGNED.. => {
            let unused = 64 - 8 * size as u32;
            ((value << unused) as i64 >> unused) as u64
        }
        _ => value,
    }
}

/// As [`load_window`], for a store.
#[cold]
#[inline(never)]
pub(super) fn store_window(
    around: &mut Around<'_, '_>,
    mem: &mut GuestMem,
    addr: u64,
    size: usize,
    value: u64,
    to: Option<u64>,
) -> Option<()> {
    match to {
        Some(to) => {
            let from = &value.to_le_bytes()[..size];
            mem.slice_mut(to, size as u64)
                .map(|to| to.copy_from_slice(from))
        }
        None => around.host.store(addr, size as u32, value, mem),
    }
}

#[inline(never)]
pub(super) fn atomic(
    mem: &mut GuestMem,
    r: &mut [u64; 16],
    o: &Op,
    addr: u64,
    size: u32,
) -> Result<(), Refused> {
    let off = mem.offset(addr).ok_or(Refused::Outside)?;
    let old = match size {
        4 => u32::from_le_bytes(mem.get(off)) as u64,
        _ => u64::from_le_bytes(mem.get(off)),
    };
    let new = atomic_result(r, o, size, old);
    let done = match size {
        4 => mem.put(off, (new as u32).to_le_bytes()),
        _ => mem.put(off, new.to_le_bytes()),
    };
    if !done {
        return Err(Refused::Full);
    }
    atomic_fetches(r, o, old);
    Ok(())
}

/// As [`load_window`], for an atomic.
#[cold]
#[inline(never)]
pub(super) fn atomic_window(
    around: &mut Around<'_, '_>,
    mem: &mut GuestMem,
    r: &mut [u64; 16],
    o: &Op,
    addr: u64,
    size: u32,
) -> Result<(), Refused> {
    let found = around.host.load_atomic(addr, size, mem);
    if let Some(old) = found.ok_or(Refused::Outside)? {
        let new = atomic_result(r, o, size, old);
        let stored = around.host.store(addr, size, new, mem);
        stored.ok_or(Refused::Outside)?;
        atomic_fetches(r, o, old);
    }
    Ok(())
}

/// What an atomic stores where it finds `old`.
fn atomic_result(r: &[u64; 16], o: &Op, size: u32, old: u64) -> u64 {
    let cut = |v: u64| if size == 4 { v as u32 as u64 } else { v };
    let src = r[o.s as usize];
    match atomic_op(o.imm as u8) {
        AtomicOp::Add => old.wrapping_add(src),
        AtomicOp::Or => old | src,
        AtomicOp::And => old & src,
        AtomicOp::Xor => old ^ src,
        AtomicOp::Xchg => src,
        AtomicOp::CmpXchg if old == cut(r[0]) => src,
        AtomicOp::CmpXchg => old,
    }
}

/// Gives what an atomic found to the register that wants it.
fn atomic_fetches(r: &mut [u64; 16], o: &Op, old: u64) {
    match atomic_op(o.imm as u8) {
        AtomicOp::CmpXchg => r[0] = old,
        _ if o.imm as u8 & FETCH != 0 => r[o.s as usize] = old,
        _ => {}
    }
}
