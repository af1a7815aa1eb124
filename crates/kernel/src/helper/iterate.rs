//! Helpers that call back into the program: `bpf_loop`, `bpf_for_each_map_elem`.
//!
//! Each is a state machine: it asks the engine to run the callback, and goes on with what that
//! returned. What it has done so far stays in [`Cur::iterations`](crate::state::Cur), innermost
//! last, since callbacks may iterate themselves.

use super::{Arg, Args, ret};
use crate::dynptr::{Dynptr, DynptrKind};
use crate::ids::MapId;
use crate::map::{Peek, Place};
use crate::prog::code_of;
use crate::state::State;
use crate::touch::Touch;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// Most iterations of `bpf_loop` (`BPF_MAX_LOOPS`).
const MAX_LOOPS: u64 = 8 << 20;

/// Where beside the stack the dynamic pointer is that callbacks are given.
const DYNPTR_AT: u64 = 48;

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
    /// `bpf_user_ringbuf_drain`: the ring, and the sample that the callback has, if one was begun;
    /// how many were passed over.
    Samples {
        map: MapId,
        sample: Option<u64>,
        discarded: u64,
    },
    /// `bpf_find_vma`: called once, with these arguments.
    Once([u64; 3]),
}

impl Over {
    /// The map that what comes next depends on, and whether going on changes it.
    fn map(&self) -> Option<(MapId, bool)> {
        match self {
            Over::Elements { map, .. } => Some((*map, false)),
            Over::Samples { map, .. } => Some((*map, true)),
            Over::Count(_) | Over::Tree { .. } | Over::Once(_) => None,
        }
    }
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
        Over::Once(args) => {
            let [task, vma, ctx] = *args;
            (done == 0).then_some([task, vma, ctx, 0, 0])?
        }
        Over::Samples { .. } => return next_sample(st, mem),
        Over::Tree { node, at, .. } => (*at != 0).then_some([*node, *at, 0, 0, 0])?,
    };
    iteration.done += 1;
    Some(Flow::CallBpf {
        entry: iteration.entry,
        args,
    })
}

/// Begins to call the function at `entry`.
fn begin(st: &mut State, mem: &mut GuestMem, entry: u32, ctx: u64, over: Over) -> Flow {
    st.cur.iterations.push(Iteration {
        entry,
        ctx,
        done: 0,
        over,
    });
    next(st, mem).unwrap_or_else(|| end(st, mem))
}

fn end(st: &mut State, mem: &mut GuestMem) -> Flow {
    let Some(ended) = st.cur.iterations.pop() else {
        return Flow::Done(0);
    };
    Flow::Done(match ended.over {
        Over::Once([_, vma, _]) => {
            st.obj_drop(mem, vma);
            0
        }
        Over::Samples {
            map,
            sample,
            discarded,
        } => {
            if let (Some(ring), Some(len)) = (st.maps[map.at()].ringbuf(), sample) {
                ring.release(len);
            }
            ended.done - discarded
        }
        _ => ended.done,
    })
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
    let map = st.cur.iterations.last().and_then(|i| i.over.map());
    if let Some((map, write)) = map {
        let map = st.maps[map.at()].addr;
        st.touch(Touch::Map { map, write });
    }
    let flow = if r0 == 0 { next(st, mem) } else { None };
    flow.unwrap_or_else(|| end(st, mem))
}

/// Most samples that one `bpf_user_ringbuf_drain` takes.
const MAX_SAMPLES: u64 = 128 << 10;

/// The next sample of a user ring buffer, as a dynamic pointer beside the stack.
fn next_sample(st: &mut State, mem: &mut GuestMem) -> Option<Flow> {
    let at = st.cur.scratch + DYNPTR_AT;
    let iteration = st.cur.iterations.last_mut()?;
    let Over::Samples {
        map,
        sample,
        discarded,
    } = &mut iteration.over
    else {
        return None;
    };
    let ring = st.maps[map.at()].ringbuf()?;
    if let Some(len) = sample.take() {
        ring.release(len);
    }
    loop {
        if iteration.done >= MAX_SAMPLES {
            return None;
        }
        match ring.peek(mem) {
            Peek::Empty => return None,
            Peek::Discarded => {
                iteration.done += 1;
                *discarded += 1;
            }
            Peek::Failed(errno) => {
                st.cur.iterations.pop();
                return Some(Flow::Done(ret(Err(errno))));
            }
            Peek::Sample { data, len } => {
                *sample = Some(len);
                iteration.done += 1;
                let d = Dynptr::new(DynptrKind::Local, data, len as u32).ok()?;
                d.put(mem, at)?;
                return Some(Flow::CallBpf {
                    entry: iteration.entry,
                    args: [at, iteration.ctx, 0, 0, 0],
                });
            }
        }
    }
}

/// `bpf_user_ringbuf_drain(map, callback, ctx, flags)`
pub(super) fn user_ringbuf_drain(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP`
    const FLAGS: u64 = 3;
    let map = a.map(st, 1)?;
    let entry = entry(st, a, 2)?;
    if a.r[3] & !FLAGS != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    match st.maps[map.at()].ringbuf() {
        Some(ring) if !ring.drained_by_another() => {}
        Some(_) => return Ok(Flow::Done(ret(Err(Errno::EBUSY)))),
        None => return a.bad(1),
    }
    let over = Over::Samples {
        map,
        sample: None,
        discarded: 0,
    };
    Ok(begin(st, mem, entry, a.r[2], over))
}

/// `bpf_find_vma(task, addr, callback, ctx, flags)`
pub(super) fn find_vma(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let entry = entry(st, a, 3)?;
    let errno = |errno| Ok(Flow::Done(ret(Err(errno))));
    if a.r[4] != 0 {
        return errno(Errno::EINVAL);
    }
    if a.r[0] == 0 {
        return errno(Errno::ENOENT);
    }
    let task = a.task(st, 1)?;
    let task = &st.tasks[task.at()];
    let area = task.user.area_after(a.r[1]);
    let area = area.filter(|(area, _)| task.has_mm() && area.contains(&a.r[1]));
    let Some(area) = area else {
        return errno(Errno::ENOENT);
    };
    let Some(vma) = st.buffer(mem, st.objects.vma.size) else {
        return errno(Errno::ENOMEM);
    };
    st.fill_vma(mem, vma, &area.0, area.1);
    let over = Over::Once([a.r[0], vma, a.r[3]]);
    Ok(begin(st, mem, entry, a.r[3], over))
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
    Ok(begin(st, mem, entry, 0, over))
}

fn entry(st: &State, a: &Args, n: u8) -> Arg<u32> {
    match code_of(&st.progs, a.r[n as usize - 1]).filter(|(prog, _)| *prog == st.cur.prog) {
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
    Ok(begin(st, mem, entry, a.r[2], Over::Count(count)))
}

/// `bpf_for_each_map_elem`
pub(super) fn for_each_map_elem(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let entry = entry(st, a, 2)?;
    if a.r[3] != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    let over = Over::Elements { map, at: None };
    Ok(begin(st, mem, entry, a.r[2], over))
}
