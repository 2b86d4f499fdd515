//! The semaphore.

use std::sync::atomic::Ordering;

use commonhold_layout::{LockWord, PendingKind};
use commonhold_sync::{
    DeathNotice, FIRST_SLICE_NS, LockError, Permit, Release, SLICE_NS, Semaphore, Taken, Wake,
};

use crate::script::{World, told_of};

fn semaphore(world: &World, permits: usize) -> Semaphore<'_> {
    Semaphore::new(&world.words[0], World::at(0), &world.words[1..=permits])
}

fn take(world: &World, permits: usize, peer: usize) -> Permit {
    let (taken, permit) = semaphore(world, permits).try_acquire(&world.me(peer), world).unwrap();
    assert_eq!(taken, Taken::Clean);
    permit
}

#[test]
fn permits_are_taken_until_none_is_left_and_each_has_a_number_of_its_own() {
    let world = World::new();
    let permits = [take(&world, 3, 0), take(&world, 3, 1), take(&world, 3, 0)];
    let mut numbers = permits.map(Permit::index);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(semaphore(&world, 3).available(), 0);
    let refused = semaphore(&world, 3).try_acquire(&world.me(2), &world);
    assert_eq!(refused, Err(LockError::TimedOut));
    semaphore(&world, 3).release(&world.me(0), &world, permits[2], Release::Done).unwrap();
    assert_eq!(semaphore(&world, 3).available(), 1);
    assert_eq!(take(&world, 3, 3), permits[2]);
    assert_eq!(world.slept.get(), 0);
}

#[test]
fn a_waiter_gets_the_permit_that_comes_free_or_sees_the_end_of_its_time() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    let waited = semaphore(&world, 1).acquire(&world.me(1), &world, Some(100_000_000));
    assert_eq!(waited, Err(LockError::TimedOut));
    assert_eq!(world.passed(), 99_999_999);
    world.then(move |world| {
        semaphore(world, 1).release(&world.me(0), world, permit, Release::Done).unwrap();
    });
    let waited = semaphore(&world, 1).acquire(&world.me(1), &world, None);
    assert_eq!(waited, Ok((Taken::Clean, permit)));
    assert_eq!(*world.woken.borrow(), [Wake::One]);
    assert!(world.is_nothing_pending());
}

/// Otherwise an observer would think that a thread which is about to go on has a permit and waits for
/// another, and might see a deadlock where there is none.
#[test]
fn a_waiter_that_has_its_permit_is_not_announced_as_waiting() {
    let world = World::new();
    let permits = [take(&world, 2, 0), take(&world, 2, 0)];
    world.then(move |world| {
        for permit in permits {
            semaphore(world, 2).release(&world.me(0), world, permit, Release::Done).unwrap();
        }
        assert_eq!(world.announced.borrow()[1], Some(PendingKind::Event));
    });
    semaphore(&world, 2).acquire(&world.me(1), &world, None).map(drop).unwrap();
    // The waiter has woken one more, since another permit is left. It is still announced, since it could die.
    assert_eq!(*world.woken.borrow(), [Wake::One, Wake::One]);
    assert_eq!(world.announced.borrow()[1], Some(PendingKind::Release));
    assert!(world.is_nothing_pending());
}

#[test]
fn a_dead_holders_permit_goes_to_a_waiter_after_a_slice_or_to_a_try() {
    let world = World::new();
    let permits = [take(&world, 2, 0), take(&world, 2, 1)];
    world.kill(1);
    let waited = semaphore(&world, 2).acquire(&world.me(2), &world, None);
    assert_eq!(waited, Ok((told_of(1), permits[1])));
    assert_eq!(world.passed(), FIRST_SLICE_NS, "evidence is looked for after the first slice");
    assert!(world.is_nothing_pending());
    let late = semaphore(&world, 2).release(&world.me(1), &world, permits[1], Release::Done);
    assert_eq!(late, Err(LockError::Fenced));
    // A thread that only tries looks for evidence at once.
    world.kill(2);
    let tried = semaphore(&world, 2).try_acquire(&world.me(3), &world);
    assert_eq!(tried, Ok((told_of(2), permits[1])));
    semaphore(&world, 2).release(&world.me(3), &world, permits[1], Release::Done).unwrap();
    // The death was told once; now the permit is in order.
    assert_eq!(take(&world, 2, 3), permits[1]);
}

#[test]
fn evidence_of_a_holders_death_is_not_looked_for_before_a_slice_is_over() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    world.then(move |world| {
        assert_eq!(world.looks.get(), 0);
        semaphore(world, 1).release(&world.me(0), world, permit, Release::Done).unwrap();
    });
    semaphore(&world, 1).acquire(&world.me(1), &world, None).map(drop).unwrap();
    assert_eq!(world.looks.get(), 0);
}

/// As if the holder had died after it released the permit and before it signalled.
#[test]
fn a_permit_that_was_freed_without_a_signal_is_found_at_the_end_of_the_slice() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    world.then(|_| {});
    world.then(|world| world.words[1].store(0, Ordering::Relaxed));
    let waited = semaphore(&world, 1).acquire(&world.me(1), &world, Some(10 * SLICE_NS));
    assert_eq!(waited, Ok((Taken::Clean, permit)));
    assert!(world.passed() <= FIRST_SLICE_NS + SLICE_NS);
}

#[test]
fn a_holder_of_all_permits_that_wants_another_is_told_of_the_deadlock() {
    let world = World::new();
    let permits = [take(&world, 2, 0), take(&world, 2, 0)];
    for deadline in [None, Some(0)] {
        let more = semaphore(&world, 2).acquire(&world.me(0), &world, deadline);
        assert_eq!(more, Err(LockError::Deadlock));
    }
    // A permit that is spent may be given by others.
    semaphore(&world, 2).spend(&world.me(0), permits[0]).unwrap();
    let more = semaphore(&world, 2).try_acquire(&world.me(0), &world);
    assert_eq!(more, Err(LockError::TimedOut));
}

#[test]
fn a_spent_permit_cannot_be_taken_until_one_is_given() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    assert_eq!(semaphore(&world, 1).give(&world.me(1), &world), Err(LockError::NothingSpent));
    semaphore(&world, 1).spend(&world.me(0), permit).unwrap();
    assert_eq!(semaphore(&world, 1).spend(&world.me(0), permit), Err(LockError::Fenced));
    world.kill(0);
    let refused = semaphore(&world, 1).try_acquire(&world.me(1), &world);
    assert_eq!(refused, Err(LockError::TimedOut), "its death does not bring it back");
    assert_eq!(semaphore(&world, 1).available(), 0);
    world.then(|world| semaphore(world, 1).give(&world.me(2), world).unwrap());
    let waited = semaphore(&world, 1).acquire(&world.me(1), &world, None);
    assert_eq!(waited, Ok((Taken::Clean, permit)));
    world.fence(2);
    semaphore(&world, 1).spend(&world.me(1), permit).unwrap();
    assert_eq!(semaphore(&world, 1).give(&world.me(2), &world), Err(LockError::Fenced));
}

#[test]
fn the_next_holder_is_told_of_an_inconsistent_permit() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    semaphore(&world, 1).release(&world.me(0), &world, permit, Release::Inconsistent).unwrap();
    assert_eq!(semaphore(&world, 1).available(), 1);
    let next = semaphore(&world, 1).try_acquire(&world.me(1), &world);
    assert_eq!(next, Ok((told_of(0), permit)));
}

/// The bug: an inconsistent permit was taken before one in order if its word came first.
#[test]
fn permits_in_order_are_taken_first_then_inconsistent_ones_then_those_of_dead_holders() {
    // In each order of the words: each thread begins its search at another word.
    for peer in [1, 2, 3] {
        let world = World::new();
        let [good, left, dead] = [take(&world, 3, 0), take(&world, 3, 0), take(&world, 3, 0)];
        let release = |permit, how| {
            semaphore(&world, 3).release(&world.me(0), &world, permit, how).unwrap();
        };
        release(left, Release::Inconsistent);
        release(good, Release::Done);
        world.fence(0);
        let acquire = || semaphore(&world, 3).try_acquire(&world.me(peer), &world);
        assert_eq!(acquire(), Ok((Taken::Clean, good)));
        assert_eq!(acquire(), Ok((told_of(0), left)));
        assert_eq!(acquire(), Ok((told_of(0), dead)));
        assert_eq!(acquire(), Err(LockError::Deadlock));
    }
}

#[test]
fn a_dead_holder_is_named_to_all_that_give_its_permit_back_as_found() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    world.kill(0);
    for peer in [1, 2, 3] {
        let taken = semaphore(&world, 1).try_acquire(&world.me(peer), &world);
        assert_eq!(taken, Ok((told_of(0), permit)));
        let how = Release::unchanged(told_of(0));
        semaphore(&world, 1).release(&world.me(peer), &world, permit, how).unwrap();
    }
    let unknown = Release::AsFound(None);
    semaphore(&world, 1).acquire(&world.me(1), &world, None).map(drop).unwrap();
    semaphore(&world, 1).release(&world.me(1), &world, permit, unknown).unwrap();
    let taken = semaphore(&world, 1).try_acquire(&world.me(2), &world);
    assert_eq!(taken, Ok((Taken::OwnerDied(None), permit)));
}

/// It is declared dead when it has its permit, and wakes one more waiter since another permit is left.
#[test]
fn a_waiter_that_is_declared_dead_gives_its_permit_back_as_found() {
    let world = World::new();
    let permits = [take(&world, 2, 0), take(&world, 2, 0)];
    world.then(move |world| {
        for permit in permits {
            let how = Release::Inconsistent;
            semaphore(world, 2).release(&world.me(0), world, permit, how).unwrap();
        }
        world.at_next_wake(|world| world.fence(1));
    });
    let waited = semaphore(&world, 2).acquire(&world.me(1), &world, None);
    assert_eq!(waited, Err(LockError::Fenced));
    for _ in permits {
        let (taken, _) = semaphore(&world, 2).try_acquire(&world.me(2), &world).unwrap();
        assert_eq!(taken, told_of(0));
    }
}

/// A permit cannot be made unrecoverable: the semaphore would be smaller for ever, and its waiter would wait for ever.
#[test]
fn a_permit_that_is_given_up_goes_to_a_waiter_that_is_told_so() {
    let world = World::new();
    let permit = take(&world, 1, 0);
    world.then(move |world| {
        semaphore(world, 1).release(&world.me(0), world, permit, Release::GivenUp).unwrap();
    });
    let waited = semaphore(&world, 1).acquire(&world.me(1), &world, None);
    assert_eq!(waited, Ok((told_of(0), permit)));
}

#[test]
fn a_fenced_thread_gets_no_permit_and_keeps_none() {
    let world = World::new();
    world.fence(0);
    let refused = semaphore(&world, 1).acquire(&world.me(0), &world, None);
    assert_eq!(refused, Err(LockError::Fenced));
    assert_eq!(world.words[1].load(Ordering::Relaxed), LockWord::FREE.word());
}

#[test]
fn with_any_words_no_call_hangs() {
    for word in [u64::MAX, 1, 1 << 30 | 7, 1 << 32, LockWord::DONE.word(), 0xffff_ffff] {
        let world = World::new();
        world.words[..3].iter().for_each(|each| each.store(word, Ordering::Relaxed));
        let asked = semaphore(&world, 2).try_acquire(&world.me(0), &world);
        if let Ok((_, permit)) = asked {
            semaphore(&world, 2).release(&world.me(0), &world, permit, Release::Done).unwrap();
        }
        let _ = semaphore(&world, 2).give(&world.me(0), &world);
        assert!(semaphore(&world, 2).available() <= 2);
    }
}

#[test]
fn a_waiter_sleeps_for_the_death_futexes_of_all_holders_and_looks_for_evidence_when_one_fires() {
    let world = World::new();
    let permits = [take(&world, 2, 0), take(&world, 2, 1)];
    world.set_notice(0, DeathNotice::Pending);
    world.set_notice(1, DeathNotice::Pending);
    world.then(|world| {
        world.kill(1);
        world.set_notice(1, DeathNotice::Fired);
    });
    let waited = semaphore(&world, 2).acquire(&world.me(2), &world, None);
    assert_eq!(waited, Ok((told_of(1), permits[1])));
    assert_eq!(*world.waited_for.borrow(), [[0, 1]]);
    assert_eq!((world.slept.get(), world.passed()), (1, 0), "it was told, and waited for nothing");
}

#[test]
fn with_death_futexes_a_waiter_sleeps_long_and_seldom_looks_for_evidence() {
    let world = World::new();
    let _ = [take(&world, 2, 0), take(&world, 2, 1)];
    world.set_notice(0, DeathNotice::Pending);
    world.set_notice(1, DeathNotice::Pending);
    let second = 1_000_000_000;
    let waited = semaphore(&world, 2).acquire(&world.me(2), &world, Some(5 * second));
    assert_eq!(waited, Err(LockError::TimedOut));
    let (slept, looks) = (world.slept.get(), world.looks.get());
    assert!((45..=60).contains(&slept) && looks <= 2 * slept, "{slept} {looks}");
    // If one holder has no death futex, the waiter looks for evidence at every slice.
    world.set_notice(0, DeathNotice::Unavailable);
    let waited = semaphore(&world, 2).acquire(&world.me(2), &world, Some(6 * second));
    assert_eq!(waited, Err(LockError::TimedOut));
    assert!(world.slept.get() - slept > 45 && world.looks.get() - looks > 80);
}
