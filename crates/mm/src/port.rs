//! The port to the machine: its memory, its translations, its locks, and how it wakes a thread that faulted.

use core::fmt::Debug;

use lock_api::{RawMutex, RawRwLock};

use crate::{FaultError, MmuError, ObjectPage, Pages, VirtualPage, VirtualSpan};

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To fetch an instruction.
    Execute,
}

/// What a mapping permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Nothing.
    None,
    /// To read.
    Read,
    /// To read and to write.
    ReadWrite,
    /// To read and to execute.
    ReadExecute,
    /// Everything.
    ReadWriteExecute,
}

impl Protection {
    /// Whether `access` is permitted.
    #[inline]
    #[must_use]
    pub const fn permits(self, access: Access) -> bool {
        match access {
            Access::Read => !matches!(self, Self::None),
            Access::Write => matches!(self, Self::ReadWrite | Self::ReadWriteExecute),
            Access::Execute => matches!(self, Self::ReadExecute | Self::ReadWriteExecute),
        }
    }
}

/// Whether a translation lets writes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writable {
    /// A write faults, whatever the mapping permits.
    No,
    /// A write goes through if the mapping permits it.
    Yes,
}

/// Who serves a pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A worker that never waits for a pager: the fault needs memory, or a lock that was not free.
    Memory,
    /// A worker that may call a pager.
    Paging,
}

impl Lane {
    pub(crate) const COUNT: usize = 2;

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Memory => Self::Paging,
            Self::Paging => Self::Memory,
        }
    }
}

/// Whether the machine may wait for a lock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// It may not: the caller handles a fault.
    Never,
    /// It may, for as long as another call of the port lasts.
    Briefly,
}

/// The result of [`Mmu::install`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Installed {
    /// The translation is there.
    Done,
    /// The machine would have had to wait, and nothing has changed. The fault handler sends a pulse instead.
    Later,
}

/// The result of [`Mmu::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Released {
    /// The memory is free.
    Gone,
    /// Something else holds the memory, so it is not free. Nothing can be read there until the page is filled, which
    /// overwrites all of it.
    Held,
}

/// A machine: memory for pages of objects, translations in address spaces, locks.
///
/// All calls may come from several threads at once. The description of each says which locks are held;
/// *space locked* means to write.
///
/// [`write_protect`](Self::write_protect) and [`remove`](Self::remove) are told which pages they are meant for, and
/// must do nothing where the space shows others by now: they come from walks that hold no lock of the space.
/// A machine that cannot know that may take away too much, from a space that is not super-locked: then a
/// fault brings it back.
pub trait Mmu: Send + Sync + Sized + 'static {
    /// The mutex of an object, and of leaves that no fault handler takes.
    type Mutex: RawMutex + Send + Sync;
    /// The mutex of leaves that a fault handler takes. It is never held over a wait or an allocation, and for a short
    /// time only. A kernel takes a spin lock that masks interrupts.
    type Leaf: RawMutex + Send + Sync;
    /// The reader/writer lock of an address space.
    type RwLock: RawRwLock + Send + Sync;
    /// An address space's translations. Dropped after its last mapping has been detached.
    type Space: Send + Sync + Debug;
    /// An object's memory. Dropped, with all memory in it, when nothing maps the object any more.
    type Object: Send + Sync + Debug;

    /// Bytes in a page.
    fn page_size(&self) -> usize;

    /// Translations for a new address space of the pages `span`, none yet.
    ///
    /// # Errors
    /// [`MmuError`].
    fn new_space(&self, span: VirtualSpan) -> Result<Self::Space, MmuError>;

    /// Memory for a new object of `pages` pages: none of them has any yet.
    ///
    /// # Errors
    /// [`MmuError`].
    fn new_object(&self, pages: Pages) -> Result<Self::Object, MmuError>;

    /// The object is to have `pages` pages from now on. Called with nothing locked; pages past the
    /// end have been released before.
    ///
    /// # Errors
    /// [`MmuError`]; then it has as many as before.
    fn resize_object(&self, object: &Self::Object, pages: Pages) -> Result<(), MmuError>;

    /// Gives memory to `page` and writes `from` to it. Object locked; the page has no memory, or some that
    /// [`release`](Self::release) could not free.
    ///
    /// # Errors
    /// [`MmuError`]; then it still has none.
    fn fill(&self, object: &Self::Object, page: ObjectPage, from: &[u8]) -> Result<(), MmuError>;

    /// Copies the page's memory to `into`, not through any mapping. Object locked; the page has memory.
    ///
    /// # Errors
    /// [`MmuError`]; [`MmuError::Gone`] if something else took the memory away, even while it was being copied.
    fn copy_out(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        into: &mut [u8],
    ) -> Result<(), MmuError>;

    /// Takes the page's memory away, and looks whether it has gone. Object locked; no translation to it is left.
    fn release(&self, object: &Self::Object, page: ObjectPage) -> Released;

    /// A mapping has come: `span` shows the object from `first` on. Space locked. No translation is made.
    ///
    /// # Errors
    /// [`MmuError`].
    fn attach(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), MmuError>;

    /// What was attached to `span` goes: when this returns, no translation in it is used by any processor.
    /// Space locked. `span` may be a part of what was attached.
    fn detach(&self, space: &Self::Space, span: VirtualSpan);

    /// Mappings in `span` permit `protection` from now on: when this returns, no processor uses a
    /// translation that permits more. Those that permit less stay. Space locked.
    ///
    /// # Errors
    /// [`MmuError`]; then they permit what they did. (A machine that keeps a record of each part with a
    /// protection of its own can run out of those.)
    fn protect(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        protection: Protection,
    ) -> Result<(), MmuError>;

    /// Lets `at` translate to `page`, within what the mapping permits, and lets writes through or not.
    /// If there is a translation to this page already, it permits as much as before or more. Space locked
    /// to read, and object locked. With [`Wait::Never`], the caller is a fault handler: a machine that would have to
    /// wait for a lock answers [`Installed::Later`].
    ///
    /// # Errors
    /// [`MmuError`]; [`MmuError::Gone`] if the page has no memory any more, since something else took it away.
    #[expect(clippy::too_many_arguments, reason = "what a page-table entry is made of")]
    fn install(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
        protection: Protection,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, MmuError>;

    /// Lets writes through the translation from `at` to `page` no longer, once [`flush`](Self::flush) has
    /// returned. Object locked.
    fn write_protect(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
    );

    /// Takes the translations from `span` to the object's pages from `first` on away, once
    /// [`flush`](Self::flush) has returned. There may be none, and `span` be large: objects are cut and mapped
    /// by the million pages. Object locked.
    fn remove(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
    );

    /// When this returns, no processor uses a translation in `span` that was write-protected or removed before.
    /// Object locked.
    fn flush(&self, space: &Self::Space, span: VirtualSpan);

    /// A pulse waits: a worker of this lane should call [`Manager::serve`](crate::Manager::serve), or
    /// [`Manager::serve_memory`](crate::Manager::serve_memory) for [`Lane::Memory`]. Anything may be locked, and the
    /// caller may be a fault handler.
    fn pulse(&self, lane: Lane);

    /// The threads that wait for the fault on `at` with this cookie may go on: to try again, or with an error. This can
    /// come before [`fault`](crate::AddressSpace::fault) has returned. Nothing is locked, or the space.
    fn wake(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        access: Access,
        cookie: u64,
        result: Result<(), FaultError>,
    );

    /// This thread waits for another one, which works with a pager: give the processor away, longer if
    /// `attempt` is greater. Nothing is locked. It may return at any time.
    fn idle(&self, attempt: u32);
}
