//! Helpers of programs on maps beyond look-up, update and delete.

use super::Map;
use super::ringbuf::{FORCE_WAKEUP, NO_WAKEUP};
use crate::frags::gather;
use crate::helper::{Arg, Args, Helper, ret, row};
use crate::ids::MapId;
use crate::state::State;
use bpfsim_abi::{Errno, Func, MapType};
use bpfsim_vm::{Flow, GuestMem};

/// The rows of the table of helpers that this module adds.
pub(crate) const HELPERS: &[Helper] = &[
    row(Func::MapPushElem, true, push),
    row(Func::MapPopElem, true, |st, mem, a| take(st, mem, a, true)),
    row(Func::MapPeekElem, true, |st, mem, a| {
        take(st, mem, a, false)
    }),
    row(Func::MapLookupPercpuElem, true, lookup_percpu),
    row(Func::RingbufOutput, true, ringbuf_output),
    row(Func::RingbufReserve, true, ringbuf_reserve),
    row(Func::RingbufSubmit, true, |st, mem, a| {
        ringbuf_commit(st, mem, a, false)
    }),
    row(Func::RingbufDiscard, true, |st, mem, a| {
        ringbuf_commit(st, mem, a, true)
    }),
    row(Func::RingbufQuery, true, ringbuf_query),
    row(Func::PerfEventOutput, true, perf_event_output),
    row(Func::TaskStorageGet, true, |st, mem, a| {
        storage_get(st, mem, a, MapType::TaskStorage)
    }),
    row(Func::TaskStorageDelete, true, |st, mem, a| {
        storage_delete(st, mem, a, MapType::TaskStorage)
    }),
    row(Func::SkStorageGet, true, |st, mem, a| {
        storage_get(st, mem, a, MapType::SkStorage)
    }),
    row(Func::SkStorageDelete, true, |st, mem, a| {
        storage_delete(st, mem, a, MapType::SkStorage)
    }),
    row(Func::InodeStorageGet, true, |st, mem, a| {
        storage_get(st, mem, a, MapType::InodeStorage)
    }),
    row(Func::InodeStorageDelete, true, |st, mem, a| {
        storage_delete(st, mem, a, MapType::InodeStorage)
    }),
    row(Func::CgrpStorageGet, true, |st, mem, a| {
        storage_get(st, mem, a, MapType::CgrpStorage)
    }),
    row(Func::CgrpStorageDelete, true, |st, mem, a| {
        storage_delete(st, mem, a, MapType::CgrpStorage)
    }),
];

fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

fn value_size(st: &State, map: MapId) -> u64 {
    st.maps[map.at()].spec.value_size as u64
}

/// `bpf_map_push_elem`
fn push(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let value = a.bytes(mem, 2, value_size(st, map))?;
    let (m, mut op) = st.map_op(mem, map);
    done(m.push(&mut op, &value, a.r[2]).map(|()| 0))
}

/// `bpf_map_pop_elem`, `bpf_map_peek_elem`
fn take(st: &mut State, mem: &mut GuestMem, a: &Args, delete: bool) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let mut value = a.bytes(mem, 2, value_size(st, map))?;
    let (m, mut op) = st.map_op(mem, map);
    let result = m.take(&mut op, &mut value, delete);
    match mem.slice_mut(a.r[1], value.len() as u64) {
        Some(to) => to.copy_from_slice(&value),
        None => return a.bad(2),
    }
    done(result.map(|()| 0))
}

/// `bpf_map_lookup_percpu_elem`
fn lookup_percpu(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let key = a.key(st, mem, map, 2)?;
    let (m, mut op) = st.map_op(mem, map);
    let found = m.lookup_percpu(&mut op, &key, a.r[2] as u32);
    Ok(Flow::Done(found.unwrap_or(0)))
}

/// The ring buffer that argument 1 is.
fn ringbuf<'a>(st: &'a mut State, a: &Args) -> Arg<&'a mut super::Ringbuf> {
    let map = a.map(st, 1)?;
    st.maps[map.at()].ringbuf().map_or_else(|| a.bad(1), Ok)
}

/// `bpf_ringbuf_output`
fn ringbuf_output(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let flags = a.r[3];
    if flags & !(NO_WAKEUP | FORCE_WAKEUP) != 0 {
        return done(Err(Errno::EINVAL));
    }
    let data = a.bytes(mem, 2, a.r[2])?;
    let rb = ringbuf(st, a)?;
    let Some(sample) = rb.reserve(mem, data.len() as u64) else {
        return done(Err(Errno::EAGAIN));
    };
    if let Some(to) = mem.slice_mut(sample, data.len() as u64) {
        to.copy_from_slice(&data);
    }
    rb.commit(mem, sample, flags, false);
    done(Ok(0))
}

/// `bpf_ringbuf_reserve`
fn ringbuf_reserve(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if a.r[2] != 0 {
        return Ok(Flow::Done(0));
    }
    let sample = ringbuf(st, a)?.reserve(mem, a.r[1]);
    Ok(Flow::Done(sample.unwrap_or(0)))
}

/// `bpf_ringbuf_submit`, `bpf_ringbuf_discard`
fn ringbuf_commit(st: &mut State, mem: &mut GuestMem, a: &Args, discard: bool) -> Arg<Flow> {
    match st.ringbuf_commit(mem, a.r[0], a.r[1], discard) {
        Some(()) => Ok(Flow::Done(0)),
        None => a.bad(1),
    }
}

impl State {
    /// `bpf_ringbuf_commit` in whatever ring the sample lies; `None` where it lies in none.
    pub fn ringbuf_commit(
        &mut self,
        mem: &mut GuestMem,
        sample: u64,
        flags: u64,
        discard: bool,
    ) -> Option<()> {
        let ring = self.maps.iter_mut().find(|m| m.has_sample(sample));
        let rb = ring.and_then(Map::ringbuf)?;
        rb.commit(mem, sample, flags, discard)
    }
}

/// `bpf_ringbuf_query`
fn ringbuf_query(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    Ok(Flow::Done(ringbuf(st, a)?.query(a.r[1])))
}

/// `BPF_F_INDEX_MASK`, also `BPF_F_CURRENT_CPU`; `BPF_F_CTXLEN_MASK`
const INDEX: u64 = 0xffff_ffff;
const CTXLEN: u64 = 0xf_ffff << 32;

/// `bpf_perf_event_output`, also as programs with a packet have it: the packet's first bytes
/// follow the data.
fn perf_event_output(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let (flags, cpu) = (a.r[2], st.cur.cpu);
    let packet = st.cur.ctx.fields().filter(|ctx| ctx.packet.is_some());
    let known = if packet.is_some() {
        INDEX | CTXLEN
    } else {
        INDEX
    };
    if flags & !known != 0 {
        return done(Err(Errno::EINVAL));
    }
    let more = (flags & CTXLEN) >> 32;
    let mut sample = a.bytes(mem, 4, a.r[4])?.into_vec();
    if let Some(ctx) = packet {
        if more > ctx.buff_len() {
            return done(Err(Errno::EFAULT));
        }
        sample.extend(gather(mem, &ctx.spans(0, more)));
    }
    let index = match flags & INDEX {
        INDEX => cpu.0,
        index => index as u32,
    };
    let full = st.fails();
    match st.maps[map.at()].perf(index) {
        Some(result) => done(
            result
                .and_then(|event| event.output(cpu, sample, full))
                .map(|()| 0),
        ),
        None => a.bad(2),
    }
}

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`
const CREATE: u64 = 1;

/// `bpf_task_storage_get` and its like: an element of an object that argument 2 points to.
fn storage_get(st: &mut State, mem: &mut GuestMem, a: &Args, is: MapType) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    let (owner, flags) = (a.r[1], a.r[3]);
    if st.maps[map.at()].spec.map_type != is {
        return a.bad(1);
    }
    if flags & !CREATE != 0 || owner == 0 {
        return Ok(Flow::Done(0));
    }
    let owner = st.world.sock_identity(owner).to_le_bytes();
    let (m, mut op) = st.map_op(mem, map);
    if let Some(value) = m.lookup(&mut op, &owner) {
        return Ok(Flow::Done(value));
    }
    if flags & CREATE == 0 {
        return Ok(Flow::Done(0));
    }
    let size = value_size(st, map);
    let value = if a.r[2] == 0 {
        smallvec::smallvec![0; size as usize]
    } else {
        a.bytes(mem, 3, size)?
    };
    let (m, mut op) = st.map_op(mem, map);
    let made = m.update(&mut op, &owner, &value, super::update::NOEXIST);
    let value = made.ok().and_then(|()| m.lookup(&mut op, &owner));
    Ok(Flow::Done(value.unwrap_or(0)))
}

/// `bpf_task_storage_delete` and its like.
fn storage_delete(st: &mut State, mem: &mut GuestMem, a: &Args, is: MapType) -> Arg<Flow> {
    let map = a.map(st, 1)?;
    if st.maps[map.at()].spec.map_type != is {
        return a.bad(1);
    }
    if a.r[1] == 0 {
        return done(Err(Errno::EINVAL));
    }
    let owner = st.world.sock_identity(a.r[1]).to_le_bytes();
    let (result, _) = st.map_delete(mem, map, &owner);
    done(result.map(|()| 0))
}
