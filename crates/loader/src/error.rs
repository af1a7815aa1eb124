//! Why an object cannot be loaded, and where in it.

use std::fmt;

use bpfsim_btf::TypeId;

/// An object that libbpf would refuse, or that is no object at all: what, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// What is wrong.
    pub kind: LoadErrorKind,
    /// The ELF section, where one is known.
    pub section: Option<String>,
    /// Bytes from the start of that section (of the file where there is no section).
    pub offset: Option<u64>,
    /// The symbol, program, map or extern, where one is known.
    pub symbol: Option<String>,
}

/// The errno that libbpf reports; its own numbers start at 4000 (`enum libbpf_errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(i32)]
pub enum Errno {
    Enoent = 2,
    Esrch = 3,
    Eio = 5,
    E2big = 7,
    Einval = 22,
    Erange = 34,
    Eopnotsupp = 95,
    /// The kernel's own `ENOTSUPP` does not reach user space; libbpf's `ENOTSUP` is `EOPNOTSUPP`.
    Format = 4001,
    Endian = 4003,
    Reloc = 4005,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LoadErrorKind {
    /// Not ELF, or its header runs off the file.
    NotElf(String),
    /// `EI_CLASS` is not `ELFCLASS64`.
    NotElf64,
    /// `EI_DATA` says big-endian: built with `--target=bpfeb`.
    BigEndian,
    /// `e_type` or `e_machine` say that it is something else.
    NotBpf { e_type: u16, e_machine: u16 },
    /// A header, table or content lies outside the file or has an impossible size.
    Malformed(&'static str),
    /// A name that cannot be read: outside its table, unended, too long or not UTF-8.
    BadName,
    /// No symbol table: stripped.
    NoSymbols,
    /// More than one symbol table.
    ManySymbolTables,
    /// More than this loader takes; the limit is the field.
    TooLarge { what: &'static str, limit: u64 },
    /// Sections that libbpf copies add up to more than the file has: they overlap.
    Overlapping,
    /// A `maps` section: libbpf 1.0 dropped `struct bpf_map_def`.
    LegacyMaps,
    /// A function symbol of no length, or not at an instruction.
    CorruptedProgram { size: u64 },
    /// A program's symbol reaches past its section.
    ProgramOutOfSection { size: u64 },
    /// A static function in a section of entry programs.
    StaticProgram,
    /// `.BTF` or `.BTF.ext` is needed but missing.
    NoBtf,
    /// `.BTF` or `.BTF.ext` is needed but broken.
    BadBtf(String),
    /// No `DATASEC` of this section in BTF.
    NoDatasec,
    /// A `DATASEC` whose section or variables ELF does not have.
    BadDatasec(&'static str),
    /// A map that libbpf would not take, and why.
    BadMap(String),
    /// A map whose definition asks for what libbpf does not do.
    UnsupportedMap(String),
    /// A second arena.
    ManyArenas,
    /// Variables of `__arena`, but no arena.
    NoArena,
    /// An arena that has fewer pages than its variables.
    ArenaTooSmall,
    /// A struct_ops variable that libbpf would not take.
    BadStructOps(String),
    /// A member of a struct_ops struct that the kernel does not have as the object has it.
    UnsupportedStructOps(String),
    /// A struct that the kernel's BTF does not have.
    NoKernelType(String),
    /// An extern in an object without BTF.
    ExternNeedsBtf,
    /// An extern that BTF does not declare, or not in a section, or with a broken type.
    BadExtern(String),
    /// A `DATASEC` of externs names one that ELF has no symbol of.
    ExternWithoutSymbol,
    /// An extern of a section that is neither `.ksyms` nor `.kconfig`, or of a type that `.kconfig`
    /// does not have.
    UnsupportedExtern(&'static str),
    /// A value for a `.kconfig` variable that its type does not hold.
    BadKconfig(String),
    /// An extern that is not weak and that nothing provides.
    UnresolvedExtern(&'static str),
    /// A relocation that names a symbol or a place that does not exist.
    BadReloc(String),
    /// A relocation against something that libbpf cannot relocate.
    UnsupportedReloc(String),
    /// A call or callback whose target is no function of `.text`.
    NoSubprog { insn: u64 },
    /// Function or line information that the main program has and a subprogram lacks.
    MissingInfo(&'static str),
    /// A decl tag `exception_callback:NAME` that names no suitable function.
    BadExceptionCallback(String),
    /// CO-RE relocations that cannot be applied.
    BadCore(String),
    /// No global variable of this name (near misses in the field).
    NoGlobal(Vec<String>),
    /// A value of another size than the variable's.
    GlobalSize { want: u64, got: u64 },
    /// A type in BTF that is not what its place needs.
    BadType { id: TypeId, why: &'static str },
}

use LoadErrorKind as K;

impl LoadErrorKind {
    /// An error of this kind, nowhere yet.
    pub(crate) fn err(self) -> LoadError {
        LoadError {
            kind: self,
            section: None,
            offset: None,
            symbol: None,
        }
    }

    /// In this section.
    pub(crate) fn in_section(self, name: &str) -> LoadError {
        self.err().section(name)
    }
}

impl LoadError {
    pub(crate) fn section(mut self, name: &str) -> LoadError {
        self.section.get_or_insert_with(|| clip(name));
        self
    }

    pub(crate) fn at(mut self, offset: u64) -> LoadError {
        self.offset.get_or_insert(offset);
        self
    }

    pub(crate) fn symbol(mut self, name: &str) -> LoadError {
        self.symbol.get_or_insert_with(|| clip(name));
        self
    }

    /// The errno that `bpf_object__open` or `bpf_object__load` reports for this.
    pub fn errno(&self) -> Errno {
        match &self.kind {
            K::BigEndian => Errno::Endian,
            K::NotElf(_) | K::NotElf64 | K::NotBpf { .. } | K::Malformed(_) | K::BadName => {
                Errno::Format
            }
            K::ManySymbolTables | K::ProgramOutOfSection { .. } => Errno::Format,
            K::NoSymbols | K::NoBtf | K::NoDatasec | K::BadDatasec(_) | K::NoArena => Errno::Enoent,
            K::TooLarge { .. } | K::Overlapping | K::ArenaTooSmall => Errno::E2big,
            K::LegacyMaps
            | K::StaticProgram
            | K::UnsupportedMap(_)
            | K::UnsupportedExtern(_)
            | K::UnsupportedStructOps(_) => Errno::Eopnotsupp,
            K::BadReloc(_) | K::UnsupportedReloc(_) | K::NoSubprog { .. } => Errno::Reloc,
            K::NoKernelType(_)
            | K::ExternNeedsBtf
            | K::ExternWithoutSymbol
            | K::UnresolvedExtern(_) => Errno::Esrch,
            K::BadExtern(_) | K::MissingInfo(_) | K::NoGlobal(_) => Errno::Enoent,
            K::CorruptedProgram { .. }
            | K::BadBtf(_)
            | K::BadMap(_)
            | K::ManyArenas
            | K::BadStructOps(_)
            | K::BadKconfig(_)
            | K::BadExceptionCallback(_)
            | K::BadCore(_)
            | K::GlobalSize { .. }
            | K::BadType { .. } => Errno::Einval,
        }
    }
}

/// Names in messages are cut: a hostile one may be as long as the file.
fn clip(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

impl From<LoadErrorKind> for LoadError {
    fn from(kind: LoadErrorKind) -> LoadError {
        kind.err()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.section, self.offset) {
            (Some(section), Some(offset)) => write!(f, "section '{section}'+{offset:#x}: ")?,
            (Some(section), None) => write!(f, "section '{section}': ")?,
            (None, Some(offset)) => write!(f, "file offset {offset:#x}: ")?,
            (None, None) => {}
        }
        if let Some(symbol) = &self.symbol {
            write!(f, "'{symbol}': ")?;
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for LoadErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            K::NotElf(why) => write!(f, "not an ELF object: {why}"),
            K::NotElf64 => f.write_str("not a 64-bit ELF object"),
            K::BigEndian => f.write_str(
                "a big-endian object (bpfeb); bpfsim emulates a little-endian machine",
            ),
            K::NotBpf { e_type, e_machine } => write!(
                f,
                "not a BPF object: ELF type {e_type} (want 1, relocatable), machine {e_machine} (want 247)"
            ),
            K::Malformed(what) => write!(f, "malformed: {what}"),
            K::BadName => f.write_str("a name cannot be read"),
            K::NoSymbols => f.write_str("no symbol table: was the object stripped?"),
            K::ManySymbolTables => f.write_str("more than one symbol table"),
            K::TooLarge { what, limit } => write!(f, "{what}: more than {limit}"),
            K::Overlapping => f.write_str("sections overlap"),
            K::LegacyMaps => f.write_str(
                "maps defined by struct bpf_map_def: libbpf 1.0 and later take only BTF-defined maps in .maps",
            ),
            K::CorruptedProgram { size } => {
                write!(f, "a function of {size} bytes is not a whole number of instructions")
            }
            K::ProgramOutOfSection { size } => {
                write!(f, "a function of {size} bytes reaches past the end of its section")
            }
            K::StaticProgram => f.write_str("an entry program cannot be static"),
            K::NoBtf => f.write_str("BTF is required but missing"),
            K::BadBtf(why) => write!(f, "BTF is required but broken: {why}"),
            K::UnsupportedStructOps(why) => f.write_str(why),
            K::NoKernelType(name) => write!(f, "the kernel has no struct {name}"),
            K::ExternNeedsBtf => f.write_str("an extern needs BTF, and there is none"),
            K::ExternWithoutSymbol => f.write_str("BTF declares an extern that is no symbol"),
            K::UnsupportedExtern(why) => f.write_str(why),
            K::NoDatasec => f.write_str("BTF has no DATASEC for it"),
            K::BadDatasec(why) => write!(f, "BTF's DATASEC does not fit: {why}"),
            K::BadMap(why) | K::UnsupportedMap(why) | K::BadStructOps(why) | K::BadExtern(why) => f.write_str(why),
            K::ManyArenas => f.write_str("an object may have only one arena"),
            K::NoArena => f.write_str("arena variables, but no arena in .maps"),
            K::ArenaTooSmall => f.write_str("the arena is too small for its variables"),
            K::BadKconfig(why) => f.write_str(why),
            K::UnresolvedExtern(what) => write!(f, "unresolved {what}"),
            K::BadReloc(why) | K::UnsupportedReloc(why) => write!(f, "relocation: {why}"),
            K::NoSubprog { insn } => {
                write!(f, "call of instruction {insn} of .text, where no function is")
            }
            K::MissingInfo(what) => {
                write!(f, "the main program has {what} information, this subprogram has none")
            }
            K::BadExceptionCallback(why) => write!(f, "exception callback: {why}"),
            K::BadCore(why) => write!(f, "CO-RE: {why}"),
            K::NoGlobal(near) if near.is_empty() => f.write_str("no such global variable"),
            K::NoGlobal(near) => {
                write!(f, "no such global variable; near: {}", near.join(", "))
            }
            K::GlobalSize { want, got } => {
                write!(f, "the variable has {want} bytes, the value {got}")
            }
            K::BadType { id, why } => write!(f, "BTF type {id}: {why}"),
        }
    }
}

impl std::error::Error for LoadError {}
