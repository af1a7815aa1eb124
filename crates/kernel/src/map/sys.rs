//! The commands of `bpf(2)` on maps: permissions, flags and descriptors first, as
//! `kernel/bpf/syscall.c` has it, then the map type.

use super::ops::{Bucket, index};
use super::{Map, MapSpec, Op, Owner, Storage, update};
use crate::asynch::Handle;
use crate::ids::{MapId, ProgId, TaskId};
use crate::prog::program_of;
use crate::state::State;
use crate::world::sock_window;
use bpfsim_abi::map::{MapFlags, Ops};
use bpfsim_abi::{AttachType, Errno, MapType, ProgType};
use bpfsim_vm::GuestMem;
use smallvec::SmallVec;

/// Timers whose callbacks the caller must wait for.
pub(crate) type Waits = SmallVec<[Handle; 2]>;

/// A command on many elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchCmd {
    /// `BPF_MAP_LOOKUP_BATCH`
    Lookup,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
    LookupAndDelete,
    /// `BPF_MAP_UPDATE_BATCH`
    Update,
    /// `BPF_MAP_DELETE_BATCH`
    Delete,
}

/// What a command on many elements leaves in user space, also when it fails.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BatchOut {
    /// Keys found, one after another.
    pub keys: Vec<u8>,
    /// Their values.
    pub values: Vec<u8>,
    /// Where to go on, where that was written.
    pub next: Option<Vec<u8>>,
    /// `count`: as it was given, if nothing was begun.
    pub count: u32,
}

/// What the commands on many elements take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub cmd: BatchCmd,
    pub from: Option<&'a [u8]>,
    pub keys: &'a [u8],
    pub values: &'a [u8],
    pub count: u32,
    pub elem_flags: u64,
    pub flags: u64,
}

/// Whether a map's descriptor lets user space read, or write (`map_get_sys_perms`).
fn may(map: &Map, read: bool, write: bool) -> Result<(), Errno> {
    let flags = MapFlags::from_bits_retain(map.spec.flags);
    let no_read = flags.contains(MapFlags::WRONLY);
    let no_write = flags.contains(MapFlags::RDONLY) || map.frozen;
    if (read && no_read) || (write && no_write) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn check_lock(map: &Map, flags: u64) -> Result<(), Errno> {
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

/// Values are numbers of maps or programs, kept as handles.
fn shows_ids(spec: &MapSpec) -> bool {
    matches!(
        spec.map_type,
        MapType::ArrayOfMaps | MapType::HashOfMaps | MapType::ProgArray
    )
}

impl State {
    /// Runs an operation of user space, and frees what it took out of use.
    fn sys<T>(
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

    /// The key as the map type takes it: that of storage which belongs to an object is a
    /// descriptor of the object.
    fn sys_key(&self, map: MapId, key: &[u8]) -> Result<SmallVec<[u8; 16]>, Errno> {
        let spec = &self.maps[map.at()].spec;
        match spec.map_type {
            MapType::TaskStorage => {
                let task = TaskId(index(key));
                let task = self.tasks.get(task.at()).ok_or(Errno::EBADF)?;
                Ok(SmallVec::from_slice(&task.addr.to_le_bytes()))
            }
            MapType::SkStorage | MapType::InodeStorage | MapType::CgrpStorage => {
                let (world, fd) = (&self.world, index(key));
                let owner = match spec.map_type {
                    MapType::SkStorage => world.socks[world.sock_of(fd)?.at()].addr,
                    MapType::InodeStorage => world.files[world.file_of(fd)?.at()].inode,
                    _ => world.cgroups[world.cgroup_of(fd)?.at()].addr,
                };
                Ok(SmallVec::from_slice(&owner.to_le_bytes()))
            }
            _ => Ok(SmallVec::from_slice(key)),
        }
    }

    /// What a value from user space stands for, where it names something by descriptor.
    fn handle(&mut self, map: MapId, key: &[u8], value: &[u8]) -> Result<u64, Errno> {
        let number = |at: usize| {
            let word = value.get(at..at + 4).and_then(|w| w.try_into().ok());
            word.map_or(0, u32::from_le_bytes)
        };
        let m = &self.maps[map.at()];
        match m.spec.map_type {
            MapType::ArrayOfMaps | MapType::HashOfMaps => {
                let inner = self.maps.get(MapId(number(0)).at()).ok_or(Errno::EBADF)?;
                let fits = m.inner.as_ref().is_some_and(|i| i.permits(inner));
                fits.then_some(inner.addr).ok_or(Errno::EINVAL)
            }
            MapType::ProgArray => self.tail_call_target(map, number(0)),
            MapType::PerfEventArray => {
                // The event that records what happens on this CPU.
                let cpu = number(0);
                let there = (cpu as usize) < self.cpus.len();
                there.then_some(cpu as u64 + 1).ok_or(Errno::EBADF)
            }
            MapType::Devmap | MapType::DevmapHash => {
                let (ifindex, prog) = (number(0), number(4));
                if ifindex == 0 && m.spec.map_type == MapType::Devmap && prog as i32 <= 0 {
                    return Ok(0);
                }
                self.world.netdev(ifindex).ok_or(Errno::EINVAL)?;
                let prog = self.value_program(map, prog, AttachType::XdpDevmap);
                Ok(ifindex as u64 | prog.ok_or(Errno::EINVAL)? << 32)
            }
            MapType::Cpumap => {
                let (qsize, prog) = (number(0), number(4));
                if qsize > 16384 {
                    return Err(Errno::EOVERFLOW);
                }
                if index(key) as usize >= self.cpus.len() {
                    return Err(Errno::ENODEV);
                }
                if qsize == 0 {
                    return Ok(0);
                }
                let prog = self.value_program(map, prog, AttachType::XdpCpumap);
                Ok(qsize as u64 | prog.ok_or(Errno::ENOMEM)? << 32)
            }
            MapType::Sockmap | MapType::Sockhash | MapType::ReuseportSockarray => {
                let wide = value.len() == 8 && number(4) != 0;
                let negative = number(0) > i32::MAX as u32
                    && (value.len() == 8 || m.spec.map_type != MapType::ReuseportSockarray);
                if wide || negative {
                    return Err(Errno::EINVAL);
                }
                let sock = self.world.sock_of(number(0))?;
                if m.spec.map_type != MapType::ReuseportSockarray {
                    self.world.fits_map(sock)?;
                } else if !self.world.socks[sock.at()].spec.reuseport {
                    // `reuseport_array_update_check`: it must be in a group.
                    return Err(Errno::EINVAL);
                }
                Ok(sock_window(sock))
            }
            MapType::CgroupArray => {
                let cgroup = self.world.cgroup_of(number(0))?;
                Ok(cgroup.0 as u64 + 1)
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// `prog_fd_array_get_ptr`: all programs of an array are of one type.
    fn tail_call_target(&mut self, map: MapId, number: u32) -> Result<u64, Errno> {
        let prog = program_of(number).filter(|&prog| self.prog_fd_open(prog));
        let prog = prog.ok_or(Errno::EBADF)?;
        match self.map_takes(map, prog) {
            true => Ok(number.into()),
            false => Err(Errno::EINVAL),
        }
    }

    /// `bpf_prog_map_compatible`: all programs that are in a map, or use it, are alike.
    pub fn map_takes(&mut self, map: MapId, prog: ProgId) -> bool {
        let (m, prog) = (&mut self.maps[map.at()], &self.progs[prog.at()]);
        let like = Owner {
            prog_type: prog.prog_type,
            xdp_frags: prog.xdp_frags,
        };
        m.dirty |= m.owner.is_none();
        *m.owner.get_or_insert(like) == like
    }

    /// The program of a value for devices or CPUs: 0 for none.
    fn value_program(&mut self, map: MapId, fd: u32, made_for: AttachType) -> Option<u64> {
        if fd as i32 <= 0 {
            return Some(0);
        }
        let prog = program_of(fd).filter(|&prog| self.prog_fd_open(prog))?;
        let meta = &self.progs[prog.at()];
        let fits = meta.prog_type == ProgType::Xdp && meta.attach_type == made_for;
        (fits && self.map_takes(map, prog)).then_some(fd.into())
    }

    /// Values as user space sees them: numbers instead of handles.
    fn shown(&self, map: MapId, value: Vec<u8>) -> Vec<u8> {
        let spec = &self.maps[map.at()].spec;
        if self.maps[map.at()].holds_socks() {
            let handle = value.try_into().map_or(0, u64::from_le_bytes);
            let sock = self
                .world
                .sock_at(handle)
                .map(|s| &self.world.socks[s.at()]);
            return sock.map_or(0, |s| s.cookie).to_le_bytes().to_vec();
        }
        if !shows_ids(spec) {
            return value;
        }
        let handle = value.try_into().map_or(0, u64::from_le_bytes);
        let id = match spec.map_type {
            MapType::ProgArray => handle as u32,
            _ => self.map_at(handle).map_or(u32::MAX, |id| id.0),
        };
        id.to_le_bytes().to_vec()
    }

    /// `bpf_map_copy_value`
    fn copy_value(&mut self, mem: &mut GuestMem, map: MapId, key: &[u8]) -> Result<Vec<u8>, Errno> {
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
    fn update_value(
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

    fn delete_key(
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

    /// `bpf_map_do_batch`
    pub fn sys_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        batch: &Batch<'_>,
    ) -> (BatchOut, Result<(), Errno>, Waits) {
        let mut out = BatchOut {
            count: batch.count,
            ..BatchOut::default()
        };
        let mut waits = Waits::new();
        let result = self.batch(mem, map, batch, &mut out, &mut waits);
        (out, result, waits)
    }

    fn batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let m = &self.maps[map.at()];
        let (op, reads, writes) = match b.cmd {
            BatchCmd::Lookup => (Ops::LOOKUP_BATCH, true, false),
            BatchCmd::LookupAndDelete => (Ops::LOOKUP_DELETE_BATCH, true, true),
            BatchCmd::Update => (Ops::UPDATE_BATCH, false, true),
            BatchCmd::Delete => (Ops::DELETE_BATCH, false, true),
        };
        may(m, reads, writes)?;
        let rule = m.spec.map_type.rule();
        if !rule.is_some_and(|r| r.ops.contains(op)) {
            return Err(Errno::ENOTSUPP);
        }
        if b.elem_flags & !update::LOCK != 0 {
            return Err(Errno::EINVAL);
        }
        check_lock(m, b.elem_flags)?;
        let by_bucket = reads && matches!(m.storage, Storage::Hash(_));
        if by_bucket && b.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if b.count == 0 {
            return Ok(());
        }
        out.count = 0;
        match b.cmd {
            BatchCmd::Update | BatchCmd::Delete => self.write_batch(mem, map, b, out, waits),
            _ if by_bucket => self.bucket_batch(mem, map, b, out, waits),
            _ => self.lookup_batch(mem, map, b, out),
        }
    }

    /// `generic_map_update_batch`, `generic_map_delete_batch`
    fn write_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let key_size = self.maps[map.at()].spec.key_size as usize;
        let value_size = self.sys_value_size(map);
        let nth = |all, i: usize, size: usize| -> Result<_, Errno> {
            let all: &[u8] = all;
            let start = i.checked_mul(size).ok_or(Errno::EFAULT)?;
            all.get(start..start + size).ok_or(Errno::EFAULT)
        };
        for i in 0..b.count {
            let key = nth(b.keys, i as usize, key_size)?;
            let (result, more) = if b.cmd == BatchCmd::Update {
                let value = nth(b.values, i as usize, value_size)?;
                self.update_value(mem, map, key, value, b.elem_flags)
            } else {
                self.delete_key(mem, map, key)
            };
            waits.extend(more);
            result?;
            out.count += 1;
        }
        Ok(())
    }

    /// `generic_map_lookup_batch`
    fn lookup_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
    ) -> Result<(), Errno> {
        let mut before = b.from.map(<[u8]>::to_vec);
        let (mut done, mut result) = (0, Ok(()));
        while done < b.count {
            let key = match self.maps[map.at()].next_key(mem, before.as_deref()) {
                Ok(key) => key,
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            };
            match self.copy_value(mem, map, &key) {
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
                Ok(value) => {
                    out.keys.extend(&key);
                    out.values.extend(value);
                    done += 1;
                }
            }
            before = Some(key);
        }
        out.count = done;
        if done > 0 {
            out.next = before;
        }
        result
    }

    /// `__htab_map_lookup_and_delete_batch`: whole buckets, from that of number `from`.
    fn bucket_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let mut bucket = b
            .from
            .map_or(0, |f| f.first_chunk().map_or(0, |&n| u32::from_le_bytes(n)));
        let delete = b.cmd == BatchCmd::LookupAndDelete;
        let mut total = 0;
        let mut first = true;
        let result = loop {
            let mut found = Err(Bucket::None);
            let (_, more) = self.sys(mem, map, |m, op| {
                let (ops, mut cx) = m.parts(op);
                found = ops.bucket(&mut cx, bucket, b.count - total, delete);
                Ok(())
            });
            waits.extend(more);
            let elems = match found {
                // A place beyond the end is told before anything is written.
                Err(Bucket::None) if first => return Err(Errno::ENOENT),
                Err(Bucket::None) => break Err(Errno::ENOENT),
                Err(Bucket::Full) if total == 0 => break Err(Errno::ENOSPC),
                Err(Bucket::Full) => break Ok(()),
                Err(Bucket::Failed(errno)) => return Err(errno),
                Ok(elems) => elems,
            };
            first = false;
            total += elems.len() as u32;
            for (key, value) in elems {
                out.keys.extend(key);
                out.values.extend(self.shown(map, value));
            }
            let next = match &self.maps[map.at()].storage {
                Storage::Hash(h) => h.next_bucket(bucket + 1),
                _ => bucket + 1,
            };
            bucket = next;
        };
        out.next = Some(bucket.to_le_bytes().to_vec());
        out.count = total;
        result
    }
}
