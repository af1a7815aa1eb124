//! The first fixture, from ELF to its callbacks.

use bpfsim::{Cache, Ebpf, ProgramInput, Sim, check, check_random, ensure, ensure_eq, millis};

const OBJECT: &[u8] = include_bytes!("../../../fixtures/three_kinds.bpf.o");

fn entries_close(sim: &Sim) -> bpfsim::Result<()> {
    let mut bpf = Ebpf::load(sim, OBJECT)?;
    let out = bpf
        .program_mut("arm_all")?
        .test_run(ProgramInput::empty())?;
    ensure_eq!(out.return_value, 0);
    ensure_eq!(bpf.map("flows")?.len(), 1);
    ensure_eq!(bpf.global::<u32>("nr_reported")?, 2); // on the way to user mode
    sim.run_until_idle()?;
    ensure_eq!(bpf.global::<[u64; 2]>("audited_total")?, [2, 3000]);
    sim.run_for(millis(4))?;
    ensure_eq!(bpf.global::<u32>("nr_closed")?, 2);
    ensure_eq!(bpf.global::<u32>("nr_events")?, 12);
    ensure!(
        sim.printk()
            .contains(&"web flow closed after 3 ticks".to_string())
    );
    sim.finish()
}

#[test]
fn in_the_usual_order() -> bpfsim::TestResult {
    check(entries_close)
}

#[test]
fn in_many_orders() -> bpfsim::TestResult {
    check_random(entries_close, 200)
}

/// Callbacks are those of their program, however many others there are.
#[test]
fn among_a_thousand_others() -> bpfsim::Result<()> {
    let sim = Sim::new()?;
    sim.use_cache(&Cache::default());
    for _ in 0..1000 {
        Ebpf::load(&sim, OBJECT)?;
    }
    entries_close(&sim)
}
