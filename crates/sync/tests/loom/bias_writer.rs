//! Reader/writer locks whose writer's word is biased to thread 2, or will be.

use std::cell::Cell;

use commonhold_layout::{LockFlags, LockWord, thread_word};
use commonhold_sync::{
    Liveness, LockError, MutexHold, Park, QuickWrite, Release, RwLock, Taken, Thread,
};
use commonhold_window::{Point, atomic::Ordering};

use crate::{
    bias::{WORD, biased, due, spawn},
    bias_deaths::{Phase, Reaper, for_each_death, is_to_be_told},
    world::{Life, Mortal, World, check},
};

const KEY: u64 = 77;

fn rwlock(world: &World) -> RwLock<'_, &World> {
    RwLock::new(world.words[WORD..].first_chunk().unwrap(), World::at(WORD), KEY, world)
}

/// Takes the lock to write as the facade does.
fn lock<'a>(
    world: &World,
    me: &Thread<'a>,
    env: &(impl Park + Liveness),
    deadline: Option<u64>,
) -> Result<(MutexHold<'a>, Taken), LockError> {
    let lock = rwlock(world);
    match lock.write_quickly(me, lock.writer().entry()) {
        QuickWrite::Taken(hold) => return Ok((hold, Taken::Clean)),
        QuickWrite::TakenWithReaders => lock.unlock_write(me, env, Release::Done)?,
        QuickWrite::NotTaken => {}
    }
    let taken = lock.write_biased_slowly(me, env, deadline)?;
    Ok((lock.writer().hold(me, me.owner().word()), taken))
}

fn free(world: &World, me: &Thread<'_>, env: &(impl Park + Liveness), hold: MutexHold<'_>) {
    if !rwlock(world).unlock_write_quickly(hold) {
        rwlock(world).unlock_write_slowly(me, env, hold, Release::Done).unwrap();
    }
}

fn write_until(world: &World, peer: usize, deadline: Option<u64>) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let (hold, taken) = lock(world, &me, world, deadline)?;
    if taken.is_owner_died() {
        rwlock(world).writer().mark_consistent_biased(&me, hold).unwrap();
    }
    world.write_data();
    free(world, &me, world, hold);
    Ok(taken)
}

fn write(world: &World, peer: usize) -> Taken {
    write_until(world, peer, None).unwrap()
}

fn read_until(
    world: &World,
    peer: usize,
    env: &(impl Park + Liveness),
    deadline: Option<u64>,
) -> Result<(Taken, u64), LockError> {
    let me = world.me(peer);
    let (taken, hold) = rwlock(world).read(&me, env, deadline)?;
    let seen = world.read_data();
    rwlock(world).unlock_read(&me, env, hold)?;
    Ok((taken, seen))
}

fn read(world: &World, peer: usize) -> Taken {
    read_until(world, peer, world, None).unwrap().0
}

/// No thread has the lock, and no bias is left: a reader came.
fn is_free(world: &World) {
    assert_eq!(rwlock(world).writer().look(), LockWord::FREE);
    for slot in &world.slots {
        assert_eq!(slot[thread_word::PENDING].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

#[test]
fn a_biased_writer_and_a_first_reader_exclude_each_other_and_lose_no_wake_up() {
    for (writes, reads) in [(1, 1), (2, 1), (1, 2)] {
        check(4, move || {
            let world = biased();
            let reader = spawn(&world, move |world| {
                (0..reads).for_each(|_| assert_eq!(read(world, 1), Taken::Clean));
            });
            for _ in 0..writes {
                assert_eq!(write(&world, 2), Taken::Clean);
            }
            reader.join().unwrap();
            assert_eq!(world.read_data(), writes);
            is_free(&world);
        });
    }
}

#[test]
fn a_biased_writer_another_writer_and_a_reader_all_get_the_lock() {
    check(3, || {
        let world = biased();
        let reader = spawn(&world, |world| read(world, 1));
        let other = spawn(&world, |world| write(world, 0));
        assert_eq!(write(&world, 2), Taken::Clean);
        assert_eq!(other.join().unwrap(), Taken::Clean);
        assert_eq!(reader.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 2);
        is_free(&world);
    });
}

#[test]
fn two_writers_revoke_and_exclude_each_other_as_those_of_a_mutex() {
    check(4, || {
        let world = biased();
        let other = spawn(&world, |world| write(world, 1));
        for _ in 0..2 {
            assert_eq!(write(&world, 2), Taken::Clean);
        }
        assert_eq!(other.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 3);
    });
}

#[test]
fn two_readers_end_a_bias_and_read_together_or_after_the_writer() {
    check(3, || {
        let world = biased();
        let readers = [0, 1].map(|peer| spawn(&world, move |world| read(world, peer)));
        assert_eq!(write(&world, 2), Taken::Clean);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Taken::Clean);
        }
        assert_eq!(world.read_data(), 1);
        is_free(&world);
    });
}

/// Thread 2 owns the word, and biases it when it frees it.
#[test]
fn a_bias_that_is_made_while_a_reader_comes_or_waits_locks_it_not_out() {
    check(4, || {
        let world = World::new();
        due(&world);
        let me = world.me(2);
        let (hold, _) = lock(&world, &me, &*world, None).unwrap();
        let reader = spawn(&world, |world| read(world, 1));
        world.write_data();
        free(&world, &me, &*world, hold);
        assert_eq!(write(&world, 2), Taken::Clean);
        assert_eq!(reader.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 2);
        is_free(&world);
    });
}

/// The thread of the bias itself reads, or takes the lock upgradable, while another thread writes.
#[test]
fn the_thread_of_a_bias_ends_it_itself_when_it_reads() {
    for upgrades in [false, true] {
        check(3, move || {
            let world = biased();
            let other = spawn(&world, |world| write(world, 1));
            if upgrades {
                let me = world.me(2);
                let taken = rwlock(&world).upgradable_read(&me, &*world, None).unwrap();
                let before = world.read_data();
                rwlock(&world).upgrade(&me, &*world, None).map(drop).unwrap();
                assert_eq!(world.read_data(), before);
                rwlock(&world).downgrade(&me, &*world, Release::Done).unwrap();
                rwlock(&world).unlock_upgradable(&me, &*world, taken).unwrap();
            } else {
                assert_eq!(read(&world, 2), Taken::Clean);
            }
            assert_eq!(write(&world, 2), Taken::Clean);
            assert_eq!(other.join().unwrap(), Taken::Clean);
            assert_eq!(world.read_data(), 2);
        });
    }
}

#[test]
fn an_upgradable_reader_ends_a_bias_and_lets_a_reader_in() {
    check(2, || {
        let world = biased();
        let owner = spawn(&world, |world| {
            let me = world.me(0);
            let taken = rwlock(world).upgradable_read(&me, world, None).unwrap();
            let before = world.read_data();
            rwlock(world).upgrade(&me, world, None).map(drop).unwrap();
            assert_eq!(world.read_data(), before);
            world.write_data();
            rwlock(world).downgrade(&me, world, Release::Done).unwrap();
            rwlock(world).unlock_upgradable(&me, world, taken).unwrap();
        });
        let reader = spawn(&world, |world| read(world, 1));
        assert_eq!(write(&world, 2), Taken::Clean);
        owner.join().unwrap();
        assert_eq!(reader.join().unwrap(), Taken::Clean);
        assert_eq!(world.read_data(), 2);
        is_free(&world);
    });
}

#[test]
fn a_reader_without_time_gets_the_lock_exactly_if_the_biased_writer_is_outside() {
    for inside in [false, true] {
        check(1, move || {
            let world = biased();
            let me = world.me(2);
            let hold = inside.then(|| lock(&world, &me, &*world, None).unwrap().0);
            for deadline in [0, 1] {
                let read = read_until(&world, 0, &*world, Some(deadline));
                let right = if inside { Err(LockError::TimedOut) } else { Ok((Taken::Clean, 0)) };
                assert_eq!(read, right);
            }
            if let Some(hold) = hold {
                assert_eq!(
                    rwlock(&world).read(&me, &*world, None).map(|(taken, _)| taken),
                    Err(LockError::Deadlock)
                );
                free(&world, &me, &*world, hold);
            }
            is_free(&world);
        });
    }
}

/// A reader that does not wait may be the one that revokes, and leave another thread asleep.
#[test]
fn a_reader_without_time_leaves_no_other_asleep() {
    for deadline in [0, 1] {
        check(2, move || {
            let world = biased();
            let hurried = spawn(&world, move |world| read_until(world, 0, world, Some(deadline)));
            let patient = spawn(&world, |world| read(world, 1));
            assert_eq!(write(&world, 2), Taken::Clean);
            assert_eq!(patient.join().unwrap(), Taken::Clean);
            let hurried = hurried.join().unwrap();
            assert!(matches!(hurried, Ok((Taken::Clean, _)) | Err(LockError::TimedOut)));
            assert_eq!(world.read_data(), 1);
            is_free(&world);
        });
    }
}

/// Whether the next writer must be told of a writer that died there; `None`: both are right. A writer that waits for
/// readers, or gives the word back because of them, owns the word already.
fn is_writer_to_be_told(phase: Phase, biased: bool, point: Option<Point>) -> Option<bool> {
    const OWNS: [Point; 5] = [
        Point::WriteDraining,
        Point::EventPending,
        Point::EventFlagged,
        Point::UnlockPending,
        Point::LockAcquired,
    ];
    match (phase, point) {
        (Phase::Entering, Some(point)) if OWNS.contains(&point) => Some(true),
        _ => is_to_be_told(phase, biased, point),
    }
}

/// Thread 2 writes until it dies at a crash point, while thread 1 reads. No thread waits for ever, and the next writer
/// is told of the death if thread 2 died with the lock.
fn dies(makes: bool, reaper: Reaper, points: u32) -> Life {
    let world = if makes { World::new() } else { biased() };
    if makes {
        due(&world);
    }
    let reader = spawn(&world, |world| read(world, 1));
    let at = Cell::new((Phase::Entering, false));
    let life = Mortal::live_to_point(&world, points, |env| {
        let me = world.me(2);
        let (hold, _) = lock(&world, &me, env, None).unwrap();
        at.set((Phase::Has, hold.is_biased()));
        env.point();
        world.write_data();
        env.point();
        at.set((Phase::Leaving, hold.is_biased()));
        free(&world, &me, env, hold);
        at.set((Phase::Left, false));
    });
    let (phase, biased) = at.get();
    let told = match life {
        Life::Finished => Some(false),
        Life::Ended(point) => is_writer_to_be_told(phase, biased, point),
    };
    if life != Life::Finished {
        world.fence(2);
        if reaper == Reaper::Quick {
            world.settle(2);
        }
        world.end_slices();
    }
    let reader = reader.join().unwrap();
    let late = write(&world, 0);
    match told {
        Some(told) => assert_eq!(late == World::told_of(2), told, "{life:?}"),
        None => assert!([Taken::Clean, World::told_of(2)].contains(&late)),
    }
    // A reader that came before the writer died is told nothing.
    assert!(reader == Taken::Clean || reader == late, "{life:?}");
    if life != Life::Finished {
        world.settle(2);
        assert_eq!((read(&world, 1), write(&world, 0)), (Taken::Clean, Taken::Clean));
    }
    let word = rwlock(&world).writer().look();
    assert!(!word.is_owned() && word.flags() == LockFlags::NONE, "{word:?}");
    life
}

#[test]
fn wherever_a_biased_writer_dies_the_next_writer_is_told_if_it_was_inside() {
    for reaper in [Reaper::Quick, Reaper::Late] {
        let deaths = for_each_death(3, move || move |points| dies(false, reaper, points));
        for point in [Point::BiasEntered, Point::BiasLeft, Point::UnlockPending] {
            assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
        }
    }
}

#[test]
fn wherever_a_writer_dies_while_it_makes_a_bias_the_next_writer_is_told_if_it_still_owned_the_word()
{
    for reaper in [Reaper::Quick, Reaper::Late] {
        let deaths = for_each_death(3, move || move |points| dies(true, reaper, points));
        for point in [Point::BiasPlaced, Point::BiasMade] {
            assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
        }
    }
}

/// Thread 0 reads until it dies at a crash point, while thread 2 writes, and thread 1 also reads if `beside` says so.
fn reader_dies(beside: bool, points: u32) -> Life {
    let world = biased();
    let writer = spawn(&world, |world| write(world, 2));
    let other = beside.then(|| spawn(&world, |world| read(world, 1)));
    let life = Mortal::live_to_point(&world, points, |env| {
        read_until(&world, 0, env, None).map(drop).unwrap();
    });
    if life != Life::Finished {
        world.bury(0);
        world.end_slices();
    }
    assert_eq!(writer.join().unwrap(), Taken::Clean);
    if let Some(other) = other {
        assert_eq!(other.join().unwrap(), Taken::Clean);
    }
    assert_eq!((read(&world, 1), write(&world, 1)), (Taken::Clean, Taken::Clean));
    assert_eq!(world.read_data(), 2);
    assert_eq!(rwlock(&world).writer().look(), LockWord::FREE);
    life
}

#[test]
fn wherever_a_reader_dies_that_ends_a_bias_the_others_go_on_and_are_told_nothing() {
    for (beside, preemptions) in [(false, 3), (true, 1)] {
        let deaths = for_each_death(preemptions, move || move |points| reader_dies(beside, points));
        for point in [Point::ReadMarked, Point::BiasRevoked, Point::LockFlagged] {
            assert!(deaths.contains(point.name()), "{point:?} in {deaths:?}");
        }
    }
}
