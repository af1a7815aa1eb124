//! Helpers that make room in packets, take headers out of them, and change what is known of them.

use super::packet::{SKB_MAX_LEN, done, fields, is_xdp, packet, show};
use super::{Arg, Args, Helper, row};
use crate::packet::{ETH_HLEN, FieldsCtx, Packet};
use crate::state::State;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

/// The rows of the table of helpers that this module adds.
pub(super) const HELPERS: &[Helper] = &[
    row(Func::SkbAdjustRoom, false, adjust_room),
    row(Func::SkbChangeProto, false, change_proto),
    row(Func::SkbVlanPush, false, vlan_push),
    row(Func::SkbVlanPop, false, vlan_pop),
    row(Func::SkbEcnSetCe, false, ecn_set_ce),
    row(Func::SkbSetTstamp, false, set_tstamp),
    row(Func::CsumLevel, false, csum_level),
    row(Func::CheckMtu, false, check_mtu),
];

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// `sizeof(struct iphdr)`, `sizeof(struct ipv6hdr)`
const IPHDR: u64 = 20;
const IPV6HDR: u64 = 40;
const VLAN_HLEN: u64 = 4;

/// `skb->protocol`
fn protocol(ctx: &FieldsCtx) -> u16 {
    u16::from_be(ctx.get(CtxSlot::SkbProtocol) as u16)
}

pub(super) fn set_protocol(ctx: &mut FieldsCtx, protocol: u16) {
    ctx.set(CtxSlot::SkbProtocol, protocol.to_be().into());
}

/// Length of the header of a protocol of the Internet; none of others (`bpf_skb_net_base_len`).
fn header_len(protocol: u16) -> Option<u64> {
    match protocol {
        ETH_P_IP => Some(IPHDR),
        ETH_P_IPV6 => Some(IPV6HDR),
        _ => None,
    }
}

/// `bpf_skb_net_hdr_push`: room of zeros behind the first `off` bytes.
pub(super) fn push(mem: &mut GuestMem, p: Packet, off: u64, len: u64) -> Result<Packet, Errno> {
    if len > p.data - p.head {
        return Err(Errno::ENOMEM);
    }
    let data = p.data - len;
    let front = mem.slice(p.data, off).ok_or(Errno::ENOMEM)?.to_vec();
    let to = mem.slice_mut(data, off + len).ok_or(Errno::ENOMEM)?;
    to[..front.len()].copy_from_slice(&front);
    to[front.len()..].fill(0);
    mem.expose(data, p.end - data);
    Ok(Packet {
        data,
        meta: data,
        mac: p.mac - len,
        ..p
    })
}

/// `bpf_skb_net_hdr_pop`: takes `len` bytes out behind the first `off`.
pub(super) fn pop(mem: &mut GuestMem, p: Packet, off: u64, len: u64) -> Result<Packet, Errno> {
    if off + len > p.len() {
        return Err(Errno::ENOMEM);
    }
    let front = mem.slice(p.data, off).ok_or(Errno::ENOMEM)?.to_vec();
    let data = p.data + len;
    let to = mem.slice_mut(data, off).ok_or(Errno::ENOMEM)?;
    to.copy_from_slice(&front);
    Ok(Packet {
        data,
        meta: data,
        mac: p.mac + len,
        ..p
    })
}

/// Flags of `bpf_skb_adjust_room`: `BPF_F_ADJ_ROOM_*`.
mod adj {
    pub const ENCAP_L3_IPV4: u64 = 1 << 1;
    pub const ENCAP_L3_IPV6: u64 = 1 << 2;
    pub const ENCAP_L4_GRE: u64 = 1 << 3;
    pub const ENCAP_L4_UDP: u64 = 1 << 4;
    pub const NO_CSUM_RESET: u64 = 1 << 5;
    pub const ENCAP_L2_ETH: u64 = 1 << 6;
    pub const DECAP_L3_IPV4: u64 = 1 << 7;
    pub const DECAP_L3_IPV6: u64 = 1 << 8;
    pub const FIXED_GSO: u64 = 1 << 0;
    /// `BPF_F_ADJ_ROOM_ENCAP_L2(len)`
    pub const L2_SHIFT: u32 = 56;
    pub const ENCAP_L3: u64 = ENCAP_L3_IPV4 | ENCAP_L3_IPV6;
    pub const DECAP_L3: u64 = DECAP_L3_IPV4 | DECAP_L3_IPV6;
    pub const KNOWN: u64 = FIXED_GSO
        | ENCAP_L3
        | ENCAP_L4_GRE
        | ENCAP_L4_UDP
        | ENCAP_L2_ETH
        | DECAP_L3
        | NO_CSUM_RESET
        | 0xff << L2_SHIFT;
    pub const SHRINKING: u64 = FIXED_GSO | DECAP_L3 | NO_CSUM_RESET;
}

/// `bpf_skb_adjust_room(skb, len_diff, mode, flags)`
fn adjust_room(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let ctx = fields(st, a)?;
    let (diff, flags) = (a.r[1] as i32, a.r[3]);
    let room = Room {
        len: diff.unsigned_abs() as u64,
        shrinks: diff < 0,
        flags,
    };
    let adjusted = room.check(ctx, p, a.r[2] as u32).and_then(|off| {
        let proto = room.protocol(protocol(ctx));
        let changed = match room.shrinks {
            true => pop(mem, p, off, room.len),
            false => room
                .check_encap(ctx)
                .and_then(|()| push(mem, p, off, room.len)),
        };
        Ok((changed?, proto))
    });
    let (changed, proto) = match adjusted {
        Ok(done) => done,
        Err(errno) => return done(Err(errno)),
    };
    set_protocol(ctx, proto);
    ctx.skb.encapsulation |= !room.shrinks && flags & adj::ENCAP_L3 != 0;
    if flags & adj::NO_CSUM_RESET == 0 {
        ctx.skb.csum_level = None;
    }
    show(st, changed);
    done(Ok(0))
}

/// What `bpf_skb_adjust_room` was asked for.
struct Room {
    len: u64,
    shrinks: bool,
    flags: u64,
}

impl Room {
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// What is refused in any case; gives where the room begins.
    fn check(&self, ctx: &FieldsCtx, p: Packet, mode: u32) -> Result<u64, Errno> {
        /// `BPF_ADJ_ROOM_NET`, `BPF_ADJ_ROOM_MAC`
        const NET: u32 = 0;
        const MAC: u32 = 1;
        const MOST: u64 = 0xfff;
        if self.has(!adj::KNOWN) {
            return Err(Errno::EINVAL);
        }
        if self.len > MOST {
            return Err(Errno::EFAULT);
        }
        let header = header_len(protocol(ctx)).ok_or(Errno::ENOTSUPP)?;
        let off = match mode {
            NET => ETH_HLEN + header,
            MAC => ETH_HLEN,
            _ => return Err(Errno::ENOTSUPP),
        };
        let least = match self.flags & adj::DECAP_L3 {
            0 => header,
            _ if !self.shrinks => return Err(Errno::EINVAL),
            adj::DECAP_L3_IPV4 => IPHDR,
            adj::DECAP_L3_IPV6 => IPV6HDR,
            _ => return Err(Errno::EINVAL),
        };
        // From the network header on.
        let held = p.end.saturating_sub(p.mac + ETH_HLEN);
        let gso = ctx.get(CtxSlot::SkbGsoSize) != 0;
        let fits = match self.shrinks {
            true => self.len < held && held - self.len >= least,
            false => p.len() + self.len <= SKB_MAX_LEN || gso,
        };
        if !fits {
            return Err(Errno::ENOTSUPP);
        }
        if self.shrinks && self.has(!adj::SHRINKING) {
            return Err(Errno::EINVAL);
        }
        // Of segments those of TCP only, which test packets are not.
        if gso {
            return Err(Errno::ENOTSUPP);
        }
        Ok(off)
    }

    /// What headers around the packet are refused.
    fn check_encap(&self, ctx: &FieldsCtx) -> Result<(), Errno> {
        if !self.has(adj::ENCAP_L3) {
            return Ok(());
        }
        let both = |flags| self.flags & flags == flags;
        let inner_mac = self.flags >> adj::L2_SHIFT;
        if both(adj::ENCAP_L3)
            || both(adj::ENCAP_L4_GRE | adj::ENCAP_L4_UDP)
            || self.has(adj::ENCAP_L2_ETH) && inner_mac < ETH_HLEN
        {
            return Err(Errno::EINVAL);
        }
        if ctx.skb.encapsulation {
            return Err(Errno::EALREADY);
        }
        match inner_mac > self.len {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    /// The protocol of what is outermost then.
    fn protocol(&self, before: u16) -> u16 {
        let (v4, v6) = match self.shrinks {
            true => (adj::DECAP_L3_IPV4, adj::DECAP_L3_IPV6),
            false => (adj::ENCAP_L3_IPV4, adj::ENCAP_L3_IPV6),
        };
        match before {
            ETH_P_IP if self.has(v6) => ETH_P_IPV6,
            ETH_P_IPV6 if self.has(v4) => ETH_P_IP,
            _ => before,
        }
    }
}

/// `bpf_skb_change_proto(skb, proto, flags)`: room for the other header, or what it is longer less.
fn change_proto(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let ctx = fields(st, a)?;
    let to = u16::from_be(a.r[1] as u16);
    if a.r[2] != 0 {
        return done(Err(Errno::EINVAL));
    }
    let gso = ctx.get(CtxSlot::SkbGsoSize) != 0;
    let changed = match (protocol(ctx), to) {
        _ if gso => Err(Errno::ENOTSUPP),
        (ETH_P_IP, ETH_P_IPV6) => push(mem, p, ETH_HLEN, IPV6HDR - IPHDR),
        (ETH_P_IPV6, ETH_P_IP) => pop(mem, p, ETH_HLEN, IPV6HDR - IPHDR),
        _ => Err(Errno::ENOTSUPP),
    };
    let changed = match changed {
        Ok(packet) => packet,
        Err(errno) => return done(Err(errno)),
    };
    set_protocol(ctx, to);
    ctx.set(CtxSlot::SkbHash, 0);
    show(st, changed);
    done(Ok(0))
}

/// The tag that a socket buffer carries beside its packet.
fn tag(ctx: &FieldsCtx) -> Option<(u16, u16)> {
    let present = ctx.get(CtxSlot::SkbVlanPresent) != 0;
    let proto = u16::from_be(ctx.get(CtxSlot::SkbVlanProto) as u16);
    present.then(|| (proto, ctx.get(CtxSlot::SkbVlanTci) as u16))
}

fn set_tag(ctx: &mut FieldsCtx, tag: Option<(u16, u16)>) {
    let (proto, tci) = tag.unwrap_or_default();
    ctx.set(CtxSlot::SkbVlanPresent, tag.is_some().into());
    ctx.set(CtxSlot::SkbVlanProto, proto.to_be().into());
    ctx.set(CtxSlot::SkbVlanTci, tci.into());
}

/// `bpf_skb_vlan_push(skb, vlan_proto, vlan_tci)`: a tag that was there already goes into the packet.
fn vlan_push(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let ctx = fields(st, a)?;
    let proto = match u16::from_be(a.r[1] as u16) {
        proto @ (ETH_P_8021Q | ETH_P_8021AD) => proto,
        _ => ETH_P_8021Q,
    };
    let mut changed = None;
    if let Some((old, tci)) = tag(ctx) {
        const ADDRESSES: u64 = 12;
        let packet = match push(mem, p, ADDRESSES, VLAN_HLEN) {
            Ok(packet) => packet,
            Err(errno) => return done(Err(errno)),
        };
        if let Some(to) = mem.slice_mut(packet.data + ADDRESSES, VLAN_HLEN) {
            to[..2].copy_from_slice(&old.to_be_bytes());
            to[2..].copy_from_slice(&tci.to_be_bytes());
        }
        set_protocol(ctx, old);
        changed = Some(packet);
    }
    set_tag(ctx, Some((proto, a.r[2] as u16)));
    if let Some(packet) = changed {
        show(st, packet);
    }
    done(Ok(0))
}

/// `bpf_skb_vlan_pop(skb)`: the tag beside the packet, or else the first one in it; one more of
/// these then is beside it.
fn vlan_pop(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const ADDRESSES: u64 = 12;
    let mut p = packet(st, a)?;
    let ctx = fields(st, a)?;
    let tagged = |ctx: &FieldsCtx| matches!(protocol(ctx), ETH_P_8021Q | ETH_P_8021AD);
    let mut take = |ctx: &mut FieldsCtx, p: Packet| -> Result<(Packet, u16), Errno> {
        let bytes = mem
            .slice(p.data + ADDRESSES, 6)
            .filter(|_| p.len() >= ADDRESSES + 6);
        let bytes = bytes.ok_or(Errno::ENOMEM)?;
        let tci = u16::from_be_bytes([bytes[2], bytes[3]]);
        let inner = u16::from_be_bytes([bytes[4], bytes[5]]);
        set_protocol(ctx, inner);
        Ok((pop(mem, p, ADDRESSES, VLAN_HLEN)?, tci))
    };
    if tag(ctx).is_some() {
        set_tag(ctx, None);
    } else if tagged(ctx) {
        match take(ctx, p) {
            Ok((packet, _)) => p = packet,
            Err(errno) => return done(Err(errno)),
        }
    } else {
        return done(Ok(0));
    }
    if tagged(ctx) {
        let proto = protocol(ctx);
        match take(ctx, p) {
            Ok((packet, tci)) => {
                p = packet;
                set_tag(ctx, Some((proto, tci)));
            }
            Err(errno) => return done(Err(errno)),
        }
    }
    show(st, p);
    done(Ok(0))
}

/// `bpf_skb_ecn_set_ce(skb)`: 1 where the packet says now that there is congestion.
fn ecn_set_ce(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const CE: u8 = 3;
    let p = packet(st, a)?;
    let proto = protocol(fields(st, a)?);
    let Some(len) = header_len(proto) else {
        return done(Ok(0));
    };
    let at = p.mac + ETH_HLEN;
    let header = mem
        .slice_mut(at, len)
        .filter(|_| p.len() >= len && at + len <= p.end);
    let Some(header) = header else {
        return done(Ok(0));
    };
    if proto == ETH_P_IPV6 {
        let able = header[1] >> 4 & CE != 0;
        header[1] |= if able { CE << 4 } else { 0 };
        return done(Ok(able.into()));
    }
    let ecn = header[1] & CE;
    if ecn == 0 || ecn == CE {
        return done(Ok((ecn == CE).into()));
    }
    // The sum is of ones' complement: what the field grows by, it shrinks by.
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let (new, carry) = sum.overflowing_add(0xfffb + ecn as u16 + 1);
    header[10..12].copy_from_slice(&(new + carry as u16).to_be_bytes());
    header[1] |= CE;
    done(Ok(1))
}

/// `bpf_skb_set_tstamp(skb, tstamp, tstamp_type)`
fn set_tstamp(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `BPF_SKB_CLOCK_REALTIME`, `BPF_SKB_CLOCK_TAI`
    const REALTIME: u32 = 0;
    const TAI: u32 = 2;
    packet(st, a)?;
    let ctx = fields(st, a)?;
    let (time, clock) = (a.r[1], a.r[2] as u32);
    if header_len(protocol(ctx)).is_none() {
        return done(Err(Errno::EOPNOTSUPP));
    }
    if clock > TAI || clock != REALTIME && time == 0 {
        return done(Err(Errno::EINVAL));
    }
    ctx.put(CtxSlot::SkbTstamp, &time.to_le_bytes());
    ctx.put(CtxSlot::SkbTstampType, &[clock as u8]);
    done(Ok(0))
}

/// `bpf_csum_level(skb, level)`
fn csum_level(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `BPF_CSUM_LEVEL_QUERY` and so on; `SKB_MAX_CSUM_LEVEL`
    const QUERY: u64 = 0;
    const INC: u64 = 1;
    const DEC: u64 = 2;
    const RESET: u64 = 3;
    const MOST: u8 = 3;
    packet(st, a)?;
    let level = &mut fields(st, a)?.skb.csum_level;
    match (a.r[1], *level) {
        (QUERY, Some(n)) => return done(Ok(n.into())),
        (QUERY, None) => return done(Err(Errno::EACCES)),
        (INC, before) => *level = Some(before.map_or(0, |n| (n + 1).min(MOST))),
        (DEC, before) => *level = before.and_then(|n| n.checked_sub(1)),
        (RESET, _) => *level = None,
        _ => return done(Err(Errno::EINVAL)),
    }
    done(Ok(0))
}

/// `bpf_check_mtu(ctx, ifindex, mtu_len, len_diff, flags)`
fn check_mtu(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `BPF_MTU_CHK_SEGS`; `BPF_MTU_CHK_RET_*`
    const SEGS: u64 = 1;
    const FRAG_NEEDED: u64 = 1;
    const SEGS_TOOBIG: u64 = 2;
    packet(st, a)?;
    let xdp = is_xdp(st);
    let (slot, known) = match xdp {
        true => (CtxSlot::XdpIngressIfindex, 0),
        false => (CtxSlot::SkbIfindex, SEGS),
    };
    let ctx = fields(st, a)?;
    let (own, whole) = (ctx.get(slot) as u32, ctx.buff_len());
    let gso_size = ctx.get(CtxSlot::SkbGsoSize);
    let (diff, flags) = (a.r[3] as i32 as i64, a.r[4]);
    let Some(asked) = mem.read_u32(a.r[2]) else {
        return a.bad(3);
    };
    if flags & !known != 0 || flags & SEGS != 0 && (diff != 0 || asked != 0) {
        return done(Err(Errno::EINVAL));
    }
    let ifindex = if a.r[1] as u32 == 0 {
        own
    } else {
        a.r[1] as u32
    };
    let Some(dev) = st.world.netdev(ifindex) else {
        return done(Err(Errno::ENODEV));
    };
    let mtu = dev.mtu as u64;
    let len = match asked {
        0 => whole,
        len => len as u64 + ETH_HLEN,
    };
    let fits = len as i64 + diff <= (mtu + ETH_HLEN) as i64;
    // Segments with their headers, as long as none of the packet's own are known here.
    let segments_fit = gso_size + IPV6HDR + IPHDR <= mtu;
    let answer = match (fits, gso_size) {
        (true, _) => 0,
        (false, 0) => FRAG_NEEDED,
        (false, _) if flags & SEGS != 0 && !segments_fit => SEGS_TOOBIG,
        (false, _) => 0,
    };
    match mem.write_u32(a.r[2], mtu as u32) {
        Some(()) => done(Ok(answer)),
        None => a.bad(3),
    }
}
