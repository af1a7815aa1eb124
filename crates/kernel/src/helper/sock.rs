//! Helpers on sockets: look-up, casts, what they tell.

use super::{Arg, Args, Helper, ret, row};
use crate::ids::SockId;
use crate::packet::CTX_WINDOW;
use crate::prog::ProgCtx;
use crate::state::State;
use crate::world::{IPPROTO_TCP, IPPROTO_UDP, LOOPBACK, SockState, Tuple, read_ip, sock_window};
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};
use std::net::SocketAddr;

/// The rows of the table of helpers that this module adds.
pub(crate) const HELPERS: &[Helper] = &[
    row(Func::SkLookupTcp, false, |st, mem, a| {
        lookup(st, mem, a, IPPROTO_TCP, true)
    }),
    row(Func::SkLookupUdp, false, |st, mem, a| {
        lookup(st, mem, a, IPPROTO_UDP, true)
    }),
    row(Func::SkcLookupTcp, false, |st, mem, a| {
        lookup(st, mem, a, IPPROTO_TCP, false)
    }),
    row(Func::SkRelease, false, release),
    row(Func::SkFullsock, false, |st, _, a| {
        cast(st, a, |st, sock| {
            let full = st.world.socks[sock.at()].full();
            full.then(|| sock_window(sock))
        })
    }),
    row(Func::TcpSock, false, |st, _, a| {
        cast(st, a, |st, sock| st.world.tcp_window(sock))
    }),
    row(Func::GetListenerSock, false, |st, _, a| {
        cast(st, a, |st, sock| {
            let listens = st.world.socks[sock.at()].spec.state == SockState::Listen;
            listens.then(|| sock_window(sock))
        })
    }),
    row(Func::SkcToTcpSock, false, |st, _, a| {
        cast(st, a, |st, sock| {
            st.world.tcp_window(sock)?;
            Some(st.world.socks[sock.at()].addr)
        })
    }),
    row(Func::SkcToTcp6Sock, false, |st, _, a| {
        cast(st, a, |st, sock| inet6(st, sock, IPPROTO_TCP))
    }),
    row(Func::SkcToUdp6Sock, false, |st, _, a| {
        cast(st, a, |st, sock| inet6(st, sock, IPPROTO_UDP))
    }),
    row(Func::SkcToTcpTimewaitSock, false, |st, _, a| {
        cast(st, a, |st, sock| in_state(st, sock, SockState::TimeWait))
    }),
    row(Func::SkcToTcpRequestSock, false, |st, _, a| {
        cast(st, a, |st, sock| in_state(st, sock, SockState::NewSynRecv))
    }),
    row(Func::SkcToUnixSock, false, |st, _, a| {
        cast(st, a, |_, _| None)
    }),
    row(Func::SkcToMptcpSock, false, |st, _, a| {
        cast(st, a, |_, _| None)
    }),
    row(Func::GetSocketCookie, false, |st, _, a| {
        let sock = own_sock(st, a.r[0]);
        Ok(Flow::Done(
            sock.map_or(0, |s| st.world.socks[s.at()].cookie),
        ))
    }),
    row(Func::GetSocketUid, false, |st, _, a| {
        // `overflowuid` where there is no socket.
        let sock = own_sock(st, a.r[0]).map(|s| &st.world.socks[s.at()]);
        let full = sock.filter(|s| s.full());
        Ok(Flow::Done(full.map_or(65534, |s| s.spec.uid) as u64))
    }),
    row(Func::GetNetnsCookie, false, |st, _, a| {
        // Without a context that of `init_net`.
        let sock = if a.r[0] == 0 {
            None
        } else {
            own_sock(st, a.r[0])
        };
        Ok(Flow::Done(st.world.ns(st.netns_of(sock)).cookie))
    }),
    row(Func::SkAssign, false, assign),
];

/// The socket of a context, or the one that a pointer is to.
pub(crate) fn own_sock(st: &State, addr: u64) -> Option<SockId> {
    let ProgCtx::Fields(ctx) = &st.cur.ctx else {
        return st.world.sock_at(addr);
    };
    if addr != CTX_WINDOW {
        return st.world.sock_at(addr);
    }
    let mut socks = ctx.pointers.iter().filter_map(|&(slot, to)| {
        let is = matches!(
            slot,
            CtxSlot::SkbSk | CtxSlot::SockAddrSk | CtxSlot::SockOpsSk | CtxSlot::SkReuseportSk
        );
        is.then(|| st.world.sock_at(to)).flatten()
    });
    socks.next().or(ctx.sock)
}

/// The socket that argument 1 points to, as another kind of pointer, or null.
fn cast(st: &mut State, a: &Args, to: fn(&State, SockId) -> Option<u64>) -> Arg<Flow> {
    let Some(sock) = st.world.sock_at(a.r[0]) else {
        // BTF pointers may be null.
        return if a.r[0] == 0 {
            Ok(Flow::Done(0))
        } else {
            a.bad(1)
        };
    };
    Ok(Flow::Done(to(st, sock).unwrap_or(0)))
}

fn inet6(st: &State, sock: SockId, protocol: u32) -> Option<u64> {
    let s = &st.world.socks[sock.at()];
    let is = s.full() && s.spec.protocol == protocol && s.family == crate::world::AF_INET6;
    is.then_some(s.addr)
}

fn in_state(st: &State, sock: SockId, state: SockState) -> Option<u64> {
    let s = &st.world.socks[sock.at()];
    (s.spec.state == state && s.spec.protocol == IPPROTO_TCP).then_some(s.addr)
}

/// `bpf_sk_lookup_tcp(ctx, tuple, tuple_size, netns, flags)` and its like: a reference, or null.
fn lookup(st: &mut State, mem: &mut GuestMem, a: &Args, protocol: u32, full: bool) -> Arg<Flow> {
    /// `sizeof(tuple->ipv4)`, `sizeof(tuple->ipv6)`
    const IPV4: u32 = 12;
    const IPV6: u32 = 36;
    let v6 = match a.r[2] as u32 {
        IPV4 => false,
        IPV6 => true,
        _ => return Ok(Flow::Done(0)),
    };
    let here = st.netns_of(own_sock(st, a.r[0]));
    let netns = match a.r[3] as i32 {
        // `BPF_F_CURRENT_NETNS`
        ..0 => Some(here),
        id if a.r[3] <= i32::MAX as u64 => st.world.ns(here).peers.get(&id).copied(),
        _ => None,
    };
    let Some(netns) = netns.filter(|_| a.r[4] == 0) else {
        return Ok(Flow::Done(0));
    };
    let ip = if v6 { 16 } else { 4 };
    let end = |ip_at: u64, port_at: u64| {
        let port = mem.slice(port_at, 2)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        Some(SocketAddr::new(read_ip(mem, ip_at, v6)?, port))
    };
    let tuple = a.r[1];
    let (Some(source), Some(dest)) = (
        end(tuple, tuple + 2 * ip),
        end(tuple + ip, tuple + 2 * ip + 2),
    ) else {
        return a.bad(2);
    };
    let ifindex = match &st.cur.ctx {
        ProgCtx::Fields(ctx) if ctx.is_xdp() => ctx.get(CtxSlot::XdpIngressIfindex) as u32,
        ProgCtx::Fields(ctx) => ctx.get(CtxSlot::SkbIfindex) as u32,
        _ => LOOPBACK,
    };
    let found = st
        .world
        .find_sock(protocol, &Tuple { source, dest }, ifindex, netns);
    let found = found.filter(|s| !full || st.world.socks[s.at()].full());
    Ok(Flow::Done(match found {
        Some(sock) => {
            st.world.socks[sock.at()].refs += 1;
            sock_window(sock)
        }
        None => 0,
    }))
}

fn release(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let Some(sock) = st.world.sock_at(a.r[0]) else {
        return a.bad(1);
    };
    let s = &mut st.world.socks[sock.at()];
    s.refs = s.refs.saturating_sub(1);
    Ok(Flow::Done(0))
}

/// `bpf_sk_assign`: of a look-up the socket that it is to find, of a packet the one that it is
/// delivered to.
fn assign(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    const REPLACE: u64 = 1;
    const NO_REUSEPORT: u64 = 2;
    let done = |result: Result<u64, Errno>| Ok(Flow::Done(ret(result)));
    let sock = match a.r[1] {
        0 => None,
        addr => match st.world.sock_at(addr) {
            Some(sock) => Some(sock),
            None => return a.bad(2),
        },
    };
    let ProgCtx::Fields(ctx) = &mut st.cur.ctx else {
        return a.bad(1);
    };
    let looks_up = ctx.rule.layout.field(CtxSlot::SkLookupSk).is_some();
    if !looks_up {
        let full = sock.is_some_and(|s| st.world.socks[s.at()].full());
        return match (sock, a.r[2]) {
            (None, _) => done(Err(Errno::EINVAL)),
            (_, flags) if flags != 0 => done(Err(Errno::EINVAL)),
            (Some(_), _) if !full => done(Err(Errno::EOPNOTSUPP)),
            (Some(sock), _) => {
                ctx.selected = Some(sock);
                ctx.point(CtxSlot::SkbSk, sock_window(sock));
                done(Ok(0))
            }
        };
    }
    if a.r[2] & !(REPLACE | NO_REUSEPORT) != 0 {
        return done(Err(Errno::EINVAL));
    }
    if let Some(sock) = sock {
        let s = &st.world.socks[sock.at()];
        let (family, protocol) = (
            ctx.get(CtxSlot::SkLookupFamily) as u32,
            ctx.get(CtxSlot::SkLookupProtocol) as u32,
        );
        let state = match s.spec.protocol {
            IPPROTO_TCP => SockState::Listen,
            _ => SockState::Close,
        };
        if s.spec.state != state {
            return done(Err(Errno::ESOCKTNOSUPPORT));
        }
        if s.spec.protocol != protocol {
            return done(Err(Errno::EPROTOTYPE));
        }
        let v4_only = s.family != family && s.family != crate::world::AF_INET6;
        if v4_only {
            return done(Err(Errno::EAFNOSUPPORT));
        }
    }
    if ctx.selected.is_some() && a.r[2] & REPLACE == 0 {
        return done(Err(Errno::EEXIST));
    }
    ctx.selected = sock;
    ctx.point(CtxSlot::SkLookupSk, sock.map_or(0, sock_window));
    done(Ok(0))
}
