//! What a scheduler calls: `scx_bpf_*`, and iterators over its queues.

use super::{Kfunc, row};
use crate::choose::Wait;
use crate::helper::{Arg, Args, ret, words};
use crate::ids::{Cpu, TaskId};
use crate::scx::consts::{CPUPERF_ONE, dsq, enq, kf, kick, ops};
use crate::scx::{Called, Dsq, Node, Q, Scx, ScxExitKind, Stage, before32};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// `NUMA_NO_NODE`
const NO_NODE: i32 = -1;
/// Longest format that is looked at.
const MAX_FORMAT: u64 = 1 << 16;

pub(super) const KFUNCS: &[Kfunc] = &[
    row("scx_bpf_create_dsq", true, create_dsq),
    row("scx_bpf_destroy_dsq", true, destroy_dsq),
    row("scx_bpf_dsq_nr_queued", true, nr_queued),
    row("scx_bpf_dsq_insert", true, insert),
    row("scx_bpf_dispatch", true, insert),
    row("scx_bpf_dsq_insert_vtime", true, insert_vtime),
    row("scx_bpf_dispatch_vtime", true, insert_vtime),
    row("scx_bpf_dispatch_nr_slots", true, nr_slots),
    row("scx_bpf_dispatch_cancel", true, cancel),
    row("scx_bpf_dsq_move_to_local", true, move_to_local),
    row("scx_bpf_consume", true, move_to_local),
    row("scx_bpf_dsq_move_set_slice", false, set_slice),
    row("scx_bpf_dispatch_from_dsq_set_slice", false, set_slice),
    row("scx_bpf_dsq_move_set_vtime", false, set_vtime),
    row("scx_bpf_dispatch_from_dsq_set_vtime", false, set_vtime),
    row("scx_bpf_dsq_move", true, |st, mem, a| move_(st, mem, a, 0)),
    row("scx_bpf_dispatch_from_dsq", true, |st, mem, a| {
        move_(st, mem, a, 0)
    }),
    row("scx_bpf_dsq_move_vtime", true, |st, mem, a| {
        move_(st, mem, a, enq::DSQ_PRIQ)
    }),
    row("scx_bpf_dispatch_vtime_from_dsq", true, |st, mem, a| {
        move_(st, mem, a, enq::DSQ_PRIQ)
    }),
    row("bpf_iter_scx_dsq_new", true, iter_new),
    row("bpf_iter_scx_dsq_next", true, iter_next),
    row("bpf_iter_scx_dsq_destroy", true, iter_destroy),
    row("scx_bpf_reenqueue_local", true, reenqueue_local),
    row("scx_bpf_select_cpu_dfl", true, select_cpu_dfl),
    row("scx_bpf_select_cpu_and", true, select_cpu_and),
    row("scx_bpf_pick_idle_cpu", true, |st, mem, a| {
        pick_idle(st, mem, a, None)
    }),
    row("scx_bpf_pick_idle_cpu_node", true, |st, mem, a| {
        pick_idle(st, mem, a, Some(a.r[1] as i32))
    }),
    row("scx_bpf_pick_any_cpu", true, |st, mem, a| {
        pick_any(st, mem, a, None)
    }),
    row("scx_bpf_pick_any_cpu_node", true, |st, mem, a| {
        pick_any(st, mem, a, Some(a.r[1] as i32))
    }),
    row("scx_bpf_test_and_clear_cpu_idle", true, test_and_clear),
    row("scx_bpf_get_idle_cpumask", true, |st, _, _| {
        idle_mask(st, None)
    }),
    row("scx_bpf_get_idle_smtmask", true, |st, _, _| {
        idle_mask(st, None)
    }),
    row("scx_bpf_get_idle_cpumask_node", true, |st, _, a| {
        idle_mask(st, Some(a.r[0] as i32))
    }),
    row("scx_bpf_get_idle_smtmask_node", true, |st, _, a| {
        idle_mask(st, Some(a.r[0] as i32))
    }),
    row("scx_bpf_put_idle_cpumask", false, |_, _, _| done(0)),
    row("scx_bpf_get_possible_cpumask", false, |st, _, _| {
        all_mask(st)
    }),
    row("scx_bpf_get_online_cpumask", false, |st, _, _| all_mask(st)),
    row("scx_bpf_put_cpumask", false, |_, _, _| done(0)),
    row("scx_bpf_kick_cpu", true, kick_cpu),
    row("scx_bpf_nr_cpu_ids", false, |st, _, _| {
        done(st.cpus.len() as u64)
    }),
    row("scx_bpf_nr_node_ids", false, |_, _, _| done(1)),
    row("scx_bpf_cpu_node", false, |st, _, a| {
        let cpu = a.r[0] as i32;
        let valid = scheduler(st).is_none_or(|s| s.cpu_valid(cpu, ""));
        done32(Ok(if valid { 0 } else { NO_NODE as u32 as u64 }))
    }),
    row("scx_bpf_task_running", true, |st, _, a| {
        let task = a.task(st, 1)?;
        let cpu = st.scx.as_ref().and_then(|s| Some(s.tasks.get(&task)?.cpu));
        let runs = st.scx.as_ref().zip(cpu);
        done(
            runs.is_some_and(|(s, cpu)| s.curr(cpu) == Some(task))
                .into(),
        )
    }),
    row("scx_bpf_task_cpu", true, |st, _, a| {
        let task = a.task(st, 1)?;
        let cpu = st.scx.as_ref().and_then(|s| Some(s.tasks.get(&task)?.cpu));
        done(cpu.unwrap_or(st.tasks[task.at()].cpu.0).into())
    }),
    row("scx_bpf_cpu_rq", true, cpu_rq),
    row("scx_bpf_locked_rq", true, locked_rq),
    row("scx_bpf_cpu_curr", true, cpu_curr),
    row("scx_bpf_task_cgroup", true, task_cgroup),
    row("scx_bpf_now", false, |st, _, _| done(st.cpu().clock)),
    row("scx_bpf_cpuperf_cap", false, cpuperf),
    row("scx_bpf_cpuperf_cur", false, cpuperf),
    row("scx_bpf_cpuperf_set", true, cpuperf_set),
    row("scx_bpf_exit_bstr", true, |st, mem, a| {
        exit(st, mem, a, 2, ScxExitKind::UnregBpf)
    }),
    row("scx_bpf_error_bstr", true, |st, mem, a| {
        exit(st, mem, a, 1, ScxExitKind::ErrorBpf)
    }),
    row("scx_bpf_dump_bstr", true, |st, _, _| {
        if let Some(s) = scheduler(st) {
            let text = "scx_bpf_dump() must only be called from ops.dump() and friends";
            s.error(text.to_string());
        }
        done(0)
    }),
    row("scx_bpf_events", true, events),
];

fn done(value: u64) -> Arg<Flow> {
    Ok(Flow::Done(value))
}

/// What an `s32` is.
fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    done(ret(result) as u32 as u64)
}

/// The scheduler that is there (`scx_root`).
fn scheduler(st: &mut State) -> Option<&mut Scx> {
    let scx = st.scx.as_deref_mut()?;
    (scx.stage != Stage::Disabled).then_some(scx)
}

/// The operation that calls; none for what is no member.
fn called(st: &State) -> Option<Called> {
    st.cur.hook.as_ref().and_then(|h| h.scx)
}

/// `scx_kf_allowed`: an operation other than those that a kfunc may be called from ends it.
fn allowed(st: &mut State, mask: u32) -> bool {
    let allows = called(st).map_or(kf::UNLOCKED, |c| c.mask);
    let fine = allows & mask != 0;
    if let Some(s) = scheduler(st).filter(|_| !fine) {
        s.error(format!(
            "kfunc with mask {mask:#x} called from an operation only allowing {allows:#x}"
        ));
    }
    fine
}

fn create_dsq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

fn destroy_dsq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

fn nr_queued(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
fn insert(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    insert_with(st, mem, a, None, a.r[3])
}

/// `scx_bpf_dsq_insert_vtime(p, dsq_id, slice, vtime, enq_flags)`
fn insert_vtime(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    insert_with(st, mem, a, Some(a.r[3]), a.r[4])
}

fn nr_slots(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
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

fn cancel(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
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

fn move_to_local(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

/// The words of a `struct bpf_iter_scx_dsq`.
struct Iter {
    at: u64,
    /// It goes over the queue of this number.
    dsq: u64,
    valid: bool,
    flags: u32,
    /// Tasks that came after this are not seen.
    seq: u32,
    slice: u64,
    vtime: u64,
}

/// `__SCX_DSQ_ITER_HAS_SLICE`, `__SCX_DSQ_ITER_HAS_VTIME`
const HAS_SLICE: u32 = 1 << 30;
const HAS_VTIME: u32 = 1 << 31;

impl Iter {
    fn read(mem: &GuestMem, a: &Args) -> Arg<Iter> {
        let at = a.r[0];
        let word = |i: u64| {
            let word = mem.read_u64(at.wrapping_add(8 * i));
            word.map_or_else(|| a.bad(1), Ok)
        };
        let state = word(2)?;
        Ok(Iter {
            at,
            dsq: word(0)?,
            valid: word(1)? != 0,
            flags: state as u32,
            seq: (state >> 32) as u32,
            slice: word(3)?,
            vtime: word(4)?,
        })
    }

    fn write(&self, mem: &mut GuestMem, a: &Args) -> Arg<()> {
        let state = u64::from(self.seq) << 32 | u64::from(self.flags);
        let words = [
            self.dsq,
            self.valid.into(),
            state,
            self.slice,
            self.vtime,
            0,
        ];
        for (i, word) in words.into_iter().enumerate() {
            let at = self.at.wrapping_add(8 * i as u64);
            mem.write_u64(at, word).map_or_else(|| a.bad(1), Ok)?;
        }
        Ok(())
    }
}

fn set_slice(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let mut it = Iter::read(mem, a)?;
    (it.slice, it.flags) = (a.r[1], it.flags | HAS_SLICE);
    it.write(mem, a)?;
    done(0)
}

fn set_vtime(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let mut it = Iter::read(mem, a)?;
    (it.vtime, it.flags) = (a.r[1], it.flags | HAS_VTIME);
    it.write(mem, a)?;
    done(0)
}

/// `scx_bpf_dsq_move(it, p, dsq_id, enq_flags)`, and `_vtime`.
fn move_(st: &mut State, mem: &mut GuestMem, a: &Args, more: u64) -> Arg<Flow> {
    let task = a.task(st, 2)?;
    let (id, here) = (a.r[2], st.cur.cpu.0);
    let mut it = Iter::read(mem, a)?;
    let unlocked = called(st).is_none_or(|c| c.mask == kf::UNLOCKED);
    if scheduler(st).is_none() || !unlocked && !allowed(st, kf::DISPATCH) {
        return done(0);
    }
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    let cpu = s.tasks.get(&task).map_or(here, |e| e.cpu);
    if unlocked && s.rqs[cpu as usize].locked {
        st.cur.wait = Some(Wait::RunQueue(Cpu(cpu)));
        return Ok(Flow::Suspend);
    }
    let still = s
        .tasks
        .get(&task)
        .is_some_and(|e| it.valid && e.on == Some(Q::User(it.dsq)) && !before32(it.seq, e.seq));
    if still {
        let to = s.dsq_for(here, id, task);
        if it.flags & HAS_VTIME != 0 {
            s.set_vtime(mem, task, it.vtime);
        }
        if it.flags & HAS_SLICE != 0 {
            s.set_slice(mem, task, it.slice);
        }
        s.move_to(mem, task, to, a.r[3] | more);
    }
    it.flags &= !(HAS_SLICE | HAS_VTIME);
    it.write(mem, a)?;
    done(still.into())
}

/// `bpf_iter_scx_dsq_new(it, dsq_id, flags)`
fn iter_new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (at, id, flags) = (a.r[0], a.r[1], a.r[2]);
    let mut it = Iter {
        at,
        dsq: id,
        valid: false,
        flags: flags as u32,
        seq: 0,
        slice: 0,
        vtime: 0,
    };
    let found = match scheduler(st) {
        None => Err(Errno::ENODEV),
        Some(_) if flags & !dsq::ITER_REV != 0 => Err(Errno::EINVAL),
        Some(s) => s.user_dsq(id).map(|q| s.dsq(q).seq).ok_or(Errno::ENOENT),
    };
    if let Ok(seq) = found {
        (it.valid, it.seq) = (true, seq);
    }
    it.write(mem, a)?;
    done32(found.map(|_| 0))
}

/// `bpf_iter_scx_dsq_next(it)`: the next task that was there when it began.
fn iter_next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let it = Iter::read(mem, a)?;
    let Some(s) = scheduler(st).filter(|_| it.valid) else {
        return done(0);
    };
    let Some(q) = s.user_dsq(it.dsq) else {
        return done(0);
    };
    let reverse = u64::from(it.flags) & dsq::ITER_REV != 0;
    let mut nodes = std::mem::take(&mut s.dsq(q).nodes);
    let stands = nodes.iter().position(|n| *n == Node::Cursor(it.at));
    if let Some(i) = stands {
        nodes.remove(i);
    }
    let seen = |n: &Node| match n {
        Node::Task(t) => s.tasks.get(t).is_some_and(|e| !before32(it.seq, e.seq)),
        Node::Cursor(_) => false,
    };
    let found = match reverse {
        false => {
            let from = stands.unwrap_or(0);
            nodes[from..].iter().position(seen).map(|i| from + i)
        }
        true => nodes[..stands.unwrap_or(nodes.len())]
            .iter()
            .rposition(seen),
    };
    let mut addr = 0;
    if let Some(i) = found
        && let Node::Task(task) = nodes[i]
    {
        addr = s.tasks.get(&task).map_or(0, |e| e.addr);
        let at = if reverse { i } else { i + 1 };
        nodes.insert(at, Node::Cursor(it.at));
    }
    s.dsq(q).nodes = nodes;
    done(addr)
}

fn iter_destroy(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let it = Iter::read(mem, a)?;
    if let Some(s) = scheduler(st).filter(|_| it.valid)
        && let Some(q) = s.user_dsq(it.dsq)
    {
        s.dsq(q).nodes.retain(|n| *n != Node::Cursor(it.at));
    }
    mem.write_u64(it.at + 8, 0);
    done(0)
}

/// The tasks go to `enqueue` once `cpu_release` has returned.
fn reenqueue_local(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
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

/// The mask of CPUs that an argument points to.
fn mask(mem: &GuestMem, a: &Args, n: u8) -> Arg<u64> {
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
fn select_cpu_dfl(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
fn select_cpu_and(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

fn pick_idle(st: &mut State, mem: &mut GuestMem, a: &Args, node: Option<i32>) -> Arg<Flow> {
    let among = mask(mem, a, 1)?;
    if let Err(errno) = check_node(st, node) {
        return done32(Err(errno));
    }
    let mut last = st.cpu().distributed;
    let Some(s) = scheduler(st) else {
        return done32(Err(Errno::ENODEV));
    };
    if !s.check_tracks_idle() {
        return done32(Err(Errno::EBUSY));
    }
    let found = s.pick_idle(mem, &mut last, among);
    if found.is_some() {
        st.cpu().distributed = last;
    }
    done32(found.map_or(Err(Errno::EBUSY), |cpu| Ok(cpu.into())))
}

fn pick_any(st: &mut State, mem: &mut GuestMem, a: &Args, node: Option<i32>) -> Arg<Flow> {
    let among = mask(mem, a, 1)?;
    if let Err(errno) = check_node(st, node) {
        return done32(Err(errno));
    }
    let mut last = st.cpu().distributed;
    let found = scheduler(st).and_then(|s| s.pick_any(mem, &mut last, among));
    if found.is_some() {
        st.cpu().distributed = last;
    }
    done32(found.map_or(Err(Errno::EBUSY), |cpu| Ok(cpu.into())))
}

fn test_and_clear(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
fn idle_mask(st: &mut State, node: Option<i32>) -> Arg<Flow> {
    let fine = check_node(st, node).is_ok();
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    let fine = fine && s.check_tracks_idle();
    done(if fine { s.idle_mask } else { s.none_mask })
}

/// Online and possible are all CPUs.
fn all_mask(st: &mut State) -> Arg<Flow> {
    let mask = st.scx.as_ref().map_or(0, |s| s.all_mask);
    done(mask)
}

fn kick_cpu(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
    let kicked = (here, Cpu(cpu as u32), flags);
    if !s.kicks.contains(&kicked) {
        s.kicks.push(kicked);
    }
    done(0)
}

fn cpu_rq(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    if !s.cpu_valid(cpu, "") {
        return done(0);
    }
    done(s.rqs[cpu as usize].addr)
}

fn locked_rq(st: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
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

fn cpu_curr(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

fn task_cgroup(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = a.task(st, 1)?;
    let mut cgroup = crate::world::World::ROOT;
    if scheduler(st).is_some() && allowed(st, kf::RQ_LOCKED) {
        match called(st).and_then(|c| c.task) == Some(task) {
            true => cgroup = st.tasks[task.at()].cgroup,
            false => {
                if let Some(s) = scheduler(st) {
                    s.error("called on a task not being operated on".to_string());
                }
            }
        }
    }
    let found = st.world.cgroups.get_mut(cgroup.at());
    done(found.map_or(0, |c| {
        c.refs += 1;
        c.addr
    }))
}

fn cpuperf(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let cpu = a.r[0] as i32;
    if let Some(s) = scheduler(st) {
        s.cpu_valid(cpu, "");
    }
    done(CPUPERF_ONE.into())
}

fn cpuperf_set(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

/// `scx_bpf_exit_bstr`, `scx_bpf_error_bstr`: the format is argument `n`.
fn exit(st: &mut State, mem: &mut GuestMem, a: &Args, n: u8, kind: ScxExitKind) -> Arg<Flow> {
    let code = if n == 2 { a.r[0] as i64 } else { 0 };
    if scheduler(st).is_none() {
        return done(0);
    }
    let (at, size) = (a.r[n as usize], a.r[n as usize + 1] as u32);
    let args = match words(mem, a, n + 1)? {
        Ok(args) => args,
        Err(_) => {
            if let Some(s) = scheduler(st) {
                s.error(format!("invalid data={at:#x} and data__sz={size}"));
            }
            return done(0);
        }
    };
    let from = a.r[n as usize - 1];
    let end = |i: &u64| {
        let byte = mem.slice(from.wrapping_add(*i), 1);
        byte.is_none_or(|b| b[0] == 0)
    };
    let len = (0..MAX_FORMAT).find(end).unwrap_or(0);
    let format = a.bytes(mem, n, len + 1)?;
    let text = st.format(mem, &format, &args);
    let Some(s) = scheduler(st) else {
        return done(0);
    };
    match text {
        Ok(text) => {
            let most = crate::scx::consts::EXIT_MSG_LEN - 1;
            let text = String::from_utf8_lossy(&text[..text.len().min(most)]);
            s.exits(kind, code, text.into_owned());
        }
        Err(errno) => s.error(format!("format preparation failed (-{})", errno.0)),
    }
    done(0)
}

/// `scx_bpf_events(events, events__sz)`
fn events(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let counters = scheduler(st).map_or([0; crate::scx::consts::COUNTERS], |s| s.counters);
    let size = a.r[1].min(8 * counters.len() as u64);
    let bytes: Vec<u8> = counters.iter().flat_map(|c| c.to_le_bytes()).collect();
    let Some(to) = mem.slice_mut(a.r[0], size) else {
        return a.bad(1);
    };
    to.copy_from_slice(&bytes[..size as usize]);
    done(0)
}
