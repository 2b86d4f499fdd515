//! The peers that are not written in Rust: pthread locks, a futex, and POSIX shared memory.
//!
//! Implements [`Lock`] for each of them. The calls of the C library and the mapping are in `pthread`.

#[allow(unsafe_code, reason = "the C library is called")]
mod pthread;

use std::{fs::File, io, mem, path::Path, sync::atomic::Ordering, time::Duration};

use commonhold_console::{
    failure::{Doing, Failure, broken},
    workers::PATIENCE,
};
use rustix::{io::Errno, thread::futex};

use super::locks::{Counters, Found, Lock, TURN};
use pthread::{OnDeath, PthreadMutex, PthreadRwLock, Words};

/// Whether a worker makes the lock in its file, or opens the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Make,
    Open,
}

fn file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// A process-shared mutex.
#[derive(Debug)]
pub(super) struct Mutex(PthreadMutex);

/// A process-shared mutex that tells the next owner if the last one died.
pub(super) fn robust_mutex(path: &Path, start: Start) -> io::Result<Mutex> {
    mutex(path, start, OnDeath::Robust)
}

/// A process-shared mutex that stays locked if its owner dies.
pub(super) fn plain_mutex(path: &Path, start: Start) -> io::Result<Mutex> {
    mutex(path, start, OnDeath::Stuck)
}

fn mutex(path: &Path, start: Start, on_death: OnDeath) -> io::Result<Mutex> {
    let file = file(path)?;
    Ok(Mutex(match start {
        Start::Make => PthreadMutex::make(&file, on_death)?,
        Start::Open => PthreadMutex::open(&file, on_death)?,
    }))
}

#[cold]
fn failed(error: io::Error) -> Failure {
    match Err::<(), _>(error).doing(|| "take the peer's lock".to_owned()) {
        Err(failure) => failure,
        Ok(()) => broken("the peer's lock was not taken"),
    }
}

impl Lock for Mutex {
    type Counters<'a> = Words;

    #[inline]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let guard = self.0.lock().map_err(failed)?;
        inside(self.0.words())?;
        Ok(if guard.owner_died() { Found::OwnerDied } else { Found::Clean })
    }

    fn keep(&self) -> Result<(), Failure> {
        self.0.lock().map(mem::forget).map_err(failed)
    }

    fn await_turn(&self, side: u64) -> Result<(), Failure> {
        let guard = self.0.lock().map_err(failed)?;
        while self.0.words().get(TURN) != side {
            guard.wait().map_err(failed)?;
        }
        Ok(())
    }

    fn give_turn(&self, side: u64) -> Result<(), Failure> {
        let guard = self.0.lock().map_err(failed)?;
        self.0.words().set(TURN, 1 - side);
        drop(guard);
        self.0.signal().map_err(failed)
    }
}

/// A process-shared reader/writer lock.
#[derive(Debug)]
pub(super) struct RwLock(PthreadRwLock);

impl RwLock {
    pub(super) fn at(path: &Path, start: Start) -> io::Result<Self> {
        let file = file(path)?;
        Ok(Self(match start {
            Start::Make => PthreadRwLock::make(&file)?,
            Start::Open => PthreadRwLock::open(&file)?,
        }))
    }
}

impl Lock for RwLock {
    type Counters<'a> = Words;

    #[inline]
    fn write(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<Found, Failure> {
        let _guard = self.0.write().map_err(failed)?;
        inside(self.0.words()).map(|()| Found::Clean)
    }

    #[inline]
    fn read(&self, inside: impl FnOnce(&Words) -> Result<(), Failure>) -> Result<(), Failure> {
        let _guard = self.0.read().map_err(failed)?;
        inside(self.0.words())
    }
}

/// A futex word that says whose turn it is. It is not a lock, but the least that a hand-over to a sleeping process can
/// cost.
#[derive(Debug)]
pub(super) struct Futex(PthreadMutex);

/// The futex is shared between processes.
const BETWEEN_PROCESSES: futex::Flags = futex::Flags::empty();

impl Futex {
    pub(super) fn at(path: &Path, start: Start) -> io::Result<Self> {
        plain_mutex(path, start).map(|mutex| Self(mutex.0))
    }
}

impl Lock for Futex {
    type Counters<'a> = Words;

    fn await_turn(&self, side: u64) -> Result<(), Failure> {
        let word = self.0.turn();
        let (mine, theirs) = sides(side);
        let patience = Duration::from_secs(PATIENCE.as_secs()).try_into().ok();
        // Acquire: pairs with the Release in `give_turn`, as in a lock.
        while word.load(Ordering::Acquire) != mine {
            match futex::wait(word, BETWEEN_PROCESSES, theirs, patience.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn give_turn(&self, side: u64) -> Result<(), Failure> {
        let (_, theirs) = sides(side);
        // Release: pairs with the Acquire in `await_turn`.
        self.0.turn().store(theirs, Ordering::Release);
        let woken = futex::wake(self.0.turn(), BETWEEN_PROCESSES, 1);
        woken.map(drop).map_err(|error| failed(error.into()))
    }
}

/// The values of the word for this side's turn and for the other side's turn.
const fn sides(side: u64) -> (u32, u32) {
    if side == 0 { (0, 1) } else { (1, 0) }
}

/// Creates, maps, touches, unmaps and removes a POSIX shared memory object; `name` is without the slash.
pub(super) fn shm_cycle(name: &str, bytes: usize) -> io::Result<()> {
    pthread::shm_cycle(name, bytes)
}
