//! CPUs: which is idle and is chosen, masks of them, run queues, kicks, how fast they are.

use super::{NO_NODE, allowed, called, done, done32, scheduler};
use crate::helper::{Arg, Args};
use crate::ids::{Cpu, TaskId};
use crate::scx::Scx;
use crate::scx::consts::{CPUPERF_ONE, kf, kick, ops};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// The mask of CPUs that an argument points to.
pub(super) fn mask(mem: &GuestMem, a: &Args, n: u8) -> Arg<u64> {
    let word = mem.read_u64(a.r[n as usize - 1]);
    word.map_or_else(|| a.bad(n), Ok)
}

/// `select_cpu_from_kfunc`
fn select(
    st: &mut State,
    mem: &mut GuestMem,
    task: TaskId,
    prev: i32,
    wake: u64,
    among: Option<u64>,
) -> Result<u32, Errno> {
    let here = st.cur.cpu;
    let unlocked = called(st).is_none_or(|c| c.mask == kf::UNLOCKED);
    let s = scheduler(st).ok_or(Errno::ENODEV)?;
    if !s.cpu_valid(prev, "") {
        return Err(Errno::EINVAL);
    }
    if !s.check_tracks_idle() {
        return Err(Errno::EBUSY);
    }
    if !unlocked && !allowed(st, kf::SELECT_CPU | kf::ENQUEUE) {
        return Err(Errno::EPERM);
    }
    let prev = prev as u32;
    let Some(s) = st.scx.as_deref_mut() else {
        return Err(Errno::ENODEV);
    };
    let own = s.tasks.get(&task).map_or(0, |e| e.allowed);
    if own.count_ones() == 1 {
        let fits = among.unwrap_or(own) & 1 << prev != 0;
        return match fits && s.claim(mem, prev) {
            true => Ok(prev),
            false => Err(Errno::EBUSY),
        };
    }
    let state = &mut st.cpus[here.at()];
    s.select_dfl(mem, here.0, state, task, prev, wake, among)
}

/// `scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, is_idle)`
pub(super) fn select_cpu_dfl(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = a.task(st, 1)?;
    let prev = a.r[1] as i32;
    let found = match scheduler(st) {
        Some(_) => select(st, mem, task, prev, a.r[2], None),
        None => return done32(Err(Errno::ENODEV)),
    };
    let Some(is_idle) = mem.slice_mut(a.r[3], 1) else {
        return a.bad(4);
    };
    is_idle[0] = u8::from(found.is_ok());
    done(u64::from(found.unwrap_or(prev as u32)))
}

/// `scx_bpf_select_cpu_and(p, prev_cpu, wake_flags, cpus_allowed, flags)`
pub(super) fn select_cpu_and(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = a.task(st, 1)?;
    let among = mask(mem, a, 4)?;
    let found = select(st, mem, task, a.r[1] as i32, a.r[2], Some(among));
    done32(found.map(u64::from))
}

/// `validate_node`, or that CPUs are not tracked by nodes.
fn check_node(st: &mut State, node: Option<i32>) -> Result<(), Errno> {
    let s = scheduler(st).ok_or(Errno::ENODEV)?;
    let per_node = s.ops.flags & ops::BUILTIN_IDLE_PER_NODE != 0;
    match node {
        None if per_node => {
            s.error("per-node idle tracking is enabled".to_string());
            Err(Errno::EBUSY)
        }
        None => Ok(()),
        Some(_) if !per_node => {
            s.error("per-node idle tracking is disabled".to_string());
            Err(Errno::EOPNOTSUPP)
        }
        Some(NO_NODE) => Err(Errno::ENOENT),
        Some(0) => Ok(()),
        Some(node) => {
            s.error(format!("invalid node {node}"));
            Err(Errno::EINVAL)
        }
    }
}

/// Chooses among the CPUs of a mask as `how` says.
pub(super) fn pick(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    node: Option<i32>,
    how: fn(&mut Scx, &mut GuestMem, &mut u32, u64) -> Option<u32>,
) -> Arg<Flow> {
    let among = mask(mem, a, 1)?;
    let mut last = st.cpu().distributed;
    let found = check_node(st, node).and_then(|()| {
        let s = scheduler(st).ok_or(Errno::ENODEV)?;
        how(s, mem, &mut last, among).ok_or(Errno::EBUSY)
    });
    if found.is_ok() {
        st.cpu().distributed = last;
    }
    done32(found.map(u64::from))
}

/// An idle one.
pub(super) fn idle(s: &mut Scx, mem: &mut GuestMem, last: &mut u32, among: u64) -> Option<u32> {
    let tracked = s.check_tracks_idle();
    tracked.then(|| s.pick_idle(mem, last, among)).flatten()
}

pub(super) fn test_and_clear(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if !s.check_tracks_idle() || !s.cpu_valid(cpu, "") {
        return done(0);
    }
    done(s.claim(mem, cpu as u32).into())
}

/// `cpu_none_mask` where there is none. Every CPU is a core of its own.
pub(super) fn idle_mask(st: &mut State, node: Option<i32>) -> Arg<Flow> {
    let fine = check_node(st, node).is_ok();
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    let fine = fine && s.check_tracks_idle();
    done(if fine { s.idle_mask } else { s.none_mask })
}

/// Online and possible are all CPUs.
pub(super) fn all_mask(st: &mut State) -> Arg<Flow> {
    let mask = st.scx.as_ref().map_or(0, |s| s.all_mask);
    done(mask)
}

pub(super) fn kick_cpu(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (cpu, flags, here) = (a.r[0] as i32, a.r[1], st.cur.cpu);
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if !s.cpu_valid(cpu, "") || s.bypass {
        return done(0);
    }
    if flags & kick::IDLE != 0 && flags & (kick::PREEMPT | kick::WAIT) != 0 {
        s.error("PREEMPT/WAIT cannot be used with SCX_KICK_IDLE".to_string());
    }
    s.kicks.add(here, Cpu(cpu as u32), flags);
    done(0)
}

pub(super) fn cpu_rq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if !s.cpu_valid(cpu, "") {
        return done(0);
    }
    done(s.rqs[cpu as usize].addr)
}

pub(super) fn locked_rq(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    let locked = called(st).and_then(|c| c.rq);
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    match locked {
        Some(cpu) => done(s.rqs[cpu as usize].addr),
        None => {
            s.error("accessing rq without holding rq lock".to_string());
            done(0)
        }
    }
}

pub(super) fn cpu_curr(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if !s.cpu_valid(cpu, "") {
        return done(0);
    }
    let cpu = cpu as u32;
    let curr = s.curr(cpu).and_then(|t| s.tasks.get(&t)).map(|e| e.addr);
    done(curr.unwrap_or(s.idle_tasks[cpu as usize]))
}

pub(super) fn cpuperf(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    if let Some(s) = scheduler(st) {
        s.cpu_valid(cpu, "");
    }
    done(CPUPERF_ONE.into())
}

pub(super) fn cpuperf_set(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (cpu, perf) = (a.r[0] as i32, a.r[1] as u32);
    if let Some(s) = scheduler(st) {
        if perf > CPUPERF_ONE {
            s.error(format!("Invalid cpuperf target {perf} for CPU {cpu}"));
        } else if s.cpu_valid(cpu, "") {
            s.rqs[cpu as usize].cpuperf = perf;
        }
    }
    done(0)
}
