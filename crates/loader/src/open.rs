//! `bpf_object__open`: what each section is, and which functions there are.

use std::collections::HashMap;
use std::sync::Arc;

use bpfsim_btf::{Btf, BtfExt};
use bpfsim_isa::Insn;

use crate::LoadOptions;
use crate::elf::{self, Elf, Section};
use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::{Extern, MapDef};
use crate::relocs::RawReloc;

/// Instructions in executable sections: the kernel takes a million a program.
pub(crate) const MAX_SECTION_INSNS: usize = 8 << 20;

/// Entry programs of an object: a thousand times what large ones have.
const MAX_PROGRAMS: usize = 1 << 17;
/// Functions of an object.
const MAX_FUNCS: usize = 1 << 19;
/// Maps of an object, and externs.
pub(crate) const MAX_MAPS: usize = 1 << 16;
pub(crate) const MAX_EXTERNS: usize = 1 << 16;
/// Variables of all data sections; several sections may have one `DATASEC`.
const MAX_VARS: usize = 1 << 20;

/// What libbpf uses a section for (`enum sec_type`, and the indices beside it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Unused,
    Programs,
    Maps,
    Data,
    Rodata,
    Bss,
    StructOps,
    Arena,
    Relocs,
}

/// A function of an executable section: an entry program, or (in `.text`) a subprogram.
#[derive(Debug)]
pub(crate) struct Func<'a> {
    pub(crate) name: &'a str,
    /// Index of its section.
    pub(crate) section: usize,
    /// First instruction within the section.
    pub(crate) start: usize,
    pub(crate) code: &'a [u8],
    /// `STB_GLOBAL` or `STB_WEAK`.
    pub(crate) global: bool,
    /// Global, but of hidden visibility: to the verifier it is static.
    pub(crate) hidden: bool,
    /// By instruction within the function.
    pub(crate) relocs: Vec<RawReloc>,
}

impl Func<'_> {
    /// Number of instruction slots.
    pub(crate) fn len(&self) -> usize {
        self.code.len() / Insn::SIZE
    }

    /// The slot of this index within the function.
    pub(crate) fn insn(&self, index: usize) -> Option<Insn> {
        let bytes = self.code.get(index.checked_mul(Insn::SIZE)?..)?;
        Some(Insn::from_le_bytes(*bytes.first_chunk()?))
    }
}

/// An object on its way: `struct bpf_object` while it is opened.
pub(crate) struct Open<'a> {
    pub(crate) elf: Elf<'a>,
    pub(crate) options: &'a LoadOptions,
    pub(crate) budget: Budget,
    /// One for each section.
    pub(crate) roles: Vec<Role>,
    /// By section and place.
    pub(crate) funcs: Vec<Func<'a>>,
    /// `.text`, whose functions are subprograms.
    pub(crate) text: Option<usize>,
    pub(crate) maps_section: Option<usize>,
    pub(crate) arena_section: Option<usize>,
    pub(crate) license: String,
    pub(crate) kern_version: Option<u32>,
    pub(crate) skipped: Vec<(String, u64)>,
    pub(crate) btf: Option<Arc<Btf>>,
    pub(crate) btf_ext: Option<Arc<BtfExt>>,
    pub(crate) externs: Vec<Extern>,
    /// Symbol's index to extern's.
    pub(crate) extern_of_symbol: HashMap<usize, usize>,
    pub(crate) maps: Vec<MapDef>,
    /// ELF section and offset of each map, as relocations name it.
    pub(crate) map_places: Vec<(usize, u64)>,
    /// Index of the arena in `maps`.
    pub(crate) arena: Option<usize>,
}

/// What may still be copied out of the file: many names, and many sections, may lie on the same bytes.
pub(crate) struct Budget {
    names: usize,
    data: usize,
    relocs: usize,
    vars: usize,
}

impl Budget {
    /// What a file of this many bytes may ask for.
    pub(crate) fn new(file: usize) -> Budget {
        Budget {
            names: file.saturating_mul(4).saturating_add(1 << 20),
            data: file,
            relocs: file,
            vars: MAX_VARS,
        }
    }

    /// Nothing more.
    pub(crate) fn none() -> Budget {
        Budget {
            names: 0,
            data: 0,
            relocs: 0,
            vars: 0,
        }
    }

    /// Copies a name.
    pub(crate) fn name(&mut self, name: &str) -> Result<String, LoadError> {
        match self.names.checked_sub(name.len() + 16) {
            Some(left) => self.names = left,
            None => {
                let limit = self.names as u64;
                return Err(K::TooLarge {
                    what: "bytes of names",
                    limit,
                }
                .err());
            }
        }
        Ok(name.to_owned())
    }

    /// Walks a section of relocations of this many bytes.
    pub(crate) fn relocs(&mut self, size: u64) -> Result<(), LoadError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.relocs = self.relocs.checked_sub(size).ok_or(K::Overlapping.err())?;
        Ok(())
    }

    /// Walks a section's variables.
    pub(crate) fn vars(&mut self, count: usize) -> Result<(), LoadError> {
        let limit = MAX_VARS as u64;
        let what = "variables";
        self.vars = self
            .vars
            .checked_sub(count)
            .ok_or(K::TooLarge { what, limit }.err())?;
        Ok(())
    }

    /// Copies a section's contents.
    pub(crate) fn data(&mut self, data: &[u8]) -> Result<Vec<u8>, LoadError> {
        self.data = self
            .data
            .checked_sub(data.len())
            .ok_or(K::Overlapping.err())?;
        Ok(data.to_vec())
    }
}

impl<'a> Open<'a> {
    /// `bpf_object__elf_init` and `bpf_object__elf_collect`.
    pub(crate) fn new(bytes: &'a [u8], options: &'a LoadOptions) -> Result<Open<'a>, LoadError> {
        let elf = Elf::parse(bytes)?;
        let mut open = Open {
            roles: vec![Role::Unused; elf.section_count()],
            elf,
            options,
            budget: Budget::new(bytes.len()),
            funcs: Vec::new(),
            text: None,
            maps_section: None,
            arena_section: None,
            license: String::new(),
            kern_version: None,
            skipped: Vec::new(),
            btf: None,
            btf_ext: None,
            externs: Vec::new(),
            extern_of_symbol: HashMap::new(),
            maps: Vec::new(),
            map_places: Vec::new(),
            arena: None,
        };
        let mut blobs = Blobs::default();
        for index in 1..open.elf.section_count() {
            let section = open.elf.section(index)?;
            if !is_ignored(&section) {
                open.classify(index, &section, &mut blobs)?;
            }
        }
        open.find_functions()?;
        open.parse_btf(blobs)?;
        Ok(open)
    }

    fn classify(
        &mut self,
        index: usize,
        section: &Section<'a>,
        blobs: &mut Blobs<'a>,
    ) -> Result<(), LoadError> {
        let data = self.elf.data(index)?;
        let name = section.name;
        let blob = |section: &Section<'_>| match section.kind {
            elf::SHT_PROGBITS => Ok(data),
            _ => Err(K::Malformed("BTF of the wrong section type").in_section(name)),
        };
        match (name, section.kind) {
            ("license", _) => self.license = license(data),
            ("version", _) => {
                let version = data.try_into().map(u32::from_le_bytes).map_err(|_| {
                    K::Malformed("a kernel version is not 4 bytes").in_section(name)
                })?;
                self.kern_version = Some(version);
            }
            ("maps", _) => return Err(K::LegacyMaps.in_section(name)),
            (".maps", _) => {
                self.maps_section = Some(index);
                self.roles[index] = Role::Maps;
            }
            (".BTF", _) => blobs.btf = Some(blob(section)?),
            (".BTF.ext", _) => blobs.ext = Some(blob(section)?),
            (_, elf::SHT_SYMTAB) => {}
            (_, elf::SHT_PROGBITS) if !data.is_empty() => {
                self.roles[index] = progbits_role(section);
                match self.roles[index] {
                    Role::Programs if name == ".text" => self.text = Some(index),
                    Role::Arena => self.arena_section = Some(index),
                    Role::Unused => self.skip(section)?,
                    _ => {}
                }
            }
            (_, elf::SHT_REL) => self.classify_relocs(index, section)?,
            (_, elf::SHT_NOBITS) if is_or_dotted(name, ".bss") => self.roles[index] = Role::Bss,
            _ => self.skip(section)?,
        }
        Ok(())
    }

    fn classify_relocs(&mut self, index: usize, section: &Section<'a>) -> Result<(), LoadError> {
        const RELOCATED: [&str; 5] = [
            ".rel.struct_ops",
            ".rel.struct_ops.link",
            ".rel?.struct_ops",
            ".rel?.struct_ops.link",
            ".rel.maps",
        ];
        let _checked = self.elf.rels(index)?;
        let target = self.elf.section(section.info)?;
        let code = target.is_code();
        match code || RELOCATED.contains(&section.name) {
            true => self.roles[index] = Role::Relocs,
            false => self.skip(section)?,
        }
        Ok(())
    }

    fn skip(&mut self, section: &Section<'_>) -> Result<(), LoadError> {
        let name = self.budget.name(section.name)?;
        self.skipped.push((name, section.size));
        Ok(())
    }

    /// `bpf_object__add_programs` for all sections at once.
    fn find_functions(&mut self) -> Result<(), LoadError> {
        let insns: u64 = (0..self.roles.len())
            .filter(|&i| self.roles[i] == Role::Programs)
            .filter_map(|i| Some(self.elf.section(i).ok()?.size / Insn::SIZE as u64))
            .fold(0, u64::saturating_add);
        if insns > MAX_SECTION_INSNS as u64 {
            let limit = MAX_SECTION_INSNS as u64;
            return Err(K::TooLarge {
                what: "instructions",
                limit,
            }
            .err());
        }
        let mut programs = 0;
        for index in 0..self.elf.symbol_count() {
            let Some(symbol) = self.elf.symbol(index) else {
                continue;
            };
            let role = self.roles.get(symbol.section);
            if symbol.kind != elf::STT_FUNC || role != Some(&Role::Programs) {
                continue;
            }
            let section = self.elf.name_or_mark(symbol.section);
            let here = |e: LoadError| e.section(section).at(symbol.value);
            let name = self.elf.symbol_name(&symbol).map_err(here)?;
            let here = |kind: K| here(kind.err()).symbol(name);
            let size = symbol.size;
            let data = self.elf.data(symbol.section)?;
            let end = symbol
                .value
                .checked_add(size)
                .filter(|&end| end <= data.len() as u64);
            let Some(end) = end else {
                return Err(here(K::ProgramOutOfSection { size }));
            };
            if Some(symbol.section) != self.text && symbol.bind == elf::STB_LOCAL {
                return Err(here(K::StaticProgram));
            }
            let unit = Insn::SIZE as u64;
            if size == 0 || size % unit != 0 || symbol.value % unit != 0 {
                return Err(here(K::CorruptedProgram { size }));
            }
            programs += usize::from(Some(symbol.section) != self.text);
            for (count, limit, what) in [
                (programs, MAX_PROGRAMS, "programs"),
                (self.funcs.len(), MAX_FUNCS, "functions"),
            ] {
                if count >= limit {
                    let limit = limit as u64;
                    return Err(K::TooLarge { what, limit }.err());
                }
            }
            self.funcs.push(Func {
                name,
                section: symbol.section,
                start: (symbol.value / unit) as usize,
                code: &data[symbol.value as usize..end as usize],
                global: symbol.bind != elf::STB_LOCAL,
                hidden: symbol.bind != elf::STB_LOCAL && symbol.is_hidden(),
                relocs: Vec::new(),
            });
        }
        self.funcs.sort_by_key(|f| (f.section, f.start));
        Ok(())
    }

    /// `bpf_object__init_btf`: broken BTF matters only to objects that need it.
    fn parse_btf(&mut self, blobs: Blobs<'a>) -> Result<(), LoadError> {
        let needed = self.maps_section.is_some() || self.roles.contains(&Role::StructOps);
        let broken = |section, e: bpfsim_btf::BtfError| match needed {
            true => Err(K::BadBtf(e.to_string())
                .in_section(section)
                .at(e.offset.into())),
            false => Ok(()),
        };
        let btf = match blobs.btf.map(Btf::parse) {
            Some(Ok(btf)) => btf,
            Some(Err(e)) => return broken(".BTF", e),
            None if needed => return Err(K::NoBtf.in_section(".BTF")),
            None => return Ok(()),
        };
        match blobs.ext.map(|bytes| BtfExt::parse(bytes, &btf)) {
            Some(Ok(ext)) => self.btf_ext = Some(Arc::new(ext)),
            Some(Err(e)) => broken(".BTF.ext", e)?,
            None => {}
        }
        self.btf = Some(Arc::new(btf));
        Ok(())
    }

    /// Adds a map that lies at this place of ELF.
    pub(crate) fn add_map(&mut self, place: (usize, u64), map: MapDef) -> Result<(), LoadError> {
        if self.maps.len() >= MAX_MAPS {
            let limit = MAX_MAPS as u64;
            return Err(K::TooLarge {
                what: "maps",
                limit,
            }
            .err());
        }
        self.map_places.push(place);
        self.maps.push(map);
        Ok(())
    }

    /// `find_prog_by_sec_insn`.
    pub(crate) fn func_at(&self, section: usize, insn: usize) -> Option<usize> {
        let after = self
            .funcs
            .partition_point(|f| (f.section, f.start) <= (section, insn));
        let index = after.checked_sub(1)?;
        let func = &self.funcs[index];
        (func.section == section && insn - func.start < func.len()).then_some(index)
    }

    /// Whether a function is a subprogram (`prog_is_subprog`).
    pub(crate) fn is_subprog(&self, func: &Func<'_>) -> bool {
        Some(func.section) == self.text
    }
}

/// Sections that are needed after all others are known.
#[derive(Default)]
struct Blobs<'a> {
    btf: Option<&'a [u8]>,
    ext: Option<&'a [u8]>,
}

/// Up to the first NUL, at most 63 bytes.
fn license(data: &[u8]) -> String {
    let data = &data[..data.len().min(63)];
    let text = data.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn is_dwarf(name: &str) -> bool {
    name.starts_with(".debug_")
}

/// `ignore_elf_section`: not even its contents are looked at.
fn is_ignored(section: &Section<'_>) -> bool {
    let empty_text =
        section.kind == elf::SHT_PROGBITS && section.size == 0 && section.name == ".text";
    let relocates_ignored = section
        .name
        .strip_prefix(".rel")
        .is_some_and(|target| is_dwarf(target) || target == ".BTF" || target == ".BTF.ext");
    section.kind == elf::SHT_STRTAB
        || section.kind == elf::SHT_LLVM_ADDRSIG
        || empty_text
        || is_dwarf(section.name)
        || relocates_ignored
}

fn is_or_dotted(name: &str, stem: &str) -> bool {
    match name.strip_prefix(stem) {
        Some(rest) => rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

fn progbits_role(section: &Section<'_>) -> Role {
    match section.name {
        _ if section.is_code() => Role::Programs,
        name if is_or_dotted(name, ".data") => Role::Data,
        name if is_or_dotted(name, ".rodata") => Role::Rodata,
        ".struct_ops" | ".struct_ops.link" | "?.struct_ops" | "?.struct_ops.link" => {
            Role::StructOps
        }
        ".addr_space.1" => Role::Arena,
        _ => Role::Unused,
    }
}
