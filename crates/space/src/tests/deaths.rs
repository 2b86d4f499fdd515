//! What dead peers leave behind, and how it is taken over.

use super::*;

/// The bug: if the word of the directory mutex named a peer without evidence as its owner, `create` waited for ever,
/// since nothing could prove that peer dead.
#[test]
fn a_directory_held_by_a_suspect_is_an_error_and_not_a_hang() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    world.suspects.lock().unwrap().insert(b.space.peer().get());
    let owner = b.me().owner();
    world.words[64].store(owner.word().word(), Ordering::Relaxed);
    let slot = b.space.peer().get();
    assert_eq!(a.create("x", 1), Err(DirectoryError::HeldBySuspect { slot }));
    world.suspects.lock().unwrap().clear();
    world.living.lock().unwrap().remove(&slot);
    a.create("x", 1).unwrap();
}

#[test]
fn slots_mappings_and_locks_of_the_dead_are_recovered() {
    let world = World::formatted(1 << 20);
    let (a, b) = (world.attach(), world.attach());
    a.create("x", PAGE).unwrap();
    let theirs = b.map("x").unwrap();
    let lock = b.lock_of(theirs);
    let _ = lock.write(&b.me(), b.space.view(), None).unwrap();
    let (slot, owner) = (b.space.peer(), b.me().owner());
    b.die();
    let mine = a.map("x").unwrap();
    let lock = a.lock_of(mine);
    assert_eq!(lock.write(&a.me(), a.space.view(), None), told_of(owner));
    lock.writer().mark_consistent(&a.me()).unwrap();
    lock.unlock_write(&a.me(), a.space.view(), commonhold_sync::Release::Done).unwrap();
    assert_eq!(a.space.reap(&a.me(), Patience::DEFAULT).unwrap().peers, 1);
    a.unmap(mine).unwrap();
    a.destroy("x", Destroy::Wait).unwrap();
    assert_eq!(world.attach().space.peer(), slot);
}

/// The bug: `a` reaped `b`. It had looked at the entry of `c`, which lived. Then `c` died, a fourth peer fenced it,
/// and `a` freed its slot together with `b`'s. No dead peer was left because of which the entry would have been
/// looked at again: its bytes were lost, except to a create of the same name.
#[test]
fn a_peer_that_dies_while_another_is_reaped_leaves_nothing_either() {
    let world = World::formatted(1 << 20);
    let (a, b, c) = (world.attach(), world.attach(), world.attach());
    c.create("c", PAGE).unwrap();
    b.create("b", PAGE).unwrap();
    for (peer, name) in [(&c, "c"), (&b, "b")] {
        *world.at_release.lock().unwrap() = Some(|_| panic!("the end of a process"));
        let freed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            peer.destroy(name, Destroy::Wait)
        }));
        assert!(freed.is_err());
    }
    assert_eq!(c.space.peer(), PeerId::new(2));
    b.die();
    *world.at_release.lock().unwrap() = Some(|world| {
        world.living.lock().unwrap().remove(&2);
        let fourth = View::open(world.machine()).unwrap();
        let c = PeerRef::new(PeerId::new(2), 1);
        assert_eq!(fourth.verdict_of(c), Verdict::Dead);
    });
    while a.space.reap(&a.me(), Patience::DEFAULT).unwrap().freed_anything() {}
    assert_eq!(a.check(), crate::Census { largest_free: a.check().largest_free, ..<_>::default() });
    assert_eq!(world.data_pages(&a.space), 0);
}

#[test]
fn slots_of_the_dead_are_reused_and_a_full_table_is_an_error() {
    let world = World::formatted(1 << 20);
    let mut peers: Vec<Peer> = (0..16).map(|_| world.attach()).collect();
    let identity = Identity {
        boot: BootId(7),
        pid: 0,
        pid_namespace: 0,
        start_time: 0,
        uid: 0,
        name: PeerName::default(),
    };
    let refused = Attached::attach(View::open(world.machine()).unwrap(), &identity).unwrap_err();
    assert_eq!(refused, AttachError::NoSlot { peers: 16, locked: None });
    let dead = peers.swap_remove(5);
    let (slot, generation) = (dead.space.peer(), dead.space.generation());
    dead.die();
    let heir = world.attach();
    assert_eq!((heir.space.peer(), heir.space.generation()), (slot, generation + 1));
}
