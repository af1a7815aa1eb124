//! `BPF_MAP_CREATE`: what a map may be, in the order in which Linux finds fault with it.

use super::{
    Map, Storage,
    arena::Arena,
    array::Array,
    bloom::Bloom,
    btf,
    fd_array::FdArray,
    hash::Hash,
    local::Local,
    lpm::Lpm,
    queue::Queue,
    ringbuf::Ringbuf,
    stack_trace::StackTrace,
    struct_ops::{self, StructOps},
};
use crate::field::Fields;
use crate::ids::MapId;
use crate::shared::Shared;
use bpfsim_abi::map::MapFlags;
use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_vm::{Area, GuestMem};
use std::sync::Arc;

/// Shape of a map, as `union bpf_attr` gives it to `BPF_MAP_CREATE`.
#[derive(Clone, Debug)]
pub struct MapSpec {
    /// Name; Linux keeps 15 bytes of it.
    pub name: String,
    /// Kind of map.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most elements.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Of a bloom filter the number of hash functions, of an arena its address in user space.
    pub map_extra: u64,
    /// With `BPF_F_NUMA_NODE`; there is node 0 only.
    pub numa_node: u32,
    /// A map like those that this one will hold (`inner_map_fd`).
    pub inner: Option<MapId>,
    /// Types of key and value, where the object has BTF.
    pub btf: Option<MapBtf>,
}

/// A map's types.
#[derive(Clone, Debug)]
pub struct MapBtf {
    /// The types.
    pub btf: Arc<Btf>,
    /// Type of the key.
    pub key: TypeId,
    /// Type of the value; of global data the section.
    pub value: TypeId,
}

impl MapSpec {
    /// A map without name, flags and types.
    pub fn new(map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> MapSpec {
        MapSpec {
            name: String::new(),
            map_type,
            key_size,
            value_size,
            max_entries,
            flags: 0,
            map_extra: 0,
            numa_node: 0,
            inner: None,
            btf: None,
        }
    }

    pub(super) fn flags(&self) -> MapFlags {
        MapFlags::from_bits_retain(self.flags)
    }

    /// Values are of all CPUs (`bpf_map_value_size`).
    pub(crate) fn is_percpu(&self) -> bool {
        matches!(
            self.map_type,
            MapType::PercpuHash
                | MapType::PercpuArray
                | MapType::LruPercpuHash
                | MapType::PercpuCgroupStorage
        )
    }
}

/// What a map in another one must be like (`bpf_map_meta_alloc`).
#[derive(Clone)]
pub(crate) struct Inner {
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    fields: Fields,
}

impl Inner {
    fn of(map: &Map) -> Result<Inner, Errno> {
        if map.inner.is_some() {
            return Err(Errno::EINVAL);
        }
        // Those without map_meta_equal.
        if matches!(
            map.spec.map_type,
            MapType::ProgArray
                | MapType::CgroupStorage
                | MapType::PercpuCgroupStorage
                | MapType::StructOps
        ) {
            return Err(Errno::ENOTSUPP);
        }
        Ok(Inner {
            map_type: map.spec.map_type,
            key_size: map.spec.key_size,
            value_size: map.spec.value_size,
            max_entries: map.spec.max_entries,
            flags: map.spec.flags,
            fields: (*map.fields).clone(),
        })
    }

    /// `map_meta_equal`: arrays and XSK maps must have as many entries, unless
    /// `BPF_F_INNER_MAP` says that they need not.
    pub fn permits(&self, map: &Map) -> bool {
        let spec = &map.spec;
        let counts = match self.map_type {
            MapType::Array | MapType::PercpuArray => !self.has(MapFlags::INNER_MAP),
            MapType::Xskmap => true,
            _ => false,
        };
        self.map_type == spec.map_type
            && self.key_size == spec.key_size
            && self.value_size == spec.value_size
            && self.flags == spec.flags
            && self.fields == *map.fields
            && (!counts || self.max_entries == spec.max_entries)
    }

    fn has(&self, flag: MapFlags) -> bool {
        MapFlags::from_bits_retain(self.flags).contains(flag)
    }
}

/// `KMALLOC_MAX_SIZE`
const KMALLOC_MAX: u64 = 4 << 20;
/// `sizeof(struct htab_elem)`
const HTAB_ELEM: u64 = 48;
/// `PCPU_MIN_UNIT_SIZE`
const PCPU_UNIT: u64 = 32 << 10;
/// `BPF_LOCAL_STORAGE_MAX_VALUE_SIZE`
const STORAGE_MAX: u32 = 65407;
/// `NR_CPUS` of the emulated kernel.
const NR_CPUS: u32 = 256;
/// `sysctl_perf_event_max_stack`
const MAX_STACK: u32 = 127;
/// `U32_MAX / sizeof(struct bucket)`
const MOST_BUCKETS: u32 = u32::MAX / 16;
const PAGE: u32 = 4096;

const ACCESS: MapFlags = MapFlags::RDONLY
    .union(MapFlags::WRONLY)
    .union(MapFlags::RDONLY_PROG)
    .union(MapFlags::WRONLY_PROG);
const SYS_ACCESS: MapFlags = MapFlags::RDONLY.union(MapFlags::WRONLY);

/// What is wrong, if anything is: `EINVAL` unless said otherwise.
fn invalid(wrong: bool) -> Result<(), Errno> {
    refuse(wrong, Errno::EINVAL)
}

fn refuse(wrong: bool, errno: Errno) -> Result<(), Errno> {
    if wrong { Err(errno) } else { Ok(()) }
}

/// Flags of which none is unknown and which do not contradict each other
/// (`bpf_map_flags_access_ok`).
fn flags_ok(spec: &MapSpec, known: MapFlags) -> bool {
    let both = MapFlags::RDONLY_PROG.union(MapFlags::WRONLY_PROG);
    known.contains(spec.flags()) && !spec.flags().contains(both)
}

/// What `map_create` asks of every map.
fn check_all(spec: &MapSpec) -> Result<(), Errno> {
    if let Some(btf) = &spec.btf {
        invalid(btf.key != TypeId::VOID && btf.value == TypeId::VOID)?;
    }
    let extra = matches!(spec.map_type, MapType::BloomFilter | MapType::Arena);
    invalid(!extra && spec.map_extra != 0)?;
    invalid(spec.flags().contains(SYS_ACCESS))?;
    invalid(spec.flags().contains(MapFlags::NUMA_NODE) && spec.numa_node != 0)
}

/// `map_alloc_check`, and what `map_alloc` refuses before it allocates.
fn check(spec: &MapSpec) -> Result<(), Errno> {
    use MapType as T;
    check_all(spec)?;
    match spec.map_type {
        T::Array | T::PercpuArray => check_array(spec),
        T::ProgArray | T::PerfEventArray | T::CgroupArray | T::ArrayOfMaps => {
            invalid(spec.value_size != 4)?;
            invalid(
                spec.flags()
                    .intersects(MapFlags::RDONLY_PROG | MapFlags::WRONLY_PROG),
            )?;
            check_array(spec)
        }
        T::ReuseportSockarray => {
            invalid(!matches!(spec.value_size, 4 | 8))?;
            check_array(spec)
        }
        T::Hash | T::LruHash | T::PercpuHash | T::LruPercpuHash => check_hash(spec),
        T::HashOfMaps => {
            invalid(spec.value_size != 4)?;
            check_hash(spec)
        }
        T::LpmTrie => {
            let known = MapFlags::NO_PREALLOC | MapFlags::NUMA_NODE | ACCESS;
            let most = KMALLOC_MAX - 256 - 24;
            invalid(
                spec.max_entries == 0
                    || !spec.flags().contains(MapFlags::NO_PREALLOC)
                    || !flags_ok(spec, known)
                    || !(5..=260).contains(&spec.key_size)
                    || spec.value_size == 0
                    || spec.value_size as u64 > most,
            )
        }
        T::Queue | T::Stack => {
            invalid(
                spec.max_entries == 0
                    || spec.key_size != 0
                    || spec.value_size == 0
                    || !flags_ok(spec, MapFlags::NUMA_NODE | ACCESS),
            )?;
            refuse(spec.value_size as u64 > KMALLOC_MAX, Errno::E2BIG)
        }
        T::BloomFilter => {
            refuse(spec.value_size as u64 > KMALLOC_MAX, Errno::E2BIG)?;
            let known = MapFlags::NUMA_NODE | MapFlags::ZERO_SEED | ACCESS;
            invalid(
                spec.key_size != 0
                    || spec.value_size == 0
                    || spec.max_entries == 0
                    || !flags_ok(spec, known)
                    || spec.map_extra & !0xf != 0,
            )
        }
        T::Ringbuf | T::UserRingbuf => invalid(
            !MapFlags::NUMA_NODE.contains(spec.flags())
                || spec.key_size != 0
                || spec.value_size != 0
                || !spec.max_entries.is_power_of_two()
                || !spec.max_entries.is_multiple_of(PAGE),
        ),
        T::StackTrace => check_stack_trace(spec),
        T::SkStorage | T::InodeStorage | T::TaskStorage | T::CgrpStorage => check_storage(spec),
        T::CgroupStorage | T::PercpuCgroupStorage => check_cgroup_storage(spec),
        T::Arena => check_arena(spec),
        T::Devmap | T::DevmapHash | T::Xskmap | T::Sockmap | T::Sockhash | T::Cpumap => {
            check_redirect(spec)
        }
        T::StructOps => struct_ops::check(spec),
        T::Unspec => Err(Errno::EINVAL),
    }
}

/// `array_map_alloc_check`
fn check_array(spec: &MapSpec) -> Result<(), Errno> {
    let known = MapFlags::NUMA_NODE
        | MapFlags::MMAPABLE
        | MapFlags::PRESERVE_ELEMS
        | MapFlags::INNER_MAP
        | ACCESS;
    let percpu = spec.map_type == MapType::PercpuArray;
    let has = |flag| spec.flags().intersects(flag);
    invalid(
        spec.max_entries == 0
            || spec.key_size != 4
            || spec.value_size == 0
            || !flags_ok(spec, known)
            || (percpu && has(MapFlags::NUMA_NODE)),
    )?;
    let array = spec.map_type == MapType::Array;
    invalid(!array && has(MapFlags::MMAPABLE | MapFlags::INNER_MAP))?;
    let perf = spec.map_type == MapType::PerfEventArray;
    invalid(!perf && has(MapFlags::PRESERVE_ELEMS))?;
    refuse(spec.value_size > i32::MAX as u32, Errno::E2BIG)?;
    let rounded = (spec.value_size as u64).next_multiple_of(8);
    refuse(percpu && rounded > PCPU_UNIT, Errno::E2BIG)
}

/// `htab_map_alloc_check`, and the limits of `htab_map_alloc`.
fn check_hash(spec: &MapSpec) -> Result<(), Errno> {
    let known = MapFlags::NO_PREALLOC
        | MapFlags::NO_COMMON_LRU
        | MapFlags::NUMA_NODE
        | MapFlags::ZERO_SEED
        | ACCESS;
    let lru = matches!(spec.map_type, MapType::LruHash | MapType::LruPercpuHash);
    let own = spec.flags().contains(MapFlags::NO_COMMON_LRU);
    invalid(!flags_ok(spec, known) || (!lru && own))?;
    let no_prealloc = spec.flags().contains(MapFlags::NO_PREALLOC);
    refuse(lru && no_prealloc, Errno::ENOTSUPP)?;
    let numa = spec.flags().contains(MapFlags::NUMA_NODE);
    invalid(numa && (own || spec.is_percpu()))?;
    invalid(spec.max_entries == 0 || spec.key_size == 0 || spec.value_size == 0)?;
    let both = spec.key_size as u64 + spec.value_size as u64;
    refuse(both >= KMALLOC_MAX - HTAB_ELEM, Errno::E2BIG)?;
    let rounded = (spec.value_size as u64).next_multiple_of(8);
    refuse(spec.is_percpu() && rounded > PCPU_UNIT, Errno::E2BIG)
}

/// What `htab_map_alloc` refuses once an inner map was looked at.
fn check_hash_size(max_entries: u32) -> Result<(), Errno> {
    let buckets = (max_entries <= 1 << 31).then(|| max_entries.next_power_of_two());
    let many = buckets.is_none_or(|n| n > MOST_BUCKETS);
    refuse(many, Errno::E2BIG)
}

/// `htab_map_alloc` with `BPF_F_NO_COMMON_LRU`: as many entries for each CPU.
fn rounded_entries(spec: &MapSpec, cpus: u32) -> u32 {
    let n = spec.max_entries;
    if !spec.flags().contains(MapFlags::NO_COMMON_LRU) {
        return n;
    }
    n.checked_next_multiple_of(cpus).unwrap_or(n - n % cpus)
}

/// `stack_map_alloc`
fn check_stack_trace(spec: &MapSpec) -> Result<(), Errno> {
    let known = MapFlags::NUMA_NODE | SYS_ACCESS | MapFlags::STACK_BUILD_ID;
    let size = spec.value_size;
    invalid(
        !known.contains(spec.flags())
            || spec.max_entries == 0
            || spec.key_size != 4
            || size < 8
            || !size.is_multiple_of(8),
    )?;
    // struct bpf_stack_build_id
    let each = if spec.flags().contains(MapFlags::STACK_BUILD_ID) {
        32
    } else {
        8
    };
    invalid(!size.is_multiple_of(each) || size / each > MAX_STACK)?;
    refuse(spec.max_entries > 1 << 31, Errno::E2BIG)
}

/// `bpf_local_storage_map_alloc_check`
fn check_storage(spec: &MapSpec) -> Result<(), Errno> {
    let known = MapFlags::NO_PREALLOC | MapFlags::CLONE;
    let typed = |t: &MapBtf| t.key != TypeId::VOID && t.value != TypeId::VOID;
    invalid(
        !known.contains(spec.flags())
            || !spec.flags().contains(MapFlags::NO_PREALLOC)
            || spec.max_entries != 0
            || spec.key_size != 4
            || spec.value_size == 0
            || !spec.btf.as_ref().is_some_and(typed),
    )?;
    refuse(spec.value_size > STORAGE_MAX, Errno::E2BIG)
}

/// `cgroup_storage_map_alloc`
fn check_cgroup_storage(spec: &MapSpec) -> Result<(), Errno> {
    invalid(!matches!(spec.key_size, 8 | 16) || spec.value_size == 0)?;
    let most = if spec.is_percpu() {
        PCPU_UNIT as u32
    } else {
        STORAGE_MAX
    };
    refuse(spec.value_size > most, Errno::E2BIG)?;
    invalid(!flags_ok(spec, MapFlags::NUMA_NODE | ACCESS) || spec.max_entries != 0)
}

/// `arena_map_alloc`
fn check_arena(spec: &MapSpec) -> Result<(), Errno> {
    let known = MapFlags::SEGV_ON_FAULT | MapFlags::MMAPABLE | MapFlags::NO_USER_CONV;
    invalid(
        spec.key_size != 0
            || spec.value_size != 0
            || spec.max_entries == 0
            || !spec.flags().contains(MapFlags::MMAPABLE)
            || !known.contains(spec.flags())
            || !spec.map_extra.is_multiple_of(PAGE as u64),
    )?;
    let bytes = spec.max_entries as u64 * PAGE as u64;
    refuse(bytes > 1 << 32, Errno::E2BIG)?;
    let last = spec.map_extra.wrapping_add(bytes - 1);
    refuse(spec.map_extra >> 32 != last >> 32, Errno::ERANGE)
}

/// Maps of devices, CPUs and sockets.
fn check_redirect(spec: &MapSpec) -> Result<(), Errno> {
    let known = match spec.map_type {
        MapType::Cpumap => MapFlags::NUMA_NODE,
        _ => MapFlags::NUMA_NODE | SYS_ACCESS,
    };
    let value = match spec.map_type {
        MapType::Xskmap => spec.value_size == 4,
        _ => matches!(spec.value_size, 4 | 8),
    };
    let key = match spec.map_type {
        MapType::Sockhash => spec.key_size != 0,
        _ => spec.key_size == 4,
    };
    invalid(spec.max_entries == 0 || !key || !value || !known.contains(spec.flags()))?;
    let n = spec.max_entries;
    match spec.map_type {
        MapType::Cpumap => refuse(n > NR_CPUS, Errno::E2BIG),
        MapType::DevmapHash => invalid(n > 1 << 31),
        MapType::Sockhash => {
            refuse(spec.key_size > 512, Errno::E2BIG)?;
            let buckets = (n <= 1 << 31).then(|| n.next_power_of_two());
            invalid(buckets.is_none_or(|b| b > MOST_BUCKETS))
        }
        _ => Ok(()),
    }
}

impl Map {
    /// `map_create`. `template` is the map that `spec.inner` names, if there is one.
    pub fn create(
        mem: &mut GuestMem,
        mut spec: MapSpec,
        template: Option<&Map>,
        cpus: u32,
        frozen: bool,
    ) -> Result<Map, Errno> {
        check(&spec)?;
        let holds_maps = matches!(spec.map_type, MapType::ArrayOfMaps | MapType::HashOfMaps);
        let inner = match template {
            _ if !holds_maps => None,
            // Descriptor 0 is no map's.
            None if spec.inner.is_none() => return Err(Errno::EINVAL),
            None => return Err(Errno::EBADF),
            Some(template) => Some(Box::new(Inner::of(template)?)),
        };
        spec.max_entries = rounded_entries(&spec, cpus);
        let storage = Storage::create(mem, &spec, cpus, frozen)?;
        if matches!(spec.map_type, MapType::Devmap | MapType::DevmapHash) {
            // Programs get pointers to what the kernel itself reads.
            spec.flags |= MapFlags::RDONLY_PROG.bits();
        }
        let fields = btf::check(&spec)?;
        let addr = mem
            .alloc(Area::Object, super::MAP_OBJECT_SIZE, super::MAP_OBJECT_SIZE)
            .map_err(|_| Errno::ENOMEM)?;
        Ok(Map {
            spec: Shared::new(spec),
            addr,
            fields: Shared::new(fields),
            uref: 1,
            frozen,
            inner,
            owner: None,
            dirty: true,
            storage,
        })
    }
}

impl Storage {
    fn create(
        mem: &mut GuestMem,
        spec: &MapSpec,
        cpus: u32,
        frozen: bool,
    ) -> Result<Storage, Errno> {
        use MapType as T;
        Ok(match spec.map_type {
            T::Array | T::PercpuArray => Storage::Array(Array::create(mem, spec, cpus, frozen)?),
            T::Hash | T::LruHash | T::PercpuHash | T::LruPercpuHash | T::HashOfMaps => {
                check_hash_size(spec.max_entries)?;
                let mut hash = Hash::create(spec, cpus);
                hash.prepare(mem)?;
                Storage::Hash(hash)
            }
            T::DevmapHash | T::Sockhash => Storage::Hash(Hash::create(spec, cpus)),
            T::LpmTrie => Storage::Lpm(Lpm::create(spec)),
            T::Queue | T::Stack => Storage::Queue(Queue::create(spec)),
            T::BloomFilter => Storage::Bloom(Bloom::create(spec)),
            T::Ringbuf | T::UserRingbuf => Storage::Ringbuf(Ringbuf::create(mem, spec)?),
            T::StackTrace => Storage::StackTrace(StackTrace::create(spec)),
            T::SkStorage
            | T::InodeStorage
            | T::TaskStorage
            | T::CgrpStorage
            | T::CgroupStorage
            | T::PercpuCgroupStorage => Storage::Local(Local::create(spec, cpus)),
            T::Arena => Storage::Arena(Arena::create(spec)),
            T::StructOps => Storage::StructOps(Box::new(StructOps::create(spec)?)),
            _ => match FdArray::create(mem, spec) {
                Some(array) => Storage::FdArray(array?),
                None => return Err(Errno::EOPNOTSUPP),
            },
        })
    }
}
