//! Holds the loader against libbpf: same maps, programs and linked instructions of every object.
//!
//! `libbpf_view.c` is built against a libbpf and says what that makes of the objects. By default it
//! asks the kernel for nothing, and CO-RE is not part of it. With `--kernel` both sides apply CO-RE
//! and resolve externs by the running kernel's BTF.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpfsim_btf::Btf;
use bpfsim_loader::{
    ExternKind, ExternValue, LoadError, LoadErrorKind, LoadOptions, MapDef, Object, Program,
    RelocKind,
};

const USAGE: &str = "usage: cargo xtask libbpf-compare DIR|OBJECT... [--kernel] [--libbpf DIR]\n  \
    --kernel  apply CO-RE and resolve externs, too, by the running kernel's BTF\n  \
    --libbpf  where libbpf.a lies, with its headers below include/ (default: the system's)";
/// The running kernel's types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// libbpf's words where it ends before a program is put together.
const UNLINKED: [&str; 6] = [
    "relocat", "relo #", "extern (", "extern '", "Kconfig", "kallsyms",
];
/// `BPF_PSEUDO_MAP_IDX` and `BPF_PSEUDO_MAP_IDX_VALUE`: libbpf's generator numbers maps as we do.
const PSEUDO_MAP_IDX: u8 = 5;
const PSEUDO_MAP_IDX_VALUE: u8 = 6;
/// Differences that are printed in full.
const SHOWN: usize = 40;

/// What one side makes of an object: a line for each map and program, or an errno.
#[derive(Debug, PartialEq, Eq)]
enum View {
    Lines(Vec<Line>),
    Refused { errno: i32, why: String },
}

/// A map or a program. `fields` must agree; of programs, `code` too.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    name: String,
    fields: String,
    /// Linked instructions; none where linking failed.
    code: Option<Vec<[u8; 8]>>,
    /// Bytes that do not count, of instructions whose value only a kernel knows.
    ignored: HashMap<usize, Ignored>,
    /// Functions and C lines of the linked program, where known.
    info: [String; 2],
    why: String,
}

/// What does not count of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ignored {
    /// Its immediate.
    Imm,
    /// Whatever a kernel's symbol changes: source register, offset, immediate.
    Symbol,
}

/// Runs the comparison over all objects that the arguments name.
pub fn main(args: &[String]) -> Result<(), String> {
    let (mut inputs, mut libbpf, mut kernel) = (Vec::new(), None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--libbpf" => libbpf = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--kernel" => kernel = Some(kernel_btf()?),
            _ => inputs.push(PathBuf::from(arg)),
        }
    }
    if inputs.is_empty() {
        return Err(USAGE.into());
    }
    let objects = objects(&inputs)?;
    let theirs = libbpf_views(&objects, libbpf.as_deref(), kernel.is_some())?;
    let mut count = Count::default();
    for (path, theirs) in objects.iter().zip(&theirs) {
        let ours = our_view(path, kernel.as_ref())?;
        count.compare(path, &ours, theirs);
    }
    println!(
        "{} objects ({} refused by both), {} maps, {} programs, {} instructions, {} lists of functions and lines, {} programs that this kernel cannot link: {} differences",
        objects.len(),
        count.refused,
        count.maps,
        count.programs,
        count.insns,
        count.infos,
        count.unknown,
        count.differences
    );
    match count.differences {
        0 => Ok(()),
        n => Err(format!("{n} differences from libbpf")),
    }
}

/// Directories stand for the objects in them.
fn objects(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            found.push(input.clone());
            continue;
        }
        let entries = std::fs::read_dir(input).map_err(|e| format!("{}: {e}", input.display()))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        found.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "o")));
    }
    found.sort();
    match found.is_empty() {
        true => Err("no objects".into()),
        false => Ok(found),
    }
}

/// Builds and runs `libbpf_view.c`.
fn libbpf_views(
    objects: &[PathBuf],
    libbpf: Option<&Path>,
    kernel: bool,
) -> Result<Vec<View>, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (source, binary) = (
        dir.path().join("libbpf_view.c"),
        dir.path().join("libbpf_view"),
    );
    std::fs::write(&source, include_str!("libbpf_view.c")).map_err(|e| e.to_string())?;
    let mut gcc = Command::new("gcc");
    gcc.arg("-O1").arg(&source).arg("-o").arg(&binary);
    match libbpf {
        Some(dir) => gcc
            .arg("-I")
            .arg(dir.join("include"))
            .arg(dir.join("libbpf.a")),
        None => gcc.arg("-lbpf"),
    };
    gcc.args(["-lelf", "-lz", "-ldl"]);
    let status = gcc.status().map_err(|e| format!("gcc: {e}"))?;
    if !status.success() {
        return Err("gcc cannot build against libbpf (libbpf-dev, libelf-dev?)".into());
    }
    let mut views = Vec::with_capacity(objects.len());
    // One process for many objects, but a few, since a command line has its limits.
    for some in objects.chunks(256) {
        let output = Command::new(&binary)
            .args(kernel.then_some("--kernel"))
            .args(some)
            .output()
            .map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let last = text
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix("object\t"));
            let (status, last) = (output.status, last.unwrap_or("its start"));
            return Err(format!("this libbpf dies ({status}) of {last}"));
        }
        let parsed = parse(&text)?;
        if parsed.len() != some.len() {
            return Err(format!(
                "libbpf_view told {} objects of {}",
                parsed.len(),
                some.len()
            ));
        }
        views.extend(parsed);
    }
    Ok(views)
}

fn parse(text: &str) -> Result<Vec<View>, String> {
    let mut views = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match (fields.as_slice(), views.last_mut()) {
            (["libbpf", version], _) => println!("libbpf {version}"),
            (["object", _], _) => views.push(View::Lines(Vec::new())),
            (["error", errno, why], Some(view)) => {
                let errno = errno.parse().map_err(|_| format!("errno {errno}"))?;
                *view = View::Refused {
                    errno,
                    why: (*why).to_owned(),
                };
            }
            ([what @ ("map" | "inner"), name, rest @ ..], Some(View::Lines(lines))) => {
                let fields = format!("{what} {}", rest.join(" "));
                lines.push(Line {
                    fields,
                    ..Line::new(name)
                });
            }
            (
                [
                    "prog",
                    name,
                    section,
                    prog_type,
                    attach,
                    _flags,
                    autoload,
                    _errno,
                    why,
                    hex,
                    funcs,
                    lines,
                ],
                Some(View::Lines(so_far)),
            ) => {
                let fields = format!("prog {section} {prog_type} {attach} {autoload}");
                let linked = !UNLINKED.iter().any(|words| why.contains(words));
                let code = linked.then(|| unhex(hex)).flatten();
                let why = (*why).to_owned();
                let info = [funcs, lines].map(|info| info.trim_end().to_owned());
                so_far.push(Line {
                    fields,
                    code,
                    info,
                    why,
                    ..Line::new(name)
                });
            }
            _ => return Err(format!("libbpf_view printed {line:?}")),
        }
    }
    Ok(views)
}

fn unhex(text: &str) -> Option<Vec<[u8; 8]>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    let bytes = bytes?;
    let (slots, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| slots.to_vec())
}

impl Line {
    fn new(name: &str) -> Line {
        Line {
            name: name.to_owned(),
            fields: String::new(),
            code: None,
            ignored: HashMap::new(),
            info: Default::default(),
            why: String::new(),
        }
    }
}

fn kernel_btf() -> Result<Btf, String> {
    let bytes = std::fs::read(KERNEL_BTF).map_err(|e| format!("{KERNEL_BTF}: {e}"))?;
    Btf::parse(&bytes).map_err(|e| format!("{KERNEL_BTF}: {e}"))
}

/// CO-RE, externs and what else `bpf_object__load` does before it makes anything; a program that
/// cannot have them gets the reason.
fn apply_kernel(object: &mut Object, kernel: &Btf) {
    let modules = [];
    let core = object
        .relocate_core(kernel, &modules)
        .map_err(|e| e.to_string());
    let found: HashMap<_, _> = object
        .externs
        .iter()
        .map(|ext| (ext.name.clone(), object.find_extern(ext, kernel)))
        .collect();
    let wrong = found
        .values()
        .find_map(|found| found.as_ref().err().cloned());
    let externs = object.resolve_externs(|ext| match (&found[&ext.name], &ext.kind) {
        (_, ExternKind::Ksym { ty: None }) => Some(ExternValue::Address(0)),
        (Ok(Some(id)), _) => Some(ExternValue::Btf { id: *id, btf: 0 }),
        _ => None,
    });
    let externs = wrong.map_or(externs, Err);
    for (index, program) in object.programs.iter_mut().enumerate() {
        let core = match &core {
            Ok(report) => report.error(index).map(|e| e.to_string()),
            Err(e) => Some(e.clone()),
        };
        let why = core.or_else(|| externs.as_ref().err().map(|e| e.to_string()));
        if let (None, Some(why)) = (&program.link_error, why) {
            program.link_error = Some(Box::new(LoadErrorKind::BadCore(why).into()));
        }
    }
}

fn our_view(path: &Path, kernel: Option<&Btf>) -> Result<View, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = file.chars().take(15).collect();
    let name = name.split('.').next().unwrap_or_default().to_owned();
    let options = LoadOptions {
        name,
        ..LoadOptions::default()
    };
    Ok(match bpfsim_loader::load_with(&bytes, &options) {
        Ok(mut object) => {
            if let Some(kernel) = kernel {
                apply_kernel(&mut object, kernel);
            }
            View::Lines(lines(&object, kernel.is_some()))
        }
        Err(e) => refused(&e),
    })
}

fn refused(e: &LoadError) -> View {
    View::Refused {
        errno: e.errno() as i32,
        why: e.to_string(),
    }
}

fn lines(object: &Object, kernel: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for map in &object.maps {
        lines.push(map_line("map", map));
        lines.extend(map.inner.as_deref().map(|inner| map_line("inner", inner)));
    }
    lines.extend(
        object
            .programs
            .iter()
            .map(|program| prog_line(object, program, kernel)),
    );
    lines
}

fn map_line(what: &str, map: &MapDef) -> Line {
    let id = |id: Option<bpfsim_btf::TypeId>| id.map_or(0, |id| id.0);
    let alternate = |n: u64| {
        if n == 0 {
            "0".to_owned()
        } else {
            format!("{n:#x}")
        }
    };
    // A struct_ops map's value type is of the kernel's BTF; its own is not shown by libbpf either way.
    let mut fields = format!(
        "{what} {} {} {} {} {} {} {} {} {} {} {} ",
        map.map_type,
        map.key_size,
        map.value_size,
        map.max_entries,
        alternate(map.map_flags.into()),
        alternate(map.map_extra),
        map.numa_node,
        id(map.key_type),
        id(map.value_type),
        i32::from(map.pin_by_name),
        // libbpf leaves an inner map's flag unset.
        i32::from(map.autocreate && what == "map"),
    );
    if map.kind.is_internal() {
        let end = map
            .data
            .iter()
            .rposition(|&b| b != 0)
            .map_or(0, |last| last + 1);
        for byte in &map.data[..end] {
            let _ = write!(fields, "{byte:02x}");
        }
    }
    Line {
        fields,
        ..Line::new(&map.name)
    }
}

fn prog_line(object: &Object, program: &Program, kernel: bool) -> Line {
    let mut insns = program.insns.clone();
    let mut ignored = HashMap::new();
    for reloc in &program.relocs {
        let at = reloc.insn;
        match reloc.kind {
            // A map's descriptor is anybody's guess.
            RelocKind::MapFd { .. } | RelocKind::MapValue { .. } if kernel => {
                ignored.insert(at, Ignored::Imm);
            }
            RelocKind::MapFd { .. } => insns[at].set_src(PSEUDO_MAP_IDX),
            RelocKind::MapValue { .. } => insns[at].set_src(PSEUDO_MAP_IDX_VALUE),
            RelocKind::ExternVar { ext } => {
                let typeless = object.externs[ext].kind == ExternKind::Ksym { ty: None };
                if typeless || !kernel {
                    ignored.extend([(at, Ignored::Symbol), (at + 1, Ignored::Symbol)]);
                }
            }
            RelocKind::ExternCall { .. } if !kernel => {
                ignored.insert(at, Ignored::Symbol);
            }
            RelocKind::ExternCall { .. } | RelocKind::Func { .. } | RelocKind::Call { .. } => {}
        }
    }
    let funcs = program
        .funcs
        .iter()
        .filter_map(|f| Some(format!("{}:{}", f.start_insn, f.type_id?.0)));
    let lines = program
        .lines
        .iter()
        .map(|l| format!("{}:{}:{}", l.insn, l.line, l.col));
    let info = [
        funcs.collect::<Vec<_>>().join(" "),
        lines.collect::<Vec<_>>().join(" "),
    ];
    let code = insns.iter().map(|insn| insn.to_le_bytes()).collect();
    let spec = &program.spec;
    Line {
        fields: format!(
            "prog {} {} {} {}",
            program.section,
            spec.prog_type.number(),
            spec.attach_type.map_or(0, |t| t.number()),
            i32::from(program.autoload)
        ),
        code: program.link_error.is_none().then_some(code),
        ignored,
        info,
        why: program
            .link_error
            .as_ref()
            .map(|e| e.to_string())
            .unwrap_or_default(),
        ..Line::new(&program.name)
    }
}

#[derive(Default)]
struct Count {
    refused: usize,
    maps: usize,
    programs: usize,
    insns: usize,
    /// Lists of functions and of lines that libbpf tells.
    infos: usize,
    /// Programs that want what the running kernel does not have.
    unknown: usize,
    differences: usize,
}

impl Count {
    fn compare(&mut self, path: &Path, ours: &View, theirs: &View) {
        let path = path.display();
        match (ours, theirs) {
            (
                View::Refused {
                    errno: a,
                    why: ours,
                },
                View::Refused {
                    errno: b,
                    why: theirs,
                },
            ) => {
                self.refused += 1;
                if a != b {
                    self.differ(format!("{path}: errno {a} ({ours}), libbpf {b} ({theirs})"));
                }
            }
            (View::Refused { why, .. }, View::Lines(_)) => {
                self.differ(format!("{path}: refused ({why}), libbpf takes it"));
            }
            (View::Lines(_), View::Refused { why, .. }) => {
                self.differ(format!("{path}: taken, libbpf refuses it ({why})"));
            }
            (View::Lines(ours), View::Lines(theirs)) => {
                if ours.len() != theirs.len() {
                    let (a, b) = (ours.len(), theirs.len());
                    self.differ(format!("{path}: {a} maps and programs, libbpf {b}"));
                }
                for (ours, theirs) in ours.iter().zip(theirs) {
                    self.compare_lines(&path.to_string(), ours, theirs);
                }
            }
        }
    }

    fn compare_lines(&mut self, path: &str, ours: &Line, theirs: &Line) {
        match ours.fields.starts_with("prog") {
            true => self.programs += 1,
            false => self.maps += 1,
        }
        let who = format!("{path}: {}", ours.name);
        if ours.name != theirs.name || ours.fields != theirs.fields {
            self.differ(format!(
                "{who}: {}\n    libbpf {}: {}",
                ours.fields, theirs.name, theirs.fields
            ));
        }
        for ((ours, theirs), what) in ours
            .info
            .iter()
            .zip(&theirs.info)
            .zip(["functions", "lines"])
        {
            if !theirs.is_empty() && ours != theirs {
                self.differ(format!("{who}: {what} {ours}\n    libbpf {theirs}"));
            }
            self.infos += usize::from(!theirs.is_empty());
        }
        match (&ours.code, &theirs.code) {
            (Some(a), Some(b)) => {
                self.insns += a.len();
                if a.len() != b.len() {
                    self.differ(format!(
                        "{who}: {} instructions, libbpf {}",
                        a.len(),
                        b.len()
                    ));
                } else if let Some(at) = first_difference(a, b, &ours.ignored) {
                    let (a, b) = (a[at], b[at]);
                    self.differ(format!(
                        "{who}: instruction {at} is {a:02x?}, libbpf {b:02x?}"
                    ));
                }
            }
            (None, Some(_)) => self.differ(format!("{who}: {}, libbpf links it", ours.why)),
            // A kernel symbol's address: libbpf asks the running kernel even where nothing is loaded.
            (Some(_), None) if theirs.why.contains("(strong): not resolved") => self.unknown += 1,
            (Some(_), None) => self.differ(format!("{who}: linked, libbpf says {}", theirs.why)),
            (None, None) => {}
        }
    }

    fn differ(&mut self, what: String) {
        self.differences += 1;
        if self.differences <= SHOWN {
            println!("{what}");
        }
    }
}

fn first_difference(
    a: &[[u8; 8]],
    b: &[[u8; 8]],
    ignored: &HashMap<usize, Ignored>,
) -> Option<usize> {
    let mask = |at: usize, [code, regs, o0, o1, i0, i1, i2, i3]: [u8; 8]| match ignored.get(&at) {
        None => [code, regs, o0, o1, i0, i1, i2, i3],
        Some(Ignored::Imm) => [code, regs, o0, o1, 0, 0, 0, 0],
        Some(Ignored::Symbol) => [code, regs & 0x0f, 0, 0, 0, 0, 0, 0],
    };
    (0..a.len()).find(|&i| mask(i, a[i]) != mask(i, b[i]))
}
