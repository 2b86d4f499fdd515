//! Values that are made once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{
    Access, LockError, LockResult, Mapping, Mutex, OnceLock, OnceLockGuard, Space, Turn,
};

use crate::{
    support::{
        DEADLINE, Role, SHORT, ScriptedProcess, at_once, busy, fails, fence_me, say, stay,
        until_waiters,
    },
    typed::ground,
};

pub(crate) const ROLES: &[Role] = &[("once-begin", begin), ("once-make", make)];

type Value = [u64; 3];

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Takes the turn, and neither makes the value nor gives the turn back.
fn begin(args: &[&str]) {
    let mapping = opened(args[0]);
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    let turn = once.begin().unwrap();
    match &turn {
        Turn::Done(value) => say(format!("done {value:?}")),
        Turn::Mine(guard) if guard.begun_before() => say("begun before"),
        Turn::Mine(_) => say("mine"),
    }
    stay();
}

/// The turn to make the value, and whether another thread had begun.
fn mine(turn: LockResult<Turn<'_, Value>>) -> (OnceLockGuard<'_, Value>, bool) {
    match turn.unwrap() {
        Turn::Mine(guard) => {
            let begun_before = guard.begun_before();
            (guard, begun_before)
        }
        Turn::Done(value) => panic!("it is made: {value:?}"),
    }
}

/// Makes the value if it is not made, counts that under a mutex, and says the value.
fn make(args: &[&str]) {
    let mapping = opened(args[0]);
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    let made = mapping.open::<Mutex<u64>>(64).unwrap();
    say("ready");
    stay();
    let value = once.get_or_init(|| {
        made.lock().unwrap().with_mut(|count| *count += 1);
        [u64::from(std::process::id()); 3]
    });
    say(format!("{:?}", value.unwrap()));
}

#[test]
fn one_of_many_processes_makes_the_value_and_all_see_it() {
    let (scratch, _space, mapping) = ground();
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    assert_eq!(once.get(), None);
    let actors = [(); 4].map(|()| ScriptedProcess::start("once-make", &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|mut actor| {
        actor.hang_up();
        std::thread::spawn(move || {
            let said = actor.hear();
            actor.succeed();
            said
        })
    });
    let said = ends.map(|end| end.join().unwrap());
    assert!(said.iter().all(|value| *value == said[0]), "{said:?}");
    let value = once.get().unwrap();
    assert_eq!(format!("{value:?}"), said[0]);
    assert_eq!(mapping.open::<Mutex<u64>>(64).unwrap().lock().unwrap().get(), 1);
    assert_eq!(once.get_or_init(|| unreachable!()).unwrap(), value);
    assert!(matches!(once.try_begin(), Ok(Some(Turn::Done(same))) if same == value));
}

#[test]
fn a_waiter_gets_the_turn_of_a_dead_maker_and_a_dead_waiter_gets_none() {
    let (scratch, space, mapping) = ground();
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    let maker = ScriptedProcess::start("once-begin", &[&scratch.url]);
    maker.says("mine");
    busy(once.try_begin());
    fails!(once.begin_for(SHORT), LockError::TimedOut(place)
        if place.owner.as_ref().unwrap().pid == Some(maker.pid()));
    assert_eq!(once.get(), None);
    // Of two waiters, one is killed first.
    let doomed = ScriptedProcess::start("once-begin", &[&scratch.url]);
    until_waiters(&space, "a", 1);
    let heir = ScriptedProcess::start("once-begin", &[&scratch.url]);
    until_waiters(&space, "a", 2);
    doomed.kill();
    maker.kill();
    heir.says("begun before");
    heir.kill();
    let (guard, begun_before) = mine(once.begin());
    assert!(begun_before);
    fails!(once.begin(), LockError::Deadlock(_));
    fails!(once.get_or_init(|| [1; 3]), LockError::Deadlock(_));
    guard.complete(&[7, 8, 9]).unwrap();
    assert_eq!(once.get(), Some([7, 8, 9]));
    let late = ScriptedProcess::start("once-begin", &[&scratch.url]);
    late.says("done [7, 8, 9]");
    // The death of a thread that has seen or made the value does nothing.
    late.kill();
    assert_eq!(once.get_or_init(|| unreachable!()).unwrap(), [7, 8, 9]);
}

#[test]
fn a_value_whose_maker_gave_up_or_panicked_is_made_by_the_next() {
    let (_scratch, _space, mapping) = ground();
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    let (guard, begun_before) = mine(once.begin());
    assert!(!begun_before);
    drop(guard);
    assert!(mine(Ok(at_once(once.try_begin()))).1);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        once.get_or_init(|| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(unwound.is_err());
    assert_eq!(once.get(), None);
    assert!(mine(once.begin_for(DEADLINE)).1);
    // The same for a thread that could not make it: the next gets the turn, and no error.
    let failed = once.get_or_try_init(|| Err("no paper".into()));
    fails!(failed, LockError::RepairFailed(failed) if failed.error.to_string() == "no paper");
    assert_eq!(once.get(), None);
    assert_eq!(once.get_or_try_init(|| Ok([4; 3])).unwrap(), [4; 3]);
    assert_eq!(once.get_or_init(|| unreachable!()).unwrap(), [4; 3]);
}

#[test]
fn a_maker_that_was_fenced_does_not_make_the_value() {
    let (scratch, space, mapping) = ground();
    let once = mapping.open::<OnceLock<Value>>(0).unwrap();
    let (guard, _) = mine(once.begin());
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    fence_me(&scratch, &space);
    let theirs = theirs.open::<OnceLock<Value>>(0).unwrap();
    let (heir, begun_before) = mine(theirs.begin());
    assert!(begun_before);
    fails!(guard.complete(&[1; 3]), LockError::Fenced);
    heir.complete(&[2; 3]).unwrap();
    assert_eq!(theirs.get(), Some([2; 3]));
}
