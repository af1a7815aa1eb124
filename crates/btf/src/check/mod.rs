//! The rules of `BPF_BTF_LOAD`, on top of what [`Btf::parse`] has seen.
//!
//! In the kernel's order: header and sections, then each type by itself (`meta`), then what types
//! refer to, cycles and sizes included (`resolve`), then the order of type tags, then the special
//! fields of structs that programs may allocate.

mod member;
mod meta;
mod resolve;

use crate::btf::{Btf, at};
use crate::error::{BtfError, BtfErrorKind as E, Result};
use crate::fields::{self, FieldMask};
use crate::header::Header;
use crate::raw::{self, kind};
use crate::types::{Kind, Type, TypeId};

/// Longest chain of modifiers that `btf_check_type_tags` follows.
const TAG_CHAIN: u32 = 32;
/// Structs of these kinds make a struct that contains them one with special fields.
const ALLOC_OBJ_FIELDS: [&str; 6] = [
    "bpf_spin_lock",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
];

impl Btf {
    /// Holds the BTF to every rule of Linux's `btf_parse`.
    ///
    /// # Errors
    /// What Linux would refuse, with the text that it logs; [`BtfError::errno`] is what it returns.
    pub fn check_as_kernel(&self) -> Result<()> {
        self.header().check_as_kernel(self.base().is_none())?;
        self.check_metas()?;
        self.check_types_as_kernel(None)
    }

    /// Each type by itself.
    pub(crate) fn check_metas(&self) -> Result<()> {
        meta::check_all(self)
    }

    /// What types refer to; each by itself has been checked.
    pub(crate) fn check_types_as_kernel(&self, kernel: Option<&Btf>) -> Result<()> {
        resolve::check_all(self)?;
        self.check_type_tags()?;
        self.check_struct_metas(kernel)
    }

    /// `btf_check_type_tags`: tags come before all other modifiers.
    fn check_type_tags(&self) -> Result<()> {
        let modifier = |id: TypeId| {
            let (kind, next) = self.reference(id)?;
            let modifies = matches!(
                kind,
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG
            );
            modifies.then_some((kind, next))
        };
        let start = self.start_id().0;
        let mut good = start - 1;
        for id in start..self.type_count() {
            let Some((first, _)) = modifier(TypeId(id)) else {
                continue;
            };
            let mut in_tags = first == kind::TYPE_TAG;
            let mut cur = TypeId(id);
            let mut left = TAG_CHAIN;
            while let Some((kind, next)) = modifier(cur) {
                left = match left.checked_sub(1) {
                    Some(left) => left,
                    None => return Err(self.error(TypeId(id), E::ChainTooLong)),
                };
                match (kind == kind::TYPE_TAG, in_tags) {
                    (true, false) => return Err(self.error(TypeId(id), E::TypeTagsOrder)),
                    (tag, _) => in_tags = tag,
                }
                if cur.0 <= good {
                    break;
                }
                cur = next;
            }
            good = id;
        }
        Ok(())
    }

    /// `btf_parse_struct_metas`: structs with special fields must be consistent.
    fn check_struct_metas(&self, kernel: Option<&Btf>) -> Result<()> {
        let named = ALLOC_OBJ_FIELDS.iter();
        let mut special: Vec<TypeId> = named.filter_map(|n| self.find(n, Kind::Struct)).collect();
        let pointers = self.iter().map(|(id, _)| id);
        special.extend(pointers.filter(|&id| fields::is_kptr(self, id)));
        if special.is_empty() {
            return Ok(());
        }
        special.sort_unstable();
        let mut work = fields::WORK_LIMIT;
        for (id, ty) in self.iter() {
            let Type::Struct(c) = ty else {
                continue;
            };
            if !c
                .members
                .iter()
                .any(|m| special.binary_search(&m.ty).is_ok())
            {
                continue;
            }
            let broken = |e| self.error(id, E::SpecialFields(Box::new(e)));
            let found = fields::search(self, id, FieldMask::ALLOCATED, kernel, &mut work);
            let found = found.map_err(broken)?;
            if found.is_empty() {
                return Err(self.error(id, E::NoSpecialFields));
            }
            fields::check_ownership(self, &found).map_err(broken)?;
        }
        Ok(())
    }
}

impl Header {
    /// `btf_parse_hdr`, `btf_check_sec_info`, `btf_parse_str_sec`, `btf_parse_type_sec`, of a BTF that
    /// stands `alone` or on a base.
    pub(crate) fn check_as_kernel(&self, alone: bool) -> Result<()> {
        if !self.rest_is_zero {
            return Err(at(raw::HEADER_LEN, E::UnsupportedHeader(self.hdr_len)));
        }
        if self.flags != 0 {
            return Err(at(3, E::UnsupportedFlags(self.flags)));
        }
        if alone && self.total == self.hdr_len {
            return Err(at(4, E::NoData));
        }
        let expected = self.total - self.hdr_len;
        let mut sections = [
            (self.type_off, self.type_len, 8),
            (self.str_off, self.str_len, 16),
        ];
        // As the kernel compares them: by the sign of a difference that may wrap.
        let order = |a: u32, b: u32| (a.wrapping_sub(b) as i32).cmp(&0);
        sections.sort_by(|x, y| order(x.0, y.0).then(order(x.1, y.1)));
        let mut total = 0;
        for (off, len, place) in sections {
            let what = match off {
                _ if expected < off => E::InvalidSectionOffset,
                _ if total < off => E::UnsupportedSection,
                _ if total > off => E::SectionOverlap,
                _ if expected - total < len => E::SectionTooLong,
                _ => {
                    total += len;
                    continue;
                }
            };
            return Err(at(place, what));
        }
        if expected != total {
            return Err(at(16, E::UnsupportedSection));
        }
        if self.str_off + self.str_len != expected {
            return Err(at(16, E::StringsNotAtEnd));
        }
        let bad_len = self.str_len == 0 || self.str_len - 1 > raw::MAX_NAME_OFFSET;
        if bad_len && (alone || self.str_len != 0) {
            return Err(at(20, E::InvalidStrings));
        }
        match alone && self.type_len == 0 {
            true => Err(at(12, E::NoTypeFound)),
            false => Ok(()),
        }
    }
}

impl BtfError {
    /// What `BPF_BTF_LOAD` returns for it.
    pub fn errno(&self) -> i32 {
        const E2BIG: i32 = 7;
        const EFAULT: i32 = 14;
        const EEXIST: i32 = 17;
        const EINVAL: i32 = 22;
        const ELOOP: i32 = 40;
        const ENOTSUPP: i32 = 524;
        match &self.what {
            E::TooLarge(_) | E::TooManyTypes | E::TooDeep(_) => E2BIG,
            E::UnsupportedHeader(len) if *len >= raw::HEADER_LEN => E2BIG,
            E::UnsupportedVersion(_) | E::UnsupportedFlags(_) | E::UnsupportedEncoding => ENOTSUPP,
            E::Loop => EEXIST,
            E::ChainTooLong => ELOOP,
            E::NoSpecialFields => EFAULT,
            E::SpecialFields(e) => e.errno(),
            _ => EINVAL,
        }
    }
}
