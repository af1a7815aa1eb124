//! Members, enumerators, parameters, variables: lists that are decoded as they are asked for.

use std::fmt;

use crate::btf::Btf;
use crate::raw;

/// Something that lies in the blob in fixed-size records after its type.
pub trait Record<'a>: Sized + Copy {
    /// Reads one record. `word(i)` is its i-th `u32`; `flag` the owner's `kind_flag`, `wide` whether
    /// records are three words where two are possible.
    #[doc(hidden)]
    fn read(btf: &'a Btf, words: [u32; 3], flag: bool, wide: bool) -> Self;
}

/// Records in the blob, decoded as they are asked for.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    btf: &'a Btf,
    bytes: &'a [u8],
    stride: u8,
    flag: bool,
    marker: std::marker::PhantomData<T>,
}

impl<'a, T: Record<'a>> List<'a, T> {
    pub(crate) fn new(btf: &'a Btf, bytes: &'a [u8], stride: u8, flag: bool) -> Self {
        List {
            btf,
            bytes,
            stride,
            flag,
            marker: std::marker::PhantomData,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / usize::from(self.stride)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The i-th.
    pub fn get(&self, i: usize) -> Option<T> {
        let at = i.checked_mul(usize::from(self.stride))?;
        let words = [
            raw::u32_at(self.bytes, at)?,
            raw::u32_at(self.bytes, at + 4)?,
            match self.stride {
                8 => 0,
                _ => raw::u32_at(self.bytes, at + 8)?,
            },
        ];
        Some(T::read(self.btf, words, self.flag, self.stride != 8))
    }

    /// All of them, in order.
    pub fn iter(&self) -> Iter<'a, T> {
        Iter {
            list: *self,
            at: 0,
            end: self.len(),
        }
    }
}

impl<'a, T: Record<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Record<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Iterator over a [`List`].
#[derive(Clone)]
pub struct Iter<'a, T> {
    list: List<'a, T>,
    at: usize,
    end: usize,
}

impl<'a, T: Record<'a>> Iterator for Iter<'a, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        if self.at == self.end {
            return None;
        }
        self.at += 1;
        self.list.get(self.at - 1)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.at, Some(self.end - self.at))
    }
}

impl<'a, T: Record<'a>> DoubleEndedIterator for Iter<'a, T> {
    fn next_back(&mut self) -> Option<T> {
        if self.at == self.end {
            return None;
        }
        self.end -= 1;
        self.list.get(self.end)
    }
}

impl<'a, T: Record<'a>> ExactSizeIterator for Iter<'a, T> {}
