//! The ELF container: sections, symbols and relocations of an untrusted little-endian file.
//!
//! Names and contents are looked at when they are asked for, as libelf does it: what nobody asks
//! for may be broken.

use std::collections::HashMap;

use object::elf;
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{LittleEndian, ReadRef};

use crate::error::{LoadError, LoadErrorKind as K};

macro_rules! numbers {
    ($($ty:ident: $($name:ident),* ;)*) => {
        $($(#[doc = concat!("`", stringify!($name), "`")] pub const $name: $ty = elf::$name.0;)*)*
    };
}

numbers! {
    u32: SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL;
    u64: SHF_EXECINSTR;
    u8: STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE;
    u8: STB_LOCAL, STB_GLOBAL, STB_WEAK;
    u8: STV_INTERNAL, STV_HIDDEN;
}

/// LLVM's list of symbols whose address matters.
pub const SHT_LLVM_ADDRSIG: u32 = 0x6fff_4c03;
/// First of the section numbers that stand for no section.
pub const SHN_LORESERVE: usize = 0xff00;

type Header = elf::FileHeader64<LittleEndian>;
type Shdr = elf::SectionHeader64<LittleEndian>;

/// Longest name that is read: a limit is needed, since many may share one string of megabytes.
const MAX_NAME_LEN: usize = 4096;
/// Sections that are looked at.
const MAX_SECTIONS: usize = 1 << 20;

/// A parsed file.
pub struct Elf<'a> {
    bytes: &'a [u8],
    sections: &'a [Shdr],
    /// Contents of the table of sections' names.
    section_names: &'a [u8],
    symbols: &'a [elf::Sym64<LittleEndian>],
    symbol_names: &'a [u8],
    /// Index of the symbol table.
    pub symtab: usize,
    /// First section of each name.
    by_name: HashMap<&'a str, usize>,
}

/// A symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Offset of its name in the table of symbols' names.
    pub name: u32,
    /// `st_shndx`, reserved numbers included.
    pub section: usize,
    /// `st_value`: bytes from the start of its section.
    pub value: u64,
    /// `st_size`.
    pub size: u64,
    /// `STT_*`.
    pub kind: u8,
    /// `STB_*`.
    pub bind: u8,
    /// `STV_*`.
    pub visibility: u8,
}

impl Symbol {
    /// `sym_is_extern`.
    pub fn is_extern(&self) -> bool {
        self.section == 0 && self.is_global() && self.kind == STT_NOTYPE
    }

    /// `STB_GLOBAL` or `STB_WEAK`.
    pub fn is_global(&self) -> bool {
        self.bind == STB_GLOBAL || self.bind == STB_WEAK
    }

    /// `STV_HIDDEN` or `STV_INTERNAL`: libbpf then treats the symbol as static.
    pub fn is_hidden(&self) -> bool {
        self.visibility == STV_HIDDEN || self.visibility == STV_INTERNAL
    }
}

/// One entry of a `SHT_REL` section.
#[derive(Clone, Copy, Debug)]
pub struct Rel {
    /// Bytes from the start of the section that it changes.
    pub offset: u64,
    /// Index of the symbol.
    pub symbol: usize,
    /// `R_BPF_*`.
    pub kind: u32,
}

/// A section's header.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Name.
    pub name: &'a str,
    /// `SHT_*`.
    pub kind: u32,
    /// `SHF_*`.
    pub flags: u64,
    /// Bytes that it takes, or claims to take.
    pub size: u64,
    /// `sh_link`.
    pub link: usize,
    /// `sh_info`: of relocations, the section that they change.
    pub info: usize,
    /// Bytes of an entry.
    pub entsize: u64,
}

impl Section<'_> {
    /// Whether it holds instructions.
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }
}

impl<'a> Elf<'a> {
    /// Reads the header, section headers, names' table and symbol table.
    ///
    /// # Errors
    /// What is wrong with the file there.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, LoadError> {
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
        let mut tables = (1..self.sections.len()).filter(|&i| self.kind(i) == SHT_SYMTAB);
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
        if !data
            .len()
            .is_multiple_of(size_of::<elf::Sym64<LittleEndian>>())
        {
            return Err(malformed("the symbol table ends within a symbol"));
        }
        let count = data.len() / size_of::<elf::Sym64<LittleEndian>>();
        self.symbols = data
            .read_slice_at(0, count)
            .map_err(|()| malformed("the symbol table is not aligned"))?;
        if section.link == 0 || section.link >= self.sections.len() {
            return Err(malformed("its table of names does not exist"));
        }
        self.symbol_names = names(self.bytes, self.sections, section.link).ok_or(malformed(
            "its table of names is none, or lies outside the file",
        ))?;
        self.symtab = symtab;
        Ok(())
    }

    fn kind(&self, index: usize) -> u32 {
        self.sections[index].sh_type(LittleEndian).0
    }

    /// How many sections there are, the null one included.
    pub fn section_count(&self) -> usize {
        self.sections.len()
    }

    fn section_name(&self, index: usize) -> Result<&'a str, LoadError> {
        let offset = self.sections[index].sh_name(LittleEndian);
        name_at(self.section_names, offset).map_err(|e| e.symbol(&format!("section #{index}")))
    }

    /// A section's header.
    ///
    /// # Errors
    /// What is wrong with the file there.
    pub fn section(&self, index: usize) -> Result<Section<'a>, LoadError> {
        let header = self
            .sections
            .get(index)
            .ok_or(K::Malformed("a section that does not exist is named").err())?;
        let e = LittleEndian;
        Ok(Section {
            name: self.section_name(index)?,
            kind: header.sh_type(e).0,
            flags: header.sh_flags(e).0,
            size: header.sh_size(e),
            link: header.sh_link(e) as usize,
            info: header.sh_info(e) as usize,
            entsize: header.sh_entsize(e),
        })
    }

    /// A section's name, or `<?>`.
    pub fn name_or_mark(&self, index: usize) -> &'a str {
        match index < self.sections.len() {
            true => self.section_name(index).unwrap_or("<?>"),
            false => "<?>",
        }
    }

    /// The first section of this name.
    pub fn find_section(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A section's bytes; none for `SHT_NOBITS`.
    ///
    /// # Errors
    /// What is wrong with the file there.
    pub fn data(&self, index: usize) -> Result<&'a [u8], LoadError> {
        content(self.bytes, self.sections, index).ok_or_else(|| {
            K::Malformed("its contents lie outside the file").in_section(self.name_or_mark(index))
        })
    }

    /// How many symbols there are, the null one included.
    pub fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// One symbol.
    pub fn symbol(&self, index: usize) -> Option<Symbol> {
        let sym = self.symbols.get(index)?;
        let e = LittleEndian;
        Some(Symbol {
            name: sym.st_name(e),
            section: usize::from(sym.st_shndx(e).0),
            value: sym.st_value(e),
            size: sym.st_size(e),
            kind: sym.st_type().0,
            bind: sym.st_bind().0,
            visibility: sym.st_visibility().0,
        })
    }

    /// All symbols, the null one included.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.symbols.len()).filter_map(|i| self.symbol(i))
    }

    /// A symbol's name.
    ///
    /// # Errors
    /// What is wrong with the file there.
    pub fn symbol_name(&self, symbol: &Symbol) -> Result<&'a str, LoadError> {
        let name = name_at(self.symbol_names, symbol.name);
        name.map_err(|e| e.symbol(&format!("symbol named at {:#x}", symbol.name)))
    }

    /// What to call a symbol in a message: its name, or its section's.
    pub fn describe(&self, symbol: &Symbol) -> &'a str {
        match symbol.kind == STT_SECTION && symbol.name == 0 {
            true => self.name_or_mark(symbol.section),
            false => self.symbol_name(symbol).unwrap_or("<?>"),
        }
    }

    /// Entries of a `SHT_REL` section.
    ///
    /// # Errors
    /// What is wrong with the file there.
    pub fn rels(&self, index: usize) -> Result<impl ExactSizeIterator<Item = Rel> + 'a, LoadError> {
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

/// A table of names.
fn names<'a>(bytes: &'a [u8], sections: &'a [Shdr], index: usize) -> Option<&'a [u8]> {
    let is_table = sections.get(index)?.sh_type(LittleEndian).0 == SHT_STRTAB;
    content(bytes, sections, index).filter(|_| is_table)
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
