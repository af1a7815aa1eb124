//! Subprograms: where each begins, that control stays within it, and what the program's BTF says of it.

use bpfsim_abi::Func;
use bpfsim_btf::{Kind, Type, TypeId};
use bpfsim_isa::uapi::*;

use crate::log::verbose;
use crate::refusal::reject;
use crate::verifier::{MAX_SUBPROGS, R, Subprog, Verifier};

impl Verifier<'_> {
    /// `check_btf_func_early`
    pub(super) fn check_func_order(&mut self) -> R {
        let funcs = self.prog.funcs;
        let mut prev = 0;
        for (i, f) in funcs.iter().enumerate() {
            if i == 0 && f.insn != 0 {
                reject!(
                    self,
                    EINVAL,
                    "nonzero insn_off {} for the first func info record",
                    f.insn
                );
            }
            if i != 0 && f.insn <= prev {
                reject!(
                    self,
                    EINVAL,
                    "same or smaller insn offset ({}) than previous func info record ({prev})",
                    f.insn
                );
            }
            let ty = self.prog.btf.and_then(|b| b.ty(f.type_id));
            if !matches!(ty, Some(Type::Func { .. })) {
                reject!(self, EINVAL, "invalid type id {} in func info", f.type_id.0);
            }
            prev = f.insn;
        }
        Ok(())
    }

    fn add_subprog(&mut self, start: i64) -> R {
        let valid = usize::try_from(start).is_ok_and(|s| s < self.insns.len());
        if !valid {
            reject!(self, EINVAL, "call to invalid destination\n");
        }
        if self.find_subprog(start).is_some() {
            return Ok(());
        }
        if self.subprog_cnt >= MAX_SUBPROGS {
            reject!(self, E2BIG, "too many subprograms\n");
        }
        let start = start as usize;
        let at = self.subprogs.partition_point(|s| s.start < start);
        self.subprogs.insert(
            at,
            Subprog {
                start,
                ..Subprog::default()
            },
        );
        self.subprog_cnt += 1;
        Ok(())
    }

    /// `add_subprog_and_kfunc`
    pub(super) fn add_subprogs(&mut self) -> R {
        self.add_subprog(0)?;
        for i in 0..self.insns.len() {
            let insn = self.insns[i];
            let call = insn.code == BPF_JMP | BPF_CALL;
            let is_func = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
            if is_func || call && insn.src() == BPF_PSEUDO_CALL {
                self.add_subprog(i as i64 + i64::from(insn.imm) + 1)?;
            } else if call && insn.src() == BPF_PSEUDO_KFUNC_CALL {
                self.add_kfunc(insn.imm, insn.off)?;
            }
        }
        if let Some(start) = self.exception_callback()? {
            self.add_subprog(start as i64)?;
            if let Some(i) = self.find_subprog(start as i64).filter(|i| *i != 0) {
                self.exception_cb = i;
                self.subprogs[i].is_exception_cb = true;
                self.subprogs[i].is_cb = true;
                self.subprogs[i].is_async_cb = true;
            }
        }
        self.subprogs.push(Subprog {
            start: self.insns.len(),
            ..Subprog::default()
        });
        if self.log.level2() {
            for i in 0..self.subprog_cnt {
                verbose!(self, "func#{i} @{}\n", self.subprogs[i].start);
            }
        }
        Ok(())
    }

    /// `bpf_find_exception_callback_insn_off`
    fn exception_callback(&mut self) -> R<Option<usize>> {
        let (Some(btf), Some(main)) = (self.prog.btf, self.prog.funcs.first()) else {
            return Ok(None);
        };
        let tags = btf.iter().filter_map(|(_, t)| match t {
            Type::DeclTag {
                name,
                ty,
                component_idx: -1,
                ..
            } if ty == main.type_id => name.strip_prefix("exception_callback:"),
            _ => None,
        });
        let tags: Vec<&str> = tags.collect();
        let name = match tags[..] {
            [] => return Ok(None),
            [name] => name,
            _ => reject!(
                self,
                EEXIST,
                "multiple exception callback tags for main subprog\n"
            ),
        };
        let Some(id) = btf.find(name, Kind::Func) else {
            reject!(
                self,
                ENOENT,
                "exception callback '{name}' could not be found in BTF\n"
            );
        };
        let record = self.prog.funcs.iter().find(|f| f.type_id == id);
        let linkage = match btf.ty(id) {
            Some(Type::Func { linkage, .. }) => linkage == bpfsim_btf::Linkage::Global,
            _ => false,
        };
        if !record.map_or(linkage, |r| r.global) {
            reject!(
                self,
                EINVAL,
                "exception callback '{name}' must have global linkage\n"
            );
        }
        match record {
            None => reject!(
                self,
                EINVAL,
                "exception callback type id not found in func_info\n"
            ),
            Some(r) if r.insn == 0 => reject!(
                self,
                EINVAL,
                "invalid exception callback insn_off in func_info: 0\n"
            ),
            Some(r) => Ok(Some(r.insn)),
        }
    }

    /// `check_subprogs`
    pub(super) fn check_subprogs(&mut self) -> R {
        for s in 0..self.subprog_cnt {
            let (start, end) = (self.subprogs[s].start, self.subprogs[s + 1].start);
            for i in start..end {
                let insn = self.insns[i];
                if insn.code == BPF_JMP | BPF_CALL
                    && insn.src() == 0
                    && insn.imm == Func::TailCall.number() as i32
                {
                    self.subprogs[s].has_tail_call = true;
                }
                let mode = insn.code & 0xe0;
                if insn.class() == BPF_LD && matches!(mode, BPF_ABS | BPF_IND) {
                    self.subprogs[s].has_ld_abs = true;
                }
                let op = insn.code & 0xf0;
                let jumps =
                    matches!(insn.class(), BPF_JMP | BPF_JMP32) && op != BPF_EXIT && op != BPF_CALL;
                if jumps {
                    let to = i as i64 + self.jump_off(i) + 1;
                    if to < start as i64 || to >= end as i64 {
                        reject!(self, EINVAL, "jump out of range from insn {i} to {to}\n");
                    }
                }
                let ends = matches!(insn.code, 0x95 | 0x06 | 0x05);
                if i + 1 == end && !ends {
                    reject!(self, EINVAL, "last insn is not an exit or jmp\n");
                }
            }
        }
        Ok(())
    }

    /// `bpf_jmp_offset`
    pub(crate) fn jump_off(&self, at: usize) -> i64 {
        let insn = self.insns[at];
        match insn.code == BPF_JMP32 | BPF_JA {
            true => insn.imm.into(),
            false => insn.off.into(),
        }
    }

    /// `check_btf_func`, or `check_abnormal_return` where there is none.
    pub(super) fn check_funcs(&mut self) -> R {
        let funcs = self.prog.funcs;
        if funcs.is_empty() {
            for s in &self.subprogs[1..self.subprog_cnt] {
                if s.has_ld_abs {
                    reject!(
                        self,
                        EINVAL,
                        "LD_ABS is not allowed in subprogs without BTF\n"
                    );
                }
                if s.has_tail_call {
                    reject!(
                        self,
                        EINVAL,
                        "tail_call is not allowed in subprogs without BTF\n"
                    );
                }
            }
            return Ok(());
        }
        if funcs.len() != self.subprog_cnt {
            reject!(
                self,
                EINVAL,
                "number of funcs in func_info doesn't match number of subprogs\n"
            );
        }
        for (i, f) in funcs.iter().enumerate() {
            if self.subprogs[i].start != f.insn {
                reject!(
                    self,
                    EINVAL,
                    "func_info BTF section doesn't match subprog layout in BPF program\n"
                );
            }
            self.subprogs[i].global = f.global;
            self.subprogs[i].type_id = f.type_id;
            let scalar = self.returns_scalar(f.type_id);
            if i != 0 && !scalar && self.subprogs[i].has_ld_abs {
                reject!(
                    self,
                    EINVAL,
                    "LD_ABS is only allowed in functions that return 'int'.\n"
                );
            }
            if i != 0 && !scalar && self.subprogs[i].has_tail_call {
                reject!(
                    self,
                    EINVAL,
                    "tail_call is only allowed in functions that return 'int'.\n"
                );
            }
        }
        Ok(())
    }

    fn returns_scalar(&self, func: TypeId) -> bool {
        let Some(btf) = self.prog.btf else {
            return false;
        };
        let Some(Type::Func { proto, .. }) = btf.ty(func) else {
            return false;
        };
        let Some(Type::FuncProto(p)) = btf.ty(proto) else {
            return false;
        };
        match btf.resolve(p.ret) {
            Ok((_, Type::Int(int))) => int.size <= 8,
            Ok((_, Type::Enum(_) | Type::Enum64(_))) => true,
            _ => false,
        }
    }
}
