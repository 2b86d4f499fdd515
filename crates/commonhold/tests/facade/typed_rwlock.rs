//! Reader/writer locks with their data, in the bytes of a region.

use commonhold::{LockError, LockKind, Mapping, RegionError, RwLock, Space};

use crate::{
    support::{Actor, DEADLINE, Role, SHORT, Scratch, fails, owner_died, say, stay, until},
    typed::ground,
};

pub(crate) const ROLES: &[Role] =
    &[("table-hold", hold), ("table-write", write), ("table-read", read)];

type Table = [u64; 64];

/// Where the lock that matters lies, and one beside it.
const AT: u64 = 128;
const BESIDE: u64 = AT + RwLock::<Table>::SIZE;

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", commonhold::Access::ReadWrite).unwrap()
}

/// Takes the lock as the second argument says, and stays.
fn hold(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    if args[1] == "read" {
        let held = table.read();
        say(if held.is_ok() { "clean" } else { "owner died" });
        stay();
    } else {
        let held = table.write();
        say(if held.is_ok() { "clean" } else { "owner died" });
        stay();
    }
}

fn holder(scratch: &Scratch, how: &str) -> Actor {
    Actor::start("table-hold", &[&scratch.url, how])
}

#[test]
fn a_killed_reader_of_a_typed_lock_does_not_block_writers() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let actor = holder(&scratch, "read");
    actor.says("clean");
    fails!(table.try_write(), LockError::TimedOut);
    fails!(table.write_for(SHORT), LockError::TimedOut);
    drop(table.try_read().unwrap());
    let writer = holder(&scratch, "write");
    // It has the writer's word, and waits for the reader.
    until("the writer", || mapping.get::<u64>(AT).unwrap() >> 32 != 0);
    assert_eq!(writer.hear_within(SHORT), None, "a writer got past a living reader");
    actor.kill();
    writer.says("clean");
    writer.succeed();
    drop(table.write().unwrap());
    assert!(space.locks().unwrap().is_empty());
}

#[test]
fn readers_of_a_typed_lock_are_told_of_a_killed_writer_until_a_writer_has_repaired() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let actor = holder(&scratch, "write");
    actor.says("clean");
    fails!(table.try_read(), LockError::TimedOut);
    fails!(table.read_for(SHORT), LockError::TimedOut);
    fails!(table.try_write(), LockError::TimedOut);
    let reader = holder(&scratch, "read");
    actor.kill();
    reader.says("owner died");
    reader.succeed();
    drop(owner_died(table.try_read()));
    let writer = owner_died(table.write());
    assert!(writer.is_inconsistent());
    writer.leave().unwrap();
    // Dropped without repair: nobody has it any more.
    drop(owner_died(table.write()));
    fails!(table.read(), LockError::Unrecoverable);
    fails!(table.write(), LockError::Unrecoverable);
    table.reset().unwrap();
    let writer = table.write().unwrap();
    fails!(table.reset(), RegionError::TimedOut { .. });
    writer.unlock().unwrap();
    drop(table.read().unwrap());
}

#[test]
fn a_thread_that_holds_a_typed_lock_and_wants_it_again_is_told_of_the_deadlock() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let reader = table.read().unwrap();
    fails!(table.write(), LockError::Deadlock);
    fails!(table.try_write(), LockError::Deadlock);
    reader.unlock().unwrap();
    let writer = table.write().unwrap();
    fails!(table.write(), LockError::Deadlock);
    fails!(table.read(), LockError::Deadlock);
    fails!(table.read_for(DEADLINE), LockError::Deadlock);
    writer.unlock().unwrap();
    drop(table.read().unwrap());
}

#[test]
fn the_fifth_lock_that_a_thread_reads_under_is_refused_and_the_regions_own_is_not() {
    let (_scratch, _space, mapping) = ground();
    let tables: Vec<_> =
        (0..5).map(|number| mapping.open::<RwLock<u64>>(64 * number).unwrap()).collect();
    let mut readers: Vec<_> = tables[..4].iter().map(|table| table.read().unwrap()).collect();
    let full = |error: &RegionError| matches!(error, RegionError::TooManyReadLocks { most: 4 });
    fails!(tables[4].read(), LockError::Region(error) if full(error));
    fails!(tables[4].try_read(), LockError::Region(error) if full(error));
    // The region's own lock counts such readers elsewhere; and writing needs no such place.
    drop(mapping.read_lock().unwrap());
    drop(tables[4].write().unwrap());
    // Other threads have places of their own.
    std::thread::scope(|scope| scope.spawn(|| drop(tables[4].read().unwrap())).join().unwrap());
    readers.pop();
    drop(tables[4].read().unwrap());
    drop(readers);
    for table in tables {
        drop(table.try_write().unwrap());
    }
}

#[test]
fn readers_of_one_lock_are_nothing_to_the_writers_of_another() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let beside = mapping.open::<RwLock<Table>>(BESIDE).unwrap();
    let actor = holder(&scratch, "read");
    actor.says("clean");
    // Their peer has read there before, so that writers look at its threads.
    drop(beside.read().unwrap());
    drop(mapping.read_lock().unwrap());
    drop(beside.try_write().unwrap());
    drop(mapping.try_lock().unwrap());
    fails!(table.try_write(), LockError::TimedOut);
    let reader = mapping.read_lock().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Shared);
    drop(beside.try_write().unwrap());
    drop(reader);
    actor.succeed();
    drop(table.try_write().unwrap());
}

const ROUNDS: u64 = 2000;

fn write(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let guard = table.write().unwrap();
        guard.update(|table| table.iter_mut().for_each(|number| *number += 1)).unwrap();
    }
}

fn read(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    let mut last = 0;
    for _ in 0..ROUNDS {
        let seen = table.read().unwrap().get().unwrap();
        assert!(seen.iter().all(|number| *number == seen[0]), "a torn table: {seen:?}");
        assert!(seen[0] >= last, "time ran backwards");
        last = seen[0];
    }
}

#[test]
fn readers_in_other_processes_see_whole_tables_only() {
    let (scratch, _space, mapping) = ground();
    let roles = ["table-write", "table-read", "table-write", "table-read"];
    let actors = roles.map(|role| Actor::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    assert_eq!(table.read().unwrap().get().unwrap(), [2 * ROUNDS; 64]);
}
