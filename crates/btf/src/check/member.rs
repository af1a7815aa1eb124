//! Whether a member fits its struct (`check_member` and `check_kflag_member` of each kind).

use crate::error::BtfErrorKind as E;
use crate::types::{Composite, Int, Member, Type};
use crate::walk::PTR_SIZE;

/// `BITS_PER_U128`: what the kernel copies at most to print a bit-field.
const MAX_COPY_BITS: u32 = 128;

/// `btf_type_int_is_regular`: whole bytes, as C's integers have them.
pub(super) fn is_regular(int: &Int<'_>) -> bool {
    int.offset == 0 && matches!(int.bits, 8 | 16 | 32 | 64 | 128)
}

/// The member in question: `index` for messages, `ty` its type behind modifiers.
pub(super) struct Fit<'a> {
    pub(super) owner: Composite<'a>,
    pub(super) member: Member<'a>,
    pub(super) index: u32,
}

impl Fit<'_> {
    /// `array_size` is the resolved size where `ty` is an array.
    pub(super) fn check(&self, ty: &Type<'_>, array_size: u32) -> Result<(), E> {
        let kflag = self.owner.kflag;
        match *ty {
            Type::Int(int) if kflag => self.kflag_int(int),
            Type::Int(int) => self.int(int),
            Type::Enum(_) | Type::Enum64(_) if kflag => self.kflag_enum(),
            Type::Enum(e) | Type::Enum64(e) => self.whole_bytes(e.size),
            // Nothing else can be a bit-field.
            _ if self.member.bitfield_size != 0 => Err(E::InvalidMemberBitfieldSize(self.index)),
            Type::Ptr { .. } => self.whole_bytes(PTR_SIZE),
            Type::Array(_) => self.whole_bytes(array_size),
            Type::Struct(c) | Type::Union(c) => self.whole_bytes(c.size),
            Type::Float { size, .. } => self.float(size),
            _ => Err(E::UnsupportedMember(self.index)),
        }
    }

    fn whole_bytes(&self, size: u32) -> Result<(), E> {
        if !self.member.bit_offset.is_multiple_of(8) {
            return Err(E::MemberNotByteAligned(self.index));
        }
        self.fits(self.member.bit_offset / 8, size)
    }

    fn fits(&self, byte: u32, size: u32) -> Result<(), E> {
        match self.owner.size.checked_sub(byte) {
            Some(left) if left >= size => Ok(()),
            _ => Err(E::MemberExceedsStruct(self.index)),
        }
    }

    fn bits_fit(&self, bit_offset: u32, bits: u32) -> Result<(), E> {
        let copied = bits + bit_offset % 8;
        if copied > MAX_COPY_BITS {
            return Err(E::MemberCopyBits(self.index));
        }
        self.fits(bit_offset / 8, copied.div_ceil(8))
    }

    fn int(&self, int: Int<'_>) -> Result<(), E> {
        let offset = self.member.bit_offset.checked_add(u32::from(int.offset));
        let offset = offset.ok_or(E::MemberBitsOverflow(self.index))?;
        self.bits_fit(offset, u32::from(int.bits))
    }

    fn kflag_int(&self, int: Int<'_>) -> Result<(), E> {
        if !is_regular(&int) {
            return Err(E::InvalidMemberBaseType(self.index));
        }
        let offset = self.member.bit_offset;
        let bits = match self.member.bitfield_size {
            0 if !offset.is_multiple_of(8) => return Err(E::InvalidMemberOffset(self.index)),
            0 => int.bits,
            bits if bits > int.bits => return Err(E::InvalidMemberBitfieldSize(self.index)),
            bits => bits,
        };
        self.bits_fit(offset, u32::from(bits))
    }

    /// Enums count as `int` here, whatever their size.
    fn kflag_enum(&self) -> Result<(), E> {
        let offset = self.member.bit_offset;
        let bits = match self.member.bitfield_size {
            0 if !offset.is_multiple_of(8) => return Err(E::MemberNotByteAligned(self.index)),
            0 => 32,
            bits if bits > 32 => return Err(E::InvalidMemberBitfieldSize(self.index)),
            bits => u32::from(bits),
        };
        match self.owner.size < (offset + bits).div_ceil(8) {
            true => Err(E::MemberExceedsStruct(self.index)),
            false => Ok(()),
        }
    }

    fn float(&self, size: u32) -> Result<(), E> {
        let align_bits = size.min(PTR_SIZE) * 8;
        if !self.member.bit_offset.is_multiple_of(align_bits.max(1)) {
            return Err(E::MemberNotAligned(self.index));
        }
        self.fits(self.member.bit_offset / 8, size)
    }
}
