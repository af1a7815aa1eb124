//! Connections that netfilter tracks: `struct nf_conn`, which lies in guest memory. What programs
//! change there (timeout, status, mark) counts; addresses and zones are the world's own.

use super::{AF_INET, AF_INET6, octets};
use crate::ids::NsId;
use crate::kernel::Kernel;
use crate::object::ObjectKind;
use crate::state::State;
use crate::types::member_of;
use crate::world::NsKind;
use bpfsim_abi::Errno;
use bpfsim_btf::Kind;
use bpfsim_vm::GuestMem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A connection that netfilter tracks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// `IPPROTO_TCP` (6) or `IPPROTO_UDP` (17).
    pub protocol: u8,
    /// Where its packets come from.
    pub source: SocketAddr,
    /// Where they go.
    pub dest: SocketAddr,
    /// Where packets of the other direction come from: `dest`, unless addresses are translated.
    pub reply_source: SocketAddr,
    /// Where they go: `source`, unless addresses are translated.
    pub reply_dest: SocketAddr,
    /// Its zone, for both directions.
    pub zone: u16,
    /// Its network namespace; none is the initial one.
    pub netns: Option<NsId>,
    /// How long it still lasts, in steps of 4 ms.
    pub timeout: Duration,
    /// `IPS_*`; `IPS_CONFIRMED` (8) is added.
    pub status: u32,
    /// `ct->mark`
    pub mark: u32,
}

impl Connection {
    /// One whose addresses are not translated, for ten seconds.
    pub fn new(protocol: u8, source: SocketAddr, dest: SocketAddr) -> Connection {
        Connection {
            protocol,
            source,
            dest,
            reply_source: dest,
            reply_dest: source,
            zone: 0,
            netns: None,
            timeout: Duration::from_secs(10),
            status: 0,
            mark: 0,
        }
    }
}

/// `struct nf_conntrack_tuple`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ConnTuple(pub [u8; 40]);

/// Where in a tuple the source's and the destination's addresses and ports are.
const SOURCE: usize = 0;
const DEST: usize = 20;
const PORT: usize = 16;
const L3NUM: usize = 18;
const PROTONUM: usize = 38;
const DIR: usize = 39;

impl ConnTuple {
    pub fn new(protocol: u8, source: SocketAddr, dest: SocketAddr, dir: u8) -> ConnTuple {
        let mut tuple = ConnTuple([0; 40]);
        tuple.set_end(false, source);
        tuple.set_end(true, dest);
        let family = if source.is_ipv6() { AF_INET6 } else { AF_INET };
        tuple.0[L3NUM] = family as u8;
        (tuple.0[PROTONUM], tuple.0[DIR]) = (protocol, dir);
        tuple
    }

    pub fn set_end(&mut self, dest: bool, end: SocketAddr) {
        let at = if dest { DEST } else { SOURCE };
        let ip = octets(end.ip());
        self.0[at..at + 16].fill(0);
        self.0[at..at + ip.len()].copy_from_slice(&ip);
        self.0[at + PORT..at + PORT + 2].copy_from_slice(&end.port().to_be_bytes());
    }

    pub fn end(&self, dest: bool) -> SocketAddr {
        let at = if dest { DEST } else { SOURCE };
        let mut ip = [0; 16];
        ip.copy_from_slice(&self.0[at..at + 16]);
        let ip: IpAddr = match u32::from(self.0[L3NUM]) {
            AF_INET6 => ip.into(),
            _ => [ip[0], ip[1], ip[2], ip[3]].into(),
        };
        let port = [self.0[at + PORT], self.0[at + PORT + 1]];
        SocketAddr::new(ip, u16::from_be_bytes(port))
    }

    pub fn protocol(&self) -> u8 {
        self.0[PROTONUM]
    }

    /// The same packets the other way (`nf_ct_invert_tuple`).
    pub fn inverted(&self) -> ConnTuple {
        let dir = 1 - self.0[DIR].min(1);
        ConnTuple::new(self.protocol(), self.end(true), self.end(false), dir)
    }

    /// `nf_ct_tuple_equal`: the direction is no part of it.
    pub fn same(&self, other: &ConnTuple) -> bool {
        self.0[..DIR] == other.0[..DIR]
    }
}

/// `struct nf_conntrack_zone`: packets of directions that are not in `dir` have zone 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Zone {
    pub id: u16,
    pub dir: u8,
}

impl Zone {
    /// `NF_CT_DEFAULT_ZONE_DIR`
    pub const BOTH: u8 = 3;

    fn of(self, direction: usize) -> u16 {
        match self.dir & 1 << direction {
            0 => 0,
            _ => self.id,
        }
    }
}

/// A connection, tracked or about to be.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Where its `struct nf_conn` is.
    pub addr: u64,
    pub netns: NsId,
    pub zone: Zone,
    /// As its packets are, and those of the other direction.
    pub tuples: [ConnTuple; 2],
    /// It is in the table.
    pub tracked: bool,
}

/// Where members of `struct nf_conn` are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnLayout {
    pub size: u32,
    pub timeout: u64,
    pub status: u64,
    mark: u64,
    zone: u64,
    tuples: [u64; 2],
}

/// Bits of `ct->status`.
pub(crate) mod ips {
    pub const EXPECTED: u32 = 1;
    pub const SEEN_REPLY: u32 = 1 << 1;
    pub const ASSURED: u32 = 1 << 2;
    pub const CONFIRMED: u32 = 1 << 3;
    pub const SRC_NAT: u32 = 1 << 4;
    pub const DST_NAT: u32 = 1 << 5;
    pub const SRC_NAT_DONE: u32 = 1 << 7;
    pub const DST_NAT_DONE: u32 = 1 << 8;
    pub const DYING: u32 = 1 << 9;
    pub const FIXED_TIMEOUT: u32 = 1 << 10;
    /// `IPS_UNCHANGEABLE_MASK`
    pub const UNCHANGEABLE: u32 =
        0x1f0 | EXPECTED | CONFIRMED | DYING | 1 << 11 | 1 << 12 | 3 << 14;
}

/// `CONFIG_HZ` a second.
const TICK: Duration = Duration::from_nanos(1_000_000_000 / crate::helper::HZ);

pub(crate) fn ticks(of: Duration) -> u32 {
    let n = of.as_nanos().div_ceil(TICK.as_nanos());
    n.min(i32::MAX as u128) as u32
}

impl State {
    /// `nfct_time_stamp`
    pub fn conn_now(&self) -> u32 {
        crate::helper::jiffies(self.now()) as u32
    }

    pub fn conn_layout(&self) -> Option<ConnLayout> {
        let btf = self.kernel_btf.as_ref()?;
        let at = |member| member_of(btf, "nf_conn", member).map(u64::from);
        let hash = u64::from(
            btf.size_of(btf.find("nf_conntrack_tuple_hash", Kind::Struct)?)
                .ok()?,
        );
        let first =
            at("tuplehash")? + u64::from(member_of(btf, "nf_conntrack_tuple_hash", "tuple")?);
        Some(ConnLayout {
            size: btf.size_of(btf.find("nf_conn", Kind::Struct)?).ok()?,
            timeout: at("timeout")?,
            status: at("status")?,
            mark: at("mark")?,
            zone: at("zone")?,
            tuples: [first, first + hash],
        })
    }

    /// `nf_conntrack_alloc`: a connection that is not in the table yet.
    pub fn conn_alloc(
        &mut self,
        mem: &mut GuestMem,
        netns: NsId,
        zone: Zone,
        tuples: [ConnTuple; 2],
        timeout: u32,
    ) -> Option<u64> {
        let layout = self.conn_layout()?;
        self.conn_gc(mem, layout);
        let cpu = self.cur.cpu;
        let addr = self
            .objects
            .alloc(mem, cpu, ObjectKind::Conn, layout.size, 1)?;
        mem.slice_mut(addr, layout.size.into())?.fill(0);
        mem.write_u32(addr + layout.timeout, timeout);
        let [id_low, id_high] = zone.id.to_le_bytes();
        let zone_bytes = [id_low, id_high, 0, zone.dir];
        mem.slice_mut(addr + layout.zone, 4)?
            .copy_from_slice(&zone_bytes);
        self.world.conns.push(Conn {
            addr,
            netns,
            zone,
            tuples,
            tracked: false,
        });
        self.conn_show(mem, addr);
        Some(addr)
    }

    /// `nf_ct_gc_expired`: the table gives up those that have run out.
    fn conn_gc(&mut self, mem: &mut GuestMem, layout: ConnLayout) {
        let now = self.conn_now();
        let out = |c: &Conn| {
            let timeout = mem.read_u32(c.addr + layout.timeout).unwrap_or(0);
            c.tracked && timeout.wrapping_sub(now) as i32 <= 0
        };
        let gone = self.world.conns.iter().filter(|c| out(c)).map(|c| c.addr);
        for addr in gone.collect::<Vec<_>>() {
            if let Some(conn) = self.conn_mut(addr) {
                conn.tracked = false;
            }
            self.conn_put(mem, addr);
        }
    }

    /// Has the structure show the connection's addresses.
    pub fn conn_show(&self, mem: &mut GuestMem, addr: u64) -> Option<()> {
        let layout = self.conn_layout()?;
        let conn = self.conn(addr)?;
        for (at, tuple) in layout.tuples.iter().zip(&conn.tuples) {
            mem.slice_mut(addr + at, 40)?.copy_from_slice(&tuple.0);
        }
        Some(())
    }

    pub fn conn(&self, addr: u64) -> Option<&Conn> {
        self.world.conns.iter().find(|c| c.addr == addr)
    }

    pub fn conn_mut(&mut self, addr: u64) -> Option<&mut Conn> {
        self.world.conns.iter_mut().find(|c| c.addr == addr)
    }

    /// `nf_conntrack_find_get`: the connection that packets belong to, and in which direction they
    /// go.
    pub fn conn_find(
        &self,
        mem: &GuestMem,
        netns: NsId,
        zone: Zone,
        tuple: &ConnTuple,
    ) -> Option<(u64, usize)> {
        let layout = self.conn_layout()?;
        let lasts = |c: &Conn| {
            let timeout = mem.read_u32(c.addr + layout.timeout).unwrap_or(0);
            timeout.wrapping_sub(self.conn_now()) as i32 > 0
        };
        let mut tracked = self
            .world
            .conns
            .iter()
            .filter(|c| c.tracked && c.netns == netns);
        tracked.find_map(|c| {
            let is = |d: &usize| c.tuples[*d].same(tuple) && c.zone.of(*d) == zone.of(*d);
            let direction = [0, 1].into_iter().find(is)?;
            lasts(c).then_some((c.addr, direction))
        })
    }

    /// `nf_conntrack_hash_check_insert`: false where there is one like it.
    pub fn conn_insert(&mut self, mem: &mut GuestMem, addr: u64) -> Option<bool> {
        let layout = self.conn_layout()?;
        let (netns, zone, tuples) = self.conn(addr).map(|c| (c.netns, c.zone, c.tuples))?;
        let status = mem.read_u32(addr + layout.status)?;
        if status & ips::CONFIRMED == 0 {
            let timeout = mem.read_u32(addr + layout.timeout)?;
            mem.write_u32(addr + layout.timeout, timeout.wrapping_add(self.conn_now()));
        }
        mem.write_u32(addr + layout.status, status | ips::CONFIRMED);
        let known = |t| self.conn_find(mem, netns, zone, t).is_some();
        if tuples.iter().any(known) {
            return Some(false);
        }
        self.conn_mut(addr)?.tracked = true;
        // The table's own reference.
        self.obj_acquire(addr)?;
        Some(true)
    }

    /// `nf_ct_put`. `None` for what is no connection.
    pub fn conn_put(&mut self, mem: &mut GuestMem, addr: u64) -> Option<()> {
        self.conn(addr)?;
        self.obj_drop(mem, addr)?;
        if !self.objects.live.contains_key(&addr) {
            self.world.conns.retain(|c| c.addr != addr);
        }
        Some(())
    }
}

impl Kernel {
    /// Has netfilter track a connection. `EINVAL` for one whose ends are of different families or
    /// whose protocol has no ports, `EEXIST` for one that is tracked already, `ENOENT` for a namespace
    /// that is none of the network, `ENOMEM`.
    pub fn track(&mut self, conn: &Connection) -> Result<(), Errno> {
        let v6 = conn.source.is_ipv6();
        let ends = [conn.dest, conn.reply_source, conn.reply_dest];
        if !matches!(conn.protocol, 6 | 17) || ends.iter().any(|e| e.is_ipv6() != v6) {
            return Err(Errno::EINVAL);
        }
        let netns = conn.netns.unwrap_or(NsKind::Net.initial());
        let known = self.st.world.namespaces.get(netns.at());
        if known.is_none_or(|ns| ns.kind != NsKind::Net) {
            return Err(Errno::ENOENT);
        }
        let zone = Zone {
            id: conn.zone,
            dir: Zone::BOTH,
        };
        let tuples = [
            ConnTuple::new(conn.protocol, conn.source, conn.dest, 0),
            ConnTuple::new(conn.protocol, conn.reply_source, conn.reply_dest, 1),
        ];
        let (st, mem) = (&mut self.st, &mut self.mem);
        let known = |t| st.conn_find(mem, netns, zone, t).is_some();
        if tuples.iter().any(known) {
            return Err(Errno::EEXIST);
        }
        let made = st.conn_alloc(mem, netns, zone, tuples, ticks(conn.timeout));
        let addr = made.ok_or(Errno::ENOMEM)?;
        let layout = st.conn_layout().ok_or(Errno::ENOMEM)?;
        mem.write_u32(addr + layout.status, conn.status & !ips::CONFIRMED);
        mem.write_u32(addr + layout.mark, conn.mark);
        st.conn_insert(mem, addr);
        // The table's reference is left.
        st.conn_put(mem, addr);
        st.touch(crate::touch::Touch::All);
        Ok(())
    }

    /// The connections that netfilter tracks, the oldest first, those that have run out excepted.
    pub fn tracked(&self) -> Vec<Connection> {
        let st = &self.st;
        let Some(layout) = st.conn_layout() else {
            return Vec::new();
        };
        let word = |c: &Conn, at: u64| self.mem.read_u32(c.addr + at).unwrap_or(0);
        let left = |c: &Conn| word(c, layout.timeout).wrapping_sub(st.conn_now()) as i32;
        let tracked = st.world.conns.iter().filter(|c| c.tracked && left(c) > 0);
        let shown = tracked.map(|c| Connection {
            protocol: c.tuples[0].protocol(),
            source: c.tuples[0].end(false),
            dest: c.tuples[0].end(true),
            reply_source: c.tuples[1].end(false),
            reply_dest: c.tuples[1].end(true),
            zone: c.zone.id,
            netns: (c.netns != NsKind::Net.initial()).then_some(c.netns),
            timeout: TICK * left(c) as u32,
            status: word(c, layout.status),
            mark: word(c, layout.mark),
        });
        shown.collect()
    }
}
