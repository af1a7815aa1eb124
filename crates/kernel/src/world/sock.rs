//! Sockets.
//!
//! Programs reach a socket by two kinds of pointer. `PTR_TO_SOCKET` and its like show `struct
//! bpf_sock` or `struct bpf_tcp_sock`, fields that are not where the program sees them: such a
//! pointer is an address in a window outside of guest memory. A BTF pointer is the guest address of
//! the `struct tcp_sock` and so on, which also names the socket in storage maps.

use super::World;
use crate::ids::{CgroupId, MapId, NsId, SockId};
use crate::kernel::Kernel;
use crate::state::State;
use bpfsim_abi::ctx::{self, CtxLayout, CtxSlot};
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::{Area, BASE, GuestMem, MemError};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where socket pointers lie: beyond the window of contexts.
const WINDOW: u64 = BASE + (1 << 41);
/// Bytes of the window that a socket has.
const STRIDE: u64 = 1 << 12;
/// Where in there a `struct bpf_tcp_sock` is seen.
const TCP: u64 = 1 << 11;

/// `AF_INET`, `AF_INET6`
pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;
/// `IPPROTO_TCP`, `IPPROTO_UDP`
pub(crate) const IPPROTO_TCP: u32 = 6;
pub(crate) const IPPROTO_UDP: u32 = 17;

/// `TCP_ESTABLISHED` and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum SockState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
}

/// What socket to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SockSpec {
    /// `SOCK_STREAM` (1) or `SOCK_DGRAM` (2).
    pub sock_type: u32,
    /// `IPPROTO_TCP` (6) or `IPPROTO_UDP` (17).
    pub protocol: u32,
    /// Its own address, which also says its family.
    pub local: SocketAddr,
    /// The other end's, if it is connected.
    pub remote: Option<SocketAddr>,
    /// `sk_state`
    pub state: SockState,
    /// `SO_MARK`
    pub mark: u32,
    /// `SO_PRIORITY`
    pub priority: u32,
    /// `SO_BINDTODEVICE`, 0 for none.
    pub bound_dev_if: u32,
    /// Who made it.
    pub uid: u32,
    /// The cgroup of who made it; none is the root.
    pub cgroup: Option<CgroupId>,
    /// Its network namespace; none is the initial one.
    pub netns: Option<NsId>,
    /// `SO_REUSEPORT`: it shares its address with others, which form a group.
    pub reuseport: bool,
    /// What programs read of `struct bpf_tcp_sock`; all else is 0.
    pub tcp: Vec<(CtxSlot, u64)>,
}

impl SockSpec {
    /// A socket without a remote end.
    pub fn new(protocol: u32, local: SocketAddr, state: SockState) -> SockSpec {
        SockSpec {
            sock_type: if protocol == IPPROTO_TCP { 1 } else { 2 },
            protocol,
            local,
            remote: None,
            state,
            mark: 0,
            priority: 0,
            bound_dev_if: 0,
            uid: 0,
            cgroup: None,
            netns: None,
            reuseport: false,
            tcp: Vec::new(),
        }
    }
}

/// A socket.
#[derive(Clone, Debug)]
pub(crate) struct Sock {
    pub spec: SockSpec,
    /// `AF_UNSPEC` for that of a test packet that is no IP.
    pub family: u32,
    /// Guest address of its structure.
    pub addr: u64,
    /// Its number in `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// References that programs hold.
    pub refs: u32,
    /// It can be found and has not been closed.
    pub open: bool,
    /// Options that were set, by level and name.
    pub options: BTreeMap<(i32, i32), i32>,
    /// `TCP_CONGESTION`
    pub congestion: String,
    /// Bytes of options that programs have asked for in its next TCP header.
    pub opt_reserved: u32,
}

/// The address by which a program has a socket as `struct bpf_sock`.
pub(crate) fn sock_window(sock: SockId) -> u64 {
    WINDOW + sock.0 as u64 * STRIDE
}

impl Sock {
    /// `sk_fullsock`
    pub fn full(&self) -> bool {
        !matches!(self.spec.state, SockState::TimeWait | SockState::NewSynRecv)
    }

    /// `struct bpf_sock` as a program sees it.
    fn bpf_sock(&self) -> Vec<u8> {
        let spec = &self.spec;
        let remote = spec.remote;
        let mut bytes = vec![0; ctx::SOCK.size as usize];
        let mut set = |slot, value: &[u8]| put(&ctx::SOCK, &mut bytes, slot, value);
        set(CtxSlot::SockBoundDevIf, &spec.bound_dev_if.to_le_bytes());
        set(CtxSlot::SockFamily, &self.family.to_le_bytes());
        set(CtxSlot::SockType, &spec.sock_type.to_le_bytes());
        set(CtxSlot::SockProtocol, &spec.protocol.to_le_bytes());
        set(CtxSlot::SockMark, &spec.mark.to_le_bytes());
        set(CtxSlot::SockPriority, &spec.priority.to_le_bytes());
        set(
            CtxSlot::SockSrcPort,
            &u32::from(spec.local.port()).to_le_bytes(),
        );
        set(CtxSlot::SockState, &(spec.state as u32).to_le_bytes());
        // No queue was recorded.
        set(CtxSlot::SockRxQueueMapping, &u32::MAX.to_le_bytes());
        if self.family != 0 {
            let [ip4, ip6] = [CtxSlot::SockSrcIp4, CtxSlot::SockSrcIp6];
            set(
                if spec.local.is_ipv4() { ip4 } else { ip6 },
                &octets(spec.local.ip()),
            );
        }
        if let Some(remote) = remote {
            set(CtxSlot::SockDstPort, &remote.port().to_be_bytes());
            let [ip4, ip6] = [CtxSlot::SockDstIp4, CtxSlot::SockDstIp6];
            set(
                if remote.is_ipv4() { ip4 } else { ip6 },
                &octets(remote.ip()),
            );
        }
        bytes
    }

    /// `struct bpf_tcp_sock` as a program sees it.
    fn bpf_tcp_sock(&self) -> Vec<u8> {
        let mut bytes = vec![0; ctx::TCP_SOCK.size as usize];
        for (slot, value) in &self.spec.tcp {
            put(&ctx::TCP_SOCK, &mut bytes, *slot, &value.to_le_bytes());
        }
        bytes
    }
}

fn put(layout: &CtxLayout, bytes: &mut [u8], slot: CtxSlot, value: &[u8]) {
    if let Some(field) = layout.field(slot) {
        let (from, end) = (field.offset as usize, field.end() as usize);
        let n = value.len().min(end - from);
        bytes[from..from + n].copy_from_slice(&value[..n]);
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The ends of a flow, as a packet has them.
pub(crate) struct Tuple {
    pub source: SocketAddr,
    pub dest: SocketAddr,
}

impl World {
    /// The socket that a pointer means, of either kind.
    pub fn sock_at(&self, addr: u64) -> Option<SockId> {
        let id = match addr.checked_sub(WINDOW) {
            Some(off) => SockId(u32::try_from(off / STRIDE).ok()?),
            None => {
                let at = self.socks.iter().position(|s| s.addr == addr)?;
                SockId(at as u32)
            }
        };
        (id.at() < self.socks.len()).then_some(id)
    }

    /// The address that stands for the object of a pointer, as storage maps know it.
    pub fn sock_identity(&self, addr: u64) -> u64 {
        self.sock_at(addr)
            .map_or(addr, |id| self.socks[id.at()].addr)
    }

    /// Loads from the window of sockets.
    pub fn load_sock(&self, addr: u64, size: u32) -> Option<u64> {
        let sock = &self.socks[self.sock_at(addr).filter(|_| addr >= WINDOW)?.at()];
        let off = (addr - WINDOW) % STRIDE;
        let (bytes, off) = match off.checked_sub(TCP) {
            Some(off) => (sock.bpf_tcp_sock(), off as usize),
            None => (sock.bpf_sock(), off as usize),
        };
        let found = bytes.get(off..off + size as usize)?;
        let mut word = [0; 8];
        word[..found.len()].copy_from_slice(found);
        Some(u64::from_le_bytes(word))
    }

    /// The `struct bpf_tcp_sock` of a TCP socket.
    pub fn tcp_window(&self, sock: SockId) -> Option<u64> {
        let s = &self.socks[sock.at()];
        (s.full() && s.spec.protocol == IPPROTO_TCP).then(|| sock_window(sock) + TCP)
    }

    /// Whether a map of sockets takes this one (`sock_map_sk_state_allowed`): `EOPNOTSUPP` if not.
    pub fn fits_map(&self, sock: SockId) -> Result<(), Errno> {
        let spec = &self.socks[sock.at()].spec;
        let fits = match spec.protocol {
            IPPROTO_TCP => matches!(spec.state, SockState::Established | SockState::Listen),
            _ => true,
        };
        fits.then_some(()).ok_or(Errno::EOPNOTSUPP)
    }

    /// `__inet_lookup` and its like: a connected socket of this flow, else the one that listens or
    /// is bound there, an exact address before the wildcard.
    pub fn find_sock(
        &self,
        protocol: u32,
        flow: &Tuple,
        ifindex: u32,
        netns: NsId,
    ) -> Option<SockId> {
        let fits = |s: &&Sock| {
            let bound = s.spec.bound_dev_if;
            s.open
                && s.netns() == netns
                && s.spec.protocol == protocol
                && s.spec.local.port() == flow.dest.port()
                && s.spec.local.is_ipv4() == flow.dest.is_ipv4()
                && (bound == 0 || bound == ifindex)
        };
        let score = |s: &Sock| {
            let local = s.spec.local.ip();
            let here = if local == flow.dest.ip() {
                2
            } else if local.is_unspecified() {
                1
            } else {
                return None;
            };
            let bound = u32::from(s.spec.bound_dev_if != 0);
            match s.spec.remote {
                Some(remote) if remote == flow.source => Some(100 + here),
                Some(_) => None,
                None if protocol == IPPROTO_TCP && s.spec.state != SockState::Listen => None,
                None => Some(2 * here + bound),
            }
        };
        let all = self.socks.iter().enumerate();
        let scored = all
            .filter(|(_, s)| fits(s))
            .filter_map(|(i, s)| Some((score(s)?, i)));
        // Of equals the first.
        let best = scored.max_by_key(|&(score, i)| (score, std::cmp::Reverse(i)))?;
        Some(SockId(best.1 as u32))
    }
}

impl Kernel {
    /// Makes a socket, which programs' look-ups find until it is closed.
    pub fn make_sock(&mut self, spec: SockSpec) -> Result<SockId, MemError> {
        let family = if spec.local.is_ipv4() {
            AF_INET
        } else {
            AF_INET6
        };
        self.add_sock(spec, family, true)
    }

    fn add_sock(&mut self, spec: SockSpec, family: u32, open: bool) -> Result<SockId, MemError> {
        let size = self.layouts.size_of(match spec.protocol {
            IPPROTO_TCP => "tcp_sock",
            IPPROTO_UDP => "udp_sock",
            _ => "sock",
        });
        let addr = self.mem.alloc(Area::Object, size, 64)?;
        let id = SockId(self.st.world.socks.len() as u32);
        let sock = Sock {
            spec,
            family,
            addr,
            cookie: id.0 as u64 + 1,
            refs: 0,
            open,
            options: BTreeMap::new(),
            congestion: "cubic".to_string(),
            opt_reserved: 0,
        };
        self.fill_sock(&sock);
        self.st.world.socks.push(sock);
        Ok(id)
    }

    /// Writes `struct sock_common`, which BTF pointers show.
    fn fill_sock(&mut self, sock: &Sock) {
        let common = |member: &str| {
            let path = format!("__sk_common.{member}");
            self.layouts.member("sock", &path).map(|at| sock.addr + at)
        };
        let spec = &sock.spec;
        let mut words = vec![
            ("skc_family", (sock.family as u16).to_le_bytes().to_vec()),
            ("skc_state", vec![spec.state as u8]),
            ("skc_num", spec.local.port().to_le_bytes().to_vec()),
            ("skc_bound_dev_if", spec.bound_dev_if.to_le_bytes().to_vec()),
        ];
        let ends = [
            (Some(spec.local), "skc_rcv_saddr", "skc_v6_rcv_saddr"),
            (spec.remote, "skc_daddr", "skc_v6_daddr"),
        ];
        for (end, v4, v6) in ends {
            if let Some(end) = end.filter(|_| sock.family != 0) {
                words.push((if end.is_ipv4() { v4 } else { v6 }, octets(end.ip())));
            }
        }
        if let Some(remote) = spec.remote {
            words.push(("skc_dport", remote.port().to_be_bytes().to_vec()));
        }
        let netns = self.st.world.ns(sock.netns()).addr;
        words.push(("skc_net", netns.to_le_bytes().to_vec()));
        let mut stores: Vec<(u64, Vec<u8>)> = Vec::new();
        stores.extend(
            words
                .into_iter()
                .filter_map(|(m, bytes)| Some((common(m)?, bytes))),
        );
        let plain = [
            ("sk_protocol", spec.protocol as u16),
            ("sk_type", spec.sock_type as u16),
        ];
        for (member, value) in plain {
            let at = self.layouts.member("sock", member);
            stores.extend(at.map(|at| (sock.addr + at, value.to_le_bytes().to_vec())));
        }
        for (member, value) in [("sk_mark", spec.mark), ("sk_priority", spec.priority)] {
            let at = self.layouts.member("sock", member);
            stores.extend(at.map(|at| (sock.addr + at, value.to_le_bytes().to_vec())));
        }
        for (at, bytes) in stores {
            if let Some(to) = self.mem.slice_mut(at, bytes.len() as u64) {
                to.copy_from_slice(&bytes);
            }
        }
    }

    /// Makes the sockets that test packets have, one for each CPU.
    pub(crate) fn make_test_socks(&mut self) -> Result<(), MemError> {
        for _ in 0..self.cpus.len() {
            let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            let mut spec = SockSpec::new(0, nowhere, SockState::Close);
            spec.sock_type = 0;
            self.add_sock(spec, 0, false)?;
        }
        Ok(())
    }

    /// Closes a socket: nothing finds it any more, and it leaves the maps that it is in.
    pub fn close_sock(&mut self, sock: SockId) {
        self.st.close_sock(&mut self.mem, sock);
    }

    /// A socket's cookie, as programs get it.
    pub fn sock_cookie(&self, sock: SockId) -> u64 {
        self.st.world.socks[sock.at()].cookie
    }
}

impl State {
    /// `sk_common_release`
    pub fn close_sock(&mut self, mem: &mut GuestMem, sock: SockId) {
        let Some(s) = self.world.socks.get_mut(sock.at()) else {
            return;
        };
        s.open = false;
        s.spec.state = SockState::Close;
        let owner = s.addr.to_le_bytes();
        for at in 0..self.maps.len() {
            let map = MapId(at as u32);
            if self.maps[at].spec.map_type == MapType::SkStorage {
                self.map_delete(mem, map, &owner).0.ok();
            } else if self.maps[at].holds_socks() {
                self.forget_sock(mem, map, sock_window(sock));
            }
        }
    }

    /// Takes a socket out of a map.
    fn forget_sock(&mut self, mem: &mut GuestMem, map: MapId, sock: u64) {
        let mut key = None;
        while let Ok(next) = self.sys_next_key(mem, map, key.as_deref()) {
            let (m, mut op) = self.map_op(mem, map);
            // The next key is asked for before this one goes.
            let after = key.replace(next.clone());
            if m.lookup(&mut op, &next) == Some(sock) {
                self.map_delete(mem, map, &next).0.ok();
                key = after;
            }
        }
    }
}

/// A word of a socket's address, read from where a program put it.
pub(crate) fn read_ip(mem: &GuestMem, at: u64, v6: bool) -> Option<IpAddr> {
    let bytes = mem.slice(at, if v6 { 16 } else { 4 })?;
    Some(if v6 {
        <[u8; 16]>::try_from(bytes).ok()?.into()
    } else {
        <[u8; 4]>::try_from(bytes).ok()?.into()
    })
}
