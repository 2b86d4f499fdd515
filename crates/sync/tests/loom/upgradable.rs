//! The upgradable side of the reader/writer lock.

use commonhold_sync::{Liveness, LockError, Park, Release, RwLock, Taken};
use commonhold_window::atomic::Ordering;
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

const KEY: u64 = 77;

fn lock(world: &World) -> RwLock<'_, &World> {
    let words = world.words.first_chunk().unwrap();
    RwLock::new(words, World::at(0), KEY, world)
}

fn read(world: &World, peer: usize) -> u64 {
    let me = world.me(peer);
    let (_, hold) = lock(world).read(&me, world, None).unwrap();
    let seen = world.read_data();
    lock(world).unlock_read(&me, world, hold).unwrap();
    seen
}

fn write(world: &World, peer: usize) -> Taken {
    let me = world.me(peer);
    let taken = lock(world).write(&me, world, None).unwrap();
    if taken.is_owner_died() {
        lock(world).writer().mark_consistent(&me).unwrap();
    }
    world.write_data();
    lock(world).unlock_write(&me, world, Release::Done).unwrap();
    taken
}

/// Reads the data, upgrades, and changes them; checks that no other thread changes them in between.
fn look_and_change(world: &World, peer: usize, env: &(impl Park + Liveness), step: impl Fn()) {
    let me = world.me(peer);
    let taken = lock(world).upgradable_read(&me, env, None).unwrap();
    let before = world.read_data();
    step();
    lock(world).upgrade(&me, env, None).map(drop).unwrap();
    step();
    assert_eq!(world.read_data(), before);
    world.write_data();
    step();
    lock(world).downgrade(&me, env, Release::Done).unwrap();
    step();
    assert_eq!(world.read_data(), before + 1);
    lock(world).unlock_upgradable(&me, env, taken).unwrap();
}

fn is_free(world: &World) -> bool {
    world.words[0].load(Ordering::SeqCst) == 0
}

#[test]
fn an_upgrade_waits_for_the_reader_and_keeps_it_out_while_it_writes() {
    check(3, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || read(&other, 1));
        look_and_change(&world, 0, &*world, || ());
        assert!(reader.join().unwrap() <= 1);
        assert!(is_free(&world));
    });
}

#[test]
fn two_upgraders_and_a_writer_take_turns() {
    check(2, || {
        let world = World::new();
        let (one, two) = (Arc::clone(&world), Arc::clone(&world));
        let upgrader = thread::spawn(move || look_and_change(&one, 1, &*one, || ()));
        let writer = thread::spawn(move || write(&two, 2));
        look_and_change(&world, 0, &*world, || ());
        upgrader.join().unwrap();
        assert_eq!(writer.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 3);
        assert!(is_free(&world));
    });
}

/// The reader fell asleep while a writer had the lock; the wake-up may go to another writer instead.
#[test]
fn a_reader_that_sleeps_is_let_in_by_an_upgradable_owner_that_barges_in() {
    check(3, || {
        let world = World::new();
        let me = world.me(0);
        lock(&world).write(&me, &*world, None).map(drop).unwrap();
        let (one, two) = (Arc::clone(&world), Arc::clone(&world));
        let reader = thread::spawn(move || read(&one, 1));
        let writer = thread::spawn(move || write(&two, 2));
        lock(&world).unlock_write(&me, &*world, Release::Done).unwrap();
        lock(&world).upgradable_read(&me, &*world, None).map(drop).unwrap();
        // The lock is not freed before the reader has been let in.
        assert!(reader.join().unwrap() <= 1);
        lock(&world).unlock_upgradable(&me, &*world, Taken::Clean).unwrap();
        assert_eq!(writer.join().unwrap(), Taken::Clean);
        assert!(is_free(&world));
    });
}

#[test]
fn a_downgrade_lets_the_reader_in_that_sleeps() {
    check(3, || {
        let world = World::new();
        let me = world.me(0);
        lock(&world).upgradable_read(&me, &*world, None).map(drop).unwrap();
        lock(&world).upgrade(&me, &*world, None).map(drop).unwrap();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || read(&other, 1));
        world.write_data();
        lock(&world).downgrade(&me, &*world, Release::Done).unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        lock(&world).unlock_upgradable(&me, &*world, Taken::Clean).unwrap();
        assert!(is_free(&world));
    });
}

/// The thread that waits for the right to upgrade has slept, as the reader has.
#[test]
fn an_upgradable_owner_that_has_slept_lets_readers_in() {
    check(3, || {
        let world = World::new();
        let me = world.me(0);
        lock(&world).write(&me, &*world, None).map(drop).unwrap();
        let (one, two) = (Arc::clone(&world), Arc::clone(&world));
        let reader = thread::spawn(move || read(&one, 1));
        let upgrader = thread::spawn(move || {
            let me = two.me(2);
            lock(&two).upgradable_read(&me, &*two, None).map(drop).unwrap();
            reader.join().unwrap();
            lock(&two).unlock_upgradable(&me, &*two, Taken::Clean).unwrap();
        });
        world.write_data();
        lock(&world).unlock_write(&me, &*world, Release::Done).unwrap();
        upgrader.join().unwrap();
        assert!(is_free(&world));
    });
}

#[test]
fn wherever_the_owner_dies_a_reader_and_a_writer_get_the_lock() {
    for steps in 0..6 {
        check(2, move || {
            let world = World::new();
            let (one, two) = (Arc::clone(&world), Arc::clone(&world));
            let reader = thread::spawn(move || read(&one, 1));
            let writer = thread::spawn(move || write(&two, 0));
            let finished = Mortal::live(&world, 2, steps, |env| {
                look_and_change(&world, 2, env, || env.step());
            });
            world.end_slices();
            reader.join().unwrap();
            let told = writer.join().unwrap();
            assert!(!finished || told == Taken::Clean, "nobody died");
            assert!(is_free(&world) || !finished);
        });
    }
}

/// The owner has written nothing, so nothing is half changed.
#[test]
fn after_an_upgradable_owner_dies_one_writer_takes_over_and_is_told_nothing() {
    check(3, || {
        let world = World::new();
        lock(&world).upgradable_read(&world.me(2), &*world, None).map(drop).unwrap();
        world.bury(2);
        let other = Arc::clone(&world);
        let writer = thread::spawn(move || write(&other, 1));
        assert_eq!(write(&world, 0), Taken::Clean);
        assert_eq!(writer.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 2);
        let late = lock(&world).upgrade(&world.me(2), &*world, None);
        assert_eq!(late, Err(LockError::Fenced));
    });
}

/// No slice ends here: the reaper of the reader must wake the upgrader.
#[test]
fn an_upgrade_waits_no_longer_for_a_reader_that_dies() {
    check(3, || {
        let world = World::new();
        let (_, hold) = lock(&world).read(&world.me(2), &*world, None).unwrap();
        let other = Arc::clone(&world);
        let upgrader = thread::spawn(move || look_and_change(&other, 1, &*other, || ()));
        Mortal::live(&world, 2, 0, |env| {
            lock(&world).unlock_read(&world.me(2), env, hold).unwrap();
        });
        upgrader.join().unwrap();
        assert!(is_free(&world));
    });
}
