//! BTF and BTF.ext: read and write, walk types, resolve CO-RE relocations, print declarations and values.
//!
//! | module | what it does | what it follows |
//! |---|---|---|
//! | [`Btf`], [`BtfBuilder`], [`BtfExt`] | blobs, alone or split, to types and back | libbpf's `btf.c` |
//! | [`Btf::check_as_kernel`], [`Btf::load_as_kernel`] | every rule of `BPF_BTF_LOAD`, with its errno and text | Linux's `kernel/bpf/btf.c` |
//! | [`core`] | what a relocation means against a kernel's types, and the patched instruction | libbpf's `relo_core.c` |
//! | [`fields`] | locks, timers, kptrs, lists and trees in a value | Linux's `btf_parse_fields` |
//! | [`display`] | C declarations, values as `bpftool map dump` shows them | libbpf's `btf_dump.c`, bpftool |
//! | [`vmlinux`] | the types of a 6.18 x86-64 kernel, built in | |
//!
//! Invariant: what [`Btf::parse`] has let in, every id and name leads somewhere; sizes, offsets and cycles
//! may still lie, and each function that follows them has a bound and an error for it.
//!
//! Invariant: types are decoded where they lie; a `Btf` takes little more memory than its blob.
//!
//! Invariant: nothing here reads files, the environment or the running kernel.
//!
//! ```
//! use bpfsim_btf::{BtfBuilder, Kind, display};
//!
//! let mut types = BtfBuilder::new();
//! let int = types.add_int("int", 4, 1);
//! types.add_typedef("pid_t", int);
//! let btf = types.build()?;
//! let pid = btf.find("pid_t", Kind::Typedef).expect("just added");
//! assert_eq!(btf.size_of(pid)?, 4);
//! assert_eq!(display::definition(&btf, pid)?, "typedef int pid_t");
//! # Ok::<(), bpfsim_btf::BtfError>(())
//! ```

mod btf;
mod builder;
mod check;
pub mod core;
pub mod display;
mod error;
mod ext;
pub mod fields;
mod header;
mod index;
mod list;
pub mod raw;
mod types;
mod vmlinux;
mod walk;

pub use btf::{Btf, MAX_NAME_LEN};
pub use builder::BtfBuilder;
pub use error::{BtfError, BtfErrorKind};
pub use ext::{BtfExt, CoreRelo, CoreReloKind, ExtSection, FuncInfo, LineInfo};
pub use index::essential_name;
pub use list::{Iter, List, Record};
pub use types::{
    Array, Composite, Datasec, Enumeration, Enumerator, FuncProto, Int, Kind, Linkage, Member,
    Param, Type, TypeId, VarSecinfo,
};
pub use vmlinux::vmlinux;
pub use walk::MAX_RESOLVE_DEPTH;
