//! Map operations as Linux's other CPUs see them: in how many pieces, under which locks, and
//! what they wait for. Shared by helpers and system calls.

use crate::asynch::{Handle, Slotted};
use crate::checked;
use crate::choose::Wait;
use crate::ids::MapId;
use crate::lock::LockKind;
use crate::map::Waits;
use crate::state::{Pending, State};
use crate::syscall::{F_LOCK, Step};
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::{Access, AccessKind, GuestMem};

/// What is left to do of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Freeing {
    timers: Waits,
    /// Held meanwhile.
    lock: Option<(MapId, LockKind)>,
    result: Result<(), Errno>,
}

/// A value on its way into an element that others see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Copying {
    to: u64,
    /// Bytes that are there.
    done: u32,
    /// The element's `bpf_spin_lock`, with `BPF_F_LOCK`.
    lock: Option<u64>,
    /// It is held.
    locked: bool,
}

/// `map_release_uref`: elements whose fields are freed one after another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FreeingAll {
    map: MapId,
    /// Values to come, last first.
    values: Vec<u64>,
    timer: Option<Handle>,
}

impl State {
    /// `map_update_elem`.
    pub fn map_update_step(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
        user: bool,
    ) -> Step<Result<(), Errno>> {
        match self.cur.op.take() {
            Some(Pending::Free(f)) => return self.freeing(f),
            Some(Pending::Copy(c)) => return self.copying(mem, map, value, c),
            Some(Pending::Lock(wait)) => {
                if let Some(result) = self.lock_given_up(wait, map, key) {
                    return result;
                }
            }
            _ => {}
        }
        if !self.map_locks.is_empty()
            && let Some(held) = self.wait_for_lock(map, key)
        {
            return held;
        }
        if self.explores || flags & F_LOCK != 0 {
            let checked = match user {
                true => self.sys_update_check(map, key, value, flags),
                false => Ok(()),
            };
            if let Err(errno) = checked {
                return Some(Err(errno));
            }
            match self.in_place(mem, map, key, flags) {
                Some(Ok(copy)) => return self.copying(mem, map, value, copy),
                Some(Err(errno)) => return Some(Err(errno)),
                None => {}
            }
        }
        let (result, timers) = match user {
            true => self.sys_update(mem, map, key, value, flags),
            false => self.map_update(mem, map, key, value, flags),
        };
        if timers.is_empty() {
            return Some(result);
        }
        let spec = &self.maps[map.at()].spec;
        let (lru, sparse) = (spec.map_type == MapType::LruHash, spec.flags & 1 != 0);
        // The victim of an LRU map is the element that the key has now.
        let evicted = lru
            && timers.iter().any(|&t| {
                let value = self.timers.get(t).map(|t| t.slot().value);
                value.is_some_and(|v| *self.maps[map.at()].key_of(mem, v) == *key)
            });
        // A preallocated element is freed with its bucket locked, an LRU map's victim with the
        // lists locked.
        let kind = match self.maps[map.at()].spec.map_type {
            MapType::Hash if !sparse => self.bucket(map, key).map(LockKind::Bucket),
            MapType::LruHash if evicted => Some(LockKind::Lru),
            _ => None,
        };
        self.freeing_begin(map, timers, kind, result)
    }

    /// `map_delete_elem`.
    pub fn map_delete_step(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        user: bool,
    ) -> Step<Result<(), Errno>> {
        match self.cur.op.take() {
            Some(Pending::Free(f)) => return self.freeing(f),
            Some(Pending::Lock(wait)) => {
                if let Some(result) = self.lock_given_up(wait, map, key) {
                    return result;
                }
            }
            _ => {}
        }
        if !self.map_locks.is_empty()
            && let Some(held) = self.wait_for_lock(map, key)
        {
            return held;
        }
        let (result, timers) = match user {
            true => self.sys_delete(mem, map, key),
            false => self.map_delete(mem, map, key),
        };
        self.freeing_begin(map, timers, None, result)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    pub fn map_lookup_delete_step(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
    ) -> Step<Result<Vec<u8>, Errno>> {
        let done = match self.cur.op.take() {
            Some(Pending::Free(f)) => self.freeing(f)?,
            _ => {
                let (result, timers) = self.sys_lookup_and_delete(mem, map, key, 0);
                let result = result.map(|value| *self.cur.value = value);
                self.freeing_begin(map, timers, None, result)?
            }
        };
        Some(done.map(|()| std::mem::take(&mut *self.cur.value)))
    }

    /// `Some` where a lock is held that the operation needs: it waits, or fails.
    fn wait_for_lock(&mut self, map: MapId, key: &[u8]) -> Option<Step<Result<(), Errno>>> {
        let bucket = self.bucket(map, key);
        let wait = self.map_lock_wait(map, bucket)?;
        if self.is_over_bucket_lock(map, bucket) {
            return Some(Some(Err(Errno::EDEADLK)));
        }
        self.cur.wait = Some(wait);
        self.cur.op = Some(Pending::Lock(wait));
        Some(None)
    }

    /// A lock was waited for. `Some` when it still is, or the operation failed over it.
    fn lock_given_up(
        &mut self,
        wait: Wait,
        map: MapId,
        key: &[u8],
    ) -> Option<Step<Result<(), Errno>>> {
        let bucket = self.bucket(map, key);
        self.map_lock_wait(map, bucket)?;
        let now = self.cpu().clock;
        if wait.until().is_some_and(|until| now >= until) {
            return Some(Some(Err(Errno::ETIMEDOUT)));
        }
        self.cur.wait = Some(wait);
        self.cur.op = Some(Pending::Lock(wait));
        Some(None)
    }

    fn freeing_begin(
        &mut self,
        map: MapId,
        timers: Waits,
        kind: Option<LockKind>,
        result: Result<(), Errno>,
    ) -> Step<Result<(), Errno>> {
        if timers.is_empty() {
            return Some(result);
        }
        if let Some(kind) = kind {
            self.map_lock(map, kind);
        }
        self.freeing(Freeing {
            timers,
            lock: kind.map(|k| (map, k)),
            result,
        })
    }

    fn freeing(&mut self, f: Freeing) -> Step<Result<(), Errno>> {
        if let Some(wait) = f.timers.iter().find_map(|&t| self.timer_wait(t)) {
            self.cur.wait = Some(wait);
            self.cur.op = Some(Pending::Free(f));
            return None;
        }
        if let Some((map, kind)) = f.lock {
            self.map_unlock(map, kind);
        }
        Some(f.result)
    }

    /// An update that writes into an element where it is: where, or why not. `None` for one that
    /// makes an element.
    fn in_place(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        key: &[u8],
        flags: u64,
    ) -> Option<Result<Copying, Errno>> {
        let (m, mut op) = self.map_op(mem, map);
        let to = m.in_place(&mut op, key, flags)?;
        let at = m.fields.spin_lock().filter(|_| flags & F_LOCK != 0);
        Some(to.map(|to| Copying {
            to,
            done: 0,
            lock: at.map(|o| to + o as u64),
            locked: false,
        }))
    }

    /// `copy_map_value`, or with a lock `copy_map_value_locked`: when exploring, word by word.
    fn copying(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        value: &[u8],
        mut c: Copying,
    ) -> Step<Result<(), Errno>> {
        if let Some(lock) = c.lock.filter(|_| !c.locked) {
            match self.spin_lock(mem, lock) {
                Some(true) => c.locked = true,
                Some(false) => {
                    self.cur.op = Some(Pending::Copy(c));
                    return None;
                }
                None => return Some(Err(Errno::EFAULT)),
            }
        }
        while let Some((at, len)) = self.maps[map.at()].fields.piece(c.done, value.len() as u32) {
            let bytes = &value[at as usize..(at + len) as usize];
            let to = c.to + at as u64;
            let Some(dest) = mem.slice_mut(to, len as u64) else {
                return Some(Err(Errno::ENOMEM));
            };
            dest.copy_from_slice(bytes);
            if c.done == 0 {
                // Those of the other pieces are the access that the execution stops before.
                self.watch_access(&mem.site(), checked::write(to, len), false);
            }
            c.done = at + len;
            let fields = &self.maps[map.at()].fields;
            if let Some((at, len)) = fields.piece(c.done, value.len() as u32)
                && self.explores
            {
                self.cur.visible = Some(Access {
                    addr: c.to + at as u64,
                    size: len as u8,
                    kind: AccessKind::Write,
                });
                self.cur.op = Some(Pending::Copy(c));
                return None;
            }
        }
        if let Some(lock) = c.lock {
            self.touch_memory(lock, 4, AccessKind::Write);
            self.spin_unlock(mem, lock);
        }
        let keeps = self.maps[map.at()].spec.map_type != MapType::Array;
        let timers = match keeps {
            // BPF_F_LOCK on a hash map's element keeps its fields.
            true => Waits::new(),
            false => {
                self.watch_dropped(mem, map, &[c.to]);
                self.free_fields(mem, map, c.to).into_iter().collect()
            }
        };
        self.freeing_begin(map, timers, None, Ok(()))
    }

    /// The last user reference of a map is gone.
    pub fn free_all_begin(&mut self, map: Option<MapId>) {
        let Some(map) = map else { return };
        let mut values = self.maps[map.at()].values();
        values.reverse();
        self.cur.op = Some(Pending::FreeAll(FreeingAll {
            map,
            values,
            timer: None,
        }));
    }

    /// Goes on freeing what [`State::free_all_begin`] noted.
    pub fn free_all_step(&mut self, mem: &mut GuestMem) -> Step<()> {
        let Some(Pending::FreeAll(mut f)) = self.cur.op.take() else {
            return Some(());
        };
        loop {
            if let Some(wait) = f.timer.and_then(|t| self.timer_wait(t)) {
                self.cur.wait = Some(wait);
                self.cur.op = Some(Pending::FreeAll(f));
                return None;
            }
            f.timer = None;
            let Some(value) = f.values.pop() else {
                return Some(());
            };
            f.timer = self.free_armed(mem, f.map, value);
        }
    }

    /// `clock_nanosleep`: sleeps once.
    pub fn sleep_step(&mut self, ns: u64) -> Step<()> {
        let now = self.cpu().clock;
        let until = match self.cur.op.take() {
            Some(Pending::Sleep(until)) => until,
            _ => now.saturating_add(ns),
        };
        if now >= until {
            return Some(());
        }
        self.cur.wait = Some(Wait::Sleep(until));
        self.cur.op = Some(Pending::Sleep(until));
        None
    }

    /// The bucket of a key in a hash map.
    fn bucket(&self, map: MapId, key: &[u8]) -> Option<u32> {
        self.maps[map.at()].bucket(key)
    }
}
