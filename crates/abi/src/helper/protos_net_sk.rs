//! Prototypes of `net/`: sockets, their options, storage and maps.
#![allow(non_upper_case_globals)] // The names are the kernel's symbols.
use super::Of::{Btf, Size};
use super::proto::protos;

protos! {
    // net/core/bpf_sk_storage.c
    bpf_sk_storage_get_cg_sock_proto: SkStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_CTX, ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING);
    bpf_sk_storage_get_proto: SkStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING);
    bpf_sk_storage_delete_proto: SkStorageDelete =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_sk_storage_get_tracing_proto: SkStorageGet =>
        RET_PTR_TO_MAP_VALUE_OR_NULL,
        (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("sock_common")), ARG_PTR_TO_MAP_VALUE_OR_NULL, ARG_ANYTHING) if SkStorageTracing;
    bpf_sk_storage_delete_tracing_proto: SkStorageDelete =>
        RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_PTR_TO_BTF_ID_OR_NULL(Btf("sock_common"))) if SkStorageTracing;
    // net/core/filter.c
    bpf_get_socket_cookie_sock_proto: GetSocketCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_netns_cookie_sock_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    bpf_get_socket_cookie_sock_addr_proto: GetSocketCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_netns_cookie_sock_addr_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    bpf_sock_addr_sk_lookup_tcp_proto: SkLookupTcp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING);
    bpf_sock_addr_sk_lookup_udp_proto: SkLookupUdp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING);
    bpf_sk_release_proto: SkRelease => RET_INTEGER, (ARG_PTR_TO_BTF_ID_SOCK_COMMON | OBJ_RELEASE);
    bpf_sock_addr_skc_lookup_tcp_proto: SkcLookupTcp =>
        RET_PTR_TO_SOCK_COMMON_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING);
    bpf_bind_proto: Bind => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_sock_addr_setsockopt_proto: Setsockopt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_sock_addr_getsockopt_proto: Getsockopt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_get_socket_cookie_proto: GetSocketCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_socket_uid_proto: GetSocketUid => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_netns_cookie_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    bpf_sk_fullsock_proto: SkFullsock => RET_PTR_TO_SOCKET_OR_NULL, (ARG_PTR_TO_SOCK_COMMON);
    bpf_sk_cgroup_id_proto: SkCgroupId => RET_INTEGER, (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_sk_ancestor_cgroup_id_proto: SkAncestorCgroupId =>
        RET_INTEGER, (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING);
    bpf_sk_lookup_tcp_proto: SkLookupTcp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_sk_lookup_udp_proto: SkLookupUdp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_skc_lookup_tcp_proto: SkcLookupTcp =>
        RET_PTR_TO_SOCK_COMMON_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_tcp_sock_proto: TcpSock => RET_PTR_TO_TCP_SOCK_OR_NULL, (ARG_PTR_TO_SOCK_COMMON);
    bpf_get_listener_sock_proto: GetListenerSock => RET_PTR_TO_SOCKET_OR_NULL, (ARG_PTR_TO_SOCK_COMMON);
    bpf_tc_sk_lookup_tcp_proto: SkLookupTcp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_tc_sk_lookup_udp_proto: SkLookupUdp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_tc_skc_lookup_tcp_proto: SkcLookupTcp =>
        RET_PTR_TO_SOCK_COMMON_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_tcp_check_syncookie_proto: TcpCheckSyncookie =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), GPL_ONLY, PKT_ACCESS;
    bpf_tcp_gen_syncookie_proto: TcpGenSyncookie =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), GPL_ONLY, PKT_ACCESS;
    bpf_sk_assign_proto: SkAssign =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING);
    bpf_tcp_raw_gen_syncookie_ipv4_proto: TcpRawGenSyncookieIpv4 =>
        RET_INTEGER,
        (ARG_PTR_TO_FIXED_SIZE_MEM(Size(20)), ARG_PTR_TO_MEM, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY, PKT_ACCESS;
    bpf_tcp_raw_gen_syncookie_ipv6_proto: TcpRawGenSyncookieIpv6 =>
        RET_INTEGER,
        (ARG_PTR_TO_FIXED_SIZE_MEM(Size(40)), ARG_PTR_TO_MEM, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY, PKT_ACCESS;
    bpf_tcp_raw_check_syncookie_ipv4_proto: TcpRawCheckSyncookieIpv4 =>
        RET_INTEGER,
        (ARG_PTR_TO_FIXED_SIZE_MEM(Size(20)), ARG_PTR_TO_FIXED_SIZE_MEM(Size(20))), GPL_ONLY, PKT_ACCESS;
    bpf_tcp_raw_check_syncookie_ipv6_proto: TcpRawCheckSyncookieIpv6 =>
        RET_INTEGER,
        (ARG_PTR_TO_FIXED_SIZE_MEM(Size(40)), ARG_PTR_TO_FIXED_SIZE_MEM(Size(20))), GPL_ONLY, PKT_ACCESS;
    bpf_xdp_sk_lookup_udp_proto: SkLookupUdp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_xdp_sk_lookup_tcp_proto: SkLookupTcp =>
        RET_PTR_TO_SOCKET_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_xdp_skc_lookup_tcp_proto: SkcLookupTcp =>
        RET_PTR_TO_SOCK_COMMON_OR_NULL,
        (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING, ARG_ANYTHING), PKT_ACCESS;
    bpf_sock_ops_setsockopt_proto: Setsockopt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_sock_ops_getsockopt_proto: Getsockopt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_sock_ops_cb_flags_set_proto: SockOpsCbFlagsSet => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_get_socket_cookie_sock_ops_proto: GetSocketCookie => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_netns_cookie_sock_ops_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    bpf_sock_ops_load_hdr_opt_proto: LoadHdrOpt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_sock_ops_store_hdr_opt_proto: StoreHdrOpt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING), CHANGES_PKT;
    bpf_sock_ops_reserve_hdr_opt_proto: ReserveHdrOpt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING);
    bpf_msg_apply_bytes_proto: MsgApplyBytes => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_msg_cork_bytes_proto: MsgCorkBytes => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_msg_pull_data_proto: MsgPullData =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_msg_push_data_proto: MsgPushData =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_msg_pop_data_proto: MsgPopData =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_get_netns_cookie_sk_msg_proto: GetNetnsCookie => RET_INTEGER, (ARG_PTR_TO_CTX_OR_NULL);
    sk_select_reuseport_proto: SkSelectReuseport =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING);
    sk_reuseport_load_bytes_proto: SkbLoadBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    sk_reuseport_load_bytes_relative_proto: SkbLoadBytesRelative =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_get_socket_ptr_cookie_proto: GetSocketCookie =>
        RET_INTEGER, (ARG_PTR_TO_BTF_ID_SOCK_COMMON | PTR_MAYBE_NULL);
    bpf_sk_lookup_assign_proto: SkAssign =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_SOCKET_OR_NULL, ARG_ANYTHING);
    bpf_sk_setsockopt_proto: Setsockopt =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_sk_getsockopt_proto: Getsockopt =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_skc_to_tcp6_sock_proto: SkcToTcp6Sock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("tcp6_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_tcp_sock_proto: SkcToTcpSock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("tcp_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_tcp_timewait_sock_proto: SkcToTcpTimewaitSock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("tcp_timewait_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_tcp_request_sock_proto: SkcToTcpRequestSock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("tcp_request_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_udp6_sock_proto: SkcToUdp6Sock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("udp6_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_unix_sock_proto: SkcToUnixSock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("unix_sock")), (ARG_PTR_TO_BTF_ID_SOCK_COMMON);
    bpf_skc_to_mptcp_sock_proto: SkcToMptcpSock =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("mptcp_sock")), (ARG_PTR_TO_SOCK_COMMON);
    bpf_sock_from_file_proto: SockFromFile =>
        RET_PTR_TO_BTF_ID_OR_NULL(Btf("socket")), (ARG_PTR_TO_BTF_ID(Btf("file")));
    bpf_unlocked_sk_setsockopt_proto: Setsockopt =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_unlocked_sk_getsockopt_proto: Getsockopt =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID_SOCK_COMMON, ARG_ANYTHING, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    // net/core/sock_map.c
    bpf_sock_map_update_proto: SockMapUpdate =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING), PKT_ACCESS;
    bpf_sock_hash_update_proto: SockHashUpdate =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING), PKT_ACCESS;
    bpf_msg_redirect_map_proto: MsgRedirectMap =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_ANYTHING);
    bpf_msg_redirect_hash_proto: MsgRedirectHash =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING);
    bpf_sk_redirect_map_proto: SkRedirectMap =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_ANYTHING);
    bpf_sk_redirect_hash_proto: SkRedirectHash =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_PTR_TO_MAP_KEY, ARG_ANYTHING);
    // net/ipv4/bpf_tcp_ca.c
    bpf_tcp_send_ack_proto: TcpSendAck => RET_INTEGER, (ARG_PTR_TO_BTF_ID(Btf("tcp_sock")), ARG_ANYTHING);
}
