//! The commands of `bpf(2)` on many elements of a map (`bpf_map_do_batch`).

use super::ops::Bucket;
use super::sys::{Waits, check_lock, may};
use super::{Storage, update};
use crate::ids::MapId;
use crate::state::State;
use bpfsim_abi::Errno;
use bpfsim_abi::map::Ops;
use bpfsim_vm::GuestMem;

/// A command on many elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchCmd {
    /// `BPF_MAP_LOOKUP_BATCH`
    Lookup,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`
    LookupAndDelete,
    /// `BPF_MAP_UPDATE_BATCH`
    Update,
    /// `BPF_MAP_DELETE_BATCH`
    Delete,
}

/// What a command on many elements leaves in user space, also when it fails.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct BatchOut {
    /// Keys found, one after another.
    pub keys: Vec<u8>,
    /// Their values.
    pub values: Vec<u8>,
    /// Where to go on, where that was written.
    pub next: Option<Vec<u8>>,
    /// `count`: as it was given, if nothing was begun.
    pub count: u32,
}

/// What the commands on many elements take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub cmd: BatchCmd,
    pub from: Option<&'a [u8]>,
    pub keys: &'a [u8],
    pub values: &'a [u8],
    pub count: u32,
    pub elem_flags: u64,
    pub flags: u64,
}

impl State {
    /// `bpf_map_do_batch`
    pub fn sys_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        batch: &Batch<'_>,
    ) -> (BatchOut, Result<(), Errno>, Waits) {
        let mut out = BatchOut {
            count: batch.count,
            ..BatchOut::default()
        };
        let mut waits = Waits::new();
        let result = self.batch(mem, map, batch, &mut out, &mut waits);
        (out, result, waits)
    }

    fn batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let m = &self.maps[map.at()];
        let (op, reads, writes) = match b.cmd {
            BatchCmd::Lookup => (Ops::LOOKUP_BATCH, true, false),
            BatchCmd::LookupAndDelete => (Ops::LOOKUP_DELETE_BATCH, true, true),
            BatchCmd::Update => (Ops::UPDATE_BATCH, false, true),
            BatchCmd::Delete => (Ops::DELETE_BATCH, false, true),
        };
        may(m, reads, writes)?;
        let rule = m.spec.map_type.rule();
        if !rule.is_some_and(|r| r.ops.contains(op)) {
            return Err(Errno::ENOTSUPP);
        }
        if b.elem_flags & !update::LOCK != 0 {
            return Err(Errno::EINVAL);
        }
        check_lock(m, b.elem_flags)?;
        let by_bucket = reads && matches!(m.storage, Storage::Hash(_));
        if by_bucket && b.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if b.count == 0 {
            return Ok(());
        }
        out.count = 0;
        match b.cmd {
            BatchCmd::Update | BatchCmd::Delete => self.write_batch(mem, map, b, out, waits),
            _ if by_bucket => self.bucket_batch(mem, map, b, out, waits),
            _ => self.lookup_batch(mem, map, b, out),
        }
    }

    /// `generic_map_update_batch`, `generic_map_delete_batch`
    fn write_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let key_size = self.maps[map.at()].spec.key_size as usize;
        let value_size = self.sys_value_size(map);
        let nth = |all, i: usize, size: usize| -> Result<_, Errno> {
            let all: &[u8] = all;
            let start = i.checked_mul(size).ok_or(Errno::EFAULT)?;
            all.get(start..start + size).ok_or(Errno::EFAULT)
        };
        for i in 0..b.count {
            let key = nth(b.keys, i as usize, key_size)?;
            let (result, more) = if b.cmd == BatchCmd::Update {
                let value = nth(b.values, i as usize, value_size)?;
                self.update_value(mem, map, key, value, b.elem_flags)
            } else {
                self.delete_key(mem, map, key)
            };
            waits.extend(more);
            result?;
            out.count += 1;
        }
        Ok(())
    }

    /// `generic_map_lookup_batch`
    fn lookup_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
    ) -> Result<(), Errno> {
        let mut before = b.from.map(<[u8]>::to_vec);
        let (mut done, mut result) = (0, Ok(()));
        while done < b.count {
            let key = match self.maps[map.at()].next_key(mem, before.as_deref()) {
                Ok(key) => key,
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            };
            match self.copy_value(mem, map, &key) {
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
                Ok(value) => {
                    out.keys.extend(&key);
                    out.values.extend(value);
                    done += 1;
                }
            }
            before = Some(key);
        }
        out.count = done;
        if done > 0 {
            out.next = before;
        }
        result
    }

    /// `__htab_map_lookup_and_delete_batch`: whole buckets, from that of number `from`.
    fn bucket_batch(
        &mut self,
        mem: &mut GuestMem,
        map: MapId,
        b: &Batch<'_>,
        out: &mut BatchOut,
        waits: &mut Waits,
    ) -> Result<(), Errno> {
        let mut bucket = b
            .from
            .map_or(0, |f| f.first_chunk().map_or(0, |&n| u32::from_le_bytes(n)));
        let delete = b.cmd == BatchCmd::LookupAndDelete;
        let mut total = 0;
        let mut first = true;
        let result = loop {
            let mut found = Err(Bucket::None);
            let (_, more) = self.sys(mem, map, |m, op| {
                let (ops, mut cx) = m.parts(op);
                found = ops.bucket(&mut cx, bucket, b.count - total, delete);
                Ok(())
            });
            waits.extend(more);
            let elems = match found {
                // A place beyond the end is told before anything is written.
                Err(Bucket::None) if first => return Err(Errno::ENOENT),
                Err(Bucket::None) => break Err(Errno::ENOENT),
                Err(Bucket::Full) if total == 0 => break Err(Errno::ENOSPC),
                Err(Bucket::Full) => break Ok(()),
                Err(Bucket::Failed(errno)) => return Err(errno),
                Ok(elems) => elems,
            };
            first = false;
            total += elems.len() as u32;
            for (key, value) in elems {
                out.keys.extend(key);
                out.values.extend(self.shown(map, value));
            }
            let next = match &self.maps[map.at()].storage {
                Storage::Hash(h) => h.next_bucket(bucket + 1),
                _ => bucket + 1,
            };
            bucket = next;
        };
        out.next = Some(bucket.to_le_bytes().to_vec());
        out.count = total;
        result
    }
}
