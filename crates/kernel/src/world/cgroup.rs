//! Cgroups: one hierarchy, as cgroup v2 has it.

use super::World;
use crate::ids::{CgroupId, TaskId};
use crate::kernel::Kernel;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, MemError};

/// A cgroup.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// Its number, as `bpf_get_current_cgroup_id` gives it.
    pub id: u64,
    /// The directory's name; empty of the root.
    pub name: String,
    pub parent: Option<CgroupId>,
    /// 0 of the root.
    pub level: u32,
    /// Guest address of its `struct cgroup`.
    pub addr: u64,
    /// It was not removed.
    pub online: bool,
    /// References that programs hold.
    pub refs: u32,
    pub xattrs: super::Xattrs,
}

/// The deepest level that there may be: ancestors are kept in an array.
const MAX_LEVEL: u32 = 64;

impl World {
    /// The root of the hierarchy.
    pub const ROOT: CgroupId = CgroupId(0);

    /// The cgroup whose `struct cgroup` is at this address.
    pub fn cgroup_at(&self, addr: u64) -> Option<CgroupId> {
        let at = self.cgroups.iter().position(|c| c.addr == addr)?;
        Some(CgroupId(at as u32))
    }

    /// The ancestor of a cgroup at a level, itself included.
    pub fn ancestor(&self, of: CgroupId, level: i64) -> Option<CgroupId> {
        let mut at = of;
        loop {
            let cgroup = &self.cgroups[at.at()];
            match i64::from(cgroup.level) {
                l if l == level => return Some(at),
                l if l < level => return None,
                _ => at = cgroup.parent?,
            }
        }
    }

    /// True when a cgroup is `of` or below it (`cgroup_is_descendant`).
    pub fn is_below(&self, cgroup: CgroupId, of: CgroupId) -> bool {
        self.ancestor(cgroup, self.cgroups[of.at()].level.into()) == Some(of)
    }

    /// A cgroup and all online ones below it, each before what is below it or (`post`) after.
    pub fn descendants(&self, start: CgroupId, post: bool) -> Vec<CgroupId> {
        let mut listed = Vec::new();
        // What is to be listed, and whether what is below it is listed already.
        let mut todo = vec![(start, false)];
        while let Some((cgroup, below_done)) = todo.pop() {
            if below_done {
                listed.push(cgroup);
                continue;
            }
            match post {
                true => todo.push((cgroup, true)),
                false => listed.push(cgroup),
            }
            let all = self.cgroups.iter().enumerate().rev();
            let below = all.filter(|(_, c)| c.parent == Some(cgroup) && c.online);
            todo.extend(below.map(|(i, _)| (CgroupId(i as u32), false)));
        }
        listed
    }

    /// The online cgroup of a number.
    pub fn cgroup_by_id(&self, id: u64) -> Option<CgroupId> {
        let found = self.cgroups.iter().position(|c| c.id == id && c.online)?;
        Some(CgroupId(found as u32))
    }
}

impl State {
    /// The cgroup of the task that executes.
    pub fn current_cgroup(&self) -> CgroupId {
        self.tasks[self.cur.task.at()].cgroup
    }
}

impl Kernel {
    /// Makes a cgroup below another (`mkdir` in its directory). `EEXIST` for a name that is there,
    /// `EINVAL` for what is no name, `ENODEV` below one that was removed, `EAGAIN` too deep.
    pub fn make_cgroup(&mut self, parent: CgroupId, name: &str) -> Result<CgroupId, Errno> {
        let world = &self.st.world;
        let above = world.cgroups.get(parent.at()).ok_or(Errno::ENOENT)?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\n']) {
            return Err(Errno::EINVAL);
        }
        if !above.online {
            return Err(Errno::ENODEV);
        }
        if above.level >= MAX_LEVEL {
            return Err(Errno::EAGAIN);
        }
        let mut online = world.cgroups.iter().filter(|c| c.online);
        if online.any(|c| c.parent == Some(parent) && c.name == name) {
            return Err(Errno::EEXIST);
        }
        let made = self.add_cgroup(Some(parent), name);
        made.map_err(|_| Errno::ENOMEM)
    }

    pub(crate) fn add_cgroup(
        &mut self,
        parent: Option<CgroupId>,
        name: &str,
    ) -> Result<CgroupId, MemError> {
        let pointers = 8 * u64::from(MAX_LEVEL + 1);
        let size = self.layouts.size_of("cgroup");
        let addr = self.mem.alloc(Area::Object, size + pointers, 64)?;
        let node_size = self.layouts.size_of("kernfs_node");
        let node = self.mem.alloc(Area::Object, node_size, 64)?;
        let world = &mut self.st.world;
        let id = CgroupId(world.cgroups.len() as u32);
        let level = parent.map_or(0, |p| world.cgroups[p.at()].level + 1);
        // As if the file system had given out the inode numbers in order.
        let number = 1 + id.0 as u64;
        world.cgroups.push(Cgroup {
            id: number,
            name: name.to_string(),
            parent,
            level,
            addr,
            online: true,
            refs: 0,
            xattrs: super::Xattrs::new(),
        });
        let ancestors: Vec<u64> = (0..=level)
            .filter_map(|l| world.ancestor(id, l.into()))
            .map(|c| world.cgroups[c.at()].addr)
            .collect();
        let at = |member| self.layouts.member("cgroup", member).map(|off| addr + off);
        let in_node = |member| {
            let off = self.layouts.member("kernfs_node", member);
            off.map(|off| node + off)
        };
        let (kn, number_at) = (at("kn"), in_node("id"));
        let (level_at, first) = (at("level"), at("ancestors"));
        for (to, value) in [(kn, node), (number_at, number)] {
            to.and_then(|to| self.mem.write_u64(to, value));
        }
        level_at.and_then(|to| self.mem.write_u32(to, level));
        for (i, ancestor) in ancestors.into_iter().enumerate() {
            first.and_then(|first| self.mem.write_u64(first + 8 * i as u64, ancestor));
        }
        Ok(id)
    }

    /// Removes a cgroup (`rmdir`). `EBUSY` as long as tasks or cgroups are in it, and for the root.
    pub fn remove_cgroup(&mut self, cgroup: CgroupId) -> Result<(), Errno> {
        let world = &self.st.world;
        let Some(c) = world.cgroups.get(cgroup.at()).filter(|c| c.online) else {
            return Err(Errno::ENOENT);
        };
        let lives = |t: &crate::task::Task| {
            use crate::task::TaskState::{Dead, Reaped};
            !matches!(t.state, Dead | Reaped)
        };
        let tasks = self.st.tasks.iter().any(|t| t.cgroup == cgroup && lives(t));
        let mut below = world.cgroups.iter().filter(|c| c.online);
        if c.parent.is_none() || tasks || below.any(|c| c.parent == Some(cgroup)) {
            return Err(Errno::EBUSY);
        }
        self.st.world.cgroups[cgroup.at()].online = false;
        self.st.detach_cgroup(&mut self.mem, cgroup);
        Ok(())
    }

    /// Sets an extended attribute of a cgroup's directory. `EPERM` for a name that is neither the
    /// user's (`user.`) nor the trusted user's.
    pub fn set_cgroup_xattr(
        &mut self,
        cgroup: CgroupId,
        name: &str,
        value: &[u8],
    ) -> Result<(), Errno> {
        if !name.starts_with("user.") && !name.starts_with("trusted.") {
            return Err(Errno::EPERM);
        }
        let cgroup = self.st.world.cgroups.get_mut(cgroup.at());
        let cgroup = cgroup.ok_or(Errno::ENOENT)?;
        cgroup.xattrs.insert(name.to_string(), value.to_vec());
        Ok(())
    }

    /// A cgroup's number, as programs get it.
    pub fn cgroup_number(&self, cgroup: CgroupId) -> u64 {
        self.st.world.cgroups[cgroup.at()].id
    }

    /// Moves a task to a cgroup (a write to its `cgroup.procs`). `ENODEV` for one that was removed.
    pub fn move_task(&mut self, task: TaskId, to: CgroupId) -> Result<(), Errno> {
        let cgroup = self.st.world.cgroups.get(to.at());
        if !cgroup.is_some_and(|c| c.online) {
            return Err(Errno::ENODEV);
        }
        self.st.tasks[task.at()].cgroup = to;
        self.fill_task(task);
        Ok(())
    }
}
