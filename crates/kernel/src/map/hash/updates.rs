//! Updates, one for each way in which a type of map takes an element (`htab_map_update_elem` and its like).

use super::{Hash, Kind};
use crate::map::{Cx, copy_value, update};
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;

impl Hash {
    pub(super) fn check_flags(found: bool, flags: u64) -> Result<(), Errno> {
        match (found, flags & !update::LOCK) {
            (true, update::NOEXIST) => Err(Errno::EEXIST),
            (false, update::EXIST) => Err(Errno::ENOENT),
            _ => Ok(()),
        }
    }

    /// A node of the LRU lists, the key and hash in it (`prealloc_lru_pop`).
    fn pop_lru(&mut self, cx: &mut Cx<'_>, hash: u32, key: &[u8]) -> Result<u32, Errno> {
        let Hash {
            table, lru, kind, ..
        } = self;
        let lru = lru.as_mut().filter(|_| !cx.fails).ok_or(Errno::ENOMEM)?;
        let values = if *kind == Kind::PerCpu { cx.cpus } else { 1 } as u64;
        let freed = &mut *cx.freed;
        let slot = lru.pop(cx.cpu.at(), &mut |victim| {
            let there = table.unlink(victim);
            if there {
                let first = table.value_at(victim);
                freed.extend((0..values).map(|cpu| first + cpu * table.value));
            }
            there
        });
        let slot = slot.ok_or(Errno::ENOMEM)?;
        table.set_key(cx.mem, slot, hash, key)?;
        Ok(slot)
    }

    /// `htab_lru_map_update_elem`: takes its element, evicting if it must, before it looks at
    /// the flags.
    pub(super) fn update_lru(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let hash = self.table.hash(key);
        let slot = self.pop_lru(cx, hash, key)?;
        copy_value(cx.mem, cx.fields, self.table.value_at(slot), value)?;
        let old = self.table.find(cx.mem, hash, key);
        if let Err(errno) = Self::check_flags(old.is_some(), flags) {
            self.give(cx, slot);
            return Err(errno);
        }
        self.table.link(slot);
        if let Some(old) = old {
            if let Some(lru) = &mut self.lru {
                lru.set_ref(slot);
            }
            self.table.unlink(old);
            self.give(cx, old);
        }
        Ok(())
    }

    /// `__htab_lru_percpu_map_update_elem`
    pub(super) fn update_lru_percpu(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let hash = self.table.hash(key);
        let new = match flags {
            update::EXIST => None,
            _ => Some(self.pop_lru(cx, hash, key)?),
        };
        let old = self.table.find(cx.mem, hash, key);
        let result = Self::check_flags(old.is_some(), flags);
        match (result, old, new) {
            (Ok(()), None, Some(new)) => {
                self.fill_percpu(cx, new, value)?;
                self.table.link(new);
                return Ok(());
            }
            (Ok(()), Some(old), _) => {
                if let Some(lru) = &mut self.lru {
                    lru.set_ref(old);
                }
                cx.write_percpu(self.table.value_at(old), value)?;
            }
            _ => {}
        }
        // Its fields are not freed here: it was in no bucket.
        if let (Some(new), Some(lru)) = (new, &mut self.lru) {
            lru.push(new);
        }
        result
    }

    /// `htab_map_update_elem_in_place`: per-CPU values and inner maps stay where they are.
    pub(super) fn update_in_place(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let hash = self.table.hash(key);
        let old = self.table.find(cx.mem, hash, key);
        Self::check_flags(old.is_some(), flags)?;
        if let Some(old) = old {
            let at = self.table.value_at(old);
            return match self.kind {
                Kind::PerCpu => cx.write_percpu(at, value),
                _ => store(cx.mem, at, value),
            };
        }
        let slot = self.take(cx, false)?;
        let at = self.table.set_key(cx.mem, slot, hash, key)?;
        match self.kind {
            Kind::PerCpu => self.fill_percpu(cx, slot, value)?,
            _ => store(cx.mem, at, value)?,
        }
        self.table.link(slot);
        Ok(())
    }

    /// `pcpu_init_value`: a program sets its CPU's value, the other CPUs' are zero.
    fn fill_percpu(&self, cx: &mut Cx<'_>, slot: u32, value: &[u8]) -> Result<(), Errno> {
        let first = self.table.value_at(slot);
        if cx.user {
            return cx.write_percpu(first, value);
        }
        let zero = vec![0; value.len()];
        for cpu in 0..cx.cpus {
            let value = if cpu == cx.cpu.0 { value } else { &zero };
            let at = first + cpu as u64 * self.table.value;
            copy_value(cx.mem, cx.fields, at, value)?;
        }
        Ok(())
    }

    /// `htab_map_update_elem`
    pub(super) fn update_plain(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let hash = self.table.hash(key);
        if flags & update::LOCK != 0 && !cx.fields.has_spin_lock() {
            return Err(Errno::EINVAL);
        }
        let old = self.table.find(cx.mem, hash, key);
        Self::check_flags(old.is_some(), flags)?;
        if let (Some(old), true) = (old, flags & update::LOCK != 0) {
            return copy_value(cx.mem, cx.fields, self.table.value_at(old), value);
        }
        let spare = &mut self.per_cpu[cx.cpu.at()].spare;
        let slot = match (old, *spare) {
            (Some(old), Some(new)) if self.prealloc => {
                *spare = Some(old);
                new
            }
            _ => self.take(cx, old.is_some())?,
        };
        let at = self.table.set_key(cx.mem, slot, hash, key)?;
        copy_value(cx.mem, cx.fields, at, value)?;
        self.table.link(slot);
        if let Some(old) = old {
            self.table.unlink(old);
            if self.prealloc {
                self.free_fields(cx, old);
            } else {
                self.give(cx, old);
            }
        }
        Ok(())
    }

    /// `__dev_map_hash_update_elem`, `sock_hash_update_common`: the caller has made sure that
    /// the device or socket exists.
    pub(super) fn update_handle(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let hash = self.table.hash(key);
        let old = self.table.find(cx.mem, hash, key);
        // A device's key may be missing whatever the flags say.
        let mask = if self.kind == Kind::Devmap {
            update::NOEXIST
        } else {
            u64::MAX
        };
        Self::check_flags(old.is_some(), flags & mask)?;
        let slot = self.take(cx, old.is_some())?;
        let at = self.table.set_key(cx.mem, slot, hash, key)?;
        store(cx.mem, at, value)?;
        if let Some(old) = old {
            self.table.unlink(old);
            self.give(cx, old);
        }
        self.table.link(slot);
        Ok(())
    }
}

/// Writes a value without special fields.
fn store(mem: &mut GuestMem, at: u64, value: &[u8]) -> Result<(), Errno> {
    let to = mem.slice_mut(at, value.len() as u64);
    to.ok_or(Errno::ENOMEM)?.copy_from_slice(value);
    Ok(())
}
