//! Peers of several kernels in one space.

use super::*;
use commonhold_sync::{LockError, Release};

fn heartbeat(peer: &Peer) -> u64 {
    peer.space.view().peer_record(peer.space.peer()).unwrap().0.heartbeat
}

#[test]
fn a_space_spans_kernels_while_peers_of_several_are_attached() {
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
fn while_peers_of_another_kernel_are_attached_a_waiter_relies_on_no_wake_and_counts_heartbeats() {
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
fn a_fenced_peer_does_not_count_up_the_heartbeat_of_its_successor() {
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
fn a_peer_that_is_assumed_dead_loses_its_lock_and_can_no_longer_unlock_it() {
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
fn only_heartbeats_of_peers_of_other_kernels_are_watched() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    assert_eq!(a.space.unproven().count(), 0);
    let c = world.attach_from(BootId(8));
    let unproven: Vec<_> = a.space.unproven().map(|record| record.peer).collect();
    assert_eq!(unproven, [c.space.peer()]);
    let unproven: Vec<_> = c.space.unproven().map(|record| record.peer).collect();
    assert_eq!(unproven, [a.space.peer(), b.space.peer()]);
    // The test's world gives the verdict at once; `watch` asks for it, which fences the peer.
    world.living.lock().unwrap().remove(&c.space.peer().get());
    a.space.watch();
    assert!(!c.space.is_live());
}

/// The bug: in a space with a lease, a guest without threads destroyed a large region. It wrote zeros for longer
/// than the lease, was declared dead for its silence, and wrote on, over the data of other peers.
#[test]
fn a_peer_that_releases_much_memory_counts_heartbeats_and_stops_once_it_was_declared_dead() {
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
