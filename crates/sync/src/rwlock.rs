//! The reader/writer lock: a writer's word, and readers known by thread and by peer.
//!
//! A reader writes the lock's key into a word of its own thread slot and then looks for a writer; a
//! writer takes its word and then looks for readers (Dekker's pattern, so one of them always sees the
//! other). Readers share no line that they write, one locked instruction is all it costs, and a dead
//! reader is known by the identity of whose word it is: it is not waited for, and nobody has to clean
//! up after it. (The idea of a table of visible readers is that of BRAVO, Dice and Kogan, USENIX ATC
//! 2019.) A thread that holds more locks to read than it has words is counted in its peer's share word.
//!
//! A bit mask of peers (slot modulo 64) that ever read keeps writers from looking at everybody. Bits
//! are set before the first read lock and never cleared.
//!
//! A reader that leaves looks for a waiting writer without a fence: the processor may look before the
//! others see that it has left. A writer that has been missed so sleeps to the end of its slice, which is
//! 1 ms for a reader that it has not waited for before and 20 ms then; it is the price of a release that is
//! one plain store.
//!
//! Neither side starves: readers that come while a writer has, or waits for, its word stand back, and
//! a reader that has lost its turn too often raises the same flag as a writer would.

use commonhold_layout::{
    LockFlags, LockWord, Offset, Owner, PeerId, PeerRef, PendingKind, ShareError, ShareWord,
    ThreadId, thread_word,
};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Event, FIRST_SLICE_NS, Liveness, LockError, Mutex, Park, Release, SLICE_NS, Taken, Thread,
    Verdict, Wake, store_then_load,
    thread::reading,
    wait::{Step, Wait, Watch},
};

/// Where those who read under one lock are known.
pub trait Shares {
    /// Slots from here on have never had a peer.
    fn peers(&self) -> u16;

    /// Which peer has the slot now; 0 if none that counts.
    fn generation(&self, peer: PeerId) -> u32;

    /// Who has a thread slot now, if that thread and its peer count among the living.
    fn owner(&self, peer: PeerId, thread: ThreadId) -> Option<Owner>;

    /// The share word of `peer` in what the lock protects; `None` if it has never had one.
    fn share(&self, peer: PeerId) -> Option<&AtomicU64>;

    /// Thread slots of `peer` from here on are not in use.
    fn threads(&self, peer: PeerId) -> u16;

    /// A thread slot of `peer`.
    fn thread(&self, peer: PeerId, thread: ThreadId) -> Option<&[AtomicU64; thread_word::COUNT]>;
}

/// How a read lock is held: what to give to [`RwLock::unread`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub enum Hold<'a> {
    /// The key lies in this word of the thread.
    Word(&'a AtomicU64),
    /// It is counted in the share word of the peer.
    Share,
}

/// Who it is that reads, of a thread that a writer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// The thread: its own word says so.
    Itself,
    /// Some thread of its peer, which counts them.
    Peer,
}

/// What [`RwLock::write_quickly`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum QuickWrite {
    /// The lock is the thread's.
    Taken,
    /// It takes more than this: [`RwLock::write`] must follow.
    NotTaken,
    /// The word is the thread's, but somebody reads for the first time at this very moment: the thread must
    /// [give the word back](RwLock::unwrite) before [`RwLock::write`].
    TakenWithReaders,
}

/// A reader/writer lock.
#[derive(Debug, Clone, Copy)]
pub struct RwLock<'a, S> {
    words: &'a [AtomicU64; 3],
    at: Offset,
    key: u64,
    shares: S,
}

impl<'a, S: Shares> RwLock<'a, S> {
    /// The lock with three words at offset `at`: the writer's, the mask of peers that may have read,
    /// and the event that readers move when they leave while a writer waits. `key`, not 0, tells it from
    /// every other lock whose readers use the same thread slots.
    #[inline]
    pub const fn new(words: &'a [AtomicU64; 3], at: Offset, key: u64, shares: S) -> Self {
        Self { words, at, key, shares }
    }

    /// What stands in a thread's words for a read lock of this.
    #[inline]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// The writer's side, as a mutex.
    #[inline]
    pub const fn writer(&self) -> Mutex<'a> {
        Mutex::new(&self.words[0], self.at)
    }

    pub(crate) const fn word(&self) -> &'a AtomicU64 {
        &self.words[0]
    }

    pub(crate) const fn mask(&self) -> &'a AtomicU64 {
        &self.words[1]
    }

    pub(crate) const fn at(&self) -> Offset {
        self.at
    }

    #[inline]
    const fn drained(&self) -> Event<'a> {
        let at = match self.at.plus(16) {
            Some(at) => at,
            None => self.at,
        };
        Event::new(&self.words[2], at)
    }

    /// Takes the lock to read if nobody writes and the peer has read before: the common case of
    /// [`read`](Self::read), small enough to stand wherever a lock is taken. Returns the word that holds
    /// it. `None` says only that it takes more than this, and [`read`](Self::read) must follow.
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

    /// Gives back what [`read_quickly`](Self::read_quickly) took, of a peer that is known to be live.
    /// `false`: a writer may be waiting, and [`wake_writer`](Self::wake_writer) must follow.
    #[inline]
    pub fn unread_quickly(&self, word: &AtomicU64) -> bool {
        // Release: what we read stays before what the next writer writes.
        word.store(0, Ordering::Release);
        Point::ReadUncounted.reached();
        // For loom only, whose sleeps end by a wake-up and never by a slice: see the head of this file.
        store_then_load();
        !self.writer().look().is_exclusive()
    }

    /// Wakes a writer that waits for readers to leave.
    #[cold]
    pub fn wake_writer(&self, me: &Thread<'_>, env: &impl Park) {
        self.drained().broadcast(me, env);
    }

    /// Takes the lock to write if nobody has it and nobody ever read: the common case of
    /// [`write`](Self::write).
    #[inline]
    pub fn write_quickly(&self, me: &Thread<'_>) -> QuickWrite {
        if self.words[1].load(Ordering::Relaxed) != 0 || !self.writer().lock_quickly(me) {
            return QuickWrite::NotTaken;
        }
        store_then_load();
        // SeqCst: see `write`.
        match self.words[1].load(Ordering::SeqCst) {
            0 => QuickWrite::Taken,
            _ => QuickWrite::TakenWithReaders,
        }
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
    ) -> Result<(Taken, Hold<'t>), LockError> {
        if let Some(word) = self.read_quickly(me) {
            return Ok((Taken::Clean, Hold::Word(word)));
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
    pub fn unread(
        &self,
        me: &Thread<'_>,
        env: &impl Park,
        hold: Hold<'_>,
    ) -> Result<(), LockError> {
        let quiet = match hold {
            // Whoever has the slot of a fenced peer now uses the word for itself.
            Hold::Word(_) if !me.is_live() => return Err(LockError::Fenced),
            Hold::Word(word) => self.unread_quickly(word),
            Hold::Share => {
                self.count(me, ShareWord::unread)?;
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

    /// Takes the lock to write, waiting until `deadline`, or for ever; `Some(0)` does not wait.
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
        match self.write_quickly(me) {
            QuickWrite::Taken => return Ok(Taken::Clean),
            // Fails only if we are fenced.
            QuickWrite::TakenWithReaders => self.unwrite(me, env, Release::Done)?,
            QuickWrite::NotTaken => {}
        }
        if me.reads(self.key) {
            // It would wait for itself, or for a writer that waits for it.
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

    /// Gives the write lock back.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it.
    #[inline]
    pub fn unwrite(&self, me: &Thread<'_>, env: &impl Park, how: Release) -> Result<(), LockError> {
        self.writer().unlock(me, env, how)
    }

    #[inline]
    fn announce_reader(&self, me: &Thread<'_>) {
        let bit = reader_bit(me);
        // SeqCst: in one order with our look at the writer and the writer's look at the mask, also
        // where another thread set the bit.
        if self.words[1].load(Ordering::SeqCst) & bit == 0 {
            self.words[1].fetch_or(bit, Ordering::SeqCst);
            Point::ReadMarked.reached();
        }
    }

    /// Makes the reader visible to writers.
    #[inline]
    fn enlist<'t>(&self, me: &Thread<'t>) -> Result<Hold<'t>, LockError> {
        let hold = match me.free_reading() {
            Some(word) => {
                // SeqCst, and a swap rather than a store: our look at the writer comes after it
                // (Dekker).
                word.swap(self.key, Ordering::SeqCst);
                Hold::Word(word)
            }
            None => {
                self.count(me, ShareWord::read)?;
                Hold::Share
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
            // SeqCst: as Release it pairs with the writer's scan, so that what we read stays before what
            // it writes; and our look at the writer comes after it (Dekker).
            match own.compare_exchange_weak(seen, changed, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives back a read lock that is counted with those of the peer `of`, and whose thread ended without giving it
    /// back. Only that peer knows of it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the peer has been declared dead, or holds none.
    pub fn uncount_ended(&self, of: PeerRef, env: &impl Park) -> Result<(), LockError> {
        self.count_for(of, ShareWord::unread)?;
        Point::ReadUncounted.reached();
        self.drained().advance_unannounced(env);
        Ok(())
    }

    /// Entered with the reader enlisted; left so only on success.
    #[cold]
    fn read_slow<'t>(
        &self,
        me: &Thread<'t>,
        env: &(impl Park + Liveness),
        mut hold: Hold<'t>,
        deadline: Option<u64>,
    ) -> Result<(Taken, Hold<'t>), LockError> {
        let mut wait = Wait::default();
        let result = loop {
            let seen = self.writer().look();
            if !me.is_live() {
                break Err(LockError::Fenced);
            }
            if !seen.is_exclusive() {
                break match self.enter(env, seen, &wait) {
                    Ok(taken) => Ok((taken, hold)),
                    Err(error) => self.unread(me, env, hold).and(Err(error)),
                };
            }
            if let Err(error) = self.unread(me, env, hold) {
                break Err(error);
            }
            if let Err(error) = self.await_writer(me, env, deadline, &mut wait) {
                if wait.parked {
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

    /// The reader is enlisted and there is no writer.
    fn enter(&self, env: &impl Park, seen: LockWord, wait: &Wait) -> Result<Taken, LockError> {
        if wait.raised {
            // If the word has changed, whoever changed it deals with the flag.
            self.writer().swap(seen, seen.with_flags(seen.flags().without(LockFlags::STARVING)));
        }
        if wait.parked {
            // The wake-up that freed us may have been meant for others too: readers pass it on.
            self.writer().wake(env, Wake::One);
        }
        if seen.is_unrecoverable() {
            return Err(LockError::Unrecoverable);
        }
        Ok(Taken::told_by(seen.flags(), seen.left_by()))
    }

    /// Waits, not enlisted, until there may be no writer.
    fn await_writer(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
        wait: &mut Wait,
    ) -> Result<(), LockError> {
        loop {
            let seen = self.writer().look();
            let Some(owner) = seen.owner().filter(|_| seen.is_exclusive()) else { return Ok(()) };
            let kind = PendingKind::Shared;
            match self.writer().await_owner(kind, seen, owner, me, env, deadline, wait)? {
                Step::Again => {}
                Step::Dead => self.drop_dead_writer(env, seen, owner),
                Step::Sleep(expected, owner, until) => {
                    self.writer().sleep(env, expected, owner, until);
                    wait.slept();
                }
            }
        }
    }

    /// Takes the word from a fenced writer, for nobody: what it protects may be half changed.
    fn drop_dead_writer(&self, env: &impl Park, seen: LockWord, dead: Owner) {
        let flags = seen.flags().only(LockFlags::STARVING).with(LockFlags::INCONSISTENT);
        if self.writer().swap(seen, LockWord::left(dead, flags)) {
            Point::LockTakenOver.reached();
            self.writer().wake(env, Wake::All);
        }
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
            let plan = watch.plan(reader, env.bell(reader), now, late);
            let dead = plan.look && env.verdict(reader) == Verdict::Dead;
            if dead || (plan.slice_ns == 0 && !late) {
                env.give_way();
                continue;
            }
            // A reader that leaves may miss us: see the head of this file.
            let most = if last == Some(reader) { SLICE_NS } else { FIRST_SLICE_NS };
            let slice = plan.slice_ns.min(most);
            last = Some(reader);
            let until = deadline.unwrap_or(u64::MAX).min(now.saturating_add(slice));
            if late {
                return Err(LockError::TimedOut);
            }
            if reads == Reads::Itself && env.is_same_thread(me.owner(), reader) {
                // It reads by another attachment, and would wait for itself.
                return Err(LockError::Deadlock);
            }
            if self.drained().wait_for(reader, me, env, number, until) == Err(LockError::Fenced) {
                return Err(LockError::Fenced);
            }
        }
    }

    /// Gives the writer's word back as it was found.
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

    /// A living thread that reads.
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
                // Which of its threads reads is not known. If none lives, none does.
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

/// The bit of a thread's peer in the mask of those that may have read.
#[inline]
fn reader_bit(me: &Thread<'_>) -> u64 {
    1 << (me.owner().peer().get() % 64)
}

/// The living threads of a peer that hold the lock with this key to read, each once for every time.
fn readers_by_word<S: Shares>(
    shares: &S,
    peer: PeerId,
    key: u64,
) -> impl Iterator<Item = Owner> + '_ {
    (0..shares.threads(peer)).filter_map(ThreadId::new).flat_map(move |thread| {
        // Who has the slot is looked at first: that thread has cleared what an earlier one left in it. One that has
        // the slot only later finds the writer, since it looks for one after it has written its word.
        let owner = shares.owner(peer, thread);
        let words = owner.and_then(|_| shares.thread(peer, thread)).into_iter().flat_map(reading);
        // SeqCst: pairs with the reader's swap.
        words.filter(move |word| word.load(Ordering::SeqCst) == key).filter_map(move |_| owner)
    })
}
