//! What the programs of a hook are given.

use super::fire::Fire;
use super::links::{Hooked, Stage};
use super::{Hook, LwtHook};
use crate::helper::lwt;
use crate::ids::Cpu;
use crate::kernel::Kernel;
use crate::prog::{Arg, ProgCtx, ProgramInput, pt_regs, set_ax};
use bpfsim_abi::ctx::{self, CtxSlot};

/// What R1 of a stage's programs is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CtxKind {
    /// `struct pt_regs` at a function's entry.
    Entry,
    /// The same at its return.
    Return,
    /// Arguments of 8 bytes each.
    Args,
    /// What programs of the type see.
    Own,
    /// A packet that another program redirected.
    Sent,
}

impl Fire {
    pub(super) fn ctx_kind(&self, hooked: &Hooked) -> CtxKind {
        match (&self.hook, hooked.stage) {
            (_, Stage::Devmap | Stage::Cpumap) => CtxKind::Sent,
            (Hook::Function { .. } | Hook::UserFunction { .. }, stage) => match stage {
                Stage::Return | Stage::MultiReturn => CtxKind::Return,
                Stage::Entry | Stage::MultiEntry => CtxKind::Entry,
                _ => CtxKind::Args,
            },
            (Hook::Usdt { .. }, _) => CtxKind::Entry,
            (Hook::Lsm(_) | Hook::StructOps { .. }, _) => CtxKind::Args,
            (Hook::RawTracepoint(_) | Hook::Iter(_), _) if !self.input.args.is_empty() => {
                CtxKind::Args
            }
            _ => CtxKind::Own,
        }
    }
}

impl Kernel {
    pub(super) fn make_fire_ctx(
        &mut self,
        cpu: Cpu,
        fire: &Fire,
        hooked: &Hooked,
        kind: CtxKind,
    ) -> Result<(u64, ProgCtx), bpfsim_vm::MemError> {
        let regs = |ctx: Vec<u8>| ProgramInput {
            ctx,
            ..ProgramInput::empty()
        };
        match kind {
            CtxKind::Args => return self.args_ctx(&fire.input.args),
            CtxKind::Entry if fire.input.ctx.is_empty() => {
                let words = fire.input.args.iter().map(|a| match a {
                    Arg::Value(word) => *word,
                    _ => 0,
                });
                let words: Vec<u64> = words.collect();
                return self.make_ctx(hooked.prog, &ProgramInput::call(&words), cpu);
            }
            CtxKind::Entry => {
                return self.make_ctx(hooked.prog, &regs(fire.input.ctx.clone()), cpu);
            }
            CtxKind::Return => {
                let mut ctx = fire.input.ctx.clone();
                if ctx.is_empty() {
                    ctx = pt_regs(std::iter::empty());
                }
                if fire.input.ctx.is_empty() || fire.overridden || fire.input.returns != 0 {
                    set_ax(&mut ctx, fire.returns as u64);
                }
                return self.make_ctx(hooked.prog, &regs(ctx), cpu);
            }
            CtxKind::Own | CtxKind::Sent => {}
        }
        let mut input = fire.input.clone();
        let mut set = |layout: &ctx::CtxLayout, slot, value: u32| {
            let field = layout.field(slot).map_or(0, |f| f.offset as usize);
            if input.ctx.len() < layout.size as usize {
                input.ctx.resize(layout.size as usize, 0);
            }
            let word = &mut input.ctx[field..field + 4];
            if word == [0; 4] {
                word.copy_from_slice(&value.to_le_bytes());
            }
        };
        match fire.hook {
            Hook::Xdp { ifindex } => set(&ctx::XDP_MD, CtxSlot::XdpIngressIfindex, ifindex),
            Hook::Tc { ifindex, egress } => {
                set(&ctx::SK_BUFF, CtxSlot::SkbIfindex, ifindex);
                if !egress {
                    set(&ctx::SK_BUFF, CtxSlot::SkbIngressIfindex, ifindex);
                }
            }
            Hook::Sock(sock) => input.sock = Some(sock),
            Hook::Netfilter { family, hook } => input.ctx = vec![hook, family],
            _ => {}
        }
        let (r1, mut ctx) = self.make_ctx(hooked.prog, &input, cpu)?;
        if let (ProgCtx::Fields(fields), Hook::Tc { .. }, None) = (&mut ctx, &fire.hook, input.sock)
        {
            // What comes from a device belongs to no socket.
            fields.point(CtxSlot::SkbSk, 0);
        }
        if let (ProgCtx::Fields(fields), Hook::Lwt { what, .. }) = (&mut ctx, &fire.hook)
            && let (LwtHook::Seg6local, Some(packet)) = (what, fields.packet)
        {
            fields.skb.srh = lwt::advance(&mut self.mem, packet);
        }
        Ok((r1, ctx))
    }

    /// The context that a hook's programs had is given back.
    pub(super) fn drop_fire_ctx(&mut self, fire: &mut Fire) {
        if let (Some((_, r1, ctx)), Some(last)) = (fire.ctx.take(), &fire.now) {
            let prog_type = self.st.progs[last.prog.at()].prog_type;
            self.give_ctx_back(prog_type, fire.input.ctx.len() as u64, r1, ctx);
        }
    }
}
