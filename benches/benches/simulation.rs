//! A simulation through the library's front: loading, test runs, map operations, and each kind of
//! callback armed and run.

#![allow(missing_docs)] // criterion's macros

use bpfsim::{Ebpf, ProgramInput, Sim, secs};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const OBJECT: &[u8] = include_bytes!("../../fixtures/async_basic.bpf.o");

fn loaded() -> (Sim, Ebpf) {
    let sim = Sim::new().expect("a machine");
    let bpf = Ebpf::load(&sim, OBJECT).expect("it loads");
    (sim, bpf)
}

fn load(c: &mut Criterion) {
    c.bench_function("machine, made and dropped", |b| {
        b.iter(|| Sim::new().map(drop))
    });
    c.bench_function("object, loaded into a new machine", |b| b.iter(loaded));
}

fn maps(c: &mut Criterion) {
    let mut group = c.benchmark_group("map");
    let (_sim, bpf) = loaded();
    for name in ["array", "hash", "recent"] {
        let map = bpf.map(name).expect("a map");
        let value = vec![0; map.spec().value_size as usize];
        let key = 3_u32.to_le_bytes();
        map.update(&key, &value, 0).expect("update");
        group.bench_function(format!("{name}, lookup"), |b| b.iter(|| map.lookup(&key)));
        group.bench_function(format!("{name}, update"), |b| {
            b.iter(|| map.update(&key, &value, 0))
        });
    }
    group.finish();
}

/// Each program arms an object of its kind; its callback has run when the second is over.
fn callbacks(c: &mut Criterion) {
    let mut group = c.benchmark_group("armed and run");
    for (kind, program) in KINDS {
        let run = |(sim, mut bpf): (Sim, Ebpf)| {
            let mut program = bpf.program_mut(program).expect("a program");
            let input = match program.takes_packet() {
                true => ProgramInput::packet(&[0; 64]),
                false => ProgramInput::empty(),
            };
            let out = program.test_run(input).expect("it runs");
            sim.run_for(secs(1)).expect("so do callbacks");
            (sim, out.insns, bpf)
        };
        let (_, _, bpf) = run(loaded());
        let ran: u32 = bpf.global("nr_ran").expect("a global");
        assert!(ran > 0, "{kind}: no callback ran");
        group.bench_function(*kind, |b| {
            b.iter_batched(loaded, run, BatchSize::PerIteration)
        });
    }
    group.finish();
}

const KINDS: &[(&str, &str)] = &[
    ("timer", "timer_moves"),
    ("wq", "wq_order"),
    ("task_work", "task_work_lifo"),
];

criterion_group!(benches, load, maps, callbacks);
criterion_main!(benches);
