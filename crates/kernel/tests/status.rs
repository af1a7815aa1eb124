//! What the ABI table says of bpfsim, held against what the kernel crate runs.

use bpfsim_abi::{Func, Status, kfunc, status};
use bpfsim_kernel::{runs_helper, runs_kfunc, runs_kfuncs};

#[test]
fn the_table_says_which_helpers_run() {
    for &func in &Func::ALL[1..] {
        let says = status::helper(func) != Status::No;
        assert_eq!(says, runs_helper(func), "{}", func.name());
    }
}

#[test]
fn the_table_says_which_kfuncs_run() {
    for row in kfunc::all() {
        let says = status::kfunc(row.name) != Status::No;
        assert_eq!(says, runs_kfunc(row.name), "{}", row.name);
    }
    let unknown: Vec<_> = runs_kfuncs().filter(|n| kfunc::get(n).is_none()).collect();
    assert!(unknown.is_empty(), "no kfuncs of Linux: {unknown:?}");
    for (name, ..) in status::KFUNCS {
        assert!(kfunc::get(name).is_some(), "{name}");
    }
}

#[test]
fn no_row_is_there_twice() {
    let mut helpers: Vec<_> = status::HELPERS.iter().map(|(f, ..)| f.name()).collect();
    let mut kfuncs: Vec<_> = status::KFUNCS.iter().map(|(name, ..)| *name).collect();
    let mut runs: Vec<_> = runs_kfuncs().collect();
    for names in [&mut helpers, &mut kfuncs, &mut runs] {
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
    }
}
