//! The port to a pager, which has the contents of an object's pages while they are not in memory, and the
//! pagers that need no operating system.

mod blocks;
mod bytes;
mod compressed;
mod failing;
mod request;
mod zero;

pub use bytes::BytesPager;
pub use compressed::{CompressedPager, CompressedUse};
pub use failing::{FailingPager, PagerCall, Which};
pub(crate) use request::Call;
pub use request::ReadRequest;
pub use zero::ZeroPager;

use core::fmt;

use crate::{ObjectPage, ObjectSpan};

/// Where the contents of an object's pages are while they are not in memory.
///
/// Calls come from several threads, and never with a lock of the memory manager held, so a pager may
/// take its time. At most one call for a page runs at any time; calls for different pages overlap. A call that panics
/// has failed with [`PagerError::Panicked`], and the panic goes on to the worker that made the call.
///
/// A read that takes longer than [`Settings::patience`](crate::Settings::patience) has failed for those who wait for it.
/// It is not interrupted: when it returns with success, the page gets what it has read. Until then the pager is not
/// asked for this page, unless the object is cut below the page and grows again.
///
/// A pager must not touch memory that the same manager manages: its thread may be the one that would have to serve
/// that fault, and both wait for ever. Its buffers, and what it copies to and from, lie elsewhere. The machine of
/// `commonhold-uffd` sees such an access in its workers: it prints which thread it was, and the access gets SIGBUS.
pub trait Pager: Send + Sync {
    /// Fills all of `into`, one page, with the contents of `page`. A page that was never written, or
    /// was discarded, reads as the pager's initial contents, for most of them zeros.
    ///
    /// # Errors
    /// [`PagerError`]; the fault ends with it, and the next fault on the page tries again.
    fn read(&self, page: ObjectPage, into: &mut [u8]) -> Result<(), PagerError>;

    /// Keeps `from`, one page, as the contents of `page`. After `Ok` the memory manager may take the page's memory
    /// away.
    ///
    /// # Errors
    /// [`PagerError`]; then `page` reads as it did before, and its memory is kept.
    fn write(&self, page: ObjectPage, from: &[u8]) -> Result<(), PagerError>;

    /// Drops what was kept for `pages`. They read as zeros from now on.
    ///
    /// # Errors
    /// [`PagerError`]; then they may read as they did before.
    fn discard(&self, pages: ObjectSpan) -> Result<(), PagerError>;

    /// Brings everything that was written or discarded before the call to the medium, so that it survives what the
    /// medium survives. A pager that keeps pages in memory has nothing to do.
    ///
    /// # Errors
    /// [`PagerError`]; then any page that was written since the last flush that succeeded may be lost.
    fn flush(&self) -> Result<(), PagerError> {
        Ok(())
    }

    /// Whether it reads by [`start_read`](Self::start_read) instead of [`read`](Self::read). The answer must not change.
    fn completes_later(&self) -> bool {
        false
    }

    /// Begins to read a page. The worker that calls this is free when it returns; the request may be completed by any
    /// thread, also before it returns. Only a pager that [completes later](Self::completes_later) is called so. Calls
    /// for other pages, and [`discard`](Self::discard) for this one, may come before the request is completed.
    fn start_read(&self, mut request: ReadRequest) {
        let result = self.read(request.page(), request.bytes());
        request.complete(result);
    }

    /// Whether it keeps pages compressed in memory. Only statistics ask.
    fn compresses(&self) -> bool {
        false
    }
}

/// Why a pager could not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PagerError {
    /// The medium failed; with the operating system's number for the error, or 0.
    Io {
        /// The operating system's number for the error, or 0.
        code: i32,
    },
    /// There is no room left to keep a page.
    Full,
    /// The pager panicked.
    Panicked,
    /// The pager dropped the request without completing it.
    Abandoned,
    /// The pager has not answered in time: it may still be at work on the page, and is not asked for it meanwhile.
    TimedOut,
    /// This pager keeps nothing: a page that was written to has to stay in memory.
    KeepsNothing,
    /// The page is past the end of what the pager has.
    PastEnd {
        /// The page that was asked for.
        page: ObjectPage,
    },
    /// The kept bytes of the page cannot be decoded any more.
    Damaged {
        /// The page that was asked for.
        page: ObjectPage,
    },
}

impl fmt::Display for PagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { code } => write!(f, "the medium failed (error {code})"),
            Self::Full => f.write_str("no room left to keep a page"),
            Self::Panicked => f.write_str("it panicked"),
            Self::Abandoned => f.write_str("it dropped the request"),
            Self::TimedOut => f.write_str("it has not answered in time"),
            Self::KeepsNothing => f.write_str("nothing is kept, so pages have to stay in memory"),
            Self::PastEnd { page } => write!(f, "page {} is past the end", page.number()),
            Self::Damaged { page } => {
                write!(f, "what was kept of page {} is damaged", page.number())
            }
        }
    }
}

impl core::error::Error for PagerError {}

#[cfg(test)]
mod tests;
