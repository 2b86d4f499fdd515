//! The ports of a space besides [`Park`]: memory behind its bytes, and evidence of liveness.

use core::fmt;

use commonhold_layout::{BootId, DeathFutex, Evidence, Extent, Offset, PeerId, PeerName, PeerRef};
use commonhold_sync::{Park, Verdict};
use commonhold_window::{Window, atomic::AtomicU64};

use crate::Room;

/// Why an operation on the backing memory failed, with the operating system's error number if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackingMemoryError {
    /// There is no memory, or no room on the file system.
    Full {
        /// `errno`, or 0.
        errno: i32,
    },
    /// The request was refused before any memory was taken: there is not so much, or the kernel would kill a process
    /// for it.
    NoRoom(Room),
    /// There is no memory behind bytes that were only to be read ([`Touch::Look`]).
    Hole,
    /// Another process kept a lock that this operation needs, until the time was up.
    Blocked {
        /// The byte of the space's file that it has locked.
        byte: u64,
    },
    /// Something else went wrong.
    Failed {
        /// Which call.
        call: &'static str,
        /// `errno`, or 0.
        errno: i32,
    },
}

impl fmt::Display for BackingMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { errno } => {
                write!(
                    f,
                    "the memory or file system of the space is full (error {errno}): free some of it, or enlarge it"
                )
            }
            Self::NoRoom(room) => room.fmt(f),
            Self::Hole => f.write_str("there is no memory behind some of the bytes"),
            Self::Blocked { byte } => write!(
                f,
                "another process has byte {byte} of the space's file locked: until it unlocks it, holes of the \
                 file cannot be filled"
            ),
            Self::Failed { call, errno } => write!(f, "{call} failed with error {errno}"),
        }
    }
}

impl core::error::Error for BackingMemoryError {}

impl BackingMemoryError {
    /// Whether memory or room ran out, or would have run out.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoRoom(_))
    }
}

/// What the caller is about to do with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Read them, without committing memory.
    Look,
    /// Read and write them.
    Use,
}

/// The memory behind a window.
///
/// Bytes of the window that were never committed, or were released, are holes. Reading a hole may commit
/// memory or raise a signal, so nothing is touched before it is committed.
pub trait BackingMemory {
    /// Commits memory behind an extent, and keeps its contents. Bytes that had no memory before are zero. Idempotent.
    ///
    /// # Errors
    /// [`BackingMemoryError`]; part of the extent may have memory then.
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError>;

    /// Releases the memory behind an extent, as far as possible; when the extent is committed anew, it reads
    /// as zeros. Idempotent.
    ///
    /// # Errors
    /// [`BackingMemoryError`]; then the bytes may keep their values.
    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError>;

    /// Verifies that an extent can be touched, of which only a number in the window claims so: that number
    /// may claim more than was ever committed. With [`Touch::Use`], commits what is missing. It costs little where the
    /// memory is there.
    ///
    /// # Errors
    /// [`BackingMemoryError`]; then touching the extent may raise a signal.
    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        match touch {
            Touch::Look => Ok(()),
            Touch::Use => self.commit(extent),
        }
    }

    /// Whether this many more bytes may be committed, as far as that can be known beforehand: committing more than
    /// there is may make the kernel kill a process. Cheap for small amounts, which are added up and checked together.
    ///
    /// # Errors
    /// [`BackingMemoryError::NoRoom`] says what there is.
    fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        let _ = bytes;
        Ok(())
    }

    /// Bytes of an extent that are known to have memory. The question commits none.
    fn resident(&self, extent: Extent) -> u64 {
        let _ = extent;
        0
    }
}

/// How a peer identifies itself when it attaches.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The kernel it runs on.
    pub boot: BootId,
    /// Its process id, in its own PID namespace; 0 if it has none.
    pub pid: u32,
    /// Inode number of its PID namespace; 0 if it has none.
    pub pid_namespace: u64,
    /// Clock ticks from its kernel's boot to its start; 0 if unknown.
    pub start_time: u64,
    /// Its user id.
    pub uid: u32,
    /// A name for listings and messages.
    pub name: PeerName,
}

/// A consistent copy of a peer's record: its state word was the same before and after the reads.
#[derive(Debug, Clone, Copy)]
pub struct PeerRecord {
    /// Its slot.
    pub peer: PeerId,
    /// Which of the slot's peers it is.
    pub generation: u32,
    /// The kinds of evidence of life that it published.
    pub evidence: Evidence,
    /// How it identified itself; `boot` is 0 if it is still attaching or its domain is unknown.
    pub identity: Identity,
    /// When it attached, in milliseconds of Unix time.
    pub attached_ms: u64,
    /// Its heartbeat.
    pub heartbeat: u64,
    /// Its death futex.
    pub death_futex: DeathFutex,
}

impl PeerRecord {
    /// Which peer of which slot it is.
    #[must_use]
    pub const fn of(&self) -> PeerRef {
        PeerRef::new(self.peer, self.generation)
    }
}

/// How a peer locks the evidence byte of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceLock {
    /// Exclusively. A process that may only read the space cannot do so, so the lock shows that the peer lives.
    Alone,
    /// Shared, beside locks of processes that may only read the space. Only the absence of such a lock proves
    /// something. On a platform without such readers it is the same as `Alone`.
    BesideReaders,
}

/// Evidence of life: how to publish it, and how to judge a peer by it.
pub trait LivenessEvidence {
    /// Publishes this peer's evidence for `peer`'s slot in the kernel, before the slot is taken, and returns
    /// which kinds it published. `None` if evidence of another is still there: try another slot.
    ///
    /// # Errors
    /// [`BackingMemoryError`] if the kernel refuses for another reason.
    fn publish(
        &self,
        peer: PeerId,
        hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError>;

    /// Withdraws the evidence.
    fn withdraw(&self, peer: PeerId);

    /// Judges a peer by the evidence it published. `Dead` needs proof; if no proof is possible and `lease_ms` is not
    /// 0, it needs that many milliseconds in which this observer saw no heartbeat. Evidence that was never published
    /// proves nothing. Of a peer that is still `attaching`, only evidence outside the record counts.
    fn verdict(&self, record: &PeerRecord, attaching: bool, lease_ms: u64) -> Verdict;

    /// Whether the thread with id `tid` of a peer, in the peer's own PID namespace, can run no more. `true` is a
    /// proof; `false` proves nothing.
    fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        let _ = (record, tid);
        false
    }

    /// Makes the kernel mark the life word at `at` when the calling thread ends; its low half is a robust futex.
    /// `row` is the extent of the words of all threads of this peer; `at` lies in it. `false` if that is not possible
    /// for this thread or in this memory.
    fn arm(&self, row: Extent, at: Offset) -> bool {
        let _ = (row, at);
        false
    }

    /// From now on the kernel does not mark the life word at `at` for the calling thread.
    fn disarm(&self, at: Offset) {
        let _ = at;
    }

    /// From now on the kernel marks no life word for any thread of this process, and none can be armed.
    fn disarm_all(&self) {}

    /// Milliseconds of Unix time, for listings and messages.
    fn unix_ms(&self) -> u64;
}

/// Most words that a thread waits for at once: as many as `futex_waitv` takes.
pub(crate) const WORDS_MOST: usize = 128;

/// Everything that a space needs from its operating system or machine.
pub trait Platform: Park + BackingMemory + LivenessEvidence {
    /// The window that holds the space.
    fn window(&self) -> &Window;

    /// As [`Park::wait`], while peers of several kernels are attached: the peer that changes the word may
    /// not be able to wake a sleeper of this kernel, so the word has to be polled.
    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64);

    /// Whether [`wait_for_any`](Self::wait_for_any) works. If not, no thread waits for a death futex.
    fn hears_death_futexes(&self) -> bool {
        false
    }

    /// As [`Park::wait`], on several words at once, 128 at most. Ends when one of them is
    /// woken, or its low half is not as expected.
    fn wait_for_any(&self, words: &[(&AtomicU64, u64)], until: u64) {
        if let [(word, expected), ..] = words {
            self.wait(word, *expected, until);
        }
    }
}
