//! The mutex: what the next owner is told of earlier owners, and what happens if no owner repairs what is protected.

use std::sync::atomic::Ordering;

use commonhold_layout::{LockFlags, LockWord};
use commonhold_sync::{LockError, Mutex, Park, Release, Taken, Wake};

use crate::script::{World, told_of};

const CLEAN: Result<Taken, LockError> = Ok(Taken::Clean);

fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[0], World::at(0))
}

fn take(world: &World, peer: usize) -> Result<Taken, LockError> {
    mutex(world).try_lock(&world.me(peer), world)
}

fn free(world: &World, peer: usize, how: Release) {
    mutex(world).unlock(&world.me(peer), world, how).unwrap();
}

/// A world in which thread 0 has died with the mutex.
fn held_by_the_dead() -> World {
    let world = World::new();
    assert_eq!(take(&world, 0), CLEAN);
    world.kill(0);
    world
}

/// The bug: an owner that only looked, and repaired nothing, was itself named to the next owner as the dead one.
#[test]
fn a_dead_owner_is_named_to_every_owner_until_one_repairs_the_mutex() {
    let world = held_by_the_dead();
    for peer in [1, 2, 3, 1] {
        assert_eq!(take(&world, peer), Ok(told_of(0)));
        free(&world, peer, Release::unchanged(told_of(0)));
        assert!(!mutex(&world).look().is_owned());
    }
    assert_eq!(take(&world, 2), Ok(told_of(0)));
    mutex(&world).mark_consistent(&world.me(2)).unwrap();
    free(&world, 2, Release::Done);
    assert_eq!(mutex(&world).look(), LockWord::FREE);
    assert_eq!(take(&world, 3), CLEAN);
    free(&world, 3, Release::unchanged(Taken::Clean));
    assert_eq!(mutex(&world).look(), LockWord::FREE);
}

/// The bug: an owner that freed the mutex without a word about repair made it unrecoverable for all.
#[test]
fn an_owner_that_frees_an_unrepaired_mutex_as_done_is_named_to_the_next() {
    for how in [Release::Done, Release::Inconsistent] {
        let world = held_by_the_dead();
        let mut told = 0;
        for peer in [1, 2, 3] {
            assert_eq!(take(&world, peer), Ok(told_of(told)));
            free(&world, peer, how);
            told = peer;
        }
        assert_eq!(take(&world, 1), Ok(told_of(3)));
    }
}

#[test]
fn an_owner_that_was_told_of_a_death_and_dies_is_named_itself() {
    let world = held_by_the_dead();
    assert_eq!(take(&world, 1), Ok(told_of(0)));
    world.kill(1);
    assert_eq!(take(&world, 2), Ok(told_of(1)));
}

#[test]
fn a_thread_that_left_a_mutex_inconsistent_does_not_own_it_and_may_take_it_again() {
    let world = World::new();
    assert_eq!(take(&world, 0), CLEAN);
    free(&world, 0, Release::Inconsistent);
    assert_eq!(mutex(&world).unlock(&world.me(0), &world, Release::Done), Err(LockError::Fenced));
    assert_eq!(mutex(&world).mark_consistent(&world.me(0)), Err(LockError::Fenced));
    assert_eq!(take(&world, 0), Ok(told_of(0)));
    // Its death does not matter to a mutex that it does not own.
    free(&world, 0, Release::Inconsistent);
    world.kill(0);
    assert_eq!(take(&world, 1), Ok(told_of(0)));
    assert_eq!((world.slept.get(), world.looks.get()), (0, 0));
}

#[test]
fn a_mutex_that_was_given_up_cannot_be_taken_until_it_is_reset() {
    for repaired in [false, true] {
        let world = held_by_the_dead();
        assert_eq!(take(&world, 1), Ok(told_of(0)));
        if repaired {
            mutex(&world).mark_consistent(&world.me(1)).unwrap();
        }
        free(&world, 1, Release::GivenUp);
        for peer in [1, 2, 3] {
            assert_eq!(take(&world, peer), Err(LockError::Unrecoverable));
            let waited = mutex(&world).lock(&world.me(peer), &world, None);
            assert_eq!(waited, Err(LockError::Unrecoverable));
        }
        assert_eq!(mutex(&world).look().left_by(), Some(world.me(1).owner()));
        assert_eq!(world.slept.get(), 0);
        mutex(&world).reset(&world).unwrap();
        assert_eq!(take(&world, 2), CLEAN);
    }
}

#[test]
fn giving_a_mutex_up_wakes_all_sleepers_and_freeing_it_wakes_one() {
    let ends = [
        (Release::Done, Wake::One, CLEAN),
        (Release::Inconsistent, Wake::One, Ok(told_of(0))),
        (Release::AsFound(None), Wake::One, Ok(Taken::OwnerDied(None))),
        (Release::GivenUp, Wake::All, Err(LockError::Unrecoverable)),
    ];
    for (how, wake, told) in ends {
        let world = World::new();
        assert_eq!(take(&world, 0), CLEAN);
        world.then(move |world| {
            free(world, 0, how);
            assert_eq!(*world.woken.borrow(), [wake]);
        });
        assert_eq!(mutex(&world).lock(&world.me(1), &world, None), told);
        assert!(world.is_nothing_pending());
    }
}

/// A starving waiter still waits when the owner has freed the mutex.
#[test]
fn freeing_a_mutex_keeps_the_starving_flag() {
    for how in [Release::Done, Release::Inconsistent, Release::AsFound(None)] {
        let world = World::new();
        assert_eq!(take(&world, 0), CLEAN);
        let starving = LockFlags::STARVING.with(LockFlags::WAITERS);
        let word = mutex(&world).look().with_flags(starving).word();
        world.words[0].store(word, Ordering::Relaxed);
        free(&world, 0, how);
        let left = mutex(&world).look();
        assert!(left.flags().contains(LockFlags::STARVING) && !left.is_owned());
        assert!(!left.flags().contains(LockFlags::WAITERS));
    }
}

#[test]
fn a_waiter_that_is_declared_dead_leaves_the_name_of_the_last_owner() {
    let world = World::new();
    assert_eq!(take(&world, 0), CLEAN);
    world.then(|world| {
        free(world, 0, Release::Inconsistent);
        world.fence(1);
    });
    assert_eq!(mutex(&world).lock(&world.me(1), &world, None), Err(LockError::Fenced));
    assert_eq!(take(&world, 2), Ok(told_of(0)));
}

/// The bug: an owner that was declared dead in the middle of a change, and locked again, freed the mutex as if the
/// change had been whole.
#[test]
fn an_owner_that_was_declared_dead_and_locks_again_leaves_the_mutex_inconsistent() {
    let world = World::new();
    assert_eq!(take(&world, 0), CLEAN);
    world.fence(0);
    assert_eq!(take(&world, 0), Err(LockError::Fenced));
    assert_eq!(take(&world, 1), Ok(told_of(0)));
}

/// Words that no program writes: a word that names the thread which left it, without any flag; a thread that does not
/// exist.
#[test]
fn words_that_no_program_leaves_lock_nobody_out_for_ever() {
    let owner = World::new().me(3).owner();
    let left = LockWord::left(owner, LockFlags::NONE).word();
    for (word, told) in [
        (left, CLEAN),
        (left | 1 << 29, Ok(told_of(3))),
        (left & 0xffff_ffff, CLEAN),
        (left | 1 << 30, Err(LockError::Unrecoverable)),
        (1 << 29, Ok(Taken::OwnerDied(None))),
    ] {
        let world = World::new();
        world.words[0].store(word, Ordering::Relaxed);
        assert_eq!(mutex(&world).lock(&world.me(0), &world, Some(world.now())), told, "{word:#x}");
    }
    let world = World::new();
    world.words[0].store(5 << 32 | 0x4003, Ordering::Relaxed);
    let Ok(Taken::OwnerDied(Some(nobody))) = take(&world, 0) else { panic!("its owner is dead") };
    free(&world, 0, Release::AsFound(Some(nobody)));
    assert!(!mutex(&world).look().is_owned());
    assert!(take(&world, 1).unwrap().is_owner_died());
}
