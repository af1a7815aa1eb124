//! Stack traces. The only frame of the kernel that a simulation has is that of the program itself.

use super::{Arg, Args, Helper, ret, row};
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::GetStack, false, get_stack),
    row(Func::GetStackid, true, get_stackid),
    row(Func::GetTaskStack, false, get_task_stack),
];

/// `BPF_F_SKIP_FIELD_MASK` and the flags above it.
const SKIP: u64 = 0xff;
const USER_STACK: u64 = 1 << 8;
const FAST_STACK_CMP: u64 = 1 << 9;
const REUSE_STACKID: u64 = 1 << 10;
const USER_BUILD_ID: u64 = 1 << 11;

fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

/// The addresses of a stack, innermost first.
fn trace(st: &State, flags: u64) -> Vec<u64> {
    if flags & USER_STACK != 0 {
        return Vec::new();
    }
    let own = st.progs.get(st.cur.prog.at()).map(|prog| prog.code);
    own.into_iter().skip((flags & SKIP) as usize).collect()
}

/// `bpf_get_stack(ctx, buf, size, flags)`
fn get_stack(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let frames = trace(st, a.r[3]);
    copy(mem, a, &frames)
}

/// `bpf_get_task_stack(task, buf, size, flags)`
fn get_task_stack(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let task = a.task(st, 1)?;
    let frames = if task == st.cur.task {
        trace(st, a.r[3])
    } else {
        Vec::new()
    };
    copy(mem, a, &frames)
}

/// `__bpf_get_stack`: how many bytes; the rest of the buffer is cleared.
fn copy(mem: &mut GuestMem, a: &Args, frames: &[u64]) -> Arg<Flow> {
    let (size, flags) = (a.r[2] as u32 as u64, a.r[3]);
    let Some(buffer) = mem.slice_mut(a.r[1], size) else {
        return a.bad(2);
    };
    buffer.fill(0);
    let build_id = flags & USER_BUILD_ID != 0;
    let kernel = flags & USER_STACK == 0;
    let each = if build_id { 32 } else { 8 };
    if flags & !(SKIP | USER_STACK | USER_BUILD_ID) != 0
        || (kernel && build_id)
        || !size.is_multiple_of(each)
    {
        return done(Err(Errno::EINVAL));
    }
    if frames.is_empty() {
        return done(Err(Errno::EFAULT));
    }
    let n = frames.len().min((size / 8) as usize);
    for (to, frame) in buffer.chunks_exact_mut(8).zip(frames) {
        to.copy_from_slice(&frame.to_le_bytes());
    }
    done(Ok(n as u64 * 8))
}

/// `bpf_get_stackid(ctx, map, flags)`
fn get_stackid(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let flags = a.r[2];
    if flags & !(SKIP | USER_STACK | FAST_STACK_CMP | REUSE_STACKID) != 0 {
        return done(Err(Errno::EINVAL));
    }
    let frames = trace(st, flags);
    if frames.is_empty() {
        return done(Err(Errno::EFAULT));
    }
    let keep = flags & (FAST_STACK_CMP | REUSE_STACKID);
    let fast = keep & FAST_STACK_CMP != 0;
    let reuse = keep & REUSE_STACKID != 0;
    match st.maps[map.at()].stack_id(&frames, fast, reuse) {
        Some(result) => done(result),
        None => a.bad(2),
    }
}
