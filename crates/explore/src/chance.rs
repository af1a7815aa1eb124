//! Chances for strategies that draw: those pick who goes on, and here it is drawn how that comes
//! out.
//!
//! Were the ways to come out as likely as each other, the first allocations of each execution would
//! fail and hardly a later one. So how likely an unusual one is, is drawn anew for each execution:
//! from one of two to one of 32.

use crate::rng::Rng;
use bpfsim_kernel::{Chance, Choice, Chooser, CtxId, Last, Offer, Step};
use smallvec::SmallVec;

/// What came out by chance, named so that it is the same in another order: by the execution and the
/// number of its calls that can come out in several ways, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    ctx: CtxId,
    nth: u32,
    pub(crate) chance: Chance,
}

/// Counts, for each execution, its calls that can come out in several ways.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draws(Vec<(u64, CtxId)>);

impl Draws {
    /// From the choice of this number on there were none.
    pub fn cut(&mut self, number: u64) {
        while self.0.last().is_some_and(|d| d.0 >= number) {
            self.0.pop();
        }
    }

    /// What this choice, of this number, is among them, if it is one.
    pub fn lot(&mut self, number: u64, choices: &[Choice], picked: usize) -> Option<Lot> {
        let choice = &choices[picked];
        let several =
            choice.chance != Chance::Usual || choices.iter().any(|c| c.is_chance_of(choice));
        several.then(|| {
            let (ctx, chance) = (choice.id, choice.chance);
            self.0.push((number, ctx));
            let nth = self.0.iter().filter(|d| d.1 == ctx).count() as u32;
            Lot { ctx, nth, chance }
        })
    }
}

/// Another chooser's order, with these lots.
pub(crate) struct WithLots<C> {
    inner: C,
    lots: Vec<Lot>,
    draws: Draws,
}

impl<C: Chooser> WithLots<C> {
    pub fn new(inner: C, lots: Vec<Lot>) -> WithLots<C> {
        let draws = Draws::default();
        WithLots { inner, lots, draws }
    }
}

impl<C: Chooser> Chooser for WithLots<C> {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let picked = self.inner.choose(offer);
        let lot = match offer.chances && picked < offer.choices.len() {
            true => self.draws.lot(0, offer.choices, picked),
            false => None,
        };
        let known = |l: &&Lot| lot.is_some_and(|lot| (lot.ctx, lot.nth) == (l.ctx, l.nth));
        let Some(lot) = self.lots.iter().find(known) else {
            return picked;
        };
        let usual = &offer.choices[picked];
        let is = |c: &Choice| c.is_chance_of(usual) && c.chance == lot.chance;
        offer.choices.iter().position(is).unwrap_or(picked)
    }

    fn explores(&self) -> bool {
        self.inner.explores()
    }

    fn begins_alike(&self) -> bool {
        self.inner.begins_alike()
    }

    fn follows(&self) -> bool {
        self.inner.follows()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        self.inner.stepped(step);
    }
}

/// Another chooser, and luck.
pub(crate) struct Luck<C> {
    inner: C,
    rng: Rng,
    /// One of so many calls comes out otherwise than usual.
    one_of: u32,
}

impl<C: Chooser> Luck<C> {
    /// Equal seeds have equal luck.
    pub fn new(inner: C, seed: u64) -> Luck<C> {
        let mut rng = Rng::new(bpfsim_kernel::mix(seed, 0x6c75_636b));
        let one_of = 2 << rng.below(5);
        Luck { inner, rng, one_of }
    }

    fn draw(&mut self, choices: &[Choice], picked: usize) -> usize {
        let others = choices.iter().enumerate();
        let others = others.filter(|(_, c)| c.is_chance_of(&choices[picked]));
        let others: SmallVec<[usize; 4]> = others.map(|(i, _)| i).collect();
        match others.len() as u32 {
            0 => picked,
            n if self.rng.below(self.one_of) == 0 => others[self.rng.below(n) as usize],
            _ => picked,
        }
    }
}

impl<C: Chooser> Chooser for Luck<C> {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        if !offer.chances {
            return self.inner.choose(offer);
        }
        let usual = offer.choices.iter().enumerate();
        let usual = usual
            .filter(|(_, c)| c.chance == Chance::Usual)
            .map(|(i, c)| (i, *c));
        let (places, choices): (SmallVec<[usize; 8]>, SmallVec<[Choice; 8]>) = usual.unzip();
        let picked = match choices.len() {
            0 | 1 => 0,
            n => {
                let choices = &choices[..];
                let goes_on = |last: Last| choices.iter().position(|c| last.goes_on(c));
                let offer = Offer {
                    choices,
                    chances: false,
                    goes_on: offer.last.and_then(goes_on),
                    ..*offer
                };
                self.inner.choose(&offer).min(n - 1)
            }
        };
        let picked = places.get(picked).copied().unwrap_or(0);
        self.draw(offer.choices, picked)
    }

    fn explores(&self) -> bool {
        self.inner.explores()
    }

    fn begins_alike(&self) -> bool {
        self.inner.begins_alike()
    }

    fn follows(&self) -> bool {
        self.inner.follows()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        self.inner.stepped(step);
    }

    fn records(&self) -> bool {
        self.inner.records()
    }
}
