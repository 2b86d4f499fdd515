//! A span of a window's bytes, read and written in any lengths.
//!
//! # Invariants
//! 1. The bytes are mapped, readable and writable for the lifetime, and nobody in this program has a reference to any
//!    of them, except to atomics.
//! 2. Each copy is checked against the length once, before its first byte.
//! 3. Only the bytes that are asked for are written: another thread or peer may write the bytes beside them at the
//!    same time.

use core::{
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use crate::{
    OutOfWindow,
    copy::{Copies, copy_in, copy_out},
};

/// Bytes in a row that others write as well, and may tear while they are read. A caller that needs them whole takes a
/// lock.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    base: NonNull<u8>,
    len: u64,
    copies: Copies,
    of: PhantomData<&'a [AtomicU8]>,
}

// SAFETY: all access through it is atomic, or by code that the compiler cannot see into, so it may be used from any
// thread.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as above; shared use adds nothing, since all methods take `&self`.
unsafe impl Sync for Bytes<'_> {}

impl<'a> Bytes<'a> {
    /// # Safety
    /// Invariant 1 must hold of the `len` bytes from `base`, for the lifetime; `len` is at most `isize::MAX`.
    pub(crate) const unsafe fn from_raw(base: NonNull<u8>, len: u64, copies: Copies) -> Self {
        Self { base, len, copies, of: PhantomData }
    }

    /// The same bytes, copied by whole aligned words only.
    pub(crate) const fn by_words(self) -> Self {
        Self { copies: Copies::ByWords, ..self }
    }

    pub(crate) const fn copies(self) -> Copies {
        self.copies
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`OutOfWindow`] if they do not all lie inside.
    pub fn part(&self, offset: u64, len: u64) -> Result<Self, OutOfWindow> {
        Ok(Self { base: self.pointer_to(offset, len)?, len, ..*self })
    }

    /// The address of the `len` bytes from `offset` on.
    #[inline]
    pub(crate) fn pointer_to(&self, offset: u64, len: u64) -> Result<NonNull<u8>, OutOfWindow> {
        // Three comparisons, and no addition that could wrap.
        if len > self.len || offset > self.len - len {
            return Err(self.outside(offset, len));
        }
        let Ok(offset) = usize::try_from(offset) else { return Err(self.outside(offset, len)) };
        // SAFETY: `add` wants the result to stay within the allocation, or one past its end: it was just
        // shown that `offset` is at most the length.
        Ok(unsafe { self.base.add(offset) })
    }

    #[cold]
    const fn outside(&self, offset: u64, len: u64) -> OutOfWindow {
        OutOfWindow { offset, len, window: self.len }
    }

    /// The word that begins at `offset`, if it lies inside and is aligned.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, offset: u64) -> Option<&'a AtomicU64> {
        let first = self.pointer_to(offset, 8).ok().filter(|first| begins_a_word(*first))?;
        // SAFETY: `word` wants eight aligned bytes of the span: that was just shown.
        Some(unsafe { word(first) })
    }

    /// Copies the bytes from `offset` on into `to`.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been copied then.
    #[inline(always)]
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), OutOfWindow> {
        let first = self.pointer_to(offset, to.len() as u64)?;
        if self.copies.by_call(to.len()) {
            // SAFETY: `copy_out` wants bytes that are mapped and readable: they lie in the span.
            unsafe { copy_out(first.as_ptr(), to) };
        } else if to.len() == 8
            && let Some(word) = self.word(offset)
        {
            to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        } else {
            // SAFETY: `Cut::new` wants bytes of the span: that was shown.
            unsafe { Cut::new(first, to.len()) }.read(to);
        }
        Ok(())
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been written then.
    #[inline(always)]
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), OutOfWindow> {
        let first = self.pointer_to(offset, from.len() as u64)?;
        if self.copies.by_call(from.len()) {
            // SAFETY: `copy_in` wants bytes that are mapped and writable: they lie in the span.
            unsafe { copy_in(first.as_ptr(), from) };
        } else if let Ok(from) = <[u8; 8]>::try_from(from)
            && let Some(word) = self.word(offset)
        {
            word.store(u64::from_le_bytes(from), Ordering::Relaxed);
        } else {
            // SAFETY: as in `read`.
            unsafe { Cut::new(first, from.len()) }.write(from);
        }
        Ok(())
    }

    /// Fills `len` bytes from `offset` on with zeros.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been written then.
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), OutOfWindow> {
        let first = self.pointer_to(offset, len)?;
        let len = usize::try_from(len).map_err(|_| self.outside(offset, len))?;
        // SAFETY: as in `read`.
        unsafe { Cut::new(first, len) }.zero();
        Ok(())
    }
}

#[inline]
fn begins_a_word(first: NonNull<u8>) -> bool {
    first.addr().get().is_multiple_of(8)
}

/// # Safety
/// Eight aligned bytes of a span must begin there.
#[inline]
unsafe fn word<'a>(first: NonNull<u8>) -> &'a AtomicU64 {
    // SAFETY: `as_ref` wants a pointer that is aligned and valid for the lifetime, which the caller guarantees, to
    // initialised memory without other references but to atomics, which invariant 1 guarantees; every bit
    // pattern is a valid `AtomicU64`.
    unsafe { first.cast::<AtomicU64>().as_ref() }
}

/// A range of bytes as whole words, and the single bytes before and after them.
struct Cut<'a> {
    head: &'a [AtomicU8],
    words: &'a [AtomicU64],
    tail: &'a [AtomicU8],
}

impl Cut<'_> {
    /// # Safety
    /// The `len` bytes from `first` must be those of a span, for the lifetime.
    unsafe fn new(first: NonNull<u8>, len: usize) -> Self {
        let bytes = NonNull::slice_from_raw_parts(first.cast::<AtomicU8>(), len);
        // SAFETY: `as_ref` wants a pointer that is aligned and valid for the lifetime: single bytes are always
        // aligned, and the caller guarantees the rest.
        let bytes = unsafe { bytes.as_ref() };
        // SAFETY: `align_to` wants bytes that are valid as words: every bit pattern is a valid `AtomicU64`.
        let (head, words, tail) = unsafe { bytes.align_to::<AtomicU64>() };
        Self { head, words, tail }
    }

    #[inline(never)]
    fn read(&self, to: &mut [u8]) {
        let (head, rest) = to.split_at_mut(self.head.len());
        let (words, tail) = rest.split_at_mut(8 * self.words.len());
        let bytes = head.iter_mut().zip(self.head).chain(tail.iter_mut().zip(self.tail));
        bytes.for_each(|(to, byte)| *to = byte.load(Ordering::Relaxed));
        for (to, word) in words.as_chunks_mut::<8>().0.iter_mut().zip(self.words) {
            *to = word.load(Ordering::Relaxed).to_le_bytes();
        }
    }

    #[inline(never)]
    fn write(&self, from: &[u8]) {
        let (head, rest) = from.split_at(self.head.len());
        let (words, tail) = rest.split_at(8 * self.words.len());
        let bytes = head.iter().zip(self.head).chain(tail.iter().zip(self.tail));
        bytes.for_each(|(from, byte)| byte.store(*from, Ordering::Relaxed));
        for (from, word) in words.as_chunks::<8>().0.iter().zip(self.words) {
            word.store(u64::from_le_bytes(*from), Ordering::Relaxed);
        }
    }

    fn zero(&self) {
        self.head.iter().chain(self.tail).for_each(|byte| byte.store(0, Ordering::Relaxed));
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}
