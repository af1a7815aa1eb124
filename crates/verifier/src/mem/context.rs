//! The context of a program: which of its fields may be read or written, and what a read gives.

use bpfsim_abi::ctx::{self, CtxShape, CtxValue};
use bpfsim_abi::{AttachType, ProgType};

use super::Access;
use crate::refusal::{refusal, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::verifier::{R, Verifier};

impl Verifier<'_> {
    /// An access to the context (`check_mem_access`).
    pub(super) fn check_context(&mut self, n: usize, access: Access) -> R {
        self.check_ptr_off(n, false)?;
        let (mut found, retval) = self.check_ctx(access)?;
        let Some(dst) = access.load() else {
            return Ok(());
        };
        if found.is_scalar() {
            if let (true, Some(range)) = (retval, self.lsm_range()) {
                found.narrow_s32(range.0, range.1);
            }
        } else if ty::maybe_null(found.ty) {
            found.id = self.new_id();
        }
        self.regs_mut()[dst] = found;
        Ok(())
    }

    /// `check_ctx_access`: what a read gives, and whether that is what a function returned.
    fn check_ctx(&mut self, access: Access) -> R<(Reg, bool)> {
        let Access { off, size, .. } = access;
        let valid = match ctx::shape(self.prog_type, self.prog.attach_type) {
            CtxShape::None if self.prog_type == ProgType::Ext => {
                return self.unsupported("extension programs");
            }
            CtxShape::Btf => self.argument(access)?,
            shape => u32::try_from(off)
                .ok()
                .and_then(|o| shape.check(o, size as u32, access.write))
                .filter(|a| !access.signed || a.value == CtxValue::Scalar)
                .map(|a| (self.context_value(a.value), false)),
        };
        let Some(found) = valid else {
            let refused = refusal!(
                self,
                EACCES,
                "invalid bpf_context access off={off} size={size}\n"
            );
            self.print_line(self.insn_idx as usize, format_args!("; "));
            return Err(refused);
        };
        let end = u32::try_from(off + size).unwrap_or(0);
        self.max_ctx_offset = self.max_ctx_offset.max(end);
        Ok(found)
    }

    /// What is read of a context that is the arguments of a function (`btf_ctx_access`).
    fn argument(&mut self, access: Access) -> R<Option<(Reg, bool)>> {
        let Access { off, size, .. } = access;
        let fits = off >= 0 && off < ctx::RAW_TP_SIZE as i32 && !access.write && off % size == 0;
        if !fits {
            return Ok(None);
        }
        let Some((t, id, ref_id, retval)) = self.btf_ctx(off, size)? else {
            return Ok(None);
        };
        if t == ty::SCALAR {
            return Ok(Some((Reg::UNKNOWN, retval)));
        }
        if ref_id != 0 && !self.cur.refs.iter().any(|r| r.id == ref_id) {
            reject!(
                self,
                EACCES,
                "invalid bpf_context access off={off}. Reference may already be released\n"
            );
        }
        let mut reg = Reg::pointer(t);
        if ty::base(t) == ty::BTF_ID {
            (reg.a, reg.b, reg.ref_obj_id) = (BTF_KERNEL, self.promote_sock(id), ref_id);
        }
        Ok(Some((reg, false)))
    }

    /// What is read of a context that is a structure (`bpf_insn_access_aux::reg_type`).
    fn context_value(&self, value: CtxValue) -> Reg {
        Reg::pointer(match value {
            CtxValue::Scalar => return Reg::UNKNOWN,
            CtxValue::Packet => ty::PACKET,
            CtxValue::PacketMeta => ty::PACKET_META,
            CtxValue::PacketEnd => ty::PACKET_END,
            CtxValue::FlowKeys => ty::FLOW_KEYS,
            CtxValue::Socket => ty::SOCKET,
            CtxValue::SocketOrNull => ty::SOCKET | ty::MAYBE_NULL,
            CtxValue::SockCommonOrNull => ty::SOCK_COMMON | ty::MAYBE_NULL,
            CtxValue::TpBuffer => ty::TP_BUFFER,
            CtxValue::Trusted(name) => {
                let id = self.env.kernel.find(name, bpfsim_btf::Kind::Struct);
                let mut reg = Reg::pointer(ty::BTF_ID | ty::TRUSTED);
                (reg.a, reg.b) = (BTF_KERNEL, id.map_or(0, |id| id.0));
                return reg;
            }
        })
    }

    /// `bpf_tcp_ca_is_valid_access`: congestion control gets TCP sockets.
    fn promote_sock(&self, id: u32) -> u32 {
        let kernel = self.env.kernel;
        let find = |name| kernel.find(name, bpfsim_btf::Kind::Struct).map(|id| id.0);
        if self.prog_type == ProgType::StructOps
            && self.attach.name == Some("tcp_congestion_ops")
            && find("sock") == Some(id)
        {
            return find("tcp_sock").unwrap_or(id);
        }
        id
    }

    /// `bpf_lsm_get_retval_range`
    fn lsm_range(&self) -> Option<(i32, i32)> {
        if self.prog_type != ProgType::Lsm || self.prog.attach_type != AttachType::LsmMac {
            return None;
        }
        let name = self.attach.name?;
        let hook = name.strip_prefix("bpf_lsm_").unwrap_or(name);
        let range = bpfsim_abi::prog::return_range(
            self.prog_type,
            self.prog.attach_type,
            Some((hook, false)),
        )?;
        Some((range.0 as i32, range.1 as i32))
    }
}
