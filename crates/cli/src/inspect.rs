//! `bpfsim inspect`: what an object holds.

use crate::show;
use crate::{Outcome, Stop};
use bpfsim_abi::MapType;
use bpfsim_btf::{Btf, Kind, TypeId, display};
use bpfsim_loader::{
    CoreReloc, Extern, ExternKind, Global, LoadOptions, MapDef, MapKind, Object, Program, Reloc,
    RelocKind, SlotValue,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The objects, as a compiler made them.
    #[arg(required = true)]
    objects: Vec<PathBuf>,
    /// All types that BTF defines, not only those of maps and variables.
    #[arg(long)]
    types: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Values of variables that are shown are at most this long.
const MAX_VALUE: u32 = 4096;

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let mut outcome = Outcome::Fine;
    for path in &args.objects {
        let file = path.display().to_string();
        match load(path) {
            Ok(object) if args.json => {
                let rows = rows(&object, args.types);
                rows.into_iter()
                    .for_each(|row| show::json(&of_file(&file, row)));
            }
            Ok(object) => print(&file, &object, args.types),
            Err(e) => {
                outcome = Outcome::Unusable;
                if args.json {
                    let error = json!({"what": "error", "message": e.message, "errno": e.errno});
                    show::json(&of_file(&file, error));
                } else {
                    show::error(&format!("{file}: {}", e.message));
                }
            }
        }
    }
    Ok(outcome)
}

/// An object that cannot be had.
pub struct Unreadable {
    pub message: String,
    /// libbpf's errno; null where the file itself cannot be read.
    errno: Option<i32>,
}

/// Reads and opens a file; its name up to the first dot is the object's, as in libbpf.
pub fn load(path: &Path) -> Result<Object, Unreadable> {
    let unread = |e: std::io::Error| Unreadable {
        message: e.to_string(),
        errno: e.raw_os_error(),
    };
    let bytes = std::fs::read(path).map_err(unread)?;
    let file = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name: String = file.chars().take(15).collect();
    let name = name.split('.').next().unwrap_or_default().to_owned();
    let options = LoadOptions {
        name,
        ..LoadOptions::default()
    };
    bpfsim_loader::load_with(&bytes, &options).map_err(|e| Unreadable {
        message: e.to_string(),
        errno: Some(e.errno() as i32),
    })
}

fn of_file(file: &str, mut row: Value) -> Value {
    row["file"] = json!(file);
    row
}

/// One object of JSON for each thing in it.
fn rows(object: &Object, types: bool) -> Vec<Value> {
    let mut rows = vec![json!({
        "what": "object", "license": object.license, "kern_version": object.kern_version,
        "programs": object.programs.len(), "maps": object.maps.len(),
        "externs": object.externs.len(),
        "skipped_sections": object.skipped.iter().map(|(name, size)| json!({"name": name, "size": size})).collect::<Vec<_>>(),
    })];
    rows.extend(object.programs.iter().map(program_row));
    for map in &object.maps {
        rows.push(map_row(object, map, "map"));
        rows.extend(
            map.inner
                .as_deref()
                .map(|inner| map_row(object, inner, "inner_map")),
        );
    }
    rows.extend(object.globals().map(|global| global_row(object, &global)));
    rows.extend(object.externs.iter().map(|ext| extern_row(object, ext)));
    for program in &object.programs {
        rows.extend(
            program
                .relocs
                .iter()
                .map(|reloc| reloc_row(object, program, reloc)),
        );
        rows.extend(
            program
                .core_relos
                .iter()
                .map(|relo| core_row(object, program, relo)),
        );
    }
    rows.extend(
        shown_types(object, types)
            .into_iter()
            .filter_map(|id| type_row(object, id)),
    );
    rows
}

fn program_row(program: &Program) -> Value {
    let funcs = program.funcs.iter().map(|func| {
        json!({"name": func.name, "insn": func.start_insn, "global": func.global, "type_id": func.type_id.map(|id| id.0)})
    });
    json!({
        "what": "program", "name": program.name, "section": program.section,
        "prog_type": program.spec.prog_type.name(),
        "attach_type": program.spec.attach_type.map(|t| t.name()),
        "sleepable": program.spec.sleepable(), "autoload": program.autoload,
        "insns": program.insns.len(), "main_insns": program.main_len,
        "functions": funcs.collect::<Vec<_>>(),
        "lines": program.lines.len(), "relocations": program.relocs.len(),
        "core_relocations": program.core_relos.len(),
        "exception_callback": program.exception_cb.and_then(|i| Some(program.funcs.get(i)?.name.as_str())),
        "error": program.link_error.as_ref().map(|e| e.to_string()),
    })
}

fn kind_name(kind: MapKind) -> &'static str {
    match kind {
        MapKind::User => "user",
        MapKind::Data => "data",
        MapKind::Rodata => "rodata",
        MapKind::Bss => "bss",
        MapKind::Kconfig => "kconfig",
        MapKind::StructOps => "struct_ops",
    }
}

fn map_type_name(map: &MapDef) -> String {
    match MapType::from_u32(map.map_type) {
        Some(known) => known.name().to_owned(),
        None => map.map_type.to_string(),
    }
}

fn map_row(object: &Object, map: &MapDef, what: &str) -> Value {
    let c_type = |id: Option<TypeId>| id.and_then(|id| c_name(object, id));
    let values = map.values.iter().map(|slot| match slot.value {
        SlotValue::Map(map) => json!({"key": slot.key, "map": object.maps[map].name}),
        SlotValue::Program(prog) => json!({"key": slot.key, "program": object.programs[prog].name}),
    });
    json!({
        "what": what, "name": map.name, "section": map.section, "kind": kind_name(map.kind),
        "type": map_type_name(map), "key_size": map.key_size, "value_size": map.value_size,
        "max_entries": map.max_entries, "map_flags": map.map_flags, "map_extra": map.map_extra,
        "numa_node": map.numa_node, "pin_by_name": map.pin_by_name, "autocreate": map.autocreate,
        "key": c_type(map.key_type), "value": c_type(map.value_type),
        "values": values.collect::<Vec<_>>(),
        "struct_ops": map.struct_ops.as_ref().map(|ops| json!({
            "type": ops.type_name, "link": ops.link,
            "programs": ops.progs.iter().map(|&(member, prog)| json!({
                "member": member_name(object, ops.type_id, member), "program": object.programs[prog].name,
            })).collect::<Vec<_>>(),
        })),
    })
}

fn member_name(object: &Object, id: TypeId, member: usize) -> Option<&str> {
    let composite = object.btf.as_deref()?.ty(id)?.composite()?;
    Some(composite.members.get(member)?.name)
}

fn global_row(object: &Object, global: &Global<'_>) -> Value {
    json!({
        "what": "global", "name": global.name, "map": object.maps[global.map].name,
        "offset": global.offset, "size": global.size, "static": !global.global,
        "type": c_name(object, global.ty), "value": global_value(object, global),
    })
}

/// A variable's initial value as bpftool would write it; none where it is too long.
fn global_value(object: &Object, global: &Global<'_>) -> Option<String> {
    let btf = object.btf.as_deref().filter(|_| global.size <= MAX_VALUE)?;
    let data = &object.maps[global.map].data;
    let start = global.offset as usize;
    let mut bytes = data.get(start..).unwrap_or_default().to_vec();
    bytes.resize(global.size as usize, 0);
    Some(display::value(btf, global.ty, &bytes).ok()?.text())
}

fn extern_row(object: &Object, ext: &Extern) -> Value {
    let (kind, ty, size) = match &ext.kind {
        ExternKind::Ksym { ty } => ("ksym", ty.and_then(|ty| c_name(object, ty)), None),
        ExternKind::Kfunc { proto } => ("kfunc", declare(object, *proto, &ext.name), None),
        ExternKind::Kconfig { size, .. } => ("kconfig", None, Some(*size)),
    };
    json!({"what": "extern", "name": ext.name, "kind": kind, "weak": ext.weak, "type": ty, "size": size})
}

fn reloc_row(object: &Object, program: &Program, reloc: &Reloc) -> Value {
    let (kind, symbol, offset) = target(object, program, reloc.kind);
    json!({
        "what": "relocation", "program": program.name, "insn": reloc.insn, "kind": kind,
        "symbol": symbol, "offset": offset,
    })
}

/// What a relocation names: its kind, the symbol, and the offset in it or its instruction.
fn target<'o>(
    object: &'o Object,
    program: &'o Program,
    kind: RelocKind,
) -> (&'static str, &'o str, Option<u64>) {
    let func = |insn: usize| program.func_at(insn).map_or("<?>", |f| f.name.as_str());
    match kind {
        RelocKind::MapFd { map } => ("map", &object.maps[map].name, None),
        RelocKind::MapValue { map, off } => ("map_value", &object.maps[map].name, Some(off.into())),
        RelocKind::Func { insn } => ("func", func(insn), Some(insn as u64)),
        RelocKind::Call { insn } => ("call", func(insn), Some(insn as u64)),
        RelocKind::ExternVar { ext } => ("ksym", &object.externs[ext].name, None),
        RelocKind::ExternCall { ext } => ("kfunc", &object.externs[ext].name, None),
    }
}

fn core_row(object: &Object, program: &Program, relo: &CoreReloc) -> Value {
    let record = relo.record;
    let btf = object.btf.as_deref();
    json!({
        "what": "core_relocation", "program": program.name, "insn": relo.insn,
        "kind": record.kind.as_str(), "type": c_name(object, record.type_id),
        "access": btf.and_then(|btf| btf.string(record.access_str_off)),
    })
}

/// Ids of all types that C defines, or only those that maps and variables hold.
fn shown_types(object: &Object, all: bool) -> Vec<TypeId> {
    let Some(btf) = object.btf.as_deref() else {
        return Vec::new();
    };
    let defines = |id: TypeId| {
        let ty = btf.ty(id);
        let kinds = [
            Kind::Struct,
            Kind::Union,
            Kind::Enum,
            Kind::Enum64,
            Kind::Typedef,
        ];
        ty.is_some_and(|ty| kinds.contains(&ty.kind()) && !ty.name().is_empty())
    };
    if all {
        return btf
            .iter()
            .map(|(id, _)| id)
            .filter(|&id| defines(id))
            .collect();
    }
    let maps = object
        .maps
        .iter()
        .flat_map(|map| [Some(map), map.inner.as_deref()])
        .flatten();
    let of_maps = maps
        .flat_map(|map| [map.key_type, map.value_type])
        .flatten();
    let mut ids: Vec<_> = of_maps
        .chain(object.globals().map(|g| g.ty))
        .filter(|&id| defines(id))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn type_row(object: &Object, id: TypeId) -> Option<Value> {
    let btf = object.btf.as_deref()?;
    let ty = btf.ty(id)?;
    Some(json!({
        "what": "type", "id": id.0, "kind": ty.kind().as_str(), "name": ty.name(),
        "size": btf.size_of(id).ok(), "definition": display::definition(btf, id).ok(),
    }))
}

fn declare(object: &Object, id: TypeId, name: &str) -> Option<String> {
    let btf: &Btf = object.btf.as_deref()?;
    match btf.ty(id)?.kind() {
        Kind::Datasec => Some(btf.name_of(id).to_owned()),
        _ => display::declaration(btf, id, name).ok(),
    }
}

fn c_name(object: &Object, id: TypeId) -> Option<String> {
    declare(object, id, "")
}

/// The same for people.
fn print(file: &str, object: &Object, types: bool) {
    let version = object
        .kern_version
        .map(|v| format!(", version {v:#x}"))
        .unwrap_or_default();
    show::line(&format!("{file}: license \"{}\"{version}", object.license));
    section("programs", object.programs.iter().map(program_line));
    section(
        "maps",
        object.maps.iter().flat_map(|map| map_lines(object, map)),
    );
    section("globals", object.globals().map(|g| global_line(object, &g)));
    section(
        "externs",
        object.externs.iter().map(|ext| extern_line(object, ext)),
    );
    let relocs = object.programs.iter().flat_map(|program| {
        let plain = program
            .relocs
            .iter()
            .map(move |reloc| reloc_line(object, program, reloc));
        let core = program
            .core_relos
            .iter()
            .map(move |relo| core_line(object, program, relo));
        plain.chain(core)
    });
    section("relocations", relocs);
    let btf = object.btf.as_deref();
    let definitions = shown_types(object, types).into_iter().filter_map(|id| {
        Some(format!(
            "{};",
            display::definition(btf?, id).ok()?.replace('\n', "\n  ")
        ))
    });
    section("types", definitions);
}

fn section(title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        show::heading(title);
        lines.for_each(|line| show::line(&format!("  {line}")));
    }
}

fn program_line(program: &Program) -> String {
    let spec = &program.spec;
    let attach = spec
        .attach_type
        .map(|t| format!("/{}", t.name()))
        .unwrap_or_default();
    let mut line = format!(
        "{}  SEC(\"{}\") {}{attach}, {} instructions",
        program.name,
        program.section,
        spec.prog_type.name(),
        program.insns.len()
    );
    if program.funcs.len() > 1 {
        let subprogs: Vec<_> = program.funcs[1..].iter().map(|f| f.name.as_str()).collect();
        line += &format!(" with {}", subprogs.join(", "));
    }
    for (holds, what) in [
        (spec.sleepable(), ", sleepable"),
        (!program.autoload, ", not loaded by default"),
    ] {
        line += if holds { what } else { "" };
    }
    if let Some(e) = &program.link_error {
        line += &format!("\n    cannot be linked: {e}");
    }
    line
}

fn map_lines(object: &Object, map: &MapDef) -> Vec<String> {
    let c_type = |id: Option<TypeId>| {
        id.and_then(|id| c_name(object, id))
            .map(|name| format!(" ({name})"))
            .unwrap_or_default()
    };
    let mut line = format!(
        "{}  {}, key {}{}, value {}{}, {} entries",
        map.name,
        map_type_name(map),
        map.key_size,
        c_type(map.key_type),
        map.value_size,
        c_type(map.value_type),
        map.max_entries
    );
    if map.map_flags != 0 {
        line += &format!(", flags {:#x}", map.map_flags);
    }
    if map.numa_node != 0 {
        line += &format!(", node {}", map.numa_node);
    }
    if map.map_extra != 0 {
        line += &format!(", extra {:#x}", map.map_extra);
    }
    for (holds, what) in [
        (map.pin_by_name, ", pinned by name"),
        (!map.autocreate, ", not made by default"),
    ] {
        line += if holds { what } else { "" };
    }
    let mut lines = vec![line];
    for slot in &map.values {
        lines.push(match slot.value {
            SlotValue::Map(map) => format!("  [{}] = map {}", slot.key, object.maps[map].name),
            SlotValue::Program(prog) => {
                format!("  [{}] = program {}", slot.key, object.programs[prog].name)
            }
        });
    }
    if let Some(ops) = &map.struct_ops {
        lines.extend(ops.progs.iter().map(|&(member, prog)| {
            let member = member_name(object, ops.type_id, member).unwrap_or("<?>");
            format!("  .{member} = {}", object.programs[prog].name)
        }));
    }
    let inner = map.inner.iter().flat_map(|inner| map_lines(object, inner));
    lines.extend(inner.map(|line| format!("  {line}")));
    lines
}

fn global_line(object: &Object, global: &Global<'_>) -> String {
    let map = &object.maps[global.map].name;
    let declared = declare(object, global.ty, global.name);
    let declared = declared.unwrap_or_else(|| global.name.to_owned());
    let storage = if global.global { "" } else { "static " };
    let value = global_value(object, global).filter(|v| v.len() <= 60 && !v.contains('\n'));
    let value = value.map(|v| format!(" = {v}")).unwrap_or_default();
    format!("{map}+{:#x}  {storage}{declared}{value}", global.offset)
}

fn extern_line(object: &Object, ext: &Extern) -> String {
    let weak = if ext.weak { ", weak" } else { "" };
    match &ext.kind {
        ExternKind::Ksym { ty: None } => format!("{}  ksym without a type{weak}", ext.name),
        ExternKind::Ksym { ty: Some(ty) } => {
            format!(
                "{}  ksym{weak}: {}",
                ext.name,
                c_name(object, *ty).unwrap_or_default()
            )
        }
        ExternKind::Kfunc { proto } => {
            format!(
                "{}  kfunc{weak}: {}",
                ext.name,
                declare(object, *proto, &ext.name).unwrap_or_default()
            )
        }
        ExternKind::Kconfig { size, .. } => format!("{}  kconfig, {size} bytes{weak}", ext.name),
    }
}

fn reloc_line(object: &Object, program: &Program, reloc: &Reloc) -> String {
    let (kind, symbol, offset) = target(object, program, reloc.kind);
    let offset = offset
        .map(|n| format!("+{n:#x}"))
        .filter(|_| kind == "map_value")
        .unwrap_or_default();
    format!("{}:{}  {kind} {symbol}{offset}", program.name, reloc.insn)
}

fn core_line(object: &Object, program: &Program, relo: &CoreReloc) -> String {
    let row = core_row(object, program, relo);
    let text = |key: &str| row[key].as_str().unwrap_or("<?>").to_owned();
    format!(
        "{}:{}  core {} {} {}",
        program.name,
        relo.insn,
        text("kind"),
        text("type"),
        text("access")
    )
}
