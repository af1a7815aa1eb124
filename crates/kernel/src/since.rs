//! What an object wants that a kernel older than the reference does not have.

use crate::verify::{Profile, Resolved};
use bpfsim_abi::features::{self, Feature};
use bpfsim_abi::map::{FIELD_KINDS, MapFlags};
use bpfsim_abi::{AttachType, Func, KernelVersion, MapType, ProgType, helper, kfunc};
use bpfsim_isa::{CallKind, Cpu, Op, decode_where};
use bpfsim_loader::{ExternKind, Object, Program, RelocKind};
use bpfsim_verifier::MapDesc;
use std::fmt;

/// Something that came after the kernel in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    /// What, such as `helper bpf_loop`.
    pub what: String,
    /// The first kernel that has it.
    pub since: KernelVersion,
    /// The first instruction that wants it, where it is one that does.
    pub insn: Option<usize>,
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (since {})", self.what, self.since)
    }
}

/// What was found so far, each thing once.
struct Found {
    kernel: KernelVersion,
    list: Vec<Newer>,
}

impl Found {
    fn add(&mut self, insn: Option<usize>, since: KernelVersion, what: impl FnOnce() -> String) {
        if since <= self.kernel {
            return;
        }
        let what = what();
        if self.list.iter().all(|n| n.what != what) {
            self.list.push(Newer { what, since, insn });
        }
    }

    fn feature(&mut self, insn: Option<usize>, kind: &str, feature: Feature) {
        self.add(insn, feature.since, || format!("{kind} {}", feature.name));
    }
}

/// What of a program, of those instructions of it that are reached, and of the object's maps
/// came after the profile's kernel.
pub(crate) fn newer(
    resolved: &Resolved,
    index: usize,
    profile: &Profile,
    reached: impl Fn(usize) -> bool,
) -> Vec<Newer> {
    let mut found = Found {
        kernel: profile.version,
        list: Vec::new(),
    };
    let object = resolved.object();
    let program = &object.programs[index];
    program_kind(object, index, &mut found);
    let made = |at: usize| object.maps.get(at).is_none_or(|def| def.autocreate);
    let maps = resolved.maps().iter().enumerate();
    maps.filter(|(at, _)| made(*at))
        .for_each(|(_, map)| map_kind(map, &mut found));
    for (at, op) in decode_where(&program.insns, &reached).unwrap_or_default() {
        instruction(program.spec.prog_type, at, op, &mut found);
    }
    if !profile.own_types {
        kfuncs(object, program, reached, &mut found);
    }
    found.list
}

fn program_kind(object: &Object, index: usize, found: &mut Found) {
    let program = &object.programs[index];
    let prog_type = program.spec.prog_type;
    found.add(None, prog_type.since(), || {
        format!("program type {prog_type}")
    });
    let attach_type = program.spec.attach_type;
    // It is the one that struct_ops programs have, and not what they are loaded with.
    let attach_type = attach_type.filter(|a| *a != AttachType::StructOps);
    if let Some(attach_type) = attach_type {
        found.add(None, attach_type.since(), || {
            format!("attach type {attach_type}")
        });
    }
    if program.spec.sleepable() {
        let attach_type = attach_type.unwrap_or(AttachType::CgroupInetIngress);
        let since = features::sleepable_since(prog_type, attach_type);
        found.add(None, since, || format!("sleepable {prog_type} programs"));
    }
    if program.spec.xdp_frags() {
        found.feature(None, "flag", features::XDP_FRAGS);
    }
    if prog_type == ProgType::StructOps {
        let all = object.maps.iter().filter_map(|m| m.struct_ops.as_ref());
        for ops in all.filter(|ops| ops.progs.iter().any(|(_, p)| *p == index)) {
            let known = features::STRUCT_OPS
                .iter()
                .find(|f| f.name == ops.type_name);
            if let Some(feature) = known {
                found.feature(None, "struct_ops", *feature);
            }
        }
    }
}

fn map_kind(map: &MapDesc, found: &mut Found) {
    if map.map_type != MapType::Unspec {
        found.add(None, map.map_type.since(), || {
            format!("map type {}", map.map_type)
        });
    }
    let flags = MapFlags::from_bits_retain(map.flags);
    for (_, feature) in features::MAP_FLAGS
        .iter()
        .filter(|(f, _)| flags.contains(*f))
    {
        found.feature(None, "map flag", *feature);
    }
    for field in &map.fields {
        let kind = FIELD_KINDS
            .iter()
            .find(|k| k.field.bits() == field.kind.bit());
        if let Some(kind) = kind {
            found.add(None, kind.since, || {
                format!("{} in values of maps", kind.name)
            });
        }
    }
}

fn instruction(prog_type: ProgType, at: usize, op: Op, found: &mut Found) {
    let feature = match op {
        Op::Call(CallKind::Helper(n)) => {
            if let Some(func) = u32::try_from(n).ok().and_then(Func::from_u32) {
                let since = helper::since(func, prog_type);
                found.add(Some(at), since, || {
                    let name = func.name();
                    match since > func.since() {
                        true => format!("helper {name} in {prog_type} programs"),
                        false => format!("helper {name}"),
                    }
                });
            }
            return;
        }
        Op::MayGoto { .. } => features::MAY_GOTO,
        Op::AddrSpaceCast { .. } => features::ADDR_SPACE_CAST,
        Op::LoadAcquire { .. } | Op::StoreRelease { .. } => features::ACQUIRE_RELEASE,
        op if op.cpu() == Cpu::V4 => features::CPU_V4,
        _ => return,
    };
    found.feature(Some(at), "instructions:", feature);
}

fn kfuncs(object: &Object, program: &Program, reached: impl Fn(usize) -> bool, found: &mut Found) {
    for reloc in program.relocs.iter().filter(|r| reached(r.insn)) {
        let RelocKind::ExternCall { ext } = reloc.kind else {
            continue;
        };
        let ext = &object.externs[ext];
        if !matches!(ext.kind, ExternKind::Kfunc { .. }) {
            continue;
        }
        let Some(kfunc) = kfunc::get(ext.essential_name()) else {
            continue;
        };
        if ext.weak && !kfunc.exists_in(found.kernel) {
            // The program does without it there.
            continue;
        }
        let prog_type = program.spec.prog_type;
        let since = kfunc.since_for(prog_type).unwrap_or(kfunc.since);
        found.add(Some(reloc.insn), since, || match since > kfunc.since {
            true => format!("kfunc {} in {prog_type} programs", kfunc.name),
            false => format!("kfunc {}", kfunc.name),
        });
    }
}
