//! Special fields of map values and of allocated objects: timers, locks, kptrs, lists, trees
//! (`btf_parse_fields` of 6.18, quirks included).
//!
//! The kernel goes by the member's type as it stands: a `bpf_timer` behind a typedef or `const`, in a
//! union, at an odd offset or of another size is plain bytes. Whatever is an error here is none when a
//! map is created: the map just has no special fields, and programs that want one are refused.

use crate::btf::Btf;
use crate::error::BtfError;
use crate::types::{Kind, Type, TypeId};
use crate::walk::MAX_RESOLVE_DEPTH;

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
struct Row {
    kind: FieldKind,
    /// Name of the struct; none for pointers, which are told by their type tag.
    name: Option<&'static str>,
    tag: Option<&'static str>,
    size: u32,
    align: u32,
    /// A second one in the same value is an error.
    unique: bool,
    /// `BPF_*` bit.
    bit: u32,
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
const ROWS: [Row; 14] = [
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
    fn row(self) -> &'static Row {
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

    fn has(self, kind: FieldKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// `BPF_KPTR | BPF_UPTR`.
    fn has_pointers(self) -> bool {
        ROWS.iter().any(|r| r.tag.is_some() && self.0 & r.bit != 0)
    }
}

/// A special field (`struct btf_field`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Bytes from the start of the value.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// What it leads to.
    pub to: FieldTarget,
}

/// What a pointer, a list or a tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldTarget {
    /// Nothing: a lock, a timer, a node, ...
    None,
    /// A pointer to a struct of the program's own BTF, modifiers skipped.
    Struct(TypeId),
    /// A list or tree of these structs, linked through the node at this offset.
    Graph {
        /// Struct of the program's own BTF.
        value: TypeId,
        /// Bytes from the start of that struct to the node.
        node_offset: u32,
    },
}

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

/// Destructors that 6.18 registers for kptrs (`register_btf_id_dtor_kfuncs`).
const DESTRUCTORS: [(&str, &str); 6] = [
    ("task_struct", "bpf_task_release_dtor"),
    ("cgroup", "bpf_cgroup_release_dtor"),
    ("bpf_cpumask", "bpf_cpumask_release_dtor"),
    ("bpf_crypto_ctx", "bpf_crypto_ctx_release_dtor"),
    ("prog_test_ref_kfunc", "bpf_kfunc_call_test_release_dtor"),
    ("prog_test_member", "bpf_kfunc_call_memb_release_dtor"),
];

/// What a uptr may point to at most.
const PAGE_SIZE: u32 = 4096;
/// `BTF_FIELDS_MAX`.
const MAX_FIELDS: usize = 11;
/// Members that are looked at; structs of size 0 can be nested without end.
pub(crate) const WORK_LIMIT: u32 = 1 << 24;

/// Special fields of a map's value, in order of offset; none if there are none.
///
/// # Errors
/// As [`parse_fields_in`].
pub fn parse_fields(btf: &Btf, value_type: TypeId) -> Result<Vec<Field>, FieldsError> {
    parse_fields_in(btf, value_type, FieldMask::MAP_VALUE, None)
}

/// Special fields of a struct (or of the section of global variables), in order of offset.
///
/// With a `kernel`, kptrs to structs of the kernel are held to its destructors.
///
/// # Errors
/// Where `btf_parse_fields` gives one. `map_create` takes that for "no special fields".
pub fn parse_fields_in(
    btf: &Btf,
    value_type: TypeId,
    mask: FieldMask,
    kernel: Option<&Btf>,
) -> Result<Vec<Field>, FieldsError> {
    search(btf, value_type, mask, kernel, &mut { WORK_LIMIT })
}

/// As [`parse_fields_in`], with a bound on the work that several calls share.
pub(crate) fn search(
    btf: &Btf,
    value_type: TypeId,
    mask: FieldMask,
    kernel: Option<&Btf>,
    work: &mut u32,
) -> Result<Vec<Field>, FieldsError> {
    let (id, ty) = btf.resolve(value_type)?;
    let mut search = Search {
        btf,
        mask,
        seen: 0,
        work,
    };
    let mut found = Vec::new();
    let value_size = match ty {
        Type::Struct(c) => {
            search.members(id, 0, MAX_FIELDS, &mut found)?;
            c.size
        }
        Type::Datasec(d) => {
            for var in d.vars {
                let Some(Type::Var { ty, .. }) = btf.ty(var.ty) else {
                    continue;
                };
                let place = Place {
                    owner: var.ty,
                    component: -1,
                    offset: var.offset,
                    expected: var.size,
                };
                search.one(&place, ty, 0, MAX_FIELDS, &mut found)?;
            }
            d.size
        }
        _ => return Err(FieldsError::NotAStruct(value_type)),
    };
    check(btf, &found, value_size, kernel)?;
    let mut fields: Vec<Field> = Vec::with_capacity(found.len());
    for hit in found {
        fields.push(Field {
            kind: hit.kind,
            offset: hit.offset,
            size: hit.kind.size(),
            to: target(btf, &hit)?,
        });
    }
    fields.sort_by_key(|f| f.offset);
    Ok(fields)
}

/// A field that was found (`struct btf_field_info`).
#[derive(Clone, Debug)]
struct Hit {
    kind: FieldKind,
    offset: u32,
    /// Of a pointer, the struct; of a list or tree, its element.
    to: TypeId,
    node: String,
}

/// Where a member or variable is.
struct Place {
    /// The struct or the variable, which may carry `contains:` tags.
    owner: TypeId,
    /// The member's index; -1 for a variable.
    component: i32,
    offset: u32,
    /// Size that the section gives the variable; 0 for a member.
    expected: u32,
}

struct Search<'a> {
    btf: &'a Btf,
    mask: FieldMask,
    /// Unique kinds that were met, even if they were then ignored.
    seen: u32,
    work: &'a mut u32,
}

impl Search<'_> {
    fn spend(&mut self, work: u32) -> Result<(), FieldsError> {
        *self.work = self
            .work
            .checked_sub(work)
            .ok_or(FieldsError::TooMuchWork)?;
        Ok(())
    }

    /// `btf_find_struct_field`; pushes no more than `room`.
    fn members(
        &mut self,
        id: TypeId,
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let Some(composite) = self.btf.ty(id).and_then(|t| t.composite()) else {
            return Ok(());
        };
        let start = out.len();
        for (i, member) in composite.members.iter().enumerate() {
            self.spend(1)?;
            if member.bit_offset % 8 != 0 {
                let member = i as u32;
                return Err(FieldsError::UnalignedMember { ty: id, member });
            }
            let place = Place {
                owner: id,
                component: i as i32,
                offset: member.bit_offset / 8,
                expected: 0,
            };
            let left = room - (out.len() - start);
            self.one(&place, member.ty, level, left, out)?;
        }
        Ok(())
    }

    /// `btf_find_field_one`: a member, a variable, or an array of them.
    fn one(
        &mut self,
        place: &Place,
        ty: TypeId,
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let (elem, nelems) = self.flatten(ty)?;
        if nelems == 0 {
            return Ok(());
        }
        let ty = self.btf.get(elem)?;
        let Some(row) = self.kind_of(&ty)? else {
            let Type::Struct(c) = ty else {
                return Ok(());
            };
            if place.expected != 0 && place.expected != c.size.wrapping_mul(nelems) {
                return Ok(());
            }
            return self.nested(place.offset, elem, (nelems, c.size), level, room, out);
        };
        let fits = place.expected == 0 || place.expected == row.size.wrapping_mul(nelems);
        if !fits || !place.offset.is_multiple_of(row.align) {
            return Ok(());
        }
        let hit = match row.kind {
            kind if kind.is_pointer() => self.pointer(place, &ty)?,
            _ if ty.composite().map(|c| c.size) != Some(row.size) => None,
            _ if ty.kind() != Kind::Struct => None,
            FieldKind::ListHead | FieldKind::RbRoot => Some(self.graph_root(place, row.kind)?),
            kind => Some(Hit {
                kind,
                offset: place.offset,
                to: TypeId::VOID,
                node: String::new(),
            }),
        };
        let Some(hit) = hit else {
            return Ok(());
        };
        if room == 0 {
            return Err(FieldsError::TooMany);
        }
        out.push(hit);
        repeat(out, 1, nelems, row.size, room)
    }

    /// Element type and number of elements of nested arrays; the type itself and 1 for others.
    fn flatten(&self, ty: TypeId) -> Result<(TypeId, u32), FieldsError> {
        let (mut at, mut nelems) = (ty, 1u32);
        for _ in 0..MAX_RESOLVE_DEPTH {
            match self.btf.get(at)? {
                Type::Array(array) => {
                    nelems = nelems.wrapping_mul(array.nelems);
                    at = array.elem;
                }
                _ => return Ok((at, nelems)),
            }
        }
        Err(FieldsError::TooDeep)
    }

    /// `btf_get_field_type`: by name, and any pointer for a kptr to be.
    fn kind_of(&mut self, ty: &Type<'_>) -> Result<Option<&'static Row>, FieldsError> {
        let name = ty.name();
        for row in &ROWS {
            if row.name == Some(name) && self.mask.has(row.kind) {
                if row.unique && self.seen & row.bit != 0 {
                    return Err(FieldsError::Duplicate(row.kind.name()));
                }
                self.seen |= row.bit;
                return Ok(Some(row));
            }
        }
        let may_be_pointer = self.mask.has_pointers() && ty.kind() != Kind::Struct;
        Ok(may_be_pointer.then(|| FieldKind::KptrRef.row()))
    }

    /// `btf_find_nested_struct`.
    fn nested(
        &mut self,
        offset: u32,
        id: TypeId,
        (nelems, size): (u32, u32),
        level: usize,
        room: usize,
        out: &mut Vec<Hit>,
    ) -> Result<(), FieldsError> {
        let level = level + 1;
        if level >= MAX_RESOLVE_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        let start = out.len();
        self.members(id, level, room, out)?;
        let count = out.len() - start;
        // Until here offsets count from the nested struct: so does the test of their alignment.
        for hit in &mut out[start..] {
            hit.offset = hit.offset.wrapping_add(offset);
        }
        match count {
            0 => Ok(()),
            _ => repeat(out, count, nelems, size, room),
        }
    }

    /// `btf_find_kptr`.
    fn pointer(&self, place: &Place, ty: &Type<'_>) -> Result<Option<Hit>, FieldsError> {
        pointer(self.btf, self.mask, place.offset, ty)
    }

    /// `btf_find_graph_root`: `contains:TYPE:NODE` on the member.
    fn graph_root(&mut self, place: &Place, kind: FieldKind) -> Result<Hit, FieldsError> {
        let bad = || FieldsError::Contains(place.offset);
        self.spend(self.btf.type_count())?;
        let mut tags = (1..self.btf.type_count()).filter_map(|id| {
            match self.btf.reference(TypeId(id))? {
                (crate::raw::kind::DECL_TAG, ty) if ty == place.owner => {}
                _ => return None,
            }
            match self.btf.ty(TypeId(id))? {
                Type::DeclTag {
                    name,
                    component_idx,
                    ..
                } if component_idx == place.component => name.strip_prefix("contains:"),
                _ => None,
            }
        });
        let (Some(tag), None) = (tags.next(), tags.next()) else {
            return Err(bad());
        };
        let (value, node) = tag.split_once(':').ok_or_else(bad)?;
        let to = self.btf.find(value, Kind::Struct);
        let to = to.ok_or(FieldsError::ContainsNothing(place.offset))?;
        match node {
            "" => Err(bad()),
            node => Ok(Hit {
                kind,
                offset: place.offset,
                to,
                node: node.to_owned(),
            }),
        }
    }
}

/// `btf_find_kptr`: a pointer whose target carries one of the tags.
fn pointer(
    btf: &Btf,
    mask: FieldMask,
    offset: u32,
    ty: &Type<'_>,
) -> Result<Option<Hit>, FieldsError> {
    let ty = match *ty {
        Type::Volatile { to } => btf.get(to)?,
        ty => ty,
    };
    let Type::Ptr { to } = ty else {
        return Ok(None);
    };
    let Type::TypeTag {
        name,
        to,
        is_attr: false,
    } = btf.get(to)?
    else {
        return Ok(None);
    };
    let row = ROWS.iter().find(|r| r.tag == Some(name));
    let several = matches!(btf.get(to)?, Type::TypeTag { .. });
    let Some(row) = row.filter(|_| !several) else {
        return Err(FieldsError::PointerTag(offset));
    };
    if !mask.has(row.kind) {
        return Ok(None);
    }
    let (to, ty) = btf.resolve(to)?;
    match ty {
        Type::Struct(_) => Ok(Some(Hit {
            kind: row.kind,
            offset,
            to,
            node: String::new(),
        })),
        _ => Err(FieldsError::PointerTarget(offset)),
    }
}

/// Whether a member of this type is a kptr.
pub(crate) fn is_kptr(btf: &Btf, id: TypeId) -> bool {
    let kptrs = FieldMask(4 | 8 | 16);
    let found = btf.get(id).map_err(FieldsError::from);
    let found = found.and_then(|ty| pointer(btf, kptrs, 0, &ty));
    matches!(found, Ok(Some(_)))
}

/// `btf_repeat_fields`: the last `count` hits once per element of an array.
fn repeat(
    out: &mut Vec<Hit>,
    count: usize,
    nelems: u32,
    size: u32,
    room: usize,
) -> Result<(), FieldsError> {
    if nelems <= 1 {
        return Ok(());
    }
    let start = out.len() - count;
    for hit in &out[start..] {
        let graph = matches!(hit.kind, FieldKind::ListHead | FieldKind::RbRoot);
        if !graph && !hit.kind.is_pointer() {
            return Err(FieldsError::Array(hit.kind.name()));
        }
    }
    if count.saturating_mul(nelems as usize) > room {
        return Err(FieldsError::TooMany);
    }
    for i in 1..nelems {
        for j in 0..count {
            let mut hit = out[start + j].clone();
            hit.offset = hit.offset.wrapping_add(i.wrapping_mul(size));
            out.push(hit);
        }
    }
    Ok(())
}

/// `btf_check_and_fixup_fields`: what a value with these fields may own. Unlike the errors of
/// [`parse_fields`], these refuse the map.
///
/// # Errors
/// Ownership that may form a cycle, and user pointers to what is no part of a page.
pub fn check_ownership(btf: &Btf, fields: &[Field]) -> Result<(), FieldsError> {
    let is_node = |f: &Field| matches!(f.kind, FieldKind::ListNode | FieldKind::RbNode);
    let is_root = |f: &Field| matches!(f.kind, FieldKind::ListHead | FieldKind::RbRoot);
    let owned = fields.iter().any(is_node);
    for field in fields {
        match field.to {
            FieldTarget::Struct(to) if field.kind == FieldKind::Uptr => {
                let size = btf.size_of(to)?;
                if size == 0 || size > PAGE_SIZE {
                    let offset = field.offset;
                    return Err(FieldsError::UptrSize { offset, size });
                }
            }
            FieldTarget::Graph { value, .. } if owned => {
                let inner = parse_fields_in(btf, value, FieldMask::ALLOCATED, None)?;
                if inner.iter().any(is_root) {
                    return Err(FieldsError::OwnershipCycle(field.offset));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The rules between fields, in the kernel's order.
fn check(
    btf: &Btf,
    found: &[Hit],
    value_size: u32,
    kernel: Option<&Btf>,
) -> Result<(), FieldsError> {
    let mut next = 0u64;
    for hit in found {
        let end = u64::from(hit.offset) + u64::from(hit.kind.size());
        if end > u64::from(value_size) || u64::from(hit.offset) < next {
            return Err(FieldsError::Overlap(hit.kind.name()));
        }
        next = end;
        if let (FieldKind::KptrRef, Some(kernel)) = (hit.kind, kernel) {
            check_destructor(btf, hit, kernel)?;
        }
        target(btf, hit)?;
    }
    let has = |kinds: &[FieldKind]| found.iter().any(|h| kinds.contains(&h.kind));
    if has(&[FieldKind::SpinLock]) && has(&[FieldKind::ResSpinLock]) {
        return Err(FieldsError::TwoLocks);
    }
    let graph = has(&[FieldKind::ListHead, FieldKind::RbRoot]);
    if graph && !has(&[FieldKind::SpinLock, FieldKind::ResSpinLock]) {
        return Err(FieldsError::NoSpinLock);
    }
    let both = has(&[FieldKind::ListNode]) && has(&[FieldKind::RbNode]);
    if both && !has(&[FieldKind::Refcount]) {
        return Err(FieldsError::NoRefcount);
    }
    Ok(())
}

/// `btf_parse_kptr`: a struct that the kernel does not have is one that the program allocates.
fn check_destructor(btf: &Btf, hit: &Hit, kernel: &Btf) -> Result<(), FieldsError> {
    let name = btf.name_of(hit.to);
    if kernel.find(name, Kind::Struct).is_none() {
        return Ok(());
    }
    let row = DESTRUCTORS.iter().find(|(of, _)| *of == name);
    match row.and_then(|(_, dtor)| kernel.find(dtor, Kind::Func)) {
        Some(_) => Ok(()),
        None => Err(FieldsError::NoDestructor {
            offset: hit.offset,
            name: name.to_owned(),
        }),
    }
}

/// `btf_parse_graph_root`: the node in the element.
fn target(btf: &Btf, hit: &Hit) -> Result<FieldTarget, FieldsError> {
    let node_kind = match hit.kind {
        FieldKind::ListHead => FieldKind::ListNode,
        FieldKind::RbRoot => FieldKind::RbNode,
        kind if kind.is_pointer() => return Ok(FieldTarget::Struct(hit.to)),
        _ => return Ok(FieldTarget::None),
    };
    let bad = || FieldsError::Contains(hit.offset);
    let value = btf.ty(hit.to).and_then(|t| t.composite()).ok_or_else(bad)?;
    let mut nodes = value.members.iter().filter(|m| m.name == hit.node);
    let node = match (nodes.next(), nodes.next()) {
        (Some(node), None) => node,
        (None, _) => return Err(FieldsError::ContainsNothing(hit.offset)),
        _ => return Err(bad()),
    };
    let is_node = match btf.get(node.ty)? {
        Type::Struct(c) => c.name == node_kind.name(),
        _ => false,
    };
    let align = node_kind.row().align;
    if !is_node || node.bit_offset % 8 != 0 || node.bit_offset / 8 % align != 0 {
        return Err(bad());
    }
    Ok(FieldTarget::Graph {
        value: hit.to,
        node_offset: node.bit_offset / 8,
    })
}
