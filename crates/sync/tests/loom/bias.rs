//! Mutexes that are biased to thread 2, or will be.
//!
//! Most scenarios write the words of a bias themselves; `tests/alone/bias.rs` shows that using a mutex
//! makes the same words.

use commonhold_layout::{
    BIAS_AFTER, BiasState, BiasTarget, LockFlags, LockWord, Offset, bias_entry, thread_word,
};
use commonhold_sync::{Liveness, LockError, Mutex, MutexHold, Park, Release, Taken, Thread};
use commonhold_window::atomic::{AtomicU64, Ordering};
use loom::{sync::Arc, thread};

use crate::world::{World, check};

/// Not 0: that offset is the target of an empty entry.
pub(crate) const WORD: usize = 1;
const FIRST: u32 = 1;

pub(crate) fn mutex(world: &World) -> Mutex<'_> {
    Mutex::new(&world.words[WORD], World::at(WORD))
}

fn entry(world: &World, peer: usize, at: Offset) -> (&AtomicU64, &AtomicU64) {
    let first = thread_word::BIAS + 2 * bias_entry(at);
    (&world.slots[peer][first], &world.slots[peer][first + 1])
}

/// A world in which the mutex is biased to thread 2.
pub(crate) fn biased() -> Arc<World> {
    let world = World::new();
    let (place, turn) = entry(&world, 2, World::at(WORD));
    world.slots[2][thread_word::BIASES].store(FIRST.into(), Ordering::SeqCst);
    turn.store(BiasState::new(FIRST).word(), Ordering::SeqCst);
    place.store(BiasTarget::new(World::at(WORD)).word(), Ordering::SeqCst);
    let word = LockWord::biased(World::bias(2, FIRST));
    world.words[WORD].store(word.word(), Ordering::SeqCst);
    world
}

/// Thread 2 has freed the mutex so often that the next time it biases the mutex to itself.
pub(crate) fn due(world: &World) {
    let mut place = BiasTarget::candidate(World::at(WORD));
    for _ in 1..BIAS_AFTER {
        place = place.freed().unwrap();
    }
    entry(world, 2, World::at(WORD)).0.store(place.word(), Ordering::SeqCst);
}

/// Takes a mutex as the facade does.
pub(crate) fn lock<'a>(
    world: &World,
    me: &Thread<'a>,
    env: &(impl Park + Liveness),
    deadline: Option<u64>,
) -> Result<(MutexHold<'a>, Taken), LockError> {
    let mutex = mutex(world);
    if let Some(hold) = mutex.lock_biased(me) {
        return Ok((hold, Taken::Clean));
    }
    let taken = mutex.lock_biased_slowly(me, env, deadline)?;
    Ok((mutex.hold(me, me.owner().word()), taken))
}

pub(crate) fn free(
    world: &World,
    me: &Thread<'_>,
    env: &(impl Park + Liveness),
    hold: MutexHold<'_>,
) {
    if !mutex(world).unlock_biased(hold) {
        mutex(world).unlock_biased_slowly(me, env, hold, Release::Done).unwrap();
    }
}

/// Takes the mutex, changes the data, and frees it.
pub(crate) fn turn_until(
    world: &World,
    peer: usize,
    deadline: Option<u64>,
) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let (hold, taken) = lock(world, &me, world, deadline)?;
    if taken.is_owner_died() {
        mutex(world).mark_consistent_biased(&me, hold).unwrap();
    }
    world.write_data();
    free(world, &me, world, hold);
    Ok(taken)
}

pub(crate) fn turn(world: &World, peer: usize) -> Taken {
    turn_until(world, peer, None).unwrap()
}

pub(crate) fn spawn<R: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> R + 'static,
) -> thread::JoinHandle<R> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

/// No thread has the mutex, or has announced anything.
fn nothing_is_left(world: &World) {
    nothing_is_left_by_the_living(world);
    let word = mutex(world).look();
    let inside = word.bias().and_then(|bias| world.inside(bias, World::at(WORD)));
    assert_eq!(inside, None);
    for slot in &world.slots {
        assert_eq!(slot[thread_word::PENDING].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

pub(crate) fn nothing_is_left_by_the_living(world: &World) {
    let word = mutex(world).look();
    assert!(word.is_biased() || !word.is_owned(), "{word:?}");
    assert_eq!(word.flags(), LockFlags::NONE, "{word:?}");
}

#[test]
fn a_biased_thread_and_a_revoker_exclude_each_other_and_lose_no_wake_up() {
    for turns in [1, 2] {
        check(5, move || {
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
fn two_revokers_and_the_biased_thread_all_get_the_mutex() {
    check(3, || {
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

/// Thread 2 owns the word, and biases it when it frees it.
#[test]
fn a_bias_that_is_made_while_another_thread_comes_or_waits_locks_nobody_out() {
    for others in [1, 2] {
        check(5 - others, move || {
            let world = World::new();
            due(&world);
            let me = world.me(2);
            let (hold, _) = lock(&world, &me, &*world, None).unwrap();
            let others: Vec<_> =
                (0..others).map(|peer| spawn(&world, move |world| turn(world, peer))).collect();
            world.write_data();
            free(&world, &me, &*world, hold);
            assert_eq!(turn(&world, 2), Taken::Clean);
            let came = others.len() as u64;
            for other in others {
                assert_eq!(other.join().unwrap(), Taken::Clean);
            }
            assert_eq!(world.read_data(), came + 2);
            nothing_is_left(&world);
        });
    }
}

/// As before a wait for a condition.
#[test]
fn a_thread_that_gives_up_its_bias_inside_still_has_the_mutex_and_can_tell_the_next_owner() {
    for how in [Release::Done, Release::Inconsistent] {
        check(4, move || {
            let world = biased();
            let waiter = spawn(&world, |world| turn(world, 1));
            let me = world.me(2);
            let (hold, _) = lock(&world, &me, &*world, None).unwrap();
            world.write_data();
            let hold = mutex(&world).own(&me, hold).unwrap();
            assert!(!hold.is_biased());
            world.write_data();
            mutex(&world).unlock(&me, &*world, how).unwrap();
            let late = turn(&world, 2);
            let told = [waiter.join().unwrap(), late];
            let once = usize::from(how == Release::Inconsistent);
            assert_eq!(told.iter().filter(|told| **told == World::told_of(2)).count(), once);
            assert_eq!(world.read_data(), 4);
            nothing_is_left(&world);
        });
    }
}

/// As a panicking thread does: it only frees the mutex as inconsistent.
#[test]
fn the_next_owner_is_told_if_a_biased_mutex_is_left_inconsistent() {
    check(4, || {
        let world = biased();
        let waiter = spawn(&world, |world| turn(world, 1));
        let me = world.me(2);
        let (hold, _) = lock(&world, &me, &*world, None).unwrap();
        world.write_data();
        mutex(&world).unlock_biased_slowly(&me, &*world, hold, Release::Inconsistent).unwrap();
        let told = [waiter.join().unwrap(), turn(&world, 0)];
        assert_eq!(told.iter().filter(|told| **told == World::told_of(2)).count(), 1);
        nothing_is_left(&world);
    });
}

/// Thread 1 may stop between its look at the entry and its swap of the word, while thread 2 loses one bias and earns
/// the next, and thread 0 contends for the mutex under both.
#[test]
fn a_contender_that_saw_an_old_bias_does_not_take_the_mutex_from_the_thread_of_a_new_one() {
    check(3, || {
        let world = biased();
        let slow = spawn(&world, |world| turn(world, 1));
        let quick = spawn(&world, |world| turn_until(world, 0, Some(0)));
        assert_eq!(turn(&world, 2), Taken::Clean);
        let (place, _) = entry(&world, 2, World::at(WORD));
        if BiasTarget::from_word(place.load(Ordering::Relaxed)).is_candidate(World::at(WORD)) {
            due(&world);
        }
        for _ in 0..2 {
            assert_eq!(turn(&world, 2), Taken::Clean);
        }
        assert_eq!(slow.join().unwrap(), Taken::Clean);
        let quick = quick.join().unwrap();
        assert!(matches!(quick, Ok(Taken::Clean) | Err(LockError::TimedOut)), "{quick:?}");
        assert_eq!(world.read_data(), 4 + u64::from(quick.is_ok()));
        nothing_is_left(&world);
    });
}

/// A contender that does not wait, or whose time is up already, beside one that waits.
#[test]
fn a_contender_without_time_revokes_a_bias_and_leaves_no_other_asleep() {
    for deadline in [0, 1] {
        check(3, move || {
            let world = biased();
            let hurried = spawn(&world, move |world| turn_until(world, 0, Some(deadline)));
            let patient = spawn(&world, |world| turn(world, 1));
            assert_eq!(turn(&world, 2), Taken::Clean);
            assert_eq!(patient.join().unwrap(), Taken::Clean);
            let hurried = hurried.join().unwrap();
            assert!(matches!(hurried, Ok(Taken::Clean) | Err(LockError::TimedOut)));
            assert_eq!(world.read_data(), 2 + u64::from(hurried.is_ok()));
            nothing_is_left(&world);
        });
    }
}

#[test]
fn a_contender_without_time_gets_a_biased_mutex_exactly_if_its_thread_is_outside() {
    for inside in [false, true] {
        check(1, move || {
            let world = biased();
            let me = world.me(2);
            let hold = inside.then(|| mutex(&world).lock_biased(&me).unwrap());
            for deadline in [0, 1] {
                let taken = turn_until(&world, 0, Some(deadline));
                let right = if inside { Err(LockError::TimedOut) } else { Ok(Taken::Clean) };
                assert_eq!(taken, right);
            }
            if let Some(hold) = hold {
                assert!(
                    !mutex(&world).unlock_biased(hold),
                    "the thread sees that the bias is revoked"
                );
                mutex(&world).unlock_biased_slowly(&me, &*world, hold, Release::Done).unwrap();
            }
            assert_eq!(mutex(&world).look(), LockWord::FREE);
            nothing_is_left(&world);
        });
    }
}

#[test]
fn a_reset_frees_a_biased_mutex_that_nobody_holds_and_refuses_one_that_is_held() {
    check(3, || {
        let world = biased();
        let waiter = spawn(&world, |world| turn(world, 1));
        let owner = spawn(&world, |world| {
            let me = world.me(2);
            let (hold, _) = lock(world, &me, world, None).unwrap();
            world.write_data();
            let reset = mutex(world).reset(world);
            world.write_data();
            free(world, &me, world, hold);
            reset
        });
        // Another thread may hold the mutex now or not: this call may succeed or fail.
        let _ = mutex(&world).reset(&*world);
        assert_eq!(owner.join().unwrap(), Err(LockError::TimedOut));
        assert_eq!(waiter.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 3);
        assert_eq!(mutex(&world).reset(&*world), Ok(()));
        assert_eq!(mutex(&world).look(), LockWord::FREE);
        nothing_is_left(&world);
    });
}

/// A reaper and two contenders at once. The dead thread is fenced, but its entries are not settled yet.
#[test]
fn a_death_inside_is_told_once_in_any_order() {
    for revoked in [false, true] {
        check(3, move || {
            let world = biased();
            let me = world.me(2);
            let _hold = mutex(&world).lock_biased(&me).unwrap();
            world.write_data();
            if revoked {
                assert_eq!(turn_until(&world, 0, Some(0)), Err(LockError::TimedOut));
            }
            world.fence(2);
            let reaper = spawn(&world, |world| world.settle(2));
            let waiter = spawn(&world, |world| turn(world, 1));
            let mine = turn(&world, 0);
            reaper.join().unwrap();
            let told = [mine, waiter.join().unwrap(), turn(&world, 0)];
            let told = told.iter().filter(|taken| **taken == World::told_of(2)).count();
            assert_eq!(told, 1);
            world.settle(2);
            assert_eq!(turn(&world, 0), Taken::Clean);
            nothing_is_left(&world);
        });
    }
}

/// In any order of the reaper and the contenders: the name of the dead thread stays until an owner repairs the data.
#[test]
fn a_death_inside_is_told_by_name_to_every_owner_that_repairs_nothing() {
    check(3, || {
        let look = |world: &World, peer| {
            let me = world.me(peer);
            let (hold, taken) = lock(world, &me, world, None).unwrap();
            assert_eq!(taken, World::told_of(2));
            world.write_data();
            let how = Release::unchanged(taken);
            mutex(world).unlock_biased_slowly(&me, world, hold, how).unwrap();
        };
        let world = biased();
        let _hold = mutex(&world).lock_biased(&world.me(2)).unwrap();
        world.write_data();
        world.fence(2);
        let reaper = spawn(&world, |world| world.settle(2));
        let waiter = spawn(&world, move |world| look(world, 1));
        look(&world, 0);
        reaper.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(turn(&world, 0), World::told_of(2));
        nothing_is_left(&world);
    });
}

/// The thread reuses the entry for another mutex: of the first, the entry then says only that it is not its target.
#[test]
fn a_contender_that_finds_the_entry_reused_sees_what_was_done_under_the_first_mutex() {
    check(4, || {
        let world = biased();
        let waiter = spawn(&world, |world| turn(world, 1));
        assert_eq!(turn(&world, 2), Taken::Clean);
        let at = (2..).map(World::at).find(|at| bias_entry(*at) == bias_entry(World::at(WORD)));
        let me = world.me(2);
        let other = Mutex::new(&world.words[2], at.unwrap());
        for _ in 0..2 {
            let hold = other.lock_biased(&me).unwrap();
            assert!(other.unlock_biased(hold));
            // As if so many other mutexes had been freed that the thread gives up the first bias.
            let (place, turn) = entry(&world, 2, World::at(WORD));
            let mut missed = BiasState::from_word(turn.load(Ordering::Relaxed));
            while let Some(more) = missed.missed() {
                missed = more;
            }
            if BiasTarget::from_word(place.load(Ordering::Relaxed)).biased().is_some() {
                turn.store(missed.word(), Ordering::Relaxed);
            }
        }
        assert_eq!(waiter.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 2);
        nothing_is_left(&world);
    });
}
