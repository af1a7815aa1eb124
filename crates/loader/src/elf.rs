//! The ELF container: sections, symbols and relocations of an untrusted little-endian file.
//!
//! Names and contents are looked at when they are asked for, as libelf does it: what nobody asks
//! for may be broken.

use std::collections::HashMap;

use object::elf;
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{LittleEndian, ReadRef};

use crate::error::{LoadError, LoadErrorKind as K};

type Header = elf::FileHeader64<LittleEndian>;
type Shdr = elf::SectionHeader64<LittleEndian>;

/// Longest name that is read: a limit is needed, since many may share one string of megabytes.
const MAX_NAME_LEN: usize = 4096;
/// Sections that are looked at.
const MAX_SECTIONS: usize = 1 << 20;

/// A parsed file.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    sections: &'a [Shdr],
    /// Contents of the table of sections' names.
    section_names: &'a [u8],
    symbols: &'a [elf::Sym64<LittleEndian>],
    symbol_names: &'a [u8],
    /// Index of the symbol table.
    pub(crate) symtab: usize,
    /// First section of each name.
    by_name: HashMap<&'a str, usize>,
}

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    pub(crate) name: u32,
    /// `st_shndx`, reserved numbers included.
    pub(crate) section: usize,
    pub(crate) value: u64,
    pub(crate) size: u64,
    pub(crate) kind: elf::SymbolType,
    pub(crate) bind: elf::SymbolBind,
    pub(crate) visibility: elf::SymbolVisibility,
}

impl Symbol {
    /// `sym_is_extern`.
    pub(crate) fn is_extern(&self) -> bool {
        self.section == 0 && self.is_global() && self.kind == elf::STT_NOTYPE
    }

    /// `STB_GLOBAL` or `STB_WEAK`.
    pub(crate) fn is_global(&self) -> bool {
        self.bind == elf::STB_GLOBAL || self.bind == elf::STB_WEAK
    }

    /// `STV_HIDDEN` or `STV_INTERNAL`: libbpf then treats the symbol as static.
    pub(crate) fn is_hidden(&self) -> bool {
        self.visibility == elf::STV_HIDDEN || self.visibility == elf::STV_INTERNAL
    }
}

/// One entry of a `SHT_REL` section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rel {
    pub(crate) offset: u64,
    pub(crate) symbol: usize,
    pub(crate) kind: u32,
}

/// A section's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: elf::SectionType,
    pub(crate) flags: elf::SectionFlags,
    pub(crate) size: u64,
    pub(crate) link: usize,
    pub(crate) info: usize,
    pub(crate) entsize: u64,
}

impl Section<'_> {
    /// Whether it holds instructions.
    pub(crate) fn is_code(&self) -> bool {
        self.flags.0 & elf::SHF_EXECINSTR.0 != 0
    }
}

impl<'a> Elf<'a> {
    /// Reads the header, section headers, names' table and symbol table.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, LoadError> {
        let header = check_header(bytes)?;
        let endian = LittleEndian;
        let not_elf = |e: object::Error| K::NotElf(e.to_string()).err();
        let sections = header.section_headers(endian, bytes).map_err(not_elf)?;
        if sections.len() > MAX_SECTIONS {
            let limit = MAX_SECTIONS as u64;
            return Err(K::TooLarge {
                what: "sections",
                limit,
            }
            .err());
        }
        let names_at = header.shstrndx(endian, bytes).map_err(not_elf)? as usize;
        let section_names = content(bytes, sections, names_at)
            .ok_or(K::Malformed("the table of sections' names lies outside the file").err())?;
        check_machine(header)?;
        let mut elf = Elf {
            bytes,
            sections,
            section_names,
            symbols: &[],
            symbol_names: &[],
            symtab: 0,
            by_name: HashMap::new(),
        };
        elf.find_symbols()?;
        for index in 1..sections.len() {
            if let Ok(name) = elf.section_name(index) {
                elf.by_name.entry(name).or_insert(index);
            }
        }
        Ok(elf)
    }

    fn find_symbols(&mut self) -> Result<(), LoadError> {
        let mut tables = (1..self.sections.len()).filter(|&i| self.kind(i) == elf::SHT_SYMTAB);
        let symtab = tables.next().ok_or(K::NoSymbols.err())?;
        if tables.next().is_some() {
            return Err(K::ManySymbolTables.err());
        }
        let section = self.section(symtab)?;
        let malformed = |what| K::Malformed(what).in_section(section.name);
        let data = self.data(symtab)?;
        if section.entsize != size_of::<elf::Sym64<LittleEndian>>() as u64 {
            return Err(malformed("a symbol's size is not 24"));
        }
        let count = data.len() / size_of::<elf::Sym64<LittleEndian>>();
        self.symbols = data
            .read_slice_at(0, count)
            .map_err(|()| malformed("the symbol table is not aligned"))?;
        if section.link == 0 || section.link >= self.sections.len() {
            return Err(malformed("its table of names does not exist"));
        }
        self.symbol_names = content(self.bytes, self.sections, section.link)
            .ok_or(malformed("its table of names lies outside the file"))?;
        self.symtab = symtab;
        Ok(())
    }

    fn kind(&self, index: usize) -> elf::SectionType {
        self.sections[index].sh_type(LittleEndian)
    }

    /// How many sections there are, the null one included.
    pub(crate) fn section_count(&self) -> usize {
        self.sections.len()
    }

    fn section_name(&self, index: usize) -> Result<&'a str, LoadError> {
        let offset = self.sections[index].sh_name(LittleEndian);
        name_at(self.section_names, offset)
    }

    /// A section's header.
    pub(crate) fn section(&self, index: usize) -> Result<Section<'a>, LoadError> {
        let header = self
            .sections
            .get(index)
            .ok_or(K::Malformed("a section that does not exist is named").err())?;
        let e = LittleEndian;
        Ok(Section {
            name: self.section_name(index)?,
            kind: header.sh_type(e),
            flags: header.sh_flags(e),
            size: header.sh_size(e),
            link: header.sh_link(e) as usize,
            info: header.sh_info(e) as usize,
            entsize: header.sh_entsize(e),
        })
    }

    /// A section's name, or `<?>`.
    pub(crate) fn name_or_mark(&self, index: usize) -> &'a str {
        match index < self.sections.len() {
            true => self.section_name(index).unwrap_or("<?>"),
            false => "<?>",
        }
    }

    /// The first section of this name.
    pub(crate) fn find_section(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A section's bytes; none for `SHT_NOBITS`.
    pub(crate) fn data(&self, index: usize) -> Result<&'a [u8], LoadError> {
        content(self.bytes, self.sections, index).ok_or_else(|| {
            K::Malformed("its contents lie outside the file").in_section(self.name_or_mark(index))
        })
    }

    /// How many symbols there are, the null one included.
    pub(crate) fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// One symbol.
    pub(crate) fn symbol(&self, index: usize) -> Option<Symbol> {
        let sym = self.symbols.get(index)?;
        let e = LittleEndian;
        Some(Symbol {
            name: sym.st_name(e),
            section: usize::from(sym.st_shndx(e).0),
            value: sym.st_value(e),
            size: sym.st_size(e),
            kind: sym.st_type(),
            bind: sym.st_bind(),
            visibility: sym.st_visibility(),
        })
    }

    /// All symbols, the null one included.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.symbols.len()).filter_map(|i| self.symbol(i))
    }

    /// A symbol's name.
    pub(crate) fn symbol_name(&self, symbol: &Symbol) -> Result<&'a str, LoadError> {
        name_at(self.symbol_names, symbol.name)
    }

    /// What to call a symbol in a message: its name, or its section's.
    pub(crate) fn describe(&self, symbol: &Symbol) -> &'a str {
        match symbol.kind == elf::STT_SECTION && symbol.name == 0 {
            true => self.name_or_mark(symbol.section),
            false => self.symbol_name(symbol).unwrap_or("<?>"),
        }
    }

    /// Entries of a `SHT_REL` section.
    pub(crate) fn rels(
        &self,
        index: usize,
    ) -> Result<impl ExactSizeIterator<Item = Rel> + 'a, LoadError> {
        let section = self.section(index)?;
        if section.entsize != 16 || section.info >= self.sections.len() {
            return Err(
                K::Malformed("a relocation's size or target section is wrong")
                    .in_section(section.name),
            );
        }
        let (entries, _) = self.data(index)?.as_chunks::<16>();
        Ok(entries.iter().map(|entry| {
            let [offset, info] = [&entry[..8], &entry[8..]].map(u64_le);
            Rel {
                offset,
                symbol: (info >> 32) as usize,
                kind: info as u32,
            }
        }))
    }
}

fn u64_le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

/// Class, byte order and size of the header.
fn check_header(bytes: &[u8]) -> Result<&Header, LoadError> {
    if bytes.get(..4) != Some(&elf::ELFMAG) {
        return Err(K::NotElf("no ELF magic".into()).err());
    }
    match bytes.get(4..6) {
        Some(&[class, _]) if class != elf::ELFCLASS64.0 => return Err(K::NotElf64.err()),
        Some(&[_, order]) if order == elf::ELFDATA2MSB.0 => return Err(check_big_endian(bytes)),
        Some(&[_, order]) if order == elf::ELFDATA2LSB.0 => {}
        _ => return Err(K::NotElf("unknown byte order".into()).err()),
    }
    Header::parse(bytes).map_err(|e| K::NotElf(e.to_string()).err())
}

/// A big-endian file: of BPF, or of some other machine?
fn check_big_endian(bytes: &[u8]) -> LoadError {
    let half = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match (half(16), half(18)) {
        (Some(e_type), Some(e_machine)) if is_bpf(e_type, e_machine) => K::BigEndian.err(),
        (Some(e_type), Some(e_machine)) => K::NotBpf { e_type, e_machine }.err(),
        _ => K::NotElf("the header is cut off".into()).err(),
    }
}

/// Relocatable, and of BPF; old LLVM left the machine empty.
fn is_bpf(e_type: u16, e_machine: u16) -> bool {
    e_type == elf::ET_REL.0 && (e_machine == elf::EM_BPF.0 || e_machine == elf::EM_NONE.0)
}

fn check_machine(header: &Header) -> Result<(), LoadError> {
    let (e_type, e_machine) = (
        header.e_type(LittleEndian).0,
        header.e_machine(LittleEndian).0,
    );
    match is_bpf(e_type, e_machine) {
        true => Ok(()),
        false => Err(K::NotBpf { e_type, e_machine }.err()),
    }
}

fn content<'a>(bytes: &'a [u8], sections: &'a [Shdr], index: usize) -> Option<&'a [u8]> {
    sections.get(index)?.data(LittleEndian, bytes).ok()
}

fn name_at(table: &[u8], offset: u32) -> Result<&str, LoadError> {
    let tail = table.get(offset as usize..).ok_or(K::BadName.err())?;
    let window = &tail[..tail.len().min(MAX_NAME_LEN + 1)];
    let len = window
        .iter()
        .position(|&b| b == 0)
        .ok_or(K::BadName.err())?;
    std::str::from_utf8(&window[..len]).map_err(|_| K::BadName.err())
}
