//! Per program type: what it returns, whether it may sleep, touch packets, and be test-run.
use super::{AttachType, ProgType, ProgTypes};
use AttachType as A;
use ProgType as P;

/// What `BPF_PROG_TEST_RUN` gives a program of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TestRun {
    /// The kernel has none: `ENOTSUPP`.
    No,
    /// `bpf_prog_test_run_skb`: a packet of at least 14 bytes, optionally a `__sk_buff`.
    Skb,
    /// `bpf_prog_test_run_xdp`: a packet, optionally an `xdp_md`.
    Xdp,
    /// `bpf_prog_test_run_flow_dissector`: a packet, optionally `bpf_flow_keys`.
    FlowDissector,
    /// `bpf_prog_test_run_nf`: a packet, optionally an `nf_hook_state`.
    Netfilter,
    /// `bpf_prog_test_run_sk_lookup`: a `bpf_sk_lookup`.
    SkLookup,
    /// `bpf_prog_test_run_raw_tp`: up to 12 arguments of 8 bytes, on a CPU of choice.
    RawTp,
    /// `bpf_prog_test_run_syscall`: any bytes, written back.
    Syscall,
    /// `bpf_prog_test_run_tracing`: calls `bpf_fentry_test*` that it must be attached to.
    Tracing,
    /// `bpf_struct_ops_test_run`: `bpf_dummy_ops` only.
    StructOps,
}

impl TestRun {
    /// Its shape for a program type.
    #[must_use]
    pub const fn of(prog_type: ProgType) -> Self {
        match prog_type {
            P::SocketFilter
            | P::SchedCls
            | P::SchedAct
            | P::CgroupSkb
            | P::LwtIn
            | P::LwtOut
            | P::LwtXmit => Self::Skb,
            P::Xdp => Self::Xdp,
            P::FlowDissector => Self::FlowDissector,
            P::Netfilter => Self::Netfilter,
            P::SkLookup => Self::SkLookup,
            P::RawTracepoint => Self::RawTp,
            P::Syscall => Self::Syscall,
            P::Tracing => Self::Tracing,
            P::StructOps => Self::StructOps,
            _ => Self::No,
        }
    }
}

/// What a program does with packets directly: `may_access_direct_pkt_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketAccess {
    /// Nothing.
    None,
    /// Reads.
    Read,
    /// Reads and writes.
    ReadWrite,
}

impl PacketAccess {
    /// That of a program type.
    #[must_use]
    pub const fn of(prog_type: ProgType) -> Self {
        match prog_type {
            P::LwtIn
            | P::LwtOut
            | P::LwtSeg6local
            | P::SkReuseport
            | P::FlowDissector
            | P::CgroupSkb => Self::Read,
            P::SchedCls
            | P::SchedAct
            | P::Xdp
            | P::LwtXmit
            | P::SkSkb
            | P::SkMsg
            | P::CgroupSockopt => Self::ReadWrite,
            _ => Self::None,
        }
    }
}

/// Whether a program may sleep: `can_be_sleepable`. Syscall programs must; of the kprobes only
/// uprobes can; an LSM hook must also be one of
/// [`SLEEPABLE_LSM_HOOKS`](super::SLEEPABLE_LSM_HOOKS).
#[must_use]
pub const fn can_be_sleepable(prog_type: ProgType, attach_type: AttachType) -> bool {
    match prog_type {
        P::Tracing => {
            matches!(
                attach_type,
                A::TraceFentry | A::TraceFexit | A::ModifyReturn | A::TraceIter
            )
        }
        P::Lsm => !matches!(attach_type, A::LsmCgroup),
        P::Kprobe | P::StructOps | P::Syscall => true,
        _ => false,
    }
}

/// The expected attach types that a program type loads with, where it does not take any:
/// `bpf_prog_load_check_attach`. Zero stands for none given.
pub static ATTACH_TYPES: &[(ProgType, &[AttachType])] = &[
    (P::CgroupSkb, &[A::CgroupInetIngress, A::CgroupInetEgress]),
    (
        P::CgroupSock,
        &[
            A::CgroupInetSockCreate,
            A::CgroupInet4PostBind,
            A::CgroupInet6PostBind,
            A::CgroupInetSockRelease,
        ],
    ),
    (
        P::CgroupSockAddr,
        &[
            A::CgroupInet4Bind,
            A::CgroupInet6Bind,
            A::CgroupInet4Connect,
            A::CgroupInet6Connect,
            A::CgroupUnixConnect,
            A::CgroupUdp4Sendmsg,
            A::CgroupUdp6Sendmsg,
            A::CgroupUnixSendmsg,
            A::CgroupUdp4Recvmsg,
            A::CgroupUdp6Recvmsg,
            A::CgroupUnixRecvmsg,
            A::CgroupInet4Getpeername,
            A::CgroupInet6Getpeername,
            A::CgroupUnixGetpeername,
            A::CgroupInet4Getsockname,
            A::CgroupInet6Getsockname,
            A::CgroupUnixGetsockname,
        ],
    ),
    (
        P::SkReuseport,
        &[A::SkReuseportSelect, A::SkReuseportSelectOrMigrate],
    ),
    (
        P::CgroupSockopt,
        &[A::CgroupGetsockopt, A::CgroupSetsockopt],
    ),
    (P::SkLookup, &[A::SkLookup]),
    (P::Netfilter, &[A::Netfilter]),
    // Zero: these two have no attach type.
    (P::Syscall, &[A::CgroupInetIngress]),
    (P::Ext, &[A::CgroupInetIngress]),
    (P::Lsm, &[A::LsmMac, A::LsmCgroup]),
    (
        P::Tracing,
        &[
            A::TraceRawTp,
            A::TraceFentry,
            A::TraceFexit,
            A::ModifyReturn,
            A::TraceIter,
        ],
    ),
];

/// Whether a program type loads with this expected attach type, after
/// [`fixup_attach_type`](super::fixup_attach_type).
#[must_use]
pub fn takes_attach_type(prog_type: ProgType, attach_type: AttachType) -> bool {
    ATTACH_TYPES
        .iter()
        .find(|(prog, _)| *prog == prog_type)
        .is_none_or(|(_, types)| types.contains(&attach_type))
}

/// A rule for R0 at a program's exit.
#[derive(Clone, Copy, Debug)]
pub struct ReturnRange {
    /// Whose.
    pub progs: ProgTypes,
    /// With which expected attach types; `None` is any.
    pub attach: Option<&'static [AttachType]>,
    /// The least and the greatest value, both permitted.
    pub range: (i64, i64),
}

/// `check_return_code`; the first that fits counts, and without one anything may be returned.
/// R0 is judged by its 64 bits, an LSM program's by its lower 32.
///
/// LSM and struct_ops programs go by their hook: see [`return_range`].
pub static RETURN_RANGES: &[ReturnRange] = &[
    ReturnRange {
        progs: ProgTypes::of(&[P::CgroupSockAddr]),
        attach: Some(&[
            A::CgroupUdp4Recvmsg,
            A::CgroupUdp6Recvmsg,
            A::CgroupUnixRecvmsg,
            A::CgroupInet4Getpeername,
            A::CgroupInet6Getpeername,
            A::CgroupUnixGetpeername,
            A::CgroupInet4Getsockname,
            A::CgroupInet6Getsockname,
            A::CgroupUnixGetsockname,
        ]),
        range: (1, 1),
    },
    ReturnRange {
        progs: ProgTypes::of(&[P::CgroupSockAddr]),
        attach: Some(&[A::CgroupInet4Bind, A::CgroupInet6Bind]),
        range: (0, 3),
    },
    ReturnRange {
        progs: ProgTypes::of(&[P::CgroupSkb]),
        attach: Some(&[A::CgroupInetEgress]),
        range: (0, 3),
    },
    ReturnRange {
        progs: ProgTypes::of(&[
            P::CgroupSkb,
            P::CgroupSock,
            P::CgroupSockAddr,
            P::SockOps,
            P::CgroupDevice,
            P::CgroupSysctl,
            P::CgroupSockopt,
            P::SkLookup,
            P::Netfilter,
        ]),
        attach: None,
        range: (0, 1),
    },
    ReturnRange {
        progs: ProgTypes::of(&[P::Tracing]),
        attach: Some(&[A::TraceFentry, A::TraceFexit]),
        range: (0, 0),
    },
    ReturnRange {
        progs: ProgTypes::of(&[P::Tracing]),
        attach: Some(&[A::TraceIter]),
        range: (0, 1),
    },
    ReturnRange {
        progs: ProgTypes::of(&[P::Kprobe]),
        attach: Some(&[A::TraceKprobeSession, A::TraceUprobeSession]),
        range: (0, 1),
    },
];

/// What R0 may be at the exit of a program; `None` is anything. `hook` is an LSM program's hook
/// and whether it returns nothing.
#[must_use]
pub fn return_range(
    prog_type: ProgType,
    attach_type: AttachType,
    hook: Option<(&str, bool)>,
) -> Option<(i64, i64)> {
    if prog_type == P::Lsm {
        let (name, void) = hook.unwrap_or_default();
        return match (attach_type, void) {
            (A::LsmCgroup, true) => Some((1, 1)),
            (A::LsmCgroup, false) => Some((0, 1)),
            (_, true) => None,
            (_, false) if super::lsm_hook_in(super::BOOL_LSM_HOOKS, name) => Some((0, 1)),
            (_, false) => Some((-4095, 0)),
        };
    }
    RETURN_RANGES
        .iter()
        .find(|r| r.progs.contains(prog_type) && r.attach.is_none_or(|t| t.contains(&attach_type)))
        .map(|r| r.range)
}
