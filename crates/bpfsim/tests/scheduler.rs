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
        sim.run_for(ms(70))?;
        sched.check()?;
        let left = |task: &Task| sched.place(*task) == ScxPlace::Bpf;
        ensure!(!t.iter().any(left), "a task is left");
        Ok(())
    }
}

fn runner() -> Runner {
    let runner = Runner::new().config(config());
    runner.executions(1_000).regressions(None)
}

#[test]
fn a_lost_task_is_found() {
    counted(COUNTED)(&sim()).unwrap();
    let found = runner().run(counted(COUNTED)).failure.unwrap();
    let said = &found.failed.message;
    assert!(said.contains("runnable task stall: t"), "{said}");
    assert!(said.contains("failed to run for 0.0"), "{said}");
    assert_eq!(found.preemptions, 1);
    let fixed = runner().executions(300).run(counted(FIXED));
    assert!(fixed.failure.is_none());
}

const MISUSE: &[u8] = include_bytes!("../../../fixtures/scx/misuse.bpf.o");

/// Wrong things that a scheduler does, by their number in the fixture, and what the kernel says.
const WRONG: &[(i32, &str)] = &[
    (1, "invalid CPU 99 from ops.select_cpu()"),
    (2, "t0[100] already direct-dispatched"),
    (
        3,
        "kfunc with mask 0x2 called from an operation only allowing 0xc",
    ),
    (4, "non-existent DSQ 0x99 for t0[100]"),
    (5, "cannot use vtime ordering for built-in DSQs"),
    (6, "invalid CPU 99 in SCX_DSQ_LOCAL_ON dispatch verdict"),
    (7, "invalid enq_flags 0x200000000000000"),
    (
        8,
        "scheduling for t0[100] but trying to direct-dispatch t1[101]",
    ),
    (
        9,
        "DSQ ID 0x0000000000000007 already had FIFO-enqueued tasks",
    ),
    (10, "PREEMPT/WAIT cannot be used with SCX_KICK_IDLE"),
    (11, "invalid CPU -3"),
    (12, "no more than 42"),
    (13, "no more than 42"),
    (14, "invalid DSQ ID 0x0000000000000099"),
    (15, "dispatch buffer underflow"),
    (16, "dispatch buffer overflow"),
    (
        17,
        "kfunc with mask 0x1 called from an operation only allowing 0x2",
    ),
    (
        18,
        "SCX_DSQ_LOCAL[_ON] target CPU 1 not allowed for t0[100]",
    ),
    (
        19,
        "kfunc with mask 0x6 called from an operation only allowing 0x10",
    ),
    (20, "ops.init() failed (-22)"),
    (21, "ops.init() returned an invalid errno 5"),
    (22, "ops.init_task() failed (-12) for t0[100]"),
    (
        23,
        "kfunc with mask 0x6 called from an operation only allowing 0x0",
    ),
    (
        24,
        "attempting to destroy in-use dsq 0x0000000000000007 (nr=1)",
    ),
    (25, "t0[100] failed to run for "),
];

#[test]
fn what_is_wrong_ends_the_scheduler_with_the_kernels_words() {
    for &(number, says) in WRONG {
        let sim = sim();
        let t = tasks(&sim, 2);
        let mut bpf = Ebpf::load(&sim, MISUSE).unwrap();
        bpf.set_global("wrong", &number).unwrap();
        let sched = bpf.map("misuse").unwrap().enable_scheduler().unwrap();
        if (20..23).contains(&number) {
            assert!(sched.exit().is_some(), "{number}");
        } else {
            if number == 18 {
                sched.set_cpus(t[0], 1).unwrap();
            }
            // Whoever comes after the mistake is told that no scheduler is there.
            sim.run_for(ms(1)).unwrap();
            for task in t {
                let _ = sched.wake(task);
            }
            sim.run_until_idle().unwrap();
            sim.run_for(ms(4_000)).unwrap();
        }
        let exit = sched.exit().unwrap_or_else(|| panic!("{number}: nothing"));
        assert!(exit.msg.starts_with(says), "{number}: {}", exit.msg);
        let kind = match number {
            12 => ScxExitKind::ErrorBpf,
            13 => ScxExitKind::UnregBpf,
            25 => ScxExitKind::ErrorStall,
            _ => ScxExitKind::Error,
        };
        let code = if number == 13 { 17 } else { 0 };
        assert_eq!((exit.kind, exit.code), (kind, code), "{number}");
        assert_eq!(sched.check().is_err(), kind != ScxExitKind::UnregBpf);
        // `exit` was told the same, once.
        let told = |name: &str| bpf.global::<u64>(name).unwrap();
        let numbers = (told("exits"), told("exit_kind"), told("exit_code"));
        assert_eq!(numbers, (1, kind as u64, code as u64), "{number}");
        let msg = bpf.global_bytes("exit_msg").unwrap();
        let msg = msg.split(|&b| b == 0).next().unwrap();
        assert_eq!(msg, &exit.msg.as_bytes()[..exit.msg.len().min(63)]);
        sim.finish().unwrap();
    }
}

/// What is refused of a scheduler before anything of it runs.
#[test]
fn what_a_scheduler_is_made_of_is_checked() {
    let refused = |member: &str, value: u64| {
        let sim = sim();
        let bpf = Ebpf::load(&sim, VTIME).unwrap();
        let map = bpf.map("vtime").unwrap();
        map.set_struct_ops(member, value).unwrap();
        map.enable_scheduler().err().map(|e| e.to_string())
    };
    let said = |text: &str| Some(format!("scheduler `vtime`: {text}"));
    assert_eq!(refused("flags", 1 << 12), said("EINVAL"));
    assert_eq!(refused("timeout_ms", 30_001), said("E2BIG"));
    assert_eq!(refused("dispatch_max_batch", 1 << 31), said("E2BIG"));
    assert_eq!(refused("timeout_ms", 30_000), None);

    let sim = sim();
    let (bpf, _sched) = enabled(&sim, VTIME, "vtime");
    let map = bpf.map("vtime").unwrap();
    assert!(map.set_struct_ops("flags", 0).is_err());
    assert!(map.set_struct_ops("enqueue", 0).is_err());
    // There is one at a time.
    let second = Ebpf::load(&sim, FIXED).unwrap();
    let busy = second.map("counted").unwrap().enable_scheduler();
    assert_eq!(
        busy.err().unwrap().to_string(),
        "scheduler `counted`: EBUSY"
    );

    // Types without sched_ext cannot even load it; a map of another struct is none.
    assert!(Ebpf::load(&Sim::new().unwrap(), VTIME).is_err());
    let other = Sim::new().unwrap();
    let bpf = Ebpf::load(&other, include_bytes!("../../../fixtures/hooks.bpf.o")).unwrap();
    let refused = bpf.map("greedy").unwrap().enable_scheduler();
    let text = refused.err().unwrap().to_string();
    assert!(text.starts_with("unsupported: sched_ext"), "{text}");
}

const MOVER: &[u8] = include_bytes!("../../../fixtures/scx/mover.bpf.o");

/// A timer walks a queue and moves tasks to another, with slices of their own.
#[test]
fn a_timer_moves_tasks_between_queues() {
    let sim = sim();
    let t = tasks(&sim, 6);
    sim.cgroup(sim.root_cgroup(), "web").unwrap();
    let (mut bpf, sched) = enabled(&sim, MOVER, "mover");
    // The root and "web".
    assert_eq!(bpf.global::<u64>("cgroups").unwrap(), 2);
    for &task in &t {
        sched.wake(task).unwrap();
        sim.run_until_idle().unwrap();
    }
    // Two are executed, four wait: 102 to 105.
    assert_eq!(sched.queued(1).unwrap(), [t[2], t[3], t[4], t[5]]);
    assert_eq!(bpf.global::<u64>("idle_cpus").unwrap(), 0);
    sim.run_for(Duration::from_micros(1_100)).unwrap();
    assert_eq!(sched.queued(1).unwrap(), [t[2], t[4]]);
    assert_eq!(sched.queued(2).unwrap(), [t[3], t[5]]);
    assert_eq!(sched.place(t[3]), ScxPlace::Dsq(2));
    assert_eq!(sched.slice(t[3]), Some(5_000_000));
    let seen = |bpf: &Ebpf| {
        let pid = |name: &str| bpf.global::<i32>(name).unwrap();
        let n = |name: &str| bpf.global::<u64>(name).unwrap();
        (
            n("seen"),
            pid("first_seen"),
            pid("last_seen"),
            n("moved"),
            n("refused"),
        )
    };
    assert_eq!(seen(&bpf), (4, 102, 105, 2, 2));
    bpf.set_global("reversed", &1u64).unwrap();
    sim.run_for(ms(1)).unwrap();
    assert_eq!(seen(&bpf), (2, 104, 102, 2, 2));

    // Whoever yields makes room for the fast ones.
    sched.yield_now(Cpu(0)).unwrap();
    assert_eq!(bpf.global::<u64>("yields").unwrap(), 1);
    assert_eq!(sched.running(Cpu(0)), Some(t[3]));
    // Its slice is short.
    sim.run_for(ms(9)).unwrap();
    assert_ne!(sched.running(Cpu(0)), Some(t[3]));
    sim.run_for(ms(500)).unwrap();
    sched.check().unwrap();
    sched.disable().unwrap();
    assert_eq!(bpf.global::<u64>("cgroups").unwrap(), 0);
    sim.finish().unwrap();
}

/// Weights, affinity, and CPUs that a higher class takes.
#[test]
fn what_changes_of_tasks_and_cpus_is_told() {
    let sim = sim();
    let t = tasks(&sim, 3);
    let (bpf, sched) = enabled(&sim, VTIME, "vtime");
    let count = |name: &str| bpf.global::<u64>(name).unwrap();
    for &task in &t {
        sched.wake(task).unwrap();
        sim.run_until_idle().unwrap();
    }
    assert_eq!(sched.place(t[2]), ScxPlace::Dsq(7));
    // Who waits in a queue is dequeued and enqueued anew, who is executed stops and runs again.
    let before = (count("enqueued"), count("ran"), count("stopped"));
    sched.set_weight(t[2], 300).unwrap();
    assert_eq!(count("enqueued"), before.0 + 1);
    sched.set_weight(t[0], 50).unwrap();
    assert_eq!(
        (count("ran"), count("stopped")),
        (before.1 + 1, before.2 + 1)
    );
    assert_eq!(sched.running(Cpu(0)), Some(t[0]));

    // A real-time task has CPU 1: what was executed there comes to `enqueue` again.
    let enqueued = count("enqueued");
    sched.take_cpu(Cpu(1), 0).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(bpf.global::<u32>("released").unwrap(), 1);
    assert_eq!(sched.running(Cpu(1)), None);
    assert_eq!(count("enqueued"), enqueued + 1);
    assert_eq!(sched.queued(7).unwrap().len(), 2);
    sched.give_cpu_back(Cpu(1)).unwrap();
    sim.run_until_idle().unwrap();
    assert_eq!(bpf.global::<u32>("acquired").unwrap(), 1);
    assert!(sched.running(Cpu(1)).is_some());

    // Who may not be where it is any more goes elsewhere.
    let on = sched.running(Cpu(1)).unwrap();
    sched.set_cpus(on, 0b01).unwrap();
    sim.run_until_idle().unwrap();
    assert_ne!(sched.running(Cpu(1)), Some(on));
    sim.run_for(ms(100)).unwrap();
    assert_ne!(sched.running(Cpu(1)), Some(on));
    sched.check().unwrap();

    // Idle CPUs are told of, and tasks that go leave nothing behind.
    for _ in 0..3 {
        for cpu in [Cpu(0), Cpu(1)] {
            if let Some(task) = sched.running(cpu) {
                sched.exit_task(task).unwrap();
                sim.run_until_idle().unwrap();
            }
        }
    }
    assert_eq!(bpf.global::<u32>("tasks").unwrap(), 0);
    let idled: [u64; 2] = bpf.global("idled").unwrap();
    assert_eq!(idled[0], idled[1]);
    sim.finish().unwrap();
}

/// So does a search that goes back to choices, and says the same on any number of threads.
#[test]
fn a_search_that_goes_back_finds_the_lost_task() {
    use bpfsim::explore::Strategy;
    let found = |threads| {
        let strategy = Strategy::Bounded { preemptions: 1 };
        let runner = runner().strategy(strategy).threads(threads);
        let found = runner.run(counted(COUNTED)).failure.unwrap();
        assert_eq!(found.failed.kind, "scheduler");
        (found.execution, found.trace)
    };
    assert_eq!(found(1), found(2));
}
