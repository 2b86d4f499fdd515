//! Values that are made once, by whoever lives to do it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{Access, LockError, Mapping, Mutex, Once, RegionError, Space, Turn};

use crate::{
    support::{
        Actor, DEADLINE, Role, SHORT, fails, fence_me, owner_died, say, stay, until_waiters,
    },
    typed::ground,
};

pub(crate) const ROLES: &[Role] = &[("once-begin", begin), ("once-make", make)];

type Value = [u64; 3];

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Has the turn, and neither makes the value nor gives it back.
fn begin(args: &[&str]) {
    let mapping = opened(args[0]);
    let once = mapping.open::<Once<Value>>(0).unwrap();
    let turn = once.begin();
    match &turn {
        Ok(Turn::Done(value)) => say(format!("done {value:?}")),
        Ok(Turn::Mine(_)) => say("mine"),
        Err(LockError::OwnerDied(_)) => say("owner died"),
        Err(error) => panic!("{error}"),
    }
    stay();
}

/// Makes the value if nobody has, counts that under a mutex, and says the value.
fn make(args: &[&str]) {
    let mapping = opened(args[0]);
    let once = mapping.open::<Once<Value>>(0).unwrap();
    let made = mapping.open::<Mutex<u64>>(64).unwrap();
    say("ready");
    stay();
    let value = once.get_or_init(|| {
        made.lock().unwrap().update(|count| *count += 1).unwrap();
        [u64::from(std::process::id()); 3]
    });
    say(format!("{:?}", value.unwrap()));
}

#[test]
fn of_many_processes_one_makes_the_value_and_all_see_it() {
    let (scratch, _space, mapping) = ground();
    let once = mapping.open::<Once<Value>>(0).unwrap();
    assert_eq!(once.get().unwrap(), None);
    let actors = [(); 4].map(|()| Actor::start("once-make", &[&scratch.url]));
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
    let value = once.get().unwrap().unwrap();
    assert_eq!(format!("{value:?}"), said[0]);
    assert_eq!(mapping.open::<Mutex<u64>>(64).unwrap().lock().unwrap().get().unwrap(), 1);
    assert_eq!(once.get_or_init(|| unreachable!()).unwrap(), value);
    assert!(matches!(once.try_begin(), Ok(Turn::Done(same)) if same == value));
}

#[test]
fn who_dies_making_a_value_leaves_its_turn_to_one_who_waits_and_a_dead_waiter_none() {
    let (scratch, space, mapping) = ground();
    let once = mapping.open::<Once<Value>>(0).unwrap();
    let maker = Actor::start("once-begin", &[&scratch.url]);
    maker.says("mine");
    fails!(once.try_begin(), LockError::TimedOut);
    fails!(once.begin_for(SHORT), LockError::TimedOut);
    assert_eq!(once.get().unwrap(), None);
    // Of two who wait, one is killed first.
    let doomed = Actor::start("once-begin", &[&scratch.url]);
    until_waiters(&space, "a", 1);
    let heir = Actor::start("once-begin", &[&scratch.url]);
    until_waiters(&space, "a", 2);
    doomed.kill();
    maker.kill();
    heir.says("owner died");
    heir.kill();
    let guard = owner_died(once.begin());
    fails!(once.begin(), LockError::Deadlock);
    fails!(once.get_or_init(|| [1; 3]), LockError::Deadlock);
    guard.complete(&[7, 8, 9]).unwrap();
    assert_eq!(once.get().unwrap(), Some([7, 8, 9]));
    let late = Actor::start("once-begin", &[&scratch.url]);
    late.says("done [7, 8, 9]");
    // The death of who has seen it, or made it, is nothing.
    late.kill();
    assert_eq!(once.get_or_init(|| unreachable!()).unwrap(), [7, 8, 9]);
}

#[test]
fn a_value_whose_maker_gave_up_or_panicked_is_made_by_the_next() {
    let (_scratch, _space, mapping) = ground();
    let once = mapping.open::<Once<Value>>(0).unwrap();
    let Turn::Mine(guard) = once.begin().unwrap() else { panic!("made by nobody") };
    drop(guard);
    drop(owner_died(once.try_begin()));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        once.get_or_init(|| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(unwound.is_err());
    assert_eq!(once.get().unwrap(), None);
    drop(owner_died(once.begin_for(DEADLINE)));
    assert_eq!(once.get_or_init(|| [4; 3]).unwrap(), [4; 3]);
}

#[test]
fn who_was_declared_dead_while_making_a_value_does_not_make_it() {
    let (scratch, space, mapping) = ground();
    let once = mapping.open::<Once<Value>>(0).unwrap();
    let Turn::Mine(guard) = once.begin().unwrap() else { panic!("made by nobody") };
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    fence_me(&scratch, &space);
    let heir = owner_died(theirs.open::<Once<Value>>(0).unwrap().begin());
    fails!(guard.complete(&[1; 3]), RegionError::Fenced);
    heir.complete(&[2; 3]).unwrap();
    assert_eq!(theirs.open::<Once<Value>>(0).unwrap().get().unwrap(), Some([2; 3]));
}
