//! Who may call which helper, through which prototype.
//!
//! One set per `get_func_proto` function of the kernel, and per program type the chain of sets
//! that it goes through. What a chain gives was measured on 6.18 for each program type and
//! attach type that it loads (`tests/data/helpers.csv`).
use super::sets::*;
use super::{Func, Proto};
use crate::{AttachType, KernelVersion, ProgType, ProgTypes};
use When::{Always, Attach, LsmHook, NotAttach, NotMember, Sleepable};

bitflags::bitflags! {
    /// Capabilities that the kernel asks for before it gives out a prototype.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Caps: u8 {
        /// `CAP_BPF`
        const BPF = 1;
        /// `CAP_PERFMON`
        const PERFMON = 2;
    }
}

/// What the kernel knows of a program when it looks for a prototype.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// `prog->type`; for an extension program, the type of the program that it extends.
    pub prog_type: ProgType,
    /// `prog->expected_attach_type`, as
    /// [`fixup_attach_type`](crate::prog::fixup_attach_type) leaves it.
    pub attach_type: AttachType,
    /// `attach_func_name`: the function, hook or iterator (`bpf_iter_tcp`) attached to; for
    /// struct_ops the structure (`tcp_congestion_ops`).
    pub target: Option<&'a str>,
    /// The struct_ops member that it implements.
    pub member: Option<&'a str>,
    /// `prog->sleepable`.
    pub sleepable: bool,
    /// What the loader is capable of; all by default.
    pub caps: Caps,
}

impl<'a> Caller<'a> {
    /// A program that does not sleep, loaded with every capability, with no target.
    #[must_use]
    pub const fn new(prog_type: ProgType, attach_type: AttachType) -> Self {
        let (target, member, caps) = (None, None, Caps::all());
        Self {
            prog_type,
            attach_type,
            target,
            member,
            sleepable: false,
            caps,
        }
    }

    /// The same with a target: function, hook, iterator or structure.
    #[must_use]
    pub const fn target(self, target: &'a str) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }
}

/// On what a row of a set depends.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// On nothing.
    Always,
    /// The attach type is one of these.
    Attach(&'static [AttachType]),
    /// The attach type is none of these.
    NotAttach(&'static [AttachType]),
    /// The program sleeps.
    Sleepable,
    /// It implements another member than this.
    NotMember(&'static str),
    /// A `BPF_LSM_CGROUP` program on one of these hooks.
    LsmHook(&'static [&'static str]),
}

impl When {
    fn holds(&self, caller: &Caller<'_>) -> bool {
        match self {
            Always => true,
            Attach(types) => types.contains(&caller.attach_type),
            NotAttach(types) => !types.contains(&caller.attach_type),
            Sleepable => caller.sleepable,
            NotMember(name) => caller.member != Some(name),
            LsmHook(hooks) => {
                caller.attach_type == AttachType::LsmCgroup
                    && caller.target.is_some_and(|t| hooks.contains(&t))
            }
        }
    }
}

/// What one `get_func_proto` function of the kernel gives out.
#[derive(Debug)]
pub struct ProtoSet {
    /// The kernel's function.
    pub symbol: &'static str,
    /// The capability that it asks for.
    pub cap: Caps,
    /// Whether a helper whose condition fails is looked for in the next set; else it is refused.
    pub next_if_refused: bool,
    /// The prototypes, each with its condition; the first that holds counts.
    pub protos: &'static [(&'static Proto, When)],
}

/// The prototype through which this program calls the helper; `None` where the verifier says
/// "program of this type cannot use helper %s#%d".
#[must_use]
pub fn proto(func: Func, caller: &Caller<'_>) -> Option<&'static Proto> {
    for set in func_proto_sets(caller.prog_type, caller.attach_type, caller.target) {
        if !caller.caps.contains(set.cap) {
            continue;
        }
        let mut listed = false;
        for (proto, when) in set.protos.iter().filter(|(p, _)| p.func == func) {
            if when.holds(caller) {
                return Some(proto);
            }
            listed = true;
        }
        if listed && !set.next_if_refused {
            return None;
        }
    }
    None
}

/// Every helper that this program may call, with its prototype, by number.
pub fn protos(caller: &Caller<'_>) -> impl Iterator<Item = &'static Proto> {
    Func::ALL
        .iter()
        .filter_map(move |func| proto(*func, caller))
}

/// `own; tail`: the sets of a program's own, then those that nearly all end in.
macro_rules! chain {
    ($($set:ident),*; only) => {{
        static CHAIN: &[&ProtoSet] = &[$(&$set),*];
        CHAIN
    }};
    ($($set:ident),*; base) => {
        chain!($($set,)* BASE, BASE_BPF, BASE_PERFMON; only)
    };
    ($($set:ident),*; sk_base) => { chain!($($set,)* SK_BASE, SK_BASE_PERFMON; base) };
    ($($set:ident),*; raw_tp) => { chain!($($set,)* RAW_TP, TRACING; base) };
}

/// The sets that a program goes through, in order: `bpf_verifier_ops[type]->get_func_proto`.
#[must_use]
pub fn func_proto_sets(
    prog_type: ProgType,
    attach_type: AttachType,
    target: Option<&str>,
) -> &'static [&'static ProtoSet] {
    use ProgType as P;
    match prog_type {
        P::Unspec | P::Ext => chain!(; only),
        P::SocketFilter => chain!(SK_FILTER; sk_base),
        P::Kprobe => chain!(KPROBE, TRACING; base),
        P::SchedCls | P::SchedAct => chain!(TC_CLS_ACT; sk_base),
        P::Tracepoint => chain!(TP, TRACING; base),
        P::Xdp => chain!(XDP; sk_base),
        P::PerfEvent => chain!(PE, TRACING; base),
        P::CgroupSkb => chain!(CGROUP_COMMON, CG_SKB, SK_FILTER; sk_base),
        P::CgroupSock => chain!(CGROUP_COMMON, SOCK_FILTER; base),
        P::LwtIn => chain!(LWT_IN, LWT_OUT; sk_base),
        P::LwtOut => chain!(LWT_OUT; sk_base),
        P::LwtXmit => chain!(LWT_XMIT, LWT_OUT; sk_base),
        P::LwtSeg6local => chain!(LWT_SEG6LOCAL, LWT_OUT; sk_base),
        P::SockOps => chain!(CGROUP_COMMON, SOCK_OPS; sk_base),
        P::SkSkb => chain!(SK_SKB; sk_base),
        P::SkMsg => chain!(SK_MSG; sk_base),
        P::CgroupDevice => chain!(CGROUP_COMMON, CGROUP_DEV; base),
        P::CgroupSockAddr => chain!(CGROUP_COMMON, SOCK_ADDR; sk_base),
        P::LircMode2 => chain!(LIRC_MODE2; only),
        P::SkReuseport => chain!(SK_REUSEPORT; base),
        P::FlowDissector => chain!(FLOW_DISSECTOR; sk_base),
        P::CgroupSysctl => chain!(CGROUP_COMMON, SYSCTL; base),
        P::CgroupSockopt => chain!(CGROUP_COMMON, CG_SOCKOPT; base),
        P::RawTracepoint | P::RawTracepointWritable => chain!(; raw_tp),
        P::Tracing if target == Some("bpf_iter_tcp") => chain!(ITER_TCP, TRACING_PROG; raw_tp),
        P::Tracing => chain!(TRACING_PROG; raw_tp),
        P::Syscall => chain!(SYSCALL, TRACING_PROG; raw_tp),
        P::Lsm if matches!(attach_type, AttachType::LsmCgroup) => {
            chain!(CGROUP_COMMON, LSM, TRACING_PROG; raw_tp)
        }
        P::Lsm => chain!(LSM, TRACING_PROG; raw_tp),
        P::StructOps if target == Some("tcp_congestion_ops") => chain!(TCP_CA; base),
        P::StructOps | P::Netfilter => chain!(; base),
        P::SkLookup => chain!(SK_LOOKUP; sk_base),
    }
}

const TRACING_TYPES: &[ProgType] = &[
    ProgType::Kprobe,
    ProgType::Tracepoint,
    ProgType::PerfEvent,
    ProgType::RawTracepoint,
    ProgType::RawTracepointWritable,
    ProgType::Tracing,
    ProgType::Lsm,
    ProgType::Syscall,
];
const CGROUP_TYPES: &[ProgType] = &[
    ProgType::CgroupSock,
    ProgType::CgroupDevice,
    ProgType::CgroupSockAddr,
    ProgType::CgroupSysctl,
    ProgType::CgroupSockopt,
];

/// Helpers that reached most program types later than they came: the helpers, since when, and
/// the types that had them from the beginning. What moved before 6.12 is not recorded.
pub static NEWER: &[(&[Func], KernelVersion, ProgTypes)] = &[
    (
        &[
            Func::CopyFromUser,
            Func::CopyFromUserTask,
            Func::FindVma,
            Func::GetBranchSnapshot,
            Func::GetTaskStack,
            Func::PerfEventRead,
            Func::PerfEventReadValue,
            Func::SendSignal,
            Func::SendSignalThread,
            Func::TaskStorageGet,
            Func::TaskStorageDelete,
        ],
        KernelVersion::V6_16,
        ProgTypes::of(TRACING_TYPES),
    ),
    (
        &[Func::GetCurrentComm, Func::CurrentTaskUnderCgroup],
        KernelVersion::V6_16,
        ProgTypes::of(TRACING_TYPES).union(ProgTypes::of(CGROUP_TYPES)),
    ),
    (
        &[Func::GetCurrentUidGid],
        KernelVersion::V6_16,
        ProgTypes::of(TRACING_TYPES)
            .union(ProgTypes::of(CGROUP_TYPES))
            .union(ProgTypes::of(&[ProgType::SkMsg])),
    ),
    (
        &[Func::GetCgroupClassid],
        KernelVersion::V6_16,
        ProgTypes::of(CGROUP_TYPES).union(ProgTypes::of(&[
            ProgType::SchedCls,
            ProgType::SchedAct,
            ProgType::LwtIn,
            ProgType::LwtOut,
            ProgType::LwtXmit,
            ProgType::LwtSeg6local,
            ProgType::SkMsg,
        ])),
    ),
    (
        &[Func::GetNetnsCookie],
        KernelVersion::V6_15,
        ProgTypes::of(CGROUP_TYPES).union(ProgTypes::of(&[ProgType::SockOps, ProgType::SkMsg])),
    ),
];

/// The first kernel that lets a program of this type call the helper, as far as recorded.
#[must_use]
pub fn since(func: Func, prog_type: ProgType) -> KernelVersion {
    NEWER
        .iter()
        .find(|(funcs, _, had)| funcs.contains(&func) && !had.contains(prog_type))
        .map_or(func.since(), |(_, version, _)| func.since().max(*version))
}
