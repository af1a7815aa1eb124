//! Guest memory: one reserved region per simulation, committed by touch.
//!
//! A guest address is [`BASE`] plus a 32-bit offset. All offsets are mapped, and so are
//! [`GUARD`] bytes at both ends, so an access whose offset was checked (or masked) to 32 bits
//! cannot fault on the host, whatever its width. Addresses depend on allocation order alone.
//!
//! Writes mark pages of 1 KiB dirty; [`GuestMem::restore`] copies back just those.

#![allow(unsafe_code)]

mod version;

pub use version::{Moment, Snapshot};

use crate::shadow::Shadow;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::NonNull;
use std::rc::Rc;

/// Address of guest offset 0. Its low 32 bits are zero.
pub const BASE: u64 = 0xffff_c900_0000_0000;
const GUARD: usize = 64 << 10;
const FULL: u64 = 1 << 32;
/// What is marked, and copied back, as a whole. Smaller than the host's pages, since programs write
/// few bytes here and there, and a reset is as fast as it has little to copy.
const PAGE: usize = 1024;
/// As far as a loop looks for pages that are dirty already: a host's page.
const REACH: usize = 4096 / PAGE;

/// No pages that a store finds dirty without looking.
const NOT_HOT: (u64, u64) = (0, 0);

/// Why guest memory could not be made or extended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemError {
    /// The host gave no address space, not even for the smallest region.
    #[error("the host refuses to reserve {0} bytes of address space for guest memory")]
    Reserve(u64),
    /// An area is used up.
    #[error("guest memory area {area:?} has no room for {size} bytes")]
    Full {
        /// The area asked.
        area: Area,
        /// Bytes asked for.
        size: u64,
    },
}

/// The areas of guest memory, by what they hold and who can see it.
///
/// Only [`Area::Shared`] is visible to more than one context at a time; accesses to it are the
/// choice points of an explored run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Objects that programs may read but only the kernel writes: maps, tasks, frozen data.
    Object,
    /// Packets and other buffers that belong to one run of one program.
    Packet,
    /// Program stacks.
    Stack,
    /// Map values and global data.
    Shared,
}

impl Area {
    /// All of them, by address.
    pub const ALL: [Area; 4] = [Area::Object, Area::Packet, Area::Stack, Area::Shared];

    /// The area that an address lies in.
    #[inline]
    pub fn of(addr: u64) -> Option<Area> {
        Area::ALL.into_iter().find(|a| a.has(addr))
    }

    /// An address lies in it.
    #[inline]
    pub(crate) fn has(self, addr: u64) -> bool {
        let (from, to) = self.range();
        addr.wrapping_sub(BASE + from) < to - from
    }

    /// First offset and the offset past the last.
    const fn range(self) -> (u64, u64) {
        match self {
            Area::Object => (0x0001_0000, 0x0400_0000),
            Area::Packet => (0x0400_0000, 0x0800_0000),
            Area::Stack => (0x0800_0000, 0x1000_0000),
            Area::Shared => (0x1000_0000, FULL),
        }
    }
}

/// One simulation's memory.
pub struct GuestMem {
    /// Host address of guest offset 0.
    host: NonNull<u8>,
    limit: u64,
    /// Where the pages begin that a loop stored to last, all of which are dirty, and at how many
    /// addresses from there on a store of up to 8 bytes may begin.
    hot: (u64, u64),
    next: [u64; 4],
    dirty_list: Vec<u32>,
    max_dirty: usize,
    /// What all pages are as in that are not dirty.
    version: Rc<version::Version>,
    /// The pages of that.
    pages: version::Pages,
    spare: version::Spare,
    /// What checked mode knows; none where programs are not checked, and while a loop has it.
    pub(crate) shadow: Option<Box<Shadow>>,
}

/// Pages of so much guest memory, and one that a store at its end may touch.
fn pages(limit: u64) -> usize {
    limit as usize / PAGE + 1
}

/// Bytes mapped for so much guest memory: itself, guards, what is dirty.
fn mapped(limit: u64) -> usize {
    limit as usize + 2 * GUARD + pages(limit)
}

impl GuestMem {
    /// Reserves 4 GiB of address space, or where the host refuses, the largest power of two
    /// down to 512 MiB. Addresses are the same whatever was granted.
    pub fn new() -> Result<GuestMem, MemError> {
        let mut size = FULL;
        loop {
            match Self::with_limit(size) {
                Ok(mem) => return Ok(mem),
                Err(e) if size <= 512 << 20 => return Err(e),
                Err(_) => size /= 2,
            }
        }
    }

    fn with_limit(limit: u64) -> Result<GuestMem, MemError> {
        // SAFETY: a fresh private anonymous mapping at an address of the host's choice.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                mapped(limit),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|_| MemError::Reserve(limit))?;
        // SAFETY: the mapping is `GUARD` bytes longer than this offset on both sides.
        let host = unsafe { NonNull::new_unchecked(start.cast::<u8>().add(GUARD)) };
        Ok(GuestMem {
            host,
            limit,
            hot: NOT_HOT,
            next: Area::ALL.map(|a| a.range().0),
            dirty_list: Vec::new(),
            // 1 GiB of touched memory.
            max_dirty: (1 << 30) / PAGE,
            version: Rc::default(),
            pages: version::Pages::default(),
            spare: version::Spare::default(),
            shadow: None,
        })
    }

    /// One byte a page: 1 when the page was written since the last snapshot or restore.
    #[inline(always)]
    fn dirty(&mut self) -> &mut [u8] {
        let len = pages(self.limit);
        // SAFETY: these bytes lie in the mapping behind the guest's and its guard, nothing else
        // refers to them, and they are initialised (anonymous memory is zero).
        unsafe {
            let table = self.host.as_ptr().add(self.limit as usize + GUARD);
            std::slice::from_raw_parts_mut(table, len)
        }
    }

    /// Takes `size` bytes aligned to `align` (a power of two) from an area and returns their
    /// guest address. They read as zero unless something wrote there before.
    pub fn alloc(&mut self, area: Area, size: u64, align: u64) -> Result<u64, MemError> {
        let full = MemError::Full { area, size };
        let next = &mut self.next[area as usize];
        let at = next.checked_add(align - 1).ok_or(full.clone())? & !(align - 1);
        let end = at.checked_add(size).ok_or(full.clone())?;
        if end > area.range().1.min(self.limit) {
            return Err(full);
        }
        *next = end;
        self.shadow_alloc(BASE + at, size);
        Ok(BASE + at)
    }

    /// True when an access at `addr` can be seen by more than one context.
    #[inline(always)]
    pub fn is_shared(addr: u64) -> bool {
        addr.wrapping_sub(BASE + Area::Shared.range().0) < FULL - Area::Shared.range().0
    }

    /// [`GuestMem::is_shared`], of an offset that [`GuestMem::offset`] gave.
    #[inline(always)]
    pub(crate) fn is_shared_at(off: u32) -> bool {
        off as u64 >= Area::Shared.range().0
    }

    /// The offset of `addr`, or `None` when it is no guest address.
    #[inline(always)]
    pub fn offset(&self, addr: u64) -> Option<u32> {
        let off = addr.wrapping_sub(BASE);
        (off < self.limit).then_some(off as u32)
    }

    /// The offset of `addr`, where `N` bytes, at least one, are guest memory from there on.
    #[inline(always)]
    fn room<const N: u64>(&self, addr: u64) -> Option<u32> {
        let off = addr.wrapping_sub(BASE);
        (off < self.limit - (N - 1)).then_some(off as u32)
    }

    /// True when all of `addr..addr + len` is guest memory.
    #[inline]
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        let off = addr.wrapping_sub(BASE);
        off < self.limit && len <= self.limit - off
    }

    /// Reads `N` bytes at an offset that [`GuestMem::offset`] gave.
    #[inline(always)]
    pub(crate) fn get<const N: usize>(&self, off: u32) -> [u8; N] {
        debug_assert!((off as u64) < self.limit && N <= GUARD);
        // SAFETY: off < limit and N <= GUARD, so the range lies in the mapping; bytes are
        // always initialised (anonymous memory is zero).
        unsafe {
            self.host
                .as_ptr()
                .add(off as usize)
                .cast::<[u8; N]>()
                .read_unaligned()
        }
    }

    /// Writes `N` bytes at an offset that [`GuestMem::offset`] gave. Returns false when the cap
    /// on touched pages is reached; nothing is written then.
    #[inline(always)]
    pub(crate) fn put<const N: usize>(&mut self, off: u32, bytes: [u8; N]) -> bool {
        debug_assert!((off as u64) < self.limit && N <= 8);
        if !self.marked(off as usize / PAGE, (off as usize + N - 1) / PAGE) {
            return false;
        }
        // SAFETY: as in `get`, and `&mut self` makes this the only access.
        unsafe {
            self.host
                .as_ptr()
                .add(off as usize)
                .cast::<[u8; N]>()
                .write_unaligned(bytes);
        }
        true
    }

    /// Has all of these pages be dirty; false when the cap on touched pages is reached.
    #[inline(always)]
    fn marked(&mut self, first: usize, last: usize) -> bool {
        let dirty = self.dirty();
        last - first < 2 && dirty[first] != 0 && dirty[last] != 0 || self.mark(first, last)
    }

    #[cold]
    #[inline(never)]
    fn mark(&mut self, first: usize, last: usize) -> bool {
        for page in first..=last {
            if self.dirty()[page] == 0 {
                if self.dirty_list.len() + self.pages.len() >= self.max_dirty {
                    return false;
                }
                self.dirty()[page] = 1;
                self.dirty_list.push(page as u32);
            }
        }
        true
    }

    /// The bytes at `addr..addr + len`, or `None` when they are not all guest memory.
    pub fn slice(&self, addr: u64, len: u64) -> Option<&[u8]> {
        if !self.contains(addr, len) {
            return None;
        }
        // SAFETY: the range lies in the mapping, and no `&mut` to it exists beside `&self`.
        Some(unsafe {
            std::slice::from_raw_parts(self.host.as_ptr().add((addr - BASE) as usize), len as usize)
        })
    }

    /// The bytes at `addr..addr + len` for writing, or `None` when they are not all guest
    /// memory or the cap on touched pages is reached.
    pub fn slice_mut(&mut self, addr: u64, len: u64) -> Option<&mut [u8]> {
        if !self.contains(addr, len) {
            return None;
        }
        let off = (addr - BASE) as usize;
        if len > 0 && !self.marked(off / PAGE, (off + len as usize - 1) / PAGE) {
            return None;
        }
        self.shadow_written(addr, len);
        // SAFETY: the range lies in the mapping and `&mut self` makes this the only access.
        Some(unsafe { std::slice::from_raw_parts_mut(self.host.as_ptr().add(off), len as usize) })
    }

    /// Reads a little-endian `u64` at `addr`.
    #[inline]
    pub fn read_u64(&self, addr: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.get(self.room::<8>(addr)?)))
    }

    /// Reads a little-endian `u32` at `addr`.
    #[inline]
    pub fn read_u32(&self, addr: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.get(self.room::<4>(addr)?)))
    }

    /// Writes a little-endian `u64` at `addr`.
    #[inline]
    pub fn write_u64(&mut self, addr: u64, value: u64) -> Option<()> {
        self.shadow_written(addr, 8);
        self.room::<8>(addr)?;
        self.store(addr, value.to_le_bytes()).ok()
    }

    /// Writes a little-endian `u32` at `addr`.
    #[inline]
    pub fn write_u32(&mut self, addr: u64, value: u32) -> Option<()> {
        self.shadow_written(addr, 4);
        self.room::<4>(addr)?;
        self.store(addr, value.to_le_bytes()).ok()
    }

    /// Pages written since the last snapshot or restore.
    pub fn dirty_pages(&self) -> usize {
        self.dirty_list.len()
    }

    /// The bytes of a page that was marked.
    fn page(&self, page: u32) -> &[u8; PAGE] {
        debug_assert!((page as usize) < pages(self.limit));
        // SAFETY: pages that are marked are within the mapping, whole, and no `&mut` to them
        // exists beside `&self`.
        unsafe { &*self.host.as_ptr().add(page as usize * PAGE).cast() }
    }

    /// [`GuestMem::page`] for writing.
    fn page_mut(&mut self, page: u32) -> &mut [u8; PAGE] {
        debug_assert!((page as usize) < pages(self.limit));
        // SAFETY: as above, and `&mut self` makes this the only access.
        unsafe { &mut *self.host.as_ptr().add(page as usize * PAGE).cast() }
    }
}

/// Why a store failed.
pub(crate) enum Refused {
    /// It is not to guest memory.
    Outside,
    /// The cap on touched pages is reached.
    Full,
}

/// As a loop uses it.
impl GuestMem {
    /// True for a guest address.
    #[inline(always)]
    pub(crate) fn has(&self, addr: u64) -> bool {
        addr.wrapping_sub(BASE) < self.limit
    }

    /// Writes `N` bytes at `addr`.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(
        &mut self,
        addr: u64,
        bytes: [u8; N],
    ) -> Result<(), Refused> {
        const { assert!(N <= 8) };
        let (hot, within) = self.hot;
        if addr.wrapping_sub(hot) >= within {
            return store_elsewhere(self, addr, bytes);
        }
        // SAFETY: `hot` is in the mapping, in pages that are marked, all N bytes are in them, and
        // `&mut self` makes this the only access.
        unsafe {
            let at = self.host.as_ptr().add(addr.wrapping_sub(BASE) as usize);
            at.cast::<[u8; N]>().write_unaligned(bytes);
        }
        Ok(())
    }
}

/// Of four pages in a row which are marked - one bit each - and one of them: where those begin that
/// are marked without a gap with it, and how many.
const HOT: [[(u8, u8); REACH]; 1 << REACH] = {
    let mut table = [[(0, 0); REACH]; 1 << REACH];
    let mut at = 0;
    while at < REACH << REACH {
        let (marks, page) = (at / REACH, at % REACH);
        let (mut first, mut end) = (page, page);
        while end < REACH && marks >> end & 1 == 1 {
            end += 1;
        }
        while first > 0 && marks >> (first - 1) & 1 == 1 {
            first -= 1;
        }
        table[marks][page] = (first as u8, (end - first) as u8);
        at += 1;
    }
    table
};

/// Stores outside of the hot pages, and has those that are around it be hot.
#[inline(never)]
fn store_elsewhere<const N: usize>(
    mem: &mut GuestMem,
    addr: u64,
    bytes: [u8; N],
) -> Result<(), Refused> {
    let off = mem.offset(addr).ok_or(Refused::Outside)?;
    if !mem.put(off, bytes) {
        return Err(Refused::Full);
    }
    let page = off as usize / PAGE;
    let (reach, page) = (page / REACH, page % REACH);
    let (reaches, _) = mem.dirty().as_chunks::<REACH>();
    // Each mark, which is 0 or 1, to a bit of the last byte.
    let marks = u32::from_le_bytes(reaches[reach]).wrapping_mul(0x0102_0408) >> 24;
    let (first, pages) = HOT[marks as usize % HOT.len()][page];
    let start = (reach * REACH + first as usize) * PAGE;
    mem.hot = (BASE + start as u64, (pages as usize * PAGE - 7) as u64);
    Ok(())
}

impl Drop for GuestMem {
    fn drop(&mut self) {
        let len = mapped(self.limit);
        // SAFETY: exactly the mapping made in `with_limit`; nothing borrows it any more.
        let _ = unsafe { munmap(self.host.as_ptr().sub(GUARD).cast(), len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_guest_address_is_refused() {
        let mut mem = GuestMem::new().unwrap();
        assert_eq!(mem.read_u64(0), None);
        assert_eq!(mem.read_u64(BASE - 1), None);
        assert_eq!(mem.read_u64(BASE + FULL - 4), None);
        assert!(mem.slice_mut(BASE + FULL - 4, 5).is_none());
        assert!(mem.slice(BASE, u64::MAX).is_none());
        assert!(mem.alloc(Area::Packet, FULL, 8).is_err());
        assert!(mem.alloc(Area::Shared, u64::MAX, 8).is_err());
    }

    #[test]
    fn touched_memory_is_bounded() {
        let mut mem = GuestMem::new().unwrap();
        mem.max_dirty = 2;
        let a = mem
            .alloc(Area::Shared, 4 * PAGE as u64, PAGE as u64)
            .unwrap();
        mem.write_u64(a, 1).unwrap();
        mem.write_u64(a + PAGE as u64, 1).unwrap();
        assert_eq!(mem.write_u64(a + 2 * PAGE as u64, 1), None);
        assert_eq!(mem.read_u64(a + 2 * PAGE as u64), Some(0));
    }

    #[test]
    fn a_loop_finds_the_dirty_pages_around_its_store() {
        for (marks, stored) in (0..1 << REACH).flat_map(|m| (0..REACH).map(move |s| (m, s))) {
            let mut mem = GuestMem::new().unwrap();
            let size = 3 * 4096;
            let start = mem.alloc(Area::Stack, size, 4096).unwrap() + 4096;
            let page = |i: usize| start + (i * PAGE) as u64;
            for i in (0..REACH).filter(|i| marks >> i & 1 == 1) {
                mem.write_u64(page(i), 1).unwrap();
            }
            assert!(mem.store(page(stored) + 8, [2]).is_ok());
            let dirty = |i: &usize| marks >> i & 1 == 1 || *i == stored;
            let first = stored - (0..stored).rev().take_while(dirty).count();
            let end = stored + (stored..REACH).take_while(dirty).count();
            let bytes = (end - first) * PAGE;
            assert_eq!(mem.hot, (page(first), bytes as u64 - 7));
            // Into pages beyond it, and of others.
            assert!(mem.store(page(end) - 3, 7_u64.to_le_bytes()).is_ok());
            assert!(mem.store(BASE - 1, [1]).is_err());
            assert_eq!(mem.read_u64(page(end) - 3), Some(7));
        }
    }

    #[test]
    fn what_a_loop_stored_to_is_marked_again() {
        let mut mem = GuestMem::new().unwrap();
        let at = mem.alloc(Area::Stack, 64, 64).unwrap();
        let store = |mem: &mut GuestMem, value: u64| {
            assert!(mem.store(at, value.to_le_bytes()).is_ok());
            assert_eq!((mem.read_u64(at), mem.dirty_pages()), (Some(value), 1));
        };
        store(&mut mem, 1);
        let first = mem.snapshot();
        store(&mut mem, 2);
        store(&mut mem, 3);
        assert!(mem.restore(&first));
        assert_eq!((mem.read_u64(at), mem.dirty_pages()), (Some(1), 0));
        store(&mut mem, 4);
        assert!(mem.restore(&first));
        assert_eq!(mem.read_u64(at), Some(1));
    }
}
