//! Plain data that snapshots share until somebody writes to it.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// A value whose clones are one value until one of them is written to.
#[derive(Default, Debug)]
pub(crate) struct Shared<T>(Rc<T>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(Rc::new(value))
    }

    /// Becomes another value, in its memory if nobody else needs that.
    pub fn set(&mut self, value: T) {
        match Rc::get_mut(&mut self.0) {
            Some(own) => *own = value,
            None => self.0 = Rc::new(value),
        }
    }

    /// The value, if it is nobody else's.
    pub fn own(&mut self) -> Option<&mut T> {
        Rc::get_mut(&mut self.0)
    }

    /// True when both are one value.
    pub fn is(&self, other: &Shared<T>) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        Shared(Rc::clone(&self.0))
    }

    #[inline]
    fn clone_from(&mut self, source: &Self) {
        if !Rc::ptr_eq(&self.0, &source.0) {
            self.0 = Rc::clone(&source.0);
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        Rc::make_mut(&mut self.0)
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
