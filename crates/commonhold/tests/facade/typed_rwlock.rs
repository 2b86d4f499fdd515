//! Reader/writer locks with their data, in the bytes of a region.

use commonhold::{
    ErrorKind, LockError, LockKind, LockResult, Mapping, RegionError, RwLock, RwLockReadGuard,
    RwLockWriteGuard, Space,
};

use crate::{
    support::{
        DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, busy, fails, inconsistent,
        owner_died, say, stay, until,
    },
    typed::ground,
};

pub(crate) const ROLES: &[Role] =
    &[("table-hold", hold), ("table-write", write), ("table-read", read)];

type Table = [u64; 64];
/// How the lock is taken to read.
type Way = fn(&RwLock<Table>) -> RwLockReadGuard<'_, Table>;

/// The offset of the lock under test, and of one beside it.
const AT: u64 = 128;
const BESIDE: u64 = AT + RwLock::<Table>::SIZE;

fn opened(url: &str) -> Mapping {
    Space::open(url).unwrap().map("a", commonhold::Access::ReadWrite).unwrap()
}

/// Takes the lock as the second argument says, and keeps it.
fn hold(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    if args[1] == "read" { say_and_stay(table.read()) } else { say_and_stay(table.write()) }
}

fn say_and_stay<G>(held: LockResult<G>) {
    match &held {
        Ok(_) => say("clean"),
        Err(LockError::OwnerDied(_)) => say("owner died"),
        Err(error) => panic!("{error}"),
    }
    stay();
}

fn holder(scratch: &Scratch, how: &str) -> ScriptedProcess {
    ScriptedProcess::start("table-hold", &[&scratch.url, how])
}

#[test]
fn a_killed_reader_of_a_typed_lock_does_not_block_writers() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let actor = holder(&scratch, "read");
    actor.says("clean");
    busy(table.try_write());
    fails!(table.write_for(SHORT), LockError::TimedOut(_));
    drop(at_once(table.try_read()));
    let writer = holder(&scratch, "write");
    // It owns the lock word, and waits for the reader.
    until("the writer", || mapping.get::<u64>(AT).unwrap() >> 32 != 0);
    assert_eq!(writer.hear_within(SHORT), None, "a writer got past a living reader");
    actor.kill();
    writer.says("clean");
    writer.succeed();
    drop(table.write().unwrap());
    assert!(space.locks().unwrap().is_empty());
}

#[test]
fn readers_of_a_typed_lock_learn_of_a_killed_writer_until_a_writer_repairs() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let actor = holder(&scratch, "write");
    actor.says("clean");
    busy(table.try_read());
    fails!(table.read_for(SHORT), LockError::TimedOut(_));
    busy(table.try_write());
    let reader = holder(&scratch, "read");
    let pid = actor.pid();
    actor.kill();
    reader.says("owner died");
    reader.succeed();
    let place = owner_died(table.try_read());
    assert_eq!((place.region.as_str(), place.offset), ("a", Some(AT)));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    assert_eq!(owner_died(table.write()), place);
    assert_eq!(owner_died(table.read_for(DEADLINE)), place);
    // Dropped without a repair, it is inconsistent as before.
    drop(inconsistent(table.write_recover()));
    owner_died(table.read());
    inconsistent(table.write_recover_for(DEADLINE)).give_up().unwrap();
    fails!(table.read(), LockError::Unrecoverable(_));
    fails!(table.write(), LockError::Unrecoverable(_));
    fails!(table.write_recover(), LockError::Unrecoverable(_));
    table.reset().unwrap();
    let writer = table.write().unwrap();
    fails!(table.reset(), LockError::TimedOut(_));
    writer.unlock().unwrap();
    drop(table.read().unwrap());
}

#[test]
fn a_reader_with_a_repair_repairs_the_data_of_a_killed_writer() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let actor = holder(&scratch, "write");
    actor.says("clean");
    actor.kill();
    let error = table.read_repairing(|_| Err("no idea".into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OwnerDied);
    fails!(&Err::<(), _>(error), LockError::RepairFailed(_));
    owner_died(table.read());
    let fill = |number| {
        move |table: &RwLockWriteGuard<'_, Table>| {
            table.set([number; 64]);
            Ok(())
        }
    };
    assert_eq!(table.read_repairing(fill(3)).unwrap().get(), [3; 64]);
    drop(table.read().unwrap());
    let known = table.clone().repaired_by(fill(4));
    let ways: [Way; 3] = [
        |known| known.read().unwrap(),
        |known| at_once(known.try_read()),
        |known| known.read_for(DEADLINE).unwrap(),
    ];
    for way in ways {
        table.write().unwrap().leave_inconsistent().unwrap();
        owner_died(table.try_write());
        assert_eq!(way(&known).get(), [4; 64]);
        table.write().unwrap().set([5; 64]);
    }
    // The same for writers, also with another repair than the handle's own.
    table.write().unwrap().leave_inconsistent().unwrap();
    assert_eq!(known.write().unwrap().get(), [4; 64]);
    table.write().unwrap().leave_inconsistent().unwrap();
    assert_eq!(table.write_repairing(fill(6)).unwrap().get(), [6; 64]);
    assert_eq!(known.upgradable_read().unwrap().get(), [6; 64]);
}

#[test]
fn a_thread_that_takes_its_typed_lock_again_gets_deadlock() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let reader = table.read().unwrap();
    fails!(table.write(), LockError::Deadlock(_));
    fails!(table.try_write(), LockError::Deadlock(_));
    reader.unlock().unwrap();
    let writer = table.write().unwrap();
    fails!(table.write(), LockError::Deadlock(_));
    fails!(table.read(), LockError::Deadlock(_));
    fails!(table.read_for(DEADLINE), LockError::Deadlock(_));
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
    // The region's own lock counts such readers elsewhere, and a writer needs no `reading` word.
    drop(mapping.read_lock().unwrap());
    drop(tables[4].write().unwrap());
    // Other threads have `reading` words of their own.
    std::thread::scope(|scope| scope.spawn(|| drop(tables[4].read().unwrap())).join().unwrap());
    readers.pop();
    drop(tables[4].read().unwrap());
    drop(readers);
    for table in tables {
        drop(at_once(table.try_write()));
    }
}

#[test]
fn readers_of_one_lock_do_not_block_writers_of_another() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    let beside = mapping.open::<RwLock<Table>>(BESIDE).unwrap();
    let actor = holder(&scratch, "read");
    actor.says("clean");
    // Their peer has read there before, so that writers look at its threads.
    drop(beside.read().unwrap());
    drop(mapping.read_lock().unwrap());
    drop(at_once(beside.try_write()));
    drop(at_once(mapping.try_lock()));
    busy(table.try_write());
    let reader = mapping.read_lock().unwrap();
    assert_eq!(space.stat("a").unwrap().lock.unwrap().kind, LockKind::Shared);
    drop(at_once(beside.try_write()));
    drop(reader);
    actor.succeed();
    drop(at_once(table.try_write()));
}

const ROUNDS: u64 = 2000;

fn write(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let guard = table.write().unwrap();
        guard.with_mut(|table| table.iter_mut().for_each(|number| *number += 1));
    }
}

fn read(args: &[&str]) {
    let mapping = opened(args[0]);
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    let mut last = 0;
    for _ in 0..ROUNDS {
        let seen = table.read().unwrap().get();
        assert!(seen.iter().all(|number| *number == seen[0]), "a torn table: {seen:?}");
        assert!(seen[0] >= last, "time ran backwards");
        last = seen[0];
    }
}

#[test]
fn readers_in_other_processes_see_only_whole_tables() {
    let (scratch, _space, mapping) = ground();
    let roles = ["table-write", "table-read", "table-write", "table-read"];
    let actors = roles.map(|role| ScriptedProcess::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let table = mapping.open::<RwLock<Table>>(AT).unwrap();
    assert_eq!(table.read().unwrap().get(), [2 * ROUNDS; 64]);
}
