//! Calls of kernel functions (`check_kfunc_call`).

use std::rc::Rc;

use bpfsim_abi::kfunc::{Filter, KfuncFlags, get};
use bpfsim_btf::{Type, TypeId};
use bpfsim_isa::Insn;

use crate::kfunc_args::KMeta;
use crate::refusal::{also, reject};
use crate::reg::{BTF_KERNEL, BTF_PROG, Reg, ty};
use crate::state::kind;
use crate::subprog::Callback;
use crate::verifier::{R, Verifier};

/// A kernel function that the program calls (`struct bpf_kfunc_call_arg_meta`, what it takes in).
pub(crate) struct Kfunc {
    pub name: String,
    pub flags: KfuncFlags,
    /// Whether this program may call it.
    pub allowed: bool,
    /// Types and names.
    pub params: Vec<(TypeId, String)>,
    pub ret: TypeId,
}

/// Whether it calls back later.
pub(crate) fn is_async(name: &str) -> bool {
    matches!(
        name,
        "bpf_wq_set_callback_impl"
            | "bpf_task_work_schedule_signal_impl"
            | "bpf_task_work_schedule_resume_impl"
            | "bpf_task_work_schedule_signal"
            | "bpf_task_work_schedule_resume"
    )
}

/// `kfunc_spin_allowed`
pub(crate) fn allowed_locked(name: &str) -> bool {
    name.starts_with("bpf_list_push_")
        || name.starts_with("bpf_list_pop_")
        || matches!(
            name,
            "bpf_list_front"
                | "bpf_list_back"
                | "bpf_rbtree_add_impl"
                | "bpf_rbtree_remove"
                | "bpf_rbtree_first"
                | "bpf_rbtree_root"
                | "bpf_rbtree_left"
                | "bpf_rbtree_right"
                | "bpf_iter_num_new"
                | "bpf_iter_num_next"
                | "bpf_iter_num_destroy"
                | "bpf_res_spin_lock"
                | "bpf_res_spin_unlock"
                | "bpf_res_spin_lock_irqsave"
                | "bpf_res_spin_unlock_irqrestore"
                | "bpf_refcount_acquire_impl"
        )
}

impl Verifier<'_> {
    /// Name of the kernel function with this id.
    pub(crate) fn kfunc_name(&self, imm: i32) -> &str {
        self.kfuncs.get(&(imm as u32)).map_or("", |k| &k.name)
    }

    /// The kernel function, where this program may call it.
    pub(crate) fn kfunc_allowed(&self, imm: i32) -> Option<Rc<Kfunc>> {
        self.kfuncs
            .get(&(imm as u32))
            .filter(|k| k.allowed)
            .cloned()
    }

    pub(crate) fn is_throw(&self, at: usize) -> bool {
        let insn = self.insns[at];
        crate::cfg::is_kfunc_call(insn) && self.kfunc_name(insn.imm) == "bpf_throw"
    }

    /// `add_kfunc_call`
    pub(crate) fn add_kfunc(&mut self, imm: i32, off: i16) -> R {
        if imm == 0 && off == 0 {
            return Ok(());
        }
        if !self.prog.gpl_compatible {
            reject!(
                self,
                EINVAL,
                "cannot call kernel function from non-GPL compatible program\n"
            );
        }
        if off < 0 {
            also!(
                self,
                "negative offset disallowed for kernel module function call\n"
            );
            reject!(self, EINVAL, "failed to find BTF for kernel function\n");
        }
        if off > 0 {
            // Modules' types are named by a descriptor, and nobody gives any.
            also!(self, "kfunc offset > 0 without fd_array is invalid\n");
            reject!(self, EPROTO, "failed to find BTF for kernel function\n");
        }
        let imm = imm as u32;
        if self.kfuncs.contains_key(&imm) {
            return Ok(());
        }
        if self.kfuncs.len() >= 256 {
            reject!(self, E2BIG, "too many different kernel function calls\n");
        }
        let kernel = self.env.kernel;
        let Some(Type::Func { name, proto, .. }) = kernel.ty(TypeId(imm)) else {
            reject!(self, EINVAL, "kernel btf_id {imm} is not a function\n");
        };
        let Some(Type::FuncProto(proto)) = kernel.ty(proto) else {
            reject!(
                self,
                EINVAL,
                "kernel function btf_id {imm} does not have a valid func_proto\n"
            );
        };
        let known = get(name);
        let target = self.struct_ops_name();
        let allowed =
            known.is_some_and(|k| k.allowed(self.prog_type, self.prog.attach_type, target));
        let params = proto
            .params
            .iter()
            .map(|p| (p.ty, p.name.to_owned()))
            .collect();
        let kfunc = Kfunc {
            name: name.to_owned(),
            flags: known.map_or(KfuncFlags::empty(), |k| k.flags),
            allowed,
            params,
            ret: proto.ret,
        };
        self.kfuncs.insert(imm, Rc::new(kfunc));
        Ok(())
    }

    /// Whether the kernel's types say that a function is one that programs may call
    /// (`__bpf_kfunc`).
    fn is_tagged_kfunc(&self, func: TypeId) -> bool {
        self.env
            .kernel
            .iter()
            .any(|(_, t)| matches!(t, Type::DeclTag { name: "bpf_kfunc", ty, .. } if ty == func))
    }

    fn struct_ops_name(&self) -> Option<&str> {
        match self.prog.attach_to {
            crate::AttachTo::StructOps { name, .. } => Some(name),
            _ => None,
        }
    }

    /// `check_kfunc_call`
    pub(crate) fn check_kfunc_call(&mut self, insn: Insn) -> R {
        if insn.imm == 0 {
            return Ok(());
        }
        let Some(kfunc) = self.kfuncs.get(&(insn.imm as u32)).cloned() else {
            return self.unsupported("kernel functions of modules");
        };
        let name = kfunc.name.as_str();
        if get(name).is_some_and(|k| k.filter == Filter::DeviceBound) {
            reject!(
                self,
                EINVAL,
                "metadata kfuncs require device-bound program\n"
            );
        }
        if get(name).is_none() && self.is_tagged_kfunc(TypeId(insn.imm as u32)) {
            // The types are of a kernel that has more than the one whose rules these are.
            return self.unsupported(format!("kfunc {name}"));
        }
        if !kfunc.allowed {
            reject!(
                self,
                EACCES,
                "calling kernel function {name} is not allowed\n"
            );
        }
        let at = self.cur.insn_idx as usize;
        let is_next = kfunc.flags.contains(KfuncFlags::ITER_NEXT);
        self.aux[at].is_iter_next = is_next;
        if matches!(name, "bpf_res_spin_lock" | "bpf_res_spin_lock_irqsave") {
            let idx = self.insn_idx;
            let branch = self.push_stack(idx + 1, idx)?;
            let regs = &mut self.stack[branch].state.top_mut().regs;
            regs[..6].fill(Reg::NOT_INIT);
            regs[0] = Reg::UNKNOWN;
            regs[0].narrow_s32(-4095, -1);
        } else if name == "__bpf_trap" {
            reject!(
                self,
                EFAULT,
                "unexpected __bpf_trap() due to uninitialized variable?\n"
            );
        }
        let sleeps = kfunc.flags.contains(KfuncFlags::SLEEPABLE);
        if sleeps && !self.cur.in_sleepable {
            reject!(
                self,
                EACCES,
                "program must be sleepable to call sleepable kfunc {name}\n"
            );
        }
        let mut meta = KMeta::default();
        self.check_kfunc_args(&kfunc, &mut meta)?;
        let callback = match name {
            "bpf_rbtree_add_impl" => Some(Callback::RbtreeAdd),
            "bpf_wq_set_callback_impl" => Some(Callback::Wq),
            _ if is_async(name) => Some(Callback::TaskWork),
            _ => None,
        };
        if let Some(callback) = callback
            && let Err(e) = self.call_back(meta.subprog, callback)
        {
            also!(
                self,
                "kfunc {name}#{} failed callback verification\n",
                insn.imm
            );
            return Err(e);
        }
        if name == "bpf_session_cookie" {
            meta.r0_size = 8;
            meta.rdonly = false;
        }
        self.regions(&kfunc, sleeps)?;
        self.kfunc_release(&kfunc, insn.imm, &meta)?;
        if name == "bpf_throw" && self.exception_cb == 0 {
            self.check_return(1, "R1")?;
        }
        self.regs_mut()[..6].fill(Reg::NOT_INIT);
        self.kfunc_return(&kfunc, &mut meta)?;
        if name == "bpf_xdp_pull_data" {
            self.clear_packet();
        }
        match meta.iter.filter(|_| is_next) {
            Some((frame, spi)) => self.next_iter(frame, spi),
            None => Ok(()),
        }
    }

    /// Regions of RCU, disabled preemption and disabled interrupts.
    fn regions(&mut self, kfunc: &Kfunc, sleeps: bool) -> R {
        let name = kfunc.name.as_str();
        let (lock, unlock) = (name == "bpf_rcu_read_lock", name == "bpf_rcu_read_unlock");
        if self.cur.active_rcu {
            if (lock || unlock) && self.in_rbtree_cb() {
                reject!(
                    self,
                    EACCES,
                    "Calling bpf_rcu_read_{{lock,unlock}} in unnecessary rbtree callback\n"
                );
            }
            if lock {
                reject!(
                    self,
                    EINVAL,
                    "nested rcu read lock (kernel function {name})\n"
                );
            } else if unlock {
                let mask = 1 << kind::SPILL | 1 << kind::ITER;
                self.cur.each_reg_in(mask, |reg| {
                    if reg.ty & ty::RCU != 0 {
                        reg.ty = reg.ty & !(ty::RCU | ty::MAYBE_NULL) | ty::UNTRUSTED;
                    }
                });
                self.cur.active_rcu = false;
            } else if sleeps {
                reject!(
                    self,
                    EACCES,
                    "kernel func {name} is sleepable within rcu_read_lock region\n"
                );
            }
        } else if lock {
            self.cur.active_rcu = true;
        } else if unlock {
            reject!(
                self,
                EINVAL,
                "unmatched rcu read unlock (kernel function {name})\n"
            );
        }
        let (off, on) = (name == "bpf_preempt_disable", name == "bpf_preempt_enable");
        if off {
            self.cur.active_preempt += 1;
        } else if self.cur.active_preempt != 0 {
            if on {
                self.cur.active_preempt -= 1;
            } else if sleeps {
                reject!(
                    self,
                    EACCES,
                    "kernel func {name} is sleepable within non-preemptible region\n"
                );
            }
        } else if on {
            reject!(
                self,
                EINVAL,
                "unmatched attempt to enable preemption (kernel function {name})\n"
            );
        }
        if self.cur.active_irq_id != 0 && sleeps {
            reject!(
                self,
                EACCES,
                "kernel func {name} is sleepable within IRQ-disabled region\n"
            );
        }
        if kfunc.flags.contains(KfuncFlags::RCU_PROTECTED) && !self.in_rcu() {
            reject!(
                self,
                EACCES,
                "kernel func {name} requires RCU critical section protection\n"
            );
        }
        Ok(())
    }

    fn kfunc_release(&mut self, kfunc: &Kfunc, imm: i32, meta: &KMeta) -> R {
        let name = kfunc.name.as_str();
        if let Some(n) = meta.release {
            let id = self.reg(n).ref_obj_id;
            if !self.release_ref(id)? {
                reject!(
                    self,
                    EINVAL,
                    "kfunc {name}#{imm} reference has not been acquired before\n"
                );
            }
        }
        let adds = matches!(
            name,
            "bpf_list_push_front_impl" | "bpf_list_push_back_impl" | "bpf_rbtree_add_impl"
        );
        if adds {
            let id = self.reg(2).ref_obj_id;
            self.convert_non_owning(id)?;
            if !self.release_ref(id)? {
                reject!(
                    self,
                    EINVAL,
                    "kfunc {name}#{imm} reference has not been acquired before\n"
                );
            }
        }
        Ok(())
    }

    fn kfunc_return(&mut self, kfunc: &Kfunc, meta: &mut KMeta) -> R {
        let kernel = self.env.kernel;
        let name = kfunc.name.as_str();
        let t = kernel.resolve(kfunc.ret).map_or(Type::Void, |(_, t)| t);
        let to = match t {
            Type::Void => return Ok(()),
            Type::Ptr { to } => to,
            _ => {
                let locks = matches!(name, "bpf_res_spin_lock" | "bpf_res_spin_lock_irqsave");
                self.regs_mut()[0] = if locks {
                    Reg::constant(0)
                } else {
                    Reg::UNKNOWN
                };
                return Ok(());
            }
        };
        let (to_id, to_type) = kernel.resolve(to).unwrap_or((to, Type::Void));
        let is_struct = matches!(to_type, Type::Struct(_) | Type::Union(_));
        let acquires = kfunc.flags.contains(KfuncFlags::ACQUIRE);
        if acquires
            && !is_struct
            && !matches!(
                name,
                "bpf_obj_new_impl" | "bpf_percpu_obj_new_impl" | "bpf_refcount_acquire_impl"
            )
        {
            reject!(
                self,
                EINVAL,
                "acquire kernel function does not return PTR_TO_BTF_ID\n"
            );
        }
        let to_name = kernel.name_of(to_id);
        let is_node = matches!(to_name, "bpf_rb_node" | "bpf_list_node");
        let protected = kfunc.flags.contains(KfuncFlags::RCU_PROTECTED);
        let mut reg = if let Some(reg) = self.special_return(kfunc, is_node, meta)? {
            reg
        } else if matches!(to_type, Type::Void) {
            Reg::UNKNOWN
        } else if !is_struct {
            if meta.r0_size == 0
                && let Ok(size) = kernel.size_of(to_id)
            {
                meta.r0_size = size.into();
                meta.rdonly = true;
            }
            if meta.r0_size == 0 {
                let t = crate::btf_ctx::kind_str(Some(to_type));
                reject!(
                    self,
                    EINVAL,
                    "kernel function {name} returns pointer type {t} {to_name} is not supported\n"
                );
            }
            let mut reg = Reg::pointer(ty::MEM);
            reg.a = meta.r0_size as u32;
            if meta.rdonly {
                reg.ty |= ty::RDONLY;
            }
            reg.ref_obj_id = meta.ref_obj_id;
            if protected {
                reg.ty |= ty::RCU;
            }
            reg
        } else {
            let mut reg = Reg::pointer(ty::BTF_ID);
            (reg.a, reg.b) = (BTF_KERNEL, to_id.0);
            if name == "bpf_get_kmem_cache" {
                reg.ty |= ty::UNTRUSTED;
            } else if protected {
                reg.ty |= ty::RCU;
            }
            if let Some((frame, spi)) = meta.iter
                && kfunc.flags.contains(KfuncFlags::ITER_NEXT)
            {
                let iter = self.cur.frames[frame].stack[spi].reg.ty;
                reg.ty |= if iter & ty::RCU != 0 {
                    ty::RCU
                } else {
                    ty::TRUSTED
                };
            }
            reg
        };
        let null = kfunc.flags.contains(KfuncFlags::RET_NULL)
            && !(name == "bpf_refcount_acquire_impl" && meta.owning);
        if null {
            reg.ty |= ty::MAYBE_NULL;
            reg.id = self.new_id();
        }
        if acquires {
            let id = self.acquire_ref(self.cur.insn_idx);
            if null {
                reg.id = id;
            }
            reg.ref_obj_id = id;
        } else if is_node {
            self.set_non_owning(&mut reg)?;
        }
        if reg.id == 0 && self.has_lock(&reg) {
            reg.id = self.new_id();
        }
        self.regs_mut()[0] = reg;
        Ok(())
    }

    /// `check_special_kfunc`
    fn special_return(&mut self, kfunc: &Kfunc, is_node: bool, meta: &KMeta) -> R<Option<Reg>> {
        let name = kfunc.name.as_str();
        let constant = meta.constant.unwrap_or(0);
        let percpu = name == "bpf_percpu_obj_new_impl";
        let mut reg = Reg::pointer(ty::BTF_ID);
        match name {
            "bpf_obj_new_impl" | "bpf_percpu_obj_new_impl" => {
                if u32::try_from(constant).is_err() {
                    reject!(
                        self,
                        EINVAL,
                        "local type ID argument must be in range [0, U32_MAX]\n"
                    );
                }
                let Some(btf) = self.prog.btf else {
                    reject!(
                        self,
                        EINVAL,
                        "bpf_obj_new/bpf_percpu_obj_new requires prog BTF\n"
                    );
                };
                let id = TypeId(constant as u32);
                let Some(Type::Struct(c)) = btf.ty(id) else {
                    reject!(
                        self,
                        EINVAL,
                        "bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct\n"
                    );
                };
                if percpu {
                    if c.size > 512 {
                        reject!(
                            self,
                            EINVAL,
                            "bpf_percpu_obj_new type size ({}) is greater than 512\n",
                            c.size
                        );
                    }
                    if !crate::kfunc_args::is_scalar_struct(btf, id) {
                        reject!(
                            self,
                            EINVAL,
                            "bpf_percpu_obj_new type ID argument must be of a struct of scalars\n"
                        );
                    }
                    if self.struct_record(BTF_PROG, id.0).is_some() {
                        reject!(
                            self,
                            EINVAL,
                            "bpf_percpu_obj_new type ID argument must not contain special fields\n"
                        );
                    }
                    reg.ty |= ty::PERCPU;
                }
                reg.ty |= ty::ALLOC;
                (reg.a, reg.b) = (BTF_PROG, id.0);
            }
            "bpf_refcount_acquire_impl" => {
                reg.ty |= ty::ALLOC;
                (reg.a, reg.b) = meta.arg;
            }
            _ if is_node => match meta.root {
                Some(f) => reg = crate::special::graph_node(&f),
                None => return self.unsupported(format!("kfunc {name}")),
            },
            "bpf_cast_to_kern_ctx" => {
                reg.ty |= ty::TRUSTED;
                (reg.a, reg.b) = (BTF_KERNEL, meta.ret_id);
            }
            "bpf_rdonly_cast" => {
                let id = TypeId(constant as u32);
                match self.env.kernel.ty(id) {
                    None => reject!(
                        self,
                        EINVAL,
                        "Unknown type ID {constant} passed to kfunc bpf_rdonly_cast\n"
                    ),
                    Some(Type::Struct(_) | Type::Union(_)) => {
                        reg.ty |= ty::UNTRUSTED;
                        (reg.a, reg.b) = (BTF_KERNEL, id.0);
                    }
                    Some(Type::Void) => {
                        reg = Reg::pointer(ty::MEM | ty::RDONLY | ty::UNTRUSTED);
                    }
                    Some(_) => reject!(
                        self,
                        EINVAL,
                        "kfunc bpf_rdonly_cast type ID argument must be of a struct or void\n"
                    ),
                }
            }
            "bpf_dynptr_slice" | "bpf_dynptr_slice_rdwr" => {
                let Some(d) = meta.dynptr else {
                    return self.bug(format_args!("no dynptr id"));
                };
                let flag = match d.a {
                    1 => ty::DYN_LOCAL,
                    2 => ty::DYN_RINGBUF,
                    3 => ty::DYN_SKB,
                    4 => ty::DYN_XDP,
                    5 => ty::DYN_SKB_META,
                    _ => 0,
                };
                reg = Reg::pointer(ty::MEM | flag);
                reg.a = constant as u32;
                reg.b = d.id;
                if name == "bpf_dynptr_slice" {
                    reg.ty |= ty::RDONLY;
                } else if !self.may_access_packet(true) {
                    reject!(
                        self,
                        EINVAL,
                        "the prog does not allow writes to packet data\n"
                    );
                }
            }
            _ => return Ok(None),
        }
        Ok(Some(reg))
    }
}
