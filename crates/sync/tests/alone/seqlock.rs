//! The sequence lock.

use std::sync::atomic::Ordering;

use commonhold_sync::{LockError, Release, SeqLock, Taken, Writing};

use crate::script::{World, told_of};

const CLEAN: Result<Taken, LockError> = Ok(Taken::Clean);

fn lock(world: &World) -> SeqLock<'_> {
    SeqLock::new(world.words.first_chunk().unwrap(), World::at(0))
}

fn sequence(world: &World) -> u64 {
    world.words[1].load(Ordering::Relaxed)
}

/// Takes the lock, and begins to write.
fn begin(world: &World, peer: usize) -> (Result<Taken, LockError>, Writing) {
    let me = world.me(peer);
    match lock(world).write(&me, world, Some(0)) {
        Ok((taken, writing)) => (Ok(taken), lock(world).begin(&me, writing).unwrap()),
        Err(error) => (Err(error), Writing::default()),
    }
}

fn end(world: &World, peer: usize, writing: Writing, how: Release) -> Result<(), LockError> {
    lock(world).unlock_write(&world.me(peer), world, writing, how)
}

fn read(world: &World, deadline: Option<u64>) -> Result<(), LockError> {
    let before: Vec<_> = world.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let result = lock(world).read(|| Some(world.me(3).owner()), world, deadline, || ());
    if world.slept.get() == 0 {
        let after: Vec<_> = world.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!(before, after, "a reader writes");
    }
    assert!(world.is_nothing_pending());
    result
}

#[test]
fn readers_are_kept_out_from_the_first_store_until_the_writer_is_done() {
    let world = World::new();
    let me = world.me(0);
    let (taken, writing) = lock(&world).write(&me, &world, None).unwrap();
    assert_eq!((taken, writing.has_begun()), (Taken::Clean, false));
    assert_eq!(read(&world, Some(0)), Ok(()));
    let writing = lock(&world).begin(&me, writing).unwrap();
    assert_eq!(lock(&world).begin(&me, writing), Ok(writing));
    assert_eq!(sequence(&world), 1);
    assert_eq!(read(&world, Some(0)), Err(LockError::TimedOut));
    assert_eq!(begin(&world, 1).0, Err(LockError::TimedOut));
    end(&world, 0, writing, Release::Done).unwrap();
    assert_eq!((sequence(&world), read(&world, Some(0))), (2, Ok(())));
    // Nothing was written, so the number is the same, and no reader copies again.
    let (_, writing) = lock(&world).write(&me, &world, None).unwrap();
    end(&world, 0, writing, Release::Done).unwrap();
    assert_eq!(sequence(&world), 2);
}

#[test]
fn a_reader_naps_until_the_change_ends_or_its_time() {
    let world = World::new();
    let (_, writing) = begin(&world, 0);
    assert_eq!(read(&world, Some(100_000_000)), Err(LockError::TimedOut));
    let naps = world.slept.get();
    assert!(naps > 50, "it looks again and again: {naps}");
    world.then(move |world| end(world, 0, writing, Release::Done).unwrap());
    assert_eq!(read(&world, None), Ok(()));
    assert_eq!(world.slept.get(), naps + 1);
}

#[test]
fn a_copy_that_was_changed_meanwhile_is_made_again() {
    let world = World::new();
    let mut copies = 0;
    let copied = lock(&world).read(
        || None,
        &world,
        None,
        || {
            copies += 1;
            if copies < 4 {
                let (_, writing) = begin(&world, 0);
                end(&world, 0, writing, Release::Done).unwrap();
            }
            copies
        },
    );
    assert_eq!(copied, Ok(4));
    // With a deadline of 0, the reader gives up.
    let copied = lock(&world).read(
        || None,
        &world,
        Some(0),
        || {
            let (_, writing) = begin(&world, 0);
            end(&world, 0, writing, Release::Done).unwrap();
        },
    );
    assert_eq!(copied, Err(LockError::TimedOut));
}

#[test]
fn a_writer_that_dies_before_its_first_store_or_after_its_last_does_not_disturb_readers() {
    for finish in [false, true] {
        let world = World::new();
        let me = world.me(0);
        let (_, writing) = lock(&world).write(&me, &world, None).unwrap();
        if finish {
            let writing = lock(&world).begin(&me, writing).unwrap();
            lock(&world).finish(writing).unwrap();
        }
        world.kill(0);
        assert_eq!(read(&world, None), Ok(()));
        assert_eq!(begin(&world, 1).0, Ok(told_of(0)));
    }
}

#[test]
fn readers_are_told_of_a_writer_that_dies_in_the_middle_and_the_next_writer_takes_its_number() {
    let world = World::new();
    let (_, theirs) = begin(&world, 0);
    world.kill(0);
    assert_eq!(read(&world, Some(0)), Err(LockError::WriterDied), "one look at the evidence");
    assert_eq!(read(&world, None), Err(LockError::WriterDied));
    let (taken, writing) = begin(&world, 1);
    assert_eq!((taken, sequence(&world)), (Ok(told_of(0)), 3));
    assert_eq!(lock(&world).finish(theirs), Err(LockError::Fenced));
    assert_eq!(end(&world, 0, theirs, Release::Done), Err(LockError::Fenced));
    assert_eq!(read(&world, Some(0)), Err(LockError::TimedOut), "the heir is at it");
    lock(&world).writer().mark_consistent(&world.me(1)).unwrap();
    end(&world, 1, writing, Release::Done).unwrap();
    assert_eq!((read(&world, None), begin(&world, 2).0), (Ok(()), CLEAN));
}

#[test]
fn a_reader_that_waits_learns_of_a_death_when_it_looks_for_evidence() {
    let world = World::new();
    assert_eq!(begin(&world, 0).0, CLEAN);
    world.then(|world| world.kill(0));
    assert_eq!(read(&world, None), Err(LockError::WriterDied));
    assert!(world.slept.get() < 10, "{}", world.slept.get());
}

#[test]
fn a_writer_that_repairs_nothing_keeps_readers_out_and_one_that_gives_up_keeps_all_out() {
    let world = World::new();
    assert_eq!(begin(&world, 0).0, CLEAN);
    world.kill(0);
    // The first writer leaves the data as found, the second says that they are inconsistent, the third says nothing.
    let ends =
        [(Release::unchanged(told_of(0)), 0), (Release::Inconsistent, 2), (Release::Done, 3)];
    let mut told = 0;
    for (peer, (how, next)) in (1..).zip(ends) {
        let (taken, writing) = begin(&world, peer);
        assert_eq!(taken, Ok(told_of(told)));
        end(&world, peer, writing, how).unwrap();
        assert_eq!(read(&world, None), Err(LockError::WriterDied));
        told = next;
    }
    let (taken, writing) = begin(&world, 1);
    assert_eq!(taken, Ok(told_of(3)));
    end(&world, 1, writing, Release::GivenUp).unwrap();
    assert_eq!(read(&world, None), Err(LockError::Unrecoverable));
    assert_eq!(begin(&world, 1).0, Err(LockError::Unrecoverable));
    lock(&world).reset(&world.me(1), &world).unwrap();
    assert_eq!((read(&world, None), sequence(&world) % 2), (Ok(()), 0));
    assert_eq!(begin(&world, 1).0, CLEAN);
    assert_eq!(lock(&world).reset(&world.me(1), &world), Err(LockError::TimedOut));
}

/// As if a fenced writer had made the number odd after the next writer was done.
#[test]
fn the_next_writer_is_told_of_an_odd_number_without_a_writer_and_it_lasts() {
    let world = World::new();
    world.words[1].store(7, Ordering::Relaxed);
    assert_eq!(read(&world, None), Err(LockError::WriterDied));
    let (taken, writing) = lock(&world).write(&world.me(1), &world, None).unwrap();
    assert_eq!((taken, sequence(&world)), (Taken::OwnerDied(None), 9));
    // The writer has not repaired the data, so the next one is told as well.
    end(&world, 1, writing, Release::Inconsistent).unwrap();
    assert_eq!(begin(&world, 2).0, Ok(told_of(1)));
}

#[test]
fn a_writer_that_reads_during_its_change_is_told_of_the_deadlock() {
    let world = World::new();
    assert_eq!(begin(&world, 3).0, CLEAN);
    assert_eq!(read(&world, None), Err(LockError::Deadlock));
    assert_eq!(begin(&world, 3).0, Err(LockError::Deadlock));
}

#[test]
fn a_fenced_thread_that_lost_the_lock_cannot_begin() {
    let world = World::new();
    let me = world.me(0);
    let (_, writing) = lock(&world).write(&me, &world, None).unwrap();
    world.fence(0);
    assert_eq!(begin(&world, 1).0, Ok(told_of(0)));
    assert_eq!(lock(&world).begin(&me, writing), Err(LockError::Fenced));
    assert_eq!(sequence(&world), 1);
}

/// A store to the sequence from outside the protocol causes an error, but does not leave the lock taken.
#[test]
fn a_writer_whose_number_was_overwritten_frees_the_lock_as_inconsistent() {
    let world = World::new();
    let (_, writing) = begin(&world, 0);
    world.words[1].store(100, Ordering::Relaxed);
    assert_eq!(end(&world, 0, writing, Release::Done), Err(LockError::Fenced));
    assert_eq!(begin(&world, 1).0, Ok(told_of(0)));
}
