//! Kfuncs of `net/`.
use super::kfuncs;

kfuncs! {
    "xdp_metadata_kfunc_ids" [Xdp] DeviceBound {
        bpf_xdp_metadata_rx_timestamp: V6_3, [],
            "int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, u64 *timestamp)";
        bpf_xdp_metadata_rx_hash: V6_3, [],
            "int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, u32 *hash, enum xdp_rss_hash_type *rss_type)";
        bpf_xdp_metadata_rx_vlan_tag: V6_8, [],
            "int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, u16 *vlan_tci)";
    }
    "bpf_kfunc_check_set_skb" [Tc, Tracing, Cgroup, SchedAct, SkSkb, SocketFilter, Lwt, Netfilter] Always {
        bpf_dynptr_from_skb: V6_4, [TRUSTED_ARGS],
            "int bpf_dynptr_from_skb(struct __sk_buff *s, u64 flags, struct bpf_dynptr *ptr__uninit)";
    }
    "bpf_kfunc_check_set_xdp" [Xdp] Always {
        bpf_dynptr_from_xdp: V6_4, [],
            "int bpf_dynptr_from_xdp(struct xdp_md *x, u64 flags, struct bpf_dynptr *ptr__uninit)";
        bpf_xdp_pull_data: V6_18, [],
            "int bpf_xdp_pull_data(struct xdp_md *x, u32 len)";
    }
    "bpf_kfunc_check_set_sock_addr" [Cgroup] Always {
        bpf_sock_addr_set_sun_path: V6_7, [],
            "int bpf_sock_addr_set_sun_path(struct bpf_sock_addr_kern *sa_kern, const u8 *sun_path, u32 sun_path__sz)";
    }
    "bpf_sk_iter_kfunc_ids" [Tracing] TraceIter {
        bpf_sock_destroy: V6_5, [TRUSTED_ARGS],
            "int bpf_sock_destroy(struct sock_common *sock)";
    }
    "fou_kfunc_set" [Tc] Always {
        bpf_skb_set_fou_encap: V6_4, [],
            "int bpf_skb_set_fou_encap(struct __sk_buff *skb_ctx, struct bpf_fou_encap *encap, int type)";
        bpf_skb_get_fou_encap: V6_4, [],
            "int bpf_skb_get_fou_encap(struct __sk_buff *skb_ctx, struct bpf_fou_encap *encap)";
    }
    "nf_nat_kfunc_set" [Xdp, Tc] Always {
        bpf_ct_set_nat_info: V6_1, [TRUSTED_ARGS],
            "int bpf_ct_set_nat_info(struct nf_conn___init *nfct, union nf_inet_addr *addr, int port, enum nf_nat_manip_type manip)";
    }
    "nf_ct_kfunc_set" [Xdp, Tc] Always {
        bpf_xdp_ct_alloc: V6_0, [ACQUIRE, RET_NULL],
            "struct nf_conn___init *bpf_xdp_ct_alloc(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple, u32 tuple__sz, struct bpf_ct_opts *opts, u32 opts__sz)";
        bpf_xdp_ct_lookup: V5_18, [ACQUIRE, RET_NULL],
            "struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple, u32 tuple__sz, struct bpf_ct_opts *opts, u32 opts__sz)";
        bpf_skb_ct_alloc: V6_0, [ACQUIRE, RET_NULL],
            "struct nf_conn___init *bpf_skb_ct_alloc(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple, u32 tuple__sz, struct bpf_ct_opts *opts, u32 opts__sz)";
        bpf_skb_ct_lookup: V5_18, [ACQUIRE, RET_NULL],
            "struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple, u32 tuple__sz, struct bpf_ct_opts *opts, u32 opts__sz)";
        bpf_ct_insert_entry: V6_0, [ACQUIRE, RET_NULL, RELEASE],
            "struct nf_conn *bpf_ct_insert_entry(struct nf_conn___init *nfct_i)";
        bpf_ct_release: V5_18, [RELEASE],
            "void bpf_ct_release(struct nf_conn *nfct)";
        bpf_ct_set_timeout: V6_0, [TRUSTED_ARGS],
            "void bpf_ct_set_timeout(struct nf_conn___init *nfct, u32 timeout)";
        bpf_ct_change_timeout: V6_0, [TRUSTED_ARGS],
            "int bpf_ct_change_timeout(struct nf_conn *nfct, u32 timeout)";
        bpf_ct_set_status: V6_0, [TRUSTED_ARGS],
            "int bpf_ct_set_status(const struct nf_conn___init *nfct, u32 status)";
        bpf_ct_change_status: V6_0, [TRUSTED_ARGS],
            "int bpf_ct_change_status(struct nf_conn *nfct, u32 status)";
    }
    "xfrm_ifc_kfunc_set" [Tc] Always {
        bpf_skb_get_xfrm_info: V6_2, [],
            "int bpf_skb_get_xfrm_info(struct __sk_buff *skb_ctx, struct bpf_xfrm_info *to)";
        bpf_skb_set_xfrm_info: V6_2, [],
            "int bpf_skb_set_xfrm_info(struct __sk_buff *skb_ctx, const struct bpf_xfrm_info *from)";
    }
    "xfrm_state_kfunc_set" [Xdp] Always {
        bpf_xdp_get_xfrm_state: V6_8, [RET_NULL, ACQUIRE],
            "struct xfrm_state *bpf_xdp_get_xfrm_state(struct xdp_md *ctx, struct bpf_xfrm_state_opts *opts, u32 opts__sz)";
        bpf_xdp_xfrm_state_release: V6_8, [RELEASE],
            "void bpf_xdp_xfrm_state_release(struct xfrm_state *x)";
    }
    "bpf_kfunc_check_set_tcp_reqsk" [Tc] Always {
        bpf_sk_assign_tcp_reqsk: V6_9, [TRUSTED_ARGS],
            "int bpf_sk_assign_tcp_reqsk(struct __sk_buff *s, struct sock *sk, struct bpf_tcp_req_attrs *attrs, int attrs__sz)";
    }
    "nf_ft_kfunc_set" [Xdp] Always {
        bpf_xdp_flow_lookup: V6_11, [TRUSTED_ARGS, RET_NULL],
            "struct flow_offload_tuple_rhash *bpf_xdp_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple, struct bpf_flowtable_opts *opts, u32 opts_len)";
    }
    "bpf_kfunc_check_set_sock_ops" [Cgroup] Always {
        bpf_sock_ops_enable_tx_tstamp: V6_15, [TRUSTED_ARGS],
            "int bpf_sock_ops_enable_tx_tstamp(struct bpf_sock_ops_kern *skops, u64 flags)";
    }
    "bpf_kfunc_set_skb_meta" [Tc, SchedAct] Always {
        bpf_dynptr_from_skb_meta: V6_18, [TRUSTED_ARGS],
            "int bpf_dynptr_from_skb_meta(struct __sk_buff *skb_, u64 flags, struct bpf_dynptr *ptr__uninit)";
    }
}
