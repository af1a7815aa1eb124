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
use crate::snapshot::KernelSnapshot;
use crate::syscall::{Goal, Paused, SysOp};
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
    /// Memory of dropped ones.
    spare: Vec<KernelSnapshot>,
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
}

/// A stretch for which user space lets the simulation go on.
struct Stretch {
    goal: Goal,
    /// Hash of the trace before it and of what user space had done, and choices made.
    trace: u64,
    before: usize,
    end: Option<End>,
}

/// How a stretch ended.
struct End {
    /// Choices made until then.
    choices: usize,
    result: Result<Paused, Failure>,
    kernel: KernelSnapshot,
}

struct Point {
    choice: usize,
    /// What [`Kernel::step`] was called with.
    until: Option<u64>,
    kernel: KernelSnapshot,
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
    fn drop_points(&mut self, from: usize) {
        let keep = self.points.partition_point(|p| p.choice < from);
        self.spare
            .extend(self.points.drain(keep..).map(|p| p.kernel));
    }
}

impl Kernel {
    /// From here on the kernel is remembered before each choice and after each stretch, for
    /// [`Kernel::again`]. Call it in the state that executions begin with.
    pub fn remember(&mut self) {
        self.prefix = Some(Box::default());
    }

    /// An execution begins that is not remembered: what was before it still is.
    pub fn begin_alone(&mut self) {
        if let Some(prefix) = &mut self.prefix {
            prefix.alone = true;
        }
    }

    /// What is remembered, if this execution has to do with it.
    fn take_prefix(&mut self) -> Option<Box<Prefix>> {
        self.prefix.take_if(|p| !p.alone)
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
    }

    /// A stretch begins.
    pub(crate) fn begin_stretch(&mut self, goal: Goal) -> Begin {
        // What the test does itself, or has recorded, is to be done each time.
        if self.recorder.is_some() || !self.overrides.is_empty() {
            self.prefix = None;
        }
        let Some(mut prefix) = self.take_prefix() else {
            return Begin::Anew;
        };
        let begin = self.begin_remembered(&mut prefix, goal);
        self.prefix = Some(prefix);
        begin
    }

    fn begin_remembered(&mut self, prefix: &mut Prefix, goal: Goal) -> Begin {
        let trace = mix(self.st.trace.hash(), self.window.calls);
        let before = prefix.choices;
        let at = prefix.at;
        if !prefix.differs
            && let Some(known) = prefix.stretches.get(at)
            && (known.goal, known.trace, known.before) == (goal, trace, before)
        {
            if let Some(end) = &known.end
                && end.choices <= prefix.keep
                && self.restore(&end.kernel).is_ok()
            {
                prefix.choices = end.choices;
                prefix.at += 1;
                self.chooser.passed(end.choices, self.window.steps);
                return Begin::Over(end.result.clone());
            }
            prefix.differs = true;
            prefix.running = true;
            prefix.stretches.truncate(at + 1);
            prefix.stretches[at].end = None;
            prefix.drop_points(prefix.keep + 1);
            if let Some(point) = prefix.points.last()
                && point.choice >= before
                && self.restore(&point.kernel).is_ok()
            {
                prefix.choices = point.choice;
                self.chooser.passed(point.choice, self.window.steps);
                return Begin::Middle(point.until);
            }
            return Begin::Anew;
        }
        prefix.differs = true;
        prefix.running = true;
        prefix.stretches.truncate(at);
        prefix.drop_points(before);
        prefix.stretches.push(Stretch {
            goal,
            trace,
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
                prefix.stretches.truncate(prefix.at);
                let before = prefix.stretches.last();
                let before = before.and_then(|s| s.end.as_ref()).map_or(0, |e| e.choices);
                prefix.drop_points(before);
            } else if let Some(stretch) = prefix.stretches.get_mut(prefix.at) {
                stretch.end = Some(End {
                    choices,
                    result: result.clone(),
                    kernel: self.snapshot(),
                });
                prefix.at += 1;
            }
        }
        self.prefix = Some(prefix);
    }

    /// User space makes a call: a test that makes another one than the last time is not gone back
    /// in.
    pub(crate) fn note_call(&mut self, op: &SysOp) {
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
            let kernel = match prefix.spare.pop() {
                Some(mut old) => {
                    self.snapshot_into(&mut old);
                    old
                }
                None => self.snapshot(),
            };
            prefix.points.push(Point {
                choice,
                until,
                kernel,
            });
            if prefix.points.len() > MOST_POINTS {
                let mut nth = 0;
                prefix.points.retain(|_| {
                    nth += 1;
                    nth % 2 == 1
                });
            }
        }
        prefix.choices += 1;
        self.prefix = Some(prefix);
    }
}
