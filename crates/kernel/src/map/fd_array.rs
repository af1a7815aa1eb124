//! Arrays of what user space names by descriptors: programs, inner maps, perf events, cgroups,
//! devices, CPUs, sockets.
//!
//! A slot holds a handle, which the caller made of the descriptor; 0 is an empty slot. What the
//! types differ in is a row of [`RULES`].

use super::ops::{index, next_index};
use super::paged::Paged;
use super::{Cx, MapOps, MapSpec, update};
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::{Area, GuestMem};

/// How a type answers.
struct Rule {
    map_type: MapType,
    /// The highest `flags` of an update, and whether `BPF_NOEXIST` alone is already wrong
    /// because every element is there.
    flags: u64,
    exists: bool,
    /// Deletion beyond the end, and of an empty slot.
    delete: (Errno, Result<(), Errno>),
    /// What user space gets of a slot.
    show: Show,
    /// Checks of an update come before its descriptor is looked at.
    checks_first: bool,
}

/// What a look-up from user space gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// The handle: who calls makes a number of it.
    Handle,
    /// As many bytes of the handle as a value has.
    Value,
    /// The handle where values are 8 bytes, else `ENOSPC`.
    Cookie,
    Never(Errno),
}

const fn rule(
    map_type: MapType,
    flags: u64,
    exists: bool,
    delete: (Errno, Result<(), Errno>),
    show: Show,
) -> Rule {
    Rule {
        map_type,
        flags,
        exists,
        delete,
        show,
        checks_first: !matches!(map_type, MapType::Sockmap),
    }
}

/// `fd_array_map_delete_elem`
const FD: (Errno, Result<(), Errno>) = (Errno::E2BIG, Err(Errno::ENOENT));
const REDIRECT: (Errno, Result<(), Errno>) = (Errno::EINVAL, Ok(()));

static RULES: [Rule; 9] = [
    rule(MapType::ProgArray, update::ANY, false, FD, Show::Handle),
    rule(MapType::ArrayOfMaps, update::ANY, false, FD, Show::Handle),
    rule(
        MapType::PerfEventArray,
        update::ANY,
        false,
        FD,
        Show::Never(Errno::ENOTSUPP),
    ),
    rule(
        MapType::CgroupArray,
        update::ANY,
        false,
        FD,
        Show::Never(Errno::ENOTSUPP),
    ),
    rule(MapType::Devmap, update::EXIST, true, REDIRECT, Show::Value),
    rule(MapType::Cpumap, update::EXIST, true, REDIRECT, Show::Value),
    rule(
        MapType::Xskmap,
        update::EXIST,
        false,
        REDIRECT,
        Show::Never(Errno::EOPNOTSUPP),
    ),
    rule(
        MapType::ReuseportSockarray,
        update::EXIST,
        false,
        FD,
        Show::Cookie,
    ),
    rule(
        MapType::Sockmap,
        update::EXIST,
        false,
        (Errno::EINVAL, Err(Errno::EINVAL)),
        Show::Cookie,
    ),
];

#[derive(Clone)]
pub(crate) struct FdArray {
    rule: &'static Rule,
    max_entries: u32,
    slots: Paged<u64>,
    /// Where programs see the values of devices and CPUs.
    values: u64,
    /// Of an array of perf events: those that were written to.
    pub perf: Vec<super::perf::Perf>,
}

impl FdArray {
    /// `None` for a type that is none of these.
    pub fn create(mem: &mut GuestMem, spec: &MapSpec) -> Option<Result<FdArray, Errno>> {
        let rule = RULES.iter().find(|r| r.map_type == spec.map_type)?;
        let values = if rule.show == Show::Value {
            mem.alloc(Area::Shared, spec.max_entries as u64 * 8, 8)
        } else {
            Ok(0)
        };
        Some(values.map_err(|_| Errno::ENOMEM).map(|values| FdArray {
            rule,
            max_entries: spec.max_entries,
            slots: Paged::new(0),
            values,
            perf: Vec::new(),
        }))
    }

    /// The handle in a slot.
    pub fn get(&self, index: u32) -> Option<u64> {
        (index < self.max_entries)
            .then(|| self.slots.get(index))
            .filter(|&handle| handle != 0)
    }

    /// Empties all slots.
    pub fn clear(&mut self) {
        self.slots = Paged::new(0);
    }

    fn check(&self, key: &[u8], flags: u64) -> Result<(), Errno> {
        if flags > self.rule.flags {
            return Err(Errno::EINVAL);
        }
        if index(key) >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        if self.rule.exists && flags == update::NOEXIST {
            return Err(Errno::EEXIST);
        }
        Ok(())
    }
}

impl MapOps for FdArray {
    /// Of an array of maps the inner map's `struct bpf_map`; of devices and CPUs the value.
    fn lookup(&mut self, _: &mut Cx<'_>, key: &[u8]) -> Option<u64> {
        let handle = self.get(index(key))?;
        match self.rule.show {
            Show::Value => Some(self.values + 8 * index(key) as u64),
            _ => Some(handle),
        }
    }

    fn copy(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let size = match self.rule.show {
            Show::Never(errno) => return Err(errno),
            Show::Cookie if cx.spec.value_size != 8 => return Err(Errno::ENOSPC),
            Show::Handle | Show::Cookie => 8,
            Show::Value => cx.spec.value_size as usize,
        };
        let handle = self.get(index(key)).ok_or(Errno::ENOENT)?;
        let bytes = handle.to_le_bytes();
        Ok(bytes[..size.min(8)].to_vec())
    }

    fn check_update(&self, _: &GuestMem, key: &[u8], _: &[u8], flags: u64) -> Result<(), Errno> {
        if self.rule.checks_first {
            self.check(key, flags)
        } else {
            Ok(())
        }
    }

    /// The value is the handle; 0 empties a slot of devices or CPUs.
    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        self.check(key, flags)?;
        let index = index(key);
        let there = self.get(index).is_some();
        if !self.rule.exists && self.rule.flags != 0 {
            match (there, flags) {
                (true, update::NOEXIST) => return Err(Errno::EEXIST),
                (false, update::EXIST) => return Err(Errno::ENOENT),
                _ => {}
            }
        }
        let handle = value.try_into().map_or(0, u64::from_le_bytes);
        if self.rule.show == Show::Value {
            cx.mem
                .write_u64(self.values + 8 * index as u64, handle)
                .ok_or(Errno::ENOMEM)?;
        }
        self.slots.set(index, handle);
        Ok(())
    }

    fn delete(&mut self, _: &mut Cx<'_>, key: &[u8]) -> Result<(), Errno> {
        let (beyond, empty) = self.rule.delete;
        if index(key) >= self.max_entries {
            return Err(beyond);
        }
        if self.get(index(key)).is_none() {
            return empty;
        }
        self.slots.set(index(key), 0);
        Ok(())
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        next_index(self.max_entries, key)
    }

    fn len(&self) -> u32 {
        self.max_entries
    }
}
