//! What an object holds once it is read: programs, maps, externs, globals.

use std::sync::Arc;

use bpfsim_abi::sections::{self, AttachTarget, SecFlags, SectionDef};
use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, BtfExt, TypeId};
use bpfsim_isa::Insn;

use crate::error::LoadError;
use crate::lines::Lines;

/// A BPF object, as libbpf sees it after `bpf_object__open` and the linking of subprograms.
///
/// Nothing in it refers to a machine: maps are numbers into [`Object::maps`], externs into
/// [`Object::externs`]. CO-RE ([`Object::relocate_core`]), externs and map addresses are the
/// steps that come after, when a target is known.
#[derive(Clone, Debug)]
pub struct Object {
    /// Name that internal maps are called after (`obj->name`, at most 15 bytes).
    pub name: String,
    /// `license` section up to its first NUL, at most 63 bytes; empty if there is none.
    pub license: String,
    /// `version` section; libbpf takes the running kernel's where there is none.
    pub kern_version: Option<u32>,
    /// Entry programs, by section and then by place, as libbpf orders them.
    pub programs: Vec<Program>,
    /// Maps in libbpf's order: `.maps`, then data sections, `.kconfig`, struct_ops.
    pub maps: Vec<MapDef>,
    /// Externs in libbpf's order: `.kconfig` by alignment and size, then `.ksyms`, by name.
    pub externs: Vec<Extern>,
    /// BTF, with sections' sizes and variables' offsets filled in as libbpf does.
    pub btf: Option<Arc<Btf>>,
    /// `.BTF.ext` as it is in the file: offsets are bytes within ELF sections.
    pub btf_ext: Option<Arc<BtfExt>>,
    /// Sections that libbpf would skip, for people to see: name and size.
    pub skipped: Vec<(String, u64)>,
}

/// An entry program with every subprogram that it reaches.
#[derive(Clone, Debug)]
pub struct Program {
    /// The C function's name.
    pub name: String,
    /// ELF section, without the `?` of `SEC("?...")`.
    pub section: String,
    /// What the section name says about it.
    pub spec: SectionSpec,
    /// Whether `bpf_object__load` loads it: false for `SEC("?...")`.
    pub autoload: bool,
    /// Why subprograms could not be linked in, if they could not: libbpf would fail to load an object
    /// of which this program is to be loaded. `insns` is then the main function alone.
    pub link_error: Option<Box<LoadError>>,
    /// Slots of the main function, then of every subprogram in the order in which libbpf appends
    /// them. Calls between them are final. What [`Reloc`]s name is filled in like this: a map's
    /// `src` is `BPF_PSEUDO_MAP_FD` or `BPF_PSEUDO_MAP_VALUE` and `imm` its number in
    /// [`Object::maps`]; a kfunc call's `src` is `BPF_PSEUDO_KFUNC_CALL` and `imm` its number in
    /// [`Object::externs`].
    pub insns: Vec<Insn>,
    /// Slots of the main function; subprograms start here.
    pub main_len: usize,
    /// The functions in `insns`, by place; the first is the main function.
    pub funcs: Vec<FuncInfo>,
    /// What `insns` refers to, by instruction.
    pub relocs: Vec<Reloc>,
    /// C lines, by instruction.
    pub lines: Lines,
    /// CO-RE relocations that fall into `insns`, by instruction.
    pub core_relos: Vec<CoreReloc>,
    /// Index into `funcs` of the callback named by a decl tag `exception_callback:NAME`.
    pub exception_cb: Option<usize>,
}

/// What a section name says about a program (`struct bpf_sec_def` and what follows the `/`).
#[derive(Clone, Debug)]
pub struct SectionSpec {
    /// Program type; `Unspec` for a section that libbpf does not know, whose type a caller sets.
    pub prog_type: ProgType,
    /// Expected attach type, where the section has one.
    pub attach_type: Option<AttachType>,
    /// libbpf's flags.
    pub flags: SecFlags,
    /// The row of the table; none for a section that libbpf does not know.
    pub def: Option<&'static SectionDef>,
}

impl SectionSpec {
    /// What this section name (without `?`) says.
    pub fn of(section: &str) -> SectionSpec {
        match sections::find_section(section) {
            Some(def) => SectionSpec {
                prog_type: def.prog_type,
                attach_type: def.attach_type,
                flags: def.flags,
                def: Some(def),
            },
            None => SectionSpec {
                prog_type: ProgType::Unspec,
                attach_type: None,
                flags: SecFlags::NONE,
                def: None,
            },
        }
    }

    /// Whether it loads with `BPF_F_SLEEPABLE`.
    pub fn sleepable(&self) -> bool {
        self.flags.contains(SecFlags::SLEEPABLE)
    }

    /// Whether it loads with `BPF_F_XDP_HAS_FRAGS`.
    pub fn xdp_frags(&self) -> bool {
        self.flags.contains(SecFlags::XDP_FRAGS)
    }

    /// Whether its target is a BTF id.
    pub fn attach_btf(&self) -> bool {
        self.flags.contains(SecFlags::ATTACH_BTF)
    }
}

impl Program {
    /// Says what type it is, whatever its section's name says, which then counts no more
    /// (`bpf_program__set_type`).
    pub fn set_type(&mut self, prog_type: ProgType) {
        if self.spec.prog_type != prog_type {
            self.spec = SectionSpec {
                prog_type,
                attach_type: self.spec.attach_type,
                flags: SecFlags::NONE,
                def: None,
            };
        }
    }

    /// Says what it is loaded to attach to (`bpf_program__set_expected_attach_type`).
    pub fn set_expected_attach_type(&mut self, attach_type: AttachType) {
        self.spec.attach_type = Some(attach_type);
    }

    /// What the section name says it attaches to.
    pub fn attach_target(&self) -> Option<AttachTarget<'_>> {
        sections::attach_target(self.spec.def?, &self.section)
    }

    /// The function that holds this instruction.
    pub fn func_at(&self, insn: usize) -> Option<&FuncInfo> {
        let after = self.funcs.partition_point(|f| f.start_insn <= insn);
        self.funcs.get(after.checked_sub(1)?)
    }

    /// Where the function of this index ends (exclusive).
    pub fn func_end(&self, func: usize) -> usize {
        match self.funcs.get(func + 1) {
            Some(next) => next.start_insn,
            None => self.insns.len(),
        }
    }

    /// The relocation of this instruction.
    pub fn reloc_at(&self, insn: usize) -> Option<&Reloc> {
        let at = self.relocs.partition_point(|r| r.insn < insn);
        self.relocs.get(at).filter(|r| r.insn == insn)
    }
}

/// A function of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuncInfo {
    /// Symbol's name.
    pub name: String,
    /// Its first instruction.
    pub start_insn: usize,
    /// Its `FUNC` in BTF; none where `.BTF.ext` has no record of it.
    pub type_id: Option<TypeId>,
    /// Whether the verifier is to see it as global: checked by itself, by its prototype alone.
    /// A hidden symbol counts as static, as libbpf has it.
    pub global: bool,
}

/// Something that an instruction refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloc {
    /// Instruction (the first slot of an `ld_imm64`).
    pub insn: usize,
    /// What.
    pub kind: RelocKind,
}

/// What an instruction refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocKind {
    /// An `ld_imm64` of a map (`BPF_PSEUDO_MAP_FD`).
    MapFd {
        /// Index into [`Object::maps`].
        map: usize,
    },
    /// An `ld_imm64` of an address in the value of a global data map or in an arena
    /// (`BPF_PSEUDO_MAP_VALUE`).
    MapValue {
        /// Index into [`Object::maps`].
        map: usize,
        /// Bytes into the value.
        off: u32,
    },
    /// An `ld_imm64` of a function (`BPF_PSEUDO_FUNC`); `imm` is already relative.
    Func {
        /// The function's first instruction in this program.
        insn: usize,
    },
    /// A call of a function of this program; `imm` is already relative.
    Call {
        /// The function's first instruction in this program.
        insn: usize,
    },
    /// An `ld_imm64` of a `.ksyms` variable, to be filled in ([`Object::resolve_externs`]). One of
    /// `.kconfig` is a [`RelocKind::MapValue`] of the `.kconfig` map.
    ExternVar {
        /// Index into [`Object::externs`].
        ext: usize,
    },
    /// A call of a kfunc (`BPF_PSEUDO_KFUNC_CALL`).
    ExternCall {
        /// Index into [`Object::externs`].
        ext: usize,
    },
}

/// A CO-RE relocation of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreReloc {
    /// Instruction in the program.
    pub insn: usize,
    /// Record in `.BTF.ext`.
    pub record: bpfsim_btf::CoreRelo,
}

/// Where a map comes from (`enum libbpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapKind {
    /// Defined in `.maps`.
    User,
    /// `.data` or `.data.*`.
    Data,
    /// `.rodata` or `.rodata.*`: read only and, once loaded, frozen.
    Rodata,
    /// `.bss` or `.bss.*`.
    Bss,
    /// `.kconfig`: read only and, once loaded, frozen.
    Kconfig,
    /// A variable of `.struct_ops` or `.struct_ops.link`.
    StructOps,
}

/// A map to be made.
#[derive(Clone, Debug)]
pub struct MapDef {
    /// Name, as libbpf's users see it (`bpf_map__name`); see [`MapDef::kernel_name`].
    pub name: String,
    /// Where it comes from.
    pub kind: MapKind,
    /// ELF section that defines it.
    pub section: String,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// `max_entries`; ring buffers' are rounded up to a power-of-2 number of pages.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub map_flags: u32,
    /// `map_extra`.
    pub map_extra: u64,
    /// `numa_node`; counts only with `BPF_F_NUMA_NODE`.
    pub numa_node: u32,
    /// Whether it is to be pinned by name (`LIBBPF_PIN_BY_NAME`).
    pub pin_by_name: bool,
    /// Key's type in BTF.
    pub key_type: Option<TypeId>,
    /// Value's type in BTF; a data section's `DATASEC`.
    pub value_type: Option<TypeId>,
    /// The template of the maps within an array or hash of maps.
    pub inner: Option<Box<MapDef>>,
    /// Initial slots of an array or hash of maps or of a program array (`__array(values, ...)`).
    pub values: Vec<InitSlot>,
    /// Initial bytes of a data section or of a struct_ops struct, of an arena's variables. What lies
    /// between their end and the end of the value is zero (`.bss` has none).
    pub data: Vec<u8>,
    /// For a struct_ops map.
    pub struct_ops: Option<StructOps>,
    /// Whether `bpf_object__load` makes it: false for `SEC("?.struct_ops")`.
    pub autocreate: bool,
}

/// One initial slot of a map of maps or programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitSlot {
    /// The key.
    pub key: u32,
    /// What lies there.
    pub value: SlotValue,
}

/// What an initial slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotValue {
    /// A map, by its index in [`Object::maps`].
    Map(usize),
    /// A program, by its index in [`Object::programs`].
    Program(usize),
}

/// What is known of a struct_ops variable before a kernel's BTF is.
#[derive(Clone, Debug)]
pub struct StructOps {
    /// The struct in the object's BTF.
    pub type_id: TypeId,
    /// Its name, without a CO-RE flavour.
    pub type_name: String,
    /// Whether it lies in `.struct_ops.link` (`BPF_F_LINK`).
    pub link: bool,
    /// Function pointers: the member's number and the program in [`Object::programs`].
    pub progs: Vec<(usize, usize)>,
}

/// Something that the kernel or the configuration provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extern {
    /// Symbol.
    pub name: String,
    /// What.
    pub kind: ExternKind,
    /// `__weak`: may be missing.
    pub weak: bool,
    /// Its `VAR` or `FUNC` in BTF.
    pub btf_id: TypeId,
}

/// What an extern stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternKind {
    /// A kernel variable of a type known (a typed ksym), or `extern const void` (typeless).
    Ksym {
        /// Type without modifiers and typedefs; none for a typeless one.
        ty: Option<TypeId>,
    },
    /// A kernel function.
    Kfunc {
        /// Its `FUNC_PROTO`.
        proto: TypeId,
    },
    /// A kernel configuration value, or a `LINUX_*` one of libbpf's own.
    Kconfig {
        /// How its value is written.
        ty: KconfigType,
        /// Bytes.
        size: u32,
        /// Alignment in bytes.
        align: u32,
        /// Offset within the `.kconfig` map's value.
        off: u32,
        /// Whether it is a signed integer.
        signed: bool,
    },
}

impl Extern {
    /// The name without a CO-RE flavour (`bpf_foo___v2` stands for `bpf_foo`).
    pub fn essential_name(&self) -> &str {
        bpfsim_btf::essential_name(&self.name)
    }
}

/// How a `.kconfig` value is written (`enum kcfg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum KconfigType {
    Char,
    Bool,
    Int,
    /// `enum libbpf_tristate`.
    Tristate,
    CharArray,
}

impl Object {
    /// The entry program of this name.
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == name)
    }

    /// Index of the map of this name (`bpf_object__find_map_by_name`): a name that starts with a dot
    /// is that of a data section.
    pub fn map_index(&self, name: &str) -> Option<usize> {
        self.maps.iter().position(|m| match name.starts_with('.') {
            true => m.kind.is_internal() && m.section == name,
            false => m.name == name,
        })
    }

    /// The map of this name.
    pub fn map(&self, name: &str) -> Option<&MapDef> {
        self.maps.get(self.map_index(name)?)
    }

    /// Index of the `.kconfig` map.
    pub fn kconfig_map(&self) -> Option<usize> {
        self.maps.iter().position(|m| m.kind == MapKind::Kconfig)
    }

    /// `bpf_object_adjust_struct_ops_autoload`: a struct_ops program loads if some struct_ops map
    /// that uses it is made; one that no map uses stays as it is. Call after changing `autocreate`.
    pub fn adjust_struct_ops_autoload(&mut self) {
        let mut wanted = vec![None; self.programs.len()];
        for map in &self.maps {
            for &(_, prog) in map.struct_ops.iter().flat_map(|s| &s.progs) {
                if let Some(w) = wanted.get_mut(prog) {
                    *w = Some(w.unwrap_or(false) || map.autocreate);
                }
            }
        }
        for (program, wanted) in self.programs.iter_mut().zip(wanted) {
            if let Some(wanted) = wanted
                && program.spec.prog_type == ProgType::StructOps
            {
                program.autoload = wanted;
            }
        }
    }
}

impl MapDef {
    /// The name that the kernel gets: at most 15 bytes, and for `.data.x` and its like only such
    /// bytes as the kernel takes.
    pub fn kernel_name(&self) -> String {
        let mut name = String::new();
        for c in self.name.chars() {
            if name.len() + c.len_utf8() > 15 {
                break;
            }
            let fine = c.is_ascii_alphanumeric() || c == '_' || c == '.';
            name.push(if self.kind.is_internal() && !fine {
                '_'
            } else {
                c
            });
        }
        name
    }
}

impl MapKind {
    /// Whether libbpf makes it from a section of variables.
    pub fn is_internal(self) -> bool {
        !matches!(self, MapKind::User | MapKind::StructOps)
    }
}
