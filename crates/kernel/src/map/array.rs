//! `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_PERCPU_ARRAY`

use super::ops::{index, next_index};
use super::{Cx, MapOps, MapSpec, Place, copy_value, update, value_for_user};
use crate::ids::Cpu;
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::{Area, Elements, GuestMem};

#[derive(Clone)]
pub(crate) struct Array {
    /// Address of element 0.
    pub base: u64,
    /// Bytes of an element: of a per-CPU one the values of all CPUs, side by side.
    stride: u64,
    /// Bytes of a value.
    value: u64,
    max_entries: u32,
    percpu: bool,
}

impl Array {
    /// `array_map_alloc`. Frozen data is out of sight of others.
    pub fn create(
        mem: &mut GuestMem,
        spec: &MapSpec,
        cpus: u32,
        frozen: bool,
    ) -> Result<Array, Errno> {
        let percpu = spec.map_type == MapType::PercpuArray;
        let value = (spec.value_size as u64).next_multiple_of(8);
        let stride = value * if percpu { cpus as u64 } else { 1 };
        let size = stride
            .checked_mul(spec.max_entries as u64)
            .ok_or(Errno::ENOMEM)?;
        let area = if frozen { Area::Object } else { Area::Shared };
        let base = mem.alloc(area, size, 8).map_err(|_| Errno::ENOMEM)?;
        mem.divide(
            base,
            Elements {
                stride: value,
                key: 0,
                value: 0,
                size: spec.value_size as u64,
                each: value,
            },
        );
        Ok(Array {
            base,
            stride,
            value,
            max_entries: spec.max_entries,
            percpu,
        })
    }

    fn elem(&self, key: &[u8]) -> Option<u64> {
        let index = index(key);
        (index < self.max_entries).then(|| self.base + self.stride * index as u64)
    }

    /// The value of a key on a CPU.
    #[inline]
    pub fn value_on(&self, key: &[u8], cpu: Cpu) -> Option<u64> {
        Some(self.elem(key)? + self.on(cpu))
    }

    fn on(&self, cpu: Cpu) -> u64 {
        if self.percpu {
            self.value * cpu.0 as u64
        } else {
            0
        }
    }

    /// What an update of an array that is not per CPU writes to.
    pub fn target(&self, key: &[u8], flags: u64) -> Result<u64, Errno> {
        if flags & !update::LOCK > update::EXIST {
            return Err(Errno::EINVAL);
        }
        let elem = self.elem(key).ok_or(Errno::E2BIG)?;
        match flags & update::NOEXIST {
            0 => Ok(elem),
            _ => Err(Errno::EEXIST),
        }
    }

    pub fn index_of(&self, value_addr: u64) -> u32 {
        (value_addr.wrapping_sub(self.base) / self.stride) as u32
    }
}

impl MapOps for Array {
    fn lookup(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Option<u64> {
        self.value_on(key, cx.cpu)
    }

    fn copy(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let at = self.elem(key).ok_or(Errno::ENOENT)?;
        if self.percpu {
            cx.percpu_for_user(at)
        } else {
            value_for_user(cx.mem, cx.fields, at, cx.spec.value_size as u64)
        }
    }

    /// `array_map_update_elem`, `bpf_percpu_array_update`: in place; the element's own
    /// asynchronous fields are freed afterwards.
    fn update(
        &mut self,
        cx: &mut Cx<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Result<(), Errno> {
        let known = if self.percpu && cx.user {
            flags
        } else {
            flags & !update::LOCK
        };
        if known > update::EXIST {
            return Err(Errno::EINVAL);
        }
        let elem = self.elem(key).ok_or(Errno::E2BIG)?;
        if flags & update::NOEXIST != 0 {
            return Err(Errno::EEXIST);
        }
        if flags & update::LOCK != 0 && !cx.fields.has_spin_lock() {
            return Err(Errno::EINVAL);
        }
        if self.percpu {
            return cx.write_percpu(elem, value);
        }
        copy_value(cx.mem, cx.fields, elem, value)?;
        cx.freed.push(elem);
        Ok(())
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        next_index(self.max_entries, key)
    }

    fn after(&self, _: &GuestMem, cpu: Cpu, at: Option<Place>) -> Option<Place> {
        let index = at.map_or(0, |p| p.next);
        (index < self.max_entries).then(|| Place {
            key: None,
            index,
            next: index + 1,
            value: self.base + self.stride * index as u64 + self.on(cpu),
        })
    }

    fn value_around(&self, addr: u64) -> Option<u64> {
        let at = addr.wrapping_sub(self.base);
        (at / self.stride < self.max_entries as u64).then(|| addr - at % self.value)
    }

    fn len(&self) -> u32 {
        self.max_entries
    }

    fn values(&self) -> Vec<u64> {
        let all = self.stride * self.max_entries as u64;
        (0..all / self.value)
            .map(|i| self.base + i * self.value)
            .collect()
    }
}
