//! Calls of kernel functions (`check_kfunc_call`).

use std::rc::Rc;

use bpfsim_abi::kfunc::{KfuncFlags, get};
use bpfsim_btf::{Type, TypeId};
use bpfsim_isa::Insn;

use crate::log::reject;
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
    /// Why it cannot be judged.
    pub unsupported: Option<&'static str>,
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
                | "bpf_arena_alloc_pages"
                | "bpf_arena_free_pages"
                | "bpf_arena_reserve_pages"
                | "bpf_refcount_acquire_impl"
        ) && name != "bpf_refcount_acquire_impl"
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
        if off != 0 {
            return self.unsupported("kernel functions of modules");
        }
        if self.kfuncs.contains_key(&(imm as u32)) {
            return Ok(());
        }
        if self.kfuncs.len() >= 256 {
            reject!(self, E2BIG, "too many different kernel function calls\n");
        }
        let kernel = self.env.kernel;
        let Some(Type::Func { name, proto, .. }) = kernel.ty(TypeId(imm as u32)) else {
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
            unsupported: None,
        };
        self.kfuncs.insert(imm as u32, Rc::new(kfunc));
        Ok(())
    }

    fn struct_ops_name(&self) -> Option<&str> {
        match self.prog.attach_to {
            crate::AttachTo::StructOps { name, .. } => Some(name),
            _ => None,
        }
    }

    /// `check_kfunc_call`
    pub(crate) fn check_kfunc_call(&mut self, insn: Insn) -> R {
        let name = self.kfunc_name(insn.imm).to_owned();
        self.unsupported(format!("kfunc {name}"))
    }
}
