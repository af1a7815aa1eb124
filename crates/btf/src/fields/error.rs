//! Why a value has no special fields.

use super::check::PAGE_SIZE;
use crate::error::BtfError;
use crate::types::TypeId;

/// Why there are no special fields where the programmer may have meant some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// The value is neither a struct nor a section.
    #[error("a value of type {0} cannot have special fields")]
    NotAStruct(TypeId),
    /// A second timer, lock, ...
    #[error("second {0} in one value")]
    Duplicate(&'static str),
    /// More than 11.
    #[error("more than 11 special fields")]
    TooMany,
    /// Structs and arrays nested more than 32 deep.
    #[error("structs or arrays are nested more than 32 deep")]
    TooDeep,
    /// Nested so that a search would take for ever.
    #[error("structs are nested so that the search takes too long")]
    TooMuchWork,
    /// Arrays of what may be there only once.
    #[error("array of {0}")]
    Array(&'static str),
    /// A bit-field that does not start at a byte; no field is found in such a value.
    #[error("member {member} of {ty} does not start at a byte")]
    UnalignedMember {
        /// The struct.
        ty: TypeId,
        /// The member's index.
        member: u32,
    },
    /// A pointer's tags are not exactly one that is known.
    #[error("pointer at offset {0} has a type tag that is unknown, or several")]
    PointerTag(u32),
    /// A tagged pointer to what is no struct.
    #[error("kptr at offset {0} does not point to a struct")]
    PointerTarget(u32),
    /// No kfunc releases such objects of the kernel.
    #[error("kptr at offset {offset}: the kernel has no destructor for struct {name}")]
    NoDestructor {
        /// Bytes from the start of the value.
        offset: u32,
        /// The kernel's struct.
        name: String,
    },
    /// `__contains(type, node)` is missing, doubled or malformed, or the member is no node.
    #[error("list or tree at offset {0} without a valid 'contains:' tag")]
    Contains(u32),
    /// `__contains(type, node)` names a struct or a member that is not there.
    #[error("'contains:' tag of the list or tree at offset {0} names what is not there")]
    ContainsNothing(u32),
    /// A field that reaches into the next, or beyond the value.
    #[error("{0} overlaps another field or the end of the value")]
    Overlap(&'static str),
    /// A list or a tree without a lock beside it.
    #[error("bpf_list_head and bpf_rb_root need a bpf_spin_lock in the same value")]
    NoSpinLock,
    /// Locks of both kinds.
    #[error("bpf_spin_lock and bpf_res_spin_lock in one value")]
    TwoLocks,
    /// A list or tree of objects that own objects that own objects.
    #[error("objects in the list or tree at offset {0} have lists or trees themselves")]
    OwnershipCycle(u32),
    /// User memory is pinned by the page.
    #[error("uptr at offset {offset} points to a struct of {size} bytes")]
    UptrSize {
        /// Bytes from the start of the value.
        offset: u32,
        /// Bytes of the struct.
        size: u32,
    },
    /// A node of a list and of a tree without a reference count.
    #[error("an object with bpf_list_node and bpf_rb_node needs a bpf_refcount")]
    NoRefcount,
    /// The BTF itself.
    #[error(transparent)]
    Btf(#[from] BtfError),
}

impl FieldsError {
    /// What `btf_parse_fields` returns.
    pub fn errno(&self) -> i32 {
        match self {
            FieldsError::Duplicate(_)
            | FieldsError::TooMany
            | FieldsError::TooDeep
            | FieldsError::TooMuchWork => 7,
            FieldsError::UptrSize { size, .. } if *size > PAGE_SIZE => 7,
            FieldsError::OwnershipCycle(_) => 40,
            FieldsError::NoDestructor { .. } | FieldsError::ContainsNothing(_) => 2,
            FieldsError::Overlap(_) => 17,
            _ => 22,
        }
    }
}
