//! BPF ELF objects to programs, maps and relocations, as libbpf reads them.
//!
//! [`load`] is a pure function of bytes: it opens no file and asks nothing of the machine. What it
//! gives is what libbpf has after `bpf_object__open` and the linking of subprograms. The steps that
//! need a target follow on the [`Object`]: values of `.kconfig` ([`Object::set_kconfig`]), CO-RE
//! ([`Object::relocate_core`]), externs ([`Object::resolve_externs`]), struct_ops values
//! ([`Object::kern_struct_ops`]) and maps' addresses.
//!
//! Whatever the bytes are, the answer is an [`Object`] or a [`LoadError`] that says what is wrong
//! and where; time and memory are bounded by the input's length and by the limits that
//! [`LoadErrorKind::TooLarge`] names.

mod btf_edit;
mod btf_fixup;
mod code;
mod core_relocs;
mod dwarf;
pub mod elf;
mod error;
mod exception_cb;
mod externs;
mod globals;
mod kconfig;
mod lines;
mod link;
mod map_def;
mod maps;
mod object;
mod open;
mod relocs;
mod struct_ops;
mod struct_ops_kern;

pub use crate::code::{CodeReloc, CodeSection, Label, code_sections};
pub use crate::core_relocs::{CoreOutcome, CoreReport};
pub use crate::error::{Errno, LoadError, LoadErrorKind};
pub use crate::externs::{ExternValue, POISON_CALL_KFUNC_BASE, POISON_LDIMM64_MAP_BASE};
pub use crate::globals::Global;
pub use crate::kconfig::Kconfig;
pub use crate::lines::{LineInfo, Lines};
pub use crate::object::{
    CoreReloc, Extern, ExternKind, FuncInfo, InitSlot, KconfigType, MapDef, MapKind, Object,
    Program, Reloc, RelocKind, SectionSpec, SlotValue, StructOps,
};
pub use crate::struct_ops_kern::{KernMember, KernStructOps};

/// What a caller may say about an object before it is read (`struct bpf_object_open_opts`).
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The object's name, for the names of its data maps; cut to 15 bytes. A file's name up to its
    /// first dot is what libbpf takes.
    pub name: String,
    /// Ignore attributes of maps that libbpf does not know (`relaxed_maps`).
    pub relaxed_maps: bool,
}

/// Reads an object that has no name: its data maps are called `.bss`, `.data` and so on.
///
/// # Errors
/// What is wrong with the bytes, and where.
pub fn load(bytes: &[u8]) -> Result<Object, LoadError> {
    load_with(bytes, &LoadOptions::default())
}

/// Reads an object.
///
/// # Errors
/// What is wrong with the bytes, and where.
pub fn load_with(bytes: &[u8], options: &LoadOptions) -> Result<Object, LoadError> {
    let mut open = open::Open::new(bytes, options)?;
    open.collect_externs()?;
    open.fix_btf()?;
    let vars = open.init_maps()?;
    let slots = open.collect_relocs(&vars)?;
    open.link(slots)
}
