//! Global variables, by name: what a skeleton's `skel->bss->counter` is.

use bpfsim_btf::{Type, TypeId};

use crate::error::{LoadError, LoadErrorKind as K};
use crate::object::{MapKind, Object};

/// Bytes of a section of variables that are written before it is loaded: `.bss` may claim 4 GiB.
const MAX_DATA: usize = 64 << 20;
/// Names that an error lists.
const NEAR_MISSES: usize = 3;

/// A global variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global<'o> {
    /// Name.
    pub name: &'o str,
    /// Index of its map in [`Object::maps`].
    pub map: usize,
    /// Bytes from the start of the map's value.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Its type in BTF.
    pub ty: TypeId,
    /// Whether other objects see it; a `static` one may share its name with others.
    pub global: bool,
}

impl Object {
    /// All variables of data sections and `.kconfig`, by map and offset. Those that BTF does not
    /// describe (string literals) are not among them.
    pub fn globals(&self) -> impl Iterator<Item = Global<'_>> {
        self.maps
            .iter()
            .enumerate()
            .flat_map(|(map, def)| self.globals_of(map, def.value_type))
    }

    fn globals_of(&self, map: usize, section: Option<TypeId>) -> impl Iterator<Item = Global<'_>> {
        let btf = self
            .btf
            .as_deref()
            .filter(|_| self.maps[map].kind.is_internal());
        let vars = btf.zip(section).and_then(|(btf, id)| match btf.ty(id) {
            Some(Type::Datasec(section)) => Some((btf, section.vars)),
            _ => None,
        });
        vars.into_iter().flat_map(move |(btf, vars)| {
            vars.iter().filter_map(move |var| match btf.ty(var.ty)? {
                Type::Var { name, ty, linkage } => Some(Global {
                    name,
                    map,
                    offset: var.offset,
                    size: var.size,
                    ty,
                    global: linkage != bpfsim_btf::Linkage::Static,
                }),
                _ => None,
            })
        })
    }

    /// The variable of this name; a global one before a static one.
    ///
    /// # Errors
    /// There is none; the error names near misses.
    pub fn global(&self, name: &str) -> Result<Global<'_>, LoadError> {
        let mut found: Option<Global<'_>> = None;
        for global in self.globals().filter(|g| g.name == name) {
            if found.is_none_or(|f| !f.global && global.global) {
                found = Some(global);
            }
        }
        found.ok_or_else(|| K::NoGlobal(self.near_misses(name)).err().symbol(name))
    }

    fn near_misses(&self, name: &str) -> Vec<String> {
        let mut near: Vec<(usize, &str)> = self
            .globals()
            .map(|g| (distance(name, g.name), g.name))
            .filter(|&(d, _)| d <= 2)
            .collect();
        near.sort();
        near.into_iter()
            .take(NEAR_MISSES)
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    /// A variable's initial bytes.
    ///
    /// # Errors
    /// There is none, or it reaches past its section.
    pub fn global_bytes(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let global = self.global(name)?;
        let (start, end) = self.range(&global)?;
        let data = &self.maps[global.map].data;
        let known = data.get(start..end.min(data.len())).unwrap_or_default();
        let mut bytes = known.to_vec();
        bytes.resize(end - start, 0);
        Ok(bytes)
    }

    /// Sets a variable's initial bytes, little-endian; before the object is loaded even a `const` one.
    ///
    /// # Errors
    /// There is none, or its size is another.
    pub fn set_global(&mut self, name: &str, value: &[u8]) -> Result<(), LoadError> {
        let global = self.global(name)?;
        if value.len() as u64 != u64::from(global.size) {
            let (want, got) = (global.size.into(), value.len() as u64);
            return Err(K::GlobalSize { want, got }.err().symbol(name));
        }
        let (start, end) = self.range(&global)?;
        let map = global.map;
        let data = &mut self.maps[map].data;
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(value);
        Ok(())
    }

    fn range(&self, global: &Global<'_>) -> Result<(usize, usize), LoadError> {
        let map = &self.maps[global.map];
        let start = global.offset as usize;
        let end = start.saturating_add(global.size as usize);
        let outside =
            || K::BadDatasec("the variable reaches past its section").in_section(&map.section);
        if end > map.value_size as usize {
            return Err(outside().symbol(global.name));
        }
        let zeros = map.kind == MapKind::Bss || map.kind == MapKind::Kconfig;
        if zeros && end > MAX_DATA {
            let limit = MAX_DATA as u64;
            return Err(K::TooLarge {
                what: "bytes of variables",
                limit,
            }
            .in_section(&map.section));
        }
        Ok((start, end))
    }
}

/// Edit distance, as far as it matters: 3 for anything farther than 2.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 || a.len().max(b.len()) > 64 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()].min(3)
}
