//! Maps: what Linux keeps of them, and the operations that programs and user space share.
//!
//! Values live in guest memory; everything else (buckets, free lists) is the host's own, so
//! that no program can corrupt it. What an operation leaves behind - elements whose special
//! fields must be freed - is returned to the caller, who knows the rest of the kernel.

mod array;
mod hash;

pub(crate) use array::Array;
pub(crate) use hash::Hash;

use crate::field::Fields;
use crate::ids::Cpu;
use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::{Btf, TypeId};
use bpfsim_vm::GuestMem;
use std::sync::Arc;

/// `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST` and `BPF_F_LOCK`, as [`Kernel`](crate::Kernel)'s map
/// operations take them.
pub mod update {
    /// Create or replace.
    pub const ANY: u64 = 0;
    /// Create only.
    pub const NOEXIST: u64 = 1;
    /// Replace only.
    pub const EXIST: u64 = 2;
    /// Under the element's `bpf_spin_lock`.
    pub const LOCK: u64 = 4;
}

/// `BPF_F_NO_PREALLOC`
pub(crate) const F_NO_PREALLOC: u32 = 1;

/// Shape of a map, as `union bpf_attr` gives it to `BPF_MAP_CREATE`.
#[derive(Clone, Debug)]
pub struct MapSpec {
    /// Name; Linux keeps 15 bytes of it.
    pub name: String,
    /// Kind of map.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most elements.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Types of key and value, where the object has BTF.
    pub btf: Option<MapBtf>,
}

/// A map's types.
#[derive(Clone, Debug)]
pub struct MapBtf {
    /// The types.
    pub btf: Arc<Btf>,
    /// Type of the key.
    pub key: TypeId,
    /// Type of the value; of global data the section.
    pub value: TypeId,
}

/// A map.
pub(crate) struct Map {
    pub spec: MapSpec,
    /// Guest address of what programs see as `struct bpf_map`.
    pub addr: u64,
    /// Special fields of the value.
    pub fields: Fields,
    /// User references (`map->usercnt`): file descriptors and pins.
    pub uref: u32,
    pub storage: Storage,
}

/// Where elements are.
pub(crate) enum Storage {
    Array(Array),
    Hash(Hash),
}

/// What an operation needs to know of its surroundings.
pub(crate) struct Op<'a> {
    pub mem: &'a mut GuestMem,
    pub cpu: Cpu,
}

/// Value addresses of elements that an operation took out of use, or whose fields it must reset.
pub(crate) type Freed = smallvec::SmallVec<[u64; 2]>;

impl Map {
    /// Makes the map's storage. Errors and their order follow `map_create` and the type's
    /// `map_alloc_check`.
    pub fn create(
        mem: &mut GuestMem,
        spec: MapSpec,
        fields: Fields,
        cpus: u32,
        frozen: bool,
    ) -> Result<Map, Errno> {
        let addr = mem
            .alloc(bpfsim_vm::Area::Object, MAP_OBJECT_SIZE, MAP_OBJECT_SIZE)
            .map_err(|_| Errno::ENOMEM)?;
        let storage = match spec.map_type {
            MapType::Array => Storage::Array(Array::create(mem, &spec, frozen)?),
            MapType::Hash | MapType::LruHash => Storage::Hash(Hash::create(mem, &spec, cpus)?),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        // The first members of struct bpf_map that programs can see without BTF: none. What
        // they read through BTF is laid out when the kernel's types are known.
        Ok(Map {
            spec,
            addr,
            fields,
            uref: 1,
            storage,
        })
    }

    /// `map_lookup_elem`: the value's address.
    pub fn lookup(&mut self, op: &Op<'_>, key: &[u8]) -> Option<u64> {
        match &mut self.storage {
            Storage::Array(a) => a.lookup(key),
            Storage::Hash(h) => h.lookup(op, key),
        }
    }

    /// `map_update_elem`. Special fields of the destination are never written. Elements whose
    /// fields are to be freed join `freed`, also when the update itself fails.
    pub fn update(
        &mut self,
        op: &mut Op<'_>,
        key: &[u8],
        value: &[u8],
        flags: u64,
        freed: &mut Freed,
    ) -> Result<(), Errno> {
        if flags & update::LOCK != 0 && !self.fields.has_spin_lock() {
            return Err(Errno::EINVAL);
        }
        match &mut self.storage {
            Storage::Array(a) => a.update(op, &self.fields, key, value, flags, freed),
            Storage::Hash(h) => h.update(op, &self.fields, key, value, flags, freed),
        }
    }

    /// `map_delete_elem`: the value address of the element that is gone.
    pub fn delete(&mut self, op: &mut Op<'_>, key: &[u8]) -> Result<u64, Errno> {
        match &mut self.storage {
            Storage::Array(_) => Err(Errno::EINVAL),
            Storage::Hash(h) => h.delete(op, key),
        }
    }

    /// `map_get_next_key`; `None` or a key that is gone starts from the first.
    pub fn next_key(&self, mem: &GuestMem, key: Option<&[u8]>) -> Option<Vec<u8>> {
        match &self.storage {
            Storage::Array(a) => a.next_key(key),
            Storage::Hash(h) => h.next_key(mem, key),
        }
    }

    /// Address of the key that belongs to a value, as a callback is given it: the element's own
    /// copy for hash maps, `None` for arrays, whose callbacks get a private one.
    pub fn key_addr(&self, value_addr: u64) -> Option<u64> {
        match &self.storage {
            Storage::Array(_) => None,
            Storage::Hash(h) => h.key_addr(value_addr),
        }
    }

    /// The key bytes that belong to a value now.
    pub fn key_of(&self, mem: &GuestMem, value_addr: u64) -> Vec<u8> {
        match &self.storage {
            Storage::Array(a) => a.index_of(value_addr).to_le_bytes().to_vec(),
            Storage::Hash(h) => {
                let at = h.key_addr(value_addr);
                at.and_then(|a| mem.slice(a, self.spec.key_size as u64))
                    .unwrap_or(&[])
                    .to_vec()
            }
        }
    }

    /// Address of the value that the address lies in, or `None` when it lies in no element.
    pub fn value_around(&self, addr: u64) -> Option<u64> {
        match &self.storage {
            Storage::Array(a) => a.value_around(addr),
            Storage::Hash(h) => h.value_around(addr),
        }
    }

    /// Address of the only value of a global data map.
    pub fn data_addr(&self) -> Option<u64> {
        match &self.storage {
            Storage::Array(a) => Some(a.base),
            Storage::Hash(_) => None,
        }
    }

    /// Elements that exist: of an array all of them.
    pub fn len(&self) -> u32 {
        match &self.storage {
            Storage::Array(_) => self.spec.max_entries,
            Storage::Hash(h) => h.len(),
        }
    }

    /// Value addresses of all elements, in the order of their keys' iteration.
    pub fn values(&self) -> Vec<u64> {
        match &self.storage {
            Storage::Array(a) => a.values(),
            Storage::Hash(h) => h.values(),
        }
    }
}

/// Room for the guest's view of `struct bpf_map`; map pointers are multiples of it.
pub(crate) const MAP_OBJECT_SIZE: u64 = 1024;

/// Copies a value into an element but for its special fields (`copy_map_value`).
pub(crate) fn copy_value(
    mem: &mut GuestMem,
    fields: &Fields,
    to: u64,
    value: &[u8],
) -> Result<(), Errno> {
    let dest = mem.slice_mut(to, value.len() as u64).ok_or(Errno::ENOMEM)?;
    let mut at = 0;
    for hole in fields.ranges() {
        let start = (hole.start as usize).min(value.len());
        dest[at..start].copy_from_slice(&value[at..start]);
        at = (hole.end as usize).min(value.len()).max(at);
    }
    dest[at..].copy_from_slice(&value[at..]);
    Ok(())
}
