//! What user space does with maps.

use super::batch::Batch;
use super::perf::PerfRecord;
use super::{BatchCmd, BatchOut, Map, MapBtf, MapSpec};
use crate::ids::{Cpu, MapId};
use crate::kernel::Kernel;
use bpfsim_abi::{Errno, MapType};
use std::sync::Arc;

impl Kernel {
    /// `BPF_MAP_CREATE`. Descriptors in values and keys are the numbers of maps, programs and
    /// tasks; so are the ids that look-ups give.
    ///
    /// # Errors
    /// Linux's, in its order; `ENOMEM` also where guest memory is used up.
    pub fn map_create(&mut self, spec: MapSpec) -> Result<MapId, Errno> {
        self.make_map(spec, false)
    }

    pub(crate) fn make_map(&mut self, spec: MapSpec, frozen: bool) -> Result<MapId, Errno> {
        // The types of a struct_ops map are the kernel's own (`btf_vmlinux_value_type_id`).
        let foreign = |types: &MapBtf| !Arc::ptr_eq(&types.btf, &self.layouts.btf);
        if spec.map_type == MapType::StructOps && spec.btf.as_ref().is_some_and(foreign) {
            return Err(Errno::EINVAL);
        }
        let template = spec.inner.and_then(|id| self.st.maps.get(id.at()));
        let cpus = self.st.cpus.len() as u32;
        let map = Map::create(&mut self.mem, spec, template, cpus, frozen)?;
        let id = u32::try_from(self.st.maps.len()).map_err(|_| Errno::ENOSPC)?;
        self.layouts.fill_map(&mut self.mem, &map, id);
        self.st.maps.push(map);
        self.st.refs.add_map(MapId(id));
        Ok(MapId(id))
    }

    /// From here on user space runs on this CPU; at first it is CPU 0. Maps take free elements
    /// of the CPU that asks.
    pub fn run_user_on(&mut self, cpu: Cpu) {
        self.st.cur.cpu = Cpu(cpu.0.min(self.st.cpus.len() as u32 - 1));
    }

    /// `BPF_MAP_LOOKUP_ELEM`: a copy of the value, its special fields zero; of a per-CPU map all
    /// CPUs' values, each rounded up to 8 bytes. The key of a queue or stack is empty, that of a
    /// bloom filter the value to look for.
    pub fn map_lookup(&mut self, map: MapId, key: &[u8]) -> Result<Vec<u8>, Errno> {
        self.map_lookup_flags(map, key, 0)
    }

    /// [`Kernel::map_lookup`] with flags.
    pub fn map_lookup_flags(
        &mut self,
        map: MapId,
        key: &[u8],
        flags: u64,
    ) -> Result<Vec<u8>, Errno> {
        self.st.sys_lookup(&mut self.mem, map, key, flags)
    }

    /// `BPF_MAP_UPDATE_ELEM`; flags as in [`update`](super::update). Queues, stacks and bloom
    /// filters take values under an empty key.
    pub fn map_update(
        &mut self,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        self.st.sys_update(&mut self.mem, map, key, value, flags).0
    }

    /// `BPF_MAP_DELETE_ELEM`
    pub fn map_delete(&mut self, map: MapId, key: &[u8]) -> Result<(), Errno> {
        self.st.sys_delete(&mut self.mem, map, key).0
    }

    /// `BPF_MAP_GET_NEXT_KEY`: `ENOENT` after the last.
    pub fn map_next_key(&self, map: MapId, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        self.st.sys_next_key(&self.mem, map, key)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    pub fn map_lookup_and_delete(
        &mut self,
        map: MapId,
        key: &[u8],
        flags: u64,
    ) -> Result<Vec<u8>, Errno> {
        let st = &mut self.st;
        st.sys_lookup_and_delete(&mut self.mem, map, key, flags).0
    }

    /// `BPF_MAP_FREEZE`: user space can write no more.
    pub fn map_freeze(&mut self, map: MapId) -> Result<(), Errno> {
        self.st.sys_freeze(map)
    }

    /// `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: up to `count` elements from
    /// a place that an earlier call gave.
    pub fn map_lookup_batch(
        &mut self,
        map: MapId,
        delete: bool,
        from: Option<&[u8]>,
        count: u32,
        elem_flags: u64,
    ) -> (BatchOut, Result<(), Errno>) {
        let cmd = if delete {
            BatchCmd::LookupAndDelete
        } else {
            BatchCmd::Lookup
        };
        let batch = Batch {
            cmd,
            from,
            keys: &[],
            values: &[],
            count,
            elem_flags,
            flags: 0,
        };
        let (out, result, _) = self.st.sys_batch(&mut self.mem, map, &batch);
        (out, result)
    }

    /// `BPF_MAP_UPDATE_BATCH`, and without values `BPF_MAP_DELETE_BATCH`: how many elements were
    /// done, and why no more.
    pub fn map_write_batch(
        &mut self,
        map: MapId,
        keys: &[u8],
        values: Option<&[u8]>,
        count: u32,
        elem_flags: u64,
    ) -> (u32, Result<(), Errno>) {
        let batch = Batch {
            cmd: match values {
                Some(_) => BatchCmd::Update,
                None => BatchCmd::Delete,
            },
            from: None,
            keys,
            values: values.unwrap_or(&[]),
            count,
            elem_flags,
            flags: 0,
        };
        let (out, result, _) = self.st.sys_batch(&mut self.mem, map, &batch);
        (out.count, result)
    }

    /// Bytes of a value as user space gives and gets it: of a per-CPU map all CPUs' values.
    pub fn map_value_len(&self, map: MapId) -> usize {
        self.st.sys_value_size(map)
    }

    /// The oldest complete record of a ring buffer, taken out (`ring_buffer__consume`).
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn ringbuf_read(&mut self, map: MapId) -> Result<Option<Vec<u8>>, Errno> {
        let rb = self.st.maps[map.at()].ringbuf().ok_or(Errno::EINVAL)?;
        Ok(rb.consume(&self.mem))
    }

    /// How often programs woke up who polls a ring buffer.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn ringbuf_wakeups(&mut self, map: MapId) -> Result<u64, Errno> {
        let rb = self.st.maps[map.at()].ringbuf().ok_or(Errno::EINVAL)?;
        Ok(rb.wakeups)
    }

    /// How many records programs could not put into a ring buffer because there was no room.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn ringbuf_dropped(&mut self, map: MapId) -> Result<u64, Errno> {
        let rb = self.st.maps[map.at()].ringbuf().ok_or(Errno::EINVAL)?;
        Ok(rb.dropped)
    }

    /// Bytes of a ring buffer that wait to be read, as `bpf_ringbuf_query` counts them.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map.
    pub fn ringbuf_unread(&mut self, map: MapId) -> Result<u64, Errno> {
        let rb = self.st.maps[map.at()].ringbuf().ok_or(Errno::EINVAL)?;
        Ok(rb.query(0))
    }

    /// Puts a sample into a user ring buffer (`user_ring_buffer__submit`).
    ///
    /// # Errors
    /// `E2BIG` for a sample that never fits, `ENOSPC` while there is no room, `EINVAL` for
    /// another kind of map.
    pub fn user_ringbuf_write(&mut self, map: MapId, sample: &[u8]) -> Result<(), Errno> {
        let rb = self.st.maps[map.at()].ringbuf().ok_or(Errno::EINVAL)?;
        rb.produce(&mut self.mem, sample)
    }

    /// Opens a perf event for each CPU in a perf event array, as libbpf's `perf_buffer__new`.
    ///
    /// # Errors
    /// Those of [`Kernel::map_update`].
    pub fn perf_open(&mut self, map: MapId) -> Result<(), Errno> {
        let cpus = self.st.cpus.len() as u32;
        for cpu in 0..cpus.min(self.map_spec(map).max_entries) {
            self.map_update(map, &cpu.to_le_bytes(), &cpu.to_le_bytes(), 0)?;
        }
        Ok(())
    }

    /// The oldest record in the ring at an index of a perf event array, taken out.
    ///
    /// # Errors
    /// `EINVAL` for another kind of map, `ENOENT` where no event was opened.
    pub fn perf_read(&mut self, map: MapId, index: u32) -> Result<Option<PerfRecord>, Errno> {
        let perf = self.st.maps[map.at()].perf(index).ok_or(Errno::EINVAL)??;
        Ok(perf.read())
    }
}
