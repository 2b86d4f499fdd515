//! Events between processes.

use std::time::{Duration, Instant};

use commonhold::{Access, LockError, Mapping, Space};

use crate::support::{DEADLINE, Role, SHORT, Scratch, ScriptedProcess, fails, say, stay, until};

pub(crate) const ROLES: &[Role] = &[("event-wait", wait_once), ("event-echo", echo)];

/// Offset of the event.
const EVENT: u64 = 16;

fn ground() -> (Scratch, Mapping) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 64).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, mapping)
}

/// Waits for the event to move from the number that the test saw, and says the new number.
fn wait_once(args: &[&str]) {
    let mapping = Space::open(args[0]).unwrap().map("a", Access::ReadWrite).unwrap();
    let event = mapping.event(EVENT).unwrap();
    say("waiting");
    match event.wait_for(args[1].parse().unwrap(), DEADLINE) {
        Ok(number) => say(number),
        Err(error) => say(error),
    }
    stay();
}

fn waiter(scratch: &Scratch, seen: u64) -> ScriptedProcess {
    let actor = ScriptedProcess::start("event-wait", &[&scratch.url, &seen.to_string()]);
    actor.says("waiting");
    actor
}

/// Waits until a thread sleeps on the event: its flag says so.
fn until_asleep(mapping: &Mapping) {
    until("a sleeper", || {
        mapping.get::<u64>(EVENT).unwrap() & commonhold_layout::EVENT_WAITERS != 0
    });
}

#[test]
fn a_signal_without_sleepers_spares_the_next_signal_the_system_call() {
    let (scratch, mapping) = ground();
    let event = mapping.event(EVENT).unwrap();
    let actor = waiter(&scratch, 0);
    until_asleep(&mapping);
    event.signal().unwrap();
    actor.says("1");
    actor.succeed();
    event.signal().unwrap();
    assert_eq!(mapping.get::<u64>(EVENT).unwrap() & commonhold_layout::EVENT_WAITERS, 0);
}

#[test]
fn a_signal_moves_the_number_and_wakes_a_waiter_in_another_process() {
    let (scratch, mapping) = ground();
    let event = mapping.event(EVENT).unwrap();
    assert_eq!(event.sequence(), 0);
    let actor = waiter(&scratch, 0);
    until_asleep(&mapping);
    assert_eq!(actor.hear_within(SHORT), None);
    event.signal().unwrap();
    actor.says("1");
    actor.succeed();
    assert_eq!(event.sequence(), 1);
}

#[test]
fn a_broadcast_wakes_every_waiter() {
    let (scratch, mapping) = ground();
    let actors = [(); 4].map(|()| waiter(&scratch, 0));
    until_asleep(&mapping);
    mapping.event(EVENT).unwrap().broadcast().unwrap();
    for actor in actors {
        actor.says("1");
        actor.succeed();
    }
}

#[test]
fn a_killed_waiter_does_not_take_the_wake_up_of_another() {
    let (scratch, mapping) = ground();
    let event = mapping.event(EVENT).unwrap();
    for round in 0..5 {
        let killed = waiter(&scratch, round);
        until_asleep(&mapping);
        let other = waiter(&scratch, round);
        // Of the two, one dies at about the time of the only signal.
        let mut killed = killed;
        killed.kill_unseen();
        event.signal().unwrap();
        assert_eq!(other.hear(), (round + 1).to_string());
        other.succeed();
        killed.kill();
    }
}

#[test]
fn a_wait_for_a_passed_number_returns_at_once_and_any_other_times_out() {
    let (_scratch, mapping) = ground();
    let event = mapping.event(EVENT).unwrap();
    event.signal().unwrap();
    event.broadcast().unwrap();
    assert_eq!(event.wait(0).unwrap(), 2);
    assert_eq!(event.wait_for(1, Duration::ZERO).unwrap(), 2);
    fails!(event.wait_for(2, Duration::ZERO), LockError::TimedOut(place)
        if (place.region.as_str(), place.offset) == ("a", Some(EVENT)));
    let start = Instant::now();
    fails!(event.wait_for(2, SHORT), LockError::TimedOut(_));
    assert!(start.elapsed() >= SHORT);
    assert!(event.wait_for(7, Duration::ZERO).is_ok(), "7 has never been");
}

/// Answers every number in the first event with one in the second.
fn echo(args: &[&str]) {
    let mapping = Space::open(args[0]).unwrap().map("a", Access::ReadWrite).unwrap();
    let (ping, pong) = (mapping.event(0).unwrap(), mapping.event(8).unwrap());
    for seen in 0..args[1].parse().unwrap() {
        assert_eq!(ping.wait_for(seen, DEADLINE).unwrap(), seen + 1);
        pong.signal().unwrap();
    }
}

#[test]
fn no_signal_is_lost_between_two_processes_that_take_turns() {
    const ROUNDS: u64 = 2000;
    let (scratch, mapping) = ground();
    let actor = ScriptedProcess::start("event-echo", &[&scratch.url, &ROUNDS.to_string()]);
    let (ping, pong) = (mapping.event(0).unwrap(), mapping.event(8).unwrap());
    for seen in 0..ROUNDS {
        ping.signal().unwrap();
        assert_eq!(pong.wait_for(seen, DEADLINE).unwrap(), seen + 1);
    }
    actor.succeed();
}
