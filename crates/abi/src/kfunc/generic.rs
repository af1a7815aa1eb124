//! Kfuncs of `kernel/`, `fs/` and the kernel's own tests.
use super::kfuncs;

kfuncs! {
    "generic_btf_ids" [Xdp, Tc, StructOps, Tracing, Syscall, Cgroup] Always {
        bpf_lookup_user_key: V6_1, [ACQUIRE, RET_NULL, SLEEPABLE],
            "struct bpf_key *bpf_lookup_user_key(s32 serial, u64 flags)";
        bpf_lookup_system_key: V6_1, [ACQUIRE, RET_NULL],
            "struct bpf_key *bpf_lookup_system_key(u64 id)";
        bpf_key_put: V6_1, [RELEASE],
            "void bpf_key_put(struct bpf_key *bkey)";
        bpf_verify_pkcs7_signature: V6_1, [SLEEPABLE],
            "int bpf_verify_pkcs7_signature(struct bpf_dynptr *data_p, struct bpf_dynptr *sig_p, struct bpf_key *trusted_keyring)";
        crash_kexec: V6_1, [DESTRUCTIVE],
            "void crash_kexec(struct pt_regs *regs)";
        bpf_obj_new_impl: V6_2, [ACQUIRE, RET_NULL],
            "void *bpf_obj_new_impl(u64 local_type_id__k, void *meta__ign)";
        bpf_percpu_obj_new_impl: V6_7, [ACQUIRE, RET_NULL],
            "void *bpf_percpu_obj_new_impl(u64 local_type_id__k, void *meta__ign)";
        bpf_obj_drop_impl: V6_2, [RELEASE],
            "void bpf_obj_drop_impl(void *p__alloc, void *meta__ign)";
        bpf_percpu_obj_drop_impl: V6_7, [RELEASE],
            "void bpf_percpu_obj_drop_impl(void *p__alloc, void *meta__ign)";
        bpf_refcount_acquire_impl: V6_4, [ACQUIRE, RET_NULL, RCU],
            "void *bpf_refcount_acquire_impl(void *p__refcounted_kptr, void *meta__ign)";
        bpf_list_push_front_impl: V6_4, [],
            "int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta__ign, u64 off)";
        bpf_list_push_back_impl: V6_4, [],
            "int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta__ign, u64 off)";
        bpf_list_pop_front: V6_2, [ACQUIRE, RET_NULL],
            "struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head)";
        bpf_list_pop_back: V6_2, [ACQUIRE, RET_NULL],
            "struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head)";
        bpf_task_acquire: V6_2, [ACQUIRE, RCU, RET_NULL],
            "struct task_struct *bpf_task_acquire(struct task_struct *p)";
        bpf_task_release: V6_2, [RELEASE],
            "void bpf_task_release(struct task_struct *p)";
        bpf_rbtree_remove: V6_3, [ACQUIRE, RET_NULL],
            "struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node)";
        bpf_rbtree_add_impl: V6_4, [],
            "int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node, bool (*less)(struct bpf_rb_node *, const struct bpf_rb_node *), void *meta__ign, u64 off)";
        bpf_rbtree_first: V6_3, [RET_NULL],
            "struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root)";
        bpf_cgroup_acquire: V6_2, [ACQUIRE, RCU, RET_NULL],
            "struct cgroup *bpf_cgroup_acquire(struct cgroup *cgrp)";
        bpf_cgroup_release: V6_2, [RELEASE],
            "void bpf_cgroup_release(struct cgroup *cgrp)";
        bpf_cgroup_ancestor: V6_2, [ACQUIRE, RCU, RET_NULL],
            "struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level)";
        bpf_cgroup_from_id: V6_4, [ACQUIRE, RET_NULL],
            "struct cgroup *bpf_cgroup_from_id(u64 cgid)";
        bpf_task_under_cgroup: V6_5, [RCU],
            "long int bpf_task_under_cgroup(struct task_struct *task, struct cgroup *ancestor)";
        bpf_task_get_cgroup1: V6_8, [ACQUIRE, RCU, RET_NULL],
            "struct cgroup *bpf_task_get_cgroup1(struct task_struct *task, int hierarchy_id)";
        bpf_task_from_pid: V6_2, [ACQUIRE, RET_NULL],
            "struct task_struct *bpf_task_from_pid(s32 pid)";
        bpf_task_from_vpid: V6_13, [ACQUIRE, RET_NULL],
            "struct task_struct *bpf_task_from_vpid(s32 vpid)";
        bpf_throw: V6_7, [],
            "void bpf_throw(u64 cookie)";
        bpf_send_signal_task: V6_13, [TRUSTED_ARGS],
            "int bpf_send_signal_task(struct task_struct *task, int sig, enum pid_type type, u64 value)";
        bpf_list_back: V6_16, [RET_NULL],
            "struct bpf_list_node *bpf_list_back(struct bpf_list_head *head)";
        bpf_list_front: V6_16, [RET_NULL],
            "struct bpf_list_node *bpf_list_front(struct bpf_list_head *head)";
        bpf_rbtree_left: V6_16, [RET_NULL],
            "struct bpf_rb_node *bpf_rbtree_left(struct bpf_rb_root *root, struct bpf_rb_node *node)";
        bpf_rbtree_right: V6_16, [RET_NULL],
            "struct bpf_rb_node *bpf_rbtree_right(struct bpf_rb_root *root, struct bpf_rb_node *node)";
        bpf_rbtree_root: V6_16, [RET_NULL],
            "struct bpf_rb_node *bpf_rbtree_root(struct bpf_rb_root *root)";
    }
    "cpumask_kfunc_btf_ids" [StructOps, Tracing, Syscall] Always {
        bpf_cpumask_create: V6_3, [ACQUIRE, RET_NULL],
            "struct bpf_cpumask *bpf_cpumask_create(void)";
        bpf_cpumask_release: V6_3, [RELEASE],
            "void bpf_cpumask_release(struct bpf_cpumask *cpumask)";
        bpf_cpumask_acquire: V6_3, [ACQUIRE, TRUSTED_ARGS],
            "struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *cpumask)";
        bpf_cpumask_first: V6_3, [RCU],
            "u32 bpf_cpumask_first(const struct cpumask *cpumask)";
        bpf_cpumask_first_zero: V6_3, [RCU],
            "u32 bpf_cpumask_first_zero(const struct cpumask *cpumask)";
        bpf_cpumask_first_and: V6_5, [RCU],
            "u32 bpf_cpumask_first_and(const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_set_cpu: V6_3, [RCU],
            "void bpf_cpumask_set_cpu(u32 cpu, struct bpf_cpumask *cpumask)";
        bpf_cpumask_clear_cpu: V6_3, [RCU],
            "void bpf_cpumask_clear_cpu(u32 cpu, struct bpf_cpumask *cpumask)";
        bpf_cpumask_test_cpu: V6_3, [RCU],
            "bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask)";
        bpf_cpumask_test_and_set_cpu: V6_3, [RCU],
            "bool bpf_cpumask_test_and_set_cpu(u32 cpu, struct bpf_cpumask *cpumask)";
        bpf_cpumask_test_and_clear_cpu: V6_3, [RCU],
            "bool bpf_cpumask_test_and_clear_cpu(u32 cpu, struct bpf_cpumask *cpumask)";
        bpf_cpumask_setall: V6_3, [RCU],
            "void bpf_cpumask_setall(struct bpf_cpumask *cpumask)";
        bpf_cpumask_clear: V6_3, [RCU],
            "void bpf_cpumask_clear(struct bpf_cpumask *cpumask)";
        bpf_cpumask_and: V6_3, [RCU],
            "bool bpf_cpumask_and(struct bpf_cpumask *dst, const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_or: V6_3, [RCU],
            "void bpf_cpumask_or(struct bpf_cpumask *dst, const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_xor: V6_3, [RCU],
            "void bpf_cpumask_xor(struct bpf_cpumask *dst, const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_equal: V6_3, [RCU],
            "bool bpf_cpumask_equal(const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_intersects: V6_3, [RCU],
            "bool bpf_cpumask_intersects(const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_subset: V6_3, [RCU],
            "bool bpf_cpumask_subset(const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_empty: V6_3, [RCU],
            "bool bpf_cpumask_empty(const struct cpumask *cpumask)";
        bpf_cpumask_full: V6_3, [RCU],
            "bool bpf_cpumask_full(const struct cpumask *cpumask)";
        bpf_cpumask_copy: V6_3, [RCU],
            "void bpf_cpumask_copy(struct bpf_cpumask *dst, const struct cpumask *src)";
        bpf_cpumask_any_distribute: V6_5, [RCU],
            "u32 bpf_cpumask_any_distribute(const struct cpumask *cpumask)";
        bpf_cpumask_any_and_distribute: V6_5, [RCU],
            "u32 bpf_cpumask_any_and_distribute(const struct cpumask *src1, const struct cpumask *src2)";
        bpf_cpumask_weight: V6_8, [RCU],
            "u32 bpf_cpumask_weight(const struct cpumask *cpumask)";
        bpf_cpumask_populate: V6_15, [RCU],
            "int bpf_cpumask_populate(struct cpumask *cpumask, void *src, size_t src__sz)";
    }
    "bpf_rstat_kfunc_ids" [Tracing] Always {
        cgroup_rstat_updated: V6_1 until V6_16, [],
            "void cgroup_rstat_updated(struct cgroup *cgrp, int cpu)";
        cgroup_rstat_flush: V6_1 until V6_16, [SLEEPABLE],
            "void cgroup_rstat_flush(struct cgroup *cgrp)";
        css_rstat_updated: V6_16, [],
            "void css_rstat_updated(struct cgroup_subsys_state *css, int cpu)";
        css_rstat_flush: V6_16, [SLEEPABLE],
            "void css_rstat_flush(struct cgroup_subsys_state *css)";
    }
    "crypt_init_kfunc_btf_ids" [Syscall] Always {
        bpf_crypto_ctx_create: V6_10, [ACQUIRE, RET_NULL, SLEEPABLE],
            "struct bpf_crypto_ctx *bpf_crypto_ctx_create(const struct bpf_crypto_params *params, u32 params__sz, int *err)";
        bpf_crypto_ctx_release: V6_10, [RELEASE],
            "void bpf_crypto_ctx_release(struct bpf_crypto_ctx *ctx)";
        bpf_crypto_ctx_acquire: V6_10, [ACQUIRE, RCU, RET_NULL],
            "struct bpf_crypto_ctx *bpf_crypto_ctx_acquire(struct bpf_crypto_ctx *ctx)";
    }
    "crypt_kfunc_btf_ids" [Xdp, Tc, SchedAct] Always {
        bpf_crypto_decrypt: V6_10, [RCU],
            "int bpf_crypto_decrypt(struct bpf_crypto_ctx *ctx, const struct bpf_dynptr *src, const struct bpf_dynptr *dst, const struct bpf_dynptr *siv__nullable)";
        bpf_crypto_encrypt: V6_10, [RCU],
            "int bpf_crypto_encrypt(struct bpf_crypto_ctx *ctx, const struct bpf_dynptr *src, const struct bpf_dynptr *dst, const struct bpf_dynptr *siv__nullable)";
    }
    "kprobe_multi_kfunc_set_ids" [Kprobe] KprobeSession {
        bpf_session_is_return: V6_10, [],
            "bool bpf_session_is_return(void)";
        bpf_session_cookie: V6_10, [],
            "__u64 *bpf_session_cookie(void)";
    }
    "bpf_fs_kfunc_set_ids" [Tracing] Lsm {
        bpf_get_file_xattr: V6_8, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_get_file_xattr(struct file *file, const char *name__str, struct bpf_dynptr *value_p)";
        bpf_get_task_exe_file: V6_12, [ACQUIRE, TRUSTED_ARGS, RET_NULL],
            "struct file *bpf_get_task_exe_file(struct task_struct *task)";
        bpf_put_file: V6_12, [RELEASE],
            "void bpf_put_file(struct file *file)";
        bpf_path_d_path: V6_12, [TRUSTED_ARGS],
            "int bpf_path_d_path(const struct path *path, char *buf, size_t buf__sz)";
        bpf_get_dentry_xattr: V6_12, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_get_dentry_xattr(struct dentry *dentry, const char *name__str, struct bpf_dynptr *value_p)";
        bpf_set_dentry_xattr: V6_15, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_set_dentry_xattr(struct dentry *dentry, const char *name__str, const struct bpf_dynptr *value_p, int flags)";
        bpf_remove_dentry_xattr: V6_15, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_remove_dentry_xattr(struct dentry *dentry, const char *name__str)";
    }
    "fsverity_set_ids" [Tracing] Lsm {
        bpf_get_fsverity_digest: V6_8, [TRUSTED_ARGS],
            "int bpf_get_fsverity_digest(struct file *file, struct bpf_dynptr *digest_p)";
    }
    "bpf_test_modify_return_ids" [] Always {
        bpf_fentry_test1: V6_0, [SLEEPABLE],
            "int bpf_fentry_test1(int a)";
        bpf_modify_return_test: V5_15, [],
            "int bpf_modify_return_test(int a, int *b)";
        bpf_modify_return_test2: V6_5, [],
            "int bpf_modify_return_test2(int a, int *b, short int c, int d, void *e, char f, int g)";
    }
    "test_sk_check_kfunc_ids" [Tc, Tracing, Syscall] Always {
        bpf_kfunc_call_memb_release: V6_0, [RELEASE],
            "void bpf_kfunc_call_memb_release(struct prog_test_member *p)";
        bpf_kfunc_call_test_release: V5_18, [RELEASE],
            "void bpf_kfunc_call_test_release(struct prog_test_ref_kfunc *p)";
    }
}
