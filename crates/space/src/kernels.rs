//! Several kernels in one space: heartbeats, death futexes, and peers that are assumed dead.
//!
//! # What it owns
//! The heartbeat word of this peer; the sleep on the death futexes of other peers.
//!
//! # Invariants
//! 1. Domain records are taken in order, and stay used when their kernel has gone (`domain.rs`). So if the second was
//!    never used, there has been one kernel only: every wait checks that with one load.
//! 2. A heartbeat is counted only while its peer is current: a fenced peer must not make its successor in the slot
//!    look alive.
//! 3. Nothing here decides that a peer is dead: verdicts are the platform's, and
//!    [`assume_dead`](View::assume_dead) is the decision of its caller.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{Damage, DeathFutex, Evidence, Owner, PeerId, PeerPhase, peer_word};
use commonhold_sync::{Verdict, Wake};

use crate::{Attached, PeerRecord, Platform, View, port::WORDS_MOST};

/// Index of the domain record that the second kernel takes.
const SECOND_DOMAIN: u16 = 1;

/// The peer that uses a view, as one word: generation, slot, and a bit that says that there is such a peer.
pub(crate) const fn own_word(peer: PeerId, generation: u32) -> u64 {
    (generation as u64) << 32 | (peer.get() as u64) << 1 | 1
}

#[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
const fn read_own_word(word: u64) -> Option<(PeerId, u32)> {
    if word & 1 == 0 {
        return None;
    }
    Some((PeerId::new((word >> 1) as u16), (word >> 32) as u32))
}

impl<P: Platform> View<P> {
    /// Whether peers of more than one kernel are attached now. Then a wake may come from a kernel that
    /// cannot reach ours.
    pub fn spans_kernels(&self) -> bool {
        if self.used_domain(SECOND_DOMAIN).is_none() {
            return false;
        }
        let mut domains = self.peer_ids().filter_map(|peer| {
            // A peer that is still attaching has not written its record.
            let lives = self.peer_state(peer).phase == PeerPhase::Live;
            let record = self.peer(peer).ok().filter(|_| lives)?;
            Some(record[peer_word::DOMAIN].load(Ordering::Relaxed))
        });
        let first = domains.next();
        domains.any(|domain| Some(domain) != first)
    }

    /// Counts up the heartbeat of the peer that uses this view. Observers without better evidence see that it lives.
    pub(crate) fn beat(&self) {
        // Relaxed: one word that only counts.
        let Some((peer, generation)) = read_own_word(self.own.load(Ordering::Relaxed)) else {
            return;
        };
        if self.peer_state(peer).is_current(generation)
            && let Ok(record) = self.peer(peer)
        {
            record[peer_word::HEARTBEAT].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the peer that uses this view was declared dead.
    pub(crate) fn is_fenced(&self) -> bool {
        // Relaxed: as in `beat`; `peer_state` has an ordering of its own.
        read_own_word(self.own.load(Ordering::Relaxed))
            .is_some_and(|(peer, generation)| !self.peer_state(peer).is_current(generation))
    }

    /// Declares the peer of `generation` in a slot dead, as a verdict would: it owns nothing from now
    /// on. `false` if the slot has no such peer any more.
    ///
    /// This does not stop a store that the peer may be making at this moment. Only a caller that knows that the peer
    /// will never write again (its virtual machine is gone, its board is off) should call this.
    pub fn assume_dead(&self, peer: PeerId, generation: u32) -> bool {
        self.doubt(peer);
        self.fence(peer, generation)
    }
}

/// The death futexes of peers: each kernel marks those of its own peers, and wakes its own sleepers.
impl<P: Platform> View<P> {
    /// The word of a slot's death futex, for its peer to register with the kernel.
    ///
    /// # Errors
    /// [`Damage`] if there is no such slot.
    pub fn death_futex_word(&self, peer: PeerId) -> Result<&AtomicU64, Damage> {
        Ok(&self.peer(peer)?[peer_word::DEATH_FUTEX])
    }

    /// Whether a death of a peer or its threads wakes sleepers of this kernel: then the peer is of this kernel too.
    /// Another kernel marks words of its own dead, but cannot wake sleepers here.
    pub(crate) fn tells_deaths(&self, peer: PeerId) -> bool {
        let domain = |peer: PeerId| {
            let record = self.peer(peer).ok()?;
            Some(record[peer_word::DOMAIN].load(Ordering::Relaxed))
        };
        read_own_word(self.own.load(Ordering::Relaxed)).is_some_and(|(own, _)| {
            self.platform().hears_death_futexes()
                && domain(own).is_some()
                && domain(own) == domain(peer)
        })
    }

    /// The death futex of the peer in a slot, if it has registered one.
    pub(crate) fn death_futex_at(&self, peer: PeerId) -> Option<(&AtomicU64, DeathFutex)> {
        let word = &self.peer(peer).ok()?[peer_word::DEATH_FUTEX];
        // Acquire: pairs with the Release of the thread that registered it, and with the kernel's mark: if it has
        // fired, what the dead peer stored is visible.
        let death_futex = DeathFutex::from_word(word.load(Ordering::Acquire));
        death_futex.is_there().then_some((word, death_futex))
    }

    /// Wakes all threads that sleep on the death futex of the peer in a slot.
    pub(crate) fn fire_death_futex(&self, peer: PeerId) {
        if let Ok(record) = self.peer(peer) {
            self.platform().wake(&record[peer_word::DEATH_FUTEX], Wake::All);
        }
    }

    /// Sleeps while `word` is as expected, no life word of the owners is marked, and no death futex of their peers
    /// fires. Death futexes that have fired already are left out. `false`, without a sleep: the kernel would not tell
    /// of any owner's death.
    pub(crate) fn sleep_on_death_futexes(
        &self,
        owners: &[Owner],
        word: &AtomicU64,
        expected: u64,
        until: u64,
    ) -> bool {
        let mut words = [(word, expected); WORDS_MOST];
        let mut count = 1;
        let told = || owners.iter().filter(|owner| self.tells_deaths(owner.peer()));
        // An owner whose words do not fit is looked at again at the end of the slice.
        for (owner, place) in told().zip(words.iter_mut().skip(1)) {
            let Ok(slot) = self.thread_slot(owner.peer(), owner.thread()) else { return true };
            let life = slot.life();
            if !life.is_of(owner.incarnation()) {
                return true;
            }
            *place = (slot.word(), life.word());
            count += 1;
        }
        let lives = count;
        for owner in told() {
            let Some((futex, death_futex)) = self.death_futex_at(owner.peer()) else { continue };
            let known = words.iter().take(count).skip(lives);
            if death_futex.has_fired() || known.clone().any(|(word, _)| core::ptr::eq(*word, futex))
            {
                continue;
            }
            let awaited = death_futex.with_sleepers();
            // The kernel wakes a sleeper only if this bit is set. If the word changes meanwhile, the caller looks
            // again.
            let flagged = death_futex == awaited
                || futex
                    .compare_exchange(
                        death_futex.word(),
                        awaited.word(),
                        Ordering::SeqCst,
                        Ordering::Relaxed,
                    )
                    .is_ok();
            if !flagged {
                return true;
            }
            if let Some(place) = words.get_mut(count) {
                *place = (futex, awaited.word());
                count += 1;
            }
        }
        if count == 1 {
            return false;
        }
        self.platform().wait_for_any(words.get(..count).unwrap_or_default(), until);
        // The kernel wakes one sleeper for each mark. If that was this thread, it wakes the others.
        for (word, expected) in words.iter().take(lives).skip(1) {
            if word.load(Ordering::Relaxed) != *expected {
                self.platform().wake(word, Wake::All);
            }
        }
        true
    }
}

impl<P: Platform> Attached<P> {
    /// Counts up this peer's heartbeat. Observers without better evidence see that it lives. Waiting for a lock or an
    /// event of the space counts it up as well.
    pub fn beat(&self) {
        self.view().beat();
    }

    /// The other peers that may have to be judged by their heartbeats: those of other kernels, and those that
    /// published no exclusive lock.
    pub fn unproven(&self) -> impl Iterator<Item = PeerRecord> + '_ {
        let view = self.view();
        let me = view.peer_record(self.peer()).map(|(record, _)| record.identity.boot);
        let others = view.peer_ids().filter(|peer| *peer != self.peer());
        others.filter_map(|peer| view.peer_record(peer)).filter_map(move |(record, phase)| {
            let ours = Some(record.identity.boot) == me;
            let proven = ours && record.evidence.contains(Evidence::OFD_LOCK);
            (phase == PeerPhase::Live && !proven).then_some(record)
        })
    }

    /// Wakes the waiting threads of this peer. To be called when the first peer of another
    /// kernel has attached: from then on they must not rely on a wake.
    pub fn rouse(&self) {
        self.view().wake_for(self.peer());
    }

    /// Looks at the heartbeats of all [`unproven`](Self::unproven) peers, so that it is known how long each has been
    /// silent when a verdict is needed. To be called about as often as this peer's own heartbeat.
    pub fn watch(&self) {
        for record in self.unproven() {
            let _ = self.view().verdict_on(&record);
        }
    }
}

impl<P: Platform> View<P> {
    /// The verdict on the peer of this record.
    pub fn verdict_on(&self, record: &PeerRecord) -> Verdict {
        self.verdict_of(record.of())
    }
}
