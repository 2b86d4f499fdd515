//! Formatting a window as a space.
//!
//! # Invariants
//! 1. The magic number is written last: a process that sees it sees a whole header and empty tables.
//! 2. If several processes format one window in place, one of them holds its first word ([`Claim`]), and the others
//!    write nothing. A formatter wipes the window in pieces of 64 KiB, and checks its claim before each piece. If it
//!    is stopped, and another formatter takes the claim, it still writes the zeros of its current piece when it goes
//!    on, and then ends with an error. This is harmless while the other one has not wiped that piece. Later, it
//!    erases up to 64 KiB of the new space. So a claim is taken from another formatter only if a user forces it,
//!    who knows that this formatter is gone.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{Extent, FormatError, FormatOptions, Geometry, Marker, Offset};
use commonhold_window::{OutOfWindow, Point, Window};

use crate::{BackingMemory, BackingMemoryError, Demand};

/// Bytes that are wiped between two checks that the claim still holds.
const PIECE: u64 = 1 << 16;

/// Why a window could not be formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MakeError {
    /// The sizes are not possible.
    Format(FormatError),
    /// The backing memory has no memory for the tables.
    BackingMemory(BackingMemoryError),
    /// The window is smaller than the capacity asked for.
    Window(OutOfWindow),
    /// Another process is formatting the window.
    Contested,
}

impl core::fmt::Display for MakeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::BackingMemory(error) => error.fmt(f),
            Self::Window(error) => error.fmt(f),
            Self::Contested => f.write_str("another process is formatting the window"),
        }
    }
}

impl core::error::Error for MakeError {}

/// Formats a window whose memory is `memory`. No other process may be using it. Its previous contents are lost.
///
/// # Errors
/// [`MakeError`]; the window is not a space then.
pub fn format(
    window: &Window,
    memory: &impl BackingMemory,
    options: &FormatOptions,
    demand: Demand,
) -> Result<Geometry, MakeError> {
    let geometry = Geometry::plan(options).map_err(MakeError::Format)?;
    let tables = geometry.fixed_tables();
    if demand == Demand::Fitting {
        memory.room_for(tables.len()).map_err(MakeError::BackingMemory)?;
    }
    // Before the first store: even the first word may have no memory yet.
    memory.commit(tables).map_err(MakeError::BackingMemory)?;
    let first = first_words(window)?;
    first[0].store(0, Ordering::SeqCst);
    // Everything behind the fixed tables becomes a hole that reads as zeros once it is committed.
    let rest = Extent::new(tables.end(), geometry.capacity() - tables.end());
    if let Some(rest) = rest {
        memory.release(rest).map_err(MakeError::BackingMemory)?;
    }
    window.zero(tables).map_err(MakeError::Window)?;
    let magic = write_header(first, &geometry);
    // Release: pairs with the Acquire of a reader of the magic number, which finds a whole header and empty tables.
    first[0].store(magic, Ordering::Release);
    Ok(geometry)
}

fn first_words(window: &Window) -> Result<&[AtomicU64; 32], MakeError> {
    window.words::<32>(Offset::ZERO).map_err(MakeError::Window)
}

/// Writes all words but the first, which is returned.
fn write_header(first: &[AtomicU64; 32], geometry: &Geometry) -> u64 {
    let words = geometry.header();
    for (word, value) in first.iter().zip(words).skip(1) {
        word.store(value, Ordering::Relaxed);
    }
    words[0]
}

/// One formatter's claim on a window that other processes can reach meanwhile.
///
/// Dropping it does not undo the claim: the previous contents are at least partly gone, and only formatting
/// makes the window usable.
#[derive(Debug)]
pub struct Claim<'w> {
    window: &'w Window,
    first: &'w [AtomicU64; 32],
    marker: Marker,
}

impl<'w> Claim<'w> {
    /// Claims a window whose first word was `seen`. `nonce` is random: no two formatters draw the same.
    ///
    /// # Errors
    /// [`MakeError::Contested`] if the first word has changed, [`MakeError::Window`] if there are no 32
    /// words.
    pub fn take(window: &'w Window, seen: u64, nonce: u32) -> Result<Self, MakeError> {
        let (first, marker) = (first_words(window)?, Marker::new(nonce));
        // Acquire: pairs with the Release of the process that wrote `seen`: our stores come after its stores.
        // Release: pairs with the Acquire of the next claim.
        first[0]
            .compare_exchange(seen, marker.word(), Ordering::AcqRel, Ordering::Relaxed)
            .map_err(|_| MakeError::Contested)?;
        Point::FormatClaimed.reached();
        Ok(Self { window, first, marker })
    }

    /// Restores the first word, for a caller that has overwritten nothing else.
    pub fn give_back(self, seen: u64) {
        // Release: pairs with the Acquire of a reader of the magic number, if `seen` is that. If the claim was lost,
        // this changes nothing.
        let (marker, word) = (self.marker.word(), &self.first[0]);
        let _ = word.compare_exchange(marker, seen, Ordering::Release, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), MakeError> {
        if self.first[0].load(Ordering::Relaxed) == self.marker.word() {
            Ok(())
        } else {
            Err(MakeError::Contested)
        }
    }

    /// Formats the window, all of which has memory. The whole window is zeroed first, also
    /// what lies beyond the capacity asked for.
    ///
    /// # Errors
    /// [`MakeError`]; the window is not a space then. It is still claimed, except after
    /// [`MakeError::Contested`].
    pub fn format(self, options: &FormatOptions) -> Result<Geometry, MakeError> {
        let geometry = Geometry::plan(options).map_err(MakeError::Format)?;
        let (capacity, len) = (geometry.capacity(), self.window.len());
        if capacity > len {
            let out = OutOfWindow { offset: 0, len: capacity, window: len };
            return Err(MakeError::Window(out));
        }
        self.wipe()?;
        Point::FormatWiped.reached();
        self.check()?;
        let magic = write_header(self.first, &geometry);
        Point::FormatWritten.reached();
        // Release: as in `format`.
        self.first[0]
            .compare_exchange(self.marker.word(), magic, Ordering::Release, Ordering::Relaxed)
            .map_err(|_| MakeError::Contested)?;
        Ok(geometry)
    }

    fn wipe(&self) -> Result<(), MakeError> {
        let len = self.window.len();
        // All but the marker.
        let mut at = 8;
        while at < len {
            self.check()?;
            let end = (at - at % PIECE).saturating_add(PIECE).min(len);
            let out = OutOfWindow { offset: at, len: end - at, window: len };
            let piece = Extent::new(at, end - at).ok_or(MakeError::Window(out))?;
            self.window.zero(piece).map_err(MakeError::Window)?;
            at = end;
        }
        Ok(())
    }
}
