//! Write-back: dirty pages are written to the pager, and stay in memory.
//!
//! Page by page, as in the first half of an eviction (`evict.rs`): write access is withdrawn, the contents are
//! copied, and the pager writes the copy with no lock held. A write meanwhile faults and makes the page dirty
//! again, and so does a failure. At the end the pager is asked once to flush; if it cannot, all pages that it may have
//! lost and that are still in memory are dirty again.

use alloc::sync::Arc;

use crate::{
    AddressSpace, Error, FaultError, Mmu, MmuError, Object, ObjectPage, ObjectSpan, Page, Pages,
    Span, State, VirtualSpan, object::ObjectCore, order::Token,
};

impl<M: Mmu> Object<M> {
    /// Writes the dirty pages of `span` to the pager, lets it [flush](crate::Pager::flush), and returns how many. Its
    /// medium then has everything that was written to these pages before the call.
    ///
    /// # Errors
    /// [`Error::Lost`] if contents are lost: everything else was written. Otherwise the first failure. Its page, and the pages behind it, may be unwritten; they stay dirty then. With
    /// [`Error::Flush`], the object's pages in memory are dirty again, and the next `sync` writes them again.
    pub fn sync(&self, span: ObjectSpan) -> Result<Pages, Error> {
        let written = self.core.sync(span)?;
        self.core.flush()?;
        self.core.none_lost(span)?;
        Ok(written)
    }
}

impl<M: Mmu> AddressSpace<M> {
    /// As [`Object::sync`], for all pages that are mapped in `span`.
    ///
    /// # Errors
    /// [`Error::BadSpan`]; [`Error::NotMapped`] if there is a gap: nothing was written. Otherwise as for
    /// [`Object::sync`].
    pub fn sync(&self, span: VirtualSpan) -> Result<Pages, Error> {
        let mut written = 0;
        let mut parts = self.core.objects_in(span)?;
        for (object, pages) in &parts {
            written += object.sync(*pages)?.0;
        }
        // Each pager is asked once, however many parts of its object are mapped.
        parts.sort_unstable_by_key(|(object, _)| object.number);
        parts.dedup_by_key(|(object, _)| object.number);
        for (object, _) in &parts {
            object.flush()?;
        }
        for (object, pages) in self.core.objects_in(span)? {
            object.none_lost(pages)?;
        }
        Ok(Pages(written))
    }
}

impl<M: Mmu> ObjectCore<M> {
    fn sync(self: &Arc<Self>, span: ObjectSpan) -> Result<Pages, Error> {
        let mut buffer = self.manager.buffer();
        let (mut written, mut page, mut attempt) = (0, span.first(), 0_u32);
        while page < span.end() {
            match self.sync_one(page, span.end(), buffer.bytes())? {
                Synced::Wrote(done) => {
                    written += 1;
                    page = done.plus(1);
                }
                Synced::Lost(at) => page = at.plus(1),
                // Another thread writes it, but maybe without the last change: wait, and look again.
                Synced::Busy(at) => {
                    page = at;
                    attempt = attempt.saturating_add(1);
                    self.manager.mmu.idle(attempt);
                }
                Synced::NoMore => break,
            }
        }
        Ok(Pages(written))
    }

    /// Checks that no contents of `span` are lost.
    fn none_lost(&self, span: ObjectSpan) -> Result<(), Error> {
        let mut nothing = Token::nothing_held();
        let lost = self.next_page(&mut nothing, span, |page| page.state == State::Lost);
        lost.map_or(Ok(()), |page| Err(Error::Lost { page }))
    }

    /// Lets the pager bring what it took to its medium.
    fn flush(&self) -> Result<(), Error> {
        let Err(error) = self.pager.flush() else { return Ok(()) };
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        // What the medium has of them is not known, and here they are still whole.
        state.pages.each_from(ObjectPage::new(0), |_, page| {
            if page.state == State::Clean && page.kept {
                page.state = State::Dirty;
            }
        });
        Err(Error::Flush { error })
    }

    /// Writes the first dirty page from `first` on.
    fn sync_one(
        self: &Arc<Self>,
        first: ObjectPage,
        end: ObjectPage,
        buffer: &mut [u8],
    ) -> Result<Synced, Error> {
        let mut nothing = Token::nothing_held();
        let (mut state, _) = self.state.lock(&mut nothing);
        let end = state.within(Span::between(first, end)).end();
        let wanted = state.pages.position(first, end, |p| p.writing || p.state == State::Dirty);
        let Some(page) = wanted else { return Ok(Synced::NoMore) };
        if state.pages.get(page).writing {
            return Ok(Synced::Busy(page));
        }
        let withdrawal = self.begin_writing(&mut state, page, State::Clean);
        drop(state);
        match self.write_back(page, withdrawal, buffer) {
            Ok(()) => Ok(Synced::Wrote(page)),
            Err(FaultError::Pager(error)) => Err(Error::Pager { page, error }),
            Err(FaultError::Machine(MmuError::Gone)) => Ok(Synced::Lost(page)),
            Err(FaultError::Machine(error)) => Err(Error::Machine(error)),
            Err(_) => Err(Error::NoMemory),
        }
    }
}

enum Synced {
    Wrote(ObjectPage),
    /// Its memory has gone.
    Lost(ObjectPage),
    Busy(ObjectPage),
    NoMore,
}
