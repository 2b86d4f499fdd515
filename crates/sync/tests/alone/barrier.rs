//! The barrier.

use std::sync::atomic::Ordering;

use commonhold_sync::{
    Barrier, DeathNotice, FIRST_SLICE_NS, LockError, Participant, Release, SLICE_NS, Taken, Wake,
};

use crate::script::{World, told_of};

fn barrier(world: &World, participants: usize) -> Barrier<'_> {
    Barrier::new(&world.words[0], World::at(0), &world.words[1..=participants])
}

fn join(world: &World, participants: usize, peer: usize) -> Participant {
    let (taken, participant) = barrier(world, participants).join(&world.me(peer), world).unwrap();
    assert_eq!(taken, Taken::Clean);
    participant
}

fn arrive(world: &World, participants: usize, peer: usize, participant: Participant) -> u64 {
    barrier(world, participants).arrive(&world.me(peer), world, participant).unwrap()
}

fn wait(
    world: &World,
    participants: usize,
    peer: usize,
    phase: u64,
    deadline: Option<u64>,
) -> Result<(), LockError> {
    barrier(world, participants).wait(&world.me(peer), world, phase, deadline)
}

#[test]
fn nobody_passes_before_all_have_arrived_phase_after_phase() {
    let world = World::new();
    let participants = [0, 1, 2].map(|peer| join(&world, 3, peer));
    for phase in 0..4 {
        for (peer, participant) in participants.into_iter().enumerate().take(2) {
            assert_eq!(arrive(&world, 3, peer, participant), phase);
            assert_eq!(wait(&world, 3, peer, phase, Some(0)), Err(LockError::TimedOut));
        }
        world.then(move |world| assert_eq!(arrive(world, 3, 2, participants[2]), phase));
        assert_eq!(wait(&world, 3, 0, phase, None), Ok(()));
        for peer in 0..3 {
            assert_eq!(wait(&world, 3, peer, phase, Some(0)), Ok(()));
        }
    }
    assert_eq!(barrier(&world, 3).phase(), 4);
    assert_eq!(*world.woken.borrow(), [Wake::All; 4]);
    assert!(world.is_nothing_pending());
}

#[test]
fn a_full_barrier_refuses_participants_until_a_slot_is_left() {
    let world = World::new();
    let first = join(&world, 2, 0);
    let _second = join(&world, 2, 1);
    let refused = barrier(&world, 2).join(&world.me(2), &world);
    assert_eq!(refused, Err(LockError::BarrierFull));
    barrier(&world, 2).leave(&world.me(0), first, Release::Done).unwrap();
    let again = barrier(&world, 2).leave(&world.me(0), first, Release::Done);
    assert_eq!(again, Err(LockError::Fenced));
    assert_eq!(join(&world, 2, 2), first);
    let late = barrier(&world, 2).arrive(&world.me(0), &world, first);
    assert_eq!(late, Err(LockError::Fenced));
}

#[test]
fn an_arrival_counts_once_and_stands_when_its_wait_is_given_up() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    for _ in 0..3 {
        assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
        let waited = wait(&world, 2, 0, 0, Some(world.passed() + 50_000_001));
        assert_eq!(waited, Err(LockError::TimedOut));
    }
    assert_eq!(world.passed(), 150_000_000);
    assert_eq!(barrier(&world, 2).phase(), 0);
    assert_eq!(arrive(&world, 2, 1, participants[1]), 0);
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Ok(()));
}

#[test]
fn a_death_before_arrival_is_told_until_another_participant_has_arrived_in_the_slot() {
    let world = World::new();
    let participants = [0, 1, 2].map(|peer| join(&world, 3, peer));
    assert_eq!(arrive(&world, 3, 0, participants[0]), 0);
    world.kill(2);
    assert_eq!(wait(&world, 3, 0, 0, None), Err(LockError::ParticipantDied));
    assert_eq!(world.passed(), FIRST_SLICE_NS, "evidence is looked for after the first slice");
    assert!(world.is_nothing_pending());
    // A later waiter is told as well, without waiting.
    assert_eq!(arrive(&world, 3, 1, participants[1]), 0);
    assert_eq!(wait(&world, 3, 1, 0, Some(0)), Err(LockError::ParticipantDied));
    let heir = barrier(&world, 3).join(&world.me(3), &world);
    assert_eq!(heir, Ok((told_of(2), participants[2])));
    assert_eq!(barrier(&world, 3).arrived_in(participants[2]), None);
    world.then(move |world| assert_eq!(arrive(world, 3, 3, participants[2]), 0));
    assert_eq!(wait(&world, 3, 0, 0, None), Ok(()));
    assert_eq!(wait(&world, 3, 1, 0, Some(0)), Ok(()));
}

#[test]
fn a_participant_that_dies_after_it_arrived_is_missed_in_the_next_phase() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    assert_eq!(arrive(&world, 2, 1, participants[1]), 0);
    world.kill(1);
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Ok(()));
    assert_eq!(arrive(&world, 2, 0, participants[0]), 1);
    assert_eq!(wait(&world, 2, 0, 1, Some(0)), Err(LockError::ParticipantDied));
}

#[test]
fn a_successor_in_the_slot_of_a_participant_that_arrived_has_arrived_in_that_phase() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    assert_eq!(arrive(&world, 2, 1, participants[1]), 0);
    world.kill(1);
    let heir = barrier(&world, 2).join(&world.me(2), &world);
    assert_eq!(heir, Ok((told_of(1), participants[1])));
    assert_eq!(barrier(&world, 2).arrived_in(participants[1]), Some(0));
    assert_eq!(arrive(&world, 2, 2, participants[1]), 0);
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    assert_eq!(barrier(&world, 2).phase(), 1);
    assert_eq!(barrier(&world, 2).arrived_in(participants[1]), None);
    assert_eq!(arrive(&world, 2, 2, participants[1]), 1);
    assert_eq!(barrier(&world, 2).phase(), 1);
}

#[test]
fn a_participant_that_gives_up_is_reported_as_if_it_had_died() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    barrier(&world, 2).leave(&world.me(1), participants[1], Release::Inconsistent).unwrap();
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Err(LockError::ParticipantDied));
    let heir = barrier(&world, 2).join(&world.me(2), &world);
    assert_eq!(heir, Ok((told_of(1), participants[1])));
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Err(LockError::TimedOut));
    // If a participant leaves in order, the others wait: another may join in its slot.
    barrier(&world, 2).leave(&world.me(2), participants[1], Release::Done).unwrap();
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Err(LockError::TimedOut));
}

#[test]
fn slots_in_order_are_taken_first_then_inconsistent_ones_then_those_of_dead_participants() {
    // In each order of the words: each thread begins its search at another word.
    for peer in [1, 2, 3] {
        let world = World::new();
        let [good, left, dead] = [0, 0, 0].map(|peer| join(&world, 3, peer));
        let leave =
            |participant, how| barrier(&world, 3).leave(&world.me(0), participant, how).unwrap();
        leave(left, Release::Inconsistent);
        leave(good, Release::Done);
        world.fence(0);
        let joined = || barrier(&world, 3).join(&world.me(peer), &world);
        assert_eq!(joined(), Ok((Taken::Clean, good)));
        assert_eq!(joined(), Ok((told_of(0), left)));
        assert_eq!(joined(), Ok((told_of(0), dead)));
        assert_eq!(joined(), Err(LockError::BarrierFull));
    }
}

/// A barrier slot cannot be made unrecoverable either: the others would wait for the slot for ever.
#[test]
fn a_slot_that_is_given_up_for_good_is_taken_like_that_of_a_dead_participant() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    barrier(&world, 2).leave(&world.me(1), participants[1], Release::GivenUp).unwrap();
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Err(LockError::ParticipantDied));
    let heir = barrier(&world, 2).join(&world.me(2), &world);
    assert_eq!(heir, Ok((told_of(1), participants[1])));
    assert_eq!(arrive(&world, 2, 2, participants[1]), 0);
    assert_eq!(wait(&world, 2, 0, 0, Some(0)), Ok(()));
}

#[test]
fn a_slot_that_is_left_as_it_was_found_names_the_dead_and_keeps_its_arrival() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    assert_eq!(arrive(&world, 2, 1, participants[1]), 0);
    world.kill(1);
    for peer in [2, 3] {
        let heir = barrier(&world, 2).join(&world.me(peer), &world);
        assert_eq!(heir, Ok((told_of(1), participants[1])));
        assert_eq!(barrier(&world, 2).arrived_in(participants[1]), Some(0));
        let how = Release::unchanged(told_of(1));
        barrier(&world, 2).leave(&world.me(peer), participants[1], how).unwrap();
    }
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    assert_eq!(barrier(&world, 2).phase(), 1);
}

/// As if the last participant had died after it arrived and before it moved the phase.
#[test]
fn a_phase_that_nobody_moved_is_moved_by_a_waiter_at_the_end_of_its_slice() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    world.then(|world| {
        let mine = world.words[1].load(Ordering::Relaxed);
        let mark = mine & (0xf << 28);
        world.words[2].fetch_or(mark, Ordering::Relaxed);
        world.kill(1);
    });
    assert_eq!(wait(&world, 2, 0, 0, None), Ok(()));
    assert_eq!(barrier(&world, 2).phase(), 1);
    assert!(world.passed() <= FIRST_SLICE_NS + SLICE_NS);
}

#[test]
fn a_thread_that_was_declared_dead_does_not_arrive_join_or_wait() {
    let world = World::new();
    let participants = [join(&world, 2, 0), join(&world, 2, 1)];
    assert_eq!(arrive(&world, 2, 0, participants[0]), 0);
    world.then(|world| world.fence(0));
    assert_eq!(wait(&world, 2, 0, 0, None), Err(LockError::Fenced));
    world.fence(1);
    let late = barrier(&world, 2).arrive(&world.me(1), &world, participants[1]);
    assert_eq!(late, Err(LockError::Fenced));
    assert_eq!(barrier(&world, 2).join(&world.me(1), &world), Err(LockError::Fenced));
    assert_eq!(barrier(&world, 2).phase(), 0);
}

#[test]
fn a_waiter_sleeps_for_the_death_futexes_of_the_absent_and_is_told_when_one_dies() {
    let world = World::new();
    let participants = [0, 1, 2, 3].map(|peer| join(&world, 4, peer));
    (0..4).for_each(|peer| world.set_notice(peer, DeathNotice::Pending));
    assert_eq!(arrive(&world, 4, 0, participants[0]), 0);
    assert_eq!(arrive(&world, 4, 1, participants[1]), 0);
    world.then(|world| {
        world.kill(3);
        world.set_notice(3, DeathNotice::Fired);
    });
    assert_eq!(wait(&world, 4, 0, 0, None), Err(LockError::ParticipantDied));
    assert_eq!(*world.waited_for.borrow(), [[2, 3]]);
    assert_eq!((world.slept.get(), world.passed()), (1, 0), "it was told, and waited for nothing");
}
