//! Contexts whose arguments are those of a function: what lies there, by BTF.

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, FuncProto, Type, TypeId};

use crate::log::verbose;
use crate::raw_tp::RAW_TP_NULL_ARGS;
use crate::refusal::also;
use crate::reg::ty;
use crate::verifier::{R, Verifier};

/// `btf_type_str`: the name of a BTF kind.
pub(crate) fn kind_str(t: Option<Type<'_>>) -> &'static str {
    match t {
        None | Some(Type::Void) => "UNKNOWN",
        Some(Type::Int(_)) => "INT",
        Some(Type::Ptr { .. }) => "PTR",
        Some(Type::Array(_)) => "ARRAY",
        Some(Type::Struct(_)) => "STRUCT",
        Some(Type::Union(_)) => "UNION",
        Some(Type::Enum(_)) => "ENUM",
        Some(Type::Enum64(_)) => "ENUM64",
        Some(Type::Fwd { .. }) => "FWD",
        Some(Type::Typedef { .. }) => "TYPEDEF",
        Some(Type::Volatile { .. }) => "VOLATILE",
        Some(Type::Const { .. }) => "CONST",
        Some(Type::Restrict { .. }) => "RESTRICT",
        Some(Type::Func { .. }) => "FUNC",
        Some(Type::FuncProto(_)) => "FUNC_PROTO",
        Some(Type::Var { .. }) => "VAR",
        Some(Type::Datasec(_)) => "DATASEC",
        Some(Type::Float { .. }) => "FLOAT",
        Some(Type::DeclTag { .. }) => "DECL_TAG",
        Some(Type::TypeTag { .. }) => "TYPE_TAG",
    }
}
pub(crate) fn func_proto<'b>(btf: &'b Btf, id: TypeId) -> Option<FuncProto<'b>> {
    let proto = match btf.ty(id)? {
        Type::Func { proto, .. } => proto,
        _ => id,
    };
    match btf.ty(proto)? {
        Type::FuncProto(p) => Some(p),
        _ => None,
    }
}

impl Verifier<'_> {
    /// `btf_ctx_access`: what lies in the context of a program whose arguments BTF says.
    pub(crate) fn btf_ctx(&mut self, off: i32, size: i32) -> R<Option<(u32, u32, u32, bool)>> {
        use AttachType as A;
        let kernel = self.env.kernel;
        let name = self
            .attach
            .member
            .or(self.attach.name)
            .unwrap_or("(none)")
            .to_owned();
        if off % 8 != 0 {
            also!(self, "func '{name}' offset {off} is not multiple of 8\n");
            return Ok(None);
        }
        let Some(proto) = self.attach.proto.and_then(|p| func_proto(kernel, p)) else {
            return self.unsupported("context of a target without prototype");
        };
        let mut params: Vec<_> = proto.params.iter().collect();
        // Where an argument that is larger than 8 bytes begins: `get_ctx_arg_idx`.
        let mut arg = 0;
        let mut at = 0;
        for p in &params {
            at += (kernel.size_of(p.ty).unwrap_or(8).max(1) as i32 + 7) / 8 * 8;
            if off < at {
                break;
            }
            arg += 1;
        }
        if arg == params.len() {
            let ret = kernel.size_of(proto.ret).unwrap_or(8).max(1) as i32;
            if off >= at + (ret + 7) / 8 * 8 {
                arg += 1;
            }
        }
        if self.attach.btf_trace {
            params.remove(0);
        }
        let bad = |v: &mut Self| {
            also!(v, "func '{name}' doesn't have {}-th argument\n", arg + 1);
            Ok(None)
        };
        let mut is_retval = false;
        let arg_ty = match params.get(arg) {
            Some(p) => p.ty,
            None if arg > params.len() => return bad(self),
            None => match self.prog.attach_type {
                A::LsmMac | A::LsmCgroup | A::TraceFexit => {
                    is_retval = self.prog.attach_type == A::LsmMac;
                    proto.ret
                }
                A::ModifyReturn => match kernel.resolve(proto.ret) {
                    Ok((_, Type::Int(i))) if i.size <= 8 => proto.ret,
                    other => {
                        also!(
                            self,
                            "ret type {} not allowed for fmod_ret\n",
                            kind_str(other.ok().map(|o| o.1))
                        );
                        return Ok(None);
                    }
                },
                _ => return bad(self),
            },
        };
        let scalar = Ok(Some((ty::SCALAR, 0, 0, is_retval)));
        let to = match kernel.resolve(arg_ty) {
            Ok((_, Type::Int(_) | Type::Enum(_) | Type::Enum64(_) | Type::Struct(_))) => {
                return scalar;
            }
            Ok((_, Type::Union(_) | Type::Void)) => return scalar,
            Ok((_, Type::Ptr { to })) => to,
            other => {
                let t = other.ok().map(|o| o.1);
                also!(
                    self,
                    "func '{name}' arg{arg} '{}' has type {}. Only pointer access is allowed\n",
                    t.map_or("", |t| t.name()),
                    kind_str(t)
                );
                return Ok(None);
            }
        };
        if size != 8 {
            also!(self, "func '{name}' size {size} must be 8\n");
            return Ok(None);
        }
        let info = self
            .attach
            .ctx_args
            .iter()
            .find(|a| a.offset as i32 == off)
            .copied();
        if let Some(a) = info
            && ty::base(a.ty) == ty::BUF
        {
            return Ok(Some((a.ty, 0, 0, false)));
        }
        let pointee = kernel.resolve(to).ok();
        if to == TypeId::VOID || matches!(pointee, Some((_, Type::Int(_)))) {
            return scalar;
        }
        if let Some(a) = info {
            return Ok(Some((a.ty, a.btf_id, a.ref_obj_id, false)));
        }
        let trusted = match self.prog_type {
            ProgType::Tracing => {
                matches!(self.prog.attach_type, A::TraceRawTp | A::TraceIter)
            }
            ProgType::Lsm => !bpfsim_abi::prog::lsm_hook_in(
                bpfsim_abi::prog::UNTRUSTED_LSM_HOOKS,
                name.strip_prefix("bpf_lsm_").unwrap_or(&name),
            ),
            ProgType::StructOps => true,
            _ => false,
        };
        let mut t = ty::BTF_ID | if trusted { ty::TRUSTED } else { 0 };
        if params
            .get(arg)
            .is_some_and(|p| p.name.ends_with("__nullable"))
        {
            t |= ty::MAYBE_NULL;
        }
        let mut is_err = false;
        if let Some(tp) = self.attach.tracepoint
            && let Ok(at) = RAW_TP_NULL_ARGS.binary_search_by(|(n, _)| (*n).cmp(tp))
        {
            let mask = RAW_TP_NULL_ARGS[at].1 >> (arg * 4);
            if mask & 1 != 0 {
                t |= ty::MAYBE_NULL;
            }
            is_err = mask & 2 != 0;
        }
        if let Some(Type::TypeTag { name: tag, .. }) = kernel.ty(to) {
            match tag {
                "user" => t |= ty::USER,
                "percpu" => t |= ty::PERCPU,
                _ => {}
            }
        }
        match pointee {
            Some((id, s @ (Type::Struct(_) | Type::Union(_)))) => {
                also!(
                    self,
                    "func '{name}' arg{arg} has btf_id {} type {} '{}'\n",
                    id.0,
                    kind_str(Some(s)),
                    s.name()
                );
                if is_err {
                    verbose!(
                        self,
                        "marking pointer arg{arg} as scalar as it may encode error"
                    );
                    return scalar;
                }
                Ok(Some((t, id.0, 0, false)))
            }
            other => {
                also!(
                    self,
                    "func '{name}' arg{arg} type {} is not a struct\n",
                    kind_str(other.map(|o| o.1))
                );
                Ok(None)
            }
        }
    }
}

/// The struct that a pointer points to, modifiers skipped.
pub(crate) fn pointee(btf: &Btf, ptr: TypeId) -> Option<(TypeId, Type<'_>)> {
    match btf.resolve(ptr).ok()?.1 {
        Type::Ptr { to } => btf.resolve(to).ok(),
        _ => None,
    }
}
