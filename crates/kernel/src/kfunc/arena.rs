//! Pages of arenas.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret};
use crate::map::Arena;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_arena_alloc_pages", true, alloc),
    row("bpf_arena_free_pages", true, free),
    row("bpf_arena_reserve_pages", true, reserve),
];

/// The arena that the first argument is, if it is one.
fn arena<'a>(st: &'a mut State, a: &Args) -> Arg<Option<&'a mut Arena>> {
    let map = a.map(st, 1)?;
    Ok(st.maps[map.at()].arena_mut())
}

/// `bpf_arena_alloc_pages(map, addr, page_cnt, node_id, flags)`
fn alloc(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (addr, count, flags) = (a.r[1], a.r[2] as u32 as u64, a.r[4]);
    let arena = arena(st, a)?.filter(|_| flags == 0);
    let at = arena.map_or(0, |arena| arena.alloc(mem, addr, count));
    Ok(Flow::Done(at))
}

/// `bpf_arena_free_pages(map, ptr, page_cnt)`
fn free(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (addr, count) = (a.r[1], a.r[2] as u32 as u64);
    if let Some(arena) = arena(st, a)?.filter(|_| addr != 0 && count != 0) {
        arena.free(mem, addr, count);
    }
    Ok(Flow::Done(0))
}

/// `bpf_arena_reserve_pages(map, ptr, page_cnt)`
fn reserve(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (addr, count) = (a.r[1], a.r[2] as u32 as u64);
    let result = match arena(st, a)? {
        Some(_) if count == 0 => Ok(0),
        Some(arena) => arena.reserve(addr, count).map(|()| 0),
        None => Err(Errno::EINVAL),
    };
    Ok(Flow::Done(ret(result) as u32 as u64))
}
