//! `bpfsim disasm`: instructions in LLVM's syntax, with C lines.
//!
//! Without `--linked` it shows executable sections as they lie in the file; but for lines that start
//! with `;`, what it prints is what `llvm-objdump -d` prints.

use crate::inspect;
use crate::show;
use crate::{Outcome, Stop};
use bpfsim_isa::{Insn, Line, Style, disassemble};
use bpfsim_loader::{
    CodeSection, Global, LineInfo, Lines, Object, Program, RelocKind, code_sections,
};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The object, as a compiler made it.
    object: PathBuf,
    /// Programs as they are loaded: subprograms appended, maps numbered.
    #[arg(long)]
    linked: bool,
    /// Only this program (with --linked) or this section.
    #[arg(long)]
    only: Option<String>,
    /// The bytes of each instruction, too.
    #[arg(long)]
    raw: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Outcome, Stop> {
    let file = args.object.display().to_string();
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| only == name);
    let mut found = args.only.is_none();
    let output = Output {
        raw: args.raw,
        json: args.json,
    };
    if args.linked {
        let object = inspect::load(&args.object);
        let object = object.map_err(|e| Stop::unusable(format!("{file}: {}", e.message)))?;
        let mut globals: Vec<_> = object.globals().collect();
        globals.sort_by_key(|g| (g.map, g.offset));
        for program in object.programs.iter().filter(|p| wanted(&p.name)) {
            output.program(&object, &globals, program);
            found = true;
        }
    } else {
        let bytes =
            std::fs::read(&args.object).map_err(|e| Stop::unusable(format!("{file}: {e}")))?;
        let sections = code_sections(&bytes).map_err(|e| Stop::unusable(format!("{file}: {e}")))?;
        if !args.json {
            let name = args
                .object
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            show::line(&format!("\n{name}:\tfile format elf64-bpf"));
        }
        for section in sections.iter().filter(|s| wanted(&s.name)) {
            output.section(section);
            found = true;
        }
    }
    match found {
        true => Ok(Outcome::Fine),
        false => Err(Stop::unusable(format!("{file}: nothing of that name"))),
    }
}

struct Output {
    raw: bool,
    json: bool,
}

/// What is around one instruction.
struct Around<'a> {
    /// Where it lies: a section or a program.
    of: &'a str,
    /// Symbol and offset that a jump goes to.
    target: Option<String>,
    /// The C line that starts here.
    line: Option<LineInfo<'a>>,
    /// What the instruction refers to.
    refers: Vec<String>,
}

impl Output {
    fn section(&self, section: &CodeSection) {
        if !self.json {
            show::line(&format!("\nDisassembly of section {}:", section.name));
        }
        let mut labels = section.labels.iter().peekable();
        let mut relocs = section.relocs.iter().peekable();
        let mut lines = Cursor::new(&section.lines);
        for insn in disassemble(&section.insns, Style::OBJDUMP) {
            let offset = (insn.at * Insn::SIZE) as u64;
            let end = offset + (insn.len * Insn::SIZE) as u64;
            let mut here = None;
            while let Some(label) = labels.next_if(|label| label.offset <= offset) {
                here = Some(label).filter(|label| label.offset == offset);
            }
            if let Some(label) = here.filter(|_| !self.json) {
                show::line(&format!("\n{offset:016x} <{}>:", label.name));
            }
            let mut refers = Vec::new();
            while let Some(reloc) = relocs.next_if(|reloc| reloc.offset < end) {
                refers.push(reloc.symbol.clone());
            }
            let target = insn.op.as_ref().and_then(|op| op.jump_target(insn.at));
            let target = target
                .and_then(|slot| Some(section_target(section, u64::try_from(slot).ok()? * 8)));
            let line = lines.starting_within(insn.at, insn.at + insn.len);
            let around = Around {
                of: &section.name,
                target: target.flatten(),
                line,
                refers,
            };
            self.insn(&section.insns, &insn, &around);
        }
    }

    fn program(&self, object: &Object, globals: &[Global<'_>], program: &Program) {
        if !self.json {
            show::line(&format!(
                "\nProgram {} of section {}:",
                program.name, program.section
            ));
        }
        for e in program.link_error.iter().filter(|_| !self.json) {
            show::line(&format!("; cannot be linked: {e}"));
        }
        let mut lines = Cursor::new(&program.lines);
        for insn in disassemble(&program.insns, Style::EXACT) {
            if let Some(func) = program
                .funcs
                .iter()
                .find(|f| f.start_insn == insn.at && !self.json)
            {
                show::line(&format!("\n{:016x} <{}>:", insn.at * Insn::SIZE, func.name));
            }
            let target = insn.op.as_ref().and_then(|op| op.jump_target(insn.at));
            let target = target.and_then(|slot| {
                let slot = usize::try_from(slot).ok()?;
                let func = program.func_at(slot)?;
                Some(place(
                    &func.name,
                    ((slot - func.start_insn) * Insn::SIZE) as u64,
                ))
            });
            let refers = program
                .reloc_at(insn.at)
                .map(|r| refers_to(object, globals, program, r.kind));
            let core = &program.core_relos;
            let core = &core[core.partition_point(|r| r.insn < insn.at)..];
            let core = core.iter().take_while(|r| r.insn == insn.at);
            let core = core.map(|r| format!("core {}", r.record.kind.as_str()));
            let refers = refers.into_iter().chain(core).collect();
            let line = lines.starting_within(insn.at, insn.at + insn.len);
            let around = Around {
                of: &program.name,
                target,
                line,
                refers,
            };
            self.insn(&program.insns, &insn, &around);
        }
    }

    fn insn(&self, slots: &[Insn], insn: &Line, around: &Around<'_>) {
        let bytes = Insn::slots_to_le_bytes(&slots[insn.at..insn.at + insn.len]);
        if self.json {
            return show::json(&json_row(insn, around, &bytes));
        }
        if let Some(line) = &around.line {
            show::line(&format!(
                "; {}:{}: {}",
                line.file,
                line.line,
                line.text.trim()
            ));
        }
        for symbol in &around.refers {
            show::line(&format!("; -> {symbol}"));
        }
        let raw: String = bytes
            .iter()
            .filter(|_| self.raw)
            .map(|byte| format!("{byte:02x} "))
            .collect();
        let raw = if self.raw {
            format!("{}\t", raw.trim_end())
        } else {
            raw
        };
        let target = around
            .target
            .as_ref()
            .map(|t| format!(" <{t}>"))
            .unwrap_or_default();
        show::line(&format!("{:8}:\t{raw}{}{target}", insn.at, insn.text));
    }
}

fn json_row(insn: &Line, around: &Around<'_>, bytes: &[u8]) -> Value {
    let line = around.line.map(|line| {
        json!({"file": line.file, "line": line.line, "column": line.col, "text": line.text.trim()})
    });
    json!({
        "of": around.of, "insn": insn.at, "text": insn.text,
        "bytes": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "target": around.target, "refers": around.refers, "line": line,
    })
}

fn refers_to(
    object: &Object,
    globals: &[Global<'_>],
    program: &Program,
    kind: RelocKind,
) -> String {
    match kind {
        RelocKind::MapFd { map } => format!("map {}", object.maps[map].name),
        RelocKind::MapValue { map, off } => {
            let after = globals.partition_point(|g| (g.map, g.offset) <= (map, off));
            let global = after.checked_sub(1).map(|i| &globals[i]);
            match global.filter(|g| g.map == map && off - g.offset < g.size.max(1)) {
                Some(g) => place(g.name, (off - g.offset).into()),
                None => place(&object.maps[map].name, off.into()),
            }
        }
        RelocKind::Func { insn } | RelocKind::Call { insn } => program
            .func_at(insn)
            .map_or_else(|| "<?>".to_owned(), |f| f.name.clone()),
        RelocKind::ExternVar { ext } | RelocKind::ExternCall { ext } => {
            object.externs[ext].name.clone()
        }
    }
}

fn section_target(section: &CodeSection, offset: u64) -> Option<String> {
    let label = section.label_before(offset)?;
    Some(place(&label.name, offset - label.offset))
}

/// `symbol` or `symbol+0x10`.
fn place(symbol: &str, offset: u64) -> String {
    match offset {
        0 => symbol.to_owned(),
        _ => format!("{symbol}+{offset:#x}"),
    }
}

/// Walks lines as instructions go by; a line is given once, until another follows.
struct Cursor<'a> {
    lines: &'a Lines,
    last: Option<(&'a str, u32)>,
}

impl<'a> Cursor<'a> {
    fn new(lines: &'a Lines) -> Cursor<'a> {
        Cursor { lines, last: None }
    }

    fn starting_within(&mut self, from: usize, to: usize) -> Option<LineInfo<'a>> {
        let line = self.lines.at(to - 1).filter(|line| line.insn >= from)?;
        let place = Some((line.file, line.line));
        let is_new = place != self.last;
        self.last = place;
        is_new.then_some(line)
    }
}
