//! The operations of a peer on the lock of a region that it maps.

use arbitrary::Arbitrary;
use commonhold_layout::Damage;
use commonhold_space::{DirectoryError, Mapped};
use commonhold_sync::{QuickWrite, Release, RwLock, Shares, Taken};

use super::peer::Peer;

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum LockDeed {
    /// Takes the lock to read, and may give it back.
    Read {
        waits: bool,
        keeps: bool,
    },
    Write {
        waits: bool,
    },
    /// Writes so often that the lock becomes biased. The last time it may keep it.
    WriteAlone {
        turns: u8,
        keeps: bool,
        done: bool,
    },
    /// Releases the lock, whether it holds it or not.
    Unwrite {
        done: bool,
    },
    Upgradable {
        waits: bool,
        upgrades: bool,
        keeps: bool,
    },
    MarkConsistent,
    Reset,
    WakeWriter,
}

pub(crate) const fn how(done: bool) -> Release {
    if done { Release::Done } else { Release::Inconsistent }
}

impl LockDeed {
    pub(crate) fn run(self, peer: &Peer, mapped: &Mapped) -> Result<(), DirectoryError> {
        let me = peer.me()?;
        let view = peer.space.view();
        let words = view.lock_words(mapped)?;
        let lock = view.lock_of(mapped, words);
        let until = |waits: bool| Some(if waits { peer.deadline() } else { 0 });
        match self {
            Self::Read { waits, keeps } => {
                if let Ok((_, hold)) = lock.read(&me, view, until(waits))
                    && !keeps
                {
                    let _ = lock.unlock_read(&me, view, hold);
                }
            }
            Self::Write { waits } => {
                if let Ok(Taken::OwnerDied(_)) = lock.write(&me, view, until(waits)) {
                    let _ = lock.writer().mark_consistent(&me);
                }
            }
            Self::WriteAlone { turns, keeps, done } => {
                write_alone(&lock, peer, turns, keeps, done)?;
            }
            Self::Unwrite { done } => drop(lock.unlock_write(&me, view, how(done))),
            Self::Upgradable { waits, upgrades, keeps } => {
                let Ok(taken) = lock.upgradable_read(&me, view, until(waits)) else {
                    return Ok(());
                };
                if upgrades && lock.upgrade(&me, view, until(waits)).is_ok() {
                    let _ = lock.downgrade(&me, view, Release::Done);
                }
                if !keeps {
                    let _ = lock.unlock_upgradable(&me, view, taken);
                }
            }
            Self::MarkConsistent => drop(lock.writer().mark_consistent(&me)),
            Self::Reset => drop(lock.writer().reset(view)),
            Self::WakeWriter => lock.wake_writer(&me, view),
        }
        Ok(())
    }
}

/// Takes and frees a lock to write, as one that may be biased.
pub(crate) fn write_alone<S: Shares>(
    lock: &RwLock<'_, S>,
    peer: &Peer,
    turns: u8,
    keeps: bool,
    done: bool,
) -> Result<(), DirectoryError> {
    let (me, view) = (peer.me()?, peer.space.view());
    let writer = lock.writer();
    for turn in 0..=turns {
        let hold = match lock.write_quickly(&me, writer.entry()) {
            QuickWrite::Taken(hold) => hold,
            quick => {
                if let QuickWrite::TakenWithReaders = quick {
                    let _ = lock.unlock_write(&me, view, Release::Done);
                }
                if lock.write_biased_slowly(&me, view, Some(peer.deadline())).is_err() {
                    return Ok(());
                }
                writer.hold(&me, me.owner().word())
            }
        };
        let _ = writer.mark_consistent_biased(&me, hold);
        if keeps && turn == turns {
            return Ok(());
        }
        if !(done && lock.unlock_write_quickly(hold)) {
            let _ = lock.unlock_write_slowly(&me, view, hold, how(done));
        }
    }
    Ok(())
}

/// An error that cannot happen: the offset of the word was checked before.
pub(crate) fn outside(error: commonhold_window::OutOfWindow) -> DirectoryError {
    Damage::new("an offset", error.offset).into()
}
