//! BTF and BTF.ext: read and write, walk types, resolve CO-RE relocations, print declarations and values.

mod btf;
mod builder;
mod check;
pub mod core;
pub mod display;
mod error;
mod ext;
pub mod fields;
mod index;
pub mod raw;
mod types;
mod vmlinux;
mod walk;

pub use btf::{Btf, MAX_NAME_LEN};
pub use builder::BtfBuilder;
pub use error::{BtfError, BtfErrorKind};
pub use ext::{BtfExt, CoreRelo, CoreReloKind, ExtSection, FuncInfo, LineInfo};
pub use index::essential_name;
pub use types::{
    Array, Composite, Datasec, Enumeration, Enumerator, FuncProto, Int, Iter, Kind, Linkage, List,
    Member, Param, Record, Type, TypeId, VarSecinfo,
};
pub use vmlinux::vmlinux;
pub use walk::MAX_RESOLVE_DEPTH;
