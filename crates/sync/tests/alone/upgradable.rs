//! The upgradable side of the reader/writer lock.

use std::sync::atomic::Ordering;

use commonhold_layout::{LockFlags, LockWord};
use commonhold_sync::{LockError, Park, ReadHold, Release, RwLock, Taken, Wake};

use crate::script::{World, told_of};

const KEY: u64 = 77;

fn lock(world: &World) -> RwLock<'_, &World> {
    RwLock::new(world.words.first_chunk().unwrap(), World::at(0), KEY, world)
}

fn word(world: &World) -> LockWord {
    LockWord::from_word(world.words[0].load(Ordering::Relaxed))
}

fn own(world: &World, peer: usize) -> Result<Taken, LockError> {
    lock(world).upgradable_read(&world.me(peer), world, Some(0))
}

fn read(world: &World, peer: usize) -> Result<ReadHold<'_>, LockError> {
    let me = world.me(peer);
    lock(world).read(&me, world, Some(0)).map(|(_, hold)| hold)
}

#[test]
fn readers_come_in_quickly_and_leave_without_waking_anybody() {
    let world = World::new();
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    assert!(word(&world).is_upgradable());
    let hold = read(&world, 1).unwrap();
    lock(&world).unlock_read(&world.me(1), &world, hold).unwrap();
    let quick = lock(&world).read_quickly(&world.me(1)).expect("no detour");
    assert!(lock(&world).unlock_read_quickly(quick), "nobody waits for it");
    assert_eq!(own(&world, 2), Err(LockError::TimedOut));
    assert_eq!(lock(&world).write(&world.me(2), &world, Some(0)), Err(LockError::TimedOut));
    assert!(world.is_nothing_pending());
}

#[test]
fn an_upgrade_that_runs_out_of_time_lets_readers_in_again() {
    let world = World::new();
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    let hold = read(&world, 1).unwrap();
    let me = world.me(0);
    for deadline in [Some(0), Some(100_000_000)] {
        assert_eq!(lock(&world).upgrade(&me, &world, deadline), Err(LockError::TimedOut));
        assert!(word(&world).is_upgradable() && word(&world).is_owned_by(me.owner()));
    }
    lock(&world).unlock_read(&world.me(1), &world, hold).unwrap();
    assert_eq!(lock(&world).upgrade(&me, &world, Some(0)), Ok(Taken::Clean));
    assert_eq!(read(&world, 1).err(), Some(LockError::TimedOut));
    lock(&world).downgrade(&me, &world, Release::Done).unwrap();
    lock(&world).unlock_upgradable(&me, &world, Taken::Clean).unwrap();
    assert_eq!(word(&world), LockWord::FREE);
    assert!(world.is_nothing_pending());
}

#[test]
fn an_upgrade_does_not_wait_for_a_dead_reader() {
    let world = World::new();
    let _hold = read(&world, 1).unwrap();
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    world.kill(1);
    assert_eq!(lock(&world).upgrade(&world.me(0), &world, None), Ok(Taken::Clean));
}

#[test]
fn an_upgradable_owner_that_slept_wakes_the_readers_that_slept_too() {
    let world = World::new();
    let writer = world.me(0);
    assert_eq!(lock(&world).write(&writer, &world, None), Ok(Taken::Clean));
    world.then(|world| lock(world).unlock_write(&world.me(0), world, Release::Done).unwrap());
    let taken = lock(&world).upgradable_read(&world.me(1), &world, None);
    assert_eq!(taken, Ok(Taken::Clean));
    // The writer woke one, the new owner all.
    assert_eq!(*world.woken.borrow(), [Wake::One, Wake::All]);
    assert!(word(&world).flags().contains(LockFlags::WAITERS));
}

#[test]
fn the_waiter_that_flags_the_word_of_an_upgradable_owner_wakes_readers_once() {
    let world = World::new();
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    for _ in 0..2 {
        let waited = lock(&world).write(&world.me(1), &world, Some(world.now() + 100_000_000));
        assert_eq!(waited, Err(LockError::TimedOut));
    }
    let all = world.woken.borrow().iter().filter(|who| **who == Wake::All).count();
    assert_eq!(all, 1);
}

#[test]
fn the_next_owner_is_told_of_a_death_only_after_an_upgrade() {
    for upgrade in [false, true] {
        let world = World::new();
        assert_eq!(own(&world, 0), Ok(Taken::Clean));
        if upgrade {
            assert_eq!(lock(&world).upgrade(&world.me(0), &world, None), Ok(Taken::Clean));
        }
        world.kill(0);
        let told = if upgrade { told_of(0) } else { Taken::Clean };
        assert_eq!(own(&world, 1), Ok(told));
        assert!(word(&world).is_upgradable());
        // The owner was told who died when it took the lock.
        let told = if upgrade { Taken::OwnerDied(None) } else { Taken::Clean };
        assert_eq!(lock(&world).upgrade(&world.me(1), &world, None), Ok(told));
    }
}

#[test]
fn the_next_owner_and_readers_are_told_of_data_that_are_not_repaired() {
    let world = World::new();
    let me = world.me(0);
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    assert_eq!(lock(&world).upgrade(&me, &world, None), Ok(Taken::Clean));
    lock(&world).downgrade(&me, &world, Release::Inconsistent).unwrap();
    let reader = world.me(1);
    let (told, hold) = lock(&world).read(&reader, &world, Some(0)).unwrap();
    assert_eq!(told, Taken::OwnerDied(None));
    lock(&world).unlock_read(&reader, &world, hold).unwrap();
    lock(&world).unlock_upgradable(&me, &world, Taken::Clean).unwrap();
    for peer in [2, 3] {
        // An owner that has only read is not named as the one that left the data so.
        assert_eq!(own(&world, peer), Ok(told_of(0)));
        lock(&world).unlock_upgradable(&world.me(peer), &world, told_of(0)).unwrap();
    }
    // An owner that has written, and has not repaired the data, is.
    assert_eq!(own(&world, 2), Ok(told_of(0)));
    let upgraded = lock(&world).upgrade(&world.me(2), &world, None);
    assert_eq!(upgraded, Ok(Taken::OwnerDied(None)));
    lock(&world).unlock_upgradable(&world.me(2), &world, told_of(0)).unwrap();
    assert_eq!(own(&world, 3), Ok(told_of(2)));
}

#[test]
fn a_thread_that_reads_gets_neither_the_right_to_upgrade_nor_an_upgrade() {
    let world = World::new();
    let hold = read(&world, 0).unwrap();
    assert_eq!(own(&world, 0), Err(LockError::Deadlock));
    lock(&world).unlock_read(&world.me(0), &world, hold).unwrap();
    assert_eq!(own(&world, 0), Ok(Taken::Clean));
    assert_eq!(own(&world, 0), Err(LockError::Deadlock));
    let hold = read(&world, 0).unwrap();
    assert_eq!(lock(&world).upgrade(&world.me(0), &world, None), Err(LockError::Deadlock));
    lock(&world).unlock_read(&world.me(0), &world, hold).unwrap();
    assert_eq!(lock(&world).upgrade(&world.me(0), &world, None), Ok(Taken::Clean));
}

#[test]
fn a_fenced_thread_gets_nothing_and_changes_nothing() {
    let world = World::new();
    world.fence(0);
    assert_eq!(own(&world, 0), Err(LockError::Fenced));
    assert_eq!(word(&world), LockWord::FREE);
    assert_eq!(own(&world, 1), Ok(Taken::Clean));
    let me = world.me(0);
    assert_eq!(lock(&world).upgrade(&me, &world, None), Err(LockError::Fenced));
    assert_eq!(lock(&world).downgrade(&me, &world, Release::Done), Err(LockError::Fenced));
    let given_back = lock(&world).unlock_upgradable(&me, &world, Taken::Clean);
    assert_eq!(given_back, Err(LockError::Fenced));
    assert!(word(&world).is_owned_by(world.me(1).owner()));
}
