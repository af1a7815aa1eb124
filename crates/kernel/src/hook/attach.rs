//! Which programs attach where, and what Linux refuses.

use super::links::{CgroupHook, Counted, Link, MULTI, OVERRIDE, PREORDER, Place, Stage};
use super::place::no;
use super::{Hook, LinkId};
use crate::ids::{CgroupId, ProgId};
use crate::kernel::Kernel;
use crate::map::CgroupKey;
use crate::prog::ProgMeta;
use crate::state::State;
use bpfsim_abi::sections::{AttachTarget, attach_target, find_section};
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_btf::Kind;
use bpfsim_vm::GuestMem;

/// Flags of attaching: `BPF_F_*` of `BPF_PROG_ATTACH` and `BPF_LINK_CREATE`.
pub mod flags {
    /// `BPF_F_ALLOW_OVERRIDE`: programs of cgroups below run instead.
    pub const ALLOW_OVERRIDE: u32 = 1;
    /// `BPF_F_ALLOW_MULTI`: several programs, and those of cgroups below run too.
    pub const ALLOW_MULTI: u32 = 1 << 1;
    /// `BPF_F_REPLACE`: in the place of another one.
    pub const REPLACE: u32 = 1 << 2;
    /// `BPF_F_BEFORE`: before another one, or all.
    pub const BEFORE: u32 = 1 << 3;
    /// `BPF_F_AFTER`: after another one, or all.
    pub const AFTER: u32 = 1 << 4;
    /// `BPF_F_PREORDER`: before those of cgroups below.
    pub const PREORDER: u32 = 1 << 6;
}

/// The program or link that flags like [`flags::BEFORE`] are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relative {
    /// A program (its descriptor).
    Prog(ProgId),
    /// A link (`BPF_F_LINK`).
    Link(LinkId),
}

/// How to attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachOpts {
    /// What `bpf_get_attach_cookie` gives.
    pub cookie: u64,
    /// [`flags`]
    pub flags: u32,
    /// What [`flags::BEFORE`] and [`flags::AFTER`] are about; none is all that is there.
    pub relative: Option<Relative>,
    /// The program that [`flags::REPLACE`] is about.
    pub replace: Option<ProgId>,
    /// Refuses with `ESTALE` unless what is attached there was changed so often; 0 is whatever.
    pub revision: u64,
    /// Of netfilter programs and of `tc` filters: lower ones run first.
    pub priority: i32,
    /// When the function returns, or when it is called; without it as the section says.
    pub returns: Option<bool>,
    /// By `BPF_PROG_ATTACH` instead of by a link: to cgroups, tcx and sockmaps.
    pub legacy: bool,
    /// A filter of the `clsact` qdisc (`bpf_tc_attach`) instead of tcx.
    pub filter: bool,
    /// Of iterators, what they go over.
    pub iter: super::IterInfo,
}

/// Why a program is not attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// As Linux refuses it.
    #[error("cannot be attached to {what}: {errno:?}{}", .why.map(|w| format!(" ({w})")).unwrap_or_default())]
    Refused {
        /// To what.
        what: String,
        /// What the system call answers.
        errno: Errno,
        /// What that means here, where the errno alone does not say it.
        why: Option<&'static str>,
    },
    /// Its section does not say where; a device, a cgroup or whatever it is must be named.
    #[error("the section `{section}` does not say what to attach to")]
    NoTarget {
        /// Its section.
        section: String,
    },
    /// bpfsim cannot do this.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
}

impl Kernel {
    /// Attaches a program: to these hooks, or without any to what its section says
    /// (`bpf_program__attach`). Several hooks are for `kprobe.multi` and its like.
    pub fn attach(
        &mut self,
        prog: ProgId,
        hooks: &[Hook],
        opts: &AttachOpts,
    ) -> Result<LinkId, AttachError> {
        let meta = &self.st.progs[prog.at()];
        let named = match hooks {
            [] => self.section_hooks(meta)?,
            hooks => hooks.to_vec(),
        };
        let mut places = Vec::new();
        let mut cgroup = None;
        for hook in &named {
            let meta = &self.st.progs[prog.at()];
            let refused = |(errno, why)| AttachError::Refused {
                what: hook.to_string(),
                errno,
                why,
            };
            let (hook, of) = match hook {
                Hook::Cgroup {
                    cgroup,
                    what: AttachType::LsmCgroup,
                } => (self.own_hook(meta)?, Some(*cgroup)),
                hook => (hook.clone(), None),
            };
            cgroup = of;
            self.exists(&hook, cgroup).map_err(refused)?;
            let stages = self.stages(meta, &hook, opts)?;
            if let Hook::Iter(name) = &hook {
                self.check_iter(prog, name, &opts.iter)?;
            }
            for stage in stages {
                let (hook, cookie) = (hook.clone(), opts.cookie);
                places.push(Place {
                    hook,
                    stage,
                    cookie,
                });
            }
        }
        let many = places.iter().any(|p| p.stage == Stage::MultiEntry);
        let at_will = |p: &Place| matches!(p.stage, Stage::MultiEntry | Stage::MultiReturn);
        if named.len() > 1 && !places.iter().all(at_will) && !many {
            return Err(AttachError::Refused {
                what: format!("{} hooks at once", named.len()),
                errno: Errno::EINVAL,
                why: None,
            });
        }
        self.link(prog, places, cgroup, opts)
    }

    fn link(
        &mut self,
        prog: ProgId,
        places: Vec<Place>,
        cgroup: Option<CgroupId>,
        opts: &AttachOpts,
    ) -> Result<LinkId, AttachError> {
        let st = &mut self.st;
        let what = places.first().map_or(String::new(), |p| p.hook.to_string());
        let refused = |(errno, why)| AttachError::Refused {
            what: what.clone(),
            errno,
            why,
        };
        if !st.prog_fd_open(prog) {
            return Err(refused((Errno::EBADF, None)));
        }
        let mut link = Link {
            id: LinkId(0),
            prog,
            places,
            flags: opts.flags & (OVERRIDE | MULTI | PREORDER),
            priority: opts.priority,
            cgroup,
            iter: Some(opts.iter),
            is_link: !opts.legacy,
        };
        if !opts.legacy && link.at_cgroup().is_some() {
            link.flags |= MULTI;
        }
        let found = st.find_place(&link, opts).map_err(refused)?;
        if let Some(key) = link.cgroup_key(&st.world) {
            let linked = st.link_cgroup(&mut self.mem, prog, key);
            linked.map_err(|errno| refused((errno, None)))?;
        }
        if !st.refs.get_prog(prog) {
            return Err(refused((Errno::EBADF, None)));
        }
        if let Some(id) = found.instead {
            if let Some(old) = st.links.replace(id, prog) {
                st.refs.put_prog(old);
            }
            return Ok(id);
        }
        link.id = st.links.next();
        let id = link.id;
        st.links.insert(link, found.beside);
        Ok(id)
    }

    /// Detaches what [`Kernel::attach`] attached. `ENOLINK` for what is not attached any more.
    pub fn detach(&mut self, link: LinkId) -> Result<(), Errno> {
        self.st.detach(link)
    }

    /// The name of the program of a link; empty of one that is gone.
    pub fn link_prog_name(&self, link: LinkId) -> String {
        let link = self.st.links.get(link);
        link.map_or(String::new(), |l| {
            self.st.progs[l.prog.at()].name.to_string()
        })
    }

    /// True while a link is attached.
    pub fn is_attached(&self, link: LinkId) -> bool {
        self.st.links.get(link).is_some()
    }

    /// How often what is attached to a hook of a cgroup, or a side of a device, was changed, for
    /// [`AttachOpts::revision`]; of others 0.
    pub fn revision(&self, hook: &Hook) -> u64 {
        let at = match hook {
            Hook::Cgroup { cgroup, what } => Counted::Cgroup(*cgroup, CgroupHook::What(*what)),
            Hook::Tc { .. } => Counted::Tcx(hook.clone()),
            _ => return 0,
        };
        self.st.links.revision(&at)
    }

    /// Programs that a hook runs, in their order.
    pub fn attached(&self, hook: &Hook) -> Vec<ProgId> {
        let by = self.st.current_cgroup();
        let list = self.st.links.run_list(&self.st.world, hook, by);
        list.iter().map(|h| h.prog).collect()
    }

    /// The attach type of a program, for a hook of cgroups.
    pub fn attach_type(&self, prog: ProgId) -> AttachType {
        self.st.progs[prog.at()].attach_type
    }

    /// What a program's section says that it attaches to.
    pub fn own_hooks(&self, prog: ProgId) -> Result<Vec<Hook>, AttachError> {
        self.section_hooks(&self.st.progs[prog.at()])
    }

    /// The one hook of a program that attaches by a BTF id.
    fn own_hook(&self, meta: &ProgMeta) -> Result<Hook, AttachError> {
        let own = self.section_hooks(meta)?.pop();
        own.ok_or_else(|| AttachError::NoTarget {
            section: meta.section.to_string(),
        })
    }

    fn section_hooks(&self, meta: &ProgMeta) -> Result<Vec<Hook>, AttachError> {
        let target = find_section(&meta.section).and_then(|def| attach_target(def, &meta.section));
        let unsupported = |what: String| Err(AttachError::Unsupported { what });
        let Some(target) = target else {
            return match meta.prog_type {
                ProgType::StructOps => {
                    unsupported("struct_ops programs attach with their map".into())
                }
                _ => Err(AttachError::NoTarget {
                    section: meta.section.to_string(),
                }),
            };
        };
        let hook = match target {
            AttachTarget::Btf { name, .. } => {
                let name = name.to_string();
                match (meta.prog_type, meta.attach_type) {
                    (ProgType::Lsm, _) => Hook::Lsm(name),
                    (ProgType::Ext, _) => {
                        return unsupported("freplace: programs in the place of others".into());
                    }
                    (_, AttachType::TraceRawTp) => Hook::RawTracepoint(name),
                    (_, AttachType::TraceIter) => Hook::Iter(name),
                    _ => Hook::Function { name, offset: 0 },
                }
            }
            AttachTarget::Kprobe { function, offset } => Hook::Function {
                name: function.to_string(),
                offset,
            },
            AttachTarget::KprobeMulti(pattern) => return self.functions_like(pattern),
            AttachTarget::Uprobe {
                binary,
                function,
                offset,
            } => Hook::UserFunction {
                binary: binary.to_string(),
                name: function.to_string(),
                offset,
            },
            AttachTarget::UprobeMulti { binary, pattern } => {
                if pattern.contains(['*', '?']) {
                    return unsupported(format!("functions of {binary} like {pattern}: name one"));
                }
                Hook::user_function(binary, pattern)
            }
            AttachTarget::Ksyscall(name) => Hook::function(&format!("__x64_sys_{name}")),
            AttachTarget::Usdt {
                binary,
                provider,
                name,
            } => Hook::Usdt {
                binary: binary.to_string(),
                provider: provider.to_string(),
                name: name.to_string(),
            },
            AttachTarget::Tracepoint { category, name } => Hook::tracepoint(category, name),
            AttachTarget::RawTracepoint(name) => Hook::raw_tracepoint(name),
            AttachTarget::Member(_) => {
                return unsupported("struct_ops programs attach with their map".into());
            }
        };
        Ok(vec![hook])
    }

    /// The kernel's functions that a glob matches.
    fn functions_like(&self, pattern: &str) -> Result<Vec<Hook>, AttachError> {
        let btf = &self.layouts.btf;
        let names = btf.iter().filter(|(_, t)| t.kind() == Kind::Func);
        let mut names: Vec<&str> = names.map(|(id, _)| btf.name_of(id)).collect();
        names.retain(|n| glob(pattern.as_bytes(), n.as_bytes()));
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(AttachError::Refused {
                what: format!("functions like {pattern}"),
                errno: Errno::ENOENT,
                why: None,
            });
        }
        Ok(names.into_iter().map(Hook::function).collect())
    }

    /// Whether the kernel has such a hook.
    fn exists(
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
    fn stages(
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

/// The stages of a kprobe or uprobe.
fn probe_stages(meta: &ProgMeta, hook: &Hook, returns: Option<bool>) -> Vec<Stage> {
    let stem = find_section(&meta.section).map_or("", |def| def.stem());
    let returns = returns.unwrap_or(stem.starts_with("kret") || stem.starts_with("uret"));
    let kernel = matches!(hook, Hook::Function { .. });
    match meta.attach_type {
        AttachType::TraceKprobeSession | AttachType::TraceUprobeSession => match kernel {
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

/// Matches a name as libbpf's `glob_match` does: `*` and `?`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last star, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

impl State {
    /// `bpf_link_detach`
    pub fn detach(&mut self, link: LinkId) -> Result<(), Errno> {
        let link = self.links.remove(link).ok_or(Errno::ENOLINK)?;
        self.refs.put_prog(link.prog);
        Ok(())
    }

    /// `bpf_cgroup_storages_alloc`: the storage that a program has there. It outlives the
    /// attachment, as long as its map and the cgroup are there.
    fn link_cgroup(
        &mut self,
        mem: &mut GuestMem,
        prog: ProgId,
        key: CgroupKey,
    ) -> Result<(), Errno> {
        for map in self.refs.maps_of(prog) {
            self.maps[map.at()].link_cgroup(mem, key)?;
        }
        Ok(())
    }

    /// `cgroup_bpf_release`: a cgroup was removed.
    pub fn detach_cgroup(&mut self, mem: &mut GuestMem, cgroup: CgroupId) {
        while let Some(id) = self.links.first_of_cgroup(cgroup) {
            let _ = self.detach(id);
        }
        let number = self.world.cgroups[cgroup.at()].id;
        for map in &mut self.maps {
            map.unlink_cgroup(mem, number);
        }
    }
}
