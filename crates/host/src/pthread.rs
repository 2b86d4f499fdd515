//! The locks and the mapping of POSIX: what `commonhold bench` measures against.
//!
//! # What it owns
//! Process-shared `pthread` locks, each in an anonymous shared page of its own, which children made by
//! `fork` share; and one turn of creating, touching and removing POSIX shared memory.
//!
//! # Invariants
//! 1. A lock stays where it was initialised, for ever: a guard can be forgotten, and the C library keeps
//!    robust mutexes in lists. A benchmark can afford a page for each.
//! 2. A guard is released by the thread that took it: guards are not `Send`.
//!
//! # What it does not do
//! Nothing of Commonhold uses it.

use std::{
    ffi::{CString, c_int},
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{self, NonNull},
};

use rustix::mm::{self, MapFlags, ProtFlags};

const PAGE: usize = 4096;

/// A page that children made by `fork` share, holding one `T` from its start.
#[derive(Debug)]
struct SharedPage<T> {
    base: NonNull<T>,
}

// SAFETY: it is used for pthread locks only, which any thread may use at the same time.
unsafe impl<T> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SharedPage<T> {}

impl<T> SharedPage<T> {
    fn new() -> io::Result<Self> {
        const { assert!(size_of::<T>() <= PAGE) };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: `mmap_anonymous` wants no pointer into a range that it replaces: with a null hint
        // and without MAP_FIXED it replaces none.
        let page = unsafe { mm::mmap_anonymous(ptr::null_mut(), PAGE, access, MapFlags::SHARED) }?;
        let base = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base })
    }

    const fn get(&self) -> *mut T {
        self.base.as_ptr()
    }
}

fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// What becomes of a mutex whose owner dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeath {
    /// It stays locked.
    Stuck,
    /// The next owner is told.
    Robust,
}

/// A process-shared `pthread_mutex_t`.
#[derive(Debug)]
pub struct PthreadMutex {
    page: SharedPage<libc::pthread_mutex_t>,
}

/// A locked [`PthreadMutex`].
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub struct PthreadMutexGuard<'m> {
    mutex: &'m PthreadMutex,
    owner_died: bool,
    not_send: PhantomData<*mut ()>,
}

impl PthreadMutex {
    /// A new mutex, unlocked.
    ///
    /// # Errors
    /// What the C library says.
    pub fn new(on_death: OnDeath) -> io::Result<Self> {
        let page = SharedPage::new()?;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: `init` wants memory for attributes, initialised or not.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        let attributes = attributes.as_mut_ptr();
        // SAFETY: this wants initialised attributes, which they are since the line above.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        if on_death == OnDeath::Robust {
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            // SAFETY: as above.
            check(unsafe { libc::pthread_mutexattr_setrobust(attributes, robust) })?;
        }
        // SAFETY: `init` wants memory for a mutex that nobody uses yet, and initialised attributes:
        // the page is new, large enough and aligned.
        check(unsafe { libc::pthread_mutex_init(page.get(), attributes) })?;
        // SAFETY: `destroy` wants initialised attributes that are not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        Ok(Self { page })
    }

    /// Locks it. A robust mutex whose owner died is marked consistent at once.
    ///
    /// # Errors
    /// What the C library says: `EOWNERDEAD` is not among it.
    #[inline]
    pub fn lock(&self) -> io::Result<PthreadMutexGuard<'_>> {
        // SAFETY: `lock` wants an initialised mutex: `new` did that, and it is never
        // unmapped.
        let error = unsafe { libc::pthread_mutex_lock(self.page.get()) };
        let owner_died = error == libc::EOWNERDEAD;
        if owner_died {
            // SAFETY: `consistent` wants a robust mutex locked by this thread and inconsistent, which
            // is what EOWNERDEAD says.
            check(unsafe { libc::pthread_mutex_consistent(self.page.get()) })?;
        } else {
            check(error)?;
        }
        Ok(PthreadMutexGuard { mutex: self, owner_died, not_send: PhantomData })
    }
}

impl PthreadMutexGuard<'_> {
    /// Whether the one who had it before died.
    #[must_use]
    pub const fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Drop for PthreadMutexGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `unlock` wants a mutex locked by this thread: the guard says so, and cannot leave it.
        unsafe { libc::pthread_mutex_unlock(self.mutex.page.get()) };
    }
}

/// A process-shared `pthread_rwlock_t`.
#[derive(Debug)]
pub struct PthreadRwLock {
    page: SharedPage<libc::pthread_rwlock_t>,
}

/// A [`PthreadRwLock`] locked for reading or writing.
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub struct PthreadRwLockGuard<'l> {
    lock: &'l PthreadRwLock,
    not_send: PhantomData<*mut ()>,
}

impl PthreadRwLock {
    /// A new lock, unlocked.
    ///
    /// # Errors
    /// What the C library says.
    pub fn new() -> io::Result<Self> {
        let page = SharedPage::new()?;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: `init` wants memory for attributes, initialised or not.
        check(unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) })?;
        let attributes = attributes.as_mut_ptr();
        let shared = libc::PTHREAD_PROCESS_SHARED;
        // SAFETY: this wants initialised attributes, which they are since the call above.
        check(unsafe { libc::pthread_rwlockattr_setpshared(attributes, shared) })?;
        // SAFETY: `init` wants memory for a lock that nobody uses yet, and initialised attributes: the
        // page is new, large enough and aligned.
        check(unsafe { libc::pthread_rwlock_init(page.get(), attributes) })?;
        // SAFETY: `destroy` wants initialised attributes that are not used again.
        check(unsafe { libc::pthread_rwlockattr_destroy(attributes) })?;
        Ok(Self { page })
    }

    /// Locks it together with other readers.
    ///
    /// # Errors
    /// What the C library says.
    #[inline]
    pub fn read(&self) -> io::Result<PthreadRwLockGuard<'_>> {
        // SAFETY: this wants an initialised lock: `new` did that, and it is never
        // unmapped.
        check(unsafe { libc::pthread_rwlock_rdlock(self.page.get()) })?;
        Ok(PthreadRwLockGuard { lock: self, not_send: PhantomData })
    }

    /// Locks it alone.
    ///
    /// # Errors
    /// What the C library says.
    #[inline]
    pub fn write(&self) -> io::Result<PthreadRwLockGuard<'_>> {
        // SAFETY: as in `read`.
        check(unsafe { libc::pthread_rwlock_wrlock(self.page.get()) })?;
        Ok(PthreadRwLockGuard { lock: self, not_send: PhantomData })
    }
}

impl Drop for PthreadRwLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `unlock` wants a lock held by this thread: the guard says so, and cannot leave it.
        unsafe { libc::pthread_rwlock_unlock(self.lock.page.get()) };
    }
}

/// One turn of POSIX shared memory: `shm_open`, `ftruncate`, `mmap`, a touch of each page, `munmap`,
/// `close`, `shm_unlink`.
///
/// # Errors
/// What any of the calls says; the name does not stay.
pub fn shm_cycle(name: &str, size: usize) -> io::Result<()> {
    let name = CString::new(format!("/{name}"))?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: `shm_open` wants a string that ends in a zero byte: `CString` does.
    let descriptor = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: `from_raw_fd` wants an open descriptor that nobody else closes: it is new.
    let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let touched = touch(&file, size);
    drop(file);
    // SAFETY: as for `shm_open`.
    let removed = unsafe { libc::shm_unlink(name.as_ptr()) };
    touched?;
    if removed == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn touch(file: &std::os::fd::OwnedFd, size: usize) -> io::Result<()> {
    rustix::fs::ftruncate(file, size as u64)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint and without
    // MAP_FIXED it replaces none.
    let base = unsafe { mm::mmap(ptr::null_mut(), size, access, MapFlags::SHARED, file, 0) }?;
    for at in (0..size).step_by(PAGE) {
        // SAFETY: `add` wants the result inside the mapping: `at` is less than its size.
        let byte = unsafe { base.cast::<u8>().add(at) };
        // SAFETY: `write_volatile` wants a mapped, writable address, which it is; the file is as long
        // as the mapping, and nobody else knows it.
        unsafe { byte.write_volatile(1) };
    }
    // SAFETY: `munmap` wants a range that nobody uses any more: its address ends here.
    unsafe { mm::munmap(base, size) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_of_posix_lock_and_unlock() {
        for on_death in [OnDeath::Stuck, OnDeath::Robust] {
            let mutex = PthreadMutex::new(on_death).unwrap();
            for _ in 0..3 {
                assert!(!mutex.lock().unwrap().owner_died());
            }
        }
        let lock = PthreadRwLock::new().unwrap();
        let (one, two) = (lock.read().unwrap(), lock.read().unwrap());
        drop((one, two));
        drop(lock.write().unwrap());
        drop(lock.read().unwrap());
    }

    #[test]
    fn a_thread_that_ends_with_a_robust_mutex_leaves_it_to_the_next() {
        let mutex = PthreadMutex::new(OnDeath::Robust).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(mutex.lock().unwrap()));
        });
        assert!(mutex.lock().unwrap().owner_died());
        assert!(!mutex.lock().unwrap().owner_died());
    }

    #[test]
    fn a_cycle_leaves_no_name() {
        let name = format!("commonhold-cycle-{:x}", crate::random().unwrap());
        shm_cycle(&name, 3 * PAGE).unwrap();
        assert!(!std::path::Path::new("/dev/shm").join(name).exists());
    }
}
