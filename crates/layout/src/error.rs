//! Errors: why bytes, or options for a format, were refused.

use core::fmt;

/// A value in the window that no correct program would have written.
///
/// # Examples
/// ```
/// # use commonhold_layout::Damage;
/// let damage = Damage::new("capacity", 7);
/// assert_eq!(damage.to_string(), "the space is damaged: capacity holds 0x7");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Which field is wrong, in the words of `docs/SPEC.md`.
    pub field: &'static str,
    /// What it held.
    pub found: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the space is damaged: {} holds {:#x}", self.field, self.found)
    }
}

impl core::error::Error for Damage {}

impl Damage {
    /// Damage in `field`, which held `found`.
    #[must_use]
    pub const fn new(field: &'static str, found: u64) -> Self {
        Self { field, found }
    }
}

/// Why a window cannot be formatted as asked.
///
/// # Examples
/// ```
/// # use commonhold_layout::FormatError;
/// fn capacity_for(error: FormatError) -> Option<u64> {
///     match error {
///         FormatError::TooSmall { needed, .. } => Some(needed),
///         _ => None,
///     }
/// }
/// assert_eq!(capacity_for(FormatError::TooSmall { capacity: 4096, needed: 1 << 20 }), Some(1 << 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The window is too small for the tables: sizes in bytes.
    TooSmall {
        /// Bytes the window has.
        capacity: u64,
        /// Bytes that the tables and one page of data need.
        needed: u64,
    },
    /// A number of table entries, or a size, is outside what the format allows.
    OutOfRange {
        /// Which option.
        option: &'static str,
        /// The value asked for.
        asked: u64,
        /// Smallest value allowed.
        least: u64,
        /// Largest value allowed.
        most: u64,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooSmall { capacity, needed } => write!(
                f,
                "a window of {capacity} bytes is too small for these tables: they need {needed}; \
                 ask for fewer peers or regions"
            ),
            Self::OutOfRange { option, asked, least, most } => {
                write!(f, "{option} is {asked}, but must be from {least} to {most}")
            }
        }
    }
}

impl core::error::Error for FormatError {}

/// Why a window is not a space that this version can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The window does not begin with the magic number: it was never formatted, or was erased.
    NotASpace {
        /// The first word found.
        found: u64,
    },
    /// A process is formatting the window, or died while it formatted it.
    Unfinished,
    /// The space was formatted by a version that this one does not understand.
    Version {
        /// The version in the header.
        found: u64,
    },
    /// The space uses features that this version does not know.
    Features {
        /// The unknown feature bits.
        unknown: u64,
    },
    /// The header's sizes do not agree with its checksum, or with each other.
    Damaged(Damage),
    /// The window is shorter than the space that was formatted in it.
    Truncated {
        /// Bytes there are.
        window: u64,
        /// Bytes the header speaks of.
        capacity: u64,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotASpace { found } => {
                write!(f, "not a space: it begins with {found:#018x}; `space format` makes one")
            }
            Self::Unfinished => f.write_str(
                "somebody is formatting it, or died while doing so; if nobody is, \
                 `space format --force` begins anew",
            ),
            Self::Version { found } => write!(
                f,
                "the space has format version {found}, and this program reads version {}",
                crate::VERSION
            ),
            Self::Features { unknown } => {
                write!(f, "the space uses features this program does not know: {unknown:#x}")
            }
            Self::Damaged(damage) => damage.fmt(f),
            Self::Truncated { window, capacity } => write!(
                f,
                "the space was formatted with {capacity} bytes, but only {window} are left of it"
            ),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}
