//! Storage that belongs to an object: `TASK_STORAGE`, `SK_STORAGE`, `INODE_STORAGE`,
//! `CGRP_STORAGE`, and the older `CGROUP_STORAGE` and `PERCPU_CGROUP_STORAGE`.
//!
//! The owner is named by the guest address of the object that programs have a pointer to, of
//! the older two by the key: a cgroup's number and, where the map's keys have it, the attach type.

use super::paged::Slab;
use super::{Cx, MapOps, MapSpec, copy_value, update, value_for_user};
use bpfsim_abi::{AttachType, Errno, MapType};
use bpfsim_vm::{Elements, GuestMem};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a program is attached to: `struct bpf_cgroup_storage_key`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CgroupKey {
    /// The cgroup's number.
    pub cgroup: u64,
    pub what: AttachType,
}

impl CgroupKey {
    /// As keys of a map have it: without the attach type programs of all types share.
    pub fn bytes(self, key_size: u32) -> Vec<u8> {
        let mut key = self.cgroup.to_le_bytes().to_vec();
        key.extend((self.what as u64).to_le_bytes());
        key.truncate(key_size as usize);
        key
    }
}

#[derive(Clone)]
pub(crate) struct Local {
    /// Slot of each owner.
    owners: BTreeMap<Vec<u8>, u32>,
    /// Owners that are cgroups, oldest first.
    linked: Vec<Vec<u8>>,
    slab: Slab,
    free: Vec<u32>,
    fresh: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Elements come and go by themselves.
    Object,
    /// Elements are there as long as the program is attached to the cgroup.
    Cgroup,
    CgroupPerCpu,
}

impl Local {
    pub fn create(spec: &MapSpec, cpus: u32) -> Local {
        let kind = match spec.map_type {
            MapType::CgroupStorage => Kind::Cgroup,
            MapType::PercpuCgroupStorage => Kind::CgroupPerCpu,
            _ => Kind::Object,
        };
        let values = if kind == Kind::CgroupPerCpu { cpus } else { 1 };
        let each = (spec.value_size as u64).next_multiple_of(8);
        let elements = Elements {
            stride: each * values as u64,
            key: 0,
            value: 0,
            size: spec.value_size as u64,
            each,
        };
        Local {
            owners: BTreeMap::new(),
            linked: Vec::new(),
            slab: Slab::new(elements, u32::MAX),
            free: Vec::new(),
            fresh: 0,
            kind,
        }
    }

    fn at(&self, owner: &[u8]) -> Option<u64> {
        let slot = self.owners.get(self.identity(owner).as_ref());
        slot.map(|&slot| self.slab.addr(slot))
    }

    /// The key without what does not count of it: the bytes behind the attach type.
    fn identity<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        /// Where they begin.
        const PAD: usize = 12;
        match self.kind {
            Kind::Cgroup | Kind::CgroupPerCpu if key.len() > PAD => {
                let mut key = key.to_vec();
                key[PAD..].fill(0);
                Cow::Owned(key)
            }
            _ => Cow::Borrowed(key),
        }
    }

    /// `bpf_cgroup_storages_alloc`, `bpf_cgroup_storage_link`: a program that uses the map is
    /// attached to a cgroup, whose storage is made unless it is there.
    pub fn link(&mut self, mem: &mut GuestMem, spec: &MapSpec, of: CgroupKey) -> Result<(), Errno> {
        let key = of.bytes(spec.key_size);
        if self.kind == Kind::Object || self.owners.contains_key(&key) {
            return Ok(());
        }
        self.insert(mem, &key, self.slab.stride())?;
        self.linked.push(key);
        Ok(())
    }

    /// `cgroup_bpf_release`: a cgroup is gone, and its storages with it.
    pub fn unlink(&mut self, mem: &mut GuestMem, cgroup: u64) {
        let number = cgroup.to_le_bytes();
        self.linked.retain(|key| {
            let stays = !key.starts_with(&number);
            let gone = if stays { None } else { self.owners.remove(key) };
            if let Some(slot) = gone {
                self.slab.retire(mem, slot);
                self.free.push(slot);
            }
            stays
        });
    }

    /// A zeroed element for an owner that has none.
    pub fn insert(&mut self, mem: &mut GuestMem, owner: &[u8], size: u64) -> Result<u64, Errno> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = self.fresh;
                self.fresh = slot.checked_add(1).ok_or(Errno::ENOMEM)?;
                slot
            }
        };
        let at = self.slab.make(mem, slot)?;
        mem.slice_mut(at, size).ok_or(Errno::ENOMEM)?.fill(0);
        self.owners.insert(owner.to_vec(), slot);
        Ok(at)
    }
}

impl MapOps for Local {
    fn lookup(&mut self, cx: &mut Cx<'_>, owner: &[u8]) -> Option<u64> {
        let at = self.at(owner)?;
        let per_cpu = self.kind == Kind::CgroupPerCpu;
        Some(at + if per_cpu { cx.cpu.0 as u64 } else { 0 } * cx.stride() as u64)
    }

    fn copy(&mut self, cx: &mut Cx<'_>, owner: &[u8]) -> Result<Vec<u8>, Errno> {
        let at = self.at(owner).ok_or(Errno::ENOENT)?;
        match self.kind {
            Kind::CgroupPerCpu => cx.percpu_for_user(at),
            _ => value_for_user(cx.mem, cx.fields, at, cx.spec.value_size as u64),
        }
    }

    /// `bpf_local_storage_update`; `cgroup_storage_update_elem`.
    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        owner: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let cgroup = self.kind != Kind::Object;
        let known = match self.kind {
            Kind::CgroupPerCpu => flags == update::ANY || flags == update::EXIST,
            Kind::Cgroup => flags & !(update::LOCK | update::EXIST) == 0,
            Kind::Object => flags & !update::LOCK <= update::EXIST,
        };
        if !known || (flags & update::LOCK != 0 && !cx.fields.has_spin_lock()) {
            return Err(Errno::EINVAL);
        }
        let old = self.at(owner);
        match (old, flags & !update::LOCK) {
            (Some(_), update::NOEXIST) => return Err(Errno::EEXIST),
            (None, update::EXIST) => return Err(Errno::ENOENT),
            (None, _) if cgroup => return Err(Errno::ENOENT),
            _ => {}
        }
        if let (Some(at), Kind::CgroupPerCpu) = (old, self.kind) {
            return cx.write_percpu(at, value);
        }
        if let (Some(at), true) = (old, flags & update::LOCK != 0) {
            return copy_value(cx.mem, cx.fields, at, value);
        }
        if cx.fails {
            return Err(Errno::ENOMEM);
        }
        // A new element takes the old one's place.
        let owner = self.identity(owner);
        let owner = owner.as_ref();
        if let Some(slot) = self.owners.remove(owner) {
            cx.freed.push(self.slab.addr(slot));
            let at = self.insert(cx.mem, owner, cx.spec.value_size as u64)?;
            self.slab.retire(cx.mem, slot);
            self.free.push(slot);
            return copy_value(cx.mem, cx.fields, at, value);
        }
        let at = self.insert(cx.mem, owner, cx.spec.value_size as u64)?;
        copy_value(cx.mem, cx.fields, at, value)
    }

    fn delete(&mut self, cx: &mut Cx<'_>, owner: &[u8]) -> Result<(), Errno> {
        if self.kind != Kind::Object {
            return Err(Errno::EINVAL);
        }
        let slot = self.owners.remove(owner).ok_or(Errno::ENOENT)?;
        cx.freed.push(self.slab.addr(slot));
        self.slab.retire(cx.mem, slot);
        self.free.push(slot);
        Ok(())
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        if self.kind == Kind::Object {
            return Err(Errno::ENOTSUPP);
        }
        // The newest first.
        let key = key.map(|key| self.identity(key));
        let mut after = self
            .linked
            .iter()
            .rev()
            .skip_while(|k| key.as_ref().is_some_and(|key| k[..] != key[..]));
        let next = if key.is_some() {
            after.nth(1)
        } else {
            after.next()
        };
        next.cloned().ok_or(Errno::ENOENT)
    }

    fn owns(&self, addr: u64) -> bool {
        self.slab.slot_of(addr).is_some()
    }

    fn value_around(&self, addr: u64) -> Option<u64> {
        self.slab.slot_of(addr).map(|slot| self.slab.addr(slot))
    }

    fn len(&self) -> u32 {
        self.owners.len() as u32
    }

    fn values(&self) -> Vec<u64> {
        self.owners.values().map(|&s| self.slab.addr(s)).collect()
    }
}
