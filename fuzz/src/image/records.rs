//! The operations of a peer on the records in the bytes of a region that it maps.

use crate::scribble::pick;
use arbitrary::Arbitrary;
use commonhold_layout::{Offset, RecordKind, RecordTag};
use commonhold_space::{DirectoryError, FoundRecord, Mapped, Patience};
use commonhold_sync::{
    Barrier, Condvar, Event, Mutex, Once, Release, Semaphore, SeqLock, Start, Taken,
};

use super::{
    locks::{how, outside, write_alone},
    peer::Peer,
};

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum RecordDeed {
    /// Only opens the record, or makes it.
    Open {
        kind: u8,
    },
    /// Takes the mutex so often that it becomes biased. The last time it may keep it.
    Mutex {
        turns: u8,
        keeps: bool,
        done: bool,
    },
    UnlockMutex {
        done: bool,
    },
    ResetMutex,
    Read {
        keeps: bool,
    },
    /// As for the lock of a region.
    Write {
        turns: u8,
        keeps: bool,
        done: bool,
    },
    Once {
        completes: bool,
    },
    Signal {
        all: bool,
    },
    WaitEvent,
    WaitCondition,
    Acquire {
        keeps: bool,
        spends: bool,
    },
    Give,
    Join {
        arrives: bool,
        leaves: bool,
    },
    ReadSequence,
    WriteSequence {
        keeps: bool,
        done: bool,
    },
    ResetSequence,
}

/// How many words the largest record has here, including its tag and slots.
const WORDS: u64 = 8;
/// Slots of a semaphore or a barrier.
const PLACES: usize = 3;
const PLACES_SIZE: u32 = 24;

impl RecordDeed {
    pub(crate) fn run(self, peer: &Peer, mapped: &Mapped, word: u8) -> Result<(), DirectoryError> {
        let start = mapped.extent.start();
        let end = start.get().saturating_add(mapped.size);
        let Some(at) = start.plus(8 * u64::from(word & 15)) else { return Ok(()) };
        if at.get() + 8 * WORDS > end {
            return Ok(());
        }
        // A lazy region takes this memory at the first touch.
        let world = &peer.space.view().platform().world;
        if (0..WORDS).any(|word| !world.touch(at.get() + 8 * word)) {
            return Ok(());
        }
        let kind = self.kind();
        let size = if kind.has_places() { PLACES_SIZE } else { 8 };
        let wanted = RecordTag { kind, size };
        let found = peer.space.open_record(&peer.me()?, at, end, wanted, Patience::LEAST)?;
        if found != FoundRecord::Wanted {
            return Ok(());
        }
        match kind {
            RecordKind::Mutex => self.mutex(peer, at),
            RecordKind::RwLock => self.rwlock(peer, mapped, at),
            RecordKind::Semaphore | RecordKind::Barrier => self.places(peer, at),
            RecordKind::SeqLock => self.sequence(peer, at),
            _ => self.simple(peer, at),
        }
    }

    fn kind(self) -> RecordKind {
        match self {
            Self::Open { kind } => pick(&RecordKind::ALL, kind).unwrap_or(RecordKind::Mutex),
            Self::Mutex { .. } | Self::UnlockMutex { .. } | Self::ResetMutex => RecordKind::Mutex,
            Self::Read { .. } | Self::Write { .. } => RecordKind::RwLock,
            Self::Once { .. } => RecordKind::Once,
            Self::Signal { .. } | Self::WaitEvent => RecordKind::Event,
            Self::WaitCondition => RecordKind::Condvar,
            Self::Acquire { .. } | Self::Give => RecordKind::Semaphore,
            Self::Join { .. } => RecordKind::Barrier,
            Self::ReadSequence | Self::WriteSequence { .. } | Self::ResetSequence => {
                RecordKind::SeqLock
            }
        }
    }

    fn mutex(self, peer: &Peer, at: Offset) -> Result<(), DirectoryError> {
        let (me, view) = (peer.me()?, peer.space.view());
        let mutex = Mutex::new(view.window().word(at).map_err(outside)?, at);
        match self {
            Self::Mutex { turns, keeps, done } => {
                for turn in 0..=turns {
                    let hold = match mutex.lock_biased(&me) {
                        Some(hold) => hold,
                        None => match mutex.lock_biased_slowly(&me, view, Some(peer.deadline())) {
                            Ok(_) => mutex.hold(&me, me.owner().word()),
                            Err(_) => return Ok(()),
                        },
                    };
                    let _ = mutex.mark_consistent_biased(&me, hold);
                    if keeps && turn == turns {
                        return Ok(());
                    }
                    if !(done && mutex.unlock_biased(hold)) {
                        let _ = mutex.unlock_biased_slowly(&me, view, hold, how(done));
                    }
                }
            }
            Self::UnlockMutex { done } => drop(mutex.unlock(&me, view, how(done))),
            Self::ResetMutex => drop(mutex.reset(view)),
            _ => {}
        }
        Ok(())
    }

    fn rwlock(self, peer: &Peer, mapped: &Mapped, at: Offset) -> Result<(), DirectoryError> {
        let (me, view) = (peer.me()?, peer.space.view());
        let words = view.window().words(at).map_err(outside)?;
        let lock = view.record_lock(words, at, mapped.handle);
        let until = Some(peer.deadline());
        match self {
            Self::Read { keeps } => {
                if let Ok((_, hold)) = lock.read(&me, view, until)
                    && !keeps
                {
                    let _ = lock.unlock_read(&me, view, hold);
                }
            }
            Self::Write { turns, keeps, done } => write_alone(&lock, peer, turns, keeps, done)?,
            _ => {}
        }
        Ok(())
    }

    fn places(self, peer: &Peer, at: Offset) -> Result<(), DirectoryError> {
        let (me, view) = (peer.me()?, peer.space.view());
        let event = view.window().word(at).map_err(outside)?;
        let first = at.plus(16).unwrap_or(at);
        let places = view.window().run(first, PLACES).map_err(outside)?.words();
        let until = Some(peer.deadline());
        match self {
            Self::Acquire { keeps, spends } => {
                let semaphore = Semaphore::new(event, at, places);
                let _ = semaphore.available();
                match semaphore.acquire(&me, view, until) {
                    Ok((_, permit)) if spends => drop(semaphore.spend(&me, permit)),
                    Ok((_, permit)) if !keeps => {
                        let _ = semaphore.release(&me, view, permit, Release::Done);
                    }
                    _ => {}
                }
            }
            Self::Give => drop(Semaphore::new(event, at, places).give(&me, view)),
            Self::Join { arrives, leaves } => {
                let barrier = Barrier::new(event, at, places);
                let Ok((_, participant)) = barrier.join(&me, view) else { return Ok(()) };
                if arrives && let Ok(phase) = barrier.arrive(&me, view, participant) {
                    let _ = barrier.wait(&me, view, phase, until);
                }
                if leaves {
                    let _ = barrier.leave(&me, participant, Release::Done);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn sequence(self, peer: &Peer, at: Offset) -> Result<(), DirectoryError> {
        let (me, view) = (peer.me()?, peer.space.view());
        let lock = SeqLock::new(view.window().words(at).map_err(outside)?, at);
        let until = Some(peer.deadline());
        match self {
            Self::ReadSequence => drop(lock.read(|| Some(me.owner()), view, until, || ())),
            Self::WriteSequence { keeps, done } => {
                let Ok((_, writing)) = lock.write(&me, view, until) else { return Ok(()) };
                let Ok(writing) = lock.begin(&me, writing) else { return Ok(()) };
                if !keeps {
                    let _ = lock.unlock_write(&me, view, writing, how(done));
                }
            }
            Self::ResetSequence => drop(lock.reset(&me, view)),
            _ => {}
        }
        Ok(())
    }

    fn simple(self, peer: &Peer, at: Offset) -> Result<(), DirectoryError> {
        let (me, view) = (peer.me()?, peer.space.view());
        let word = view.window().word(at).map_err(outside)?;
        let until = Some(peer.deadline());
        match self {
            Self::Once { completes } => {
                let once = Once::new(word, at);
                match once.begin(&me, view, until) {
                    Ok(Start::Mine(_)) if completes => drop(once.complete(&me, view)),
                    Ok(Start::Mine(_)) => drop(once.give_back(&me, view)),
                    _ => {}
                }
            }
            Self::Signal { all: true } => Event::new(word, at).broadcast(&me, view),
            Self::Signal { all: false } => Event::new(word, at).signal(&me, view),
            Self::WaitEvent => {
                let event = Event::new(word, at);
                let _ = event.wait(&me, view, event.sequence(), until);
            }
            Self::WaitCondition => {
                // Its mutex lies in the words after it.
                let beside = at.plus(24).unwrap_or(at);
                let mutex = Mutex::new(view.window().word(beside).map_err(outside)?, beside);
                if let Ok(Taken::Clean | Taken::OwnerDied(_)) = mutex.lock(&me, view, until) {
                    let _ = Condvar::new(word, at).wait(&mutex, &me, view, until);
                    let _ = mutex.unlock(&me, view, Release::Done);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
