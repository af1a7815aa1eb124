//! Plain data that snapshots share until somebody writes to it.

use smallvec::{Array, SmallVec};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A value whose clones are one value until one of them is written to.
///
/// Snapshots come and go with each execution of a search, and what they share is written to again
/// and again: so memory that one clone leaves is kept for what the next is to write to.
#[derive(Default)]
pub(crate) struct Shared<T> {
    value: Rc<T>,
    /// Something that nobody else has: good for its memory alone.
    spare: Cell<Option<Rc<T>>>,
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared {
            value: Rc::new(value),
            spare: Cell::default(),
        }
    }

    /// Becomes another value, in its memory if nobody else needs that.
    pub fn set(&mut self, value: T) {
        match self.memory() {
            Some(own) => *own = value,
            None => self.value = Rc::new(value),
        }
    }

    /// The value, if it is nobody else's.
    pub fn own(&mut self) -> Option<&mut T> {
        Rc::get_mut(&mut self.value)
    }

    /// True when both are one value.
    pub fn is(&self, other: &Shared<T>) -> bool {
        Rc::ptr_eq(&self.value, &other.value)
    }

    /// Memory of its own, with whatever is in it.
    fn memory(&mut self) -> Option<&mut T> {
        if Rc::strong_count(&self.value) != 1
            && let Some(mut spare) = self.spare.take()
            && Rc::get_mut(&mut spare).is_some()
        {
            self.value = spare;
        }
        self.own()
    }

    /// If others have the value too, what is made to write to it has this memory.
    pub fn take_memory(&mut self, of: impl FnOnce() -> Option<Shared<T>>) {
        if Rc::strong_count(&self.value) != 1 && self.spare.get_mut().is_none() {
            self.spare.set(of().map(|of| of.value));
        }
    }
}

impl<T: Debug> Debug for Shared<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        Shared {
            value: Rc::clone(&self.value),
            spare: Cell::default(),
        }
    }

    #[inline]
    fn clone_from(&mut self, source: &Self) {
        if self.is(source) {
            return;
        }
        let was = std::mem::replace(&mut self.value, Rc::clone(&source.value));
        if Rc::strong_count(&was) != 1 {
            return;
        }
        // The source is likely what is written to next.
        match source.spare.take() {
            None => source.spare.set(Some(was)),
            spare => {
                source.spare.set(spare);
                self.spare.set(Some(was));
            }
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> Shared<T> {
    /// Becomes a copy of a value, in its memory if nobody else needs that.
    pub fn copy(&mut self, from: &T) {
        match self.memory() {
            Some(own) => own.clone_from(from),
            None => self.value = Rc::new(from.clone()),
        }
    }

    /// Others have the value too: has it be a copy of its own.
    #[inline(never)]
    fn part(&mut self) {
        let shared = Rc::clone(&self.value);
        self.copy(&shared);
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        if Rc::strong_count(&self.value) != 1 {
            self.part();
        }
        Rc::make_mut(&mut self.value)
    }
}

/// Going back as `clone_from` does, for what is written to soon again: what nobody else needs is
/// overwritten rather than given up, and is not to be copied once more then.
pub(crate) trait BringBack {
    fn bring_back(&mut self, to: &Self);
}

impl<T: Clone> BringBack for Shared<T> {
    fn bring_back(&mut self, to: &Shared<T>) {
        if !self.is(to) {
            match self.own() {
                Some(own) => own.clone_from(to),
                None => self.clone_from(to),
            }
        }
    }
}

impl<T: BringBack + Clone> BringBack for Vec<T> {
    fn bring_back(&mut self, to: &Vec<T>) {
        let same = self.len().min(to.len());
        self.truncate(same);
        for (now, then) in self.iter_mut().zip(to) {
            now.bring_back(then);
        }
        self.extend_from_slice(&to[same..]);
    }
}

/// A collection of few items, or none: going back from nothing to nothing does nothing, and to as many
/// items it goes from one to the other.
#[derive(Default, Debug)]
pub(crate) struct Few<C>(C);

/// What [`Few`] is of.
pub(crate) trait Collection: Clone {
    fn nothing(&self) -> bool;

    fn copy(&mut self, from: &Self) {
        self.clone_from(from);
    }
}

impl<T: Clone> Collection for Vec<T> {
    #[inline]
    fn nothing(&self) -> bool {
        self.is_empty()
    }

    #[inline]
    fn copy(&mut self, from: &Self) {
        if self.len() != from.len() {
            return self.clone_from(from);
        }
        for (now, then) in self.iter_mut().zip(from) {
            now.clone_from(then);
        }
    }
}

impl<T: Clone> Collection for VecDeque<T> {
    #[inline]
    fn nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Clone> Collection for Option<T> {
    #[inline]
    fn nothing(&self) -> bool {
        self.is_none()
    }
}

impl<A: Array<Item: Clone>> Collection for SmallVec<A> {
    #[inline]
    fn nothing(&self) -> bool {
        self.is_empty()
    }

    #[inline]
    fn copy(&mut self, from: &Self) {
        self.clear();
        from.iter().for_each(|item| self.push(item.clone()));
    }
}

impl<C> From<C> for Few<C> {
    fn from(of: C) -> Few<C> {
        Few(of)
    }
}

impl<C: Collection> Clone for Few<C> {
    fn clone(&self) -> Self {
        Few(self.0.clone())
    }

    #[inline]
    fn clone_from(&mut self, from: &Self) {
        if !(self.0.nothing() && from.0.nothing()) {
            self.0.copy(&from.0);
        }
    }
}

impl<C> Deref for Few<C> {
    type Target = C;

    #[inline]
    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for Few<C> {
    #[inline]
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}

/// A part that has its own way of going back: copies are made without it, and what becomes a copy keeps
/// its own.
#[derive(Default, Debug)]
pub(crate) struct Apart<T>(T);

impl<T: Default> Clone for Apart<T> {
    fn clone(&self) -> Self {
        Apart::default()
    }

    #[inline]
    fn clone_from(&mut self, _: &Self) {}
}

impl<T> Deref for Apart<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Apart<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A value that knows whether somebody may have written to it since it was looked through.
#[derive(Default, Debug)]
pub(crate) struct Written<T> {
    value: T,
    written: bool,
}

impl<T> Written<T> {
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// The value, to be looked through.
    pub fn look_through(&mut self) -> &mut T {
        self.written = false;
        &mut self.value
    }
}

impl<T> Deref for Written<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Written<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.written = true;
        &mut self.value
    }
}

/// A value that is taken out while it is worked on together with what has it.
pub(crate) struct Lent<T>(Option<Box<T>>);

impl<T: Default> Default for Lent<T> {
    fn default() -> Self {
        Lent(Some(Box::default()))
    }
}

impl<T: Default> Lent<T> {
    /// Takes it out; nobody may ask for it before it is [given back](Lent::give_back).
    #[inline]
    pub fn take(&mut self) -> Box<T> {
        self.0.take().unwrap_or_default()
    }

    #[inline]
    pub fn give_back(&mut self, value: Box<T>) {
        self.0 = Some(value);
    }
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("it is lent"),
        }
    }
}

impl<T> DerefMut for Lent<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("it is lent"),
        }
    }
}
