//! Every order with at most so many preemptions, one after another.
//!
//! Musuvathi, Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded
//! Programs", PLDI 2007: most bugs need few preemptions, and of the orders with few there are
//! polynomially many. A preemption is a step of another execution while the one before could have
//! gone on.

use crate::back::Back;
use crate::hb::{Observer, Path};
use crate::runner::{Clock, Runner, Unit, Worker};
use bpfsim_kernel::{Chooser, Offer};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::rc::Rc;

/// A choice between two or more, on the way that is being taken.
#[derive(Debug)]
struct Node {
    choices: usize,
    /// What is picked now, and after that the others, last first.
    pick: usize,
    rest: SmallVec<[usize; 4]>,
    /// Preemptions up to this choice, this one too.
    preemptions: u64,
    /// Choices between it and the last one before it that can be gone back to at once, if it cannot.
    apart: usize,
}

impl Node {
    /// It can be gone back to at once.
    fn is_point(&self) -> bool {
        self.apart == 0
    }
}

/// Remembering a machine costs as much as some steps: choices that can be gone back to at once are so many
/// choices apart, and to those between them it is gone from there.
const APART: usize = 2;

/// What is picked in the first choices, behind which one part of a search lies.
pub(crate) type Picks = Vec<usize>;

#[derive(Debug, Default)]
struct Way {
    bound: u64,
    /// All lies behind these.
    prefix: Picks,
    /// Of the choices behind so many only the default is taken.
    cut_at: Option<usize>,
    nodes: Vec<Node>,
    at: usize,
    strayed: bool,
    /// Picks that the bound forbade.
    cut: u64,
}

/// Enumerates orders depth first.
#[derive(Debug)]
pub(crate) struct Bounded {
    way: Rc<RefCell<Way>>,
    begun: bool,
}

/// Takes one of the orders.
pub(crate) struct OnTheWay(Rc<RefCell<Way>>);

impl Bounded {
    /// All orders with at most `bound` preemptions.
    pub fn new(bound: u64) -> Bounded {
        Bounded::behind(bound, Picks::new(), None)
    }

    /// Those of them that begin with these picks; with `cut_at`, one for each beginning of so many
    /// choices.
    fn behind(bound: u64, prefix: Picks, cut_at: Option<usize>) -> Bounded {
        let way = Way {
            bound,
            prefix,
            cut_at,
            ..Way::default()
        };
        Bounded {
            way: Rc::new(RefCell::new(way)),
            begun: false,
        }
    }

    /// The next order, once the one before has been taken to its end, and how many first choices
    /// they have in common; `None` after the last.
    pub fn next_order(&mut self) -> Option<(usize, OnTheWay)> {
        let way = &mut *self.way.borrow_mut();
        if std::mem::replace(&mut self.begun, true) {
            way.strayed |= way.at < way.nodes.len();
            loop {
                let node = way.nodes.last_mut()?;
                if let Some(pick) = node.rest.pop() {
                    node.pick = pick;
                    break;
                }
                way.nodes.pop();
            }
        }
        way.at = 0;
        let keep = way.nodes.len().saturating_sub(1);
        Some((keep, OnTheWay(Rc::clone(&self.way))))
    }

    /// True when an execution was offered other choices than the one before it.
    pub fn strayed(&self) -> bool {
        self.way.borrow().strayed
    }

    /// Choices not followed because of the bound.
    pub fn cut(&self) -> u64 {
        self.way.borrow().cut
    }

    /// The picks of the order that was taken, up to where the search is cut.
    fn picks(&self) -> Picks {
        self.way.borrow().nodes.iter().map(|n| n.pick).collect()
    }
}

impl Way {
    /// Preemptions up to the choice that is come to now.
    fn preemptions(&self) -> u64 {
        let before = self.at.checked_sub(1).and_then(|at| self.nodes.get(at));
        before.map_or(0, |node| node.preemptions)
    }

    /// What there is to try of so many choices, in the one that is come to now; `free` are those that preempt
    /// nobody, if the bound does not allow any that does.
    fn node(&self, choices: usize, pick: usize, free: Option<&dyn Fn(usize) -> bool>) -> Node {
        let before = self.at.checked_sub(1).and_then(|at| self.nodes.get(at));
        let mut node = Node {
            choices,
            pick,
            rest: SmallVec::new(),
            preemptions: 0,
            apart: before.map_or(APART, |node| node.apart + 1),
        };
        if let Some(&pick) = self.prefix.get(self.at) {
            node.pick = pick;
            return node;
        }
        for other in (0..choices).rev() {
            if other != pick && free.is_none_or(|free| free(other)) {
                node.rest.push(other);
            }
        }
        if node.apart >= APART && !node.rest.is_empty() {
            node.apart = 0;
        }
        node
    }

    /// Makes the choice that is come to now, of so many.
    #[inline]
    fn choose(
        &mut self,
        choices: usize,
        default: impl Fn() -> usize,
        preempts: impl Fn(usize) -> bool,
        node: impl FnOnce(&Way) -> Node,
    ) -> usize {
        if self.cut_at.is_some_and(|cut_at| self.at >= cut_at) {
            self.at += 1;
            return default();
        }
        match self.nodes.get(self.at) {
            Some(node) => self.strayed |= node.choices != choices,
            None => {
                let node = node(self);
                match self.at < self.prefix.len() {
                    true => self.strayed |= node.pick >= choices,
                    false => self.cut += (choices - 1 - node.rest.len()) as u64,
                }
                self.nodes.push(node);
            }
        }
        let before = self.preemptions();
        let node = &mut self.nodes[self.at];
        let pick = node.pick.min(choices - 1);
        node.preemptions = before + u64::from(preempts(pick));
        self.at += 1;
        node.pick
    }
}

impl Chooser for OnTheWay {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let n = offer.choices.len();
        self.0.borrow_mut().choose(
            n,
            || offer.default_pick(),
            |pick| offer.preempts(pick),
            |way| {
                let default = offer.default_pick();
                let usual = &offer.choices[default];
                // What comes out otherwise preempts nobody.
                let free = |i: usize| offer.choices[i].is_chance_of(usual);
                let full = offer.goes_on.is_some() && way.preemptions() >= way.bound;
                way.node(n, default, full.then_some(&free))
            },
        )
    }

    fn choose_among(&mut self, choices: usize, goes_on: usize, _: usize) -> Option<usize> {
        let picked = self.0.borrow_mut().choose(
            choices,
            || goes_on,
            |pick| pick != goes_on,
            |way| {
                let full = way.preemptions() >= way.bound;
                way.node(choices, goes_on, full.then_some(&|_| false))
            },
        );
        Some(picked)
    }

    fn explores(&self) -> bool {
        true
    }

    fn follows(&self) -> bool {
        false
    }

    fn passed(&mut self, choices: usize, _: usize) {
        self.0.borrow_mut().at = choices;
    }

    fn comes_back(&self) -> bool {
        let way = &*self.0.borrow();
        let node = way.at.checked_sub(1).and_then(|at| way.nodes.get(at));
        node.is_some_and(Node::is_point)
    }
}

/// Explores what lies behind a prefix, with at most so many executions.
pub(crate) fn explore(
    runner: &Runner,
    worker: &mut Worker<'_>,
    (bound, prefix): (u64, &Picks),
    limit: u64,
    clock: &Clock,
    unit: &mut Unit,
) {
    let mut orders = Bounded::behind(bound, prefix.clone(), None);
    unit.expect(limit);
    let mut back = Back::new(&runner.config, worker, runner.restarts);
    let record = back.record();
    let path = Rc::new(RefCell::new(Path::default()));
    while let Some((keep, chooser)) = orders.next_order() {
        if unit.counts.executions >= limit || clock.is_over() {
            unit.complete = false;
            break;
        }
        let run = match runner.classes {
            true => {
                let chooser = Box::new(chooser);
                back.run(keep, Observer::new(runner.relation, chooser, &path))
            }
            false => back.run(keep, chooser),
        };
        let class = match runner.classes {
            true => path.borrow_mut().end(&runner.relation),
            false => run.trace,
        };
        let record = &*record.borrow();
        unit.count(&run, record, true, Some(class));
        unit.check_again(runner, &runner.config, back.worker(), (&run, record, true));
        if let Some(found) = &mut unit.failure {
            found.seed = runner.config.seed;
        }
        if orders.strayed() {
            unit.stray();
        }
        if unit.failure.is_some() {
            break;
        }
    }
    unit.counts.cut += orders.cut();
}

/// Cuts a search: the beginnings of all orders, of one length, in the order in which a search
/// takes them. Says also what the bound forbade in them.
pub(crate) fn cut(
    runner: &Runner,
    worker: &mut Worker<'_>,
    bound: u64,
    clock: &Clock,
) -> (Vec<Picks>, u64) {
    let mut back = Back::new(&runner.config, worker, runner.restarts);
    let mut depth = 2;
    loop {
        let mut orders = Bounded::behind(bound, Picks::new(), Some(depth));
        let mut parts = Vec::new();
        while let Some((keep, chooser)) = orders.next_order() {
            back.run(keep, chooser);
            if orders.strayed() || clock.is_over() {
                // What is wrong shows when all is explored as one.
                return (vec![Picks::new()], 0);
            }
            parts.push(orders.picks());
        }
        if parts.len() >= PARTS || depth >= DEEPEST {
            return (parts, orders.cut());
        }
        depth += 2;
    }
}

/// Parts that a search is cut into, at least, if it is large enough.
pub(crate) const PARTS: usize = 64;
/// Deepest cut.
const DEEPEST: usize = 40;
