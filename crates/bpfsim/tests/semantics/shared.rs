//! Section 0: what the three kinds share.

use crate::world::*;
use bpfsim::{Result, What, ensure, ensure_eq};

/// Descriptors, those by id and pins count; duplicates and programs do not.
pub fn user_references(w: &mut World) -> Result<()> {
    let array = w.map(ARRAY);
    let again = array.dup(array.fd())?;
    array.close()?;
    ensure_eq!(w.run(&[on(Code::TimerInit, ARRAY, 0).flags(1)])?, [0]);
    array.close_fd(again)?;
    // The program still uses the map.
    ensure!(array.exists());
    ensure_eq!(w.run(&[on(Code::TimerInit, ARRAY, 1).flags(1)])?, [EPERM]);
    array.pin()?;
    ensure_eq!(w.run(&[on(Code::TimerInit, ARRAY, 1).flags(1)])?, [0]);
    array.unpin()?;
    ensure_eq!(w.run(&[on(Code::TimerInit, ARRAY, 1).flags(1)])?, [EPERM]);
    Ok(())
}

pub fn the_last_user_reference(w: &mut World) -> Result<()> {
    let ops = [arm(HASH, 1, 0, 10 * US), queue(HASH, 2, 0)].concat();
    w.run_tc(&ops)?;
    w.map(HASH).close()?;
    w.sim.run_for(bpfsim::millis(1))?;
    ensure_eq!(w.ran(0), NONE);
    // Its work was queued, and the kworker came when the program had returned at the earliest.
    ensure!(w.ran(3).len() <= 1);
    ensure_eq!(w.run(&[on(Code::TimerStart, HASH, 1)])?, [EINVAL]);
    let fd = w.map(HASH).open()?;
    ensure_eq!(w.run(&[on(Code::TimerInit, HASH, 1).flags(1)])?, [0]);
    w.map(HASH).close_fd(fd)
}

/// The slot is recycled while the callback runs on another CPU.
pub fn a_key_changes_under_a_callback(w: &mut World) -> Result<()> {
    let script = [
        on(Code::SetFlag, 0, 0).arg(1),
        on(Code::Wait, 0, 0).which(1).arg(10_000),
        on(Code::OwnKey, 0, 0),
    ];
    w.script(0, &script)?;
    w.spawn(1, &arm(HASH, 1, 0, 0))?;
    // From a timer callback, where deleting does not wait.
    w.script(
        1,
        &[
            on(Code::Wait, 0, 0).arg(10_000),
            on(Code::Delete, HASH, 1),
            on(Code::Update, HASH, 2),
            on(Code::SetFlag, 0, 0).which(1).arg(1),
        ],
    )?;
    w.spawn(0, &arm(ARRAY, 3, 1, 0))?;
    w.sim.run_for(bpfsim::millis(10))?;
    ensure_eq!(w.ran(0), [1]);
    ensure_eq!(w.said(0, Code::OwnKey), [2]);
    Ok(())
}

/// Map, key and value from its start: the callback's own key and data are those of the element.
pub fn callback_arguments(w: &mut World) -> Result<()> {
    for (script, code) in [(0, Code::OwnRead), (3, Code::OwnRead), (5, Code::OwnRead)] {
        w.script(script, &[on(code, 0, 0)])?;
    }
    let at = |map, key| on(Code::Update, map, key).arg(40 + key as u64);
    let mut ops = arm(ARRAY, 5, 0, 0);
    ops[0] = at(ARRAY, 5);
    let mut more = queue(HASH, 6, 0);
    more[0] = at(HASH, 6);
    ops.extend(more);
    ops.extend([at(SPARSE, 7), on(Code::TaskWork, SPARSE, 7)]);
    w.run_tc(&ops)?;
    w.sim.run_until_idle()?;
    ensure_eq!((w.ran(0), w.said(0, Code::OwnRead)), (vec![5], vec![45]));
    ensure_eq!((w.ran(3), w.said(3, Code::OwnRead)), (vec![6], vec![46]));
    ensure_eq!((w.ran(5), w.said(5, Code::OwnRead)), (vec![7], vec![47]));
    Ok(())
}

pub fn a_program_lives_for_its_timers(w: &mut World) -> Result<()> {
    w.run(&arm(ARRAY, 1, 0, 10 * US))?;
    w.bpf.program_mut("run_ops")?.close()?;
    ensure!(w.bpf.program_mut("run_ops")?.exists());
    w.sim.run_for(bpfsim::millis(1))?;
    ensure_eq!(w.ran(0), [1]);
    // The reference is not dropped when the callback has run.
    ensure!(w.bpf.program_mut("run_ops")?.exists());
    w.map(ARRAY).close()?;
    ensure!(!w.bpf.program_mut("run_ops")?.exists());
    Ok(())
}

/// `set_callback` from another program: the first one is gone with its descriptor.
pub fn another_program_takes_over(w: &mut World) -> Result<()> {
    w.run(&arm(ARRAY, 1, 0, 10 * US))?;
    w.run_tc(&[on(Code::TimerSetCallback, ARRAY, 1).which(1)])?;
    w.bpf.program_mut("run_ops")?.close()?;
    ensure!(!w.bpf.program_mut("run_ops")?.exists());
    w.sim.run_for(bpfsim::millis(1))?;
    ensure_eq!((w.ran(0), w.ran(1)), (vec![], vec![1]));
    let ends =
        |e: &&bpfsim::Event| matches!(&e.what, What::CallbackEnd { name, .. } if name == "timer_b");
    ensure_eq!(w.events().iter().filter(ends).count(), 1);
    Ok(())
}
