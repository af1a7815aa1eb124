//! Maps of the running kernel.
#![allow(unsafe_code)] // the kernel takes lengths from the map: who calls has to have checked them

use std::os::fd::{AsRawFd, OwnedFd};

use bpfsim_abi::{Errno, MapType};

use crate::sys::{self, Batch, Cmd};

/// What map to make (`BPF_MAP_CREATE`).
#[derive(Clone, Copy, Debug)]
pub struct MapSpec<'a> {
    /// `enum bpf_map_type`, also numbers that have no name here.
    pub map_type: u32,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// How many.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// `map_extra`.
    pub map_extra: u64,
    /// `numa_node`, if `BPF_F_NUMA_NODE` is set.
    pub numa_node: u32,
    /// A map like those that it will hold.
    pub inner: Option<&'a Map>,
    /// At most 15 bytes of it are given.
    pub name: &'a str,
    /// BTF descriptor, key's type and value's type.
    pub btf: Option<(i32, u32, u32)>,
}

impl MapSpec<'_> {
    /// A map without flags and without BTF.
    pub fn new(map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> Self {
        MapSpec {
            map_type: map_type.number(),
            key_size,
            value_size,
            max_entries,
            map_flags: 0,
            map_extra: 0,
            numa_node: 0,
            inner: None,
            name: "",
            btf: None,
        }
    }
}

/// Key and value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A map that this process made.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key_size: usize,
    /// Bytes that a lookup gives: all CPUs' values for a per-CPU map.
    value_len: usize,
}

/// The name as the kernel takes it: 15 bytes and a NUL.
pub(super) fn kernel_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    out
}

impl Map {
    pub(super) fn create(spec: &MapSpec<'_>, possible_cpus: usize) -> Result<Map, Errno> {
        let (btf_fd, btf_key_type_id, btf_value_type_id) = spec.btf.unwrap_or_default();
        let fd = sys::map_create(&mut sys::MapCreate {
            map_type: spec.map_type,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            map_flags: spec.map_flags,
            inner_map_fd: spec.inner.map_or(0, Map::fd),
            numa_node: spec.numa_node,
            map_name: kernel_name(spec.name),
            btf_fd,
            btf_key_type_id,
            btf_value_type_id,
            map_extra: spec.map_extra,
            ..Default::default()
        })?;
        let value_size = spec.value_size as usize;
        let value_len = match MapType::from_u32(spec.map_type) {
            Some(
                MapType::PercpuHash
                | MapType::PercpuArray
                | MapType::LruPercpuHash
                | MapType::PercpuCgroupStorage,
            ) => value_size.next_multiple_of(8) * possible_cpus,
            _ => value_size,
        };
        let key_size = spec.key_size as usize;
        Ok(Map {
            fd,
            key_size,
            value_len,
        })
    }

    /// Opens a map that somebody keeps, by its id (`BPF_MAP_GET_FD_BY_ID`). Only for ids that
    /// [`Map::id`] gave.
    ///
    /// # Errors
    /// The kernel's.
    pub fn by_id(id: u32, key_size: usize, value_len: usize) -> Result<Map, Errno> {
        let fd = sys::map_by_id(id)?;
        Ok(Map {
            fd,
            key_size,
            value_len,
        })
    }

    /// Its descriptor, for an instruction of `BPF_PSEUDO_MAP_FD`.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// What the kernel would read beyond: it takes lengths from the map alone.
    fn check(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
        let value_fits = value.is_none_or(|v| v.len() == self.value_len);
        match key.len() == self.key_size && value_fits {
            true => Ok(()),
            false => Err(Errno::EINVAL),
        }
    }

    fn get(&self, cmd: Cmd, key: &[u8]) -> Result<Vec<u8>, Errno> {
        self.check(key, None)?;
        let mut value = vec![0; self.value_len];
        // SAFETY: `key` was checked, and `value` is as large as the kernel makes it.
        unsafe { sys::map_lookup(cmd, self.fd(), key, &mut value, 0) }?;
        Ok(value)
    }

    /// The value of this key; a per-CPU map's values one after another, each rounded up to 8 bytes. The
    /// key of a queue or stack is empty.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for a key of another size.
    pub fn lookup(&self, key: &[u8]) -> Result<Vec<u8>, Errno> {
        self.get(Cmd::MapLookupElem, key)
    }

    /// The value, which is then gone.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn lookup_and_delete(&self, key: &[u8]) -> Result<Vec<u8>, Errno> {
        self.get(Cmd::MapLookupAndDeleteElem, key)
    }

    /// Sets a value; `flags` are `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST` and so on.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for a key or value of another size.
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        self.check(key, Some(value))?;
        // SAFETY: both were checked.
        unsafe { sys::map_update(self.fd(), key, value, flags) }
    }

    /// Removes a key.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for a key of another size.
    pub fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        self.check(key, None)?;
        // SAFETY: `key` was checked.
        unsafe { sys::map_delete(self.fd(), key) }
    }

    /// The key after this one, the first one after none; nothing after the last.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for a key of another size.
    pub fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>, Errno> {
        if let Some(key) = key {
            self.check(key, None)?;
        }
        let mut next = vec![0; self.key_size];
        // SAFETY: `key` was checked, and `next` is as large.
        match unsafe { sys::map_next_key(self.fd(), key, &mut next) } {
            Ok(()) => Ok(Some(next)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Every key and value, in the order of [`Map::next_key`]. For a map that nobody changes
    /// meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn entries(&self) -> Result<Vec<Entry>, Errno> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(key) = self.next_key(entries.last().map(|(key, _)| key.as_slice()))? {
            let value = self.lookup(&key)?;
            entries.push((key, value));
        }
        Ok(entries)
    }

    /// Up to `count` elements from a place that an earlier call gave, and where to go on; no place
    /// is the start, and the end.
    ///
    /// # Errors
    /// The kernel's, but `ENOENT`, with which it ends.
    pub fn lookup_batch(
        &self,
        from: Option<&[u8]>,
        count: u32,
    ) -> Result<(Vec<Entry>, Option<Vec<u8>>), Errno> {
        // A hash map's place is a bucket's number, 4 bytes.
        let place = self.key_size.max(4);
        if from.is_some_and(|from| from.len() != place) {
            return Err(Errno::EINVAL);
        }
        let mut next = vec![0; place];
        let mut keys = vec![0; self.key_size * count as usize];
        let mut values = vec![0; self.value_len * count as usize];
        let batch = Batch {
            from,
            next: &mut next,
            keys: &mut keys,
            values: &mut values,
            count,
            elem_flags: 0,
        };
        // SAFETY: `from` was checked, and the others were made for `count` elements.
        let (done, result) = unsafe { sys::map_batch(Cmd::MapLookupBatch, self.fd(), batch) };
        let next = match result {
            Ok(()) => Some(next),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        let keys = keys.chunks_exact(self.key_size.max(1));
        let values = values.chunks_exact(self.value_len.max(1));
        let pairs = keys.zip(values).take(done as usize);
        Ok((pairs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect(), next))
    }

    /// Sets values from keys and values laid end to end; gives how many.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` where the two do not hold equally many.
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<u32, Errno> {
        let count = keys.len() / self.key_size.max(1);
        if keys.len() != count * self.key_size || values.len() != count * self.value_len {
            return Err(Errno::EINVAL);
        }
        let count = u32::try_from(count).map_err(|_| Errno::E2BIG)?;
        let (mut keys, mut values) = (keys.to_vec(), values.to_vec());
        let next = &mut vec![0; self.key_size.max(4)];
        let batch = Batch {
            from: None,
            next,
            keys: &mut keys,
            values: &mut values,
            count,
            elem_flags: 0,
        };
        // SAFETY: both hold `count` elements, as was checked.
        let (done, result) = unsafe { sys::map_batch(Cmd::MapUpdateBatch, self.fd(), batch) };
        result.map(|()| done)
    }

    /// Forbids user space to write (`BPF_MAP_FREEZE`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn freeze(&self) -> Result<(), Errno> {
        sys::map_freeze(self.fd())
    }

    /// A look-up, or with `delete` one that removes the element, with flags. What `value` holds
    /// before counts for bloom filters only.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` for a key or value of another size.
    pub fn lookup_with(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: u64,
        delete: bool,
    ) -> Result<(), Errno> {
        self.check(key, Some(value))?;
        let cmd = if delete {
            Cmd::MapLookupAndDeleteElem
        } else {
            Cmd::MapLookupElem
        };
        // SAFETY: both were checked.
        unsafe { sys::map_lookup(cmd, self.fd(), key, value, flags) }
    }

    /// A command on many elements as the kernel has it: what it left in user space, and its
    /// answer. For look-ups `keys` and `values` are made as large as `count` asks.
    ///
    /// # Errors
    /// `EINVAL` for keys, values or a place of another size: nothing was asked then.
    pub fn batch(&self, ask: &BatchAsk<'_>) -> Result<BatchAnswer, Errno> {
        let count = ask.count as usize;
        let (mut keys, mut values) = (ask.keys.to_vec(), ask.values.to_vec());
        let cmd = match ask.cmd {
            BatchCmd::Lookup => Cmd::MapLookupBatch,
            BatchCmd::LookupAndDelete => Cmd::MapLookupAndDeleteBatch,
            BatchCmd::Update => Cmd::MapUpdateBatch,
            BatchCmd::Delete => Cmd::MapDeleteBatch,
        };
        if matches!(ask.cmd, BatchCmd::Lookup | BatchCmd::LookupAndDelete) {
            keys = vec![0; count * self.key_size];
            values = vec![0; count * self.value_len];
        }
        let place = self.key_size.max(4);
        let fits = keys.len() == count * self.key_size
            && (ask.cmd == BatchCmd::Delete || values.len() == count * self.value_len)
            && ask.from.is_none_or(|from| from.len() >= place);
        if !fits {
            return Err(Errno::EINVAL);
        }
        // What no place has in the tests.
        let unwritten = vec![0xa5; place];
        let mut next = unwritten.clone();
        let batch = Batch {
            from: ask.from,
            next: &mut next,
            keys: &mut keys,
            values: &mut values,
            count: ask.count,
            elem_flags: ask.elem_flags,
        };
        // SAFETY: all sizes were checked.
        let (count, result) = unsafe { sys::map_batch(cmd, self.fd(), batch) };
        Ok(BatchAnswer {
            count,
            keys,
            values,
            next: (next != unwritten).then_some(next),
            result,
        })
    }

    /// Its id, as look-ups in maps of maps give it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn id(&self) -> Result<u32, Errno> {
        // `struct bpf_map_info`: type, id, ...
        let mut info = [0; 88];
        // SAFETY: no address in it.
        unsafe { sys::object_info(self.fd(), &mut info) }?;
        Ok(u32::from_le_bytes([info[4], info[5], info[6], info[7]]))
    }

    /// Bytes that a look-up gives.
    pub fn value_len(&self) -> usize {
        self.value_len
    }
}

/// A command on many elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BatchCmd {
    Lookup,
    LookupAndDelete,
    Update,
    Delete,
}

/// What a command on many elements is given.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct BatchAsk<'a> {
    pub cmd: BatchCmd,
    /// Where to go on, at least 4 bytes.
    pub from: Option<&'a [u8]>,
    pub keys: &'a [u8],
    pub values: &'a [u8],
    pub count: u32,
    pub elem_flags: u64,
}

/// What a command on many elements left.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct BatchAnswer {
    pub count: u32,
    pub keys: Vec<u8>,
    pub values: Vec<u8>,
    /// The place to go on, if it was written.
    pub next: Option<Vec<u8>>,
    pub result: Result<(), Errno>,
}
