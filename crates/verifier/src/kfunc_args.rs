//! Arguments of kernel functions (`check_kfunc_args`).

mod graph;
mod kind;
mod pointee;

use bpfsim_abi::kfunc::KfuncFlags;
use bpfsim_btf::{Type, TypeId};
pub(crate) use kind::is_scalar_struct;
use kind::{Ptr, is_scalar};

use crate::btf_ctx::kind_str;
use crate::kfunc::Kfunc;
use crate::record::RField;
use crate::refusal::reject;
use crate::reg::{Reg, ty};
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

impl Verifier<'_> {
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
        self.check_pointer_arg(kfunc, i, to, &reg, meta)
    }

    fn check_pointer_arg(
        &mut self,
        kfunc: &Kfunc,
        i: usize,
        to: TypeId,
        reg: &Reg,
        meta: &mut KMeta,
    ) -> R<usize> {
        let (n, name) = (i + 1, kfunc.params[i].1.as_str());
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
        let kind = self.ptr_arg(kfunc, i, to, reg)?;
        if kind == Ptr::Null {
            return Ok(1);
        }
        if kind == Ptr::Map {
            self.map_arg(n, reg, meta)?;
        }
        if matches!(kind, Ptr::Map | Ptr::AllocObj | Ptr::BtfId)
            && (trusted || rcu)
            && !Self::is_trusted(reg)
        {
            if !rcu {
                reject!(self, EINVAL, "R{n} must be referenced or trusted\n");
            }
            if reg.ty & ty::RCU == 0 {
                reject!(self, EINVAL, "R{n} must be a rcu pointer\n");
            }
        }
        self.check_arg_off(reg, n, release && reg.ref_obj_id != 0, false)?;
        self.check_ptr_arg(kfunc, i, kind, to, reg, meta)
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
}
