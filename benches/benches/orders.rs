//! Executions a second, beside the same models in shuttle and loom.
//!
//! M1: two contexts increment a counter ten times each, a load and a store. M2: each increment under
//! a lock. M3: an element is inserted, looked up and deleted, while a callback looks it up, updates
//! and looks up again. Every load, store, lock and map operation is a visible one.

#![allow(missing_docs)] // criterion's macros

use bpfsim::{Config, Cpu, Ebpf, Machine, ProgramInput, Seed, Sim};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const OBJECT: &[u8] = include_bytes!("../../fixtures/order_models.bpf.o");
const ROUNDS: usize = 10;

/// What the thread has had of its processor.
fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Both contexts run this program; of `arm` the other one is its timer's.
fn scene(sim: &Sim, program: &str) -> bpfsim::Result<()> {
    let bpf = Ebpf::load(sim, OBJECT)?;
    sim.spawn_on(Cpu(0), bpf.program(program)?, ProgramInput::empty())?;
    if program != "arm" {
        sim.spawn_on(Cpu(1), bpf.program(program)?, ProgramInput::empty())?;
    }
    sim.run_until_idle()
}

macro_rules! models {
    ($name:ident, $lib:ident) => {
        mod $name {
            use super::ROUNDS;
            use $lib::sync::atomic::{AtomicUsize, Ordering::SeqCst};
            use $lib::sync::{Arc, Mutex};
            use $lib::thread;

            pub fn unlocked() {
                let counter = Arc::new(AtomicUsize::new(0));
                let task = |counter: Arc<AtomicUsize>| {
                    move || {
                        for _ in 0..ROUNDS {
                            let old = counter.load(SeqCst);
                            counter.store(old + 1, SeqCst);
                        }
                    }
                };
                let tasks = [counter.clone(), counter].map(|c| thread::spawn(task(c)));
                tasks.into_iter().for_each(|t| t.join().unwrap());
            }

            pub fn locked() {
                let counter = Arc::new(Mutex::new(0));
                let task = |counter: Arc<Mutex<usize>>| {
                    move || {
                        for _ in 0..ROUNDS {
                            *counter.lock().unwrap() += 1;
                        }
                    }
                };
                let tasks = [counter.clone(), counter].map(|c| thread::spawn(task(c)));
                tasks.into_iter().for_each(|t| t.join().unwrap());
            }

            fn units(mut x: usize) -> usize {
                for _ in 0..50 {
                    x = std::hint::black_box(x.wrapping_mul(3).wrapping_add(1));
                }
                x
            }

            pub fn arm() {
                let map = Arc::new(Mutex::new([None::<usize>; 2]));
                let other = map.clone();
                map.lock().unwrap()[0] = Some(0);
                units(1);
                let timer = thread::spawn(move || {
                    let found = other.lock().unwrap()[0];
                    let x = units(1);
                    match found {
                        Some(_) => other.lock().unwrap()[1] = Some(x),
                        None => drop(other.lock().unwrap()),
                    }
                    units(x);
                    drop(other.lock().unwrap());
                });
                drop(map.lock().unwrap());
                units(1);
                map.lock().unwrap()[0] = None;
                timer.join().unwrap();
            }
        }
    };
}

models!(in_shuttle, shuttle);
models!(in_loom, loom);

type Model = (&'static str, &'static str, fn(), fn());

const MODELS: &[Model] = &[
    ("M1", "unlocked", in_shuttle::unlocked, in_loom::unlocked),
    ("M2", "locked", in_shuttle::locked, in_loom::locked),
    ("M3", "arm", in_shuttle::arm, in_loom::arm),
];

fn rates(c: &mut Criterion) {
    for &(name, program, in_shuttle, in_loom) in MODELS {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(20);
        group.bench_function("bpfsim, random", |b| {
            let machine = Machine::new(Config::default()).expect("a machine");
            b.iter_custom(|times| {
                let start = thread_time();
                for seed in 1..=times {
                    let sim = machine.begin(seed, Seed(seed).chooser());
                    scene(sim, program).expect("it passes");
                }
                thread_time() - start
            })
        });
        group.bench_function("shuttle, random", |b| {
            b.iter_custom(|times| {
                let start = thread_time();
                shuttle::check_random(in_shuttle, times as usize);
                thread_time() - start
            })
        });
        group.bench_function("loom, exhaustive", |b| {
            b.iter_custom(|times| {
                let mut done = 0;
                let mut spent = Duration::ZERO;
                // It may have fewer orders than are asked for.
                while done < times {
                    let ran = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
                    let counts = std::sync::Arc::clone(&ran);
                    let mut model = loom::model::Builder::new();
                    model.max_permutations = Some((times - done) as usize);
                    let start = thread_time();
                    model.check(move || {
                        counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        in_loom();
                    });
                    spent += thread_time() - start;
                    done += ran.load(std::sync::atomic::Ordering::Relaxed).max(1);
                }
                spent
            })
        });
        group.finish();
    }
}

criterion_group!(benches, rates);
criterion_main!(benches);
