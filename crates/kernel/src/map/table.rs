//! Buckets and elements of a hash map.

use super::jhash::jhash;
use super::paged::{Paged, Slab};
use bpfsim_abi::Errno;
use bpfsim_vm::{Elements, GuestMem};

/// No slot. Slots are linked by their number plus one, so that an empty table is all zero and a
/// large one costs nothing until it is used.
pub const NONE: u32 = 0;

/// Buckets and elements.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Table {
    pub slab: Slab,
    pub key_size: u32,
    /// Bytes of one CPU's value, rounded up.
    pub value: u64,
    pub max_entries: u32,
    pub n_buckets: u32,
    pub buckets: Paged<u32>,
    pub slots: Paged<Slot>,
    pub len: u32,
    pub by_key: bool,
}

/// The host's side of an element.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub hash: u32,
    /// The next slot of the bucket.
    pub next: u32,
    pub used: bool,
}

impl Table {
    /// An empty table of elements of `values` values each, `value` bytes apart, of which programs
    /// may have `size`.
    pub fn new(
        (key_size, value, size): (u32, u64, u32),
        values: u32,
        (max_entries, slots): (u32, u32),
        by_key: bool,
    ) -> Table {
        let first = (key_size as u64).next_multiple_of(8);
        let elements = Elements {
            stride: first + value * values as u64,
            key: key_size as u64,
            value: first,
            size: size as u64,
            each: value,
        };
        Table {
            slab: Slab::new(elements, slots),
            key_size,
            value,
            max_entries,
            n_buckets: max_entries.next_power_of_two(),
            buckets: Paged::new(NONE),
            slots: Paged::new(Slot {
                hash: 0,
                next: NONE,
                used: false,
            }),
            len: 0,
            by_key,
        }
    }

    /// Has what all elements need be there, if that is little.
    pub fn prepare(&mut self, mem: &mut GuestMem) -> Result<(), Errno> {
        if self.slab.is_small() {
            self.slab.make_chunk(mem, 0)?;
            self.buckets.at_mut(0);
            self.slots.at_mut(0);
        }
        Ok(())
    }

    pub fn key_at(&self, slot: u32) -> u64 {
        self.slab.addr(slot)
    }

    pub fn value_at(&self, slot: u32) -> u64 {
        self.key_at(slot) + (self.key_size as u64).next_multiple_of(8)
    }

    pub fn hash(&self, key: &[u8]) -> u32 {
        if self.by_key {
            super::ops::index(key)
        } else {
            jhash(key, 0)
        }
    }

    pub fn bucket(&self, hash: u32) -> u32 {
        hash & (self.n_buckets - 1)
    }

    pub fn find(&self, mem: &GuestMem, hash: u32, key: &[u8]) -> Option<u32> {
        self.chain(self.bucket(hash)).find(|&slot| {
            self.slots.get(slot).hash == hash
                && mem.slice(self.key_at(slot), key.len() as u64) == Some(key)
        })
    }

    pub fn chain(&self, bucket: u32) -> impl Iterator<Item = u32> + '_ {
        let slot = |link: u32| link.checked_sub(1);
        std::iter::successors(slot(self.buckets.get(bucket)), move |&s| {
            slot(self.slots.get(s).next)
        })
    }

    pub fn next_bucket(&self, from: u32) -> Option<u32> {
        self.buckets
            .next(from, self.n_buckets, |&first| first != NONE)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let buckets = std::iter::successors(self.next_bucket(0), |&b| self.next_bucket(b + 1));
        buckets.flat_map(|b| self.chain(b))
    }

    /// Writes key and hash of an element that is about to be linked; gives its value's address.
    pub fn set_key(
        &mut self,
        mem: &mut GuestMem,
        slot: u32,
        hash: u32,
        key: &[u8],
    ) -> Result<u64, Errno> {
        let at = self.slab.make(mem, slot)?;
        mem.slice_mut(at, key.len() as u64)
            .ok_or(Errno::ENOMEM)?
            .copy_from_slice(key);
        self.slots.at_mut(slot).hash = hash;
        Ok(self.value_at(slot))
    }

    pub fn link(&mut self, slot: u32) {
        let bucket = self.bucket(self.slots.get(slot).hash);
        let first = std::mem::replace(self.buckets.at_mut(bucket), slot + 1);
        let s = self.slots.at_mut(slot);
        (s.next, s.used) = (first, true);
        self.len += 1;
    }

    /// False where it is not in the table.
    pub fn unlink(&mut self, slot: u32) -> bool {
        let s = self.slots.get(slot);
        if !s.used {
            return false;
        }
        let bucket = self.bucket(s.hash);
        let before = self
            .chain(bucket)
            .find(|&b| self.slots.get(b).next == slot + 1);
        match before {
            Some(before) => self.slots.at_mut(before).next = s.next,
            None => self.buckets.set(bucket, s.next),
        }
        self.slots.at_mut(slot).used = false;
        self.len -= 1;
        true
    }

    pub fn slot_of(&self, value_addr: u64) -> Option<u32> {
        self.slab.slot_of(value_addr)
    }
}
