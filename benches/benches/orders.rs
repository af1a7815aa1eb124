//! Executions a second, beside the same models in shuttle and loom.

#![allow(missing_docs)] // criterion's macros

use bpfsim_benches::orders::{MODELS, TOOLS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn rates(c: &mut Criterion) {
    for model in MODELS {
        let mut group = c.benchmark_group(model.name);
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for (name, tool) in TOOLS {
            group.bench_function(*name, |b| b.iter_custom(|times| tool(model, times)));
        }
        group.finish();
    }
}

criterion_group!(benches, rates);
criterion_main!(benches);
