//! libbpf's table of ELF section names: `SEC("kprobe/do_sys_open")` to program type, attach type and target.
//!
//! One row per entry of `section_defs[]` of libbpf 1.6, in its order: the first row that matches wins.

use crate::{AttachType, ProgType};

/// What libbpf does besides setting the types: `enum sec_def_flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SecFlags(pub u8);

impl SecFlags {
    /// Nothing (`SEC_NONE`).
    pub const NONE: SecFlags = SecFlags(0);
    /// `SEC_EXP_ATTACH_OPT`: the attach type may be left out for kernels that lack it.
    pub const EXP_ATTACH_OPT: SecFlags = SecFlags(1);
    /// `SEC_ATTACHABLE`: once attached by `BPF_PROG_ATTACH`.
    pub const ATTACHABLE: SecFlags = SecFlags(2);
    /// `SEC_ATTACHABLE_OPT`: both of the above.
    pub const ATTACHABLE_OPT: SecFlags = SecFlags(3);
    /// `SEC_ATTACH_BTF`: the target is a BTF id of the kernel or of another program.
    pub const ATTACH_BTF: SecFlags = SecFlags(4);
    /// `SEC_SLEEPABLE`: loads with `BPF_F_SLEEPABLE`.
    pub const SLEEPABLE: SecFlags = SecFlags(8);
    /// `SEC_XDP_FRAGS`: loads with `BPF_F_XDP_HAS_FRAGS`.
    pub const XDP_FRAGS: SecFlags = SecFlags(16);
    /// `SEC_USDT`: the attach type becomes `BPF_TRACE_UPROBE_MULTI` where the kernel has it.
    pub const USDT: SecFlags = SecFlags(32);

    /// Whether all of `other` is set.
    pub const fn contains(self, other: SecFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for SecFlags {
    type Output = SecFlags;
    fn bitor(self, other: SecFlags) -> SecFlags {
        SecFlags(self.0 | other.0)
    }
}

/// How the part of a section name after the first `/` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// There is none.
    None,
    /// `[module:]function` or a hook's name, found in kernel BTF.
    Btf,
    /// `function[+offset]`.
    Kprobe,
    /// A glob over functions.
    KprobeMulti,
    /// `binary:function[+offset]`.
    Uprobe,
    /// `binary:glob`.
    UprobeMulti,
    /// A system call's name.
    Ksyscall,
    /// `binary:provider:name`.
    Usdt,
    /// `category/name`.
    Tracepoint,
    /// A raw tracepoint's name.
    RawTracepoint,
    /// The member of a struct_ops struct; documentation only, libbpf takes it from the map.
    Member,
}

/// One row of libbpf's `section_defs[]`.
#[derive(Clone, Copy, Debug)]
pub struct SectionDef {
    /// `"xdp"` matches itself alone; `"kprobe+"` matches `kprobe` and `kprobe/...`.
    pub sec: &'static str,
    /// Program type.
    pub prog_type: ProgType,
    /// Expected attach type; none where the row has 0.
    pub attach_type: Option<AttachType>,
    /// What else happens at load.
    pub flags: SecFlags,
    /// What follows the `/`.
    pub target: TargetForm,
}

impl SectionDef {
    /// `sec_def_matches`.
    pub fn matches(&self, section: &str) -> bool {
        match self.sec.strip_suffix('+') {
            Some(stem) => match section.strip_prefix(stem) {
                Some(rest) => rest.is_empty() || rest.starts_with('/'),
                None => false,
            },
            None => self.sec == section,
        }
    }

    /// The name without the `+`.
    pub fn stem(&self) -> &'static str {
        self.sec.strip_suffix('+').unwrap_or(self.sec)
    }
}

const fn row(
    sec: &'static str,
    prog_type: ProgType,
    attach_type: Option<AttachType>,
    flags: SecFlags,
    target: TargetForm,
) -> SectionDef {
    SectionDef {
        sec,
        prog_type,
        attach_type,
        flags,
        target,
    }
}

use AttachType as A;
use ProgType as P;
use TargetForm as T;

const NONE: SecFlags = SecFlags::NONE;
const ATTACHABLE: SecFlags = SecFlags::ATTACHABLE;
const ATTACHABLE_OPT: SecFlags = SecFlags::ATTACHABLE_OPT;
const ATTACH_BTF: SecFlags = SecFlags::ATTACH_BTF;
const SLEEPABLE: SecFlags = SecFlags::SLEEPABLE;
const XDP_FRAGS: SecFlags = SecFlags::XDP_FRAGS;
const USDT: SecFlags = SecFlags::USDT;
/// `SEC_ATTACH_BTF | SEC_SLEEPABLE`.
const BTF_SLEEPABLE: SecFlags = SecFlags(ATTACH_BTF.0 | SLEEPABLE.0);
/// `SEC_USDT | SEC_SLEEPABLE`.
const USDT_SLEEPABLE: SecFlags = SecFlags(USDT.0 | SLEEPABLE.0);

/// libbpf 1.6's `section_defs[]`.
#[rustfmt::skip]
pub const SECTIONS: &[SectionDef] = &[
    row("socket", P::SocketFilter, None, NONE, T::None),
    row("sk_reuseport/migrate", P::SkReuseport, Some(A::SkReuseportSelectOrMigrate), ATTACHABLE, T::None),
    row("sk_reuseport", P::SkReuseport, Some(A::SkReuseportSelect), ATTACHABLE, T::None),
    row("kprobe+", P::Kprobe, None, NONE, T::Kprobe),
    row("uprobe+", P::Kprobe, None, NONE, T::Uprobe),
    row("uprobe.s+", P::Kprobe, None, SLEEPABLE, T::Uprobe),
    row("kretprobe+", P::Kprobe, None, NONE, T::Kprobe),
    row("uretprobe+", P::Kprobe, None, NONE, T::Uprobe),
    row("uretprobe.s+", P::Kprobe, None, SLEEPABLE, T::Uprobe),
    row("kprobe.multi+", P::Kprobe, Some(A::TraceKprobeMulti), NONE, T::KprobeMulti),
    row("kretprobe.multi+", P::Kprobe, Some(A::TraceKprobeMulti), NONE, T::KprobeMulti),
    row("kprobe.session+", P::Kprobe, Some(A::TraceKprobeSession), NONE, T::KprobeMulti),
    row("uprobe.multi+", P::Kprobe, Some(A::TraceUprobeMulti), NONE, T::UprobeMulti),
    row("uretprobe.multi+", P::Kprobe, Some(A::TraceUprobeMulti), NONE, T::UprobeMulti),
    row("uprobe.session+", P::Kprobe, Some(A::TraceUprobeSession), NONE, T::UprobeMulti),
    row("uprobe.multi.s+", P::Kprobe, Some(A::TraceUprobeMulti), SLEEPABLE, T::UprobeMulti),
    row("uretprobe.multi.s+", P::Kprobe, Some(A::TraceUprobeMulti), SLEEPABLE, T::UprobeMulti),
    row("uprobe.session.s+", P::Kprobe, Some(A::TraceUprobeSession), SLEEPABLE, T::UprobeMulti),
    row("ksyscall+", P::Kprobe, None, NONE, T::Ksyscall),
    row("kretsyscall+", P::Kprobe, None, NONE, T::Ksyscall),
    row("usdt+", P::Kprobe, None, USDT, T::Usdt),
    row("usdt.s+", P::Kprobe, None, USDT_SLEEPABLE, T::Usdt),
    row("tc/ingress", P::SchedCls, Some(A::TcxIngress), NONE, T::None),
    row("tc/egress", P::SchedCls, Some(A::TcxEgress), NONE, T::None),
    row("tcx/ingress", P::SchedCls, Some(A::TcxIngress), NONE, T::None),
    row("tcx/egress", P::SchedCls, Some(A::TcxEgress), NONE, T::None),
    row("tc", P::SchedCls, None, NONE, T::None),
    row("classifier", P::SchedCls, None, NONE, T::None),
    row("action", P::SchedAct, None, NONE, T::None),
    row("netkit/primary", P::SchedCls, Some(A::NetkitPrimary), NONE, T::None),
    row("netkit/peer", P::SchedCls, Some(A::NetkitPeer), NONE, T::None),
    row("tracepoint+", P::Tracepoint, None, NONE, T::Tracepoint),
    row("tp+", P::Tracepoint, None, NONE, T::Tracepoint),
    row("raw_tracepoint+", P::RawTracepoint, None, NONE, T::RawTracepoint),
    row("raw_tp+", P::RawTracepoint, None, NONE, T::RawTracepoint),
    row("raw_tracepoint.w+", P::RawTracepointWritable, None, NONE, T::RawTracepoint),
    row("raw_tp.w+", P::RawTracepointWritable, None, NONE, T::RawTracepoint),
    row("tp_btf+", P::Tracing, Some(A::TraceRawTp), ATTACH_BTF, T::Btf),
    row("fentry+", P::Tracing, Some(A::TraceFentry), ATTACH_BTF, T::Btf),
    row("fmod_ret+", P::Tracing, Some(A::ModifyReturn), ATTACH_BTF, T::Btf),
    row("fexit+", P::Tracing, Some(A::TraceFexit), ATTACH_BTF, T::Btf),
    row("fentry.s+", P::Tracing, Some(A::TraceFentry), BTF_SLEEPABLE, T::Btf),
    row("fmod_ret.s+", P::Tracing, Some(A::ModifyReturn), BTF_SLEEPABLE, T::Btf),
    row("fexit.s+", P::Tracing, Some(A::TraceFexit), BTF_SLEEPABLE, T::Btf),
    row("freplace+", P::Ext, None, ATTACH_BTF, T::Btf),
    row("lsm+", P::Lsm, Some(A::LsmMac), ATTACH_BTF, T::Btf),
    row("lsm.s+", P::Lsm, Some(A::LsmMac), BTF_SLEEPABLE, T::Btf),
    row("lsm_cgroup+", P::Lsm, Some(A::LsmCgroup), ATTACH_BTF, T::Btf),
    row("iter+", P::Tracing, Some(A::TraceIter), ATTACH_BTF, T::Btf),
    row("iter.s+", P::Tracing, Some(A::TraceIter), BTF_SLEEPABLE, T::Btf),
    row("syscall", P::Syscall, None, SLEEPABLE, T::None),
    row("xdp.frags/devmap", P::Xdp, Some(A::XdpDevmap), XDP_FRAGS, T::None),
    row("xdp/devmap", P::Xdp, Some(A::XdpDevmap), ATTACHABLE, T::None),
    row("xdp.frags/cpumap", P::Xdp, Some(A::XdpCpumap), XDP_FRAGS, T::None),
    row("xdp/cpumap", P::Xdp, Some(A::XdpCpumap), ATTACHABLE, T::None),
    row("xdp.frags", P::Xdp, Some(A::Xdp), XDP_FRAGS, T::None),
    row("xdp", P::Xdp, Some(A::Xdp), ATTACHABLE_OPT, T::None),
    row("perf_event", P::PerfEvent, None, NONE, T::None),
    row("lwt_in", P::LwtIn, None, NONE, T::None),
    row("lwt_out", P::LwtOut, None, NONE, T::None),
    row("lwt_xmit", P::LwtXmit, None, NONE, T::None),
    row("lwt_seg6local", P::LwtSeg6local, None, NONE, T::None),
    row("sockops", P::SockOps, Some(A::CgroupSockOps), ATTACHABLE_OPT, T::None),
    row("sk_skb/stream_parser", P::SkSkb, Some(A::SkSkbStreamParser), ATTACHABLE_OPT, T::None),
    row("sk_skb/stream_verdict", P::SkSkb, Some(A::SkSkbStreamVerdict), ATTACHABLE_OPT, T::None),
    row("sk_skb/verdict", P::SkSkb, Some(A::SkSkbVerdict), ATTACHABLE_OPT, T::None),
    row("sk_skb", P::SkSkb, None, NONE, T::None),
    row("sk_msg", P::SkMsg, Some(A::SkMsgVerdict), ATTACHABLE_OPT, T::None),
    row("lirc_mode2", P::LircMode2, Some(A::LircMode2), ATTACHABLE_OPT, T::None),
    row("flow_dissector", P::FlowDissector, Some(A::FlowDissector), ATTACHABLE_OPT, T::None),
    row("cgroup_skb/ingress", P::CgroupSkb, Some(A::CgroupInetIngress), ATTACHABLE_OPT, T::None),
    row("cgroup_skb/egress", P::CgroupSkb, Some(A::CgroupInetEgress), ATTACHABLE_OPT, T::None),
    row("cgroup/skb", P::CgroupSkb, None, NONE, T::None),
    row("cgroup/sock_create", P::CgroupSock, Some(A::CgroupInetSockCreate), ATTACHABLE, T::None),
    row("cgroup/sock_release", P::CgroupSock, Some(A::CgroupInetSockRelease), ATTACHABLE, T::None),
    row("cgroup/sock", P::CgroupSock, Some(A::CgroupInetSockCreate), ATTACHABLE_OPT, T::None),
    row("cgroup/post_bind4", P::CgroupSock, Some(A::CgroupInet4PostBind), ATTACHABLE, T::None),
    row("cgroup/post_bind6", P::CgroupSock, Some(A::CgroupInet6PostBind), ATTACHABLE, T::None),
    row("cgroup/bind4", P::CgroupSockAddr, Some(A::CgroupInet4Bind), ATTACHABLE, T::None),
    row("cgroup/bind6", P::CgroupSockAddr, Some(A::CgroupInet6Bind), ATTACHABLE, T::None),
    row("cgroup/connect4", P::CgroupSockAddr, Some(A::CgroupInet4Connect), ATTACHABLE, T::None),
    row("cgroup/connect6", P::CgroupSockAddr, Some(A::CgroupInet6Connect), ATTACHABLE, T::None),
    row("cgroup/connect_unix", P::CgroupSockAddr, Some(A::CgroupUnixConnect), ATTACHABLE, T::None),
    row("cgroup/sendmsg4", P::CgroupSockAddr, Some(A::CgroupUdp4Sendmsg), ATTACHABLE, T::None),
    row("cgroup/sendmsg6", P::CgroupSockAddr, Some(A::CgroupUdp6Sendmsg), ATTACHABLE, T::None),
    row("cgroup/sendmsg_unix", P::CgroupSockAddr, Some(A::CgroupUnixSendmsg), ATTACHABLE, T::None),
    row("cgroup/recvmsg4", P::CgroupSockAddr, Some(A::CgroupUdp4Recvmsg), ATTACHABLE, T::None),
    row("cgroup/recvmsg6", P::CgroupSockAddr, Some(A::CgroupUdp6Recvmsg), ATTACHABLE, T::None),
    row("cgroup/recvmsg_unix", P::CgroupSockAddr, Some(A::CgroupUnixRecvmsg), ATTACHABLE, T::None),
    row("cgroup/getpeername4", P::CgroupSockAddr, Some(A::CgroupInet4Getpeername), ATTACHABLE, T::None),
    row("cgroup/getpeername6", P::CgroupSockAddr, Some(A::CgroupInet6Getpeername), ATTACHABLE, T::None),
    row("cgroup/getpeername_unix", P::CgroupSockAddr, Some(A::CgroupUnixGetpeername), ATTACHABLE, T::None),
    row("cgroup/getsockname4", P::CgroupSockAddr, Some(A::CgroupInet4Getsockname), ATTACHABLE, T::None),
    row("cgroup/getsockname6", P::CgroupSockAddr, Some(A::CgroupInet6Getsockname), ATTACHABLE, T::None),
    row("cgroup/getsockname_unix", P::CgroupSockAddr, Some(A::CgroupUnixGetsockname), ATTACHABLE, T::None),
    row("cgroup/sysctl", P::CgroupSysctl, Some(A::CgroupSysctl), ATTACHABLE, T::None),
    row("cgroup/getsockopt", P::CgroupSockopt, Some(A::CgroupGetsockopt), ATTACHABLE, T::None),
    row("cgroup/setsockopt", P::CgroupSockopt, Some(A::CgroupSetsockopt), ATTACHABLE, T::None),
    row("cgroup/dev", P::CgroupDevice, Some(A::CgroupDevice), ATTACHABLE_OPT, T::None),
    row("struct_ops+", P::StructOps, None, NONE, T::Member),
    row("struct_ops.s+", P::StructOps, None, SLEEPABLE, T::Member),
    row("sk_lookup", P::SkLookup, Some(A::SkLookup), ATTACHABLE, T::None),
    row("netfilter", P::Netfilter, Some(A::Netfilter), NONE, T::None),
];

/// `find_sec_def`: the row for a section name (without the `?` of `SEC("?...")`).
pub fn find_section(section: &str) -> Option<&'static SectionDef> {
    SECTIONS.iter().find(|def| def.matches(section))
}

/// What a program attaches to, read from the part of its section name after the `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachTarget<'a> {
    /// A type in kernel BTF.
    Btf {
        /// Module before the `:`; none means the kernel or any module.
        module: Option<&'a str>,
        /// Name without its prefix.
        name: &'a str,
        /// `btf_trace_`, `bpf_lsm_`, `bpf_iter_` or nothing: stands before `name` in BTF.
        prefix: &'static str,
        /// Whether BTF has it as a typedef (`tp_btf`) and not as a function.
        typedef: bool,
    },
    /// A kernel function.
    Kprobe {
        /// Function's name.
        function: &'a str,
        /// Bytes into it.
        offset: u64,
    },
    /// Kernel functions that match a glob.
    KprobeMulti(&'a str),
    /// A function of a program in user space.
    Uprobe {
        /// Path or library name.
        binary: &'a str,
        /// Function's name.
        function: &'a str,
        /// Bytes into it.
        offset: u64,
    },
    /// Functions of a program in user space.
    UprobeMulti {
        /// Path or library name.
        binary: &'a str,
        /// Functions' glob.
        pattern: &'a str,
    },
    /// A system call.
    Ksyscall(&'a str),
    /// A static tracepoint in user space.
    Usdt {
        /// Path or library name.
        binary: &'a str,
        /// Provider.
        provider: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A tracepoint of the kernel.
    Tracepoint {
        /// Category, `syscalls`.
        category: &'a str,
        /// Name.
        name: &'a str,
    },
    /// A raw tracepoint.
    RawTracepoint(&'a str),
    /// The member of a struct_ops struct that the section names.
    Member(&'a str),
}

/// Reads the target out of a section name; none where the row takes none, where it is left out
/// or where libbpf's auto-attach would call it malformed.
pub fn attach_target<'a>(def: &SectionDef, section: &'a str) -> Option<AttachTarget<'a>> {
    let text = section.strip_prefix(def.stem())?.strip_prefix('/')?;
    Some(match def.target {
        TargetForm::None => return None,
        TargetForm::Btf => {
            let (module, name) = match text.split_once(':') {
                Some((module, name)) => (Some(module), name),
                None => (None, text),
            };
            let (prefix, typedef) = btf_prefix(def.attach_type);
            AttachTarget::Btf {
                module,
                name,
                prefix,
                typedef,
            }
        }
        TargetForm::Kprobe => {
            let end = text
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(text.len());
            let (function, rest) = text.split_at(end);
            if function.is_empty() {
                return None;
            }
            let offset = match rest.strip_prefix('+') {
                Some(number) => c_integer(number)?,
                None => 0,
            };
            if offset != 0 && def.sec.starts_with("kretprobe") {
                return None;
            }
            AttachTarget::Kprobe { function, offset }
        }
        TargetForm::KprobeMulti => AttachTarget::KprobeMulti(text),
        TargetForm::Uprobe => {
            let (binary, function) = text.split_once(':')?;
            let (function, offset) = match function
                .rsplit_once('+')
                .and_then(|(name, number)| Some((name, c_integer(number)?)))
            {
                Some(split) => split,
                None => (function, 0),
            };
            if offset != 0 && def.sec.starts_with("uretprobe") {
                return None;
            }
            AttachTarget::Uprobe {
                binary,
                function,
                offset,
            }
        }
        TargetForm::UprobeMulti => {
            let (binary, pattern) = text.split_once(':')?;
            AttachTarget::UprobeMulti { binary, pattern }
        }
        TargetForm::Ksyscall => AttachTarget::Ksyscall(text),
        TargetForm::Usdt => {
            let mut parts = text.split(':');
            AttachTarget::Usdt {
                binary: parts.next()?,
                provider: parts.next()?,
                name: parts.next()?,
            }
        }
        TargetForm::Tracepoint => {
            let (category, name) = text.split_once('/')?;
            AttachTarget::Tracepoint { category, name }
        }
        TargetForm::RawTracepoint => AttachTarget::RawTracepoint(text),
        TargetForm::Member => AttachTarget::Member(text),
    })
}

/// `btf_get_kernel_prefix_kind`: prefix of the name in kernel BTF, and whether it is a typedef.
pub fn btf_prefix(attach_type: Option<AttachType>) -> (&'static str, bool) {
    match attach_type {
        Some(A::TraceRawTp) => ("btf_trace_", true),
        Some(A::LsmMac | A::LsmCgroup) => ("bpf_lsm_", false),
        Some(A::TraceIter) => ("bpf_iter_", false),
        _ => ("", false),
    }
}

/// A whole C integer, decimal, hexadecimal or octal, as `sscanf("%li")` reads it.
fn c_integer(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_match_as_libbpf_matches() {
        for (section, want) in [
            ("xdp", Some("xdp")),
            ("xdp/devmap", Some("xdp/devmap")),
            ("xdp/other", None),
            ("xdp_prog", None),
            ("kprobe", Some("kprobe+")),
            ("kprobe/", Some("kprobe+")),
            ("kprobe.multi/bpf_*", Some("kprobe.multi+")),
            ("kprobes", None),
            ("tc", Some("tc")),
            ("tc/ingress", Some("tc/ingress")),
            ("cgroup/sock", Some("cgroup/sock")),
            ("cgroup/sock_create", Some("cgroup/sock_create")),
            ("struct_ops.s/init", Some("struct_ops.s+")),
            ("", None),
        ] {
            assert_eq!(find_section(section).map(|d| d.sec), want, "{section}");
        }
    }

    #[test]
    fn targets_read_as_libbpf_reads_them() {
        let target = |section| attach_target(find_section(section).unwrap(), section);
        assert_eq!(
            target("kprobe/do_sys.part.0+0x10"),
            Some(AttachTarget::Kprobe {
                function: "do_sys.part.0",
                offset: 16
            })
        );
        assert_eq!(target("kretprobe/f+4"), None);
        assert_eq!(target("kprobe"), None);
        assert_eq!(
            target("uprobe//proc/self/exe:main+010"),
            Some(AttachTarget::Uprobe {
                binary: "/proc/self/exe",
                function: "main",
                offset: 8
            })
        );
        assert_eq!(
            target("lsm.s/bpf_testmod:hook"),
            Some(AttachTarget::Btf {
                module: Some("bpf_testmod"),
                name: "hook",
                prefix: "bpf_lsm_",
                typedef: false
            })
        );
        assert_eq!(
            target("tp/syscalls/sys_enter_open"),
            Some(AttachTarget::Tracepoint {
                category: "syscalls",
                name: "sys_enter_open"
            })
        );
        assert_eq!(
            target("usdt/libc.so.6:libc:setjmp"),
            Some(AttachTarget::Usdt {
                binary: "libc.so.6",
                provider: "libc",
                name: "setjmp"
            })
        );
        assert_eq!(target("xdp"), None);
    }
}
