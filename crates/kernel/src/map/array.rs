//! `BPF_MAP_TYPE_ARRAY`

use super::{Freed, MapSpec, Op, copy_value, update};
use crate::field::Fields;
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, GuestMem};

pub(crate) struct Array {
    /// Address of element 0.
    pub base: u64,
    stride: u64,
    max_entries: u32,
}

impl Array {
    /// `array_map_alloc_check` and `array_map_alloc`. Frozen data is out of sight of others.
    pub fn create(mem: &mut GuestMem, spec: &MapSpec, frozen: bool) -> Result<Array, Errno> {
        if spec.max_entries == 0 || spec.key_size != 4 || spec.value_size == 0 {
            return Err(Errno::EINVAL);
        }
        if spec.value_size > i32::MAX as u32 {
            return Err(Errno::E2BIG);
        }
        let stride = (spec.value_size as u64).next_multiple_of(8);
        let size = stride * spec.max_entries as u64;
        let area = if frozen { Area::Object } else { Area::Shared };
        let base = mem.alloc(area, size, 8).map_err(|_| Errno::ENOMEM)?;
        Ok(Array {
            base,
            stride,
            max_entries: spec.max_entries,
        })
    }

    fn elem(&self, key: &[u8]) -> Option<u64> {
        let index = u32::from_le_bytes(key.try_into().ok()?);
        (index < self.max_entries).then(|| self.base + self.stride * index as u64)
    }

    pub fn lookup(&self, key: &[u8]) -> Option<u64> {
        self.elem(key)
    }

    /// `array_map_update_elem`: in place; without `BPF_F_LOCK` or with it, the element's own
    /// asynchronous fields are freed afterwards.
    pub fn update(
        &mut self,
        op: &mut Op<'_>,
        fields: &Fields,
        key: &[u8],
        value: &[u8],
        flags: u64,
        freed: &mut Freed,
    ) -> Result<(), Errno> {
        if flags & !update::LOCK > update::EXIST {
            return Err(Errno::EINVAL);
        }
        let elem = self.elem(key).ok_or(Errno::E2BIG)?;
        if flags & update::NOEXIST != 0 {
            return Err(Errno::EEXIST);
        }
        copy_value(op.mem, fields, elem, value)?;
        freed.push(elem);
        Ok(())
    }

    pub fn next_key(&self, key: Option<&[u8]>) -> Option<Vec<u8>> {
        let index = key
            .and_then(|k| k.try_into().ok())
            .map_or(u32::MAX, u32::from_le_bytes);
        let next = if index >= self.max_entries {
            0
        } else {
            index + 1
        };
        (next < self.max_entries).then(|| next.to_le_bytes().to_vec())
    }

    pub fn index_of(&self, value_addr: u64) -> u32 {
        (value_addr.wrapping_sub(self.base) / self.stride) as u32
    }

    pub fn value_around(&self, addr: u64) -> Option<u64> {
        let index = addr.wrapping_sub(self.base) / self.stride;
        (index < self.max_entries as u64).then(|| self.base + index * self.stride)
    }

    pub fn values(&self) -> Vec<u64> {
        (0..self.max_entries as u64)
            .map(|i| self.base + i * self.stride)
            .collect()
    }
}
