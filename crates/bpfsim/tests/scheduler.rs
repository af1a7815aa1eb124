//! Schedulers (sched_ext), what Linux's core around them does, and what it aborts them for.
//!
//! No kernel that answers here has sched_ext: what is expected is from Linux 6.18's sources.
#![allow(clippy::unwrap_used)]

use bpfsim::{
    Config, Cpu, Ebpf, Runner, Scheduler, ScxExitKind, ScxPlace, Seed, Sim, Task, ensure,
};
use std::time::Duration;

const VTIME: &[u8] = include_bytes!("../../../fixtures/scx/vtime.bpf.o");
const COUNTED: &[u8] = include_bytes!("../../../fixtures/scx/counted.bpf.o");
const FIXED: &[u8] = include_bytes!("../../../fixtures/scx/fixed/counted.bpf.o");

fn config() -> Config {
    let types = include_bytes!("../../../fixtures/kernels/sched_ext.btf");
    Config {
        btf: Some(bpfsim::KernelBtf::parse(types).unwrap()),
        ..Config::default()
    }
}

fn sim() -> Sim {
    Sim::with(config(), Seed::default()).unwrap()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn tasks(sim: &Sim, n: u32) -> Vec<Task> {
    let make = |i: u32| {
        let name = format!("t{i}");
        sim.task(&name).pid(100 + i).user().unwrap()
    };
    (0..n).map(make).collect()
}

fn enabled(sim: &Sim, object: &[u8], map: &str) -> (Ebpf, Scheduler) {
    let bpf = Ebpf::load(sim, object).unwrap();
    let sched = bpf.map(map).unwrap().enable_scheduler().unwrap();
    sched.check().unwrap();
    (bpf, sched)
}

/// Tasks go to idle CPUs, then to the queue, and take turns by virtual time.
#[test]
fn tasks_end_up_where_they_should() {
    let sim = sim();
    let t = tasks(&sim, 4);
    let (bpf, sched) = enabled(&sim, VTIME, "vtime");
    let count = |name: &str| bpf.global::<u64>(name).unwrap();
    assert_eq!(bpf.global::<u32>("tasks").unwrap(), 4);
    sim.run_until_idle().unwrap();
    // Each CPU was told to look once the scheduler was there.
    assert_eq!(count("dispatched"), 2);

    sched.wake(t[0]).unwrap();
    assert_eq!(sched.place(t[0]), ScxPlace::Local(Cpu(0)));
    sim.run_until_idle().unwrap();
    assert_eq!(sched.running(Cpu(0)), Some(t[0]));
    sched.wake(t[1]).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(sched.running(Cpu(1)), Some(t[1]));
    // It was a migration: the task was on CPU 0.
    assert_eq!(count("direct"), 2);

    // No CPU is idle any more.
    sched.wake(t[2]).unwrap();
    sched.wake(t[3]).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(sched.queued(7), Some(vec![t[2], t[3]]));
    assert_eq!((count("enqueued"), count("direct")), (2, 2));

    // Their slices are over: the others have their turn.
    sim.run_for(ms(21)).unwrap();
    let on = [0, 1].map(|c| sched.running(Cpu(c)).unwrap());
    assert!(on.contains(&t[2]) && on.contains(&t[3]), "{on:?}");
    assert!(count("ticks") >= 10, "{}", count("ticks"));

    // Over a second all have had about as much.
    sim.run_for(ms(1000)).unwrap();
    assert_eq!(count("ran") - count("stopped"), 2);
    sched.check().unwrap();

    // Whoever sleeps leaves the CPU to who waits.
    let gone = sched.running(Cpu(1)).unwrap();
    sched.sleep(Cpu(1)).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(sched.place(gone), ScxPlace::Asleep);
    assert_eq!(sched.queued(7).unwrap().len(), 1);
    sched.exit_task(sched.running(Cpu(0)).unwrap()).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(bpf.global::<u32>("tasks").unwrap(), 3);

    sched.disable().unwrap();
    assert_eq!(sched.exit().unwrap().kind, ScxExitKind::Unreg);
    assert_eq!(bpf.global::<u32>("tasks").unwrap(), 0);
    assert_eq!(bpf.global::<u32>("exit_kind").unwrap(), 64);
    sim.finish().unwrap();
}

fn counted(object: &'static [u8]) -> impl Fn(&Sim) -> bpfsim::Result<()> + Send + Sync {
    move |sim: &Sim| {
        let t = tasks(sim, 4);
        let bpf = Ebpf::load_static(sim, object)?;
        let sched = bpf.map("counted")?.enable_scheduler()?;
        for task in [t[0], t[1]] {
            sched.wake(task)?;
            sim.run_until_idle()?;
        }
        // Both CPUs execute one: what wakes up now is queued, while one of them looks for another.
        sched.wake_on(Cpu(0), t[2]);
        sched.wake_on(Cpu(0), t[3]);
        sched.sleep_on(Cpu(1));
        sim.run_until_idle()?;
        sched.sleep(Cpu(0))?;
        sim.run_for(ms(100))?;
        sched.check()?;
        let left = |task: &Task| sched.place(*task) == ScxPlace::Bpf;
        ensure!(!t.iter().any(left), "a task is left");
        Ok(())
    }
}

fn runner() -> Runner {
    Runner::new().config(config()).executions(1_000)
}

#[test]
fn a_lost_task_is_found() {
    counted(COUNTED)(&sim()).unwrap();
    let found = runner().run(counted(COUNTED)).failure.unwrap();
    let said = &found.failed.message;
    assert!(said.contains("runnable task stall: t"), "{said}");
    assert!(said.contains("failed to run for 0.0"), "{said}");
    assert_eq!(found.preemptions, 1);
    assert!(runner().run(counted(FIXED)).failure.is_none());
}
