//! Orders as data: what was chosen, and the string that says it.
//!
//! A [`Schedule`] lists only where an order departs from what would be done [by
//! default](default_pick): each departure says how many choices before it went by default. So a
//! schedule without departures is empty, and one bug's schedule fits into a line.

use crate::ReplayError;
use crate::chance::{Draws, Lot};
use bpfsim_kernel::{
    Chance, Choice, Chooser, Config, Detectors, Last, Offer, Preemption, Report, Step, Usual,
};
use data_encoding::BASE64URL_NOPAD;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

/// What is chosen where nothing else is said: what executed last goes on if it can, otherwise
/// what would usually come first.
pub fn default_pick(choices: &[Choice], last: Option<Last>) -> usize {
    let goes_on = last.and_then(|last| choices.iter().position(|c| last.goes_on(c)));
    goes_on.unwrap_or_else(|| Usual::pick(choices))
}

/// An order: its departures from the default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Schedule {
    departures: Vec<Departure>,
}

/// A choice that is not the default one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Departure {
    /// Its number among all choices between two or more.
    pub at: u32,
    /// What was picked.
    pub pick: u32,
}

impl Schedule {
    /// An order of these departures.
    pub fn new(mut departures: Vec<Departure>) -> Schedule {
        departures.sort();
        departures.dedup_by_key(|d| d.at);
        Schedule { departures }
    }

    /// Its departures, first to last.
    pub fn departures(&self) -> &[Departure] {
        &self.departures
    }

    pub(crate) fn pick(&self, at: u32) -> Option<u32> {
        let found = self.departures.binary_search_by_key(&at, |d| d.at);
        found.ok().map(|i| self.departures[i].pick)
    }
}

/// Takes the order of a [`Schedule`].
#[derive(Debug, Clone)]
pub struct Replay {
    schedule: Schedule,
    at: u32,
}

impl Replay {
    /// Takes this order.
    pub fn new(schedule: Schedule) -> Replay {
        Replay { schedule, at: 0 }
    }
}

impl Chooser for Replay {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let pick = self.schedule.pick(self.at);
        self.at += 1;
        pick.map_or_else(|| offer.default_pick(), |pick| pick as usize)
    }

    fn explores(&self) -> bool {
        true
    }

    fn follows(&self) -> bool {
        false
    }
}

/// Choices of most executions: these take no memory of their own.
const FEW: usize = 64;

/// What a [`Recorder`] has seen.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Choices between two or more.
    pub choices: u64,
    /// Steps.
    pub steps: u64,
    /// Of the steps, those that were not taken: an execution before had taken them.
    pub passed: u64,
    /// A choice was asked for that was not offered.
    pub strayed: bool,
    /// Of the choices, those that are of chance, by their numbers.
    pub lots: Vec<(u32, Lot)>,
    draws: Draws,
    /// What was picked in each; an execution that begins with the choices of the one before finds
    /// them here.
    picks: Picks,
}

/// What was picked in choices: in the first few, and in those after them.
#[derive(Debug, Clone)]
struct Picks {
    len: usize,
    first: [Pick; FEW],
    rest: Vec<Pick>,
}

impl Default for Picks {
    fn default() -> Picks {
        Picks {
            len: 0,
            first: [Pick(0); FEW],
            rest: Vec::new(),
        }
    }
}

impl Picks {
    /// The first so many.
    fn iter(&self, n: usize) -> impl Iterator<Item = &Pick> {
        self.first.iter().chain(&self.rest).take(n.min(self.len))
    }

    #[cold]
    #[inline(never)]
    fn push(&mut self, pick: Pick) {
        match self.first.get_mut(self.len) {
            Some(place) => *place = pick,
            None => self.rest.push(pick),
        }
        self.len += 1;
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.rest.truncate(len.saturating_sub(FEW));
    }
}

/// What was picked in a choice, in one word; below it whether that is not the default, and whether what
/// executed before could have gone on.
#[derive(Debug, Clone, Copy)]
struct Pick(u32);

impl Pick {
    #[inline]
    fn new(pick: usize, departs: bool, preempts: bool) -> Pick {
        Pick((pick as u32) << 2 | u32::from(departs) << 1 | u32::from(preempts))
    }

    fn pick(self) -> u32 {
        self.0 >> 2
    }

    fn departs(self) -> bool {
        self.0 & 2 != 0
    }

    fn preempts(self) -> bool {
        self.0 & 1 != 0
    }
}

impl Record {
    fn picks(&self) -> impl Iterator<Item = &Pick> {
        self.picks.iter(self.choices as usize)
    }

    /// Departures from the default order.
    pub fn schedule(&self) -> Schedule {
        let all = (0..).zip(self.picks());
        let departures = all.filter(|(_, p)| p.departs());
        let departure = |(at, p): (u32, &Pick)| Departure { at, pick: p.pick() };
        Schedule {
            departures: departures.map(departure).collect(),
        }
    }

    /// Steps of another execution while the one before could have gone on.
    pub fn preemptions(&self) -> u64 {
        self.picks().filter(|p| p.preempts()).count() as u64
    }

    /// A choice was made, after so many steps.
    #[inline(always)]
    fn note(&mut self, asked: usize, pick: usize, departs: bool, preempts: bool, steps: usize) {
        self.strayed |= asked != pick;
        self.steps = steps as u64 + 1;
        let (at, pick) = (self.choices as usize, Pick::new(pick, departs, preempts));
        self.choices += 1;
        match self.picks.first.get_mut(at) {
            Some(place) if at == self.picks.len => {
                *place = pick;
                self.picks.len = at + 1;
            }
            _ => self.note_anew(at, pick),
        }
    }

    /// There is no place for it, or other choices where it belongs.
    #[cold]
    #[inline(never)]
    fn note_anew(&mut self, at: usize, pick: Pick) {
        if self.picks.len != at {
            self.cut(at);
        }
        self.picks.push(pick);
    }

    /// Something is about to be noted: what an execution before did from here on is no part of it.
    fn cut(&mut self, at: usize) {
        self.picks.truncate(at);
        while self.lots.last().is_some_and(|l| l.0 as usize >= at) {
            self.lots.pop();
        }
        self.draws.cut(at as u64);
    }

    #[cold]
    fn note_lot(&mut self, offer: &Offer<'_>, pick: usize) {
        let at = self.choices - 1;
        let lot = self.draws.lot(at, offer.choices, pick);
        if let Some(lot) = lot.filter(|lot| lot.chance != Chance::Usual) {
            self.lots.push((at as u32, lot));
        }
    }
}

/// Writes down what another chooser chooses.
pub struct Recorder<C> {
    record: Rc<RefCell<Record>>,
    inner: C,
}

impl<C: Chooser> Recorder<C> {
    /// Records `inner`; the record can be read while and after it is used.
    pub fn new(inner: C) -> (Recorder<C>, Rc<RefCell<Record>>) {
        let record: Rc<RefCell<Record>> = Rc::default();
        (Recorder::again(inner, &record), record)
    }

    /// Records `inner` where another execution was recorded, whose first choices may be passed over.
    pub(crate) fn again(inner: C, record: &Rc<RefCell<Record>>) -> Recorder<C> {
        let old = &mut *record.borrow_mut();
        (old.choices, old.steps, old.passed) = (0, 0, 0);
        Recorder {
            record: Rc::clone(record),
            inner,
        }
    }
}

impl<C: Chooser> Chooser for Recorder<C> {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let asked = self.inner.choose(offer);
        let pick = asked.min(offer.choices.len() - 1);
        let departs = pick != offer.default_pick();
        let record = &mut *self.record.borrow_mut();
        record.note(asked, pick, departs, offer.preempts(pick), offer.steps);
        if offer.chances {
            record.note_lot(offer, pick);
        }
        pick
    }

    fn choose_among(&mut self, choices: usize, goes_on: usize, steps: usize) -> Option<usize> {
        let asked = self.inner.choose_among(choices, goes_on, steps)?;
        let pick = asked.min(choices - 1);
        let departs = pick != goes_on;
        let mut record = self.record.borrow_mut();
        record.note(asked, pick, departs, departs, steps);
        Some(pick)
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
        self.record.borrow_mut().steps = step.steps as u64;
        self.inner.stepped(step);
    }

    fn passed(&mut self, choices: usize, steps: usize) {
        let record = &mut *self.record.borrow_mut();
        record.passed += (steps as u64).saturating_sub(record.steps);
        (record.choices, record.steps) = (choices as u64, steps as u64);
        self.inner.passed(choices, steps);
    }

    fn comes_back(&self) -> bool {
        self.inner.comes_back()
    }

    fn records(&self) -> bool {
        self.inner.records()
    }
}

/// All that is needed to see an execution again: the order, the machine's configuration, and which
/// objects it had loaded.
///
/// As text it is `bs1-` and one word of letters, digits, `-` and `_`; 1 is the version of the
/// format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayString {
    /// Hash of the objects that were loaded.
    pub objects: u32,
    /// The machine.
    pub config: Config,
    /// The order; `None` for the usual one.
    pub schedule: Option<Schedule>,
}

impl ReplayString {
    /// Checks that a machine is the one that this was made on.
    pub fn check_config(&self, config: &Config) -> Result<(), ReplayError> {
        let (was, is) = (config_words(&self.config), config_words(config));
        let values = |c: &Config| c.chances.values.iter().map(u32::to_string).collect();
        let values = [&self.config, config].map(|c| -> Vec<String> { values(c) });
        let of = |words: &[u64], values: &[String]| {
            let mut texts: Vec<String> = words.iter().map(u64::to_string).collect();
            texts.push(values.join("/"));
            texts
        };
        let (was, is) = (of(&was, &values[0]), of(&is, &values[1]));
        let names = NAMES.iter().chain(&["chances.values"]);
        let each = names.zip(was.into_iter().zip(is));
        match { each }.find(|(_, (was, is))| was != is) {
            None => Ok(()),
            Some((what, (was, is))) => Err(ReplayError::Config { what, was, is }),
        }
    }
}

impl ReplayString {
    /// What takes the order.
    pub fn chooser(&self) -> Box<dyn Chooser> {
        match &self.schedule {
            Some(schedule) => Box::new(Replay::new(schedule.clone())),
            None => Box::new(Usual),
        }
    }

    /// Checks that what was run was what was meant: these objects, and no choice that there was
    /// not.
    pub fn check_run(&self, objects: u32, strayed: bool) -> Result<(), ReplayError> {
        if self.objects != objects {
            let (was, is) = (self.objects, objects);
            return Err(ReplayError::Object { was, is });
        }
        match strayed {
            true => Err(ReplayError::Strayed),
            false => Ok(()),
        }
    }
}

const PREFIX: &str = "bs1-";

/// Names of the numbers of the configuration, in the format's order: six in the first mask, the
/// rest in the second.
const NAMES: [&str; 11] = [
    "cpus",
    "seed",
    "horizon",
    "fuel",
    "max_callbacks",
    "preemption",
    "checked",
    "detectors",
    "chances.random",
    "chances.failures",
    "chances.faults",
];
/// Numbers in the first mask, whose other bits say that there is a second one and that there is a
/// schedule.
const FIRST: usize = 6;
const MORE: u8 = 1 << 6;
const EXPLORES: u8 = 1 << 7;
/// In the second mask: random values.
const VALUES: u8 = 1 << 7;
/// Most random values.
const MOST_VALUES: u64 = 1 << 16;

/// The numbers of the configuration.
fn config_words(c: &Config) -> [u64; NAMES.len()] {
    let preemption = match c.preemption {
        Preemption::None => 0,
        Preemption::Full => 1,
    };
    [
        c.cpus.into(),
        c.seed,
        c.horizon,
        c.fuel,
        c.max_callbacks,
        preemption,
        c.checked.into(),
        detector_word(&c.detectors),
        c.chances.random.into(),
        c.chances.failures.into(),
        c.chances.faults.into(),
    ]
}

/// Two bits for each detector.
fn detector_word(d: &Detectors) -> u64 {
    let all = [
        d.stale,
        d.unwritten_argument,
        d.lost_update,
        d.data_race,
        d.dropped,
    ];
    let report = |r: &Report| match r {
        Report::Off => 0,
        Report::Warn => 1,
        Report::Fail => 2,
    };
    all.iter().rev().fold(0, |word, r| word << 2 | report(r))
}

fn detectors_of(word: u64) -> Option<Detectors> {
    let report = |i: u32| match word >> (2 * i) & 3 {
        0 => Some(Report::Off),
        1 => Some(Report::Warn),
        2 => Some(Report::Fail),
        _ => None,
    };
    (word >> 10 == 0).then_some(())?;
    Some(Detectors {
        stale: report(0)?,
        unwritten_argument: report(1)?,
        lost_update: report(2)?,
        data_race: report(3)?,
        dropped: report(4)?,
    })
}

fn config_of(mut config: Config, words: [u64; NAMES.len()]) -> Option<Config> {
    config.cpus = u32::try_from(words[0]).ok()?;
    config.seed = words[1];
    config.horizon = words[2];
    config.fuel = words[3];
    config.max_callbacks = words[4];
    config.preemption = match words[5] {
        0 => Preemption::None,
        1 => Preemption::Full,
        _ => return None,
    };
    config.checked = match words[6] {
        0 => false,
        1 => true,
        _ => return None,
    };
    config.detectors = detectors_of(words[7])?;
    config.chances.random = u32::try_from(words[8]).ok()?;
    config.chances.failures = u32::try_from(words[9]).ok()?;
    config.chances.faults = u32::try_from(words[10]).ok()?;
    Some(config)
}

impl fmt::Display for ReplayString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.objects.to_le_bytes().to_vec();
        let (words, usual) = (config_words(&self.config), config_words(&Config::default()));
        let differ = (0..words.len()).filter(|&i| words[i] != usual[i]);
        let mask = differ.clone().fold(0_u32, |m, i| m | 1 << i);
        let values = &self.config.chances.values;
        let more = (mask >> FIRST) as u8 | if values.is_empty() { 0 } else { VALUES };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let first = mask as u8 & (MORE - 1);
        bytes.push(first | flag(more != 0, MORE) | flag(self.schedule.is_some(), EXPLORES));
        bytes.extend((more != 0).then_some(more));
        differ.for_each(|i| put(&mut bytes, words[i]));
        if !values.is_empty() {
            put(&mut bytes, values.len() as u64);
            values.iter().for_each(|&v| put(&mut bytes, v.into()));
        }
        let mut at = 0;
        for d in self.schedule.iter().flat_map(Schedule::departures) {
            put(&mut bytes, (d.at - at).into());
            put(&mut bytes, d.pick.into());
            at = d.at + 1;
        }
        let check = checksum(&bytes);
        bytes.extend(check);
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for ReplayString {
    type Err = ReplayError;

    fn from_str(text: &str) -> Result<ReplayString, ReplayError> {
        let text = text.trim();
        let Some(word) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix("bs").and_then(|t| t.split('-').next());
            let number = version.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
            return Err(number.map_or(ReplayError::NoReplay, |v| {
                ReplayError::Version(v.to_string())
            }));
        };
        let bytes = BASE64URL_NOPAD.decode(word.as_bytes());
        let bytes = bytes.map_err(|_| ReplayError::Damaged)?;
        let (bytes, check) = bytes.split_last_chunk::<2>().ok_or(ReplayError::Damaged)?;
        if checksum(bytes) != *check {
            return Err(ReplayError::Damaged);
        }
        parse(bytes).ok_or(ReplayError::Damaged)
    }
}

fn parse(bytes: &[u8]) -> Option<ReplayString> {
    let (objects, bytes) = bytes.split_first_chunk::<4>()?;
    let (&mask, mut bytes) = bytes.split_first()?;
    let mut more = 0;
    if mask & MORE != 0 {
        let (&second, rest) = bytes.split_first()?;
        (more, bytes) = (second, rest);
    }
    let differ = (mask & (MORE - 1)) as u32 | ((more & !VALUES) as u32) << FIRST;
    let mut words = config_words(&Config::default());
    (differ >> words.len() == 0).then_some(())?;
    for (i, word) in words.iter_mut().enumerate() {
        if differ & 1 << i != 0 {
            *word = take(&mut bytes)?;
        }
    }
    let mut config = config_of(Config::default(), words)?;
    if more & VALUES != 0 {
        let n = take(&mut bytes).filter(|&n| n <= MOST_VALUES)?;
        for _ in 0..n {
            let value = u32::try_from(take(&mut bytes)?).ok()?;
            config.chances.values.push(value);
        }
    }
    let mut departures = Vec::new();
    let mut at = 0_u32;
    while !bytes.is_empty() {
        at = at.checked_add(u32::try_from(take(&mut bytes)?).ok()?)?;
        let pick = u32::try_from(take(&mut bytes)?).ok()?;
        departures.push(Departure { at, pick });
        at = at.checked_add(1)?;
    }
    let explores = mask & EXPLORES != 0;
    if !explores && !departures.is_empty() {
        return None;
    }
    Some(ReplayString {
        objects: u32::from_le_bytes(*objects),
        config,
        schedule: explores.then_some(Schedule { departures }),
    })
}

/// LEB128.
fn put(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&b, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= ((b & 0x7f) as u64).checked_shl(shift)?;
        if b & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mix = |h, &b| bpfsim_kernel::mix(h, u64::from(b));
    (bytes.iter().fold(1, mix) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ReplayString {
        let departures = [(3, 1), (4, 0), (1000, 2)].map(|(at, pick)| Departure { at, pick });
        ReplayString {
            objects: 0xdead_beef,
            config: Config {
                cpus: 4,
                horizon: 1 << 40,
                preemption: Preemption::Full,
                ..Config::default()
            },
            schedule: Some(Schedule::new(departures.to_vec())),
        }
    }

    #[test]
    fn text_and_back() {
        let usual = ReplayString {
            schedule: None,
            ..example()
        };
        let chancy = ReplayString {
            config: Config {
                seed: 7,
                checked: false,
                detectors: Detectors {
                    data_race: Report::Fail,
                    ..Detectors::OFF
                },
                chances: "random=2,values=0/4294967295,failures=3".parse().unwrap(),
                ..Config::default()
            },
            ..example()
        };
        for replay in [example(), usual, chancy] {
            assert_eq!(replay.to_string().parse(), Ok(replay));
        }
    }

    /// As they were written when there was one mask, without detectors, checks and chances.
    #[test]
    fn texts_without_a_second_mask_say_what_they_said() {
        let plain = |objects, config, schedule| ReplayString {
            objects,
            config,
            schedule,
        };
        let seeded = Config {
            seed: 7,
            ..Config::default()
        };
        let usual = Config::default();
        for (text, replay) in [
            ("bs1-776t3qUEgICAgIAgAQMBAADjBwKOYg", example()),
            ("bs1-776t3gIHojA", plain(0xdead_beef, seeded, None)),
            ("bs1-AQAAAID-nQ", plain(1, usual, Some(Schedule::default()))),
        ] {
            assert_eq!(text.parse().as_ref(), Ok(&replay));
            assert_eq!(replay.to_string(), text);
        }
    }

    #[test]
    fn any_other_text_is_an_error() {
        let text = example().to_string();
        assert_eq!("".parse::<ReplayString>(), Err(ReplayError::NoReplay));
        let newer = text.replace("bs1-", "bs2-");
        let version = ReplayError::Version("2".to_string());
        assert_eq!(newer.parse::<ReplayString>(), Err(version));
        for end in 4..text.len() {
            assert!(text[..end].parse::<ReplayString>().is_err());
        }
        let mut missed = 0;
        for i in 4..text.len() {
            let other = if &text[i..=i] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..i], &text[i + 1..]);
            missed += changed.parse::<ReplayString>().is_ok() as u32;
        }
        assert_eq!(missed, 0);
    }
}
