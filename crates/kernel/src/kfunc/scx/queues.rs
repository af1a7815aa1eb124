//! Dispatch queues: made, filled, emptied into a CPU's own, and what `dispatch` has at hand.

use super::{NO_NODE, allowed, done, done32, scheduler};
use crate::choose::Wait;
use crate::helper::{Arg, Args};
use crate::ids::TaskId;
use crate::scx::consts::{dsq, enq, kf};
use crate::scx::{Dsq, Q};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) fn create_dsq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (id, node) = (a.r[0], a.r[1] as i32);
    if !(NO_NODE..=0).contains(&node) || id & dsq::FLAG_BUILTIN != 0 {
        return done32(Err(Errno::EINVAL));
    }
    let Some(s) = scheduler(st) else {
        return done32(Err(Errno::ENODEV));
    };
    match s.user_dsq(id) {
        Some(_) => done32(Err(Errno::EEXIST)),
        None => {
            s.dsqs.insert(Q::User(id), Dsq::default());
            done32(Ok(0))
        }
    }
}

pub(super) fn destroy_dsq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let id = a.r[0];
    if let Some(s) = scheduler(st)
        && let Some(q) = s.user_dsq(id)
    {
        match s.nr(q) {
            0 => {
                s.dsqs.remove(&q);
            }
            nr => s.error(format!(
                "attempting to destroy in-use dsq {id:#018x} (nr={nr})"
            )),
        }
    }
    done(0)
}

pub(super) fn nr_queued(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (id, here) = (a.r[0], st.cur.cpu.0);
    let Some(s) = scheduler(st) else {
        return done32(Err(Errno::ENODEV));
    };
    let q = if id == dsq::LOCAL {
        Some(Q::Local(here))
    } else if id & dsq::LOCAL_ON == dsq::LOCAL_ON {
        let cpu = (id & dsq::LOCAL_CPU_MASK) as u32;
        s.cpu_valid(cpu as i32, "").then_some(Q::Local(cpu))
    } else {
        s.user_dsq(id)
    };
    done32(q.map_or(Err(Errno::ENOENT), |q| Ok(s.nr(q).into())))
}

/// `scx_dsq_insert_preamble`, and what all insertions do.
fn insert_with(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    vtime: Option<u64>,
    flags: u64,
) -> Arg<Flow> {
    let task = a.task(st, 1)?;
    let (id, slice, here) = (a.r[1], a.r[2], st.cur.cpu.0);
    if scheduler(st).is_none() || !allowed(st, kf::ENQUEUE | kf::DISPATCH) {
        return done(0);
    }
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if flags & enq::INTERNAL_MASK != 0 {
        s.error(format!("invalid enq_flags {flags:#x}"));
        return done(0);
    }
    let slice = match slice {
        0 => s.slice(mem, task).max(1),
        slice => slice,
    };
    s.set_slice(mem, task, slice);
    let more = match vtime {
        Some(vtime) => {
            s.set_vtime(mem, task, vtime);
            enq::DSQ_PRIQ
        }
        None => 0,
    };
    s.commit(here, task, id, flags | more);
    done(0)
}

/// `scx_bpf_dsq_insert(p, dsq_id, slice, enq_flags)`
pub(super) fn insert(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    insert_with(st, mem, a, None, a.r[3])
}

/// `scx_bpf_dsq_insert_vtime(p, dsq_id, slice, vtime, enq_flags)`
pub(super) fn insert_vtime(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    insert_with(st, mem, a, Some(a.r[3]), a.r[4])
}

pub(super) fn nr_slots(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let here = st.cur.cpu.at();
    if scheduler(st).is_none() || !allowed(st, kf::DISPATCH) {
        return done(0);
    }
    let left = scheduler(st).map_or(0, |s| {
        s.ops
            .max_batch
            .saturating_sub(s.rqs[here].batch.len() as u32)
    });
    done(left.into())
}

pub(super) fn cancel(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let here = st.cur.cpu.at();
    if scheduler(st).is_some()
        && allowed(st, kf::DISPATCH)
        && let Some(s) = scheduler(st)
        && s.rqs[here].batch.pop().is_none()
    {
        s.error("dispatch buffer underflow".to_string());
    }
    done(0)
}

pub(super) fn move_to_local(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (id, here) = (a.r[0], st.cur.cpu.0);
    if scheduler(st).is_none() || !allowed(st, kf::DISPATCH) {
        return done(0);
    }
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if let Some(task) = s.awaited(here) {
        st.cur.wait = Some(Wait::Enqueue(task));
        return Ok(Flow::Suspend);
    }
    s.flush(mem, here);
    let Some(q) = s.user_dsq(id) else {
        s.error(format!("invalid DSQ ID {id:#018x}"));
        return done(0);
    };
    let found = s.consume(mem, here, q);
    s.rqs[here as usize].given += u32::from(found);
    done(found.into())
}

/// The tasks go to `enqueue` once `cpu_release` has returned.
pub(super) fn reenqueue_local(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let here = st.cur.cpu.0;
    if scheduler(st).is_none() || !allowed(st, kf::CPU_RELEASE) {
        return done(0);
    }
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    let tasks: Vec<TaskId> = s.dsq(Q::Local(here)).tasks().collect();
    for &task in &tasks {
        s.remove(task);
    }
    let n = tasks.len() as u64;
    s.rqs[here as usize].reenqueued.extend(tasks);
    done(n)
}
