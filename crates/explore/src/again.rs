//! Whether a test is deterministic: an execution made twice, with the same choices, does the same
//! twice, or the test depends on something that is not part of the simulation.
//!
//! Every [so many](crate::Runner::recheck)th execution is made again, and each one that failed
//! before anybody is told.

use crate::runner::{Run, Worker, observed};
use crate::{Failed, Record, Replay, Schedule};
use bpfsim_kernel::{Chooser, Config, Usual};

/// Makes an execution again, in an order or the usual one, and says how it was another.
pub(crate) fn differs(
    config: &Config,
    worker: &mut Worker<'_>,
    was: &Run,
    schedule: Option<&Schedule>,
) -> Option<Failed> {
    let chooser: Box<dyn Chooser> = match schedule {
        Some(schedule) => Box::new(Replay::new(schedule.clone())),
        None => Box::new(Usual),
    };
    let (is, record) = observed(config, worker, chooser);
    unlike(was, &is, &record)
}

/// The failure that it is that an execution was made again and is not what it was, if it is not.
pub fn unlike(was: &Run, is: &Run, record: &Record) -> Option<Failed> {
    let alike = match (&was.result, &is.result) {
        (Ok(()), Ok(())) => true,
        (Err(was), Err(is)) => was.like(is),
        _ => false,
    };
    let same = alike && was.trace == is.trace && !record.strayed;
    let failed = was.result.as_ref().err();
    (!same).then(|| Failed::nondeterminism(Some([was.trace, is.trace]), failed))
}
