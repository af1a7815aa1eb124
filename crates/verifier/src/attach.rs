//! What a program attaches to, and what functions take by their BTF.

use std::rc::Rc;

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, FuncProto, Kind, Type, TypeId};

use crate::AttachTo;
use crate::log::verbose;
use crate::raw_tp::RAW_TP_NULL_ARGS;
use crate::refusal::{also, quiet, refusal, reject};
use crate::reg::ty;
use crate::setup::CtxArg;
use crate::verifier::{Arg, R, Verifier};

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

/// `bpf_ctx_convert`: by program type, the name of its context in C and in the kernel.
pub(crate) fn ctx_names(prog_type: ProgType) -> (&'static str, &'static str) {
    use ProgType as P;
    match prog_type {
        P::SocketFilter
        | P::SchedCls
        | P::SchedAct
        | P::CgroupSkb
        | P::LwtIn
        | P::LwtOut
        | P::LwtXmit
        | P::LwtSeg6local
        | P::SkSkb => ("__sk_buff", "sk_buff"),
        P::Xdp => ("xdp_md", "xdp_buff"),
        P::CgroupSock => ("bpf_sock", "sock"),
        P::CgroupSockAddr => ("bpf_sock_addr", "bpf_sock_addr_kern"),
        P::SockOps => ("bpf_sock_ops", "bpf_sock_ops_kern"),
        P::SkMsg => ("sk_msg_md", "sk_msg"),
        P::FlowDissector => ("__sk_buff", "bpf_flow_dissector"),
        P::Kprobe => ("pt_regs", "pt_regs"),
        P::PerfEvent => ("bpf_perf_event_data", "bpf_perf_event_data_kern"),
        P::RawTracepoint | P::RawTracepointWritable => ("bpf_raw_tracepoint_args", ""),
        P::CgroupDevice => ("bpf_cgroup_dev_ctx", "bpf_cgroup_dev_ctx"),
        P::CgroupSysctl => ("bpf_sysctl", "bpf_sysctl_kern"),
        P::CgroupSockopt => ("bpf_sockopt", "bpf_sockopt_kern"),
        P::SkReuseport => ("sk_reuseport_md", "sk_reuseport_kern"),
        P::SkLookup => ("bpf_sk_lookup", "bpf_sk_lookup_kern"),
        P::Netfilter => ("bpf_nf_ctx", "bpf_nf_ctx"),
        _ => ("", ""),
    }
}

/// `btf_is_projection_of`
pub(crate) fn is_projection(projection: &str, kernel: &str) -> bool {
    matches!(
        (projection, kernel),
        ("__sk_buff", "sk_buff") | ("xdp_md", "xdp_buff")
    )
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

/// Tags of an argument: `ARG_TAG_*`.
const TAG_CTX: u32 = 1;
const TAG_NONNULL: u32 = 2;
const TAG_TRUSTED: u32 = 4;
const TAG_UNTRUSTED: u32 = 8;
const TAG_NULLABLE: u32 = 16;
const TAG_ARENA: u32 = 32;

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

    /// `btf_is_prog_ctx_type`: whether this pointer is to the context of such a program.
    pub(crate) fn is_ctx_type(&self, btf: &Btf, ptr_to: TypeId, prog_type: ProgType) -> bool {
        if prog_type == ProgType::Kprobe {
            let mut at = ptr_to;
            for _ in 0..32 {
                match btf.ty(at) {
                    Some(Type::Typedef { name, .. }) => {
                        if name == "bpf_user_pt_regs_t" {
                            return true;
                        }
                        break;
                    }
                    Some(
                        Type::Const { to }
                        | Type::Volatile { to }
                        | Type::Restrict { to }
                        | Type::TypeTag { to, .. },
                    ) => at = to,
                    _ => break,
                }
            }
        }
        let name = match btf.resolve(ptr_to) {
            Ok((_, Type::Struct(c) | Type::Union(c))) => c.name,
            _ => return false,
        };
        if prog_type == ProgType::Kprobe && name == "bpf_user_pt_regs_t" {
            return true;
        }
        let (ctx, _) = ctx_names(prog_type);
        !ctx.is_empty() && (ctx == name || is_projection(ctx, name))
    }

    /// `btf_prepare_func_args`: what a function takes, by its BTF.
    pub(crate) fn func_args(&mut self, subprog: usize) -> R<Rc<[Arg]>> {
        if let Some(args) = &self.subprogs[subprog].args {
            return Ok(args.clone());
        }
        let global = self.subprogs[subprog].global;
        let id = self.subprogs[subprog].type_id;
        let Some((btf, proto)) = self.prog.btf.and_then(|b| Some((b, func_proto(b, id)?))) else {
            return Err(quiet!(
                self,
                EFAULT,
                "a function without a prototype in BTF"
            ));
        };
        let name = btf.name_of(id);
        if self.subprogs[subprog].unreliable {
            reject!(self, EFAULT, "Verifier bug in function {name}()\n");
        }
        let n = proto.params.len();
        if n > 5 {
            if global {
                reject!(
                    self,
                    EINVAL,
                    "Global function {name}() with {n} > 5 args. Buggy compiler.\n"
                );
            }
            return Err(quiet!(
                self,
                EINVAL,
                "a static function with more than five arguments"
            ));
        }
        let ret = btf.resolve(proto.ret).map(|(_, t)| t);
        if !matches!(ret, Ok(Type::Int(_) | Type::Enum(_) | Type::Enum64(_))) {
            if global {
                reject!(
                    self,
                    EINVAL,
                    "Global function {name}() doesn't return scalar. Only those are supported.\n"
                );
            }
            return Err(quiet!(
                self,
                EINVAL,
                "a static function that returns no number"
            ));
        }
        let mut args = Vec::new();
        for (i, param) in proto.params.iter().enumerate() {
            args.push(self.func_arg(btf, id, i, param.ty, global, name)?);
        }
        let args: Rc<[Arg]> = args.into();
        self.subprogs[subprog].args = Some(args.clone());
        Ok(args)
    }

    fn arg_tags(&mut self, btf: &Btf, func: TypeId, i: usize, global: bool) -> R<u32> {
        let mut tags = 0;
        for (_, t) in btf.iter() {
            let Type::DeclTag {
                name,
                ty,
                component_idx,
                ..
            } = t
            else {
                continue;
            };
            if ty != func || component_idx != i as i32 {
                continue;
            }
            let Some(tag) = name.strip_prefix("arg:") else {
                continue;
            };
            if !global {
                reject!(
                    self,
                    EOPNOTSUPP,
                    "arg#{i} type tag is not supported in static functions\n"
                );
            }
            tags |= match tag {
                "ctx" => TAG_CTX,
                "trusted" => TAG_TRUSTED,
                "untrusted" => TAG_UNTRUSTED,
                "nonnull" => TAG_NONNULL,
                "nullable" => TAG_NULLABLE,
                "arena" => TAG_ARENA,
                _ => reject!(self, EOPNOTSUPP, "arg#{i} has unsupported set of tags\n"),
            };
        }
        Ok(tags)
    }

    fn func_arg(
        &mut self,
        btf: &Btf,
        func: TypeId,
        i: usize,
        param: TypeId,
        global: bool,
        name: &str,
    ) -> R<Arg> {
        let tags = self.arg_tags(btf, func, i, global)?;
        let resolved = btf.resolve(param).map(|(_, t)| t).ok();
        if let Some(Type::Ptr { to }) = resolved
            && let Some(arg) = self.pointer_arg(btf, i, to, tags, global)?
        {
            return Ok(arg);
        }
        if tags != 0 && !matches!(resolved, Some(Type::Ptr { .. })) {
            reject!(
                self,
                EINVAL,
                "arg#{i} has pointer tag, but is not a pointer type\n"
            );
        }
        if matches!(
            resolved,
            Some(Type::Int(_) | Type::Enum(_) | Type::Enum64(_))
        ) {
            return Ok(Arg::Anything);
        }
        if !global {
            return Err(quiet!(
                self,
                EINVAL,
                "a static function with an argument that cannot be described"
            ));
        }
        reject!(
            self,
            EINVAL,
            "Arg#{i} type {} in {name}() is not supported yet.\n",
            kind_str(resolved)
        )
    }

    fn pointer_arg(
        &mut self,
        btf: &Btf,
        i: usize,
        to: TypeId,
        tags: u32,
        global: bool,
    ) -> R<Option<Arg>> {
        let bad_tags = |v: &mut Self| -> R<Option<Arg>> {
            reject!(v, EINVAL, "arg#{i} has invalid combination of tags\n")
        };
        if tags & TAG_CTX != 0 || self.is_ctx_type(btf, to, self.prog_type) {
            if tags & !TAG_CTX != 0 {
                return bad_tags(self);
            }
            if tags & TAG_CTX != 0 {
                self.check_ctx_tag(btf, i, to)?;
            }
            return Ok(Some(Arg::Ctx));
        }
        let pointee = btf.resolve(to).ok();
        if let Some((_, Type::Struct(c))) = pointee
            && c.name == "bpf_dynptr"
        {
            if tags != 0 {
                return bad_tags(self);
            }
            return Ok(Some(Arg::Dynptr));
        }
        if tags & (TAG_TRUSTED | TAG_UNTRUSTED) != 0 {
            return self.trust_arg(btf, i, to, tags).map(Some);
        }
        if tags & TAG_ARENA != 0 {
            if tags & !TAG_ARENA != 0 {
                reject!(
                    self,
                    EINVAL,
                    "arg#{i} arena cannot be combined with any other tags\n"
                );
            }
            return Ok(Some(Arg::Arena));
        }
        if !global {
            return Ok(None);
        }
        if tags & TAG_NULLABLE != 0 {
            return bad_tags(self);
        }
        let (id, t) = match pointee {
            Some((id, t)) => (id, Some(t)),
            None => (to, None),
        };
        let Ok(size) = btf.size_of(id) else {
            reject!(
                self,
                EINVAL,
                "arg#{i} reference type('{} {}') size cannot be determined: -22\n",
                kind_str(t),
                btf.name_of(id)
            );
        };
        let flags = match tags & TAG_NONNULL {
            0 => ty::MAYBE_NULL,
            _ => 0,
        };
        Ok(Some(Arg::Mem { size, flags }))
    }

    fn trust_arg(&mut self, btf: &Btf, i: usize, to: TypeId, tags: u32) -> R<Arg> {
        if tags & TAG_TRUSTED != 0 && tags & (TAG_NONNULL | TAG_UNTRUSTED) != 0
            || tags & TAG_UNTRUSTED != 0 && tags & !TAG_UNTRUSTED != 0
        {
            reject!(self, EINVAL, "arg#{i} has invalid combination of tags\n");
        }
        let (id, t) = match btf.resolve(to) {
            Ok(found) => found,
            Err(_) => (to, Type::Void),
        };
        if tags & TAG_UNTRUSTED != 0
            && matches!(
                t,
                Type::Int(_) | Type::Enum(_) | Type::Enum64(_) | Type::Void
            )
        {
            let flags = ty::RDONLY | ty::UNTRUSTED;
            return Ok(Arg::Mem { size: 0, flags });
        }
        let name = bpfsim_btf::essential_name(btf.name_of(id));
        let composite = matches!(t, Type::Struct(_) | Type::Union(_) | Type::Fwd { .. });
        let found = match composite {
            true => self
                .env
                .kernel
                .find(name, Kind::Struct)
                .or(self.env.kernel.find(name, Kind::Union)),
            false => None,
        };
        let Some(kern) = found else {
            if tags & TAG_UNTRUSTED == 0 && !composite {
                reject!(
                    self,
                    EINVAL,
                    "arg#{i} type={} is not a kernel type\n",
                    btf.name_of(id)
                );
            }
            reject!(
                self,
                ENOENT,
                "arg#{i} type={name} has no match in kernel BTF\n"
            );
        };
        let null = match tags & TAG_NULLABLE {
            0 => 0,
            _ => ty::MAYBE_NULL,
        };
        let trust = match tags & TAG_TRUSTED {
            0 => ty::UNTRUSTED,
            _ => ty::TRUSTED,
        };
        Ok(Arg::Btf {
            id: kern.0,
            flags: null | trust,
        })
    }

    /// `btf_validate_prog_ctx_type`
    fn check_ctx_tag(&mut self, btf: &Btf, i: usize, to: TypeId) -> R {
        use ProgType as P;
        let mut at = to;
        let mut typedef = "";
        for _ in 0..32 {
            match btf.ty(at) {
                Some(Type::Typedef { name, .. }) => {
                    typedef = name;
                    break;
                }
                Some(
                    Type::Const { to }
                    | Type::Volatile { to }
                    | Type::Restrict { to }
                    | Type::TypeTag { to, .. },
                ) => at = to,
                _ => break,
            }
        }
        let (id, t) = match btf.resolve(to) {
            Ok(found) => found,
            Err(_) => return Ok(()),
        };
        let name = btf.name_of(id);
        let is_void = matches!(t, Type::Void);
        let is_struct = matches!(t, Type::Struct(_) | Type::Union(_));
        let is_u64 = matches!(t, Type::Int(int) if int.size == 8) || typedef == "u64";
        let fine = match self.prog_type {
            P::Kprobe => typedef == "bpf_user_pt_regs_t" || is_struct && name == "pt_regs",
            P::PerfEvent => {
                typedef == "bpf_user_pt_regs_t"
                    || is_struct && matches!(name, "pt_regs" | "bpf_perf_event_data")
            }
            P::RawTracepoint | P::RawTracepointWritable => {
                is_struct && name == "bpf_raw_tracepoint_args" || is_u64
            }
            P::Tracing => match self.prog.attach_type {
                AttachType::TraceRawTp => is_struct && name == "bpf_raw_tracepoint_args" || is_u64,
                AttachType::TraceIter => is_struct && name.starts_with("bpf_iter__") || is_u64,
                _ => is_u64,
            },
            P::Lsm | P::StructOps => is_u64,
            P::Tracepoint | P::Syscall | P::Ext => is_struct || is_u64,
            _ => false,
        };
        if fine || is_void || self.is_ctx_type(btf, to, self.prog_type) {
            return Ok(());
        }
        let (ctx, _) = ctx_names(self.prog_type);
        if ctx.is_empty() || matches!(self.prog_type, P::Tracepoint) {
            return Ok(());
        }
        let ctx = match self.prog_type {
            P::Kprobe => "bpf_user_pt_regs_t",
            _ => ctx,
        };
        reject!(
            self,
            EINVAL,
            "arg#{i} should be {}{ctx} *\n",
            if self.prog_type == P::Kprobe {
                ""
            } else {
                "struct "
            }
        )
    }

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
