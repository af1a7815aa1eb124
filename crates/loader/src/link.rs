//! `bpf_object__relocate`: each entry program gets a copy of every subprogram that it reaches.

use std::collections::HashMap;
use std::sync::Arc;

use bpfsim_btf::{CoreRelo, ExtSection, TypeId};
use bpfsim_isa::{Insn, uapi};

use crate::dwarf;
use crate::error::{LoadError, LoadErrorKind as K};
use crate::exception_cb::Callbacks;
use crate::lines::{LineRecord, Lines};
use crate::object::{
    CoreReloc, ExternKind, FuncInfo, InitSlot, MapKind, Object, Program, Reloc, RelocKind,
    SectionSpec, SlotValue,
};
use crate::open::{Func, Open};
use crate::relocs::{RawKind, Slots};

/// Instructions of all programs together: subprograms are copied, so a small file could ask for many.
const MAX_LINKED_INSNS: usize = 4 << 20;
/// Function, line and CO-RE records of all programs together.
const MAX_LINKED_RECORDS: usize = 2 << 20;

/// A section's records of `.BTF.ext`, by offset.
type Sections<'r, T> = HashMap<usize, Vec<&'r T>>;

/// What all programs are linked from.
struct Linker<'o, 'a> {
    open: &'o Open<'a>,
    funcs: Sections<'o, bpfsim_btf::FuncInfo>,
    lines: LineSource<'o>,
    core: Sections<'o, CoreRelo>,
    callbacks: Callbacks<'o>,
    kconfig_map: Option<usize>,
    /// For each function: the program that it was last put into, and where.
    placed: Vec<(usize, usize)>,
    insns_left: usize,
    records_left: usize,
}

enum LineSource<'o> {
    BtfExt(Sections<'o, bpfsim_btf::LineInfo>),
    Dwarf(dwarf::LineTable),
}

impl<'a> Open<'a> {
    /// Links all entry programs, whether or not they load by default.
    pub(crate) fn link(self, slots: Slots) -> Result<Object, LoadError> {
        let mut programs = Vec::new();
        let mut program_of = HashMap::new();
        let mut budget = self.budget;
        let this = Open {
            budget: crate::open::Budget::none(),
            ..self
        };
        let mut linker = Linker::new(&this)?;
        for (index, func) in this.funcs.iter().enumerate() {
            if !this.is_subprog(func) {
                program_of.insert(index, programs.len());
                programs.push(linker.program(index, programs.len() + 1, &mut budget)?);
            }
        }
        drop(linker);
        let Open {
            options,
            license,
            kern_version,
            skipped,
            btf,
            btf_ext,
            externs,
            mut maps,
            ..
        } = this;
        for (map, key, inner) in slots.maps {
            maps[map].values.push(InitSlot {
                key,
                value: SlotValue::Map(inner),
            });
        }
        for (map, key, func) in slots.progs {
            let value = SlotValue::Program(program_of[&func]);
            maps[map].values.push(InitSlot { key, value });
        }
        for (map, member, func) in slots.members {
            if let (Some(ops), Some(&program)) = (&mut maps[map].struct_ops, program_of.get(&func))
            {
                ops.progs.push((member, program));
            }
        }
        for map in &mut maps {
            // The last relocation of a slot is the one that stays.
            map.values.reverse();
            map.values.sort_by_key(|slot| slot.key);
            map.values.dedup_by_key(|slot| slot.key);
        }
        let name = options.name.chars().take(15).collect();
        Ok(Object {
            name,
            license,
            kern_version,
            programs,
            maps,
            externs,
            btf,
            btf_ext,
            skipped,
        })
    }
}

impl<'o, 'a> Linker<'o, 'a> {
    fn new(open: &'o Open<'a>) -> Result<Linker<'o, 'a>, LoadError> {
        let ext = open.btf_ext.as_deref();
        let has_lines = ext.is_some_and(|ext| !ext.line_info.is_empty());
        let core = ext.map(|ext| ext.core_relos.as_slice()).unwrap_or_default();
        check_core(core)?;
        Ok(Linker {
            open,
            funcs: by_section(
                open,
                ext.map(|e| e.func_info.as_slice()),
                |r| r.insn_off,
                false,
            ),
            lines: match has_lines {
                true => LineSource::BtfExt(by_section(
                    open,
                    ext.map(|e| e.line_info.as_slice()),
                    |r| r.insn_off,
                    false,
                )),
                false => LineSource::Dwarf(dwarf::line_table(&open.elf)),
            },
            core: by_section(open, Some(core), |r| r.insn_off, true),
            callbacks: Callbacks::new(open),
            kconfig_map: open.maps.iter().position(|m| m.kind == MapKind::Kconfig),
            placed: vec![(0, 0); open.funcs.len()],
            insns_left: MAX_LINKED_INSNS,
            records_left: MAX_LINKED_RECORDS,
        })
    }

    /// One entry program; `stamp` is a number of its own, not 0.
    fn program(
        &mut self,
        main: usize,
        stamp: usize,
        budget: &mut crate::open::Budget,
    ) -> Result<Program, LoadError> {
        let func = &self.open.funcs[main];
        let section_name = self.open.elf.name_or_mark(func.section);
        let section = section_name.strip_prefix('?').unwrap_or(section_name);
        let linked = self.link(main, stamp).map_err(|e| e.symbol(func.name));
        let (linked, link_error) = match linked {
            Ok(linked) => (linked, None),
            Err(e) if matches!(e.kind, K::TooLarge { .. }) => return Err(e.section(section_name)),
            Err(e) => (
                Linked::alone(func, main),
                Some(Box::new(e.section(section_name))),
            ),
        };
        let mut funcs = Vec::with_capacity(linked.funcs.len());
        for placed in &linked.funcs {
            let func = &self.open.funcs[placed.func];
            funcs.push(FuncInfo {
                name: budget.name(func.name)?,
                start_insn: placed.start,
                type_id: placed.type_id,
                global: func.global && !func.hidden,
            });
        }
        let exception_cb = linked.exception_cb;
        let exception_cb = exception_cb.and_then(|f| linked.funcs.iter().position(|p| p.func == f));
        let lines = match (&self.lines, &self.open.btf) {
            (LineSource::BtfExt(_), Some(btf)) => Lines::from_btf(Arc::clone(btf), linked.lines),
            (LineSource::BtfExt(_), None) => Lines::default(),
            (LineSource::Dwarf(table), _) => Lines::from_files(table.files(), linked.lines),
        };
        Ok(Program {
            name: budget.name(func.name)?,
            section: budget.name(section)?,
            spec: SectionSpec::of(section),
            autoload: section_name == section,
            link_error,
            insns: linked.insns,
            main_len: func.len(),
            funcs,
            relocs: linked.relocs,
            lines,
            core_relos: linked.core,
            exception_cb,
        })
    }

    /// `bpf_object__relocate_calls`, `bpf_prog_assign_exc_cb` and `bpf_object__relocate_data`.
    fn link(&mut self, main: usize, stamp: usize) -> Result<Linked, LoadError> {
        let mut linked = Linked::default();
        self.place(&mut linked, main, stamp)?;
        self.follow_calls(&mut linked, main, stamp)?;
        linked.exception_cb = self.callbacks.of(self.open, &self.open.funcs[main])?;
        if let Some(callback) = linked.exception_cb
            && self.placed[callback].0 != stamp
        {
            self.place(&mut linked, callback, stamp)?;
            self.follow_calls(&mut linked, callback, stamp)?;
        }
        linked.relocs.sort_by_key(|reloc| reloc.insn);
        Ok(linked)
    }

    /// Appends a function's code and whatever is known of it.
    fn place(&mut self, linked: &mut Linked, index: usize, stamp: usize) -> Result<(), LoadError> {
        let func = &self.open.funcs[index];
        let start = linked.insns.len();
        take(
            &mut self.insns_left,
            func.len(),
            "linked instructions",
            MAX_LINKED_INSNS,
        )?;
        linked
            .insns
            .extend((0..func.len()).filter_map(|i| func.insn(i)));
        self.placed[index] = (stamp, start);
        let is_main = linked.funcs.is_empty();
        let type_id = records(&self.funcs, func, |r| r.insn_off)
            .first()
            .map(|r| r.type_id);
        let wanted = is_main || linked.funcs[0].type_id.is_some();
        if type_id.is_none() && !is_main && wanted {
            return Err(K::MissingInfo("function").err().symbol(func.name));
        }
        let type_id = type_id.filter(|_| wanted);
        linked.funcs.push(Placed {
            func: index,
            start,
            type_id,
        });
        self.add_lines(linked, func, start, is_main)?;
        let core = records(&self.core, func, |r| r.insn_off);
        take(
            &mut self.records_left,
            core.len(),
            "linked records",
            MAX_LINKED_RECORDS,
        )?;
        linked.core.extend(core.iter().map(|&&record| CoreReloc {
            insn: record.insn_off as usize / Insn::SIZE - func.start + start,
            record,
        }));
        Ok(())
    }

    fn add_lines(
        &mut self,
        linked: &mut Linked,
        func: &Func<'_>,
        start: usize,
        is_main: bool,
    ) -> Result<(), LoadError> {
        let before = linked.lines.len();
        if !is_main && before == 0 {
            return Ok(());
        }
        let shift = |insn: usize| (insn - func.start + start) as u32;
        match &self.lines {
            LineSource::BtfExt(sections) => {
                let found = records(sections, func, |r| r.insn_off);
                take(
                    &mut self.records_left,
                    found.len(),
                    "linked records",
                    MAX_LINKED_RECORDS,
                )?;
                linked.lines.extend(found.iter().map(|r| {
                    let record = LineRecord::of(r);
                    let insn = shift(record.insn as usize);
                    LineRecord { insn, ..record }
                }));
                if !is_main && linked.lines.len() == before {
                    return Err(K::MissingInfo("line").err().symbol(func.name));
                }
            }
            LineSource::Dwarf(table) => {
                let found = table.of(func.section, func.start, func.len());
                take(
                    &mut self.records_left,
                    found.len(),
                    "linked records",
                    MAX_LINKED_RECORDS,
                )?;
                linked.lines.extend(found.iter().map(|r| LineRecord {
                    insn: shift(r.insn as usize),
                    ..*r
                }));
            }
        }
        Ok(())
    }

    /// `bpf_object__reloc_code`: depth first, in the order of calls. What libbpf does by recursion is
    /// a stack here, since a file may nest calls as deeply as it likes.
    fn follow_calls(
        &mut self,
        linked: &mut Linked,
        first: usize,
        stamp: usize,
    ) -> Result<(), LoadError> {
        let mut stack = vec![(first, 0usize, 0usize)];
        while let Some((index, next, next_reloc)) = stack.last_mut() {
            let open = self.open;
            let func = &open.funcs[*index];
            let start = self.placed[*index].1;
            let insn = *next;
            if insn >= func.len() {
                stack.pop();
                continue;
            }
            *next += 1;
            while func.relocs.get(*next_reloc).is_some_and(|r| r.insn < insn) {
                *next_reloc += 1;
            }
            let reloc = func
                .relocs
                .get(*next_reloc)
                .filter(|r| r.insn == insn)
                .map(|r| r.kind);
            let slots = &mut linked.insns[start + insn..];
            if let Some(kind) = reloc {
                let kind = self.resolve(slots, kind);
                let at = start + insn;
                linked
                    .relocs
                    .extend(apply(slots, kind).map(|kind| Reloc { insn: at, kind }));
            }
            let Some(target) = target(func, insn, slots[0], reloc)? else {
                continue;
            };
            let callee = usize::try_from(target).ok();
            let callee = callee.and_then(|at| open.func_at(open.text?, at));
            let at = func_offset(func, insn);
            let callee = callee.ok_or_else(|| {
                K::NoSubprog {
                    insn: target as u64,
                }
                .in_section(open.elf.name_or_mark(func.section))
                .at(at)
            })?;
            let is_new = self.placed[callee].0 != stamp;
            if is_new {
                self.place(linked, callee, stamp)?;
                stack.push((callee, 0, 0));
            }
            let to = self.placed[callee].1;
            let from = start + insn;
            linked.insns[from].imm = (to as i64 - from as i64 - 1) as i32;
            let kind = match linked.insns[from].is_ld_imm64() {
                true => RelocKind::Func { insn: to },
                false => RelocKind::Call { insn: to },
            };
            linked.relocs.push(Reloc { insn: from, kind });
        }
        Ok(())
    }
}

impl Linker<'_, '_> {
    /// A `.kconfig` extern is a variable in the map of its section.
    fn resolve(&self, slots: &mut [Insn], kind: RawKind) -> RawKind {
        // What the compiler added to an extern's address is lost, as it is in libbpf.
        if let (RawKind::ExternVar(_), Some(first)) = (kind, slots.first_mut()) {
            first.imm = 0;
        }
        match (kind, self.kconfig_map) {
            (RawKind::ExternVar(ext), Some(map)) => match self.open.externs[ext].kind {
                ExternKind::Kconfig { off, .. } => RawKind::Data(map, off.into()),
                _ => kind,
            },
            _ => kind,
        }
    }
}

fn func_offset(func: &Func<'_>, insn: usize) -> u64 {
    ((func.start + insn) * Insn::SIZE) as u64
}

fn take(left: &mut usize, count: usize, what: &'static str, limit: usize) -> Result<(), LoadError> {
    let limit = limit as u64;
    *left = left
        .checked_sub(count)
        .ok_or(K::TooLarge { what, limit }.err())?;
    Ok(())
}

/// Fills in what an instruction refers to, but for functions.
fn apply(insns: &mut [Insn], kind: RawKind) -> Option<RelocKind> {
    let [first, rest @ ..] = insns else {
        return None;
    };
    match kind {
        RawKind::Map(map) => {
            first.set_src(uapi::BPF_PSEUDO_MAP_FD);
            first.imm = map as i32;
            Some(RelocKind::MapFd { map })
        }
        RawKind::Data(map, offset) => {
            let off = first.imm.wrapping_add(offset as i32);
            rest.first_mut()?.imm = off;
            first.set_src(uapi::BPF_PSEUDO_MAP_VALUE);
            first.imm = map as i32;
            Some(RelocKind::MapValue {
                map,
                off: off as u32,
            })
        }
        RawKind::ExternVar(ext) => Some(RelocKind::ExternVar { ext }),
        RawKind::ExternCall(ext) => {
            first.set_src(uapi::BPF_PSEUDO_KFUNC_CALL);
            first.imm = ext as i32;
            Some(RelocKind::ExternCall { ext })
        }
        RawKind::SubprogAddr(_) => {
            first.set_src(uapi::BPF_PSEUDO_FUNC);
            None
        }
        RawKind::Call(_) => None,
    }
}

/// The instruction of `.text` that an instruction refers to, if it refers to a function.
fn target(
    func: &Func<'_>,
    insn: usize,
    slot: Insn,
    reloc: Option<RawKind>,
) -> Result<Option<i64>, LoadError> {
    let is_call = slot.code == uapi::BPF_JMP | uapi::BPF_CALL
        && slot.src() == uapi::BPF_PSEUDO_CALL
        && slot.dst() == 0
        && slot.off == 0;
    let is_func = slot.is_ld_imm64() && slot.src() == uapi::BPF_PSEUDO_FUNC;
    if !is_call && !is_func {
        return Ok(None);
    }
    let imm = i64::from(slot.imm);
    let here = (func.start + insn) as i64;
    match reloc {
        // A global function's call has imm -1, a static one's its offset from the section's start.
        Some(RawKind::Call(offset)) => Ok(Some((offset / 8) as i64 + imm + 1)),
        Some(RawKind::SubprogAddr(offset)) => Ok(Some((offset as i64).wrapping_add(imm) / 8)),
        Some(RawKind::ExternCall(_)) => Ok(None),
        // Within one section a static call needs no relocation.
        None if is_call => Ok(Some(here + imm + 1)),
        _ => {
            let why = "of a function's address is missing or of the wrong kind";
            Err(K::BadReloc(why.into()).err().at(func_offset(func, insn)))
        }
    }
}

/// A program while it is put together.
#[derive(Default)]
struct Linked {
    insns: Vec<Insn>,
    funcs: Vec<Placed>,
    relocs: Vec<Reloc>,
    lines: Vec<LineRecord>,
    core: Vec<CoreReloc>,
    /// Index of a function.
    exception_cb: Option<usize>,
}

struct Placed {
    /// Index of the function.
    func: usize,
    start: usize,
    type_id: Option<TypeId>,
}

impl Linked {
    /// What is left of a program that could not be linked.
    fn alone(func: &Func<'_>, index: usize) -> Linked {
        Linked {
            insns: (0..func.len()).filter_map(|i| func.insn(i)).collect(),
            funcs: vec![Placed {
                func: index,
                start: 0,
                type_id: None,
            }],
            ..Linked::default()
        }
    }
}

/// Records of `.BTF.ext` by ELF section. For functions and lines libbpf looks at the first list of a
/// section only.
fn by_section<'r, T>(
    open: &Open<'_>,
    sections: Option<&'r [ExtSection<T>]>,
    offset: fn(&T) -> u32,
    all: bool,
) -> Sections<'r, T> {
    let mut map: Sections<'r, T> = HashMap::new();
    for section in sections.unwrap_or_default() {
        let Some(index) = open.elf.find_section(&section.section) else {
            continue;
        };
        let known = map.contains_key(&index);
        if !known || all {
            map.entry(index).or_default().extend(&section.records);
        }
    }
    for records in map.values_mut() {
        records.sort_by_key(|r| offset(r));
    }
    map
}

/// The records of one function.
fn records<'s, 'r, T>(
    sections: &'s Sections<'r, T>,
    func: &Func<'_>,
    offset: fn(&T) -> u32,
) -> &'s [&'r T] {
    let Some(all) = sections.get(&func.section) else {
        return &[];
    };
    let insn = |r: &&T| offset(r) as usize / Insn::SIZE;
    let from = all.partition_point(|r| insn(r) < func.start);
    let to = all.partition_point(|r| insn(r) < func.start + func.len());
    &all[from..to.max(from)]
}

fn check_core(sections: &[ExtSection<CoreRelo>]) -> Result<(), LoadError> {
    for section in sections {
        if section.section.is_empty() {
            return Err(K::BadCore("relocations of a section without a name".into()).err());
        }
        if let Some(record) = section.records.iter().find(|r| r.insn_off % 8 != 0) {
            let e = K::BadCore("a relocation that is not at an instruction".into());
            return Err(e.in_section(&section.section).at(record.insn_off.into()));
        }
    }
    Ok(())
}
