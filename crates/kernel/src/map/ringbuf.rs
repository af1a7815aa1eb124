//! `BPF_MAP_TYPE_RINGBUF` and `BPF_MAP_TYPE_USER_RINGBUF`
//!
//! Linux maps the data pages twice, one after the other, so that every record is contiguous.
//! Here the area is twice as large: a record that begins near the end goes on past it. Records
//! are only ever read from their own beginning, so that nobody can tell.

use super::{Cx, MapOps, MapSpec};
use bpfsim_abi::Errno;
use bpfsim_vm::{Area, GuestMem};

/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT`
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`
pub(crate) const HDR: u64 = 8;
/// `RINGBUF_MAX_RECORD_SZ`
const MAX_RECORD: u64 = u32::MAX as u64 / 4;
/// Rings up to this size are no choice points of an explored run: a record belongs to whoever
/// reserved it, and nobody else can see it before it is submitted.
const PRIVATE: u64 = 1 << 20;

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP`
pub(crate) const NO_WAKEUP: u64 = 1;
pub(crate) const FORCE_WAKEUP: u64 = 2;

#[derive(Clone)]
pub(crate) struct Ringbuf {
    base: u64,
    size: u64,
    consumer: u64,
    producer: u64,
    pending: u64,
    /// How often pollers were woken.
    pub wakeups: u64,
    /// Records that there was no room for. Linux does not count them.
    pub dropped: u64,
    /// A callback has a sample of this user ring buffer.
    draining: bool,
}

/// What a user ring buffer has next.
pub(crate) enum Peek {
    Empty,
    Discarded,
    Failed(Errno),
    Sample { data: u64, len: u64 },
}

impl Ringbuf {
    pub fn create(mem: &mut GuestMem, spec: &MapSpec) -> Result<Ringbuf, Errno> {
        let size = spec.max_entries as u64;
        let area = if size <= PRIVATE {
            Area::Packet
        } else {
            Area::Shared
        };
        let base = mem
            .alloc(area, 2 * size, 4096)
            .or_else(|_| mem.alloc(Area::Shared, 2 * size, 4096))
            .map_err(|_| Errno::ENOMEM)?;
        mem.hold_records(base);
        Ok(Ringbuf {
            base,
            size,
            consumer: 0,
            producer: 0,
            pending: 0,
            wakeups: 0,
            dropped: 0,
            draining: false,
        })
    }

    fn header(&self, pos: u64) -> u64 {
        self.base + (pos & (self.size - 1))
    }

    /// Whether a sample lies in this ring.
    pub fn contains(&self, sample: u64) -> bool {
        sample.wrapping_sub(self.base + HDR) < self.size
    }

    /// `__bpf_ringbuf_reserve`: the address of a new record's data.
    pub fn reserve(&mut self, mem: &mut GuestMem, size: u64) -> Option<u64> {
        let made = self.try_reserve(mem, size);
        self.dropped += u64::from(made.is_none());
        made
    }

    fn try_reserve(&mut self, mem: &mut GuestMem, size: u64) -> Option<u64> {
        let len = (size + HDR).next_multiple_of(8);
        if size > MAX_RECORD || len > self.size {
            return None;
        }
        while self.pending < self.producer {
            let hdr = mem.read_u32(self.header(self.pending))?;
            if hdr & BUSY != 0 {
                break;
            }
            self.pending += record_len(hdr);
        }
        let end = self.producer + len;
        // What a stray program did to headers, or user space to its position, wraps as in Linux.
        let room = self.size - 1;
        if end.wrapping_sub(self.consumer) > room || end.wrapping_sub(self.pending) > room {
            return None;
        }
        let at = self.header(self.producer);
        mem.write_u32(at, size as u32 | BUSY)?;
        mem.write_u32(at + 4, ((at - self.base) >> 12) as u32 + 3)?;
        self.producer = end;
        mem.place(at + HDR, size);
        Some(at + HDR)
    }

    /// `bpf_ringbuf_commit`; `None` where there is no reserved record.
    pub fn commit(
        &mut self,
        mem: &mut GuestMem,
        sample: u64,
        flags: u64,
        discard: bool,
    ) -> Option<()> {
        let at = sample.checked_sub(HDR)?;
        let hdr = mem.read_u32(at).filter(|hdr| hdr & BUSY != 0)?;
        let done = hdr ^ BUSY | if discard { DISCARD } else { 0 };
        mem.write_u32(at, done)?;
        mem.retire(sample);
        let caught_up = self.header(self.consumer) == at;
        if flags & FORCE_WAKEUP != 0 || (caught_up && flags & NO_WAKEUP == 0) {
            self.wakeups += 1;
        }
        Some(())
    }

    /// `bpf_ringbuf_query`
    pub fn query(&self, flags: u64) -> u64 {
        match flags {
            0 => self.producer.wrapping_sub(self.consumer),
            1 => self.size,
            2 => self.consumer,
            3 => self.producer,
            _ => 0,
        }
    }

    /// The oldest record that is complete, taken out as libbpf's `ring_buffer__consume` does;
    /// discarded ones are passed over.
    pub fn consume(&mut self, mem: &GuestMem) -> Option<Vec<u8>> {
        while self.consumer < self.producer {
            let at = self.header(self.consumer);
            let hdr = mem.read_u32(at).filter(|hdr| hdr & BUSY == 0)?;
            let sample = (hdr & DISCARD == 0)
                .then(|| mem.slice(at + HDR, (hdr & !DISCARD) as u64))
                .flatten()
                .map(<[u8]>::to_vec);
            self.consumer += record_len(hdr);
            if sample.is_some() {
                return sample;
            }
        }
        None
    }

    /// A program drains the ring just now.
    pub fn drained_by_another(&self) -> bool {
        self.draining
    }

    /// `__bpf_user_ringbuf_peek`: the oldest sample that user space put in.
    pub fn peek(&mut self, mem: &GuestMem) -> Peek {
        if self.consumer >= self.producer {
            self.draining = false;
            return Peek::Empty;
        }
        let at = self.header(self.consumer);
        let Some(hdr) = mem.read_u32(at) else {
            return Peek::Failed(Errno::EINVAL);
        };
        let (len, flags) = (hdr & !(BUSY | DISCARD), hdr & (BUSY | DISCARD));
        let total = record_len(hdr);
        if total > self.producer - self.consumer {
            return Peek::Failed(Errno::EINVAL);
        }
        if total > self.size {
            return Peek::Failed(Errno::E2BIG);
        }
        if flags & BUSY != 0 {
            return Peek::Failed(Errno::EBUSY);
        }
        if flags & DISCARD != 0 {
            self.consumer += total;
            return Peek::Discarded;
        }
        self.draining = true;
        Peek::Sample {
            data: at + HDR,
            len: len as u64,
        }
    }

    /// `__bpf_user_ringbuf_sample_release`
    pub fn release(&mut self, len: u64) {
        self.draining = false;
        self.consumer += (len + HDR).next_multiple_of(8);
    }

    /// Puts a sample into a user ring buffer, as libbpf's `user_ring_buffer__reserve` and
    /// `__submit` do.
    ///
    /// # Errors
    /// `E2BIG` for a sample that never fits, `ENOSPC` while there is no room.
    pub fn produce(&mut self, mem: &mut GuestMem, sample: &[u8]) -> Result<(), Errno> {
        let len = (sample.len() as u64 + HDR).next_multiple_of(8);
        if sample.len() as u64 >= DISCARD as u64 || len > self.size {
            return Err(Errno::E2BIG);
        }
        if self.size - (self.producer - self.consumer) < len {
            return Err(Errno::ENOSPC);
        }
        let at = self.header(self.producer);
        mem.write_u32(at, sample.len() as u32)
            .ok_or(Errno::ENOMEM)?;
        let to = mem.slice_mut(at + HDR, sample.len() as u64);
        to.ok_or(Errno::ENOMEM)?.copy_from_slice(sample);
        self.producer += len;
        Ok(())
    }
}

fn record_len(hdr: u32) -> u64 {
    ((hdr & !(BUSY | DISCARD)) as u64 + HDR).next_multiple_of(8)
}

impl MapOps for Ringbuf {
    fn copy(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOTSUPP)
    }

    fn update(&mut self, _: &mut Cx<'_>, _: &[u8], _: &[u8], _: u64) -> Result<(), Errno> {
        Err(Errno::ENOTSUPP)
    }

    fn delete(&mut self, _: &mut Cx<'_>, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOTSUPP)
    }

    fn next_key(&self, _: &GuestMem, _: &MapSpec, _: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOTSUPP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfsim_abi::MapType;

    #[test]
    fn records_come_out_in_order_of_reservation_and_wrap() {
        let mut mem = GuestMem::new().unwrap();
        let spec = MapSpec::new(MapType::Ringbuf, 0, 0, 4096);
        let mut rb = Ringbuf::create(&mut mem, &spec).unwrap();
        assert_eq!(rb.reserve(&mut mem, 4096), None, "no room for the header");
        for round in 0..100u8 {
            let a = rb.reserve(&mut mem, 1500).unwrap();
            let b = rb.reserve(&mut mem, 1501).unwrap();
            assert_eq!(rb.reserve(&mut mem, 1500), None);
            mem.slice_mut(a, 1500).unwrap().fill(round);
            mem.slice_mut(b, 1501).unwrap().fill(!round);
            rb.commit(&mut mem, b, 0, round % 3 == 0).unwrap();
            assert_eq!(rb.consume(&mem), None, "the older record is not complete");
            rb.commit(&mut mem, a, 0, false).unwrap();
            assert!(rb.commit(&mut mem, a, 0, false).is_none());
            assert_eq!(rb.consume(&mem), Some(vec![round; 1500]));
            let second = (round % 3 != 0).then(|| vec![!round; 1501]);
            assert_eq!(rb.consume(&mem), second);
            assert_eq!(rb.query(0), 0);
        }
        assert_eq!((rb.wakeups, rb.dropped), (100, 101));
    }
}
