//! Making a space of a window.

use core::sync::atomic::Ordering;

use commonhold_layout::{FormatError, FormatOptions, Geometry, Offset};
use commonhold_window::{OutOfWindow, Window};

use crate::{Medium, MediumError};

/// Why a window could not be formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MakeError {
    /// The sizes are not possible.
    Format(FormatError),
    /// The medium has no memory for the tables.
    Medium(MediumError),
    /// The window is smaller than the capacity asked for.
    Window(OutOfWindow),
}

impl core::fmt::Display for MakeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Medium(error) => error.fmt(f),
            Self::Window(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for MakeError {}

/// Formats a window that `medium` is behind. Nobody else may be using it: what it held is gone.
///
/// # Errors
/// [`MakeError`]; the window is not a space then.
pub fn format(
    window: &Window,
    medium: &impl Medium,
    options: &FormatOptions,
) -> Result<Geometry, MakeError> {
    let geometry = Geometry::plan(options).map_err(MakeError::Format)?;
    let first = window.words::<32>(Offset::ZERO).map_err(MakeError::Window)?;
    first[0].store(0, Ordering::SeqCst);
    // Everything behind the fixed tables becomes a hole that reads as zeros once it is committed.
    let tables = geometry.fixed_tables();
    let rest = commonhold_layout::Extent::new(tables.end(), geometry.capacity() - tables.end());
    if let Some(rest) = rest {
        medium.release(rest).map_err(MakeError::Medium)?;
    }
    medium.commit(tables).map_err(MakeError::Medium)?;
    window.zero(tables).map_err(MakeError::Window)?;
    let words = geometry.header();
    for (word, value) in first.iter().zip(words).skip(1) {
        word.store(value, Ordering::Relaxed);
    }
    // Release: whoever sees the magic number sees a whole header and empty tables.
    first[0].store(words[0], Ordering::Release);
    Ok(geometry)
}
