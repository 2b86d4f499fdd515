//! The semaphore.

use std::cell::Cell;

use commonhold_layout::{LockWord, Owner};
use commonhold_sync::{
    Liveness, LockError, Park, Permit, Release, Semaphore, Taken, Thread, Verdict, Wake,
};
use commonhold_window::atomic::{AtomicU64, Ordering};
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

fn semaphore(world: &World, permits: usize) -> Semaphore<'_> {
    Semaphore::new(&world.words[0], World::at(0), &world.words[1..=permits])
}

/// With one permit it is a mutex: takes it, changes the data, and gives it back.
fn turn(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness)) -> Taken {
    let (taken, permit) = semaphore(world, 1).acquire(me, env, None).unwrap();
    world.write_data();
    semaphore(world, 1).release(me, env, permit, Release::Done).unwrap();
    taken
}

fn take(world: &World, permits: usize, peer: usize) -> Permit {
    semaphore(world, permits).try_acquire(&world.me(peer), world).unwrap().1
}

fn nothing_is_left(world: &World, permits: usize) {
    assert_eq!(semaphore(world, permits).available(), permits);
    for slot in &world.slots {
        assert_eq!(slot[1].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

#[test]
fn one_permit_has_one_holder_at_a_time_and_no_wake_up_is_lost() {
    check(2, || {
        let world = World::new();
        let threads: Vec<_> = (1..3)
            .map(|peer| {
                let world = Arc::clone(&world);
                thread::spawn(move || turn(&world, &world.me(peer), &*world))
            })
            .collect();
        assert_eq!(turn(&world, &world.me(0), &*world), Taken::Clean);
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Taken::Clean));
        assert_eq!(world.read_data(), 3);
        nothing_is_left(&world, 1);
    });
}

#[test]
fn two_permits_that_come_free_wake_two_sleepers() {
    check(2, || {
        let world = World::new();
        let permits = [take(&world, 2, 0), take(&world, 2, 0)];
        let threads: Vec<_> = (1..3)
            .map(|peer| {
                let world = Arc::clone(&world);
                // The threads keep their permits.
                thread::spawn(move || {
                    semaphore(&world, 2).acquire(&world.me(peer), &*world, None).unwrap().0
                })
            })
            .collect();
        let me = world.me(0);
        for permit in permits {
            semaphore(&world, 2).release(&me, &*world, permit, Release::Done).unwrap();
        }
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Taken::Clean));
        assert_eq!(semaphore(&world, 2).available(), 0);
    });
}

/// The world as seen by a thread whose deadline passes in its first sleep.
struct Hurried<'a> {
    world: &'a World,
    slept: Cell<bool>,
}

impl Park for Hurried<'_> {
    fn now(&self) -> u64 {
        self.world.now() + u64::from(self.slept.get())
    }

    fn wait(&self, word: &AtomicU64, expected: u64, until: u64) {
        self.world.wait(word, expected, until);
        self.slept.set(true);
    }

    fn wake(&self, word: &AtomicU64, who: Wake) {
        self.world.wake(word, who);
    }

    fn spin(&self, word: &AtomicU64, turn: u32) -> bool {
        self.world.spin(word, turn)
    }
}

impl Liveness for Hurried<'_> {
    fn is_current(&self, owner: Owner) -> bool {
        self.world.is_current(owner)
    }

    fn verdict(&self, owner: Owner) -> Verdict {
        self.world.verdict(owner)
    }
}

#[test]
fn a_sleeper_that_gives_up_leaves_no_other_asleep() {
    check(2, || {
        let world = World::new();
        let permit = take(&world, 1, 0);
        let other = Arc::clone(&world);
        let patient = thread::spawn(move || turn(&other, &other.me(1), &*other));
        let other = Arc::clone(&world);
        let hurried = thread::spawn(move || {
            let (me, env) = (other.me(2), Hurried { world: &other, slept: Cell::new(false) });
            match semaphore(&other, 1).acquire(&me, &env, Some(2)) {
                Ok((_, permit)) => {
                    semaphore(&other, 1).release(&me, &env, permit, Release::Done).unwrap();
                }
                Err(error) => assert_eq!(error, LockError::TimedOut),
            }
        });
        let me = world.me(0);
        semaphore(&world, 1).release(&me, &*world, permit, Release::Done).unwrap();
        // It may take the permit again before the waiter that it has woken does.
        if let Ok((_, permit)) = semaphore(&world, 1).try_acquire(&me, &*world) {
            semaphore(&world, 1).release(&me, &*world, permit, Release::Done).unwrap();
        }
        assert_eq!(patient.join().unwrap(), Taken::Clean);
        hurried.join().unwrap();
        nothing_is_left(&world, 1);
    });
}

#[test]
fn the_next_holder_sees_what_was_written_before_its_permit_was_given() {
    check(3, || {
        let world = World::new();
        let permit = take(&world, 1, 0);
        semaphore(&world, 1).spend(&world.me(0), permit).unwrap();
        let other = Arc::clone(&world);
        let consumer = thread::spawn(move || {
            let me = other.me(1);
            let (_, permit) = semaphore(&other, 1).acquire(&me, &*other, None).unwrap();
            assert_eq!(other.read_data(), 1);
            semaphore(&other, 1).spend(&me, permit).unwrap();
        });
        world.write_data();
        semaphore(&world, 1).give(&world.me(0), &*world).unwrap();
        consumer.join().unwrap();
        assert_eq!(world.words[1].load(Ordering::SeqCst), LockWord::SPENT.word());
    });
}

#[test]
fn wherever_a_holder_dies_the_others_get_its_permit_and_are_told_if_it_was_held() {
    for steps in 0..5 {
        check(3, move || {
            let world = World::new();
            let other = Arc::clone(&world);
            let waiter = thread::spawn(move || turn(&other, &other.me(1), &*other));
            let held = Cell::new(false);
            Mortal::live(&world, 2, steps, |env| {
                let me = world.me(2);
                let (_, permit) = semaphore(&world, 1).acquire(&me, env, None).unwrap();
                held.set(true);
                env.step();
                world.write_data();
                env.step();
                // If it dies after this, it may have released the permit already, and only fail to wake the others.
                held.set(false);
                semaphore(&world, 1).release(&me, env, permit, Release::Done).unwrap();
            });
            world.end_slices();
            let (taken, held) = (waiter.join().unwrap(), held.get());
            if !held {
                assert_eq!(taken, Taken::Clean);
            }
            // If the permit was held, the waiter has taken it over, or this thread does.
            let (late, permit) = semaphore(&world, 1).try_acquire(&world.me(0), &*world).unwrap();
            assert_eq!(held, [taken, late].contains(&World::told_of(2)));
            semaphore(&world, 1).release(&world.me(0), &*world, permit, Release::Done).unwrap();
            assert_eq!(semaphore(&world, 1).available(), 1);
        });
    }
}

#[test]
fn wherever_a_waiter_dies_another_gets_the_permit() {
    for steps in 0..6 {
        check(2, move || {
            let world = World::new();
            let permit = take(&world, 1, 0);
            let other = Arc::clone(&world);
            let waiter = thread::spawn(move || turn(&other, &other.me(1), &*other));
            let giver = Arc::clone(&world);
            let giver = thread::spawn(move || {
                let me = giver.me(0);
                semaphore(&giver, 1).release(&me, &*giver, permit, Release::Done).unwrap();
            });
            Mortal::live(&world, 2, steps, |env| {
                let _either = turn(&world, &world.me(2), env);
            });
            world.end_slices();
            giver.join().unwrap();
            let _either = waiter.join().unwrap();
            assert!(semaphore(&world, 1).try_acquire(&world.me(0), &*world).is_ok());
        });
    }
}

/// No slice ends here: the reaper alone must wake the sleepers.
#[test]
fn a_waiter_that_dies_with_the_wake_up_of_another_leaves_nobody_asleep() {
    for steps in 1..6 {
        check(2, move || {
            let world = World::new();
            let permit = take(&world, 1, 0);
            let other = Arc::clone(&world);
            let waiter = thread::spawn(move || turn(&other, &other.me(1), &*other));
            let giver = Arc::clone(&world);
            let giver = thread::spawn(move || {
                let me = giver.me(0);
                semaphore(&giver, 1).release(&me, &*giver, permit, Release::Done).unwrap();
            });
            // The waiter dies at the latest when it looks again after its sleep, without a permit.
            let mut got = None;
            Mortal::live(&world, 2, steps, |env| {
                let me = world.me(2);
                got = Some(semaphore(&world, 1).acquire(&me, env, None).unwrap());
            });
            if let Some((_, permit)) = got {
                let me = world.me(2);
                let released = semaphore(&world, 1).release(&me, &*world, permit, Release::Done);
                assert_eq!(released, Ok(()));
            }
            giver.join().unwrap();
            let _either = waiter.join().unwrap();
        });
    }
}

#[test]
fn a_thread_that_dies_while_it_gives_a_permit_has_given_it_or_not() {
    for steps in 0..3 {
        check(3, move || {
            let world = World::new();
            let permit = take(&world, 1, 0);
            semaphore(&world, 1).spend(&world.me(0), permit).unwrap();
            let other = Arc::clone(&world);
            let waiter = thread::spawn(move || turn(&other, &other.me(1), &*other));
            let gave = Mortal::live(&world, 2, steps, |env| {
                env.step();
                semaphore(&world, 1).give(&world.me(2), env).unwrap();
            });
            if steps == 0 {
                assert!(!gave);
                semaphore(&world, 1).give(&world.me(0), &*world).unwrap();
            }
            world.end_slices();
            assert_eq!(waiter.join().unwrap(), Taken::Clean);
            let me = world.me(0);
            assert_eq!(semaphore(&world, 1).give(&me, &*world), Err(LockError::NothingSpent));
            assert_eq!(semaphore(&world, 1).available(), 1);
        });
    }
}

#[test]
fn a_fenced_holder_and_the_next_holder_do_not_both_have_the_permit() {
    check(3, || {
        let world = World::new();
        let permit = take(&world, 1, 2);
        world.bury(2);
        let other = Arc::clone(&world);
        let heir = thread::spawn(move || turn(&other, &other.me(1), &*other));
        // `release` still succeeds if no other thread has taken the permit over yet.
        let late = semaphore(&world, 1).release(&world.me(2), &*world, permit, Release::Done);
        let told = heir.join().unwrap();
        let expected = if late.is_ok() { Taken::Clean } else { World::told_of(2) };
        assert_eq!(told, expected);
        assert_eq!(semaphore(&world, 1).available(), 1);
    });
}

#[test]
fn two_holders_that_give_the_permit_of_a_dead_one_back_as_found_are_both_told() {
    check(3, || {
        let look = |world: &World, peer| {
            let me = world.me(peer);
            let (taken, permit) = semaphore(world, 1).acquire(&me, world, None).unwrap();
            assert_eq!(taken, World::told_of(2));
            world.write_data();
            semaphore(world, 1).release(&me, world, permit, Release::unchanged(taken)).unwrap();
        };
        let world = World::new();
        let _permit = take(&world, 1, 2);
        world.bury(2);
        let other = Arc::clone(&world);
        let waiter = thread::spawn(move || look(&other, 1));
        look(&world, 0);
        waiter.join().unwrap();
        assert_eq!(turn(&world, &world.me(0), &*world), World::told_of(2));
        nothing_is_left(&world, 1);
    });
}
