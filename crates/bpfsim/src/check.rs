//! Running a test in one order or in many.

use crate::{Config, Error, Result, Sim};
use bpfsim_explore::Seed;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test failed in some order.
pub struct TestFailure {
    /// The order.
    pub seed: Seed,
    /// How many orders were tried, this one included.
    pub executions: u64,
    /// What went wrong.
    pub message: String,
}

/// What the functions of this module return, and what a `#[test]` can.
pub type TestResult = std::result::Result<(), TestFailure>;

// A test that returns an error is reported through Debug.
impl fmt::Debug for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match self.seed {
            Seed::USUAL => write!(f, "\n  in the usual order"),
            seed => write!(
                f,
                "\n  in the order of seed {seed}, execution {}; to see it again: check_seed(f, {seed})",
                self.executions
            ),
        }
    }
}

impl std::error::Error for TestFailure {}

/// Runs a test in the usual order.
pub fn check(test: impl Fn(&Sim) -> Result<()>) -> TestResult {
    check_seed(test, Seed::USUAL.0)
}

/// Runs a test in the order that a seed names.
pub fn check_seed(test: impl Fn(&Sim) -> Result<()>, seed: u64) -> TestResult {
    once(&test, Seed(seed), 1)
}

/// Runs a test in `n` random orders: those of the seeds 1 to `n`.
pub fn check_random(test: impl Fn(&Sim) -> Result<()>, n: u64) -> TestResult {
    (1..=n).try_for_each(|seed| once(&test, Seed(seed), seed))
}

/// The user's assertions may panic: that too is a failure of this order.
fn once(test: &impl Fn(&Sim) -> Result<()>, seed: Seed, executions: u64) -> TestResult {
    let failed = |message: String| TestFailure {
        seed,
        executions,
        message,
    };
    let config = Config {
        seed: seed.0,
        ..Config::default()
    };
    let sim = Sim::with(config, seed).map_err(|e| failed(e.to_string()))?;
    match catch_unwind(AssertUnwindSafe(|| test(&sim))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(describe(&error))),
        Err(panic) => Err(failed(panic_text(panic.as_ref()))),
    }
}

fn describe(error: &Error) -> String {
    error.to_string()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the test panicked".to_string())
}
