//! Prototypes of `kernel/bpf`: maps, ring buffers, dynptrs, timers, strings, cgroups.
#![allow(non_upper_case_globals)] // The names are the kernel's symbols.
use super::Of::{Btf, Size};
use super::proto::protos;

protos! {
    // kernel/bpf/bpf_cgrp_storage.c
    bpf_cgrp_storage_get_proto: CgrpStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("cgroup")), ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING);
    bpf_cgrp_storage_delete_proto: CgrpStorageDelete =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("cgroup")));
    // kernel/bpf/bpf_inode_storage.c
    bpf_inode_storage_get_proto: InodeStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("inode")), ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING);
    bpf_inode_storage_delete_proto: InodeStorageDelete =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("inode")));
    // kernel/bpf/bpf_iter.c
    bpf_for_each_map_elem_proto: ForEachMapElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING);
    bpf_loop_proto: Loop =>
        RET_INTEGER, (ARG_ANYTHING, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING);
    // kernel/bpf/bpf_lsm.c
    bpf_bprm_opts_set_proto: BprmOptsSet =>
        RET_INTEGER, (ARG_PTR_TO_BTF_ID(Btf("linux_binprm")), ARG_ANYTHING);
    bpf_ima_inode_hash_proto: ImaInodeHash =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("inode")), ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE), MIGHT_SLEEP if SleepableLsmHook;
    bpf_ima_file_hash_proto: ImaFileHash =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("file")), ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE), MIGHT_SLEEP if SleepableLsmHook;
    bpf_get_attach_cookie_proto: GetAttachCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    // kernel/bpf/bpf_task_storage.c
    bpf_task_storage_get_proto: TaskStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("task_struct")), ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING);
    bpf_task_storage_delete_proto: TaskStorageDelete =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("task_struct")));
    // kernel/bpf/btf.c
    bpf_btf_find_by_name_kind_proto: BtfFindByNameKind =>
        RET_INTEGER, (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING, ARG_ANYTHING), MIGHT_SLEEP;
    // kernel/bpf/cgroup.c
    bpf_sysctl_get_name_proto: SysctlGetName =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_sysctl_get_current_value_proto: SysctlGetCurrentValue =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_sysctl_get_new_value_proto: SysctlGetNewValue =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_sysctl_set_new_value_proto: SysctlSetNewValue =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_get_netns_cookie_sockopt_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    bpf_get_local_storage_proto: GetLocalStorage => RET_PTR_TO_MAP_VALUE, (ARG_CONST_MAP_PTR, ARG_ANYTHING);
    bpf_get_retval_proto: GetRetval => RET_INTEGER, ();
    bpf_set_retval_proto: SetRetval => RET_INTEGER, (ARG_ANYTHING);
    // kernel/bpf/core.c
    bpf_tail_call_proto: TailCall => RET_VOID, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING), CHANGES_PKT;
    // kernel/bpf/helpers.c
    bpf_event_output_data_proto: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_ktime_get_coarse_ns_proto: KtimeGetCoarseNs => RET_INTEGER, ();
    bpf_get_smp_processor_id_proto: GetSmpProcessorId => RET_INTEGER, (), FASTCALL;
    bpf_map_lookup_elem_proto: MapLookupElem =>
        RET_PTR_TO_MAP_VALUE_OR_NULL, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY), PKT_ACCESS;
    bpf_map_update_elem_proto: MapUpdateElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_PTR_TO_MAP_VALUE, ARG_ANYTHING), PKT_ACCESS;
    bpf_map_delete_elem_proto: MapDeleteElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY), PKT_ACCESS;
    bpf_map_push_elem_proto: MapPushElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE, ARG_ANYTHING), PKT_ACCESS;
    bpf_map_pop_elem_proto: MapPopElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE | MEM_UNINIT | MEM_WRITE);
    bpf_map_peek_elem_proto: MapPeekElem =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_VALUE | MEM_UNINIT | MEM_WRITE);
    bpf_map_lookup_percpu_elem_proto: MapLookupPercpuElem =>
        RET_PTR_TO_MAP_VALUE_OR_NULL, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING), PKT_ACCESS;
    bpf_get_prandom_u32_proto: GetPrandomU32 => RET_INTEGER, ();
    bpf_get_raw_smp_processor_id_proto: GetSmpProcessorId => RET_INTEGER, ();
    bpf_get_numa_node_id_proto: GetNumaNodeId => RET_INTEGER, ();
    bpf_ktime_get_ns_proto: KtimeGetNs => RET_INTEGER, ();
    bpf_ktime_get_boot_ns_proto: KtimeGetBootNs => RET_INTEGER, ();
    bpf_ktime_get_tai_ns_proto: KtimeGetTaiNs => RET_INTEGER, ();
    bpf_strncmp_proto: Strncmp =>
        RET_INTEGER, (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_PTR_TO_CONST_STR);
    bpf_strtol_proto: Strtol =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(8)) | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED);
    bpf_strtoul_proto: Strtoul =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(8)) | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED);
    bpf_get_current_pid_tgid_proto: GetCurrentPidTgid => RET_INTEGER, ();
    bpf_get_ns_current_pid_tgid_proto: GetNsCurrentPidTgid =>
        RET_INTEGER, (ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_spin_lock_proto: SpinLock => RET_VOID, (ARG_PTR_TO_SPIN_LOCK);
    bpf_spin_unlock_proto: SpinUnlock => RET_VOID, (ARG_PTR_TO_SPIN_LOCK);
    bpf_jiffies64_proto: Jiffies64 => RET_INTEGER, ();
    bpf_per_cpu_ptr_proto: PerCpuPtr =>
        RET_PTR_TO_MEM_OR_BTF_ID | PTR_MAYBE_NULL | MEM_RDONLY, (ARG_PTR_TO_PERCPU_BTF_ID, ARG_ANYTHING);
    bpf_this_cpu_ptr_proto: ThisCpuPtr => RET_PTR_TO_MEM_OR_BTF_ID | MEM_RDONLY, (ARG_PTR_TO_PERCPU_BTF_ID);
    bpf_timer_init_proto: TimerInit =>
        RET_INTEGER, (ARG_PTR_TO_TIMER, ARG_CONST_MAP_PTR, ARG_ANYTHING), GPL_ONLY;
    bpf_timer_set_callback_proto: TimerSetCallback =>
        RET_INTEGER, (ARG_PTR_TO_TIMER, ARG_PTR_TO_FUNC), GPL_ONLY;
    bpf_timer_start_proto: TimerStart =>
        RET_INTEGER, (ARG_PTR_TO_TIMER, ARG_ANYTHING, ARG_ANYTHING), GPL_ONLY;
    bpf_timer_cancel_proto: TimerCancel => RET_INTEGER, (ARG_PTR_TO_TIMER), GPL_ONLY;
    bpf_kptr_xchg_proto: KptrXchg =>
        RET_PTR_TO_BTF_ID_OR_NULL, (ARG_KPTR_XCHG_DEST, ARG_PTR_TO_BTF_ID_OR_NULL | OBJ_RELEASE);
    bpf_dynptr_from_mem_proto: DynptrFromMem =>
        RET_INTEGER,
        (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_LOCAL | MEM_UNINIT | MEM_WRITE);
    bpf_dynptr_read_proto: DynptrRead =>
        RET_INTEGER,
        (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_PTR_TO_DYNPTR | MEM_RDONLY, ARG_ANYTHING, ARG_ANYTHING);
    bpf_dynptr_write_proto: DynptrWrite =>
        RET_INTEGER,
        (ARG_PTR_TO_DYNPTR | MEM_RDONLY, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING);
    bpf_dynptr_data_proto: DynptrData =>
        RET_PTR_TO_DYNPTR_MEM_OR_NULL,
        (ARG_PTR_TO_DYNPTR | MEM_RDONLY, ARG_ANYTHING, ARG_CONST_ALLOC_SIZE_OR_ZERO);
    bpf_get_current_cgroup_id_proto: GetCurrentCgroupId => RET_INTEGER, ();
    bpf_get_current_ancestor_cgroup_id_proto: GetCurrentAncestorCgroupId => RET_INTEGER, (ARG_ANYTHING);
    bpf_current_task_under_cgroup_proto: CurrentTaskUnderCgroup =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_ANYTHING);
    bpf_get_current_uid_gid_proto: GetCurrentUidGid => RET_INTEGER, ();
    bpf_snprintf_proto: Snprintf =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM_OR_NULL | MEM_WRITE, ARG_CONST_SIZE_OR_ZERO, ARG_PTR_TO_CONST_STR, ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_copy_from_user_proto: CopyFromUser =>
        RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), MIGHT_SLEEP;
    bpf_copy_from_user_task_proto: CopyFromUserTask =>
        RET_INTEGER,
        (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_PTR_TO_BTF_ID(Btf("task_struct")), ARG_ANYTHING), GPL_ONLY, MIGHT_SLEEP;
    bpf_get_current_comm_proto: GetCurrentComm => RET_INTEGER, (ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    // kernel/bpf/ringbuf.c
    bpf_ringbuf_output_proto: RingbufOutput =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING);
    bpf_ringbuf_reserve_proto: RingbufReserve =>
        RET_PTR_TO_RINGBUF_MEM_OR_NULL, (ARG_CONST_MAP_PTR, ARG_CONST_ALLOC_SIZE_OR_ZERO, ARG_ANYTHING);
    bpf_ringbuf_submit_proto: RingbufSubmit => RET_VOID, (ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, ARG_ANYTHING);
    bpf_ringbuf_discard_proto: RingbufDiscard =>
        RET_VOID, (ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, ARG_ANYTHING);
    bpf_ringbuf_query_proto: RingbufQuery => RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_ANYTHING);
    bpf_user_ringbuf_drain_proto: UserRingbufDrain =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING);
    bpf_ringbuf_reserve_dynptr_proto: RingbufReserveDynptr =>
        RET_INTEGER,
        (ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_RINGBUF | MEM_UNINIT | MEM_WRITE);
    bpf_ringbuf_submit_dynptr_proto: RingbufSubmitDynptr =>
        RET_VOID, (ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_RINGBUF | OBJ_RELEASE, ARG_ANYTHING);
    bpf_ringbuf_discard_dynptr_proto: RingbufDiscardDynptr =>
        RET_VOID, (ARG_PTR_TO_DYNPTR | DYNPTR_TYPE_RINGBUF | OBJ_RELEASE, ARG_ANYTHING);
    // kernel/bpf/stackmap.c
    bpf_get_stackid_proto: GetStackid =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING), GPL_ONLY;
    bpf_get_stack_sleepable_proto: GetStack =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY, MIGHT_SLEEP;
    bpf_get_stack_proto: GetStack =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_get_stackid_proto_pe: GetStackid => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING);
    bpf_get_stack_proto_pe: GetStack =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), GPL_ONLY;
    bpf_get_task_stack_sleepable_proto: GetTaskStack =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("task_struct")), ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), MIGHT_SLEEP;
    bpf_get_task_stack_proto: GetTaskStack =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("task_struct")), ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING);
    // kernel/bpf/syscall.c
    bpf_sys_close_proto: SysClose => RET_INTEGER, (ARG_ANYTHING), MIGHT_SLEEP;
    bpf_kallsyms_lookup_name_proto: KallsymsLookupName =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(8)) | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED);
    bpf_sys_bpf_proto: SysBpf =>
        RET_INTEGER, (ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), MIGHT_SLEEP;
    // kernel/bpf/task_iter.c
    bpf_find_vma_proto: FindVma =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("task_struct")), ARG_ANYTHING, ARG_PTR_TO_FUNC, ARG_PTR_TO_STACK_OR_NULL, ARG_ANYTHING);
}
