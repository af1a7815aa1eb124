//! Elements that are in no bucket: each CPU's own, those that were never used, spares.

use super::{Hash, Kind};
use crate::map::Cx;
use bpfsim_abi::Errno;

/// One CPU's free elements.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(super) struct CpuCache {
    free: Vec<u32>,
    /// Elements never used so far, to be taken from the end.
    fresh: (u32, u32),
    /// `extra_elems` of a preallocated map: what an update of an existing key fills.
    pub(super) spare: Option<u32>,
}

impl Hash {
    /// `pcpu_freelist_populate`: each CPU gets a share, the last of which is taken first.
    pub(super) fn populate(&mut self, slots: u32, cpus: u32) {
        let (share, more) = (slots / cpus, slots % cpus);
        let mut start = 0;
        for cpu in 0..cpus {
            let end = start + share + (cpu < more) as u32;
            self.per_cpu.push(CpuCache {
                free: Vec::new(),
                fresh: (start, end),
                spare: None,
            });
            start = end;
        }
    }

    /// This CPU's elements first, then the other CPUs' in turn.
    pub(super) fn pop(&mut self, cpu: usize) -> Option<u32> {
        let cpus = self.per_cpu.len();
        (0..cpus).find_map(|i| {
            let cache = &mut self.per_cpu[(cpu + i) % cpus];
            cache.free.pop().or_else(|| {
                let (start, end) = cache.fresh;
                (start < end).then(|| {
                    cache.fresh.1 -= 1;
                    end - 1
                })
            })
        })
    }

    /// `alloc_htab_elem`'s choice of an element, but for the spare that a preallocated map's
    /// update takes.
    pub(super) fn take(&mut self, cx: &Cx<'_>, replaces: bool) -> Result<u32, Errno> {
        if !replaces && self.table.len >= self.table.max_entries {
            return Err(Errno::E2BIG);
        }
        if cx.fails && !self.prealloc {
            return Err(Errno::ENOMEM);
        }
        self.pop(cx.cpu.at()).ok_or(if self.prealloc {
            Errno::E2BIG
        } else {
            Errno::ENOMEM
        })
    }

    /// Notes an element's values for having their fields freed.
    pub(super) fn free_fields(&self, cx: &mut Cx<'_>, slot: u32) {
        self.table.slab.retire(cx.mem, slot);
        let first = self.table.value_at(slot);
        let n = if self.kind == Kind::PerCpu {
            cx.cpus
        } else {
            1
        };
        for cpu in 0..n as u64 {
            cx.freed.push(first + cpu * self.table.value);
        }
    }

    /// Takes an element back that is in no bucket any more (`free_htab_elem`,
    /// `htab_lru_push_free`).
    pub(super) fn give(&mut self, cx: &mut Cx<'_>, slot: u32) {
        self.free_fields(cx, slot);
        match &mut self.lru {
            Some(lru) => lru.push(slot),
            None => self.per_cpu[cx.cpu.at()].free.push(slot),
        }
    }
}
