//! Kernel types that guest memory shows: laid out by the BTF of a 6.18 kernel.

use crate::task::Task;
use bpfsim_btf::{Btf, Kind, TypeId};
use bpfsim_vm::GuestMem;
use std::sync::Arc;

/// Where the kernel's types put what bpfsim fills in.
#[derive(Clone, Debug)]
pub(crate) struct Layouts {
    pub btf: Arc<Btf>,
    /// Size of `struct task_struct`.
    pub task_size: u64,
    pid: Option<u32>,
    tgid: Option<u32>,
    comm: Option<u32>,
}

impl Layouts {
    pub fn new(btf: Arc<Btf>) -> Layouts {
        let task = |member| offset(&btf, "task_struct", member);
        let (pid, tgid, comm) = (task("pid"), task("tgid"), task("comm"));
        let id = btf.find("task_struct", Kind::Struct);
        let task_size = id.and_then(|id| btf.size_of(id).ok()).unwrap_or(64) as u64;
        Layouts {
            btf,
            task_size,
            pid,
            tgid,
            comm,
        }
    }

    /// Size of a struct of the kernel, at least 8.
    pub fn size_of(&self, name: &str) -> u32 {
        let id = self.btf.find(name, Kind::Struct);
        let size = id.and_then(|id| self.btf.size_of(id).ok());
        size.unwrap_or(0).max(8)
    }

    /// Offset in bytes of a member of a struct of the kernel.
    pub fn member(&self, name: &str, member: &str) -> Option<u32> {
        offset(&self.btf, name, member)
    }

    /// Writes a task's `struct task_struct`.
    pub fn fill_task(&self, mem: &mut GuestMem, task: &Task) {
        for (at, value) in [(self.pid, task.pid), (self.tgid, task.tgid)] {
            if let Some(at) = at {
                mem.write_u32(task.addr + at as u64, value);
            }
        }
        let comm = self
            .comm
            .and_then(|at| mem.slice_mut(task.addr + at as u64, 16));
        if let Some(to) = comm {
            let n = task.comm.len().min(15);
            to.fill(0);
            to[..n].copy_from_slice(&task.comm.as_bytes()[..n]);
        }
    }
}

/// Offset in bytes of a member of a struct, also of a struct or union without a name in it.
fn offset(btf: &Btf, name: &str, member: &str) -> Option<u32> {
    find_member(btf, btf.find(name, Kind::Struct)?, member)
}

fn find_member(btf: &Btf, id: TypeId, member: &str) -> Option<u32> {
    let composite = btf.ty(id)?.composite()?;
    composite.members.iter().find_map(|m| {
        let inside = match m.name {
            "" => find_member(btf, btf.skip_mods_and_typedefs(m.ty).ok()?, member)?,
            name if name == member => 0,
            _ => return None,
        };
        Some(m.bit_offset / 8 + inside)
    })
}
