//! Asynchronous callbacks: `bpf_timer`, `bpf_wq` and `bpf_task_work`.
//!
//! A slot in a map value holds nothing but a handle: an index and a generation, or 0. Handles
//! are read back from memory that programs can write through stale pointers, so each is checked
//! against the object's own record of where it lives.

mod callback;
pub(crate) mod task_work;
pub(crate) mod timer;
pub(crate) mod wq;

use crate::ids::{MapId, ProgId};
use bpfsim_vm::GuestMem;

/// Name of an object in a [`Pool`]: index plus one, and generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Handle {
    index: u32,
    generation: u32,
}

impl Handle {
    fn from_word(word: u64) -> Option<Handle> {
        let index = (word as u32).checked_sub(1)?;
        Some(Handle {
            index,
            generation: (word >> 32) as u32,
        })
    }

    fn to_word(self) -> u64 {
        (self.index as u64 + 1) | (self.generation as u64) << 32
    }
}

/// What all kinds have: the slot that they live in.
pub(crate) trait Slotted {
    fn slot(&self) -> &Slot;
}

/// Where an object lives (`struct bpf_async_cb`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub map: MapId,
    /// Address of the slot itself.
    pub addr: u64,
    /// Address of the value that it lies in.
    pub value: u64,
}

/// A callback and the program that it is a function of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Callback {
    pub prog: ProgId,
    /// Instruction index of its entry.
    pub entry: u32,
}

/// Objects of one kind. Freed ones leave their index to later ones under a new generation.
#[derive(educe::Educe)]
#[educe(Clone)]
pub(crate) struct Pool<T> {
    items: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Slotted> Pool<T> {
    pub fn insert(&mut self, item: T) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.items.push((0, None));
            self.items.len() as u32 - 1
        });
        let entry = &mut self.items[index as usize];
        entry.1 = Some(item);
        Handle {
            index,
            generation: entry.0,
        }
    }

    pub fn get(&self, handle: Handle) -> Option<&T> {
        let (generation, item) = self.items.get(handle.index as usize)?;
        item.as_ref().filter(|_| *generation == handle.generation)
    }

    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let (generation, item) = self.items.get_mut(handle.index as usize)?;
        item.as_mut().filter(|_| *generation == handle.generation)
    }

    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        self.get(handle)?;
        let (generation, item) = &mut self.items[handle.index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(handle.index);
        item.take()
    }

    /// The object that the slot at `addr` holds, if what it holds is one that lives there.
    pub fn in_slot(&self, mem: &GuestMem, addr: u64) -> Option<Handle> {
        let handle = Handle::from_word(mem.read_u64(addr)?)?;
        self.get(handle)
            .filter(|item| item.slot().addr == addr)
            .map(|_| handle)
    }
}

/// Writes a handle into its slot.
pub(crate) fn put_in_slot(mem: &mut GuestMem, addr: u64, handle: Option<Handle>) -> Option<()> {
    mem.write_u64(addr, handle.map_or(0, Handle::to_word))
}
