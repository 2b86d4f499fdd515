//! Mutexes that become biased, are biased, and stop being biased. The bias is thread 0's.

use std::sync::atomic::Ordering;

use commonhold_layout::{
    BIAS_AFTER, BIAS_MISSES, Bias, BiasState, BiasTarget, LockFlags, LockWord, PeerId, ThreadId,
    bias_entry, thread_word,
};
use commonhold_sync::{
    Condvar, FIRST_SLICE_NS, LockError, Mutex, MutexHold, Release, Taken, Waited, Wake, inside_of,
    settle_bias,
};
use proptest::prelude::*;

use crate::script::{World, told_of};

/// `FIRST` and `SECOND` have the same entry, `THIRD` has another.
const FIRST: usize = 1;
const SECOND: usize = 4;
const THIRD: usize = 6;

/// Number of frees after which a mutex is biased.
const EARNED: u64 = BIAS_AFTER + 1;

const CLEAN: Result<Taken, LockError> = Ok(Taken::Clean);

fn mutex(world: &World, word: usize) -> Mutex<'_> {
    Mutex::new(&world.words[word], World::at(word))
}

/// Takes a mutex as the facade does.
fn lock(
    world: &World,
    peer: usize,
    word: usize,
    deadline: Option<u64>,
) -> Result<(MutexHold<'_>, Taken), LockError> {
    let (me, mutex) = (world.me(peer), mutex(world, word));
    if let Some(hold) = mutex.lock_biased(&me) {
        return Ok((hold, Taken::Clean));
    }
    let taken = mutex.lock_biased_slowly(&me, world, deadline)?;
    Ok((mutex.hold(&me, me.owner().word()), taken))
}

fn take(world: &World, peer: usize, word: usize) -> Result<Taken, LockError> {
    lock(world, peer, word, Some(0)).map(|(_, taken)| taken)
}

fn free(world: &World, peer: usize, word: usize, hold: MutexHold<'_>) -> Result<(), LockError> {
    if mutex(world, word).unlock_biased(hold) {
        return Ok(());
    }
    mutex(world, word).unlock_biased_slowly(&world.me(peer), world, hold, Release::Done)
}

fn use_it(world: &World, peer: usize, word: usize) {
    let (hold, taken) = lock(world, peer, word, None).unwrap();
    assert_eq!(taken, Taken::Clean);
    free(world, peer, word, hold).unwrap();
}

fn is_biased(world: &World, word: usize) -> bool {
    mutex(world, word).look().is_biased()
}

/// A world in which a mutex is biased to thread 0.
fn biased(word: usize) -> World {
    let world = World::new();
    (0..EARNED).for_each(|_| use_it(&world, 0, word));
    assert!(is_biased(&world, word));
    world
}

fn bias_of(peer: u16, number: u32) -> Bias {
    Bias { peer: PeerId::new(peer), thread: ThreadId::FIRST, number }
}

/// All words that a call could change.
fn words(world: &World) -> Vec<u64> {
    let slots = world.slots.iter().flatten();
    world.words.iter().chain(slots).map(|word| word.load(Ordering::Relaxed)).collect()
}

#[test]
fn the_mutexes_of_these_tests_compete_as_they_say() {
    let [first, second, third] = [FIRST, SECOND, THIRD].map(|word| bias_entry(World::at(word)));
    assert!(first == second && first != third);
}

#[test]
fn a_mutex_is_biased_to_the_thread_that_has_freed_it_often_enough_and_then_its_word_stays() {
    let world = World::new();
    for freed in 0..EARNED {
        assert!(!is_biased(&world, FIRST), "{freed}");
        let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
        assert!(!hold.is_biased());
        free(&world, 0, FIRST, hold).unwrap();
    }
    // The loom suite begins with this state.
    let word = LockWord::biased(bias_of(0, 1));
    let entry = thread_word::BIAS + 2 * bias_entry(World::at(FIRST));
    assert_eq!(mutex(&world, FIRST).look(), word);
    assert_eq!(world.slots[0][thread_word::BIASES].load(Ordering::Relaxed), 1);
    let place = || world.slots[0][entry].load(Ordering::Relaxed);
    let turn = || world.slots[0][entry + 1].load(Ordering::Relaxed);
    assert_eq!(place(), BiasTarget::new(World::at(FIRST)).word());
    for _ in 0..3 {
        assert_eq!(turn(), BiasState::new(1).word());
        let hold = mutex(&world, FIRST).lock_biased(&world.me(0)).unwrap();
        assert!(hold.is_biased() && BiasState::from_word(turn()).is_inside());
        assert_eq!(mutex(&world, FIRST).look(), word);
        assert!(mutex(&world, FIRST).unlock_biased(hold));
        assert_eq!(mutex(&world, FIRST).look(), word);
    }
    assert!(world.is_nothing_pending() && world.woken.borrow().is_empty());
}

#[test]
fn a_mutex_that_two_threads_use_is_biased_to_neither() {
    let world = World::new();
    for _ in 0..3 {
        (1..BIAS_AFTER).for_each(|_| use_it(&world, 0, FIRST));
        let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
        let word = hold.word();
        world.then(move |world| {
            free(world, 0, FIRST, mutex(world, FIRST).hold(&world.me(0), word)).unwrap();
        });
        use_it(&world, 1, FIRST);
        assert_eq!(mutex(&world, FIRST).look(), LockWord::FREE);
    }
}

#[test]
fn only_frees_after_the_last_one_with_a_waiter_count_towards_a_bias() {
    let world = World::new();
    (0..BIAS_AFTER / 2).for_each(|_| use_it(&world, 0, FIRST));
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    let flagged = mutex(&world, FIRST).look().with_flags(LockFlags::WAITERS);
    world.words[FIRST].store(flagged.word(), Ordering::Relaxed);
    free(&world, 0, FIRST, hold).unwrap();
    for _ in 0..BIAS_AFTER {
        assert!(!is_biased(&world, FIRST));
        use_it(&world, 0, FIRST);
    }
    assert!(is_biased(&world, FIRST));
}

#[test]
fn where_no_mutex_may_be_biased_none_is_and_nearly_all_unlocks_are_quick() {
    let world = World::new();
    world.leased.set(true);
    let mut slow = 0;
    for _ in 0..3 * EARNED {
        let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
        if !mutex(&world, FIRST).unlock_biased(hold) {
            slow += 1;
            let me = world.me(0);
            mutex(&world, FIRST).unlock_biased_slowly(&me, &world, hold, Release::Done).unwrap();
        }
        assert_eq!(mutex(&world, FIRST).look(), LockWord::FREE);
    }
    assert!(slow <= 3, "{slow}");
}

#[test]
fn an_owner_that_locks_again_is_told_of_the_deadlock_and_can_free_the_mutex() {
    for by_bias in [false, true] {
        let world = if by_bias { biased(FIRST) } else { World::new() };
        let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
        assert_eq!(hold.is_biased(), by_bias);
        for deadline in [None, Some(0), Some(1000)] {
            let again = lock(&world, 0, FIRST, deadline).map(|(_, taken)| taken);
            assert_eq!(again, Err(LockError::Deadlock));
        }
        assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
        free(&world, 0, FIRST, hold).unwrap();
        assert_eq!(take(&world, 1, FIRST), CLEAN);
    }
}

#[test]
fn a_bias_that_is_used_between_outlasts_any_number_of_other_mutexes() {
    let world = biased(FIRST);
    for _ in 0..4 * BIAS_MISSES {
        use_it(&world, 0, SECOND);
        use_it(&world, 0, FIRST);
    }
    assert!(is_biased(&world, FIRST) && !is_biased(&world, SECOND));
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    assert!(hold.is_biased());
    // Frees of other mutexes do not end a bias while the thread is inside.
    (0..2 * BIAS_MISSES).for_each(|_| use_it(&world, 0, SECOND));
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    free(&world, 0, FIRST, hold).unwrap();
}

#[test]
fn an_unused_bias_is_given_up_for_another_and_its_mutex_is_free() {
    for peer in [0, 1] {
        let world = biased(FIRST);
        for _ in 0..BIAS_MISSES + EARNED {
            assert!(!is_biased(&world, SECOND));
            use_it(&world, 0, SECOND);
        }
        // The word of the first has not been touched.
        assert!(is_biased(&world, SECOND) && is_biased(&world, FIRST));
        let (hold, taken) = lock(&world, peer, FIRST, Some(0)).unwrap();
        assert_eq!((hold.is_biased(), taken), (false, Taken::Clean));
        free(&world, peer, FIRST, hold).unwrap();
        assert_eq!(mutex(&world, FIRST).look(), LockWord::FREE);
        let (hold, _) = lock(&world, 0, SECOND, None).unwrap();
        assert!(hold.is_biased());
    }
}

#[test]
fn mutexes_of_different_entries_are_biased_at_once() {
    let world = biased(FIRST);
    (0..EARNED).for_each(|_| use_it(&world, 0, THIRD));
    let [(first, _), (third, _)] = [FIRST, THIRD].map(|word| lock(&world, 0, word, None).unwrap());
    assert!(first.is_biased() && third.is_biased());
    let inside: Vec<_> = inside_of(&world.slots[0], |number| bias_of(0, number)).collect();
    let all = [(World::at(FIRST), bias_of(0, 1)), (World::at(THIRD), bias_of(0, 2))];
    assert!(inside.len() == 2 && all.iter().all(|one| inside.contains(one)), "{inside:?}");
}

#[test]
fn a_bias_that_was_revoked_is_earned_anew_with_another_number() {
    let world = biased(FIRST);
    use_it(&world, 1, FIRST);
    assert_eq!(mutex(&world, FIRST).look(), LockWord::FREE);
    // The first free makes the mutex a candidate again, and counts.
    for _ in 0..BIAS_AFTER {
        assert!(!is_biased(&world, FIRST));
        use_it(&world, 0, FIRST);
    }
    assert_eq!(mutex(&world, FIRST).look(), LockWord::biased(bias_of(0, 2)));
}

#[test]
fn a_waiter_is_woken_when_the_thread_inside_leaves() {
    let world = biased(FIRST);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let word = hold.word();
    world.then(move |world| {
        let hold = mutex(world, FIRST).hold(&world.me(0), word);
        free(world, 0, FIRST, hold).unwrap();
    });
    assert_eq!(lock(&world, 1, FIRST, None).unwrap().1, Taken::Clean);
    assert_eq!((world.slept.get(), &*world.woken.borrow()), (1, &vec![Wake::One]));
    assert!(world.is_nothing_pending());
}

/// It may have used up a wake-up that was meant for another; the thread that leaves may not see a flag.
#[test]
fn a_sleeper_that_gives_up_on_a_thread_inside_wakes_the_next_itself() {
    let world = biased(FIRST);
    let (_hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let waited = lock(&world, 1, FIRST, Some(10_000_000)).map(|(_, taken)| taken);
    assert_eq!(waited, Err(LockError::TimedOut));
    assert_eq!(*world.woken.borrow(), [Wake::One]);
}

/// A thread that leaves looks for a revocation without a fence, and may have missed it.
#[test]
fn the_first_sleep_after_a_revocation_is_a_millisecond_even_for_a_waiter_that_has_slept() {
    let world = World::new();
    (1..EARNED).for_each(|_| use_it(&world, 0, FIRST));
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let word = hold.word();
    world.then(move |world| {
        // The owner frees the mutex, and earns the bias while the waiter sleeps. It is inside when the waiter looks
        // again.
        free(world, 0, FIRST, mutex(world, FIRST).hold(&world.me(0), word)).unwrap();
        (0..EARNED).for_each(|_| use_it(world, 0, FIRST));
        assert!(lock(world, 0, FIRST, None).unwrap().0.is_biased());
        world.then(move |world| {
            let bias = mutex(world, FIRST).look().bias().unwrap();
            let hold = mutex(world, FIRST).hold(&world.me(0), LockWord::biased(bias));
            free(world, 0, FIRST, hold).unwrap();
        });
    });
    assert_eq!(lock(&world, 1, FIRST, None).unwrap().1, Taken::Clean);
    assert_eq!(world.naps.borrow()[1], FIRST_SLICE_NS);
}

#[test]
fn a_thread_that_is_fenced_inside_changes_nothing_any_more_and_the_next_is_told() {
    let world = biased(FIRST);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    world.fence(0);
    let (me, mutex, before) = (world.me(0), mutex(&world, FIRST), words(&world));
    assert!(!mutex.unlock_biased(hold));
    for how in [Release::Done, Release::Inconsistent] {
        let freed = mutex.unlock_biased_slowly(&me, &world, hold, how);
        assert_eq!(freed, Err(LockError::Fenced));
    }
    assert_eq!(mutex.own(&me, hold).map(drop), Err(LockError::Fenced));
    assert_eq!(mutex.mark_consistent_biased(&me, hold), Err(LockError::Fenced));
    assert_eq!(words(&world), before);
    assert_eq!(take(&world, 1, FIRST), Ok(told_of(0)));
    assert!(!mutex.unlock_biased(hold));
}

#[test]
fn a_thread_that_is_fenced_on_its_way_out_changes_nothing_any_more() {
    let world = biased(FIRST);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    assert!(!mutex(&world, FIRST).unlock_biased(hold));
    world.fence(0);
    let before = words(&world);
    let me = world.me(0);
    let freed = mutex(&world, FIRST).unlock_biased_slowly(&me, &world, hold, Release::Done);
    assert_eq!((freed, words(&world)), (Err(LockError::Fenced), before));
    assert_eq!(take(&world, 1, FIRST), CLEAN);
}

#[test]
fn a_thread_that_was_fenced_outside_does_not_enter_and_the_next_is_told_nothing() {
    let world = biased(FIRST);
    world.fence(0);
    assert!(mutex(&world, FIRST).lock_biased(&world.me(0)).is_none());
    assert_eq!(take(&world, 0, FIRST), Err(LockError::Fenced));
    assert_eq!(take(&world, 1, FIRST), CLEAN);
}

#[test]
fn a_mutex_held_by_a_bias_is_consistent_until_it_is_left_inconsistent() {
    let world = biased(FIRST);
    let me = world.me(0);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    assert_eq!(mutex(&world, FIRST).mark_consistent_biased(&me, hold), Ok(()));
    let how = Release::Inconsistent;
    mutex(&world, FIRST).unlock_biased_slowly(&me, &world, hold, how).unwrap();
    let (hold, taken) = lock(&world, 0, FIRST, None).unwrap();
    assert_eq!((hold.is_biased(), taken), (false, told_of(0)));
    assert_eq!(mutex(&world, FIRST).mark_consistent_biased(&me, hold), Ok(()));
    free(&world, 0, FIRST, hold).unwrap();
    assert_eq!(take(&world, 1, FIRST), CLEAN);
}

#[test]
fn own_turns_a_hold_by_a_bias_into_a_hold_by_the_word() {
    let world = biased(FIRST);
    let me = world.me(0);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let owned = mutex(&world, FIRST).own(&me, hold).unwrap();
    assert!(!owned.is_biased() && mutex(&world, FIRST).look() == me.owner().word());
    assert_eq!(inside_of(&world.slots[0], |number| bias_of(0, number)).count(), 0);
    // A second call changes nothing; the hold by the bias is no longer valid.
    assert_eq!(mutex(&world, FIRST).own(&me, owned).map(|hold| hold.word()), Ok(owned.word()));
    assert_eq!(mutex(&world, FIRST).own(&me, hold).map(drop), Err(LockError::Fenced));
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    free(&world, 0, FIRST, owned).unwrap();
    assert_eq!(mutex(&world, FIRST).look(), LockWord::FREE);
}

#[test]
fn a_mutex_that_is_left_inconsistent_is_not_biased_though_it_is_due() {
    let world = World::new();
    (1..EARNED).for_each(|_| use_it(&world, 0, FIRST));
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let (me, how) = (world.me(0), Release::Inconsistent);
    mutex(&world, FIRST).unlock_biased_slowly(&me, &world, hold, how).unwrap();
    assert_eq!(take(&world, 1, FIRST), Ok(told_of(0)));
}

#[test]
fn a_word_of_a_bias_that_is_over_is_free_though_the_thread_is_inside_by_another() {
    let world = biased(FIRST);
    let (_hold, _) = lock(&world, 0, FIRST, None).unwrap();
    world.words[FIRST].store(LockWord::biased(bias_of(0, 7)).word(), Ordering::Relaxed);
    assert_eq!(take(&world, 1, FIRST), CLEAN);
}

/// As if a user had copied bytes from one place to another.
#[test]
fn a_copy_of_a_biased_word_at_another_offset_is_free() {
    let world = biased(FIRST);
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let word = world.words[FIRST].load(Ordering::Relaxed);
    for copy in [SECOND, THIRD] {
        for peer in [1, 0] {
            world.words[copy].store(word, Ordering::Relaxed);
            assert_eq!(take(&world, peer, copy), CLEAN);
        }
    }
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    free(&world, 0, FIRST, hold).unwrap();
}

#[test]
fn a_thread_that_died_inside_is_named_to_every_owner_that_repairs_nothing() {
    let world = biased(FIRST);
    let _hold = lock(&world, 0, FIRST, None).unwrap();
    world.kill(0);
    for peer in [1, 2, 3] {
        let (hold, taken) = lock(&world, peer, FIRST, Some(0)).unwrap();
        assert_eq!(taken, told_of(0));
        let how = Release::unchanged(taken);
        let me = world.me(peer);
        mutex(&world, FIRST).unlock_biased_slowly(&me, &world, hold, how).unwrap();
    }
}

#[test]
fn a_mutex_is_not_biased_before_it_is_repaired_however_often_it_is_freed() {
    let world = World::new();
    let (hold, _) = lock(&world, 0, FIRST, None).unwrap();
    let how = Release::Inconsistent;
    mutex(&world, FIRST).unlock_biased_slowly(&world.me(0), &world, hold, how).unwrap();
    for _ in 0..2 * EARNED {
        let (hold, taken) = lock(&world, 1, FIRST, None).unwrap();
        assert!(taken.is_owner_died() && !hold.is_biased());
        free(&world, 1, FIRST, hold).unwrap();
    }
    let (hold, taken) = lock(&world, 1, FIRST, None).unwrap();
    assert_eq!(taken, told_of(1));
    mutex(&world, FIRST).mark_consistent_biased(&world.me(1), hold).unwrap();
    free(&world, 1, FIRST, hold).unwrap();
    assert_eq!(take(&world, 2, FIRST), CLEAN);
}

#[test]
fn a_reaper_settles_the_bias_that_it_was_told_of_and_no_other() {
    let world = biased(FIRST);
    let _hold = lock(&world, 0, FIRST, None).unwrap();
    assert_eq!(take(&world, 1, FIRST), Err(LockError::TimedOut));
    let before = words(&world);
    let dead = world.me(0).owner();
    for other in [bias_of(0, 2), bias_of(1, 1)] {
        settle_bias(&world.words[FIRST], other, Some(dead), &world);
        assert_eq!(words(&world), before);
    }
    let starving = LockFlags::STARVING.with(LockFlags::WAITERS);
    let word = mutex(&world, FIRST).look().with_flags(starving).word();
    for known in [Some(dead), None] {
        world.words[FIRST].store(word, Ordering::Relaxed);
        world.woken.borrow_mut().clear();
        settle_bias(&world.words[FIRST], bias_of(0, 1), known, &world);
        let left = LockFlags::STARVING.with(LockFlags::INCONSISTENT);
        assert_eq!(mutex(&world, FIRST).look().flags(), left);
        assert_eq!(*world.woken.borrow(), [Wake::All]);
        assert_eq!(take(&world, 1, FIRST), Ok(Taken::OwnerDied(known)));
    }
}

/// A bias is no owner, dead or alive: to a waiter for a condition it says that the mutex is free.
#[test]
fn a_bias_of_the_mutex_does_not_end_a_wait_for_a_condition() {
    let world = World::new();
    let condvar = Condvar::new(&world.words[THIRD], World::at(THIRD));
    assert_eq!(take(&world, 1, FIRST), CLEAN);
    world.then(|world| (0..EARNED).for_each(|_| use_it(world, 0, FIRST)));
    let me = world.me(1);
    let waited = condvar.wait(&mutex(&world, FIRST), &me, &world, Some(1_000_000_000));
    assert_eq!(waited, Ok((Taken::Clean, Waited::TimedOut)));
}

proptest! {
    #[test]
    fn with_any_word_and_entries_no_thread_panics_or_waits_for_ever(
        word: u64, biased: bool, peer in 0_u64..6, number in 0_u64..3, place in 0_u64..8,
        turn in 0_u64..3, inside: bool, missed: u16, junk: bool, noise: u64, peers in 0_usize..4,
    ) {
        let world = World::new();
        // Often a bias of some thread, and an entry with the number of that bias.
        let near = word & 0xF000_0000 | number << 32 | word & 1 << 14 | peer;
        let word = if biased { near | 1 << 15 } else { word };
        let entry = thread_word::BIAS + 2 * bias_entry(World::at(FIRST));
        let turn = u64::from(missed) << 48 | u64::from(inside) << 32 | turn;
        let [place, turn] = if junk { [noise, noise.rotate_left(17)] } else { [place * 8, turn] };
        for slot in &world.slots {
            slot[entry].store(place, Ordering::Relaxed);
            slot[entry + 1].store(turn, Ordering::Relaxed);
        }
        world.words[FIRST].store(word, Ordering::Relaxed);
        for deadline in [Some(0), Some(50_000_000)] {
            if let Ok((hold, taken)) = lock(&world, peers, FIRST, deadline) {
                let me = world.me(peers);
                if taken.is_owner_died() {
                    prop_assert!(mutex(&world, FIRST).mark_consistent_biased(&me, hold).is_ok());
                }
                prop_assert!(free(&world, peers, FIRST, hold).is_ok());
            }
        }
        if biased && peer >= 4 && number > 0 {
            // The bias is of a thread that does not exist.
            prop_assert_eq!(take(&world, 3, FIRST), CLEAN);
        }
        let _ = mutex(&world, FIRST).reset(&world);
        prop_assert!(world.is_nothing_pending());
    }
}
