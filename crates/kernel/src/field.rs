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

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Offset of the only field of a kind.
    pub fn offset(&self, is: impl Fn(&FieldKind) -> bool) -> Option<u32> {
        self.list.iter().find(|(k, _)| is(k)).map(|(_, r)| r.start)
    }

    pub fn has_spin_lock(&self) -> bool {
        self.offset(|k| matches!(k, FieldKind::SpinLock)).is_some()
    }
}
