//! Descriptors that forked children do not keep, and that are checked before they are used.
//!
//! A program may close descriptors that it does not know (`close_range(3, ~0)`), and the kernel gives their numbers
//! to other files. If we asked such a file about locks, we would judge peers by a file that is not theirs. If we
//! punched a hole into it, we would destroy data that are not ours.
//!
//! # What it owns
//! A table of the descriptors that a child must not keep, each with the file that it was opened for.
//!
//! # Invariants
//! 1. A descriptor is in the table only while it is open: it leaves before it is closed.
//! 2. A descriptor is closed, here or in a child, only if it still is the file that was opened: device and inode are
//!    compared first. (Files without inodes of their own, such as userfaultfds, cannot be told apart.)
//! 3. [`OwnFd::checked`] lends the file that was opened, or nothing. If the descriptor is lost, it opens the file
//!    again where it can.
//!
//! # What it does not do
//! It cannot keep other threads from closing a descriptor between the check and the use.

use std::{
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{self, Mode, OFlags},
    io::{Errno, retry_on_intr},
};

use crate::fork::{ChildTask, ForkGuard};

/// Entries of the table.
const DESCRIPTORS: usize = 4096;
const UNUSED: RawFd = -1;
/// An entry that is being written.
const RESERVED: RawFd = -2;

static TABLE: [Entry; DESCRIPTORS] = [const { Entry::new() }; DESCRIPTORS];

/// A descriptor, and the file that it was opened for.
#[derive(Debug)]
struct Entry {
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn new(file: BorrowedFd<'_>) -> Option<Self> {
        let stat = fs::fstat(file).ok()?;
        Some(Self(stat.st_dev, stat.st_ino))
    }

    fn of_raw(descriptor: RawFd) -> Option<Self> {
        if descriptor < 0 {
            return None;
        }
        // SAFETY: `borrow_raw` wants a descriptor that is not -1, which was checked above, and that stays open. If
        // this one is closed or another file by now, `fstat` says so; nothing else is done with it.
        Self::new(unsafe { BorrowedFd::borrow_raw(descriptor) })
    }
}

impl Entry {
    const fn new() -> Self {
        Self {
            descriptor: AtomicI32::new(UNUSED),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
        }
    }

    fn file(&self) -> FileId {
        FileId(self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }

    /// Takes an unused entry for `descriptor`.
    fn take(descriptor: RawFd, file: FileId) -> Option<&'static Self> {
        let entry = TABLE.iter().find(|entry| {
            let unused = &entry.descriptor;
            unused.load(Ordering::Relaxed) == UNUSED
                && unused
                    .compare_exchange(UNUSED, RESERVED, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        })?;
        entry.device.store(file.0, Ordering::Relaxed);
        entry.inode.store(file.1, Ordering::Relaxed);
        // Release: pairs with the Acquire in `close`; the handler in a child finds the file with the descriptor.
        entry.descriptor.store(descriptor, Ordering::Release);
        Some(entry)
    }

    /// Closes the descriptor, if it still is the file that was opened.
    fn close(&self) {
        // Acquire: pairs with the Release in `take`. The entry is cleared before the descriptor is closed: invariant
        // 1.
        let descriptor = self.descriptor.swap(UNUSED, Ordering::Acquire);
        if FileId::of_raw(descriptor) == Some(self.file()) {
            // SAFETY: `close` wants a descriptor that is not used any more: it is the one that was opened. Its
            // `OwnFd` is being dropped; or this is a child, in which the `OwnFd` notices the fork before it uses the
            // descriptor.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// Closes what a child made by `fork` must not keep. Called in the child only.
fn close_in_child() {
    for entry in &TABLE {
        if entry.descriptor.load(Ordering::Relaxed) >= 0 {
            entry.close();
        }
    }
}

/// A descriptor that forked children do not keep.
///
/// In a child that was made without `fork` handlers (raw `clone`), it stays open and is never closed: the child may
/// have given its number to another file.
#[derive(Debug)]
pub struct OwnFd {
    entry: &'static Entry,
    guard: ForkGuard,
    /// Where the file can be opened again if the descriptor is lost.
    again: OnceLock<PathBuf>,
}

impl OwnFd {
    /// Takes the descriptor over.
    ///
    /// # Errors
    /// `EMFILE` if the table is full, and those of `fstat`.
    pub fn new(descriptor: OwnedFd, guard: ForkGuard) -> Result<Self, Errno> {
        ChildTask::CloseDescriptors.set(close_in_child);
        let file = FileId::of_raw(descriptor.as_raw_fd()).ok_or(Errno::BADF)?;
        let entry = Entry::take(descriptor.as_raw_fd(), file).ok_or(Errno::MFILE)?;
        // The entry closes it from now on.
        let _ = descriptor.into_raw_fd();
        Ok(Self { entry, guard, again: OnceLock::new() })
    }

    /// Sets the path at which the file can be opened again. Only the first call counts.
    pub(crate) fn can_be_opened_at(&self, path: PathBuf) {
        let _ = self.again.set(path);
    }

    /// The descriptor, unchecked; `None` in a forked child, where it is closed. For descriptors that are used
    /// so often that a check at each use would cost too much.
    #[must_use]
    pub fn get(&self) -> Option<BorrowedFd<'_>> {
        if self.guard.is_forked_child() {
            return None;
        }
        let descriptor = self.entry.descriptor.load(Ordering::Relaxed);
        // SAFETY: `borrow_raw` wants a descriptor that is not -1 and stays open: it was opened for this value, which
        // closes it when it is dropped. (If the program has closed it all the same, we cannot know that here.)
        (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    /// The descriptor, if it still is the file that was opened; else a new descriptor of that file. `None` in a
    /// forked child, and if the program has closed the descriptor and the file cannot be opened again.
    #[must_use]
    pub fn checked(&self) -> Option<BorrowedFd<'_>> {
        let found = self.get()?;
        if FileId::new(found) == Some(self.entry.file()) {
            return Some(found);
        }
        self.open_again(found.as_raw_fd())
    }

    /// Whether the descriptor has ceased to be the file that was opened.
    pub(crate) fn is_lost(&self) -> bool {
        self.get().is_some_and(|found| FileId::new(found) != Some(self.entry.file()))
    }

    /// Whether the file that was opened is at this path.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        fs::stat(path).is_ok_and(|stat| FileId(stat.st_dev, stat.st_ino) == self.entry.file())
    }

    #[cold]
    fn open_again(&self, lost: RawFd) -> Option<BorrowedFd<'_>> {
        // NONBLOCK: the path may name a pipe by now.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let path = self.again.get()?;
        let fresh = retry_on_intr(|| fs::open(path, flags, Mode::empty())).ok()?;
        if FileId::of_raw(fresh.as_raw_fd()) != Some(self.entry.file()) {
            return None;
        }
        // If another thread was quicker, ours is closed, and its descriptor is lent. Release as in `take`: the file is
        // the same, so it publishes nothing new.
        let put = self.entry.descriptor.compare_exchange(
            lost,
            fresh.as_raw_fd(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if put.is_ok() {
            let _ = fresh.into_raw_fd();
        }
        self.get()
    }
}

impl Drop for OwnFd {
    fn drop(&mut self) {
        if !self.guard.is_forked_child() {
            self.entry.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::{fs as files, os::fd::FromRawFd};

    fn close_raw(descriptor: RawFd) {
        // SAFETY: `from_raw_fd` wants an open descriptor that nobody else closes: this test opened it.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }

    fn own(path: &std::path::Path) -> OwnFd {
        let file: OwnedFd =
            files::File::options().read(true).write(true).open(path).unwrap().into();
        OwnFd::new(file, ForkGuard::made_here().unwrap()).unwrap()
    }

    /// Acts as a program that closes descriptors it does not know, and then opens files of its own.
    fn close_and_reuse(descriptor: RawFd, stranger: &std::path::Path) -> OwnedFd {
        let other = files::File::open(stranger).unwrap();
        // SAFETY: `dup2` wants an open descriptor: `other` is one. It takes the number from `OwnFd`: that is the test.
        let number = unsafe { libc::dup2(other.as_raw_fd(), descriptor) };
        assert_eq!(number, descriptor);
        other.into()
    }

    /// The bug: a program closed the descriptor of a space's file and opened another file, which got its number. The
    /// library asked that file about locks, and found that all peers were dead.
    #[test]
    fn a_descriptor_whose_number_names_another_file_is_neither_used_nor_closed() {
        let scratch = Scratch::new();
        let (ours, theirs) = (scratch.path("ours"), scratch.path("theirs"));
        files::write(&ours, "x").unwrap();
        files::write(&theirs, "y").unwrap();
        let own = own(&ours);
        let number = own.checked().unwrap().as_raw_fd();
        let other = close_and_reuse(number, &theirs);
        assert!(own.checked().is_none() && own.is_lost());
        drop(own);
        assert!(FileId::of_raw(number).is_some(), "the stranger's file was closed");
        close_raw(number);
        drop(other);
    }

    #[test]
    fn a_lost_descriptor_is_opened_again_if_the_path_still_names_the_same_file() {
        let scratch = Scratch::new();
        let (ours, theirs) = (scratch.path("ours"), scratch.path("theirs"));
        files::write(&ours, "x").unwrap();
        files::write(&theirs, "y").unwrap();
        let own = own(&ours);
        own.can_be_opened_at(ours.clone());
        let number = own.checked().unwrap().as_raw_fd();
        let _other = close_and_reuse(number, &theirs);
        let again = own.checked().unwrap().as_raw_fd();
        assert_ne!(again, number);
        assert_eq!(FileId::of_raw(again), Some(own.entry.file()));
        // The name means another file now.
        files::rename(&theirs, &ours).unwrap();
        let _third = close_and_reuse(again, &ours);
        assert!(own.checked().is_none());
        close_raw(number);
        close_raw(again);
    }
}
