//! The Linux BPF surface as data: program, map, helper, kfunc and context tables
