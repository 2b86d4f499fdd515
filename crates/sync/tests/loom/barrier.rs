//! The barrier.

use commonhold_sync::{Barrier, Liveness, LockError, Park, Participant, Release, Taken, Thread};
use commonhold_window::atomic::Ordering;
use loom::{sync::Arc, thread};

use crate::world::{Mortal, World, check};

fn barrier(world: &World, participants: usize) -> Barrier<'_> {
    Barrier::new(&world.words[0], World::at(0), &world.words[1..=participants])
}

fn join(world: &World, participants: usize, peer: usize) -> Participant {
    let (taken, participant) = barrier(world, participants).join(&world.me(peer), world).unwrap();
    assert_eq!(taken, Taken::Clean);
    participant
}

fn pass(
    barrier: Barrier<'_>,
    me: &Thread<'_>,
    env: &(impl Park + Liveness),
    participant: Participant,
) -> Result<u64, LockError> {
    let phase = barrier.arrive(me, env, participant)?;
    barrier.wait(me, env, phase, None).map(|()| phase)
}

fn nothing_is_pending(world: &World) {
    for slot in &world.slots[..2] {
        assert_eq!(slot[1].load(Ordering::SeqCst), 0, "nothing is pending");
    }
}

#[test]
fn two_participants_that_write_in_alternate_phases_never_write_at_once() {
    check(3, || {
        let world = World::new();
        let participants = [join(&world, 2, 0), join(&world, 2, 1)];
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || {
            let me = other.me(1);
            assert_eq!(pass(barrier(&other, 2), &me, &*other, participants[1]), Ok(0));
            other.write_data();
            assert_eq!(pass(barrier(&other, 2), &me, &*other, participants[1]), Ok(1));
        });
        let me = world.me(0);
        world.write_data();
        assert_eq!(pass(barrier(&world, 2), &me, &*world, participants[0]), Ok(0));
        assert_eq!(pass(barrier(&world, 2), &me, &*world, participants[0]), Ok(1));
        assert_eq!(world.read_data(), 2);
        thread.join().unwrap();
        nothing_is_pending(&world);
    });
}

#[test]
fn of_three_participants_none_passes_alone_and_none_is_left_behind() {
    check(2, || {
        let world = World::new();
        let participants = [0, 1, 2].map(|peer| join(&world, 3, peer));
        let threads: Vec<_> = [1, 2]
            .map(|peer| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let me = world.me(peer);
                    assert_eq!(pass(barrier(&world, 3), &me, &*world, participants[peer]), Ok(0));
                    assert_eq!(world.read_data(), 1);
                })
            })
            .into();
        world.write_data();
        assert_eq!(pass(barrier(&world, 3), &world.me(0), &*world, participants[0]), Ok(0));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(barrier(&world, 3).phase(), 1);
    });
}

#[test]
fn two_participants_that_only_arrive_pass_the_phase_for_one_that_waits() {
    check(3, || {
        let world = World::new();
        let participants = [0, 1, 2].map(|peer| join(&world, 3, peer));
        let threads = [1, 2].map(|peer| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let me = world.me(peer);
                assert_eq!(barrier(&world, 3).arrive(&me, &*world, participants[peer]), Ok(0));
            })
        });
        assert_eq!(pass(barrier(&world, 3), &world.me(0), &*world, participants[0]), Ok(0));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A participant dies at any step of two phases; another survives, and a third thread takes over the dead one's slot.
#[test]
fn wherever_a_participant_dies_the_others_pass_or_are_told_until_another_joins_in_its_slot() {
    for steps in 0..7 {
        check(3, move || {
            let world = World::new();
            let participant = join(&world, 2, 1);
            let mortal = join(&world, 2, 2);
            let other = Arc::clone(&world);
            let survivor = thread::spawn(move || {
                let me = other.me(1);
                for expected in 0..2 {
                    let phase = barrier(&other, 2).arrive(&me, &*other, participant).unwrap();
                    assert_eq!(phase, expected);
                    while let Err(error) = barrier(&other, 2).wait(&me, &*other, phase, None) {
                        // The dead participant has not been replaced yet; our arrival stands.
                        assert_eq!(error, LockError::ParticipantDied);
                        thread::yield_now();
                    }
                }
            });
            let finished = Mortal::live(&world, 2, steps, |env| {
                let me = world.me(2);
                for phase in 0..2 {
                    env.step();
                    assert_eq!(pass(barrier(&world, 2), &me, env, mortal), Ok(phase));
                }
            });
            world.end_slices();
            if !finished {
                let me = world.me(0);
                let (taken, participant) = barrier(&world, 2).join(&me, &*world).unwrap();
                assert_eq!(taken, World::told_of(2));
                let mut arrived = barrier(&world, 2).arrived_in(participant);
                while arrived.is_some() || barrier(&world, 2).phase() < 2 {
                    let phase = match arrived.take() {
                        Some(phase) => phase,
                        None => barrier(&world, 2).arrive(&me, &*world, participant).unwrap(),
                    };
                    barrier(&world, 2).wait(&me, &*world, phase, None).unwrap();
                }
            }
            survivor.join().unwrap();
            assert_eq!(barrier(&world, 2).phase(), 2);
        });
    }
}

/// No slice ends here: the reaper alone must wake the sleepers.
#[test]
fn a_participant_that_dies_before_it_wakes_the_others_leaves_nobody_asleep() {
    check(3, || {
        let world = World::new();
        let (participant, last) = (join(&world, 2, 1), join(&world, 2, 2));
        let other = Arc::clone(&world);
        let waiter =
            thread::spawn(move || pass(barrier(&other, 2), &other.me(1), &*other, participant));
        // The last participant dies when it asks for the wake-up, if a thread may be asleep.
        Mortal::live(&world, 2, 0, |env| {
            assert_eq!(barrier(&world, 2).arrive(&world.me(2), env, last), Ok(0));
        });
        assert_eq!(waiter.join().unwrap(), Ok(0));
    });
}

#[test]
fn only_one_of_two_threads_gets_the_slot_of_a_dead_participant() {
    check(3, || {
        let world = World::new();
        let dead = join(&world, 1, 2);
        world.bury(2);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || barrier(&other, 1).join(&other.me(1), &*other));
        let mine = barrier(&world, 1).join(&world.me(0), &*world);
        let theirs = thread.join().unwrap();
        let mut ends = [mine.map(|(taken, _)| taken), theirs.map(|(taken, _)| taken)];
        ends.sort_by_key(Result::is_err);
        assert_eq!(ends, [Ok(World::told_of(2)), Err(LockError::BarrierFull)]);
        let late = barrier(&world, 1).arrive(&world.me(2), &*world, dead);
        assert_eq!(late, Err(LockError::Fenced));
    });
}

#[test]
fn nobody_waits_for_a_participant_that_left_after_it_arrived_or_for_its_successor() {
    check(2, || {
        let world = World::new();
        let participants = [join(&world, 2, 0), join(&world, 2, 1)];
        let other = Arc::clone(&world);
        let leaver = thread::spawn(move || {
            let me = other.me(1);
            assert_eq!(barrier(&other, 2).arrive(&me, &*other, participants[1]), Ok(0));
            barrier(&other, 2).leave(&me, participants[1], Release::Done).unwrap();
        });
        let successor = Arc::clone(&world);
        let successor = thread::spawn(move || {
            let me = successor.me(2);
            let Ok((taken, participant)) = barrier(&successor, 2).join(&me, &*successor) else {
                return;
            };
            assert_eq!(taken, Taken::Clean);
            // The successor does no work in the phase that its predecessor has arrived in.
            barrier(&successor, 2).leave(&me, participant, Release::Done).unwrap();
        });
        assert_eq!(pass(barrier(&world, 2), &world.me(0), &*world, participants[0]), Ok(0));
        leaver.join().unwrap();
        successor.join().unwrap();
        assert_eq!(barrier(&world, 2).phase(), 1);
    });
}
