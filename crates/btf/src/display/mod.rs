//! Types and values as people read them: C declarations as `bpftool btf dump format c` writes them,
//! values as `bpftool map dump` does.

mod decl;
mod layout;
mod value;

pub use decl::{declaration, definition};
pub use value::{Value, dump_entries, parts, value};
