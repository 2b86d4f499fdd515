//! Domain records: the kernels whose peers use the space. A *domain* is one running kernel.
//!
//! # What it owns
//! How a peer finds, makes or takes over the record of its kernel.
//!
//! # Invariants
//! 1. Records are taken in order: all records before a used one are used. A kernel does not give its record back when
//!    its last peer leaves; the record stays used until another kernel takes it over. So if the second record was
//!    never used, peers conclude that there has been one kernel only.
//! 2. A free record becomes a kernel's by several compare-and-swaps. Any peer of that kernel may make each of them,
//!    so if one peer stops or dies in between, another completes the record.
//! 3. A peer writes into its own record which domain record is its kernel's, and then looks whether that record
//!    is in use. If no record is left for a new kernel, a peer of that kernel takes over one that no peer names: it
//!    marks the record free for the moment, and then looks once more at which records peers name. If a peer names it
//!    by now, it makes the record used again and leaves it; if not, it writes its own kernel's boot id, and makes the
//!    record used. All these accesses are `SeqCst` (Dekker's pattern), so one of the two peers sees the other.
//! 4. Only a takeover needs the directory mutex.

use core::sync::atomic::{AtomicU64, Ordering};

use commonhold_layout::{BootId, DomainState, PeerPhase, domain_word, peer_word};
use commonhold_sync::Thread;
use commonhold_window::Point;

use crate::{AttachError, DirectoryError, Patience, Platform, View, budget::Budget};

const FREE: u64 = DomainState::Free.word();
const USED: u64 = DomainState::Used.word();

#[allow(clippy::cast_possible_truncation, reason = "the halves of the boot id are meant")]
const fn halves(boot: BootId) -> (u64, u64) {
    (boot.0 as u64, (boot.0 >> 64) as u64)
}

/// Changes a word from `from` to `to`; whether it is `to` afterwards.
fn settle_word(word: &AtomicU64, from: u64, to: u64) -> bool {
    // SeqCst: as AcqRel it pairs with itself; a peer that finds one half of a boot id finds what was written before
    // it.
    match word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => true,
        Err(found) => found == to,
    }
}

/// Finds the record of this peer's kernel, or makes one, and names it in the peer's record.
pub(crate) fn take_domain<P: Platform>(
    view: &View<P>,
    me: &Thread<'_>,
    boot: BootId,
) -> Result<u16, AttachError> {
    let named = &view.peer(me.owner().peer()).map_err(AttachError::damaged)?[peer_word::DOMAIN];
    let domains = view.geometry().domains();
    let budget = Patience::DEFAULT.begin(view);
    loop {
        let known = |index: &u16| view.used_domain(*index) == Some(boot);
        let made = |index: &u16| claim(view, named, *index, boot);
        let found = (0..domains).find(known).or_else(|| (0..domains).find(made));
        let found = match found {
            Some(index) => index,
            None => inherit(view, me, named, boot, budget)?,
        };
        // SeqCst: see the third invariant.
        named.store(found.into(), Ordering::SeqCst);
        if view.used_domain(found) == Some(boot) {
            return Ok(found);
        }
        if budget.is_spent(view) {
            return Err(AttachError::NoDomain { domains });
        }
    }
}

/// Makes record `index` this kernel's. If another kernel was claiming it, completes that claim, and returns `false`.
fn claim<P: Platform>(view: &View<P>, named: &AtomicU64, index: u16, boot: BootId) -> bool {
    let Ok(words) = view.domain(index) else { return false };
    let (low, high) = halves(boot);
    let state = words[domain_word::STATE].load(Ordering::SeqCst);
    if state != FREE {
        return view.used_domain(index) == Some(boot)
            // Our kernel's first peer has not finished writing it: the missing half is written now. Boot ids are
            // random, so no other kernel has the same half.
            || (words[domain_word::BOOT_LOW].load(Ordering::SeqCst) == low
                && low != 0
                && settle_word(&words[domain_word::BOOT_HIGH], 0, high));
    }
    named.store(index.into(), Ordering::SeqCst);
    let ours = settle_word(&words[domain_word::BOOT_LOW], 0, low)
        && settle_word(&words[domain_word::BOOT_HIGH], 0, high);
    if ours {
        Point::AttachDomainWritten.reached();
    }
    // Also if it became another kernel's: this record must be in use before a later one is (invariant 1).
    settle_word(&words[domain_word::STATE], FREE, USED) && ours
}

/// Takes the record of a kernel whose peers are all gone.
fn inherit<P: Platform>(
    view: &View<P>,
    me: &Thread<'_>,
    named: &AtomicU64,
    boot: BootId,
    budget: Budget,
) -> Result<u16, AttachError> {
    let domains = view.geometry().domains();
    // This peer names no record while it has none.
    named.store(u64::MAX, Ordering::SeqCst);
    let _held = view.directory(me, budget).map_err(AttachError::Directory)?;
    if let Some(index) = (0..domains).find(|index| view.used_domain(*index) == Some(boot)) {
        return Ok(index);
    }
    for index in 0..domains {
        let words = view.domain(index).map_err(DirectoryError::from)?;
        if in_use(view, me, index) {
            continue;
        }
        // SeqCst: see the third invariant.
        words[domain_word::STATE].store(FREE, Ordering::SeqCst);
        if in_use(view, me, index) {
            words[domain_word::STATE].store(USED, Ordering::SeqCst);
            continue;
        }
        let (low, high) = halves(boot);
        words[domain_word::BOOT_LOW].store(low, Ordering::Release);
        words[domain_word::BOOT_HIGH].store(high, Ordering::Release);
        Point::AttachDomainWritten.reached();
        // SeqCst: as Release it pairs with the load in `used_domain`; a peer that finds the record in use reads the
        // whole boot id.
        words[domain_word::STATE].store(USED, Ordering::SeqCst);
        return Ok(index);
    }
    Err(AttachError::NoDomain { domains })
}

/// Whether another peer names a record.
fn in_use<P: Platform>(view: &View<P>, me: &Thread<'_>, index: u16) -> bool {
    view.peer_ids().any(|peer| {
        view.peer(peer).is_ok_and(|record| {
            view.peer_state(peer).phase != PeerPhase::Free
                && peer != me.owner().peer()
                && record[peer_word::DOMAIN].load(Ordering::SeqCst) == u64::from(index)
        })
    })
}
