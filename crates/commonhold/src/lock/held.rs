//! The core of every exclusive guard.

use std::{marker::PhantomData, mem::ManuallyDrop, thread};

use commonhold_host::LinuxPlatform;
use commonhold_layout::LockWord;
use commonhold_space::View;
use commonhold_sync as sync;
use commonhold_sync::{Mutex, Release, Thread};

use super::Site;
use crate::{LockError, LockResult, attachment::LockContext};

/// A lock that one thread can hold alone, with the addresses of its words.
pub(crate) trait Holdable<'a>: Copy {
    /// How a thread holds it: what the fast path of freeing it needs. The slow paths need only the word that the thread
    /// holds it by, which fits a register.
    type HeldHow: Copy + Into<LockWord>;

    /// Where it lies.
    fn site(self) -> Site<'a>;

    /// What its fast path reads.
    fn context(self) -> &'a LockContext<'a>;

    /// The word.
    fn writer(self) -> Mutex<'a>;

    /// Frees it if no thread waits for it. `false`: [`free_slowly`](Self::free_slowly) must follow.
    fn free_quickly(self, hold: Self::HeldHow) -> bool;

    /// Frees it in any case.
    fn free_slowly(
        self,
        me: &Thread<'a>,
        view: &View<LinuxPlatform>,
        held_by: LockWord,
        how: Release,
    ) -> Result<(), sync::LockError>;
}

/// A lock that this thread holds alone. It stays in its thread: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(crate) struct Held<'a, L: Holdable<'a>> {
    lock: L,
    hold: L::HeldHow,
    /// Whether the thread was panicking when it took the lock. A whole word: a guard is moved right after it was
    /// made, and the processor stalls when it reads a word after only one byte of it was just written.
    panicking: usize,
    of: PhantomData<(&'a (), *const ())>,
}

impl<'a, L: Holdable<'a>> Held<'a, L> {
    #[inline(always)]
    pub(crate) fn new(lock: L, hold: L::HeldHow) -> Self {
        let panicking = usize::from(thread::panicking());
        Self { lock, hold, panicking, of: PhantomData }
    }

    #[inline]
    pub(crate) const fn lock(&self) -> L {
        self.lock
    }

    #[inline]
    pub(crate) const fn hold(&self) -> L::HeldHow {
        self.hold
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
        release(self.lock, self.hold, how)
    }

    /// Frees it as dropping it does, for an outer guard that does this in its own `drop`.
    #[inline(always)]
    pub(crate) fn release_on_drop(&self) {
        let how = self.how();
        if !release_quickly(self.lock, self.hold, how) {
            drop_slowly(self.lock, self.hold.into(), how);
        }
    }

    pub(crate) fn set_consistent(&self) -> LockResult<()> {
        let site = self.site();
        site.ask_live()?;
        let me = site.region.attachment().me()?;
        let writer = self.lock.writer();
        let hold = writer.hold(&me, self.hold.into());
        writer.mark_consistent_biased(&me, hold).map_err(|_| site.not_ours())
    }
}

/// This and the next are functions and not methods. A guard that is passed in parts, by value, stays in registers.
/// If any path takes it by reference, it lies in memory on all paths, and the processor waits for those stores
/// before it frees the lock.
#[inline]
fn release<'a, L: Holdable<'a>>(lock: L, hold: L::HeldHow, how: Release) -> LockResult<()> {
    if release_quickly(lock, hold, how) {
        return Ok(());
    }
    release_slowly(lock, hold.into(), how)
}

#[inline(always)]
fn release_quickly<'a, L: Holdable<'a>>(lock: L, hold: L::HeldHow, how: Release) -> bool {
    how == Release::Done && lock.context().is_live_here() && lock.free_quickly(hold)
}

/// The rest of a drop. It drops the error of a failed release here, so that this is not inlined where a guard is dropped.
#[cold]
fn drop_slowly<'a>(lock: impl Holdable<'a>, held_by: LockWord, how: Release) {
    // Fails only if this peer was declared dead; then others have taken over the lock.
    let _ = release_slowly(lock, held_by, how);
}

#[cold]
fn release_slowly<'a>(lock: impl Holdable<'a>, held_by: LockWord, how: Release) -> LockResult<()> {
    let site = lock.site();
    site.ask_live()?;
    let attachment = site.region.attachment();
    let me = attachment.me().map_err(LockError::from)?;
    let freed = lock.free_slowly(&me, attachment.my_view(), held_by, how);
    freed.map_err(|_| site.not_ours())
}

impl<'a, L: Holdable<'a>> Drop for Held<'a, L> {
    #[inline(always)]
    fn drop(&mut self) {
        self.release_on_drop();
    }
}

/// How dropping a guard frees its lock. `panicking` says whether the thread was panicking when the guard was made:
/// a panic since then leaves the lock inconsistent.
#[inline]
fn release_by(panicking: usize) -> Release {
    if thread::panicking() && panicking == 0 { Release::Inconsistent } else { Release::Done }
}
