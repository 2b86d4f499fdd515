//! Once.

use commonhold_layout::LockWord;
use commonhold_sync::{Liveness, LockError, Once, Park, Start, Taken, Thread};
use commonhold_window::atomic::Ordering;
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

fn once(world: &World) -> Once<'_> {
    Once::new(&world.words[0], World::at(0))
}

/// Does the work if it is not done yet.
fn need(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness)) -> Start {
    let start = once(world).begin(me, env, None).unwrap();
    if start != Start::Done {
        world.write_data();
        once(world).complete(me, env).unwrap();
    }
    assert!(once(world).is_done());
    world.read_data();
    start
}

#[test]
fn the_work_is_done_once_and_seen_by_all() {
    check(2, || {
        let world = World::new();
        let threads: Vec<_> = (1..3)
            .map(|peer| {
                let world = Arc::clone(&world);
                thread::spawn(move || need(&world, &world.me(peer), &*world))
            })
            .collect();
        let mut starts = vec![need(&world, &world.me(0), &*world)];
        starts.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        let did = starts.iter().filter(|start| **start == Start::Mine(Taken::Clean)).count();
        assert_eq!((did, world.read_data()), (1, 1));
        assert_eq!(world.words[0].load(Ordering::SeqCst), LockWord::DONE.word());
    });
}

#[test]
fn the_work_is_done_wherever_the_initialiser_dies() {
    for steps in 0..5 {
        check(2, move || {
            let world = World::new();
            let other = Arc::clone(&world);
            let waiter = thread::spawn(move || need(&other, &other.me(1), &*other));
            let mut begun = false;
            let finished = Mortal::live(&world, 2, steps, |env| {
                let me = world.me(2);
                if once(&world).begin(&me, env, None).unwrap() != Start::Done {
                    begun = true;
                    env.step();
                    world.write_data();
                    env.step();
                    once(&world).complete(&me, env).unwrap();
                }
            });
            world.end_slices();
            let start = waiter.join().unwrap();
            if begun && !finished && start != Start::Done {
                assert_eq!(start, Start::Mine(World::told_of(2)));
            }
            assert!(once(&world).is_done());
            assert_eq!(world.slots[1][1].load(Ordering::SeqCst), 0, "nothing is pending");
        });
    }
}

/// No slice ends here: the reaper alone must wake the sleepers.
#[test]
fn an_initialiser_that_dies_before_it_wakes_the_others_leaves_nobody_asleep() {
    check(3, || {
        let world = World::new();
        let me = world.me(2);
        assert_eq!(once(&world).begin(&me, &*world, None), Ok(Start::Mine(Taken::Clean)));
        let other = Arc::clone(&world);
        let waiter = thread::spawn(move || need(&other, &other.me(1), &*other));
        // The initialiser dies when it asks for the wake-up, if a thread may be asleep.
        Mortal::live(&world, 2, 0, |env| once(&world).complete(&me, env).unwrap());
        assert_eq!(waiter.join().unwrap(), Start::Done);
    });
}

#[test]
fn a_fenced_initialiser_cannot_say_that_the_work_is_done() {
    check(2, || {
        let world = World::new();
        let me = world.me(2);
        assert_eq!(once(&world).begin(&me, &*world, None), Ok(Start::Mine(Taken::Clean)));
        world.bury(2);
        let other = Arc::clone(&world);
        let heir = thread::spawn(move || {
            let me = other.me(1);
            match once(&other).begin(&me, &*other, None).unwrap() {
                Start::Done => true,
                start => {
                    assert_eq!(start, Start::Mine(World::told_of(2)));
                    once(&other).give_back(&me, &*other).unwrap();
                    false
                }
            }
        });
        // `complete` still succeeds if no other thread has taken over yet.
        let late = once(&world).complete(&me, &*world);
        let done = heir.join().unwrap();
        assert_eq!(late, if done { Ok(()) } else { Err(LockError::Fenced) });
        assert_eq!(once(&world).is_done(), done);
    });
}
