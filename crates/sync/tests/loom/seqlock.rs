//! The sequence lock. Its data are two words that are always the same.

use commonhold_sync::{Liveness, LockError, Park, Release, SeqLock, Taken};
use commonhold_window::atomic::Ordering;
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

fn lock(world: &World) -> SeqLock<'_> {
    SeqLock::new(world.words.first_chunk().unwrap(), World::at(0))
}

fn data(world: &World) -> [u64; 2] {
    // Relaxed: the lock under test must order these loads; that is what the tests check.
    [2, 3].map(|word| world.words[word].load(Ordering::Relaxed))
}

fn snapshot(world: &World) -> Result<u64, LockError> {
    lock(world).read(|| None, world, None, || data(world)).map(|[one, other]| {
        assert_eq!(one, other, "torn");
        one
    })
}

/// Makes both words `value`.
fn write(
    world: &World,
    peer: usize,
    value: u64,
    env: &(impl Park + Liveness),
    step: impl Fn(),
) -> Taken {
    let me = world.me(peer);
    let (taken, writing) = lock(world).write(&me, env, None).unwrap();
    let writing = lock(world).begin(&me, writing).unwrap();
    step();
    world.words[2].store(value, Ordering::Relaxed);
    step();
    world.words[3].store(value, Ordering::Relaxed);
    step();
    if taken.is_owner_died() {
        lock(world).writer().mark_consistent(&me).unwrap();
    }
    lock(world).unlock_write(&me, env, writing, Release::Done).unwrap();
    taken
}

fn is_free(world: &World) -> bool {
    world.words[0].load(Ordering::SeqCst) == 0
        && world.words[1].load(Ordering::SeqCst).is_multiple_of(2)
}

#[test]
fn a_snapshot_is_never_torn() {
    check(3, || {
        let world = World::new();
        world.end_slices();
        let other = Arc::clone(&world);
        let reader = thread::spawn(move || snapshot(&other));
        assert_eq!(write(&world, 0, 7, &*world, || ()), Taken::Clean);
        let seen = reader.join().unwrap().unwrap();
        assert!([0, 7].contains(&seen));
        assert_eq!(snapshot(&world), Ok(7));
    });
}

#[test]
fn two_writers_and_a_reader_see_whole_values_only() {
    check(2, || {
        let world = World::new();
        let (one, two) = (Arc::clone(&world), Arc::clone(&world));
        let writer = thread::spawn(move || write(&one, 1, 5, &*one, || ()));
        let reader = thread::spawn(move || {
            // The reader does not wait: a wait for the third thread adds nothing that loom could check.
            match lock(&two).read(|| None, &*two, Some(0), || data(&two)) {
                Ok([one, other]) => assert_eq!(one, other, "torn"),
                Err(error) => assert_eq!(error, LockError::TimedOut),
            }
        });
        assert_eq!(write(&world, 0, 7, &*world, || ()), Taken::Clean);
        assert_eq!(writer.join().unwrap(), Taken::Clean);
        reader.join().unwrap();
        assert!([5, 7].contains(&snapshot(&world).unwrap()));
        assert!(is_free(&world));
    });
}

#[test]
fn wherever_a_writer_dies_nobody_reads_half_of_its_change() {
    for steps in 0..4 {
        check(2, move || {
            let world = World::new();
            world.end_slices();
            let other = Arc::clone(&world);
            let reader = thread::spawn(move || snapshot(&other));
            let finished = Mortal::live(&world, 2, steps, |env| {
                let _ = write(&world, 2, 7, env, || env.step());
            });
            match reader.join().unwrap() {
                Ok(seen) => assert!([0, 7].contains(&seen)),
                Err(error) => assert!(!finished && error == LockError::WriterDied),
            }
            assert_eq!(snapshot(&world), if finished { Ok(7) } else { Err(LockError::WriterDied) });
            let told = write(&world, 0, 9, &*world, || ());
            assert_eq!(told, if finished { Taken::Clean } else { World::told_of(2) });
            assert_eq!(snapshot(&world), Ok(9));
            assert!(is_free(&world));
        });
    }
}

/// The fenced writer had the lock, has not yet begun its change, and does not know that it was declared dead.
#[test]
fn a_fenced_writer_that_begins_late_does_not_end_the_next_writers_change() {
    check(6, || {
        let world = World::new();
        world.end_slices();
        let me = world.me(2);
        let (_, writing) = lock(&world).write(&me, &*world, None).unwrap();
        world.bury(2);
        let other = Arc::clone(&world);
        // The next writer can finish its change, whatever the fenced one does meanwhile.
        let heir = thread::spawn(move || write(&other, 1, 7, &*other, || ()));
        let late = lock(&world).begin(&me, writing);
        let ended = late.and_then(|writing| lock(&world).finish(writing));
        assert_eq!(heir.join().unwrap(), World::told_of(2));
        // `Ok`: the fenced writer began, and perhaps ended, before the next one, which went on from its number.
        assert!(matches!(ended, Ok(()) | Err(LockError::Fenced)));
        assert_eq!(snapshot(&world), Ok(7));
        assert!(is_free(&world));
    });
}

/// The next writer's steps are written out here: loom compares a step only with the last step on the same word, and
/// the load in `begin` would hide that of the fenced writer just before.
#[test]
fn a_fenced_writer_that_begins_late_does_not_take_the_next_writers_number() {
    check(4, || {
        let world = World::new();
        let me = world.me(2);
        let (_, writing) = lock(&world).write(&me, &*world, None).unwrap();
        world.bury(2);
        let other = Arc::clone(&world);
        let heir = thread::spawn(move || {
            let taken = lock(&other).writer().lock(&other.me(1), &*other, None);
            assert_eq!(taken, Ok(World::told_of(2)));
            let number = &other.words[1];
            let change =
                |from, to| number.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
            if change(0, 1).is_ok() {
                assert_eq!(change(1, 2), Ok(1), "the fenced writer has taken the number");
            }
        });
        let _ = lock(&world).begin(&me, writing);
        heir.join().unwrap();
    });
}

/// The writer is in the middle of its change when it is declared dead.
#[test]
fn a_fenced_writer_cannot_finish_after_the_next_writer_has_come() {
    check(3, || {
        let world = World::new();
        world.end_slices();
        let me = world.me(2);
        let (_, writing) = lock(&world).write(&me, &*world, None).unwrap();
        let writing = lock(&world).begin(&me, writing).unwrap();
        world.words[2].store(3, Ordering::Relaxed);
        world.bury(2);
        let other = Arc::clone(&world);
        let heir = thread::spawn(move || {
            let me = other.me(1);
            let (taken, writing) = lock(&other).write(&me, &*other, None).unwrap();
            assert_eq!(taken, World::told_of(2));
            // The next writer does not repair the two words, which differ.
            lock(&other).unlock_write(&me, &*other, writing, Release::Inconsistent).unwrap();
            writing.has_begun()
        });
        let ended = lock(&world).finish(writing);
        // The next writer finds the change ended, or takes it over; then no reader gets the half-done change.
        let goes_on = heir.join().unwrap();
        assert!(goes_on || ended.is_ok());
        if goes_on {
            assert_eq!(snapshot(&world), Err(LockError::WriterDied));
        }
    });
}
