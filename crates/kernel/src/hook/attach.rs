//! Which programs attach where, and what Linux refuses.

use super::links::{CgroupHook, Counted, Link, MULTI, OVERRIDE, PREORDER, Place};
use super::stage::{Many, many};
use super::{Hook, LinkId};
use crate::ids::{CgroupId, ProgId};
use crate::kernel::Kernel;
use crate::map::CgroupKey;
use crate::prog::ProgMeta;
use crate::state::State;
use bpfsim_abi::{AttachType, Errno};
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
    /// What it gives at each of several functions (`kprobe.multi` and its like), as many as there are; without
    /// any it is `cookie` at all of them.
    pub cookies: Vec<u64>,
    /// Of `uprobe.multi` and `uprobe.session`: the process alone that it runs in, by its number as the test's
    /// task knows it; 0 is any.
    pub pid: u32,
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
    /// (`bpf_program__attach`). Several hooks are for `kprobe.multi`, `uprobe.multi` and their sessions.
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
        self.check_many(meta, &named, opts)?;
        let mut places: Vec<Place> = Vec::new();
        let mut cgroup = None;
        for (nth, hook) in named.iter().enumerate() {
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
            // Functions of the kernel are a set (`ftrace_set_filter_ips`), those of others a list.
            if matches!(hook, Hook::Function { .. }) && places.iter().any(|p| p.hook == hook) {
                continue;
            }
            let cookie = opts.cookies.get(nth).copied().unwrap_or(opts.cookie);
            places.extend(stages.into_iter().map(|stage| Place {
                hook: hook.clone(),
                stage,
                cookie,
                nth,
            }));
        }
        self.link(prog, places, cgroup, opts)
    }

    /// Whether a program may go to so many hooks, and what is said of each.
    fn check_many(
        &self,
        meta: &ProgMeta,
        hooks: &[Hook],
        opts: &AttachOpts,
    ) -> Result<(), AttachError> {
        let many = many(meta.attach_type);
        let binary = |hook: &Hook| match hook {
            Hook::UserFunction { binary, .. } => Some(binary.clone()),
            _ => None,
        };
        let first = hooks.first().and_then(binary);
        let why = if hooks.len() > 1 && many.is_none() {
            "programs of its kind go to one"
        } else if !hooks.iter().all(|hook| binary(hook) == first) {
            "they are not all of one program"
        } else if many.is_none() && !opts.cookies.is_empty() {
            "it takes one cookie"
        } else if !opts.cookies.is_empty() && opts.cookies.len() != hooks.len() {
            "a cookie for each"
        } else {
            return Ok(());
        };
        Err(AttachError::Refused {
            what: match hooks {
                [hook] => hook.to_string(),
                hooks => format!("{} hooks at once", hooks.len()),
            },
            errno: Errno::EINVAL,
            why: Some(why),
        })
    }

    /// The process alone that a program runs in, by the number that the kernel has for it; 0 is any.
    fn process(&self, prog: ProgId, opts: &AttachOpts) -> Result<u32, AttachError> {
        if opts.pid == 0 {
            return Ok(0);
        }
        if many(self.st.progs[prog.at()].attach_type) != Some(Many::User) {
            return Err(AttachError::Unsupported {
                what: "programs in one process alone, but for uprobe.multi and uprobe.session"
                    .into(),
            });
        }
        let pids = self.st.tasks[self.main_task().at()].pid_ns;
        let task = self.st.task_by_pid(opts.pid, pids);
        let task = task.map(|task| &self.st.tasks[task.at()]);
        match task.filter(|t| t.pid == t.tgid) {
            Some(leader) => Ok(leader.tgid),
            None => Err(AttachError::Refused {
                what: format!("process {}", opts.pid),
                errno: Errno::ESRCH,
                why: None,
            }),
        }
    }

    fn link(
        &mut self,
        prog: ProgId,
        places: Vec<Place>,
        cgroup: Option<CgroupId>,
        opts: &AttachOpts,
    ) -> Result<LinkId, AttachError> {
        let process = self.process(prog, opts)?;
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
            process,
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
        for map in self.maps.iter_mut() {
            map.unlink_cgroup(mem, number);
        }
    }
}
