//! Advice: what a program will need, and what not.

use crate::{
    Access, AddressSpace, Error, FaultError, Mmu, ObjectPage, Pages, VirtualSpan,
    evict::{Evicted, Mercy},
    fault::Purpose,
};

/// What is said of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It will be referenced soon: bring it in now.
    WillNeed,
    /// It will not be referenced soon: it can go now. Nothing is lost; what must stay, stays.
    DontNeed,
}

impl<M: Mmu> AddressSpace<M> {
    /// Acts on `advice`, and says for how many pages of `span` it did so.
    ///
    /// # Errors
    /// [`Error::BadSpan`], [`Error::NotMapped`] if there is a gap, [`Error::NoMemory`]: nothing was done.
    /// [`Error::Pager`], [`Error::Fault`]: the first page that failed; those before were done.
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
                // More than fits was asked for: what does not fit is left out.
                Err(FaultError::NoMemory) => break,
                Err(error) => return Err(Error::Fault { at, error }),
            }
        }
        Ok(Pages(brought))
    }

    fn do_not_need(&self, span: VirtualSpan) -> Result<Pages, Error> {
        let mut evicted = 0;
        for (object, pages) in self.core.objects_in(span)? {
            for page in pages.iter() {
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
