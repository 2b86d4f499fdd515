//! What a reaper does for a thread that died inside of a biased mutex.

use commonhold_layout::{
    Bias, BiasPlace, BiasTurn, LockFlags, LockWord, Offset, bias_entry, thread_word,
};

use super::*;

/// A peer dies inside of a mutex, by a bias, and is reaped. What its word says then.
fn word_after_a_death(at_of: impl Fn(&Peer) -> Offset) -> LockWord {
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
    slot[entry].store(BiasPlace::of(at).word(), Ordering::SeqCst);
    slot[entry + 1].store(BiasTurn::of(7).inside().word(), Ordering::SeqCst);
    assert_eq!(b.space.view().inside(bias, at), Some(b.me().owner()));
    b.die();
    assert_eq!(a.space.reap(&a.me(), Patience::DEFAULT).unwrap().peers, 1);
    LockWord::from_word(word.load(Ordering::SeqCst))
}

fn place_of(peer: &Peer, beyond: u64) -> Offset {
    let mapped = peer.map("x").unwrap();
    let record = peer.space.view().region_record(mapped.handle.region).unwrap().unwrap();
    peer.unmap(mapped).unwrap();
    Offset::new(record.extent.start().get() + 64 + beyond).unwrap()
}

#[test]
fn the_next_owner_of_a_mutex_is_told_that_a_thread_died_inside_by_a_bias() {
    let told = LockWord::unowned(LockFlags::INCONSISTENT);
    assert_eq!(word_after_a_death(|peer| place_of(peer, 0)), told);
}

#[test]
fn a_mutex_whose_region_is_gone_is_not_looked_for() {
    let gone = |peer: &Peer| {
        let at = place_of(peer, 0);
        peer.destroy("x", Destroy::Wait).unwrap();
        at
    };
    assert!(word_after_a_death(gone).is_biased());
    assert!(word_after_a_death(|peer| place_of(peer, PAGE)).is_biased());
}
