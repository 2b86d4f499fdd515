//! A run of words whose bytes hold a value.

use crate::{
    OutOfWindow,
    atomic::{AtomicU64, Ordering},
    copy::{Copies, copy_in, copy_out},
};

/// At most so many words are copied by inlined code. For more, the code would grow more than it would gain.
const IN_LINE: usize = 4;

/// Words in a row, as bytes: what a lock protects.
///
/// It gives no reference to the bytes. A peer that was declared dead, or that breaks the rules, may
/// write them while another holds the lock; a reference to them would then be undefined behaviour in *this*
/// program. Such a peer can tear a copy by atomic words, and nothing worse.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    words: &'a [AtomicU64],
    copies: Copies,
}

impl<'a> Run<'a> {
    pub(crate) const fn new(words: &'a [AtomicU64], copies: Copies) -> Self {
        Self { words, copies }
    }

    /// Bytes in it, a multiple of 8.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        size_of_val(self.words)
    }

    /// Whether it has no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The address of the first byte, for callers that access the bytes by `unsafe` code of their own.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.words.as_ptr().cast::<u8>().cast_mut()
    }

    /// The words themselves, for data that are words of locks.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &'a [AtomicU64] {
        self.words
    }

    /// The words that hold the `len` bytes from byte `from` on.
    #[inline]
    fn part(&self, from: usize, len: usize) -> Result<&'a [AtomicU64], OutOfWindow> {
        let end = from.checked_add(len).map(|end| end.div_ceil(8));
        match end.and_then(|end| self.words.get(from / 8..end)) {
            Some(words) => Ok(words),
            None => Err(self.outside(from, len)),
        }
    }

    #[cold]
    const fn outside(&self, from: usize, len: usize) -> OutOfWindow {
        let window = size_of_val(self.words) as u64;
        OutOfWindow { offset: from as u64, len: len as u64, window }
    }

    /// Copies bytes out, from byte `from` on.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been copied then.
    #[inline(always)]
    pub fn read(&self, from: usize, to: &mut [u8]) -> Result<(), OutOfWindow> {
        // Where the compiler knows the length of a value, only this branch remains.
        if is_short(from, to.len()) {
            let (to, _) = to.as_chunks_mut::<8>();
            let words = self.part(from, 8 * to.len())?;
            to.iter_mut().zip(words).for_each(|(to, word)| *to = load(word));
            return Ok(());
        }
        self.read_any(from, to)
    }

    #[inline(never)]
    fn read_any(&self, from: usize, to: &mut [u8]) -> Result<(), OutOfWindow> {
        let words = self.part(from, to.len())?;
        if self.copies.by_call(to.len()) {
            let first = words.as_ptr().cast::<u8>().wrapping_add(from % 8);
            // SAFETY: `copy_out` wants bytes that are mapped and readable: they lie in these words.
            unsafe { copy_out(first, to) };
            return Ok(());
        }
        if !from.is_multiple_of(8) {
            let bytes = words.iter().flat_map(load).skip(from % 8);
            to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            return Ok(());
        }
        let (whole, tail) = to.as_chunks_mut::<8>();
        let mut words = words.iter();
        for (to, word) in whole.iter_mut().zip(&mut words) {
            *to = load(word);
        }
        if let Some(last) = words.next() {
            tail.iter_mut().zip(load(last)).for_each(|(to, byte)| *to = byte);
        }
        Ok(())
    }

    /// Copies bytes in, from byte `from` on. If only a part of a word is written, its other bytes are written too,
    /// with the values that they had just before. So the caller must keep others from writing, by a lock.
    ///
    /// # Errors
    /// [`OutOfWindow`]; nothing has been written then.
    #[inline(always)]
    pub fn write(&self, from: usize, bytes: &[u8]) -> Result<(), OutOfWindow> {
        // As in `read`.
        if is_short(from, bytes.len()) {
            let (bytes, _) = bytes.as_chunks::<8>();
            for (bytes, word) in bytes.iter().zip(self.part(from, 8 * bytes.len())?) {
                word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            return Ok(());
        }
        self.write_any(from, bytes)
    }

    #[inline(never)]
    fn write_any(&self, from: usize, bytes: &[u8]) -> Result<(), OutOfWindow> {
        let words = self.part(from, bytes.len())?;
        if self.copies.by_call(bytes.len()) {
            let first = words.as_ptr().cast::<u8>().cast_mut().wrapping_add(from % 8);
            // SAFETY: `copy_in` wants bytes that are mapped and writable: they lie in these words, which are atomics.
            unsafe { copy_in(first, bytes) };
            return Ok(());
        }
        let mut words = words.iter();
        let head = (from.wrapping_neg() % 8).min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        if !head.is_empty()
            && let Some(word) = words.next()
        {
            patch(word, from % 8, head);
        }
        let (whole, tail) = rest.as_chunks::<8>();
        for (bytes, word) in whole.iter().zip(&mut words) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if let Some(last) = words.next() {
            patch(last, 0, tail);
        }
        Ok(())
    }
}

/// Whether these are whole words, and few enough to be copied by inlined code.
#[inline]
const fn is_short(from: usize, len: usize) -> bool {
    from.is_multiple_of(8) && len.is_multiple_of(8) && len <= 8 * IN_LINE
}

/// Relaxed, here and below: the lock that protects the bytes orders them.
#[inline]
fn load(word: &AtomicU64) -> [u8; 8] {
    word.load(Ordering::Relaxed).to_le_bytes()
}

#[inline]
fn patch(word: &AtomicU64, from: usize, bytes: &[u8]) {
    let mut all = load(word);
    all.iter_mut().skip(from).zip(bytes).for_each(|(old, new)| *old = *new);
    word.store(u64::from_le_bytes(all), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    proptest! {
        #[test]
        fn bytes_of_a_run_are_read_as_written_and_none_beside_them_change(
            old in proptest::collection::vec(any::<u64>(), 0..60),
            from in 0_usize..200, bytes in proptest::collection::vec(any::<u8>(), 0..300),
            freely: bool,
        ) {
            let words: Vec<AtomicU64> = old.iter().copied().map(AtomicU64::new).collect();
            let run = Run::new(&words, if freely { Copies::Freely } else { Copies::ByWords });
            let mut model: Vec<u8> = old.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut copy = vec![0; bytes.len()];
            let fits = from + bytes.len() <= model.len();
            prop_assert_eq!(run.write(from, &bytes).is_ok(), fits);
            prop_assert_eq!(run.read(from, &mut copy).is_ok(), fits);
            if fits {
                model[from..from + bytes.len()].copy_from_slice(&bytes);
                prop_assert_eq!(copy, bytes);
            }
            let mut all = vec![0; model.len()];
            run.read(0, &mut all).unwrap();
            prop_assert_eq!(all, model);
        }
    }
}
