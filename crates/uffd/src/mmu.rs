//! The port `Mmu`, by calls of the kernel.
//!
//! | the manager calls | the kernel is asked for |
//! |---|---|
//! | `take_frame` | nothing: a frame is a buffer (`frame.rs`) |
//! | `ready`, `write`; `read`; `release` | `pwrite`; `pread`; punching a hole, on the memfd; `SEEK_DATA` after the last two |
//! | `attach` | `mmap` of the memfd over the reservation, and registering; if something is shown there, elsewhere, and `mremap` to there |
//! | `detach` | `mmap` of the reservation again |
//! | `install` | `UFFDIO_CONTINUE`, write-protected or not; if the page is mapped already, `UFFDIO_WRITEPROTECT` off |
//! | `write_protect`, then `finish` | `UFFDIO_WRITEPROTECT` on; it returns when no processor writes any more |
//! | `remove`, then `finish` | `MADV_DONTNEED_LOCKED`; it returns when no processor uses the pages any more |
//! | `flush` | nothing: a processor that remembers less than the tables have looks there by itself |
//! | `wake` | `UFFDIO_WAKE`; with an error, `UFFDIO_POISON` |

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use commonhold_host::ForkGuard;
use commonhold_mm::{
    Access, Contents, FaultError, Installed, Lane, Mmu, MmuError, ObjectPage, Pages, Protection,
    Released, Seen, Span, VirtualPage, VirtualSpan, Wait, Writable,
};
use rustix::io::Errno;

use crate::{
    deferred::{Duty, Later},
    frame::{Pool, UffdFrame},
    gather::UffdGather,
    ioctl::{Userfault, UserfaultError},
    object::{UffdObject, mmu_error},
    reservation::{Poisoned, Reservation, Right, UffdSpace},
    work_signal::Signal,
};

/// How often a thread that waits for another yields its processor before it sleeps.
const YIELDS: u32 = 16;
/// One sleep takes at most 2^10 microseconds.
const LONGEST: u32 = 10;

/// The machine in this process: addresses of the process, and memory in memfds. It needs the threads of a
/// [`Paging`](crate::Paging): without them, no thread reads its faults.
#[derive(Debug)]
pub struct UffdMmu {
    pub(crate) userfault: Arc<Userfault>,
    /// For the worker that waits for no pager.
    pub(crate) memory: Signal,
    /// For the others.
    pub(crate) paging: Signal,
    pub(crate) later: Arc<Later>,
    frames: Arc<Pool>,
    page_size: usize,
    guard: ForkGuard,
    objects: AtomicU64,
}

impl UffdMmu {
    /// A machine, if the kernel has and permits what it needs.
    ///
    /// # Errors
    /// [`UserfaultError`] says what is missing.
    pub fn new() -> Result<Self, UserfaultError> {
        let guard = ForkGuard::new().map_err(|error| UserfaultError::Call {
            call: "pthread_atfork",
            code: error.raw_os_error().unwrap_or(0),
        })?;
        let userfault = Arc::new(Userfault::open(guard)?);
        let later = Arc::new(Later::new(guard).map_err(UserfaultError::call("eventfd"))?);
        let (memory, paging) = (Signal::default(), Signal::default());
        let (page_size, objects) = (rustix::param::page_size(), AtomicU64::new(0));
        let frames = Arc::new(Pool::new(page_size));
        Ok(Self { userfault, memory, paging, later, frames, page_size, guard, objects })
    }

    /// Whether only faults of the program itself are served. If so, a system call with a buffer in a page that is not
    /// in memory fails with `EFAULT`, and the program has to touch the page before.
    #[must_use]
    pub fn is_user_mode_only(&self) -> bool {
        self.userfault.user_mode_only()
    }

    pub(crate) const fn guard(&self) -> ForkGuard {
        self.guard
    }

    /// Makes a page give SIGBUS for a while, and wakes its threads. [`Poisoned::No`]: they wait still.
    pub(crate) fn poison(&self, space: &UffdSpace, at: VirtualPage) -> Poisoned {
        let poisoned = space.reservation.poison(at);
        match poisoned {
            Poisoned::Yes => {
                self.later.add(Arc::downgrade(&space.reservation), at, Duty::Heal);
            }
            Poisoned::Nothing => space.reservation.wake(at),
            Poisoned::No => {}
        }
        poisoned
    }
}

impl Mmu for UffdMmu {
    type Mutex = parking_lot::RawMutex;
    type Leaf = parking_lot::RawMutex;
    type RwLock = parking_lot::RawRwLock;
    type Space = UffdSpace;
    type Object = UffdObject;
    type Gather = UffdGather;

    /// Punching a hole takes away all translations to it.
    const RELEASE_UNMAPS: bool = true;
    type Frame = UffdFrame;

    fn page_size(&self) -> usize {
        self.page_size
    }

    fn new_space(&self, span: VirtualSpan) -> Result<UffdSpace, MmuError> {
        let userfault = Arc::clone(&self.userfault);
        let reservation = Reservation::new(span, self.page_size, userfault, self.guard);
        Ok(UffdSpace { reservation: Arc::new(reservation.map_err(mmu_error)?) })
    }

    fn new_object(&self, pages: Pages) -> Result<UffdObject, MmuError> {
        let number = self.objects.fetch_add(1, Ordering::Relaxed);
        UffdObject::new(number, pages, self.page_size, self.guard).map_err(mmu_error)
    }

    fn resize_object(&self, object: &UffdObject, pages: Pages) -> Result<(), MmuError> {
        object.resize(pages).map_err(mmu_error)
    }

    fn take_frame(
        &self,
        _object: &UffdObject,
        _page: ObjectPage,
        contents: Contents,
    ) -> Result<UffdFrame, MmuError> {
        match contents {
            Contents::Zeros => Ok(self.frames.zeros()),
            Contents::Unwritten => self.frames.take(),
        }
    }

    /// An access that comes before [`adopt`](Self::adopt) gives a minor fault, and finds the page being filled.
    fn ready(
        &self,
        object: &UffdObject,
        page: ObjectPage,
        frame: &mut UffdFrame,
    ) -> Result<(), MmuError> {
        frame.place(object, page).map_err(mmu_error)
    }

    fn adopt(&self, _object: &UffdObject, _page: ObjectPage, frame: UffdFrame) {
        frame.adopted();
    }

    fn read(
        &self,
        object: &UffdObject,
        page: ObjectPage,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), MmuError> {
        let whole = object.read(page, offset, into).map_err(mmu_error)?;
        if whole { Ok(()) } else { Err(MmuError::Gone) }
    }

    fn write(
        &self,
        object: &UffdObject,
        page: ObjectPage,
        offset: usize,
        from: &[u8],
    ) -> Result<(), MmuError> {
        object.write(page, offset, from).map_err(mmu_error)
    }

    fn release(&self, object: &UffdObject, page: ObjectPage) -> Released {
        // If it fails, the memory stays until the object is dropped; a later filling overwrites its contents.
        if object.punch(page) == Ok(true) { Released::Gone } else { Released::Held }
    }

    fn attach(
        &self,
        space: &UffdSpace,
        span: VirtualSpan,
        object: &UffdObject,
        first: ObjectPage,
        protection: Protection,
    ) -> Result<(), MmuError> {
        space.reservation.attach(span, object, first, protection).map_err(mmu_error)
    }

    fn detach(&self, space: &UffdSpace, span: VirtualSpan) {
        space.reservation.detach(span);
    }

    fn protect(
        &self,
        space: &UffdSpace,
        span: VirtualSpan,
        protection: Protection,
    ) -> Result<(), MmuError> {
        space.reservation.protect(span, protection).map_err(mmu_error)
    }

    fn install(
        &self,
        space: &UffdSpace,
        at: VirtualPage,
        object: &UffdObject,
        page: ObjectPage,
        _protection: Protection,
        writable: Writable,
        wait: Wait,
    ) -> Result<Installed, MmuError> {
        space.reservation.install(at, writable, wait).map_err(|errno| match errno {
            // The object is locked, so nobody fills the page meanwhile.
            Errno::FAULT if object.has_memory(page) == Ok(false) => MmuError::Gone,
            _ => mmu_error(errno),
        })
    }

    fn write_protect(
        &self,
        space: &UffdSpace,
        at: VirtualPage,
        object: &UffdObject,
        page: ObjectPage,
        gather: &mut UffdGather,
    ) -> Result<(), MmuError> {
        gather.note(&space.reservation, Span::one(at), (object, page), Right::Write)
    }

    fn remove(
        &self,
        space: &UffdSpace,
        span: VirtualSpan,
        object: &UffdObject,
        first: ObjectPage,
        gather: &mut UffdGather,
    ) -> Result<(), MmuError> {
        gather.note(&space.reservation, span, (object, first), Right::Access)
    }

    fn finish(
        &self,
        gather: UffdGather,
        _seen: &mut dyn FnMut(ObjectPage, Seen),
    ) -> Result<(), MmuError> {
        gather.make()
    }

    fn flush(&self, _space: &UffdSpace, _span: VirtualSpan) {}

    fn pulse(&self, lane: Lane) {
        match lane {
            Lane::Memory => self.memory.raise(),
            Lane::Paging => self.paging.raise(),
        }
    }

    fn wake(
        &self,
        space: &UffdSpace,
        at: VirtualPage,
        _access: Access,
        _cookie: u64,
        result: Result<(), FaultError>,
    ) {
        let reservation = &space.reservation;
        let later = |duty| self.later.add(Arc::downgrade(reservation), at, duty);
        match result {
            Ok(()) => reservation.wake(at),
            // The memfd is about to be cut. When the kernel knows that too, the access itself gets the signal; until
            // then the thread tries again.
            Err(FaultError::PastEnd) => later(Duty::Wake),
            Err(FaultError::Protection) => reservation.protect_again(at),
            Err(_) => {
                if self.poison(space, at) == Poisoned::No {
                    later(Duty::Wake);
                }
            }
        }
    }

    fn idle(&self, attempt: u32) {
        match attempt.checked_sub(YIELDS) {
            None => thread::yield_now(),
            Some(sleeps) => thread::sleep(Duration::from_micros(1 << sleeps.min(LONGEST))),
        }
    }
}

/// Ends a fault at an address that lies in no space: its thread gets SIGBUS, or tries again in vain.
pub(crate) fn refuse(userfault: &Userfault, address: usize, page_size: usize) {
    let start = address & !(page_size - 1);
    if userfault.poison(start, page_size).is_err_and(|errno| errno != Errno::EXIST) {
        userfault.wake(start, page_size);
    }
}
