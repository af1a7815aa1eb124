//! What has to be written so that a compiler lays a struct out as it is.

use std::collections::HashMap;

use crate::btf::Btf;
use crate::types::{Composite, TypeId};

/// Fields that pad, the widest first, and their bits.
const PADS: [(&str, u64); 4] = [("long", 64), ("int", 32), ("short", 16), ("char", 8)];
/// A gap that needs more fields than this is a lie, and is left open.
const MAX_PADS: u64 = 1 << 14;

/// Alignments, each worked out once.
pub(super) struct Layout<'a> {
    btf: &'a Btf,
    known: HashMap<TypeId, u32>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(btf: &'a Btf) -> Self {
        Layout {
            btf,
            known: HashMap::new(),
        }
    }

    /// Bytes; 1 where C gives none.
    pub(super) fn align(&mut self, id: TypeId) -> u32 {
        self.btf.align_in(id, &mut self.known).unwrap_or(1).max(1)
    }

    /// `btf_is_struct_packed`.
    pub(super) fn is_packed(&mut self, c: &Composite<'_>) -> bool {
        let mut max = 1;
        for m in c.members {
            let align = self.align(m.ty);
            if m.bitfield_size == 0 && m.bit_offset % (8 * align) != 0 {
                return true;
            }
            max = max.max(align);
        }
        !c.size.is_multiple_of(max)
    }
}

/// A gap between two members, in bits.
pub(super) struct Padding {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Of the member after it, in bytes.
    pub(super) next_align: u32,
    /// Between two bit-fields.
    pub(super) in_bitfield: bool,
}

impl Padding {
    /// Unnamed bit-fields that fill the gap (`btf_dump_emit_bit_padding`).
    pub(super) fn fields(&self) -> Vec<(&'static str, u64)> {
        let mut fields = Vec::new();
        let (mut at, to) = (self.from, self.to);
        if at >= to || (to - at) / 8 > MAX_PADS * 8 {
            return fields;
        }
        let fits = PADS
            .iter()
            .find(|(_, bits)| at.next_multiple_of(*bits) <= to);
        let &(ty, bits) = fits.unwrap_or(&PADS[3]);
        let aligned = at.next_multiple_of(bits);
        if aligned > at && aligned <= to {
            // An explicit mark, unless the compiler would go there by itself.
            let natural = at.next_multiple_of(u64::from(self.next_align) * 8);
            let marks_next = aligned == to && natural != aligned;
            let hole_fits = aligned != to && to - aligned <= aligned - at;
            if self.in_bitfield {
                fields.push((ty, aligned - at));
            } else if marks_next || hole_fits {
                fields.push((ty, 0));
            }
            at = aligned;
        }
        while at < to {
            let left = (to - at).min(bits);
            let smallest = PADS.iter().rev().find(|(_, pad)| *pad >= left);
            let ty = match left == bits {
                true => ty,
                false => smallest.unwrap_or(&PADS[0]).0,
            };
            fields.push((ty, left));
            at += left;
        }
        fields
    }
}
