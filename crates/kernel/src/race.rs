//! What orders accesses of executions with each other, and accesses that nothing orders.
//!
//! Happens-before by vector clocks. A clock has a component for each *lane*: one execution at a
//! time on one CPU. What ends on a CPU happens before what begins there later, so a lane is used
//! again and clocks stay as short as there are executions in flight. Edges come from locks, from
//! arming a callback to its beginning, from its end to a cancel that waited, from publishing an
//! element to finding it, from atomic operations to later ones at the same address, and from the
//! test's own code to what it starts.

use crate::ids::{Cpu, TaskId};
use crate::stamped::{Anew, Stamped};
use bpfsim_vm::{Access, AccessKind, Site};
use smallvec::SmallVec;

/// How far each lane had come.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Clock {
    /// Those of the first lanes, of which most tests have no more.
    first: [u32; LANES],
    rest: Vec<u32>,
}

impl Clock {
    #[inline(always)]
    fn at(&self, lane: u16) -> u32 {
        match self.first.get(lane as usize) {
            Some(&at) => at,
            None => self.rest_at(lane),
        }
    }

    #[inline(never)]
    fn rest_at(&self, lane: u16) -> u32 {
        let at = self.rest.get(lane as usize - LANES);
        at.copied().unwrap_or(0)
    }

    fn tick(&mut self, lane: u16) {
        let lane = lane as usize;
        if let Some(at) = self.first.get_mut(lane) {
            *at += 1;
            return;
        }
        let lane = lane - LANES;
        if self.rest.len() <= lane {
            self.rest.resize(lane + 1, 0);
        }
        self.rest[lane] += 1;
    }

    fn join(&mut self, other: &Clock) {
        for (mine, theirs) in self.first.iter_mut().zip(&other.first) {
            *mine = (*mine).max(*theirs);
        }
        if self.rest.len() < other.rest.len() {
            self.rest.resize(other.rest.len(), 0);
        }
        for (mine, theirs) in self.rest.iter_mut().zip(&other.rest) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// A [`Site`] in two words and a half: taken apart it was written a moment ago in pieces, and copied
/// as a whole it would have to reach the cache first.
#[derive(Clone, Copy, Default, Debug)]
struct By {
    ctx: u64,
    /// The program and the instruction.
    place: u64,
    cpu: u32,
}

impl By {
    #[inline(always)]
    fn of(site: &Site) -> By {
        By {
            ctx: site.ctx,
            place: u64::from(site.prog) << 32 | u64::from(site.pc),
            cpu: site.cpu,
        }
    }

    #[inline(always)]
    fn site(&self) -> Site {
        Site {
            ctx: self.ctx,
            cpu: self.cpu,
            prog: (self.place >> 32) as u32,
            pc: self.place as u32,
        }
    }
}

/// An access to a word of memory; none if its clock is 0.
#[derive(Clone, Copy, Default, Debug)]
struct Rec {
    by: By,
    /// Of its lane, when it was made.
    clock: u32,
    /// Stores to the word so far.
    seq: u32,
}

/// Lanes whose accesses to a word have places of their own.
const LANES: usize = 4;
/// Places of a lane: of its last read, write and atomic operation.
const READ: usize = 0;
const WRITE: usize = 1;
const RMW: usize = 2;

/// The last accesses to a word, of each lane and kind.
#[derive(Default, Debug)]
struct Cell {
    seq: u32,
    /// Bytes of the word: those of all accesses.
    mask: u8,
    /// Lanes with places that were used.
    lanes: u8,
    recs: [[Rec; 3]; LANES],
    /// All of them, where accesses are to different bytes or there are more lanes.
    mixed: Vec<Mixed>,
}

impl Clone for Cell {
    fn clone(&self) -> Cell {
        let mut new = Cell::default();
        new.clone_from(self);
        new
    }

    fn clone_from(&mut self, from: &Cell) {
        let (was, lanes) = (self.lanes as usize, from.lanes as usize);
        self.recs[..lanes].copy_from_slice(&from.recs[..lanes]);
        if was > lanes {
            self.recs[lanes..was].fill_with(Default::default);
        }
        (self.seq, self.mask, self.lanes) = (from.seq, from.mask, from.lanes);
        self.mixed.clone_from(&from.mixed);
    }
}

/// An access of a lane to some bytes.
#[derive(Clone, Copy, Debug)]
struct Mixed {
    rec: Rec,
    lane: u16,
    mask: u8,
    kind: AccessKind,
}

impl Anew for Cell {
    fn anew(&mut self) {
        self.recs[..self.lanes as usize].fill_with(Default::default);
        (self.seq, self.mask, self.lanes) = (0, 0, 0);
        self.mixed.clear();
    }
}

impl Anew for Clock {
    fn anew(&mut self) {
        self.first = [0; LANES];
        self.rest.clear();
    }
}

/// What a pair of accesses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// Nothing orders them.
    Race(AccessKind),
    /// This one stores over the other, made since this execution loaded the value.
    Lost,
}

/// The state of the detectors of races.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Detector {
    /// By lane.
    lanes: Vec<Clock>,
    /// All that ended, by CPU.
    ended: Vec<Clock>,
    /// All that ended, by task.
    tasks: Vec<(TaskId, Clock)>,
    /// What the test's own code comes after.
    user: Clock,
    /// Locks, slots, elements and atomics, by address.
    sync: Stamped<Clock>,
    cells: Stamped<Cell>,
}

/// The lane of an execution that has none yet.
pub(crate) const NO_LANE: u16 = u16::MAX;

/// Lanes that there are, by their CPUs, and which of them an execution is in.
#[derive(Default, Debug)]
pub(crate) struct Lanes(SmallVec<[(Cpu, bool); 4]>);

impl Clone for Lanes {
    fn clone(&self) -> Self {
        Lanes(self.0.clone())
    }

    #[inline]
    fn clone_from(&mut self, from: &Self) {
        if self.0.len() == from.0.len() {
            return self.0.copy_from_slice(&from.0);
        }
        self.0.clear();
        self.0.extend_from_slice(&from.0);
    }
}

impl Lanes {
    /// A lane for an execution that begins.
    pub fn begin(&mut self, cpu: Cpu) -> u16 {
        let free = self.0.iter().position(|l| *l == (cpu, false));
        let lane = free.unwrap_or_else(|| {
            self.0.push((cpu, false));
            self.0.len() - 1
        });
        self.0[lane].1 = true;
        lane as u16
    }

    /// It ends.
    pub fn end(&mut self, lane: u16) {
        if let Some(lane) = self.0.get_mut(lane as usize) {
            lane.1 = false;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn cpu(&self, lane: u16) -> Cpu {
        self.0.get(lane as usize).map_or(Cpu(0), |lane| lane.0)
    }
}

impl Detector {
    /// An execution begins in a lane that is nobody's.
    pub fn begin(&mut self, lane: u16, cpu: Cpu, task: Option<TaskId>) {
        while self.lanes.len() <= lane as usize {
            self.lanes.push(Clock::default());
        }
        let clock = &mut self.lanes[lane as usize];
        clock.join(&self.user);
        if let Some(ended) = self.ended.get(cpu.at()) {
            clock.join(ended);
        }
        if let Some((_, before)) = self.tasks.iter().find(|t| Some(t.0) == task) {
            clock.join(before);
        }
        clock.tick(lane);
    }

    /// It ends.
    pub fn end(&mut self, lane: u16, cpu: Cpu, task: TaskId) {
        let Some(clock) = self.lanes.get(lane as usize) else {
            return;
        };
        if self.ended.len() <= cpu.at() {
            self.ended.resize_with(cpu.at() + 1, Clock::default);
        }
        self.ended[cpu.at()].join(clock);
        match self.tasks.iter_mut().find(|t| t.0 == task) {
            Some((_, before)) => before.join(clock),
            None => self.tasks.push((task, clock.clone())),
        }
    }

    /// The test's own code goes on: it comes after all that has ended.
    pub fn paused(&mut self) {
        for ended in &self.ended {
            self.user.join(ended);
        }
    }

    /// All that was done before [`Detector::release`] of an object comes before what follows.
    pub fn acquire(&mut self, lane: u16, object: u64) {
        if let (Some(mine), Some(clock)) =
            (self.lanes.get_mut(lane as usize), self.sync.get(object))
        {
            mine.join(clock);
        }
    }

    /// See [`Detector::acquire`].
    pub fn release(&mut self, lane: u16, object: u64) {
        if let Some(clock) = self.lanes.get_mut(lane as usize) {
            self.sync.entry(object).join(clock);
            clock.tick(lane);
        }
    }

    /// An access to shared memory. `orders` where it acquires and releases.
    #[inline(always)]
    pub fn access(
        &mut self,
        lane: u16,
        by: &Site,
        access: Access,
        orders: bool,
        mut met: impl FnMut(Met, &Site),
    ) {
        if lane as usize >= self.lanes.len() {
            return;
        }
        let within = access.addr & 7;
        let (first, to) = (access.addr - within, within + access.size as u64);
        if orders {
            self.acquire(lane, access.addr);
        }
        let clock = &self.lanes[lane as usize];
        let new = Rec {
            by: By::of(by),
            clock: clock.at(lane),
            seq: 0,
        };
        for word in 0..to.div_ceil(8) {
            let bits = |n: u64| n.saturating_sub(word * 8).min(8);
            let mask = ((1_u16 << bits(to)) - (1 << bits(within))) as u8;
            let cell = self.cells.entry(first + word * 8);
            match cell.is_plain(lane, mask) {
                true => cell.access(lane, clock, &new, access.kind, &mut met),
                false => cell.mix((lane, mask), clock, new, access.kind, &mut met),
            }
        }
        if orders {
            self.release(lane, access.addr);
        }
    }
}

impl Cell {
    /// True when a place tells all of an access, as of those before it.
    #[inline]
    fn is_plain(&mut self, lane: u16, mask: u8) -> bool {
        if self.lanes == 0 && self.mixed.is_empty() {
            self.mask = mask;
        }
        self.mask == mask && (lane as usize) < LANES && self.mixed.is_empty()
    }

    #[inline(always)]
    fn access(
        &mut self,
        lane: u16,
        clock: &Clock,
        new: &Rec,
        kind: AccessKind,
        met: &mut impl FnMut(Met, &Site),
    ) {
        let me = lane as usize % LANES;
        self.lanes = self.lanes.max(me as u8 + 1);
        let read = &self.recs[me][READ];
        let (since, loaded) = (read.seq, read.clock != 0 && read.by.ctx == new.by.ctx);
        let stores = kind == AccessKind::Write;
        let overwrites = stores & loaded & (self.seq > since);
        for l in (0..self.lanes as usize).filter(|&l| l != me) {
            let (recs, known) = (&self.recs[l % LANES], clock.at(l as u16));
            // Whether there is anything at once: each by itself is as good as random.
            let of = |rec: &Rec| (rec.clock > known, overwrites & (rec.seq > since));
            let (read, write, rmw) = (of(&recs[READ]), of(&recs[WRITE]), of(&recs[RMW]));
            let races = (stores & read.0, write.0, stores & rmw.0);
            if !(races.0 | races.1 | races.2 | write.1 | rmw.1) {
                continue;
            }
            if races.0 {
                met(Met::Race(AccessKind::Read), &recs[READ].by.site());
            }
            if races.1 {
                met(Met::Race(AccessKind::Write), &recs[WRITE].by.site());
            }
            if write.1 {
                met(Met::Lost, &recs[WRITE].by.site());
            }
            if races.2 {
                met(Met::Race(AccessKind::Rmw), &recs[RMW].by.site());
            }
            if rmw.1 {
                met(Met::Lost, &recs[RMW].by.site());
            }
        }
        let own = &mut self.recs[me];
        if kind != AccessKind::Read {
            self.seq += 1;
            if loaded {
                // What was loaded is used.
                own[READ].clock = 0;
            }
        }
        own[match kind {
            AccessKind::Read => READ,
            AccessKind::Write => WRITE,
            AccessKind::Rmw => RMW,
        }] = Rec {
            seq: self.seq,
            ..*new
        };
    }

    /// [`Cell::access`] where accesses are not all of the same bytes, or there are many lanes.
    #[cold]
    #[inline(never)]
    fn mix(
        &mut self,
        (lane, mask): (u16, u8),
        clock: &Clock,
        mut new: Rec,
        kind: AccessKind,
        met: &mut impl FnMut(Met, &Site),
    ) {
        for (l, recs) in (0..).zip(&self.recs[..self.lanes as usize]) {
            for (rec, kind) in
                recs.iter()
                    .zip([AccessKind::Read, AccessKind::Write, AccessKind::Rmw])
            {
                if rec.clock != 0 {
                    let (rec, lane, mask) = (*rec, l, self.mask);
                    self.mixed.push(Mixed {
                        rec,
                        lane,
                        mask,
                        kind,
                    });
                }
            }
        }
        self.recs[..self.lanes as usize].fill_with(Default::default);
        self.lanes = 0;
        let writes = |k: AccessKind| k != AccessKind::Read;
        let read = |r: &Mixed| {
            let own = r.lane == lane && r.rec.by.ctx == new.by.ctx;
            own && r.kind == AccessKind::Read && r.mask & mask != 0
        };
        let since = match kind {
            AccessKind::Write => self.mixed.iter().find(|r| read(r)).map(|r| r.rec.seq),
            _ => None,
        };
        for r in &self.mixed {
            if r.lane == lane || r.mask & mask == 0 {
                continue;
            }
            let plain_store = kind == AccessKind::Write || r.kind == AccessKind::Write;
            if plain_store && r.rec.clock > clock.at(r.lane) {
                met(Met::Race(r.kind), &r.rec.by.site());
            }
            if since.is_some_and(|seq| writes(r.kind) && r.rec.seq > seq) {
                met(Met::Lost, &r.rec.by.site());
            }
        }
        if writes(kind) {
            self.seq += 1;
            self.mixed.retain(|r| !read(r));
        }
        new.seq = self.seq;
        let new = Mixed {
            rec: new,
            lane,
            mask,
            kind,
        };
        let same = |r: &&mut Mixed| r.lane == lane && r.kind == kind && r.mask == mask;
        match self.mixed.iter_mut().find(same) {
            Some(r) => *r = new,
            None => self.mixed.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(ctx: u64, pc: u32) -> Site {
        Site {
            ctx,
            pc,
            ..Site::default()
        }
    }

    fn at(addr: u64, size: u8, kind: AccessKind) -> Access {
        Access { addr, size, kind }
    }

    /// Runs accesses `(lane, address, size, kind)` and gives what they met, by their index.
    fn met(races: &mut Detector, ops: &[(u16, u64, u8, AccessKind)]) -> Vec<(usize, Met, u32)> {
        let mut found = Vec::new();
        for (i, &(lane, addr, size, kind)) in ops.iter().enumerate() {
            let by = site(lane as u64, i as u32);
            races.access(
                lane,
                &by,
                at(addr, size, kind),
                kind == AccessKind::Rmw,
                |m, other| {
                    found.push((i, m, other.pc));
                },
            );
        }
        found
    }

    use AccessKind::{Read, Rmw, Write};

    fn two() -> Detector {
        let mut races = Detector::default();
        races.begin(0, Cpu(0), None);
        races.begin(1, Cpu(1), None);
        races
    }

    #[test]
    fn an_interleaved_increment_is_lost_and_a_race() {
        let ops = [
            (0, 64, 8, Read),
            (1, 64, 8, Read),
            (1, 64, 8, Write),
            (0, 64, 8, Write),
        ];
        let race = |kind| Met::Race(kind);
        let expected = [
            (2, race(Read), 0),
            (3, race(Read), 1),
            (3, race(Write), 2),
            (3, Met::Lost, 2),
        ];
        let mut found = met(&mut two(), &ops);
        // The load of a store that was made is used up.
        found.retain(|f| *f != (3, race(Read), 1));
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|f| *f != (3, race(Read), 1))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn other_bytes_of_a_word_are_other_memory() {
        assert_eq!(met(&mut two(), &[(0, 64, 4, Write), (1, 68, 4, Write)]), []);
        let across = met(&mut two(), &[(0, 64, 8, Write), (1, 70, 4, Write)]);
        assert_eq!(across, [(1, Met::Race(Write), 0)]);
    }

    #[test]
    fn locks_order_and_atomics_order() {
        let mut races = two();
        races.acquire(0, 8);
        assert_eq!(met(&mut races, &[(0, 64, 8, Write)]), []);
        races.release(0, 8);
        races.acquire(1, 8);
        assert_eq!(met(&mut races, &[(1, 64, 8, Write)]), []);

        let ops = [
            (0, 64, 8, Write),
            (0, 128, 8, Rmw),
            (1, 128, 8, Rmw),
            (1, 64, 8, Read),
        ];
        assert_eq!(met(&mut two(), &ops), []);
        let early = [
            (0, 64, 8, Write),
            (1, 128, 8, Rmw),
            (0, 128, 8, Rmw),
            (1, 64, 8, Read),
        ];
        assert_eq!(met(&mut two(), &early), [(3, Met::Race(Write), 0)]);
    }

    #[test]
    fn what_ended_on_a_cpu_comes_first_there_and_nowhere_else() {
        let (mut races, mut lanes) = (Detector::default(), Lanes::default());
        let begin = |races: &mut Detector, lanes: &mut Lanes, cpu| {
            let lane = lanes.begin(cpu);
            races.begin(lane, cpu, None);
            lane
        };
        let a = begin(&mut races, &mut lanes, Cpu(0));
        met(&mut races, &[(a, 64, 8, Write)]);
        races.end(a, Cpu(0), TaskId(0));
        lanes.end(a);
        let b = begin(&mut races, &mut lanes, Cpu(0));
        assert_eq!(a, b, "the lane is used again");
        let c = begin(&mut races, &mut lanes, Cpu(1));
        assert_eq!(
            met(&mut races, &[(c, 64, 8, Read)]),
            [(0, Met::Race(Write), 0)]
        );
        races.paused();
        let d = begin(&mut races, &mut lanes, Cpu(1));
        assert_eq!(met(&mut races, &[(d, 64, 8, Read)]), []);
    }
}
