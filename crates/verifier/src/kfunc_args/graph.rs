//! Lists and trees: the root that an operation works on, and the node that it takes.

use super::KMeta;
use super::pointee::OBJ;
use crate::refusal::{also, reject};
use crate::reg::{Reg, ty};
use crate::verifier::{R, Verifier, field};

impl Verifier<'_> {
    /// `__process_kf_arg_ptr_to_graph_root`
    pub(super) fn root_arg(&mut self, i: usize, reg: &Reg, list: bool, meta: &mut KMeta) -> R {
        let n = i + 1;
        if reg.ty != ty::MAP_VALUE && reg.ty != OBJ {
            reject!(
                self,
                EINVAL,
                "arg#{i} expected pointer to map value or allocated object
"
            );
        }
        if reg.ty == OBJ && reg.ref_obj_id == 0 {
            reject!(
                self,
                EINVAL,
                "allocated object must be referenced
"
            );
        }
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

    /// Whether the program holds the node as the function wants it: for itself, or in its tree.
    fn check_owned(&mut self, i: usize, func: &str, reg: &Reg, adds: bool) -> R {
        if adds {
            if reg.ty != OBJ {
                reject!(
                    self,
                    EINVAL,
                    "arg#{i} expected pointer to allocated object
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
            return Ok(());
        }
        if !ty::is_non_own(reg.ty) && reg.ref_obj_id == 0 {
            reject!(
                self,
                EINVAL,
                "{func} can only take non-owning or refcounted bpf_rb_node pointer
"
            );
        }
        if self.in_rbtree_cb() {
            reject!(
                self,
                EINVAL,
                "{func} not allowed in rbtree cb
"
            );
        }
        Ok(())
    }

    /// `__process_kf_arg_ptr_to_graph_node`
    pub(super) fn node_arg(
        &mut self,
        i: usize,
        func: &str,
        reg: &Reg,
        list: bool,
        meta: &mut KMeta,
    ) -> R {
        let n = i + 1;
        self.check_owned(i, func, reg, list || func == "bpf_rbtree_add_impl")?;
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
}
