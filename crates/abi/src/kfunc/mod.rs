//! Kfuncs: kernel functions that programs call by name.
//!
//! One row per function that some `btf_kfunc_id_set` of 6.18 registers, whatever the kernel's
//! configuration. Which program types reach a set was measured on 6.18 (`tests/data/kfuncs.csv`).
//! Prototypes are C, with the parameter names that the verifier reads meaning from (`__sz`,
//! `__k`, `__ign`, `__map`, `__prog`, `__str`, `__nullable`, `__opt`, ...).
mod common;
mod generic;
mod net;
mod struct_ops;

use crate::{AttachType, KernelVersion, ProgType};

bitflags::bitflags! {
    /// What a kfunc is registered with: `KF_*` of `linux/btf.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct KfuncFlags: u32 {
        /// `KF_ACQUIRE`: gives a reference that must be released.
        const ACQUIRE = 1 << 0;
        /// `KF_RELEASE`: releases the reference passed.
        const RELEASE = 1 << 1;
        /// `KF_RET_NULL`: may give null.
        const RET_NULL = 1 << 2;
        /// `KF_TRUSTED_ARGS`: pointers must be trusted, unmodified and not null.
        const TRUSTED_ARGS = 1 << 4;
        /// `KF_SLEEPABLE`: only where sleeping is permitted.
        const SLEEPABLE = 1 << 5;
        /// `KF_DESTRUCTIVE`: asks for `CAP_SYS_BOOT`.
        const DESTRUCTIVE = 1 << 6;
        /// `KF_RCU`: pointers must be trusted or RCU protected.
        const RCU = 1 << 7;
        /// `KF_ITER_NEW`: makes an iterator.
        const ITER_NEW = 1 << 8;
        /// `KF_ITER_NEXT`: an iterator's next element.
        const ITER_NEXT = 1 << 9;
        /// `KF_ITER_DESTROY`: ends an iterator.
        const ITER_DESTROY = 1 << 10;
        /// `KF_RCU_PROTECTED`: only within an RCU read section.
        const RCU_PROTECTED = 1 << 11;
        /// `KF_FASTCALL`: keeps R1 to R5 where the call is inlined.
        const FASTCALL = 1 << 12;
        /// `KF_ARENA_RET`: gives an arena pointer.
        const ARENA_RET = 1 << 13;
        /// `KF_ARENA_ARG1`: its first argument is an arena pointer.
        const ARENA_ARG1 = 1 << 14;
        /// `KF_ARENA_ARG2`: its second argument is an arena pointer.
        const ARENA_ARG2 = 1 << 15;
    }
}

/// What kfunc sets are registered for: `enum btf_kfunc_hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `BTF_KFUNC_HOOK_COMMON`: every program type.
    Common,
    /// `BTF_KFUNC_HOOK_XDP`
    Xdp,
    /// `BTF_KFUNC_HOOK_TC`
    Tc,
    /// `BTF_KFUNC_HOOK_STRUCT_OPS`
    StructOps,
    /// `BTF_KFUNC_HOOK_TRACING`
    Tracing,
    /// `BTF_KFUNC_HOOK_SYSCALL`
    Syscall,
    /// `BTF_KFUNC_HOOK_CGROUP`
    Cgroup,
    /// `BTF_KFUNC_HOOK_SCHED_ACT`
    SchedAct,
    /// `BTF_KFUNC_HOOK_SK_SKB`
    SkSkb,
    /// `BTF_KFUNC_HOOK_SOCKET_FILTER`
    SocketFilter,
    /// `BTF_KFUNC_HOOK_LWT`
    Lwt,
    /// `BTF_KFUNC_HOOK_NETFILTER`
    Netfilter,
    /// `BTF_KFUNC_HOOK_KPROBE`
    Kprobe,
}

impl Hook {
    /// The hook of a program type besides [`Hook::Common`]: `bpf_prog_type_to_kfunc_hook`.
    #[must_use]
    pub const fn of(prog_type: ProgType) -> Option<Self> {
        use ProgType as P;
        Some(match prog_type {
            P::Xdp => Self::Xdp,
            P::SchedCls => Self::Tc,
            P::StructOps => Self::StructOps,
            P::Tracing | P::Tracepoint | P::PerfEvent | P::Lsm => Self::Tracing,
            P::Syscall => Self::Syscall,
            P::CgroupSkb
            | P::CgroupSock
            | P::CgroupDevice
            | P::CgroupSockAddr
            | P::CgroupSockopt
            | P::CgroupSysctl
            | P::SockOps => Self::Cgroup,
            P::SchedAct => Self::SchedAct,
            P::SkSkb => Self::SkSkb,
            P::SocketFilter => Self::SocketFilter,
            P::LwtOut | P::LwtIn | P::LwtXmit | P::LwtSeg6local => Self::Lwt,
            P::Netfilter => Self::Netfilter,
            P::Kprobe => Self::Kprobe,
            _ => return None,
        })
    }
}

/// The first kernel in which programs of this type reach kfuncs by a hook of their own, where
/// that came after the hook itself; [`Hook::Common`] is open to all.
#[must_use]
pub const fn hook_since(prog_type: ProgType) -> KernelVersion {
    use ProgType as P;
    match prog_type {
        P::CgroupSockAddr => KernelVersion::V6_7,
        P::Kprobe => KernelVersion::V6_10,
        P::Tracepoint
        | P::PerfEvent
        | P::CgroupSock
        | P::CgroupDevice
        | P::CgroupSockopt
        | P::CgroupSysctl => KernelVersion::V6_12,
        P::SockOps => KernelVersion::V6_15,
        _ => KernelVersion::OLDEST,
    }
}

/// What a set asks of the program besides its hook: `btf_kfunc_id_set::filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Nothing.
    Always,
    /// `bpf_kprobe_multi_filter`: a kprobe or uprobe session.
    KprobeSession,
    /// `tracing_iter_filter`: `expected_attach_type` is `BPF_TRACE_ITER`.
    TraceIter,
    /// `bpf_fs_kfuncs_filter`: an LSM program.
    Lsm,
    /// The struct_ops is `sched_ext_ops`, or the program is no struct_ops.
    SchedExt,
    /// `bpf_qdisc_kfunc_filter`: the struct_ops is `Qdisc_ops`.
    Qdisc,
    /// `bpf_dev_bound_kfunc_check`: an XDP program bound to a device.
    DeviceBound,
}

/// One kfunc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kfunc {
    /// Its name.
    pub name: &'static str,
    /// The `btf_kfunc_id_set` that registers it.
    pub set: &'static str,
    /// What the set is registered for; none for what can only be attached to (`fmod_ret`).
    pub hooks: &'static [Hook],
    /// What else is asked.
    pub filter: Filter,
    /// What it is registered with.
    pub flags: KfuncFlags,
    /// The first kernel that has it; 5.15 stands for 5.15 or before.
    pub since: KernelVersion,
    /// The first that has it no more.
    pub until: Option<KernelVersion>,
    /// Its prototype in C.
    pub proto: &'static str,
}

/// Every kfunc, set by set.
pub fn all() -> impl Iterator<Item = &'static Kfunc> {
    [common::ALL, generic::ALL, net::ALL, struct_ops::ALL]
        .into_iter()
        .flatten()
}

/// The kfunc with this name.
#[must_use]
pub fn get(name: &str) -> Option<&'static Kfunc> {
    all().find(|k| k.name == name)
}

impl Kfunc {
    /// Whether it has this flag.
    #[must_use]
    pub const fn is(&self, flag: KfuncFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Whether that kernel has it.
    #[must_use]
    pub fn exists_in(&self, kernel: KernelVersion) -> bool {
        kernel >= self.since && self.until.is_none_or(|until| kernel < until)
    }

    /// The first kernel that lets programs of this type call it, if any does, as far as recorded.
    #[must_use]
    pub fn since_for(&self, prog_type: ProgType) -> Option<KernelVersion> {
        let hook = match self.hooks.contains(&Hook::Common) {
            true => KernelVersion::OLDEST,
            false => hook_since(prog_type),
        };
        self.reaches(prog_type).then(|| self.since.max(hook))
    }

    /// Whether a program of this type may call it at all, some filter permitting.
    #[must_use]
    pub fn reaches(&self, prog_type: ProgType) -> bool {
        let own = Hook::of(prog_type);
        self.hooks
            .iter()
            .any(|h| *h == Hook::Common || Some(*h) == own)
            && (self.filter != Filter::Lsm || prog_type == ProgType::Lsm)
    }

    /// Whether this program may call it; where not the verifier says "calling kernel function %s
    /// is not allowed". `target` is the struct_ops structure's name, if it is one.
    #[must_use]
    pub fn allowed(
        &self,
        prog_type: ProgType,
        attach_type: AttachType,
        target: Option<&str>,
    ) -> bool {
        let filter = match self.filter {
            Filter::Always | Filter::Lsm => true,
            Filter::KprobeSession => matches!(
                attach_type,
                AttachType::TraceKprobeSession | AttachType::TraceUprobeSession
            ),
            Filter::TraceIter => attach_type == AttachType::TraceIter,
            Filter::SchedExt => prog_type != ProgType::StructOps || target == Some("sched_ext_ops"),
            Filter::Qdisc => target == Some("Qdisc_ops"),
            Filter::DeviceBound => false,
        };
        filter && self.reaches(prog_type)
    }

    /// What it gives back, in C: all before its name.
    #[must_use]
    pub fn returns(&self) -> &'static str {
        self.proto
            .split_once(self.name)
            .map_or("", |(ret, _)| ret.trim_end())
    }

    /// Its parameters in C, each with its name.
    #[must_use]
    pub fn params(&self) -> Vec<&'static str> {
        let list = self
            .proto
            .split_once(self.name)
            .and_then(|(_, rest)| rest.strip_prefix('(')?.strip_suffix(')'))
            .unwrap_or("void");
        if list == "void" {
            return Vec::new();
        }
        let mut depth = 0_usize;
        list.split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .collect()
    }
}

/// `"set" [hooks] filter { name: since [until ..], [flags], "prototype"; .. }`
macro_rules! kfuncs {
    ($($set:literal $hooks:tt $filter:ident {
        $($name:ident: $since:ident $(until $until:ident)?, [$($flag:ident),*], $proto:literal;)*
    })*) => {
        pub(super) static ALL: &[$crate::kfunc::Kfunc] = &[$($($crate::kfunc::Kfunc {
            name: stringify!($name),
            set: $set,
            hooks: kfuncs!(@hooks $hooks),
            filter: $crate::kfunc::Filter::$filter,
            flags: $crate::kfunc::KfuncFlags::empty()
                $(.union($crate::kfunc::KfuncFlags::$flag))*,
            since: $crate::KernelVersion::$since,
            until: kfuncs!(@until $($until)?),
            proto: $proto,
        },)*)*];
    };
    (@hooks [$($hook:ident),*]) => { &[$($crate::kfunc::Hook::$hook),*] };
    (@until) => { None };
    (@until $until:ident) => { Some($crate::KernelVersion::$until) };
}
use kfuncs;
