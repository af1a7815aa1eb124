//! What detectors found: of each kind and pair of places the first.
//!
//! Nearly every step is an access that detectors of races have to know of, in execution after execution in
//! which nobody asks what they found. So what happens is written down as it comes, and judged when
//! somebody asks, when it has become much, or at once where a race is to end the run.

use crate::failure::{Detectors, FailureKind, Report};
use crate::ids::{Cpu, TaskId};
use crate::log::{Log, LogMark};
use crate::race::{Detector, Lanes, Met, NO_LANE};
use crate::shared::{Apart, Few, Shared};
use bpfsim_vm::{Access, AccessKind, Site};
use std::collections::HashSet;

/// Something that happened which detectors want to know of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Who did it: context, program and instruction.
    ctx: u64,
    place: u64,
    /// Of an access, and the object that is acquired or released; the task of what ends, and plus one of
    /// what begins, if it has one; of other findings, their number.
    addr: u64,
    /// Virtual time.
    at: u64,
    /// Its lane, which has its CPU.
    lane: u16,
    size: u8,
    did: Did,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Did {
    Access(AccessKind),
    /// An access that acquires and releases.
    Order(AccessKind),
    Begin,
    End,
    Paused,
    Acquire,
    Release,
    Other,
}

/// Something that a detector found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding {
    pub at: u64,
    pub by: Site,
    other: Option<Site>,
    what: What,
}

/// The two that come by the hundred, and the others.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Of the other access, what it did.
    Race(Access, AccessKind),
    Lost(Access),
    /// By its place in [`Findings::others`].
    Other(u32),
}

impl Finding {
    pub fn other(&self) -> Option<Site> {
        self.other
    }
}

/// All that happened and was found, in order.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Findings {
    detectors: Detectors,
    lanes: Lanes,
    /// What was not judged yet, and how much of it there may be.
    events: Apart<Log<Event>>,
    most: usize,
    detector: Shared<Detector>,
    /// What was found in what was judged, some of it again and again.
    list: Shared<Vec<Finding>>,
    others: Few<Vec<(Finding, FailureKind)>>,
    /// The first that ends the run.
    fatal: Few<Option<(Finding, FailureKind)>>,
    /// Length of the list at which it is to be looked through.
    much: usize,
}

/// So many events are judged at the latest, where none can end the run.
const MOST_EVENTS: usize = 1024;
/// So many findings are always kept as they came.
const FEW: usize = 512;

/// What tells findings apart.
#[derive(PartialEq, Eq, Hash)]
struct Key(&'static str, (u32, u32), Option<(u32, u32)>);

impl Findings {
    pub fn new(detectors: Detectors) -> Findings {
        let ends = |report| report == Report::Fail;
        Findings {
            detectors,
            most: match ends(detectors.data_race) || ends(detectors.lost_update) {
                true => 1,
                false => MOST_EVENTS,
            },
            ..Findings::default()
        }
    }

    fn key(&self, f: &Finding) -> Key {
        let kind = match f.what {
            What::Race(..) => "race",
            What::Lost(_) => "lost",
            What::Other(nth) => self.others[nth as usize].1.name(),
        };
        let place = |site: Site| (site.prog, site.pc);
        Key(kind, place(f.by), f.other.map(place))
    }

    /// Each once.
    fn tidy(&self, list: &mut Vec<Finding>) {
        let mut known = HashSet::new();
        list.retain(|f| known.insert(self.key(f)));
    }

    fn kind(&self, f: &Finding) -> FailureKind {
        match f.what {
            What::Race(access, other) => FailureKind::DataRace { access, other },
            What::Lost(access) => FailureKind::LostUpdate(access),
            What::Other(nth) => self.others[nth as usize].1.clone(),
        }
    }

    /// Each once, with its kind.
    pub fn told(&self) -> Vec<(Finding, FailureKind)> {
        let (mut detector, mut list) = ((*self.detector).clone(), self.list.to_vec());
        for event in self.events.iter() {
            self.judge(&mut detector, event, &mut |f| list.push(f));
        }
        self.tidy(&mut list);
        list.into_iter().map(|f| (f, self.kind(&f))).collect()
    }

    /// As [`Log::mark_beside`].
    pub fn mark_beside(&mut self) -> LogMark<Event> {
        self.events.mark_beside()
    }

    /// The events as they are now, in the place of an older mark.
    pub fn mark_in(&mut self, old: &mut LogMark<Event>) {
        self.events.mark_in(old);
    }

    /// The events as they were; the rest is a copy's.
    pub fn restore(&mut self, events: &LogMark<Event>) {
        self.events.restore(events);
    }

    /// The first finding that ends the run.
    #[inline]
    pub fn fatal(&self) -> Option<&(Finding, FailureKind)> {
        self.fatal.as_ref()
    }

    /// A lane for an execution that begins.
    pub fn begin(&mut self, cpu: Cpu, task: Option<TaskId>) -> u16 {
        let lane = self.lanes.begin(cpu);
        self.note(
            lane,
            Did::Begin,
            task.map_or(0, |task| u64::from(task.0) + 1),
        );
        lane
    }

    /// It ends.
    pub fn end(&mut self, lane: u16, task: TaskId) {
        self.lanes.end(lane);
        self.note(lane, Did::End, task.0.into());
    }

    /// The test's own code goes on: it comes after all that has ended.
    pub fn paused(&mut self) {
        if !self.lanes.is_empty() {
            self.note(0, Did::Paused, 0);
        }
    }

    /// All that was done before [`Findings::release`] of an object comes before what follows.
    pub fn acquire(&mut self, lane: u16, object: u64) {
        self.note(lane, Did::Acquire, object);
    }

    /// See [`Findings::acquire`].
    pub fn release(&mut self, lane: u16, object: u64) {
        self.note(lane, Did::Release, object);
    }

    /// What has no place and no time.
    fn note(&mut self, lane: u16, did: Did, addr: u64) {
        if lane != NO_LANE {
            self.push(Event {
                ctx: 0,
                place: 0,
                addr,
                at: 0,
                lane,
                size: 0,
                did,
            });
        }
    }

    /// An access to shared memory, in order with others of its kind or not.
    #[inline(always)]
    pub fn access(&mut self, lane: u16, by: &Site, access: Access, orders: bool, at: u64) {
        self.push(Event {
            ctx: by.ctx,
            place: u64::from(by.prog) << 32 | u64::from(by.pc),
            addr: access.addr,
            at,
            lane,
            size: access.size,
            did: match orders {
                true => Did::Order(access.kind),
                false => Did::Access(access.kind),
            },
        });
    }

    /// Something else was found.
    pub fn other(&mut self, at: u64, by: &Site, other: Option<&Site>, kind: FailureKind) {
        let report = self.detectors.of(&kind);
        if report == Report::Off {
            return;
        }
        let nth = self.others.len() as u32;
        let found = Finding {
            at,
            by: *by,
            other: other.copied(),
            what: What::Other(nth),
        };
        self.others.push((found, kind));
        if report == Report::Fail && self.fatal.is_none() {
            *self.fatal = self.others.last().cloned();
        }
        self.push(Event {
            ctx: 0,
            place: 0,
            addr: nth.into(),
            at,
            lane: 0,
            size: 0,
            did: Did::Other,
        });
    }

    #[inline(always)]
    fn push(&mut self, event: Event) {
        self.events.push(event);
        if self.events.len() >= self.most {
            self.judge_all();
        }
    }

    /// What an event shows, by what came before.
    fn judge(&self, detector: &mut Detector, event: &Event, found: &mut dyn FnMut(Finding)) {
        let (lane, addr) = (event.lane, event.addr);
        let cpu = self.lanes.cpu(lane);
        let (kind, orders) = match event.did {
            Did::Access(kind) => (kind, false),
            Did::Order(kind) => (kind, true),
            Did::Begin => {
                let task = addr.checked_sub(1).map(|task| TaskId(task as u32));
                return detector.begin(lane, cpu, task);
            }
            Did::End => return detector.end(lane, cpu, TaskId(addr as u32)),
            Did::Paused => return detector.paused(),
            Did::Acquire => return detector.acquire(lane, addr),
            Did::Release => return detector.release(lane, addr),
            Did::Other => return found(self.others[addr as usize].0),
        };
        let access = Access {
            addr,
            size: event.size,
            kind,
        };
        let by = Site {
            ctx: event.ctx,
            cpu: cpu.0,
            prog: (event.place >> 32) as u32,
            pc: event.place as u32,
        };
        detector.access(lane, &by, access, orders, |met, other| {
            let (report, what) = match met {
                Met::Race(kind) => (self.detectors.data_race, What::Race(access, kind)),
                Met::Lost => (self.detectors.lost_update, What::Lost(access)),
            };
            if report != Report::Off {
                found(Finding {
                    at: event.at,
                    by,
                    other: Some(*other),
                    what,
                });
            }
        });
    }

    #[cold]
    #[inline(never)]
    fn judge_all(&mut self) {
        let mut detector = std::mem::take(&mut *self.detector);
        let mut list = std::mem::take(&mut self.list);
        let new = list.len();
        for event in self.events.iter() {
            self.judge(&mut detector, event, &mut |f| list.push(f));
        }
        self.events.clear();
        let ends = |f: &&Finding| match f.what {
            What::Race(..) => self.detectors.data_race == Report::Fail,
            What::Lost(_) => self.detectors.lost_update == Report::Fail,
            What::Other(_) => false,
        };
        if self.fatal.is_none()
            && let Some(f) = list[new..].iter().find(ends)
        {
            *self.fatal = Some((*f, self.kind(f)));
        }
        if list.len() >= self.much.max(FEW) {
            self.tidy(&mut list);
            self.much = 2 * list.len();
            let mut others = Vec::new();
            for f in list.iter_mut() {
                if let What::Other(nth) = &mut f.what {
                    others.push(self.others[*nth as usize].clone());
                    *nth = others.len() as u32 - 1;
                }
            }
            *self.others = others;
        }
        (*self.detector, self.list) = (detector, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::mix;

    fn site(pc: u32) -> Site {
        Site {
            pc,
            ..Site::default()
        }
    }

    const UNWRITTEN: FailureKind = FailureKind::UnwrittenArgument { arg: 1 };

    fn names(found: &Findings) -> Vec<(u64, &'static str)> {
        let told = found.told();
        told.iter().map(|(f, kind)| (f.at, kind.name())).collect()
    }

    #[test]
    fn of_each_kind_and_pair_of_places_the_first() {
        let stale = FailureKind::Stale {
            addr: 0,
            size: 8,
            write: false,
            recycled: false,
        };
        for lost_update in [Report::Warn, Report::Fail] {
            let detectors = Detectors {
                lost_update,
                stale: Report::Off,
                ..Detectors::default()
            };
            let mut found = Findings::new(detectors);
            let lanes = [0, 1].map(|cpu| found.begin(Cpu(cpu), None));
            let access = |kind| Access {
                addr: 8,
                size: 8,
                kind,
            };
            let (read, write) = (access(AccessKind::Read), access(AccessKind::Write));
            for at in 1..5_000 {
                found.access(lanes[0], &site(1), read, false, at);
                found.access(lanes[1], &site(2), write, false, at);
                found.other(at, &site(1), None, stale.clone());
                found.other(at, &site(1), None, UNWRITTEN);
                found.access(lanes[0], &site(1), write, false, at);
            }
            let expected = [
                "data-race",
                "unwritten-argument",
                "data-race",
                "lost-update",
            ];
            assert_eq!(names(&found), expected.map(|name| (1, name)));
            assert!(found.list.len() <= 2 * FEW && found.others.len() <= FEW + MOST_EVENTS);
            let fatal = found.fatal().map(|f| f.1.clone());
            let ends = (lost_update == Report::Fail).then_some(FailureKind::LostUpdate(write));
            assert_eq!(fatal, ends);
            found.clone_from(&Findings::new(detectors));
            found.restore(&LogMark::default());
            assert!(found.fatal().is_none() && found.told().is_empty());
        }
    }

    /// Random events: judged when somebody asks, each at once, or after going back to a copy, it is
    /// the same that is found.
    #[test]
    fn when_events_are_judged_changes_nothing() {
        for seed in 0..200 {
            let mut random = seed;
            let mut next = |n: u64| {
                random = mix(random, n);
                random % n
            };
            let mut late = Findings::new(Detectors::default());
            let mut at_once = late.clone();
            let mut lanes = Vec::new();
            let mut kept = None;
            for at in 0..next(3_000) {
                let choice = next(40);
                let lane = lanes.get(next(lanes.len().max(1) as u64) as usize).copied();
                let (object, pc, size) = (next(3) * 8, next(4) as u32, 1 << next(4));
                let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Rmw];
                let kind = kinds[next(3) as usize];
                if choice == 0 {
                    let mut mark = LogMark::default();
                    late.mark_in(&mut mark);
                    kept = Some((late.clone(), mark, at_once.clone(), lanes.clone()));
                } else if let (1, Some((was, mark, once, then))) = (choice, &kept) {
                    late.clone_from(was);
                    late.restore(mark);
                    at_once.clone_from(once);
                    lanes.clone_from(then);
                }
                if choice == 2 && lanes.len() < 6 {
                    let (cpu, task) = (Cpu(object as u32 / 8), Some(TaskId(pc)));
                    let lane = late.begin(cpu, task);
                    assert_eq!(at_once.begin(cpu, task), lane);
                    lanes.push(lane);
                }
                for found in [&mut late, &mut at_once] {
                    let access = Access {
                        addr: object,
                        size,
                        kind,
                    };
                    match (choice, lane) {
                        (3, Some(lane)) => found.end(lane, TaskId(pc)),
                        (4, _) => found.paused(),
                        (5..9, Some(lane)) => found.acquire(lane, object),
                        (9..13, Some(lane)) => found.release(lane, object),
                        (13, _) => found.other(at, &site(pc), Some(&site(1)), UNWRITTEN),
                        (_, Some(lane)) => {
                            found.access(lane, &site(pc), access, kind == AccessKind::Rmw, at);
                        }
                        (_, None) => {}
                    }
                }
                at_once.judge_all();
                if choice == 3 {
                    lanes.retain(|&l| Some(l) != lane);
                }
            }
            let told = |found: &Findings| -> Vec<_> {
                let told = found.told().into_iter();
                told.map(|(f, kind)| (f.at, f.by, f.other, kind)).collect()
            };
            assert_eq!(told(&late), told(&at_once), "seed {seed}");
        }
    }
}
