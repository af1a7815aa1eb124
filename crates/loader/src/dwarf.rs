//! C lines from DWARF, for objects that have no `.BTF.ext`.
//!
//! Only `.debug_line` is read, from its first program to its last. Whatever is wrong with it costs
//! lines, not the object: libbpf does not look at DWARF at all.

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LineRow, LittleEndian};

use crate::elf::Elf;
use crate::lines::LineRecord;

/// Rows that are kept.
const MAX_ROWS: usize = 1 << 20;
/// Bytes of file names that are kept, and of one of them.
const MAX_NAMES: usize = 4 << 20;
const MAX_NAME: usize = 4096;
/// A section's index is kept above an instruction's offset in one address.
const SECTION_SHIFT: u32 = 40;

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// Lines by ELF section and instruction.
#[derive(Default)]
pub(crate) struct LineTable {
    files: Arc<[String]>,
    rows: HashMap<usize, Vec<LineRecord>>,
}

impl LineTable {
    pub(crate) fn files(&self) -> Arc<[String]> {
        Arc::clone(&self.files)
    }

    /// Lines of a function; their instructions count from the section's start.
    pub(crate) fn of(&self, section: usize, start: usize, len: usize) -> &[LineRecord] {
        let Some(rows) = self.rows.get(&section) else {
            return &[];
        };
        let from = rows.partition_point(|r| (r.insn as usize) < start);
        let to = rows.partition_point(|r| (r.insn as usize) < start + len);
        &rows[from..to]
    }
}

/// Reads what there is.
pub(crate) fn line_table(elf: &Elf<'_>) -> LineTable {
    let Some(line) = relocated(elf, ".debug_line") else {
        return LineTable::default();
    };
    let strings = [".debug_line_str", ".debug_str"].map(|name| section(elf, name));
    let mut reader = Reader {
        strings: strings.map(|s| EndianSlice::new(s, LittleEndian)),
        files: Vec::new(),
        by_name: HashMap::new(),
        names: 0,
        rows: HashMap::new(),
        count: 0,
    };
    let _broken = reader.read(&line);
    let mut rows = reader.rows;
    for rows in rows.values_mut() {
        rows.sort_by_key(|row| row.insn);
        // Of rows at one instruction the last is the one that it belongs to.
        rows.reverse();
        rows.dedup_by_key(|row| row.insn);
        rows.reverse();
        rows.dedup_by(|b, a| (a.file, a.line, a.col) == (b.file, b.line, b.col));
    }
    LineTable {
        files: reader.files.into(),
        rows,
    }
}

fn section<'a>(elf: &Elf<'a>, name: &str) -> &'a [u8] {
    elf.find_section(name)
        .and_then(|i| elf.data(i).ok())
        .unwrap_or_default()
}

/// A section's bytes with its relocations applied: addresses of code become
/// `section << SECTION_SHIFT | offset`.
fn relocated(elf: &Elf<'_>, name: &str) -> Option<Vec<u8>> {
    let index = elf.find_section(name)?;
    let mut bytes = elf.data(index).ok()?.to_vec();
    let rels = elf.find_section(&format!(".rel{name}"));
    let rels = rels.filter(|&rels| elf.section(rels).is_ok_and(|s| s.info == index));
    for rel in rels
        .into_iter()
        .flat_map(|rels| elf.rels(rels).into_iter().flatten())
    {
        let Some(symbol) = elf.symbol(rel.symbol) else {
            continue;
        };
        let offset = usize::try_from(rel.offset).unwrap_or(usize::MAX);
        // LLVM's R_BPF_64_64, ABS64, ABS32, NODYLD32 and 64_32; GNU's R_BPF_DATA_64 and DATA_32.
        let (len, base) = match rel.kind {
            1 | 2 | 12 => (8, (symbol.section as u64) << SECTION_SHIFT),
            3 | 4 | 10 | 11 => (4, 0),
            _ => continue,
        };
        let Some(place) = offset
            .checked_add(len)
            .and_then(|end| bytes.get_mut(offset..end))
        else {
            continue;
        };
        let mut word = [0; 8];
        word[..len].copy_from_slice(place);
        let value = u64::from_le_bytes(word)
            .wrapping_add(symbol.value)
            .wrapping_add(base);
        place.copy_from_slice(&value.to_le_bytes()[..len]);
    }
    Some(bytes)
}

struct Reader<'d> {
    /// `.debug_line_str` and `.debug_str`.
    strings: [Slice<'d>; 2],
    files: Vec<String>,
    by_name: HashMap<String, u32>,
    names: usize,
    rows: HashMap<usize, Vec<LineRecord>>,
    count: usize,
}

impl Reader<'_> {
    /// One program after the other, so that no two units can ask for the same one.
    fn read(&mut self, line: &[u8]) -> gimli::Result<()> {
        let section = DebugLine::new(line, LittleEndian);
        let mut at = 0usize;
        while at < line.len() && self.count < MAX_ROWS {
            let program = section.program(DebugLineOffset(at), 8, None, None)?;
            let header = program.header();
            let length_size = match header.format() {
                gimli::Format::Dwarf32 => 4,
                gimli::Format::Dwarf64 => 12,
            };
            let next = at
                .saturating_add(header.unit_length())
                .saturating_add(length_size);
            let mut files: HashMap<u64, u32> = HashMap::new();
            let mut rows = program.rows();
            while let Some((header, row)) = rows.next_row()? {
                if self.count >= MAX_ROWS {
                    break;
                }
                self.count += 1;
                // Line 0 is of no line: what is before it goes on, as in .BTF.ext.
                if !row.end_sequence() && row.line().is_some() {
                    let file = *files.entry(row.file_index()).or_insert_with(|| {
                        let name = self.file_name(header, row).unwrap_or_default();
                        self.intern(name)
                    });
                    self.add(row, file);
                }
            }
            at = next.max(at + 1);
        }
        Ok(())
    }

    fn add(&mut self, row: &LineRow, file: u32) {
        let section = (row.address() >> SECTION_SHIFT) as usize;
        let offset = row.address() & ((1 << SECTION_SHIFT) - 1);
        let column = match row.column() {
            gimli::ColumnType::LeftEdge => 0,
            gimli::ColumnType::Column(n) => n.get(),
        };
        let small = |n: u64| u32::try_from(n).unwrap_or(0);
        self.rows.entry(section).or_default().push(LineRecord {
            insn: small(offset / 8),
            file,
            text: 0,
            line: row.line().map_or(0, |n| small(n.get())),
            col: small(column),
        });
    }

    /// Directory and name, as the compiler was given them.
    fn file_name(
        &self,
        header: &gimli::LineProgramHeader<Slice<'_>>,
        row: &LineRow,
    ) -> Option<String> {
        let file = row.file(header)?;
        let name = self.text(file.path_name())?;
        let directory = file.directory(header).and_then(|d| self.text(d));
        Some(match directory {
            Some(directory) if !name.starts_with('/') && !directory.is_empty() => {
                format!("{directory}/{name}")
            }
            _ => name,
        })
    }

    fn text(&self, value: AttributeValue<Slice<'_>>) -> Option<String> {
        let at = |slice: Slice<'_>, offset: usize| {
            let tail = slice.slice().get(offset..)?;
            let tail = &tail[..tail.len().min(MAX_NAME)];
            let end = tail.iter().position(|&b| b == 0)?;
            Some(String::from_utf8_lossy(&tail[..end]).into_owned())
        };
        match value {
            AttributeValue::String(s) => {
                let bytes = &s.slice()[..s.slice().len().min(MAX_NAME)];
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            AttributeValue::DebugLineStrRef(offset) => at(self.strings[0], offset.0),
            AttributeValue::DebugStrRef(offset) => at(self.strings[1], offset.0),
            _ => None,
        }
    }

    fn intern(&mut self, name: String) -> u32 {
        if let Some(&index) = self.by_name.get(&name) {
            return index;
        }
        self.names += name.len();
        if self.names > MAX_NAMES {
            return u32::MAX;
        }
        let index = self.files.len() as u32;
        self.files.push(name.clone());
        self.by_name.insert(name, index);
        index
    }
}
