//! Reader/writer locks held upgradable: typed ones, and those of regions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{Access, LockError, LockKind, Mapping, RegionError, RwLock, Space};

use crate::{
    support::{Actor, DEADLINE, Role, SHORT, fails, fence_me, owner_died, say, stay, until},
    typed::ground,
};

pub(crate) const ROLES: &[Role] =
    &[("upgradable-hold", hold), ("upgradable-count", count), ("upgradable-look", look)];

type Pair = [u64; 2];

const AT: u64 = 128;

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Holds the lock as the second argument says, and stays.
fn hold(args: &[&str]) {
    let mapping = opened(args[0]);
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    if args[1] == "read" {
        let _guard = pair.read().unwrap();
        say("has it");
        return stay();
    }
    let mut guard = pair.upgradable_read().unwrap();
    if args[1] == "upgradable" {
        say("has it");
        return stay();
    }
    let upgraded = guard.upgrade().unwrap();
    upgraded.update(|pair| pair[0] = 7).unwrap();
    say("has it");
    stay();
}

fn holder(url: &str, how: &str) -> Actor {
    let actor = Actor::start("upgradable-hold", &[url, how]);
    actor.says("has it");
    actor
}

#[test]
fn an_upgradable_owner_lets_readers_in_and_nobody_else() {
    let (_scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let mut guard = pair.upgradable_read().unwrap();
    fails!(pair.upgradable_read(), LockError::Deadlock);
    fails!(pair.write(), LockError::Deadlock);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            assert_eq!(pair.read().unwrap().get().unwrap(), [0, 0]);
            fails!(pair.try_upgradable_read(), LockError::TimedOut);
            fails!(pair.upgradable_read_for(SHORT), LockError::TimedOut);
            fails!(pair.try_write(), LockError::TimedOut);
        });
        others.join().unwrap();
    });
    let writer = guard.upgrade().unwrap();
    writer.set(&[1, 1]).unwrap();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| fails!(pair.try_read(), LockError::TimedOut));
        others.join().unwrap();
    });
    writer.downgrade().unwrap();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| pair.read().unwrap().get().unwrap());
        assert_eq!(others.join().unwrap(), [1, 1]);
    });
    assert_eq!(guard.get().unwrap(), [1, 1]);
    guard.unlock().unwrap();
    drop(pair.try_write().unwrap());
}

#[test]
fn who_reads_itself_cannot_upgrade_and_an_upgrade_that_times_out_leaves_what_there_was() {
    let (scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let reader = pair.read().unwrap();
    fails!(pair.upgradable_read(), LockError::Deadlock);
    drop(reader);
    let mut guard = pair.upgradable_read().unwrap();
    let reader = pair.read().unwrap();
    fails!(guard.upgrade(), LockError::Deadlock);
    drop(reader);
    let actor = holder(&scratch.url, "read");
    fails!(guard.try_upgrade(), LockError::TimedOut);
    fails!(guard.upgrade_for(SHORT), LockError::TimedOut);
    // Others still get in, to read.
    holder(&scratch.url, "read").succeed();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| fails!(pair.try_write(), LockError::TimedOut));
        others.join().unwrap();
    });
    actor.kill();
    guard.upgrade_for(DEADLINE).unwrap().set(&[2, 2]).unwrap();
    guard.unlock().unwrap();
    assert_eq!(pair.read().unwrap().get().unwrap(), [2, 2]);
}

#[test]
fn a_killed_upgradable_owner_leaves_a_lock_that_is_clean_and_an_upgraded_one_does_not() {
    let (scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    holder(&scratch.url, "upgradable").kill();
    drop(pair.try_read().unwrap());
    drop(pair.write_for(DEADLINE).unwrap());
    holder(&scratch.url, "upgraded").kill();
    let mut guard = owner_died(pair.upgradable_read_for(DEADLINE));
    assert_eq!(guard.get().unwrap(), [7, 0]);
    {
        let writer = owner_died(guard.upgrade());
        assert!(writer.is_inconsistent());
        // Not repaired: the next is told as well.
    }
    drop(guard);
    drop(owner_died(pair.try_read()));
    let mut guard = owner_died(pair.upgradable_read());
    let writer = owner_died(guard.upgrade());
    writer.set(&[0, 0]).unwrap();
    writer.mark_consistent().unwrap();
    drop(writer);
    drop(guard);
    drop(pair.try_write().unwrap());
}

#[test]
fn a_panic_of_an_upgraded_owner_is_told_to_readers_and_one_of_an_upgradable_is_nothing() {
    let (_scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = pair.upgradable_read().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    drop(pair.try_read().unwrap());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = pair.upgradable_read().unwrap();
        let _writer = guard.upgrade().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    drop(owner_died(pair.try_read()));
    drop(owner_died(pair.try_write()));
}

#[test]
fn a_fenced_upgradable_owner_changes_nothing() {
    let (scratch, space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let mut guard = pair.upgradable_read().unwrap();
    fence_me(&scratch, &space);
    let heir = opened(&scratch.url);
    let theirs = heir.open::<RwLock<Pair>>(AT).unwrap();
    let writer = theirs.write_for(DEADLINE).unwrap();
    fails!(guard.upgrade(), LockError::Region(RegionError::Fenced));
    fails!(guard.unlock(), RegionError::Fenced);
    writer.unlock().unwrap();
}

#[test]
fn a_regions_lock_can_be_held_upgradable_and_is_listed_so() {
    let (scratch, space, mapping) = ground();
    let lock = mapping.region_lock().unwrap();
    let mut guard = lock.upgradable_read().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Upgradable);
    let reader = mapping.read_lock().unwrap();
    fails!(guard.upgrade(), LockError::Deadlock);
    drop(reader);
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    let reading = theirs.read_lock().unwrap();
    fails!(guard.try_upgrade(), LockError::TimedOut);
    fails!(guard.upgrade_for(SHORT), LockError::Deadlock);
    drop(reading);
    let writer = guard.upgrade().unwrap();
    assert!(!writer.is_inconsistent());
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Exclusive);
    writer.downgrade().unwrap();
    guard.unlock().unwrap();
    drop(mapping.try_lock().unwrap());
    // Five read locks: the last is counted with its peer's.
    let readers: Vec<_> = (0..5).map(|_| mapping.read_lock().unwrap()).collect();
    fails!(lock.upgradable_read(), LockError::Deadlock);
    fails!(lock.try_upgradable_read(), LockError::Deadlock);
    drop(readers);
    drop(lock.upgradable_read_for(SHORT).unwrap());
}

#[test]
fn since_when_a_dead_owner_had_a_regions_lock_is_not_said_of_its_heir() {
    let (scratch, space, mapping) = ground();
    let neighbour = scratch.open();
    let theirs = neighbour.map("a", Access::ReadWrite).unwrap();
    let mut guard = theirs.lock().unwrap();
    guard.stamp();
    std::mem::forget(guard);
    assert!(space.stat("a").unwrap().lock.unwrap().since.is_some());
    drop((theirs, neighbour));
    let guard = owner_died(mapping.region_lock().unwrap().upgradable_read());
    let lock = space.stat("a").unwrap().lock.unwrap();
    assert_eq!((lock.kind, lock.since), (LockKind::Upgradable, None));
    drop(guard);
}

const ROUNDS: u64 = 500;

fn count(args: &[&str]) {
    let mapping = opened(args[0]);
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let mut guard = pair.upgradable_read().unwrap();
        let before = guard.get().unwrap();
        let writer = guard.upgrade().unwrap();
        assert_eq!(writer.get().unwrap(), before, "somebody wrote in between");
        writer.update(|pair| pair.iter_mut().for_each(|number| *number += 1)).unwrap();
        writer.downgrade().unwrap();
        assert_eq!(guard.get().unwrap(), before.map(|number| number + 1));
    }
}

fn look(args: &[&str]) {
    let mapping = opened(args[0]);
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    say("ready");
    stay();
    let done = || {
        let [one, other] = pair.read().unwrap().get().unwrap();
        assert_eq!(one, other, "torn");
        one == 2 * ROUNDS
    };
    until("the counters", done);
}

#[test]
fn what_upgradable_owners_in_other_processes_looked_at_has_not_changed_when_they_write() {
    let (scratch, _space, mapping) = ground();
    let roles = ["upgradable-count", "upgradable-look", "upgradable-count", "upgradable-look"];
    let actors = roles.map(|role| Actor::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    assert_eq!(pair.read().unwrap().get().unwrap(), [2 * ROUNDS; 2]);
}
