//! What is written down one after another, and gone back in by leaving out what came last.

use smallvec::SmallVec;
use std::ops::Deref;
use std::rc::Rc;

/// A list that grows, marks of which share what they have in common.
#[derive(Clone, Debug)]
pub(crate) struct Log<T> {
    items: Vec<T>,
    /// The items up to the last mark.
    marked: LogMark<T>,
}

/// A log as it was at one moment, for [`Log::restore`].
#[derive(Debug)]
pub(crate) struct LogMark<T>(Option<Rc<Chunk<T>>>);

/// Items that marks share: those after the ones below, as far as the `len`th.
#[derive(Debug)]
struct Chunk<T> {
    below: LogMark<T>,
    /// Made by [`Log::mark_beside`].
    beside: bool,
    len: usize,
    items: Vec<T>,
}

impl<T> Default for LogMark<T> {
    fn default() -> Self {
        LogMark(None)
    }
}

impl<T> Clone for LogMark<T> {
    fn clone(&self) -> Self {
        LogMark(self.0.clone())
    }

    fn clone_from(&mut self, from: &Self) {
        if !self.is(from) {
            self.0.clone_from(&from.0);
        }
    }
}

impl<T> LogMark<T> {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunk| chunk.len)
    }

    /// Nobody goes back to it any more: what is below it need not be kept for it.
    pub fn let_go(&mut self) {
        if let Some(own) = self.0.as_mut().and_then(Rc::get_mut) {
            own.below = LogMark::default();
        }
    }

    fn is(&self, other: &LogMark<T>) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Long chains must not be dropped by recursion.
impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        let mut below = self.below.0.take();
        while let Some(mut chunk) = below.and_then(Rc::into_inner) {
            below = chunk.below.0.take();
        }
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Log {
            items: Vec::new(),
            marked: LogMark::default(),
        }
    }
}

impl<T> Log<T> {
    #[inline]
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Leaves out all items.
    pub fn clear(&mut self) {
        self.items.clear();
        self.marked = LogMark::default();
    }
}

impl<T: Clone> Log<T> {
    /// Marks it as it is now, one of many moments of which each is come to from any other: they lie side
    /// by side on the last mark of another kind.
    pub fn mark_beside(&mut self) -> LogMark<T> {
        let (from, len) = (self.marked.len(), self.items.len());
        if from < len {
            let last = self.marked.0.as_deref().filter(|last| last.beside);
            let below = last.map_or(&self.marked, |last| &last.below).clone();
            let items = self.items[below.len()..].to_vec();
            self.marked = LogMark(Some(Rc::new(Chunk {
                below,
                beside: true,
                len,
                items,
            })));
        }
        self.marked.clone()
    }

    /// Marks it as it is now, in the place, and the memory if nobody else needs it, of an older mark.
    pub fn mark_in(&mut self, old: &mut LogMark<T>) {
        let (from, len) = (self.marked.len(), self.items.len());
        if from < len {
            let below = std::mem::take(&mut self.marked);
            let new = &self.items[from..];
            let mut chunk = std::mem::take(old).0;
            match chunk.as_mut().and_then(Rc::get_mut) {
                Some(own) => {
                    (own.below, own.beside, own.len) = (below, false, len);
                    own.items.clear();
                    own.items.extend_from_slice(new);
                    self.marked = LogMark(chunk);
                }
                None => {
                    let items = new.to_vec();
                    self.marked = LogMark(Some(Rc::new(Chunk {
                        below,
                        beside: false,
                        len,
                        items,
                    })));
                }
            }
        }
        old.clone_from(&self.marked);
    }

    /// Goes back, or on, to what it was when it was marked.
    pub fn restore(&mut self, mark: &LogMark<T>) {
        if self.marked.is(mark) {
            return self.items.truncate(mark.len());
        }
        let (mut now, mut target) = (&self.marked, mark);
        let mut missing: SmallVec<[&Chunk<T>; 16]> = SmallVec::new();
        // Down to what both have in common: the later one of two cannot be below the other.
        loop {
            match (&now.0, &target.0) {
                (Some(a), Some(b)) if Rc::ptr_eq(a, b) => break,
                (Some(a), b) if a.len > b.as_ref().map_or(0, |b| b.len) => now = &a.below,
                (_, Some(b)) => {
                    missing.push(b);
                    target = &b.below;
                }
                (_, None) => break,
            }
        }
        self.items.truncate(target.len());
        while let Some(chunk) = missing.pop() {
            self.items.extend_from_slice(&chunk.items);
        }
        self.marked.clone_from(mark);
    }
}

impl<T> Deref for Log<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against copies: items, marks, none at all, going back and on to any mark.
    #[test]
    fn goes_to_any_mark() {
        let (mut log, mut model) = (Log::default(), Vec::new());
        let mut kept = vec![(LogMark::default(), model.clone())];
        let mut random = 1;
        let mut next = |n: u64| {
            random = crate::ids::mix(random, n);
            random % n
        };
        for step in 0..5_000 {
            match next(20) {
                0 => kept.push((log.mark_beside(), model.clone())),
                1..4 => {
                    if next(4) > 0 {
                        kept.push(Default::default());
                    }
                    let (mark, was) = kept.last_mut().unwrap();
                    log.mark_in(mark);
                    was.clone_from(&model);
                }
                4..8 => {
                    let (mark, was) = &kept[next(kept.len() as u64) as usize];
                    log.restore(mark);
                    model.clone_from(was);
                }
                8 if kept.len() > 30 => drop(kept.drain(..15)),
                9 if next(10) == 0 => {
                    model.clear();
                    log.clear();
                }
                _ => {
                    log.push(step);
                    model.push(step);
                }
            }
            assert_eq!(*log, *model);
        }
    }
}
