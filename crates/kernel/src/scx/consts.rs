//! What sched_ext's interface is made of, by its names in the kernel.

/// `SCX_DSQ_*`
pub(crate) mod dsq {
    pub const FLAG_BUILTIN: u64 = 1 << 63;
    pub const FLAG_LOCAL_ON: u64 = 1 << 62;
    pub const GLOBAL: u64 = FLAG_BUILTIN | 1;
    pub const LOCAL: u64 = FLAG_BUILTIN | 2;
    pub const LOCAL_ON: u64 = FLAG_BUILTIN | FLAG_LOCAL_ON;
    pub const LOCAL_CPU_MASK: u64 = 0xffff_ffff;
    /// `SCX_DSQ_ITER_REV`
    pub const ITER_REV: u64 = 1 << 16;
}

/// `SCX_ENQ_*`
pub(crate) mod enq {
    pub const WAKEUP: u64 = 1;
    /// `ENQUEUE_RESTORE`
    pub const RESTORE: u64 = 2;
    /// `ENQUEUE_NOCLOCK`
    pub const NOCLOCK: u64 = 8;
    pub const PREEMPT: u64 = 1 << 32;
    pub const REENQ: u64 = 1 << 40;
    pub const LAST: u64 = 1 << 41;
    pub const INTERNAL_MASK: u64 = 0xff << 56;
    pub const DSQ_PRIQ: u64 = 1 << 57;
}

/// `SCX_DEQ_*`, and of `DEQUEUE_*` what goes with them.
pub(crate) mod deq {
    pub const SLEEP: u64 = 1;
    pub const SAVE: u64 = 2;
    pub const NOCLOCK: u64 = 8;
}

/// `SCX_OPS_*`
pub(crate) mod ops {
    pub const KEEP_BUILTIN_IDLE: u64 = 1;
    pub const ENQ_LAST: u64 = 1 << 1;
    pub const ENQ_EXITING: u64 = 1 << 2;
    pub const SWITCH_PARTIAL: u64 = 1 << 3;
    pub const ENQ_MIGRATION_DISABLED: u64 = 1 << 4;
    pub const ALLOW_QUEUED_WAKEUP: u64 = 1 << 5;
    pub const BUILTIN_IDLE_PER_NODE: u64 = 1 << 6;
    /// It said nothing any more by 6.18, and was still taken.
    pub const HAS_CGROUP_WEIGHT: u64 = 1 << 16;
    pub const ALL: u64 = KEEP_BUILTIN_IDLE
        | ENQ_LAST
        | ENQ_EXITING
        | SWITCH_PARTIAL
        | ENQ_MIGRATION_DISABLED
        | ALLOW_QUEUED_WAKEUP
        | BUILTIN_IDLE_PER_NODE
        | HAS_CGROUP_WEIGHT;
}

/// `SCX_KF_*`: what an operation allows of kfuncs.
pub(crate) mod kf {
    pub const UNLOCKED: u32 = 0;
    pub const CPU_RELEASE: u32 = 1;
    pub const DISPATCH: u32 = 1 << 1;
    pub const ENQUEUE: u32 = 1 << 2;
    pub const SELECT_CPU: u32 = 1 << 3;
    pub const REST: u32 = 1 << 4;
    pub const RQ_LOCKED: u32 = CPU_RELEASE | DISPATCH | ENQUEUE | REST;
}

/// `SCX_KICK_*`
pub(crate) mod kick {
    pub const IDLE: u64 = 1;
    pub const PREEMPT: u64 = 1 << 1;
    pub const WAIT: u64 = 1 << 2;
}

/// `SCX_WAKE_SYNC`
pub(crate) const WAKE_SYNC: u64 = 0x10;
/// `SCX_SLICE_DFL`, in ns.
pub(crate) const SLICE_DFL: u64 = 20_000_000;
/// `SCX_SLICE_INF`
pub(crate) const SLICE_INF: u64 = u64::MAX;
/// `SCX_DSP_DFL_MAX_BATCH`
pub(crate) const MAX_BATCH: u32 = 32;
/// `SCX_DSP_MAX_LOOPS`
pub(crate) const MAX_LOOPS: u32 = 32;
/// `SCX_WATCHDOG_MAX_TIMEOUT`, in ms.
pub(crate) const MAX_TIMEOUT: u32 = 30_000;
/// `SCX_CPUPERF_ONE`
pub(crate) const CPUPERF_ONE: u32 = 1024;
/// `SCX_EXIT_MSG_LEN`
pub(crate) const EXIT_MSG_LEN: usize = 1024;
/// `SCX_EFLAG_INITIALIZED`
pub(crate) const EFLAG_INITIALIZED: u64 = 1;

/// `struct scx_event_stats`, in the order of its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(
    dead_code,
    reason = "some never come about: CPUs stay online, nobody disables migration"
)]
pub(crate) enum Counter {
    SelectCpuFallback,
    DispatchLocalDsqOffline,
    DispatchKeepLast,
    EnqSkipExiting,
    EnqSkipMigrationDisabled,
    RefillSliceDfl,
    BypassDuration,
    BypassDispatch,
    BypassActivate,
}

/// Of those.
pub(crate) const COUNTERS: usize = Counter::BypassActivate as usize + 1;
