//! Eviction: how a page leaves memory.
//!
//! A clean page: its translations are taken away, then its memory. A dirty one:
//! 1. `Evicting`: write access is taken away everywhere, and the contents are copied. Reads go on.
//! 2. With no lock held, the pager writes the copy.
//! 3. Under the lock again: a write meanwhile has made the page `Dirty` (it stays); a reference or a lock
//!    keeps it as well, clean by now. If the pager failed, it is `Dirty` as before. Only otherwise it goes.
//!
//! The memory goes last of all. So at every instant the contents are in memory, or with the pager, or both.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use crate::{
    FaultError, Mmu, ObjectPage, PagerError, Span, State,
    object::{ObjectCore, ObjectState, Shielded},
    order::{self, Token},
};

/// What came of an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// The page has gone.
    Done,
    /// It has no memory, or somebody else is at work with it.
    NotNow,
    /// It has been referenced since it was last looked at.
    Referenced,
    /// Some mapping wants it in memory.
    Pinned,
    /// It could not be written, and stays.
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

impl<M: Mmu> ObjectCore<M> {
    /// Evicts a page, if nothing speaks against it. Nothing is locked.
    pub(crate) fn evict(self: &Arc<Self>, page: ObjectPage, mercy: Mercy) -> Evicted {
        let mut bytes = Vec::new();
        let mut nothing = Token::nothing_held();
        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        if let Some(kept) = self.keeps(&mut state, page, mercy) {
            return kept;
        }
        match state.pages.get(page).state {
            State::Clean => {
                self.take_memory(&mut state, &mut in_object, page);
                return Evicted::Done;
            }
            State::Dirty => {}
            _ => return Evicted::NotNow,
        }
        let length = self.manager.mmu.page_size();
        if bytes.try_reserve_exact(length).is_err() {
            return Evicted::Failed(FaultError::NoMemory);
        }
        bytes.resize(length, 0);
        if let Err(error) = self.begin_writing(&mut state, page, &mut bytes, State::Evicting) {
            return Evicted::Failed(error);
        }
        drop(state);

        let written = self.pager.write(page, &bytes);

        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        if let Err(error) = self.end_writing(&mut state, page, written) {
            return Evicted::Failed(FaultError::Pager(error));
        }
        if state.pages.get(page).state != State::Clean {
            return Evicted::Referenced;
        }
        if let Some(kept) = self.keeps(&mut state, page, mercy) {
            return kept;
        }
        self.take_memory(&mut state, &mut in_object, page);
        Evicted::Done
    }

    /// Why the page must not go, if so.
    fn keeps(&self, state: &mut ObjectState<M>, page: ObjectPage, mercy: Mercy) -> Option<Evicted> {
        let entry = match state.pages.find_mut(page) {
            Some(entry) if entry.state.is_resident() && !entry.writing => entry,
            _ => return Some(Evicted::NotNow),
        };
        let referenced = core::mem::take(&mut entry.referenced);
        if referenced && mercy == Mercy::Referenced {
            return Some(Evicted::Referenced);
        }
        self.is_pinned(state, page).then_some(Evicted::Pinned)
    }

    /// Takes write access to a dirty page away and copies its contents. It is `next` then, and nobody else
    /// writes it before [`end_writing`](Self::end_writing).
    pub(crate) fn begin_writing(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        into: &mut [u8],
        next: State,
    ) -> Result<(), FaultError> {
        let write_protected = self.write_protect(state, page);
        self.manager.mmu.copy_out(&self.machine, page, into)?;
        if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = true;
            // In a super-locked space it can be written to at any time, unseen: it is never known clean.
            entry.state = if write_protected == Shielded::Everywhere { next } else { State::Dirty };
        }
        Ok(())
    }

    /// What the pager said. The page is `Clean` if nobody wrote to it meanwhile.
    pub(crate) fn end_writing(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        written: Result<(), PagerError>,
    ) -> Result<(), PagerError> {
        if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = false;
            let unchanged = matches!(entry.state, State::Evicting | State::Clean);
            match written {
                Ok(()) => {
                    entry.kept = true;
                    entry.state = if unchanged { State::Clean } else { entry.state };
                }
                Err(_) => entry.state = if unchanged { State::Dirty } else { entry.state },
            }
        }
        let count = if written.is_ok() { &self.counts.written } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        written
    }

    /// Takes the memory of a clean page, with all translations to it.
    fn take_memory(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        self.unmap(state, Span::one(page));
        let compressed = self.pager.compresses();
        if let Some(entry) = state.pages.find_mut(page) {
            let place = entry.place.take();
            entry.state = if compressed && entry.kept { State::Compressed } else { State::Absent };
            if let Some(place) = place {
                let (mut residents, _) = self.budget.residents.lock(in_object);
                entry.trace = Some(residents.evicted(place));
            }
        }
        self.manager.mmu.release(&self.machine, page);
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        self.count_out();
    }
}
