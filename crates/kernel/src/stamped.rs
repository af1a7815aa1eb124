//! A table by word that is emptied at once, and keeps its memory.
//!
//! Executions of a test begin with empty tables and fill them anew: each entry carries the number of
//! the filling that it belongs to, so that emptying is to count on.

use crate::ids::mix;

/// Values by word, in the order in which they came.
pub(crate) struct Stamped<V> {
    /// A power of two of them, or none.
    slots: Vec<Slot<V>>,
    /// Slots in use.
    used: Vec<u32>,
    stamp: u32,
    /// That was asked for last.
    last: usize,
}

struct Slot<V> {
    key: u64,
    /// In use if it is the table's.
    stamp: u32,
    value: V,
}

impl<V> Default for Stamped<V> {
    fn default() -> Self {
        Stamped {
            slots: Vec::new(),
            used: Vec::new(),
            stamp: 1,
            last: 0,
        }
    }
}

/// What an entry that is used again becomes.
pub(crate) trait Anew: Default + Clone {
    /// As [`Default`], in memory that it has already.
    fn anew(&mut self);
}

impl<V: Anew> Clone for Stamped<V> {
    fn clone(&self) -> Self {
        let mut new = Stamped::default();
        new.clone_from(self);
        new
    }

    fn clone_from(&mut self, from: &Self) {
        self.clear();
        // In tables of one size each is where it is in the other.
        if self.slots.len() == from.slots.len() {
            for &at in &from.used {
                let (slot, old) = (&mut self.slots[at as usize], &from.slots[at as usize]);
                (slot.key, slot.stamp) = (old.key, self.stamp);
                slot.value.clone_from(&old.value);
            }
            return self.used.clone_from(&from.used);
        }
        for &at in &from.used {
            let slot = &from.slots[at as usize];
            self.entry(slot.key).clone_from(&slot.value);
        }
    }
}

impl<V: Anew> Stamped<V> {
    /// Fewest slots of a table that holds anything.
    const FEWEST: usize = 32;

    pub fn clear(&mut self) {
        if self.used.is_empty() {
            return;
        }
        self.used.clear();
        self.stamp = match self.stamp.checked_add(1) {
            Some(next) => next,
            None => {
                self.slots.clear();
                1
            }
        };
    }

    /// The slot of a key, or the free one where it would be.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = mix(key, 0) as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.stamp != self.stamp || slot.key == key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    pub fn get(&self, key: u64) -> Option<&V> {
        if self.used.is_empty() {
            return None;
        }
        let slot = &self.slots[self.find(key)];
        (slot.stamp == self.stamp).then_some(&slot.value)
    }

    /// The value of a key, made if there is none.
    #[inline]
    pub fn entry(&mut self, key: u64) -> &mut V {
        let last = self.slots.get(self.last);
        if !last.is_some_and(|slot| slot.stamp == self.stamp && slot.key == key) {
            self.last = self.enter(key);
        }
        &mut self.slots[self.last].value
    }

    /// Finds the slot of a key, or makes it.
    fn enter(&mut self, key: u64) -> usize {
        if self.used.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.find(key);
        let slot = &mut self.slots[at];
        if slot.stamp != self.stamp {
            (slot.key, slot.stamp) = (key, self.stamp);
            slot.value.anew();
            self.used.push(at as u32);
        }
        at
    }

    #[cold]
    fn grow(&mut self) {
        let n = (self.slots.len() * 2).max(Self::FEWEST);
        let empty = || Slot {
            key: 0,
            stamp: 0,
            value: V::default(),
        };
        let mut old = std::mem::replace(&mut self.slots, (0..n).map(|_| empty()).collect());
        for at in &mut self.used {
            let was = &mut old[*at as usize];
            let value = std::mem::take(&mut was.value);
            let key = was.key;
            let mask = n - 1;
            let mut to = mix(key, 0) as usize & mask;
            while self.slots[to].stamp == self.stamp {
                to = (to + 1) & mask;
            }
            self.slots[to] = Slot {
                key,
                stamp: self.stamp,
                value,
            };
            *at = to as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Anew for u64 {
        fn anew(&mut self) {
            *self = 0;
        }
    }

    /// Against a map of the standard library: inserts, look-ups, emptying, copies.
    #[test]
    fn holds_what_a_map_holds() {
        let (mut table, mut model) = (Stamped::<u64>::default(), HashMap::new());
        let mut kept = (table.clone(), model.clone());
        let mut random = 7u64;
        let mut next = |n: u64| {
            random = mix(random, n);
            random % n
        };
        for step in 0..20_000 {
            match next(400) {
                0 => {
                    table.clear();
                    model.clear();
                }
                1 => kept = (table.clone(), model.clone()),
                2 => {
                    table.clone_from(&kept.0);
                    model.clone_from(&kept.1);
                }
                _ => {
                    let key = next(300) * 8;
                    *table.entry(key) += step;
                    *model.entry(key).or_insert(0) += step;
                }
            }
            let key = next(300) * 8;
            assert_eq!(table.get(key), model.get(&key));
            assert_eq!(table.used.len(), model.len());
        }
    }
}
