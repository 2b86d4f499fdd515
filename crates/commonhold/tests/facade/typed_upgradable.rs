//! Reader/writer locks held upgradable: typed ones, and those of regions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commonhold::{Access, LockError, LockKind, Mapping, RwLock, Space};

use crate::{
    support::{
        DEADLINE, Role, SHORT, ScriptedProcess, at_once, busy, fails, fence_me, inconsistent,
        owner_died, say, stay, until,
    },
    typed::ground,
};

pub(crate) const ROLES: &[Role] =
    &[("upgradable-hold", hold), ("upgradable-count", count), ("upgradable-look", look)];

type Pair = [u64; 2];

const AT: u64 = 128;

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", Access::ReadWrite).unwrap()
}

/// Takes the lock as the second argument says, and keeps it.
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
    upgraded.at(0).unwrap().set(7);
    say("has it");
    stay();
}

fn holder(url: &str, how: &str) -> ScriptedProcess {
    let actor = ScriptedProcess::start("upgradable-hold", &[url, how]);
    actor.says("has it");
    actor
}

#[test]
fn an_upgradable_owner_lets_in_only_readers() {
    let (_scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let mut guard = pair.upgradable_read().unwrap();
    fails!(pair.upgradable_read(), LockError::Deadlock(_));
    fails!(pair.write(), LockError::Deadlock(_));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            assert_eq!(pair.read().unwrap().get(), [0, 0]);
            busy(pair.try_upgradable_read());
            fails!(pair.upgradable_read_for(SHORT), LockError::TimedOut(_));
            busy(pair.try_write());
        });
        others.join().unwrap();
    });
    let writer = guard.upgrade().unwrap();
    writer.set([1, 1]);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| busy(pair.try_read()));
        others.join().unwrap();
    });
    writer.downgrade().unwrap();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| pair.read().unwrap().get());
        assert_eq!(others.join().unwrap(), [1, 1]);
    });
    assert_eq!(guard.get(), [1, 1]);
    guard.unlock().unwrap();
    drop(at_once(pair.try_write()));
}

#[test]
fn a_thread_that_also_reads_cannot_upgrade_and_a_timed_out_upgrade_changes_nothing() {
    let (scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let reader = pair.read().unwrap();
    fails!(pair.upgradable_read(), LockError::Deadlock(_));
    drop(reader);
    let mut guard = pair.upgradable_read().unwrap();
    let reader = pair.read().unwrap();
    fails!(guard.upgrade(), LockError::Deadlock(_));
    drop(reader);
    let actor = holder(&scratch.url, "read");
    busy(guard.try_upgrade());
    fails!(guard.upgrade_for(SHORT), LockError::TimedOut(_));
    // Others still get in, to read.
    holder(&scratch.url, "read").succeed();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| busy(pair.try_write()));
        others.join().unwrap();
    });
    actor.kill();
    guard.upgrade_for(DEADLINE).unwrap().set([2, 2]);
    guard.unlock().unwrap();
    assert_eq!(pair.read().unwrap().get(), [2, 2]);
}

#[test]
fn a_killed_upgradable_owner_leaves_a_lock_that_is_clean_and_an_upgraded_one_does_not() {
    let (scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    holder(&scratch.url, "upgradable").kill();
    drop(at_once(pair.try_read()));
    drop(pair.write_for(DEADLINE).unwrap());
    let actor = holder(&scratch.url, "upgraded");
    let pid = actor.pid();
    actor.kill();
    // It cannot be taken upgradable until a thread repairs the data, which only a writer can.
    let place = owner_died(pair.upgradable_read_for(DEADLINE));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    assert_eq!(owner_died(pair.try_upgradable_read()), place);
    assert_eq!(owner_died(pair.try_read()), place);
    let guard = inconsistent(pair.write_recover());
    assert_eq!(guard.get(), [7, 0]);
    // It is not repaired: the next thread gets the same error.
    drop(guard);
    owner_died(pair.upgradable_read());
    let known = pair.clone().repaired_by(|pair| {
        pair.at(1)?.set(pair.at(0)?.get());
        Ok(())
    });
    let mut guard = known.upgradable_read().unwrap();
    assert_eq!(guard.get(), [7, 7]);
    guard.upgrade().unwrap().set([0, 0]);
    drop(guard);
    drop(at_once(pair.try_write()));
    assert_eq!(pair.read().unwrap().get(), [0, 0]);
}

#[test]
fn an_upgraded_owner_that_leaves_a_half_done_change_gets_an_error_when_it_upgrades_again() {
    let (_scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let mut guard = pair.upgradable_read().unwrap();
    let writer = guard.upgrade().unwrap();
    writer.at(0).unwrap().set(7);
    writer.leave_inconsistent().unwrap();
    let owner = owner_died(guard.upgrade()).owner.unwrap();
    assert_eq!(owner.pid, Some(std::process::id()));
    owner_died(guard.try_upgrade());
    assert_eq!(guard.get(), [7, 0]);
    std::thread::scope(|scope| {
        scope.spawn(|| owner_died(pair.try_read())).join().unwrap();
    });
    guard.unlock().unwrap();
    owner_died(pair.read());
    drop(inconsistent(pair.write_recover()).mark_consistent().unwrap());
    drop(pair.read().unwrap());
}

#[test]
fn readers_learn_of_a_panic_of_an_upgraded_owner_and_not_of_an_upgradable_one() {
    let (_scratch, _space, mapping) = ground();
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = pair.upgradable_read().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    drop(at_once(pair.try_read()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = pair.upgradable_read().unwrap();
        let _writer = guard.upgrade().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    owner_died(pair.try_read());
    owner_died(pair.try_write());
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
    fails!(guard.upgrade(), LockError::Fenced);
    fails!(guard.unlock(), LockError::Fenced);
    writer.unlock().unwrap();
}

#[test]
fn a_regions_lock_can_be_held_upgradable_and_is_listed_so() {
    let (scratch, space, mapping) = ground();
    let lock = mapping.region_lock().unwrap();
    let mut guard = lock.upgradable_read().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Upgradable);
    let reader = mapping.read_lock().unwrap();
    fails!(guard.upgrade(), LockError::Deadlock(_));
    drop(reader);
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    let reading = theirs.read_lock().unwrap();
    busy(guard.try_upgrade());
    fails!(guard.upgrade_for(SHORT), LockError::Deadlock(_));
    drop(reading);
    let writer = guard.upgrade().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Exclusive);
    writer.downgrade().unwrap();
    guard.unlock().unwrap();
    drop(at_once(mapping.try_lock()));
    // Five read locks: the last is counted with its peer's.
    let readers: Vec<_> = (0..5).map(|_| mapping.read_lock().unwrap()).collect();
    fails!(lock.upgradable_read(), LockError::Deadlock(_));
    fails!(lock.try_upgradable_read(), LockError::Deadlock(_));
    drop(readers);
    drop(lock.upgradable_read_for(SHORT).unwrap());
}

#[test]
fn the_stamp_of_a_dead_owner_is_not_shown_for_the_next_owner() {
    let (scratch, space, mapping) = ground();
    let neighbour = scratch.open();
    let theirs = neighbour.map("a", Access::ReadWrite).unwrap();
    let guard = theirs.lock().unwrap();
    guard.stamp();
    std::mem::forget(guard);
    assert!(space.stat("a").unwrap().lock.unwrap().since.is_some());
    drop((theirs, neighbour));
    let lock = mapping.region_lock().unwrap();
    owner_died(lock.upgradable_read());
    let guard = inconsistent(lock.lock_recover());
    let shown = space.stat("a").unwrap().lock.unwrap();
    assert_eq!((shown.kind, shown.since), (LockKind::Exclusive, None));
    drop(guard.mark_consistent().unwrap());
    let guard = lock.upgradable_read().unwrap();
    let shown = space.stat("a").unwrap().lock.unwrap();
    assert_eq!((shown.kind, shown.since), (LockKind::Upgradable, None));
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
        let before = guard.get();
        let writer = guard.upgrade().unwrap();
        assert_eq!(writer.get(), before, "somebody wrote in between");
        writer.with_mut(|pair| pair.iter_mut().for_each(|number| *number += 1));
        writer.downgrade().unwrap();
        assert_eq!(guard.get(), before.map(|number| number + 1));
    }
}

fn look(args: &[&str]) {
    let mapping = opened(args[0]);
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    say("ready");
    stay();
    let done = || {
        let [one, other] = pair.read().unwrap().get();
        assert_eq!(one, other, "torn");
        one == 2 * ROUNDS
    };
    until("the counters", done);
}

#[test]
fn data_do_not_change_between_an_upgradable_read_and_its_upgrade() {
    let (scratch, _space, mapping) = ground();
    let roles = ["upgradable-count", "upgradable-look", "upgradable-count", "upgradable-look"];
    let actors = roles.map(|role| ScriptedProcess::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let pair = mapping.open::<RwLock<Pair>>(AT).unwrap();
    assert_eq!(pair.read().unwrap().get(), [2 * ROUNDS; 2]);
}
