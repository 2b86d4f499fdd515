//! Why a barrier was not passed.

use std::fmt;

use super::{ErrorKind, RegionError};

/// Why a barrier was not passed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// A party died, or gave up, before it had arrived. Have another [join](crate::Barrier::join) in its
    /// place, and wait again: the caller's own arrival stands.
    PartyDied,
    /// Not all had arrived before the deadline. The caller's own arrival stands.
    TimedOut,
    /// Anything else.
    Region(RegionError),
}

impl BarrierError {
    /// What it means for the caller.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::PartyDied => ErrorKind::OwnerDied,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Region(error) => error.kind(),
        }
    }
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartyDied => f.write_str(
                "a party of the barrier died before it had arrived; have another join in its place, and \
                 wait again",
            ),
            Self::TimedOut => f.write_str("not all parties had arrived at the barrier in time"),
            Self::Region(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BarrierError {}

impl From<RegionError> for BarrierError {
    fn from(error: RegionError) -> Self {
        Self::Region(error)
    }
}
