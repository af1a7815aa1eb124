//! Lightweight tunnels: headers put around packets of a route, and segment routing headers
//! (RFC 8754) pushed, changed and acted on.

use super::packet::{done, fields, packet, show};
use super::room::{pop, push, set_protocol};
use super::{Arg, Args, Helper, row};
use crate::packet::{ETH_HLEN, FieldsCtx, Packet};
use crate::state::State;
use crate::world::{LOCAL, MAIN, RouteKind, octets};
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func, ProgType};
use bpfsim_vm::{Flow, GuestMem};
use std::net::{IpAddr, Ipv6Addr};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::LwtPushEncap, false, push_encap),
    row(Func::LwtSeg6StoreBytes, false, store_bytes),
    row(Func::LwtSeg6AdjustSrh, false, adjust_srh),
    row(Func::LwtSeg6Action, true, action),
];

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPHDR: usize = 20;
const IPV6HDR: u64 = 40;
const UDPHDR: usize = 8;
/// `LWT_BPF_MAX_HEADROOM`
const MAX_HEADROOM: usize = 256;

/// `IPPROTO_*`, `NEXTHDR_*`
const UDP: u8 = 17;
const IPV6: u8 = 41;
const HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTH: u8 = 51;
const DEST: u8 = 60;

/// `enum bpf_lwt_encap_mode`
mod encap {
    pub const SEG6: u32 = 0;
    pub const SEG6_INLINE: u32 = 1;
    pub const IP: u32 = 2;
}

/// `SEG6_LOCAL_ACTION_*`
mod local {
    pub const END_X: u32 = 2;
    pub const END_T: u32 = 3;
    pub const END_DT6: u32 = 7;
    pub const END_B6: u32 = 9;
    pub const END_B6_ENCAP: u32 = 10;
}

/// `bpf_lwt_push_encap(skb, type, hdr, len)`
fn push_encap(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let header = a.bytes(mem, 3, a.r[3] as u32 as u64)?;
    let output = st.progs[st.cur.prog.at()].prog_type == ProgType::LwtXmit;
    done(match a.r[1] as u32 {
        encap::IP => push_ip(st, mem, a, p, &header)?,
        kind @ (encap::SEG6 | encap::SEG6_INLINE) if !output => {
            push_seg6(st, mem, a, kind == encap::SEG6_INLINE, &header)?
        }
        _ => Err(Errno::EINVAL),
    })
}

/// `bpf_lwt_push_ip_encap`
fn push_ip(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    p: Packet,
    header: &[u8],
) -> Arg<Result<u64, Errno>> {
    let Some(protocol) = ip_header(header) else {
        return Ok(Err(Errno::EINVAL));
    };
    let pushed = match push(mem, p, 0, header.len() as u64) {
        Ok(packet) => packet,
        Err(errno) => return Ok(Err(errno)),
    };
    if let Some(to) = mem.slice_mut(pushed.data, header.len() as u64) {
        to.copy_from_slice(header);
        if protocol == ETH_P_IP && to[10..12] == [0, 0] {
            let sum = ip_fast_csum(to);
            to[10..12].copy_from_slice(&sum);
        }
    }
    show(st, pushed);
    let ctx = fields(st, a)?;
    ctx.skb.encapsulation = true;
    ctx.set(CtxSlot::SkbHash, 0);
    set_protocol(ctx, protocol);
    // Of segments those of TCP only, which test packets are not.
    let gso = ctx.get(CtxSlot::SkbGsoSize) != 0;
    Ok(if gso { Err(Errno::ENOTSUPP) } else { Ok(0) })
}

/// The protocol of a header that is one of IP, with what follows of UDP, and all there.
fn ip_header(header: &[u8]) -> Option<u16> {
    if !(IPHDR..=MAX_HEADROOM).contains(&header.len()) {
        return None;
    }
    let (len, next, protocol) = match header[0] >> 4 {
        4 => ((header[0] & 0xf) as usize * 4, header[9], ETH_P_IP),
        6 => (IPV6HDR as usize, header[6], ETH_P_IPV6),
        _ => return None,
    };
    let udp = if next == UDP { UDPHDR } else { 0 };
    (header.len() >= len + udp).then_some(protocol)
}

/// The checksum of an IPv4 header, as x86-64 makes it: of fewer than five words it is the first.
fn ip_fast_csum(header: &[u8]) -> [u8; 2] {
    let words = (header[0] & 0xf) as usize;
    if words < 5 {
        return [header[0], header[1]];
    }
    let words = header[..4 * words].chunks(2);
    let mut sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A segment routing header that a program works on (`struct seg6_bpf_srh_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Srh {
    at: u64,
    /// Bytes behind its first eight.
    len: i32,
    /// It was not changed since it was looked at.
    valid: bool,
}

/// Offsets in `struct ipv6_sr_hdr`, and its size.
mod srh {
    pub const HDRLEN: usize = 1;
    pub const TYPE: usize = 2;
    pub const SEGMENTS_LEFT: usize = 3;
    pub const FIRST_SEGMENT: usize = 4;
    pub const FLAGS: usize = 5;
    pub const SEGMENTS: usize = 8;
    /// `IPV6_SRCRT_TYPE_4`
    pub const TYPE_4: u8 = 4;
    /// `SR6_FLAG1_HMAC`
    pub const HMAC: u8 = 1 << 3;
}

/// `seg6_validate_srh`
fn is_srh(bytes: &[u8], reduced: bool) -> bool {
    if bytes.len() < srh::SEGMENTS
        || bytes[srh::TYPE] != srh::TYPE_4
        || (bytes[srh::HDRLEN] as usize + 1) << 3 != bytes.len()
    {
        return false;
    }
    let (left, first) = (
        bytes[srh::SEGMENTS_LEFT] as i32,
        bytes[srh::FIRST_SEGMENT] as i32,
    );
    let last = bytes[srh::HDRLEN] as i32 / 2 - 1;
    if !reduced && left > first || first > last || left > first + 1 {
        return false;
    }
    let mut rest = match bytes.get(srh::SEGMENTS + 16 * (first as usize + 1)..) {
        Some(rest) => rest,
        None => return false,
    };
    while !rest.is_empty() {
        let Some(next) = rest.get(1).and_then(|&len| rest.get(2 + len as usize..)) else {
            return false;
        };
        rest = next;
    }
    true
}

/// `ipv6_find_hdr`: where in an IPv6 packet a header of this kind begins. Of routing headers only
/// those that have segments left, if `left` says so.
fn find_header(ip: &[u8], target: u8, left: bool) -> Option<usize> {
    let mut next = *ip.get(..IPV6HDR as usize)?.get(6)?;
    let mut off = IPV6HDR as usize;
    loop {
        let extension = matches!(next, HOP | ROUTING | FRAGMENT | AUTH | DEST);
        if !extension {
            return (next == target).then_some(off);
        }
        let header = ip.get(off..off + 8)?;
        let finished = next != ROUTING || !left || header[srh::SEGMENTS_LEFT] != 0;
        if next == target && finished {
            return Some(off);
        }
        let len = match next {
            // Behind what is not the first fragment there is nothing to be found.
            FRAGMENT if u16::from_be_bytes([header[2], header[3]]) & !7 != 0 => return None,
            FRAGMENT => 8,
            AUTH => (header[1] as usize + 2) << 2,
            _ => (header[1] as usize + 1) << 3,
        };
        next = header[0];
        off += len;
    }
}

fn whole(mem: &GuestMem, p: Packet) -> &[u8] {
    mem.slice(p.data, p.len()).unwrap_or(&[])
}

/// `get_and_validate_srh`: where the segment routing header of an IPv6 packet is that comes to a
/// route with `End.BPF`. None of packets that are dropped before a program sees them.
pub(crate) fn arriving(ip: &[u8]) -> Option<std::ops::Range<usize>> {
    let at = find_header(ip, ROUTING, true)?;
    let range = at..at + ((ip[at + srh::HDRLEN] as usize + 1) << 3);
    is_srh(ip.get(range.clone())?, true).then_some(range)
}

/// `advance_nextseg`: the next segment becomes the destination.
pub(crate) fn advance(mem: &mut GuestMem, p: Packet) -> Option<Srh> {
    let range = arriving(whole(mem, p))?;
    let ip = mem.slice_mut(p.data, p.len())?;
    let header = &mut ip[range.clone()];
    header[srh::SEGMENTS_LEFT] -= 1;
    let segment = srh::SEGMENTS + 16 * header[srh::SEGMENTS_LEFT] as usize;
    let mut to = [0; 16];
    to.copy_from_slice(header.get(segment..segment + 16)?);
    ip[24..40].copy_from_slice(&to);
    Some(Srh {
        at: p.data + range.start as u64,
        len: range.len() as i32 - 8,
        valid: true,
    })
}

/// `seg6_bpf_has_valid_srh`: the header is one again, if it was changed.
pub(crate) fn has_valid_srh(ctx: &mut FieldsCtx, mem: &mut GuestMem) -> bool {
    let Some(state) = &mut ctx.skb.srh else {
        return false;
    };
    if state.valid {
        return true;
    }
    if state.len & 7 != 0 {
        return false;
    }
    let words = (state.len >> 3) as u8;
    let Some(header) = mem.slice_mut(state.at, (words as u64 + 1) << 3) else {
        return false;
    };
    header[srh::HDRLEN] = words;
    state.valid = is_srh(header, true);
    state.valid
}

/// `bpf_update_srh_state`
fn look_again(ctx: &mut FieldsCtx, mem: &GuestMem, p: Packet) {
    let ip = whole(mem, p);
    ctx.skb.srh = find_header(ip, ROUTING, false).map(|off| Srh {
        at: p.data + off as u64,
        len: (ip[off + srh::HDRLEN] as i32) << 3,
        valid: true,
    });
}

/// `bpf_push_seg6_encap`
fn push_seg6(
    st: &mut State,
    mem: &mut GuestMem,
    a: &Args,
    inline: bool,
    header: &[u8],
) -> Arg<Result<u64, Errno>> {
    if !is_srh(header, false) {
        return Ok(Err(Errno::EINVAL));
    }
    let p = packet(st, a)?;
    let ctx = fields(st, a)?;
    let protocol = u16::from_be(ctx.get(CtxSlot::SkbProtocol) as u16);
    if inline && protocol != ETH_P_IPV6 {
        return Ok(Err(Errno::EBADMSG));
    }
    ctx.skb.encapsulation |= !inline;
    let pushed = match inline {
        true => srh_inline(mem, p, header),
        false => srh_around(st, mem, p, protocol, header),
    };
    let packet = match pushed {
        Ok(packet) => packet,
        Err(errno) => return Ok(Err(errno)),
    };
    show(st, packet);
    if header[srh::FLAGS] & srh::HMAC != 0 {
        return Ok(Err(hmac(header)));
    }
    Ok(next_hop(st, mem, packet, None, 0))
}

/// `seg6_push_hmac`: nobody has given the kernel a key.
fn hmac(header: &[u8]) -> Errno {
    const TLV_HMAC: u8 = 5;
    const TLV_LEN: u8 = 38;
    let tlv = srh::SEGMENTS + 16 * (header[srh::FIRST_SEGMENT] as usize + 1);
    match header.get(tlv..tlv + 40) {
        Some([TLV_HMAC, TLV_LEN, ..]) => Errno::ENOENT,
        _ => Errno::EINVAL,
    }
}

/// `seg6_do_srh_inline`: behind the packet's own header; the destination is the last segment.
fn srh_inline(mem: &mut GuestMem, p: Packet, header: &[u8]) -> Result<Packet, Errno> {
    let pushed = push(mem, p, IPV6HDR, header.len() as u64)?;
    let ip = mem
        .slice_mut(pushed.data, IPV6HDR + header.len() as u64)
        .ok_or(Errno::ENOMEM)?;
    let (ip, to) = ip.split_at_mut(IPV6HDR as usize);
    to.copy_from_slice(header);
    to[0] = ip[6];
    ip[6] = ROUTING;
    to[srh::SEGMENTS..srh::SEGMENTS + 16].copy_from_slice(&ip[24..40]);
    finish_srh(ip, to, pushed);
    Ok(pushed)
}

/// `seg6_do_srh_encap`: with an IPv6 header of its own, around the packet.
fn srh_around(
    st: &State,
    mem: &mut GuestMem,
    p: Packet,
    protocol: u16,
    header: &[u8],
) -> Result<Packet, Errno> {
    /// `IPV6_DEFAULT_HOPLIMIT`
    const HOPS: u8 = 64;
    let inner = mem.slice(p.data, IPV6HDR).filter(|_| p.len() >= IPV6HDR);
    let inner: Option<[u8; IPV6HDR as usize]> = inner.and_then(|b| b.try_into().ok());
    let inner = inner.filter(|_| protocol == ETH_P_IPV6);
    let pushed = push(mem, p, 0, IPV6HDR + header.len() as u64)?;
    let ip = mem
        .slice_mut(pushed.data, IPV6HDR + header.len() as u64)
        .ok_or(Errno::ENOMEM)?;
    let (ip, to) = ip.split_at_mut(IPV6HDR as usize);
    to.copy_from_slice(header);
    to[0] = IPV6;
    ip.fill(0);
    // Traffic class and flow label are the packet's, and so is the hop limit.
    match inner {
        Some(inner) => {
            ip[..4].copy_from_slice(&inner[..4]);
            ip[7] = inner[7];
        }
        None => ip[7] = HOPS,
    }
    ip[0] = 0x60 | ip[0] & 0xf;
    ip[6] = ROUTING;
    finish_srh(ip, to, pushed);
    let dest = destination(ip);
    let route = st.world.route(dest, None);
    if let Some(source) = route.and_then(|r| r.source) {
        ip[8..24].copy_from_slice(&octets(source));
    }
    Ok(pushed)
}

/// The destination and length that follow from a segment routing header.
fn finish_srh(ip: &mut [u8], header: &[u8], p: Packet) {
    let segment = srh::SEGMENTS + 16 * header[srh::FIRST_SEGMENT] as usize;
    if let Some(to) = header.get(segment..segment + 16) {
        ip[24..40].copy_from_slice(to);
    }
    ip[4..6].copy_from_slice(&((p.len() - IPV6HDR) as u16).to_be_bytes());
}

fn destination(ip: &[u8]) -> IpAddr {
    let mut to = [0; 16];
    to.copy_from_slice(&ip[24..40]);
    Ipv6Addr::from(to).into()
}

/// `seg6_lookup_nexthop`: whether there is a way from here to an address, or to the packet's
/// destination. The packet is then sent that way.
fn next_hop(
    st: &State,
    mem: &GuestMem,
    p: Packet,
    to: Option<IpAddr>,
    table: u32,
) -> Result<u64, Errno> {
    let dest = match (to, whole(mem, p).get(..IPV6HDR as usize)) {
        (Some(to), _) => to,
        (None, Some(ip)) => destination(ip),
        (None, None) => return Err(Errno::EINVAL),
    };
    let known = |t: u32| matches!(t, MAIN | LOCAL) || st.world.routes.iter().any(|r| r.table == t);
    let table = match table {
        0 => None,
        t if known(t) => Some(t),
        _ => return Err(Errno::EINVAL),
    };
    match st.world.route(dest, table).map(|r| r.kind) {
        Some(RouteKind::Unicast) => Ok(0),
        // What is for this machine is not wanted here, and goes into the black hole.
        Some(RouteKind::Local | RouteKind::Blackhole) => Err(Errno::EINVAL),
        Some(RouteKind::Unreachable) => Err(Errno::EHOSTUNREACH),
        Some(RouteKind::Prohibit) => Err(Errno::EACCES),
        None => Err(Errno::ENETUNREACH),
    }
}

/// `bpf_lwt_seg6_store_bytes(skb, offset, from, len)`
fn store_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let bytes = a.bytes(mem, 3, a.r[3] as u32 as u64)?;
    let (offset, len) = (a.r[1] as u32 as u64, bytes.len() as u64);
    let ctx = fields(st, a)?;
    let Some(state) = &mut ctx.skb.srh else {
        return done(Err(Errno::EINVAL));
    };
    let Some(first) = mem.slice(state.at, 8).map(|h| h[srh::FIRST_SEGMENT]) else {
        return done(Err(Errno::EINVAL));
    };
    // From where on Linux lets programs write: eight bytes before the TLVs begin.
    let tlvs = state.at + (first as u64 + 1) * 16;
    let end = (state.at + 8).wrapping_add_signed(state.len.into());
    let flags = state.at + srh::FLAGS as u64..state.at + srh::SEGMENTS as u64;
    let at = p.data + offset;
    if at >= tlvs && at + len <= end {
        state.valid = false;
    } else if at < flags.start || at + len > flags.end {
        return done(Err(Errno::EFAULT));
    }
    if p.at(offset, len).is_none() {
        return done(Err(Errno::EFAULT));
    }
    let Some(off) = find_header(whole(mem, p), ROUTING, false) else {
        return done(Err(Errno::EINVAL));
    };
    state.at = p.data + off as u64;
    if let Some(to) = mem.slice_mut(at, len) {
        to.copy_from_slice(&bytes);
    }
    done(Ok(0))
}

/// `bpf_lwt_seg6_adjust_srh(skb, offset, delta)`
fn adjust_srh(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let (offset, delta) = (a.r[1] as u32 as u64, a.r[2] as i32);
    let Some(state) = fields(st, a)?.skb.srh else {
        return done(Err(Errno::EINVAL));
    };
    let Some(first) = mem.slice(state.at, 8).map(|h| h[srh::FIRST_SEGMENT]) else {
        return done(Err(Errno::EINVAL));
    };
    let tlvs = state.at + srh::SEGMENTS as u64 + (first as u64 + 1) * 16;
    let end = (state.at + 8).wrapping_add_signed(state.len.into());
    let at = p.data + offset;
    let less = delta.min(0).unsigned_abs() as u64;
    if at < tlvs || at > end || at + less > end {
        return done(Err(Errno::EFAULT));
    }
    let changed = match delta {
        1.. => push(mem, p, offset, delta as u64),
        _ => pop(mem, p, offset, less),
    };
    let packet = match changed {
        Ok(packet) => packet,
        Err(errno) => return done(Err(errno)),
    };
    show(st, packet);
    let len = (packet.len().wrapping_sub(IPV6HDR) as u16).to_be_bytes();
    if let Some(to) = mem.slice_mut(packet.data + 4, 2) {
        to.copy_from_slice(&len);
    }
    let Some(off) = find_header(whole(mem, packet), ROUTING, false) else {
        return done(Err(Errno::EINVAL));
    };
    fields(st, a)?.skb.srh = Some(Srh {
        at: packet.data + off as u64,
        len: state.len + delta,
        valid: false,
    });
    done(Ok(0))
}

/// `bpf_lwt_seg6_action(skb, action, param, param_len)`
fn action(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let what = a.r[1] as u32;
    let param = a.bytes(mem, 3, a.r[3] as u32 as u64)?;
    let ctx = fields(st, a)?;
    match what {
        local::END_X | local::END_T | local::END_DT6 => {
            if !has_valid_srh(ctx, mem) {
                return done(Err(Errno::EBADMSG));
            }
        }
        local::END_B6 | local::END_B6_ENCAP => {
            if ctx.skb.srh.is_some() && !has_valid_srh(ctx, mem) {
                return done(Err(Errno::EBADMSG));
            }
            let pushed = push_seg6(st, mem, a, what == local::END_B6, &param)?;
            if pushed.is_ok() {
                let p = packet(st, a)?;
                look_again(fields(st, a)?, mem, p);
            }
            return done(pushed);
        }
        _ => return done(Err(Errno::EINVAL)),
    }
    if what == local::END_X {
        let Ok(to) = <[u8; 16]>::try_from(&param[..]) else {
            return done(Err(Errno::EINVAL));
        };
        return done(next_hop(st, mem, p, Some(Ipv6Addr::from(to).into()), 0));
    }
    let Ok(table) = <[u8; 4]>::try_from(&param[..]) else {
        return done(Err(Errno::EINVAL));
    };
    let table = u32::from_le_bytes(table);
    if what == local::END_T {
        return done(next_hop(st, mem, p, None, table));
    }
    let off = find_header(whole(mem, p), IPV6, false).map(|off| p.data + off as u64);
    let Some(data) = off.filter(|&data| data <= p.end) else {
        return done(Err(Errno::EBADMSG));
    };
    let inner = Packet {
        data,
        meta: data,
        mac: data - ETH_HLEN,
        ..p
    };
    show(st, inner);
    let ctx = fields(st, a)?;
    ctx.skb.encapsulation = false;
    look_again(ctx, mem, inner);
    done(next_hop(st, mem, inner, None, table))
}
