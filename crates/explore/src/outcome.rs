//! What an exploration found, and what it covered.

use crate::{Failed, ReplayString, Schedule, Strategy};
use bpfsim_kernel::{Config, mix};
use bpfsim_vm::ByWord;
use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasherDefault;

/// The end of an exploration, as a value.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How orders were picked.
    pub strategy: Strategy,
    /// The machine.
    pub config: Config,
    /// What was counted.
    pub counts: Counts,
    /// Every order that the strategy has within its bounds was taken, or, where orders are
    /// reduced, one that is equivalent to it.
    pub complete: bool,
    /// The failure of the lowest-numbered execution that failed.
    pub failure: Option<Found>,
}

/// Hashes, which are spread well enough already.
pub type Traces = HashSet<u64, BuildHasherDefault<ByWord>>;

/// Sums over executions. With a failure, up to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Executions begun.
    pub executions: u64,
    /// Of these, those that were given up half way, for being equivalent to others.
    pub redundant: u64,
    /// Hashes of distinct traces.
    pub traces: Traces,
    /// Hash of the traces one after another, of all executions.
    pub sequence: u64,
    /// Choices between two or more ways to go on.
    pub choices: u64,
    /// Steps.
    pub steps: u64,
    /// Choices not followed because of the bound on preemptions.
    pub cut: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Counts) {
        self.executions += other.executions;
        self.redundant += other.redundant;
        let mut fewer = other.traces;
        if self.traces.len() < fewer.len() {
            std::mem::swap(&mut self.traces, &mut fewer);
        }
        // They come in the order of their hashes, which would crowd a table that grows meanwhile.
        self.traces.reserve(fewer.len());
        self.traces.extend(fewer);
        self.sequence = mix(self.sequence, other.sequence);
        self.choices += other.choices;
        self.steps += other.steps;
        self.cut += other.cut;
    }
}

/// A failure, and the order in which it comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What went wrong.
    pub failed: Failed,
    /// Number of the execution, from 1.
    pub execution: u64,
    /// The order; `None` for the usual one.
    pub schedule: Option<Schedule>,
    /// Seed of the machine's random numbers in it.
    pub seed: u64,
    /// Preemptions in it.
    pub preemptions: u64,
    /// Steps in it.
    pub steps: u64,
    /// Hash of the objects that were loaded.
    pub objects: u32,
    /// Hash of the trace.
    pub trace: u64,
    /// Executions that it took to make the order small; 0 when it is as it was found.
    pub shrunk: u64,
}

impl Found {
    /// What makes it come about again on such a machine.
    pub fn replay(&self, config: &Config) -> ReplayString {
        ReplayString {
            objects: self.objects,
            config: Config {
                seed: self.seed,
                ..config.clone()
            },
            schedule: self.schedule.clone(),
        }
    }
}

impl Outcome {
    /// What to paste to see the failure again.
    pub fn replay(&self) -> Option<ReplayString> {
        self.failure.as_ref().map(|f| f.replay(&self.config))
    }
}

/// One execution or several.
pub(crate) fn plural(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// What was covered, and within which bounds.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(
            f,
            "{}, {}, {}",
            plural(counts.executions, "execution"),
            plural(counts.traces.len() as u64, "distinct trace"),
            plural(counts.choices, "choice")
        )?;
        if counts.redundant > 0 {
            write!(f, ", {} given up as equivalent", counts.redundant)?;
        }
        if self.failure.is_some() {
            return Ok(());
        }
        let bound = match self.strategy {
            Strategy::Bounded { preemptions } if counts.cut > 0 => {
                format!(" with at most {}", plural(preemptions, "preemption"))
            }
            _ => String::new(),
        };
        match (self.complete, self.strategy.is_exhaustive()) {
            (true, true) if !self.config.chances.is_none() => write!(
                f,
                ": every order{bound} with {} in each, given sequential consistency, these inputs, \
                 this seed, a horizon of {} ns and {}",
                self.config.chances,
                self.config.horizon,
                plural(self.config.cpus.into(), "CPU")
            ),
            (true, true) => write!(
                f,
                ": every order{bound}, given sequential consistency, these inputs, a horizon of \
                 {} ns and {}",
                self.config.horizon,
                plural(self.config.cpus.into(), "CPU")
            ),
            (false, true) => write!(f, ": not every order{bound}, a limit came first"),
            (_, false) => write!(f, ": a sample of the orders, {}", self.strategy),
        }
    }
}
