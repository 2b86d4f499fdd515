//! The writers' side: how a writer takes its word, and then waits for the readers that are inside.

use commonhold_layout::{Owner, PeerId, ShareWord, ThreadId};
use commonhold_window::{Point, atomic::Ordering};

use super::{RwLock, Shares};
use crate::{
    FIRST_SLICE_NS, Liveness, LockError, Park, Release, SLICE_NS, Taken, Thread, Verdict,
    store_then_load, thread::reading, wait::Watch,
};

/// What [`RwLock::write_quickly`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum QuickWrite<H> {
    /// The lock is the thread's, which holds it like this.
    Taken(H),
    /// The lock is not taken: [`RwLock::write_biased_slowly`] must follow.
    NotTaken,
    /// The word names the thread, but a peer has just begun to read for the first time: the thread must
    /// [give the word back](RwLock::unlock_write) before it calls [`RwLock::write_biased_slowly`].
    TakenWithReaders,
}

/// How a writer knows of the reader that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// By a word of the reader's own thread slot.
    Itself,
    /// By the share word of its peer: some thread of this peer reads.
    Peer,
}

impl<S: Shares> RwLock<'_, S> {
    /// Takes the writer's word by `take` if no peer has ever read. `is_alone` says of how it was taken that no reader
    /// can be inside.
    #[inline]
    pub(super) fn write_unread<H>(
        &self,
        take: impl FnOnce() -> Option<H>,
        is_alone: impl FnOnce(&H) -> bool,
    ) -> QuickWrite<H> {
        if self.words[1].load(Ordering::Relaxed) != 0 {
            return QuickWrite::NotTaken;
        }
        let Some(hold) = take() else { return QuickWrite::NotTaken };
        if is_alone(&hold) {
            return QuickWrite::Taken(hold);
        }
        store_then_load();
        // SeqCst: see `write_slowly`.
        match self.words[1].load(Ordering::SeqCst) {
            0 => QuickWrite::Taken(hold),
            _ => QuickWrite::TakenWithReaders,
        }
    }

    /// Takes the lock to write, waiting until `deadline`, or for ever; `Some(0)` does not wait. Then the word names the
    /// thread as its owner: [`write_quickly`](Self::write_quickly) is for threads that write often.
    ///
    /// # Errors
    /// [`LockError`]; `Deadlock` also if the thread itself holds the lock to read, in one of its words.
    #[inline]
    pub fn write(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        match self.write_unread(|| self.writer().lock_quickly(me).then_some(()), |()| false) {
            QuickWrite::Taken(()) => return Ok(Taken::Clean),
            // Fails only if this thread is fenced.
            QuickWrite::TakenWithReaders => self.unlock_write(me, env, Release::Done)?,
            QuickWrite::NotTaken => {}
        }
        self.write_slowly(me, env, deadline)
    }

    /// As [`write`](Self::write), in the case that peers read, or have read.
    pub(super) fn write_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        if me.reads(self.key) {
            // The thread would wait for itself, or for a writer that waits for it.
            return Err(LockError::Deadlock);
        }
        let taken = self.writer().lock(me, env, deadline)?;
        store_then_load();
        // SeqCst: pairs with the readers' announcements, which come before their look at the writer's
        // word.
        let mask = self.words[1].load(Ordering::SeqCst);
        if mask != 0
            && let Err(error) = self.drain(me, env, mask, deadline)
        {
            return self.retreat(me, env, taken, error);
        }
        Ok(taken)
    }

    /// Gives back the write lock whose word names the thread.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it.
    #[inline]
    pub fn unlock_write(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        how: Release,
    ) -> Result<(), LockError> {
        self.writer().unlock(me, env, how)
    }

    /// Waits, with the writer's word taken, until no living peer reads.
    #[cold]
    pub(crate) fn drain(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        mask: u64,
        deadline: Option<u64>,
    ) -> Result<(), LockError> {
        let (mut turn, mut last) = (0, None);
        let mut watch = Watch::default();
        loop {
            let number = self.drained().sequence();
            let Some((reader, reads)) = self.some_reader(mask) else { return Ok(()) };
            Point::WriteDraining.reached();
            if deadline != Some(0) && env.spin(self.drained().word(), turn) {
                turn += 1;
                continue;
            }
            let now = env.now();
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let plan = watch.plan(reader, env.death_notice(reader), now, late);
            let dead = plan.look && env.verdict(reader) == Verdict::Dead;
            if dead || (plan.slice_ns == 0 && !late) {
                env.yield_now();
                continue;
            }
            // A reader that leaves may miss this writer: see `rwlock.rs`.
            let most = if last == Some(reader) { SLICE_NS } else { FIRST_SLICE_NS };
            let slice = plan.slice_ns.min(most);
            last = Some(reader);
            let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(slice));
            if late {
                return Err(LockError::TimedOut);
            }
            if reads == Reads::Itself && env.is_same_thread(me.owner(), reader) {
                // The thread reads by another attachment, and would wait for itself.
                return Err(LockError::Deadlock);
            }
            if self.drained().wait_for(reader, me, env, number, until) == Err(LockError::Fenced) {
                return Err(LockError::Fenced);
            }
        }
    }

    /// Gives the writer's word back as it was found, and returns the error `why`.
    fn retreat(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        taken: Taken,
        why: LockError,
    ) -> Result<Taken, LockError> {
        self.writer().unlock(me, env, Release::unchanged(taken))?;
        Err(why)
    }

    /// A living thread that reads, or whose peer does.
    fn some_reader(&self, mask: u64) -> Option<(Owner, Reads)> {
        (0..self.shares.peers())
            .filter(|slot| mask & (1 << (slot % 64)) != 0)
            .map(PeerId::new)
            .find_map(|peer| self.reader_of(peer))
    }

    fn reader_of(&self, peer: PeerId) -> Option<(Owner, Reads)> {
        if let Some(word) = self.shares.share(peer) {
            // SeqCst: pairs with the readers' counts.
            let share = ShareWord::from_word(word.load(Ordering::SeqCst));
            if share.readers() > 0
                && share.generation() == self.shares.generation(peer)
                // The share does not say which thread of the peer reads. If none lives, none does.
                && let Some(reader) = self.living_thread(peer)
            {
                return Some((reader, Reads::Peer));
            }
        }
        readers_by_word(&self.shares, peer, self.key).next().map(|reader| (reader, Reads::Itself))
    }

    fn living_thread(&self, peer: PeerId) -> Option<Owner> {
        let mut threads = (0..self.shares.threads(peer)).filter_map(ThreadId::new);
        threads.find_map(|thread| self.shares.owner(peer, thread))
    }
}

/// The living threads of a peer that hold the lock with this key to read, each once for every read lock.
fn readers_by_word<S: Shares>(
    shares: &S,
    peer: PeerId,
    key: u64,
) -> impl Iterator<Item = Owner> + '_ {
    (0..shares.threads(peer)).filter_map(ThreadId::new).flat_map(move |thread| {
        // The owner of the slot is read first: a thread that is ready has cleared what an earlier one left in the
        // slot. A thread that gets the slot later finds the writer, since it looks for one after it has written its
        // word.
        let owner = shares.owner(peer, thread);
        let words = owner.and_then(|_| shares.thread(peer, thread)).into_iter().flat_map(reading);
        // SeqCst: pairs with the reader's swap (Dekker); as Acquire, with its Release store when it leaves.
        words.filter(move |word| word.load(Ordering::SeqCst) == key).filter_map(move |_| owner)
    })
}
