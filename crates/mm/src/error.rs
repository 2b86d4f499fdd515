//! The errors of operations, of faults, and of the machine.

use core::fmt;

use crate::{NoMemory, ObjectPage, PagerError, Pages, VirtualPage};

/// Why an operation on a space or an object has failed. Unless the operation says otherwise, nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No memory for tables or pages, or the budget is used up by pages that must stay.
    NoMemory,
    /// The settings allow no pulse, so no fault could ever wait.
    NoPulses,
    /// More pages would be locked than the space may lock.
    LockedLimit {
        /// The space's limit.
        limit: Pages,
        /// How many pages would be locked.
        asked: Pages,
    },
    /// A span of no pages, or one that ends beyond the space or beyond the greatest page number.
    BadSpan,
    /// Something is mapped there already.
    Occupied {
        /// The first mapped page.
        at: VirtualPage,
    },
    /// Nothing is mapped there.
    NotMapped {
        /// The first page without a mapping.
        at: VirtualPage,
    },
    /// No gap of the space is that large.
    NoGap {
        /// What was asked for.
        asked: Pages,
    },
    /// The object has been destroyed, and takes no new mappings.
    Destroyed,
    /// The machine failed.
    Machine(MmuError),
    /// The pager failed.
    Pager {
        /// The page that it was asked for.
        page: ObjectPage,
        /// The pager's error.
        error: PagerError,
    },
    /// The pager has taken pages, but they may not have reached its medium. Those in memory are dirty again.
    Flush {
        /// The pager's error.
        error: PagerError,
    },
    /// The page is locked, super-locked or pinned, so it keeps its contents.
    Locked {
        /// Which page of the object.
        page: ObjectPage,
    },
    /// The page was changed, and then something outside the memory manager took its memory away. Accesses to it fail
    /// until it is discarded.
    Lost {
        /// Which page of the object.
        page: ObjectPage,
    },
    /// A page that has to be in memory could not be brought in.
    Fault {
        /// The page of the space.
        at: VirtualPage,
        /// The error that a fault there gets.
        error: FaultError,
    },
}

/// Why a fault cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// Nothing is mapped there.
    NotMapped,
    /// The mapping does not permit the access.
    Protection,
    /// The object has been cut, and the page lies past its end.
    PastEnd,
    /// No memory, or the budget is used up by pages that must stay.
    NoMemory,
    /// The machine failed.
    Machine(MmuError),
    /// The pager failed; the next access tries again.
    Pager(PagerError),
    /// The page's contents are lost, as [`Error::Lost`] says. The next access fails as well.
    Lost,
    /// The first access to a page of a lazy mapping came from a context where no fault may happen: the program
    /// must touch the page before. In a super-locked space, only accesses of that space count.
    NeverReferenced,
    /// A fault where none may happen, in memory that is not super-locked.
    NotSuperLocked,
    /// The caller may not wait. A fault where none may happen: another thread had the space or the object locked, so
    /// why the page faulted is not known. An access that may not wait: a lock was not free, or the page is not in
    /// memory.
    Busy,
}

/// Why the machine could not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmuError {
    /// There is no memory left, for a page or for tables.
    NoMemory,
    /// The bytes reach past the end of their page.
    PastPage,
    /// A call of the operating system failed.
    Failed {
        /// The operating system's number for the error.
        code: i32,
    },
    /// The page should have memory and has none: something outside the memory manager took it away.
    Gone,
}

impl From<MmuError> for Error {
    fn from(error: MmuError) -> Self {
        match error {
            MmuError::NoMemory => Self::NoMemory,
            failed => Self::Machine(failed),
        }
    }
}

impl From<MmuError> for FaultError {
    fn from(error: MmuError) -> Self {
        match error {
            MmuError::NoMemory => Self::NoMemory,
            failed => Self::Machine(failed),
        }
    }
}

impl From<alloc::collections::TryReserveError> for Error {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl From<NoMemory> for Error {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory left, or only pages that must stay"),
            Self::NoPulses => f.write_str("settings with room for no pulse"),
            Self::LockedLimit { limit, asked } => {
                write!(f, "{} pages would be locked, and the space may lock {}", asked.0, limit.0)
            }
            Self::BadSpan => f.write_str("no pages, or pages beyond the end of the space"),
            Self::Occupied { at } => write!(f, "page {} is mapped already", at.number()),
            Self::NotMapped { at } => write!(f, "nothing is mapped at page {}", at.number()),
            Self::NoGap { asked } => write!(f, "no gap of {} pages is left", asked.0),
            Self::Destroyed => f.write_str("the object has been destroyed"),
            Self::Machine(error) => write!(f, "{error}"),
            Self::Pager { page, error } => {
                write!(f, "the pager failed at page {}: {error}", page.number())
            }
            Self::Flush { error } => write!(f, "the pager could not flush what it took: {error}"),
            Self::Locked { page } => write!(f, "page {} is locked", page.number()),
            Self::Lost { page } => {
                write!(f, "page {}: {}", page.number(), FaultError::Lost)
            }
            Self::Fault { at, error } => write!(f, "page {}: {error}", at.number()),
        }
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str("nothing is mapped there"),
            Self::Protection => f.write_str("the mapping does not permit this access"),
            Self::PastEnd => {
                f.write_str("the page is past the end of the object, which has been cut")
            }
            Self::NoMemory => f.write_str("no memory left, or only pages that must stay"),
            Self::Machine(error) => write!(f, "{error}"),
            Self::Pager(error) => write!(f, "the pager failed: {error}"),
            Self::Lost => f.write_str(
                "changes are lost, since the memory was taken away from outside: discard the page to use it again",
            ),
            Self::NeverReferenced => f.write_str(
                "first access to a lazy page where no fault may happen: touch it before",
            ),
            Self::Busy => f.write_str(
                "the caller may not wait, and another thread works on the space, the object or the page",
            ),
            Self::NotSuperLocked => {
                f.write_str("a fault where none may happen: the space is not super-locked")
            }
        }
    }
}

impl fmt::Display for MmuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("the machine has no memory left"),
            Self::PastPage => f.write_str("the bytes reach past the end of their page"),
            Self::Failed { code } => write!(f, "the machine failed with error {code}"),
            Self::Gone => f.write_str("the page's memory was taken away from outside"),
        }
    }
}

impl core::error::Error for Error {}
impl core::error::Error for FaultError {}
impl core::error::Error for MmuError {}
