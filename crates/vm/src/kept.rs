//! What goes back to what it was: plain rows, and numbers by word, by undoing what was changed since;
//! other values by copying them, if they were changed.
//!
//! Executions of a test begin in one state and change little of it: going back costs what was
//! changed, and copies of the state share what they have in common.

use crate::shadow::ByWord;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::{Deref, DerefMut, Index};
use std::rc::Rc;

/// Rows that are changed here and there, and added at the end.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    now: Vec<T>,
    /// What they were when they were last [kept](Rows::keep) or brought back.
    kept: Rc<KeptRows<T>>,
    /// Rows of `kept` that were changed since, some of them more than once; if there are as many as rows,
    /// any may have been.
    changed: Vec<u32>,
}

/// Rows as they were: as at a moment before, but for a few.
#[derive(Debug)]
pub(crate) struct KeptRows<T> {
    len: usize,
    before: Rc<[T]>,
    /// By row, those that were others or more.
    others: Vec<(u32, T)>,
}

/// So many rows at most are kept as others than before.
const MOST: usize = 32;

impl<T> Default for KeptRows<T> {
    fn default() -> Self {
        KeptRows {
            len: 0,
            before: Rc::new([]),
            others: Vec::new(),
        }
    }
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows {
            now: Vec::new(),
            kept: Rc::default(),
            changed: Vec::new(),
        }
    }
}

impl<T: Copy> Rows<T> {
    pub fn new(first: T) -> Rows<T> {
        Rows {
            now: vec![first],
            ..Rows::default()
        }
    }

    pub fn len(&self) -> usize {
        self.now.len()
    }

    #[inline(always)]
    pub fn all(&self) -> &[T] {
        &self.now
    }

    pub fn push(&mut self, row: T) {
        self.now.push(row);
    }

    /// A row that is going to be changed.
    #[inline]
    pub fn change(&mut self, at: usize) -> &mut T {
        let again = self.changed.last() == Some(&(at as u32));
        if at < self.kept.len && self.changed.len() < self.kept.len && !again {
            self.changed.push(at as u32);
        }
        &mut self.now[at]
    }

    /// They are not what they were when they were last kept or brought back; or may not be.
    fn is_changed(&self) -> bool {
        !self.changed.is_empty() || self.now.len() != self.kept.len
    }

    /// Any row may have been changed.
    fn is_any_changed(&self) -> bool {
        self.changed.len() >= self.kept.len
    }

    /// The rows as they are now, to be brought back.
    pub fn keep(&mut self) -> Rc<KeptRows<T>> {
        if self.is_changed() {
            let (len, any) = (self.now.len() as u32, self.is_any_changed());
            self.changed.extend(self.kept.others.iter().map(|o| o.0));
            self.changed.extend(self.kept.len as u32..len);
            self.changed.sort_unstable();
            self.changed.dedup();
            if any || self.changed.len() > MOST {
                self.copy();
            } else {
                let others = self.changed.drain(..);
                self.kept = Rc::new(KeptRows {
                    len: len as usize,
                    before: Rc::clone(&self.kept.before),
                    others: others.map(|at| (at, self.now[at as usize])).collect(),
                });
            }
        }
        Rc::clone(&self.kept)
    }

    /// Keeps a copy of all, from which those that are kept later are told.
    pub fn copy(&mut self) {
        self.changed.clear();
        self.kept = Rc::new(KeptRows {
            len: self.now.len(),
            before: Rc::from(&self.now[..]),
            others: Vec::new(),
        });
    }

    /// Makes them what they were.
    #[inline]
    pub fn bring_back(&mut self, kept: &Rc<KeptRows<T>>) {
        if !Rc::ptr_eq(kept, &self.kept) || self.is_changed() {
            self.bring_all_back(kept);
        }
    }

    #[inline(never)]
    fn bring_all_back(&mut self, kept: &Rc<KeptRows<T>>) {
        let before = &kept.before;
        if self.is_any_changed() || !Rc::ptr_eq(before, &self.kept.before) {
            self.now.clear();
            self.now.extend_from_slice(before);
        } else {
            self.now.truncate(kept.len);
            let others = self.kept.others.iter().map(|o| o.0);
            for at in self.changed.iter().copied().chain(others) {
                if let Some(row) = before.get(at as usize) {
                    self.now[at as usize] = *row;
                }
            }
        }
        for &(at, row) in &kept.others {
            match self.now.get_mut(at as usize) {
                Some(now) => *now = row,
                None => self.now.push(row),
            }
        }
        self.kept = Rc::clone(kept);
        self.changed.clear();
    }
}

impl<T: Copy> Index<usize> for Rows<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, at: usize) -> &T {
        &self.now[at]
    }
}

/// A value that is copied only if it was changed since it was last kept or brought back.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    now: Box<T>,
    /// Equal to `now`.
    kept: Option<Rc<T>>,
}

impl<T> Kept<T> {
    pub fn new(now: T) -> Kept<T> {
        let now = Box::new(now);
        Kept { now, kept: None }
    }

    /// It is going to be changed, again and again: [`Kept::opened`].
    #[inline(always)]
    pub fn open(&mut self) {
        // Written to only where it must be: who moves both as a whole next would wait for the cache.
        if self.kept.is_some() {
            self.kept = None;
        }
    }

    /// The value, while it is open.
    #[inline(always)]
    pub fn opened(&mut self) -> &mut T {
        debug_assert!(
            self.kept.is_none(),
            "what was kept is not the same any more"
        );
        &mut self.now
    }
}

impl<T: Clone> Kept<T> {
    /// The value as it is now, to be brought back.
    pub fn keep(&mut self) -> Rc<T> {
        let now = &*self.now;
        Rc::clone(self.kept.get_or_insert_with(|| Rc::new(now.clone())))
    }

    /// [`Kept::keep`] in the place, and the memory if nobody else needs it, of what was kept before.
    pub fn keep_in(&mut self, old: &mut Rc<T>) {
        match (&self.kept, Rc::get_mut(old)) {
            (Some(kept), _) => old.clone_from(kept),
            (None, Some(memory)) => {
                memory.clone_from(&self.now);
                self.kept = Some(Rc::clone(old));
            }
            (None, None) => *old = self.keep(),
        }
    }

    /// Makes it what it was.
    pub fn bring_back(&mut self, kept: &Rc<T>) {
        if !self.kept.as_ref().is_some_and(|k| Rc::ptr_eq(k, kept)) {
            self.now.as_mut().clone_from(kept);
            self.kept = Some(Rc::clone(kept));
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.now
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.kept = None;
        &mut self.now
    }
}

/// A value that knows whether it may have been changed since somebody said that it is as he knows it.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    now: T,
    changed: bool,
}

impl<T> Watched<T> {
    pub fn new(now: T) -> Watched<T> {
        let changed = true;
        Watched { now, changed }
    }

    #[inline]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The value, to be looked at and made what is known.
    pub fn known(&mut self) -> &mut T {
        self.changed = false;
        &mut self.now
    }
}

impl<T> Deref for Watched<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.now
    }
}

impl<T> DerefMut for Watched<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.now
    }
}

type Map = HashMap<u64, u32, BuildHasherDefault<ByWord>>;

/// Numbers by address, to which others are added.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    now: Map,
    kept: Rc<Map>,
    added: Vec<u64>,
}

impl Numbers {
    pub fn get(&self, addr: u64) -> Option<u32> {
        self.now.get(&addr).copied()
    }

    /// Of an address that has none.
    pub fn add(&mut self, addr: u64, number: u32) {
        self.now.insert(addr, number);
        self.added.push(addr);
    }

    /// As [`Rows::keep`].
    pub fn keep(&mut self) -> Rc<Map> {
        if !self.added.is_empty() {
            self.kept = Rc::new(self.now.clone());
            self.added.clear();
        }
        Rc::clone(&self.kept)
    }

    /// As [`Rows::bring_back`].
    #[inline]
    pub fn bring_back(&mut self, kept: &Rc<Map>) {
        if Rc::ptr_eq(kept, &self.kept) {
            for addr in self.added.drain(..) {
                self.now.remove(&addr);
            }
        } else {
            self.now.clone_from(kept);
            self.added.clear();
            self.kept = Rc::clone(kept);
        }
    }
}

/// What [`Numbers::keep`] gives.
pub(crate) type KeptNumbers = Rc<Map>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Against copies: changes, additions, keeping, going back to any of what was kept.
    #[test]
    fn go_back_to_what_they_were() {
        let (mut rows, mut numbers) = (Rows::new(0u64), Numbers::default());
        let mut model: (Vec<u64>, Vec<(u64, u32)>) = (vec![0], Vec::new());
        let mut kept = vec![(rows.keep(), numbers.keep(), model.clone())];
        let mut random = 1u64;
        let mut next = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        for step in 1..5000u64 {
            match next(12) {
                0 => {
                    if next(4) == 0 {
                        rows.copy();
                    }
                    kept.push((rows.keep(), numbers.keep(), model.clone()));
                }
                1..4 => {
                    let last = kept.len() as u64 - 1;
                    let at = if next(2) == 0 { last } else { next(last + 1) };
                    let (r, n, was) = &kept[at as usize];
                    rows.bring_back(r);
                    numbers.bring_back(n);
                    model.clone_from(was);
                }
                4 => {
                    rows.push(step);
                    model.0.push(step);
                    numbers.add(step, step as u32);
                    model.1.push((step, step as u32));
                }
                _ => {
                    let at = next(rows.len() as u64) as usize;
                    *rows.change(at) = step;
                    model.0[at] = step;
                }
            }
            assert_eq!(rows.all(), &model.0);
            assert_eq!(numbers.now.len(), model.1.len());
            for (addr, number) in &model.1 {
                assert_eq!(numbers.get(*addr), Some(*number));
            }
        }
    }
}
