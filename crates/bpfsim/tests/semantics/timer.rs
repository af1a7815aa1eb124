//! Section 1: `bpf_timer`.

use crate::world::*;
use bpfsim::{Cpu, Level, Result, ensure, ensure_eq, micros, millis};

pub fn init_answers(w: &mut World) -> Result<()> {
    let init = |flags| on(Code::TimerInit, ARRAY, 0).flags(flags);
    let answers = w.run(&[
        init(2),
        init(8),
        init(11),
        init(16),
        init(7),
        init(1),
        init(2),
    ])?;
    ensure_eq!(answers, [EINVAL, EINVAL, EINVAL, EINVAL, 0, EBUSY, EINVAL]);
    Ok(())
}

pub fn set_callback_answers(w: &mut World) -> Result<()> {
    let set = |which| on(Code::TimerSetCallback, ARRAY, 0).which(which);
    ensure_eq!(w.run(&[set(0)])?, [EINVAL]);
    let mut ops = arm(ARRAY, 0, 0, 20 * US);
    ops.push(set(1));
    ensure_eq!(w.run(&ops)?, [0, 0, 0, 0, 0]);
    w.sim.run_for(millis(1))?;
    ensure_eq!((w.ran(0), w.ran(1)), (vec![], vec![0]));
    w.map(ARRAY).close()?;
    ensure_eq!(w.run(&[set(1)])?, [EINVAL]);
    Ok(())
}

pub fn start_moves_the_deadline(w: &mut World) -> Result<()> {
    let start = |ns| on(Code::TimerStart, ARRAY, 0).arg(ns);
    let mut ops = arm(ARRAY, 0, 0, FAR);
    ops.extend([start(0).flags(4), start(20 * US), start(10 * US)]);
    ensure_eq!(w.run_tc(&ops)?, [0, 0, 0, 0, EINVAL, 0, 0]);
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(0), [0]);
    Ok(())
}

pub fn relative_deadlines(w: &mut World) -> Result<()> {
    ensure_eq!(w.run(&arm(ARRAY, 0, 0, 1 << 63))?[3], 0);
    w.run(&arm(ARRAY, 1, 0, 50 * US))?;
    w.sim.run_for(micros(10))?;
    ensure_eq!(w.ran(0), NONE);
    w.sim.run_for(bpfsim::secs(100))?;
    ensure_eq!(w.ran(0), [1]);
    Ok(())
}

pub fn absolute_deadlines(w: &mut World) -> Result<()> {
    let mut ops = arm(ARRAY, 0, 0, 1);
    ops[3].flags = 1;
    w.run_tc(&ops)?;
    ensure_eq!(w.ran(0), [0]);
    Ok(())
}

pub fn realtime_is_monotonic(w: &mut World) -> Result<()> {
    let wall_clock = 1_700_000_000_000_000_000;
    let mut ops = arm(ARRAY, 0, 0, wall_clock);
    (ops[1].flags, ops[3].flags) = (0, 1);
    let mut more = arm(ARRAY, 1, 0, 10 * US);
    more[1].flags = 0;
    ops.extend(more);
    w.run(&ops)?;
    w.sim.run_for(bpfsim::secs(100))?;
    ensure_eq!(w.ran(0), [1]);
    Ok(())
}

/// Started from CPU 0, pinned, while its callback runs on CPU 1: it is queued there.
pub fn queued_where_it_runs(w: &mut World) -> Result<()> {
    let wait = on(Code::Wait, 0, 0).which(1).arg(10_000);
    w.script(
        0,
        &[on(Code::SetFlag, 0, 0).arg(1), wait, on(Code::Cpu, 0, 0)],
    )?;
    w.spawn(1, &arm(ARRAY, 1, 0, 0))?;
    w.spawn(
        0,
        &[
            on(Code::Wait, 0, 0).arg(10_000),
            on(Code::TimerStart, ARRAY, 1).arg(0).flags(2),
            on(Code::SetFlag, 0, 0).which(1).arg(1),
        ],
    )?;
    w.sim.run_for(millis(10))?;
    ensure_eq!(w.said(0, Code::Cpu), [1, 1]);
    Ok(())
}

pub fn cancel_in_its_callback(w: &mut World) -> Result<()> {
    w.script(
        0,
        &[on(Code::OwnCancel, 0, 0), on(Code::OwnStart, 0, 0).arg(FAR)],
    )?;
    ensure_eq!(w.run(&[on(Code::TimerCancel, ARRAY, 0)])?, [EINVAL]);
    w.run_tc(&arm(ARRAY, 0, 0, 0))?;
    ensure_eq!(w.said(0, Code::OwnCancel), [EDEADLK]);
    // Nothing was changed: it can be started, and cancelled from outside.
    ensure_eq!(w.said(0, Code::OwnStart), [0]);
    ensure_eq!(w.run(&[on(Code::TimerCancel, ARRAY, 0)])?, [1]);
    Ok(())
}

pub fn cancel_drops_the_callback(w: &mut World) -> Result<()> {
    let mut ops = arm(ARRAY, 0, 0, FAR);
    let at = |code| on(code, ARRAY, 0);
    ops.extend([
        at(Code::TimerCancel),
        at(Code::TimerCancel),
        at(Code::TimerStart),
        at(Code::TimerInit).flags(1),
        at(Code::TimerSetCallback),
        at(Code::TimerStart).arg(FAR),
    ]);
    ensure_eq!(w.run(&ops)?[4..], [1, 0, EINVAL, EBUSY, 0, 0]);
    Ok(())
}

/// A callback on CPU 1 says so, waits for flag 1 and does `last`; CPU 0 cancels meanwhile.
fn cancel_while_running(w: &mut World, before: bool) -> Result<(Vec<i64>, Vec<i64>)> {
    let start = on(Code::OwnStart, 0, 0).arg(FAR);
    let begun = on(Code::SetFlag, 0, 0).arg(1);
    let spin = on(Code::Spin, 0, 0).arg(3_000);
    let script = match before {
        true => vec![start, begun, spin],
        false => vec![begun, spin, start],
    };
    w.script(0, &script)?;
    w.spawn(1, &arm(ARRAY, 1, 0, 0))?;
    let from = w.entries().len();
    w.spawn(
        0,
        &[
            on(Code::Wait, 0, 0).arg(10_000),
            on(Code::TimerCancel, ARRAY, 1),
            on(Code::Cpu, 0, 0),
        ],
    )?;
    w.sim.run_for(millis(10))?;
    let entries = w.entries();
    // It waited: the answer comes after all that the callback did.
    let answer = entries
        .iter()
        .rposition(|e| (e.0, e.1) == (0, Code::TimerCancel as u32));
    let last = entries.iter().rposition(|e| e.0 == 1);
    ensure!(answer > last && last.is_some(), "{entries:?}");
    let cancelled = entries[from..]
        .iter()
        .filter(|e| (e.0, e.1) == (0, Code::TimerCancel as u32))
        .map(|e| e.2);
    Ok((cancelled.collect(), w.said(0, Code::OwnStart)))
}

pub fn cancel_waits(w: &mut World) -> Result<()> {
    // Re-armed before cancel took effect.
    ensure_eq!(cancel_while_running(w, true)?, (vec![1], vec![0]));
    // Tries to re-arm after cancel began.
    *w = World::new()?;
    ensure_eq!(cancel_while_running(w, false)?, (vec![0], vec![EINVAL]));
    Ok(())
}

pub fn expired_and_not_run(w: &mut World) -> Result<()> {
    let mut ops = arm(ARRAY, 0, 0, 0);
    ops.extend([
        on(Code::Spin, 0, 0).arg(100),
        on(Code::TimerCancel, ARRAY, 0),
    ]);
    ensure_eq!(w.run_tc(&ops)?[5], 1);
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(0), NONE);
    Ok(())
}

pub fn two_cancel_each_other(w: &mut World) -> Result<()> {
    let meet = |mine, other| {
        [
            on(Code::SetFlag, 0, 0).which(mine).arg(1),
            on(Code::Wait, 0, 0).which(other).arg(10_000),
            on(Code::TimerCancel, ARRAY, other),
        ]
    };
    w.script(0, &meet(0, 1))?;
    w.script(1, &meet(1, 0))?;
    w.spawn(0, &arm(ARRAY, 0, 0, 0))?;
    w.spawn(1, &arm(ARRAY, 1, 1, 0))?;
    w.sim.run_for(millis(10))?;
    let answers = [w.said(0, Code::TimerCancel), w.said(1, Code::TimerCancel)].concat();
    ensure_eq!(answers.len(), 2);
    ensure!(answers.contains(&EDEADLK), "{answers:?}");
    ensure!(
        answers.iter().all(|a| [0, EDEADLK].contains(a)),
        "{answers:?}"
    );
    Ok(())
}

pub fn cancel_another_from_a_callback(w: &mut World) -> Result<()> {
    w.script(
        0,
        &[
            on(Code::SetFlag, 0, 0).arg(1),
            on(Code::Spin, 0, 0).arg(3_000),
        ],
    )?;
    w.script(
        1,
        &[
            on(Code::Wait, 0, 0).arg(10_000),
            on(Code::TimerCancel, ARRAY, 0),
        ],
    )?;
    w.spawn(1, &arm(ARRAY, 0, 0, 0))?;
    w.spawn(0, &arm(ARRAY, 1, 1, 0))?;
    w.sim.run_for(millis(10))?;
    ensure_eq!(w.said(1, Code::TimerCancel), [0]);
    let spun = w
        .entries()
        .iter()
        .position(|e| e.0 == 1 && e.1 == Code::Spin as u32);
    let answer = w
        .entries()
        .iter()
        .position(|e| e.0 == 2 && e.1 == Code::TimerCancel as u32);
    ensure!(answer > spun);
    Ok(())
}

/// A user task deletes, updates or closes while the callback runs on the other CPU.
pub fn freeing_waits(w: &mut World) -> Result<()> {
    for (map, how) in [(HASH, 0), (HASH, 1), (ARRAY, 1), (SPARSE, 2), (RECENT, 2)] {
        *w = World::new()?;
        w.script(
            0,
            &[
                on(Code::SetFlag, 0, 0).arg(1),
                on(Code::Spin, 0, 0).arg(10_000),
            ],
        )?;
        w.spawn(1, &arm(map, 1, 0, 0))?;
        let target = w.map(map);
        w.sim.spawn_user(Cpu(0), async move |u| {
            u.sleep(micros(20)).await;
            let before = u.now();
            let key = 1u32.to_le_bytes();
            let done = match how {
                0 => u.delete(&target, &key).await,
                1 => u.update(&target, &key, &[0; 64], 0).await,
                _ => u.close(&target).await,
            };
            ensure_eq!(done, Ok(()));
            ensure!(u.now() - before > micros(20), "{:?}", u.now() - before);
            Ok(())
        })?;
        w.sim.run_for(millis(10))?;
        ensure_eq!(w.said(0, Code::Spin), [0]);
        let start = [on(Code::TimerStart, map, 1)];
        ensure!(w.run(&start)?[0] < 0);
    }
    Ok(())
}

pub fn freeing_in_a_callback_does_not_wait(w: &mut World) -> Result<()> {
    w.script(
        0,
        &[
            on(Code::SetFlag, 0, 0).arg(1),
            on(Code::Spin, 0, 0).arg(3_000),
        ],
    )?;
    w.script(
        1,
        &[on(Code::Wait, 0, 0).arg(10_000), on(Code::Delete, HASH, 1)],
    )?;
    w.spawn(1, &arm(HASH, 1, 0, 0))?;
    w.spawn(0, &arm(ARRAY, 1, 1, 0))?;
    w.sim.run_for(millis(10))?;
    ensure_eq!(w.said(1, Code::Delete), [0]);
    let spun = w
        .entries()
        .iter()
        .position(|e| e.0 == 1 && e.1 == Code::Spin as u32);
    let answer = w
        .entries()
        .iter()
        .position(|e| e.0 == 2 && e.1 == Code::Delete as u32);
    ensure!(answer < spun, "{:?}", w.entries());
    Ok(())
}

pub fn freed_before_it_ran(w: &mut World) -> Result<()> {
    for (map, by) in [
        (HASH, Code::Delete),
        (SPARSE, Code::Update),
        (ARRAY, Code::Update),
    ] {
        let mut ops = arm(map, 1, 0, 0);
        ops.push(on(by, map, 1));
        w.run_tc(&ops)?;
    }
    // Expired behind the callback that deletes it, on the same CPU.
    w.script(1, &[on(Code::Delete, HASH, 2)])?;
    let ops = [arm(HASH, 1, 1, 0), arm(HASH, 2, 0, 0)].concat();
    w.run_tc(&ops)?;
    w.sim.run_for(millis(1))?;
    ensure_eq!((w.ran(0), w.ran(1)), (vec![], vec![1]));
    Ok(())
}

pub fn armed_and_freed_in_its_callback(w: &mut World) -> Result<()> {
    let start = on(Code::OwnStart, 0, 0);
    let script = [
        start,
        on(Code::Delete, HASH, 1),
        start,
        on(Code::OwnCancel, 0, 0),
    ];
    w.script(0, &script)?;
    w.run_tc(&arm(HASH, 1, 0, 0))?;
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(0), [1]);
    ensure_eq!(w.said(0, Code::OwnStart), [0, EINVAL]);
    ensure_eq!(w.said(0, Code::OwnCancel), [EINVAL]);
    Ok(())
}

/// The updater holds the bucket's lock while it waits for the callback, which wants it.
pub fn bucket_lock_times_out(w: &mut World) -> Result<()> {
    let script = [
        on(Code::SetFlag, 0, 0).arg(1),
        on(Code::Spin, 0, 0).arg(10_000),
        on(Code::Update, HASH, 1),
    ];
    w.script(0, &script)?;
    w.spawn(1, &arm(HASH, 1, 0, 0))?;
    let hash = w.map(HASH);
    w.sim.spawn_user(Cpu(0), async move |u| {
        u.sleep(micros(20)).await;
        let before = u.now();
        ensure_eq!(
            u.update(&hash, &1u32.to_le_bytes(), &[0; 64], 0).await,
            Ok(())
        );
        let waited = u.now() - before;
        ensure!(waited >= millis(250) && waited < millis(251), "{waited:?}");
        Ok(())
    })?;
    w.sim.run_for(bpfsim::secs(1))?;
    ensure_eq!(w.said(0, Code::Update), [ETIMEDOUT]);
    Ok(())
}

pub fn soft_interrupt(w: &mut World) -> Result<()> {
    w.script(0, &[on(Code::Pid, 0, 0), on(Code::Cpu, 0, 0)])?;
    let ops = [arm(ARRAY, 1, 0, 0), arm(ARRAY, 2, 0, 0)].concat();
    w.run_tc(&ops)?;
    // `current` is the task that was interrupted.
    ensure_eq!(w.said(0, Code::Pid), [1000, 1000]);
    ensure_eq!(w.said(0, Code::Cpu), [0, 0]);
    ensure!(w.starts().iter().all(|e| e.level == Level::Softirq));
    // One ended before the other began.
    let order: Vec<_> = w
        .entries()
        .iter()
        .filter(|e| e.0 == 1)
        .map(|e| e.1)
        .collect();
    let (pid, cpu) = (Code::Pid as u32, Code::Cpu as u32);
    ensure_eq!(order, [0, pid, cpu, 0, pid, cpu]);
    Ok(())
}

pub fn passes(w: &mut World) -> Result<()> {
    // Bases in their order, then deadlines, then the order of arming.
    let mut ops = Vec::new();
    for (key, clock, deadline) in [(1, 7, 10), (2, 1, 30), (3, 1, 20), (4, 1, 20), (5, 0, 10)] {
        let mut one = arm(ARRAY, key, 0, deadline);
        (one[1].flags, one[3].flags) = (clock, 1);
        ops.extend(one);
    }
    w.run_tc(&ops)?;
    ensure_eq!(w.ran(0), [5, 3, 4, 2, 1]);
    // One that starts itself anew at once: ten passes, then a tick later.
    *w = World::new()?;
    w.script(0, &[on(Code::OwnStart, 0, 0)])?;
    w.run(&arm(ARRAY, 0, 0, 0))?;
    let entries = w.entries();
    let started = entries
        .iter()
        .position(|e| (e.0, e.1) == (0, Code::TimerStart as u32));
    let before = entries[..started.unwrap_or(0)].iter();
    ensure_eq!(before.filter(|e| (e.0, e.1) == (1, 0)).count(), 10);
    Ok(())
}
