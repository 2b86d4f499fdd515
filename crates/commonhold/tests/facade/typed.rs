//! Records: locks with their data, which can be opened only as what they are.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use commonhold::{
    Access, Destroy, ErrorKind, Event, LockError, Mapping, Mutex, MutexGuard, Record, RecordKind,
    RecordTag, Recovered, RegionError, RwLock, Space, State, field, records,
    zerocopy::{FromBytes, Immutable, IntoBytes},
};

use crate::support::{
    DEADLINE, Role, SHORT, Scratch, ScriptedProcess, at_once, busy, fails, fence_me, inconsistent,
    owner_died, say, stay, until_waiters,
};

pub(crate) const ROLES: &[Role] = &[("typed-half", change_half), ("typed-count", count)];

/// Two numbers that are equal unless a thread dies between writing them; and a field of odd length that misaligns
/// the fields after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
struct Odd {
    first: u64,
    second: u64,
    byte: u8,
    askew: [u8; 6],
}

type Pair = [u64; 2];
/// How the mutex is taken.
type Way = fn(&Mutex<Pair>) -> MutexGuard<'_, Pair>;

/// A space with a region `a`, and a mapping of it.
pub(crate) fn ground() -> (Scratch, Space, Mapping) {
    let scratch = Scratch::formatted();
    let space = scratch.open();
    space.create("a", 4096).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    (scratch, space, mapping)
}

/// Takes the mutex, changes one number of the pair, and keeps the mutex.
fn change_half(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    let pair = mapping.open::<Mutex<Pair>>(64).unwrap();
    let change = |guard: &MutexGuard<'_, Pair>, how| {
        guard.with_mut(|pair| pair[0] += 1);
        say(how);
        stay();
    };
    match pair.lock_recover().unwrap() {
        Recovered::Consistent(guard) => change(&guard, "clean"),
        Recovered::Inconsistent(guard) => change(&guard, "owner died"),
    }
}

#[test]
fn a_thread_that_asks_to_repair_gets_the_guard_of_a_killed_owner_with_its_data() {
    let (scratch, space, mapping) = ground();
    let pair = mapping.open::<Mutex<Pair>>(64).unwrap();
    pair.lock().unwrap().set([7, 7]);
    let actor = ScriptedProcess::start("typed-half", &[&scratch.url]);
    actor.says("clean");
    busy(pair.try_lock());
    let start = Instant::now();
    fails!(pair.lock_for(SHORT), LockError::TimedOut(place)
        if place.owner.as_ref().unwrap().pid == Some(actor.pid()));
    assert!(start.elapsed() >= SHORT);
    let pid = actor.pid();
    actor.kill();
    // Every thread that only locks it learns which owner left it, and leaves it inconsistent.
    let place = owner_died(pair.lock());
    assert_eq!((place.region.as_str(), place.offset), ("a", Some(64)));
    assert_eq!(place.owner.as_ref().unwrap().pid, Some(pid));
    assert_eq!(owner_died(pair.try_lock()), place);
    let guard = inconsistent(pair.lock_recover());
    assert_eq!(guard.get(), [8, 7]);
    assert_eq!(*guard.place(), place);
    // Dropped without a repair, it is inconsistent as before.
    drop(guard);
    owner_died(pair.lock());
    // The next owner gets the same error, and is killed as well, while another thread waits.
    let actor = ScriptedProcess::start("typed-half", &[&scratch.url]);
    actor.says("owner died");
    let pid = actor.pid();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| owner_died(pair.lock_for(DEADLINE)));
        until_waiters(&space, "a", 1);
        actor.kill();
        assert_eq!(waiter.join().unwrap().owner.unwrap().pid, Some(pid));
    });
    // Only its owner can give it up.
    let guard = inconsistent(pair.lock_recover());
    assert_eq!(guard.get(), [9, 7]);
    guard.give_up().unwrap();
    fails!(pair.lock(), LockError::Unrecoverable(_));
    fails!(pair.try_lock(), LockError::Unrecoverable(_));
    fails!(pair.lock_recover(), LockError::Unrecoverable(_));
    pair.reset().unwrap();
    let guard = pair.lock().unwrap();
    assert_eq!(guard.get(), [9, 7], "a reset changes no data");
    fails!(pair.reset(), LockError::TimedOut(_));
    guard.leave_inconsistent().unwrap();
    owner_died(pair.lock());
    let guard = inconsistent(pair.lock_recover_for(DEADLINE));
    guard.with_mut(|pair| pair[1] = pair[0]);
    guard.mark_consistent().unwrap().unlock().unwrap();
    assert_eq!(pair.lock().unwrap().get(), [9, 9]);
}

#[test]
fn a_repair_that_fails_or_panics_leaves_the_lock_inconsistent_and_a_handles_own_repair_is_always_tried()
 {
    let (scratch, _space, mapping) = ground();
    let pair = mapping.open::<Mutex<Pair>>(64).unwrap();
    let actor = ScriptedProcess::start("typed-half", &[&scratch.url]);
    actor.says("clean");
    actor.kill();
    let error = pair.lock_repairing(|_| Err("no idea".into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OwnerDied);
    assert!(error.to_string().ends_with("could not be repaired: no idea"), "{error}");
    fails!(&Err::<(), _>(error), LockError::RepairFailed(failed)
        if failed.place.offset == Some(64) && failed.error.to_string() == "no idea");
    let repair = |_: &MutexGuard<'_, Pair>| std::panic::resume_unwind(Box::new(()));
    assert!(catch_unwind(AssertUnwindSafe(|| pair.lock_repairing(repair))).is_err());
    owner_died(pair.lock());
    let known = pair.clone().repaired_by(|pair| {
        pair.at(1)?.set(pair.at(0)?.get());
        Ok(())
    });
    assert_eq!(known.lock().unwrap().get(), [1, 1]);
    assert_eq!(pair.lock().unwrap().get(), [1, 1]);
    // All methods of that handle repair, and those of other handles do not.
    let ways: [Way; 3] = [
        |known| known.lock().unwrap(),
        |known| at_once(known.try_lock()),
        |known| known.lock_for(DEADLINE).unwrap(),
    ];
    for way in ways {
        let guard = pair.lock().unwrap();
        guard.at(0).unwrap().with_mut(|number| *number += 1);
        guard.leave_inconsistent().unwrap();
        owner_died(pair.try_lock());
        let [one, other] = way(&known).get();
        assert_eq!(one, other);
        drop(pair.lock().unwrap());
    }
    assert_eq!(pair.lock().unwrap().get(), [4, 4]);
}

const ROUNDS: u64 = 5000;

fn count(args: &[&str]) {
    let space = Space::open(args[0]).unwrap();
    let mapping = space.map("a", Access::ReadWrite).unwrap();
    say("ready");
    stay();
    let pair = mapping.open::<Mutex<Pair>>(0).unwrap();
    for _ in 0..ROUNDS {
        let guard = pair.lock().unwrap();
        let both = guard.with_mut(|pair| {
            pair.iter_mut().for_each(|number| *number += 1);
            *pair
        });
        assert_eq!(both[0], both[1], "a torn pair");
    }
}

#[test]
fn processes_count_together_and_the_first_of_them_makes_the_record() {
    let (scratch, _space, mapping) = ground();
    let actors = [(); 3].map(|()| ScriptedProcess::start("typed-count", &[&scratch.url]));
    for actor in &actors {
        actor.says("ready");
    }
    let ends = actors.map(|actor| std::thread::spawn(|| actor.succeed()));
    for end in ends {
        end.join().unwrap();
    }
    let sum = mapping.open::<Mutex<Pair>>(0).unwrap().lock().unwrap().get();
    assert_eq!(sum, [3 * ROUNDS; 2]);
    // The data lie where the constants say.
    assert_eq!(mapping.get::<Pair>(Mutex::<Pair>::DATA).unwrap(), sum);
}

#[test]
fn opening_a_record_as_another_kind_or_size_is_an_error_that_names_both() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    mutex.lock().unwrap().set(5);
    let tag = |kind, size| RecordTag { kind, size };
    // The tag of a reader/writer lock lies two words further on than that of a mutex.
    let error = mapping.open::<RwLock<[u64; 8]>>(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    fails!(&Err::<(), _>(error), RegionError::OtherRecord { offset: 0, wanted, found }
        if (*wanted, *found) == (tag(RecordKind::RwLock, 64), tag(RecordKind::Mutex, 8)));
    let table = mapping.open::<RwLock<[u64; 8]>>(512).unwrap();
    // It has not been used: there are zeros where a mutex has its word and its tag.
    fails!(mapping.open::<Mutex<[u64; 8]>>(512), RegionError::OtherRecord { offset: 512, wanted, found }
        if (*wanted, *found) == (tag(RecordKind::Mutex, 64), tag(RecordKind::RwLock, 64)));
    drop(table.write().unwrap());
    let small = mapping.open::<Mutex<u32>>(0).unwrap_err();
    fails!(&Err::<(), _>(&small), RegionError::OtherRecord { offset: 0, wanted, found }
        if *wanted == tag(RecordKind::Mutex, 4) && *found == tag(RecordKind::Mutex, 8));
    assert_eq!(
        small.to_string(),
        "at offset 0 lies a mutex with 8 bytes of data, not a mutex with 4 bytes of data"
    );
    // An event has its tag where a mutex has it.
    fails!(mapping.open::<Event>(0), RegionError::OtherRecord { wanted, .. }
        if *wanted == tag(RecordKind::Event, 0));
    fails!(mapping.open::<RwLock<[u64; 7]>>(512), RegionError::OtherRecord { found, .. }
        if *found == tag(RecordKind::RwLock, 64));
    // Nothing was harmed by the attempts.
    assert_eq!(mapping.open::<Mutex<u64>>(0).unwrap().lock().unwrap().get(), 5);
    drop(mapping.open::<RwLock<[u64; 8]>>(512).unwrap().write().unwrap());
}

#[test]
fn other_bytes_are_refused_as_a_record_and_stay_as_they_are() {
    let (_scratch, _space, mapping) = ground();
    // A lock word that is taken, and no tag: a bare mutex.
    let bare = mapping.mutex(0).unwrap();
    let guard = bare.lock().unwrap();
    fails!(mapping.open::<Mutex<u64>>(0), RegionError::NotARecord { offset: 0, found: 0 });
    drop(guard);
    // Zeros where the words are, and something else where the tag is.
    for tag in [1, u64::MAX, 0x4741_5463_0000_0008, 0x4741_5400_0000_0008] {
        mapping.set(104, &tag).unwrap();
        let error = mapping.open::<Mutex<u64>>(96).unwrap_err();
        fails!(&Err::<(), _>(&error), RegionError::NotARecord { offset: 96, found }
            if *found == tag);
        assert!(error.to_string().contains(&format!("{tag:#x}")), "{error}");
        assert_eq!(mapping.get::<[u64; 3]>(96).unwrap(), [0, tag, 0]);
    }
}

#[test]
fn a_record_misaligned_outside_or_read_only_is_an_error() {
    let (_scratch, space, mapping) = ground();
    let size = mapping.size();
    for offset in [1, 4, 12, 4095, u64::MAX] {
        fails!(mapping.open::<Mutex<u64>>(offset), RegionError::Misaligned { offset: at }
            if *at == offset);
    }
    let last = size - Mutex::<u64>::SIZE;
    drop(mapping.open::<Mutex<u64>>(last).unwrap().lock().unwrap());
    for offset in [last + 8, size, size + 8, u64::MAX - 7, 1 << 48] {
        fails!(mapping.open::<Mutex<u64>>(offset), RegionError::OutOfBounds { offset: at, len: 24, size: of }
            if (*at, *of) == (offset, size));
        fails!(mapping.open::<RwLock<[u64; 600]>>(offset), RegionError::OutOfBounds { .. });
    }
    let read_only = space.map("a", Access::ReadOnly).unwrap();
    fails!(read_only.open::<Mutex<u64>>(0), RegionError::ReadOnly);
    fails!(read_only.open::<RwLock<u64>>(0), RegionError::ReadOnly);
    assert_eq!(mapping.get::<[u64; 8]>(0).unwrap(), [0; 8], "a refused record was tagged");
}

/// Opens one record after the other, in a race with another process, and says which ones it got.
fn open_in_step<R: Record>(mapping: &Mapping, step: &AtomicU64) -> Vec<bool> {
    let open_one = |number| {
        step.fetch_add(1, Ordering::SeqCst);
        // Neither opens before both are ready, so that they race within a few instructions.
        while step.load(Ordering::SeqCst) < 2 * (number + 1) {
            std::hint::spin_loop();
        }
        mapping.open::<R>(number * RwLock::<u64>::SIZE).is_ok()
    };
    (0..RACES).map(open_one).collect()
}

const RACES: u64 = 20_000;

#[test]
fn one_of_two_processes_that_make_different_records_at_one_place_is_refused() {
    let (_scratch, space, _mapping) = ground();
    space.create("b", RACES * RwLock::<u64>::SIZE).unwrap();
    let mapping = space.map("b", Access::ReadWrite).unwrap();
    let step = AtomicU64::new(0);
    let (mutexes, tables) = std::thread::scope(|scope| {
        let one = scope.spawn(|| open_in_step::<Mutex<u64>>(&mapping, &step));
        let other = scope.spawn(|| open_in_step::<RwLock<u64>>(&mapping, &step));
        (one.join().unwrap(), other.join().unwrap())
    });
    for (number, (mutex, table)) in mutexes.into_iter().zip(tables).enumerate() {
        assert!(mutex != table, "record {number}: both, or neither: {mutex}");
    }
}

#[test]
fn a_panic_under_a_guard_leaves_the_lock_inconsistent_and_no_half_change() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<Pair>>(0).unwrap();
    let table = mapping.open::<RwLock<Pair>>(64).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _other = table.write().unwrap();
        let guard = mutex.lock().unwrap();
        guard.with_mut(|pair| {
            pair[0] = 1;
            std::panic::resume_unwind(Box::new(()));
        })
    }));
    assert!(unwound.is_err());
    assert_eq!(owner_died(mutex.lock()).owner.unwrap().pid, Some(std::process::id()));
    let guard = inconsistent(mutex.lock_recover());
    assert_eq!(guard.get(), [0, 0]);
    drop(guard.mark_consistent().unwrap());
    drop(mutex.lock().unwrap());
    owner_died(table.read());
    drop(inconsistent(table.write_recover()).mark_consistent().unwrap());
    drop(table.read().unwrap());
}

#[test]
fn a_typed_mutex_taken_twice_by_one_thread_is_a_deadlock() {
    let (_scratch, _space, mapping) = ground();
    let mutex = mapping.open::<Mutex<()>>(0).unwrap();
    let again = mapping.open::<Mutex<()>>(0).unwrap();
    let guard = mutex.lock().unwrap();
    fails!(again.lock(), LockError::Deadlock(_));
    fails!(again.try_lock(), LockError::Deadlock(_));
    fails!(again.lock_for(DEADLINE), LockError::Deadlock(_));
    guard.unlock().unwrap();
    drop(again.lock().unwrap());
}

#[test]
fn fields_are_read_and_written_alone_at_any_offset() {
    let (_scratch, _space, mapping) = ground();
    let odd = mapping.open::<Mutex<Odd>>(0).unwrap();
    // 23 bytes, and a neighbour right behind the word that they end in.
    assert_eq!(Mutex::<Odd>::SIZE, 8 + 8 + 24);
    mapping.set(Mutex::<Odd>::SIZE, &u64::MAX).unwrap();
    let guard = odd.lock().unwrap();
    let value = Odd { first: 1, second: u64::MAX - 1, byte: 3, askew: [4, 5, 6, 7, 8, 9] };
    guard.set(value);
    assert_eq!(guard.get(), value);
    assert_eq!(guard.field(field!(Odd, byte)).get(), 3);
    assert_eq!(guard.field(field!(Odd, askew)).get(), [4, 5, 6, 7, 8, 9]);
    guard.field(field!(Odd, askew)).set([14, 15, 16, 17, 18, 19]);
    guard.field(field!(Odd, byte)).set(13);
    assert_eq!(guard.get(), Odd { byte: 13, askew: [14, 15, 16, 17, 18, 19], ..value });
    guard.field(field!(Odd, askew)).at(5).unwrap().set(29);
    guard.field(field!(Odd, askew)).slice(1..3).unwrap().copy_from(&[25, 26]).unwrap();
    fails!(
        guard.field(field!(Odd, askew)).at(6),
        RegionError::OutOfBounds { offset: 6, len: 1, size: 6 }
    );
    assert_eq!(guard.get(), Odd { byte: 13, askew: [14, 25, 26, 17, 18, 29], ..value });
    assert_eq!(mapping.get::<u64>(Mutex::<Odd>::SIZE).unwrap(), u64::MAX);
}

records! {
    /// A row with a lock for each column.
    struct Account {
        balance: Mutex<i64>,
        log: RwLock<[u64; 8]>,
        moved: Event,
    }
}

records! {
    struct Two { left: Account, right: Account }
}

#[test]
fn the_locks_of_a_struct_of_records_lie_one_behind_the_other() {
    let (_scratch, _space, mapping) = ground();
    let log = 100 * 8 + Mutex::<i64>::SIZE;
    let event = log + RwLock::<[u64; 8]>::SIZE;
    assert_eq!(Account::SIZE, Mutex::<i64>::SIZE + RwLock::<[u64; 8]>::SIZE + Event::SIZE);
    assert_eq!((Account::SIZE, Two::SIZE), (24 + 96 + 16, 2 * Account::SIZE));
    let account: Account = mapping.open(800).unwrap();
    account.balance.lock().unwrap().set(-3);
    account.log.write().unwrap().at(7).unwrap().set(9);
    account.moved.signal().unwrap();
    assert_eq!(mapping.open::<Mutex<i64>>(800).unwrap().lock().unwrap().get(), -3);
    let by_hand = mapping.open::<RwLock<[u64; 8]>>(log).unwrap();
    assert_eq!(by_hand.read().unwrap().get(), [0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(mapping.open::<Event>(event).unwrap().sequence(), 1);
    let two = mapping.open::<Two>(800).unwrap();
    assert_eq!(two.left.balance.lock().unwrap().get(), -3);
    assert_eq!(two.right.balance.lock().unwrap().get(), 0);
    // A struct that does not fit is not begun.
    let last = mapping.size() - Account::SIZE;
    fails!(mapping.open::<Account>(last + 8), RegionError::OutOfBounds { .. });
    fails!(mapping.open::<Account>(u64::MAX - 7), RegionError::OutOfBounds { .. });
    fails!(mapping.open::<Account>(last - 1), RegionError::Misaligned { .. });
    assert_eq!(mapping.get::<[u64; 17]>(last).unwrap(), [0; 17]);
    mapping.open::<Account>(last).unwrap();
}

#[test]
fn a_deferred_region_keeps_its_locks_until_it_is_unmapped_and_the_next_region_begins_with_zeros() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let table = mapping.open::<RwLock<u64>>(64).unwrap();
    mutex.lock().unwrap().set(1);
    // Its guard is forgotten by a thread that lives on.
    std::mem::forget(table.read().unwrap());
    let other = scratch.open();
    other.destroy("a", Destroy::Deferred).unwrap();
    assert_eq!(other.stat("a").unwrap().state, State::Destroying);
    let guard = mutex.lock().unwrap();
    guard.with_mut(|number| *number += 1);
    assert_eq!(guard.get(), 2);
    drop(guard);
    drop(mapping.open::<Mutex<u8>>(128).unwrap().lock().unwrap());
    let place = mapping.offset();
    // A lock that was opened in it keeps it.
    drop(mapping);
    assert_eq!(other.stat("a").unwrap().state, State::Destroying);
    assert_eq!(mutex.lock().unwrap().get(), 2);
    drop((mutex, table));
    fails!(other.stat("a"), RegionError::NotFound { .. });
    fails!(space.map("a", Access::ReadWrite), RegionError::NotFound { .. });
    // Two regions have had this extent by then, and a reader of one of them is left.
    space.create("b", 4096).unwrap();
    let next = space.map("b", Access::ReadWrite).unwrap();
    assert_eq!(next.offset(), place);
    assert_eq!(next.open::<Mutex<u64>>(0).unwrap().lock().unwrap().get(), 0);
    let table = next.open::<RwLock<u64>>(64).unwrap();
    drop(at_once(table.try_write()));
    drop(table.read().unwrap());
    drop(at_once(table.try_write()));
    // Bytes that were a mutex there may be another record here.
    drop(next.open::<RwLock<[u64; 4]>>(128).unwrap().write().unwrap());
}

#[test]
fn a_fenced_process_writes_nothing_and_every_lock_and_guard_says_so() {
    let (scratch, space, mapping) = ground();
    let mutex = mapping.open::<Mutex<u64>>(0).unwrap();
    let table = mapping.open::<RwLock<u64>>(64).unwrap();
    let another = mapping.open::<RwLock<u64>>(128).unwrap();
    let left = mapping.open::<Mutex<u64>>(192).unwrap();
    let guard = mutex.lock().unwrap();
    let writer = table.write().unwrap();
    let reader = another.read().unwrap();
    left.lock().unwrap().leave_inconsistent().unwrap();
    let repaired = inconsistent(left.lock_recover());
    let free_mutex = mapping.open::<Mutex<u64>>(256).unwrap();
    let free_table = mapping.open::<RwLock<u64>>(512).unwrap();
    let value = mapping.value::<u64>(1024).unwrap();
    guard.set(1);
    let other = scratch.open();
    let theirs = other.map("a", Access::ReadWrite).unwrap();
    fence_me(&scratch, &space);
    // Setters return no error: their writes are dropped, and freeing the lock reports that.
    guard.set(2);
    guard.with_mut(|number| *number = 2);
    writer.set(2);
    writer.set_from(&2);
    fails!(value.store(2), RegionError::Fenced);
    fails!(free_mutex.lock(), LockError::Fenced);
    fails!(free_table.write(), LockError::Fenced);
    fails!(free_table.read(), LockError::Fenced);
    fails!(mapping.open::<Mutex<u64>>(1032), RegionError::Fenced);
    // Others can take the locks, and their changes are not undone.
    let their_mutex = theirs.open::<Mutex<u64>>(0).unwrap();
    owner_died(their_mutex.try_lock());
    let taken = inconsistent(their_mutex.lock_recover());
    assert_eq!(taken.get(), 1);
    taken.set(3);
    let taken = taken.mark_consistent().unwrap();
    let their_table = theirs.open::<RwLock<u64>>(64).unwrap();
    owner_died(their_table.try_read());
    assert_eq!(inconsistent(their_table.write_recover()).get(), 0);
    drop(at_once(theirs.open::<RwLock<u64>>(128).unwrap().try_write()));
    owner_died(theirs.open::<Mutex<u64>>(192).unwrap().lock());
    assert_eq!(theirs.get::<u64>(1024).unwrap(), 0);
    fails!(repaired.mark_consistent(), LockError::Fenced);
    fails!(guard.unlock(), LockError::Fenced);
    fails!(writer.unlock(), LockError::Fenced);
    fails!(reader.unlock(), LockError::Fenced);
    assert_eq!(taken.get(), 3);
    taken.unlock().unwrap();
}
