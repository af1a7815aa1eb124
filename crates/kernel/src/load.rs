//! From a [`Prepared`] object to maps and programs: what libbpf asks of `bpf(2)`, and what it does there.

use crate::helper;
use crate::ids::{MapId, ProgId};
use crate::kernel::Kernel;
use crate::kfunc;
use crate::map::{MapBtf, MapSpec};
use crate::pin;
use crate::prepare::{Prepared, Rejection, Standing};
use crate::prog::{ProgCode, ProgMeta, descriptor_of, place_code};
use crate::refs::MapFd;
use crate::since::Newer;
use crate::verify::{is_frozen, map_spec};
use bpfsim_abi::{AttachType, Errno, Func, KernelVersion, MapType};
use bpfsim_btf::TypeId;
use bpfsim_btf::core::{CoreError, POISON_CALL};
use bpfsim_isa::{CallKind, Insn, Op, decode_where, uapi};
use bpfsim_loader::{
    ExternKind, KernStructOps, MapDef, MapKind, Object, Program, Reloc, RelocKind, SlotValue,
};
use bpfsim_verifier::{Explanation, Verified};
use bpfsim_vm::{Image, LowerError};
use std::sync::Arc;

/// What became of an object.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Map of each definition of the object; `None` for those that are not made.
    pub maps: Vec<Option<MapId>>,
    /// Maps that were pinned already and are shared with whoever pinned them, each with the
    /// descriptor that this load opened.
    pub reused: Vec<(MapId, MapFd)>,
    /// Name and identity of each program that was loaded.
    pub programs: Vec<(String, ProgId)>,
}

/// Why an object was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Linux would not make this map either.
    #[error("map `{map}`: {errno:?}")]
    Map {
        /// The map.
        map: String,
        /// What `BPF_MAP_CREATE` answers.
        errno: Errno,
    },
    /// The map that is pinned by this one's name is another kind of map.
    #[error("map `{map}`: couldn't reuse pinned map at '{path}': parameter mismatch: {what}")]
    Pinned {
        /// The map.
        map: String,
        /// Where it is pinned.
        path: String,
        /// What differs: what the object wants, and what is there.
        what: String,
    },
    /// bpfsim cannot do this yet.
    #[error("unsupported: {what}{}", .program.as_ref().map(|(p, i)| format!(" (program `{p}`, insn {i})")).unwrap_or_default())]
    Unsupported {
        /// What it lacks, by name.
        what: String,
        /// The program and instruction that want it.
        program: Option<(String, usize)>,
    },
    /// Something that the object refers to is not there.
    #[error("program `{program}`, insn {insn}: {what}")]
    Unresolved {
        /// The program.
        program: String,
        /// Instruction index.
        insn: usize,
        /// What is missing.
        what: String,
    },
    /// libbpf would not load the object.
    #[error(transparent)]
    Object(#[from] bpfsim_loader::LoadError),
    /// libbpf would not load the program for a CO-RE relocation.
    #[error("program `{program}`: {error}")]
    Core {
        /// The program.
        program: String,
        /// The relocation and what is wrong with it.
        error: CoreError,
    },
    /// What the program attaches to is not there.
    #[error("program `{program}`: {what}")]
    Attach {
        /// The program.
        program: String,
        /// What is missing.
        what: String,
    },
    /// The verifier refuses the program, as Linux would.
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// The verifier cannot say what Linux would say.
    #[error("program `{program}`{}: the verifier cannot judge this yet: {what}", .insn.map(|i| format!(", insn {i}")).unwrap_or_default())]
    Unjudged {
        /// The program.
        program: String,
        /// What it lacks.
        what: String,
        /// The instruction at hand, where there is one.
        insn: Option<usize>,
    },
    /// The kernel that it was to be loaded for does not have all that the program wants.
    #[error("program `{program}`: Linux {kernel} lacks {}", list(.newer))]
    Newer {
        /// The program.
        program: String,
        /// The kernel.
        kernel: KernelVersion,
        /// What came later.
        newer: Vec<Newer>,
    },
    /// The instructions are none.
    #[error("program `{program}`: {error}")]
    Code {
        /// The program.
        program: String,
        /// What is wrong with it.
        error: LowerError,
    },
}

fn list(newer: &[Newer]) -> String {
    let all: Vec<String> = newer.iter().map(Newer::to_string).collect();
    all.join(", ")
}

impl LoadError {
    /// Why the verifier refuses, for people; `None` for other errors.
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            LoadError::Rejected(rejection) => rejection.explanation.as_deref(),
            _ => None,
        }
    }

    /// The errno that libbpf's load gives, where it is known.
    pub fn errno(&self) -> Option<u32> {
        let kernel = |e: Errno| Some(u32::from(e.0));
        match self {
            LoadError::Map { errno, .. } => kernel(*errno),
            LoadError::Object(e) => Some(e.errno() as u32),
            LoadError::Core { .. } | LoadError::Newer { .. } | LoadError::Pinned { .. } => {
                kernel(Errno::EINVAL)
            }
            LoadError::Attach { .. } => kernel(Errno::ESRCH),
            LoadError::Rejected(r) => kernel(r.errno),
            LoadError::Unsupported { .. }
            | LoadError::Unresolved { .. }
            | LoadError::Unjudged { .. }
            | LoadError::Code { .. } => None,
        }
    }
}

impl Kernel {
    /// Loads an object as libbpf does: makes the maps and loads the programs, those with autoload.
    pub fn load(&mut self, prepared: &Prepared) -> Result<Loaded, LoadError> {
        let object = prepared.object();
        self.make_ksyms(object)
            .map_err(|e| LoadError::Unsupported {
                what: format!("kernel variables: {e}"),
                program: None,
            })?;
        let kern_ops = object.kern_struct_ops(&self.layouts.btf)?;
        let mut maps = Vec::with_capacity(object.maps.len());
        let mut reused = Vec::new();
        for (index, def) in object.maps.iter().enumerate() {
            maps.push(
                if let Some(ops) = kern_ops.iter().find(|ops| ops.map == index) {
                    Some(self.create_struct_ops(def, ops)?)
                } else if def.autocreate {
                    Some(self.pinned_or_new(object, def, &mut reused)?)
                } else {
                    None
                },
            );
        }
        let mut programs = Vec::new();
        let mut ids = vec![None; object.programs.len()];
        for (index, program) in object.programs.iter().enumerate() {
            if let Some(standing) = prepared.standing(index) {
                let id = self.load_program(object, program, standing, &maps)?;
                programs.push((program.name.clone(), id));
                ids[index] = Some(id);
            }
        }
        self.fill_struct_ops(&kern_ops, &maps, &ids);
        self.fill_maps(object, &maps, &ids, &reused)?;
        Ok(Loaded {
            maps,
            programs,
            reused,
        })
    }

    /// A struct_ops map, in the kernel's terms.
    fn create_struct_ops(&mut self, def: &MapDef, ops: &KernStructOps) -> Result<MapId, LoadError> {
        let types = MapBtf {
            btf: Arc::clone(&self.layouts.btf),
            key: TypeId::VOID,
            value: ops.value_type,
        };
        let size = ops.value.len() as u32;
        let spec = MapSpec {
            name: def.name.clone(),
            flags: def.map_flags,
            btf: Some(types),
            ..MapSpec::new(MapType::StructOps, def.key_size, size, def.max_entries)
        };
        self.make_map(spec, false).map_err(|errno| LoadError::Map {
            map: def.name.clone(),
            errno,
        })
    }

    /// Puts structs and their programs where attaching takes them from, and notes which member each
    /// program is for.
    fn fill_struct_ops(
        &mut self,
        all: &[KernStructOps],
        maps: &[Option<MapId>],
        programs: &[Option<ProgId>],
    ) {
        for ops in all {
            let Some(map) = maps[ops.map] else { continue };
            let mut progs = Vec::new();
            for member in &ops.progs {
                if let Some(prog) = programs[member.program] {
                    progs.push((member.offset, prog));
                    self.st.progs[prog.at()].struct_ops = Some((ops.type_id, member.member));
                }
            }
            self.struct_ops_fill(map, &ops.value, &progs);
        }
    }

    /// `bpf_object__reuse_map`, or a new map, which is pinned then.
    fn pinned_or_new(
        &mut self,
        object: &Object,
        def: &MapDef,
        reused: &mut Vec<(MapId, MapFd)>,
    ) -> Result<MapId, LoadError> {
        if !def.pin_by_name {
            return self.create_map(object, def);
        }
        let path = pin::path(&def.name);
        let map_type = MapType::from_u32(def.map_type);
        if let (Some(&map), Some(map_type)) = (self.st.pins.get(&path), map_type) {
            let wanted = map_spec(object, def, map_type, self.cpus.len() as u32);
            let differs = pin::mismatch(&wanted, &self.st.maps[map.at()]);
            if let Some(what) = differs {
                let map = def.name.clone();
                return Err(LoadError::Pinned { map, path, what });
            }
            let failed = |errno| LoadError::Map {
                map: def.name.clone(),
                errno,
            };
            reused.push((map, self.st.map_open(map).map_err(failed)?));
            return Ok(map);
        }
        let map = self.create_map(object, def)?;
        self.pin(map, &path).map_err(|errno| LoadError::Map {
            map: def.name.clone(),
            errno,
        })?;
        Ok(map)
    }

    fn create_map(&mut self, object: &Object, def: &MapDef) -> Result<MapId, LoadError> {
        let map_type = MapType::from_u32(def.map_type);
        let Some(map_type) = map_type.filter(|_| def.kind != MapKind::StructOps) else {
            let kind =
                map_type.map_or_else(|| def.map_type.to_string(), |t| t.symbol().to_string());
            let what = format!("map `{}` of type {kind}", def.name);
            return Err(LoadError::Unsupported {
                what,
                program: None,
            });
        };
        // libbpf makes a map like those that this one will hold, for Linux to look at.
        let inner = def
            .inner
            .as_ref()
            .filter(|_| matches!(map_type, MapType::ArrayOfMaps | MapType::HashOfMaps));
        let inner = inner
            .map(|inner| self.create_map(object, inner))
            .transpose()?;
        let spec = MapSpec {
            inner,
            ..map_spec(object, def, map_type, self.cpus.len() as u32)
        };
        let frozen = is_frozen(def);
        let failed = |errno| LoadError::Map {
            map: def.name.clone(),
            errno,
        };
        let id = match self.make_map(spec.clone(), frozen) {
            // As libbpf does, once more without types.
            Err(_) if spec.btf.is_some() => {
                let plain = MapSpec { btf: None, ..spec };
                self.make_map(plain, frozen)
            }
            made => made,
        };
        let id = id.map_err(failed)?;
        if !def.data.is_empty() {
            let map = &mut self.st.maps[id.at()];
            map.write_mapped(&mut self.mem, 0, &def.data)
                .map_err(failed)?;
        }
        Ok(id)
    }

    /// Puts into maps of maps and of programs what the object says lies in them.
    fn fill_maps(
        &mut self,
        object: &Object,
        maps: &[Option<MapId>],
        programs: &[Option<ProgId>],
        reused: &[(MapId, MapFd)],
    ) -> Result<(), LoadError> {
        for (def, map) in object.maps.iter().zip(maps) {
            let Some(map) = *map else { continue };
            // Maps that are shared keep what is in them, but for programs.
            let shared = reused.iter().any(|(m, _)| *m == map);
            if shared && def.map_type != MapType::ProgArray.number() {
                continue;
            }
            for slot in &def.values {
                let number = match slot.value {
                    SlotValue::Map(index) => maps.get(index).copied().flatten().map(|id| id.0),
                    SlotValue::Program(index) => {
                        programs.get(index).copied().flatten().map(descriptor_of)
                    }
                };
                // libbpf passes over what was not loaded.
                let Some(number) = number else { continue };
                let (key, value) = (slot.key.to_le_bytes(), number.to_le_bytes());
                self.map_update(map, &key, &value, 0)
                    .map_err(|errno| LoadError::Map {
                        map: def.name.clone(),
                        errno,
                    })?;
            }
        }
        Ok(())
    }

    fn load_program(
        &mut self,
        object: &Object,
        program: &Program,
        standing: &Standing,
        maps: &[Option<MapId>],
    ) -> Result<ProgId, LoadError> {
        let id = ProgId(self.st.progs.len() as u32);
        let mut insns = program.insns.clone();
        let code_at =
            place_code(&self.st.progs, insns.len()).ok_or_else(|| LoadError::Unsupported {
                what: "as many instructions in one simulation: the programs' code has no room"
                    .into(),
                program: None,
            })?;
        let verified = standing.verified();
        let reached = |insn| verified.is_none_or(|v| v.is_reached(insn));
        for reloc in program.relocs.iter().filter(|r| reached(r.insn)) {
            self.resolve(object, program, code_at, maps, reloc, &mut insns)?;
        }
        self.st.schedules_task_work |= schedules_task_work(object, program);
        let code = |error| LoadError::Code {
            program: program.name.clone(),
            error,
        };
        for (at, op) in decode_where(&insns, reached).map_err(|e| code(e.into()))? {
            if let Op::Call(CallKind::Helper(n)) = op {
                let func = u32::try_from(n).ok().and_then(Func::from_u32);
                // Poisoned by a relocation that found nothing: such code is not meant to run.
                let poisoned = n >= POISON_CALL;
                if !poisoned && !func.is_some_and(helper::runs) {
                    let what = func
                        .map_or_else(|| format!("helper {n}"), |f| format!("helper {}", f.name()));
                    return Err(LoadError::Unsupported {
                        what,
                        program: Some((program.name.clone(), at)),
                    });
                }
            }
        }
        let image = match verified {
            Some(verified) => Image::new(&insns, verified),
            None => Image::unverified(&insns),
        };
        let image = Arc::new(image.map_err(code)?);
        self.st.unverified |= verified.is_none();
        self.code.push(ProgCode {
            image,
            lines: program.lines.clone(),
        });
        self.st.progs.push(ProgMeta {
            name: program.name.as_str().into(),
            prog_type: program.spec.prog_type,
            attach_type: program
                .spec
                .attach_type
                .unwrap_or(AttachType::CgroupInetIngress),
            section: program.section.as_str().into(),
            sleepable: program.spec.sleepable(),
            xdp_frags: program.spec.xdp_frags(),
            max_ctx_offset: verified.map_or(0, |v| v.max_ctx_offset()),
            len: insns.len() as u32,
            code: code_at,
            buffers: verified.map(|v| v.buffers()).unwrap_or_default(),
            enforces_attach_type: verified.is_some_and(|v| v.enforces_attach_type()),
            overrides: calls(&insns, verified, Func::OverrideReturn),
            btf: object.btf.clone(),
            struct_ops: None,
            arena: used_maps(program, maps).find(|m| self.st.maps[m.at()].arena().is_some()),
            exception: program
                .exception_cb
                .map(|f| program.funcs[f].start_insn as u32),
            funcs: program
                .funcs
                .iter()
                .map(|f| (f.start_insn as u32, f.name.as_str().into()))
                .collect(),
        });
        self.st.refs.add_prog(used_maps(program, maps));
        for map in used_maps(program, maps) {
            if !self.st.maps[map.at()].holds_programs() || self.st.map_takes(map, id) {
                continue;
            }
            let name = &self.st.maps[map.at()].spec.name;
            return Err(LoadError::Rejected(Box::new(Rejection {
                program: program.name.clone(),
                errno: Errno::EINVAL,
                message: format!("map '{name}' belongs to programs of another kind"),
                insn: None,
                log: String::new(),
                explanation: None,
            })));
        }
        Ok(id)
    }

    /// Puts what a relocation names into its instruction.
    fn resolve(
        &self,
        object: &Object,
        program: &Program,
        code_at: u64,
        maps: &[Option<MapId>],
        reloc: &Reloc,
        insns: &mut [Insn],
    ) -> Result<(), LoadError> {
        let unresolved = |what: String| LoadError::Unresolved {
            program: program.name.clone(),
            insn: reloc.insn,
            what,
        };
        let map = |index: usize| {
            let id = maps.get(index).copied().flatten();
            id.map(|id| &self.st.maps[id.at()])
                .ok_or_else(|| unresolved("map that is not made".into()))
        };
        let data = |index: usize, off: u32| {
            let at = map(index)?.data_addr();
            at.map(|at| at + off as u64)
                .ok_or_else(|| unresolved("address in a map without one".into()))
        };
        let value = match reloc.kind {
            RelocKind::Call { .. } => return Ok(()),
            RelocKind::MapFd { map: index } => map(index)?.addr,
            RelocKind::MapValue { map: index, off } => data(index, off)?,
            RelocKind::Func { insn } if insn < program.insns.len() => code_at + insn as u64,
            RelocKind::Func { .. } => return Err(unresolved("function beyond the program".into())),
            RelocKind::ExternVar { ext } => match &object.externs[ext].kind {
                ExternKind::Kconfig { off, .. } => {
                    let index = object
                        .kconfig_map()
                        .ok_or_else(|| unresolved(".kconfig".into()))?;
                    data(index, *off)?
                }
                // One that Linux has not either.
                _ if insns[reloc.insn].src() == 0 && insns[reloc.insn].imm == 0 => 0,
                _ => match self.st.ksym_address(object.externs[ext].essential_name()) {
                    Some(address) => address,
                    None => {
                        let what = format!("kernel variable `{}`", object.externs[ext].name);
                        let program = Some((program.name.clone(), reloc.insn));
                        return Err(LoadError::Unsupported { what, program });
                    }
                },
            },
            RelocKind::ExternCall { ext } => {
                let name = object.externs[ext].essential_name();
                if insns[reloc.insn].src() != uapi::BPF_PSEUDO_KFUNC_CALL {
                    // Linux has none of that name either, and the call was poisoned.
                    return Ok(());
                }
                let Some(index) = kfunc::index(name) else {
                    let what = format!("kfunc {name}");
                    let program = Some((program.name.clone(), reloc.insn));
                    return Err(LoadError::Unsupported { what, program });
                };
                let call = &mut insns[reloc.insn];
                call.set_src(uapi::BPF_PSEUDO_KFUNC_CALL);
                (call.imm, call.off) = (index as i32, 0);
                return Ok(());
            }
        };
        let Some([first, second]) = insns.get_mut(reloc.insn..reloc.insn + 2) else {
            return Err(unresolved("truncated ld_imm64".into()));
        };
        first.set_src(0);
        (first.imm, second.imm) = (value as u32 as i32, (value >> 32) as i32);
        Ok(())
    }
}

/// A program may schedule task work.
fn schedules_task_work(object: &Object, program: &Program) -> bool {
    program.relocs.iter().any(|reloc| match reloc.kind {
        RelocKind::ExternCall { ext } => {
            let name = object.externs[ext].essential_name();
            name.starts_with("bpf_task_work_schedule")
        }
        _ => false,
    })
}

/// Whether some way through a program calls a helper.
fn calls(insns: &[Insn], verified: Option<&Verified>, func: Func) -> bool {
    let reached = |insn| verified.is_none_or(|v| v.is_reached(insn));
    let is = |insn: &Insn| {
        let helper = insn.code == uapi::BPF_JMP | uapi::BPF_CALL && insn.src() == 0;
        helper && insn.imm == func.number() as i32
    };
    let mut all = insns.iter().enumerate();
    all.any(|(at, insn)| is(insn) && reached(at))
}

/// The maps that a program names.
fn used_maps<'a>(
    program: &'a Program,
    maps: &'a [Option<MapId>],
) -> impl Iterator<Item = MapId> + 'a {
    program.relocs.iter().filter_map(|r| match r.kind {
        RelocKind::MapFd { map } | RelocKind::MapValue { map, .. } => *maps.get(map)?,
        _ => None,
    })
}
