//! Routes and neighbours: what `bpf_fib_lookup` and those that send look up.

use super::World;
use crate::kernel::Kernel;
use bpfsim_abi::Errno;
use std::net::IpAddr;

/// `RT_TABLE_MAIN`, `RT_TABLE_LOCAL`
pub(crate) const MAIN: u32 = 254;
pub(crate) const LOCAL: u32 = 255;

/// What becomes of packets of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteKind {
    /// They go to a device.
    Unicast,
    /// They are for this machine.
    Local,
    /// They are dropped.
    Blackhole,
    /// They are dropped, and the sender is told that the host cannot be reached.
    Unreachable,
    /// They are dropped, and the sender is told that this is prohibited.
    Prohibit,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where to: addresses of this one's family whose first bits are equal.
    pub dest: IpAddr,
    /// How many bits.
    pub prefix: u8,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// The device that they leave by, of a unicast route.
    pub ifindex: u32,
    /// Whom they are handed to there; the receiver itself where there is none.
    pub via: Option<IpAddr>,
    /// The address that they come from, if they have none.
    pub source: Option<IpAddr>,
    /// The longest packet, if it is shorter than what the device sends.
    pub mtu: Option<u32>,
    /// Of several equal routes that with the lowest number is taken.
    pub metric: u32,
    /// The table that it is in: 254 is the main one.
    pub table: u32,
}

impl Route {
    /// One by a device, in the main table.
    pub fn new(dest: IpAddr, prefix: u8, ifindex: u32) -> Route {
        Route {
            dest,
            prefix,
            kind: RouteKind::Unicast,
            ifindex,
            via: None,
            source: None,
            mtu: None,
            metric: 0,
            table: MAIN,
        }
    }

    fn matches(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, true),
            IpAddr::V6(ip) => (ip.to_bits(), false),
        };
        let ((dest, v4), (ip, other)) = (bits(self.dest), bits(ip));
        let differ = (dest ^ ip).checked_shr(128 - u32::from(self.prefix));
        v4 == other && differ.unwrap_or(0) == 0
    }
}

/// Who has an address on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Neighbour {
    pub ifindex: u32,
    pub ip: IpAddr,
    pub mac: [u8; 6],
}

impl World {
    /// The best route in a table; in any that rules name where none is asked for: first the local
    /// one, then the main one.
    pub fn route(&self, to: IpAddr, table: Option<u32>) -> Option<&Route> {
        let within = |table: u32| {
            let found = self
                .routes
                .iter()
                .filter(|r| r.table == table && r.matches(to));
            found.min_by_key(|r| (u8::MAX - r.prefix, r.metric))
        };
        match table {
            Some(table) => within(table),
            None => within(LOCAL).or_else(|| within(MAIN)),
        }
    }

    /// The hardware address of whoever has an address on a device.
    pub fn neighbour(&self, ifindex: u32, ip: IpAddr) -> Option<[u8; 6]> {
        let mut known = self.neighbours.iter();
        let found = known.find(|n| n.ifindex == ifindex && n.ip == ip);
        found.map(|n| n.mac)
    }
}

impl Kernel {
    /// Adds a route (`ip route add`). `ENODEV` for a device that is not there, `EINVAL` for a prefix
    /// longer than an address or a gateway of another family, `EEXIST` for one that is there.
    pub fn add_route(&mut self, route: Route) -> Result<(), Errno> {
        let bits = if route.dest.is_ipv4() { 32 } else { 128 };
        let other = |ip: Option<IpAddr>| ip.is_some_and(|ip| ip.is_ipv4() != route.dest.is_ipv4());
        if route.prefix > bits || other(route.source) {
            return Err(Errno::EINVAL);
        }
        // An IPv4 route may lead to a gateway with an IPv6 address, not the other way round.
        if other(route.via) && route.dest.is_ipv6() {
            return Err(Errno::EINVAL);
        }
        let world = &mut self.st.world;
        if route.kind == RouteKind::Unicast && world.netdev(route.ifindex).is_none() {
            return Err(Errno::ENODEV);
        }
        let key = |r: &Route| (r.dest, r.prefix, r.metric, r.table);
        if world.routes.iter().any(|r| key(r) == key(&route)) {
            return Err(Errno::EEXIST);
        }
        world.routes.push(route);
        Ok(())
    }

    /// Says who has an address on a device (`ip neigh replace`). `ENODEV` for a device that is not
    /// there.
    pub fn set_neighbour(&mut self, ifindex: u32, ip: IpAddr, mac: [u8; 6]) -> Result<(), Errno> {
        let world = &mut self.st.world;
        world.netdev(ifindex).ok_or(Errno::ENODEV)?;
        world
            .neighbours
            .retain(|n| n.ifindex != ifindex || n.ip != ip);
        world.neighbours.push(Neighbour { ifindex, ip, mac });
        Ok(())
    }

    /// Has a device forward packets, or not (`net.ipv4.conf.DEV.forwarding` and that of IPv6).
    pub fn set_forwarding(&mut self, ifindex: u32, forwards: bool) -> Result<(), Errno> {
        let mut devices = self.st.world.netdevs.iter_mut();
        let dev = devices
            .find(|d| d.ifindex == ifindex)
            .ok_or(Errno::ENODEV)?;
        dev.forwards = forwards;
        Ok(())
    }

    /// Sets the longest packet that a device sends.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Errno> {
        let mut devices = self.st.world.netdevs.iter_mut();
        let dev = devices
            .find(|d| d.ifindex == ifindex)
            .ok_or(Errno::ENODEV)?;
        dev.mtu = mtu;
        Ok(())
    }
}
