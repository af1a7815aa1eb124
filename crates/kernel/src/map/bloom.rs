//! `BPF_MAP_TYPE_BLOOM_FILTER`

use super::jhash::jhash;
use super::paged::Paged;
use super::{Cx, MapOps, MapSpec, update};
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;

#[derive(Clone)]
pub(crate) struct Bloom {
    bits: Paged<u64>,
    /// Number of bits, a power of two, less one.
    mask: u32,
    hashes: u32,
}

impl Bloom {
    /// `bloom_map_alloc`: as many bits as keep false answers rare for `max_entries` values.
    pub fn create(spec: &MapSpec) -> Bloom {
        let hashes = match spec.map_extra as u32 {
            0 => 5,
            n => n,
        };
        let bits = spec
            .max_entries
            .checked_mul(hashes)
            .and_then(|n| (n / 5).checked_mul(7))
            .filter(|&n| n <= 1 << 31);
        let mask = bits.map_or(u32::MAX, |n| n.max(64).next_power_of_two() - 1);
        Bloom {
            bits: Paged::new(0),
            mask,
            hashes,
        }
    }

    /// The bits of a value, with hash seed 0.
    fn bits(&self, value: &[u8]) -> impl Iterator<Item = (u32, u64)> + use<> {
        let mask = self.mask;
        (0..self.hashes)
            .map(|seed| jhash(value, seed) & mask)
            .map(|bit| (bit / 64, 1 << (bit % 64)))
            .collect::<smallvec::SmallVec<[_; 16]>>()
            .into_iter()
    }

    /// `bloom_map_peek_elem`
    pub fn holds(&self, value: &[u8]) -> bool {
        self.bits(value)
            .all(|(word, bit)| self.bits.get(word) & bit != 0)
    }
}

impl MapOps for Bloom {
    fn push(&mut self, _: &mut Cx<'_>, value: &[u8], flags: u64) -> Result<(), Errno> {
        if flags != update::ANY {
            return Err(Errno::EINVAL);
        }
        for (word, bit) in self.bits(value) {
            *self.bits.at_mut(word) |= bit;
        }
        Ok(())
    }

    /// Peeking asks whether `value` may be in the set; there is no popping.
    fn take(&mut self, _: &mut Cx<'_>, value: &mut [u8], delete: bool) -> Result<(), Errno> {
        match (delete, self.holds(value)) {
            (true, _) => Err(Errno::EOPNOTSUPP),
            (false, true) => Ok(()),
            (false, false) => Err(Errno::ENOENT),
        }
    }

    fn delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, _: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
