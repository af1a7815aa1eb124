//! The tables against what a 6.18 kernel answered (`tests/data`).
use bpfsim_abi::helper::{self, Caller};
use bpfsim_abi::prog::fixup_attach_type;
use bpfsim_abi::{AttachType, ProgType};
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
