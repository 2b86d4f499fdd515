//! Deaths of threads that use a biased mutex, at each crash point that they come to. The mutex is biased to thread 2,
//! or will be.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc as StdArc, Mutex as StdMutex},
};

use commonhold_sync::Taken;
use commonhold_window::Point;

use crate::{
    bias::{
        biased, due, free, lock, mutex, nothing_is_left_by_the_living, spawn, turn, turn_until,
    },
    world::{Life, Mortal, World, check},
};

/// What a thread does until it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Enters, and leaves.
    Enter,
    /// Enters, and turns its hold into ownership of the word.
    Own,
    /// Owns the word, and biases the mutex when it frees it.
    Make,
}

/// Where a thread was when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Entering,
    Has,
    Leaving,
    Left,
}

/// Whether the next owner must be told; `None`: both are right.
pub(crate) fn is_to_be_told(phase: Phase, biased: bool, point: Option<Point>) -> Option<bool> {
    match (phase, point) {
        // It died between its swap and its look at the word: nobody knows whether it would have entered.
        (Phase::Entering, Some(Point::BiasEntered)) => None,
        (Phase::Entering, point) => Some(point == Some(Point::LockAcquired)),
        (Phase::Has, _) => Some(true),
        (Phase::Leaving, Some(Point::BiasPlaced)) => Some(true),
        (Phase::Leaving, Some(Point::UnlockPending)) => Some(!biased),
        (Phase::Leaving | Phase::Left, _) => Some(false),
    }
}

/// Thread 2 works, passes `points` crash points, and dies at the next one. Returns how it
/// ended and whether the next owner must be told.
fn live(world: &World, work: Work, points: u32) -> (Life, Option<bool>) {
    let at = Cell::new((Phase::Entering, false));
    let life = Mortal::live_to_point(world, points, |env| {
        let me = world.me(2);
        let (mut hold, _) = lock(world, &me, env, None).unwrap();
        at.set((Phase::Has, hold.is_biased()));
        env.point();
        world.write_data();
        if work == Work::Own {
            hold = mutex(world).own(&me, hold).unwrap();
            at.set((Phase::Has, false));
        }
        env.point();
        at.set((Phase::Leaving, hold.is_biased()));
        free(world, &me, env, hold);
        at.set((Phase::Left, false));
    });
    let (phase, biased) = at.get();
    match life {
        Life::Finished => (life, Some(false)),
        Life::Ended(point) => (life, is_to_be_told(phase, biased, point)),
    }
}

/// When the dead thread is reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaper {
    /// Before, or while, other threads look at the mutex.
    Quick,
    /// At the end: the waiters have to find the death themselves.
    Late,
}

/// Runs a scenario once for a death at each crash point, and returns the names of these points.
pub(crate) fn for_each_death<S: Fn(u32) -> Life + Sync + Send + 'static>(
    preemptions: usize,
    scenario: impl Fn() -> S,
) -> BTreeSet<String> {
    let deaths = StdArc::new(StdMutex::new(BTreeSet::new()));
    for points in 0.. {
        let died = StdArc::new(StdMutex::new(BTreeSet::new()));
        let (seen, scenario) = (StdArc::clone(&died), scenario());
        check(preemptions, move || {
            if let Life::Ended(point) = scenario(points) {
                let name = point.map_or("held", Point::name);
                seen.lock().unwrap().insert(name.to_owned());
            }
        });
        let died = died.lock().unwrap();
        if died.is_empty() {
            break;
        }
        deaths.lock().unwrap().extend(died.iter().cloned());
    }
    let deaths = deaths.lock().unwrap().clone();
    println!("deaths at {deaths:?}");
    deaths
}

/// Thread 2 dies while thread 1 contends for the mutex, and thread 0 comes late. Neither of these waits for
/// ever, and one of them is told of the death if thread 2 died with the mutex.
fn dies(work: Work, reaper: Reaper, points: u32) -> Life {
    let world = if work == Work::Make { World::new() } else { biased() };
    if work == Work::Make {
        due(&world);
    }
    let waiter = spawn(&world, |world| turn(world, 1));
    let (life, told) = live(&world, work, points);
    if life != Life::Finished {
        world.fence(2);
        if reaper == Reaper::Quick {
            world.settle(2);
        }
    }
    // No slice needs to end if the thread has finished, or has announced its wake-up and died before it.
    if !matches!(life, Life::Finished | Life::Ended(Some(Point::UnlockFreed))) {
        world.end_slices();
    }
    let waiter = waiter.join().unwrap();
    let late = turn(&world, 0);
    let tellings = [waiter, late].iter().filter(|taken| **taken == World::told_of(2)).count();
    match told {
        Some(told) => assert_eq!(tellings, usize::from(told), "{life:?}"),
        None => assert!(tellings <= 1),
    }
    if life != Life::Finished {
        world.settle(2);
        assert_eq!(turn(&world, 0), Taken::Clean, "no death is told twice");
    }
    nothing_is_left_by_the_living(&world);
    life
}

#[test]
fn wherever_a_thread_with_a_bias_dies_the_next_owner_is_told_if_it_was_inside() {
    for reaper in [Reaper::Quick, Reaper::Late] {
        let deaths = for_each_death(4, move || move |points| dies(Work::Enter, reaper, points));
        for point in [Point::BiasEntered, Point::BiasLeft, Point::UnlockPending] {
            assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
        }
    }
}

#[test]
fn wherever_a_thread_dies_while_it_gives_up_its_bias_inside_the_next_owner_is_told() {
    for reaper in [Reaper::Quick, Reaper::Late] {
        let deaths = for_each_death(4, move || move |points| dies(Work::Own, reaper, points));
        assert!(deaths.contains(Point::BiasOwned.name()), "{deaths:?}");
    }
}

#[test]
fn wherever_an_owner_dies_while_it_makes_a_bias_the_next_owner_is_told_if_it_still_owned_the_word()
{
    for reaper in [Reaper::Quick, Reaper::Late] {
        let deaths = for_each_death(4, move || move |points| dies(Work::Make, reaper, points));
        for point in [Point::BiasPlaced, Point::BiasMade] {
            assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
        }
    }
}

/// Thread 0 revokes the bias, and dies at any point before it has freed the mutex.
#[test]
fn wherever_a_revoker_dies_the_others_go_on() {
    let deaths = for_each_death(2, || {
        |points| {
            let world = biased();
            let owner = spawn(&world, |world| turn(world, 2));
            let waiter = spawn(&world, |world| turn(world, 1));
            let has = Cell::new(false);
            let life = Mortal::live_to_point(&world, points, |env| {
                let me = world.me(0);
                let (hold, _) = lock(&world, &me, env, None).unwrap();
                has.set(true);
                env.point();
                world.write_data();
                free(&world, &me, env, hold);
                has.set(false);
            });
            if life != Life::Finished {
                world.bury(0);
            }
            let held = matches!(
                life,
                Life::Ended(Some(Point::LockAcquired | Point::UnlockPending) | None)
            );
            if held {
                world.end_slices();
            }
            let others = [owner, waiter].map(|thread| thread.join().unwrap());
            let late = turn_until(&world, 1, Some(0)).unwrap();
            let told = others.iter().chain([&late]).filter(|taken| **taken == World::told_of(0));
            assert_eq!(told.count(), usize::from(held), "{life:?}");
            nothing_is_left_by_the_living(&world);
            life
        }
    });
    for point in [Point::BiasRevoked, Point::LockPending, Point::LockFlagged] {
        assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
    }
}
