//! A request to read a page, which a pager may complete later and from any thread.

use alloc::boxed::Box;
use core::fmt;

use crate::{ObjectPage, PagerError};

/// The manager's side of a request. Dropped, it fails.
pub(crate) trait Call: Send {
    fn bytes(&mut self) -> &mut [u8];
    fn end(&mut self, result: Result<(), PagerError>);
}

/// A page that a pager was asked for. It owns the memory that the page will have, and keeps no object alive.
///
/// Completing or dropping it may take locks of the manager: it must not happen inside
/// [`AddressSpace::access`](crate::AddressSpace::access) or [`Object::walk`](crate::Object::walk).
#[must_use = "dropping it fails the read"]
pub struct ReadRequest {
    page: ObjectPage,
    call: Box<dyn Call>,
}

impl ReadRequest {
    pub(crate) fn new(page: ObjectPage, call: Box<dyn Call>) -> Self {
        Self { page, call }
    }

    /// The page that was asked for.
    #[must_use]
    pub fn page(&self) -> ObjectPage {
        self.page
    }

    /// Where its contents go: one page, all of which must be written before it is completed with `Ok`.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.call.bytes()
    }

    /// The bytes are the contents of the page, or the pager has failed. The waiters go on, if there still are any; if the
    /// object was cut or dropped meanwhile, nothing happens.
    pub fn complete(mut self, result: Result<(), PagerError>) {
        self.call.end(result);
    }
}

impl fmt::Debug for ReadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest").field("page", &self.page).finish_non_exhaustive()
    }
}
