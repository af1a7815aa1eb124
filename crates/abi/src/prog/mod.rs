//! Program and attach types, and what the kernel asks of programs of each.
mod lsm;
mod rules;
pub mod targets;

pub use lsm::{
    BOOL_LSM_HOOKS, DISABLED_LSM_HOOKS, SLEEPABLE_LSM_HOOKS, UNTRUSTED_LSM_HOOKS, lsm_hook_in,
};
pub use rules::{
    ATTACH_TYPES, PacketAccess, RETURN_RANGES, ReturnRange, TestRun, can_be_sleepable,
    return_range, takes_attach_type,
};

use crate::enums::kernel_enum;

kernel_enum! {
    /// Program types: `enum bpf_prog_type`. [`name`](ProgType::name) is libbpf's spelling.
    pub enum ProgType {
        Unspec = 0, "unspec", "BPF_PROG_TYPE_UNSPEC", V5_15;
        SocketFilter = 1, "socket_filter", "BPF_PROG_TYPE_SOCKET_FILTER", V5_15;
        Kprobe = 2, "kprobe", "BPF_PROG_TYPE_KPROBE", V5_15;
        SchedCls = 3, "sched_cls", "BPF_PROG_TYPE_SCHED_CLS", V5_15;
        SchedAct = 4, "sched_act", "BPF_PROG_TYPE_SCHED_ACT", V5_15;
        Tracepoint = 5, "tracepoint", "BPF_PROG_TYPE_TRACEPOINT", V5_15;
        Xdp = 6, "xdp", "BPF_PROG_TYPE_XDP", V5_15;
        PerfEvent = 7, "perf_event", "BPF_PROG_TYPE_PERF_EVENT", V5_15;
        CgroupSkb = 8, "cgroup_skb", "BPF_PROG_TYPE_CGROUP_SKB", V5_15;
        CgroupSock = 9, "cgroup_sock", "BPF_PROG_TYPE_CGROUP_SOCK", V5_15;
        LwtIn = 10, "lwt_in", "BPF_PROG_TYPE_LWT_IN", V5_15;
        LwtOut = 11, "lwt_out", "BPF_PROG_TYPE_LWT_OUT", V5_15;
        LwtXmit = 12, "lwt_xmit", "BPF_PROG_TYPE_LWT_XMIT", V5_15;
        SockOps = 13, "sock_ops", "BPF_PROG_TYPE_SOCK_OPS", V5_15;
        SkSkb = 14, "sk_skb", "BPF_PROG_TYPE_SK_SKB", V5_15;
        CgroupDevice = 15, "cgroup_device", "BPF_PROG_TYPE_CGROUP_DEVICE", V5_15;
        SkMsg = 16, "sk_msg", "BPF_PROG_TYPE_SK_MSG", V5_15;
        RawTracepoint = 17, "raw_tracepoint", "BPF_PROG_TYPE_RAW_TRACEPOINT", V5_15;
        CgroupSockAddr = 18, "cgroup_sock_addr", "BPF_PROG_TYPE_CGROUP_SOCK_ADDR", V5_15;
        LwtSeg6local = 19, "lwt_seg6local", "BPF_PROG_TYPE_LWT_SEG6LOCAL", V5_15;
        LircMode2 = 20, "lirc_mode2", "BPF_PROG_TYPE_LIRC_MODE2", V5_15;
        SkReuseport = 21, "sk_reuseport", "BPF_PROG_TYPE_SK_REUSEPORT", V5_15;
        FlowDissector = 22, "flow_dissector", "BPF_PROG_TYPE_FLOW_DISSECTOR", V5_15;
        CgroupSysctl = 23, "cgroup_sysctl", "BPF_PROG_TYPE_CGROUP_SYSCTL", V5_15;
        RawTracepointWritable = 24, "raw_tracepoint_writable", "BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE", V5_15;
        CgroupSockopt = 25, "cgroup_sockopt", "BPF_PROG_TYPE_CGROUP_SOCKOPT", V5_15;
        Tracing = 26, "tracing", "BPF_PROG_TYPE_TRACING", V5_15;
        StructOps = 27, "struct_ops", "BPF_PROG_TYPE_STRUCT_OPS", V5_15;
        Ext = 28, "ext", "BPF_PROG_TYPE_EXT", V5_15;
        Lsm = 29, "lsm", "BPF_PROG_TYPE_LSM", V5_15;
        SkLookup = 30, "sk_lookup", "BPF_PROG_TYPE_SK_LOOKUP", V5_15;
        Syscall = 31, "syscall", "BPF_PROG_TYPE_SYSCALL", V5_15;
        Netfilter = 32, "netfilter", "BPF_PROG_TYPE_NETFILTER", V6_4;
    }
}

kernel_enum! {
    /// Attach types: `enum bpf_attach_type`, given to the kernel as `expected_attach_type`.
    pub enum AttachType {
        CgroupInetIngress = 0, "cgroup_inet_ingress", "BPF_CGROUP_INET_INGRESS", V5_15;
        CgroupInetEgress = 1, "cgroup_inet_egress", "BPF_CGROUP_INET_EGRESS", V5_15;
        CgroupInetSockCreate = 2, "cgroup_inet_sock_create", "BPF_CGROUP_INET_SOCK_CREATE", V5_15;
        CgroupSockOps = 3, "cgroup_sock_ops", "BPF_CGROUP_SOCK_OPS", V5_15;
        SkSkbStreamParser = 4, "sk_skb_stream_parser", "BPF_SK_SKB_STREAM_PARSER", V5_15;
        SkSkbStreamVerdict = 5, "sk_skb_stream_verdict", "BPF_SK_SKB_STREAM_VERDICT", V5_15;
        CgroupDevice = 6, "cgroup_device", "BPF_CGROUP_DEVICE", V5_15;
        SkMsgVerdict = 7, "sk_msg_verdict", "BPF_SK_MSG_VERDICT", V5_15;
        CgroupInet4Bind = 8, "cgroup_inet4_bind", "BPF_CGROUP_INET4_BIND", V5_15;
        CgroupInet6Bind = 9, "cgroup_inet6_bind", "BPF_CGROUP_INET6_BIND", V5_15;
        CgroupInet4Connect = 10, "cgroup_inet4_connect", "BPF_CGROUP_INET4_CONNECT", V5_15;
        CgroupInet6Connect = 11, "cgroup_inet6_connect", "BPF_CGROUP_INET6_CONNECT", V5_15;
        CgroupInet4PostBind = 12, "cgroup_inet4_post_bind", "BPF_CGROUP_INET4_POST_BIND", V5_15;
        CgroupInet6PostBind = 13, "cgroup_inet6_post_bind", "BPF_CGROUP_INET6_POST_BIND", V5_15;
        CgroupUdp4Sendmsg = 14, "cgroup_udp4_sendmsg", "BPF_CGROUP_UDP4_SENDMSG", V5_15;
        CgroupUdp6Sendmsg = 15, "cgroup_udp6_sendmsg", "BPF_CGROUP_UDP6_SENDMSG", V5_15;
        LircMode2 = 16, "lirc_mode2", "BPF_LIRC_MODE2", V5_15;
        FlowDissector = 17, "flow_dissector", "BPF_FLOW_DISSECTOR", V5_15;
        CgroupSysctl = 18, "cgroup_sysctl", "BPF_CGROUP_SYSCTL", V5_15;
        CgroupUdp4Recvmsg = 19, "cgroup_udp4_recvmsg", "BPF_CGROUP_UDP4_RECVMSG", V5_15;
        CgroupUdp6Recvmsg = 20, "cgroup_udp6_recvmsg", "BPF_CGROUP_UDP6_RECVMSG", V5_15;
        CgroupGetsockopt = 21, "cgroup_getsockopt", "BPF_CGROUP_GETSOCKOPT", V5_15;
        CgroupSetsockopt = 22, "cgroup_setsockopt", "BPF_CGROUP_SETSOCKOPT", V5_15;
        TraceRawTp = 23, "trace_raw_tp", "BPF_TRACE_RAW_TP", V5_15;
        TraceFentry = 24, "trace_fentry", "BPF_TRACE_FENTRY", V5_15;
        TraceFexit = 25, "trace_fexit", "BPF_TRACE_FEXIT", V5_15;
        ModifyReturn = 26, "modify_return", "BPF_MODIFY_RETURN", V5_15;
        LsmMac = 27, "lsm_mac", "BPF_LSM_MAC", V5_15;
        TraceIter = 28, "trace_iter", "BPF_TRACE_ITER", V5_15;
        CgroupInet4Getpeername = 29, "cgroup_inet4_getpeername", "BPF_CGROUP_INET4_GETPEERNAME", V5_15;
        CgroupInet6Getpeername = 30, "cgroup_inet6_getpeername", "BPF_CGROUP_INET6_GETPEERNAME", V5_15;
        CgroupInet4Getsockname = 31, "cgroup_inet4_getsockname", "BPF_CGROUP_INET4_GETSOCKNAME", V5_15;
        CgroupInet6Getsockname = 32, "cgroup_inet6_getsockname", "BPF_CGROUP_INET6_GETSOCKNAME", V5_15;
        XdpDevmap = 33, "xdp_devmap", "BPF_XDP_DEVMAP", V5_15;
        CgroupInetSockRelease = 34, "cgroup_inet_sock_release", "BPF_CGROUP_INET_SOCK_RELEASE", V5_15;
        XdpCpumap = 35, "xdp_cpumap", "BPF_XDP_CPUMAP", V5_15;
        SkLookup = 36, "sk_lookup", "BPF_SK_LOOKUP", V5_15;
        Xdp = 37, "xdp", "BPF_XDP", V5_15;
        SkSkbVerdict = 38, "sk_skb_verdict", "BPF_SK_SKB_VERDICT", V5_15;
        SkReuseportSelect = 39, "sk_reuseport_select", "BPF_SK_REUSEPORT_SELECT", V5_15;
        SkReuseportSelectOrMigrate = 40, "sk_reuseport_select_or_migrate", "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE", V5_15;
        PerfEvent = 41, "perf_event", "BPF_PERF_EVENT", V5_15;
        TraceKprobeMulti = 42, "trace_kprobe_multi", "BPF_TRACE_KPROBE_MULTI", V5_18;
        LsmCgroup = 43, "lsm_cgroup", "BPF_LSM_CGROUP", V6_0;
        StructOps = 44, "struct_ops", "BPF_STRUCT_OPS", V6_4;
        Netfilter = 45, "netfilter", "BPF_NETFILTER", V6_4;
        TcxIngress = 46, "tcx_ingress", "BPF_TCX_INGRESS", V6_6;
        TcxEgress = 47, "tcx_egress", "BPF_TCX_EGRESS", V6_6;
        TraceUprobeMulti = 48, "trace_uprobe_multi", "BPF_TRACE_UPROBE_MULTI", V6_6;
        CgroupUnixConnect = 49, "cgroup_unix_connect", "BPF_CGROUP_UNIX_CONNECT", V6_7;
        CgroupUnixSendmsg = 50, "cgroup_unix_sendmsg", "BPF_CGROUP_UNIX_SENDMSG", V6_7;
        CgroupUnixRecvmsg = 51, "cgroup_unix_recvmsg", "BPF_CGROUP_UNIX_RECVMSG", V6_7;
        CgroupUnixGetpeername = 52, "cgroup_unix_getpeername", "BPF_CGROUP_UNIX_GETPEERNAME", V6_7;
        CgroupUnixGetsockname = 53, "cgroup_unix_getsockname", "BPF_CGROUP_UNIX_GETSOCKNAME", V6_7;
        NetkitPrimary = 54, "netkit_primary", "BPF_NETKIT_PRIMARY", V6_7;
        NetkitPeer = 55, "netkit_peer", "BPF_NETKIT_PEER", V6_7;
        TraceKprobeSession = 56, "trace_kprobe_session", "BPF_TRACE_KPROBE_SESSION", V6_10;
        TraceUprobeSession = 57, "trace_uprobe_session", "BPF_TRACE_UPROBE_SESSION", V6_13;
    }
}

/// A set of program types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ProgTypes(u64);

impl ProgTypes {
    /// No program type.
    pub const NONE: Self = Self(0);
    /// Every program type but `BPF_PROG_TYPE_UNSPEC`.
    pub const ALL: Self = Self((1 << ProgType::ALL.len()) - 2);

    /// The set of these.
    #[must_use]
    pub const fn of(types: &[ProgType]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < types.len() {
            bits |= 1 << types[i].number();
            i += 1;
        }
        Self(bits)
    }

    /// Both sets' members.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has this member.
    #[must_use]
    pub const fn contains(self, prog_type: ProgType) -> bool {
        self.0 & (1 << prog_type.number()) != 0
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = ProgType> {
        ProgType::ALL
            .iter()
            .copied()
            .filter(move |t| self.contains(*t))
    }
}

impl FromIterator<ProgType> for ProgTypes {
    fn from_iter<I: IntoIterator<Item = ProgType>>(types: I) -> Self {
        types
            .into_iter()
            .fold(Self::NONE, |set, t| Self(set.0 | 1 << t.number()))
    }
}

impl std::fmt::Debug for ProgTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The `expected_attach_type` that the kernel assumes where a program gives none:
/// `bpf_prog_load_fixup_attach_type`. Zero is `BPF_CGROUP_INET_INGRESS`.
#[must_use]
pub const fn fixup_attach_type(prog_type: ProgType, attach_type: AttachType) -> AttachType {
    match (prog_type, attach_type) {
        (ProgType::CgroupSock, AttachType::CgroupInetIngress) => AttachType::CgroupInetSockCreate,
        (ProgType::SkReuseport, AttachType::CgroupInetIngress) => AttachType::SkReuseportSelect,
        _ => attach_type,
    }
}
