//! The hash maps: `BPF_MAP_TYPE_HASH`, `LRU_HASH`, `PERCPU_HASH`, `LRU_PERCPU_HASH`,
//! `HASH_OF_MAPS`; and `DEVMAP_HASH` and `SOCKHASH`, which keep keys in the same way.
//!
//! Buckets are Linux's: `jhash` over the key, as many as the next power of two, newest element
//! first, so that keys come out in the order in which a map made with `BPF_F_ZERO_SEED` gives
//! them. Element memory is recycled at once, last freed first, on the CPU that freed it.

mod free;
mod updates;

use super::lru::Lru;
use super::ops::{Bucket, Entry};
use super::table::{NONE, Table};
use super::{Cx, MapOps, MapSpec, Place, update, value_for_user};
use crate::ids::Cpu;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::GuestMem;
use free::CpuCache;

/// The part that differs between the types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Plain,
    PerCpu,
    /// The value is an inner map's address.
    OfMaps,
    /// The bucket is the key itself; updates that find the key take a new element.
    Devmap,
    /// Holds sockets.
    Sock,
}

#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Hash {
    table: Table,
    kind: Kind,
    prealloc: bool,
    per_cpu: Vec<CpuCache>,
    lru: Option<Box<Lru>>,
}

impl Hash {
    /// `htab_map_alloc`
    pub fn create(spec: &MapSpec, cpus: u32) -> Hash {
        let kind = match spec.map_type {
            MapType::PercpuHash | MapType::LruPercpuHash => Kind::PerCpu,
            MapType::HashOfMaps => Kind::OfMaps,
            MapType::DevmapHash => Kind::Devmap,
            MapType::Sockhash => Kind::Sock,
            _ => Kind::Plain,
        };
        let lru = matches!(spec.map_type, MapType::LruHash | MapType::LruPercpuHash);
        let flags = MapFlags::from_bits_retain(spec.flags);
        let prealloc =
            !flags.contains(MapFlags::NO_PREALLOC) && !matches!(kind, Kind::Devmap | Kind::Sock);
        let value = match kind {
            Kind::OfMaps | Kind::Devmap | Kind::Sock => 8,
            _ => (spec.value_size as u64).next_multiple_of(8),
        };
        let size = spec.value_size.min(value as u32);
        let values = if kind == Kind::PerCpu { cpus } else { 1 };
        let max_entries = spec.max_entries;
        let extra = !lru && matches!(kind, Kind::Plain | Kind::Devmap | Kind::Sock);
        let slots = max_entries.saturating_add(if extra { cpus } else { 0 });
        let mut hash = Hash {
            table: Table::new(
                (spec.key_size, value, size),
                values,
                (max_entries, slots),
                kind == Kind::Devmap,
            ),
            kind,
            prealloc,
            per_cpu: Vec::new(),
            lru: lru.then(|| {
                let own = flags.contains(MapFlags::NO_COMMON_LRU);
                Box::new(Lru::new(max_entries, cpus, own))
            }),
        };
        hash.populate(slots, cpus);
        if prealloc && extra {
            for cpu in 0..cpus as usize {
                hash.per_cpu[cpu].spare = hash.pop(0);
            }
        }
        hash
    }

    /// What the elements of a small preallocated map lie in is there before the first one comes
    /// (`prealloc_init`): executions of a test find it made.
    pub fn prepare(&mut self, mem: &mut GuestMem) -> Result<(), Errno> {
        match self.prealloc {
            true => self.table.prepare(mem),
            false => Ok(()),
        }
    }

    /// The next bucket that is not empty, or the number of buckets.
    pub fn next_bucket(&self, from: u32) -> u32 {
        let n = self.table.n_buckets;
        self.table.next_bucket(from).unwrap_or(n)
    }

    /// Look-ups by programs leave marks.
    pub fn is_lru(&self) -> bool {
        self.lru.is_some()
    }

    /// The value of a key, without using the element.
    pub fn peek(&self, mem: &GuestMem, key: &[u8]) -> Option<u64> {
        let slot = self.table.find(mem, self.table.hash(key), key)?;
        Some(self.table.value_at(slot))
    }

    /// The bucket of a key.
    pub fn bucket_of(&self, key: &[u8]) -> u32 {
        self.table.bucket(self.table.hash(key))
    }

    fn value_of(&self, cx: &mut Cx<'_>, slot: u32) -> Result<Vec<u8>, Errno> {
        let at = self.table.value_at(slot);
        match self.kind {
            Kind::PerCpu => cx.percpu_for_user(at),
            Kind::OfMaps | Kind::Sock => value_for_user(cx.mem, cx.fields, at, 8),
            _ => value_for_user(cx.mem, cx.fields, at, cx.spec.value_size as u64),
        }
    }

    /// Where the value of a key is, which is left as unused as it was.
    pub fn value_place(&self, mem: &GuestMem, key: &[u8]) -> Option<u64> {
        self.find_key(mem, key)
            .map(|slot| self.table.value_at(slot))
    }

    fn find_key(&self, mem: &GuestMem, key: &[u8]) -> Option<u32> {
        self.table.find(mem, self.table.hash(key), key)
    }
}

impl MapOps for Hash {
    fn lookup(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Option<u64> {
        let slot = self.find_key(cx.mem, key)?;
        if let Some(lru) = self.lru.as_mut().filter(|_| !cx.user) {
            lru.set_ref(slot);
        }
        let at = self.table.value_at(slot);
        match self.kind {
            Kind::PerCpu => Some(at + self.table.value * cx.cpu.0 as u64),
            Kind::OfMaps | Kind::Sock => cx.mem.read_u64(at),
            Kind::Plain | Kind::Devmap => Some(at),
        }
    }

    fn copy(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        if self.kind == Kind::Sock && cx.spec.value_size != 8 {
            return Err(Errno::ENOSPC);
        }
        let slot = self.find_key(cx.mem, key).ok_or(Errno::ENOENT)?;
        self.value_of(cx, slot)
    }

    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let locks = self.kind == Kind::Plain && self.lru.is_none();
        let known = if locks { flags & !update::LOCK } else { flags };
        if known > update::EXIST {
            return Err(Errno::EINVAL);
        }
        match (self.kind, &self.lru) {
            (Kind::PerCpu, Some(_)) => self.update_lru_percpu(cx, key, value, flags),
            (_, Some(_)) => self.update_lru(cx, key, value, flags),
            (Kind::PerCpu | Kind::OfMaps, None) => self.update_in_place(cx, key, value, flags),
            (Kind::Plain, None) => self.update_plain(cx, key, value, flags),
            (Kind::Devmap | Kind::Sock, None) => self.update_handle(cx, key, value, flags),
        }
    }

    fn check_update(
        &self,
        mem: &GuestMem,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        if self.kind != Kind::Devmap {
            return Ok(());
        }
        // No interface has index 0.
        if flags > update::EXIST || value.starts_with(&[0; 4]) {
            return Err(Errno::EINVAL);
        }
        let found = self.find_key(mem, key).is_some();
        Self::check_flags(found, flags & update::NOEXIST)
    }

    fn delete(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<(), Errno> {
        let slot = self.find_key(cx.mem, key).ok_or(Errno::ENOENT)?;
        self.table.unlink(slot);
        self.give(cx, slot);
        Ok(())
    }

    fn copy_delete(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        if !matches!(self.kind, Kind::Plain | Kind::PerCpu) {
            return Err(Errno::ENOTSUPP);
        }
        let value = self.copy(cx, key)?;
        self.delete(cx, key)?;
        Ok(value)
    }

    /// `htab_map_get_next_key`
    fn next_key(
        &self,
        mem: &GuestMem,
        spec: &MapSpec,
        key: Option<&[u8]>,
    ) -> Result<Vec<u8>, Errno> {
        let t = &self.table;
        let next = match key.and_then(|k| self.find_key(mem, k)) {
            None => t.iter().next(),
            Some(slot) => {
                let s = t.slots.get(slot);
                let later = || t.chain(t.next_bucket(t.bucket(s.hash) + 1)?).next();
                s.next.checked_sub(1).or_else(later)
            }
        };
        let at = t.key_at(next.ok_or(Errno::ENOENT)?);
        let key = mem.slice(at, spec.key_size as u64);
        key.map(<[u8]>::to_vec).ok_or(Errno::EFAULT)
    }

    /// `bpf_for_each_hash_elem`: what follows in the bucket is read before the callback.
    fn after(&self, _: &GuestMem, cpu: Cpu, at: Option<Place>) -> Option<Place> {
        let t = &self.table;
        let (bucket, slot) = match at {
            Some(p) if p.next != NONE => (p.index, p.next - 1),
            _ => {
                let bucket = t.next_bucket(at.map_or(0, |p| p.index + 1))?;
                (bucket, t.chain(bucket).next()?)
            }
        };
        let on = if self.kind == Kind::PerCpu { cpu.0 } else { 0 };
        Some(Place {
            key: Some(t.key_at(slot)),
            index: bucket,
            next: t.slots.get(slot).next,
            value: t.value_at(slot) + t.value * on as u64,
        })
    }

    fn key_addr(&self, value_addr: u64) -> Option<u64> {
        self.table.slot_of(value_addr).map(|s| self.table.key_at(s))
    }

    fn value_around(&self, addr: u64) -> Option<u64> {
        let first = self.table.value_at(self.table.slot_of(addr)?);
        let within = addr.checked_sub(first)?;
        Some(addr - within % self.table.value)
    }

    fn owns(&self, addr: u64) -> bool {
        self.table.slot_of(addr).is_some()
    }

    fn len(&self) -> u32 {
        self.table.len
    }

    fn values(&self) -> Vec<u64> {
        let cpus = if self.kind == Kind::PerCpu {
            self.per_cpu.len() as u64
        } else {
            1
        };
        let t = &self.table;
        t.iter()
            .flat_map(|s| (0..cpus).map(move |cpu| t.value_at(s) + cpu * t.value))
            .collect()
    }

    fn bucket(
        &mut self,
        cx: &mut Cx<'_>,
        bucket: u32,
        most: u32,
        delete: bool,
    ) -> Result<Vec<Entry>, Bucket> {
        if bucket >= self.table.n_buckets {
            return Err(Bucket::None);
        }
        let slots: Vec<u32> = self.table.chain(bucket).collect();
        if slots.len() > most as usize {
            return Err(Bucket::Full);
        }
        let mut elems = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let key = cx
                .mem
                .slice(self.table.key_at(slot), self.table.key_size as u64);
            let key = key.ok_or(Bucket::Failed(Errno::EFAULT))?.to_vec();
            elems.push((key, self.value_of(cx, slot).map_err(Bucket::Failed)?));
        }
        if delete {
            for &slot in &slots {
                self.table.unlink(slot);
            }
            // The last one that was taken out is freed first.
            for &slot in slots.iter().rev() {
                self.give(cx, slot);
            }
        }
        Ok(elems)
    }
}
