//! Once.

use commonhold_sync::{LockError, Once, Start, Taken, Wake};

use crate::script::{World, told_of};

const CLEAN: Result<Start, LockError> = Ok(Start::Mine(Taken::Clean));

/// The start of an initialiser after `peer` has left the work half done.
fn half_done(peer: usize) -> Result<Start, LockError> {
    Ok(Start::Mine(told_of(peer)))
}

fn once(world: &World) -> Once<'_> {
    Once::new(&world.words[0], World::at(0))
}

#[test]
fn done_is_done_for_ever_and_for_everybody() {
    let world = World::new();
    let (first, second) = (world.me(0), world.me(1));
    assert_eq!(once(&world).begin(&first, &world, None), CLEAN);
    assert!(!once(&world).is_done());
    assert_eq!(once(&world).try_begin(&second, &world), Err(LockError::TimedOut));
    assert_eq!(once(&world).try_begin(&first, &world), Err(LockError::Deadlock));
    once(&world).complete(&first, &world).unwrap();
    for thread in [&first, &second] {
        assert_eq!(once(&world).begin(thread, &world, None), Ok(Start::Done));
    }
    assert_eq!(once(&world).complete(&first, &world), Err(LockError::Fenced));
    assert_eq!(once(&world).give_back(&first, &world), Err(LockError::Fenced));
    assert!(once(&world).is_done() && world.woken.borrow().is_empty());
}

#[test]
fn a_waiter_sees_the_end_of_the_work_or_of_its_time() {
    let world = World::new();
    let (first, second) = (world.me(0), world.me(1));
    assert_eq!(once(&world).begin(&first, &world, None), CLEAN);
    assert_eq!(once(&world).begin(&second, &world, Some(100_000_000)), Err(LockError::TimedOut));
    world.then(|world| once(world).complete(&world.me(0), world).unwrap());
    assert_eq!(once(&world).begin(&second, &world, None), Ok(Start::Done));
    assert_eq!(world.woken.borrow().first(), Some(&Wake::All));
    assert!(world.is_nothing_pending());
}

#[test]
fn a_waiter_takes_over_from_a_dead_initialiser_and_is_told_so() {
    let world = World::new();
    assert_eq!(once(&world).begin(&world.me(0), &world, None), CLEAN);
    world.kill(0);
    assert_eq!(once(&world).begin(&world.me(1), &world, None), half_done(0));
    assert!(world.slept.get() > 0, "it looks for evidence when it has waited a while");
    assert_eq!(once(&world).complete(&world.me(0), &world), Err(LockError::Fenced));
    once(&world).complete(&world.me(1), &world).unwrap();
    assert!(once(&world).is_done());
}

#[test]
fn the_next_initialiser_is_told_of_half_done_work_however_often() {
    let world = World::new();
    assert_eq!(once(&world).begin(&world.me(0), &world, None), CLEAN);
    for peer in 0..3 {
        once(&world).give_back(&world.me(peer), &world).unwrap();
        assert_eq!(once(&world).begin(&world.me(peer + 1), &world, None), half_done(peer));
    }
    once(&world).complete(&world.me(3), &world).unwrap();
    assert_eq!(once(&world).begin(&world.me(0), &world, None), Ok(Start::Done));
}

#[test]
fn a_fenced_thread_does_not_become_the_initialiser() {
    let world = World::new();
    world.fence(0);
    assert_eq!(once(&world).begin(&world.me(0), &world, None), Err(LockError::Fenced));
    assert_eq!(once(&world).begin(&world.me(1), &world, None), CLEAN);
}
