//! Search led by coverage: orders and inputs are changed a little, and what shows something new is
//! kept and changed further.
//!
//! What counts as new is a *feature*: a conditional jump of BPF taken or not, an instruction that
//! ran, each by how often; and which operation of one execution came right after which of another.
//! [`Corpus`] is the search as a value that runs nothing itself: [`Corpus::next_case`] gives a case,
//! the caller makes it, [`Corpus::judge`] is told its features. Equal seeds and equal answers give
//! equal searches. A fuzzer of another make takes the same parts: [`Loose`] makes an order of any
//! list of departures, [`features`] says what ran.

use crate::rng::Rng;
use crate::schedule::{Departure, Schedule};
use bpfsim_kernel::{Chooser, Kernel, Last, Next, Offer, ProgId, Step, mix};
use std::cell::RefCell;
use std::rc::Rc;

/// An order and the inputs of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Where the order departs from the default: as [`Loose`] takes it.
    pub order: Schedule,
    /// Bytes, as the test takes them.
    pub inputs: Vec<Vec<u8>>,
}

/// Takes the order of any list of departures: where one says to pick what there is not, it is taken
/// modulo what there is. An order that was taken before is taken again.
#[derive(Debug, Clone)]
pub struct Loose {
    order: Schedule,
    at: u32,
}

impl Loose {
    /// Takes about this order.
    pub fn new(order: Schedule) -> Loose {
        Loose { order, at: 0 }
    }
}

impl Chooser for Loose {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let usual = offer.default_pick();
        let pick = self.order.pick(self.at);
        self.at += 1;
        pick.map_or(usual, |pick| pick as usize % offer.choices.len().max(1))
    }

    fn explores(&self) -> bool {
        true
    }

    fn follows(&self) -> bool {
        false
    }
}

/// Number of features that are told apart.
pub const FEATURES: usize = 1 << 16;

/// How often each feature that there was came, by its number below [`FEATURES`]. One number can
/// stand for several.
pub type Features = Vec<(u16, u64)>;

fn feature(kind: u64, a: u64, b: u64) -> u16 {
    (mix(mix(kind, a), b) >> 48) as u16
}

/// What ran of the programs since they are counted (`Kernel::record` with `counts`): instructions,
/// and conditional jumps in both outcomes.
pub fn features(kernel: &Kernel, into: &mut Features) {
    for (id, counts) in kernel.counts().iter().enumerate() {
        let Some(prog) = kernel.prog_lines(ProgId(id as u32)) else {
            continue;
        };
        for (at, &ran) in counts.ran.iter().enumerate().filter(|(_, ran)| **ran > 0) {
            let place = (id as u64) << 32 | at as u64;
            if !prog.is_branch(at) {
                // What follows an instruction follows it always.
                let begins = at == 0 || prog.is_branch(at - 1);
                into.extend(begins.then(|| (feature(1, place, 0), ran)));
                continue;
            }
            let taken = counts.taken.get(at).copied().unwrap_or(0).min(ran);
            for (outcome, n) in [(0, taken), (1, ran - taken)] {
                into.extend((n > 0).then(|| (feature(2, place, outcome), n)));
            }
        }
    }
}

/// What programs compare with: inputs are likely to mean something by it.
pub fn constants(kernel: &Kernel) -> Vec<i64> {
    let progs = (0..).map_while(|id| kernel.prog_lines(ProgId(id)));
    let mut all: Vec<i64> = progs
        .flat_map(|p| p.constants().collect::<Vec<_>>())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Watches which operation comes right after which of another execution.
pub struct Meetings<C> {
    inner: C,
    last: Option<(Last, u64)>,
    met: Rc<RefCell<Features>>,
}

impl<C: Chooser> Meetings<C> {
    /// Watches `inner`; the features can be read while and after it is used.
    pub fn new(inner: C) -> (Meetings<C>, Rc<RefCell<Features>>) {
        let met = Rc::default();
        let last = None;
        let meetings = Meetings {
            inner,
            last,
            met: Rc::clone(&met),
        };
        (meetings, met)
    }
}

fn next_word(next: Next) -> u64 {
    match next {
        Next::Start(starts) => 1 | (starts as u64) << 8,
        Next::Access(a) => mix(2 | (a.kind as u64) << 8, a.addr),
        Next::Call { call, object } => mix(mix(3, object), call_word(call)),
        Next::Syscall { object } => mix(4, object),
    }
}

fn call_word(call: bpfsim_vm::Call) -> u64 {
    match call {
        bpfsim_vm::Call::Helper(id) => u64::from(id) << 1,
        bpfsim_vm::Call::Kfunc(id) => u64::from(id) << 1 | 1,
    }
}

impl<C: Chooser> Chooser for Meetings<C> {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.inner.choose(offer)
    }

    fn explores(&self) -> bool {
        self.inner.explores()
    }

    fn begins_alike(&self) -> bool {
        self.inner.begins_alike()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let choice = &step.choices[step.picked];
        let word = mix(next_word(choice.next), choice.chance.word());
        if let Some((last, before)) = self.last
            && !last.goes_on(choice)
        {
            self.met.borrow_mut().push((feature(3, before, word), 1));
        }
        self.last = Some((Last::of(step), word));
        self.inner.stepped(step);
    }

    fn records(&self) -> bool {
        self.inner.records()
    }
}

/// Most departures that a case is given.
const MOST_DEPARTURES: usize = 32;
/// Longest input.
const LONGEST: usize = 4096;

/// Cases that each showed something new.
#[derive(Debug)]
pub struct Corpus {
    rng: Rng,
    cases: Vec<Case>,
    /// How often each feature came, as bits for ranges of numbers.
    seen: Vec<u8>,
    /// Numbers that inputs are likely to mean something by.
    words: Vec<i64>,
    /// Choices of the longest execution.
    choices: u32,
    given: u64,
}

impl Corpus {
    /// A search that begins with these cases, the first of them at least as it is.
    pub fn new(seed: u64, cases: Vec<Case>) -> Corpus {
        Corpus {
            rng: Rng::new(seed),
            cases,
            seen: vec![0; FEATURES],
            words: Vec::new(),
            choices: 1,
            given: 0,
        }
    }

    /// These numbers are put into inputs.
    pub fn learn(&mut self, words: Vec<i64>) {
        self.words = words;
    }

    /// What to run next: first all that there is, then changes of it.
    pub fn next_case(&mut self) -> Case {
        self.given += 1;
        let own = self.given as usize - 1;
        if own < self.cases.len() && self.given <= self.cases.len() as u64 {
            return self.cases[own].clone();
        }
        let mut case = self.pick();
        for _ in 0..1 << self.rng.below(3) {
            self.change(&mut case);
        }
        case
    }

    /// The latest are picked more often.
    fn pick(&mut self) -> Case {
        let n = self.cases.len().max(1) as u32;
        let (a, b) = (self.rng.below(n), self.rng.below(n));
        let picked = self.cases.get(a.max(b) as usize);
        picked.cloned().unwrap_or_default()
    }

    fn change(&mut self, case: &mut Case) {
        let inputs: usize = case.inputs.iter().map(|i| !i.is_empty() as usize).sum();
        match self.rng.below(8) {
            0..=3 => self.change_order(case),
            4..=6 if inputs > 0 => self.change_input(case),
            7 => {
                // The order of one, the inputs of another.
                let other = self.pick();
                match self.rng.below(2) {
                    0 => case.order = other.order,
                    _ => case.inputs = other.inputs,
                }
            }
            _ => self.change_order(case),
        }
    }

    fn change_order(&mut self, case: &mut Case) {
        let mut departures = case.order.departures().to_vec();
        let new = Departure {
            at: self.rng.below(self.choices + 1),
            pick: self.rng.below(4),
        };
        let n = departures.len() as u32;
        match self.rng.below(4) {
            0 | 1 if departures.len() < MOST_DEPARTURES => departures.push(new),
            2 if n > 0 => drop(departures.remove(self.rng.below(n) as usize)),
            _ if n > 0 => {
                let d = &mut departures[self.rng.below(n) as usize];
                match self.rng.below(3) {
                    0 => d.pick = new.pick,
                    1 => d.at = d.at.saturating_add(1),
                    _ => d.at = d.at.saturating_sub(1),
                }
            }
            _ => departures.push(new),
        }
        case.order = Schedule::new(departures);
    }

    fn change_input(&mut self, case: &mut Case) {
        let filled = case.inputs.iter_mut().filter(|i| !i.is_empty());
        let mut filled: Vec<&mut Vec<u8>> = filled.collect();
        let which = self.rng.below(filled.len() as u32) as usize;
        let bytes = &mut *filled[which];
        let at = self.rng.below(bytes.len() as u32) as usize;
        let word = self.rng.word();
        match self.rng.below(8) {
            6 | 7 if !self.words.is_empty() => {
                let known = self.words[self.rng.below(self.words.len() as u32) as usize];
                // As the machine or the network has it, in one to eight bytes.
                let size = (1 << (word & 3)).min(bytes.len() - at);
                let mut number = known.to_le_bytes();
                if word & 4 != 0 {
                    number[..size].reverse();
                }
                bytes[at..at + size].copy_from_slice(&number[..size]);
            }
            0 => bytes[at] ^= 1 << (word & 7),
            1 => bytes[at] = word as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 6, 17][word as usize % 7],
            3 => bytes[at] = bytes[at].wrapping_add((word % 33) as u8).wrapping_sub(16),
            4 if bytes.len() < LONGEST => bytes.insert(at, word as u8),
            _ => {
                let from = (word as usize) % bytes.len();
                let len = (bytes.len() - at.max(from)).min(8);
                bytes.copy_within(from..from + len, at);
            }
        }
    }

    /// A case ran: these were its choices and features. True when there is something new about it,
    /// and it is kept.
    pub fn judge(&mut self, case: Case, choices: u64, features: &Features) -> bool {
        self.choices = self
            .choices
            .max(u32::try_from(choices).unwrap_or(u32::MAX - 1));
        let mut sums = std::collections::BTreeMap::<u16, u64>::new();
        for &(feature, n) in features {
            *sums.entry(feature).or_default() += n;
        }
        let mut new = false;
        for (feature, n) in sums {
            let bit = 1 << n.ilog2().min(7);
            let seen = &mut self.seen[feature as usize];
            new |= *seen & bit == 0;
            *seen |= bit;
        }
        let own = self.cases.contains(&case);
        if new && !own {
            self.cases.push(case);
        }
        new && !own
    }

    /// The cases.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Features seen so far.
    pub fn features(&self) -> usize {
        self.seen.iter().filter(|s| **s != 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that takes a byte and two departures, each of which shows first.
    fn target(case: &Case) -> (Features, bool) {
        let mut features = vec![(0, 1)];
        let has = |at, pick| case.order.departures().contains(&Departure { at, pick });
        let steps = [has(30, 2), has(7, 1), case.inputs[0].get(1) == Some(&0x7f)];
        let come = steps.iter().take_while(|s| **s).count();
        features.extend((0..come).map(|i| (i as u16 + 1, 1)));
        (features, come == 3)
    }

    #[test]
    fn what_shows_something_new_is_changed_further() {
        let search = |seed| {
            let first = Case {
                inputs: vec![vec![0; 4]],
                ..Case::default()
            };
            let mut corpus = Corpus::new(seed, vec![first]);
            (1..40_000).find(|_| {
                let case = corpus.next_case();
                let (features, found) = target(&case);
                corpus.judge(case, 40, &features);
                found
            })
        };
        let found: Vec<_> = (0..4).map(search).collect();
        assert!(found.iter().all(Option::is_some), "{found:?}");
        assert_eq!(search(2), found[2]);
    }
}
