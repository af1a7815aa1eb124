//! Executable sections as they are in the file, before anything is linked: what a disassembler shows.

use std::sync::Arc;

use bpfsim_btf::{Btf, BtfExt};
use bpfsim_isa::Insn;

use crate::dwarf;
use crate::elf::{Elf, SHT_PROGBITS, SHT_REL, STT_FILE, STT_FUNC, STT_SECTION};
use crate::error::{LoadError, LoadErrorKind as K};
use crate::lines::{LineRecord, Lines};
use crate::open::{Budget, MAX_SECTION_INSNS};

/// A section of instructions.
#[derive(Clone, Debug)]
pub struct CodeSection {
    /// Name, with the `?` of `SEC("?...")`.
    pub name: String,
    /// Its slots; bytes that do not fill one are left out.
    pub insns: Vec<Insn>,
    /// Symbols in it, by place.
    pub labels: Vec<Label>,
    /// Relocations of it, by place.
    pub relocs: Vec<CodeReloc>,
    /// C lines, by instruction.
    pub lines: Lines,
}

/// A symbol of a section of instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Name.
    pub name: String,
    /// Bytes from the section's start.
    pub offset: u64,
    /// Bytes that it takes.
    pub size: u64,
    /// Whether it is a function, and not a place within one.
    pub is_func: bool,
}

/// A relocation, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeReloc {
    /// Bytes from the section's start.
    pub offset: u64,
    /// The symbol's name, or its section's.
    pub symbol: String,
    /// `R_BPF_*`.
    pub kind: u32,
}

impl CodeSection {
    /// The symbol at or before an offset.
    pub fn label_before(&self, offset: u64) -> Option<&Label> {
        let after = self.labels.partition_point(|label| label.offset <= offset);
        self.labels.get(after.checked_sub(1)?)
    }
}

/// All executable sections, in the file's order.
///
/// # Errors
/// A file that is no BPF object, or sections and symbols that cannot be read. Broken BTF costs C
/// lines only.
pub fn code_sections(bytes: &[u8]) -> Result<Vec<CodeSection>, LoadError> {
    let elf = Elf::parse(bytes)?;
    let mut budget = Budget::new(bytes.len());
    let mut place = vec![None; elf.section_count()];
    let mut sections = Vec::new();
    let mut left = MAX_SECTION_INSNS;
    for (index, place) in place.iter_mut().enumerate().skip(1) {
        let section = elf.section(index)?;
        if section.kind != SHT_PROGBITS || !section.is_code() || section.size == 0 {
            continue;
        }
        let (slots, _) = elf.data(index)?.as_chunks::<{ Insn::SIZE }>();
        left = left.checked_sub(slots.len()).ok_or_else(|| {
            let limit = MAX_SECTION_INSNS as u64;
            K::TooLarge {
                what: "instructions",
                limit,
            }
            .in_section(section.name)
        })?;
        *place = Some(sections.len());
        sections.push(CodeSection {
            name: budget.name(section.name)?,
            insns: slots
                .iter()
                .map(|slot| Insn::from_le_bytes(*slot))
                .collect(),
            labels: Vec::new(),
            relocs: Vec::new(),
            lines: Lines::default(),
        });
    }
    add_labels(&elf, &mut budget, &place, &mut sections)?;
    add_relocs(&elf, &mut budget, &place, &mut sections)?;
    add_lines(&elf, &place, &mut sections);
    Ok(sections)
}

fn add_labels(
    elf: &Elf<'_>,
    budget: &mut Budget,
    place: &[Option<usize>],
    sections: &mut [CodeSection],
) -> Result<(), LoadError> {
    for symbol in elf.symbols() {
        let Some(&Some(index)) = place.get(symbol.section) else {
            continue;
        };
        if symbol.kind == STT_SECTION || symbol.kind == STT_FILE {
            continue;
        }
        let name = elf.symbol_name(&symbol)?;
        if !name.is_empty() {
            sections[index].labels.push(Label {
                name: budget.name(name)?,
                offset: symbol.value,
                size: symbol.size,
                is_func: symbol.kind == STT_FUNC,
            });
        }
    }
    for section in sections {
        // At one place the last by name is the one that llvm-objdump shows.
        section
            .labels
            .sort_by(|a, b| a.offset.cmp(&b.offset).then_with(|| a.name.cmp(&b.name)));
    }
    Ok(())
}

fn add_relocs(
    elf: &Elf<'_>,
    budget: &mut Budget,
    place: &[Option<usize>],
    sections: &mut [CodeSection],
) -> Result<(), LoadError> {
    for index in 1..elf.section_count() {
        let section = elf.section(index)?;
        let Some(&Some(target)) = place.get(section.info) else {
            continue;
        };
        if section.kind != SHT_REL {
            continue;
        }
        for rel in elf.rels(index)? {
            let symbol = elf.symbol(rel.symbol);
            sections[target].relocs.push(CodeReloc {
                offset: rel.offset,
                symbol: budget.name(symbol.map_or("<?>", |s| elf.describe(&s)))?,
                kind: rel.kind,
            });
        }
    }
    for section in sections {
        section.relocs.sort_by_key(|reloc| reloc.offset);
    }
    Ok(())
}

/// From `.BTF.ext`, or from DWARF where that has no lines.
fn add_lines(elf: &Elf<'_>, place: &[Option<usize>], sections: &mut [CodeSection]) {
    let blob = |name| {
        elf.find_section(name)
            .and_then(|index| elf.data(index).ok())
    };
    let btf = blob(".BTF")
        .and_then(|bytes| Btf::parse(bytes).ok())
        .map(Arc::new);
    let ext = btf.as_deref().zip(blob(".BTF.ext"));
    let ext = ext.and_then(|(btf, bytes)| BtfExt::parse(bytes, btf).ok());
    let lines = ext.map(|ext| ext.line_info).unwrap_or_default();
    if let (Some(btf), false) = (btf, lines.is_empty()) {
        for of_section in lines {
            let index = elf.find_section(&of_section.section).and_then(|i| place[i]);
            let Some(index) = index else { continue };
            let mut records: Vec<LineRecord> =
                of_section.records.iter().map(LineRecord::of).collect();
            records.sort_by_key(|r| r.insn);
            sections[index].lines = Lines::from_btf(Arc::clone(&btf), records);
        }
        return;
    }
    let table = dwarf::line_table(elf);
    for (section, index) in place.iter().enumerate() {
        if let Some(index) = *index {
            let len = sections[index].insns.len();
            let records = table.of(section, 0, len).to_vec();
            sections[index].lines = Lines::from_files(table.files(), records);
        }
    }
}
