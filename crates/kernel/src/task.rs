//! Tasks: who `current` is, and the memory that user pointers mean.

use crate::asynch::Handle;
use crate::ids::{Cpu, CtxId};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;

/// A task as `bpf_get_current_task_btf` shows it.
pub(crate) struct Task {
    pub pid: u32,
    pub tgid: u32,
    pub comm: String,
    pub cpu: Cpu,
    /// Guest address of its `struct task_struct`.
    pub addr: u64,
    /// It never returns to user mode.
    pub kthread: bool,
    /// Task work to run on the way to user mode, first scheduled first.
    pub work: Vec<Handle>,
    pub user: UserMem,
    /// Identity for what it does outside of programs, and how much it has made.
    pub id: CtxId,
    pub made: u32,
}

/// User memory of one task: pages that were written or mapped; all else faults.
#[derive(Default, Clone)]
pub(crate) struct UserMem {
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl UserMem {
    /// Maps what is not mapped yet and writes.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) {
        for (i, &b) in bytes.iter().enumerate() {
            let at = addr.wrapping_add(i as u64);
            let page = self
                .pages
                .entry(at / PAGE)
                .or_insert_with(|| Box::new([0; PAGE as usize]));
            page[(at % PAGE) as usize] = b;
        }
    }

    /// One byte, or `None` where nothing is mapped.
    pub fn byte(&self, addr: u64) -> Option<u8> {
        Some(self.pages.get(&(addr / PAGE))?[(addr % PAGE) as usize])
    }
}
