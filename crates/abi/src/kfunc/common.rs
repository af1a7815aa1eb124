//! Kfuncs that every program type may call.
use super::kfuncs;

kfuncs! {
    "common_btf_ids" [Common] Always {
        bpf_cast_to_kern_ctx: V6_2, [FASTCALL],
            "void *bpf_cast_to_kern_ctx(void *obj)";
        bpf_rdonly_cast: V6_2, [FASTCALL],
            "void *bpf_rdonly_cast(const void *obj__ign, u32 btf_id__k)";
        bpf_rcu_read_lock: V6_2, [],
            "void bpf_rcu_read_lock(void)";
        bpf_rcu_read_unlock: V6_2, [],
            "void bpf_rcu_read_unlock(void)";
        bpf_dynptr_slice: V6_4, [RET_NULL],
            "void *bpf_dynptr_slice(const struct bpf_dynptr *p, u32 offset, void *buffer__opt, u32 buffer__szk)";
        bpf_dynptr_slice_rdwr: V6_4, [RET_NULL],
            "void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *p, u32 offset, void *buffer__opt, u32 buffer__szk)";
        bpf_iter_num_new: V6_4, [ITER_NEW],
            "int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end)";
        bpf_iter_num_next: V6_4, [ITER_NEXT, RET_NULL],
            "int *bpf_iter_num_next(struct bpf_iter_num *it)";
        bpf_iter_num_destroy: V6_4, [ITER_DESTROY],
            "void bpf_iter_num_destroy(struct bpf_iter_num *it)";
        bpf_iter_task_vma_new: V6_7, [ITER_NEW, RCU],
            "int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, u64 addr)";
        bpf_iter_task_vma_next: V6_7, [ITER_NEXT, RET_NULL],
            "struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it)";
        bpf_iter_task_vma_destroy: V6_7, [ITER_DESTROY],
            "void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it)";
        bpf_iter_css_task_new: V6_7, [ITER_NEW, TRUSTED_ARGS],
            "int bpf_iter_css_task_new(struct bpf_iter_css_task *it, struct cgroup_subsys_state *css, unsigned int flags)";
        bpf_iter_css_task_next: V6_7, [ITER_NEXT, RET_NULL],
            "struct task_struct *bpf_iter_css_task_next(struct bpf_iter_css_task *it)";
        bpf_iter_css_task_destroy: V6_7, [ITER_DESTROY],
            "void bpf_iter_css_task_destroy(struct bpf_iter_css_task *it)";
        bpf_iter_css_new: V6_7, [ITER_NEW, TRUSTED_ARGS, RCU_PROTECTED],
            "int bpf_iter_css_new(struct bpf_iter_css *it, struct cgroup_subsys_state *start, unsigned int flags)";
        bpf_iter_css_next: V6_7, [ITER_NEXT, RET_NULL],
            "struct cgroup_subsys_state *bpf_iter_css_next(struct bpf_iter_css *it)";
        bpf_iter_css_destroy: V6_7, [ITER_DESTROY],
            "void bpf_iter_css_destroy(struct bpf_iter_css *it)";
        bpf_iter_task_new: V6_7, [ITER_NEW, TRUSTED_ARGS, RCU_PROTECTED],
            "int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task__nullable, unsigned int flags)";
        bpf_iter_task_next: V6_7, [ITER_NEXT, RET_NULL],
            "struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it)";
        bpf_iter_task_destroy: V6_7, [ITER_DESTROY],
            "void bpf_iter_task_destroy(struct bpf_iter_task *it)";
        bpf_dynptr_adjust: V6_5, [],
            "int bpf_dynptr_adjust(const struct bpf_dynptr *p, u32 start, u32 end)";
        bpf_dynptr_is_null: V6_5, [],
            "bool bpf_dynptr_is_null(const struct bpf_dynptr *p)";
        bpf_dynptr_is_rdonly: V6_5, [],
            "bool bpf_dynptr_is_rdonly(const struct bpf_dynptr *p)";
        bpf_dynptr_size: V6_5, [],
            "__u32 bpf_dynptr_size(const struct bpf_dynptr *p)";
        bpf_dynptr_clone: V6_5, [],
            "int bpf_dynptr_clone(const struct bpf_dynptr *p, struct bpf_dynptr *clone__uninit)";
        bpf_wq_init: V6_10, [],
            "int bpf_wq_init(struct bpf_wq *wq, void *p__map, unsigned int flags)";
        bpf_wq_set_callback_impl: V6_10, [],
            "int bpf_wq_set_callback_impl(struct bpf_wq *wq, int (*callback_fn)(void *, int *, void *), unsigned int flags, void *aux__prog)";
        bpf_wq_start: V6_10, [],
            "int bpf_wq_start(struct bpf_wq *wq, unsigned int flags)";
        bpf_preempt_disable: V6_10, [],
            "void bpf_preempt_disable(void)";
        bpf_preempt_enable: V6_10, [],
            "void bpf_preempt_enable(void)";
        bpf_iter_bits_new: V6_11, [ITER_NEW],
            "int bpf_iter_bits_new(struct bpf_iter_bits *it, const u64 *unsafe_ptr__ign, u32 nr_words)";
        bpf_iter_bits_next: V6_11, [ITER_NEXT, RET_NULL],
            "int *bpf_iter_bits_next(struct bpf_iter_bits *it)";
        bpf_iter_bits_destroy: V6_11, [ITER_DESTROY],
            "void bpf_iter_bits_destroy(struct bpf_iter_bits *it)";
        bpf_copy_from_user_str: V6_12, [SLEEPABLE],
            "int bpf_copy_from_user_str(void *dst, u32 dst__sz, const void *unsafe_ptr__ign, u64 flags)";
        bpf_get_kmem_cache: V6_13, [],
            "struct kmem_cache *bpf_get_kmem_cache(u64 addr)";
        bpf_iter_kmem_cache_new: V6_13, [ITER_NEW, SLEEPABLE],
            "int bpf_iter_kmem_cache_new(struct bpf_iter_kmem_cache *it)";
        bpf_iter_kmem_cache_next: V6_13, [ITER_NEXT, RET_NULL, SLEEPABLE],
            "struct kmem_cache *bpf_iter_kmem_cache_next(struct bpf_iter_kmem_cache *it)";
        bpf_iter_kmem_cache_destroy: V6_13, [ITER_DESTROY, SLEEPABLE],
            "void bpf_iter_kmem_cache_destroy(struct bpf_iter_kmem_cache *it)";
        bpf_local_irq_save: V6_14, [],
            "void bpf_local_irq_save(unsigned long *flags__irq_flag)";
        bpf_local_irq_restore: V6_14, [],
            "void bpf_local_irq_restore(unsigned long *flags__irq_flag)";
        bpf_copy_from_user_task_str: V6_15, [SLEEPABLE],
            "int bpf_copy_from_user_task_str(void *dst, u32 dst__sz, const void *unsafe_ptr__ign, struct task_struct *tsk, u64 flags)";
        bpf_dynptr_copy: V6_15, [],
            "int bpf_dynptr_copy(struct bpf_dynptr *dst_ptr, u32 dst_off, struct bpf_dynptr *src_ptr, u32 src_off, u32 size)";
        bpf_probe_read_user_dynptr: V6_16, [],
            "int bpf_probe_read_user_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_probe_read_kernel_dynptr: V6_16, [],
            "int bpf_probe_read_kernel_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_probe_read_user_str_dynptr: V6_16, [],
            "int bpf_probe_read_user_str_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_probe_read_kernel_str_dynptr: V6_16, [],
            "int bpf_probe_read_kernel_str_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_copy_from_user_dynptr: V6_16, [SLEEPABLE],
            "int bpf_copy_from_user_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_copy_from_user_str_dynptr: V6_16, [SLEEPABLE],
            "int bpf_copy_from_user_str_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign)";
        bpf_copy_from_user_task_dynptr: V6_16, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_copy_from_user_task_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign, struct task_struct *tsk)";
        bpf_copy_from_user_task_str_dynptr: V6_16, [SLEEPABLE, TRUSTED_ARGS],
            "int bpf_copy_from_user_task_str_dynptr(struct bpf_dynptr *dptr, u32 off, u32 size, const void *unsafe_ptr__ign, struct task_struct *tsk)";
        __bpf_trap: V6_16, [],
            "void __bpf_trap(void)";
        bpf_dynptr_memset: V6_17, [],
            "int bpf_dynptr_memset(struct bpf_dynptr *p, u32 offset, u32 size, u8 val)";
        bpf_strchr: V6_17, [],
            "int bpf_strchr(const char *s__ign, char c)";
        bpf_strchrnul: V6_17, [],
            "int bpf_strchrnul(const char *s__ign, char c)";
        bpf_strcmp: V6_17, [],
            "int bpf_strcmp(const char *s1__ign, const char *s2__ign)";
        bpf_strcspn: V6_17, [],
            "int bpf_strcspn(const char *s__ign, const char *reject__ign)";
        bpf_strlen: V6_17, [],
            "int bpf_strlen(const char *s__ign)";
        bpf_strnchr: V6_17, [],
            "int bpf_strnchr(const char *s__ign, size_t count, char c)";
        bpf_strnlen: V6_17, [],
            "int bpf_strnlen(const char *s__ign, size_t count)";
        bpf_strnstr: V6_17, [],
            "int bpf_strnstr(const char *s1__ign, const char *s2__ign, size_t len)";
        bpf_strrchr: V6_17, [],
            "int bpf_strrchr(const char *s__ign, int c)";
        bpf_strspn: V6_17, [],
            "int bpf_strspn(const char *s__ign, const char *accept__ign)";
        bpf_strstr: V6_17, [],
            "int bpf_strstr(const char *s1__ign, const char *s2__ign)";
        bpf_strcasecmp: V6_18, [],
            "int bpf_strcasecmp(const char *s1__ign, const char *s2__ign)";
        bpf_iter_dmabuf_destroy: V6_16, [ITER_DESTROY, SLEEPABLE],
            "void bpf_iter_dmabuf_destroy(struct bpf_iter_dmabuf *it)";
        bpf_iter_dmabuf_new: V6_16, [ITER_NEW, SLEEPABLE],
            "int bpf_iter_dmabuf_new(struct bpf_iter_dmabuf *it)";
        bpf_iter_dmabuf_next: V6_16, [ITER_NEXT, RET_NULL, SLEEPABLE],
            "struct dma_buf *bpf_iter_dmabuf_next(struct bpf_iter_dmabuf *it)";
        bpf_stream_vprintk_impl: V6_17, [TRUSTED_ARGS],
            "int bpf_stream_vprintk_impl(int stream_id, const char *fmt__str, const void *args, u32 len__sz, void *aux__prog)";
        bpf_cgroup_read_xattr: V6_17, [RCU],
            "int bpf_cgroup_read_xattr(struct cgroup *cgroup, const char *name__str, struct bpf_dynptr *value_p)";
        bpf_task_work_schedule_signal_impl: V6_18, [TRUSTED_ARGS],
            "int bpf_task_work_schedule_signal_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map, bpf_task_work_callback_t callback, void *aux__prog)";
        bpf_task_work_schedule_resume_impl: V6_18, [TRUSTED_ARGS],
            "int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw, void *map__map, bpf_task_work_callback_t callback, void *aux__prog)";
        bpf_modify_return_test_tp: V6_10, [],
            "int bpf_modify_return_test_tp(int nonce)";
    }
    "rqspinlock_kfunc_ids" [Common] Always {
        bpf_res_spin_lock: V6_15, [RET_NULL],
            "int bpf_res_spin_lock(struct bpf_res_spin_lock *lock)";
        bpf_res_spin_unlock: V6_15, [],
            "void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock)";
        bpf_res_spin_lock_irqsave: V6_15, [RET_NULL],
            "int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock, unsigned long *flags__irq_flag)";
        bpf_res_spin_unlock_irqrestore: V6_15, [],
            "void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock, unsigned long *flags__irq_flag)";
    }
    "arena_kfuncs" [Common] Always {
        bpf_arena_alloc_pages: V6_9, [TRUSTED_ARGS, SLEEPABLE, ARENA_RET, ARENA_ARG2],
            "void *bpf_arena_alloc_pages(void *p__map, void *addr__ign, u32 page_cnt, int node_id, u64 flags)";
        bpf_arena_free_pages: V6_9, [TRUSTED_ARGS, SLEEPABLE, ARENA_ARG2],
            "void bpf_arena_free_pages(void *p__map, void *ptr__ign, u32 page_cnt)";
        bpf_arena_reserve_pages: V6_17, [TRUSTED_ARGS, SLEEPABLE, ARENA_ARG2],
            "int bpf_arena_reserve_pages(void *p__map, void *ptr__ign, u32 page_cnt)";
    }
    "bpf_map_iter_kfunc_ids" [Common] Always {
        bpf_map_sum_elem_count: V6_6, [TRUSTED_ARGS],
            "s64 bpf_map_sum_elem_count(const struct bpf_map *map)";
    }
}
