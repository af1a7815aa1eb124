//! Namespaces of tasks and of sockets.

use super::World;
use crate::ids::{NsId, TaskId};
use crate::kernel::Kernel;
use crate::state::State;
use crate::task::TaskState;
use crate::types::Layouts;
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, MemError};
use std::collections::BTreeMap;

/// What a namespace is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum NsKind {
    Uts,
    Ipc,
    Mnt,
    Pid,
    Net,
    Time,
    Cgroup,
    User,
}

/// What differs between the kinds.
struct Row {
    kind: NsKind,
    /// As `/proc/PID/ns` has it.
    name: &'static str,
    /// The kernel's structure.
    of: &'static str,
    /// The number of the initial one (`enum init_ns_ino`).
    initial: u32,
    /// Where in `struct nsproxy` a task's is; a task's user namespace is its credentials'.
    member: Option<&'static str>,
}

/// In the order of [`NsKind`].
#[rustfmt::skip]
const ROWS: [Row; 8] = [
    Row { kind: NsKind::Uts, name: "uts", of: "uts_namespace", initial: 0xefff_fffe, member: Some("uts_ns") },
    Row { kind: NsKind::Ipc, name: "ipc", of: "ipc_namespace", initial: 0xefff_ffff, member: Some("ipc_ns") },
    Row { kind: NsKind::Mnt, name: "mnt", of: "mnt_namespace", initial: 0xefff_fff8, member: Some("mnt_ns") },
    Row { kind: NsKind::Pid, name: "pid", of: "pid_namespace", initial: 0xefff_fffc, member: Some("pid_ns_for_children") },
    Row { kind: NsKind::Net, name: "net", of: "net", initial: 0xefff_fff9, member: Some("net_ns") },
    Row { kind: NsKind::Time, name: "time", of: "time_namespace", initial: 0xefff_fffa, member: Some("time_ns") },
    Row { kind: NsKind::Cgroup, name: "cgroup", of: "cgroup_namespace", initial: 0xefff_fffb, member: Some("cgroup_ns") },
    Row { kind: NsKind::User, name: "user", of: "user_namespace", initial: 0xefff_fffd, member: None },
];

/// Numbers of those that are made (`PROC_DYNAMIC_FIRST`).
const FIRST: u32 = 0xf000_0000;
/// The deepest level of namespaces of pids and of users (`MAX_PID_NS_LEVEL`).
pub(crate) const MAX_LEVEL: u32 = 32;
/// The device that namespaces are files of (nsfs), as `stat(2)` gives it.
pub(crate) const DEV: u64 = 4;

impl NsKind {
    /// All, in the order of the initial ones in `World::namespaces`.
    pub const ALL: [NsKind; 8] = [
        NsKind::Uts,
        NsKind::Ipc,
        NsKind::Mnt,
        NsKind::Pid,
        NsKind::Net,
        NsKind::Time,
        NsKind::Cgroup,
        NsKind::User,
    ];

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// As `/proc/PID/ns` has it: `pid`, `net` and so on.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<NsKind> {
        ROWS.iter().find(|r| r.name == name).map(|r| r.kind)
    }

    /// The initial one.
    pub(crate) fn initial(self) -> NsId {
        NsId(self as u32)
    }
}

/// The namespaces of a task, one of each kind.
pub(crate) type NsSet = [NsId; 8];

/// Those of the first tasks.
pub(crate) fn initial_set() -> NsSet {
    NsKind::ALL.map(NsKind::initial)
}

/// A namespace.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub kind: NsKind,
    /// Its number, by which `/proc/PID/ns` tells it (`ns.inum`).
    pub inum: u32,
    /// Guest address of its structure.
    pub addr: u64,
    /// Of namespaces of pids and of users, the one that it is below.
    pub parent: Option<NsId>,
    pub level: u32,
    /// Of one of pids, the number that was given out last.
    pub last_pid: u32,
    /// Of one of networks, `bpf_get_netns_cookie`.
    pub cookie: u64,
    /// Of one of networks, others by the numbers that it knows them by.
    pub peers: BTreeMap<i32, NsId>,
}

impl World {
    pub fn ns(&self, id: NsId) -> &Namespace {
        &self.namespaces[id.at()]
    }

    /// Whether a namespace is another one, or below it.
    pub fn ns_within(&self, ns: NsId, of: NsId) -> bool {
        let mut at = Some(ns);
        while let Some(ns) = at {
            if ns == of {
                return true;
            }
            at = self.ns(ns).parent;
        }
        false
    }
}

impl State {
    /// `task_pid_nr_ns`: a task's number in a namespace; 0 where it has none.
    pub fn pid_in(&self, task: TaskId, ns: NsId) -> u32 {
        let t = &self.tasks[task.at()];
        let level = self.world.ns(ns).level;
        if !self.world.ns_within(t.pid_ns, ns) {
            return 0;
        }
        match level {
            0 => t.pid,
            n => t.pids.get(n as usize - 1).copied().unwrap_or(0),
        }
    }

    /// `task_tgid_nr_ns`
    pub fn tgid_in(&self, task: TaskId, ns: NsId) -> u32 {
        let tgid = self.tasks[task.at()].tgid;
        let leader = self.tasks.iter().position(|l| l.pid == tgid);
        leader.map_or(0, |at| self.pid_in(TaskId(at as u32), ns))
    }

    /// `find_task_by_pid_ns`
    pub fn task_by_pid(&self, pid: u32, ns: NsId) -> Option<TaskId> {
        let there = |id: &TaskId| {
            let t = &self.tasks[id.at()];
            t.state != TaskState::Reaped && self.pid_in(*id, ns) == pid
        };
        let mut all = (0..self.tasks.len() as u32).map(TaskId);
        all.find(there).filter(|_| pid != 0)
    }

    /// The network namespace that a program's context belongs to: that of its socket, or else the
    /// initial one, where all devices are.
    pub fn netns_of(&self, sock: Option<crate::ids::SockId>) -> NsId {
        let sock = sock.and_then(|s| self.world.socks.get(s.at()));
        sock.map_or(NsKind::Net.initial(), |s| s.netns())
    }
}

impl super::Sock {
    /// Its network namespace.
    pub fn netns(&self) -> NsId {
        self.spec.netns.unwrap_or(NsKind::Net.initial())
    }
}

impl Kernel {
    /// The initial namespaces.
    pub(crate) fn make_namespaces(&mut self) -> Result<(), MemError> {
        for kind in NsKind::ALL {
            self.add_ns(kind, None)?;
        }
        Ok(())
    }

    /// Makes a namespace (`unshare(2)`). Those of pids and of users are below another one, the
    /// initial one where none is said. `EINVAL` for a parent of another kind, or for a kind that has
    /// none; `ENOSPC` too deep.
    pub fn make_namespace(&mut self, kind: NsKind, parent: Option<NsId>) -> Result<NsId, Errno> {
        let world = &self.st.world;
        let nests = matches!(kind, NsKind::Pid | NsKind::User);
        let parent = match (nests, parent) {
            (true, parent) => Some(parent.unwrap_or(kind.initial())),
            (false, None) => None,
            (false, Some(_)) => return Err(Errno::EINVAL),
        };
        if let Some(above) = parent {
            let above = world.namespaces.get(above.at()).ok_or(Errno::ENOENT)?;
            if above.kind != kind {
                return Err(Errno::EINVAL);
            }
            if above.level >= MAX_LEVEL {
                return Err(Errno::ENOSPC);
            }
        }
        self.add_ns(kind, parent).map_err(|_| Errno::ENOMEM)
    }

    fn add_ns(&mut self, kind: NsKind, parent: Option<NsId>) -> Result<NsId, MemError> {
        let row = kind.row();
        let addr = self
            .mem
            .alloc(Area::Object, self.layouts.size_of(row.of), 64)?;
        let world = &mut self.st.world;
        let id = NsId(world.namespaces.len() as u32);
        let made = id.0.checked_sub(ROWS.len() as u32);
        let inum = made.map_or(row.initial, |n| FIRST + n);
        let level = parent.map_or(0, |p| world.ns(p).level + 1);
        let nets = world.namespaces.iter().filter(|n| n.kind == NsKind::Net);
        let cookie = 1 + nets.count() as u64;
        let above = parent.map_or(0, |p| world.ns(p).addr);
        world.namespaces.push(Namespace {
            kind,
            inum,
            addr,
            parent,
            level,
            last_pid: 0,
            cookie,
            peers: BTreeMap::new(),
        });
        let at = |member: &str| self.layouts.member(row.of, member).map(|off| addr + off);
        for (member, value) in [("ns.inum", inum), ("level", level)] {
            at(member).and_then(|to| self.mem.write_u32(to, value));
        }
        at("parent").and_then(|to| self.mem.write_u64(to, above));
        if kind == NsKind::Net {
            at("net_cookie").and_then(|to| self.mem.write_u64(to, cookie));
        }
        Ok(id)
    }

    /// The namespace of a kind that all tasks begin in.
    pub fn initial_ns(&self, kind: NsKind) -> NsId {
        kind.initial()
    }

    /// What a namespace is of.
    pub fn ns_kind(&self, ns: NsId) -> NsKind {
        self.st.world.ns(ns).kind
    }

    /// Device and inode of a namespace, as `stat(2)` of its file gives them.
    pub fn ns_file(&self, ns: NsId) -> (u64, u64) {
        (DEV, self.st.world.ns(ns).inum.into())
    }

    /// What `bpf_get_netns_cookie` gives in a network namespace.
    pub fn netns_cookie(&self, ns: NsId) -> u64 {
        self.st.world.ns(ns).cookie
    }

    /// A network namespace knows another one by this number (`RTM_NEWNSID`). `EINVAL` for what is no
    /// network namespace, `EEXIST` for a number that is taken or a namespace that has one.
    pub fn set_nsid(&mut self, of: NsId, peer: NsId, id: i32) -> Result<(), Errno> {
        let world = &mut self.st.world;
        let net = |ns: NsId| world.ns(ns).kind == NsKind::Net;
        if !net(of) || !net(peer) || id < 0 {
            return Err(Errno::EINVAL);
        }
        let peers = &mut world.namespaces[of.at()].peers;
        if peers.contains_key(&id) || peers.values().any(|&p| p == peer) {
            return Err(Errno::EEXIST);
        }
        peers.insert(id, peer);
        Ok(())
    }

    /// A task goes into a namespace (`setns(2)`); into one of pids its children go. `ESRCH` for a
    /// task that exits.
    pub fn enter_ns(&mut self, task: TaskId, ns: NsId) -> Result<(), Errno> {
        let kind = self.st.world.ns(ns).kind;
        let t = &mut self.st.tasks[task.at()];
        if matches!(
            t.state,
            TaskState::Exiting | TaskState::Dead | TaskState::Reaped
        ) {
            return Err(Errno::ESRCH);
        }
        t.namespaces[kind as usize] = ns;
        self.fill_task(task);
        Ok(())
    }

    /// A task's number in a namespace of pids; 0 where it has none.
    pub fn pid_in(&self, task: TaskId, ns: NsId) -> u32 {
        self.st.pid_in(task, ns)
    }

    /// Numbers for a new task in namespaces of pids below the initial one, from the outermost in.
    pub(crate) fn new_pids(&mut self, ns: NsId) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut at = Some(ns);
        while let Some(ns) = at.filter(|&ns| ns != NsKind::Pid.initial()) {
            let ns = &mut self.st.world.namespaces[ns.at()];
            ns.last_pid += 1;
            pids.push(ns.last_pid);
            at = ns.parent;
        }
        pids.reverse();
        pids
    }

    /// Writes what programs read of a task's namespaces and of its numbers in them.
    pub(crate) fn show_namespaces(&mut self, task: TaskId) {
        let t = &self.st.tasks[task.at()];
        let reaped = t.state == TaskState::Reaped;
        let gone = reaped || matches!(t.state, TaskState::Exiting | TaskState::Dead);
        let (addr, pid_ns, set) = (t.addr, t.pid_ns, t.namespaces);
        let (pid_at, proxy_at) = self.layouts.ns_room(addr);
        let at = self.layouts.ns;
        let mem = &mut self.mem;
        let mut word = |base: u64, off: Option<u64>, value: u64| {
            off.and_then(|off| mem.write_u64(base + off, value));
        };
        word(addr, at.nsproxy, if gone { 0 } else { proxy_at });
        word(addr, at.thread_pid, if reaped { 0 } else { pid_at });
        for (ns, member) in set.into_iter().zip(at.proxies) {
            word(proxy_at, member, self.st.world.ns(ns).addr);
        }
        let user = self.st.world.ns(set[NsKind::User as usize]).addr;
        word(self.layouts.cred_of(addr), at.user_ns, user);
        let level = self.st.world.ns(pid_ns).level;
        at.level.and_then(|off| mem.write_u32(pid_at + off, level));
        // `numbers[]`, from the outermost namespace in.
        let (Some(numbers), Some(nr), Some(of)) = (at.numbers, at.upid_nr, at.upid_ns) else {
            return;
        };
        let mut above = Some(pid_ns);
        while let Some(ns) = above {
            let space = self.st.world.ns(ns);
            let slot = pid_at + numbers + at.upid * u64::from(space.level);
            mem.write_u64(slot + of, space.addr);
            mem.write_u32(slot + nr, self.st.pid_in(task, ns));
            above = space.parent;
        }
    }
}

/// Where a task's structures have what tells of its namespaces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NsLayout {
    nsproxy: Option<u64>,
    thread_pid: Option<u64>,
    /// In `struct nsproxy`, by kind.
    proxies: [Option<u64>; 8],
    /// In `struct cred`.
    user_ns: Option<u64>,
    /// In `struct pid`.
    level: Option<u64>,
    numbers: Option<u64>,
    /// Size of a `struct upid`, and what is in there.
    upid: u64,
    upid_nr: Option<u64>,
    upid_ns: Option<u64>,
}

impl NsLayout {
    pub fn new(layouts: &Layouts) -> NsLayout {
        NsLayout {
            nsproxy: layouts.member("task_struct", "nsproxy"),
            thread_pid: layouts.member("task_struct", "thread_pid"),
            proxies: ROWS
                .each_ref()
                .map(|row| layouts.member("nsproxy", row.member?)),
            user_ns: layouts.member("cred", "user_ns"),
            level: layouts.member("pid", "level"),
            numbers: layouts.member("pid", "numbers"),
            upid: layouts.size_of("upid"),
            upid_nr: layouts.member("upid", "nr"),
            upid_ns: layouts.member("upid", "ns"),
        }
    }
}
