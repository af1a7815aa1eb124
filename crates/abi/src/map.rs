//! Map types and the flags of map creation and element operations.
use crate::enums::kernel_enum;

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
