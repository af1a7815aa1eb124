//! `bpf_fib_lookup`: where a packet would be forwarded to.

use super::packet::{done, is_xdp, packet};
use super::{Arg, Args, Helper, row};
use crate::packet::ETH_HLEN;
use crate::state::State;
use crate::world::{AF_INET6, MAIN, RouteKind, World, octets};
use bpfsim_abi::{Errno, Func};
use bpfsim_vm::{Flow, GuestMem};
use std::net::IpAddr;

pub(super) const HELPERS: &[Helper] = &[row(Func::FibLookup, false, fib_lookup)];

/// `BPF_FIB_LOOKUP_*`
const DIRECT: u32 = 1;
const OUTPUT: u32 = 2;
const SKIP_NEIGH: u32 = 4;
const TBID: u32 = 8;
const SRC: u32 = 16;
const MARK: u32 = 32;
const KNOWN: u32 = DIRECT | OUTPUT | SKIP_NEIGH | TBID | SRC | MARK;

/// `BPF_FIB_LKUP_RET_*`
const BLACKHOLE: u64 = 1;
const UNREACHABLE: u64 = 2;
const PROHIBIT: u64 = 3;
const NOT_FWDED: u64 = 4;
const FWD_DISABLED: u64 = 5;
const NO_NEIGH: u64 = 7;
const FRAG_NEEDED: u64 = 8;
const NO_SRC_ADDR: u64 = 9;

const AF_INET: u8 = 2;

/// Where the members of `struct bpf_fib_lookup` are.
mod at {
    use std::ops::Range;
    pub const SIZE: u64 = 64;
    pub const FAMILY: usize = 0;
    pub const TOT_LEN: Range<usize> = 6..8;
    pub const IFINDEX: Range<usize> = 8..12;
    pub const METRIC: Range<usize> = 12..16;
    pub const SRC: usize = 16;
    pub const DST: usize = 32;
    pub const VLAN: Range<usize> = 48..52;
    pub const TBID: Range<usize> = 48..52;
    pub const SMAC: Range<usize> = 52..58;
    pub const DMAC: Range<usize> = 58..64;
}

/// `struct bpf_fib_lookup`
struct Params {
    bytes: [u8; at::SIZE as usize],
}

impl Params {
    fn u32(&self, range: std::ops::Range<usize>) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[range]);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, from: usize, bytes: &[u8]) {
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }

    fn v6(&self) -> bool {
        u32::from(self.bytes[at::FAMILY]) == AF_INET6
    }

    fn ip(&self, from: usize) -> IpAddr {
        let mut ip = [0; 16];
        ip.copy_from_slice(&self.bytes[from..from + 16]);
        match self.v6() {
            true => ip.into(),
            false => [ip[0], ip[1], ip[2], ip[3]].into(),
        }
    }

    fn tot_len(&self) -> u32 {
        let [low, high] = [
            self.bytes[at::TOT_LEN.start],
            self.bytes[at::TOT_LEN.start + 1],
        ];
        u16::from_le_bytes([low, high]).into()
    }

    fn set_mtu(&mut self, mtu: u32) {
        self.set(at::TOT_LEN.start, &(mtu as u16).to_le_bytes());
    }
}

/// `bpf_fib_lookup(ctx, params, plen, flags)`
fn fib_lookup(st: &mut State, mem: &mut GuestMem, a: &Args) -> Arg<Flow> {
    let p = packet(st, a)?;
    let flags = a.r[3] as u32;
    if (a.r[2] as u32 as u64) < at::SIZE || flags & !KNOWN != 0 {
        return done(Err(Errno::EINVAL));
    }
    let given = a.bytes(mem, 2, at::SIZE)?;
    let mut params = Params {
        bytes: [0; at::SIZE as usize],
    };
    params.set(0, &given);
    let asked_len = params.tot_len();
    if params.bytes[at::FAMILY] != AF_INET && !params.v6() {
        return done(Err(Errno::EAFNOSUPPORT));
    }
    let mut answer = lookup(&st.world, &mut params, flags);
    if answer == Ok(0) && asked_len == 0 && !is_xdp(st) {
        // Without a length it is the packet's own that has to fit.
        let dev = st.world.netdev(params.u32(at::IFINDEX));
        let mtu = dev.map_or(0, |d| d.mtu);
        if p.len() > u64::from(mtu) + ETH_HLEN + 4 {
            answer = Ok(FRAG_NEEDED);
        }
        params.set_mtu(mtu);
    }
    match mem.slice_mut(a.r[1], at::SIZE) {
        Some(to) => to.copy_from_slice(&params.bytes),
        None => return a.bad(2),
    }
    done(answer)
}

/// `bpf_ipv4_fib_lookup`, `bpf_ipv6_fib_lookup`
fn lookup(world: &World, params: &mut Params, flags: u32) -> Result<u64, Errno> {
    let dev = world.netdev(params.u32(at::IFINDEX)).ok_or(Errno::ENODEV)?;
    if !dev.forwards {
        return Ok(FWD_DISABLED);
    }
    let table = match (flags & DIRECT != 0, flags & TBID != 0) {
        (false, _) => None,
        (true, false) => Some(MAIN),
        (true, true) => {
            let table = params.u32(at::TBID);
            params.set(at::TBID.start, &[0; 4]);
            Some(table)
        }
    };
    let dest = params.ip(at::DST);
    let Some(route) = world.route(dest, table) else {
        return Ok(NOT_FWDED);
    };
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Local => return Ok(NOT_FWDED),
        RouteKind::Blackhole => return Ok(BLACKHOLE),
        RouteKind::Unreachable => return Ok(UNREACHABLE),
        RouteKind::Prohibit => return Ok(PROHIBIT),
    }
    let Some(dev) = world.netdev(route.ifindex) else {
        return Ok(NOT_FWDED);
    };
    let mtu = route.mtu.map_or(dev.mtu, |mtu| mtu.min(dev.mtu));
    let len = params.tot_len();
    if len > mtu {
        params.set_mtu(mtu);
        return Ok(FRAG_NEEDED);
    }
    params.set(at::METRIC.start, &route.metric.to_le_bytes());
    params.set(at::IFINDEX.start, &dev.ifindex.to_le_bytes());
    if flags & SRC != 0 {
        match route.source {
            Some(source) => params.set(at::SRC, &octets(source)),
            None if params.v6() => return Ok(NO_SRC_ADDR),
            None => params.set(at::SRC, &[0; 4]),
        }
    }
    let next = route.via.unwrap_or(dest);
    if let Some(via) = route.via {
        params.bytes[at::FAMILY] = if via.is_ipv6() {
            AF_INET6 as u8
        } else {
            AF_INET
        };
        params.set(at::DST, &octets(via));
    }
    if flags & SKIP_NEIGH == 0 {
        let Some(mac) = world.neighbour(dev.ifindex, next) else {
            return Ok(NO_NEIGH);
        };
        params.set(at::DMAC.start, &mac);
        params.set(at::SMAC.start, &dev.mac);
    }
    params.set(at::VLAN.start, &[0; 4]);
    if len != 0 {
        params.set_mtu(mtu);
    }
    Ok(0)
}
