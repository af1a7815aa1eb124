//! Kernel types that guest memory shows: laid out by the BTF of a 6.18 kernel.

use crate::ids::hash_bytes;
use crate::map::Map;
use crate::task::Task;
use crate::world::NsLayout;
use bpfsim_btf::{Btf, BtfError, Kind, Type, TypeId};
use bpfsim_vm::GuestMem;
use std::sync::Arc;

/// A kernel's types (`/sys/kernel/btf/vmlinux`), and which they are.
#[derive(Clone, Debug)]
pub struct KernelBtf {
    /// The types.
    pub btf: Arc<Btf>,
    hash: u64,
}

impl KernelBtf {
    /// Reads raw BTF.
    ///
    /// # Errors
    /// It is no BTF that Linux would take.
    pub fn parse(bytes: &[u8]) -> Result<KernelBtf, BtfError> {
        Ok(KernelBtf {
            btf: Arc::new(Btf::parse(bytes)?),
            hash: hash_bytes(bytes),
        })
    }

    /// Hash of its bytes.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for KernelBtf {
    fn eq(&self, other: &KernelBtf) -> bool {
        self.hash == other.hash
    }
}

impl Eq for KernelBtf {}

/// Where the kernel's types put what bpfsim fills in.
#[derive(Clone, Debug)]
pub(crate) struct Layouts {
    pub btf: Arc<Btf>,
    /// Size of `struct task_struct`.
    pub task_size: u64,
    cred_size: u64,
    css_set_size: u64,
    /// With numbers of all levels.
    pid_size: u64,
    nsproxy_size: u64,
    pub ns: NsLayout,
    task: TaskLayout,
}

impl Layouts {
    pub fn new(btf: Arc<Btf>) -> Layouts {
        let mut layouts = Layouts {
            btf,
            task_size: 0,
            cred_size: 0,
            css_set_size: 0,
            pid_size: 0,
            nsproxy_size: 0,
            ns: NsLayout::default(),
            task: TaskLayout::default(),
        };
        let task = |member| layouts.member("task_struct", member);
        let cred = |member| layouts.member("cred", member);
        layouts.task = TaskLayout {
            pid: task("pid"),
            tgid: task("tgid"),
            comm: task("comm"),
            flags: task("flags"),
            real_parent: task("real_parent"),
            parent: task("parent"),
            group_leader: task("group_leader"),
            real_cred: task("real_cred"),
            cred: task("cred"),
            cgroups: task("cgroups"),
            uid: cred("uid"),
            gid: cred("gid"),
            euid: cred("euid"),
            egid: cred("egid"),
            dfl_cgrp: layouts.member("css_set", "dfl_cgrp"),
        };
        layouts.task_size = layouts.size_of("task_struct");
        layouts.cred_size = layouts.size_of("cred");
        layouts.css_set_size = layouts.size_of("css_set");
        let levels = u64::from(crate::world::NS_LEVELS) + 1;
        layouts.pid_size = layouts.size_of("pid") + levels * layouts.size_of("upid");
        layouts.nsproxy_size = layouts.size_of("nsproxy");
        layouts.ns = NsLayout::new(&layouts);
        layouts
    }

    /// Size of a struct; 8 for one that there is not.
    pub fn size_of(&self, name: &str) -> u64 {
        let id = self.btf.find(name, Kind::Struct);
        id.and_then(|id| self.btf.size_of(id).ok()).unwrap_or(8) as u64
    }

    /// Offset in bytes of a member of a struct, by its path (`__sk_common.skc_family`), those of
    /// unnamed members included.
    pub fn member(&self, name: &str, path: &str) -> Option<u64> {
        let mut id = self.btf.find(name, Kind::Struct)?;
        let mut at = 0;
        for part in path.split('.') {
            let (offset, ty) = member(&self.btf, id, part, 0)?;
            (at, id) = (at + offset as u64, ty);
        }
        Some(at)
    }

    /// Writes what programs may read of a map's `struct bpf_map`.
    pub fn fill_map(&self, mem: &mut GuestMem, map: &Map, id: u32) {
        let spec = &map.spec;
        let fields = [
            ("map_type", spec.map_type.number()),
            ("key_size", spec.key_size),
            ("value_size", spec.value_size),
            ("max_entries", spec.max_entries),
            ("map_flags", spec.flags),
            ("id", id + 1),
        ];
        for (name, value) in fields {
            if let Some(at) = self.member("bpf_map", name) {
                mem.write_u32(map.addr + at, value);
            }
        }
        let name = self.member("bpf_map", "name");
        if let Some(to) = name.and_then(|at| mem.slice_mut(map.addr + at, 16)) {
            let n = spec.name.len().min(15);
            to[..n].copy_from_slice(&spec.name.as_bytes()[..n]);
        }
    }

    /// Writes a task's `struct task_struct`, `struct cred` and `struct css_set`.
    pub fn fill_task(&self, mem: &mut GuestMem, task: &Task, shown: &Shown) {
        let at = |member: Option<u64>| member.map(|at| task.addr + at);
        let t = &self.task;
        let (cred, css_set) = (task.addr + self.task_size, task.addr + self.cred_at());
        for (to, value) in [
            (at(t.pid), task.pid),
            (at(t.tgid), task.tgid),
            (at(t.flags), if task.kthread { PF_KTHREAD } else { 0 }),
            (t.uid.map(|off| cred + off), task.uid),
            (t.gid.map(|off| cred + off), task.gid),
            (t.euid.map(|off| cred + off), task.uid),
            (t.egid.map(|off| cred + off), task.gid),
        ] {
            to.and_then(|to| mem.write_u32(to, value));
        }
        for (to, value) in [
            (at(t.real_parent), shown.parent),
            (at(t.parent), shown.parent),
            (at(t.group_leader), shown.leader),
            (at(t.real_cred), cred),
            (at(t.cred), cred),
            (at(t.cgroups), css_set),
            (t.dfl_cgrp.map(|off| css_set + off), shown.cgroup),
        ] {
            to.and_then(|to| mem.write_u64(to, value));
        }
        if let Some(to) = at(t.comm).and_then(|to| mem.slice_mut(to, 16)) {
            let n = task.comm.len().min(15);
            to.fill(0);
            to[..n].copy_from_slice(&task.comm.as_bytes()[..n]);
        }
    }

    /// Bytes of a task with its credentials, its set of cgroups, its registers, its pid and its
    /// namespaces behind it.
    pub fn task_room(&self) -> u64 {
        self.ns_room(0).1 + self.nsproxy_size
    }

    /// Where a task's `struct pid` and `struct nsproxy` are.
    pub fn ns_room(&self, task: u64) -> (u64, u64) {
        let pid = self.regs_at() + u64::from(bpfsim_abi::ctx::PT_REGS_SIZE);
        (task + pid, task + (pid + self.pid_size).next_multiple_of(8))
    }

    /// Where a task's credentials are.
    pub fn cred_of(&self, task: u64) -> u64 {
        task + self.task_size
    }

    /// Where the registers are that a task entered the kernel with.
    pub fn regs_at(&self) -> u64 {
        (self.cred_at() + self.css_set_size).next_multiple_of(8)
    }

    fn cred_at(&self) -> u64 {
        (self.task_size + self.cred_size).next_multiple_of(8)
    }
}

/// `PF_KTHREAD`
const PF_KTHREAD: u32 = 0x0020_0000;

/// Addresses that a task shows.
pub(crate) struct Shown {
    pub leader: u64,
    pub parent: u64,
    pub cgroup: u64,
}

/// Where a task's structures have their members.
#[derive(Clone, Debug, Default)]
struct TaskLayout {
    pid: Option<u64>,
    tgid: Option<u64>,
    comm: Option<u64>,
    flags: Option<u64>,
    real_parent: Option<u64>,
    parent: Option<u64>,
    group_leader: Option<u64>,
    real_cred: Option<u64>,
    cred: Option<u64>,
    cgroups: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    euid: Option<u64>,
    egid: Option<u64>,
    dfl_cgrp: Option<u64>,
}

/// Offset in bytes of a member of a struct of the kernel, for who has the types only.
pub(crate) fn member_of(btf: &Btf, name: &str, member_name: &str) -> Option<u32> {
    Some(member(btf, btf.find(name, Kind::Struct)?, member_name, 0)?.0)
}

/// Offset in bytes of a member, and its type; looks into unnamed members too.
fn member(btf: &Btf, id: TypeId, name: &str, depth: u32) -> Option<(u32, TypeId)> {
    let (Type::Struct(s) | Type::Union(s)) = btf.resolve(id).ok()?.1 else {
        return None;
    };
    let within = |m: &bpfsim_btf::Member| {
        let unnamed = m.name.is_empty() && depth < 8;
        let (off, ty) = unnamed.then(|| member(btf, m.ty, name, depth + 1))??;
        Some((m.bit_offset / 8 + off, ty))
    };
    s.members.iter().find_map(|m| match m.name == name {
        true => Some((m.bit_offset / 8, m.ty)),
        false => within(&m),
    })
}
