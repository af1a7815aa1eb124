//! Where a loop is in its ops: the fetch, without a bounds check.

#![allow(unsafe_code)]

use crate::op::Op;

/// A place in the ops of an image.
///
/// Invariant: the place is one of `ops`. It holds because ops come from [`Ops`](crate::op::Ops)
/// alone: they end in `Bad`, from which a loop goes nowhere; their jumps land inside (checked by
/// [`Image`](crate::Image)); a wide op is followed by its second slot; and every other place is
/// given as an index, which is checked here.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    at: *const Op,
    ops: &'a [Op],
}

impl<'a> Cursor<'a> {
    /// The op at an index, if there is one.
    #[inline(always)]
    pub fn new(ops: &'a [Op], index: usize) -> Option<Cursor<'a>> {
        let at: *const Op = ops.get(index)?;
        Some(Cursor { at, ops })
    }

    /// The op here.
    #[inline(always)]
    pub fn op(&self) -> &'a Op {
        // SAFETY: by the invariant there is an op here.
        unsafe { &*self.at }
    }

    /// Goes on to the next op, or to the second slot of a wide one. Not to be called at a `Bad`.
    #[inline(always)]
    pub fn next(&mut self) {
        // SAFETY: only the last op has none behind it, and that is a `Bad`.
        self.at = unsafe { self.at.add(1) };
    }

    /// Takes the jump of the op here, which goes `by` bytes from the next.
    #[inline(always)]
    pub fn jump(&mut self, by: i32) {
        // SAFETY: jumps land inside.
        self.at = unsafe { self.at.add(1).byte_offset(by as isize) };
    }

    /// Goes to an op by index; false, and nothing happens, where there is none.
    #[inline(always)]
    #[must_use]
    pub fn goto(&mut self, index: usize) -> bool {
        match self.ops.get(index) {
            Some(op) => {
                self.at = op;
                true
            }
            None => false,
        }
    }

    /// Index of the op here.
    #[inline(always)]
    pub fn index(&self) -> usize {
        (self.at as usize - self.ops.as_ptr() as usize) / size_of::<Op>()
    }

    /// The place as a number that grows by the size of an [`Op`] from op to op.
    #[inline(always)]
    pub fn position(&self) -> isize {
        self.at as isize
    }
}
