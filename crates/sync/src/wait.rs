//! One wait for a lock, from its first look to its end: when to spin, when to look for evidence of an
//! owner's death, and how long to sleep.
//!
//! The kernel tells of a death by two words: the *life word* of the owner's thread slot, and the *death futex* of the
//! owner's peer. A waiter sleeps on both, beside the lock's word.
//!
//! # Invariants
//! 1. A search for evidence costs system calls. So a waiter searches in three cases only: the owner's death futex has
//!    fired (if the kernel will also mark the life word, the waiter first waits a moment for that); the waiter's time
//!    is up; or the waiter has slept for this owner before, and still finds it. Most waits end within their first
//!    sleep, and cost no search.
//! 2. A death futex is a hint. That of a process which is being killed fires before the last of its threads has ended.
//!    So the waiter then looks for evidence repeatedly, at growing intervals. A death futex that fires for no reason
//!    is believed for [`PROBES_MOST`] looks only.
//! 3. A silent death futex proves nothing, nor does a life word without a mark: an owner can end without either. So a
//!    waiter looks for other evidence after [`FIRST_RECHECK_NS`], and then every [`RECHECK_NS`].
//! 4. For each mark, the kernel wakes one sleeper, and that one wakes the others. If it is stopped, or dies, before it
//!    does, the others sleep on to the end of the same intervals, and then see the mark.

use core::mem;

use commonhold_layout::{Bias, LockFlags, LockWord, Owner, PendingKind};
use commonhold_window::atomic::AtomicU64;

use crate::{DeathNotice, FIRST_SLICE_NS, Park, SLICE_NS, Thread};

/// The first sleep of a waiter that the owner's death futex should wake.
const FIRST_RECHECK_NS: u64 = 10_000_000;
/// Every later sleep of such a waiter.
const RECHECK_NS: u64 = 100_000_000;
/// The first sleep of a waiter whose owner's death is [imminent](DeathNotice::Imminent), after it has yielded for
/// [`EAGER_PROBE_NS`] in vain. It does not look for evidence before: that would keep the dying process from a CPU.
const DUE_NS: u64 = 1_000_000;
/// For so long after a death futex has fired, the waiter looks for evidence repeatedly, without a pause: the
/// process is about to end, sooner than the shortest sleep would.
const EAGER_PROBE_NS: u64 = 500_000;
/// Bounds these looks, should the clock stand still.
const LOOKS_AT_ONCE: u32 = 10_000;
/// After that, the first pause between looks, and the longest.
const PROBE_PAUSE_LEAST_NS: u64 = 20_000;
const PROBE_PAUSE_MOST_NS: u64 = 2_000_000;
/// Looks for evidence with such a pause because of one death futex: they take about a second.
const PROBES_MOST: u32 = 500;

/// A thread that waits for the owner of a lock word: its identity, its deadline, and how often it has spun and slept.
/// That decides whether it may barge, and when it looks for evidence.
pub(crate) struct Waiter<'a, E> {
    pub(crate) me: &'a Thread<'a>,
    pub(crate) env: &'a E,
    /// On the clock of [`Park::now`]. `None`: it waits for ever; `Some(0)`: it does not wait.
    pub(crate) deadline: Option<u64>,
    /// How it announces its wait in its pending word.
    pub(crate) kind: PendingKind,
    /// The flags with which it takes the word: [`LockFlags::UPGRADABLE`], or none.
    pub(crate) taking: LockFlags,
    /// Pauses since it last slept.
    turn: u32,
    /// [`Park::spin`] has not refused since it last slept.
    spinning: bool,
    /// It has slept: a wake-up may have been meant for it.
    pub(crate) parked: bool,
    /// How often it has slept.
    pub(crate) losses: u32,
    /// It has raised the starving flag.
    pub(crate) raised: bool,
    /// The bias of the word that it last slept on.
    bias: Option<Bias>,
    pub(crate) watch: Watch,
}

impl<'a, E: Park> Waiter<'a, E> {
    /// A thread that waits to own the word, with these flags.
    pub(crate) fn to_own(
        me: &'a Thread<'a>,
        env: &'a E,
        deadline: Option<u64>,
        taking: LockFlags,
    ) -> Self {
        Self {
            me,
            env,
            deadline,
            kind: PendingKind::Exclusive,
            taking,
            turn: 0,
            spinning: true,
            parked: false,
            losses: 0,
            raised: false,
            bias: None,
            watch: Watch::default(),
        }
    }

    /// A thread that waits until no writer keeps readers out.
    pub(crate) fn to_read(me: &'a Thread<'a>, env: &'a E, deadline: Option<u64>) -> Self {
        Self { kind: PendingKind::Shared, ..Self::to_own(me, env, deadline, LockFlags::NONE) }
    }

    /// Spins once before `word`, unless it is time to sleep.
    pub(crate) fn spin(&mut self, word: &AtomicU64) -> bool {
        if !self.spinning {
            return false;
        }
        let more = self.env.spin(word, self.turn);
        if more {
            self.turn = self.turn.saturating_add(1);
        } else {
            self.spinning = false;
            if self.turn > 0 {
                self.env.has_spun(word, false);
            }
        }
        more
    }

    /// The lock has been taken.
    pub(crate) fn won(&self, word: &AtomicU64) {
        if self.spinning && self.turn > 0 {
            self.env.has_spun(word, true);
        }
    }

    pub(crate) fn slept(&mut self) {
        self.parked = true;
        self.losses = self.losses.saturating_add(1);
        self.turn = 0;
        self.spinning = true;
    }

    /// Whether it is about to sleep for the first time on a word with this bias. The thread that is
    /// inside may have been leaving when the bias was revoked, and then wakes nobody.
    pub(crate) fn is_first_at(&mut self, seen: LockWord) -> bool {
        let before = mem::replace(&mut self.bias, seen.bias());
        self.bias.is_some() && self.bias != before
    }
}

/// An owner that is being waited for.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    owner: Option<Owner>,
    /// When its death was first found imminent, or its death futex fired.
    told_at: Option<u64>,
    /// Looks since then, without a pause and with one.
    looks: u32,
    probes: u32,
}

/// What a waiter does about the owner that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Look for evidence of the owner's death first.
    pub(crate) look: bool,
    /// If the owner lives, sleep so many nanoseconds at most; 0: look again at once.
    pub(crate) slice_ns: u64,
}

impl Watch {
    pub(crate) fn plan(&mut self, owner: Owner, notice: DeathNotice, now: u64, late: bool) -> Plan {
        let known = self.owner == Some(owner);
        if !known {
            *self = Self { owner: Some(owner), ..Self::default() };
        }
        match notice {
            DeathNotice::Imminent if !late && self.hurries(now) => {
                self.looks += 1;
                Plan { look: false, slice_ns: 0 }
            }
            DeathNotice::Imminent if self.probes == 0 => {
                self.probes = 1;
                Plan { look: late, slice_ns: DUE_NS }
            }
            DeathNotice::Fired if self.hurries(now) => {
                self.looks += 1;
                Plan { look: true, slice_ns: 0 }
            }
            DeathNotice::Imminent | DeathNotice::Fired if self.probes < PROBES_MOST => {
                let pause = PROBE_PAUSE_LEAST_NS << self.probes.min(16);
                self.probes += 1;
                Plan { look: true, slice_ns: pause.min(PROBE_PAUSE_MOST_NS) }
            }
            DeathNotice::Pending => Plan {
                look: late || known,
                slice_ns: if known { RECHECK_NS } else { FIRST_RECHECK_NS },
            },
            DeathNotice::Unavailable | DeathNotice::Imminent | DeathNotice::Fired => Plan {
                look: late || known,
                slice_ns: if known { SLICE_NS } else { FIRST_SLICE_NS },
            },
        }
    }

    /// Whether the waiter learned of the owner's death so recently that it should not sleep yet.
    fn hurries(&mut self, now: u64) -> bool {
        let since = now.saturating_sub(*self.told_at.get_or_insert(now));
        since < EAGER_PROBE_NS && self.looks < LOOKS_AT_ONCE
    }
}

/// What a waiter does next about a word that has an owner.
#[derive(Debug)]
pub(crate) enum Step {
    /// Look again.
    Again,
    /// The owner is dead: take the word from it.
    Dead,
    /// Sleep while the word has this value and this owner lives, until this time.
    Sleep(LockWord, Owner, u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonhold_layout::{PeerId, ThreadId};

    fn owner(peer: u16) -> Owner {
        Owner::new(PeerId::new(peer), 1, ThreadId::FIRST).unwrap()
    }

    #[test]
    fn without_a_death_futex_evidence_is_looked_for_from_the_second_look_on() {
        let mut watch = Watch::default();
        let mut plan = |peer, late| watch.plan(owner(peer), DeathNotice::Unavailable, 7, late);
        assert_eq!(plan(1, false), Plan { look: false, slice_ns: FIRST_SLICE_NS });
        assert_eq!(plan(1, false), Plan { look: true, slice_ns: SLICE_NS });
        // Another owner begins anew, unless there is no time left.
        assert_eq!(plan(2, false), Plan { look: false, slice_ns: FIRST_SLICE_NS });
        assert!(plan(1, true).look);
    }

    #[test]
    fn with_a_silent_death_futex_evidence_is_looked_for_at_long_intervals() {
        let mut watch = Watch::default();
        let mut plan = |late| watch.plan(owner(1), DeathNotice::Pending, 7, late);
        assert_eq!(plan(false), Plan { look: false, slice_ns: FIRST_RECHECK_NS });
        for _ in 0..3 {
            assert_eq!(plan(false), Plan { look: true, slice_ns: RECHECK_NS });
        }
        assert!(Watch::default().plan(owner(1), DeathNotice::Pending, 0, true).look);
    }

    #[test]
    fn an_imminent_death_is_waited_for_before_evidence_is_looked_for() {
        let mut watch = Watch::default();
        let mut plan = |now| watch.plan(owner(1), DeathNotice::Imminent, now, false);
        assert_eq!(plan(7), Plan { look: false, slice_ns: 0 });
        assert_eq!(plan(EAGER_PROBE_NS + 7), Plan { look: false, slice_ns: DUE_NS });
        let next = plan(EAGER_PROBE_NS + 8);
        assert!(next.look && (1..DUE_NS).contains(&next.slice_ns));
        assert!(Watch::default().plan(owner(1), DeathNotice::Imminent, 0, true).look);
    }

    #[test]
    fn a_clock_that_stands_still_does_not_make_a_waiter_look_for_ever() {
        let mut watch = Watch::default();
        let mut plans = (0..).map(|_| watch.plan(owner(1), DeathNotice::Fired, 0, false));
        assert_eq!(plans.position(|plan| plan.slice_ns > 0), Some(LOOKS_AT_ONCE as usize));
    }

    #[test]
    fn a_fired_death_futex_causes_quick_looks_and_is_not_believed_for_ever() {
        let mut watch = Watch::default();
        for now in [7, 8, EAGER_PROBE_NS] {
            let plan = watch.plan(owner(1), DeathNotice::Fired, now, false);
            assert_eq!(plan, Plan { look: true, slice_ns: 0 });
        }
        let mut total = 0;
        for _ in 0..PROBES_MOST {
            let plan = watch.plan(owner(1), DeathNotice::Fired, EAGER_PROBE_NS + 7, false);
            assert!(plan.look && (1..=PROBE_PAUSE_MOST_NS).contains(&plan.slice_ns));
            total += plan.slice_ns;
        }
        assert!((500_000_000..2_000_000_000).contains(&total));
        let plan = watch.plan(owner(1), DeathNotice::Fired, EAGER_PROBE_NS + 8, false);
        assert_eq!(plan.slice_ns, SLICE_NS);
        // The death futex of another owner is believed anew.
        assert_eq!(watch.plan(owner(2), DeathNotice::Fired, 0, false).slice_ns, 0);
    }
}
