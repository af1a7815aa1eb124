//! Helpers on XDP packets.

use super::packet::{done, fields, packet, show};
use super::{Arg, Args, Helper, row};
use crate::frags::{gather, scatter};
use crate::packet::{ETH_HLEN, Packet};
use crate::state::State;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

/// `sizeof(struct xdp_frame)`: room at the head of a buffer that stays the kernel's.
const XDP_FRAME: u64 = 40;

pub(super) const HELPERS: &[Helper] = &[
    row(Func::XdpLoadBytes, false, xdp_load_bytes),
    row(Func::XdpStoreBytes, false, xdp_store_bytes),
    row(Func::XdpGetBuffLen, false, |st, _, a| {
        Ok(Flow::Done(fields(st, a)?.buff_len()))
    }),
    row(Func::XdpAdjustHead, false, xdp_adjust_head),
    row(Func::XdpAdjustTail, false, xdp_adjust_tail),
    row(Func::XdpAdjustMeta, false, xdp_adjust_meta),
];

/// `bpf_xdp_load_bytes`
fn xdp_load_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let len = a.r[3] as u32 as u64;
    let spans = fields(st, a)?.whole_spans(a.r[1] as u32 as u64, len);
    let bytes = spans.map(|spans| gather(mem, &spans));
    let Some(to) = mem.slice_mut(a.r[2], len) else {
        return a.bad(3);
    };
    done(bytes.map(|bytes| {
        to.copy_from_slice(&bytes);
        0
    }))
}

/// `bpf_xdp_store_bytes`
fn xdp_store_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let bytes = a.bytes(mem, 3, a.r[3] as u32 as u64)?;
    let spans = fields(st, a)?.whole_spans(a.r[1] as u32 as u64, bytes.len() as u64);
    done(spans.map(|spans| {
        scatter(mem, &spans, &bytes);
        0
    }))
}

/// `bpf_xdp_pull_data(x, len)`: the head is to hold so much of the packet; what has no room behind it
/// has it move to the front.
pub(crate) fn pull_data(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let len = a.r[1] as u32 as u64;
    let done32 = |result: Result<u64, Errno>| Ok(Flow::Done(super::ret(result) as u32 as u64));
    if len <= p.len() {
        return done32(Ok(0));
    }
    let delta = len - p.len();
    let (before, behind) = ((p.meta - p.head).saturating_sub(XDP_FRAME), p.tail - p.end);
    if len > fields(st, a)?.buff_len() || delta > before + behind {
        return done32(Err(Errno::EINVAL));
    }
    let shift = delta.saturating_sub(behind);
    if shift > 0 {
        let bytes = a.memory(mem, p.meta, p.end - p.meta)?;
        match mem.slice_mut(p.meta - shift, bytes.len() as u64) {
            Some(to) => to.copy_from_slice(&bytes),
            None => return a.bad(1),
        }
    }
    let end = p.end - shift;
    let moved = Packet {
        meta: p.meta - shift,
        data: p.data - shift,
        end: end + delta,
        ..p
    };
    let ctx = fields(st, a)?;
    ctx.pull_frags(mem, end, delta);
    ctx.show(moved);
    mem.expose(moved.meta, moved.end - moved.meta);
    done32(Ok(0))
}

/// `bpf_xdp_adjust_head`: metadata moves along.
fn xdp_adjust_head(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let delta = a.r[1] as i32 as i64;
    let meta_len = p.data - p.meta;
    let data = p.data.wrapping_add_signed(delta);
    if data < p.head + XDP_FRAME + meta_len || data > p.end - ETH_HLEN {
        return done(Err(Errno::EINVAL));
    }
    if meta_len > 0 {
        let bytes = a.memory(mem, p.meta, meta_len)?;
        match mem.slice_mut(data - meta_len, meta_len) {
            Some(to) => to.copy_from_slice(&bytes),
            None => return a.bad(1),
        }
    }
    show(
        st,
        Packet {
            data,
            meta: data - meta_len,
            ..p
        },
    );
    done(Ok(0))
}

/// `bpf_xdp_adjust_tail`: what it grows by is zero.
fn xdp_adjust_tail(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let ctx = fields(st, a)?;
    if !ctx.frags.is_empty() {
        let result = ctx.adjust_frags(mem, a.r[1] as i32).map(|cut| {
            let end = p.end - cut;
            ctx.show(Packet { end, ..p });
            0
        });
        return done(result);
    }
    let end = p.end.wrapping_add_signed(a.r[1] as i32 as i64);
    if end > p.tail || end < p.data + ETH_HLEN {
        return done(Err(Errno::EINVAL));
    }
    if end > p.end
        && let Some(grown) = mem.slice_mut(p.end, end - p.end)
    {
        grown.fill(0);
    }
    show(st, Packet { end, ..p });
    done(Ok(0))
}

/// `bpf_xdp_adjust_meta`
fn xdp_adjust_meta(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let meta = p.meta.wrapping_add_signed(a.r[1] as i32 as i64);
    let len = p.data.wrapping_sub(meta);
    if meta < p.head + XDP_FRAME || meta > p.data {
        return done(Err(Errno::EINVAL));
    }
    if !len.is_multiple_of(4) || len > 32 {
        return done(Err(Errno::EACCES));
    }
    show(st, Packet { meta, ..p });
    done(Ok(0))
}
