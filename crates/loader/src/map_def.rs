//! BTF-defined maps: the members of an anonymous struct in `.maps` are a map's attributes.

use bpfsim_abi::MapType;
use bpfsim_btf::{Btf, BtfError, Member, Type, TypeId};

use crate::error::{LoadError, LoadErrorKind as K};

/// `struct btf_map_def`: what the struct says, before libbpf makes a map of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BtfMapDef {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) key_type: Option<TypeId>,
    pub(crate) value_size: u32,
    pub(crate) value_type: Option<TypeId>,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
    pub(crate) numa_node: u32,
    pub(crate) map_extra: u64,
    pub(crate) pin_by_name: bool,
    pub(crate) inner: Option<Box<BtfMapDef>>,
    /// Bytes from the start of the variable to its `values`, where initial slots lie.
    pub(crate) values_at: Option<u32>,
}

/// Reads a definition; an inner map's is one whose `nested` is true.
pub(crate) struct Reader<'b> {
    pub(crate) btf: &'b Btf,
    /// Attributes that libbpf does not know are passed over, not refused.
    pub(crate) relaxed: bool,
}

/// Members of a definition: there are twelve attributes, and many maps may share a definition.
const MAX_ATTRIBUTES: usize = 256;

fn bad(why: impl Into<String>) -> LoadError {
    K::BadMap(why.into()).err()
}

fn unsupported(why: impl Into<String>) -> LoadError {
    K::UnsupportedMap(why.into()).err()
}

pub(crate) fn is_map_in_map(map_type: u32) -> bool {
    map_type == MapType::ArrayOfMaps.number() || map_type == MapType::HashOfMaps.number()
}

impl Reader<'_> {
    /// `parse_btf_map_def`.
    pub(crate) fn read(&self, id: TypeId, nested: bool) -> Result<BtfMapDef, LoadError> {
        let Some(Type::Struct(def)) = self.btf.ty(id) else {
            return Err(bad("its definition is not a struct"));
        };
        if def.members.len() > MAX_ATTRIBUTES {
            return Err(bad(
                "its definition has more members than there are attributes",
            ));
        }
        let mut map = BtfMapDef::default();
        for (index, member) in def.members.iter().enumerate() {
            let last = index + 1 == def.members.len();
            self.attribute(&mut map, member, last, nested)?;
        }
        match map.map_type {
            0 => Err(bad("its type is not given")),
            _ => Ok(map),
        }
    }

    fn attribute(
        &self,
        map: &mut BtfMapDef,
        member: Member<'_>,
        last: bool,
        nested: bool,
    ) -> Result<(), LoadError> {
        match member.name {
            "type" => map.map_type = self.int(member)?,
            "max_entries" => map.max_entries = self.int(member)?,
            "map_flags" => map.map_flags = self.int(member)?,
            "numa_node" => map.numa_node = self.int(member)?,
            "key_size" => set_size(&mut map.key_size, self.int(member)?, "key")?,
            "value_size" => set_size(&mut map.value_size, self.int(member)?, "value")?,
            "map_extra" => map.map_extra = self.long(member)?,
            "key" => {
                let (id, size) = self.pointee(member)?;
                set_size(&mut map.key_size, size, "key")?;
                map.key_type = Some(id);
            }
            "value" => {
                let (id, size) = self.pointee(member)?;
                set_size(&mut map.value_size, size, "value")?;
                map.value_type = Some(id);
            }
            "pinning" if nested => return Err(bad("an inner map cannot be pinned")),
            "pinning" => match self.int(member)? {
                pinning @ (0 | 1) => map.pin_by_name = pinning == 1,
                other => return Err(bad(format!("pinning {other} is neither none nor by name"))),
            },
            "values" if nested => {
                return Err(unsupported("maps nested deeper than two are not supported"));
            }
            "values" if !last => return Err(bad("'values' is not its last member")),
            "values" => self.values(map, member)?,
            _ if self.relaxed => {}
            name => return Err(unsupported(format!("unknown attribute '{name}'"))),
        }
        Ok(())
    }

    /// `values`: a zero-sized array of pointers to maps or to programs.
    fn values(&self, map: &mut BtfMapDef, member: Member<'_>) -> Result<(), LoadError> {
        let of_maps = is_map_in_map(map.map_type);
        if !of_maps && map.map_type != MapType::ProgArray.number() {
            return Err(unsupported(
                "'values' in a map that holds neither maps nor programs",
            ));
        }
        set_size(&mut map.value_size, 4, "value")?;
        map.values_at = Some(member.bit_offset / 8);
        let elem = match self.btf.ty(member.ty) {
            Some(Type::Array(array)) if array.nelems == 0 => array.elem,
            _ => return Err(bad("'values' is not a zero-sized array")),
        };
        let Type::Ptr { to } = self.resolve(elem)?.1 else {
            return Err(bad("'values' is not an array of pointers"));
        };
        match (self.resolve(to)?, of_maps) {
            ((_, Type::FuncProto(_)), false) => {}
            (_, false) => return Err(bad("'values' of a prog array are not functions")),
            ((id, Type::Struct(_)), true) => map.inner = Some(Box::new(self.read(id, true)?)),
            (_, true) => return Err(bad("'values' of a map of maps are not structs")),
        }
        Ok(())
    }

    /// `int (*name)[N]` says N.
    fn int(&self, member: Member<'_>) -> Result<u32, LoadError> {
        let array = match self.resolve(member.ty)?.1 {
            Type::Ptr { to } => self.btf.ty(to),
            _ => None,
        };
        match array {
            Some(Type::Array(array)) => Ok(array.nelems),
            _ => Err(bad(format!(
                "attribute '{}' is no pointer to an array",
                member.name
            ))),
        }
    }

    /// As [`Self::int`], or an enum of one value (`__ulong`).
    fn long(&self, member: Member<'_>) -> Result<u64, LoadError> {
        let wrong = || {
            bad(format!(
                "attribute '{}' is no __uint and no __ulong",
                member.name
            ))
        };
        let (_, ty) = self.resolve(member.ty)?;
        match ty {
            Type::Ptr { .. } => Ok(self.int(member)?.into()),
            // An enum's 32 bits are signed in libbpf's eyes, whatever BTF says.
            Type::Enum(e) if e.values.len() == 1 => {
                let value = e.values.get(0).ok_or_else(wrong)?.value;
                Ok(i64::from(value as i32) as u64)
            }
            Type::Enum64(e) if e.values.len() == 1 => {
                Ok(e.values.get(0).ok_or_else(wrong)?.value as u64)
            }
            _ => Err(wrong()),
        }
    }

    /// `T *name` says T and its size.
    fn pointee(&self, member: Member<'_>) -> Result<(TypeId, u32), LoadError> {
        match self.btf.ty(member.ty) {
            Some(Type::Ptr { to }) => Ok((to, self.btf.size_of(to).map_err(broken)?)),
            _ => Err(bad(format!("attribute '{}' is no pointer", member.name))),
        }
    }

    fn resolve(&self, id: TypeId) -> Result<(TypeId, Type<'_>), LoadError> {
        self.btf.resolve(id).map_err(broken)
    }
}

fn broken(e: BtfError) -> LoadError {
    bad(e.to_string())
}

fn set_size(size: &mut u32, new: u32, what: &str) -> Result<(), LoadError> {
    if *size != 0 && *size != new {
        return Err(bad(format!("{what} size {size} conflicts with {new}")));
    }
    *size = new;
    Ok(())
}
