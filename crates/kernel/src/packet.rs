//! Packets, and the contexts that programs see fields of.

use crate::frags::Frags;
use crate::helper::{Message, Tunnel};
use crate::ids::{MapId, SockId};
use crate::prog::Sysctl;
use bpfsim_abi::ctx::{CtxRule, CtxSlot};
use bpfsim_vm::{BASE, GuestMem};

/// Address of the window that a context of fields is seen in: outside of guest memory, so that
/// every access comes to [`FieldsCtx::load`].
/// Its lower half is no number that a program could take for an index.
pub(crate) const CTX_WINDOW: u64 = BASE + (1 << 40) + (1 << 31);

/// Where a packet was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// How.
    pub how: RedirectKind,
    /// Index of the device; of `bpf_redirect_map` the entry of the map.
    pub to: u32,
    /// The flags that the helper was given.
    pub flags: u64,
    /// The packet as it was sent.
    pub data: Vec<u8>,
}

/// What sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectKind {
    /// `bpf_redirect`
    Redirect,
    /// `bpf_clone_redirect`: the program goes on with the packet.
    Clone,
    /// `bpf_redirect_peer`
    Peer,
    /// `bpf_redirect_neigh`
    Neigh,
    /// `bpf_redirect_map` of this map.
    Map(MapId),
    /// To a socket of a map: `bpf_sk_redirect_map` and its like, `bpf_sk_select_reuseport`.
    Sock(SockId),
}

/// A context whose fields are not where programs see them, such as `struct __sk_buff`.
#[derive(Clone)]
pub(crate) struct FieldsCtx {
    pub rule: &'static CtxRule,
    /// Fields as user space sees them.
    pub raw: Vec<u8>,
    /// Fields that are pointers, whatever their width in C.
    pub pointers: Vec<(CtxSlot, u64)>,
    pub packet: Option<Packet>,
    /// The tunnel that a packet is to be sent through.
    pub tunnel: Option<Box<Tunnel>>,
    /// Of a message what it is made of; the packet is what a program sees of it.
    pub message: Option<Message>,
    /// What of an XDP packet is not in its head.
    pub frags: Frags,
    /// What a `sock_ops` program may still put into a TCP header.
    pub opt_room: u32,
    /// Memory beside it, address and length: a flow dissector's keys.
    pub beside: Option<(u64, u64)>,
    /// What a socket buffer knows beside its fields.
    pub skb: SkbState,
    /// The parameter that the program is asked about.
    pub sysctl: Option<Sysctl>,
    /// The socket that a hook without a field for it is about.
    pub sock: Option<SockId>,
    /// What `bpf_sk_assign` chose.
    pub selected: Option<SockId>,
    /// Where the packet goes if the program returns that it is to be redirected.
    pub target: Option<Redirect>,
    /// Where packets were sent.
    pub redirects: Vec<Redirect>,
}

/// What a socket buffer knows that its context does not show.
#[derive(Clone, Copy, Default)]
pub(crate) struct SkbState {
    /// A header was pushed around another (`skb->encapsulation`).
    pub encapsulation: bool,
    /// How many checksums a device has checked, less one; none where it has checked none
    /// (`skb->ip_summed`, `skb->csum_level`).
    pub csum_level: Option<u8>,
    /// The segment routing header that a program of `End.BPF` works on.
    pub srh: Option<crate::helper::lwt::Srh>,
}

/// A packet in guest memory: `head <= data <= end <= tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// First byte of its buffer (`skb->head`, `xdp->data_hard_start`).
    pub head: u64,
    /// First byte of metadata before it; `data` where there is none.
    pub meta: u64,
    pub data: u64,
    /// First byte of its Ethernet header (`skb_mac_header`).
    pub mac: u64,
    pub end: u64,
    /// End of its buffer.
    pub tail: u64,
}

/// `ETH_HLEN`
pub(crate) const ETH_HLEN: u64 = 14;

/// The fields that show a packet, by context: start, end, metadata, length.
const SHOWS: [(CtxSlot, CtxSlot, Option<CtxSlot>, Option<CtxSlot>); 6] = [
    (
        CtxSlot::SkbData,
        CtxSlot::SkbDataEnd,
        Some(CtxSlot::SkbDataMeta),
        Some(CtxSlot::SkbLen),
    ),
    (
        CtxSlot::XdpData,
        CtxSlot::XdpDataEnd,
        Some(CtxSlot::XdpDataMeta),
        None,
    ),
    (
        CtxSlot::SkMsgData,
        CtxSlot::SkMsgDataEnd,
        None,
        Some(CtxSlot::SkMsgSize),
    ),
    (
        CtxSlot::SkReuseportData,
        CtxSlot::SkReuseportDataEnd,
        None,
        Some(CtxSlot::SkReuseportLen),
    ),
    (
        CtxSlot::SockOpsSkbData,
        CtxSlot::SockOpsSkbDataEnd,
        None,
        Some(CtxSlot::SockOpsSkbLen),
    ),
    (
        CtxSlot::SockoptOptval,
        CtxSlot::SockoptOptvalEnd,
        None,
        None,
    ),
];

/// Fields of four bytes whose values Linux keeps in two.
const HALVES: [CtxSlot; 3] = [
    CtxSlot::SkbQueueMapping,
    CtxSlot::SkbTcIndex,
    CtxSlot::SkbTcClassid,
];
/// `NO_QUEUE_MAPPING`
const NO_QUEUE_MAPPING: u32 = 0xffff;

impl FieldsCtx {
    pub fn new(rule: &'static CtxRule, given: &[u8]) -> FieldsCtx {
        let mut raw = vec![0; rule.layout.size as usize];
        let n = given.len().min(raw.len());
        raw[..n].copy_from_slice(&given[..n]);
        FieldsCtx {
            rule,
            raw,
            pointers: Vec::new(),
            packet: None,
            tunnel: None,
            message: None,
            frags: Frags::default(),
            opt_room: 0,
            beside: None,
            skb: SkbState::default(),
            sysctl: None,
            sock: None,
            selected: None,
            target: None,
            redirects: Vec::new(),
        }
    }

    /// A field's value as user space sees it; 0 for one that the context has not.
    pub fn get(&self, slot: CtxSlot) -> u64 {
        let Some(field) = self.rule.layout.field(slot) else {
            return 0;
        };
        let bytes = &self.raw[field.offset as usize..][..field.width as usize];
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    /// Sets a field's bytes, if the context has it: an address, or several elements.
    pub fn put(&mut self, slot: CtxSlot, value: &[u8]) {
        if let Some(f) = self.rule.layout.field(slot) {
            let (from, end) = (f.offset as usize, f.end() as usize);
            let n = value.len().min(end - from);
            self.raw[from..from + n].copy_from_slice(&value[..n]);
        }
    }

    /// Has a field show a pointer, if the context has it; 0 is none.
    pub fn point(&mut self, slot: CtxSlot, to: u64) {
        if self.rule.layout.field(slot).is_some() {
            self.pointers.retain(|(s, _)| *s != slot);
            self.pointers.push((slot, to));
        }
    }

    /// True for `struct xdp_md`.
    pub fn is_xdp(&self) -> bool {
        self.rule.layout.field(CtxSlot::XdpData).is_some()
    }

    /// Sets a 4-byte field, if the context has it.
    pub fn set(&mut self, slot: CtxSlot, value: u32) {
        if let Some(f) = self.rule.layout.field(slot) {
            let at = f.offset as usize;
            self.raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Gives the program this packet.
    pub fn show(&mut self, packet: Packet) {
        self.packet = Some(packet);
        let layout = self.rule.layout;
        let shown = SHOWS.iter().find(|s| layout.field(s.0).is_some());
        let Some(&(data, end, meta, len)) = shown else {
            return;
        };
        self.point(data, packet.data);
        self.point(end, packet.end);
        if let Some(meta) = meta {
            self.point(meta, packet.meta);
        }
        if let Some(len) = len {
            self.set(len, packet.len() as u32);
        }
    }

    /// Loads a field or a part of one; `None` for what Linux's `is_valid_access` refuses.
    pub fn load(&self, addr: u64, size: u32) -> Option<u64> {
        let off = u32::try_from(addr.checked_sub(CTX_WINDOW)?).ok()?;
        let field = self.rule.check(off, size, false)?.field?;
        if let Some((_, pointer)) = self.pointers.iter().find(|(slot, _)| *slot == field.slot) {
            return Some(*pointer);
        }
        let bytes = self.raw.get(off as usize..(off + size) as usize)?;
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }

    /// Stores to a field; `None` for what Linux's `is_valid_access` refuses.
    pub fn store(&mut self, addr: u64, size: u32, value: u64) -> Option<()> {
        let off = u32::try_from(addr.checked_sub(CTX_WINDOW)?).ok()?;
        let field = self.rule.check(off, size, true)?.field?;
        if field.slot == CtxSlot::SkbQueueMapping && value as u32 >= NO_QUEUE_MAPPING {
            return Some(());
        }
        let value = match HALVES.contains(&field.slot) {
            true => value & 0xffff,
            false => value,
        };
        let bytes = self.raw.get_mut(off as usize..(off + size) as usize)?;
        bytes.copy_from_slice(&value.to_le_bytes()[..size as usize]);
        Some(())
    }
}

impl Packet {
    pub fn len(&self) -> u64 {
        self.end - self.data
    }

    /// `len` bytes at `offset` of the packet, or `None` when they are not all in it.
    pub fn at(&self, offset: u64, len: u64) -> Option<u64> {
        let end = offset.checked_add(len)?;
        (end <= self.len()).then_some(self.data + offset)
    }

    /// `LD_ABS`: bytes converted from network order. Negative offsets count from the headers, as
    /// `bpf_internal_load_pointer_neg_helper` has it.
    pub fn load(&self, mem: &GuestMem, offset: i32, size: u32) -> Option<u64> {
        const SKF_NET_OFF: i32 = -0x10_0000;
        const SKF_LL_OFF: i32 = -0x20_0000;
        let from = match offset {
            0.. => self.data,
            SKF_NET_OFF.. => self.mac + ETH_HLEN,
            SKF_LL_OFF.. => self.mac,
            _ => return None,
        };
        let bias = match offset {
            0.. => 0,
            SKF_NET_OFF.. => SKF_NET_OFF,
            _ => SKF_LL_OFF,
        };
        let at = from + (offset - bias) as u64;
        if at < self.head || at + size as u64 > self.end {
            return None;
        }
        let bytes = mem.slice(at, size as u64)?;
        Some(bytes.iter().fold(0, |w, &b| w << 8 | b as u64))
    }
}
