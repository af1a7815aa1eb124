//! What programs are given by a test or a hook, and what they left in it.

use super::{
    ETH_P_IP, ETH_P_IPV6, FLOW_KEYS, FLOW_KEYS_FLAGS, FLOW_KEYS_PROTO, META_MAX, PAGE, PacketKind,
    ROOM, SHARED_INFO, XDP_HEADROOM, XdpMd, ether_type, most_in_head, packet_type, word,
};
use crate::ended::new_output;
use crate::frags::{Frag, gather};
use crate::helper::{Message, hdr_opt};
use crate::ids::{Cpu, ProgId, SockId};
use crate::kernel::Kernel;
use crate::packet::{CTX_WINDOW, ETH_HLEN, FieldsCtx, Packet, RedirectKind};
use crate::prog::{Arg, ProgCtx, ProgramInput, ProgramOutput};
use crate::run::Run;
use crate::shared::{Few, Shared};
use crate::syscall::SysResult;
use crate::world::{LOOPBACK, SockState, sock_window};
use bpfsim_abi::ctx::{self, CtxShape, CtxSlot};
use bpfsim_abi::prog::TestRun;
use bpfsim_abi::{Errno, ProgType};
use bpfsim_vm::{Area, GuestMem, MemError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What `convert_skb_to___skb` gives back.
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

impl Kernel {
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
                let (given, zeros) = (&input.ctx[..], &[0; CTX_BYTES as usize]);
                let is_zero = |b: &[u8]| given.is_empty() && *b == zeros[..];
                // What is written is to be gone back over.
                if !self.mem.slice(at, len).is_some_and(is_zero)
                    && let Some(bytes) = self.mem.slice_mut(at, len)
                {
                    bytes.fill(0);
                    bytes[..given.len()].copy_from_slice(given);
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
        if prog_type == ProgType::SockOps {
            let sock = input.sock.and_then(|s| self.st.world.socks.get_mut(s.at()));
            ctx.opt_room = hdr_opt::room(ctx, sock.map(|s| &mut s.opt_reserved), len);
            // Not all that sockets do is about a packet.
            if len == 0 {
                return Ok(());
            }
            let flags = input.data.get(13).map_or(0, |&f| f.into());
            ctx.set(CtxSlot::SockOpsSkbTcpFlags, flags);
        }
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
    pub(crate) fn note_redirect(&mut self, fields: &mut FieldsCtx, return_value: u32) {
        const XDP_REDIRECT: u32 = 4;
        const TC_ACT_REDIRECT: u32 = 7;
        const SK_PASS: u32 = 1;
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
    #[inline]
    pub(crate) fn finish_ctx(
        &mut self,
        prog: ProgId,
        input: &ProgramInput,
        r1: u64,
        ctx: ProgCtx,
        run: &Run,
        (return_value, retval): (u32, i32),
    ) -> Shared<SysResult> {
        let prog_type = self.st.progs[prog.at()].prog_type;
        // Filled where it stays.
        let mut result = new_output(&mut self.spare_results);
        let SysResult::Output(out) = &mut *result else {
            return result;
        };
        (out.return_value, out.retval, out.insns) = (return_value, retval, run.act.insns);
        self.read_ctx(prog_type, input, r1, &ctx, out);
        if let (ProgCtx::Fields(ctx), TestRun::SkLookup) = (&ctx, TestRun::of(prog_type)) {
            out.return_value = (return_value != 0 || ctx.selected.is_some()) as u32;
        }
        self.give_ctx_back(prog_type, input.ctx.len() as u64, r1, ctx);
        let over = |most: Option<u32>, len: usize| most.is_some_and(|most| len > most as usize);
        let data_over = over(input.data_size_out.filter(|&n| n != 0), out.data_out.len());
        let over = data_over || over(input.ctx_size_out, out.ctx_out.len());
        if over && TestRun::of(prog_type) != TestRun::No {
            return Shared::new(SysResult::Failed(Errno::ENOSPC));
        }
        if !run.cur.seq.is_empty() {
            out.data_out.clone_from(&run.cur.seq);
        }
        result
    }

    /// What a program left in its context and packet.
    #[inline]
    pub(crate) fn read_ctx(
        &self,
        prog_type: ProgType,
        input: &ProgramInput,
        r1: u64,
        ctx: &ProgCtx,
        out: &mut ProgramOutput,
    ) {
        match ctx {
            ProgCtx::Memory => {
                if !input.ctx.is_empty() {
                    out.ctx_out = copy_of(&self.mem, r1, input.ctx.len() as u64);
                }
            }
            ProgCtx::Args => {}
            ProgCtx::Fields(ctx) => self.read_fields(prog_type, input, ctx, out),
        }
    }

    fn read_fields(
        &self,
        prog_type: ProgType,
        input: &ProgramInput,
        ctx: &FieldsCtx,
        out: &mut ProgramOutput,
    ) {
        let kind = TestRun::of(prog_type);
        if let Some(p) = ctx.packet {
            out.data_out = match PacketKind::of(prog_type) {
                Some(PacketKind::L3) if kind == TestRun::Skb => {
                    let mut frame = vec![0; ETH_HLEN as usize];
                    frame.extend(copy_of(&self.mem, p.data, p.len()));
                    frame
                }
                _ if kind == TestRun::Xdp => {
                    let mut all = copy_of(&self.mem, p.meta, p.data - p.meta);
                    all.extend(gather(&self.mem, &ctx.spans(0, u64::MAX)));
                    all
                }
                _ => {
                    let whole = ctx.message.as_ref().map(|m| m.span());
                    let (at, len) = whole.unwrap_or((p.data, p.len()));
                    copy_of(&self.mem, at, len)
                }
            };
            if let Some(message) = &ctx.message {
                out.apply_bytes = message.apply_bytes;
                out.cork_bytes = message.cork_bytes;
            }
        }
        if let Some((at, len)) = ctx.beside {
            out.data_out = flow_keys_out(copy_of(&self.mem, at, len), input.data.len());
        }
        if let Some(new) = ctx.sysctl.as_ref().and_then(|s| s.new.as_ref()) {
            out.data_out.clone_from(new);
        }
        out.ctx_out = self.ctx_out(kind, input, ctx);
        out.redirects.clone_from(&ctx.redirects);
    }

    /// Buffers of a context are for later runs; `len` is how much of it was given.
    #[inline]
    pub(crate) fn give_ctx_back(&mut self, prog_type: ProgType, len: u64, r1: u64, ctx: ProgCtx) {
        match ctx {
            ProgCtx::Memory => self.buffers.give_ctx(r1, len),
            ProgCtx::Args => self.buffers.give(r1 - 8, CTX_BYTES),
            ProgCtx::Fields(ctx) => self.give_fields_back(prog_type, *ctx),
        }
    }

    fn give_fields_back(&mut self, prog_type: ProgType, ctx: FieldsCtx) {
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

fn copy_of(mem: &GuestMem, at: u64, len: u64) -> Vec<u8> {
    mem.slice(at, len).unwrap_or(&[]).to_vec()
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
    free: Few<Vec<(u64, u64)>>,
}

impl Buffers {
    /// A buffer of at least `len` bytes.
    pub fn take(&mut self, mem: &mut GuestMem, len: u64) -> Result<u64, MemError> {
        if let Some(i) = self.free.iter().rposition(|&(_, size)| size >= len) {
            return Ok(self.free.remove(i).0);
        }
        mem.alloc(Area::Packet, len, 64)
    }

    /// Those that almost every execution of a test needs, for it to find them made.
    pub fn first(mem: &mut GuestMem) -> Result<Buffers, MemError> {
        let at = mem.alloc(Area::Packet, CTX_BYTES, 64)?;
        let next = mem.alloc(Area::Packet, CTX_BYTES, 64)?;
        Ok(Buffers {
            free: vec![(next, CTX_BYTES), (at, CTX_BYTES)].into(),
        })
    }

    /// The buffer of a context in guest memory, of which so much was given.
    pub fn give_ctx(&mut self, at: u64, len: u64) {
        self.give(at, len.max(CTX_BYTES));
    }

    fn give(&mut self, at: u64, len: u64) {
        self.free.push((at, len));
    }
}
