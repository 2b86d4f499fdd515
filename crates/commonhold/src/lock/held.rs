//! The core of every exclusive guard of a lock whose word names the owner.

use std::{marker::PhantomData, mem::ManuallyDrop, thread};

use commonhold_layout::Owner;
use commonhold_sync::{Mutex, Release};

use super::Site;
use crate::{LockError, LockResult, attachment::LockContext};

/// A lock whose word names its one owner, with the addresses of its words.
pub(crate) trait ByWord<'a>: Copy {
    /// Where it lies.
    fn site(self) -> Site<'a>;

    /// What its fast path reads.
    fn context(self) -> &'a LockContext<'a>;

    /// The word.
    fn writer(self) -> Mutex<'a>;
}

/// A lock whose word names this thread as owner. It stays in its thread: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Held<'a, L: ByWord<'a>> {
    lock: L,
    owner: Owner,
    /// Whether the thread was panicking when it took the lock. A whole word: a guard is moved right after it was
    /// made, and the processor stalls when it reads a word after only one byte of it was just written.
    panicking: usize,
    of: PhantomData<(&'a (), *const ())>,
}

impl<'a, L: ByWord<'a>> Held<'a, L> {
    #[inline(always)]
    pub(crate) fn new(lock: L, owner: Owner) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { lock, owner, panicking, of: PhantomData }
    }

    #[inline]
    pub(crate) const fn lock(&self) -> L {
        self.lock
    }

    #[inline]
    pub(crate) fn site(&self) -> Site<'a> {
        self.lock.site()
    }

    #[inline]
    pub(crate) fn context(&self) -> &'a LockContext<'a> {
        self.lock.context()
    }

    /// How dropping the guard frees the lock.
    #[inline]
    pub(crate) fn how(&self) -> Release {
        release_by(self.panicking)
    }

    /// Frees the lock, and reports whether this process still owned it.
    #[inline]
    pub(crate) fn free(self, how: Release) -> LockResult<()> {
        ManuallyDrop::new(self).release(how)
    }

    /// As [`free`](Self::free), for an outer guard that will not be dropped.
    #[inline(always)]
    pub(crate) fn release(&self, how: Release) -> LockResult<()> {
        release(self.lock, self.owner, how)
    }

    /// Frees it as dropping it does, for an outer guard that does this in its own `drop`.
    #[inline(always)]
    pub(crate) fn release_on_drop(&self) {
        let how = self.how();
        if !release_quickly(self.lock, self.owner, how) {
            drop_slowly(self.lock, how);
        }
    }

    pub(crate) fn set_consistent(&self) -> LockResult<()> {
        let site = self.site();
        site.ask_live()?;
        let me = site.region.attachment().me()?;
        self.lock.writer().mark_consistent(&me).map_err(|_| site.not_ours())
    }
}

/// This and the next are functions and not methods. A guard that is passed in parts, by value, stays in registers.
/// If any path takes it by reference, it lies in memory on all paths, and the processor waits for those stores
/// before it frees the lock.
#[inline]
fn release<'a>(lock: impl ByWord<'a>, owner: Owner, how: Release) -> LockResult<()> {
    if release_quickly(lock, owner, how) { Ok(()) } else { release_slowly(lock, how) }
}

#[inline(always)]
fn release_quickly<'a>(lock: impl ByWord<'a>, owner: Owner, how: Release) -> bool {
    how == Release::Done && lock.context().is_live_here() && lock.writer().unlock_quickly(owner)
}

/// The rest of a drop. It drops the error of a failed release here, so that this is not inlined where a guard is dropped.
#[cold]
fn drop_slowly<'a>(lock: impl ByWord<'a>, how: Release) {
    // Fails only if this peer was declared dead; then others have taken over the lock.
    let _ = release_slowly(lock, how);
}

#[cold]
fn release_slowly<'a>(lock: impl ByWord<'a>, how: Release) -> LockResult<()> {
    let site = lock.site();
    site.ask_live()?;
    let attachment = site.region.attachment();
    let me = attachment.me().map_err(LockError::from)?;
    lock.writer().unlock(&me, attachment.my_view(), how).map_err(|_| site.not_ours())
}

impl<'a, L: ByWord<'a>> Drop for Held<'a, L> {
    #[inline(always)]
    fn drop(&mut self) {
        self.release_on_drop();
    }
}

/// How dropping a guard frees its lock. `panicking` says whether the thread was panicking when the guard was made:
/// a panic since then leaves the lock inconsistent.
#[inline]
pub(crate) fn release_by(panicking: usize) -> Release {
    if thread::panicking() && panicking == 0 { Release::Inconsistent } else { Release::Done }
}
