//! Every order with at most so many preemptions, one after another.
//!
//! Musuvathi, Qadeer, "Iterative Context Bounding for Systematic Testing of Multithreaded
//! Programs", PLDI 2007: most bugs need few preemptions, and of the orders with few there are
//! polynomially many. A preemption is a step of another execution while the one before could have
//! gone on.

use crate::schedule::{Last, default_pick};
use bpfsim_kernel::{Chooser, Offer, Step};
use std::cell::RefCell;
use std::rc::Rc;

/// A choice between two or more, on the way that is being taken.
#[derive(Debug)]
struct Node {
    choices: usize,
    /// What is picked now, and after that the others, last first.
    pick: usize,
    rest: Vec<usize>,
}

#[derive(Debug, Default)]
struct Way {
    nodes: Vec<Node>,
    at: usize,
    preemptions: u64,
    last: Option<Last>,
    strayed: bool,
    /// Picks that the bound forbade.
    cut: u64,
}

/// Enumerates orders depth first.
#[derive(Debug)]
pub struct Bounded {
    way: Rc<RefCell<Way>>,
    bound: u64,
    begun: bool,
}

/// Takes one of the orders.
struct OnTheWay {
    way: Rc<RefCell<Way>>,
    bound: u64,
}

impl Bounded {
    /// All orders with at most `bound` preemptions.
    pub fn new(bound: u64) -> Bounded {
        Bounded {
            way: Rc::default(),
            bound,
            begun: false,
        }
    }

    /// The next order, once the one before has been taken to its end; `None` after the last.
    pub fn next_order(&mut self) -> Option<Box<dyn Chooser>> {
        let mut way = self.way.borrow_mut();
        if std::mem::replace(&mut self.begun, true) {
            loop {
                let node = way.nodes.last_mut()?;
                if let Some(pick) = node.rest.pop() {
                    node.pick = pick;
                    break;
                }
                way.nodes.pop();
            }
        }
        (way.at, way.preemptions, way.last) = (0, 0, None);
        Some(Box::new(OnTheWay {
            way: Rc::clone(&self.way),
            bound: self.bound,
        }))
    }

    /// True when an execution was offered other choices than the one before it.
    pub fn strayed(&self) -> bool {
        self.way.borrow().strayed
    }

    /// Choices not followed because of the bound.
    pub fn cut(&self) -> u64 {
        self.way.borrow().cut
    }
}

impl Chooser for OnTheWay {
    fn choose(&mut self, offer: &Offer<'_>) -> usize {
        let way = &mut *self.way.borrow_mut();
        let choices = offer.choices.len();
        if let Some(node) = way.nodes.get(way.at) {
            way.strayed |= node.choices != choices;
        } else {
            let pick = default_pick(offer.choices, way.last);
            let goes_on = way
                .last
                .is_some_and(|last| last.goes_on(&offer.choices[pick]));
            let full = goes_on && way.preemptions >= self.bound;
            // What comes out otherwise preempts nobody.
            let free = |&i: &usize| !full || offer.choices[i].is_chance_of(&offer.choices[pick]);
            let others = (0..choices).rev().filter(|&i| i != pick);
            let rest: Vec<usize> = others.filter(free).collect();
            way.cut += (choices - 1 - rest.len()) as u64;
            way.nodes.push(Node {
                choices,
                pick,
                rest,
            });
        }
        way.at += 1;
        way.nodes[way.at - 1].pick
    }

    fn explores(&self) -> bool {
        true
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let way = &mut *self.way.borrow_mut();
        let preempted = way.last.is_some_and(|last| last.is_preempted(step));
        way.preemptions += preempted as u64;
        way.last = Some(Last::of(step));
    }
}
