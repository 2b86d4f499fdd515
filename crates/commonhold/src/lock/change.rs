//! A change under a sequence lock. Readers are kept out from its first byte on.

use std::cell::Cell;

use commonhold_sync as sync;

use crate::{attachment::LockContext, region::MappedRegion};

/// A sequence lock, with the addresses of its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeqWords<'a> {
    pub(crate) region: &'a MappedRegion,
    pub(crate) context: LockContext<'a>,
    pub(crate) lock: sync::SeqLock<'a>,
}

/// A writer's change. It begins when the first byte is written.
#[derive(Debug)]
pub(crate) struct SeqChange<'a> {
    words: &'a SeqWords<'a>,
    writing: Cell<sync::Writing>,
}

impl<'a> SeqChange<'a> {
    pub(crate) const fn new(words: &'a SeqWords<'a>, writing: sync::Writing) -> Self {
        Self { words, writing: Cell::new(writing) }
    }

    /// The state of the change.
    #[inline]
    pub(crate) fn writing(&self) -> sync::Writing {
        self.writing.get()
    }

    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.words.context.is_forked()
    }

    /// Keeps readers out, before the first byte is written. `false` if this process was declared dead and must not
    /// write.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        self.words.context.is_live_here() && (self.writing.get().has_begun() || self.keep_out())
    }

    #[cold]
    fn keep_out(&self) -> bool {
        let Ok(me) = self.words.region.attachment().me() else { return false };
        let begun = self.words.lock.begin(&me, self.writing.get());
        begun.is_ok_and(|writing| {
            self.writing.set(writing);
            true
        })
    }
}
