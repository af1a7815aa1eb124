//! The structures that programs see: `uapi/linux/bpf.h`, with x86-64 offsets.
use super::{CtxField, CtxLayout};

/// `NAME = "struct", size { Slot: "field", offset, element width, elements; .. }`
macro_rules! ctx_layouts {
    ($($layout:ident = $text:literal, $size:literal {
        $($slot:ident: $name:literal, $offset:literal, $width:literal, $count:literal;)*
    })*) => {
        /// A value that a context or socket field stands for; who emulates the kernel gives it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CtxSlot {
            $($(#[doc = concat!("`", $text, "::", $name, "`")] $slot,)*)*
        }
        $(#[doc = concat!("`struct ", $text, "`")]
        pub static $layout: CtxLayout = CtxLayout {
            name: $text,
            size: $size,
            fields: &[$(CtxField {
                slot: CtxSlot::$slot, name: $name, offset: $offset, width: $width, count: $count,
            }),*],
        };)*
        /// Every structure.
        pub static LAYOUTS: &[&CtxLayout] = &[$(&$layout),*];
    };
}

ctx_layouts! {
    SK_BUFF = "__sk_buff", 192 {
        SkbLen:                  "len",                      0, 4, 1;
        SkbPktType:              "pkt_type",                 4, 4, 1;
        SkbMark:                 "mark",                     8, 4, 1;
        SkbQueueMapping:         "queue_mapping",           12, 4, 1;
        SkbProtocol:             "protocol",                16, 4, 1;
        SkbVlanPresent:          "vlan_present",            20, 4, 1;
        SkbVlanTci:              "vlan_tci",                24, 4, 1;
        SkbVlanProto:            "vlan_proto",              28, 4, 1;
        SkbPriority:             "priority",                32, 4, 1;
        SkbIngressIfindex:       "ingress_ifindex",         36, 4, 1;
        SkbIfindex:              "ifindex",                 40, 4, 1;
        SkbTcIndex:              "tc_index",                44, 4, 1;
        SkbCb:                   "cb",                      48, 4, 5;
        SkbHash:                 "hash",                    68, 4, 1;
        SkbTcClassid:            "tc_classid",              72, 4, 1;
        SkbData:                 "data",                    76, 4, 1;
        SkbDataEnd:              "data_end",                80, 4, 1;
        SkbNapiId:               "napi_id",                 84, 4, 1;
        SkbFamily:               "family",                  88, 4, 1;
        SkbRemoteIp4:            "remote_ip4",              92, 4, 1;
        SkbLocalIp4:             "local_ip4",               96, 4, 1;
        SkbRemoteIp6:            "remote_ip6",             100, 4, 4;
        SkbLocalIp6:             "local_ip6",              116, 4, 4;
        SkbRemotePort:           "remote_port",            132, 4, 1;
        SkbLocalPort:            "local_port",             136, 4, 1;
        SkbDataMeta:             "data_meta",              140, 4, 1;
        SkbFlowKeys:             "flow_keys",              144, 8, 1;
        SkbTstamp:               "tstamp",                 152, 8, 1;
        SkbWireLen:              "wire_len",               160, 4, 1;
        SkbGsoSegs:              "gso_segs",               164, 4, 1;
        SkbSk:                   "sk",                     168, 8, 1;
        SkbGsoSize:              "gso_size",               176, 4, 1;
        SkbTstampType:           "tstamp_type",            180, 1, 1;
        SkbHwtstamp:             "hwtstamp",               184, 8, 1;
    }
    XDP_MD = "xdp_md", 24 {
        XdpData:                 "data",                     0, 4, 1;
        XdpDataEnd:              "data_end",                 4, 4, 1;
        XdpDataMeta:             "data_meta",                8, 4, 1;
        XdpIngressIfindex:       "ingress_ifindex",         12, 4, 1;
        XdpRxQueueIndex:         "rx_queue_index",          16, 4, 1;
        XdpEgressIfindex:        "egress_ifindex",          20, 4, 1;
    }
    SOCK_ADDR = "bpf_sock_addr", 72 {
        SockAddrUserFamily:      "user_family",              0, 4, 1;
        SockAddrUserIp4:         "user_ip4",                 4, 4, 1;
        SockAddrUserIp6:         "user_ip6",                 8, 4, 4;
        SockAddrUserPort:        "user_port",               24, 4, 1;
        SockAddrFamily:          "family",                  28, 4, 1;
        SockAddrType:            "type",                    32, 4, 1;
        SockAddrProtocol:        "protocol",                36, 4, 1;
        SockAddrMsgSrcIp4:       "msg_src_ip4",             40, 4, 1;
        SockAddrMsgSrcIp6:       "msg_src_ip6",             44, 4, 4;
        SockAddrSk:              "sk",                      64, 8, 1;
    }
    SOCK_OPS = "bpf_sock_ops", 224 {
        SockOpsOp:               "op",                       0, 4, 1;
        SockOpsReply:            "reply",                    4, 4, 1;
        SockOpsArgsRest:         "args_rest",                8, 4, 3;
        SockOpsFamily:           "family",                  20, 4, 1;
        SockOpsRemoteIp4:        "remote_ip4",              24, 4, 1;
        SockOpsLocalIp4:         "local_ip4",               28, 4, 1;
        SockOpsRemoteIp6:        "remote_ip6",              32, 4, 4;
        SockOpsLocalIp6:         "local_ip6",               48, 4, 4;
        SockOpsRemotePort:       "remote_port",             64, 4, 1;
        SockOpsLocalPort:        "local_port",              68, 4, 1;
        SockOpsIsFullsock:       "is_fullsock",             72, 4, 1;
        SockOpsSndCwnd:          "snd_cwnd",                76, 4, 1;
        SockOpsSrttUs:           "srtt_us",                 80, 4, 1;
        SockOpsBpfSockOpsCbFlags: "bpf_sock_ops_cb_flags",   84, 4, 1;
        SockOpsState:            "state",                   88, 4, 1;
        SockOpsRttMin:           "rtt_min",                 92, 4, 1;
        SockOpsSndSsthresh:      "snd_ssthresh",            96, 4, 1;
        SockOpsRcvNxt:           "rcv_nxt",                100, 4, 1;
        SockOpsSndNxt:           "snd_nxt",                104, 4, 1;
        SockOpsSndUna:           "snd_una",                108, 4, 1;
        SockOpsMssCache:         "mss_cache",              112, 4, 1;
        SockOpsEcnFlags:         "ecn_flags",              116, 4, 1;
        SockOpsRateDelivered:    "rate_delivered",         120, 4, 1;
        SockOpsRateIntervalUs:   "rate_interval_us",       124, 4, 1;
        SockOpsPacketsOut:       "packets_out",            128, 4, 1;
        SockOpsRetransOut:       "retrans_out",            132, 4, 1;
        SockOpsTotalRetrans:     "total_retrans",          136, 4, 1;
        SockOpsSegsIn:           "segs_in",                140, 4, 1;
        SockOpsDataSegsIn:       "data_segs_in",           144, 4, 1;
        SockOpsSegsOut:          "segs_out",               148, 4, 1;
        SockOpsDataSegsOut:      "data_segs_out",          152, 4, 1;
        SockOpsLostOut:          "lost_out",               156, 4, 1;
        SockOpsSackedOut:        "sacked_out",             160, 4, 1;
        SockOpsSkTxhash:         "sk_txhash",              164, 4, 1;
        SockOpsBytesReceived:    "bytes_received",         168, 8, 1;
        SockOpsBytesAcked:       "bytes_acked",            176, 8, 1;
        SockOpsSk:               "sk",                     184, 8, 1;
        SockOpsSkbData:          "skb_data",               192, 8, 1;
        SockOpsSkbDataEnd:       "skb_data_end",           200, 8, 1;
        SockOpsSkbLen:           "skb_len",                208, 4, 1;
        SockOpsSkbTcpFlags:      "skb_tcp_flags",          212, 4, 1;
        SockOpsSkbHwtstamp:      "skb_hwtstamp",           216, 8, 1;
    }
    SK_MSG_MD = "sk_msg_md", 80 {
        SkMsgData:               "data",                     0, 8, 1;
        SkMsgDataEnd:            "data_end",                 8, 8, 1;
        SkMsgFamily:             "family",                  16, 4, 1;
        SkMsgRemoteIp4:          "remote_ip4",              20, 4, 1;
        SkMsgLocalIp4:           "local_ip4",               24, 4, 1;
        SkMsgRemoteIp6:          "remote_ip6",              28, 4, 4;
        SkMsgLocalIp6:           "local_ip6",               44, 4, 4;
        SkMsgRemotePort:         "remote_port",             60, 4, 1;
        SkMsgLocalPort:          "local_port",              64, 4, 1;
        SkMsgSize:               "size",                    68, 4, 1;
        SkMsgSk:                 "sk",                      72, 8, 1;
    }
    SK_REUSEPORT_MD = "sk_reuseport_md", 56 {
        SkReuseportData:         "data",                     0, 8, 1;
        SkReuseportDataEnd:      "data_end",                 8, 8, 1;
        SkReuseportLen:          "len",                     16, 4, 1;
        SkReuseportEthProtocol:  "eth_protocol",            20, 4, 1;
        SkReuseportIpProtocol:   "ip_protocol",             24, 4, 1;
        SkReuseportBindInany:    "bind_inany",              28, 4, 1;
        SkReuseportHash:         "hash",                    32, 4, 1;
        SkReuseportSk:           "sk",                      40, 8, 1;
        SkReuseportMigratingSk:  "migrating_sk",            48, 8, 1;
    }
    SK_LOOKUP = "bpf_sk_lookup", 72 {
        SkLookupSk:              "sk",                       0, 8, 1;
        SkLookupFamily:          "family",                   8, 4, 1;
        SkLookupProtocol:        "protocol",                12, 4, 1;
        SkLookupRemoteIp4:       "remote_ip4",              16, 4, 1;
        SkLookupRemoteIp6:       "remote_ip6",              20, 4, 4;
        SkLookupRemotePort:      "remote_port",             36, 4, 1; // 2 bytes and a hole that reads as 0
        SkLookupLocalIp4:        "local_ip4",               40, 4, 1;
        SkLookupLocalIp6:        "local_ip6",               44, 4, 4;
        SkLookupLocalPort:       "local_port",              60, 4, 1;
        SkLookupIngressIfindex:  "ingress_ifindex",         64, 4, 1;
    }
    CGROUP_DEV_CTX = "bpf_cgroup_dev_ctx", 12 {
        CgroupDevAccessType:     "access_type",              0, 4, 1;
        CgroupDevMajor:          "major",                    4, 4, 1;
        CgroupDevMinor:          "minor",                    8, 4, 1;
    }
    SYSCTL = "bpf_sysctl", 8 {
        SysctlWrite:             "write",                    0, 4, 1;
        SysctlFilePos:           "file_pos",                 4, 4, 1;
    }
    SOCKOPT = "bpf_sockopt", 40 {
        SockoptSk:               "sk",                       0, 8, 1;
        SockoptOptval:           "optval",                   8, 8, 1;
        SockoptOptvalEnd:        "optval_end",              16, 8, 1;
        SockoptLevel:            "level",                   24, 4, 1;
        SockoptOptname:          "optname",                 28, 4, 1;
        SockoptOptlen:           "optlen",                  32, 4, 1;
        SockoptRetval:           "retval",                  36, 4, 1;
    }
    SOCK = "bpf_sock", 80 {
        SockBoundDevIf:          "bound_dev_if",             0, 4, 1;
        SockFamily:              "family",                   4, 4, 1;
        SockType:                "type",                     8, 4, 1;
        SockProtocol:            "protocol",                12, 4, 1;
        SockMark:                "mark",                    16, 4, 1;
        SockPriority:            "priority",                20, 4, 1;
        SockSrcIp4:              "src_ip4",                 24, 4, 1;
        SockSrcIp6:              "src_ip6",                 28, 4, 4;
        SockSrcPort:             "src_port",                44, 4, 1;
        SockDstPort:             "dst_port",              48, 4, 1; // 2 bytes and a hole that reads as 0
        SockDstIp4:              "dst_ip4",                 52, 4, 1;
        SockDstIp6:              "dst_ip6",                 56, 4, 4;
        SockState:               "state",                   72, 4, 1;
        SockRxQueueMapping:      "rx_queue_mapping",        76, 4, 1;
    }
    PERF_EVENT_DATA = "bpf_perf_event_data", 184 {
        PerfEventRegs:           "regs",                     0, 8, 21;
        PerfEventSamplePeriod:   "sample_period",          168, 8, 1;
        PerfEventAddr:           "addr",                   176, 8, 1;
    }
    NF_CTX = "bpf_nf_ctx", 16 {
        NfState:                 "state",                    0, 8, 1;
        NfSkb:                   "skb",                      8, 8, 1;
    }
    TCP_SOCK = "bpf_tcp_sock", 112 {
        TcpSockSndCwnd:          "snd_cwnd",                 0, 4, 1;
        TcpSockSrttUs:           "srtt_us",                  4, 4, 1;
        TcpSockRttMin:           "rtt_min",                  8, 4, 1;
        TcpSockSndSsthresh:      "snd_ssthresh",            12, 4, 1;
        TcpSockRcvNxt:           "rcv_nxt",                 16, 4, 1;
        TcpSockSndNxt:           "snd_nxt",                 20, 4, 1;
        TcpSockSndUna:           "snd_una",                 24, 4, 1;
        TcpSockMssCache:         "mss_cache",               28, 4, 1;
        TcpSockEcnFlags:         "ecn_flags",               32, 4, 1;
        TcpSockRateDelivered:    "rate_delivered",          36, 4, 1;
        TcpSockRateIntervalUs:   "rate_interval_us",        40, 4, 1;
        TcpSockPacketsOut:       "packets_out",             44, 4, 1;
        TcpSockRetransOut:       "retrans_out",             48, 4, 1;
        TcpSockTotalRetrans:     "total_retrans",           52, 4, 1;
        TcpSockSegsIn:           "segs_in",                 56, 4, 1;
        TcpSockDataSegsIn:       "data_segs_in",            60, 4, 1;
        TcpSockSegsOut:          "segs_out",                64, 4, 1;
        TcpSockDataSegsOut:      "data_segs_out",           68, 4, 1;
        TcpSockLostOut:          "lost_out",                72, 4, 1;
        TcpSockSackedOut:        "sacked_out",              76, 4, 1;
        TcpSockBytesReceived:    "bytes_received",          80, 8, 1;
        TcpSockBytesAcked:       "bytes_acked",             88, 8, 1;
        TcpSockDsackDups:        "dsack_dups",              96, 4, 1;
        TcpSockDelivered:        "delivered",              100, 4, 1;
        TcpSockDeliveredCe:      "delivered_ce",           104, 4, 1;
        TcpSockIcskRetransmits:  "icsk_retransmits",       108, 4, 1;
    }
    XDP_SOCK = "bpf_xdp_sock", 4 {
        XdpSockQueueId:          "queue_id",                 0, 4, 1;
    }
}
