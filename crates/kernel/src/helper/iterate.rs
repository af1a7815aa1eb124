//! Helpers that call back into the program: `bpf_loop`, `bpf_for_each_map_elem`.
//!
//! Each is a state machine: it asks the engine to run the callback, and goes on with what that
//! returned. What it has done so far stays in [`Cur::iterations`](crate::state::Cur), innermost
//! last, since callbacks may iterate themselves.

use super::{Arg, Args, ret};
use crate::ids::MapId;
use crate::map::Place;
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
    /// `bpf_for_each_map_elem`: the map, and the element whose callback was begun last.
    Elements { map: MapId, at: Option<Place> },
    /// `bpf_rbtree_add`: the tree, the node to add, and the one that it is compared with; the
    /// callback says whether it is less.
    Tree { root: u64, node: u64, at: u64 },
}

/// Asks for the innermost iteration's next callback, if there is one to come.
fn next(st: &mut State, mem: &mut GuestMem) -> Option<Flow> {
    let depth = st.cur.iterations.len() as u64;
    // Callbacks of arrays are given a copy of the index, where nothing else lies.
    let copy = st.cur.scratch + 8 * depth;
    let cpu = st.cur.cpu;
    let iteration = st.cur.iterations.last_mut()?;
    let done = iteration.done;
    let ctx = iteration.ctx;
    let args = match &mut iteration.over {
        Over::Count(n) => (done < *n).then_some([done, ctx, 0, 0, 0])?,
        Over::Elements { map, at } => {
            let m = &st.maps[map.at()];
            let place = m.after(mem, cpu, *at)?;
            *at = Some(place);
            if place.key.is_none() {
                mem.write_u64(copy, place.index as u64)?;
            }
            [m.addr, place.key.unwrap_or(copy), place.value, ctx, 0]
        }
        Over::Tree { node, at, .. } => (*at != 0).then_some([*node, *at, 0, 0, 0])?,
    };
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
    if let Some(Over::Tree { root, node, at }) = st.cur.iterations.last_mut().map(|i| &mut i.over) {
        let (root, node, parent, right) = (*root, *node, *at, r0 == 0);
        *at = st.objects.graph.child(root, parent, right);
        return next(st, mem).unwrap_or_else(|| {
            st.objects.graph.insert(root, node, parent, right);
            st.cur.iterations.pop();
            Flow::Done(0)
        });
    }
    let flow = if r0 == 0 { next(st, mem) } else { None };
    flow.unwrap_or_else(|| end(st))
}

/// `bpf_rbtree_add`, with the function that argument 3 is.
pub(crate) fn begin_rb_add(st: &mut State, mem: &mut GuestMem, a: &Args, node: u64) -> Arg<Flow> {
    let entry = entry(st, a, 3)?;
    let root = a.r[0];
    let at = st.objects.graph.root(root);
    if at == 0 {
        st.objects.graph.insert(root, node, 0, false);
        return Ok(Flow::Done(0));
    }
    let over = Over::Tree { root, node, at };
    let iteration = Iteration {
        entry,
        ctx: 0,
        done: 0,
        over,
    };
    Ok(begin(st, mem, iteration))
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
    let over = Over::Elements { map, at: None };
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
