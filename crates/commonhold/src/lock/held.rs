//! What every exclusive guard has.

use std::{marker::PhantomData, thread};

use commonhold_layout::{LockFlags, Owner};
use commonhold_sync::{LockError as SyncError, Mutex, Release};

use crate::{Mapping, RegionError};

/// A mutex word that this thread owns. It is its thread's: neither `Send` nor `Sync`.
#[derive(Debug)]
pub(super) struct Held<'a> {
    mapping: &'a Mapping,
    mutex: Mutex<'a>,
    owner: Owner,
    panicking: bool,
    freed: bool,
    not_send: PhantomData<*const ()>,
}

impl<'a> Held<'a> {
    #[inline]
    pub(super) fn new(mapping: &'a Mapping, mutex: Mutex<'a>, owner: Owner) -> Self {
        let panicking = thread::panicking();
        Self { mapping, mutex, owner, panicking, freed: false, not_send: PhantomData }
    }

    #[inline]
    pub(super) const fn mapping(&self) -> &'a Mapping {
        self.mapping
    }

    /// Frees it, once.
    #[inline]
    pub(super) fn free(&mut self, how: Release) -> Result<(), RegionError> {
        self.freed = true;
        if how == Release::Done
            && !self.mapping.attachment().is_forked()
            && self.mutex.unlock_quickly(self.owner)
        {
            return Ok(());
        }
        self.free_slowly(how)
    }

    #[cold]
    fn free_slowly(&self, how: Release) -> Result<(), RegionError> {
        let attachment = self.mapping.attachment();
        let me = attachment.me()?;
        self.mutex.unlock(&me, attachment.my_view(), how).map_err(not_ours)
    }

    pub(super) fn mark_consistent(&self) -> Result<(), RegionError> {
        let me = self.mapping.attachment().me()?;
        self.mutex.mark_consistent(&me).map_err(not_ours)
    }

    pub(super) fn is_inconsistent(&self) -> bool {
        !self.mapping.attachment().is_forked()
            && self.mutex.look().flags().contains(LockFlags::INCONSISTENT)
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.freed {
            return;
        }
        let how = if thread::panicking() && !self.panicking {
            Release::Inconsistent
        } else {
            Release::Done
        };
        // Fails only if this peer was declared dead; then others have the lock already.
        let _ = self.free(how);
    }
}

/// The only way in which freeing what one holds can fail.
const fn not_ours(_: SyncError) -> RegionError {
    RegionError::Fenced
}
