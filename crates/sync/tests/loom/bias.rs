//! Mutexes that are biased. Thread 2 is the one that the mutex is biased to, or is going to be.
//!
//! A bias is made by hand where it is not what the scenario is about; that it is made so by those who use a
//! mutex is shown in `tests/alone/bias.rs`.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc as StdArc, Mutex as StdMutex},
};

use commonhold_layout::{
    BIAS_AFTER, BiasPlace, BiasTurn, LockFlags, LockWord, Offset, bias_entry, thread_word,
};
use commonhold_sync::{Grip, Liveness, LockError, Mutex, Park, Release, Taken, Thread};
use commonhold_window::{
    Point,
    atomic::{AtomicU64, Ordering},
};
use loom::{sync::Arc, thread};

use crate::world::{Life, Mortal, World, check};

/// Not 0, which is the place of an empty entry.
const WORD: usize = 1;
const FIRST: u32 = 1;
const TOLD: Result<Taken, LockError> = Ok(Taken::OwnerDied);

fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[WORD], World::at(WORD))
}

fn entry(world: &World, peer: usize, at: Offset) -> (&AtomicU64, &AtomicU64) {
    let first = thread_word::BIAS + 2 * bias_entry(at);
    (&world.slots[peer][first], &world.slots[peer][first + 1])
}

/// A world in which the mutex is biased to thread 2.
fn biased() -> Arc<World> {
    let world = World::new();
    let (place, turn) = entry(&world, 2, World::at(WORD));
    world.slots[2][thread_word::BIASES].store(FIRST.into(), Ordering::SeqCst);
    turn.store(BiasTurn::of(FIRST).word(), Ordering::SeqCst);
    place.store(BiasPlace::of(World::at(WORD)).word(), Ordering::SeqCst);
    let word = LockWord::biased(World::bias(2, FIRST));
    world.words[WORD].store(word.word(), Ordering::SeqCst);
    world
}

/// Thread 2 has freed the mutex so often that it is biased to it when it does so next.
fn due(world: &World) {
    let mut place = BiasPlace::candidate(World::at(WORD));
    for _ in 1..BIAS_AFTER {
        place = place.freed().unwrap();
    }
    entry(world, 2, World::at(WORD)).0.store(place.word(), Ordering::SeqCst);
}

/// As those do it who use mutexes.
fn lock<'a>(
    world: &World,
    me: &Thread<'a>,
    env: &(impl Park + Liveness),
    deadline: Option<u64>,
) -> Result<(Grip<'a>, Taken), LockError> {
    let mutex = mutex(world);
    if let Some(grip) = mutex.lock_biased(me) {
        return Ok((grip, Taken::Clean));
    }
    let taken = mutex.lock_biased_slowly(me, env, deadline)?;
    Ok((mutex.grip(me, me.owner().word()), taken))
}

fn free(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness), grip: Grip<'_>) {
    if !mutex(world).unlock_biased(grip) {
        mutex(world).unlock_biased_slowly(me, env, grip, Release::Done).unwrap();
    }
}

/// Takes the mutex, changes the data, and frees it.
fn turn_until(world: &World, peer: usize, deadline: Option<u64>) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let (grip, taken) = lock(world, &me, world, deadline)?;
    if taken == Taken::OwnerDied {
        mutex(world).mark_consistent_biased(&me, grip).unwrap();
    }
    world.write_data();
    free(world, &me, world, grip);
    Ok(taken)
}

fn turn(world: &World, peer: usize) -> Taken {
    turn_until(world, peer, None).unwrap()
}

fn spawn<R: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> R + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

/// Nobody has the mutex, or is about to do anything about it.
fn nothing_is_left(world: &World) {
    let word = mutex(world).look();
    let inside = word.bias().and_then(|bias| world.inside(bias, World::at(WORD)));
    assert!(word.is_biased() || !word.is_owned(), "{word:?}");
    assert_eq!(inside, None);
    assert_eq!(word.flags(), LockFlags::NONE, "{word:?}");
    for slot in &world.slots {
        assert_eq!(slot[thread_word::PENDING].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

#[test]
fn who_has_a_bias_and_who_revokes_it_exclude_each_other_and_lose_no_wake_up() {
    for turns in [1, 2] {
        check(3, move || {
            let world = biased();
            let other = spawn(&world, |world| turn(world, 1));
            for _ in 0..turns {
                assert_eq!(turn(&world, 2), Taken::Clean);
            }
            assert_eq!(other.join().unwrap(), Taken::Clean);
            assert_eq!(world.read_data(), turns + 1);
            nothing_is_left(&world);
        });
    }
}

#[test]
fn two_that_revoke_a_bias_at_once_and_who_enters_by_it_all_get_their_turn() {
    check(2, || {
        let world = biased();
        let others = [0, 1].map(|peer| spawn(&world, move |world| turn(world, peer)));
        assert_eq!(turn(&world, 2), Taken::Clean);
        for other in others {
            assert_eq!(other.join().unwrap(), Taken::Clean);
        }
        assert_eq!(world.read_data(), 3);
        nothing_is_left(&world);
    });
}
