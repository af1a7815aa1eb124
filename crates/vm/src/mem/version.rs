//! Versions of guest memory: to come back to any of them, in any order, by copying what differs.
//!
//! A [`Version`] is the step from the one below it: the pages that were written between the two, as
//! they were and as they became. Memory knows the pages of the version that it is but for its dirty
//! pages. So taking a snapshot copies those, and going to another version takes the steps down to what
//! both have below them and up from there. Versions can lie side by side, too, each a step from one
//! that they begin with: between such only the pages are looked at that are not the same.

use super::{GuestMem, NOT_HOT, PAGE};
use crate::shadow::{ByWord, KeptShadow, Shadow};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
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

/// What a moment that is come back to is among others: that tells what is quick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Many follow that differ little from it.
    Beginning,
    /// One after another: it is come back to from those that follow.
    OnTheWay,
    /// One of many that follow on a beginning: it is come to from any of them.
    Beside,
}

/// Pages, and versions, kept for later snapshots.
const SPARE: usize = 1 << 12;

/// A page that a step changes: its number, and its bytes before and after; `None` for zeros.
#[derive(Clone)]
struct Change {
    page: u32,
    before: Option<Rc<Page>>,
    after: Option<Rc<Page>>,
}

/// Memory at one moment.
#[derive(Default)]
pub(super) struct Version(RefCell<Step>);

/// What makes a version of the one below it. The lowest is zero.
#[derive(Default)]
struct Step {
    /// More than that of the version below.
    height: u32,
    below: Option<Rc<Version>>,
    /// It is of a [`Moment::Beside`].
    beside: bool,
    /// By page.
    changes: Vec<Change>,
}

/// The pages of a version that are not zero.
pub(super) type Pages = HashMap<u32, Rc<Page>, BuildHasherDefault<ByWord>>;

/// Memory of versions that nobody needs any more, for later ones.
#[derive(Default)]
pub(super) struct Spare {
    pages: Vec<Rc<Page>>,
    versions: Vec<Rc<Version>>,
    /// Empty: the memory of a way from one version to another.
    way: Vec<Rc<Version>>,
}

impl Drop for Version {
    fn drop(&mut self) {
        // Long chains must not be dropped by recursion.
        let mut below = self.0.get_mut().below.take();
        while let Some(mut version) = below.and_then(Rc::into_inner) {
            below = version.0.get_mut().below.take();
        }
    }
}

impl Spare {
    /// A version that was held is not any more.
    fn give(&mut self, mut version: Rc<Version>) {
        while let Some(own) = Rc::get_mut(&mut version) {
            let step = own.0.get_mut();
            let pages = step.changes.drain(..).flat_map(|c| [c.before, c.after]);
            for page in pages.flatten() {
                if Rc::strong_count(&page) == 1 && self.pages.len() < SPARE {
                    self.pages.push(page);
                }
            }
            let below = step.below.take();
            if self.versions.len() < SPARE {
                self.versions.push(version);
            }
            match below {
                Some(below) => version = below,
                None => return,
            }
        }
    }
}

/// These bytes, in memory that nobody needs any more where there is some.
fn copied(bytes: &Page, spare: Option<Rc<Page>>) -> Rc<Page> {
    if let Some(mut spare) = spare
        && let Some(to) = Rc::get_mut(&mut spare)
    {
        *to = *bytes;
        return spare;
    }
    Rc::new(*bytes)
}

impl Version {
    fn below(&self) -> Option<Rc<Version>> {
        self.0.borrow().below.clone()
    }

    fn height(&self) -> u32 {
        self.0.borrow().height
    }

    /// Both are steps from one version.
    fn is_beside(&self, other: &Version) -> bool {
        let (a, b) = (self.0.borrow(), other.0.borrow());
        match (&a.below, &b.below) {
            (Some(below), Some(other)) => a.beside && Rc::ptr_eq(below, other),
            _ => false,
        }
    }

    /// Takes in the steps below that nobody else goes by.
    fn absorb(&self) {
        let step = &mut *self.0.borrow_mut();
        while let Some(below) = step.below.take_if(|b| Rc::strong_count(b) == 1) {
            let mut lower = below.0.borrow_mut();
            step.below = lower.below.take();
            let first = std::mem::take(&mut lower.changes);
            let second = std::mem::take(&mut step.changes);
            merge(&first, &second, &mut step.changes);
        }
    }
}

/// Calls `f` with what two steps change, by page.
#[inline]
fn both(a: &[Change], b: &[Change], mut f: impl FnMut(Option<&Change>, Option<&Change>)) {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(a), Some(b)) => a.page.cmp(&b.page),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        f(a.next_if(|_| order.is_le()), b.next_if(|_| order.is_ge()));
    }
}

/// Two steps, one after the other, as one.
fn merge(first: &[Change], second: &[Change], all: &mut Vec<Change>) {
    both(first, second, |first, second| {
        if let (Some(one), Some(last)) = (first.or(second), second.or(first)) {
            all.push(Change {
                page: one.page,
                before: one.before.clone(),
                after: last.after.clone(),
            });
        }
    });
}

impl Step {
    /// If it is from a version beside, it becomes one from what that is a step from.
    fn put_beside(&mut self) {
        let Some(last) = self.below.take_if(|last| last.0.borrow().beside) else {
            return;
        };
        let last = last.0.borrow();
        let own = std::mem::take(&mut self.changes);
        merge(&last.changes, &own, &mut self.changes);
        (self.height, self.below) = (last.height, last.below.clone());
    }
}

impl GuestMem {
    /// Remembers all bytes as they are now, at the cost of the pages written since the last
    /// snapshot or restore.
    pub fn snapshot(&mut self) -> Snapshot {
        self.snapshot_of(Moment::Beginning)
    }

    /// [`GuestMem::snapshot`] of a moment of this kind.
    pub fn snapshot_of(&mut self, moment: Moment) -> Snapshot {
        self.keep_bytes(moment == Moment::Beside);
        let keep = |s: &mut Box<Shadow>| Box::new(s.keep(moment == Moment::Beginning));
        Snapshot {
            next: self.next,
            limit: self.limit,
            version: Rc::clone(&self.version),
            shadow: self.shadow.as_mut().map(keep),
        }
    }

    /// A snapshot on the way, in the place and the memory of an older one.
    pub fn snapshot_into(&mut self, old: &mut Snapshot) {
        self.keep_bytes(false);
        (old.next, old.limit) = (self.next, self.limit);
        let was = std::mem::replace(&mut old.version, Rc::clone(&self.version));
        self.spare.give(was);
        match (&mut self.shadow, &mut old.shadow) {
            (Some(now), Some(old)) => now.keep_in(old),
            (now, old) => *old = now.as_mut().map(|s| Box::new(s.keep(false))),
        }
    }

    /// Memory becomes a version.
    fn keep_bytes(&mut self, beside: bool) {
        if self.dirty_list.is_empty() {
            return;
        }
        self.version.absorb();
        self.hot = NOT_HOT;
        let mut written = std::mem::take(&mut self.dirty_list);
        written.sort_unstable();
        let new = self.spare.versions.pop().unwrap_or_default();
        let step = &mut *new.0.borrow_mut();
        for page in written.drain(..) {
            self.dirty()[page as usize] = 0;
            let spare = self.spare.pages.pop();
            let after = copied(self.page(page), spare);
            step.changes.push(Change {
                page,
                before: self.pages.insert(page, Rc::clone(&after)),
                after: Some(after),
            });
        }
        self.dirty_list = written;
        let last = std::mem::replace(&mut self.version, Rc::clone(&new));
        step.height = last.height() + 1;
        step.beside = beside;
        step.below = Some(last);
        if beside {
            step.put_beside();
        }
    }

    /// Snapshots were dropped between others that are still there: what was kept for those alone is
    /// given up.
    pub fn forget_between(&self) {
        let mut version = Some(Rc::clone(&self.version));
        while let Some(v) = version {
            v.absorb();
            version = v.below();
        }
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
        if !Rc::ptr_eq(&self.version, &snapshot.version) {
            self.go_to(&snapshot.version);
        }
        self.hot = NOT_HOT;
        let mut written = std::mem::take(&mut self.dirty_list);
        for page in written.drain(..) {
            self.dirty()[page as usize] = 0;
            self.put_page(page);
        }
        self.dirty_list = written;
        true
    }

    /// Has another version below the dirty pages, to which those in which it differs are added.
    fn go_to(&mut self, target: &Rc<Version>) {
        let mut up = std::mem::take(&mut self.spare.way);
        // Below the lowest versions all is zero.
        let (mut from, mut to) = (Some(Rc::clone(&self.version)), Some(Rc::clone(target)));
        loop {
            match (from.take(), to.take()) {
                (Some(a), Some(b)) if Rc::ptr_eq(&a, &b) => break,
                (Some(a), Some(b)) if a.is_beside(&b) => {
                    self.go_beside(&a, &b);
                    break;
                }
                (Some(a), b) if b.as_ref().is_none_or(|b| a.height() >= b.height()) => {
                    let step = a.0.borrow();
                    step.changes
                        .iter()
                        .for_each(|c| self.set(c.page, &c.before));
                    (from, to) = (step.below.clone(), b);
                }
                (a, Some(b)) => {
                    (from, to) = (a, b.below());
                    up.push(b);
                }
                (_, None) => break,
            }
        }
        for version in up.drain(..).rev() {
            let step = version.0.borrow();
            step.changes.iter().for_each(|c| self.set(c.page, &c.after));
        }
        self.spare.way = up;
        let was = std::mem::replace(&mut self.version, Rc::clone(target));
        self.spare.give(was);
    }

    /// Goes from one version to another that is a step from the same one.
    fn go_beside(&mut self, from: &Version, to: &Version) {
        let (from, to) = (from.0.borrow(), to.0.borrow());
        both(&from.changes, &to.changes, |from, to| {
            let is = from.map(|from| &from.after);
            let Some(to) = to
                .map(|to| (to.page, &to.after))
                .or(from.map(|from| (from.page, &from.before)))
            else {
                return;
            };
            let same = match (is, to.1) {
                (Some(Some(is)), Some(to)) => Rc::ptr_eq(is, to),
                _ => false,
            };
            if !same {
                self.set(to.0, to.1);
            }
        });
    }

    /// A page is this in the version that memory goes to.
    fn set(&mut self, page: u32, bytes: &Option<Rc<Page>>) {
        match bytes {
            Some(bytes) => self.pages.insert(page, Rc::clone(bytes)),
            None => self.pages.remove(&page),
        };
        if self.dirty()[page as usize] == 0 {
            self.dirty()[page as usize] = 1;
            self.dirty_list.push(page);
        }
    }

    /// Makes a page what it is in the version.
    fn put_page(&mut self, page: u32) {
        let bytes = self.pages.get(&page).cloned();
        let to = self.page_mut(page);
        match bytes {
            Some(bytes) => *to = *bytes,
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
                0 => {
                    let kinds = [Moment::Beginning, Moment::OnTheWay, Moment::Beside];
                    let snap = mem.snapshot_of(kinds[next(3) as usize]);
                    kept.push((snap, model.clone()));
                }
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
