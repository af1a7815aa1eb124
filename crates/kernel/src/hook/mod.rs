//! Hooks: the places of the emulated kernel that programs attach to.
//!
//! A [`Hook`] is something that happens in the kernel: a function is called, a packet comes in, a
//! task connects. [`Kernel::attach`] makes a link between a program and a hook, [`Kernel::fire`]
//! makes it happen, and what is attached runs.
//!
//! - `attach`: programs are attached and detached; `section`: where, if nobody says; `stage`: whether they
//!   may, and when they run there;
//! - `place`: where a link goes among others;
//! - `links`: the links of a simulation and their order at each hook;
//! - `netfilter`: the context of netfilter's programs;
//! - `fire`: one hook that happens; `run`: its programs, one after another; `given`: what they are given;
//!   `verdict`: what comes of it;
//! - `iter`: an iterator that is read as a file; `target`: what iterators go over.

mod attach;
mod fire;
mod given;
mod iter;
mod links;
pub(crate) mod netfilter;
mod place;
mod redirect;
mod run;
mod section;
mod stage;
mod target;
mod verdict;

pub use attach::{AttachError, AttachOpts, Relative, flags};
pub(crate) use fire::{Fire, Interrupt};
pub use fire::{Fired, FiredRun};
pub use iter::IterFd;
pub(crate) use iter::{IterFile, Reading};
pub use links::LinkId;
pub(crate) use links::Links;
pub use target::{CgroupOrder, IterInfo};

use crate::ids::{CgroupId, MapId, SockId};
use crate::trace::Level;
use bpfsim_abi::AttachType;
use std::fmt;
use std::net::IpAddr;

/// Something that happens in the kernel, and that programs attach to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// A kernel function is called: kprobes and kretprobes, fentry, fmod_ret and fexit.
    Function {
        /// Its name.
        name: String,
        /// Bytes into it; elsewhere than at 0 there are only kprobes.
        offset: u64,
    },
    /// A function of a program in user space is called: uprobes and uretprobes.
    UserFunction {
        /// The file of the program.
        binary: String,
        /// Its name.
        name: String,
        /// Bytes into it.
        offset: u64,
    },
    /// A static tracepoint of a program in user space is passed.
    Usdt {
        /// The file of the program.
        binary: String,
        /// Who provides it.
        provider: String,
        /// Its name.
        name: String,
    },
    /// A tracepoint is passed, as its event shows it: programs of `tracepoint/`.
    Tracepoint {
        /// Category, such as `syscalls`.
        category: String,
        /// Its name.
        name: String,
    },
    /// A tracepoint is passed, as its call shows it: `raw_tp` and `tp_btf`.
    RawTracepoint(String),
    /// The kernel asks its security modules: `lsm`, and `lsm_cgroup` of the cgroup concerned.
    Lsm(String),
    /// A perf event of this number overflows; tests give out the numbers.
    PerfEvent(u32),
    /// A device receives a frame, in its driver.
    Xdp {
        /// The device.
        ifindex: u32,
    },
    /// A device receives or sends a packet: tcx, then filters of `tc`.
    Tc {
        /// The device.
        ifindex: u32,
        /// It sends.
        egress: bool,
    },
    /// Something that tasks and sockets of a cgroup do.
    Cgroup {
        /// The cgroup of who does it; programs of those above it run too.
        cgroup: CgroupId,
        /// What is done.
        what: AttachType,
    },
    /// A packet passes netfilter.
    Netfilter {
        /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
        family: u8,
        /// `NF_INET_PRE_ROUTING` (0) and so on.
        hook: u8,
    },
    /// A packet's headers are taken apart.
    FlowDissector,
    /// The socket is looked up that a packet is for.
    SkLookup,
    /// A socket receives a packet: its filter (`SO_ATTACH_BPF`), and which socket of its group it
    /// is for (`SO_ATTACH_REUSEPORT_EBPF`).
    Sock(SockId),
    /// A socket of a sockmap or sockhash sends or receives.
    SockMap {
        /// The map.
        map: MapId,
        /// What it does.
        what: AttachType,
    },
    /// A packet of a route with a lightweight tunnel (`ip route add ... encap bpf`, `seg6local`).
    Lwt {
        /// The route's destination.
        dest: IpAddr,
        /// How many bits of it.
        prefix: u8,
        /// When.
        what: LwtHook,
    },
    /// An iterator over this is read: each call is for one object.
    Iter(String),
    /// The kernel calls a member of an attached struct.
    StructOps {
        /// The struct's map.
        map: MapId,
        /// The member.
        member: String,
    },
}

/// When programs of a route with a lightweight tunnel run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LwtHook {
    /// A packet came in (`lwt_in`).
    In,
    /// A packet goes out (`lwt_out`).
    Out,
    /// A packet is about to be sent (`lwt_xmit`).
    Xmit,
    /// A packet came to a segment of this machine, `End.BPF` (`lwt_seg6local`). What has no segment
    /// routing header with segments left is dropped before.
    Seg6local,
}

impl LwtHook {
    /// By the name of its programs' section, without `lwt_`.
    pub fn from_name(name: &str) -> Option<LwtHook> {
        Some(match name {
            "in" => LwtHook::In,
            "out" => LwtHook::Out,
            "xmit" => LwtHook::Xmit,
            "seg6local" => LwtHook::Seg6local,
            _ => return None,
        })
    }
}

impl Hook {
    /// A call of a kernel function.
    pub fn function(name: &str) -> Hook {
        let (name, offset) = (name.to_string(), 0);
        Hook::Function { name, offset }
    }

    /// A call of a function of a program in user space.
    pub fn user_function(binary: &str, name: &str) -> Hook {
        Hook::UserFunction {
            binary: binary.to_string(),
            name: name.to_string(),
            offset: 0,
        }
    }

    /// A tracepoint, as its event shows it.
    pub fn tracepoint(category: &str, name: &str) -> Hook {
        Hook::Tracepoint {
            category: category.to_string(),
            name: name.to_string(),
        }
    }

    /// A tracepoint, as its call shows it.
    pub fn raw_tracepoint(name: &str) -> Hook {
        Hook::RawTracepoint(name.to_string())
    }

    /// A hook of security modules, without `bpf_lsm_`.
    pub fn lsm(name: &str) -> Hook {
        Hook::Lsm(name.to_string())
    }

    /// Where Linux comes to it: [`ProgramInput::level`](crate::ProgramInput::level) says otherwise
    /// where it can be several.
    pub fn level(&self) -> Level {
        match self {
            Hook::PerfEvent(_) => Level::Nmi,
            Hook::Xdp { .. }
            | Hook::Tc { egress: false, .. }
            | Hook::Netfilter { .. }
            | Hook::FlowDissector
            | Hook::SkLookup
            | Hook::Sock(_)
            | Hook::Lwt {
                what: LwtHook::In | LwtHook::Seg6local,
                ..
            }
            | Hook::Cgroup {
                what: AttachType::CgroupInetIngress,
                ..
            } => Level::Softirq,
            _ => Level::Task,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, offset: &u64| match offset {
            0 => Ok(()),
            n => write!(f, "+{n:#x}"),
        };
        match self {
            Hook::Function { name, offset } => {
                write!(f, "function {name}")?;
                place(f, offset)
            }
            Hook::UserFunction {
                binary,
                name,
                offset,
            } => {
                write!(f, "user function {binary}:{name}")?;
                place(f, offset)
            }
            Hook::Usdt {
                binary,
                provider,
                name,
            } => write!(f, "usdt {binary}:{provider}:{name}"),
            Hook::Tracepoint { category, name } => write!(f, "tracepoint {category}/{name}"),
            Hook::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Hook::Lsm(name) => write!(f, "lsm {name}"),
            Hook::PerfEvent(number) => write!(f, "perf event {number}"),
            Hook::Xdp { ifindex } => write!(f, "xdp of device {ifindex}"),
            Hook::Tc { ifindex, egress } => {
                let way = if *egress { "egress" } else { "ingress" };
                write!(f, "tc {way} of device {ifindex}")
            }
            Hook::Cgroup { cgroup, what } => write!(f, "{} of {cgroup}", what.name()),
            Hook::Netfilter { family, hook } => write!(f, "netfilter {family}/{hook}"),
            Hook::FlowDissector => write!(f, "flow dissector"),
            Hook::SkLookup => write!(f, "sk_lookup"),
            Hook::Sock(sock) => write!(f, "{sock}"),
            Hook::SockMap { map, what } => write!(f, "{} of {map}", what.name()),
            Hook::Lwt { dest, prefix, what } => {
                write!(f, "lwt {what:?} of route {dest}/{prefix}")
            }
            Hook::Iter(target) => write!(f, "iter {target}"),
            Hook::StructOps { map, member } => write!(f, "{member} of {map}"),
        }
    }
}
