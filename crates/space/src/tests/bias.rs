//! Threads that died inside of a biased mutex.

use commonhold_layout::{
    Bias, BiasState, BiasTarget, LockFlags, LockWord, Offset, Owner, bias_entry, thread_word,
};
use commonhold_sync::{Mutex, MutexHold, Release};

use super::*;

/// A peer dies inside of a mutex, by a bias, and is reaped. Returns the dead owner, and the word of the mutex
/// afterwards.
fn word_after_a_death(at_of: impl Fn(&Peer) -> Offset) -> (Owner, LockWord) {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let at = at_of(&a);
    let (peer, thread) = (b.space.peer(), b.me().owner().thread());
    let bias = Bias { peer, thread, number: 7 };
    let view = a.space.view();
    let word = view.window().word(at).unwrap();
    word.store(LockWord::biased(bias).word(), Ordering::SeqCst);
    let slot = b.space.view().thread(peer, thread).unwrap();
    let entry = thread_word::BIAS + 2 * bias_entry(at);
    slot[entry].store(BiasTarget::new(at).word(), Ordering::SeqCst);
    slot[entry + 1].store(BiasState::new(7).inside().word(), Ordering::SeqCst);
    let dead = b.me().owner();
    assert_eq!(b.space.view().inside(bias, at), Some(dead));
    b.die();
    assert_eq!(a.space.reap(&a.me(), Patience::DEFAULT).unwrap().peers, 1);
    (dead, LockWord::from_word(word.load(Ordering::SeqCst)))
}

fn place_of(peer: &Peer, beyond: u64) -> Offset {
    let mapped = peer.map("x").unwrap();
    peer.unmap(mapped).unwrap();
    Offset::new(mapped.extent.start().get() + 64 + beyond).unwrap()
}

#[test]
fn the_next_owner_of_a_mutex_is_told_which_thread_died_inside_by_a_bias() {
    let (dead, word) = word_after_a_death(|peer| place_of(peer, 0));
    assert_eq!(word, LockWord::left(dead, LockFlags::INCONSISTENT));
}

/// The slot is not reaped here: the next thread of the same peer claims it.
#[test]
fn a_claimed_slot_marks_the_mutex_with_the_thread_that_died_inside_and_not_with_its_heir() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    a.create("x", PAGE).unwrap();
    let at = place_of(&a, 0);
    let lock = Mutex::new(a.space.view().window().word(at).unwrap(), at);
    let claimed = a.space.claim_thread(2).unwrap();
    let dead = a.space.thread(claimed).unwrap();
    let mut hold = None;
    // Locks and unlocks until the mutex is biased to the thread, and the thread is inside.
    while hold.is_none_or(|hold: MutexHold<'_>| !hold.is_biased()) {
        if let Some(hold) = hold.take()
            && !lock.unlock_biased(hold)
        {
            let how = Release::Done;
            lock.unlock_biased_slowly(&dead, a.space.view(), hold, how).unwrap();
        }
        hold = lock.lock_biased(&dead);
        if hold.is_none() {
            let taken = lock.lock_biased_slowly(&dead, a.space.view(), None);
            assert_eq!(taken, Ok(Taken::Clean));
            hold = Some(lock.hold(&dead, dead.owner().word()));
        }
    }
    let slot = a.space.view().thread_slot(a.space.peer(), claimed.thread).unwrap();
    assert!(slot.mark_dead(claimed.life));
    let heir = a.space.claim_thread(3).unwrap();
    assert_eq!(heir.thread, claimed.thread);
    assert_eq!(lock.look(), LockWord::left(dead.owner(), LockFlags::INCONSISTENT));
    assert_eq!(lock.try_lock(&a.me(), a.space.view()), told_of(dead.owner()));
}

#[test]
fn a_mutex_whose_region_is_gone_is_not_touched() {
    let gone = |peer: &Peer| {
        let at = place_of(peer, 0);
        peer.destroy("x", Destroy::Wait).unwrap();
        at
    };
    assert!(word_after_a_death(gone).1.is_biased());
    assert!(word_after_a_death(|peer| place_of(peer, PAGE)).1.is_biased());
}
