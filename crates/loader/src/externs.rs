//! Externs: `.ksyms` variables, kfuncs and `.kconfig` values.

use std::collections::HashMap;
use std::sync::Arc;

use bpfsim_btf::{Btf, Kind, Linkage, Type, TypeId, core};
use bpfsim_isa::{Insn, uapi};

use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::{Extern, ExternKind, KconfigType, Object, RelocKind};
use crate::open::{MAX_EXTERNS, Open};

/// The map that `.kconfig` values lie in, and the `DATASEC` that declares them.
pub(crate) const KCONFIG: &str = ".kconfig";
/// The `DATASEC` that declares kernel symbols.
pub(crate) const KSYMS: &str = ".ksyms";

/// What BTF declares outside of the object: the first `VAR` or `FUNC` of each name, and the
/// `DATASEC` of each.
struct Declared<'b> {
    by_name: HashMap<&'b str, TypeId>,
    section_of: HashMap<TypeId, &'b str>,
}

impl<'b> Declared<'b> {
    fn new(btf: &'b Btf) -> Declared<'b> {
        let mut declared = Declared {
            by_name: HashMap::new(),
            section_of: HashMap::new(),
        };
        for (id, ty) in btf.iter() {
            match ty {
                Type::Var { name, .. } | Type::Func { name, .. } => {
                    declared.by_name.entry(name).or_insert(id);
                }
                Type::Datasec(datasec) => {
                    for var in datasec.vars {
                        declared.section_of.entry(var.ty).or_insert(datasec.name);
                    }
                }
                _ => {}
            }
        }
        declared
    }
}

impl Open<'_> {
    /// `bpf_object__collect_externs`, without its changes to BTF.
    pub(crate) fn collect_externs(&mut self) -> Result<(), LoadError> {
        let externs = self
            .elf
            .symbols()
            .enumerate()
            .filter(|(_, s)| s.is_extern());
        let externs: Vec<_> = externs.collect();
        if externs.is_empty() {
            return Ok(());
        }
        if externs.len() > MAX_EXTERNS {
            let limit = MAX_EXTERNS as u64;
            return Err(K::TooLarge {
                what: "externs",
                limit,
            }
            .err());
        }
        let btf = self.btf.clone();
        let declared = btf.as_deref().map(|btf| (btf, Declared::new(btf)));
        let mut found = Vec::new();
        for (index, symbol) in externs {
            let name = self.elf.symbol_name(&symbol)?;
            if name.is_empty() {
                continue;
            }
            let why = |why: &str| K::BadExtern(why.to_owned()).err().symbol(name);
            let Some((btf, declared)) = &declared else {
                return Err(K::ExternNeedsBtf.err().symbol(name));
            };
            let id = declared.by_name.get(name).copied();
            let id = id.ok_or_else(|| why("BTF does not declare this extern"))?;
            let section = declared.section_of.get(&id).copied();
            let section = section.ok_or_else(|| why("BTF does not say which section it is in"))?;
            let kind = extern_kind(btf, id, section).map_err(|e| e.symbol(name))?;
            let name = self.budget.name(name)?;
            let weak = symbol.bind == crate::elf::STB_WEAK;
            let btf_id = id;
            found.push((
                index,
                Extern {
                    name,
                    kind,
                    weak,
                    btf_id,
                },
            ));
        }
        found.sort_by(|(_, a), (_, b)| sort_key(a).cmp(&sort_key(b)));
        let mut end = 0u32;
        for (position, (symbol, mut ext)) in found.into_iter().enumerate() {
            if let ExternKind::Kconfig {
                size, align, off, ..
            } = &mut ext.kind
            {
                let too_large = || K::BadExtern("the .kconfig section is too large".into()).err();
                *off = end.checked_next_multiple_of(*align).ok_or_else(too_large)?;
                end = off.checked_add(*size).ok_or_else(too_large)?;
            }
            self.extern_of_symbol.insert(symbol, position);
            self.externs.push(ext);
        }
        Ok(())
    }

    /// Bytes of the `.kconfig` map's value.
    pub(crate) fn kconfig_size(&self) -> u32 {
        let end = |ext: &Extern| match ext.kind {
            ExternKind::Kconfig { size, off, .. } => off + size,
            _ => 0,
        };
        self.externs.iter().map(end).max().unwrap_or(0)
    }
}

/// `cmp_externs`: `.kconfig` first, by alignment (large first), size and name; then the others by name.
fn sort_key(ext: &Extern) -> (u8, u32, u32, &str) {
    match ext.kind {
        ExternKind::Kconfig { size, align, .. } => (0, u32::MAX - align, size, &ext.name),
        _ => (1, 0, 0, &ext.name),
    }
}

fn extern_kind(btf: &Btf, id: TypeId, section: &str) -> Result<ExternKind, LoadError> {
    let why = |why: &str| K::BadExtern(why.to_owned()).err();
    let unsupported = |why| K::UnsupportedExtern(why).err();
    let broken = |e: bpfsim_btf::BtfError| K::BadExtern(e.to_string()).err();
    let (ty, is_func) = match btf.ty(id) {
        Some(Type::Var {
            ty,
            linkage: Linkage::Extern,
            ..
        }) => (ty, false),
        Some(Type::Func {
            proto,
            linkage: Linkage::Extern,
            ..
        }) => (proto, true),
        _ => {
            return Err(K::BadType {
                id,
                why: "is not extern, its symbol is",
            }
            .err());
        }
    };
    match (section, is_func) {
        (KCONFIG, true) => Err(unsupported("a function cannot be in .kconfig")),
        (KCONFIG, false) => {
            let size = btf.size_of(ty).map_err(broken)?;
            let align = btf.align_of(ty).map_err(broken)?;
            if size == 0 || align == 0 {
                return Err(why("a .kconfig value without a size"));
            }
            let (ty, signed) = kconfig_type(btf, ty).map_err(broken)?.ok_or_else(|| {
                unsupported(
                    "a .kconfig value must be an integer, bool, libbpf_tristate or char array",
                )
            })?;
            let off = 0;
            Ok(ExternKind::Kconfig {
                ty,
                size,
                align,
                off,
                signed,
            })
        }
        (KSYMS, true) => Ok(ExternKind::Kfunc { proto: ty }),
        (KSYMS, false) => {
            let ty = btf.skip_mods_and_typedefs(ty).map_err(broken)?;
            let ty = (ty != TypeId::VOID).then_some(ty);
            Ok(ExternKind::Ksym { ty })
        }
        _ => Err(unsupported(
            "an extern in a section that is neither .ksyms nor .kconfig",
        )),
    }
}

/// `find_kcfg_type`, and whether it is signed.
fn kconfig_type(
    btf: &Btf,
    id: TypeId,
) -> Result<Option<(KconfigType, bool)>, bpfsim_btf::BtfError> {
    let (_, ty) = btf.resolve(id)?;
    Ok(match ty {
        Type::Int(int) if int.is_bool() => (int.size == 1).then_some((KconfigType::Bool, false)),
        Type::Int(int) => match int.size {
            1 => Some((KconfigType::Char, int.is_signed())),
            2 | 4 | 8 => Some((KconfigType::Int, int.is_signed())),
            _ => None,
        },
        Type::Enum(e) if e.size == 4 && e.name == "libbpf_tristate" => {
            Some((KconfigType::Tristate, false))
        }
        Type::Enum64(e) if e.name == "libbpf_tristate" => Some((KconfigType::Tristate, false)),
        Type::Array(array) if array.nelems != 0 => match btf.resolve(array.elem)? {
            (_, Type::Int(int)) if int.size == 1 && !int.is_bool() => {
                Some((KconfigType::CharArray, false))
            }
            _ => None,
        },
        _ => None,
    })
}

/// What an extern resolves to in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternValue {
    /// The address of a typeless ksym (`/proc/kallsyms`).
    Address(u64),
    /// A variable or function by its id in kernel BTF.
    Btf {
        /// Id in that BTF.
        id: TypeId,
        /// For a variable, the BTF object's descriptor; for a kfunc, its index in `fd_array`; 0 is
        /// the kernel's own.
        btf: u32,
    },
}

/// `POISON_CALL_KFUNC_BASE`: the helper number that a call of a missing weak kfunc gets, plus the
/// extern's index.
pub const POISON_CALL_KFUNC_BASE: i32 = 2_002_000_000;
/// `POISON_LDIMM64_MAP_BASE`: the helper number that a load of a map that is not made gets, plus the
/// map's index.
pub const POISON_LDIMM64_MAP_BASE: i32 = 2_001_000_000;

impl Object {
    /// The kernel's variable or function that an extern stands for
    /// (`bpf_object__resolve_ksym_var_btf_id`, `bpf_object__resolve_ksym_func_btf_id`): of the same
    /// name but for a flavour, and of a compatible type. None for a typeless one.
    ///
    /// # Errors
    /// A variable of another type; a function of another prototype, unless it is weak.
    pub fn find_extern(&self, ext: &Extern, kernel: &Btf) -> Result<Option<TypeId>, LoadError> {
        let Some(local) = self.btf.as_deref() else {
            return Ok(None);
        };
        let (name, kind, ty) = match ext.kind {
            ExternKind::Kfunc { proto } => (ext.essential_name(), Kind::Func, proto),
            ExternKind::Ksym { ty: Some(ty) } => (ext.name.as_str(), Kind::Var, ty),
            _ => return Ok(None),
        };
        let Some(id) = kernel.find(name, kind) else {
            return Ok(None);
        };
        let theirs = kernel.ty(id).and_then(|ty| ty.refers_to());
        let theirs = theirs.and_then(|id| kernel.skip_mods_and_typedefs(id).ok());
        let compatible = theirs.map(|theirs| core::types_are_compat(local, ty, kernel, theirs));
        match compatible {
            Some(Ok(true)) => Ok(Some(id)),
            _ if ext.weak && kind == Kind::Func => Ok(None),
            _ => {
                let why = "the kernel's type of this name is another";
                Err(K::BadExtern(why.to_owned()).err().symbol(&ext.name))
            }
        }
    }

    /// Fills in externs of `.ksyms` in all programs, as `bpf_object__resolve_externs` and
    /// `bpf_object__relocate_data` do: `lookup` is asked once for each. A weak one that nobody has
    /// becomes address 0, or a call of an unknown helper of number [`POISON_CALL_KFUNC_BASE`] + index.
    ///
    /// # Errors
    /// One that is not weak and that `lookup` does not know.
    pub fn resolve_externs(
        &mut self,
        mut lookup: impl FnMut(&Extern) -> Option<ExternValue>,
    ) -> Result<(), LoadError> {
        let mut values = Vec::with_capacity(self.externs.len());
        for ext in &self.externs {
            let what = match ext.kind {
                ExternKind::Kconfig { .. } => {
                    values.push(None);
                    continue;
                }
                ExternKind::Ksym { .. } => "kernel variable",
                ExternKind::Kfunc { .. } => "kernel function",
            };
            let value = lookup(ext);
            if value.is_none() && !ext.weak {
                return Err(K::UnresolvedExtern(what).err().symbol(&ext.name));
            }
            values.push(value);
        }
        for program in &mut self.programs {
            for reloc in &program.relocs {
                let at = &mut program.insns[reloc.insn..];
                match reloc.kind {
                    RelocKind::ExternVar { ext } => set_var(at, values[ext]),
                    RelocKind::ExternCall { ext } => set_call(at, ext, values[ext]),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn set_var(insns: &mut [Insn], value: Option<ExternValue>) {
    let [first, second, ..] = insns else { return };
    let (src, imm, next) = match value {
        Some(ExternValue::Btf { id, btf }) => (uapi::BPF_PSEUDO_BTF_ID, id.0, btf),
        Some(ExternValue::Address(address)) => (0, address as u32, (address >> 32) as u32),
        None => (0, 0, 0),
    };
    first.set_src(src);
    first.imm = imm as i32;
    second.imm = next as i32;
}

fn set_call(insns: &mut [Insn], ext: usize, value: Option<ExternValue>) {
    let Some(call) = insns.first_mut() else {
        return;
    };
    match value {
        Some(ExternValue::Btf { id, btf }) => {
            call.set_src(uapi::BPF_PSEUDO_KFUNC_CALL);
            call.imm = id.0 as i32;
            call.off = btf as i16;
        }
        _ => {
            *call = Insn::new(
                uapi::BPF_JMP | uapi::BPF_CALL,
                0,
                0,
                0,
                POISON_CALL_KFUNC_BASE.wrapping_add(ext as i32),
            )
        }
    }
}

/// What libbpf writes into BTF for externs, so that the kernel takes them: kernel symbols become
/// 4-byte variables of their own, kfuncs of unnamed parameters get names.
pub(crate) fn rewrite_ksyms(
    edit: &mut crate::btf_edit::BtfEdit,
    btf: &Arc<Btf>,
    externs: &HashMap<&str, &Extern>,
) -> Result<(), LoadError> {
    let Some(id) = btf.find(KSYMS, Kind::Datasec) else {
        return Ok(());
    };
    let Some(Type::Datasec(section)) = btf.ty(id) else {
        return Ok(());
    };
    let int = btf.iter().find_map(|(id, ty)| match ty {
        Type::Int(int) if int.bits == 32 => Some(id),
        _ => None,
    });
    let int = int.unwrap_or(TypeId::VOID);
    let has_func = section
        .vars
        .iter()
        .any(|v| matches!(btf.ty(v.ty), Some(Type::Func { .. })));
    let dummy = has_func.then(|| edit.push_global_var("dummy_ksym", int));
    for (index, var) in section.vars.iter().enumerate() {
        let name = btf.name_of(var.ty);
        if !externs.contains_key(name) {
            return Err(K::ExternWithoutSymbol.in_section(KSYMS).symbol(name));
        }
        let mut ty = var.ty;
        match (btf.ty(var.ty), dummy) {
            (Some(Type::Func { proto, .. }), Some(dummy)) => {
                name_params(edit, btf, proto, dummy);
                edit.set_func_linkage(var.ty, 1);
                ty = dummy;
            }
            _ => {
                edit.set_var_linkage(var.ty, 1);
                edit.set_referred(var.ty, int);
            }
        }
        let offset = 4 * index as u32;
        edit.set_var(
            id,
            index,
            bpfsim_btf::VarSecinfo {
                ty,
                offset,
                size: 4,
            },
        );
    }
    edit.set_size(id, 4 * section.vars.len() as u32);
    Ok(())
}

fn name_params(edit: &mut crate::btf_edit::BtfEdit, btf: &Btf, proto: TypeId, dummy: TypeId) {
    let name_off = edit.name_off(dummy);
    let Some(Type::FuncProto(func)) = btf.ty(proto) else {
        return;
    };
    for (index, param) in func.params.iter().enumerate() {
        if param.name.is_empty() && param.ty != TypeId::VOID {
            edit.set_param_name(proto, index, name_off);
        }
    }
}
