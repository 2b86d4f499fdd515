//! Condition variables between processes.

use commonhold::{
    Access, BoxError, Condvar, LockError, Mapping, Mutex, MutexGuard, RegionError, Space, Waited,
    records,
};

use crate::support::{
    DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, fails, listen, owner_died, say, stay,
    until,
};

pub(crate) const ROLES: &[Role] = &[
    ("condvar-wait", wait),
    ("condvar-repair", wait_and_repair),
    ("condvar-echo", echo),
    ("condvar-notify", notify),
];

records! {
    struct Box {
        content: Mutex<u64>,
        changed: Condvar,
        waiting: Mutex<u64>,
    }
}

fn ground() -> (Scratch, Space, Mapping) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Waits until the box has something, and says what, and whether an owner died.
fn wait(args: &[&str]) {
    let mapping = opened(args[0]);
    let shared = mapping.open::<Box>(0).unwrap();
    let mut guard = shared.content.lock().unwrap();
    // A process that sees this, and then takes the mutex, knows that this one waits.
    shared.waiting.lock().unwrap().with_mut(|count| *count += 1);
    let mut told = "";
    while guard.get() == 0 {
        guard = match shared.changed.wait(guard) {
            Ok(guard) => guard,
            Err(LockError::OwnerDied(_)) => {
                told = " owner died";
                shared.content.lock_repairing(make_up).unwrap()
            }
            Err(error) => panic!("{error}"),
        };
    }
    say(format!("{}{told}", guard.get()));
    drop(guard);
    stay();
}

/// The same by a handle with a repair, which reports no death.
fn wait_and_repair(args: &[&str]) {
    let mapping = opened(args[0]);
    let shared = mapping.open::<Box>(0).unwrap();
    let content = shared.content.repaired_by(make_up);
    let guard = content.lock().unwrap();
    shared.waiting.lock().unwrap().with_mut(|count| *count += 1);
    let guard = shared.changed.wait_while(guard, |content| content.get() == 0).unwrap();
    say(guard.get());
    drop(guard);
    stay();
}

/// What an owner leaves in the box when it dies.
fn make_up(content: &MutexGuard<'_, u64>) -> Result<(), BoxError> {
    content.set(u64::MAX);
    Ok(())
}

/// Does one thing for each line, with or without the mutex.
fn notify(args: &[&str]) {
    let mapping = opened(args[0]);
    let shared = mapping.open::<Box>(0).unwrap();
    let mut guard = None;
    while let Some(line) = listen() {
        match line.as_str() {
            "lock" => guard = Some(shared.content.lock().unwrap()),
            "set" => guard.as_ref().unwrap().set(5),
            "unlock" => guard = None,
            _ => shared.changed.notify_one().unwrap(),
        }
        say("done");
    }
}

/// Answers every odd number with the next.
fn echo(args: &[&str]) {
    let mapping = opened(args[0]);
    let shared = mapping.open::<Box>(0).unwrap();
    let most: u64 = args[1].parse().unwrap();
    let mut guard = shared.content.lock().unwrap();
    loop {
        let number = guard.get();
        if number >= most {
            return;
        }
        guard = if number % 2 == 1 {
            guard.set(number + 1);
            shared.changed.notify_one().unwrap();
            guard
        } else {
            shared.changed.wait(guard).unwrap()
        };
    }
}

fn waiter(scratch: &Scratch, shared: &Box, already: u64) -> ScriptedProcess {
    waiter_as("condvar-wait", scratch, shared, already)
}

fn waiter_as(role: &str, scratch: &Scratch, shared: &Box, already: u64) -> ScriptedProcess {
    let actor = ScriptedProcess::start(role, &[&scratch.url]);
    until("a waiter", || shared.waiting.lock().unwrap().get() == already + 1);
    // It has freed the mutex, so it waits.
    drop(shared.content.lock().unwrap());
    actor
}

fn changed(shared: &Box) -> MutexGuard<'_, u64> {
    let guard = shared.content.lock().unwrap();
    guard.set(5);
    guard
}

#[test]
fn no_notification_is_lost_between_two_processes_that_take_turns() {
    const MOST: u64 = 2000;
    let (scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    let actor = ScriptedProcess::start("condvar-echo", &[&scratch.url, &MOST.to_string()]);
    let mut guard = shared.content.lock().unwrap();
    while guard.get() < MOST {
        guard.with_mut(|number| *number += 1);
        shared.changed.notify_one().unwrap();
        guard = shared.changed.wait_while(guard, |number| number.get() % 2 == 1).unwrap();
    }
    drop(guard);
    actor.succeed();
}

#[test]
fn all_waiters_are_notified() {
    let (scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    let actors = [0, 1, 2].map(|already| waiter(&scratch, &shared, already));
    drop(changed(&shared));
    shared.changed.notify_all().unwrap();
    for actor in actors {
        actor.says("5");
        actor.succeed();
    }
}

#[test]
fn a_killed_waiter_does_not_take_the_notification_of_another() {
    let (scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    for round in 0..5 {
        let mut killed = waiter(&scratch, &shared, 2 * round);
        let other = waiter(&scratch, &shared, 2 * round + 1);
        // Of the two, one dies at about the time of the only notification.
        killed.kill_unseen();
        let guard = changed(&shared);
        shared.changed.notify_one().unwrap();
        drop(guard);
        other.says("5");
        other.succeed();
        killed.kill();
        // It may have been killed while it looked.
        let guard = shared.content.lock_repairing(|_| Ok(())).unwrap();
        guard.set(0);
    }
}

#[test]
fn a_waiter_learns_of_a_notifier_killed_with_the_mutex_or_repairs_after_it() {
    let (scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    let made_up = u64::MAX.to_string();
    let roles = [("condvar-wait", format!("{made_up} owner died")), ("condvar-repair", made_up)];
    for (already, (role, says)) in (0..).zip(roles) {
        let actor = waiter_as(role, &scratch, &shared, already);
        let mut notifier = ScriptedProcess::start("condvar-notify", &[&scratch.url]);
        notifier.tell("lock");
        notifier.says("done");
        notifier.kill();
        actor.says(&says);
        actor.succeed();
        shared.content.lock().unwrap().set(0);
    }
}

#[test]
fn a_waiter_wakes_by_itself_after_its_notifier_was_killed() {
    let (scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    let actor = waiter(&scratch, &shared, 0);
    let mut notifier = ScriptedProcess::start("condvar-notify", &[&scratch.url]);
    for line in ["lock", "set", "unlock"] {
        notifier.tell(line);
        notifier.says("done");
    }
    notifier.kill();
    actor.says("5");
    actor.succeed();
}

#[test]
fn a_timed_out_wait_holds_the_mutex_that_others_took_meanwhile() {
    let (_scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    for timeout in [std::time::Duration::ZERO, SHORT] {
        let guard = shared.content.lock().unwrap();
        let (guard, waited) = shared.changed.wait_for(guard, timeout).unwrap();
        assert_eq!(waited, Waited::TimedOut);
        fails!(shared.content.try_lock(), LockError::Deadlock(_));
        guard.unlock().unwrap();
    }
    let guard = shared.content.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(changed(&shared)));
        let mut guard = guard;
        while guard.get() == 0 {
            guard = shared.changed.wait_for(guard, DEADLINE).unwrap().0;
        }
    });
}

#[test]
fn a_thread_that_takes_an_inconsistent_mutex_learns_it_while_its_owner_waits() {
    let (_scratch, _space, mapping) = ground();
    let shared = mapping.open::<Box>(0).unwrap();
    let leave = || {
        let guard = shared.content.lock().unwrap();
        guard.set(7);
        guard.leave_inconsistent().unwrap();
    };
    let mut guard = shared.content.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(leave);
        // It checks its condition again without a notification.
        let error = loop {
            match shared.changed.wait_for(guard, DEADLINE) {
                Ok((held, _)) => guard = held,
                Err(error) => break error,
            }
        };
        let owner = owner_died(Err::<(), _>(error)).owner.unwrap();
        assert_eq!(owner.pid, Some(std::process::id()));
    });
    // It does not hold the mutex, which is as it was left.
    owner_died(shared.content.lock());
    let content = shared.content.clone().repaired_by(|content| {
        assert_eq!(content.get(), 7);
        content.set(3);
        Ok(())
    });
    let guard = content.lock().unwrap();
    assert_eq!(guard.replace(0), 3);
    std::thread::scope(|scope| {
        scope.spawn(leave);
        let guard = shared.changed.wait_while(guard, |content| content.get() == 0).unwrap();
        assert_eq!(guard.get(), 3, "it was not repaired");
    });
    drop(shared.content.lock().unwrap());
}

#[test]
fn a_condvar_refuses_and_frees_a_mutex_of_another_space_or_attachment() {
    let (scratch, _space, mapping) = ground();
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    let shared = mapping.open::<Box>(0).unwrap();
    let theirs = theirs.open::<Box>(0).unwrap();
    let guard = theirs.content.lock().unwrap();
    fails!(shared.changed.wait(guard), LockError::Region(error)
        if matches!(**error, RegionError::OtherSpace));
    drop(at_once(shared.content.try_lock()));
}
