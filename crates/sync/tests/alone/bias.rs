//! The bias of a mutex.

use std::sync::atomic::Ordering;

use commonhold_layout::BIAS_AFTER;
use commonhold_sync::{Grip, LockError, Mutex, Release, Taken, Thread};

use crate::script::World;

pub(crate) fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[1], World::at(1))
}

fn lock<'a>(world: &World, me: &Thread<'a>) -> Grip<'a> {
    let mutex = mutex(world);
    mutex.lock_biased(me).unwrap_or_else(|| {
        assert_eq!(mutex.lock_biased_slowly(me, world, None), Ok(Taken::Clean));
        mutex.grip(me, me.owner().word())
    })
}

fn unlock(world: &World, me: &Thread<'_>, grip: Grip<'_>) {
    let mutex = mutex(world);
    if !mutex.unlock_biased(grip) {
        mutex.unlock_biased_slowly(me, world, grip, Release::Done).unwrap();
    }
}

/// Has the mutex biased to a peer, which is outside then.
pub(crate) fn use_alone(world: &World, peer: usize) {
    let me = world.me(peer);
    for _ in 0..BIAS_AFTER + 2 {
        let grip = lock(world, &me);
        unlock(world, &me, grip);
    }
    assert!(mutex(world).look().is_biased());
}

/// What a peer holds by its bias.
pub(crate) fn enter(world: &World, peer: usize) -> Grip<'_> {
    let grip = lock(world, &world.me(peer));
    assert!(grip.is_biased());
    grip
}

/// What a peer that has [entered](enter) still holds.
pub(crate) fn held(world: &World, peer: usize) -> Grip<'_> {
    mutex(world).grip(&world.me(peer), mutex(world).look())
}

/// All that the thread slot of a peer says.
fn slot(world: &World, peer: usize) -> Vec<u64> {
    world.slots[peer].iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

#[test]
fn who_is_declared_dead_inside_of_its_biased_mutex_writes_nothing_into_a_slot_that_may_be_anothers()
{
    let world = World::new();
    use_alone(&world, 1);
    let grip = enter(&world, 1);
    world.fence(1);
    let before = slot(&world, 1);
    assert!(!mutex(&world).unlock_biased(grip));
    assert_eq!(slot(&world, 1), before);
    for how in [Release::Done, Release::Inconsistent] {
        let freed = mutex(&world).unlock_biased_slowly(&world.me(1), &world, grip, how);
        assert_eq!(freed, Err(LockError::Fenced));
    }
    assert_eq!(mutex(&world).own(&world.me(1), grip).map(drop), Err(LockError::Fenced));
    assert_eq!(slot(&world, 1), before);
    assert_eq!(mutex(&world).lock(&world.me(0), &world, None), Ok(Taken::OwnerDied));
}

#[test]
fn who_wants_a_mutex_that_is_biased_to_a_thread_outside_takes_it_at_once_and_whatever_became_of_that()
 {
    for dead in [false, true] {
        let world = World::new();
        use_alone(&world, 1);
        if dead {
            world.kill(1);
        }
        assert_eq!(mutex(&world).try_lock(&world.me(0), &world), Ok(Taken::Clean));
        assert_eq!((world.slept.get(), world.looks.get()), (0, 0));
        mutex(&world).unlock(&world.me(0), &world, Release::Done).unwrap();
    }
}
