//! Sequence locks with their data, in the bytes of a region.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use commonhold::{
    Access, ErrorKind, LockError, Mapping, Mutex, RecordKind, RegionError, SeqLock, Space,
};

use crate::{
    support::{Actor, DEADLINE, Role, SHORT, fails, fence_me, owner_died, say, stay},
    typed::ground,
};

pub(crate) const ROLES: &[Role] =
    &[("seq-half", change_half), ("seq-write", write), ("seq-read", read)];

type Table = [u64; 16];

const AT: u64 = 128;

fn mapped(url: &str, access: Access) -> Mapping {
    Space::open(url).unwrap().map("a", access).unwrap()
}

/// Changes half of the table, or nothing, and stays.
fn change_half(args: &[&str]) {
    let mapping = mapped(args[0], Access::ReadWrite);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let guard = table.write().unwrap();
    if args[1] == "half" {
        guard.update(|table| table[3] = 9).unwrap();
    }
    say("has it");
    stay();
}

fn changer(url: &str, how: &str) -> Actor {
    let actor = Actor::start("seq-half", &[url, how]);
    actor.says("has it");
    actor
}

#[test]
fn a_snapshot_is_what_was_there_before_a_change_or_after_all_of_it() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    assert_eq!(table.read().unwrap(), [0; 16]);
    let guard = table.write().unwrap();
    // Who has the lock, and has not written, keeps no reader out.
    assert_eq!(table.try_read().unwrap(), [0; 16]);
    guard.set(&[1; 16]).unwrap();
    guard.update(|table| table[2] = 2).unwrap();
    assert_eq!(guard.get().unwrap()[2], 2);
    fails!(table.read(), LockError::Deadlock);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            fails!(table.try_read(), LockError::TimedOut);
            fails!(table.read_for(SHORT), LockError::TimedOut);
            fails!(table.try_write(), LockError::TimedOut);
            fails!(table.reset(), RegionError::TimedOut { .. });
        });
        others.join().unwrap();
    });
    guard.update(|table| table[2] = 1).unwrap();
    guard.unlock().unwrap();
    assert_eq!(table.read().unwrap(), [1; 16]);
}

#[test]
fn through_a_read_only_mapping_it_is_read_and_neither_made_nor_written() {
    let (_scratch, space, mapping) = ground();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let before: Vec<u8> = bytes(&mapping);
    let error = onlooker.open::<SeqLock<Table>>(AT).unwrap_err();
    assert!(matches!(error, RegionError::NotMade { offset: AT, wanted } if wanted.size == 128));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bytes(&mapping), before);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let theirs = onlooker.open::<SeqLock<Table>>(AT).unwrap();
    table.write().unwrap().set(&[5; 16]).unwrap();
    let before = bytes(&mapping);
    assert_eq!(theirs.read().unwrap(), [5; 16]);
    fails!(theirs.write(), LockError::Region(RegionError::ReadOnly));
    fails!(theirs.try_write(), LockError::Region(RegionError::ReadOnly));
    fails!(theirs.reset(), RegionError::ReadOnly);
    // In the middle of a change, and after the death of who made it, it writes nothing either.
    let guard = table.write().unwrap();
    guard.set(&[6; 16]).unwrap();
    let during = bytes(&mapping);
    std::thread::scope(|scope| {
        scope.spawn(|| fails!(theirs.read_for(SHORT), LockError::TimedOut)).join().unwrap();
    });
    assert_eq!(bytes(&mapping), during);
    guard.leave().unwrap();
    let left = bytes(&mapping);
    fails!(theirs.read(), LockError::WriterDied);
    assert_eq!(bytes(&mapping), left);
    assert_ne!(before, left);
}

fn bytes(mapping: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0; mapping.size() as usize];
    mapping.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_read_only_mapping_says_what_lies_where_no_sequence_lock_does() {
    let (_scratch, space, mapping) = ground();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    mapping.open::<Mutex<u64>>(0).unwrap();
    mapping.open::<SeqLock<u64>>(64).unwrap();
    mapping.set(256, &[1_u64; 8]).unwrap();
    let other = |found: RecordKind, error| matches!(error, RegionError::OtherRecord { found: tag, .. } if tag.kind == found);
    assert!(other(RecordKind::Mutex, onlooker.open::<SeqLock<u64>>(0).unwrap_err()));
    assert!(other(RecordKind::SeqLock, onlooker.open::<SeqLock<[u64; 2]>>(64).unwrap_err()));
    assert!(other(RecordKind::SeqLock, mapping.open::<Mutex<u64>>(64).unwrap_err()));
    fails!(onlooker.open::<SeqLock<u64>>(256), RegionError::NotARecord { found: 1, .. });
    fails!(onlooker.open::<SeqLock<u64>>(4), RegionError::Misaligned { .. });
    fails!(onlooker.open::<SeqLock<u64>>(4080), RegionError::OutOfBounds { .. });
    fails!(onlooker.open::<Mutex<u64>>(0), RegionError::ReadOnly);
}

#[test]
fn a_writer_killed_in_the_middle_of_a_change_is_told_to_readers_until_one_has_repaired() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let theirs = onlooker.open::<SeqLock<Table>>(AT).unwrap();
    let actor = changer(&scratch.url, "half");
    fails!(table.try_read(), LockError::TimedOut);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| fails!(theirs.read(), LockError::WriterDied));
        actor.kill();
        reader.join().unwrap();
    });
    assert!(begun.elapsed() < DEADLINE);
    fails!(table.try_read(), LockError::WriterDied);
    fails!(table.read_for(DEADLINE), LockError::WriterDied);
    // A writer that gives up repairs nothing.
    owner_died(table.write()).leave().unwrap();
    fails!(table.read(), LockError::WriterDied);
    let guard = owner_died(table.try_write());
    assert!(guard.is_inconsistent());
    assert_eq!(guard.get().unwrap()[3], 9);
    guard.set(&[4; 16]).unwrap();
    guard.mark_consistent().unwrap();
    drop(guard);
    assert_eq!(theirs.read().unwrap(), [4; 16]);
    drop(table.write().unwrap());
}

#[test]
fn a_writer_killed_before_it_writes_is_told_to_the_next_writer_only() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    changer(&scratch.url, "nothing").kill();
    assert_eq!(table.read().unwrap(), [0; 16]);
    // Dropped without repair: no writer has it any more, and the data are whole.
    drop(owner_died(table.write_for(DEADLINE)));
    fails!(table.write(), LockError::Unrecoverable);
    assert_eq!(table.read().unwrap(), [0; 16]);
    table.reset().unwrap();
    table.write().unwrap().set(&[1; 16]).unwrap();
    assert_eq!(table.read().unwrap(), [1; 16]);
}

#[test]
fn a_change_that_nobody_repairs_makes_the_lock_unrecoverable_until_it_is_reset() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let guard = table.write().unwrap();
        guard.update(|table| table[0] = 1).unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    fails!(table.read(), LockError::WriterDied);
    let guard = owner_died(table.write());
    guard.set(&[2; 16]).unwrap();
    drop(guard);
    fails!(table.read(), LockError::Unrecoverable);
    fails!(table.write(), LockError::Unrecoverable);
    table.reset().unwrap();
    assert_eq!(table.read().unwrap(), [2; 16]);
    drop(table.write().unwrap());
}

#[test]
fn a_fenced_writer_cannot_end_its_heirs_change() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let guard = table.write().unwrap();
    guard.set(&[1; 16]).unwrap();
    fence_me(&scratch, &space);
    let heir = mapped(&scratch.url, Access::ReadWrite);
    let theirs = heir.open::<SeqLock<Table>>(AT).unwrap();
    fails!(theirs.read(), LockError::WriterDied);
    let writer = owner_died(theirs.write_for(DEADLINE));
    fails!(guard.set(&[9; 16]), RegionError::Fenced);
    fails!(guard.unlock(), RegionError::Fenced);
    writer.set(&[2; 16]).unwrap();
    fails!(theirs.try_read(), LockError::Deadlock);
    writer.mark_consistent().unwrap();
    writer.unlock().unwrap();
    assert_eq!(theirs.read().unwrap(), [2; 16]);
}

const ROUNDS: u64 = 20_000;

fn write(args: &[&str]) {
    let mapping = mapped(args[0], Access::ReadWrite);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let guard = table.write().unwrap();
        guard.update(|table| table.iter_mut().for_each(|number| *number += 1)).unwrap();
    }
}

fn read(args: &[&str]) {
    let mapping = mapped(args[0], Access::ReadOnly);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    let mut last = 0;
    while last < 2 * ROUNDS {
        let seen = table.read().unwrap();
        assert!(seen.iter().all(|number| *number == seen[0]), "a torn table: {seen:?}");
        assert!(seen[0] >= last, "time ran backwards");
        last = seen[0];
    }
}

#[test]
fn readers_in_other_processes_see_whole_changes_only_and_see_the_last() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let roles = ["seq-write", "seq-read", "seq-write", "seq-read"];
    let actors = roles.map(|role| Actor::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    assert_eq!(table.read().unwrap(), [2 * ROUNDS; 16]);
}
