//! Special fields of map values: where they are, and what may not be copied.

use bpfsim_btf::fields::{self, FieldKind};
use std::ops::Range;

/// The special fields of a map's value, in order of offset (`struct btf_record`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    list: Vec<(FieldKind, Range<u32>)>,
}

impl Fields {
    pub fn new(list: &[fields::Field]) -> Fields {
        let mut list: Vec<_> = list
            .iter()
            .map(|f| (f.kind, f.offset..f.offset + f.size))
            .collect();
        list.sort_by_key(|(_, r)| r.start);
        Fields { list }
    }

    /// Byte ranges that copying a value leaves alone.
    pub fn ranges(&self) -> impl Iterator<Item = &Range<u32>> {
        self.list.iter().map(|(_, r)| r)
    }

    /// Kinds and byte ranges.
    pub fn iter(&self) -> impl Iterator<Item = (FieldKind, &Range<u32>)> {
        self.list.iter().map(|(kind, range)| (*kind, range))
    }

    /// Values own other objects: through pointers, lists or trees.
    pub fn owns(&self) -> bool {
        let owns = |kind: FieldKind| {
            let graph = matches!(kind, FieldKind::ListHead | FieldKind::RbRoot);
            graph || (kind.is_pointer() && kind != FieldKind::Uptr)
        };
        self.iter().any(|(kind, _)| owns(kind))
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Offset of the only field of a kind.
    pub fn offset(&self, is: impl Fn(&FieldKind) -> bool) -> Option<u32> {
        self.list.iter().find(|(k, _)| is(k)).map(|(_, r)| r.start)
    }

    /// Offset of the value's `bpf_spin_lock`.
    pub fn spin_lock(&self) -> Option<u32> {
        self.offset(|k| matches!(k, FieldKind::SpinLock))
    }

    /// The next piece of a value of `len` bytes that copying it writes at once, from offset `at`
    /// on: offset and length, of a word at most and without special fields.
    pub fn piece(&self, mut at: u32, len: u32) -> Option<(u32, u32)> {
        let mut end = (at / 8 + 1) * 8;
        for (_, hole) in &self.list {
            if hole.contains(&at) {
                at = hole.end;
                end = (at / 8 + 1) * 8;
            } else if hole.start > at {
                end = end.min(hole.start);
            }
        }
        let end = end.min(len);
        (at < end).then(|| (at, end - at))
    }

    pub fn has_spin_lock(&self) -> bool {
        self.offset(|k| matches!(k, FieldKind::SpinLock)).is_some()
    }
}
