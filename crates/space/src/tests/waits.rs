//! What observers see of a waiting thread.

use super::*;
use crate::WaitTarget;
use commonhold_layout::{Offset, RegionId, header_word, region_word};

#[test]
fn a_second_wait_for_the_same_process_is_not_taken_for_the_first() {
    let world = World::formatted(1 << 20);
    let peer = world.attach();
    let (view, slot) = (peer.space.view(), peer.space.peer());
    let seen = || view.thread_record(slot, peer.thread.thread).unwrap();
    let idle = seen();
    assert!(idle.pending.is_none() && !view.still_waits(slot, &idle));
    peer.me().await_process(5);
    let first = seen();
    assert_eq!(first.pending.and_then(|pending| pending.process()), Some(5));
    assert!(view.still_waits(slot, &first));
    peer.me().awaited();
    assert!(!view.still_waits(slot, &first));
    peer.me().await_process(5);
    assert!(!view.still_waits(slot, &first) && view.still_waits(slot, &seen()));
    // Nor is a wait of the next thread in the slot.
    let first = seen();
    peer.me().awaited();
    peer.space.release_thread(peer.thread);
    let next = peer.space.claim_thread(1).unwrap();
    assert_eq!(next.thread, peer.thread.thread);
    assert_eq!(next.life.incarnation(), peer.thread.life.incarnation() + 1);
    peer.space.thread(next).unwrap().await_process(5);
    assert!(!view.still_waits(slot, &first));
}

#[test]
fn a_wait_for_a_process_is_not_a_wait_for_a_lock_or_event() {
    let world = World::formatted(1 << 20);
    let peer = world.attach();
    peer.me().await_process(5);
    assert_eq!(peer.space.view().pendings(peer.space.peer()).count(), 0);
    assert_eq!(peer.space.view().threads(peer.space.peer()).count(), 1);
}

#[test]
fn every_word_that_a_thread_can_wait_for_is_recognised_by_its_offset() {
    let world = World::formatted(1 << 20);
    let peer = world.attach();
    let view = peer.space.view();
    for name in ["a", "b"] {
        peer.create(name, 4096).unwrap();
    }
    let second = RegionId::new(1);
    let entry = view.geometry().region(second).unwrap();
    let place = |word: usize| view.place(entry.plus(8 * word as u64).unwrap());
    assert_eq!(place(region_word::LOCK), WaitTarget::Lock(second));
    assert_eq!(place(region_word::DRAINED), WaitTarget::Drained(second));
    assert_eq!(place(region_word::UNMAPPED), WaitTarget::Unmapped(second));
    assert!(matches!(place(region_word::READERS), WaitTarget::Elsewhere(_)));
    // Nothing is known of an entry without memory.
    let last = view.geometry().region(RegionId::new(view.geometry().regions() - 1)).unwrap();
    let lock = last.plus(8 * region_word::LOCK as u64).unwrap();
    assert!(view.regions_used().unwrap() < view.geometry().regions());
    assert_eq!(view.place(lock), WaitTarget::Elsewhere(lock));
    let at = |bytes| view.place(Offset::new(bytes).unwrap());
    assert_eq!(at(8 * header_word::DIRECTORY_LOCK as u64), WaitTarget::Directory);
    assert_eq!(at(0), WaitTarget::Elsewhere(Offset::ZERO));
    assert!(matches!(at((1 << 48) - 8), WaitTarget::Elsewhere(_)));
}
