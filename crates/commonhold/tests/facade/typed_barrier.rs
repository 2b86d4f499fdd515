//! Barriers between processes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{
    Access, Barrier, ErrorKind, LockError, LockResult, Mapping, Participant, RegionError, Space,
};

use crate::support::{
    DEADLINE, Role, SHORT, ScriptedProcess, busy, fails, fence_me, listen, say, stay,
    until_event_waiters,
};
use crate::typed::ground;

pub(crate) const ROLES: &[Role] = &[("party", party), ("party-steps", steps)];

/// Where each participant of the test with steps writes its step.
const STEPS_AT: u64 = 1024;
const STEPS: u64 = 200;

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

fn text(result: LockResult<u64>) -> String {
    match result {
        Ok(phase) => format!("passed {phase}"),
        Err(LockError::ParticipantDied(_)) => "party died".into(),
        Err(error) => format!("failed: {error}"),
    }
}

/// Joins a barrier for two, and then does what each line says.
fn party(args: &[&str]) {
    let mapping = opened(args[0]);
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let party = barrier.join().unwrap();
    match party.replaces() {
        None => say("joined"),
        Some(place) => {
            assert_eq!((place.region.as_str(), place.offset), ("a", Some(0)));
            assert!(place.owner.is_some());
            say(format!("replaces another, arrived: {}", party.has_arrived()));
        }
    }
    while let Some(line) = listen() {
        match line.as_str() {
            "arrive" => say(party.arrive().unwrap()),
            _ => say(text(party.wait())),
        }
    }
}

fn joined(url: &str) -> ScriptedProcess {
    let actor = ScriptedProcess::start("party", &[url]);
    actor.says("joined");
    actor
}

/// Goes step by step with the others, and checks that none is behind.
fn steps(args: &[&str]) {
    let mapping = opened(args[0]);
    let barrier = mapping.open::<Barrier<3>>(0).unwrap();
    let party = barrier.join().unwrap();
    step_by_step(&mapping, &party);
    say("done");
    stay();
}

fn step_by_step(mapping: &Mapping, party: &Participant<'_>) {
    let mine = STEPS_AT + 8 * party.index() as u64;
    for step in 0..STEPS {
        mapping.set(mine, &(step + 1)).unwrap();
        assert_eq!(party.wait_for(DEADLINE).unwrap(), step);
        let all: [u64; 3] = mapping.get(STEPS_AT).unwrap();
        assert!(all.iter().all(|theirs| (step + 1..step + 3).contains(theirs)), "{step}: {all:?}");
    }
}

#[test]
fn three_processes_go_step_by_step() {
    let (scratch, _space, mapping) = ground();
    let barrier = mapping.open::<Barrier<3>>(0).unwrap();
    let actors = [(); 2].map(|()| ScriptedProcess::start("party-steps", &[&scratch.url]));
    let party = barrier.join().unwrap();
    step_by_step(&mapping, &party);
    for actor in actors {
        actor.says("done");
        actor.succeed();
    }
    assert_eq!(barrier.phase(), STEPS);
}

#[test]
fn the_others_learn_of_a_participant_killed_before_it_arrived_until_another_arrives_in_its_place() {
    let (scratch, space, mapping) = ground();
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let doomed = joined(&scratch.url);
    let party = barrier.join().unwrap();
    let full = |error: &RegionError| matches!(error, RegionError::BarrierFull { parties: 2 });
    fails!(barrier.join(), LockError::Region(error) if full(error));
    busy(party.try_wait());
    fails!(party.wait_for(SHORT), LockError::TimedOut(_));
    let dead = doomed.pid();
    doomed.kill();
    let error = party.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OwnerDied);
    fails!(&Err::<(), _>(error), LockError::ParticipantDied(place)
        if (place.region.as_str(), place.offset) == ("a", Some(0))
            && place.owner.as_ref().and_then(|owner| owner.pid) == Some(dead));
    // The error stays: no phase passes without the dead participant.
    fails!(party.try_wait(), LockError::ParticipantDied(_));
    assert_eq!(barrier.phase(), 0);
    let mut heir = ScriptedProcess::start("party", &[&scratch.url]);
    heir.says("replaces another, arrived: false");
    busy(party.try_wait());
    heir.tell("wait");
    heir.says("passed 0");
    assert_eq!(party.wait().unwrap(), 0);
    // The next phase is an ordinary one.
    heir.tell("wait");
    until_event_waiters(&space, 1);
    assert_eq!(party.wait().unwrap(), 1);
    heir.says("passed 1");
    heir.succeed();
}

#[test]
fn a_participant_killed_while_it_waits_does_not_disturb_the_others_until_the_next_phase() {
    let (scratch, space, mapping) = ground();
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let mut doomed = joined(&scratch.url);
    let party = barrier.join().unwrap();
    doomed.tell("wait");
    until_event_waiters(&space, 1);
    doomed.kill();
    // It has arrived in this phase.
    assert_eq!(party.wait().unwrap(), 0);
    fails!(party.wait(), LockError::ParticipantDied(_));
    let mut heir = ScriptedProcess::start("party", &[&scratch.url]);
    heir.says("replaces another, arrived: false");
    heir.tell("arrive");
    heir.says("1");
    assert_eq!(party.wait().unwrap(), 1);
    // A participant that is killed after it arrived: the thread that replaces it has nothing to do in this phase.
    heir.tell("arrive");
    heir.says("2");
    heir.kill();
    let mut heir = ScriptedProcess::start("party", &[&scratch.url]);
    heir.says("replaces another, arrived: true");
    assert_eq!(party.wait().unwrap(), 2);
    // It waits for that phase, which has passed, and not for the next one.
    heir.tell("wait");
    heir.says("passed 2");
    heir.tell("wait");
    until_event_waiters(&space, 1);
    assert_eq!(party.wait().unwrap(), 3);
    heir.says("passed 3");
}

#[test]
fn a_wait_after_a_timeout_is_for_the_same_phase() {
    let (scratch, _space, mapping) = ground();
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let party = barrier.join().unwrap();
    // No other thread has joined: that counts as no death.
    fails!(party.wait_for(SHORT), LockError::TimedOut(_));
    assert_eq!(party.arrive().unwrap(), 0);
    let mut other = joined(&scratch.url);
    other.tell("wait");
    other.says("passed 0");
    assert_eq!(barrier.phase(), 1);
    assert_eq!(party.wait().unwrap(), 0);
    busy(party.try_wait());
    assert_eq!(barrier.phase(), 1);
}

#[test]
fn a_participant_that_panics_counts_as_dead_and_one_that_leaves_does_not() {
    let (_scratch, _space, mapping) = ground();
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let party = barrier.join().unwrap();
    barrier.join().unwrap().leave().unwrap();
    busy(party.try_wait());
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _party = barrier.join().unwrap();
        std::panic::resume_unwind(Box::new(()))
    }));
    assert!(unwound.is_err());
    fails!(party.wait(), LockError::ParticipantDied(_));
    let heir = barrier.join().unwrap();
    let replaced = heir.replaces().unwrap().owner.as_ref().unwrap();
    assert_eq!(replaced.pid, Some(std::process::id()));
    assert_eq!(heir.arrive().unwrap(), 0);
    drop(heir);
    assert_eq!(party.wait().unwrap(), 0);
    // A participant whose thread ends with its guard forgotten.
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(barrier.join().unwrap())).join().unwrap();
    });
    fails!(party.wait(), LockError::ParticipantDied(_));
}

#[test]
fn opening_a_barrier_with_another_number_is_an_error() {
    let (_scratch, _space, mapping) = ground();
    let three = Barrier::open_with(&mapping, 0, 3).unwrap();
    assert_eq!(mapping.open::<Barrier<3>>(0).unwrap().parties(), three.parties());
    fails!(mapping.open::<Barrier<2>>(0), RegionError::OtherRecord { .. });
    fails!(Barrier::open_with(&mapping, 0, 0), RegionError::BadCount { asked: 0, most: 64 });
    assert_eq!(Barrier::<3>::SIZE, Barrier::size_with(3));
}

#[test]
fn a_fenced_participant_does_not_arrive() {
    let (scratch, space, mapping) = ground();
    let barrier = mapping.open::<Barrier<2>>(0).unwrap();
    let party = barrier.join().unwrap();
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    let theirs = theirs.open::<Barrier<2>>(0).unwrap();
    let witness = theirs.join().unwrap();
    fence_me(&scratch, &space);
    fails!(party.arrive(), LockError::Fenced);
    fails!(party.wait(), LockError::Fenced);
    fails!(witness.try_wait(), LockError::ParticipantDied(_));
    assert!(theirs.join().unwrap().replaces().is_some());
    fails!(party.leave(), LockError::Fenced);
}
