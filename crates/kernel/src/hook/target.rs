//! What iterators go over: which objects, in which order, and what of them a program gets.

use super::Hook;
use super::links::{Link, Stage};
use crate::ids::{CgroupId, MapId, NsId, ProgId, SockId, TaskId};
use crate::kernel::Kernel;
use crate::map::Place;
use crate::prog::ProgMeta;
use crate::task::TaskState;
use crate::world::{IPPROTO_TCP, IPPROTO_UDP, SockState, World};
use bpfsim_abi::{AttachType, Errno, MapType, ProgType};

/// What `union bpf_iter_link_info` says of an iterator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IterInfo {
    /// The map whose elements it goes over.
    pub map: Option<MapId>,
    /// The cgroup that it begins at; the root where there is none.
    pub cgroup: Option<CgroupId>,
    /// In which order over cgroups; it has to be said.
    pub order: Option<CgroupOrder>,
    /// Only this thread, by its number where the iterator is opened; 0 is none.
    pub tid: u32,
    /// Only the threads of this process; 0 is none.
    pub pid: u32,
}

/// In which order an iterator goes over cgroups (`enum bpf_cgroup_iter_order`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupOrder {
    /// The one alone.
    SelfOnly,
    /// It and those below, each before what is below it.
    DescendantsPre,
    /// The same, each after what is below it.
    DescendantsPost,
    /// It and those above.
    AncestorsUp,
}

impl CgroupOrder {
    /// The order of a name: `self_only`, `descendants_pre`, `descendants_post`, `ancestors_up`.
    pub fn from_name(name: &str) -> Option<CgroupOrder> {
        Some(match name {
            "self_only" => CgroupOrder::SelfOnly,
            "descendants_pre" => CgroupOrder::DescendantsPre,
            "descendants_post" => CgroupOrder::DescendantsPost,
            "ancestors_up" => CgroupOrder::AncestorsUp,
            _ => return None,
        })
    }
}

/// What an iterator goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Task,
    TaskFile,
    TaskVma,
    Map,
    MapElem,
    SkStorage,
    SockMap,
    Prog,
    Link,
    Cgroup,
    Tcp,
    Udp,
}

/// By what follows `bpf_iter_` in the function's name.
const TARGETS: &[(&str, Target)] = &[
    ("task", Target::Task),
    ("task_file", Target::TaskFile),
    ("task_vma", Target::TaskVma),
    ("bpf_map", Target::Map),
    ("bpf_map_elem", Target::MapElem),
    ("bpf_sk_storage_map", Target::SkStorage),
    ("sockmap", Target::SockMap),
    ("bpf_prog", Target::Prog),
    ("bpf_link", Target::Link),
    ("cgroup", Target::Cgroup),
    ("tcp", Target::Tcp),
    ("udp", Target::Udp),
];

/// Where an iterator is: what it looks for is there or behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// By number: of a task, map, program, link or socket; of what a task has the next.
    At(u64, u64),
    /// Behind this element.
    Behind(Option<Place>),
}

impl Cursor {
    pub const START: Cursor = Cursor::At(0, 0);
}

/// An object.
pub(crate) struct Found {
    /// Where those after it are.
    pub next: Cursor,
    /// What a program's context holds behind its `meta`.
    pub words: Vec<u64>,
    /// Memory that was made for the program, to be given back.
    pub made: Vec<u64>,
    /// It is passed over, unseen by the program: a cgroup that was removed.
    pub hidden: bool,
}

/// What an open iterator goes over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub target: Target,
    pub info: IterInfo,
    /// The namespaces of who opened it.
    pub pids: NsId,
    pub net: NsId,
}

impl Target {
    /// What `iter/NAME` goes over; `None` for what bpfsim has nothing of.
    pub fn of(name: &str) -> Option<Target> {
        let row = TARGETS.iter().find(|(n, _)| *n == name);
        row.map(|(_, target)| *target)
    }

    /// How many words its programs' contexts hold behind `meta`.
    fn words(self) -> usize {
        match self {
            Target::Task | Target::Map | Target::Prog | Target::Link | Target::Cgroup => 1,
            Target::TaskVma | Target::Tcp => 2,
            Target::TaskFile | Target::MapElem | Target::SkStorage | Target::SockMap => 3,
            Target::Udp => 3,
        }
    }

    /// `bpf_iter_reg.attach_target`
    pub fn check(
        self,
        kernel: &Kernel,
        meta: &ProgMeta,
        info: &IterInfo,
    ) -> Result<(), (Errno, Option<&'static str>)> {
        let spec = info.map.and_then(|m| kernel.st.maps.get(m.at()));
        let spec = spec.map(|m| &*m.spec);
        let einval = |why| Err((Errno::EINVAL, Some(why)));
        let (key, value) = (meta.buffers.rdonly, meta.buffers.rdwr);
        let no_map = Err((
            Errno::EBADF,
            Some("it goes over the elements of a map: which one?"),
        ));
        match self {
            Target::MapElem => {
                use MapType as T;
                let Some(spec) = spec else { return no_map };
                let cpus = match spec.map_type {
                    T::PercpuHash | T::LruPercpuHash | T::PercpuArray => {
                        Some(kernel.st.cpus.len() as u32)
                    }
                    T::Hash | T::LruHash | T::Array => None,
                    _ => return einval("maps of this type have no iterator"),
                };
                let each = spec.value_size.next_multiple_of(8);
                let size = cpus.map_or(spec.value_size, |n| each.saturating_mul(n));
                if key > spec.key_size || value > size {
                    return Err((Errno::EACCES, Some("its elements are smaller")));
                }
                Ok(())
            }
            Target::SkStorage | Target::SockMap => {
                let Some(spec) = spec else { return no_map };
                let fits = match (self, spec.map_type) {
                    (Target::SkStorage, MapType::SkStorage) => value <= spec.value_size,
                    (Target::SockMap, MapType::Sockmap | MapType::Sockhash) => key <= spec.key_size,
                    _ => return einval("maps of this type have another iterator"),
                };
                match fits {
                    true => Ok(()),
                    false => Err((Errno::EACCES, Some("its elements are smaller"))),
                }
            }
            Target::Cgroup if info.order.is_none() => einval("in which order?"),
            Target::Cgroup => {
                let cgroup = info.cgroup.unwrap_or(World::ROOT);
                let world = &kernel.st.world;
                match world.cgroups.get(cgroup.at()).is_some_and(|c| c.online) {
                    true => Ok(()),
                    false => Err((Errno::ENOENT, None)),
                }
            }
            Target::Task | Target::TaskFile | Target::TaskVma if info.tid != 0 && info.pid != 0 => {
                einval("a thread or a process, not both")
            }
            _ => Ok(()),
        }
    }
}

impl Kernel {
    /// The first object there or behind.
    pub(crate) fn iter_find(&mut self, over: &Over, from: Cursor) -> Option<Found> {
        match (over.target, from) {
            (Target::MapElem, Cursor::Behind(behind)) => self.find_element(over, behind),
            (Target::MapElem, _) => self.find_element(over, None),
            (_, Cursor::Behind(_)) => None,
            (target, Cursor::At(at, within)) => match target {
                Target::Task => {
                    let (pid, task) = self.find_task(over, at, false)?;
                    let task = self.st.tasks[task.at()].addr;
                    Some(found(Cursor::At(pid + 1, 0), vec![task]))
                }
                Target::TaskFile => self.find_file(over, at, within),
                Target::TaskVma => self.find_vma_of(over, at, within),
                Target::Map => {
                    let there = |&m: &u32| self.st.refs.map_exists(MapId(m));
                    let map = (at as u32..self.st.maps.len() as u32).find(there)?;
                    let word = self.st.maps[map as usize].addr;
                    Some(found(Cursor::At(u64::from(map) + 1, 0), vec![word]))
                }
                Target::Prog => {
                    let there = |&p: &u32| self.st.refs.prog_exists(ProgId(p));
                    let prog = (at as u32..self.st.progs.len() as u32).find(there)?;
                    let (shown, made) = self.show_prog(ProgId(prog))?;
                    let mut object = found(Cursor::At(u64::from(prog) + 1, 0), vec![shown]);
                    object.made = made;
                    Some(object)
                }
                Target::Link => self.find_link(at),
                Target::Cgroup => self.find_cgroup(over, at),
                Target::Tcp | Target::Udp => self.find_socket(over, at),
                Target::SkStorage | Target::SockMap => self.find_sock_element(over, at),
                Target::MapElem => None,
            },
        }
    }

    /// What a program gets after the last object.
    pub(crate) fn iter_last(&self, over: &Over) -> Vec<u64> {
        let mut words = vec![0; over.target.words()];
        let map = over.info.map.and_then(|m| self.st.maps.get(m.at()));
        if let (Target::MapElem | Target::SkStorage | Target::SockMap, Some(map)) =
            (over.target, map)
        {
            words[0] = map.addr;
        }
        words
    }

    /// The task of the lowest number from `tid` on, by the numbers of a namespace
    /// (`task_seq_get_next`); without threads that share the files of their group.
    fn find_task(&self, over: &Over, tid: u64, leaders: bool) -> Option<(u64, TaskId)> {
        let st = &self.st;
        let numbered = (0..st.tasks.len() as u32).map(TaskId).filter_map(|id| {
            let t = &st.tasks[id.at()];
            let pid = st.pid_in(id, over.pids);
            let wanted = t.state != TaskState::Reaped
                && pid != 0
                && (!leaders || t.pid == t.tgid)
                && (over.info.tid == 0 || pid == over.info.tid)
                && (over.info.pid == 0 || st.tgid_in(id, over.pids) == over.info.pid);
            (wanted && u64::from(pid) >= tid).then_some((u64::from(pid), id))
        });
        numbered.min()
    }

    fn find_file(&self, over: &Over, tid: u64, fd: u64) -> Option<Found> {
        let (mut tid, mut fd) = (tid, fd);
        loop {
            // One thread is looked at whether or not it shares its files.
            let (pid, task) = self.find_task(over, tid, over.info.tid == 0)?;
            let from = if pid == tid { fd } else { 0 };
            let t = &self.st.tasks[self.st.leader(task).at()];
            let open = t.fds.range(from as u32..).next();
            if let Some((&fd, file)) = open {
                let file = self.st.world.files[file.at()].addr;
                let task = self.st.tasks[task.at()].addr;
                let next = Cursor::At(pid, u64::from(fd) + 1);
                return Some(found(next, vec![task, fd.into(), file]));
            }
            (tid, fd) = (pid + 1, 0);
        }
    }

    fn find_vma_of(&mut self, over: &Over, tid: u64, addr: u64) -> Option<Found> {
        let (mut tid, mut addr) = (tid, addr);
        loop {
            let (pid, task) = self.find_task(over, tid, over.info.tid == 0)?;
            let from = if pid == tid { addr } else { 0 };
            let t = &self.st.tasks[self.st.leader(task).at()];
            let area = t.user.area_after(from).filter(|_| t.has_mm());
            if let Some((area, protection)) = area {
                let vma = self.st.buffer(&mut self.mem, self.st.objects.vma.size)?;
                self.st.fill_vma(&mut self.mem, vma, &area, protection);
                let task = self.st.tasks[task.at()].addr;
                let mut object = found(Cursor::At(pid, area.end), vec![task, vma]);
                object.made.push(vma);
                return Some(object);
            }
            (tid, addr) = (pid + 1, 0);
        }
    }

    fn find_element(&mut self, over: &Over, behind: Option<Place>) -> Option<Found> {
        let map = over.info.map?;
        let m = &self.st.maps[map.at()];
        // On CPU 0: of per-CPU maps all values are copied.
        let place = m.after(&self.mem, crate::ids::Cpu(0), behind)?;
        let (addr, spec) = (m.addr, m.spec.clone());
        let percpu = matches!(
            spec.map_type,
            MapType::PercpuHash | MapType::LruPercpuHash | MapType::PercpuArray
        );
        let mut object = found(Cursor::Behind(Some(place)), vec![addr]);
        let key = match place.key {
            Some(key) => key,
            None => {
                let key = self.st.buffer(&mut self.mem, 8)?;
                self.mem.write_u64(key, place.index.into());
                object.made.push(key);
                key
            }
        };
        object.words.push(key);
        let mut value = place.value;
        if percpu {
            let key = self.mem.slice(key, spec.key_size.into())?.to_vec();
            let all = self.st.sys_lookup(&mut self.mem, map, &key, 0).ok()?;
            value = self.st.buffer(&mut self.mem, all.len() as u32)?;
            let to = self.mem.slice_mut(value, all.len() as u64)?;
            to.copy_from_slice(&all);
            object.made.push(value);
        }
        object.words.push(value);
        Some(object)
    }

    fn find_link(&mut self, at: u64) -> Option<Found> {
        let links = self.st.links.all().iter();
        let attach = |l: &Link| self.st.progs[l.prog.at()].attach_type;
        let there = links.filter(|l| l.is_link && u64::from(l.id.0) >= at);
        let typed = there.filter_map(|l| Some((l, link_type(l, attach(l))?)));
        let (link, kind) = typed.min_by_key(|(l, _)| l.id)?;
        let link = link.clone();
        let (prog, mut made) = self.show_prog(link.prog)?;
        let size = self.layouts.size_of("bpf_link") as u32;
        let shown = self.zeroed(size)?;
        made.push(shown);
        let member = |name| self.layouts.member("bpf_link", name).map(|at| shown + at);
        let (to_id, to_kind, to_prog) = (member("id"), member("type"), member("prog"));
        for (to, value) in [(to_id, link.id.0 + 1), (to_kind, kind)] {
            to.and_then(|to| self.mem.write_u32(to, value));
        }
        to_prog.and_then(|to| self.mem.write_u64(to, prog));
        let mut object = found(Cursor::At(u64::from(link.id.0) + 1, 0), vec![shown]);
        object.made = made;
        Some(object)
    }

    /// A `struct bpf_prog` with its `struct bpf_prog_aux`, and what was made for it.
    fn show_prog(&mut self, prog: ProgId) -> Option<(u64, Vec<u64>)> {
        let meta = &self.st.progs[prog.at()];
        let (name, prog_type, attach) = (meta.name.clone(), meta.prog_type, meta.attach_type);
        let hook = match self.own_hooks(prog).as_deref() {
            Ok([Hook::Function { name, .. } | Hook::RawTracepoint(name)]) => name.clone(),
            Ok([Hook::Iter(name)]) => format!("bpf_iter_{name}"),
            Ok([Hook::Lsm(name)]) => format!("bpf_lsm_{name}"),
            _ => String::new(),
        };
        let by_btf = matches!(prog_type, ProgType::Tracing | ProgType::Lsm);
        let len = meta.len;
        let shown = self.zeroed(self.layouts.size_of("bpf_prog") as u32)?;
        let aux = self.zeroed(self.layouts.size_of("bpf_prog_aux") as u32)?;
        let mut made = vec![shown, aux];
        let of_prog = |m| self.layouts.member("bpf_prog", m).map(|at| shown + at);
        let of_aux = |m| self.layouts.member("bpf_prog_aux", m).map(|at| aux + at);
        let words = [
            (of_prog("type"), prog_type.number()),
            (of_prog("expected_attach_type"), attach.number()),
            (of_prog("len"), len),
            (of_aux("id"), prog.0 + 1),
        ];
        let (to_aux, to_name, to_func) =
            (of_prog("aux"), of_aux("name"), of_aux("attach_func_name"));
        for (to, value) in words {
            to.and_then(|to| self.mem.write_u32(to, value));
        }
        to_aux.and_then(|to| self.mem.write_u64(to, aux));
        let short = &name.as_bytes()[..name.len().min(15)];
        if let Some(to) = to_name.and_then(|to| self.mem.slice_mut(to, short.len() as u64)) {
            to.copy_from_slice(short);
        }
        if by_btf && !hook.is_empty() {
            let text = self.zeroed(hook.len() as u32 + 1)?;
            made.push(text);
            let to = self.mem.slice_mut(text, hook.len() as u64)?;
            to.copy_from_slice(hook.as_bytes());
            to_func.and_then(|to| self.mem.write_u64(to, text));
        }
        Some((shown, made))
    }

    fn find_cgroup(&self, over: &Over, at: u64) -> Option<Found> {
        let start = over.info.cgroup.unwrap_or(World::ROOT);
        let world = &self.st.world;
        let order = over.info.order?;
        let listed = match order {
            CgroupOrder::SelfOnly => vec![start],
            CgroupOrder::DescendantsPre => world.descendants(start, false),
            CgroupOrder::DescendantsPost => world.descendants(start, true),
            CgroupOrder::AncestorsUp => {
                let above = |c: &CgroupId| world.cgroups[c.at()].parent;
                std::iter::successors(Some(start), above).collect()
            }
        };
        let cgroup = &world.cgroups[listed.get(at as usize)?.at()];
        let mut object = found(Cursor::At(at + 1, 0), vec![cgroup.addr]);
        object.hidden = !cgroup.online;
        Some(object)
    }

    /// Those that listen first, then others, the oldest first; of UDP by the lower bits of their
    /// port.
    fn find_socket(&self, over: &Over, at: u64) -> Option<Found> {
        const BUCKETS: u32 = 256;
        let tcp = over.target == Target::Tcp;
        let protocol = if tcp { IPPROTO_TCP } else { IPPROTO_UDP };
        let bucket = |s: &crate::world::Sock| match tcp {
            true => u32::from(s.spec.state != SockState::Listen),
            false => u32::from(s.spec.local.port()) % BUCKETS,
        };
        let socks = self.st.world.socks.iter().enumerate();
        let there =
            socks.filter(|(_, s)| s.open && s.spec.protocol == protocol && s.netns() == over.net);
        let ordered = there.map(|(i, s)| (u64::from(bucket(s)) << 32 | i as u64, s));
        let (key, s) = ordered.filter(|(k, _)| *k >= at).min_by_key(|(k, _)| *k)?;
        let mut words = vec![s.addr, s.spec.uid.into()];
        if !tcp {
            words.push(bucket(s).into());
        }
        Some(found(Cursor::At(key + 1, 0), words))
    }

    /// Elements of maps that sockets are in, or that belong to sockets, in the order of the
    /// sockets or of the keys.
    fn find_sock_element(&mut self, over: &Over, at: u64) -> Option<Found> {
        let map = over.info.map?;
        let addr = self.st.maps[map.at()].addr;
        if over.target == Target::SkStorage {
            for i in at as usize..self.st.world.socks.len() {
                let sock = self.st.world.socks[i].addr;
                let (m, mut op) = self.st.map_op(&mut self.mem, map);
                if let Some(value) = m.lookup(&mut op, &sock.to_le_bytes()) {
                    let words = vec![addr, sock, value];
                    return Some(found(Cursor::At(i as u64 + 1, 0), words));
                }
            }
            return None;
        }
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while let Ok(next) = self
            .st
            .sys_next_key(&self.mem, map, keys.last().map(|k| &k[..]))
        {
            let more = keys.len() < at as usize + 1 && !keys.contains(&next);
            if !more {
                break;
            }
            keys.push(next);
        }
        let bytes = keys.get(at as usize)?.clone();
        let (m, mut op) = self.st.map_op(&mut self.mem, map);
        let window = m.lookup(&mut op, &bytes);
        let sock: Option<SockId> = window.and_then(|w| self.st.world.sock_at(w));
        let sock = sock.map_or(0, |s| self.st.world.socks[s.at()].addr);
        let key = self.zeroed(bytes.len() as u32)?;
        self.mem
            .slice_mut(key, bytes.len() as u64)?
            .copy_from_slice(&bytes);
        let mut object = found(Cursor::At(at + 1, 0), vec![addr, key, sock]);
        object.made.push(key);
        Some(object)
    }

    /// Memory for a program to read, all zero.
    fn zeroed(&mut self, size: u32) -> Option<u64> {
        let at = self.st.buffer(&mut self.mem, size)?;
        self.mem.slice_mut(at, size.into())?.fill(0);
        Some(at)
    }
}

fn found(next: Cursor, words: Vec<u64>) -> Found {
    Found {
        next,
        words,
        made: Vec::new(),
        hidden: false,
    }
}

/// `enum bpf_link_type`; `None` for what user space has no link of.
fn link_type(link: &Link, attach: AttachType) -> Option<u32> {
    const RAW_TRACEPOINT: u32 = 1;
    const TRACING: u32 = 2;
    const CGROUP: u32 = 3;
    const ITER: u32 = 4;
    const NETNS: u32 = 5;
    const XDP: u32 = 6;
    const PERF_EVENT: u32 = 7;
    const KPROBE_MULTI: u32 = 8;
    const NETFILTER: u32 = 10;
    const TCX: u32 = 11;
    const UPROBE_MULTI: u32 = 12;
    const SOCKMAP: u32 = 14;
    let place = link.places.first()?;
    Some(match (&place.hook, place.stage) {
        (Hook::Function { .. }, Stage::MultiEntry | Stage::MultiReturn) => KPROBE_MULTI,
        (Hook::Function { .. }, Stage::Fentry | Stage::FmodRet | Stage::Fexit) => TRACING,
        (Hook::Lsm(_), Stage::LsmCgroup) | (Hook::Cgroup { .. }, _) => CGROUP,
        (Hook::Lsm(_), _) => TRACING,
        (Hook::RawTracepoint(_), _) => RAW_TRACEPOINT,
        (Hook::Iter(_), _) => ITER,
        (Hook::SkLookup | Hook::FlowDissector, _) => NETNS,
        (Hook::Xdp { .. }, _) => XDP,
        (Hook::Netfilter { .. }, _) => NETFILTER,
        (Hook::Tc { .. }, Stage::Tcx) => TCX,
        (Hook::SockMap { .. }, _) => SOCKMAP,
        (Hook::UserFunction { .. }, _)
            if matches!(
                attach,
                AttachType::TraceUprobeMulti | AttachType::TraceUprobeSession
            ) =>
        {
            UPROBE_MULTI
        }
        (
            Hook::Function { .. }
            | Hook::UserFunction { .. }
            | Hook::Usdt { .. }
            | Hook::Tracepoint { .. }
            | Hook::PerfEvent(_),
            _,
        ) => PERF_EVENT,
        _ => return None,
    })
}
