//! The port to the machine: its memory, its translations, its locks, and how it wakes a thread that faulted.

use core::fmt::Debug;

use lock_api::{RawMutex, RawRwLock};

use crate::{FaultError, MmuError, ObjectPage, Pages, Span, VirtualPage, VirtualSpan};

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
    /// The machine has no memory for its tables there, and nothing has changed. A worker calls [`Mmu::prepare`], and
    /// makes room by evicting pages.
    Unprepared,
}

/// What a frame of memory has to hold when the machine hands it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contents {
    /// Zeros. The manager adopts the frame as it is, and never writes to it.
    Zeros,
    /// Anything: a pager writes all of it.
    Unwritten,
}

/// What a machine has seen of a page when it took translations to it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// It was accessed through a translation since that was made, or [aged](Mmu::age).
    pub accessed: bool,
    /// It was written to, although no translation let writes through.
    pub written: bool,
}

/// A machine: memory for pages of objects, translations in address spaces, locks.
///
/// All calls may come from several threads at once. The description of each says which locks are held;
/// *space locked* means to write.
///
/// # Taking rights away
/// [`write_protect`](Self::write_protect) and [`remove`](Self::remove) are called under the object's lock and only note
/// what is wanted, or change tables; they wait for nothing and tell no other processor. What they leave to be done is in
/// the [`Gather`](Self::Gather), and [`finish`](Self::finish), called with nothing locked, does it for all of them at
/// once. Between the two calls no translation with these rights is made to these pages, and their memory stays.
///
/// Both are told which pages they are meant for, and they and `finish` must do nothing where the space shows others by
/// then, since the space is not locked. A machine that cannot know that may take away too much, from a space
/// that is not super-locked: then a fault brings it back.
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
    /// Changes of translations to pages of one object that are not finished: processors to tell, or calls to make. An
    /// eviction makes one, so a gather of a few changes takes no memory from the heap.
    type Gather: Default + Send;

    /// [`release`](Self::release) takes all translations to the page away by itself, in super-locked spaces too.
    const RELEASE_UNMAPS: bool = false;
    /// Memory for one page that no page of an object has yet. Dropping it gives it back. A frame that was taken as
    /// [`Contents::Unwritten`] is as long as a page.
    type Frame: AsMut<[u8]> + Send + 'static;

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

    /// Takes memory that `page` will have, with these contents. Called with nothing locked; it may wait. The page is
    /// being filled, so no other thread takes, gives or releases its memory meanwhile.
    ///
    /// # Errors
    /// [`MmuError`]. After [`MmuError::NoMemory`] the manager evicts a page and tries again.
    fn take_frame(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        contents: Contents,
    ) -> Result<Self::Frame, MmuError>;

    /// The frame holds the contents of `page` now: the last step of a filling that can fail. Called with nothing
    /// locked. If the manager does not adopt the frame after that, it drops it while the page is still being filled.
    ///
    /// # Errors
    /// [`MmuError`]; the frame is dropped then.
    fn ready(
        &self,
        _object: &Self::Object,
        _page: ObjectPage,
        _frame: &mut Self::Frame,
    ) -> Result<(), MmuError> {
        Ok(())
    }

    /// `page` has the memory of this frame from now on. It cannot fail. Object locked; the page has no memory, and
    /// [`ready`](Self::ready) has succeeded.
    fn adopt(&self, object: &Self::Object, page: ObjectPage, frame: Self::Frame);

    /// Copies the page's bytes from `offset` on to `into`, not through any mapping. Object locked; the page has memory,
    /// and the bytes lie within it.
    ///
    /// # Errors
    /// [`MmuError`].
    fn read(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), MmuError>;

    /// Copies `from` to the page's bytes from `offset` on, not through any mapping. Object locked; the page has memory
    /// and is [`Dirty`](crate::State::Dirty), and the bytes lie within it.
    ///
    /// # Errors
    /// [`MmuError`]; a part may have been written.
    fn write(
        &self,
        object: &Self::Object,
        page: ObjectPage,
        offset: usize,
        from: &[u8],
    ) -> Result<(), MmuError>;

    /// Takes the page's memory away. Object locked; no translation to it is left, unless the machine
    /// [takes them away itself](Self::RELEASE_UNMAPS).
    fn release(&self, object: &Self::Object, page: ObjectPage);

    /// A mapping has come: `span` shows the object from `first` on. Space locked. No translation is made.
    ///
    /// `span`, or parts of it, may show something already. Then the new mapping replaces it at one instant: an access
    /// of another thread finds what was shown before or the new mapping, and never none. When this returns, no
    /// processor uses a translation of what was shown before. The pages may reach past the end of the object.
    ///
    /// # Errors
    /// [`MmuError`]; then `span` shows what it did.
    fn attach(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), MmuError>;

    /// What was attached to `span` goes: when this returns, no translation in it is used by any processor, nor one that
    /// was taken away before and not finished. Space locked. `span` may be a part of what was attached.
    fn detach(&self, space: &Self::Space, span: VirtualSpan);

    /// Mappings in `span` permit `protection` from now on: when this returns, no processor uses a
    /// translation that permits more, nor one that was taken away before and not finished. Those that permit less stay.
    /// Space locked.
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
    /// [`MmuError`].
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

    /// Gets memory for the tables that translations in `span` need. Called with nothing locked, after
    /// [`Installed::Unprepared`]; it may wait. A machine that can do no more than [`install`](Self::install) did keeps
    /// the default: then the manager evicts a page before it tries to install again.
    ///
    /// # Errors
    /// [`MmuError`]. After [`MmuError::NoMemory`] the manager evicts a page, and looks at the fault again.
    fn prepare(&self, _space: &Self::Space, _span: VirtualSpan) -> Result<(), MmuError> {
        Err(MmuError::NoMemory)
    }

    /// Lets writes through the translation from `at` to `page` no longer, once [`finish`](Self::finish) has
    /// succeeded. Object locked.
    ///
    /// # Errors
    /// [`MmuError`]: it may still let writes through. What the gather holds is to be finished nevertheless.
    fn write_protect(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
        gather: &mut Self::Gather,
    ) -> Result<(), MmuError>;

    /// Takes the translations from `span` to the object's pages from `first` on away, once
    /// [`finish`](Self::finish) has succeeded. There may be none, and `span` be large: objects are cut and mapped
    /// by the million pages. Object locked.
    ///
    /// # Errors
    /// [`MmuError`]: some may still be used. What the gather holds is to be finished nevertheless.
    fn remove(
        &self,
        space: &Self::Space,
        span: VirtualSpan,
        object: &Self::Object,
        first: ObjectPage,
        gather: &mut Self::Gather,
    ) -> Result<(), MmuError>;

    /// Lets [`finish`](Self::finish) forget that `page` was accessed through the translation from `at`, so that a later
    /// gather tells whether it was accessed since. A machine that cannot tell takes the translation away: then an access
    /// faults. Object locked.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    fn age(
        &self,
        space: &Self::Space,
        at: VirtualPage,
        object: &Self::Object,
        page: ObjectPage,
        gather: &mut Self::Gather,
    ) -> Result<(), MmuError> {
        self.remove(space, Span::one(at), object, page, gather)
    }

    /// Finishes all changes of a gather: on success, no processor uses a translation as it was before. Nothing is
    /// locked, and this may wait: for other processors, or for another process to answer. How long it waits is the machine's
    /// affair. `seen` is called for pages of the object of which the machine has seen something, any number of times.
    ///
    /// # Errors
    /// [`MmuError`]: some processors may still use translations as they were. The pages stay in memory then.
    fn finish(
        &self,
        gather: Self::Gather,
        seen: &mut dyn FnMut(ObjectPage, Seen),
    ) -> Result<(), MmuError>;

    /// When this returns, no processor uses a translation in `span` that permits less than the present one. Nothing is
    /// locked. No access in a super-locked space may fault, not even because its processor remembers how the
    /// translation was.
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
