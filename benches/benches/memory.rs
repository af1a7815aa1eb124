//! Guest memory: going back to a snapshot.

#![allow(missing_docs)] // criterion's macros

use bpfsim_vm::{Area, GuestMem};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const PAGE: u64 = 4096;

fn reset(c: &mut Criterion) {
    let mut group = c.benchmark_group("reset");
    let rows = [(0, 8), (1, 8), (8, 8), (64, 8), (8, PAGE)];
    for (pages, bytes) in rows {
        let mut mem = GuestMem::new().expect("memory");
        let at = mem.alloc(Area::Shared, 64 * PAGE, PAGE).expect("room");
        let all = mem.slice_mut(at, 64 * PAGE).expect("allocated");
        all.fill(7);
        let snapshot = mem.snapshot();
        group.bench_function(
            format!("{pages} pages, {bytes} bytes of each written"),
            |b| {
                b.iter_custom(|times| {
                    let mut spent = std::time::Duration::ZERO;
                    for _ in 0..times {
                        for page in 0..pages {
                            let to = mem.slice_mut(at + page * PAGE, bytes);
                            to.expect("allocated").fill(1);
                        }
                        let start = std::time::Instant::now();
                        assert!(mem.restore(&snapshot));
                        spent += start.elapsed();
                    }
                    spent
                })
            },
        );
    }
    group.finish();
    c.bench_function("guest memory, made and dropped", |b| {
        b.iter_batched(|| (), |()| GuestMem::new(), BatchSize::SmallInput)
    });
}

criterion_group!(benches, reset);
criterion_main!(benches);
