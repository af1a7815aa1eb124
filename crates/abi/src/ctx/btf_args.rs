//! What BTF does not say of the arguments of tracing programs: `bpf_iter_reg::ctx_arg_info` and
//! `raw_tp_null_args` of the kernel, as a 6.18 kernel showed them.
//!
//! The fields that stay trusted or RCU protected when followed (`BTF_TYPE_SAFE_*`) are structures
//! of the kernel's BTF itself: `task_struct__safe_rcu` and so on.
use crate::{AttachType, KernelVersion, ProgType};

/// What an argument of an iterator program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IterArg {
    /// A number.
    Scalar,
    /// `PTR_TO_BTF_ID | PTR_TRUSTED`
    Trusted(&'static str),
    /// `PTR_TO_BTF_ID_OR_NULL | PTR_TRUSTED`
    TrustedOrNull(&'static str),
    /// `PTR_TO_BTF_ID_OR_NULL`
    BtfOrNull(&'static str),
    /// `PTR_TO_BUF | PTR_MAYBE_NULL`: the map's value.
    BufOrNull,
    /// `PTR_TO_BUF | PTR_MAYBE_NULL | MEM_RDONLY`: the map's key.
    RdonlyBufOrNull,
}
use IterArg::{BtfOrNull, BufOrNull, RdonlyBufOrNull, Scalar, Trusted, TrustedOrNull};

/// A target of iterator programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IterTarget {
    /// `bpf_iter_reg::target`: the program attaches to `bpf_iter_` and this.
    pub name: &'static str,
    /// Its arguments in order, 8 bytes of context each, with their names in `struct bpf_iter__*`.
    pub args: &'static [(&'static str, IterArg)],
    /// The first kernel that has it; 5.15 stands for 5.15 or before.
    pub since: KernelVersion,
}

macro_rules! iter_targets {
    ($($name:ident: $since:ident [$($arg:ident = $ty:expr),*];)*) => {
        /// Every target of iterator programs.
        pub static ITER_TARGETS: &[IterTarget] = &[$(IterTarget {
            name: stringify!($name),
            args: &[$((stringify!($arg), $ty)),*],
            since: KernelVersion::$since,
        }),*];
    };
}

iter_targets! {
    bpf_link: V5_19 [meta = Trusted("bpf_iter_meta"), link = BtfOrNull("bpf_link")];
    bpf_map: V5_15 [meta = Trusted("bpf_iter_meta"), map = TrustedOrNull("bpf_map")];
    bpf_map_elem: V5_15 [meta = Trusted("bpf_iter_meta"), map = Trusted("bpf_map"), key = RdonlyBufOrNull, value = BufOrNull];
    bpf_prog: V5_15 [meta = Trusted("bpf_iter_meta"), prog = BtfOrNull("bpf_prog")];
    bpf_sk_storage_map: V5_15 [meta = Trusted("bpf_iter_meta"), map = Trusted("bpf_map"), sk = BtfOrNull("sock"), value = BufOrNull];
    cgroup: V6_1 [meta = Trusted("bpf_iter_meta"), cgroup = TrustedOrNull("cgroup")];
    dmabuf: V6_16 [meta = Trusted("bpf_iter_meta"), dmabuf = BtfOrNull("dma_buf")];
    ipv6_route: V5_15 [meta = Trusted("bpf_iter_meta"), rt = BtfOrNull("fib6_info")];
    kmem_cache: V6_13 [meta = Trusted("bpf_iter_meta"), s = TrustedOrNull("kmem_cache")];
    ksym: V6_0 [meta = Trusted("bpf_iter_meta"), ksym = BtfOrNull("kallsym_iter")];
    netlink: V5_15 [meta = Trusted("bpf_iter_meta"), sk = BtfOrNull("netlink_sock")];
    sockmap: V5_15 [meta = Trusted("bpf_iter_meta"), map = Trusted("bpf_map"), key = RdonlyBufOrNull, sk = BtfOrNull("sock")];
    task: V5_15 [meta = Trusted("bpf_iter_meta"), task = TrustedOrNull("task_struct")];
    task_file: V5_15 [meta = Trusted("bpf_iter_meta"), task = BtfOrNull("task_struct"), fd = Scalar, file = BtfOrNull("file")];
    task_vma: V5_15 [meta = Trusted("bpf_iter_meta"), task = BtfOrNull("task_struct"), vma = BtfOrNull("vm_area_struct")];
    tcp: V5_15 [meta = Trusted("bpf_iter_meta"), sk_common = TrustedOrNull("sock_common"), uid = Scalar];
    udp: V5_15 [meta = Trusted("bpf_iter_meta"), udp_sk = TrustedOrNull("udp_sock"), uid = Scalar, bucket = Scalar];
    unix: V5_15 [meta = Trusted("bpf_iter_meta"), unix_sk = BtfOrNull("unix_sock"), uid = Scalar];
}

/// The iterator that a program attached to this function is; `func` begins with `bpf_iter_`.
#[must_use]
pub fn iter_target(func: &str) -> Option<&'static IterTarget> {
    let name = func.strip_prefix("bpf_iter_")?;
    ITER_TARGETS.iter().find(|t| t.name == name)
}

/// Whether pointers among the arguments of such a program are trusted: `prog_args_trusted`. An
/// LSM program's are not on the hooks of
/// [`UNTRUSTED_LSM_HOOKS`](crate::prog::UNTRUSTED_LSM_HOOKS).
#[must_use]
pub fn args_trusted(prog_type: ProgType, attach_type: AttachType) -> bool {
    match prog_type {
        ProgType::Tracing => matches!(attach_type, AttachType::TraceRawTp | AttachType::TraceIter),
        ProgType::Lsm | ProgType::StructOps => true,
        _ => false,
    }
}

/// Why a tracepoint's argument is no pointer that may be followed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawTpArg {
    /// It may be null: `PTR_MAYBE_NULL`.
    Null,
    /// It may be an error pointer: a number.
    Err,
}
use RawTpArg::{Err, Null};

/// `raw_tp_null_args`: tracepoint, argument from 0, why. Sorted by tracepoint.
pub static RAW_TP_ARGS: &[(&str, u8, RawTpArg)] = &[
    ("afs_flock_ev", 1, Null),
    ("afs_make_fs_call", 1, Null),
    ("afs_make_fs_call1", 1, Null),
    ("afs_make_fs_call2", 1, Null),
    ("afs_make_fs_calli", 1, Null),
    ("afs_protocol_error", 0, Null),
    ("amdgpu_vm_bo_map", 0, Null),
    ("amdgpu_vm_bo_unmap", 0, Null),
    ("break_lease_block", 1, Null),
    ("break_lease_noblock", 1, Null),
    ("break_lease_unblock", 1, Null),
    ("cachefiles_io_error", 0, Null),
    ("cachefiles_lookup", 0, Null),
    ("cachefiles_lookup", 2, Err),
    ("cachefiles_mark_active", 0, Null),
    ("cachefiles_mark_failed", 0, Null),
    ("cachefiles_mark_inactive", 0, Null),
    ("cachefiles_ondemand_close", 0, Null),
    ("cachefiles_ondemand_copen", 0, Null),
    ("cachefiles_ondemand_cread", 0, Null),
    ("cachefiles_ondemand_fd_release", 0, Null),
    ("cachefiles_ondemand_fd_write", 0, Null),
    ("cachefiles_ondemand_open", 0, Null),
    ("cachefiles_ondemand_read", 0, Null),
    ("cachefiles_prep_read", 0, Null),
    ("cachefiles_rename", 0, Null),
    ("cachefiles_unlink", 0, Null),
    ("cachefiles_vfs_error", 0, Null),
    ("device_pm_callback_start", 1, Null),
    ("ext4_mballoc_discard", 1, Null),
    ("ext4_mballoc_free", 1, Null),
    ("fcntl_setlk", 1, Null),
    ("fib_table_lookup", 2, Null),
    ("flock_lock_inode", 1, Null),
    ("folio_wait_writeback", 1, Null),
    ("generic_delete_lease", 1, Null),
    ("host1x_cdma_push_gather", 4, Null),
    ("hugetlbfs_alloc_inode", 1, Null),
    ("kfree_skb", 3, Null),
    ("locks_remove_posix", 1, Null),
    ("mm_collapse_huge_page_isolate", 0, Null),
    ("mm_khugepaged_collapse_file", 1, Null),
    ("mm_khugepaged_scan_file", 1, Null),
    ("mm_khugepaged_scan_pmd", 1, Null),
    ("mm_page_alloc", 0, Null),
    ("mm_page_alloc_zone_locked", 0, Null),
    ("mm_page_pcpu_drain", 0, Null),
    ("mr_integ_alloc", 3, Err),
    ("netfs_failure", 1, Null),
    ("netfs_folioq", 0, Null),
    ("posix_lock_inode", 1, Null),
    ("qdisc_dequeue", 3, Null),
    ("rxrpc_client", 0, Null),
    ("rxrpc_recvdata", 0, Null),
    ("rxrpc_resend", 1, Null),
    ("rxrpc_tq", 1, Null),
    ("sched_pi_setprio", 1, Null),
    ("sched_stick_numa", 2, Null),
    ("sched_swap_numa", 2, Null),
    ("tcp_send_reset", 0, Null),
    ("tcp_send_reset", 1, Null),
    ("tcp_sendmsg_locked", 2, Null),
    ("tegra_dma_tx_status", 2, Null),
    ("time_out_leases", 1, Null),
    ("tmigr_update_events", 0, Null),
    ("writeback_dirty_folio", 1, Null),
    ("xfs_blockgc_flush_all", 0, Null),
    ("xfs_blockgc_free_space", 1, Null),
    ("xfs_blockgc_start", 0, Null),
    ("xfs_blockgc_stop", 0, Null),
    ("xfs_blockgc_worker", 0, Null),
    ("xfs_btree_overlapped_query_range", 2, Null),
    ("xfs_btree_updkeys", 2, Null),
    ("xfs_defer_add_item", 0, Null),
    ("xfs_defer_cancel_item", 0, Null),
    ("xfs_defer_cancel_list", 0, Null),
    ("xfs_defer_create_intent", 0, Null),
    ("xfs_defer_finish_item", 0, Null),
    ("xfs_defer_isolate_paused", 0, Null),
    ("xfs_defer_item_pause", 0, Null),
    ("xfs_defer_item_unpause", 0, Null),
    ("xfs_defer_pending_abort", 0, Null),
    ("xfs_defer_pending_finish", 0, Null),
    ("xfs_defer_relog_intent", 0, Null),
    ("xfs_fs_sync_fs", 0, Null),
    ("xfs_inodegc_flush", 0, Null),
    ("xfs_inodegc_push", 0, Null),
    ("xfs_inodegc_queue", 0, Null),
    ("xfs_inodegc_start", 0, Null),
    ("xfs_inodegc_stop", 0, Null),
    ("xfs_inodegc_throttle", 0, Null),
    ("xfs_ioc_free_eofblocks", 1, Null),
    ("xfs_map_blocks_alloc", 4, Null),
    ("xfs_map_blocks_found", 4, Null),
    ("xprt_get_cong", 1, Null),
    ("xprt_put_cong", 1, Null),
    ("xprt_release_cong", 1, Null),
    ("xprt_reserve_cong", 1, Null),
    ("xs_stream_read_data", 0, Null),
];

/// Why the argument of a tracepoint may not be followed at once, if so.
#[must_use]
pub fn raw_tp_arg(tracepoint: &str, arg: u8) -> Option<RawTpArg> {
    let first = RAW_TP_ARGS.partition_point(|(name, ..)| *name < tracepoint);
    RAW_TP_ARGS[first..]
        .iter()
        .take_while(|(name, ..)| *name == tracepoint)
        .find(|(_, at, _)| *at == arg)
        .map(|(.., why)| *why)
}
