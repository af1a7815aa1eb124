//! What a pointer argument has to point to, one function for each kind (`check_kfunc_args`).

use bpfsim_abi::kfunc::KfuncFlags;
use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, Kind, Type, TypeId};

use super::KMeta;
use super::kind::Ptr;
use crate::btf_ctx::kind_str;
use crate::func_args::{ctx_names, is_projection};
use crate::helper_args::Meta;
use crate::kfunc::Kfunc;
use crate::log::type_str;
use crate::refusal::{also, quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::verifier::{R, Verifier, field};

/// An object that the program allocated.
pub(super) const OBJ: u32 = ty::BTF_ID | ty::ALLOC;

impl Verifier<'_> {
    /// What an argument has to point to; how many arguments it takes.
    pub(super) fn check_ptr_arg(
        &mut self,
        kfunc: &Kfunc,
        i: usize,
        kind: Ptr,
        to: TypeId,
        reg: &Reg,
        meta: &mut KMeta,
    ) -> R<usize> {
        let n = i + 1;
        let func = kfunc.name.as_str();
        match kind {
            Ptr::Ctx => self.ctx_arg(i, func, reg, meta)?,
            Ptr::AllocObj => self.object_arg(i, func, reg, meta)?,
            Ptr::Dynptr => self.dynptr_arg(kfunc, i, reg, meta)?,
            Ptr::Iter => self.iter_arg(kfunc, i, reg, meta)?,
            Ptr::ListHead | Ptr::RbRoot => self.root_arg(i, reg, kind == Ptr::ListHead, meta)?,
            Ptr::ListNode | Ptr::RbNode => {
                self.node_arg(i, func, reg, kind == Ptr::ListNode, meta)?;
            }
            Ptr::Map | Ptr::BtfId => self.btf_arg(kfunc, i, kind, to, reg)?,
            Ptr::Mem => self.mem_arg(i, to)?,
            Ptr::MemSize => {
                self.sized_arg(kfunc, i, reg, meta)?;
                return Ok(2);
            }
            Ptr::Callback => {
                if reg.ty != ty::FUNC {
                    reject!(
                        self,
                        EINVAL,
                        "arg{i} expected pointer to func
"
                    );
                }
                meta.subprog = reg.a;
            }
            Ptr::Refcounted => self.refcounted_arg(i, reg, meta)?,
            Ptr::ConstStr => {
                if reg.ty != ty::MAP_VALUE {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} doesn't point to a const string
"
                    );
                }
                self.check_const_str(n)?;
            }
            Ptr::Workqueue => self.slot_arg(i, reg, field::WORKQUEUE, "bpf_wq", meta)?,
            Ptr::TaskWork => self.slot_arg(i, reg, field::TASK_WORK, "bpf_task_work", meta)?,
            Ptr::IrqFlag => {
                if reg.ty != ty::STACK {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} doesn't point to an irq flag on stack
"
                    );
                }
                let save = matches!(func, "bpf_local_irq_save" | "bpf_res_spin_lock_irqsave");
                let class = if func.starts_with("bpf_local") { 1 } else { 2 };
                self.process_irq(n, save, class)?;
            }
            Ptr::ResLock => {
                if reg.ty != ty::MAP_VALUE && reg.ty != OBJ {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} doesn't point to map value or allocated object
"
                    );
                }
                let lock = !func.contains("unlock");
                self.process_lock(n, lock, true, func.contains("irq"))?;
            }
            Ptr::Null => {}
        }
        Ok(1)
    }

    fn ctx_arg(&mut self, i: usize, func: &str, reg: &Reg, meta: &mut KMeta) -> R {
        if reg.ty != ty::CTX {
            let t = type_str(reg.ty);
            reject!(
                self,
                EINVAL,
                "arg#{i} expected pointer to ctx, but got {t}
"
            );
        }
        if func == "bpf_cast_to_kern_ctx" {
            let (_, kern) = ctx_names(self.prog_type);
            let Some(id) = self.env.kernel.find(kern, Kind::Struct) else {
                return Err(quiet!(
                    self,
                    EINVAL,
                    "bpf_cast_to_kern_ctx in a program whose context the kernel has no struct for"
                ));
            };
            meta.ret_id = id.0;
        }
        Ok(())
    }

    /// An object that goes back to the allocator.
    fn object_arg(&mut self, i: usize, func: &str, reg: &Reg, meta: &mut KMeta) -> R {
        let percpu = reg.ty == OBJ | ty::PERCPU;
        if reg.ty != OBJ && !percpu {
            reject!(
                self,
                EINVAL,
                "arg#{i} expected pointer to allocated object
"
            );
        }
        let want = match percpu {
            true => "bpf_percpu_obj_drop_impl",
            false => "bpf_obj_drop_impl",
        };
        if func != want {
            reject!(
                self,
                EINVAL,
                "arg#{i} expected for {want}()
"
            );
        }
        if reg.ref_obj_id == 0 {
            reject!(
                self,
                EINVAL,
                "allocated object must be referenced
"
            );
        }
        meta.arg = (reg.a, reg.b);
        Ok(())
    }

    fn refcounted_arg(&mut self, i: usize, reg: &Reg, meta: &mut KMeta) -> R {
        if !ty::is_alloc_obj(reg.ty) {
            reject!(
                self,
                EINVAL,
                "arg#{i} is neither owning or non-owning ref
"
            );
        }
        meta.owning |= !ty::is_non_own(reg.ty);
        let Some(record) = self.reg_record(reg) else {
            return self.bug(format_args!("Couldn't find btf_record"));
        };
        if !record.has(field::REFCOUNT) {
            reject!(
                self,
                EINVAL,
                "arg#{i} doesn't point to a type with bpf_refcount field
"
            );
        }
        meta.arg = (reg.a, reg.b);
        Ok(())
    }

    /// A slot in a map's value that holds a work or a task work.
    fn slot_arg(&mut self, i: usize, reg: &Reg, bit: u32, name: &str, meta: &mut KMeta) -> R {
        if reg.ty != ty::MAP_VALUE {
            reject!(
                self,
                EINVAL,
                "arg#{i} doesn't point to a map value
"
            );
        }
        self.check_map_field(i + 1, bit, name)?;
        meta.map = reg.map().map(|m| (m, reg.b));
        Ok(())
    }

    /// Memory as large as its type.
    fn mem_arg(&mut self, i: usize, to: TypeId) -> R {
        let kernel = self.env.kernel;
        let Ok(size) = kernel.size_of(to) else {
            let t = kernel.resolve(to).ok();
            reject!(
                self,
                EINVAL,
                "arg#{i} reference type('{} {}') size cannot be determined: -22
",
                kind_str(t.map(|t| t.1)),
                t.map_or("", |t| kernel.name_of(t.0))
            );
        };
        self.check_mem_reg(i + 1, size)
    }

    /// Memory as large as the next argument says.
    fn sized_arg(&mut self, kfunc: &Kfunc, i: usize, reg: &Reg, meta: &mut KMeta) -> R {
        let next = i + 1;
        let optional = kfunc.params[i].1.ends_with("__opt");
        if !(reg.is_null() && optional)
            && let Err(e) = self.kfunc_size_reg(next + 1)
        {
            also!(
                self,
                "arg#{i} arg#{next} memory, len pair leads to invalid memory access
"
            );
            return Err(e);
        }
        if kfunc.params[next].1.ends_with("__szk") {
            let size = self.reg(next + 1);
            if !size.var_off.is_const() {
                reject!(
                    self,
                    EINVAL,
                    "R{} must be a known constant
",
                    next + 1
                );
            }
            meta.constant = Some(size.var_off.value);
        }
        Ok(())
    }

    /// `check_kfunc_mem_size_reg`
    fn kfunc_size_reg(&mut self, n: usize) -> R {
        let saved = self.reg(n - 1);
        if ty::maybe_null(saved.ty) {
            let mut reg = saved;
            self.mark_not_null(&mut reg);
            self.regs_mut()[n - 1] = reg;
        }
        let mut meta = Meta::default();
        let mut result = self.check_size_reg(n, false, true, &mut meta);
        if result.is_ok() {
            result = self.check_size_reg(n, true, true, &mut meta);
        }
        if ty::maybe_null(saved.ty) {
            self.regs_mut()[n - 1] = saved;
        }
        result
    }

    fn dynptr_arg(&mut self, kfunc: &Kfunc, i: usize, reg: &Reg, meta: &mut KMeta) -> R {
        let n = i + 1;
        let mut flags = 0;
        let mut clone = 0;
        if reg.ty == ty::DYNPTR {
            flags |= ty::RDONLY;
        }
        let uninit = kfunc.params[i].1.ends_with("__uninit");
        if uninit {
            flags |= ty::UNINIT;
        }
        match kfunc.name.as_str() {
            "bpf_dynptr_from_skb" => flags |= ty::DYN_SKB,
            "bpf_dynptr_from_xdp" => flags |= ty::DYN_XDP,
            "bpf_dynptr_from_skb_meta" => flags |= ty::DYN_SKB_META,
            "bpf_dynptr_clone" if uninit => {
                let Some(parent) = meta.dynptr else {
                    return self.bug(format_args!("no dynptr type for parent of clone"));
                };
                flags |= match parent.a {
                    1 => ty::DYN_LOCAL,
                    2 => ty::DYN_RINGBUF,
                    3 => ty::DYN_SKB,
                    4 => ty::DYN_XDP,
                    _ => ty::DYN_SKB_META,
                };
                clone = parent.ref_obj_id;
            }
            name if uninit => {
                return self.unsupported(format!("dynptr made by kfunc {name}"));
            }
            _ => {}
        }
        let insn = self.cur.insn_idx;
        self.process_dynptr(n, insn, flags, clone)?;
        if !uninit {
            meta.dynptr = self.dynptr_of(reg);
        }
        Ok(())
    }

    /// `process_iter_arg`
    fn iter_arg(&mut self, kfunc: &Kfunc, i: usize, reg: &Reg, meta: &mut KMeta) -> R {
        let n = i + 1;
        if kfunc.name == "bpf_iter_css_task_new" {
            let fine = self.prog_type == ProgType::Lsm
                || self.prog_type == ProgType::Tracing
                    && self.prog.attach_type == AttachType::TraceIter
                || self.cur.in_sleepable;
            if !fine {
                reject!(
                    self,
                    EINVAL,
                    "css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs\n"
                );
            }
        }
        if reg.ty != ty::STACK {
            reject!(
                self,
                EINVAL,
                "arg#{i} expected pointer to an iterator on stack\n"
            );
        }
        let kernel = self.env.kernel;
        let found = crate::btf_ctx::pointee(kernel, kfunc.params[i].0);
        let iter = match found {
            Some((id, Type::Struct(c)))
                if c.name.starts_with("bpf_iter_") && c.size != 0 && c.size % 8 == 0 =>
            {
                Some((id.0, c.size as usize / 8))
            }
            _ => None,
        };
        let Some((id, slots)) = iter else {
            reject!(self, EINVAL, "expected valid iter pointer as arg #{i}\n");
        };
        if kfunc.flags.contains(KfuncFlags::ITER_NEW) {
            let protected = kfunc.flags.contains(KfuncFlags::RCU_PROTECTED);
            return self.make_iter(n, id, slots, protected);
        }
        let (frame, spi, ref_id) = self.use_iter(n, id, slots, &kfunc.name)?;
        meta.iter = Some((frame, spi));
        meta.ref_obj_id = ref_id;
        if kfunc.flags.contains(KfuncFlags::ITER_DESTROY) {
            self.unmake_iter(frame, spi, slots)?;
        }
        Ok(())
    }

    /// `process_kf_arg_ptr_to_btf_id`
    fn btf_arg(&mut self, kfunc: &Kfunc, i: usize, kind: Ptr, to: TypeId, reg: &Reg) -> R {
        let kernel = self.env.kernel;
        let known = self.reg_btf(reg);
        let unsafe_flags = ty::unsafe_flags(reg.ty) && reg.ty & ty::RCU == 0;
        if (reg.base() != ty::BTF_ID || unsafe_flags) && known.is_none() {
            let is = type_str(reg.ty);
            let want = type_str(reg.ty & (ty::BASE | ty::TRUST_MASK));
            reject!(self, EINVAL, "arg#{i} is {is} expected {want} or socket\n");
        }
        let need = match kind {
            Ptr::Map => kernel.find("bpf_map", Kind::Struct).unwrap_or(to),
            _ => kernel.resolve(to).map_or(to, |(id, _)| id),
        };
        let from = match known {
            Some(id) if reg.base() != ty::BTF_ID => (BTF_KERNEL, id),
            _ => (reg.a, reg.b),
        };
        let Some(btf) = self.btf(from.0) else {
            return self.bug(format_args!("btf"));
        };
        let from_id = btf.resolve(TypeId(from.1)).map_or(from.1, |(id, _)| id.0);
        let need_name = kernel.name_of(need);
        let from_name = btf.name_of(TypeId(from_id));
        let alias = |a: &str, b: &str| a.strip_suffix("___init") == Some(b);
        let strict = kfunc.flags.contains(KfuncFlags::RELEASE) && reg.ref_obj_id != 0
            || alias(from_name, need_name)
            || alias(need_name, from_name);
        let same = self.ids_match((from.0, from_id), reg.off, (BTF_KERNEL, need.0), strict)?;
        if same || is_projection(need_name, from_name) {
            return Ok(());
        }
        let t = |b: &Btf, id: TypeId| kind_str(b.ty(id));
        let (nt, ft) = (t(kernel, need), t(btf, TypeId(from_id)));
        reject!(
            self,
            EINVAL,
            "kernel function {} args#{i} expected pointer to {nt} {need_name} but R{} has a pointer to {ft} {from_name}\n",
            kfunc.name,
            i + 1
        );
    }
}
