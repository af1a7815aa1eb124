//! Options of sockets: `bpf_setsockopt`, `bpf_getsockopt`, `bpf_bind`.
//!
//! The emulated sockets keep what is set, and `struct bpf_sock` and `struct sock` show marks,
//! priorities and devices; no packet of theirs is sent.

use super::packet::done;
use super::sock::own_sock;
use super::{Arg, Args, Helper, row};
use crate::ids::SockId;
use crate::state::State;
use crate::types::member_of;
use crate::world::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, RouteKind, SockState};
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const HELPERS: &[Helper] = &[
    row(Func::Setsockopt, true, setsockopt),
    row(Func::Getsockopt, true, getsockopt),
    row(Func::SockOpsCbFlagsSet, true, cb_flags_set),
    row(Func::Bind, true, bind),
];

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_IPV6: i32 = 41;
const TCP_CONGESTION: i32 = 13;
const TCP_SAVED_SYN: i32 = 28;
const TCP_BPF_CB_FLAGS: i32 = 1008;
const SO_BINDTODEVICE: i32 = 25;
/// `BPF_SOCK_OPS_ALL_CB_FLAGS`
const ALL_CB_FLAGS: u32 = 0x7f;

/// What an option does with a number.
#[derive(Clone, Copy)]
enum Takes {
    Any,
    /// 0 or 1.
    Bool,
    /// `EINVAL` outside of this.
    Range(i32, i32),
    /// Twice the number, within what sockets may have (`sk_sndbuf`, `sk_rcvbuf`).
    Buffer(i32),
    /// 0 is 1, below it the largest.
    Lowat,
}
use Takes::{Any, Bool, Buffer, Lowat, Range};

/// An option of 4 bytes: level, name, what it was before anybody set it, what it takes.
struct Opt(i32, i32, i32, Takes);

/// `sysctl_wmem_max`, `sysctl_rmem_max`
const BUFFER_MAX: i32 = 212_992;

/// `sol_socket_sockopt`, `sol_tcp_sockopt`, `sol_ip_sockopt`, `sol_ipv6_sockopt`
static OPTS: &[Opt] = &[
    Opt(SOL_SOCKET, 2, 0, Bool),                // SO_REUSEADDR
    Opt(SOL_SOCKET, 7, 16_384, Buffer(4608)),   // SO_SNDBUF
    Opt(SOL_SOCKET, 8, 131_072, Buffer(2304)),  // SO_RCVBUF
    Opt(SOL_SOCKET, 9, 0, Bool),                // SO_KEEPALIVE
    Opt(SOL_SOCKET, 12, 0, Any),                // SO_PRIORITY
    Opt(SOL_SOCKET, 15, 0, Bool),               // SO_REUSEPORT
    Opt(SOL_SOCKET, 18, 1, Lowat),              // SO_RCVLOWAT
    Opt(SOL_SOCKET, 36, 0, Any),                // SO_MARK
    Opt(SOL_SOCKET, 47, -1, Any),               // SO_MAX_PACING_RATE
    Opt(SOL_SOCKET, 62, 0, Range(0, i32::MAX)), // SO_BINDTOIFINDEX
    Opt(SOL_SOCKET, 74, 1, Range(-1, 1)),       // SO_TXREHASH
    Opt(SOL_TCP, 1, 0, Bool),                   // TCP_NODELAY
    Opt(SOL_TCP, 2, 536, Range(88, 32_767)),    // TCP_MAXSEG
    Opt(SOL_TCP, 4, 7200, Range(1, 32_767)),    // TCP_KEEPIDLE
    Opt(SOL_TCP, 5, 75, Range(1, 32_767)),      // TCP_KEEPINTVL
    Opt(SOL_TCP, 6, 9, Range(1, 127)),          // TCP_KEEPCNT
    Opt(SOL_TCP, 7, 6, Range(1, 127)),          // TCP_SYNCNT
    Opt(SOL_TCP, 10, 0, Any),                   // TCP_WINDOW_CLAMP
    Opt(SOL_TCP, 16, 0, Range(0, 1)),           // TCP_THIN_LINEAR_TIMEOUTS
    Opt(SOL_TCP, 18, 0, Range(0, i32::MAX)),    // TCP_USER_TIMEOUT
    Opt(SOL_TCP, 25, -1, Any),                  // TCP_NOTSENT_LOWAT
    Opt(SOL_TCP, 27, 0, Range(0, 2)),           // TCP_SAVE_SYN
    Opt(SOL_TCP, TCP_BPF_CB_FLAGS, 0, Range(0, ALL_CB_FLAGS as i32)),
    Opt(SOL_IP, 1, 0, Any),               // IP_TOS
    Opt(SOL_IPV6, 67, 0, Range(-1, 255)), // IPV6_TCLASS
    Opt(SOL_IPV6, 70, 1, Bool),           // IPV6_AUTOFLOWLABEL
];

/// What only `bpf_setsockopt` has: `TCP_BPF_IW`, `TCP_BPF_SNDCWND_CLAMP`, `TCP_BPF_DELACK_MAX`,
/// `TCP_BPF_RTO_MIN`. All want a number above 0.
const TCP_BPF: std::ops::RangeInclusive<i32> = 1001..=1004;

impl Takes {
    fn value(self, given: i32) -> Result<i32, Errno> {
        Ok(match self {
            Any => given,
            Bool => (given != 0).into(),
            Range(least, most) if !(least..=most).contains(&given) => return Err(Errno::EINVAL),
            Range(..) => given,
            Buffer(least) => given.clamp(0, BUFFER_MAX).saturating_mul(2).max(least),
            Lowat if given < 0 => i32::MAX,
            Lowat => given.max(1),
        })
    }
}

/// The socket that a call is about, if it has the level: `EINVAL` if not.
fn subject(st: &State, a: &Args, level: i32) -> Result<SockId, Errno> {
    let sock = own_sock(st, a.r[0]).ok_or(Errno::EINVAL)?;
    let s = &st.world.socks[sock.at()];
    let has = match level {
        SOL_SOCKET => true,
        SOL_TCP => s.spec.protocol == IPPROTO_TCP,
        SOL_IP => s.family == AF_INET,
        SOL_IPV6 => s.family == AF_INET6,
        _ => false,
    };
    (s.full() && has).then_some(sock).ok_or(Errno::EINVAL)
}

fn option(level: i32, name: i32, len: usize) -> Result<&'static Opt, Errno> {
    let found = OPTS.iter().find(|o| (o.0, o.1) == (level, name));
    found.filter(|_| len == 4).ok_or(Errno::EINVAL)
}

/// A text up to its NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `bpf_setsockopt(ctx, level, optname, optval, optlen)`
fn setsockopt(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (level, name) = (a.r[1] as i32, a.r[2] as i32);
    let value = a.bytes(mem, 4, a.r[4] as u32 as u64)?;
    let set = subject(st, a, level).and_then(|sock| set(st, sock, (level, name), &value));
    if let Ok(Some((sock, member, number))) = set {
        // What `struct sock` shows of it.
        let at = st
            .kernel_btf
            .as_ref()
            .and_then(|b| member_of(b, "sock", member));
        let addr = st.world.socks[sock.at()].addr;
        at.and_then(|at| mem.write_u32(addr + u64::from(at), number));
    }
    done(set.map(|_| 0))
}

/// Sets an option; what `struct sock` is to show then: the member, its value.
type Shown = Option<(SockId, &'static str, u32)>;

fn set(st: &mut State, sock: SockId, opt: (i32, i32), value: &[u8]) -> Result<Shown, Errno> {
    let number = value.try_into().map(i32::from_le_bytes);
    match opt {
        (SOL_SOCKET, SO_BINDTODEVICE) => {
            let name = text(value);
            let found = st.world.netdevs.iter().find(|d| d.name == name);
            let ifindex = match found {
                Some(dev) => dev.ifindex,
                None if name.is_empty() => 0,
                None => return Err(Errno::ENODEV),
            };
            st.world.socks[sock.at()].spec.bound_dev_if = ifindex;
            return Ok(None);
        }
        (SOL_TCP, TCP_CONGESTION) => {
            let name = text(value);
            if value.len() < 2 {
                return Err(Errno::EINVAL);
            }
            if !st.has_congestion_ops(&name) {
                return Err(Errno::ENOENT);
            }
            st.world.socks[sock.at()].congestion = name;
            return Ok(None);
        }
        (SOL_TCP, name) if TCP_BPF.contains(&name) => {
            let above_0 = number.is_ok_and(|n| n > 0);
            return if above_0 {
                Ok(None)
            } else {
                Err(Errno::EINVAL)
            };
        }
        _ => {}
    }
    let row = option(opt.0, opt.1, value.len())?;
    let number = row.3.value(number.unwrap_or(0))?;
    let s = &mut st.world.socks[sock.at()];
    s.options.insert(opt, number);
    Ok(match opt {
        (SOL_SOCKET, 12) => {
            s.spec.priority = number as u32;
            Some((sock, "sk_priority", s.spec.priority))
        }
        (SOL_SOCKET, 36) => {
            s.spec.mark = number as u32;
            Some((sock, "sk_mark", s.spec.mark))
        }
        (SOL_SOCKET, 15) => {
            s.spec.reuseport = number != 0;
            None
        }
        (SOL_SOCKET, 62) => {
            s.spec.bound_dev_if = number as u32;
            None
        }
        _ => None,
    })
}

/// `bpf_getsockopt(ctx, level, optname, optval, optlen)`: what is not written is zeroed.
fn getsockopt(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let (level, name, len) = (a.r[1] as i32, a.r[2] as i32, a.r[4] as u32);
    let got = subject(st, a, level).and_then(|sock| get(st, sock, (level, name), len as usize));
    let Some(to) = mem.slice_mut(a.r[3], len.into()) else {
        return a.bad(4);
    };
    to.fill(0);
    if let Ok(bytes) = &got {
        to[..bytes.len()].copy_from_slice(bytes);
    }
    done(got.map(|_| 0))
}

fn get(st: &State, sock: SockId, opt: (i32, i32), len: usize) -> Result<Vec<u8>, Errno> {
    let s = &st.world.socks[sock.at()];
    match opt {
        (SOL_TCP, TCP_CONGESTION) => {
            let most = len.checked_sub(1).filter(|&most| most > 0);
            let most = most.ok_or(Errno::EINVAL)?;
            let name = s.congestion.as_bytes();
            return Ok(name[..name.len().min(most)].to_vec());
        }
        (SOL_TCP, TCP_SAVED_SYN) if len > 0 => return Ok(Vec::new()),
        _ => {}
    }
    let row = option(opt.0, opt.1, len)?;
    let number = match opt {
        (SOL_SOCKET, 12) => s.spec.priority as i32,
        (SOL_SOCKET, 36) => s.spec.mark as i32,
        (SOL_SOCKET, 15) => s.spec.reuseport.into(),
        (SOL_SOCKET, 62) => s.spec.bound_dev_if as i32,
        (SOL_SOCKET, 7 | 8) if s.spec.protocol == IPPROTO_UDP => {
            s.options.get(&opt).copied().unwrap_or(BUFFER_MAX)
        }
        _ => s.options.get(&opt).copied().unwrap_or(row.2),
    };
    Ok(number.to_le_bytes().to_vec())
}

impl State {
    /// Congestion controls that are there: the kernel's own, and those of registered struct_ops.
    fn has_congestion_ops(&self, name: &str) -> bool {
        self.registered_congestion(name.as_bytes())
    }
}

/// `bpf_sock_ops_cb_flags_set(skops, flags)`: gives the flags that it does not know.
fn cb_flags_set(st: &mut State, _: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let flags = a.r[1] as u32;
    let sock = match subject(st, a, SOL_TCP) {
        Ok(sock) => sock,
        Err(errno) => return done(Err(errno)),
    };
    let known = (flags & ALL_CB_FLAGS) as i32;
    let options = &mut st.world.socks[sock.at()].options;
    options.insert((SOL_TCP, TCP_BPF_CB_FLAGS), known);
    Ok(Flow::Done((flags & !ALL_CB_FLAGS).into()))
}

/// `bpf_bind(ctx, addr, addr_len)`
fn bind(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `sizeof(struct sockaddr_in)`, `SIN6_LEN_RFC2133`
    const SIN: usize = 16;
    const SIN6: usize = 24;
    let bytes = a.bytes(mem, 2, a.r[2] as u32 as u64)?;
    let word = |at: usize| [bytes[at], bytes[at + 1]];
    let Some(sock) = own_sock(st, a.r[0]).filter(|_| bytes.len() >= 2) else {
        return done(Err(Errno::EINVAL));
    };
    let ip: IpAddr = match u32::from(u16::from_le_bytes(word(0))) {
        AF_INET if bytes.len() < SIN => return done(Err(Errno::EINVAL)),
        AF_INET => Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]).into(),
        AF_INET6 if bytes.len() < SIN6 => return done(Err(Errno::EINVAL)),
        AF_INET6 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[8..24]);
            Ipv6Addr::from(ip).into()
        }
        _ => return done(Err(Errno::EAFNOSUPPORT)),
    };
    let port = u16::from_be_bytes(word(2));
    done(st.bind(sock, SocketAddr::new(ip, port)).map(|()| 0))
}

impl State {
    /// `__inet_bind`
    fn bind(&mut self, sock: SockId, to: SocketAddr) -> Result<(), Errno> {
        let world = &mut *self.world;
        let s = &world.socks[sock.at()];
        if to.is_ipv4() != (s.family == AF_INET) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let ip = to.ip();
        let route = world.route(ip, None);
        let local = route.is_some_and(|r| r.kind == RouteKind::Local);
        if !ip.is_unspecified() && !ip.is_loopback() && !local {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if s.spec.state != SockState::Close || s.spec.local.port() != 0 {
            return Err(Errno::EINVAL);
        }
        let clash = |o: &crate::world::Sock| {
            let other = o.spec.local;
            let same_ip = other.ip() == ip || other.ip().is_unspecified() || ip.is_unspecified();
            let shares = o.spec.reuseport && s.spec.reuseport;
            o.open
                && o.spec.protocol == s.spec.protocol
                && other.port() == to.port()
                && same_ip
                && !shares
        };
        if to.port() != 0 && world.socks.iter().any(clash) {
            return Err(Errno::EADDRINUSE);
        }
        world.socks[sock.at()].spec.local = to;
        Ok(())
    }
}
