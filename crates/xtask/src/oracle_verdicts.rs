//! `cargo xtask oracle-verdicts`: what the verifier says of programs of Linux's selftests, beside
//! what Linux said.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpfsim_abi::sections::AttachTarget;
use bpfsim_abi::{AttachType, Func, MapType, ProgType};
use bpfsim_btf::fields::parse_fields;
use bpfsim_btf::{Btf, Kind, Type, TypeId};
use bpfsim_loader::{ExternKind, ExternValue, Kconfig, MapDef, MapKind, Object, Program};
use bpfsim_verifier::{
    AttachTo, Env, FuncInfo, LineInfo, MapDesc, Options, Outcome, ProgramToVerify, Verdict, verify,
};

/// `license_is_gpl_compatible`
const GPL: [&str; 6] = [
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

/// A row of the record.
struct Row {
    file: String,
    program: String,
    accepted: bool,
    errno: i32,
    insns: u32,
    states: u32,
    peak: u32,
    micros: u64,
    message: String,
}

#[derive(Default)]
struct Score {
    rows: usize,
    agree: usize,
    false_accepts: Vec<String>,
    false_rejects: Vec<String>,
    unsupported: BTreeMap<String, usize>,
    refused: usize,
    errno: usize,
    message: usize,
    accepted: usize,
    insns: usize,
    states: usize,
    peak: usize,
    other: Vec<String>,
    time: Duration,
    linux: u64,
}

/// Takes the folder of the objects, the record, and words to look for in `file program` with
/// `--only`; `--log` prints logs.
pub fn main(args: &[String]) -> Result<(), String> {
    let mut plain = Vec::new();
    let (mut only, mut level, mut verbose) = (None, 4, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only" => only = args.next().cloned(),
            "--log" => level = args.next().and_then(|n| n.parse().ok()).unwrap_or(2),
            "-v" => verbose = true,
            _ => plain.push(arg.clone()),
        }
    }
    let dir = plain.first().ok_or("oracle-verdicts DIR [RECORD.csv]")?;
    let default = "../shared/oracle/verdicts.csv".to_owned();
    let record = plain.get(1).unwrap_or(&default);
    let text = std::fs::read_to_string(record).map_err(|e| format!("{record}: {e}"))?;
    let mut files: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in text.lines().skip(1).filter_map(row) {
        files.entry(row.file.clone()).or_default().push(row);
    }
    let kernel = bpfsim_btf::vmlinux().map_err(|e| format!("{e}"))?;
    let mut score = Score::default();
    for (file, rows) in &files {
        let path = Path::new(dir).join(file);
        let bytes = std::fs::read(&path).map_err(|_| "no such object".to_owned());
        let object = bytes.and_then(|b| prepare(&b, &kernel));
        for row in rows {
            let name = format!("{} {}", row.file, row.program);
            if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
                continue;
            }
            score.rows += 1;
            score.linux += row.micros;
            let outcome = match &object {
                Ok(object) => judge(object, &row.program, &kernel, level, &mut score.time),
                Err(e) => Err(e.clone()),
            };
            match outcome {
                Ok(outcome) => {
                    if level != 4 {
                        println!("{}", outcome.log);
                    }
                    count(&mut score, row, &name, &outcome);
                }
                Err(e) => {
                    *score.unsupported.entry(format!("load: {e}")).or_default() += 1;
                    score.other.push(format!("load {name}: {e}"));
                }
            }
        }
    }
    report(&score, verbose);
    Ok(())
}

fn count(score: &mut Score, row: &Row, name: &str, outcome: &Outcome) {
    match &outcome.verdict {
        Verdict::Unsupported { what, .. } => {
            *score.unsupported.entry(what.clone()).or_default() += 1;
            score.other.push(format!("unsupported {name}: {what}"));
        }
        Verdict::Accept(_) if !row.accepted => {
            score
                .false_accepts
                .push(format!("{name}: {} {}", row.errno, row.message));
        }
        Verdict::Accept(_) => {
            score.agree += 1;
            score.accepted += 1;
            let s = outcome.stats;
            let same = s.insns_processed == row.insns;
            score.insns += usize::from(same);
            score.states += usize::from(s.total_states == row.states);
            score.peak += usize::from(s.peak_states == row.peak);
            if !same {
                score.other.push(format!(
                    "insns {name}: {} for {}, states {} for {}",
                    s.insns_processed, row.insns, s.total_states, row.states
                ));
            }
        }
        Verdict::Reject { errno, message, .. } if row.accepted => {
            score
                .false_rejects
                .push(format!("{name}: {errno:?} {message}"));
        }
        Verdict::Reject { errno, message, .. } => {
            score.agree += 1;
            score.refused += 1;
            let same = i32::from(errno.0) == -row.errno;
            score.errno += usize::from(same);
            if !same {
                score.other.push(format!(
                    "errno {name}: {errno:?} for {}: {message} for {}",
                    row.errno, row.message
                ));
            }
            let same = last_line(outcome, message).trim() == row.message.trim();
            score.message += usize::from(same);
            if !same {
                score.other.push(format!(
                    "message {name}: {} for {}",
                    last_line(outcome, message),
                    row.message
                ));
            }
        }
    }
}

/// The last line before the counts, as the record has it.
fn last_line<'a>(outcome: &'a Outcome, message: &'a str) -> &'a str {
    match message.is_empty() {
        false => message,
        true => outcome
            .log
            .lines()
            .find(|l| l.starts_with("stack depth"))
            .unwrap_or(""),
    }
}

fn report(score: &Score, verbose: bool) {
    if verbose {
        for line in &score.other {
            println!("{line}");
        }
    }
    for line in &score.false_accepts {
        println!("false accept {line}");
    }
    for line in &score.false_rejects {
        println!("false reject {line}");
    }
    let mut why: Vec<_> = score.unsupported.iter().collect();
    why.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    for (what, n) in why {
        println!("{n:5}  unsupported: {what}");
    }
    let share = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
    let line = |what: &str, n: usize, of: usize| {
        println!("{what:24} {n:5} of {of:5}  {:5.1} %", share(n, of));
    };
    line("same verdict", score.agree, score.rows);
    line("false accepts", score.false_accepts.len(), score.rows);
    line("false rejects", score.false_rejects.len(), score.rows);
    line("unsupported", score.unsupported.values().sum(), score.rows);
    line("same errno", score.errno, score.refused);
    line("same last line", score.message, score.refused);
    line("same insns", score.insns, score.accepted);
    line("same states", score.states, score.accepted);
    line("same peak states", score.peak, score.accepted);
    println!(
        "time                     {:.2} s, Linux {:.2} s",
        score.time.as_secs_f64(),
        score.linux as f64 / 1e6
    );
}

/// Splits a line of CSV with quotes.
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                if let Some(last) = out.last_mut() {
                    last.push('"');
                }
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    out
}

fn row(line: &str) -> Option<Row> {
    let f = fields(line);
    let accepted = match f.get(3)?.as_str() {
        "success" => true,
        "failure" => false,
        _ => return None,
    };
    let number = |i: usize| f.get(i).and_then(|v| v.parse::<i64>().ok()).unwrap_or(0);
    Some(Row {
        file: f[0].clone(),
        program: f[1].clone(),
        accepted,
        errno: number(5) as i32,
        insns: number(6) as u32,
        states: number(7) as u32,
        peak: number(8) as u32,
        micros: number(9) as u64,
        message: f.get(14)?.clone(),
    })
}

/// An object with all that a kernel adds.
fn prepare(bytes: &[u8], kernel: &Btf) -> Result<Object, String> {
    let mut object = bpfsim_loader::load(bytes).map_err(|e| format!("{e}"))?;
    object
        .relocate_core(kernel, &[])
        .map_err(|e| format!("{e}"))?;
    let kconfig = Kconfig {
        config: "CONFIG_HZ=250\nCONFIG_BPF_SYSCALL=y\nCONFIG_X86_64=y\nCONFIG_X86=y\n",
        kernel_version: 0x06_12_2c,
        has_bpf_cookie: true,
        has_syscall_wrapper: true,
    };
    object.set_kconfig(&kconfig).map_err(|e| format!("{e}"))?;
    object
        .resolve_externs(|ext| {
            let name = ext.essential_name();
            match ext.kind {
                ExternKind::Kfunc { .. } => kernel
                    .find(name, Kind::Func)
                    .map(|id| ExternValue::Btf { id, btf: 0 }),
                ExternKind::Ksym { ty: Some(_) } => kernel
                    .find(name, Kind::Var)
                    .map(|id| ExternValue::Btf { id, btf: 0 }),
                _ if ext.weak => None,
                _ => Some(ExternValue::Address(0x1000)),
            }
        })
        .map_err(|e| format!("{e}"))?;
    Ok(object)
}

/// The type that a program without a known section is loaded as.
fn guess(object: &Object, program: &Program) -> ProgType {
    let btf = object.btf.as_deref();
    let arg = || -> Option<&str> {
        let btf = btf?;
        let id = program.funcs.first()?.type_id?;
        let Type::Func { proto, .. } = btf.ty(id)? else {
            return None;
        };
        let Type::FuncProto(p) = btf.ty(proto)? else {
            return None;
        };
        let Type::Ptr { to } = btf.resolve(p.params.iter().next()?.ty).ok()?.1 else {
            return None;
        };
        Some(btf.name_of(btf.resolve(to).ok()?.0))
    };
    match (program.section.as_str(), arg()) {
        (s, _) if s.starts_with("sk_skb") => ProgType::SkSkb,
        (s, _) if s.starts_with("sk_msg") => ProgType::SkMsg,
        ("encap_gre" | "encap_gre6", _) => ProgType::LwtXmit,
        ("encap_srh", _) => ProgType::LwtIn,
        ("add_egr_x" | "pop_egr" | "inspect_t", _) => ProgType::LwtSeg6local,
        (_, Some("__sk_buff")) => ProgType::SchedCls,
        (_, Some("xdp_md")) => ProgType::Xdp,
        (_, Some("bpf_sock_ops")) => ProgType::SockOps,
        (_, Some("sk_msg_md")) => ProgType::SkMsg,
        (_, Some("bpf_sock_addr")) => ProgType::CgroupSockAddr,
        (_, Some("bpf_raw_tracepoint_args")) => ProgType::RawTracepoint,
        (_, Some("pt_regs")) => ProgType::Kprobe,
        _ => ProgType::Tracepoint,
    }
}

fn describe(object: &Object, def: &MapDef, inner: Option<usize>) -> MapDesc {
    let map_type = MapType::from_u32(def.map_type).unwrap_or(MapType::Unspec);
    let storage = matches!(
        map_type,
        MapType::SkStorage
            | MapType::InodeStorage
            | MapType::TaskStorage
            | MapType::CgrpStorage
            | MapType::CgroupStorage
            | MapType::PercpuCgroupStorage
    );
    let fields = match (&object.btf, def.value_type) {
        (Some(btf), Some(ty)) => parse_fields(btf, ty).unwrap_or_default(),
        _ => Vec::new(),
    };
    let frozen = matches!(def.kind, MapKind::Rodata | MapKind::Kconfig).then(|| {
        let mut data = def.data.clone();
        data.resize(def.value_size as usize, 0);
        Arc::from(data)
    });
    MapDesc {
        name: def.kernel_name(),
        map_type,
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: match def.max_entries {
            0 if !storage => 1,
            n => n,
        },
        flags: def.map_flags,
        has_btf: def.value_type.is_some() || def.key_type.is_some(),
        fields,
        frozen,
        inner,
    }
}

fn judge(
    object: &Object,
    name: &str,
    kernel: &Btf,
    level: u32,
    time: &mut Duration,
) -> Result<Outcome, String> {
    let (index, program) = object
        .programs
        .iter()
        .enumerate()
        .find(|(_, p)| p.name == name)
        .ok_or("no such program")?;
    if let Some(e) = &program.link_error {
        return Err(format!("{e}"));
    }
    let mut maps = Vec::new();
    let mut inners = Vec::new();
    for def in &object.maps {
        let inner = def.inner.as_ref().map(|inner| {
            inners.push(describe(object, inner, None));
            object.maps.len() + inners.len() - 1
        });
        maps.push(describe(object, def, inner));
    }
    maps.append(&mut inners);
    let prog_type = match program.spec.prog_type {
        ProgType::Unspec => guess(object, program),
        t => t,
    };
    let attach_type = program
        .spec
        .attach_type
        .unwrap_or(AttachType::CgroupInetIngress);
    let attach_type = bpfsim_abi::prog::fixup_attach_type(prog_type, attach_type);
    let attach_to = attach(object, index, program, kernel)?;
    let funcs: Vec<FuncInfo> = program
        .funcs
        .iter()
        .filter_map(|f| {
            Some(FuncInfo {
                insn: f.start_insn,
                type_id: f.type_id?,
                global: f.global,
            })
        })
        .collect();
    let funcs = match funcs.len() == program.funcs.len() {
        true => funcs,
        false => Vec::new(),
    };
    let lines: Vec<_> = program.lines.iter().collect();
    let lines: Vec<LineInfo<'_>> = lines
        .iter()
        .map(|l| LineInfo {
            insn: l.insn,
            file: l.file,
            text: l.text,
            line: l.line,
        })
        .collect();
    let prog = ProgramToVerify {
        insns: &program.insns,
        prog_type,
        attach_type,
        attach_to,
        funcs: &funcs,
        lines: &lines,
        btf: object.btf.as_deref(),
        gpl_compatible: GPL.contains(&object.license.as_str()),
        sleepable: program.spec.sleepable(),
    };
    let env = Env {
        kernel,
        maps: &maps,
        cpus: 2,
        kallsyms_all: false,
        refused_helpers: &[Func::OverrideReturn, Func::ProbeWriteUser],
    };
    let options = Options {
        log_level: level,
        ..Options::default()
    };
    let start = cpu_time();
    let outcome = verify(&prog, &env, &options);
    *time += cpu_time().saturating_sub(start);
    Ok(outcome)
}

/// How long this thread has run; wall-clock time where Linux does not say.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    nanos.map_or_else(
        || {
            static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            START.get_or_init(Instant::now).elapsed()
        },
        Duration::from_nanos,
    )
}

fn attach<'a>(
    object: &'a Object,
    index: usize,
    program: &Program,
    kernel: &Btf,
) -> Result<AttachTo<'a>, String> {
    if program.spec.prog_type == ProgType::StructOps {
        for ops in object.maps.iter().filter_map(|m| m.struct_ops.as_ref()) {
            let Some((member, _)) = ops.progs.iter().find(|(_, p)| *p == index) else {
                continue;
            };
            let btf = object.btf.as_deref().ok_or("no BTF")?;
            let (Some(Type::Struct(local)), Some(id)) = (
                btf.ty(ops.type_id),
                kernel.find(&ops.type_name, Kind::Struct),
            ) else {
                return Err("no struct_ops type".into());
            };
            let Some(Type::Struct(kern)) = kernel.ty(id) else {
                return Err("no struct_ops type".into());
            };
            let name = local.members.iter().nth(*member).map_or("", |m| m.name);
            let at = kern.members.iter().position(|m| m.name == name);
            return Ok(AttachTo::StructOps {
                name: &ops.type_name,
                member: at.ok_or("no struct_ops member")? as u32,
            });
        }
        return Err("struct_ops program that no map has".into());
    }
    if !program.spec.attach_btf() {
        return Ok(AttachTo::Nothing);
    }
    if program.spec.prog_type == ProgType::Ext {
        return Ok(AttachTo::Program);
    }
    match program.attach_target() {
        Some(AttachTarget::Btf {
            name,
            prefix,
            typedef,
            ..
        }) => {
            let kind = if typedef { Kind::Typedef } else { Kind::Func };
            let id: Option<TypeId> = kernel.find(&format!("{prefix}{name}"), kind);
            Ok(id.map_or(AttachTo::Nothing, AttachTo::Kernel))
        }
        _ if program.spec.prog_type == ProgType::Ext => Ok(AttachTo::Program),
        _ => Ok(AttachTo::Nothing),
    }
}
