//! The kinds of special fields, and how each is found.

/// What a special field is (`enum btf_field_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FieldKind {
    SpinLock,
    Timer,
    /// `__kptr_untrusted`.
    KptrUnref,
    /// `__kptr`.
    KptrRef,
    /// `__percpu_kptr`.
    KptrPercpu,
    ListHead,
    ListNode,
    RbRoot,
    RbNode,
    Refcount,
    Workqueue,
    /// `__uptr`, of task local storage.
    Uptr,
    ResSpinLock,
    TaskWork,
}

/// How each kind is found.
pub(super) struct Row {
    pub(super) kind: FieldKind,
    /// Name of the struct; none for pointers, which are told by their type tag.
    pub(super) name: Option<&'static str>,
    pub(super) tag: Option<&'static str>,
    pub(super) size: u32,
    pub(super) align: u32,
    /// A second one in the same value is an error.
    pub(super) unique: bool,
    /// `BPF_*` bit.
    pub(super) bit: u32,
}

const fn row(kind: FieldKind, name: &'static str, size: u32, align: u32, bit: u32) -> Row {
    Row {
        kind,
        name: Some(name),
        tag: None,
        size,
        align,
        unique: false,
        bit,
    }
}

const fn unique(row: Row) -> Row {
    Row {
        unique: true,
        ..row
    }
}

const fn tagged(kind: FieldKind, tag: &'static str, bit: u32) -> Row {
    Row {
        kind,
        name: None,
        tag: Some(tag),
        size: 8,
        align: 8,
        unique: false,
        bit,
    }
}

/// In the order in which `btf_get_field_type` tries names.
pub(super) const ROWS: [Row; 14] = [
    unique(row(FieldKind::SpinLock, "bpf_spin_lock", 4, 4, 1)),
    unique(row(FieldKind::ResSpinLock, "bpf_res_spin_lock", 4, 4, 4096)),
    unique(row(FieldKind::Timer, "bpf_timer", 16, 8, 2)),
    unique(row(FieldKind::Workqueue, "bpf_wq", 16, 8, 1024)),
    unique(row(FieldKind::TaskWork, "bpf_task_work", 8, 8, 8192)),
    row(FieldKind::ListHead, "bpf_list_head", 16, 8, 32),
    row(FieldKind::ListNode, "bpf_list_node", 24, 8, 64),
    row(FieldKind::RbRoot, "bpf_rb_root", 16, 8, 128),
    row(FieldKind::RbNode, "bpf_rb_node", 32, 8, 256),
    // The kernel warns and takes the last of several; that is no behaviour to build on.
    unique(row(FieldKind::Refcount, "bpf_refcount", 4, 4, 512)),
    tagged(FieldKind::KptrUnref, "kptr_untrusted", 4),
    tagged(FieldKind::KptrRef, "kptr", 8),
    tagged(FieldKind::KptrPercpu, "percpu_kptr", 16),
    tagged(FieldKind::Uptr, "uptr", 2048),
];

impl FieldKind {
    pub(super) fn row(self) -> &'static Row {
        // Every kind has a row; the first stands in for none.
        ROWS.iter().find(|r| r.kind == self).unwrap_or(&ROWS[0])
    }

    /// Bytes that the field takes (`btf_field_type_size`).
    pub fn size(self) -> u32 {
        self.row().size
    }

    /// Its bit in [`FieldMask`] (`BPF_SPIN_LOCK`, ...).
    pub fn bit(self) -> u32 {
        self.row().bit
    }

    /// The struct's name, or the pointer's type tag.
    pub fn name(self) -> &'static str {
        let row = self.row();
        row.name.or(row.tag).unwrap_or("")
    }

    /// Whether it is one of the pointers.
    pub fn is_pointer(self) -> bool {
        self.row().tag.is_some()
    }
}

/// Which kinds to look for: `BPF_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldMask(pub u32);

impl FieldMask {
    /// What `map_check_btf` looks for in a map's value.
    pub const MAP_VALUE: FieldMask = FieldMask(0x3fff & !(64 | 256));
    /// What `btf_parse_struct_metas` looks for in structs that programs allocate.
    pub const ALLOCATED: FieldMask = FieldMask(1 | 4 | 8 | 16 | 32 | 64 | 128 | 256 | 512 | 4096);

    pub(super) fn has(self, kind: FieldKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// `BPF_KPTR | BPF_UPTR`.
    pub(super) fn has_pointers(self) -> bool {
        ROWS.iter().any(|r| r.tag.is_some() && self.0 & r.bit != 0)
    }
}
