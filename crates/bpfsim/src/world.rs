//! What programs find around them: network devices, sockets, cgroups; and calls that fail.

use crate::{Error, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_kernel::{
    Arg, CgroupId, Connection, FileId, NetdevSpec, NsId, NsKind, Route, SockId, SockSpec, SockState,
};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// A cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cgroup(pub(crate) CgroupId);

/// A socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sock(pub(crate) SockId);

/// A file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File(pub(crate) FileId);

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(pub(crate) NsId);

/// A network device, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Netdev(u32);

impl Sim {
    /// Makes a network device of this name and hardware address, with the next free index.
    ///
    /// ```
    /// let sim = bpfsim::Sim::new()?;
    /// let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    /// assert_eq!(eth0.ifindex(), 2); // the loopback device is 1
    /// assert!(sim.netdev("eth0", [2, 0, 0, 0, 0, 2]).is_err());
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn netdev(&self, name: &str, mac: [u8; 6]) -> Result<Netdev> {
        let spec = NetdevSpec {
            name: name.to_string(),
            ifindex: None,
            mac,
            rx_queues: 1,
            mtu: 1500,
        };
        let made = self.kernel_mut().make_netdev(&spec);
        made.map(Netdev)
            .map_err(|errno| refused("device", name, errno))
    }

    /// The root of the hierarchy of cgroups, where all tasks begin.
    pub fn root_cgroup(&self) -> Cgroup {
        Cgroup(CgroupId(0))
    }

    /// Makes a cgroup below another.
    ///
    /// ```
    /// let sim = bpfsim::Sim::new()?;
    /// let system = sim.cgroup(sim.root_cgroup(), "system")?;
    /// let web = sim.cgroup(system, "web")?;
    /// let task = sim.task("nginx").uid(33).cgroup(web).user()?;
    /// assert!(web.remove(&sim).is_err()); // a task is in it
    /// task.exit(&sim).unwrap();
    /// web.remove(&sim).unwrap();
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn cgroup(&self, parent: Cgroup, name: &str) -> Result<Cgroup> {
        let made = self.kernel_mut().make_cgroup(parent.0, name);
        made.map(Cgroup)
            .map_err(|errno| refused("cgroup", name, errno))
    }

    /// Makes a TCP socket that listens at an address, for programs' look-ups to find.
    ///
    /// ```
    /// let sim = bpfsim::Sim::new()?;
    /// let server = sim.tcp_listener("10.0.0.1:80".parse().unwrap())?;
    /// assert_ne!(server.cookie(&sim), 0);
    /// server.close(&sim); // no longer found
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn tcp_listener(&self, local: SocketAddr) -> Result<Sock> {
        self.sock(SockSpec::new(6, local, SockState::Listen))
    }

    /// Makes a UDP socket that is bound to an address.
    pub fn udp_socket(&self, local: SocketAddr) -> Result<Sock> {
        self.sock(SockSpec::new(17, local, SockState::Close))
    }

    /// Makes an established TCP connection's end.
    pub fn tcp_stream(&self, local: SocketAddr, remote: SocketAddr) -> Result<Sock> {
        let mut spec = SockSpec::new(6, local, SockState::Established);
        spec.remote = Some(remote);
        self.sock(spec)
    }

    /// Makes a socket.
    pub fn sock(&self, spec: SockSpec) -> Result<Sock> {
        Ok(Sock(self.kernel_mut().make_sock(spec)?))
    }

    /// Makes a namespace, for tasks and sockets to be in. One of pids or users is below the initial
    /// one.
    ///
    /// ```
    /// use bpfsim::{NsKind, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let pids = sim.namespace(NsKind::Pid)?;
    /// let inner = pids.below(&sim)?;
    /// let init = sim.task("init").namespace(inner).user()?;
    /// assert_eq!((init.pid_in(&sim, inner), init.pid_in(&sim, pids)), (1, 1));
    /// assert_ne!(init.pid(&sim), 1);
    /// assert!(sim.namespace(NsKind::Net)?.below(&sim).is_err());
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn namespace(&self, kind: NsKind) -> Result<Namespace> {
        let made = self.kernel_mut().make_namespace(kind, None);
        made.map(Namespace)
            .map_err(|errno| refused("namespace", kind.name(), errno))
    }

    /// The namespace of a kind that all tasks begin in.
    pub fn initial_namespace(&self, kind: NsKind) -> Namespace {
        Namespace(self.kernel().initial_ns(kind))
    }

    /// Adds a route, for `bpf_fib_lookup`. `ENODEV` for a device that is not there, `EEXIST` for a
    /// route that is.
    ///
    /// ```
    /// use bpfsim::{Route, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let eth0 = sim.netdev("eth0", [2, 0, 0, 0, 0, 1])?;
    /// let gateway = "10.0.0.1".parse().unwrap();
    /// let mut default = Route::new("0.0.0.0".parse().unwrap(), 0, eth0.ifindex());
    /// default.via = Some(gateway);
    /// sim.route(default)?;
    /// eth0.neighbour(&sim, gateway, [2, 0, 0, 0, 0, 9]).unwrap();
    /// eth0.forwarding(&sim, true).unwrap();
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn route(&self, route: Route) -> Result<()> {
        let name = format!("{}/{}", route.dest, route.prefix);
        let added = self.kernel_mut().add_route(route);
        added.map_err(|errno| refused("route", &name, errno))
    }

    /// Has netfilter track a connection, for `bpf_skb_ct_lookup` and its like. `EEXIST` for one that
    /// is tracked already.
    ///
    /// ```
    /// use bpfsim::{Connection, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let (client, server) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    /// sim.track(&Connection { mark: 7, ..Connection::new(6, client, server) })?;
    /// assert_eq!(sim.tracked()[0].mark, 7);
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn track(&self, conn: &Connection) -> Result<()> {
        let name = format!("{} to {}", conn.source, conn.dest);
        let tracked = self.kernel_mut().track(conn);
        tracked.map_err(|errno| refused("connection", &name, errno))
    }

    /// The connections that netfilter tracks, with what programs made of them, the oldest first;
    /// those that have run out excepted.
    pub fn tracked(&self) -> Vec<Connection> {
        self.kernel().tracked()
    }

    /// Opens a file of an absolute path, for arguments of programs and for tasks to execute.
    ///
    /// ```
    /// let sim = bpfsim::Sim::new()?;
    /// let nginx = sim.file("/usr/sbin/nginx")?;
    /// nginx.set_xattr(&sim, "user.role", b"web").unwrap();
    /// let task = sim.task("nginx").user()?;
    /// task.execute(&sim, nginx).unwrap();
    /// assert_eq!(nginx.xattr(&sim, "user.role").unwrap(), b"web");
    /// assert!(sim.file("no/absolute/path").is_err());
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn file(&self, path: &str) -> Result<File> {
        let made = self.kernel_mut().make_file(path);
        made.map(File).map_err(|errno| refused("file", path, errno))
    }

    /// The `nth` call of a helper or kfunc from now on, counted from 1, fails with this errno; one
    /// that gives a pointer gives null.
    ///
    /// ```
    /// use bpfsim::{Ebpf, Errno, ProgramInput, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/three_kinds.bpf.o"))?;
    /// sim.fail("bpf_map_lookup_elem", 1, Errno::ENOMEM)?;
    /// let out = bpf.program_mut("arm_all")?.test_run(ProgramInput::empty())?;
    /// assert_ne!(out.return_value, 0);
    /// assert!(sim.fail("bpf_map_lookup_elme", 1, Errno::ENOMEM).is_err());
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn fail(&self, helper: &str, nth: u64, errno: Errno) -> Result<()> {
        let done = self.kernel_mut().fail(helper, nth, errno);
        done.map_err(|e| unknown(&e.0))
    }

    /// From now on calls of a helper or kfunc are the test's: given R1 to R5 it gives R0, or `None`
    /// to have bpfsim do it. It has to give the same whenever it is asked the same, or runs cannot be
    /// repeated.
    ///
    /// ```
    /// use bpfsim::{Ebpf, ProgramInput, Sim};
    ///
    /// let sim = Sim::new()?;
    /// let mut bpf = Ebpf::load(&sim, include_bytes!("../../../fixtures/three_kinds.bpf.o"))?;
    /// sim.override_helper("bpf_timer_start", |_args| Some(-22i64 as u64))?;
    /// let out = bpf.program_mut("arm_all")?.test_run(ProgramInput::empty())?;
    /// assert_ne!(out.return_value, 0);
    /// # Ok::<(), bpfsim::Error>(())
    /// ```
    pub fn override_helper(
        &self,
        helper: &str,
        with: impl Fn(&[u64; 5]) -> Option<u64> + 'static,
    ) -> Result<()> {
        let done = self.kernel_mut().override_call(helper, Rc::new(with));
        done.map_err(|e| unknown(&e.0))
    }
}

fn refused(what: &'static str, name: &str, errno: Errno) -> Error {
    Error::World {
        what,
        name: name.to_string(),
        errno,
    }
}

fn unknown(name: &str) -> Error {
    let names = bpfsim_abi::Func::ALL.iter().map(|f| f.name());
    Error::not_found("helper", name, names)
}

impl Netdev {
    /// Its index.
    pub fn ifindex(self) -> u32 {
        self.0
    }

    /// Says which hardware address another has that is reached by it.
    pub fn neighbour(self, sim: &Sim, ip: IpAddr, mac: [u8; 6]) -> Result<(), Errno> {
        sim.kernel_mut().set_neighbour(self.0, ip, mac)
    }

    /// Has it forward packets, or not, as it does at first.
    pub fn forwarding(self, sim: &Sim, forwards: bool) -> Result<(), Errno> {
        sim.kernel_mut().set_forwarding(self.0, forwards)
    }

    /// Sets the longest packet that it sends, 1,500 bytes at first.
    pub fn set_mtu(self, sim: &Sim, mtu: u32) -> Result<(), Errno> {
        sim.kernel_mut().set_mtu(self.0, mtu)
    }
}

impl File {
    /// Its descriptor, for keys of inode storage.
    pub fn fd(self, sim: &Sim) -> u32 {
        sim.kernel().file_fd(self.0)
    }

    /// Its `struct file`, for a program's arguments.
    pub fn arg(self) -> Arg {
        Arg::File(self.0)
    }

    /// Its `struct path`, for a program's arguments.
    pub fn path_arg(self) -> Arg {
        Arg::Path(self.0)
    }

    /// Sets an extended attribute (`fsetxattr(2)`).
    pub fn set_xattr(self, sim: &Sim, name: &str, value: &[u8]) -> Result<(), Errno> {
        sim.kernel_mut().set_xattr(self.0, name, value)
    }

    /// An extended attribute (`fgetxattr(2)`).
    pub fn xattr(self, sim: &Sim, name: &str) -> Result<Vec<u8>, Errno> {
        sim.kernel().xattr(self.0, name).map(<[u8]>::to_vec)
    }
}

impl Cgroup {
    /// Its descriptor, for values of cgroup arrays and keys of cgroup storage.
    pub fn fd(self, sim: &Sim) -> u32 {
        sim.kernel().cgroup_fd(self.0)
    }

    /// Its identity, for [`IterInfo::cgroup`](crate::IterInfo::cgroup).
    pub fn key(self) -> CgroupId {
        self.0
    }

    /// Its `struct cgroup`, for a program's arguments.
    pub fn arg(self) -> Arg {
        Arg::Cgroup(self.0)
    }

    /// Sets an extended attribute of its directory. `EPERM` but for those of users.
    pub fn set_xattr(self, sim: &Sim, name: &str, value: &[u8]) -> Result<(), Errno> {
        sim.kernel_mut().set_cgroup_xattr(self.0, name, value)
    }

    /// Its number, as `bpf_get_current_cgroup_id` gives it.
    pub fn id(self, sim: &Sim) -> u64 {
        sim.kernel().cgroup_number(self.0)
    }

    /// Removes it. `EBUSY` as long as tasks or cgroups are in it.
    pub fn remove(self, sim: &Sim) -> Result<(), Errno> {
        sim.kernel_mut().remove_cgroup(self.0)
    }
}

impl Sock {
    /// Its descriptor, for values of maps of sockets and keys of socket storage.
    pub fn fd(self, sim: &Sim) -> u32 {
        sim.kernel().sock_fd(self.0)
    }

    /// Its `struct sock`, for a program's arguments.
    pub fn arg(self) -> Arg {
        Arg::Sock(self.0)
    }

    /// Its identity, for [`ProgramInput::with_sock`](crate::ProgramInput::with_sock).
    pub fn id(self) -> SockId {
        self.0
    }

    /// Its number, as `bpf_get_socket_cookie` gives it.
    pub fn cookie(self, sim: &Sim) -> u64 {
        sim.kernel().sock_cookie(self.0)
    }

    /// Closes it: nothing finds it any more.
    pub fn close(self, sim: &Sim) {
        sim.kernel_mut().close_sock(self.0);
    }
}

impl Namespace {
    /// What it is of.
    pub fn kind(self, sim: &Sim) -> NsKind {
        sim.kernel().ns_kind(self.0)
    }

    /// Device and inode of its file below `/proc/PID/ns`, as `bpf_get_ns_current_pid_tgid` takes
    /// them.
    pub fn file(self, sim: &Sim) -> (u64, u64) {
        sim.kernel().ns_file(self.0)
    }

    /// Of a network, what `bpf_get_netns_cookie` gives.
    pub fn cookie(self, sim: &Sim) -> u64 {
        sim.kernel().netns_cookie(self.0)
    }

    /// Makes one below it; those of pids and of users only can have some.
    pub fn below(self, sim: &Sim) -> Result<Namespace> {
        let kind = self.kind(sim);
        let made = sim.kernel_mut().make_namespace(kind, Some(self.0));
        made.map(Namespace)
            .map_err(|errno| refused("namespace", kind.name(), errno))
    }

    /// Of a network, the number by which it knows another one (`ip netns set`), which
    /// `bpf_sk_lookup_tcp` and its like are given.
    pub fn set_id_of(self, sim: &Sim, peer: Namespace, id: i32) -> Result<(), Errno> {
        sim.kernel_mut().set_nsid(self.0, peer.0, id)
    }

    /// Its identity, for [`SockSpec::netns`].
    pub fn id(self) -> NsId {
        self.0
    }
}
