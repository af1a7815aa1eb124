//! What Linux and bpfsim make of a program.

use std::fmt;
use std::sync::Arc;

use bpfsim_abi::Errno;
use bpfsim_btf::{Btf, Kind, fields::parse_fields};
use bpfsim_isa::{Insn, uapi::*};
use bpfsim_verifier::{
    AttachTo, Env, FuncInfo, MapDesc, Options, Outcome, ProgramToVerify, Verdict, verify,
};
use serde::{Deserialize, Serialize};

use super::world::{KFUNCS, MAPS, MapRow, func_type, types};
use super::{Flat, REG_INVARIANTS, SLEEPABLE, STATE_FREQ, STRICT_ALIGNMENT};
use crate::linux::{BtfFd, Linux, Map, MapSpec, ProgSpec};

/// A verdict, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Answer {
    /// Symbol of what `bpf(2)` returns; empty where the program loads.
    pub errno: String,
    /// Last line of the log of what is refused.
    pub line: String,
    /// Processed instructions.
    pub insns: u32,
    /// States.
    pub states: u32,
    /// The whole log, if it was asked for; times left out.
    #[serde(skip)]
    pub log: String,
}

impl Answer {
    /// Whether the program loads.
    pub fn accepts(&self) -> bool {
        self.errno.is_empty()
    }

    /// Whether two are the same, but for the log.
    pub fn same(&self, other: &Answer) -> bool {
        let parts = |a: &Answer| (a.errno.clone(), a.line.clone(), a.insns, a.states);
        parts(self) == parts(other)
    }

    /// A few lines of either log around the first that differs.
    pub fn first_difference(&self, other: &Answer) -> (String, String) {
        let pairs = self.log.lines().zip(other.log.lines());
        let same = pairs.take_while(|(a, b)| a == b).count();
        let around = |log: &str| {
            let lines = log.lines().skip(same.saturating_sub(3)).take(8);
            lines.map(|l| format!("    {l}\n")).collect()
        };
        (around(&self.log), around(&other.log))
    }

    /// Of an errno and a log.
    pub fn new(errno: String, log: &str) -> Answer {
        let mut answer = Answer {
            errno,
            line: String::new(),
            insns: 0,
            states: 0,
            log: String::new(),
        };
        let number = |words: &mut std::str::SplitAsciiWhitespace<'_>| {
            words.next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        for line in log.lines() {
            if let Some(rest) = line.strip_prefix("processed ") {
                let mut words = rest.split_ascii_whitespace();
                answer.insns = number(&mut words);
                words.find(|w| *w == "total_states");
                answer.states = number(&mut words);
            } else if line.starts_with("verification time") {
                continue;
            } else if !line.starts_with("stack depth") && !answer.errno.is_empty() {
                answer.line = line.trim().to_owned();
            }
            answer.log.push_str(&plain(line));
            answer.log.push('\n');
        }
        // The number counts what rewriting added.
        if answer.line.contains("No program to jit") {
            answer.log = answer.log.replace(&answer.line, "");
            answer.line = "No program to jit".into();
        }
        answer
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer {
            errno,
            line,
            insns,
            states,
            ..
        } = self;
        write!(f, "{errno} {line:?}, {insns} instructions, {states} states")
    }
}

/// A line of the log without what differs from load to load: addresses of maps, and how far a state
/// stands to the right of them.
fn plain(line: &str) -> String {
    let Some((insn, rest)) = line.split_once("(18) r") else {
        return line.to_owned();
    };
    let state = rest.split_once(';').map_or("", |(_, state)| state);
    let reg = rest.split(' ').next().unwrap_or("");
    format!("{insn}(18) r{reg} ;{state}")
}

/// The running kernel, with the maps.
#[derive(Debug)]
pub struct LinuxWithMaps {
    linux: Linux,
    btf: BtfFd,
    types: Btf,
    maps: Vec<Map>,
    kernel: Btf,
}

impl LinuxWithMaps {
    /// Makes the maps.
    ///
    /// # Errors
    /// What the kernel did not make.
    pub fn new(linux: Linux) -> Result<LinuxWithMaps, String> {
        let types = types().build().map_err(|e| e.to_string())?;
        let btf = linux
            .load_btf(&types.to_bytes())
            .map_err(|(errno, log)| format!("BTF: {errno}: {log}"))?;
        let path = "/sys/kernel/btf/vmlinux";
        let kernel = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
        let kernel = Btf::parse(&kernel).map_err(|e| format!("{path}: {e}"))?;
        let mut maps: Vec<Map> = Vec::new();
        for row in &MAPS {
            let value = row.value.and_then(|name| types.find(name, Kind::Struct));
            let key = types.find("int", Kind::Int);
            let spec = MapSpec {
                name: row.name,
                map_flags: row.flags,
                inner: row.inner.and_then(|m| maps.get(m)),
                btf: value.zip(key).map(|(v, k)| (btf.fd(), k.0, v.0)),
                ..MapSpec::new(row.map_type, row.key_size, row.value_size, row.max_entries)
            };
            let failed = |errno: Errno| format!("map {}: {errno}", row.name);
            let map = linux.create_map(&spec).map_err(failed)?;
            if let Some(bytes) = row.frozen {
                map.update(&[0; 4], bytes, 0).map_err(failed)?;
                map.freeze().map_err(failed)?;
            }
            maps.push(map);
        }
        Ok(LinuxWithMaps {
            linux,
            btf,
            types,
            maps,
            kernel,
        })
    }

    /// The running kernel's types.
    pub fn kernel(&self) -> &Btf {
        &self.kernel
    }

    /// What it says of a program. One that loads is gone at once.
    pub fn ask(&self, program: &Flat, log_level: u32) -> Answer {
        let mut insns = with_kfuncs(program, &self.kernel);
        for insn in names_of_maps(&mut insns) {
            let at = usize::try_from(insn.imm).ok();
            insn.imm = at.and_then(|m| self.maps.get(m)).map_or(-1, Map::fd);
        }
        let funcs: Vec<(u32, u32)> = (program.starts.iter().enumerate())
            .filter_map(|(i, start)| {
                let id = func_type(&self.types, i, program.is_global(i))?;
                Some((*start as u32, id.0))
            })
            .collect();
        let spec = ProgSpec {
            license: if program.gpl { c"GPL" } else { c"Proprietary" },
            prog_flags: program.flags,
            log_level,
            btf: program.has_types().then_some((self.btf.fd(), &funcs)),
            ..ProgSpec::new(program.prog_type, &insns)
        };
        let loaded = self.linux.load(&spec);
        let errno = match &loaded.result {
            Ok(_) => String::new(),
            Err(e) => e.name().unwrap_or("?").to_owned(),
        };
        Answer::new(errno, &loaded.log)
    }
}

/// Instructions that name a map, where their number is.
fn names_of_maps(insns: &mut [Insn]) -> impl Iterator<Item = &mut Insn> {
    insns
        .iter_mut()
        .filter(|i| i.is_ld_imm64() && [BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&i.src()))
}

/// Slots with the kernel functions' ids in a kernel's BTF; those that it lacks get one that it has not.
fn with_kfuncs(program: &Flat, kernel: &Btf) -> Vec<Insn> {
    let mut insns = program.insns.clone();
    let call = |i: &&mut Insn| i.code == 0x85 && i.src() == BPF_PSEUDO_KFUNC_CALL;
    for insn in insns.iter_mut().filter(call) {
        let name = usize::try_from(insn.imm).ok().and_then(|n| KFUNCS.get(n));
        let id = name.and_then(|name| kernel.find(name, Kind::Func));
        insn.imm = id.map_or(-1, |id| id.0 as i32);
    }
    insns
}

/// bpfsim's verifier, with the maps.
#[derive(Debug)]
pub struct Sim {
    kernel: Arc<Btf>,
    types: Btf,
    maps: Vec<MapDesc>,
    cpus: u32,
}

impl Sim {
    /// For a machine of so many CPUs.
    ///
    /// # Errors
    /// Where the kernel's types cannot be had.
    pub fn new(cpus: u32) -> Result<Sim, String> {
        let types = types().build().map_err(|e| e.to_string())?;
        let describe = |row: &MapRow| {
            let value = row.value.and_then(|name| types.find(name, Kind::Struct));
            MapDesc {
                name: row.name.to_owned(),
                map_type: row.map_type,
                key_size: row.key_size,
                value_size: row.value_size,
                max_entries: row.max_entries,
                flags: row.flags,
                has_btf: value.is_some(),
                fields: value
                    .and_then(|v| parse_fields(&types, v).ok())
                    .unwrap_or_default(),
                frozen: row.frozen.map(Arc::from),
                inner: None,
            }
        };
        // Templates of maps within maps come last.
        let mut maps: Vec<MapDesc> = MAPS.iter().map(describe).collect();
        for (at, row) in MAPS.iter().enumerate() {
            if let Some(inner) = row.inner {
                maps[at].inner = Some(maps.len());
                maps.push(describe(&MAPS[inner]));
            }
        }
        Ok(Sim {
            maps,
            kernel: bpfsim_btf::vmlinux().map_err(|e| e.to_string())?,
            types,
            cpus,
        })
    }

    /// The kernel's types.
    pub fn kernel(&self) -> &Btf {
        &self.kernel
    }

    /// What the verifier says of a program.
    pub fn verify(&self, program: &Flat, options: &Options) -> Outcome {
        let funcs: Vec<FuncInfo> = (program.starts.iter().enumerate())
            .filter_map(|(i, start)| {
                Some(FuncInfo {
                    insn: *start,
                    type_id: func_type(&self.types, i, program.is_global(i))?,
                    global: program.is_global(i),
                })
            })
            .collect();
        let typed = program.has_types();
        let mut insns = with_kfuncs(program, &self.kernel);
        for insn in names_of_maps(&mut insns) {
            insn.set_src(match insn.src() {
                BPF_PSEUDO_MAP_FD => BPF_PSEUDO_MAP_IDX,
                _ => BPF_PSEUDO_MAP_IDX_VALUE,
            });
        }
        let prog = ProgramToVerify {
            insns: &insns,
            prog_type: program.prog_type,
            attach_type: program.attach_type(),
            attach_to: AttachTo::Nothing,
            funcs: if typed { &funcs } else { &[] },
            lines: &[],
            btf: typed.then_some(&self.types),
            gpl_compatible: program.gpl,
            sleepable: program.flags & SLEEPABLE != 0,
        };
        let env = Env {
            kernel: &self.kernel,
            maps: &self.maps,
            cpus: self.cpus,
            kallsyms_all: false,
            refused_helpers: &[],
        };
        verify(&prog, &env, options)
    }

    /// The same as an answer.
    pub fn ask(&self, program: &Flat, log_level: u32) -> Answer {
        let outcome = self.verify(program, &options(program, log_level));
        let errno = match &outcome.verdict {
            Verdict::Accept(_) => String::new(),
            Verdict::Reject { errno, .. } => errno.name().unwrap_or("?").to_owned(),
            Verdict::Unsupported { what, .. } => format!("unsupported: {what}"),
        };
        Answer::new(errno, &outcome.log)
    }
}

/// How a program is to be verified.
pub fn options(program: &Flat, log_level: u32) -> Options {
    let flag = |bit| program.flags & bit != 0;
    Options {
        log_level,
        strict_alignment: flag(STRICT_ALIGNMENT),
        test_state_freq: flag(STATE_FREQ),
        test_reg_invariants: flag(REG_INVARIANTS),
        ..Options::default()
    }
}
