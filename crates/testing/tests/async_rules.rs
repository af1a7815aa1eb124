//! What the verifier holds asynchronous callbacks to: each rule with a program that it takes and one
//! that it refuses, each text, and Linux 6.18's answers (`data/async_rules.toml`). A kernel that runs is
//! asked again, but for what no kernel is to be asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use bpfsim_abi::ProgType;
use bpfsim_btf::{Btf, Kind, Type};
use bpfsim_isa::uapi::{
    BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD,
};
use bpfsim_testing::linux::{or_skip, skip_loudly};
use bpfsim_testing::verdicts::ask::{Answer, LinuxWithMaps, Sim};
use bpfsim_testing::verdicts::world::{KFUNCS, MAPS};
use bpfsim_testing::verdicts::{Flat, MAX_FUNCS, SLEEPABLE};
use serde::Deserialize;

/// Immediates that stand for maps, functions and kernel functions.
const MAP: i32 = 0x4d41_5000;
const FUNC: i32 = 0x4655_4e00;
const KFUNC: i32 = 0x4b46_0000;

/// The texts of the semantics' section on the verifier, their numbers left out. Only "R0 leaks addr as
/// return value" is not among them: it takes a load without `CAP_PERFMON`.
const TEXTS: [&str; 52] = [
    "type=fp expected=map_value",
    "type=map_value_or_null expected=map_value",
    "arg#0 doesn't point to a map value",
    "arg#1 doesn't point to a map value",
    "Possibly NULL pointer passed to trusted arg0",
    "Possibly NULL pointer passed to trusted arg1",
    "Possibly NULL pointer passed to trusted arg2",
    "Possibly NULL pointer passed to trusted arg3",
    "R1 must be referenced or trusted",
    "R1 doesn't have constant offset. bpf_timer has to be at the constant offset",
    "map 'arr' has to have BTF in order to use bpf_timer",
    "map 'locks' has no valid bpf_timer",
    "doesn't point to 'struct bpf_timer' that is at",
    "doesn't point to 'struct bpf_wq' that is at",
    "doesn't point to 'struct bpf_task_work' that is at",
    "R2 type=scalar expected=map_ptr",
    "pointer in R2 isn't map pointer",
    "doesn't match map pointer in R2 map_uid=",
    "workqueue pointer in R1 map_uid=",
    "bpf_task_work pointer in R2 map_uid=",
    "callback function not static",
    "missing btf func_info",
    "R2 type=scalar expected=func",
    "arg1 expected pointer to func",
    "R4 !read_ok",
    "R6 !read_ok",
    "infinite loop detected at insn",
    "BPF program is too large. Processed 1000001 insn",
    "jumps is too complex for async cb.",
    "the register R0 has smin=1 smax=1 should have been in [0, 0]",
    "has unknown scalar value should have been in",
    "is not a known value",
    "cannot be used inside bpf_spin_lock-ed region",
    "cannot be used inside bpf_rcu_read_lock-ed region",
    "cannot be used inside bpf_preempt_disable-ed region",
    "cannot be used inside bpf_local_irq_save-ed region",
    "would lead to reference leak",
    "write to change key R2 not allowed",
    "invalid access to map key, key_size=4 off=4 size=4",
    "bpf_timer cannot be accessed directly by load/store",
    "helper call might sleep in a non-sleepable prog",
    "program must be sleepable to call sleepable kfunc bpf_copy_from_user_str",
    "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region",
    "global functions that may sleep are not allowed in non-sleepable context,",
    "Sleepable programs can only use array, hash, ringbuf and local storage maps",
    "function calls are not allowed while holding a lock",
    "tracing progs cannot use bpf_wq yet",
    "tracing progs cannot use bpf_timer yet",
    "cannot call GPL-restricted function from non-GPL compatible program",
    "cannot call kernel function from non-GPL compatible program",
    "combined stack size of 2 calls is 608. Too large",
    "cannot be called from callback subprog",
];

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    row: String,
    name: String,
    r#type: String,
    main: String,
    #[serde(default)]
    funcs: Vec<String>,
    /// Numbers of global functions.
    #[serde(default)]
    globals: Vec<u32>,
    #[serde(default)]
    proprietary: bool,
    #[serde(default)]
    untyped: bool,
    /// A kernel is not to be asked: it may not survive it.
    #[serde(default)]
    never_ask: bool,
    errno: String,
    line: String,
    /// A line of the log before the last.
    #[serde(default)]
    before: String,
    insns: u32,
}

/// Names in braces: of maps (`{timers}`), of kernel functions, of the program's functions (`{f1}`), of
/// members of kernel structs (`{task_struct.last_wakee}`), and `{elem timers}`, which gets the map's first
/// element into R6 or goes to `out`.
fn expand(text: &str, kernel: &Btf) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').expect(text);
        out += before;
        out += &meaning(name, kernel).unwrap_or_else(|| panic!("{name}"));
        rest = after;
    }
    out + rest
}

fn meaning(name: &str, kernel: &Btf) -> Option<String> {
    if let Some(map) = name.strip_prefix("elem ") {
        let map = meaning(map, kernel)?;
        return Some(format!(
            "*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr1 = {map} ll\ncall 1\nif r0 == 0 goto out\nr6 = r0"
        ));
    }
    if let Some(at) = MAPS.iter().position(|row| row.name == name) {
        return Some((MAP + at as i32).to_string());
    }
    if let Some(at) = KFUNCS.iter().position(|kfunc| *kfunc == name) {
        return Some((KFUNC + at as i32).to_string());
    }
    if let Some((owner, member)) = name.split_once('.') {
        let Type::Struct(owner) = kernel.ty(kernel.find(owner, Kind::Struct)?)? else {
            return None;
        };
        let member = owner.members.iter().find(|m| m.name == member)?;
        return Some((member.bit_offset / 8).to_string());
    }
    let func: i32 = name.strip_prefix('f')?.parse().ok()?;
    (func < MAX_FUNCS as i32).then(|| (FUNC + func).to_string())
}

impl Case {
    fn flat(&self, kernel: &Btf) -> Flat {
        let mut insns = Vec::new();
        let mut starts = Vec::new();
        for text in [&self.main].into_iter().chain(&self.funcs) {
            starts.push(insns.len());
            let text = expand(text, kernel);
            insns.extend(
                bpfsim_isa::assemble(&text).unwrap_or_else(|e| panic!("{}: {e}", self.name)),
            );
        }
        for (at, insn) in insns.iter_mut().enumerate() {
            let number = insn.imm & 0xff;
            let func =
                (insn.imm & !0xff == FUNC).then(|| starts[number as usize] as i32 - at as i32 - 1);
            match (insn.is_ld_imm64(), func) {
                (true, Some(to)) => {
                    insn.set_src(BPF_PSEUDO_FUNC);
                    insn.imm = to;
                }
                (true, None) if insn.imm & !0xff == MAP => {
                    insn.set_src(BPF_PSEUDO_MAP_FD);
                    insn.imm = number;
                }
                (false, Some(to)) if insn.code == 0x85 => {
                    insn.set_src(BPF_PSEUDO_CALL);
                    insn.imm = to;
                }
                (false, None) if insn.code == 0x85 && insn.imm & !0xff == KFUNC => {
                    insn.set_src(BPF_PSEUDO_KFUNC_CALL);
                    insn.imm = number;
                }
                _ => {}
            }
        }
        let prog_type = ProgType::from_name(&self.r#type).unwrap();
        let flags = match prog_type == ProgType::Syscall {
            true => SLEEPABLE,
            false => 0,
        };
        Flat {
            prog_type,
            flags,
            insns,
            starts,
            globals: self.globals.iter().fold(1, |bits, n| bits | 1 << n),
            gpl: !self.proprietary,
            typed: !self.untyped,
        }
    }

    fn log_level(&self) -> u32 {
        if self.before.is_empty() { 4 } else { 5 }
    }

    fn check(&self, said: &Answer) -> Result<(), String> {
        let Case {
            name,
            errno,
            line,
            insns,
            before,
            ..
        } = self;
        let same = (&said.errno, &said.line, said.insns) == (errno, line, *insns);
        match same && said.log.contains(before) {
            true => Ok(()),
            false => Err(format!(
                "{name}\t{}\t{}\t{}\n",
                said.errno, said.line, said.insns
            )),
        }
    }
}

fn cases() -> Vec<Case> {
    let text = include_str!("data/async_rules.toml");
    toml::from_str::<File>(text).unwrap().case
}

#[test]
fn the_verifier_says_what_linux_said() {
    let sim = Sim::new(2).unwrap();
    let mut wrong = String::new();
    for case in cases() {
        let said = sim.ask(&case.flat(sim.kernel()), case.log_level());
        if let Err(why) = case.check(&said) {
            wrong += &why;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn linux_says_it_still() {
    let test = "linux_says_it_still";
    let Some(linux) = or_skip(test) else {
        return;
    };
    if !linux.is_series("6.18") {
        return skip_loudly(test, "not Linux 6.18");
    }
    let linux = LinuxWithMaps::new(linux).unwrap();
    let mut wrong = String::new();
    for case in cases().iter().filter(|case| !case.never_ask) {
        let said = linux.ask(&case.flat(linux.kernel()), case.log_level());
        if let Err(why) = case.check(&said) {
            wrong += &why;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_rule_is_kept_and_broken() {
    let mut rows: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for case in cases() {
        let (kept, broken) = rows.entry(case.row).or_default();
        *kept |= case.errno.is_empty();
        *broken |= !case.errno.is_empty();
    }
    for n in 1..=19 {
        let row = format!("5.{n}");
        assert_eq!(rows.get(&row), Some(&(true, true)), "{row}");
    }
}

#[test]
fn every_text_is_said() {
    let cases = cases();
    let missing = TEXTS.iter().filter(|text| {
        let has = |c: &Case| c.line.contains(**text) || c.before.contains(**text);
        !cases.iter().any(has)
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
