//! What a map type can be asked: `struct bpf_map_ops` as a trait.

use super::{MapSpec, Place, value_for_user};
use crate::field::Fields;
use crate::ids::Cpu;
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;

/// Value addresses of elements that an operation took out of use, or whose fields it must reset.
pub(crate) type Freed = smallvec::SmallVec<[u64; 2]>;

/// An operation's surroundings, and what it leaves behind.
pub(crate) struct Op<'a> {
    pub mem: &'a mut GuestMem,
    /// The CPU that it is made on, and how many there are.
    pub cpu: Cpu,
    pub cpus: u32,
    /// Made by a system call, not by a program.
    pub user: bool,
    /// Its allocations find no memory.
    pub fails: bool,
    /// Elements whose special fields the caller must free.
    pub freed: Freed,
}

/// An operation on one map.
pub(crate) struct Cx<'a> {
    pub mem: &'a mut GuestMem,
    pub cpu: Cpu,
    pub cpus: u32,
    pub user: bool,
    pub fails: bool,
    pub freed: &'a mut Freed,
    pub spec: &'a MapSpec,
    pub fields: &'a Fields,
}

impl Cx<'_> {
    /// `round_up(value_size, 8)`: what a per-CPU value takes.
    pub fn stride(&self) -> usize {
        self.spec.value_size.next_multiple_of(8) as usize
    }

    /// The values of all CPUs, each rounded up to 8 bytes; `first` is CPU 0's address.
    pub fn percpu_for_user(&mut self, first: u64) -> Result<Vec<u8>, Errno> {
        let stride = self.stride() as u64;
        let mut all = Vec::with_capacity(self.cpus as usize * stride as usize);
        for cpu in 0..self.cpus as u64 {
            all.extend(value_for_user(
                self.mem,
                self.fields,
                first + cpu * stride,
                stride,
            )?);
        }
        Ok(all)
    }

    /// Writes a per-CPU element: from user space the values of all CPUs, from a program this
    /// CPU's (`pcpu_copy_value`). What the values held is freed.
    pub fn write_percpu(&mut self, first: u64, value: &[u8]) -> Result<(), Errno> {
        let stride = self.stride();
        let on = |cpu: u32| first + (cpu as usize * stride) as u64;
        if !self.user {
            let at = on(self.cpu.0);
            super::copy_value(self.mem, self.fields, at, value)?;
            self.freed.push(at);
            return Ok(());
        }
        for (cpu, value) in (0..self.cpus).zip(value.chunks_exact(stride)) {
            super::copy_value(self.mem, self.fields, on(cpu), value)?;
            self.freed.push(on(cpu));
        }
        Ok(())
    }
}

/// Operations of a map type. What a type does not have answers as Linux does for most types
/// without it; the others say so themselves.
pub(crate) trait MapOps {
    /// The value's address on `cx.cpu`.
    fn lookup(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Option<u64> {
        None
    }

    /// The value as user space gets it (`bpf_map_copy_value`).
    fn copy(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let at = self.lookup(cx, key).ok_or(Errno::ENOENT)?;
        value_for_user(cx.mem, cx.fields, at, cx.spec.value_size as u64)
    }

    /// In the value of a type that holds descriptors, what the descriptor stands for is given.
    fn update(&mut self, _: &mut Cx<'_>, _: &[u8], _: &[u8], _: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// What is wrong with an update from user space before the descriptor in it is looked at.
    fn check_update(
        &self,
        _: &GuestMem,
        _key: &[u8],
        _value: &[u8],
        _flags: u64,
    ) -> Result<(), Errno> {
        Ok(())
    }

    fn delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` of a map with keys.
    fn copy_delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOTSUPP)
    }

    fn push(&mut self, _: &mut Cx<'_>, _: &[u8], _: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Peeks, or with `delete` pops.
    fn take(&mut self, _: &mut Cx<'_>, _: &mut [u8], _delete: bool) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn next_key(
        &self,
        mem: &GuestMem,
        spec: &MapSpec,
        key: Option<&[u8]>,
    ) -> Result<Vec<u8>, Errno>;

    /// `map_for_each_callback`: the element after this one.
    fn after(&self, _: &GuestMem, _: Cpu, _: Option<Place>) -> Option<Place> {
        None
    }

    fn key_addr(&self, _value: u64) -> Option<u64> {
        None
    }

    /// Start of the value that an address lies in, or would lie in were values longer.
    fn value_around(&self, _addr: u64) -> Option<u64> {
        None
    }

    /// True for memory that changes hands with an element: its value, and its key where programs
    /// see that in place.
    fn owns(&self, addr: u64) -> bool {
        self.value_around(addr).is_some()
    }

    fn len(&self) -> u32 {
        0
    }

    fn values(&self) -> Vec<u64> {
        Vec::new()
    }

    /// The elements of one bucket, for the batches of hash maps: keys and values, and with
    /// `delete` they are gone. `Err` gives how many there are where that is more than `most`.
    fn bucket(
        &mut self,
        _: &mut Cx<'_>,
        _bucket: u32,
        _most: u32,
        _delete: bool,
    ) -> Result<Vec<Entry>, Bucket> {
        Err(Bucket::None)
    }
}

/// Key and value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Why a bucket's elements were not given.
pub(crate) enum Bucket {
    /// There is no such bucket.
    None,
    /// It holds more elements than asked for.
    Full,
    /// Something else failed.
    Failed(Errno),
}

/// `array_map_get_next_key`
pub(crate) fn next_index(max_entries: u32, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
    let next = match index(key.unwrap_or(&u32::MAX.to_le_bytes())) {
        last if last == max_entries.wrapping_sub(1) => return Err(Errno::ENOENT),
        i if i >= max_entries => 0,
        i => i + 1,
    };
    Ok(next.to_le_bytes().to_vec())
}

/// An array's key.
pub(crate) fn index(key: &[u8]) -> u32 {
    key.try_into().map_or(u32::MAX, u32::from_le_bytes)
}
