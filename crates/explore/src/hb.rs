//! Happens-before: which steps of an execution may change places.
//!
//! A CPU does one thing at a time, so the steps of one CPU are ordered, whichever executions they
//! belong to. Steps of two CPUs are ordered when they are dependent by [`RULES`]. Whatever changes
//! what another CPU can do (releases a lock, arms a timer, is the last to execute) must be dependent
//! on what it can do then: the rules see to it, since an order in which it came later has to show
//! the same dependency. Time needs no rule but [`Rule::Idle`]: clocks are per CPU and pass on only
//! where one step waits for another, and the horizon counts from the beginning of a window. What
//! user space of the test does between two windows comes after all that was before and before all
//! that is after.
//!
//! Executions in which all dependent steps come in the same order are one trace
//! (Mazurkiewicz): all end in the same state.

use bpfsim_kernel::{Choice, Chooser, Offer, Step, Touch, mix};
use bpfsim_vm::AccessKind;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::rc::Rc;

/// Why two steps of different CPUs may not change places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// They touch the same memory, and one of them writes.
    Memory,
    /// They touch the same map, and one of them changes it.
    Map,
    /// One changes a map, whose elements move and are used again, and the other touches memory of
    /// an element.
    Element,
    /// One changes what the other's CPU can do.
    Cpu,
    /// Both change what a third CPU can do: queues are in the order of their making.
    Queue,
    /// Both are the last on their CPUs or the first, and deadlines lie ahead.
    Idle,
    /// One of them is the last on its CPU or the first, the other makes or ends a deadline.
    Deadline,
    /// After both, code of the test goes on that is a task's user space: it may share what it
    /// likes with that of other tasks.
    UserSpace,
    /// Both print, or one does and after the other code of the test goes on that may look.
    Printk,
    /// One of them may touch anything, and look at anything.
    All,
}

/// True when a rule makes two steps dependent.
type Holds = fn(&Touch, &Touch) -> bool;

/// Kinds of [`Touch`], as bits.
mod kind {
    use super::Touch;

    pub const MEMORY: u8 = 1;
    pub const MAP: u8 = 1 << 1;
    pub const CPU: u8 = 1 << 2;
    pub const IDLE: u8 = 1 << 3;
    pub const DEADLINE: u8 = 1 << 4;
    pub const USER_SPACE: u8 = 1 << 5;
    pub const PRINTK: u8 = 1 << 6;
    pub const ALL: u8 = 1 << 7;

    pub fn of(touch: &Touch) -> u8 {
        match touch {
            Touch::Memory { .. } => MEMORY,
            Touch::Map { .. } => MAP,
            Touch::Cpu(_) => CPU,
            Touch::Idle { .. } => IDLE,
            Touch::Deadline => DEADLINE,
            Touch::UserSpace => USER_SPACE,
            Touch::Printk => PRINTK,
            Touch::All => ALL,
        }
    }
}

/// The dependency relation, a row for each kind of conflict between what two steps touched: which kinds
/// of what one and the other touched it is between, and when it is one.
const RULES: &[(Rule, u8, u8, Holds)] = &[
    (Rule::Memory, kind::MEMORY, kind::MEMORY, one_writes),
    (Rule::Map, kind::MAP, kind::MAP, |a, b| match (a, b) {
        (&Touch::Map { map: m, write: w }, &Touch::Map { map: n, write: v }) => m == n && (w || v),
        _ => false,
    }),
    (Rule::Element, kind::MAP, kind::MEMORY, |a, b| {
        match (a, b) {
            (&Touch::Map { map: m, write }, &Touch::Memory { map: n, .. })
            | (&Touch::Memory { map: n, .. }, &Touch::Map { map: m, write }) => write && m == n,
            _ => false,
        }
    }),
    (Rule::Queue, kind::CPU, kind::CPU, |a, b| match (a, b) {
        (Touch::Cpu(a), Touch::Cpu(b)) => a == b,
        _ => false,
    }),
    (
        Rule::UserSpace,
        kind::USER_SPACE,
        kind::USER_SPACE,
        |a, b| (a, b) == (&Touch::UserSpace, &Touch::UserSpace),
    ),
    (
        Rule::Printk,
        kind::PRINTK,
        kind::PRINTK | kind::USER_SPACE,
        |a, b| {
            matches!(
                (a, b),
                (Touch::Printk, Touch::Printk | Touch::UserSpace)
                    | (Touch::UserSpace, Touch::Printk)
            )
        },
    ),
    (Rule::Idle, kind::IDLE, kind::IDLE, |a, b| match (a, b) {
        (&Touch::Idle { ahead: a }, &Touch::Idle { ahead: b }) => a || b,
        _ => false,
    }),
    (Rule::Deadline, kind::IDLE, kind::DEADLINE, |a, b| {
        matches!(
            (a, b),
            (Touch::Idle { .. }, Touch::Deadline) | (Touch::Deadline, Touch::Idle { .. })
        )
    }),
];

/// [`Rule::Memory`]
#[inline(always)]
fn one_writes(a: &Touch, b: &Touch) -> bool {
    match (a, b) {
        (
            &Touch::Memory {
                addr: a,
                size: m,
                kind: k,
                ..
            },
            &Touch::Memory {
                addr: b,
                size: n,
                kind: l,
                ..
            },
        ) => {
            let overlap = a < b.saturating_add(n.into()) && b < a.saturating_add(m.into());
            overlap && (k, l) != (AccessKind::Read, AccessKind::Read)
        }
        _ => false,
    }
}

/// The relation, or all of it but one rule: to show that each is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relation {
    /// The rule that is left out.
    pub without: Option<Rule>,
}

impl Relation {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// True when two steps of different CPUs may not change places for what they touched.
    #[inline]
    pub(crate) fn dependent(&self, a: &Effects, b: &Effects) -> bool {
        match a.kinds | b.kinds {
            0 => false,
            // That is all that most steps touch.
            kind::MEMORY => {
                let holds = |x| b.touched.iter().any(|y| one_writes(x, y));
                self.has(Rule::Memory) && a.touched.iter().any(holds)
            }
            either => self.are_by_rules(a, b, either),
        }
    }

    /// [`Relation::dependent`] by all rules.
    #[inline(never)]
    fn are_by_rules(&self, a: &Effects, b: &Effects, either: u8) -> bool {
        let onto = |a: &Effects, cpu: u32| a.touched.contains(&Touch::Cpu(bpfsim_kernel::Cpu(cpu)));
        if either & kind::CPU != 0 && self.has(Rule::Cpu) && (onto(a, b.cpu) || onto(b, a.cpu)) {
            return true;
        }
        // Also with what touches nothing: it ends a window, maybe, or looks at the clock.
        if either & kind::ALL != 0 && self.has(Rule::All) {
            return true;
        }
        RULES.iter().any(|&(rule, one, other, holds)| {
            let between = |a: &Effects, b: &Effects| a.kinds & one != 0 && b.kinds & other != 0;
            let holds = |x| b.touched.iter().any(|y| holds(x, y));
            (between(a, b) || between(b, a)) && self.has(rule) && a.touched.iter().any(holds)
        })
    }
}

/// One way to go on, the same as long as nothing that concerns its CPU happens.
pub(crate) type Key = (u32, u64, u64, u64);

pub(crate) fn key(choice: &Choice) -> Key {
    let chance = choice.chance.word();
    (choice.cpu.0, choice.id.0, choice.at, chance)
}

/// What a step did to others.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    pub cpu: u32,
    /// Of what it touched.
    kinds: u8,
    pub touched: SmallVec<[Touch; 2]>,
    /// CPUs, other than its own, that cannot do any more what they could.
    pub lost: u64,
}

/// A step of an execution.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub effects: Effects,
    /// What could be chosen.
    pub keys: SmallVec<[Key; 2]>,
    pub picked: usize,
    pub window: u64,
    /// Its number among its CPU's.
    nth: u32,
    /// How many of each CPU's events happen before it, or are it.
    clock: SmallVec<[u32; 4]>,
    /// What makes it and all before it one class.
    class: u64,
    finished: bool,
    /// One more than the place of its CPU's event before, or 0.
    previous: u32,
    /// The place of the first event of its window.
    start: usize,
}

/// The steps of an execution so far.
#[derive(Debug, Default)]
pub(crate) struct Path {
    events: Vec<Event>,
    /// Of each CPU, how many events there are, and one more than the place of the last, or 0.
    last: SmallVec<[(u32, u32); 4]>,
}

impl Path {
    /// A step was taken.
    pub fn push(&mut self, step: &Step<'_>) {
        let cpu = step.choices[step.picked].cpu.0;
        let previous = self.events.last().filter(|p| p.window == step.window);
        let start = previous.map_or(self.events.len(), |p| p.start);
        let (nth, previous) = self.last.get(cpu as usize).copied().unwrap_or_default();
        // Made one by one: there are one or two of each.
        let (mut keys, mut touched, mut kinds) = (SmallVec::new(), SmallVec::new(), 0);
        step.choices.iter().for_each(|c| keys.push(key(c)));
        for &touch in step.touched {
            kinds |= kind::of(&touch);
            touched.push(touch);
        }
        self.add(Event {
            effects: Effects {
                cpu,
                kinds,
                touched,
                lost: 0,
            },
            keys,
            picked: step.picked,
            window: step.window,
            nth: nth + 1,
            previous,
            clock: SmallVec::new(),
            class: 0,
            finished: false,
            start,
        });
    }

    #[inline]
    fn add(&mut self, event: Event) {
        let cpu = event.effects.cpu as usize;
        if self.last.len() <= cpu {
            self.last.resize(cpu + 1, (0, 0));
        }
        self.last[cpu] = (event.nth, self.events.len() as u32 + 1);
        self.events.push(event);
    }

    /// The steps, what is known of them.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The steps after the first `len` were not taken.
    pub fn truncate(&mut self, len: usize) {
        for e in self.events.iter().skip(len).rev() {
            self.last[e.effects.cpu as usize] = (e.nth - 1, e.previous);
        }
        self.events.truncate(len);
    }

    /// The last step was not taken.
    pub fn pop(&mut self) -> Option<Event> {
        let e = self.events.pop()?;
        self.last[e.effects.cpu as usize] = (e.nth - 1, e.previous);
        Some(e)
    }

    /// What the last step did to others is known now that it is known what they can do after it:
    /// `after` in `window`, or nothing any more. Gives the earlier steps that it races with,
    /// latest first: those that it depends on, and that did not happen before its CPU came to it.
    /// Some of these cannot change places with it (it took a lock that they released): so all of
    /// them are given, not just the latest.
    pub fn finish(
        &mut self,
        relation: &Relation,
        window: u64,
        after: &[Choice],
    ) -> SmallVec<[usize; 16]> {
        let mut races = SmallVec::new();
        let Some(last) = self.events.len().checked_sub(1) else {
            return races;
        };
        let (before, rest) = self.events.split_at_mut(last);
        let event = &mut rest[0];
        if std::mem::replace(&mut event.finished, true) {
            return races;
        }
        let goes_on = window == event.window;
        let own = event.effects.cpu;
        let stays = |k: &Key| goes_on && after.iter().any(|c| key(c) == *k);
        let gone = event.keys.iter().filter(|k| k.0 != own && !stays(k));
        event.effects.lost = gone.fold(0, |mask, k| mask | 1 << k.0);
        // It comes after what its CPU did before, and after all that was before the window.
        let mut clock: SmallVec<[u32; 4]> = SmallVec::new();
        if event.previous as usize > event.start {
            clock.extend_from_slice(&before[event.previous as usize - 1].clock);
        } else if event.start > 0 {
            for &(mut nth, mut at) in &self.last {
                while at as usize > event.start {
                    // The last one is this event.
                    let e = before.get(at as usize - 1).unwrap_or(event);
                    (nth, at) = (e.nth - 1, e.previous);
                }
                clock.push(nth);
            }
        }
        let known: SmallVec<[u32; 4]> = SmallVec::from_slice(&clock);
        let known = |cpu: u32| known.get(cpu as usize).copied().unwrap_or(0);
        // Of other CPUs, those that it is not known to come after.
        let others = self.last.iter().enumerate().filter(|l| l.0 as u32 != own);
        let mut left: u32 = others
            .map(|(cpu, l)| l.0.saturating_sub(known(cpu as u32)))
            .sum();
        for (i, e) in before.iter().enumerate().rev() {
            if left == 0 {
                break;
            }
            let cpu = e.effects.cpu;
            if cpu == own || e.nth <= known(cpu) {
                continue;
            }
            left -= 1;
            if relation.dependent(&e.effects, &event.effects) {
                races.push(i);
                join(&mut clock, &e.clock);
            }
        }
        raise(&mut clock, own, event.nth);
        event.clock = clock;
        // In whatever order they came.
        let sum = before.last().map_or(0, |e| e.class);
        event.class = sum.wrapping_add(mix(1, event.hash()));
        races
    }

    /// True when event `a` happens before the later event `b`.
    pub fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.events[a], &self.events[b]);
        let clock = b.clock.get(a.effects.cpu as usize);
        clock.is_some_and(|&n| n >= a.nth)
    }

    /// [`Path::class`] by another relation.
    pub fn class_by(&self, relation: &Relation) -> u64 {
        let mut other = Path::default();
        for event in &self.events {
            other.add(Event {
                finished: false,
                ..event.clone()
            });
            other.finish(relation, u64::MAX, &[]);
        }
        other.class()
    }

    /// Equal for executions that are one trace.
    pub fn class(&self) -> u64 {
        self.events.last().map_or(0, |e| e.class)
    }

    /// The execution is over: its class.
    pub fn end(&mut self, relation: &Relation) -> u64 {
        self.finish(relation, u64::MAX, &[]);
        self.class()
    }
}

impl Event {
    /// What it is, and what happens before it.
    fn hash(&self) -> u64 {
        let (cpu, id, _, chance) = self.keys[self.picked];
        let id = if chance == 0 { id } else { mix(id, chance) };
        // Trailing zeros say nothing.
        let end = self.clock.iter().rposition(|&n| n != 0);
        let clock = self.clock[..end.map_or(0, |i| i + 1)].iter();
        clock.fold(mix(id, cpu.into()), |h, &n| mix(h, n.into()))
    }
}

fn raise(clock: &mut SmallVec<[u32; 4]>, cpu: u32, nth: u32) {
    let cpu = cpu as usize;
    if clock.len() <= cpu {
        clock.resize(cpu + 1, 0);
    }
    clock[cpu] = clock[cpu].max(nth);
}

fn join(clock: &mut SmallVec<[u32; 4]>, other: &[u32]) {
    if clock.len() < other.len() {
        clock.resize(other.len(), 0);
    }
    for (mine, &theirs) in clock.iter_mut().zip(other) {
        *mine = (*mine).max(theirs);
    }
}

/// Watches the order that another chooser takes, for its class.
pub(crate) struct Observer {
    relation: Relation,
    path: Rc<RefCell<Path>>,
    /// Steps of this execution.
    steps: usize,
    inner: Box<dyn Chooser>,
}

impl Observer {
    /// Has an execution's steps noted in `path`, in place of those of the one before.
    pub fn new(relation: Relation, inner: Box<dyn Chooser>, path: &Rc<RefCell<Path>>) -> Observer {
        Observer {
            relation,
            path: Rc::clone(path),
            steps: 0,
            inner,
        }
    }
}

impl Chooser for Observer {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        self.inner.choose(offer)
    }

    fn explores(&self) -> bool {
        self.inner.explores()
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let path = &mut *self.path.borrow_mut();
        path.truncate(self.steps);
        path.finish(&self.relation, step.window, step.choices);
        path.push(step);
        self.steps += 1;
        self.inner.stepped(step);
    }

    fn passed(&mut self, choices: usize, steps: usize) {
        self.steps = steps;
        self.inner.passed(choices, steps);
    }

    fn comes_back(&self) -> bool {
        self.inner.comes_back()
    }

    fn records(&self) -> bool {
        true
    }
}
