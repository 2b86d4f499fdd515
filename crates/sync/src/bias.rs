//! The bias of a mutex: a thread that has used it alone for a while takes and frees it by words of its own.
//!
//! To take a word and to give it back are two locked instructions, and nothing else that a mutex does takes
//! as long. A *biased* mutex needs one. Its word names a thread and stays as it is; the thread says in its
//! own slot that it is *inside*, and then looks whether the word is still biased to it. Whoever else wants
//! the mutex *revokes* the bias in the word, and then looks whether the thread is inside (Dekker's
//! pattern, so one of them always sees the other, as with the readers of an [`RwLock`](crate::RwLock)).
//! If it is not, the mutex is as good as free, and is taken like any other; if it is, it is waited for
//! like any owner. (The idea is that of lock reservation, Kawachiya, Koseki and Onodera, OOPSLA 2002, but that nobody has
//! to be stopped for a bias to be revoked: looking is enough.)
//!
//! # Invariants
//! 1. Who is inside has its entry say so, with the number that the word has; and saw the word biased to
//!    it, and not revoked, after it had said so.
//! 2. Once a bias is revoked its thread does not enter by it, and no later bias of that thread has its
//!    number. So a thread that is seen outside, by whoever has seen the word revoked, stays outside as
//!    long as the word stays as it is: a compare-and-swap of the word is all that it takes to take the mutex.
//! 3. Only the thread itself writes its entries, and each of its stores releases, of either word: by any of
//!    them somebody may find that it is outside, and then sees what it did inside. If it died inside, whoever
//!    takes the word from it tells the next owner so, as of any dead owner; and before its slot has another
//!    peer, a [reaper](settle_bias) does that for all its entries.
//! 4. An entry is given up by its thread at any time when it is outside. The word needs no change: it is of
//!    a bias that no entry knows.
//! 5. A thread that leaves looks for a revocation without a fence, as a reader does. Whoever has missed it
//!    so sleeps 1 ms at first; what it sees of the thread then is no longer on the way.
//!
//! # Deaths
//! - Of a thread inside: as of an owner.
//! - Of a thread outside: as of nobody; the mutex is free.
//! - Of whoever revokes: as of nobody. The bias ends all the same.

use commonhold_layout::{
    Bias, BiasState, BiasTarget, LockFlags, LockWord, Offset, Owner, PendingKind, bias_entry,
    thread_word,
};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Liveness, LockError, Mutex, Park, Release, Taken, Thread, Wake, store_then_load,
    thread::{entries, entry_of},
};

/// How a thread holds a mutex that may be biased: what to give to [`Mutex::unlock_biased`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct MutexHold<'a> {
    entry: &'a [AtomicU64; 2],
    /// The life word of the thread's slot, and what it says while the slot is the thread's.
    life: &'a AtomicU64,
    alive: u64,
    /// What the word says as long as nobody else wants the mutex.
    word: LockWord,
}

impl MutexHold<'_> {
    /// Whether it is held by a bias.
    #[inline]
    #[must_use]
    pub const fn is_biased(&self) -> bool {
        self.word.is_biased()
    }

    /// By what it is held: what the word says as long as nobody else wants it.
    #[inline]
    #[must_use]
    pub const fn word(&self) -> LockWord {
        self.word
    }
}

impl Mutex<'_> {
    /// As [`lock_quickly`](Self::lock_quickly), for a mutex that is freed by
    /// [`unlock_biased`](Self::unlock_biased): if it is biased to the thread, that is quicker still. `None`
    /// says that [`lock_biased_slowly`](Self::lock_biased_slowly) must follow.
    #[inline]
    pub fn lock_biased<'t>(&self, me: &Thread<'t>) -> Option<MutexHold<'t>> {
        self.lock_by_entry(me, self.entry())
    }

    /// Which entry of a thread slot is that of a bias of this mutex: to be known beforehand, for
    /// [`lock_by_entry`](Self::lock_by_entry).
    #[inline]
    #[must_use]
    pub const fn entry(&self) -> usize {
        bias_entry(self.at())
    }

    /// As [`lock_biased`](Self::lock_biased), where the [entry](Self::entry) is known.
    #[inline]
    pub fn lock_by_entry<'t>(&self, me: &Thread<'t>, entry: usize) -> Option<MutexHold<'t>> {
        let entry @ [place, turn] = me.entry(entry);
        // Relaxed: nobody else writes the entry. Its stores are all Release: whoever sees by any of them that we
        // are outside sees what we did inside.
        if place.load(Ordering::Relaxed) != BiasTarget::new(self.at()).word() {
            let word = me.owner().word();
            return self.lock_quickly(me).then(|| hold(me, entry, word));
        }
        let before = BiasState::from_word(turn.load(Ordering::Relaxed));
        if before.is_inside() {
            return None;
        }
        // SeqCst, and a swap rather than a store: our look at the word comes after it (Dekker).
        turn.swap(before.inside().word(), Ordering::SeqCst);
        Point::BiasEntered.reached();
        store_then_load();
        let word = LockWord::biased(bias_of(me, before));
        if self.look() == word && me.is_live() {
            return Some(hold(me, entry, word));
        }
        turn.store(before.outside().word(), Ordering::Release);
        None
    }

    /// Takes the mutex after [`lock_biased`](Self::lock_biased) could not, waiting until `deadline`, or for
    /// ever; `Some(0)` does not wait. The thread owns the word then.
    ///
    /// # Errors
    /// [`LockError`].
    #[cold]
    pub fn lock_biased_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        deadline: Option<u64>,
    ) -> Result<Taken, LockError> {
        self.forget_bias(me);
        self.lock_slow(me, env, deadline, LockFlags::NONE)
    }

    /// The hold of a thread on the mutex, of which it is known [by what](MutexHold::word) it holds it.
    #[inline]
    pub const fn hold<'t>(&self, me: &Thread<'t>, word: LockWord) -> MutexHold<'t> {
        hold(me, me.entry(self.entry()), word)
    }

    /// Frees the mutex if nobody waits for it. `false` says that
    /// [`unlock_biased_slowly`](Self::unlock_biased_slowly) must follow, before the thread takes any lock.
    #[inline]
    pub fn unlock_biased(&self, hold: MutexHold<'_>) -> bool {
        if !hold.is_biased() {
            return unlock_counted(self.word(), self.at(), hold.entry, hold.word);
        }
        // Whoever has the slot of a thread that was declared dead uses the entry for itself. The slot of a fenced
        // peer is marked before anybody else has it.
        // Relaxed: see `Thread::is_live`.
        if hold.life.load(Ordering::Relaxed) != hold.alive {
            return false;
        }
        let [_, turn] = hold.entry;
        // Release: what we did stays before what the next owner does.
        turn.store(left(hold).word(), Ordering::Release);
        Point::BiasLeft.reached();
        // For loom only, whose sleeps end by a wake-up and never by a slice: see invariant 5.
        store_then_load();
        self.look() == hold.word
    }

    /// Frees the mutex after [`unlock_biased`](Self::unlock_biased) could not, or where it was not asked to.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not own it; nothing has changed then.
    #[cold]
    pub fn unlock_biased_slowly(
        &self,
        me: &Thread<'_>,
        env: &(impl Park + Liveness),
        hold: MutexHold<'_>,
        how: Release,
    ) -> Result<(), LockError> {
        let [place, turn] = hold.entry;
        match hold.word.bias() {
            Some(_) if !me.is_live() => return Err(LockError::Fenced),
            // Left already, and then found that somebody had revoked the bias.
            Some(bias) if turn.load(Ordering::Relaxed) == left(hold).word() => {
                self.forget_bias(me);
                self.end_bias(me, env, bias);
                return Ok(());
            }
            Some(_) => {
                let _ = self.own(me, hold)?;
            }
            None => {
                let found = BiasTarget::from_word(place.load(Ordering::Relaxed));
                let due = found.is_candidate(self.at()) && found.freed().is_none();
                if due && how == Release::Done && env.may_bias() && self.bias_to(me) {
                    return Ok(());
                }
                // Somebody waits, or no mutex may be biased.
                self.forget_bias(me);
            }
        }
        self.unlock_slow(me, env, how)
    }

    /// Makes a mutex that the thread holds, by a bias or not, one that it holds by the word, as all do that
    /// know nothing of biases.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it.
    #[cold]
    pub fn own<'t>(
        &self,
        me: &Thread<'_>,
        hold: MutexHold<'t>,
    ) -> Result<MutexHold<'t>, LockError> {
        let Some(bias) = hold.word.bias() else { return Ok(hold) };
        loop {
            let seen = self.look();
            if !me.is_live() || !seen.is_biased_by(bias) {
                return Err(LockError::Fenced);
            }
            // Others change nothing but flags, as long as we are inside.
            if self.swap(seen, me.owner().word().with_flags(seen.flags())) {
                break;
            }
        }
        Point::BiasOwned.reached();
        let [_, turn] = hold.entry;
        turn.store(left(hold).word(), Ordering::Release);
        self.forget_bias(me);
        Ok(MutexHold { word: me.owner().word(), ..hold })
    }

    /// As [`mark_consistent`](Self::mark_consistent); what is held by a bias is consistent.
    ///
    /// # Errors
    /// [`LockError::Fenced`] if the thread does not hold it.
    pub fn mark_consistent_biased(
        &self,
        me: &Thread<'_>,
        hold: MutexHold<'_>,
    ) -> Result<(), LockError> {
        match hold.word.bias() {
            None => self.mark_consistent(me),
            Some(bias) if me.is_live() && self.look().is_biased_by(bias) => Ok(()),
            Some(_) => Err(LockError::Fenced),
        }
    }

    /// Frees the mutex, which the thread owns and nobody waits for, and biases it to the thread.
    fn bias_to(&self, me: &Thread<'_>) -> bool {
        let [place, turn] = me.entry(self.entry());
        let fresh = BiasState::new(me.next_bias());
        turn.store(fresh.word(), Ordering::Release);
        place.store(BiasTarget::new(self.at()).word(), Ordering::Release);
        Point::BiasPlaced.reached();
        // The swap releases: whoever sees the bias sees the entry.
        let made = self.swap(me.owner().word(), LockWord::biased(bias_of(me, fresh)));
        if made {
            Point::BiasMade.reached();
        }
        made
    }

    /// Makes the entry of this mutex one of a candidate anew: somebody else wanted the mutex.
    fn forget_bias(&self, me: &Thread<'_>) {
        let [place, turn] = me.entry(self.entry());
        let found = BiasTarget::from_word(place.load(Ordering::Relaxed));
        let mine = found == BiasTarget::new(self.at()) || found.is_candidate(self.at());
        if mine && !BiasState::from_word(turn.load(Ordering::Relaxed)).is_inside() {
            place.store(BiasTarget::candidate(self.at()).word(), Ordering::Release);
        }
    }

    /// Frees the word of a bias that was revoked while the thread was inside, unless somebody has it already.
    fn end_bias(&self, me: &Thread<'_>, env: &impl Park, bias: Bias) {
        loop {
            let seen = self.look();
            if !seen.is_biased_by(bias) {
                return;
            }
            let waiters = seen.flags().contains(LockFlags::WAITERS);
            if waiters {
                me.announce(PendingKind::Release, self.at());
                Point::UnlockPending.reached();
            }
            let freed = LockWord::unowned(seen.flags().only(LockFlags::STARVING));
            let done = self.swap(seen, freed);
            if waiters {
                if done {
                    Point::UnlockFreed.reached();
                    self.wake(env, Wake::One);
                    Point::UnlockWoken.reached();
                }
                me.done();
            }
            if done {
                return;
            }
        }
    }
}

/// Frees a mutex by its word, and counts that it was. It takes its parts by value, and as few as it can: who
/// calls it has the others in registers.
#[inline(never)]
fn unlock_counted(
    word: &AtomicU64,
    at: Offset,
    [place, turn]: &[AtomicU64; 2],
    owned: LockWord,
) -> bool {
    let found = BiasTarget::from_word(place.load(Ordering::Relaxed));
    if found.is_candidate(at) {
        let Some(freed) = found.freed() else { return false };
        // Before the unlock as good as after it: should that fail, the entry is made anew.
        place.store(freed.word(), Ordering::Release);
    } else if found.biased().is_none() {
        place.store(BiasTarget::candidate(at).word(), Ordering::Release);
    } else {
        miss(at, place, turn);
    }
    Mutex::new(word, at).swap(owned, LockWord::FREE)
}

/// The thread frees the mutex at `at`, and the entry is that of another.
#[cold]
fn miss(at: Offset, place: &AtomicU64, turn: &AtomicU64) {
    let now = BiasState::from_word(turn.load(Ordering::Relaxed));
    if now.is_inside() {
        return;
    }
    match now.missed() {
        Some(missed) => turn.store(missed.word(), Ordering::Release),
        None => place.store(BiasTarget::candidate(at).word(), Ordering::Release),
    }
}

#[inline]
const fn hold<'t>(me: &Thread<'t>, entry: &'t [AtomicU64; 2], word: LockWord) -> MutexHold<'t> {
    let (life, alive) = me.life();
    MutexHold { entry, life, alive, word }
}

#[inline]
const fn bias_of(me: &Thread<'_>, turn: BiasState) -> Bias {
    Bias { peer: me.owner().peer(), thread: me.owner().thread(), number: turn.number() }
}

/// What the entry says when who held a mutex by this bias has left it.
#[inline]
const fn left(hold: MutexHold<'_>) -> BiasState {
    match hold.word.bias() {
        Some(bias) => BiasState::new(bias.number),
        None => BiasState::new(0),
    }
}

/// Whether a thread slot says that its thread is inside a mutex, at `at`, by this bias.
#[must_use]
pub fn is_inside(slot: &[AtomicU64; thread_word::COUNT], bias: Bias, at: Offset) -> bool {
    let [place, turn] = entry_of(slot, bias_entry(at));
    // SeqCst: pairs with the thread's swap; in this order, since the place is that of the turn as long as the
    // thread is inside. Acquire: pairs with its Release stores.
    let turn = BiasState::from_word(turn.load(Ordering::SeqCst));
    // Acquire: the thread may have left, and used the entry for something else, since we saw its turn.
    turn.is_inside()
        && turn.number() == bias.number
        && place.load(Ordering::Acquire) == BiasTarget::new(at).word()
}

/// The biases by which the thread of this slot is inside of mutexes, or was when it died, and where those are.
pub fn inside_of<'a>(
    slot: &'a [AtomicU64; thread_word::COUNT],
    named: impl Fn(u32) -> Bias + 'a,
) -> impl Iterator<Item = (Offset, Bias)> + 'a {
    entries(slot).iter().filter_map(move |[place, turn]| {
        // SeqCst: in one order with the fence of the thread's peer. Acquire: pairs with its own stores.
        let turn = BiasState::from_word(turn.load(Ordering::SeqCst));
        let at = BiasTarget::from_word(place.load(Ordering::Acquire)).biased()?;
        turn.is_inside().then(|| (at, named(turn.number())))
    })
}

/// Tells the next owner of a mutex that the thread it was biased to, `dead` if that is known, has died inside. Has no
/// effect if somebody has taken it over already.
pub fn settle_bias(word: &AtomicU64, bias: Bias, dead: Option<Owner>, env: &impl Park) {
    let mut seen = word.load(Ordering::SeqCst);
    while LockWord::from_word(seen).is_biased_by(bias) {
        let starving = LockWord::from_word(seen).flags().only(LockFlags::STARVING);
        let flags = starving.with(LockFlags::INCONSISTENT);
        let left = dead.map_or(LockWord::unowned(flags), |dead| LockWord::left(dead, flags));
        match word.compare_exchange(seen, left.word(), Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {
                Point::BiasSettled.reached();
                env.wake(word, Wake::All);
                return;
            }
            Err(now) => seen = now,
        }
    }
}
