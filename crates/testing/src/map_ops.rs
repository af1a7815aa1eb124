//! Random sequences of map operations, and Linux as one who carries them out.
//!
//! A [`Sequence`] names keys, values and CPUs by small numbers, so that it means the same to every
//! [`Target`] and stays short in a file. What a target answers is made of errnos and bytes alone.

use crate::linux::{BatchAsk, BatchCmd, Linux, Map, MapSpec, stay_on_cpu};
use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::{Btf, BtfBuilder, Member};
use proptest::prelude::*;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd};

/// A map to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Shape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    pub map_extra: u64,
    /// Types of key and value, as [`types`] numbers them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub btf: Option<(u32, u32)>,
}

/// One operation. Keys and values are numbers: [`Shape::key`], [`Shape::value`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum MapOp {
    #[serde(rename = "l")]
    Lookup {
        #[serde(rename = "k")]
        key: u16,
        #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
        flags: u8,
    },
    #[serde(rename = "u")]
    Update {
        #[serde(rename = "k")]
        key: u16,
        #[serde(rename = "v")]
        value: u8,
        #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
        flags: u8,
    },
    #[serde(rename = "d")]
    Delete {
        #[serde(rename = "k")]
        key: u16,
    },
    #[serde(rename = "n")]
    NextKey {
        #[serde(rename = "k")]
        key: Option<u16>,
    },
    #[serde(rename = "ld")]
    LookupDelete {
        #[serde(rename = "k")]
        key: u16,
        #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
        flags: u8,
    },
    /// A batch of look-ups, going on where the one before ended if `resume`.
    #[serde(rename = "lb")]
    LookupBatch {
        delete: bool,
        resume: bool,
        count: u8,
        #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
        flags: u8,
    },
    /// A batch of updates, or without a value of deletions.
    #[serde(rename = "wb")]
    WriteBatch {
        keys: Vec<u16>,
        #[serde(rename = "v")]
        value: Option<u8>,
        #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
        flags: u8,
    },
    /// All keys in order, with their values.
    #[serde(rename = "w")]
    Walk,
    /// Go to this CPU, modulo their number.
    #[serde(rename = "cpu")]
    OnCpu { cpu: u8 },
    #[serde(rename = "fr")]
    Freeze,
}

fn is_zero(flags: &u8) -> bool {
    *flags == 0
}

/// A map and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The map.
    pub shape: Shape,
    /// What is done.
    pub ops: Vec<MapOp>,
}

/// What an operation answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// 0 or the errno.
    pub errno: u16,
    /// `count` of a batch.
    pub count: u32,
    /// Keys and values that it gave, each list one after another.
    pub data: Vec<u8>,
}

impl Answer {
    /// Of an operation that gives bytes, or nothing.
    pub fn of(result: Result<Vec<u8>, Errno>) -> Answer {
        match result {
            Ok(data) => Answer {
                data,
                ..Answer::default()
            },
            Err(errno) => Answer {
                errno: errno.0,
                ..Answer::default()
            },
        }
    }

    /// A line of a recording: errno, count, and of many bytes a hash.
    pub fn line(&self) -> String {
        let data = if self.data.len() <= 8 {
            self.data.iter().map(|b| format!("{b:02x}")).collect()
        } else {
            let hash = self.data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| {
                (h ^ b as u64).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{}#{hash:x}", self.data.len())
        };
        format!("{} {} {data}", self.errno, self.count)
    }
}

/// Who carries operations out on one map.
pub trait Target {
    /// Does one.
    fn apply(&mut self, op: &MapOp) -> Answer;
}

/// Maps that a map of maps is given: how many, and which of them do not fit.
pub const POOL: usize = 3;

impl Shape {
    /// The type, of which there is one.
    pub fn map_type(&self) -> MapType {
        MapType::from_u32(self.map_type).unwrap_or(MapType::Unspec)
    }

    /// Values are numbers of maps in a pool of [`POOL`].
    pub fn holds_maps(&self) -> bool {
        matches!(self.map_type(), MapType::ArrayOfMaps | MapType::HashOfMaps)
    }

    /// The pool's maps: two that fit and one that does not.
    pub fn pool(n: usize) -> (MapType, u32, u32, u32) {
        match n {
            2 => (MapType::Hash, 4, 4, 2),
            _ => (MapType::Hash, 4, 8, 2),
        }
    }

    /// A key that stands for the task that asks.
    pub fn names_task(&self, number: u16) -> bool {
        self.map_type() == MapType::TaskStorage && !number.is_multiple_of(4)
    }

    /// The bytes of a key; of storage that belongs to objects no descriptor.
    pub fn key(&self, number: u16) -> Vec<u8> {
        let size = self.key_size as usize;
        if of_objects(self.map_type()) {
            return u32::MAX.to_le_bytes().to_vec();
        }
        if self.map_type() == MapType::LpmTrie && size > 4 {
            let bits = (size as u32 - 4) * 8;
            let prefixlen = number as u32 % (bits + 2);
            let pattern = number as u32 / (bits + 2);
            let data = (0..size - 4).map(|i| match pattern % 5 {
                0 => 0,
                1 => 0xff,
                2 => 0x80 >> (i % 3),
                3 => mix(pattern as u64, i as u64),
                _ => 0x0f,
            });
            let mut key = prefixlen.to_le_bytes().to_vec();
            key.extend(data);
            return key;
        }
        let indexed = size == 4
            && !matches!(
                self.map_type(),
                MapType::Hash | MapType::LruHash | MapType::PercpuHash | MapType::LruPercpuHash
            );
        if indexed {
            let index = match number % 16 {
                15 => u32::MAX,
                14 => self.max_entries,
                n => n as u32,
            };
            return index.to_le_bytes().to_vec();
        }
        (0..size).map(|i| mix(number as u64, i as u64)).collect()
    }

    /// The bytes of a value, `len` of them; of a map of maps the number of one in the pool, or
    /// of none.
    pub fn value(&self, number: u8, len: usize) -> Vec<u8> {
        use MapType as T;
        let words = |a: u32, b: u32| {
            let both = [a.to_le_bytes(), b.to_le_bytes()].concat();
            both.into_iter()
                .chain(std::iter::repeat(0))
                .take(len)
                .collect()
        };
        match self.map_type() {
            T::ArrayOfMaps | T::HashOfMaps => words(number as u32 % 5, 0),
            T::ProgArray | T::PerfEventArray | T::CgroupArray | T::Xskmap => {
                words(u32::MAX - number as u32 % 3, 0)
            }
            // Interfaces: none, lo, and one that is not there.
            T::Devmap | T::DevmapHash => words(
                [0, 1, 99_999][number as usize % 3],
                [0, u32::MAX][number as usize / 3 % 2],
            ),
            T::Cpumap => words([0, 16385][number as usize % 2], 0),
            T::Sockmap | T::Sockhash | T::ReuseportSockarray => words(
                [1_000_000, u32::MAX][number as usize % 2],
                [0, 1][number as usize / 2 % 2],
            ),
            _ => (0..len)
                .map(|i| mix(1000 + number as u64, i as u64))
                .collect(),
        }
    }
}

fn mix(a: u64, b: u64) -> u8 {
    let x = (a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(1))
        .wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 56) as u8
}

fn of_objects(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::TaskStorage | MapType::SkStorage | MapType::InodeStorage | MapType::CgrpStorage
    )
}

/// Shapes of maps of a type that Linux makes.
pub fn shapes(map_type: MapType) -> BoxedStrategy<Shape> {
    use MapType as T;
    const NO_PREALLOC: u32 = 1;
    const NO_COMMON_LRU: u32 = 2;
    const ZERO_SEED: u32 = 64;
    let sizes = || prop::sample::select(vec![1u32, 3, 4, 8, 12, 16, 24]);
    let few = || prop_oneof![4 => 1u32..8, 1 => 8u32..40];
    let (keys, values, entries, flags) = match map_type {
        T::Hash | T::PercpuHash => (
            sizes().boxed(),
            sizes().boxed(),
            few().boxed(),
            prop::sample::select(vec![ZERO_SEED, ZERO_SEED | NO_PREALLOC]).boxed(),
        ),
        T::HashOfMaps => (
            sizes().boxed(),
            Just(4).boxed(),
            few().boxed(),
            prop::sample::select(vec![ZERO_SEED, ZERO_SEED | NO_PREALLOC]).boxed(),
        ),
        T::LruHash | T::LruPercpuHash => (
            sizes().boxed(),
            sizes().boxed(),
            prop_oneof![2 => 1u32..8, 2 => 8u32..40, 1 => 40u32..300].boxed(),
            prop::sample::select(vec![ZERO_SEED, ZERO_SEED | NO_COMMON_LRU]).boxed(),
        ),
        T::LpmTrie => (
            prop::sample::select(vec![5u32, 6, 8, 12, 15, 20]).boxed(),
            sizes().boxed(),
            few().boxed(),
            Just(NO_PREALLOC).boxed(),
        ),
        T::Queue | T::Stack => (
            Just(0).boxed(),
            sizes().boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
        T::BloomFilter => (
            Just(0).boxed(),
            sizes().boxed(),
            few().boxed(),
            Just(ZERO_SEED).boxed(),
        ),
        T::Array | T::PercpuArray => (
            Just(4).boxed(),
            sizes().boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
        T::StackTrace => (
            Just(4).boxed(),
            prop::sample::select(vec![8u32, 64]).boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
        T::Devmap | T::DevmapHash | T::Sockmap | T::ReuseportSockarray => (
            Just(4).boxed(),
            prop::sample::select(vec![4u32, 8]).boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
        T::Cpumap => (
            Just(4).boxed(),
            prop::sample::select(vec![4u32, 8]).boxed(),
            (1u32..4).boxed(),
            Just(0).boxed(),
        ),
        T::Sockhash => (
            sizes().boxed(),
            prop::sample::select(vec![4u32, 8]).boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
        T::Ringbuf | T::UserRingbuf => (
            Just(0).boxed(),
            Just(0).boxed(),
            Just(4096).boxed(),
            Just(0).boxed(),
        ),
        T::Arena => (
            Just(0).boxed(),
            Just(0).boxed(),
            (1u32..4).boxed(),
            Just(1024).boxed(),
        ),
        T::TaskStorage | T::SkStorage | T::InodeStorage | T::CgrpStorage => (
            Just(4).boxed(),
            Just(16).boxed(),
            Just(0).boxed(),
            Just(NO_PREALLOC).boxed(),
        ),
        T::CgroupStorage | T::PercpuCgroupStorage => (
            prop::sample::select(vec![8u32, 16]).boxed(),
            sizes().boxed(),
            Just(0).boxed(),
            Just(0).boxed(),
        ),
        _ => (
            Just(4).boxed(),
            Just(4).boxed(),
            few().boxed(),
            Just(0).boxed(),
        ),
    };
    // Now and then a descriptor that may only read, or only write.
    let access = prop_oneof![20 => Just(0u32), 1 => Just(8u32), 1 => Just(16u32)];
    let storage = of_objects(map_type);
    let takes_access =
        !storage && !matches!(map_type, T::Cpumap | T::Ringbuf | T::UserRingbuf | T::Arena);
    (keys, values, entries, flags, access, 0u64..5)
        .prop_map(
            move |(key_size, value_size, max_entries, flags, access, extra)| Shape {
                map_type: map_type.number(),
                key_size,
                value_size,
                max_entries,
                flags: flags | if takes_access { access } else { 0 },
                map_extra: if map_type == T::BloomFilter { extra } else { 0 },
                btf: storage.then_some((U32, PLAIN)),
            },
        )
        .boxed()
}

/// Shapes of maps whose values hold a lock, a timer, a work queue or a task work, where Linux
/// makes such ones.
pub fn special_shapes(map_type: MapType) -> BoxedStrategy<Shape> {
    let plain = shapes(map_type).prop_filter("no access flags", |s| s.flags & 0x18 == 0);
    (plain, 0..SPECIAL.len())
        .prop_map(|(shape, n)| {
            let (value, value_size) = SPECIAL[n];
            Shape {
                key_size: 4,
                value_size,
                btf: Some((U32, value)),
                ..shape
            }
        })
        .boxed()
}

/// Numbers of types in [`types`]: integers, and values with special fields with their sizes.
pub const U32: u32 = 1;
/// `u64`
pub const U64: u32 = 2;
/// `struct { u64; u64; }`
pub const PLAIN: u32 = 3;
/// Values with a special field each, and their sizes.
pub const SPECIAL: [(u32, u32); 4] = [(5, 16), (7, 24), (9, 32), (11, 24)];
/// The highest number in [`types`].
pub const TYPES: u32 = 11;

/// Types of keys and values.
///
/// # Panics
/// Never: they are written down here.
pub fn types() -> Btf {
    let mut b = BtfBuilder::new();
    let int = b.add_int("unsigned int", 4, 0);
    let long = b.add_int("unsigned long", 8, 0);
    let member = |name, ty, offset: u32| Member {
        name,
        ty,
        bit_offset: offset * 8,
        bitfield_size: 0,
    };
    b.add_struct("plain", 16, &[member("a", long, 0), member("b", long, 8)]);
    let lock = b.add_struct("bpf_spin_lock", 4, &[member("val", int, 0)]);
    b.add_struct(
        "locked",
        16,
        &[
            member("a", int, 0),
            member("lock", lock, 4),
            member("b", long, 8),
        ],
    );
    let opaque = [member("a", long, 0), member("b", long, 8)];
    let timer = b.add_struct("bpf_timer", 16, &opaque);
    b.add_struct("timed", 24, &[member("t", timer, 0), member("a", long, 16)]);
    let work = b.add_struct("bpf_wq", 16, &opaque);
    b.add_struct(
        "working",
        32,
        &[
            member("a", long, 0),
            member("w", work, 8),
            member("b", long, 24),
        ],
    );
    let task_work = b.add_struct("bpf_task_work", 8, &opaque[..1]);
    b.add_struct(
        "tasked",
        24,
        &[
            member("a", long, 0),
            member("w", task_work, 8),
            member("b", long, 16),
        ],
    );
    b.build().unwrap_or_else(|_| unreachable!("a few structs"))
}

/// With `fill` maps are kept full: what matters then is what they give up.
fn op(keys: u16, fill: bool) -> impl Strategy<Value = MapOp> {
    let key = 0..keys;
    let (updates, batch, deletes) = if fill { (60, 24, 0.03) } else { (12, 6, 0.5) };
    let known = prop_oneof![6 => Just(0u8), 2 => Just(1u8), 2 => Just(2u8), 1 => prop::sample::select(vec![3u8, 4, 5, 8])];
    let rarely = prop_oneof![12 => Just(0u8), 1 => prop::sample::select(vec![1u8, 2, 4, 8])];
    prop_oneof![
        updates => (key.clone(), any::<u8>(), known)
            .prop_map(|(key, value, flags)| MapOp::Update { key, value, flags }),
        5 => (key.clone(), rarely.clone()).prop_map(|(key, flags)| MapOp::Lookup { key, flags }),
        4 => key.clone().prop_map(|key| MapOp::Delete { key }),
        3 => prop::option::of(key.clone()).prop_map(|key| MapOp::NextKey { key }),
        2 => (key.clone(), rarely.clone())
            .prop_map(|(key, flags)| MapOp::LookupDelete { key, flags }),
        3 => (prop::bool::weighted(deletes), any::<bool>(), 0u8..12, rarely.clone()).prop_map(
            |(delete, resume, count, flags)| MapOp::LookupBatch { delete, resume, count, flags }
        ),
        2 => (
            prop::collection::vec(key, 0..batch),
            prop::option::weighted(1.0 - deletes, any::<u8>()),
            rarely
        )
            .prop_map(|(keys, value, flags)| MapOp::WriteBatch { keys, value, flags }),
        3 => Just(MapOp::Walk),
        2 => (0u8..4).prop_map(|cpu| MapOp::OnCpu { cpu }),
    ]
}

/// Sequences of up to `most` operations on a map of one of these shapes.
pub fn sequences(shapes: BoxedStrategy<Shape>, most: usize) -> impl Strategy<Value = Sequence> {
    shapes.prop_flat_map(move |shape| {
        let keys = match shape.map_type() {
            MapType::LpmTrie => ((shape.key_size as u16 - 4) * 8 + 2) * 5,
            _ => (shape.max_entries as u16 * 3 / 2).clamp(4, 400) + 2,
        };
        let fill = matches!(shape.map_type(), MapType::LruHash | MapType::LruPercpuHash);
        let ops = prop::collection::vec(op(keys, fill), 1..most);
        let freeze = prop_oneof![15 => Just(false), 1 => Just(true)];
        (Just(shape), ops, freeze, any::<prop::sample::Index>()).prop_map(
            |(shape, mut ops, freeze, at)| {
                if freeze {
                    let at = at.index(ops.len());
                    ops.insert(at, MapOp::Freeze);
                }
                Sequence { shape, ops }
            },
        )
    })
}

/// A map of Linux's, and the pool beside it.
pub struct OnLinux {
    shape: Shape,
    cpus: usize,
    map: Map,
    pool: Vec<(Map, u32)>,
    task: Option<OwnedFd>,
    next: Option<Vec<u8>>,
}

impl OnLinux {
    /// Makes a map.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(linux: &Linux, shape: &Shape) -> Result<OnLinux, Errno> {
        stay_on_cpu(0);
        let mut pool = Vec::new();
        if shape.holds_maps() {
            for n in 0..POOL {
                let (map_type, key, value, entries) = Shape::pool(n);
                let map = linux.create_map(&MapSpec::new(map_type, key, value, entries))?;
                let id = map.id()?;
                pool.push((map, id));
            }
        }
        let spec = MapSpec {
            map_type: shape.map_type,
            map_flags: shape.flags,
            map_extra: shape.map_extra,
            inner: pool.first().map(|(map, _)| map),
            ..MapSpec::new(
                MapType::Hash,
                shape.key_size,
                shape.value_size,
                shape.max_entries,
            )
        };
        let btf = match shape.btf {
            Some(_) => Some(linux.load_btf(&types().to_bytes()).map_err(|(e, _)| e)?),
            None => None,
        };
        let spec = MapSpec {
            btf: btf
                .as_ref()
                .zip(shape.btf)
                .map(|(b, (k, v))| (b.fd(), k, v)),
            ..spec
        };
        let map = linux.create_map(&spec)?;
        Ok(OnLinux {
            shape: shape.clone(),
            cpus: linux.possible_cpus(),
            map,
            pool,
            task: pidfd_open(getpid(), PidfdFlags::empty()).ok(),
            next: None,
        })
    }

    /// The key with a descriptor in place of a task's number.
    fn key(&self, number: u16) -> Vec<u8> {
        match (&self.task, self.shape.names_task(number)) {
            (Some(task), true) => task.as_raw_fd().to_le_bytes().to_vec(),
            _ => self.shape.key(number),
        }
    }

    /// The value with descriptors in place of numbers in the pool.
    fn value(&self, number: u8) -> Vec<u8> {
        let value = self.shape.value(number, self.map.value_len());
        if !self.shape.holds_maps() {
            return value;
        }
        let fd = self.pool.get(value[0] as usize).map_or(-1, |(m, _)| m.fd());
        fd.to_le_bytes().to_vec()
    }

    /// Values with numbers in the pool in place of ids.
    fn shown(&self, values: &[u8]) -> Vec<u8> {
        if !self.shape.holds_maps() {
            return values.to_vec();
        }
        let number = |id: &[u8]| {
            let at = self.pool.iter().position(|(_, n)| n.to_le_bytes() == *id);
            (at.map_or(u32::MAX, |n| n as u32)).to_le_bytes()
        };
        values.chunks_exact(4).flat_map(number).collect()
    }

    /// While Linux frees an earlier map's storage of the same task, it answers `EAGAIN`.
    fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        for _ in 0..1000 {
            match self.map.update(key, value, flags) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                done => return done,
            }
        }
        Err(Errno::EAGAIN)
    }

    fn lookup(&self, key: &[u8], value: Option<Vec<u8>>, flags: u8, delete: bool) -> Answer {
        let mut value = value.unwrap_or_else(|| vec![0; self.map.value_len()]);
        let result = self.map.lookup_with(key, &mut value, flags as u64, delete);
        Answer::of(result.map(|()| self.shown(&value)))
    }

    fn batch(&mut self, ask: &BatchAsk<'_>) -> Answer {
        let keep = matches!(ask.cmd, BatchCmd::Lookup | BatchCmd::LookupAndDelete);
        let Ok(answer) = self.map.batch(ask) else {
            return Answer::of(Err(Errno::EFAULT));
        };
        let mut data = Vec::new();
        if keep {
            // Nothing was written where it failed at once.
            let done = match answer.result {
                Err(Errno::EINVAL | Errno::EPERM | Errno::ENOTSUPP) => 0,
                _ => answer.count as usize,
            };
            data.extend(&answer.keys[..done * self.shape.key_size as usize]);
            data.extend(self.shown(&answer.values[..done * self.map.value_len()]));
            data.extend(answer.next.iter().flatten());
            self.next = answer.next;
        }
        Answer {
            errno: answer.result.err().map_or(0, |e| e.0),
            count: answer.count,
            data,
        }
    }

    fn walk(&self) -> Answer {
        let (mut data, mut key) = (Vec::new(), None::<Vec<u8>>);
        // More than any map of the tests has.
        for _ in 0..1000 {
            match self.map.next_key(key.as_deref()) {
                Ok(Some(next)) => {
                    data.extend(&next);
                    data.extend(self.lookup(&next, None, 0, false).data);
                    key = Some(next);
                }
                Ok(None) => break,
                Err(errno) => return Answer::of(Err(errno)),
            }
        }
        Answer::of(Ok(data))
    }
}

impl Target for OnLinux {
    fn apply(&mut self, op: &MapOp) -> Answer {
        let key = |n: u16| self.key(n);
        let done = |result: Result<(), Errno>| Answer::of(result.map(|()| Vec::new()));
        match op {
            MapOp::Lookup { key: k, flags } => {
                let bloom = self.shape.map_type() == MapType::BloomFilter;
                let value = bloom.then(|| self.value(*k as u8));
                self.lookup(&key(*k), value, *flags, false)
            }
            MapOp::Update {
                key: k,
                value,
                flags,
            } => done(self.update(&key(*k), &self.value(*value), *flags as u64)),
            MapOp::Delete { key: k } => done(self.map.delete(&key(*k))),
            MapOp::NextKey { key: k } => {
                let next = self.map.next_key(k.map(key).as_deref());
                Answer::of(next.and_then(|next| next.ok_or(Errno::ENOENT)))
            }
            MapOp::LookupDelete { key: k, flags } => self.lookup(&key(*k), None, *flags, true),
            MapOp::LookupBatch {
                delete,
                resume,
                count,
                flags,
            } => {
                let from = self.next.take().filter(|_| *resume);
                self.batch(&BatchAsk {
                    cmd: if *delete {
                        BatchCmd::LookupAndDelete
                    } else {
                        BatchCmd::Lookup
                    },
                    from: from.as_deref(),
                    keys: &[],
                    values: &[],
                    count: *count as u32,
                    elem_flags: *flags as u64,
                })
            }
            MapOp::WriteBatch { keys, value, flags } => {
                let bytes: Vec<u8> = keys.iter().flat_map(|&k| key(k)).collect();
                let values: Vec<u8> = match value {
                    Some(v) => (0..keys.len() as u8)
                        .flat_map(|i| self.value(v.wrapping_add(i)))
                        .collect(),
                    None => Vec::new(),
                };
                self.batch(&BatchAsk {
                    cmd: match value {
                        Some(_) => BatchCmd::Update,
                        None => BatchCmd::Delete,
                    },
                    from: None,
                    keys: &bytes,
                    values: &values,
                    count: keys.len() as u32,
                    elem_flags: *flags as u64,
                })
            }
            MapOp::Walk => self.walk(),
            MapOp::OnCpu { cpu } => {
                stay_on_cpu(*cpu as usize % self.cpus);
                Answer::default()
            }
            MapOp::Freeze => done(self.map.freeze()),
        }
    }
}
