//! The way to a refusal: which instructions the walk came through, and what each changed.

use crate::reg::Reg;
use crate::state::{Frame, State};

/// Most changes of registers that are kept: the oldest are forgotten.
const MAX_CHANGES: usize = 1 << 18;

/// An instruction that was walked over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub insn: usize,
    /// How many calls deep.
    pub depth: usize,
}

/// What a register holds once a step is done.
pub(crate) struct Change {
    /// Index of the step.
    pub step: usize,
    /// Depth of the frame that the register is of.
    pub depth: usize,
    pub reg: usize,
    pub now: Reg,
}

/// What tells a frame from others.
type FrameId = (usize, u32, i32);

/// The way from a function's entry to where the walk is now.
#[derive(Default)]
pub(crate) struct Trace {
    pub steps: Vec<Step>,
    pub changes: Vec<Change>,
    /// The frame on top before the last step, and its registers.
    pub before: Option<(FrameId, [Reg; 11])>,
    /// What the function's registers held at its start.
    pub entry: [Reg; 11],
    /// The walk came to its end; what is refused now is not about where it was.
    pub done: bool,
}

/// A place on the way that the walk comes back to.
pub(crate) struct Mark {
    len: usize,
    before: Option<(FrameId, [Reg; 11])>,
}

fn id(frame: &Frame, depth: usize) -> FrameId {
    (depth, frame.subprog, frame.callsite)
}

impl Trace {
    /// The instruction at hand is walked over.
    pub fn begin(&mut self, insn: usize, state: &State) {
        let depth = state.curframe();
        let frame = state.top();
        let now = (id(frame, depth), frame.regs);
        if let Some(step) = self.steps.len().checked_sub(1) {
            let same = self.before.as_ref().filter(|b| b.0 == now.0);
            for (reg, held) in frame.regs.iter().enumerate() {
                if same.is_some_and(|b| b.1[reg] == *held) {
                    continue;
                }
                self.changes.push(Change {
                    step,
                    depth,
                    reg,
                    now: *held,
                });
            }
            if self.changes.len() > MAX_CHANGES {
                self.changes.drain(..MAX_CHANGES / 2);
            }
        }
        if self.steps.is_empty() {
            self.entry = frame.regs;
        }
        self.steps.push(Step { insn, depth });
        self.before = Some(now);
    }

    /// Where the walk is.
    pub fn mark(&self) -> Mark {
        Mark {
            len: self.steps.len(),
            before: self.before,
        }
    }

    /// The walk goes on from there.
    pub fn back(&mut self, mark: &Mark) {
        self.steps.truncate(mark.len);
        let last = mark.len.saturating_sub(1);
        let keep = self.changes.partition_point(|c| c.step < last);
        self.changes.truncate(keep);
        self.before = mark.before;
    }

    /// What a step made of the registers of the frame then on top.
    pub fn changes_of(&self, step: usize) -> &[Change] {
        let from = self.changes.partition_point(|c| c.step < step);
        let to = self.changes.partition_point(|c| c.step <= step);
        &self.changes[from..to]
    }

    /// What a register holds once a step is done.
    pub fn after(&self, step: usize, depth: usize, reg: usize) -> Option<&Reg> {
        let mut of = self.changes_of(step).iter();
        of.find(|c| c.reg == reg && c.depth == depth)
            .map(|c| &c.now)
    }

    /// What a register held before a step, as far back as its frame reaches.
    pub fn held(&self, step: usize, depth: usize, reg: usize) -> Option<&Reg> {
        for at in (0..step).rev() {
            if let Some(found) = self.after(at, depth, reg) {
                return Some(found);
            }
            if self.steps[at].depth < depth {
                return None;
            }
        }
        self.entry.get(reg).filter(|_| depth == 0)
    }
}
