//! The sets of prototypes, one per `get_func_proto` function of the kernel.
use super::avail::{Caps, ProtoSet, When};
use super::{
    protos_core as core, protos_net as net, protos_net_sk as net_sk, protos_trace as trace,
};
use crate::AttachType;
use When::{Always, Attach, LsmHook, NotAttach, NotMember, Sleepable};

const NO_RETVAL: &[AttachType] = &[
    AttachType::CgroupInetIngress,
    AttachType::CgroupInetEgress,
    AttachType::CgroupSockOps,
    AttachType::CgroupUdp4Recvmsg,
    AttachType::CgroupUdp6Recvmsg,
    AttachType::CgroupUnixRecvmsg,
    AttachType::CgroupInet4Getpeername,
    AttachType::CgroupInet6Getpeername,
    AttachType::CgroupUnixGetpeername,
    AttachType::CgroupInet4Getsockname,
    AttachType::CgroupInet6Getsockname,
    AttachType::CgroupUnixGetsockname,
];
const CONNECT: &[AttachType] = &[
    AttachType::CgroupInet4Connect,
    AttachType::CgroupInet6Connect,
];
const SETSOCKOPT: &[AttachType] = &[AttachType::CgroupSetsockopt];
const ITER: &[AttachType] = &[AttachType::TraceIter];
const TRAMPOLINE: &[AttachType] = &[
    AttachType::TraceFentry,
    AttachType::TraceFexit,
    AttachType::ModifyReturn,
];
const TRAMPOLINE_OR_RAW_TP: &[AttachType] = &[
    AttachType::TraceFentry,
    AttachType::TraceFexit,
    AttachType::ModifyReturn,
    AttachType::TraceRawTp,
];
const KPROBE_MULTI: &[AttachType] = &[AttachType::TraceKprobeMulti, AttachType::TraceKprobeSession];
const UPROBE_MULTI: &[AttachType] = &[AttachType::TraceUprobeMulti, AttachType::TraceUprobeSession];
const LSM_MAC: &[AttachType] = &[AttachType::LsmMac];
const BPF_LSM_LOCKED_SOCKOPT_HOOKS: &[&str] = &[
    "bpf_lsm_sock_graft",
    "bpf_lsm_inet_csk_clone",
    "bpf_lsm_inet_conn_established",
];
const BPF_LSM_UNLOCKED_SOCKOPT_HOOKS: &[&str] =
    &["bpf_lsm_socket_post_create", "bpf_lsm_socket_socketpair"];

/// `NAME = "kernel function", capability, goes on: { room::prototype if condition, .. }`
macro_rules! proto_sets {
    ($($name:ident = $symbol:literal, $cap:expr, $next:literal: {
        $($room:ident :: $proto:ident $(if $when:expr)?,)*
    })*) => {
        $(pub(super) static $name: ProtoSet = ProtoSet {
            symbol: $symbol,
            cap: $cap,
            next_if_refused: $next,
            protos: &[$((&$room::$proto, proto_sets!(@when $($when)?))),*],
        };)*
    };
    (@when) => { Always };
    (@when $when:expr) => { $when };
}

proto_sets! {
    BASE = "bpf_base_func_proto", Caps::empty(), false: {
        core::bpf_map_lookup_elem_proto,
        core::bpf_map_update_elem_proto,
        core::bpf_map_delete_elem_proto,
        core::bpf_map_push_elem_proto,
        core::bpf_map_pop_elem_proto,
        core::bpf_map_peek_elem_proto,
        core::bpf_map_lookup_percpu_elem_proto,
        core::bpf_get_prandom_u32_proto,
        core::bpf_get_raw_smp_processor_id_proto,
        core::bpf_get_numa_node_id_proto,
        core::bpf_tail_call_proto,
        core::bpf_ktime_get_ns_proto,
        core::bpf_ktime_get_boot_ns_proto,
        core::bpf_ktime_get_tai_ns_proto,
        core::bpf_ringbuf_output_proto,
        core::bpf_ringbuf_reserve_proto,
        core::bpf_ringbuf_submit_proto,
        core::bpf_ringbuf_discard_proto,
        core::bpf_ringbuf_query_proto,
        core::bpf_strncmp_proto,
        core::bpf_strtol_proto,
        core::bpf_strtoul_proto,
        core::bpf_get_current_pid_tgid_proto,
        core::bpf_get_ns_current_pid_tgid_proto,
    }
    BASE_BPF = "bpf_base_func_proto", Caps::BPF, false: {
        core::bpf_spin_lock_proto,
        core::bpf_spin_unlock_proto,
        core::bpf_jiffies64_proto,
        core::bpf_per_cpu_ptr_proto,
        core::bpf_this_cpu_ptr_proto,
        core::bpf_timer_init_proto,
        core::bpf_timer_set_callback_proto,
        core::bpf_timer_start_proto,
        core::bpf_timer_cancel_proto,
        core::bpf_kptr_xchg_proto,
        core::bpf_for_each_map_elem_proto,
        core::bpf_loop_proto,
        core::bpf_user_ringbuf_drain_proto,
        core::bpf_ringbuf_reserve_dynptr_proto,
        core::bpf_ringbuf_submit_dynptr_proto,
        core::bpf_ringbuf_discard_dynptr_proto,
        core::bpf_dynptr_from_mem_proto,
        core::bpf_dynptr_read_proto,
        core::bpf_dynptr_write_proto,
        core::bpf_dynptr_data_proto,
        core::bpf_cgrp_storage_get_proto,
        core::bpf_cgrp_storage_delete_proto,
        core::bpf_get_current_cgroup_id_proto,
        core::bpf_get_current_ancestor_cgroup_id_proto,
        core::bpf_current_task_under_cgroup_proto,
        core::bpf_get_current_uid_gid_proto,
        core::bpf_task_storage_get_proto,
        core::bpf_task_storage_delete_proto,
        net::bpf_get_cgroup_classid_curr_proto,
    }
    BASE_PERFMON = "bpf_base_func_proto", Caps::PERFMON, false: {
        trace::bpf_get_current_task_proto,
        trace::bpf_get_current_task_btf_proto,
        trace::bpf_probe_read_user_proto,
        trace::bpf_probe_read_user_str_proto,
        trace::bpf_snprintf_btf_proto,
        core::bpf_snprintf_proto,
        trace::bpf_task_pt_regs_proto,
        trace::bpf_probe_read_kernel_proto,
        trace::bpf_probe_read_kernel_str_proto,
        trace::bpf_trace_printk_proto,
        trace::bpf_trace_vprintk_proto,
        trace::bpf_send_signal_proto,
        trace::bpf_send_signal_thread_proto,
        trace::bpf_perf_event_read_proto,
        trace::bpf_perf_event_read_value_proto,
        trace::bpf_get_branch_snapshot_proto,
        core::bpf_copy_from_user_proto,
        core::bpf_copy_from_user_task_proto,
        core::bpf_find_vma_proto,
        core::bpf_get_current_comm_proto,
        core::bpf_get_task_stack_sleepable_proto if Sleepable,
        core::bpf_get_task_stack_proto,
    }
    SK_BASE = "bpf_sk_base_func_proto", Caps::empty(), false: {
        core::bpf_ktime_get_coarse_ns_proto,
    }
    SK_BASE_PERFMON = "bpf_sk_base_func_proto", Caps::PERFMON, false: {
        net_sk::bpf_skc_to_tcp6_sock_proto,
        net_sk::bpf_skc_to_tcp_sock_proto,
        net_sk::bpf_skc_to_tcp_timewait_sock_proto,
        net_sk::bpf_skc_to_tcp_request_sock_proto,
        net_sk::bpf_skc_to_udp6_sock_proto,
        net_sk::bpf_skc_to_unix_sock_proto,
        net_sk::bpf_skc_to_mptcp_sock_proto,
    }
    SOCK_FILTER = "sock_filter_func_proto", Caps::empty(), false: {
        net_sk::bpf_get_socket_cookie_sock_proto,
        net_sk::bpf_get_netns_cookie_sock_proto,
        core::bpf_event_output_data_proto,
        net_sk::bpf_sk_storage_get_cg_sock_proto,
        core::bpf_ktime_get_coarse_ns_proto,
    }
    SOCK_ADDR = "sock_addr_func_proto", Caps::empty(), false: {
        net_sk::bpf_get_socket_cookie_sock_addr_proto,
        net_sk::bpf_get_netns_cookie_sock_addr_proto,
        core::bpf_event_output_data_proto,
        net_sk::bpf_sock_addr_sk_lookup_tcp_proto,
        net_sk::bpf_sock_addr_sk_lookup_udp_proto,
        net_sk::bpf_sk_release_proto,
        net_sk::bpf_sock_addr_skc_lookup_tcp_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net_sk::bpf_bind_proto if Attach(CONNECT),
        net_sk::bpf_sock_addr_setsockopt_proto,
        net_sk::bpf_sock_addr_getsockopt_proto,
    }
    SK_FILTER = "sk_filter_func_proto", Caps::empty(), false: {
        net::bpf_skb_load_bytes_proto,
        net::bpf_skb_load_bytes_relative_proto,
        net_sk::bpf_get_socket_cookie_proto,
        net_sk::bpf_get_socket_uid_proto,
        net::bpf_skb_event_output_proto,
        net_sk::bpf_get_netns_cookie_proto,
    }
    CG_SKB = "cg_skb_func_proto", Caps::empty(), false: {
        net_sk::bpf_sk_fullsock_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net::bpf_skb_event_output_proto,
        net::bpf_skb_cgroup_id_proto,
        net::bpf_skb_ancestor_cgroup_id_proto,
        net_sk::bpf_sk_cgroup_id_proto,
        net_sk::bpf_sk_ancestor_cgroup_id_proto,
        net_sk::bpf_sk_lookup_tcp_proto,
        net_sk::bpf_sk_lookup_udp_proto,
        net_sk::bpf_sk_release_proto,
        net_sk::bpf_skc_lookup_tcp_proto,
        net_sk::bpf_tcp_sock_proto,
        net_sk::bpf_get_listener_sock_proto,
        net::bpf_skb_ecn_set_ce_proto,
    }
    TC_CLS_ACT = "tc_cls_act_func_proto", Caps::empty(), false: {
        net::bpf_skb_store_bytes_proto,
        net::bpf_skb_load_bytes_proto,
        net::bpf_skb_load_bytes_relative_proto,
        net::bpf_skb_pull_data_proto,
        net::bpf_csum_diff_proto,
        net::bpf_csum_update_proto,
        net::bpf_csum_level_proto,
        net::bpf_l3_csum_replace_proto,
        net::bpf_l4_csum_replace_proto,
        net::bpf_clone_redirect_proto,
        net::bpf_get_cgroup_classid_proto,
        net::bpf_skb_vlan_push_proto,
        net::bpf_skb_vlan_pop_proto,
        net::bpf_skb_change_proto_proto,
        net::bpf_skb_change_type_proto,
        net::bpf_skb_adjust_room_proto,
        net::bpf_skb_change_tail_proto,
        net::bpf_skb_change_head_proto,
        net::bpf_skb_get_tunnel_key_proto,
        net::bpf_skb_get_tunnel_opt_proto,
        net::bpf_redirect_proto,
        net::bpf_redirect_neigh_proto,
        net::bpf_redirect_peer_proto,
        net::bpf_get_route_realm_proto,
        net::bpf_get_hash_recalc_proto,
        net::bpf_set_hash_invalid_proto,
        net::bpf_set_hash_proto,
        net::bpf_skb_event_output_proto,
        core::bpf_get_smp_processor_id_proto,
        net::bpf_skb_under_cgroup_proto,
        net_sk::bpf_get_socket_cookie_proto,
        net_sk::bpf_get_socket_uid_proto,
        net::bpf_skb_fib_lookup_proto,
        net::bpf_skb_check_mtu_proto,
        net_sk::bpf_sk_fullsock_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net::bpf_skb_get_xfrm_state_proto,
        net::bpf_skb_cgroup_classid_proto,
        net::bpf_skb_cgroup_id_proto,
        net::bpf_skb_ancestor_cgroup_id_proto,
        net_sk::bpf_tc_sk_lookup_tcp_proto,
        net_sk::bpf_tc_sk_lookup_udp_proto,
        net_sk::bpf_sk_release_proto,
        net_sk::bpf_tcp_sock_proto,
        net_sk::bpf_get_listener_sock_proto,
        net_sk::bpf_tc_skc_lookup_tcp_proto,
        net_sk::bpf_tcp_check_syncookie_proto,
        net::bpf_skb_ecn_set_ce_proto,
        net_sk::bpf_tcp_gen_syncookie_proto,
        net_sk::bpf_sk_assign_proto,
        net::bpf_skb_set_tstamp_proto,
        net_sk::bpf_tcp_raw_gen_syncookie_ipv4_proto,
        net_sk::bpf_tcp_raw_gen_syncookie_ipv6_proto,
        net_sk::bpf_tcp_raw_check_syncookie_ipv4_proto,
        net_sk::bpf_tcp_raw_check_syncookie_ipv6_proto,
        net::bpf_skb_set_tunnel_key_proto,
        net::bpf_skb_set_tunnel_opt_proto,
        net_sk::bpf_get_netns_cookie_proto,
    }
    XDP = "xdp_func_proto", Caps::empty(), false: {
        net::bpf_xdp_event_output_proto,
        core::bpf_get_smp_processor_id_proto,
        net::bpf_csum_diff_proto,
        net::bpf_xdp_adjust_head_proto,
        net::bpf_xdp_adjust_meta_proto,
        net::bpf_xdp_redirect_proto,
        net::bpf_xdp_redirect_map_proto,
        net::bpf_xdp_adjust_tail_proto,
        net::bpf_xdp_get_buff_len_proto,
        net::bpf_xdp_load_bytes_proto,
        net::bpf_xdp_store_bytes_proto,
        net::bpf_xdp_fib_lookup_proto,
        net::bpf_xdp_check_mtu_proto,
        net_sk::bpf_xdp_sk_lookup_udp_proto,
        net_sk::bpf_xdp_sk_lookup_tcp_proto,
        net_sk::bpf_sk_release_proto,
        net_sk::bpf_xdp_skc_lookup_tcp_proto,
        net_sk::bpf_tcp_check_syncookie_proto,
        net_sk::bpf_tcp_gen_syncookie_proto,
        net_sk::bpf_tcp_raw_gen_syncookie_ipv4_proto,
        net_sk::bpf_tcp_raw_gen_syncookie_ipv6_proto,
        net_sk::bpf_tcp_raw_check_syncookie_ipv4_proto,
        net_sk::bpf_tcp_raw_check_syncookie_ipv6_proto,
    }
    SOCK_OPS = "sock_ops_func_proto", Caps::empty(), false: {
        net_sk::bpf_sock_ops_setsockopt_proto,
        net_sk::bpf_sock_ops_getsockopt_proto,
        net_sk::bpf_sock_ops_cb_flags_set_proto,
        net_sk::bpf_sock_map_update_proto,
        net_sk::bpf_sock_hash_update_proto,
        net_sk::bpf_get_socket_cookie_sock_ops_proto,
        core::bpf_event_output_data_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net_sk::bpf_get_netns_cookie_sock_ops_proto,
        net_sk::bpf_sock_ops_load_hdr_opt_proto,
        net_sk::bpf_sock_ops_store_hdr_opt_proto,
        net_sk::bpf_sock_ops_reserve_hdr_opt_proto,
        net_sk::bpf_tcp_sock_proto,
    }
    SK_MSG = "sk_msg_func_proto", Caps::empty(), false: {
        net_sk::bpf_msg_redirect_map_proto,
        net_sk::bpf_msg_redirect_hash_proto,
        net_sk::bpf_msg_apply_bytes_proto,
        net_sk::bpf_msg_cork_bytes_proto,
        net_sk::bpf_msg_pull_data_proto,
        net_sk::bpf_msg_push_data_proto,
        net_sk::bpf_msg_pop_data_proto,
        core::bpf_event_output_data_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net_sk::bpf_get_netns_cookie_sk_msg_proto,
    }
    SK_SKB = "sk_skb_func_proto", Caps::empty(), false: {
        net::bpf_skb_store_bytes_proto,
        net::bpf_skb_load_bytes_proto,
        net::sk_skb_pull_data_proto,
        net::sk_skb_change_tail_proto,
        net::sk_skb_change_head_proto,
        net::sk_skb_adjust_room_proto,
        net_sk::bpf_get_socket_cookie_proto,
        net_sk::bpf_get_socket_uid_proto,
        net_sk::bpf_sk_redirect_map_proto,
        net_sk::bpf_sk_redirect_hash_proto,
        net::bpf_skb_event_output_proto,
        net_sk::bpf_sk_lookup_tcp_proto,
        net_sk::bpf_sk_lookup_udp_proto,
        net_sk::bpf_sk_release_proto,
        net_sk::bpf_skc_lookup_tcp_proto,
    }
    FLOW_DISSECTOR = "flow_dissector_func_proto", Caps::empty(), false: {
        net::bpf_flow_dissector_load_bytes_proto,
    }
    LWT_OUT = "lwt_out_func_proto", Caps::empty(), false: {
        net::bpf_skb_load_bytes_proto,
        net::bpf_skb_pull_data_proto,
        net::bpf_csum_diff_proto,
        net::bpf_get_cgroup_classid_proto,
        net::bpf_get_route_realm_proto,
        net::bpf_get_hash_recalc_proto,
        net::bpf_skb_event_output_proto,
        core::bpf_get_smp_processor_id_proto,
        net::bpf_skb_under_cgroup_proto,
    }
    LWT_IN = "lwt_in_func_proto", Caps::empty(), false: {
        net::bpf_lwt_in_push_encap_proto,
    }
    LWT_XMIT = "lwt_xmit_func_proto", Caps::empty(), false: {
        net::bpf_skb_get_tunnel_key_proto,
        net::bpf_skb_get_tunnel_opt_proto,
        net::bpf_redirect_proto,
        net::bpf_clone_redirect_proto,
        net::bpf_skb_change_tail_proto,
        net::bpf_skb_change_head_proto,
        net::bpf_skb_store_bytes_proto,
        net::bpf_csum_update_proto,
        net::bpf_csum_level_proto,
        net::bpf_l3_csum_replace_proto,
        net::bpf_l4_csum_replace_proto,
        net::bpf_set_hash_invalid_proto,
        net::bpf_lwt_xmit_push_encap_proto,
        net::bpf_skb_set_tunnel_key_proto,
        net::bpf_skb_set_tunnel_opt_proto,
    }
    LWT_SEG6LOCAL = "lwt_seg6local_func_proto", Caps::empty(), false: {
        net::bpf_lwt_seg6_store_bytes_proto,
        net::bpf_lwt_seg6_action_proto,
        net::bpf_lwt_seg6_adjust_srh_proto,
    }
    SK_REUSEPORT = "sk_reuseport_func_proto", Caps::empty(), false: {
        net_sk::sk_select_reuseport_proto,
        net_sk::sk_reuseport_load_bytes_proto,
        net_sk::sk_reuseport_load_bytes_relative_proto,
        net_sk::bpf_get_socket_ptr_cookie_proto,
        core::bpf_ktime_get_coarse_ns_proto,
    }
    SK_LOOKUP = "sk_lookup_func_proto", Caps::empty(), false: {
        core::bpf_event_output_data_proto,
        net_sk::bpf_sk_lookup_assign_proto,
        net_sk::bpf_sk_release_proto,
    }
    ITER_TCP = "bpf_iter_tcp_get_func_proto", Caps::empty(), false: {
        net_sk::bpf_sk_setsockopt_proto,
        net_sk::bpf_sk_getsockopt_proto,
    }
    TCP_CA = "bpf_tcp_ca_get_func_proto", Caps::empty(), false: {
        net_sk::bpf_tcp_send_ack_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        core::bpf_ktime_get_coarse_ns_proto,
        net_sk::bpf_sk_setsockopt_proto if NotMember("release"),
        net_sk::bpf_sk_getsockopt_proto if NotMember("release"),
    }
    TRACING = "bpf_tracing_func_proto", Caps::empty(), false: {
        core::bpf_get_smp_processor_id_proto,
        trace::bpf_get_func_ip_proto_tracing,
        trace::bpf_probe_write_user_proto,
        trace::bpf_probe_read_compat_proto,
        trace::bpf_probe_read_compat_str_proto,
    }
    KPROBE = "kprobe_prog_func_proto", Caps::empty(), false: {
        trace::bpf_perf_event_output_proto,
        core::bpf_get_stackid_proto,
        trace::bpf_override_return_proto,
        core::bpf_get_stack_sleepable_proto if Sleepable,
        core::bpf_get_stack_proto,
        trace::bpf_get_func_ip_proto_kprobe_multi if Attach(KPROBE_MULTI),
        trace::bpf_get_func_ip_proto_uprobe_multi if Attach(UPROBE_MULTI),
        trace::bpf_get_func_ip_proto_kprobe,
        trace::bpf_get_attach_cookie_proto_kmulti if Attach(KPROBE_MULTI),
        trace::bpf_get_attach_cookie_proto_umulti if Attach(UPROBE_MULTI),
        trace::bpf_get_attach_cookie_proto_trace,
    }
    TP = "tp_prog_func_proto", Caps::empty(), false: {
        trace::bpf_perf_event_output_proto_tp,
        trace::bpf_get_stackid_proto_tp,
        trace::bpf_get_stack_proto_tp,
        trace::bpf_get_attach_cookie_proto_trace,
    }
    PE = "pe_prog_func_proto", Caps::empty(), false: {
        trace::bpf_perf_event_output_proto_tp,
        core::bpf_get_stackid_proto_pe,
        core::bpf_get_stack_proto_pe,
        trace::bpf_perf_prog_read_value_proto,
        trace::bpf_read_branch_records_proto,
        trace::bpf_get_attach_cookie_proto_pe,
    }
    RAW_TP = "raw_tp_prog_func_proto", Caps::empty(), false: {
        trace::bpf_perf_event_output_proto_raw_tp,
        trace::bpf_get_stackid_proto_raw_tp,
        trace::bpf_get_stack_proto_raw_tp,
        trace::bpf_get_attach_cookie_proto_tracing,
    }
    TRACING_PROG = "tracing_prog_func_proto", Caps::empty(), false: {
        net::bpf_skb_output_proto,
        net::bpf_xdp_output_proto,
        net_sk::bpf_skc_to_tcp6_sock_proto,
        net_sk::bpf_skc_to_tcp_sock_proto,
        net_sk::bpf_skc_to_tcp_timewait_sock_proto,
        net_sk::bpf_skc_to_tcp_request_sock_proto,
        net_sk::bpf_skc_to_udp6_sock_proto,
        net_sk::bpf_skc_to_unix_sock_proto,
        net_sk::bpf_skc_to_mptcp_sock_proto,
        net_sk::bpf_sk_storage_get_tracing_proto,
        net_sk::bpf_sk_storage_delete_tracing_proto,
        net_sk::bpf_sock_from_file_proto,
        net_sk::bpf_get_socket_ptr_cookie_proto,
        net::bpf_xdp_get_buff_len_trace_proto,
        trace::bpf_d_path_proto,
        trace::bpf_seq_printf_proto if Attach(ITER),
        trace::bpf_seq_write_proto if Attach(ITER),
        trace::bpf_seq_printf_btf_proto if Attach(ITER),
        trace::bpf_get_func_arg_proto if Attach(TRAMPOLINE),
        trace::bpf_get_func_ret_proto if Attach(TRAMPOLINE),
        trace::bpf_get_func_arg_cnt_proto if Attach(TRAMPOLINE),
        trace::bpf_get_attach_cookie_proto_tracing if Attach(TRAMPOLINE_OR_RAW_TP),
    }
    LSM = "bpf_lsm_func_proto", Caps::empty(), false: {
        core::bpf_inode_storage_get_proto,
        core::bpf_inode_storage_delete_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        core::bpf_bprm_opts_set_proto,
        core::bpf_ima_inode_hash_proto,
        core::bpf_ima_file_hash_proto,
        core::bpf_get_attach_cookie_proto if Attach(LSM_MAC),
        net_sk::bpf_sk_setsockopt_proto if LsmHook(BPF_LSM_LOCKED_SOCKOPT_HOOKS),
        net_sk::bpf_unlocked_sk_setsockopt_proto if LsmHook(BPF_LSM_UNLOCKED_SOCKOPT_HOOKS),
        net_sk::bpf_sk_getsockopt_proto if LsmHook(BPF_LSM_LOCKED_SOCKOPT_HOOKS),
        net_sk::bpf_unlocked_sk_getsockopt_proto if LsmHook(BPF_LSM_UNLOCKED_SOCKOPT_HOOKS),
    }
    SYSCALL = "syscall_prog_func_proto", Caps::empty(), false: {
        core::bpf_btf_find_by_name_kind_proto,
        core::bpf_sys_close_proto,
        core::bpf_kallsyms_lookup_name_proto,
        core::bpf_sys_bpf_proto,
    }
    CGROUP_DEV = "cgroup_dev_func_proto", Caps::empty(), false: {
        core::bpf_event_output_data_proto,
    }
    SYSCTL = "sysctl_func_proto", Caps::empty(), false: {
        core::bpf_sysctl_get_name_proto,
        core::bpf_sysctl_get_current_value_proto,
        core::bpf_sysctl_get_new_value_proto,
        core::bpf_sysctl_set_new_value_proto,
        core::bpf_ktime_get_coarse_ns_proto,
        core::bpf_event_output_data_proto,
    }
    CG_SOCKOPT = "cg_sockopt_func_proto", Caps::empty(), false: {
        core::bpf_get_netns_cookie_sockopt_proto,
        net_sk::bpf_sk_storage_get_proto,
        net_sk::bpf_sk_storage_delete_proto,
        net_sk::bpf_tcp_sock_proto,
        core::bpf_event_output_data_proto,
        net_sk::bpf_sk_setsockopt_proto if Attach(SETSOCKOPT),
        net_sk::bpf_sk_getsockopt_proto if Attach(SETSOCKOPT),
    }
    CGROUP_COMMON = "cgroup_common_func_proto", Caps::empty(), true: {
        core::bpf_get_local_storage_proto,
        core::bpf_get_retval_proto if NotAttach(NO_RETVAL),
        core::bpf_set_retval_proto if NotAttach(NO_RETVAL),
    }
    LIRC_MODE2 = "lirc_mode2_func_proto", Caps::empty(), false: {
        net::rc_repeat_proto,
        net::rc_keydown_proto,
        net::rc_pointer_rel_proto,
        core::bpf_map_lookup_elem_proto,
        core::bpf_map_update_elem_proto,
        core::bpf_map_delete_elem_proto,
        core::bpf_map_push_elem_proto,
        core::bpf_map_pop_elem_proto,
        core::bpf_map_peek_elem_proto,
        core::bpf_ktime_get_ns_proto,
        core::bpf_ktime_get_boot_ns_proto,
        core::bpf_tail_call_proto,
        core::bpf_get_prandom_u32_proto,
        trace::bpf_trace_printk_proto,
    }
}
