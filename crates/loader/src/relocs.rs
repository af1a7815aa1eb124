//! `bpf_object__collect_relos`: what instructions, initial slots and function pointers refer to.

use std::collections::HashMap;

use bpfsim_abi::MapType;
use bpfsim_isa::{Insn, uapi};

use crate::elf::{self, Rel, Symbol};
use crate::error::{LoadError, LoadErrorKind as K};
use crate::map_def::is_map_in_map;
use crate::maps::MapVar;
use crate::open::{Open, Role};
use crate::struct_ops::StructOpsIndex;

/// A relocation of a function, before functions are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawReloc {
    /// Instruction within the function.
    pub(crate) insn: usize,
    pub(crate) kind: RawKind,
}

/// `enum reloc_type`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RawKind {
    Map(usize),
    /// A variable: of a map, and the symbol's offset in its section.
    Data(usize, u64),
    /// A call; the symbol's offset in `.text`.
    Call(u64),
    /// An `ld_imm64` of a function; the symbol's offset in `.text`.
    SubprogAddr(u64),
    ExternVar(usize),
    ExternCall(usize),
}

/// Initial slots and function pointers, by index of map and function.
#[derive(Default)]
pub(crate) struct Slots {
    /// (map, key, map)
    pub(crate) maps: Vec<(usize, u32, usize)>,
    /// (map, key, function)
    pub(crate) progs: Vec<(usize, u32, usize)>,
    /// (map, member, function)
    pub(crate) members: Vec<(usize, usize, usize)>,
}

/// What initial slots may name.
struct Names<'a> {
    maps: HashMap<String, usize>,
    /// Entry programs.
    progs: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    /// Only an object that has initial slots needs them.
    fn new(open: &Open<'a>) -> Names<'a> {
        let mut names = Names {
            maps: HashMap::new(),
            progs: HashMap::new(),
        };
        if open.elf.find_section(".rel.maps").is_some() {
            for (index, map) in open.maps.iter().enumerate() {
                names.maps.entry(map.name.clone()).or_insert(index);
            }
            for (index, func) in open.funcs.iter().enumerate() {
                if !open.is_subprog(func) {
                    names.progs.entry(func.name).or_insert(index);
                }
            }
        }
        names
    }
}

fn bad(why: impl Into<String>) -> LoadError {
    K::BadReloc(why.into()).err()
}

fn unsupported(why: impl Into<String>) -> LoadError {
    K::UnsupportedReloc(why.into()).err()
}

fn is_call(insn: Insn) -> bool {
    insn.code == uapi::BPF_JMP | uapi::BPF_CALL
}

impl Open<'_> {
    pub(crate) fn collect_relocs(&mut self, vars: &[MapVar]) -> Result<Slots, LoadError> {
        let mut slots = Slots::default();
        let mut by_place = HashMap::new();
        for (map, place) in self.map_places.iter().enumerate() {
            by_place.entry(*place).or_insert(map);
        }
        let mut struct_ops = StructOpsIndex::new(self);
        let names = Names::new(self);
        for index in 1..self.roles.len() {
            if self.roles[index] != Role::Relocs {
                continue;
            }
            let rels = self.elf.rels(index)?;
            let section = self.elf.section(index)?;
            self.budget.relocs(section.size)?;
            let target = section.info;
            let name = self.elf.name_or_mark(target);
            match self.roles[target] {
                Role::StructOps => {
                    slots
                        .members
                        .extend(self.struct_ops_relocs(target, rels, &mut struct_ops)?)
                }
                Role::Maps => self
                    .map_relocs(rels, vars, &names, &mut slots)
                    .map_err(|e| e.section(name))?,
                _ => self
                    .code_relocs(target, rels, &by_place)
                    .map_err(|e| e.section(name))?,
            }
        }
        for func in &mut self.funcs {
            func.relocs.sort_by_key(|reloc| reloc.insn);
        }
        Ok(slots)
    }

    /// `bpf_object__collect_prog_relos`.
    fn code_relocs(
        &mut self,
        section: usize,
        rels: impl Iterator<Item = Rel>,
        by_place: &HashMap<(usize, u64), usize>,
    ) -> Result<(), LoadError> {
        let size = self.elf.data(section)?.len() as u64;
        for rel in rels {
            let at = |e: LoadError| e.at(rel.offset);
            let symbol = self.symbol_of(rel).map_err(at)?;
            if rel.offset % 8 != 0 || rel.offset >= size {
                return Err(at(K::Malformed(
                    "a relocation is not at an instruction of its section",
                )
                .err()));
            }
            let insn = (rel.offset / 8) as usize;
            // What belongs to no function is left over from a weak one that another replaced.
            let Some(func) = self.func_at(section, insn) else {
                continue;
            };
            let local = insn - self.funcs[func].start;
            let kind = self.code_reloc(func, local, rel, &symbol, by_place);
            let kind = kind.map_err(|e| at(e).symbol(self.elf.describe(&symbol)))?;
            self.funcs[func].relocs.push(RawReloc { insn: local, kind });
        }
        Ok(())
    }

    fn symbol_of(&self, rel: Rel) -> Result<Symbol, LoadError> {
        let symbol = self.elf.symbol(rel.symbol);
        let symbol = symbol.ok_or(K::Malformed("a relocation's symbol does not exist").err())?;
        match symbol.section < self.elf.section_count() {
            true => Ok(symbol),
            false => Err(K::Malformed("a relocation's symbol lies in no section").err()),
        }
    }

    /// `bpf_program__record_reloc`.
    fn code_reloc(
        &self,
        func: usize,
        local: usize,
        rel: Rel,
        symbol: &Symbol,
        by_place: &HashMap<(usize, u64), usize>,
    ) -> Result<RawKind, LoadError> {
        let func = &self.funcs[func];
        let insn = func
            .insn(local)
            .ok_or_else(|| bad("not at an instruction"))?;
        if !is_call(insn) && !insn.is_ld_imm64() {
            let code = insn.code;
            return Err(unsupported(format!(
                "of an instruction of code {code:#04x}, neither call nor ld_imm64"
            )));
        }
        if insn.is_ld_imm64() && local + 1 >= func.len() {
            return Err(bad("of an ld_imm64 that is cut off"));
        }
        if symbol.is_extern() {
            let ext = self.extern_of_symbol.get(&rel.symbol).copied();
            let ext = ext.ok_or_else(|| bad("against an extern without a name"))?;
            return Ok(match is_call(insn) {
                true => RawKind::ExternCall(ext),
                false => RawKind::ExternVar(ext),
            });
        }
        if is_call(insn) {
            return self.call_reloc(insn, symbol);
        }
        if symbol.section == 0 {
            return Err(unsupported("against a symbol of no section"));
        }
        if self.is_subprog_symbol(symbol) {
            return match symbol.value.is_multiple_of(8) && insn.imm % 8 == 0 {
                true => Ok(RawKind::SubprogAddr(symbol.value)),
                false => Err(bad("against a function, but not at an instruction")),
            };
        }
        self.data_reloc(symbol, by_place)
    }

    fn call_reloc(&self, insn: Insn, symbol: &Symbol) -> Result<RawKind, LoadError> {
        if insn.src() != uapi::BPF_PSEUDO_CALL {
            return Err(bad("of a call that is not of a BPF function"));
        }
        if symbol.section == 0 || Some(symbol.section) != self.text {
            let section = self.elf.name_or_mark(symbol.section);
            return Err(unsupported(format!(
                "of a call into section '{section}'; subprograms lie in .text"
            )));
        }
        match symbol.value % 8 {
            0 => Ok(RawKind::Call(symbol.value)),
            _ => Err(bad("against a function, but not at an instruction")),
        }
    }

    /// `sym_is_subprog`.
    fn is_subprog_symbol(&self, symbol: &Symbol) -> bool {
        let local = symbol.bind == elf::STB_LOCAL && symbol.kind == elf::STT_SECTION;
        let global = symbol.is_global() && symbol.kind == elf::STT_FUNC;
        Some(symbol.section) == self.text && (local || global)
    }

    fn data_reloc(
        &self,
        symbol: &Symbol,
        by_place: &HashMap<(usize, u64), usize>,
    ) -> Result<RawKind, LoadError> {
        let section = symbol.section;
        if Some(section) == self.arena_section {
            let arena = self
                .arena
                .ok_or_else(|| bad("against an arena variable without an arena"))?;
            return Ok(RawKind::Data(arena, symbol.value));
        }
        let name = self.elf.name_or_mark(section);
        match self.roles[section] {
            Role::Maps => match by_place.get(&(section, symbol.value)) {
                Some(&map) => Ok(RawKind::Map(map)),
                None => Err(bad(format!(
                    "no map lies at {:#x} of '{name}'",
                    symbol.value
                ))),
            },
            Role::Data | Role::Rodata | Role::Bss => match by_place.get(&(section, 0)) {
                Some(&map) => Ok(RawKind::Data(map, symbol.value)),
                None => Err(bad(format!("section '{name}' is empty"))),
            },
            _ => Err(unsupported(format!(
                "against section '{name}', which is no map"
            ))),
        }
    }

    /// `bpf_object__collect_map_relos`: initial slots.
    fn map_relocs(
        &self,
        rels: impl Iterator<Item = Rel>,
        vars: &[MapVar],
        names: &Names<'_>,
        slots: &mut Slots,
    ) -> Result<(), LoadError> {
        for rel in rels {
            let at = |e: LoadError| e.at(rel.offset);
            let symbol = self.symbol_of(rel).map_err(at)?;
            let name = self.elf.describe(&symbol);
            let at = |e: LoadError| at(e).symbol(name);
            let after = vars.partition_point(|var| var.offset <= rel.offset);
            let var = after.checked_sub(1).map(|i| &vars[i]);
            let var = var.filter(|v| rel.offset.saturating_add(8) <= v.offset + v.size);
            let var = var.ok_or_else(|| at(K::BadMap("a relocation of no map".into()).err()))?;
            let map = &self.maps[var.map];
            let key = slot_key(var, rel.offset).map_err(at)?;
            if is_map_in_map(map.map_type) {
                let inner =
                    self.slot_map(map.map_type, map.key_size, &symbol, names.maps.get(name));
                slots.maps.push((var.map, key, inner.map_err(at)?));
            } else if map.map_type == MapType::ProgArray.number() {
                let func = names.progs.get(name).copied().filter(|&func| {
                    let func = &self.funcs[func];
                    func.section == symbol.section && func.start as u64 * 8 == symbol.value
                });
                let func =
                    func.ok_or_else(|| at(bad("an initial slot's program is no entry program")))?;
                slots.progs.push((var.map, key, func));
            } else {
                return Err(at(K::BadMap(
                    "initial slots of a map that holds neither maps nor programs".into(),
                )
                .err()));
            }
        }
        Ok(())
    }

    fn slot_map(
        &self,
        map_type: u32,
        key_size: u32,
        symbol: &Symbol,
        named: Option<&usize>,
    ) -> Result<usize, LoadError> {
        if Some(symbol.section) != self.maps_section {
            return Err(bad("an initial slot's map is not in .maps"));
        }
        if map_type == MapType::HashOfMaps.number() && key_size != 4 {
            let why = "a hash of maps with initial slots needs keys of 4 bytes";
            return Err(K::BadMap(why.into()).err());
        }
        named
            .copied()
            .ok_or_else(|| bad("an initial slot's map does not exist"))
    }
}

/// Which slot of `values` a relocation fills.
fn slot_key(var: &MapVar, offset: u64) -> Result<u32, LoadError> {
    let misplaced = || K::BadMap("a relocation outside of its 'values'".into()).err();
    let values = var.values_at.ok_or_else(misplaced)?;
    let within = (offset - var.offset)
        .checked_sub(values)
        .ok_or_else(misplaced)?;
    match within % 8 {
        0 => u32::try_from(within / 8).map_err(|_| misplaced()),
        _ => Err(misplaced()),
    }
}
