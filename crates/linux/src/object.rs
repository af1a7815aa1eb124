//! Whole objects on the running kernel: what libbpf does between `bpf_object__open` and
//! `BPF_PROG_LOAD`, with the loader's own [`Object`].

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Read;
use std::path::Path;

use bpfsim_abi::sections::AttachTarget;
use bpfsim_abi::{Errno, MapType, ProgType};
use bpfsim_btf::{Btf, Kind};
use bpfsim_isa::Insn;
use bpfsim_loader::{
    CoreReport, Extern, ExternKind, ExternValue, Kconfig, LoadError, MapDef, MapKind, Object,
    Program, RelocKind, SlotValue,
};

use crate::{BtfFd, Linux, Loaded, Map, MapSpec, Prog, ProgSpec};

/// `BPF_F_SLEEPABLE`.
const SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_XDP_HAS_FRAGS`.
const XDP_HAS_FRAGS: u32 = 1 << 5;

/// Where an arena lies in user space that the source has nowhere.
const ARENA: u64 = 1 << 44;

/// What a loader has to know of a kernel: its types, its symbols and its configuration.
#[derive(Debug)]
pub struct KernelFacts {
    btf: Btf,
    symbols: HashMap<String, u64>,
    config: String,
    version: u32,
}

/// Why an object is not on Linux.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The machine hides something about its kernel.
    #[error("{path}: {why}")]
    Facts {
        /// Where it should be.
        path: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The loader has it that nothing can be made of the object.
    #[error(transparent)]
    Loader(#[from] LoadError),
    /// A relocation that libbpf would refuse.
    #[error("program {program}: CO-RE: {why}")]
    Core {
        /// Program.
        program: String,
        /// What the relocation met.
        why: String,
    },
    /// The kernel does not make a map.
    #[error("map {name}: {errno}")]
    Map {
        /// Map.
        name: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel does not take a program.
    #[error("program {name}: {errno}\n{log}")]
    Program {
        /// Program.
        name: String,
        /// What the kernel said.
        errno: Errno,
        /// The verifier's log.
        log: String,
    },
    /// The kernel does not run a program.
    #[error("program {name}: BPF_PROG_TEST_RUN: {errno}")]
    Run {
        /// Program.
        name: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// What this loader of tests does not do.
    #[error("{name}: {what} cannot be loaded here")]
    Unsupported {
        /// Program or map.
        name: String,
        /// What it is.
        what: &'static str,
    },
}

/// An object's maps and programs on Linux, for as long as this lives.
#[derive(Debug)]
pub struct LinuxObject {
    maps: Vec<(String, String, Option<Map>)>,
    programs: Vec<(String, Prog)>,
}

impl LinuxObject {
    /// A map by its name, or a data section's map by its section (`.bss`).
    pub fn map(&self, name: &str) -> Option<&Map> {
        let named = |(own, section, _): &&(String, String, _)| own == name || section == name;
        self.maps.iter().find(named)?.2.as_ref()
    }

    /// A map by its name, which is from then on the caller's to close.
    pub fn take_map(&mut self, name: &str) -> Option<Map> {
        let mut maps = self.maps.iter_mut();
        maps.find(|(own, ..)| own == name)?.2.take()
    }

    /// A program by its name.
    pub fn program(&self, name: &str) -> Option<&Prog> {
        let (_, prog) = self.programs.iter().find(|(own, _)| own == name)?;
        Some(prog)
    }
}

impl KernelFacts {
    /// Those of the kernel that runs.
    ///
    /// # Errors
    /// It has no BTF, or one that cannot be read.
    pub fn of_this_machine(linux: &Linux) -> Result<KernelFacts, ObjectError> {
        let path = "/sys/kernel/btf/vmlinux";
        let facts = |why: String| ObjectError::Facts { path, why };
        let bytes = std::fs::read(path).map_err(|e| facts(e.to_string()))?;
        let btf = Btf::parse(&bytes).map_err(|e| facts(e.to_string()))?;
        let kallsyms = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let symbols = kallsyms.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((words.nth(1)?.to_string(), address))
        });
        Ok(KernelFacts {
            btf,
            symbols: symbols.collect(),
            config: config(Path::new("/proc/config.gz")),
            version: version(linux.release()),
        })
    }

    fn extern_value(&self, ext: &Extern) -> Option<ExternValue> {
        let name = ext.essential_name();
        let kind = match ext.kind {
            ExternKind::Kfunc { .. } => Kind::Func,
            ExternKind::Ksym { ty: Some(_) } => Kind::Var,
            ExternKind::Ksym { ty: None } => {
                return self.symbols.get(name).copied().map(ExternValue::Address);
            }
            ExternKind::Kconfig { .. } => return None,
        };
        let id = self.btf.find(name, kind)?;
        Some(ExternValue::Btf { id, btf: 0 })
    }

    /// An object for this kernel.
    fn resolve(&self, object: &Object) -> Result<(Object, CoreReport), LoadError> {
        let mut object = object.clone();
        object.set_kconfig(&Kconfig {
            config: &self.config,
            kernel_version: self.version,
            has_bpf_cookie: true,
            has_syscall_wrapper: true,
        })?;
        let core = object.relocate_core(&self.btf, &[])?;
        object.resolve_externs(|ext| self.extern_value(ext))?;
        Ok((object, core))
    }

    /// The struct in BTF, and the member, that a struct_ops program is for.
    fn struct_ops(&self, object: &Object, program: &Program) -> Option<(u32, u32)> {
        let all = object.kern_struct_ops(&self.btf).ok()?;
        let index = object
            .programs
            .iter()
            .position(|p| p.name == program.name)?;
        all.iter().find_map(|ops| {
            let member = ops.progs.iter().find(|m| m.program == index)?;
            Some((ops.type_id.0, member.member))
        })
    }

    /// Its configuration, as `/boot/config` has it.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// The BTF id that a program of such a section is loaded for.
    fn attach_btf_id(&self, program: &Program) -> Option<u32> {
        match program.attach_target()? {
            AttachTarget::Btf {
                module: None,
                name,
                prefix,
                typedef,
            } => {
                let kind = if typedef { Kind::Typedef } else { Kind::Func };
                Some(self.btf.find(&format!("{prefix}{name}"), kind)?.0)
            }
            _ => None,
        }
    }
}

/// The kernel's configuration; empty where it is not shown.
fn config(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        // Half of a configuration would be a lie.
        if flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .is_err()
        {
            text.clear();
        }
    }
    text
}

/// `KERNEL_VERSION` of a release such as `6.18.44-cloud`.
fn version(release: &str) -> u32 {
    let digits = release.split(|c: char| !c.is_ascii_digit());
    let mut parts = digits.map(|n| n.parse::<u32>().unwrap_or(0).min(255));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, patch) = (next(), next(), next());
    (major << 16) | (minor << 8) | patch
}

impl Linux {
    /// Makes all of an object's maps and loads the programs of these names, or all that libbpf
    /// would load by itself where none is named. Programs in initial slots of maps come along.
    ///
    /// # Errors
    /// The first thing that could not be made.
    pub fn load_object(
        &self,
        facts: &KernelFacts,
        object: &Object,
        programs: &[&str],
    ) -> Result<LinuxObject, ObjectError> {
        let (object, core) = facts.resolve(object)?;
        // A kernel that refuses the BTF may still take what does without.
        let btf = match &object.btf {
            Some(btf) => self.load_btf(&btf.to_bytes()).ok(),
            None => None,
        };
        let maps = self.make_maps(&object, btf.as_ref())?;
        let mut loaded = Vec::new();
        for (index, program) in object.programs.iter().enumerate() {
            let in_slot = (object.maps.iter().flat_map(|map| &map.values))
                .any(|slot| slot.value == SlotValue::Program(index));
            let wanted = match programs {
                [] => program.autoload,
                names => in_slot || names.contains(&program.name.as_str()),
            };
            if !wanted {
                continue;
            }
            if let Some(why) = core.error(index) {
                return Err(ObjectError::Core {
                    program: program.name.clone(),
                    why: why.to_string(),
                });
            }
            let prog = self.load_program(facts, &object, program, btf.as_ref(), &maps)?;
            loaded.push((program.name.clone(), prog));
        }
        fill_slots(&object, &maps, &loaded)?;
        let named = object.maps.into_iter().zip(maps);
        Ok(LinuxObject {
            maps: named
                .map(|(def, map)| (def.name, def.section, map))
                .collect(),
            programs: loaded,
        })
    }

    fn make_maps(
        &self,
        object: &Object,
        btf: Option<&BtfFd>,
    ) -> Result<Vec<Option<Map>>, ObjectError> {
        let mut maps = Vec::new();
        for def in &object.maps {
            if def.kind == MapKind::StructOps {
                // To be made is to be on the way to being attached.
                maps.push(None);
                continue;
            }
            let refused = |errno| ObjectError::Map {
                name: def.name.clone(),
                errno,
            };
            let inner = match &def.inner {
                Some(inner) => Some(self.make_map(inner, None, btf).map_err(refused)?),
                None => None,
            };
            let map = self.make_map(def, inner.as_ref(), btf).map_err(refused)?;
            if def.kind.is_internal() {
                let mut data = def.data.clone();
                data.resize(def.value_size as usize, 0);
                map.update(&[0; 4], &data, 0).map_err(refused)?;
            }
            if matches!(def.kind, MapKind::Rodata | MapKind::Kconfig) {
                map.freeze().map_err(refused)?;
            }
            maps.push(Some(map));
        }
        Ok(maps)
    }

    /// With its types, and without them where the kernel does not take such a map with types.
    fn make_map(
        &self,
        def: &MapDef,
        inner: Option<&Map>,
        btf: Option<&BtfFd>,
    ) -> Result<Map, Errno> {
        let types = (def.key_type, def.value_type);
        let key = types.0.map_or(0, |id| id.0);
        let max_entries = match (MapType::from_u32(def.map_type), def.max_entries) {
            // libbpf gives one entry per CPU where the source names no number.
            (Some(MapType::PerfEventArray), 0) => self.possible_cpus() as u32,
            (_, n) => n,
        };
        let spec = MapSpec {
            map_type: def.map_type,
            key_size: def.key_size,
            value_size: def.value_size,
            max_entries,
            map_flags: def.map_flags,
            map_extra: match (MapType::from_u32(def.map_type), def.map_extra) {
                // libbpf maps it, and so says where it lies.
                (Some(MapType::Arena), 0) => ARENA,
                (_, n) => n,
            },
            numa_node: def.numa_node,
            inner,
            name: &def.kernel_name(),
            btf: match (btf, types.1) {
                (Some(btf), Some(value)) => Some((btf.fd(), key, value.0)),
                _ => None,
            },
        };
        match self.create_map(&spec) {
            Err(_) if spec.btf.is_some() => self.create_map(&MapSpec { btf: None, ..spec }),
            result => result,
        }
    }

    /// What the verifier says of one program of an object, with a log of this level. It is gone at
    /// once if it loads.
    ///
    /// # Errors
    /// It does not come to the verifier.
    pub fn judge_object(
        &self,
        facts: &KernelFacts,
        object: &Object,
        name: &str,
        log_level: u32,
    ) -> Result<Loaded, ObjectError> {
        let (object, core) = facts.resolve(object)?;
        let unsupported = |what| ObjectError::Unsupported {
            name: name.to_owned(),
            what,
        };
        let index = object.programs.iter().position(|p| p.name == name);
        let index = index.ok_or_else(|| unsupported("no such program"))?;
        if core.error(index).is_some() {
            return Err(unsupported("a program with a failed relocation"));
        }
        let btf = object.btf.as_ref().map(|b| b.to_bytes());
        let fd = btf.as_ref().and_then(|b| self.load_btf(b).ok());
        let maps = self.make_maps(&object, fd.as_ref())?;
        let program = &object.programs[index];
        let lines = btf.map_or_else(Vec::new, |b| line_info(&b, program));
        self.with_spec(facts, &object, program, fd.as_ref(), &maps, |spec| {
            self.load(&ProgSpec {
                log_level,
                line_info: if spec.btf.is_some() { &lines } else { &[] },
                ..spec.clone()
            })
        })
    }

    fn load_program(
        &self,
        facts: &KernelFacts,
        object: &Object,
        program: &Program,
        btf: Option<&BtfFd>,
        maps: &[Option<Map>],
    ) -> Result<Prog, ObjectError> {
        self.with_spec(facts, object, program, btf, maps, |spec| {
            self.load(spec).result.or_else(|_| {
                // Once more, for the log.
                let again = self.load(&spec.clone().log());
                let refused = |errno| ObjectError::Program {
                    name: program.name.clone(),
                    errno,
                    log: again.log,
                };
                again.result.map_err(refused)
            })
        })?
    }

    /// A program as it is loaded.
    fn with_spec<T>(
        &self,
        facts: &KernelFacts,
        object: &Object,
        program: &Program,
        btf: Option<&BtfFd>,
        maps: &[Option<Map>],
        load: impl FnOnce(&ProgSpec<'_>) -> T,
    ) -> Result<T, ObjectError> {
        if let Some(error) = &program.link_error {
            return Err(LoadError::clone(error).into());
        }
        let unsupported = |what| ObjectError::Unsupported {
            name: program.name.clone(),
            what,
        };
        let insns = patched(object, program, maps)
            .ok_or_else(|| unsupported("a program that uses a map of struct_ops"))?;
        let no_target = || unsupported("a program without a target in BTF");
        let (attach_btf_id, struct_ops_member) = if program.spec.prog_type == ProgType::StructOps {
            let (id, member) = facts.struct_ops(object, program).ok_or_else(no_target)?;
            (id, Some(member))
        } else if program.spec.attach_btf() {
            (facts.attach_btf_id(program).ok_or_else(no_target)?, None)
        } else {
            (0, None)
        };
        let funcs: Option<Vec<(u32, u32)>> = (program.funcs.iter())
            .map(|f| Some((f.start_insn as u32, f.type_id?.0)))
            .collect();
        let license = CString::new(object.license.as_str()).unwrap_or_default();
        let mut prog_flags = 0;
        for (flag, on) in [
            (SLEEPABLE, program.spec.sleepable()),
            (XDP_HAS_FRAGS, program.spec.xdp_frags()),
        ] {
            prog_flags |= if on { flag } else { 0 };
        }
        Ok(load(&ProgSpec {
            license: &license,
            name: &program.name,
            prog_flags,
            expected_attach_type: program.spec.attach_type,
            struct_ops_member,
            attach_btf_id,
            btf: match (btf, &funcs) {
                (Some(btf), Some(funcs)) => Some((btf.fd(), funcs)),
                _ => None,
            },
            ..ProgSpec::new(program.spec.prog_type, &insns)
        }))
    }
}

/// C lines as the kernel takes them: their texts by where they are in the BTF's strings.
fn line_info(btf: &[u8], program: &Program) -> Vec<[u32; 4]> {
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes) as usize
    };
    // `hdr_len`, `str_off` and `str_len` of `struct btf_header`.
    let start = word(4) + word(16);
    let strings = btf.get(start..start + word(20)).unwrap_or_default();
    let mut at = 0;
    let mut places: HashMap<&[u8], u32> = HashMap::new();
    for string in strings.split(|b| *b == 0) {
        places.entry(string).or_insert(at);
        at += string.len() as u32 + 1;
    }
    let place = |text: &str| places.get(text.as_bytes()).copied();
    let lines = program
        .lines
        .iter()
        .filter_map(|l| Some([l.insn as u32, place(l.file)?, place(l.text)?, l.line << 10]));
    lines.collect()
}

/// The instructions with maps' descriptors in them.
fn patched(object: &Object, program: &Program, maps: &[Option<Map>]) -> Option<Vec<Insn>> {
    let mut insns = program.insns.clone();
    for reloc in &program.relocs {
        let (map, off) = match reloc.kind {
            RelocKind::MapFd { map } => (map, 0),
            RelocKind::MapValue { map, off } => (map, off),
            RelocKind::ExternVar { ext } => match object.externs.get(ext)?.kind {
                ExternKind::Kconfig { off, .. } => (object.kconfig_map()?, off),
                _ => continue,
            },
            RelocKind::Func { .. } | RelocKind::Call { .. } | RelocKind::ExternCall { .. } => {
                continue;
            }
        };
        let fd = maps.get(map)?.as_ref()?.fd();
        insns.get_mut(reloc.insn)?.imm = fd;
        insns.get_mut(reloc.insn + 1)?.imm = off as i32;
    }
    Some(insns)
}

/// Initial slots of arrays of programs and of maps.
fn fill_slots(
    object: &Object,
    maps: &[Option<Map>],
    programs: &[(String, Prog)],
) -> Result<(), ObjectError> {
    for (def, map) in object.maps.iter().zip(maps) {
        let Some(map) = map else { continue };
        for slot in &def.values {
            let fd = match slot.value {
                SlotValue::Map(inner) => maps[inner].as_ref().map(Map::fd),
                SlotValue::Program(index) => {
                    let name = &object.programs[index].name;
                    programs
                        .iter()
                        .find(|(own, _)| own == name)
                        .map(|(_, prog)| prog.fd())
                }
            };
            // A program that was not asked for leaves its slot empty.
            let Some(fd) = fd else { continue };
            map.update(&slot.key.to_le_bytes(), &fd.to_le_bytes(), 0)
                .map_err(|errno| ObjectError::Map {
                    name: def.name.clone(),
                    errno,
                })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_kernels_numbers() {
        assert_eq!(version("6.18.44-fc"), 0x06122c);
        assert_eq!(version("5.15"), 0x050f00);
        assert_eq!(version("4.19.300"), 0x0413ff);
        assert_eq!(version(""), 0);
    }
}
