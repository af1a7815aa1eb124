//! Types by name: a hash table over essential names, so that one index serves exact look-ups and the
//! search for CO-RE candidates, whatever flavour they are.

use crate::btf::Btf;
use crate::types::TypeId;

/// No further type in this bucket.
const END: u32 = u32::MAX;

/// Chained buckets over a BTF's own types.
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

/// Eight bytes at a time; the same on every run. Names made to collide only slow their own look-up.
fn hash(name: &str) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = name.len() as u64;
    for chunk in name.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(SPREAD);
    }
    // The low bits choose the bucket.
    state ^ state >> 32
}

impl NameIndex {
    pub(crate) fn build(btf: &Btf) -> NameIndex {
        let names = btf.own_names();
        let count = names.len();
        let mask = count.next_power_of_two() as u64 - 1;
        let mut index = NameIndex {
            heads: vec![END; mask as usize + 1],
            next: vec![END; count],
            mask,
        };
        // From the last to the first, so that a bucket lists ids in rising order.
        for (i, name) in names.enumerate().rev() {
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
