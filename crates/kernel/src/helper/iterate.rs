//! Helpers that call back into the program: `bpf_loop`, `bpf_for_each_map_elem`.
//!
//! Each is a state machine: it asks the engine to run the callback, and goes on with what that
//! returned. What it has done so far stays in [`Cur::iterations`](crate::state::Cur), innermost
//! last, since callbacks may iterate themselves.

use super::{Arg, Args, ret};
use crate::prog::code_of;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// Most iterations of `bpf_loop` (`BPF_MAX_LOOPS`).
const MAX_LOOPS: u64 = 8 << 20;

/// A helper in the middle of its callbacks.
#[derive(Debug, Clone)]
pub(crate) struct Iteration {
    entry: u32,
    ctx: u64,
    /// Callbacks begun.
    done: u64,
    over: Over,
}

#[derive(Debug, Clone)]
enum Over {
    /// `bpf_loop`: how often.
    Count(u64),
    /// `bpf_for_each_map_elem`: the map's address, and the addresses of each element's key (of an
    /// array none) and value.
    Elements {
        map: u64,
        elements: Vec<(Option<u64>, u64)>,
    },
}

/// Asks for the innermost iteration's next callback, if there is one to come.
fn next(st: &mut State, mem: &mut GuestMem) -> Option<Flow> {
    let depth = st.cur.iterations.len() as u64;
    // Callbacks of arrays are given a copy of the index, where nothing else lies.
    let copy = st.cur.scratch + 8 * depth;
    let iteration = st.cur.iterations.last_mut()?;
    let at = iteration.done;
    let ctx = iteration.ctx;
    let args = match &iteration.over {
        Over::Count(n) => (at < *n).then_some([at, ctx, 0, 0, 0]),
        Over::Elements { map, elements } => elements
            .get(at as usize)
            .map(|&(key, value)| [*map, key.unwrap_or(copy), value, ctx, 0]),
    }?;
    if args[1] == copy {
        mem.write_u64(copy, at)?;
    }
    iteration.done += 1;
    Some(Flow::CallBpf {
        entry: iteration.entry,
        args,
    })
}

fn begin(st: &mut State, mem: &mut GuestMem, iteration: Iteration) -> Flow {
    st.cur.iterations.push(iteration);
    next(st, mem).unwrap_or_else(|| end(st))
}

fn end(st: &mut State) -> Flow {
    let ended = st.cur.iterations.pop();
    Flow::Done(ended.map_or(0, |i| i.done))
}

/// A callback returned: 0 goes on, anything else ends the iteration.
pub(crate) fn resume(st: &mut State, mem: &mut GuestMem, r0: u64) -> Flow {
    let flow = if r0 == 0 { next(st, mem) } else { None };
    flow.unwrap_or_else(|| end(st))
}

fn entry(st: &State, a: &Args, n: u8) -> Arg<u32> {
    match code_of(a.r[n as usize - 1]).filter(|(prog, _)| *prog == st.cur.prog) {
        Some((_, entry)) => Ok(entry),
        None => a.bad(n),
    }
}

/// `bpf_loop`
pub(super) fn bpf_loop(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let entry = entry(st, a, 2)?;
    let count = a.r[0] as u32 as u64;
    if a.r[3] != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    if count > MAX_LOOPS {
        return Ok(Flow::Done(ret(Err(Errno::E2BIG))));
    }
    Ok(begin(
        st,
        mem,
        Iteration {
            entry,
            ctx: a.r[2],
            done: 0,
            over: Over::Count(count),
        },
    ))
}

/// `bpf_for_each_map_elem`
pub(super) fn for_each_map_elem(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let entry = entry(st, a, 2)?;
    if a.r[3] != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    let m = &st.maps[map.at()];
    let elements = m
        .values()
        .into_iter()
        .map(|value| (m.key_addr(value), value))
        .collect();
    let over = Over::Elements {
        map: m.addr,
        elements,
    };
    Ok(begin(
        st,
        mem,
        Iteration {
            entry,
            ctx: a.r[2],
            done: 0,
            over,
        },
    ))
}
