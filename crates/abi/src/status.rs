//! What bpfsim itself does with a row of the tables.
//!
//! The only place to edit when something is implemented: what is not listed here is not there,
//! and is refused by name. Each row says whether the verifier judges it and whether it runs.
use crate::helper::Func;
use crate::{MapType, ProgType};
use Status::{Done, No, Partial};

/// How far bpfsim supports something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// All of it, as Linux does it.
    Done,
    /// A part of it; the text says what is lacking.
    Partial(&'static str),
    /// Nothing: refused by name.
    #[default]
    No,
}

impl Status {
    /// `done`, `partial` or `no`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Done => "done",
            Partial(_) => "partial",
            No => "no",
        }
    }

    /// What is lacking, if it is a part.
    #[must_use]
    pub const fn lacks(self) -> Option<&'static str> {
        match self {
            Partial(what) => Some(what),
            Done | No => None,
        }
    }
}

/// What bpfsim does with one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Support {
    /// Whether the verifier judges it.
    pub verify: Status,
    /// Whether it runs.
    pub run: Status,
}

/// Helpers: which, verifies, runs.
pub static HELPERS: &[(Func, Status, Status)] = &[
    (Func::MapLookupElem, No, Done),
    (Func::MapUpdateElem, No, Done),
    (Func::MapDeleteElem, No, Done),
    (Func::ProbeRead, No, Done),
    (Func::KtimeGetNs, No, Done),
    (Func::TracePrintk, No, Done),
    (Func::GetPrandomU32, No, Done),
    (Func::GetSmpProcessorId, No, Done),
    (Func::GetCurrentPidTgid, No, Done),
    (Func::GetCurrentUidGid, No, Done),
    (Func::GetCurrentComm, No, Done),
    (Func::GetCurrentTask, No, Done),
    (Func::ProbeWriteUser, No, Done),
    (Func::GetNumaNodeId, No, Done),
    (Func::ProbeReadStr, No, Done),
    (Func::SpinLock, No, Done),
    (Func::SpinUnlock, No, Done),
    (Func::Strtol, No, Done),
    (Func::Strtoul, No, Done),
    (Func::ProbeReadUser, No, Done),
    (Func::ProbeReadKernel, No, Done),
    (Func::ProbeReadUserStr, No, Done),
    (Func::ProbeReadKernelStr, No, Done),
    (Func::KtimeGetBootNs, No, Done),
    (Func::CopyFromUser, No, Done),
    (Func::GetCurrentTaskBtf, No, Done),
    (Func::KtimeGetCoarseNs, No, Done),
    (Func::ForEachMapElem, No, Done),
    (Func::Snprintf, No, Done),
    (Func::TimerInit, No, Done),
    (Func::TimerSetCallback, No, Done),
    (Func::TimerStart, No, Done),
    (Func::TimerCancel, No, Done),
    (Func::TraceVprintk, No, Done),
    (Func::Loop, No, Done),
    (Func::Strncmp, No, Done),
    (Func::CopyFromUserTask, No, Done),
    (Func::MapPushElem, No, Done),
    (Func::MapPopElem, No, Done),
    (Func::MapPeekElem, No, Done),
    (Func::MapLookupPercpuElem, No, Done),
    (Func::RingbufOutput, No, Done),
    (Func::RingbufReserve, No, Done),
    (Func::RingbufSubmit, No, Done),
    (Func::RingbufDiscard, No, Done),
    (Func::RingbufQuery, No, Done),
    (Func::PerfEventOutput, No, Done),
    (Func::TaskStorageGet, No, Done),
    (Func::TaskStorageDelete, No, Done),
    (Func::SkStorageGet, No, Done),
    (Func::SkStorageDelete, No, Done),
    (Func::InodeStorageGet, No, Done),
    (Func::InodeStorageDelete, No, Done),
    (Func::CgrpStorageGet, No, Done),
    (Func::CgrpStorageDelete, No, Done),
    (Func::TailCall, No, Done),
    (Func::SkbLoadBytes, No, Done),
    (Func::SkbStoreBytes, No, Done),
    (Func::SkbChangeHead, No, Done),
    (
        Func::GetHashRecalc,
        No,
        Partial("a number of bpfsim's own for each flow"),
    ),
    (Func::SkbPullData, No, Done),
    (Func::XdpLoadBytes, No, Done),
    (Func::XdpStoreBytes, No, Done),
    (Func::XdpGetBuffLen, No, Done),
    (Func::XdpAdjustHead, No, Done),
    (Func::XdpAdjustTail, No, Done),
    (Func::XdpAdjustMeta, No, Done),
    (Func::Redirect, No, Done),
    (Func::CsumDiff, No, Done),
    (
        Func::CsumUpdate,
        No,
        Partial("packets have no checksum of their own"),
    ),
    (Func::L3CsumReplace, No, Done),
    (Func::L4CsumReplace, No, Done),
    (Func::KptrXchg, No, Done),
    (Func::ThisCpuPtr, No, Done),
    (Func::PerCpuPtr, No, Done),
    (Func::DynptrFromMem, No, Done),
    (Func::DynptrRead, No, Done),
    (Func::DynptrWrite, No, Done),
    (Func::DynptrData, No, Done),
    (Func::RingbufReserveDynptr, No, Done),
    (Func::RingbufSubmitDynptr, No, Done),
    (Func::RingbufDiscardDynptr, No, Done),
    (Func::UserRingbufDrain, No, Done),
    (Func::FindVma, No, Done),
    (Func::GetStack, No, Partial("one frame: the program's own")),
    (
        Func::GetStackid,
        No,
        Partial("one frame: the program's own"),
    ),
    (
        Func::GetTaskStack,
        No,
        Partial("one frame: the program's own"),
    ),
    (Func::Jiffies64, No, Done),
    (Func::KtimeGetTaiNs, No, Done),
    (
        Func::SendSignal,
        No,
        Partial("signals are noted on the task and do nothing"),
    ),
    (
        Func::SendSignalThread,
        No,
        Partial("signals are noted on the task and do nothing"),
    ),
    (Func::BtfFindByNameKind, No, Done),
    (
        Func::KallsymsLookupName,
        No,
        Partial("knows the functions that BTF names"),
    ),
    (
        Func::ReadBranchRecords,
        No,
        Partial("as on a machine without branch records"),
    ),
    (
        Func::GetBranchSnapshot,
        No,
        Partial("as on a machine without branch records"),
    ),
    (
        Func::GetLocalStorage,
        No,
        Partial("storage of a run of its own, not of a cgroup"),
    ),
    (Func::GetNsCurrentPidTgid, No, Done),
    (Func::SeqWrite, No, Done),
    (Func::SeqPrintf, No, Done),
    (Func::SkLookupTcp, No, Done),
    (Func::SkLookupUdp, No, Done),
    (Func::SkcLookupTcp, No, Done),
    (Func::SkRelease, No, Done),
    (Func::SkFullsock, No, Done),
    (Func::TcpSock, No, Done),
    (Func::GetListenerSock, No, Done),
    (Func::SkbLoadBytesRelative, No, Done),
    (Func::SkbChangeTail, No, Done),
    (Func::SkbChangeType, No, Done),
    (Func::SetHash, No, Done),
    (Func::SetHashInvalid, No, Done),
    (Func::RedirectPeer, No, Done),
    (Func::RedirectNeigh, No, Done),
    (Func::RedirectMap, No, Done),
    (Func::CloneRedirect, No, Done),
    (Func::GetSocketCookie, No, Done),
    (Func::GetSocketUid, No, Done),
    (Func::SkAssign, No, Done),
    (Func::SkcToTcpSock, No, Done),
    (Func::SkcToTcp6Sock, No, Done),
    (Func::SkcToUdp6Sock, No, Done),
    (Func::SkcToTcpTimewaitSock, No, Done),
    (Func::SkcToTcpRequestSock, No, Done),
    (
        Func::SkcToUnixSock,
        No,
        Partial("there are no UNIX sockets"),
    ),
    (Func::SkcToMptcpSock, No, Partial("there is no MPTCP")),
    (Func::GetNetnsCookie, No, Partial("one network namespace")),
    (Func::GetRouteRealm, No, Partial("there are no routes")),
    (Func::GetCgroupClassid, No, Partial("there is no net_cls")),
    (Func::GetCurrentCgroupId, No, Done),
    (Func::GetCurrentAncestorCgroupId, No, Done),
    (Func::CurrentTaskUnderCgroup, No, Done),
    (Func::SkbUnderCgroup, No, Done),
    (Func::SkbCgroupId, No, Done),
    (Func::SkCgroupId, No, Done),
    (Func::SkbAncestorCgroupId, No, Done),
    (Func::SkAncestorCgroupId, No, Done),
];

/// Kfuncs: which, verifies, runs.
pub static KFUNCS: &[(&str, Status, Status)] = &[
    ("bpf_wq_init", No, Done),
    ("bpf_wq_set_callback_impl", No, Done),
    ("bpf_wq_start", No, Done),
    ("bpf_task_work_schedule_signal_impl", No, Done),
    ("bpf_task_work_schedule_resume_impl", No, Done),
    ("bpf_copy_from_user_str", No, Done),
    ("bpf_rcu_read_lock", No, Done),
    ("bpf_rcu_read_unlock", No, Done),
    ("bpf_preempt_disable", No, Done),
    ("bpf_preempt_enable", No, Done),
    ("bpf_local_irq_save", No, Done),
    ("bpf_local_irq_restore", No, Done),
    ("bpf_iter_num_new", No, Done),
    ("bpf_iter_num_next", No, Done),
    ("bpf_iter_num_destroy", No, Done),
    ("bpf_iter_bits_new", No, Done),
    ("bpf_iter_bits_next", No, Done),
    ("bpf_iter_bits_destroy", No, Done),
    ("bpf_task_from_pid", No, Done),
    ("bpf_task_acquire", No, Done),
    ("bpf_task_release", No, Done),
    ("bpf_throw", No, Done),
    ("__bpf_trap", No, Done),
    ("bpf_rdonly_cast", No, Done),
    ("bpf_map_sum_elem_count", No, Done),
    ("bpf_obj_new_impl", No, Done),
    ("bpf_percpu_obj_new_impl", No, Done),
    ("bpf_obj_drop_impl", No, Done),
    ("bpf_percpu_obj_drop_impl", No, Done),
    ("bpf_refcount_acquire_impl", No, Done),
    ("bpf_list_push_front_impl", No, Done),
    ("bpf_list_push_back_impl", No, Done),
    ("bpf_list_pop_front", No, Done),
    ("bpf_list_pop_back", No, Done),
    ("bpf_list_front", No, Done),
    ("bpf_list_back", No, Done),
    ("bpf_rbtree_add_impl", No, Done),
    ("bpf_rbtree_remove", No, Done),
    ("bpf_rbtree_first", No, Done),
    ("bpf_rbtree_root", No, Done),
    ("bpf_rbtree_left", No, Done),
    ("bpf_rbtree_right", No, Done),
    ("bpf_res_spin_lock", No, Done),
    ("bpf_res_spin_unlock", No, Done),
    ("bpf_res_spin_lock_irqsave", No, Done),
    ("bpf_res_spin_unlock_irqrestore", No, Done),
    ("bpf_cpumask_create", No, Done),
    ("bpf_cpumask_acquire", No, Done),
    ("bpf_cpumask_release", No, Done),
    ("bpf_cpumask_first", No, Done),
    ("bpf_cpumask_first_zero", No, Done),
    ("bpf_cpumask_first_and", No, Done),
    ("bpf_cpumask_set_cpu", No, Done),
    ("bpf_cpumask_clear_cpu", No, Done),
    ("bpf_cpumask_test_cpu", No, Done),
    ("bpf_cpumask_test_and_set_cpu", No, Done),
    ("bpf_cpumask_test_and_clear_cpu", No, Done),
    ("bpf_cpumask_setall", No, Done),
    ("bpf_cpumask_clear", No, Done),
    ("bpf_cpumask_and", No, Done),
    ("bpf_cpumask_or", No, Done),
    ("bpf_cpumask_xor", No, Done),
    ("bpf_cpumask_equal", No, Done),
    ("bpf_cpumask_intersects", No, Done),
    ("bpf_cpumask_subset", No, Done),
    ("bpf_cpumask_empty", No, Done),
    ("bpf_cpumask_full", No, Done),
    ("bpf_cpumask_copy", No, Done),
    ("bpf_cpumask_any_distribute", No, Done),
    ("bpf_cpumask_any_and_distribute", No, Done),
    ("bpf_cpumask_weight", No, Done),
    ("bpf_cpumask_populate", No, Done),
    ("bpf_dynptr_from_skb", No, Done),
    ("bpf_dynptr_from_xdp", No, Done),
    ("bpf_dynptr_from_skb_meta", No, Done),
    ("bpf_dynptr_slice", No, Done),
    ("bpf_dynptr_slice_rdwr", No, Done),
    ("bpf_dynptr_adjust", No, Done),
    ("bpf_dynptr_is_null", No, Done),
    ("bpf_dynptr_is_rdonly", No, Done),
    ("bpf_dynptr_size", No, Done),
    ("bpf_dynptr_clone", No, Done),
    ("bpf_dynptr_copy", No, Done),
    ("bpf_dynptr_memset", No, Done),
    ("bpf_probe_read_kernel_dynptr", No, Done),
    ("bpf_probe_read_kernel_str_dynptr", No, Done),
    ("bpf_probe_read_user_dynptr", No, Done),
    ("bpf_probe_read_user_str_dynptr", No, Done),
    ("bpf_copy_from_user_dynptr", No, Done),
    ("bpf_copy_from_user_str_dynptr", No, Done),
    ("bpf_copy_from_user_task_dynptr", No, Done),
    ("bpf_copy_from_user_task_str_dynptr", No, Done),
    ("bpf_strcmp", No, Done),
    ("bpf_strcasecmp", No, Done),
    ("bpf_strnchr", No, Done),
    ("bpf_strchr", No, Done),
    ("bpf_strchrnul", No, Done),
    ("bpf_strrchr", No, Done),
    ("bpf_strlen", No, Done),
    ("bpf_strnlen", No, Done),
    ("bpf_strspn", No, Done),
    ("bpf_strcspn", No, Done),
    ("bpf_strstr", No, Done),
    ("bpf_strnstr", No, Done),
    ("bpf_arena_alloc_pages", No, Done),
    ("bpf_arena_free_pages", No, Done),
    ("bpf_arena_reserve_pages", No, Done),
    ("bpf_iter_task_new", No, Done),
    ("bpf_iter_task_next", No, Done),
    ("bpf_iter_task_destroy", No, Done),
    ("bpf_iter_task_vma_new", No, Done),
    ("bpf_iter_task_vma_next", No, Done),
    ("bpf_iter_task_vma_destroy", No, Done),
    ("bpf_cgroup_acquire", No, Done),
    ("bpf_cgroup_release", No, Done),
    ("bpf_cgroup_ancestor", No, Done),
    ("bpf_cgroup_from_id", No, Done),
    ("bpf_task_under_cgroup", No, Done),
    ("bpf_cast_to_kern_ctx", No, Partial("contexts of packets")),
    ("bpf_task_from_vpid", No, Done),
    (
        "bpf_send_signal_task",
        No,
        Partial("signals are noted on the task and do nothing"),
    ),
    ("bpf_copy_from_user_task_str", No, Done),
    ("bpf_stream_vprintk_impl", No, Done),
    ("bpf_lookup_user_key", No, Partial("there are no keys")),
    ("bpf_lookup_system_key", No, Done),
    ("bpf_key_put", No, Done),
];

/// Map types: which, verifies, runs.
pub static MAP_TYPES: &[(MapType, Status, Status)] = &[
    (MapType::StructOps, No, Done),
    (MapType::Array, No, Done),
    (MapType::Hash, No, Done),
    (MapType::LruHash, No, Done),
    (MapType::PercpuArray, No, Done),
    (MapType::PercpuHash, No, Done),
    (MapType::LruPercpuHash, No, Done),
    (MapType::LpmTrie, No, Done),
    (MapType::ArrayOfMaps, No, Done),
    (MapType::HashOfMaps, No, Done),
    (MapType::ProgArray, No, Done),
    (MapType::PerfEventArray, No, Done),
    (MapType::Queue, No, Done),
    (MapType::Stack, No, Done),
    (MapType::BloomFilter, No, Done),
    (MapType::Ringbuf, No, Done),
    (MapType::TaskStorage, No, Done),
    (MapType::UserRingbuf, No, Done),
    (MapType::StackTrace, No, Done),
    (MapType::Arena, No, Done),
    (
        MapType::CgroupArray,
        No,
        Partial("there are no cgroups to put in"),
    ),
    (MapType::Devmap, No, Partial("holds lo, and no programs")),
    (
        MapType::DevmapHash,
        No,
        Partial("holds lo, and no programs"),
    ),
    (MapType::Cpumap, No, Partial("holds no programs")),
    (
        MapType::Xskmap,
        No,
        Partial("there are no sockets to put in"),
    ),
    (
        MapType::Sockmap,
        No,
        Partial("there are no sockets to put in"),
    ),
    (
        MapType::Sockhash,
        No,
        Partial("there are no sockets to put in"),
    ),
    (
        MapType::ReuseportSockarray,
        No,
        Partial("there are no sockets to put in"),
    ),
    (MapType::CgroupStorage, No, Partial("there are no cgroups")),
    (
        MapType::PercpuCgroupStorage,
        No,
        Partial("there are no cgroups"),
    ),
    (
        MapType::SkStorage,
        No,
        Partial("user space cannot name sockets"),
    ),
    (
        MapType::InodeStorage,
        No,
        Partial("user space cannot name inodes"),
    ),
    (
        MapType::CgrpStorage,
        No,
        Partial("user space cannot name cgroups"),
    ),
];

/// Program types: which, verifies, runs.
pub static PROG_TYPES: &[(ProgType, Status, Status)] = &[
    (ProgType::SocketFilter, No, Done),
    (ProgType::SchedCls, No, Done),
    (ProgType::SchedAct, No, Done),
    (ProgType::Xdp, No, Done),
    (ProgType::CgroupSkb, No, Done),
    (ProgType::LwtIn, No, Done),
    (ProgType::LwtOut, No, Done),
    (ProgType::LwtXmit, No, Done),
    (ProgType::LwtSeg6local, No, Done),
    (ProgType::SkSkb, No, Done),
    (ProgType::FlowDissector, No, Done),
    (ProgType::Syscall, No, Done),
];

fn find<T: Copy + PartialEq>(rows: &[(T, Status, Status)], what: T) -> Support {
    let row = rows.iter().find(|(which, ..)| *which == what);
    row.map_or_else(Support::default, |(_, verify, run)| Support {
        verify: *verify,
        run: *run,
    })
}

/// What bpfsim does with a helper.
#[must_use]
pub fn helper(func: Func) -> Support {
    find(HELPERS, func)
}

/// What bpfsim does with a kfunc.
#[must_use]
pub fn kfunc(name: &str) -> Support {
    let row = KFUNCS.iter().find(|(which, ..)| *which == name);
    row.map_or_else(Support::default, |(_, verify, run)| Support {
        verify: *verify,
        run: *run,
    })
}

/// What bpfsim does with a map type.
#[must_use]
pub fn map_type(map_type: MapType) -> Support {
    find(MAP_TYPES, map_type)
}

/// What bpfsim does with a program type.
#[must_use]
pub fn prog_type(prog_type: ProgType) -> Support {
    find(PROG_TYPES, prog_type)
}
