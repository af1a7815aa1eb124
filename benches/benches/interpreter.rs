//! The interpreters of bpfsim, rbpf and solana-sbpf on the same twelve programs.

#![allow(missing_docs)] // criterion's macros

use bpfsim_benches::engines::{ENGINES, check};
use bpfsim_benches::programs::programs;
use bpfsim_benches::reference;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn interpreters(c: &mut Criterion) {
    for program in programs() {
        let expected = reference::run(&program);
        let mut group = c.benchmark_group(&program.name);
        group.throughput(Throughput::Elements(expected.insns));
        for (name, make) in ENGINES {
            let mut engine = make(&program).expect("an engine");
            check(name, &program, &mut *engine, expected).expect("what the reference gives");
            group.bench_function(*name, |b| b.iter(|| engine.run()));
        }
        group.finish();
    }
}

criterion_group!(benches, interpreters);
criterion_main!(benches);
