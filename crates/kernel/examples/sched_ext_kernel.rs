//! Writes `fixtures/kernels/sched_ext.btf`: types of a kernel that never was, with sched_ext, with a
//! `task_struct` of its own, and with a kfunc that no kernel has yet. Members of `sched_ext_ops` are
//! those of 6.18, prototypes of kfuncs are abi's.
//!
//! ```sh
//! cargo run -q -p bpfsim-kernel --example sched_ext_kernel > fixtures/kernels/sched_ext.btf
//! ```
#![allow(missing_docs, clippy::unwrap_used)]

use bpfsim_abi::{KernelVersion, kfunc};
use bpfsim_btf::{BtfBuilder, Linkage, Member, TypeId};
use std::collections::BTreeMap;
use std::io::Write;

/// Kfuncs that schedulers call beside `scx_bpf_*`.
const OTHERS: &[&str] = &[
    "bpf_cpumask_create",
    "bpf_cpumask_release",
    "bpf_cpumask_acquire",
    "bpf_cpumask_first",
    "bpf_cpumask_first_zero",
    "bpf_cpumask_set_cpu",
    "bpf_cpumask_clear_cpu",
    "bpf_cpumask_test_cpu",
    "bpf_cpumask_test_and_set_cpu",
    "bpf_cpumask_test_and_clear_cpu",
    "bpf_cpumask_setall",
    "bpf_cpumask_clear",
    "bpf_cpumask_and",
    "bpf_cpumask_copy",
    "bpf_cpumask_empty",
    "bpf_cpumask_intersects",
    "bpf_cpumask_subset",
    "bpf_cpumask_weight",
    "bpf_cpumask_any_distribute",
    "bpf_cpumask_any_and_distribute",
    "bpf_rcu_read_lock",
    "bpf_rcu_read_unlock",
    "bpf_task_from_pid",
    "bpf_task_acquire",
    "bpf_task_release",
    "bpf_cgroup_release",
    "bpf_iter_num_new",
    "bpf_iter_num_next",
    "bpf_iter_num_destroy",
];

/// Members of `sched_ext_ops`, in order, as C would have them.
const OPS: &[&str] = &[
    "s32 select_cpu(struct task_struct *p, s32 prev_cpu, u64 wake_flags)",
    "void enqueue(struct task_struct *p, u64 enq_flags)",
    "void dequeue(struct task_struct *p, u64 deq_flags)",
    "void dispatch(s32 cpu, struct task_struct *prev__nullable)",
    "void tick(struct task_struct *p)",
    "void runnable(struct task_struct *p, u64 enq_flags)",
    "void running(struct task_struct *p)",
    "void stopping(struct task_struct *p, bool runnable)",
    "void quiescent(struct task_struct *p, u64 deq_flags)",
    "bool yield(struct task_struct *from, struct task_struct *to__nullable)",
    "bool core_sched_before(struct task_struct *a, struct task_struct *b)",
    "void set_weight(struct task_struct *p, u32 weight)",
    "void set_cpumask(struct task_struct *p, const struct cpumask *cpumask)",
    "void update_idle(s32 cpu, bool idle)",
    "void cpu_acquire(s32 cpu, struct scx_cpu_acquire_args *args)",
    "void cpu_release(s32 cpu, struct scx_cpu_release_args *args)",
    "s32 init_task(struct task_struct *p, struct scx_init_task_args *args)",
    "void exit_task(struct task_struct *p, struct scx_exit_task_args *args)",
    "void enable(struct task_struct *p)",
    "void disable(struct task_struct *p)",
    "s32 cgroup_init(struct cgroup *cgrp, struct scx_cgroup_init_args *args)",
    "void cgroup_exit(struct cgroup *cgrp)",
    "s32 init(void)",
    "void exit(struct scx_exit_info *info)",
];

struct Types {
    b: BtfBuilder,
    named: BTreeMap<String, TypeId>,
    pointers: BTreeMap<TypeId, TypeId>,
    consts: BTreeMap<TypeId, TypeId>,
}

fn member<'a>(name: &'a str, ty: TypeId, bytes: u32) -> Member<'a> {
    Member {
        name,
        ty,
        bit_offset: 8 * bytes,
        bitfield_size: 0,
    }
}

impl Types {
    /// The type that a C declaration begins with, its last word being the name if `named`.
    fn of(&mut self, text: &str, named: bool) -> (TypeId, String) {
        let spaced = text.replace('*', " * ");
        let mut words: Vec<&str> = spaced.split_whitespace().collect();
        let name = if named { words.pop().unwrap() } else { "" };
        let stars = words.iter().filter(|w| **w == "*").count();
        words.retain(|w| *w != "*");
        let constant = words.first() == Some(&"const");
        words.retain(|w| *w != "const");
        let mut ty = match words.as_slice() {
            ["struct", tag] => self.structure(tag),
            ["void"] => TypeId(0),
            words => self.named[&words.join(" ")],
        };
        if constant {
            let b = &mut self.b;
            ty = *self.consts.entry(ty).or_insert_with(|| b.add_const(ty));
        }
        for _ in 0..stars {
            let b = &mut self.b;
            ty = *self.pointers.entry(ty).or_insert_with(|| b.add_ptr(ty));
        }
        (ty, name.to_string())
    }

    /// A struct by its name; of those that nobody looks into, so many bytes.
    fn structure(&mut self, tag: &str) -> TypeId {
        let key = format!("struct {tag}");
        if let Some(id) = self.named.get(&key) {
            return *id;
        }
        let id = self.b.add_struct(tag, 64, &[]);
        self.named.insert(key, id);
        id
    }

    fn define(&mut self, tag: &str, size: u32, members: &[(&str, u32)]) -> TypeId {
        let typed: Vec<(TypeId, String, u32)> = members
            .iter()
            .map(|(text, at)| {
                let (ty, name) = self.of(text, true);
                (ty, name, *at)
            })
            .collect();
        let members: Vec<Member<'_>> = typed.iter().map(|(t, n, at)| member(n, *t, *at)).collect();
        let id = self.b.add_struct(tag, size, &members);
        self.named.insert(format!("struct {tag}"), id);
        id
    }

    /// The prototype that a C declaration says, and its name.
    fn proto(&mut self, text: &str) -> (TypeId, String) {
        let (head, rest) = text.split_once('(').unwrap();
        let (ret, name) = self.of(head, true);
        let params = rest.trim_end_matches(')');
        let mut typed = Vec::new();
        for param in params.split(',').map(str::trim) {
            if param != "void" {
                typed.push(self.of(param, true));
            }
        }
        let params: Vec<(&str, TypeId)> = typed.iter().map(|(t, n)| (n.as_str(), *t)).collect();
        (self.b.add_func_proto(ret, &params), name)
    }
}

pub fn sched_ext() -> Vec<u8> {
    let mut b = BtfBuilder::new();
    let mut named = BTreeMap::new();
    for (names, bytes, encoding) in [
        ("int|s32", 4, 1),
        ("unsigned int|u32", 4, 0),
        ("long long int|s64", 8, 1),
        ("long long unsigned int|u64|unsigned long long", 8, 0),
        ("long unsigned int|size_t|unsigned long", 8, 0),
        ("_Bool|bool", 1, 4),
        ("char", 1, 1),
        ("unsigned char|u8", 1, 0),
    ] {
        let first = names.split('|').next().unwrap();
        let id = b.add_int(first, bytes, encoding);
        for name in names.split('|') {
            named.insert(name.to_string(), id);
        }
    }
    let (u32, u64, char) = (named["u32"], named["u64"], named["char"]);
    let text = b.add_array(char, u32, 128);
    let bits = b.add_array(named["unsigned long"], u32, 1);
    let opaque = b.add_array(u64, u32, 6);
    for (name, id) in [
        ("name_text", text),
        ("mask_bits", bits),
        ("opaque6", opaque),
    ] {
        named.insert(name.to_string(), id);
    }
    let mut t = Types {
        b,
        named,
        pointers: BTreeMap::new(),
        consts: BTreeMap::new(),
    };
    let values = [("SCX_ENQ_WAKEUP", 1), ("SCX_ENQ_HEAD", 16)];
    let selected = ("SCX_ENQ_CPU_SELECTED", 1024);
    let preempt = ("SCX_ENQ_PREEMPT", 1 << 32);
    let all: Vec<(&str, i64)> = values.into_iter().chain([selected, preempt]).collect();
    t.b.add_enum64("scx_enq_flags", 8, false, &all);
    t.define("cpumask", 8, &[("mask_bits bits", 0)]);
    t.define(
        "bpf_cpumask",
        16,
        &[("struct cpumask cpumask", 0), ("u32 usage", 8)],
    );
    let entity = [
        ("u32 weight", 0),
        ("u32 flags", 4),
        ("u64 slice", 8),
        ("u64 dsq_vtime", 16),
        ("bool disallow", 24),
    ];
    t.define("sched_ext_entity", 32, &entity);
    let task = [
        ("int pid", 0),
        ("int tgid", 8),
        ("int nr_cpus_allowed", 16),
        ("const struct cpumask * cpus_ptr", 24),
        ("struct cpumask cpus_mask", 32),
        ("struct sched_ext_entity scx", 64),
    ];
    t.define("task_struct", 4096, &task);
    t.define(
        "rq",
        256,
        &[("int cpu", 0), ("struct task_struct * curr", 8)],
    );
    t.define("bpf_iter_scx_dsq", 48, &[("opaque6 __opaque", 0)]);
    t.define("bpf_iter_num", 8, &[("u64 __opaque", 0)]);
    let init = [("bool fork", 0), ("struct cgroup * cgroup", 8)];
    t.define("scx_init_task_args", 16, &init);
    t.define("scx_exit_task_args", 1, &[("bool cancelled", 0)]);
    let cgroup = [
        ("u32 weight", 0),
        ("u64 bw_period_us", 8),
        ("u64 bw_quota_us", 16),
        ("u64 bw_burst_us", 24),
    ];
    t.define("scx_cgroup_init_args", 32, &cgroup);
    let release = [("u32 reason", 0), ("struct task_struct * task", 8)];
    t.define("scx_cpu_release_args", 16, &release);
    let info = [
        ("u32 kind", 0),
        ("s64 exit_code", 8),
        ("u64 flags", 16),
        ("const char * reason", 24),
        ("char * msg", 48),
    ];
    t.define("scx_exit_info", 64, &info);

    let mut members = Vec::new();
    for text in OPS {
        let (proto, name) = t.proto(text);
        // What programs are given is named by a function of the kernel that stands for the member.
        let stub = format!("sched_ext_ops__{name}");
        t.b.add_func(&stub, Linkage::Static, proto);
        members.push((name, t.b.add_ptr(proto)));
    }
    let mut at = 8 * members.len() as u32;
    let mut layout: Vec<Member<'_>> = Vec::new();
    for (i, (name, ty)) in members.iter().enumerate() {
        layout.push(member(name, *ty, 8 * i as u32));
    }
    let settings = [
        ("dispatch_max_batch", "u32", 4, 8),
        ("flags", "u64", 8, 8),
        ("timeout_ms", "u32", 4, 4),
        ("exit_dump_len", "u32", 4, 4),
        ("hotplug_seq", "u64", 8, 8),
        ("name", "name_text", 128, 128),
    ];
    for (name, ty, _, room) in settings {
        layout.push(member(name, t.named[ty], at));
        at += room;
    }
    let ops = t.b.add_struct("sched_ext_ops", at, &layout);
    let common =
        t.b.add_struct("bpf_struct_ops_common_value", 8, &[member("state", u32, 0)]);
    let value = [member("common", common, 0), member("data", ops, 64)];
    t.b.add_struct(
        "bpf_struct_ops_sched_ext_ops",
        (64 + at).next_multiple_of(64),
        &value,
    );

    let scx = |k: &&kfunc::Kfunc| k.set.starts_with("scx_kfunc") || OTHERS.contains(&k.name);
    let known = kfunc::all()
        .filter(|k| k.exists_in(KernelVersion::V6_18))
        .filter(scx);
    for k in known {
        let (proto, name) = t.proto(k.proto);
        t.b.add_func(&name, Linkage::Static, proto);
    }
    let (mood, name) = t.proto("int scx_bpf_task_set_mood(struct task_struct *p, u64 mood)");
    let mood = t.b.add_func(&name, Linkage::Static, mood);
    t.b.add_decl_tag("bpf_kfunc", mood, -1);
    t.b.to_bytes()
}

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(&sched_ext())
}
