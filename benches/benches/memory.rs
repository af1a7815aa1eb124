//! Guest memory: going back to a snapshot.

#![allow(missing_docs)] // criterion's macros

use bpfsim_vm::{Area, GuestMem};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const PAGE: u64 = 4096;

fn reset(c: &mut Criterion) {
    let mut group = c.benchmark_group("reset");
    for pages in [0, 1, 8, 64] {
        let mut mem = GuestMem::new().expect("memory");
        let at = mem.alloc(Area::Shared, 64 * PAGE, PAGE).expect("room");
        for page in 0..64 {
            mem.write_u64(at + page * PAGE, page).expect("allocated");
        }
        let snapshot = mem.snapshot();
        group.bench_function(format!("{pages} dirty pages"), |b| {
            b.iter_custom(|times| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..times {
                    for page in 0..pages {
                        mem.write_u64(at + page * PAGE + 8, 1).expect("allocated");
                    }
                    let start = std::time::Instant::now();
                    mem.reset_to(&snapshot);
                    spent += start.elapsed();
                }
                spent
            })
        });
    }
    group.finish();
    c.bench_function("guest memory, made and dropped", |b| {
        b.iter_batched(|| (), |()| GuestMem::new(), BatchSize::SmallInput)
    });
}

criterion_group!(benches, reset);
criterion_main!(benches);
