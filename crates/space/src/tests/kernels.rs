//! Peers of several kernels in one space.

use super::*;
use commonhold_sync::{LockError, Release};

fn heartbeat(peer: &Peer) -> u64 {
    peer.space.view().peer_record(peer.space.peer()).unwrap().0.heartbeat
}

#[test]
fn a_space_spans_kernels_as_long_as_peers_of_several_are_attached() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    assert!(!a.space.view().spans_kernels());
    let c = world.attach_from(BootId(8));
    assert!(a.space.view().spans_kernels() && c.space.view().spans_kernels());
    b.space.detach().unwrap();
    assert!(a.space.view().spans_kernels());
    a.space.detach().unwrap();
    assert!(!c.space.view().spans_kernels());
}

#[test]
fn a_waiter_relies_on_no_wake_while_another_kernel_is_attached_and_its_heart_beats() {
    let world = World::formatted(1 << 20);
    let a = world.attach();
    let wait = || a.space.view().wait(&AtomicU64::new(0), 0, 0);
    wait();
    assert_eq!(world.polls.load(Ordering::Relaxed), 0);
    let before = heartbeat(&a);
    let b = world.attach_from(BootId(8));
    wait();
    assert_eq!(world.polls.load(Ordering::Relaxed), 1);
    assert_eq!(heartbeat(&a), before + 1);
    assert_eq!(heartbeat(&b), 0);
}

#[test]
fn nobody_keeps_the_successor_in_its_slot_alive() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach_from(BootId(8)));
    let slot = b.space.peer();
    assert!(a.space.view().assume_dead(slot, b.space.generation()));
    assert!(!a.space.view().assume_dead(slot, b.space.generation()));
    world.living.lock().unwrap().remove(&slot.get());
    a.space.reap(&a.me(), Patience::DEFAULT).unwrap();
    let c = world.attach();
    assert_eq!(c.space.peer(), slot);
    b.space.beat();
    assert_eq!(heartbeat(&c), 0);
    c.space.beat();
    assert_eq!(heartbeat(&c), 1);
}

#[test]
fn who_is_assumed_dead_loses_its_lock_and_cannot_free_it_any_more() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach_from(BootId(8)));
    a.create("x", 0).unwrap();
    let (ours, theirs) = (a.map("x").unwrap(), b.map("x").unwrap());
    let _ = b.lock_of(theirs).write(&b.me(), b.space.view(), None).unwrap();
    world.suspects.lock().unwrap().insert(b.space.peer().get());
    let at_once = a.lock_of(ours).write(&a.me(), a.space.view(), Some(0));
    assert_eq!(at_once, Err(LockError::TimedOut));
    a.space.view().assume_dead(b.space.peer(), b.space.generation());
    let taken = a.lock_of(ours).write(&a.me(), a.space.view(), Some(0));
    assert_eq!(taken, told_of(b.me().owner()));
    let freed = b.lock_of(theirs).unlock_write(&b.me(), b.space.view(), Release::Done);
    assert_eq!(freed, Err(LockError::Fenced));
    a.lock_of(ours).unlock_write(&a.me(), a.space.view(), Release::Inconsistent).unwrap();
}

#[test]
fn the_hearts_of_other_kernels_are_watched_and_those_of_ones_own_are_not_needed() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    assert_eq!(a.space.unproven().count(), 0);
    let c = world.attach_from(BootId(8));
    let unproven: Vec<_> = a.space.unproven().map(|record| record.peer).collect();
    assert_eq!(unproven, [c.space.peer()]);
    let unproven: Vec<_> = c.space.unproven().map(|record| record.peer).collect();
    assert_eq!(unproven, [a.space.peer(), b.space.peer()]);
    // The test's world says at once who is dead; whoever watches fences.
    world.living.lock().unwrap().remove(&c.space.peer().get());
    a.space.watch();
    assert!(!c.space.is_live());
}

/// A guest without threads, in a space with a lease, destroyed a large region: it wrote zeros for longer
/// than the lease, was declared dead for its silence, and wrote on, over whatever others had put there.
#[test]
fn whoever_gives_back_much_memory_beats_meanwhile_and_stops_when_it_was_declared_dead() {
    const SIZE: u64 = 40 << 20;
    let world = World::formatted(64 << 20);
    let a = world.attach();
    a.create("x", SIZE).unwrap();
    let before = heartbeat(&a);
    a.destroy("x", Destroy::Wait).unwrap();
    assert_eq!(heartbeat(&a), before + 3, "once for each 16 MiB");
    assert_eq!(world.data_pages(&a.space), 0);

    a.create("x", SIZE).unwrap();
    *world.at_release.lock().unwrap() = Some(|world| {
        let view = View::open(world.machine()).unwrap();
        assert!(view.assume_dead(PeerId::new(0), 1));
    });
    assert_eq!(a.destroy("x", Destroy::Wait), Err(DirectoryError::Fenced));
    assert_eq!(world.data_pages(&a.space), (SIZE - (16 << 20)) / PAGE, "the first piece is gone");
    let b = world.attach();
    b.space.reap(&b.me(), Patience::DEFAULT).unwrap();
    assert_eq!(world.data_pages(&b.space), 0);
    assert_eq!(b.check().used, 0);
}
