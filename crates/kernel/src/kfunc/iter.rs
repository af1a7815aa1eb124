//! Open-coded iterators over numbers and bits.

use crate::helper::{Args, ret};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{FaultKind, Flow, GuestMem};

type Done = Result<Flow, FaultKind>;

/// Most iterations (`BPF_MAX_LOOPS`).
const MAX_LOOPS: i64 = 8 << 20;

fn bad<T>(a: &Args, arg: u8) -> Result<T, FaultKind> {
    Err(FaultKind::BadArgument { call: a.call, arg })
}

/// `struct bpf_iter_num_kern`: current and end, 4 bytes each.
fn put(mem: &mut GuestMem, a: &Args, cur: i32, end: i32) -> Result<(), FaultKind> {
    let word = cur as u32 as u64 | (end as u32 as u64) << 32;
    mem.write_u64(a.r[0], word).map_or_else(|| bad(a, 1), Ok)
}

/// `bpf_iter_num_new(it, start, end)`
pub(super) fn num_new(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    let (start, end) = (a.r[1] as i32, a.r[2] as i32);
    let errno = match end as i64 - start as i64 {
        ..0 => Some(Errno::EINVAL),
        n if n > MAX_LOOPS => Some(Errno::E2BIG),
        _ => None,
    };
    match errno {
        Some(errno) => {
            put(mem, a, 0, 0)?;
            Ok(Flow::Done(ret(Err(errno))))
        }
        None => {
            // One before the first; start - 1 may wrap, and next adds 1 as it does so.
            put(mem, a, start.wrapping_sub(1), end)?;
            Ok(Flow::Done(0))
        }
    }
}

/// `bpf_iter_num_next(it)`: where the number is, or NULL.
pub(super) fn num_next(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    let word = mem.read_u64(a.r[0]).map_or_else(|| bad(a, 1), Ok)?;
    let (cur, end) = (word as i32, (word >> 32) as i32);
    let next = cur.wrapping_add(1);
    if next >= end {
        put(mem, a, 0, 0)?;
        return Ok(Flow::Done(0));
    }
    put(mem, a, next, end)?;
    Ok(Flow::Done(a.r[0]))
}

/// `bpf_iter_num_destroy(it)`
pub(super) fn num_destroy(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    put(mem, a, 0, 0)?;
    Ok(Flow::Done(0))
}

/// Most words of bits (`BITS_ITER_NR_WORDS_MAX`).
const MAX_WORDS: u32 = 511;

/// `bpf_iter_bits_new(it, unsafe_ptr__ign, nr_words)`. The iterator keeps a copy of up to one
/// word in itself; of more, where they are, since nobody can free what guest memory holds.
pub(super) fn bits_new(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    let words = a.r[2] as u32;
    let errno = match (a.r[1], words) {
        (0, _) | (_, 0) => Some(Errno::EINVAL),
        (_, n) if n > MAX_WORDS => Some(Errno::E2BIG),
        (from, n) if mem.slice(from, n as u64 * 8).is_none() => Some(Errno::EFAULT),
        _ => None,
    };
    let state = match errno {
        Some(_) => [0, 0],
        None => [a.r[1], words as u64 * 64],
    };
    set_bits(mem, a, state)?;
    Ok(Flow::Done(ret(errno.map_or(Ok(0), Err))))
}

fn set_bits(mem: &mut GuestMem, a: &Args, state: [u64; 2]) -> Result<(), FaultKind> {
    let first = mem.write_u64(a.r[0], state[0]);
    let second = mem.write_u64(a.r[0].wrapping_add(8), state[1]);
    first.and(second).map_or_else(|| bad(a, 1), Ok)
}

/// `bpf_iter_bits_next(it)`: where the number of the next set bit is, or NULL. The number lies in
/// the upper half of the second word; numbers go up to 511 * 64.
pub(super) fn bits_next(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    let from = mem.read_u64(a.r[0]).map_or_else(|| bad(a, 1), Ok)?;
    let second = mem
        .read_u64(a.r[0].wrapping_add(8))
        .map_or_else(|| bad(a, 1), Ok)?;
    let (bits, next) = (second & 0xffff, (second >> 16) & 0xffff);
    let set = (next..bits).find(|&bit| {
        let word = mem.read_u64(from.wrapping_add(bit / 64 * 8));
        word.is_some_and(|w| w >> (bit % 64) & 1 != 0)
    });
    match set {
        Some(bit) => {
            set_bits(mem, a, [from, bits | (bit + 1) << 16 | bit << 32])?;
            Ok(Flow::Done(a.r[0].wrapping_add(12)))
        }
        None => {
            set_bits(mem, a, [from, 0])?;
            Ok(Flow::Done(0))
        }
    }
}

/// `bpf_iter_bits_destroy(it)`
pub(super) fn bits_destroy(_: &mut State, mem: &mut GuestMem, a: &Args) -> Done {
    set_bits(mem, a, [0, 0])?;
    Ok(Flow::Done(0))
}
