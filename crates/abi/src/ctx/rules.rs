//! What each kind of program may do with its context's fields.
use super::CtxValue::*;
use super::Width::*;
use super::layouts::{self, CtxSlot};
use super::{CtxRule, FieldRule};
use crate::{AttachType, ProgType, ProgTypes};

/// `NAME = "kernel function", layout, [program types], attach types { Slot: read, write, value; .. }`
macro_rules! ctx_rules {
    ($($rule:ident = $symbol:literal, $layout:ident, [$($prog:ident),*], $attach:tt {
        $($slot:ident: $read:ident, $write:ident, $value:ident $(($of:literal))?;)*
    })*) => {
        $(#[doc = concat!("`", $symbol, "`")]
        pub static $rule: CtxRule = CtxRule {
            symbol: $symbol,
            layout: &layouts::$layout,
            progs: ProgTypes::of(&[$(ProgType::$prog),*]),
            attach: ctx_rules!(@attach $attach),
            fields: &[$(FieldRule {
                slot: CtxSlot::$slot, read: $read, write: $write, value: $value $(($of))?,
            }),*],
        };)*
        /// Every rule; for a program type the first whose attach types fit counts.
        pub static RULES: &[&CtxRule] = &[$(&$rule),*];
    };
    (@attach any) => { None };
    (@attach [$($attach:ident),*]) => { Some(&[$(AttachType::$attach),*]) };
}

ctx_rules! {
    SK_FILTER = "sk_filter_is_valid_access", SK_BUFF, [SocketFilter], any {
        SkbLen:                  Narrow,     No,        Scalar;
        SkbPktType:              Narrow,     No,        Scalar;
        SkbMark:                 Narrow,     No,        Scalar;
        SkbQueueMapping:         Narrow,     No,        Scalar;
        SkbProtocol:             Narrow,     No,        Scalar;
        SkbVlanPresent:          Narrow,     No,        Scalar;
        SkbVlanTci:              Narrow,     No,        Scalar;
        SkbVlanProto:            Narrow,     No,        Scalar;
        SkbPriority:             Narrow,     No,        Scalar;
        SkbIngressIfindex:       Narrow,     No,        Scalar;
        SkbIfindex:              Narrow,     No,        Scalar;
        SkbTcIndex:              Narrow,     No,        Scalar;
        SkbCb:                   NarrowWide, NarrowWide, Scalar;
        SkbHash:                 Narrow,     No,        Scalar;
        SkbNapiId:               Narrow,     No,        Scalar;
        SkbGsoSegs:              Narrow,     No,        Scalar;
        SkbSk:                   Whole,      No,        SockCommonOrNull;
        SkbGsoSize:              Narrow,     No,        Scalar;
    }
    TC_CLS_ACT = "tc_cls_act_is_valid_access", SK_BUFF, [SchedCls, SchedAct], any {
        SkbLen:                  Narrow,     No,        Scalar;
        SkbPktType:              Narrow,     No,        Scalar;
        SkbMark:                 Narrow,     Whole,     Scalar;
        SkbQueueMapping:         Narrow,     Whole,     Scalar;
        SkbProtocol:             Narrow,     No,        Scalar;
        SkbVlanPresent:          Narrow,     No,        Scalar;
        SkbVlanTci:              Narrow,     No,        Scalar;
        SkbVlanProto:            Narrow,     No,        Scalar;
        SkbPriority:             Narrow,     Whole,     Scalar;
        SkbIngressIfindex:       Narrow,     No,        Scalar;
        SkbIfindex:              Narrow,     No,        Scalar;
        SkbTcIndex:              Narrow,     Whole,     Scalar;
        SkbCb:                   NarrowWide, NarrowWide, Scalar;
        SkbHash:                 Narrow,     No,        Scalar;
        SkbTcClassid:            Narrow,     Whole,     Scalar;
        SkbData:                 Whole,      No,        Packet;
        SkbDataEnd:              Whole,      No,        PacketEnd;
        SkbNapiId:               Narrow,     No,        Scalar;
        SkbDataMeta:             Whole,      No,        PacketMeta;
        SkbTstamp:               Whole,      Whole,     Scalar;
        SkbWireLen:              Narrow,     No,        Scalar;
        SkbGsoSegs:              Narrow,     No,        Scalar;
        SkbSk:                   Whole,      No,        SockCommonOrNull;
        SkbGsoSize:              Narrow,     No,        Scalar;
        SkbTstampType:           Whole,      No,        Scalar;
        SkbHwtstamp:             Whole,      No,        Scalar;
    }
    XDP_DEVMAP = "xdp_is_valid_access", XDP_MD, [Xdp], [XdpDevmap] {
        XdpData:                 Whole,      No,        Packet;
        XdpDataEnd:              Whole,      No,        PacketEnd;
        XdpDataMeta:             Whole,      No,        PacketMeta;
        XdpIngressIfindex:       Whole,      No,        Scalar;
        XdpRxQueueIndex:         Whole,      No,        Scalar;
        XdpEgressIfindex:        Whole,      No,        Scalar;
    }
    XDP = "xdp_is_valid_access", XDP_MD, [Xdp], any {
        XdpData:                 Whole,      No,        Packet;
        XdpDataEnd:              Whole,      No,        PacketEnd;
        XdpDataMeta:             Whole,      No,        PacketMeta;
        XdpIngressIfindex:       Whole,      No,        Scalar;
        XdpRxQueueIndex:         Whole,      No,        Scalar;
    }
    PE_PROG = "pe_prog_is_valid_access", PERF_EVENT_DATA, [PerfEvent], any {
        PerfEventRegs:           Whole,      No,        Scalar;
        PerfEventSamplePeriod:   Narrow,     No,        Scalar;
        PerfEventAddr:           Narrow,     No,        Scalar;
    }
    CG_SKB = "cg_skb_is_valid_access", SK_BUFF, [CgroupSkb], any {
        SkbLen:                  Narrow,     No,        Scalar;
        SkbPktType:              Narrow,     No,        Scalar;
        SkbMark:                 Narrow,     Whole,     Scalar;
        SkbQueueMapping:         Narrow,     No,        Scalar;
        SkbProtocol:             Narrow,     No,        Scalar;
        SkbVlanPresent:          Narrow,     No,        Scalar;
        SkbVlanTci:              Narrow,     No,        Scalar;
        SkbVlanProto:            Narrow,     No,        Scalar;
        SkbPriority:             Narrow,     Whole,     Scalar;
        SkbIngressIfindex:       Narrow,     No,        Scalar;
        SkbIfindex:              Narrow,     No,        Scalar;
        SkbTcIndex:              Narrow,     No,        Scalar;
        SkbCb:                   NarrowWide, NarrowWide, Scalar;
        SkbHash:                 Narrow,     No,        Scalar;
        SkbData:                 Whole,      No,        Packet;
        SkbDataEnd:              Whole,      No,        PacketEnd;
        SkbNapiId:               Narrow,     No,        Scalar;
        SkbFamily:               Narrow,     No,        Scalar;
        SkbRemoteIp4:            Whole,      No,        Scalar;
        SkbLocalIp4:             Whole,      No,        Scalar;
        SkbRemoteIp6:            Whole,      No,        Scalar;
        SkbLocalIp6:             Whole,      No,        Scalar;
        SkbRemotePort:           Narrow,     No,        Scalar;
        SkbLocalPort:            Narrow,     No,        Scalar;
        SkbTstamp:               Whole,      Whole,     Scalar;
        SkbGsoSegs:              Narrow,     No,        Scalar;
        SkbSk:                   Whole,      No,        SockCommonOrNull;
        SkbGsoSize:              Narrow,     No,        Scalar;
        SkbHwtstamp:             Whole,      No,        Scalar;
    }
    SOCK_CREATE = "sock_filter_is_valid_access", SOCK, [CgroupSock], [CgroupInetSockCreate, CgroupInetSockRelease] {
        SockBoundDevIf:          Whole,      Whole,     Scalar;
        SockFamily:              Prefix,     No,        Scalar;
        SockType:                Prefix,     No,        Scalar;
        SockProtocol:            Prefix,     No,        Scalar;
        SockMark:                Whole,      Whole,     Scalar;
        SockPriority:            Whole,      Whole,     Scalar;
        SockDstPort:             Port,       No,        Scalar;
        SockDstIp4:              Narrow,     No,        Scalar;
        SockDstIp6:              Narrow,     No,        Scalar;
        SockState:               Prefix,     No,        Scalar;
        SockRxQueueMapping:      Prefix,     No,        Scalar;
    }
    SOCK_POST_BIND4 = "sock_filter_is_valid_access", SOCK, [CgroupSock], [CgroupInet4PostBind] {
        SockFamily:              Prefix,     No,        Scalar;
        SockType:                Prefix,     No,        Scalar;
        SockProtocol:            Prefix,     No,        Scalar;
        SockSrcIp4:              Narrow,     No,        Scalar;
        SockSrcPort:             Prefix,     No,        Scalar;
        SockDstPort:             Port,       No,        Scalar;
        SockDstIp4:              Narrow,     No,        Scalar;
        SockDstIp6:              Narrow,     No,        Scalar;
        SockState:               Prefix,     No,        Scalar;
        SockRxQueueMapping:      Prefix,     No,        Scalar;
    }
    SOCK_POST_BIND6 = "sock_filter_is_valid_access", SOCK, [CgroupSock], [CgroupInet6PostBind] {
        SockFamily:              Prefix,     No,        Scalar;
        SockType:                Prefix,     No,        Scalar;
        SockProtocol:            Prefix,     No,        Scalar;
        SockSrcIp6:              Narrow,     No,        Scalar;
        SockSrcPort:             Prefix,     No,        Scalar;
        SockDstPort:             Port,       No,        Scalar;
        SockDstIp4:              Narrow,     No,        Scalar;
        SockDstIp6:              Narrow,     No,        Scalar;
        SockState:               Prefix,     No,        Scalar;
        SockRxQueueMapping:      Prefix,     No,        Scalar;
    }
    LWT = "lwt_is_valid_access", SK_BUFF, [LwtIn, LwtOut, LwtXmit, LwtSeg6local], any {
        SkbLen:                  Narrow,     No,        Scalar;
        SkbPktType:              Narrow,     No,        Scalar;
        SkbMark:                 Narrow,     Whole,     Scalar;
        SkbQueueMapping:         Narrow,     No,        Scalar;
        SkbProtocol:             Narrow,     No,        Scalar;
        SkbVlanPresent:          Narrow,     No,        Scalar;
        SkbVlanTci:              Narrow,     No,        Scalar;
        SkbVlanProto:            Narrow,     No,        Scalar;
        SkbPriority:             Narrow,     Whole,     Scalar;
        SkbIngressIfindex:       Narrow,     No,        Scalar;
        SkbIfindex:              Narrow,     No,        Scalar;
        SkbTcIndex:              Narrow,     No,        Scalar;
        SkbCb:                   NarrowWide, NarrowWide, Scalar;
        SkbHash:                 Narrow,     No,        Scalar;
        SkbData:                 Whole,      No,        Packet;
        SkbDataEnd:              Whole,      No,        PacketEnd;
        SkbNapiId:               Narrow,     No,        Scalar;
        SkbGsoSegs:              Narrow,     No,        Scalar;
        SkbSk:                   Whole,      No,        SockCommonOrNull;
        SkbGsoSize:              Narrow,     No,        Scalar;
    }
    SOCK_OPS = "sock_ops_is_valid_access", SOCK_OPS, [SockOps], any {
        SockOpsOp:               Whole,      No,        Scalar;
        SockOpsReply:            Whole,      Whole,     Scalar;
        SockOpsArgsRest:         Whole,      No,        Scalar;
        SockOpsFamily:           Whole,      No,        Scalar;
        SockOpsRemoteIp4:        Whole,      No,        Scalar;
        SockOpsLocalIp4:         Whole,      No,        Scalar;
        SockOpsRemoteIp6:        Whole,      No,        Scalar;
        SockOpsLocalIp6:         Whole,      No,        Scalar;
        SockOpsRemotePort:       Whole,      No,        Scalar;
        SockOpsLocalPort:        Whole,      No,        Scalar;
        SockOpsIsFullsock:       Whole,      No,        Scalar;
        SockOpsSndCwnd:          Whole,      No,        Scalar;
        SockOpsSrttUs:           Whole,      No,        Scalar;
        SockOpsBpfSockOpsCbFlags: Whole,      No,        Scalar;
        SockOpsState:            Whole,      No,        Scalar;
        SockOpsRttMin:           Whole,      No,        Scalar;
        SockOpsSndSsthresh:      Whole,      No,        Scalar;
        SockOpsRcvNxt:           Whole,      No,        Scalar;
        SockOpsSndNxt:           Whole,      No,        Scalar;
        SockOpsSndUna:           Whole,      No,        Scalar;
        SockOpsMssCache:         Whole,      No,        Scalar;
        SockOpsEcnFlags:         Whole,      No,        Scalar;
        SockOpsRateDelivered:    Whole,      No,        Scalar;
        SockOpsRateIntervalUs:   Whole,      No,        Scalar;
        SockOpsPacketsOut:       Whole,      No,        Scalar;
        SockOpsRetransOut:       Whole,      No,        Scalar;
        SockOpsTotalRetrans:     Whole,      No,        Scalar;
        SockOpsSegsIn:           Whole,      No,        Scalar;
        SockOpsDataSegsIn:       Whole,      No,        Scalar;
        SockOpsSegsOut:          Whole,      No,        Scalar;
        SockOpsDataSegsOut:      Whole,      No,        Scalar;
        SockOpsLostOut:          Whole,      No,        Scalar;
        SockOpsSackedOut:        Whole,      No,        Scalar;
        SockOpsSkTxhash:         Whole,      Whole,     Scalar;
        SockOpsBytesReceived:    Whole,      No,        Scalar;
        SockOpsBytesAcked:       Whole,      No,        Scalar;
        SockOpsSk:               Whole,      No,        SocketOrNull;
        SockOpsSkbData:          Whole,      No,        Packet;
        SockOpsSkbDataEnd:       Whole,      No,        PacketEnd;
        SockOpsSkbLen:           Whole,      No,        Scalar;
        SockOpsSkbTcpFlags:      Prefix,     No,        Scalar;
        SockOpsSkbHwtstamp:      Whole,      No,        Scalar;
    }
    SK_SKB = "sk_skb_is_valid_access", SK_BUFF, [SkSkb], any {
        SkbLen:                  Narrow,     No,        Scalar;
        SkbPktType:              Narrow,     No,        Scalar;
        SkbQueueMapping:         Narrow,     No,        Scalar;
        SkbProtocol:             Narrow,     No,        Scalar;
        SkbVlanPresent:          Narrow,     No,        Scalar;
        SkbVlanTci:              Narrow,     No,        Scalar;
        SkbVlanProto:            Narrow,     No,        Scalar;
        SkbPriority:             Narrow,     Whole,     Scalar;
        SkbIngressIfindex:       Narrow,     No,        Scalar;
        SkbIfindex:              Narrow,     No,        Scalar;
        SkbTcIndex:              Narrow,     Whole,     Scalar;
        SkbCb:                   NarrowWide, No,        Scalar;
        SkbHash:                 Narrow,     No,        Scalar;
        SkbData:                 Whole,      No,        Packet;
        SkbDataEnd:              Whole,      No,        PacketEnd;
        SkbNapiId:               Narrow,     No,        Scalar;
        SkbFamily:               Narrow,     No,        Scalar;
        SkbRemoteIp4:            Whole,      No,        Scalar;
        SkbLocalIp4:             Whole,      No,        Scalar;
        SkbRemoteIp6:            Whole,      No,        Scalar;
        SkbLocalIp6:             Whole,      No,        Scalar;
        SkbRemotePort:           Narrow,     No,        Scalar;
        SkbLocalPort:            Narrow,     No,        Scalar;
        SkbGsoSegs:              Narrow,     No,        Scalar;
        SkbSk:                   Whole,      No,        SockCommonOrNull;
        SkbGsoSize:              Narrow,     No,        Scalar;
    }
    CGROUP_DEV = "cgroup_dev_is_valid_access", CGROUP_DEV_CTX, [CgroupDevice], any {
        CgroupDevAccessType:     Narrow,     No,        Scalar;
        CgroupDevMajor:          Whole,      No,        Scalar;
        CgroupDevMinor:          Whole,      No,        Scalar;
    }
    SK_MSG = "sk_msg_is_valid_access", SK_MSG_MD, [SkMsg], any {
        SkMsgData:               Whole,      No,        Packet;
        SkMsgDataEnd:            Whole,      No,        PacketEnd;
        SkMsgFamily:             Whole,      No,        Scalar;
        SkMsgRemoteIp4:          Whole,      No,        Scalar;
        SkMsgLocalIp4:           Whole,      No,        Scalar;
        SkMsgRemoteIp6:          Whole,      No,        Scalar;
        SkMsgLocalIp6:           Whole,      No,        Scalar;
        SkMsgRemotePort:         Whole,      No,        Scalar;
        SkMsgLocalPort:          Whole,      No,        Scalar;
        SkMsgSize:               Whole,      No,        Scalar;
        SkMsgSk:                 Whole,      No,        Socket;
    }
    SOCK_ADDR_INET4 = "sock_addr_is_valid_access", SOCK_ADDR, [CgroupSockAddr], [CgroupInet4Bind, CgroupInet4Connect, CgroupUdp4Recvmsg, CgroupInet4Getpeername, CgroupInet4Getsockname] {
        SockAddrUserFamily:      Whole,      No,        Scalar;
        SockAddrUserIp4:         Narrow,     Whole,     Scalar;
        SockAddrUserPort:        Narrow,     Whole,     Scalar;
        SockAddrFamily:          Whole,      No,        Scalar;
        SockAddrType:            Whole,      No,        Scalar;
        SockAddrProtocol:        Whole,      No,        Scalar;
        SockAddrSk:              Whole,      No,        Socket;
    }
    SOCK_ADDR_INET6 = "sock_addr_is_valid_access", SOCK_ADDR, [CgroupSockAddr], [CgroupInet6Bind, CgroupInet6Connect, CgroupUdp6Recvmsg, CgroupInet6Getpeername, CgroupInet6Getsockname] {
        SockAddrUserFamily:      Whole,      No,        Scalar;
        SockAddrUserIp6:         NarrowWide, WholeWide, Scalar;
        SockAddrUserPort:        Narrow,     Whole,     Scalar;
        SockAddrFamily:          Whole,      No,        Scalar;
        SockAddrType:            Whole,      No,        Scalar;
        SockAddrProtocol:        Whole,      No,        Scalar;
        SockAddrSk:              Whole,      No,        Socket;
    }
    SOCK_ADDR_SENDMSG4 = "sock_addr_is_valid_access", SOCK_ADDR, [CgroupSockAddr], [CgroupUdp4Sendmsg] {
        SockAddrUserFamily:      Whole,      No,        Scalar;
        SockAddrUserIp4:         Narrow,     Whole,     Scalar;
        SockAddrUserPort:        Narrow,     Whole,     Scalar;
        SockAddrFamily:          Whole,      No,        Scalar;
        SockAddrType:            Whole,      No,        Scalar;
        SockAddrProtocol:        Whole,      No,        Scalar;
        SockAddrMsgSrcIp4:       Narrow,     Whole,     Scalar;
        SockAddrSk:              Whole,      No,        Socket;
    }
    SOCK_ADDR_SENDMSG6 = "sock_addr_is_valid_access", SOCK_ADDR, [CgroupSockAddr], [CgroupUdp6Sendmsg] {
        SockAddrUserFamily:      Whole,      No,        Scalar;
        SockAddrUserIp6:         NarrowWide, WholeWide, Scalar;
        SockAddrUserPort:        Narrow,     Whole,     Scalar;
        SockAddrFamily:          Whole,      No,        Scalar;
        SockAddrType:            Whole,      No,        Scalar;
        SockAddrProtocol:        Whole,      No,        Scalar;
        SockAddrMsgSrcIp6:       NarrowWide, WholeWide, Scalar;
        SockAddrSk:              Whole,      No,        Socket;
    }
    SOCK_ADDR_UNIX = "sock_addr_is_valid_access", SOCK_ADDR, [CgroupSockAddr], [CgroupUnixConnect, CgroupUnixSendmsg, CgroupUnixRecvmsg, CgroupUnixGetpeername, CgroupUnixGetsockname] {
        SockAddrUserFamily:      Whole,      No,        Scalar;
        SockAddrUserPort:        Narrow,     Whole,     Scalar;
        SockAddrFamily:          Whole,      No,        Scalar;
        SockAddrType:            Whole,      No,        Scalar;
        SockAddrProtocol:        Whole,      No,        Scalar;
        SockAddrSk:              Whole,      No,        Socket;
    }
    SK_REUSEPORT = "sk_reuseport_is_valid_access", SK_REUSEPORT_MD, [SkReuseport], any {
        SkReuseportData:         Whole,      No,        Packet;
        SkReuseportDataEnd:      Whole,      No,        PacketEnd;
        SkReuseportLen:          Narrow,     No,        Scalar;
        SkReuseportEthProtocol:  Halves,     No,        Scalar;
        SkReuseportIpProtocol:   Narrow,     No,        Scalar;
        SkReuseportBindInany:    Narrow,     No,        Scalar;
        SkReuseportHash:         Whole,      No,        Scalar;
        SkReuseportSk:           Whole,      No,        Socket;
        SkReuseportMigratingSk:  Whole,      No,        SockCommonOrNull;
    }
    FLOW_DISSECTOR = "flow_dissector_is_valid_access", SK_BUFF, [FlowDissector], any {
        SkbData:                 Whole,      No,        Packet;
        SkbDataEnd:              Whole,      No,        PacketEnd;
        SkbFlowKeys:             Whole,      No,        FlowKeys;
    }
    SYSCTL = "sysctl_is_valid_access", SYSCTL, [CgroupSysctl], any {
        SysctlWrite:             Narrow,     No,        Scalar;
        SysctlFilePos:           Narrow,     Whole,     Scalar;
    }
    GETSOCKOPT = "cg_sockopt_is_valid_access", SOCKOPT, [CgroupSockopt], [CgroupGetsockopt] {
        SockoptSk:               Whole,      No,        Socket;
        SockoptOptval:           Whole,      No,        Packet;
        SockoptOptvalEnd:        Whole,      No,        PacketEnd;
        SockoptLevel:            Whole,      No,        Scalar;
        SockoptOptname:          Whole,      No,        Scalar;
        SockoptOptlen:           Whole,      Whole,     Scalar;
        SockoptRetval:           Whole,      Whole,     Scalar;
    }
    SETSOCKOPT = "cg_sockopt_is_valid_access", SOCKOPT, [CgroupSockopt], [CgroupSetsockopt] {
        SockoptSk:               Whole,      No,        Socket;
        SockoptOptval:           Whole,      No,        Packet;
        SockoptOptvalEnd:        Whole,      No,        PacketEnd;
        SockoptLevel:            Whole,      Whole,     Scalar;
        SockoptOptname:          Whole,      Whole,     Scalar;
        SockoptOptlen:           Whole,      Whole,     Scalar;
    }
    SK_LOOKUP = "sk_lookup_is_valid_access", SK_LOOKUP, [SkLookup], any {
        SkLookupSk:              Whole,      No,        SocketOrNull;
        SkLookupFamily:          Narrow,     No,        Scalar;
        SkLookupProtocol:        Narrow,     No,        Scalar;
        SkLookupRemoteIp4:       Narrow,     No,        Scalar;
        SkLookupRemoteIp6:       Narrow,     No,        Scalar;
        SkLookupRemotePort:      Narrow,     No,        Scalar;
        SkLookupLocalIp4:        Narrow,     No,        Scalar;
        SkLookupLocalIp6:        Narrow,     No,        Scalar;
        SkLookupLocalPort:       Narrow,     No,        Scalar;
        SkLookupIngressIfindex:  Narrow,     No,        Scalar;
    }
    NF = "nf_is_valid_access", NF_CTX, [Netfilter], any {
        NfState:                 Whole,      No,        Trusted("nf_hook_state");
        NfSkb:                   Whole,      No,        Trusted("sk_buff");
    }
    PTR_TO_SOCKET = "bpf_sock_is_valid_access", SOCK, [], any {
        SockBoundDevIf:          Whole,      No,        Scalar;
        SockFamily:              Prefix,     No,        Scalar;
        SockType:                Prefix,     No,        Scalar;
        SockProtocol:            Prefix,     No,        Scalar;
        SockMark:                Whole,      No,        Scalar;
        SockPriority:            Whole,      No,        Scalar;
        SockSrcIp4:              Narrow,     No,        Scalar;
        SockSrcIp6:              Narrow,     No,        Scalar;
        SockSrcPort:             Prefix,     No,        Scalar;
        SockDstPort:             Port,       No,        Scalar;
        SockDstIp4:              Narrow,     No,        Scalar;
        SockDstIp6:              Narrow,     No,        Scalar;
        SockState:               Prefix,     No,        Scalar;
        SockRxQueueMapping:      Prefix,     No,        Scalar;
    }
    PTR_TO_SOCK_COMMON = "bpf_sock_common_is_valid_access", SOCK, [], any {
        SockBoundDevIf:          Whole,      No,        Scalar;
        SockFamily:              Prefix,     No,        Scalar;
        SockSrcIp4:              Narrow,     No,        Scalar;
        SockSrcIp6:              Narrow,     No,        Scalar;
        SockSrcPort:             Prefix,     No,        Scalar;
        SockDstPort:             Port,       No,        Scalar;
        SockDstIp4:              Narrow,     No,        Scalar;
        SockDstIp6:              Narrow,     No,        Scalar;
        SockState:               Prefix,     No,        Scalar;
        SockRxQueueMapping:      Prefix,     No,        Scalar;
    }
    PTR_TO_TCP_SOCK = "bpf_tcp_sock_is_valid_access", TCP_SOCK, [], any {
        TcpSockSndCwnd:          Whole,      No,        Scalar;
        TcpSockSrttUs:           Whole,      No,        Scalar;
        TcpSockRttMin:           Whole,      No,        Scalar;
        TcpSockSndSsthresh:      Whole,      No,        Scalar;
        TcpSockRcvNxt:           Whole,      No,        Scalar;
        TcpSockSndNxt:           Whole,      No,        Scalar;
        TcpSockSndUna:           Whole,      No,        Scalar;
        TcpSockMssCache:         Whole,      No,        Scalar;
        TcpSockEcnFlags:         Whole,      No,        Scalar;
        TcpSockRateDelivered:    Whole,      No,        Scalar;
        TcpSockRateIntervalUs:   Whole,      No,        Scalar;
        TcpSockPacketsOut:       Whole,      No,        Scalar;
        TcpSockRetransOut:       Whole,      No,        Scalar;
        TcpSockTotalRetrans:     Whole,      No,        Scalar;
        TcpSockSegsIn:           Whole,      No,        Scalar;
        TcpSockDataSegsIn:       Whole,      No,        Scalar;
        TcpSockSegsOut:          Whole,      No,        Scalar;
        TcpSockDataSegsOut:      Whole,      No,        Scalar;
        TcpSockLostOut:          Whole,      No,        Scalar;
        TcpSockSackedOut:        Whole,      No,        Scalar;
        TcpSockBytesReceived:    Whole,      No,        Scalar;
        TcpSockBytesAcked:       Whole,      No,        Scalar;
        TcpSockDsackDups:        Whole,      No,        Scalar;
        TcpSockDelivered:        Whole,      No,        Scalar;
        TcpSockDeliveredCe:      Whole,      No,        Scalar;
        TcpSockIcskRetransmits:  Whole,      No,        Scalar;
    }
    PTR_TO_XDP_SOCK = "bpf_xdp_sock_is_valid_access", XDP_SOCK, [], any {
        XdpSockQueueId:          Whole,      No,        Scalar;
    }
}
