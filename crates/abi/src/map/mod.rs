//! Map types: creation, special fields, operations, and which helpers take which map.
mod rules;

pub use rules::{
    Entries, FUNC_MAPS, MapRule, Ops, RULES, Size, Takers, compatible, may_update_sockmap,
};

use crate::enums::kernel_enum;
use crate::text::{Row, row};
use crate::{Errno, KernelVersion, ProgType, ProgTypes};

kernel_enum! {
    /// Map types: `enum bpf_map_type`. [`name`](MapType::name) is libbpf's spelling.
    pub enum MapType {
        Unspec = 0, "unspec", "BPF_MAP_TYPE_UNSPEC", V5_15;
        Hash = 1, "hash", "BPF_MAP_TYPE_HASH", V5_15;
        Array = 2, "array", "BPF_MAP_TYPE_ARRAY", V5_15;
        ProgArray = 3, "prog_array", "BPF_MAP_TYPE_PROG_ARRAY", V5_15;
        PerfEventArray = 4, "perf_event_array", "BPF_MAP_TYPE_PERF_EVENT_ARRAY", V5_15;
        PercpuHash = 5, "percpu_hash", "BPF_MAP_TYPE_PERCPU_HASH", V5_15;
        PercpuArray = 6, "percpu_array", "BPF_MAP_TYPE_PERCPU_ARRAY", V5_15;
        StackTrace = 7, "stack_trace", "BPF_MAP_TYPE_STACK_TRACE", V5_15;
        CgroupArray = 8, "cgroup_array", "BPF_MAP_TYPE_CGROUP_ARRAY", V5_15;
        LruHash = 9, "lru_hash", "BPF_MAP_TYPE_LRU_HASH", V5_15;
        LruPercpuHash = 10, "lru_percpu_hash", "BPF_MAP_TYPE_LRU_PERCPU_HASH", V5_15;
        LpmTrie = 11, "lpm_trie", "BPF_MAP_TYPE_LPM_TRIE", V5_15;
        ArrayOfMaps = 12, "array_of_maps", "BPF_MAP_TYPE_ARRAY_OF_MAPS", V5_15;
        HashOfMaps = 13, "hash_of_maps", "BPF_MAP_TYPE_HASH_OF_MAPS", V5_15;
        Devmap = 14, "devmap", "BPF_MAP_TYPE_DEVMAP", V5_15;
        Sockmap = 15, "sockmap", "BPF_MAP_TYPE_SOCKMAP", V5_15;
        Cpumap = 16, "cpumap", "BPF_MAP_TYPE_CPUMAP", V5_15;
        Xskmap = 17, "xskmap", "BPF_MAP_TYPE_XSKMAP", V5_15;
        Sockhash = 18, "sockhash", "BPF_MAP_TYPE_SOCKHASH", V5_15;
        CgroupStorage = 19, "cgroup_storage", "BPF_MAP_TYPE_CGROUP_STORAGE", V5_15;
        ReuseportSockarray = 20, "reuseport_sockarray", "BPF_MAP_TYPE_REUSEPORT_SOCKARRAY", V5_15;
        PercpuCgroupStorage = 21, "percpu_cgroup_storage", "BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE", V5_15;
        Queue = 22, "queue", "BPF_MAP_TYPE_QUEUE", V5_15;
        Stack = 23, "stack", "BPF_MAP_TYPE_STACK", V5_15;
        SkStorage = 24, "sk_storage", "BPF_MAP_TYPE_SK_STORAGE", V5_15;
        DevmapHash = 25, "devmap_hash", "BPF_MAP_TYPE_DEVMAP_HASH", V5_15;
        StructOps = 26, "struct_ops", "BPF_MAP_TYPE_STRUCT_OPS", V5_15;
        Ringbuf = 27, "ringbuf", "BPF_MAP_TYPE_RINGBUF", V5_15;
        InodeStorage = 28, "inode_storage", "BPF_MAP_TYPE_INODE_STORAGE", V5_15;
        TaskStorage = 29, "task_storage", "BPF_MAP_TYPE_TASK_STORAGE", V5_15;
        BloomFilter = 30, "bloom_filter", "BPF_MAP_TYPE_BLOOM_FILTER", V5_16;
        UserRingbuf = 31, "user_ringbuf", "BPF_MAP_TYPE_USER_RINGBUF", V6_1;
        CgrpStorage = 32, "cgrp_storage", "BPF_MAP_TYPE_CGRP_STORAGE", V6_2;
        Arena = 33, "arena", "BPF_MAP_TYPE_ARENA", V6_9;
    }
}

bitflags::bitflags! {
    /// `map_flags` of `BPF_MAP_CREATE`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct MapFlags: u32 {
        /// `BPF_F_NO_PREALLOC`
        const NO_PREALLOC = 1 << 0;
        /// `BPF_F_NO_COMMON_LRU`
        const NO_COMMON_LRU = 1 << 1;
        /// `BPF_F_NUMA_NODE`
        const NUMA_NODE = 1 << 2;
        /// `BPF_F_RDONLY`
        const RDONLY = 1 << 3;
        /// `BPF_F_WRONLY`
        const WRONLY = 1 << 4;
        /// `BPF_F_STACK_BUILD_ID`
        const STACK_BUILD_ID = 1 << 5;
        /// `BPF_F_ZERO_SEED`
        const ZERO_SEED = 1 << 6;
        /// `BPF_F_RDONLY_PROG`
        const RDONLY_PROG = 1 << 7;
        /// `BPF_F_WRONLY_PROG`
        const WRONLY_PROG = 1 << 8;
        /// `BPF_F_CLONE`
        const CLONE = 1 << 9;
        /// `BPF_F_MMAPABLE`
        const MMAPABLE = 1 << 10;
        /// `BPF_F_PRESERVE_ELEMS`
        const PRESERVE_ELEMS = 1 << 11;
        /// `BPF_F_INNER_MAP`
        const INNER_MAP = 1 << 12;
        /// `BPF_F_LINK`
        const LINK = 1 << 13;
        /// `BPF_F_PATH_FD`
        const PATH_FD = 1 << 14;
        /// `BPF_F_VTYPE_BTF_OBJ_FD`
        const VTYPE_BTF_OBJ_FD = 1 << 15;
        /// `BPF_F_TOKEN_FD`
        const TOKEN_FD = 1 << 16;
        /// `BPF_F_SEGV_ON_FAULT`
        const SEGV_ON_FAULT = 1 << 17;
        /// `BPF_F_NO_USER_CONV`
        const NO_USER_CONV = 1 << 18;
    }
}

bitflags::bitflags! {
    /// `flags` of element operations. `BPF_ANY` is no flag at all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ElemFlags: u64 {
        /// `BPF_NOEXIST`: only a key that is not there.
        const NOEXIST = 1;
        /// `BPF_EXIST`: only a key that is there.
        const EXIST = 2;
        /// `BPF_F_LOCK`: copy under the element's `bpf_spin_lock`.
        const LOCK = 4;
    }
}

bitflags::bitflags! {
    /// Special fields of values and allocated objects: `enum btf_field_type`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Fields: u32 {
        /// `BPF_SPIN_LOCK`: a `struct bpf_spin_lock`.
        const SPIN_LOCK = 1 << 0;
        /// `BPF_TIMER`: a `struct bpf_timer`.
        const TIMER = 1 << 1;
        /// `BPF_KPTR_UNREF`: a pointer tagged `kptr_untrusted`.
        const KPTR_UNREF = 1 << 2;
        /// `BPF_KPTR_REF`: a pointer tagged `kptr`.
        const KPTR_REF = 1 << 3;
        /// `BPF_KPTR_PERCPU`: a pointer tagged `percpu_kptr`.
        const KPTR_PERCPU = 1 << 4;
        /// `BPF_LIST_HEAD`: a `struct bpf_list_head`.
        const LIST_HEAD = 1 << 5;
        /// `BPF_LIST_NODE`: a `struct bpf_list_node`.
        const LIST_NODE = 1 << 6;
        /// `BPF_RB_ROOT`: a `struct bpf_rb_root`.
        const RB_ROOT = 1 << 7;
        /// `BPF_RB_NODE`: a `struct bpf_rb_node`.
        const RB_NODE = 1 << 8;
        /// `BPF_REFCOUNT`: a `struct bpf_refcount`.
        const REFCOUNT = 1 << 9;
        /// `BPF_WORKQUEUE`: a `struct bpf_wq`.
        const WORKQUEUE = 1 << 10;
        /// `BPF_UPTR`: a pointer tagged `uptr`.
        const UPTR = 1 << 11;
        /// `BPF_RES_SPIN_LOCK`: a `struct bpf_res_spin_lock`.
        const RES_SPIN_LOCK = 1 << 12;
        /// `BPF_TASK_WORK`: a `struct bpf_task_work`.
        const TASK_WORK = 1 << 13;
        /// `BPF_KPTR`
        const KPTR = 0b111 << 2;
        /// `BPF_GRAPH_ROOT`
        const GRAPH_ROOT = 1 << 5 | 1 << 7;
        /// `BPF_GRAPH_NODE`
        const GRAPH_NODE = 1 << 6 | 1 << 8;
    }
}

/// A kind of special field: what a structure or a type tag must be called to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldKind {
    /// The kind.
    pub field: Fields,
    /// The structure's name, or the type tag of a pointer.
    pub name: &'static str,
    /// Its size, bytes.
    pub size: u32,
    /// Its alignment, bytes.
    pub align: u32,
    /// Whether a value may have one only.
    pub unique: bool,
    /// The first kernel that has it.
    pub since: KernelVersion,
}

macro_rules! field_kinds {
    ($($field:ident: $name:literal, $size:literal, $align:literal, $unique:literal, $since:ident;)*) => {
        /// Every kind of special field: `btf_get_field_type`, `btf_field_type_size`.
        pub static FIELD_KINDS: &[FieldKind] = &[$(FieldKind {
            field: Fields::$field, name: $name, size: $size, align: $align, unique: $unique,
            since: KernelVersion::$since,
        }),*];
    };
}
field_kinds! {
    SPIN_LOCK:     "bpf_spin_lock",      4, 4, true,  V5_15;
    RES_SPIN_LOCK: "bpf_res_spin_lock",  4, 4, true,  V6_15;
    TIMER:         "bpf_timer",         16, 8, true,  V5_15;
    WORKQUEUE:     "bpf_wq",            16, 8, true,  V6_10;
    TASK_WORK:     "bpf_task_work",      8, 8, true,  V6_18;
    LIST_HEAD:     "bpf_list_head",     16, 8, false, V6_2;
    LIST_NODE:     "bpf_list_node",     24, 8, false, V6_2;
    RB_ROOT:       "bpf_rb_root",       16, 8, false, V6_3;
    RB_NODE:       "bpf_rb_node",       32, 8, false, V6_3;
    REFCOUNT:      "bpf_refcount",       4, 4, true,  V6_4;
    KPTR_UNREF:    "kptr_untrusted",     8, 8, false, V5_19;
    KPTR_REF:      "kptr",               8, 8, false, V5_19;
    KPTR_PERCPU:   "percpu_kptr",        8, 8, false, V6_7;
    UPTR:          "uptr",               8, 8, false, V6_13;
}

/// `is_tracing_prog_type`: programs that may interrupt anything.
pub const TRACING_PROG_TYPES: ProgTypes = ProgTypes::of(&[
    ProgType::Kprobe,
    ProgType::Tracepoint,
    ProgType::PerfEvent,
    ProgType::RawTracepoint,
    ProgType::RawTracepointWritable,
]);

/// Special fields whose maps some program types may not even refer to, with what the verifier
/// says (`EINVAL`): `check_map_prog_compatibility`, in its order.
pub static FIELDS_REFUSED: &[(Fields, ProgTypes, Row)] = &[
    (
        Fields::GRAPH_ROOT,
        TRACING_PROG_TYPES,
        row(
            "tracing progs cannot use bpf_{{list_head,rb_root}} yet",
            Errno::EINVAL,
        ),
    ),
    (
        Fields::SPIN_LOCK.union(Fields::RES_SPIN_LOCK),
        ProgTypes::of(&[ProgType::SocketFilter]),
        row(
            "socket filter progs cannot use bpf_spin_lock yet",
            Errno::EINVAL,
        ),
    ),
    (
        Fields::SPIN_LOCK.union(Fields::RES_SPIN_LOCK),
        TRACING_PROG_TYPES,
        row("tracing progs cannot use bpf_spin_lock yet", Errno::EINVAL),
    ),
    (
        Fields::TIMER,
        TRACING_PROG_TYPES,
        row("tracing progs cannot use bpf_timer yet", Errno::EINVAL),
    ),
    (
        Fields::WORKQUEUE,
        TRACING_PROG_TYPES,
        row("tracing progs cannot use bpf_wq yet", Errno::EINVAL),
    ),
];

impl MapType {
    /// What is particular to it; `None` for `BPF_MAP_TYPE_UNSPEC` and `BPF_MAP_TYPE_STRUCT_OPS`.
    #[must_use]
    pub fn rule(self) -> Option<&'static MapRule> {
        RULES.iter().find(|r| r.map_type == self)
    }
}

/// A kernel structure that a `kptr` or `percpu_kptr` field may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KptrType {
    /// The structure.
    pub name: &'static str,
    /// The kfunc that releases one.
    pub release: &'static str,
    /// Whether the field may be read within an RCU read section: `rcu_protected_types`.
    pub rcu: bool,
    /// The first kernel that lets a field own it.
    pub since: KernelVersion,
}

macro_rules! kptr_types {
    ($($name:ident: $release:ident, $rcu:literal, $since:ident;)*) => {
        /// The kernel structures with a destructor (`btf_id_dtor_kfunc`): 6.18 was asked for
        /// every structure that it has. A program's own structures may be owned as well.
        pub static KPTR_TYPES: &[KptrType] = &[$(KptrType {
            name: stringify!($name),
            release: stringify!($release),
            rcu: $rcu,
            since: KernelVersion::$since,
        }),*];
    };
}
kptr_types! {
    bpf_cpumask:         bpf_cpumask_release,          true,  V6_3;
    bpf_crypto_ctx:      bpf_crypto_ctx_release,       true,  V6_10;
    cgroup:              bpf_cgroup_release,           true,  V6_2;
    prog_test_member:    bpf_kfunc_call_memb_release,  false, V6_0;
    prog_test_ref_kfunc: bpf_kfunc_call_test_release,  true,  V5_19;
    task_struct:         bpf_task_release,             true,  V6_2;
}
