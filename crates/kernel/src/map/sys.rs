//! The commands of `bpf(2)` on maps: permissions, flags and descriptors first, as
//! `kernel/bpf/syscall.c` has it, then the map type.

use super::{Map, Op, update};
use crate::asynch::Handle;
use crate::ids::MapId;
use crate::state::State;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::GuestMem;
use smallvec::SmallVec;

/// Timers whose callbacks the caller must wait for.
pub(crate) type Waits = SmallVec<[Handle; 2]>;

/// Whether a map's descriptor lets user space read, or write (`map_get_sys_perms`).
pub(super) fn may(map: &Map, read: bool, write: bool) -> Result<(), Errno> {
    let flags = MapFlags::from_bits_retain(map.spec.flags);
    let no_read = flags.contains(MapFlags::WRONLY);
    let no_write = flags.contains(MapFlags::RDONLY) || map.frozen;
    if (read && no_read) || (write && no_write) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

pub(super) fn check_lock(map: &Map, flags: u64) -> Result<(), Errno> {
    if flags & update::LOCK != 0 && !map.fields.has_spin_lock() {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn sized(bytes: &[u8], size: usize) -> Result<(), Errno> {
    if bytes.len() == size {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl State {
    /// Runs an operation of user space, and frees what it took out of use.
    pub(super) fn sys<T>(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        run: impl FnOnce(&mut Map, &mut Op<'_>) -> Result<T, Errno>,
    ) -> (Result<T, Errno>, Waits) {
        let (m, mut op) = self.map_op(mem, map);
        op.user = true;
        let result = run(m, &mut op);
        let freed = std::mem::take(&mut op.freed);
        (result, self.free_all(mem, map, &freed))
    }

    /// Frees the special fields of elements that are out of use.
    pub fn free_all(&mut self, mem: &mut GuestMem, map: MapId, freed: &[u64]) -> Waits {
        if self.maps[map.at()].fields.is_empty() {
            return Waits::new();
        }
        freed
            .iter()
            .flat_map(|&value| self.free_fields(mem, map, value))
            .collect()
    }

    /// Bytes of a value in user space (`bpf_map_value_size`).
    pub fn sys_value_size(&self, map: MapId) -> usize {
        let spec = &self.maps[map.at()].spec;
        if spec.is_percpu() {
            spec.value_size.next_multiple_of(8) as usize * self.cpus.len()
        } else {
            spec.value_size as usize
        }
    }

    /// `bpf_map_copy_value`
    pub(super) fn copy_value(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let key = self.sys_key(map, key)?;
        let (value, _) = self.sys(mem, map, |m, op| {
            let (ops, mut cx) = m.parts(op);
            ops.copy(&mut cx, &key)
        });
        Ok(self.shown(map, value?))
    }

    /// `BPF_MAP_LOOKUP_ELEM`. The key of a bloom filter is the value to look for.
    pub fn sys_lookup(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        flags: u64,
    ) -> Result<Vec<u8>, Errno> {
        let m = &self.maps[map.at()];
        if flags & !update::LOCK != 0 {
            return Err(Errno::EINVAL);
        }
        may(m, true, false)?;
        check_lock(m, flags)?;
        if m.spec.map_type == MapType::BloomFilter {
            sized(key, m.spec.value_size as usize)?;
            let mut value = key.to_vec();
            let (found, _) = self.sys(mem, map, |m, op| m.take(op, &mut value, false));
            return found.map(|()| value);
        }
        sized(key, m.spec.key_size as usize)?;
        self.copy_value(mem, map, key)
    }

    /// `bpf_map_update_value`
    pub(super) fn update_value(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> (Result<(), Errno>, Waits) {
        let map_type = self.maps[map.at()].spec.map_type;
        let key = match self.sys_key(map, key) {
            Ok(key) => key,
            Err(errno) => return (Err(errno), Waits::new()),
        };
        use MapType as T;
        let handle = match map_type {
            T::Queue | T::Stack | T::BloomFilter => {
                return self.sys(mem, map, |m, op| m.push(op, value, flags));
            }
            T::ProgArray
            | T::PerfEventArray
            | T::CgroupArray
            | T::ArrayOfMaps
            | T::HashOfMaps
            | T::Devmap
            | T::DevmapHash
            | T::Cpumap
            | T::Xskmap
            | T::Sockmap
            | T::Sockhash
            | T::ReuseportSockarray => {
                let ops = self.maps[map.at()].storage.ops();
                let checked = ops.check_update(mem, &key, value, flags);
                match checked.and_then(|()| self.handle(map, &key, value)) {
                    Ok(handle) => Some(handle.to_le_bytes()),
                    Err(errno) => return (Err(errno), Waits::new()),
                }
            }
            T::StructOps => {
                let ops = self.maps[map.at()].struct_ops();
                if let Err(errno) = ops.map_or(Ok(()), |ops| ops.check_programs(self, value)) {
                    return (Err(errno), Waits::new());
                }
                None
            }
            _ => None,
        };
        let value = handle.as_ref().map_or(value, |h| h);
        self.sys(mem, map, |m, op| m.update(op, &key, value, flags))
    }

    /// What `BPF_MAP_UPDATE_ELEM` checks before it asks the map type.
    pub fn sys_update_check(
        &self,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let m = &self.maps[map.at()];
        may(m, false, true)
            .and_then(|()| check_lock(m, flags))
            .and_then(|()| sized(key, m.spec.key_size as usize))
            .and_then(|()| sized(value, self.sys_value_size(map)))
    }

    /// `BPF_MAP_UPDATE_ELEM`
    pub fn sys_update(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> (Result<(), Errno>, Waits) {
        match self.sys_update_check(map, key, value, flags) {
            Ok(()) => self.update_value(mem, map, key, value, flags),
            Err(errno) => (Err(errno), Waits::new()),
        }
    }

    pub(super) fn delete_key(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
    ) -> (Result<(), Errno>, Waits) {
        match self.sys_key(map, key) {
            Ok(key) => self.sys(mem, map, |m, op| m.delete(op, &key)),
            Err(errno) => (Err(errno), Waits::new()),
        }
    }

    /// `BPF_MAP_DELETE_ELEM`
    pub fn sys_delete(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
    ) -> (Result<(), Errno>, Waits) {
        let m = &self.maps[map.at()];
        match may(m, false, true).and_then(|()| sized(key, m.spec.key_size as usize)) {
            Ok(()) => self.delete_key(mem, map, key),
            Err(errno) => (Err(errno), Waits::new()),
        }
    }

    /// `BPF_MAP_GET_NEXT_KEY`
    pub fn sys_next_key(
        &self,
        mem: &GuestMem,
        map: MapId,
        key: Option<&[u8]>,
    ) -> Result<Vec<u8>, Errno> {
        let m = &self.maps[map.at()];
        may(m, true, false)?;
        if let Some(key) = key {
            sized(key, m.spec.key_size as usize)?;
        }
        m.next_key(mem, key)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    pub fn sys_lookup_and_delete(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        flags: u64,
    ) -> (Result<Vec<u8>, Errno>, Waits) {
        let m = &self.maps[map.at()];
        let keyless = matches!(m.spec.map_type, MapType::Queue | MapType::Stack);
        let checked = if flags & !update::LOCK != 0 {
            Err(Errno::EINVAL)
        } else {
            may(m, true, true)
                .and_then(|()| {
                    if flags != 0 && keyless {
                        return Err(Errno::EINVAL);
                    }
                    check_lock(m, flags)
                })
                .and_then(|()| sized(key, m.spec.key_size as usize))
        };
        match checked {
            Err(errno) => (Err(errno), Waits::new()),
            Ok(()) => self.sys(mem, map, |m, op| {
                let (ops, mut cx) = m.parts(op);
                ops.copy_delete(&mut cx, key)
            }),
        }
    }

    /// `BPF_MAP_FREEZE`
    pub fn sys_freeze(&mut self, map: MapId) -> Result<(), Errno> {
        let m = &mut self.maps[map.at()];
        if m.spec.map_type == MapType::StructOps || !m.fields.is_empty() {
            return Err(Errno::ENOTSUPP);
        }
        // One that is frozen gives no permission to write.
        may(m, false, true)?;
        (m.frozen, m.dirty) = (true, true);
        Ok(())
    }
}
