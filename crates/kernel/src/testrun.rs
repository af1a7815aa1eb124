//! `BPF_PROG_TEST_RUN`: which inputs Linux refuses; in `ctx` what R1 is, and what comes back.
//!
//! Types that Linux has no test run for take what their hook would give: the bytes of the structure
//! that programs see, a packet, a socket, arguments.

mod ctx;

pub(crate) use ctx::Buffers;

use crate::frags::MAX_FRAGS;
use crate::hook::netfilter;
use crate::ids::ProgId;
use crate::kernel::Kernel;
use crate::packet::ETH_HLEN;
use crate::prog::{ProgMeta, ProgramInput};
use crate::world::{LOOPBACK, Netdev};
use bpfsim_abi::ctx::{CtxSlot, RAW_TP_SIZE, SK_BUFF, SK_LOOKUP, SYSCALL_CTX_SIZE, XDP_MD};
use bpfsim_abi::prog::TestRun;
use bpfsim_abi::{AttachType, Errno, ProgType};

/// Why a run is refused before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As Linux refuses it.
    Errno(Errno),
    /// bpfsim cannot do it.
    Unsupported(&'static str),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Errno(errno)
    }
}

const PAGE: usize = 4096;
/// `XDP_PACKET_HEADROOM`
const XDP_HEADROOM: usize = 256;
/// `NET_SKB_PAD + NET_IP_ALIGN`
const SKB_HEADROOM: usize = 64;
/// `SKB_DATA_ALIGN(sizeof(struct skb_shared_info))`
const SHARED_INFO: usize = 320;
/// What `bpf_skb_change_head` and its like may take in front, and `bpf_skb_change_tail` behind:
/// Linux makes the buffer larger then.
pub(crate) const ROOM: u64 = 4096;

const F_RUN_ON_CPU: u32 = 1;
const F_LIVE_FRAMES: u32 = 2;
const F_CHECKSUM_COMPLETE: u32 = 4;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// `bpf_ctx_init`: a context longer than the structure must end in zeros.
fn check_tail(ctx: &[u8], size: usize) -> Result<(), Errno> {
    let rest = ctx.get(size..).unwrap_or(&[]);
    if ctx.len() > PAGE || rest.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    Ok(())
}

/// A field of a context as user space gave it, which may be cut short.
fn word(ctx: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    for (to, from) in word.iter_mut().zip(ctx.get(at..).unwrap_or(&[])) {
        *to = *from;
    }
    u32::from_le_bytes(word)
}

/// `eth_type_trans`: the protocol of a frame.
fn ether_type(frame: &[u8]) -> u16 {
    const ETH_P_802_3_MIN: u16 = 0x600;
    const ETH_P_802_2: u16 = 4;
    let given = frame.get(12..14);
    let kind = given.map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    if kind >= ETH_P_802_3_MIN {
        kind
    } else {
        ETH_P_802_2
    }
}

/// `eth_type_trans`: `PACKET_HOST` and so on, as the device sees it.
fn packet_type(frame: &[u8], dev: Option<&Netdev>) -> u32 {
    let to = frame.get(..6).unwrap_or(&[0; 6]);
    match (to, dev) {
        (_, Some(dev)) if to == dev.mac => 0,
        (_, Some(dev)) if to == dev.broadcast() => 1,
        ([first, ..], _) if first & 1 != 0 => 2,
        _ => 3,
    }
}

pub(crate) fn takes_packet(prog: &ProgMeta) -> bool {
    PacketKind::of(prog.prog_type).is_some_and(|kind| kind != PacketKind::Bare)
}

impl Kernel {
    /// True when a program's input is a packet from its Ethernet header on.
    pub fn takes_packet(&self, prog: ProgId) -> bool {
        takes_packet(&self.st.progs[prog.at()])
    }

    /// True when one `BPF_PROG_TEST_RUN` can run a program more than once.
    pub fn can_repeat(&self, prog: ProgId) -> bool {
        repeats(self.st.progs[prog.at()].prog_type)
    }

    /// What Linux refuses before the program runs.
    pub(crate) fn check_test_run(&self, prog: ProgId, input: &ProgramInput) -> Result<(), Refused> {
        if !self.st.prog_fd_open(prog) {
            return Err(Errno::EBADF.into());
        }
        let meta = &self.st.progs[prog.at()];
        let (data, ctx) = (&input.data, &input.ctx);
        let einval = |wrong: bool| match wrong {
            true => Err(Refused::Errno(Errno::EINVAL)),
            false => Ok(()),
        };
        let least = meta.max_ctx_offset as usize;
        let plain = input.flags == 0 && input.cpu == 0 && input.batch_size == 0;
        match TestRun::of(meta.prog_type) {
            TestRun::Skb => self.check_skb(meta.prog_type, input),
            TestRun::Xdp => self.check_xdp(meta.attach_type, input),
            TestRun::FlowDissector => {
                einval(!plain || data.len() < ETH_HLEN as usize || data.len() > PAGE)?;
                let (size, flags) = (FLOW_KEYS, FLOW_KEYS_FLAGS..FLOW_KEYS_FLAGS + 4);
                check_tail(ctx, size)?;
                let other = |(i, &b): (usize, &u8)| b != 0 && !flags.contains(&i);
                einval(ctx.iter().take(size).enumerate().any(other))
            }
            TestRun::SkLookup => {
                einval(!plain || !data.is_empty() || ctx.is_empty())?;
                check_sk_lookup(ctx)
            }
            TestRun::RawTp => {
                einval(!data.is_empty() || input.repeat != 0 || input.batch_size != 0)?;
                einval(ctx.len() < least || ctx.len() > RAW_TP_SIZE as usize)?;
                let on_cpu = input.flags & F_RUN_ON_CPU != 0;
                einval(!on_cpu && input.cpu != 0)?;
                if on_cpu && input.cpu as usize >= self.cpus.len() {
                    return Err(Errno::ENXIO.into());
                }
                Ok(())
            }
            TestRun::Syscall => {
                let more = input.repeat != 0 || input.flags != 0 || input.batch_size != 0;
                let size = ctx.len() < least || ctx.len() > SYSCALL_CTX_SIZE as usize;
                einval(more || !data.is_empty() || size)
            }
            TestRun::Tracing | TestRun::StructOps => einval(!plain),
            TestRun::Netfilter => {
                einval(!plain)?;
                let size = self.layouts.size_of("nf_hook_state") as usize;
                check_tail(ctx, size)?;
                Ok(netfilter::check(input, size)?)
            }
            TestRun::No => Ok(()),
        }
    }

    fn check_skb(&self, prog_type: ProgType, input: &ProgramInput) -> Result<(), Refused> {
        let (data, ctx) = (&input.data, &input.ctx);
        let flags = input.flags & !F_CHECKSUM_COMPLETE;
        let most = PAGE - SKB_HEADROOM - SHARED_INFO;
        let size = data.len();
        if flags != 0 || input.cpu != 0 || input.batch_size != 0 || size < ETH_HLEN as usize {
            return Err(Errno::EINVAL.into());
        }
        if size > most {
            return Err(Errno::EINVAL.into());
        }
        check_tail(ctx, SK_BUFF.size as usize)?;
        let given = |slot| {
            let field = SK_BUFF.field(slot);
            field.map_or(0, |f| word(ctx, f.offset as usize))
        };
        let ifindex = given(CtxSlot::SkbIfindex);
        if ifindex > LOOPBACK && self.st.world.netdev(ifindex).is_none() {
            return Err(Errno::ENODEV.into());
        }
        let least = match ether_type(data) {
            ETH_P_IP => 20,
            ETH_P_IPV6 => 40,
            _ => 0,
        };
        let payload = size - ETH_HLEN as usize;
        if payload < least {
            return Err(Errno::EINVAL.into());
        }
        let fields = SK_BUFF.fields.iter();
        let spans = fields.filter(|f| SKB_GIVEN.contains(&f.slot));
        let allowed = |i: usize| {
            let mut spans = spans.clone();
            spans.any(|f| (f.offset as usize..f.end() as usize).contains(&i))
        };
        let most = ctx.len().min(SK_BUFF.size as usize);
        if (0..most).any(|i| ctx[i] != 0 && !allowed(i)) {
            return Err(Errno::EINVAL.into());
        }
        let l2 = PacketKind::of(prog_type) == Some(PacketKind::L2);
        let len = if l2 { size } else { payload } as u32;
        let wire_len = given(CtxSlot::SkbWireLen);
        if wire_len != 0 && !(len..=GSO_LEGACY_MAX_SIZE).contains(&wire_len) {
            return Err(Errno::EINVAL.into());
        }
        if given(CtxSlot::SkbGsoSegs) > GSO_MAX_SEGS {
            return Err(Errno::EINVAL.into());
        }
        if input.flags & F_CHECKSUM_COMPLETE != 0 {
            return Err(Refused::Unsupported("BPF_F_TEST_SKB_CHECKSUM_COMPLETE"));
        }
        Ok(())
    }

    fn check_xdp(&self, attach: AttachType, input: &ProgramInput) -> Result<(), Refused> {
        let (data, ctx) = (&input.data, &input.ctx);
        let einval = |wrong: bool| match wrong {
            true => Err(Refused::Errno(Errno::EINVAL)),
            false => Ok(()),
        };
        einval(matches!(
            attach,
            AttachType::XdpDevmap | AttachType::XdpCpumap
        ))?;
        einval(input.flags & !F_LIVE_FRAMES != 0)?;
        let live = input.flags & F_LIVE_FRAMES != 0;
        einval(!live && input.batch_size != 0)?;
        if live {
            return Err(Refused::Unsupported("BPF_F_TEST_XDP_LIVE_FRAMES"));
        }
        check_tail(ctx, XDP_MD.size as usize)?;
        let md = XdpMd::of(ctx);
        let size = data.len() as u32;
        let mut linear = size;
        if let Some(md) = md {
            einval(md.meta != 0 || md.end > size || md.data > md.end)?;
            einval(!md.data.is_multiple_of(4) || md.data > META_MAX)?;
            linear = md.end;
        }
        let meta = md.map_or(0, |md| md.data);
        let linear = linear.min(most_in_head(meta.into()) as u32);
        einval(size.wrapping_sub(meta) < ETH_HLEN as u32)?;
        if let Some(md) = md {
            einval(md.egress != 0 || md.ingress == 0 && md.queue != 0)?;
            if md.ingress != 0 {
                let dev = self.st.world.netdev(md.ingress).ok_or(Errno::ENODEV)?;
                einval(md.queue >= dev.rx_queues)?;
            }
        }
        if (size - linear) as usize > MAX_FRAGS * PAGE {
            return Err(Errno::ENOMEM.into());
        }
        Ok(())
    }
}

/// `convert___skb_to_skb` takes these, `convert_skb_to___skb` gives those back.
const SKB_GIVEN: [CtxSlot; 10] = [
    CtxSlot::SkbMark,
    CtxSlot::SkbPriority,
    CtxSlot::SkbIngressIfindex,
    CtxSlot::SkbIfindex,
    CtxSlot::SkbCb,
    CtxSlot::SkbTstamp,
    CtxSlot::SkbWireLen,
    CtxSlot::SkbGsoSegs,
    CtxSlot::SkbGsoSize,
    CtxSlot::SkbHwtstamp,
];
const GSO_LEGACY_MAX_SIZE: u32 = 65536;
const GSO_MAX_SEGS: u32 = 65535;

/// `sizeof(struct bpf_flow_keys)`, and where its `n_proto` and `flags` are.
const FLOW_KEYS: usize = 56;
const FLOW_KEYS_PROTO: usize = 10;
const FLOW_KEYS_FLAGS: usize = 48;

/// The most metadata that an XDP packet may have: `xdp_metalen_invalid`.
const META_MAX: u32 = 216;

/// What the head of an XDP packet has room for.
fn most_in_head(meta: u64) -> u64 {
    (PAGE - XDP_HEADROOM - SHARED_INFO) as u64 + meta
}

/// `struct xdp_md` as user space gives it.
#[derive(Clone, Copy)]
struct XdpMd {
    data: u32,
    end: u32,
    meta: u32,
    ingress: u32,
    queue: u32,
    egress: u32,
}

impl XdpMd {
    fn of(ctx: &[u8]) -> Option<XdpMd> {
        (!ctx.is_empty()).then(|| XdpMd {
            data: word(ctx, 0),
            end: word(ctx, 4),
            meta: word(ctx, 8),
            ingress: word(ctx, 12),
            queue: word(ctx, 16),
            egress: word(ctx, 20),
        })
    }
}

/// `bpf_prog_test_run_sk_lookup`
fn check_sk_lookup(ctx: &[u8]) -> Result<(), Refused> {
    let size = SK_LOOKUP.size as usize;
    check_tail(ctx, size)?;
    let field = |slot| SK_LOOKUP.field(slot).map_or(0, |f| f.offset as usize);
    let cookie = ctx.iter().take(8).any(|&b| b != 0);
    let after = field(CtxSlot::SkLookupLocalPort) + 4;
    let rest = ctx.get(after..size.min(ctx.len())).unwrap_or(&[]);
    if cookie || rest.iter().any(|&b| b != 0) {
        return Err(Errno::EINVAL.into());
    }
    if word(ctx, field(CtxSlot::SkLookupLocalPort)) > u16::MAX.into() {
        return Err(Errno::ERANGE.into());
    }
    match word(ctx, field(CtxSlot::SkLookupFamily)) as u16 {
        2 | 10 => Ok(()),
        _ => Err(Errno::EAFNOSUPPORT.into()),
    }
}

/// Where a run's packet begins for the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    /// With its Ethernet header.
    L2,
    /// After it.
    L3,
    /// There is none: a message, a datagram's payload, an option's value, a TCP header.
    Bare,
}

impl PacketKind {
    /// The packet of program types that have one.
    pub fn of(prog_type: ProgType) -> Option<PacketKind> {
        Some(match prog_type {
            ProgType::Xdp | ProgType::SchedCls | ProgType::SchedAct | ProgType::FlowDissector => {
                PacketKind::L2
            }
            ProgType::SocketFilter
            | ProgType::CgroupSkb
            | ProgType::LwtIn
            | ProgType::LwtOut
            | ProgType::LwtXmit
            | ProgType::LwtSeg6local => PacketKind::L3,
            ProgType::SkSkb
            | ProgType::SkMsg
            | ProgType::SkReuseport
            | ProgType::CgroupSockopt
            | ProgType::SockOps => PacketKind::Bare,
            _ => return None,
        })
    }
}

/// Whether `BPF_PROG_TEST_RUN` runs this type with soft interrupts off (`bpf_test_run`).
pub(crate) fn runs_bh_off(prog_type: ProgType) -> bool {
    matches!(
        TestRun::of(prog_type),
        TestRun::Skb | TestRun::Xdp | TestRun::Netfilter
    )
}

/// Whether it runs this type more than once.
pub(crate) fn repeats(prog_type: ProgType) -> bool {
    runs_bh_off(prog_type)
        || matches!(
            TestRun::of(prog_type),
            TestRun::FlowDissector | TestRun::SkLookup
        )
}
