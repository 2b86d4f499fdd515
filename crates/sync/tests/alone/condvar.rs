//! The condition variable.

use commonhold_sync::{Condvar, LockError, Mutex, Release, SLICE_NS, Taken, Waited, Wake};

use crate::script::{World, told_of};

fn condvar(world: &World) -> Condvar<'_> {
    Condvar::new(&world.words[0], World::at(0))
}

fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[1], World::at(1))
}

fn lock(world: &World, peer: usize) {
    assert_eq!(mutex(world).lock(&world.me(peer), world, None), Ok(Taken::Clean));
}

fn unlock(world: &World, peer: usize) {
    mutex(world).unlock(&world.me(peer), world, Release::Done).unwrap();
}

fn wait(world: &World, deadline: Option<u64>) -> Result<(Taken, Waited), LockError> {
    condvar(world).wait(&mutex(world), &world.me(0), world, deadline)
}

#[test]
fn a_waiter_does_not_hold_the_mutex_and_holds_it_afterwards() {
    let world = World::new();
    lock(&world, 0);
    for all in [false, true] {
        world.then(move |world| {
            lock(world, 1);
            if all {
                condvar(world).notify_all(&world.me(1), world);
            } else {
                condvar(world).notify_one(&world.me(1), world);
            }
            unlock(world, 1);
        });
        assert_eq!(wait(&world, None), Ok((Taken::Clean, Waited::Notified)));
        assert!(mutex(&world).look().is_owned_by(world.me(0).owner()));
    }
    assert_eq!(*world.woken.borrow(), [Wake::One, Wake::All]);
    assert_eq!(world.slept.get(), 2);
    assert!(world.is_nothing_pending());
}

#[test]
fn a_wait_sees_the_end_of_its_time_and_has_the_mutex_then() {
    let world = World::new();
    lock(&world, 0);
    assert_eq!(wait(&world, Some(0)), Ok((Taken::Clean, Waited::TimedOut)));
    assert_eq!(world.slept.get(), 0);
    assert_eq!(wait(&world, Some(100_000_001)), Ok((Taken::Clean, Waited::TimedOut)));
    assert_eq!(world.passed(), 100_000_000);
    assert!(mutex(&world).look().is_owned_by(world.me(0).owner()));
    assert!(world.is_nothing_pending());
}

#[test]
fn a_thread_without_the_mutex_cannot_wait() {
    let world = World::new();
    assert_eq!(wait(&world, None), Err(LockError::Fenced));
    lock(&world, 1);
    assert_eq!(wait(&world, None), Err(LockError::Fenced));
    assert!(mutex(&world).look().is_owned_by(world.me(1).owner()));
}

/// As if the notifier was killed after it freed the mutex and before it notified.
#[test]
fn a_wait_that_nobody_ends_ends_after_a_second() {
    let world = World::new();
    lock(&world, 0);
    assert_eq!(wait(&world, None), Ok((Taken::Clean, Waited::Notified)));
    assert!((1_000_000_000..1_000_000_000 + SLICE_NS).contains(&world.passed()));
}

#[test]
fn a_notifier_that_dies_with_the_mutex_is_found_out_within_two_slices() {
    let world = World::new();
    lock(&world, 0);
    world.then(|world| {
        lock(world, 1);
        world.kill(1);
    });
    assert_eq!(wait(&world, None), Ok((told_of(1), Waited::Notified)));
    assert!(world.passed() <= 3 * SLICE_NS, "{}", world.passed());
}

#[test]
fn a_living_holder_of_the_mutex_is_let_alone() {
    let world = World::new();
    lock(&world, 0);
    world.then(|world| lock(world, 1));
    for _ in 0..3 {
        world.then(|_| {});
    }
    world.then(|world| {
        condvar(world).notify_one(&world.me(1), world);
        unlock(world, 1);
    });
    assert_eq!(wait(&world, None), Ok((Taken::Clean, Waited::Notified)));
    assert_eq!(world.slept.get(), 5);
}

#[test]
fn the_next_owner_and_the_waiter_are_told_of_an_inconsistent_mutex() {
    let world = World::new();
    lock(&world, 1);
    world.fence(1);
    assert_eq!(mutex(&world).lock(&world.me(0), &world, None), Ok(told_of(1)));
    world.then(|world| {
        // The waiter has not repaired the mutex, so it freed it as inconsistent.
        assert_eq!(mutex(world).lock(&world.me(2), world, None), Ok(told_of(0)));
        mutex(world).unlock(&world.me(2), world, Release::Inconsistent).unwrap();
        condvar(world).notify_one(&world.me(2), world);
    });
    assert_eq!(wait(&world, None), Ok((told_of(2), Waited::Notified)));
    // The waiter is told as soon as a slice is over, though nobody notifies.
    world.then(|_| {});
    let before = world.slept.get();
    assert_eq!(wait(&world, None), Ok((told_of(0), Waited::Notified)));
    assert!(world.slept.get() - before <= 2);
    mutex(&world).mark_consistent(&world.me(0)).unwrap();
    unlock(&world, 0);
}

#[test]
fn a_waiter_that_is_declared_dead_does_not_get_the_mutex() {
    let world = World::new();
    lock(&world, 0);
    world.then(|world| {
        world.fence(0);
        condvar(world).notify_one(&world.me(1), world);
    });
    assert_eq!(wait(&world, None), Err(LockError::Fenced));
    lock(&world, 1);
}
