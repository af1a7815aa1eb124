//! What a scheduler calls: `scx_bpf_*`, and iterators over its queues.

mod cpu;
mod iter;
mod queues;

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret, words};
use crate::scx::consts::{enq, kf};
use crate::scx::{Called, Scx, ScxExitKind, Stage};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// `NUMA_NO_NODE`
const NO_NODE: i32 = -1;

/// Longest format that is looked at.
const MAX_FORMAT: u64 = 1 << 16;

pub(super) const KFUNCS: &[Kfunc] = &[
    row("scx_bpf_create_dsq", true, queues::create_dsq),
    row("scx_bpf_destroy_dsq", true, queues::destroy_dsq),
    row("scx_bpf_dsq_nr_queued", true, queues::nr_queued),
    row("scx_bpf_dsq_insert", true, queues::insert),
    row("scx_bpf_dispatch", true, queues::insert),
    row("scx_bpf_dsq_insert_vtime", true, queues::insert_vtime),
    row("scx_bpf_dispatch_vtime", true, queues::insert_vtime),
    row("scx_bpf_dispatch_nr_slots", true, queues::nr_slots),
    row("scx_bpf_dispatch_cancel", true, queues::cancel),
    row("scx_bpf_dsq_move_to_local", true, queues::move_to_local),
    row("scx_bpf_consume", true, queues::move_to_local),
    row("scx_bpf_dsq_move_set_slice", false, iter::set_slice),
    row(
        "scx_bpf_dispatch_from_dsq_set_slice",
        false,
        iter::set_slice,
    ),
    row("scx_bpf_dsq_move_set_vtime", false, iter::set_vtime),
    row(
        "scx_bpf_dispatch_from_dsq_set_vtime",
        false,
        iter::set_vtime,
    ),
    row("scx_bpf_dsq_move", true, |st, mem, a| {
        iter::move_(st, mem, a, 0)
    }),
    row("scx_bpf_dispatch_from_dsq", true, |st, mem, a| {
        iter::move_(st, mem, a, 0)
    }),
    row("scx_bpf_dsq_move_vtime", true, |st, mem, a| {
        iter::move_(st, mem, a, enq::DSQ_PRIQ)
    }),
    row("scx_bpf_dispatch_vtime_from_dsq", true, |st, mem, a| {
        iter::move_(st, mem, a, enq::DSQ_PRIQ)
    }),
    row("bpf_iter_scx_dsq_new", true, iter::new),
    row("bpf_iter_scx_dsq_next", true, iter::next),
    row("bpf_iter_scx_dsq_destroy", true, iter::destroy),
    row("scx_bpf_reenqueue_local", true, queues::reenqueue_local),
    row("scx_bpf_select_cpu_dfl", true, cpu::select_cpu_dfl),
    row("scx_bpf_select_cpu_and", true, cpu::select_cpu_and),
    row("scx_bpf_pick_idle_cpu", true, |st, mem, a| {
        cpu::pick(st, mem, a, None, cpu::idle)
    }),
    row("scx_bpf_pick_idle_cpu_node", true, |st, mem, a| {
        cpu::pick(st, mem, a, Some(a.r[1] as i32), cpu::idle)
    }),
    row("scx_bpf_pick_any_cpu", true, |st, mem, a| {
        cpu::pick(st, mem, a, None, Scx::pick_any)
    }),
    row("scx_bpf_pick_any_cpu_node", true, |st, mem, a| {
        cpu::pick(st, mem, a, Some(a.r[1] as i32), Scx::pick_any)
    }),
    row("scx_bpf_test_and_clear_cpu_idle", true, cpu::test_and_clear),
    row("scx_bpf_get_idle_cpumask", true, |st, _, _| {
        cpu::idle_mask(st, None)
    }),
    row("scx_bpf_get_idle_smtmask", true, |st, _, _| {
        cpu::idle_mask(st, None)
    }),
    row("scx_bpf_get_idle_cpumask_node", true, |st, _, a| {
        cpu::idle_mask(st, Some(a.r[0] as i32))
    }),
    row("scx_bpf_get_idle_smtmask_node", true, |st, _, a| {
        cpu::idle_mask(st, Some(a.r[0] as i32))
    }),
    row("scx_bpf_put_idle_cpumask", false, |_, _, _| done(0)),
    row("scx_bpf_get_possible_cpumask", false, |st, _, _| {
        cpu::all_mask(st)
    }),
    row("scx_bpf_get_online_cpumask", false, |st, _, _| {
        cpu::all_mask(st)
    }),
    row("scx_bpf_put_cpumask", false, |_, _, _| done(0)),
    row("scx_bpf_kick_cpu", true, cpu::kick_cpu),
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
    row("scx_bpf_cpu_rq", true, cpu::cpu_rq),
    row("scx_bpf_locked_rq", true, cpu::locked_rq),
    row("scx_bpf_cpu_curr", true, cpu::cpu_curr),
    row("scx_bpf_task_cgroup", true, task_cgroup),
    row("scx_bpf_now", false, |st, _, _| done(st.cpu().clock)),
    row("scx_bpf_cpuperf_cap", false, cpu::cpuperf),
    row("scx_bpf_cpuperf_cur", false, cpu::cpuperf),
    row("scx_bpf_cpuperf_set", true, cpu::cpuperf_set),
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
