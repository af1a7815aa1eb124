//! `BPF_MAP_TYPE_STACK_TRACE`

use super::jhash::jhash;
use super::ops::index;
use super::{Cx, MapOps, MapSpec};
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use std::collections::BTreeMap;

/// Stacks by their number, in bytes as user space sees them; programs cannot.
#[derive(Clone)]
pub(crate) struct StackTrace {
    stacks: BTreeMap<u32, Vec<u8>>,
    n_buckets: u32,
}

impl StackTrace {
    pub fn create(spec: &MapSpec) -> StackTrace {
        StackTrace {
            stacks: BTreeMap::new(),
            n_buckets: spec.max_entries.next_power_of_two(),
        }
    }
}

impl StackTrace {
    /// The number of a stack, which is kept under it. `EEXIST` when another one has the number,
    /// unless it is to be replaced; with `fast` those of one hash count as the same.
    pub fn id_of(&mut self, frames: &[u64], fast: bool, reuse: bool) -> Result<u64, Errno> {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.to_le_bytes()).collect();
        let id = jhash(&bytes, 0) & (self.n_buckets - 1);
        match self.stacks.get(&id) {
            Some(old) if fast || *old == bytes => return Ok(id as u64),
            Some(_) if !reuse => return Err(Errno::EEXIST),
            _ => {}
        }
        self.stacks.insert(id, bytes);
        Ok(id as u64)
    }
}

impl MapOps for StackTrace {
    fn copy(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut stack = self.stacks.get(&index(key)).ok_or(Errno::ENOENT)?.clone();
        stack.resize(cx.spec.value_size as usize, 0);
        Ok(stack)
    }

    fn delete(&mut self, _: &mut Cx<'_>, key: &[u8]) -> Result<(), Errno> {
        if index(key) >= self.n_buckets {
            return Err(Errno::E2BIG);
        }
        let gone = self.stacks.remove(&index(key));
        gone.map(drop).ok_or(Errno::ENOENT)
    }

    fn copy_delete(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let stack = self.copy(cx, key)?;
        self.stacks.remove(&index(key));
        Ok(stack)
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        let from = key
            .map(index)
            .filter(|id| self.stacks.contains_key(id))
            .map_or(0, |id| id + 1);
        let next = self.stacks.range(from..).next();
        next.map(|(id, _)| id.to_le_bytes().to_vec())
            .ok_or(Errno::ENOENT)
    }

    fn len(&self) -> u32 {
        self.stacks.len() as u32
    }
}
