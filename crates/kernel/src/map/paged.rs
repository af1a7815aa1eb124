//! Host-side tables that cost what is used of them.

use super::Errno;
use crate::shared::Shared;
use bpfsim_vm::{Area, Elements, GuestMem};

/// Few, since a page is copied when it is first written to after a snapshot.
const PAGE: usize = 64;

/// A table of default values, of which only written pages exist.
#[derive(Debug, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Paged<T> {
    pages: Vec<Option<Shared<[T; PAGE]>>>,
    zero: T,
}

impl<T: Copy> Paged<T> {
    /// A table in which everything is `zero`.
    pub fn new(zero: T) -> Paged<T> {
        Paged {
            pages: Vec::new(),
            zero,
        }
    }

    #[inline]
    pub fn get(&self, at: u32) -> T {
        match self.pages.get(at as usize / PAGE) {
            Some(Some(page)) => page[at as usize % PAGE],
            _ => self.zero,
        }
    }

    pub fn at_mut(&mut self, at: u32) -> &mut T {
        let page = at as usize / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let zero = self.zero;
        let page = self.pages[page].get_or_insert_with(|| Shared::new([zero; PAGE]));
        &mut page[at as usize % PAGE]
    }

    #[inline]
    pub fn set(&mut self, at: u32, value: T) {
        *self.at_mut(at) = value;
    }

    /// The first index from `from` up to `end` whose entry `is`, passing over pages never
    /// written; `is` must not hold for the zero.
    pub fn next(&self, from: u32, end: u32, is: impl Fn(&T) -> bool) -> Option<u32> {
        let mut at = from as usize;
        let end = (end as usize).min(self.pages.len() * PAGE);
        while at < end {
            let Some(page) = &self.pages[at / PAGE] else {
                at = (at / PAGE + 1) * PAGE;
                continue;
            };
            if is(&page[at % PAGE]) {
                return Some(at as u32);
            }
            at += 1;
        }
        None
    }
}

/// Element memory: slots of one size in guest memory, taken in chunks when a slot in them is
/// first used. A map of a million elements costs what is stored in it.
#[derive(Debug, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Slab {
    stride: u64,
    /// Slots of a chunk.
    per_chunk: u32,
    slots: u32,
    /// Address of each chunk, 0 where there is none yet.
    chunks: Paged<u64>,
    /// Address and number of each chunk, in order of address: they are allocated upwards.
    by_addr: Vec<(u64, u32)>,
    elements: Elements,
}

/// Bytes of a chunk, unless one slot is larger.
const CHUNK: u64 = 16 << 10;

impl Slab {
    /// Room for `slots` elements of `stride` bytes, a multiple of 8.
    pub fn new(elements: Elements, slots: u32) -> Slab {
        let stride = elements.stride;
        Slab {
            stride,
            elements,
            per_chunk: u32::try_from((CHUNK / stride.max(1)).max(1)).unwrap_or(1),
            slots,
            chunks: Paged::new(0),
            by_addr: Vec::new(),
        }
    }

    /// Bytes of a slot.
    pub fn stride(&self) -> u64 {
        self.stride
    }

    /// Address of a slot that was used before.
    #[inline]
    pub fn addr(&self, slot: u32) -> u64 {
        self.chunks.get(slot / self.per_chunk) + self.stride * (slot % self.per_chunk) as u64
    }

    /// All slots are in the first chunk.
    pub fn is_small(&self) -> bool {
        self.slots <= self.per_chunk
    }

    /// Has a chunk be there.
    pub fn make_chunk(&mut self, mem: &mut GuestMem, chunk: u32) -> Result<(), Errno> {
        if self.chunks.get(chunk) == 0 {
            let first = chunk as u64 * self.per_chunk as u64;
            let n = (self.slots as u64)
                .saturating_sub(first)
                .min(self.per_chunk as u64)
                .max(1);
            let at = mem
                .alloc(Area::Shared, self.stride * n, 8)
                .map_err(|_| Errno::ENOMEM)?;
            mem.divide(at, self.elements);
            self.chunks.set(chunk, at);
            self.by_addr.push((at, chunk));
        }
        Ok(())
    }

    /// Address of a slot that is about to be used.
    pub fn make(&mut self, mem: &mut GuestMem, slot: u32) -> Result<u64, Errno> {
        self.make_chunk(mem, slot / self.per_chunk)?;
        mem.renew(self.addr(slot));
        Ok(self.addr(slot))
    }

    /// A slot is out of use: pointers to it are stale.
    pub fn retire(&self, mem: &mut GuestMem, slot: u32) {
        mem.retire(self.addr(slot));
    }

    /// The slot that an address lies in.
    pub fn slot_of(&self, addr: u64) -> Option<u32> {
        let i = self.by_addr.partition_point(|&(at, _)| at <= addr);
        let (at, chunk) = *self.by_addr.get(i.checked_sub(1)?)?;
        let within = (addr - at) / self.stride;
        let slot = chunk as u64 * self.per_chunk as u64 + within;
        (within < self.per_chunk as u64 && slot < self.slots as u64).then_some(slot as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_address_whatever_the_order_of_use() {
        let mut mem = GuestMem::new().unwrap();
        let elements = Elements {
            stride: 4096,
            key: 0,
            value: 0,
            size: 4096,
            each: 4096,
        };
        let mut slab = Slab::new(elements, 9);
        let order = [8, 0, 5, 3, 7];
        let addrs: Vec<u64> = order
            .iter()
            .map(|&s| slab.make(&mut mem, s).unwrap())
            .collect();
        for (&slot, &at) in order.iter().zip(&addrs) {
            assert_eq!(slab.addr(slot), at);
            assert_eq!(slab.slot_of(at + 4095), Some(slot));
        }
        assert_eq!(slab.slot_of(addrs.iter().max().unwrap() + 4 * 4096), None);
        assert_eq!(slab.slot_of(0), None);
    }

    #[test]
    fn the_search_passes_over_what_was_never_written() {
        let mut t = Paged::new(0u32);
        t.set(1_000_000, 7);
        assert_eq!(t.next(0, u32::MAX, |&v| v != 0), Some(1_000_000));
        assert_eq!(t.next(0, 1_000_000, |&v| v != 0), None);
        assert_eq!(t.next(1_000_001, u32::MAX, |&v| v != 0), None);
    }
}
