//! A map, from user space.

use crate::setup::Write;
use crate::{Error, Result, Sim};
use bpfsim_abi::Errno;
use bpfsim_kernel::{Kernel, MapFd, MapId, MapSpec, PerfRecord, SysOp, SysResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A map in a simulation.
#[derive(Clone)]
pub struct Map {
    sim: Sim,
    id: MapId,
    /// The descriptor that stands for it here, if it is not the one that making it opened.
    fd: Option<MapFd>,
}

impl Map {
    pub(crate) fn new(sim: Sim, id: MapId) -> Map {
        Map::opened(sim, id, None)
    }

    pub(crate) fn opened(sim: Sim, id: MapId, fd: Option<MapFd>) -> Map {
        Map { sim, id, fd }
    }

    /// Its identity, as events name it.
    pub fn id(&self) -> MapId {
        self.id
    }

    /// Its shape and types.
    pub fn spec(&self) -> MapSpec {
        self.sim.map_spec(self.id)
    }

    /// Number of elements; of an array all of them.
    pub fn len(&self) -> u32 {
        self.sim.kernel().map_len(self.id)
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn sim(&self) -> &Sim {
        &self.sim
    }

    pub(crate) fn refused(&self, op: &'static str) -> impl FnOnce(Errno) -> Error {
        let map = self.spec().name;
        move |errno| Error::Map { map, op, errno }
    }

    /// `BPF_MAP_LOOKUP_ELEM` in bytes; `None` where there is no such key.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.sim.kernel_mut().map_lookup(self.id, key);
        match found {
            Err(Errno::ENOENT) => Ok(None),
            other => other.map(Some).map_err(self.refused("BPF_MAP_LOOKUP_ELEM")),
        }
    }

    /// `BPF_MAP_UPDATE_ELEM` in bytes; flags as in [`update`](crate::update).
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<()> {
        let op = SysOp::MapUpdate {
            map: self.id,
            key: key.to_vec(),
            value: value.to_vec(),
            flags,
        };
        let done = self.sim.syscall(&op)?.done();
        done.map_err(self.refused("BPF_MAP_UPDATE_ELEM"))
    }

    /// `BPF_MAP_DELETE_ELEM` in bytes.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        let op = SysOp::MapDelete {
            map: self.id,
            key: key.to_vec(),
        };
        let done = self.sim.syscall(&op)?.done();
        done.map_err(self.refused("BPF_MAP_DELETE_ELEM"))
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` in bytes.
    pub fn lookup_and_delete(&self, key: &[u8]) -> Result<Vec<u8>> {
        let op = SysOp::MapLookupDelete {
            map: self.id,
            key: key.to_vec(),
        };
        match self.sim.syscall(&op)? {
            SysResult::Value(value) => Ok(value),
            other => {
                let errno = other.done().err().unwrap_or(Errno::EINVAL);
                Err(self.refused("BPF_MAP_LOOKUP_AND_DELETE_ELEM")(errno))
            }
        }
    }

    /// The value of a key.
    pub fn get<K: IntoBytes + Immutable, V: FromBytes>(&self, key: &K) -> Result<Option<V>> {
        let Some(value) = self.lookup(key.as_bytes())? else {
            return Ok(None);
        };
        let fits = V::read_from_bytes(&value).map_err(|_| Error::Size {
            what: format!("value of map `{}`", self.spec().name),
            want: value.len(),
            got: size_of::<V>(),
        });
        fits.map(Some)
    }

    /// Sets the value of a key.
    pub fn set<K, V>(&self, key: &K, value: &V) -> Result<()>
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        self.update(key.as_bytes(), value.as_bytes(), crate::update::ANY)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` in bytes; `None` where there is no such key.
    pub fn take(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.sim.kernel_mut().map_lookup_and_delete(self.id, key, 0);
        match found {
            Err(Errno::ENOENT) => Ok(None),
            other => other
                .map(Some)
                .map_err(self.refused("BPF_MAP_LOOKUP_AND_DELETE_ELEM")),
        }
    }

    /// Puts a value into a queue, a stack or a bloom filter.
    pub fn push(&self, value: &[u8], flags: u64) -> Result<()> {
        self.update(&[], value, flags)
    }

    /// Takes the next value out of a queue or a stack.
    pub fn pop(&self) -> Result<Option<Vec<u8>>> {
        self.take(&[])
    }

    /// True when a bloom filter may have this value.
    pub fn may_contain(&self, value: &[u8]) -> Result<bool> {
        Ok(self.lookup(value)?.is_some())
    }

    /// The values of all CPUs of a key in a per-CPU map.
    pub fn percpu(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        let spec = self.spec();
        let size = spec.value_size as usize;
        let all = self.lookup(key)?;
        Ok(all.map(|all| {
            let each = all.chunks_exact(size.next_multiple_of(8));
            each.map(|value| value[..size].to_vec()).collect()
        }))
    }

    /// Takes all complete records out of a ring buffer.
    pub fn records(&self) -> Result<Vec<Vec<u8>>> {
        let mut records = Vec::new();
        loop {
            let next = self.sim.kernel_mut().ringbuf_read(self.id);
            match next.map_err(self.refused("read of the ring buffer"))? {
                Some(record) => records.push(record),
                None => return Ok(records),
            }
        }
    }

    /// Puts a sample into a user ring buffer.
    pub fn write_record(&self, sample: &[u8]) -> Result<()> {
        let done = self.sim.kernel_mut().user_ringbuf_write(self.id, sample);
        done.map_err(self.refused("write to the ring buffer"))
    }

    /// Opens a perf event for each CPU in a perf event array.
    pub fn perf_open(&self) -> Result<()> {
        let done = self.sim.kernel_mut().perf_open(self.id);
        done.map_err(self.refused("opening of perf events"))
    }

    /// Takes all samples out of the perf ring of a CPU; also how many were lost because there was
    /// no room, as far as records say so. [`PerfBuffer`](crate::PerfBuffer) tells where.
    pub fn perf_records(&self, cpu: u32) -> Result<(Vec<Vec<u8>>, u64)> {
        let (mut records, mut lost) = (Vec::new(), 0);
        loop {
            let next = self.sim.kernel_mut().perf_read(self.id, cpu);
            match next.map_err(self.refused("read of the perf ring"))? {
                Some(PerfRecord::Sample(sample)) => records.push(sample),
                Some(PerfRecord::Lost(n)) => lost += n,
                None => return Ok((records, lost)),
            }
        }
    }

    /// `BPF_MAP_FREEZE`: user space can write no more.
    pub fn freeze(&self) -> Result<()> {
        let done = self.sim.kernel_mut().map_freeze(self.id);
        done.map_err(self.refused("BPF_MAP_FREEZE"))
    }

    /// All keys, in the order in which Linux iterates over them.
    pub fn keys(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let next = |key: Option<&[u8]>| self.sim.kernel().map_next_key(self.id, key).ok();
        std::iter::successors(next(None), move |key| next(Some(key)))
    }

    /// All keys and values.
    pub fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.first_entries(usize::MAX)
    }

    /// The first `n` keys and values: a map made by somebody else can be larger than memory.
    pub fn first_entries(&self, n: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        for key in self.keys().take(n) {
            if let Some(value) = self.lookup(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    /// The descriptor that loading the object opened.
    pub fn fd(&self) -> MapFd {
        self.fd.unwrap_or_else(|| self.sim.kernel().map_fd(self.id))
    }

    /// Closes the descriptor that loading the object opened, once. With the last user reference
    /// the timers, works and task works in its elements go.
    pub fn close(&self) -> Result<()> {
        self.close_fd(self.fd())
    }

    /// Closes a descriptor of the map.
    pub fn close_fd(&self, fd: MapFd) -> Result<()> {
        let done = self.sim.syscall(&SysOp::MapClose(fd))?.done();
        done.map_err(self.refused("close"))
    }

    /// Opens the map again by its id (`BPF_MAP_GET_FD_BY_ID`): one user reference more.
    pub fn open(&self) -> Result<MapFd> {
        self.made_fd(&SysOp::MapOpen(self.id), "BPF_MAP_GET_FD_BY_ID")
    }

    /// `dup(2)`: another descriptor without a user reference of its own.
    pub fn dup(&self, fd: MapFd) -> Result<MapFd> {
        self.made_fd(&SysOp::MapDup(fd), "dup")
    }

    fn made_fd(&self, op: &SysOp, name: &'static str) -> Result<MapFd> {
        match self.sim.syscall(op)? {
            SysResult::Fd(fd) => Ok(fd),
            other => {
                let errno = other.done().err().unwrap_or(Errno::EINVAL);
                Err(self.refused(name)(errno))
            }
        }
    }

    /// Pins the map to a BPF file system (`BPF_OBJ_PIN`): a user reference.
    pub fn pin(&self) -> Result<()> {
        let done = self.sim.syscall(&SysOp::MapPin(self.id))?.done();
        done.map_err(self.refused("BPF_OBJ_PIN"))
    }

    /// Removes a pin.
    pub fn unpin(&self) -> Result<()> {
        let done = self.sim.syscall(&SysOp::MapUnpin(self.id))?.done();
        done.map_err(self.refused("unlink"))
    }

    /// True until nothing refers to the map any more: no descriptor, pin or program.
    pub fn exists(&self) -> bool {
        self.sim.kernel().map_exists(self.id)
    }

    /// The bytes of a global data section.
    pub(crate) fn data(&self) -> Result<Vec<u8>> {
        Ok(self.lookup(&0u32.to_le_bytes())?.unwrap_or_default())
    }

    /// Overwrites part of a global data section.
    pub(crate) fn write_data(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let write = |kernel: &mut Kernel| {
            let done = kernel.write_data(self.id, at, bytes);
            done.map_err(|errno| Error::Map {
                map: kernel.map_spec(self.id).name.clone(),
                op: "write to the section",
                errno,
            })
        };
        self.sim.step(&Write(self.id, at, bytes), write)
    }
}
