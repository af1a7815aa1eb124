//! Kfuncs on dynamic pointers.

use super::{Kfunc, row};
use crate::dynptr::{Dynptr, DynptrKind};
use crate::helper::dynptr::{copy, read_to, write_from};
use crate::helper::memory::{Space, read_memory, read_string};
use crate::helper::{Arg, Args, ret};
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_dynptr_from_skb", false, |st, mem, a| {
        from_packet(st, mem, a, DynptrKind::Skb)
    }),
    row("bpf_dynptr_from_xdp", false, |st, mem, a| {
        from_packet(st, mem, a, DynptrKind::Xdp)
    }),
    row("bpf_dynptr_from_skb_meta", false, |st, mem, a| {
        from_packet(st, mem, a, DynptrKind::SkbMeta)
    }),
    row("bpf_dynptr_slice", false, |st, mem, a| {
        let d = Dynptr::read(mem, a, 1)?;
        let at = d.and_then(|d| d.slice(st, a.r[1] as u32 as u64, a.r[3] as u32 as u64));
        Ok(Flow::Done(at.unwrap_or(0)))
    }),
    row("bpf_dynptr_slice_rdwr", false, |st, mem, a| {
        let d = Dynptr::read(mem, a, 1)?;
        let at = d.and_then(|d| d.slice_rdwr(st, a.r[1] as u32 as u64, a.r[3] as u32 as u64));
        Ok(Flow::Done(at.unwrap_or(0)))
    }),
    row("bpf_dynptr_adjust", false, adjust),
    row("bpf_dynptr_is_null", false, |_, mem, a| {
        Ok(Flow::Done(Dynptr::read(mem, a, 1)?.is_none() as u64))
    }),
    row("bpf_dynptr_is_rdonly", false, |_, mem, a| {
        let d = Dynptr::read(mem, a, 1)?;
        Ok(Flow::Done(d.is_some_and(|d| d.rdonly) as u64))
    }),
    row("bpf_dynptr_size", false, |_, mem, a| {
        let size = Dynptr::read(mem, a, 1)?.map(|d| d.size as u64);
        done32(size.ok_or(Errno::EINVAL))
    }),
    row("bpf_dynptr_clone", false, |_, mem, a| {
        let d = Dynptr::read(mem, a, 1)?;
        Dynptr::write(mem, a, 2, d)?;
        done32(d.map(|_| 0).ok_or(Errno::EINVAL))
    }),
    row("bpf_dynptr_copy", true, dynptr_copy),
    row("bpf_dynptr_memset", true, memset),
    row("bpf_probe_read_kernel_dynptr", true, |st, mem, a| {
        probe(st, mem, a, Space::Kernel, false)
    }),
    row("bpf_probe_read_kernel_str_dynptr", true, |st, mem, a| {
        probe(st, mem, a, Space::Kernel, true)
    }),
    row("bpf_probe_read_user_dynptr", true, |st, mem, a| {
        probe(st, mem, a, Space::User(st.cur.task), false)
    }),
    row("bpf_probe_read_user_str_dynptr", true, |st, mem, a| {
        probe(st, mem, a, Space::User(st.cur.task), true)
    }),
    row("bpf_copy_from_user_dynptr", true, |st, mem, a| {
        from_user(st, mem, a, false, false)
    }),
    row("bpf_copy_from_user_str_dynptr", true, |st, mem, a| {
        from_user(st, mem, a, false, true)
    }),
    row("bpf_copy_from_user_task_dynptr", true, |st, mem, a| {
        from_user(st, mem, a, true, false)
    }),
    row("bpf_copy_from_user_task_str_dynptr", true, |st, mem, a| {
        from_user(st, mem, a, true, true)
    }),
];

/// What a function that returns `int` or `u32` leaves in R0.
fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// `bpf_dynptr_from_skb(ctx, flags, ptr)` and its like.
fn from_packet(st: &mut State, mem: &mut GuestMem, a: &Args, kind: DynptrKind) -> Arg<Flow> {
    let made = Dynptr::of_packet(st, a, kind)?;
    Dynptr::write(mem, a, 3, made.ok())?;
    done32(made.map(|_| 0))
}

/// `bpf_dynptr_adjust(p, start, end)`
fn adjust(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (start, end) = (a.r[1] as u32, a.r[2] as u32);
    let Some(d) = Dynptr::read(mem, a, 1)?.filter(|_| start <= end) else {
        return done32(Err(Errno::EINVAL));
    };
    if start > d.size || end > d.size {
        return done32(Err(Errno::ERANGE));
    }
    let d = Dynptr {
        offset: d.offset.wrapping_add(start),
        size: end - start,
        ..d
    };
    Dynptr::write(mem, a, 1, Some(d))?;
    done32(Ok(0))
}

/// `bpf_dynptr_copy(dst, dst_off, src, src_off, size)`
fn dynptr_copy(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (to, from) = (Dynptr::read(mem, a, 1)?, Dynptr::read(mem, a, 3)?);
    let [_, to_off, _, from_off, len] = a.r.map(|r| r as u32 as u64);
    let source = from.and_then(|d| d.slice(st, from_off, len));
    let dest = to.and_then(|d| d.slice_rdwr(st, to_off, len));
    match (source, dest) {
        (Some(source), Some(dest)) => {
            copy(mem, a, dest, source, len)?;
            done32(Ok(0))
        }
        (Some(source), None) => done32(write_from(st, mem, a, (to, to_off), (source, len), 0)?),
        (None, Some(dest)) => done32(read_to(st, mem, a, (dest, len), (from, from_off), 0)?),
        (None, None) => {
            let fits = |d: Option<Dynptr>, off| d.is_some_and(|d| d.check(off, len).is_ok());
            let fits = fits(to, to_off) && fits(from, from_off);
            done32(Err(if fits { Errno::EINVAL } else { Errno::E2BIG }))
        }
    }
}

/// Memory to write to, or why there is none.
fn dest(st: &State, d: Option<Dynptr>, offset: u64, len: u64) -> Result<u64, Errno> {
    if let Some(at) = d.and_then(|d| d.slice_rdwr(st, offset, len)) {
        return Ok(at);
    }
    let fits = d.is_some_and(|d| d.check(offset, len).is_ok());
    let rdonly = d.is_some_and(|d| d.rdonly);
    Err(if fits || rdonly {
        Errno::EINVAL
    } else {
        Errno::E2BIG
    })
}

/// `bpf_dynptr_memset(p, offset, size, val)`
fn memset(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let d = Dynptr::read(mem, a, 1)?;
    let len = a.r[2] as u32 as u64;
    let result = dest(st, d, a.r[1] as u32 as u64, len).map(|at| mem.slice_mut(at, len));
    match result {
        Ok(Some(bytes)) => bytes.fill(a.r[3] as u8),
        Ok(None) => return a.bad(1),
        Err(errno) => return done32(Err(errno)),
    }
    done32(Ok(0))
}

/// `bpf_probe_read_*_dynptr(dptr, off, size, src)`
fn probe(st: &mut State, mem: &mut GuestMem, a: &Args, space: Space, string: bool) -> Arg<Flow> {
    let d = Dynptr::read(mem, a, 1)?;
    let len = a.r[2] as u32 as u64;
    let to = match dest(st, d, a.r[1] as u32 as u64, len) {
        Ok(to) => to,
        // What is not there or not to be written to is too small.
        Err(_) => return done32(Err(Errno::E2BIG)),
    };
    let result = match string {
        true => read_string(st, mem, a, (to, len), a.r[3], space)?,
        false => read_memory(st, mem, a, (to, len), a.r[3], space)?,
    };
    done32(result)
}

/// `bpf_copy_from_user_*_dynptr(dptr, off, size, src)`, and with a task as fifth argument.
fn from_user(st: &mut State, mem: &mut GuestMem, a: &Args, given: bool, string: bool) -> Arg<Flow> {
    let task = if given { a.task(st, 5)? } else { st.cur.task };
    let len = if string { 1 } else { a.r[2] as u32 as u64 };
    if st.user_fault(task, a.r[3], len) {
        return Ok(Flow::Suspend);
    }
    probe(st, mem, a, Space::User(task), string)
}
