//! Maps: what Linux keeps of them, and the operations that programs and user space share.
//!
//! Values live in guest memory; everything else (buckets, free lists) is the host's own, so
//! that no program can corrupt it. What an operation leaves behind - elements whose special
//! fields must be freed - is returned to the caller, who knows the rest of the kernel.
//!
//! Where things are: [`ops`] is what a map type can be asked (`struct bpf_map_ops`), and each
//! type's file answers; `create` makes maps; `sys` is the system calls' side, `helpers` the
//! programs'.

mod arena;
mod array;
mod batch;
mod bloom;
mod btf;
mod create;
mod fd_array;
mod hash;
pub(crate) mod helpers;
mod jhash;
mod local;
mod lpm;
mod lru;
mod named;
mod ops;
mod paged;
mod perf;
mod queue;
mod ringbuf;
mod stack_trace;
mod struct_ops;
mod sys;
mod table;
mod user;

pub(crate) use arena::Arena;
pub use batch::{BatchCmd, BatchOut};
pub(crate) use btf::{has_types, value_fields};
pub use create::{MapBtf, MapSpec};
pub(crate) use local::CgroupKey;
pub(crate) use ops::{Cx, Freed, MapOps, Op};
pub use perf::PerfRecord;
pub(crate) use ringbuf::{Peek, Ringbuf};
pub use struct_ops::StructOpsMember;
pub(crate) use sys::Waits;

use crate::field::Fields;
use crate::shared::Shared;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType, ProgType};
use bpfsim_vm::GuestMem;
use smallvec::SmallVec;

/// `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST` and `BPF_F_LOCK`, as [`Kernel`](crate::Kernel)'s map
/// operations take them.
pub mod update {
    /// Create or replace.
    pub const ANY: u64 = 0;
    /// Create only.
    pub const NOEXIST: u64 = 1;
    /// Replace only.
    pub const EXIST: u64 = 2;
    /// Under the element's `bpf_spin_lock`.
    pub const LOCK: u64 = 4;
}

/// A map.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Map {
    pub spec: Shared<MapSpec>,
    /// Guest address of what programs see as `struct bpf_map`.
    pub addr: u64,
    /// Special fields of the value.
    pub fields: Shared<Fields>,
    /// User references (`map->usercnt`): file descriptors and pins.
    pub uref: u32,
    /// `BPF_MAP_FREEZE` was done.
    pub frozen: bool,
    /// What a map in this one must be like (`map->inner_map_meta`).
    pub inner: Option<Box<create::Inner>>,
    /// Of a map that programs are put in: what all of them are like (`map->owner`).
    pub owner: Option<Owner>,
    /// Something of this map other than guest memory was changed since the last snapshot or
    /// restore, which copy none but such maps.
    pub dirty: bool,
    pub storage: Storage,
}

/// What programs have in common that are in one map, or use it for tail calls or redirects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub prog_type: ProgType,
    pub xdp_frags: bool,
}

/// Where elements are.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) enum Storage {
    Array(array::Array),
    FdArray(fd_array::FdArray),
    Hash(hash::Hash),
    Lpm(lpm::Lpm),
    Queue(queue::Queue),
    Bloom(bloom::Bloom),
    Ringbuf(Ringbuf),
    StackTrace(stack_trace::StackTrace),
    Local(local::Local),
    Arena(arena::Arena),
    StructOps(Box<struct_ops::StructOps>),
}

impl Storage {
    fn ops(&self) -> &dyn MapOps {
        match self {
            Storage::Array(s) => s,
            Storage::FdArray(s) => s,
            Storage::Hash(s) => s,
            Storage::Lpm(s) => s,
            Storage::Queue(s) => s,
            Storage::Bloom(s) => s,
            Storage::Ringbuf(s) => s,
            Storage::StackTrace(s) => s,
            Storage::Local(s) => s,
            Storage::Arena(s) => s,
            Storage::StructOps(s) => s.as_ref(),
        }
    }

    fn ops_mut(&mut self) -> &mut dyn MapOps {
        match self {
            Storage::Array(s) => s,
            Storage::FdArray(s) => s,
            Storage::Hash(s) => s,
            Storage::Lpm(s) => s,
            Storage::Queue(s) => s,
            Storage::Bloom(s) => s,
            Storage::Ringbuf(s) => s,
            Storage::StackTrace(s) => s,
            Storage::Local(s) => s,
            Storage::Arena(s) => s,
            Storage::StructOps(s) => s.as_mut(),
        }
    }
}

/// Room for the guest's view of `struct bpf_map`; map pointers are multiples of it.
pub(crate) const MAP_OBJECT_SIZE: u64 = 1024;

impl Map {
    /// What the type can be asked, and what it needs to know to answer.
    fn parts<'a>(&'a mut self, op: &'a mut Op<'_>) -> (&'a mut dyn MapOps, Cx<'a>) {
        self.dirty = true;
        let cx = Cx {
            mem: &mut *op.mem,
            cpu: op.cpu,
            cpus: op.cpus,
            user: op.user,
            fails: op.fails,
            freed: &mut op.freed,
            spec: &self.spec,
            fields: &self.fields,
        };
        (self.storage.ops_mut(), cx)
    }

    /// `bpf_map_lookup_elem`: the value's address, of a per-CPU map this CPU's.
    #[inline]
    pub fn lookup(&mut self, op: &mut Op<'_>, key: &[u8]) -> Option<u64> {
        if let Storage::Array(a) = &self.storage {
            return a.value_on(key, op.cpu);
        }
        let marks = matches!(&self.storage, Storage::Hash(h) if h.is_lru());
        let dirty = self.dirty || marks;
        let (ops, mut cx) = self.parts(op);
        let found = ops.lookup(&mut cx, key);
        self.dirty = dirty;
        found
    }

    /// `bpf_map_lookup_percpu_elem`: the value's address on that CPU.
    pub fn lookup_percpu(&mut self, op: &mut Op<'_>, key: &[u8], cpu: u32) -> Option<u64> {
        if cpu >= op.cpus {
            return None;
        }
        let (ops, mut cx) = self.parts(op);
        cx.cpu = crate::ids::Cpu(cpu);
        ops.lookup(&mut cx, key)
    }

    /// `bpf_map_update_elem`. Special fields of the destination are never written. Elements
    /// whose fields are to be freed join `op.freed`, also when the update itself fails.
    pub fn update(
        &mut self,
        op: &mut Op<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let (ops, mut cx) = self.parts(op);
        ops.update(&mut cx, key, value, flags)
    }

    /// For an update that writes into the element where it is and that others can see half done:
    /// the value's address, or why not. `None` for one that is done at once.
    pub fn in_place(
        &mut self,
        op: &mut Op<'_>,
        key: &[u8],
        flags: u64,
    ) -> Option<Result<u64, Errno>> {
        let lock = flags & update::LOCK != 0;
        if lock && !self.fields.has_spin_lock() {
            return Some(Err(Errno::EINVAL));
        }
        match (&self.storage, self.spec.map_type) {
            (Storage::Array(a), MapType::Array) => Some(a.target(key, flags)),
            (Storage::Hash(h), MapType::Hash) if lock => {
                h.peek(op.mem, key).map(|at| match flags & !update::LOCK {
                    update::NOEXIST => Err(Errno::EEXIST),
                    update::ANY | update::EXIST => Ok(at),
                    _ => Err(Errno::EINVAL),
                })
            }
            _ => None,
        }
    }

    /// The bucket of a hash map's key.
    pub fn bucket(&self, key: &[u8]) -> Option<u32> {
        match &self.storage {
            Storage::Hash(h) => Some(h.bucket_of(key)),
            _ => None,
        }
    }

    /// `bpf_map_delete_elem`; as [`Map::update`].
    pub fn delete(&mut self, op: &mut Op<'_>, key: &[u8]) -> Result<(), Errno> {
        let (ops, mut cx) = self.parts(op);
        ops.delete(&mut cx, key)
    }

    /// `bpf_map_push_elem`
    pub fn push(&mut self, op: &mut Op<'_>, value: &[u8], flags: u64) -> Result<(), Errno> {
        let (ops, mut cx) = self.parts(op);
        ops.push(&mut cx, value, flags)
    }

    /// `bpf_map_pop_elem` and, without `delete`, `bpf_map_peek_elem`: `value` is filled, also
    /// when there is none.
    pub fn take(&mut self, op: &mut Op<'_>, value: &mut [u8], delete: bool) -> Result<(), Errno> {
        let (ops, mut cx) = self.parts(op);
        ops.take(&mut cx, value, delete)
    }

    /// The element after `at` as `bpf_for_each_map_elem` passes them to a callback, with this
    /// CPU's value; the first one after `None`.
    pub fn after(&self, mem: &GuestMem, cpu: crate::ids::Cpu, at: Option<Place>) -> Option<Place> {
        self.storage.ops().after(mem, cpu, at)
    }

    /// `bpf_map_get_next_key`; `None` or a key that is gone starts from the first.
    pub fn next_key(&self, mem: &GuestMem, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        self.storage.ops().next_key(mem, &self.spec, key)
    }

    /// Address of the key that belongs to a value, as a callback is given it: the element's own
    /// copy for hash maps, `None` for arrays, whose callbacks get a private one.
    pub fn key_addr(&self, value_addr: u64) -> Option<u64> {
        self.storage.ops().key_addr(value_addr)
    }

    /// The key bytes that belong to a value now.
    pub fn key_of(&self, mem: &GuestMem, value_addr: u64) -> SmallVec<[u8; 16]> {
        match &self.storage {
            Storage::Array(a) => SmallVec::from_slice(&a.index_of(value_addr).to_le_bytes()),
            _ => {
                let at = self.key_addr(value_addr);
                let key = at.and_then(|a| mem.slice(a, self.spec.key_size as u64));
                SmallVec::from_slice(key.unwrap_or(&[]))
            }
        }
    }

    /// Address of the value that the address lies in, or `None` when it lies in no element.
    pub fn value_around(&self, addr: u64) -> Option<u64> {
        let value = self.storage.ops().value_around(addr)?;
        (addr.wrapping_sub(value) < self.spec.value_size as u64).then_some(value)
    }

    /// True for memory of its elements, their keys included, and for pages of an arena.
    pub fn owns(&self, addr: u64) -> bool {
        self.storage.ops().owns(addr)
    }

    /// What programs know the only value of a global data map by, or the first page of an arena:
    /// its address in user space (`map_direct_value_addr`).
    pub fn data_addr(&self) -> Option<u64> {
        match &self.storage {
            Storage::Array(a) => Some(a.base),
            Storage::Arena(a) => Some(a.user_start),
            _ => None,
        }
    }

    /// User space writes to its mapping of global data or of an arena.
    pub fn write_mapped(&mut self, mem: &mut GuestMem, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let size = self.spec.value_size as u64;
        match &mut self.storage {
            Storage::Array(a) => {
                let end = at.checked_add(bytes.len() as u64);
                end.filter(|&end| end <= size).ok_or(Errno::EINVAL)?;
                let to = mem.slice_mut(a.base + at, bytes.len() as u64);
                to.ok_or(Errno::EFAULT)?.copy_from_slice(bytes);
                Ok(())
            }
            Storage::Arena(a) => {
                self.dirty = true;
                a.write(mem, at, bytes)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The struct_ops map that this is.
    pub(super) fn struct_ops(&self) -> Option<&struct_ops::StructOps> {
        match &self.storage {
            Storage::StructOps(s) => Some(s),
            _ => None,
        }
    }

    fn struct_ops_mut(&mut self) -> Option<&mut struct_ops::StructOps> {
        match &mut self.storage {
            Storage::StructOps(s) => {
                self.dirty = true;
                Some(s)
            }
            _ => None,
        }
    }

    /// The arena that this map is.
    pub fn arena(&self) -> Option<&Arena> {
        match &self.storage {
            Storage::Arena(a) => Some(a),
            _ => None,
        }
    }

    /// The arena that this map is.
    pub fn arena_mut(&mut self) -> Option<&mut Arena> {
        match &mut self.storage {
            Storage::Arena(a) => {
                self.dirty = true;
                Some(a)
            }
            _ => None,
        }
    }

    /// `__bpf_get_stackid`: the number of a stack; `None` for another kind of map.
    pub fn stack_id(
        &mut self,
        frames: &[u64],
        fast: bool,
        reuse: bool,
    ) -> Option<Result<u64, Errno>> {
        let most = self.spec.value_size as usize / 8;
        match &mut self.storage {
            Storage::StackTrace(s) => {
                self.dirty = true;
                Some(s.id_of(&frames[..frames.len().min(most)], fast, reuse))
            }
            _ => None,
        }
    }

    /// `bpf_map_sum_elem_count`: elements of the types that count them for programs.
    pub fn sum_elem_count(&self) -> u64 {
        match &self.storage {
            Storage::Hash(_) if !matches!(self.spec.map_type, MapType::DevmapHash) => {
                self.len() as u64
            }
            _ => 0,
        }
    }

    /// A program that uses this map is attached: where the map is storage of cgroups, there is one.
    pub fn link_cgroup(&mut self, mem: &mut GuestMem, of: CgroupKey) -> Result<(), Errno> {
        match &mut self.storage {
            Storage::Local(local) => {
                self.dirty = true;
                local.link(mem, &self.spec, of)
            }
            _ => Ok(()),
        }
    }

    /// A cgroup is gone.
    pub fn unlink_cgroup(&mut self, mem: &mut GuestMem, cgroup: u64) {
        if let Storage::Local(local) = &mut self.storage {
            self.dirty = true;
            local.unlink(mem, cgroup);
        }
    }

    /// Elements that exist: of an array all of them.
    pub fn len(&self) -> u32 {
        self.storage.ops().len()
    }

    /// Value addresses of all elements, in the order of their keys' iteration; of per-CPU maps
    /// each CPU's.
    pub fn values(&self) -> Vec<u64> {
        self.storage.ops().values()
    }

    /// One user reference more.
    pub fn uref_get(&mut self) {
        (self.uref, self.dirty) = (self.uref + 1, true);
    }

    /// The last user reference is gone (`map_release_uref`, `map_release`): arrays of programs
    /// and of perf events are emptied.
    pub fn release_uref(&mut self) {
        let flags = MapFlags::from_bits_retain(self.spec.flags);
        let keeps = flags.contains(MapFlags::PRESERVE_ELEMS);
        match (&mut self.storage, self.spec.map_type) {
            (Storage::FdArray(array), MapType::ProgArray) => array.clear(),
            (Storage::FdArray(array), MapType::PerfEventArray) if !keeps => array.clear(),
            _ => return,
        }
        self.dirty = true;
    }

    /// Where the value of a key of a hash map is.
    pub fn value_of(&self, mem: &GuestMem, key: &[u8]) -> Option<u64> {
        match &self.storage {
            Storage::Hash(hash) => hash.value_place(mem, key),
            _ => None,
        }
    }

    /// `map_type_contains_progs`: programs that use it must be like those in it.
    pub fn holds_programs(&self) -> bool {
        matches!(
            self.spec.map_type,
            MapType::ProgArray | MapType::Devmap | MapType::Cpumap
        )
    }

    /// The handle in a slot of an array of descriptors.
    pub fn handle(&self, index: u32) -> Option<u64> {
        match &self.storage {
            Storage::FdArray(array) => array.get(index),
            _ => None,
        }
    }

    /// Its values are sockets.
    pub fn holds_socks(&self) -> bool {
        matches!(
            self.spec.map_type,
            MapType::Sockmap | MapType::Sockhash | MapType::ReuseportSockarray
        )
    }

    /// The ring buffer that this map is.
    /// A sample lies in this ring.
    pub fn has_sample(&self, sample: u64) -> bool {
        matches!(&self.storage, Storage::Ringbuf(r) if r.contains(sample))
    }

    pub fn ringbuf(&mut self) -> Option<&mut Ringbuf> {
        self.dirty = true;
        match &mut self.storage {
            Storage::Ringbuf(r) => Some(r),
            _ => None,
        }
    }
}

/// An element on the way through a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Address of the key; of an array's element none, its callback gets a private copy.
    pub key: Option<u64>,
    /// Index of an array's element; of a hash map's the bucket.
    pub index: u32,
    /// The slot that follows in the bucket, as Linux has read it before the callback.
    pub next: u32,
    /// Address of the value.
    pub value: u64,
}

/// Copies a value into an element but for its special fields (`copy_map_value`).
pub(crate) fn copy_value(
    mem: &mut GuestMem,
    fields: &Fields,
    to: u64,
    value: &[u8],
) -> Result<(), Errno> {
    let dest = mem.slice_mut(to, value.len() as u64).ok_or(Errno::ENOMEM)?;
    let mut at = 0;
    for hole in fields.ranges() {
        let start = (hole.start as usize).min(value.len()).max(at);
        dest[at..start].copy_from_slice(&value[at..start]);
        at = (hole.end as usize).min(value.len()).max(at);
    }
    dest[at..].copy_from_slice(&value[at..]);
    Ok(())
}

/// A copy of a value for user space: its special fields read as zero
/// (`check_and_init_map_value`).
pub(crate) fn value_for_user(
    mem: &GuestMem,
    fields: &Fields,
    from: u64,
    size: u64,
) -> Result<Vec<u8>, Errno> {
    let mut value = mem.slice(from, size).ok_or(Errno::EFAULT)?.to_vec();
    for hole in fields.ranges() {
        let end = (hole.end as usize).min(value.len());
        let start = (hole.start as usize).min(end);
        value[start..end].fill(0);
    }
    Ok(value)
}
