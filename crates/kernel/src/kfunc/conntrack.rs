//! `bpf_ct_*`: connections that netfilter tracks, looked up, made and changed.

use super::{Kfunc, row};
use crate::helper::{Arg, Args, own_sock, ret};
use crate::state::State;
use crate::world::{ConnTuple, Zone, ips, read_ip, ticks};
use bpfsim_abi::Errno;
use bpfsim_vm::{Flow, GuestMem};
use std::net::SocketAddr;
use std::time::Duration;

pub(super) const KFUNCS: &[Kfunc] = &[
    row("bpf_xdp_ct_alloc", true, |st, mem, a| {
        asked(st, mem, a, true)
    }),
    row("bpf_skb_ct_alloc", true, |st, mem, a| {
        asked(st, mem, a, true)
    }),
    row("bpf_xdp_ct_lookup", true, |st, mem, a| {
        asked(st, mem, a, false)
    }),
    row("bpf_skb_ct_lookup", true, |st, mem, a| {
        asked(st, mem, a, false)
    }),
    row("bpf_ct_insert_entry", true, |st, mem, a| {
        match st.conn_insert(mem, a.r[0]) {
            Some(true) => Ok(Flow::Done(a.r[0])),
            Some(false) => {
                st.conn_put(mem, a.r[0]);
                Ok(Flow::Done(0))
            }
            None => a.bad(1),
        }
    }),
    row("bpf_ct_release", true, |st, mem, a| {
        let put = st.conn_put(mem, a.r[0]);
        put.map_or_else(|| a.bad(1), |()| Ok(Flow::Done(0)))
    }),
    row("bpf_ct_set_timeout", true, |st, mem, a| {
        set_timeout(st, mem, a)?;
        Ok(Flow::Done(0))
    }),
    row("bpf_ct_change_timeout", true, change_timeout),
    row("bpf_ct_set_status", true, change_status),
    row("bpf_ct_change_status", true, change_status),
    row("bpf_ct_set_nat_info", true, set_nat_info),
];

/// Members of `struct bpf_ct_opts`, how long it is, and was.
mod opts {
    pub const NETNS: usize = 0;
    pub const ERROR: u64 = 4;
    pub const L4PROTO: usize = 8;
    pub const DIR: u64 = 9;
    pub const ZONE: usize = 10;
    pub const ZONE_DIR: usize = 12;
    pub const RESERVED: std::ops::Range<usize> = 13..16;
    pub const SIZE: u32 = 16;
    pub const OLDER: u32 = 12;
}

/// What a program asks for: packets, and where.
struct Asked {
    netns: crate::ids::NsId,
    zone: Zone,
    tuple: ConnTuple,
    /// `opts->dir` is told.
    opts: u64,
}

/// Makes a connection, or looks for one. An error goes to the options, however short these are.
fn asked(st: &mut State, mem: &mut GuestMem, a: &Args, makes: bool) -> Arg<Flow> {
    let asked = parse(st, mem, a, makes)?;
    let done = asked.and_then(|asked| match makes {
        true => alloc(st, mem, &asked),
        false => find(st, mem, &asked),
    });
    match done {
        Ok(addr) => Ok(Flow::Done(addr)),
        Err(errno) => {
            mem.write_u32(a.r[3] + opts::ERROR, -i32::from(errno.0) as u32);
            Ok(Flow::Done(0))
        }
    }
}

/// The options and the tuple that a program gave.
fn parse(st: &State, mem: &mut GuestMem, a: &Args, makes: bool) -> Arg<Result<Asked, Errno>> {
    /// `sizeof(tuple->ipv4)`, `sizeof(tuple->ipv6)`
    const IPV4: u32 = 12;
    const IPV6: u32 = 36;
    let size = a.r[4] as u32;
    if !matches!(size, opts::SIZE | opts::OLDER) {
        return Ok(Err(Errno::EINVAL));
    }
    let given = a.memory(mem, a.r[3], size.into())?;
    let mut bytes = [0; opts::SIZE as usize];
    bytes[..given.len()].copy_from_slice(&given);
    let zone = u16::from_le_bytes([bytes[opts::ZONE], bytes[opts::ZONE + 1]]);
    if bytes[opts::RESERVED] != [0; 3] || size == opts::OLDER && zone != 0 {
        return Ok(Err(Errno::EINVAL));
    }
    let at = opts::NETNS;
    let netns = i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let protocol = bytes[opts::L4PROTO];
    let ports = matches!(protocol, 6 | 17);
    // Making one looks at the namespace first, looking one up at the protocol.
    if netns < -1 && (ports || makes) {
        return Ok(Err(Errno::EINVAL));
    }
    if !ports {
        return Ok(Err(Errno::EPROTO));
    }
    let v6 = match a.r[2] as u32 {
        IPV4 => false,
        IPV6 => true,
        _ => return Ok(Err(Errno::EAFNOSUPPORT)),
    };
    let here = st.netns_of(own_sock(st, a.r[0]));
    let netns = match netns {
        // `BPF_F_CURRENT_NETNS`
        -1 => here,
        id => match st.world.ns(here).peers.get(&id) {
            Some(&netns) => netns,
            None => return Ok(Err(Errno::ENONET)),
        },
    };
    let ip = if v6 { 16 } else { 4 };
    let end = |ip_at: u64, port_at: u64| {
        let port = mem.slice(port_at, 2)?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        Some(SocketAddr::new(read_ip(mem, ip_at, v6)?, port))
    };
    let at = a.r[1];
    let (Some(source), Some(dest)) = (end(at, at + 2 * ip), end(at + ip, at + 2 * ip + 2)) else {
        return a.bad(2);
    };
    let mut zone = Zone {
        id: zone,
        dir: bytes[opts::ZONE_DIR],
    };
    if size == opts::OLDER || zone.dir == 0 {
        zone.dir = Zone::BOTH;
    }
    if size == opts::SIZE
        && let Some(to) = mem.slice_mut(a.r[3] + opts::ZONE_DIR as u64, 1)
    {
        to[0] = zone.dir;
    }
    Ok(Ok(Asked {
        netns,
        zone,
        tuple: ConnTuple::new(protocol, source, dest, 0),
        opts: a.r[3],
    }))
}

/// `bpf_skb_ct_lookup` and its like: a reference.
fn find(st: &mut State, mem: &mut GuestMem, asked: &Asked) -> Result<u64, Errno> {
    let found = st.conn_find(mem, asked.netns, asked.zone, &asked.tuple);
    let (addr, direction) = found.ok_or(Errno::ENOENT)?;
    if let Some(to) = mem.slice_mut(asked.opts + opts::DIR, 1) {
        to[0] = direction as u8;
    }
    st.obj_acquire(addr).ok_or(Errno::ENOENT)
}

/// `bpf_skb_ct_alloc` and its like: a connection that is not in the table yet.
fn alloc(st: &mut State, mem: &mut GuestMem, asked: &Asked) -> Result<u64, Errno> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let tuples = [asked.tuple, asked.tuple.inverted()];
    let made = st.conn_alloc(mem, asked.netns, asked.zone, tuples, ticks(TIMEOUT));
    made.ok_or(Errno::ENOMEM)
}

/// `__nf_ct_set_timeout`, in milliseconds; gives the status.
fn set_timeout(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<u32> {
    let layout = st.conn_layout().filter(|_| st.conn(a.r[0]).is_some());
    let Some(layout) = layout else {
        return a.bad(1);
    };
    let status = mem.read_u32(a.r[0] + layout.status).unwrap_or(0);
    let mut until = ticks(Duration::from_millis(a.r[1] as u32 as u64));
    if status & ips::CONFIRMED != 0 {
        until = until.wrapping_add(st.conn_now());
    }
    mem.write_u32(a.r[0] + layout.timeout, until);
    Ok(status)
}

fn done32(result: Result<u64, Errno>) -> Arg<Flow> {
    Ok(Flow::Done(ret(result) as u32 as u64))
}

/// `bpf_ct_change_timeout(nfct, timeout)`
fn change_timeout(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let status = status(st, mem, a)?;
    if status & ips::FIXED_TIMEOUT != 0 {
        return done32(Err(Errno::EPERM));
    }
    set_timeout(st, mem, a)?;
    done32(match status & ips::DYING {
        0 => Ok(0),
        _ => Err(Errno::ETIME),
    })
}

fn status(st: &State, mem: &GuestMem, a: &Args) -> Arg<u32> {
    let layout = st.conn_layout().filter(|_| st.conn(a.r[0]).is_some());
    let status = layout.and_then(|l| mem.read_u32(a.r[0] + l.status));
    status.map_or_else(|| a.bad(1), Ok)
}

fn set_status(st: &State, mem: &mut GuestMem, a: &Args, status: u32) {
    if let Some(layout) = st.conn_layout() {
        mem.write_u32(a.r[0] + layout.status, status);
    }
}

/// `nf_ct_change_status_common`: bits are added; some are the kernel's own.
fn change_status(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let now = status(st, mem, a)?;
    let asked = a.r[1] as u32;
    let differ = now ^ asked;
    let lost = |bit| differ & bit != 0 && asked & bit == 0;
    if differ & (ips::EXPECTED | ips::CONFIRMED | ips::DYING) != 0
        || lost(ips::SEEN_REPLY)
        || lost(ips::ASSURED)
    {
        return done32(Err(Errno::EBUSY));
    }
    set_status(st, mem, a, now | asked & !ips::UNCHANGEABLE);
    done32(Ok(0))
}

/// `bpf_ct_set_nat_info(nfct, addr, port, manip)`
fn set_nat_info(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    /// `NF_NAT_MANIP_SRC`, `NF_NAT_MANIP_DST`
    const SRC: u32 = 0;
    const DST: u32 = 1;
    let now = status(st, mem, a)?;
    let Some(conn) = st.conn(a.r[0]).cloned() else {
        return a.bad(1);
    };
    let (nat, ready) = match a.r[3] as u32 {
        SRC => (ips::SRC_NAT, ips::SRC_NAT_DONE),
        DST => (ips::DST_NAT, ips::DST_NAT_DONE),
        _ => return done32(Err(Errno::EINVAL)),
    };
    if now & ips::CONFIRMED != 0 {
        return done32(Ok(0));
    }
    // `nf_nat_setup_info` drops what was translated so before.
    if now & ready != 0 {
        return done32(Err(Errno::ENOMEM));
    }
    let dest = nat == ips::DST_NAT;
    let before = conn.tuples[1].inverted();
    let Some(ip) = read_ip(mem, a.r[1], before.end(dest).is_ipv6()) else {
        return a.bad(2);
    };
    let asked = a.r[2] as i32;
    let mut port = match asked {
        1.. => asked as u16,
        _ => before.end(dest).port(),
    };
    let mut after = before;
    after.set_end(dest, SocketAddr::new(ip, port));
    let taken = |st: &State, t: &ConnTuple| {
        let reply = t.inverted();
        st.conn_find(mem, conn.netns, conn.zone, &reply).is_some()
    };
    // Where none is asked for, the next one that is free.
    let mut tries = u16::MAX;
    while asked <= 0 && tries > 0 && taken(st, &after) {
        port = port.checked_add(1).unwrap_or(1024);
        after.set_end(dest, SocketAddr::new(ip, port));
        tries -= 1;
    }
    let mut status = now | ready;
    if !after.same(&before) {
        status |= nat;
        if let Some(conn) = st.conn_mut(a.r[0]) {
            conn.tuples[1] = after.inverted();
        }
        st.conn_show(mem, a.r[0]);
    }
    set_status(st, mem, a, status);
    done32(Ok(0))
}
