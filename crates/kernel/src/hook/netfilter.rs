//! What programs of netfilter get: `struct bpf_nf_ctx`.

use crate::kernel::Kernel;
use crate::packet::{ETH_HLEN, FieldsCtx, Packet};
use crate::prog::ProgramInput;
use crate::testrun::ROOM;
use bpfsim_abi::Errno;
use bpfsim_abi::ctx::CtxSlot;
use bpfsim_vm::MemError;

/// `NF_INET_LOCAL_OUT`, `NFPROTO_IPV4`
const LOCAL_OUT: u8 = 3;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// Hook and family of a `struct nf_hook_state` as user space gives it.
fn state(ctx: &[u8]) -> (u8, u8) {
    match ctx {
        [] => (LOCAL_OUT, IPV4),
        [hook] => (*hook, 0),
        [hook, family, ..] => (*hook, *family),
    }
}

/// `bpf_prog_test_run_nf`
pub(crate) fn check(input: &ProgramInput, size: usize) -> Result<(), Errno> {
    let (hook, family) = state(&input.ctx);
    let more = input.ctx.iter().take(size).skip(2).any(|&b| b != 0);
    let known = hook <= 4 && matches!(family, IPV4 | IPV6);
    let data = &input.data;
    if more || !known || data.len() < 20 {
        return Err(Errno::EINVAL);
    }
    if hook == LOCAL_OUT {
        return Ok(());
    }
    let kind = data.get(12..14).map(|b| [b[0], b[1]]);
    let payload = data.len().saturating_sub(ETH_HLEN as usize);
    match (kind, family) {
        _ if payload < 20 => Err(Errno::EINVAL),
        (Some([0x08, 0x00]), IPV4) => Ok(()),
        (Some([0x86, 0xdd]), IPV6) if payload >= 40 => Ok(()),
        (Some([0x08, 0x00] | [0x86, 0xdd]), _) => Err(Errno::EINVAL),
        _ => Err(Errno::EPROTO),
    }
}

impl Kernel {
    /// The packet, and beside it in its buffer the `struct sk_buff` and the `struct nf_hook_state`
    /// that the context points to. Devices are none.
    pub(crate) fn netfilter_ctx(
        &mut self,
        ctx: &mut FieldsCtx,
        input: &ProgramInput,
    ) -> Result<(), MemError> {
        let len = input.data.len() as u64;
        let head = self.buffers.take(&mut self.mem, len + 2 * ROOM)?;
        let mac = head + ROOM;
        if let Some(bytes) = self.mem.slice_mut(head, ROOM) {
            bytes.fill(0);
        }
        if let Some(bytes) = self.mem.slice_mut(mac, len) {
            bytes.copy_from_slice(&input.data);
        }
        let packet = Packet {
            head,
            mac,
            meta: mac,
            data: mac + ETH_HLEN.min(len),
            end: mac + len,
            tail: mac + len + ROOM,
        };
        self.mem.expose(head, ROOM + len);
        let skb = head;
        let at = head + self.layouts.size_of("sk_buff").next_multiple_of(64);
        let btf = std::sync::Arc::clone(&self.layouts.btf);
        crate::kfunc::show_packet(&btf, &mut self.mem, skb, &packet, false);
        let (hook, family) = state(&input.ctx);
        for (member, value) in [("hook", hook), ("pf", family)] {
            let to = self.layouts.member("nf_hook_state", member);
            if let Some(to) = to.and_then(|to| self.mem.slice_mut(at + to, 1)) {
                to[0] = value;
            }
        }
        ctx.raw.fill(0);
        ctx.packet = Some(packet);
        ctx.point(CtxSlot::NfState, at);
        ctx.point(CtxSlot::NfSkb, skb);
        Ok(())
    }
}
