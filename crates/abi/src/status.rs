//! What bpfsim itself does with a row of the tables.
//!
//! The only place to edit when something is implemented: what is not listed here is not there,
//! and is refused by name. A row says whether it runs; what the verifier judges, the verifier says
//! itself.
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

/// Helpers: which, and whether it runs.
pub static HELPERS: &[(Func, Status)] = &[
    (Func::MapLookupElem, Done),
    (Func::MapUpdateElem, Done),
    (Func::MapDeleteElem, Done),
    (Func::ProbeRead, Done),
    (Func::KtimeGetNs, Done),
    (Func::TracePrintk, Done),
    (Func::GetPrandomU32, Done),
    (Func::GetSmpProcessorId, Done),
    (Func::GetCurrentPidTgid, Done),
    (Func::GetCurrentUidGid, Done),
    (Func::GetCurrentComm, Done),
    (Func::GetCurrentTask, Done),
    (Func::ProbeWriteUser, Done),
    (Func::GetNumaNodeId, Done),
    (Func::ProbeReadStr, Done),
    (Func::SpinLock, Done),
    (Func::SpinUnlock, Done),
    (Func::Strtol, Done),
    (Func::Strtoul, Done),
    (Func::ProbeReadUser, Done),
    (Func::ProbeReadKernel, Done),
    (Func::ProbeReadUserStr, Done),
    (Func::ProbeReadKernelStr, Done),
    (Func::KtimeGetBootNs, Done),
    (Func::CopyFromUser, Done),
    (Func::GetCurrentTaskBtf, Done),
    (Func::KtimeGetCoarseNs, Done),
    (Func::ForEachMapElem, Done),
    (Func::Snprintf, Done),
    (Func::TimerInit, Done),
    (Func::TimerSetCallback, Done),
    (Func::TimerStart, Done),
    (Func::TimerCancel, Done),
    (Func::TraceVprintk, Done),
    (Func::Loop, Done),
    (Func::Strncmp, Done),
    (Func::CopyFromUserTask, Done),
    (Func::MapPushElem, Done),
    (Func::MapPopElem, Done),
    (Func::MapPeekElem, Done),
    (Func::MapLookupPercpuElem, Done),
    (Func::RingbufOutput, Done),
    (Func::RingbufReserve, Done),
    (Func::RingbufSubmit, Done),
    (Func::RingbufDiscard, Done),
    (Func::RingbufQuery, Done),
    (Func::PerfEventOutput, Done),
    (Func::TaskStorageGet, Done),
    (Func::TaskStorageDelete, Done),
    (Func::SkStorageGet, Done),
    (Func::SkStorageDelete, Done),
    (Func::InodeStorageGet, Done),
    (Func::InodeStorageDelete, Done),
    (Func::CgrpStorageGet, Done),
    (Func::CgrpStorageDelete, Done),
    (Func::TailCall, Done),
    (Func::SkbLoadBytes, Done),
    (Func::SkbStoreBytes, Done),
    (Func::SkbChangeHead, Done),
    (
        Func::GetHashRecalc,
        Partial("a number of bpfsim's own for each flow"),
    ),
    (Func::SkbPullData, Done),
    (Func::XdpLoadBytes, Done),
    (Func::XdpStoreBytes, Done),
    (Func::XdpGetBuffLen, Done),
    (Func::XdpAdjustHead, Done),
    (Func::XdpAdjustTail, Done),
    (Func::XdpAdjustMeta, Done),
    (Func::Redirect, Done),
    (Func::CsumDiff, Done),
    (
        Func::CsumUpdate,
        Partial("packets have no checksum of their own"),
    ),
    (Func::L3CsumReplace, Done),
    (Func::L4CsumReplace, Done),
    (Func::KptrXchg, Done),
    (Func::ThisCpuPtr, Done),
    (Func::PerCpuPtr, Done),
    (Func::DynptrFromMem, Done),
    (Func::DynptrRead, Done),
    (Func::DynptrWrite, Done),
    (Func::DynptrData, Done),
    (Func::RingbufReserveDynptr, Done),
    (Func::RingbufSubmitDynptr, Done),
    (Func::RingbufDiscardDynptr, Done),
    (Func::UserRingbufDrain, Done),
    (Func::FindVma, Done),
    (Func::GetStack, Partial("one frame: the program's own")),
    (Func::GetStackid, Partial("one frame: the program's own")),
    (Func::GetTaskStack, Partial("one frame: the program's own")),
    (Func::Jiffies64, Done),
    (Func::KtimeGetTaiNs, Done),
    (
        Func::SendSignal,
        Partial("signals are noted on the task and do nothing"),
    ),
    (
        Func::SendSignalThread,
        Partial("signals are noted on the task and do nothing"),
    ),
    (Func::BtfFindByNameKind, Done),
    (
        Func::KallsymsLookupName,
        Partial("knows the functions that BTF names"),
    ),
    (
        Func::ReadBranchRecords,
        Partial("as on a machine without branch records"),
    ),
    (
        Func::GetBranchSnapshot,
        Partial("as on a machine without branch records"),
    ),
    (
        Func::GetLocalStorage,
        Partial("storage of a run of its own, not of a cgroup"),
    ),
    (Func::GetNsCurrentPidTgid, Done),
    (Func::SeqWrite, Done),
    (Func::SeqPrintf, Done),
    (Func::SkLookupTcp, Done),
    (Func::SkLookupUdp, Done),
    (Func::SkcLookupTcp, Done),
    (Func::SkRelease, Done),
    (Func::SkFullsock, Done),
    (Func::TcpSock, Done),
    (Func::GetListenerSock, Done),
    (Func::SkbLoadBytesRelative, Done),
    (Func::SkbChangeTail, Done),
    (Func::SkbChangeType, Done),
    (Func::SetHash, Done),
    (Func::SetHashInvalid, Done),
    (Func::RedirectPeer, Done),
    (Func::RedirectNeigh, Done),
    (Func::RedirectMap, Done),
    (Func::CloneRedirect, Done),
    (Func::GetSocketCookie, Done),
    (Func::GetSocketUid, Done),
    (Func::SkAssign, Done),
    (Func::SkcToTcpSock, Done),
    (Func::SkcToTcp6Sock, Done),
    (Func::SkcToUdp6Sock, Done),
    (Func::SkcToTcpTimewaitSock, Done),
    (Func::SkcToTcpRequestSock, Done),
    (Func::SkcToUnixSock, Partial("there are no UNIX sockets")),
    (Func::SkcToMptcpSock, Partial("there is no MPTCP")),
    (Func::GetNetnsCookie, Partial("one network namespace")),
    (Func::GetRouteRealm, Partial("there are no routes")),
    (Func::GetCgroupClassid, Partial("there is no net_cls")),
    (Func::GetCurrentCgroupId, Done),
    (Func::GetCurrentAncestorCgroupId, Done),
    (Func::CurrentTaskUnderCgroup, Done),
    (Func::SkbUnderCgroup, Done),
    (Func::SkbCgroupId, Done),
    (Func::SkCgroupId, Done),
    (Func::SkbAncestorCgroupId, Done),
    (Func::SkAncestorCgroupId, Done),
    (Func::SkbAdjustRoom, Done),
    (Func::SkbVlanPush, Done),
    (Func::SkbVlanPop, Done),
    (Func::SkbEcnSetCe, Done),
    (Func::SkbSetTstamp, Done),
    (Func::CsumLevel, Done),
    (Func::GetRetval, Done),
    (Func::SetRetval, Done),
    (Func::TaskPtRegs, Done),
    (Func::DPath, Done),
    (Func::SkbChangeProto, Partial("packets of one segment")),
    (
        Func::CheckMtu,
        Partial("of segments only their headers' least length is known"),
    ),
    (
        Func::FibLookup,
        Partial("one table of rules: local, then main; no nexthop groups, no tunnels"),
    ),
    (Func::SockFromFile, Partial("no file is a socket's")),
];

/// Kfuncs: which, and whether it runs.
pub static KFUNCS: &[(&str, Status)] = &[
    ("bpf_wq_init", Done),
    ("bpf_wq_set_callback_impl", Done),
    ("bpf_wq_start", Done),
    ("bpf_task_work_schedule_signal_impl", Done),
    ("bpf_task_work_schedule_resume_impl", Done),
    ("bpf_copy_from_user_str", Done),
    ("bpf_rcu_read_lock", Done),
    ("bpf_rcu_read_unlock", Done),
    ("bpf_preempt_disable", Done),
    ("bpf_preempt_enable", Done),
    ("bpf_local_irq_save", Done),
    ("bpf_local_irq_restore", Done),
    ("bpf_iter_num_new", Done),
    ("bpf_iter_num_next", Done),
    ("bpf_iter_num_destroy", Done),
    ("bpf_iter_bits_new", Done),
    ("bpf_iter_bits_next", Done),
    ("bpf_iter_bits_destroy", Done),
    ("bpf_task_from_pid", Done),
    ("bpf_task_acquire", Done),
    ("bpf_task_release", Done),
    ("bpf_throw", Done),
    ("__bpf_trap", Done),
    ("bpf_rdonly_cast", Done),
    ("bpf_map_sum_elem_count", Done),
    ("bpf_obj_new_impl", Done),
    ("bpf_percpu_obj_new_impl", Done),
    ("bpf_obj_drop_impl", Done),
    ("bpf_percpu_obj_drop_impl", Done),
    ("bpf_refcount_acquire_impl", Done),
    ("bpf_list_push_front_impl", Done),
    ("bpf_list_push_back_impl", Done),
    ("bpf_list_pop_front", Done),
    ("bpf_list_pop_back", Done),
    ("bpf_list_front", Done),
    ("bpf_list_back", Done),
    ("bpf_rbtree_add_impl", Done),
    ("bpf_rbtree_remove", Done),
    ("bpf_rbtree_first", Done),
    ("bpf_rbtree_root", Done),
    ("bpf_rbtree_left", Done),
    ("bpf_rbtree_right", Done),
    ("bpf_res_spin_lock", Done),
    ("bpf_res_spin_unlock", Done),
    ("bpf_res_spin_lock_irqsave", Done),
    ("bpf_res_spin_unlock_irqrestore", Done),
    ("bpf_cpumask_create", Done),
    ("bpf_cpumask_acquire", Done),
    ("bpf_cpumask_release", Done),
    ("bpf_cpumask_first", Done),
    ("bpf_cpumask_first_zero", Done),
    ("bpf_cpumask_first_and", Done),
    ("bpf_cpumask_set_cpu", Done),
    ("bpf_cpumask_clear_cpu", Done),
    ("bpf_cpumask_test_cpu", Done),
    ("bpf_cpumask_test_and_set_cpu", Done),
    ("bpf_cpumask_test_and_clear_cpu", Done),
    ("bpf_cpumask_setall", Done),
    ("bpf_cpumask_clear", Done),
    ("bpf_cpumask_and", Done),
    ("bpf_cpumask_or", Done),
    ("bpf_cpumask_xor", Done),
    ("bpf_cpumask_equal", Done),
    ("bpf_cpumask_intersects", Done),
    ("bpf_cpumask_subset", Done),
    ("bpf_cpumask_empty", Done),
    ("bpf_cpumask_full", Done),
    ("bpf_cpumask_copy", Done),
    ("bpf_cpumask_any_distribute", Done),
    ("bpf_cpumask_any_and_distribute", Done),
    ("bpf_cpumask_weight", Done),
    ("bpf_cpumask_populate", Done),
    ("bpf_dynptr_from_skb", Done),
    ("bpf_dynptr_from_xdp", Done),
    ("bpf_dynptr_from_skb_meta", Done),
    ("bpf_dynptr_slice", Done),
    ("bpf_dynptr_slice_rdwr", Done),
    ("bpf_dynptr_adjust", Done),
    ("bpf_dynptr_is_null", Done),
    ("bpf_dynptr_is_rdonly", Done),
    ("bpf_dynptr_size", Done),
    ("bpf_dynptr_clone", Done),
    ("bpf_dynptr_copy", Done),
    ("bpf_dynptr_memset", Done),
    ("bpf_probe_read_kernel_dynptr", Done),
    ("bpf_probe_read_kernel_str_dynptr", Done),
    ("bpf_probe_read_user_dynptr", Done),
    ("bpf_probe_read_user_str_dynptr", Done),
    ("bpf_copy_from_user_dynptr", Done),
    ("bpf_copy_from_user_str_dynptr", Done),
    ("bpf_copy_from_user_task_dynptr", Done),
    ("bpf_copy_from_user_task_str_dynptr", Done),
    ("bpf_strcmp", Done),
    ("bpf_strcasecmp", Done),
    ("bpf_strnchr", Done),
    ("bpf_strchr", Done),
    ("bpf_strchrnul", Done),
    ("bpf_strrchr", Done),
    ("bpf_strlen", Done),
    ("bpf_strnlen", Done),
    ("bpf_strspn", Done),
    ("bpf_strcspn", Done),
    ("bpf_strstr", Done),
    ("bpf_strnstr", Done),
    ("bpf_arena_alloc_pages", Done),
    ("bpf_arena_free_pages", Done),
    ("bpf_arena_reserve_pages", Done),
    ("bpf_iter_task_new", Done),
    ("bpf_iter_task_next", Done),
    ("bpf_iter_task_destroy", Done),
    ("bpf_iter_task_vma_new", Done),
    ("bpf_iter_task_vma_next", Done),
    ("bpf_iter_task_vma_destroy", Done),
    ("bpf_cgroup_acquire", Done),
    ("bpf_cgroup_release", Done),
    ("bpf_cgroup_ancestor", Done),
    ("bpf_cgroup_from_id", Done),
    ("bpf_task_under_cgroup", Done),
    ("bpf_cast_to_kern_ctx", Partial("contexts of packets")),
    ("bpf_task_from_vpid", Done),
    (
        "bpf_send_signal_task",
        Partial("signals are noted on the task and do nothing"),
    ),
    ("bpf_copy_from_user_task_str", Done),
    ("bpf_stream_vprintk_impl", Done),
    ("bpf_lookup_user_key", Partial("there are no keys")),
    ("bpf_lookup_system_key", Done),
    ("bpf_key_put", Done),
    ("bpf_iter_css_new", Done),
    ("bpf_iter_css_next", Done),
    ("bpf_iter_css_destroy", Done),
    ("bpf_iter_css_task_new", Done),
    ("bpf_iter_css_task_next", Done),
    ("bpf_iter_css_task_destroy", Done),
    ("bpf_path_d_path", Done),
    ("bpf_get_task_exe_file", Done),
    ("bpf_put_file", Done),
    ("bpf_get_file_xattr", Done),
    ("bpf_get_dentry_xattr", Done),
    ("bpf_set_dentry_xattr", Done),
    ("bpf_remove_dentry_xattr", Done),
    ("bpf_cgroup_read_xattr", Done),
    (
        "bpf_task_get_cgroup1",
        Partial("there is the unified hierarchy only"),
    ),
];

/// Map types: which, and whether it runs.
pub static MAP_TYPES: &[(MapType, Status)] = &[
    (MapType::StructOps, Done),
    (MapType::Array, Done),
    (MapType::Hash, Done),
    (MapType::LruHash, Done),
    (MapType::PercpuArray, Done),
    (MapType::PercpuHash, Done),
    (MapType::LruPercpuHash, Done),
    (MapType::LpmTrie, Done),
    (MapType::ArrayOfMaps, Done),
    (MapType::HashOfMaps, Done),
    (MapType::ProgArray, Done),
    (MapType::PerfEventArray, Done),
    (MapType::Queue, Done),
    (MapType::Stack, Done),
    (MapType::BloomFilter, Done),
    (MapType::Ringbuf, Done),
    (MapType::TaskStorage, Done),
    (MapType::UserRingbuf, Done),
    (MapType::StackTrace, Done),
    (MapType::Arena, Done),
    (
        MapType::CgroupArray,
        Partial("there are no cgroups to put in"),
    ),
    (MapType::Devmap, Partial("holds lo, and no programs")),
    (MapType::DevmapHash, Partial("holds lo, and no programs")),
    (MapType::Cpumap, Partial("holds no programs")),
    (MapType::Xskmap, Partial("there are no sockets to put in")),
    (MapType::Sockmap, Partial("there are no sockets to put in")),
    (MapType::Sockhash, Partial("there are no sockets to put in")),
    (
        MapType::ReuseportSockarray,
        Partial("there are no sockets to put in"),
    ),
    (MapType::CgroupStorage, Partial("there are no cgroups")),
    (
        MapType::PercpuCgroupStorage,
        Partial("there are no cgroups"),
    ),
    (
        MapType::SkStorage,
        Partial("user space cannot name sockets"),
    ),
    (
        MapType::InodeStorage,
        Partial("user space cannot name inodes"),
    ),
    (
        MapType::CgrpStorage,
        Partial("user space cannot name cgroups"),
    ),
];

/// Of program types that no event runs yet.
const GIVEN: &str = "runs with the context that a test gives it; nothing attaches it";

/// Program types: which, and whether it runs.
pub static PROG_TYPES: &[(ProgType, Status)] = &[
    (ProgType::SocketFilter, Done),
    (ProgType::SchedCls, Done),
    (ProgType::SchedAct, Done),
    (ProgType::Xdp, Done),
    (ProgType::CgroupSkb, Done),
    (ProgType::LwtIn, Done),
    (ProgType::LwtOut, Done),
    (ProgType::LwtXmit, Done),
    (ProgType::LwtSeg6local, Done),
    (ProgType::SkSkb, Done),
    (ProgType::FlowDissector, Done),
    (ProgType::Syscall, Done),
    (ProgType::SkLookup, Done),
    (ProgType::Kprobe, Partial(GIVEN)),
    (ProgType::Tracepoint, Partial(GIVEN)),
    (ProgType::PerfEvent, Partial(GIVEN)),
    (ProgType::RawTracepoint, Partial(GIVEN)),
    (ProgType::RawTracepointWritable, Partial(GIVEN)),
    (ProgType::Tracing, Partial(GIVEN)),
    (ProgType::Lsm, Partial(GIVEN)),
    (ProgType::StructOps, Partial(GIVEN)),
    (ProgType::CgroupSock, Partial(GIVEN)),
    (ProgType::CgroupSockAddr, Partial(GIVEN)),
    (ProgType::CgroupSockopt, Partial(GIVEN)),
    (ProgType::CgroupSysctl, Partial(GIVEN)),
    (ProgType::CgroupDevice, Partial(GIVEN)),
    (ProgType::SockOps, Partial(GIVEN)),
    (ProgType::SkMsg, Partial(GIVEN)),
    (ProgType::SkReuseport, Partial(GIVEN)),
    (ProgType::LircMode2, Partial(GIVEN)),
];

fn find<T: Copy + PartialEq>(rows: &[(T, Status)], what: T) -> Status {
    let row = rows.iter().find(|(which, _)| *which == what);
    row.map_or(No, |(_, run)| *run)
}

/// Whether bpfsim runs a helper.
#[must_use]
pub fn helper(func: Func) -> Status {
    find(HELPERS, func)
}

/// Whether bpfsim runs a kfunc.
#[must_use]
pub fn kfunc(name: &str) -> Status {
    let row = KFUNCS.iter().find(|(which, _)| *which == name);
    row.map_or(No, |(_, run)| *run)
}

/// Whether bpfsim makes maps of a type.
#[must_use]
pub fn map_type(map_type: MapType) -> Status {
    find(MAP_TYPES, map_type)
}

/// Whether bpfsim runs programs of a type.
#[must_use]
pub fn prog_type(prog_type: ProgType) -> Status {
    find(PROG_TYPES, prog_type)
}
