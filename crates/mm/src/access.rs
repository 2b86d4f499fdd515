//! Access: the manager's own reads and writes of a page of a space, for a caller that copies between it and elsewhere.
//!
//! A caller that asks for a page's state first and copies then works on a page that may have left in between. So
//! [`AddressSpace::access`] looks at the mapping and the page as a fault does (`fault.rs`), and runs the caller's code
//! while both locks are held. Nothing is pinned, and no translation is made.

use core::fmt;

use crate::{Access, AddressSpace, FaultError, Mmu, MmuError, ObjectPage, VirtualPage, fault::Aim};

/// Whether an access may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Patience {
    /// It may not, neither for a lock nor for a pager: then it ends with [`FaultError::Busy`].
    Never,
    /// It brings the page in if need be.
    Waits,
}

/// The bytes of one page, during an [`access`](AddressSpace::access).
pub struct PageBytes<'a, M: Mmu> {
    mmu: &'a M,
    object: &'a M::Object,
    page: ObjectPage,
    access: Access,
}

impl<'a, M: Mmu> PageBytes<'a, M> {
    pub(crate) const fn new(
        mmu: &'a M,
        object: &'a M::Object,
        page: ObjectPage,
        access: Access,
    ) -> Self {
        Self { mmu, object, page, access }
    }

    /// Copies the bytes from `offset` on to `into`.
    ///
    /// # Errors
    /// [`FaultError::Machine`]: the machine's error, or the bytes reach past the end of the page.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), FaultError> {
        self.within(offset, into.len())?;
        Ok(self.mmu.read(self.object, self.page, offset, into)?)
    }

    /// Copies `from` to the bytes from `offset` on.
    ///
    /// # Errors
    /// [`FaultError::Protection`] if the access is not a write. Otherwise as for [`read`](Self::read); after the
    /// machine's error a part may have been written.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), FaultError> {
        if self.access != Access::Write {
            return Err(FaultError::Protection);
        }
        self.within(offset, from.len())?;
        Ok(self.mmu.write(self.object, self.page, offset, from)?)
    }

    fn within(&self, offset: usize, length: usize) -> Result<(), MmuError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.mmu.page_size());
        end.map(|_| ()).ok_or(MmuError::PastPage)
    }
}

impl<M: Mmu> AddressSpace<M> {
    /// Runs `act` on the page at `at`, if the mapping there permits `access`. With [`Patience::Waits`], a page that is
    /// not in memory is brought in first. For a write, the page is dirty before `act` runs.
    ///
    /// The space is locked to read and the object is locked while `act` runs: it must not call the manager, nor touch
    /// memory that the manager manages, and it should be short.
    ///
    /// # Errors
    /// As for a fault, [`FaultError`]; `act` has not run. With [`Patience::Never`], [`FaultError::Busy`] if it would have
    /// to wait.
    pub fn access<R>(
        &self,
        at: VirtualPage,
        access: Access,
        patience: Patience,
        act: impl FnOnce(&mut PageBytes<'_, M>) -> R,
    ) -> Result<R, FaultError> {
        let mut act = Some(act);
        let mut result = None;
        let mut run = |bytes: &mut PageBytes<'_, M>| result = act.take().map(|act| act(bytes));
        let mut aim = Aim::Run(&mut run);
        match patience {
            Patience::Never => self.core.try_run(at, access, &mut aim)?,
            Patience::Waits => self.core.reach(at, access, &mut aim, &mut None)?,
        }
        result.ok_or(FaultError::Busy)
    }
}

impl<M: Mmu> fmt::Debug for PageBytes<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (page, access) = (self.page, self.access);
        f.debug_struct("PageBytes").field("page", &page).field("access", &access).finish()
    }
}
