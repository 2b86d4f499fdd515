//! The gate of a file: who opens a space, and who takes its name away, keep out of each other's way.
//!
//! # What it owns
//! One byte of the file (`ofd_lock.rs`), locked through a description that is used for nothing else.
//!
//! # Invariants
//! 1. While a gate is held, its path means its file: that is looked at once the gate is had, and all who know
//!    the gate hold it *alone* when they change what a path means.
//! 2. Whoever becomes a peer holds it *shared* from before that look until its evidence lies on the file and
//!    it is live. So who holds it alone sees the evidence of all who have come by the path.
//! 3. The gate dies with its holder, at whatever instant, and each change is one system call.
//! 4. Nobody waits for it longer than allowed, and nobody takes it from the living: who is stopped is named.
//! 5. A forked child does not keep it: its descriptor is closed there, and where no handler runs (raw
//!    `clone`), the lock is given up before the descriptor is.
//!
//! # What it does not do
//! It stops nobody who knows no gate, such as `rm` (`name.rs` notices). It does not weigh what it finds on a
//! file: the caller says whether that is somebody who lives.

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
    /// Together with others who open.
    Shared,
    Alone,
}

/// A file whose gate is held, or whose file system has no locks.
#[derive(Debug)]
struct Held {
    place: FileLocation,
    file: OwnFd,
    file_identity: (u64, u64),
    kind: MemoryKind,
    /// False if the file system has no locks: then nobody has one.
    locked: bool,
}

/// The gate of a file, held while this process becomes a peer.
#[derive(Debug)]
pub struct SharedGate(Held);

/// The gate of a file, held by one alone: nobody becomes a peer by its path meanwhile.
#[derive(Debug)]
pub struct ExclusiveGate(Held);

/// A lock that somebody has on a file, in the bytes where peers leave evidence of their lives.
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
            // It has been removed or replaced: begin anew, with what is there now.
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
                // A file system without locks, and none where the lack of one would prove anything.
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
        // The gate's own description is closed with the gate, and handed to nobody.
        MappedWindow::of_file(open_again(self.file()?, path)?, path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // In a forked child there is no descriptor, and the lock is the parent's. Unlocked and not only
        // closed: a child made by raw `clone` has the description as well.
        if let Some(file) = self.file.checked().filter(|_| self.locked) {
            let _ = ofd_lock::unlock(file, LockByte::GATE);
        }
    }
}

impl SharedGate {
    /// Comes in by a path, together with others, and waits so long at most for one who is taking it away.
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

    /// Who has the byte locked where a peer leaves its evidence, as far as `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of_slot(&self, slot: u16) -> Option<LockHolder> {
        self.0.holder_of(LockByte::of_peer(commonhold_layout::PeerId::new(slot)).offset())
    }

    /// Maps the file: this very one, whatever its path comes to mean. The gate is not kept by that.
    ///
    /// # Errors
    /// As for [`open`](crate::open).
    pub fn map(&self) -> Result<MappedWindow, HostError> {
        self.0.map()
    }
}

impl ExclusiveGate {
    /// Keeps all out who come by a path, after waiting so long at most for those who are coming in.
    pub(crate) fn seize(place: FileLocation, patience: Duration) -> Result<Self, HostError> {
        let held = Held::take(place, GateMode::Alone, patience)?;
        Point::GateSeized.reached();
        Ok(Self(held))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.place.path
    }

    /// What the file is made of: whether the lack of locks proves anything there.
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

    /// A lock that somebody else has where peers leave evidence, or where holes are filled, if there is any: of
    /// whatever kind, whoever can have it.
    ///
    /// # Errors
    /// [`HostError`] of `fcntl`.
    pub fn any_lock(&self) -> Result<Option<FileLock>, HostError> {
        if !self.0.locked {
            return Ok(None);
        }
        // From behind the gate on: who fills holes lives as well.
        let bytes = LockedBytes::from(LockByte::FILL);
        let found = ofd_lock::lock_within(self.0.file()?, bytes, Sought::Any);
        Ok(found.map_err(self.0.place.failed("fcntl"))?.map(told))
    }

    /// What others have left as evidence in the slots of so many peers, in no order. Locks that whoever can read the
    /// file can have are none, and neither are those that reach beyond these slots.
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

    /// Who has the lock, as far as `/proc` shows it to this process.
    #[must_use]
    pub fn holder_of(&self, lock: FileLock) -> Option<LockHolder> {
        self.0.holder_of(lock.byte)
    }

    /// Takes the name away. Those who have the file mapped keep it.
    ///
    /// # Errors
    /// [`HostError::NotFound`] if somebody who knows no gate was faster, and the others.
    pub fn unlink(self) -> Result<(), HostError> {
        Point::NameChecked.reached();
        fs::unlink(self.path()).map_err(|errno| match errno {
            Errno::NOENT => HostError::NotFound { path: self.path().to_owned() },
            errno => self.0.place.failed("unlink")(errno),
        })?;
        Point::NameTaken.reached();
        Ok(())
    }

    /// Gives the name to the file at another path, which loses that one.
    pub(crate) fn give_to(self, from: &Path) -> Result<(), HostError> {
        Point::NameChecked.reached();
        fs::rename(from, self.path()).map_err(self.0.place.failed("rename"))?;
        Point::NameTaken.reached();
        Ok(())
    }
}
