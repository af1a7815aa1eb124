//! Open-coded iterators over tasks and over the memory of a task.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, ret};
use crate::ids::TaskId;
use crate::state::State;
use crate::task::TaskState;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_iter_task_new", true, task_new),
    row("bpf_iter_task_next", true, task_next),
    row("bpf_iter_task_destroy", false, |_, _, _| Ok(Flow::Done(0))),
    row("bpf_iter_task_vma_new", true, vma_new),
    row("bpf_iter_task_vma_next", true, vma_next),
    row("bpf_iter_task_vma_destroy", false, vma_destroy),
];

/// `BPF_TASK_ITER_ALL_THREADS`, `_PROC_THREADS`; 0 is `_ALL_PROCS`.
const ALL_THREADS: u32 = 1;
const PROC_THREADS: u32 = 2;

fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// The iterator's words: number of the next task plus one, or 0; flags; the task group.
fn set(mem: &mut GuestMem, a: &Args, words: [u64; 3]) -> Arg<()> {
    for (i, word) in words.into_iter().enumerate() {
        if mem
            .write_u64(a.r[0].wrapping_add(8 * i as u64), word)
            .is_none()
        {
            return a.bad(1);
        }
    }
    Ok(())
}

/// `bpf_iter_task_new(it, task, flags)`
fn task_new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let flags = a.r[2] as u32;
    set(mem, a, [0; 3])?;
    if flags > PROC_THREADS || (flags == PROC_THREADS && a.r[1] == 0) {
        return done32(Err(Errno::EINVAL));
    }
    let group = match flags {
        PROC_THREADS => {
            let task = a.task(st, 2)?;
            st.tasks[task.at()].tgid
        }
        _ => 0,
    };
    let first = st.task_after(None, flags, group);
    let first = first.map_or(0, |t| t.0 as u64 + 1);
    set(mem, a, [first, flags as u64, group as u64])?;
    done32(Ok(0))
}

/// `bpf_iter_task_next(it)`
fn task_next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let word = |i: u64| mem.read_u64(a.r[0].wrapping_add(8 * i));
    let (Some(at), Some(flags), Some(group)) = (word(0), word(1), word(2)) else {
        return a.bad(1);
    };
    let Some(task) = at.checked_sub(1).filter(|&t| t < st.tasks.len() as u64) else {
        return Ok(Flow::Done(0));
    };
    let task = TaskId(task as u32);
    let next = st.task_after(Some(task), flags as u32, group as u32);
    let next = next.map_or(0, |t| t.0 as u64 + 1);
    set(mem, a, [next, flags, group])?;
    Ok(Flow::Done(st.tasks[task.at()].addr))
}

impl State {
    /// The task after another in Linux's list: the idle task of CPU 0, then all others in the order
    /// in which they were made; idle tasks of other CPUs are not in it.
    fn task_after(&self, after: Option<TaskId>, flags: u32, group: u32) -> Option<TaskId> {
        let idle = |t: &crate::task::Task| t.pid == 0;
        let init = self.tasks.iter().position(|t| idle(t))?;
        let wanted = |t: &crate::task::Task| match flags {
            PROC_THREADS => t.tgid == group,
            ALL_THREADS => true,
            _ => t.pid == t.tgid,
        };
        let listed = (0..self.tasks.len()).filter(|&i| {
            let t = &self.tasks[i];
            t.state != TaskState::Reaped && !idle(t)
        });
        let mut order = std::iter::once(init)
            .chain(listed)
            .filter(|&i| wanted(&self.tasks[i]));
        let found = match after {
            None => order.next(),
            Some(task) => {
                order.find(|&i| i == task.at())?;
                order.next()
            }
        };
        found.map(|i| TaskId(i as u32))
    }
}

/// `bpf_iter_task_vma_new(it, task, addr)`. The iterator's only word is a kernel object: the task
/// and the address from which on areas are to come, and after these the area given last.
fn vma_new(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = a.task(st, 2)?;
    mem.write_u64(a.r[0], 0).map_or_else(|| a.bad(1), Ok)?;
    if !st.tasks[task.at()].has_mm() {
        return done32(Err(Errno::ENOENT));
    }
    let Some(at) = st.buffer(mem, 16 + st.objects.vma.size) else {
        return done32(Err(Errno::ENOMEM));
    };
    mem.write_u64(at, task.0 as u64);
    mem.write_u64(at + 8, a.r[2]);
    mem.write_u64(a.r[0], at);
    done32(Ok(0))
}

/// `bpf_iter_task_vma_next(it)`
fn vma_next(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let Some(at) = mem.read_u64(a.r[0]) else {
        return a.bad(1);
    };
    let task = mem.read_u64(at).filter(|_| st.objects.is_buffer(at));
    let task = task.and_then(|t| st.tasks.get(t as usize));
    let (Some(task), Some(from)) = (task, mem.read_u64(at.wrapping_add(8))) else {
        return Ok(Flow::Done(0));
    };
    let Some((area, protection)) = task.user.area_after(from) else {
        return Ok(Flow::Done(0));
    };
    mem.write_u64(at + 8, area.end);
    st.fill_vma(mem, at + 16, &area, protection);
    Ok(Flow::Done(at + 16))
}

/// `bpf_iter_task_vma_destroy(it)`
fn vma_destroy(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if let Some(at) = mem.read_u64(a.r[0]).filter(|&at| st.objects.is_buffer(at)) {
        st.obj_drop(mem, at);
    }
    mem.write_u64(a.r[0], 0);
    Ok(Flow::Done(0))
}
