//! The emulated kernel: maps, helpers, tasks, CPUs, clock, timers, workqueues, task work
