//! Sequence locks with their data, in the bytes of a region.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use commonhold::{
    Access, ErrorKind, LockError, Mapping, Mutex, RecordKind, RegionError, SeqLock, Space, field,
    plain,
};

use crate::{
    support::{
        DEADLINE, Role, SHORT, ScriptedProcess, at_once, busy, fails, fence_me, inconsistent,
        owner_died, say, stay,
    },
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
        guard.at(3).unwrap().set(9);
    }
    say("has it");
    stay();
}

fn changer(url: &str, how: &str) -> ScriptedProcess {
    let actor = ScriptedProcess::start("seq-half", &[url, how]);
    actor.says("has it");
    actor
}

#[test]
fn a_reader_sees_the_data_before_or_after_a_change_never_half_of_it() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    assert_eq!(table.read().unwrap(), [0; 16]);
    let guard = table.write().unwrap();
    // A writer that has not written yet keeps no reader out.
    assert_eq!(at_once(table.try_read()), [0; 16]);
    guard.set([1; 16]);
    guard.at(2).unwrap().set(2);
    assert_eq!(guard.get()[2], 2);
    fails!(table.read(), LockError::Deadlock(_));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            busy(table.try_read());
            fails!(table.read_for(SHORT), LockError::TimedOut(_));
            busy(table.try_write());
            fails!(table.reset(), LockError::TimedOut(_));
        });
        others.join().unwrap();
    });
    guard.with_mut(|table| table[2] = 1);
    guard.unlock().unwrap();
    assert_eq!(table.read().unwrap(), [1; 16]);
}

#[test]
fn a_read_only_mapping_reads_a_sequence_lock_and_neither_makes_nor_writes_one() {
    let (_scratch, space, mapping) = ground();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let before: Vec<u8> = bytes(&mapping);
    let error = onlooker.open::<SeqLock<Table>>(AT).unwrap_err();
    assert!(matches!(error, RegionError::NotMade { offset: AT, wanted } if wanted.size == 128));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(bytes(&mapping), before);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let theirs = onlooker.open::<SeqLock<Table>>(AT).unwrap();
    table.write().unwrap().set([5; 16]);
    let before = bytes(&mapping);
    assert_eq!(theirs.read().unwrap(), [5; 16]);
    let read_only = |error: &RegionError| matches!(error, RegionError::ReadOnly);
    fails!(theirs.write(), LockError::Region(error) if read_only(error));
    fails!(theirs.try_write(), LockError::Region(error) if read_only(error));
    fails!(theirs.write_recover(), LockError::Region(error) if read_only(error));
    fails!(theirs.write_repairing(|_| Ok(())), LockError::Region(error) if read_only(error));
    fails!(theirs.reset(), LockError::Region(error) if read_only(error));
    // It writes nothing during a change, or after the death of its writer, either.
    let guard = table.write().unwrap();
    guard.set([6; 16]);
    let during = bytes(&mapping);
    std::thread::scope(|scope| {
        scope.spawn(|| fails!(theirs.read_for(SHORT), LockError::TimedOut(_))).join().unwrap();
    });
    assert_eq!(bytes(&mapping), during);
    guard.leave_inconsistent().unwrap();
    let left = bytes(&mapping);
    assert_eq!(owner_died(theirs.read()).offset, Some(AT));
    // Nor if it has a repair, because it cannot write.
    owner_died(theirs.clone().repaired_by(|_| Ok(())).read());
    assert_eq!(bytes(&mapping), left);
    assert_ne!(before, left);
    let known = table.repaired_by(|table| {
        table.set([7; 16]);
        Ok(())
    });
    assert_eq!(known.read().unwrap(), [7; 16]);
    assert_eq!(theirs.read().unwrap(), [7; 16]);
}

fn bytes(mapping: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0; mapping.size() as usize];
    mapping.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_read_only_mapping_reports_what_lies_where_a_sequence_lock_was_expected() {
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
fn readers_learn_of_a_writer_killed_in_a_change_until_a_thread_repairs() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let onlooker = space.map("a", Access::ReadOnly).unwrap();
    let theirs = onlooker.open::<SeqLock<Table>>(AT).unwrap();
    let actor = changer(&scratch.url, "half");
    busy(table.try_read());
    let (begun, pid) = (Instant::now(), actor.pid());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| owner_died(theirs.read()));
        actor.kill();
        assert_eq!(reader.join().unwrap().owner.unwrap().pid, Some(pid));
    });
    assert!(begun.elapsed() < DEADLINE);
    let place = owner_died(table.try_read());
    assert_eq!((place.region.as_str(), place.offset), ("a", Some(AT)));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    assert_eq!(owner_died(table.read_for(DEADLINE)), place);
    assert_eq!(owner_died(table.try_write()), place);
    // A writer that only looks repairs nothing.
    let guard = inconsistent(table.write_recover());
    assert_eq!(guard.get()[3], 9);
    drop(guard);
    owner_died(table.read());
    fails!(table.write_repairing(|_| Err("no idea".into())), LockError::RepairFailed(_));
    owner_died(table.read());
    let guard = inconsistent(table.write_recover_for(DEADLINE));
    guard.set([4; 16]);
    drop(guard.mark_consistent().unwrap());
    assert_eq!(theirs.read().unwrap(), [4; 16]);
    drop(table.write().unwrap());
}

#[test]
fn only_the_next_writer_learns_of_a_writer_killed_before_it_writes() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    changer(&scratch.url, "nothing").kill();
    assert_eq!(table.read().unwrap(), [0; 16]);
    owner_died(table.write_for(DEADLINE));
    // Dropped without a repair, and given up: the data are whole, whatever becomes of the lock.
    drop(inconsistent(table.write_recover()));
    owner_died(table.write());
    assert_eq!(table.read().unwrap(), [0; 16]);
    inconsistent(table.write_recover()).give_up().unwrap();
    fails!(table.write(), LockError::Unrecoverable(_));
    assert_eq!(table.read().unwrap(), [0; 16]);
    table.reset().unwrap();
    table.write().unwrap().set([1; 16]);
    assert_eq!(table.read().unwrap(), [1; 16]);
}

#[test]
fn an_unrepaired_change_stays_inconsistent_until_it_is_given_up_and_the_lock_reset() {
    let (_scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let guard = table.write().unwrap();
        guard.at(0).unwrap().set(1);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    owner_died(table.read());
    let guard = inconsistent(table.write_recover());
    guard.set([2; 16]);
    drop(guard);
    owner_died(table.read());
    owner_died(table.write());
    inconsistent(table.write_recover()).give_up().unwrap();
    fails!(table.read(), LockError::Unrecoverable(_));
    fails!(table.write(), LockError::Unrecoverable(_));
    table.reset().unwrap();
    assert_eq!(table.read().unwrap(), [2; 16]);
    drop(table.write().unwrap());
}

#[test]
fn a_fenced_writer_cannot_end_a_change_of_the_next_writer() {
    let (scratch, space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let guard = table.write().unwrap();
    guard.set([1; 16]);
    fence_me(&scratch, &space);
    let heir = mapped(&scratch.url, Access::ReadWrite);
    let theirs = heir.open::<SeqLock<Table>>(AT).unwrap();
    owner_died(theirs.read());
    owner_died(theirs.write_for(DEADLINE));
    let writer = inconsistent(theirs.write_recover());
    guard.set([9; 16]);
    assert_eq!(writer.get(), [1; 16], "a fenced writer wrote");
    fails!(guard.unlock(), LockError::Fenced);
    writer.set([2; 16]);
    fails!(theirs.try_read(), LockError::Deadlock(_));
    writer.mark_consistent().unwrap().unlock().unwrap();
    assert_eq!(theirs.read().unwrap(), [2; 16]);
}

plain! {
    struct State { speed: u64, track: [u64; 30] }
}

#[test]
fn readers_can_copy_one_field_or_large_data_into_a_box() {
    let (_scratch, _space, mapping) = ground();
    let state = mapping.open::<SeqLock<State>>(AT).unwrap();
    let guard = state.write().unwrap();
    guard.field(field!(State, track)).slice(10..).unwrap().fill(&7);
    guard.field(field!(State, speed)).set(3);
    fails!(state.read_field(field!(State, speed)), LockError::Deadlock(_));
    guard.unlock().unwrap();
    assert_eq!(state.read_field(field!(State, speed)).unwrap(), 3);
    let track = state.read_boxed().unwrap().track;
    assert_eq!((track[9], track[10], track[29]), (0, 7, 7));
}

const ROUNDS: u64 = 20_000;

fn write(args: &[&str]) {
    let mapping = mapped(args[0], Access::ReadWrite);
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    say("ready");
    stay();
    for _ in 0..ROUNDS {
        let guard = table.write().unwrap();
        guard.with_mut(|table| table.iter_mut().for_each(|number| *number += 1));
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
fn readers_in_other_processes_see_only_whole_changes_and_the_last_one() {
    let (scratch, _space, mapping) = ground();
    let table = mapping.open::<SeqLock<Table>>(AT).unwrap();
    let roles = ["seq-write", "seq-read", "seq-write", "seq-read"];
    let actors = roles.map(|role| ScriptedProcess::start(role, &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    assert_eq!(table.read().unwrap(), [2 * ROUNDS; 16]);
}
