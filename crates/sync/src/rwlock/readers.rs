//! The readers' side: how a reader announces itself, waits while a writer keeps it out, and leaves.

use commonhold_layout::{LockFlags, LockWord, Owner, PeerRef, ShareError, ShareWord};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use super::{RwLock, Shares};
use crate::{
    Liveness, LockError, Park, Taken, Thread, Wake, store_then_load,
    wait::{Step, Waiter},
};

/// How a read lock is held: what to give to [`RwLock::unlock_read`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub enum ReadHold<'a> {
    /// The key lies in this word of the thread.
    Word(&'a AtomicU64),
    /// It is counted in the share word of the peer.
    Share,
}

impl<S: Shares> RwLock<'_, S> {
    /// Takes the lock to read if no writer has it and the peer has read before: the common case of
    /// [`read`](Self::read), small enough to be inlined wherever a lock is taken. Returns the word that holds
    /// the key. `None`: [`read`](Self::read) must follow.
    #[inline]
    pub fn read_quickly<'t>(&self, me: &Thread<'t>) -> Option<&'t AtomicU64> {
        if self.words[1].load(Ordering::SeqCst) & reader_bit(me) == 0 {
            return None;
        }
        let word = me.free_reading()?;
        // SeqCst, and a swap rather than a store: our look at the writer comes after it (Dekker).
        word.swap(self.key, Ordering::SeqCst);
        Point::ReadCounted.reached();
        store_then_load();
        if self.writer().look().welcomes_readers() && me.is_live() {
            return Some(word);
        }
        word.store(0, Ordering::Release);
        None
    }

    /// Gives back a read lock that [`read_quickly`](Self::read_quickly) took. The peer must be known to be live.
    /// `false`: a writer may be waiting, and [`wake_writer`](Self::wake_writer) must follow.
    #[inline]
    pub fn unlock_read_quickly(&self, word: &AtomicU64) -> bool {
        // Release: pairs with the writer's load in `readers_by_word`; our reads stay before its writes.
        word.store(0, Ordering::Release);
        Point::ReadUncounted.reached();
        // For loom only, where no slice ends a sleep, only a wake-up: see `rwlock.rs`.
        store_then_load();
        !self.writer().look().is_exclusive()
    }

    /// Wakes a writer that waits for readers to leave.
    #[cold]
    pub fn wake_writer(&self, me: &Thread<'_>, env: &impl Park) {
        self.drained().broadcast(me, env);
    }

    /// Takes the lock to read, waiting until `deadline`, or for ever; `Some(0)` does not wait.
    ///
    /// With [`Taken::OwnerDied`] the lock is held, and what is read may be half changed; only a writer
    /// can repair it.
    ///
    /// # Errors
    /// [`LockError`].
    #[inline]
    pub fn read<'t>(
        &self,
        me: &Thread<'t>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<(Taken, ReadHold<'t>), LockError> {
        if let Some(word) = self.read_quickly(me) {
            return Ok((Taken::Clean, ReadHold::Word(word)));
        }
        self.announce_reader(me);
        let hold = self.enlist(me)?;
        self.read_slow(me, env, hold, deadline)
    }

    /// Gives a read lock back.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the peer has been declared dead, or holds none.
    #[inline]
    pub fn unlock_read(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        hold: ReadHold<'_>,
    ) -> Result<(), LockError> {
        let quiet = match hold {
            // If the peer is fenced, the word may belong to the next thread of the slot.
            ReadHold::Word(_) if !me.is_live() => return Err(LockError::Fenced),
            ReadHold::Word(word) => self.unlock_read_quickly(word),
            ReadHold::Share => {
                self.count(me, ShareWord::unlock_read)?;
                Point::ReadUncounted.reached();
                store_then_load();
                !self.writer().look().is_exclusive()
            }
        };
        if !quiet {
            self.wake_writer(me, env);
        }
        Ok(())
    }

    #[inline]
    fn announce_reader(&self, me: &Thread<'_>) {
        let bit = reader_bit(me);
        // SeqCst: in one order with our look at the writer and the writer's look at the mask, also
        // if another thread has set the bit.
        if self.words[1].load(Ordering::SeqCst) & bit == 0 {
            self.words[1].fetch_or(bit, Ordering::SeqCst);
            Point::ReadMarked.reached();
        }
    }

    /// Makes the reader visible to writers.
    #[inline]
    fn enlist<'t>(&self, me: &Thread<'t>) -> Result<ReadHold<'t>, LockError> {
        let hold = match me.free_reading() {
            Some(word) => {
                // SeqCst, and a swap rather than a store: our look at the writer comes after it
                // (Dekker).
                word.swap(self.key, Ordering::SeqCst);
                ReadHold::Word(word)
            }
            None => {
                self.count(me, ShareWord::read)?;
                ReadHold::Share
            }
        };
        Point::ReadCounted.reached();
        store_then_load();
        Ok(hold)
    }

    #[cold]
    fn count(
        &self,
        me: &Thread<'_>,
        change: impl Fn(ShareWord) -> Result<ShareWord, ShareError>,
    ) -> Result<(), LockError> {
        let peer = me.owner().peer();
        if !me.is_live() {
            return Err(LockError::Fenced);
        }
        self.count_for(PeerRef::new(peer, self.shares.generation(peer)), change)
    }

    fn count_for(
        &self,
        of: PeerRef,
        change: impl Fn(ShareWord) -> Result<ShareWord, ShareError>,
    ) -> Result<(), LockError> {
        let own = self.shares.share(of.peer).ok_or(LockError::TooManyReaders)?;
        let mut seen = own.load(Ordering::Relaxed);
        loop {
            let share = ShareWord::from_word(seen).of(of.generation)?;
            let changed = change(share)?.word();
            // SeqCst: as Release it pairs with the writer's scan, so that our reads stay before its
            // writes; and our look at the writer comes after it (Dekker).
            match own.compare_exchange_weak(seen, changed, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back a read lock that is counted in the share of the peer `of`, and whose thread ended without giving it
    /// back. Only that peer can know this: the share does not name threads.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the peer has been declared dead, or holds none.
    pub fn uncount_ended(&self, of: PeerRef, env: &impl Park) -> Result<(), LockError> {
        if self.shares.share(of.peer).is_none() {
            // A peer that never had a share holds none.
            return Err(LockError::Fenced);
        }
        self.count_for(of, ShareWord::unlock_read)?;
        Point::ReadUncounted.reached();
        self.drained().advance_unannounced(env);
        Ok(())
    }

    /// Waits until the reader may come in. It is enlisted when this is called, and when this succeeds.
    #[cold]
    fn read_slow<'t>(
        &self,
        me: &Thread<'t>,
        env: &(impl Park + Liveness),
        mut hold: ReadHold<'t>,
        deadline: Option<u64>,
    ) -> Result<(Taken, ReadHold<'t>), LockError> {
        let mut waiter = Waiter::to_read(me, env, deadline);
        let result = loop {
            let (seen, writer) = self.look_for_writer(me, env);
            if !me.is_live() {
                break Err(LockError::Fenced);
            }
            if writer.is_none() {
                break match self.enter(seen, &waiter) {
                    Ok(taken) => Ok((taken, hold)),
                    Err(error) => self.unlock_read(me, env, hold).and(Err(error)),
                };
            }
            if let Err(error) = self.unlock_read(me, env, hold) {
                break Err(error);
            }
            if let Err(error) = self.await_writer(&mut waiter) {
                if waiter.parked {
                    self.writer().wake(env, Wake::One);
                }
                break Err(error);
            }
            hold = match self.enlist(me) {
                Ok(hold) => hold,
                Err(error) => break Err(error),
            };
        };
        me.done();
        result
    }

    /// Comes in: the reader is enlisted, and `seen` names no writer.
    fn enter(&self, seen: LockWord, waiter: &Waiter<'_, impl Park>) -> Result<Taken, LockError> {
        if waiter.raised {
            // If the word has changed, the thread that changed it deals with the flag.
            self.writer().swap(seen, seen.with_flags(seen.flags().without(LockFlags::STARVING)));
        }
        if waiter.parked {
            // The wake-up that ended our sleep may have been meant for others too: readers pass it on.
            self.writer().wake(waiter.env, Wake::One);
        }
        if seen.is_unrecoverable() {
            return Err(LockError::Unrecoverable);
        }
        Ok(Taken::told_by(seen.flags(), seen.left_by()))
    }

    /// Waits, not enlisted, until the word names no writer.
    fn await_writer(&self, waiter: &mut Waiter<'_, impl Park + Liveness>) -> Result<(), LockError> {
        let env = waiter.env;
        loop {
            let (seen, Some(owner)) = self.look_for_writer(waiter.me, env) else { return Ok(()) };
            match self.writer().await_owner(seen, owner, waiter)? {
                Step::Again => {}
                // The thread may have left, by its bias, just before it died.
                Step::Dead if self.writer().owner(seen, env).is_none() => {}
                Step::Dead => self.drop_dead_writer(env, seen, owner),
                Step::Sleep(expected, owner, until) => {
                    self.writer().sleep(env, expected, owner, until);
                    waiter.slept();
                }
            }
        }
    }

    /// Frees the word of a dead writer, as inconsistent: what it protects may be half changed.
    fn drop_dead_writer(&self, env: &impl Park, seen: LockWord, dead: Owner) {
        let flags = seen.flags().only(LockFlags::STARVING).with(LockFlags::INCONSISTENT);
        if self.writer().swap(seen, LockWord::left(dead, flags)) {
            Point::LockTakenOver.reached();
            self.writer().wake(env, Wake::All);
        }
    }
}

/// The bit of a thread's peer in the mask of peers that may have read.
#[inline]
fn reader_bit(me: &Thread<'_>) -> u64 {
    1 << (me.owner().peer().get() % 64)
}
