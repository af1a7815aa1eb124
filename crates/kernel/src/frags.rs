//! Fragments of XDP packets: pages behind the head (`struct skb_shared_info`).

use crate::packet::{ETH_HLEN, FieldsCtx};
use bpfsim_abi::Errno;
use bpfsim_vm::GuestMem;
use smallvec::SmallVec;

/// `PAGE_SIZE`: what a fragment's page, and the packet's head, has room for (`rxq->frag_size`).
pub(crate) const PAGE: u64 = 4096;
/// `MAX_SKB_FRAGS`
pub(crate) const MAX_FRAGS: usize = 17;
/// Most that offsets and lengths may be: `bpf_xdp_pointer`.
const MOST: u64 = 0xffff;

/// A fragment: some bytes of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frag {
    page: u64,
    at: u64,
    len: u64,
}

impl Frag {
    /// The first bytes of a page.
    pub fn new(page: u64, len: u64) -> Frag {
        Frag {
            page,
            at: page,
            len,
        }
    }
}

/// A packet's fragments.
#[derive(Clone, Default)]
pub(crate) struct Frags {
    list: Vec<Frag>,
    /// Pages that no fragment is in any more.
    unused: Vec<u64>,
}

/// Where bytes lie: addresses and lengths.
pub(crate) type Spans = SmallVec<[(u64, u64); 2]>;

impl Frags {
    pub fn push(&mut self, frag: Frag) {
        self.list.push(frag);
    }

    /// `sinfo->xdp_frags_size`
    pub fn len(&self) -> u64 {
        self.list.iter().map(|f| f.len).sum()
    }

    /// True for a packet that is its head alone.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Addresses and lengths, in order.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        self.list.iter().map(|f| (f.at, f.len))
    }

    /// All pages that it ever had.
    pub fn pages(self) -> impl Iterator<Item = u64> {
        let now = self.list.into_iter().map(|f| f.page);
        now.chain(self.unused)
    }

    /// `bpf_xdp_frags_increase_tail`
    fn grow(&mut self, mem: &mut GuestMem, by: u64) -> Result<(), Errno> {
        let last = self.list.last_mut().ok_or(Errno::EINVAL)?;
        let end = last.at + last.len;
        if by > last.page + PAGE - end {
            return Err(Errno::EINVAL);
        }
        if let Some(grown) = mem.slice_mut(end, by) {
            grown.fill(0);
        }
        last.len += by;
        mem.expose(last.at, last.len);
        Ok(())
    }

    /// `bpf_xdp_frags_shrink_tail`; gives what is to be taken from the head.
    fn shrink(&mut self, mut by: u64) -> u64 {
        while let Some(last) = self.list.last_mut().filter(|_| by > 0) {
            let cut = by.min(last.len);
            last.len -= cut;
            by -= cut;
            if last.len == 0 {
                self.unused.push(last.page);
                self.list.pop();
            }
        }
        by
    }

    /// The first `len` bytes of the first fragment, or as many as it has, are taken from it.
    fn take_front(&mut self, len: u64) -> Option<(u64, u64)> {
        let first = self.list.first_mut()?;
        let (at, taken) = (first.at, len.min(first.len));
        first.at += taken;
        first.len -= taken;
        if first.len == 0 {
            self.unused.push(first.page);
            self.list.remove(0);
        }
        Some((at, taken))
    }
}

impl FieldsCtx {
    /// `xdp_get_buff_len`; of a socket buffer its length.
    pub fn buff_len(&self) -> u64 {
        self.packet.map_or(0, |p| p.len()) + self.frags.len()
    }

    /// Where bytes of the packet lie, as many of them as there are.
    pub fn spans(&self, offset: u64, len: u64) -> Spans {
        let head = self.packet.map(|p| (p.data, p.len()));
        let (mut skip, mut left) = (offset, len);
        let mut found = Spans::new();
        for (at, len) in head.into_iter().chain(self.frags.spans()) {
            let from = skip.min(len);
            let n = left.min(len - from);
            if n > 0 {
                found.push((at + from, n));
            }
            skip -= from;
            left -= n;
        }
        found
    }

    /// As [`FieldsCtx::spans`], of bytes that are all there: else `bpf_xdp_pointer`'s errno.
    pub fn whole_spans(&self, offset: u64, len: u64) -> Result<Spans, Errno> {
        if offset > MOST || len > MOST {
            return Err(Errno::EFAULT);
        }
        if offset + len > self.buff_len() {
            return Err(Errno::EINVAL);
        }
        Ok(self.spans(offset, len))
    }

    /// Bytes that lie in one place: `bpf_xdp_pointer`.
    pub fn one_span(&self, offset: u64, len: u64) -> Option<u64> {
        match self.whole_spans(offset, len).ok()?.as_slice() {
            [] => self.packet.map(|p| p.data),
            [(at, _)] => Some(*at),
            _ => None,
        }
    }

    /// `bpf_xdp_adjust_tail` of a packet with fragments; gives what the head is to lose.
    pub fn adjust_frags(&mut self, mem: &mut GuestMem, by: i32) -> Result<u64, Errno> {
        if by >= 0 {
            return self.frags.grow(mem, by.unsigned_abs().into()).map(|()| 0);
        }
        let by: u64 = by.unsigned_abs().into();
        if by + ETH_HLEN > self.buff_len() {
            return Err(Errno::EINVAL);
        }
        Ok(self.frags.shrink(by))
    }

    /// `len` more bytes of the fragments come to the head, whose end is at `end`.
    pub fn pull_frags(&mut self, mem: &mut GuestMem, mut end: u64, mut len: u64) {
        while len > 0
            && let Some((from, n)) = self.frags.take_front(len)
        {
            let bytes = mem.slice(from, n).map(<[u8]>::to_vec);
            if let (Some(bytes), Some(to)) = (bytes, mem.slice_mut(end, n)) {
                to.copy_from_slice(&bytes);
            }
            end += n;
            len -= n;
        }
    }
}

/// The bytes of some spans, one after another.
pub(crate) fn gather(mem: &GuestMem, spans: &[(u64, u64)]) -> Vec<u8> {
    let parts = spans.iter().filter_map(|&(at, len)| mem.slice(at, len));
    parts.flatten().copied().collect()
}

/// Writes bytes over some spans.
pub(crate) fn scatter(mem: &mut GuestMem, spans: &[(u64, u64)], mut bytes: &[u8]) {
    for &(at, len) in spans {
        let (now, rest) = bytes.split_at(bytes.len().min(len as usize));
        if let Some(to) = mem.slice_mut(at, now.len() as u64) {
            to.copy_from_slice(now);
        }
        bytes = rest;
    }
}
