//! Maps of sockets: what programs put in, choose from them and send packets to.

use super::packet::done;
use super::{Arg, Args, Helper, row};
use crate::ids::{MapId, SockId};
use crate::packet::{Redirect, RedirectKind};
use crate::prog::ProgCtx;
use crate::state::State;
use crate::world::{IPPROTO_TCP, SockState, sock_window};
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func, MapType};
use bpfsim_vm::{Flow, GuestMem};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::SkRedirectMap, true, redirect_by_index),
    row(Func::MsgRedirectMap, true, redirect_by_index),
    row(Func::SkRedirectHash, true, redirect_by_key),
    row(Func::MsgRedirectHash, true, redirect_by_key),
    row(Func::SkSelectReuseport, true, select_reuseport),
    row(Func::SockMapUpdate, true, update),
    row(Func::SockHashUpdate, true, update),
];

/// `SK_DROP`, `SK_PASS`
const DROP: u64 = 0;
const PASS: u64 = 1;

/// The socket of a key in a map.
fn find(st: &mut State, mem: &mut GuestMem, map: MapId, key: &[u8]) -> Option<SockId> {
    let (m, mut op) = st.map_op(mem, map);
    let at = m.lookup(&mut op, key)?;
    st.world.sock_at(at)
}

/// `bpf_sk_redirect_map(skb, map, index, flags)`, `bpf_msg_redirect_map`
fn redirect_by_index(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let key = (a.r[2] as u32).to_le_bytes();
    redirect(st, mem, a, map, &key)
}

/// `bpf_sk_redirect_hash(skb, map, key, flags)`, `bpf_msg_redirect_hash`
fn redirect_by_key(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let key = a.key(st, mem, map, 3)?;
    redirect(st, mem, a, map, &key)
}

/// The verdict that the program returns to have the data sent to a socket, if there is one that
/// takes it.
fn redirect(st: &mut State, mem: &mut GuestMem, a: &Args, map: MapId, key: &[u8]) -> Arg<Flow> {
    const F_INGRESS: u64 = 1;
    if a.r[3] & !F_INGRESS != 0 {
        return Ok(Flow::Done(DROP));
    }
    let Some(sock) = find(st, mem, map, key) else {
        return Ok(Flow::Done(DROP));
    };
    // `sock_map_redirect_allowed`
    let spec = &st.world.socks[sock.at()].spec;
    let takes = match spec.protocol {
        IPPROTO_TCP => spec.state != SockState::Listen,
        _ => spec.state == SockState::Established,
    };
    if !takes {
        return Ok(Flow::Done(DROP));
    }
    if let ProgCtx::Fields(ctx) = &mut st.cur.ctx {
        ctx.target = Some(Redirect {
            how: RedirectKind::Sock(sock),
            to: 0,
            flags: a.r[3],
            data: Vec::new(),
        });
    }
    Ok(Flow::Done(PASS))
}

/// `bpf_sk_select_reuseport(md, map, key, flags)`: a socket of the group that the program is asked
/// about.
fn select_reuseport(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let map = a.map(st, 2)?;
    let key = a.key(st, mem, map, 3)?;
    let array = st.maps[map.at()].spec.map_type == MapType::ReuseportSockarray;
    if a.r[3] != 0 {
        return done(Err(Errno::EINVAL));
    }
    let Some(chosen) = find(st, mem, map, &key) else {
        return done(Err(Errno::ENOENT));
    };
    let ProgCtx::Fields(ctx) = &mut st.cur.ctx else {
        return a.bad(1);
    };
    let spec = &st.world.socks[chosen.at()].spec;
    if !spec.reuseport {
        let errno = if array { Errno::ENOENT } else { Errno::EINVAL };
        return done(Err(errno));
    }
    // The group is that of the socket that the test gives with the input.
    if let Some(own) = ctx.sock.map(|s| &st.world.socks[s.at()].spec)
        && own.local != spec.local
    {
        return done(Err(match () {
            () if own.protocol != spec.protocol => Errno::EPROTOTYPE,
            () if own.local.is_ipv4() != spec.local.is_ipv4() => Errno::EAFNOSUPPORT,
            () => Errno::EBADFD,
        }));
    }
    ctx.selected = Some(chosen);
    ctx.target = Some(Redirect {
        how: RedirectKind::Sock(chosen),
        to: 0,
        flags: 0,
        data: Vec::new(),
    });
    done(Ok(0))
}

/// `bpf_sock_map_update(skops, map, key, flags)`, `bpf_sock_hash_update`: the socket that an
/// operation is about.
fn update(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`, `_PASSIVE_ESTABLISHED_CB`, `_TCP_LISTEN_CB`
    const OPS: [u64; 3] = [4, 5, 11];
    let map = a.map(st, 2)?;
    let key = a.key(st, mem, map, 3)?;
    let ProgCtx::Fields(ctx) = &st.cur.ctx else {
        return a.bad(1);
    };
    let sock = super::sock::own_sock(st, a.r[0]);
    let Some(sock) = sock.filter(|_| OPS.contains(&ctx.get(CtxSlot::SockOpsOp))) else {
        return done(Err(Errno::EOPNOTSUPP));
    };
    if let Err(errno) = st.world.fits_map(sock) {
        return done(Err(errno));
    }
    let value = sock_window(sock).to_le_bytes();
    let (m, mut op) = st.map_op(mem, map);
    done(m.update(&mut op, &key, &value, a.r[3]).map(|()| 0))
}
