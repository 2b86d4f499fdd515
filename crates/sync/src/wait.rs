//! One wait for a lock, from its first look to its end: when to spin, when to look for evidence of an
//! owner's death, and how long to sleep.
//!
//! # Invariants
//! 1. DeathCheck is looked for when a death futex has rung, when time is up, and otherwise only of an owner that
//!    had the lock before the last sleep: most waits end before that, and cost no search.
//! 2. A death futex is a hint. A process that is being killed rings before the last of its threads has ended,
//!    so evidence is looked for again and again then, at growing intervals; and one that rings for nothing
//!    is believed for [`RINGS`] looks only.
//! 3. That no mark and no death futex has come proves nothing: an owner can end without either. So a waiter looks for other
//!    evidence after [`FIRST_RECHECK_NS`], and then every [`RECHECK_NS`]. The same bounds what it costs
//!    if a waiter that is stopped, or dies, has taken the wake-up that was meant for all.

use core::mem;

use commonhold_layout::{Bias, LockFlags, LockWord, Owner, PendingKind};
use commonhold_window::atomic::AtomicU64;

use crate::{DeathNotice, FIRST_SLICE_NS, Park, SLICE_NS, Thread};

/// The first sleep of a waiter whom the owner's death should wake.
const FIRST_RECHECK_NS: u64 = 10_000_000;
/// And its longest.
const RECHECK_NS: u64 = 100_000_000;
/// The first sleep of a waiter whom a death that is due will wake, if it has not come while the waiter gave way to others
/// for [`EAGER_PROBE_NS`]. To look for evidence meanwhile would keep the dying from a processor.
const DUE_NS: u64 = 1_000_000;
/// For so long after a death futex has rung, evidence is looked for again and again without a pause, since the
/// process that rang is about to end: a sleep could not be as short as what is left to wait.
const EAGER_PROBE_NS: u64 = 500_000;
/// And so often, should the clock stand still.
const LOOKS_AT_ONCE: u32 = 10_000;
/// Then the first pause between looks, and the longest.
const RUNG_LEAST_NS: u64 = 20_000;
const RUNG_MOST_NS: u64 = 2_000_000;
/// Looks for evidence with a pause because of a death futex: about a second of them.
const RINGS: u32 = 500;

/// A thread that waits for the owner of a lock word: who it is, until when it waits, and what it has been through. That
/// decides whether it may barge, and when it looks for evidence.
pub(crate) struct Waiter<'a, E> {
    pub(crate) me: &'a Thread<'a>,
    pub(crate) env: &'a E,
    /// On the clock of [`Park::now`]. `None`: it waits for ever; `Some(0)`: it does not wait.
    pub(crate) deadline: Option<u64>,
    /// What it announces that it waits for.
    pub(crate) kind: PendingKind,
    /// What it takes the word with: [`LockFlags::UPGRADABLE`], or nothing.
    pub(crate) taking: LockFlags,
    turn: u32,
    /// It has not been told to sleep since it last did.
    spinning: bool,
    /// It has slept: it may be the one that a wake-up was meant for.
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

    /// A thread that waits until nobody keeps readers out.
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

    /// Whether it is about to sleep on a word with a bias on which it did not sleep before. The thread that is
    /// inside may have been on its way out when the bias was revoked, and wake nobody.
    pub(crate) fn is_first_at(&mut self, seen: LockWord) -> bool {
        let before = mem::replace(&mut self.bias, seen.bias());
        self.bias.is_some() && self.bias != before
    }
}

/// An owner that is being waited for.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    owner: Option<Owner>,
    /// When its death futex was first found rung.
    rung_at: Option<u64>,
    /// Looks for evidence since then, without a pause and with one.
    looks: u32,
    rings: u32,
}

/// What a waiter does about an owner that has what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Look for evidence of its death first.
    pub(crate) look: bool,
    /// If it lives, sleep so many nanoseconds at most; 0: look again at once.
    pub(crate) slice_ns: u64,
}

impl Watch {
    pub(crate) fn plan(
        &mut self,
        owner: Owner,
        death_futex: DeathNotice,
        now: u64,
        late: bool,
    ) -> Plan {
        let known = self.owner == Some(owner);
        if !known {
            *self = Self { owner: Some(owner), ..Self::default() };
        }
        match death_futex {
            DeathNotice::Imminent if !late && self.hurries(now) => {
                self.looks += 1;
                Plan { look: false, slice_ns: 0 }
            }
            DeathNotice::Imminent if self.rings == 0 => {
                self.rings = 1;
                Plan { look: late, slice_ns: DUE_NS }
            }
            DeathNotice::Fired if self.hurries(now) => {
                self.looks += 1;
                Plan { look: true, slice_ns: 0 }
            }
            DeathNotice::Imminent | DeathNotice::Fired if self.rings < RINGS => {
                let pause = RUNG_LEAST_NS << self.rings.min(16);
                self.rings += 1;
                Plan { look: true, slice_ns: pause.min(RUNG_MOST_NS) }
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

    /// Whether the death futex of the owner has rung so lately that it is worth not to sleep.
    fn hurries(&mut self, now: u64) -> bool {
        let since = now.saturating_sub(*self.rung_at.get_or_insert(now));
        since < EAGER_PROBE_NS && self.looks < LOOKS_AT_ONCE
    }
}

/// What a waiter does next about a word that somebody owns.
#[derive(Debug)]
pub(crate) enum Step {
    /// Look again.
    Again,
    /// The owner has been fenced: take the word from it.
    Dead,
    /// Sleep while the word is this and the owner lives, until then.
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
    fn a_waiter_that_should_be_told_of_a_death_looks_for_evidence_all_the_same() {
        let mut watch = Watch::default();
        let mut plan = |late| watch.plan(owner(1), DeathNotice::Pending, 7, late);
        assert_eq!(plan(false), Plan { look: false, slice_ns: FIRST_RECHECK_NS });
        for _ in 0..3 {
            assert_eq!(plan(false), Plan { look: true, slice_ns: RECHECK_NS });
        }
        assert!(Watch::default().plan(owner(1), DeathNotice::Pending, 0, true).look);
    }

    #[test]
    fn a_death_that_is_due_is_waited_for_before_evidence_is_looked_for() {
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
    fn a_death_futex_that_rings_is_followed_by_quick_looks_and_not_believed_for_ever() {
        let mut watch = Watch::default();
        for now in [7, 8, EAGER_PROBE_NS] {
            let plan = watch.plan(owner(1), DeathNotice::Fired, now, false);
            assert_eq!(plan, Plan { look: true, slice_ns: 0 });
        }
        let mut total = 0;
        for _ in 0..RINGS {
            let plan = watch.plan(owner(1), DeathNotice::Fired, EAGER_PROBE_NS + 7, false);
            assert!(plan.look && (1..=RUNG_MOST_NS).contains(&plan.slice_ns));
            total += plan.slice_ns;
        }
        assert!((500_000_000..2_000_000_000).contains(&total));
        let plan = watch.plan(owner(1), DeathNotice::Fired, EAGER_PROBE_NS + 8, false);
        assert_eq!(plan.slice_ns, SLICE_NS);
        // Another owner's death futex is heard anew.
        assert_eq!(watch.plan(owner(2), DeathNotice::Fired, 0, false).slice_ns, 0);
    }
}
