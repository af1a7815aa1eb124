//! `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_LRU_HASH`
//!
//! Buckets are Linux's: `jhash` over the key, as many as the next power of two, newest element
//! first, so that keys come out in the order in which a map made with `BPF_F_ZERO_SEED` gives
//! them. Element memory is recycled at once, last freed first, on the CPU that freed it.

use super::{F_NO_PREALLOC, Freed, MapSpec, Op, copy_value, update};
use crate::field::Fields;
use crate::ids::Cpu;
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::{Area, GuestMem};
use std::collections::BTreeMap;

/// No slot. Slots are linked by their number plus one, so that an empty table is all zero and a
/// large one costs nothing until it is used.
const NONE: u32 = 0;

pub(crate) struct Hash {
    base: u64,
    stride: u64,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    prealloc: bool,
    buckets: Vec<u32>,
    slots: Vec<Slot>,
    len: u32,
    per_cpu: Vec<CpuCache>,
    /// The first slot never used so far.
    fresh: u32,
    /// Present in LRU maps: use stamp to slot, oldest first.
    lru: Option<BTreeMap<u64, u32>>,
    stamp: u64,
}

/// The host's side of an element.
#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    /// The next slot of the bucket.
    next: u32,
    stamp: u64,
    used: bool,
}

/// One CPU's free elements.
struct CpuCache {
    free: Vec<u32>,
    /// `extra_elems` of a preallocated map: what an update of an existing key fills. Without
    /// preallocation, what such an update takes when the map is full.
    spare: Option<u32>,
}

impl Hash {
    /// `htab_map_alloc_check` and `htab_map_alloc`.
    pub fn create(mem: &mut GuestMem, spec: &MapSpec, cpus: u32) -> Result<Hash, Errno> {
        let lru = spec.map_type == MapType::LruHash;
        let prealloc = spec.flags & F_NO_PREALLOC == 0;
        if lru && !prealloc {
            return Err(Errno::EOPNOTSUPP);
        }
        if spec.max_entries == 0 || spec.key_size == 0 || spec.value_size == 0 {
            return Err(Errno::EINVAL);
        }
        let stride = (spec.key_size as u64).next_multiple_of(8)
            + (spec.value_size as u64).next_multiple_of(8);
        // KMALLOC_MAX_SIZE less struct htab_elem.
        if spec.key_size as u64 + spec.value_size as u64 >= (4 << 20) - 48 || spec.key_size > 512 {
            return Err(Errno::E2BIG);
        }
        let max_entries = spec.max_entries;
        if max_entries > 1 << 31 {
            return Err(Errno::E2BIG);
        }
        let total = max_entries as u64 + cpus as u64;
        let base = mem
            .alloc(Area::Shared, stride * total, 8)
            .map_err(|_| Errno::ENOMEM)?;
        let spare = |c| if lru { None } else { Some(c) };
        let per_cpu = (0..cpus).map(|c| CpuCache {
            free: Vec::new(),
            spare: spare(c),
        });
        Ok(Hash {
            base,
            stride,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries,
            prealloc,
            buckets: Vec::new(),
            slots: Vec::new(),
            len: 0,
            per_cpu: per_cpu.collect(),
            fresh: cpus,
            lru: lru.then(BTreeMap::new),
            stamp: 0,
        })
    }

    fn key_at(&self, slot: u32) -> u64 {
        self.base + self.stride * slot as u64
    }

    fn value_at(&self, slot: u32) -> u64 {
        self.key_at(slot) + (self.key_size as u64).next_multiple_of(8)
    }

    fn slot_of(&self, value_addr: u64) -> Option<u32> {
        let slot = value_addr.wrapping_sub(self.base) / self.stride;
        (slot < self.slots.len() as u64).then_some(slot as u32)
    }

    fn n_buckets(&self) -> u32 {
        self.max_entries.next_power_of_two()
    }

    fn find(&self, mem: &GuestMem, hash: u32, key: &[u8]) -> Option<u32> {
        let first = *self.buckets.get((hash & (self.n_buckets() - 1)) as usize)?;
        self.chain(first).find(|&slot| {
            self.slots[slot as usize].hash == hash
                && mem.slice(self.key_at(slot), key.len() as u64) == Some(key)
        })
    }

    pub fn lookup(&mut self, op: &Op<'_>, key: &[u8]) -> Option<u64> {
        let slot = self.find(op.mem, jhash(key), key)?;
        self.touch(slot);
        Some(self.value_at(slot))
    }

    pub fn update(
        &mut self,
        op: &mut Op<'_>,
        fields: &Fields,
        key: &[u8],
        value: &[u8],
        flags: u64,
        freed: &mut Freed,
    ) -> Result<(), Errno> {
        let lru = self.lru.is_some();
        if flags & !update::LOCK > update::EXIST || (lru && flags > update::EXIST) {
            return Err(Errno::EINVAL);
        }
        let hash = jhash(key);
        if flags & update::LOCK != 0
            && let Some(slot) = self.find(op.mem, hash, key)
        {
            if flags & update::NOEXIST != 0 {
                return Err(Errno::EEXIST);
            }
            return copy_value(op.mem, fields, self.value_at(slot), value);
        }
        // An LRU map takes its element, evicting if it must, before it looks at the flags.
        let taken = if lru {
            Some(self.take_lru(op.cpu, freed)?)
        } else {
            None
        };
        let old = self.find(op.mem, hash, key);
        let conflict = match (old, flags & 3) {
            (Some(_), update::NOEXIST) => Some(Errno::EEXIST),
            (None, update::EXIST) => Some(Errno::ENOENT),
            _ => None,
        };
        if let Some(errno) = conflict {
            self.per_cpu[op.cpu.at()].free.extend(taken);
            return Err(errno);
        }
        let slot = match taken {
            Some(slot) => slot,
            None => self.take(op.cpu, old.is_some())?,
        };
        self.fill(op.mem, slot, hash, key, value, fields)?;
        if let Some(old) = old {
            self.unlink(old);
            freed.push(self.value_at(old));
            self.give(op.cpu, old, true);
        }
        self.link(slot);
        Ok(())
    }

    pub fn delete(&mut self, op: &mut Op<'_>, key: &[u8]) -> Result<u64, Errno> {
        let slot = self.find(op.mem, jhash(key), key).ok_or(Errno::ENOENT)?;
        self.unlink(slot);
        self.give(op.cpu, slot, false);
        Ok(self.value_at(slot))
    }

    /// An element for a new key, or for an existing one that it replaces.
    fn take(&mut self, cpu: Cpu, replaces: bool) -> Result<u32, Errno> {
        let spare = self.per_cpu[cpu.at()].spare;
        if replaces && self.prealloc {
            return spare.ok_or(Errno::E2BIG);
        }
        if !replaces && self.len >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        if let Some(slot) = self.pop(cpu) {
            return Ok(slot);
        }
        self.per_cpu[cpu.at()].spare.take().ok_or(Errno::E2BIG)
    }

    /// This CPU's free elements first, then ones never used, then the other CPUs'.
    fn pop(&mut self, cpu: Cpu) -> Option<u32> {
        if let Some(slot) = self.per_cpu[cpu.at()].free.pop() {
            return Some(slot);
        }
        if self.fresh < self.max_entries + self.per_cpu.len() as u32 {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        self.per_cpu.iter_mut().find_map(|cache| cache.free.pop())
    }

    /// Takes a slot back. One that a new element replaced becomes the CPU's spare.
    fn give(&mut self, cpu: Cpu, slot: u32, replaced: bool) {
        let cache = &mut self.per_cpu[cpu.at()];
        if replaced && self.prealloc && self.lru.is_none() {
            cache.spare = Some(slot);
        } else {
            cache.free.push(slot);
        }
    }

    fn take_lru(&mut self, cpu: Cpu, freed: &mut Freed) -> Result<u32, Errno> {
        if let Some(slot) = self.pop(cpu) {
            return Ok(slot);
        }
        let oldest = self.lru.as_ref().and_then(|l| l.values().next().copied());
        let victim = oldest.ok_or(Errno::ENOMEM)?;
        self.unlink(victim);
        freed.push(self.value_at(victim));
        Ok(victim)
    }

    fn fill(
        &mut self,
        mem: &mut GuestMem,
        slot: u32,
        hash: u32,
        key: &[u8],
        value: &[u8],
        fields: &Fields,
    ) -> Result<(), Errno> {
        if self.slots.len() <= slot as usize {
            let unused = Slot {
                hash: 0,
                next: NONE,
                stamp: 0,
                used: false,
            };
            self.slots.resize(slot as usize + 1, unused);
        }
        self.slots[slot as usize].hash = hash;
        mem.slice_mut(self.key_at(slot), key.len() as u64)
            .ok_or(Errno::ENOMEM)?
            .copy_from_slice(key);
        copy_value(mem, fields, self.value_at(slot), value)
    }

    fn link(&mut self, slot: u32) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; self.n_buckets() as usize];
        }
        let bucket = (self.slots[slot as usize].hash & (self.n_buckets() - 1)) as usize;
        self.slots[slot as usize].next = std::mem::replace(&mut self.buckets[bucket], slot + 1);
        self.slots[slot as usize].used = true;
        self.len += 1;
        self.touch(slot);
    }

    fn unlink(&mut self, slot: u32) {
        let s = self.slots[slot as usize];
        let bucket = (s.hash & (self.n_buckets() - 1)) as usize;
        let before = self
            .chain(self.buckets[bucket])
            .find(|&s| self.slots[s as usize].next == slot + 1);
        match before {
            Some(before) => self.slots[before as usize].next = s.next,
            None => self.buckets[bucket] = s.next,
        }
        self.slots[slot as usize].used = false;
        self.len -= 1;
        if let Some(lru) = &mut self.lru {
            lru.remove(&s.stamp);
        }
    }

    fn touch(&mut self, slot: u32) {
        if let Some(lru) = &mut self.lru {
            self.stamp += 1;
            lru.remove(&std::mem::replace(
                &mut self.slots[slot as usize].stamp,
                self.stamp,
            ));
            lru.insert(self.stamp, slot);
        }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn key_addr(&self, value_addr: u64) -> Option<u64> {
        self.slot_of(value_addr).map(|s| self.key_at(s))
    }

    pub fn value_around(&self, addr: u64) -> Option<u64> {
        let value = self.value_at(self.slot_of(addr)?);
        (addr.wrapping_sub(value) < self.value_size as u64).then_some(value)
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.buckets
            .iter()
            .flat_map(move |&first| self.chain(first))
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let slot = |link: u32| link.checked_sub(1);
        std::iter::successors(slot(first), move |&s| slot(self.slots[s as usize].next))
    }

    pub fn values(&self) -> Vec<u64> {
        self.iter().map(|s| self.value_at(s)).collect()
    }

    /// `htab_map_get_next_key`
    pub fn next_key(&self, mem: &GuestMem, key: Option<&[u8]>) -> Option<Vec<u8>> {
        let found = key.and_then(|k| self.find(mem, jhash(k), k));
        let next = match found {
            None => self.iter().next(),
            Some(slot) => {
                let s = &self.slots[slot as usize];
                let bucket = (s.hash & (self.n_buckets() - 1)) as usize;
                let later = self.buckets[bucket + 1..]
                    .iter()
                    .copied()
                    .find(|&b| b != NONE);
                if s.next != NONE { Some(s.next) } else { later }
            }
        }?;
        mem.slice(self.key_at(next), self.key_size as u64)
            .map(<[u8]>::to_vec)
    }
}

/// Bob Jenkins' lookup3 (public domain), as Linux's `jhash`/`jhash2` with initial value 0.
/// Both give the same for keys of whole words on a little-endian machine.
fn jhash(key: &[u8]) -> u32 {
    let init = 0xdead_beef_u32.wrapping_add(key.len() as u32);
    let (mut a, mut b, mut c) = (init, init, init);
    let mut rest = key;
    while rest.len() > 12 {
        a = a.wrapping_add(word(&rest[0..4]));
        b = b.wrapping_add(word(&rest[4..8]));
        c = c.wrapping_add(word(&rest[8..12]));
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    let mut last = [0; 12];
    last[..rest.len()].copy_from_slice(rest);
    a = a.wrapping_add(word(&last[0..4]));
    b = b.wrapping_add(word(&last[4..8]));
    c = c.wrapping_add(word(&last[8..12]));
    for (x, y, by) in [
        (0, 1, 14),
        (2, 0, 11),
        (1, 2, 25),
        (0, 1, 16),
        (2, 0, 4),
        (1, 2, 14),
        (0, 1, 24),
    ] {
        let mut v = [c, b, a];
        v[x] = (v[x] ^ v[y]).wrapping_sub(v[y].rotate_left(by));
        [c, b, a] = v;
    }
    c
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |w, &b| w << 8 | b as u32)
}
