//! Dynamic pointers: `struct bpf_dynptr_kern`, 16 bytes that the program holds and only helpers
//! read.

use crate::frags::Spans;
use crate::helper::{Arg, Args};
use crate::packet::CTX_WINDOW;
use crate::state::State;
use bpfsim_abi::{Errno, ProgType};
use bpfsim_vm::GuestMem;

/// `DYNPTR_MAX_SIZE`
const MAX_SIZE: u32 = (1 << 24) - 1;
const TYPE_SHIFT: u32 = 28;
const TYPE_MASK: u32 = 7;
/// `DYNPTR_RDONLY_BIT`
const RDONLY: u32 = 1 << 31;

/// `enum bpf_dynptr_type`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DynptrKind {
    Local = 1,
    Ringbuf = 2,
    /// Of the packet of the running program, whatever its address.
    Skb = 3,
    Xdp = 4,
    SkbMeta = 5,
}

/// A dynamic pointer that is not null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dynptr {
    pub data: u64,
    pub kind: DynptrKind,
    pub rdonly: bool,
    pub size: u32,
    pub offset: u32,
}

impl Dynptr {
    /// One over all of some memory. `E2BIG` for more than a dynamic pointer can be.
    pub fn new(kind: DynptrKind, data: u64, size: u32) -> Result<Dynptr, Errno> {
        if size > MAX_SIZE {
            return Err(Errno::E2BIG);
        }
        Ok(Dynptr {
            data,
            kind,
            rdonly: false,
            size,
            offset: 0,
        })
    }

    /// What argument `n` points to; `None` for a null one.
    pub fn read(mem: &GuestMem, a: &Args, n: u8) -> Arg<Option<Dynptr>> {
        let at = a.r[n as usize - 1];
        let words = (mem.read_u64(at), mem.read_u64(at.wrapping_add(8)));
        let (Some(data), Some(rest)) = words else {
            return a.bad(n);
        };
        if data == 0 {
            return Ok(None);
        }
        let size = rest as u32;
        let kind = match size >> TYPE_SHIFT & TYPE_MASK {
            1 => DynptrKind::Local,
            2 => DynptrKind::Ringbuf,
            3 => DynptrKind::Skb,
            4 => DynptrKind::Xdp,
            5 => DynptrKind::SkbMeta,
            _ => return a.bad(n),
        };
        Ok(Some(Dynptr {
            data,
            kind,
            rdonly: size & RDONLY != 0,
            size: size & MAX_SIZE,
            offset: (rest >> 32) as u32,
        }))
    }

    /// Writes a dynamic pointer, or a null one, to where argument `n` points.
    pub fn write(mem: &mut GuestMem, a: &Args, n: u8, value: Option<Dynptr>) -> Arg<()> {
        let at = a.r[n as usize - 1];
        let done = match value {
            Some(d) => d.put(mem, at),
            None => {
                let first = mem.write_u64(at, 0);
                first.and_then(|()| mem.write_u64(at.wrapping_add(8), 0))
            }
        };
        done.map_or_else(|| a.bad(n), Ok)
    }

    /// Writes it to an address.
    pub fn put(self, mem: &mut GuestMem, at: u64) -> Option<()> {
        let rdonly = if self.rdonly { RDONLY } else { 0 };
        let size = self.size | (self.kind as u32) << TYPE_SHIFT | rdonly;
        mem.write_u64(at, self.data)?;
        mem.write_u64(at.wrapping_add(8), size as u64 | (self.offset as u64) << 32)
    }

    /// `bpf_dynptr_check_off_len`
    pub fn check(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let size = self.size as u64;
        if len > size || offset > size - len {
            return Err(Errno::E2BIG);
        }
        Ok(())
    }

    /// Memory of `len` bytes from `offset` on; `None` where there are not as many.
    pub fn slice(&self, st: &State, offset: u64, len: u64) -> Option<u64> {
        self.check(offset, len).ok()?;
        let at = self.offset as u64 + offset;
        match self.kind {
            DynptrKind::Local | DynptrKind::Ringbuf => Some(self.data.wrapping_add(at)),
            DynptrKind::Skb => st.cur.ctx.packet()?.at(at, len),
            DynptrKind::Xdp => st.cur.ctx.fields()?.one_span(at, len),
            DynptrKind::SkbMeta => {
                let packet = st.cur.ctx.packet()?;
                (at + len <= packet.data - packet.meta).then(|| packet.meta + at)
            }
        }
    }

    /// Where bytes of an XDP packet lie, which may be in several of its pages; `None` for other kinds
    /// of memory, which is in one piece. The bounds are those of [`Dynptr::check`].
    pub fn xdp_spans(&self, st: &State, offset: u64, len: u64) -> Option<Result<Spans, Errno>> {
        let ctx = st
            .cur
            .ctx
            .fields()
            .filter(|_| self.kind == DynptrKind::Xdp)?;
        Some(ctx.whole_spans(self.offset as u64 + offset, len))
    }

    /// As [`Dynptr::slice`], to be written to.
    pub fn slice_rdwr(&self, st: &State, offset: u64, len: u64) -> Option<u64> {
        if self.rdonly {
            return None;
        }
        self.slice(st, offset, len)
    }

    /// `bpf_dynptr_from_skb`, `_xdp`, `_skb_meta`: over the packet that R1 of the program is.
    pub fn of_packet(st: &State, a: &Args, kind: DynptrKind) -> Arg<Result<Dynptr, Errno>> {
        let fields = st.cur.ctx.fields().filter(|_| a.r[0] == CTX_WINDOW);
        let Some((fields, packet)) = fields.and_then(|f| Some((f, f.packet?))) else {
            return a.bad(1);
        };
        if a.r[1] != 0 {
            return Ok(Err(Errno::EINVAL));
        }
        let size = match kind {
            DynptrKind::SkbMeta => packet.data - packet.meta,
            _ => fields.buff_len(),
        };
        let made = Dynptr::new(kind, a.r[0], size.min(u32::MAX as u64) as u32);
        let rdonly = !writes_packets(st.progs[st.cur.prog.at()].prog_type);
        Ok(made.map(|d| Dynptr { rdonly, ..d }))
    }
}

/// Programs that may write to their packets (`may_access_direct_pkt_data`).
fn writes_packets(prog_type: ProgType) -> bool {
    matches!(
        prog_type,
        ProgType::SchedCls
            | ProgType::SchedAct
            | ProgType::Xdp
            | ProgType::LwtXmit
            | ProgType::SkSkb
            | ProgType::SkMsg
    )
}
