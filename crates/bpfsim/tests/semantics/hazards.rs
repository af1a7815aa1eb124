//! What Linux was not asked, since it might not come back: reported as failures.

use crate::world::*;
use bpfsim::{Cpu, Error, Failure, FailureKind, Wait, ensure_eq, micros, millis};

/// (1.20) The evictor waits for the victim's callback, the lists of the map locked, and the
/// callback wants them.
#[test]
fn eviction_while_the_callback_updates_the_map() -> bpfsim::Result<()> {
    let mut w = World::new()?;
    let script = [
        on(Code::SetFlag, 0, 0).arg(1),
        on(Code::Spin, 0, 0).arg(60_000),
        on(Code::Update, RECENT, 5),
    ];
    w.script(0, &script)?;
    let mut ops = arm(RECENT, 0, 0, 0);
    // New elements wait in a list of their CPU's until it has made some more.
    ops.splice(3..3, (1..5).map(|k| on(Code::Update, RECENT, k)));
    w.spawn(1, &ops)?;
    // Only where all are in use is one in use evicted.
    let wait = on(Code::Wait, 0, 0).arg(10_000);
    let fill = (10..36).flat_map(|k| [on(Code::Update, RECENT, k), on(Code::Read, RECENT, k)]);
    let ops: Vec<Op> = std::iter::once(wait).chain(fill).collect();
    w.spawn(0, &ops)?;
    match w.sim.run_for(millis(100)) {
        Err(Error::Failure(Failure {
            kind: FailureKind::Deadlock(waiting),
            ..
        })) => {
            let lru = waiting
                .iter()
                .filter(|w| matches!(w.waiting.wait, Wait::LruLock(_)));
            let callback = waiting
                .iter()
                .filter(|w| matches!(w.waiting.wait, Wait::TimerCallback(_)));
            ensure_eq!((lru.count(), callback.count()), (1, 1));
            Ok(())
        }
        other => panic!(
            "no deadlock: {other:?}, {:?}, {:?}",
            w.entries(),
            w.map(RECENT).keys().collect::<Vec<_>>()
        ),
    }
}

/// A task that sleeps leaves its CPU to others, and one that pauses until it is killed does not
/// keep a simulation from its end.
#[test]
fn sleepers_leave_the_cpu() -> bpfsim::Result<()> {
    let mut w = World::new()?;
    let task = w.sim.spawn_user(Cpu(0), async |u| {
        u.pause().await;
        Ok(())
    })?;
    w.sim.spawn_user(Cpu(0), async |u| {
        let before = u.now();
        u.sleep(micros(50)).await;
        bpfsim::ensure!(u.now() - before >= micros(50));
        Ok(())
    })?;
    ensure_eq!(w.run(&[on(Code::Cpu, 0, 0)])?, [0]);
    w.sim.run_for(millis(1))?;
    task.exit(&w.sim).expect("it sleeps");
    w.sim.finish()
}
