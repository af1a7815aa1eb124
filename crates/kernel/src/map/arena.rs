//! `BPF_MAP_TYPE_ARENA`

use super::{Cx, MapOps, MapSpec};
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, GuestMem};

const PAGE: u64 = 4096;

#[derive(Clone)]
pub(crate) struct Arena {
    /// Guest address of the first page (`bpf_arena_get_kern_vm_start`).
    pub base: u64,
}

impl Arena {
    pub fn create(mem: &mut GuestMem, spec: &MapSpec) -> Result<Arena, Errno> {
        let pages = spec.max_entries as u64;
        let base = mem
            .alloc(Area::Shared, pages * PAGE, PAGE)
            .map_err(|_| Errno::ENOMEM)?;
        Ok(Arena { base })
    }
}

impl MapOps for Arena {
    fn copy(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    fn update(&mut self, _: &mut Cx<'_>, _: &[u8], _: &[u8], _: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, _: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
