//! An object for the verifier: what a kernel adds to it, its maps' descriptors, what its programs
//! attach to. Nothing here makes a map or needs a simulation.

use crate::load::LoadError;
use crate::map::{MapBtf, MapSpec, has_types, value_fields};
use crate::since::{self, Newer};
use bpfsim_abi::sections::{AttachTarget, SecFlags};
use bpfsim_abi::{AttachType, Func, KernelVersion, MapType, ProgType};
use bpfsim_btf::core::POISON_CALL;
use bpfsim_btf::{Btf, BtfError, Kind, Type};
use bpfsim_isa::{Insn, uapi::*};
use bpfsim_loader::{
    CoreReport, Extern, ExternKind, ExternValue, Kconfig, MapDef, MapKind, Object,
    POISON_CALL_KFUNC_BASE, POISON_LDIMM64_MAP_BASE, Program,
};
use bpfsim_verifier::{
    AttachTo, Env, Explanation, FuncInfo, Keep, LineInfo, MapDesc, Observed, Options, Outcome,
    ProgramToVerify, verify_observed,
};
use std::sync::Arc;

/// What `.kconfig` externs of the usual kind ask for, as in Debian's kernels.
const CONFIG: &str = "CONFIG_HZ=250\nCONFIG_SMP=y\nCONFIG_X86=y\nCONFIG_X86_64=y\n\
    CONFIG_BPF=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_BPF_JIT=y\nCONFIG_CGROUPS=y\nCONFIG_CGROUP_BPF=y\n\
    CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_IPV6=y\nCONFIG_DEBUG_INFO_BTF=y\n";

/// The kernel that objects are loaded for.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its release: what came later is refused. The verifier's logic is 6.18's in any case.
    pub version: KernelVersion,
    /// Its types, for CO-RE, kfuncs and BTF pointers.
    pub btf: Arc<Btf>,
    /// Whether these are that release's own types: they then say which kernel functions it has.
    pub own_types: bool,
    /// Possible CPUs.
    pub cpus: u32,
    /// Its configuration, as `.kconfig` externs read it: lines `CONFIG_X=y`.
    pub config: &'static str,
    /// `CONFIG_KALLSYMS_ALL`
    pub kallsyms_all: bool,
    /// Helpers that its configuration or lockdown takes away.
    pub refused_helpers: &'static [Func],
}

impl Profile {
    /// Linux 6.18 on x86-64, with the types that bpfsim has of it.
    ///
    /// # Errors
    /// The types cannot be unpacked.
    pub fn reference() -> Result<Profile, BtfError> {
        Ok(Profile {
            version: KernelVersion::REFERENCE,
            btf: bpfsim_btf::vmlinux()?,
            own_types: true,
            cpus: 2,
            config: CONFIG,
            kallsyms_all: true,
            refused_helpers: &[],
        })
    }
}

/// An object with all that a kernel adds to it: `.kconfig`, CO-RE, externs.
#[derive(Clone, Debug)]
pub struct Resolved {
    object: Object,
    core: CoreReport,
    /// As [`Object::maps`], then the templates of maps within maps.
    maps: Vec<MapDesc>,
}

/// `license_is_gpl_compatible`
const GPL: [&str; 6] = [
    "GPL",
    "GPL v2",
    "GPL and additional rights",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];

impl Resolved {
    /// Resolves what the object asks of a kernel. Call it on an object that nobody resolved yet.
    ///
    /// # Errors
    /// What concerns the whole object; a program's own troubles come when it is looked at.
    pub fn new(mut object: Object, profile: &Profile) -> Result<Resolved, LoadError> {
        object.set_kconfig(&Kconfig {
            config: profile.config,
            kernel_version: profile.version.code(),
            has_bpf_cookie: true,
            has_syscall_wrapper: true,
        })?;
        let core = object.relocate_core(&profile.btf, &[])?;
        object.resolve_externs(|ext| resolve_extern(ext, profile))?;
        let maps = describe_all(&object, profile.cpus);
        Ok(Resolved { object, core, maps })
    }

    /// The object, resolved.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Why libbpf would not even ask the kernel to load this program.
    ///
    /// # Errors
    /// That reason.
    pub fn loadable(&self, program: usize) -> Result<(), LoadError> {
        let name = || self.object.programs[program].name.clone();
        if let Some(error) = self.core.error(program) {
            return Err(LoadError::Core {
                program: name(),
                error: error.clone(),
            });
        }
        match &self.object.programs[program].link_error {
            Some(error) => Err(LoadError::Object((**error).clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn maps(&self) -> &[MapDesc] {
        &self.maps
    }

    /// What a program wants that came after the profile's kernel, as far as `reached` says that
    /// some way through it reaches the instruction.
    pub fn newer(
        &self,
        index: usize,
        profile: &Profile,
        reached: impl Fn(usize) -> bool,
    ) -> Vec<Newer> {
        since::newer(self, index, profile, reached)
    }

    /// What the verifier says of a program, by its index in [`Object::programs`].
    ///
    /// # Errors
    /// What keeps libbpf from asking.
    pub fn judge(
        &self,
        index: usize,
        profile: &Profile,
        options: &Options,
    ) -> Result<Outcome, LoadError> {
        self.with_verifier(index, profile, |prog, env| {
            bpfsim_verifier::verify(prog, env, options)
        })
    }

    /// Why the verifier refuses a program, or cannot judge it; `None` for one that it takes.
    ///
    /// # Errors
    /// What keeps libbpf from asking.
    pub fn explain(
        &self,
        index: usize,
        profile: &Profile,
    ) -> Result<Option<Explanation>, LoadError> {
        let explanation = self.with_verifier(index, profile, |prog, env| {
            bpfsim_verifier::explain(prog, env, &Options::default())
        })?;
        Ok(explanation.map(|mut explanation| {
            let missing = explanation.insn.and_then(|at| self.missing(index, at));
            explanation.found.extend(missing);
            explanation
        }))
    }

    /// What the kernel lacks for an instruction that libbpf therefore made a call of no helper.
    pub fn missing(&self, index: usize, insn: usize) -> Option<String> {
        let program = &self.object.programs[index];
        let slot = program.insns.get(insn)?;
        if slot.code != BPF_JMP | BPF_CALL || slot.src() != 0 {
            return None;
        }
        if slot.imm == POISON_CALL {
            let relo = program.core_relos.iter().find(|r| r.insn == insn)?;
            let btf = self.object.btf.as_deref()?;
            let name = btf.name_of(relo.record.type_id);
            return Some(format!(
                "the kernel's types do not have what is asked of `{name}`"
            ));
        }
        let nth = |base: i32| usize::try_from(slot.imm.checked_sub(base)?).ok();
        if let Some(ext) = nth(POISON_CALL_KFUNC_BASE).and_then(|i| self.object.externs.get(i)) {
            return Some(format!("the kernel has no `{}`", ext.essential_name()));
        }
        let map = nth(POISON_LDIMM64_MAP_BASE).and_then(|i| self.object.maps.get(i))?;
        Some(format!("map `{}` is not made", map.name))
    }

    /// The same, and what the verifier knew at each instruction or where ways meet.
    ///
    /// # Errors
    /// What keeps libbpf from asking.
    pub fn observe(
        &self,
        index: usize,
        profile: &Profile,
        options: &Options,
        keep: Keep,
    ) -> Result<(Outcome, Observed), LoadError> {
        self.with_verifier(index, profile, |prog, env| {
            verify_observed(prog, env, options, keep)
        })
    }

    fn with_verifier<T>(
        &self,
        index: usize,
        profile: &Profile,
        verify: impl FnOnce(&ProgramToVerify<'_>, &Env<'_>) -> T,
    ) -> Result<T, LoadError> {
        self.loadable(index)?;
        let program = &self.object.programs[index];
        let attach_type = program
            .spec
            .attach_type
            .unwrap_or(AttachType::CgroupInetIngress);
        let prog_type = program.spec.prog_type;
        let funcs = func_info(program);
        let lines: Vec<_> = program.lines.iter().collect();
        let lines: Vec<LineInfo<'_>> = lines
            .iter()
            .map(|l| LineInfo {
                insn: l.insn,
                file: l.file,
                text: l.text,
                line: l.line,
                column: l.col,
            })
            .collect();
        let prog = ProgramToVerify {
            insns: &with_map_indices(program),
            prog_type,
            attach_type: bpfsim_abi::prog::fixup_attach_type(prog_type, attach_type),
            attach_to: self.attach_to(index, profile)?,
            funcs: &funcs,
            lines: &lines,
            btf: self.object.btf.as_deref(),
            gpl_compatible: GPL.contains(&self.object.license.as_str()),
            sleepable: program.spec.sleepable(),
        };
        let env = Env {
            kernel: &profile.btf,
            maps: &self.maps,
            cpus: profile.cpus,
            kallsyms_all: profile.kallsyms_all,
            refused_helpers: profile.refused_helpers,
        };
        Ok(verify(&prog, &env))
    }

    fn attach_to(&self, index: usize, profile: &Profile) -> Result<AttachTo<'_>, LoadError> {
        let program = &self.object.programs[index];
        let nothing = |what: String| LoadError::Attach {
            program: program.name.clone(),
            what,
        };
        if program.spec.prog_type == ProgType::StructOps {
            return self.struct_ops(index, profile).map_err(nothing);
        }
        if !program.spec.attach_btf() {
            return Ok(AttachTo::Nothing);
        }
        if program.spec.prog_type == ProgType::Ext {
            return Ok(AttachTo::Program);
        }
        let Some(AttachTarget::Btf {
            name,
            prefix,
            typedef,
            ..
        }) = program.attach_target()
        else {
            return Ok(AttachTo::Nothing);
        };
        let kind = if typedef { Kind::Typedef } else { Kind::Func };
        let name = format!("{prefix}{name}");
        match profile.btf.find(&name, kind) {
            Some(id) => Ok(AttachTo::Kernel(id)),
            None => Err(nothing(format!("the kernel has no `{name}` in its BTF"))),
        }
    }

    /// The member of a struct_ops structure that a program is for: that of the first map with it.
    fn struct_ops(&self, index: usize, profile: &Profile) -> Result<AttachTo<'_>, String> {
        let object = &self.object;
        let mut all = object.maps.iter().filter_map(|m| m.struct_ops.as_ref());
        let found = all.find_map(|ops| {
            let (member, _) = ops.progs.iter().find(|(_, p)| *p == index)?;
            Some((ops, *member))
        });
        let (ops, member) = found.ok_or("no struct_ops map has it")?;
        let name = &ops.type_name;
        let local = object.btf.as_deref().and_then(|b| b.ty(ops.type_id));
        let theirs = profile.btf.find(name, Kind::Struct);
        let theirs = theirs.and_then(|id| profile.btf.ty(id));
        let (Some(Type::Struct(local)), Some(Type::Struct(theirs))) = (local, theirs) else {
            return Err(format!("the kernel has no `struct {name}`"));
        };
        let member = local.members.iter().nth(member).map_or("", |m| m.name);
        match theirs.members.iter().position(|m| m.name == member) {
            Some(at) => Ok(AttachTo::StructOps {
                name,
                member: at as u32,
            }),
            None => Err(format!("`struct {name}` has no member `{member}`")),
        }
    }
}

/// Slots that name maps of the object by their index; a descriptor is one that the source has as a number.
fn with_map_indices(program: &Program) -> Vec<Insn> {
    let mut insns = program.insns.clone();
    for reloc in &program.relocs {
        let Some(insn) = insns.get_mut(reloc.insn).filter(|i| i.is_ld_imm64()) else {
            continue;
        };
        match insn.src() {
            BPF_PSEUDO_MAP_FD => insn.set_src(BPF_PSEUDO_MAP_IDX),
            BPF_PSEUDO_MAP_VALUE => insn.set_src(BPF_PSEUDO_MAP_IDX_VALUE),
            _ => {}
        }
    }
    insns
}

/// `func_info`; none at all unless every function has a record.
fn func_info(program: &Program) -> Vec<FuncInfo> {
    let funcs = program.funcs.iter().map(|f| {
        Some(FuncInfo {
            insn: f.start_insn,
            type_id: f.type_id?,
            global: f.global,
        })
    });
    funcs.collect::<Option<_>>().unwrap_or_default()
}

fn resolve_extern(ext: &Extern, profile: &Profile) -> Option<ExternValue> {
    /// Where the verifier is to think that symbols without a type are.
    const SOME_ADDRESS: u64 = 0x1000;
    let name = ext.essential_name();
    let id = match ext.kind {
        ExternKind::Kfunc { .. } => {
            // One that is asked for in vain is found out by its version later.
            let known = bpfsim_abi::kfunc::get(name).filter(|_| !profile.own_types && ext.weak);
            let there = known.is_none_or(|k| k.exists_in(profile.version));
            profile.btf.find(name, Kind::Func).filter(|_| there)
        }
        ExternKind::Ksym { ty: Some(_) } => profile.btf.find(name, Kind::Var),
        _ => {
            let kinds = [Kind::Func, Kind::Var];
            let known = kinds.iter().any(|k| profile.btf.find(name, *k).is_some());
            return (known || !ext.weak).then_some(ExternValue::Address(SOME_ADDRESS));
        }
    };
    id.map(|id| ExternValue::Btf { id, btf: 0 })
}

/// What `BPF_MAP_CREATE` is given for a map, but for the template of maps within it.
pub(crate) fn map_spec(object: &Object, def: &MapDef, map_type: MapType, cpus: u32) -> MapSpec {
    let btf = match (&object.btf, def.key_type, def.value_type) {
        (Some(btf), key, Some(value)) if has_types(map_type) => Some(MapBtf {
            btf: Arc::clone(btf),
            key: key.unwrap_or_default(),
            value,
        }),
        _ => None,
    };
    MapSpec {
        name: def.name.clone(),
        map_type,
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: max_entries(map_type, def.max_entries, cpus),
        flags: def.map_flags,
        map_extra: def.map_extra,
        numa_node: def.numa_node,
        inner: None,
        btf,
    }
}

/// `max_entries` as libbpf corrects it: ring buffers are powers of two of whole pages, perf
/// event arrays have an entry for each CPU unless said otherwise.
fn max_entries(map_type: MapType, given: u32, cpus: u32) -> u32 {
    match map_type {
        MapType::Ringbuf | MapType::UserRingbuf if given != 0 => {
            given.max(4096).checked_next_power_of_two().unwrap_or(given)
        }
        MapType::PerfEventArray if given == 0 => cpus,
        _ => given,
    }
}

/// True for maps that programs read as constants.
pub(crate) fn is_frozen(def: &MapDef) -> bool {
    matches!(def.kind, MapKind::Rodata | MapKind::Kconfig)
}

fn describe_all(object: &Object, cpus: u32) -> Vec<MapDesc> {
    let mut inners = Vec::new();
    let mut maps: Vec<MapDesc> = Vec::with_capacity(object.maps.len());
    for def in &object.maps {
        let mut map = describe(object, def, cpus);
        if let Some(inner) = &def.inner {
            map.inner = Some(object.maps.len() + inners.len());
            inners.push(describe(object, inner, cpus));
        }
        maps.push(map);
    }
    maps.append(&mut inners);
    maps
}

fn describe(object: &Object, def: &MapDef, cpus: u32) -> MapDesc {
    let map_type = MapType::from_u32(def.map_type).unwrap_or(MapType::Unspec);
    let spec = map_spec(object, def, map_type, cpus);
    // Types that Linux refuses are left out, as libbpf then tries.
    let fields = spec.btf.is_some().then(|| value_fields(&spec).ok());
    let fields = fields.flatten();
    let frozen = is_frozen(def).then(|| {
        let mut data = def.data.clone();
        data.resize(def.value_size as usize, 0);
        Arc::from(data)
    });
    MapDesc {
        name: def.kernel_name(),
        map_type,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        has_btf: fields.is_some(),
        fields: fields.unwrap_or_default(),
        frozen,
        inner: None,
    }
}

/// What veristat does to an object before it loads it: maps without a size get one, and programs
/// of sections that libbpf does not know the type that section or argument suggests.
pub fn veristat_fixup(object: &mut Object) {
    for def in &mut object.maps {
        let storage = matches!(
            MapType::from_u32(def.map_type),
            Some(
                MapType::SkStorage
                    | MapType::InodeStorage
                    | MapType::TaskStorage
                    | MapType::CgrpStorage
                    | MapType::CgroupStorage
                    | MapType::PercpuCgroupStorage
            )
        );
        if def.max_entries == 0 && !storage {
            def.max_entries = 1;
        }
    }
    guess_types(object, ProgType::Unspec);
}

/// The rest of what veristat does: programs that replace others, which are not there, are judged as the
/// type that their argument suggests. An answer of Linux's to compare with, and not to a question that
/// anybody has of their program.
pub fn veristat_freplace(object: &mut Object) {
    guess_types(object, ProgType::Ext);
    for program in &mut object.programs {
        if !program.section.starts_with("freplace") {
            continue;
        }
        program.spec.flags = SecFlags::NONE;
        program.spec.attach_type = match program.spec.prog_type {
            ProgType::CgroupSockAddr => Some(AttachType::CgroupInet4Bind),
            ProgType::Xdp => Some(AttachType::Xdp),
            _ => None,
        };
    }
}

fn guess_types(object: &mut Object, of: ProgType) {
    let guessed = |p: &Program| (p.spec.prog_type == of).then(|| guess(object, p));
    let types: Vec<_> = object.programs.iter().map(guessed).collect();
    for (program, guessed) in object.programs.iter_mut().zip(types) {
        program.spec.prog_type = guessed.unwrap_or(program.spec.prog_type);
    }
}

/// The type that a program without a known section is loaded as.
fn guess(object: &Object, program: &Program) -> ProgType {
    match program.section.as_str() {
        s if s.starts_with("sk_skb") => return ProgType::SkSkb,
        s if s.starts_with("sk_msg") => return ProgType::SkMsg,
        "encap_gre" | "encap_gre6" => return ProgType::LwtXmit,
        "encap_srh" => return ProgType::LwtIn,
        "add_egr_x" | "pop_egr" | "inspect_t" => return ProgType::LwtSeg6local,
        _ => {}
    }
    match first_argument(object, program) {
        Some("__sk_buff") => ProgType::SchedCls,
        Some("xdp_md") => ProgType::Xdp,
        Some("bpf_sock_ops") => ProgType::SockOps,
        Some("sk_msg_md") => ProgType::SkMsg,
        Some("bpf_sock_addr") => ProgType::CgroupSockAddr,
        Some("bpf_raw_tracepoint_args") => ProgType::RawTracepoint,
        Some("pt_regs") => ProgType::Kprobe,
        _ => ProgType::Tracepoint,
    }
}

/// Name of the type that a program's first argument points to.
fn first_argument<'a>(object: &'a Object, program: &Program) -> Option<&'a str> {
    let btf = object.btf.as_deref()?;
    let Type::Func { proto, .. } = btf.ty(program.funcs.first()?.type_id?)? else {
        return None;
    };
    let Type::FuncProto(proto) = btf.ty(proto)? else {
        return None;
    };
    let Type::Ptr { to } = btf.resolve(proto.params.iter().next()?.ty).ok()?.1 else {
        return None;
    };
    Some(btf.name_of(btf.resolve(to).ok()?.0))
}
