//! The condition variable. The condition is that the data are not 0.

use commonhold_sync::{Condvar, Liveness, Mutex, Park, Release, Taken, Thread};
use commonhold_window::atomic::Ordering;
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

fn condvar(world: &World) -> Condvar<'_> {
    Condvar::new(&world.words[0], World::at(0))
}

fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[1], World::at(1))
}

fn free(world: &World, me: &Thread<'_>, env: &impl Park, taken: Taken) {
    if taken.is_owner_died() {
        mutex(world).mark_consistent(me).unwrap();
    }
    mutex(world).unlock(me, env, Release::Done).unwrap();
}

/// Waits until the condition holds. Returns whether it was told of a death.
fn until(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness)) -> bool {
    let mut taken = mutex(world).lock(me, env, None).unwrap();
    let mut told = taken.is_owner_died();
    while world.read_data() == 0 {
        if taken.is_owner_died() {
            mutex(world).mark_consistent(me).unwrap();
        }
        taken = condvar(world).wait(&mutex(world), me, env, None).unwrap().0;
        told |= taken.is_owner_died();
    }
    free(world, me, env, taken);
    told
}

enum Notify {
    One,
    All,
}

fn notify(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness), how: Notify) {
    let taken = mutex(world).lock(me, env, None).unwrap();
    world.write_data();
    match how {
        Notify::One => condvar(world).notify_one(me, env),
        Notify::All => condvar(world).notify_all(me, env),
    }
    free(world, me, env, taken);
}

fn waiters(world: &Arc<World>, peers: std::ops::Range<usize>) -> Vec<thread::JoinHandle<bool>> {
    peers
        .map(|peer| {
            let world = Arc::clone(world);
            thread::spawn(move || until(&world, &world.me(peer), &*world))
        })
        .collect()
}

fn nothing_is_pending(world: &World) {
    assert_eq!(mutex(world).look().owner(), None);
    for slot in &world.slots[..2] {
        assert_eq!(slot[1].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

#[test]
fn a_notification_under_the_mutex_is_not_lost() {
    check(3, || {
        let world = World::new();
        let waiters = waiters(&world, 1..2);
        notify(&world, &world.me(0), &*world, Notify::One);
        waiters.into_iter().for_each(|waiter| assert!(!waiter.join().unwrap()));
        nothing_is_pending(&world);
    });
}

#[test]
fn a_notification_of_all_wakes_two() {
    check(2, || {
        let world = World::new();
        let waiters = waiters(&world, 1..3);
        notify(&world, &world.me(0), &*world, Notify::All);
        waiters.into_iter().for_each(|waiter| assert!(!waiter.join().unwrap()));
        nothing_is_pending(&world);
    });
}

#[test]
fn wherever_a_notifier_dies_the_waiter_sees_what_the_next_owner_did() {
    for steps in 0..6 {
        check(2, move || {
            let world = World::new();
            let waiters = waiters(&world, 1..2);
            Mortal::live(&world, 2, steps, |env| {
                let me = world.me(2);
                let taken = mutex(&world).lock(&me, env, None).unwrap();
                env.step();
                world.write_data();
                env.step();
                free(&world, &me, env, taken);
                env.step();
                condvar(&world).notify_one(&me, env);
            });
            // The next owner makes the condition true, and does not notify.
            let me = world.me(0);
            let taken = mutex(&world).lock(&me, &*world, None).unwrap();
            if world.read_data() == 0 {
                world.write_data();
            }
            free(&world, &me, &*world, taken);
            world.end_slices();
            let told = waiters.into_iter().any(|waiter| waiter.join().unwrap());
            // At most one of the two has taken the mutex over from the dead notifier.
            assert!(!(told && taken.is_owner_died()));
            nothing_is_pending(&world);
        });
    }
}

/// No other thread takes the mutex: the waiter itself must find that its owner is dead.
#[test]
fn a_waiter_takes_the_mutex_over_from_a_notifier_that_died_with_it() {
    check(3, || {
        let world = World::new();
        let other = Arc::clone(&world);
        let waiter = thread::spawn(move || {
            let me = other.me(1);
            let mut taken = mutex(&other).lock(&me, &*other, None).unwrap();
            while taken == Taken::Clean {
                taken = condvar(&other).wait(&mutex(&other), &me, &*other, None).unwrap().0;
            }
            free(&other, &me, &*other, taken);
        });
        Mortal::live(&world, 2, 0, |env| {
            mutex(&world).lock(&world.me(2), &*world, None).map(drop).unwrap();
            env.step();
        });
        world.end_slices();
        waiter.join().unwrap();
    });
}

#[test]
fn wherever_a_waiter_dies_another_is_notified() {
    for steps in 0..7 {
        check(2, move || {
            let world = World::new();
            let waiters = waiters(&world, 1..2);
            let other = Arc::clone(&world);
            let notifier = thread::spawn(move || {
                notify(&other, &other.me(0), &*other, Notify::One);
                // The one notification may have gone to the other waiter.
                other.end_slices();
            });
            Mortal::live(&world, 2, steps, |env| {
                until(&world, &world.me(2), env);
            });
            notifier.join().unwrap();
            waiters.into_iter().for_each(|waiter| {
                waiter.join().unwrap();
            });
        });
    }
}

#[test]
fn a_mutex_that_is_inconsistent_stays_so_while_its_owner_waits() {
    check(2, || {
        let world = World::new();
        mutex(&world).lock(&world.me(2), &*world, None).map(drop).unwrap();
        world.bury(2);
        let me = world.me(0);
        assert_eq!(mutex(&world).lock(&me, &*world, None), Ok(World::told_of(2)));
        let other = Arc::clone(&world);
        let notifier = thread::spawn(move || {
            let me = other.me(1);
            let taken = mutex(&other).lock(&me, &*other, None).unwrap();
            other.write_data();
            condvar(&other).notify_one(&me, &*other);
            free(&other, &me, &*other, taken);
            taken
        });
        let mut taken = World::told_of(2);
        while world.read_data() == 0 {
            taken = condvar(&world).wait(&mutex(&world), &me, &*world, None).unwrap().0;
        }
        assert_eq!(notifier.join().unwrap(), World::told_of(0), "left so by the waiter");
        assert_eq!(taken, Taken::Clean, "the notifier has repaired it");
        free(&world, &me, &*world, taken);
    });
}
