//! Kfuncs, by name. A program's call holds the index in [`KFUNCS`] once it is loaded.

mod arena;
mod conntrack;
mod cpumask;
pub(crate) mod crypto;
mod css;
mod dynptr;
mod iter;
mod lock;
mod misc;
mod object;
mod scx;
mod string;
mod task_iter;

pub(crate) use misc::show_packet;

use crate::helper::{Args, Body, cgroup_kfuncs, file_kfuncs, ret};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_btf::fields::FieldKind;
use bpfsim_vm::{Call, FaultKind, Flow, GuestMem};

/// A kfunc that bpfsim runs.
pub(crate) struct Kfunc {
    name: &'static str,
    /// It touches what other executions can touch.
    visible: bool,
    body: Body,
}

pub(crate) const fn row(name: &'static str, visible: bool, body: Body) -> Kfunc {
    Kfunc {
        name,
        visible,
        body,
    }
}

const KFUNCS: &[Kfunc] = &[
    row("bpf_wq_init", true, wq_init),
    row("bpf_wq_set_callback_impl", true, wq_set_callback),
    row("bpf_wq_start", true, wq_start),
    row("bpf_task_work_schedule_signal_impl", true, |st, mem, a| {
        task_work_schedule(st, mem, a, true)
    }),
    row("bpf_task_work_schedule_resume_impl", true, |st, mem, a| {
        task_work_schedule(st, mem, a, false)
    }),
    row("bpf_copy_from_user_str", false, copy_from_user_str),
    row("bpf_iter_num_new", false, iter::num_new),
    row("bpf_iter_num_next", false, iter::num_next),
    row("bpf_iter_num_destroy", false, iter::num_destroy),
    row("bpf_iter_bits_new", false, iter::bits_new),
    row("bpf_iter_bits_next", false, iter::bits_next),
    row("bpf_iter_bits_destroy", false, iter::bits_destroy),
    row("bpf_throw", false, throw),
    row("__bpf_trap", false, |_, _, a| {
        Err(FaultKind::UnknownCall(a.call))
    }),
    row("bpf_rdonly_cast", false, |_, _, a| Ok(Flow::Done(a.r[0]))),
    row("bpf_map_sum_elem_count", true, |st, _, a| {
        let map = a.map(st, 1)?;
        Ok(Flow::Done(st.maps[map.at()].sum_elem_count()))
    }),
    row("bpf_rcu_read_lock", false, |_, _, _| Ok(Flow::Done(0))),
    row("bpf_rcu_read_unlock", false, |_, _, _| Ok(Flow::Done(0))),
    row("bpf_preempt_disable", false, |st, _, _| {
        st.cur.preempt_off += 1;
        Ok(Flow::Done(0))
    }),
    row("bpf_preempt_enable", false, |st, _, _| {
        st.cur.preempt_off = st.cur.preempt_off.saturating_sub(1);
        Ok(Flow::Yield(0))
    }),
    row("bpf_local_irq_save", false, |st, _, _| {
        st.cur.irq_off += 1;
        Ok(Flow::Done(0))
    }),
    row("bpf_local_irq_restore", false, |st, _, _| {
        st.irq_on();
        Ok(Flow::Yield(0))
    }),
    row("bpf_task_from_pid", false, |st, _, a| {
        Ok(Flow::Done(st.task_from_pid(a.r[0] as u32)))
    }),
    row("bpf_task_acquire", false, |st, _, a| {
        let task = a.task(st, 1)?;
        Ok(Flow::Done(st.task_acquire(task)))
    }),
    row("bpf_task_release", false, |st, _, a| {
        let task = a.task(st, 1)?;
        st.task_release(task);
        Ok(Flow::Done(0))
    }),
    row("bpf_cgroup_acquire", false, cgroup_kfuncs::acquire),
    row("bpf_cgroup_release", false, cgroup_kfuncs::release),
    row("bpf_cgroup_ancestor", false, cgroup_kfuncs::ancestor),
    row("bpf_cgroup_from_id", false, cgroup_kfuncs::from_id),
    row("bpf_task_under_cgroup", false, cgroup_kfuncs::task_under),
    row("bpf_sock_destroy", true, |st, mem, a| {
        let Some(sock) = st.world.sock_at(a.r[0]) else {
            return a.bad(1);
        };
        st.close_sock(mem, sock);
        Ok(Flow::Done(0))
    }),
    row("bpf_path_d_path", false, file_kfuncs::path_d_path),
    row("bpf_get_task_exe_file", true, file_kfuncs::task_exe),
    row("bpf_put_file", true, file_kfuncs::put),
    row("bpf_get_file_xattr", true, file_kfuncs::file_xattr),
    row("bpf_get_dentry_xattr", true, file_kfuncs::dentry_xattr),
    row("bpf_set_dentry_xattr", true, file_kfuncs::set_xattr),
    row("bpf_remove_dentry_xattr", true, file_kfuncs::remove_xattr),
    row("bpf_cgroup_read_xattr", true, file_kfuncs::cgroup_xattr),
];

/// All rows.
const GROUPS: &[&[Kfunc]] = &[
    KFUNCS,
    crate::helper::HOOK_KFUNCS,
    object::KFUNCS,
    dynptr::KFUNCS,
    string::KFUNCS,
    cpumask::KFUNCS,
    conntrack::KFUNCS,
    crypto::KFUNCS,
    css::KFUNCS,
    lock::KFUNCS,
    misc::KFUNCS,
    scx::KFUNCS,
    arena::KFUNCS,
    task_iter::KFUNCS,
];

const COUNT: usize = {
    let (mut n, mut group) = (0, 0);
    while group < GROUPS.len() {
        n += GROUPS[group].len();
        group += 1;
    }
    n
};

/// All rows, by number.
static ROWS: [&Kfunc; COUNT] = {
    let mut rows = [&KFUNCS[0]; COUNT];
    let (mut n, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut i = 0;
        while i < GROUPS[group].len() {
            rows[n] = &GROUPS[group][i];
            n += 1;
            i += 1;
        }
        group += 1;
    }
    rows
};

/// The number that a call of this kfunc carries, or `None` when bpfsim does not have it.
pub(crate) fn index(name: &str) -> Option<u32> {
    ROWS.iter().position(|k| k.name == name).map(|i| i as u32)
}

/// Name of a kfunc by its number.
pub(crate) fn name(index: u32) -> Option<&'static str> {
    ROWS.get(index as usize).map(|k| k.name)
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|k| k.name)
}

pub(crate) fn is_visible(index: u32) -> bool {
    ROWS.get(index as usize).is_some_and(|k| k.visible)
}

pub(crate) fn call(st: &mut State, mem: &mut GuestMem, index: u32, a: &Args) -> Flow {
    match ROWS.get(index as usize) {
        Some(k) => (k.body)(st, mem, a).unwrap_or_else(Flow::Fault),
        None => Flow::Fault(FaultKind::UnknownCall(Call::Kfunc(index))),
    }
}

/// `bpf_throw(cookie)`: all frames are left, and the exception callback, or one that gives the
/// cookie back, says what the program returns.
fn throw(st: &mut State, _: &mut GuestMem, a: &Args) -> Result<Flow, FaultKind> {
    let cookie = a.r[0];
    st.cur.iterations.clear();
    let callback = st.progs[st.cur.prog.at()].exception;
    Ok(callback.map_or(Flow::Exit(cookie), |entry| Flow::Throw { entry, cookie }))
}

fn wq_init(st: &mut State, mem: &mut GuestMem, a: &Args) -> Result<Flow, FaultKind> {
    let map = a.map(st, 2)?;
    let slot = a.slot(st, map, 1, |k| matches!(k, FieldKind::Workqueue))?;
    Ok(st.wq_init(mem, slot, a.r[2] as u32))
}

fn wq_set_callback(st: &mut State, mem: &mut GuestMem, a: &Args) -> Result<Flow, FaultKind> {
    let callback = a.function(st, 2)?;
    Ok(st.wq_set_callback(mem, a.r[0], callback, a.r[2] as u32))
}

fn wq_start(st: &mut State, mem: &mut GuestMem, a: &Args) -> Result<Flow, FaultKind> {
    Ok(st.wq_start(mem, a.r[0], a.r[1] as u32))
}

fn task_work_schedule(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    signal: bool,
) -> Result<Flow, FaultKind> {
    let task = a.task(st, 1)?;
    let map = a.map(st, 3)?;
    let slot = a.slot(st, map, 2, |k| matches!(k, FieldKind::TaskWork))?;
    let callback = a.function(st, 4)?;
    Ok(st.task_work_schedule(mem, task, slot, callback, signal))
}

/// `bpf_copy_from_user_str(dst, dst__sz, unsafe_ptr__ign, flags)`: length with the NUL.
fn copy_from_user_str(st: &mut State, mem: &mut GuestMem, a: &Args) -> Result<Flow, FaultKind> {
    const F_PAD_ZEROS: u64 = 1;
    let (to, size, from, flags) = (a.r[0], a.r[1] as u32, a.r[2], a.r[3]);
    if flags & !F_PAD_ZEROS != 0 {
        return Ok(Flow::Done(ret(Err(Errno::EINVAL))));
    }
    if size == 0 {
        return Ok(Flow::Done(0));
    }
    if st.user_fault_str(st.cur.task, from, size.into()) {
        return Ok(Flow::Suspend);
    }
    let bad = FaultKind::BadArgument {
        call: a.call,
        arg: 1,
    };
    let dest = mem.slice_mut(to, size as u64).ok_or(bad)?;
    let task = &st.tasks[st.cur.task.at()];
    let mut len = 0;
    loop {
        let Some(byte) = task.user.byte(from.wrapping_add(len as u64)) else {
            if flags & F_PAD_ZEROS != 0 {
                dest.fill(0);
            }
            return Ok(Flow::Done(ret(Err(Errno::EFAULT))));
        };
        let last = len + 1 == dest.len();
        dest[len] = if last { 0 } else { byte };
        len += 1;
        if byte == 0 || last {
            break;
        }
    }
    if flags & F_PAD_ZEROS != 0 {
        dest[len..].fill(0);
    }
    Ok(Flow::Done(len as u64))
}
