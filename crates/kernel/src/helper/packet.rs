//! Helpers on packets.

use super::{Arg, Args, Helper, ret, row};
use crate::packet::{ETH_HLEN, FieldsCtx, Packet, Redirect, RedirectKind};
use crate::prog::ProgCtx;
use crate::state::State;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func, MapType};
use bpfsim_vm::{Flow, GuestMem};

/// The rows of the table of helpers that this module adds.
pub(crate) const HELPERS: &[Helper] = &[
    row(Func::SkbLoadBytes, false, load_bytes),
    row(Func::SkbLoadBytesRelative, false, load_bytes_relative),
    row(Func::SkbStoreBytes, false, skb_store_bytes),
    row(Func::SkbChangeHead, false, skb_change_head),
    row(Func::SkbChangeTail, false, skb_change_tail),
    row(Func::SkbChangeType, false, skb_change_type),
    row(Func::GetHashRecalc, false, get_hash_recalc),
    row(Func::SetHashInvalid, false, |st, _, a| set_hash(st, a, 0)),
    row(Func::SetHash, false, |st, _, a| {
        set_hash(st, a, a.r[1] as u32)
    }),
    row(Func::SkbPullData, false, skb_pull_data),
    row(Func::Redirect, false, redirect),
    row(Func::RedirectPeer, false, redirect_peer),
    row(Func::RedirectNeigh, false, redirect_neigh),
    row(Func::RedirectMap, true, redirect_map),
    row(Func::CloneRedirect, false, clone_redirect),
    row(Func::CsumDiff, false, csum_diff),
    row(Func::CsumUpdate, false, csum_update),
    row(Func::L3CsumReplace, false, l3_csum_replace),
    row(Func::L4CsumReplace, false, l4_csum_replace),
    row(Func::GetRouteRealm, false, |st, _, a| {
        packet(st, a)?;
        done(Ok(0))
    }),
    row(Func::GetCgroupClassid, false, |st, _, a| {
        packet(st, a)?;
        done(Ok(0))
    }),
];

pub(super) fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

/// The packet of the program that calls.
pub(super) fn packet(st: &State, a: &Args) -> Arg<Packet> {
    match &st.cur.ctx {
        ProgCtx::Fields(ctx) if a.r[0] == crate::packet::CTX_WINDOW => {
            ctx.packet.map_or_else(|| a.bad(1), Ok)
        }
        _ => a.bad(1),
    }
}

/// The context of the program that calls.
pub(super) fn fields<'a>(st: &'a mut State, a: &Args) -> Arg<&'a mut FieldsCtx> {
    match &mut st.cur.ctx {
        ProgCtx::Fields(ctx) => Ok(ctx),
        _ => a.bad(1),
    }
}

pub(super) fn show(st: &mut State, packet: Packet) {
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.show(packet);
    }
}

/// `bpf_skb_load_bytes`
fn load_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let len = a.r[3] as u32 as u64;
    let from = p
        .at(a.r[1] as u32 as u64, len)
        .filter(|_| a.r[1] as u32 <= i32::MAX as u32);
    let bytes = from.and_then(|at| mem.slice(at, len)).map(<[u8]>::to_vec);
    let Some(to) = mem.slice_mut(a.r[2], len) else {
        return a.bad(3);
    };
    match bytes {
        Some(bytes) => to.copy_from_slice(&bytes),
        None => {
            to.fill(0);
            return done(Err(Errno::EFAULT));
        }
    }
    done(Ok(0))
}

/// `bpf_skb_store_bytes`
fn skb_store_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const FLAGS: u64 = 1 | 2; // BPF_F_RECOMPUTE_CSUM, BPF_F_INVALIDATE_HASH
    if a.r[4] & !FLAGS != 0 {
        return done(Err(Errno::EINVAL));
    }
    let p = packet(st, a)?;
    let bytes = a.bytes(mem, 3, a.r[3] as u32 as u64)?;
    let at = p.at(a.r[1] as u32 as u64, bytes.len() as u64);
    let to = at.and_then(|at| mem.slice_mut(at, bytes.len() as u64));
    done(
        to.map(|to| to.copy_from_slice(&bytes))
            .map(|()| 0)
            .ok_or(Errno::EFAULT),
    )
}

/// `bpf_skb_pull_data`: packets here are linear; only what is not there fails.
fn skb_pull_data(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    done(if a.r[1] as u32 as u64 > p.len() {
        Err(Errno::ENOMEM)
    } else {
        Ok(0)
    })
}

/// `bpf_redirect`: the action that the program returns to have it done.
fn redirect(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const F_INGRESS: u64 = 1;
    let xdp = is_xdp(st);
    let known = if xdp { 0 } else { F_INGRESS };
    if a.r[1] & !known != 0 {
        return Ok(Flow::Done(if xdp { XDP_ABORTED } else { TC_ACT_SHOT }));
    }
    aim(st, RedirectKind::Redirect, a.r[0], a.r[1])
}

const XDP_ABORTED: u64 = 0;
const XDP_REDIRECT: u64 = 4;
const TC_ACT_SHOT: u64 = 2;
const TC_ACT_REDIRECT: u64 = 7;

pub(super) fn is_xdp(st: &State) -> bool {
    matches!(&st.cur.ctx, ProgCtx::Fields(ctx) if ctx.is_xdp())
}

/// Notes where the packet goes if the program returns what this gives.
fn aim(st: &mut State, how: RedirectKind, to: u64, flags: u64) -> Arg<Flow> {
    let action = if is_xdp(st) {
        XDP_REDIRECT
    } else {
        TC_ACT_REDIRECT
    };
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.target = Some(Redirect {
            how,
            to: to as u32,
            flags,
            data: Vec::new(),
        });
    }
    Ok(Flow::Done(action))
}

/// `bpf_redirect_peer`
fn redirect_peer(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if a.r[1] != 0 {
        return Ok(Flow::Done(TC_ACT_SHOT));
    }
    aim(st, RedirectKind::Peer, a.r[0], 0)
}

/// `bpf_redirect_neigh(ifindex, params, plen, flags)`
fn redirect_neigh(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `sizeof(struct bpf_redir_neigh)`
    const PARAMS: u64 = 20;
    let plen = a.r[2] as u32 as u64;
    if plen != 0 && plen < PARAMS || a.r[3] != 0 {
        return Ok(Flow::Done(TC_ACT_SHOT));
    }
    aim(st, RedirectKind::Neigh, a.r[0], 0)
}

/// `bpf_redirect_map(map, key, flags)`: without an entry, the action in the flags.
fn redirect_map(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const ACTIONS: u64 = 3;
    const BROADCAST: u64 = 8;
    const EXCLUDE_INGRESS: u64 = 16;
    let map = a.map(st, 1)?;
    let devices = matches!(
        st.maps[map.at()].spec.map_type,
        MapType::Devmap | MapType::DevmapHash
    );
    let more = if devices {
        BROADCAST | EXCLUDE_INGRESS
    } else {
        0
    };
    let flags = a.r[2];
    if flags & !(ACTIONS | more) != 0 {
        return Ok(Flow::Done(XDP_ABORTED));
    }
    let key = (a.r[1] as u32).to_le_bytes();
    let (m, mut op) = st.map_op(mem, map);
    let found = m.lookup(&mut op, &key).is_some();
    if !found && flags & BROADCAST == 0 {
        return Ok(Flow::Done(flags & ACTIONS));
    }
    aim(st, RedirectKind::Map(map), a.r[1], flags)
}

/// `bpf_clone_redirect(skb, ifindex, flags)`: a copy is sent, and the program goes on.
fn clone_redirect(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const F_INGRESS: u64 = 1;
    let p = packet(st, a)?;
    let (to, flags) = (a.r[1] as u32, a.r[2]);
    if flags & !F_INGRESS != 0 || st.world.netdev(to).is_none() {
        return done(Err(Errno::EINVAL));
    }
    let data = a.memory(mem, p.data, p.len())?.into_vec();
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.redirects.push(Redirect {
            how: RedirectKind::Clone,
            to,
            flags,
            data,
        });
    }
    done(Ok(0))
}

/// `bpf_skb_change_tail(skb, len, flags)`: what it grows by is zero.
fn skb_change_tail(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let len = a.r[1] as u32 as u64;
    // The headers up to the network header stay.
    let least = if p.data == p.mac { ETH_HLEN } else { 0 };
    if a.r[2] != 0 || len > SKB_MAX_LEN || len < least {
        return done(Err(Errno::EINVAL));
    }
    let end = p.data + len;
    if end > p.tail {
        return done(Err(Errno::ENOMEM));
    }
    if let Some(grown) = mem.slice_mut(p.end, end.saturating_sub(p.end)) {
        grown.fill(0);
    }
    show(st, Packet { end, ..p });
    done(Ok(0))
}

/// `BPF_SKB_MAX_LEN`
pub(super) const SKB_MAX_LEN: u64 = 65536;

/// `bpf_skb_change_type(skb, type)`: between the types that mean that it was received.
fn skb_change_type(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `PACKET_OTHERHOST`: `skb_pkt_type_ok`
    const OTHERHOST: u32 = 3;
    packet(st, a)?;
    let ProgCtx::Fields(ctx) = &mut st.cur.ctx else {
        return a.bad(1);
    };
    let (from, to) = (ctx.get(CtxSlot::SkbPktType) as u32, a.r[1] as u32);
    if from > OTHERHOST || to > OTHERHOST {
        return done(Err(Errno::EINVAL));
    }
    ctx.set(CtxSlot::SkbPktType, to);
    done(Ok(0))
}

/// `bpf_skb_load_bytes_relative(skb, offset, to, len, start_header)`
fn load_bytes_relative(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const HDR_START_MAC: u64 = 0;
    const HDR_START_NET: u64 = 1;
    let p = packet(st, a)?;
    let (offset, len) = (a.r[1] as u32 as u64, a.r[3] as u32 as u64);
    let start = match a.r[4] {
        HDR_START_MAC => Some(p.mac),
        HDR_START_NET => Some((p.mac + ETH_HLEN).min(p.end)),
        _ => None,
    };
    let from = start
        .map(|s| s + offset)
        .filter(|f| offset <= 0xffff && f.checked_add(len).is_some_and(|end| end <= p.end));
    let bytes = from.and_then(|at| mem.slice(at, len)).map(<[u8]>::to_vec);
    let Some(to) = mem.slice_mut(a.r[2], len) else {
        return a.bad(3);
    };
    match bytes {
        Some(bytes) => to.copy_from_slice(&bytes),
        None => {
            to.fill(0);
            return done(Err(Errno::EFAULT));
        }
    }
    done(Ok(0))
}

/// `bpf_set_hash`, `bpf_set_hash_invalid`
fn set_hash(st: &mut State, a: &Args, hash: u32) -> Arg<Flow> {
    packet(st, a)?;
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.set(CtxSlot::SkbHash, hash);
    }
    done(Ok(0))
}

/// `bpf_csum_diff`
fn csum_diff(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (from_len, to_len) = (a.r[1] as u32 as u64, a.r[3] as u32 as u64);
    let seed = a.r[4] as u32;
    if !from_len.is_multiple_of(4) || !to_len.is_multiple_of(4) {
        return done(Err(Errno::EINVAL));
    }
    let from = if from_len > 0 {
        partial(&a.bytes(mem, 1, from_len)?)
    } else {
        0
    };
    let to = if to_len > 0 {
        partial(&a.bytes(mem, 3, to_len)?)
    } else {
        0
    };
    let sum = match (from_len, to_len) {
        (0, _) => add(to, seed),
        _ => add(add(to, seed), !from),
    };
    Ok(Flow::Done(fold(sum) as u64))
}

/// Ones' complement addition of 32-bit words.
fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// `csum_partial`: the sum of a buffer's words.
fn partial(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(4).map(|c| {
        let mut word = [0; 4];
        word[..c.len()].copy_from_slice(c);
        u32::from_le_bytes(word)
    });
    words.fold(0, add)
}

/// `csum_from32to16`
fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// `bpf_skb_change_head`: zeroed room for a new header.
fn skb_change_head(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let len = a.r[1] as u32 as u64;
    let new_len = (p.len() as u32).wrapping_add(len as u32) as u64;
    if a.r[2] != 0 || new_len > SKB_MAX_LEN || new_len < p.len() {
        return done(Err(Errno::EINVAL));
    }
    if len > p.data - p.head {
        return done(Err(Errno::ENOMEM));
    }
    let data = p.data - len;
    match mem.slice_mut(data, len) {
        Some(room) => room.fill(0),
        None => return a.bad(1),
    }
    show(
        st,
        Packet {
            data,
            meta: data,
            mac: data,
            ..p
        },
    );
    done(Ok(0))
}

/// `bpf_get_hash_recalc`: of a flow the same number each time; Linux's depends on a secret.
fn get_hash_recalc(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let header = mem.slice(p.mac, (p.end - p.mac).min(54)).unwrap_or(&[]);
    let hash = header.chunks(8).fold(1, |hash, c| {
        c.iter().fold(hash, |h, &b| crate::ids::mix(h, b as u64))
    });
    Ok(Flow::Done(hash >> 32))
}

/// `bpf_csum_update`: there is no checksum of the whole packet here.
fn csum_update(_: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    done(Err(Errno::EOPNOTSUPP))
}

/// `BPF_F_HDR_FIELD_MASK` and the flags of `bpf_l4_csum_replace`.
const F_FIELD: u64 = 0xf;
const F_PSEUDO_HDR: u64 = 0x10;
const F_MARK_MANGLED_0: u64 = 0x20;
const F_MARK_ENFORCE: u64 = 0x40;
const F_IPV6: u64 = 0x80;

/// `bpf_l3_csum_replace`
fn l3_csum_replace(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if a.r[4] & !F_FIELD != 0 {
        return done(Err(Errno::EINVAL));
    }
    csum_replace(st, mem, a, false)
}

/// `bpf_l4_csum_replace`
fn l4_csum_replace(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let known = F_FIELD | F_PSEUDO_HDR | F_MARK_MANGLED_0 | F_MARK_ENFORCE | F_IPV6;
    if a.r[4] & !known != 0 {
        return done(Err(Errno::EINVAL));
    }
    csum_replace(st, mem, a, true)
}

fn csum_replace(st: &mut State, mem: &mut GuestMem, a: &Args, l4: bool) -> Arg<Flow> {
    let p = packet(st, a)?;
    let offset = a.r[1] as u32 as u64;
    if offset > 0xffff || !offset.is_multiple_of(2) {
        return done(Err(Errno::EFAULT));
    }
    let Some(at) = p.at(offset, 2) else {
        return done(Err(Errno::EFAULT));
    };
    let bytes = a.memory(mem, at, 2)?;
    let old = u16::from_le_bytes([bytes[0], bytes[1]]);
    let mangled = l4 && a.r[4] & F_MARK_MANGLED_0 != 0;
    if mangled && a.r[4] & F_MARK_ENFORCE == 0 && old == 0 {
        return done(Ok(0));
    }
    let difference = match a.r[4] & F_FIELD {
        0 if l4 || a.r[2] == 0 => a.r[3] as u32,
        2 => add(!(a.r[2] as u16 as u32) & 0xffff, a.r[3] as u16 as u32),
        4 => add(!(a.r[2] as u32), a.r[3] as u32),
        _ => return done(Err(Errno::EINVAL)),
    };
    let mut new = !fold(add(!(old as u32) & 0xffff, difference));
    if mangled && new == 0 {
        new = 0xffff;
    }
    match mem.slice_mut(at, 2) {
        Some(to) => to.copy_from_slice(&new.to_le_bytes()),
        None => return a.bad(1),
    }
    done(Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_rfc_1071() {
        // The example of RFC 1071 section 3, in little-endian words.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(partial(&bytes)), u16::from_le_bytes([0xdd, 0xf2]));
        assert_eq!(add(u32::MAX, 1), 1);
    }
}
