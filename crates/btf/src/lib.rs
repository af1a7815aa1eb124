//! BTF and BTF.ext: read and write, walk types, resolve CO-RE relocations, print declarations and values.

mod btf;
mod error;
mod index;
pub mod raw;
mod types;

pub use btf::{Btf, MAX_NAME_LEN};
pub use error::{BtfError, BtfErrorKind};
pub use index::essential_name;
pub use types::{
    Array, Composite, Datasec, Enumeration, Enumerator, FuncProto, Int, Iter, Kind, Linkage, List,
    Member, Param, Record, Type, TypeId, VarSecinfo,
};
