//! Helpers on dynamic pointers.

use super::{Arg, Args, Helper, ret, row};
use crate::dynptr::{Dynptr, DynptrKind};
use crate::frags::{gather, scatter};
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::DynptrFromMem, false, from_mem),
    row(Func::DynptrRead, true, read),
    row(Func::DynptrWrite, true, write),
    row(Func::DynptrData, false, data),
    row(Func::RingbufReserveDynptr, true, ringbuf_reserve),
    row(Func::RingbufSubmitDynptr, true, |st, mem, a| {
        ringbuf_commit(st, mem, a, false)
    }),
    row(Func::RingbufDiscardDynptr, true, |st, mem, a| {
        ringbuf_commit(st, mem, a, true)
    }),
];

fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

/// Copies memory that may overlap (`memmove`).
pub(crate) fn copy(mem: &mut GuestMem, a: &Args, to: u64, from: u64, len: u64) -> Arg<()> {
    let bytes = a.memory(mem, from, len)?;
    match mem.slice_mut(to, len) {
        Some(to) => to.copy_from_slice(&bytes),
        None => return a.bad(1),
    }
    Ok(())
}

/// Writes bytes to where a program is to have them.
fn write_bytes(mem: &mut GuestMem, a: &Args, to: u64, bytes: &[u8]) -> Arg<Result<u64, Errno>> {
    match mem.slice_mut(to, bytes.len() as u64) {
        Some(to) => to.copy_from_slice(bytes),
        None => return a.bad(1),
    }
    Ok(Ok(0))
}

/// `bpf_dynptr_from_mem(data, size, flags, ptr)`
fn from_mem(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let made = Dynptr::new(DynptrKind::Local, a.r[0], a.r[1] as u32);
    let made = made.and_then(|d| {
        if a.r[2] == 0 {
            Ok(d)
        } else {
            Err(Errno::EINVAL)
        }
    });
    Dynptr::write(mem, a, 4, made.ok())?;
    done(made.map(|_| 0))
}

/// `__bpf_dynptr_read`
pub(crate) fn read_to(
    st: &State,
    mem: &mut GuestMem,
    a: &Args,
    (to, len): (u64, u64),
    (from, offset): (Option<Dynptr>, u64),
    flags: u64,
) -> Arg<Result<u64, Errno>> {
    let Some(d) = from.filter(|_| flags == 0) else {
        return Ok(Err(Errno::EINVAL));
    };
    if let Err(errno) = d.check(offset, len) {
        return Ok(Err(errno));
    }
    if let Some(spans) = d.xdp_spans(st, offset, len) {
        return match spans {
            Ok(spans) => write_bytes(mem, a, to, &gather(mem, &spans)),
            Err(errno) => Ok(Err(errno)),
        };
    }
    match d.slice(st, offset, len) {
        Some(at) => copy(mem, a, to, at, len)?,
        None => {
            // The packet has become shorter: what was to be filled is cleared.
            if let Some(to) = mem.slice_mut(to, len) {
                to.fill(0);
            }
            return Ok(Err(Errno::EFAULT));
        }
    }
    Ok(Ok(0))
}

/// `__bpf_dynptr_write`
pub(crate) fn write_from(
    st: &State,
    mem: &mut GuestMem,
    a: &Args,
    (to, offset): (Option<Dynptr>, u64),
    (from, len): (u64, u64),
    flags: u64,
) -> Arg<Result<u64, Errno>> {
    /// `BPF_F_RECOMPUTE_CSUM`, `BPF_F_INVALIDATE_HASH`
    const SKB_FLAGS: u64 = 3;
    let Some(d) = to.filter(|d| !d.rdonly) else {
        return Ok(Err(Errno::EINVAL));
    };
    if let Err(errno) = d.check(offset, len) {
        return Ok(Err(errno));
    }
    let known = if d.kind == DynptrKind::Skb {
        SKB_FLAGS
    } else {
        0
    };
    if flags & !known != 0 {
        return Ok(Err(Errno::EINVAL));
    }
    if let Some(spans) = d.xdp_spans(st, offset, len) {
        let bytes = a.memory(mem, from, len)?;
        return Ok(spans.map(|spans| {
            scatter(mem, &spans, &bytes);
            0
        }));
    }
    match d.slice(st, offset, len) {
        Some(at) => copy(mem, a, at, from, len)?,
        None => return Ok(Err(Errno::EFAULT)),
    }
    Ok(Ok(0))
}

/// `bpf_dynptr_read(dst, len, src, offset, flags)`
fn read(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let from = Dynptr::read(mem, a, 3)?;
    done(read_to(
        st,
        mem,
        a,
        (a.r[0], a.r[1]),
        (from, a.r[3]),
        a.r[4],
    )?)
}

/// `bpf_dynptr_write(dst, offset, src, len, flags)`
fn write(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let to = Dynptr::read(mem, a, 1)?;
    done(write_from(
        st,
        mem,
        a,
        (to, a.r[1]),
        (a.r[2], a.r[3]),
        a.r[4],
    )?)
}

/// `bpf_dynptr_data(ptr, offset, len)`: of memory, not of packets.
fn data(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let d = Dynptr::read(mem, a, 1)?;
    let memory = |d: &Dynptr| matches!(d.kind, DynptrKind::Local | DynptrKind::Ringbuf);
    let at = d.filter(memory);
    let at = at.and_then(|d| d.slice_rdwr(st, a.r[1], a.r[2]));
    Ok(Flow::Done(at.unwrap_or(0)))
}

/// `bpf_ringbuf_reserve_dynptr(map, size, flags, ptr)`
fn ringbuf_reserve(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let size = a.r[1] as u32;
    let mut made = Err(Errno::EINVAL);
    if a.r[2] == 0 {
        made = Dynptr::new(DynptrKind::Ringbuf, 0, size);
    }
    if st.fails() {
        made = Err(Errno::EINVAL);
    }
    if let Ok(d) = made {
        let Some(ring) = st.maps[map.at()].ringbuf() else {
            return a.bad(1);
        };
        let sample = ring.reserve(mem, size as u64).ok_or(Errno::EINVAL);
        made = sample.map(|data| Dynptr { data, ..d });
    }
    Dynptr::write(mem, a, 4, made.ok())?;
    done(made.map(|_| 0))
}

/// `bpf_ringbuf_submit_dynptr`, `bpf_ringbuf_discard_dynptr`
fn ringbuf_commit(st: &mut State, mem: &mut GuestMem, a: &Args, discard: bool) -> Arg<Flow> {
    if let Some(d) = Dynptr::read(mem, a, 1)? {
        st.ringbuf_commit(mem, d.data, a.r[1], discard)
            .map_or_else(|| a.bad(1), Ok)?;
        Dynptr::write(mem, a, 1, None)?;
    }
    done(Ok(0))
}
