//! The links of a simulation, and the order in which a hook runs its programs.

use super::Hook;
use crate::ids::{CgroupId, ProgId};
use crate::map::CgroupKey;
use crate::world::World;
use bpfsim_abi::AttachType;

/// A program's attachment to a hook.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub(crate) u32);

/// A part of what happens at a hook, in which programs of one kind run one after another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Stage {
    /// At the entry of a function.
    Entry,
    /// The same, attached to many functions at once (fprobe).
    MultiEntry,
    Fentry,
    /// `fmod_ret`; at the hook of security modules that return something, these too.
    FmodRet,
    Fexit,
    /// When a function returns, attached to many at once.
    MultiReturn,
    /// When a function returns.
    Return,
    Tcx,
    /// `cls_bpf` that decides itself (`direct-action`).
    Tc,
    /// `lsm_cgroup`, by the cgroup.
    LsmCgroup,
    /// The only stage of a hook.
    Only,
    /// What was redirected is about to leave by a device of a map.
    Devmap,
    /// What was redirected has come to a CPU of a map.
    Cpumap,
}

/// In which order the links of a stage run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    OldestFirst,
    NewestFirst,
    /// Lower priorities first; of equal ones the oldest.
    Priority,
}

impl Stage {
    fn order(self, hook: &Hook) -> Order {
        match (self, hook) {
            // Return probes are a stack: what was hooked last at the entry returns first, and
            // entries run from the newest to the oldest.
            (Stage::Return, Hook::Function { .. }) => Order::OldestFirst,
            // `add_new_kprobe`, `insert_fprobe_node`, `bpf_trampoline_link_prog` and
            // `consumer_add` put what is new in front of what is there.
            (_, Hook::Function { .. } | Hook::UserFunction { .. } | Hook::Usdt { .. })
            | (Stage::Fentry | Stage::FmodRet | Stage::Fexit, _) => Order::NewestFirst,
            (Stage::Tc, _) | (_, Hook::Netfilter { .. }) => Order::Priority,
            _ => Order::OldestFirst,
        }
    }

    /// The stages of a hook in the order in which they come.
    pub fn of(hook: &Hook) -> &'static [Stage] {
        use Stage::*;
        match hook {
            Hook::Function { offset: 0, .. } => &[
                Entry,
                MultiEntry,
                Fentry,
                FmodRet,
                Fexit,
                MultiReturn,
                Return,
            ],
            Hook::Function { .. } => &[Entry],
            Hook::UserFunction { .. } => &[Entry, Return],
            Hook::Lsm(_) => &[Fentry, FmodRet, LsmCgroup, Fexit],
            Hook::Tc { .. } => &[Tcx, Tc],
            _ => &[Only],
        }
    }
}

/// A hook that a link is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub hook: Hook,
    pub stage: Stage,
    pub cookie: u64,
    /// Of its link's hooks, which one.
    pub nth: usize,
}

/// A link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub id: LinkId,
    pub prog: ProgId,
    pub places: Vec<Place>,
    /// `BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI` and `BPF_F_PREORDER`, of one at a cgroup.
    pub flags: u32,
    pub priority: i32,
    /// The cgroup of an `lsm_cgroup` program.
    pub cgroup: Option<CgroupId>,
    /// The process alone that it runs in, by its number; 0 is any.
    pub process: u32,
    /// What an iterator goes over.
    pub iter: Option<super::IterInfo>,
    /// User space has it as a link, not as an attached program.
    pub is_link: bool,
}

/// A program that a hook runs.
#[derive(Clone, Debug)]
pub(crate) struct Hooked {
    pub prog: ProgId,
    pub stage: Stage,
    pub cookie: u64,
    /// The cgroup that it is attached to.
    pub cgroup: Option<CgroupKey>,
    /// Its link, and which of that's hooks this is; none of a struct's member.
    pub link: Option<(LinkId, usize)>,
}

/// All links.
#[derive(Clone, Default, Debug)]
pub(crate) struct Links {
    made: u32,
    /// In the order that each hook's own follow from.
    all: Vec<Link>,
    /// How often what is attached there changed.
    revisions: std::collections::BTreeMap<Counted, u64>,
}

/// A place where changes are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Counted {
    /// A cgroup's hook.
    Cgroup(CgroupId, CgroupHook),
    /// A side of a device.
    Tcx(Hook),
}

/// A hook of a cgroup, whichever the cgroup.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum CgroupHook {
    What(AttachType),
    Lsm(String),
}

/// `BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI`
pub(super) const OVERRIDE: u32 = 1;
pub(super) const MULTI: u32 = 1 << 1;
/// `BPF_F_PREORDER`
pub(super) const PREORDER: u32 = 1 << 6;

impl Link {
    /// The cgroup that it is at, and where there.
    pub fn at_cgroup(&self) -> Option<(CgroupId, CgroupHook)> {
        let place = self.places.first()?;
        match (&place.hook, self.cgroup) {
            (Hook::Cgroup { cgroup, what }, _) => Some((*cgroup, CgroupHook::What(*what))),
            (Hook::Lsm(name), Some(cgroup)) => Some((cgroup, CgroupHook::Lsm(name.clone()))),
            _ => None,
        }
    }

    /// The cgroup that it is at, as storage of cgroups is told apart.
    pub fn cgroup_key(&self, world: &World) -> Option<CgroupKey> {
        let (cgroup, hook) = self.at_cgroup()?;
        let what = match hook {
            CgroupHook::What(what) => what,
            CgroupHook::Lsm(_) => AttachType::LsmCgroup,
        };
        let cgroup = world.cgroups.get(cgroup.at())?.id;
        Some(CgroupKey { cgroup, what })
    }

    /// Where it is at a stage of a hook: a function of a user program may be named more than once.
    fn places_at<'a>(&'a self, hook: &'a Hook, stage: Stage) -> impl Iterator<Item = &'a Place> {
        let places = self.places.iter();
        places.filter(move |p| p.stage == stage && p.hook == *hook)
    }
}

impl Links {
    pub fn get(&self, id: LinkId) -> Option<&Link> {
        self.all.iter().find(|l| l.id == id)
    }

    /// All of them.
    pub fn all(&self) -> &[Link] {
        &self.all
    }

    /// The identity of the next link.
    pub fn next(&mut self) -> LinkId {
        self.made += 1;
        LinkId(self.made - 1)
    }

    /// Adds a link behind all others, or before or behind another.
    pub fn insert(&mut self, link: Link, beside: Option<(LinkId, bool)>) {
        let made = link.clone();
        let anchor = |id| self.all.iter().position(|l| l.id == id);
        match beside.and_then(|(id, before)| Some((anchor(id)?, before))) {
            Some((at, before)) => self.all.insert(at + !before as usize, link),
            None => self.all.push(link),
        }
        self.revise(&made);
    }

    pub fn remove(&mut self, id: LinkId) -> Option<Link> {
        let at = self.all.iter().position(|l| l.id == id)?;
        let link = self.all.remove(at);
        self.revise(&link);
        Some(link)
    }

    /// Puts another program in a link's place.
    pub fn replace(&mut self, id: LinkId, prog: ProgId) -> Option<ProgId> {
        let link = self.all.iter_mut().find(|l| l.id == id)?;
        let old = std::mem::replace(&mut link.prog, prog);
        let link = link.clone();
        self.revise(&link);
        Some(old)
    }

    fn revise(&mut self, link: &Link) {
        let place = link.places.first();
        let tcx = place.filter(|p| p.stage == Stage::Tcx).map(|p| &p.hook);
        let at = match (link.at_cgroup(), tcx) {
            (Some((cgroup, hook)), _) => Counted::Cgroup(cgroup, hook),
            (None, Some(side)) => Counted::Tcx(side.clone()),
            (None, None) => return,
        };
        // A side of a device without programs begins anew.
        let empty = tcx.is_some_and(|side| self.at(side, Stage::Tcx).next().is_none());
        match empty {
            true => drop(self.revisions.remove(&at)),
            false => *self.revisions.entry(at).or_insert(1) += 1,
        }
    }

    /// How often what is attached there changed, from 1.
    pub fn revision(&self, at: &Counted) -> u64 {
        self.revisions.get(at).copied().unwrap_or(1)
    }

    /// The links at a stage of a hook, oldest first.
    pub fn at<'a>(&'a self, hook: &'a Hook, stage: Stage) -> impl Iterator<Item = &'a Link> {
        let all = self.all.iter();
        all.filter(move |l| l.places_at(hook, stage).next().is_some())
    }

    /// The links of a cgroup itself at one of its hooks, in their order.
    pub fn of_cgroup<'a, 'b>(
        &'a self,
        cgroup: CgroupId,
        hook: &'b CgroupHook,
    ) -> impl Iterator<Item = &'a Link> + use<'a, 'b> {
        let all = self.all.iter();
        all.filter(move |l| {
            l.at_cgroup()
                .is_some_and(|(c, h)| c == cgroup && h == *hook)
        })
    }

    /// Some link of a cgroup itself.
    pub fn first_of_cgroup(&self, cgroup: CgroupId) -> Option<LinkId> {
        let mut all = self.all.iter();
        let of = |l: &&Link| l.at_cgroup().is_some_and(|(c, _)| c == cgroup);
        all.find(of).map(|l| l.id)
    }

    /// `cgrp->bpf.flags[atype]`: those of what is attached there.
    pub fn cgroup_flags(&self, cgroup: CgroupId, hook: &CgroupHook) -> u32 {
        let mut links = self.of_cgroup(cgroup, hook);
        links.next().map_or(0, |l| l.flags & (OVERRIDE | MULTI))
    }

    /// `compute_effective_progs`: what runs for a cgroup: its own, then those of cgroups above it
    /// that let others run beside theirs; those with `BPF_F_PREORDER` come first, from the root
    /// down.
    pub fn effective<'a>(
        &'a self,
        world: &World,
        cgroup: CgroupId,
        hook: &CgroupHook,
    ) -> Vec<&'a Link> {
        let (mut first, mut then): (Vec<&Link>, Vec<&Link>) = (Vec::new(), Vec::new());
        let mut at = Some(cgroup);
        while let Some(cgroup) = at {
            let any = !(first.is_empty() && then.is_empty());
            if !any || self.cgroup_flags(cgroup, hook) & MULTI != 0 {
                let own = self.of_cgroup(cgroup, hook);
                let (pre, post): (Vec<_>, Vec<_>) = own.partition(|l| l.flags & PREORDER != 0);
                first.splice(0..0, pre);
                then.extend(post);
            }
            at = world.cgroups.get(cgroup.at()).and_then(|c| c.parent);
        }
        first.extend(then);
        first
    }

    /// What a hook runs, in order. `by` is the cgroup that `lsm_cgroup` programs run for.
    pub fn run_list(&self, world: &World, hook: &Hook, by: CgroupId) -> Vec<Hooked> {
        let mut list = Vec::new();
        for &stage in Stage::of(hook) {
            let at_cgroup = |of: &CgroupHook, cgroup| {
                let links = self.effective(world, cgroup, of).into_iter();
                links.filter_map(|l| Some((l, l.places.first()?))).collect()
            };
            let places: Vec<(&Link, &Place)> = match (hook, stage) {
                (Hook::Cgroup { cgroup, what }, _) => at_cgroup(&CgroupHook::What(*what), *cgroup),
                (Hook::Lsm(name), Stage::LsmCgroup) => {
                    at_cgroup(&CgroupHook::Lsm(name.clone()), by)
                }
                _ => {
                    let all = self.all.iter();
                    let places = all.flat_map(|l| l.places_at(hook, stage).map(move |p| (l, p)));
                    let mut places: Vec<_> = places.collect();
                    match stage.order(hook) {
                        Order::OldestFirst => {}
                        Order::NewestFirst => places.reverse(),
                        Order::Priority => places.sort_by_key(|(l, _)| l.priority),
                    }
                    places
                }
            };
            list.extend(places.into_iter().map(|(link, place)| Hooked {
                prog: link.prog,
                stage,
                cookie: place.cookie,
                cgroup: link.cgroup_key(world),
                link: Some((link.id, place.nth)),
            }));
        }
        list
    }

    /// Whether what a hook would run runs in a process.
    pub fn runs_in(&self, hooked: &Hooked, process: u32) -> bool {
        let link = hooked.link.and_then(|(id, _)| self.get(id));
        link.is_none_or(|l| l.process == 0 || l.process == process)
    }
}
