//! The reader/writer lock: what readers, and the writers after them, are told of a writer that died or left.

use commonhold_layout::LockWord;
use commonhold_sync::{LockError, Release, RwLock, Taken, Wake};

use crate::script::{World, told_of};

const KEY: u64 = 77;

fn lock(world: &World) -> RwLock<'_, &World> {
    RwLock::new(world.words.first_chunk().unwrap(), World::at(0), KEY, world)
}

fn read(world: &World, peer: usize) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let (taken, hold) = lock(world).read(&me, world, Some(0))?;
    lock(world).unlock_read(&me, world, hold).unwrap();
    Ok(taken)
}

fn write(world: &World, peer: usize) -> Result<Taken, LockError> {
    lock(world).write(&world.me(peer), world, Some(0))
}

fn free(world: &World, peer: usize, how: Release) {
    lock(world).unlock_write(&world.me(peer), world, how).unwrap();
}

/// The bug: a reader that found a dead writer freed the word, and with that deleted the dead writer's name.
#[test]
fn a_dead_writer_that_a_reader_has_found_is_named_to_all_until_a_writer_has_repaired_it() {
    let world = World::new();
    assert_eq!(write(&world, 0), Ok(Taken::Clean));
    world.kill(0);
    for peer in [1, 2, 1] {
        assert_eq!(read(&world, peer), Ok(told_of(0)));
    }
    assert!(world.woken.borrow().contains(&Wake::All), "others may sleep on the word");
    assert_eq!(write(&world, 2), Ok(told_of(0)));
    free(&world, 2, Release::unchanged(told_of(0)));
    assert_eq!(read(&world, 3), Ok(told_of(0)));
    assert_eq!(write(&world, 3), Ok(told_of(0)));
    lock(&world).writer().mark_consistent(&world.me(3)).unwrap();
    free(&world, 3, Release::Done);
    assert_eq!((read(&world, 1), write(&world, 1)), (Ok(Taken::Clean), Ok(Taken::Clean)));
}

/// The writer takes the word, and gives it back as it was found when a reader does not leave in time.
#[test]
fn a_writer_that_times_out_on_readers_leaves_the_name_of_the_dead_writer() {
    let world = World::new();
    assert_eq!(write(&world, 0), Ok(Taken::Clean));
    world.kill(0);
    let reader = world.me(1);
    let (taken, hold) = lock(&world).read(&reader, &world, Some(0)).unwrap();
    assert_eq!(taken, told_of(0));
    for peer in [2, 3] {
        assert_eq!(write(&world, peer), Err(LockError::TimedOut));
        assert_eq!(read(&world, peer), Ok(told_of(0)));
    }
    lock(&world).unlock_read(&reader, &world, hold).unwrap();
    assert_eq!(write(&world, 2), Ok(told_of(0)));
}

#[test]
fn a_lock_that_a_writer_gave_up_lets_no_reader_in_until_it_is_reset() {
    let world = World::new();
    assert_eq!(write(&world, 0), Ok(Taken::Clean));
    world.then(|world| free(world, 0, Release::GivenUp));
    let waited = lock(&world).read(&world.me(1), &world, None).map(|(taken, _)| taken);
    assert_eq!(waited, Err(LockError::Unrecoverable));
    assert_eq!(world.woken.borrow().first(), Some(&Wake::All));
    assert_eq!((read(&world, 2), write(&world, 3)), (waited, waited));
    let owned = lock(&world).upgradable_read(&world.me(3), &world, None);
    assert_eq!(owned, Err(LockError::Unrecoverable));
    lock(&world).writer().reset(&world).unwrap();
    assert_eq!(lock(&world).writer().look(), LockWord::FREE);
    assert_eq!(read(&world, 2), Ok(Taken::Clean));
    assert!(world.is_nothing_pending());
}

#[test]
fn readers_are_told_who_left_a_change_unfinished_and_leave_it_so() {
    let world = World::new();
    for how in [Release::Inconsistent, Release::Done] {
        write(&world, 0).map(drop).unwrap();
        free(&world, 0, how);
        let word = lock(&world).writer().look();
        for peer in [1, 0] {
            assert_eq!(read(&world, peer), Ok(told_of(0)));
        }
        assert_eq!(lock(&world).writer().look(), word);
    }
}
