//! Types by name: a hash table over essential names, so that one index serves exact look-ups and the
//! search for CO-RE candidates, whatever flavour they are.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::btf::Btf;
use crate::types::TypeId;

/// No further type in this bucket.
const END: u32 = u32::MAX;

/// Chained buckets over a BTF's own types. The hash has fixed keys: the same blob gives the same table.
#[derive(Debug)]
pub(crate) struct NameIndex {
    heads: Vec<u32>,
    /// Next index in the bucket, by type index.
    next: Vec<u32>,
    mask: u64,
}

/// Name up to libbpf's flavour separator: `task_struct___v5` means `task_struct`
/// (`bpf_core_essential_name_len`: three underscores between two other characters, the last such place).
pub fn essential_name(name: &str) -> &str {
    let bytes = name.as_bytes();
    // libbpf looks from the end for `x___y` with x and y no underscores.
    for i in (0..bytes.len().saturating_sub(4)).rev() {
        if bytes[i] != b'_' && &bytes[i + 1..i + 4] == b"___" && bytes[i + 4] != b'_' {
            return name.get(..=i).unwrap_or(name);
        }
    }
    name
}

fn hash(name: &str) -> u64 {
    let mut state = DefaultHasher::new();
    name.hash(&mut state);
    state.finish()
}

impl NameIndex {
    pub(crate) fn build(btf: &Btf) -> NameIndex {
        let count = btf.iter().len();
        let mask = count.next_power_of_two() as u64 - 1;
        let mut index = NameIndex {
            heads: vec![END; mask as usize + 1],
            next: vec![END; count],
            mask,
        };
        // From the last to the first, so that a bucket lists ids in rising order.
        for (i, (_, ty)) in btf.iter().enumerate().rev() {
            let name = ty.name();
            if name.is_empty() {
                continue;
            }
            let bucket = (hash(essential_name(name)) & mask) as usize;
            index.next[i] = index.heads[bucket];
            index.heads[bucket] = i as u32;
        }
        index
    }

    /// Types of this bucket in rising order of id.
    fn bucket<'a>(&'a self, btf: &'a Btf, essential: &str) -> impl Iterator<Item = TypeId> + 'a {
        let head = self.heads[(hash(essential) & self.mask) as usize];
        let start = btf.start_id().0;
        let chain = std::iter::successors(Some(head), |&i| self.next.get(i as usize).copied());
        chain
            .take_while(|&i| i != END)
            .map(move |i| TypeId(start + i))
    }

    pub(crate) fn find<'a>(
        &'a self,
        btf: &'a Btf,
        name: &'a str,
    ) -> impl Iterator<Item = TypeId> + 'a {
        self.bucket(btf, essential_name(name))
            .filter(move |&id| btf.name_of(id) == name)
    }

    pub(crate) fn find_essential<'a>(
        &'a self,
        btf: &'a Btf,
        essential: &'a str,
    ) -> impl Iterator<Item = TypeId> + 'a {
        self.bucket(btf, essential)
            .filter(move |&id| essential_name(btf.name_of(id)) == essential)
    }
}
