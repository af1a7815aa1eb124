//! SYN cookies: connections that a listener keeps no state for until they are answered.
//!
//! Linux hashes with keys that are random at each boot; here the hash is keyed by the seed.

use super::packet::done;
use super::{Arg, Args, Helper, row};
use crate::ids::mix;
use crate::state::State;
use crate::world::{IPPROTO_TCP, SockState};
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};

/// Segment sizes that a cookie can say (`msstab` of `net/ipv4/syncookies.c` and its like).
const SIZES: [[u16; 4]; 2] = [[536, 1300, 1440, 1460], [1220, 1420, 1440, 8940]];
/// Of a SYN that says none: `TCP_MSS_DEFAULT`, and what IPv6's least MTU has room for.
const DEFAULT: [u16; 2] = [536, 1220];
/// `sizeof(struct tcphdr)`
const TCP: u64 = 20;
/// Bits of a cookie below its time, and how many minutes it is taken for.
const COOKIE_BITS: u32 = 24;
const MAX_AGE: u32 = 2;

pub(super) const HELPERS: &[Helper] = &[
    row(Func::TcpRawGenSyncookieIpv4, false, |st, mem, a| {
        raw_gen(st, mem, a, false)
    }),
    row(Func::TcpRawGenSyncookieIpv6, false, |st, mem, a| {
        raw_gen(st, mem, a, true)
    }),
    row(Func::TcpRawCheckSyncookieIpv4, false, |st, mem, a| {
        raw_check(st, mem, a, false)
    }),
    row(Func::TcpRawCheckSyncookieIpv6, false, |st, mem, a| {
        raw_check(st, mem, a, true)
    }),
    row(Func::TcpGenSyncookie, false, |st, mem, a| {
        let th_len = a.r[4] as u32 as u64;
        let header = if th_len < TCP {
            None
        } else {
            Some(tcp(mem, a, 4, th_len)?)
        };
        let whole = header.filter(|th| u64::from(th.doff) * 4 == th_len);
        let Some(th) = whole.filter(|_| listens(st, a)) else {
            return done(Err(Errno::EINVAL));
        };
        if !th.syn || th.ack || th.fin || th.rst {
            return done(Err(Errno::EINVAL));
        }
        // No listener's queue is ever full here, so that none needs cookies.
        done(Err(version(st, mem, a)?.err().unwrap_or(Errno::ENOENT)))
    }),
    row(Func::TcpCheckSyncookie, false, |st, mem, a| {
        let th_len = a.r[4] as u32 as u64;
        if th_len < TCP || !listens(st, a) {
            return done(Err(Errno::EINVAL));
        }
        let th = tcp(mem, a, 4, th_len)?;
        let answers = th.ack && !th.rst && !th.syn;
        if answers && (a.r[2] as u32) < 20 {
            return done(Err(Errno::EINVAL));
        }
        // No listener has ever run out of room (`tcp_synq_no_recent_overflow`).
        done(Err(Errno::ENOENT))
    }),
];

/// What of a TCP header matters.
struct Tcp {
    ports: u32,
    seq: u32,
    ack_seq: u32,
    doff: u8,
    fin: bool,
    syn: bool,
    rst: bool,
    ack: bool,
}

/// The header that argument `n` points to.
fn tcp(mem: &GuestMem, a: &Args, n: u8, len: u64) -> Arg<Tcp> {
    let bytes = a.bytes(mem, n, len.max(TCP))?;
    let word =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let flag = |bit: u8| bytes[13] & bit != 0;
    Ok(Tcp {
        ports: word(0),
        seq: word(4),
        ack_seq: word(8),
        doff: bytes[12] >> 4,
        fin: flag(1),
        syn: flag(2),
        rst: flag(4),
        ack: flag(16),
    })
}

/// True where the first argument is a TCP socket that listens.
fn listens(st: &State, a: &Args) -> bool {
    let sock = st.world.sock_at(a.r[0]);
    let spec = sock.map(|s| &st.world.socks[s.at()].spec);
    spec.is_some_and(|s| s.protocol == IPPROTO_TCP && s.state == SockState::Listen)
}

/// Whether the IP header of argument 2 is one that the socket can get.
fn version(st: &State, mem: &GuestMem, a: &Args) -> Arg<Result<(), Errno>> {
    let len = a.r[2] as u32 as u64;
    if len < 20 {
        return Ok(Err(Errno::EINVAL));
    }
    let first = a.bytes(mem, 2, 1)?[0];
    let sock = st.world.sock_at(a.r[0]);
    let v6 = sock.is_some_and(|s| st.world.socks[s.at()].spec.local.is_ipv6());
    Ok(match first >> 4 {
        4 => Ok(()),
        6 if len < 40 || !v6 => Err(Errno::EINVAL),
        6 => Ok(()),
        _ => Err(Errno::EPROTONOSUPPORT),
    })
}

/// Addresses of an IP header, as one number.
fn addresses(mem: &GuestMem, a: &Args, v6: bool) -> Arg<u64> {
    let (from, to) = if v6 { (8, 40) } else { (12, 20) };
    let header = a.bytes(mem, 1, to)?;
    let words = header[from as usize..].chunks(4);
    let word = |c: &[u8]| c.iter().fold(0, |w, &b| w << 8 | u64::from(b));
    Ok(words.fold(0, |all, c| mix(all, word(c))))
}

/// `cookie_hash`
fn hash(st: &State, flow: u64, count: u32, which: u64) -> u32 {
    mix(mix(mix(st.seed.get(), flow), count.into()), which) as u32
}

/// `tcp_cookie_time`: minutes.
fn minutes(st: &State) -> u32 {
    (st.now() / 60_000_000_000) as u32
}

/// `tcp_parse_mss_option`: 0 for none.
fn wanted_size(options: &[u8]) -> u16 {
    let mut rest = options;
    loop {
        match *rest {
            [1, ..] => rest = &rest[1..],
            [0, ..] | [] | [_] => return 0,
            [_, len, ..] if len < 2 || len as usize > rest.len() => return 0,
            [2, 4, high, low, ..] => return u16::from_be_bytes([high, low]),
            [_, len, ..] => rest = &rest[len as usize..],
        }
    }
}

/// `bpf_tcp_raw_gen_syncookie_ipv4(iph, th, th_len)`: the cookie, and above it the segment size that it
/// says.
fn raw_gen(st: &mut State, mem: &mut GuestMem, a: &Args, v6: bool) -> Arg<Flow> {
    let len = a.r[2] as u32 as u64;
    if len < TCP {
        return done(Err(Errno::EINVAL));
    }
    let th = tcp(mem, a, 2, len)?;
    if u64::from(th.doff) * 4 != len {
        return done(Err(Errno::EINVAL));
    }
    let header = a.bytes(mem, 2, len)?;
    let wanted = match wanted_size(&header[TCP as usize..]) {
        0 => DEFAULT[v6 as usize],
        size => size,
    };
    let sizes = SIZES[v6 as usize];
    let index = sizes.iter().rposition(|&s| wanted >= s).unwrap_or(0);
    let flow = mix(addresses(mem, a, v6)?, th.ports.into());
    let count = minutes(st);
    let mask = (1 << COOKIE_BITS) - 1;
    let said = hash(st, flow, count, 1).wrapping_add(index as u32) & mask;
    let cookie = hash(st, flow, 0, 0)
        .wrapping_add(th.seq)
        .wrapping_add(count << COOKIE_BITS)
        .wrapping_add(said);
    Ok(Flow::Done(
        u64::from(cookie) | u64::from(sizes[index]) << 32,
    ))
}

/// `bpf_tcp_raw_check_syncookie_ipv4(iph, th)`
fn raw_check(st: &mut State, mem: &mut GuestMem, a: &Args, v6: bool) -> Arg<Flow> {
    let th = tcp(mem, a, 2, TCP)?;
    let flow = mix(addresses(mem, a, v6)?, th.ports.into());
    let (cookie, seq) = (th.ack_seq.wrapping_sub(1), th.seq.wrapping_sub(1));
    let cookie = cookie.wrapping_sub(hash(st, flow, 0, 0).wrapping_add(seq));
    let mask = (1 << COOKIE_BITS) - 1;
    let age = minutes(st).wrapping_sub(cookie >> COOKIE_BITS) & (u32::MAX >> COOKIE_BITS);
    let made = minutes(st).wrapping_sub(age);
    let index = cookie.wrapping_sub(hash(st, flow, made, 1)) & mask;
    let known = age < MAX_AGE && (index as usize) < SIZES[v6 as usize].len();
    done(if known { Ok(0) } else { Err(Errno::EACCES) })
}
