//! Errors of write-back that no caller was there to get.
//!
//! # What it owns
//! The first such error of an object, and of a manager, until somebody takes it.
//!
//! # Which errors these are
//! - An eviction writes a page for whoever needs memory. If the pager fails, the page stays in memory and dirty, so
//!   nothing is lost: [`Object::take_error`] tells of it. The next [`Object::sync`] writes the page again, and fails
//!   if the pager still does.
//! - The last handle or mapping of a file's object writes its dirty pages when it is dropped. If that fails, these
//!   contents are lost: [`Manager::take_error`] tells of it.

use crate::{
    Error, Manager, Mmu, Object, ObjectPage, PagerError,
    object::ObjectCore,
    order::{Leaf, Ordered, Token},
};
use lock_api::RawMutex;

/// The first error since the last [`take`](Self::take).
pub(crate) struct KeptError<R> {
    first: Ordered<R, Leaf, Option<Error>>,
}

impl<R: RawMutex> KeptError<R> {
    pub(crate) const fn new() -> Self {
        Self { first: Ordered::new(None) }
    }

    /// Keeps `error`, unless there is an older one. Nothing is locked.
    pub(crate) fn keep(&self, error: Error) {
        let mut nothing = Token::nothing_held();
        self.first.lock(&mut nothing).0.get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        let mut nothing = Token::nothing_held();
        self.first.lock(&mut nothing).0.take()
    }
}

impl<M: Mmu> Object<M> {
    /// The first error of a write to the pager in an eviction, since this was last asked. The page stayed in memory.
    #[must_use]
    pub fn take_error(&self) -> Option<Error> {
        self.core.write_error.take()
    }
}

impl<M: Mmu> Manager<M> {
    /// The first error by which changed pages of a file were lost when its object was dropped, since this was last
    /// asked. A program that must not lose them calls [`Object::sync`] before.
    #[must_use]
    pub fn take_error(&self) -> Option<Error> {
        self.core.lost.take()
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Keeps the pager's error of an eviction. Nothing is locked.
    pub(crate) fn keep_error(&self, page: ObjectPage, error: PagerError) {
        self.write_error.keep(Error::Pager { page, error });
    }
}
