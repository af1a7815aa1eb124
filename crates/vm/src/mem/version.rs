//! Versions of guest memory: to come back to any of them, in any order, by copying what differs.
//!
//! A [`Version`] names the pages in which it differs from the one below it; pages are shared
//! between versions. Memory knows of which version it is but for its dirty pages, so taking a
//! snapshot copies those, and going to another one copies what the two do not share.

use super::{GuestMem, PAGE};
use crate::shadow::KeptShadow;
use std::cell::RefCell;
use std::rc::Rc;

/// The bytes of a page.
type Page = [u8; PAGE];

/// The bytes of guest memory at one moment, to come back to.
#[derive(Clone)]
pub struct Snapshot {
    next: [u64; 4],
    limit: u64,
    version: Rc<Version>,
    shadow: Option<Box<KeptShadow>>,
}

/// So many pages are named again by the next version rather than left to the one below: looking
/// through them is faster than through a chain.
const NAMED_AGAIN: usize = 48;
/// A version this far up names all pages itself.
const LONGEST_CHAIN: u32 = 32;
/// Pages kept for later snapshots.
const SPARE: usize = 1 << 12;

/// Pages by number, in order, and their bytes.
type Pages = Vec<(u32, Rc<Page>)>;

/// Memory at one moment: zero but for the pages named here and in the versions below.
#[derive(Default)]
pub(super) struct Version {
    below: Option<Rc<Version>>,
    /// Number of versions below.
    height: u32,
    /// Pages named here and below, some of them twice.
    total: usize,
    pages: Pages,
    spare: Rc<RefCell<Vec<Rc<Page>>>>,
}

impl Drop for Version {
    fn drop(&mut self) {
        let mut spare = self.spare.borrow_mut();
        for (_, page) in self.pages.drain(..) {
            if Rc::strong_count(&page) == 1 && spare.len() < SPARE {
                spare.push(page);
            }
        }
    }
}

impl Version {
    /// The bytes of a page; `None` for zeros.
    fn page(&self, number: u32) -> Option<&Rc<Page>> {
        let mut version = self;
        loop {
            match version.pages.binary_search_by_key(&number, |p| p.0) {
                Ok(at) => return Some(&version.pages[at].1),
                Err(_) => version = version.below.as_deref()?,
            }
        }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// What memory becomes that is this version but for these pages.
    fn with(self: &Rc<Version>, written: Pages) -> Version {
        let (below, named) = if self.height >= LONGEST_CHAIN {
            let mut all: Pages = Vec::with_capacity(self.total);
            let mut version = Some(self);
            while let Some(v) = version {
                all.extend(v.pages.iter().cloned());
                version = v.below.as_ref();
            }
            // Stable: of those with the same number the uppermost stays.
            all.sort_by_key(|p| p.0);
            all.dedup_by_key(|p| p.0);
            (None, merged(&all, written))
        } else if self.pages.len() <= NAMED_AGAIN {
            (self.below.clone(), merged(&self.pages, written))
        } else {
            (Some(Rc::clone(self)), written)
        };
        Version {
            height: below.as_ref().map_or(0, |b| b.height + 1),
            total: below.as_ref().map_or(0, |b| b.total) + named.len(),
            below,
            pages: named,
            spare: Rc::clone(&self.spare),
        }
    }
}

/// Both lists; of what is in both, the second's.
fn merged(old: &Pages, new: Pages) -> Pages {
    let mut all = Vec::with_capacity(old.len() + new.len());
    let mut old = old.iter().peekable();
    for page in new {
        while let Some(before) = old.next_if(|o| o.0 < page.0) {
            all.push(before.clone());
        }
        old.next_if(|o| o.0 == page.0);
        all.push(page);
    }
    all.extend(old.cloned());
    all
}

/// Pages that two versions may differ in, with each one's bytes: all that stand above what both
/// have below them. Some come twice.
fn differences(
    a: &Rc<Version>,
    b: &Rc<Version>,
    mut each: impl FnMut(u32, Option<&Rc<Page>>, Option<&Rc<Page>>),
) {
    let same = |x: &Option<Rc<Version>>, y: &Option<Rc<Version>>| match (x, y) {
        (Some(x), Some(y)) => Rc::ptr_eq(x, y),
        (None, None) => true,
        _ => false,
    };
    if Rc::ptr_eq(a, b) {
        return;
    }
    if same(&a.below, &b.below) {
        let base = a.below.as_deref();
        let below = |page: u32| base.and_then(|v| v.page(page));
        let (mut x, mut y) = (a.pages.iter().peekable(), b.pages.iter().peekable());
        loop {
            match (x.peek(), y.peek()) {
                (Some(p), Some(q)) if p.0 == q.0 => {
                    each(p.0, Some(&p.1), Some(&q.1));
                    x.next();
                    y.next();
                }
                (Some(p), q) if q.is_none_or(|q| p.0 < q.0) => {
                    each(p.0, Some(&p.1), below(p.0));
                    x.next();
                }
                (_, Some(q)) => {
                    each(q.0, below(q.0), Some(&q.1));
                    y.next();
                }
                _ => return,
            }
        }
    }
    let (mut x, mut y) = (Some(a), Some(b));
    loop {
        match (x, y) {
            (None, None) => return,
            (Some(v), Some(w)) if Rc::ptr_eq(v, w) => return,
            (Some(v), w) if w.is_none_or(|w| v.height >= w.height) => {
                for (page, _) in &v.pages {
                    each(*page, a.page(*page), b.page(*page));
                }
                x = v.below.as_ref();
            }
            (_, Some(w)) => {
                for (page, _) in &w.pages {
                    each(*page, a.page(*page), b.page(*page));
                }
                y = w.below.as_ref();
            }
            (Some(_), None) => return,
        }
    }
}

impl GuestMem {
    /// Remembers all bytes as they are now, at the cost of the pages written since the last
    /// snapshot or restore.
    pub fn snapshot(&mut self) -> Snapshot {
        if !self.dirty_list.is_empty() {
            let mut written = std::mem::take(&mut self.dirty_list);
            written.sort_unstable();
            let pages = written
                .drain(..)
                .map(|page| {
                    self.dirty()[page as usize] = 0;
                    (page, self.copy_of(page))
                })
                .collect();
            self.dirty_list = written;
            self.version = Rc::new(self.version.with(pages));
        }
        Snapshot {
            next: self.next,
            limit: self.limit,
            version: Rc::clone(&self.version),
            shadow: self.shadow.as_mut().map(|s| Box::new(s.keep())),
        }
    }

    fn copy_of(&self, page: u32) -> Rc<Page> {
        let bytes = self.page(page);
        let spare = self.version.spare.borrow_mut().pop();
        if let Some(mut spare) = spare
            && let Some(to) = Rc::get_mut(&mut spare)
        {
            *to = *bytes;
            return spare;
        }
        Rc::new(*bytes)
    }

    /// Goes back, or on, to the bytes of `snapshot`; what differs is copied. False, and nothing
    /// happens, when it was taken of memory of another
    /// size, or one is checked and the other is not.
    #[must_use]
    pub fn restore(&mut self, snapshot: &Snapshot) -> bool {
        if snapshot.limit != self.limit || snapshot.shadow.is_some() != self.shadow.is_some() {
            return false;
        }
        self.next = snapshot.next;
        if let (Some(now), Some(then)) = (&mut self.shadow, &snapshot.shadow) {
            now.bring_back(then);
        }
        let target = &snapshot.version;
        let mut written = std::mem::take(&mut self.dirty_list);
        for page in written.drain(..) {
            self.dirty()[page as usize] = 0;
            self.put_page(page, target.page(page));
        }
        self.dirty_list = written;
        if !Rc::ptr_eq(&self.version, target) {
            let now = std::mem::replace(&mut self.version, Rc::clone(target));
            differences(&now, target, |page, is, shall_be| {
                let same = match (is, shall_be) {
                    (Some(a), Some(b)) => Rc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
                if !same {
                    self.put_page(page, shall_be);
                }
            });
        }
        true
    }

    fn put_page(&mut self, page: u32, bytes: Option<&Rc<Page>>) {
        let to = self.page_mut(page);
        match bytes {
            Some(bytes) => *to = **bytes,
            None => to.fill(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Area, BASE};

    #[test]
    fn restore_brings_back_every_byte() {
        let mut mem = GuestMem::new().unwrap();
        let a = mem.alloc(Area::Shared, 3 * PAGE as u64, 8).unwrap();
        mem.write_u64(a, 1).unwrap();
        let snap = mem.snapshot();
        assert_eq!(mem.dirty_pages(), 0);
        mem.write_u64(a, 2).unwrap();
        mem.write_u64(a + PAGE as u64 - 4, u64::MAX).unwrap(); // two pages
        assert_eq!(mem.dirty_pages(), 2);
        let b = mem.alloc(Area::Shared, 8, 8).unwrap();
        assert!(mem.restore(&snap));
        assert_eq!(mem.read_u64(a), Some(1));
        assert_eq!(mem.read_u64(a + PAGE as u64 - 4), Some(0));
        assert_eq!(
            mem.alloc(Area::Shared, 8, 8),
            Ok(b),
            "addresses repeat after a restore"
        );
    }

    /// Against a model that copies everything: writes, snapshots and restores in any order, so
    /// many pages that versions form chains.
    #[test]
    fn any_snapshot_is_come_back_to_from_any_other() {
        const PAGES: u64 = 160;
        let mut mem = GuestMem::new().unwrap();
        let base = mem.alloc(Area::Shared, PAGES * PAGE as u64, 1024).unwrap();
        assert_eq!(base, BASE + 0x1000_0000);
        let mut model = vec![0u64; PAGES as usize];
        let mut kept: Vec<(Snapshot, Vec<u64>)> = vec![(mem.snapshot(), model.clone())];
        let mut random = 1u64;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        for step in 1..4000u64 {
            match next(8) {
                0 => kept.push((mem.snapshot(), model.clone())),
                1 => {
                    let (snap, was) = &kept[next(kept.len() as u64) as usize];
                    assert!(mem.restore(snap));
                    model.clone_from(was);
                }
                2 if kept.len() > 40 => {
                    kept.swap_remove(next(kept.len() as u64) as usize);
                }
                // Mostly few pages, now and then many.
                n => {
                    let many = if n == 3 && next(20) == 0 { PAGES } else { 1 };
                    for _ in 0..many {
                        let page = next(PAGES);
                        mem.write_u64(base + page * PAGE as u64, step).unwrap();
                        model[page as usize] = step;
                    }
                }
            }
            for page in [next(PAGES), next(PAGES)] {
                let at = base + page * PAGE as u64;
                assert_eq!(mem.read_u64(at), Some(model[page as usize]), "step {step}");
            }
        }
        for (snap, was) in &kept {
            assert!(mem.restore(snap));
            for page in 0..PAGES {
                let at = base + page * PAGE as u64;
                assert_eq!(mem.read_u64(at), Some(was[page as usize]));
            }
        }
    }
}
