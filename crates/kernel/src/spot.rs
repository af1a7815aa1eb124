//! What lies at an address, as people write it: `ports[80].ticks`, or a variable's name.

use crate::ids::MapId;
use crate::kernel::Kernel;
use crate::map::MapSpec;
use crate::trace::Element;
use bpfsim_btf::display;
use bpfsim_btf::{Btf, Type, TypeId, VarSecinfo};
use std::fmt;

/// Nesting of types that is followed.
const DEPTH: usize = 32;

/// A part of an element of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The element; its key is empty where the memory was several elements' in turn, and nobody
    /// knows which one's it was then.
    pub element: Element,
    /// Name of the map.
    pub map: String,
    /// Offset in its value.
    pub offset: u32,
    /// As people write it.
    text: String,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Kernel {
    /// The part of an element that these bytes are, if they are one.
    pub(crate) fn spot(&self, addr: u64, size: u32) -> Option<Spot> {
        let maps = self.st.maps.iter().enumerate();
        let (map, value) = { maps }.find_map(|(i, m)| Some((i, m.value_around(addr)?)))?;
        let spec = &self.st.maps[map].spec;
        let mut element = self.st.element(&self.mem, MapId(map as u32), value);
        // Without checked memory nobody knows: then it is taken for the one that it is now.
        let known = !self.mem.is_reused(value);
        if !known {
            element.key.clear();
        }
        let offset = (addr - value) as u32;
        let key = known.then_some(&element.key[..]);
        Some(Spot {
            map: spec.name.clone(),
            offset,
            text: spec.part(key, offset, size),
            element,
        })
    }
}

impl Kernel {
    /// An element as a whole.
    pub(crate) fn spot_in(&self, element: Element) -> Spot {
        let spec = &self.st.maps[element.map.at()].spec;
        Spot {
            map: spec.name.clone(),
            offset: 0,
            text: spec.element_text(Some(&element.key)),
            element,
        }
    }
}

impl MapSpec {
    /// An element of this map: `map[key]`, of a section of variables its name. Without a key it is
    /// some element.
    pub fn element_text(&self, key: Option<&[u8]>) -> String {
        if self.variables().is_some() {
            return self.name.clone();
        }
        let key = key.map_or_else(|| "?".to_string(), |key| self.key_text(key));
        format!("{}[{key}]", self.name)
    }

    /// A key of this map, on one line, by its type; without one a word as a number, others in
    /// hexadecimal.
    pub fn key_text(&self, key: &[u8]) -> String {
        let ty = self.btf.as_ref().filter(|b| b.key != TypeId::VOID);
        let value = ty.and_then(|b| display::value(&b.btf, b.key, key).ok());
        match (value, <[u8; 4]>::try_from(key)) {
            (Some(value), _) => value.brief(),
            (None, Ok(word)) => u32::from_le_bytes(word).to_string(),
            (None, Err(_)) => key.iter().map(|b| format!("{b:02x}")).collect(),
        }
    }

    /// Of a section of variables, the name, offset, size and type of each; those of functions
    /// (`f.x`) too.
    pub fn variables(&self) -> Option<Vec<(String, u32, u32, TypeId)>> {
        let btf = self.btf.as_ref()?;
        let Ok((_, Type::Datasec(section))) = btf.btf.resolve(btf.value) else {
            return None;
        };
        let var = |v: VarSecinfo| match btf.btf.get(v.ty) {
            Ok(Type::Var { name, ty, .. }) => Some((name.to_string(), v.offset, v.size, ty)),
            _ => None,
        };
        Some(section.vars.iter().filter_map(var).collect())
    }

    /// What lies at an offset of an element's value: `map[key].member`, or the variable's name.
    /// Without a key it is of some element.
    pub fn part(&self, key: Option<&[u8]>, offset: u32, size: u32) -> String {
        if let Some(vars) = self.variables() {
            let found = vars
                .into_iter()
                .find(|(_, at, len, _)| (*at..at.saturating_add(*len)).contains(&offset));
            return match (found, &self.btf) {
                (Some((name, at, _, ty)), Some(btf)) => {
                    name + &path(&btf.btf, ty, offset - at, size, 0)
                }
                _ => format!("{}+{offset}", self.name),
            };
        }
        let base = self.element_text(key);
        match &self.btf {
            Some(btf) => base + &path(&btf.btf, btf.value, offset, size, 0),
            None if offset == 0 => base,
            None => format!("{base}+{offset}"),
        }
    }
}

/// Names of members and indices down to what is accessed.
fn path(btf: &Btf, ty: TypeId, offset: u32, size: u32, depth: usize) -> String {
    let rest = || match offset {
        0 => String::new(),
        n => format!("+{n}"),
    };
    if depth > DEPTH {
        return rest();
    }
    match btf.resolve(ty) {
        Ok((_, Type::Struct(s))) => {
            let holds = |m: &bpfsim_btf::Member<'_>| {
                let (at, len) = (m.bit_offset / 8, btf.size_of(m.ty).unwrap_or(0));
                at <= offset && (offset - at) < len
            };
            match s.members.iter().find(holds) {
                // All of it, or more than one member.
                Some(m) if btf.size_of(m.ty).is_ok_and(|len| size <= len) => {
                    let inner = path(btf, m.ty, offset - m.bit_offset / 8, size, depth + 1);
                    match m.name {
                        "" => inner,
                        name => format!(".{name}{inner}"),
                    }
                }
                _ => rest(),
            }
        }
        Ok((_, Type::Array(a))) => match btf.size_of(a.elem).unwrap_or(0) {
            0 => rest(),
            len => {
                let inner = path(btf, a.elem, offset % len, size, depth + 1);
                format!("[{}]{inner}", offset / len)
            }
        },
        _ => rest(),
    }
}
