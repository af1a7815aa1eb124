//! The memory of user space, page by page.

use crate::shared::Shared;
use bpfsim_abi::Errno;
use std::collections::BTreeMap;
use std::ops::Range;

const PAGE: u64 = 4096;

/// What user space, and who reads and writes its memory, may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protection {
    /// Nothing: `PROT_NONE`
    None,
    /// Read: `PROT_READ`
    Read,
    /// Read and write: `PROT_READ | PROT_WRITE`
    #[default]
    ReadWrite,
}

#[derive(Clone)]
struct Page {
    bytes: Shared<[u8; PAGE as usize]>,
    protection: Protection,
}

/// User memory of one task: pages that were written or mapped; all else faults.
#[derive(Default, Clone)]
pub(crate) struct UserMem {
    pages: BTreeMap<u64, Page>,
    /// Pages that are not in memory yet, and how long it takes to bring them in, in ns.
    absent: BTreeMap<u64, u64>,
}

/// The pages that a range touches.
fn pages(addr: u64, len: u64) -> Range<u64> {
    match len {
        0 => 0..0,
        _ => addr / PAGE..addr.saturating_add(len - 1) / PAGE + 1,
    }
}

impl UserMem {
    /// Maps what is not mapped yet and writes, whatever the protection.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) {
        for (i, &b) in bytes.iter().enumerate() {
            let at = addr.wrapping_add(i as u64);
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Page {
                bytes: Shared::new([0; PAGE as usize]),
                protection: Protection::ReadWrite,
            });
            page.bytes[(at % PAGE) as usize] = b;
        }
    }

    /// `copy_to_user_nofault`: up to where writing faults. Gives how many bytes were written.
    pub fn store(&mut self, addr: u64, bytes: &[u8]) -> usize {
        for (i, &b) in bytes.iter().enumerate() {
            let at = addr.wrapping_add(i as u64);
            let there = !self.absent.contains_key(&(at / PAGE));
            let page = self.pages.get_mut(&(at / PAGE)).filter(|_| there);
            let Some(page) = page.filter(|p| p.protection == Protection::ReadWrite) else {
                return i;
            };
            page.bytes[(at % PAGE) as usize] = b;
        }
        bytes.len()
    }

    /// The first area of memory that ends after an address: pages of one protection without a gap.
    pub fn area_after(&self, addr: u64) -> Option<(Range<u64>, Protection)> {
        let (&start, page) = self.pages.range(addr / PAGE..).next()?;
        let is = |at: u64| {
            let page_there = self.pages.get(&at);
            page_there.is_some_and(|p| p.protection == page.protection)
        };
        let (mut start, mut end) = (start, start + 1);
        while start > 0 && is(start - 1) {
            start -= 1;
        }
        while is(end) {
            end += 1;
        }
        Some((start * PAGE..end * PAGE, page.protection))
    }

    /// One byte, or `None` where reading it faults, be it only because it has to be brought in.
    pub fn byte(&self, addr: u64) -> Option<u8> {
        if !self.absent.is_empty() && self.absent.contains_key(&(addr / PAGE)) {
            return None;
        }
        let page = self.pages.get(&(addr / PAGE))?;
        (page.protection != Protection::None).then(|| page.bytes[(addr % PAGE) as usize])
    }

    /// One byte, whatever the protection.
    pub fn raw(&self, addr: u64) -> Option<u8> {
        Some(self.pages.get(&(addr / PAGE))?.bytes[(addr % PAGE) as usize])
    }

    /// The page of an address is brought in only when it is touched.
    pub fn page_out(&mut self, addr: u64, ns: u64) {
        self.absent.insert(addr / PAGE, ns);
    }

    /// The pages that a range touches are there no more.
    pub fn unmap(&mut self, addr: u64, len: u64) {
        let gone = pages(addr, len);
        self.pages.retain(|at, _| !gone.contains(at));
        self.absent.retain(|at, _| !gone.contains(at));
    }

    /// Changes the protection of the pages that a range touches, up to one that is not mapped.
    pub fn protect(&mut self, addr: u64, len: u64, to: Protection) -> Result<(), Errno> {
        for at in pages(addr, len) {
            let page = self.pages.get_mut(&at).ok_or(Errno::ENOMEM)?;
            page.protection = to;
        }
        Ok(())
    }

    /// Begins to bring in the first absent page of a range; gives how long that takes, in ns.
    pub fn fault(&mut self, addr: u64, len: u64) -> Option<u64> {
        if self.absent.is_empty() {
            return None;
        }
        let last = addr.saturating_add(len.saturating_sub(1)) / PAGE;
        let (&page, _) = self.absent.range(addr / PAGE..=last).next()?;
        self.absent.remove(&page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_end_where_the_protection_changes() {
        let mut user = UserMem::default();
        user.write(0x1ffc, &[7; 0x2008]);
        assert_eq!(
            user.area_after(0),
            Some((0x1000..0x5000, Protection::ReadWrite))
        );
        user.protect(0x2fff, 1, Protection::Read).unwrap();
        assert_eq!(
            user.area_after(0x2000),
            Some((0x2000..0x3000, Protection::Read))
        );
        assert_eq!(user.area_after(0x3001).map(|a| a.0), Some(0x3000..0x5000));
        user.unmap(0x3000, 1);
        assert_eq!(user.area_after(0x3001).map(|a| a.0), Some(0x4000..0x5000));
        assert_eq!(
            user.protect(0x2000, 0x2000, Protection::None),
            Err(Errno::ENOMEM)
        );
        assert_eq!(user.byte(0x2000), None);
        assert_eq!(user.area_after(0x5000), None);
    }

    #[test]
    fn writing_stops_where_it_faults() {
        let mut user = UserMem::default();
        user.write(0x1000, &[0; 0x2000]);
        user.protect(0x2000, 1, Protection::Read).unwrap();
        assert_eq!(user.store(0x1ffe, &[1; 8]), 2);
        assert_eq!((user.byte(0x1fff), user.byte(0x2000)), (Some(1), Some(0)));
        user.page_out(0x1000, 5);
        assert_eq!((user.store(0x1000, &[1]), user.byte(0x1fff)), (0, None));
        assert_eq!(user.fault(0x1ff0, 0x20), Some(5));
        assert_eq!(user.store(0x1000, &[1]), 1);
    }
}
