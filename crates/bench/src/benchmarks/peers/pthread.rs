//! The locks and the shared memory of POSIX, against which ours are measured.
//!
//! # What it owns
//! Process-shared `pthread` locks, each in its own file, which the workers map; and one cycle of creating, touching
//! and removing POSIX shared memory.
//!
//! # Invariants
//! 1. The page of a lock is never unmapped: a guard can be forgotten, and the C library keeps robust mutexes in lists.
//!    A benchmark can afford a page for each lock.
//! 2. A guard is released by the thread that took it: guards are not `Send`.
//! 3. A file is only opened as the kind of lock it was made for: the mark of the kind is written last and checked
//!    first.
//!
//! # What it does not do
//! It does not protect against a process that writes garbage to such a file: the C library checks nothing.
//!
//! This is the only `unsafe` code of this crate: it calls the C library, and maps the memory for it.

use std::{
    cell::UnsafeCell,
    ffi::{CString, c_int},
    fs::File,
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{self, MapFlags, ProtFlags};

const PAGE: usize = 4096;
/// Words for what a lock protects.
pub(super) type Words = [AtomicU64; 8];

/// A page of a file: a lock `T`, a condition variable, and words that the lock protects. Each has its own cache lines.
#[repr(C)]
struct Page<T> {
    lock: Line<UnsafeCell<MaybeUninit<T>>>,
    condition: Line<UnsafeCell<MaybeUninit<libc::pthread_cond_t>>>,
    words: Line<Words>,
    turn: Line<AtomicU32>,
    mark: Line<AtomicU64>,
}

#[repr(align(64))]
struct Line<T>(T);

/// A page that stays mapped.
struct Shared<T: 'static>(&'static Page<T>);

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.0.mark.0).finish()
    }
}

// SAFETY: `Send` needs the page to be usable from another thread. Only the C library accesses the lock and the
// condition variable, which are process-shared: any thread may pass them to it at any time. The rest are atomics.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Maps a file of at least a page.
    fn map(file: &File) -> io::Result<Self> {
        const { assert!(size_of::<Page<T>>() <= PAGE) };
        if file.metadata()?.len() < PAGE as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (null, access) = (ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: `mmap` wants no pointer into a range that it replaces: with a null hint and without
        // MAP_FIXED it replaces none.
        let base = unsafe { mm::mmap(null, PAGE, access, MapFlags::SHARED, file, 0) }?;
        // SAFETY: a reference wants a mapped, aligned address, and bytes that may be a `Page`: a whole page
        // is mapped and never unmapped, and of atomics and `MaybeUninit` any bytes will do. Others
        // write them only through such cells, too.
        Ok(Self(unsafe { &*base.cast::<Page<T>>() }))
    }

    /// Maps a file that was initialised as this kind of lock.
    fn open(file: &File, kind: u64) -> io::Result<Self> {
        let page = Self::map(file)?;
        // Acquire: pairs with the Release in `finish`; the lock is seen initialised.
        match page.0.mark.0.load(Ordering::Acquire) == kind {
            true => Ok(page),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Gives the file its page, in which the caller then initialises the lock.
    fn make(file: &File) -> io::Result<Self> {
        file.set_len(PAGE as u64)?;
        Self::map(file)
    }

    fn finish(&self, kind: u64) {
        // Release: pairs with the Acquire in `open`.
        self.0.mark.0.store(kind, Ordering::Release);
    }

    #[inline]
    const fn lock(&self) -> *mut T {
        self.0.lock.0.get().cast()
    }

    const fn condition(&self) -> *mut libc::pthread_cond_t {
        self.0.condition.0.get().cast()
    }
}

fn check(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// What happens to a mutex when its owner dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDeath {
    /// It stays locked.
    Stuck,
    /// The next owner is told.
    Robust,
}

impl OnDeath {
    const fn mark(self) -> u64 {
        match self {
            Self::Stuck => 1,
            Self::Robust => 2,
        }
    }
}

/// The mark of a [`PthreadRwLock`].
const RWLOCK: u64 = 3;

/// A process-shared `pthread_mutex_t`, with a `pthread_cond_t`.
#[derive(Debug)]
pub(super) struct PthreadMutex {
    page: Shared<libc::pthread_mutex_t>,
}

/// A locked [`PthreadMutex`].
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub(super) struct PthreadMutexGuard<'m> {
    mutex: &'m PthreadMutex,
    owner_died: bool,
    not_send: PhantomData<*mut ()>,
}

impl PthreadMutex {
    /// A new, unlocked mutex in a file that no process uses yet.
    ///
    /// # Errors
    /// What the C library says.
    pub(super) fn make(file: &File, on_death: OnDeath) -> io::Result<Self> {
        let page = Shared::make(file)?;
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
        check(unsafe { libc::pthread_mutex_init(page.lock(), attributes) })?;
        // SAFETY: `destroy` wants initialised attributes that are not used again.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        make_condition(page.condition())?;
        page.finish(on_death.mark());
        Ok(Self { page })
    }

    /// Opens the mutex that was made in this file.
    ///
    /// # Errors
    /// `InvalidData` if no mutex of this kind was made there.
    pub(super) fn open(file: &File, on_death: OnDeath) -> io::Result<Self> {
        Ok(Self { page: Shared::open(file, on_death.mark())? })
    }

    /// Locks it. A robust mutex whose owner died is marked consistent at once.
    ///
    /// # Errors
    /// The error of the C library, but never `EOWNERDEAD`.
    #[inline]
    pub(super) fn lock(&self) -> io::Result<PthreadMutexGuard<'_>> {
        // SAFETY: `lock` wants an initialised mutex: `make` did that, and it is never unmapped.
        let error = unsafe { libc::pthread_mutex_lock(self.page.lock()) };
        let owner_died = error == libc::EOWNERDEAD;
        if owner_died {
            self.mark_consistent()?;
        } else {
            check(error)?;
        }
        Ok(PthreadMutexGuard { mutex: self, owner_died, not_send: PhantomData })
    }

    #[cold]
    fn mark_consistent(&self) -> io::Result<()> {
        // SAFETY: `consistent` wants an initialised mutex: `make` did that. If it is not robust, locked by this thread
        // and inconsistent, the call only returns an error.
        check(unsafe { libc::pthread_mutex_consistent(self.page.lock()) })
    }

    /// Wakes one thread that waits for the condition.
    ///
    /// # Errors
    /// What the C library says.
    pub(super) fn signal(&self) -> io::Result<()> {
        // SAFETY: `signal` wants an initialised condition: `make` did that, and it is never unmapped.
        check(unsafe { libc::pthread_cond_signal(self.page.condition()) })
    }

    /// Words beside the mutex.
    #[inline]
    #[must_use]
    pub(super) const fn words(&self) -> &Words {
        &self.page.0.words.0
    }

    /// A word that can be used as a futex.
    #[must_use]
    pub(super) const fn turn(&self) -> &AtomicU32 {
        &self.page.0.turn.0
    }
}

fn make_condition(condition: *mut libc::pthread_cond_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: `init` wants memory for attributes, initialised or not.
    check(unsafe { libc::pthread_condattr_init(attributes.as_mut_ptr()) })?;
    let attributes = attributes.as_mut_ptr();
    let shared = libc::PTHREAD_PROCESS_SHARED;
    // SAFETY: this wants initialised attributes, which they are since the call above.
    check(unsafe { libc::pthread_condattr_setpshared(attributes, shared) })?;
    // SAFETY: `init` wants memory for a condition that nobody uses yet, and initialised attributes: the
    // only caller has a new page.
    check(unsafe { libc::pthread_cond_init(condition, attributes) })?;
    // SAFETY: `destroy` wants initialised attributes that are not used again.
    check(unsafe { libc::pthread_condattr_destroy(attributes) })
}

impl PthreadMutexGuard<'_> {
    /// Whether the owner before this one died.
    #[must_use]
    pub(super) const fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// Unlocks, waits for the condition and locks again. It may also wake up without a signal.
    ///
    /// # Errors
    /// What the C library says.
    pub(super) fn wait(&self) -> io::Result<()> {
        let page = &self.mutex.page;
        // SAFETY: `wait` wants an initialised condition, which `make` saw to, and a mutex locked by this
        // thread, which the guard says.
        check(unsafe { libc::pthread_cond_wait(page.condition(), page.lock()) })
    }
}

impl Drop for PthreadMutexGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `unlock` wants a mutex locked by this thread: the guard says so, and cannot leave it.
        unsafe { libc::pthread_mutex_unlock(self.mutex.page.lock()) };
    }
}

/// A process-shared `pthread_rwlock_t`.
#[derive(Debug)]
pub(super) struct PthreadRwLock {
    page: Shared<libc::pthread_rwlock_t>,
}

/// A [`PthreadRwLock`] locked for reading or writing.
#[derive(Debug)]
#[must_use = "dropping it unlocks"]
pub(super) struct PthreadRwLockGuard<'l> {
    lock: &'l PthreadRwLock,
    not_send: PhantomData<*mut ()>,
}

impl PthreadRwLock {
    /// A new, unlocked lock in a file that no process uses yet.
    ///
    /// # Errors
    /// What the C library says.
    pub(super) fn make(file: &File) -> io::Result<Self> {
        let page = Shared::make(file)?;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: `init` wants memory for attributes, initialised or not.
        check(unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) })?;
        let attributes = attributes.as_mut_ptr();
        let shared = libc::PTHREAD_PROCESS_SHARED;
        // SAFETY: this wants initialised attributes, which they are since the call above.
        check(unsafe { libc::pthread_rwlockattr_setpshared(attributes, shared) })?;
        // SAFETY: `init` wants memory for a lock that nobody uses yet, and initialised attributes: the
        // page is new, large enough and aligned.
        check(unsafe { libc::pthread_rwlock_init(page.lock(), attributes) })?;
        // SAFETY: `destroy` wants initialised attributes that are not used again.
        check(unsafe { libc::pthread_rwlockattr_destroy(attributes) })?;
        page.finish(RWLOCK);
        Ok(Self { page })
    }

    /// Opens the lock that was made in this file.
    ///
    /// # Errors
    /// `InvalidData` if no such lock was made there.
    pub(super) fn open(file: &File) -> io::Result<Self> {
        Ok(Self { page: Shared::open(file, RWLOCK)? })
    }

    /// Locks it shared.
    ///
    /// # Errors
    /// What the C library says.
    #[inline]
    pub(super) fn read(&self) -> io::Result<PthreadRwLockGuard<'_>> {
        // SAFETY: this wants an initialised lock: `make` did that, and it is never unmapped.
        check(unsafe { libc::pthread_rwlock_rdlock(self.page.lock()) })?;
        Ok(PthreadRwLockGuard { lock: self, not_send: PhantomData })
    }

    /// Locks it exclusively.
    ///
    /// # Errors
    /// What the C library says.
    #[inline]
    pub(super) fn write(&self) -> io::Result<PthreadRwLockGuard<'_>> {
        // SAFETY: as in `read`.
        check(unsafe { libc::pthread_rwlock_wrlock(self.page.lock()) })?;
        Ok(PthreadRwLockGuard { lock: self, not_send: PhantomData })
    }

    /// Words beside the lock.
    #[inline]
    #[must_use]
    pub(super) const fn words(&self) -> &Words {
        &self.page.0.words.0
    }
}

impl Drop for PthreadRwLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `unlock` wants a lock held by this thread: the guard says so, and cannot leave it.
        unsafe { libc::pthread_rwlock_unlock(self.lock.page.lock()) };
    }
}

/// One cycle of POSIX shared memory: `shm_open`, `ftruncate`, `mmap`, a touch of each page, `munmap`, `close`,
/// `shm_unlink`.
///
/// # Errors
/// The error of any of the calls. The name is removed in any case.
pub(super) fn shm_cycle(name: &str, size: usize) -> io::Result<()> {
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
    use crate::benchmarks::folder::Folder;

    fn scratch() -> Folder {
        Folder::below(std::path::Path::new("/dev/shm")).unwrap()
    }

    fn file(scratch: &Folder, name: &str) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(scratch.file(name)).unwrap()
    }

    #[test]
    fn the_locks_of_posix_lock_and_unlock_wherever_they_are_mapped() {
        let scratch = scratch();
        for (on_death, name) in [(OnDeath::Stuck, "stuck"), (OnDeath::Robust, "robust")] {
            let file = file(&scratch, name);
            let one = PthreadMutex::make(&file, on_death).unwrap();
            let two = PthreadMutex::open(&file, on_death).unwrap();
            for _ in 0..3 {
                assert!(!one.lock().unwrap().owner_died());
                assert!(!two.lock().unwrap().owner_died());
            }
            one.words()[1].store(7, Ordering::Relaxed);
            assert_eq!(two.words()[1].load(Ordering::Relaxed), 7);
        }
        let lock = PthreadRwLock::make(&file(&scratch, "rwlock")).unwrap();
        let (one, two) = (lock.read().unwrap(), lock.read().unwrap());
        drop((one, two));
        drop(lock.write().unwrap());
        drop(lock.read().unwrap());
    }

    #[test]
    fn a_file_is_not_opened_as_another_kind_of_lock() {
        let scratch = scratch();
        let file = file(&scratch, "lock");
        assert!(PthreadRwLock::open(&file).is_err());
        PthreadRwLock::make(&file).unwrap();
        assert!(PthreadRwLock::open(&file).is_ok());
        for on_death in [OnDeath::Stuck, OnDeath::Robust] {
            let error = PthreadMutex::open(&file, on_death).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_thread_that_ends_with_a_robust_mutex_leaves_it_to_the_next() {
        let scratch = scratch();
        let mutex = PthreadMutex::make(&file(&scratch, "lock"), OnDeath::Robust).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(mutex.lock().unwrap()));
        });
        assert!(mutex.lock().unwrap().owner_died());
        assert!(!mutex.lock().unwrap().owner_died());
    }

    #[test]
    fn a_thread_that_waits_for_the_condition_is_woken() {
        let scratch = scratch();
        let mutex = PthreadMutex::make(&file(&scratch, "lock"), OnDeath::Stuck).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _guard = mutex.lock().unwrap();
                mutex.words()[0].store(1, Ordering::Relaxed);
                mutex.signal().unwrap();
            });
            let guard = mutex.lock().unwrap();
            while mutex.words()[0].load(Ordering::Relaxed) == 0 {
                guard.wait().unwrap();
            }
        });
    }

    #[test]
    fn a_cycle_leaves_no_name() {
        let name = format!("commonhold-cycle-{}", std::process::id());
        shm_cycle(&name, 3 * PAGE).unwrap();
        assert!(!std::path::Path::new("/dev/shm").join(name).exists());
    }
}
