//! `bpf_object__init_maps`: maps of `.maps`, of variables' sections, of `.kconfig` and of struct_ops.

use bpfsim_abi::MapType;
use bpfsim_abi::map::MapFlags;
use bpfsim_btf::{Btf, Datasec, Kind, Linkage, Type, TypeId, VarSecinfo};

use crate::error::{LoadError, LoadErrorKind as K};
use crate::externs::KCONFIG;
use crate::map_def::{BtfMapDef, Reader};
use crate::object::{MapDef, MapKind};
use crate::open::{Open, Role};

/// Page size of the machine that bpfsim emulates.
const PAGE_SIZE: u32 = 4096;
/// `BPF_OBJ_NAME_LEN` without its NUL.
const NAME_LEN: usize = 15;

/// Where a map of `.maps` lies, for relocations of its initial slots.
pub(crate) struct MapVar {
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) map: usize,
    /// Bytes from `offset` to `values`.
    pub(crate) values_at: Option<u64>,
}

/// Bytes of all `.kconfig` variables: values of kernel configuration are short, and these are all
/// held in memory, whatever BTF says of their size.
const MAX_KCONFIG: u32 = 1 << 20;

impl Open<'_> {
    pub(crate) fn init_maps(&mut self) -> Result<Vec<MapVar>, LoadError> {
        let vars = self.init_user_maps()?;
        self.init_arena()?;
        self.init_data_maps()?;
        let size = self.kconfig_size();
        if size > MAX_KCONFIG {
            let (what, limit) = ("bytes of .kconfig", MAX_KCONFIG.into());
            return Err(K::TooLarge { what, limit }.err());
        }
        if size > 0 {
            let symtab = self.elf.symtab;
            self.add_internal(MapKind::Kconfig, KCONFIG, symtab, size, Vec::new())?;
        }
        self.init_struct_ops()?;
        Ok(vars)
    }

    /// `bpf_object__init_user_btf_maps`.
    fn init_user_maps(&mut self) -> Result<Vec<MapVar>, LoadError> {
        let (Some(section), Some(btf)) = (self.maps_section, self.btf.clone()) else {
            return Ok(Vec::new());
        };
        let size = self.elf.data(section)?.len() as u64;
        let datasec = btf.find(".maps", Kind::Datasec).and_then(|id| btf.ty(id));
        let Some(Type::Datasec(datasec)) = datasec else {
            return Err(K::NoDatasec.in_section(".maps"));
        };
        let mut vars = Vec::new();
        for var in datasec.vars {
            let at = |e: LoadError| e.section(".maps").at(var.offset.into());
            let name = btf.name_of(var.ty);
            let at = |e| at(e).symbol(name);
            let def = self.user_map_def(&btf, var, size).map_err(at)?;
            let name = self.budget.name(name)?;
            let inner = match &def.inner {
                Some(inner) => {
                    let name = self.budget.name(&format!("{name}.inner"))?;
                    Some(Box::new(user_map(name, inner)))
                }
                None => None,
            };
            vars.push(MapVar {
                offset: var.offset.into(),
                size: var.size.into(),
                map: self.maps.len(),
                values_at: def.values_at.map(u64::from),
            });
            let map = MapDef {
                inner,
                ..user_map(name, &def)
            };
            self.add_map((section, var.offset.into()), map)?;
        }
        vars.sort_by_key(|var| var.offset);
        Ok(vars)
    }

    /// `bpf_object__init_user_btf_map`, as far as the struct.
    fn user_map_def(
        &self,
        btf: &Btf,
        var: VarSecinfo,
        section: u64,
    ) -> Result<BtfMapDef, LoadError> {
        let bad = |why: &str| K::BadMap(why.to_owned()).err();
        let Some(Type::Var { name, ty, linkage }) = btf.ty(var.ty) else {
            return Err(bad("not a variable"));
        };
        if name.is_empty() {
            return Err(bad("a map without a name"));
        }
        if u64::from(var.offset) + u64::from(var.size) > section {
            return Err(bad("it reaches past its section"));
        }
        if linkage != Linkage::Global {
            return Err(
                K::UnsupportedMap("a map must be global, not static or extern".into()).err(),
            );
        }
        let (id, def) = btf.resolve(ty).map_err(|e| bad(&e.to_string()))?;
        match def {
            Type::Struct(def) if def.size <= var.size => {}
            Type::Struct(_) => return Err(bad("its struct is larger than the variable")),
            _ => return Err(bad("its definition is not a struct")),
        }
        let relaxed = self.options.relaxed_maps;
        Reader { btf, relaxed }.read(id, false)
    }

    /// Variables of `__arena` lie in the one arena.
    fn init_arena(&mut self) -> Result<(), LoadError> {
        let arena = MapType::Arena.number();
        let mut arenas = (0..self.maps.len()).filter(|&i| self.maps[i].map_type == arena);
        self.arena = arenas.next();
        if let Some(second) = arenas.next() {
            let name = &self.maps[second].name;
            return Err(K::ManyArenas.err().symbol(name));
        }
        let Some(section) = self.arena_section else {
            return Ok(());
        };
        let data = self.elf.data(section)?;
        let at = |kind: K| kind.in_section(self.elf.name_or_mark(section));
        let Some(arena) = self.arena else {
            return Err(at(K::NoArena));
        };
        let room = u64::from(self.maps[arena].max_entries) * u64::from(PAGE_SIZE);
        if (data.len() as u64).next_multiple_of(PAGE_SIZE.into()) > room {
            return Err(at(K::ArenaTooSmall));
        }
        self.maps[arena].data = self.budget.data(data)?;
        Ok(())
    }

    /// `bpf_object__init_global_data_maps`.
    fn init_data_maps(&mut self) -> Result<(), LoadError> {
        for index in 1..self.roles.len() {
            let kind = match self.roles[index] {
                Role::Data => MapKind::Data,
                Role::Rodata => MapKind::Rodata,
                Role::Bss => MapKind::Bss,
                _ => continue,
            };
            let section = self.elf.section(index)?;
            if section.size == 0 {
                continue;
            }
            let size = u32::try_from(section.size).map_err(|_| {
                let limit = u64::from(u32::MAX);
                K::TooLarge {
                    what: "bytes of variables",
                    limit,
                }
                .in_section(section.name)
            })?;
            let data = match kind {
                MapKind::Bss => Vec::new(),
                _ => self.budget.data(self.elf.data(index)?)?,
            };
            self.add_internal(kind, section.name, index, size, data)?;
        }
        Ok(())
    }

    /// `bpf_object__init_internal_map`.
    fn add_internal(
        &mut self,
        kind: MapKind,
        section: &str,
        index: usize,
        size: u32,
        data: Vec<u8>,
    ) -> Result<(), LoadError> {
        let mut flags = MapFlags::empty();
        if matches!(kind, MapKind::Rodata | MapKind::Kconfig) {
            flags |= MapFlags::RDONLY_PROG;
        }
        let value_type = self.btf.as_deref().and_then(|btf| value_type(btf, section));
        if let (Some(id), Some(btf)) = (value_type, &self.btf)
            && let Some(Type::Datasec(datasec)) = btf.ty(id)
        {
            self.budget.vars(datasec.vars.len())?;
            flags.set(MapFlags::MMAPABLE, is_mmapable(btf, &datasec));
        }
        let name = internal_name(&self.options.name, section, kind);
        let name = self.budget.name(&name)?;
        let map = MapDef {
            kind,
            section: self.budget.name(section)?,
            map_type: MapType::Array.number(),
            key_size: 4,
            value_size: size,
            max_entries: 1,
            map_flags: flags.bits(),
            value_type,
            data,
            ..empty_map(name)
        };
        self.add_map((index, 0), map)
    }
}

/// `map_fill_btf_type_info`: any type of the section's name, since clang names the `DATASEC` so.
fn value_type(btf: &Btf, section: &str) -> Option<TypeId> {
    btf.find_all(section).into_iter().min()
}

/// `map_is_mmapable`: some variable is visible outside, so that a skeleton would show it.
fn is_mmapable(btf: &Btf, section: &Datasec<'_>) -> bool {
    section.vars.iter().any(|var| match btf.ty(var.ty) {
        Some(Type::Var { linkage, .. }) => linkage != Linkage::Static,
        _ => false,
    })
}

/// `internal_map_name` and `map_uses_real_name`: `.data` and `.rodata` with a suffix keep their
/// section's name; the others get up to eight bytes of the object's before theirs.
fn internal_name(object: &str, section: &str, kind: MapKind) -> String {
    let dotted = section.get(1..).is_some_and(|rest| rest.contains('.'));
    if dotted && matches!(kind, MapKind::Data | MapKind::Rodata) {
        return section.to_owned();
    }
    let suffix = section.len().clamp(7, NAME_LEN);
    let prefix = if dotted { 0 } else { NAME_LEN - suffix };
    let object: String = cut(object, NAME_LEN).chars().collect();
    let name = format!("{}{}", cut(&object, prefix), cut(section, suffix));
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    name.chars()
        .map(|c| if fine(c) { c } else { '_' })
        .collect()
}

/// At most `len` bytes of a name, whole characters.
fn cut(name: &str, len: usize) -> &str {
    let mut end = len.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

pub(crate) fn empty_map(name: String) -> MapDef {
    MapDef {
        name,
        kind: MapKind::User,
        section: ".maps".to_owned(),
        map_type: 0,
        key_size: 0,
        value_size: 0,
        max_entries: 0,
        map_flags: 0,
        map_extra: 0,
        numa_node: 0,
        pin_by_name: false,
        key_type: None,
        value_type: None,
        inner: None,
        values: Vec::new(),
        data: Vec::new(),
        struct_ops: None,
        autocreate: true,
    }
}

/// `fill_map_from_def`.
fn user_map(name: String, def: &BtfMapDef) -> MapDef {
    let ringbufs = [MapType::Ringbuf.number(), MapType::UserRingbuf.number()];
    MapDef {
        map_type: def.map_type,
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: match ringbufs.contains(&def.map_type) {
            true => ringbuf_size(def.max_entries),
            false => def.max_entries,
        },
        map_flags: def.map_flags,
        map_extra: def.map_extra,
        numa_node: def.numa_node,
        pin_by_name: def.pin_by_name,
        key_type: def.key_type,
        value_type: def.value_type,
        ..empty_map(name)
    }
}

/// `adjust_ringbuf_sz`: up to a power of two of pages; 0 and what is too large stay for the kernel
/// to refuse.
fn ringbuf_size(size: u32) -> u32 {
    if size == 0 || size.is_multiple_of(PAGE_SIZE) && (size / PAGE_SIZE).is_power_of_two() {
        return size;
    }
    let mut pages = 1u32;
    while pages <= u32::MAX / PAGE_SIZE {
        if pages * PAGE_SIZE > size {
            return pages * PAGE_SIZE;
        }
        pages <<= 1;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_names_are_cut_as_libbpf_cuts_them() {
        for (object, section, kind, want) in [
            (
                "my_object_name",
                ".rodata",
                MapKind::Rodata,
                "my_objec.rodata",
            ),
            ("my_object_name", ".bss", MapKind::Bss, "my_objec.bss"),
            (
                "my_object_name",
                ".kconfig",
                MapKind::Kconfig,
                "my_obje.kconfig",
            ),
            ("my-object", ".data", MapKind::Data, "my_objec.data"),
            ("abc", ".data", MapKind::Data, "abc.data"),
            (
                "abc",
                ".data.long_enough_to_cut",
                MapKind::Data,
                ".data.long_enough_to_cut",
            ),
            (
                "abc",
                ".bss.very_long_name",
                MapKind::Bss,
                ".bss.very_long_",
            ),
            ("", ".bss", MapKind::Bss, ".bss"),
        ] {
            assert_eq!(internal_name(object, section, kind), want);
        }
    }

    #[test]
    fn ring_buffers_grow_to_a_power_of_two_of_pages() {
        for (size, want) in [
            (0, 0),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (12288, 16384),
            (1 << 31, 1 << 31),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(ringbuf_size(size), want);
        }
    }
}
