//! What a program attaches to, and whether it may.

use bpfsim_abi::prog::{DISABLED_LSM_HOOKS, SLEEPABLE_LSM_HOOKS, lsm_hook_in, targets};
use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Kind, Type, TypeId};

use crate::AttachTo;
use crate::btf_ctx::{func_proto, kind_str, pointee};
use crate::refusal::{quiet, refusal, reject};
use crate::reg::ty;
use crate::verifier::{R, Verifier};

/// What a program attaches to, as far as calls and its context ask.
#[derive(Default)]
pub(crate) struct Attach<'a> {
    /// `attach_func_name`, or the struct_ops structure.
    pub name: Option<&'a str>,
    /// The struct_ops member.
    pub member: Option<&'a str>,
    /// `attach_func_proto`
    pub proto: Option<TypeId>,
    /// `attach_btf_trace`
    pub btf_trace: bool,
    /// Name of the raw tracepoint.
    pub tracepoint: Option<&'a str>,
    /// `ctx_arg_info`: offset, type, type id, whether a reference comes with it, its id.
    pub ctx_args: Vec<CtxArg>,
}

/// `struct bpf_ctx_arg_aux`
#[derive(Clone, Copy)]
pub(crate) struct CtxArg {
    pub offset: u32,
    pub ty: u32,
    pub btf_id: u32,
    pub refcounted: bool,
    pub ref_obj_id: u32,
}

/// By iterator, which of its arguments are more than trusted pointers (`bpf_iter_reg`).
const ITER_ARGS: &[(&str, &str, u32)] = &[
    ("bpf_prog", "prog", ty::BTF_ID | ty::MAYBE_NULL),
    (
        "cgroup",
        "cgroup",
        ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED,
    ),
    ("task", "task", ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED),
    ("task_file", "task", ty::BTF_ID | ty::MAYBE_NULL),
    ("task_file", "file", ty::BTF_ID | ty::MAYBE_NULL),
    ("task_vma", "task", ty::BTF_ID | ty::MAYBE_NULL),
    ("task_vma", "vma", ty::BTF_ID | ty::MAYBE_NULL),
    ("bpf_map", "map", ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED),
    ("bpf_map_elem", "key", ty::BUF | ty::MAYBE_NULL | ty::RDONLY),
    ("bpf_map_elem", "value", ty::BUF | ty::MAYBE_NULL),
    ("bpf_link", "link", ty::BTF_ID | ty::MAYBE_NULL),
    ("bpf_sk_storage_map", "sk", ty::BTF_ID | ty::MAYBE_NULL),
    ("bpf_sk_storage_map", "value", ty::BUF | ty::MAYBE_NULL),
    ("sockmap", "key", ty::BUF | ty::MAYBE_NULL | ty::RDONLY),
    ("sockmap", "sk", ty::BTF_ID | ty::MAYBE_NULL),
    (
        "tcp",
        "sk_common",
        ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED,
    ),
    ("udp", "udp_sk", ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED),
    ("unix", "unix_sk", ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED),
    ("ipv6_route", "rt", ty::BTF_ID | ty::MAYBE_NULL),
    ("netlink", "sk", ty::BTF_ID | ty::MAYBE_NULL),
    ("ksym", "ksym", ty::BTF_ID | ty::MAYBE_NULL),
    (
        "kmem_cache",
        "s",
        ty::BTF_ID | ty::MAYBE_NULL | ty::UNTRUSTED,
    ),
    (
        "dmabuf",
        "dmabuf",
        ty::BTF_ID | ty::MAYBE_NULL | ty::TRUSTED,
    ),
];
/// Arguments that a function has at most for a trampoline (`MAX_BPF_FUNC_ARGS`).
const MAX_FUNC_ARGS: usize = 12;

/// `__get_type_size`: bytes of a type that a trampoline can pass on, 0 of none.
fn argument_size(t: Option<Type<'_>>) -> Option<u32> {
    match t? {
        Type::Void => Some(0),
        Type::Ptr { .. } => Some(8),
        Type::Int(i) => Some(i.size),
        Type::Enum(e) => Some(e.size),
        Type::Enum64(e) => Some(e.size),
        Type::Struct(s) | Type::Union(s) => Some(s.size),
        _ => None,
    }
}

impl<'a> Verifier<'a> {
    /// `check_attach_btf_id`
    pub(crate) fn check_attach(&mut self) -> R {
        use ProgType as P;
        if self.prog_type == P::Syscall {
            if self.prog.sleepable {
                return Ok(());
            }
            reject!(self, EINVAL, "Syscall programs can only be sleepable\n");
        }
        let attach = self.prog.attach_type;
        if self.prog.sleepable && !bpfsim_abi::prog::can_be_sleepable(self.prog_type, attach) {
            reject!(
                self,
                EINVAL,
                "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable\n"
            );
        }
        match (self.prog_type, self.prog.attach_to) {
            (P::StructOps, AttachTo::StructOps { name, member }) => {
                self.attach_struct_ops(name, member)
            }
            (P::StructOps, _) => Err(quiet!(
                self,
                ENOTSUPP,
                "a struct_ops program that names no member"
            )),
            (P::Tracing | P::Lsm, AttachTo::Kernel(id)) => self.attach_kernel(id),
            (P::Tracing | P::Lsm | P::Ext, AttachTo::Program) => {
                self.unsupported("attaching to another program")
            }
            (P::Ext, _) => reject!(self, EINVAL, "Cannot replace kernel functions\n"),
            (P::Tracing | P::Lsm, _) => {
                reject!(self, EINVAL, "Tracing programs must provide btf_id\n")
            }
            _ => Ok(()),
        }
    }

    /// `bpf_check_attach_target` for the kernel's own functions.
    fn attach_kernel(&mut self, id: TypeId) -> R {
        use AttachType as A;
        let kernel = self.env.kernel;
        let name = kernel.name_of(id);
        if self.prog.attach_type == A::TraceRawTp {
            let Some(Type::Typedef { name, to }) = kernel.ty(id) else {
                reject!(self, EINVAL, "attach_btf_id {} is not a typedef\n", id.0);
            };
            let Some(tp) = name.strip_prefix("btf_trace_") else {
                reject!(
                    self,
                    EINVAL,
                    "attach_btf_id {} points to wrong type name {name}\n",
                    id.0
                );
            };
            self.attach.name = Some(tp);
            self.attach.tracepoint = Some(tp);
            self.attach.btf_trace = true;
            let template = kernel.find(&format!("__bpf_trace_{tp}"), Kind::Func);
            let proto = match template.and_then(|f| kernel.ty(f)) {
                Some(Type::Func { proto, .. }) => Some(proto),
                _ => match kernel.ty(to) {
                    Some(Type::Ptr { to }) => Some(to),
                    _ => None,
                },
            };
            self.attach.proto = proto;
            return Ok(());
        }
        let Some(Type::Func { proto, .. }) = kernel.ty(id) else {
            reject!(self, EINVAL, "attach_btf_id {} is not a function\n", id.0);
        };
        self.attach.name = Some(name);
        self.attach.proto = Some(proto);
        self.check_func_model(name, proto)?;
        if self.prog.attach_type == A::TraceIter {
            let target = name.strip_prefix("bpf_iter_").unwrap_or(name);
            let Some(p) = func_proto(kernel, id) else {
                return Ok(());
            };
            for (i, param) in p.params.iter().enumerate() {
                let row = ITER_ARGS
                    .iter()
                    .find(|(t, arg, _)| *t == target && *arg == param.name);
                if let Some((_, _, t)) = row {
                    let pointee = pointee(kernel, param.ty).map_or(0, |p| p.0.0);
                    self.attach.ctx_args.push(CtxArg {
                        offset: 8 * i as u32,
                        ty: *t,
                        btf_id: pointee,
                        refcounted: false,
                        ref_obj_id: 0,
                    });
                }
            }
            return Ok(());
        }
        self.check_allowed(name, id)
    }

    /// `btf_distill_func_proto`: whether a trampoline can pass such arguments on.
    fn check_func_model(&mut self, name: &str, proto: TypeId) -> R {
        let kernel = self.env.kernel;
        let Some(proto) = func_proto(kernel, proto) else {
            return Err(quiet!(
                self,
                EINVAL,
                "a function without a prototype in the kernel's BTF"
            ));
        };
        let n = proto.params.len();
        if n > MAX_FUNC_ARGS {
            reject!(
                self,
                EINVAL,
                "The function {name} has {n} arguments. Too many.\n"
            );
        }
        let ret = kernel.resolve(proto.ret).ok().map(|(_, t)| t);
        if argument_size(ret).is_none() || matches!(ret, Some(Type::Struct(_) | Type::Union(_))) {
            let t = kind_str(ret);
            reject!(
                self,
                EINVAL,
                "The function {name} return type {t} is unsupported.\n"
            );
        }
        for (i, param) in proto.params.iter().enumerate() {
            if i == n - 1 && param.ty == TypeId::VOID {
                reject!(
                    self,
                    EINVAL,
                    "The function {name} with variable args is unsupported.\n"
                );
            }
            let t = kernel.resolve(param.ty).ok().map(|(_, t)| t);
            match argument_size(t) {
                Some(1..=16) => {}
                Some(0) => {
                    reject!(
                        self,
                        EINVAL,
                        "The function {name} has malformed void argument.\n"
                    )
                }
                _ => {
                    let t = kind_str(t);
                    reject!(
                        self,
                        EINVAL,
                        "The function {name} arg{i} type {t} is unsupported.\n"
                    )
                }
            }
        }
        Ok(())
    }

    /// Whether such a program may attach to this function of the kernel.
    fn check_allowed(&mut self, name: &str, id: TypeId) -> R {
        use AttachType as A;
        let lsm = self.prog_type == ProgType::Lsm;
        let attach_type = self.prog.attach_type;
        if self.prog.sleepable {
            let may = match lsm {
                true => lsm_hook_in(SLEEPABLE_LSM_HOOKS, name),
                false => targets::may_sleep(name),
            };
            if !may {
                reject!(self, EINVAL, "{name} is not sleepable\n");
            }
        } else if attach_type == A::ModifyReturn && !targets::is_modifiable(name) {
            reject!(self, EINVAL, "{name}() is not modifiable\n");
        }
        if lsm {
            return self.check_lsm(name, id);
        }
        if targets::NOT_TRACED.binary_search(&name).is_ok() {
            reject!(
                self,
                EINVAL,
                "Attaching tracing programs to function '{name}' is rejected.\n"
            );
        }
        let after = matches!(attach_type, A::TraceFexit | A::ModifyReturn);
        if after && targets::NORETURN.binary_search(&name).is_ok() {
            reject!(
                self,
                EINVAL,
                "Attaching fexit/fmod_ret to __noreturn function '{name}' is rejected.\n"
            );
        }
        Ok(())
    }

    /// `bpf_lsm_verify_prog`
    fn check_lsm(&mut self, name: &str, id: TypeId) -> R {
        if !self.prog.gpl_compatible {
            reject!(
                self,
                EINVAL,
                "LSM programs must have a GPL compatible license\n"
            );
        }
        if lsm_hook_in(DISABLED_LSM_HOOKS, name) {
            reject!(
                self,
                EINVAL,
                "attach_btf_id {} points to disabled hook {name}\n",
                id.0
            );
        }
        if !name.starts_with("bpf_lsm_") {
            reject!(
                self,
                EINVAL,
                "attach_btf_id {} points to wrong type name {name}\n",
                id.0
            );
        }
        Ok(())
    }

    /// `check_struct_ops_btf_id`
    fn attach_struct_ops(&mut self, name: &'a str, member: u32) -> R {
        if !self.prog.gpl_compatible {
            reject!(
                self,
                EINVAL,
                "struct ops programs must have a GPL compatible license\n"
            );
        }
        let kernel = self.env.kernel;
        let found = kernel
            .find(name, Kind::Struct)
            .and_then(|id| kernel.ty(id))
            .and_then(|t| t.composite());
        let Some(ops) = found else {
            return self.unsupported(format!("struct_ops of {name}"));
        };
        let Some(m) = ops.members.get(member as usize) else {
            reject!(
                self,
                EINVAL,
                "attach to invalid member idx {member} of struct {name}\n"
            );
        };
        let proto = match kernel.resolve(m.ty) {
            Ok((_, Type::Ptr { to })) => kernel
                .resolve(to)
                .ok()
                .filter(|(_, t)| t.kind() == Kind::FuncProto)
                .map(|(id, _)| id),
            _ => None,
        };
        let Some(proto) = proto else {
            reject!(
                self,
                EINVAL,
                "attach to invalid member {}(@idx {member}) of struct {name}\n",
                m.name
            );
        };
        let refused = match (name, m.name) {
            ("tcp_congestion_ops", "get_info") => Some(bpfsim_abi::Errno::ENOTSUPP),
            ("bpf_dummy_ops", other) if other != "test_sleepable" && self.prog.sleepable => {
                Some(bpfsim_abi::Errno::EINVAL)
            }
            _ => None,
        };
        if let Some(errno) = refused {
            let refused = refusal!(
                self,
                EINVAL,
                "attach to unsupported member {} of struct {name}\n",
                m.name
            );
            return Err(refused.with(errno));
        }
        self.attach.name = Some(name);
        self.attach.member = Some(m.name);
        self.attach.proto = Some(proto);
        let stub = kernel.find(&format!("{name}__{}", m.name), Kind::Func);
        let Some(stub) = stub.and_then(|id| func_proto(kernel, id)) else {
            return Ok(());
        };
        for (i, param) in stub.params.iter().enumerate() {
            let nullable = param.name.ends_with("__nullable");
            let refcounted = param.name.ends_with("__ref");
            if !nullable && !refcounted {
                continue;
            }
            let flags = if nullable { ty::MAYBE_NULL } else { 0 };
            self.attach.ctx_args.push(CtxArg {
                offset: 8 * i as u32,
                ty: ty::BTF_ID | ty::TRUSTED | flags,
                btf_id: pointee(kernel, param.ty).map_or(0, |p| p.0.0),
                refcounted,
                ref_obj_id: 0,
            });
        }
        if self.attach.ctx_args.iter().any(|a| a.refcounted)
            && self.subprogs.iter().any(|s| s.has_tail_call)
        {
            reject!(
                self,
                EINVAL,
                "program with __ref argument cannot tail call\n"
            );
        }
        Ok(())
    }

    pub(crate) fn acquire_struct_ops_refs(&mut self) {
        for i in 0..self.attach.ctx_args.len() {
            if self.attach.ctx_args[i].refcounted {
                self.attach.ctx_args[i].ref_obj_id = self.acquire_ref(0);
            }
        }
    }
}
