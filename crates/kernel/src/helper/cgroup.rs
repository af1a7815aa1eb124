//! Helpers on cgroups.

use super::{Arg, Args, Helper, ret, row};
use crate::ids::CgroupId;
use crate::state::State;
use crate::world::World;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

/// The rows of the table of helpers that this module adds.
pub(crate) const HELPERS: &[Helper] = &[
    row(Func::GetCurrentCgroupId, false, |st, _, _| {
        let cgroup = st.current_cgroup();
        Ok(Flow::Done(number(st, Some(cgroup))))
    }),
    row(Func::GetCurrentAncestorCgroupId, false, |st, _, a| {
        let level = a.r[0] as i32 as i64;
        let found = st.world.ancestor(st.current_cgroup(), level);
        Ok(Flow::Done(number(st, found)))
    }),
    row(Func::CurrentTaskUnderCgroup, true, |st, _, a| {
        let cgroup = st.current_cgroup();
        under(st, a, 1, cgroup)
    }),
    row(Func::SkbUnderCgroup, true, |st, _, a| {
        match socket_cgroup(st) {
            Some(cgroup) => under(st, a, 2, cgroup),
            None => Ok(Flow::Done(0)),
        }
    }),
    row(Func::SkbCgroupId, false, |st, _, _| {
        let cgroup = socket_cgroup(st);
        Ok(Flow::Done(number(st, cgroup)))
    }),
    row(Func::SkCgroupId, false, |st, _, a| {
        let cgroup = sock_cgroup(st, a.r[0]);
        Ok(Flow::Done(number(st, cgroup)))
    }),
    row(Func::SkbAncestorCgroupId, false, |st, _, a| {
        let found = socket_cgroup(st).and_then(|c| st.world.ancestor(c, a.r[1] as i32 as i64));
        Ok(Flow::Done(number(st, found)))
    }),
    row(Func::SkAncestorCgroupId, false, |st, _, a| {
        let cgroup = sock_cgroup(st, a.r[0]);
        let found = cgroup.and_then(|c| st.world.ancestor(c, a.r[1] as i32 as i64));
        Ok(Flow::Done(number(st, found)))
    }),
];

fn number(st: &State, cgroup: Option<CgroupId>) -> u64 {
    cgroup.map_or(0, |c| st.world.cgroups[c.at()].id)
}

/// The cgroup of a socket that a pointer means; that of a test packet is the root.
fn sock_cgroup(st: &State, addr: u64) -> Option<CgroupId> {
    let sock = st.world.sock_at(addr)?;
    let cgroup = st.world.socks[sock.at()].spec.cgroup;
    Some(cgroup.unwrap_or(World::ROOT))
}

/// The cgroup of the socket that the context is about.
fn socket_cgroup(st: &State) -> Option<CgroupId> {
    let sock = super::sock::own_sock(st, crate::packet::CTX_WINDOW)?;
    let cgroup = st.world.socks[sock.at()].spec.cgroup;
    Some(cgroup.unwrap_or(World::ROOT))
}

/// Whether a cgroup is that of argument `n`'s map at the index after it, or below it.
fn under(st: &mut State, a: &Args, n: u8, cgroup: CgroupId) -> Arg<Flow> {
    let map = a.map(st, n)?;
    let index = a.r[n as usize] as u32;
    if index >= st.maps[map.at()].spec.max_entries {
        return Ok(Flow::Done(ret(Err(Errno::E2BIG))));
    }
    // The handle is the cgroup's place and one.
    let of = st.maps[map.at()].handle(index);
    let of = of.and_then(|h| u32::try_from(h - 1).ok()).map(CgroupId);
    Ok(Flow::Done(match of {
        Some(of) if of.at() < st.world.cgroups.len() => st.world.is_below(cgroup, of) as u64,
        _ => ret(Err(Errno::EAGAIN)),
    }))
}

/// `bpf_cgroup_*` and `bpf_task_*` kfuncs.
pub(crate) mod kfuncs {
    use super::*;

    fn cgroup(st: &State, a: &Args, n: u8) -> Arg<CgroupId> {
        let found = st.world.cgroup_at(a.r[n as usize - 1]);
        found.map_or_else(|| a.bad(n), Ok)
    }

    fn get(st: &mut State, cgroup: Option<CgroupId>) -> Arg<Flow> {
        Ok(Flow::Done(match cgroup {
            Some(cgroup) => {
                let c = &mut st.world.cgroups[cgroup.at()];
                c.refs += 1;
                c.addr
            }
            None => 0,
        }))
    }

    /// `bpf_cgroup_acquire`
    pub(crate) fn acquire(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let cgroup = cgroup(st, a, 1)?;
        get(st, Some(cgroup))
    }

    /// `bpf_cgroup_release`
    pub(crate) fn release(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let cgroup = cgroup(st, a, 1)?;
        let c = &mut st.world.cgroups[cgroup.at()];
        c.refs = c.refs.saturating_sub(1);
        Ok(Flow::Done(0))
    }

    /// `bpf_cgroup_ancestor(cgrp, level)`
    pub(crate) fn ancestor(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let cgroup = cgroup(st, a, 1)?;
        let found = st.world.ancestor(cgroup, a.r[1] as i32 as i64);
        get(st, found)
    }

    /// `bpf_cgroup_from_id`
    pub(crate) fn from_id(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let found = st.world.cgroup_by_id(a.r[0]);
        get(st, found)
    }

    /// `bpf_task_under_cgroup(task, ancestor)`
    pub(crate) fn task_under(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
        let task = a.task(st, 1)?;
        let of = cgroup(st, a, 2)?;
        let cgroup = st.tasks[task.at()].cgroup;
        Ok(Flow::Done(st.world.is_below(cgroup, of) as u64))
    }
}
