//! Eviction: how a page leaves memory.
//!
//! A clean page loses its translations, then its memory. A dirty page goes in three steps:
//! 1. It becomes `Evicting`: write access is taken away everywhere, and the contents are copied. Reads go on.
//! 2. With no lock held, the pager writes the copy.
//! 3. Under the lock again: if the page was written to meanwhile, it is `Dirty` and stays. If it was referenced or
//!    locked meanwhile, it is `Clean` and stays. If the pager failed, it is `Dirty` again and stays. Otherwise
//!    it goes as a clean page does.
//!
//! The memory goes last. So at every instant the contents are in memory, or with the pager, or both.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use crate::{
    FaultError, Mmu, MmuError, ObjectPage, PagerError, Span, State,
    object::{ObjectCore, ObjectState, Shielded},
    order::{self, Token},
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
        match self.begin_writing(&mut state, page, &mut bytes, State::Evicting) {
            Ok(()) => {}
            Err(MmuError::Gone) => {
                self.note_gone(&mut state, &mut in_object, page);
                return Evicted::Done;
            }
            Err(error) => return Evicted::Failed(error.into()),
        }
        drop(state);

        let written = self.write(page, &bytes);

        let (mut state, mut in_object) = self.state.lock(&mut nothing);
        if let Err(error) = self.end_writing(&mut state, page, written) {
            drop(state);
            self.keep_error(page, error);
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

    /// Why the page must not go; `None` if it may.
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

    /// Takes write access to a dirty page away, copies its contents, and makes its state `next`. No other thread
    /// writes it to the pager before [`end_writing`](Self::end_writing).
    pub(crate) fn begin_writing(
        &self,
        state: &mut ObjectState<M>,
        page: ObjectPage,
        into: &mut [u8],
        next: State,
    ) -> Result<(), MmuError> {
        let write_protected = self.write_protect(state, page);
        self.manager.mmu.copy_out(&self.machine, page, into)?;
        if let Some(entry) = state.pages.find_mut(page) {
            entry.writing = true;
            // A super-locked space can write to it at any time without a fault, so it is never known to be clean.
            entry.state = if write_protected == Shielded::Everywhere { next } else { State::Dirty };
        }
        Ok(())
    }

    /// Lets the pager write a page, after [`begin_writing`](Self::begin_writing). Nothing is locked. If the pager panics,
    /// this ends the writing as a failure, and the panic goes on.
    pub(crate) fn write(&self, page: ObjectPage, bytes: &[u8]) -> Result<(), PagerError> {
        let mut writing = Writing { object: self, page, ended: false };
        let written = self.pager.write(page, bytes);
        writing.ended = true;
        written
    }

    /// Notes the pager's result. The page is `Clean` if the pager wrote it and it was not written to meanwhile.
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

    /// Takes all translations to a clean page away, then its memory.
    fn take_memory(
        &self,
        state: &mut ObjectState<M>,
        in_object: &mut Token<'_, order::Object>,
        page: ObjectPage,
    ) {
        self.unmap(state, Span::one(page));
        let compressed = self.pager.compresses();
        // Locked over all changes: a search that found neither the page nor its place free would find no memory.
        let (mut residents, _) = self.budget.residents.lock(in_object);
        if let Some(entry) = state.pages.find_mut(page) {
            let place = entry.place.take();
            entry.state = if compressed && entry.kept { State::Compressed } else { State::Absent };
            if let Some(place) = place {
                entry.trace = Some(residents.evicted(place));
            }
        }
        self.release(page);
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        self.count_out();
    }
}
