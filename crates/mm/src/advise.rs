//! Advice: which pages a program will need soon, and which not.

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, ObjectPage, Page, Pages, Span, VirtualSpan,
    evict::{Evicted, Mercy},
    fault::Purpose,
    order::Token,
    page::PageEntry,
};

/// What a program expects of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It will be accessed soon: its pages are brought in now.
    WillNeed,
    /// It will not be accessed soon: its pages are evicted now. Contents are kept, and locked pages stay.
    DontNeed,
}

impl<M: Mmu> AddressSpace<M> {
    /// Acts on `advice`, and returns how many pages of `span` were brought in or evicted.
    ///
    /// # Errors
    /// [`Error::BadSpan`]; [`Error::NotMapped`] if there is a gap: nothing was done. [`Error::NoMemory`].
    /// [`Error::Pager`], [`Error::Fault`], [`Error::Machine`]: the first failure; the pages before it were done.
    pub fn advise(&self, span: VirtualSpan, advice: Advice) -> Result<Pages, Error> {
        match advice {
            Advice::WillNeed => self.will_need(span),
            Advice::DontNeed => self.do_not_need(span),
        }
    }

    fn will_need(&self, span: VirtualSpan) -> Result<Pages, Error> {
        self.core.objects_in(span)?;
        let mut brought = 0;
        for at in span.iter() {
            let before = self.query(at).and_then(|info| info.state);
            if before.is_none_or(crate::State::is_resident) {
                continue;
            }
            match self.core.redo(at, Access::Read, Purpose::Reference, &mut None) {
                Ok(()) => brought += 1,
                Err(FaultError::NotMapped | FaultError::PastEnd | FaultError::Protection) => {}
                // The advice asks for more than fits: the rest is left out.
                Err(FaultError::NoMemory) => break,
                Err(error) => return Err(Error::Fault { at, error }),
            }
        }
        Ok(Pages(brought))
    }

    fn do_not_need(&self, span: VirtualSpan) -> Result<Pages, Error> {
        let mut evicted = 0;
        for (object, pages) in self.core.objects_in(span)? {
            let mut rest = pages;
            let mut nothing = Token::nothing_held();
            let resident = |page: &PageEntry| page.state.is_resident();
            while let Some(page) = object.next_page(&mut nothing, rest, resident) {
                rest = Span::between(page.plus(1), pages.end());
                match object.evict(page, Mercy::None) {
                    Evicted::Done => evicted += 1,
                    Evicted::NotNow | Evicted::Referenced | Evicted::Pinned => {}
                    Evicted::Failed(error) => return Err(failed(page, error)),
                }
            }
        }
        Ok(Pages(evicted))
    }
}

fn failed(page: ObjectPage, error: FaultError) -> Error {
    match error {
        FaultError::Pager(error) => Error::Pager { page, error },
        FaultError::Machine(error) => Error::Machine(error),
        _ => Error::NoMemory,
    }
}
