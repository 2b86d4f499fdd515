//! Address spaces: reserved ranges of this process's addresses.
//!
//! # What it owns
//! A range of addresses as long as the space, and the table of what it shows. Addresses that show nothing are
//! reserved: an access there gives SIGSEGV.
//!
//! # Invariants
//! 1. While the table is not locked, it agrees with the kernel's mappings. Translations are made and taken away with
//!    the table locked. So a walk of the manager, which has no lock of the space, changes only translations to the
//!    pages that it names.
//! 2. A mapping is registered with the userfaultfd, and hidden from forked children, before it can be touched: it is
//!    mapped without any right first. One that replaces others is made ready at another address, which nobody knows,
//!    and moved onto them by one `mremap`.
//! 3. While a page is poisoned, nothing translates to its memory.
//! 4. A forked child does not have the range, and may have other memory there. So no call changes or looks at addresses
//!    that does not get them from `place`, which refuses in a child; `new` and `drop` ask the guard themselves.
//!
//! # What it does not do
//! It keeps no record of translations: the kernel does.

use std::{
    ffi::c_void,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use commonhold_host::ForkGuard;
use commonhold_mm::{
    Installed, ObjectPage, Page, Protection, Span, VirtualPage, VirtualSpan, Wait, Writable,
};
use parking_lot::Mutex;
use rustix::{
    io::Errno,
    mm::{self, Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags},
};

use crate::{
    ioctl::Userfault,
    object::{UffdObject, owned},
    table::{Part, Table, bytes},
};

/// How a memfd is mapped.
const SHOWN: MapFlags = MapFlags::SHARED.union(MapFlags::NORESERVE);
const NO_RIGHT: ProtFlags = ProtFlags::empty();

/// The addresses of an address space.
#[derive(Debug)]
pub struct UffdSpace {
    pub(crate) reservation: Arc<Reservation>,
}

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To write.
    Write,
    /// Every access.
    Access,
}

/// The result of [`Reservation::poison`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poisoned {
    /// The page gives SIGBUS, and its waiting threads were woken.
    Yes,
    /// Nothing is shown there, so an access fails without poison.
    Nothing,
    /// The page has memory by now, the table was locked, or the kernel failed: no thread was woken.
    No,
}

/// A range of addresses.
#[derive(Debug)]
pub(crate) struct Reservation {
    base: NonNull<c_void>,
    span: VirtualSpan,
    page_size: usize,
    guard: ForkGuard,
    /// Held here, so that it is closed only after the range has gone.
    userfault: Arc<Userfault>,
    table: Mutex<Table>,
    /// No access is permitted any more. Changes with the table locked.
    is_shut: AtomicBool,
}

// SAFETY: a range is an address and a length that belong to the process, not to a thread.
unsafe impl Send for Reservation {}
// SAFETY: as above; through `&Reservation`, mappings are changed only by system calls, which any thread may make.
unsafe impl Sync for Reservation {}

impl Reservation {
    pub(crate) fn new(
        span: VirtualSpan,
        page_size: usize,
        userfault: Arc<Userfault>,
        guard: ForkGuard,
    ) -> Result<Self, Errno> {
        owned(guard)?;
        let len = bytes(span.pages(), page_size).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        let (table, is_shut) = (Mutex::default(), AtomicBool::new(false));
        let new = Self { base, span, page_size, guard, userfault, table, is_shut };
        new.advise(base.as_ptr(), len, Advice::LinuxDontFork)?;
        Ok(new)
    }

    /// The userfaultfd.
    #[cfg(test)]
    pub(crate) fn userfault(&self) -> &Userfault {
        &self.userfault
    }

    /// The address of its first page.
    pub(crate) const fn base(&self) -> NonNull<c_void> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        // `new` has computed the same length, so this does not fail.
        bytes(self.span.pages(), self.page_size).unwrap_or(0)
    }

    /// The page at an address, if it lies in this range.
    pub(crate) fn page(&self, address: usize) -> Option<VirtualPage> {
        let offset = address.checked_sub(self.base.as_ptr().addr())?;
        let page = self.span.first().plus((offset / self.page_size) as u64);
        self.span.contains(page).then_some(page)
    }

    /// The address and the length of `span`; an error in a forked child (invariant 4).
    fn place(&self, span: VirtualSpan) -> Result<(*mut c_void, usize), Errno> {
        owned(self.guard)?;
        if span.is_empty() || self.span.intersection(&span) != span {
            return Err(Errno::INVAL);
        }
        let before = Span::between(self.span.first(), span.first());
        let offset = bytes(before.pages(), self.page_size).ok_or(Errno::INVAL)?;
        let len = bytes(span.pages(), self.page_size).ok_or(Errno::INVAL)?;
        Ok((self.base.as_ptr().wrapping_byte_add(offset), len))
    }

    /// Shows the object's pages from `first` on in `span`, in place of what is shown there.
    pub(crate) fn attach(
        &self,
        span: VirtualSpan,
        object: &UffdObject,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), Errno> {
        let (at, len) = self.place(span)?;
        let (file, offset) = (object.file()?, object.offset(first)?);
        let mut table = self.table.lock();
        let shown = table.parts_in(span).next().is_some();
        // Without a reader of events there is no window through which a thread could access the range.
        match self.userfault.reader().filter(|_| shown) {
            Some(_reader) => self.move_in(at, len, file, offset, protection)?,
            None => self.map_in(at, len, file, offset, protection)?,
        }
        table.take_out(span);
        table.add(Part { at: span, object: object.number(), first, protection });
        Ok(())
    }

    /// Maps the memfd where nothing is shown.
    fn map_in(
        &self,
        at: *mut c_void,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        // SAFETY: `mmap` wants no pointer into what it replaces: these are pages of our own range (`place`), which
        // show nothing, so no thread can access them.
        let mapped = unsafe { mm::mmap(at, len, NO_RIGHT, SHOWN | MapFlags::FIXED, file, offset) };
        if let Err(errno) = mapped {
            // Some kernels unmap the old pages even if they then fail.
            let _ = self.reserve(at, len, MapFlags::FIXED_NOREPLACE);
            return Err(errno);
        }
        self.arm(at, len, protection).inspect_err(|_| {
            let _ = self.reserve(at, len, MapFlags::FIXED);
        })
    }

    /// Maps the memfd in place of what is shown. The caller holds [`Userfault::reader`]: the kernel waits for that thread.
    fn move_in(
        &self,
        at: *mut c_void,
        len: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        // SAFETY: `mmap` wants no pointer into what it replaces: with a null hint and without MAP_FIXED it replaces
        // nothing.
        let new = unsafe { mm::mmap(ptr::null_mut(), len, NO_RIGHT, SHOWN, file, offset) }?;
        let moved = self.arm(new, len, protection).and_then(|()| {
            let flags = MremapFlags::MAYMOVE;
            // SAFETY: `mremap` wants no pointer into what it moves, whose address no other code has, and none into
            // what it replaces: pages of our own range (`place`), whose users expect other contents (`Placement::Replace`).
            unsafe { mm::mremap_fixed(new, len, len, flags, at) }
        });
        let Err(errno) = moved else { return Ok(()) };
        // SAFETY: `munmap` wants a range without users: no other code has its address.
        let _ = unsafe { mm::munmap(new, len) };
        // If the kernel has failed after it unmapped the old pages, they cannot be had back.
        match self.reserve(at, len, MapFlags::FIXED_NOREPLACE) {
            Ok(()) => self.map_in(at, len, file, offset, protection),
            Err(_) => Err(errno),
        }
    }

    /// Makes a new mapping, which has no rights yet, ready to be touched.
    fn arm(&self, at: *mut c_void, len: usize, protection: Protection) -> Result<(), Errno> {
        // If the program has locked all its memory (`mlockall`), the kernel would bring the pages in, and wait for us.
        // SAFETY: `munlock` wants a range of ours: `place` has checked it.
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
            // The kernel had no memory to split a mapping. The range stays registered, without translations: accesses
            // fault, and since the manager knows no mapping there, each fault ends in a poisoned page.
            self.zap(span);
        }
        table.take_out(span);
    }

    fn reserve(&self, at: *mut c_void, len: usize, how: MapFlags) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | how;
        // SAFETY: `mmap_anonymous` wants no pointer into what it replaces: these are pages of our own range (`place`).
        // Only the window of a `PagedSpace` points into them, and its accesses then end in a signal.
        unsafe { mm::mmap_anonymous(at, len, ProtFlags::empty(), flags) }?;
        // If this fails, a forked child has the reservation too, which it cannot access.
        let _ = self.advise(at, len, Advice::LinuxDontFork);
        Ok(())
    }

    /// Sets the protection of the mappings in `span`.
    pub(crate) fn protect(&self, span: VirtualSpan, protection: Protection) -> Result<(), Errno> {
        let (at, len) = self.place(span)?;
        let mut table = self.table.lock();
        if let Err(errno) = self.permit(at, len, protection) {
            // Some parts may have changed. Undoing that joins mappings that were split, so it needs no memory.
            for part in table.parts_in(span) {
                let (at, len) = self.place(part.at)?;
                let _ = self.permit(at, len, part.protection);
            }
            return Err(errno);
        }
        table.protect(span, protection);
        Ok(())
    }

    /// Sets the protection at `page` to what the table says, since an access that it does not permit has come here. Then
    /// the access is tried again, and gets a signal: the program may have permitted more by an `mprotect` of its own.
    pub(crate) fn protect_again(&self, page: VirtualPage) {
        let table = self.table.lock();
        let part = table.part_at(page);
        if let Some((part, Ok((at, len)))) = part.map(|part| (part, self.place(part.at))) {
            // The whole part, so that the kernel needs no more memory than before.
            let _ = self.permit(at, len, part.protection);
        }
        drop(table);
        self.wake(page);
    }

    /// Takes all rights away, for ever: an access gives SIGSEGV.
    pub(crate) fn shut(&self) {
        let _table = self.table.lock();
        self.is_shut.store(true, Ordering::Relaxed);
        // In a range of ours it fails only if the kernel has no memory to split a mapping, and here none is split.
        let _ = self.permit(self.base.as_ptr(), self.len(), Protection::None);
    }

    /// Sets the kernel's protection. The table is locked.
    fn permit(&self, at: *mut c_void, len: usize, protection: Protection) -> Result<(), Errno> {
        if protection != Protection::None && self.is_shut.load(Ordering::Relaxed) {
            return Err(Errno::BADF);
        }
        let (none, read, write) =
            (MprotectFlags::empty(), MprotectFlags::READ, MprotectFlags::WRITE);
        let flags = match protection {
            Protection::None => none,
            Protection::Read => read,
            Protection::ReadWrite => read | write,
            Protection::ReadExecute => read | MprotectFlags::EXEC,
            Protection::ReadWriteExecute => read | write | MprotectFlags::EXEC,
        };
        // SAFETY: `mprotect` wants a range that is used only as the new protection permits, or whose users expect a
        // signal: accesses to a space go through its window, whose documentation says that they may end in one.
        unsafe { mm::mprotect(at, len, flags) }
    }

    /// Maps a page that has memory, and wakes the threads that wait for it.
    pub(crate) fn install(
        &self,
        page: VirtualPage,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, Errno> {
        let (at, len) = self.place(Span::one(page))?;
        let at = at.addr();
        let table = match wait {
            Wait::Never => self.table.try_lock(),
            Wait::Briefly => Some(self.table.lock()),
        };
        let Some(mut table) = table else { return Ok(Installed::Later) };
        let installed = match (self.userfault.resume(at, len, writable, wait), writable) {
            (Err(Errno::EXIST), Writable::Yes) => self.userfault.allow_writes(at, len, wait),
            (Err(Errno::EXIST), Writable::No) => {
                self.userfault.wake(at, len);
                Ok(())
            }
            (result, _) => result,
        };
        match installed {
            Ok(()) => {
                table.poisoned.remove(&page);
                Ok(Installed::Done)
            }
            // The program, or a replacement, moves memory. That ends; a thread that loops over it waits for itself.
            Err(Errno::AGAIN) => Ok(Installed::Later),
            // No memory for a page of the kernel's tables.
            Err(Errno::NOMEM) => Ok(Installed::Unprepared),
            Err(errno) => Err(errno),
        }
    }

    /// Takes a right away from the translations to pages of an object, given by its number, from `first` on, where `span`
    /// shows them. Nothing of the manager is locked.
    pub(crate) fn take_away(
        &self,
        span: VirtualSpan,
        (object, first): (u64, ObjectPage),
        right: Right,
    ) -> Result<(), Errno> {
        let table = self.table.lock();
        for shown in table.shown(span, object, first) {
            let (at, len) = self.place(shown)?;
            // Without a translation, writes fault as well: if the kernel has no memory for the mark, for instance.
            if right == Right::Access || self.userfault.write_protect(at.addr(), len).is_err() {
                self.zap(shown);
            }
        }
        Ok(())
    }

    /// Takes translations away. The memory stays, and so do write-protection marks.
    fn zap(&self, span: VirtualSpan) {
        if let Ok((at, len)) = self.place(span) {
            // In a range of ours this fails only if there is nothing to take away.
            let _ = self.advise(at, len, Advice::LinuxDontneedLocked);
        }
    }

    fn advise(&self, at: *mut c_void, len: usize, advice: Advice) -> Result<(), Errno> {
        // SAFETY: `madvise` wants a range whose contents no reference relies on after advice that drops them: this
        // range is ours (`place`), and its contents are in memfds, which no advice used here changes.
        unsafe { mm::madvise(at, len, advice) }
    }

    /// Wakes the threads that wait for a page: they try again.
    pub(crate) fn wake(&self, page: VirtualPage) {
        if let Ok((at, len)) = self.place(Span::one(page)) {
            self.userfault.wake(at.addr(), len);
        }
    }

    /// Makes a page that cannot be served give SIGBUS. Waits for nothing.
    pub(crate) fn poison(&self, page: VirtualPage) -> Poisoned {
        let Ok((at, len)) = self.place(Span::one(page)) else { return Poisoned::Nothing };
        let Some(mut table) = self.table.try_lock() else { return Poisoned::No };
        if table.poisoned.contains(&page) {
            self.userfault.wake(at.addr(), len);
            return Poisoned::Yes;
        }
        let mut said = self.userfault.poison(at.addr(), len);
        if said == Err(Errno::EXIST) && (!table.shows(page) || !has_memory(at)) {
            // The page has a write-protection mark from before it lost its memory, or from before it was unmapped.
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

    /// Makes a poisoned page a missing one again: the next access faults. Waits for nothing; `false` if the table was
    /// locked.
    pub(crate) fn heal(&self, page: VirtualPage) -> bool {
        let Some(mut table) = self.table.try_lock() else { return false };
        if table.poisoned.remove(&page) {
            self.zap(Span::one(page));
        }
        true
    }
}

/// Whether the memfd that is mapped at this page has memory there.
fn has_memory(at: *mut c_void) -> bool {
    let mut found = 0_u8;
    // SAFETY: `mincore` wants room for one byte a page: it is asked about one page, and gets one byte.
    let said = unsafe { libc::mincore(at, 1, &raw mut found) };
    said != 0 || found & 1 != 0
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.guard.is_forked_child() {
            return;
        }
        // SAFETY: `munmap` wants a range without users: it is ours, and the window into it lives no longer than its
        // `PagedSpace`, which keeps this reservation.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.len()) };
    }
}
