//! The window itself.

use core::{fmt, ptr::NonNull, sync::atomic::AtomicU64};

use commonhold_layout::{Extent, Offset};

use crate::{Bytes, OutOfWindow, Run, copy::Copies};

/// One contiguous span of bytes that several processes or kernels map.
///
/// It borrows nothing: the code that makes one guarantees that the memory stays mapped while it lives.
pub struct Window {
    /// Valid as long as this value lives; lent out for no longer.
    bytes: Bytes<'static>,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Window {
    /// The window of `len` bytes at `base`.
    ///
    /// # Safety
    /// `base` must be aligned to 8 bytes. From now until the value is dropped, the `len` bytes from
    /// `base` must be mapped, readable and writable, and nobody in this program may have a
    /// reference to any of them, except to atomics.
    #[must_use]
    pub const unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
        // SAFETY: `Bytes::from_raw` wants bytes that satisfy its invariant for the lifetime: the caller guarantees
        // that while the window lives, and the window lends them out for no longer.
        Self { bytes: unsafe { Bytes::from_raw(base, len as u64, Copies::Freely) } }
    }

    /// A window over words that live for ever: for tests, and for programs without an operating system
    /// whose memory is a static.
    #[must_use]
    pub const fn from_words(words: &'static [AtomicU64]) -> Self {
        // The pointer cannot be null: it comes from a reference.
        let base = NonNull::from_ref(words).cast::<u8>();
        let len = size_of_val(words) as u64;
        // SAFETY: `Bytes::from_raw` wants bytes that may be used for ever, and that are borrowed as atomics only: they
        // are a static slice of atomics.
        Self { bytes: unsafe { Bytes::from_raw(base, len, Copies::Freely) } }
    }

    /// The same window, whose memory is read and written by whole aligned words only, each once: for memory of
    /// a device that is not cached.
    #[must_use]
    pub const fn by_words(self) -> Self {
        Self { bytes: self.bytes.by_words() }
    }

    /// Bytes in it.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes of an extent.
    ///
    /// # Errors
    /// [`OutOfWindow`] if it does not lie inside.
    pub fn bytes(&self, extent: Extent) -> Result<Bytes<'_>, OutOfWindow> {
        self.bytes.part(extent.start().get(), extent.len())
    }

    /// The word at `at`.
    ///
    /// # Errors
    /// [`OutOfWindow`] if it does not lie inside, or `at` is not a multiple of 8.
    #[inline]
    pub fn word(&self, at: Offset) -> Result<&AtomicU64, OutOfWindow> {
        self.words::<1>(at).map(|[word]| word)
    }

    /// The `N` words at `at`: a record.
    ///
    /// # Errors
    /// [`OutOfWindow`] if they do not all lie inside, or `at` is not a multiple of 8.
    #[inline]
    pub fn words<const N: usize>(&self, at: Offset) -> Result<&[AtomicU64; N], OutOfWindow> {
        let len = const { (N * 8) as u64 };
        if !at.get().is_multiple_of(8) {
            return Err(OutOfWindow { offset: at.get(), len, window: self.len() });
        }
        let first = self.bytes.pointer_to(at.get(), len)?.cast::<[AtomicU64; N]>();
        // SAFETY: `as_ref` wants a pointer that is valid for reads for the borrow, aligned, and to
        // initialised memory: `pointer_to` has shown that the bytes lie in the window, which is
        // mapped while `self` lives; base and offset are multiples of 8; every bit pattern is a
        // valid `AtomicU64`, and those are the only references to these bytes.
        Ok(unsafe { first.as_ref() })
    }

    /// The `count` words at `at`, whose bytes hold a value.
    ///
    /// # Errors
    /// As for [`words`](Self::words).
    pub fn run(&self, at: Offset, count: usize) -> Result<Run<'_>, OutOfWindow> {
        let len = (count as u64).saturating_mul(8);
        if !at.get().is_multiple_of(8) {
            return Err(OutOfWindow { offset: at.get(), len, window: self.len() });
        }
        let first = self.bytes.pointer_to(at.get(), len)?.cast::<AtomicU64>();
        let words = NonNull::slice_from_raw_parts(first, count);
        // SAFETY: as in `words`. `len` did not saturate, since it fits the window, which is
        // shorter than `isize::MAX` bytes, as any mapping is.
        Ok(Run::new(unsafe { words.as_ref() }, self.bytes.copies()))
    }

    /// Copies the bytes at `from` out of the window. Others may change them meanwhile: a caller that needs
    /// them whole must hold a lock.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been copied then.
    pub fn read(&self, from: Offset, to: &mut [u8]) -> Result<(), OutOfWindow> {
        self.bytes.read(from.get(), to)
    }

    /// Copies bytes into the window at `to`.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been written then.
    pub fn write(&self, to: Offset, from: &[u8]) -> Result<(), OutOfWindow> {
        self.bytes.write(to.get(), from)
    }

    /// Fills an extent with zeros.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been written then.
    pub fn zero(&self, extent: Extent) -> Result<(), OutOfWindow> {
        self.bytes.zero(extent.start().get(), extent.len())
    }

    /// The address of an extent, for callers that access its bytes by `unsafe` code of their own.
    ///
    /// # Errors
    /// [`OutOfWindow`] if it does not lie inside.
    pub fn pointer(&self, extent: Extent) -> Result<NonNull<u8>, OutOfWindow> {
        self.bytes.pointer_to(extent.start().get(), extent.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{boxed::Box, vec, vec::Vec};

    fn window(words: usize) -> Window {
        let words: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        Window::from_words(Box::leak(words.into_boxed_slice()))
    }

    #[test]
    fn a_word_outside_or_unaligned_is_refused() {
        let window = window(4);
        let at = |bytes| window.word(Offset::new(bytes).unwrap());
        assert!(at(24).is_ok());
        assert!(at(32).is_err());
        assert!(at(25).is_err());
        assert!(window.words::<4>(Offset::ZERO).is_ok());
        assert!(window.words::<5>(Offset::ZERO).is_err());
    }

    #[test]
    fn a_copy_that_does_not_fit_writes_nothing() {
        let window = window(2);
        window.write(Offset::new(10).unwrap(), &[1; 7]).unwrap_err();
        let mut all = [9; 16];
        window.read(Offset::ZERO, &mut all).unwrap();
        assert_eq!(all, [0; 16]);
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_written_at_any_alignment(
            at in 0_usize..40, bytes in proptest::collection::vec(any::<u8>(), 0..300),
            zero_at in 0_usize..60, zero_len in 0_usize..20,
            back_at in 0_usize..300, by_words: bool,
        ) {
            let window = if by_words { window(50).by_words() } else { window(50) };
            let mut model = [0_u8; 400];
            window.write(Offset::new(at as u64).unwrap(), &bytes).unwrap();
            model[at..at + bytes.len()].copy_from_slice(&bytes);
            window.zero(Extent::new(zero_at as u64, zero_len as u64).unwrap()).unwrap();
            model[zero_at..zero_at + zero_len].fill(0);
            let mut back = vec![0; 400 - back_at];
            window.read(Offset::new(back_at as u64).unwrap(), &mut back).unwrap();
            prop_assert_eq!(&back[..], &model[back_at..]);
        }
    }
}
