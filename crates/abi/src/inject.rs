//! Functions whose result programs may put another in the place of (`ALLOW_ERROR_INJECTION`).

/// Functions of 6.18 that say so by name.
pub static FUNCTIONS: &[&str] = &[
    "__filemap_add_folio",
    "btrfs_check_leaf",
    "btrfs_check_node",
    "btrfs_cow_block",
    "btrfs_search_slot",
    "btrfs_should_cancel_balance",
    "io_ctl_init",
    "open_ctree",
    "page_pool_alloc_netmems",
    "should_fail_alloc_page",
    "should_fail_bio",
    "should_failslab",
];

/// Prefixes of functions that all say so: system calls, as x86-64 has them.
pub static PREFIXES: &[&str] = &["__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_"];

/// Whether a function is one of them (`within_error_injection_list`).
#[must_use]
pub fn is_injectable(function: &str) -> bool {
    FUNCTIONS.binary_search(&function).is_ok() || PREFIXES.iter().any(|p| function.starts_with(p))
}

#[cfg(test)]
mod tests {
    #[test]
    fn functions_are_in_order_and_found() {
        assert!(super::FUNCTIONS.is_sorted());
        for name in ["should_failslab", "open_ctree", "__x64_sys_openat"] {
            assert!(super::is_injectable(name), "{name}");
        }
        assert!(!super::is_injectable("security_bprm_check"));
    }
}
