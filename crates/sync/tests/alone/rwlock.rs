//! The reader/writer lock: what readers, and the writers after them, are told of a writer that died or left.

use commonhold_layout::{BIAS_AFTER, BIAS_MISSES, LockWord, bias_entry};
use commonhold_sync::{
    FIRST_SLICE_NS, LockError, Mutex, MutexHold, QuickWrite, Release, RwLock, Taken, Wake,
};

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

/// Where a lock that may be biased lies: an entry for offset 0 would be empty.
const BIASED: usize = 1;

fn other(world: &World) -> RwLock<'_, &World> {
    RwLock::new(world.words[BIASED..].first_chunk().unwrap(), World::at(BIASED), KEY, world)
}

/// Takes the lock to write as the facade does.
fn hold(world: &World, peer: usize) -> MutexHold<'_> {
    let (me, lock) = (world.me(peer), other(world));
    match lock.write_quickly(&me, lock.writer().entry()) {
        QuickWrite::Taken(hold) => return hold,
        QuickWrite::NotTaken => {}
        QuickWrite::TakenWithReaders => unreachable!("there is one thread"),
    }
    assert_eq!(lock.write_biased_slowly(&me, world, None), Ok(Taken::Clean));
    lock.writer().hold(&me, me.owner().word())
}

fn free_held(world: &World, peer: usize, hold: MutexHold<'_>) {
    if !other(world).unlock_write_quickly(hold) {
        let me = world.me(peer);
        other(world).unlock_write_slowly(&me, world, hold, Release::Done).unwrap();
    }
}

fn write_often(world: &World, peer: usize, times: u64) {
    (0..times).for_each(|_| free_held(world, peer, hold(world, peer)));
}

fn biased() -> World {
    let world = World::new();
    write_often(&world, 0, BIAS_AFTER);
    assert_eq!(other(&world).writer().look(), LockWord::FREE);
    write_often(&world, 0, 1);
    assert!(other(&world).writer().look().is_biased());
    world
}

fn read_other(world: &World, peer: usize, deadline: Option<u64>) -> Result<Taken, LockError> {
    let me = world.me(peer);
    let (taken, hold) = other(world).read(&me, world, deadline)?;
    other(world).unlock_read(&me, world, hold).unwrap();
    Ok(taken)
}

#[test]
fn a_reader_frees_the_word_of_a_bias_so_that_the_next_one_comes_in_by_the_fast_path() {
    let world = biased();
    assert_eq!(read_other(&world, 1, Some(0)), Ok(Taken::Clean));
    assert_eq!(other(&world).writer().look(), LockWord::FREE);
    let word = other(&world).read_quickly(&world.me(1)).unwrap();
    assert!(other(&world).unlock_read_quickly(word));
    write_often(&world, 0, 3 * BIAS_AFTER);
    assert_eq!(other(&world).writer().look(), LockWord::FREE);
    assert!(world.is_nothing_pending() && world.woken.borrow().is_empty());
}

/// The writer is about to bias the word when a reader comes.
#[test]
fn a_word_is_not_biased_if_a_reader_came_while_the_writer_had_it() {
    let world = World::new();
    write_often(&world, 0, BIAS_AFTER);
    let held = hold(&world, 0);
    assert_eq!(read_other(&world, 1, Some(0)), Err(LockError::TimedOut));
    assert_eq!(other(&world).writer().look(), world.me(0).owner().word());
    free_held(&world, 0, held);
    assert_eq!(other(&world).writer().look(), LockWord::FREE);
}

/// The thread that leaves may miss that its bias was revoked, and then wakes no reader.
#[test]
fn the_first_sleep_of_a_reader_on_the_word_of_a_bias_is_short() {
    let world = biased();
    let held = hold(&world, 0);
    assert!(held.is_biased());
    world.then(|_| {});
    world.then(move |world| {
        let hold = other(world).writer().hold(&world.me(0), LockWord::biased(bias(world)));
        free_held(world, 0, hold);
    });
    assert_eq!(read_other(&world, 1, None), Ok(Taken::Clean));
    assert_eq!(world.naps.borrow().first(), Some(&FIRST_SLICE_NS));
    assert_eq!((world.slept.get(), other(&world).writer().look()), (2, LockWord::FREE));
}

fn bias(world: &World) -> commonhold_layout::Bias {
    other(world).writer().look().bias().unwrap()
}

/// A lock that threads read is never biased, so its writers leave the entry to mutexes.
#[test]
fn a_lock_that_was_read_does_not_end_the_bias_of_a_mutex_with_the_same_entry() {
    let world = World::new();
    let at = (4..8).find(|at| bias_entry(World::at(*at)) == bias_entry(World::at(BIASED))).unwrap();
    let mutex = Mutex::new(&world.words[at], World::at(at));
    let me = world.me(0);
    for _ in 0..=BIAS_AFTER {
        let held = mutex.lock_biased(&me).unwrap();
        if !mutex.unlock_biased(held) {
            mutex.unlock_biased_slowly(&me, &world, held, Release::Done).unwrap();
        }
    }
    assert_eq!(read_other(&world, 1, Some(0)), Ok(Taken::Clean));
    write_often(&world, 0, 3 * BIAS_MISSES);
    let held = mutex.lock_biased(&me).unwrap();
    assert!(held.is_biased() && mutex.unlock_biased(held));
}
