//! Special fields of map values and of objects that programs allocate, with what they lead to (`struct btf_record`).

use std::rc::Rc;

use bpfsim_btf::TypeId;
use bpfsim_btf::fields::{Field, FieldMask, FieldTarget, parse_fields_in};

use crate::reg::{BTF_KERNEL, BTF_PROG, Reg, ty};
use crate::verifier::{Verifier, field};

/// A special field with its target resolved (`struct btf_field`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RField {
    pub bit: u32,
    pub name: &'static str,
    pub offset: u32,
    pub size: u32,
    /// What a kptr points to, or what a list or tree holds: BTF and type id.
    pub target: (u32, u32),
    /// Where the node lies in what a list or tree holds.
    pub node_offset: u32,
}

/// Special fields of a value or an object (`struct btf_record`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub mask: u32,
    pub fields: Vec<RField>,
}

impl Record {
    pub fn has(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }
    /// Offset of the one field of this kind, or -1.
    pub fn offset_of(&self, bit: u32) -> i32 {
        let found = self.fields.iter().find(|f| f.bit == bit);
        found.map_or(-1, |f| f.offset as i32)
    }
    /// `btf_record_find`
    pub fn find(&self, offset: u32, bits: u32) -> Option<&RField> {
        self.fields
            .iter()
            .find(|f| f.offset == offset && f.bit & bits != 0)
    }
}

impl Verifier<'_> {
    /// Resolves what fields lead to: names of the kernel first, as `btf_parse_kptr` does.
    pub(super) fn record_of(&self, fields: &[Field]) -> Option<Rc<Record>> {
        if fields.is_empty() {
            return None;
        }
        let mut record = Record::default();
        for f in fields {
            let mut node_offset = 0;
            let target = match f.to {
                FieldTarget::None => (0, 0),
                FieldTarget::Graph {
                    value,
                    node_offset: off,
                } => {
                    node_offset = off;
                    (BTF_PROG, value.0)
                }
                FieldTarget::Struct(id) if f.kind.bit() == field::UPTR => (BTF_PROG, id.0),
                FieldTarget::Struct(id) => {
                    let name = self.prog.btf.map_or("", |b| b.name_of(id));
                    let kind = self.prog.btf.and_then(|b| b.ty(id)).map(|t| t.kind());
                    let found = kind.and_then(|k| self.env.kernel.find(name, k));
                    match found {
                        Some(id) => (BTF_KERNEL, id.0),
                        None => (BTF_PROG, id.0),
                    }
                }
            };
            record.mask |= f.kind.bit();
            record.fields.push(RField {
                bit: f.kind.bit(),
                name: f.kind.name(),
                offset: f.offset,
                size: f.size,
                target,
                node_offset,
            });
        }
        Some(Rc::new(record))
    }

    /// `btf_find_struct_meta`: special fields of a struct that programs allocate.
    pub(crate) fn struct_record(&mut self, which: u32, id: u32) -> Option<Rc<Record>> {
        if which != BTF_PROG {
            return None;
        }
        if let Some(known) = self.records.get(&(which, id)) {
            return known.clone();
        }
        let btf = self.prog.btf?;
        let fields = parse_fields_in(btf, TypeId(id), FieldMask::ALLOCATED, Some(self.env.kernel));
        let record = fields.ok().and_then(|f| self.record_of(&f));
        self.records.insert((which, id), record.clone());
        record
    }

    /// `reg_btf_record`
    pub(crate) fn reg_record(&mut self, reg: &Reg) -> Option<Rc<Record>> {
        if reg.ty == ty::MAP_VALUE {
            return self.map_records.get(reg.map()?)?.clone();
        }
        match ty::is_alloc_obj(reg.ty) {
            true => self.struct_record(reg.a, reg.b),
            false => None,
        }
    }

    /// `reg_may_point_to_spin_lock`
    pub(crate) fn has_lock(&mut self, reg: &Reg) -> bool {
        self.reg_record(reg)
            .is_some_and(|r| r.has(field::SPIN_LOCK | field::RES_SPIN_LOCK))
    }
}
