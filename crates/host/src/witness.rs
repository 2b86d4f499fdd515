//! Evidence of life: left for others, and weighed.
//!
//! # What it owns
//! A description of the space's file that nobody else has, and the locks on it; what was seen of hearts;
//! and a descriptor of the process that was asked for last.
//!
//! # Invariants
//! 1. `Dead` is said on proof only, or when a lease has run out where no proof can be had.
//! 2. The lack of evidence that was never left proves nothing, and neither does a lock that is missing
//!    on a file system whose locks may belong to another kernel.
//! 3. In a forked child nothing is locked, unlocked or concluded: the description is the parent's.
//! 4. The kernel does not tell us of our own locks, so our own slots are remembered here.
//!
//! # What it does not do
//! It fences nobody; whoever asks for a verdict does.

use std::sync::{Mutex, PoisonError};

use commonhold_layout::{Evidence, PeerId};
use commonhold_space::{Identity, MediumError, PeerRecord};
use commonhold_sync::Verdict;
use rustix::io::Errno;

use crate::{
    error::HostError,
    fork::{ForkGuard, OwnFd},
    map::MappedWindow,
    ofd::{self, LockByte},
    park::monotonic_ns,
    process::{self, Life, Myself},
    silence::Silence,
};

/// What a lock in the kernel says of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// It was left, and is gone.
    Gone,
    /// It is there; a forked child may be what keeps it.
    Held,
    /// None was left, or none that we could see.
    Unknown,
}

/// The evidence of this process, and its view of that of others.
#[derive(Debug)]
pub(crate) struct Evidences {
    /// `None` if locks prove nothing on this memory.
    description: Option<OwnFd>,
    guard: ForkGuard,
    me: Myself,
    own: Mutex<Vec<PeerId>>,
    silence: Silence,
    /// Whose life was asked for last, if it ran: asked again, as it is while it dies, nothing of `/proc` has
    /// to be read.
    known: Mutex<Option<Known>>,
}

/// A peer whose process is known.
#[derive(Debug)]
struct Known {
    peer: PeerId,
    generation: u32,
    process: OwnFd,
}

impl Evidences {
    pub(crate) fn new(mapped: &MappedWindow) -> Result<Self, HostError> {
        let guard = mapped.guard();
        let description = if mapped.kind().locks_are_proof() {
            let own = OwnFd::new(mapped.reopen()?, guard);
            Some(own.map_err(|errno| HostError::call("open", mapped.path(), errno))?)
        } else {
            None
        };
        Ok(Self {
            description,
            guard,
            me: Myself::look(),
            own: Mutex::default(),
            silence: Silence::default(),
            known: Mutex::default(),
        })
    }

    pub(crate) const fn identity(&self) -> Identity {
        self.me.identity
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Vec<PeerId>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn deposit(&self, peer: PeerId) -> Result<Option<Evidence>, MediumError> {
        let failed =
            |errno: Errno| MediumError::Failed { call: "fcntl", errno: errno.raw_os_error() };
        if self.guard.is_forked_child() {
            return Err(failed(Errno::BADF));
        }
        let mut own = self.own();
        if own.contains(&peer) {
            return Ok(None);
        }
        // The heart always beats: a kernel that can see nothing else may attach at any time.
        let mut evidence = Evidence::PROCESS.with(Evidence::HEARTBEAT);
        if let Some(description) = &self.description {
            let file = description.get().ok_or_else(|| failed(Errno::BADF))?;
            if !ofd::try_lock(file, LockByte::of_peer(peer)).map_err(failed)? {
                return Ok(None);
            }
            evidence = evidence.with(Evidence::OFD_LOCK);
        }
        own.push(peer);
        Ok(Some(evidence))
    }

    pub(crate) fn withdraw(&self, peer: PeerId) {
        if self.guard.is_forked_child() {
            return;
        }
        let mut own = self.own();
        let before = own.len();
        own.retain(|slot| *slot != peer);
        if own.len() == before {
            return;
        }
        if let Some(file) = self.description.as_ref().and_then(OwnFd::get) {
            // Cannot fail for a lock that is held; if it does, the end of the process does it.
            let _ = ofd::unlock(file, LockByte::of_peer(peer));
        }
    }

    pub(crate) fn verdict(&self, record: &PeerRecord, attaching: bool, lease_ms: u64) -> Verdict {
        if self.guard.is_forked_child() {
            return Verdict::Suspect;
        }
        let mine = self.own().contains(&record.peer);
        let lock = if mine { Lock::Held } else { self.lock_of(record) };
        if lock == Lock::Gone {
            return Verdict::Dead;
        }
        match self.life_of(record, attaching) {
            Life::Gone => Verdict::Dead,
            Life::Runs => Verdict::Alive,
            Life::Unknown if lock == Lock::Held => Verdict::Alive,
            Life::Unknown if record.evidence.contains(Evidence::HEARTBEAT) => {
                self.silence.judge(record, lease_ms, monotonic_ns() / 1_000_000)
            }
            Life::Unknown => Verdict::Suspect,
        }
    }

    fn lock_of(&self, record: &PeerRecord) -> Lock {
        let Some(description) = &self.description else { return Lock::Unknown };
        if !record.evidence.contains(Evidence::OFD_LOCK) {
            return Lock::Unknown;
        }
        let Some(file) = description.get() else { return Lock::Unknown };
        match ofd::is_locked(file, LockByte::of_peer(record.peer)) {
            Ok(true) => Lock::Held,
            Ok(false) => Lock::Gone,
            Err(_) => Lock::Unknown,
        }
    }

    fn life_of(&self, record: &PeerRecord, attaching: bool) -> Life {
        let left = !attaching && record.evidence.contains(Evidence::PROCESS);
        if !left || !self.me.shares_processes_with(&record.identity) {
            return Life::Unknown;
        }
        let PeerRecord { peer, generation, .. } = *record;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known
            && (known.peer, known.generation) == (peer, generation)
            && let Some(process) = known.process.get()
        {
            return if process::has_ended(process) { Life::Gone } else { Life::Runs };
        }
        let (life, process) = self.me.life_of(&record.identity);
        *known = process
            .and_then(|process| OwnFd::new(process, self.guard).ok())
            .map(|process| Known { peer, generation, process });
        life
    }
}
