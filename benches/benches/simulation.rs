//! A simulation: making one, loading, going back to its beginning, map operations, and each kind of
//! callback armed and run.

#![allow(missing_docs)] // criterion's macros

use bpfsim::{Config, Ebpf, Machine, ProgramInput, Seed, Sim, secs};
use bpfsim_abi::MapType;
use bpfsim_kernel::{Kernel, MapId, MapSpec, SysOp, SysResult};
use criterion::{Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

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

/// What the thread has had of its processor.
fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A kernel goes back to what it was before some pages were written to.
fn reset(c: &mut Criterion) {
    const PAGE: usize = 4096;
    /// `BPF_F_MMAPABLE`
    const MMAPABLE: u32 = 1 << 10;
    let mut group = c.benchmark_group("reset of a simulation");
    for (pages, bytes) in [(0, 8), (1, 8), (8, 8), (8, 1024), (8, PAGE)] {
        let mut kernel = Kernel::new(Config::default()).expect("a machine");
        let spec = MapSpec {
            flags: MMAPABLE,
            ..MapSpec::new(MapType::Array, 4, 16 * PAGE as u32, 1)
        };
        let map = kernel.map_create(spec).expect("a map");
        let begin = kernel.snapshot();
        let name = format!("after {pages} pages, {bytes} bytes of each written");
        group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    for page in 0..pages {
                        let data = vec![7; bytes];
                        kernel
                            .write_data(map, page * PAGE, &data)
                            .expect("it has room");
                    }
                    let start = thread_time();
                    kernel.restore(&begin).expect("its own");
                    spent += thread_time() - start;
                }
                spent
            })
        });
    }
    group.finish();
}

/// What is done to an element, and what makes the map again what it was.
type Op = (&'static str, fn(MapId, &[u8], &[u8]) -> Vec<SysOp>);

const KEYED: &[Op] = &[
    ("lookup", |map, key, _| vec![lookup(map, key)]),
    ("update", |map, key, value| vec![update(map, key, value)]),
];

const DELETES: &[Op] = &[("delete and update", |map, key, value| {
    let delete = SysOp::MapDelete {
        map,
        key: key.to_vec(),
    };
    vec![delete, update(map, key, value)]
})];

const QUEUED: &[Op] = &[
    ("peek", |map, _, _| vec![lookup(map, &[])]),
    ("pop and push", |map, _, value| {
        let pop = SysOp::MapLookupDelete {
            map,
            key: Vec::new(),
        };
        vec![pop, update(map, &[], value)]
    }),
];

fn lookup(map: MapId, key: &[u8]) -> SysOp {
    let key = key.to_vec();
    SysOp::MapLookup { map, key }
}

fn update(map: MapId, key: &[u8], value: &[u8]) -> SysOp {
    SysOp::MapUpdate {
        map,
        key: key.to_vec(),
        value: value.to_vec(),
        flags: 0,
    }
}

/// The main types, with the bytes of their keys and the sets of operations that they have.
const MAPS: &[(MapType, u32, &[&[Op]])] = &[
    (MapType::Array, 4, &[KEYED]),
    (MapType::PercpuArray, 4, &[KEYED]),
    (MapType::Hash, 4, &[KEYED, DELETES]),
    (MapType::PercpuHash, 4, &[KEYED, DELETES]),
    (MapType::LruHash, 4, &[KEYED, DELETES]),
    (MapType::LruPercpuHash, 4, &[KEYED, DELETES]),
    (MapType::LpmTrie, 8, &[KEYED, DELETES]),
    (MapType::Queue, 0, &[QUEUED]),
    (MapType::Stack, 0, &[QUEUED]),
];

fn maps(c: &mut Criterion) {
    /// `BPF_F_NO_PREALLOC`, which tries must have.
    const NO_PREALLOC: u32 = 1;
    for &(map_type, key_size, sets) in MAPS {
        let mut group = c.benchmark_group(format!("map, {}", map_type.name()));
        let mut kernel = Kernel::new(Config::default()).expect("a machine");
        let map = kernel.map_create(MapSpec {
            flags: match map_type {
                MapType::LpmTrie => NO_PREALLOC,
                _ => 0,
            },
            ..MapSpec::new(map_type, key_size, 8, 64)
        });
        let map = map.expect("a map");
        let value = vec![1; kernel.map_value_len(map)];
        let key = |n: u8| -> Vec<u8> {
            // Of tries, 32 bits of an address that differ in the first byte.
            match key_size {
                8 => vec![32, 0, 0, 0, n, 0, 0, 1],
                len => (0..len).map(|i| if i == 0 { n } else { 0 }).collect(),
            }
        };
        for n in 0..32 {
            run(&mut kernel, &update(map, &key(n), &value));
        }
        for (name, ops) in sets.iter().copied().flatten() {
            let ops = ops(map, &key(3), &value);
            group.bench_function(*name, |b| {
                b.iter(|| ops.iter().for_each(|op| run(&mut kernel, op)))
            });
        }
        group.finish();
    }
}

fn run(kernel: &mut Kernel, op: &SysOp) {
    let result = kernel.syscall_now(op).expect("nothing fails");
    let fine = !matches!(result, SysResult::Failed(_) | SysResult::Unsupported(_));
    assert!(fine, "{op:?}: {result:?}");
}

/// Each program arms an object of its kind; its callback has run when the second is over.
fn callbacks(c: &mut Criterion) {
    let mut group = c.benchmark_group("armed and run");
    let machine = Machine::new(Config::default()).expect("a machine");
    let run = |program: &str| -> u32 {
        let sim = machine.begin(0, Seed::USUAL.chooser());
        let mut bpf = Ebpf::load_static(sim, OBJECT).expect("it loads");
        let mut program = bpf.program_mut(program).expect("a program");
        let input = match program.takes_packet() {
            true => ProgramInput::packet(&[0; 64]),
            false => ProgramInput::empty(),
        };
        program.test_run(input).expect("it runs");
        sim.run_for(secs(1)).expect("so do callbacks");
        bpf.global("nr_ran").expect("a global")
    };
    for (kind, program) in KINDS {
        assert!(run(program) > 0, "{kind}: no callback ran");
        group.bench_function(*kind, |b| b.iter(|| run(program)));
    }
    group.finish();
}

const KINDS: &[(&str, &str)] = &[
    ("timer", "timer_moves"),
    ("wq", "wq_order"),
    ("task_work", "task_work_lifo"),
];

criterion_group!(benches, load, reset, maps, callbacks);
criterion_main!(benches);
