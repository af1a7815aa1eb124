//! The tables against what a 6.18 kernel answered (`tests/data`).
use bpfsim_abi::ctx::{self, CtxShape, CtxValue};
use bpfsim_abi::helper::{self, Caller, TypeFlags};
use bpfsim_abi::kfunc::{self, Filter};
use bpfsim_abi::map::{Entries, FIELD_KINDS, Fields, MapFlags, Ops, Size};
use bpfsim_abi::prog::{self, TestRun, fixup_attach_type};
use bpfsim_abi::{AttachType, MapType, ProgType};
use std::collections::BTreeSet;

/// Helpers that the asked kernel withholds for reasons of its own, not of the program's type.
const WITHHELD: &[(&str, &str)] = &[
    (
        "bpf_override_return",
        "built without CONFIG_BPF_KPROBE_OVERRIDE",
    ),
    ("bpf_probe_write_user", "locked down"),
];

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split(',').collect())
}

fn prog_type(name: &str) -> ProgType {
    ProgType::from_name(name).unwrap_or_else(|| panic!("no program type {name}"))
}

fn attach_types(list: &str) -> Vec<AttachType> {
    if list == "*" {
        return AttachType::ALL.to_vec();
    }
    let one = |name| AttachType::from_name(name).unwrap_or_else(|| panic!("no attach type {name}"));
    list.split(' ').map(one).collect()
}

#[test]
fn helpers_are_those_that_linux_gives() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/helpers.csv")) {
        let [prog, attach, helpers] = row[..] else {
            panic!("{row:?}")
        };
        let prog = prog_type(prog);
        let linux: BTreeSet<&str> = helpers.split(' ').collect();
        for attach in attach_types(attach) {
            let mut caller = Caller::new(prog, fixup_attach_type(prog, attach));
            if prog == ProgType::StructOps {
                caller = caller.target("tcp_congestion_ops");
            }
            let ours: BTreeSet<&str> = helper::protos(&caller)
                .map(|p| p.func.name())
                .filter(|n| !WITHHELD.iter().any(|(w, _)| w == n))
                .collect();
            for helper in linux.symmetric_difference(&ours) {
                let who = if linux.contains(helper) {
                    "Linux"
                } else {
                    "the table"
                };
                differences.push(format!("{prog}/{attach}: only {who} has {helper}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn ctx_value(value: CtxValue) -> String {
    match value {
        CtxValue::Scalar => String::new(),
        CtxValue::Trusted(name) => format!("=ptr_{name}"),
        other => format!("={other:?}"),
    }
}

#[test]
fn contexts_open_where_linux_opens_them() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/ctx.csv")) {
        let [prog, attach, reads, writes] = row[..] else {
            panic!("{row:?}")
        };
        let rules: Vec<(String, CtxShape)> = match prog.strip_prefix('@') {
            Some("sock") => vec![(prog.into(), CtxShape::Fields(&ctx::PTR_TO_SOCKET))],
            Some("sock_common") => vec![(prog.into(), CtxShape::Fields(&ctx::PTR_TO_SOCK_COMMON))],
            Some("tcp_sock") => vec![(prog.into(), CtxShape::Fields(&ctx::PTR_TO_TCP_SOCK))],
            _ => {
                let prog = prog_type(prog);
                // Where any attach type loads, that of no meaning to the type was asked with.
                let types = if attach == "*" {
                    vec![any_attach(prog)]
                } else {
                    attach_types(attach)
                };
                types
                    .into_iter()
                    .map(|a| {
                        (
                            format!("{prog}/{a}"),
                            ctx::shape(prog, fixup_attach_type(prog, a)),
                        )
                    })
                    .collect()
            }
        };
        for (name, shape) in rules {
            for (write, list) in [(false, reads), (true, writes)] {
                let linux: BTreeSet<String> =
                    list.split_terminator(' ').map(str::to_owned).collect();
                let ours: BTreeSet<String> = (0..240)
                    .flat_map(|offset| [1, 2, 4, 8].map(|size| (offset, size)))
                    .filter_map(|(offset, size)| {
                        let access = shape.check(offset, size, write)?;
                        let value = if write {
                            String::new()
                        } else {
                            ctx_value(access.value)
                        };
                        Some(format!("{offset}:{size}{value}"))
                    })
                    .collect();
                for access in linux.symmetric_difference(&ours) {
                    let who = if linux.contains(access) {
                        "Linux"
                    } else {
                        "the table"
                    };
                    let verb = if write { "writes" } else { "reads" };
                    differences.push(format!("{name}: only {who} {verb} {access}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn any_attach(prog: ProgType) -> AttachType {
    match prog {
        ProgType::Netfilter => AttachType::Netfilter,
        ProgType::SkLookup => AttachType::SkLookup,
        _ => AttachType::CgroupInetIngress,
    }
}

#[test]
fn kfuncs_are_those_that_linux_gives() {
    let asked: Vec<&str> = rows(include_str!("data/kfuncs.csv"))
        .flat_map(|row| {
            row[0]
                .split_terminator(' ')
                .map(|p| p.split(':').next().unwrap_or(p))
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let loads: BTreeSet<(ProgType, AttachType)> = ProgType::ALL
        .iter()
        .flat_map(|t| AttachType::ALL.iter().map(|a| (*t, *a)))
        .filter(|(t, a)| attach_loads(*t, *a))
        .collect();
    let mut differences = Vec::new();
    for row in rows(include_str!("data/kfuncs.csv")) {
        let [progs, kfuncs] = row[..] else {
            panic!("{row:?}")
        };
        for kfunc in kfuncs
            .split(' ')
            .map(|n| kfunc::get(n).unwrap_or_else(|| panic!("no {n}")))
        {
            for prog in &asked {
                let linux = progs.split(' ').find(|p| p.split(':').next() == Some(prog));
                let prog = prog_type(prog);
                for attach in attach_types("*") {
                    // tracing was asked with these two only.
                    if prog == ProgType::Tracing
                        && !matches!(attach, AttachType::TraceRawTp | AttachType::TraceIter)
                    {
                        continue;
                    }
                    let loads = loads.contains(&(prog, attach));
                    let linux = linux.is_some_and(|p| match p.split_once(':') {
                        None => true,
                        Some((_, list)) => list.split('+').any(|a| a == attach.name()),
                    });
                    let ours = kfunc.allowed(prog, attach, Some("tcp_congestion_ops"));
                    if loads && linux != ours && kfunc.filter != Filter::DeviceBound {
                        differences.push(format!("{prog}/{attach} {}: Linux {linux}", kfunc.name));
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Whether Linux loads a program of this type with this expected attach type.
fn attach_loads(prog: ProgType, attach: AttachType) -> bool {
    rows(include_str!("data/attach.csv"))
        .find(|row| row[0] == prog.name())
        .is_none_or(|row| attach_types(row[1]).contains(&attach))
}

#[test]
fn maps_are_created_as_linux_creates_them() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/maps.csv")) {
        let [name, required, flags, keys, values, entries, fields] = row[..] else {
            panic!("{row:?}")
        };
        let rule = MapType::from_name(name)
            .and_then(MapType::rule)
            .unwrap_or_else(|| panic!("{name}"));
        let ours = |f: MapFlags| {
            let mut names: Vec<String> = f.iter_names().map(|(n, _)| n.to_lowercase()).collect();
            names.sort();
            names.join(" ")
        };
        let sorted = |list: &str| {
            let mut names: Vec<&str> = list.split_terminator(' ').collect();
            names.sort_unstable();
            names.join(" ")
        };
        let sizes = |asked: &[u32], size: Size, list: &str| {
            let permitted = asked.iter().filter(|s| size.permits(**s));
            list == "-" || list == permitted.map(u32::to_string).collect::<Vec<_>>().join(" ")
        };
        const KEYS: &[u32] = &[
            0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 256, 260, 261, 511, 512, 513,
        ];
        const VALUES: &[u32] = &[
            0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 24, 36, 1016, 1024, 4096, 32768, 32769, 65536,
        ];
        let ours_entries: Vec<&str> = ["0", "1", "2", "3", "4096", "5000", "8192"]
            .into_iter()
            .filter(|n| match (rule.entries, *n) {
                (Entries::Zero, n) => n == "0",
                (Entries::PowerOfTwoPages, n) => matches!(n, "4096" | "8192"),
                (Entries::AtLeastOne, n) => n != "0",
                (Entries::Cpus, n) => !matches!(n, "0" | "4096" | "5000" | "8192"),
            })
            .collect();
        let ours_fields: Vec<&str> = FIELD_KINDS
            .iter()
            .filter(|k| rule.fields.contains(k.field) && !Fields::GRAPH_ROOT.contains(k.field))
            .map(|k| k.name)
            .collect();
        let mut ours_fields = ours_fields;
        ours_fields.sort_unstable();
        // Legacy cgroup storage was not asked with fields.
        let legacy = rule.map_type == MapType::CgroupStorage;
        for (what, same) in [
            ("required flags", ours(rule.required) == sorted(required)),
            ("flags", ours(rule.flags) == sorted(flags)),
            ("key sizes", sizes(KEYS, rule.key, keys)),
            ("value sizes", sizes(VALUES, rule.value, values)),
            ("max_entries", ours_entries.join(" ") == entries),
            ("fields", legacy || ours_fields.join(" ") == sorted(fields)),
        ] {
            if !same {
                differences.push(format!(
                    "{name}: {what}: Linux has {row:?}, the table {rule:?}"
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn programs_are_held_to_what_linux_asks() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/progs.csv")) {
        let [prog, attach, returns, sleepable, test_run] = row[..] else {
            panic!("{row:?}")
        };
        let prog = prog_type(prog);
        for attach in attach_types(attach) {
            let attach = fixup_attach_type(prog, attach);
            let range = match prog::return_range(prog, attach, None) {
                None => "any".to_owned(),
                Some((min, max)) => format!("{min}..{max}"),
            };
            let sleeps = if prog::can_be_sleepable(prog, attach) {
                "sleepable"
            } else {
                "never"
            };
            let runs = if TestRun::of(prog) == TestRun::No {
                "no"
            } else {
                "yes"
            };
            // Structure members differ: what was asked was tcp_congestion_ops.
            let runs = if prog == ProgType::StructOps {
                test_run
            } else {
                runs
            };
            if (range.as_str(), sleeps, runs) != (returns, sleepable, test_run) {
                differences.push(format!("{prog}/{attach}: {range} {sleeps} {runs}, {row:?}"));
            }
        }
    }
    for prog in ProgType::ALL {
        for attach in AttachType::ALL {
            let known = rows(include_str!("data/attach.csv")).any(|row| row[0] == prog.name());
            let ours = prog::takes_attach_type(*prog, fixup_attach_type(*prog, *attach));
            if known && ours != attach_loads(*prog, *attach) {
                differences.push(format!("{prog} with {attach}: the table says {ours}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn map_operations_are_those_that_linux_has() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/map_ops.csv")) {
        let [name, answers] = row[..] else {
            panic!("{row:?}")
        };
        let rule = MapType::from_name(name).and_then(MapType::rule);
        let rule = rule.unwrap_or_else(|| panic!("no rule for {name}"));
        for answer in answers.split(' ') {
            let (op, answer) = answer.split_once('=').unwrap_or_else(|| panic!("{answer}"));
            let op = Ops::from_name(op).unwrap_or_else(|| panic!("no operation {op}"));
            let lacking = matches!(answer, "ENOTSUPP" | "EOPNOTSUPP");
            // EINVAL can mean either: no such operation, or a bad argument.
            let same = if rule.ops.contains(op) {
                !lacking
            } else {
                lacking || answer == "EINVAL"
            };
            if !same {
                differences.push(format!("{name} {op:?}: Linux answers {answer}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn helpers_write_the_memory_that_linux_says_they_write() {
    let mut differences = Vec::new();
    for row in rows(include_str!("data/helper_mem.csv")) {
        let [symbol, arg, answer] = row[..] else {
            panic!("{row:?}")
        };
        let proto = helper::all_protos().find(|p| p.symbol == symbol);
        let proto = proto.unwrap_or_else(|| panic!("no {symbol}"));
        let arg: usize = arg.parse().unwrap_or_else(|e| panic!("{arg}: {e}"));
        let writes = proto.args[arg - 1].flags.contains(TypeFlags::MEM_WRITE);
        if writes != (answer == "writes") {
            differences.push(format!("{symbol} argument {arg}: Linux {answer}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
