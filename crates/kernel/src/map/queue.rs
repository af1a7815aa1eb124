//! `BPF_MAP_TYPE_QUEUE` and `BPF_MAP_TYPE_STACK`

use super::{Cx, MapOps, MapSpec, update};
use bpfsim_abi::{Errno, MapType};
use bpfsim_vm::GuestMem;
use std::collections::VecDeque;

/// Programs only ever get copies, so that values need no guest memory.
#[derive(Clone)]
pub(crate) struct Queue {
    values: VecDeque<u8>,
    value_size: usize,
    max_entries: usize,
    stack: bool,
}

impl Queue {
    pub fn create(spec: &MapSpec) -> Queue {
        Queue {
            values: VecDeque::new(),
            value_size: spec.value_size as usize,
            max_entries: spec.max_entries as usize,
            stack: spec.map_type == MapType::Stack,
        }
    }
}

/// Host memory that the values of one map may take.
const MOST_BYTES: usize = 1 << 30;

impl MapOps for Queue {
    fn copy(&mut self, cx: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0; self.value_size];
        self.take(cx, &mut value, false)?;
        Ok(value)
    }

    fn copy_delete(&mut self, cx: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0; self.value_size];
        self.take(cx, &mut value, true)?;
        Ok(value)
    }

    /// `queue_stack_map_push_elem`: with `BPF_EXIST` the oldest value makes room.
    fn push(&mut self, _: &mut Cx<'_>, value: &[u8], flags: u64) -> Result<(), Errno> {
        if flags & update::NOEXIST != 0 || flags > update::EXIST {
            return Err(Errno::EINVAL);
        }
        if self.values.len() / self.value_size >= self.max_entries {
            if flags != update::EXIST {
                return Err(Errno::E2BIG);
            }
            self.values.drain(..self.value_size);
        }
        if self.values.len() + self.value_size > MOST_BYTES {
            return Err(Errno::ENOMEM);
        }
        self.values.extend(value);
        Ok(())
    }

    fn take(&mut self, _: &mut Cx<'_>, value: &mut [u8], delete: bool) -> Result<(), Errno> {
        let Some(newest) = self.values.len().checked_sub(self.value_size) else {
            value.fill(0);
            return Err(Errno::ENOENT);
        };
        let start = if self.stack { newest } else { 0 };
        let range = start..start + self.value_size;
        for (to, from) in value.iter_mut().zip(self.values.range(range.clone())) {
            *to = *from;
        }
        if delete {
            self.values.drain(range);
        }
        Ok(())
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, _: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    fn len(&self) -> u32 {
        (self.values.len() / self.value_size) as u32
    }
}
