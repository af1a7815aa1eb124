//! Prototypes of `net/`: packets (skb, xdp, lwt) and infrared.
#![allow(non_upper_case_globals)] // The names are the kernel's symbols.
use super::Of::{Btf, Size};
use super::proto::protos;

protos! {
    // drivers/media/rc/bpf-lirc.c
    rc_repeat_proto: RcRepeat => RET_INTEGER, (ARG_PTR_TO_CTX), GPL_ONLY;
    rc_keydown_proto: RcKeydown =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), GPL_ONLY;
    rc_pointer_rel_proto: RcPointerRel => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), GPL_ONLY;
    // net/core/filter.c
    bpf_skb_load_bytes_proto: SkbLoadBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_skb_load_bytes_relative_proto: SkbLoadBytesRelative =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_skb_event_output_proto: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_skb_cgroup_id_proto: SkbCgroupId => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_skb_ancestor_cgroup_id_proto: SkbAncestorCgroupId => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_skb_ecn_set_ce_proto: SkbEcnSetCe => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_skb_store_bytes_proto: SkbStoreBytes =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_pull_data_proto: SkbPullData => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), CHANGES_PKT;
    bpf_csum_diff_proto: CsumDiff =>
        RET_INTEGER,
        (ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING), PKT_ACCESS;
    bpf_csum_update_proto: CsumUpdate => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_csum_level_proto: CsumLevel => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_l3_csum_replace_proto: L3CsumReplace =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_l4_csum_replace_proto: L4CsumReplace =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_clone_redirect_proto: CloneRedirect =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_get_cgroup_classid_proto: GetCgroupClassid => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_skb_vlan_push_proto: SkbVlanPush =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_vlan_pop_proto: SkbVlanPop => RET_INTEGER, (ARG_PTR_TO_CTX), CHANGES_PKT;
    bpf_skb_change_proto_proto: SkbChangeProto =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_change_type_proto: SkbChangeType => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_skb_adjust_room_proto: SkbAdjustRoom =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_change_tail_proto: SkbChangeTail =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_change_head_proto: SkbChangeHead =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_get_tunnel_key_proto: SkbGetTunnelKey =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_skb_get_tunnel_opt_proto: SkbGetTunnelOpt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_redirect_proto: Redirect => RET_INTEGER, (ARG_ANYTHING, ARG_ANYTHING);
    bpf_redirect_neigh_proto: RedirectNeigh =>
        RET_INTEGER,
        (ARG_ANYTHING, ARG_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO, ARG_ANYTHING);
    bpf_redirect_peer_proto: RedirectPeer => RET_INTEGER, (ARG_ANYTHING, ARG_ANYTHING);
    bpf_get_route_realm_proto: GetRouteRealm => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_get_hash_recalc_proto: GetHashRecalc => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_set_hash_invalid_proto: SetHashInvalid => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_set_hash_proto: SetHash => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING);
    bpf_skb_under_cgroup_proto: SkbUnderCgroup =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING);
    bpf_skb_fib_lookup_proto: FibLookup =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_ANYTHING), GPL_ONLY;
    bpf_skb_check_mtu_proto: CheckMtu =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(4)) | MEM_WRITE | MEM_ALIGNED, ARG_ANYTHING, ARG_ANYTHING), GPL_ONLY;
    bpf_skb_get_xfrm_state_proto: SkbGetXfrmState =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_skb_cgroup_classid_proto: SkbCgroupClassid => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_skb_set_tstamp_proto: SkbSetTstamp => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING);
    bpf_skb_set_tunnel_key_proto: SkbSetTunnelKey =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE, ARG_ANYTHING);
    bpf_skb_set_tunnel_opt_proto: SkbSetTunnelOpt =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_xdp_event_output_proto: PerfEventOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_xdp_adjust_head_proto: XdpAdjustHead => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), CHANGES_PKT;
    bpf_xdp_adjust_meta_proto: XdpAdjustMeta => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), CHANGES_PKT;
    bpf_xdp_redirect_proto: Redirect => RET_INTEGER, (ARG_ANYTHING, ARG_ANYTHING);
    bpf_xdp_redirect_map_proto: RedirectMap => RET_INTEGER, (ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_ANYTHING);
    bpf_xdp_adjust_tail_proto: XdpAdjustTail => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), CHANGES_PKT;
    bpf_xdp_get_buff_len_proto: XdpGetBuffLen => RET_INTEGER, (ARG_PTR_TO_CTX);
    bpf_xdp_load_bytes_proto: XdpLoadBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_xdp_store_bytes_proto: XdpStoreBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE);
    bpf_xdp_fib_lookup_proto: FibLookup =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_PTR_TO_MEM | MEM_WRITE, ARG_CONST_SIZE, ARG_ANYTHING), GPL_ONLY;
    bpf_xdp_check_mtu_proto: CheckMtu =>
        RET_INTEGER,
        (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_FIXED_SIZE_MEM(Size(4)) | MEM_WRITE | MEM_ALIGNED, ARG_ANYTHING, ARG_ANYTHING), GPL_ONLY;
    sk_skb_pull_data_proto: SkbPullData => RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING), CHANGES_PKT;
    sk_skb_change_tail_proto: SkbChangeTail =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    sk_skb_change_head_proto: SkbChangeHead =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    sk_skb_adjust_room_proto: SkbAdjustRoom =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_flow_dissector_load_bytes_proto: SkbLoadBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_UNINIT_MEM, ARG_CONST_SIZE);
    bpf_lwt_in_push_encap_proto: LwtPushEncap =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), CHANGES_PKT;
    bpf_lwt_xmit_push_encap_proto: LwtPushEncap =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), CHANGES_PKT;
    bpf_lwt_seg6_store_bytes_proto: LwtSeg6StoreBytes =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), CHANGES_PKT;
    bpf_lwt_seg6_action_proto: LwtSeg6Action =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE), CHANGES_PKT;
    bpf_lwt_seg6_adjust_srh_proto: LwtSeg6AdjustSrh =>
        RET_INTEGER, (ARG_PTR_TO_CTX, ARG_ANYTHING, ARG_ANYTHING), CHANGES_PKT;
    bpf_skb_output_proto: SkbOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("sk_buff")), ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_xdp_output_proto: XdpOutput =>
        RET_INTEGER,
        (ARG_PTR_TO_BTF_ID(Btf("xdp_buff")), ARG_CONST_MAP_PTR, ARG_ANYTHING, ARG_PTR_TO_MEM | MEM_RDONLY, ARG_CONST_SIZE_OR_ZERO), GPL_ONLY;
    bpf_xdp_get_buff_len_trace_proto: XdpGetBuffLen => RET_INTEGER, (ARG_PTR_TO_BTF_ID(Btf("xdp_buff")));
    bpf_get_cgroup_classid_curr_proto: GetCgroupClassid => RET_INTEGER, ();
}
