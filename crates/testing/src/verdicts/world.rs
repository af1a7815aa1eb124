//! What programs have around them: maps, kernel functions, types.

use bpfsim_abi::MapType;
use bpfsim_btf::{Btf, BtfBuilder, Linkage, Member, TypeId};

/// A map that every program may use.
#[derive(Clone, Copy, Debug)]
pub struct MapRow {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many.
    pub max_entries: u32,
    /// Struct of [`types`] that its values are.
    pub value: Option<&'static str>,
    /// What it holds, where it is frozen and read-only for programs.
    pub frozen: Option<&'static [u8]>,
    /// `BPF_F_*`
    pub flags: u32,
    /// The map, by number, that those within it are like.
    pub inner: Option<usize>,
}

/// An array of plain values.
pub const ARRAY: usize = 0;
/// A hash table of plain values.
pub const HASH: usize = 1;
/// An array whose values have a timer.
pub const TIMERS: usize = 2;
/// A ring buffer.
pub const RING: usize = 3;
/// Constants.
pub const RODATA: usize = 4;
/// An array whose values have a spin lock.
pub const LOCKS: usize = 9;

/// `BPF_F_NO_PREALLOC`
const NO_PREALLOC: u32 = 1;
/// `BPF_F_RDONLY_PROG`
const RDONLY_PROG: u32 = 1 << 7;

/// The maps, by the number that an instruction of `BPF_PSEUDO_MAP_FD` has. Those behind the constants
/// are there for programs that people wrote.
pub const MAPS: [MapRow; 12] = [
    row("arr", MapType::Array, 4, 48, 4),
    row("hash", MapType::Hash, 8, 40, 8),
    typed("timers", "timed", 32),
    row("ring", MapType::Ringbuf, 0, 0, 4096),
    MapRow {
        frozen: Some(&[
            7, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0x80, 0, 0, 16, 0, 0, 0, 0, 0, 0,
            0x80,
        ]),
        flags: RDONLY_PROG,
        ..row("consts", MapType::Array, 4, 24, 1)
    },
    typed("wqs", "worked", 32),
    typed("wqs2", "worked", 32),
    typed("works", "tasked", 24),
    typed("works2", "tasked", 24),
    typed("locks", "locked", 16),
    MapRow {
        inner: Some(TIMERS),
        ..row("outer", MapType::ArrayOfMaps, 4, 4, 2)
    },
    MapRow {
        flags: NO_PREALLOC,
        ..row("prefixes", MapType::LpmTrie, 8, 8, 4)
    },
];

/// Kernel functions that a kernel must not be asked about with a map that was not made for them: the
/// first of [`KFUNCS`]. Random programs never have them.
pub const UNASKED_KFUNCS: usize = 5;

/// The kernel functions, by the number that an instruction of `BPF_PSEUDO_KFUNC_CALL` has.
pub const KFUNCS: [&str; 26] = [
    "bpf_wq_init",
    "bpf_wq_set_callback_impl",
    "bpf_wq_start",
    "bpf_task_work_schedule_signal_impl",
    "bpf_task_work_schedule_resume_impl",
    "bpf_task_from_pid",
    "bpf_task_acquire",
    "bpf_task_release",
    "bpf_rcu_read_lock",
    "bpf_rcu_read_unlock",
    "bpf_preempt_disable",
    "bpf_preempt_enable",
    "bpf_local_irq_save",
    "bpf_local_irq_restore",
    "bpf_copy_from_user_str",
    "bpf_throw",
    "bpf_iter_num_new",
    "bpf_iter_num_next",
    "bpf_iter_num_destroy",
    "bpf_dynptr_size",
    "bpf_dynptr_from_skb",
    "bpf_dynptr_from_xdp",
    "bpf_dynptr_slice",
    "bpf_dynptr_adjust",
    "bpf_dynptr_is_null",
    "bpf_dynptr_clone",
];

const fn typed(name: &'static str, value: &'static str, size: u32) -> MapRow {
    MapRow {
        value: Some(value),
        ..row(name, MapType::Array, 4, size, 2)
    }
}

const fn row(
    name: &'static str,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> MapRow {
    MapRow {
        name,
        map_type,
        key_size,
        value_size,
        max_entries,
        value: None,
        frozen: None,
        flags: 0,
        inner: None,
    }
}

/// Most functions of a program.
pub const MAX_FUNCS: usize = 6;

/// The programs' types: static `FUNC`s named `f0` to `f5`, global ones `g0` to `g5`, and the structs of
/// the maps' values.
pub fn types() -> BtfBuilder {
    let mut b = BtfBuilder::new();
    let int = b.add_int("int", 4, 1);
    let long = b.add_int("long", 8, 1);
    let two = b.add_array(long, int, 2);
    let member = |name, ty, bytes: u32| Member {
        name,
        ty,
        bit_offset: 8 * bytes,
        bitfield_size: 0,
    };
    let timer = b.add_struct("bpf_timer", 16, &[member("__opaque", two, 0)]);
    let wq = b.add_struct("bpf_wq", 16, &[member("__opaque", two, 0)]);
    let work = b.add_struct("bpf_task_work", 8, &[member("__opaque", long, 0)]);
    let lock = b.add_struct("bpf_spin_lock", 4, &[member("val", int, 0)]);
    for (name, field, ty, size) in [
        ("timed", "timer", timer, 16),
        ("worked", "wq", wq, 16),
        ("tasked", "work", work, 8),
    ] {
        let members = [
            member("a", long, 0),
            member(field, ty, 8),
            member("b", long, 8 + size),
        ];
        b.add_struct(name, 16 + size, &members);
    }
    let members = [
        member("lock", lock, 0),
        member("a", int, 4),
        member("b", long, 8),
    ];
    b.add_struct("locked", 16, &members);
    let proto = b.add_func_proto(int, &[]);
    for (letter, linkage) in [("f", Linkage::Static), ("g", Linkage::Global)] {
        for i in 0..MAX_FUNCS {
            b.add_func(&format!("{letter}{i}"), linkage, proto);
        }
    }
    b
}

/// The `FUNC` of a function in [`types`].
pub fn func_type(btf: &Btf, func: usize, global: bool) -> Option<TypeId> {
    let letter = if global { 'g' } else { 'f' };
    btf.find(&format!("{letter}{func}"), bpfsim_btf::Kind::Func)
}
