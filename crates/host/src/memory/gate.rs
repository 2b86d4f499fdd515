//! The gate of a file: a lock between processes that open a space and processes that remove its name.
//!
//! # What it owns
//! One byte of the file (`ofd_lock.rs`), locked through a description that is used for nothing else.
//!
//! # Invariants
//! 1. While a gate is held, its path means its file. The holder checks that once it has the gate, and a process that
//!    knows the gate changes the meaning of a path only while it holds the gate *alone*.
//! 2. A process that becomes a peer holds the gate *shared*, from before that check until its evidence lies on the
//!    file and it is live. So a process that holds the gate alone sees the evidence of all peers that came by the
//!    path.
//! 3. The kernel gives the gate up when its holder dies, at any instant; each change of a name is one system call.
//! 4. The wait for the gate ends at a deadline, and the gate is never taken from a live holder. If the holder is
//!    stopped, the error names it.
//! 5. A forked child does not keep the gate: its descriptor is closed there. Where no handler runs (raw `clone`), the
//!    parent unlocks the byte before it closes the descriptor.
//!
//! # What it does not do
//! It does not stop programs that do not know the gate, such as `rm` (`name.rs` notices that). It does not judge
//! locks that it finds on a file: the caller decides whether a live peer has them.

use std::{
    os::fd::BorrowedFd,
    path::Path,
    time::{Duration, Instant},
};

use commonhold_window::Point;
use rustix::{
    fs::{self, OFlags, Stat},
    io::Errno,
};

use super::{
    file_location::FileLocation, kind::MemoryKind, mapped_window::MappedWindow, name::identity,
    peek::Peek, reopen::open_again,
};
use crate::{
    error::HostError,
    fork::ForkGuard,
    liveness::LockHolder,
    ofd_lock::{self, LockByte, LockedBytes, Sought},
    own_fd::OwnFd,
};

/// How a gate is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GateMode {
    /// Together with other processes that open the file.
    Shared,
    /// By one process alone.
    Alone,
}

/// A file whose gate is held, or whose file system has no locks.
#[derive(Debug)]
struct Held {
    place: FileLocation,
    file: OwnFd,
    file_identity: (u64, u64),
    kind: MemoryKind,
    /// False if the file system has no locks.
    locked: bool,
}

/// The gate of a file, held while this process becomes a peer.
#[derive(Debug)]
pub struct SharedGate(Held);

/// The gate of a file, held alone: no process becomes a peer by its path meanwhile.
#[derive(Debug)]
pub struct ExclusiveGate(Held);

/// A lock on a file, in the bytes where peers leave evidence that they live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileLock {
    /// The byte where it begins.
    pub byte: u64,
    /// The slot of the peer whose evidence it is, if it has the form of evidence.
    pub slot: Option<u16>,
}

fn told(lock: LockedBytes) -> FileLock {
    FileLock { byte: lock.first, slot: lock.peer().map(commonhold_layout::PeerId::get) }
}

impl Held {
    fn take(place: FileLocation, mode: GateMode, patience: Duration) -> Result<Self, HostError> {
        let began = Instant::now();
        loop {
            let mut held = Self::open(&place)?;
            held.lock(mode, patience.saturating_sub(began.elapsed()))?;
            if place.means(held.file_identity)? {
                return Ok(held);
            }
            // The file has been removed or replaced: begin anew, with the file that is there now.
            if began.elapsed() >= patience {
                return Err(HostError::Busy { path: place.path, holder: None });
            }
        }
    }

    fn open(place: &FileLocation) -> Result<Self, HostError> {
        let failed = |call| place.failed(call);
        let file = place.open_as(OFlags::RDWR)?;
        let guard = ForkGuard::made_here().map_err(failed("pthread_atfork"))?;
        let stat: Stat = fs::fstat(&file).map_err(failed("fstat"))?;
        let kind = MemoryKind::of_file(&fs::fstatfs(&file).map_err(failed("fstatfs"))?);
        let file = OwnFd::new(file, guard).map_err(failed("open"))?;
        let place = place.clone();
        Ok(Self { place, file, file_identity: identity(&stat), kind, locked: false })
    }

    fn file(&self) -> Result<BorrowedFd<'_>, HostError> {
        self.file.checked().ok_or(HostError::Forked)
    }

    fn lock(&mut self, mode: GateMode, patience: Duration) -> Result<(), HostError> {
        let attempt = || {
            let file = self.file()?;
            let tried = match mode {
                GateMode::Shared => ofd_lock::try_share(file, LockByte::GATE),
                GateMode::Alone => ofd_lock::try_lock(file, LockByte::GATE),
            };
            match tried {
                Ok(true) => Ok(Some(true)),
                Ok(false) => Ok(None),
                // The file system has no locks, and is not one where a missing lock proves anything.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)
                    if !self.kind.locks_are_proof() =>
                {
                    Ok(Some(false))
                }
                Err(errno) => Err(self.place.failed("fcntl")(errno)),
            }
        };
        let mut locked = false;
        let done = ofd_lock::patiently(patience, || {
            let tried = attempt()?;
            locked = tried.unwrap_or(false);
            Ok::<_, HostError>(tried.is_some())
        })?;
        if !done {
            let holder = self.holder_of(LockByte::GATE.offset());
            return Err(HostError::Busy { path: self.place.path.clone(), holder });
        }
        self.locked = locked;
        Ok(())
    }

    fn holder_of(&self, byte: u64) -> Option<LockHolder> {
        LockHolder::new(self.file_identity, byte)
    }

    fn peek(&self) -> Result<Peek, HostError> {
        Peek::of_file(self.file()?, &self.place.path)
    }

    fn map(&self) -> Result<MappedWindow, HostError> {
        let path = &self.place.path;
        // Opened again, since the gate's own description is closed with the gate, and never shared.
        MappedWindow::of_file(open_again(self.file()?, path)?, path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // In a forked child there is no descriptor, and the lock is the parent's. The byte is unlocked explicitly,
        // since a child made by raw `clone` shares the description and keeps it open.
        if let Some(file) = self.file.checked().filter(|_| self.locked) {
            let _ = ofd_lock::unlock(file, LockByte::GATE);
        }
    }
}

impl SharedGate {
    /// Takes the gate shared, and waits at most `patience` for a process that holds it alone.
    pub(crate) fn enter(place: FileLocation, patience: Duration) -> Result<Self, HostError> {
        let held = Held::take(place, GateMode::Shared, patience)?;
        Point::GateEntered.reached();
        Ok(Self(held))
    }

    /// Reads the first words of the file.
    ///
    /// # Errors
    /// [`HostError`] of reading.
    pub fn peek(&self) -> Result<Peek, HostError> {
        self.0.peek()
    }

    /// The process that has locked the evidence byte of a slot, if `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of_slot(&self, slot: u16) -> Option<LockHolder> {
        self.0.holder_of(LockByte::of_peer(commonhold_layout::PeerId::new(slot)).offset())
    }

    /// Maps this file, even if its path means another one later. The mapping does not keep the gate.
    ///
    /// # Errors
    /// As for [`open`](crate::open).
    pub fn map(&self) -> Result<MappedWindow, HostError> {
        self.0.map()
    }
}

impl ExclusiveGate {
    /// Takes the gate alone, and waits at most `patience` for processes that hold it.
    pub(crate) fn seize(place: FileLocation, patience: Duration) -> Result<Self, HostError> {
        let held = Held::take(place, GateMode::Alone, patience)?;
        Point::GateSeized.reached();
        Ok(Self(held))
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.place.path
    }

    /// The kind of the file's memory, which tells whether a missing lock proves anything.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.0.kind
    }

    /// Reads the first words of the file.
    ///
    /// # Errors
    /// [`HostError`] of reading.
    pub fn peek(&self) -> Result<Peek, HostError> {
        self.0.peek()
    }

    /// Maps the file.
    ///
    /// # Errors
    /// As for [`open`](crate::open).
    pub fn map(&self) -> Result<MappedWindow, HostError> {
        self.0.map()
    }

    /// A lock of another process in the bytes where peers leave evidence, or where holes are filled. It may be of any
    /// kind, also one that a mere reader of the file can take.
    ///
    /// # Errors
    /// [`HostError`] of `fcntl`.
    pub fn any_lock(&self) -> Result<Option<FileLock>, HostError> {
        if !self.0.locked {
            return Ok(None);
        }
        // From the byte behind the gate on: a process that fills holes is alive too.
        let bytes = LockedBytes::from(LockByte::FILL);
        let found = ofd_lock::lock_within(self.0.file()?, bytes, Sought::Any);
        Ok(found.map_err(self.0.place.failed("fcntl"))?.map(told))
    }

    /// The evidence of others in the slots of `peers` peers, in no order. Shared locks do not count, since a process
    /// that can only read the file can take them; nor do locks that reach beyond these slots.
    ///
    /// # Errors
    /// [`HostError`] of `fcntl`.
    pub fn evidence(&self, peers: u16) -> Result<Vec<FileLock>, HostError> {
        if !self.0.locked {
            return Ok(Vec::new());
        }
        let bytes = LockedBytes::of_peers(peers);
        let found =
            ofd_lock::locks_within(self.0.file()?, bytes, Sought::Exclusive, usize::from(peers))
                .map_err(self.0.place.failed("fcntl"))?;
        Ok(found.into_iter().filter(|lock| lock.lie_in(bytes)).map(told).collect())
    }

    /// The process that has the lock, if `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of(&self, lock: FileLock) -> Option<LockHolder> {
        self.0.holder_of(lock.byte)
    }

    /// Removes the name. Processes that have the file mapped keep the file.
    ///
    /// # Errors
    /// [`HostError::NotFound`] if a program that does not know the gate was faster; other errors of `unlink`.
    pub fn unlink(self) -> Result<(), HostError> {
        Point::NameChecked.reached();
        fs::unlink(self.path()).map_err(|errno| match errno {
            Errno::NOENT => HostError::NotFound { path: self.path().to_owned() },
            errno => self.0.place.failed("unlink")(errno),
        })?;
        Point::NameTaken.reached();
        Ok(())
    }

    /// Renames the file at `from` to this path, and so replaces this file.
    pub(crate) fn give_to(self, from: &Path) -> Result<(), HostError> {
        Point::NameChecked.reached();
        fs::rename(from, self.path()).map_err(self.0.place.failed("rename"))?;
        Point::NameTaken.reached();
        Ok(())
    }
}
