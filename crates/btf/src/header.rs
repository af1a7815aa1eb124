//! `struct btf_header`.

use crate::btf::at;
use crate::error::{BtfErrorKind, Result};
use crate::raw;

/// What `struct btf_header` says after magic, version and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) hdr_len: u32,
    pub(crate) type_off: u32,
    pub(crate) type_len: u32,
    pub(crate) str_off: u32,
    pub(crate) str_len: u32,
    /// Whether header bytes that we do not know are all zero.
    pub(crate) rest_is_zero: bool,
    /// Whole blob.
    pub(crate) total: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Header> {
        use BtfErrorKind as E;
        if bytes.len() > raw::MAX_SIZE {
            return Err(at(0, E::TooLarge(bytes.len())));
        }
        let magic = raw::u16_at(bytes, 0).ok_or(at(0, E::HeaderNotFound))?;
        match magic {
            raw::MAGIC => {}
            m if m.swap_bytes() == raw::MAGIC => return Err(at(0, E::BigEndian(m))),
            m => return Err(at(0, E::InvalidMagic(m))),
        }
        let [version, flags] = match bytes.get(2..4) {
            Some(&[version, flags]) => [version, flags],
            _ => return Err(at(2, E::HeaderNotFound)),
        };
        let word = |i: usize| raw::u32_at(bytes, i).ok_or(at(i as u32, E::HeaderNotFound));
        let header = Header {
            flags,
            hdr_len: word(4)?,
            type_off: word(8)?,
            type_len: word(12)?,
            str_off: word(16)?,
            str_len: word(20)?,
            rest_is_zero: true,
            total: bytes.len() as u32,
        };
        if version != raw::VERSION {
            return Err(at(2, E::UnsupportedVersion(version)));
        }
        if header.hdr_len > header.total {
            return Err(at(4, E::HeaderNotFound));
        }
        if header.hdr_len < raw::HEADER_LEN {
            return Err(at(4, E::UnsupportedHeader(header.hdr_len)));
        }
        let rest = &bytes[raw::HEADER_LEN as usize..header.hdr_len as usize];
        Ok(Header {
            rest_is_zero: rest.iter().all(|&b| b == 0),
            ..header
        })
    }

    /// Both sections, as `btf_parse_hdr` of libbpf bounds them.
    pub(crate) fn sections<'a>(&self, bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
        use BtfErrorKind as E;
        if !self.type_off.is_multiple_of(4) {
            return Err(at(8, E::UnalignedTypeOff));
        }
        let body = &bytes[self.hdr_len as usize..];
        let cut = |off: u32, len: u32| {
            let start = off as usize;
            body.get(start..start.checked_add(len as usize)?)
        };
        let types = cut(self.type_off, self.type_len).ok_or(at(8, E::SectionTooLong))?;
        let strings = cut(self.str_off, self.str_len).ok_or(at(16, E::SectionTooLong))?;
        if u64::from(self.type_off) + u64::from(self.type_len) > u64::from(self.str_off) {
            return Err(at(16, E::SectionOverlap));
        }
        Ok((types, strings))
    }
}
