//! Helpers on packets.

use super::{Arg, Args, ret};
use crate::packet::{ETH_HLEN, Packet};
use crate::prog::ProgCtx;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};

/// `sizeof(struct xdp_frame)`: room at the head of a buffer that stays the kernel's.
const XDP_FRAME: u64 = 40;

fn done(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result)))
}

/// The packet of the program that calls.
fn packet(st: &State, a: &Args) -> Arg<Packet> {
    match &st.cur.ctx {
        ProgCtx::Fields(ctx) if a.r[0] == crate::packet::CTX_WINDOW => {
            ctx.packet.map_or_else(|| a.bad(1), Ok)
        }
        _ => a.bad(1),
    }
}

fn show(st: &mut State, packet: Packet) {
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.show(packet);
    }
}

/// `bpf_skb_load_bytes`, `bpf_xdp_load_bytes`
pub(super) fn load_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
pub(super) fn skb_store_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const FLAGS: u64 = 1 | 2; // BPF_F_RECOMPUTE_CSUM, BPF_F_INVALIDATE_HASH
    if a.r[4] & !FLAGS != 0 {
        return done(Err(Errno::EINVAL));
    }
    store_bytes(st, mem, a)
}

/// `bpf_xdp_store_bytes`
pub(super) fn store_bytes(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

/// `bpf_xdp_get_buff_len`
pub(super) fn xdp_get_buff_len(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    Ok(Flow::Done(packet(st, a)?.len()))
}

/// `bpf_skb_pull_data`: packets here are linear; only what is not there fails.
pub(super) fn skb_pull_data(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    done(if a.r[1] as u32 as u64 > p.len() {
        Err(Errno::ENOMEM)
    } else {
        Ok(0)
    })
}

/// `bpf_xdp_adjust_head`: metadata moves along.
pub(super) fn xdp_adjust_head(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
pub(super) fn xdp_adjust_tail(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
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
pub(super) fn xdp_adjust_meta(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
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

/// `bpf_redirect`: the action that the program returns to have it done.
pub(super) fn redirect(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const XDP_ABORTED: u64 = 0;
    const XDP_REDIRECT: u64 = 4;
    const TC_ACT_SHOT: u64 = 2;
    const TC_ACT_REDIRECT: u64 = 7;
    const F_INGRESS: u64 = 1;
    let xdp = matches!(&st.cur.ctx, ProgCtx::Fields(ctx) if ctx.is_xdp());
    Ok(Flow::Done(match xdp {
        true if a.r[1] != 0 => XDP_ABORTED,
        true => XDP_REDIRECT,
        false if a.r[1] & !F_INGRESS != 0 => TC_ACT_SHOT,
        false => TC_ACT_REDIRECT,
    }))
}

/// `bpf_csum_diff`
pub(super) fn csum_diff(_: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
pub(super) fn skb_change_head(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let len = a.r[1] as u32 as u64;
    if a.r[2] != 0 {
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
pub(super) fn get_hash_recalc(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let header = mem.slice(p.mac, (p.end - p.mac).min(54)).unwrap_or(&[]);
    let hash = header.chunks(8).fold(1, |hash, c| {
        c.iter().fold(hash, |h, &b| crate::ids::mix(h, b as u64))
    });
    Ok(Flow::Done(hash >> 32))
}

/// `bpf_csum_update`: there is no checksum of the whole packet here.
pub(super) fn csum_update(_: &mut State, _: &mut GuestMem, _: &Args) -> Arg<Flow> {
    done(Err(Errno::EOPNOTSUPP))
}

/// `BPF_F_HDR_FIELD_MASK` and the flags of `bpf_l4_csum_replace`.
const F_FIELD: u64 = 0xf;
const F_PSEUDO_HDR: u64 = 0x10;
const F_MARK_MANGLED_0: u64 = 0x20;
const F_MARK_ENFORCE: u64 = 0x40;
const F_IPV6: u64 = 0x80;

/// `bpf_l3_csum_replace`
pub(super) fn l3_csum_replace(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    if a.r[4] & !F_FIELD != 0 {
        return done(Err(Errno::EINVAL));
    }
    csum_replace(st, mem, a, false)
}

/// `bpf_l4_csum_replace`
pub(super) fn l4_csum_replace(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
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
