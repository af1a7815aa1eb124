//! `BPF_MAP_TYPE_ARENA`: pages that programs and user space share.
//!
//! Programs know a page by the lower 32 bits of its address in user space. Pages that were not
//! allocated read as zero, and what is written there is lost, as where Linux's faults are fixed up.

use super::{Cx, MapOps, MapSpec};
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, GuestMem, Site};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;
/// Where arenas without `map_extra` are mapped in user space, 4 GiB apart.
const USER: u64 = 0x7000_0000_0000;

#[derive(Clone)]
pub(crate) struct Arena {
    /// Its address in user space (`bpf_arena_get_user_vm_start`).
    pub user_start: u64,
    n_pages: u64,
    /// Guest address of each page, by number.
    pages: BTreeMap<u64, u64>,
    free: Vec<Range>,
    /// Guest memory of freed pages.
    spare: Vec<u64>,
    /// Who freed pages that are gone, in checked mode.
    freed: BTreeMap<u64, Site>,
    seq: u64,
}

/// Pages that nobody has (`struct range_node`).
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
    /// Of ranges of one size the youngest is taken first.
    seq: u64,
}

impl Arena {
    pub fn create(spec: &MapSpec) -> Arena {
        let n_pages = spec.max_entries as u64;
        let whole = Range {
            start: 0,
            len: n_pages,
            seq: 0,
        };
        Arena {
            user_start: if spec.map_extra == 0 {
                USER
            } else {
                spec.map_extra
            },
            n_pages,
            pages: BTreeMap::new(),
            free: vec![whole],
            spare: Vec::new(),
            freed: BTreeMap::new(),
            seq: 0,
        }
    }

    /// The number of the page of an address, of which only the lower half counts, and how far the
    /// address is into it.
    fn page_of(&self, addr: u64) -> (u64, u64) {
        let off = (addr as u32).wrapping_sub(self.user_start as u32) as u64;
        (off / PAGE, off % PAGE)
    }

    /// The guest address behind an address of the arena, where `len` bytes follow it in a page
    /// that was allocated.
    pub fn translate(&self, addr: u64, len: u64) -> Option<u64> {
        if addr > u32::MAX as u64 {
            return None;
        }
        let (page, off) = self.page_of(addr);
        let at = self.pages.get(&page)?;
        (off + len <= PAGE).then_some(at + off)
    }

    /// The first of these bytes that lies in a page which is not there; with who freed it.
    pub fn missing(&self, addr: u64, len: u64) -> Option<Option<Site>> {
        let pages = [addr, addr.wrapping_add(len - 1)].map(|addr| self.page_of(addr).0);
        let gone = pages.iter().find(|page| !self.pages.contains_key(page));
        gone.map(|page| self.freed.get(page).copied())
    }

    /// Ranges that are not free any more, or not yet: `[start, start + len)`.
    fn is_free(&self, start: u64, len: u64) -> bool {
        let holds = |r: &Range| r.start <= start && start + len <= r.start + r.len;
        self.free.iter().any(holds)
    }

    fn add(&mut self, start: u64, len: u64) {
        self.seq += 1;
        let seq = self.seq;
        self.free.push(Range { start, len, seq });
    }

    /// `range_tree_clear`: nobody else gets these pages.
    fn take(&mut self, start: u64, len: u64) {
        let end = start + len;
        let touched = |r: &mut Range| r.start < end && start < r.start + r.len;
        let mut old: Vec<Range> = self.free.extract_if(.., touched).collect();
        old.sort_by_key(|r| r.start);
        for r in old {
            if r.start < start {
                self.add(r.start, start - r.start);
            }
            if r.start + r.len > end {
                self.add(end, r.start + r.len - end);
            }
        }
    }

    /// `range_tree_set`: the pages are free, and one with what is free beside them.
    fn give(&mut self, start: u64, len: u64) {
        let (mut from, mut to) = (start, start + len);
        let joins = |r: &mut Range| r.start <= to && from <= r.start + r.len;
        let old: Vec<Range> = self.free.extract_if(.., joins).collect();
        for r in old {
            from = from.min(r.start);
            to = to.max(r.start + r.len);
        }
        self.add(from, to - from);
    }

    /// `range_tree_find`: the smallest range that is large enough.
    fn find(&self, len: u64) -> Option<u64> {
        let fits = self.free.iter().filter(|r| r.len >= len);
        let best = fits.min_by_key(|r| (r.len, std::cmp::Reverse(r.seq)))?;
        Some(best.start)
    }

    fn populate(&mut self, mem: &mut GuestMem, page: u64) -> Option<u64> {
        if let Some(&at) = self.pages.get(&page) {
            return Some(at);
        }
        let at = match self.spare.pop() {
            Some(at) => at,
            None => mem.alloc(Area::Shared, PAGE, PAGE).ok()?,
        };
        mem.slice_mut(at, PAGE)?.fill(0);
        self.pages.insert(page, at);
        self.freed.remove(&page);
        Some(at)
    }

    /// `arena_alloc_pages`: the address in user space, or 0.
    pub fn alloc(&mut self, mem: &mut GuestMem, addr: u64, count: u64) -> u64 {
        if count == 0 || count > self.n_pages {
            return 0;
        }
        let start = if addr != 0 {
            let (page, off) = self.page_of(addr);
            if off != 0 || page > self.n_pages - count || !self.is_free(page, count) {
                return 0;
            }
            page
        } else {
            match self.find(count) {
                Some(page) => page,
                None => return 0,
            }
        };
        self.take(start, count);
        for page in start..start + count {
            if self.populate(mem, page).is_none() {
                self.free_pages(mem, start, count);
                return 0;
            }
        }
        let low = (self.user_start as u32).wrapping_add((start * PAGE) as u32);
        self.user_start & !(u32::MAX as u64) | low as u64
    }

    fn free_pages(&mut self, mem: &GuestMem, start: u64, count: u64) {
        self.give(start, count);
        let kept = self.pages.split_off(&start);
        for (page, at) in kept {
            if page < start + count {
                self.spare.push(at);
                if mem.is_checked() {
                    self.freed.insert(page, mem.site());
                }
            } else {
                self.pages.insert(page, at);
            }
        }
    }

    /// `arena_free_pages`
    pub fn free(&mut self, mem: &GuestMem, addr: u64, count: u64) {
        let (page, _) = self.page_of(addr & !(PAGE - 1));
        if page < self.n_pages {
            self.free_pages(mem, page, count.min(self.n_pages - page));
        }
    }

    /// `arena_reserve_pages`: nobody gets these pages, and they stay empty.
    pub fn reserve(&mut self, addr: u64, count: u64) -> Result<(), Errno> {
        let (page, _) = self.page_of(addr);
        if page + count > self.n_pages {
            return Err(Errno::EINVAL);
        }
        if !self.is_free(page, count) {
            return Err(Errno::EBUSY);
        }
        self.take(page, count);
        Ok(())
    }

    /// User space writes through its mapping: pages come into being (`arena_vm_fault`).
    pub fn write(&mut self, mem: &mut GuestMem, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.n_pages * PAGE) {
            return Err(Errno::EFAULT);
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (page, off) = (at / PAGE, at % PAGE);
            if !self.pages.contains_key(&page) {
                self.take(page, 1);
            }
            let to = self.populate(mem, page).ok_or(Errno::ENOMEM)?;
            let n = rest.len().min((PAGE - off) as usize);
            let to = mem.slice_mut(to + off, n as u64).ok_or(Errno::ENOMEM)?;
            to.copy_from_slice(&rest[..n]);
            (at, rest) = (at + n as u64, &rest[n..]);
        }
        Ok(())
    }

    /// User space reads through its mapping; pages that were not there are zero.
    pub fn read(&self, mem: &GuestMem, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let end = offset.checked_add(len);
        if end.is_none_or(|end| end > self.n_pages * PAGE) {
            return Err(Errno::EFAULT);
        }
        let byte = |at: u64| {
            let page = self.pages.get(&(at / PAGE));
            page.and_then(|p| mem.slice(p + at % PAGE, 1))
                .map_or(0, |b| b[0])
        };
        Ok((offset..offset + len).map(byte).collect())
    }
}

impl MapOps for Arena {
    fn owns(&self, addr: u64) -> bool {
        self.pages.values().any(|at| addr.wrapping_sub(*at) < PAGE)
    }

    fn copy(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    fn update(&mut self, _: &mut Cx<'_>, _: &[u8], _: &[u8], _: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, _: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
