//! Section 2: `bpf_wq`.

use crate::world::*;
use bpfsim::{Level, Result, ensure, ensure_eq, micros, millis};

pub fn init_answers(w: &mut World) -> Result<()> {
    let init = |flags| on(Code::WqInit, ARRAY, 0).flags(flags);
    ensure_eq!(
        w.run(&[init(1), init(0), init(0), init(1)])?,
        [EINVAL, 0, EBUSY, EINVAL]
    );
    w.map(HASH).close()?;
    let ops = [on(Code::Update, HASH, 0), on(Code::WqInit, HASH, 0)];
    ensure_eq!(w.run(&ops)?, [0, EPERM]);
    Ok(())
}

pub fn start_answers(w: &mut World) -> Result<()> {
    let start = |flags| on(Code::WqStart, ARRAY, 0).flags(flags);
    ensure_eq!(w.run(&[start(0)])?, [EINVAL]);
    let mut ops = queue(ARRAY, 0, 0);
    ops.extend([start(0), start(0), start(1)]);
    ensure_eq!(w.run_tc(&ops)?, [0, 0, 0, 0, 0, 0, EINVAL]);
    w.sim.run_until_idle()?;
    ensure_eq!(w.ran(3), [0]);
    Ok(())
}

pub fn order_and_restart(w: &mut World) -> Result<()> {
    let ops: Vec<Op> = [3, 1, 5, 2, 4]
        .iter()
        .flat_map(|&k| queue(ARRAY, k, 0))
        .collect();
    w.run_tc(&ops)?;
    w.sim.run_until_idle()?;
    ensure_eq!(w.ran(3), [3, 1, 5, 2, 4]);
    // Started while it runs, from the other CPU: once more, where it runs.
    *w = World::new()?;
    let wait = on(Code::Wait, 0, 0).which(1).arg(10_000);
    w.script(
        3,
        &[on(Code::SetFlag, 0, 0).arg(1), wait, on(Code::Cpu, 0, 0)],
    )?;
    w.spawn(1, &queue(ARRAY, 0, 0))?;
    let start = on(Code::WqStart, ARRAY, 0);
    let wait = on(Code::Wait, 0, 0).arg(10_000);
    w.spawn(
        0,
        &[wait, start, start, on(Code::SetFlag, 0, 0).which(1).arg(1)],
    )?;
    w.sim.run_for(millis(10))?;
    ensure_eq!(w.said(3, Code::Cpu), [1, 1]);
    // From its own callback: one more run.
    *w = World::new()?;
    w.script(
        3,
        &[on(Code::OwnSetCallback, 0, 0), on(Code::OwnStart, 0, 0)],
    )?;
    w.run(&queue(ARRAY, 0, 0))?;
    w.sim.run_until_idle()?;
    ensure_eq!(w.said(3, Code::OwnStart), [0]);
    ensure_eq!(w.said(99, Code::None), [0]);
    Ok(())
}

pub fn last_callback_wins(w: &mut World) -> Result<()> {
    let mut ops = queue(ARRAY, 0, 0);
    ops.push(on(Code::WqSetCallback, ARRAY, 0).which(1));
    w.run_tc(&ops)?;
    w.sim.run_until_idle()?;
    ensure_eq!((w.ran(3), w.ran(4)), (vec![], vec![0]));
    Ok(())
}

/// A kworker: a kernel thread of its CPU without user memory, which timers interrupt.
pub fn context(w: &mut World) -> Result<()> {
    w.script(
        3,
        &[
            on(Code::Pid, 0, 0),
            on(Code::Spin, 0, 0).arg(5_000),
            on(Code::Cpu, 0, 0),
        ],
    )?;
    let ops = [queue(ARRAY, 0, 0), arm(ARRAY, 1, 0, 10 * US)].concat();
    w.run_tc(&ops)?;
    w.sim.run_for(millis(10))?;
    ensure!(w.starts().iter().any(|e| e.level == Level::Task));
    let pid = w.said(3, Code::Pid)[0];
    ensure!(pid != 1000 && pid != 0, "{pid}");
    let entries = w.entries();
    let timer = entries.iter().position(|e| e.0 == 1);
    let (begun, ended) = (
        entries.iter().position(|e| e.0 == 4),
        entries
            .iter()
            .position(|e| e.0 == 4 && e.1 == Code::Cpu as u32),
    );
    ensure!(begun < timer && timer < ended, "{entries:?}");
    Ok(())
}

pub fn freeing_never_waits(w: &mut World) -> Result<()> {
    let mut ops = queue(HASH, 1, 0);
    ops.push(on(Code::Delete, HASH, 1));
    w.run_tc(&ops)?;
    w.sim.run_until_idle()?;
    ensure_eq!(w.ran(3), NONE);
    // While it runs on the other CPU, queued again.
    w.script(
        3,
        &[
            on(Code::SetFlag, 0, 0).arg(1),
            on(Code::Spin, 0, 0).arg(10_000),
        ],
    )?;
    w.spawn(1, &queue(HASH, 2, 0))?;
    let hash = w.map(HASH);
    w.spawn(
        0,
        &[on(Code::Wait, 0, 0).arg(10_000), on(Code::WqStart, HASH, 2)],
    )?;
    w.sim.spawn_user(bpfsim::Cpu(0), async move |u| {
        u.sleep(micros(30)).await;
        let before = u.now();
        ensure_eq!(u.delete(&hash, &2u32.to_le_bytes()).await, Ok(()));
        ensure!(u.now() - before < micros(5));
        Ok(())
    })?;
    w.sim.run_for(millis(10))?;
    ensure_eq!((w.ran(3), w.said(3, Code::Spin)), (vec![2], vec![0]));
    Ok(())
}

pub fn stale_slot(w: &mut World) -> Result<()> {
    let own = |code| on(code, 0, 0);
    let script = [
        on(Code::Delete, HASH, 1),
        own(Code::OwnStart),
        own(Code::OwnSetCallback),
        own(Code::OwnInit),
    ];
    w.script(3, &script)?;
    w.run(&queue(HASH, 1, 0))?;
    w.sim.run_until_idle()?;
    ensure_eq!(w.said(3, Code::OwnStart), [EINVAL]);
    ensure_eq!(w.said(3, Code::OwnSetCallback), [EINVAL]);
    ensure_eq!(w.said(3, Code::OwnInit), [0]);
    Ok(())
}
