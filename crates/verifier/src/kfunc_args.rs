//! Arguments of kernel functions (`check_kfunc_args`).

use bpfsim_abi::kfunc::KfuncFlags;
use bpfsim_abi::{AttachType, ProgType};
use bpfsim_btf::{Btf, Kind, Type, TypeId};

use crate::btf_ctx::kind_str;
use crate::func_args::{ctx_names, is_projection};
use crate::helper_args::Meta;
use crate::kfunc::Kfunc;
use crate::log::type_str;
use crate::refusal::{also, quiet, reject};
use crate::reg::{BTF_KERNEL, Reg, ty};
use crate::setup::RField;
use crate::verifier::{R, Verifier, field};

/// What was learnt of a call's arguments (`struct bpf_kfunc_call_arg_meta`).
#[derive(Default)]
pub(crate) struct KMeta {
    pub ref_obj_id: u32,
    pub release: Option<usize>,
    pub rdonly: bool,
    pub ret_id: u32,
    pub r0_size: u64,
    pub subprog: u32,
    pub constant: Option<u64>,
    pub arg: (u32, u32),
    pub owning: bool,
    pub root: Option<RField>,
    pub dynptr: Option<Reg>,
    pub iter: Option<(usize, usize)>,
    pub map: Option<(usize, u32)>,
}

/// What a pointer argument is: `enum kfunc_ptr_arg_type`.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ptr {
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

fn is_scalar(t: Type<'_>) -> bool {
    matches!(t, Type::Int(_) | Type::Enum(_) | Type::Enum64(_))
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
    fn ptr_arg(&mut self, kfunc: &Kfunc, i: usize, to: TypeId, reg: &Reg) -> R<Ptr> {
        let kernel = self.env.kernel;
        let name = kfunc.params[i].1.as_str();
        let pointee = kernel.resolve(to).ok();
        let pname = pointee.map_or("", |(id, _)| kernel.name_of(id));
        if kfunc.name == "bpf_cast_to_kern_ctx" || self.is_ctx_type(kernel, to, self.prog_type) {
            return Ok(Ptr::Ctx);
        }
        let suffix = [
            ("__alloc", Ptr::AllocObj),
            ("__refcounted_kptr", Ptr::Refcounted),
        ];
        if name.ends_with("__nullable") && reg.is_null() {
            return Ok(Ptr::Null);
        }
        if let Some((_, p)) = suffix.iter().find(|(s, _)| name.ends_with(s)) {
            return Ok(*p);
        }
        if pname == "bpf_dynptr" {
            return Ok(Ptr::Dynptr);
        }
        let iter = KfuncFlags::ITER_NEW | KfuncFlags::ITER_NEXT | KfuncFlags::ITER_DESTROY;
        if kfunc.flags.intersects(iter) && i == 0
            || !kfunc.flags.intersects(iter) && name.ends_with("__iter")
        {
            return Ok(Ptr::Iter);
        }
        let known = match pname {
            "bpf_list_head" => Some(Ptr::ListHead),
            "bpf_list_node" => Some(Ptr::ListNode),
            "bpf_rb_root" => Some(Ptr::RbRoot),
            "bpf_rb_node" => Some(Ptr::RbNode),
            _ if name.ends_with("__str") => Some(Ptr::ConstStr),
            _ if name.ends_with("__map") => Some(Ptr::Map),
            "bpf_wq" => Some(Ptr::Workqueue),
            "bpf_task_work" => Some(Ptr::TaskWork),
            _ if name.ends_with("__irq_flag") => Some(Ptr::IrqFlag),
            "bpf_res_spin_lock" => Some(Ptr::ResLock),
            _ => None,
        };
        if let Some(p) = known {
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
    fn reg_btf(&self, reg: &Reg) -> Option<u32> {
        let name = match reg.base() {
            ty::SOCKET => "sock",
            ty::SOCK_COMMON => "sock_common",
            ty::TCP_SOCK => "tcp_sock",
            ty::MAP_PTR => "bpf_map",
            _ => return None,
        };
        Some(self.env.kernel.find(name, Kind::Struct)?.0)
    }

    /// `check_kfunc_args`
    pub(crate) fn check_kfunc_args(&mut self, kfunc: &Kfunc, meta: &mut KMeta) -> R {
        let count = kfunc.params.len();
        if count > 5 {
            reject!(
                self,
                EINVAL,
                "Function {} has {count} > 5 args\n",
                kfunc.name
            );
        }
        let mut i = 0;
        while i < count {
            i += self.check_kfunc_arg(kfunc, i, meta)?;
        }
        if kfunc.flags.contains(KfuncFlags::RELEASE) && meta.release.is_none() {
            reject!(
                self,
                EINVAL,
                "release kernel function {} expects refcounted PTR_TO_BTF_ID\n",
                kfunc.name
            );
        }
        Ok(())
    }

    fn scalar_arg(&mut self, n: usize, name: &str, meta: &mut KMeta) -> R {
        let reg = self.reg(n);
        if !reg.is_scalar() {
            reject!(self, EINVAL, "R{n} is not a scalar\n");
        }
        let mut sized = false;
        if name.ends_with("__k") {
            if !reg.var_off.is_const() {
                reject!(self, EINVAL, "R{n} must be a known constant\n");
            }
            self.mark_precise(n)?;
            meta.constant = Some(reg.var_off.value);
        } else if name == "rdonly_buf_size" {
            meta.rdonly = true;
            sized = true;
        } else if name == "rdwr_buf_size" {
            sized = true;
        }
        if sized {
            if !reg.var_off.is_const() {
                reject!(self, EINVAL, "R{n} is not a const\n");
            }
            meta.r0_size = reg.var_off.value;
            self.mark_precise(n)?;
        }
        Ok(())
    }

    /// One argument; how many it takes.
    fn check_kfunc_arg(&mut self, kfunc: &Kfunc, i: usize, meta: &mut KMeta) -> R<usize> {
        let kernel = self.env.kernel;
        let (param, name) = (&kfunc.params[i].0, kfunc.params[i].1.as_str());
        let n = i + 1;
        let reg = self.reg(n);
        if name.ends_with("__ign") || name.ends_with("__prog") {
            return Ok(1);
        }
        let t = kernel.resolve(*param).map_or(Type::Void, |(_, t)| t);
        if is_scalar(t) {
            self.scalar_arg(n, name, meta)?;
            return Ok(1);
        }
        let Type::Ptr { to } = t else {
            reject!(
                self,
                EINVAL,
                "Unrecognized arg#{i} type {}\n",
                kind_str(Some(t))
            );
        };
        let release = kfunc.flags.contains(KfuncFlags::RELEASE);
        let trusted = kfunc.flags.contains(KfuncFlags::TRUSTED_ARGS) || release;
        let rcu = kfunc.flags.contains(KfuncFlags::RCU);
        if (trusted || rcu)
            && (reg.is_null() || ty::maybe_null(reg.ty))
            && !name.ends_with("__nullable")
        {
            reject!(
                self,
                EACCES,
                "Possibly NULL pointer passed to trusted arg{i}\n"
            );
        }
        if reg.ref_obj_id != 0 {
            if release && meta.ref_obj_id != 0 {
                return self.bug(format_args!(
                    "more than one arg with ref_obj_id R{n} {} {}",
                    reg.ref_obj_id, meta.ref_obj_id
                ));
            }
            meta.ref_obj_id = reg.ref_obj_id;
            if release {
                meta.release = Some(n);
            }
        }
        let kind = self.ptr_arg(kfunc, i, to, &reg)?;
        if kind == Ptr::Null {
            return Ok(1);
        }
        if kind == Ptr::Map {
            self.map_arg(n, &reg, meta)?;
        }
        if matches!(kind, Ptr::Map | Ptr::AllocObj | Ptr::BtfId)
            && (trusted || rcu)
            && !Self::is_trusted(&reg)
        {
            if !rcu {
                reject!(self, EINVAL, "R{n} must be referenced or trusted\n");
            }
            if reg.ty & ty::RCU == 0 {
                reject!(self, EINVAL, "R{n} must be a rcu pointer\n");
            }
        }
        self.check_arg_off(&reg, n, release && reg.ref_obj_id != 0, false)?;
        self.check_ptr_arg(kfunc, i, kind, to, &reg, meta)
    }

    fn map_arg(&mut self, n: usize, reg: &Reg, meta: &mut KMeta) -> R {
        if reg.base() == ty::BTF_ID {
            return Ok(());
        }
        let map = reg
            .map()
            .filter(|m| ty::is_map_ptr(reg.ty) && *m < self.maps.len());
        let Some(map) = map else {
            reject!(self, EINVAL, "pointer in R{n} isn't map pointer\n");
        };
        // Linux compares only where the map has such a field, and reads beyond what the map has where it
        // has no field at all. Here another map is always refused: SEMANTICS.md 5.5.
        let record = self.map_records[map].clone();
        let has = |bit| record.as_ref().is_some_and(|r| r.has(bit));
        let work = has(field::TASK_WORK) || n == 3 && !has(field::WORKQUEUE);
        if let Some((first, uid)) = meta.map
            && (first != map || uid != reg.b)
        {
            match work {
                true => reject!(
                    self,
                    EINVAL,
                    "bpf_task_work pointer in R2 map_uid={uid} doesn't match map pointer in R3 map_uid={}\n",
                    reg.b
                ),
                false => reject!(
                    self,
                    EINVAL,
                    "workqueue pointer in R1 map_uid={uid} doesn't match map pointer in R2 map_uid={}\n",
                    reg.b
                ),
            }
        }
        meta.map = Some((map, reg.b));
        Ok(())
    }

    fn check_ptr_arg(
        &mut self,
        kfunc: &Kfunc,
        i: usize,
        kind: Ptr,
        to: TypeId,
        reg: &Reg,
        meta: &mut KMeta,
    ) -> R<usize> {
        const OBJ: u32 = ty::BTF_ID | ty::ALLOC;
        let n = i + 1;
        let func = kfunc.name.as_str();
        let in_value = reg.ty == ty::MAP_VALUE;
        match kind {
            Ptr::Ctx => {
                if reg.ty != ty::CTX {
                    let t = type_str(reg.ty);
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} expected pointer to ctx, but got {t}\n"
                    );
                }
                if func == "bpf_cast_to_kern_ctx" {
                    let (_, kern) = ctx_names(self.prog_type);
                    let id = self.env.kernel.find(kern, Kind::Struct);
                    let Some(id) = id else {
                        return Err(quiet!(
                            self,
                            EINVAL,
                            "bpf_cast_to_kern_ctx in a program whose context the kernel has no struct for"
                        ));
                    };
                    meta.ret_id = id.0;
                }
            }
            Ptr::AllocObj => {
                let percpu = reg.ty == OBJ | ty::PERCPU;
                if reg.ty != OBJ && !percpu {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} expected pointer to allocated object\n"
                    );
                }
                let want = match percpu {
                    true => "bpf_percpu_obj_drop_impl",
                    false => "bpf_obj_drop_impl",
                };
                if func != want {
                    reject!(self, EINVAL, "arg#{i} expected for {want}()\n");
                }
                if reg.ref_obj_id == 0 {
                    reject!(self, EINVAL, "allocated object must be referenced\n");
                }
                meta.arg = (reg.a, reg.b);
            }
            Ptr::Dynptr => self.dynptr_arg(kfunc, i, reg, meta)?,
            Ptr::Iter => self.iter_arg(kfunc, i, reg, meta)?,
            Ptr::ListHead | Ptr::RbRoot => {
                if !in_value && reg.ty != OBJ {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} expected pointer to map value or allocated object\n"
                    );
                }
                if reg.ty == OBJ && reg.ref_obj_id == 0 {
                    reject!(self, EINVAL, "allocated object must be referenced\n");
                }
                self.root_arg(n, reg, kind == Ptr::ListHead, meta)?;
            }
            Ptr::ListNode | Ptr::RbNode => {
                if kind == Ptr::ListNode || func == "bpf_rbtree_add_impl" {
                    if reg.ty != OBJ {
                        reject!(
                            self,
                            EINVAL,
                            "arg#{i} expected pointer to allocated object\n"
                        );
                    }
                    if reg.ref_obj_id == 0 {
                        reject!(self, EINVAL, "allocated object must be referenced\n");
                    }
                } else {
                    if !ty::is_non_own(reg.ty) && reg.ref_obj_id == 0 {
                        reject!(
                            self,
                            EINVAL,
                            "{func} can only take non-owning or refcounted bpf_rb_node pointer\n"
                        );
                    }
                    if self.in_rbtree_cb() {
                        reject!(self, EINVAL, "{func} not allowed in rbtree cb\n");
                    }
                }
                self.node_arg(n, reg, kind == Ptr::ListNode, meta)?;
            }
            Ptr::Map | Ptr::BtfId => self.btf_arg(kfunc, i, kind, to, reg)?,
            Ptr::Mem => {
                let kernel = self.env.kernel;
                let Ok(size) = kernel.size_of(to) else {
                    let t = kernel.resolve(to).ok();
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} reference type('{} {}') size cannot be determined: -22\n",
                        kind_str(t.map(|t| t.1)),
                        t.map_or("", |t| kernel.name_of(t.0))
                    );
                };
                self.check_mem_reg(n, size)?;
            }
            Ptr::MemSize => {
                let name = kfunc.params[i].1.as_str();
                if !(reg.is_null() && name.ends_with("__opt"))
                    && let Err(e) = self.kfunc_size_reg(n + 1)
                {
                    also!(
                        self,
                        "arg#{i} arg#{} memory, len pair leads to invalid memory access\n",
                        i + 1
                    );
                    return Err(e);
                }
                if kfunc.params[i + 1].1.ends_with("__szk") {
                    let size = self.reg(n + 1);
                    if !size.var_off.is_const() {
                        reject!(self, EINVAL, "R{} must be a known constant\n", n + 1);
                    }
                    meta.constant = Some(size.var_off.value);
                }
                return Ok(2);
            }
            Ptr::Callback => {
                if reg.ty != ty::FUNC {
                    reject!(self, EINVAL, "arg{i} expected pointer to func\n");
                }
                meta.subprog = reg.a;
            }
            Ptr::Refcounted => {
                if !ty::is_alloc_obj(reg.ty) {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} is neither owning or non-owning ref\n"
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
                        "arg#{i} doesn't point to a type with bpf_refcount field\n"
                    );
                }
                meta.arg = (reg.a, reg.b);
            }
            Ptr::ConstStr => {
                if !in_value {
                    reject!(self, EINVAL, "arg#{i} doesn't point to a const string\n");
                }
                self.check_const_str(n)?;
            }
            Ptr::Workqueue | Ptr::TaskWork => {
                if !in_value {
                    reject!(self, EINVAL, "arg#{i} doesn't point to a map value\n");
                }
                match kind {
                    Ptr::Workqueue => self.check_map_field(n, field::WORKQUEUE, "bpf_wq")?,
                    _ => self.check_map_field(n, field::TASK_WORK, "bpf_task_work")?,
                }
                meta.map = reg.map().map(|m| (m, reg.b));
            }
            Ptr::IrqFlag => {
                if reg.ty != ty::STACK {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} doesn't point to an irq flag on stack\n"
                    );
                }
                let save = matches!(func, "bpf_local_irq_save" | "bpf_res_spin_lock_irqsave");
                let class = if func.starts_with("bpf_local") { 1 } else { 2 };
                self.process_irq(n, save, class)?;
            }
            Ptr::ResLock => {
                if !in_value && reg.ty != OBJ {
                    reject!(
                        self,
                        EINVAL,
                        "arg#{i} doesn't point to map value or allocated object\n"
                    );
                }
                let lock = !func.contains("unlock");
                self.process_lock(n, lock, true, func.contains("irq"))?;
            }
            Ptr::Null => {}
        }
        Ok(1)
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

    /// `__process_kf_arg_ptr_to_graph_root`
    fn root_arg(&mut self, n: usize, reg: &Reg, list: bool, meta: &mut KMeta) -> R {
        let (name, bit) = match list {
            true => ("bpf_list_head", field::LIST_HEAD),
            false => ("bpf_rb_root", field::RB_ROOT),
        };
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. {name} has to be at the constant offset\n"
            );
        }
        let record = self.reg_record(reg);
        let off = reg.fixed_off();
        let found = record
            .as_ref()
            .and_then(|r| r.find(off as u32, bit).copied());
        let Some(f) = found else {
            reject!(self, EINVAL, "{name} not found at offset={}\n", off as u32);
        };
        let ptr = if reg.ty == ty::MAP_VALUE {
            reg.a
        } else {
            1 << 31
        };
        let held = self
            .cur
            .find_lock(crate::state::reftype::LOCK_MASK, reg.id, ptr);
        if !held {
            if self.cur.active_locks != 0 {
                also!(
                    self,
                    "held lock and object are not in the same allocation\n"
                );
            }
            let at = record.map_or(-1, |r| r.offset_of(field::SPIN_LOCK));
            reject!(
                self,
                EINVAL,
                "bpf_spin_lock at off={at} must be held for {name}\n"
            );
        }
        meta.root = Some(f);
        Ok(())
    }

    /// `__process_kf_arg_ptr_to_graph_node`
    fn node_arg(&mut self, n: usize, reg: &Reg, list: bool, meta: &mut KMeta) -> R {
        let (head, node, bit) = match list {
            true => ("bpf_list_head", "bpf_list_node", field::LIST_NODE),
            false => ("bpf_rb_root", "bpf_rb_node", field::RB_NODE),
        };
        if !reg.var_off.is_const() {
            reject!(
                self,
                EINVAL,
                "R{n} doesn't have constant offset. {node} has to be at the constant offset\n"
            );
        }
        let off = reg.fixed_off();
        let record = self.reg_record(reg);
        if record
            .and_then(|r| r.find(off as u32, bit).copied())
            .is_none()
        {
            reject!(self, EINVAL, "{node} not found at offset={}\n", off as u32);
        }
        let Some(f) = meta.root else {
            return self.bug(format_args!("graph node without root"));
        };
        let value = self.btf_name(f.target.0, f.target.1).to_owned();
        if (reg.a, reg.b) != f.target {
            let is = self.btf_name(reg.a, reg.b).to_owned();
            reject!(
                self,
                EINVAL,
                "operation on {head} expects arg#1 {node} at offset={} in struct {value}, but arg is at offset={off} in struct {is}\n",
                f.node_offset
            );
        }
        meta.arg = (reg.a, reg.b);
        if off as u32 != f.node_offset {
            reject!(
                self,
                EINVAL,
                "arg#1 offset={off}, but expected {node} at offset={} in struct {value}\n",
                f.node_offset
            );
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

/// Whether a struct is one of numbers alone: what `bpf_percpu_obj_new` takes.
pub(crate) fn is_scalar_struct(btf: &Btf, id: TypeId) -> bool {
    btf.ty(id).is_some_and(|t| scalar_struct(btf, t, 0))
}
