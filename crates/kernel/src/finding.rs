//! What detectors found: of each kind and pair of places the first.
//!
//! A racy counter is found again and again, so what is found is told from what is known before
//! anything is made of it, and going back to nothing found costs nothing.

use crate::failure::{Detectors, FailureKind, Report};
use crate::ids::mix;
use crate::stamped::{Anew, Stamped};
use bpfsim_vm::{Access, AccessKind, Site};

/// Something that a detector found.
#[derive(Clone, Copy)]
pub(crate) struct Finding {
    what: What,
    pub at: u64,
    pub by: Site,
    pub other: Option<Site>,
}

/// The two that come by the hundred, and the others.
#[derive(Clone, Copy)]
enum What {
    Race(Access, AccessKind),
    Lost(Access),
    /// The kind at this place of [`Findings::kinds`].
    Other(u32),
}

/// All that was found, in order.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Findings {
    detectors: Detectors,
    list: Vec<Finding>,
    kinds: Vec<FailureKind>,
    /// By hash of kind and places, the first in the list.
    known: Stamped<First>,
    /// The first that ends the run.
    fatal: Option<u32>,
}

/// A place in the list, from 1; 0 is none.
#[derive(Clone, Copy, Default)]
struct First(u32);

impl Anew for First {
    fn anew(&mut self) {
        self.0 = 0;
    }
}

/// What tells findings of one kind apart.
fn place(site: &Site) -> (u32, u32) {
    (site.prog, site.pc)
}

/// Whether a finding is of this kind.
fn is_like(kinds: &[FailureKind], f: &Finding, what: What, kind: Option<&FailureKind>) -> bool {
    match (f.what, what) {
        (What::Race(..), What::Race(..)) | (What::Lost(_), What::Lost(_)) => true,
        (What::Other(at), What::Other(_)) => {
            kind.is_some_and(|k| k.name() == kinds[at as usize].name())
        }
        _ => false,
    }
}

impl Findings {
    pub fn new(detectors: Detectors) -> Findings {
        Findings {
            detectors,
            ..Findings::default()
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// The first finding that ends the run.
    #[inline]
    pub fn fatal(&self) -> Option<&Finding> {
        self.list.get(self.fatal? as usize)
    }

    pub fn kind(&self, f: &Finding) -> FailureKind {
        match f.what {
            What::Race(access, other) => FailureKind::DataRace { access, other },
            What::Lost(access) => FailureKind::LostUpdate(access),
            What::Other(at) => self.kinds[at as usize].clone(),
        }
    }

    /// Two accesses that nothing orders.
    pub fn race(&mut self, at: u64, by: &Site, other: &Site, access: Access, kind: AccessKind) {
        let report = self.detectors.data_race;
        self.add(report, What::Race(access, kind), None, at, by, Some(other));
    }

    /// A store over another one.
    pub fn lost(&mut self, at: u64, by: &Site, other: &Site, access: Access) {
        let report = self.detectors.lost_update;
        self.add(report, What::Lost(access), None, at, by, Some(other));
    }

    pub fn other(&mut self, at: u64, by: &Site, other: Option<&Site>, kind: FailureKind) {
        let report = self.detectors.of(&kind);
        let what = What::Other(self.kinds.len() as u32);
        self.add(report, what, Some(kind), at, by, other);
    }

    fn add(
        &mut self,
        report: Report,
        what: What,
        kind: Option<FailureKind>,
        at: u64,
        by: &Site,
        other: Option<&Site>,
    ) {
        if report == Report::Off {
            return;
        }
        let kinds = &self.kinds;
        let same = |f: &Finding| {
            place(&f.by) == place(by)
                && f.other.as_ref().map(place) == other.map(place)
                && is_like(kinds, f, what, kind.as_ref())
        };
        let word = |(prog, pc): (u32, u32)| u64::from(prog) << 32 | u64::from(pc);
        let tag = match what {
            What::Race(..) => 1,
            What::Lost(_) => 2,
            What::Other(_) => 3,
        };
        let key = mix(
            word(place(by)) ^ tag << 62,
            other.map_or(0, |o| word(place(o))),
        );
        let first = &mut self.known.entry(key).0;
        if *first == 0 {
            *first = self.list.len() as u32 + 1;
        } else if self.list[*first as usize - 1..].iter().any(same) {
            // Others with this hash may come between.
            return;
        }
        if report == Report::Fail && self.fatal.is_none() {
            self.fatal = Some(self.list.len() as u32);
        }
        self.kinds.extend(kind);
        self.list.push(Finding {
            what,
            at,
            by: *by,
            other: other.copied(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(pc: u32) -> Site {
        Site {
            pc,
            ..Site::default()
        }
    }

    #[test]
    fn of_each_kind_and_pair_of_places_the_first() {
        let detectors = Detectors {
            lost_update: Report::Fail,
            stale: Report::Off,
            ..Detectors::default()
        };
        let mut found = Findings::new(detectors);
        let access = Access {
            addr: 8,
            size: 8,
            kind: AccessKind::Write,
        };
        let stale = FailureKind::Stale {
            addr: 0,
            size: 8,
            write: false,
            recycled: false,
        };
        let unwritten = |arg| FailureKind::UnwrittenArgument { arg };
        for at in [1, 2] {
            found.race(at, &site(1), &site(2), access, AccessKind::Read);
            found.race(at, &site(2), &site(1), access, AccessKind::Read);
            found.other(at, &site(1), None, stale.clone());
            found.other(at, &site(1), None, unwritten(at as u8));
            found.lost(at, &site(1), &site(2), access);
        }
        let kinds: Vec<_> = found.iter().map(|f| (f.at, found.kind(f).name())).collect();
        let expected = [
            "data-race",
            "data-race",
            "unwritten-argument",
            "lost-update",
        ];
        assert_eq!(kinds, expected.map(|name| (1, name)));
        let fatal = found.fatal().map(|f| found.kind(f));
        assert_eq!(fatal, Some(FailureKind::LostUpdate(access)));
        let copy = found.clone();
        found.clone_from(&Findings::new(detectors));
        assert!(found.fatal().is_none() && found.iter().next().is_none());
        found.clone_from(&copy);
        found.lost(9, &site(1), &site(2), access);
        assert_eq!(found.iter().count(), 4);
    }
}
