//! Network devices.

use super::World;
use crate::kernel::Kernel;
use bpfsim_abi::Errno;

/// Index of the loopback device, which test packets come from.
pub(crate) const LOOPBACK: u32 = 1;

/// What network device to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetdevSpec {
    /// `eth0` and so on, at most 15 bytes.
    pub name: String,
    /// `ifindex`; the next free one where there is none.
    pub ifindex: Option<u32>,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Receive queues, at least one.
    pub rx_queues: u32,
    /// The longest packet that it sends, without its Ethernet header.
    pub mtu: u32,
}

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Netdev {
    pub ifindex: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub rx_queues: u32,
    pub mtu: u32,
    /// It forwards packets (`net.ipv4.conf.*.forwarding` and that of IPv6).
    pub forwards: bool,
}

impl Netdev {
    /// Its broadcast address; the loopback device has none.
    pub fn broadcast(&self) -> [u8; 6] {
        [if self.ifindex == LOOPBACK { 0 } else { 0xff }; 6]
    }
}

impl World {
    /// The device of this index.
    pub fn netdev(&self, ifindex: u32) -> Option<&Netdev> {
        self.netdevs.iter().find(|d| d.ifindex == ifindex)
    }
}

impl Kernel {
    /// Makes a network device and gives its index. `EEXIST` for a name or index that is taken,
    /// `EINVAL` for a name that none can have.
    pub fn make_netdev(&mut self, spec: &NetdevSpec) -> Result<u32, Errno> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        let name = &spec.name;
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            return Err(Errno::EINVAL);
        }
        let world = &mut self.st.world;
        let last = world.netdevs.last().map_or(0, |d| d.ifindex);
        let ifindex = spec.ifindex.unwrap_or(last + 1);
        if ifindex == 0 || ifindex > i32::MAX as u32 {
            return Err(Errno::EINVAL);
        }
        if world
            .netdevs
            .iter()
            .any(|d| d.name == *name || d.ifindex == ifindex)
        {
            return Err(Errno::EEXIST);
        }
        let at = world.netdevs.partition_point(|d| d.ifindex < ifindex);
        let made = Netdev {
            ifindex,
            name: name.clone(),
            mac: spec.mac,
            rx_queues: spec.rx_queues.max(1),
            mtu: spec.mtu,
            forwards: false,
        };
        world.netdevs.insert(at, made);
        Ok(ifindex)
    }
}
