//! Variables of `.struct_ops` and `.struct_ops.link`: a kernel struct of function pointers as a map.

use std::collections::HashMap;

use bpfsim_abi::MapType;
use bpfsim_abi::map::MapFlags;
use bpfsim_btf::{Btf, Kind, Type, TypeId};

use crate::elf::Rel;
use crate::error::{LoadError, LoadErrorKind as K};
use crate::maps::empty_map;
use crate::object::{MapDef, MapKind, SectionSpec, StructOps};
use crate::open::{Open, Role};

fn bad(why: impl Into<String>) -> LoadError {
    K::BadStructOps(why.into()).err()
}

/// Where function pointers lie.
pub(crate) struct StructOpsIndex {
    /// By ELF section: maps by place.
    maps: HashMap<usize, Vec<usize>>,
    /// By struct: members by bit offset.
    members: HashMap<TypeId, HashMap<u32, usize>>,
}

impl StructOpsIndex {
    pub(crate) fn new(open: &Open<'_>) -> StructOpsIndex {
        let mut maps: HashMap<usize, Vec<usize>> = HashMap::new();
        for (map, place) in open.map_places.iter().enumerate() {
            if open.maps[map].struct_ops.is_some() {
                maps.entry(place.0).or_default().push(map);
            }
        }
        for maps in maps.values_mut() {
            maps.sort_by_key(|&map| open.map_places[map].1);
        }
        let members = HashMap::new();
        StructOpsIndex { maps, members }
    }
}

impl Open<'_> {
    /// `bpf_object_init_struct_ops`.
    pub(crate) fn init_struct_ops(&mut self) -> Result<(), LoadError> {
        let Some(btf) = self.btf.clone() else {
            return Ok(());
        };
        for index in 1..self.roles.len() {
            if self.roles[index] == Role::StructOps {
                let section = self.elf.section(index)?.name;
                self.init_struct_ops_section(&btf, index, section)
                    .map_err(|e| e.section(section))?;
            }
        }
        Ok(())
    }

    fn init_struct_ops_section(
        &mut self,
        btf: &Btf,
        index: usize,
        section: &str,
    ) -> Result<(), LoadError> {
        let bytes = self.elf.data(index)?;
        let datasec = btf.find(section, Kind::Datasec).and_then(|id| btf.ty(id));
        let Some(Type::Datasec(datasec)) = datasec else {
            return Err(bad("BTF has no DATASEC for it"));
        };
        let link = section.trim_start_matches('?') == ".struct_ops.link";
        for var in datasec.vars {
            let name = btf.name_of(var.ty);
            let (type_id, size) = value_struct(btf, var.ty).map_err(|e| e.symbol(name))?;
            let start = var.offset as usize;
            let data = bytes
                .get(start..)
                .and_then(|rest| rest.get(..size as usize));
            let data =
                data.ok_or_else(|| bad("the variable reaches past its section").symbol(name))?;
            let map = MapDef {
                kind: MapKind::StructOps,
                section: self.budget.name(section.trim_start_matches('?'))?,
                map_type: MapType::StructOps.number(),
                key_size: 4,
                value_size: size,
                max_entries: 1,
                map_flags: if link { MapFlags::LINK.bits() } else { 0 },
                value_type: Some(type_id),
                data: self.budget.data(data)?,
                struct_ops: Some(StructOps {
                    type_id,
                    type_name: self
                        .budget
                        .name(bpfsim_btf::essential_name(btf.name_of(type_id)))?,
                    link,
                    progs: Vec::new(),
                }),
                autocreate: !section.starts_with('?'),
                ..empty_map(self.budget.name(name)?)
            };
            self.add_map((index, var.offset.into()), map)?;
        }
        Ok(())
    }

    /// `bpf_object__collect_st_ops_relos`: function pointers, as (map, member, function).
    pub(crate) fn struct_ops_relocs(
        &self,
        section: usize,
        rels: impl Iterator<Item = Rel>,
        index: &mut StructOpsIndex,
    ) -> Result<Vec<(usize, usize, usize)>, LoadError> {
        let btf = self.btf.as_deref().ok_or(K::NoBtf.err())?;
        let maps = index
            .maps
            .get(&section)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let members = &mut index.members;
        let mut found = Vec::new();
        for rel in rels {
            let at = |e: LoadError| e.section(self.elf.name_or_mark(section)).at(rel.offset);
            let after = maps.partition_point(|&i| self.map_places[i].1 <= rel.offset);
            let map = after.checked_sub(1).map(|i| maps[i]);
            let map = map.filter(|&i| {
                rel.offset - self.map_places[i].1 < u64::from(self.maps[i].value_size)
            });
            let map = map.ok_or_else(|| at(bad("a relocation of no variable")))?;
            let Some(ops) = &self.maps[map].struct_ops else {
                continue;
            };
            let name = self.maps[map].name.as_str();
            let offset = (rel.offset - self.map_places[map].1) as u32;
            let by_offset = members
                .entry(ops.type_id)
                .or_insert_with(|| members_by_offset(btf, ops.type_id));
            let member = by_offset.get(&offset.saturating_mul(8)).copied();
            let member = member.ok_or_else(|| at(bad("a relocation of no member")).symbol(name))?;
            let func = self.struct_ops_func(btf, ops.type_id, member, rel);
            found.push((map, member, func.map_err(|e| at(e).symbol(name))?));
        }
        Ok(found)
    }

    fn struct_ops_func(
        &self,
        btf: &Btf,
        type_id: TypeId,
        member: usize,
        rel: Rel,
    ) -> Result<usize, LoadError> {
        let symbol = self
            .elf
            .symbol(rel.symbol)
            .ok_or_else(|| K::BadReloc(format!("symbol {} does not exist", rel.symbol)).err())?;
        if symbol.section >= self.elf.section_count() {
            return Err(K::BadReloc("its target is not in a section".into()).err());
        }
        if symbol.value % 8 != 0 {
            return Err(K::BadReloc("its target is not at an instruction".into()).err());
        }
        let member = btf
            .ty(type_id)
            .and_then(|ty| ty.composite()?.members.get(member));
        let member = member.ok_or_else(|| bad("a relocation of no member"))?;
        if !is_func_ptr(btf, member.ty) {
            return Err(bad(format!(
                "member '{}' is no function pointer",
                member.name
            )));
        }
        let insn = usize::try_from(symbol.value / 8).unwrap_or(usize::MAX);
        let func = self.func_at(symbol.section, insn);
        let func =
            func.ok_or_else(|| bad(format!("member '{}' points to no program", member.name)))?;
        let section = self
            .elf
            .name_or_mark(symbol.section)
            .trim_start_matches('?');
        match SectionSpec::of(section).prog_type {
            bpfsim_abi::ProgType::StructOps => Ok(func),
            _ => Err(bad(format!(
                "member '{}' points to a program of another type",
                member.name
            ))),
        }
    }
}

/// The struct that a variable holds, and its size.
fn value_struct(btf: &Btf, var: TypeId) -> Result<(TypeId, u32), LoadError> {
    let Some(Type::Var { ty, .. }) = btf.ty(var) else {
        return Err(bad("an entry of the DATASEC is no variable"));
    };
    match btf.resolve(ty).map_err(|e| bad(e.to_string()))? {
        (_, Type::Struct(s)) if s.name.is_empty() => Err(bad("a struct without a name")),
        (id, Type::Struct(s)) => Ok((id, s.size)),
        _ => Err(bad("not a struct")),
    }
}

fn members_by_offset(btf: &Btf, id: TypeId) -> HashMap<u32, usize> {
    let mut by_offset = HashMap::new();
    let composite = btf.ty(id).and_then(|ty| ty.composite());
    for (index, member) in composite.iter().flat_map(|c| c.members.iter()).enumerate() {
        by_offset.entry(member.bit_offset).or_insert(index);
    }
    by_offset
}

/// `resolve_func_ptr`.
fn is_func_ptr(btf: &Btf, id: TypeId) -> bool {
    match btf.resolve(id) {
        Ok((_, Type::Ptr { to })) => matches!(btf.resolve(to), Ok((_, Type::FuncProto(_)))),
        _ => false,
    }
}
