//! Arguments of kernel functions (`check_kfunc_args`).
