//! What programs find around them beside tasks and maps: network devices, sockets, cgroups.
//!
//! All of it is plain data; a test makes it through [`Kernel`](crate::Kernel), and helpers look it
//! up through [`State`](crate::state::State).

use crate::kernel::Kernel;
use bpfsim_vm::MemError;

mod cgroup;
mod conn;
mod fd;
mod file;
mod netdev;
mod ns;
mod route;
mod sock;

pub(crate) use cgroup::Cgroup;
pub use conn::Connection;
pub(crate) use conn::{Conn, ConnTuple, Zone, ips, ticks};
pub(crate) use file::{File, Xattrs};
pub use netdev::NetdevSpec;
pub(crate) use netdev::{LOOPBACK, Netdev};
pub use ns::NsKind;
pub(crate) use ns::{
    DEV as NS_DEV, MAX_LEVEL as NS_LEVELS, Namespace, NsLayout, NsSet, initial_set,
};
pub(crate) use route::{LOCAL, MAIN, Neighbour};
pub use route::{Route, RouteKind};
pub(crate) use sock::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Sock, Tuple, octets, read_ip, sock_window,
};
pub use sock::{SockSpec, SockState};

/// Network devices, sockets and cgroups of a simulation.
#[derive(Clone, Default)]
pub(crate) struct World {
    /// By index of the interface, ascending.
    pub netdevs: Vec<Netdev>,
    /// The first ones, one a CPU, are those that `BPF_PROG_TEST_RUN` gives a packet.
    pub socks: Vec<Sock>,
    /// The root is the first.
    pub cgroups: Vec<Cgroup>,
    pub files: Vec<File>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub conns: Vec<Conn>,
    /// The initial ones, by kind, come first.
    pub namespaces: Vec<Namespace>,
}

impl Kernel {
    /// What is there from the start.
    pub(crate) fn make_world(&mut self) -> Result<(), MemError> {
        self.st.world.netdevs.push(Netdev {
            ifindex: LOOPBACK,
            name: "lo".to_string(),
            mac: [0; 6],
            rx_queues: 1,
            mtu: 65536,
            forwards: false,
        });
        self.make_namespaces()?;
        self.add_cgroup(None, "")?;
        self.make_test_socks()
    }
}
