//! `bpfsim features`: the ABI table, by kernel version and by status here, and what objects lack.

use crate::show;
use crate::{Outcome, Stop};
use bpfsim_abi::helper::{self, ProtoFlags};
use bpfsim_abi::kfunc::{self, KfuncFlags};
use bpfsim_abi::prog::{can_be_sleepable, fixup_attach_type, takes_attach_type};
use bpfsim_abi::status;
use bpfsim_abi::{AttachType, Func, KernelVersion, MapType, ProgType, ProgTypes, Status};
use bpfsim_btf::Btf;
use bpfsim_isa::{Insn, uapi};
use bpfsim_loader::{ExternKind, Object, Program, RelocKind};
use bpfsim_verifier::support;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Lists helpers, kfuncs, map types and program types of Linux, and what bpfsim has of them.
#[derive(clap::Args)]
pub struct Args {
    /// Only names that contain one of these.
    names: Vec<String>,
    /// Only these kinds.
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// Only what this kernel has, such as 6.1.
    #[arg(long, default_value_t = KernelVersion::REFERENCE)]
    kernel: KernelVersion,
    /// Only what programs of this type may use, such as sched_cls.
    #[arg(long, value_parser = prog_type)]
    prog_type: Option<ProgType>,
    /// Only rows that run to this degree.
    #[arg(long, value_enum)]
    status: Option<Degree>,
    /// Rank what the programs of these objects want and bpfsim does not run.
    #[arg(long, value_name = "OBJ", num_args = 1.., conflicts_with_all = ["names", "status"])]
    missing: Vec<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    Helper,
    Kfunc,
    MapType,
    ProgType,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Helper => "helper",
            Kind::Kfunc => "kfunc",
            Kind::MapType => "map_type",
            Kind::ProgType => "prog_type",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Degree {
    Done,
    Partial,
    No,
}

impl Degree {
    fn is(self, status: Status) -> bool {
        matches!(
            (self, status),
            (Degree::Done, Status::Done)
                | (Degree::Partial, Status::Partial(_))
                | (Degree::No, Status::No)
        )
    }
}

fn prog_type(name: &str) -> Result<ProgType, String> {
    ProgType::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = ProgType::ALL[1..].iter().map(|t| t.name()).collect();
        format!("no program type; they are {}", names.join(", "))
    })
}

/// A row of the table.
struct Row {
    kind: Kind,
    name: &'static str,
    number: Option<u32>,
    since: KernelVersion,
    until: Option<KernelVersion>,
    progs: ProgTypes,
    flags: Vec<&'static str>,
    proto: String,
    verifies: Status,
    runs: Status,
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    if args.missing.is_empty() {
        let kernel = bpfsim_btf::vmlinux().map_err(Stop::unusable)?;
        table(args, &kernel);
        return Ok(Outcome::Fine);
    }
    Ok(missing(args))
}

fn table(args: &Args, kernel: &Btf) {
    let mut rows = rows(kernel);
    if let Some(prog_type) = args.prog_type {
        rows.iter_mut()
            .for_each(|row| row.for_programs_of(prog_type));
    }
    let rows: Vec<Row> = rows.into_iter().filter(|row| row.wanted(args)).collect();
    if args.json {
        rows.iter().for_each(|row| show::json(&row.json()));
        return;
    }
    let mut last = None;
    for row in &rows {
        if last != Some(row.kind) {
            show::line(&format!(
                "{:<40} {:>7} {:>8} {:>8}  {}",
                row.kind.name(),
                "since",
                "verifies",
                "runs",
                if row.kind == Kind::ProgType {
                    ""
                } else {
                    "program types"
                },
            ));
            last = Some(row.kind);
        }
        show::line(&row.line());
    }
    for kind in [Kind::Helper, Kind::Kfunc, Kind::MapType, Kind::ProgType] {
        let of: Vec<&Row> = rows.iter().filter(|r| r.kind == kind).collect();
        let runs = of.iter().filter(|r| r.runs == Status::Done).count();
        let part = of
            .iter()
            .filter(|r| matches!(r.runs, Status::Partial(_)))
            .count();
        if !of.is_empty() {
            let (kind, all) = (kind.name(), of.len());
            show::line(&format!(
                "{kind}: {all} in {}, {runs} run, {part} in part",
                args.kernel
            ));
        }
    }
}

impl Row {
    /// Counts from when programs of this type have it.
    fn for_programs_of(&mut self, prog_type: ProgType) {
        let since = match self.kind {
            Kind::Helper => Func::from_name(self.name).map(|f| helper::since(f, prog_type)),
            Kind::Kfunc => kfunc::get(self.name).and_then(|k| k.since_for(prog_type)),
            Kind::MapType | Kind::ProgType => None,
        };
        self.since = since.unwrap_or(self.since);
    }

    fn wanted(&self, args: &Args) -> bool {
        let name =
            args.names.is_empty() || args.names.iter().any(|n| self.name.contains(n.as_str()));
        name && (args.kind.is_empty() || args.kind.contains(&self.kind))
            && self.since <= args.kernel
            && self.until.is_none_or(|until| args.kernel < until)
            && args.prog_type.is_none_or(|t| self.progs.contains(t))
            && args.status.is_none_or(|degree| degree.is(self.runs))
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "name": self.name,
            "number": self.number,
            "since": since(self.since),
            "until": self.until.map(|v| v.to_string()),
            "prog_types": self.progs.iter().map(ProgType::name).collect::<Vec<_>>(),
            "flags": self.flags,
            "prototype": self.proto,
            "verify": self.verifies.name(),
            "run": self.runs.name(),
            "lacks": self.runs.lacks().or(self.verifies.lacks()),
        })
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{:<40} {:>7} {:>8} {:>8}",
            self.name,
            since(self.since),
            self.verifies.name(),
            self.runs.name(),
        );
        let progs: Vec<&str> = self.progs.iter().map(ProgType::name).collect();
        if self.kind != Kind::ProgType {
            line += &match progs.len() {
                0 => "  none".to_owned(),
                n if n + 1 >= ProgType::ALL.len() => "  all".to_owned(),
                n if n > 6 => format!("  {n} of {}", ProgType::ALL.len() - 1),
                _ => format!("  {}", progs.join(" ")),
            };
        }
        for lacks in [self.verifies.lacks(), self.runs.lacks()]
            .into_iter()
            .flatten()
        {
            line += &format!(" ({lacks})");
        }
        line
    }
}

/// A version; 5.15 stands for whatever is older too.
fn since(version: KernelVersion) -> String {
    if version == KernelVersion::OLDEST {
        "<=5.15".to_owned()
    } else {
        version.to_string()
    }
}

fn rows(kernel: &Btf) -> Vec<Row> {
    let mut rows: Vec<Row> = Func::ALL[1..]
        .iter()
        .map(|func| helper_row(*func))
        .collect();
    let mut kfuncs: Vec<Row> = kfunc::all().map(|k| kfunc_row(kernel, k)).collect();
    kfuncs.sort_by_key(|row| row.name);
    rows.append(&mut kfuncs);
    rows.extend(MapType::ALL[1..].iter().map(|map_type| Row {
        kind: Kind::MapType,
        name: map_type.name(),
        number: Some(map_type.number()),
        since: map_type.since(),
        until: None,
        progs: ProgTypes::ALL,
        flags: Vec::new(),
        proto: String::new(),
        verifies: support::map_type(*map_type),
        runs: status::map_type(*map_type),
    }));
    rows.extend(ProgType::ALL[1..].iter().map(|prog_type| {
        let sleeps = AttachType::ALL.iter().any(|a| {
            takes_attach_type(*prog_type, fixup_attach_type(*prog_type, *a))
                && can_be_sleepable(*prog_type, *a)
        });
        Row {
            kind: Kind::ProgType,
            name: prog_type.name(),
            number: Some(prog_type.number()),
            since: prog_type.since(),
            until: None,
            progs: ProgTypes::of(&[*prog_type]),
            flags: if sleeps {
                vec!["sleepable"]
            } else {
                Vec::new()
            },
            proto: String::new(),
            verifies: support::prog_type(*prog_type),
            runs: status::prog_type(*prog_type),
        }
    }));
    rows
}

fn helper_row(func: Func) -> Row {
    let protos = || helper::all_protos().filter(|p| p.func == func);
    let flag = |flag, name| protos().any(|p| p.is(flag)).then_some(name);
    let flags = [
        flag(ProtoFlags::GPL_ONLY, "gpl_only"),
        flag(ProtoFlags::MIGHT_SLEEP, "might_sleep"),
        flag(ProtoFlags::PKT_ACCESS, "pkt_access"),
        flag(ProtoFlags::FASTCALL, "fastcall"),
        flag(ProtoFlags::CHANGES_PKT, "changes_pkt"),
    ];
    Row {
        kind: Kind::Helper,
        name: func.name(),
        number: Some(func.number()),
        since: func.since(),
        until: None,
        progs: helper::prog_types(func),
        flags: flags.into_iter().flatten().collect(),
        proto: protos()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
        verifies: support::helper(func),
        runs: status::helper(func),
    }
}

fn kfunc_row(kernel: &Btf, kfunc: &'static kfunc::Kfunc) -> Row {
    Row {
        kind: Kind::Kfunc,
        name: kfunc.name,
        number: None,
        since: kfunc.since,
        until: kfunc.until,
        progs: ProgType::ALL[1..]
            .iter()
            .copied()
            .filter(|t| kfunc.reaches(*t))
            .collect(),
        flags: KfuncFlags::all()
            .iter_names()
            .filter(|(_, flag)| kfunc.is(*flag))
            .map(|(name, _)| name)
            .collect(),
        proto: kfunc.proto.to_owned(),
        verifies: support::kfunc(kernel, kfunc),
        runs: status::kfunc(kfunc.name),
    }
}

/// What programs want of one thing that bpfsim does not run.
#[derive(Default)]
struct Want {
    /// Programs that refer to it.
    programs: usize,
    /// Of these, the ones that lack nothing else.
    alone: usize,
    /// Objects with such a program.
    objects: usize,
    last_object: usize,
}

type Wants = BTreeMap<(Kind, String), Want>;

fn missing(args: &Args) -> Outcome {
    let (mut wants, mut programs, mut complete, mut unread) = (Wants::new(), 0_usize, 0_usize, 0);
    for (number, path) in args.missing.iter().enumerate() {
        let object = std::fs::read(path)
            .map_err(|e| e.to_string())
            .and_then(|bytes| bpfsim_loader::load(&bytes).map_err(|e| e.to_string()));
        let object = match object {
            Ok(object) => object,
            Err(e) => {
                unread += 1;
                let file = path.display().to_string();
                if args.json {
                    show::json(&json!({"kind": "error", "file": file, "message": e}));
                } else {
                    show::error(&format!("{file}: {e}"));
                }
                continue;
            }
        };
        for program in &object.programs {
            if args.prog_type.is_some_and(|t| t != program.spec.prog_type) {
                continue;
            }
            let mut lacks = lacks(&object, program);
            lacks.retain(|(kind, _)| args.kind.is_empty() || args.kind.contains(kind));
            programs += 1;
            complete += usize::from(lacks.is_empty());
            let alone = lacks.len() == 1;
            for what in lacks {
                let want = wants.entry(what).or_default();
                want.programs += 1;
                want.alone += usize::from(alone);
                // Objects are numbered from 1, since 0 is the default.
                if want.last_object != number + 1 {
                    (want.last_object, want.objects) = (number + 1, want.objects + 1);
                }
            }
        }
    }
    report(args, wants, programs, complete);
    if unread == args.missing.len() {
        Outcome::Unusable
    } else {
        Outcome::Fine
    }
}

fn report(args: &Args, wants: Wants, programs: usize, complete: usize) {
    let mut ranked: Vec<((Kind, String), Want)> = wants.into_iter().collect();
    ranked.sort_by(|(a, x), (b, y)| (y.programs, y.alone, a).cmp(&(x.programs, x.alone, b)));
    if !args.json && !ranked.is_empty() {
        show::line(&format!(
            "{:<10} {:<40} {:>8} {:>8} {:>8}",
            "kind", "name", "programs", "alone", "objects"
        ));
    }
    for ((kind, name), want) in &ranked {
        let kind = kind.name();
        if args.json {
            show::json(&json!({
                "kind": kind, "name": name, "programs": want.programs, "alone": want.alone,
                "objects": want.objects,
            }));
        } else {
            let Want {
                programs,
                alone,
                objects,
                ..
            } = want;
            show::line(&format!(
                "{kind:<10} {name:<40} {programs:>8} {alone:>8} {objects:>8}"
            ));
        }
    }
    if args.json {
        show::json(&json!({"kind": "total", "programs": programs, "complete": complete}));
    } else {
        let percent = if programs == 0 {
            0.0
        } else {
            complete as f64 * 100.0 / programs as f64
        };
        show::line(&format!(
            "{complete} of {programs} programs ({percent:.1} %) refer only to what bpfsim runs"
        ));
    }
}

/// What a program refers to that bpfsim does not run, without repetition. A weak kfunc that is
/// not there is none: the program asks before it calls.
fn lacks(object: &Object, program: &Program) -> Vec<(Kind, String)> {
    let mut lacks = Vec::new();
    let mut add = |kind, name: String, runs: Status| {
        if runs == Status::No && !lacks.contains(&(kind, name.clone())) {
            lacks.push((kind, name));
        }
    };
    let prog_type = program.spec.prog_type;
    // Of a section that libbpf does not know, whoever loads the program says the type.
    if prog_type != ProgType::Unspec {
        add(
            Kind::ProgType,
            prog_type.name().to_owned(),
            status::prog_type(prog_type),
        );
    }
    for insn in program.insns.iter().filter(|i| is_helper_call(i)) {
        let number = u32::try_from(insn.imm).unwrap_or(u32::MAX);
        match Func::from_u32(number) {
            Some(func) => add(Kind::Helper, func.name().to_owned(), status::helper(func)),
            None => add(Kind::Helper, format!("helper #{}", insn.imm), Status::No),
        }
    }
    for reloc in &program.relocs {
        match reloc.kind {
            RelocKind::ExternCall { ext } => {
                let Some(ext) = object.externs.get(ext) else {
                    continue;
                };
                let name = ext.essential_name();
                if matches!(ext.kind, ExternKind::Kfunc { .. })
                    && !(ext.weak && kfunc::get(name).is_none())
                {
                    add(Kind::Kfunc, name.to_owned(), status::kfunc(name));
                }
            }
            RelocKind::MapFd { map } | RelocKind::MapValue { map, .. } => {
                let Some(map) = object.maps.get(map) else {
                    continue;
                };
                match MapType::from_u32(map.map_type) {
                    Some(t) => add(Kind::MapType, t.name().to_owned(), status::map_type(t)),
                    None => {
                        add(
                            Kind::MapType,
                            format!("map type {}", map.map_type),
                            Status::No,
                        );
                    }
                }
            }
            _ => {}
        }
    }
    lacks
}

/// `call N` of a helper; what follows a 16-byte load is no instruction, and has code 0.
fn is_helper_call(insn: &Insn) -> bool {
    insn.code == uapi::BPF_JMP | uapi::BPF_CALL && insn.src() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::collections::BTreeSet;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn names(line: &str) -> Vec<&'static str> {
        let args = Cli::parse_from(std::iter::once("features").chain(line.split(' '))).args;
        let mut rows = rows(&bpfsim_btf::vmlinux().unwrap());
        if let Some(prog_type) = args.prog_type {
            rows.iter_mut()
                .for_each(|row| row.for_programs_of(prog_type));
        }
        rows.iter()
            .filter(|row| row.wanted(&args))
            .map(|row| row.name)
            .collect()
    }

    #[test]
    fn every_row_is_there_once() {
        let rows = rows(&bpfsim_btf::vmlinux().unwrap());
        let keys: BTreeSet<_> = rows.iter().map(|row| (row.kind, row.name)).collect();
        assert_eq!(keys.len(), rows.len());
        let of = |kind| rows.iter().filter(|row| row.kind == kind).count();
        assert_eq!(
            [of(Kind::Helper), of(Kind::MapType), of(Kind::ProgType)],
            [211, 33, 32]
        );
        assert_eq!(of(Kind::Kfunc), kfunc::all().count());
    }

    #[test]
    fn filters() {
        assert_eq!(names("bpf_timer_start"), ["bpf_timer_start"]);
        assert_eq!(names("bpf_wq_start --kernel 6.9"), [""; 0]);
        assert_eq!(names("bpf_wq_start --kernel 6.10"), ["bpf_wq_start"]);
        assert_eq!(
            names("cgroup_rstat_flush --kernel 6.12"),
            ["cgroup_rstat_flush"]
        );
        assert_eq!(names("cgroup_rstat_flush"), [""; 0]);
        assert_eq!(names("xdp --kind prog_type"), ["xdp"]);
        assert_eq!(
            names("sock_ops_cb_flags --prog-type sock_ops"),
            ["bpf_sock_ops_cb_flags_set"]
        );
        assert_eq!(names("sock_ops_cb_flags --prog-type xdp"), [""; 0]);
        assert_eq!(
            names("get_task_stack --prog-type xdp --kernel 6.12"),
            [""; 0]
        );
        assert_eq!(
            names("get_task_stack --prog-type kprobe --kernel 6.12"),
            ["bpf_get_task_stack"]
        );
    }

    #[test]
    fn a_helper_call_is_told_from_other_calls_and_from_data() {
        let call = uapi::BPF_JMP | uapi::BPF_CALL;
        assert!(is_helper_call(&Insn::new(call, 0, 0, 0, 1)));
        assert!(!is_helper_call(&Insn::new(
            call,
            0,
            uapi::BPF_PSEUDO_CALL,
            0,
            1
        )));
        assert!(!is_helper_call(&Insn::new(
            call,
            0,
            uapi::BPF_PSEUDO_KFUNC_CALL,
            0,
            1
        )));
        assert!(!is_helper_call(&Insn::new(0, 0, 0, 0, i32::from(call))));
    }
}
