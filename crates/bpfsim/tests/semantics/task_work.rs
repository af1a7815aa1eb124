//! Section 3: `bpf_task_work`.

use crate::world::*;
use bpfsim::{Cpu, Result, Task, ensure, ensure_eq, micros, millis};

fn schedule(map: u8, key: u8) -> Op {
    on(Code::TaskWork, map, key)
}

fn to(w: &World, task: Task, key: u8) -> Op {
    schedule(ARRAY, key).arg(task.pid(&w.sim).into())
}

pub fn answers(w: &mut World) -> Result<()> {
    ensure_eq!(w.run(&[schedule(ARRAY, 0)])?, [0]);
    w.map(ARRAY).close()?;
    // Not EPERM, and the slot is empty again.
    ensure_eq!(
        w.run(&[schedule(ARRAY, 1), schedule(ARRAY, 1)])?,
        [EBUSY, EBUSY]
    );
    w.map(ARRAY).open()?;
    ensure_eq!(w.run(&[schedule(ARRAY, 1)])?, [0]);
    ensure_eq!(w.ran(5), [0, 1]);
    // A program that is no more: its callback runs on after its slot was freed.
    let script = [
        on(Code::Spin, 0, 0).arg(20_000),
        on(Code::Delete, HASH, 1),
        schedule(ARRAY, 2),
    ];
    w.script(3, &script)?;
    w.spawn(1, &queue(HASH, 1, 0))?;
    let bpf = w.bpf.clone();
    w.sim.spawn_user(Cpu(0), async move |u| {
        u.sleep(micros(20)).await;
        ensure_eq!(u.close_program(bpf.program("run_ops")?).await, Ok(()));
        Ok(())
    })?;
    w.sim.run_for(millis(10))?;
    ensure_eq!(w.said(3, Code::TaskWork), [EBADF]);
    Ok(())
}

pub fn zombie(w: &mut World) -> Result<()> {
    let task = w.sim.task("gone").on(Cpu(1)).user()?;
    task.exit(&w.sim).expect("it runs");
    let op = to(w, task, 0);
    ensure_eq!(w.run(&[op, op])?, [0, 0]);
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), NONE);
    Ok(())
}

pub fn busy(w: &mut World) -> Result<()> {
    w.script(5, &[on(Code::OwnSchedule, 0, 0)])?;
    let (resume, signal) = (schedule(ARRAY, 0), schedule(ARRAY, 0).flags(1));
    ensure_eq!(w.run(&[resume, resume, signal])?, [0, EBUSY, EBUSY]);
    ensure_eq!(w.said(5, Code::OwnSchedule), [EBUSY]);
    ensure_eq!(w.ran(5), [0]);
    Ok(())
}

pub fn on_the_way_to_user_mode(w: &mut World) -> Result<()> {
    w.script(5, &[on(Code::Pid, 0, 0)])?;
    ensure_eq!(
        w.run(&[schedule(ARRAY, 0), on(Code::Spin, 0, 0).arg(500)])?,
        [0, 0]
    );
    // It has run when the system call returns, and not before the program was over.
    let order: Vec<_> = w.entries().iter().map(|e| e.0).collect();
    ensure_eq!(order, [0, 0, 6, 6]);
    ensure_eq!(w.said(5, Code::Pid), [1000]);
    Ok(())
}

pub fn tasks_in_every_state(w: &mut World) -> Result<()> {
    let user = w.sim.task("user").on(Cpu(1)).user()?;
    let sleeper = w.sim.task("sleeper").on(Cpu(1)).sleeping()?;
    let stopped = w.sim.task("stopped").on(Cpu(1)).stopped()?;
    w.script(5, &[on(Code::Pid, 0, 0)])?;
    let ops = [
        to(w, user, 0),
        to(w, sleeper, 1),
        to(w, stopped, 2),
        to(w, stopped, 3).flags(1),
    ];
    w.run(&ops)?;
    w.sim.run_for(millis(1))?;
    // One that runs user code is kicked; one that sleeps or is stopped is not woken.
    ensure_eq!(w.ran(5), [0]);
    ensure_eq!(w.said(5, Code::Pid), [i64::from(user.pid(&w.sim))]);
    // A signal runs what waits, and the sleep goes on.
    let op = to(w, sleeper, 4).flags(1);
    w.run(&[op])?;
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), [0, 4, 1]);
    let op = to(w, sleeper, 5);
    w.run(&[op])?;
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), [0, 4, 1]);
    stopped.resume(&w.sim).expect("it is there");
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), [0, 4, 1, 3, 2]);
    // A sleep that a signal interrupts lasts its full time.
    let op = schedule(ARRAY, 6).flags(1);

    let task = w.sim.spawn_user(Cpu(1), async move |u| {
        let before = u.now();
        u.sleep(millis(5)).await;
        let slept = u.now() - before;
        ensure!(slept >= millis(5) && slept < millis(6), "{slept:?}");
        Ok(())
    })?;
    w.sim.run_for(micros(100))?;
    let pid = task.pid(&w.sim);
    w.run(&[op.arg(pid.into())])?;
    w.sim.run_for(micros(100))?;
    ensure_eq!(w.said(5, Code::Pid).last(), Some(&i64::from(pid)));
    w.sim.run_for(millis(10))
}

pub fn sweeps(w: &mut World) -> Result<()> {
    let all = [
        schedule(ARRAY, 1),
        schedule(ARRAY, 2).flags(1),
        schedule(ARRAY, 3),
    ];
    // What is added during a sweep makes the next one.
    w.script(
        5,
        &[schedule(ARRAY, 6).which(1), schedule(ARRAY, 7).which(1)],
    )?;
    w.run(&all)?;
    ensure_eq!(w.ran(5), [3, 2, 1]);
    ensure_eq!(w.ran(6), [7, 6]);
    Ok(())
}

pub fn exit_and_kernel_threads(w: &mut World) -> Result<()> {
    let task = w.sim.task("task").on(Cpu(1)).stopped()?;
    let thread = w.sim.task("thread").on(Cpu(1)).kthread()?;
    let ops = [to(w, task, 0), to(w, thread, 1)];
    ensure_eq!(w.run(&ops)?, [0, 0]);
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), NONE);
    task.exit(&w.sim).expect("it is there");
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), [0]);
    thread.exit(&w.sim).expect("it is there");
    w.sim.run_for(millis(1))?;
    ensure_eq!(w.ran(5), [0, 1]);
    Ok(())
}

pub fn freed(w: &mut World) -> Result<()> {
    let ops = [
        on(Code::Update, HASH, 1),
        schedule(HASH, 1),
        on(Code::Delete, HASH, 1),
        schedule(ARRAY, 2),
        on(Code::Update, ARRAY, 2),
        schedule(ARRAY, 2),
    ];
    ensure_eq!(w.run(&ops)?, [0; 6]);
    ensure_eq!(w.ran(5), [2]);
    // Freed in its own callback, scheduled through the old pointer: whoever gets the slot next
    // finds it taken.
    w.script(
        5,
        &[
            on(Code::Delete, HASH, 3),
            on(Code::OwnSchedule, 0, 0),
            on(Code::Update, HASH, 4),
            schedule(HASH, 4),
        ],
    )?;
    w.run(&[on(Code::Update, HASH, 3), schedule(HASH, 3)])?;
    ensure_eq!(w.said(5, Code::OwnSchedule), [0]);
    ensure_eq!(w.said(5, Code::TaskWork), [EBUSY]);
    // Evicted: by elements that are all in use.
    *w = World::new()?;
    let mut ops = vec![on(Code::Update, RECENT, 0), schedule(RECENT, 0).which(1)];
    ops.extend((1..30).flat_map(|k| [on(Code::Update, RECENT, k), on(Code::Read, RECENT, k)]));
    w.run(&ops)?;
    ensure_eq!(w.ran(6), NONE);
    Ok(())
}
