//! What is looked at before the walk: subprograms, BTF, kernel functions, maps.

use std::rc::Rc;

use bpfsim_abi::{Errno, Func, MapType, ProgType};
use bpfsim_btf::fields::{Field, FieldMask, FieldTarget, parse_fields_in};
use bpfsim_btf::{Kind, Type, TypeId};
use bpfsim_isa::{Refusal, decode, uapi::*};

use crate::log::verbose;
use crate::refusal::{refusal, reject};
use crate::reg::{BTF_KERNEL, BTF_PROG, Reg, ty};
use crate::verifier::{MAX_SUBPROGS, R, Subprog, Verifier, field};

/// A special field with its target resolved (`struct btf_field`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RField {
    pub bit: u32,
    pub name: &'static str,
    pub offset: u32,
    pub size: u32,
    /// What a kptr points to, or what a list or tree holds: BTF and type id.
    pub target: (u32, u32),
    /// Where the node lies in what a list or tree holds.
    pub node_offset: u32,
}

/// Special fields of a value or an object (`struct btf_record`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub mask: u32,
    pub fields: Vec<RField>,
}

impl Record {
    pub fn has(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }
    /// Offset of the one field of this kind, or -1.
    pub fn offset_of(&self, bit: u32) -> i32 {
        let found = self.fields.iter().find(|f| f.bit == bit);
        found.map_or(-1, |f| f.offset as i32)
    }
    /// `btf_record_find`
    pub fn find(&self, offset: u32, bits: u32) -> Option<&RField> {
        self.fields
            .iter()
            .find(|f| f.offset == offset && f.bit & bits != 0)
    }
}

/// What a program attaches to, as far as calls and its context ask.
#[derive(Default)]
pub(crate) struct Attach<'a> {
    /// `attach_func_name`, or the struct_ops structure.
    pub name: Option<&'a str>,
    /// The struct_ops member.
    pub member: Option<&'a str>,
    /// `attach_func_proto`
    pub proto: Option<TypeId>,
    /// `attach_btf_trace`
    pub btf_trace: bool,
    /// Name of the raw tracepoint.
    pub tracepoint: Option<&'a str>,
    /// `ctx_arg_info`: offset, type, type id, whether a reference comes with it, its id.
    pub ctx_args: Vec<CtxArg>,
}

/// `struct bpf_ctx_arg_aux`
#[derive(Clone, Copy)]
pub(crate) struct CtxArg {
    pub offset: u32,
    pub ty: u32,
    pub btf_id: u32,
    pub refcounted: bool,
    pub ref_obj_id: u32,
}

impl Verifier<'_> {
    pub(crate) fn setup(&mut self) -> R {
        for map in 0..self.maps.len() {
            let record = self.record_of(&self.maps[map].fields);
            self.map_records.push(record);
        }
        self.check_func_order()?;
        self.add_subprogs()?;
        self.check_subprogs()?;
        self.check_funcs()?;
        self.check_pseudo_loads()
    }

    /// Resolves what fields lead to: names of the kernel first, as `btf_parse_kptr` does.
    fn record_of(&self, fields: &[Field]) -> Option<Rc<Record>> {
        if fields.is_empty() {
            return None;
        }
        let mut record = Record::default();
        for f in fields {
            let mut node_offset = 0;
            let target = match f.to {
                FieldTarget::None => (0, 0),
                FieldTarget::Graph {
                    value,
                    node_offset: off,
                } => {
                    node_offset = off;
                    (BTF_PROG, value.0)
                }
                FieldTarget::Struct(id) if f.kind.bit() == field::UPTR => (BTF_PROG, id.0),
                FieldTarget::Struct(id) => {
                    let name = self.prog.btf.map_or("", |b| b.name_of(id));
                    let kind = self.prog.btf.and_then(|b| b.ty(id)).map(|t| t.kind());
                    let found = kind.and_then(|k| self.env.kernel.find(name, k));
                    match found {
                        Some(id) => (BTF_KERNEL, id.0),
                        None => (BTF_PROG, id.0),
                    }
                }
            };
            record.mask |= f.kind.bit();
            record.fields.push(RField {
                bit: f.kind.bit(),
                name: f.kind.name(),
                offset: f.offset,
                size: f.size,
                target,
                node_offset,
            });
        }
        Some(Rc::new(record))
    }

    /// `btf_find_struct_meta`: special fields of a struct that programs allocate.
    pub(crate) fn struct_record(&mut self, which: u32, id: u32) -> Option<Rc<Record>> {
        if which != BTF_PROG {
            return None;
        }
        if let Some(known) = self.records.get(&(which, id)) {
            return known.clone();
        }
        let btf = self.prog.btf?;
        let fields = parse_fields_in(btf, TypeId(id), FieldMask::ALLOCATED, Some(self.env.kernel));
        let record = fields.ok().and_then(|f| self.record_of(&f));
        self.records.insert((which, id), record.clone());
        record
    }

    /// `reg_btf_record`
    pub(crate) fn reg_record(&mut self, reg: &Reg) -> Option<Rc<Record>> {
        if reg.ty == ty::MAP_VALUE {
            return self.map_records.get(reg.map()?)?.clone();
        }
        match ty::is_alloc_obj(reg.ty) {
            true => self.struct_record(reg.a, reg.b),
            false => None,
        }
    }

    /// `reg_may_point_to_spin_lock`
    pub(crate) fn has_lock(&mut self, reg: &Reg) -> bool {
        self.reg_record(reg)
            .is_some_and(|r| r.has(field::SPIN_LOCK | field::RES_SPIN_LOCK))
    }

    /// `check_btf_func_early`
    fn check_func_order(&mut self) -> R {
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
    fn add_subprogs(&mut self) -> R {
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
    fn check_subprogs(&mut self) -> R {
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
    fn check_funcs(&mut self) -> R {
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

    /// `resolve_pseudo_ldimm64`
    fn check_pseudo_loads(&mut self) -> R {
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

    /// `check_max_stack_depth`
    pub(crate) fn check_max_stack_depth(&mut self) -> R {
        let tail_calls = self.subprogs[..self.subprog_cnt]
            .iter()
            .any(|s| s.has_tail_call);
        let private = !tail_calls
            && match self.prog_type {
                ProgType::Kprobe
                | ProgType::Tracepoint
                | ProgType::PerfEvent
                | ProgType::RawTracepoint => true,
                // `bpf_prog_check_recur`: all but iterators, and LSM but for cgroups.
                ProgType::Tracing => self.prog.attach_type != bpfsim_abi::AttachType::TraceIter,
                ProgType::Lsm => self.prog.attach_type != bpfsim_abi::AttachType::LsmCgroup,
                _ => false,
            };
        // 0 unknown, 1 none, 2 adaptive
        let mut modes = vec![0u8; self.subprog_cnt];
        for i in (0..self.subprog_cnt).rev() {
            if i == 0 || self.subprogs[i].is_async_cb {
                self.max_stack_depth_of(i, i == 0 && private, &mut modes)?;
            }
        }
        Ok(())
    }

    fn max_stack_depth_of(&mut self, root: usize, private: bool, modes: &mut [u8]) -> R {
        let round = |v: &Self, s: usize| (v.subprogs[s].stack_depth + 15) / 16 * 16;
        let mut idx = root;
        let mut i = self.subprogs[idx].start;
        let mut depth = 0;
        let mut calls: Vec<(usize, usize)> = Vec::new();
        let mut reachable = false;
        if !private {
            modes[idx] = 1;
        }
        'func: loop {
            if idx != 0 && self.subprogs[idx].has_tail_call && depth >= 256 {
                reject!(
                    self,
                    EACCES,
                    "tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large\n"
                );
            }
            let own = round(self, idx);
            if private && modes[idx] == 0 && own >= 64 {
                modes[idx] = 2;
            }
            if modes[idx] == 2 {
                if own > 512 {
                    reject!(
                        self,
                        EACCES,
                        "stack size of subprog {idx} is {own}. Too large\n"
                    );
                }
            } else {
                depth += own;
                if depth > 512 {
                    let n = calls.len() + 1;
                    reject!(
                        self,
                        EACCES,
                        "combined stack size of {n} calls is {depth}. Too large\n"
                    );
                }
            }
            loop {
                while i < self.subprogs[idx + 1].start {
                    let insn = self.insns[i];
                    if self.is_throw(i) {
                        let cb = self.subprogs[idx].is_cb
                            || calls.iter().any(|c| self.subprogs[c.1].is_cb);
                        if cb {
                            reject!(
                                self,
                                EINVAL,
                                "bpf_throw kfunc (insn {i}) cannot be called from callback subprog {idx}\n"
                            );
                        }
                    }
                    let call = insn.code == BPF_JMP | BPF_CALL && insn.src() == BPF_PSEUDO_CALL;
                    let takes = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
                    if !call && !takes {
                        i += 1;
                        continue;
                    }
                    let to = i as i64 + i64::from(insn.imm) + 1;
                    let Some(callee) = self.find_subprog(to) else {
                        return self.bug(format_args!("callee not found at insn {to}"));
                    };
                    if self.subprogs[callee].is_async_cb {
                        if !call {
                            i += 1;
                            continue;
                        }
                        if self.subprogs[callee].is_exception_cb {
                            reject!(self, EINVAL, "insn {i} cannot call exception cb directly");
                        }
                    }
                    calls.push((i + 1, idx));
                    i = to as usize;
                    idx = callee;
                    if !private {
                        modes[idx] = 1;
                    }
                    reachable |= self.subprogs[idx].has_tail_call;
                    if calls.len() >= 8 {
                        let n = calls.len();
                        reject!(self, E2BIG, "the call stack of {n} frames is too deep !\n");
                    }
                    continue 'func;
                }
                if reachable {
                    for c in &calls {
                        if self.subprogs[c.1].is_exception_cb {
                            reject!(self, EINVAL, "cannot tail call within exception cb\n");
                        }
                    }
                }
                if modes[idx] != 2 {
                    depth -= round(self, idx);
                }
                match calls.pop() {
                    None => return Ok(()),
                    Some((ret, caller)) => (i, idx) = (ret, caller),
                }
            }
        }
    }

    /// What `do_misc_fixups` and its like still refuse.
    pub(crate) fn check_after_walk(&mut self) -> R {
        for i in 0..self.insns.len() {
            let insn = self.insns[i];
            if !self.aux[i].seen {
                continue;
            }
            if insn.code == BPF_JMP | BPF_CALL
                && insn.src() == BPF_PSEUDO_KFUNC_CALL
                && insn.imm == 0
            {
                reject!(
                    self,
                    EINVAL,
                    "invalid kernel function call not eliminated in verifier pass\n"
                );
            }
        }
        self.check_func_addresses()
    }

    /// A function whose address is taken, but that no way reaches, is gone before its address is
    /// filled in: the address then is that of what comes to lie there (`jit_subprogs`).
    fn check_func_addresses(&mut self) -> R {
        let subs = &self.subprogs[..self.subprog_cnt];
        let starts = subs.iter().skip(1).map(|s| s.start);
        let starts: Vec<usize> = (starts.filter(|s| self.aux[*s].seen))
            .map(|s| self.without_dead(s))
            .collect();
        // A function for exceptions comes behind all others, where there is none; what was the end is
        // then behind it.
        let throws = (0..self.insns.len()).any(|i| self.aux[i].seen && self.is_throw(i));
        let alone = starts.is_empty() && !(throws && self.exception_cb == 0);
        for i in 0..self.insns.len() {
            let insn = self.insns[i];
            let address = insn.is_ld_imm64() && insn.src() == BPF_PSEUDO_FUNC;
            if alone || !address || !self.aux[i].seen {
                continue;
            }
            let to = (i as i64 + 1 + i64::from(insn.imm)).max(0) as usize;
            let at = self.without_dead(to);
            if !starts.contains(&at) {
                self.rewritten = true;
                return self.bug(format_args!("No program to jit at insn {at} (subprog < 0)"));
            }
        }
        Ok(())
    }

    /// Where an instruction lies once those that no way reaches are removed, run by run.
    fn without_dead(&self, to: usize) -> usize {
        let (mut to, mut i, mut removed) = (to, 0, 0);
        while i < self.insns.len() {
            let dead = self.aux[i..].iter().take_while(|a| !a.seen).count();
            if dead > 0 && to >= i - removed + dead {
                to -= dead;
            }
            removed += dead;
            i += dead.max(1);
        }
        to
    }
}
