//! Iterators over cgroups and over the tasks in one.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret};
use crate::ids::{CgroupId, TaskId};
use crate::state::State;
use crate::task::{Task, TaskState};
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_iter_css_new", true, css_new),
    row("bpf_iter_css_next", true, css_next),
    row("bpf_iter_css_destroy", false, |_, _, _| Ok(Flow::Done(0))),
    row("bpf_iter_css_task_new", true, task_new),
    row("bpf_iter_css_task_next", true, task_next),
    row("bpf_iter_css_task_destroy", false, |_, mem, a| {
        let ended = mem.write_u64(a.r[0], 0);
        ended.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(0)))
    }),
    // Only the unified hierarchy is there, which this does not look at.
    row("bpf_task_get_cgroup1", true, |st, _, a| {
        a.task(st, 1)?;
        Ok(Flow::Done(0))
    }),
];

/// `enum bpf_cgroup_iter_order`
const DESCENDANTS_PRE: u32 = 2;
const DESCENDANTS_POST: u32 = 3;
const ANCESTORS_UP: u32 = 4;

/// `CSS_TASK_ITER_PROCS`, `CSS_TASK_ITER_THREADED`
const PROCS: u32 = 1;
const THREADED: u32 = 2;

fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// The cgroup whose `self` is at an address: its first member.
fn css(st: &State, a: &Args, n: u8) -> Arg<CgroupId> {
    let found = st.world.cgroup_at(a.r[n as usize - 1]);
    found.map_or_else(|| a.bad(n), Ok)
}

/// `bpf_iter_css_new(it, start, flags)`: the words are start, where it is, order.
fn css_new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let order = a.r[2] as u32;
    let known = (DESCENDANTS_PRE..=ANCESTORS_UP).contains(&order);
    let start = match known {
        true => {
            css(st, a, 2)?;
            a.r[1]
        }
        false => 0,
    };
    for (i, word) in [start, 0, order as u64].into_iter().enumerate() {
        let written = mem.write_u64(a.r[0].wrapping_add(8 * i as u64), word);
        written.map_or_else(|| a.bad(1), Ok)?;
    }
    done32(if known { Ok(0) } else { Err(Errno::EINVAL) })
}

/// `bpf_iter_css_next(it)`: past the end it begins again, as Linux's does.
fn css_next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let word = |i: u64| mem.read_u64(a.r[0].wrapping_add(8 * i));
    let (Some(start), Some(at), Some(order)) = (word(0), word(1), word(2)) else {
        return a.bad(1);
    };
    let world = &st.world;
    let Some(start) = world.cgroup_at(start) else {
        return Ok(Flow::Done(0));
    };
    let at = world.cgroup_at(at);
    let next = match (order as u32, at) {
        (ANCESTORS_UP, None) => Some(start),
        (ANCESTORS_UP, Some(at)) => world.cgroups[at.at()].parent,
        (order, at) => {
            let listed = world.descendants(start, order == DESCENDANTS_POST);
            match at {
                None => listed.first().copied(),
                Some(at) => {
                    let place = listed.iter().position(|&c| c == at);
                    place.and_then(|i| listed.get(i + 1).copied())
                }
            }
        }
    };
    let next = next.map_or(0, |c| world.cgroups[c.at()].addr);
    let written = mem.write_u64(a.r[0].wrapping_add(8), next);
    written.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(next)))
}

/// The one word of an iterator over tasks: that it was begun, what is left out, the cgroup, the task
/// that comes next at the earliest.
fn pack(flags: u32, cgroup: CgroupId, from: u32) -> u64 {
    1 << 63 | (flags as u64) << 60 | (cgroup.0 as u64 & 0xfff_ffff) << 32 | from as u64
}

/// `bpf_iter_css_task_new(it, css, flags)`
fn task_new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let flags = a.r[2] as u32;
    let known = flags == 0 || flags == PROCS || flags == PROCS | THREADED;
    let word = match known {
        true => pack(flags, css(st, a, 2)?, 0),
        false => 0,
    };
    mem.write_u64(a.r[0], word).map_or_else(|| a.bad(1), Ok)?;
    done32(if known { Ok(0) } else { Err(Errno::EINVAL) })
}

/// `bpf_iter_css_task_next(it)`
fn task_next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let Some(word) = mem.read_u64(a.r[0]) else {
        return a.bad(1);
    };
    if word >> 63 == 0 {
        return Ok(Flow::Done(0));
    }
    let flags = (word >> 60) as u32 & (PROCS | THREADED);
    let cgroup = CgroupId((word >> 32) as u32 & 0xfff_ffff);
    let wanted = |t: &Task| {
        let leads = t.pid == t.tgid || flags & PROCS == 0;
        let lives = !matches!(t.state, TaskState::Dead | TaskState::Reaped);
        t.cgroup == cgroup && t.pid != 0 && leads && lives
    };
    let from = (word as u32 as usize).min(st.tasks.len());
    let found = st.tasks[from..].iter().position(|t| wanted(t));
    let found = found.map(|i| TaskId((from + i) as u32));
    let next = found.map_or(st.tasks.len() as u32, |t| t.0 + 1);
    mem.write_u64(a.r[0], pack(flags, cgroup, next));
    Ok(Flow::Done(found.map_or(0, |t| st.tasks[t.at()].addr)))
}
