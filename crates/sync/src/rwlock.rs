//! The reader/writer lock: a writer's word, and readers counted by peer.
//!
//! A reader counts itself in its own peer's share word and then looks for a writer; a writer takes its
//! word and then looks for readers (Dekker's pattern, so one of them always sees the other). Readers
//! of different peers share no line that they write, and a dead reader is known by the identity in its
//! share: it is not waited for, and nobody has to clean up after it.
//!
//! A bit mask of peers (slot modulo 64) that ever read keeps writers from looking at all shares. Bits
//! are set before the first count and never cleared.
//!
//! Neither side starves: readers that come while a writer has, or waits for, its word stand back, and
//! a reader that has lost its turn too often raises the same flag as a writer would.

use commonhold_layout::{
    LockFlags, LockWord, Owner, PeerId, PendingKind, ShareError, ShareWord, ThreadId,
};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Event, FIRST_SLICE_NS, Liveness, LockError, Mutex, Park, Release, SLICE_NS, Taken, Thread,
    Verdict, Wake, store_then_load,
    wait::{Step, Wait},
};

/// Where the readers of one lock are counted.
pub trait Shares {
    /// Slots from here on have never had a peer.
    fn peers(&self) -> u16;

    /// The share word of `peer` in what the lock protects; `None` if it has never had one.
    fn share(&self, peer: PeerId) -> Option<&AtomicU64>;
}

/// A reader/writer lock.
#[derive(Debug, Clone, Copy)]
pub struct RwLock<'a, S> {
    /// The word of its writer.
    pub writer: Mutex<'a>,
    /// Which peers may have read.
    pub readers: &'a AtomicU64,
    /// Moved by readers that leave while a writer waits.
    pub drained: Event<'a>,
    /// The caller's own share word.
    pub own: &'a AtomicU64,
    /// Everybody's.
    pub shares: S,
}

impl<S: Shares> RwLock<'_, S> {
    /// Takes the lock to read, waiting until `deadline`, or for ever; `Some(0)` does not wait.
    ///
    /// With [`Taken::OwnerDied`] the lock is held, and what is read may be half changed; only a writer
    /// can repair it.
    ///
    /// # Errors
    /// [`LockError`].
    #[inline]
    pub fn read(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        self.announce_reader(me);
        self.count(me, ShareWord::read)?;
        Point::ReadCounted.reached();
        store_then_load();
        if self.writer.look() == LockWord::FREE && me.is_live() {
            return Ok(Taken::Clean);
        }
        self.read_slow(me, env, deadline)
    }

    /// Gives a read lock back.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the peer holds none any more.
    #[inline]
    pub fn unread(&self, me: &Thread<'_>, env: &impl Park) -> Result<(), LockError> {
        self.count(me, ShareWord::unread)?;
        Point::ReadUncounted.reached();
        store_then_load();
        if self.writer.look().is_owned() {
            self.drained.broadcast(me, env);
        }
        Ok(())
    }

    /// Takes the lock to write, waiting until `deadline`, or for ever; `Some(0)` does not wait.
    ///
    /// # Errors
    /// [`LockError`].
    #[inline]
    pub fn write(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        let taken = self.writer.lock(me, env, deadline)?;
        store_then_load();
        // SeqCst: pairs with the readers' announcements and counts, which come before their look at
        // the writer's word.
        let mask = self.readers.load(Ordering::SeqCst);
        if mask != 0 {
            self.drain(me, env, mask, taken, deadline)?;
        }
        Ok(taken)
    }

    /// Gives the write lock back.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it.
    #[inline]
    pub fn unwrite(&self, me: &Thread<'_>, env: &impl Park, how: Release) -> Result<(), LockError> {
        self.writer.unlock(me, env, how)
    }

    #[inline]
    fn announce_reader(&self, me: &Thread<'_>) {
        let bit = 1_u64 << (me.owner().peer().get() % 64);
        // SeqCst: in one order with our look at the writer and the writer's look at the mask, also
        // where another thread set the bit.
        if self.readers.load(Ordering::SeqCst) & bit == 0 {
            self.readers.fetch_or(bit, Ordering::SeqCst);
            Point::ReadMarked.reached();
        }
    }

    #[inline]
    fn count(
        &self,
        me: &Thread<'_>,
        change: impl Fn(ShareWord) -> Result<ShareWord, ShareError>,
    ) -> Result<(), LockError> {
        let mut seen = self.own.load(Ordering::Relaxed);
        loop {
            let share = ShareWord::from_word(seen).of(me.owner().generation())?;
            let changed = change(share)?.word();
            // SeqCst: as Release it pairs with the writer's scan, so that what we read stays before what
            // it writes; and our look at the writer comes after it (Dekker).
            match self.own.compare_exchange_weak(seen, changed, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Entered with the reader counted; left so only on success.
    #[cold]
    fn read_slow(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        let mut wait = Wait::default();
        let result = loop {
            let seen = self.writer.look();
            if !me.is_live() {
                self.unread(me, env)?;
                break Err(LockError::Fenced);
            }
            if !seen.is_owned() {
                break self.enter(me, env, seen, &wait);
            }
            self.unread(me, env)?;
            if let Err(error) = self.await_writer(me, env, deadline, &mut wait) {
                if wait.parked {
                    self.writer.wake(env, Wake::One);
                }
                break Err(error);
            }
            self.count(me, ShareWord::read)?;
            Point::ReadCounted.reached();
            store_then_load();
        };
        me.done();
        result
    }

    /// The reader is counted and there is no writer.
    fn enter(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        seen: LockWord,
        wait: &Wait,
    ) -> Result<Taken, LockError> {
        if seen.flags().contains(LockFlags::UNRECOVERABLE) {
            self.unread(me, env)?;
            return Err(LockError::Unrecoverable);
        }
        if wait.raised {
            // If the word has changed, whoever changed it deals with the flag.
            self.writer.swap(seen, seen.with_flags(seen.flags().without(LockFlags::STARVING)));
        }
        if wait.parked {
            // The wake-up that freed us may have been meant for others too: readers pass it on.
            self.writer.wake(env, Wake::One);
        }
        Ok(if seen.flags().contains(LockFlags::INCONSISTENT) {
            Taken::OwnerDied
        } else {
            Taken::Clean
        })
    }

    /// Waits, not counted, until there may be no writer.
    fn await_writer(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        wait: &mut Wait,
    ) -> Result<(), LockError> {
        loop {
            let seen = self.writer.look();
            let Some(owner) = seen.owner() else { return Ok(()) };
            let kind = PendingKind::Shared;
            match self.writer.await_owner(kind, seen, owner, me, env, deadline, wait)? {
                Step::Again => {}
                Step::Dead => self.drop_dead_writer(env, seen),
                Step::Sleep(expected, until) => {
                    self.writer.sleep(env, expected, until);
                    wait.slept();
                }
            }
        }
    }

    /// Takes the word from a fenced writer, for nobody: what it protects may be half changed.
    fn drop_dead_writer(&self, env: &impl Park, seen: LockWord) {
        let flags = seen.flags().only(LockFlags::STARVING).with(LockFlags::INCONSISTENT);
        if self.writer.swap(seen, LockWord::unowned(flags)) {
            Point::LockTakenOver.reached();
            self.writer.wake(env, Wake::All);
        }
    }

    /// Waits, with the writer's word taken, until no living peer reads.
    #[cold]
    fn drain(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        mask: u64,
        taken: Taken,
        deadline: Option<u64>,
    ) -> Result<(), LockError> {
        let mut turn = 0;
        let mut stuck: Option<Owner> = None;
        loop {
            let number = self.drained.sequence();
            let Some(reader) = self.some_reader(env, mask) else { return Ok(()) };
            Point::WriteDraining.reached();
            if deadline != Some(0) && env.spin(turn) {
                turn += 1;
                continue;
            }
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            if (late || stuck == Some(reader)) && env.verdict(reader) == Verdict::Dead {
                continue;
            }
            let slice = if stuck == Some(reader) { SLICE_NS } else { FIRST_SLICE_NS };
            stuck = Some(reader);
            let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(slice));
            let gone = if late {
                Err(LockError::TimedOut)
            } else {
                match self.drained.wait(me, env, number, Some(until)) {
                    Err(LockError::Fenced) => Err(LockError::Fenced),
                    _ => Ok(()),
                }
            };
            if let Err(error) = gone {
                let how = match taken {
                    Taken::Clean => Release::Done,
                    Taken::OwnerDied => Release::Inconsistent,
                };
                self.writer.unlock(me, env, how)?;
                return Err(error);
            }
        }
    }

    /// A peer that reads and has not been fenced.
    fn some_reader(&self, env: &impl Liveness, mask: u64) -> Option<Owner> {
        (0..self.shares.peers())
            .filter(|slot| mask & (1 << (slot % 64)) != 0)
            .map(PeerId::new)
            .find_map(|peer| {
                // SeqCst: pairs with the readers' counts.
                let share = ShareWord::from_word(self.shares.share(peer)?.load(Ordering::SeqCst));
                let reader = Owner::new(peer, share.generation(), ThreadId::FIRST)?;
                (share.readers() > 0 && env.is_current(reader)).then_some(reader)
            })
    }
}
