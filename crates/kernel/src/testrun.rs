//! `BPF_PROG_TEST_RUN`: which inputs Linux refuses, what R1 is, and what comes back.
//!
//! Types that Linux has no test run for take what their hook would give: the bytes of the structure
//! that programs see, a packet, a socket, arguments.

use crate::frags::{Frag, MAX_FRAGS, gather};
use crate::helper::Message;
use crate::hook::netfilter;
use crate::ids::{Cpu, ProgId, SockId};
use crate::kernel::Kernel;
use crate::packet::{CTX_WINDOW, ETH_HLEN, FieldsCtx, Packet, RedirectKind};
use crate::prog::{Arg, ProgCtx, ProgramInput, ProgramOutput};
use crate::syscall::SysResult;
use crate::world::{LOOPBACK, Netdev, SockState, sock_window};
use bpfsim_abi::ctx::{self, CtxShape, CtxSlot, RAW_TP_SIZE, SYSCALL_CTX_SIZE};
use bpfsim_abi::prog::TestRun;
use bpfsim_abi::{AttachType, Errno, ProgType};
use bpfsim_vm::{Area, GuestMem, MemError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

impl Kernel {
    /// True when a program's input is a packet from its Ethernet header on.
    pub fn takes_packet(&self, prog: ProgId) -> bool {
        let kind = PacketKind::of(self.st.progs[prog.at()].prog_type);
        kind.is_some_and(|k| k != PacketKind::Bare)
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
        check_tail(ctx, ctx::SK_BUFF.size as usize)?;
        let given = |slot| {
            let field = ctx::SK_BUFF.field(slot);
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
        let fields = ctx::SK_BUFF.fields.iter();
        let spans = fields.filter(|f| SKB_GIVEN.contains(&f.slot));
        let allowed = |i: usize| {
            let mut spans = spans.clone();
            spans.any(|f| (f.offset as usize..f.end() as usize).contains(&i))
        };
        let most = ctx.len().min(ctx::SK_BUFF.size as usize);
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
        check_tail(ctx, ctx::XDP_MD.size as usize)?;
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

    /// What R1 is for a program of this type, given this input, and what it means.
    pub(crate) fn make_ctx(
        &mut self,
        prog: ProgId,
        input: &ProgramInput,
        cpu: Cpu,
    ) -> Result<(u64, ProgCtx), MemError> {
        let meta = &self.st.progs[prog.at()];
        let (prog_type, attach_type) = (meta.prog_type, meta.attach_type);
        match ctx::shape(prog_type, attach_type) {
            CtxShape::Fields(rule) => {
                let mut ctx = FieldsCtx::new(rule, &input.ctx);
                ctx.sysctl.clone_from(&input.sysctl);
                match TestRun::of(prog_type) {
                    TestRun::SkLookup => lookup_fields(&mut ctx, &input.ctx),
                    TestRun::FlowDissector => self.flow_ctx(&mut ctx, input)?,
                    TestRun::Xdp => self.xdp_ctx(&mut ctx, input)?,
                    TestRun::Netfilter => self.netfilter_ctx(&mut ctx, input)?,
                    _ => self.packet_ctx(&mut ctx, prog_type, input, cpu)?,
                }
                if let Some(sock) = input.sock {
                    ctx.sock = Some(sock);
                    for slot in SOCKS {
                        ctx.point(slot, sock_window(sock));
                    }
                }
                Ok((CTX_WINDOW, ProgCtx::Fields(Box::new(ctx))))
            }
            CtxShape::Btf if !input.args.is_empty() => self.args_ctx(&input.args),
            _ => {
                let len = (input.ctx.len() as u64).max(CTX_BYTES);
                let at = self.buffers.take(&mut self.mem, len)?;
                if let Some(bytes) = self.mem.slice_mut(at, len) {
                    bytes.fill(0);
                    bytes[..input.ctx.len()].copy_from_slice(&input.ctx);
                }
                self.mem.expose(at, len);
                Ok((at, ProgCtx::Memory))
            }
        }
    }

    /// Arguments of 8 bytes each, behind their number as `bpf_get_func_arg_cnt` finds it.
    pub(crate) fn args_ctx(&mut self, args: &[Arg]) -> Result<(u64, ProgCtx), MemError> {
        let at = self.buffers.take(&mut self.mem, CTX_BYTES)?;
        let mut words = vec![args.len() as u64];
        for arg in args {
            words.push(self.arg_value(arg)?);
        }
        words.resize(CTX_BYTES as usize / 8, 0);
        for (i, word) in words.iter().enumerate() {
            self.mem.write_u64(at + 8 * i as u64, *word);
        }
        self.mem.expose(at, CTX_BYTES);
        Ok((at + 8, ProgCtx::Args))
    }

    pub(crate) fn arg_value(&mut self, arg: &Arg) -> Result<u64, MemError> {
        let nothing = |found: Option<u64>| found.unwrap_or(0);
        Ok(match arg {
            Arg::Value(value) => *value,
            Arg::Task(task) => nothing(self.st.tasks.get(task.at()).map(|t| t.addr)),
            Arg::Sock(sock) => nothing(self.st.world.socks.get(sock.at()).map(|s| s.addr)),
            Arg::Cgroup(c) => nothing(self.st.world.cgroups.get(c.at()).map(|c| c.addr)),
            Arg::File(file) => nothing(self.st.world.files.get(file.at()).map(|f| f.addr)),
            Arg::Path(file) => {
                let path = self.layouts.member("file", "f_path").unwrap_or(0);
                nothing(self.st.world.files.get(file.at()).map(|f| f.addr + path))
            }
            Arg::Map(map) => nothing(self.st.maps.get(map.at()).map(|m| m.addr)),
            Arg::Bytes(bytes) => {
                let at = self.mem.alloc(Area::Object, bytes.len().max(1) as u64, 8)?;
                if let Some(to) = self.mem.slice_mut(at, bytes.len() as u64) {
                    to.copy_from_slice(bytes);
                }
                at
            }
        })
    }

    /// A packet as a socket buffer, or as the bare bytes of a message or an option.
    fn packet_ctx(
        &mut self,
        ctx: &mut FieldsCtx,
        prog_type: ProgType,
        input: &ProgramInput,
        cpu: Cpu,
    ) -> Result<(), MemError> {
        let Some(kind) = PacketKind::of(prog_type) else {
            return Ok(());
        };
        let len = input.data.len() as u64;
        let head = self.buffers.take(&mut self.mem, len + 2 * ROOM)?;
        let mac = head + ROOM;
        if let Some(bytes) = self.mem.slice_mut(mac, len) {
            bytes.copy_from_slice(&input.data);
        }
        let skip = if kind == PacketKind::L3 { ETH_HLEN } else { 0 };
        let data = mac + skip.min(len);
        let packet = Packet {
            head,
            mac,
            meta: data,
            data,
            end: mac + len,
            tail: mac + len + ROOM,
        };
        self.mem.expose(data, packet.len());
        ctx.show(packet);
        if prog_type == ProgType::SkMsg {
            ctx.message = Some(Message::new(&packet));
        }
        if kind == PacketKind::Bare {
            return Ok(());
        }
        let given = ctx.get(CtxSlot::SkbIfindex) as u32;
        let ifindex = if given > LOOPBACK { given } else { LOOPBACK };
        ctx.set(CtxSlot::SkbIfindex, ifindex);
        let proto = ether_type(&input.data);
        ctx.set(CtxSlot::SkbProtocol, u16::from_be(proto).into());
        let dev = self.st.world.netdev(ifindex);
        ctx.set(CtxSlot::SkbPktType, packet_type(&input.data, dev));
        if ctx.get(CtxSlot::SkbWireLen) == 0 && !input.ctx.is_empty() {
            ctx.set(CtxSlot::SkbWireLen, packet.len() as u32);
        }
        if ctx.rule.fields.iter().any(|r| r.slot == CtxSlot::SkbSk) {
            let sock = self.test_sock(ctx, proto, &input.data, cpu);
            ctx.point(CtxSlot::SkbSk, sock_window(sock));
        }
        Ok(())
    }

    /// The socket that `BPF_PROG_TEST_RUN` gives a packet: unconnected, with the packet's
    /// addresses. Fields of the context show them too.
    fn test_sock(&mut self, ctx: &mut FieldsCtx, proto: u16, frame: &[u8], cpu: Cpu) -> SockId {
        let ip = &frame[ETH_HLEN as usize..];
        let at = |from: usize, n: usize| ip.get(from..from + n).unwrap_or(&[]);
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (family, ends) = match proto {
            ETH_P_IP => {
                let ip = |b: &[u8]| <[u8; 4]>::try_from(b).map_or(nowhere, IpAddr::from);
                (2, [ip(at(12, 4)), ip(at(16, 4))])
            }
            ETH_P_IPV6 => {
                let ip = |b: &[u8]| <[u8; 16]>::try_from(b).map_or(nowhere, IpAddr::from);
                (10, [ip(at(8, 16)), ip(at(24, 16))])
            }
            _ => (0, [nowhere; 2]),
        };
        let slots = match family {
            2 => [CtxSlot::SkbLocalIp4, CtxSlot::SkbRemoteIp4],
            _ => [CtxSlot::SkbLocalIp6, CtxSlot::SkbRemoteIp6],
        };
        for (slot, ip) in slots.into_iter().zip(ends).take(2 * (family != 0) as usize) {
            ctx.put(slot, &crate::world::octets(ip));
        }
        ctx.set(CtxSlot::SkbFamily, family);
        let sock = SockId(cpu.0);
        let s = &mut self.st.world.socks[sock.at()];
        s.family = family;
        s.spec.local = SocketAddr::new(ends[0], 0);
        s.spec.remote = Some(SocketAddr::new(ends[1], 0));
        s.spec.state = SockState::Close;
        sock
    }

    fn xdp_ctx(&mut self, ctx: &mut FieldsCtx, input: &ProgramInput) -> Result<(), MemError> {
        let md = XdpMd::of(&input.ctx);
        let meta_len = u64::from(md.map_or(0, |md| md.data)).min(META_MAX.into());
        let linear = md.map_or(u64::MAX, |md| md.end.into());
        let len = (input.data.len() as u64).min(linear.min(most_in_head(meta_len)));
        let (linear, rest) = input.data.split_at(len as usize);
        let head = self.buffers.take(&mut self.mem, PAGE as u64)?;
        // Metadata ends where the packet would begin without any.
        let data = head + XDP_HEADROOM as u64;
        let meta = data - meta_len;
        if let Some(bytes) = self.mem.slice_mut(head, PAGE as u64) {
            bytes.fill(0);
        }
        if let Some(bytes) = self.mem.slice_mut(meta, len) {
            bytes.copy_from_slice(linear);
        }
        self.mem.expose(meta, len);
        for part in rest.chunks(PAGE) {
            let page = self.buffers.take(&mut self.mem, PAGE as u64)?;
            let len = part.len() as u64;
            if let Some(bytes) = self.mem.slice_mut(page, len) {
                bytes.copy_from_slice(part);
            }
            self.mem.expose(page, len);
            ctx.frags.push(Frag::new(page, len));
        }
        ctx.raw.fill(0);
        ctx.show(Packet {
            head,
            mac: data,
            meta,
            data,
            end: meta + len,
            tail: head + (PAGE - SHARED_INFO) as u64,
        });
        let ingress = md.map_or(0, |md| md.ingress);
        let ingress = if ingress == 0 { LOOPBACK } else { ingress };
        ctx.set(CtxSlot::XdpIngressIfindex, ingress);
        ctx.set(CtxSlot::XdpRxQueueIndex, md.map_or(0, |md| md.queue));
        Ok(())
    }

    /// `bpf_flow_dissect`
    fn flow_ctx(&mut self, ctx: &mut FieldsCtx, input: &ProgramInput) -> Result<(), MemError> {
        let len = input.data.len() as u64;
        let head = self.buffers.take(&mut self.mem, len)?;
        if let Some(bytes) = self.mem.slice_mut(head, len) {
            bytes.copy_from_slice(&input.data);
        }
        let keys = self.buffers.take(&mut self.mem, FLOW_KEYS as u64)?;
        let flags = word(&input.ctx, FLOW_KEYS_FLAGS);
        let proto = input.data.get(12..14).map_or([0; 2], |b| [b[0], b[1]]);
        self.set_flow_keys(keys, proto, flags);
        self.mem.expose(head, len);
        self.mem.expose(keys, FLOW_KEYS as u64);
        ctx.raw.fill(0);
        ctx.show(Packet {
            head,
            mac: head,
            meta: head,
            data: head,
            end: head + len,
            tail: head + len,
        });
        ctx.beside = Some((keys, FLOW_KEYS as u64));
        ctx.point(CtxSlot::SkbFlowKeys, keys);
        Ok(())
    }

    fn set_flow_keys(&mut self, at: u64, proto: [u8; 2], flags: u32) {
        if let Some(keys) = self.mem.slice_mut(at, FLOW_KEYS as u64) {
            keys.fill(0);
            keys[..2].copy_from_slice(&(ETH_HLEN as u16).to_le_bytes());
            keys[2..4].copy_from_slice(&(ETH_HLEN as u16).to_le_bytes());
            keys[FLOW_KEYS_PROTO..FLOW_KEYS_PROTO + 2].copy_from_slice(&proto);
            keys[FLOW_KEYS_FLAGS..FLOW_KEYS_FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
        }
    }

    /// Makes a context ready for the next of several runs: what the program changed stays.
    pub(crate) fn renew_ctx(&mut self, ctx: &mut ProgCtx, input: &ProgramInput) {
        let ProgCtx::Fields(fields) = ctx else {
            return;
        };
        fields.selected = None;
        fields.target = None;
        if let (Some((keys, _)), Some(packet)) = (fields.beside, fields.packet) {
            let proto = self.mem.slice(packet.data + 12, 2);
            let proto = proto.map_or([0; 2], |b| [b[0], b[1]]);
            self.set_flow_keys(keys, proto, word(&input.ctx, FLOW_KEYS_FLAGS));
        }
    }

    /// One of the runs is over: where its packet goes.
    pub(crate) fn note_redirect(&mut self, ctx: &mut ProgCtx, return_value: u32) {
        const XDP_REDIRECT: u32 = 4;
        const TC_ACT_REDIRECT: u32 = 7;
        const SK_PASS: u32 = 1;
        let ProgCtx::Fields(fields) = ctx else {
            return;
        };
        let action = match fields.target.as_ref().map(|t| t.how) {
            Some(RedirectKind::Sock(_)) => SK_PASS,
            _ if fields.is_xdp() => XDP_REDIRECT,
            _ => TC_ACT_REDIRECT,
        };
        let target = fields.target.take().filter(|_| return_value == action);
        if let Some(mut target) = target.filter(|_| fields.packet.is_some()) {
            let message = fields.message.as_ref().map(|m| m.span());
            target.data = match message {
                Some(span) => gather(&self.mem, &[span]),
                None => gather(&self.mem, &fields.spans(0, u64::MAX)),
            };
            fields.redirects.push(target);
        }
    }

    /// What a run gives back, and its buffers to later ones.
    pub(crate) fn finish_ctx(
        &mut self,
        prog: ProgId,
        input: &ProgramInput,
        r1: u64,
        ctx: ProgCtx,
        return_value: u32,
        insns: u64,
    ) -> SysResult {
        let prog_type = self.st.progs[prog.at()].prog_type;
        let mut out = self.read_ctx(prog_type, input, r1, &ctx, return_value, insns);
        if let (ProgCtx::Fields(ctx), TestRun::SkLookup) = (&ctx, TestRun::of(prog_type)) {
            out.return_value = (return_value != 0 || ctx.selected.is_some()) as u32;
        }
        self.give_ctx_back(prog_type, input.ctx.len() as u64, r1, ctx);
        let over = |most: Option<u32>, len: usize| most.is_some_and(|most| len > most as usize);
        let runs_in_linux = TestRun::of(prog_type) != TestRun::No;
        let data_over = over(input.data_size_out.filter(|&n| n != 0), out.data_out.len());
        if runs_in_linux && (data_over || over(input.ctx_size_out, out.ctx_out.len())) {
            return SysResult::Failed(Errno::ENOSPC);
        }
        SysResult::Output(out)
    }

    /// What a program left in its context and packet.
    pub(crate) fn read_ctx(
        &self,
        prog_type: ProgType,
        input: &ProgramInput,
        r1: u64,
        ctx: &ProgCtx,
        return_value: u32,
        insns: u64,
    ) -> ProgramOutput {
        let bytes = |mem: &GuestMem, at, len| mem.slice(at, len).unwrap_or(&[]).to_vec();
        let mut out = ProgramOutput {
            return_value,
            insns,
            ..ProgramOutput::default()
        };
        match ctx {
            ProgCtx::Memory => {
                out.ctx_out = bytes(&self.mem, r1, input.ctx.len() as u64);
            }
            ProgCtx::Args => {}
            ProgCtx::Fields(ctx) => {
                let kind = TestRun::of(prog_type);
                if let Some(p) = ctx.packet {
                    out.data_out = match PacketKind::of(prog_type) {
                        Some(PacketKind::L3) if kind == TestRun::Skb => {
                            let mut frame = vec![0; ETH_HLEN as usize];
                            frame.extend(bytes(&self.mem, p.data, p.len()));
                            frame
                        }
                        _ if kind == TestRun::Xdp => {
                            let mut all = bytes(&self.mem, p.meta, p.data - p.meta);
                            all.extend(gather(&self.mem, &ctx.spans(0, u64::MAX)));
                            all
                        }
                        _ => {
                            let whole = ctx.message.as_ref().map(|m| m.span());
                            let (at, len) = whole.unwrap_or((p.data, p.len()));
                            bytes(&self.mem, at, len)
                        }
                    };
                    if let Some(message) = &ctx.message {
                        out.apply_bytes = message.apply_bytes;
                        out.cork_bytes = message.cork_bytes;
                    }
                }
                if let Some((at, len)) = ctx.beside {
                    out.data_out = flow_keys_out(bytes(&self.mem, at, len), input.data.len());
                }
                if let Some(new) = ctx.sysctl.as_ref().and_then(|s| s.new.as_ref()) {
                    out.data_out.clone_from(new);
                }
                out.ctx_out = self.ctx_out(kind, input, ctx);
                out.redirects.clone_from(&ctx.redirects);
            }
        }
        out
    }

    /// Buffers of a context are for later runs; `len` is how much of it was given.
    pub(crate) fn give_ctx_back(&mut self, prog_type: ProgType, len: u64, r1: u64, ctx: ProgCtx) {
        match ctx {
            ProgCtx::Memory => self.buffers.give(r1, len.max(CTX_BYTES)),
            ProgCtx::Args => self.buffers.give(r1 - 8, CTX_BYTES),
            ProgCtx::Fields(ctx) => {
                if let Some(p) = ctx.packet {
                    let len = match TestRun::of(prog_type) {
                        TestRun::Xdp => PAGE as u64,
                        _ => p.tail - p.head,
                    };
                    self.buffers.give(p.head, len);
                }
                if let Some((at, len)) = ctx.beside {
                    self.buffers.give(at, len);
                }
                for page in ctx.frags.pages() {
                    self.buffers.give(page, PAGE as u64);
                }
            }
        }
    }

    fn ctx_out(&self, kind: TestRun, input: &ProgramInput, ctx: &FieldsCtx) -> Vec<u8> {
        let mut given = input.ctx.clone();
        given.resize(ctx.raw.len(), 0);
        match kind {
            TestRun::Skb => {
                let fields = ctx.rule.layout.fields.iter();
                for f in fields.filter(|f| SKB_SHOWN.contains(&f.slot)) {
                    let span = f.offset as usize..f.end() as usize;
                    given[span.clone()].copy_from_slice(&ctx.raw[span]);
                }
                given
            }
            TestRun::Xdp => {
                if let Some(p) = ctx.packet {
                    let word = |n: u64| (n as u32).to_le_bytes();
                    given[..4].copy_from_slice(&word(p.data - p.meta));
                    given[4..8].copy_from_slice(&word(p.end - p.meta));
                }
                given
            }
            TestRun::FlowDissector => {
                let mut given = input.ctx.clone();
                given.resize(if given.is_empty() { 0 } else { FLOW_KEYS }, 0);
                given
            }
            TestRun::SkLookup => {
                let sock = ctx.selected.and_then(|s| self.st.world.socks.get(s.at()));
                given[..8].copy_from_slice(&sock.map_or(0, |s| s.cookie).to_le_bytes());
                given
            }
            _ => ctx.raw.clone(),
        }
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
const SKB_SHOWN: [CtxSlot; 9] = [
    CtxSlot::SkbMark,
    CtxSlot::SkbPriority,
    CtxSlot::SkbIngressIfindex,
    CtxSlot::SkbIfindex,
    CtxSlot::SkbCb,
    CtxSlot::SkbTstamp,
    CtxSlot::SkbWireLen,
    CtxSlot::SkbGsoSegs,
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

/// Fields that a hook's socket shows in.
const SOCKS: [CtxSlot; 6] = [
    CtxSlot::SkbSk,
    CtxSlot::SockAddrSk,
    CtxSlot::SockOpsSk,
    CtxSlot::SkMsgSk,
    CtxSlot::SkReuseportSk,
    CtxSlot::SockoptSk,
];

/// Least size of a context in guest memory: that of the largest that programs read without
/// having been given one (`struct bpf_perf_event_data`, `struct pt_regs`).
const CTX_BYTES: u64 = 256;

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
    let size = ctx::SK_LOOKUP.size as usize;
    check_tail(ctx, size)?;
    let field = |slot| ctx::SK_LOOKUP.field(slot).map_or(0, |f| f.offset as usize);
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

/// What a program sees of a `struct bpf_sk_lookup` that user space gave: of the addresses those of
/// its family.
fn lookup_fields(ctx: &mut FieldsCtx, given: &[u8]) {
    let family = ctx.get(CtxSlot::SkLookupFamily) as u16;
    let hidden = match family {
        2 => [CtxSlot::SkLookupRemoteIp6, CtxSlot::SkLookupLocalIp6],
        _ => [CtxSlot::SkLookupRemoteIp4, CtxSlot::SkLookupLocalIp4],
    };
    for slot in hidden {
        ctx.put(slot, &[0; 16]);
    }
    ctx.set(CtxSlot::SkLookupFamily, family.into());
    let protocol = ctx.get(CtxSlot::SkLookupProtocol) as u16;
    ctx.set(CtxSlot::SkLookupProtocol, protocol.into());
    let at = ctx::SK_LOOKUP.field(CtxSlot::SkLookupRemotePort);
    let port = at.map_or(0, |f| word(given, f.offset as usize));
    ctx.set(CtxSlot::SkLookupRemotePort, port & 0xffff);
    ctx.point(CtxSlot::SkLookupSk, 0);
}

/// `bpf_flow_dissect`: offsets stay within the packet.
fn flow_keys_out(mut keys: Vec<u8>, len: usize) -> Vec<u8> {
    let most = len.min(u16::MAX as usize) as u16;
    let mut at_least = ETH_HLEN as u16;
    for field in [0, 2] {
        let Some(bytes) = keys.get_mut(field..field + 2) else {
            break;
        };
        let given = u16::from_le_bytes([bytes[0], bytes[1]]);
        at_least = given.max(at_least).min(most);
        bytes.copy_from_slice(&at_least.to_le_bytes());
    }
    keys
}

/// Packet and context buffers, used again by later runs.
#[derive(Default, educe::Educe)]
#[educe(Clone)]
pub(crate) struct Buffers {
    free: Vec<(u64, u64)>,
}

impl Buffers {
    /// A buffer of at least `len` bytes.
    pub fn take(&mut self, mem: &mut GuestMem, len: u64) -> Result<u64, MemError> {
        if let Some(i) = self.free.iter().rposition(|&(_, size)| size >= len) {
            return Ok(self.free.remove(i).0);
        }
        mem.alloc(Area::Packet, len, 64)
    }

    fn give(&mut self, at: u64, len: u64) {
        self.free.push((at, len));
    }
}

/// Where a run's packet begins for the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    /// With its Ethernet header.
    L2,
    /// After it.
    L3,
    /// There is none: a message, a datagram's payload, an option's value.
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
            ProgType::SkSkb | ProgType::SkMsg | ProgType::SkReuseport | ProgType::CgroupSockopt => {
                PacketKind::Bare
            }
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
