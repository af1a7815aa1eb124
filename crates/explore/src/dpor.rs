//! Every order that differs in something that matters: dynamic partial-order reduction.
//!
//! Orders that differ only in the places of independent steps end alike, so one of each trace is
//! enough. Which steps are independent shows while they are taken ([`hb`](crate::hb)). This is the
//! source-set algorithm with sleep sets: Abdulla, Aronis, Jonsson, Sagonas, "Optimal Dynamic
//! Partial Order Reduction", POPL 2014, which goes back to Flanagan, Godefroid, "Dynamic
//! Partial-Order Reduction for Model Checking Software", POPL 2005; sleep sets are Godefroid's
//! (LNCS 1032, 1996).
//!
//! Two things are not as in the papers. A process there has one next step; a CPU here can have
//! several (its program goes on, or its timers expire), which exclude each other: where a CPU is
//! to be explored, all that it can do is. And a step can take from another CPU what it could have
//! done (a lock, the last moment at which a timer could fire early): then that is explored first,
//! too.

use crate::back::Back;
use crate::bounded::PARTS;
use crate::hb::{Effects, Event, Key, Path, Relation, key};
use crate::runner::{Clock, Runner, Unit, Worker};
use bpfsim_kernel::{Choice, Chooser, Offer, Step};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::rc::Rc;

/// Remembering a machine costs as much as some steps, and which nodes are come back to shows later: nodes
/// that can be gone back to at once are so many steps apart, and those between are come to from there.
const APART: usize = 8;

/// A way to go on that was explored from an earlier state and need not be again until something
/// comes that it depends on.
#[derive(Clone, Debug)]
struct Asleep {
    key: Key,
    effects: Effects,
}

/// A state on the way that is being explored. What can be done there is in the event that follows.
#[derive(Debug)]
struct Node {
    /// Ways to go on, and where it was come back to, which.
    ways: usize,
    known: Vec<Key>,
    pick: usize,
    /// Choices between two or more before it.
    choices: usize,
    /// Steps between it and the last node before it that can be gone back to at once.
    apart: usize,
    /// It can be gone back to at once.
    is_point: bool,
    /// CPUs whose ways to go on are to be explored from here.
    wanted: u64,
    done: Vec<Asleep>,
    sleep: Vec<Asleep>,
}

impl Node {
    fn is_asleep(&self, key: &Key) -> bool {
        self.sleep.iter().any(|s| s.key == *key)
    }

    /// Whatever can be done here is to be explored: the event that follows knows what that is.
    fn wants_all(&self, event: &Event) -> bool {
        event.keys.iter().all(|k| self.wanted & 1 << k.0 != 0)
    }

    /// What is to be explored next from here, after what is picked now.
    fn next(&self, event: &Event) -> Option<usize> {
        let now = &event.keys[self.pick];
        let wanted = |k: &Key| self.wanted & 1 << k.0 != 0;
        let done = |k: &Key| k == now || self.done.iter().any(|d| d.key == *k);
        let mut keys = event.keys.iter();
        keys.position(|k| wanted(k) && !done(k) && !self.is_asleep(k))
    }
}

/// A state near the beginning, behind which one part of a search lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefix {
    picks: Vec<usize>,
    sleep: Vec<Asleep>,
}

#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// All lies behind this.
    prefix: Prefix,
    /// Nothing behind states of this depth: these are noted.
    cut_at: Option<usize>,
    leaves: Vec<Prefix>,
    relation: Relation,
    nodes: Vec<Node>,
    path: Path,
    /// Steps taken in this execution.
    steps: usize,
    /// All that could be done was asleep: the rest of this execution is known.
    redundant: bool,
    strayed: bool,
}

impl Tree {
    /// The step before is over: these are the choices after it, and what would be picked by default.
    fn arrive(&mut self, window: u64, choices: &[Choice], default: usize) {
        if self.redundant || self.steps < self.nodes.len() {
            return;
        }
        self.finish(window, choices);
        let at = self.nodes.len();
        let fixed = self.prefix.picks.get(at).copied();
        let sleep: Vec<Asleep> = match (self.nodes.last(), self.path.events().last()) {
            _ if fixed.is_some() => Vec::new(),
            _ if at == self.prefix.picks.len() => self.prefix.sleep.clone(),
            (Some(node), Some(event)) => {
                let all = node.sleep.iter().chain(&node.done);
                let offered = |s: &Asleep| choices.iter().any(|c| key(c) == s.key);
                let stays = all.filter(|s| offered(s) && self.stays_asleep(s, &event.effects));
                stays.cloned().collect()
            }
            _ => Vec::new(),
        };
        let last = self.nodes.last();
        let apart = last.map_or(APART, |n| if n.is_point { 1 } else { n.apart + 1 });
        let mut node = Node {
            ways: choices.len(),
            known: Vec::new(),
            pick: fixed.unwrap_or(default),
            choices: last.map_or(0, |n| n.choices + usize::from(n.ways > 1)),
            apart,
            is_point: choices.len() > 1 && apart >= APART,
            wanted: 0,
            done: Vec::new(),
            sleep,
        };
        let asleep = |c: &Choice| !node.sleep.is_empty() && node.is_asleep(&key(c));
        if asleep(&choices[node.pick]) {
            let awake = choices.iter().position(|c| !asleep(c));
            let Some(awake) = awake else {
                self.redundant = true;
                return;
            };
            node.pick = awake;
        }
        node.wanted = 1 << choices[node.pick].cpu.0;
        if let Some(cut_at) = self.cut_at {
            node.wanted = u64::MAX;
            if at == cut_at {
                self.redundant = true;
                return self.leaf(node.sleep);
            }
        }
        self.nodes.push(node);
    }

    /// Behind this state there is a part of the search.
    fn leaf(&mut self, sleep: Vec<Asleep>) {
        let picks = self.nodes.iter().map(|n| n.pick).collect();
        self.leaves.push(Prefix { picks, sleep });
    }

    fn stays_asleep(&self, s: &Asleep, step: &Effects) -> bool {
        s.key.0 != step.cpu && !self.relation.dependent(&s.effects, step)
    }

    /// Finds what the last step races with, and has the other orders explored.
    fn finish(&mut self, window: u64, after: &[Choice]) {
        let races = self.path.finish(&self.relation, window, after);
        let Some(last) = self.path.events().len().checked_sub(1) else {
            return;
        };
        // What others could have done instead, and cannot any more, might have come first.
        self.nodes[last].wanted |= self.path.events()[last].effects.lost;
        for race in races {
            self.reverse(race, last);
        }
    }

    /// Has an order explored in which event `later` comes before event `earlier`.
    fn reverse(&mut self, earlier: usize, later: usize) {
        if self.nodes[earlier].wants_all(&self.path.events()[earlier]) {
            return;
        }
        let between = (earlier + 1..later).filter(|&i| !self.path.before(earlier, i));
        let sequence: SmallVec<[usize; 32]> = between.chain([later]).collect();
        let events = self.path.events();
        let cpu = |i: usize| events[i].effects.cpu;
        // What can come first of these.
        let firsts = sequence.iter().enumerate().filter(|&(at, &i)| {
            !sequence[..at]
                .iter()
                .any(|&j| cpu(j) == cpu(i) || self.path.before(j, i))
        });
        let firsts: SmallVec<[usize; 8]> = firsts.map(|(_, &i)| i).collect();
        let node = &mut self.nodes[earlier];
        let offered = |i: usize| {
            let e = &events[i];
            let key = e.keys[e.picked];
            let mut there = events[earlier].keys.iter();
            there.any(|k| (k.0, k.1) == (key.0, key.1))
        };
        // `earlier` made it possible: it cannot come first.
        if firsts[..] == [later] && !offered(later) {
            return;
        }
        if firsts.iter().any(|&i| node.wanted & 1 << cpu(i) != 0) {
            return;
        }
        match firsts.iter().find(|&&i| offered(i)) {
            Some(&i) => node.wanted |= 1 << cpu(i),
            None => node.wanted = u64::MAX,
        }
    }

    /// The execution is over. Gives how many choices the next one has in common with it; `None`
    /// when there is nothing left to explore.
    fn advance(&mut self) -> Option<usize> {
        self.strayed |= self.steps < self.nodes.len();
        self.finish(u64::MAX, &[]);
        if self.cut_at.is_some() && !self.redundant {
            self.leaf(Vec::new());
        }
        while self.nodes.len() > self.prefix.picks.len() {
            let depth = self.nodes.len() - 1;
            self.path.truncate(depth + 1);
            let event = self.path.events().get(depth);
            if let Some(pick) = event.and_then(|event| self.nodes[depth].next(event))
                && let Some(event) = self.path.pop()
            {
                let node = &mut self.nodes[depth];
                node.done.push(Asleep {
                    key: event.keys[node.pick],
                    effects: event.effects,
                });
                node.pick = pick;
                node.known = event.keys.into_vec();
                return Some(node.choices);
            }
            self.nodes.truncate(depth);
            self.path.truncate(depth);
        }
        None
    }
}

/// Takes the way that the tree says.
pub(crate) struct Guide(Rc<RefCell<Tree>>);

impl Chooser for Guide {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let tree = &mut *self.0.borrow_mut();
        tree.arrive(offer.window, offer.choices, offer.default_pick());
        match tree.nodes.get(tree.steps) {
            Some(node) => {
                tree.strayed |= node.ways != offer.choices.len();
                node.pick
            }
            None => offer.default_pick(),
        }
    }

    fn explores(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let tree = &mut *self.0.borrow_mut();
        // Where there was no choice, nobody asked.
        if step.choices.len() == 1 {
            tree.arrive(step.window, step.choices, 0);
        }
        let depth = tree.steps;
        tree.steps += 1;
        let Some(node) = tree.nodes.get(depth) else {
            return;
        };
        // Where it was come to before: what could be done there then.
        let known = match tree.path.events().get(depth) {
            Some(event) => &event.keys[..],
            None => &node.known[..],
        };
        let taken = || key(&step.choices[step.picked]);
        tree.strayed |= node.ways != step.choices.len()
            || step.picked != node.pick
            || known.get(node.pick).is_some_and(|k| *k != taken());
        if depth == tree.path.events().len() {
            tree.path.push(step);
        }
    }

    fn passed(&mut self, _: usize, steps: usize) {
        let tree = &mut *self.0.borrow_mut();
        tree.steps = steps;
    }

    fn comes_back(&self) -> bool {
        let tree = &*self.0.borrow();
        let node = tree.nodes.get(tree.steps);
        node.is_some_and(|node| !tree.redundant && node.is_point)
    }

    fn records(&self) -> bool {
        true
    }
}

/// Explores one execution of each trace.
pub(crate) struct Search(Rc<RefCell<Tree>>);

impl Search {
    pub fn new(relation: Relation, prefix: Prefix, cut_at: Option<usize>) -> Search {
        Search(Rc::new(RefCell::new(Tree {
            relation,
            prefix,
            cut_at,
            ..Tree::default()
        })))
    }

    /// What takes the next order.
    pub fn chooser(&self) -> Guide {
        let tree = &mut *self.0.borrow_mut();
        tree.redundant = false;
        tree.steps = 0;
        Guide(Rc::clone(&self.0))
    }

    /// The class of the execution that is over, by all rules; `None` when it was given up as
    /// equivalent to one before.
    pub fn class(&self) -> Option<u64> {
        let tree = &mut *self.0.borrow_mut();
        tree.finish(u64::MAX, &[]);
        let class = || match tree.relation.without {
            Some(_) => tree.path.class_by(&Relation::default()),
            None => tree.path.class(),
        };
        (!tree.redundant).then(class)
    }

    /// How many choices the next execution has in common with the last one; `None` when there is
    /// nothing left to explore.
    pub fn advance(&self) -> Option<usize> {
        self.0.borrow_mut().advance()
    }

    pub fn strayed(&self) -> bool {
        self.0.borrow().strayed
    }
}

/// Explores what lies behind a prefix, with at most so many executions.
pub(crate) fn explore(
    runner: &Runner,
    worker: &mut Worker<'_>,
    prefix: &Prefix,
    limit: u64,
    clock: &Clock,
    unit: &mut Unit,
) {
    let search = Search::new(runner.relation, prefix.clone(), None);
    unit.expect(limit);
    let mut back = Back::new(&runner.config, worker, runner.restarts);
    let record = back.record();
    let mut keep = 0;
    loop {
        if unit.counts.executions >= limit || clock.is_over() {
            unit.complete = false;
            return;
        }
        let run = back.run(keep, search.chooser());
        let class = search.class();
        unit.counts.redundant += class.is_none() as u64;
        let record = &*record.borrow();
        unit.count(&run, record, true, class);
        unit.check_again(runner, &runner.config, back.worker(), (&run, record, true));
        if let Some(found) = &mut unit.failure {
            found.seed = runner.config.seed;
        }
        let goes_on = search.advance();
        if search.strayed() {
            unit.stray();
        }
        match goes_on {
            Some(common) if unit.failure.is_none() => keep = common,
            _ => return,
        }
    }
}

/// Deepest cut.
const DEEPEST: usize = 40;

/// Cuts a search at states of one depth, and says how many executions that took. There, every way
/// to go on is taken, but for those that sleep sets show to be equivalent.
pub(crate) fn cut(runner: &Runner, worker: &mut Worker<'_>, clock: &Clock) -> (Vec<Prefix>, u64) {
    let mut executions = 0;
    let mut depth = 4;
    loop {
        // Each search knows its own steps alone: none of another's are passed over.
        let mut back = Back::new(&runner.config, worker, runner.restarts);
        let search = Search::new(runner.relation, Prefix::default(), Some(depth));
        let mut keep = 0;
        let whole = loop {
            back.run(keep, search.chooser());
            executions += 1;
            match search.advance() {
                Some(common) => keep = common,
                None => break true,
            }
            if search.strayed() || clock.is_over() {
                break false;
            }
        };
        let leaves = std::mem::take(&mut search.0.borrow_mut().leaves);
        if !whole {
            // What is wrong shows when all is explored as one.
            return (vec![Prefix::default()], executions);
        }
        if leaves.len() >= PARTS || depth >= DEEPEST {
            return (leaves, executions);
        }
        depth += 4;
    }
}
