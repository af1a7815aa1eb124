//! What programs read of a task and of a CPU, and write: where the kernel's types put it.

use super::{Entity, Scx};
use crate::ids::TaskId;
use crate::types::Layouts;
use bpfsim_btf::Kind;
use bpfsim_vm::GuestMem;

/// Offsets of members; of some none where the kernel's types have them not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub slice: u64,
    pub vtime: u64,
    weight: Option<u64>,
    flags: Option<u64>,
    pub disallow: Option<u64>,
    cpus_ptr: Option<u64>,
    cpus_mask: Option<u64>,
    nr_allowed: Option<u64>,
    cpu: Option<u64>,
    pub rq_size: u64,
    rq_curr: Option<u64>,
    rq_cpu: Option<u64>,
    pub mask_size: u64,
    pub init_fork: u64,
    pub init_cgroup: Option<u64>,
    pub exit_cancelled: u64,
    pub release_reason: u64,
    pub release_task: Option<u64>,
    pub cgroup_weight: u64,
    pub cgroup_period: Option<u64>,
    pub cgroup_quota: Option<u64>,
    pub info_kind: u64,
    pub info_code: Option<u64>,
    pub info_flags: Option<u64>,
    pub info_reason: Option<u64>,
    pub info_msg: Option<u64>,
    pub info_size: u64,
    /// `SCX_ENQ_HEAD`, which kernels number differently.
    pub enq_head: u64,
    /// `SCX_ENQ_CPU_SELECTED`, too.
    pub enq_cpu_selected: u64,
}

impl Layout {
    /// `None` for a kernel without sched_ext.
    pub fn new(types: &Layouts) -> Option<Layout> {
        let task = |member| types.member("task_struct", member);
        let constant = |name: &str, usual| constant(types, "scx_enq_flags", name).unwrap_or(usual);
        let first = |of, member| types.member(of, member).unwrap_or(0);
        Some(Layout {
            slice: task("scx.slice")?,
            vtime: task("scx.dsq_vtime")?,
            weight: task("scx.weight"),
            flags: task("scx.flags"),
            disallow: task("scx.disallow"),
            cpus_ptr: task("cpus_ptr"),
            cpus_mask: task("cpus_mask"),
            nr_allowed: task("nr_cpus_allowed"),
            cpu: task("thread_info.cpu"),
            rq_size: types.size_of("rq").clamp(64, 1 << 16),
            rq_curr: types.member("rq", "curr"),
            rq_cpu: types.member("rq", "cpu"),
            init_fork: first("scx_init_task_args", "fork"),
            init_cgroup: types.member("scx_init_task_args", "cgroup"),
            exit_cancelled: first("scx_exit_task_args", "cancelled"),
            release_reason: first("scx_cpu_release_args", "reason"),
            release_task: types.member("scx_cpu_release_args", "task"),
            cgroup_weight: first("scx_cgroup_init_args", "weight"),
            cgroup_period: types.member("scx_cgroup_init_args", "bw_period_us"),
            cgroup_quota: types.member("scx_cgroup_init_args", "bw_quota_us"),
            info_kind: first("scx_exit_info", "kind"),
            info_code: types.member("scx_exit_info", "exit_code"),
            info_flags: types.member("scx_exit_info", "flags"),
            info_reason: types.member("scx_exit_info", "reason"),
            info_msg: types.member("scx_exit_info", "msg"),
            info_size: types.size_of("scx_exit_info").clamp(64, 4096),
            mask_size: types.size_of("cpumask").clamp(8, 1024),
            enq_head: constant("SCX_ENQ_HEAD", 0x10),
            enq_cpu_selected: constant("SCX_ENQ_CPU_SELECTED", 0x400),
        })
    }
}

/// A constant of an enumeration of the kernel.
fn constant(types: &Layouts, of: &str, name: &str) -> Option<u64> {
    let btf = &types.btf;
    let found = [Kind::Enum64, Kind::Enum].into_iter();
    let mut found = found.filter_map(|kind| btf.ty(btf.find(of, kind)?)?.enumeration());
    let mut values = found.next()?.values.iter();
    Some(values.find(|v| v.name == name)?.value as u64)
}

impl Scx {
    pub fn slice(&self, mem: &GuestMem, task: TaskId) -> u64 {
        let e = self.tasks.get(&task);
        e.and_then(|e| mem.read_u64(e.addr + self.layout.slice))
            .unwrap_or(0)
    }

    pub fn set_slice(&self, mem: &mut GuestMem, task: TaskId, slice: u64) {
        if let Some(e) = self.tasks.get(&task) {
            mem.write_u64(e.addr + self.layout.slice, slice);
        }
    }

    pub fn vtime(&self, mem: &GuestMem, task: TaskId) -> u64 {
        let e = self.tasks.get(&task);
        e.and_then(|e| mem.read_u64(e.addr + self.layout.vtime))
            .unwrap_or(0)
    }

    pub fn set_vtime(&self, mem: &mut GuestMem, task: TaskId, vtime: u64) {
        if let Some(e) = self.tasks.get(&task) {
            mem.write_u64(e.addr + self.layout.vtime, vtime);
        }
    }

    pub fn set_weight(&self, mem: &mut GuestMem, task: TaskId, weight: u32) {
        if let (Some(e), Some(at)) = (self.tasks.get(&task), self.layout.weight) {
            mem.write_u32(e.addr + at, weight);
        }
    }

    /// What a task shows of where it may run, where it is and what it is in.
    pub fn show(&self, mem: &mut GuestMem, task: TaskId) {
        let Some(e) = self.tasks.get(&task) else {
            return;
        };
        let l = &self.layout;
        if let (Some(mask), Some(ptr)) = (l.cpus_mask, l.cpus_ptr) {
            mem.write_u64(e.addr + mask, e.allowed);
            mem.write_u64(e.addr + ptr, e.addr + mask);
        }
        if let Some(at) = l.nr_allowed {
            mem.write_u32(e.addr + at, e.allowed.count_ones());
        }
        if let Some(at) = l.cpu {
            mem.write_u32(e.addr + at, e.cpu);
        }
        if let Some(at) = l.flags {
            mem.write_u32(e.addr + at, flags(e));
        }
    }

    /// Where a task's mask of CPUs is; 0 where the kernel's types have none.
    pub fn mask_of(&self, task: TaskId) -> u64 {
        let e = self.tasks.get(&task);
        let at = e.and_then(|e| Some(e.addr + self.layout.cpus_mask?));
        at.unwrap_or(0)
    }

    /// The task that a run queue shows (`rq->curr`), by its address.
    pub fn show_curr(&self, mem: &mut GuestMem, cpu: u32, addr: u64) {
        let rq = self.rqs[cpu as usize].addr;
        if let Some(at) = self.layout.rq_curr {
            mem.write_u64(rq + at, addr);
        }
        if let Some(at) = self.layout.rq_cpu {
            mem.write_u32(rq + at, cpu);
        }
    }

    /// The mask of idle CPUs, as programs see it.
    pub fn show_idle(&self, mem: &mut GuestMem) {
        mem.write_u64(self.idle_mask, self.idle);
    }
}

/// `scx.flags`
fn flags(e: &Entity) -> u32 {
    /// `SCX_TASK_STATE_SHIFT`
    const STATE: u32 = 8;
    u32::from(e.runnable) | u32::from(e.reset_runnable_at) << 2 | (e.stage as u32) << STATE
}
