//! What the machine reports.

use crate::{ObjectPage, VirtualPage};

/// A mistake of the memory manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Memory was released while a table still translated to it, or a processor still remembered it.
    ReleasedTooEarly {
        /// Which page of its object.
        page: ObjectPage,
    },
    /// A processor used memory that had been released.
    UsedAfterRelease {
        /// Where.
        at: VirtualPage,
    },
    /// A page that had memory was given more, or a page without memory was used.
    WrongMemory {
        /// Which page of its object.
        page: ObjectPage,
    },
    /// A translation was made where there was another.
    Overwritten {
        /// Where.
        at: VirtualPage,
    },
}
