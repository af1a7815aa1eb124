//! Per map type: what it may be created with, what its values may hold, what user space may do
//! with it, and which helpers take it. Creation and operations were asked of 6.18 type by type
//! (`tests/data/maps.csv`).
use super::{Fields, MapFlags, MapType};
use crate::helper::Func;
use crate::{AttachType, ProgType};

/// Which sizes a key or a value may have, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// None: 0.
    Zero,
    /// This one.
    Is(u32),
    /// One of the two.
    Either(u32, u32),
    /// From the first to the second.
    From(u32, u32),
    /// A multiple of 8, from 8 to this many bytes.
    Words(u32),
    /// The size of the BTF type given with it; BTF is obligatory.
    OfBtf,
}

impl Size {
    /// Whether that many bytes are permitted as far as the rule says.
    #[must_use]
    pub const fn permits(self, size: u32) -> bool {
        match self {
            Self::Zero => size == 0,
            Self::Is(one) => size == one,
            Self::Either(one, other) => size == one || size == other,
            Self::From(min, max) => size >= min && size <= max,
            Self::Words(max) => size != 0 && size.is_multiple_of(8) && size <= max,
            Self::OfBtf => size != 0,
        }
    }
}

/// What `max_entries` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entries {
    /// 0 only.
    Zero,
    /// Anything but 0.
    AtLeastOne,
    /// A power of two of whole pages.
    PowerOfTwoPages,
    /// From 1 to the number of CPUs possible.
    Cpus,
}

bitflags::bitflags! {
    /// What user space may do with a map; the rest is `ENOTSUPP`, `EOPNOTSUPP` or `EINVAL`
    /// whatever the arguments.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Ops: u16 {
        /// `BPF_MAP_LOOKUP_ELEM`
        const LOOKUP = 1 << 0;
        /// `BPF_MAP_UPDATE_ELEM`
        const UPDATE = 1 << 1;
        /// `BPF_MAP_DELETE_ELEM`
        const DELETE = 1 << 2;
        /// `BPF_MAP_GET_NEXT_KEY`
        const NEXT_KEY = 1 << 3;
        /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
        const LOOKUP_DELETE = 1 << 4;
        /// `BPF_MAP_LOOKUP_BATCH`
        const LOOKUP_BATCH = 1 << 5;
        /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
        const LOOKUP_DELETE_BATCH = 1 << 6;
        /// `BPF_MAP_UPDATE_BATCH`
        const UPDATE_BATCH = 1 << 7;
        /// `BPF_MAP_DELETE_BATCH`
        const DELETE_BATCH = 1 << 8;
        /// `mmap(2)`; an array's only with [`MapFlags::MMAPABLE`].
        const MMAP = 1 << 9;
    }
}

/// Which helpers take a map: `check_map_func_compatibility`, from the map's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takers {
    /// Every helper that does not ask for another map type.
    Any,
    /// These only.
    Only(&'static [Func]),
    /// These, and `bpf_map_update_elem` and `bpf_map_delete_elem` where
    /// [`may_update_sockmap`](super::may_update_sockmap).
    Sockmap(&'static [Func]),
}

/// All that is particular to a map type.
#[derive(Clone, Copy, Debug)]
pub struct MapRule {
    /// The map type.
    pub map_type: MapType,
    /// The flags it may be created with. `NUMA_NODE` asks that the node exists, `RDONLY_PROG`
    /// and `WRONLY_PROG` exclude one another, and so do `RDONLY` and `WRONLY`.
    pub flags: MapFlags,
    /// The flags it must be created with.
    pub required: MapFlags,
    /// Key sizes.
    pub key: Size,
    /// Value sizes.
    pub value: Size,
    /// `max_entries`.
    pub entries: Entries,
    /// The special fields that its values may have; others are `EOPNOTSUPP` at creation.
    pub fields: Fields,
    /// Whether sleepable programs may use it.
    pub sleepable: bool,
    /// What user space may do.
    pub ops: Ops,
    /// Which helpers take it.
    pub takers: Takers,
}

const MAX: u32 = u32::MAX;
/// `PCPU_MIN_UNIT_SIZE`: the largest per-CPU value.
const PCPU: u32 = 32768;
/// `BPF_LOCAL_STORAGE_MAX_VALUE_SIZE`: 64 KiB less the 128 bytes of its element and one.
const STORAGE: u32 = 65407;

const LOCKS: Fields = Fields::SPIN_LOCK.union(Fields::RES_SPIN_LOCK);
const ASYNC: Fields = Fields::TIMER
    .union(Fields::WORKQUEUE)
    .union(Fields::TASK_WORK);
const KPTRS: Fields = Fields::KPTR.union(Fields::REFCOUNT);
const NONE: Fields = Fields::empty();

const ELEM: Ops = Ops::LOOKUP.union(Ops::UPDATE).union(Ops::DELETE);
const KEYED: Ops = ELEM.union(Ops::NEXT_KEY);
const BATCH: Ops = Ops::LOOKUP_BATCH
    .union(Ops::UPDATE_BATCH)
    .union(Ops::DELETE_BATCH);
const HASHED: Ops = KEYED
    .union(BATCH)
    .union(Ops::LOOKUP_DELETE)
    .union(Ops::LOOKUP_DELETE_BATCH);
const INDEXED: Ops = Ops::LOOKUP
    .union(Ops::UPDATE)
    .union(Ops::NEXT_KEY)
    .union(Ops::LOOKUP_BATCH)
    .union(Ops::UPDATE_BATCH);

macro_rules! map_rules {
    ($($map:ident: flags [$($flag:ident)*] $(required [$($req:ident)*])?,
       key $key:expr, value $value:expr, entries $entries:ident,
       fields [$($fields:expr),*], sleepable $sleepable:literal,
       ops $ops:expr, $takers:ident $([$($func:ident)*])?;)*) => {
        /// One rule per map type, by number; `Unspec` and `StructOps` (which only
        /// `BPF_MAP_CREATE` with a kernel's structure makes) have none.
        pub static RULES: &[MapRule] = &[$(MapRule {
            map_type: MapType::$map,
            flags: MapFlags::empty()$(.union(MapFlags::$flag))*,
            required: MapFlags::empty()$($(.union(MapFlags::$req))*)?,
            key: $key,
            value: $value,
            entries: Entries::$entries,
            fields: Fields::empty()$(.union($fields))*,
            sleepable: $sleepable,
            ops: $ops,
            takers: map_rules!(@takers $takers $([$($func)*])?),
        }),*];
    };
    (@takers Any) => { Takers::Any };
    (@takers Only [$($func:ident)*]) => { Takers::Only(&[$(Func::$func),*]) };
    (@takers Sockmap [$($func:ident)*]) => { Takers::Sockmap(&[$(Func::$func),*]) };
}

map_rules! {
    Hash: flags [NO_PREALLOC NUMA_NODE RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::From(1, MAX), value Size::From(1, MAX), entries AtLeastOne,
        fields [LOCKS, ASYNC, KPTRS, Fields::GRAPH_ROOT], sleepable true, ops HASHED, Any;
    Array: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG MMAPABLE INNER_MAP],
        key Size::Is(4), value Size::From(1, MAX), entries AtLeastOne,
        fields [LOCKS, ASYNC, KPTRS, Fields::GRAPH_ROOT], sleepable true,
        ops INDEXED.union(Ops::MMAP), Any;
    ProgArray: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Is(4), entries AtLeastOne, fields [NONE], sleepable false,
        ops KEYED, Only [TailCall];
    PerfEventArray: flags [NUMA_NODE RDONLY WRONLY PRESERVE_ELEMS],
        key Size::Is(4), value Size::Is(4), entries AtLeastOne, fields [NONE], sleepable false,
        ops Ops::UPDATE.union(Ops::DELETE).union(Ops::NEXT_KEY),
        Only [PerfEventRead PerfEventOutput SkbOutput PerfEventReadValue XdpOutput];
    PercpuHash: flags [NO_PREALLOC RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::From(1, MAX), value Size::From(1, PCPU), entries AtLeastOne,
        fields [KPTRS], sleepable true, ops HASHED, Any;
    PercpuArray: flags [RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Is(4), value Size::From(1, PCPU), entries AtLeastOne,
        fields [KPTRS], sleepable true, ops INDEXED, Any;
    StackTrace: flags [NUMA_NODE RDONLY WRONLY STACK_BUILD_ID],
        key Size::Is(4), value Size::Words(1016), entries AtLeastOne, fields [NONE],
        sleepable false,
        ops Ops::LOOKUP.union(Ops::DELETE).union(Ops::NEXT_KEY).union(Ops::LOOKUP_DELETE),
        Only [GetStackid];
    CgroupArray: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Is(4), entries AtLeastOne, fields [NONE], sleepable false,
        ops Ops::UPDATE.union(Ops::DELETE).union(Ops::NEXT_KEY),
        Only [SkbUnderCgroup CurrentTaskUnderCgroup];
    LruHash: flags [NO_COMMON_LRU NUMA_NODE RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::From(1, MAX), value Size::From(1, MAX), entries AtLeastOne,
        fields [ASYNC, KPTRS, Fields::GRAPH_ROOT], sleepable true, ops HASHED, Any;
    LruPercpuHash: flags [NO_COMMON_LRU RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::From(1, MAX), value Size::From(1, PCPU), entries AtLeastOne,
        fields [KPTRS], sleepable true, ops HASHED, Any;
    LpmTrie: flags [NO_PREALLOC NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG]
        required [NO_PREALLOC],
        key Size::From(5, 260), value Size::From(1, MAX), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED.union(BATCH), Any;
    ArrayOfMaps: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Is(4), entries AtLeastOne, fields [NONE], sleepable true,
        ops KEYED.union(Ops::LOOKUP_BATCH).union(Ops::UPDATE_BATCH), Only [MapLookupElem];
    HashOfMaps: flags [NO_PREALLOC NUMA_NODE RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::From(1, MAX), value Size::Is(4), entries AtLeastOne, fields [NONE],
        sleepable true, ops KEYED.union(BATCH).union(Ops::LOOKUP_DELETE_BATCH),
        Only [MapLookupElem];
    Devmap: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Either(4, 8), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED, Only [RedirectMap MapLookupElem];
    Sockmap: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Either(4, 8), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED,
        Sockmap [SkRedirectMap SockMapUpdate MsgRedirectMap SkSelectReuseport MapLookupElem];
    Cpumap: flags [NUMA_NODE],
        key Size::Is(4), value Size::Either(4, 8), entries Cpus, fields [NONE], sleepable false,
        ops KEYED, Only [RedirectMap];
    Xskmap: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Is(4), entries AtLeastOne, fields [NONE], sleepable false,
        ops Ops::UPDATE.union(Ops::DELETE).union(Ops::NEXT_KEY), Only [RedirectMap MapLookupElem];
    Sockhash: flags [NUMA_NODE RDONLY WRONLY],
        key Size::From(1, 512), value Size::Either(4, 8), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED,
        Sockmap [SkRedirectHash SockHashUpdate MsgRedirectHash SkSelectReuseport MapLookupElem];
    CgroupStorage: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Either(8, 16), value Size::From(1, STORAGE), entries Zero,
        fields [LOCKS], sleepable false, ops Ops::LOOKUP.union(Ops::UPDATE).union(Ops::NEXT_KEY),
        Only [GetLocalStorage];
    ReuseportSockarray: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Is(4), value Size::Either(4, 8), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED, Only [SkSelectReuseport];
    PercpuCgroupStorage: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Either(8, 16), value Size::From(1, PCPU), entries Zero, fields [NONE],
        sleepable false, ops Ops::LOOKUP.union(Ops::UPDATE).union(Ops::NEXT_KEY),
        Only [GetLocalStorage];
    Queue: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Zero, value Size::From(1, MAX), entries AtLeastOne, fields [NONE],
        sleepable true, ops Ops::LOOKUP.union(Ops::UPDATE).union(Ops::LOOKUP_DELETE),
        Only [MapPeekElem MapPopElem MapPushElem];
    Stack: flags [NUMA_NODE RDONLY WRONLY RDONLY_PROG WRONLY_PROG],
        key Size::Zero, value Size::From(1, MAX), entries AtLeastOne, fields [NONE],
        sleepable true, ops Ops::LOOKUP.union(Ops::UPDATE).union(Ops::LOOKUP_DELETE),
        Only [MapPeekElem MapPopElem MapPushElem];
    SkStorage: flags [NO_PREALLOC CLONE] required [NO_PREALLOC],
        key Size::Is(4), value Size::From(1, STORAGE), entries Zero,
        fields [LOCKS, KPTRS], sleepable true, ops ELEM,
        Only [SkStorageGet SkStorageDelete KptrXchg];
    DevmapHash: flags [NUMA_NODE RDONLY WRONLY],
        key Size::Is(4), value Size::Either(4, 8), entries AtLeastOne, fields [NONE],
        sleepable false, ops KEYED, Only [RedirectMap MapLookupElem];
    Ringbuf: flags [NUMA_NODE],
        key Size::Zero, value Size::Zero, entries PowerOfTwoPages, fields [NONE],
        sleepable true, ops Ops::MMAP,
        Only [RingbufOutput RingbufReserve RingbufQuery RingbufReserveDynptr RingbufSubmitDynptr
              RingbufDiscardDynptr];
    InodeStorage: flags [NO_PREALLOC CLONE] required [NO_PREALLOC],
        key Size::Is(4), value Size::From(1, STORAGE), entries Zero,
        fields [LOCKS, KPTRS], sleepable true, ops ELEM,
        Only [InodeStorageGet InodeStorageDelete KptrXchg];
    TaskStorage: flags [NO_PREALLOC CLONE] required [NO_PREALLOC],
        key Size::Is(4), value Size::From(1, STORAGE), entries Zero,
        fields [LOCKS, KPTRS, Fields::UPTR], sleepable true, ops ELEM,
        Only [TaskStorageGet TaskStorageDelete KptrXchg];
    BloomFilter: flags [NUMA_NODE RDONLY WRONLY ZERO_SEED RDONLY_PROG WRONLY_PROG],
        key Size::Zero, value Size::From(1, MAX), entries AtLeastOne, fields [NONE],
        sleepable false, ops Ops::LOOKUP.union(Ops::UPDATE), Only [MapPeekElem MapPushElem];
    UserRingbuf: flags [NUMA_NODE],
        key Size::Zero, value Size::Zero, entries PowerOfTwoPages, fields [NONE],
        sleepable true, ops Ops::MMAP, Only [UserRingbufDrain];
    CgrpStorage: flags [NO_PREALLOC CLONE] required [NO_PREALLOC],
        key Size::Is(4), value Size::From(1, STORAGE), entries Zero,
        fields [LOCKS, KPTRS], sleepable true, ops ELEM,
        Only [CgrpStorageGet CgrpStorageDelete KptrXchg];
    Arena: flags [MMAPABLE SEGV_ON_FAULT NO_USER_CONV] required [MMAPABLE],
        key Size::Zero, value Size::Zero, entries AtLeastOne, fields [NONE], sleepable true,
        ops Ops::MMAP, Any;
}

/// Helpers that take some map types only: `check_map_func_compatibility`, from the helper's side.
pub static FUNC_MAPS: &[(&[Func], &[MapType])] = &[
    (&[Func::TailCall], &[MapType::ProgArray]),
    (
        &[
            Func::PerfEventRead,
            Func::PerfEventOutput,
            Func::PerfEventReadValue,
            Func::SkbOutput,
            Func::XdpOutput,
        ],
        &[MapType::PerfEventArray],
    ),
    (
        &[
            Func::RingbufOutput,
            Func::RingbufReserve,
            Func::RingbufQuery,
            Func::RingbufReserveDynptr,
            Func::RingbufSubmitDynptr,
            Func::RingbufDiscardDynptr,
        ],
        &[MapType::Ringbuf],
    ),
    (&[Func::UserRingbufDrain], &[MapType::UserRingbuf]),
    (&[Func::GetStackid], &[MapType::StackTrace]),
    (
        &[Func::CurrentTaskUnderCgroup, Func::SkbUnderCgroup],
        &[MapType::CgroupArray],
    ),
    (
        &[Func::RedirectMap],
        &[
            MapType::Devmap,
            MapType::DevmapHash,
            MapType::Cpumap,
            MapType::Xskmap,
        ],
    ),
    (
        &[
            Func::SkRedirectMap,
            Func::MsgRedirectMap,
            Func::SockMapUpdate,
        ],
        &[MapType::Sockmap],
    ),
    (
        &[
            Func::SkRedirectHash,
            Func::MsgRedirectHash,
            Func::SockHashUpdate,
        ],
        &[MapType::Sockhash],
    ),
    (
        &[Func::GetLocalStorage],
        &[MapType::CgroupStorage, MapType::PercpuCgroupStorage],
    ),
    (
        &[Func::SkSelectReuseport],
        &[
            MapType::ReuseportSockarray,
            MapType::Sockmap,
            MapType::Sockhash,
        ],
    ),
    (&[Func::MapPopElem], &[MapType::Queue, MapType::Stack]),
    (
        &[Func::MapPeekElem, Func::MapPushElem],
        &[MapType::Queue, MapType::Stack, MapType::BloomFilter],
    ),
    (
        &[Func::MapLookupPercpuElem],
        &[
            MapType::PercpuArray,
            MapType::PercpuHash,
            MapType::LruPercpuHash,
        ],
    ),
    (
        &[Func::SkStorageGet, Func::SkStorageDelete],
        &[MapType::SkStorage],
    ),
    (
        &[Func::InodeStorageGet, Func::InodeStorageDelete],
        &[MapType::InodeStorage],
    ),
    (
        &[Func::TaskStorageGet, Func::TaskStorageDelete],
        &[MapType::TaskStorage],
    ),
    (
        &[Func::CgrpStorageGet, Func::CgrpStorageDelete],
        &[MapType::CgrpStorage],
    ),
];

/// Whether a program may update or delete a sockmap's elements with the ordinary helpers; where
/// not the verifier says "cannot update sockmap in this context": `may_update_sockmap`.
#[must_use]
pub fn may_update_sockmap(prog_type: ProgType, attach_type: AttachType, func: Func) -> bool {
    use ProgType as P;
    if !matches!(func, Func::MapUpdateElem | Func::MapDeleteElem) {
        return false;
    }
    match prog_type {
        P::Tracing => attach_type == AttachType::TraceIter,
        P::SockOps => func == Func::MapDeleteElem,
        P::SocketFilter
        | P::SchedCls
        | P::SchedAct
        | P::Xdp
        | P::SkReuseport
        | P::FlowDissector
        | P::SkLookup => true,
        _ => false,
    }
}

/// Whether a program may pass a map of this type to this helper; where not the verifier says
/// "cannot pass map_type %d into func %s#%d" (`EINVAL`): `check_map_func_compatibility`.
#[must_use]
pub fn compatible(
    map_type: MapType,
    func: Func,
    prog_type: ProgType,
    attach_type: AttachType,
) -> bool {
    let by_map = match map_type.rule().map_or(Takers::Any, |r| r.takers) {
        Takers::Any => true,
        Takers::Only(funcs) => funcs.contains(&func),
        Takers::Sockmap(funcs) => {
            funcs.contains(&func) || may_update_sockmap(prog_type, attach_type, func)
        }
    };
    let by_func = FUNC_MAPS
        .iter()
        .find(|(funcs, _)| funcs.contains(&func))
        .is_none_or(|(_, maps)| maps.contains(&map_type));
    by_map && by_func
}
