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

use crate::choose::{Choice, Chooser, Last, Offer, Step, Waiting};
use crate::failure::Failure;
use crate::kernel::{Kernel, Window};
use crate::prefix::Begin;
use crate::run::At;
use crate::sched::Offered;
use crate::snapshot::KernelSnapshot;
use crate::syscall::Paused;

/// Moments that are remembered at most: with many more the processor waits for their memory longer than
/// running takes to what they are of.
const MOST: usize = 128;

/// Steps between two choices that are remembered at most.
const MOST_TOLD: usize = 1 << 12;

/// What is known of executions that begin with one state of a kernel.
#[derive(Default)]
pub struct Beginnings {
    moments: Vec<Moment>,
    /// The seed of the first execution.
    seed: u64,
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
    /// By what was picked, the moment after it; 0 where none is known.
    after: Vec<u32>,
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
    choices: Vec<Choice>,
    what: Vec<At>,
    steady: bool,
    waiting: Vec<Waiting>,
    window: u64,
    chances: bool,
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
            choices: offer.choices.to_vec(),
            what: what.to_vec(),
            steady,
            waiting: offer.waiting.to_vec(),
            window: offer.window,
            chances: offer.chances,
            last: offer.last,
            goes_on: offer.goes_on,
            steps: offer.steps,
            among,
        };
        self.asked.insert(asked).ask(chooser)
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

impl Asked {
    fn ask(&self, chooser: &mut dyn Chooser) -> usize {
        let n = self.choices.len();
        let among = match (self.among, self.goes_on) {
            (true, Some(goes_on)) => chooser.choose_among(n, goes_on, self.steps),
            _ => None,
        };
        let picked = among.unwrap_or_else(|| {
            chooser.choose(&Offer {
                choices: &self.choices,
                waiting: &self.waiting,
                window: self.window,
                chances: self.chances,
                last: self.last,
                goes_on: self.goes_on,
                steps: self.steps,
            })
        });
        picked.min(n - 1)
    }
}

impl Offered {
    /// Offers what was offered then.
    fn offer_again(&mut self, asked: &Asked) {
        self.choices.clear();
        self.choices.extend_from_slice(&asked.choices);
        self.what.clear();
        self.what.extend_from_slice(&asked.what);
        self.waiting.clone_from(&asked.waiting);
        (self.steady, self.chances) = (asked.steady, asked.chances);
    }
}

impl Told {
    fn tell(&self, chooser: &mut dyn Chooser) {
        let begins = self.choices[self.picked].next.begins();
        if self.choices.len() == 1 || begins || chooser.follows() {
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
        let moment = self.moments.get(moment as usize);
        moment.is_some_and(|m| seed == self.seed || !m.kernel.drew())
    }

    /// The last moment that is known of an execution, and what comes then unless it is the end.
    fn follow(&self, chooser: &mut dyn Chooser, seed: u64) -> Option<(usize, Option<usize>)> {
        let mut at = self.is_good(0, seed).then_some(0)?;
        loop {
            let moment = &self.moments[at];
            moment.told.iter().for_each(|told| told.tell(chooser));
            let Some(asked) = &moment.asked else {
                return Some((at, None));
            };
            let picked = asked.ask(chooser);
            match moment.after.get(picked) {
                Some(&next) if next != 0 && self.is_good(next, seed) => at = next as usize,
                _ => return Some((at, Some(picked))),
            }
        }
    }

    fn add(&mut self, moment: Moment, from: Option<(usize, usize)>) {
        let new = self.moments.len();
        if let Some((at, picked)) = from {
            let after = &mut self.moments[at].after;
            after.resize(after.len().max(picked + 1), 0);
            after[picked] = new as u32;
        }
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
            self.offer.offer_again(asked);
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
                kernel: self.snapshot(),
                after: Vec::new(),
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
                kernel: self.snapshot(),
                after: Vec::new(),
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
