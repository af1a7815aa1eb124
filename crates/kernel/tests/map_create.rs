//! Which maps Linux 6.18 makes, and what it says of the others: random attributes, asked of the
//! kernel that runs and of the simulator. `BPFSIM_MAP_SEQUENCES` says how many (200 unless set).
#![allow(clippy::print_stderr)] // the reader of the tests is to be told

use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::TypeId;
use bpfsim_kernel::{Config, Kernel, MapBtf, MapId, MapSpec};
use bpfsim_testing::linux::{self, or_skip, skip_loudly};
use bpfsim_testing::map_ops::{TYPES, types};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use std::sync::Arc;

/// What `BPF_MAP_CREATE` is given.
#[derive(Clone, Debug)]
struct Attr {
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    map_extra: u64,
    numa_node: u32,
    /// A map of [`TEMPLATES`].
    inner: Option<usize>,
    btf: Option<(u32, u32)>,
}

/// What may be given as inner map.
const TEMPLATES: [(MapType, u32, u32, u32); 3] = [
    (MapType::Array, 4, 8, 1),
    (MapType::ProgArray, 4, 4, 1),
    (MapType::ArrayOfMaps, 4, 4, 1),
];

/// Large maps are asked for only where they are refused: nobody's memory is to be used up.
fn modest(a: &Attr) -> bool {
    use MapType as T;
    let entries = match a.max_entries {
        u32::MAX => {
            return matches!(
                a.map_type,
                T::Hash
                    | T::LruHash
                    | T::PercpuHash
                    | T::LruPercpuHash
                    | T::Arena
                    | T::DevmapHash
                    | T::Sockhash
                    | T::StackTrace
            );
        }
        n => n as u64,
    };
    entries * (a.value_size.max(64) as u64) < 32 << 20
}

fn attrs() -> impl Strategy<Value = Attr> {
    let map_type = (1u32..34).prop_filter_map("a type", MapType::from_u32);
    let usual = |list: Vec<u32>| prop::sample::select(list);
    let key = prop_oneof![
        6 => Just(4u32),
        2 => usual(vec![0, 8, 16]),
        1 => usual(vec![1, 5, 12, 260, 261, 512, 513, 4 << 20]),
    ];
    let value = prop_oneof![
        6 => usual(vec![4u32, 8, 16, 24, 32]),
        2 => usual(vec![0, 1]),
        1 => usual(vec![
            12, 1016, 1024, 4064, 32768, 32769, 65407, 65408, (4 << 20) - 53, (4 << 20) - 52,
            (4 << 20) - 280, (4 << 20) - 279, 4 << 20, (4 << 20) + 1, 1 << 31, u32::MAX
        ]),
    ];
    let entries = prop_oneof![
        6 => usual(vec![1u32, 2, 3]),
        3 => Just(0u32),
        2 => usual(vec![4096, 5000, 8192]),
        1 => usual(vec![64, 65, 128, 256, 512, 1024, u32::MAX]),
    ];
    let flag = (0u32..20).prop_map(|bit| 1 << bit);
    let flags = prop_oneof![
        4 => Just(0u32),
        2 => Just(1u32),
        1 => Just(1u32 << 10),
        4 => flag.clone(),
        2 => (flag.clone(), flag).prop_map(|(a, b)| a | b),
    ];
    // BPF_F_TOKEN_FD and BPF_F_VTYPE_BTF_OBJ_FD name other descriptors.
    let flags = flags.prop_map(|f| f & !(1 << 15 | 1 << 16));
    let extra = prop_oneof![12 => Just(0u64), 1 => prop::sample::select(vec![1u64, 15, 16, 4096, 0xffff_f000])];
    let numa = prop_oneof![4 => Just(0u32), 1 => Just(1u32)];
    let inner = prop::option::weighted(0.8, prop_oneof![3 => Just(0usize), 1 => 1usize..3]);
    let btf = prop::option::of((0..=TYPES, 0..=TYPES));
    (
        map_type, key, value, entries, flags, extra, numa, inner, btf,
    )
        .prop_map(
            |(
                map_type,
                key_size,
                value_size,
                max_entries,
                flags,
                map_extra,
                numa_node,
                inner,
                btf,
            )| Attr {
                map_type,
                key_size,
                value_size,
                max_entries,
                flags,
                map_extra,
                numa_node,
                inner,
                btf,
            },
        )
        .prop_filter("modest", modest)
}

#[test]
fn creation_is_refused_as_by_linux() {
    let name = "creation_is_refused_as_by_linux";
    let Some(linux) = or_skip(name) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(name, format!("Linux is {}", linux.release()));
    }
    let cases = std::env::var("BPFSIM_MAP_SEQUENCES").ok();
    let cases = cases.and_then(|n| n.parse::<u32>().ok()).unwrap_or(200);
    let mut templates: Vec<linux::Map> = Vec::new();
    let mut kernel = Kernel::new(Config {
        cpus: linux.possible_cpus() as u32,
        ..Config::default()
    })
    .unwrap();
    let mut ids: Vec<MapId> = Vec::new();
    for (map_type, key, value, entries) in TEMPLATES {
        let spec = linux::MapSpec::new(map_type, key, value, entries);
        let map = linux.create_map(&linux::MapSpec {
            inner: templates.first(),
            ..spec
        });
        templates.push(map.unwrap());
        let spec = MapSpec::new(map_type, key, value, entries);
        ids.push(
            kernel
                .map_create(MapSpec {
                    inner: ids.first().copied(),
                    ..spec
                })
                .unwrap(),
        );
    }
    let btf = Arc::new(types());
    let btf_fd = linux.load_btf(&btf.to_bytes()).unwrap();
    let kernel = std::cell::RefCell::new(kernel);
    let mut runner = TestRunner::new(Cases {
        cases: cases.saturating_mul(20),
        failure_persistence: None,
        ..Cases::default()
    });
    let outcome = runner.run(&attrs(), |a| {
        let theirs = linux.create_map(&linux::MapSpec {
            map_type: a.map_type.number(),
            map_flags: a.flags,
            map_extra: a.map_extra,
            numa_node: a.numa_node,
            inner: a.inner.map(|n| &templates[n]),
            btf: a.btf.map(|(k, v)| (btf_fd.fd(), k, v)),
            ..linux::MapSpec::new(MapType::Hash, a.key_size, a.value_size, a.max_entries)
        });
        let theirs: Result<(), Errno> = theirs.map(drop);
        let ours = kernel.borrow_mut().map_create(MapSpec {
            flags: a.flags,
            map_extra: a.map_extra,
            numa_node: a.numa_node,
            inner: a.inner.map(|n| ids[n]),
            btf: a.btf.map(|(key, value)| MapBtf {
                btf: Arc::clone(&btf),
                key: TypeId(key),
                value: TypeId(value),
            }),
            ..MapSpec::new(a.map_type, a.key_size, a.value_size, a.max_entries)
        });
        let ours = ours.map(drop);
        prop_assert_eq!(theirs, ours, "Linux left, simulator right");
        // Guest memory is not given back: begin anew now and then.
        if kernel.borrow().maps().count() > 400 {
            let config = Config {
                cpus: linux.possible_cpus() as u32,
                ..Config::default()
            };
            let mut fresh = Kernel::new(config).unwrap();
            for (map_type, key, value, entries) in TEMPLATES {
                let spec = MapSpec::new(map_type, key, value, entries);
                let inner = (map_type == MapType::ArrayOfMaps).then(|| ids[0]);
                fresh.map_create(MapSpec { inner, ..spec }).unwrap();
            }
            *kernel.borrow_mut() = fresh;
        }
        Ok(())
    });
    if let Err(why) = outcome {
        panic!("{why}");
    }
}
