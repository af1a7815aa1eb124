//! Section 6: who runs when, and the memory of elements.

use crate::world::*;
use bpfsim::{
    Config, Cpu, Ebpf, ProgramInput, Result, Seed, Sim, ensure, ensure_eq, millis, update,
};

/// Runs a program of its own around one operation; whether the callback of script 0 or 5 began
/// before the program's note 200.
fn came_within(w: &mut World, program: &str, ops: &[Op]) -> Result<bool> {
    for op in &ops[..ops.len() - 1] {
        w.run(&[*op])?;
    }
    let (setup, last) = (w.entries().len(), ops[ops.len() - 1]);
    // The program executes the operation at place 0.
    let mut bytes: Vec<u8> = w.bpf.global_bytes("ops")?;
    bytes[..16].copy_from_slice(&last.bytes());
    w.bpf.set_global_bytes("ops", &bytes)?;
    w.bpf
        .program_mut(program)?
        .test_run(ProgramInput::empty())?;
    w.sim.run_for(millis(1))?;
    let entries = w.entries()[setup..].to_vec();
    let callback = entries.iter().position(|e| e.0 > 0);
    let note = entries.iter().position(|e| e.1 == 200);
    ensure!(callback.is_some() && note.is_some(), "{entries:?}");
    Ok(callback < note)
}

pub fn what_holds_timers_off(w: &mut World) -> Result<()> {
    for (program, comes) in [
        ("irqs_off", false),
        ("preemption_off", true),
        ("rcu_read_section", true),
    ] {
        *w = World::new()?;
        ensure_eq!(
            (program, came_within(w, program, &arm(ARRAY, 0, 0, 0))?),
            (program, comes)
        );
    }
    Ok(())
}

pub fn a_task_is_not_preempted(w: &mut World) -> Result<()> {
    let mut ops = queue(ARRAY, 0, 0);
    ops.push(on(Code::Spin, 0, 0).arg(1_000));
    w.run(&ops)?;
    w.sim.run_until_idle()?;
    let order: Vec<_> = w.entries().iter().map(|e| e.0).collect();
    ensure_eq!(order, [0, 0, 0, 0, 0, 4]);
    // Under full preemption the kworker may come before the program is over.
    let before = (0..60).any(|seed| {
        let config = Config {
            preemption: bpfsim::Preemption::Full,
            ..Config::default()
        };
        let sim = Sim::with(config, Seed(seed)).expect("there is memory");
        sim.use_cache(&LOADED);
        let bpf = Ebpf::load(&sim, OBJECT).expect("it loads");
        *w = World::new().expect("there is memory");
        (w.sim, w.bpf) = (sim, bpf);
        let mut ops = queue(ARRAY, 0, 0);
        ops.push(on(Code::Spin, 0, 0).arg(20));
        w.run(&ops)
            .and_then(|_| w.sim.run_until_idle())
            .expect("it runs");
        let entries = w.entries();
        entries.iter().position(|e| e.0 == 4) < entries.iter().rposition(|e| e.0 == 0)
    });
    ensure!(before, "no order has the kworker within the program");
    Ok(())
}

/// A timer that is due at once runs when the packet program has returned, before the next repeat.
pub fn between_repeats(w: &mut World) -> Result<()> {
    w.tc(&arm(ARRAY, 0, 0, 0))?;
    let input = ProgramInput::packet(&[0; 64]).repeat(2);
    w.bpf.program_mut("run_ops_tc")?.test_run(input)?;
    let order: Vec<_> = w.entries().iter().map(|e| e.0).collect();
    ensure_eq!(order, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    Ok(())
}

pub fn over_a_syscall_program(w: &mut World) -> Result<()> {
    let mut ops = arm(ARRAY, 0, 0, 0);
    ops.push(on(Code::Cpu, 0, 0));
    w.run(&ops)?;
    let order: Vec<_> = w.entries().iter().map(|e| e.0).collect();
    // Before bpf_timer_start returned, so before its answer was noted.
    ensure_eq!(order, [0, 0, 0, 1, 0, 0]);
    Ok(())
}

/// A callback's pointer shows the next element's value.
pub fn memory_is_recycled(w: &mut World) -> Result<()> {
    for map in [HASH, SPARSE] {
        *w = World::new()?;
        let script = [
            on(Code::Delete, map, 1),
            on(Code::Update, map, 2).arg(77),
            on(Code::OwnRead, 0, 0),
            on(Code::OwnKey, 0, 0),
        ];
        w.script(0, &script)?;
        w.run_tc(&arm(map, 1, 0, 0))?;
        ensure_eq!(
            (w.said(0, Code::OwnRead), w.said(0, Code::OwnKey)),
            (vec![77], vec![2])
        );
    }
    Ok(())
}

/// Two updates of a key on one CPU: its first address again.
pub fn two_updates_return(w: &mut World) -> Result<()> {
    let again = |value| on(Code::Update, HASH, 1).arg(value);
    w.script(
        0,
        &[
            again(5),
            on(Code::OwnRead, 0, 0),
            again(6),
            on(Code::OwnRead, 0, 0),
        ],
    )?;
    w.run_tc(&arm(HASH, 1, 0, 0))?;
    ensure_eq!(w.said(0, Code::OwnRead), [0, 6]);
    Ok(())
}

pub fn what_a_stale_slot_holds_is_inherited(w: &mut World) -> Result<()> {
    for map in [HASH, SPARSE] {
        *w = World::new()?;
        let own = |code| on(code, 0, 0);
        let script = [
            on(Code::Delete, map, 1),
            own(Code::OwnInit).flags(1),
            own(Code::OwnSetCallback),
            own(Code::OwnStart).arg(FAR),
            on(Code::Update, map, 2),
            on(Code::TimerInit, map, 2).flags(1),
            on(Code::TimerCancel, map, 2),
        ];
        w.script(0, &script)?;
        w.run_tc(&arm(map, 1, 0, 0))?;
        ensure_eq!(w.said(0, Code::OwnInit), [0]);
        ensure_eq!(w.said(0, Code::TimerInit), [EBUSY]);
        ensure_eq!(w.said(0, Code::TimerCancel), [1]);
    }
    Ok(())
}

/// A copy into an array element is seen half done; one under the element's lock is whole to who
/// takes the lock.
pub fn locked_updates_are_whole(w: &mut World) -> Result<()> {
    crate::timer::bucket_lock_times_out(w)?;
    let mut torn = [false; 2];
    for seed in 1..150 {
        for (flags, torn) in [update::ANY, update::LOCK].into_iter().zip(&mut torn) {
            let sim = Sim::with(Config::default(), Seed(seed))?;
            sim.use_cache(&LOADED);
            let bpf = Ebpf::load(&sim, OBJECT)?;
            let packet = ProgramInput::packet(&[0; 64]);
            let job = sim.spawn_on(Cpu(1), bpf.program("torn")?, packet.clone())?;
            let add = sim.spawn_on(Cpu(1), bpf.program("locked_add")?, packet)?;
            let locks = bpf.map("locks")?;
            sim.spawn_user(Cpu(0), async move |u| {
                let value = [0, 9, 9, 9, 9u64].map(u64::to_le_bytes).concat();
                ensure_eq!(
                    u.update(&locks, &0u32.to_le_bytes(), &value, flags).await,
                    Ok(())
                );
                Ok(())
            })?;
            sim.run_until_idle()?;
            ensure!(sim.result(add).is_some());
            *torn |= sim.result(job).is_some_and(|out| out.return_value == 1);
            if flags == update::LOCK {
                let words: [u64; 5] = bpf.map("locks")?.get(&0u32)?.expect("it is there");
                ensure_eq!(words[1], words[2]);
            }
        }
    }
    ensure_eq!(torn[0], true);
    Ok(())
}
