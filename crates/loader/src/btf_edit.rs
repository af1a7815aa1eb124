//! Changes to a BTF in place: libbpf corrects what a compiler cannot know.

use bpfsim_btf::{Btf, BtfError, Type, TypeId};

const HEADER_LEN: usize = 24;
/// Words of `struct btf_type`, and where what follows it starts.
const NAME: usize = 0;
const INFO: usize = 1;
const SIZE: usize = 2;
const TAIL: usize = 3;

/// A BTF's bytes and where each type lies in them.
pub(crate) struct BtfEdit {
    types: Vec<u8>,
    strings: Vec<u8>,
    starts: Vec<usize>,
    changed: bool,
}

impl BtfEdit {
    pub(crate) fn new(btf: &Btf) -> BtfEdit {
        let bytes = btf.to_bytes();
        let mut starts = Vec::with_capacity(btf.type_count() as usize);
        let mut at = 0;
        for (_, ty) in btf.iter() {
            starts.push(at);
            at += 4 * TAIL + tail_len(&ty);
        }
        let body = bytes.get(HEADER_LEN..).unwrap_or_default();
        let (types, strings) = body.split_at(at.min(body.len()));
        BtfEdit {
            types: types.to_vec(),
            strings: strings.to_vec(),
            starts,
            changed: false,
        }
    }

    fn word(&mut self, id: TypeId, word: usize) -> Option<&mut [u8]> {
        let start = *self.starts.get((id.0 as usize).checked_sub(1)?)? + 4 * word;
        self.types.get_mut(start..start + 4)
    }

    fn set(&mut self, id: TypeId, word: usize, value: u32) {
        let bytes = value.to_le_bytes();
        if let Some(place) = self.word(id, word)
            && *place != bytes
        {
            place.copy_from_slice(&bytes);
            self.changed = true;
        }
    }

    /// A `DATASEC`'s (or any other type's) size.
    pub(crate) fn set_size(&mut self, id: TypeId, size: u32) {
        self.set(id, SIZE, size);
    }

    /// The type that a `VAR` refers to.
    pub(crate) fn set_referred(&mut self, id: TypeId, to: TypeId) {
        self.set(id, SIZE, to.0);
    }

    /// A `VAR`'s linkage: 0 static, 1 global.
    pub(crate) fn set_var_linkage(&mut self, id: TypeId, linkage: u32) {
        self.set(id, TAIL, linkage);
    }

    /// A `FUNC`'s linkage: 0 static, 1 global.
    pub(crate) fn set_func_linkage(&mut self, id: TypeId, linkage: u16) {
        let Some(info) = self.word(id, INFO) else {
            return;
        };
        let kind = [info[2], info[3]];
        let [lo, hi] = linkage.to_le_bytes();
        self.set(id, INFO, u32::from_le_bytes([lo, hi, kind[0], kind[1]]));
    }

    /// One entry of a `DATASEC`.
    pub(crate) fn set_var(&mut self, id: TypeId, index: usize, var: bpfsim_btf::VarSecinfo) {
        for (i, value) in [var.ty.0, var.offset, var.size].into_iter().enumerate() {
            self.set(id, TAIL + 3 * index + i, value);
        }
    }

    /// A parameter's name.
    pub(crate) fn set_param_name(&mut self, proto: TypeId, index: usize, name_off: u32) {
        self.set(proto, TAIL + 2 * index, name_off);
    }

    /// String offset of a type's name.
    pub(crate) fn name_off(&mut self, id: TypeId) -> u32 {
        match self.word(id, NAME) {
            Some(&mut [a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    /// A new global `VAR` behind all other types.
    pub(crate) fn push_global_var(&mut self, name: &str, ty: TypeId) -> TypeId {
        const KIND_VAR: u32 = 14;
        let name_off = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self.starts.push(self.types.len());
        for word in [name_off, KIND_VAR << 24, ty.0, 1] {
            self.types.extend(word.to_le_bytes());
        }
        self.changed = true;
        TypeId(self.starts.len() as u32)
    }

    /// The BTF with its changes; none if there were none.
    pub(crate) fn finish(self) -> Result<Option<Btf>, BtfError> {
        if !self.changed {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.types.len() + self.strings.len());
        bytes.extend(bpfsim_btf::raw::MAGIC.to_le_bytes());
        bytes.extend([bpfsim_btf::raw::VERSION, 0]);
        let types = self.types.len() as u32;
        for word in [
            HEADER_LEN as u32,
            0,
            types,
            types,
            self.strings.len() as u32,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        Btf::parse(&bytes).map(Some)
    }
}

/// Bytes that follow `struct btf_type`.
fn tail_len(ty: &Type<'_>) -> usize {
    match ty {
        Type::Int(_) | Type::Var { .. } | Type::DeclTag { .. } => 4,
        Type::Array(_) => 12,
        Type::Struct(c) | Type::Union(c) => 12 * c.members.len(),
        Type::Enum(e) => 8 * e.values.len(),
        Type::Enum64(e) => 12 * e.values.len(),
        Type::FuncProto(p) => 8 * p.params.len(),
        Type::Datasec(d) => 12 * d.vars.len(),
        _ => 0,
    }
}
