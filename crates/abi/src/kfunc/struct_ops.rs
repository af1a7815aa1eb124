//! Kfuncs of what is implemented through struct_ops: TCP congestion control, sched_ext, HID, qdiscs.
use super::kfuncs;

kfuncs! {
    "tcp_bbr_check_kfunc_ids" [StructOps] Always {
        bbr_init: V5_15, [],
            "void bbr_init(struct sock *sk)";
        bbr_main: V5_15, [],
            "void bbr_main(struct sock *sk, u32 ack, int flag, const struct rate_sample *rs)";
        bbr_sndbuf_expand: V5_15, [],
            "u32 bbr_sndbuf_expand(struct sock *sk)";
        bbr_undo_cwnd: V5_15, [],
            "u32 bbr_undo_cwnd(struct sock *sk)";
        bbr_cwnd_event: V5_15, [],
            "void bbr_cwnd_event(struct sock *sk, enum tcp_ca_event event)";
        bbr_ssthresh: V5_15, [],
            "u32 bbr_ssthresh(struct sock *sk)";
        bbr_min_tso_segs: V5_15, [],
            "u32 bbr_min_tso_segs(struct sock *sk)";
        bbr_set_state: V5_15, [],
            "void bbr_set_state(struct sock *sk, u8 new_state)";
    }
    "tcp_cubic_check_kfunc_ids" [StructOps] Always {
        cubictcp_init: V5_15, [],
            "void cubictcp_init(struct sock *sk)";
        cubictcp_recalc_ssthresh: V5_15, [],
            "u32 cubictcp_recalc_ssthresh(struct sock *sk)";
        cubictcp_cong_avoid: V5_15, [],
            "void cubictcp_cong_avoid(struct sock *sk, u32 ack, u32 acked)";
        cubictcp_state: V5_15, [],
            "void cubictcp_state(struct sock *sk, u8 new_state)";
        cubictcp_cwnd_event: V5_15, [],
            "void cubictcp_cwnd_event(struct sock *sk, enum tcp_ca_event event)";
        cubictcp_acked: V5_15, [],
            "void cubictcp_acked(struct sock *sk, const struct ack_sample *sample)";
    }
    "tcp_dctcp_check_kfunc_ids" [StructOps] Always {
        dctcp_init: V5_15, [],
            "void dctcp_init(struct sock *sk)";
        dctcp_update_alpha: V5_15, [],
            "void dctcp_update_alpha(struct sock *sk, u32 flags)";
        dctcp_cwnd_event: V5_15, [],
            "void dctcp_cwnd_event(struct sock *sk, enum tcp_ca_event ev)";
        dctcp_ssthresh: V5_15, [],
            "u32 dctcp_ssthresh(struct sock *sk)";
        dctcp_cwnd_undo: V5_15, [],
            "u32 dctcp_cwnd_undo(struct sock *sk)";
        dctcp_state: V5_15, [],
            "void dctcp_state(struct sock *sk, u8 new_state)";
    }
    "bpf_tcp_ca_check_kfunc_ids" [StructOps] Always {
        tcp_reno_ssthresh: V5_15, [],
            "u32 tcp_reno_ssthresh(struct sock *sk)";
        tcp_reno_cong_avoid: V5_15, [],
            "void tcp_reno_cong_avoid(struct sock *sk, u32 ack, u32 acked)";
        tcp_reno_undo_cwnd: V5_15, [],
            "u32 tcp_reno_undo_cwnd(struct sock *sk)";
        tcp_slow_start: V5_15, [],
            "u32 tcp_slow_start(struct tcp_sock *tp, u32 acked)";
        tcp_cong_avoid_ai: V5_15, [],
            "void tcp_cong_avoid_ai(struct tcp_sock *tp, u32 w, u32 acked)";
    }
    "hid_bpf_kfunc_ids" [StructOps, Syscall] Always {
        hid_bpf_get_data: V6_3, [RET_NULL],
            "__u8 *hid_bpf_get_data(struct hid_bpf_ctx *ctx, unsigned int offset, const size_t rdwr_buf_size)";
        hid_bpf_allocate_context: V6_3, [ACQUIRE, RET_NULL],
            "struct hid_bpf_ctx *hid_bpf_allocate_context(unsigned int hid_id)";
        hid_bpf_release_context: V6_3, [RELEASE],
            "void hid_bpf_release_context(struct hid_bpf_ctx *ctx)";
        hid_bpf_hw_request: V6_3, [],
            "int hid_bpf_hw_request(struct hid_bpf_ctx *ctx, __u8 *buf, size_t buf__sz, enum hid_report_type rtype, enum hid_class_request reqtype)";
        hid_bpf_hw_output_report: V6_10, [],
            "int hid_bpf_hw_output_report(struct hid_bpf_ctx *ctx, __u8 *buf, size_t buf__sz)";
        hid_bpf_input_report: V6_10, [],
            "int hid_bpf_input_report(struct hid_bpf_ctx *ctx, enum hid_report_type type, u8 *buf, const size_t buf__sz)";
        hid_bpf_try_input_report: V6_11, [],
            "int hid_bpf_try_input_report(struct hid_bpf_ctx *ctx, enum hid_report_type type, u8 *buf, const size_t buf__sz)";
    }
    "hid_bpf_pseudo_syscall_kfunc_removed_ids" [Syscall] Always {
        hid_bpf_attach_prog: V6_3 until V6_11, [],
            "int hid_bpf_attach_prog(unsigned int hid_id, int prog_fd, u32 flags)";
    }
    "scx_kfunc_ids_select_cpu" [StructOps, Syscall] SchedExt {
        scx_bpf_select_cpu_dfl: V6_12, [RCU],
            "s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *is_idle)";
    }
    "scx_kfunc_ids_enqueue_dispatch" [StructOps] SchedExt {
        scx_bpf_dsq_insert: V6_13, [RCU],
            "void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags)";
        scx_bpf_dsq_insert_vtime: V6_13, [RCU],
            "void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime, u64 enq_flags)";
        scx_bpf_dispatch: V6_12, [RCU],
            "void scx_bpf_dispatch(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags)";
        scx_bpf_dispatch_vtime: V6_12, [RCU],
            "void scx_bpf_dispatch_vtime(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime, u64 enq_flags)";
    }
    "scx_kfunc_ids_dispatch" [StructOps] SchedExt {
        scx_bpf_dispatch_nr_slots: V6_12, [],
            "u32 scx_bpf_dispatch_nr_slots(void)";
        scx_bpf_dispatch_cancel: V6_12, [],
            "void scx_bpf_dispatch_cancel(void)";
        scx_bpf_dsq_move_to_local: V6_13, [],
            "bool scx_bpf_dsq_move_to_local(u64 dsq_id)";
        scx_bpf_consume: V6_12, [],
            "bool scx_bpf_consume(u64 dsq_id)";
        scx_bpf_dsq_move_set_slice: V6_13, [RCU],
            "void scx_bpf_dsq_move_set_slice(struct bpf_iter_scx_dsq *it__iter, u64 slice)";
        scx_bpf_dsq_move_set_vtime: V6_13, [RCU],
            "void scx_bpf_dsq_move_set_vtime(struct bpf_iter_scx_dsq *it__iter, u64 vtime)";
        scx_bpf_dispatch_from_dsq_set_slice: V6_12, [RCU],
            "void scx_bpf_dispatch_from_dsq_set_slice( struct bpf_iter_scx_dsq *it__iter, u64 slice)";
        scx_bpf_dispatch_from_dsq_set_vtime: V6_12, [RCU],
            "void scx_bpf_dispatch_from_dsq_set_vtime( struct bpf_iter_scx_dsq *it__iter, u64 vtime)";
        scx_bpf_dsq_move: V6_13, [RCU],
            "bool scx_bpf_dsq_move(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 dsq_id, u64 enq_flags)";
        scx_bpf_dsq_move_vtime: V6_13, [RCU],
            "bool scx_bpf_dsq_move_vtime(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 dsq_id, u64 enq_flags)";
        scx_bpf_dispatch_from_dsq: V6_12, [RCU],
            "bool scx_bpf_dispatch_from_dsq(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 dsq_id, u64 enq_flags)";
        scx_bpf_dispatch_vtime_from_dsq: V6_12, [RCU],
            "bool scx_bpf_dispatch_vtime_from_dsq(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 dsq_id, u64 enq_flags)";
    }
    "scx_kfunc_ids_cpu_release" [StructOps] SchedExt {
        scx_bpf_reenqueue_local: V6_12, [],
            "u32 scx_bpf_reenqueue_local(void)";
    }
    "scx_kfunc_ids_unlocked" [StructOps, Syscall] SchedExt {
        scx_bpf_create_dsq: V6_12, [SLEEPABLE],
            "s32 scx_bpf_create_dsq(u64 dsq_id, s32 node)";
    }
    "scx_kfunc_ids_any" [StructOps, Tracing, Syscall] SchedExt {
        scx_bpf_kick_cpu: V6_12, [],
            "void scx_bpf_kick_cpu(s32 cpu, u64 flags)";
        scx_bpf_dsq_nr_queued: V6_12, [],
            "s32 scx_bpf_dsq_nr_queued(u64 dsq_id)";
        scx_bpf_destroy_dsq: V6_12, [],
            "void scx_bpf_destroy_dsq(u64 dsq_id)";
        bpf_iter_scx_dsq_new: V6_12, [ITER_NEW, RCU_PROTECTED],
            "int bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 dsq_id, u64 flags)";
        bpf_iter_scx_dsq_next: V6_12, [ITER_NEXT, RET_NULL],
            "struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it)";
        bpf_iter_scx_dsq_destroy: V6_12, [ITER_DESTROY],
            "void bpf_iter_scx_dsq_destroy(struct bpf_iter_scx_dsq *it)";
        scx_bpf_exit_bstr: V6_12, [TRUSTED_ARGS],
            "void scx_bpf_exit_bstr(s64 exit_code, char *fmt, unsigned long long *data, u32 data__sz)";
        scx_bpf_error_bstr: V6_12, [TRUSTED_ARGS],
            "void scx_bpf_error_bstr(char *fmt, unsigned long long *data, u32 data__sz)";
        scx_bpf_dump_bstr: V6_12, [TRUSTED_ARGS],
            "void scx_bpf_dump_bstr(char *fmt, unsigned long long *data, u32 data__sz)";
        scx_bpf_cpuperf_cap: V6_12, [],
            "u32 scx_bpf_cpuperf_cap(s32 cpu)";
        scx_bpf_cpuperf_cur: V6_12, [],
            "u32 scx_bpf_cpuperf_cur(s32 cpu)";
        scx_bpf_cpuperf_set: V6_12, [],
            "void scx_bpf_cpuperf_set(s32 cpu, u32 perf)";
        scx_bpf_nr_cpu_ids: V6_12, [],
            "u32 scx_bpf_nr_cpu_ids(void)";
        scx_bpf_get_possible_cpumask: V6_12, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_possible_cpumask(void)";
        scx_bpf_get_online_cpumask: V6_12, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_online_cpumask(void)";
        scx_bpf_put_cpumask: V6_12, [RELEASE],
            "void scx_bpf_put_cpumask(const struct cpumask *cpumask)";
        scx_bpf_get_idle_cpumask: V6_12, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_idle_cpumask(void)";
        scx_bpf_get_idle_smtmask: V6_12, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_idle_smtmask(void)";
        scx_bpf_put_idle_cpumask: V6_12, [RELEASE],
            "void scx_bpf_put_idle_cpumask(const struct cpumask *idle_mask)";
        scx_bpf_test_and_clear_cpu_idle: V6_12, [],
            "bool scx_bpf_test_and_clear_cpu_idle(s32 cpu)";
        scx_bpf_pick_idle_cpu: V6_12, [RCU],
            "s32 scx_bpf_pick_idle_cpu(const struct cpumask *cpus_allowed, u64 flags)";
        scx_bpf_pick_any_cpu: V6_12, [RCU],
            "s32 scx_bpf_pick_any_cpu(const struct cpumask *cpus_allowed, u64 flags)";
        scx_bpf_task_running: V6_12, [RCU],
            "bool scx_bpf_task_running(const struct task_struct *p)";
        scx_bpf_task_cpu: V6_12, [RCU],
            "s32 scx_bpf_task_cpu(const struct task_struct *p)";
        scx_bpf_cpu_rq: V6_12, [],
            "struct rq *scx_bpf_cpu_rq(s32 cpu)";
        scx_bpf_task_cgroup: V6_12, [RCU, ACQUIRE],
            "struct cgroup *scx_bpf_task_cgroup(struct task_struct *p)";
        scx_bpf_now: V6_14, [],
            "u64 scx_bpf_now(void)";
        scx_bpf_events: V6_15, [TRUSTED_ARGS],
            "void scx_bpf_events(struct scx_event_stats *events, size_t events__sz)";
        scx_bpf_cpu_node: V6_15, [],
            "int scx_bpf_cpu_node(s32 cpu)";
        scx_bpf_get_idle_cpumask_node: V6_15, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_idle_cpumask_node(int node)";
        scx_bpf_get_idle_smtmask_node: V6_15, [ACQUIRE],
            "const struct cpumask *scx_bpf_get_idle_smtmask_node(int node)";
        scx_bpf_pick_idle_cpu_node: V6_15, [RCU],
            "s32 scx_bpf_pick_idle_cpu_node(const struct cpumask *cpus_allowed, int node, u64 flags)";
        scx_bpf_pick_any_cpu_node: V6_15, [RCU],
            "s32 scx_bpf_pick_any_cpu_node(const struct cpumask *cpus_allowed, int node, u64 flags)";
        scx_bpf_nr_node_ids: V6_15, [],
            "u32 scx_bpf_nr_node_ids(void)";
        scx_bpf_select_cpu_and: V6_16, [RCU],
            "s32 scx_bpf_select_cpu_and(struct task_struct *p, s32 prev_cpu, u64 wake_flags, const struct cpumask *cpus_allowed, u64 flags)";
        scx_bpf_cpu_curr: V6_18, [RET_NULL, RCU_PROTECTED],
            "struct task_struct *scx_bpf_cpu_curr(s32 cpu)";
        scx_bpf_locked_rq: V6_18, [RET_NULL],
            "struct rq *scx_bpf_locked_rq(void)";
    }
    "qdisc_kfunc_ids" [StructOps] Qdisc {
        bpf_skb_get_hash: V6_16, [TRUSTED_ARGS],
            "u32 bpf_skb_get_hash(struct sk_buff *skb)";
        bpf_kfree_skb: V6_16, [RELEASE],
            "void bpf_kfree_skb(struct sk_buff *skb)";
        bpf_qdisc_skb_drop: V6_16, [RELEASE],
            "void bpf_qdisc_skb_drop(struct sk_buff *skb, struct bpf_sk_buff_ptr *to_free_list)";
        bpf_qdisc_watchdog_schedule: V6_16, [TRUSTED_ARGS],
            "void bpf_qdisc_watchdog_schedule(struct Qdisc *sch, u64 expire, u64 delta_ns)";
        bpf_qdisc_init_prologue: V6_16, [TRUSTED_ARGS],
            "int bpf_qdisc_init_prologue(struct Qdisc *sch, struct netlink_ext_ack *extack)";
        bpf_qdisc_reset_destroy_epilogue: V6_16, [TRUSTED_ARGS],
            "void bpf_qdisc_reset_destroy_epilogue(struct Qdisc *sch)";
        bpf_qdisc_bstats_update: V6_16, [],
            "void bpf_qdisc_bstats_update(struct Qdisc *sch, const struct sk_buff *skb)";
    }
}
