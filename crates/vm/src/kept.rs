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

/// Rows as they were, in parts that those of other moments share if they are the same there.
#[derive(Debug)]
pub(crate) struct KeptRows<T> {
    len: usize,
    /// Of [`PART`] rows each, but for the last.
    parts: Vec<Rc<[T]>>,
}

const PART: usize = 16;

impl<T> Default for KeptRows<T> {
    fn default() -> Self {
        let (len, parts) = (0, Vec::new());
        KeptRows { len, parts }
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
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty() || self.now.len() != self.kept.len
    }

    /// Any row may have been changed.
    fn is_any_changed(&self) -> bool {
        self.changed.len() >= self.kept.len
    }

    /// The rows as they are now, to be brought back.
    pub fn keep(&mut self) -> Rc<KeptRows<T>> {
        if self.is_changed() {
            let parts = self.now.chunks(PART).enumerate();
            let parts = parts.map(|(i, rows)| match self.kept.parts.get(i) {
                Some(part) if part.len() == rows.len() && !self.is_part_changed(i) => {
                    Rc::clone(part)
                }
                _ => Rc::from(rows),
            });
            let (len, parts) = (self.now.len(), parts.collect());
            self.kept = Rc::new(KeptRows { len, parts });
            self.changed.clear();
        }
        Rc::clone(&self.kept)
    }

    fn is_part_changed(&self, part: usize) -> bool {
        let lies = |&at: &u32| at as usize / PART == part;
        self.is_any_changed() || self.changed.iter().any(lies)
    }

    /// Makes them what they were.
    #[inline]
    pub fn bring_back(&mut self, kept: &Rc<KeptRows<T>>) {
        let same = Rc::ptr_eq(kept, &self.kept);
        if same && !self.is_changed() {
            return;
        }
        self.now.truncate(kept.len);
        let all = self.is_any_changed();
        for &at in self.changed.iter().filter(|_| !all) {
            let at = at as usize;
            if let Some(row) = self.now.get_mut(at) {
                *row = kept.parts[at / PART][at % PART];
            }
        }
        if all || !same {
            self.bring_parts_back(kept, all);
        }
        self.changed.clear();
    }

    /// The parts in which they are not what they are now.
    #[inline(never)]
    fn bring_parts_back(&mut self, kept: &Rc<KeptRows<T>>, all: bool) {
        for (i, part) in kept.parts.iter().enumerate() {
            let is = |own: &Rc<[T]>| Rc::ptr_eq(own, part);
            if !all && self.kept.parts.get(i).is_some_and(is) {
                continue;
            }
            let start = i * PART;
            let there = part.len().min(self.now.len() - start);
            self.now[start..start + there].copy_from_slice(&part[..there]);
            self.now.extend_from_slice(&part[there..]);
        }
        self.kept = Rc::clone(kept);
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

    /// As [`Rows::is_changed`].
    pub fn is_changed(&self) -> bool {
        !self.added.is_empty()
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
                0 => kept.push((rows.keep(), numbers.keep(), model.clone())),
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
