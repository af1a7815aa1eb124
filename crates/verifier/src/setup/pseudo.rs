//! What wide loads name: maps, their values, variables and functions of the kernel (`resolve_pseudo_ldimm64`).

use bpfsim_abi::{Errno, MapType};
use bpfsim_btf::{Kind, Type, TypeId};
use bpfsim_isa::{Refusal, decode, uapi::*};

use crate::refusal::{refusal, reject};
use crate::reg::{BTF_KERNEL, ty};
use crate::verifier::{R, Verifier};

impl Verifier<'_> {
    /// `resolve_pseudo_ldimm64`
    pub(super) fn check_pseudo_loads(&mut self) -> R {
        let mut used = Vec::new();
        let mut i = 0;
        while i < self.insns.len() {
            if let Err(e) = decode(&self.insns, i)
                && matches!(
                    e.refusal,
                    Refusal::UnknownOpcode(_)
                        | Refusal::Ldx
                        | Refusal::LdImm64Second
                        | Refusal::LdImm64Kind
                )
            {
                return Err(self.refuse_form(e.refusal));
            }
            let insn = self.insns[i];
            if !insn.is_ld_imm64() {
                i += 1;
                continue;
            }
            match insn.src() {
                0 => {}
                BPF_PSEUDO_BTF_ID => self.check_pseudo_var(i)?,
                BPF_PSEUDO_FUNC => self.aux[i].ptr_type = ty::FUNC,
                _ => self.check_pseudo_map(i, &mut used)?,
            }
            i += 2;
        }
        Ok(())
    }

    fn check_pseudo_map(&mut self, i: usize, used: &mut Vec<usize>) -> R {
        let (insn, second) = (self.insns[i], self.insns[i + 1]);
        let by_index = matches!(insn.src(), BPF_PSEUDO_MAP_IDX | BPF_PSEUDO_MAP_IDX_VALUE);
        let map = usize::try_from(insn.imm).ok();
        let Some(map) = map.filter(|m| by_index && *m < self.maps.len()) else {
            // Loaders have the first three open, and they are no maps.
            let errno = match insn.imm {
                0..3 => Errno::EINVAL,
                _ => Errno::EBADF,
            };
            let fd = insn.imm;
            let refused = refusal!(self, EBADF, "fd {fd} is not pointing to valid bpf_map\n");
            return Err(refused.with(errno));
        };
        if !used.contains(&map) {
            if used.len() >= 64 {
                reject!(
                    self,
                    E2BIG,
                    "The total number of maps per program has reached the limit of 64\n"
                );
            }
            self.check_map_prog(map, used)?;
            used.push(map);
        }
        if matches!(insn.src(), BPF_PSEUDO_MAP_FD | BPF_PSEUDO_MAP_IDX) {
            return Ok(());
        }
        let desc = &self.maps[map];
        let off = second.imm as u32;
        if off >= 1 << 29 {
            reject!(
                self,
                EINVAL,
                "direct value offset of {off} is not allowed\n"
            );
        }
        let (size, errno) = match desc.map_type {
            MapType::Array if desc.max_entries != 1 => (0, Errno::ENOTSUPP),
            MapType::Array => (u64::from(desc.value_size), Errno::EINVAL),
            MapType::Arena => (u64::from(desc.max_entries) * 4096, Errno::ERANGE),
            _ => reject!(
                self,
                EINVAL,
                "no direct value access support for this map type\n"
            ),
        };
        if u64::from(off) >= size {
            let refused = refusal!(
                self,
                EINVAL,
                "invalid access to map value pointer, value_size={} off={off}\n",
                desc.value_size
            );
            return Err(refused.with(errno));
        }
        Ok(())
    }

    /// `check_map_prog_compatibility`
    fn check_map_prog(&mut self, map: usize, used: &[usize]) -> R {
        let desc = &self.maps[map];
        let mask = self.map_records[map].as_ref().map_or(0, |r| r.mask);
        for (fields, progs, row) in bpfsim_abi::map::FIELDS_REFUSED {
            if mask & fields.bits() != 0 && progs.contains(self.prog_type) {
                return Err(self.refuse_row(*row));
            }
        }
        if desc.map_type == MapType::StructOps {
            reject!(self, EINVAL, "bpf_struct_ops map cannot be used in prog\n");
        }
        if self.prog.sleepable && !desc.map_type.rule().is_some_and(|r| r.sleepable) {
            reject!(
                self,
                EINVAL,
                "Sleepable programs can only use array, hash, ringbuf and local storage maps\n"
            );
        }
        let storage = matches!(
            desc.map_type,
            MapType::CgroupStorage | MapType::PercpuCgroupStorage
        );
        let same = |m: &&usize| self.maps[**m].map_type == desc.map_type;
        if storage && used.iter().find(same).is_some() {
            reject!(
                self,
                EBUSY,
                "only one cgroup storage of each type is allowed\n"
            );
        }
        if desc.map_type == MapType::Arena {
            if self.arena_map.is_some() {
                reject!(self, EBUSY, "Only one arena per program\n");
            }
            self.arena_map = Some(map);
        }
        Ok(())
    }

    /// `check_pseudo_btf_id`: a variable or function of the kernel.
    fn check_pseudo_var(&mut self, i: usize) -> R {
        let kernel = self.env.kernel;
        let id = self.insns[i].imm as u32;
        if self.insns[i + 1].imm != 0 {
            return self.unsupported("variables of kernel modules");
        }
        let Some(t) = kernel.ty(TypeId(id)) else {
            reject!(
                self,
                ENOENT,
                "ldimm64 insn specifies invalid btf_id {id}.\n"
            );
        };
        let (name, var) = match t {
            Type::Var { name, ty, .. } => (name, Some(ty)),
            Type::Func { name, .. } => (name, None),
            _ => reject!(
                self,
                EINVAL,
                "pseudo btf_id {id} in ldimm64 isn't KIND_VAR or KIND_FUNC\n"
            ),
        };
        let percpu = kernel
            .find(".data..percpu", Kind::Datasec)
            .and_then(|id| kernel.ty(id))
            .is_some_and(|t| match t {
                Type::Datasec(d) => d.vars.iter().any(|v| v.ty.0 == id),
                _ => false,
            });
        if var.is_some() && percpu && !self.env.kallsyms_all {
            reject!(
                self,
                ENOENT,
                "ldimm64 failed to find the address for kernel symbol '{name}'.\n"
            );
        }
        let Some(var) = var else {
            self.aux[i].var = (ty::MEM | ty::RDONLY, 0, 0);
            return Ok(());
        };
        let resolved = kernel.resolve(var);
        self.aux[i].var = match resolved {
            _ if percpu => (ty::BTF_ID | ty::PERCPU, BTF_KERNEL, var.0),
            Ok((_, Type::Struct(_) | Type::Union(_))) => (ty::BTF_ID, BTF_KERNEL, var.0),
            _ => match kernel.size_of(var) {
                Ok(size) => (ty::MEM | ty::RDONLY, size, 0),
                Err(_) => reject!(
                    self,
                    EINVAL,
                    "ldimm64 unable to resolve the size of type '{}': -22\n",
                    kernel.name_of(var)
                ),
            },
        };
        Ok(())
    }
}
