//! Functions of the kernel that tracing programs may attach to under conditions only: sets of
//! `kernel/bpf/verifier.c`, and those that subsystems register (`register_btf_fmodret_id_set`).

use crate::inject;

/// Functions that no tracing program attaches to: programs themselves need them. `btf_id_deny`.
pub const NOT_TRACED: &[&str] = &[
    "___migrate_enable",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "migrate_disable",
    "migrate_enable",
    "preempt_count_add",
    "preempt_count_sub",
    "rcu_read_unlock_strict",
];

/// Functions that never return, so nothing runs after them. `noreturn_deny`.
pub const NORETURN: &[&str] = &[
    "__ia32_sys_exit",
    "__ia32_sys_exit_group",
    "__kunit_abort",
    "__module_put_and_kthread_exit",
    "__x64_sys_exit",
    "__x64_sys_exit_group",
    "do_exit",
    "do_group_exit",
    "kthread_complete_and_exit",
    "kthread_exit",
    "kunit_try_catch_throw",
    "make_task_dead",
];

/// Functions whose result may be replaced ([`inject`]) and that are called where nothing sleeps.
/// `btf_non_sleepable_error_inject`.
pub const INJECTABLE_ATOMIC: &[&str] = &[
    "__filemap_add_folio",
    "should_fail_alloc_page",
    "should_failslab",
];

/// Functions that are there to be modified, and whether programs at them may sleep: `fmod_ret` sets.
pub const FMOD_RET: &[(&str, bool)] = &[
    ("bpf_fentry_test1", true),
    ("bpf_modify_return_test", false),
    ("bpf_modify_return_test2", false),
    ("bpf_modify_return_test_tp", false),
    ("update_socket_protocol", false),
];

fn fmod_ret(function: &str) -> Option<bool> {
    let at = FMOD_RET.binary_search_by(|(name, _)| (*name).cmp(function));
    at.ok().map(|at| FMOD_RET[at].1)
}

/// Whether tracing programs at this function may sleep.
#[must_use]
pub fn may_sleep(function: &str) -> bool {
    let atomic = INJECTABLE_ATOMIC.binary_search(&function).is_ok();
    !atomic && inject::is_injectable(function) || fmod_ret(function) == Some(true)
}

/// Whether `fmod_ret` programs may put their result in the place of this function's.
#[must_use]
pub fn is_modifiable(function: &str) -> bool {
    fmod_ret(function).is_some()
        || inject::is_injectable(function)
        || function.starts_with("security_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_in_order_and_found() {
        assert!(NOT_TRACED.is_sorted() && NORETURN.is_sorted());
        assert!(INJECTABLE_ATOMIC.is_sorted() && FMOD_RET.is_sorted());
        for (name, sleeps, modifies) in [
            ("bpf_fentry_test1", true, true),
            ("bpf_modify_return_test", false, true),
            ("should_failslab", false, true),
            ("__x64_sys_openat", true, true),
            ("security_file_open", false, true),
            ("do_unlinkat", false, false),
        ] {
            assert_eq!(
                (may_sleep(name), is_modifiable(name)),
                (sleeps, modifies),
                "{name}"
            );
        }
    }
}
