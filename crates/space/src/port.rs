//! What a space needs from the world besides sleeping: memory behind its bytes, and evidence.

use core::fmt;

use commonhold_layout::{BootId, DeathFutex, Evidence, Extent, Offset, PeerId, PeerName, PeerRef};
use commonhold_sync::{Park, Verdict};
use commonhold_window::{Window, atomic::AtomicU64};

use crate::Room;

/// Why a medium could not do what it was asked, with the operating system's error number if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackingMemoryError {
    /// There is no memory, or no room on the file system.
    Full {
        /// `errno`, or 0.
        errno: i32,
    },
    /// So much was not even tried: it cannot be had, or others would be killed for it.
    NoRoom(Room),
    /// There is no memory behind bytes that were to be looked at only.
    Hole,
    /// Others have had a lock all the time that it takes.
    Blocked {
        /// The byte of the file behind the window that they have locked.
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
                    "the medium of the space is full (error {errno}): free some of it, or enlarge it"
                )
            }
            Self::NoRoom(room) => room.fmt(f),
            Self::Hole => f.write_str("there is no memory behind some of the bytes"),
            Self::Blocked { byte } => write!(
                f,
                "somebody has byte {byte} of the space's file locked, without which its holes are not filled"
            ),
            Self::Failed { call, errno } => write!(f, "{call} failed with error {errno}"),
        }
    }
}

impl core::error::Error for BackingMemoryError {}

impl BackingMemoryError {
    /// Whether memory or room ran out, or would.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoRoom(_))
    }
}

/// What somebody is about to do with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Read them, and take no memory for that.
    Look,
    /// Read and write them.
    Use,
}

/// The memory behind a window.
///
/// Bytes of the window that were never committed, or were released, are holes: reading one may cost
/// memory or a signal, so nothing is touched before it is committed.
pub trait BackingMemory {
    /// Makes sure there is memory behind an extent, and keeps what is in it: idempotent. Bytes that
    /// had none before are zero.
    ///
    /// # Errors
    /// [`BackingMemoryError`]; part of the extent may have memory then.
    fn commit(&self, extent: Extent) -> Result<(), BackingMemoryError>;

    /// Gives the memory behind an extent back, as far as the medium can; afterwards the extent reads
    /// as zeros when it is committed anew. Idempotent.
    ///
    /// # Errors
    /// [`BackingMemoryError`]; then the bytes may keep their values.
    fn release(&self, extent: Extent) -> Result<(), BackingMemoryError>;

    /// Makes sure that an extent can be touched although others say so that it can: a number in the window
    /// may claim more than was ever committed. It costs little where the memory is there.
    ///
    /// # Errors
    /// [`BackingMemoryError`]: touching the extent may cost a signal.
    fn back(&self, extent: Extent, touch: Touch) -> Result<(), BackingMemoryError> {
        match touch {
            Touch::Look => Ok(()),
            Touch::Use => self.commit(extent),
        }
    }

    /// Whether so many bytes more may be committed, as far as can be told beforehand: taking memory that is
    /// not there may have somebody killed. Cheap for small amounts, which are looked at in sum.
    ///
    /// # Errors
    /// [`BackingMemoryError::NoRoom`] says what there is.
    fn room_for(&self, bytes: u64) -> Result<(), BackingMemoryError> {
        let _ = bytes;
        Ok(())
    }

    /// Bytes of an extent that are known to have memory. To ask takes none.
    fn resident(&self, extent: Extent) -> u64 {
        let _ = extent;
        0
    }
}

/// What a peer says of itself when it attaches.
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
    /// For people.
    pub name: PeerName,
}

/// A peer's record, read whole: its state word was the same before and after.
#[derive(Debug, Clone, Copy)]
pub struct PeerRecord {
    /// Its slot.
    pub peer: PeerId,
    /// Which of the slot's peers it is.
    pub generation: u32,
    /// What it left behind for others to know its life by.
    pub evidence: Evidence,
    /// What it said of itself; `boot` is 0 if it is still attaching or its domain is unknown.
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

/// How evidence is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceLock {
    /// So that nobody else can have left it: that it is there tells that its peer lives.
    Alone,
    /// Beside what strangers left who may read the space and not write it: only that it is gone tells something. For a
    /// platform without such strangers it is the same.
    BesideReaders,
}

/// Evidence of life: how to leave it, and how to judge that of others.
pub trait LivenessEvidence {
    /// Leaves this peer's evidence in the kernel for `peer`'s slot, before the slot is taken, and says
    /// which it was. `None` if the evidence of somebody else is still there: try another slot.
    ///
    /// # Errors
    /// [`BackingMemoryError`] if the kernel refuses for another reason.
    fn publish(
        &self,
        peer: PeerId,
        hold: EvidenceLock,
    ) -> Result<Option<Evidence>, BackingMemoryError>;

    /// Takes the evidence back.
    fn withdraw(&self, peer: PeerId);

    /// Judges a peer by the evidence it left. `Dead` only on proof, or, if `lease_ms` is not 0 and no
    /// proof is to be had either way, after that many milliseconds without a heartbeat as seen by this
    /// observer. Evidence that was never left proves nothing; a record that is still attaching has
    /// only the evidence that lies outside the record.
    fn verdict(&self, record: &PeerRecord, attaching: bool, lease_ms: u64) -> Verdict;

    /// Whether the thread with id `tid` of a peer, in the peer's own PID namespace, can run no more. `true` is a
    /// proof; `false` proves nothing.
    fn thread_has_ended(&self, record: &PeerRecord, tid: u32) -> bool {
        let _ = (record, tid);
        false
    }

    /// Has the kernel mark the life word at `at` when the calling thread ends: the robust futex in its low half.
    /// `row` are the words of all threads of this peer, `at` among them. `false`: it cannot be had for this
    /// thread, or in this memory.
    fn arm(&self, row: Extent, at: Offset) -> bool {
        let _ = (row, at);
        false
    }

    /// The calling thread's life word at `at` is not to be marked any more.
    fn disarm(&self, at: Offset) {
        let _ = at;
    }

    /// The life word of no thread of this process is to be marked any more, and none is armed after this.
    fn disarm_all(&self) {}

    /// Milliseconds of Unix time, for people.
    fn unix_ms(&self) -> u64;
}

/// Words that somebody waits for at once, at most: as many as `futex_waitv` takes.
pub(crate) const WORDS_MOST: usize = 128;

/// Everything a space needs from where it runs.
pub trait Platform: Park + BackingMemory + LivenessEvidence {
    /// The window that holds the space.
    fn window(&self) -> &Window;

    /// As [`Park::wait`], while peers of several kernels are attached: whoever changes the word may
    /// not be able to wake a sleeper of this kernel, so the word has to be looked at again and again.
    fn wait_among_kernels(&self, word: &AtomicU64, expected: u64, until: u64);

    /// Whether [`wait_for_any`](Self::wait_for_any) can be used: else no death futex is waited for.
    fn hears_death_futexes(&self) -> bool {
        false
    }

    /// As [`Park::wait`], on several words at once, and on no more than 128: ends when any is
    /// woken, or does not have its low half as expected.
    fn wait_for_any(&self, words: &[(&AtomicU64, u64)], until: u64) {
        if let [(word, expected), ..] = words {
            self.wait(word, *expected, until);
        }
    }
}
