//! Kfuncs on dynamic pointers.

use super::{Kfunc, row};
use crate::dynptr::{Dynptr, DynptrKind};
use crate::frags::{Spans, gather, scatter};
use crate::helper::dynptr::{copy, read_to, write_from};
use crate::helper::memory::{Space, fetch, fetch_string, read_memory, read_string};
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
        slice(st, mem, a, d)
    }),
    row("bpf_dynptr_slice_rdwr", false, |st, mem, a| {
        let d = Dynptr::read(mem, a, 1)?;
        slice(st, mem, a, d.filter(|d| !d.rdonly))
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

/// `bpf_dynptr_slice(p, offset, buffer, size)`: what of an XDP packet is not in one place is copied to the
/// buffer, if there is one.
fn slice(st: &mut State, mem: &mut GuestMem, a: &Args, d: Option<Dynptr>) -> Arg<Flow> {
    let (offset, len) = (a.r[1] as u32 as u64, a.r[3] as u32 as u64);
    let Some(d) = d.filter(|d| d.check(offset, len).is_ok()) else {
        return Ok(Flow::Done(0));
    };
    let at = d.slice(st, offset, len);
    let buffer = a.r[2];
    let spread = at.is_none() && d.kind == DynptrKind::Xdp && buffer != 0;
    let Some(ctx) = st.cur.ctx.fields().filter(|_| spread) else {
        return Ok(Flow::Done(at.unwrap_or(0)));
    };
    let bytes = gather(mem, &ctx.spans(d.offset as u64 + offset, len));
    match mem.slice_mut(buffer, bytes.len() as u64) {
        Some(to) => to.copy_from_slice(&bytes),
        None => return a.bad(3),
    }
    Ok(Flow::Done(buffer))
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
            let fits = |d: Option<Dynptr>, off| d.filter(|d| d.check(off, len).is_ok());
            let (Some(to), Some(from)) = (fits(to, to_off), fits(from, from_off)) else {
                return done32(Err(Errno::E2BIG));
            };
            let chunks = (0..len).step_by(CHUNK as usize);
            for done in chunks {
                let now = CHUNK.min(len - done);
                if let Err(errno) =
                    copy_spread(st, mem, (to, to_off + done), (from, from_off + done), now)
                {
                    return done32(Err(errno));
                }
            }
            done32(Ok(0))
        }
    }
}

/// What is in several places is copied in pieces of this size.
const CHUNK: u64 = 256;

/// Copies from one packet's pages to another's.
fn copy_spread(
    st: &State,
    mem: &mut GuestMem,
    (to, to_off): (Dynptr, u64),
    (from, from_off): (Dynptr, u64),
    len: u64,
) -> Result<(), Errno> {
    let spans = |d: Dynptr, off| d.xdp_spans(st, off, len).unwrap_or(Err(Errno::EINVAL));
    let bytes = gather(mem, &spans(from, from_off)?);
    if to.rdonly {
        return Err(Errno::EINVAL);
    }
    scatter(mem, &spans(to, to_off)?, &bytes);
    Ok(())
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

/// Where bytes lie that are to be written to and are not in one place.
fn spread(st: &State, d: Option<Dynptr>, offset: u64, len: u64) -> Option<Result<Spans, Errno>> {
    let d = d.filter(|d| !d.rdonly && d.check(offset, len).is_ok())?;
    d.xdp_spans(st, offset, len)
}

/// `bpf_dynptr_memset(p, offset, size, val)`
fn memset(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let d = Dynptr::read(mem, a, 1)?;
    let len = a.r[2] as u32 as u64;
    let offset = a.r[1] as u32 as u64;
    let result = dest(st, d, offset, len).map(|at| mem.slice_mut(at, len));
    if let (Err(_), Some(spans)) = (&result, spread(st, d, offset, len)) {
        return done32(spans.map(|spans| {
            scatter(mem, &spans, &vec![a.r[3] as u8; len as usize]);
            0
        }));
    }
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
    let offset = a.r[1] as u32 as u64;
    let to = match (dest(st, d, offset, len), spread(st, d, offset, len)) {
        (Ok(to), _) => to,
        (Err(_), Some(spans)) => {
            let bytes = match string {
                true => fetch_string(st, mem, a.r[3], len, space),
                false => fetch(st, mem, a.r[3], len, space),
            };
            return done32(spans.and_then(|spans| {
                let bytes = bytes?;
                scatter(mem, &spans, &bytes);
                Ok(if string { bytes.len() as u64 } else { 0 })
            }));
        }
        // What is not there or not to be written to is too small.
        (Err(_), None) => return done32(Err(Errno::E2BIG)),
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
