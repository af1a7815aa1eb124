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

/// Runs rounds of units: `next` is given the results of the last round in the order of its units -
/// of none before the first - and says what the next one's units are; none end it. Each thread has
/// what `worker` makes for itself. What comes of it depends on the rounds alone, not on the number
/// of threads.
pub fn in_rounds<W, C: Send, T: Send>(
    threads: usize,
    worker: impl Fn() -> W + Sync,
    unit: impl Fn(&mut W, C) -> T + Sync,
    mut next: impl FnMut(Vec<T>) -> Vec<C>,
) {
    let threads = threads.max(1);
    let (give, take) = unbounded::<(usize, Vec<C>)>();
    let (back, results) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (take, back) = (take.clone(), back.clone());
            let (worker, unit) = (&worker, &unit);
            let work = move || {
                let mut own = worker();
                for (nth, units) in take {
                    let done: Vec<T> = units.into_iter().map(|u| unit(&mut own, u)).collect();
                    if back.send((nth, done)).is_err() {
                        return;
                    }
                }
            };
            let named = std::thread::Builder::new().name(WORKER.to_string());
            // As in `in_order`.
            if named.spawn_scoped(scope, work.clone()).is_err() {
                scope.spawn(work);
            }
        }
        drop((take, back));
        let mut done = Vec::new();
        loop {
            let mut units = next(std::mem::take(&mut done));
            let each = units.len().div_ceil(threads).max(1);
            let mut parts = 0;
            while !units.is_empty() {
                let rest = units.split_off(each.min(units.len()));
                let part = std::mem::replace(&mut units, rest);
                if give.send((parts, part)).is_err() {
                    return;
                }
                parts += 1;
            }
            if parts == 0 {
                // Without it the threads end.
                drop(give);
                return;
            }
            let mut came: Vec<(usize, Vec<T>)> = results.iter().take(parts).collect();
            came.sort_by_key(|(nth, _)| *nth);
            // A thread that is gone has panicked, which the scope passes on.
            if came.len() < parts {
                return;
            }
            done = came.into_iter().flat_map(|(_, part)| part).collect();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_the_same_on_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::<u64>::new();
            in_rounds(
                threads,
                || 0,
                |made: &mut u64, n: u64| {
                    *made += 1;
                    n * 2
                },
                |done| {
                    seen.extend(&done);
                    (0..done.len() as u64 + 1)
                        .filter(|_| done.len() < 9)
                        .collect()
                },
            );
            let expected = (1..10).flat_map(|n| (0..n).map(|i| i * 2));
            assert_eq!(seen, expected.collect::<Vec<_>>());
        }
    }

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
