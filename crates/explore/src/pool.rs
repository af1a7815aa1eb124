//! Units of work on threads, with results that do not depend on how many there are.

use crossbeam_channel::{bounded, unbounded};
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the threads on which executions run.
pub const WORKER: &str = "bpfsim-worker";

/// Runs the units 0 to `n - 1`, on `threads` threads, and hands each result to `merge` in the
/// order of their numbers. After the first one for which `ends` is true come no more: units behind
/// it may run, their results are dropped. Each thread has what `worker` makes for itself.
pub(crate) fn in_order<W, T: Send>(
    n: u64,
    threads: usize,
    worker: impl Fn() -> W + Sync,
    unit: impl Fn(&mut W, u64) -> T + Sync,
    ends: impl Fn(&T) -> bool + Sync,
    mut merge: impl FnMut(T),
) {
    // No unit behind this one is wanted.
    let last = AtomicU64::new(n.saturating_sub(1));
    let (give, take) = bounded::<u64>(threads);
    let (back, results) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (take, back) = (take.clone(), back.clone());
            let (worker, unit, ends, last) = (&worker, &unit, &ends, &last);
            let work = move || {
                let mut own = worker();
                for i in take {
                    if i > last.load(Ordering::Acquire) {
                        continue;
                    }
                    let result = unit(&mut own, i);
                    if ends(&result) {
                        last.fetch_min(i, Ordering::AcqRel);
                    }
                    if back.send((i, result)).is_err() {
                        return;
                    }
                }
            };
            let named = std::thread::Builder::new().name(WORKER.to_string());
            // A thread fewer is no harm while there is one; the last is the caller's own.
            if named.spawn_scoped(scope, work.clone()).is_err() {
                scope.spawn(work);
            }
        }
        drop((take, back));
        let mut waiting = std::collections::BTreeMap::new();
        let (mut next, mut given) = (0, 0);
        let mut give = Some(give);
        while next <= last.load(Ordering::Acquire) && next < n {
            let wanted = given <= last.load(Ordering::Acquire) && given < n;
            if !wanted {
                give = None;
            }
            match &give {
                // Results are taken in between, so that they do not pile up.
                Some(to) => crossbeam_channel::select! {
                    send(to, given) -> sent => match sent {
                        Ok(()) => given += 1,
                        Err(_) => break,
                    },
                    recv(results) -> result => match result {
                        Ok((i, result)) => { waiting.insert(i, result); }
                        Err(_) => break,
                    },
                },
                None => match results.recv() {
                    Ok((i, result)) => {
                        waiting.insert(i, result);
                    }
                    Err(_) => break,
                },
            }
            while let Some(result) = waiting.remove(&next) {
                let ended = ends(&result);
                merge(result);
                next += 1;
                if ended {
                    return;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_in_order_up_to_the_first_that_ends() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let unit = |_: &mut (), i: u64| {
                // Later units tend to be ready first.
                std::thread::sleep(std::time::Duration::from_micros(50 * (100 - i)));
                i
            };
            in_order(
                100,
                threads,
                || (),
                unit,
                |&i| i % 40 == 39,
                |i| seen.push(i),
            );
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
            let mut sum = 0;
            in_order(100, threads, || (), |_, i| i, |_| false, |i| sum += i);
            assert_eq!(sum, 4950);
        }
    }
}
