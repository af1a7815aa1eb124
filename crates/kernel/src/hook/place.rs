//! Where a link goes among those that are there, and what Linux refuses.

use super::attach::{AttachOpts, Relative, flags};
use super::links::{CgroupHook, Counted, Link, MULTI, OVERRIDE, PREORDER, Place, Stage};
use super::{Hook, LinkId};
use crate::ids::{CgroupId, MapId};
use crate::state::State;
use bpfsim_abi::{AttachType, Errno};

/// Most programs at a function (`BPF_MAX_TRAMP_LINKS`).
const MAX_TRAMPOLINE: usize = 38;
/// Most programs at a tracepoint, a cgroup's hook, a side of a device, a network namespace
/// (`BPF_TRACE_MAX_PROGS`, `BPF_CGROUP_MAX_PROGS`, `BPF_MPROG_MAX`, `netns_bpf_max_progs`).
const MAX_PROGS: usize = 64;

/// Where a link goes, and who is in its way.
pub(super) type Found = Result<Where, (Errno, Option<&'static str>)>;

/// Where a link goes.
#[derive(Default)]
pub(super) struct Where {
    /// Before (true) or after another one; otherwise behind all.
    pub beside: Option<(LinkId, bool)>,
    /// In the place of this one.
    pub instead: Option<LinkId>,
}

pub(super) fn no<T>(errno: Errno) -> Result<T, (Errno, Option<&'static str>)> {
    Err((errno, None))
}

fn because<T>(errno: Errno, why: &'static str) -> Result<T, (Errno, Option<&'static str>)> {
    Err((errno, Some(why)))
}

impl State {
    /// Where a link goes among those that are there, unless Linux refuses it.
    pub(super) fn find_place(&self, link: &Link, opts: &AttachOpts) -> Found {
        let Some(place) = link.places.first() else {
            return no(Errno::EINVAL);
        };
        if let Some((cgroup, hook)) = link.at_cgroup() {
            return self.find_cgroup_place(link, cgroup, &hook, opts);
        }
        if place.stage == Stage::Tcx {
            return self.find_tcx_place(link, place, opts);
        }
        if opts.flags != 0 || opts.relative.is_some() {
            return because(Errno::EINVAL, "flags are for cgroups and tcx");
        }
        let there = self.links.at(&place.hook, place.stage);
        let (count, same) = there.fold((0, false), |(n, same), l| {
            (n + 1, same || l.prog == link.prog)
        });
        let full = count >= MAX_PROGS;
        match (&place.hook, place.stage) {
            (_, Stage::Fentry | Stage::FmodRet | Stage::Fexit) => {
                let all = Stage::of(&place.hook).iter();
                let tramp =
                    all.filter(|s| matches!(s, Stage::Fentry | Stage::FmodRet | Stage::Fexit));
                let count: usize = tramp.map(|&s| self.links.at(&place.hook, s).count()).sum();
                match count {
                    MAX_TRAMPOLINE.. => no(Errno::E2BIG),
                    _ if same => because(Errno::EBUSY, "it is attached there already"),
                    _ => Ok(Where::default()),
                }
            }
            (Hook::Tracepoint { .. }, _) if same => {
                because(Errno::EEXIST, "it is attached there already")
            }
            (Hook::Tracepoint { .. } | Hook::SkLookup, _) if full => no(Errno::E2BIG),
            (Hook::Lwt { .. }, _) if count > 0 => because(Errno::EEXIST, "there is one already"),
            (Hook::FlowDissector, _) if count > 0 => because(Errno::E2BIG, "there is one already"),
            (Hook::PerfEvent(_), _) if count > 0 => because(Errno::EEXIST, "there is one already"),
            (Hook::Xdp { .. }, _) if count > 0 => because(Errno::EBUSY, "there is one already"),
            (Hook::SockMap { map, what }, _) if self.decides_already(*map, *what) => {
                because(Errno::EBUSY, "another kind of verdict is there already")
            }
            (Hook::SockMap { .. } | Hook::Sock(_), _) if count > 0 => {
                let mut there = self.links.at(&place.hook, place.stage);
                let old = there.next().map(|l| l.id);
                match opts.legacy || matches!(place.hook, Hook::Sock(_)) {
                    true => Ok(Where {
                        instead: old,
                        ..Where::default()
                    }),
                    false => because(Errno::EBUSY, "there is one already"),
                }
            }
            (Hook::Netfilter { .. }, _) => {
                let mut there = self.links.at(&place.hook, place.stage);
                if matches!(link.priority, i32::MIN | i32::MAX) {
                    return because(Errno::ERANGE, "the first and the last are the kernel's");
                }
                if there.any(|l| l.priority == link.priority) {
                    return because(Errno::EBUSY, "another one has this priority");
                }
                Ok(Where::default())
            }
            _ => Ok(Where::default()),
        }
    }

    /// `sock_map_prog_lookup`: verdicts about packets of a stream, and about those of any socket, are
    /// not made by one map.
    fn decides_already(&self, map: MapId, what: AttachType) -> bool {
        let other = match what {
            AttachType::SkSkbVerdict => AttachType::SkSkbStreamVerdict,
            AttachType::SkSkbStreamVerdict => AttachType::SkSkbVerdict,
            _ => return false,
        };
        let hook = Hook::SockMap { map, what: other };
        self.links.at(&hook, Stage::Only).next().is_some()
    }

    /// `__cgroup_bpf_attach`
    fn find_cgroup_place(
        &self,
        link: &Link,
        cgroup: CgroupId,
        hook: &CgroupHook,
        opts: &AttachOpts,
    ) -> Found {
        let given = if link.is_link {
            opts.flags | MULTI
        } else {
            opts.flags
        };
        let (multi, replaces) = (given & MULTI != 0, given & flags::REPLACE != 0);
        let sides = flags::BEFORE | flags::AFTER;
        let of_links = sides | PREORDER;
        let bad = given & OVERRIDE != 0 && multi
            || replaces && !multi
            || replaces && given & sides != 0
            || replaces != opts.replace.is_some()
            || link.is_link && opts.flags & !of_links != 0;
        if bad {
            return because(Errno::EINVAL, "these flags do not go together");
        }
        let at = Counted::Cgroup(cgroup, hook.clone());
        if opts.revision != 0 && opts.revision != self.links.revision(&at) {
            return no(Errno::ESTALE);
        }
        if !self.hierarchy_allows(cgroup, hook) {
            return because(Errno::EPERM, "a cgroup above does not let it");
        }
        let own: Vec<&Link> = self.links.of_cgroup(cgroup, hook).collect();
        let saved = given & (OVERRIDE | MULTI);
        if !own.is_empty() && self.links.cgroup_flags(cgroup, hook) != saved {
            return because(Errno::EPERM, "others are attached there with other flags");
        }
        if own.len() >= MAX_PROGS {
            return no(Errno::E2BIG);
        }
        if !multi {
            return Ok(Where {
                instead: own.first().map(|l| l.id),
                ..Where::default()
            });
        }
        let twice = |l: &&&Link| !l.is_link && l.prog == link.prog;
        if !link.is_link
            && own
                .iter()
                .any(|l| twice(&l) && opts.replace != Some(l.prog))
        {
            return because(Errno::EINVAL, "it is attached there already");
        }
        if let Some(old) = opts.replace {
            let found = own.iter().find(|l| !l.is_link && l.prog == old);
            return match found {
                Some(l) => Ok(Where {
                    instead: Some(l.id),
                    ..Where::default()
                }),
                None => no(Errno::ENOENT),
            };
        }
        self.beside_in_cgroup(link, &own, given, opts.relative)
    }

    /// `get_prog_list`: the place that `BPF_F_BEFORE` and `BPF_F_AFTER` mean.
    fn beside_in_cgroup(
        &self,
        link: &Link,
        own: &[&Link],
        given: u32,
        relative: Option<Relative>,
    ) -> Found {
        let (before, after) = (given & flags::BEFORE != 0, given & flags::AFTER != 0);
        let Some(relative) = relative else {
            if before && after && !own.is_empty() {
                return no(Errno::EINVAL);
            }
            let first = own.first().filter(|_| before);
            let last = own.last().filter(|_| !before);
            return Ok(Where {
                beside: first.map(|l| (l.id, true)).or(last.map(|l| (l.id, false))),
                ..Where::default()
            });
        };
        // Links go beside links, programs beside programs.
        let of_kind = matches!(relative, Relative::Link(_)) == link.is_link;
        if before == after || !of_kind {
            return no(Errno::EINVAL);
        }
        let is = |l: &&&Link| match relative {
            Relative::Link(id) => l.id == id,
            Relative::Prog(prog) => !l.is_link && l.prog == prog,
        };
        let Some(anchor) = own.iter().find(is) else {
            return no(Errno::ENOENT);
        };
        if (anchor.flags ^ link.flags) & PREORDER != 0 {
            return because(
                Errno::EINVAL,
                "one is for before cgroups below, the other not",
            );
        }
        Ok(Where {
            beside: Some((anchor.id, before)),
            ..Where::default()
        })
    }

    /// `hierarchy_allows_attach`
    fn hierarchy_allows(&self, cgroup: CgroupId, hook: &CgroupHook) -> bool {
        let parent = |c: CgroupId| self.world.cgroups.get(c.at()).and_then(|c| c.parent);
        let mut at = parent(cgroup);
        while let Some(above) = at {
            let saved = self.links.cgroup_flags(above, hook);
            if saved & MULTI != 0 {
                return true;
            }
            if self.links.of_cgroup(above, hook).next().is_some() {
                return saved & OVERRIDE != 0;
            }
            at = parent(above);
        }
        true
    }

    /// `bpf_mprog_attach`
    fn find_tcx_place(&self, link: &Link, place: &Place, opts: &AttachOpts) -> Found {
        let at = Counted::Tcx(place.hook.clone());
        if opts.revision != 0 && opts.revision != self.links.revision(&at) {
            return no(Errno::ESTALE);
        }
        let there: Vec<&Link> = self.links.at(&place.hook, Stage::Tcx).collect();
        if there.iter().any(|l| l.prog == link.prog) {
            return because(Errno::EEXIST, "it is attached there already");
        }
        let known = flags::BEFORE | flags::AFTER | flags::REPLACE;
        if opts.flags & !known != 0 || link.is_link && opts.flags & flags::REPLACE != 0 {
            return no(Errno::EINVAL);
        }
        let replaced = match (opts.flags & flags::REPLACE != 0, opts.replace) {
            (true, Some(old)) => {
                let at = there.iter().position(|l| l.prog == old && !l.is_link);
                Some(at.ok_or((Errno::ENOENT, None))?)
            }
            (true, None) => return no(Errno::EINVAL),
            (false, _) if there.len() >= MAX_PROGS => return no(Errno::ERANGE),
            (false, _) => None,
        };
        // Positions as Linux counts them: the place in front of the new one, from -1.
        let anchor = match opts.relative {
            None => None,
            Some(relative) => {
                let is = |l: &&Link| match relative {
                    Relative::Link(id) => l.id == id,
                    Relative::Prog(prog) => l.prog == prog,
                };
                let at = there.iter().position(is);
                Some(at.ok_or((Errno::ENOENT, None))? as isize)
            }
        };
        let mut at = replaced.map(|i| i as isize);
        let total = there.len() as isize;
        let sides = [
            (flags::BEFORE, anchor.map_or(-1, |i| i - 1)),
            (flags::AFTER, anchor.map_or(total, |i| i + 1)),
        ];
        for (flag, to) in sides {
            if opts.flags & flag != 0 {
                if at.is_some_and(|at| at != to) {
                    return no(Errno::ERANGE);
                }
                at = Some(to);
            }
        }
        if let Some(i) = replaced {
            return Ok(Where {
                instead: Some(there[i].id),
                ..Where::default()
            });
        }
        if at.is_none() && opts.relative.is_some() {
            return no(Errno::EINVAL);
        }
        let index = match (at, opts.flags & flags::BEFORE != 0) {
            (Some(at), true) => at + 1,
            (Some(at), false) => at,
            (None, _) => total,
        };
        let next = usize::try_from(index).ok().and_then(|i| there.get(i));
        Ok(Where {
            beside: match (next, there.last()) {
                (Some(next), _) => Some((next.id, true)),
                (None, last) => last.map(|l| (l.id, false)),
            },
            ..Where::default()
        })
    }
}
