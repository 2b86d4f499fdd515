//! Semaphores between processes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{
    Access, LockError, Mapping, Mutex, Permit, Record, RecordKind, RecordTag, RegionError,
    Semaphore, Space, records,
};

use crate::support::{
    DEADLINE, Role, SHORT, ScriptedProcess, at_once, busy, fails, fence_me, inconsistent, listen,
    owner_died, say, stay, until_event_waiters,
};
use crate::typed::ground;

pub(crate) const ROLES: &[Role] =
    &[("permit-hold", hold), ("permit-turns", turns), ("permit-obey", obey)];

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Takes a permit, says its number and state, and keeps it.
fn hold(args: &[&str]) {
    let mapping = opened(args[0]);
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    match pool.acquire() {
        Ok(permit) => {
            say(format!("mine {}", permit.index()));
            stay();
        }
        Err(LockError::OwnerDied(_)) => {
            let permit = inconsistent(pool.acquire_recover());
            say(format!("owner died {}", permit.index()));
            stay();
        }
        Err(error) => panic!("{error}"),
    }
}

/// Spends or gives a permit for each line.
fn obey(args: &[&str]) {
    let mapping = opened(args[0]);
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    while let Some(line) = listen() {
        match line.as_str() {
            "spend" => pool.acquire().unwrap().spend().unwrap(),
            _ => pool.give().unwrap(),
        }
        say("done");
    }
}

const ROUNDS: u64 = 300;

/// Counts how many have a permit at the same time.
fn turns(args: &[&str]) {
    let mapping = opened(args[0]);
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let inside = mapping.open::<Mutex<[u64; 2]>>(512).unwrap();
    say("ready");
    for _ in 0..ROUNDS {
        let permit = pool.acquire().unwrap();
        inside.lock().unwrap().with_mut(|[now, most]| (*now += 1, *most = (*most).max(*now)));
        std::thread::yield_now();
        inside.lock().unwrap().with_mut(|[now, _]| *now -= 1);
        permit.release().unwrap();
    }
}

fn index(said: &str) -> usize {
    said.split(' ').next_back().unwrap().parse().unwrap()
}

#[test]
fn only_as_many_processes_go_on_as_there_are_permits() {
    let (scratch, _space, mapping) = ground();
    let actors = [(); 4].map(|()| ScriptedProcess::start("permit-turns", &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    actors.into_iter().for_each(ScriptedProcess::succeed);
    let [now, most] = mapping.open::<Mutex<[u64; 2]>>(512).unwrap().lock().unwrap().get();
    assert_eq!(now, 0);
    assert!((1..=2).contains(&most), "{most} at once");
    assert_eq!(mapping.open::<Semaphore<2>>(0).unwrap().available(), 2);
}

#[test]
fn a_waiter_gets_the_permit_of_a_killed_holder_and_a_killed_waiter_gets_none() {
    let (scratch, space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let mine = pool.acquire().unwrap();
    let holder = ScriptedProcess::start("permit-hold", &[&scratch.url]);
    let held = index(&holder.hear());
    assert_ne!(held, mine.index());
    busy(pool.try_acquire());
    fails!(pool.acquire_for(SHORT), LockError::TimedOut(_));
    assert_eq!(pool.available(), 0);
    // Of two waiters, one is killed first.
    let doomed = ScriptedProcess::start("permit-hold", &[&scratch.url]);
    until_event_waiters(&space, 1);
    let heir = ScriptedProcess::start("permit-hold", &[&scratch.url]);
    until_event_waiters(&space, 2);
    doomed.kill();
    holder.kill();
    heir.says(&format!("owner died {held}"));
    // The same with `try_acquire`, which leaves the permit as it is.
    let pid = heir.pid();
    heir.kill();
    let place = owner_died(pool.try_acquire());
    assert_eq!((place.region.as_str(), place.offset), ("a", Some(0)));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    let permit = inconsistent(pool.acquire_recover());
    assert_eq!(permit.index(), held);
    fails!(pool.acquire(), LockError::Deadlock(_));
    // No thread has repaired what it stands for.
    drop(permit);
    owner_died(pool.acquire_for(DEADLINE));
    let permit = inconsistent(pool.acquire_recover_for(DEADLINE)).mark_consistent().unwrap();
    permit.release().unwrap();
    // The permit is consistent now.
    drop(pool.acquire().unwrap());
    mine.release().unwrap();
    assert_eq!(pool.available(), 2);
}

#[test]
fn consistent_permits_are_taken_before_those_of_dead_holders() {
    let (scratch, _space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let holder = ScriptedProcess::start("permit-hold", &[&scratch.url]);
    let held = index(&holder.hear());
    holder.kill();
    // A death causes no error while a consistent permit is free.
    for _ in 0..4 {
        let permit = pool.acquire().unwrap();
        assert_ne!(permit.index(), held);
    }
    let other = at_once(pool.try_acquire());
    owner_died(pool.acquire());
    owner_died(pool.try_acquire());
    fails!(pool.acquire_repairing(|_| Err("no idea".into())), LockError::RepairFailed(_));
    owner_died(pool.acquire());
    let permit = pool.acquire_repairing(|permit| {
        assert_eq!(permit.index(), held);
        Ok(())
    });
    drop((other, permit.unwrap()));
    let both = [pool.acquire().unwrap(), pool.acquire().unwrap()];
    assert_ne!(both[0].index(), both[1].index());
}

#[test]
fn a_freed_permit_wakes_a_waiter_in_another_process() {
    let (scratch, space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let (first, second) = (pool.acquire().unwrap(), pool.acquire().unwrap());
    let waiters = [(); 2].map(|()| ScriptedProcess::start("permit-hold", &[&scratch.url]));
    until_event_waiters(&space, 2);
    let (one, other) = (first.index(), second.index());
    drop(first);
    drop(second);
    let mut got = waiters.each_ref().map(|waiter| waiter.hear());
    got.sort();
    let mut freed = [one, other].map(|index| format!("mine {index}"));
    freed.sort();
    assert_eq!(got, freed);
    for waiter in waiters {
        waiter.succeed();
    }
    assert_eq!(pool.available(), 2);
}

#[test]
fn permits_stay_given_and_spent_after_the_giver_is_killed() {
    let (scratch, space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let nothing = |error: &RegionError| matches!(error, RegionError::NothingSpent);
    fails!(pool.give(), LockError::Region(error) if nothing(error));
    let mut giver = ScriptedProcess::start("permit-obey", &[&scratch.url]);
    for line in ["spend", "spend"] {
        giver.tell(line);
        giver.says("done");
    }
    busy(pool.try_acquire());
    let waiter = ScriptedProcess::start("permit-hold", &[&scratch.url]);
    until_event_waiters(&space, 1);
    giver.tell("give");
    giver.says("done");
    assert!(waiter.hear().starts_with("mine"));
    giver.kill();
    // Its death neither returns the permits that it spent nor takes back those that it gave.
    fails!(pool.acquire_for(SHORT), LockError::TimedOut(_));
    waiter.kill();
    owner_died(pool.acquire());
    drop(inconsistent(pool.acquire_recover()).mark_consistent().unwrap());
    pool.give().unwrap();
    fails!(pool.give(), LockError::Region(error) if nothing(error));
    assert_eq!(pool.available(), 2);
}

#[test]
fn opening_a_semaphore_with_another_number_or_other_bytes_is_an_error() {
    let (_scratch, _space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let kind = RecordKind::Semaphore;
    fails!(mapping.open::<Semaphore<3>>(0), RegionError::OtherRecord { wanted, found, .. }
        if *wanted == RecordTag { kind, size: 24 } && *found == RecordTag { kind, size: 16 });
    fails!(Semaphore::open_with(&mapping, 0, 1), RegionError::OtherRecord { .. });
    let same = Semaphore::open_with(&mapping, 0, 2).unwrap();
    let permit = same.acquire().unwrap();
    assert_eq!((pool.available(), pool.permits(), same.permits()), (1, 2, 2));
    drop(permit);
    for asked in [0, 65] {
        fails!(Semaphore::open_with(&mapping, 1024, asked), RegionError::BadCount { most: 64, .. });
    }
    let most = Semaphore::open_with(&mapping, 1024, 64).unwrap();
    let all: Vec<Permit<'_>> = (0..64).map(|_| at_once(most.try_acquire())).collect();
    fails!(most.try_acquire(), LockError::Deadlock(_));
    drop(all);
    assert_eq!(Semaphore::size_with(64), 66 * 8);
    assert_eq!(Semaphore::<2>::SIZE, Semaphore::size_with(2));
    fails!(mapping.open::<Mutex<u64>>(0), RegionError::OtherRecord { .. });
    // Other bytes lie where a permit would be.
    mapping.set(2048 + 24, &7_u64).unwrap();
    fails!(mapping.open::<Semaphore<2>>(2048), RegionError::NotARecord { .. });
    assert_eq!(mapping.open::<Semaphore<1>>(2048).unwrap().available(), 1);
}

#[test]
fn a_permit_given_up_or_dropped_by_a_panic_is_inconsistent_for_the_next_holder() {
    let (_scratch, _space, mapping) = ground();
    let pool = mapping.open::<Semaphore<1>>(0).unwrap();
    pool.acquire().unwrap().leave_inconsistent().unwrap();
    assert_eq!(pool.available(), 1);
    owner_died(pool.try_acquire());
    drop(inconsistent(pool.acquire_recover()).mark_consistent().unwrap());
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _permit = pool.acquire().unwrap();
        std::panic::resume_unwind(Box::new(()))
    }));
    assert!(unwound.is_err());
    owner_died(pool.acquire_for(DEADLINE));
    drop(pool.acquire_repairing(|_| Ok(())).unwrap());
    drop(pool.acquire().unwrap());
    // A permit that is given up counts as spent: it comes back when it is given.
    pool.acquire().unwrap().leave_inconsistent().unwrap();
    inconsistent(pool.acquire_recover()).give_up().unwrap();
    busy(pool.try_acquire());
    pool.give().unwrap();
    drop(pool.acquire().unwrap());
}

#[test]
fn a_permit_forgotten_by_an_ended_thread_goes_to_others() {
    let (_scratch, _space, mapping) = ground();
    let pool = mapping.open::<Semaphore<1>>(0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(pool.acquire().unwrap())).join().unwrap();
    });
    owner_died(pool.acquire_for(DEADLINE));
}

#[test]
fn a_fenced_holder_cannot_release_or_spend_its_permit() {
    let (scratch, space, mapping) = ground();
    let pool = mapping.open::<Semaphore<2>>(0).unwrap();
    let (first, second) = (pool.acquire().unwrap(), pool.acquire().unwrap());
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    let theirs = theirs.open::<Semaphore<2>>(0).unwrap();
    fence_me(&scratch, &space);
    owner_died(theirs.acquire());
    let heirs = [(); 2].map(|()| inconsistent(theirs.acquire_recover()));
    fails!(first.release(), LockError::Fenced);
    fails!(second.spend(), LockError::Fenced);
    fails!(pool.acquire(), LockError::Fenced);
    fails!(pool.give(), LockError::Fenced);
    drop(heirs);
    assert_eq!(theirs.available(), 2);
}

records! {
    struct Desk {
        pens: Semaphore<3>,
        notes: Mutex<u64>,
    }
}

#[test]
fn a_semaphore_lies_among_other_records() {
    let (_scratch, _space, mapping) = ground();
    let desk = mapping.open::<Desk>(64).unwrap();
    assert_eq!(Desk::SIZE, 40 + 24);
    let pens = [(); 3].map(|()| desk.pens.acquire().unwrap());
    desk.notes.lock().unwrap().set(9);
    drop(pens);
    assert_eq!(desk.notes.lock().unwrap().get(), 9);
    assert_eq!(desk.pens.available(), 3);
}
