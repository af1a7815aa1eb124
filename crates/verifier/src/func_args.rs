//! What functions of a program take, by their BTF.

use std::rc::Rc;

use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, Kind, Type, TypeId};

use crate::btf_ctx::{func_proto, kind_str};
use crate::refusal::{quiet, reject};
use crate::reg::ty;
use crate::verifier::{Arg, R, Verifier};

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
/// Tags of an argument: `ARG_TAG_*`.
const TAG_CTX: u32 = 1;
const TAG_NONNULL: u32 = 2;
const TAG_TRUSTED: u32 = 4;
const TAG_UNTRUSTED: u32 = 8;
const TAG_NULLABLE: u32 = 16;
const TAG_ARENA: u32 = 32;

/// Name of the typedef that a type is, below its modifiers; empty if it is none.
fn typedef_of(btf: &Btf, mut at: TypeId) -> &str {
    for _ in 0..32 {
        at = match btf.ty(at) {
            Some(Type::Typedef { name, .. }) => return name,
            Some(
                Type::Const { to }
                | Type::Volatile { to }
                | Type::Restrict { to }
                | Type::TypeTag { to, .. },
            ) => to,
            _ => break,
        };
    }
    ""
}

impl Verifier<'_> {
    /// `btf_is_prog_ctx_type`: whether this pointer is to the context of such a program.
    pub(crate) fn is_ctx_type(&self, btf: &Btf, ptr_to: TypeId, prog_type: ProgType) -> bool {
        if prog_type == ProgType::Kprobe && typedef_of(btf, ptr_to) == "bpf_user_pt_regs_t" {
            return true;
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
        let typedef = typedef_of(btf, to);
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
}
