//! Map operations as Linux 6.18 carries them out.
//!
//! For each type of map random sequences are applied to Linux, where one answers, and to the
//! simulator: `BPFSIM_MAP_SEQUENCES` says how many (200 unless it is set). Sequences with Linux's
//! answers are kept in `data/maps/` and replayed everywhere; `BPFSIM_RECORD_MAPS=1` asks Linux
//! for them anew.
#![allow(clippy::print_stderr)] // the reader of the tests is to be told

use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::TypeId;
use bpfsim_kernel::{Config, Cpu, Kernel, MapBtf, MapId, MapSpec};
use bpfsim_testing::linux::{Linux, or_skip, skip_loudly};
use bpfsim_testing::map_ops::{
    Answer, MapOp, OnLinux, POOL, Sequence, Shape, Target, sequences, shapes, special_shapes, types,
};
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config as Cases, TestCaseError, TestRunner};
use std::path::PathBuf;
use std::sync::Arc;

/// A map of the simulator's, and the pool beside it.
struct Simulated {
    shape: Shape,
    kernel: Kernel,
    cpus: u32,
    map: MapId,
    pool: Vec<MapId>,
    next: Option<Vec<u8>>,
}

impl Simulated {
    fn new(shape: &Shape, cpus: u32) -> Result<Simulated, Errno> {
        let config = Config {
            cpus,
            ..Config::default()
        };
        let mut kernel = Kernel::new(config).unwrap();
        let mut pool = Vec::new();
        if shape.holds_maps() {
            for n in 0..POOL {
                let (map_type, key, value, entries) = Shape::pool(n);
                pool.push(kernel.map_create(MapSpec::new(map_type, key, value, entries))?);
            }
        }
        let map = kernel.map_create(MapSpec {
            flags: shape.flags,
            map_extra: shape.map_extra,
            inner: pool.first().copied(),
            btf: shape.btf.map(|(key, value)| MapBtf {
                btf: Arc::new(types()),
                key: TypeId(key),
                value: TypeId(value),
            }),
            ..MapSpec::new(
                shape.map_type(),
                shape.key_size,
                shape.value_size,
                shape.max_entries,
            )
        })?;
        Ok(Simulated {
            shape: shape.clone(),
            kernel,
            cpus,
            map,
            pool,
            next: None,
        })
    }

    fn value(&self, number: u8) -> Vec<u8> {
        let value = self
            .shape
            .value(number, self.kernel.map_value_len(self.map));
        if !self.shape.holds_maps() {
            return value;
        }
        let id = self.pool.get(value[0] as usize).map_or(u32::MAX, |m| m.0);
        id.to_le_bytes().to_vec()
    }

    fn shown(&self, values: &[u8]) -> Vec<u8> {
        if !self.shape.holds_maps() {
            return values.to_vec();
        }
        let number = |id: &[u8]| {
            let at = self.pool.iter().position(|m| m.0.to_le_bytes() == *id);
            at.map_or(u32::MAX, |n| n as u32).to_le_bytes()
        };
        values.chunks_exact(4).flat_map(number).collect()
    }

    fn gave(&self, result: Result<Vec<u8>, Errno>) -> Answer {
        Answer::of(result.map(|value| self.shown(&value)))
    }

    fn walk(&mut self) -> Answer {
        let (mut data, mut key) = (Vec::new(), None::<Vec<u8>>);
        for _ in 0..1000 {
            match self.kernel.map_next_key(self.map, key.as_deref()) {
                Ok(next) => {
                    data.extend(&next);
                    let value = self.kernel.map_lookup(self.map, &next);
                    data.extend(self.gave(value).data);
                    key = Some(next);
                }
                Err(Errno::ENOENT) => break,
                Err(errno) => return Answer::of(Err(errno)),
            }
        }
        Answer::of(Ok(data))
    }

    fn lookup_batch(&mut self, delete: bool, resume: bool, count: u8, flags: u8) -> Answer {
        let from = self.next.take().filter(|_| resume);
        let (out, result) = self.kernel.map_lookup_batch(
            self.map,
            delete,
            from.as_deref(),
            count as u32,
            flags as u64,
        );
        let mut data = out.keys;
        data.extend(self.shown(&out.values));
        let next = out.next.map(|mut next| {
            // What Linux leaves unwritten, as it was before.
            next.resize(next.len().max(self.shape.key_size as usize).max(4), 0xa5);
            next
        });
        data.extend(next.iter().flatten());
        self.next = next;
        Answer {
            errno: result.err().map_or(0, |e| e.0),
            count: out.count,
            data,
        }
    }
}

impl Target for Simulated {
    fn apply(&mut self, op: &MapOp) -> Answer {
        let map = self.map;
        let task = self.kernel.main_task();
        let key = |n: u16| match self.shape.names_task(n) {
            true => task.0.to_le_bytes().to_vec(),
            false => self.shape.key(n),
        };
        let done = |result: Result<(), Errno>| Answer::of(result.map(|()| Vec::new()));
        match op {
            MapOp::Lookup { key: k, flags } => {
                let key = if self.shape.map_type() == MapType::BloomFilter {
                    self.value(*k as u8)
                } else {
                    key(*k)
                };
                let value = self.kernel.map_lookup_flags(map, &key, *flags as u64);
                self.gave(value)
            }
            MapOp::Update {
                key: k,
                value,
                flags,
            } => {
                let (key, value) = (key(*k), self.value(*value));
                done(self.kernel.map_update(map, &key, &value, *flags as u64))
            }
            MapOp::Delete { key: k } => {
                let key = key(*k);
                done(self.kernel.map_delete(map, &key))
            }
            MapOp::NextKey { key: k } => {
                let key = k.map(key);
                Answer::of(self.kernel.map_next_key(map, key.as_deref()))
            }
            MapOp::LookupDelete { key: k, flags } => {
                let key = key(*k);
                let kernel = &mut self.kernel;
                let value = kernel.map_lookup_and_delete(map, &key, *flags as u64);
                self.gave(value)
            }
            MapOp::LookupBatch {
                delete,
                resume,
                count,
                flags,
            } => self.lookup_batch(*delete, *resume, *count, *flags),
            MapOp::WriteBatch { keys, value, flags } => {
                let bytes: Vec<u8> = keys.iter().flat_map(|&k| key(k)).collect();
                let values = value.map(|v| {
                    let each = (0..keys.len() as u8).flat_map(|i| self.value(v.wrapping_add(i)));
                    each.collect::<Vec<u8>>()
                });
                let (count, result) = self.kernel.map_write_batch(
                    map,
                    &bytes,
                    values.as_deref(),
                    keys.len() as u32,
                    *flags as u64,
                );
                Answer {
                    errno: result.err().map_or(0, |e| e.0),
                    count,
                    data: Vec::new(),
                }
            }
            MapOp::Walk => self.walk(),
            MapOp::OnCpu { cpu } => {
                self.kernel.run_user_on(Cpu(*cpu as u32 % self.cpus));
                Answer::default()
            }
            MapOp::Freeze => done(self.kernel.map_freeze(map)),
        }
    }
}

/// How long sequences are: evictions take many operations; with maps of maps Linux waits for a
/// grace period after every change.
fn most(map_type: MapType) -> usize {
    match map_type {
        MapType::LruHash | MapType::LruPercpuHash => 400,
        MapType::ArrayOfMaps | MapType::HashOfMaps => 16,
        _ => 80,
    }
}

fn compare(linux: &Linux, sequence: &Sequence) -> Result<(), TestCaseError> {
    let cpus = linux.possible_cpus() as u32;
    let made = (
        OnLinux::new(linux, &sequence.shape),
        Simulated::new(&sequence.shape, cpus),
    );
    let (mut theirs, mut ours) = match made {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (theirs, ours) => {
            let (theirs, ours) = (theirs.err(), ours.err());
            return if theirs == ours {
                Ok(())
            } else {
                Err(TestCaseError::fail(format!(
                    "created: Linux {theirs:?}, simulator {ours:?}"
                )))
            };
        }
    };
    for (i, op) in sequence.ops.iter().enumerate() {
        let (theirs, ours) = (theirs.apply(op), ours.apply(op));
        if theirs != ours {
            return Err(TestCaseError::fail(format!(
                "operation {i}, {op:?}:\n  Linux     {theirs:?}\n  simulator {ours:?}"
            )));
        }
    }
    Ok(())
}

fn live(map_type: MapType, shapes: BoxedStrategy<Shape>) {
    let Some(linux) = linux(map_type) else { return };
    let cases = std::env::var("BPFSIM_MAP_SEQUENCES").ok();
    let cases = cases.and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(Cases {
        cases,
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..Cases::default()
    });
    let outcome = runner.run(&sequences(shapes, most(map_type)), |sequence| {
        compare(&linux, &sequence)
    });
    if let Err(why) = outcome {
        panic!("{}: {why}", map_type.name());
    }
}

fn linux(map_type: MapType) -> Option<Linux> {
    let linux = or_skip(map_type.name())?;
    if !linux.is_series("6.18") {
        skip_loudly(map_type.name(), format!("Linux is {}", linux.release()));
        return None;
    }
    Some(linux)
}

/// Sequences in a recording.
const RECORDED: usize = 12;

fn path(map_type: MapType) -> PathBuf {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/maps");
    data.join(format!("{}.txt", map_type.name()))
}

/// A recording is lines: the number of CPUs; then for each sequence the sequence as JSON and an
/// answer a line, up to an empty one.
fn record(linux: &Linux, map_type: MapType) {
    let mut runner = TestRunner::deterministic();
    let mut text = format!("{}\n", linux.possible_cpus());
    for _ in 0..RECORDED {
        let tree = sequences(shapes(map_type), most(map_type))
            .new_tree(&mut runner)
            .unwrap();
        let sequence = tree.current();
        text += &serde_json::to_string(&sequence).unwrap();
        text += "\n";
        match OnLinux::new(linux, &sequence.shape) {
            Err(errno) => text += &format!("not made: {}\n", errno.0),
            Ok(mut map) => {
                for op in &sequence.ops {
                    text += &map.apply(op).line();
                    text += "\n";
                }
            }
        }
        text += "\n";
    }
    std::fs::write(path(map_type), text).unwrap();
}

fn replay(map_type: MapType) {
    if std::env::var_os("BPFSIM_RECORD_MAPS").is_some() {
        let Some(linux) = linux(map_type) else { return };
        record(&linux, map_type);
    }
    let path = path(map_type);
    let text = std::fs::read_to_string(&path).unwrap();
    let (cpus, sequences) = text.split_once('\n').unwrap();
    let cpus = cpus.parse().unwrap();
    let mut replayed = 0;
    for one in sequences.split_terminator("\n\n") {
        let mut lines = one.lines();
        let sequence: Sequence = serde_json::from_str(lines.next().unwrap()).unwrap();
        match Simulated::new(&sequence.shape, cpus) {
            Err(errno) => assert_eq!(
                lines.next().unwrap(),
                format!("not made: {}", errno.0),
                "{:?}",
                sequence.shape
            ),
            Ok(mut map) => {
                let made = map.kernel.snapshot();
                let mut half = None;
                let theirs: Vec<&str> = lines.by_ref().collect();
                assert_eq!(theirs.len(), sequence.ops.len());
                let middle = theirs.len() / 2;
                for (i, (op, theirs)) in sequence.ops.iter().zip(&theirs).enumerate() {
                    if i == middle {
                        half = Some((map.kernel.snapshot(), map.next.clone()));
                    }
                    let ours = map.apply(op);
                    assert_eq!(*theirs, ours.line(), "{op:?} in {sequence:?}");
                }
                // From snapshots the same comes once more.
                let half = half.iter().map(|(k, next)| (k, next.clone(), middle));
                for (snapshot, next, from) in half.chain([(&made, None, 0)]) {
                    map.kernel.restore(snapshot).unwrap();
                    map.next = next;
                    for (op, theirs) in sequence.ops.iter().zip(&theirs).skip(from) {
                        assert_eq!(*theirs, map.apply(op).line(), "again: {op:?}");
                    }
                }
            }
        }
        assert_eq!(lines.next(), None);
        replayed += 1;
    }
    assert_eq!(replayed, RECORDED);
}

/// Values with a lock, a timer, a work queue, a task work.
mod special_fields {
    use super::*;
    #[test]
    fn in_arrays() {
        live(MapType::Array, special_shapes(MapType::Array));
    }
    #[test]
    fn in_hash_maps() {
        live(MapType::Hash, special_shapes(MapType::Hash));
    }
    #[test]
    fn in_lru_hash_maps() {
        live(MapType::LruHash, special_shapes(MapType::LruHash));
    }
    #[test]
    fn in_percpu_hash_maps() {
        live(MapType::PercpuHash, special_shapes(MapType::PercpuHash));
    }
}

macro_rules! map_types {
    ($($name:ident: $map_type:ident;)*) => {
        /// On the kernel that runs.
        mod live {
            use super::*;
            $(#[test] fn $name() {
                super::live(MapType::$map_type, shapes(MapType::$map_type))
            })*
        }
        /// As the 6.18 kernel answered whose answers are recorded.
        mod recorded {
            use super::*;
            $(#[test] fn $name() { super::replay(MapType::$map_type) })*
        }
        /// Each type of map is above, but those that need more than a map to make them.
        #[test]
        fn every_type_is_compared() {
            let here = [$(MapType::$map_type),*];
            let more = [MapType::Unspec, MapType::StructOps];
            for number in 0.. {
                let Some(map_type) = MapType::from_u32(number) else { break };
                assert!(
                    here.contains(&map_type) || more.contains(&map_type),
                    "{map_type:?}"
                );
            }
        }
    };
}

map_types! {
    hash: Hash;
    array: Array;
    prog_array: ProgArray;
    perf_event_array: PerfEventArray;
    percpu_hash: PercpuHash;
    percpu_array: PercpuArray;
    stack_trace: StackTrace;
    cgroup_array: CgroupArray;
    lru_hash: LruHash;
    lru_percpu_hash: LruPercpuHash;
    lpm_trie: LpmTrie;
    array_of_maps: ArrayOfMaps;
    hash_of_maps: HashOfMaps;
    devmap: Devmap;
    sockmap: Sockmap;
    cpumap: Cpumap;
    xskmap: Xskmap;
    sockhash: Sockhash;
    cgroup_storage: CgroupStorage;
    reuseport_sockarray: ReuseportSockarray;
    percpu_cgroup_storage: PercpuCgroupStorage;
    queue: Queue;
    stack: Stack;
    devmap_hash: DevmapHash;
    ringbuf: Ringbuf;
    bloom_filter: BloomFilter;
    user_ringbuf: UserRingbuf;
    arena: Arena;
    task_storage: TaskStorage;
    sk_storage: SkStorage;
    inode_storage: InodeStorage;
    cgrp_storage: CgrpStorage;
}
