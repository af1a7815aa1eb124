//! Whether a hook is there, whether programs of a type go to it, and in which stage of it they run.

use super::Hook;
use super::attach::{AttachError, AttachOpts};
use super::links::Stage;
use super::place::no;
use crate::ids::CgroupId;
use crate::kernel::Kernel;
use crate::prog::ProgMeta;
use bpfsim_abi::sections::find_section;
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_btf::Kind;

impl Kernel {
    /// Whether the kernel has such a hook.
    pub(super) fn exists(
        &self,
        hook: &Hook,
        cgroup: Option<CgroupId>,
    ) -> Result<(), (Errno, Option<&'static str>)> {
        let btf = &self.layouts.btf;
        let world = &self.st.world;
        let function = |name: &str| btf.find(name, Kind::Func).is_some();
        let tracepoint = |name: &str| {
            btf.find(&format!("btf_trace_{name}"), Kind::Typedef)
                .is_some()
        };
        let online = |c: &CgroupId| world.cgroups.get(c.at()).is_some_and(|c| c.online);
        let device = |i: &u32| world.netdev(*i).is_some();
        let has = match hook {
            Hook::Function { name, .. } => function(name),
            Hook::Lsm(name) => function(&format!("bpf_lsm_{name}")),
            Hook::Iter(name) => function(&format!("bpf_iter_{name}")),
            Hook::RawTracepoint(name) => tracepoint(name),
            Hook::Tracepoint { category, name } if category == "syscalls" => {
                let call = name.strip_prefix("sys_enter_");
                let call = call.or_else(|| name.strip_prefix("sys_exit_"));
                call.is_some_and(|call| function(&format!("__x64_sys_{call}")))
            }
            Hook::Tracepoint { name, .. } => tracepoint(name),
            Hook::Cgroup { cgroup, .. } => online(cgroup),
            Hook::Xdp { ifindex } | Hook::Tc { ifindex, .. } if !device(ifindex) => {
                return no(Errno::ENODEV);
            }
            Hook::Sock(sock) => world.socks.get(sock.at()).is_some_and(|s| s.open),
            Hook::SockMap { map, .. } => {
                use bpfsim_abi::MapType::{Sockhash, Sockmap};
                let map = self.st.maps.get(map.at());
                map.is_some_and(|m| matches!(m.spec.map_type, Sockmap | Sockhash))
            }
            Hook::Lwt { dest, prefix, .. } => {
                let mut routes = world.routes.iter();
                routes.any(|r| r.dest == *dest && r.prefix == *prefix)
            }
            Hook::Netfilter { family, .. } if !matches!(family, 2 | 10) => {
                return no(Errno::EAFNOSUPPORT);
            }
            Hook::Netfilter { hook, .. } if *hook >= 5 => return no(Errno::EPROTO),
            _ => true,
        };
        let offline = cgroup.is_some_and(|c| !online(&c));
        if has && !offline {
            Ok(())
        } else {
            no(Errno::ENOENT)
        }
    }

    /// In which stages of a hook a program runs.
    pub(super) fn stages(
        &self,
        meta: &ProgMeta,
        hook: &Hook,
        opts: &AttachOpts,
    ) -> Result<Vec<Stage>, AttachError> {
        use super::LwtHook::{In, Out, Seg6local, Xmit};
        use ProgType as P;
        let refused = |why| AttachError::Refused {
            what: hook.to_string(),
            errno: Errno::EINVAL,
            why,
        };
        let attach = meta.attach_type;
        let by_btf = matches!(meta.prog_type, P::Lsm | P::Tracing);
        if by_btf && self.own_hook(meta)? != *hook {
            return Err(refused(Some("it was loaded for another one")));
        }
        let stage = match (meta.prog_type, hook) {
            (P::Kprobe, Hook::Function { offset, .. } | Hook::UserFunction { offset, .. }) => {
                let of = match hook {
                    Hook::Function { .. } => Many::Kernel,
                    _ => Many::User,
                };
                if many(attach).is_some_and(|many| many != of) {
                    return Err(refused(Some("it was loaded for functions of another kind")));
                }
                if is_session(attach) && opts.returns == Some(true) {
                    return Err(refused(Some("a session has the entry too")));
                }
                let stages = probe_stages(meta, hook, opts.returns);
                let at_entry = |s: &Stage| matches!(s, Stage::Entry | Stage::MultiEntry);
                if *offset != 0 && !stages.iter().all(at_entry) {
                    return Err(refused(Some("return probes are for whole functions")));
                }
                if meta.overrides && !is_overridable(hook) {
                    return Err(refused(Some(
                        "no other result can be put in the place of its",
                    )));
                }
                return Ok(stages);
            }
            (P::Kprobe, Hook::Usdt { .. }) if meta.overrides => {
                return Err(refused(Some(
                    "no other result can be put in the place of its",
                )));
            }
            (P::Kprobe, Hook::Usdt { .. })
            | (P::Tracepoint, Hook::Tracepoint { .. })
            | (P::RawTracepoint | P::RawTracepointWritable, Hook::RawTracepoint(_))
            | (P::PerfEvent, Hook::PerfEvent(_))
            | (P::Netfilter, Hook::Netfilter { .. })
            | (P::FlowDissector, Hook::FlowDissector)
            | (P::SkLookup, Hook::SkLookup)
            | (P::LwtIn, Hook::Lwt { what: In, .. })
            | (P::LwtOut, Hook::Lwt { what: Out, .. })
            | (P::LwtXmit, Hook::Lwt { what: Xmit, .. })
            | (
                P::LwtSeg6local,
                Hook::Lwt {
                    what: Seg6local, ..
                },
            )
            | (P::SocketFilter | P::SkReuseport, Hook::Sock(_)) => Stage::Only,
            (P::Xdp, Hook::Xdp { .. }) => match attach {
                AttachType::XdpDevmap => {
                    return Err(refused(Some("BPF_XDP_DEVMAP programs are for devmaps")));
                }
                AttachType::XdpCpumap => {
                    return Err(refused(Some("BPF_XDP_CPUMAP programs are for cpumaps")));
                }
                _ => Stage::Only,
            },
            (P::SchedCls, Hook::Tc { .. }) if opts.filter => Stage::Tc,
            (P::SchedCls, Hook::Tc { .. }) => Stage::Tcx,
            (P::SchedAct, Hook::Tc { .. }) => {
                return Err(AttachError::Unsupported {
                    what: "tc actions: they belong to filters that are no programs".into(),
                });
            }
            (P::Tracing, Hook::Function { offset: 0, .. }) => match attach {
                AttachType::TraceFentry => Stage::Fentry,
                AttachType::TraceFexit => Stage::Fexit,
                AttachType::ModifyReturn => Stage::FmodRet,
                _ => return Err(refused(None)),
            },
            (P::Tracing, Hook::RawTracepoint(_)) if attach == AttachType::TraceRawTp => Stage::Only,
            (P::Tracing, Hook::Iter(_)) if attach == AttachType::TraceIter => Stage::Only,
            (P::Lsm, Hook::Lsm(_)) if attach == AttachType::LsmCgroup => Stage::LsmCgroup,
            (P::Lsm, Hook::Lsm(name)) if self.returns_nothing(name) => Stage::Fexit,
            (P::Lsm, Hook::Lsm(_)) => Stage::FmodRet,
            (P::SkMsg | P::SkSkb, Hook::SockMap { what, .. }) => {
                if !sockmap_takes(meta.prog_type, *what) {
                    return Err(refused(None));
                }
                Stage::Only
            }
            (P::CgroupSkb, Hook::Cgroup { what, .. })
                if meta.enforces_attach_type && attach != *what =>
            {
                return Err(refused(Some("it tells congestion, which is for egress")));
            }
            (prog_type, Hook::Cgroup { what, .. }) if cgroup_takes(prog_type, attach, *what) => {
                Stage::Only
            }
            (P::LircMode2, _) => {
                return Err(AttachError::Unsupported {
                    what: "infrared receivers".into(),
                });
            }
            _ => return Err(refused(Some("programs of its type do not go there"))),
        };
        Ok(vec![stage])
    }

    /// True for a hook of security modules whose function returns nothing.
    pub(crate) fn returns_nothing(&self, lsm: &str) -> bool {
        let btf = &self.layouts.btf;
        let id = btf.find(&format!("bpf_lsm_{lsm}"), Kind::Func);
        let proto = id.and_then(|id| match btf.ty(id)? {
            bpfsim_btf::Type::Func { proto, .. } => btf.ty(proto),
            _ => None,
        });
        match proto {
            Some(bpfsim_btf::Type::FuncProto(p)) => p.ret == bpfsim_btf::TypeId::VOID,
            _ => false,
        }
    }
}

/// Whether `bpf_override_return` is allowed: at the entry of functions that say so.
fn is_overridable(hook: &Hook) -> bool {
    let Hook::Function { name, offset: 0 } = hook else {
        return false;
    };
    bpfsim_abi::inject::is_injectable(name)
}

/// Functions that a program can be attached to many of at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Many {
    Kernel,
    User,
}

/// The functions that programs of an attach type go to many of at once.
pub(super) fn many(attach: AttachType) -> Option<Many> {
    match attach {
        AttachType::TraceKprobeMulti | AttachType::TraceKprobeSession => Some(Many::Kernel),
        AttachType::TraceUprobeMulti | AttachType::TraceUprobeSession => Some(Many::User),
        _ => None,
    }
}

/// Programs of this attach type run at a function's entry and again at its return.
pub(super) fn is_session(attach: AttachType) -> bool {
    matches!(
        attach,
        AttachType::TraceKprobeSession | AttachType::TraceUprobeSession
    )
}

/// The stages of a kprobe or uprobe.
fn probe_stages(meta: &ProgMeta, hook: &Hook, returns: Option<bool>) -> Vec<Stage> {
    let stem = find_section(&meta.section).map_or("", |def| def.stem());
    let returns = returns.unwrap_or(stem.starts_with("kret") || stem.starts_with("uret"));
    let kernel = matches!(hook, Hook::Function { .. });
    match meta.attach_type {
        attach if is_session(attach) => match kernel {
            true => vec![Stage::MultiEntry, Stage::MultiReturn],
            false => vec![Stage::Entry, Stage::Return],
        },
        AttachType::TraceKprobeMulti if returns => vec![Stage::MultiReturn],
        AttachType::TraceKprobeMulti => vec![Stage::MultiEntry],
        _ if returns => vec![Stage::Return],
        _ => vec![Stage::Entry],
    }
}

fn sockmap_takes(prog_type: ProgType, what: AttachType) -> bool {
    use AttachType::{SkMsgVerdict, SkSkbStreamParser, SkSkbStreamVerdict, SkSkbVerdict};
    match prog_type {
        ProgType::SkMsg => what == SkMsgVerdict,
        _ => matches!(what, SkSkbStreamParser | SkSkbStreamVerdict | SkSkbVerdict),
    }
}

/// Whether programs of a type attach to this of a cgroup (`bpf_prog_attach_check_attach_type`).
fn cgroup_takes(prog_type: ProgType, expected: AttachType, what: AttachType) -> bool {
    use AttachType as A;
    match prog_type {
        ProgType::CgroupSkb => matches!(what, A::CgroupInetIngress | A::CgroupInetEgress),
        ProgType::CgroupSock | ProgType::CgroupSockAddr | ProgType::CgroupSockopt => {
            expected == what
        }
        ProgType::SockOps => what == A::CgroupSockOps,
        ProgType::CgroupDevice => what == A::CgroupDevice,
        ProgType::CgroupSysctl => what == A::CgroupSysctl,
        _ => false,
    }
}
