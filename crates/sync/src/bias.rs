//! The bias of a mutex: a thread that has used the mutex alone for a while takes and frees it by words of its own. The
//! writer's word of a reader/writer lock is a mutex too; what its readers do is in `rwlock/biased.rs`.
//!
//! To take a lock word and to free it costs two locked instructions, which is most of what a mutex costs.
//! A *biased* mutex needs one. Its word names a thread and does not change. To take the mutex, the thread says in its
//! own slot that it is *inside*, and then checks that the word is still biased to it. A contender
//! *revokes* the bias in the word, and then looks whether the thread is inside (Dekker's
//! pattern, so one of them always sees the other, as with the readers of an [`RwLock`](crate::RwLock)).
//! If the thread is outside, the contender takes the mutex as a free one; if it is inside, the contender waits for it
//! as for any owner. (The idea is lock reservation, Kawachiya, Koseki and Onodera, OOPSLA 2002. But here no thread has
//! to be stopped to revoke a bias: a look at its entry is enough.)
//!
//! A thread slot has a few *entries*, each of two words: the [target](BiasTarget), which says for which mutex the
//! entry is (`place` below), and the [state](BiasState), which has the number of the bias and says whether the thread
//! is inside (`turn` below).
//!
//! # Invariants
//! 1. A thread that is inside has said so in its entry, with the bias number of the word; after that it saw the word
//!    biased to it, and not revoked.
//! 2. After a bias is revoked, its thread does not enter by it, and no later bias of that thread slot has its
//!    number. So once a contender has seen the word revoked, and after that the thread outside, the thread stays
//!    outside. The contender then takes the mutex by one compare-and-swap of the revoked word. If that fails, another
//!    contender was first.
//! 3. Only the thread itself writes its entries. Each of its stores, to either word, is a Release: a contender may
//!    learn from any of them that the thread is outside, and must see what it did inside. If the thread died
//!    inside, the contender that takes the word over is told so, as with any dead owner. Before another thread has
//!    the slot, a reaper [settles](settle_bias) all entries that are inside.
//! 4. A thread that is outside may use the entry for another mutex at any time. It leaves the first mutex's lock
//!    word as it is. That word then names a bias for which there is no entry, and a contender takes the thread to be
//!    outside.
//! 5. A thread that leaves stores *outside* in its entry, and then looks whether the bias was revoked, with no fence
//!    in between: the processor may do the look first. Then the thread misses the revocation and wakes no contender,
//!    while a contender still reads *inside*, and goes to sleep. So the first sleep of a contender lasts 1 ms at
//!    most. The processor completes the store long before that, so the contender then reads *outside*. No memory
//!    model promises a time. If the store took longer, the contender would sleep again, and only be later.
//!
//! # Deaths
//! - A thread inside: as for an owner.
//! - A thread outside: nothing; the mutex is free.
//! - A contender that revokes: nothing. The next contender goes on with the word as it is.

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
    /// The life word of the thread's slot, and its value while the slot is the thread's.
    life: &'a AtomicU64,
    alive: u64,
    /// What the lock word says as long as no other thread wants the mutex.
    word: LockWord,
}

impl From<MutexHold<'_>> for LockWord {
    #[inline(always)]
    fn from(hold: MutexHold<'_>) -> Self {
        hold.word
    }
}

impl MutexHold<'_> {
    /// Whether it is held by a bias.
    #[inline]
    #[must_use]
    pub const fn is_biased(&self) -> bool {
        self.word.is_biased()
    }

    /// What the lock word says as long as no other thread wants the mutex: the owner, or the bias by which it is held.
    #[inline]
    #[must_use]
    pub const fn word(&self) -> LockWord {
        self.word
    }
}

impl Mutex<'_> {
    /// As [`lock_quickly`](Self::lock_quickly), for a mutex that is freed by
    /// [`unlock_biased`](Self::unlock_biased): quicker still if the mutex is biased to the thread. `None`:
    /// [`lock_biased_slowly`](Self::lock_biased_slowly) must follow.
    #[inline]
    pub fn lock_biased<'t>(&self, me: &Thread<'t>) -> Option<MutexHold<'t>> {
        self.lock_by_entry(me, self.entry())
    }

    /// Which entry of a thread slot a bias of this mutex uses. A caller may keep the number for
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
        // Relaxed: nobody else writes the entry. All stores to it are Release: they pair with the loads in
        // `is_inside`. A contender that sees by any of them that we are outside sees what we did inside.
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
    /// ever; `Some(0)` does not wait. Then the word names the thread as its owner.
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

    /// The hold of a thread that holds the mutex. `word` is the [`MutexHold::word`] of that hold.
    #[inline]
    pub const fn hold<'t>(&self, me: &Thread<'t>, word: LockWord) -> MutexHold<'t> {
        hold(me, me.entry(self.entry()), word)
    }

    /// Frees the mutex if nobody waits for it. `false`:
    /// [`unlock_biased_slowly`](Self::unlock_biased_slowly) must follow, before the thread takes any lock.
    #[inline]
    pub fn unlock_biased(&self, hold: MutexHold<'_>) -> bool {
        if !hold.is_biased() {
            return unlock_counted(self.word(), self.at(), hold.entry, hold.word);
        }
        // If this thread was declared dead, the entry may belong to the next thread of the slot. If its peer was
        // fenced, the slot is marked dead before another thread has it: so the life word tells both. Relaxed: see
        // `Thread::is_live`.
        if hold.life.load(Ordering::Relaxed) != hold.alive {
            return false;
        }
        let [_, turn] = hold.entry;
        // Release: pairs with the load in `is_inside`; what we did stays before what the next owner does.
        turn.store(left(hold).word(), Ordering::Release);
        Point::BiasLeft.reached();
        // For loom only, where no slice ends a sleep, only a wake-up: see invariant 5.
        store_then_load();
        self.look() == hold.word
    }

    /// Frees the mutex after [`unlock_biased`](Self::unlock_biased) returned `false`, or without a call of it.
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
            // `unlock_biased` has left already, and then found the bias revoked.
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
                // Another thread waits, or the mutex may not be biased now.
                self.forget_bias(me);
            }
        }
        self.unlock_slow(me, env, how)
    }

    /// Turns a hold by a bias into a hold by the lock word, for operations that know nothing of biases. A hold by the
    /// word stays as it is.
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
            // As long as we are inside, other threads change nothing but flags.
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

    /// As [`mark_consistent`](Self::mark_consistent). A mutex that is held by a bias is consistent already.
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

    /// Frees the mutex, which the thread owns, and biases it to the thread. `false`: the word has a flag, and nothing
    /// is freed.
    fn bias_to(&self, me: &Thread<'_>) -> bool {
        let [place, turn] = me.entry(self.entry());
        let fresh = BiasState::new(me.next_bias());
        turn.store(fresh.word(), Ordering::Release);
        place.store(BiasTarget::new(self.at()).word(), Ordering::Release);
        Point::BiasPlaced.reached();
        // The swap is a Release, and pairs with the load in `look`: a contender that sees the bias sees the entry.
        let made = self.swap(me.owner().word(), LockWord::biased(bias_of(me, fresh)));
        if made {
            Point::BiasMade.reached();
        }
        made
    }

    /// Makes this mutex a candidate again, with a new count, if the entry is for it: another thread wanted the mutex.
    pub(crate) fn forget_bias(&self, me: &Thread<'_>) {
        let [place, turn] = me.entry(self.entry());
        let found = BiasTarget::from_word(place.load(Ordering::Relaxed));
        let mine = found == BiasTarget::new(self.at()) || found.is_candidate(self.at());
        if mine && !BiasState::from_word(turn.load(Ordering::Relaxed)).is_inside() {
            place.store(BiasTarget::candidate(self.at()).word(), Ordering::Release);
        }
    }

    /// Frees the word of a revoked bias whose thread is outside, unless a contender has taken it already. The thread
    /// itself does so if it was inside when the bias was revoked; and a reader that has looked.
    pub(crate) fn end_bias(&self, me: &Thread<'_>, env: &impl Park, bias: Bias) {
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

/// Frees a mutex by its word, and counts that in the entry. `false`: it is not freed. Takes few arguments, and by
/// value: the caller keeps the others in registers.
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
        // The count may come before the unlock: if the unlock fails, the count begins anew.
        place.store(freed.word(), Ordering::Release);
    } else if found.biased().is_none() {
        place.store(BiasTarget::candidate(at).word(), Ordering::Release);
    } else {
        miss(at, place, turn);
    }
    Mutex::new(word, at).swap(owned, LockWord::FREE)
}

/// Counts that the thread frees the mutex at `at`, while its entry is for another mutex. After enough of them, the
/// mutex at `at` becomes the candidate of the entry.
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

/// The state of the entry after the thread has left the mutex that it held by this bias.
#[inline]
const fn left(hold: MutexHold<'_>) -> BiasState {
    match hold.word.bias() {
        Some(bias) => BiasState::new(bias.number),
        None => BiasState::new(0),
    }
}

/// Whether a thread slot says that its thread is inside the mutex at `at` by this bias.
#[must_use]
pub fn is_inside(slot: &[AtomicU64; thread_word::COUNT], bias: Bias, at: Offset) -> bool {
    let [place, turn] = entry_of(slot, bias_entry(at));
    // SeqCst: pairs with the thread's swap (Dekker); as Acquire, with its Release stores. The state is read before the
    // target: as long as the thread is inside, the target does not change.
    let turn = BiasState::from_word(turn.load(Ordering::SeqCst));
    // Acquire: pairs with the thread's Release stores; it may have left, and reused the entry, since we read its
    // state.
    turn.is_inside()
        && turn.number() == bias.number
        && place.load(Ordering::Acquire) == BiasTarget::new(at).word()
}

/// The mutexes that the thread of this slot is inside of by a bias, or was when it died: the offset of each, and the
/// bias. `named` makes the bias from its number.
pub fn inside_of<'a>(
    slot: &'a [AtomicU64; thread_word::COUNT],
    named: impl Fn(u32) -> Bias + 'a,
) -> impl Iterator<Item = (Offset, Bias)> + 'a {
    entries(slot).iter().filter_map(move |[place, turn]| {
        // SeqCst: in one order with the fencing of the thread's peer. Acquire: pairs with the thread's own stores.
        let turn = BiasState::from_word(turn.load(Ordering::SeqCst));
        let at = BiasTarget::from_word(place.load(Ordering::Acquire)).biased()?;
        turn.is_inside().then(|| (at, named(turn.number())))
    })
}

/// Frees a mutex that was biased to a thread which died inside, and marks it as inconsistent, so that the next owner
/// is told. `dead` is that thread, if it is known. Has no effect if a contender has taken the mutex over already.
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
