//! Locks that were left in the middle of a change, or given up: which threads are told, and that no thread sleeps for
//! ever.

use commonhold_layout::LockWord;
use commonhold_sync::{LockError, Mutex, Release, RwLock, Taken};
use loom::{sync::Arc, thread};

use crate::world::{World, check};

fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[0], World::at(0))
}

fn rwlock(world: &World) -> RwLock<'_, &World> {
    RwLock::new(world.words.first_chunk().unwrap(), World::at(0), 77, world)
}

/// A world in which thread 2 has died with the mutex.
fn held_by_the_dead() -> Arc<World> {
    let world = World::new();
    mutex(&world).lock(&world.me(2), &*world, None).map(drop).unwrap();
    world.write_data();
    world.fence(2);
    world
}

/// Takes the mutex, if it can be taken, and frees it as `how` says.
fn turn(world: &World, peer: usize, how: impl Fn(Taken) -> Release) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let taken = mutex(world).lock(&me, world, None)?;
    world.write_data();
    mutex(world).unlock(&me, world, how(taken)).unwrap();
    Ok(taken)
}

/// Two threads contend for a dead owner's mutex, and both free it as `how` says. Returns what they were told.
fn contend(world: &Arc<World>, how: fn(Taken) -> Release) -> [Result<Taken, LockError>; 2] {
    let other = Arc::clone(world);
    let waiter = thread::spawn(move || turn(&other, 1, how));
    let mine = turn(world, 0, how);
    [mine, waiter.join().unwrap()]
}

fn nothing_is_pending(world: &World) {
    for slot in &world.slots {
        let pending = &slot[commonhold_layout::thread_word::PENDING];
        let pending = pending.load(commonhold_window::atomic::Ordering::SeqCst);
        assert_eq!(pending, 0, "nothing is pending");
    }
}

#[test]
fn owners_that_leave_a_mutex_as_they_found_it_are_all_told_of_the_death() {
    check(4, || {
        let world = held_by_the_dead();
        assert_eq!(contend(&world, Release::unchanged), [Ok(World::told_of(2)); 2]);
        assert_eq!(turn(&world, 0, Release::unchanged), Ok(World::told_of(2)));
        nothing_is_pending(&world);
    });
}

#[test]
fn of_two_owners_that_repair_nothing_the_second_is_told_of_the_first() {
    check(4, || {
        let world = held_by_the_dead();
        let told = contend(&world, |_| Release::Done);
        let orders = [[2, 0], [1, 2]].map(|names| names.map(|peer| Ok(World::told_of(peer))));
        assert!(orders.contains(&told), "{told:?}");
        nothing_is_pending(&world);
    });
}

#[test]
fn of_two_owners_that_give_a_mutex_up_the_first_locks_the_other_out() {
    check(4, || {
        let world = held_by_the_dead();
        let mut ends = contend(&world, |_| Release::GivenUp);
        ends.sort_by_key(Result::is_err);
        assert_eq!(ends, [Ok(World::told_of(2)), Err(LockError::Unrecoverable)]);
        nothing_is_pending(&world);
        assert_eq!(mutex(&world).reset(&*world), Ok(()));
        assert_eq!(mutex(&world).look(), LockWord::FREE);
    });
}

/// The owner may free the mutex, and take it again before the waiter that it has woken does. Then the word does not
/// say that another waiter still sleeps.
#[test]
fn no_waiter_sleeps_on_beside_a_mutex_that_was_given_up() {
    check(3, || {
        let world = World::new();
        let me = world.me(0);
        mutex(&world).lock(&me, &*world, None).map(drop).unwrap();
        let waiters = [1, 2].map(|peer| {
            let world = Arc::clone(&world);
            thread::spawn(move || turn(&world, peer, |_| Release::Done))
        });
        mutex(&world).unlock(&me, &*world, Release::Done).unwrap();
        assert_eq!(turn(&world, 0, |_| Release::GivenUp), Ok(Taken::Clean));
        for waiter in waiters {
            let end = waiter.join().unwrap();
            assert!([Ok(Taken::Clean), Err(LockError::Unrecoverable)].contains(&end), "{end:?}");
        }
        nothing_is_pending(&world);
    });
}

/// The bug: the reader that was woken found the lock given up, and did not wake the other one.
#[test]
fn no_reader_sleeps_on_beside_a_lock_that_was_given_up() {
    check(3, || {
        let world = World::new();
        let me = world.me(0);
        rwlock(&world).write(&me, &*world, None).map(drop).unwrap();
        let readers = [1, 2].map(|peer| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let me = world.me(peer);
                let (taken, hold) = rwlock(&world).read(&me, &*world, None)?;
                world.read_data();
                rwlock(&world).unlock_read(&me, &*world, hold).unwrap();
                Ok(taken)
            })
        });
        rwlock(&world).unlock_write(&me, &*world, Release::Done).unwrap();
        if rwlock(&world).write(&me, &*world, Some(0)).is_ok() {
            world.write_data();
            rwlock(&world).unlock_write(&me, &*world, Release::GivenUp).unwrap();
        }
        for reader in readers {
            let end = reader.join().unwrap();
            assert!([Ok(Taken::Clean), Err(LockError::Unrecoverable)].contains(&end), "{end:?}");
        }
        nothing_is_pending(&world);
    });
}
