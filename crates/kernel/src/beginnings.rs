//! How executions of a test begin whose orders are drawn.
//!
//! Two of them make the same choices for a while, the longer the more there have been: of a thousand
//! orders many begin with the same ten choices. So the kernel is remembered at some of the choices that
//! came, as a tree; a later execution asks its chooser for one choice after the other along the tree, and
//! goes on from the last that is known. The chooser hears all that it would hear otherwise. Whole
//! executions may be known so, where a test has few orders.
//!
//! This is of the stretch after what a test begins with, which user space has had no part in. For
//! searches, which say themselves what they go back to, there is [`Prefix`](crate::prefix::Prefix).

use crate::choose::{Choice, Chooser, Last, Offer, Step};
use crate::failure::Failure;
use crate::kernel::{Kernel, Window};
use crate::prefix::Begin;
use crate::run::At;
use crate::sched::Given;
use crate::snapshot::KernelSnapshot;
use crate::syscall::Paused;
use bpfsim_vm::Moment as Kind;
use smallvec::SmallVec;

/// Moments that are remembered at most: with many more the processor waits for their memory longer than
/// running takes to what they are of.
const MOST: usize = 128;

/// Steps between two choices that are remembered at most.
const MOST_TOLD: usize = 1 << 9;

/// What is known of executions that begin with one state of a kernel.
#[derive(Default)]
pub struct Beginnings {
    /// The tree, small enough to be at hand as a whole.
    tree: Vec<Node>,
    moments: Vec<Moment>,
    /// The seed of the first execution.
    seed: u64,
}

/// Of the [`Moment`] with the same number, what there is to know to go past it.
struct Node {
    among: Option<Among>,
    /// Of the steps since the choice before there are some that all choosers are told of.
    told: bool,
    /// Random values were drawn until then.
    drew: bool,
    /// By what was picked, the moment after it; 0 where none is known.
    after: SmallVec<[u32; 4]>,
}

/// What [`Chooser::choose_among`] is asked.
#[derive(Clone, Copy)]
struct Among {
    choices: usize,
    goes_on: usize,
    steps: usize,
}

/// A choice, or the end of the stretch.
struct Moment {
    /// Steps since the choice before.
    told: Vec<Told>,
    /// `None` at the end.
    asked: Option<Asked>,
    /// What [`Kernel::step`] was called with.
    until: Option<u64>,
    kernel: KernelSnapshot,
}

/// A step that choosers are told of.
struct Told {
    choices: Vec<Choice>,
    picked: usize,
    window: u64,
    steps: usize,
}

/// An [`Offer`] that choosers are asked to choose from.
pub(crate) struct Asked {
    given: Given,
    window: u64,
    last: Option<Last>,
    goes_on: Option<usize>,
    steps: usize,
    /// [`Chooser::choose_among`] is asked first.
    among: bool,
}

/// What an execution adds.
#[derive(Default)]
pub(crate) struct Growing {
    /// The choice that it went on from, and what it picked.
    from: Option<(usize, usize)>,
    /// It has the seed of the first, so that random values may have been drawn.
    draws: bool,
    told: Vec<Told>,
    asked: Option<Asked>,
    made: Option<Moment>,
}

impl Growing {
    /// The next choice is to be remembered.
    pub fn waits(&self) -> bool {
        self.made.is_none()
    }

    /// Asks the chooser.
    pub fn ask(
        &mut self,
        offer: &Offer<'_>,
        (what, steady): (&[At], bool),
        among: bool,
        chooser: &mut dyn Chooser,
    ) -> usize {
        let asked = Asked {
            given: Given {
                choices: offer.choices.to_vec(),
                what: what.to_vec(),
                waiting: offer.waiting.to_vec(),
                steady,
                chances: offer.chances,
            },
            window: offer.window,
            last: offer.last,
            goes_on: offer.goes_on,
            steps: offer.steps,
            among,
        };
        let asked = self.asked.insert(asked);
        let among = asked.among().and_then(|among| among.ask(chooser));
        among.unwrap_or_else(|| asked.ask(chooser))
    }

    /// A step was taken. False where there were too many for them to be remembered.
    pub fn note(&mut self, choices: &[Choice], picked: usize, window: &Window) -> bool {
        self.told.push(Told {
            choices: choices.to_vec(),
            picked,
            window: window.nth,
            steps: window.steps,
        });
        self.told.len() < MOST_TOLD
    }
}

impl Among {
    /// The pick of a chooser that does not want to know more.
    fn ask(&self, chooser: &mut dyn Chooser) -> Option<usize> {
        let picked = chooser.choose_among(self.choices, self.goes_on, self.steps)?;
        Some(picked.min(self.choices - 1))
    }
}

impl Asked {
    /// What is asked first, if anything is.
    fn among(&self) -> Option<Among> {
        let among = |goes_on| Among {
            choices: self.given.choices.len(),
            goes_on,
            steps: self.steps,
        };
        self.goes_on.filter(|_| self.among).map(among)
    }

    fn ask(&self, chooser: &mut dyn Chooser) -> usize {
        let given = &self.given;
        let offer = Offer {
            choices: &given.choices,
            waiting: &given.waiting,
            window: self.window,
            chances: given.chances,
            last: self.last,
            goes_on: self.goes_on,
            steps: self.steps,
        };
        chooser.choose(&offer).min(given.choices.len() - 1)
    }
}

impl Told {
    /// Choosers that do not follow each step are told of it, too.
    fn is_for_all(&self) -> bool {
        self.choices.len() == 1 || self.choices[self.picked].next.begins()
    }

    fn tell(&self, chooser: &mut dyn Chooser, follows: bool) {
        if follows || self.is_for_all() {
            chooser.stepped(&Step {
                choices: &self.choices,
                picked: self.picked,
                window: self.window,
                touched: &[],
                steps: self.steps,
            });
        }
    }
}

impl Beginnings {
    /// Random values of other seeds led elsewhere.
    fn is_good(&self, moment: u32, seed: u64) -> bool {
        let node = self.tree.get(moment as usize);
        node.is_some_and(|node| seed == self.seed || !node.drew)
    }

    /// The last moment that is known of an execution, and what comes then unless it is the end.
    fn follow(&self, chooser: &mut dyn Chooser, seed: u64) -> Option<(usize, Option<usize>)> {
        let follows = chooser.follows();
        let mut at = self.is_good(0, seed).then_some(0)?;
        loop {
            let node = &self.tree[at];
            if node.told || follows {
                let told = self.moments[at].told.iter();
                told.for_each(|told| told.tell(chooser, follows));
            }
            let among = node.among.and_then(|among| among.ask(chooser));
            let picked = match (among, &self.moments[at].asked) {
                (Some(picked), _) => picked,
                (None, Some(asked)) => asked.ask(chooser),
                (None, None) => return Some((at, None)),
            };
            match node.after.get(picked) {
                Some(&next) if next != 0 && self.is_good(next, seed) => at = next as usize,
                _ => return Some((at, Some(picked))),
            }
        }
    }

    fn add(&mut self, moment: Moment, from: Option<(usize, usize)>) {
        let new = self.moments.len();
        if let Some((at, picked)) = from {
            let after = &mut self.tree[at].after;
            after.resize(after.len().max(picked + 1), 0);
            after[picked] = new as u32;
        }
        self.tree.push(Node {
            among: moment.asked.as_ref().and_then(Asked::among),
            told: moment.told.iter().any(Told::is_for_all),
            drew: moment.kernel.drew(),
            after: SmallVec::new(),
        });
        self.moments.push(moment);
    }
}

impl Kernel {
    /// Whether the execution that begins now may go on from what others did.
    fn begins_alike(&self) -> bool {
        let c = &self.chooser;
        c.begins_alike()
            && c.explores()
            && !c.records()
            && self.recorder.is_none()
            && self.overrides.is_empty()
            && self.inside.is_none()
    }

    /// Goes to the last moment that is known of an execution that begins with `from`.
    pub(crate) fn begin_from(
        &mut self,
        from: &KernelSnapshot,
        seed: u64,
        known: &mut Beginnings,
    ) -> Begin {
        self.offer.growing = None;
        let alike = self.begins_alike();
        let found = match alike {
            true => known.follow(&mut *self.chooser, seed),
            false => None,
        };
        if alike && known.moments.len() < MOST {
            if known.moments.is_empty() {
                known.seed = seed;
            }
            // Another seed's may be the first already.
            let grows = match found {
                Some((at, Some(picked))) => Some(Some((at, picked))),
                None if known.moments.is_empty() => Some(None),
                _ => None,
            };
            self.offer.growing = grows.map(|from| {
                Box::new(Growing {
                    from,
                    draws: seed == known.seed,
                    ..Growing::default()
                })
            });
        }
        let moment = found.map(|(at, _)| &known.moments[at]);
        let own = self.restore(moment.map_or(from, |m| &m.kernel));
        debug_assert!(own.is_ok(), "snapshots are of this very kernel");
        self.reseed(seed);
        self.offer.decided = found.and_then(|(_, picked)| picked);
        if let Some(asked) = moment.and_then(|m| m.asked.as_ref()) {
            self.offer.offer_again(&asked.given);
        }
        let Some(moment) = moment else {
            self.callbacks = 0;
            return Begin::Anew;
        };
        match self.offer.decided {
            Some(_) => Begin::Middle(moment.until),
            None => Begin::Over(Ok(Paused::Reached)),
        }
    }

    /// A choice was made: it is remembered if it is the first that was not known.
    pub(crate) fn grow(&mut self, until: Option<u64>) {
        let Some(mut growing) = self.offer.growing.take_if(|g| g.waits()) else {
            return;
        };
        if !growing.draws && self.st.seed.is_drawn() {
            // Nobody else could go on from there.
            return;
        }
        if growing.asked.is_some() {
            growing.made = Some(Moment {
                told: std::mem::take(&mut growing.told),
                asked: growing.asked.take(),
                until,
                kernel: self.snapshot_of(Kind::Beside),
            });
        }
        self.offer.growing = Some(growing);
    }

    /// An execution has ended: what it adds is known from here on.
    pub(crate) fn end_from(&mut self, known: &mut Beginnings, result: &Result<Paused, Failure>) {
        let Some(mut growing) = self.offer.growing.take() else {
            return;
        };
        let is_good = growing.draws || !self.st.seed.is_drawn();
        if growing.waits() && is_good && matches!(result, Ok(Paused::Reached)) {
            growing.made = Some(Moment {
                told: std::mem::take(&mut growing.told),
                asked: None,
                until: None,
                kernel: self.snapshot_of(Kind::Beside),
            });
        }
        if let Some(moment) = growing.made {
            known.add(moment, growing.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::{Next, Starts, Usual};
    use crate::ids::{Cpu, CtxId};
    use crate::run::What;
    use crate::sched::Offered;

    /// A program that executes alone takes as many steps as it likes.
    #[test]
    fn steps_without_end_are_not_remembered() {
        let mut offer = Offered::default();
        let next = Next::Start(Starts::Program);
        offer.add(CtxId::USER, Cpu(0), next, 0, What::Continue);
        offer.growing = Some(Box::default());
        let mut window = Window::default();
        for step in 1..2 * MOST_TOLD {
            offer.tell(&mut Usual, &mut window, &[], false);
            assert_eq!(window.steps, step);
            assert_eq!(offer.growing.is_some(), step < MOST_TOLD);
        }
    }
}
