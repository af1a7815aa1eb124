//! What a kernel function wants of a pointer argument, by its type and the suffix of its name
//! (`get_kfunc_ptr_arg_type`).

use bpfsim_abi::kfunc::KfuncFlags;
use bpfsim_btf::{Btf, Kind, Type, TypeId};

use crate::btf_ctx::kind_str;
use crate::kfunc::Kfunc;
use crate::refusal::reject;
use crate::reg::{Reg, ty};
use crate::verifier::{R, Verifier};

/// What a pointer argument is: `enum kfunc_ptr_arg_type`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Ptr {
    Ctx,
    AllocObj,
    Refcounted,
    Dynptr,
    Iter,
    ListHead,
    ListNode,
    BtfId,
    Mem,
    MemSize,
    Callback,
    RbRoot,
    RbNode,
    Null,
    ConstStr,
    Map,
    Workqueue,
    IrqFlag,
    ResLock,
    TaskWork,
}

/// `__btf_type_is_scalar_struct`
fn scalar_struct(btf: &Btf, t: Type<'_>, depth: u32) -> bool {
    let (Type::Struct(c) | Type::Union(c)) = t else {
        return false;
    };
    c.members.iter().all(|m| match btf.resolve(m.ty) {
        Ok((_, s @ (Type::Struct(_) | Type::Union(_)))) => {
            depth < 3 && scalar_struct(btf, s, depth + 1)
        }
        Ok((_, Type::Array(a))) => {
            a.nelems != 0 && btf.resolve(a.elem).is_ok_and(|(_, t)| is_scalar(t))
        }
        Ok((_, t)) => is_scalar(t),
        Err(_) => false,
    })
}

pub(super) fn is_scalar(t: Type<'_>) -> bool {
    matches!(t, Type::Int(_) | Type::Enum(_) | Type::Enum64(_))
}

/// What an argument is by its name's suffix and the name of its type.
fn named_arg(name: &str, pointee: &str, iter: bool) -> Option<Ptr> {
    Some(match pointee {
        _ if name.ends_with("__alloc") => Ptr::AllocObj,
        _ if name.ends_with("__refcounted_kptr") => Ptr::Refcounted,
        "bpf_dynptr" => Ptr::Dynptr,
        _ if iter => Ptr::Iter,
        "bpf_list_head" => Ptr::ListHead,
        "bpf_list_node" => Ptr::ListNode,
        "bpf_rb_root" => Ptr::RbRoot,
        "bpf_rb_node" => Ptr::RbNode,
        _ if name.ends_with("__str") => Ptr::ConstStr,
        _ if name.ends_with("__map") => Ptr::Map,
        "bpf_wq" => Ptr::Workqueue,
        "bpf_task_work" => Ptr::TaskWork,
        _ if name.ends_with("__irq_flag") => Ptr::IrqFlag,
        "bpf_res_spin_lock" => Ptr::ResLock,
        _ => return None,
    })
}

impl Verifier<'_> {
    fn size_arg(&self, kfunc: &Kfunc, i: usize) -> bool {
        let Some((t, name)) = kfunc.params.get(i) else {
            return false;
        };
        let scalar = self.env.kernel.resolve(*t).is_ok_and(|(_, t)| is_scalar(t));
        scalar && self.reg(i + 1).is_scalar() && (name.ends_with("__sz") || name.ends_with("__szk"))
    }

    /// `get_kfunc_ptr_arg_type`
    pub(super) fn ptr_arg(&mut self, kfunc: &Kfunc, i: usize, to: TypeId, reg: &Reg) -> R<Ptr> {
        let kernel = self.env.kernel;
        let name = kfunc.params[i].1.as_str();
        let pointee = kernel.resolve(to).ok();
        let pname = pointee.map_or("", |(id, _)| kernel.name_of(id));
        if kfunc.name == "bpf_cast_to_kern_ctx" || self.is_ctx_type(kernel, to, self.prog_type) {
            return Ok(Ptr::Ctx);
        }
        if name.ends_with("__nullable") && reg.is_null() {
            return Ok(Ptr::Null);
        }
        let iter = KfuncFlags::ITER_NEW | KfuncFlags::ITER_NEXT | KfuncFlags::ITER_DESTROY;
        let iter = match kfunc.flags.intersects(iter) {
            true => i == 0,
            false => name.ends_with("__iter"),
        };
        if let Some(p) = named_arg(name, pname, iter) {
            return Ok(p);
        }
        let t = pointee.map_or(Type::Void, |(_, t)| t);
        if reg.base() == ty::BTF_ID || self.reg_btf(reg).is_some() {
            if !matches!(t, Type::Struct(_) | Type::Union(_)) {
                reject!(
                    self,
                    EINVAL,
                    "kernel function {} args#{i} pointer type {} {pname} is not supported\n",
                    kfunc.name,
                    kind_str(Some(t))
                );
            }
            return Ok(Ptr::BtfId);
        }
        if matches!(t, Type::FuncProto(_)) {
            return Ok(Ptr::Callback);
        }
        let sized = self.size_arg(kfunc, i + 1);
        let fine = is_scalar(t) || scalar_struct(kernel, t, 0) || sized && matches!(t, Type::Void);
        if !fine {
            let void = if sized { "void, " } else { "" };
            reject!(
                self,
                EINVAL,
                "arg#{i} pointer type {} {pname} must point to {void}scalar, or struct with scalar\n",
                kind_str(Some(t))
            );
        }
        Ok(if sized { Ptr::MemSize } else { Ptr::Mem })
    }

    /// `reg2btf_ids`: the kernel's type behind a socket or map pointer.
    pub(super) fn reg_btf(&self, reg: &Reg) -> Option<u32> {
        let name = match reg.base() {
            ty::SOCKET => "sock",
            ty::SOCK_COMMON => "sock_common",
            ty::TCP_SOCK => "tcp_sock",
            ty::MAP_PTR => "bpf_map",
            _ => return None,
        };
        Some(self.env.kernel.find(name, Kind::Struct)?.0)
    }
}

/// Whether a struct is one of numbers alone: what `bpf_percpu_obj_new` takes.
pub(crate) fn is_scalar_struct(btf: &Btf, id: TypeId) -> bool {
    btf.ty(id).is_some_and(|t| scalar_struct(btf, t, 0))
}
