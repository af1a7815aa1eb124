//! What detectors found: of each kind and pair of places the first.
//!
//! A racy counter is found again and again, in execution after execution in which nobody asks. So
//! what comes is written down as it is, and told apart when somebody does ask or it has become much.

use crate::failure::{Detectors, FailureKind, Report};
use crate::log::{Log, LogMark};
use bpfsim_vm::{Access, AccessKind, Site};
use std::collections::HashSet;

/// Something that a detector found. Plain words side by side: there are hundreds of them.
#[derive(Clone, Copy)]
pub(crate) struct Finding {
    pub at: u64,
    pub by: Site,
    /// The other place, if there is one.
    other: Site,
    /// Of the two that come by the hundred, the access.
    access: Access,
    /// Of a race, what the other access was.
    kind: AccessKind,
    what: What,
    /// The other place is one.
    two: bool,
    /// Of others, the place in [`Findings::kinds`].
    nth: u32,
}

/// The two that come by the hundred, and the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Race,
    Lost,
    Other,
}

impl Finding {
    pub fn other(&self) -> Option<Site> {
        self.two.then_some(self.other)
    }
}

/// All that was found, in order.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Findings {
    detectors: Detectors,
    /// Some of them again and again.
    list: Log<Finding>,
    kinds: Vec<FailureKind>,
    /// The first that ends the run.
    fatal: Option<(Finding, FailureKind)>,
    /// Length of the list at which it is to be looked through.
    much: usize,
}

/// A finding about two places.
#[inline(always)]
fn pair(
    what: What,
    (at, by, other): (u64, &Site, &Site),
    access: Access,
    kind: AccessKind,
) -> Finding {
    Finding {
        at,
        by: *by,
        other: *other,
        access,
        kind,
        what,
        two: true,
        nth: 0,
    }
}

/// So many findings are always kept as they came.
const FEW: usize = 512;

/// What tells findings apart.
#[derive(PartialEq, Eq, Hash)]
struct Key(&'static str, (u32, u32), Option<(u32, u32)>);

impl Findings {
    pub fn new(detectors: Detectors) -> Findings {
        Findings {
            detectors,
            ..Findings::default()
        }
    }

    fn key(&self, f: &Finding) -> Key {
        let kind = match f.what {
            What::Race => "race",
            What::Lost => "lost",
            What::Other => self.kinds[f.nth as usize].name(),
        };
        let place = |site: Site| (site.prog, site.pc);
        Key(kind, place(f.by), f.other().map(place))
    }

    /// Each once.
    fn all(&self) -> Vec<Finding> {
        let mut known = HashSet::new();
        let mut all = self.list.to_vec();
        all.retain(|f| known.insert(self.key(f)));
        all
    }

    fn kind(&self, f: &Finding) -> FailureKind {
        match f.what {
            What::Race => FailureKind::DataRace {
                access: f.access,
                other: f.kind,
            },
            What::Lost => FailureKind::LostUpdate(f.access),
            What::Other => self.kinds[f.nth as usize].clone(),
        }
    }

    /// Each once, with its kind.
    pub fn told(&self) -> Vec<(Finding, FailureKind)> {
        let all = self.all().into_iter();
        all.map(|f| (f, self.kind(&f))).collect()
    }

    /// The list as it is now, in the place of an older mark.
    pub fn mark_in(&mut self, old: &mut LogMark<Finding>) {
        self.list.mark_in(old);
    }

    /// The list as it was; the rest of it is a copy's.
    pub fn restore(&mut self, list: &LogMark<Finding>) {
        self.list.restore(list);
    }

    /// Takes the list out, so that the rest can be copied.
    pub fn take_list(&mut self) -> Log<Finding> {
        std::mem::take(&mut self.list)
    }

    /// Puts it in again.
    pub fn give_list(&mut self, list: Log<Finding>) {
        self.list = list;
    }

    /// The first finding that ends the run.
    #[inline]
    pub fn fatal(&self) -> Option<&(Finding, FailureKind)> {
        self.fatal.as_ref()
    }

    /// Two accesses that nothing orders.
    #[inline]
    pub fn race(&mut self, at: u64, by: &Site, other: &Site, access: Access, kind: AccessKind) {
        let report = self.detectors.data_race;
        if report != Report::Off {
            self.add(report, pair(What::Race, (at, by, other), access, kind));
        }
    }

    /// A store over another one.
    #[inline]
    pub fn lost(&mut self, at: u64, by: &Site, other: &Site, access: Access) {
        let report = self.detectors.lost_update;
        if report != Report::Off {
            self.add(
                report,
                pair(What::Lost, (at, by, other), access, AccessKind::Write),
            );
        }
    }

    pub fn other(&mut self, at: u64, by: &Site, other: Option<&Site>, kind: FailureKind) {
        let report = self.detectors.of(&kind);
        if report != Report::Off {
            let none = Access {
                addr: 0,
                size: 0,
                kind: AccessKind::Read,
            };
            let nowhere = Site::default();
            let places = (at, by, other.unwrap_or(&nowhere));
            let found = Finding {
                two: other.is_some(),
                nth: self.kinds.len() as u32,
                ..pair(What::Other, places, none, AccessKind::Read)
            };
            self.kinds.push(kind);
            self.add(report, found);
        }
    }

    #[inline]
    fn add(&mut self, report: Report, found: Finding) {
        self.list.push(found);
        if report == Report::Fail && self.fatal.is_none() {
            self.end();
        }
        if self.list.len() >= self.much.max(FEW) {
            self.tidy();
        }
    }

    /// What was found last ends the run.
    #[cold]
    fn end(&mut self) {
        let last = self.list.last();
        self.fatal = last.map(|f| (*f, self.kind(f)));
    }

    #[cold]
    fn tidy(&mut self) {
        let mut all = self.all();
        self.much = 2 * all.len();
        let mut kinds = Vec::new();
        for f in &mut all {
            if f.what == What::Other {
                kinds.push(self.kinds[f.nth as usize].clone());
                f.nth = kinds.len() as u32 - 1;
            }
        }
        self.list.replace(all);
        self.kinds = kinds;
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
        let names = |found: &Findings| -> Vec<_> {
            let told = found.told();
            told.iter().map(|(f, kind)| (f.at, kind.name())).collect()
        };
        let expected = [
            "data-race",
            "data-race",
            "unwritten-argument",
            "lost-update",
        ];
        assert_eq!(names(&found), expected.map(|name| (1, name)));
        let fatal = found.fatal().map(|f| f.1.clone());
        assert_eq!(fatal, Some(FailureKind::LostUpdate(access)));
        for at in 3..10_000 {
            found.other(at, &site(1), None, unwritten(0));
            found.lost(at, &site(1), &site(2), access);
        }
        assert!(found.list.len() <= FEW && found.kinds.len() <= FEW);
        assert_eq!(names(&found), expected.map(|name| (1, name)));
        assert_eq!(found.told()[2].1, unwritten(1));
        found.clone_from(&Findings::new(detectors));
        assert!(found.fatal().is_none() && found.told().is_empty());
    }
}
