//! The executions of a search: each makes the first choices of the one before, and goes back to
//! the first that differs instead of beginning anew.

use crate::runner::{Begin, Run, Worker};
use crate::schedule::{Record, Recorder};
use bpfsim_kernel::{Chooser, Config};
use std::cell::RefCell;
use std::rc::Rc;

/// Runs one execution of a search after another.
pub(crate) struct Back<'a, 'w> {
    config: &'a Config,
    worker: &'a mut Worker<'w>,
    record: Rc<RefCell<Record>>,
    /// Each execution begins anew.
    restarts: bool,
    begun: bool,
}

impl<'a, 'w> Back<'a, 'w> {
    pub fn new(config: &'a Config, worker: &'a mut Worker<'w>, restarts: bool) -> Back<'a, 'w> {
        Back {
            config,
            worker,
            record: Rc::default(),
            restarts,
            begun: false,
        }
    }

    /// What runs them.
    pub fn worker(&mut self) -> &mut Worker<'w> {
        self.worker
    }

    /// The order that the last one took.
    pub fn record(&self) -> Rc<RefCell<Record>> {
        Rc::clone(&self.record)
    }

    /// Runs an execution whose first `keep` choices are those of the last one.
    pub fn run<C: Chooser + 'static>(&mut self, keep: usize, chooser: C) -> Run {
        let begin = match (self.restarts, std::mem::replace(&mut self.begun, true)) {
            (true, _) => Begin::Alone,
            (false, false) => Begin::First,
            (false, true) => Begin::Again(keep),
        };
        let recorder = Recorder::again(chooser, &self.record);
        (self.worker)(self.config, begin, Box::new(recorder))
    }
}
