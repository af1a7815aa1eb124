//! Going back to a choice instead of running a test again up to it.
//!
//! A search makes many executions of one test, each of which makes the first choices of the one
//! before. The test's own code cannot be gone back in, so it runs again from its start. But each
//! stretch for which it lets the simulation go on ([`Kernel::run`]) and whose choices are all the
//! same leads to where it led before: the kernel as it was then is put in its place. In the stretch
//! with the first choice that differs, the kernel as it was before that choice goes on.
//!
//! Stretches in which code of user space has turns are run again: futures cannot be copied.

use crate::failure::Failure;
use crate::ids::mix;
use crate::kernel::Kernel;
use crate::sched::Given;
use crate::snapshot::KernelSnapshot;
use crate::syscall::{Goal, Paused};
use bpfsim_vm::Moment;
use std::hash::{Hash, Hasher};

/// Snapshots before choices that are kept at most: with more, each second one goes, and going back
/// to its choice begins at the one before.
const MOST_POINTS: usize = 1 << 12;

/// What is remembered of the last execution.
#[derive(Default)]
pub(crate) struct Prefix {
    stretches: Vec<Stretch>,
    /// Snapshots before choices, in order.
    points: Vec<Point>,
    /// Memory of dropped ones. Boxes, since it moves to and fro.
    #[allow(clippy::vec_box, reason = "they move")]
    spare: Vec<Box<Kept>>,
    /// The stretch that comes next, or runs.
    at: usize,
    /// Choices made in this execution.
    choices: usize,
    /// So many first choices are those of the last execution.
    keep: usize,
    /// This execution has come to where it is another one.
    differs: bool,
    /// A stretch runs that can be gone back in.
    running: bool,
    /// An execution runs that is not remembered.
    alone: bool,
    /// Most stretches that came before another one.
    most: usize,
}

/// A stretch for which user space lets the simulation go on.
struct Stretch {
    goal: Goal,
    /// Hash of the trace before it and of what user space had done, and choices made.
    moment: u64,
    before: usize,
    end: Option<End>,
}

/// How a stretch ended.
struct End {
    /// Choices made until then.
    choices: usize,
    result: Result<Paused, Failure>,
    /// Only where another stretch is expected to come.
    kept: Option<Box<Kept>>,
}

struct Point {
    choice: usize,
    /// What [`Kernel::step`] was called with.
    until: Option<u64>,
    kept: Box<Kept>,
}

/// The kernel as it was, and of a choice what there was to choose from.
struct Kept {
    kernel: KernelSnapshot,
    given: Given,
}

/// How a stretch begins.
pub(crate) enum Begin {
    /// It is over: nothing in it differs.
    Over(Result<Paused, Failure>),
    /// In the middle.
    Middle(Option<u64>),
    /// At its beginning.
    Anew,
}

/// A hash that is the same on all machines.
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let word = word.iter().fold(0, |n, &b| n << 8 | u64::from(b));
            self.0 = mix(self.0, word);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Prefix {
    /// An execution runs that is not remembered.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    fn drop_points(&mut self, from: usize) {
        while let Some(point) = self.points.pop_if(|p| p.choice >= from) {
            self.spare.push(point.kept);
        }
    }

    /// What is known of stretches from this one on is no more.
    fn drop_stretches(&mut self, from: usize) {
        while self.stretches.len() > from {
            let end = self.stretches.pop().and_then(|s| s.end);
            self.spare.extend(end.and_then(|e| e.kept));
        }
    }

    /// The kernel as it is now.
    fn keep(&mut self, kernel: &mut Kernel) -> Box<Kept> {
        match self.spare.pop() {
            Some(mut old) => {
                kernel.snapshot_into(&mut old.kernel);
                old
            }
            None => Box::new(Kept {
                kernel: kernel.snapshot_of(Moment::OnTheWay),
                given: Given::default(),
            }),
        }
    }
}

impl Kernel {
    /// From here on the kernel is remembered before each choice and after each stretch, for
    /// [`Kernel::again`]. Call it in the state that executions begin with.
    pub fn remember(&mut self) {
        let mut spare = Vec::new();
        if let Some(old) = &mut self.prefix {
            old.drop_points(0);
            old.drop_stretches(0);
            spare = std::mem::take(&mut old.spare);
        }
        self.prefix = Some(Box::new(Prefix {
            spare,
            ..Prefix::default()
        }));
    }

    /// An execution begins that is not remembered: what was before it still is.
    pub fn begin_alone(&mut self) {
        if let Some(prefix) = &mut self.prefix {
            prefix.alone = true;
        }
    }

    /// What is remembered, if this execution has to do with it.
    fn take_prefix(&mut self) -> Option<Box<Prefix>> {
        let mut prefix = self.prefix.take_if(|p| !p.alone)?;
        prefix.choices += std::mem::take(&mut self.offer.asked);
        Some(prefix)
    }

    /// Another execution begins, in the state that the first one began with: its first `keep`
    /// choices will be what they were in the last one. The chooser is not asked for those that
    /// can be passed over, but [told](crate::Chooser::passed).
    pub fn again(&mut self, keep: usize) {
        let Some(prefix) = &mut self.prefix else {
            return;
        };
        (prefix.at, prefix.choices, prefix.keep) = (0, 0, keep);
        (prefix.differs, prefix.running, prefix.alone) = (false, false, false);
        self.offer.asked = 0;
    }

    /// A stretch begins.
    pub(crate) fn begin_stretch(&mut self, goal: Goal) -> Begin {
        self.begin_stretch_at(goal, mix(self.st.trace.hash(), self.window.calls))
    }

    /// A stretch begins, when this had happened and user space had done this.
    pub(crate) fn begin_stretch_at(&mut self, goal: Goal, moment: u64) -> Begin {
        // What the test does itself, or has recorded, is to be done each time.
        if self.recorder.is_some() || !self.overrides.is_empty() {
            self.prefix = None;
        }
        let Some(mut prefix) = self.take_prefix() else {
            return Begin::Anew;
        };
        let begin = self.begin_remembered(&mut prefix, goal, moment);
        self.prefix = Some(prefix);
        begin
    }

    fn begin_remembered(&mut self, prefix: &mut Prefix, goal: Goal, moment: u64) -> Begin {
        let before = prefix.choices;
        let at = prefix.at;
        if !prefix.differs
            && let Some(known) = prefix.stretches.get(at)
            && (known.goal, known.moment, known.before) == (goal, moment, before)
        {
            if let Some(end) = &known.end
                && end.choices <= prefix.keep
                && let Some(kept) = &end.kept
                && self.restore(&kept.kernel).is_ok()
            {
                prefix.choices = end.choices;
                prefix.at += 1;
                self.chooser.passed(end.choices, self.window.steps);
                return Begin::Over(end.result.clone());
            }
            prefix.differs = true;
            prefix.running = true;
            prefix.drop_stretches(at + 1);
            let end = prefix.stretches[at].end.take();
            // What comes after this stretch cannot be gone back to from here.
            let own = end.as_ref().map_or(usize::MAX, |e| e.choices);
            let spare = prefix.spare.len();
            prefix.spare.extend(end.and_then(|e| e.kept));
            prefix.drop_points(own.min(prefix.keep + 1));
            if let Some(point) = prefix.points.last().filter(|p| p.choice >= before)
                && self.restore(&point.kept.kernel).is_ok()
            {
                self.offer.offer_again(&point.kept.given);
                // Later ones, which come first, have what earlier ones have below them.
                let dropped = prefix.spare[spare..].iter_mut();
                dropped.for_each(|kept| kept.kernel.let_go());
                prefix.choices = point.choice;
                self.chooser.passed(point.choice, self.window.steps);
                return Begin::Middle(point.until);
            }
            return Begin::Anew;
        }
        prefix.differs = true;
        prefix.running = true;
        prefix.drop_stretches(at);
        prefix.drop_points(before);
        prefix.most = prefix.most.max(at);
        prefix.stretches.push(Stretch {
            goal,
            moment,
            before,
            end: None,
        });
        Begin::Anew
    }

    /// The stretch is over.
    pub(crate) fn end_stretch(&mut self, result: &Result<Paused, Failure>) {
        let Some(mut prefix) = self.take_prefix() else {
            return;
        };
        if std::mem::take(&mut prefix.running) {
            let choices = prefix.choices;
            if matches!(result, Ok(Paused::User(_))) {
                // What its code does from here on is run again.
                prefix.drop_stretches(prefix.at);
                let before = prefix.stretches.last();
                let before = before.and_then(|s| s.end.as_ref()).map_or(0, |e| e.choices);
                prefix.drop_points(before);
            } else if prefix.at < prefix.stretches.len() {
                // The end of the last one is nothing to go back to.
                let kept = (prefix.at < prefix.most).then(|| prefix.keep(self));
                prefix.stretches[prefix.at].end = Some(End {
                    choices,
                    result: result.clone(),
                    kept,
                });
                prefix.at += 1;
            }
        }
        self.prefix = Some(prefix);
    }

    /// User space makes a call, or does something itself: a test that does something else than the
    /// last time is not gone back in.
    pub(crate) fn note_call(&mut self, op: &impl Hash) {
        if self.prefix.is_some() {
            // A call whose words are all 0 is one, too.
            let mut hasher = Mixed(mix(self.window.calls, 1));
            op.hash(&mut hasher);
            self.window.calls = hasher.finish();
        }
    }

    /// A choice is about to be made.
    pub(crate) fn note_choice(&mut self, until: Option<u64>) {
        let Some(mut prefix) = self.take_prefix() else {
            return;
        };
        let choice = prefix.choices;
        let known = prefix.points.last().is_some_and(|p| p.choice >= choice);
        if prefix.running && !known && self.chooser.comes_back() {
            let mut kept = prefix.keep(self);
            self.offer.keep_in(&mut kept.given);
            prefix.points.push(Point {
                choice,
                until,
                kept,
            });
            if prefix.points.len() > MOST_POINTS {
                let mut nth = 0;
                prefix.points.retain(|_| {
                    nth += 1;
                    nth % 2 == 1
                });
                self.mem.forget_between();
            }
        }
        prefix.choices += 1;
        self.prefix = Some(prefix);
    }
}
