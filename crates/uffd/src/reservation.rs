//! Address spaces: reserved ranges of this process's addresses.
//!
//! # What it owns
//! A range of addresses, as long as the space, and what is shown where in it. What shows nothing is reserved, and
//! can be neither read nor written: SIGSEGV.
//!
//! # Invariants
//! 1. The table says the same as the kernel, at every moment at which nobody has it locked. Translations are
//!    made and taken away with the table locked. So a walk of the manager's, which has no lock of the space,
//!    finds what it was told of, or nothing.
//! 2. What is shown is registered with the userfaultfd, and no child has it, before anything of it can be
//!    touched: it is mapped without any right first.
//! 3. While a page is poisoned, nothing translates to its memory.
//!
//! # What it does not do
//! It keeps no record of translations: the kernel does.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::Arc,
};

use commonhold_host::ForkGuard;
use commonhold_mm::{ObjectPage, Page, Protection, Span, VirtualPage, VirtualSpan, Writable};
use parking_lot::Mutex;
use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags},
};

use crate::{
    ioctl::Userfault,
    object::UffdObject,
    table::{Part, Table, bytes},
};

/// The addresses of an address space.
#[derive(Debug)]
pub struct UffdSpace {
    pub(crate) reservation: Arc<Reservation>,
}

/// What became of a page that is to be poisoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poisoned {
    /// It gives SIGBUS, and who waited has been woken.
    Yes,
    /// Nothing is shown there: it needs no poison to fail.
    Nothing,
    /// It has memory by now, or the kernel could not: nobody was woken.
    No,
}

/// A range of addresses.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: NonNull<c_void>,
    span: VirtualSpan,
    page_size: usize,
    guard: ForkGuard,
    /// Closed after the range has gone, since it is held until then.
    userfault: Arc<Userfault>,
    table: Mutex<Table>,
}

// SAFETY: a range is an address and a length that belong to the process, not to a thread.
unsafe impl Send for Reservation {}
// SAFETY: as above; through `&Reservation` mappings are changed by system calls only, which any thread may do.
unsafe impl Sync for Reservation {}

impl Reservation {
    pub(crate) fn new(
        span: VirtualSpan,
        page_size: usize,
        userfault: Arc<Userfault>,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        let len = bytes(span.pages(), page_size).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        let table = Mutex::default();
        let new = Self { base, span, page_size, guard, userfault, table };
        new.advise(base.as_ptr(), len, Advice::LinuxDontFork)?;
        Ok(new)
    }

    /// The address of its first page.
    pub(crate) const fn base(&self) -> NonNull<c_void> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        // It was this long when it was reserved.
        bytes(self.span.pages(), self.page_size).unwrap_or(0)
    }

    /// The page at an address, if it is one of these.
    pub(crate) fn page(&self, address: usize) -> Option<VirtualPage> {
        let offset = address.checked_sub(self.base.as_ptr().addr())?;
        let page = self.span.first().plus((offset / self.page_size) as u64);
        self.span.contains(page).then_some(page)
    }

    /// Address and length of pages.
    fn place(&self, span: VirtualSpan) -> Result<(*mut c_void, usize), Errno> {
        if span.is_empty() || self.span.intersection(&span) != span {
            return Err(Errno::INVAL);
        }
        let before = Span::between(self.span.first(), span.first());
        let offset = bytes(before.pages(), self.page_size).ok_or(Errno::INVAL)?;
        let len = bytes(span.pages(), self.page_size).ok_or(Errno::INVAL)?;
        Ok((self.base.as_ptr().wrapping_byte_add(offset), len))
    }

    /// Shows the object's pages from `first` on.
    pub(crate) fn attach(
        &self,
        span: VirtualSpan,
        object: &UffdObject,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), Errno> {
        let (at, len) = self.place(span)?;
        let offset = object.offset(first)?;
        let mut table = self.table.lock();
        let (access, flags) = (ProtFlags::empty(), MapFlags::SHARED | MapFlags::NORESERVE);
        let file = object.file()?;
        let flags = flags | MapFlags::FIXED;
        // SAFETY: `mmap` wants no pointer into what it replaces: pages of our own range (`place`), which show
        // nothing, so nobody touches them.
        let mapped = unsafe { mm::mmap(at, len, access, flags, file, offset) };
        if let Err(errno) = mapped {
            // Some kernels have unmapped what was there before.
            let _ = self.reserve(at, len, MapFlags::FIXED_NOREPLACE);
            return Err(errno);
        }
        if let Err(errno) = self.arm(at, len, protection) {
            let _ = self.reserve(at, len, MapFlags::FIXED);
            return Err(errno);
        }
        table.add(Part { at: span, object: object.number(), first, protection });
        Ok(())
    }

    /// Makes a new mapping, in which nothing can be touched yet, one that can.
    fn arm(&self, at: *mut c_void, len: usize, protection: Protection) -> Result<(), Errno> {
        // A program may have asked for all its memory to be locked. Bringing that in would wait for us.
        // SAFETY: `munlock` wants a range of ours.
        unsafe { mm::munlock(at, len) }?;
        self.advise(at, len, Advice::LinuxDontFork)?;
        self.userfault.register(at.addr(), len)?;
        self.permit(at, len, protection)
    }

    /// Nothing is shown in `span` any more.
    pub(crate) fn detach(&self, span: VirtualSpan) {
        let Ok((at, len)) = self.place(span) else { return };
        let mut table = self.table.lock();
        if self.reserve(at, len, MapFlags::FIXED).is_err() {
            // The kernel had no room to note that a mapping has a gap now. Without translations, but still
            // registered, accesses are faults, which end in a poisoned page: the manager knows of no mapping.
            self.zap(span);
        }
        table.take_out(span);
    }

    fn reserve(&self, at: *mut c_void, len: usize, how: MapFlags) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | how;
        // SAFETY: `mmap_anonymous` wants no pointer into what it replaces: pages of our own range (`place`),
        // which can be touched by whoever has a `PagedSpace`, at the risk of a signal.
        unsafe { mm::mmap_anonymous(at, len, ProtFlags::empty(), flags) }?;
        // A child that has it could do nothing with it.
        let _ = self.advise(at, len, Advice::LinuxDontFork);
        Ok(())
    }

    /// What is shown in `span` permits `protection`.
    pub(crate) fn protect(&self, span: VirtualSpan, protection: Protection) -> Result<(), Errno> {
        let (at, len) = self.place(span)?;
        let mut table = self.table.lock();
        if let Err(errno) = self.permit(at, len, protection) {
            // It may have been done for some parts. Taking it back joins what was split, so there is room.
            for part in table.parts_in(span) {
                let (at, len) = self.place(part.at)?;
                let _ = self.permit(at, len, part.protection);
            }
            return Err(errno);
        }
        table.protect(span, protection);
        Ok(())
    }

    fn permit(&self, at: *mut c_void, len: usize, protection: Protection) -> Result<(), Errno> {
        let (none, read, write) =
            (MprotectFlags::empty(), MprotectFlags::READ, MprotectFlags::WRITE);
        let flags = match protection {
            Protection::None => none,
            Protection::Read => read,
            Protection::ReadWrite => read | write,
            Protection::ReadExecute => read | MprotectFlags::EXEC,
            Protection::ReadWriteExecute => read | write | MprotectFlags::EXEC,
        };
        // SAFETY: `mprotect` wants a range whose users can live with what they may do: who touches a space
        // reckons with a signal.
        unsafe { mm::mprotect(at, len, flags) }
    }

    /// Maps a page that has memory, and wakes who waits for it.
    pub(crate) fn install(&self, page: VirtualPage, writable: Writable) -> Result<(), Errno> {
        let (at, len) = self.place(Span::one(page))?;
        let at = at.addr();
        let mut table = self.table.lock();
        match (self.userfault.resume(at, len, writable), writable) {
            (Err(Errno::EXIST), Writable::Yes) => self.userfault.allow_writes(at, len)?,
            (Err(Errno::EXIST), Writable::No) => self.userfault.wake(at, len),
            (result, _) => result?,
        }
        table.poisoned.remove(&page);
        Ok(())
    }

    /// Writes to the object's page fault from now on, if it is shown at `page`.
    pub(crate) fn write_protect(
        &self,
        page: VirtualPage,
        object: &UffdObject,
        of_object: ObjectPage,
    ) {
        let table = self.table.lock();
        for shown in table.shown(Span::one(page), object.number(), of_object) {
            let Ok((at, len)) = self.place(shown) else { continue };
            if self.userfault.write_protect(at.addr(), len).is_err() {
                // No memory for the mark. Without a translation there are no unseen writes either.
                self.zap(shown);
            }
        }
    }

    /// Takes the translations to the object's pages from `first` on away, where `span` shows them.
    pub(crate) fn remove(&self, span: VirtualSpan, object: &UffdObject, first: ObjectPage) {
        let table = self.table.lock();
        for shown in table.shown(span, object.number(), first) {
            self.zap(shown);
        }
    }

    /// Takes translations away. Their memory stays, and so do marks of write protection.
    fn zap(&self, span: VirtualSpan) {
        if let Ok((at, len)) = self.place(span) {
            // Of a range of ours it fails only if there is nothing to take away.
            let _ = self.advise(at, len, Advice::LinuxDontneedLocked);
        }
    }

    fn advise(&self, at: *mut c_void, len: usize, advice: Advice) -> Result<(), Errno> {
        // SAFETY: `madvise` wants a range whose change of meaning hurts nobody: this one is ours (`place`), and
        // no advice of ours changes what a page holds: all memory is the memfds'.
        unsafe { mm::madvise(at, len, advice) }
    }

    /// Who waits for a page tries again.
    pub(crate) fn wake(&self, page: VirtualPage) {
        if let Ok((at, len)) = self.place(Span::one(page)) {
            self.userfault.wake(at.addr(), len);
        }
    }

    /// A page that cannot be served gives SIGBUS.
    pub(crate) fn poison(&self, page: VirtualPage) -> Poisoned {
        let Ok((at, len)) = self.place(Span::one(page)) else { return Poisoned::Nothing };
        let mut table = self.table.lock();
        if table.poisoned.contains(&page) {
            self.userfault.wake(at.addr(), len);
            return Poisoned::Yes;
        }
        let mut said = self.userfault.poison(at.addr(), len);
        if said == Err(Errno::EXIST) && !has_memory(at) {
            // What is there is the mark of a protection that the page had before it lost its memory.
            let _ = self.userfault.clear_mark(at.addr(), len);
            said = self.userfault.poison(at.addr(), len);
        }
        match said {
            Ok(()) if table.shows(page) => {
                table.poisoned.insert(page);
                Poisoned::Yes
            }
            Ok(()) => Poisoned::Yes,
            Err(Errno::NOENT) => Poisoned::Nothing,
            Err(_) => Poisoned::No,
        }
    }

    /// A poisoned page is only missing from now on: the next access is a fault.
    pub(crate) fn heal(&self, page: VirtualPage) {
        let mut table = self.table.lock();
        if table.poisoned.remove(&page) {
            self.zap(Span::one(page));
        }
    }
}

/// Whether the memfd that is mapped at this page has memory there.
fn has_memory(at: *mut c_void) -> bool {
    let mut found = 0_u8;
    // SAFETY: `mincore` wants a byte for each page it is asked of: one.
    let said = unsafe { libc::mincore(at, 1, &raw mut found) };
    said != 0 || found & 1 != 0
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.guard.is_forked_child() {
            return;
        }
        // SAFETY: `munmap` wants a range that nobody uses any more: it is ours, and whoever could touch it held
        // on to the space.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.len()) };
    }
}
