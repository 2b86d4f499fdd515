//! Eviction: how a page leaves memory.
//!
//! A clean page loses its translations, then its memory: all of them are withdrawn (`withdraw.rs`), and under the lock
//! again, if the page may still go, its memory is released. A dirty page becomes clean before:
//! 1. It becomes `Evicting`: write access is withdrawn everywhere, and the contents are copied. Reads go on.
//! 2. Writes may go on too, and the pager writes the copy.
//! 3. Under the lock again: if the page was written to meanwhile, it is `Dirty` and stays. If the pager failed, it is
//!    `Dirty` again and stays. Otherwise it is `Clean`, and goes, unless it was referenced or locked meanwhile.
//!
//! The machine and the pager are called with nothing locked. The memory goes last. So at every instant the contents are
//! in memory, or with the pager, or both. Faults on the page wait only while the machine works, never while a pager does.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::{
    FaultError, Mmu, MmuError, ObjectPage, PagerError, Residents, Seen, State,
    object::{ObjectCore, ObjectState},
    order::{self, Token},
    withdraw::{Shielded, Withdrawal},
};

/// The result of an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// The page has gone, by this eviction or before it.
    Done,
    /// It has no memory, or another thread works on it.
    NotNow,
    /// It has been referenced or written to since the last look at it.
    Referenced,
    /// Some mapping wants it in memory.
    Pinned,
    /// It could not be copied or written, and stays.
    Failed(FaultError),
}

/// Whether pages that have been referenced go as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mercy {
    /// They stay, and count as not referenced from now on.
    Referenced,
    /// They go.
    None,
}

/// A call of the pager. Dropped while its thread unwinds, the writing fails.
struct Writing<'a, M: Mmu> {
    object: &'a ObjectCore<M>,
    page: ObjectPage,
    ended: bool,
}

impl<M: Mmu> Drop for Writing<'_, M> {
    fn drop(&mut self) {
        self.object.writes.end(self.object.manager.now());
        if !self.ended {
            let mut nothing = Token::nothing_held();
            let (mut state, _) = self.object.state.lock(&mut nothing);
            let failed = Err(PagerError::Panicked);
            let _ = self.object.end_writing(&mut state, self.page, failed);
        }
    }
}

impl<M: Mmu> ObjectCore<M> {
    /// Evicts a page, unless it must stay. Nothing is locked.
    pub(crate) fn evict(self: &Arc<Self>, page: ObjectPage, mercy: Mercy) -> Evicted {
        let written = if self.is_dirty(page) { self.write_dirty(page, mercy) } else { Ok(()) };
        written.and_then(|()| self.evict_clean(page, mercy)).err().unwrap_or(Evicted::Done)
    }

    pub(crate) fn is_dirty(&self, page: ObjectPage) -> bool {
        let mut nothing = Token::nothing_held();
        let (state, _) = self.state.lock(&mut nothing);
        state.pages.get(page).state == State::Dirty
    }

    /// Lets the pager write a page that is about to go, if it is still dirty. On failure, says why it stays.
    fn write_dirty(self: &Arc<Self>, page: ObjectPage, mercy: Mercy) -> Result<(), Evicted> {
        let mut buffer = self.manager.buffer();
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        self.may_go(&mut state, page, mercy)?;
        if state.pages.get(page).state != State::Dirty {
            return Ok(());
        }
        let withdrawal = self.begin_writing(&mut state, page, State::Evicting);
        drop(state);
        self.write_back(page, withdrawal, buffer.bytes()).map_err(|error| match error {
            FaultError::Machine(MmuError::Gone) => Evicted::Done,
            FaultError::Pager(error) => {
                self.keep_error(page, error);
                Evicted::Failed(FaultError::Pager(error))
            }
            error => Evicted::Failed(error),
        })
    }

    /// Evicts a clean page. On failure, says why it stays.
    fn evict_clean(self: &Arc<Self>, page: ObjectPage, mercy: Mercy) -> Result<(), Evicted> {
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        self.may_go(&mut state, page, mercy)?;
        if state.pages.get(page).state != State::Clean {
            return Err(Evicted::Referenced);
        }
        if !M::RELEASE_UNMAPS {
            let withdrawal = self.withdraw_all(&mut state, page);
            drop(state);
            let seen = self.finish(withdrawal);
            (state, in_object) = self.state.lock(&mut nothing);
            self.unbar(&mut state, &mut in_object, page);
            let Seen { accessed, written } = seen.map_err(Evicted::Failed)?;
            if let Some(entry) = state.pages.find_mut(page) {
                entry.referenced |= accessed;
                entry.state = if written { State::Dirty } else { entry.state };
            }
            self.may_go(&mut state, page, mercy)?;
            // It can be dirty by now if the pager has lost what it had written.
            if state.pages.get(page).state != State::Clean {
                return Err(Evicted::Referenced);
            }
        }
        self.take_memory(&mut state, &mut in_object, page);
        Ok(())
    }

    /// Checks that a page may go. On failure, says why not.
    fn may_go(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        mercy: Mercy,
    ) -> Result<(), Evicted> {
        let entry = match state.pages.find_mut(page) {
            Some(entry) if entry.state.is_resident() && !entry.is_busy() => entry,
            _ => return Err(Evicted::NotNow),
        };
        let referenced = core::mem::take(&mut entry.referenced);
        if referenced && mercy == Mercy::Referenced {
            return Err(Evicted::Referenced);
        }
        if self.is_pinned(state, page) { Err(Evicted::Pinned) } else { Ok(()) }
    }

    /// Begins to take write access to a dirty page away, and makes its state `next`. No other thread writes it to the
    /// pager before [`write_back`](Self::write_back) has ended.
    pub(crate) fn begin_writing(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        next: State,
    ) -> Withdrawal<M> {
        let (withdrawal, shielded) = self.withdraw_writes(state, page);
        if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = true;
            // A super-locked space can write to it at any time without a fault, so it is never known to be clean.
            entry.state = if shielded == Shielded::Everywhere { next } else { State::Dirty };
        }
        withdrawal
    }

    /// Copies a page after [`begin_writing`](Self::begin_writing), and lets the pager write the copy. Nothing is locked.
    /// If the pager panics, this ends the writing as a failure, and the panic goes on.
    ///
    /// # Errors
    /// [`FaultError::Machine`], [`FaultError::Pager`]: the page is dirty. With [`MmuError::Gone`], its memory had gone.
    pub(crate) fn write_back(
        self: &Arc<Self>,
        page: ObjectPage,
        withdrawal: Withdrawal<M>,
        copy: &mut [u8],
    ) -> Result<(), FaultError> {
        let copied = self
            .finish(withdrawal)
            .and_then(|_| Ok(self.manager.mmu.read(&self.machine, page, 0, copy)?));
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        self.unbar(&mut state, &mut in_object, page);
        if let Err(error) = copied {
            Self::stays_dirty(&mut state, page);
            if error == FaultError::Machine(MmuError::Gone) {
                self.note_gone(&mut state, &mut in_object, page);
            }
            return Err(error);
        }
        drop(state);

        self.writes.begin(self.manager.now());
        let mut writing = Writing { object: self, page, ended: false };
        let written = self.pager.write(page, copy);
        writing.ended = true;
        drop(writing);

        let (mut state, _) = self.state.lock(&mut nothing);
        self.end_writing(&mut state, page, written).map_err(FaultError::Pager)
    }

    /// Notes the pager's result. The page is `Clean` if the pager wrote it and it was not written to meanwhile.
    fn end_writing(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        written: Result<(), PagerError>,
    ) -> Result<(), PagerError> {
        let count = if written.is_ok() { &self.counts.written } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        if written.is_err() {
            Self::stays_dirty(state, page);
        } else if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = false;
            entry.kept = true;
            let unchanged = entry.state == State::Evicting;
            entry.state = if unchanged { State::Clean } else { entry.state };
        }
        written
    }

    /// A page could not be written: it is as before.
    fn stays_dirty(state: &mut ObjectState<M>, page: ObjectPage) {
        if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = false;
            let unchanged = matches!(entry.state, State::Evicting | State::Clean);
            entry.state = if unchanged { State::Dirty } else { entry.state };
        }
    }

    /// Takes the memory of a clean page, whose translations are withdrawn, or go with the memory.
    fn take_memory(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        let compressed = self.pager.compresses();
        self.release(page);
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = state.pages.find_mut(page) else { return };
        entry.state = if compressed && entry.kept { State::Compressed } else { State::Absent };
        let place = entry.place.take();
        let trace = self.count_out(in_object, place, Residents::evicted);
        entry.trace = trace.or(entry.trace);
    }
}
